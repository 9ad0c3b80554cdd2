//! What a queue on a stream is told. Plain fields; checked by [`QueueConfig::check`].

use std::time::Duration;

use sim_core::time::Timestamp;

use crate::config::{check_name, count, duration};
use crate::error::ConfigError;
use crate::machine::delivery::Rules;
use crate::message::StartingPosition;

/// The default visibility timeout of Kinesis's queues: 30 seconds.
pub const AWS_QUEUE_VISIBILITY: Duration = Duration::from_secs(30);
/// The longest visibility timeout of Kinesis's queues: 43,200 seconds, which is 12 hours.
pub const AWS_QUEUE_MAX_VISIBILITY: Duration = Duration::from_secs(43_200);
/// The default number of receives after which a record of Kinesis's queues becomes a dead letter: 6.
pub const AWS_QUEUE_MAX_RECEIVES: u32 = 6;
/// The most receives that may be set: 1,000, Kinesis's, and here too.
pub const MAX_RECEIVES: u32 = 1_000;
/// How many records of one of Kinesis's queues may be in flight: 120,000.
pub const AWS_QUEUE_MAX_IN_FLIGHT: usize = 120_000;
/// How long a receive waits in Kinesis unless it says otherwise: 9 seconds, of 1 to 20.
pub const AWS_QUEUE_WAIT: Duration = Duration::from_secs(9);
/// How many dead letters a queue keeps unless it is told otherwise: 1,000,000, which is some 150 MB.
pub const DEFAULT_MAX_DEAD_LETTERS: usize = 1_000_000;

/// The configuration of a [`StreamQueue`](crate::StreamQueue).
///
/// Write it as a literal that ends in `..Default::default()`; fields may be added.
///
/// ```
/// use std::time::Duration;
/// use sim_stream::{DeadLetters, QueueConfig, QueueStart};
///
/// let config = QueueConfig {
///     name: "delays".into(),
///     start: QueueStart::TrimHorizon,
///     visibility_timeout: Duration::from_secs(10),
///     dead_letters: DeadLetters::BuiltIn { max_receives: 3 },
///     ..Default::default()
/// };
/// assert!(config.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct QueueConfig {
    /// The queue's name, of letters, digits, `_`, `.` and `-`, 1 to 128 as in Kinesis. Default: `"queue"`. Queues on one
    /// stream may share a name: nothing is looked up by it.
    pub name: String,
    /// Where in the stream delivery begins. Default: [`QueueStart::Latest`] (Kinesis's).
    pub start: QueueStart,
    /// How long a received record stays hidden unless the receive says otherwise. Default: 30 s (Kinesis's); zero
    /// hides it not at all.
    pub visibility_timeout: Duration,
    /// What becomes of a record that is received again and again. Default: dead after 6 receives (Kinesis's).
    pub dead_letters: DeadLetters,
    /// How many records may be in flight, released ones that wait for their delay included. A receive beyond it
    /// reports [`OverLimit`](crate::queue::TryReceiveError::OverLimit). Default: 120,000 (Kinesis's). A record takes
    /// about 150 bytes while it is in flight.
    pub max_in_flight: usize,
    /// How many dead letters are kept; the oldest that nobody holds is dropped, and counted, for one more. Default:
    /// 1,000,000. Kinesis names no limit.
    pub max_dead_letters: usize,
    /// Bounds on what a call may ask for. Default: [`QueueLimits::default`], generous; [`QueueLimits::aws`] are Kinesis's.
    pub limits: QueueLimits,
    /// Seeds what makes receipts hard to guess. Default: 0.
    pub seed: u64,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            name: "queue".to_owned(),
            start: QueueStart::Latest,
            visibility_timeout: AWS_QUEUE_VISIBILITY,
            dead_letters: DeadLetters::default(),
            max_in_flight: AWS_QUEUE_MAX_IN_FLIGHT,
            max_dead_letters: DEFAULT_MAX_DEAD_LETTERS,
            limits: QueueLimits::default(),
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

    /// The AWS profile: the limits of Kinesis's queues.
    #[must_use]
    pub fn aws(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            limits: QueueLimits::aws(),
            ..Self::default()
        }
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// The first field that is out of range, with its value and its limits.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_name("name", &self.name)?;
        let limits = &self.limits;
        duration(
            "limits.visibility",
            limits.visibility,
            Duration::ZERO,
            MAX_VISIBILITY,
        )?;
        count("limits.batch", limits.batch as u64, 1, MAX_BATCH)?;
        self.check_attributes()?;
        count("max_in_flight", self.max_in_flight as u64, 1, MAX_COUNT)?;
        count(
            "max_dead_letters",
            self.max_dead_letters as u64,
            1,
            MAX_COUNT,
        )
    }

    /// Checks what can be changed later.
    pub(super) fn check_attributes(&self) -> Result<(), ConfigError> {
        duration(
            "visibility_timeout",
            self.visibility_timeout,
            Duration::ZERO,
            self.limits.visibility,
        )?;
        if let DeadLetters::BuiltIn { max_receives } = self.dead_letters {
            count(
                "dead_letters.max_receives",
                max_receives.into(),
                1,
                MAX_RECEIVES.into(),
            )?;
        }
        Ok(())
    }

    pub(super) const fn rules(&self) -> Rules {
        Rules {
            visibility_timeout: self.visibility_timeout,
            max_receives: match self.dead_letters {
                DeadLetters::BuiltIn { max_receives } => Some(max_receives),
                DeadLetters::None => None,
            },
            max_in_flight: self.max_in_flight,
            max_dead_letters: self.max_dead_letters,
        }
    }
}

