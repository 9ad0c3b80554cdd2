//! An SNS-class topic inside your process: filtered fan-out to queues, logs, closures and endpoints, with retries, order
//! per group and replay.
#![forbid(unsafe_code)]

pub mod config;
mod envelope;
pub mod error;
pub mod filter;
pub mod group;
mod machine;
pub mod message;
mod receiver;
mod seams;
pub mod stats;
mod subscriber;
mod subscription;
mod topic;

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
pub use crate::stats::{Dropped, FilteredOut, Stats, SubscriptionStats};
