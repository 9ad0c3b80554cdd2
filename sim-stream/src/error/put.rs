//! Errors of puts: the record comes back.

use std::fmt;

use sim_core::time::Instant;

use super::Resource;
use super::parse::WrongSequenceNumber;
use crate::message::{Record, ShardId};

/// Why a record was not taken. The reason alone; [`PutError`] brings the record back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The stream holds as much as [`max_bytes`](crate::StreamConfig::max_bytes) or
    /// [`max_records`](crate::StreamConfig::max_records) allows. Waiting helps.
    #[error("{field}: the stream is full, it holds its limit of {limit}")]
    Full {
        /// The limit's field.
        field: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The shard has taken its share of this second (`ProvisionedThroughputExceededException`). Waiting helps.
    #[error("{shard_id}: {resource} are used up")]
    Throttled {
        /// The shard.
        shard_id: ShardId,
        /// The limit that was hit.
        resource: Resource,
        /// The first instant at which the same put may succeed.
        retry_at: Instant,
    },
    /// The stream was closed.
    #[error("the stream is closed")]
    Closed,
    /// The record is too large.
    #[error("max_record_bytes: the record has {bytes} bytes, more than {limit}")]
    TooLarge {
        /// Bytes of data and partition key.
        bytes: usize,
        /// The most allowed.
        limit: usize,
    },
    /// The stream routes by partition key, and the record has none.
    #[error("key: this stream needs a partition key for each record")]
    MissingKey,
    /// The record asks for a number above one that this stream did not give.
    #[error("after: {0}")]
    After(#[from] WrongSequenceNumber),
    /// The deadline passed while the put waited.
    #[error("the deadline passed while the put waited")]
    Elapsed,
}

impl Refusal {
    /// Whether the same put may succeed later without anybody changing anything else.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Throttled { .. })
    }

    /// When the same put may succeed, where that is known.
    #[must_use]
    pub const fn retry_at(&self) -> Option<Instant> {
        match self {
            Self::Throttled { retry_at, .. } => Some(*retry_at),
            _ => None,
        }
    }
}

/// A record that was not taken, and why. Nothing changed in the stream.
pub struct PutError<T> {
    /// The record, as it was given.
    pub record: Box<Record<T>>,
    /// Why it was refused.
    pub reason: Refusal,
}

impl<T> PutError<T> {
    /// Puts record and reason together.
    #[must_use]
    pub fn new(record: Record<T>, reason: Refusal) -> Self {
        Self {
            record: Box::new(record),
            reason,
        }
    }

    /// The value, without the rest of the record.
    #[must_use]
    pub fn into_value(self) -> T {
        self.record.value
    }

    /// Whether the stream was full.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self.reason, Refusal::Full { .. })
    }

    /// Whether a throughput limit was hit.
    #[must_use]
    pub const fn is_throttled(&self) -> bool {
        matches!(self.reason, Refusal::Throttled { .. })
    }

    /// Whether the stream was closed.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.reason, Refusal::Closed)
    }
}

impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutError")
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Display for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.reason, f)
    }
}

impl<T> std::error::Error for PutError<T> {}

/// Why a whole batch was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchRefusal {
    /// It holds no record, or too many.
    #[error("batch: {records} records, must be 1 to {limit}")]
    Records {
        /// Records given.
        records: usize,
        /// The most allowed.
        limit: usize,
    },
    /// Its records have too many bytes together.
    #[error("batch: {bytes} bytes are more than {limit}")]
    Bytes {
        /// Bytes of data and partition keys.
        bytes: usize,
        /// The most allowed.
        limit: usize,
    },
    /// The stream was closed.
    #[error("the stream is closed")]
    Closed,
}

/// A batch of which nothing was taken, and why.
pub struct BatchError<T> {
    /// The records, as they were given.
    pub records: Vec<Record<T>>,
    /// Why they were refused.
    pub reason: BatchRefusal,
}

impl<T> fmt::Debug for BatchError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchError")
            .field("records", &self.records.len())
            .field("reason", &self.reason)
            .finish()
    }
}

impl<T> fmt::Display for BatchError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.reason, f)
    }
}

impl<T> std::error::Error for BatchError<T> {}
