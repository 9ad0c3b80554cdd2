//! A message in the hands of a consumer.

use std::fmt;
use std::mem;
use std::ops::Deref;
use std::time::Duration;

use sim_core::attributes::Attributes;
use sim_core::id::Id;
use sim_core::slab::Emptied;
use sim_core::sync::atomic::Ordering;
use sim_core::time::{Instant, Timestamp};

use crate::config::OnDrop;
use crate::dead_letter::Origin;
use crate::error::{ExtendError, Stale};
use crate::group::{DeduplicationId, GroupId, SequenceNumber};
use crate::machine::{Kind, MessageKey};
use crate::message::Attached;
use crate::receipt::Receipt;
use crate::shared::{Engine, Fate, Held, Shared, Stored, count};
use crate::standard::Standard;

/// A received message, leased until its visibility timeout ends. Dereferences to its payload.
///
/// The consumer gives a verdict: [`acknowledge`](Self::acknowledge), [`release`](Self::release),
/// [`release_after`](Self::release_after), [`reject`](Self::reject), or none: then
/// [`OnDrop`] decides. A verdict that comes after the lease ended says [`Stale`] and changes nothing,
/// except that on a standard queue an acknowledgement still counts as long as nobody else has received the
/// message, as in SQS.
///
/// The payload stays readable for as long as the delivery lives, also after its lease ended. A delivery
/// costs no reference count: it pins its slot, and with it the queue's memory.
pub struct Delivery<T: Send + Sync + 'static> {
    held: Option<Held<T>>,
    lease: Lease,
}

/// What the delivery remembers of its receive. Two words, since deliveries are moved about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lease {
    pub(crate) received_at: Instant,
    /// The receive count in the low half; above it what dropping does: 0 for what the configuration says.
    bits: u64,
}

/// In a lease's bits: dropping the delivery changes nothing.
const LEAVE_RUNNING: u64 = 1 << 32;

/// The machine's names for a message and its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MachineLease {
    pub(crate) key: MessageKey,
    pub(crate) lease: u64,
}

impl Lease {
    #[inline]
    pub(crate) const fn new(received_at: Instant, receives: u32) -> Self {
        Self {
            received_at,
            bits: receives as u64,
        }
    }

    /// The lease runs on when the delivery is dropped.
    pub(crate) const fn left_running(self) -> Self {
        Self {
            bits: self.bits | LEAVE_RUNNING,
            ..self
        }
    }

    pub(crate) const fn receives(&self) -> u32 {
        (self.bits & 0xFFFF_FFFF) as u32
    }

    const fn is_left_running(&self) -> bool {
        self.bits & LEAVE_RUNNING != 0
    }

    /// What the machine calls this lease of a message: its receives number the leases.
    pub(crate) fn machine<T>(&self, stored: &Stored<T>) -> MachineLease {
        MachineLease {
            key: MessageKey::from_parts(stored.index.load(Ordering::Relaxed), stored.number),
            lease: u64::from(self.receives()),
        }
    }
}

