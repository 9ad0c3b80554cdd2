//! What comes out: leases, the ends of leases, and what time did.

use std::time::Duration;

use sim_core::time::Instant;

use super::State;
use crate::group::SequenceNumber;

/// Names a message in a machine; never reused, so an old key finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageKey {
    pub(super) sequence: u64,
    pub(super) index: u32,
}

impl MessageKey {
    /// Puts a key together from its [parts](Self::parts).
    #[must_use]
    pub const fn from_parts(index: u32, sequence: u64) -> Self {
        Self { sequence, index }
    }

    /// The key's parts, say for a receipt: its place in the machine, and its sequence number.
    #[must_use]
    pub const fn parts(self) -> (u32, u64) {
        (self.index, self.sequence)
    }
}

/// A received message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leased<M> {
    /// The payload's name.
    pub m: M,
    /// The message's name.
    pub key: MessageKey,
    /// The lease: with the key, the right to act on the message.
    pub lease: u64,
    /// How often it was received, this time included.
    pub receive_count: u32,
    /// When it was received first.
    pub first_received: Instant,
    /// When it was sent.
    pub sent_at: Instant,
    /// When the lease times out.
    pub deadline: Instant,
    /// Its place in the queue's order.
    pub sequence: SequenceNumber,
}

/// Why a receive was refused. A receive that finds nothing is not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// As many messages are in flight as may be. FIFO queues return nothing instead.
    #[error("too many messages are in flight")]
    OverLimit,
    /// The visibility timeout is longer than any lease may be.
    #[error("the visibility timeout is longer than {max:?}")]
    TooLong {
        /// The longest lease.
        max: Duration,
    },
    /// The attempt was made before, and its messages were acted upon since.
    #[error("messages of this receive attempt were deleted, returned or changed since")]
    AttemptSpent,
    /// As many attempts are remembered as the configuration allows.
    #[error("the table of receive attempts is full")]
    AttemptTableFull,
    /// Only FIFO queues know receive attempts.
    #[error("only FIFO queues know receive attempts")]
    AttemptOutOfOrder,
}

/// The lease has no power over the message any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lease is over")]
pub struct Stale;

/// Why a lease was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The lease is over.
    #[error("the lease is over")]
    Stale,
    /// The lease would last too long in all.
    #[error("the lease would last longer than a lease may")]
    TooLong {
        /// The latest end that it may have.
        latest: Instant,
    },
}

impl From<Stale> for ChangeError {
    fn from(Stale: Stale) -> Self {
        Self::Stale
    }
}

/// Why a message was not released: for the same reasons.
pub type ReleaseError = ChangeError;

/// A deleted message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged<M> {
    /// The payload's name, free now.
    pub m: M,
    /// Whether a receiver that found nothing would find something now: the next message of a group,
    /// or one that the bound on messages in flight held back.
    pub wakes: bool,
}

/// Where a message is after its holder said what to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition<M> {
    /// Still in flight.
    InFlight {
        /// The end of its lease.
        deadline: Instant,
    },
    /// Back in the queue.
    Visible {
        /// Whether a receiver that found nothing would find something now.
        wakes: bool,
    },
    /// Out of the queue.
    DeadLetter(DeadLetter<M>),
}

/// A message that was received too often and has left the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetter<M> {
    /// The payload's name, free now.
    pub m: M,
    /// The name that the message had.
    pub key: MessageKey,
    /// How often it was received.
    pub receive_count: u32,
    /// When it was sent.
    pub sent_at: Instant,
    /// When it was received first.
    pub first_received: Instant,
    /// Whether a receiver that found nothing would find something now: the next of its group.
    pub wakes: bool,
}

/// What happened to a message without anybody acting on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect<M> {
    /// Its delay passed or its lease timed out.
    BecameVisible {
        /// The payload's name, still in use.
        m: M,
        /// The message's name.
        key: MessageKey,
        /// Whether a receiver that found nothing would find something now.
        wakes: bool,
    },
    /// Its retention ended and it is deleted.
    Expired {
        /// The payload's name, free now.
        m: M,
        /// The name that the message had.
        key: MessageKey,
        /// Where it was: its holder, if any, finds its lease stale.
        was: State,
        /// Whether a receiver that found nothing would find something now: the next of its group.
        wakes: bool,
    },
    /// It was received too often.
    DeadLetter(DeadLetter<M>),
    /// It was purged.
    Purged {
        /// The payload's name, free now.
        m: M,
        /// The name that the message had.
        key: MessageKey,
        /// Where it was: its holder, if any, finds its lease stale.
        was: State,
    },
}

/// One message in a machine, as [`Machine::contents`](super::Machine::contents) shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content<M> {
    /// The payload's name.
    pub m: M,
    /// The message's name.
    pub key: MessageKey,
    /// Where it is.
    pub state: State,
    /// How often it was received.
    pub receive_count: u32,
    /// When it was sent.
    pub sent_at: Instant,
    /// The end of its lease or delay.
    pub deadline: Option<Instant>,
}
