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
mod passive;
mod registration;
mod rules;
mod seat;
mod view;
mod zone;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use sim_core::random::Random;
use sim_core::time::Instant;

use self::health::{Health, Turn};
use self::seat::{Held, Ramp, Seat, Timer};
use self::view::Candidate;
use self::zone::ZoneState;

pub use self::health::{ProbeResult, Reason, State, TargetHealth, Unused};
pub use self::matcher::{Matcher, ParseMatcherError};
pub use self::name::{Slot, TargetId, Zone, ZoneId};
pub use self::note::{Cause, Change, Counts, Effect, Note};
pub use self::outlier::{Streak, Tally};
pub use self::registration::{
    Registration, RegistrationError, UnknownTarget, UnknownZone, WeightError,
};
pub use self::rules::{
    Anomaly, Availability, CheckPort, CheckProtocol, CrossZone, Deregistration, FailOpen, Failover,
    FailurePercentage, HealthCheck, Limits, Outliers, Priorities, Rules, RulesError, SlowStart,
    SuccessRate, TargetFailover, UnhealthyTargets,
};
pub use self::view::{FULL_LOAD, Member, Pool, Tier, View, WEIGHT_ONE};

/// How many checks of targets that are gone may stay due beyond the number of targets.
const STALE: usize = 16;

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

/// The state of a balancer's targets. See the [module](self).
///
/// Verbs that are given a stale [`Slot`] do nothing. A `now` before the latest one is taken for the latest one, and so is
/// [`Instant::NEVER`], which is no time. Memory: bounded by [`Limits`]; per target a few hundred bytes.
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
    /// Targets to check, each once. Stale slots are skipped. Bound: twice the targets and [`STALE`].
    due: VecDeque<Slot>,
    /// How many targets are ejected.
    ejected: u32,
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
            ejected: 0,
            effects: VecDeque::new(),
            notes: VecDeque::new(),
            generation: 0,
        };
        if let Some(interval) = machine.rules.outliers.map(|outliers| outliers.interval) {
            machine.set_beat(Timer::Sweep, now + interval);
        }
        if let Some(window) = machine.rules.anomaly.map(|anomaly| anomaly.window) {
            machine.set_beat(Timer::Window, now + window);
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

    /// Does all that is due at or before `now`, deadline by deadline. A `now` that lies ahead of the clock is believed:
    /// what is scheduled later counts from it.
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
                self.ramp_on(at, index);
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
            self.forget_stale_checks();
            self.due.push_back(slot);
        }
        // Checks that nobody made are not made up for.
        self.set_timer(
            index,
            Timer::Check(index),
            Some(next_beat(at, interval, now)),
        );
    }

    /// Drops what is due of targets that are gone, once it is more than what is due of others can be.
    fn forget_stale_checks(&mut self) {
        let targets = self.seats.len() - self.free.len();
        if self.due.len() >= 2 * targets + STALE {
            let mut due = std::mem::take(&mut self.due);
            due.retain(|slot| self.living(*slot).is_some());
            self.due = due;
        }
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
        let was_ejected = held.ejected.take().is_some();
        held.ejections = 0;
        held.share = 100;
        held.is_anomalous = false;
        held.in_service_since = None;
        self.ejected -= u32::from(was_ejected);
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
            self.set_timer(index, Timer::Ramp(index), Some(next_step(at, step)));
        }
    }

    /// The next step of a slow start.
    fn ramp_on(&mut self, at: Instant, index: u32) {
        let rules = self.rules.slow_start;
        let Some(ramp) = self.held(index).ramp else {
            return;
        };
        let elapsed = at.saturating_duration_since(ramp.since);
        if elapsed >= rules.duration {
            self.held_mut(index).ramp = None;
            return;
        }
        let step = elapsed.as_nanos() * u128::from(rules.steps) / rules.duration.as_nanos();
        self.held_mut(index).ramp = Some(Ramp {
            step: step as u32,
            ..ramp
        });
        let next = next_step(at, rules.duration / rules.steps);
        self.set_timer(index, Timer::Ramp(index), Some(next));
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
                    share: held.effective_share(self.rules.slow_start.steps),
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
        if !now.is_never() {
            self.now = self.now.max(now);
        }
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

    /// Sets a timer of the machine's own, unless its time never comes.
    fn set_beat(&mut self, timer: Timer, at: Instant) {
        if !at.is_never() {
            self.timers.insert((at, timer));
        }
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
}

/// When slow starts step next: all at the same points in time, so that targets that start together cost one view a step.
fn next_step(after: Instant, step: Duration) -> Instant {
    next_beat(Instant::ORIGIN, step, after)
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
