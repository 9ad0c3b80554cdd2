//! What a queue counts, and what it tells of itself.

use std::time::Duration;

use sim_core::time::Timestamp;

use crate::queue::config::{DeadLetters, QueueStart};

/// A snapshot of a queue, in Kinesis's terms. Counts run from the queue's creation.
///
/// What was put since the queue's start and is not on its way is
/// `visible + in_flight + delayed + acknowledged + visible_dead_letters + in_flight_dead_letters +
/// acknowledged_dead_letters + lost.total()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct QueueStats {
    /// Records that could be received (`VisibleQueueRecords`), those of child shards that wait for their parents
    /// included. A record that is being put may count too early.
    pub visible: u64,
    /// Records received whose lease stands (`InFlightQueueRecords`).
    pub in_flight: u64,
    /// Records released, hidden for a while.
    pub delayed: u64,
    /// Dead letters that could be received (`VisibleDeadLetterQueueRecords`).
    pub visible_dead_letters: u64,
    /// Dead letters received whose lease stands.
    pub in_flight_dead_letters: u64,
    /// Age of the oldest record that was never received.
    pub oldest_age: Option<Duration>,
    /// Deliveries made (`ReceivedQueueRecords`).
    pub received: u64,
    /// Records acknowledged (`AcknowledgedQueueRecords`).
    pub acknowledged: u64,
    /// Receives that brought nothing (`EmptyReceives`); one that waits counts once, at its end.
    pub empty_receives: u64,
    /// Leases that ran out.
    pub lapsed: u64,
    /// Leases that their holder gave back.
    pub released: u64,
    /// Records that became dead letters; one that was restored may again.
    pub buried: u64,
    /// Deliveries of dead letters.
    pub received_dead_letters: u64,
    /// Dead letters acknowledged.
    pub acknowledged_dead_letters: u64,
    /// Dead letters restored.
    pub restored_dead_letters: u64,
    /// Records dropped without an acknowledgement, by reason.
    pub lost: LostRecords,
}

/// How many records a queue dropped that nobody acknowledged, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LostRecords {
    /// The stream trimmed them before they were ever received. A shard that came and whose retention ended while nobody
    /// called the queue, nor asked for its statistics, is not known to it and not counted.
    pub unread: u64,
    /// The stream trimmed them after they were received, and they came back.
    pub returned: u64,
    /// The stream trimmed them while they were dead letters.
    pub dead_letters: u64,
    /// There were more dead letters than [`max_dead_letters`](crate::QueueConfig::max_dead_letters).
    pub dead_letter_overflow: u64,
}

impl LostRecords {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.unread + self.returned + self.dead_letters + self.dead_letter_overflow
    }
}

/// What a queue tells of itself: `QueueDescription`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueDescription {
    /// Its name.
    pub name: String,
    /// The stream's name.
    pub stream: String,
    /// When it was created.
    pub created: Timestamp,
    /// Where it began.
    pub start: QueueStart,
    /// The present visibility timeout.
    pub visibility_timeout: Duration,
    /// The present rule for dead letters.
    pub dead_letters: DeadLetters,
    /// Whether it was closed.
    pub is_closed: bool,
}
