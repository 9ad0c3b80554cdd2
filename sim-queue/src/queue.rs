//! The handle: every operation as `try_x` (never waits), `x` (async), `x_blocking` and `x_until`.
//!
//! # Ordering
//! Closing sets the flag by `SeqCst`, closes the engine, and only then drops or wakes: a send that has come through
//! before is counted by everybody who sees the flag, and a later one is refused by the engine itself.
//! `next_due` is read `Relaxed` on the fast way, where a moment's delay does no harm, and `SeqCst` before sleeping.

mod receiving;

use std::fmt;
use std::time::Duration;

use sim_core::clock::Clock;
use sim_core::payload::Payload;
use sim_core::seam::{Refused, Sink};
use sim_core::sync::Arc;
use sim_core::sync::atomic::Ordering;
use sim_core::time::Instant;
use sim_core::wait::{Attempt, Elapsed, until, until_blocking};

use crate::ask::Close;
use crate::builder::Builder;
use crate::config::{QueueConfig, check_duration};
use crate::dead_letter::{
    DeadLetter, DeadLetterPolicy, MAX_RECEIVES, Policy, ReturnAddress, Target,
};
use crate::delivery::{Delivery, Lease};
use crate::error::{
    ConfigError, ExtendError, MoveError, PolicyError, ReceiveError, Refusal, SendError, Stale,
    TrySendError,
};
use crate::machine::Kind;
use crate::message::{Message, Sent};
use crate::move_task::{MoveHandle, MoveProgress, MoveTask};
use crate::receipt::Receipt;
use crate::scheduled::Admitted;
use crate::shared::{Engine, Held, Shared, Slots, closed, count};
use crate::stats::Stats;
use crate::wait::SendWait;

/// How often closing looks for messages that were on their way to a receiver.
const PURGES: usize = 1000;
/// How long a send waits until it looks again at a de-duplication window that is full.
const WINDOW_RETRY: Duration = Duration::from_secs(1);
/// A queue of `T`: a cheap handle, cloned for each producer and consumer.
///
/// See the [crate's documentation](crate) for what it guarantees.
pub struct Queue<T: Send + Sync + 'static> {
    pub(crate) slots: Slots<T>,
    /// Counts the users' handles; the queue's own hold the slots alone.
    life: Option<Arc<Life<T>>>,
}

/// Clears the way back when the last user's handle goes.
struct Life<T: Send + Sync + 'static> {
    address: Arc<ReturnAddress<T>>,
}

impl<T: Send + Sync + 'static> Drop for Life<T> {
    fn drop(&mut self) {
        self.address.clear();
    }
}

impl Queue<Payload> {
    /// Makes a queue of bytes that knows their size and content, on the given clock.
    ///
    /// # Errors
    /// The first field of the configuration that is out of its range.
    pub fn bytes(config: QueueConfig, clock: Clock) -> Result<Self, ConfigError> {
        Self::builder(config)
            .clock(clock)
            .size(|payload| payload.len())
            .content_key(crate::message::sha256)
            .build()
    }
}

