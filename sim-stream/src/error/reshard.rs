//! Errors of what changes the stream itself: shards, retention, mode, record size.

use std::time::Duration;

use sim_core::time::Instant;

use crate::message::{HashKey, HashRange, ShardId};

/// Why a shard is not split.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// The stream has no such shard, or has none any more.
    #[error("shard: {shard_id} is not in the stream")]
    UnknownShard {
        /// The shard asked for.
        shard_id: ShardId,
    },
    /// The shard was split or merged already.
    #[error("shard: {shard_id} is closed")]
    ShardClosed {
        /// The shard asked for.
        shard_id: ShardId,
    },
    /// The new starting hash key lies outside of the shard, or is its first one, which would leave an empty shard.
    #[error("new_starting_hash_key: {key} must lie in {range} and not be its start")]
    HashKey {
        /// The key given.
        key: HashKey,
        /// The shard's range.
        range: HashRange,
    },
    /// The stream has as many open shards as it may.
    #[error("limits.open_shards: the stream would have {shards}, more than {limit}")]
    OpenShards {
        /// Open shards after the split.
        shards: u32,
        /// The most allowed.
        limit: u32,
    },
    /// The stream retains as many shards as it may, closed ones included.
    #[error("limits.retained_shards: the stream would retain {shards}, more than {limit}")]
    RetainedShards {
        /// Shards after the split.
        shards: u64,
        /// The most allowed.
        limit: u32,
    },
    /// On-demand streams choose their shards themselves.
    #[error("mode: an on-demand stream is not resharded by hand")]
    OnDemand,
    /// The stream was closed.
    #[error("the stream is closed")]
    Closed,
}

/// Why two shards are not merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// The stream has no such shard, or has none any more.
    #[error("shard: {shard_id} is not in the stream")]
    UnknownShard {
        /// The shard asked for.
        shard_id: ShardId,
    },
    /// The shard was split or merged already.
    #[error("shard: {shard_id} is closed")]
    ShardClosed {
        /// The shard asked for.
        shard_id: ShardId,
    },
    /// The ranges of the shards do not follow one another. A shard is not adjacent to itself.
    #[error(
        "adjacent_shard: {shard_id} with {range} and {adjacent_id} with {adjacent_range} are not adjacent"
    )]
    NotAdjacent {
        /// The one shard.
        shard_id: ShardId,
        /// Its range.
        range: HashRange,
        /// The other.
        adjacent_id: ShardId,
        /// Its range.
        adjacent_range: HashRange,
    },
    /// The stream retains as many shards as it may, closed ones included.
    #[error("limits.retained_shards: the stream would retain {shards}, more than {limit}")]
    RetainedShards {
        /// Shards after the merge.
        shards: u64,
        /// The most allowed.
        limit: u32,
    },
    /// On-demand streams choose their shards themselves.
    #[error("mode: an on-demand stream is not resharded by hand")]
    OnDemand,
    /// The stream was closed.
    #[error("the stream is closed")]
    Closed,
}

/// Why the number of shards is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateCountError {
    /// No stream has zero shards, nor more than its limit.
    #[error("target_shard_count: {target} must lie between 1 and {limit}")]
    Target {
        /// The target given.
        target: u32,
        /// The most allowed.
        limit: u32,
    },
    /// The target is too far from the number of open shards.
    #[error(
        "target_shard_count: {target} must lie between {min} and {max}, as {open} shards are open"
    )]
    Factor {
        /// The target given.
        target: u32,
        /// Open shards.
        open: u32,
        /// The smallest allowed.
        min: u32,
        /// The largest allowed.
        max: u32,
    },
    /// The count was changed as often as it may be within 24 hours.
    #[error("limits.resharding.changes: {limit} changes were made within 24 hours")]
    TooOften {
        /// The most changes within 24 hours.
        limit: u32,
        /// The first instant at which another is allowed.
        retry_at: Instant,
    },
    /// The stream would retain too many shards, closed ones included.
    #[error("limits.retained_shards: the stream would retain {shards}, more than {limit}")]
    RetainedShards {
        /// Shards after the change.
        shards: u64,
        /// The most allowed.
        limit: u32,
    },
    /// On-demand streams choose their shards themselves.
    #[error("mode: an on-demand stream is not resharded by hand")]
    OnDemand,
    /// The stream was closed.
    #[error("the stream is closed")]
    Closed,
}

/// Why the retention is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RetentionError {
    /// It is outside of its limits.
    #[error("retention: {value:?} must lie between {min:?} and {max:?}")]
    Range {
        /// The value given.
        value: Duration,
        /// The shortest allowed.
        min: Duration,
        /// The longest allowed.
        max: Duration,
    },
    /// An increase that does not increase.
    #[error("retention: {value:?} is less than {current:?}, which it was to increase")]
    NotAnIncrease {
        /// The value given.
        value: Duration,
        /// What it is now.
        current: Duration,
    },
    /// A decrease that does not decrease.
    #[error("retention: {value:?} is more than {current:?}, which it was to decrease")]
    NotADecrease {
        /// The value given.
        value: Duration,
        /// What it is now.
        current: Duration,
    },
    /// The stream was closed.
    #[error("the stream is closed")]
    Closed,
}

/// Why the mode is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModeError {
    /// The mode was changed as often as it may be within 24 hours.
    #[error("limits.resharding.mode_changes: {limit} changes were made within 24 hours")]
    TooOften {
        /// The most changes within 24 hours.
        limit: u32,
        /// The first instant at which another is allowed.
        retry_at: Instant,
    },
    /// Queues on a stream need it to be on-demand.
    #[error("mode: the stream has {queues} queues, which need it to be on-demand")]
    Queues {
        /// Queues on the stream.
        queues: usize,
    },
    /// The stream was closed.
    #[error("the stream is closed")]
    Closed,
}

/// Why the largest record size is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordSizeError {
    /// It is outside of its limits.
    #[error("max_record_bytes: {value} must lie between {min} and {max}")]
    Range {
        /// The value given.
        value: usize,
        /// The smallest allowed.
        min: usize,
        /// The largest allowed.
        max: usize,
    },
    /// The stream was closed.
    #[error("the stream is closed")]
    Closed,
}
