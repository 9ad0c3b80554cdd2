//! Building a queue.

use std::fmt;

use sim_core::clock::Clock;
use sim_core::counter::Counters;
use sim_core::event::Event;
use sim_core::random::Random;
use sim_core::slab::Slab;
use sim_core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use sim_core::sync::{Arc, CachePadded, Mutex};

use crate::config::QueueConfig;
use crate::dead_letter::ReturnAddress;
use crate::error::ConfigError;
use crate::machine::{Deduplication, Kind};
use crate::move_task::Moves;
use crate::queue::Queue;
use crate::scheduled::Scheduled;
use crate::shared::{Engine, Shared, closed};
use crate::standard::Standard;

/// Slots of one queue: indices have 32 bits.
const SLOT_LIMIT: usize = u32::MAX as usize;
/// Slots whose memory an idle queue keeps: one chunk for each of up to two stripes.
const KEPT_SLOTS: usize = 128;

/// Builds a queue whose clock or knowledge of its payload is not the default.
pub struct Builder<T> {
    config: QueueConfig,
    clock: Option<Clock>,
    content_key: Option<fn(&T) -> [u8; 32]>,
    size: Option<fn(&T) -> usize>,
}

impl<T: Send + Sync + 'static> Builder<T> {
    pub(crate) const fn new(config: QueueConfig) -> Self {
        Self {
            config,
            clock: None,
            content_key: None,
            size: None,
        }
    }

    /// Sets the clock. Default: [`Clock::system`].
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Tells what stands for the content of a payload when a FIFO queue de-duplicates by content. SQS takes
    /// the SHA-256 of the body, and so does a queue of [`Payload`](sim_core::payload::Payload).
    #[must_use]
    pub fn content_key(mut self, key: fn(&T) -> [u8; 32]) -> Self {
        self.content_key = Some(key);
        self
    }

    /// Tells the size of a payload in bytes, for [`Limits::message_bytes`](crate::Limits::message_bytes).
    #[must_use]
    pub fn size(mut self, size: fn(&T) -> usize) -> Self {
        self.size = Some(size);
        self
    }

    /// Builds the queue.
    ///
    /// # Errors
    /// The first field of the configuration that is out of its range.
    pub fn build(self) -> Result<Queue<T>, ConfigError> {
        let Self {
            config,
            clock,
            content_key,
            size,
        } = self;
        config.check()?;
        if let Kind::Fifo(fifo) = &config.kind
            && fifo.deduplication == Deduplication::ByContent
            && content_key.is_none()
        {
            return Err(ConfigError::NoContentKey);
        }
        if config.limits.message_bytes.is_some() && size.is_none() {
            return Err(ConfigError::NoSize);
        }
        let engine = match config.kind {
            Kind::Standard => Engine::Standard(Standard::new(&config)),
            _ => Engine::Scheduled(Scheduled::new(&config)?),
        };
        let namespace = Random::new(config.seed).fork(&config.name).next_u64() & ((1 << 60) - 1);
        let address = Arc::new(ReturnAddress::default());
        let clock = clock.unwrap_or_else(Clock::system);
        let shared = Shared {
            lag: clock.lag(),
            clock,
            namespace,
            secret: receipt_secret(namespace),
            arrivals: Event::new(),
            space: Event::new(),
            idle: Event::new(),
            moving: Event::new(),
            next_due: CachePadded::new(AtomicU64::new(u64::MAX)),
            closed: AtomicU8::new(closed::OPEN),
            counters: Counters::new(),
            engine,
            policy: Mutex::new(None),
            undelivered: Mutex::new(std::collections::VecDeque::new()),
            undelivered_len: AtomicU64::new(0),
            redrive_at: AtomicU64::new(u64::MAX),
            moves: Mutex::new(Moves::default()),
            return_address: Arc::clone(&address),
            size,
            content_key,
            config,
        };
        let slots = Slab::with_kept(shared, SLOT_LIMIT, KEPT_SLOTS);
        address.set(slots.clone());
        Ok(Queue::of_users(slots, address))
    }
}

impl<T> fmt::Debug for Builder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// What tells the receipts of one queue from those of all others of the process. Queues that are built in the same
/// order have the same secrets: it guards against mistakes, not against attackers.
fn receipt_secret(namespace: u64) -> u64 {
    static BUILT: AtomicU64 = AtomicU64::new(0);
    let serial = BUILT.fetch_add(1, Ordering::Relaxed);
    Random::new(namespace ^ serial.rotate_left(32)).next_u64()
}
