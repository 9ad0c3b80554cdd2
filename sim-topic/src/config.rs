//! What a topic is told once, when it is built. Plain fields; checked by [`TopicConfig::check`].

use std::time::Duration;

use crate::error::ConfigError;
use crate::machine::archive::ArchiveConfig;
use crate::machine::dedup::DedupScope;

/// SNS's default `MaximumMessageSize`, in bytes: 256 KiB.
pub const AWS_MESSAGE_BYTES: usize = 262_144;
/// The largest `MaximumMessageSize` that SNS takes, in bytes: 1 MiB.
pub const AWS_MAX_MESSAGE_BYTES: usize = 1_048_576;
/// SNS's bound on entries of a batch.
pub const AWS_BATCH_ENTRIES: usize = 10;
/// SNS's bound on characters of a subject: fewer than 100.
pub const AWS_SUBJECT_CHARS: usize = 99;
/// SNS's bound on subscriptions of a standard topic: 12.5 million.
pub const AWS_SUBSCRIPTIONS: usize = 12_500_000;
/// SNS's bound on subscriptions of a FIFO topic.
pub const AWS_FIFO_SUBSCRIPTIONS: usize = 100;
/// SNS's bound on filter policies of a topic.
pub const AWS_FILTER_POLICIES: usize = 200;
/// How long a confirmation token is valid in SNS: 2 days.
pub const AWS_TOKEN_VALIDITY: Duration = Duration::from_secs(172_800);
/// SNS's de-duplication window: 5 minutes.
pub const AWS_DEDUPLICATION_WINDOW: Duration = Duration::from_secs(300);

/// The longest topic or subscription name, in bytes; SNS's topic names have 256 characters.
const MAX_NAME: usize = 256;
/// The longest duration taken: 100 years, so that nothing overflows the clock's 584.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 86_400);
/// The largest count taken.
const MAX_COUNT: usize = 1 << 31;

/// The configuration of a [`Topic`](crate::Topic).
///
/// Write it as a literal that ends in `..Default::default()`; fields may be added.
///
/// ```
/// use sim_topic::{Kind, TopicConfig};
///
/// let config = TopicConfig { name: "orders".into(), kind: Kind::fifo(), ..Default::default() };
/// assert!(config.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct TopicConfig {
    /// The topic's name, as notifications report it: 1 to 256 bytes. Default: `"topic"`.
    pub name: String,
    /// Whether messages are ordered. Default: [`Kind::Standard`].
    pub kind: Kind,
    /// The log that the [receivers](crate::Topic::receiver) read.
    pub log: LogConfig,
    /// Bounds on what a call may ask for. Default: [`Limits::default`], generous; [`Limits::aws`] are SNS's.
    pub limits: Limits,
    /// How long a confirmation token is valid: from 1 s to 100 years. Default: 2 days (SNS's).
    pub token_validity: Duration,
    /// Seeds the message ids, the jitter of retries and, unless the [builder](crate::Builder) is given a secret,
    /// the confirmation tokens: the same seed gives the same of each. Default: 0.
    pub seed: u64,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            name: "topic".to_owned(),
            kind: Kind::Standard,
            log: LogConfig::default(),
            limits: Limits::default(),
            token_validity: AWS_TOKEN_VALIDITY,
            seed: 0,
        }
    }
}

impl TopicConfig {
    /// The defaults under a name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// A FIFO topic with the defaults under a name.
    #[must_use]
    pub fn fifo(name: impl Into<String>) -> Self {
        Self {
            kind: Kind::fifo(),
            ..Self::new(name)
        }
    }

