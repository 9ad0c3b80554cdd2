//! What a queue is told once, when it is built. Plain fields; checked by [`QueueConfig::check`].

use std::time::Duration;

use crate::error::ConfigError;
use crate::machine::{Kind, Rules};

/// SQS's longest visibility timeout: 12 hours, counted from the receive.
pub const AWS_MAX_VISIBILITY: Duration = Duration::from_secs(43_200);
/// SQS's longest delay: 15 minutes.
pub const AWS_MAX_DELAY: Duration = Duration::from_secs(900);
/// SQS's default retention: 4 days.
pub const AWS_RETENTION: Duration = Duration::from_secs(345_600);
/// SQS's cap on messages in flight (approximate on standard queues).
pub const AWS_MAX_IN_FLIGHT: usize = 120_000;
/// SQS's largest message and largest batch, in bytes: 1 MiB.
pub const AWS_MAX_MESSAGE_BYTES: usize = 1_048_576;

/// The configuration of a [`Queue`](crate::Queue).
///
/// Write it as a literal that ends in `..Default::default()`; fields may be added.
///
/// ```
/// use std::time::Duration;
/// use sim_queue::QueueConfig;
///
/// let config = QueueConfig {
///     name: "orders".into(),
///     visibility_timeout: Duration::from_secs(10),
///     capacity: Some(1024),
///     ..Default::default()
/// };
/// assert!(config.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct QueueConfig {
    /// The queue's name, as dead letters and statistics report it. Default: `"queue"`.
    pub name: String,
    /// How messages are ordered and shared out. Default: [`Kind::Standard`].
    pub kind: Kind,
    /// How long a received message stays hidden unless the receive says otherwise. Default: 30 s (SQS's).
    pub visibility_timeout: Duration,
    /// How long a sent message stays hidden unless the message says otherwise. Default: 0.
    pub delay: Duration,
    /// How long a message is kept, from its sending. Default: `None`, for ever; SQS's default is 4 days.
    /// A message whose time is up is deleted also while it is in flight, as in SQS.
    pub retention: Option<Duration>,
    /// How many messages may wait (visible or delayed) before a send is refused or waits. `None`, the
    /// default, is unbounded. Concurrent senders may pass it by one message each while delayed or
    /// returned messages wait too.
    pub capacity: Option<usize>,
    /// How many messages may be in flight; a receive beyond it reports
    /// [`OverLimit`](crate::TryReceiveError::OverLimit) (a FIFO queue reports that it is empty, as SQS
    /// does). Default: 120,000. Caps above 1,024 on standard queues are approximate: each concurrent
    /// receiver may pass them by one call's messages.
    pub max_in_flight: usize,
    /// What happens to a delivery that is dropped without a verdict. Default: [`OnDrop::Return`].
    pub on_drop: OnDrop,
    /// Bounds on what a call may ask for. Default: [`Limits::default`], generous; [`Limits::aws`] are SQS's.
    pub limits: Limits,
    /// Who may name this queue as the target of dead letters. Default: everybody.
    pub redrive_allow: RedriveAllow,
    /// Seeds the message ids: the same seed gives the same ids. Default: 0.
    pub seed: u64,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            name: "queue".to_owned(),
            kind: Kind::Standard,
            visibility_timeout: Duration::from_secs(30),
            delay: Duration::ZERO,
            retention: None,
            capacity: None,
            max_in_flight: AWS_MAX_IN_FLIGHT,
            on_drop: OnDrop::Return,
            limits: Limits::default(),
            redrive_allow: RedriveAllow::All,
            seed: 0,
        }
    }
}

