//! The rules of a group, on a manual clock, against a world that obeys as it is told to.

mod capacity;
mod history;
mod hooks;
mod refresh;
mod replacement;
mod states;
mod warm;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sim_core::time::Instant;

use super::{Cooldown, Effect, Force, Input, Machine, Protection, State, ZonalShift};
use crate::config::{GroupConfig, WarmState};
use crate::message::{InstanceId, InstanceInfo, LaunchOrder, Notification};

const SECOND: Duration = Duration::from_secs(1);

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A world around a machine: launches, ends and drains take their time, and fail where that is wanted.
struct World {
    machine: Machine,
    now: Instant,
    start: Duration,
    stop: Duration,
    drain: Duration,
    /// Zones in which launches fail.
    failing: BTreeSet<String>,
    /// Whether what is told to end does not.
    deaf: bool,
    /// Whether launches are not answered.
    mute: bool,
    due: BTreeMap<(Instant, u64), Input>,
    sequence: u64,
    alive: BTreeSet<InstanceId>,
    roster: BTreeSet<InstanceId>,
    orders: Vec<LaunchOrder>,
    ended: Vec<InstanceId>,
    notes: Vec<Notification>,
    paused: BTreeMap<InstanceId, WarmState>,
    /// The most capacity that was seen.
    peak: u32,
    /// The least capacity in service that was seen since it was set.
    low: u32,
}

impl World {
    fn new(config: GroupConfig) -> Self {
        let mut world = Self {
            machine: Machine::new(config, None).unwrap(),
            now: Instant::ORIGIN,
            start: seconds(10),
            stop: seconds(5),
            drain: seconds(2),
            failing: BTreeSet::new(),
            deaf: false,
            mute: false,
            due: BTreeMap::new(),
            sequence: 0,
            alive: BTreeSet::new(),
            roster: BTreeSet::new(),
            orders: Vec::new(),
            ended: Vec::new(),
            notes: Vec::new(),
            paused: BTreeMap::new(),
            peak: 0,
            low: 0,
        };
        world.machine.advance(world.now);
        world.pump();
        world
    }

    /// A group that has settled for a minute.
    fn settled(config: GroupConfig) -> Self {
        let mut world = Self::new(config);
        world.pass(seconds(60));
        world.low = u32::MAX;
        world.peak = 0;
        world
    }

    fn put(&mut self, after: Duration, input: Input) {
        self.sequence += 1;
        self.due.insert((self.now + after, self.sequence), input);
    }

    fn pump(&mut self) {
        while let Some(effect) = self.machine.poll_effect() {
            match effect {
                Effect::Launch(order) => {
                    let id = order.id;
                    self.paused.remove(&id);
                    if self.mute {
                    } else if self.failing.contains(&*order.zone) {
                        let reason = "no room".to_owned();
                        self.put(self.start, Input::Failed { id, reason });
                    } else {
                        self.alive.insert(id);
                        self.put(self.start, Input::Started { id });
                    }
                    self.orders.push(order);
                }
                Effect::Terminate(id) => {
                    if !self.deaf {
                        self.due.retain(|_, input| {
                            !matches!(input, Input::Started { id: of } | Input::Failed { id: of, .. } if *of == id)
                        });
                        let reason = "told to".to_owned();
                        self.put(self.stop, Input::Ended { id, reason });
                    }
                }
                Effect::Pause(id, how) => {
                    self.paused.insert(id, how);
                    self.put(SECOND, Input::Paused { id });
                }
                Effect::Resume(id) => {
                    self.paused.remove(&id);
                    self.put(SECOND, Input::Started { id });
                }
                Effect::Register(id) => {
                    self.roster.insert(id);
                }
                Effect::Deregister(id) => {
                    self.roster.remove(&id);
                    self.put(self.drain, Input::Drained { id });
                }
                Effect::LetGo(id) => {
                    self.alive.remove(&id);
                }
                Effect::Notify(note) => self.notes.push(note),
            }
        }
        let stats = self.machine.stats(self.now);
        self.peak = self
            .peak
            .max(stats.in_service_capacity + stats.pending_capacity);
        self.low = self.low.min(stats.in_service_capacity);
    }

    fn tell(&mut self, input: Input) {
        if let Input::Ended { id, .. } = &input {
            self.alive.remove(id);
            self.ended.push(*id);
        }
        self.machine.step(input, self.now);
        self.pump();
    }

    /// Asks something of the machine, and has the world follow.
    fn ask<R>(&mut self, ask: impl FnOnce(&mut Machine, Instant) -> R) -> R {
        let answer = ask(&mut self.machine, self.now);
        self.pump();
        answer
    }

    fn scale(&mut self, desired: u32) {
        let asked = self.ask(|m, now| m.set_desired(desired, Cooldown::Ignore, "test", now));
        asked.unwrap();
    }

    /// Lets time pass, from deadline to deadline.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut steps = 0;
        loop {
            let first = self
                .due
                .first_key_value()
                .map_or(Instant::NEVER, |(k, _)| k.0);
            let own = self.machine.next_deadline().unwrap_or(Instant::NEVER);
            let at = first.min(own);
            if at > end {
                break;
            }
            assert!(
                at >= self.now,
                "a deadline in the past: {at:?} at {:?}",
                self.now
            );
            steps += 1;
            assert!(steps < 100_000, "time does not pass at {at:?}");
            self.now = at;
            if first == at {
                if let Some((_, input)) = self.due.pop_first() {
                    self.tell(input);
                }
            } else {
                self.machine.advance(at);
                self.pump();
            }
        }
        self.now = end;
        self.machine.advance(end);
        self.pump();
    }

    fn in_state(&self, state: State) -> Vec<InstanceId> {
        self.machine
            .instances()
            .into_iter()
            .filter(|instance| instance.state == state)
            .map(|instance| instance.id)
            .collect()
    }

    fn in_service(&self) -> Vec<InstanceInfo> {
        self.machine
            .instances()
            .into_iter()
            .filter(|instance| instance.state == State::InService)
            .collect()
    }

    fn per_zone(&self) -> BTreeMap<String, usize> {
        let mut zones: BTreeMap<String, usize> = self
            .machine
            .config()
            .zones
            .iter()
            .map(|zone| (zone.name.clone(), 0))
            .collect();
        for instance in self.in_service() {
            *zones.entry(instance.zone.to_string()).or_default() += 1;
        }
        zones
    }

    fn state(&self, id: InstanceId) -> Option<State> {
        self.machine.instance(id).map(|instance| instance.state)
    }
}

fn id(n: u64) -> InstanceId {
    InstanceId::new(n)
}

fn group(min: u32, max: u32) -> GroupConfig {
    GroupConfig::new("test", min, max)
}
