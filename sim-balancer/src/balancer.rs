//! The handle: targets come and go, and are picked as `try_pick` (never waits), `pick` (async), `pick_blocking` and
//! `pick_until`.
//!
//! # Algorithm
//! A pick loads the table, lets the algorithm choose a place in it, adds one to the target's count and takes a reference
//! to the target: no lock, no allocation. Who meets a target that is just leaving, or finds that something is due and nobody at
//! it, enters the control plane. A table is never changed: the control plane, a pure machine behind a lock, is
//! entered when targets come, go or change, and stores a new one. Counts stand with the targets and not in the table.
//!
//! Time is kept by whoever calls: a pick looks at the clock's last tick only while something is scheduled (a drain, a
//! slow start, a check), and serves what is due if nobody else does.
//!
//! # Ordering
//! - *Table, then flag*: a target that leaves is flagged after the table without it was stored. Who took a count of it
//!   and finds the flag gives it back and loads the table again: it finds a later one, and so never waits for a target that is
//!   gone. The flag is a `SeqCst` read-modify-write on the word of counts ([`load`](crate::algorithm)).
//! - *Count, then notify*: giving a lease back is a `SeqCst` read-modify-write on the word; then the event's flag is
//!   read. Waiters raise the flag and then attempt: they enter by such a step on the same word, or pass a full target by
//!   after a `SeqCst` load of it.
//! - `next_due` is read `Relaxed` by picks, where a moment's delay does no harm, and `SeqCst` before sleeping.

pub(crate) mod control;
pub(crate) mod lease;
mod seams;
pub(crate) mod seat;
pub(crate) mod table;

use std::fmt;
use std::time::Duration;

use sim_core::clock::Clock;
use sim_core::event::Event;
use sim_core::random::Random;
use sim_core::snapshot::Snapshot;
use sim_core::sync::atomic::{AtomicU64, Ordering};
use sim_core::sync::{Arc, CachePadded, Mutex, thread};
use sim_core::time::Instant;
use sim_core::wait::{Attempt, Elapsed, until, until_blocking};

use self::control::Control;
use self::lease::Lease;
use self::seat::{Ending, Seat, TargetRef};
use self::table::{Table, Tier};
use crate::algorithm::load::{Barred, Entry, Load, Loads as _};
use crate::algorithm::memory::Memory;
use crate::algorithm::{Ask, MOST_OUTSTANDING, Timing};
use crate::config::{BalancerConfig, is_limit};
use crate::error::{
    ConfigError, PickError, RegisterError, RegisterReason, UnknownTarget, UnknownZone, WeightError,
};
use crate::machine::{
    Machine, Note, ProbeResult, Registration, Rules, Streak, TargetHealth, TargetId, Unused, View,
    Zone,
};
use crate::message::{Request, Target, key_of};
use crate::stats::{BalancerStats, TargetStats};

/// How often a pick tries for a place that others take before it, until it lets them go on and begins anew.
const TRIES: u32 = 64;

/// A balancer of targets `T`: a cheap handle, cloned for each user.
///
/// See the [crate's documentation](crate) for what it guarantees.
pub struct Balancer<T> {
    shared: Arc<Shared<T>>,
    life: Arc<Life<T>>,
}

/// Lets the targets go with the last handle; leases keep theirs.
struct Life<T>(Arc<Shared<T>>);

impl<T> Drop for Life<T> {
    fn drop(&mut self) {
        let (seats, departed) = {
            let mut control = self.0.control.lock();
            (
                std::mem::take(&mut control.seats),
                std::mem::take(&mut control.departed),
            )
        };
        self.0.table.store(Arc::new(Table::empty()));
        drop((seats, departed));
    }
}

