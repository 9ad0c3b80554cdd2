//! One error type per operation. What could not be sent comes back with its error.

use std::fmt;
use std::time::Duration;

use crate::machine::RulesError;
use crate::message::Message;

/// A field of a [`QueueConfig`](crate::QueueConfig) is out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The name is empty or too long.
    #[error("name: has {length} bytes, must have 1 to {limit}")]
    Name {
        /// Bytes given.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A duration is too long.
    #[error("{field}: {value:?} is longer than {limit:?}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// The value given.
        value: Duration,
        /// The longest allowed.
        limit: Duration,
    },
    /// A count is too large.
    #[error("{field}: {value} is more than {limit}")]
    TooLarge {
        /// The field.
        field: &'static str,
        /// The value given.
        value: usize,
        /// The largest allowed.
        limit: usize,
    },
    /// A field that must not be zero is.
    #[error("{field}: must not be zero")]
    Zero {
        /// The field.
        field: &'static str,
    },
    /// A rule of the queue's kind is out of its range.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// De-duplication by content was asked for, but the queue does not know the content of its payload.
    #[error("content_based: needs Builder::content_key, or a queue of Payload")]
    NoContentKey,
    /// A limit on bytes was asked for, but the queue does not know the size of its payload.
    #[error("limits.message_bytes: needs Builder::size, or a queue of Payload")]
    NoSize,
}

/// Why a message was not taken. The reason alone; [`TrySendError`] brings the message back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// As many messages wait as [`capacity`](crate::QueueConfig::capacity) allows. Waiting helps.
    #[error("the queue is full")]
    Full,
    /// The queue was closed.
    #[error("the queue is closed")]
    Closed,
    /// The delay is too long.
    #[error("delay: {value:?} is longer than {limit:?}")]
    Delay {
        /// The delay given.
        value: Duration,
        /// The longest allowed.
        limit: Duration,
    },
    /// FIFO queues take no delay per message unless
    /// [`message_delay`](crate::FifoConfig::message_delay) says so.
    #[error("delay: not allowed per message on a FIFO queue")]
    DelayOnFifo,
    /// A FIFO queue needs a message group.
    #[error("group: a FIFO queue needs one for each message")]
    MissingGroup,
    /// The message names a group, but the queue is a standard one: see [`Kind::Fair`](crate::Kind::Fair).
    #[error("group: a standard queue has none; a fair or a FIFO queue does")]
    UnexpectedGroup,
    /// A de-duplication id on a queue that is not FIFO.
    #[error("deduplication_id: only a FIFO queue de-duplicates")]
    UnexpectedDeduplicationId,
    /// The queue requires a de-duplication id or content-based de-duplication.
    #[error("deduplication_id: the queue needs one for each message")]
    MissingDeduplicationId,
    /// As many ids are remembered as the window may hold; the oldest leaves first. Waiting helps.
    #[error("deduplication_id: the window holds its limit of {limit} ids")]
    DeduplicationWindowFull {
        /// Ids the window may hold.
        limit: usize,
    },
    /// Too many attributes.
    #[error("attributes: {count} are more than {limit}")]
    Attributes {
        /// Attributes given.
        count: usize,
        /// The most allowed.
        limit: usize,
    },
    /// The message is too large.
    #[error("message: {bytes} bytes are more than {limit}")]
    TooLarge {
        /// Bytes of payload and attributes.
        bytes: usize,
        /// The most allowed.
        limit: usize,
    },
    /// A batch holds too many entries, or together too many bytes.
    #[error("batch: {count} entries are more than {limit}")]
    BatchTooLong {
        /// Entries given.
        count: usize,
        /// The most allowed.
        limit: usize,
    },
}

impl Refusal {
    /// Whether the same send may succeed later without anybody changing anything else.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Full | Self::DeduplicationWindowFull { .. })
    }
}

/// A message that was not taken, and why. Nothing changed in the queue.
pub struct TrySendError<T> {
    /// The message, as it was given.
    pub message: Box<Message<T>>,
    /// Why it was refused.
    pub reason: Refusal,
}

impl<T> TrySendError<T> {
    pub(crate) fn new(message: Message<T>, reason: Refusal) -> Self {
        Self {
            message: Box::new(message),
            reason,
        }
    }

    /// The payload, without the rest of the message.
    #[must_use]
    pub fn into_value(self) -> T {
        self.message.value
    }

