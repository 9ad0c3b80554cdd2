//! What a queue counts, as one plain snapshot.

use std::time::Duration;

/// A snapshot of a queue, in the field's terms. Cheap enough to be read each second; while other threads
/// work on the queue the numbers are taken one after the other, not at one instant.
///
/// Counts run from the queue's construction. In quiescence
/// `sent = visible + in_flight + delayed + deleted + expired + redriven + moved + purged`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Stats {
    /// Messages that a receive could get now (`ApproximateNumberOfMessagesVisible`).
    pub visible: u64,
    /// Messages received and neither acknowledged nor returned (`...NotVisible`), dead letters that their
    /// sink refused for now included.
    pub in_flight: u64,
    /// Messages hidden by their delay (`...Delayed`).
    pub delayed: u64,
    /// Age of the oldest visible message (`ApproximateAgeOfOldestMessage`).
    pub oldest_age: Option<Duration>,
    /// Messages taken in (`NumberOfMessagesSent`); duplicates do not count.
    pub sent: u64,
    /// Deliveries made (`NumberOfMessagesReceived`).
    pub received: u64,
    /// Messages acknowledged (`NumberOfMessagesDeleted`).
    pub deleted: u64,
    /// Receives that found nothing (`NumberOfEmptyReceives`).
    pub empty_receives: u64,
    /// Messages handed to the dead-letter sink.
    pub redriven: u64,
    /// Messages moved away by move tasks.
    pub moved: u64,
    /// Messages dropped because their retention was over.
    pub expired: u64,
    /// Messages dropped by a purge or by closing.
    pub purged: u64,
    /// Leases that ran out.
    pub lapsed: u64,
    /// Leases that their holder gave back.
    pub released: u64,
    /// Sends that were dropped as duplicates (`NumberOfDeduplicatedSentMessages`).
    pub deduplicated: u64,
    /// Message groups with messages in flight (`ApproximateNumberOfGroupsWithInflightMessages`).
    pub groups_in_flight: u64,
    /// Tenants that count as noisy now (`ApproximateNumberOfNoisyGroups`).
    pub noisy_groups: u64,
    /// Visible messages of quiet tenants.
    pub visible_in_quiet_groups: u64,
    /// Messages in flight of quiet tenants.
    pub in_flight_in_quiet_groups: u64,
    /// Delayed messages of quiet tenants.
    pub delayed_in_quiet_groups: u64,
}