/// What the handles and the targets share.
pub(crate) struct Shared<T> {
    pub(crate) clock: Clock,
    /// How latencies are taken, if they are.
    pub(crate) timing: Option<Timing>,
    pub(crate) streaks: Streaks,
    pub(crate) memory: Memory,
    pub(crate) config: BalancerConfig,
    pub(crate) table: CachePadded<Snapshot<Table<T>>>,
    /// The machine's next deadline in nanoseconds; `u64::MAX` when nothing is scheduled.
    pub(crate) next_due: CachePadded<AtomicU64>,
    pub(crate) control: CachePadded<Mutex<Control<T>>>,
    /// Waits for targets to become eligible, or free.
    pub(crate) openings: Event,
    /// Waits for checks to become due.
    pub(crate) checks: Event,
}

/// After how many failures in a row the machine is asked; 0 for never.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streaks {
    pub(crate) failures: u32,
    pub(crate) gateway: u32,
}

impl<T> Balancer<T> {
    /// Makes a balancer on the system clock.
    ///
    /// # Errors
    /// The first field of the configuration that is out of its range.
    pub fn new(config: BalancerConfig) -> Result<Self, ConfigError> {
        Self::with_clock(config, Clock::system())
    }

    /// Makes a balancer on the given clock.
    ///
    /// # Errors
    /// The first field of the configuration that is out of its range.
    pub fn with_clock(config: BalancerConfig, clock: Clock) -> Result<Self, ConfigError> {
        config.check()?;
        let random = Random::new(config.seed);
        let seed = random.fork("picks").next_u64();
        let machine = Machine::new(config.rules.clone(), random.fork("machine"), clock.now())?;
        let next_due = machine.next_deadline().unwrap_or(Instant::NEVER);
        let timing = config.algorithm.timing();
        if timing.is_some() {
            // The counter is calibrated at the first reading; not in the first pick.
            let _ = clock.fine();
        }
        let shared = Arc::new(Shared {
            timing,
            streaks: Streaks {
                failures: machine.streak_threshold(Streak::Failures).unwrap_or(0),
                gateway: machine.streak_threshold(Streak::Gateway).unwrap_or(0),
            },
            memory: Memory::new(seed).remembering(&config.algorithm),
            clock,
            config,
            table: CachePadded::new(Snapshot::new(Table::empty())),
            next_due: CachePadded::new(AtomicU64::new(next_due.as_nanos())),
            control: CachePadded::new(Mutex::new(Control::new(machine))),
            openings: Event::new(),
            checks: Event::new(),
        });
        let life = Arc::new(Life(Arc::clone(&shared)));
        Ok(Self { shared, life })
    }

    /// The configuration that the balancer was built with.
    #[must_use]
    pub fn config(&self) -> &BalancerConfig {
        &self.shared.config
    }

