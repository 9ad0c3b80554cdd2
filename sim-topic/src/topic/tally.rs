//! What is counted for one subscription.

use sim_core::counter::Counters;

use crate::filter::Reason;
use crate::stats::{Dropped, FilteredOut, SubscriptionStats};

/// What is counted, as an index into the [`Tally`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    /// Accepted, and put into the lane or tried in vain.
    Accepted,
    /// Accepted and delivered at once: the usual case, one addition.
    Direct,
    /// Delivered out of the lane.
    Delivered,
    Failed,
    Retried,
    Throttled,
    Redriven,
    Replayed,
    FilteredAttributes,
    FilteredNoAttributes,
    FilteredInvalidAttributes,
    FilteredBody,
    FilteredInvalidBody,
    DroppedClientError,
    DroppedExhausted,
    DroppedOverflow,
    DroppedNotRedriven,
    DroppedUnsubscribed,
    /// Matched, while the index said this of those that did not: five, in the order of the filtered ones.
    Excused,
}

/// How many reasons there are to filter a message.
pub(crate) const REASONS: usize = 5;

/// A reason as a number: those of attributes first.
pub(crate) const fn place_of(reason: Reason) -> usize {
    match reason {
        Reason::MessageAttributes => 0,
        Reason::NoMessageAttributes => 1,
        Reason::InvalidAttributes => 2,
        Reason::MessageBody => 3,
        Reason::InvalidMessageBody => 4,
    }
}

/// How many kinds there are.
const KINDS: usize = Count::Excused as usize + REASONS;

/// The counts of one subscription.
#[derive(Debug, Default)]
pub(crate) struct Tally(Counters<KINDS>);

impl Tally {
    #[inline]
    pub(crate) fn add(&self, count: Count, n: u64) {
        self.0.add(count as usize, n);
    }

    pub(crate) fn filtered(&self, reason: Reason) {
        self.0
            .add(Count::FilteredAttributes as usize + place_of(reason), 1);
    }

    /// It matched, while an index that holds it says this of the others.
    pub(crate) fn excuse(&self, otherwise: Reason) {
        self.0.add(Count::Excused as usize + place_of(otherwise), 1);
    }

    pub(crate) fn excused(&self) -> [u64; REASONS] {
        std::array::from_fn(|place| self.0.sum(Count::Excused as usize + place))
    }

    /// Adds what an index counted for all it holds.
    pub(crate) fn add_filtered(&self, filtered: [u64; REASONS]) {
        for (place, n) in filtered.into_iter().enumerate() {
            self.0.add(Count::FilteredAttributes as usize + place, n);
        }
    }

    /// The counts, without what is pending.
    pub(crate) fn stats(&self) -> SubscriptionStats {
        let sums = self.0.sums();
        let of = |count: Count| sums[count as usize];
        SubscriptionStats {
            accepted: of(Count::Accepted) + of(Count::Direct),
            delivered: of(Count::Delivered) + of(Count::Direct),
            failed: of(Count::Failed),
            pending: 0,
            in_flight: 0,
            filtered: FilteredOut {
                attributes: of(Count::FilteredAttributes),
                no_attributes: of(Count::FilteredNoAttributes),
                invalid_attributes: of(Count::FilteredInvalidAttributes),
                body: of(Count::FilteredBody),
                invalid_body: of(Count::FilteredInvalidBody),
            },
            retried: of(Count::Retried),
            throttled: of(Count::Throttled),
            redriven: of(Count::Redriven),
            failed_to_redrive: of(Count::DroppedNotRedriven),
            dropped: Dropped {
                client_error: of(Count::DroppedClientError),
                exhausted: of(Count::DroppedExhausted),
                overflow: of(Count::DroppedOverflow),
                not_redriven: of(Count::DroppedNotRedriven),
                unsubscribed: of(Count::DroppedUnsubscribed),
            },
            replayed: of(Count::Replayed),
        }
    }
}