impl<T: Send + Sync + 'static> Queue<T> {
    /// The first handle of a user.
    pub(crate) fn of_users(slots: Slots<T>, address: Arc<ReturnAddress<T>>) -> Self {
        Self {
            slots,
            life: Some(Arc::new(Life { address })),
        }
    }

    /// Makes a queue on the system clock.
    ///
    /// # Errors
    /// The first field of the configuration that is out of its range.
    pub fn new(config: QueueConfig) -> Result<Self, ConfigError> {
        Self::builder(config).build()
    }

    /// Makes a queue on the given clock.
    ///
    /// # Errors
    /// The first field of the configuration that is out of its range.
    pub fn with_clock(config: QueueConfig, clock: Clock) -> Result<Self, ConfigError> {
        Self::builder(config).clock(clock).build()
    }

    /// Starts building a queue.
    #[must_use]
    pub fn builder(config: QueueConfig) -> Builder<T> {
        Builder::new(config)
    }

    pub(crate) fn shared(&self) -> &Shared<T> {
        self.slots.context()
    }

    /// The configuration that the queue was built with.
    #[must_use]
    pub fn config(&self) -> &QueueConfig {
        &self.shared().config
    }

    /// The queue's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.shared().clock
    }

    // ---- sending -------------------------------------------------------------------------------------

    /// Sends a message, or gives it back at once.
    ///
    /// # Errors
    /// [`TrySendError`] with the message and the [`Refusal`]. Nothing changed.
    #[inline]
    pub fn try_send(&self, message: impl Into<Message<T>>) -> Result<Sent, TrySendError<T>> {
        self.send_now(message.into())
    }

    /// Sends a message, waiting for room.
    ///
    /// # Errors
    /// [`SendError::Refused`] for what waiting does not cure.
    ///
    /// # Cancel safety
    /// The message is sent in the poll that completes the future; a future dropped before drops it.
    #[inline]
    pub fn send(&self, message: impl Into<Message<T>>) -> SendWait<'_, T> {
        SendWait::new(self, message.into(), Instant::NEVER)
    }

    /// Sends a message, waiting for room until a deadline.
    ///
    /// # Errors
    /// [`SendError::Elapsed`] at the deadline, [`SendError::Refused`] for what waiting does not cure.
    ///
    /// # Cancel safety
    /// The message is sent in the poll that completes the future; a future dropped before drops it.
    #[inline]
    pub fn send_until(&self, message: impl Into<Message<T>>, deadline: Instant) -> SendWait<'_, T> {
        SendWait::new(self, message.into(), deadline)
    }

    /// Sends a message, blocking the thread while there is no room.
    ///
    /// # Errors
    /// [`SendError::Refused`] for what waiting does not cure.
    pub fn send_blocking(&self, message: impl Into<Message<T>>) -> Result<Sent, SendError<T>> {
        self.send_blocking_until(message, Instant::NEVER)
    }

    /// Sends a message, blocking the thread until there is room or until a deadline.
    ///
    /// # Errors
    /// [`SendError::Elapsed`] at the deadline, [`SendError::Refused`] for what waiting does not cure.
    pub fn send_blocking_until(
        &self,
        message: impl Into<Message<T>>,
        deadline: Instant,
    ) -> Result<Sent, SendError<T>> {
        let message = match self.send_now(message.into()) {
            Ok(sent) => return Ok(sent),
            Err(error) if error.reason.is_temporary() => *error.message,
            Err(error) => return Err(SendError::Refused(error)),
        };
        let shared = self.shared();
        let mut slot = Some(message);
        let outcome = until_blocking(&shared.space, &shared.clock, deadline, || {
            self.attempt_send(&mut slot)
        });
        finish_send(outcome, slot)
    }

    /// Sends each message for itself and reports on each, in order: SQS's batch. One that is refused does not
    /// hold up the others, except that on a FIFO queue nothing overtakes within its group.
    ///
    /// # Errors
    /// Each entry's own; all of them [`Refusal::BatchTooLong`] when there are more than
    /// [`Limits::batch`](crate::Limits::batch).
    pub fn try_send_batch<I>(&self, messages: I) -> Vec<Result<Sent, TrySendError<T>>>
    where
        I: IntoIterator,
        I::Item: Into<Message<T>>,
    {
        let messages: Vec<Message<T>> = messages.into_iter().map(Into::into).collect();
        if let Some(reason) = self.check_batch(&messages) {
            return messages
                .into_iter()
                .map(|message| Err(TrySendError::new(message, reason.clone())))
                .collect();
        }
        let mut blocked = Vec::new();
        messages
            .into_iter()
            .map(|message| {
                let group = message.group_id().cloned();
                if self.is_fifo() && group.as_ref().is_some_and(|group| blocked.contains(group)) {
                    return Err(TrySendError::new(message, Refusal::Full));
                }
                let outcome = self.send_now(message);
                if let (Err(error), Some(group)) = (&outcome, group)
                    && error.reason.is_temporary()
                {
                    blocked.push(group);
                }
                outcome
            })
            .collect()
    }

    /// Sends each message, waiting for room where there is none; reports on each, in order.
    ///
    /// # Errors
    /// Each entry's own.
    ///
    /// # Cancel safety
    /// A future dropped in between has sent a prefix of the batch and drops the rest.
    pub async fn send_batch<I>(&self, messages: I) -> Vec<Result<Sent, SendError<T>>>
    where
        I: IntoIterator,
        I::Item: Into<Message<T>>,
    {
        self.send_batch_until(messages, Instant::NEVER).await
    }

    /// Sends each message, waiting for room until a deadline; reports on each, in order.
    ///
    /// # Errors
    /// Each entry's own.
    ///
    /// # Cancel safety
    /// A future dropped in between has sent a prefix of the batch and drops the rest.
    pub async fn send_batch_until<I>(
        &self,
        messages: I,
        deadline: Instant,
    ) -> Vec<Result<Sent, SendError<T>>>
    where
        I: IntoIterator,
        I::Item: Into<Message<T>>,
    {
        let messages: Vec<Message<T>> = messages.into_iter().map(Into::into).collect();
        if let Some(reason) = self.check_batch(&messages) {
            return refuse_all(messages, &reason);
        }
        let mut results = Vec::with_capacity(messages.len());
        for message in messages {
            results.push(self.send_until(message, deadline).await);
        }
        results
    }

    /// Sends each message, blocking the thread while there is no room; reports on each, in order.
    ///
    /// # Errors
    /// Each entry's own.
    pub fn send_batch_blocking<I>(&self, messages: I) -> Vec<Result<Sent, SendError<T>>>
    where
        I: IntoIterator,
        I::Item: Into<Message<T>>,
    {
        let messages: Vec<Message<T>> = messages.into_iter().map(Into::into).collect();
        if let Some(reason) = self.check_batch(&messages) {
            return refuse_all(messages, &reason);
        }
        messages
            .into_iter()
            .map(|message| self.send_blocking(message))
            .collect()
    }

    /// Sends plain values with one claim for all of them, as many as there is room for, and takes those out
    /// of `values`, from the front. Returns how many. The fast way in bulk on a standard queue; on the
    /// others the values are sent one by one.
    ///
    /// # Errors
    /// The reason why nothing was taken; `values` is untouched.
    pub fn try_send_values(&self, values: &mut Vec<T>) -> Result<usize, Refusal> {
        let shared = self.shared();
        if values.is_empty() {
            return Ok(0);
        }
        if let Engine::Standard(standard) = &shared.engine
            && (shared.size.is_none() || shared.config.limits.message_bytes.is_none())
        {
            let now = shared.clock.now();
            standard.serve_if_due(&self.slots, now);
            let sent = standard.send_values(&self.slots, now, values);
            return match sent {
                0 if shared.is_closed() => Err(Refusal::Closed),
                0 => Err(Refusal::Full),
                sent => Ok(sent),
            };
        }
        let mut sent = 0;
        let mut rest = std::mem::take(values).into_iter();
        let mut refused = None;
        for value in rest.by_ref() {
            match self.send_now(Message::new(value)) {
                Ok(_) => sent += 1,
                Err(error) => {
                    refused = Some(error.reason.clone());
                    values.push(error.into_value());
                    break;
                }
            }
        }
        values.extend(rest);
        match refused {
            Some(reason) if sent == 0 => Err(reason),
            _ => Ok(sent),
        }
    }

    /// Sends plain values in bulk, waiting for room until all are sent.
    ///
    /// # Errors
    /// The reason that stopped it; what was not sent stands in `values`.
    ///
    /// # Cancel safety
    /// A future dropped in between has sent a prefix; the rest stands in `values`.
    pub async fn send_values(&self, values: &mut Vec<T>) -> Result<usize, Refusal> {
        let shared = self.shared();
        let mut sent = 0;
        while !values.is_empty() {
            let outcome = until(&shared.space, &shared.clock, Instant::NEVER, || match self
                .try_send_values(values)
            {
                Err(reason) if reason.is_temporary() => Attempt::Pending {
                    wake_at: self.room_at(&reason),
                },
                outcome => Attempt::Done {
                    value: outcome,
                    more: true,
                },
            })
            .await;
            match outcome {
                Ok(Ok(count)) => sent += count,
                Ok(Err(reason)) => return Err(reason),
                Err(Elapsed) => {}
            }
        }
        Ok(sent)
    }

    pub(crate) fn attempt_send(
        &self,
        slot: &mut Option<Message<T>>,
    ) -> Attempt<Result<Sent, SendError<T>>> {
        let Some(message) = slot.take() else {
            return Attempt::Pending {
                wake_at: Instant::NEVER,
            };
        };
        match self
            .send_fast(message)
            .or_else(|message| self.send_with_headers(message))
        {
            Ok(sent) => Attempt::Done {
                value: Ok(sent),
                more: !self.is_full(),
            },
            Err((message, reason)) if reason.is_temporary() => {
                *slot = Some(message);
                Attempt::Pending {
                    wake_at: self.room_at(&reason),
                }
            }
            Err((message, reason)) => {
                let error = TrySendError::new(message, reason);
                Attempt::Done {
                    value: Err(SendError::Refused(error)),
                    more: true,
                }
            }
        }
    }

    /// When there may be room without anybody receiving: when messages get too old, or a window moves on.
    fn room_at(&self, reason: &Refusal) -> Instant {
        let shared = self.shared();
        match (&shared.engine, shared.config.retention) {
            // Nobody is told when a window moves on: it is looked at again each second.
            _ if *reason != Refusal::Full => shared.clock.now() + WINDOW_RETRY,
            (Engine::Standard(_), None) => Instant::NEVER,
            _ => shared.wake_at(),
        }
    }

    pub(crate) fn is_fifo(&self) -> bool {
        matches!(self.shared().config.kind, Kind::Fifo(_))
    }

    fn is_full(&self) -> bool {
        let shared = self.shared();
        shared
            .config
            .capacity
            .is_some_and(|capacity| match &shared.engine {
                Engine::Standard(standard) => {
                    standard.visible() + standard.delayed() >= capacity as u64
                }
                Engine::Scheduled(scheduled) => scheduled.is_full(),
            })
    }

    #[inline(always)]
    pub(crate) fn send_now(&self, message: Message<T>) -> Result<Sent, TrySendError<T>> {
        match &self.shared().engine {
            Engine::Standard(_) => self
                .send_fast(message)
                .or_else(|message| self.send_or_refuse(message)),
            Engine::Scheduled(_) => self.send_or_refuse(message),
        }
    }

    #[inline(never)]
    fn send_or_refuse(&self, message: Message<T>) -> Result<Sent, TrySendError<T>> {
        self.send_with_headers(message)
            .map_err(|(message, reason)| TrySendError::new(message, reason))
    }

    /// Sends a message that was just made, where that is likely to succeed; gives it back otherwise.
    #[inline(always)]
    pub(crate) fn send_first(&self, message: Message<T>) -> Result<Sent, Message<T>> {
        match &self.shared().engine {
            Engine::Scheduled(scheduled) if !scheduled.is_full() => self.send_or_give_back(message),
            Engine::Scheduled(_) => Err(message),
            Engine::Standard(_) => self.send_fast(message),
        }
    }

    #[inline(never)]
    fn send_or_give_back(&self, message: Message<T>) -> Result<Sent, Message<T>> {
        self.send_with_headers(message)
            .map_err(|(message, _)| message)
    }

    /// Sends a plain value on a standard queue; gives it back for the long way otherwise.
    #[inline(always)]
    pub(crate) fn send_fast(&self, message: Message<T>) -> Result<Sent, Message<T>> {
        let shared = self.shared();
        if let Engine::Standard(standard) = &shared.engine
            && message.headers.is_nothing()
            && shared.size.is_none()
        {
            let now = shared.clock.recent();
            standard.serve_if_due(&self.slots, now);
            return match standard.send_plain(shared, now, message.value) {
                Ok(number) => Ok(Sent {
                    id: shared.id(number),
                    sequence: None,
                    duplicate: false,
                }),
                Err(value) => Err(Message::new(value)),
            };
        }
        Err(message)
    }

    #[inline]
    fn send_with_headers(&self, message: Message<T>) -> Result<Sent, (Message<T>, Refusal)> {
        let shared = self.shared();
        if let Err(reason) = self.check(&message) {
            return Err((message, reason));
        }
        match &shared.engine {
            Engine::Standard(standard) => {
                // Exact, since what is due may make room.
                let now = shared.clock.now();
                standard.serve_if_due(&self.slots, now);
                match standard.send(&self.slots, now, message, true) {
                    Ok(number) => Ok(Sent {
                        id: shared.id(number),
                        sequence: None,
                        duplicate: false,
                    }),
                    Err(message) => {
                        let reason = if shared.is_closed() {
                            Refusal::Closed
                        } else {
                            Refusal::Full
                        };
                        Err((message, reason))
                    }
                }
            }
            Engine::Scheduled(scheduled) => {
                let now = shared.clock.recent();
                if now.as_nanos() >= shared.next_due.load(Ordering::Relaxed) {
                    scheduled.serve(&self.slots, now);
                }
                scheduled
                    .send(&self.slots, now, message, false, true)
                    .map(|admitted| sent(shared, &admitted))
            }
        }
    }

    /// Checks what the caller asks for against the kind and the limits.
    #[inline]
    fn check(&self, message: &Message<T>) -> Result<(), Refusal> {
        let shared = self.shared();
        let limits = &shared.config.limits;
        let headers = message.headers.headers();
        if let Some(headers) = headers {
            if let Some(value) = headers.delay
                && value > limits.delay
            {
                return Err(Refusal::Delay {
                    value,
                    limit: limits.delay,
                });
            }
            if headers.attributes.len() > limits.attributes {
                return Err(Refusal::Attributes {
                    count: headers.attributes.len(),
                    limit: limits.attributes,
                });
            }
        }
        match shared.config.kind {
            Kind::Standard if message.group_id().is_some() => return Err(Refusal::UnexpectedGroup),
            Kind::Standard | Kind::Fair(_)
                if headers.is_some_and(|headers| headers.deduplication_id.is_some()) =>
            {
                return Err(Refusal::UnexpectedDeduplicationId);
            }
            _ => {}
        }
        if let (Some(limit), Some(size)) = (limits.message_bytes, shared.size) {
            let bytes = message_bytes(message, size);
            if bytes > limit {
                return Err(Refusal::TooLarge { bytes, limit });
            }
        }
        Ok(())
    }

    fn check_batch(&self, messages: &[Message<T>]) -> Option<Refusal> {
        let shared = self.shared();
        let limits = &shared.config.limits;
        if messages.len() > limits.batch {
            return Some(Refusal::BatchTooLong {
                count: messages.len(),
                limit: limits.batch,
            });
        }
        if let (Some(limit), Some(size)) = (limits.message_bytes, shared.size) {
            let bytes = messages
                .iter()
                .map(|message| message_bytes(message, size))
                .sum();
            if bytes > limit {
                return Some(Refusal::TooLarge { bytes, limit });
            }
        }
        None
    }

    // ---- verdicts by receipt -------------------------------------------------------------------------

    /// Makes a delivery of a receipt, for as long as its lease runs. Dropping that delivery changes nothing.
    ///
    /// # Errors
    /// [`Stale`] when the lease ended, or the receipt is another queue's or made up.
    pub fn delivery(&self, receipt: &Receipt) -> Result<Delivery<T>, Stale> {
        let (held, lease) = self.named(receipt)?;
        let shared = self.shared();
        if let Engine::Scheduled(scheduled) = &shared.engine
            && !scheduled.is_running(shared.clock.now(), lease.machine(&held))
        {
            return Err(Stale);
        }
        Ok(Delivery::new(held, lease))
    }

    /// The slot that a receipt names; on FIFO and fair queues also after the lease ended.
    fn named(&self, receipt: &Receipt) -> Result<(Held<T>, Lease), Stale> {
        let shared = self.shared();
        if !receipt.is_of(shared.secret) {
            return Err(Stale);
        }
        self.serve_if_due();
        let held = match &shared.engine {
            Engine::Standard(_) => self.slots.held(receipt.key()),
            Engine::Scheduled(_) => self
                .slots
                .pin_low(receipt.key().low())
                .filter(|held| held.key() == receipt.key()),
        };
        Ok((held.ok_or(Stale)?, receipt.lease()))
    }

    /// Acknowledges by receipt: see [`Delivery::acknowledge`].
    ///
    /// # Errors
    /// [`Stale`] when the lease ended (on a standard queue: and the message was received again).
    pub fn acknowledge(&self, receipt: &Receipt) -> Result<Option<T>, Stale> {
        if let Ok((held, lease)) = self.named(receipt) {
            return Delivery::new(held, lease).acknowledge();
        }
        let shared = self.shared();
        let Engine::Standard(standard) = &shared.engine else {
            return Err(Stale);
        };
        if !receipt.is_of(shared.secret) {
            return Err(Stale);
        }
        let low = sim_core::slab::Key::low_after_lease(receipt.key().low());
        let held = self.slots.pin_low(low).ok_or(Stale)?;
        // The slot may be another message's by now: that one was not received yet.
        // Leased under the next generation: the slot's next message.
        if held.is_current() {
            return Err(Stale);
        }
        if held.receives.load(Ordering::Relaxed) != receipt.lease().receives() {
            return Err(Stale);
        }
        held.remove_with(true, |shared, _, stored| {
            standard.removed_late(shared);
            shared.gone(count::DELETED, 1);
            stored.ok().map(|stored| stored.value)
        })
        .map_err(|_| Stale)
    }

    /// Changes a lease by receipt: see [`Delivery::extend`]. Zero returns the message at once.
    ///
    /// # Errors
    /// As [`Delivery::extend`].
    pub fn change_visibility(
        &self,
        receipt: &Receipt,
        timeout: Duration,
    ) -> Result<(), ExtendError> {
        let mut delivery = self.delivery(receipt)?;
        delivery.extend(timeout)
    }

    /// Acknowledges each delivery and reports on each, in order.
    ///
    /// # Errors
    /// Each entry's own.
    pub fn acknowledge_batch(
        deliveries: impl IntoIterator<Item = Delivery<T>>,
    ) -> Vec<Result<Option<T>, Stale>> {
        deliveries.into_iter().map(Delivery::acknowledge).collect()
    }

    // ---- dead letters --------------------------------------------------------------------------------

    /// Sets where messages go that were received too often.
    ///
    /// # Errors
    /// [`PolicyError`]: the policy is out of range, or its target does not allow it. Nothing changed.
    pub fn set_dead_letters(&self, policy: DeadLetterPolicy<T>) -> Result<(), PolicyError> {
        let shared = self.shared();
        let DeadLetterPolicy {
            target,
            max_receives,
        } = policy;
        if max_receives == 0 || max_receives > MAX_RECEIVES {
            return Err(PolicyError::MaxReceives {
                value: max_receives,
                limit: MAX_RECEIVES,
            });
        }
        let sink: Arc<dyn Sink<DeadLetter<T>>> = match target {
            Target::Sink(sink) => sink,
            Target::Queue(queue) => {
                let target = queue.shared();
                if std::ptr::eq(target, shared) {
                    return Err(PolicyError::Itself);
                }
                if queue.is_fifo() != self.is_fifo() {
                    return Err(PolicyError::KindMismatch);
                }
                if !target.config.redrive_allow.allows(&shared.config.name) {
                    return Err(PolicyError::NotAllowed {
                        target: target.config.name.clone(),
                        source_name: shared.config.name.clone(),
                    });
                }
                Arc::new(queue)
            }
        };
        let former = shared.policy.lock().replace(Policy { sink, max_receives });
        drop(former);
        self.apply_max_receives(Some(max_receives));
        Ok(())
    }

    /// Gives up the dead-letter policy: messages are delivered for as long as they are kept. Letters that
    /// their sink had refused wait for the next policy.
    pub fn clear_dead_letters(&self) {
        let former = self.shared().policy.lock().take();
        drop(former);
        self.apply_max_receives(None);
    }

    fn apply_max_receives(&self, max: Option<u32>) {
        let shared = self.shared();
        let now = shared.clock.now();
        match (&shared.engine, max) {
            (Engine::Scheduled(scheduled), max) => {
                // The value was checked: the machine's range is the same.
                let _ = scheduled.set_max_receives(&self.slots, now, max);
            }
            (Engine::Standard(standard), Some(max)) => standard.bury_spent(&self.slots, now, max),
            (Engine::Standard(_), None) => {}
        }
    }

    /// Starts to move this queue's messages back to where they came from, or elsewhere: SQS's
    /// `StartMessageMoveTask`. The task moves while its handle is driven.
    ///
    /// # Errors
    /// [`MoveError`]: another task is running, or the rate is out of range.
    pub fn start_move(&self, task: MoveTask<T>) -> Result<MoveHandle<T>, MoveError> {
        MoveHandle::start(self, task)
    }

    /// The move tasks of this queue, the newest first, at most ten.
    #[must_use]
    pub fn move_tasks(&self) -> Vec<MoveProgress> {
        self.shared().moves.lock().list()
    }

    // ---- the whole -----------------------------------------------------------------------------------

    /// Sets the visibility timeout of later receives.
    ///
    /// # Errors
    /// [`ConfigError::TooLong`] beyond [`Limits::visibility`](crate::Limits::visibility). Nothing changed.
    pub fn set_visibility_timeout(&self, timeout: Duration) -> Result<(), ConfigError> {
        let shared = self.shared();
        check_duration(
            "visibility_timeout",
            timeout,
            shared.config.limits.visibility,
        )?;
        match &shared.engine {
            Engine::Standard(standard) => {
                standard.set_visibility_timeout(timeout);
                Ok(())
            }
            Engine::Scheduled(scheduled) => scheduled.set_visibility_timeout(timeout),
        }
    }

    /// Sets the delay of later sends; on a FIFO queue also of the messages that are delayed now, as in SQS.
    ///
    /// # Errors
    /// [`ConfigError::TooLong`] beyond [`Limits::delay`](crate::Limits::delay). Nothing changed.
    pub fn set_delay(&self, delay: Duration) -> Result<(), ConfigError> {
        let shared = self.shared();
        check_duration("delay", delay, shared.config.limits.delay)?;
        match &shared.engine {
            Engine::Standard(standard) => standard.set_delay(delay),
            Engine::Scheduled(scheduled) => scheduled.set_delay(shared, delay),
        }
        Ok(())
    }

    /// Drops every message that is in the queue now, also those in flight; returns how many. Messages sent
    /// meanwhile may go or stay.
    pub fn purge(&self) -> u64 {
        let shared = self.shared();
        let now = shared.clock.now();
        let letters = shared.drop_letters(now);
        if letters > 0 {
            shared.gone(count::PURGED, letters);
        }
        let messages = match &shared.engine {
            Engine::Standard(standard) => standard.purge(&self.slots),
            Engine::Scheduled(scheduled) => scheduled.purge(&self.slots, now),
        };
        let purged = letters + messages;
        crate::macros::trace!(
            "purged",
            queue = shared.config.name.as_str(),
            messages = purged
        );
        purged
    }

    /// Closes the queue: every later send is refused, also those that wait now. Doing it again, or draining
    /// what was closed by dropping, changes nothing.
    pub fn close(&self, how: Close) {
        let shared = self.shared();
        let state = match how {
            Close::Drain => closed::DRAINING,
            Close::Drop => closed::DROPPED,
        };
        shared.closed.fetch_max(state, Ordering::SeqCst);
        match &shared.engine {
            Engine::Standard(standard) => standard.close(),
            Engine::Scheduled(scheduled) => scheduled.close(),
        }
        if how == Close::Drop {
            // What is on its way from the ring to a receiver is missed by one purge and found by the next.
            for _ in 0..PURGES {
                self.purge();
                if self.remaining() == 0 {
                    break;
                }
                sim_core::sync::thread::yield_now();
            }
        }
        shared.space.notify_all();
        shared.arrivals.notify_all();
        shared.idle.notify_all();
    }

    /// Whether the queue was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared().is_closed()
    }

    /// Waits until a closed queue has nothing left, neither waiting nor in flight.
    ///
    /// # Cancel safety
    /// Loses nothing.
    pub async fn drained(&self) {
        let shared = self.shared();
        let _ = until(&shared.idle, &shared.clock, Instant::NEVER, || {
            self.attempt_drained()
        })
        .await;
    }

    /// Blocks the thread until a closed queue has nothing left, neither waiting nor in flight.
    ///
    /// # Errors
    /// [`ReceiveError::Elapsed`] when the deadline passed first.
    pub fn drained_blocking_until(&self, deadline: Instant) -> Result<(), ReceiveError> {
        let shared = self.shared();
        until_blocking(&shared.idle, &shared.clock, deadline, || {
            self.attempt_drained()
        })
        .map_err(|Elapsed| ReceiveError::Elapsed)
    }

    fn attempt_drained(&self) -> Attempt<()> {
        self.serve_if_due();
        if self.is_sealed() && self.remaining() == 0 {
            Attempt::Done {
                value: (),
                more: true,
            }
        } else {
            // What is left may end by itself: when it gets too old, or its lease its last time.
            Attempt::Pending {
                wake_at: self.shared().wake_at(),
            }
        }
    }

    /// Whether no send that was under way when the queue was closed can succeed any more.
    fn is_sealed(&self) -> bool {
        let shared = self.shared();
        match &shared.engine {
            Engine::Standard(standard) => standard.is_sealed(),
            // Sends look at the flag under the lock that `remaining` takes.
            Engine::Scheduled(_) => shared.is_closed(),
        }
    }

    fn remaining(&self) -> u64 {
        let shared = self.shared();
        match &shared.engine {
            Engine::Standard(standard) => standard.remaining(shared),
            Engine::Scheduled(scheduled) => scheduled.remaining(shared),
        }
    }

    fn serve_if_due(&self) {
        self.advance_to(self.shared().clock.now());
    }

    pub(crate) fn advance_to(&self, now: Instant) {
        let shared = self.shared();
        if now.as_nanos() < shared.next_due.load(Ordering::SeqCst) {
            return;
        }
        match &shared.engine {
            Engine::Standard(standard) => standard.serve_if_due(&self.slots, now),
            Engine::Scheduled(scheduled) => scheduled.serve(&self.slots, now),
        }
    }

    /// Serves what is due now: leases that ended, delays that passed, messages that are too old. Every other
    /// call does it too; this one is for a queue that nobody uses otherwise.
    pub fn advance(&self) {
        self.serve_if_due();
    }

    /// When the queue next has something to serve, at the earliest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let shared = self.shared();
        let next = match &shared.engine {
            Engine::Standard(_) => shared.wake_at(),
            Engine::Scheduled(scheduled) => {
                let retry = Instant::from_nanos(shared.redrive_at.load(Ordering::SeqCst));
                scheduled
                    .next_deadline()
                    .map_or(retry, |deadline| deadline.min(retry))
            }
        };
        (next != Instant::NEVER).then_some(next)
    }

    /// Reads the queue's counts.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.serve_if_due();
        let shared = self.shared();
        let now = shared.clock.now();
        let counts = shared.counters.sums();
        let mut stats = Stats {
            deleted: counts[count::DELETED],
            empty_receives: counts[count::EMPTY],
            redriven: counts[count::REDRIVEN],
            moved: counts[count::MOVED],
            expired: counts[count::EXPIRED],
            purged: counts[count::PURGED],
            lapsed: counts[count::LAPSED],
            released: counts[count::RELEASED],
            ..Stats::default()
        };
        match &shared.engine {
            Engine::Standard(standard) => {
                stats.visible = standard.visible();
                stats.delayed = standard.delayed();
                stats.in_flight = standard.in_flight(shared);
                stats.oldest_age = standard
                    .oldest_sent()
                    .filter(|_| stats.visible > 0)
                    .map(|sent_at| now - sent_at);
                stats.sent = standard.sent(shared);
                stats.received = standard.received(shared);
            }
            Engine::Scheduled(scheduled) => {
                let machine = scheduled.stats(now);
                stats.visible = machine.visible as u64;
                stats.delayed = machine.delayed as u64;
                // With the dead letters on their way: refused for now, or held by an older delivery.
                let ended =
                    stats.deleted + stats.expired + stats.redriven + stats.moved + stats.purged;
                let waiting = stats.visible + stats.delayed;
                stats.in_flight = machine.sent.saturating_sub(ended + waiting);
                stats.oldest_age = machine.oldest_visible_age;
                stats.sent = machine.sent;
                stats.received = machine.received;
                stats.lapsed = machine.timed_out;
                stats.deduplicated = machine.deduplicated;
                stats.groups_in_flight = machine.groups_in_flight as u64;
                stats.noisy_groups = machine.noisy_groups as u64;
                stats.visible_in_quiet_groups = machine.visible_in_quiet_groups as u64;
                stats.in_flight_in_quiet_groups = machine.in_flight_in_quiet_groups as u64;
                stats.delayed_in_quiet_groups = machine.delayed_in_quiet_groups as u64;
            }
        }
        stats
    }
}

