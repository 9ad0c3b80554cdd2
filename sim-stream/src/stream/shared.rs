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
use sim_core::log::{Batch, Log, Pool};
use sim_core::snapshot::{Guard, Snapshot};
use sim_core::sync::atomic::{AtomicU64, Ordering};
use sim_core::sync::{Arc, CachePadded, Mutex};
use sim_core::time::Instant;

use super::reshard::Control;
use super::traffic::Traffic;
use crate::config::{Limits, StreamConfig};
use crate::cursor::Read;
use crate::error::ReadError;
use crate::fan_out::Registry;
use crate::machine::limits::{Exceeded, ShardLimits};
use crate::machine::shards::{self, Routes};
use crate::message::{ChildShard, HashKey, HashRange, Salt, SequenceNumber, ShardId};
use crate::queue::Followers;
use crate::records::StreamRecord;
use crate::token::Tokens;

/// What is counted, by index.
pub(crate) mod count {
    /// Of a shard: bytes put, by single puts and batches.
    pub(crate) const IN_BYTES: usize = 0;
    pub(crate) const OUT_BYTES: usize = 1;
    pub(crate) const OUT_RECORDS: usize = 2;
    pub(crate) const READS: usize = 3;
    pub(crate) const READS_TRIMMED: usize = 4;
    pub(crate) const READ_THROTTLED: usize = 5;
    pub(crate) const WRITE_THROTTLED: usize = 6;
    pub(crate) const EXPIRED: usize = 7;
    pub(crate) const EVICTED: usize = 8;
    pub(crate) const SHARD: usize = 9;

    /// Of a stream: puts refused, single ones and those of batches.
    pub(crate) const REFUSED: usize = 0;
    pub(crate) const REFUSED_FULL: usize = 1;
    pub(crate) const BATCHES: usize = 2;
    pub(crate) const BATCHES_TAKEN: usize = 3;
    pub(crate) const BATCH_RECORDS: usize = 4;
    pub(crate) const BATCH_TAKEN: usize = 5;
    pub(crate) const BATCH_FAILED: usize = 6;
    pub(crate) const BATCH_THROTTLED: usize = 7;
    pub(crate) const BATCH_BYTES: usize = 8;
    pub(crate) const FAN_SUBSCRIPTIONS: usize = 9;
    pub(crate) const FAN_RATE_EXCEEDED: usize = 10;
    pub(crate) const FAN_EVENTS: usize = 11;
    pub(crate) const FAN_RECORDS: usize = 12;
    pub(crate) const FAN_BYTES: usize = 13;
    /// Puts refused because the whole on-demand stream had taken its share.
    pub(crate) const STREAM_THROTTLED: usize = 14;
    pub(crate) const STREAM: usize = 15;
}

/// What stands behind every handle of one stream.
pub(crate) struct Shared<T: Send + Sync + 'static> {
    pub(crate) config: StreamConfig,
    pub(crate) clock: Clock,
    pub(crate) salt: Salt,
    pub(crate) tokens: Tokens,
    /// Tells the size of a value, where somebody cares.
    pub(crate) size: Option<fn(&T) -> usize>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) table: Snapshot<Table<T>>,
    /// The lineage, and what else changes seldom. Whoever closes logs holds it until the new table stands.
    pub(crate) control: Mutex<Control>,
    /// What on-demand mode goes by.
    pub(crate) traffic: Mutex<Traffic>,
    /// Notified when a record was put into any shard, when the table changed, and when the stream is closed: all its
    /// waiters are, each time.
    pub(crate) arrivals: Event,
    /// The queues on the stream, which are told of the same.
    pub(crate) followers: Followers,
    /// Notified when there may be room, and when the stream is closed.
    pub(crate) space: Event,
    /// Whether puts are refused when the stream is full: then its bounds are looked at for each.
    pub(crate) refuses_when_full: bool,
    /// A put whose position has none of these bits looks after the stream.
    pub(crate) note_mask: u64,
    /// Nanoseconds.
    pub(crate) retention: AtomicU64,
    pub(crate) max_record_bytes: AtomicU64,
    /// When the lineage or on-demand mode has something to do, in nanoseconds.
    pub(crate) due: AtomicU64,
    /// Sums of what shards have noted; each lags by what was put since the last note of a shard.
    pub(crate) held_bytes: AtomicU64,
    pub(crate) held_records: AtomicU64,
    /// Held by who trims, and never waited for: values are dropped under it.
    pub(crate) trimming: Mutex<()>,
    /// Whose turn it is when the stream distributes by itself.
    pub(crate) turn: CachePadded<AtomicU64>,
    pub(crate) counters: Counters<{ count::STREAM }>,
    /// The registered consumers.
    pub(crate) fan_out: Registry,
    /// How far behind the latest push to a registered consumer was, in nanoseconds.
    pub(crate) fan_out_behind: AtomicU64,
}

