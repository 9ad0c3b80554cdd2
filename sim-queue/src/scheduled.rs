//! The engine of FIFO and fair queues: the pure machine behind a mutex, payloads in the slab.
//!
//! The machine schedules: which group is due, whose turn it is, what is a duplicate. It names a message by
//! the packed key of its slot, which stays idle from the send to the end; deliveries pin it. Whether a
//! lease holds is the machine's to say. Foreign code (drops, sinks, wakers) runs after the lock is given
//! back.
//!
//! # Ordering
//! The mutex orders all but three words: `next_due`, swapped by `SeqCst` under it (a reader that sees an old value
//! serves a moment late, and is told by `retime` when it sleeps); `redrive_at` and `undelivered_len`, which another
//! lock orders.

use std::time::Duration;

use sim_core::sync::Mutex;
use sim_core::sync::atomic::{AtomicU8, Ordering};
use sim_core::time::Instant;

use crate::config::QueueConfig;
use crate::dead_letter::DeadLetterReason;
use crate::delivery::{Delivery, Lease, MachineLease};
use crate::error::{ConfigError, ExtendError, Refusal, Stale};
use crate::group::{ReceiveAttemptId, SequenceNumber};
use crate::machine::{
    Admission, ChangeError, DedupKey, Deduplication, Disposition, Effect, First, Kind, Leased,
    Machine, NotStored, ReceiveError, Stats,
};
use crate::message::Message;
use crate::shared::{Fate, Held, Shared, Slots, Stored, count};
use crate::standard::Nothing;

/// The machine and what it needs at hand.
struct Inner {
    machine: Machine<u64>,
    leased: Vec<Leased<u64>>,
    effects: Vec<Effect<u64>>,
    numbers: u64,
    /// The latest time that the machine has seen: its time must not go backwards, and a recent time may
    /// lie behind an exact one.
    last: Instant,
}

impl Inner {
    fn at(&mut self, now: Instant) -> Instant {
        self.last = self.last.max(now);
        self.last
    }
}

/// The engine of FIFO and fair queues.
pub(crate) struct Scheduled {
    inner: Mutex<Inner>,
    /// [`READY`] and [`FULL`], written under the lock. `Relaxed`: whoever has had the lock reads what its own
    /// turn left behind or something later, and others take it for a hint.
    signs: AtomicU8,
}

/// A receive would find something.
const READY: u8 = 1;
/// A send would find no room.
const FULL: u8 = 2;

/// What a send came to.
pub(crate) enum Admitted {
    /// Stored under this number.
    New {
        number: u64,
        sequence: SequenceNumber,
    },
    /// Sent before.
    Duplicate(First),
}

/// What ended while the lock was held, to be dealt with after.
struct Ended<T> {
    dropped: Vec<Stored<T>>,
    letters: Vec<Stored<T>>,
    expired: u64,
    purged: u64,
    wakes: bool,
}

impl<T> Ended<T> {
    const fn new() -> Self {
        Self {
            dropped: Vec::new(),
            letters: Vec::new(),
            expired: 0,
            purged: 0,
            wakes: false,
        }
    }
}

impl Scheduled {
    pub(crate) fn new(config: &QueueConfig) -> Result<Self, ConfigError> {
        let machine = Machine::new(config.rules())?;
        Ok(Self {
            inner: Mutex::new(Inner {
                machine,
                leased: Vec::new(),
                effects: Vec::new(),
                numbers: 0,
                last: Instant::ORIGIN,
            }),
            signs: AtomicU8::new(0),
        })
    }

