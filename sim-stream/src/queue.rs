//! Queues on a stream: acknowledgement per record over the log, as Kinesis has them since 2026.
//!
//! ```
//! use sim_stream::{PartitionKey, QueueConfig, Receive, Record, Stream, StreamConfig};
//!
//! let stream = Stream::new(StreamConfig::new("flights"))?;
//! let tasks = stream.queue(QueueConfig::new("tasks"))?;
//! let audit = stream.queue(QueueConfig::new("audit"))?;
//! stream.try_put(Record::new(PartitionKey::new("AA")?, "flight 1"))?;
//!
//! // Each queue delivers each record, whatever the others do with it.
//! let received = tasks.try_receive(Receive::default())?;
//! assert_eq!(*received[0].value(), "flight 1");
//! tasks.acknowledge(&received[0])?;
//! assert_eq!(audit.stats().visible, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it works
//! A queue is a cursor over each shard and a table of the records that are under way, each by its position: no record is
//! copied, and what was acknowledged leaves no trace. What is received is a reference into the log.
//!
//! ```text
//!  shard 0   ░░░░░░░░░░▒░░▓░░░▒▒▒▒▒▒│                     ░ acknowledged   ▒ in flight, delayed or returned
//!  shard 1   ░░░░░░░░░░░░░░▒▒▒▒▒│      unread             ▓ dead letter    │ the cursor
//!            ▲ trimmed by the stream's retention
//! ```
//!
//! Shards that come by a split or a merge are followed, each when its parents have been read; not acknowledged, since
//! a queue promises no order: it is about that of arrival.
//!
//! # Retention
//! A queue does not keep records longer than the stream does. The table holds positions and no records: a record
//! that the stream trims before it was received, or while it was on its way back or dead, is dropped and counted by
//! what it was ([`LostRecords`]). A record that somebody holds as a [`QueueRecord`] is readable for as long as it is held, and
//! may be acknowledged while its lease stands. So memory is bounded by the stream's retention, the limits on records in
//! flight and dead letters, and what consumers hold; the queue itself holds one chunk of each shard's log, the one
//! that it read last.
//!
//! # Waiting
//! A put wakes one of a queue's waiting consumers, who wakes the next when it has got something. The ends of leases are served by
//! whoever calls in; a waiting consumer keeps the time.

mod config;
mod error;
mod followers;
mod record;
mod seams;
mod shared;
mod stats;

pub use self::config::{
    AWS_QUEUE_MAX_IN_FLIGHT, AWS_QUEUE_MAX_RECEIVES, AWS_QUEUE_MAX_VISIBILITY,
    AWS_QUEUE_VISIBILITY, AWS_QUEUE_WAIT, DEFAULT_MAX_DEAD_LETTERS, DeadLetters, MAX_RECEIVES,
    QueueConfig, QueueLimits, QueueStart, QueueUpdate, Receive,
};
pub use self::error::{
    InvalidReceive, QueueError, ReceiveError, Stale, TryReceiveError, VisibilityError,
};
pub(crate) use self::followers::Followers;
pub use self::record::{ParseReceiptError, QueueRecord, Receipt};
pub use self::stats::{LostRecords, QueueDescription, QueueStats};

use std::fmt;
use std::time::Duration;

use sim_core::event::Event;
use sim_core::sync::Arc;
use sim_core::time::Instant;
use sim_core::wait::{Attempt, Elapsed, until, until_blocking};

use self::shared::{Core, Which};
use crate::error::ConfigError;
use crate::machine::delivery::Delivery;
use crate::stream::Stream;

/// A queue on a stream: a cheap handle, cloned for each consumer.
///
/// The queue is there as long as a handle is; it goes on from where it stood for all of them. See the
/// [module](crate::queue) for what it does.
///
/// A value's `Drop` must not call the queue of the stream that the value stands in: it may run under the queue's lock.
pub struct StreamQueue<T: Send + Sync + 'static> {
    core: Arc<Core<T>>,
}

impl<T: Send + Sync + 'static> Stream<T> {
    /// Creates a queue on this stream.
    ///
    /// Queues are independent of each other and of other readers, as many as there is memory for.
    ///
    /// # Errors
    /// [`QueueError`]: the first field that is out of its range, or a start in the future.
    pub fn queue(&self, config: QueueConfig) -> Result<StreamQueue<T>, QueueError> {
        let core = Arc::new(Core::new(self, config)?);
        Ok(StreamQueue { core })
    }
}

