//! What tasks and processes have in common: a table of what runs, a signal for each, graces, reports.
//!
//! Each instance has a supervisor, a tokio task that waits for its end and passes signals on. The table sets the signal; the
//! supervisor reports the end into the table. So nothing is ever sent to what has ended.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use sim_core::sync::{Arc, Mutex};
use sim_core::time::Instant;
use tokio::sync::watch;

use super::{LaunchRefused, Report, Wake};
use crate::config::WarmState;
use crate::message::{InstanceId, LaunchOrder};

/// What a supervisor is told. The latest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// Go on.
    Run,
    /// Stand still.
    Freeze,
    /// Finish, and end.
    Stop,
    /// End now.
    Kill,
    /// Go on, whatever becomes of the table.
    Free,
}

/// What the end of an instance will mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    Run,
    End,
    Pause,
    Released,
}

struct Entry<E> {
    order: LaunchOrder,
    endpoint: E,
    /// `None` while it is stopped for the warm pool.
    signal: Option<watch::Sender<Signal>>,
    aim: Aim,
    /// When it is killed unless it has ended.
    kill_at: Option<Instant>,
}

struct State<E> {
    /// Bound: what the group launches, and what it has released and runs on.
    entries: BTreeMap<InstanceId, Entry<E>>,
    /// What is being started, and how it ended if it has. Bound: the launches under way.
    starting: BTreeMap<InstanceId, Option<String>>,
    /// Bound: a few for each instance, fetched at each poll.
    reports: VecDeque<Report<E>>,
    wake: Option<Wake>,
}

/// The table.
pub(super) struct Table<E> {
    state: Arc<Mutex<State<E>>>,
    grace: Duration,
}

/// The end of one instance, to be reported by its supervisor. Dropped without a report, it reports itself: the runtime ended.
pub(super) struct Ending<E> {
    state: Arc<Mutex<State<E>>>,
    id: InstanceId,
    reason: Option<String>,
}

impl<E: Clone> Table<E> {
    pub(super) fn new(grace: Duration) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                entries: BTreeMap::new(),
                starting: BTreeMap::new(),
                reports: VecDeque::new(),
                wake: None,
            })),
            grace,
        }
    }

    pub(super) fn set_grace(&mut self, grace: Duration) {
        self.grace = grace;
    }

    pub(super) fn connect(&self, wake: Wake) {
        self.state.lock().wake = Some(wake);
    }

    /// How many run.
    pub(super) fn running(&self) -> usize {
        let state = self.state.lock();
        state
            .entries
            .values()
            .filter(|e| e.signal.is_some())
            .count()
    }

    /// Starts an instance by `start`, which begins its supervisor.
    pub(super) fn launch(
        &self,
        order: &LaunchOrder,
        start: impl FnOnce(&LaunchOrder, watch::Receiver<Signal>, Ending<E>) -> Result<E, LaunchRefused>,
    ) -> Result<(), LaunchRefused> {
        let (sender, receiver) = watch::channel(Signal::Run);
        let ending = Ending {
            state: self.state.clone(),
            id: order.id,
            reason: None,
        };
        // Foreign code starts it, without the lock. It may have ended before it is entered.
        let id = order.id;
        self.state.lock().starting.insert(id, None);
        let started = start(order, receiver, ending);
        let mut state = self.state.lock();
        let end = state.starting.remove(&id).flatten();
        let endpoint = started?;
        let entry = Entry {
            order: order.clone(),
            endpoint: endpoint.clone(),
            signal: Some(sender),
            aim: Aim::Run,
            kill_at: None,
        };
        state.reports.push_back(Report::Started { id, endpoint });
        match end {
            Some(reason) => {
                state.entries.remove(&id);
                state.reports.push_back(Report::Ended { id, reason });
            }
            None => {
                state.entries.insert(id, entry);
            }
        }
        Ok(())
    }

    pub(super) fn terminate(&self, id: InstanceId, now: Instant) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let kill_at = now + self.grace;
        let ended = |reason: &str| Report::Ended {
            id,
            reason: reason.to_owned(),
        };
        match state.entries.get_mut(&id) {
            None => state.reports.push_back(ended("not there")),
            Some(Entry { signal: None, .. }) => {
                state.entries.remove(&id);
                state.reports.push_back(ended("ended while it was stopped"));
            }
            Some(entry) => {
                entry.aim = Aim::End;
                entry.kill_at.get_or_insert(kill_at);
                if let Some(signal) = &entry.signal {
                    signal.send_if_modified(|signal| {
                        let changes = *signal != Signal::Kill && *signal != Signal::Stop;
                        if changes {
                            *signal = Signal::Stop;
                        }
                        changes
                    });
                }
            }
        }
    }

    pub(super) fn poll(&self, now: Instant) -> Option<Report<E>> {
        let mut state = self.state.lock();
        for entry in state.entries.values_mut() {
            if entry.kill_at.is_some_and(|at| at <= now) {
                entry.kill_at = None;
                if let Some(signal) = &entry.signal {
                    signal.send_replace(Signal::Kill);
                }
            }
        }
        state.reports.pop_front()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let state = self.state.lock();
        if !state.reports.is_empty() {
            return Some(Instant::ORIGIN);
        }
        state
            .entries
            .values()
            .filter_map(|entry| entry.kill_at)
            .min()
    }

    pub(super) fn pause(
        &self,
        id: InstanceId,
        how: WarmState,
        now: Instant,
    ) -> Result<(), LaunchRefused> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let entry = state
            .entries
            .get_mut(&id)
            .ok_or_else(|| LaunchRefused::new("not there"))?;
        let signal = entry
            .signal
            .as_ref()
            .ok_or_else(|| LaunchRefused::new("stopped already"))?;
        match how {
            WarmState::Stopped => {
                entry.aim = Aim::Pause;
                entry.kill_at = Some(now + self.grace);
                signal.send_replace(Signal::Stop);
            }
            WarmState::Hibernated => {
                signal.send_replace(Signal::Freeze);
                state.reports.push_back(Report::Paused { id });
            }
            WarmState::Running => state.reports.push_back(Report::Paused { id }),
        }
        Ok(())
    }

    pub(super) fn resume(
        &self,
        id: InstanceId,
        start: impl FnOnce(&LaunchOrder, watch::Receiver<Signal>, Ending<E>) -> Result<E, LaunchRefused>,
    ) -> Result<(), LaunchRefused> {
        let order = {
            let mut state = self.state.lock();
            let state = &mut *state;
            let entry = state
                .entries
                .get_mut(&id)
                .ok_or_else(|| LaunchRefused::new("not there"))?;
            if let Some(signal) = &entry.signal {
                signal.send_replace(Signal::Run);
                let endpoint = entry.endpoint.clone();
                state.reports.push_back(Report::Started { id, endpoint });
                return Ok(());
            }
            entry.order.clone()
        };
        self.launch(&order, start)
    }

    pub(super) fn release(&self, id: InstanceId) {
        if let Some(entry) = self.state.lock().entries.get_mut(&id) {
            entry.aim = Aim::Released;
            entry.kill_at = None;
            if let Some(signal) = &entry.signal {
                signal.send_replace(Signal::Free);
            }
        }
    }

    pub(super) fn adopt(&self, id: InstanceId) -> Result<E, LaunchRefused> {
        let mut state = self.state.lock();
        match state.entries.get_mut(&id) {
            Some(entry) if entry.aim == Aim::Released => {
                entry.aim = Aim::Run;
                if let Some(signal) = &entry.signal {
                    signal.send_replace(Signal::Run);
                }
                Ok(entry.endpoint.clone())
            }
            _ => Err(LaunchRefused::new("no such instance was given away")),
        }
    }
}

