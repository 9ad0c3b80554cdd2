//! Building a stream.

use std::fmt;

use sim_core::clock::Clock;
use sim_core::counter::Counters;
use sim_core::event::Event;
use sim_core::log::{LogConfig, Pool};
use sim_core::snapshot::Snapshot;
use sim_core::sync::atomic::AtomicU64;
use sim_core::sync::{Arc, CachePadded, Mutex};

use crate::config::{StreamConfig, WhenFull};
use crate::error::ConfigError;
use crate::fan_out::Registry;
use crate::machine::shards::Shards;
use crate::message::Salt;
use crate::queue::Followers;
use crate::stream::Stream;
use crate::stream::reshard::Control;
use crate::stream::shared::{Shard, Shared, Table, count, nanos};
use crate::stream::traffic::traffic_of;
use crate::token::Tokens;

/// A put in so many looks after the stream: a power of two.
const NOTE_EVERY: u64 = 64;

/// Builds a stream whose clock, memory or knowledge of its values is not the default.
pub struct Builder<T> {
    config: StreamConfig,
    clock: Option<Clock>,
    pool: Option<Arc<Pool>>,
    size: Option<fn(&T) -> usize>,
}

impl<T: Send + Sync + 'static> Builder<T> {
    pub(crate) const fn new(config: StreamConfig) -> Self {
        Self {
            config,
            clock: None,
            pool: None,
            size: None,
        }
    }

    /// Sets the clock. Default: [`Clock::system`].
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Takes the logs' memory from a pool that other streams may share. Default: one of its own, as
    /// [`StreamConfig::memory`] says.
    #[must_use]
    pub fn pool(mut self, pool: Arc<Pool>) -> Self {
        self.pool = Some(pool);
        self
    }

    /// Tells the size of a value in bytes: it then counts in
    /// [`max_record_bytes`](StreamConfig::max_record_bytes), in throughput limits and in the statistics of puts, as data
    /// and partition key do. Default: zero.
    #[must_use]
    pub fn size(mut self, size: fn(&T) -> usize) -> Self {
        self.size = Some(size);
        self
    }

    /// Builds the stream.
    ///
    /// # Errors
    /// The first field of the configuration that is out of its range.
    pub fn build(self) -> Result<Stream<T>, ConfigError> {
        let Self {
            config,
            clock,
            pool,
            size,
        } = self;
        config.check()?;
        let clock = clock.unwrap_or_else(Clock::system);
        let pool = pool.unwrap_or_else(|| {
            let mut log = LogConfig::default();
            log.chunk_bytes = config.memory.chunk_bytes;
            log.first_chunk_bytes = config.memory.first_chunk_bytes;
            Pool::new(log, config.memory.kept_bytes)
        });
        let now = clock.now();
        let salt = Salt::of(&config.name, clock.timestamp(now));
        let control = Control {
            shards: Shards::new(now, config.mode, &config.limits),
            left: [0; count::SHARD],
            left_records: 0,
            is_closed: false,
        };
        let all = control
            .shards
            .iter()
            .map(|lineage| Shard::new(lineage, &config, &clock, salt, &pool))
            .collect();
        let is_bounded = config.max_bytes.is_some() || config.max_records.is_some();
        let refuses_when_full = is_bounded && config.when_full == WhenFull::Refuse;
        // A small bound on records is looked at more often, so that it is passed by little.
        let often = config
            .max_records
            .map_or(NOTE_EVERY, |most| (most / NOTE_EVERY).clamp(1, NOTE_EVERY));
        let note_mask = if refuses_when_full {
            0
        } else {
            (1 << often.ilog2()) - 1
        };
        let shared = Shared {
            salt,
            tokens: Tokens::new(&config, salt),
            size,
            pool,
            table: Snapshot::new(Table::of(0, &control, all)),
            traffic: Mutex::new(traffic_of(&config, config.mode, now, config.first_shards())),
            control: Mutex::new(control),
            arrivals: Event::new(),
            followers: Followers::new(),
            space: Event::new(),
            refuses_when_full,
            note_mask,
            retention: AtomicU64::new(nanos(config.retention)),
            max_record_bytes: AtomicU64::new(config.max_record_bytes as u64),
            due: AtomicU64::new(u64::MAX),
            held_bytes: AtomicU64::new(0),
            held_records: AtomicU64::new(0),
            trimming: Mutex::new(()),
            turn: CachePadded::new(AtomicU64::new(0)),
            counters: Counters::new(),
            fan_out: Registry::default(),
            fan_out_behind: AtomicU64::new(0),
            clock,
            config,
        };
        Ok(Stream::of(Arc::new(shared)))
    }
}

impl<T> fmt::Debug for Builder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
