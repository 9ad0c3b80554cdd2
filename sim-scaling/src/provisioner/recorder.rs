//! A provisioner that launches nothing: what would happen is written in a script, and happens in virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use sim_core::sync::{Arc, Mutex};
use sim_core::time::Instant;

use super::{LaunchRefused, Provisioner, Report, Wake};
use crate::config::WarmState;
use crate::message::{Health, InstanceId, LaunchOrder};

/// How many calls a recorder remembers: 65,536; the oldest go first.
const MAX_TOLD: usize = 65_536;

/// What happens to launches, and how long things take. Read at each launch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Script {
    /// From the launch to the start. Default: 0.
    pub start: Duration,
    /// From the order to end to the end. Default: 0.
    pub stop: Duration,
    /// From the order to pause to the pause. Default: 0.
    pub pause: Duration,
    /// How many of the next launches fail, after `start`. Default: 0.
    pub fail: u32,
    /// Zones in which launches fail. Default: none.
    pub failing_zones: BTreeSet<String>,
    /// Zones in which launches are refused at once. Default: none.
    pub refusing_zones: BTreeSet<String>,
    /// Whether what is told to end does not. Default: false.
    pub ignore_stop: bool,
    /// Whether launches are never reported. Default: false.
    pub ignore_start: bool,
}

/// What a recorder was told.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Told {
    /// To launch.
    Launch(LaunchOrder),
    /// To end.
    Terminate(InstanceId),
    /// To pause.
    Pause(InstanceId, WarmState),
    /// To resume.
    Resume(InstanceId),
    /// To let go.
    LetGo(InstanceId),
    /// To take over.
    Adopt(InstanceId),
}

/// A [`Provisioner`] for tests and simulations: it records what it is told, and reports what its [`Script`] says, when its
/// time comes. The endpoint is the instance's id.
///
/// A handle: clones are the same recorder.
///
/// ```
/// use std::time::Duration;
/// use sim_core::clock::Clock;
/// use sim_core::seam::Timed;
/// use sim_core::time::Timestamp;
/// use sim_scaling::provisioner::Recorder;
/// use sim_scaling::{Group, GroupConfig};
///
/// let (clock, time) = Clock::virtual_at(Timestamp::UNIX_EPOCH);
/// let recorder = Recorder::new();
/// recorder.script(|script| script.start = Duration::from_secs(90));
/// let group = Group::builder(GroupConfig::new("web", 2, 4), recorder)
///     .clock(clock)
///     .build()?;
///
/// group.advance(time.now());
/// assert_eq!(group.stats().pending, 2);
/// time.advance(Duration::from_secs(90));
/// group.advance(time.now());
/// assert_eq!(group.stats().in_service, 2);
/// # Ok::<(), sim_scaling::ConfigError>(())
/// ```
#[derive(Clone, Default)]
pub struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Mutex<Option<Wake>>,
}

#[derive(Default)]
struct State {
    script: Script,
    /// Bound: [`MAX_TOLD`].
    told: VecDeque<Told>,
    /// By when, then by order. Bound: two for each instance.
    due: BTreeMap<(Instant, u64), Report<InstanceId>>,
    sequence: u64,
    /// What runs. Bound: what the group launches.
    running: BTreeSet<InstanceId>,
    foreign: BTreeSet<InstanceId>,
}

impl Recorder {
    /// A recorder that starts and ends everything at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes the script.
    pub fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.shared.state.lock().script);
    }

    /// What it was told so far, oldest first; at most 65,536.
    #[must_use]
    pub fn told(&self) -> Vec<Told> {
        self.shared.state.lock().told.iter().cloned().collect()
    }

    /// What runs now: started, and neither ended nor paused.
    #[must_use]
    pub fn running(&self) -> Vec<InstanceId> {
        self.shared.state.lock().running.iter().copied().collect()
    }

    /// Lets an instance end by itself.
    pub fn crash(&self, id: InstanceId, reason: impl Into<String>) {
        let reason = reason.into();
        self.shared.state.lock().running.remove(&id);
        self.report(Report::Ended { id, reason });
    }

    /// Reports that an instance is fit, or not.
    pub fn health(&self, id: InstanceId, health: Health) {
        self.report(Report::Health { id, health });
    }

    /// Reports that an instance will be taken away.
    pub fn at_risk(&self, id: InstanceId) {
        self.report(Report::AtRisk { id });
    }

    /// Runs an instance that no group launched, so that it can be attached.
    pub fn run_foreign(&self, id: InstanceId) {
        let mut state = self.shared.state.lock();
        state.foreign.insert(id);
        state.running.insert(id);
    }

    /// Reports something, at the next poll.
    pub fn report(&self, report: Report<InstanceId>) {
        self.shared.state.lock().put(Instant::ORIGIN, report);
        let wake = self.shared.wake.lock().clone();
        if let Some(wake) = wake {
            wake.wake();
        }
    }
}

