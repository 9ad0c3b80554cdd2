//! The rules, pure: now, randomness and counts are arguments.
//!
//! [`Machine`] keeps for each target its weight, zone, priority, health, ejections and slow start, and says in a [`View`] who
//! may get traffic. It knows no target itself, only its name and [`Slot`]; what targets are and how one of them is
//! chosen is the handle's affair.
//!
//! ```text
//!            register                      first good check
//!    ─────────────────────────▶ initial ───────────────────────▶ healthy ◀──────────────┐
//!                                  │                              │                      │ healthy_threshold
//!                                  │ unhealthy_threshold          │ unhealthy_threshold  │ good checks
//!                                  ▼                              ▼                      │
//!                              unhealthy ◀── draining_interval ── unhealthy.draining ────┤
//!                                  └─────────────────────────────────────────────────────┘
//!    without checks: unavailable        suspend: unused, resume: as registered        deregister: draining, then gone
//! ```
//!
//! A new target needs one good check, as in the service. An ejection as an outlier stands beside the state: an ejected target
//! keeps its state and gets no traffic.
//!
//! Time enters by [`Machine::advance`], which goes from deadline to deadline. Everything is in the order of slots, zones and
//! deadlines: the same history gives the same views.

mod health;
mod matcher;
mod name;
mod note;
mod outlier;
mod rules;
mod seat;
mod view;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use sim_core::random::Random;
use sim_core::time::Instant;

use self::health::{Health, Turn};
use self::outlier::{anomalous, ejection_time, may_eject, mitigated, sweep};
use self::seat::{Held, Ramp, Seat, Timer};
use self::view::Candidate;

pub use self::health::{ProbeResult, Reason, State, TargetHealth, Unused};
pub use self::matcher::{Matcher, ParseMatcherError};
pub use self::name::{Slot, TargetId, Zone, ZoneId};
pub use self::note::{Cause, Change, Counts, Effect, Note};
pub use self::outlier::{Streak, Tally};
pub use self::rules::{
    Anomaly, Availability, CheckPort, CheckProtocol, CrossZone, Deregistration, FailOpen, Failover,
    FailurePercentage, HealthCheck, Limits, Outliers, Priorities, Rules, RulesError, SlowStart,
    SuccessRate, TargetFailover, UnhealthyTargets,
};
pub use self::view::{FULL_LOAD, Member, Pool, Tier, View, WEIGHT_ONE};

/// Who a target is, when it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Its name.
    pub id: TargetId,
    /// Its weight; 0 gets nothing.
    pub weight: u32,
    /// Its zone, if it has one.
    pub zone: Option<Zone>,
    /// Its priority; 0 is the highest.
    pub priority: u32,
}

impl Registration {
    /// A target of weight 1 and the highest priority, in no zone.
    #[must_use]
    pub fn new(id: impl Into<TargetId>) -> Self {
        Self {
            id: id.into(),
            weight: 1,
            zone: None,
            priority: 0,
        }
    }
}

/// A target was not registered; nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationError {
    /// A target of this name is there and does not drain.
    #[error("id: {id} is registered already")]
    Duplicate {
        /// The name.
        id: TargetId,
    },
    /// As many targets are there as may be, those that drain included.
    #[error("there are {limit} targets, the most allowed")]
    TooManyTargets {
        /// The most targets.
        limit: u32,
    },
    /// The zone is new and as many zones are known as may be.
    #[error("zone: {zone} is new and {limit} zones are known, the most allowed")]
    TooManyZones {
        /// The zone.
        zone: Zone,
        /// The most zones.
        limit: u32,
    },
    /// A number is too large.
    #[error("{field}: {value} is more than {limit}")]
    TooLarge {
        /// The field.
        field: &'static str,
        /// The value given.
        value: u32,
        /// The largest allowed.
        limit: u32,
    },
    /// A name is empty or too long.
    #[error("{field}: has {length} bytes, must have 1 to {limit}")]
    Name {
        /// The field.
        field: &'static str,
        /// Bytes given.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

/// No target of this name is registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no target is named {id}")]
pub struct UnknownTarget {
    /// The name.
    pub id: TargetId,
}

/// No target was ever registered in this zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no zone is named {zone}")]
pub struct UnknownZone {
    /// The name.
    pub zone: Zone,
}

/// A weight was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WeightError {
    /// There is no such target.
    #[error(transparent)]
    Unknown(#[from] UnknownTarget),
    /// The weight is too large.
    #[error("weight: {value} is more than {limit}")]
    TooLarge {
        /// The value given.
        value: u32,
        /// The largest allowed.
        limit: u32,
    },
}

/// One target, as [`Machine::targets`] lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed<'a> {
    /// Where it stands.
    pub slot: Slot,
    /// Its name.
    pub id: &'a TargetId,
    /// Its registered weight.
    pub weight: u32,
    /// Its zone.
    pub zone: Option<ZoneId>,
    /// Its priority.
    pub priority: u32,
    /// How it is.
    pub health: TargetHealth,
}

