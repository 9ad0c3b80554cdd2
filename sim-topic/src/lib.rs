//! An SNS-class topic inside your process: filtered fan-out to queues, logs, channels, closures and endpoints, with
//! retries, dead letters, order per group and replay.
//!
//! ```
//! use sim_topic::{ReceiverConfig, Topic, TopicConfig};
//!
//! let orders = Topic::new(TopicConfig::new("orders"))?;
//! let mut one = orders.receiver(ReceiverConfig::default())?;
//! let mut two = orders.receiver(ReceiverConfig::default())?;
//! orders.try_publish("two coffees")?;
//! assert_eq!(*one.try_receive()?, "two coffees");
//! assert_eq!(*two.try_receive()?, "two coffees"); // the same one: it was stored once
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Subscribers that are pushed to ([`Subscriber`]) are sinks, tried in the publisher's call, and handlers, which run as
//! futures while somebody drives the topic ([`Topic::run`], [`Topic::advance`]). Subscribers that pull are
//! [`Receiver`]s. Operations that can wait come as `try_x`, `x` (async), `x_blocking` and `x_until`.
//!
//! # Guarantees
//! - **Delivery** is at least once to each subscription whose filter lets the message through, for as long as its retry
//!   policy goes; then the message goes to the dead-letter sink, or is dropped. Nothing is dropped silently: for each
//!   subscription `accepted = delivered + pending + redriven + dropped`, by reason ([`SubscriptionStats`]).
//! - **Isolation**: a slow or failing subscriber delays no other. A sink or handler that panics has failed one try.
//! - **Order**: on a FIFO topic each subscription gets the messages of a group in the order of publishing, one at a
//!   time, through failures, retries, throttles and replays; one group never holds up another. On a standard topic
//!   messages come about in that order, and retries later.
//! - **Receivers** get each message once, in order. One that is too far behind is told how many it lost, or, if the topic
//!   is so configured, publishers are refused until it has caught up ([`WhenBehind`]).
//! - **Memory** is bounded by the configuration: [`backlog`](SubscriptionConfig::backlog) for each subscription,
//!   [`LogConfig`] for all receivers, [`ArchiveConfig`] for the archive, limits for each window.
//! - **Progress**: publishing to receivers is lock-free but for the message that needs a new chunk of memory; publishing to
//!   sinks takes no lock of the topic's until a try fails. FIFO topics take a short mutex for each publish.
//! - **No foreign code** (sinks, handlers, filters, wakers, the drop of a value) runs under a lock of the topic's.
//! - **Time is an input**: nothing spawns a thread or a task. With a [virtual clock](sim_core::clock::VirtualClock)
//!   100,015 retries over 23 days pass at once.
//! - **Cancel safety**: a message is taken in the poll that returns it; a driver that is dropped loses nothing.
//!
//! # What it is not
//! It does not survive the process. It speaks no protocol but, behind a feature, that of HTTP endpoints. It sends no mail, no
//! text messages and no push notifications: what does is a handler.
//!
//! # Trade-offs
//! - A sink that blocks, blocks its publisher: put a queue there, or make it a handler.
//! - Handlers and retries wait until somebody drives. A topic that nobody drives still delivers to sinks and receivers, and
//!   makes the immediate retries.
//! - A notification from a receiver keeps the chunk of memory alive that it stands in (256 KiB).
//! - A receiver with a filter has a mailbox of its own, into which publishers put its messages; without one it costs
//!   publishers nothing.
//! - Statistics are taken one after the other, not at one instant. What a filter in the index keeps away is exact while
//!   no subscription comes or changes at the same time.
//!
//! # How it works
//! ```text
//!            ┌─▶ the log: one append ──────────────▶ receivers, each with a cursor; nothing is touched for each
//!  publish ──┤
//!            └─▶ a pointer ─▶ table of subscriptions ─▶ sinks, at once ─▶ delivered
//!                             policies: one index        │ refused, or paused, throttled, FIFO, a handler
//!                                                        ▼
//!                             lane: backlog, order of groups, retries ─▶ drivers: run, advance ─▶ delivered
//!                                                        └─▶ given up ─▶ dead-letter sink, or a counted drop
//! ```
//! The rules (retry phases, de-duplication, order, archives) are pure machines: time is an argument, and nothing else
//! happens. See the module documentation of `topic/driver.rs` and `topic/table.rs`.
//!
//! # Features
//! - `serde`: configuration, statistics and the values of results (de)serialize.
//! - `http`: endpoints over HTTP(S), with SNS's envelopes, headers and signatures. Brings hyper, rustls, rsa and tokio's
//!   sockets.
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
mod waiting;

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
pub use crate::seams::MAX_HOPS;
pub use crate::settings::{
    Filter, MAX_MAILBOX, Overflow, Predicate, ReceiverConfig, SubscriptionConfig,
};
pub use crate::stats::{Dropped, FilteredOut, ReceiverStats, Stats, SubscriptionStats};
pub use crate::subscriber::Subscriber;
pub use crate::subscription::{Subscription, SubscriptionState};
pub use crate::topic::{Builder, ReplayProgress, Topic};
