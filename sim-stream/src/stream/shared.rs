//! What all handles of a stream share: the shards, the table that routes to them, and who waits.
//!
//! # Ordering
//! A put appends to the log of its shard, whose commit is ordered before the loads of both events
//! ([`Log::append`](sim_core::log::Log::append)); a reader registers with one of them and then looks at the log again. So
//! it finds the record, or the put finds it. `trim_at`, `noted_*` and `held_*` are estimates that only decide when
//! somebody looks more closely: they are `Relaxed`, except that room which a put may wait for is given back by a
//! `SeqCst` read-modify-write before `space` is notified.

use std::sync::OnceLock;
use std::time::Duration;

use sim_core::clock::Clock;
use sim_core::counter::Counters;
use sim_core::event::Event;
use sim_core::log::Log;
use sim_core::snapshot::{Guard, Snapshot};
use sim_core::sync::atomic::{AtomicU64, Ordering};
use sim_core::sync::{Arc, CachePadded, Mutex};
use sim_core::time::Instant;

use crate::config::StreamConfig;
use crate::message::{ChildShard, HashKey, HashRange, Salt, SequenceNumber, ShardId};

/// One record in a log: the partition key and then the bytes stand in its tail.
pub(crate) struct Stored<T> {
    pub(crate) arrived: Instant,
    /// Bytes of the tail that are the key: a key has at most 256 characters of at most four bytes.
    pub(crate) key_len: u16,
    pub(crate) value: T,
}

impl<T> Stored<T> {
    pub(crate) fn key<'a>(&self, tail: &'a [u8]) -> &'a str {
        // It came from a `&str` of that length.
        let key = tail.get(..usize::from(self.key_len)).unwrap_or_default();
        std::str::from_utf8(key).unwrap_or_default()
    }

    pub(crate) fn data<'a>(&self, tail: &'a [u8]) -> &'a [u8] {
        tail.get(usize::from(self.key_len)..).unwrap_or_default()
    }
}

/// One shard: its log, who waits for it, and what it counts.
pub(crate) struct Shard<T: Send + Sync + 'static> {
    pub(crate) id: ShardId,
    pub(crate) range: HashRange,
    /// One after a split, two after a merge, none for a stream's first shards.
    pub(crate) parents: Vec<ShardId>,
    pub(crate) salt: Salt,
    pub(crate) clock: Clock,
    pub(crate) log: Log<Stored<T>>,
    /// Notified when a record was put, and when the shard is closed.
    pub(crate) arrivals: Event,
    /// Set before the log is closed by a reshard; stays empty when the stream itself is closed.
    children: OnceLock<Vec<ChildShard>>,
    /// Throughput limits, where there are any.
    pub(crate) limits: Option<Mutex<ShardLimits>>,
    /// No record's time is over before: looked at by each put and read.
    pub(crate) trim_at: AtomicU64,
    /// What of this shard is in `Shared::held_bytes` and `Shared::held_records`.
    noted_bytes: AtomicU64,
    noted_records: AtomicU64,
    pub(crate) counters: Counters<{ count::SHARD }>,
    /// Age of the last record of the latest read, in nanoseconds.
    pub(crate) iterator_age: AtomicU64,
}

impl<T: Send + Sync + 'static> Shard<T> {
    /// The number of the record at a position.
    pub(crate) fn sequence_number(&self, position: u64) -> SequenceNumber {
        SequenceNumber::new(self.id, self.salt, position)
    }

    /// The shards that go on where this one ended: complete once the log is closed.
    pub(crate) fn children(&self) -> Vec<ChildShard> {
        self.children.get().cloned().unwrap_or_default()
    }

    /// Names the children, which must be done before the log is closed.
    pub(crate) fn set_children(&self, children: Vec<ChildShard>) {
        // A shard ends once: later calls change nothing.
        let _ = self.children.set(children);
    }

    /// The record at a position, unless it is trimmed or not there yet.
    pub(crate) fn record(self: &Arc<Self>, position: u64) -> Option<StreamRecord<T>> {
        let entry = self.log.get(position)?;
        Some(StreamRecord {
            shard: Arc::clone(self),
            entry,
        })
    }
}

/// Which shard takes which hash keys, and all shards that are retained. Replaced whole; who loaded one keeps it.
pub(crate) struct Table<T: Send + Sync + 'static> {
    /// Grows with every table of a stream.
    pub(crate) version: u64,
    pub(crate) is_closed: bool,
    /// Where the open shards' ranges start, ascending: the first is 0.
    starts: Vec<HashKey>,
    /// The open shards, as `starts`.
    open: Vec<Arc<Shard<T>>>,
    /// Every shard that is retained, by id.
    pub(crate) all: Vec<Arc<Shard<T>>>,
}

impl<T: Send + Sync + 'static> Table<T> {
    /// `open` are those that take records.
    pub(crate) fn new(version: u64, mut open: Vec<Arc<Shard<T>>>, mut all: Vec<Arc<Shard<T>>>) -> Self {
        open.sort_by_key(|shard| shard.range.start);
        all.sort_by_key(|shard| shard.id);
        Self {
            version,
            is_closed: false,
            starts: open.iter().map(|shard| shard.range.start).collect(),
            open,
            all,
        }
    }

    /// The same shards, of which none takes records any more.
    pub(crate) fn closed(&self) -> Self {
        Self {
            version: self.version + 1,
            is_closed: true,
            starts: Vec::new(),
            open: Vec::new(),
            all: self.all.clone(),
        }
    }

    pub(crate) fn open(&self) -> &[Arc<Shard<T>>] {
        &self.open
    }

    /// The shard of a hash key, which is only asked for where there is a choice. `None` when the stream is closed.
    #[inline]
    pub(crate) fn route(&self, key: impl FnOnce() -> HashKey) -> Option<&Arc<Shard<T>>> {
        if let [only] = &*self.open {
            return Some(only);
        }
        let key = key();
        let behind = self.starts.partition_point(|start| *start <= key);
        self.open.get(behind.checked_sub(1)?)
    }

    pub(crate) fn shard(&self, id: ShardId) -> Option<&Arc<Shard<T>>> {
        let index = self.all.binary_search_by_key(&id, |shard| shard.id).ok()?;
        self.all.get(index)
    }
}