/// What is known of a zone.
#[derive(Debug)]
struct ZoneState {
    name: Zone,
    /// Until when traffic is shifted away from it; [`Instant::NEVER`] for until that is ended.
    shifted: Option<Instant>,
}

/// The state of a balancer's targets. See the [module](self).
///
/// Verbs that are given a stale [`Slot`] do nothing. A `now` before the latest one is taken for the latest one. Memory:
/// bounded by [`Limits`]; per target a few hundred bytes.
#[derive(Debug)]
pub struct Machine {
    rules: Rules,
    random: Random,
    /// The latest time heard of.
    now: Instant,
    /// By index. Never shrinks.
    seats: Vec<Seat>,
    /// Indices of empty seats; the lowest is taken first.
    free: BTreeSet<u32>,
    /// The latest target of each name.
    by_id: BTreeMap<TargetId, u32>,
    zones: Vec<ZoneState>,
    /// Invariant: for each target, exactly the finite deadlines that its `Held` names; the rest is of the machine.
    timers: BTreeSet<(Instant, Timer)>,
    /// Targets to check, each once. Stale slots are skipped.
    due: VecDeque<Slot>,
    effects: VecDeque<Effect>,
    notes: VecDeque<Note>,
    generation: u64,
    view: View,
}

impl Machine {
    /// Makes a machine without targets.
    ///
    /// # Errors
    ///
    /// [`RulesError`] names the first field that is out of its range.
    pub fn new(rules: Rules, random: Random, now: Instant) -> Result<Self, RulesError> {
        rules.check()?;
        let mut machine = Self {
            view: view::build(&rules, &[], Vec::new(), 0),
            rules,
            random,
            now,
            seats: Vec::new(),
            free: BTreeSet::new(),
            by_id: BTreeMap::new(),
            zones: Vec::new(),
            timers: BTreeSet::new(),
            due: VecDeque::new(),
            effects: VecDeque::new(),
            notes: VecDeque::new(),
            generation: 0,
        };
        if let Some(outliers) = &machine.rules.outliers {
            let first = now + outliers.interval;
            machine.timers.insert((first, Timer::Sweep));
        }
        if let Some(anomaly) = &machine.rules.anomaly {
            let first = now + anomaly.window;
            machine.timers.insert((first, Timer::Window));
        }
        Ok(machine)
    }

    /// What it was told.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    // Targets come and go.

    /// Adds a target and says where it stands.
    ///
    /// A target that still drains under the same name drains on, and the name is the new one's.
    ///
    /// # Errors
    ///
    /// [`RegistrationError`]; nothing has changed then.
    pub fn register(
        &mut self,
        now: Instant,
        spec: Registration,
    ) -> Result<Slot, RegistrationError> {
        let now = self.hear(now);
        self.check_registration(&spec)?;
        let zone = match spec.zone {
            Some(zone) => Some(self.intern(zone)?),
            None => None,
        };
        let index = self.free.pop_first().unwrap_or_else(|| {
            self.seats.push(Seat::default());
            self.seats.len() as u32 - 1
        });
        let seat = &mut self.seats[index as usize];
        let slot = Slot {
            index,
            birth: seat.birth,
        };
        let health = Health::new(self.rules.health_check.as_ref());
        let is_fit = health.is_fit();
        seat.held = Some(Held::new(
            spec.id.clone(),
            spec.weight,
            zone,
            spec.priority,
            health,
        ));
        self.by_id.insert(spec.id, index);
        self.note(now, index, Change::Registered);
        self.schedule_first_check(now, index);
        if is_fit {
            self.enter_service(now, index);
        }
        self.touch();
        Ok(slot)
    }

    /// Lets a target drain: it gets nothing new, and is gone after the delay, or as soon as the handle says that it has
    /// [`drained`](Self::drained). A second call is fine.
    ///
    /// # Errors
    ///
    /// [`UnknownTarget`].
    pub fn deregister(&mut self, now: Instant, id: &TargetId) -> Result<Slot, UnknownTarget> {
        let now = self.hear(now);
        let (index, slot) = self.find(id)?;
        let delay = self.rules.deregistration.delay;
        let held = self.held(index);
        if held.health.state == State::Draining {
            return Ok(slot);
        }
        self.stop(index);
        self.turn(
            now,
            index,
            State::Draining,
            Some(Reason::DeregistrationInProgress),
        );
        if delay.is_zero() {
            self.end_draining(index, now);
        } else {
            self.set_timer(index, Timer::Drain(index), Some(now + delay));
        }
        self.trim_ejections(now);
        self.touch();
        Ok(slot)
    }