impl<T: Send + Sync + 'static> Delivery<T> {
    #[inline(always)]
    pub(crate) fn new(held: Held<T>, lease: Lease) -> Self {
        Self {
            held: Some(held),
            lease,
        }
    }

    #[inline]
    fn held(&self) -> &Held<T> {
        match &self.held {
            Some(held) => held,
            // Only verdicts take it, and they take the delivery too.
            None => unreachable!("a delivery holds its message until its verdict"),
        }
    }

    fn shared(&self) -> &Shared<T> {
        self.held().context()
    }

    /// The message is done: it leaves the queue. Returns the payload, or `None` when an older delivery of
    /// the same message is still held somewhere.
    ///
    /// # Errors
    /// [`Stale`] when the lease ended (on a standard queue: and the message was received again), or the
    /// message was purged. Nothing changed.
    #[inline(always)]
    pub fn acknowledge(mut self) -> Result<Option<T>, Stale> {
        match self.held.take() {
            Some(held) => finish(held, &self.lease, count::DELETED, Stored::into_value),
            None => Err(Stale),
        }
    }

    /// Whether no older delivery of the message is held, nor does anybody look at it.
    pub(crate) fn is_alone(&self) -> bool {
        self.held().is_alone()
    }

    /// Takes the message out for another destination; `None` when somebody else holds it: then it is put back
    /// when they go.
    pub(crate) fn withdraw(mut self) -> Result<Option<Stored<T>>, Stale> {
        match self.held.take() {
            Some(held) => finish(held, &self.lease, count::MOVED, |stored| stored),
            None => Err(Stale),
        }
    }

    /// Gives the message back: it is visible again at once, or a dead letter if it was received
    /// `max_receives` times.
    ///
    /// # Errors
    /// [`Stale`] when the lease ended already. Nothing changed.
    pub fn release(mut self) -> Result<(), Stale> {
        match self.held.take() {
            Some(held) => give_back(held, &self.lease),
            None => Err(Stale),
        }
    }

    /// Gives the message back after a while: until then it stays in flight, without a holder. Receipts of this
    /// delivery are stale from now on.
    ///
    /// # Errors
    /// [`ExtendError::Stale`] when the lease ended already, [`ExtendError::TooLong`] when `delay` passes
    /// the longest time a message may stay in flight. Nothing changed; the delivery is gone and its message
    /// returns when its lease ends.
    pub fn release_after(mut self, delay: Duration) -> Result<(), ExtendError> {
        self.lease = self.lease.left_running();
        let (now, deadline) = self.check_visibility(delay)?;
        let held = self.held();
        let shared = held.context();
        match &shared.engine {
            Engine::Scheduled(scheduled) => {
                scheduled.release(held, now, self.lease.machine(held), delay)?;
                shared.counters.add(count::RELEASED, 1);
            }
            // The pin makes the message shared: should it be a dead letter, it is buried when this
            // delivery goes.
            Engine::Standard(_) if delay.is_zero() => {
                end_lease(held.pin(), &self.lease, now, Released::Yes)?;
            }
            Engine::Standard(standard) => {
                extend_standard(held, standard, now, deadline)?;
                held.disown().map_err(|_| Stale)?;
                // A timer that fired in between knew the lease by its former key, and found it gone.
                standard.arm_odd(held, deadline);
                shared.counters.add(count::RELEASED, 1);
            }
        }
        Ok(())
    }

    /// Gives the message up: it goes to the dead letters at once. Without a dead-letter policy it is
    /// released instead.
    ///
    /// # Errors
    /// [`Stale`] when the lease ended already. Nothing changed.
    pub fn reject(mut self) -> Result<(), Stale> {
        let Some(held) = self.held.take() else {
            return Err(Stale);
        };
        if held.context().max_receives().is_none() {
            return give_back(held, &self.lease);
        }
        doom(held, &self.lease, Fate::Rejected, Released::No)
    }

    /// Sets the lease to end `timeout` from now: longer or shorter than before (SQS's
    /// `ChangeMessageVisibility`). Not remembered for the next receive.
    ///
    /// Lengthening the lease of a standard queue's message is two atomic operations, so that it can serve
    /// as a heartbeat.
    ///
    /// # Errors
    /// [`ExtendError::Stale`] when the lease ended, [`ExtendError::TooLong`] when the message would be in
    /// flight for longer than [`Limits::visibility`](crate::Limits::visibility) since its receive.
    pub fn extend(&mut self, timeout: Duration) -> Result<(), ExtendError> {
        self.change_visibility(timeout)
    }

    /// The present and the end of a lease of that length from now on, if it may be so long.
    fn check_visibility(&self, timeout: Duration) -> Result<(Instant, Instant), ExtendError> {
        let shared = self.shared();
        let now = shared.clock.now();
        let deadline = now + timeout;
        let limit = shared.config.limits.visibility;
        if deadline - self.lease.received_at > limit {
            return Err(ExtendError::TooLong {
                value: timeout,
                limit,
            });
        }
        Ok((now, deadline))
    }

    fn change_visibility(&self, timeout: Duration) -> Result<(), ExtendError> {
        let (now, deadline) = self.check_visibility(timeout)?;
        let held = self.held();
        let shared = held.context();
        match &shared.engine {
            Engine::Scheduled(scheduled) => {
                let machine = self.lease.machine(held);
                scheduled.change_visibility(held, now, machine, timeout)
            }
            // At once, like a release. The pin makes the message shared: should it be a dead letter, it is
            // buried when this delivery goes.
            Engine::Standard(_) if timeout.is_zero() => {
                Ok(end_lease(held.pin(), &self.lease, now, Released::No)?)
            }
            Engine::Standard(standard) => extend_standard(held, standard, now, deadline),
        }
    }

    /// The message's id: the same for all its deliveries.
    #[must_use]
    pub fn id(&self) -> Id {
        self.shared().id_of(self.held())
    }

    /// How often the message was received, this time included.
    #[must_use]
    pub fn receive_count(&self) -> u32 {
        self.lease.receives()
    }

    /// When the message was sent.
    #[must_use]
    pub fn sent_at(&self) -> Timestamp {
        self.shared().clock.timestamp(self.held().sent_at)
    }

    /// When the message was first received.
    #[must_use]
    pub fn first_received_at(&self) -> Timestamp {
        let first = self.held().first_received.load(Ordering::Relaxed);
        self.shared().clock.timestamp(Instant::from_nanos(first))
    }

    /// When this delivery was received, on the queue's clock.
    #[must_use]
    pub fn received_at(&self) -> Instant {
        self.lease.received_at
    }

    /// When the message was sent, on the queue's clock.
    #[must_use]
    pub fn sent_instant(&self) -> Instant {
        self.held().sent_at
    }

    /// The message's group or tenant.
    #[must_use]
    pub fn group(&self) -> Option<&GroupId> {
        self.held().headers.group()
    }

    /// The message's de-duplication id, where its sender gave one.
    #[must_use]
    pub fn deduplication_id(&self) -> Option<&DeduplicationId> {
        self.held().headers.headers()?.deduplication_id.as_ref()
    }

    /// The message's place in the order of a FIFO queue.
    #[must_use]
    pub fn sequence(&self) -> Option<SequenceNumber> {
        let is_fifo = matches!(self.shared().config.kind, Kind::Fifo(_));
        is_fifo.then(|| SequenceNumber::new(self.held().number))
    }

    /// The message's attributes; empty when it has none.
    #[must_use]
    pub fn attributes(&self) -> &Attributes {
        static NONE: std::sync::LazyLock<Attributes> =
            std::sync::LazyLock::new(Attributes::default);
        self.held()
            .headers
            .headers()
            .map_or(&NONE, |headers| &headers.attributes)
    }

    /// The trace header that the sender attached.
    #[must_use]
    pub fn trace_header(&self) -> Option<&str> {
        self.held().headers.headers()?.trace.as_deref()
    }

    /// Where a dead letter comes from; `None` for a message that is none.
    #[must_use]
    pub fn dead_letter(&self) -> Option<&Origin<T>> {
        self.held().headers.headers()?.origin.as_deref()
    }

    /// Names this lease of this message, for a verdict that comes by another way.
    #[must_use]
    pub fn receipt(&self) -> Receipt {
        Receipt::new(self.shared().secret, self.held().key(), &self.lease)
    }

    /// Turns the delivery into its receipt; the lease runs on.
    #[must_use]
    pub fn into_receipt(mut self) -> Receipt {
        let receipt = self.receipt();
        self.lease = self.lease.left_running();
        receipt
    }
}