impl<T: Send + Sync + 'static> Shared<T> {
    /// Tells everybody who waits for any shard, and the queues.
    #[inline]
    pub(crate) fn tell_all(&self) {
        self.arrivals.notify_all();
        self.followers.notify();
    }

    /// The shards as they are now.
    pub(crate) fn table(&self) -> Guard<Table<T>> {
        self.table.load()
    }

    /// A shard that is retained, open or closed.
    pub(crate) fn shard(&self, id: ShardId) -> Option<Arc<Shard<T>>> {
        if let Some(shard) = self.table.load().shard(id) {
            return Some(Arc::clone(shard));
        }
        // A reader that met the end of a parent may be ahead of the table that brings the child.
        drop(self.control.lock());
        self.table.load().shard(id).map(Arc::clone)
    }

    /// When what happens at an instant is seen by those who read the clock's last tick: whoever wakes at the instant itself
    /// would find nothing changed, and try again in vain until the tick comes.
    pub(crate) fn seen_at(&self, instant: Instant) -> Instant {
        instant + self.clock.lag()
    }

    /// Notes how far behind a push to a registered consumer is.
    pub(crate) fn note_push(&self, behind: Duration) {
        self.fan_out_behind.store(nanos(behind), Ordering::Relaxed);
    }

    /// The present retention.
    pub(crate) fn retention(&self) -> Duration {
        Duration::from_nanos(self.retention.load(Ordering::Relaxed))
    }
}

/// One record in a log: the partition key and then the bytes stand in its tail.
pub(crate) struct Stored<T> {
    pub(crate) arrived: Instant,
    /// Bytes of the tail that are the key.
    pub(crate) key_len: u16,
    pub(crate) value: T,
}

impl<T> Stored<T> {
    #[inline]
    pub(crate) fn new(arrived: Instant, key: &str, value: T) -> Self {
        // A key has at most 256 characters of at most four bytes.
        let key_len = u16::try_from(key.len()).unwrap_or(u16::MAX);
        Self {
            arrived,
            key_len,
            value,
        }
    }

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
    /// Nothing is trimmed before: looked at by each put and read.
    pub(crate) trim_at: AtomicU64,
    /// The oldest record's time is over then, or later: at most `trim_at`, which leaves some time between two trims.
    pub(crate) over_at: AtomicU64,
    /// What of this shard is in `Shared::held_bytes` and `Shared::held_records`.
    pub(crate) noted_bytes: AtomicU64,
    pub(crate) noted_records: AtomicU64,
    /// What of this shard on-demand mode has been told.
    pub(crate) observed_bytes: AtomicU64,
    pub(crate) observed_records: AtomicU64,
    pub(crate) counters: Counters<{ count::SHARD }>,
    /// Age of the last record of the latest read, in nanoseconds.
    pub(crate) iterator_age: AtomicU64,
}

