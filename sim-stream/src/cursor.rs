//! Cursors: where a reader stands in one shard, and how it goes on.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream as FuturesStream;
use sim_core::log::{self, Batch};
use sim_core::sync::Arc;
use sim_core::time::Instant;
use sim_core::wait::{Attempt, Elapsed, Waiter, until, until_blocking};

use crate::error::{IteratorError, ReadError, WrongSequenceNumber};
use crate::message::{SequenceNumber, ShardId, StartingPosition};
use crate::records::{Records, StreamRecord};
use crate::stream::Stream;
use crate::stream::shared::{Shard, Shared, Stored, count};

/// How often a read follows a beginning that moves on before it has read anything.
const FOLLOWS: usize = 16;

/// How much one read takes at most.
///
/// ```
/// use sim_stream::Read;
///
/// let one = Read { max: 1, ..Read::default() };
/// assert_eq!(one.max_bytes, 10 * 1024 * 1024);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Read {
    /// Records: at least 1. Default: 10,000, the most of a `GetRecords`.
    pub max: usize,
    /// Bytes of keys, data and values; the first record is read whatever its size. Default: 10 MiB, the most of a
    /// `GetRecords`.
    pub max_bytes: usize,
}

impl Default for Read {
    fn default() -> Self {
        Self {
            max: 10_000,
            max_bytes: 10 * 1024 * 1024,
        }
    }
}

impl Read {
    /// At most so many records, and the default's bytes.
    #[must_use]
    pub fn at_most(max: usize) -> Self {
        Self {
            max,
            ..Self::default()
        }
    }
}

/// A reader's place in one shard: made by [`Stream::cursor`].
///
/// Readers do not disturb each other nor the writers; each record is read where it stands. A cursor is not an
/// iterator that expires: it may stand still as long as it likes, and if the records before it are trimmed in the
/// meantime, its next read says so ([`ReadError::Trimmed`]).
///
/// ```
/// use sim_stream::{PartitionKey, Read, Record, StartingPosition, Stream, StreamConfig};
///
/// let stream = Stream::new(StreamConfig::new("departures"))?;
/// let placed = stream.try_put(Record::new(PartitionKey::new("AA")?, "flight 1"))?;
///
/// let mut cursor = stream.cursor(placed.shard_id, StartingPosition::TrimHorizon)?;
/// let records = cursor.try_read(Read::default())?;
/// assert_eq!(records.iter().map(|record| *record.value()).collect::<Vec<_>>(), ["flight 1"]);
/// assert!(cursor.try_read(Read::default())?.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Cursor<T: Send + Sync + 'static> {
    stream: Stream<T>,
    pub(crate) shard: Arc<Shard<T>>,
    place: Place<T>,
}

/// The part of a cursor that a read changes.
struct Place<T: Send + Sync + 'static> {
    log: log::Cursor<Stored<T>>,
    /// It starts wherever the oldest record stands when it is first read: what is trimmed before is not lost to it.
    floats: bool,
}

impl<T: Send + Sync + 'static> Stream<T> {
    /// Makes a cursor that reads one shard from a position on.
    ///
    /// # Errors
    /// [`IteratorError`]: the shard is not there (any more), or the position is none of its own, lies in the future, or
    /// asks for a record that was trimmed.
    pub fn cursor(
        &self,
        shard: ShardId,
        start: StartingPosition,
    ) -> Result<Cursor<T>, IteratorError> {
        let shared = self.shared();
        // A shard whose retention is over leaves first.
        shared.serve(shared.clock.now());
        let shard = shared
            .shard(shard)
            .ok_or(IteratorError::UnknownShard { shard_id: shard })?;
        let (position, floats) = shared.position_of(&shard, start)?;
        Ok(self.cursor_at(shard, position, floats))
    }

    /// The record of a sequence number, or `None` when it is no number of this stream, or the record was trimmed.
    #[must_use]
    pub fn record(&self, sequence_number: SequenceNumber) -> Option<StreamRecord<T>> {
        let shared = self.shared();
        let shard = shared.shard(sequence_number.shard())?;
        let horizon = shared.horizon(&shard, shared.clock.recent());
        let position = assigned(&shard, sequence_number).ok()?;
        shard.record(position).filter(|_| position >= horizon)
    }

    /// A cursor at a position that is known to be good, or behind the times.
    pub(crate) fn cursor_at(&self, shard: Arc<Shard<T>>, position: u64, floats: bool) -> Cursor<T> {
        let log = shard.log.cursor(position);
        Cursor {
            stream: self.clone(),
            shard,
            place: Place { log, floats },
        }
    }
}

