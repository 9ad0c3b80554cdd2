//! Errors of groups and their workers.

use sim_core::time::Timestamp;

use crate::error::{CheckpointError, ConfigError};
use crate::message::{SequenceNumber, ShardId};

/// Why a group is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// A field of the configuration is out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The initial position lies ahead.
    #[error("group.start: timestamp {timestamp} is later than now, {now}")]
    FutureTimestamp {
        /// The timestamp given.
        timestamp: Timestamp,
        /// The stream's time.
        now: Timestamp,
    },
}

/// The group has as many live workers as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("group.max_workers: the group has its limit of {limit}")]
#[non_exhaustive]
pub struct JoinError {
    /// The most allowed.
    pub limit: usize,
}

/// Why a worker gives no batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NextError {
    /// There is nothing at present: no record, or a batch of each shard held is in flight.
    #[error("there is no record at present")]
    Empty,
    /// The deadline passed and no record came.
    #[error("the deadline passed and no record came")]
    Elapsed,
    /// Records were trimmed before the group had processed them. Said once; the worker goes on behind the gap.
    #[error(
        "{shard_id}: {lost} records were trimmed before they were read; the oldest left is {resume_at}"
    )]
    Trimmed {
        /// The shard.
        shard_id: ShardId,
        /// Records lost.
        lost: u64,
        /// The number at which it goes on.
        resume_at: SequenceNumber,
    },
    /// Whole shards left the stream, their retention over, before the group had processed them. Said once, to one
    /// worker, of all that have left by then.
    #[error(
        "{records} records of {shards} shards, and {unseen} shards unseen, expired before they were processed"
    )]
    Expired {
        /// Shards that the group had a lease of, with records behind its checkpoint.
        shards: u64,
        /// Those records. Some may have been given, or told of as [trimmed](Self::Trimmed), and not checkpointed.
        records: u64,
        /// Shards that came and left while nobody called the group; nobody knows whether they had records.
        unseen: u64,
    },
    /// The stream was closed, and every shard is processed to its end.
    #[error("the stream is closed and processed to its end")]
    Closed,
}

/// Why [`Worker::run`](crate::Worker::run) ended early. The worker is as good as before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError<E> {
    /// The handler failed. Its records are given again, from the last checkpoint on.
    #[error("{shard_id}: the handler failed")]
    Handler {
        /// The shard.
        shard_id: ShardId,
        /// What the handler said.
        #[source]
        error: E,
    },
    /// Records were trimmed before the group had processed them; running again goes on behind the gap.
    #[error(
        "{shard_id}: {lost} records were trimmed before they were read; the oldest left is {resume_at}"
    )]
    Trimmed {
        /// The shard.
        shard_id: ShardId,
        /// Records lost.
        lost: u64,
        /// The number at which it goes on.
        resume_at: SequenceNumber,
    },
    /// Whole shards left the stream, their retention over, before the group had processed them; running again goes on
    /// with the others.
    #[error(
        "{records} records of {shards} shards, and {unseen} shards unseen, expired before they were processed"
    )]
    Expired {
        /// Shards that the group had a lease of, with records behind its checkpoint.
        shards: u64,
        /// Those records.
        records: u64,
        /// Shards that came and left while nobody called the group.
        unseen: u64,
    },
    /// A checkpoint was refused for another reason than a lost lease.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}
