//! Errors of consumers: registration, subscription, checkpoints.

use sim_core::time::Instant;

use super::ConfigError;
use super::parse::WrongSequenceNumber;
use super::read::IteratorError;
use crate::message::{Checkpoint, ShardId};

/// Why a consumer is not registered or deregistered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// The name is not one.
    #[error(transparent)]
    Name(#[from] ConfigError),
    /// A consumer of that name is registered.
    #[error("consumer: {name:?} is registered already")]
    Exists {
        /// The name.
        name: String,
    },
    /// No consumer of that name is registered.
    #[error("consumer: {name:?} is not registered")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The stream has as many consumers as it may.
    #[error("limits.consumers: the stream has its limit of {limit}")]
    TooMany {
        /// The most allowed.
        limit: usize,
    },
    /// The stream was closed.
    #[error("the stream is closed")]
    Closed,
}

/// Why a registered consumer is not subscribed to a shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The consumer was deregistered.
    #[error("consumer: {name:?} is not registered")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The consumer subscribed to this shard a moment ago, and that subscription stands
    /// (`ResourceInUseException`).
    #[error("{shard_id}: the consumer subscribed to it less than 5 seconds ago")]
    InUse {
        /// The shard.
        shard_id: ShardId,
        /// The first instant at which another subscription may take its place.
        retry_at: Instant,
    },
    /// The consumer subscribes to this shard too often.
    #[error("{shard_id}: one subscription a second is allowed")]
    TooOften {
        /// The shard.
        shard_id: ShardId,
        /// The first instant at which another is allowed.
        retry_at: Instant,
    },
    /// The position is not one.
    #[error(transparent)]
    Position(#[from] IteratorError),
    /// The stream was closed.
    #[error("the stream is closed")]
    Closed,
}

/// Why a checkpoint is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The worker does not hold the shard's lease any more: another one may be at work on it.
    #[error("{shard_id}: the lease is lost")]
    LeaseLost {
        /// The shard.
        shard_id: ShardId,
    },
    /// The checkpoint lies before the one that stands.
    #[error("checkpoint: {given} is before {current}")]
    Backwards {
        /// The checkpoint given.
        given: Checkpoint,
        /// The checkpoint that stands.
        current: Checkpoint,
    },
    /// The checkpoint lies beyond what the worker was given.
    #[error("checkpoint: {given} is beyond {delivered}, the last record that was given out")]
    Ahead {
        /// The checkpoint given.
        given: Checkpoint,
        /// The last one given out.
        delivered: Checkpoint,
    },
    /// The number belongs elsewhere.
    #[error(transparent)]
    SequenceNumber(#[from] WrongSequenceNumber),
}
