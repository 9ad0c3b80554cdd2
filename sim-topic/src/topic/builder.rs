//! Building a topic.

use std::fmt;

use sha2::{Digest, Sha256};
use sim_core::clock::Clock;
use sim_core::counter::Counters;
use sim_core::random::Random;
use sim_core::snapshot::Snapshot;
use sim_core::sync::atomic::{AtomicBool, AtomicU64};
use sim_core::sync::{Arc, CachePadded, Mutex};

use crate::config::{Deduplication, Kind, TopicConfig};
use crate::error::ConfigError;
use crate::machine::archive::Archive;
use crate::machine::dedup::Dedup;
use crate::message::TopicInfo;
use crate::receiver::log::LogSide;
use crate::topic::Topic;
use crate::topic::driver::Driver;
use crate::topic::hub::{Fifo, Hub, Registry};
use crate::topic::lane::Departed;
use crate::topic::publishing::Publishing;
use crate::topic::table::{Evaluations, Scratches, Table};

/// Builds a topic whose clock or knowledge of its values is not the default.
pub struct Builder<T> {
    config: TopicConfig,
    clock: Option<Clock>,
    body: Option<fn(&T) -> &[u8]>,
    size: Option<fn(&T) -> usize>,
    content_key: Option<fn(&T) -> [u8; 32]>,
    secret: Option<[u8; 32]>,
}

impl<T: Send + Sync + 'static> Builder<T> {
    pub(crate) const fn new(config: TopicConfig) -> Self {
        Self {
            config,
            clock: None,
            body: None,
            size: None,
            content_key: None,
            secret: None,
        }
    }

    /// Sets the clock. Default: [`Clock::system`].
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Tells the body of a value: what filter policies on bodies match, whose length is the size, and whose SHA-256
    /// stands for the content.
    #[must_use]
    pub fn body(mut self, body: fn(&T) -> &[u8]) -> Self {
        self.body = Some(body);
        self
    }

    /// Tells the size of a value in bytes, for [`Limits::message_bytes`](crate::Limits::message_bytes), where it is not
    /// that of the body.
    #[must_use]
    pub fn size(mut self, size: fn(&T) -> usize) -> Self {
        self.size = Some(size);
        self
    }

    /// Tells what stands for the content of a value when a FIFO topic de-duplicates by content, where it is not
    /// the SHA-256 of the body.
    #[must_use]
    pub fn content_key(mut self, key: fn(&T) -> [u8; 32]) -> Self {
        self.content_key = Some(key);
        self
    }

    /// Sets what confirmation tokens are derived from. Default: the seed, which anybody can guess: where endpoints
    /// are not trusted, give 32 bytes of the operating system's randomness.
    #[must_use]
    pub const fn token_secret(mut self, secret: [u8; 32]) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Builds the topic.
    ///
    /// # Errors
    /// The first field of the configuration that is out of its range.
    pub fn build(self) -> Result<Topic<T>, ConfigError> {
        let Self {
            config,
            clock,
            body,
            size,
            content_key,
            secret,
        } = self;
        config.check()?;
        let has_size = size.is_some() || body.is_some();
        if config.limits.message_bytes.is_some() && !has_size {
            return Err(ConfigError::NoSize);
        }
        let random = Random::new(config.seed).fork(&config.name);
        let mut fifo = None;
        if let Kind::Fifo(rules) = &config.kind {
            let has_content = content_key.is_some() || body.is_some();
            if rules.deduplication == Deduplication::ByContent && !has_content {
                return Err(ConfigError::NoContentKey);
            }
            fifo = Some(Mutex::new(Fifo {
                dedup: Dedup::new(
                    rules.deduplication_window,
                    rules.deduplication_limit,
                    rules.scope,
                    random.fork("deduplication").next_u64(),
                ),
                archive: rules.archive.map(Archive::new),
                sequence: 0,
            }));
        }
        let clock = clock.unwrap_or_else(Clock::system);
        let secret = secret.unwrap_or_else(|| {
            let mut random = random.fork("tokens");
            let mut hash = Sha256::new();
            for _ in 0..4 {
                hash.update(random.next_u64().to_le_bytes());
            }
            hash.finalize().into()
        });
        let info = Arc::new(TopicInfo {
            name: config.name.clone().into_boxed_str(),
            namespace: random.fork("ids").next_u64() & ((1 << 60) - 1),
            clock: clock.clone(),
        });
        let evaluations = Arc::new(Evaluations::default());
        Ok(Topic::of(Arc::new(Hub {
            clock,
            info,
            body,
            size,
            content_key,
            secret,
            numbers: CachePadded::new(AtomicU64::new(0)),
            closed: AtomicBool::new(false),
            publishing: Publishing::new(),
            counters: Counters::new(),
            table: Snapshot::new(Table::new(Arc::clone(&evaluations))),
            has_subs: AtomicBool::new(false),
            evaluations,
            scratches: Scratches::default(),
            registry: Mutex::new(Registry::new()),
            fifo,
            driver: Driver::new(),
            log: LogSide::new(config.log),
            departed: Arc::new(Departed::default()),
            random,
            config,
        })))
    }
}

impl<T> fmt::Debug for Builder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