impl<E> Drop for Table<E> {
    /// Ends all but what was given away: their senders go.
    fn drop(&mut self) {
        let entries = std::mem::take(&mut self.state.lock().entries);
        drop(entries);
    }
}

impl<E> Ending<E> {
    /// Reports the end.
    pub(super) fn report(mut self, reason: impl Into<String>) {
        self.reason = Some(reason.into());
    }

    /// Nothing ever ran: nothing is reported.
    pub(super) fn disarm(mut self) {
        self.id = NOBODY;
        self.reason = None;
    }
}

/// An id that no group gives.
const NOBODY: InstanceId = InstanceId::new(u64::MAX);

impl<E> Drop for Ending<E> {
    fn drop(&mut self) {
        if self.id == NOBODY {
            return;
        }
        let id = self.id;
        let reason = self
            .reason
            .take()
            .unwrap_or_else(|| "its runtime ended".to_owned());
        let wake = {
            let mut state = self.state.lock();
            let state = &mut *state;
            if let Some(end) = state.starting.get_mut(&id) {
                *end = Some(reason);
                return;
            }
            match state.entries.get_mut(&id).map(|entry| entry.aim) {
                Some(Aim::Pause) => {
                    if let Some(entry) = state.entries.get_mut(&id) {
                        entry.signal = None;
                        entry.kill_at = None;
                        entry.aim = Aim::Run;
                    }
                    state.reports.push_back(Report::Paused { id });
                }
                Some(Aim::Run | Aim::End) => {
                    state.entries.remove(&id);
                    state.reports.push_back(Report::Ended { id, reason });
                }
                Some(Aim::Released) => {
                    state.entries.remove(&id);
                }
                None => {}
            }
            state.wake.clone()
        };
        if let Some(wake) = wake {
            wake.wake();
        }
    }
}

/// Waits for the next signal that is not `seen`; `Kill` when the table is gone, unless it was set free.
pub(super) async fn next_signal(receiver: &mut watch::Receiver<Signal>) -> Signal {
    let free = *receiver.borrow() == Signal::Free;
    match receiver.changed().await {
        Ok(()) => *receiver.borrow_and_update(),
        Err(_) if free || *receiver.borrow() == Signal::Free => std::future::pending().await,
        Err(_) => Signal::Kill,
    }
}