    /// Hears that a draining target has nothing in hand: it is gone.
    pub fn drained(&mut self, now: Instant, slot: Slot) {
        let now = self.hear(now);
        if let Some(index) = self.living(slot)
            && self.held(index).health.state == State::Draining
        {
            self.remove(now, index);
        }
    }

    /// Sets a target's weight; 0 lets it have nothing new.
    ///
    /// # Errors
    ///
    /// [`WeightError`]; nothing has changed then.
    pub fn set_weight(
        &mut self,
        now: Instant,
        id: &TargetId,
        weight: u32,
    ) -> Result<(), WeightError> {
        self.hear(now);
        let limit = self.rules.limits.weight;
        if weight > limit {
            return Err(WeightError::TooLarge {
                value: weight,
                limit,
            });
        }
        let (index, _) = self.find(id)?;
        if self.held(index).weight != weight {
            self.held_mut(index).weight = weight;
            self.touch();
        }
        Ok(())
    }

    /// Keeps a target registered and out of use, until it is resumed. What it has in hand goes on.
    ///
    /// # Errors
    ///
    /// [`UnknownTarget`], also for one that drains.
    pub fn suspend(
        &mut self,
        now: Instant,
        id: &TargetId,
        unused: Unused,
    ) -> Result<(), UnknownTarget> {
        let now = self.hear(now);
        let (index, _) = self.find_live(id)?;
        self.stop(index);
        self.turn(now, index, State::Unused, Some(unused.into()));
        self.trim_ejections(now);
        self.touch();
        Ok(())
    }

    /// Takes a suspended target back, as if it were new. One that is in use stays as it is.
    ///
    /// # Errors
    ///
    /// [`UnknownTarget`], also for one that drains.
    pub fn resume(&mut self, now: Instant, id: &TargetId) -> Result<(), UnknownTarget> {
        let now = self.hear(now);
        let (index, _) = self.find_live(id)?;
        if self.held(index).health.state != State::Unused {
            return Ok(());
        }
        let fresh = Health::new(self.rules.health_check.as_ref());
        let (state, reason) = (fresh.state, fresh.reason);
        let is_fit = fresh.is_fit();
        self.turn(now, index, state, reason);
        self.held_mut(index).health = fresh;
        self.schedule_first_check(now, index);
        if is_fit {
            self.enter_service(now, index);
        }
        self.touch();
        Ok(())
    }

    // Zones.

    /// Shifts traffic away from a zone until a point in time, [`Instant::NEVER`] for until it is ended. A second call
    /// sets another end. While every zone with targets is shifted away from, none is.
    ///
    /// # Errors
    ///
    /// [`UnknownZone`].
    pub fn shift_zone(
        &mut self,
        now: Instant,
        zone: &Zone,
        until: Instant,
    ) -> Result<(), UnknownZone> {
        let now = self.hear(now);
        let id = self
            .zone_id(zone)
            .ok_or_else(|| UnknownZone { zone: zone.clone() })?;
        self.set_shift(now, id, (until > now).then_some(until));
        Ok(())
    }

    /// Ends a shift before its time. Fine for a zone without one.
    ///
    /// # Errors
    ///
    /// [`UnknownZone`].
    pub fn end_shift(&mut self, now: Instant, zone: &Zone) -> Result<(), UnknownZone> {
        self.shift_zone(now, zone, Instant::ORIGIN)
    }

    /// The number of a zone in which a target was registered at some time.
    #[must_use]
    pub fn zone_id(&self, zone: &Zone) -> Option<ZoneId> {
        let at = self.zones.iter().position(|known| known.name == *zone)?;
        Some(ZoneId(at as u16))
    }

    /// The name of a zone.
    #[must_use]
    pub fn zone_name(&self, zone: ZoneId) -> Option<&Zone> {
        self.zones.get(zone.index()).map(|known| &known.name)
    }

    // Health.

