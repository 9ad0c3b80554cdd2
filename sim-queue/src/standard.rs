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

mod due;
mod fresh;

use std::time::Duration;

use sim_core::deadline::LeaseRing;
use sim_core::ring::{Bounded, Entry, Unbounded};
use sim_core::slab::{Claimed, Due, Noted, Removed};
use sim_core::sync::Mutex;
use sim_core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use sim_core::time::Instant;
use sim_core::wheel::Wheel;

use crate::dead_letter::DeadLetterReason;
use crate::delivery::{Delivery, Lease};
use crate::message::Message;
use crate::shared::{Fate, Held, REDRIVE_RETRY, Shared, Slots, Stored, count};

pub(crate) use self::fresh::{Fresh, Waiting};

/// Caps up to this one are kept exactly, at the price of a shared counter.
const EXACT_CAP: usize = 1024;
/// When a chunk is walked again in which a lease was just being taken.
const SOON: Duration = Duration::from_millis(1);
/// Timers that the wheel may hold beyond one for each chunk before it is searched for those that are void.
const SLACK: usize = 1024;
/// Set in the numbers of messages that did not pass `fresh`, so that they differ from its positions.
const SLOT_NUMBER: u64 = 1 << 61;

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
            control: Mutex::new(Control {
                wheel: Wheel::new(),
                bound: SLACK,
            }),
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
        shared
            .config
            .capacity
            .is_some_and(|capacity| slots + self.fresh.len() >= capacity)
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
        let sent_at = message
            .headers
            .headers()
            .and_then(|headers| headers.sent_at);
        let to_slot = delay != 0 || sent_at.is_some() || !within_capacity;
        if within_capacity
            && (self.is_full(shared) || to_slot && self.is_full_with(shared, self.slots_waiting()))
        {
            return Err(message);
        }
        if to_slot {
            let visible_at = now + Duration::from_nanos(delay);
            let times = Times {
                sent_at: sent_at.unwrap_or(now),
                now,
                visible_at,
            };
            return self.send_to_slot(slots, times, message, within_capacity);
        }
        let Message { value, headers } = message;
        match self.fresh.push(
            now.as_nanos(),
            Waiting {
                value,
                headers: headers.into_headers(),
            },
        ) {
            Ok(number) => {
                if let Some(retention) = shared.config.retention {
                    shared.announce(now + retention);
                }
                shared.arrivals.notify_one();
                Ok(number)
            }
            Err(Waiting { value, headers }) => Err(Message {
                value,
                headers: headers.into(),
            }),
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
        match self.fresh.push(
            now.as_nanos(),
            Waiting {
                value,
                headers: None,
            },
        ) {
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
        // Beside what waits outside of the ring, the ring's capacity is too large: one by one.
        let is_shared = shared.config.capacity.is_some() && self.slots_waiting() != 0;
        if self.delay_nanos.load(Ordering::Relaxed) != 0 || is_shared {
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
        let Times {
            sent_at,
            now,
            visible_at,
        } = times;
        // A message that is too old before it shows is dropped then.
        let visible_at = LeaseEnd {
            at: visible_at,
            own: None,
        }
        .within(shared, sent_at)
        .at;
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
                return Err(Message {
                    value: stored.value,
                    headers: stored.headers,
                });
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

    /// Receives one message that has come straight out of the ring. `None` where that is not all there is
    /// to it (nothing there, something came back, something is due, the cap is reached): then [`take`](Self::take)
    /// knows what to do.
    ///
    /// Inlined, and without a call that is handed a place in memory for the delivery: so the delivery is made
    /// in registers where it is used. A struct that is written word by word and then moved as a whole
    /// makes the processor wait until the words have left its store buffer, which costs as much as a
    /// compare-and-swap.
    #[inline(always)]
    pub(crate) fn take_fast(&self, slots: &Slots<T>, now: Instant) -> Option<Delivery<T>> {
        let shared = slots.context();
        if now.as_nanos() >= shared.next_due.load(Ordering::Relaxed) || !self.returned.is_empty() {
            return None;
        }
        self.reserve(shared, 1).ok()?;
        let lease = self.lease_end(shared, now, None);
        let taken = match &self.fresh {
            Fresh::Bounded(ring) => ring
                .pop_entry()
                .map(|entry| self.lease_fresh(slots, now, lease, entry)),
            Fresh::Unbounded(ring) => ring
                .pop_entry()
                .map(|entry| self.lease_fresh(slots, now, lease, entry)),
        };
        if taken.is_none() {
            self.unreserve(1);
        }
        taken.flatten()
    }

    /// Leases what was taken out of the ring under a reservation; drops it, and gives the reservation back, if it
    /// is too old.
    #[inline(always)]
    fn lease_fresh(
        &self,
        slots: &Slots<T>,
        now: Instant,
        lease: LeaseEnd,
        entry: Entry<Waiting<T>, u64>,
    ) -> Option<Delivery<T>> {
        let shared = slots.context();
        shared.space.notify_one();
        if shared.is_expired(Instant::from_nanos(entry.key), now) {
            self.expire(shared, entry.value);
            self.unreserve(1);
            return None;
        }
        let held = self.place(&mut slots.claimed(), 0, shared, now, lease, entry);
        Some(Delivery::new(held, Lease::new(now, 1)))
    }

    /// Drops a message out of the ring that is too old.
    #[cold]
    fn expire(&self, shared: &Shared<T>, waiting: Waiting<T>) {
        drop(waiting);
        shared.counters.add(count::UNRECEIVED, 1);
        shared.gone(count::EXPIRED, 1);
    }

    /// Receives one message.
    #[inline(never)]
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
                self.expire(shared, entry.value);
                continue;
            }
            let held = self.place(&mut slots.claimed(), 0, shared, now, lease, entry);
            return Ok(Delivery::new(held, Lease::new(now, 1)));
        }
    }

    #[cold]
    fn take_returned(
        &self,
        slots: &Slots<T>,
        now: Instant,
        lease: LeaseEnd,
    ) -> Option<Delivery<T>> {
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
        let mut found = 0;
        while found < max && !self.returned.is_empty() {
            let Some(entry) = self.returned.pop_entry() else {
                break;
            };
            if let Some(delivery) = self.lease_idle(slots, now, lease, entry.value) {
                out.push(delivery);
                found += 1;
            }
        }
        let mut claimed = slots.claimed();
        while found < max {
            let mut expired = 0;
            if let Fresh::Bounded(ring) = &self.fresh
                && shared.config.retention.is_none()
            {
                // An iterator that cannot end early: the deliveries are made in their places, as none is that
                // is pushed; see `take_fast`.
                let Some(mut batch) = ring.claim_batch(max - found) else {
                    break;
                };
                let count = batch.len();
                out.extend((0..count).map(|at| {
                    let Some(entry) = batch.next() else {
                        unreachable!("a batch yields as many as it says")
                    };
                    let held = self.place(&mut claimed, count - at - 1, shared, now, lease, entry);
                    Delivery::new(held, Lease::new(now, 1))
                }));
                found += count;
                continue;
            }
            // Dropped after the claim: a payload's drop may use the queue.
            let mut old = Vec::new();
            let taken = self.fresh.pop_batch(max - found, |follow, entry| {
                if shared.is_expired(Instant::from_nanos(entry.key), now) {
                    expired += 1;
                    old.push(entry.value);
                    return;
                }
                let held = self.place(&mut claimed, follow, shared, now, lease, entry);
                out.push(Delivery::new(held, Lease::new(now, 1)));
                found += 1;
            });
            drop(old);
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

    /// Puts a message out of the ring into a leased slot; so many `follow`.
    #[inline(always)]
    fn place(
        &self,
        claimed: &mut Claimed<'_, Shared<T>, Stored<T>>,
        follow: usize,
        shared: &Shared<T>,
        now: Instant,
        lease: LeaseEnd,
        entry: Entry<Waiting<T>, u64>,
    ) -> Held<T> {
        let Entry {
            position,
            key,
            value: Waiting { value, headers },
        } = entry;
        let sent_at = Instant::from_nanos(key);
        let lease = lease.within(shared, sent_at);
        let first_received = now.as_nanos().max(1);
        let mut make = move || Stored::received(value, headers, position, sent_at, first_received);
        loop {
            match claimed.insert_leased_noted(follow + 1, lease.at.as_nanos(), make) {
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
            held.first_received
                .store(now.as_nanos().max(1), Ordering::Relaxed);
        }
        self.arm(&held, lease);
        shared.counters.add(count::RECEIVED_AGAIN, 1);
        if !self.is_exact {
            // It does not pass `fresh`, where those under an approximate cap are counted.
            let less = |granted: u64| Some(granted.saturating_sub(1));
            let _ = self
                .granted
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
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
    fn lease_end(
        &self,
        shared: &Shared<T>,
        now: Instant,
        visibility: Option<Duration>,
    ) -> LeaseEnd {
        let own = self.lease_nanos.load(Ordering::SeqCst);
        // `now` may be a moment old; no lease is shorter than was promised.
        let from = now + shared.lag;
        match visibility.map(nanos) {
            Some(asked) if asked != own => LeaseEnd {
                at: from + Duration::from_nanos(asked),
                own: None,
            },
            _ => LeaseEnd {
                at: from + Duration::from_nanos(own),
                own: Some(own),
            },
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
        LeaseEnd {
            at: deadline,
            own: None,
        }
        .within(shared, sent_at)
        .at
    }

    // ---- the cap on leases ---------------------------------------------------------------------------

    /// Reserves up to `max` leases under the cap; returns how many.
    #[inline]
    fn reserve(&self, shared: &Shared<T>, max: usize) -> Result<usize, Nothing> {
        let undelivered = shared.undelivered_len.load(Ordering::Relaxed);
        let cap = shared
            .config
            .max_in_flight
            .saturating_sub(usize::try_from(undelivered).unwrap_or(0));
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
        self.grant(shared, max, received)
    }

    /// Counts those in flight, for the next so many receives.
    #[cold]
    fn grant(&self, shared: &Shared<T>, max: usize, received: u64) -> Result<usize, Nothing> {
        // Refused letters are among those in flight.
        let in_flight = usize::try_from(self.in_flight(shared)).unwrap_or(usize::MAX);
        let room = shared.config.max_in_flight.saturating_sub(in_flight);
        self.granted
            .store(received + room as u64, Ordering::Relaxed);
        if room == 0 {
            Err(Nothing::OverLimit)
        } else {
            Ok(max.min(room))
        }
    }

    #[inline]
    pub(crate) fn unreserve(&self, n: usize) {
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

    // ---- the whole -----------------------------------------------------------------------------------

    /// Sends those to the dead letters that came back and were received `max` times or more.
    pub(crate) fn bury_spent(&self, slots: &Slots<T>, now: Instant, max: u32) {
        let shared = slots.context();
        for _ in 0..self.returned.len() {
            let Some(entry) = self.returned.pop_entry() else {
                break;
            };
            let low = entry.value;
            let spent =
                slots.with_low(low, |stored| stored.receives.load(Ordering::Relaxed) >= max);
            if spent != Some(true) {
                self.push_returned(Instant::from_nanos(entry.key), low);
                continue;
            }
            let removed = slots.pin_low(low).and_then(|held| {
                held.remove_with(true, |_, _, stored| match stored {
                    Ok(stored) => Some(stored),
                    Err(stored) => {
                        stored.set_fate(Fate::MaxReceives);
                        None
                    }
                })
                .ok()
            });
            match removed {
                Some(Some(stored)) => shared.bury(stored, DeadLetterReason::MaxReceives, now),
                Some(None) => {}
                None => drop(self.dangling.fetch_sub(1, Ordering::SeqCst)),
            }
        }
        shared.arrivals.notify_one();
        shared.space.notify_one();
    }

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
                        dropped.push(Waiting {
                            value: stored.value,
                            headers: stored.headers.into_headers(),
                        });
                    }
                    Some(Removed::Shared) => gone += 1,
                    // Acknowledged in this very moment.
                    None => drop(self.dangling.fetch_sub(1, Ordering::SeqCst)),
                }
            }
            // Only as many as stand there now: concurrent senders go on.
            for _ in 0..self.returned.len() {
                let Some(entry) = self.returned.pop_entry() else {
                    break;
                };
                match slots.remove_idle_low(entry.value) {
                    Some(Removed::Value(stored)) => {
                        gone += 1;
                        dropped.push(Waiting {
                            value: stored.value,
                            headers: stored.headers.into_headers(),
                        });
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
        self.remaining(shared)
            .saturating_sub(self.visible() + self.delayed())
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
