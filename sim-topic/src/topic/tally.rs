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
}

/// How many kinds there are.
const KINDS: usize = Count::DroppedUnsubscribed as usize + 1;

/// The counts of one subscription.
#[derive(Debug, Default)]
pub(crate) struct Tally(Counters<KINDS>);

impl Tally {
    #[inline]
    pub(crate) fn add(&self, count: Count, n: u64) {
        self.0.add(count as usize, n);
    }

    pub(crate) fn filtered(&self, reason: Reason) {
        self.add(
            match reason {
                Reason::MessageAttributes => Count::FilteredAttributes,
                Reason::NoMessageAttributes => Count::FilteredNoAttributes,
                Reason::InvalidAttributes => Count::FilteredInvalidAttributes,
                Reason::MessageBody => Count::FilteredBody,
                Reason::InvalidMessageBody => Count::FilteredInvalidBody,
            },
            1,
        );
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