    /// Takes a message in. One that the queue sends itself (`internal`: a dead letter, or one that comes
    /// back from a failed move) is never a duplicate.
    #[inline(always)]
    pub(crate) fn send<T: Send + Sync + 'static>(
        &self,
        slots: &Slots<T>,
        now: Instant,
        message: Message<T>,
        internal: bool,
        within_capacity: bool,
    ) -> Result<Admitted, (Message<T>, Refusal)> {
        let shared = slots.context();
        let content = self.content_key(shared, &message, internal);
        let mut inner = self.inner.lock();
        let now = inner.at(now);
        if !shared.admits(within_capacity) {
            return Err((message, Refusal::Closed));
        }
        // The machine numbers what it takes in from 1 on, without a gap.
        let number = inner.numbers + 1;
        let headers = message.headers.headers();
        let dedup = match headers.and_then(|headers| headers.deduplication_id.as_ref()) {
            Some(given) if !internal => Some(DedupKey::Id(given.clone())),
            _ if internal => {
                content.map(|_| DedupKey::Content(internal_key(shared.namespace, number)))
            }
            _ => content.map(DedupKey::Content),
        };
        let sent_at = headers.and_then(|headers| headers.sent_at);
        let admission = Admission {
            delay: headers.and_then(|headers| headers.delay),
            group: message.headers.group(),
            dedup: dedup.as_ref(),
            sent_at,
            // Only a repetition asks for it.
            id: dedup.as_ref().map_or(0, |_| {
                headers
                    .and_then(|headers| headers.id)
                    .unwrap_or_else(|| shared.id(number))
                    .as_u128()
            }),
        };
        let capacity = inner.machine.rules().capacity;
        if !within_capacity {
            // Lifting a bound cannot break a rule.
            let _ = inner.machine.set_capacity(None);
        }
        let admitted = inner.machine.admit(now, &admission);
        if !within_capacity {
            let _ = inner.machine.set_capacity(capacity);
        }
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(NotStored::Duplicate(first)) => {
                drop(inner);
                return Ok(Admitted::Duplicate(first));
            }
            Err(why) => {
                let limit = match &inner.machine.rules().kind {
                    Kind::Fifo(fifo) => fifo.deduplication_limit,
                    _ => 0,
                };
                return Err((message, refusal(why, limit)));
            }
        };
        let Message { value, headers } = message;
        let sent_at = sent_at.map_or(now, |sent_at| sent_at.min(now));
        let key = match slots.insert_with(move || Stored::new(value, headers, number, sent_at)) {
            Ok(key) => key,
            Err(make) => {
                let stored = make();
                let message = Message {
                    value: stored.value,
                    headers: stored.headers,
                };
                return Err((message, Refusal::Full));
            }
        };
        let accepted = inner.machine.store(now, key.low(), admitted);
        inner.numbers += 1;
        self.publish(shared, &inner);
        drop(inner);
        if accepted.wakes {
            shared.arrivals.notify_one();
        }
        Ok(Admitted::New {
            number,
            sequence: accepted.sequence,
        })
    }

    /// The hash that stands in for a de-duplication id, where one is needed.
    fn content_key<T: Send + Sync + 'static>(
        &self,
        shared: &Shared<T>,
        message: &Message<T>,
        internal: bool,
    ) -> Option<[u8; 32]> {
        let Kind::Fifo(fifo) = &shared.config.kind else {
            return None;
        };
        if internal {
            return (fifo.deduplication != Deduplication::Optional).then_some([0; 32]);
        }
        if fifo.deduplication != Deduplication::ByContent {
            return None;
        }
        let has_id = message
            .headers
            .headers()
            .is_some_and(|headers| headers.deduplication_id.is_some());
        let key = shared.content_key.filter(|_| !has_id)?;
        Some(key(&message.value))
    }

    /// Receives up to `max` messages: by the recent time, and where that finds none by the exact one.
    pub(crate) fn receive_exactly<T: Send + Sync + 'static>(
        &self,
        slots: &Slots<T>,
        visibility: Option<Duration>,
        max: usize,
        attempt: Option<&ReceiveAttemptId>,
        out: &mut Vec<Delivery<T>>,
    ) -> Result<usize, ReceiveError> {
        let clock = &slots.context().clock;
        match self.receive(slots, clock.recent(), visibility, max, attempt, out) {
            Ok(0) | Err(ReceiveError::OverLimit) if !slots.context().lag.is_zero() => {
                self.receive(slots, clock.now(), visibility, max, attempt, out)
            }
            outcome => outcome,
        }
    }

    /// Receives up to `max` messages.
    pub(crate) fn receive<T: Send + Sync + 'static>(
        &self,
        slots: &Slots<T>,
        now: Instant,
        visibility: Option<Duration>,
        max: usize,
        attempt: Option<&ReceiveAttemptId>,
        out: &mut Vec<Delivery<T>>,
    ) -> Result<usize, ReceiveError> {
        let shared = slots.context();
        let before = out.len();
        let mut inner = self.inner.lock();
        let now = inner.at(now);
        let ended = self.advance(slots, &mut inner, now);
        let result = if is_over_limit(shared) {
            Err(ReceiveError::OverLimit)
        } else {
            let Inner {
                machine, leased, ..
            } = &mut *inner;
            leased.clear();
            machine
                .receive(now, max, visibility, attempt, leased)
                .map(|_| ())
        };
        if result.is_ok() {
            out.extend(inner.leased.iter().filter_map(|leased| {
                let held = pin(slots, leased)?;
                Some(Delivery::new(held, Lease::new(now, leased.receive_count)))
            }));
        }
        self.publish(shared, &inner);
        drop(inner);
        settle(shared, now, ended);
        result?;
        let taken = out.len() - before;
        if taken > 0 && shared.config.capacity.is_some() {
            shared.space.notify_one();
        }
        Ok(taken)
    }

    /// Receives one message, or finds out why not.
    pub(crate) fn receive_one<T: Send + Sync + 'static>(
        &self,
        slots: &Slots<T>,
        now: Instant,
    ) -> Result<Delivery<T>, Nothing> {
        let mut lease = (now, 0);
        let held = self.take(slots, &mut lease)?;
        Ok(Delivery::new(held, Lease::new(lease.0, lease.1)))
    }

    /// Receives one message, if that is done quickly.
    #[inline(always)]
    pub(crate) fn receive_fast<T: Send + Sync + 'static>(
        &self,
        slots: &Slots<T>,
        now: Instant,
    ) -> Option<Delivery<T>> {
        let shared = slots.context();
        // Without the lock, a no may be older than what others did meanwhile.
        let hopeless =
            !self.has_visible() && now.as_nanos() < shared.next_due.load(Ordering::Relaxed);
        if hopeless {
            return None;
        }
        let mut lease = (now, 0);
        let held = self.take_fast(slots, &mut lease)?;
        Some(Delivery::new(held, Lease::new(lease.0, lease.1)))
    }

    /// Out of line, and returns two words in registers.
    #[inline(never)]
    fn take_fast<T: Send + Sync + 'static>(
        &self,
        slots: &Slots<T>,
        lease: &mut (Instant, u32),
    ) -> Option<Held<T>> {
        self.take(slots, lease).ok()
    }

    /// Takes one message. `lease` has the time, and gets that of the receive and the receive count.
    #[inline(always)]
    fn take<T: Send + Sync + 'static>(
        &self,
        slots: &Slots<T>,
        lease: &mut (Instant, u32),
    ) -> Result<Held<T>, Nothing> {
        let shared = slots.context();
        let mut inner = self.inner.lock();
        let at = inner.at(lease.0);
        let ended = self.advance(slots, &mut inner, at);
        let taken = if is_over_limit(shared) {
            Err(Nothing::OverLimit)
        } else {
            match inner.machine.receive_one(at) {
                Ok(Some(leased)) => {
                    *lease = (at, leased.receive_count);
                    pin(slots, &leased).ok_or(Nothing::Empty)
                }
                Ok(None) => Err(Nothing::Empty),
                Err(_) => Err(Nothing::OverLimit),
            }
        };
        self.publish(shared, &inner);
        drop(inner);
        settle(shared, at, ended);
        if taken.is_ok() && shared.config.capacity.is_some() {
            shared.space.notify_one();
        }
        taken
    }

    /// Whether a receive would find something: exact for a thread that has just had the lock, but for what
    /// others did since.
    #[inline]
    pub(crate) fn has_visible(&self) -> bool {
        self.signs.load(Ordering::Relaxed) & READY != 0
    }

    /// Whether a send would find no room: as exact.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.signs.load(Ordering::Relaxed) & FULL != 0
    }

    /// The earliest deadline of the messages.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.inner.lock().machine.next_deadline()
    }

    /// Serves what is due.
    pub(crate) fn serve<T: Send + Sync + 'static>(&self, slots: &Slots<T>, now: Instant) {
        let shared = slots.context();
        let Some(mut inner) = self.inner.try_lock() else {
            return;
        };
        let now = inner.at(now);
        let ended = self.advance(slots, &mut inner, now);
        self.publish(shared, &inner);
        drop(inner);
        settle(shared, now, ended);
    }

    #[inline]
    fn advance<T: Send + Sync + 'static>(
        &self,
        slots: &Slots<T>,
        inner: &mut Inner,
        now: Instant,
    ) -> Option<Box<Ended<T>>> {
        (inner.machine.next_look() <= now).then(|| Self::advance_now(slots, inner, now))
    }

    #[cold]
    #[inline(never)]
    fn advance_now<T: Send + Sync + 'static>(
        slots: &Slots<T>,
        inner: &mut Inner,
        now: Instant,
    ) -> Box<Ended<T>> {
        let mut ended = Box::new(Ended::new());
        inner.machine.advance(now, &mut inner.effects);
        collect(slots, &mut inner.effects, &mut ended);
        ended
    }

    /// Publishes, under the lock, what is looked at without it: when there is something to serve, whether
    /// there is something to receive, and whether there is room.
    ///
    /// The time is a lower bound, that of the machine: a lease that is acknowledged before its end does not
    /// raise it, so that in a steady flow it changes once in a visibility timeout.
    #[inline]
    fn publish<T: Send + Sync + 'static>(&self, shared: &Shared<T>, inner: &Inner) {
        let machine = &inner.machine;
        let retry = shared.redrive_at.load(Ordering::SeqCst);
        let next = machine.next_look().as_nanos().min(retry);
        if shared.next_due.load(Ordering::Relaxed) != next {
            if shared.next_due.swap(next, Ordering::SeqCst) > next {
                shared.retime();
            }
            // A letter that was refused since is announced once more: the swap may have taken its time away.
            shared.announce(Instant::from_nanos(
                shared.redrive_at.load(Ordering::SeqCst),
            ));
        }
        let ready = if machine.something_ready() { READY } else { 0 };
        let signs = if machine.is_full() {
            ready | FULL
        } else {
            ready
        };
        if self.signs.load(Ordering::Relaxed) != signs {
            self.signs.store(signs, Ordering::Relaxed);
        }
    }

    pub(crate) fn acknowledge<T: Send + Sync + 'static>(
        &self,
        shared: &Shared<T>,
        now: Instant,
        lease: MachineLease,
    ) -> Result<(), Stale> {
        let mut inner = self.inner.lock();
        let now = inner.at(now);
        let acknowledged = inner
            .machine
            .acknowledge(now, lease.key, lease.lease)
            .map_err(|_| Stale)?;
        self.publish(shared, &inner);
        drop(inner);
        if acknowledged.wakes {
            shared.arrivals.notify_one();
        }
        // An acknowledgement that came late has removed a message that waited.
        shared.space.notify_one();
        Ok(())
    }

    /// Takes a message out whose lease is running: unlike [`acknowledge`](Self::acknowledge), never late.
    pub(crate) fn withdraw<T: Send + Sync + 'static>(
        &self,
        shared: &Shared<T>,
        now: Instant,
        lease: MachineLease,
    ) -> Result<(), Stale> {
        let mut inner = self.inner.lock();
        let now = inner.at(now);
        if !inner.machine.is_running(now, lease.key, lease.lease) {
            return Err(Stale);
        }
        let taken = inner
            .machine
            .acknowledge(now, lease.key, lease.lease)
            .map_err(|_| Stale)?;
        self.publish(shared, &inner);
        drop(inner);
        if taken.wakes {
            shared.arrivals.notify_one();
        }
        Ok(())
    }

    /// Whether the lease is running.
    pub(crate) fn is_running(&self, now: Instant, lease: MachineLease) -> bool {
        let mut inner = self.inner.lock();
        let now = inner.at(now);
        inner.machine.is_running(now, lease.key, lease.lease)
    }

    pub(crate) fn change_visibility<T: Send + Sync + 'static>(
        &self,
        held: &Held<T>,
        now: Instant,
        lease: MachineLease,
        after: Duration,
    ) -> Result<(), ExtendError> {
        let shared = held.context();
        let mut inner = self.inner.lock();
        let now = inner.at(now);
        let disposition = inner
            .machine
            .change_visibility(now, lease.key, lease.lease, after);
        self.publish(shared, &inner);
        drop(inner);
        self.dispose(held, disposition, after)
    }

    pub(crate) fn release<T: Send + Sync + 'static>(
        &self,
        held: &Held<T>,
        now: Instant,
        lease: MachineLease,
        after: Duration,
    ) -> Result<(), ExtendError> {
        let shared = held.context();
        let mut inner = self.inner.lock();
        let now = inner.at(now);
        let disposition = inner.machine.release(now, lease.key, lease.lease, after);
        self.publish(shared, &inner);
        drop(inner);
        self.dispose(held, disposition, after)
    }

    fn dispose<T: Send + Sync + 'static>(
        &self,
        held: &Held<T>,
        disposition: Result<Disposition<u64>, ChangeError>,
        after: Duration,
    ) -> Result<(), ExtendError> {
        let shared = held.context();
        match disposition {
            Ok(Disposition::InFlight { .. }) => Ok(()),
            Ok(Disposition::Visible { wakes }) => {
                if wakes {
                    shared.arrivals.notify_one();
                }
                Ok(())
            }
            Ok(Disposition::DeadLetter(letter)) => {
                // The caller's own pin makes the value shared, so that it is buried when that goes.
                let pin = held.pin();
                let _ = pin.remove_with(true, |shared, _, stored| match stored {
                    Ok(stored) => {
                        shared.bury(stored, DeadLetterReason::MaxReceives, shared.clock.now());
                    }
                    Err(stored) => stored.set_fate(Fate::MaxReceives),
                });
                if letter.wakes {
                    shared.arrivals.notify_one();
                }
                Ok(())
            }
            Err(ChangeError::Stale) => Err(ExtendError::Stale(Stale)),
            Err(_) => Err(ExtendError::TooLong {
                value: after,
                limit: shared.config.limits.visibility,
            }),
        }
    }

    pub(crate) fn purge<T: Send + Sync + 'static>(&self, slots: &Slots<T>, now: Instant) -> u64 {
        let shared = slots.context();
        let mut ended = Ended::new();
        let mut inner = self.inner.lock();
        let now = inner.at(now);
        let Inner {
            machine, effects, ..
        } = &mut *inner;
        machine.purge(now, effects);
        collect(slots, effects, &mut ended);
        self.publish(shared, &inner);
        drop(inner);
        let purged = ended.purged;
        settle_now(shared, now, ended);
        shared.space.notify_all();
        purged
    }

    pub(crate) fn set_visibility_timeout(&self, timeout: Duration) -> Result<(), ConfigError> {
        Ok(self.inner.lock().machine.set_visibility_timeout(timeout)?)
    }

    pub(crate) fn set_delay<T: Send + Sync + 'static>(&self, shared: &Shared<T>, delay: Duration) {
        let mut inner = self.inner.lock();
        inner.machine.set_delay(delay);
        self.publish(shared, &inner);
    }

    pub(crate) fn set_max_receives<T: Send + Sync + 'static>(
        &self,
        slots: &Slots<T>,
        now: Instant,
        max: Option<u32>,
    ) -> Result<(), ConfigError> {
        let shared = slots.context();
        let mut ended = Ended::new();
        let mut inner = self.inner.lock();
        let now = inner.at(now);
        let Inner {
            machine, effects, ..
        } = &mut *inner;
        let result = machine.set_max_receives(now, max, effects);
        collect(slots, effects, &mut ended);
        self.publish(shared, &inner);
        drop(inner);
        settle_now(shared, now, ended);
        Ok(result?)
    }

    /// Waits until every send that saw the queue open has ended.
    pub(crate) fn close(&self) {
        drop(self.inner.lock());
    }

    pub(crate) fn stats(&self, now: Instant) -> Stats {
        self.inner.lock().machine.stats(now)
    }

    /// Messages that were taken in and did not end yet, dead letters on their way included.
    pub(crate) fn remaining<T: Send + Sync + 'static>(&self, shared: &Shared<T>) -> u64 {
        // Each message that was taken in has a number.
        self.inner.lock().numbers.saturating_sub(shared.ended())
    }
}

