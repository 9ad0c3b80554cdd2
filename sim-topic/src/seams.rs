//! The topic at the seams of the family: what publishes to it, takes from it, measures or drives it knows no topic.
//!
//! # Topics in a circle
//! Topics that subscribe to each other may do so in a circle. A message that has come through [`MAX_HOPS`] of them is
//! rejected by the next one, so that it does not go round for ever; and a publish within so many others, on one
//! thread, is rejected as well, whatever it publishes, since each takes a part of the stack.

use std::cell::Cell;

use sim_core::seam::{Depth, Gauge, Refused, Sink, Timed};
use sim_core::time::Instant;

use crate::error::{PublishError, Refusal};
use crate::message::{Message, Notification};
use crate::subscription::Subscription;
use crate::topic::Topic;

/// The longest chain of topics that a message goes through: 32. A limit of this crate.
pub const MAX_HOPS: u8 = 32;

thread_local! {
    /// How many deliveries into topics are under way on this thread, each within the one before.
    static DEPTH: Cell<u8> = const { Cell::new(0) };
}

/// A delivery into a topic.
struct Nested;

impl Nested {
    /// None when too many are under way.
    fn enter() -> Option<Self> {
        DEPTH.with(|depth| {
            let next = depth.get() + 1;
            (next <= MAX_HOPS).then(|| {
                depth.set(next);
                Self
            })
        })
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        DEPTH.with(|depth| depth.set(depth.get() - 1));
    }
}

/// Why a message goes no further.
fn too_far() -> String {
    format!("it came through {MAX_HOPS} topics: they may stand in a circle")
}

/// Rejects what is delivered within more than [`MAX_HOPS`] other deliveries into topics.
impl<T: Send + Sync + 'static> Sink<T> for Topic<T> {
    fn try_deliver(&self, item: T) -> Result<(), Refused<T>> {
        Sink::<Message<T>>::try_deliver(self, Message::new(item))
            .map_err(|refused| refused.map(|message| message.value))
    }
}

impl<T: Send + Sync + 'static> Sink<Message<T>> for Topic<T> {
    fn try_deliver(&self, item: Message<T>) -> Result<(), Refused<Message<T>>> {
        let Some(_nested) = Nested::enter() else {
            return Err(Refused::rejected(item, too_far()));
        };
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

/// A topic whose values can be cloned subscribes to another one. It rejects a message that has come through
/// [`MAX_HOPS`] topics.
impl<T: Clone + Send + Sync + 'static> Sink<Notification<T>> for Topic<T> {
    fn try_deliver(&self, item: Notification<T>) -> Result<(), Refused<Notification<T>>> {
        let mut message = item.message().clone();
        if message.hop() > MAX_HOPS {
            return Err(Refused::rejected(item, too_far()));
        }
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
