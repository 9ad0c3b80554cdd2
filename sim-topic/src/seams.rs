//! The topic at the seams of the family: what publishes to it, takes from it, measures or drives it knows no topic.

use sim_core::seam::{Depth, Gauge, Refused, Sink, Timed};
use sim_core::time::Instant;

use crate::error::{PublishError, Refusal};
use crate::message::{Message, Notification};
use crate::subscription::Subscription;
use crate::topic::Topic;

impl<T: Send + Sync + 'static> Sink<T> for Topic<T> {
    fn try_deliver(&self, item: T) -> Result<(), Refused<T>> {
        Sink::<Message<T>>::try_deliver(self, Message::new(item))
            .map_err(|refused| refused.map(|message| message.value))
    }
}

impl<T: Send + Sync + 'static> Sink<Message<T>> for Topic<T> {
    fn try_deliver(&self, item: Message<T>) -> Result<(), Refused<Message<T>>> {
        match self.try_publish(item) {
            Ok(_) => Ok(()),
            Err(PublishError { message, reason }) => Err(match reason {
                Refusal::Closed => Refused::closed(*message),
                reason if reason.is_temporary() => Refused::full(*message, None),
                reason => Refused::rejected(*message, reason.to_string()),
            }),
        }
    }
}

/// A topic whose values can be cloned subscribes to another one.
impl<T: Clone + Send + Sync + 'static> Sink<Notification<T>> for Topic<T> {
    fn try_deliver(&self, item: Notification<T>) -> Result<(), Refused<Notification<T>>> {
        let mut message = item.message().clone();
        message.forget_sequence();
        if !self.config().kind.is_fifo() {
            message.forget_deduplication();
        }
        match Sink::<Message<T>>::try_deliver(self, message) {
            Ok(()) => Ok(()),
            Err(refused) => Err(refused.map(|_| item)),
        }
    }
}

impl<T: Send + Sync + 'static> Timed for Topic<T> {
    fn next_deadline(&self) -> Option<Instant> {
        Self::next_deadline(self)
    }

    fn advance(&self, now: Instant) {
        Self::advance(self, now);
    }
}

/// The backlog of a subscription, for what scales its subscriber.
impl<T: Send + Sync + 'static> Gauge for Subscription<T> {
    fn depth(&self) -> Depth {
        let stats = self.stats();
        Depth {
            waiting: stats.pending - stats.in_flight.min(stats.pending),
            in_flight: stats.in_flight,
            delayed: 0,
            oldest_age: None,
        }
    }
}
