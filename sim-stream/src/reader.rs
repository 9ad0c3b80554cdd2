//! A reader of a whole stream: all shards, parents before children.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream as FuturesStream;
use sim_core::sync::Arc;
use sim_core::time::Instant;
use sim_core::wait::{Attempt, Elapsed, Waiter, until, until_blocking};

use crate::cursor::{Cursor, Read};
use crate::error::{IteratorError, ReadError};
use crate::message::{ShardId, StartingPosition};
use crate::records::Records;
use crate::stream::Stream;
use crate::stream::shared::{Shard, Table};

/// Reads a whole stream, and follows it through splits and merges: made by [`Stream::reader`].
///
/// A shard is read after its parents are read to their end, so the records of a key come in the order in which they were
/// put. Shards that do not descend from each other take turns.
///
/// Memory: a cursor for each shard that is being read, and the ids of retained shards that are done.
///
/// ```
/// use sim_stream::{PartitionKey, Read, Record, StartingPosition, Stream, StreamConfig};
///
/// let stream = Stream::new(StreamConfig::new("orders"))?;
/// let key = PartitionKey::new("customer-12")?;
/// let placed = stream.try_put(Record::new(key.clone(), 1))?;
/// stream.split_evenly(placed.shard_id)?;
/// stream.try_put(Record::new(key, 2))?;
///
/// let mut reader = stream.reader(StartingPosition::TrimHorizon)?;
/// let mut values = Vec::new();
/// while let Some(records) = reader.try_read(Read::default())? {
///     values.extend(records.iter().map(|record| *record.value()));
/// }
/// assert_eq!(values, [1, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reader<T: Send + Sync + 'static> {
    stream: Stream<T>,
    /// The shards that are being read; the front one has its turn.
    active: VecDeque<Cursor<T>>,
    /// Shards that are done, or that the start leaves out. Only those that are retained.
    done: BTreeSet<ShardId>,
    /// Shards that left the stream before they were read: each is to be told once.
    gaps: VecDeque<ShardId>,
    /// Where its shards start.
    start: StartingPosition,
    /// The table that it has seen.
    version: Option<u64>,
}

impl<T: Send + Sync + 'static> Stream<T> {
    /// Makes a reader of the whole stream: from its oldest records, behind its newest, or from a point in time.
    ///
    /// # Errors
    /// [`IteratorError`]: the point in time lies in the future; or the position is a sequence number, which stands in one
    /// shard alone.
    pub fn reader(&self, start: StartingPosition) -> Result<Reader<T>, IteratorError> {
        let shared = self.shared();
        shared.serve(shared.clock.now());
        match start {
            StartingPosition::AtTimestamp(timestamp) => {
                let now = shared.clock.timestamp(shared.clock.now());
                if timestamp > now {
                    return Err(IteratorError::FutureTimestamp { timestamp, now });
                }
            }
            StartingPosition::AtSequenceNumber(sequence_number)
            | StartingPosition::AfterSequenceNumber(sequence_number) => {
                return Err(IteratorError::OneShard { sequence_number });
            }
            StartingPosition::TrimHorizon | StartingPosition::Latest => {}
        }
        let mut reader = Reader {
            stream: self.clone(),
            active: VecDeque::new(),
            done: BTreeSet::new(),
            gaps: VecDeque::new(),
            start,
            version: None,
        };
        let table = shared.table().into_arc();
        if start == StartingPosition::Latest {
            let open: BTreeSet<ShardId> = table.open().iter().map(|shard| shard.id).collect();
            let closed = table.all.iter().map(|shard| shard.id);
            reader.done = closed.filter(|id| !open.contains(id)).collect();
        }
        reader.follow(Some(&table))?;
        Ok(reader)
    }
}