impl<T: Send + Sync + 'static> Shard<T> {
    pub(crate) fn new(
        lineage: &shards::Shard,
        config: &StreamConfig,
        clock: &Clock,
        salt: Salt,
        pool: &Arc<Pool>,
    ) -> Arc<Self> {
        let throughput = config.limits.throughput.as_ref();
        Arc::new(Self {
            id: lineage.id,
            range: lineage.range,
            parents: lineage.parents().collect(),
            salt,
            clock: clock.clone(),
            log: Log::new(Arc::clone(pool)),
            arrivals: Event::new(),
            children: OnceLock::new(),
            limits: throughput.map(|limits| Mutex::new(ShardLimits::new(clock.recent(), limits))),
            // The first put sets it.
            trim_at: AtomicU64::new(0),
            over_at: AtomicU64::new(0),
            noted_bytes: AtomicU64::new(0),
            noted_records: AtomicU64::new(0),
            observed_bytes: AtomicU64::new(0),
            observed_records: AtomicU64::new(0),
            counters: Counters::new(),
            iterator_age: AtomicU64::new(0),
        })
    }

    /// The number of the record at a position.
    pub(crate) fn sequence_number(&self, position: u64) -> SequenceNumber {
        SequenceNumber::new(self.id, self.salt, position)
    }

    /// The shards that go on where this one ended: complete once the log is closed.
    pub(crate) fn children(&self) -> Vec<ChildShard> {
        self.children.get().cloned().unwrap_or_default()
    }

    /// When the oldest record that is there arrived.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let oldest = self.log.get(self.log.start())?;
        Some(oldest.value().arrived)
    }

    /// How many records are there.
    pub(crate) fn len(&self) -> u64 {
        self.log.end().saturating_sub(self.log.start())
    }

    /// Checks what a read asks for.
    #[inline]
    pub(crate) fn check_read(read: Read, limits: &Limits) -> Result<(), ReadError> {
        for (field, value, limit) in [
            ("max", read.max, limits.read_records),
            ("max_bytes", read.max_bytes, limits.read_bytes),
        ] {
            if value == 0 || value > limit {
                return Err(ReadError::Limit {
                    field,
                    value,
                    limit,
                });
            }
        }
        Ok(())
    }

    /// Holds a read against the limits of the shard.
    #[inline]
    pub(crate) fn throttle_read(&self, now: Instant) -> Result<(), ReadError> {
        let Some(limits) = &self.limits else {
            return Ok(());
        };
        let passed = limits.lock().read(now);
        let Err(Exceeded {
            resource, retry_at, ..
        }) = passed
        else {
            return Ok(());
        };
        self.counters.add(count::READ_THROTTLED, 1);
        Err(ReadError::Throttled {
            shard_id: self.id,
            resource,
            retry_at,
        })
    }

    /// Counts what a read brings; `age` is that of its last record, zero at the tip.
    pub(crate) fn end_read(&self, now: Instant, batch: &Batch<Stored<T>>, age: Duration) {
        let bytes: usize = batch.iter().map(|(_, _, tail)| tail.len()).sum();
        self.counters.add(count::OUT_RECORDS, batch.len() as u64);
        self.counters.add(count::OUT_BYTES, bytes as u64);
        self.iterator_age.store(nanos(age), Ordering::Relaxed);
        if let Some(limits) = &self.limits {
            limits.lock().answered(now, bytes as u64);
        }
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
    /// Whether the stream is on-demand: then the traffic is watched.
    pub(crate) is_on_demand: bool,
    /// `None` when the stream is closed.
    routes: Option<Routes<Arc<Shard<T>>>>,
    /// Every shard that is retained, by id.
    pub(crate) all: Vec<Arc<Shard<T>>>,
}

impl<T: Send + Sync + 'static> Table<T> {
    /// `all` are in the order of their ids.
    pub(crate) const fn new(
        version: u64,
        is_on_demand: bool,
        routes: Option<Routes<Arc<Shard<T>>>>,
        all: Vec<Arc<Shard<T>>>,
    ) -> Self {
        Self {
            version,
            is_on_demand,
            routes,
            all,
        }
    }

    /// Whether the stream is closed.
    pub(crate) const fn is_closed(&self) -> bool {
        self.routes.is_none()
    }

    /// The shards that take records, in the order of their hash keys.
    pub(crate) fn open(&self) -> &[Arc<Shard<T>>] {
        self.routes.as_ref().map_or(&[], Routes::shards)
    }

    /// The shard of a hash key, which is only asked for where there is a choice. `None` when the stream is closed.
    #[inline]
    pub(crate) fn route(&self, key: impl FnOnce() -> HashKey) -> Option<&Arc<Shard<T>>> {
        let routes = self.routes.as_ref()?;
        match routes.shards() {
            [only] => Some(only),
            _ => Some(routes.route(key())),
        }
    }

    pub(crate) fn shard(&self, id: ShardId) -> Option<&Arc<Shard<T>>> {
        let index = self.all.binary_search_by_key(&id, |shard| shard.id).ok()?;
        self.all.get(index)
    }
}

/// A duration in nanoseconds, at most 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
