//! What a topic and a subscription count, as plain snapshots.

use sim_core::time::Timestamp;

/// A snapshot of a topic, in the field's terms. While other threads work on the topic the numbers are taken one
/// after the other, not at one instant.
///
/// Counts run from the topic's construction; the sums over subscriptions include those that are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Stats {
    /// Messages taken in (`NumberOfMessagesPublished`); duplicates do not count.
    pub published: u64,
    /// Bytes of these (`PublishSize`), where the topic knows the size of its values.
    pub published_bytes: u64,
    /// Publishes that were dropped as duplicates.
    pub deduplicated: u64,
    /// Publishes that were refused.
    pub refused: u64,
    /// Subscriptions that get messages (`SubscriptionsConfirmed`), receivers included.
    pub subscriptions_confirmed: u64,
    /// Endpoints that have not confirmed yet (`SubscriptionsPending`).
    pub subscriptions_pending: u64,
    /// Subscriptions and receivers that are over (`SubscriptionsDeleted`).
    pub subscriptions_deleted: u64,
    /// Messages in the archive.
    pub archived: u64,
    /// Bytes of these, as far as the topic knows their size.
    pub archived_bytes: u64,
    /// When the oldest of these was published (`BeginningArchiveTime`).
    pub archive_beginning: Option<Timestamp>,
    /// Messages that left the archive because their retention was over.
    pub archive_expired: u64,
    /// Messages that left the archive because it was full, before their retention was over.
    pub archive_evicted: u64,
    /// Bytes of memory that the receivers' log holds.
    pub log_bytes: u64,
    /// Messages that receivers got.
    pub received: u64,
    /// Messages that receivers lost because they fell behind.
    pub lagged: u64,
    /// The sum over all subscriptions but receivers on the log.
    pub subscriptions: SubscriptionStats,
}

/// A snapshot of a subscription, in the field's terms.
///
/// In quiescence `accepted = delivered + pending + redriven + dropped.total()`: no message leaves uncounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SubscriptionStats {
    /// Messages that passed the filter, replayed ones included.
    pub accepted: u64,
    /// Messages that the subscriber took (`NumberOfNotificationsDelivered`).
    pub delivered: u64,
    /// Messages that it did not take in the end (`NumberOfNotificationsFailed`): redriven or dropped.
    pub failed: u64,
    /// Messages accepted and not decided yet: in the backlog, waiting for a retry, or being handled.
    pub pending: u64,
    /// Of the pending ones, those being handled.
    pub in_flight: u64,
    /// Messages that the filter kept away, by reason.
    pub filtered: FilteredOut,
    /// Tries after a first one that failed.
    pub retried: u64,
    /// Times that a delivery was put off because of the throttle.
    pub throttled: u64,
    /// Messages handed to the dead-letter sink (`NumberOfNotificationsRedrivenToDlq`).
    pub redriven: u64,
    /// Messages that the dead-letter sink refused for good (`NumberOfNotificationsFailedToRedriveToDlq`); they
    /// count under [`dropped`](Self::dropped) too.
    pub failed_to_redrive: u64,
    /// Messages dropped, by reason.
    pub dropped: Dropped,
    /// Of the accepted ones, those that came from the archive.
    pub replayed: u64,
}

impl SubscriptionStats {
    /// Adds the counts of another subscription.
    pub(crate) const fn absorb(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.delivered += other.delivered;
        self.failed += other.failed;
        self.pending += other.pending;
        self.in_flight += other.in_flight;
        self.filtered.attributes += other.filtered.attributes;
        self.filtered.no_attributes += other.filtered.no_attributes;
        self.filtered.invalid_attributes += other.filtered.invalid_attributes;
        self.filtered.body += other.filtered.body;
        self.filtered.invalid_body += other.filtered.invalid_body;
        self.retried += other.retried;
        self.throttled += other.throttled;
        self.redriven += other.redriven;
        self.failed_to_redrive += other.failed_to_redrive;
        self.dropped.client_error += other.dropped.client_error;
        self.dropped.exhausted += other.dropped.exhausted;
        self.dropped.overflow += other.dropped.overflow;
        self.dropped.not_redriven += other.dropped.not_redriven;
        self.dropped.unsubscribed += other.dropped.unsubscribed;
        self.replayed += other.replayed;
    }
}

/// Messages that a filter kept away, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct FilteredOut {
    /// The attributes do not match (`NumberOfNotificationsFilteredOut-MessageAttributes`), or a closure said no.
    pub attributes: u64,
    /// There are no attributes (`...-NoMessageAttributes`).
    pub no_attributes: u64,
    /// The attributes are no valid ones (`...-InvalidAttributes`).
    pub invalid_attributes: u64,
    /// The body does not match (`...-MessageBody`).
    pub body: u64,
    /// The body is no JSON object (`...-InvalidMessageBody`).
    pub invalid_body: u64,
}

impl FilteredOut {
    /// All of them (`NumberOfNotificationsFilteredOut`).
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.attributes
            .wrapping_add(self.no_attributes)
            .wrapping_add(self.invalid_attributes)
            .wrapping_add(self.body)
            .wrapping_add(self.invalid_body)
    }
}

/// Messages that a subscription dropped, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Dropped {
    /// Refused for good by the subscriber, without a dead-letter sink.
    pub client_error: u64,
    /// All tries failed, without a dead-letter sink.
    pub exhausted: u64,
    /// The backlog was full, without a dead-letter sink.
    pub overflow: u64,
    /// The dead-letter sink refused them.
    pub not_redriven: u64,
    /// They were pending when the subscription ended or the topic was closed.
    pub unsubscribed: u64,
}

impl Dropped {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.client_error
            .wrapping_add(self.exhausted)
            .wrapping_add(self.overflow)
            .wrapping_add(self.not_redriven)
            .wrapping_add(self.unsubscribed)
    }
}

/// A snapshot of a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ReceiverStats {
    /// Messages that it got.
    pub received: u64,
    /// Messages that it lost because it fell behind.
    pub lagged: u64,
    /// Messages that wait for it.
    pub behind: u64,
}
