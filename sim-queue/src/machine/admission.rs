//! What goes in with a send and what comes back.

use std::time::Duration;

use sim_core::time::Instant;

use super::{DedupKey, MessageKey};
use crate::group::{GroupId, SequenceNumber};

/// What a sender says about a message.
#[derive(Debug, Clone, Copy, Default)]
pub struct Admission<'a> {
    /// A delay of its own instead of the queue's.
    pub delay: Option<Duration>,
    /// The message group of a FIFO queue, which must have one; the tenant on a fair queue. Standard
    /// queues pay it no attention.
    pub group: Option<&'a GroupId>,
    /// What makes it a repetition of another send; only on FIFO queues.
    pub dedup: Option<&'a DedupKey>,
    /// The time of sending that it keeps, if it was sent before (a dead letter): age and retention
    /// count from it. A later time than now counts as now.
    pub sent_at: Option<Instant>,
    /// The sender's name for the message, which a repetition gets back.
    pub id: u128,
}

/// A message that may be stored: what [`Machine::admit`](super::Machine::admit) found out for
/// [`Machine::store`](super::Machine::store).
#[derive(Debug)]
#[must_use]
pub struct Admitted {
    /// Whether later sends are compared with it: then the table of sends has it at hand.
    pub(super) remember: bool,
    pub(super) group: u32,
    pub(super) delay: Option<Duration>,
    pub(super) sent_at: Option<Instant>,
}

/// A message that a send stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Its name.
    pub key: MessageKey,
    /// Its place in the queue's order.
    pub sequence: SequenceNumber,
    /// Whether it is visible at once, and not delayed.
    pub visible_now: bool,
    /// Whether a receiver that found nothing would find something now.
    pub wakes: bool,
}

/// The first of several equal sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct First {
    /// The id of [its admission](Admission::id).
    pub id: u128,
    /// Its sequence number.
    pub sequence: SequenceNumber,
}

/// Why a send stored nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotStored {
    /// It repeats an earlier send: for its sender, a success.
    #[error("the message was sent before")]
    Duplicate(First),
    /// As many messages wait as the capacity allows.
    #[error("the queue is full")]
    Full,
    /// As many sends are remembered as the configuration allows.
    #[error("the table of de-duplication ids is full")]
    DedupWindowFull,
    /// A FIFO message has no group.
    #[error("a message of a FIFO queue has no group")]
    MissingGroup,
    /// The queue requires an id or content hash.
    #[error("the message has neither a de-duplication id nor a content hash")]
    MissingDeduplication,
    /// A message of this FIFO queue has a delay of its own.
    #[error("a message of this FIFO queue has a delay of its own")]
    DelayNotAllowed,
    /// A message has a de-duplication id on a queue that is not FIFO.
    #[error("only FIFO queues know de-duplication ids")]
    DeduplicationNotAllowed,
}
