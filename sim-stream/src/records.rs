//! What a read brings: a run of records that are read where they stand.

use std::fmt;
use std::iter::FusedIterator;
use std::time::Duration;

use bytes::Bytes;
use sim_core::log::{Batch, Entry};
use sim_core::sync::Arc;
use sim_core::time::{Instant, Timestamp};

use crate::message::{ChildShard, SequenceNumber, ShardId};
use crate::stream::shared::{Shard, Stored};

/// A run of records of one shard, in order, and where the reader stands after them: `GetRecords`' answer.
///
/// The records are not copied: a run pins the chunk of the log in which they stand until it is dropped.
pub struct Records<T: Send + Sync + 'static> {
    pub(crate) shard: Arc<Shard<T>>,
    pub(crate) batch: Option<Batch<Stored<T>>>,
    /// What is read next.
    pub(crate) next: u64,
    pub(crate) behind: Duration,
    /// `Some` when the shard is closed and nothing of it is left to read.
    pub(crate) end: Option<Vec<ChildShard>>,
}

impl<T: Send + Sync + 'static> Records<T> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batch.as_ref().map_or(0, Batch::len)
    }

    /// Whether there is none: nothing at present, or [the end](Self::is_end).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The records, borrowed.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, T> {
        Iter {
            records: self,
            range: 0..self.len(),
        }
    }

    /// The record at `index`, borrowed.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<RecordRef<'_, T>> {
        let batch = self.batch.as_ref()?;
        let (stored, tail) = batch.get(index)?;
        Some(RecordRef {
            shard: &self.shard,
            position: batch.position() + index as u64,
            stored,
            tail,
        })
    }

    /// The record at `index`, as one that outlives this run: it pins the chunk in which it stands.
    #[must_use]
    pub fn to_owned_at(&self, index: usize) -> Option<StreamRecord<T>> {
        let entry = self.batch.as_ref()?.entry(index)?;
        Some(StreamRecord {
            shard: Arc::clone(&self.shard),
            entry,
        })
    }

    /// The shard.
    #[must_use]
    pub fn shard_id(&self) -> ShardId {
        self.shard.id
    }

    /// How far the reader is behind the newest record: zero at the tip, else the age of the last record of this run
    /// (`MillisBehindLatest`).
    #[must_use]
    pub const fn behind_latest(&self) -> Duration {
        self.behind
    }

    /// [`behind_latest`](Self::behind_latest) in milliseconds, rounded down.
    #[must_use]
    pub fn millis_behind_latest(&self) -> u64 {
        u64::try_from(self.behind.as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether the shard is closed and read to its end: no further read brings anything.
    #[must_use]
    pub const fn is_end(&self) -> bool {
        self.end.is_some()
    }

    /// The shards that go on where this one ended (`ChildShards`); empty before [the end](Self::is_end), and after it
    /// when the stream itself was closed.
    #[must_use]
    pub fn child_shards(&self) -> &[ChildShard] {
        self.end.as_deref().unwrap_or_default()
    }

    /// The position in the shard at which the reader goes on.
    #[must_use]
    pub const fn next_position(&self) -> u64 {
        self.next
    }

    /// The number of the last record, to go on after it.
    #[must_use]
    pub fn last_sequence_number(&self) -> Option<SequenceNumber> {
        let last = self.len().checked_sub(1)?;
        self.get(last).map(|record| record.sequence_number())
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Records<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("shard_id", &self.shard_id())
            .field("len", &self.len())
            .field("next_position", &self.next)
            .field("behind_latest", &self.behind)
            .field("is_end", &self.is_end())
            .finish_non_exhaustive()
    }
}

impl<'a, T: Send + Sync + 'static> IntoIterator for &'a Records<T> {
    type Item = RecordRef<'a, T>;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// Gives the records owned, each pinning its chunk.
impl<T: Send + Sync + 'static> IntoIterator for Records<T> {
    type Item = StreamRecord<T>;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        let range = 0..self.len();
        IntoIter {
            records: self,
            range,
        }
    }
}

/// The iterator of [`Records::iter`].
pub struct Iter<'a, T: Send + Sync + 'static> {
    records: &'a Records<T>,
    range: std::ops::Range<usize>,
}

impl<'a, T: Send + Sync + 'static> Iterator for Iter<'a, T> {
    type Item = RecordRef<'a, T>;

    #[inline]
    fn next(&mut self) -> Option<RecordRef<'a, T>> {
        self.records.get(self.range.next()?)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.range.size_hint()
    }
}

impl<'a, T: Send + Sync + 'static> DoubleEndedIterator for Iter<'a, T> {
    fn next_back(&mut self) -> Option<RecordRef<'a, T>> {
        self.records.get(self.range.next_back()?)
    }
}

impl<T: Send + Sync + 'static> ExactSizeIterator for Iter<'_, T> {}
impl<T: Send + Sync + 'static> FusedIterator for Iter<'_, T> {}

