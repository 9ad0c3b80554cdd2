//! The handle: puts, cursors, shards, statistics.

mod batch;
mod due;
pub(crate) mod put;
pub(crate) mod reshard;
pub(crate) mod retention;
pub(crate) mod shared;
pub(crate) mod traffic;
pub(crate) mod waiting;

use std::fmt;
use std::time::Duration;

use sim_core::clock::Clock;
use sim_core::sync::atomic::Ordering;
use sim_core::sync::{Arc, Backoff};
use sim_core::time::Instant;

pub use self::reshard::ShardPage;
use self::shared::{Shard, Shared, count};
use crate::builder::Builder;
use crate::config::StreamConfig;
use crate::error::ConfigError;
use crate::message::{Salt, ShardId};
use crate::stats::{BatchStats, FanOutStats, PutStats, ReadStats, ShardStats, Stats};

/// How often an advance comes back to what another thread was at.
const ADVANCES: usize = 64;

/// A stream of records of bytes: each has a partition key and its bytes, both in the log.
pub type ByteStream = Stream<()>;

/// A stream of records, each with a value `T` and bytes beside it: a cheap handle, cloned for each producer and
/// consumer.
///
/// See the [crate's documentation](crate) for what it guarantees.
pub struct Stream<T: Send + Sync + 'static> {
    shared: Arc<Shared<T>>,
}