impl QueueConfig {
    /// The defaults under a name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// A FIFO queue with the defaults under a name.
    #[must_use]
    pub fn fifo(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind: Kind::fifo(),
            ..Self::default()
        }
    }

    /// A fair queue with the defaults under a name.
    #[must_use]
    pub fn fair(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind: Kind::fair(),
            ..Self::default()
        }
    }

    /// The AWS profile: SQS's retention and limits.
    #[must_use]
    pub fn aws(name: impl Into<String>, kind: Kind) -> Self {
        Self {
            name: name.into(),
            kind,
            retention: Some(AWS_RETENTION),
            limits: Limits::aws(),
            ..Self::default()
        }
    }

    /// The rules of the machine that a queue of this configuration follows.
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules {
            visibility_timeout: self.visibility_timeout,
            delay: self.delay,
            retention: self.retention,
            max_in_flight: self.max_in_flight,
            capacity: self.capacity,
            max_lease: self.limits.visibility,
            hash_seed: self.seed,
            ..Rules::new(self.kind.clone())
        }
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// The first field that is out of range, with its limit.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.name.is_empty() || self.name.len() > MAX_NAME {
            return Err(ConfigError::Name {
                length: self.name.len(),
                limit: MAX_NAME,
            });
        }
        check_duration(
            "visibility_timeout",
            self.visibility_timeout,
            self.limits.visibility,
        )?;
        check_duration("delay", self.delay, self.limits.delay)?;
        if let Some(retention) = self.retention {
            check_duration("retention", retention, MAX_DURATION)?;
            if retention.is_zero() {
                return Err(ConfigError::Zero { field: "retention" });
            }
        }
        if self.capacity == Some(0) {
            return Err(ConfigError::Zero { field: "capacity" });
        }
        if let Some(capacity) = self.capacity
            && capacity > MAX_COUNT
        {
            return Err(ConfigError::TooLarge {
                field: "capacity",
                value: capacity,
                limit: MAX_COUNT,
            });
        }
        if self.max_in_flight == 0 {
            return Err(ConfigError::Zero {
                field: "max_in_flight",
            });
        }
        if self.max_in_flight > MAX_COUNT {
            return Err(ConfigError::TooLarge {
                field: "max_in_flight",
                value: self.max_in_flight,
                limit: MAX_COUNT,
            });
        }
        if self.limits.batch == 0 {
            return Err(ConfigError::Zero {
                field: "limits.batch",
            });
        }
        if let RedriveAllow::Sources(names) = &self.redrive_allow
            && names.len() > MAX_REDRIVE_SOURCES
        {
            return Err(ConfigError::TooLarge {
                field: "redrive_allow",
                value: names.len(),
                limit: MAX_REDRIVE_SOURCES,
            });
        }
        self.rules().check().map_err(ConfigError::Rules)
    }
}

/// The longest queue name, in bytes. SQS's is 80.
const MAX_NAME: usize = 256;
/// The longest duration taken: 100 years, so that nothing overflows the clock's 584.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 86_400);
/// The largest count taken: slots are numbered with 32 bits and half of them stay in reserve.
const MAX_COUNT: usize = 1 << 31;
/// SQS's `byQueue` list holds at most ten sources.
const MAX_REDRIVE_SOURCES: usize = 10;

pub(crate) fn check_duration(
    field: &'static str,
    value: Duration,
    limit: Duration,
) -> Result<(), ConfigError> {
    if value > limit {
        Err(ConfigError::TooLong {
            field,
            value,
            limit,
        })
    } else {
        Ok(())
    }
}

/// What happens to a delivery that is dropped without a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum OnDrop {
    /// It returns to the queue at once, as after [`release`](crate::Delivery::release).
    #[default]
    Return,
    /// Its lease runs on, and the message returns when it ends: what SQS does when a consumer dies.
    Expire,
    /// It counts as acknowledged: at-most-once.
    Acknowledge,
}

/// Bounds on what one call or one message may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Limits {
    /// The longest visibility timeout, and the longest time a message may stay in flight from its receive
    /// on, extensions included. Default: 100 years; SQS: 12 hours.
    pub visibility: Duration,
    /// The longest delay. Default: 100 years; SQS: 15 minutes.
    pub delay: Duration,
    /// The most messages a receive or an entry-wise batch may hold. Default: 65,536; SQS: 10.
    pub batch: usize,
    /// The most attributes a message may carry. Default: 256; SQS: 10.
    pub attributes: usize,
    /// The fastest rate of a move task, in messages a second. Default: no bound; SQS: 500.
    pub moves_per_second: u32,
    /// The largest message, body and attributes, in bytes; checked where the queue knows the size of its
    /// payload (see [`Builder::size`](crate::Builder::size)). Default: none; SQS: 1 MiB.
    pub message_bytes: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            visibility: MAX_DURATION,
            delay: MAX_DURATION,
            batch: 65_536,
            attributes: 256,
            moves_per_second: u32::MAX,
            message_bytes: None,
        }
    }
}

impl Limits {
    /// SQS's limits.
    #[must_use]
    pub fn aws() -> Self {
        Self {
            visibility: AWS_MAX_VISIBILITY,
            delay: AWS_MAX_DELAY,
            batch: 10,
            attributes: 10,
            moves_per_second: 500,
            message_bytes: Some(AWS_MAX_MESSAGE_BYTES),
        }
    }
}

/// Which queues may send their dead letters here: SQS's `RedriveAllowPolicy`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum RedriveAllow {
    /// Every queue.
    #[default]
    All,
    /// None.
    Nobody,
    /// The queues of these names, at most ten.
    Sources(Vec<String>),
}

impl RedriveAllow {
    /// Whether the queue `source` may send its dead letters here.
    #[must_use]
    pub fn allows(&self, source: &str) -> bool {
        match self {
            Self::All => true,
            Self::Nobody => false,
            Self::Sources(names) => names.iter().any(|name| name == source),
        }
    }
}