fn sent<T: Send + Sync + 'static>(shared: &Shared<T>, admitted: &Admitted) -> Sent {
    match admitted {
        Admitted::New { number, sequence } => {
            let is_fifo = matches!(shared.config.kind, Kind::Fifo(_));
            let sequence = is_fifo.then_some(*sequence);
            Sent {
                id: shared.id(*number),
                sequence,
                duplicate: false,
            }
        }
        Admitted::Duplicate(first) => Sent {
            id: sim_core::id::Id::from_u128(first.id),
            sequence: Some(first.sequence),
            duplicate: true,
        },
    }
}

fn finish_send<T>(
    outcome: Result<Result<Sent, SendError<T>>, Elapsed>,
    slot: Option<Message<T>>,
) -> Result<Sent, SendError<T>> {
    match (outcome, slot) {
        (Ok(outcome), _) => outcome,
        (Err(Elapsed), Some(message)) => Err(SendError::Elapsed(Box::new(message))),
        (Err(Elapsed), None) => unreachable!("an attempt that took the message is done with it"),
    }
}

fn refuse_all<T>(messages: Vec<Message<T>>, reason: &Refusal) -> Vec<Result<Sent, SendError<T>>> {
    messages
        .into_iter()
        .map(|message| {
            Err(SendError::Refused(TrySendError::new(
                message,
                reason.clone(),
            )))
        })
        .collect()
}