    /// The AWS profile: SNS's limits.
    #[must_use]
    pub fn aws(name: impl Into<String>, kind: Kind) -> Self {
        Self {
            limits: match kind {
                Kind::Standard => Limits::aws(),
                Kind::Fifo(_) => Limits::aws_fifo(),
            },
            kind,
            ..Self::new(name)
        }
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// The first field that is out of range, with its limit.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_name(&self.name)?;
        check_count("log.capacity", self.log.capacity)?;
        if self.log.max_bytes == 0 {
            return Err(ConfigError::Zero {
                field: "log.max_bytes",
            });
        }
        check_count("limits.batch_entries", self.limits.batch_entries)?;
        check_count("limits.subscriptions", self.limits.subscriptions)?;
        check_count("limits.filter_policies", self.limits.filter_policies)?;
        if self.limits.message_bytes == Some(0) {
            return Err(ConfigError::Zero {
                field: "limits.message_bytes",
            });
        }
        check_duration(
            "token_validity",
            self.token_validity,
            Duration::from_secs(1),
            MAX_DURATION,
        )?;
        if let Kind::Fifo(fifo) = &self.kind {
            check_duration(
                "deduplication_window",
                fifo.deduplication_window,
                Duration::from_nanos(1),
                MAX_DURATION,
            )?;
            check_count("deduplication_limit", fifo.deduplication_limit)?;
            if let Some(archive) = &fifo.archive {
                archive.check().map_err(|error| ConfigError::Archive {
                    reason: error.to_string(),
                })?;
            }
        }
        Ok(())
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), ConfigError> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(ConfigError::Name {
            length: name.len(),
            limit: MAX_NAME,
        });
    }
    Ok(())
}

pub(crate) fn check_count(field: &'static str, value: usize) -> Result<(), ConfigError> {
    match value {
        0 => Err(ConfigError::Zero { field }),
        value if value > MAX_COUNT => Err(ConfigError::TooLarge {
            field,
            value,
            limit: MAX_COUNT,
        }),
        _ => Ok(()),
    }
}

fn check_duration(
    field: &'static str,
    value: Duration,
    min: Duration,
    max: Duration,
) -> Result<(), ConfigError> {
    if value < min || value > max {
        Err(ConfigError::Duration {
            field,
            value,
            min,
            max,
        })
    } else {
        Ok(())
    }
}

/// Whether a topic orders its messages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Kind {
    /// Every subscriber gets every message that it asks for, in about the order of publishing.
    #[default]
    Standard,
    /// Every subscriber gets the messages of each group in the order of publishing, each once within the
    /// de-duplication window.
    Fifo(FifoConfig),
}

impl Kind {
    /// A FIFO topic with the defaults.
    #[must_use]
    pub fn fifo() -> Self {
        Self::Fifo(FifoConfig::default())
    }

    /// Whether it is [`Fifo`](Self::Fifo).
    #[must_use]
    pub const fn is_fifo(&self) -> bool {
        matches!(self, Self::Fifo(_))
    }
}

/// What a FIFO topic is told besides.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct FifoConfig {
    /// What makes two publishes the same. Default: [`Deduplication::ById`].
    pub deduplication: Deduplication,
    /// Where two publishes are compared (`FifoThroughputScope`). Default: [`DedupScope::Topic`].
    pub scope: DedupScope,
    /// How long a publish is remembered. Default: 5 minutes (SNS's), at most 100 years.
    pub deduplication_window: Duration,
    /// How many publishes are remembered; beyond it publishing is refused. Default: 1,000,000.
    pub deduplication_limit: usize,
    /// What the topic keeps for replays. Default: nothing.
    pub archive: Option<ArchiveConfig>,
}

impl Default for FifoConfig {
    fn default() -> Self {
        Self {
            deduplication: Deduplication::ById,
            scope: DedupScope::Topic,
            deduplication_window: AWS_DEDUPLICATION_WINDOW,
            deduplication_limit: 1_000_000,
            archive: None,
        }
    }
}

/// What makes two publishes the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Deduplication {
    /// Their [`DeduplicationId`](crate::DeduplicationId); each message must have one.
    #[default]
    ById,
    /// Their de-duplication id, or, where there is none, the SHA-256 of their content.
    ByContent,
    /// Nothing: no two publishes are the same unless both have the same id.
    Off,
}