/// Most messages have none: kept out of the fast way.
#[cold]
fn drop_headers<T>(headers: Attached<T>) {
    drop(headers);
}

/// Ends the life of a leased message: counts it under `why` and returns what `keep` makes of it if
/// nobody else holds it.
#[inline(always)]
fn finish<T: Send + Sync + 'static, R>(
    held: Held<T>,
    lease: &Lease,
    why: usize,
    keep: impl FnOnce(Stored<T>) -> R,
) -> Result<Option<R>, Stale> {
    if let Engine::Scheduled(scheduled) = &held.context().engine {
        let shared = held.context();
        scheduled.acknowledge(shared, shared.clock.recent(), lease.machine(&held))?;
    }
    // Late on a standard queue: the lease ended, and nobody has received the message since. The slots of
    // the other queues are never leased: there the machine has just said yes.
    held.remove_with(true, |shared, was_leased, stored| {
        count_ended(shared, was_leased, why);
        stored
            .map_err(|shared| {
                if why == count::MOVED {
                    shared.set_fate(Fate::Return);
                }
            })
            .ok()
            .map(keep)
    })
    .map_err(|_| Stale)
}

/// Acknowledges all of `deliveries` and takes them out, except those whose verdict comes too late; returns how many.
pub(crate) fn acknowledge_all<T: Send + Sync + 'static>(
    deliveries: &mut Vec<Delivery<T>>,
) -> usize {
    let mut ended = Ended::default();
    let mut acknowledged = 0;
    deliveries.retain_mut(|delivery| {
        let Some(held) = delivery.held.take() else {
            return false;
        };
        match ended.acknowledge(held, &delivery.lease) {
            Ok(()) => {
                acknowledged += 1;
                false
            }
            Err(held) => {
                delivery.held = Some(held);
                true
            }
        }
    });
    acknowledged
}