impl<T: Send + Sync + 'static> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter")
            .field("left", &self.range.len())
            .finish_non_exhaustive()
    }
}

/// The iterator of owned records: [`Records::into_iter`].
pub struct IntoIter<T: Send + Sync + 'static> {
    records: Records<T>,
    range: std::ops::Range<usize>,
}

impl<T: Send + Sync + 'static> Iterator for IntoIter<T> {
    type Item = StreamRecord<T>;

    fn next(&mut self) -> Option<StreamRecord<T>> {
        self.records.to_owned_at(self.range.next()?)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.range.size_hint()
    }
}

impl<T: Send + Sync + 'static> ExactSizeIterator for IntoIter<T> {}
impl<T: Send + Sync + 'static> FusedIterator for IntoIter<T> {}

impl<T: Send + Sync + 'static> fmt::Debug for IntoIter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntoIter")
            .field("left", &self.range.len())
            .finish_non_exhaustive()
    }
}

/// A record of a run, borrowed: no count is touched.
pub struct RecordRef<'a, T: Send + Sync + 'static> {
    shard: &'a Shard<T>,
    position: u64,
    stored: &'a Stored<T>,
    tail: &'a [u8],
}

impl<T: Send + Sync + 'static> Clone for RecordRef<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Send + Sync + 'static> Copy for RecordRef<'_, T> {}

impl<'a, T: Send + Sync + 'static> RecordRef<'a, T> {
    /// Its number.
    #[must_use]
    pub fn sequence_number(&self) -> SequenceNumber {
        self.shard.sequence_number(self.position)
    }

    /// Its position in the shard, counted from 0 without a gap.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The partition key; empty where the record has none.
    #[must_use]
    pub fn partition_key(&self) -> &'a str {
        self.stored.key(self.tail)
    }

    /// When it arrived, on the stream's clock.
    #[must_use]
    pub const fn arrived_at(&self) -> Instant {
        self.stored.arrived
    }

    /// When it arrived (`ApproximateArrivalTimestamp`).
    #[must_use]
    pub fn arrived(&self) -> Timestamp {
        self.shard.clock.timestamp(self.stored.arrived)
    }

    /// The value.
    #[must_use]
    pub const fn value(&self) -> &'a T {
        &self.stored.value
    }

    /// The bytes.
    #[must_use]
    pub fn data(&self) -> &'a [u8] {
        self.stored.data(self.tail)
    }
}

impl<T: Send + Sync + 'static + fmt::Debug> fmt::Debug for RecordRef<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordRef")
            .field("sequence_number", &self.sequence_number())
            .field("partition_key", &self.partition_key())
            .field("value", self.value())
            .field("data", &self.data().len())
            .finish_non_exhaustive()
    }
}

/// A record of a stream, owned: cheap to clone, sent to other threads as it likes, read where it stands in the log.
///
/// It pins its chunk: the memory of a chunk that was trimmed comes back when its last record is dropped.
pub struct StreamRecord<T: Send + Sync + 'static> {
    pub(crate) shard: Arc<Shard<T>>,
    pub(crate) entry: Entry<Stored<T>>,
}

impl<T: Send + Sync + 'static> StreamRecord<T> {
    /// The shard in which it stands.
    #[must_use]
    pub fn shard_id(&self) -> ShardId {
        self.shard.id
    }

    /// Its number.
    #[must_use]
    pub fn sequence_number(&self) -> SequenceNumber {
        self.shard.sequence_number(self.entry.position())
    }

    /// Its position in the shard, counted from 0 without a gap.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.entry.position()
    }

    /// The partition key; empty where the record has none.
    #[must_use]
    pub fn partition_key(&self) -> &str {
        self.entry.value().key(self.entry.tail())
    }

    /// When it arrived, on the stream's clock.
    #[must_use]
    pub fn arrived_at(&self) -> Instant {
        self.entry.value().arrived
    }

    /// When it arrived (`ApproximateArrivalTimestamp`).
    #[must_use]
    pub fn arrived(&self) -> Timestamp {
        self.shard.clock.timestamp(self.arrived_at())
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &T {
        &self.entry.value().value
    }

    /// The bytes.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.entry.value().data(self.entry.tail())
    }

    /// The bytes, shared with the log and not copied.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        let key = usize::from(self.entry.value().key_len);
        self.entry.tail_bytes().split_off(key)
    }
}

impl<T: Send + Sync + 'static> Clone for StreamRecord<T> {
    fn clone(&self) -> Self {
        Self {
            shard: Arc::clone(&self.shard),
            entry: self.entry.clone(),
        }
    }
}

impl<T: Send + Sync + 'static + fmt::Debug> fmt::Debug for StreamRecord<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamRecord")
            .field("sequence_number", &self.sequence_number())
            .field("partition_key", &self.partition_key())
            .field("value", self.value())
            .field("data", &self.data().len())
            .finish_non_exhaustive()
    }
}