    /// Whether the queue was full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.reason == Refusal::Full
    }

    /// Whether the queue was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.reason == Refusal::Closed
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrySendError")
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.reason, f)
    }
}

impl<T> std::error::Error for TrySendError<T> {}

/// A message that was not taken by a waiting send, and why.
pub enum SendError<T> {
    /// It was refused for a reason that waiting does not cure.
    Refused(TrySendError<T>),
    /// The deadline passed while the queue was full.
    Elapsed(Box<Message<T>>),
}

impl<T> SendError<T> {
    /// The message, as it was given.
    #[must_use]
    pub fn into_message(self) -> Message<T> {
        match self {
            Self::Refused(error) => *error.message,
            Self::Elapsed(message) => *message,
        }
    }

    /// The reason of a refusal; `None` where the deadline passed.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(error) => Some(&error.reason),
            Self::Elapsed(_) => None,
        }
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => f.debug_tuple("Refused").field(&error.reason).finish(),
            Self::Elapsed(_) => f.write_str("Elapsed"),
        }
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => fmt::Display::fmt(error, f),
            Self::Elapsed(_) => f.write_str("the deadline passed while the queue was full"),
        }
    }
}

impl<T> std::error::Error for SendError<T> {}

/// Why a receive that does not wait brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TryReceiveError {
    /// No message is visible.
    #[error("no message is visible")]
    Empty,
    /// As many messages are in flight as [`max_in_flight`](crate::QueueConfig::max_in_flight) allows.
    #[error("{limit} messages are in flight, the limit")]
    OverLimit {
        /// The cap.
        limit: usize,
    },
    /// The queue is closed, and nothing is left in it.
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
    /// The deadline passed and no message was visible.
    #[error("the deadline passed and no message was visible")]
    Elapsed,
    /// As many messages are in flight as [`max_in_flight`](crate::QueueConfig::max_in_flight) allows.
    #[error("{limit} messages are in flight, the limit")]
    OverLimit {
        /// The cap.
        limit: usize,
    },
    /// The queue is closed, and nothing is left in it.
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
    /// A receive-attempt id on a queue that is not FIFO.
    #[error("attempt: only a FIFO queue remembers receive attempts")]
    UnexpectedAttempt,
    /// As many receive attempts are remembered as the window may hold; the oldest leaves first.
    #[error("attempt: the window holds its limit of {limit} ids")]
    AttemptWindowFull {
        /// Attempts the window may hold.
        limit: usize,
    },
    /// A message of this attempt was acknowledged or changed since: the attempt cannot be repeated.
    #[error("attempt: a message of it was acknowledged or changed since")]
    AttemptChanged,
}

/// The delivery or receipt no longer holds its message: its lease ended, or the message was acknowledged,
/// purged or moved. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the receipt is stale: the lease ended or the message is gone")]
pub struct Stale;

/// Why a lease was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExtendError {
    /// The message is no longer in flight under this receipt.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// The time asked for would pass the longest time a message may stay in flight.
    #[error("visibility_timeout: {value:?} from now would pass {limit:?} since the receive")]
    TooLong {
        /// The value given.
        value: Duration,
        /// The longest allowed, from the receive on.
        limit: Duration,
    },
}

/// Why a dead-letter policy was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// `max_receives` is zero or above SQS's 1,000.
    #[error("max_receives: {value} must lie between 1 and {limit}")]
    MaxReceives {
        /// The value given.
        value: u32,
        /// The most allowed.
        limit: u32,
    },
    /// The target's allow policy leaves this queue out.
    #[error("redrive_allow: the queue {target:?} does not take dead letters of {source_name:?}")]
    NotAllowed {
        /// The target's name.
        target: String,
        /// This queue's name.
        source_name: String,
    },
    /// The dead letters of a FIFO queue go to a FIFO queue, and those of the others to one of the others.
    #[error("target: a FIFO queue and its dead-letter queue must both be FIFO")]
    KindMismatch,
    /// A queue cannot be its own dead-letter queue.
    #[error("target: a queue cannot be its own dead-letter queue")]
    Itself,
}

/// Why a move task did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MoveError {
    /// A queue runs one move task at a time.
    #[error("a move task is running already")]
    Running,
    /// The rate is zero or above SQS's 500 a second.
    #[error("max_per_second: {value} must lie between 1 and {limit}")]
    Rate {
        /// The value given.
        value: u32,
        /// The most allowed.
        limit: u32,
    },
}
