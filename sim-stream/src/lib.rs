//! A Kinesis-class sharded log inside your process: ordered per key, replayable, resharded while in use, with consumer
//! groups and queues on the log.
#![forbid(unsafe_code)]

pub mod builder;
pub mod config;
pub mod cursor;
pub mod error;
mod fan_out;
mod group;
#[cfg(feature = "kpl")]
pub mod kpl;
pub mod machine;
pub mod message;
pub mod queue;
pub mod reader;
pub mod records;
mod seams;
pub mod stats;
pub mod stream;
pub mod token;

pub use crate::builder::Builder;
pub use crate::config::{
    KeyHash, Limits, Memory, OnDemandLimits, RecordDistribution, ReshardingLimits, StreamConfig,
    StreamMode, Throughput, WhenFull,
};
pub use crate::cursor::{Cursor, CursorStream, Read};
pub use crate::error::{
    BatchError, BatchRefusal, CheckpointError, ConfigError, ConsumerError, IteratorError, KeyError,
    ListShardsError, MergeError, ModeError, ParseHashKeyError, ParseSequenceNumberError,
    ParseShardIdError, PutError, ReadError, RecordSizeError, Refusal, Resource, RetentionError,
    SplitError, SubscribeError, TokenError, UpdateCountError, WrongSequenceNumber,
};
pub use crate::message::{
    Checkpoint, ChildShard, HashKey, HashRange, PartitionKey, Placed, Record, Salt, SequenceNumber,
    ShardFilter, ShardId, ShardInfo, StartingPosition,
};
pub use crate::queue::{
    DeadLetters, LostRecords, QueueConfig, QueueDescription, QueueLimits, QueueRecord, QueueStart,
    QueueStats, QueueUpdate, Receipt, Receive, StreamQueue,
};
pub use crate::reader::{Reader, ReaderStream};
pub use crate::records::{RecordRef, Records, StreamRecord};
pub use crate::stats::{BatchStats, FanOutStats, PutStats, ReadStats, ShardStats, Stats};
pub use crate::stream::{ByteStream, ShardPage, Stream};
pub use crate::token::{IteratorToken, RecordsPage};
