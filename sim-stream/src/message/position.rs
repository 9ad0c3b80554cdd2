//! Where a reader starts, and how far a consumer has come.

use std::fmt;

use sim_core::time::Timestamp;

use super::sequence::SequenceNumber;

/// Where a reader of a shard starts: `ShardIteratorType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum StartingPosition {
    /// The oldest record that is retained (`TRIM_HORIZON`).
    TrimHorizon,
    /// Behind the newest record (`LATEST`).
    Latest,
    /// This record (`AT_SEQUENCE_NUMBER`).
    AtSequenceNumber(SequenceNumber),
    /// The record behind this one (`AFTER_SEQUENCE_NUMBER`).
    AfterSequenceNumber(SequenceNumber),
    /// The first record that arrived at or after a point in time (`AT_TIMESTAMP`); the oldest retained one if all
    /// arrived later.
    AtTimestamp(Timestamp),
}

/// How far a consumer has processed a shard: a record, or one of the KCL's sentinels.
///
/// Checkpoints are ordered: the sentinels of the beginning, records by number and sub-sequence number, the end of the
/// shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Checkpoint {
    /// Nothing yet; it starts at the records of a point in time (`AT_TIMESTAMP`).
    AtTimestamp(Timestamp),
    /// Nothing yet; it starts at the oldest record (`TRIM_HORIZON`).
    TrimHorizon,
    /// Nothing yet; it starts behind the newest record (`LATEST`).
    Latest,
    /// Everything up to a record, that one included.
    At {
        /// The record.
        sequence_number: SequenceNumber,
        /// The last processed part of an aggregated record, counted from 0; 0 for a plain one.
        sub_sequence_number: u64,
    },
    /// The whole shard, which is closed (`SHARD_END`).
    ShardEnd,
}

impl Checkpoint {
    /// A plain record, processed.
    #[must_use]
    pub const fn at(sequence_number: SequenceNumber) -> Self {
        Self::At {
            sequence_number,
            sub_sequence_number: 0,
        }
    }

    /// The record, unless this is a sentinel.
    #[must_use]
    pub const fn sequence_number(self) -> Option<SequenceNumber> {
        match self {
            Self::At {
                sequence_number, ..
            } => Some(sequence_number),
            _ => None,
        }
    }

    /// Whether the shard is done.
    #[must_use]
    pub const fn is_shard_end(self) -> bool {
        matches!(self, Self::ShardEnd)
    }

    /// Where to go on reading, or `None` at the end of the shard.
    ///
    /// Behind a record: a consumer that knows aggregated records starts at the record instead and skips the parts up
    /// to the sub-sequence number.
    #[must_use]
    pub const fn resume(self) -> Option<StartingPosition> {
        match self {
            Self::AtTimestamp(timestamp) => Some(StartingPosition::AtTimestamp(timestamp)),
            Self::TrimHorizon => Some(StartingPosition::TrimHorizon),
            Self::Latest => Some(StartingPosition::Latest),
            Self::At {
                sequence_number, ..
            } => Some(StartingPosition::AfterSequenceNumber(sequence_number)),
            Self::ShardEnd => None,
        }
    }
}

/// The KCL's words for the sentinels; a record's number, with `:` and the sub-sequence number where there is one.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtTimestamp(_) => f.write_str("AT_TIMESTAMP"),
            Self::TrimHorizon => f.write_str("TRIM_HORIZON"),
            Self::Latest => f.write_str("LATEST"),
            Self::At {
                sequence_number,
                sub_sequence_number: 0,
            } => write!(f, "{sequence_number}"),
            Self::At {
                sequence_number,
                sub_sequence_number,
            } => write!(f, "{sequence_number}:{sub_sequence_number}"),
            Self::ShardEnd => f.write_str("SHARD_END"),
        }
    }
}