impl<T: Send + Sync + 'static> StreamQueue<T> {
    /// The stream.
    #[must_use]
    pub fn stream(&self) -> &Stream<T> {
        &self.core.stream
    }

    // ---- receiving -----------------------------------------------------------------------------------

    /// Receives up to `ask.max` records, if any is visible (`ReceiveQueueRecords`). Those that came back go first.
    ///
    /// # Errors
    /// [`TryReceiveError`]: nothing visible, too many in flight, closed, or `ask` is out of the queue's limits.
    pub fn try_receive(&self, ask: Receive) -> Result<Vec<QueueRecord<T>>, TryReceiveError> {
        self.try_which(ask, Which::Ordinary)
    }

    /// Receives records, waiting for the first: a long poll without an end.
    ///
    /// # Errors
    /// [`ReceiveError`], but never [`Elapsed`](ReceiveError::Elapsed).
    ///
    /// # Cancel safety
    /// Records are taken in the poll that returns them: a future that is dropped before takes none.
    pub async fn receive(&self, ask: Receive) -> Result<Vec<QueueRecord<T>>, ReceiveError> {
        self.receive_until(ask, Instant::NEVER).await
    }

    /// Receives records, waiting for the first until a deadline: Kinesis's long poll.
    ///
    /// # Errors
    /// [`ReceiveError::Elapsed`] at the deadline; else as [`receive`](Self::receive).
    ///
    /// # Cancel safety
    /// Records are taken in the poll that returns them: a future that is dropped before takes none.
    pub async fn receive_until(
        &self,
        ask: Receive,
        deadline: Instant,
    ) -> Result<Vec<QueueRecord<T>>, ReceiveError> {
        self.wait(ask, deadline, Which::Ordinary).await
    }

    /// Receives records, blocking the thread until there is one.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_blocking(&self, ask: Receive) -> Result<Vec<QueueRecord<T>>, ReceiveError> {
        self.receive_blocking_until(ask, Instant::NEVER)
    }

    /// Receives records, blocking the thread until there is one or until a deadline.
    ///
    /// # Errors
    /// As [`receive_until`](Self::receive_until).
    pub fn receive_blocking_until(
        &self,
        ask: Receive,
        deadline: Instant,
    ) -> Result<Vec<QueueRecord<T>>, ReceiveError> {
        self.wait_blocking(ask, deadline, Which::Ordinary)
    }

    // ---- verdicts ------------------------------------------------------------------------------------

    /// Acknowledges a record: this queue never delivers it again. The stream keeps it, and so do other queues.
    ///
    /// # Errors
    /// [`Stale`]; nothing changed.
    pub fn acknowledge(&self, receipt: impl Into<Receipt>) -> Result<(), Stale> {
        self.core.judge_one(receipt.into(), |machine, now, key| {
            machine.acknowledge(now, key)
        })
    }

    /// Acknowledges each of many records, and reports on each, in order (`AcknowledgeQueueRecords`).
    ///
    /// # Errors
    /// Each receipt's own.
    pub fn acknowledge_batch<I>(&self, receipts: I) -> Vec<Result<(), Stale>>
    where
        I: IntoIterator,
        I::Item: Into<Receipt>,
    {
        let receipts = receipts.into_iter().map(|receipt| (receipt.into(), ()));
        self.core.judge(receipts, |machine, now, key, ()| {
            machine.acknowledge(now, key)
        })
    }

    /// Lets the lease of a record end `timeout` from now, later or earlier than it would have; with zero, the record comes
    /// back at once.
    ///
    /// # Errors
    /// [`VisibilityError`]; nothing changed.
    pub fn change_visibility(
        &self,
        receipt: impl Into<Receipt>,
        timeout: Duration,
    ) -> Result<(), VisibilityError> {
        self.core.check_visibility(timeout)?;
        self.core.judge_one(receipt.into(), |machine, now, key| {
            machine.change_visibility(now, key, timeout)
        })?;
        Ok(())
    }

    /// Changes the end of the lease of each of many records, and reports on each, in order
    /// (`UpdateQueueRecordsVisibility`).
    ///
    /// # Errors
    /// Each receipt's own.
    pub fn change_visibility_batch<I, R>(&self, changes: I) -> Vec<Result<(), VisibilityError>>
    where
        I: IntoIterator<Item = (R, Duration)>,
        R: Into<Receipt>,
    {
        self.change_batch(changes, Delivery::change_visibility)
    }

    /// Gives a record back: it comes again after `delay`, or becomes a dead letter if it was received too often.
    ///
    /// # Errors
    /// [`VisibilityError`]; nothing changed.
    pub fn release(
        &self,
        receipt: impl Into<Receipt>,
        delay: Duration,
    ) -> Result<(), VisibilityError> {
        self.core.check_visibility(delay)?;
        self.core.judge_one(receipt.into(), |machine, now, key| {
            machine.release(now, key, delay)
        })?;
        Ok(())
    }

    // ---- dead letters --------------------------------------------------------------------------------

    /// Receives up to `ask.max` dead letters, if any is visible (`ReceiveDeadLetterQueueRecords`). They have leases of their
    /// own, and come back however often they are received.
    ///
    /// # Errors
    /// [`TryReceiveError`]: nothing visible, closed, or `ask` is out of the queue's limits.
    pub fn try_receive_dead_letters(
        &self,
        ask: Receive,
    ) -> Result<Vec<QueueRecord<T>>, TryReceiveError> {
        self.try_which(ask, Which::DeadLetters)
    }

    /// Receives dead letters, waiting for the first until a deadline; [`Instant::NEVER`] waits without an end.
    ///
    /// # Errors
    /// [`ReceiveError::Elapsed`] at the deadline; closed; or `ask` is out of the queue's limits.
    ///
    /// # Cancel safety
    /// Dead letters are taken in the poll that returns them: a future that is dropped before takes none.
    pub async fn receive_dead_letters(
        &self,
        ask: Receive,
        deadline: Instant,
    ) -> Result<Vec<QueueRecord<T>>, ReceiveError> {
        self.wait(ask, deadline, Which::DeadLetters).await
    }

    /// Receives dead letters, blocking the thread until there is one or until a deadline.
    ///
    /// # Errors
    /// As [`receive_dead_letters`](Self::receive_dead_letters).
    pub fn receive_dead_letters_blocking(
        &self,
        ask: Receive,
        deadline: Instant,
    ) -> Result<Vec<QueueRecord<T>>, ReceiveError> {
        self.wait_blocking(ask, deadline, Which::DeadLetters)
    }

    /// Acknowledges each of many dead letters, and reports on each, in order (`AcknowledgeDeadLetterQueueRecords`).
    ///
    /// # Errors
    /// Each receipt's own.
    pub fn acknowledge_dead_letters<I>(&self, receipts: I) -> Vec<Result<(), Stale>>
    where
        I: IntoIterator,
        I::Item: Into<Receipt>,
    {
        let receipts = receipts.into_iter().map(|receipt| (receipt.into(), ()));
        self.core.judge(receipts, |machine, now, key, ()| {
            machine.acknowledge_dead(now, key)
        })
    }

    /// Changes the end of the lease of each of many dead letters, and reports on each, in order
    /// (`UpdateDeadLetterQueueRecordsVisibility`).
    ///
    /// # Errors
    /// Each receipt's own.
    pub fn change_dead_letter_visibility<I, R>(
        &self,
        changes: I,
    ) -> Vec<Result<(), VisibilityError>>
    where
        I: IntoIterator<Item = (R, Duration)>,
        R: Into<Receipt>,
    {
        self.change_batch(changes, Delivery::change_dead_visibility)
    }

    /// Restores each of many dead letters, and reports on each, in order (`RestoreDeadLetterQueueRecords`): it is an
    /// ordinary record again that was never received.
    ///
    /// # Errors
    /// Each receipt's own.
    pub fn restore_dead_letters<I>(&self, receipts: I) -> Vec<Result<(), Stale>>
    where
        I: IntoIterator,
        I::Item: Into<Receipt>,
    {
        let receipts = receipts.into_iter().map(|receipt| (receipt.into(), ()));
        self.core
            .judge(receipts, |machine, now, key, ()| machine.restore(now, key))
    }

    /// Restores all dead letters that nobody holds, oldest first; returns how many.
    pub fn restore_all_dead_letters(&self) -> u64 {
        self.core.restore_all()
    }

    // ---- life ----------------------------------------------------------------------------------------

    /// Changes the visibility timeout, the rule for dead letters, or both (`UpdateQueue`). Leases that stand keep their end.
    ///
    /// # Errors
    /// The first field that is out of its range; nothing changed.
    pub fn update(&self, update: QueueUpdate) -> Result<(), ConfigError> {
        self.core.update(update)
    }

    /// Closes the queue (`DeleteQueue`): nothing is delivered any more, receipts go stale, and waiting consumers are told.
    /// The stream is not concerned.
    pub fn close(&self) {
        self.core.close();
    }

    /// What the queue is.
    #[must_use]
    pub fn describe(&self) -> QueueDescription {
        self.core.describe()
    }

    /// What the queue counts.
    #[must_use]
    pub fn stats(&self) -> QueueStats {
        self.core.stats()
    }

    /// When the next lease or delay ends.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.core.next_deadline()
    }

    /// Ends the leases and delays that are over at `now`, as every call does at the clock's time.
    pub fn advance_to(&self, now: Instant) {
        self.core.advance(now);
    }

    // ---- the one way to receive ------------------------------------------------------------------------

    fn try_which(
        &self,
        ask: Receive,
        which: Which,
    ) -> Result<Vec<QueueRecord<T>>, TryReceiveError> {
        let outcome = self.core.receive(ask, which);
        if matches!(outcome, Err(TryReceiveError::Empty)) {
            self.core.count_empty();
        }
        outcome
    }

    async fn wait(
        &self,
        ask: Receive,
        deadline: Instant,
        which: Which,
    ) -> Result<Vec<QueueRecord<T>>, ReceiveError> {
        let clock = &self.core.stream.shared().clock;
        let outcome = until(self.event(which), clock, deadline, || {
            self.attempt(ask, which)
        });
        self.waited(outcome.await)
    }

    fn wait_blocking(
        &self,
        ask: Receive,
        deadline: Instant,
        which: Which,
    ) -> Result<Vec<QueueRecord<T>>, ReceiveError> {
        let clock = &self.core.stream.shared().clock;
        let outcome = until_blocking(self.event(which), clock, deadline, || {
            self.attempt(ask, which)
        });
        self.waited(outcome)
    }

    fn event(&self, which: Which) -> &Event {
        match which {
            Which::Ordinary => &self.core.arrivals,
            Which::DeadLetters => &self.core.burials,
        }
    }

    fn attempt(
        &self,
        ask: Receive,
        which: Which,
    ) -> Attempt<Result<Vec<QueueRecord<T>>, ReceiveError>> {
        match self.core.receive(ask, which) {
            Err(TryReceiveError::Empty) => Attempt::Pending {
                wake_at: self.core.next_deadline().unwrap_or(Instant::NEVER),
            },
            // One call may have told of many records, and fewer than were asked for may be all that the limit on records in
            // flight leaves room for. Whatever error this waiter gets the next one gets too, except for what it asked
            // for itself.
            result => Attempt::Done {
                value: result.map_err(Into::into),
                more: true,
            },
        }
    }

    fn waited(
        &self,
        outcome: Result<Result<Vec<QueueRecord<T>>, ReceiveError>, Elapsed>,
    ) -> Result<Vec<QueueRecord<T>>, ReceiveError> {
        outcome.unwrap_or_else(|Elapsed| {
            self.core.count_empty();
            Err(ReceiveError::Elapsed)
        })
    }

    /// Changes whose time is too long are refused; the others are made, under one lock.
    fn change_batch<I, R>(
        &self,
        changes: I,
        mut change: impl FnMut(
            &mut Delivery,
            Instant,
            crate::machine::delivery::LeaseKey,
            Duration,
        ) -> Result<(), crate::machine::delivery::Ended>,
    ) -> Vec<Result<(), VisibilityError>>
    where
        I: IntoIterator<Item = (R, Duration)>,
        R: Into<Receipt>,
    {
        let changes: Vec<(Receipt, Duration)> = changes
            .into_iter()
            .map(|(receipt, timeout)| (receipt.into(), timeout))
            .collect();
        let checked: Vec<Result<(), VisibilityError>> = changes
            .iter()
            .map(|(_, timeout)| self.core.check_visibility(*timeout))
            .collect();
        let good = changes
            .into_iter()
            .zip(&checked)
            .filter_map(|(change, checked)| checked.is_ok().then_some(change));
        let mut judged = self
            .core
            .judge(good, |machine, now, key, timeout| {
                change(machine, now, key, timeout)
            })
            .into_iter();
        checked
            .into_iter()
            .map(|checked| {
                checked?;
                Ok(judged.next().unwrap_or(Err(Stale))?)
            })
            .collect()
    }
}

impl<T: Send + Sync + 'static> Clone for StreamQueue<T> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
        }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for StreamQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamQueue")
            .field("name", &self.core.describe().name)
            .finish_non_exhaustive()
    }
}
