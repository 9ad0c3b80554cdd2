//! One error type per operation. What could not be put comes back with its error.

mod consume;
mod parse;
mod put;
mod read;
mod reshard;

use std::time::Duration;

pub use self::consume::{CheckpointError, ConsumerError, SubscribeError};
pub use self::parse::{
    KeyError, ParseHashKeyError, ParseSequenceNumberError, ParseShardIdError, WrongSequenceNumber,
};
pub use self::put::{BatchError, BatchRefusal, PutError, Refusal};
pub use self::read::{IteratorError, ListShardsError, ReadError, TokenError};
pub use self::reshard::{
    MergeError, ModeError, RecordSizeError, RetentionError, SplitError, UpdateCountError,
};

/// A field of a [`StreamConfig`](crate::StreamConfig) is out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A name is empty or too long.
    #[error("{field}: has {length} characters, must have 1 to {limit}")]
    NameLength {
        /// The field.
        field: &'static str,
        /// Characters given.
        length: usize,
        /// Characters allowed.
        limit: usize,
    },
    /// A name has a character that names do not have.
    #[error(
        "{field}: has the character {found:?}; only ASCII letters, digits, '_', '.' and '-' are allowed"
    )]
    NameCharacter {
        /// The field.
        field: &'static str,
        /// The first such character.
        found: char,
    },
    /// A duration is too short or too long.
    #[error("{field}: {value:?} must lie between {min:?} and {max:?}")]
    Duration {
        /// The field.
        field: &'static str,
        /// The value given.
        value: Duration,
        /// The shortest allowed.
        min: Duration,
        /// The longest allowed.
        max: Duration,
    },
    /// A number is too small or too large.
    #[error("{field}: {value} must lie between {min} and {max}")]
    Count {
        /// The field.
        field: &'static str,
        /// The value given.
        value: u64,
        /// The smallest allowed.
        min: u64,
        /// The largest allowed.
        max: u64,
    },
    /// A limit on bytes was asked for that needs to know the size of the values, and the stream does not.
    #[error("{field}: needs to know the size of the values: see Builder::size")]
    NoSize {
        /// The field.
        field: &'static str,
    },
}

/// What a shard has too little of: which of its limits a call hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Resource {
    /// Bytes written a second.
    WriteBytes,
    /// Records written a second.
    WriteRecords,
    /// Bytes read a second.
    ReadBytes,
    /// Reads a second.
    Reads,
    /// Bytes pushed a second to one registered consumer.
    FanOutBytes,
    /// What the whole on-demand stream takes: its traffic more than doubled in too short a time.
    OnDemand,
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::WriteBytes => "bytes written a second",
            Self::WriteRecords => "records written a second",
            Self::ReadBytes => "bytes read a second",
            Self::Reads => "reads a second",
            Self::FanOutBytes => "bytes pushed a second",
            Self::OnDemand => "the traffic of an on-demand stream",
        })
    }
}