    /// Counts what a check found. Of no effect on targets that drain, are out of use or unchecked.
    pub fn probe(&mut self, now: Instant, slot: Slot, result: ProbeResult) {
        let now = self.hear(now);
        let Some(index) = self.living(slot) else {
            return;
        };
        let Some(check) = self.rules.health_check.clone() else {
            return;
        };
        let held = self.held_mut(index);
        if !held.health.is_checked() {
            return;
        }
        let from = held.health.state;
        let turn = held.health.count(result, &check);
        if result == ProbeResult::Good
            && self.held(index).ejected.is_some()
            && self
                .rules
                .outliers
                .is_some_and(|rules| rules.uneject_on_check)
        {
            self.held_mut(index).ejections = 0;
            self.uneject(now, index);
        }
        match turn {
            None => {}
            Some(Turn::Healthy) => {
                self.set_timer(index, Timer::UnhealthyDrain(index), None);
                self.note_state(now, index, from);
                self.enter_service(now, index);
                self.touch();
            }
            Some(Turn::Unhealthy) => {
                self.become_unhealthy(now, index, from);
                self.touch();
            }
        }
    }

    /// Hears of a run of failures; a target with one as long as [`streak_threshold`](Self::streak_threshold) is
    /// ejected. Says whether it was.
    pub fn streak(&mut self, now: Instant, slot: Slot, streak: Streak, count: u32) -> bool {
        let now = self.hear(now);
        let is_long = self
            .streak_threshold(streak)
            .is_some_and(|threshold| count >= threshold);
        match self.living(slot) {
            Some(index) if is_long => self.eject(now, index, streak.cause()),
            _ => false,
        }
    }

    /// How many failures in a row are too many; `None` when nobody asks.
    #[must_use]
    pub fn streak_threshold(&self, streak: Streak) -> Option<u32> {
        self.rules
            .outliers
            .as_ref()
            .and_then(|rules| streak.threshold(rules))
    }

    /// Hands out a target that is to be checked now. Each is handed out once an interval, whether or not the result of the
    /// last check has come.
    pub fn take_due_check(&mut self) -> Option<Slot> {
        while let Some(slot) = self.due.pop_front() {
            let Some(index) = self.living(slot) else {
                continue;
            };
            let held = self.held_mut(index);
            held.is_due = false;
            if held.health.is_checked() {
                held.health.check_begins();
                return Some(slot);
            }
        }
        None
    }

    /// Whether [`take_due_check`](Self::take_due_check) may have something; `true` may be an error, `false` never is.
    #[must_use]
    pub fn has_due_checks(&self) -> bool {
        !self.due.is_empty()
    }

    // Time.

    /// The earliest deadline; later than any `now` given to [`advance`](Self::advance).
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Does all that is due at or before `now`, deadline by deadline.
    ///
    /// `tally` says what a target has finished since it was registered. It is asked at the ends of the intervals of
    /// [`Outliers`] and [`Anomaly`] only; after a long pause the first of them gets all that came since.
    pub fn advance(&mut self, now: Instant, mut tally: impl FnMut(Slot) -> Tally) {
        let now = self.hear(now);
        while let Some((at, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.pop_first();
            self.fire(at, timer, now, &mut tally);
        }
    }

    // What to look at.

    /// Takes the next thing that the handle has to do. They are kept until they are taken: drain this after every entry.
    pub fn take_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Grows whenever the view may have changed.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Who may get traffic, and how much.
    pub fn view(&mut self) -> &View {
        if self.view.generation != self.generation {
            self.view = self.build_view();
        }
        &self.view
    }

    /// Where the target of a name stands: the latest one, when an earlier one drains.
    #[must_use]
    pub fn slot(&self, id: &TargetId) -> Option<Slot> {
        self.find(id).ok().map(|(_, slot)| slot)
    }

    /// How a target is; `None` when it is gone.
    #[must_use]
    pub fn health(&self, slot: Slot) -> Option<TargetHealth> {
        self.living(slot).map(|index| self.health_of(index))
    }

    /// All targets, by slot index, those that drain included.
    pub fn targets(&self) -> impl Iterator<Item = Listed<'_>> {
        self.occupied().map(|(index, held)| Listed {
            slot: self.slot_at(index),
            id: &held.id,
            weight: held.weight,
            zone: held.zone,
            priority: held.priority,
            health: self.health_of(index),
        })
    }

