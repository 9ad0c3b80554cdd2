//! The stream at the seams of the family: what delivers to it, measures or drives it knows no stream.

use sim_core::payload::Payload;
use sim_core::seam::{Depth, Gauge, Refused, Sink, Timed};
use sim_core::time::Instant;

use crate::error::{PutError, Refusal};
use crate::message::Record;
use crate::stream::Stream;

impl<T: Send + Sync + 'static> Sink<Record<T>> for Stream<T> {
    fn try_deliver(&self, item: Record<T>) -> Result<(), Refused<Record<T>>> {
        let PutError { record, reason } = match self.try_put(item) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        Err(match reason {
            Refusal::Closed => Refused::closed(*record),
            Refusal::Full { .. } => Refused::full(*record, self.next_deadline()),
            Refusal::Throttled { retry_at, .. } => Refused::full(*record, Some(retry_at)),
            reason => Refused::rejected(*record, reason),
        })
    }
}

/// Without a key: for a stream that distributes by itself ([`RecordDistribution::Auto`](crate::RecordDistribution::Auto)).
/// Others reject the item.
impl<T: Send + Sync + 'static> Sink<T> for Stream<T> {
    fn try_deliver(&self, item: T) -> Result<(), Refused<T>> {
        Sink::<Record<T>>::try_deliver(self, Record::keyless(item))
            .map_err(|refused| refused.map(|record| record.value))
    }
}

/// Bytes without a key: for a stream that distributes by itself. Others reject the item.
impl Sink<Payload> for Stream<()> {
    fn try_deliver(&self, item: Payload) -> Result<(), Refused<Payload>> {
        Sink::<Record<()>>::try_deliver(self, Record::keyless_bytes(item))
            .map_err(|refused| refused.map(|record| record.data))
    }
}

/// What is retained; who has read how much of it, the stream does not know: see the gauges of consumers.
impl<T: Send + Sync + 'static> Gauge for Stream<T> {
    fn depth(&self) -> Depth {
        let stats = self.stats();
        Depth {
            waiting: stats.records,
            in_flight: 0,
            delayed: 0,
            oldest_age: stats.oldest_age,
        }
    }
}

impl<T: Send + Sync + 'static> Timed for Stream<T> {
    fn next_deadline(&self) -> Option<Instant> {
        Self::next_deadline(self)
    }

    fn advance(&self, now: Instant) {
        self.advance_to(now);
    }
}
