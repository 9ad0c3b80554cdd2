//! The lock-free engine of standard queues.
//!
//! # How a message travels
//! A plain message stands by value in `fresh`, a ring keyed by the time of sending. A receive takes it out
//! of the ring and puts it, leased, into a slot of the slab; the end of the lease stands in the slot's note.
//! Acknowledging is one compare-and-swap on the slot. Nothing on this way takes a lock.
//!
//! What is out of the ordinary (a delayed message, a message that came back) stands in its slot, idle,
//! and is found by its key: in the timer wheel behind `control` until it is due, then in `returned`, which
//! receivers look into first because what stands there is older.
//!
//! # Deadlines
//! One timer serves the leases of a chunk of 64 slots: it stands at the earliest of their ends, in `leases`
//! (a plain ring: timers of the queue's own visibility timeout are set in the order in which they end) or
//! in the wheel. When it fires, the leases that are over end, and the next timer is set for the earliest
//! that goes on; see [`sim_core::slab::Noted`]. So a message that is acknowledged in time, as nearly all are,
//! costs no timer, and lengthening a lease touches neither ring nor wheel.
//!
//! [`Shared::next_due`] is a lower bound of all deadlines. Who enters the queue later than that serves
//! what is due, under the control lock and deadline by deadline.
//!
//! # Ordering
//! - The rings' claims are `SeqCst`, and so are the loads of an event's flag after them: no wake-up is lost.
//! - A chunk's note is read and lowered by `SeqCst` after the slot was claimed, and cleared by `SeqCst` before the slots
//!   are walked: no lease ends unseen (argued in [`sim_core::slab::Noted`]'s module).
//! - `delayed`, `dangling` and `exact` are counts, `SeqCst` for the sake of waiters: they change before the event is
//!   notified, and are read after a waiter has registered.
//! - `lease_nanos` is `SeqCst` against the ring of timers: who pushes a timer reads it again and spills the ring when
//!   it changed; who changes it spills the ring afterwards. `granted` and `delay_nanos` are `Relaxed`: a value that is
//!   a moment old only checks again too early, or delays as before.

use std::time::Duration;

use sim_core::deadline::LeaseRing;
use sim_core::ring::{Bounded, Entry, Unbounded};
use sim_core::slab::{Due, NO_NOTE, Noted, Removed};
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
/// When a chunk is walked again in which a lease was just being taken.
const SOON: Duration = Duration::from_millis(1);
/// Timers that the wheel may hold beyond one for each chunk before it is searched for those that are void.
const SLACK: usize = 1024;
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

/// What the wheel keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    /// A lease in this chunk may end.
    Chunk(u32),
    /// This idle slot becomes visible.
    Visible(u64),
}

/// The part behind the lock.
struct Control {
    wheel: Wheel<Timer>,
    /// Timers beyond which the wheel is searched for void ones.
    bound: usize,
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
    /// Under an approximate cap: the position of `fresh` up to which messages may be received before those
    /// in flight are counted again.
    granted: AtomicU64,
    /// Under an exact cap: the leases.
    exact: AtomicUsize,
    numbers: AtomicU64,
    /// The configured cap is small enough to be exact.
    is_exact: bool,
}