/// Takes the payloads of messages that the machine let go.
fn collect<T: Send + Sync + 'static>(
    slots: &Slots<T>,
    effects: &mut Vec<Effect<u64>>,
    ended: &mut Ended<T>,
) {
    for effect in effects.drain(..) {
        match effect {
            Effect::BecameVisible { wakes, .. } => ended.wakes |= wakes,
            Effect::Expired { m, wakes, .. } => {
                ended.wakes |= wakes;
                ended.expired += 1;
                ended.dropped.extend(take_slot(slots, m, Fate::Drop));
            }
            Effect::Purged { m, .. } => {
                ended.purged += 1;
                ended.dropped.extend(take_slot(slots, m, Fate::Drop));
            }
            Effect::DeadLetter(letter) => {
                ended.wakes |= letter.wakes;
                ended
                    .letters
                    .extend(take_slot(slots, letter.m, Fate::MaxReceives));
            }
        }
    }
    effects.shrink_to(64);
}

/// Takes a message out of its slot; where a delivery still looks at it, leaves it to its fate.
fn take_slot<T: Send + Sync + 'static>(
    slots: &Slots<T>,
    low: u64,
    fate: Fate,
) -> Option<Stored<T>> {
    let held = slots.pin_low(low)?;
    held.remove_with(true, |_, _, stored| match stored {
        Ok(stored) => Some(stored),
        Err(stored) => {
            stored.set_fate(fate);
            None
        }
    })
    .ok()
    .flatten()
}