/// Messages of one chunk whose life has ended: they are counted, and their slots given back, together.
struct Ended<T: Send + Sync + 'static> {
    slots: Emptied<Shared<T>, Stored<T>>,
    /// Not yet counted messages: those that had `slots`.
    deleted: u64,
    /// How many of these were still leased.
    leases: usize,
}

impl<T: Send + Sync + 'static> Default for Ended<T> {
    fn default() -> Self {
        Self {
            slots: Emptied::new(),
            deleted: 0,
            leases: 0,
        }
    }
}

impl<T: Send + Sync + 'static> Ended<T> {
    /// As [`finish`]; gives the handle back when it is too late.
    #[inline(always)]
    fn acknowledge(&mut self, held: Held<T>, lease: &Lease) -> Result<(), Held<T>> {
        let shared = held.context();
        if let Engine::Scheduled(scheduled) = &shared.engine {
            let now = shared.clock.recent();
            if scheduled
                .acknowledge(shared, now, lease.machine(&held))
                .is_err()
            {
                return Err(held);
            }
        }
        if !self.slots.takes(&held) {
            self.settle();
        }
        let Self {
            slots,
            deleted,
            leases,
        } = self;
        held.remove_into(true, slots, |shared, was_leased, stored| match stored {
            Ok(Stored { value, headers, .. }) => {
                *deleted += 1;
                if was_leased {
                    *leases += 1;
                } else if let Engine::Standard(standard) = &shared.engine {
                    standard.removed_late(shared);
                    // It waited, so there is room.
                    shared.space.notify_one();
                }
                if !headers.is_nothing() {
                    drop_headers(headers);
                }
                drop(value);
            }
            // An older delivery holds the slot too, so that it is not among `slots`.
            Err(_) => count_ended(shared, was_leased, count::DELETED),
        })
    }

    /// Counts, then gives the slots back, which keep the counters.
    fn settle(&mut self) {
        let (deleted, leases) = (mem::take(&mut self.deleted), mem::take(&mut self.leases));
        if let Some(shared) = self.slots.context()
            && deleted > 0
        {
            if let Engine::Standard(standard) = &shared.engine {
                standard.unreserve(leases);
            }
            shared.gone(count::DELETED, deleted);
        }
        self.slots.give_back();
    }
}

impl<T: Send + Sync + 'static> Drop for Ended<T> {
    fn drop(&mut self) {
        self.settle();
    }
}

/// Settles the accounts of one message whose life has ended.
#[inline(always)]
fn count_ended<T: Send + Sync + 'static>(shared: &Shared<T>, was_leased: bool, why: usize) {
    if let Engine::Standard(standard) = &shared.engine {
        if was_leased {
            standard.lease_ended();
        } else {
            // It waited, so there is room.
            standard.removed_late(shared);
        }
    }
    shared.gone(why, 1);
}

/// Returns a leased message to its queue, or to the dead letters if it was received too often.
fn give_back<T: Send + Sync + 'static>(held: Held<T>, lease: &Lease) -> Result<(), Stale> {
    let shared = held.context();
    let now = shared.clock.recent();
    match &shared.engine {
        Engine::Standard(_) => end_lease(held, lease, now, Released::Yes),
        Engine::Scheduled(scheduled) => {
            let machine = lease.machine(&held);
            scheduled
                .release(&held, now, machine, Duration::ZERO)
                .map_err(|_| Stale)?;
            shared.counters.add(count::RELEASED, 1);
            Ok(())
        }
    }
}

