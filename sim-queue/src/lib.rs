//! An SQS-class queue inside your process.
#![forbid(unsafe_code)]

mod macros;

pub mod config;
pub mod dead_letter;
pub mod delivery;
pub mod error;
pub mod group;
pub mod machine;
pub mod message;
pub mod move_task;
pub mod queue;
pub mod receipt;
mod scheduled;
mod shared;
mod standard;
pub mod stats;
pub mod stream;
pub mod wait;

pub use crate::config::{Limits, OnDrop, QueueConfig, RedriveAllow};
pub use crate::dead_letter::{DeadLetter, DeadLetterPolicy, DeadLetterReason, Origin};
pub use crate::delivery::Delivery;
pub use crate::error::{
    ConfigError, ExtendError, InvalidReceive, MoveError, PolicyError, ReceiveError, Refusal,
    SendError, Stale, TryReceiveError, TrySendError,
};
pub use crate::group::{DeduplicationId, GroupId, IdError, ReceiveAttemptId, SequenceNumber};
pub use crate::machine::{
    Deduplication, DeduplicationScope, FairConfig, FifoConfig, Kind, MessageDelay,
};
pub use crate::message::{Message, Sent};
pub use crate::move_task::{MoveHandle, MoveProgress, MoveStatus, MoveTask};
pub use crate::queue::{Builder, Close, Queue, Receive};
pub use crate::receipt::{ParseReceiptError, Receipt};
pub use crate::stats::Stats;
pub use crate::stream::{Deliveries, Sending};
pub use crate::wait::{ReceiveWait, SendWait};
