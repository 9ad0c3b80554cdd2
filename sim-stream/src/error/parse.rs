//! Errors of texts that are no keys, shards or numbers.

use crate::message::{HashKey, SequenceNumber, ShardId};

/// Why a text is no partition key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It is empty.
    #[error("partition key: is empty, must have 1 to 256 characters")]
    Empty,
    /// It is too long.
    #[error("partition key: has {chars} characters, more than {limit}")]
    TooLong {
        /// Characters given.
        chars: usize,
        /// Characters allowed.
        limit: usize,
    },
}

/// Why a text is no hash key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseHashKeyError {
    /// It is not `0` or decimal digits that do not begin with 0.
    #[error("hash key: must be 0, or digits that do not begin with 0")]
    Malformed,
    /// It is a number beyond the hash space.
    #[error("hash key: is more than {limit}")]
    TooLarge {
        /// The end of the space.
        limit: HashKey,
    },
}

/// Why a text is no shard id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("shard id: must be \"shardId-\" and 12 digits, up to {}", ShardId::MAX)]
#[non_exhaustive]
pub struct ParseShardIdError;

/// Why a text is no sequence number of a stream of this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseSequenceNumberError {
    /// It is not `0` or decimal digits that do not begin with 0.
    #[error("sequence number: must be 0, or digits that do not begin with 0")]
    Malformed,
    /// It has more digits than a sequence number may have.
    #[error("sequence number: has {digits} digits, more than {limit}")]
    TooLong {
        /// Digits given.
        digits: usize,
        /// Digits allowed.
        limit: usize,
    },
    /// It is well formed, but no stream here gave it: Kinesis's own have 56 digits, those of this crate 29 to 39.
    #[error("sequence number: the number of {digits} digits was not given by this stream")]
    Foreign {
        /// Digits given.
        digits: usize,
    },
}

/// A sequence number is used where it does not belong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WrongSequenceNumber {
    /// It is of another stream, or of an earlier one of the same name.
    #[error("sequence number: {sequence_number} is of another stream")]
    OtherStream {
        /// The number given.
        sequence_number: SequenceNumber,
    },
    /// It is of another shard.
    #[error(
        "sequence number: {sequence_number} is of {}, not of {shard}",
        sequence_number.shard()
    )]
    OtherShard {
        /// The number given.
        sequence_number: SequenceNumber,
        /// The shard asked.
        shard: ShardId,
    },
    /// It lies beyond the newest record.
    #[error("sequence number: {sequence_number} is beyond the newest record")]
    Ahead {
        /// The number given.
        sequence_number: SequenceNumber,
    },
}