impl<T: Send + Sync + 'static> Reader<T> {
    /// Reads a run of records of one shard, or `None` when there is nothing at present.
    ///
    /// # Errors
    /// [`ReadError`]. [`ReadError::Trimmed`] and [`ReadError::UnknownShard`] tell of a gap, are said once for it, and the
    /// reader goes on behind it. [`ReadError::Closed`]: the stream was closed, and everything was read.
    pub fn try_read(&mut self, read: Read) -> Result<Option<Records<T>>, ReadError> {
        let mut throttled = None;
        loop {
            self.follow(None)?;
            if let Some(shard_id) = self.gaps.pop_front() {
                return Err(ReadError::UnknownShard { shard_id });
            }
            let Some(turns) = self.active.len().checked_sub(1) else {
                return Err(ReadError::Closed);
            };
            let mut ended = false;
            for _ in 0..=turns {
                let Some(cursor) = self.active.front_mut() else {
                    break;
                };
                let records = match cursor.peek(read) {
                    Ok(records) => records,
                    Err(error @ ReadError::Throttled { .. }) => {
                        throttled = sooner(throttled, error);
                        self.active.rotate_left(1);
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                if records.is_end() {
                    self.finish();
                    ended = true;
                } else {
                    self.active.rotate_left(1);
                }
                if !records.is_empty() {
                    return Ok(Some(records));
                }
            }
            // What ended may have children to read.
            if !ended {
                return throttled.map_or(Ok(None), Err);
            }
        }
    }

    /// Reads a run of records, waiting for one.
    ///
    /// # Errors
    /// As [`try_read`](Self::try_read), but it waits for what is throttled.
    ///
    /// # Cancel safety
    /// The reader moves in the poll that returns the records: a future that is dropped before skips none.
    pub async fn read(&mut self, read: Read) -> Result<Records<T>, ReadError> {
        self.read_until(read, Instant::NEVER).await
    }

    /// Reads a run of records, waiting for one until a deadline.
    ///
    /// # Errors
    /// [`ReadError::Elapsed`] at the deadline, else as [`read`](Self::read).
    ///
    /// # Cancel safety
    /// The reader moves in the poll that returns the records: a future that is dropped before skips none.
    pub async fn read_until(
        &mut self,
        read: Read,
        deadline: Instant,
    ) -> Result<Records<T>, ReadError> {
        let stream = self.stream.clone();
        let shared = stream.shared();
        until(&shared.arrivals, &shared.clock, deadline, || {
            self.attempt(read)
        })
        .await
        .unwrap_or_else(|Elapsed| Err(ReadError::Elapsed))
    }

    /// Reads a run of records, blocking the thread until there is one.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_blocking(&mut self, read: Read) -> Result<Records<T>, ReadError> {
        self.read_blocking_until(read, Instant::NEVER)
    }

    /// Reads a run of records, blocking the thread until there is one or the deadline comes.
    ///
    /// # Errors
    /// As [`read_until`](Self::read_until).
    pub fn read_blocking_until(
        &mut self,
        read: Read,
        deadline: Instant,
    ) -> Result<Records<T>, ReadError> {
        let stream = self.stream.clone();
        let shared = stream.shared();
        until_blocking(&shared.arrivals, &shared.clock, deadline, || {
            self.attempt(read)
        })
        .unwrap_or_else(|Elapsed| Err(ReadError::Elapsed))
    }

    /// The runs of records as a `futures` stream, which ends when the stream was closed and everything was read.
    ///
    /// Errors that tell of a gap are items like others, and the stream goes on behind it.
    #[must_use]
    pub fn into_stream(self, read: Read) -> ReaderStream<T> {
        ReaderStream {
            stream: self.stream.clone(),
            reader: self,
            read,
            waiter: Waiter::new(),
            is_over: false,
        }
    }

    /// The shards that are being read.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.active.iter().map(Cursor::shard_id)
    }

    fn attempt(&mut self, read: Read) -> Attempt<Result<Records<T>, ReadError>> {
        let value = match self.try_read(read) {
            Ok(Some(records)) => Ok(records),
            Ok(None) => {
                return Attempt::Pending {
                    wake_at: Instant::NEVER,
                };
            }
            Err(ReadError::Throttled { retry_at, .. }) if !retry_at.is_never() => {
                return Attempt::Pending {
                    wake_at: self.stream.shared().seen_at(retry_at),
                };
            }
            Err(error) => Err(error),
        };
        // Each waiter of the stream is notified of each change; a limit may let several pass.
        let more = self.stream.config().limits.throughput.is_some();
        Attempt::Done { value, more }
    }

    /// The front shard is done. Its children are taken up at once: one that is held is read, however long it takes until
    /// the next read, and what has left it is counted.
    fn finish(&mut self) {
        let Some(cursor) = self.active.pop_front() else {
            return;
        };
        self.done.insert(cursor.shard_id());
        let shared = self.stream.shared();
        for child in cursor.shard.children() {
            let is_next = |parent| self.active.iter().all(|other| other.shard_id() != parent);
            if child.parents.iter().copied().all(is_next) && shared.shard(child.id).is_none() {
                self.gaps.push_back(child.id);
            }
        }
        self.version = None;
        // What fails here fails again at the next read, and is said there.
        let _ = self.follow(None);
    }

    /// Takes up the shards whose parents are done, when the table has changed or a shard is done. `first` is the table at
    /// the start.
    fn follow(&mut self, first: Option<&Arc<Table<T>>>) -> Result<(), IteratorError> {
        let table = match first {
            Some(table) => Arc::clone(table),
            None => self.stream.shared().table().into_arc(),
        };
        if self.version == Some(table.version) {
            return Ok(());
        }
        let mut reading: BTreeSet<ShardId> = self.active.iter().map(Cursor::shard_id).collect();
        // A shard that has left is still being read, to its end. Shards between it and those in the table may have left
        // too: what descends from them waits, so that the gap is told first.
        let is_behind = reading.iter().any(|id| table.shard(*id).is_none());
        for shard in &table.all {
            let is_known = self.done.contains(&shard.id) || reading.contains(&shard.id);
            let waits = |parent: &ShardId| match table.shard(*parent) {
                Some(_) => !self.done.contains(parent),
                None => is_behind,
            };
            if is_known || shard.parents.iter().any(waits) {
                continue;
            }
            let cursor = self.begin(shard, first.is_some())?;
            self.active.push_back(cursor);
            reading.insert(shard.id);
        }
        self.done.retain(|id| table.shard(*id).is_some());
        self.version = Some(table.version);
        Ok(())
    }

    /// A cursor at the start of a shard. What is trimmed from a shard that the reader takes up later is lost to it, and it
    /// is told so.
    fn begin(&self, shard: &Arc<Shard<T>>, is_first: bool) -> Result<Cursor<T>, IteratorError> {
        let shared = self.stream.shared();
        let (position, floats) = match self.start {
            StartingPosition::AtTimestamp(_) => {
                let (position, floats) = shared.position_of(shard, self.start)?;
                if floats && !is_first {
                    (0, false)
                } else {
                    (position, floats)
                }
            }
            _ if is_first => shared.position_of(shard, self.start)?,
            _ => (0, false),
        };
        Ok(self.stream.cursor_at(Arc::clone(shard), position, floats))
    }
}