    /// The rules that the balancer was built with.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.shared.config.rules
    }

    /// The balancer's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    // Targets.

    /// Adds a target.
    ///
    /// The name of one that drains may be registered again: the new target gets requests while the old one finishes its own.
    ///
    /// # Errors
    /// [`RegisterError`] with the target, when its name is taken or a value is out of its range.
    pub fn register(&self, target: Target<T>) -> Result<(), RegisterError<T>> {
        let mut target = Some(target);
        let mut refused = None;
        self.shared
            .enter(|control, now| refused = self.admit(control, now, target.take()));
        refused.map_or(Ok(()), Err)
    }

    /// Adds targets in one step: the table of targets is built once for all of them.
    ///
    /// Returns those that were refused, as [`register`](Self::register) would have; the others are registered.
    pub fn register_all(
        &self,
        targets: impl IntoIterator<Item = Target<T>>,
    ) -> Vec<RegisterError<T>> {
        // Foreign code runs before the lock is taken.
        let targets: Vec<Target<T>> = targets.into_iter().collect();
        self.shared.enter(|control, now| {
            targets
                .into_iter()
                .filter_map(|target| self.admit(control, now, Some(target)))
                .collect()
        })
    }

    fn admit(
        &self,
        control: &mut Control<T>,
        now: Instant,
        target: Option<Target<T>>,
    ) -> Option<RegisterError<T>> {
        let target = target?;
        let refuse = |target, reason| {
            Some(RegisterError {
                target: Box::new(target),
                reason,
            })
        };
        if let Some(value) = target.max_outstanding
            && !is_limit(value)
        {
            let limit = MOST_OUTSTANDING;
            return refuse(target, RegisterReason::MaxOutstanding { value, limit });
        }
        let mut registration = Registration::new(target.id.clone());
        registration.weight = target.weight;
        registration.zone.clone_from(&target.zone);
        registration.priority = target.priority;
        let slot = match control.machine.register(now, registration) {
            Ok(slot) => slot,
            Err(reason) => return refuse(target, RegisterReason::Refused(reason)),
        };
        let limit = target
            .max_outstanding
            .or(self.shared.config.max_outstanding)
            .unwrap_or(MOST_OUTSTANDING);
        control.place(Arc::new(Seat {
            load: Load::new(limit),
            shared: Arc::clone(&self.shared),
            value: target.value,
            hash: key_of(target.id.as_str().as_bytes()),
            id: target.id,
            zone: target.zone,
            slot,
            rank: self.shared.memory.rank(),
            ending: Ending::new(),
        }));
        None
    }

    /// Takes a target out: it gets nothing new, finishes what it has, and is gone then, or when the rules'
    /// [`deregistration`](Rules::deregistration) delay is over. At once when it has nothing in hand.
    ///
    /// # Errors
    /// [`UnknownTarget`] when no target has this name. One that drains already drains on: a second call is fine.
    pub fn deregister(&self, id: &TargetId) -> Result<(), UnknownTarget> {
        self.shared.enter(|control, now| {
            let slot = control.machine.deregister(now, id)?;
            control.leaving.push(slot);
            Ok(())
        })
    }

    /// Sets a target's weight; 0 gives it nothing.
    ///
    /// # Errors
    /// [`WeightError`] when there is no such target, or the weight is above the limit.
    pub fn set_weight(&self, id: &TargetId, weight: u32) -> Result<(), WeightError> {
        self.shared
            .enter(|control, now| control.machine.set_weight(now, id, weight))
    }

    /// Keeps a target out of use, for a reason of the caller's.
    ///
    /// # Errors
    /// [`UnknownTarget`].
    pub fn suspend(&self, id: &TargetId, reason: Unused) -> Result<(), UnknownTarget> {
        self.shared
            .enter(|control, now| control.machine.suspend(now, id, reason))
    }

    /// Takes a suspended target into use again.
    ///
    /// # Errors
    /// [`UnknownTarget`].
    pub fn resume(&self, id: &TargetId) -> Result<(), UnknownTarget> {
        self.shared
            .enter(|control, now| control.machine.resume(now, id))
    }

    /// Shifts requests away from a zone for a while.
    ///
    /// # Errors
    /// [`UnknownZone`] when no target was registered in it.
    pub fn shift_zone(&self, zone: &Zone, during: Duration) -> Result<(), UnknownZone> {
        self.shared
            .enter(|control, now| control.machine.shift_zone(now, zone, now + during))
    }

    /// Ends a zone's shift before its time.
    ///
    /// # Errors
    /// [`UnknownZone`] when no target was registered in it.
    pub fn end_shift(&self, zone: &Zone) -> Result<(), UnknownZone> {
        self.shared
            .enter(|control, now| control.machine.end_shift(now, zone))
    }

    // Picking.

    /// Picks a target for a request of which nothing is known.
    ///
    /// # Errors
    /// [`PickError`]: nobody is registered, eligible, or free.
    #[inline]
    pub fn try_pick(&self) -> Result<Lease<T>, PickError> {
        self.shared.pick(&Request::default())
    }

    /// Picks a target for a request.
    ///
    /// # Errors
    /// [`PickError`]: nobody is registered, eligible, or free.
    #[inline]
    pub fn try_pick_for(&self, request: &Request<'_>) -> Result<Lease<T>, PickError> {
        self.shared.pick(request)
    }

    /// Some targets at random, to be asked for their load; each at most once, and none that is not eligible. For
    /// [`Algorithm::Prequal`](crate::Algorithm::Prequal): ask them, and give what they answer to
    /// [`TargetRef::observe`].
    ///
    /// ```
    /// use sim_balancer::{Algorithm, Balancer, BalancerConfig, Feedback, PrequalConfig, Target};
    ///
    /// let balancer = Balancer::new(BalancerConfig {
    ///     algorithm: Algorithm::Prequal(PrequalConfig::default()),
    ///     ..Default::default()
    /// })?;
    /// for port in 8_000..8_010_u16 {
    ///     balancer.register(Target::new(format!("10.0.0.1:{port}"), port))?;
    /// }
    /// let lease = balancer.try_pick()?;
    /// // Beside the request, three targets are asked.
    /// for target in balancer.sample(3) {
    ///     let answer = Feedback { in_flight: 2, ..Default::default() };
    ///     target.observe(answer);
    /// }
    /// # drop(lease);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn sample(&self, count: usize) -> Vec<TargetRef<T>> {
        let memory = &self.shared.memory;
        let table = self.shared.table.load();
        let (tiers, first) = table.tiers(self.shared.config.zone.as_ref(), memory);
        let Some(tier) = tiers.get(first) else {
            return Vec::new();
        };
        let targets = tier.seats.len();
        let count = count.min(targets);
        let mut drawn = Vec::with_capacity(count);
        // Floyd, in Bentley, "Programming pearls: a sample of brilliance", CACM 30(9), 1987.
        for last in targets - count..targets {
            let draw = memory.below(last + 1);
            let draw = if drawn.contains(&draw) { last } else { draw };
            drawn.push(draw);
        }
        let target = |index| TargetRef(Arc::clone(tier.seats.get(index)));
        drawn.into_iter().map(target).collect()
    }

    /// Picks a target, and waits while there is none.
    ///
    /// # Cancel safety
    /// A target is picked in the poll that returns it: a future that is dropped loses none.
    pub async fn pick(&self) -> Lease<T> {
        self.pick_for(&Request::default()).await
    }

    /// Picks a target for a request, and waits while there is none.
    ///
    /// # Cancel safety
    /// As [`pick`](Self::pick).
    pub async fn pick_for(&self, request: &Request<'_>) -> Lease<T> {
        loop {
            let picked = self.pick_for_until(request, Instant::NEVER).await;
            // Without a deadline it never elapses.
            if let Ok(lease) = picked {
                return lease;
            }
        }
    }

    /// Picks a target, and waits while there is none, until a deadline.
    ///
    /// # Errors
    /// [`PickError::Elapsed`] at the deadline.
    ///
    /// # Cancel safety
    /// As [`pick`](Self::pick).
    pub async fn pick_until(&self, deadline: Instant) -> Result<Lease<T>, PickError> {
        self.pick_for_until(&Request::default(), deadline).await
    }

    /// Picks a target for a request, and waits while there is none, until a deadline.
    ///
    /// # Errors
    /// [`PickError::Elapsed`] at the deadline.
    ///
    /// # Cancel safety
    /// As [`pick`](Self::pick).
    pub async fn pick_for_until(
        &self,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<Lease<T>, PickError> {
        if let Ok(lease) = self.shared.pick(request) {
            return Ok(lease);
        }
        let shared = &*self.shared;
        let attempt = || shared.attempt(request);
        until(&shared.openings, &shared.clock, deadline, attempt)
            .await
            .map_err(|Elapsed| PickError::Elapsed)
    }

    /// Picks a target, and blocks the thread while there is none.
    pub fn pick_blocking(&self) -> Lease<T> {
        loop {
            let picked = self.pick_until_blocking(&Request::default(), Instant::NEVER);
            if let Ok(lease) = picked {
                return lease;
            }
        }
    }

    /// Picks a target for a request, and blocks the thread while there is none, until a deadline.
    ///
    /// # Errors
    /// [`PickError::Elapsed`] at the deadline.
    pub fn pick_until_blocking(
        &self,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<Lease<T>, PickError> {
        let shared = &*self.shared;
        let attempt = || shared.attempt(request);
        until_blocking(&shared.openings, &shared.clock, deadline, attempt)
            .map_err(|Elapsed| PickError::Elapsed)
    }

    // Health.

    /// Takes the result of a health check.
    ///
    /// # Errors
    /// [`UnknownTarget`] when it is gone; then the result does not matter any more.
    pub fn report(&self, id: &TargetId, result: ProbeResult) -> Result<(), UnknownTarget> {
        self.shared.enter(|control, now| {
            let slot = control
                .machine
                .slot(id)
                .ok_or_else(|| UnknownTarget { id: id.clone() })?;
            control.machine.probe(now, slot, result);
            Ok(())
        })
    }

    /// Takes results of checks of these very targets, and not of later ones of the same names.
    #[cfg(feature = "check")]
    pub(crate) fn report_all<'a>(
        &self,
        results: impl Iterator<Item = (&'a TargetRef<T>, ProbeResult)>,
    ) where
        T: 'a,
    {
        self.shared.enter(|control, now| {
            for (target, result) in results {
                control.machine.probe(now, target.slot(), result);
            }
        });
    }

    /// Hands out the targets that are to be checked now, each once an interval.
    #[must_use]
    pub fn due_checks(&self) -> Vec<TargetRef<T>> {
        self.shared.due_checks()
    }

    /// Waits until targets are to be checked, and hands them out. Who waits here keeps the balancer's time.
    ///
    /// # Cancel safety
    /// Checks are handed out in the poll that returns them: a future that is dropped loses none.
    pub async fn checks(&self) -> Vec<TargetRef<T>> {
        let shared = &*self.shared;
        let attempt = || {
            let due = shared.due_checks();
            if due.is_empty() {
                let wake_at = Instant::from_nanos(shared.next_due.load(Ordering::SeqCst));
                Attempt::Pending { wake_at }
            } else {
                Attempt::Done {
                    value: due,
                    more: false,
                }
            }
        };
        until(&shared.checks, &shared.clock, Instant::NEVER, attempt)
            .await
            .unwrap_or_default()
    }

    /// How a target is; `None` when it is not there.
    #[must_use]
    pub fn health(&self, id: &TargetId) -> Option<TargetHealth> {
        let control = self.shared.control.lock();
        control.machine.health(control.machine.slot(id)?)
    }

    /// Who may get requests now, and how many: what picks choose from. A copy, for looking at.
    ///
    /// It tells too whether a zone, or the whole, is available ([`Pool::available`](crate::machine::Pool::available)).
    #[must_use]
    pub fn view(&self) -> View {
        self.shared
            .enter(|control, _| control.machine.view().clone())
    }

    /// A target, without a lease; `None` when it is not there.
    #[must_use]
    pub fn target(&self, id: &TargetId) -> Option<TargetRef<T>> {
        let control = self.shared.control.lock();
        let slot = control.machine.slot(id)?;
        control.seat(slot).cloned().map(TargetRef)
    }

    /// What happened to the targets lately, oldest first; as many as the rules' limit of history says.
    #[must_use]
    pub fn notes(&self) -> Vec<Note> {
        let control = self.shared.control.lock();
        control.machine.notes().cloned().collect()
    }

    // Time.

    /// When something is due next: the end of a drain, a step of a slow start, a check.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let next = Instant::from_nanos(self.shared.next_due.load(Ordering::SeqCst));
        (!next.is_never()).then_some(next)
    }

    /// Does what is due at or before `now`. Waiters and picks do it too; a driver is needed only when nobody picks.
    ///
    /// A `now` that lies ahead of the clock is believed: what is scheduled later counts from it. [`Instant::NEVER`] is no
    /// time, and does nothing.
    pub fn advance(&self, now: Instant) {
        self.shared.enter(|control, _| control.advance(now));
    }

    // Numbers.

    /// What the balancer has done and has in hand. Walks over all targets.
    #[must_use]
    pub fn stats(&self) -> BalancerStats {
        let eligible = self.shared.table.load().eligible() as u64;
        let waiting = self.shared.openings.waiting() as u64;
        let control = self.shared.control.lock();
        let mut stats = BalancerStats {
            algorithm: self.shared.config.algorithm.name(),
            targets: control.machine.counts(),
            eligible,
            outstanding: 0,
            finished: control.retired.finished,
            failed: control.retired.failed,
            cancelled: control.retired.cancelled,
            waiting,
            generation: control.built,
        };
        for seat in control.seats.iter().flatten().chain(&control.departed) {
            let counts = seat.load.counts();
            stats.outstanding += u64::from(seat.load.outstanding());
            stats.finished += counts.finished;
            stats.failed += counts.failed;
            stats.cancelled += counts.cancelled;
        }
        stats
    }

    /// What each target has done and has in hand, those that drain included.
    #[must_use]
    pub fn targets(&self) -> Vec<TargetStats> {
        let shared = &*self.shared;
        let now = crate::algorithm::load::tick(shared.clock.fine());
        let control = shared.control.lock();
        control
            .machine
            .targets()
            .filter_map(|listed| {
                let seat = control.seat(listed.slot)?;
                let counts = seat.load.counts();
                let latency = shared
                    .timing
                    .as_ref()
                    .map_or(0.0, |timing| seat.load.cost(now, &timing.decay));
                Some(TargetStats {
                    id: listed.id.clone(),
                    zone: seat.zone.clone(),
                    weight: listed.weight,
                    priority: listed.priority,
                    health: listed.health,
                    outstanding: seat.load.outstanding(),
                    max_outstanding: seat.load.limit(),
                    finished: counts.finished,
                    failed: counts.failed,
                    cancelled: counts.cancelled,
                    latency: (latency > 0.0).then(|| Duration::from_nanos(latency as u64)),
                })
            })
            .collect()
    }
}