/// The longest visibility timeout taken: 100 years, so that nothing overflows the clock's 584.
const MAX_VISIBILITY: Duration = Duration::from_secs(100 * 365 * 86_400);
/// The most records of one receive.
const MAX_BATCH: u64 = 1 << 20;
/// The most slots of each kind: both together are numbered with 32 bits.
const MAX_COUNT: u64 = 1 << 30;

/// Where in the stream a queue begins: `QueueStartingPosition`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum QueueStart {
    /// With the records that arrive after its creation (`LATEST`).
    #[default]
    Latest,
    /// With the oldest record that is retained (`TRIM_HORIZON`).
    TrimHorizon,
    /// With the records that arrived at or after a point in time (`AT_TIMESTAMP`).
    AtTimestamp(Timestamp),
}

impl QueueStart {
    pub(super) const fn position(self) -> StartingPosition {
        match self {
            Self::Latest => StartingPosition::Latest,
            Self::TrimHorizon => StartingPosition::TrimHorizon,
            Self::AtTimestamp(timestamp) => StartingPosition::AtTimestamp(timestamp),
        }
    }
}

/// What becomes of a record that is received again and again without being acknowledged: `DeadLetterConfiguration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum DeadLetters {
    /// When its lease ends after so many receives, it becomes a dead letter of the same queue (`BUILT_IN`).
    BuiltIn {
        /// How many: 1 to 1,000. Default: 6 (Kinesis's).
        max_receives: u32,
    },
    /// It comes back until it is acknowledged or its retention is over (`NONE`).
    None,
}

impl Default for DeadLetters {
    fn default() -> Self {
        Self::BuiltIn {
            max_receives: AWS_QUEUE_MAX_RECEIVES,
        }
    }
}

/// Bounds on what one call may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct QueueLimits {
    /// The longest visibility timeout, from the call on, and the longest delay of a release. Default: 100 years; Kinesis:
    /// 12 hours.
    pub visibility: Duration,
    /// The most records of a receive. Default: 10,000; Kinesis: 10.
    pub batch: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            visibility: MAX_VISIBILITY,
            batch: 10_000,
        }
    }
}

impl QueueLimits {
    /// The limits of Kinesis's queues.
    #[must_use]
    pub const fn aws() -> Self {
        Self {
            visibility: AWS_QUEUE_MAX_VISIBILITY,
            batch: 10,
        }
    }
}

/// What of a queue is to be changed: `UpdateQueue`. What is `None` stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueUpdate {
    /// A new visibility timeout. Records in flight keep theirs.
    pub visibility_timeout: Option<Duration>,
    /// A new rule for dead letters. What is dead stays dead.
    pub dead_letters: Option<DeadLetters>,
}

/// What a receive asks for.
///
/// ```
/// use std::time::Duration;
/// use sim_stream::Receive;
///
/// let ask = Receive { max: 10, visibility_timeout: Some(Duration::from_secs(5)) };
/// assert_eq!(Receive::up_to(10).visibility_timeout, None);
/// # let _ = ask;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receive {
    /// The most records to return: at least 1, at most [`QueueLimits::batch`]. Default: 10 (Kinesis's).
    pub max: usize,
    /// How long they stay hidden, instead of the queue's own timeout.
    pub visibility_timeout: Option<Duration>,
}

impl Receive {
    /// So many records at most.
    #[must_use]
    pub const fn up_to(max: usize) -> Self {
        Self {
            max,
            visibility_timeout: None,
        }
    }
}

impl Default for Receive {
    fn default() -> Self {
        Self::up_to(10)
    }
}