    /// How many targets are in which state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (_, held) in self.occupied() {
            counts.targets += 1;
            *match held.health.state {
                State::Initial => &mut counts.initial,
                State::Healthy => &mut counts.healthy,
                State::Unhealthy | State::UnhealthyDraining => &mut counts.unhealthy,
                State::Unused => &mut counts.unused,
                State::Draining => &mut counts.draining,
                State::Unavailable => &mut counts.unavailable,
            } += 1;
            counts.ejected += u32::from(held.ejected.is_some());
            counts.slow_starting += u32::from(held.ramp.is_some());
            counts.anomalous += u32::from(held.is_anomalous);
            counts.mitigated += u32::from(held.share < 100);
        }
        counts
    }

    /// The latest events, the oldest first; as many as [`Limits::history`].
    pub fn notes(&self) -> impl Iterator<Item = &Note> {
        self.notes.iter()
    }

    // Deadlines.

    fn fire(
        &mut self,
        at: Instant,
        timer: Timer,
        now: Instant,
        tally: &mut impl FnMut(Slot) -> Tally,
    ) {
        match timer {
            Timer::Shift(zone) => self.set_shift(at, ZoneId(zone), None),
            Timer::Drain(index) => {
                self.held_mut(index).clear(timer);
                self.end_draining(index, at);
                self.touch();
            }
            Timer::UnhealthyDrain(index) => {
                self.held_mut(index).clear(timer);
                let reason = self.held(index).health.reason;
                self.turn(at, index, State::Unhealthy, reason);
                if self.rules.unhealthy.connection_termination {
                    self.terminate(index);
                }
                self.touch();
            }
            Timer::Return(index) => self.uneject(at, index),
            Timer::Ramp(index) => {
                self.held_mut(index).clear(timer);
                self.ramp_on(index);
                self.touch();
            }
            Timer::Check(index) => {
                self.held_mut(index).clear(timer);
                self.check_is_due(at, index, now);
            }
            Timer::Sweep => self.sweep(at, now, tally),
            Timer::Window => self.window(at, now, tally),
        }
    }

    fn check_is_due(&mut self, at: Instant, index: u32, now: Instant) {
        let Some(interval) = self.rules.health_check.as_ref().map(|check| check.interval) else {
            return;
        };
        let slot = self.slot_at(index);
        let held = self.held_mut(index);
        if !held.is_due {
            held.is_due = true;
            self.due.push_back(slot);
        }
        // Checks that nobody made are not made up for.
        self.set_timer(
            index,
            Timer::Check(index),
            Some(next_beat(at, interval, now)),
        );
    }

    fn schedule_first_check(&mut self, now: Instant, index: u32) {
        let Some(check) = &self.rules.health_check else {
            return;
        };
        let spread = check.interval.mul_f64(f64::from(check.jitter) / 100.0);
        let wait = spread.mul_f64(self.random.unit());
        if wait.is_zero() {
            // Due at once, so that every deadline lies in the future.
            self.check_is_due(now, index, now);
        } else {
            self.set_timer(index, Timer::Check(index), Some(now + wait));
        }
    }

    fn end_draining(&mut self, index: u32, at: Instant) {
        if self.rules.deregistration.connection_termination {
            self.terminate(index);
        }
        self.remove(at, index);
    }

    fn remove(&mut self, at: Instant, index: u32) {
        self.note(at, index, Change::Removed);
        self.cancel_timers(index);
        let slot = self.slot_at(index);
        let seat = &mut self.seats[index as usize];
        seat.birth = seat.birth.wrapping_add(1);
        if let Some(held) = seat.held.take() {
            if self.by_id.get(&held.id) == Some(&index) {
                self.by_id.remove(&held.id);
            }
            self.effects
                .push_back(Effect::Removed { slot, id: held.id });
        }
        self.free.insert(index);
        self.touch();
    }

    fn terminate(&mut self, index: u32) {
        let slot = self.slot_at(index);
        let id = self.held(index).id.clone();
        self.effects.push_back(Effect::Terminate { slot, id });
    }

    /// Ends all that goes on at a target that leaves the service.
    fn stop(&mut self, index: u32) {
        self.cancel_timers(index);
        let held = self.held_mut(index);
        held.ramp = None;
        held.ejected = None;
        held.ejections = 0;
        held.share = 100;
        held.is_anomalous = false;
        held.in_service_since = None;
    }

    // Health.

    fn become_unhealthy(&mut self, at: Instant, index: u32, from: State) {
        let rules = self.rules.unhealthy;
        self.set_timer(index, Timer::Ramp(index), None);
        let held = self.held_mut(index);
        held.ramp = None;
        held.in_service_since = None;
        // Only who had traffic has something to finish.
        let drains = from == State::Healthy && !rules.draining_interval.is_zero();
        if drains {
            held.health.state = State::UnhealthyDraining;
            self.set_timer(
                index,
                Timer::UnhealthyDrain(index),
                Some(at + rules.draining_interval),
            );
        } else if rules.connection_termination {
            self.terminate(index);
        }
        self.note_state(at, index, from);
    }

    fn enter_service(&mut self, at: Instant, index: u32) {
        let rules = self.rules.slow_start;
        let step = rules.duration / rules.steps;
        let others_serve = !rules.duration.is_zero()
            && self.occupied().any(|(other, held)| {
                other != index
                    && held.ramp.is_none()
                    && held.in_service_since.is_some_and(|since| since + step < at)
            });
        let held = self.held_mut(index);
        held.in_service_since = Some(at);
        if others_serve {
            held.ramp = Some(Ramp { since: at, step: 0 });
            self.set_timer(index, Timer::Ramp(index), Some(at + step));
        }
    }

    /// The next step of a slow start.
    fn ramp_on(&mut self, index: u32) {
        let rules = self.rules.slow_start;
        let Some(ramp) = self.held(index).ramp else {
            return;
        };
        let step = ramp.step + 1;
        if step >= rules.steps {
            self.held_mut(index).ramp = None;
            return;
        }
        self.held_mut(index).ramp = Some(Ramp { step, ..ramp });
        let next = ramp.since + rules.duration * (step + 1) / rules.steps;
        self.set_timer(index, Timer::Ramp(index), Some(next));
    }

    // Outliers and anomalies.

    fn eject(&mut self, at: Instant, index: u32, cause: Cause) -> bool {
        let Some(rules) = self.rules.outliers else {
            return false;
        };
        let held = self.held(index);
        if held.ejected.is_some() || !held.health.is_live() {
            return false;
        }
        let (ejected, hosts) = self.ejected_of();
        if !may_eject(&rules, ejected, hosts) {
            self.note(at, index, Change::EjectionRefused { cause });
            return false;
        }
        let count = held.ejections.saturating_add(1);
        let until = at + ejection_time(&rules, count, &mut self.random);
        let held = self.held_mut(index);
        held.ejections = count;
        held.ejected = Some(until);
        self.set_timer(index, Timer::Return(index), Some(until));
        self.note(at, index, Change::Ejected { cause, until });
        self.touch();
        true
    }

    fn uneject(&mut self, at: Instant, index: u32) {
        self.set_timer(index, Timer::Return(index), None);
        if self.held_mut(index).ejected.take().is_some() {
            self.note(at, index, Change::Returned);
            self.touch();
        }
    }

    /// Ejected targets, and all of which they are a part.
    fn ejected_of(&self) -> (u32, u32) {
        self.occupied()
            .filter(|(_, held)| held.health.is_live())
            .fold((0, 0), |(ejected, hosts), (_, held)| {
                (ejected + u32::from(held.ejected.is_some()), hosts + 1)
            })
    }

    /// Takes ejected targets back while they are too large a part of those that are left, the earliest to return first.
    fn trim_ejections(&mut self, at: Instant) {
        let Some(rules) = self.rules.outliers else {
            return;
        };
        loop {
            let (ejected, hosts) = self.ejected_of();
            if ejected == 0 || may_eject(&rules, ejected - 1, hosts) {
                return;
            }
            let first = self
                .occupied()
                .filter_map(|(index, held)| held.ejected.map(|until| (until, index)))
                .min();
            let Some((_, index)) = first else {
                return;
            };
            self.uneject(at, index);
        }
    }

    fn sweep(&mut self, at: Instant, now: Instant, tally: &mut impl FnMut(Slot) -> Tally) {
        let Some(rules) = self.rules.outliers else {
            return;
        };
        let mut windows = Vec::new();
        let mut is_quiet = true;
        for index in 0..self.seats.len() as u32 {
            let slot = self.slot_at(index);
            let Some(held) = &mut self.seats[index as usize].held else {
                continue;
            };
            let seen = tally(slot);
            let window = seen.since(held.swept);
            held.swept = seen;
            if held.ejected.is_none() && held.ejections > 0 {
                held.ejections -= 1;
            }
            is_quiet &= held.ejections == 0;
            if held.ejected.is_none() && held.health.is_fit() {
                windows.push((index, window));
            }
        }
        for (index, cause) in sweep(&rules, &windows) {
            is_quiet = false;
            self.eject(at, index, cause);
        }
        // What comes next in this very call would find nothing new.
        let horizon = if is_quiet { now } else { at };
        let next = next_beat(at, rules.interval, horizon);
        self.timers.insert((next, Timer::Sweep));
    }

    fn window(&mut self, at: Instant, now: Instant, tally: &mut impl FnMut(Slot) -> Tally) {
        let Some(rules) = self.rules.anomaly else {
            return;
        };
        let mut windows = Vec::new();
        for index in 0..self.seats.len() as u32 {
            let slot = self.slot_at(index);
            let Some(held) = &mut self.seats[index as usize].held else {
                continue;
            };
            let seen = tally(slot);
            let window = seen.since(held.weighed);
            held.weighed = seen;
            if held.health.is_fit() && held.ejected.is_none() {
                windows.push((index, window));
            }
        }
        let found: BTreeSet<u32> = anomalous(&rules, &windows).into_iter().collect();
        let mut is_quiet = true;
        let mut is_moved = false;
        let mut turned = Vec::new();
        for index in 0..self.seats.len() as u32 {
            let Some(held) = &mut self.seats[index as usize].held else {
                continue;
            };
            let is_anomalous = found.contains(&index);
            let share = mitigated(&rules, held.share, is_anomalous);
            is_moved |= share != held.share;
            held.share = share;
            is_quiet &= share == 100 && !is_anomalous;
            if held.is_anomalous != is_anomalous {
                held.is_anomalous = is_anomalous;
                turned.push((index, is_anomalous));
            }
        }
        for (index, is_anomalous) in turned {
            let change = if is_anomalous {
                Change::Anomalous
            } else {
                Change::Normal
            };
            self.note(at, index, change);
        }
        if is_moved {
            self.touch();
        }
        let horizon = if is_quiet { now } else { at };
        let next = next_beat(at, rules.window, horizon);
        self.timers.insert((next, Timer::Window));
    }

    // Zones.

    fn intern(&mut self, zone: Zone) -> Result<ZoneId, RegistrationError> {
        if let Some(id) = self.zone_id(&zone) {
            return Ok(id);
        }
        let limit = self.rules.limits.zones;
        if self.zones.len() >= limit as usize {
            return Err(RegistrationError::TooManyZones { zone, limit });
        }
        self.zones.push(ZoneState {
            name: zone,
            shifted: None,
        });
        Ok(ZoneId(self.zones.len() as u16 - 1))
    }

    fn set_shift(&mut self, at: Instant, id: ZoneId, until: Option<Instant>) {
        let state = &mut self.zones[id.index()];
        let before = std::mem::replace(&mut state.shifted, until);
        let zone = state.name.clone();
        if before == until {
            return;
        }
        if let Some(before) = before {
            self.timers.remove(&(before, Timer::Shift(id.0)));
        }
        if let Some(until) = until.filter(|until| !until.is_never()) {
            self.timers.insert((until, Timer::Shift(id.0)));
        }
        let change = match until {
            Some(until) => Change::ShiftBegan { zone, until },
            None => Change::ShiftEnded { zone },
        };
        self.push_note(Note {
            at,
            target: None,
            change,
        });
        self.touch();
    }

    // The view.

    fn build_view(&self) -> View {
        let candidates: Vec<Candidate> = self
            .occupied()
            .filter(|(_, held)| held.health.is_live() && held.weight > 0)
            .map(|(index, held)| Candidate {
                member: Member {
                    slot: self.slot_at(index),
                    weight: held.effective_weight(self.rules.slow_start.steps),
                    zone: held.zone,
                },
                priority: held.priority,
                is_fit: held.health.is_fit() && held.ejected.is_none(),
                is_shifted: self.is_shifted(held.zone),
            })
            .collect();
        let failover = self.rules.target_failover;
        let lingering = self
            .occupied()
            .filter(|(_, held)| {
                let rule = match held.health.state {
                    State::Draining => failover.on_deregistration,
                    State::Unhealthy | State::UnhealthyDraining => failover.on_unhealthy,
                    _ => Failover::Rebalance,
                };
                rule == Failover::NoRebalance
            })
            .map(|(index, _)| self.slot_at(index))
            .collect();
        view::build(&self.rules, &candidates, lingering, self.generation)
    }

    fn is_shifted(&self, zone: Option<ZoneId>) -> bool {
        zone.is_some_and(|zone| self.zones[zone.index()].shifted.is_some())
    }

    fn health_of(&self, index: u32) -> TargetHealth {
        let held = self.held(index);
        let duration = self.rules.slow_start.duration;
        TargetHealth {
            state: held.health.state,
            reason: held.health.reason,
            last_probe: held.health.last,
            ejected_until: held.ejected,
            slow_start_until: held.ramp.map(|ramp| ramp.since + duration),
            draining_until: held.draining_until(),
            is_anomalous: held.is_anomalous,
            is_mitigated: held.share < 100,
            is_shifted: self.is_shifted(held.zone),
        }
    }

    // Bookkeeping.

    fn hear(&mut self, now: Instant) -> Instant {
        self.now = self.now.max(now);
        self.now
    }

    fn touch(&mut self) {
        self.generation += 1;
    }

    fn occupied(&self) -> impl Iterator<Item = (u32, &Held)> {
        self.seats
            .iter()
            .enumerate()
            .filter_map(|(index, seat)| seat.held.as_ref().map(|held| (index as u32, held)))
    }

    fn slot_at(&self, index: u32) -> Slot {
        Slot {
            index,
            birth: self.seats[index as usize].birth,
        }
    }

    /// The index of a slot whose target is still there.
    fn living(&self, slot: Slot) -> Option<u32> {
        let seat = self.seats.get(slot.index())?;
        (seat.birth == slot.birth && seat.held.is_some()).then_some(slot.index)
    }

    fn find(&self, id: &TargetId) -> Result<(u32, Slot), UnknownTarget> {
        match self.by_id.get(id) {
            Some(index) => Ok((*index, self.slot_at(*index))),
            None => Err(UnknownTarget { id: id.clone() }),
        }
    }

    fn find_live(&self, id: &TargetId) -> Result<(u32, Slot), UnknownTarget> {
        let found = self.find(id)?;
        if self.held(found.0).health.state == State::Draining {
            return Err(UnknownTarget { id: id.clone() });
        }
        Ok(found)
    }

    /// The target at an index that came from `by_id`, a living slot or a timer.
    fn held(&self, index: u32) -> &Held {
        let held = self.seats[index as usize].held.as_ref();
        held.expect("names, living slots and timers are of targets that are there")
    }

    fn held_mut(&mut self, index: u32) -> &mut Held {
        let held = self.seats[index as usize].held.as_mut();
        held.expect("names, living slots and timers are of targets that are there")
    }

    fn turn(&mut self, at: Instant, index: u32, to: State, reason: Option<Reason>) {
        let health = &mut self.held_mut(index).health;
        let from = health.state;
        health.set(to, reason);
        self.note_state(at, index, from);
    }

    fn note_state(&mut self, at: Instant, index: u32, from: State) {
        let health = &self.held(index).health;
        let (to, reason) = (health.state, health.reason);
        self.note(at, index, Change::State { from, to, reason });
    }

    fn note(&mut self, at: Instant, index: u32, change: Change) {
        let target = Some(self.held(index).id.clone());
        self.push_note(Note { at, target, change });
    }

    fn push_note(&mut self, note: Note) {
        let most = self.rules.limits.history as usize;
        if most == 0 {
            return;
        }
        if self.notes.len() >= most {
            self.notes.pop_front();
        }
        self.notes.push_back(note);
    }

    /// Sets, moves or cancels a timer of a target.
    fn set_timer(&mut self, index: u32, timer: Timer, at: Option<Instant>) {
        let at = at.filter(|at| !at.is_never());
        let before = self.held_mut(index).replace(timer, at);
        if let Some(before) = before {
            self.timers.remove(&(before, timer));
        }
        if let Some(at) = at {
            self.timers.insert((at, timer));
        }
    }

    fn cancel_timers(&mut self, index: u32) {
        for timer in Timer::of_target(index) {
            self.set_timer(index, timer, None);
        }
    }

    fn check_registration(&self, spec: &Registration) -> Result<(), RegistrationError> {
        let limits = &self.rules.limits;
        let name_bytes = limits.name_bytes as usize;
        let zone = spec.zone.as_ref().map(Zone::as_str);
        for (field, text) in [("id", Some(spec.id.as_str())), ("zone", zone)] {
            let length = text.map_or(1, str::len);
            if length == 0 || length > name_bytes {
                return Err(RegistrationError::Name {
                    field,
                    length,
                    limit: name_bytes,
                });
            }
        }
        for (field, value, limit) in [
            ("weight", spec.weight, limits.weight),
            ("priority", spec.priority, limits.priorities - 1),
        ] {
            if value > limit {
                return Err(RegistrationError::TooLarge {
                    field,
                    value,
                    limit,
                });
            }
        }
        if self.find_live(&spec.id).is_ok() {
            return Err(RegistrationError::Duplicate {
                id: spec.id.clone(),
            });
        }
        let there = self.seats.len() - self.free.len();
        if there >= limits.targets as usize {
            return Err(RegistrationError::TooManyTargets {
                limit: limits.targets,
            });
        }
        Ok(())
    }
}

/// The first of the points `at + n * interval`, n > 0, that lies after `now`.
fn next_beat(at: Instant, interval: Duration, now: Instant) -> Instant {
    let step = u64::try_from(interval.as_nanos())
        .unwrap_or(u64::MAX)
        .max(1);
    let late = now.as_nanos().saturating_sub(at.as_nanos());
    let beats = late / step + 1;
    at + Duration::from_nanos(beats.saturating_mul(step))
}
