//! What a stream counts, as plain snapshots.

use std::time::Duration;

use crate::message::ShardId;

/// A snapshot of a stream, in Kinesis's terms. Cheap enough to be read each second; while other threads work
/// on the stream the numbers are taken one after the other, not at one instant.
///
/// Counts run from the stream's construction and include shards whose retention is over. Where Kinesis reports an
/// average over a minute, take two snapshots and their difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Stats {
    /// Open shards (`OpenShardCount`).
    pub open_shards: u64,
    /// Closed shards that are retained.
    pub closed_shards: u64,
    /// Records that are retained.
    pub records: u64,
    /// Memory that the logs hold, in bytes.
    pub held_bytes: u64,
    /// Age of the oldest retained record.
    pub oldest_age: Option<Duration>,
    /// Bytes taken in (`IncomingBytes`): data and partition keys.
    pub incoming_bytes: u64,
    /// Records taken in (`IncomingRecords`).
    pub incoming_records: u64,
    /// Records whose put was refused by a throughput limit (`WriteProvisionedThroughputExceeded`).
    pub write_throttled: u64,
    /// Reads that were refused by a throughput limit (`ReadProvisionedThroughputExceeded`).
    pub read_throttled: u64,
    /// Records refused because the stream was full.
    pub refused_full: u64,
    /// Records trimmed because their time was over.
    pub expired_records: u64,
    /// Records trimmed before their time, because the stream was full.
    pub trimmed_records: u64,
    /// Single puts.
    pub put: PutStats,
    /// Batches of puts.
    pub batch: BatchStats,
    /// Shared reads.
    pub reads: ReadStats,
    /// Pushes to registered consumers.
    pub fan_out: FanOutStats,
}

/// Single puts: `PutRecord.*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct PutStats {
    /// Puts, taken or not.
    pub calls: u64,
    /// Puts that were taken (`PutRecord.Success`).
    pub successes: u64,
    /// Bytes that they brought (`PutRecord.Bytes`).
    pub bytes: u64,
}

/// Batches of puts: `PutRecords.*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct BatchStats {
    /// Batches, taken or not.
    pub calls: u64,
    /// Batches of which at least one record was taken (`PutRecords.Success`).
    pub successes: u64,
    /// Records in batches that were not refused as a whole (`PutRecords.TotalRecords`).
    pub records: u64,
    /// Records that were taken (`PutRecords.SuccessfulRecords`).
    pub successful_records: u64,
    /// Records that were refused for a reason of their own (`PutRecords.FailedRecords`).
    pub failed_records: u64,
    /// Records that were refused by a throughput limit (`PutRecords.ThrottledRecords`).
    pub throttled_records: u64,
    /// Bytes that they brought (`PutRecords.Bytes`).
    pub bytes: u64,
}

/// Shared reads: `GetRecords.*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ReadStats {
    /// Reads, answered or not.
    pub calls: u64,
    /// Reads that were answered, with records or without (`GetRecords.Success`).
    pub successes: u64,
    /// Records that they brought (`GetRecords.Records`).
    pub records: u64,
    /// Bytes that they brought (`GetRecords.Bytes`).
    pub bytes: u64,
    /// How old the last record of the latest read was, or zero when it had caught up
    /// (`GetRecords.IteratorAgeMilliseconds`).
    pub iterator_age: Duration,
    /// Times that a reader learnt that it had fallen behind the retention.
    pub trimmed: u64,
}

/// Pushes to registered consumers: `SubscribeToShard.*` and `SubscribeToShardEvent.*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct FanOutStats {
    /// Subscriptions made (`SubscribeToShard.Success`).
    pub subscriptions: u64,
    /// Subscriptions refused because they came too fast (`SubscribeToShard.RateExceeded`).
    pub rate_exceeded: u64,
    /// Events pushed (`SubscribeToShardEvent.Success`).
    pub events: u64,
    /// Records that they brought (`SubscribeToShardEvent.Records`).
    pub records: u64,
    /// Bytes that they brought (`SubscribeToShardEvent.Bytes`).
    pub bytes: u64,
    /// How far behind the tip the latest event was (`SubscribeToShardEvent.MillisBehindLatest`).
    pub behind_latest: Duration,
}

/// A snapshot of one shard: Kinesis's seven shard-level metrics, and what the shard holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ShardStats {
    /// The shard.
    pub shard_id: ShardId,
    /// Bytes taken in (`IncomingBytes`).
    pub incoming_bytes: u64,
    /// Records taken in (`IncomingRecords`).
    pub incoming_records: u64,
    /// Bytes given to shared readers (`OutgoingBytes`).
    pub outgoing_bytes: u64,
    /// Records given to shared readers (`OutgoingRecords`).
    pub outgoing_records: u64,
    /// Records refused by a throughput limit (`WriteProvisionedThroughputExceeded`).
    pub write_throttled: u64,
    /// Reads refused by a throughput limit (`ReadProvisionedThroughputExceeded`).
    pub read_throttled: u64,
    /// How old the last record of the latest read was, or zero when it had caught up (`IteratorAgeMilliseconds`).
    pub iterator_age: Duration,
    /// Records that are retained.
    pub records: u64,
    /// Memory that the log holds, in bytes.
    pub held_bytes: u64,
}

impl ShardStats {
    /// A shard at which nothing happened yet.
    #[must_use]
    pub const fn new(shard_id: ShardId) -> Self {
        Self {
            shard_id,
            incoming_bytes: 0,
            incoming_records: 0,
            outgoing_bytes: 0,
            outgoing_records: 0,
            write_throttled: 0,
            read_throttled: 0,
            iterator_age: Duration::ZERO,
            records: 0,
            held_bytes: 0,
        }
    }
}
