//! A Kinesis-class sharded log inside your process: ordered per key, replayable, resharded while in use, with consumer
//! groups and queues on the log.
//!
//! ```
//! use sim_stream::{PartitionKey, Read, Record, StartingPosition, Stream, StreamConfig};
//!
//! let flights = Stream::new(StreamConfig::new("flights").shards(4))?;
//! let carrier = PartitionKey::new("AA")?;
//! flights.try_put(Record::new(carrier.clone(), "flight 1 departed"))?;
//! flights.try_put(Record::new(carrier, "flight 1 landed"))?; // behind it, as they share a key
//!
//! // Whoever reads takes nothing away: the same records can be read again, and by others.
//! for _ in 0..2 {
//!     let mut reader = flights.reader(StartingPosition::TrimHorizon)?;
//!     let records = reader.try_read(Read::default())?.expect("two records are there");
//!     let events: Vec<_> = records.iter().map(|record| *record.value()).collect();
//!     assert_eq!(events, ["flight 1 departed", "flight 1 landed"]);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A record has a partition key, a value of any type, and bytes; either may be nothing. A stream of bytes alone is a
//! [`ByteStream`]. Every operation that can wait comes as `try_x` (never waits), `x` (async), `x_blocking` (blocks the
//! thread) and `x_until` (ends at a deadline; `x_blocking_until` for threads).
//!
//! # Guarantees
//! - **Order**: the records of one partition key are read in the order in which their puts returned, also through splits
//!   and merges, by whoever reads parents before children ([`Reader`], consumer groups). Sequence numbers grow strictly
//!   within a shard, and per key. A stream that [distributes by itself](RecordDistribution::Auto) has no order.
//! - **Retention**: a record is read until its time is over, or until the stream holds more than it may. What leaves before
//!   it was read is never a silent gap: the reader is told how many records it lost ([`ReadError::Trimmed`]).
//! - **Resharding** loses and repeats no record. Closed shards are read until their retention ends.
//! - **Memory** is bounded by the configuration where it sets [`max_bytes`](StreamConfig::max_bytes) or
//!   [`max_records`](StreamConfig::max_records), else by the retention. Tokens and cursors cost the stream nothing; a
//!   reader that holds records pins the chunks in which they stand.
//! - **Progress**: puts and reads are lock-free, but for the put that brings a new chunk, and for one put in 64, which looks
//!   after what is due: it passes by where another is at it. A put that meets a reshard waits for its end.
//!   Throughput limits, where they are set, take a short mutex.
//! - **Time is an input**: nothing spawns a thread or a task. With a [virtual clock](sim_core::clock::VirtualClock) a year of
//!   retention passes at once.
//! - **Cancel safety**: a reader moves in the poll that returns the records, a record is put in the poll that completes.
//!   A future that is dropped skips and repeats nothing.
//!
//! # What it is not
//! It does not survive the process, and spans one. It speaks no wire protocol, though tokens, numbers, limits and errors are
//! Kinesis's, so that an endpoint above needs to add the format alone. It does not acknowledge: who reads keeps account of how
//! far it came, or has a consumer group do it; queues on a stream acknowledge each record.
//!
//! # Trade-offs
//! - Kinesis's MD5 costs more than the put around it. [`KeyHash::Fast`] is cheaper, and places keys elsewhere than Kinesis
//!   would. With one shard, or an explicit hash key, nothing is hashed.
//! - Bounds are kept to within a few records (1/64 of a small [`max_records`](StreamConfig::max_records), at most 64 a shard)
//!   and to within a chunk of each shard. A stream that [refuses](WhenFull::Refuse) looks at each put, and concurrent
//!   puts may each pass the bound by one record.
//! - Arrival times on the system clock are the kernel's last tick, as old as 8 ms. A reader from a
//!   [point in time](StartingPosition::AtTimestamp) starts that much early rather than late, where the records
//!   stand in the order of their times. Writers that are held up between reading the clock and appending may leave them a
//!   little out of it: a reader that starts among such may miss as many of them, or begin as many too early.
//! - Memory comes and goes by the chunk: a trimmed record's value is dropped with the last record of its chunk, and the newest
//!   chunk of a shard stays until the stream is [advanced](Stream::advance) at rest.
//! - Each put wakes every reader that waits for its shard.
//!
//! # How it works
//! ```text
//!                    hash key   ┌ shard 0: an append-only log ──────────────────────┐
//!  put ─▶ table of ────────────▶│ chunk ─▶ chunk ─▶ chunk ◀─ one compare-and-swap a put │
//!         open shards           └───▲────────▲──────────────────────────────────────┘
//!         (replaced whole           │        └ cursor: a position, and the chunk that it reads
//!          by a reshard)            └ trimmed from here, chunk by chunk, under nobody's feet
//! ```
//! A reshard closes the logs of the parents, and only then stores the table in which the children stand: a put that finds
//! a log closed waits for that table and goes to the child. The rules live in [`machine`], which is pure: time is an argument.
//! The log is [`sim_core::log`].
//!
//! # Features
//! - `serde`: configuration, keys, numbers and statistics (de)serialize.
//! - `kpl`: the Kinesis Producer Library's aggregated records, packed and unpacked.
#![forbid(unsafe_code)]

pub mod builder;
pub mod config;
pub mod cursor;
pub mod error;
pub mod fan_out;
pub mod group;
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
pub use crate::fan_out::{ConsumerInfo, FanOutEvent, Subscription, SubscriptionError};
pub use crate::group::{
    Batch, BatchKind, Checkpointer, ConsumerGroup, Generation, GroupConfig, GroupError, GroupStats,
    HandOff, InitialPosition, JoinError, Lease, LeaseStats, NextError, RunError, Worker, WorkerId,
    WorkerStream,
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
