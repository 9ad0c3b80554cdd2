//! One error type per operation. What could not be published comes back with its error.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use sim_core::time::Instant;

use crate::message::Message;

/// A field of a [`TopicConfig`](crate::TopicConfig), a [`SubscriptionConfig`](crate::SubscriptionConfig) or a
/// [`ReceiverConfig`](crate::ReceiverConfig) is out of its range.
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
    /// A duration is out of its range.
    #[error("{field}: {value:?} is not between {min:?} and {max:?}")]
    Duration {
        /// The field.
        field: &'static str,
        /// The value given.
        value: Duration,
        /// The shortest allowed.
        min: Duration,
        /// The longest allowed.
        max: Duration,
    },
    /// A field that must not be zero is.
    #[error("{field}: must not be zero")]
    Zero {
        /// The field.
        field: &'static str,
    },
    /// De-duplication by content was asked for, but the topic does not know the content of its messages.
    #[error(
        "deduplication: by content it needs Builder::content_key or Builder::body, or a topic of Payload"
    )]
    NoContentKey,
    /// A limit on bytes was asked for, but the topic does not know the size of its messages.
    #[error("limits.message_bytes: needs Builder::size or Builder::body, or a topic of Payload")]
    NoSize,
    /// A filter policy matches message bodies, but the topic does not know the body of its messages.
    #[error("filter: matching bodies needs Builder::body, or a topic of Payload")]
    NoBody,
    /// The retry policy is out of its range.
    #[error("retry: {reason}")]
    Retry {
        /// What is wrong with it.
        reason: String,
    },
    /// The archive's configuration is out of its range.
    #[error("archive: {reason}")]
    Archive {
        /// What is wrong with it.
        reason: String,
    },
    /// Only an endpoint is sent what an endpoint is sent.
    #[error("{field}: does not go with this kind of subscriber")]
    Unsupported {
        /// The field.
        field: &'static str,
    },
}

/// Why a message was not taken. The reason alone; [`PublishError`] brings the message back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A receiver is [`capacity`](crate::LogConfig::capacity) messages behind, and the topic
    /// [refuses](crate::WhenBehind::Refuse) rather than have it lose some. Waiting helps.
    #[error("the topic is full: a receiver is behind")]
    Full,
    /// The topic was closed.
    #[error("the topic is closed")]
    Closed,
    /// A FIFO topic needs a message group.
    #[error("group: a FIFO topic needs one for each message")]
    MissingGroup,
    /// A de-duplication id on a topic that is not FIFO.
    #[error("deduplication_id: only a FIFO topic de-duplicates")]
    UnexpectedDeduplicationId,
    /// The topic requires a de-duplication id or de-duplication by content.
    #[error("deduplication_id: the topic needs one for each message")]
    MissingDeduplicationId,
    /// As many ids are remembered as the window may hold; the oldest leaves first. Waiting helps.
    #[error("deduplication_id: the window holds its limit of {limit} ids")]
    DeduplicationWindowFull {
        /// Ids the window may hold.
        limit: usize,
        /// When the oldest leaves.
        until: Instant,
    },
    /// The subject is too long.
    #[error("subject: {chars} characters are more than {limit}")]
    SubjectTooLong {
        /// Characters given.
        chars: usize,
        /// The most allowed.
        limit: usize,
    },
    /// The subject is empty or has a character that the limits do not allow.
    #[error(
        "subject: {found:?} at byte {at} is not allowed: a line of ASCII that begins with no space"
    )]
    SubjectCharacter {
        /// The first such character, or none when the subject is empty.
        found: Option<char>,
        /// Its position in bytes.
        at: usize,
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
        /// Bytes of the value, the attributes and the subject.
        bytes: usize,
        /// The most allowed.
        limit: usize,
    },
    /// The message is larger than all that the topic's archive may hold: it could never be replayed.
    #[error("message: {bytes} bytes are more than the archive's max_bytes, {limit}")]
    TooLargeForArchive {
        /// Bytes of the value, the attributes and the subject.
        bytes: usize,
        /// The archive's [`max_bytes`](crate::ArchiveConfig::max_bytes).
        limit: usize,
    },
    /// A batch holds too many entries.
    #[error("batch: {count} entries are more than {limit}")]
    BatchTooLong {
        /// Entries given.
        count: usize,
        /// The most allowed.
        limit: usize,
    },
    /// A batch holds too many bytes.
    #[error("batch: {bytes} bytes are more than {limit}")]
    BatchTooLarge {
        /// Bytes given.
        bytes: usize,
        /// The most allowed.
        limit: usize,
    },
}

impl Refusal {
    /// Whether the same message may be taken later.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Full | Self::DeduplicationWindowFull { .. })
    }
}

/// A message was not published; nothing changed.
#[derive(thiserror::Error)]
#[error("{reason}")]
pub struct PublishError<T> {
    /// The message, as it was given.
    pub message: Box<Message<T>>,
    /// Why.
    pub reason: Refusal,
}

