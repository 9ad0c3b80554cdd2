//! A subscription of a registered consumer to a shard: a stream of events.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream as FuturesStream;
use sim_core::log::{self, Read as LogRead};
use sim_core::sync::Arc;
use sim_core::time::Instant;
use sim_core::wait::{Attempt, Elapsed, Waiter, until_blocking};

use super::channel::Channel;
use crate::error::{IteratorError, SubscribeError};
use crate::message::{ChildShard, SequenceNumber, ShardId, StartingPosition};
use crate::records::Records;
use crate::stream::Stream;
use crate::stream::shared::{Shard, Stored, count};

/// The most records of an event: those of a `GetRecords`.
const MAX_RECORDS: usize = 10_000;
/// The most bytes of an event without a limit: those of a `GetRecords`.
const MAX_BYTES: usize = 10 << 20;
/// With a limit an event brings at most this part of a second's share, so that pushes come evenly.
const SHARE: u64 = 4;
/// How often a subscription from the oldest record on follows it before it has read anything.
const FOLLOWS: usize = 16;

/// Records that are pushed to a consumer: `SubscribeToShardEvent`.
pub struct FanOutEvent<T: Send + Sync + 'static> {
    records: Records<T>,
    continuation: Option<SequenceNumber>,
}

impl<T: Send + Sync + 'static> FanOutEvent<T> {
    /// The records; none only in the last event of a closed shard.
    #[must_use]
    pub const fn records(&self) -> &Records<T> {
        &self.records
    }

    /// The records, to keep.
    #[must_use]
    pub fn into_records(self) -> Records<T> {
        self.records
    }

    /// After which record to subscribe again (`ContinuationSequenceNumber`), with
    /// [`AfterSequenceNumber`](StartingPosition::AfterSequenceNumber). `None` at the end of the shard.
    #[must_use]
    pub const fn continuation(&self) -> Option<SequenceNumber> {
        self.continuation
    }

    /// How far the push is behind the newest record (`MillisBehindLatest`): zero at the tip, else the age of its last
    /// record.
    #[must_use]
    pub const fn behind_latest(&self) -> Duration {
        self.records.behind_latest()
    }

    /// The shards that go on where this one ended (`ChildShards`): empty before the end.
    #[must_use]
    pub fn child_shards(&self) -> &[ChildShard] {
        self.records.child_shards()
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for FanOutEvent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FanOutEvent")
            .field("records", &self.records)
            .field("continuation", &self.continuation)
            .finish()
    }
}

/// Why a subscription gives no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscriptionError {
    /// There is nothing at present, or the consumer has had its share of this second.
    #[error("there is no record at present")]
    Empty,
    /// The deadline passed and nothing was pushed.
    #[error("the deadline passed and no record came")]
    Elapsed,
    /// Records were trimmed before they were pushed. Said once; the subscription goes on behind the gap.
    #[error(
        "{shard_id}: {lost} records were trimmed before they were read; the oldest left is {resume_at}"
    )]
    Trimmed {
        /// The shard.
        shard_id: ShardId,
        /// Records lost.
        lost: u64,
        /// The number at which it goes on.
        resume_at: SequenceNumber,
    },
    /// The shard is closed and everything was pushed.
    #[error("the shard was pushed to its end")]
    Ended,
    /// The subscription has had its time; subscribe again after the last continuation.
    #[error("the subscription has had its time")]
    Expired,
    /// The consumer has subscribed to this shard again.
    #[error("a newer subscription has taken over")]
    TakenOver,
    /// The consumer was deregistered.
    #[error("the consumer was deregistered")]
    Deregistered,
}

impl SubscriptionError {
    /// Whether nothing comes after it.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Ended | Self::Expired | Self::TakenOver | Self::Deregistered
        )
    }
}

/// A registered consumer's events from one shard; made by [`Stream::subscribe`].
///
/// It is a `futures` stream too, which ends at the end of the shard and when its time is over.
pub struct Subscription<T: Send + Sync + 'static> {
    inner: Inner<T>,
    waiter: Waiter,
    /// As a stream it has said its last.
    is_over: bool,
}

struct Inner<T: Send + Sync + 'static> {
    stream: Stream<T>,
    place: Place<T>,
    channel: Arc<Channel>,
    number: u64,
    until: Instant,
    /// What was read and waits for its time.
    held: Option<Records<T>>,
    /// The end of the shard was said.
    is_ended: bool,
    /// Until when the last try would sleep.
    sleep_until: Instant,
}

/// Where it stands.
pub(super) struct Place<T: Send + Sync + 'static> {
    shard: Arc<Shard<T>>,
    log: log::Cursor<Stored<T>>,
    floats: bool,
}

enum Step<T: Send + Sync + 'static> {
    Done(Result<FanOutEvent<T>, SubscriptionError>),
    Wait(Instant),
}

