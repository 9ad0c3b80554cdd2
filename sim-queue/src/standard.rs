//! The lock-free engine of standard queues.
//!
//! # How a message travels
//! A plain message stands by value in `fresh`, a ring keyed by the time of sending. A receive takes it out
//! of the ring and puts it, leased, into a slot of the slab; the slot's key and the lease's end go into
//! `leases`, the plain ring of the queue's own visibility timeout. Acknowledging is one compare-and-swap
//! on the slot. Nothing on this way takes a lock.
//!
//! What is out of the ordinary (a delayed message, a lease of another length, a message that came back)
//! stands in its slot, idle, and is found by its key: in the timer wheel behind `control` until it is due,
//! then in `returned`, which receivers look into first because what stands there is older.
//!
//! # Deadlines
//! [`Shared::next_due`] is a lower bound of all deadlines. Who enters the queue later than that serves
//! what is due, under the control lock and deadline by deadline. An entry whose slot has moved on since is
//! recognised by its generation and dropped. A lease that was lengthened is recognised by the slot's own
//! deadline and set anew: lengthening a lease touches neither ring nor wheel.

use std::time::Duration;

use sim_core::deadline::LeaseRing;
use sim_core::ring::{Bounded, Entry, Unbounded};
use sim_core::slab::{Key, Removed};
use sim_core::sync::Mutex;
use sim_core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use sim_core::time::Instant;
use sim_core::wheel::Wheel;

use crate::dead_letter::DeadLetterReason;
use crate::delivery::{Delivery, Lease};
use crate::message::{Headers, Message};
use crate::shared::{Fate, Held, REDRIVE_RETRY, Shared, Slots, Stored, count};

/// Caps up to this one are kept exactly, at the price of a shared counter.
const EXACT_CAP: usize = 1024;
/// Every so many leases the lease ring is swept of those that ended.
const SWEEP_EVERY: u64 = 64;
/// Set in the numbers of messages that did not pass `fresh`, so that they differ from its positions.
const SLOT_NUMBER: u64 = 1 << 61;

/// A message that waits in the ring.
pub(crate) struct Waiting<T> {
    pub(crate) value: T,
    pub(crate) headers: Option<Box<Headers<T>>>,
}

/// The ring of messages that were not received yet.
pub(crate) enum Fresh<T> {
    Bounded(Bounded<Waiting<T>, u64>),
    Unbounded(Unbounded<Waiting<T>, u64>),
}

/// What the wheel keeps: slots by their low key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    /// The lease of this slot ends.
    Lease(u64),
    /// This idle slot becomes visible.
    Visible(u64),
}

/// The part behind the lock.
struct Control {
    wheel: Wheel<Timer>,
}

/// The lock-free engine.
pub(crate) struct Standard<T> {
    fresh: Fresh<T>,
    /// Idle slots that are visible, by the time of sending.
    returned: Unbounded<u64, u64>,
    leases: LeaseRing,
    /// The queue's visibility timeout in nanoseconds, and its delay.
    lease_nanos: AtomicU64,
    delay_nanos: AtomicU64,
    control: Mutex<Control>,
    /// Idle slots that are not visible yet.
    delayed: AtomicUsize,
    /// Entries of `returned` whose message was acknowledged late.
    dangling: AtomicUsize,
    /// Leases that stand in the wheel, an upper bound.
    odd: AtomicUsize,
    /// Leases under an exact cap; unused under an approximate one.
    exact: AtomicUsize,
    numbers: AtomicU64,
    /// The configured cap is small enough to be exact.
    is_exact: bool,
}

/// Why nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nothing {
    Empty,
    OverLimit,
}