/// The times of a message that goes into a slot.
#[derive(Debug, Clone, Copy)]
struct Times {
    sent_at: Instant,
    now: Instant,
    visible_at: Instant,
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
            control: Mutex::new(Control { wheel: Wheel::new(), bound: SLACK }),
            delayed: AtomicUsize::new(0),
            dangling: AtomicUsize::new(0),
            granted: AtomicU64::new(config.max_in_flight as u64),
            exact: AtomicUsize::new(0),
            numbers: AtomicU64::new(0),
            is_exact: config.max_in_flight <= EXACT_CAP,
        }
    }

    // ---- sending -------------------------------------------------------------------------------------

    /// Whether as many messages wait as the capacity allows. Exact as long as nothing is delayed and
    /// nothing came back.
    #[inline]
    fn is_full(&self, shared: &Shared<T>) -> bool {
        let slots = self.slots_waiting();
        slots != 0 && self.is_full_with(shared, slots)
    }

    #[inline]
    fn is_full_with(&self, shared: &Shared<T>, slots: usize) -> bool {
        shared.config.capacity.is_some_and(|capacity| slots + self.fresh.len() >= capacity)
    }

    /// Messages that wait in slots: delayed or returned.
    #[inline]
    fn slots_waiting(&self) -> usize {
        let entries = self.delayed.load(Ordering::SeqCst) + self.returned.len();
        entries.saturating_sub(self.dangling.load(Ordering::SeqCst))
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
            .headers()
            .and_then(|headers| headers.delay)
            .map_or_else(|| self.delay_nanos.load(Ordering::Relaxed), nanos);
        let sent_at = message.headers.headers().and_then(|headers| headers.sent_at);
        let to_slot = delay != 0 || sent_at.is_some() || !within_capacity;
        if within_capacity
            && (self.is_full(shared) || to_slot && self.is_full_with(shared, self.slots_waiting()))
        {
            return Err(message);
        }
        if to_slot {
            let visible_at = now + Duration::from_nanos(delay);
            let times = Times { sent_at: sent_at.unwrap_or(now), now, visible_at };
            return self.send_to_slot(slots, times, message, within_capacity);
        }
        let Message { value, headers } = message;
        match self.fresh.push(now.as_nanos(), Waiting { value, headers: headers.into_headers() }) {
            Ok(number) => {
                if let Some(retention) = shared.config.retention {
                    shared.announce(now + retention);
                }
                shared.arrivals.notify_one();
                Ok(number)
            }
            Err(Waiting { value, headers }) => Err(Message { value, headers: headers.into() }),
        }
    }

    /// Takes a plain value in, without a delay.
    ///
    /// # Errors
    /// The value, when this is not for the fast way: the queue is full or closed, or has a delay.
    #[inline(always)]
    pub(crate) fn send_plain(&self, shared: &Shared<T>, now: Instant, value: T) -> Result<u64, T> {
        if self.delay_nanos.load(Ordering::Relaxed) != 0 || self.is_full(shared) {
            return Err(value);
        }
        match self.fresh.push(now.as_nanos(), Waiting { value, headers: None }) {
            Ok(number) => {
                if let Some(retention) = shared.config.retention {
                    shared.announce(now + retention);
                }
                shared.arrivals.notify_one();
                Ok(number)
            }
            Err(waiting) => Err(waiting.value),
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
        times: Times,
        message: Message<T>,
        within_capacity: bool,
    ) -> Result<u64, Message<T>> {
        let shared = slots.context();
        let Times { sent_at, now, visible_at } = times;
        let Message { value, headers } = message;
        // Under the lock, so that closing, which takes it, comes before or after.
        let mut control = self.control.lock();
        if !shared.admits(within_capacity) {
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
            self.push_returned(sent_at, key.low());
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
    #[inline(always)]
    pub(crate) fn take(
        &self,
        slots: &Slots<T>,
        now: Instant,
        visibility: Option<Duration>,
    ) -> Result<Delivery<T>, Nothing> {
        let shared = slots.context();
        self.serve_if_due(slots, now);
        self.reserve(shared, 1)?;
        let lease = self.lease_end(shared, now, visibility);
        if !self.returned.is_empty()
            && let Some(delivery) = self.take_returned(slots, now, lease)
        {
            return Ok(delivery);
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
                shared.counters.add(count::UNRECEIVED, 1);
                shared.gone(count::EXPIRED, 1);
                continue;
            }
            let held = self.place(slots, now, lease, entry.position, sent_at, entry.value);
            return Ok(Delivery::new(held, Lease::new(now, 1)));
        }
    }

    #[cold]
    fn take_returned(&self, slots: &Slots<T>, now: Instant, lease: LeaseEnd) -> Option<Delivery<T>> {
        while let Some(entry) = self.returned.pop_entry() {
            if let Some(delivery) = self.lease_idle(slots, now, lease, entry.value) {
                slots.context().space.notify_one();
                return Some(delivery);
            }
        }
        None
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
        let max = self.reserve(shared, max)?;
        let lease = self.lease_end(shared, now, visibility);
        let before = out.len();
        out.reserve(max.min(self.fresh.len() + self.returned.len()));
        let mut found = 0;
        while found < max && !self.returned.is_empty() {
            let Some(entry) = self.returned.pop_entry() else { break };
            if let Some(delivery) = self.lease_idle(slots, now, lease, entry.value) {
                out.push(delivery);
                found += 1;
            }
        }
        while found < max {
            let mut expired = 0;
            let taken = self.fresh.pop_batch(max - found, |position, key, waiting| {
                let sent_at = Instant::from_nanos(key);
                if shared.is_expired(sent_at, now) {
                    expired += 1;
                    return;
                }
                let held = self.place(slots, now, lease, position, sent_at, waiting);
                out.push(Delivery::new(held, Lease::new(now, 1)));
                found += 1;
            });
            if expired > 0 {
                shared.counters.add(count::UNRECEIVED, expired);
                shared.gone(count::EXPIRED, expired);
            }
            if taken == 0 {
                break;
            }
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
    #[inline(always)]
    fn place(
        &self,
        slots: &Slots<T>,
        now: Instant,
        lease: LeaseEnd,
        position: u64,
        sent_at: Instant,
        waiting: Waiting<T>,
    ) -> Held<T> {
        let lease = lease.within(slots.context(), sent_at);
        let Waiting { value, headers } = waiting;
        let first_received = now.as_nanos().max(1);
        let mut make = move || Stored::received(value, headers, position, sent_at, first_received);
        loop {
            match slots.insert_leased_noted(lease.at.as_nanos(), make) {
                Ok(held) => {
                    self.arm(&held, lease);
                    return held;
                }
                // Two to the 32nd slots are taken: their holders must go first.
                Err(back) => {
                    make = back;
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
        let Some(sent_at) = slots.with_low(low, |stored| stored.sent_at) else {
            self.not_leased(slots, now, low);
            return None;
        };
        if shared.is_expired(sent_at, now) {
            match slots.remove_idle_low(low) {
                Some(removed) => {
                    drop(removed);
                    shared.gone(count::EXPIRED, 1);
                    shared.space.notify_one();
                }
                None => drop(self.dangling.fetch_sub(1, Ordering::SeqCst)),
            }
            return None;
        }
        let lease = lease.within(shared, sent_at);
        let Some(held) = slots.lease_low_noted(low, lease.at.as_nanos()) else {
            self.not_leased(slots, now, low);
            return None;
        };
        let receives = held.receives.load(Ordering::Relaxed).saturating_add(1);
        held.receives.store(receives, Ordering::Relaxed);
        if receives == 1 {
            held.first_received.store(now.as_nanos().max(1), Ordering::Relaxed);
        }
        self.arm(&held, lease);
        shared.counters.add(count::RECEIVED_AGAIN, 1);
        if !self.is_exact {
            // It does not pass `fresh`, where those under an approximate cap are counted.
            self.granted.fetch_sub(1, Ordering::Relaxed);
        }
        Some(Delivery::new(held, Lease::new(now, receives)))
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
    pub(crate) fn removed_late(&self, shared: &Shared<T>) {
        self.dangling.fetch_add(1, Ordering::SeqCst);
        shared.space.notify_one();
    }

    #[inline]
    fn lease_end(&self, shared: &Shared<T>, now: Instant, visibility: Option<Duration>) -> LeaseEnd {
        let own = self.lease_nanos.load(Ordering::SeqCst);
        // `now` may be a moment old; no lease is shorter than was promised.
        let from = now + shared.lag;
        match visibility.map(nanos) {
            Some(asked) if asked != own => {
                LeaseEnd { at: from + Duration::from_nanos(asked), own: None }
            }
            _ => LeaseEnd { at: from + Duration::from_nanos(own), own: Some(own) },
        }
    }

    /// Sees to it that a timer of the slot's chunk fires when the lease ends, or before.
    #[inline]
    fn arm(&self, held: &Held<T>, lease: LeaseEnd) {
        // SeqCst: after the slot was claimed; see `sim_core::slab::Noted`.
        if lease.at.as_nanos() < held.chunk_note().load(Ordering::SeqCst) {
            self.set_timer(held, lease);
        }
    }

    #[cold]
    fn set_timer(&self, held: &Held<T>, lease: LeaseEnd) {
        let at = lease.at.as_nanos();
        if held.chunk_note().fetch_min(at, Ordering::SeqCst) <= at {
            return;
        }
        let shared = held.context();
        let chunk = held.chunk_number();
        match lease.own {
            Some(own) => {
                self.leases.push(lease.at, u64::from(chunk));
                if self.lease_nanos.load(Ordering::SeqCst) != own {
                    self.spill_leases();
                }
            }
            None => {
                let mut control = self.control.lock();
                control.wheel.insert(lease.at, Timer::Chunk(chunk));
                // Timers that an earlier one has overtaken are void; they are few unless leases get
                // shorter all the time.
                if control.wheel.len() > control.bound {
                    control.wheel.retain(|at, timer| match timer {
                        Timer::Chunk(chunk) => held
                            .slab_chunk_note(*chunk)
                            .is_some_and(|note| note.load(Ordering::SeqCst) == at.as_nanos()),
                        Timer::Visible(_) => true,
                    });
                    control.bound = 2 * control.wheel.len() + SLACK;
                }
            }
        }
        shared.announce(lease.at);
    }

    /// Sees to it that a timer fires when a lease ends that was shortened.
    pub(crate) fn arm_odd(&self, held: &Held<T>, at: Instant) {
        self.arm(held, LeaseEnd { at, own: None });
    }

    /// No lease outlasts its message's retention.
    pub(crate) fn within_retention(
        &self,
        shared: &Shared<T>,
        deadline: Instant,
        sent_at: Instant,
    ) -> Instant {
        LeaseEnd { at: deadline, own: None }.within(shared, sent_at).at
    }

    // ---- the cap on leases ---------------------------------------------------------------------------

    /// Reserves up to `max` leases under the cap; returns how many.
    #[inline]
    fn reserve(&self, shared: &Shared<T>, max: usize) -> Result<usize, Nothing> {
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
        let received = self.fresh.popped();
        if received + max as u64 <= self.granted.load(Ordering::Relaxed) {
            return Ok(max);
        }
        let in_flight = usize::try_from(self.in_flight(shared)).unwrap_or(usize::MAX);
        let room = cap.saturating_sub(in_flight);
        self.granted.store(received + room as u64, Ordering::Relaxed);
        if room == 0 { Err(Nothing::OverLimit) } else { Ok(max.min(room)) }
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
        self.push_returned(sent_at, low);
        self.lease_ended();
        if let Some(retention) = shared.config.retention {
            shared.announce(sent_at + retention);
        }
    }

    /// Appends an idle slot to `returned`, which is never closed: what came back may be received after the end
    /// of sending.
    #[inline]
    fn push_returned(&self, sent_at: Instant, low: u64) {
        let pushed = self.returned.push_keyed(sent_at.as_nanos(), low);
        debug_assert!(pushed.is_ok(), "`returned` is never closed");
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
        if let Some((at, chunk)) = self.leases.pop_due(due) {
            // Pushed as 32 bits.
            self.end_leases(slots, control, at, chunk as u32, dropped, letters);
            return;
        }
        match control.wheel.pop_due(due) {
            Some((at, Timer::Chunk(chunk))) => {
                self.end_leases(slots, control, at, chunk, dropped, letters);
                return;
            }
            Some((_, Timer::Visible(low))) => {
                match slots.with_low(low, |stored| stored.sent_at) {
                    Some(sent_at) => self.push_returned(sent_at, low),
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
            shared.counters.add(count::UNRECEIVED, 1);
            dropped.push(waiting);
        } else if let Some(entry) = self.returned.pop_if(is_old) {
            match slots.remove_idle_low(entry.value) {
                Some(Removed::Value(stored)) => {
                    dropped.push(Waiting { value: stored.value, headers: stored.headers.into_headers() });
                }
                Some(Removed::Shared) => shared.gone(count::EXPIRED, 1),
                None => drop(self.dangling.fetch_sub(1, Ordering::SeqCst)),
            }
        }
    }

    /// The timer of a chunk fires: its leases that are over end, and the next timer is set.
    fn end_leases(
        &self,
        slots: &Slots<T>,
        control: &mut Control,
        at: Instant,
        chunk: u32,
        dropped: &mut Vec<Waiting<T>>,
        letters: &mut Vec<Stored<T>>,
    ) {
        let Some(note) = slots.chunk_note(chunk) else { return };
        let due = at.as_nanos();
        if note.load(Ordering::SeqCst) != due {
            // An earlier timer has seen to the chunk, and has set the next one.
            return;
        }
        note.swap(NO_NOTE, Ordering::SeqCst);
        let mut next = NO_NOTE;
        slots.leased_in(chunk, |noted| match noted {
            Noted::Leased { note, .. } if note > due => next = next.min(note),
            Noted::Leased { low, .. } => match slots.unlease_due(low, due) {
                Due::Ended(low) => self.lease_over(slots, at, low, dropped, letters),
                Due::Later(note) => next = next.min(note),
                Due::Over => {}
            },
            Noted::Unknown => next = next.min((at + SOON).as_nanos()),
        });
        if next != NO_NOTE && note.fetch_min(next, Ordering::SeqCst) > next {
            control.wheel.insert(Instant::from_nanos(next), Timer::Chunk(chunk));
        }
    }

    /// A lease has run out: its message returns, or dies.
    fn lease_over(
        &self,
        slots: &Slots<T>,
        at: Instant,
        low: u64,
        dropped: &mut Vec<Waiting<T>>,
        letters: &mut Vec<Stored<T>>,
    ) {
        let shared = slots.context();
        shared.counters.add(count::LAPSED, 1);
        let seen = slots.with_low(low, |stored| {
            (stored.sent_at, stored.receives.load(Ordering::Relaxed))
        });
        let Some((sent_at, receives)) = seen else {
            // Acknowledged in this very moment; there is no entry in `returned` to lead nowhere.
            self.dangling.fetch_sub(1, Ordering::SeqCst);
            self.lease_ended();
            return;
        };
        let is_dead = shared.max_receives().is_some_and(|max| receives >= max);
        let is_old = shared.is_expired(sent_at, at);
        if !is_dead && !is_old {
            self.put_back(shared, sent_at, low);
            return;
        }
        let fate = if is_old { Fate::Drop } else { Fate::MaxReceives };
        let removed = slots.pin_low(low).and_then(|held| {
            held.remove_with(true, |_, _, stored| match stored {
                Ok(stored) => Some(stored),
                Err(stored) => {
                    stored.set_fate(fate);
                    None
                }
            })
            .ok()
        });
        self.lease_ended();
        match removed {
            Some(Some(stored)) if is_old => {
                dropped.push(Waiting { value: stored.value, headers: stored.headers.into_headers() });
            }
            Some(Some(stored)) => letters.push(stored),
            Some(None) if is_old => shared.gone(count::EXPIRED, 1),
            Some(None) => {}
            None => drop(self.dangling.fetch_sub(1, Ordering::SeqCst)),
        }
    }

    /// Moves every timer from the ring to the wheel: the ring's order is broken, since the queue's own
    /// timeout changed.
    fn spill_leases(&self) {
        let mut control = self.control.lock();
        while let Some((at, chunk)) = self.leases.pop_due(Instant::NEVER) {
            control.wheel.insert(at, Timer::Chunk(chunk as u32));
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
            // The timers of leases stay: they find nothing when they fire, or later leases.
            control.wheel.retain(|_, timer| match timer {
                Timer::Visible(low) => {
                    self.delayed.fetch_sub(1, Ordering::SeqCst);
                    lows.push(*low);
                    false
                }
                Timer::Chunk(_) => true,
            });
            for chunk in (0..).take_while(|&chunk| slots.chunk_note(chunk).is_some()) {
                slots.leased_in(chunk, |noted| {
                    if let Noted::Leased { low, .. } = noted
                        && let Due::Ended(low) = slots.unlease_due(low, u64::MAX)
                    {
                        self.lease_ended();
                        lows.push(low);
                    }
                });
            }
            for low in lows {
                match slots.remove_idle_low(low) {
                    Some(Removed::Value(stored)) => {
                        gone += 1;
                        dropped.push(Waiting { value: stored.value, headers: stored.headers.into_headers() });
                    }
                    Some(Removed::Shared) => gone += 1,
                    // Acknowledged in this very moment.
                    None => drop(self.dangling.fetch_sub(1, Ordering::SeqCst)),
                }
            }
            // Only as many as stand there now: concurrent senders go on.
            for _ in 0..self.returned.len() {
                let Some(entry) = self.returned.pop_entry() else { break };
                match slots.remove_idle_low(entry.value) {
                    Some(Removed::Value(stored)) => {
                        gone += 1;
                        dropped.push(Waiting { value: stored.value, headers: stored.headers.into_headers() });
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
            shared.counters.add(count::UNRECEIVED, 1);
            gone += 1;
        }
        shared.gone(count::PURGED, gone);
        shared.space.notify_all();
        gone
    }

    /// Refuses every later send. The queue's flag is set before, so that who is refused sees it.
    pub(crate) fn close(&self) {
        // Sends into slots happen under this lock and look at the flag there: those that took it before have
        // counted their messages, those after are refused.
        let _control = self.control.lock();
        self.fresh.close();
    }

    /// Whether the last new message was taken in, so that nothing new comes after
    /// [`remaining`](Self::remaining) said zero. The flag alone, set before the ring is closed, does not say so.
    pub(crate) fn is_sealed(&self) -> bool {
        self.fresh.is_closed()
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
        let counts = shared.counters.sums();
        (self.fresh.popped() + counts[count::RECEIVED_AGAIN])
            .saturating_sub(counts[count::UNRECEIVED])
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
    fn within<T: Send + Sync + 'static>(self, shared: &Shared<T>, sent_at: Instant) -> Self {
        match shared.config.retention.map(|retention| sent_at + retention) {
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
            Self::Unbounded(ring) => ring.push_keyed(key, waiting),
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

    #[inline]
    fn popped(&self) -> u64 {
        match self {
            Self::Bounded(ring) => ring.popped(),
            Self::Unbounded(ring) => ring.popped(),
        }
    }

    fn pushed(&self) -> u64 {
        match self {
            Self::Bounded(ring) => ring.pushed(),
            Self::Unbounded(ring) => ring.pushed(),
        }
    }

    fn close(&self) {
        match self {
            Self::Bounded(ring) => ring.close(),
            Self::Unbounded(ring) => ring.close(),
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Bounded(ring) => ring.is_closed(),
            Self::Unbounded(ring) => ring.is_closed(),
        }
    }
}
