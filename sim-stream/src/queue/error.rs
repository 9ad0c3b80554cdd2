//! One error type per operation of a queue.

use std::time::Duration;

/// Why a receive that does not wait brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TryReceiveError {
    /// No record is visible.
    #[error("no record is visible")]
    Empty,
    /// As many records are in flight as [`max_in_flight`](crate::QueueConfig::max_in_flight) allows.
    #[error("{limit} records are in flight, the limit")]
    OverLimit {
        /// The most allowed.
        limit: usize,
    },
    /// The queue was closed; or the stream was, and nothing is left to receive.
    #[error("the queue is closed")]
    Closed,
    /// The call asks for what the queue does not allow.
    #[error(transparent)]
    Invalid(#[from] InvalidReceive),
}

/// Why a receive that waits brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The deadline passed and no record was visible.
    #[error("the deadline passed and no record was visible")]
    Elapsed,
    /// As many records are in flight as [`max_in_flight`](crate::QueueConfig::max_in_flight) allows.
    #[error("{limit} records are in flight, the limit")]
    OverLimit {
        /// The most allowed.
        limit: usize,
    },
    /// The queue was closed; or the stream was, and nothing is left to receive.
    #[error("the queue is closed")]
    Closed,
    /// The call asks for what the queue does not allow.
    #[error(transparent)]
    Invalid(#[from] InvalidReceive),
}

/// What a receive asks for lies outside of the queue's limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidReceive {
    /// `max` is zero or above the limit.
    #[error("max: {value} must lie between 1 and {limit}")]
    Max {
        /// The value given.
        value: usize,
        /// The most allowed.
        limit: usize,
    },
    /// The visibility timeout is too long.
    #[error("visibility_timeout: {value:?} is longer than {limit:?}")]
    Visibility {
        /// The value given.
        value: Duration,
        /// The longest allowed.
        limit: Duration,
    },
}

/// The receipt no longer holds its record: its lease has ended, the record was acknowledged, released or restored, or
/// the receipt is not of this queue, or of the other kind (a dead letter's). Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the receipt is stale: its lease has ended or was never given")]
pub struct Stale;

/// Why the end of a lease was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VisibilityError {
    /// The record is no longer in flight under this receipt.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// The time asked for is too long.
    #[error("visibility_timeout: {value:?} is longer than {limit:?}")]
    TooLong {
        /// The value given.
        value: Duration,
        /// The longest allowed.
        limit: Duration,
    },
}

/// Why no queue was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// A field of the configuration is out of its range.
    #[error(transparent)]
    Config(#[from] crate::ConfigError),
    /// The queue cannot start there.
    #[error("start: {0}")]
    Start(#[from] crate::IteratorError),
}

impl From<TryReceiveError> for ReceiveError {
    /// [`Empty`](TryReceiveError::Empty) is [`Elapsed`](Self::Elapsed): there was no time to wait.
    fn from(error: TryReceiveError) -> Self {
        match error {
            TryReceiveError::Empty => Self::Elapsed,
            TryReceiveError::OverLimit { limit } => Self::OverLimit { limit },
            TryReceiveError::Closed => Self::Closed,
            TryReceiveError::Invalid(invalid) => Self::Invalid(invalid),
        }
    }
}