/// Whether the dead letters that nobody takes count for all that may be in flight.
#[inline]
fn is_over_limit<T: Send + Sync + 'static>(shared: &Shared<T>) -> bool {
    shared.undelivered_len.load(Ordering::Relaxed) as usize >= shared.config.max_in_flight
}

/// Pins the slot of a leased message; under the lock. `None` for a slot that counts thousands of old
/// deliveries and takes no more: its message returns when its lease ends.
#[inline(always)]
fn pin<T: Send + Sync + 'static>(slots: &Slots<T>, leased: &Leased<u64>) -> Option<Held<T>> {
    let held = slots.pin_low(leased.m)?;
    held.receives.store(leased.receive_count, Ordering::Relaxed);
    held.first_received
        .store(leased.first_received.as_nanos().max(1), Ordering::Relaxed);
    held.index.store(leased.key.parts().0, Ordering::Relaxed);
    Some(held)
}

/// Runs what must not run under the lock.
#[inline]
fn settle<T: Send + Sync + 'static>(
    shared: &Shared<T>,
    now: Instant,
    ended: Option<Box<Ended<T>>>,
) {
    if ended.is_some() || shared.redrive_at.load(Ordering::SeqCst) <= now.as_nanos() {
        settle_now(shared, now, ended.map_or_else(Ended::new, |ended| *ended));
    }
}