impl<T> Clone for Balancer<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            life: Arc::clone(&self.life),
        }
    }
}

impl<T> fmt::Debug for Balancer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balancer")
            .field("name", &self.shared.config.name)
            .field("algorithm", &self.shared.config.algorithm.name())
            .field("table", &*self.shared.table.load())
            .finish_non_exhaustive()
    }
}

/// What came of looking through a tier.
enum Found<T> {
    Lease(Lease<T>),
    /// Nobody there has room.
    Nobody,
    /// A target was on its way out, and there is a later table; or others were quicker, again and again.
    Stale,
}

impl<T> Shared<T> {
    #[inline]
    fn pick(&self, request: &Request<'_>) -> Result<Lease<T>, PickError> {
        let due = self.next_due.load(Ordering::Relaxed);
        if due != u64::MAX {
            self.look(due);
        }
        let now = match self.timing {
            Some(_) => self.clock.fine(),
            None => Instant::ORIGIN,
        };
        let table = self.table.load();
        if let Some(tier) = &table.plain
            && request.sticky.is_none()
            && request.avoid.is_empty()
        {
            let ask = Ask {
                key: request.key,
                now,
            };
            if let Some(index) = tier.selector.choose(&tier.seats, &ask, &self.memory) {
                let seat = tier.seats.get(index);
                match seat.load.enter(Entry::New) {
                    Ok(()) => return Ok(Lease::new(Arc::clone(seat), now)),
                    Err((_, after)) => self.after(seat, after),
                }
            }
        }
        drop(table);
        self.pick_slow(request, now)
    }