impl<T: Send + Sync + 'static> Shared<T> {
    /// Where a starting position lies in a shard, and whether it floats with the oldest record.
    pub(crate) fn position_of(
        &self,
        shard: &Shard<T>,
        start: StartingPosition,
    ) -> Result<(u64, bool), IteratorError> {
        let now = self.clock.now();
        let horizon = self.horizon(shard, now);
        match start {
            StartingPosition::TrimHorizon => Ok((horizon, true)),
            StartingPosition::Latest => Ok((shard.log.end(), false)),
            StartingPosition::AtSequenceNumber(number) => {
                let position = assigned(shard, number)?;
                if position < horizon {
                    return Err(IteratorError::Trimmed {
                        sequence_number: number,
                        oldest: shard.sequence_number(horizon),
                    });
                }
                Ok((position, false))
            }
            StartingPosition::AfterSequenceNumber(number) => {
                Ok((assigned(shard, number)? + 1, false))
            }
            StartingPosition::AtTimestamp(timestamp) => {
                let present = self.clock.timestamp(now);
                if timestamp > present {
                    return Err(IteratorError::FutureTimestamp {
                        timestamp,
                        now: present,
                    });
                }
                // Records carry the kernel's last tick, which lies up to the lag before the instant at which they
                // were put: a little early rather than a record too few.
                let lag = u64::try_from(self.clock.lag().as_nanos()).unwrap_or(u64::MAX);
                let instant = self.clock.instant_of(timestamp).as_nanos();
                let instant = Instant::from_nanos(instant.saturating_sub(lag));
                let position = shard
                    .log
                    .partition_point(|stored, _| stored.arrived < instant);
                Ok((position.max(horizon), position <= horizon))
            }
        }
    }
}