impl<T: Send + Sync + 'static> Standard<T> {
    pub(crate) fn new(config: &crate::QueueConfig) -> Self {
        let fresh = match config.capacity {
            Some(capacity) => Fresh::Bounded(Bounded::with_capacity(capacity)),
            None => Fresh::Unbounded(Unbounded::new()),
        };
        Self {
            fresh,
            returned: Unbounded::new(),
            leases: LeaseRing::new(),
            lease_nanos: AtomicU64::new(nanos(config.visibility_timeout)),
            delay_nanos: AtomicU64::new(nanos(config.delay)),
            control: Mutex::new(Control { wheel: Wheel::new() }),
            delayed: AtomicUsize::new(0),
            dangling: AtomicUsize::new(0),
            odd: AtomicUsize::new(0),
            exact: AtomicUsize::new(0),
            numbers: AtomicU64::new(0),
            is_exact: config.max_in_flight <= EXACT_CAP,
        }
    }

    // ---- sending -------------------------------------------------------------------------------------

    /// Whether as many messages wait as the capacity allows. Exact as long as nothing is delayed and
    /// nothing came back.
    fn is_full(&self, shared: &Shared<T>) -> bool {
        let Some(capacity) = shared.config.capacity else { return false };
        let slots = self.delayed.load(Ordering::SeqCst) + self.returned.len();
        slots != 0 && slots + self.fresh.len() >= capacity
    }

    /// Takes a message in. `None` for its own delay means the queue's.
    ///
    /// # Errors
    /// The message, when the queue is full or closed.
    pub(crate) fn send(
        &self,
        slots: &Slots<T>,
        now: Instant,
        message: Message<T>,
        within_capacity: bool,
    ) -> Result<u64, Message<T>> {
        let shared = slots.context();
        let delay = message
            .headers
            .as_ref()
            .and_then(|headers| headers.delay)
            .map_or_else(|| self.delay_nanos.load(Ordering::Relaxed), nanos);
        let sent_at = message.headers.as_ref().and_then(|headers| headers.sent_at);
        if within_capacity && self.is_full(shared) {
            return Err(message);
        }
        if delay != 0 || sent_at.is_some() || !within_capacity {
            let visible_at = now + Duration::from_nanos(delay);
            return self.send_to_slot(slots, sent_at.unwrap_or(now), now, visible_at, message);
        }
        let Message { value, headers } = message;
        match self.fresh.push(now.as_nanos(), Waiting { value, headers }) {
            Ok(number) => {
                if let Some(retention) = shared.config.retention {
                    shared.announce(now + retention);
                }
                shared.arrivals.notify_one();
                Ok(number)
            }
            Err(Waiting { value, headers }) => Err(Message { value, headers }),
        }
    }

    /// Takes many messages without headers in with one claim, as many as there is room for.
    pub(crate) fn send_values(&self, slots: &Slots<T>, now: Instant, values: &mut Vec<T>) -> usize {
        let shared = slots.context();
        if self.delay_nanos.load(Ordering::Relaxed) != 0 || self.is_full(shared) {
            let mut taken = 0;
            let mut rest = std::mem::take(values).into_iter();
            for value in rest.by_ref() {
                match self.send(slots, now, Message::new(value), true) {
                    Ok(_) => taken += 1,
                    Err(message) => {
                        values.push(message.value);
                        break;
                    }
                }
            }
            values.extend(rest);
            return taken;
        }
        let pushed = self.fresh.push_values(now.as_nanos(), values);
        if pushed > 0 {
            if let Some(retention) = shared.config.retention {
                shared.announce(now + retention);
            }
            shared.arrivals.notify_one();
        }
        pushed
    }

    fn send_to_slot(
        &self,
        slots: &Slots<T>,
        sent_at: Instant,
        now: Instant,
        visible_at: Instant,
        message: Message<T>,
    ) -> Result<u64, Message<T>> {
        let shared = slots.context();
        let Message { value, headers } = message;
        // Under the lock, so that closing, which takes it, comes before or after.
        let mut control = self.control.lock();
        if shared.is_closed() {
            return Err(Message { value, headers });
        }
        let number = SLOT_NUMBER | self.numbers.fetch_add(1, Ordering::Relaxed);
        let key = match slots.insert(Stored::new(value, headers, number, sent_at)) {
            Ok(key) => key,
            Err(stored) => {
                return Err(Message { value: stored.value, headers: stored.headers });
            }
        };
        shared.counters.add(count::SLOT_SENT, 1);
        if visible_at > now {
            self.delayed.fetch_add(1, Ordering::SeqCst);
            control.wheel.insert(visible_at, Timer::Visible(key.low()));
            drop(control);
            shared.announce(visible_at);
        } else {
            self.returned.push_keyed(sent_at.as_nanos(), key.low());
            drop(control);
            shared.arrivals.notify_one();
        }
        if let Some(retention) = shared.config.retention {
            shared.announce(sent_at + retention);
        }
        Ok(number)
    }

    // ---- receiving -----------------------------------------------------------------------------------

    /// Receives one message.
    #[inline]
    pub(crate) fn take(
        &self,
        slots: &Slots<T>,
        now: Instant,
        visibility: Option<Duration>,
    ) -> Result<Delivery<T>, Nothing> {
        let shared = slots.context();
        self.serve_if_due(slots, now);
        self.reserve(slots, now, 1)?;
        let lease = self.lease_end(now, visibility);
        while !self.returned.is_empty() {
            let Some(entry) = self.returned.pop_entry() else { break };
            if let Some(delivery) = self.lease_idle(slots, now, lease, entry.value) {
                shared.space.notify_one();
                return Ok(delivery);
            }
        }
        loop {
            let Some(entry) = self.fresh.pop() else {
                self.unreserve(1);
                return Err(Nothing::Empty);
            };
            shared.space.notify_one();
            let sent_at = Instant::from_nanos(entry.key);
            if shared.is_expired(sent_at, now) {
                drop(entry.value);
                shared.gone(count::EXPIRED, 1);
                continue;
            }
            let lease = lease.within(shared.config.retention, sent_at);
            let held = self.place(slots, now, lease, entry.position, sent_at, entry.value);
            self.log_lease(slots, lease, held.key().low());
            return Ok(Delivery::new(held, Lease::fresh(now)));
        }
    }

    /// Receives up to `max` messages with one claim for each ring; returns how many.
    pub(crate) fn take_batch(
        &self,
        slots: &Slots<T>,
        now: Instant,
        visibility: Option<Duration>,
        max: usize,
        out: &mut Vec<Delivery<T>>,
    ) -> Result<usize, Nothing> {
        let shared = slots.context();
        self.serve_if_due(slots, now);
        let max = self.reserve(slots, now, max)?;
        let lease = self.lease_end(now, visibility);
        let before = out.len();
        let mut found = 0;
        while found < max && !self.returned.is_empty() {
            let Some(entry) = self.returned.pop_entry() else { break };
            if let Some(delivery) = self.lease_idle(slots, now, lease, entry.value) {
                out.push(delivery);
                found += 1;
            }
        }
        // Without a retention all these leases end together: one claim in the ring logs them.
        let together = lease.own.filter(|_| shared.config.retention.is_none());
        let first = out.len();
        while found < max {
            let mut expired = 0;
            let taken = self.fresh.pop_batch(max - found, |position, key, waiting| {
                let sent_at = Instant::from_nanos(key);
                if shared.is_expired(sent_at, now) {
                    expired += 1;
                    return;
                }
                let lease = lease.within(shared.config.retention, sent_at);
                let held = self.place(slots, now, lease, position, sent_at, waiting);
                if together.is_none() {
                    self.log_lease(slots, lease, held.key().low());
                }
                out.push(Delivery::new(held, Lease::fresh(now)));
                found += 1;
            });
            if expired > 0 {
                shared.gone(count::EXPIRED, expired);
            }
            if taken == 0 {
                break;
            }
        }
        if let Some(own) = together {
            self.log_leases(slots, lease.at, own, &out[first..]);
        }
        let taken = out.len() - before;
        self.unreserve(max - taken);
        if taken == 0 {
            return Err(Nothing::Empty);
        }
        shared.space.notify_one();
        Ok(taken)
    }

    /// Puts a message out of the ring into a leased slot.
    fn place(
        &self,
        slots: &Slots<T>,
        now: Instant,
        lease: LeaseEnd,
        position: u64,
        sent_at: Instant,
        waiting: Waiting<T>,
    ) -> Held<T> {
        let mut stored = Stored::new(waiting.value, waiting.headers, position, sent_at);
        stored.first_received = AtomicU64::new(now.as_nanos().max(1));
        stored.deadline = AtomicU64::new(lease.at.as_nanos());
        stored.receives = sim_core::sync::atomic::AtomicU32::new(1);
        loop {
            match slots.insert_leased(stored) {
                Ok(held) => return held,
                // Two to the 32nd slots are taken: their holders must go first.
                Err(back) => {
                    stored = back;
                    sim_core::sync::thread::yield_now();
                }
            }
        }
    }

    /// Leases an idle slot that was found under `low`, unless it moved on or is too old.
    fn lease_idle(
        &self,
        slots: &Slots<T>,
        now: Instant,
        lease: LeaseEnd,
        low: u64,
    ) -> Option<Delivery<T>> {
        let shared = slots.context();
        let Some(held) = slots.lease_low(low) else {
            self.not_leased(slots, now, low);
            return None;
        };
        if shared.is_expired(held.sent_at, now) {
            let removed = held.remove_with(false, |_, _, stored| drop(stored));
            if removed.is_ok() {
                shared.gone(count::EXPIRED, 1);
            }
            return None;
        }
        let lease = lease.within(shared.config.retention, held.sent_at);
        let receives = held.receives.load(Ordering::Relaxed).saturating_add(1);
        held.receives.store(receives, Ordering::Relaxed);
        held.deadline.store(lease.at.as_nanos(), Ordering::Relaxed);
        if receives == 1 {
            held.first_received.store(now.as_nanos().max(1), Ordering::Relaxed);
        }
        let first = Instant::from_nanos(held.first_received.load(Ordering::Relaxed));
        self.log_lease(slots, lease, held.key().low());
        Some(Delivery::new(held, Lease::again(now, first, receives)))
    }

    /// An entry of `returned` led nowhere: its message was acknowledged late, or so many old deliveries of
    /// it are held that its slot counts no more; then it is tried again in a second.
    #[cold]
    fn not_leased(&self, slots: &Slots<T>, now: Instant, low: u64) {
        if !slots.is_idle_low(low) {
            self.dangling.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        let at = now + REDRIVE_RETRY;
        {
            let mut control = self.control.lock();
            self.delayed.fetch_add(1, Ordering::SeqCst);
            control.wheel.insert(at, Timer::Visible(low));
        }
        slots.context().announce(at);
    }

    /// A message was removed that stands in `returned`: its entry leads nowhere now.
    pub(crate) fn removed_late(&self) {
        self.dangling.fetch_add(1, Ordering::SeqCst);
    }

    fn lease_end(&self, now: Instant, visibility: Option<Duration>) -> LeaseEnd {
        let own = self.lease_nanos.load(Ordering::SeqCst);
        match visibility.map(nanos) {
            Some(asked) if asked != own => {
                LeaseEnd { at: now + Duration::from_nanos(asked), own: None }
            }
            _ => LeaseEnd { at: now + Duration::from_nanos(own), own: Some(own) },
        }
    }

    /// Makes the end of a lease findable.
    fn log_lease(&self, slots: &Slots<T>, lease: LeaseEnd, low: u64) {
        let shared = slots.context();
        match lease.own {
            Some(own) => {
                let position = self.leases.push(lease.at, low);
                shared.announce(lease.at);
                if self.lease_nanos.load(Ordering::SeqCst) != own {
                    self.spill_leases();
                }
                if position % SWEEP_EVERY == SWEEP_EVERY - 1 {
                    self.sweep(slots);
                }
            }
            None => {
                self.log_odd(shared, lease.at, low);
                shared.counters.add(count::ODD_RECEIVED, 1);
            }
        }
    }

    /// Makes the ends of many leases of the queue's own length findable, with one claim.
    fn log_leases(&self, slots: &Slots<T>, at: Instant, own: u64, deliveries: &[Delivery<T>]) {
        if deliveries.is_empty() {
            return;
        }
        let shared = slots.context();
        let first = self.leases.push_batch(at, deliveries.iter().map(Delivery::low));
        shared.announce(at);
        if self.lease_nanos.load(Ordering::SeqCst) != own {
            self.spill_leases();
        }
        if first / SWEEP_EVERY != (first + deliveries.len() as u64) / SWEEP_EVERY {
            self.sweep(slots);
        }
    }

    /// Puts the end of a lease into the wheel.
    pub(crate) fn log_odd(&self, shared: &Shared<T>, at: Instant, low: u64) {
        {
            let mut control = self.control.lock();
            control.wheel.insert(at, Timer::Lease(low));
            self.odd.fetch_add(1, Ordering::SeqCst);
        }
        shared.announce(at);
    }

    // ---- the cap on leases ---------------------------------------------------------------------------

    /// Reserves up to `max` leases under the cap; returns how many.
    #[inline]
    fn reserve(&self, slots: &Slots<T>, now: Instant, max: usize) -> Result<usize, Nothing> {
        let shared = slots.context();
        let undelivered = shared.undelivered_len.load(Ordering::Relaxed);
        let cap = shared.config.max_in_flight.saturating_sub(usize::try_from(undelivered).unwrap_or(0));
        if self.is_exact {
            let mut current = self.exact.load(Ordering::SeqCst);
            loop {
                let granted = max.min(cap.saturating_sub(current));
                if granted == 0 {
                    return Err(Nothing::OverLimit);
                }
                match self.exact.compare_exchange_weak(
                    current,
                    current + granted,
                    Ordering::SeqCst,
                    Ordering::SeqCst,
                ) {
                    Ok(_) => return Ok(granted),
                    Err(found) => current = found,
                }
            }
        }
        // Every lease stands in the ring or in the wheel, so their lengths bound the number in flight.
        let bound = self.leases.len_bound() + self.odd.load(Ordering::Relaxed);
        if bound + max <= cap {
            return Ok(max);
        }
        let _ = now;
        let in_flight = usize::try_from(self.in_flight(shared)).unwrap_or(usize::MAX);
        let granted = max.min(cap.saturating_sub(in_flight));
        if granted == 0 { Err(Nothing::OverLimit) } else { Ok(granted) }
    }

    #[inline]
    fn unreserve(&self, n: usize) {
        if self.is_exact && n > 0 {
            self.exact.fetch_sub(n, Ordering::SeqCst);
        }
    }

    /// A lease ended, by whatever way.
    #[inline]
    pub(crate) fn lease_ended(&self) {
        self.unreserve(1);
    }

    // ---- coming back ---------------------------------------------------------------------------------

    /// Makes an idle slot visible that was in flight until now. The caller notifies `arrivals`.
    pub(crate) fn put_back(&self, shared: &Shared<T>, sent_at: Instant, low: u64) {
        self.returned.push_keyed(sent_at.as_nanos(), low);
        self.lease_ended();
        if let Some(retention) = shared.config.retention {
            shared.announce(sent_at + retention);
        }
    }

    // ---- deadlines -----------------------------------------------------------------------------------

    #[inline]
    pub(crate) fn serve_if_due(&self, slots: &Slots<T>, now: Instant) {
        if now.as_nanos() >= slots.context().next_due.load(Ordering::Relaxed) {
            self.serve(slots, now);
        }
    }

    /// Serves what is due, deadline by deadline, unless another thread does so already.
    #[cold]
    fn serve(&self, slots: &Slots<T>, now: Instant) {
        let shared = slots.context();
        // Values are dropped and letters are sent after the lock is given back: their code may call in.
        let mut dropped = Vec::new();
        let mut letters = Vec::new();
        {
            let Some(mut control) = self.control.try_lock() else { return };
            // First the bound, then the rings: whoever adds a deadline does it the other way round.
            shared.next_due.store(u64::MAX, Ordering::SeqCst);
            loop {
                let next = self.earliest(shared, &mut control);
                if next > now {
                    shared.announce(next);
                    break;
                }
                self.fire(slots, &mut control, next, now, &mut dropped, &mut letters);
            }
        }
        // One is enough: a receiver that finds more than it takes wakes the next.
        if self.has_visible() {
            shared.arrivals.notify_one();
        }
        let expired = dropped.len() as u64;
        drop(dropped);
        if expired > 0 {
            shared.gone(count::EXPIRED, expired);
            shared.space.notify_one();
        }
        for stored in letters {
            shared.bury(stored, DeadLetterReason::MaxReceives, now);
        }
        let retry = Instant::from_nanos(shared.redrive_at.load(Ordering::SeqCst));
        if retry <= now {
            shared.redeliver_letters(now);
        } else if retry != Instant::NEVER {
            shared.announce(retry);
        }
    }

    fn earliest(&self, shared: &Shared<T>, control: &mut Control) -> Instant {
        let lease = self.leases.next().unwrap_or(Instant::NEVER);
        let odd = control.wheel.next().unwrap_or(Instant::NEVER);
        let mut next = lease.min(odd);
        if let Some(retention) = shared.config.retention {
            for front in [self.fresh.front(), self.returned.front()].into_iter().flatten() {
                next = next.min(Instant::from_nanos(front.1) + retention);
            }
        }
        next
    }

    /// Serves one deadline, which is at or before `now`.
    fn fire(
        &self,
        slots: &Slots<T>,
        control: &mut Control,
        due: Instant,
        now: Instant,
        dropped: &mut Vec<Waiting<T>>,
        letters: &mut Vec<Stored<T>>,
    ) {
        let shared = slots.context();
        if let Some((at, low)) = self.leases.pop_due(due) {
            self.end_lease(slots, control, at, low, dropped, letters);
            return;
        }
        match control.wheel.pop_due(due) {
            Some((at, Timer::Lease(low))) => {
                self.odd.fetch_sub(1, Ordering::SeqCst);
                self.end_lease(slots, control, at, low, dropped, letters);
                return;
            }
            Some((_, Timer::Visible(low))) => {
                match slots.with_low(low, |stored| stored.sent_at) {
                    Some(sent_at) => drop(self.returned.push_keyed(sent_at.as_nanos(), low)),
                    None => drop(self.dangling.fetch_sub(1, Ordering::SeqCst)),
                }
                self.delayed.fetch_sub(1, Ordering::SeqCst);
                return;
            }
            None => {}
        }
        let Some(retention) = shared.config.retention else { return };
        let is_old = |key: u64| Instant::from_nanos(key) + retention <= now;
        if let Some(waiting) = self.fresh.pop_if(is_old) {
            dropped.push(waiting);
        } else if let Some(entry) = self.returned.pop_if(is_old) {
            match slots.remove_idle_low(entry.value) {
                Some(Removed::Value(stored)) => {
                    dropped.push(Waiting { value: stored.value, headers: stored.headers });
                }
                Some(Removed::Shared) => shared.gone(count::EXPIRED, 1),
                None => drop(self.dangling.fetch_sub(1, Ordering::SeqCst)),
            }
        }
    }

    /// The deadline of a lease has come: the message returns or dies, unless it was dealt with before.
    fn end_lease(
        &self,
        slots: &Slots<T>,
        control: &mut Control,
        due: Instant,
        low: u64,
        dropped: &mut Vec<Waiting<T>>,
        letters: &mut Vec<Stored<T>>,
    ) {
        let shared = slots.context();
        let mut later = None;
        let mut seen = (Instant::ORIGIN, 0);
        let ended = slots.unlease_if(low, |stored| {
            let deadline = Instant::from_nanos(stored.deadline.load(Ordering::Relaxed));
            seen = (stored.sent_at, stored.receives.load(Ordering::Relaxed));
            later = (deadline > due).then_some(deadline);
            later.is_none()
        });
        if ended.is_none() {
            if let Some(later) = later {
                control.wheel.insert(later, Timer::Lease(low));
                self.odd.fetch_add(1, Ordering::SeqCst);
            }
            return;
        }
        let (sent_at, receives) = seen;
        let low = Key::low_after_lease(low);
        shared.counters.add(count::LAPSED, 1);
        if shared.is_expired(sent_at, due) {
            match slots.remove_idle_low(low) {
                Some(Removed::Value(stored)) => {
                    dropped.push(Waiting { value: stored.value, headers: stored.headers });
                }
                Some(Removed::Shared) => shared.gone(count::EXPIRED, 1),
                None => {}
            }
            self.lease_ended();
            return;
        }
        if shared.max_receives().is_some_and(|max| receives >= max) {
            if let Some(held) = slots.lease_low(low) {
                let removed = held.remove_with(false, |_, _, stored| match stored {
                    Ok(stored) => Some(stored),
                    Err(stored) => {
                        stored.set_fate(Fate::MaxReceives);
                        None
                    }
                });
                letters.extend(removed.ok().flatten());
            }
            self.lease_ended();
            return;
        }
        self.put_back(shared, sent_at, low);
    }

    /// Keeps the lease ring no longer than about twice what is in flight.
    fn sweep(&self, slots: &Slots<T>) {
        let shared = slots.context();
        let live = usize::try_from(self.in_flight(shared)).unwrap_or(usize::MAX);
        if !self.leases.is_long(live) {
            return;
        }
        let Some(mut control) = self.control.try_lock() else { return };
        let is_live = |_, low| slots.is_leased_low(low);
        self.leases.overflow(live, is_live, usize::MAX, |at, low| {
            control.wheel.insert(at, Timer::Lease(low));
            self.odd.fetch_add(1, Ordering::SeqCst);
        });
    }

    /// Moves every lease from the ring to the wheel: the ring's order is broken, since the queue's own
    /// timeout changed.
    fn spill_leases(&self) {
        let mut control = self.control.lock();
        while let Some((at, low)) = self.leases.pop_due(Instant::NEVER) {
            control.wheel.insert(at, Timer::Lease(low));
            self.odd.fetch_add(1, Ordering::SeqCst);
        }
    }

    pub(crate) fn set_visibility_timeout(&self, timeout: Duration) {
        self.lease_nanos.store(nanos(timeout), Ordering::SeqCst);
        self.spill_leases();
    }

    pub(crate) fn set_delay(&self, delay: Duration) {
        self.delay_nanos.store(nanos(delay), Ordering::SeqCst);
    }

    // ---- the whole -----------------------------------------------------------------------------------

    /// Drops every message, in flight or not; returns how many.
    pub(crate) fn purge(&self, slots: &Slots<T>) -> u64 {
        let shared = slots.context();
        let mut dropped = Vec::new();
        let mut gone = 0;
        {
            let mut control = self.control.lock();
            let mut lows = Vec::new();
            while let Some((_, low)) = self.leases.pop_due(Instant::NEVER) {
                lows.push(low);
            }
            while let Some((_, timer)) = control.wheel.pop_due(Instant::NEVER) {
                match timer {
                    Timer::Lease(low) => {
                        self.odd.fetch_sub(1, Ordering::SeqCst);
                        lows.push(low);
                    }
                    Timer::Visible(low) => {
                        self.delayed.fetch_sub(1, Ordering::SeqCst);
                        lows.push(low);
                    }
                }
            }
            for low in lows {
                let ended = slots.unlease_if(low, |_| true).is_some();
                if ended {
                    self.lease_ended();
                }
                let low = if ended { Key::low_after_lease(low) } else { low };
                match slots.remove_idle_low(low) {
                    Some(Removed::Value(stored)) => {
                        gone += 1;
                        dropped.push(Waiting { value: stored.value, headers: stored.headers });
                    }
                    Some(Removed::Shared) => gone += 1,
                    None => {}
                }
            }
            // Only as many as stand there now: concurrent senders go on.
            for _ in 0..self.returned.len() {
                let Some(entry) = self.returned.pop_entry() else { break };
                match slots.remove_idle_low(entry.value) {
                    Some(Removed::Value(stored)) => {
                        gone += 1;
                        dropped.push(Waiting { value: stored.value, headers: stored.headers });
                    }
                    Some(Removed::Shared) => gone += 1,
                    None => drop(self.dangling.fetch_sub(1, Ordering::SeqCst)),
                }
            }
        }
        drop(dropped);
        for _ in 0..self.fresh.len() {
            let Some(entry) = self.fresh.pop() else { break };
            drop(entry.value);
            gone += 1;
        }
        shared.gone(count::PURGED, gone);
        shared.space.notify_all();
        gone
    }

    /// Refuses every later send.
    pub(crate) fn close(&self) {
        // Sends into slots happen under this lock and look at the flag there.
        let _control = self.control.lock();
    }

    pub(crate) fn has_visible(&self) -> bool {
        !self.fresh.is_empty() || !self.returned.is_empty()
    }

    pub(crate) fn visible(&self) -> u64 {
        let standing = self.fresh.len() + self.returned.len();
        standing.saturating_sub(self.dangling.load(Ordering::SeqCst)) as u64
    }

    pub(crate) fn delayed(&self) -> u64 {
        self.delayed.load(Ordering::SeqCst) as u64
    }

    pub(crate) fn sent(&self, shared: &Shared<T>) -> u64 {
        self.fresh.pushed() + shared.counters.sum(count::SLOT_SENT)
    }

    pub(crate) fn received(&self, shared: &Shared<T>) -> u64 {
        self.leases.pushed() + shared.counters.sum(count::ODD_RECEIVED)
    }

    /// Messages that were taken in and did not end yet.
    pub(crate) fn remaining(&self, shared: &Shared<T>) -> u64 {
        let counts = shared.counters.sums();
        let ended = counts[count::DELETED]
            + counts[count::EXPIRED]
            + counts[count::REDRIVEN]
            + counts[count::PURGED]
            + counts[count::MOVED];
        self.sent(shared).saturating_sub(ended)
    }

    pub(crate) fn in_flight(&self, shared: &Shared<T>) -> u64 {
        self.remaining(shared).saturating_sub(self.visible() + self.delayed())
    }

    pub(crate) fn oldest_sent(&self) -> Option<Instant> {
        [self.fresh.front(), self.returned.front()]
            .into_iter()
            .flatten()
            .map(|(_, key)| Instant::from_nanos(key))
            .min()
    }
}

