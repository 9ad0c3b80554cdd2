//! An SNS-class topic inside your process: filtered fan-out to queues, logs, closures and endpoints, with retries, order
//! per group and replay.
#![forbid(unsafe_code)]

mod config;
mod envelope;
mod error;
pub mod filter;
mod machine;
mod message;
mod receiver;
mod seams;
mod stats;
mod subscriber;
mod subscription;
mod topic;

pub use self::machine::retry::{
    Backoff, ContentType, DeliveryPolicy, HttpRetry, Jitter, Overrides, RetryError, RetryPolicy,
    Throttle, TopicDeliveryPolicy,
};