/// The log that the receivers of a topic share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct LogConfig {
    /// How many messages a receiver may be behind. It is then told what it lost, or publishers are refused: see
    /// [`when_behind`](Self::when_behind). The bound is looked at once in an eighth of it, at most once in 1,024
    /// messages, and may be passed by as much, and by one message for each concurrent publisher. Default: 65,536.
    pub capacity: usize,
    /// How many bytes the log itself may hold: the values and about 48 bytes for each; what the values point to is
    /// the publisher's affair. Beyond it, the oldest chunk (256 KiB) goes even when a receiver has not read
    /// it, or publishers are refused. Default: 64 MiB.
    pub max_bytes: usize,
    /// What happens when a receiver is too far behind. Default: [`WhenBehind::Lag`].
    pub when_behind: WhenBehind,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            capacity: 65_536,
            max_bytes: 64 << 20,
            when_behind: WhenBehind::Lag,
        }
    }
}

/// What happens when a receiver is too far behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum WhenBehind {
    /// It loses the oldest messages, is told how many, and they are counted.
    #[default]
    Lag,
    /// Publishers are refused, or wait, until it has caught up: every receiver without a filter gets every message,
    /// and the slowest sets the pace. A receiver with a filter has a mailbox of its own, which never holds publishers
    /// up: when it is full, the oldest messages in it are lost, counted and told.
    Refuse,
}

/// Bounds on what one call, one message or one topic may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Limits {
    /// The largest message, value, attributes and subject, in bytes; checked where the topic knows the size of its
    /// values (see [`Builder::size`](crate::Builder::size)). Default: none; SNS's default is 256 KiB, its most 1 MiB.
    pub message_bytes: Option<usize>,
    /// The most bytes of all messages of a batch, where there is a limit on a message. Default: none; SNS: that of
    /// one message.
    pub batch_bytes: Option<usize>,
    /// The most entries of a batch. Default: 65,536; SNS: 10.
    pub batch_entries: usize,
    /// The most attributes of a message. Default: 256; SNS: none of its own, but raw delivery to SQS takes 10.
    pub attributes: usize,
    /// What a subject may be. Default: 65,536 characters of any kind; SNS: fewer than 100 ASCII characters, no
    /// control characters, and no space at the beginning.
    pub subject: SubjectRule,
    /// The most subscriptions and receivers. Default: 1,000,000; SNS: 12.5 million, 100 on a FIFO topic.
    pub subscriptions: usize,
    /// The most subscriptions with a filter policy. Default: 1,000,000; SNS: 200.
    pub filter_policies: usize,
}

/// What a subject may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum SubjectRule {
    /// Any text of at most so many characters.
    Text {
        /// The most characters.
        chars: usize,
    },
    /// One line of ASCII that begins with no space: SNS's rule.
    Line {
        /// The most characters.
        chars: usize,
    },
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: None,
            batch_bytes: None,
            batch_entries: 65_536,
            attributes: 256,
            subject: SubjectRule::Text { chars: 65_536 },
            subscriptions: 1_000_000,
            filter_policies: 1_000_000,
        }
    }
}

impl Limits {
    /// SNS's limits for a standard topic.
    #[must_use]
    pub const fn aws() -> Self {
        Self {
            message_bytes: Some(AWS_MESSAGE_BYTES),
            batch_bytes: Some(AWS_MESSAGE_BYTES),
            batch_entries: AWS_BATCH_ENTRIES,
            attributes: 256,
            subject: SubjectRule::Line {
                chars: AWS_SUBJECT_CHARS,
            },
            subscriptions: AWS_SUBSCRIPTIONS,
            filter_policies: AWS_FILTER_POLICIES,
        }
    }

    /// SNS's limits for a FIFO topic.
    #[must_use]
    pub const fn aws_fifo() -> Self {
        Self {
            subscriptions: AWS_FIFO_SUBSCRIPTIONS,
            ..Self::aws()
        }
    }
}
