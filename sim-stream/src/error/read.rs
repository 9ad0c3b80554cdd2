//! Errors of readers: positions, tokens, reads, listings.

use std::time::Duration;

use sim_core::time::{Instant, Timestamp};

use super::Resource;
use super::parse::WrongSequenceNumber;
use crate::message::{SequenceNumber, ShardId};

/// Why a reader cannot start where it was told to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IteratorError {
    /// The stream has no such shard, or has none any more: its retention is over.
    #[error("shard: {shard_id} is not in the stream")]
    UnknownShard {
        /// The shard asked for.
        shard_id: ShardId,
    },
    /// The sequence number belongs elsewhere.
    #[error(transparent)]
    SequenceNumber(#[from] WrongSequenceNumber),
    /// The record was trimmed, and the position asks for this very one.
    #[error("sequence number: {sequence_number} was trimmed, the oldest record is {oldest}")]
    Trimmed {
        /// The number given.
        sequence_number: SequenceNumber,
        /// The oldest that is retained.
        oldest: SequenceNumber,
    },
    /// A reader of the whole stream was to start at a record, which stands in one shard.
    #[error("sequence number: {sequence_number} is a place in one shard, not in the stream")]
    OneShard {
        /// The number given.
        sequence_number: SequenceNumber,
    },
    /// The point in time lies ahead.
    #[error("timestamp: {timestamp} is later than now, {now}")]
    FutureTimestamp {
        /// The timestamp given.
        timestamp: Timestamp,
        /// The stream's time.
        now: Timestamp,
    },
}

/// Why an iterator token is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It is not a token of this crate, or was changed.
    #[error("iterator: is malformed")]
    Malformed,
    /// It is of another stream.
    #[error("iterator: is of another stream")]
    OtherStream,
    /// It is too old (`ExpiredIteratorException`).
    #[error("iterator: is {age:?} old, more than {lifetime:?}")]
    Expired {
        /// Time since it was given.
        age: Duration,
        /// How long it could be used.
        lifetime: Duration,
    },
    /// Its shard's retention is over.
    #[error("iterator: {shard_id} is not in the stream any more")]
    UnknownShard {
        /// The shard.
        shard_id: ShardId,
    },
}

/// Why a read brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The reader fell behind the retention: the records that it would have read next were trimmed. The reader now
    /// stands at the oldest one that is left.
    #[error("{lost} records were trimmed before they were read; the oldest left is {resume_at}")]
    Trimmed {
        /// Records lost.
        lost: u64,
        /// The number at which it goes on.
        resume_at: SequenceNumber,
    },
    /// The shard has given its share (`ProvisionedThroughputExceededException`). Waiting helps.
    #[error("{shard_id}: {resource} are used up")]
    Throttled {
        /// The shard.
        shard_id: ShardId,
        /// The limit that was hit.
        resource: Resource,
        /// The first instant at which the same read may succeed.
        retry_at: Instant,
    },
    /// The call asks for no record, or for more than a read brings.
    #[error("{field}: {value} must lie between 1 and {limit}")]
    Limit {
        /// The argument.
        field: &'static str,
        /// The value given.
        value: usize,
        /// The most allowed.
        limit: usize,
    },
    /// The shard's retention is over: it is not in the stream any more.
    #[error("shard: {shard_id} is not in the stream any more")]
    UnknownShard {
        /// The shard.
        shard_id: ShardId,
    },
    /// The deadline passed and no record came.
    #[error("the deadline passed and no record came")]
    Elapsed,
    /// The stream was closed, and everything was read.
    #[error("the stream is closed")]
    Closed,
    /// The token is not taken.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The place where reading goes on after a shard's end could not be found.
    #[error(transparent)]
    Iterator(#[from] IteratorError),
}

impl ReadError {
    /// Whether the same read may succeed later without anybody changing anything else.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Throttled { .. } | Self::Elapsed)
    }
}

/// Why shards are not listed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListShardsError {
    /// The page is empty or too long.
    #[error("max_results: {value} must lie between 1 and {limit}")]
    MaxResults {
        /// The value given.
        value: usize,
        /// The most allowed.
        limit: usize,
    },
    /// The point in time lies ahead.
    #[error("timestamp: lies {ahead:?} ahead of now")]
    FutureTimestamp {
        /// By how much.
        ahead: Duration,
    },
    /// The next token is malformed, expired or of another stream.
    #[error("next_token: {0}")]
    Token(#[from] TokenError),
}