impl<T: Send + Sync + 'static> Subscription<T> {
    /// Where a subscription would begin.
    pub(super) fn cursor(
        stream: &Stream<T>,
        shard: ShardId,
        start: StartingPosition,
    ) -> Result<Place<T>, SubscribeError> {
        let shared = stream.shared();
        let shard = shared
            .shard(shard)
            .ok_or(IteratorError::UnknownShard { shard_id: shard })?;
        let (position, floats) = shared.position_of(&shard, start)?;
        let log = shard.log.cursor(position);
        Ok(Place { shard, log, floats })
    }

    pub(super) const fn new(
        stream: Stream<T>,
        place: Place<T>,
        channel: Arc<Channel>,
        number: u64,
        until: Instant,
    ) -> Self {
        Self {
            inner: Inner {
                stream,
                place,
                channel,
                number,
                until,
                held: None,
                is_ended: false,
                sleep_until: Instant::ORIGIN,
            },
            waiter: Waiter::new(),
            is_over: false,
        }
    }

    /// Wakes the subscription that this one has taken over from.
    pub(super) fn wake_former(&self) {
        self.inner.place.shard.arrivals.notify_all();
    }

    /// The shard.
    #[must_use]
    pub fn shard_id(&self) -> ShardId {
        self.inner.place.shard.id
    }

    /// When it ends; [`Instant::NEVER`] without a [lifetime](crate::Limits::subscription_lifetime).
    #[must_use]
    pub const fn expires_at(&self) -> Instant {
        self.inner.until
    }

    /// Gives the next event, if there is one.
    ///
    /// # Errors
    /// [`SubscriptionError`].
    pub fn try_next(&mut self) -> Result<FanOutEvent<T>, SubscriptionError> {
        match self.inner.attempt() {
            Step::Done(outcome) => outcome,
            Step::Wait(_) => Err(SubscriptionError::Empty),
        }
    }

    /// Gives the next event, waiting for it.
    ///
    /// # Errors
    /// [`SubscriptionError`].
    ///
    /// # Cancel safety
    /// An event is taken in the poll that returns it: a future that is dropped loses none.
    pub async fn next(&mut self) -> Result<FanOutEvent<T>, SubscriptionError> {
        self.next_until(Instant::NEVER).await
    }

    /// Gives the next event, waiting for it until a deadline.
    ///
    /// # Errors
    /// [`SubscriptionError::Elapsed`] at the deadline; else as [`next`](Self::next).
    ///
    /// # Cancel safety
    /// An event is taken in the poll that returns it: a future that is dropped loses none.
    pub async fn next_until(
        &mut self,
        deadline: Instant,
    ) -> Result<FanOutEvent<T>, SubscriptionError> {
        poll_fn(|cx| self.poll(cx, deadline)).await
    }

    /// Gives the next event, blocking the thread until there is one.
    ///
    /// # Errors
    /// [`SubscriptionError`].
    pub fn next_blocking(&mut self) -> Result<FanOutEvent<T>, SubscriptionError> {
        self.next_blocking_until(Instant::NEVER)
    }

    /// Gives the next event, blocking the thread until there is one or the deadline comes.
    ///
    /// # Errors
    /// [`SubscriptionError::Elapsed`] at the deadline; else as [`next_blocking`](Self::next_blocking).
    pub fn next_blocking_until(
        &mut self,
        deadline: Instant,
    ) -> Result<FanOutEvent<T>, SubscriptionError> {
        let inner = &mut self.inner;
        let shard = Arc::clone(&inner.place.shard);
        let clock = inner.stream.shared().clock.clone();
        let mut step = inner.attempt();
        loop {
            let wake_at = match step {
                Step::Done(outcome) => return outcome,
                Step::Wait(_) if !deadline.is_never() && clock.now() >= deadline => {
                    return Err(SubscriptionError::Elapsed);
                }
                Step::Wait(wake_at) => wake_at.min(deadline),
            };
            let waited = until_blocking(&shard.arrivals, &clock, wake_at, || {
                inner.attempt_before(wake_at)
            });
            step = waited.unwrap_or_else(|Elapsed| inner.attempt());
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        deadline: Instant,
    ) -> Poll<Result<FanOutEvent<T>, SubscriptionError>> {
        let Self { inner, waiter, .. } = self;
        let shard = Arc::clone(&inner.place.shard);
        let clock = inner.stream.shared().clock.clone();
        loop {
            // Each keeps its own time: the event's timekeeper knows one deadline for all, and theirs differ.
            let limit = inner.sleep_until.min(deadline);
            let polled = waiter.poll_until(cx, &shard.arrivals, &clock, limit, &mut || {
                inner.attempt_before(limit)
            });
            match polled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Step::Done(outcome))) => return Poll::Ready(outcome),
                Poll::Ready(Ok(Step::Wait(_)) | Err(Elapsed)) => {
                    if !deadline.is_never() && clock.now() >= deadline {
                        return Poll::Ready(Err(SubscriptionError::Elapsed));
                    }
                }
            }
        }
    }
}