impl State {
    fn put(&mut self, at: Instant, report: Report<InstanceId>) {
        self.sequence += 1;
        self.due.insert((at, self.sequence), report);
    }

    fn note(&mut self, told: Told) {
        if self.told.len() >= MAX_TOLD {
            self.told.pop_front();
        }
        self.told.push_back(told);
    }

    fn begin(&mut self, id: InstanceId, zone: Option<&str>, now: Instant) {
        let at = now + self.script.start;
        let zone_fails = zone.is_some_and(|zone| self.script.failing_zones.contains(zone));
        if self.script.ignore_start {
            return;
        }
        if self.script.fail > 0 || zone_fails {
            self.script.fail = self.script.fail.saturating_sub(u32::from(!zone_fails));
            let reason = "the script says so".to_owned();
            self.put(at, Report::Failed { id, reason });
        } else {
            self.put(at, Report::Started { id, endpoint: id });
        }
    }

    /// What was about to happen to an instance does not.
    fn forget(&mut self, id: InstanceId) {
        self.due.retain(|_, report| match report {
            Report::Started { id: of, .. }
            | Report::Failed { id: of, .. }
            | Report::Paused { id: of }
            | Report::Ended { id: of, .. }
            | Report::Health { id: of, .. }
            | Report::AtRisk { id: of } => *of != id,
        });
    }
}

impl Provisioner for Recorder {
    type Endpoint = InstanceId;

    fn launch(&self, order: &LaunchOrder, now: Instant) -> Result<(), LaunchRefused> {
        let mut state = self.shared.state.lock();
        state.note(Told::Launch(order.clone()));
        if state.script.refusing_zones.contains(&*order.zone) {
            return Err(LaunchRefused::new("the zone is full"));
        }
        state.begin(order.id, Some(&order.zone), now);
        Ok(())
    }

    fn terminate(&self, id: InstanceId, now: Instant) {
        let mut state = self.shared.state.lock();
        state.note(Told::Terminate(id));
        if state.script.ignore_stop {
            return;
        }
        state.forget(id);
        let at = now + state.script.stop;
        let reason = "terminated".to_owned();
        state.put(at, Report::Ended { id, reason });
    }

    fn poll(&self, now: Instant) -> Option<Report<InstanceId>> {
        let mut state = self.shared.state.lock();
        let (&(at, _), _) = state.due.first_key_value()?;
        if at > now {
            return None;
        }
        let (_, report) = state.due.pop_first()?;
        match &report {
            Report::Started { id, .. } => {
                state.running.insert(*id);
            }
            Report::Ended { id, .. } | Report::Paused { id } => {
                state.running.remove(id);
            }
            _ => {}
        }
        Some(report)
    }

    fn pause(&self, id: InstanceId, how: WarmState, now: Instant) -> Result<(), LaunchRefused> {
        let mut state = self.shared.state.lock();
        state.note(Told::Pause(id, how));
        let at = now + state.script.pause;
        state.put(at, Report::Paused { id });
        Ok(())
    }

    fn resume(&self, id: InstanceId, now: Instant) -> Result<(), LaunchRefused> {
        let mut state = self.shared.state.lock();
        state.note(Told::Resume(id));
        state.begin(id, None, now);
        Ok(())
    }

    fn release(&self, id: InstanceId) {
        let mut state = self.shared.state.lock();
        state.note(Told::LetGo(id));
        state.foreign.insert(id);
    }

    fn adopt(&self, id: InstanceId) -> Result<InstanceId, LaunchRefused> {
        let mut state = self.shared.state.lock();
        state.note(Told::Adopt(id));
        if !state.foreign.remove(&id) {
            return Err(LaunchRefused::new("no such instance"));
        }
        Ok(id)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let state = self.shared.state.lock();
        state.due.first_key_value().map(|(&(at, _), _)| at)
    }

    fn connect(&self, wake: Wake) {
        *self.shared.wake.lock() = Some(wake);
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("Recorder")
            .field("script", &state.script)
            .field("running", &state.running.len())
            .finish_non_exhaustive()
    }
}