fn message_bytes<T>(message: &Message<T>, size: fn(&T) -> usize) -> usize {
    let attributes = message
        .headers
        .headers()
        .map_or(0, |headers| headers.attributes.size());
    size(&message.value).saturating_add(attributes)
}

/// Takes a message in that the queue itself or a neighbour sends: a dead letter, or one that comes back.
fn admit<T: Send + Sync + 'static>(
    slots: &Slots<T>,
    now: Instant,
    message: Message<T>,
    within_capacity: bool,
) -> Result<(), Message<T>> {
    let shared = slots.context();
    match &shared.engine {
        Engine::Standard(standard) => {
            // What is due may make room.
            standard.serve_if_due(slots, now);
            standard
                .send(slots, now, message, within_capacity)
                .map(drop)
        }
        Engine::Scheduled(scheduled) => {
            if now.as_nanos() >= shared.next_due.load(Ordering::Relaxed) {
                scheduled.serve(slots, now);
            }
            scheduled
                .send(slots, now, message, true, within_capacity)
                .map(drop)
                .map_err(|(message, _)| message)
        }
    }
}

/// Puts a message back that was in the queue before.
pub(crate) fn take_back<T: Send + Sync + 'static>(slots: &Slots<T>, message: Message<T>) {
    let shared = slots.context();
    if let Err(message) = admit(slots, shared.clock.now(), message, false) {
        // Closed with all its messages dropped: this one follows them. It has left the counts before.
        drop(message);
    }
}

/// Delivers a message from within the family, as a [`Sink`].
pub(crate) fn deliver_internally<T: Send + Sync + 'static>(
    slots: &Slots<T>,
    message: Message<T>,
) -> Result<(), Refused<Message<T>>> {
    let shared = slots.context();
    match admit(slots, shared.clock.now(), message, true) {
        Ok(()) => Ok(()),
        Err(message) if shared.is_closed() => Err(Refused::closed(message)),
        Err(message) => Err(Refused::full(message, None)),
    }
}

impl<T: Send + Sync + 'static> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self {
            slots: self.slots.clone(),
            life: self.life.clone(),
        }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("name", &self.config().name)
            .finish_non_exhaustive()
    }
}