#[cold]
#[inline(never)]
fn settle_now<T: Send + Sync + 'static>(shared: &Shared<T>, now: Instant, ended: Ended<T>) {
    if ended.wakes {
        shared.arrivals.notify_one();
    }
    if ended.expired + ended.purged > 0 || !ended.letters.is_empty() {
        shared.space.notify_one();
    }
    drop(ended.dropped);
    if ended.expired > 0 {
        shared.gone(count::EXPIRED, ended.expired);
    }
    if ended.purged > 0 {
        shared.gone(count::PURGED, ended.purged);
    }
    for stored in ended.letters {
        shared.bury(stored, DeadLetterReason::MaxReceives, now);
    }
    if shared.redrive_at.load(Ordering::SeqCst) <= now.as_nanos() {
        shared.redeliver_letters(now);
    }
}

fn refusal(why: NotStored, limit: usize) -> Refusal {
    match why {
        NotStored::DedupWindowFull => Refusal::DeduplicationWindowFull { limit },
        NotStored::MissingGroup => Refusal::MissingGroup,
        NotStored::MissingDeduplication => Refusal::MissingDeduplicationId,
        NotStored::DelayNotAllowed => Refusal::DelayOnFifo,
        NotStored::DeduplicationNotAllowed => Refusal::UnexpectedDeduplicationId,
        NotStored::Full | NotStored::Duplicate(_) => Refusal::Full,
    }
}

/// A content key that no payload has but by chance: for what the queue itself puts in.
fn internal_key(namespace: u64, number: u64) -> [u8; 32] {
    let mut key = *b"sim-queue internal message\0\0\0\0\0\0";
    for (place, byte) in key[16..24].iter_mut().zip(namespace.to_le_bytes()) {
        *place = byte;
    }
    for (place, byte) in key[24..].iter_mut().zip(number.to_le_bytes()) {
        *place = byte;
    }
    key
}