impl<T: Send + Sync + 'static> Cursor<T> {
    /// Reads what is there, or nothing, at once.
    ///
    /// A run never reaches over the end of a chunk of the log: it may be shorter than what is there, also where `read`
    /// would allow more. Nothing at present is an empty run; at the end of a closed shard [`Records::is_end`] is true,
    /// with the last records where there are some.
    ///
    /// # Errors
    /// [`ReadError`]. [`ReadError::Trimmed`] is said once: the cursor then stands at the oldest record that is
    /// still there.
    #[inline]
    pub fn try_read(&mut self, read: Read) -> Result<Records<T>, ReadError> {
        self.place
            .read(self.stream.shared(), &self.shard, read, Empty::Counts)
    }

    /// Reads, waiting for a record or the end of the shard.
    ///
    /// # Errors
    /// [`ReadError`], but never [`Elapsed`](ReadError::Elapsed) or a throttled read, for which it waits.
    ///
    /// # Cancel safety
    /// The cursor moves in the poll that returns the records: a future that is dropped before skips none.
    pub async fn read(&mut self, read: Read) -> Result<Records<T>, ReadError> {
        self.read_until(read, Instant::NEVER).await
    }

    /// Reads, waiting for a record or the end of the shard until a deadline.
    ///
    /// # Errors
    /// [`ReadError::Elapsed`] at the deadline, else as [`read`](Self::read).
    ///
    /// # Cancel safety
    /// The cursor moves in the poll that returns the records: a future that is dropped before skips none.
    pub async fn read_until(
        &mut self,
        read: Read,
        deadline: Instant,
    ) -> Result<Records<T>, ReadError> {
        let Self {
            stream,
            shard,
            place,
        } = self;
        let shared = stream.shared();
        until(&shard.arrivals, &shared.clock, deadline, || {
            place.attempt(shared, shard, read)
        })
        .await
        .unwrap_or_else(|Elapsed| Err(ReadError::Elapsed))
    }

    /// Reads, blocking the thread until there is a record or the shard ends.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_blocking(&mut self, read: Read) -> Result<Records<T>, ReadError> {
        self.read_blocking_until(read, Instant::NEVER)
    }

    /// Reads, blocking the thread until there is a record, the shard ends, or the deadline comes.
    ///
    /// # Errors
    /// As [`read_until`](Self::read_until).
    pub fn read_blocking_until(
        &mut self,
        read: Read,
        deadline: Instant,
    ) -> Result<Records<T>, ReadError> {
        let Self {
            stream,
            shard,
            place,
        } = self;
        let shared = stream.shared();
        until_blocking(&shard.arrivals, &shared.clock, deadline, || {
            place.attempt(shared, shard, read)
        })
        .unwrap_or_else(|Elapsed| Err(ReadError::Elapsed))
    }

    /// The runs of records as a `futures` stream, which ends at the end of the shard.
    ///
    /// [`ReadError::Trimmed`] is an item like others, and the stream goes on behind the gap.
    #[must_use]
    pub fn into_stream(self, read: Read) -> CursorStream<T> {
        CursorStream {
            cursor: self,
            read,
            waiter: Waiter::new(),
            is_over: false,
        }
    }

    /// The shard.
    #[must_use]
    pub fn shard_id(&self) -> ShardId {
        self.shard.id
    }

    /// The position of the next record to read, counted from the shard's first.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.place.log.position()
    }

    /// Goes to another place of the same shard.
    ///
    /// # Errors
    /// As [`Stream::cursor`]; the cursor then stays where it is.
    pub fn seek(&mut self, start: StartingPosition) -> Result<(), IteratorError> {
        let (position, floats) = self.stream.shared().position_of(&self.shard, start)?;
        self.place.log.seek(position);
        self.place.floats = floats;
        Ok(())
    }

    /// The stream that it reads.
    #[must_use]
    pub const fn stream(&self) -> &Stream<T> {
        &self.stream
    }

    /// As [`try_read`](Self::try_read), where a read that finds nothing is not counted.
    pub(crate) fn peek(&mut self, read: Read) -> Result<Records<T>, ReadError> {
        self.place
            .read(self.stream.shared(), &self.shard, read, Empty::IsFree)
    }

    /// Whether a read from the oldest record on would still follow it.
    pub(crate) fn floats(&self) -> bool {
        self.place.floats
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Cursor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor")
            .field("shard_id", &self.shard_id())
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> Place<T> {
    /// One try of a read that waits.
    fn attempt(
        &mut self,
        shared: &Shared<T>,
        shard: &Arc<Shard<T>>,
        read: Read,
    ) -> Attempt<Result<Records<T>, ReadError>> {
        match self.read(shared, shard, read, Empty::IsFree) {
            Ok(records) if records.is_empty() && !records.is_end() => Attempt::Pending {
                wake_at: Instant::NEVER,
            },
            Err(ReadError::Throttled { retry_at, .. }) if !retry_at.is_never() => {
                Attempt::Pending {
                    wake_at: shared.seen_at(retry_at),
                }
            }
            // Whoever was held up by a limit of the shard may find it open now.
            value => Attempt::Done {
                value,
                more: shard.limits.is_some(),
            },
        }
    }

    fn read(
        &mut self,
        shared: &Shared<T>,
        shard: &Arc<Shard<T>>,
        read: Read,
        empty: Empty,
    ) -> Result<Records<T>, ReadError> {
        Shard::<T>::check_read(read, &shared.config.limits)?;
        let now = shared.clock.recent();
        let horizon = shared.horizon(shard, now);
        if empty == Empty::Counts {
            shard.counters.add(count::READS, 1);
            shard.throttle_read(now)?;
        }
        let before = self.log.position();
        let batch = self.find(shard, read, horizon)?;
        if empty == Empty::IsFree && batch.is_some() {
            shard.counters.add(count::READS, 1);
            if let Err(error) = shard.throttle_read(now) {
                self.log.seek(before);
                return Err(error);
            }
        }
        Ok(self.finish(shard, now, batch))
    }

    /// The next run of records.
    fn find(
        &mut self,
        shard: &Shard<T>,
        read: Read,
        horizon: u64,
    ) -> Result<Option<Batch<Stored<T>>>, ReadError> {
        for _ in 0..FOLLOWS {
            let position = self.log.position();
            let found = if position < horizon {
                // As if it were trimmed already.
                self.log.seek(horizon);
                log::Read::Trimmed { resume_at: horizon }
            } else {
                self.log.batch(read.max, read.max_bytes)
            };
            match found {
                log::Read::Record(batch) => return Ok(Some(batch)),
                log::Read::Pending | log::Read::End => return Ok(None),
                log::Read::Trimmed { .. } if self.floats => {}
                log::Read::Trimmed { resume_at } => {
                    shard.counters.add(count::READS_TRIMMED, 1);
                    return Err(ReadError::Trimmed {
                        lost: resume_at - position,
                        resume_at: shard.sequence_number(resume_at),
                    });
                }
            }
        }
        // It is trimmed faster than it is read: nothing this time, and the caller comes again.
        Ok(None)
    }

    fn finish(
        &mut self,
        shard: &Arc<Shard<T>>,
        now: Instant,
        batch: Option<Batch<Stored<T>>>,
    ) -> Records<T> {
        let next = self.log.position();
        let end = (shard.log.is_closed() && next >= shard.log.end()).then(|| shard.children());
        let mut behind = Duration::ZERO;
        if let Some(batch) = &batch {
            self.floats = false;
            if next < shard.log.end()
                && let Some((_, last, _)) = batch.iter().next_back()
            {
                behind = now - last.arrived;
            }
            shard.end_read(now, batch, behind);
        }
        Records {
            shard: Arc::clone(shard),
            batch,
            next,
            behind,
            end,
        }
    }
}

/// What a read that finds nothing costs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Empty {
    /// It is counted, and uses up the shard's reads, as a `GetRecords` does.
    Counts,
    /// Nothing: one that waits looks as often as it is woken.
    IsFree,
}

