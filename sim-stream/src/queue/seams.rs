//! The queue at the seams of the family.

use sim_core::seam::{Depth, Gauge, Source, Timed};
use sim_core::time::Instant;

use crate::queue::{QueueRecord, Receive, StreamQueue};

/// Takes one record at a time, leased for the queue's visibility timeout.
impl<T: Send + Sync + 'static> Source<QueueRecord<T>> for StreamQueue<T> {
    fn try_take(&self) -> Option<QueueRecord<T>> {
        self.try_receive(Receive::up_to(1)).ok()?.pop()
    }
}

/// Dead letters do not count: no consumer makes them fewer.
impl<T: Send + Sync + 'static> Gauge for StreamQueue<T> {
    fn depth(&self) -> Depth {
        let stats = self.stats();
        Depth {
            waiting: stats.visible,
            in_flight: stats.in_flight,
            delayed: stats.delayed,
            oldest_age: stats.oldest_age,
        }
    }
}

/// The ends of leases and delays. The stream has deadlines of its own.
impl<T: Send + Sync + 'static> Timed for StreamQueue<T> {
    fn next_deadline(&self) -> Option<Instant> {
        Self::next_deadline(self)
    }

    fn advance(&self, now: Instant) {
        self.advance_to(now);
    }
}