impl<T> PublishError<T> {
    pub(crate) fn new(message: Message<T>, reason: Refusal) -> Self {
        Self {
            message: Box::new(message),
            reason,
        }
    }

    /// Gives the payload back.
    #[must_use]
    pub fn into_value(self) -> T {
        self.message.value
    }
}

impl<T> fmt::Debug for PublishError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishError")
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// A message was not published, by an operation that waits.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum WaitError<T> {
    /// Waiting does not help, or the topic was closed meanwhile.
    #[error(transparent)]
    Refused(PublishError<T>),
    /// The deadline passed; the message comes back with what was in its way.
    #[error("the deadline passed: {0}")]
    Elapsed(PublishError<T>),
}

impl<T> WaitError<T> {
    /// Gives the payload back.
    #[must_use]
    pub fn into_value(self) -> T {
        match self {
            Self::Refused(error) | Self::Elapsed(error) => error.into_value(),
        }
    }
}

impl<T> fmt::Debug for WaitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => f.debug_tuple("Refused").field(error).finish(),
            Self::Elapsed(error) => f.debug_tuple("Elapsed").field(error).finish(),
        }
    }
}

/// Why one try to deliver a message failed: what a handler answers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    /// The subscriber does not take this message, now or later. It is not tried again: it goes to the dead-letter
    /// sink, or is dropped and counted.
    #[error("client error: {source}")]
    Client {
        /// What happened.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The subscriber cannot take it now. It is tried again as the retry policy says.
    #[error("server error: {source}")]
    Server {
        /// What happened.
        source: Box<dyn Error + Send + Sync>,
        /// The next try is made not sooner than after this time.
        retry_after: Option<Duration>,
    },
}

impl DeliveryError {
    /// An error that trying again does not cure.
    #[must_use]
    pub fn client(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Client {
            source: source.into(),
        }
    }

    /// An error that trying again may cure.
    #[must_use]
    pub fn server(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Server {
            source: source.into(),
            retry_after: None,
        }
    }

    /// An error that trying again may cure, but not sooner than after `wait`.
    #[must_use]
    pub fn server_after(source: impl Into<Box<dyn Error + Send + Sync>>, wait: Duration) -> Self {
        Self::Server {
            source: source.into(),
            retry_after: Some(wait),
        }
    }

    /// Whether trying again may help.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Server { .. })
    }
}

/// Why a subscription was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The topic was closed.
    #[error("the topic is closed")]
    Closed,
    /// There are as many as there may be, receivers included.
    #[error("subscriptions: the topic has its limit of {limit}")]
    TooMany {
        /// The most allowed.
        limit: usize,
    },
    /// There are as many with a filter policy as there may be.
    #[error("filter: the topic has its limit of {limit} filter policies")]
    TooManyFilterPolicies {
        /// The most allowed.
        limit: usize,
    },
    /// A field of the configuration is out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Why an attribute of a subscription was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetError {
    /// The subscription is over.
    #[error("the subscription is over")]
    Over,
    /// There are as many with a filter policy as there may be.
    #[error("filter: the topic has its limit of {limit} filter policies")]
    TooManyFilterPolicies {
        /// The most allowed.
        limit: usize,
    },
    /// The new value is out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Why a token confirms nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfirmError {
    /// No subscription of this topic was given the token, or the one that was is gone.
    #[error("token: unknown")]
    Unknown,
    /// The token was valid until a time that has passed.
    #[error("token: expired {ago:?} ago; it was valid for {validity:?}")]
    Expired {
        /// How long ago it expired.
        ago: Duration,
        /// How long it was valid.
        validity: Duration,
    },
    /// The topic was closed.
    #[error("the topic is closed")]
    Closed,
}

/// Why a replay was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The topic has no archive.
    #[error("replay: the topic has no archive")]
    NoArchive,
    /// The subscription is over, or not confirmed yet.
    #[error("replay: the subscription is not active")]
    NotActive,
    /// A replay of this subscription is under way.
    #[error("replay: one is in progress already")]
    InProgress,
    /// The end lies before the start.
    #[error("replay: it ends before it starts")]
    EndsBeforeStart,
}

/// The topic has an active archive: it is not deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the topic has an active archive; end it before deleting the topic")]
pub struct ArchiveActive;

/// Why a receiver that does not wait got nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TryReceiveError {
    /// There is nothing now.
    #[error("nothing to receive")]
    Empty,
    /// The receiver fell behind, and messages were dropped that it had not received. The next receive goes on
    /// behind them.
    #[error("{lost} messages were lost: the receiver fell behind")]
    Lagged {
        /// How many.
        lost: u64,
    },
    /// The topic was closed, and everything was received.
    #[error("the topic is closed")]
    Closed,
}

/// Why a receiver that waits got nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// As [`TryReceiveError::Lagged`].
    #[error("{lost} messages were lost: the receiver fell behind")]
    Lagged {
        /// How many.
        lost: u64,
    },
    /// The topic was closed, and everything was received.
    #[error("the topic is closed")]
    Closed,
    /// The deadline passed.
    #[error("the deadline passed")]
    Elapsed,
}