/// The stream of [`Cursor::into_stream`].
pub struct CursorStream<T: Send + Sync + 'static> {
    cursor: Cursor<T>,
    read: Read,
    waiter: Waiter,
    is_over: bool,
}

impl<T: Send + Sync + 'static> CursorStream<T> {
    /// The cursor, as it stands: behind the last run that was yielded.
    #[must_use]
    pub const fn cursor(&self) -> &Cursor<T> {
        &self.cursor
    }
}

impl<T: Send + Sync + 'static> FuturesStream for CursorStream<T> {
    type Item = Result<Records<T>, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self {
            cursor,
            read,
            waiter,
            is_over,
        } = &mut *self;
        if *is_over {
            return Poll::Ready(None);
        }
        let Cursor {
            stream,
            shard,
            place,
        } = cursor;
        let shared = stream.shared();
        let polled = waiter.poll_until(
            cx,
            &shard.arrivals,
            &shared.clock,
            Instant::NEVER,
            &mut || place.attempt(shared, shard, *read),
        );
        let Poll::Ready(outcome) = polled else {
            return Poll::Pending;
        };
        // There is no deadline that could pass.
        let outcome = outcome.unwrap_or_else(|Elapsed| Err(ReadError::Elapsed));
        match &outcome {
            Ok(records) => {
                *is_over = records.is_end();
                if records.is_end() && records.is_empty() {
                    return Poll::Ready(None);
                }
            }
            Err(ReadError::Trimmed { .. }) => {}
            Err(_) => *is_over = true,
        }
        Poll::Ready(Some(outcome))
    }
}

impl<T: Send + Sync + 'static> Drop for CursorStream<T> {
    fn drop(&mut self) {
        self.waiter.cancel(&self.cursor.shard.arrivals);
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for CursorStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CursorStream")
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

/// The position of a number that this shard has given.
pub(crate) fn assigned<T: Send + Sync + 'static>(
    shard: &Shard<T>,
    sequence_number: SequenceNumber,
) -> Result<u64, WrongSequenceNumber> {
    let position = sequence_number.position_in(shard.id, shard.salt)?;
    if position < shard.log.end() {
        Ok(position)
    } else {
        Err(WrongSequenceNumber::Ahead { sequence_number })
    }
}