/// The throttled read that can be tried again first.
fn sooner(one: Option<ReadError>, other: ReadError) -> Option<ReadError> {
    let at = |error: &ReadError| match error {
        ReadError::Throttled { retry_at, .. } => *retry_at,
        _ => Instant::NEVER,
    };
    match one {
        Some(one) if at(&one) <= at(&other) => Some(one),
        _ => Some(other),
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

/// The stream of [`Reader::into_stream`].
pub struct ReaderStream<T: Send + Sync + 'static> {
    stream: Stream<T>,
    reader: Reader<T>,
    read: Read,
    waiter: Waiter,
    is_over: bool,
}

impl<T: Send + Sync + 'static> FuturesStream for ReaderStream<T> {
    type Item = Result<Records<T>, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self {
            stream,
            reader,
            read,
            waiter,
            is_over,
        } = &mut *self;
        if *is_over {
            return Poll::Ready(None);
        }
        let shared = stream.shared();
        let polled = waiter.poll_until(
            cx,
            &shared.arrivals,
            &shared.clock,
            Instant::NEVER,
            &mut || reader.attempt(*read),
        );
        let Poll::Ready(outcome) = polled else {
            return Poll::Pending;
        };
        // There is no deadline that could pass.
        let outcome = outcome.unwrap_or_else(|Elapsed| Err(ReadError::Elapsed));
        match &outcome {
            Err(ReadError::Closed) => {
                *is_over = true;
                return Poll::Ready(None);
            }
            Ok(_) | Err(ReadError::Trimmed { .. } | ReadError::UnknownShard { .. }) => {}
            Err(_) => *is_over = true,
        }
        Poll::Ready(Some(outcome))
    }
}

impl<T: Send + Sync + 'static> Drop for ReaderStream<T> {
    fn drop(&mut self) {
        self.waiter.cancel(&self.stream.shared().arrivals);
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for ReaderStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReaderStream")
            .field("reader", &self.reader)
            .finish_non_exhaustive()
    }
}