/// The end of a lease, and the queue's own timeout when it was that one.
#[derive(Debug, Clone, Copy)]
struct LeaseEnd {
    at: Instant,
    own: Option<u64>,
}

impl LeaseEnd {
    /// No lease outlasts its message's retention.
    #[inline]
    fn within(self, retention: Option<Duration>, sent_at: Instant) -> Self {
        match retention.map(|retention| sent_at + retention) {
            Some(end) if end < self.at => Self { at: end, own: None },
            _ => self,
        }
    }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl<T> Fresh<T> {
    #[inline]
    fn push(&self, key: u64, waiting: Waiting<T>) -> Result<u64, Waiting<T>> {
        match self {
            Self::Bounded(ring) => ring.push_keyed(key, waiting),
            Self::Unbounded(ring) => Ok(ring.push_keyed(key, waiting)),
        }
    }

    /// Pushes as many of the values as fit, with one claim; returns how many.
    fn push_values(&self, key: u64, values: &mut Vec<T>) -> usize {
        let mut entries = values.drain(..).map(|value| (key, Waiting { value, headers: None }));
        let (_, pushed) = match self {
            Self::Bounded(ring) => ring.push_batch_keyed(&mut entries),
            Self::Unbounded(ring) => ring.push_batch_keyed(&mut entries),
        };
        // The rest goes back to the caller, in order.
        let rest: Vec<T> = entries.map(|(_, waiting)| waiting.value).collect();
        values.extend(rest);
        pushed
    }

    #[inline]
    fn pop(&self) -> Option<Entry<Waiting<T>, u64>> {
        match self {
            Self::Bounded(ring) => ring.pop_entry(),
            Self::Unbounded(ring) => ring.pop_entry(),
        }
    }

    fn pop_if(&self, wanted: impl FnMut(u64) -> bool) -> Option<Waiting<T>> {
        match self {
            Self::Bounded(ring) => ring.pop_if(wanted),
            Self::Unbounded(ring) => ring.pop_if(wanted),
        }
        .map(|entry| entry.value)
    }

    fn pop_batch(&self, max: usize, mut each: impl FnMut(u64, u64, Waiting<T>)) -> usize {
        let each = |entry: Entry<Waiting<T>, u64>| each(entry.position, entry.key, entry.value);
        match self {
            Self::Bounded(ring) => ring.pop_batch(max, each),
            Self::Unbounded(ring) => ring.pop_batch(max, each),
        }
    }

    fn front(&self) -> Option<(u64, u64)> {
        match self {
            Self::Bounded(ring) => ring.front(),
            Self::Unbounded(ring) => ring.front(),
        }
    }

    #[inline]
    fn len(&self) -> usize {
        match self {
            Self::Bounded(ring) => ring.len(),
            Self::Unbounded(ring) => ring.len(),
        }
    }

    #[inline]
    fn is_empty(&self) -> bool {
        match self {
            Self::Bounded(ring) => ring.is_empty(),
            Self::Unbounded(ring) => ring.is_empty(),
        }
    }

    fn pushed(&self) -> u64 {
        match self {
            Self::Bounded(ring) => ring.pushed(),
            Self::Unbounded(ring) => ring.pushed(),
        }
    }

}