impl<T: Send + Sync + 'static> Inner<T> {
    fn attempt(&mut self) -> Step<T> {
        let shared = self.stream.shared();
        let now = shared.clock.now();
        if let Err(error) = self.channel.check(self.number) {
            return Step::Done(Err(error));
        }
        if self.is_ended {
            return Step::Done(Err(SubscriptionError::Ended));
        }
        if now >= self.until {
            return Step::Done(Err(SubscriptionError::Expired));
        }
        let records = match self.held.take() {
            Some(records) => records,
            None => match self.place.read(&self.stream, now) {
                Ok(records) => records,
                Err(trimmed) => return Step::Done(Err(trimmed)),
            },
        };
        if records.is_empty() && !records.is_end() {
            self.sleep_until = self.until;
            return Step::Wait(self.until);
        }
        let bytes = bytes_of(&records);
        if let Err(retry_at) = self.channel.push(now, bytes) {
            self.held = Some(records);
            self.sleep_until = retry_at.min(self.until);
            return Step::Wait(self.sleep_until);
        }
        let continuation = records.last_sequence_number();
        self.is_ended = records.is_end();
        shared.counters.add(count::FAN_EVENTS, 1);
        shared
            .counters
            .add(count::FAN_RECORDS, records.len() as u64);
        shared.counters.add(count::FAN_BYTES, bytes);
        shared.note_push(records.behind_latest());
        Step::Done(Ok(FanOutEvent {
            continuation: continuation.filter(|_| !records.is_end()),
            records,
        }))
    }

    /// A try for who sleeps until `limit`: done too when it must sleep shorter.
    fn attempt_before(&mut self, limit: Instant) -> Attempt<Step<T>> {
        match self.attempt() {
            Step::Wait(wake_at) if wake_at >= limit => Attempt::Pending {
                wake_at: Instant::NEVER,
            },
            value => Attempt::Done { value, more: false },
        }
    }
}

impl<T: Send + Sync + 'static> Place<T> {
    /// Reads past the limits of shared readers, which do not count this.
    fn read(&mut self, stream: &Stream<T>, now: Instant) -> Result<Records<T>, SubscriptionError> {
        let shared = stream.shared();
        let horizon = shared.horizon(&self.shard, now);
        let max_bytes = match &shared.config.limits.throughput {
            Some(limits) => usize::try_from(limits.fan_out_bytes / SHARE).unwrap_or(MAX_BYTES),
            None => MAX_BYTES,
        };
        for _ in 0..FOLLOWS {
            let before = self.log.position();
            let found = if before < horizon {
                // As if it were trimmed already.
                self.log.seek(horizon);
                LogRead::Trimmed { resume_at: horizon }
            } else {
                self.log.batch(MAX_RECORDS, max_bytes.clamp(1, MAX_BYTES))
            };
            let batch = match found {
                LogRead::Record(batch) => Some(batch),
                LogRead::Pending | LogRead::End => None,
                LogRead::Trimmed { resume_at } => {
                    let lost = resume_at.saturating_sub(before);
                    if self.floats {
                        continue;
                    }
                    return Err(SubscriptionError::Trimmed {
                        shard_id: self.shard.id,
                        lost,
                        resume_at: self.shard.sequence_number(resume_at),
                    });
                }
            };
            if batch.is_some() {
                self.floats = false;
            }
            return Ok(self.records(batch, now));
        }
        Ok(self.records(None, now))
    }

    fn records(&self, batch: Option<log::Batch<Stored<T>>>, now: Instant) -> Records<T> {
        let next = self.log.position();
        let log = &self.shard.log;
        let end = (log.is_closed() && next >= log.end()).then(|| self.shard.children());
        let last = batch.as_ref().and_then(|batch| {
            let last = batch.len().checked_sub(1)?;
            batch.get(last)
        });
        let behind = match last {
            Some((stored, _)) if next < log.end() => now - stored.arrived,
            _ => Duration::ZERO,
        };
        Records {
            shard: Arc::clone(&self.shard),
            batch,
            next,
            behind,
            end,
        }
    }
}

/// Partition keys and data.
fn bytes_of<T: Send + Sync + 'static>(records: &Records<T>) -> u64 {
    let sizes = records
        .iter()
        .map(|record| record.partition_key().len() + record.data().len());
    sizes.sum::<usize>() as u64
}

impl<T: Send + Sync + 'static> FuturesStream for Subscription<T> {
    type Item = Result<FanOutEvent<T>, SubscriptionError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let Poll::Ready(outcome) = self.poll(cx, Instant::NEVER) else {
            return Poll::Pending;
        };
        self.is_over = matches!(&outcome, Err(error) if error.is_final());
        Poll::Ready(match outcome {
            Err(SubscriptionError::Ended | SubscriptionError::Expired) => None,
            outcome => Some(outcome),
        })
    }
}

/// Nothing in it is pinned.
impl<T: Send + Sync + 'static> Unpin for Subscription<T> {}

impl<T: Send + Sync + 'static> Drop for Subscription<T> {
    fn drop(&mut self) {
        self.waiter.cancel(&self.inner.place.shard.arrivals);
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("shard_id", &self.shard_id())
            .field("position", &self.inner.place.log.position())
            .field("expires_at", &self.inner.until)
            .finish_non_exhaustive()
    }
}