impl<T: Send + Sync + 'static> Stream<T> {
    pub(crate) const fn of(shared: Arc<Shared<T>>) -> Self {
        Self { shared }
    }

    /// Makes a stream on the system clock.
    ///
    /// # Errors
    /// The first field of the configuration that is out of its range.
    pub fn new(config: StreamConfig) -> Result<Self, ConfigError> {
        Self::builder(config).build()
    }

    /// Makes a stream on the given clock.
    ///
    /// # Errors
    /// The first field of the configuration that is out of its range.
    pub fn with_clock(config: StreamConfig, clock: Clock) -> Result<Self, ConfigError> {
        Self::builder(config).clock(clock).build()
    }

    /// Starts building a stream.
    #[must_use]
    pub const fn builder(config: StreamConfig) -> Builder<T> {
        Builder::new(config)
    }

    pub(crate) fn shared(&self) -> &Shared<T> {
        &self.shared
    }

    /// The configuration that the stream was built with.
    #[must_use]
    pub fn config(&self) -> &StreamConfig {
        &self.shared.config
    }

    /// The stream's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// What tells this stream's sequence numbers from those of others.
    #[must_use]
    pub fn salt(&self) -> Salt {
        self.shared.salt
    }

    /// Does what is due at the present time: see [`advance_to`](Self::advance_to).
    pub fn advance(&self) {
        self.advance_to(self.shared.clock.now());
    }

    /// Does what is due at `now`: trims the records whose time is over, lets closed shards go, follows the traffic in
    /// on-demand mode.
    ///
    /// Puts and reads do it too, each a part. A stream that nobody calls keeps its memory until this is called.
    pub fn advance_to(&self, now: Instant) {
        let backoff = Backoff::new();
        for _ in 0..ADVANCES {
            self.shared.serve(now);
            if !self.shared.is_due(now) {
                break;
            }
            // A put or a read is at it, with a few chunks.
            backoff.snooze();
        }
    }

    /// When there will be something to do next by the clock, or `None` when nothing is scheduled.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.shared.next_deadline()
    }

    /// What the stream holds and has done.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &*self.shared;
        let now = shared.clock.now();
        shared.serve(now);
        let control = shared.control.lock();
        // A shard is in the table, or among those that have left.
        let table = shared.table.load_arc();
        let mut sums = control.left;
        let mut incoming_records = control.left_records;
        drop(control);
        let mut stats = Stats::default();
        let mut oldest: Option<Instant> = None;
        for shard in &table.all {
            for (total, sum) in sums.iter_mut().zip(shard.counters.sums()) {
                *total += sum;
            }
            incoming_records += shard.log.end();
            stats.records += shard.len();
            stats.held_bytes += shard.log.bytes() as u64;
            oldest = oldest.into_iter().chain(shard.oldest()).min();
            let age = shard.iterator_age.load(Ordering::Relaxed);
            stats.reads.iterator_age = stats.reads.iterator_age.max(Duration::from_nanos(age));
        }
        stats.open_shards = table.open().len() as u64;
        stats.closed_shards = (table.all.len() - table.open().len()) as u64;
        stats.oldest_age = oldest.map(|oldest| now - oldest);
        stats.incoming_bytes = sums[count::IN_BYTES];
        stats.incoming_records = incoming_records;
        let throttled = shared.counters.sum(count::STREAM_THROTTLED);
        stats.write_throttled = sums[count::WRITE_THROTTLED] + throttled;
        stats.read_throttled = sums[count::READ_THROTTLED];
        stats.expired_records = sums[count::EXPIRED];
        stats.trimmed_records = sums[count::EVICTED];
        stats.reads = ReadStats {
            calls: sums[count::READS],
            successes: sums[count::READS]
                .saturating_sub(sums[count::READ_THROTTLED] + sums[count::READS_TRIMMED]),
            records: sums[count::OUT_RECORDS],
            bytes: sums[count::OUT_BYTES],
            iterator_age: stats.reads.iterator_age,
            trimmed: sums[count::READS_TRIMMED],
        };
        let of = shared.counters.sums();
        stats.refused_full = of[count::REFUSED_FULL];
        stats.batch = BatchStats {
            calls: of[count::BATCHES],
            successes: of[count::BATCHES_TAKEN],
            records: of[count::BATCH_RECORDS],
            successful_records: of[count::BATCH_TAKEN],
            failed_records: of[count::BATCH_FAILED],
            throttled_records: of[count::BATCH_THROTTLED],
            bytes: of[count::BATCH_BYTES],
        };
        // What did not come in a batch came by itself.
        let successes = incoming_records.saturating_sub(stats.batch.successful_records);
        let in_batches = stats.batch.failed_records + stats.batch.throttled_records;
        let refused = of[count::REFUSED].saturating_sub(in_batches);
        stats.put = PutStats {
            calls: successes + refused,
            successes,
            bytes: stats.incoming_bytes.saturating_sub(stats.batch.bytes),
        };
        stats.fan_out = FanOutStats {
            subscriptions: of[count::FAN_SUBSCRIPTIONS],
            rate_exceeded: of[count::FAN_RATE_EXCEEDED],
            events: of[count::FAN_EVENTS],
            records: of[count::FAN_RECORDS],
            bytes: of[count::FAN_BYTES],
            behind_latest: Duration::from_nanos(shared.fan_out_behind.load(Ordering::Relaxed)),
        };
        stats
    }

    /// What one shard holds and has done, or `None` when it is not in the stream (any more).
    #[must_use]
    pub fn shard_stats(&self, shard: ShardId) -> Option<ShardStats> {
        let shared = &*self.shared;
        let shard: Arc<Shard<T>> = shared.shard(shard)?;
        shared.serve(shared.clock.now());
        let sums = shard.counters.sums();
        Some(ShardStats {
            incoming_bytes: sums[count::IN_BYTES],
            incoming_records: shard.log.end(),
            outgoing_bytes: sums[count::OUT_BYTES],
            outgoing_records: sums[count::OUT_RECORDS],
            write_throttled: sums[count::WRITE_THROTTLED],
            read_throttled: sums[count::READ_THROTTLED],
            iterator_age: Duration::from_nanos(shard.iterator_age.load(Ordering::Relaxed)),
            records: shard.len(),
            held_bytes: shard.log.bytes() as u64,
            ..ShardStats::new(shard.id)
        })
    }
}

impl<T: Send + Sync + 'static> Clone for Stream<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Stream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("name", &self.shared.config.name)
            .field("open_shards", &self.open_shard_count())
            .finish_non_exhaustive()
    }
}
