//! An SNS-class topic inside your process: filtered fan-out to queues, logs, closures and endpoints, with retries, order
//! per group and replay.
#![forbid(unsafe_code)]

pub mod config;
mod envelope;
pub mod error;
pub mod filter;
pub mod group;
#[cfg(feature = "http")]
pub mod http;
mod machine;
pub mod message;
pub mod receiver;
mod seams;
pub mod settings;
pub mod stats;
pub mod subscriber;
pub mod subscription;
pub mod topic;

pub use crate::config::{
    Deduplication, FifoConfig, Kind, Limits, LogConfig, SubjectRule, TopicConfig, WhenBehind,
};
pub use crate::envelope::{
    Confirmation, Envelope, EnvelopeError, EnvelopeKind, Naming, Origin, Signature,
    SignatureVersion, Structured, StructuredError,
};
pub use crate::error::{
    ArchiveActive, ConfigError, ConfirmError, DeliveryError, PublishError, ReceiveError, Refusal,
    ReplayError, SetError, SubscribeError, TryReceiveError, WaitError,
};
pub use crate::group::{DeduplicationId, GroupId, IdError, SequenceNumber};
pub use crate::machine::archive::{ArchiveConfig, ArchiveError, ReplayPolicy, ReplayStatus};
pub use crate::machine::dedup::DedupScope;
pub use crate::machine::document::DocumentError;
pub use crate::machine::retry::{
    Backoff, ContentType, DeliveryPolicy, HttpRetry, Jitter, Overrides, RetryError, RetryPolicy,
    Throttle, TopicDeliveryPolicy,
};
pub use crate::message::{
    ConfirmationRequest, DeadLetter, DeadLetterReason, Delivery, Message, Notification,
    ParseSubscriptionIdError, ParseTokenError, Published, SubscriptionId, Token,
};
pub use crate::receiver::{Notifications, Received, Receiver};
pub use crate::settings::{Filter, Overflow, ReceiverConfig, SubscriptionConfig};
pub use crate::stats::{Dropped, FilteredOut, ReceiverStats, Stats, SubscriptionStats};
pub use crate::subscriber::Subscriber;
pub use crate::subscription::{Subscription, SubscriptionState};
pub use crate::topic::{Builder, ReplayProgress, Topic};