    /// Serves what is due, if it is. Apart from the pick, which it would burden with what it needs for the clock.
    #[inline(never)]
    fn look(&self, due: u64) {
        if self.clock.recent().as_nanos() >= due {
            self.serve();
        }
    }

    /// Looks at all that the request says, and at every target before it gives up.
    #[cold]
    fn pick_slow(&self, request: &Request<'_>, now: Instant) -> Result<Lease<T>, PickError> {
        let ask = Ask {
            key: request.key,
            now,
        };
        let zone = request.zone.or(self.config.zone.as_ref());
        'stale: loop {
            let table = self.table.load_arc();
            if let Some(seat) = request.sticky.and_then(|id| table.named(id)) {
                match seat.load.enter(Entry::Sticking) {
                    Ok(()) => return Ok(Lease::new(Arc::clone(seat), now)),
                    Err((_, after)) => self.after(seat, after),
                }
            }
            let (tiers, first) = table.tiers(zone, &self.memory);
            if tiers.is_empty() {
                return Err(if table.is_empty {
                    PickError::Empty
                } else {
                    PickError::NoneEligible
                });
            }
            // What is to be avoided is avoided unless there is nothing else.
            let wishes: &[&[TargetId]] = if request.avoid.is_empty() {
                &[&[]]
            } else {
                &[request.avoid, &[]]
            };
            for avoid in wishes {
                let order = std::iter::once(first).chain((0..tiers.len()).filter(|&i| i != first));
                for tier in order.filter_map(|index| tiers.get(index)) {
                    match self.pick_in(tier, &ask, avoid) {
                        Found::Lease(lease) => return Ok(lease),
                        Found::Nobody => {}
                        Found::Stale => continue 'stale,
                    }
                }
            }
            return Err(PickError::Saturated);
        }
    }

    fn pick_in(&self, tier: &Tier<T>, ask: &Ask, avoid: &[TargetId]) -> Found<T> {
        let admit = |index: usize| {
            let seat = tier.seats.get(index);
            !seat.load.is_full() && !avoid.contains(&seat.id)
        };
        let mut chosen = tier
            .selector
            .choose(&tier.seats, ask, &self.memory)
            .filter(|&index| admit(index));
        for _ in 0..TRIES {
            let next = || tier.selector.next(&tier.seats, ask, &self.memory, &admit);
            let Some(index) = chosen.take().or_else(next) else {
                return Found::Nobody;
            };
            let seat = tier.seats.get(index);
            match seat.load.enter(Entry::New) {
                Ok(()) => return Found::Lease(Lease::new(Arc::clone(seat), ask.now)),
                Err((barred, after)) => {
                    self.after(seat, after);
                    if barred == Barred::Leaving {
                        return Found::Stale;
                    }
                }
            }
        }
        // There was room each time: a waiter that gave up here would sleep beside it.
        thread::yield_now();
        Found::Stale
    }

    /// A pick by a waiter, who keeps the time.
    fn attempt(&self, request: &Request<'_>) -> Attempt<Lease<T>> {
        let due = self.next_due.load(Ordering::SeqCst);
        if due != u64::MAX && self.clock.now().as_nanos() >= due {
            self.enter(|control, now| control.advance(now));
        }
        match self.pick(request) {
            // Whether there is more is found out by trying.
            Ok(value) => Attempt::Done { value, more: true },
            Err(_) => Attempt::Pending {
                wake_at: Instant::from_nanos(self.next_due.load(Ordering::SeqCst)),
            },
        }
    }

    fn due_checks(&self) -> Vec<TargetRef<T>> {
        self.enter(|control, now| {
            control.advance(now);
            let mut due = Vec::new();
            while let Some(slot) = control.machine.take_due_check() {
                due.extend(control.seat(slot).cloned().map(TargetRef));
            }
            due
        })
    }
}
