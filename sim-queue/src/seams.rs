//! The queue at the seams of the family: what delivers, takes, measures or drives it knows no queue.

use sim_core::seam::{Depth, Gauge, Refused, Sink, Source, Timed};
use sim_core::time::Instant;

use crate::dead_letter::DeadLetter;
use crate::delivery::Delivery;
use crate::error::{Refusal, TrySendError};
use crate::message::Message;
use crate::queue::{Queue, deliver_internally};

impl<T: Send + Sync + 'static> Sink<T> for Queue<T> {
    fn try_deliver(&self, item: T) -> Result<(), Refused<T>> {
        Sink::<Message<T>>::try_deliver(self, Message::new(item))
            .map_err(|refused| refused.map(|message| message.value))
    }
}

impl<T: Send + Sync + 'static> Sink<Message<T>> for Queue<T> {
    fn try_deliver(&self, item: Message<T>) -> Result<(), Refused<Message<T>>> {
        match self.send_now(item) {
            Ok(_) => Ok(()),
            Err(TrySendError {
                message,
                reason: Refusal::Full,
            }) => Err(Refused::full(*message, None)),
            Err(TrySendError {
                message,
                reason: Refusal::Closed,
            }) => Err(Refused::closed(*message)),
            Err(TrySendError { message, reason }) => {
                Err(Refused::rejected(*message, reason.to_string()))
            }
        }
    }
}

impl<T: Send + Sync + 'static> Sink<DeadLetter<T>> for Queue<T> {
    fn try_deliver(&self, letter: DeadLetter<T>) -> Result<(), Refused<DeadLetter<T>>> {
        let shared = self.shared();
        let is_fifo = self.is_fifo();
        let facts = letter.facts();
        let sent_at = shared.clock.instant_of(letter.sent_at);
        let mut message = letter.into_message();
        // SQS: on a standard queue a dead letter's retention counts from its first sending, on a FIFO
        // queue from its arrival here.
        message.headers_mut().sent_at = (!is_fifo).then_some(sent_at);
        message.headers_mut().delay = None;
        deliver_internally(&self.slots, message)
            .map_err(|refused| refused.map(|message| facts.into_letter(message)))
    }
}

impl<T: Send + Sync + 'static> Source<Delivery<T>> for Queue<T> {
    fn try_take(&self) -> Option<Delivery<T>> {
        self.try_receive().ok()
    }
}

impl<T: Send + Sync + 'static> Gauge for Queue<T> {
    fn depth(&self) -> Depth {
        let stats = self.stats();
        Depth {
            waiting: stats.visible,
            in_flight: stats.in_flight,
            delayed: stats.delayed,
            oldest_age: stats.oldest_age,
        }
    }

    /// What was received and deleted.
    fn finished(&self) -> Option<u64> {
        Some(self.stats().deleted)
    }
}

impl<T: Send + Sync + 'static> Timed for Queue<T> {
    fn next_deadline(&self) -> Option<Instant> {
        Self::next_deadline(self)
    }

    fn advance(&self, now: Instant) {
        self.advance_to(now);
    }
}