/// Whether the end of a lease counts among those that were given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Released {
    Yes,
    No,
}

/// Ends the lease of a standard queue's message at once.
fn end_lease<T: Send + Sync + 'static>(
    held: Held<T>,
    lease: &Lease,
    now: Instant,
    released: Released,
) -> Result<(), Stale> {
    let shared = held.context();
    let Engine::Standard(standard) = &shared.engine else {
        return Err(Stale);
    };
    // A lease whose end has come is over, also before anybody has entered the queue to notice it.
    if held.note() <= now.as_nanos() {
        return Err(Stale);
    }
    if shared
        .max_receives()
        .is_some_and(|max| lease.receives() >= max)
    {
        return doom(held, lease, Fate::MaxReceives, released);
    }
    let idle = held.unlease().map_err(|_| Stale)?;
    shared
        .counters
        .add(count::RELEASED, u64::from(released == Released::Yes));
    standard.put_back(shared, held.sent_at, idle.low());
    shared.arrivals.notify_one();
    Ok(())
}

/// Sends a leased message to the dead letters: now, or when the last older delivery of it goes.
fn doom<T: Send + Sync + 'static>(
    held: Held<T>,
    lease: &Lease,
    fate: Fate,
    released: Released,
) -> Result<(), Stale> {
    let shared = held.context();
    let now = shared.clock.recent();
    let is_scheduled = match &shared.engine {
        Engine::Scheduled(scheduled) => {
            scheduled.withdraw(shared, now, lease.machine(&held))?;
            true
        }
        Engine::Standard(_) if held.note() <= now.as_nanos() => return Err(Stale),
        Engine::Standard(_) => false,
    };
    held.remove_with(is_scheduled, |shared, was_leased, stored| {
        if was_leased && let Engine::Standard(standard) = &shared.engine {
            standard.lease_ended();
        }
        shared
            .counters
            .add(count::RELEASED, u64::from(released == Released::Yes));
        match stored {
            Ok(stored) => shared.bury(stored, fate.reason(), shared.clock.now()),
            Err(stored) => stored.set_fate(fate),
        }
    })
    .map_err(|_| Stale)
}

fn extend_standard<T: Send + Sync + 'static>(
    held: &Held<T>,
    standard: &Standard<T>,
    now: Instant,
    deadline: Instant,
) -> Result<(), ExtendError> {
    let current = held.note();
    // A lease whose end has come is over, also before anybody has entered the queue to notice it.
    if !held.is_current() || current <= now.as_nanos() {
        return Err(Stale.into());
    }
    let deadline = standard.within_retention(held.context(), deadline, held.sent_at);
    if !held.change_note(current, deadline.as_nanos()) {
        return Err(Stale.into());
    }
    // A longer lease needs nothing more: when the timer of its chunk fires, it is found to go on.
    if deadline.as_nanos() < current {
        standard.arm_odd(held, deadline);
    }
    Ok(())
}

impl<T: Send + Sync + 'static> Deref for Delivery<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.held().value
    }
}

impl<T: Send + Sync + 'static> Drop for Delivery<T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            abandon(held, self.lease);
        }
    }
}

/// What a delivery does that is dropped without a verdict.
#[inline(never)]
fn abandon<T: Send + Sync + 'static>(held: Held<T>, lease: Lease) {
    if lease.is_left_running() {
        return;
    }
    // A verdict that comes too late here has nobody to tell.
    let _ = match held.context().config.on_drop {
        OnDrop::Return => give_back(held, &lease),
        OnDrop::Acknowledge => finish(held, &lease, count::DELETED, drop).map(drop),
        OnDrop::Expire => Ok(()),
    };
}

impl<T: fmt::Debug + Send + Sync + 'static> fmt::Debug for Delivery<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("value", &**self)
            .field("receive_count", &self.lease.receives())
            .finish_non_exhaustive()
    }
}
