//! Dead letters: messages that were received too often, on their way to any sink.

use std::fmt;

use sim_core::id::Id;
use sim_core::seam::{Refused, Sink};
use sim_core::sync::atomic::Ordering;
use sim_core::sync::{Arc, Mutex};
use sim_core::time::{Instant, Timestamp};

use crate::message::Message;
use crate::queue::Queue;
use crate::shared::{Shared, Slots, Stored};

/// SQS's bound on `maxReceiveCount`.
pub const MAX_RECEIVES: u32 = 1000;

/// Why a message became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum DeadLetterReason {
    /// Its lease ended, or it was returned, after it had been received `max_receives` times.
    MaxReceives,
    /// Its consumer rejected it: see [`Delivery::reject`](crate::Delivery::reject).
    Rejected,
}

/// A message that its queue gives up, with what is known of it.
pub struct DeadLetter<T> {
    /// The message, with its group and attributes.
    pub message: Message<T>,
    /// Its id, which it keeps.
    pub id: Id,
    /// Why it died.
    pub reason: DeadLetterReason,
    /// The name of the queue that gave it up.
    pub source: String,
    /// How often that queue delivered it.
    pub receive_count: u32,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// When it was first received, if ever.
    pub first_received_at: Option<Timestamp>,
    /// When it died.
    pub died_at: Timestamp,
    pub(crate) return_to: Arc<ReturnAddress<T>>,
}

impl<T: Send + Sync + 'static> DeadLetter<T> {
    pub(crate) fn new(
        shared: &Shared<T>,
        stored: Stored<T>,
        id: Id,
        reason: DeadLetterReason,
        now: Instant,
    ) -> Self {
        let first = stored.first_received.load(Ordering::Relaxed);
        let clock = &shared.clock;
        Self {
            id,
            reason,
            source: shared.config.name.clone(),
            receive_count: stored.receives.load(Ordering::Relaxed),
            sent_at: clock.timestamp(stored.sent_at),
            first_received_at: (first != 0).then(|| clock.timestamp(Instant::from_nanos(first))),
            died_at: clock.timestamp(now),
            return_to: Arc::clone(&shared.return_address),
            message: Message {
                value: stored.value,
                headers: stored.headers,
            },
        }
    }
}

impl<T> fmt::Debug for DeadLetter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("id", &self.id)
            .field("reason", &self.reason)
            .field("source", &self.source)
            .field("receive_count", &self.receive_count)
            .finish_non_exhaustive()
    }
}

/// What a message in a dead-letter queue knows of the queue that gave it up.
pub struct Origin<T> {
    pub(crate) source: String,
    pub(crate) reason: DeadLetterReason,
    pub(crate) receive_count: u32,
    pub(crate) died_at: Timestamp,
    pub(crate) return_to: Arc<ReturnAddress<T>>,
}

impl<T> Origin<T> {
    /// The name of the queue that gave the message up.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Why it was given up.
    #[must_use]
    pub const fn reason(&self) -> DeadLetterReason {
        self.reason
    }

    /// How often the source had delivered it.
    #[must_use]
    pub const fn receive_count(&self) -> u32 {
        self.receive_count
    }

    /// When it was given up.
    #[must_use]
    pub const fn died_at(&self) -> Timestamp {
        self.died_at
    }
}

impl<T> fmt::Debug for Origin<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin")
            .field("source", &self.source)
            .field("reason", &self.reason)
            .field("receive_count", &self.receive_count)
            .finish_non_exhaustive()
    }
}

impl<T> DeadLetter<T> {
    /// Turns the letter into the message that a dead-letter queue stores.
    pub(crate) fn into_message(self) -> Message<T> {
        let Self {
            mut message,
            id,
            reason,
            source,
            receive_count,
            died_at,
            return_to,
            ..
        } = self;
        let headers = message.headers_mut();
        headers.id = Some(id);
        headers.origin = Some(Box::new(Origin {
            source,
            reason,
            receive_count,
            died_at,
            return_to,
        }));
        message
    }
}

/// What a letter says of itself, kept while it is offered as a message.
pub(crate) struct Facts<T> {
    id: Id,
    reason: DeadLetterReason,
    source: String,
    receive_count: u32,
    sent_at: Timestamp,
    first_received_at: Option<Timestamp>,
    died_at: Timestamp,
    return_to: Arc<ReturnAddress<T>>,
}

impl<T> Facts<T> {
    /// Makes the letter again whose message was refused.
    pub(crate) fn into_letter(self, mut message: Message<T>) -> DeadLetter<T> {
        if let Some(headers) = message.headers.headers_mut() {
            headers.id = None;
            headers.sent_at = None;
            headers.origin = None;
        }
        let Self {
            id,
            reason,
            source,
            receive_count,
            sent_at,
            first_received_at,
            died_at,
            return_to,
        } = self;
        DeadLetter {
            message,
            id,
            reason,
            source,
            receive_count,
            sent_at,
            first_received_at,
            died_at,
            return_to,
        }
    }
}

impl<T> DeadLetter<T> {
    pub(crate) fn facts(&self) -> Facts<T> {
        Facts {
            id: self.id,
            reason: self.reason,
            source: self.source.clone(),
            receive_count: self.receive_count,
            sent_at: self.sent_at,
            first_received_at: self.first_received_at,
            died_at: self.died_at,
            return_to: Arc::clone(&self.return_to),
        }
    }
}

/// Where dead letters go and when a message is one.
pub struct DeadLetterPolicy<T: Send + Sync + 'static> {
    pub(crate) target: Target<T>,
    pub(crate) max_receives: u32,
}

pub(crate) enum Target<T: Send + Sync + 'static> {
    Queue(Queue<T>),
    Sink(Arc<dyn Sink<DeadLetter<T>>>),
}

impl<T: Send + Sync + 'static> DeadLetterPolicy<T> {
    /// Sends what was received `max_receives` times in vain to another queue.
    ///
    /// The policy keeps `queue` alive. Two queues that are each other's target keep each other alive until
    /// one of them is told otherwise by
    /// [`clear_dead_letters`](Queue::clear_dead_letters).
    #[must_use]
    pub fn to_queue(queue: &Queue<T>, max_receives: u32) -> Self {
        Self {
            target: Target::Queue(queue.clone()),
            max_receives,
        }
    }

    /// Sends what was received `max_receives` times in vain to any sink. A letter that the sink refuses
    /// stays with its queue, counts as in flight, and is offered again each second.
    #[must_use]
    pub fn to_sink(sink: Arc<dyn Sink<DeadLetter<T>>>, max_receives: u32) -> Self {
        Self {
            target: Target::Sink(sink),
            max_receives,
        }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for DeadLetterPolicy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetterPolicy")
            .field("max_receives", &self.max_receives)
            .finish_non_exhaustive()
    }
}

/// The policy as the queue keeps it.
pub(crate) struct Policy<T> {
    pub(crate) sink: Arc<dyn Sink<DeadLetter<T>>>,
    pub(crate) max_receives: u32,
}

/// The way back to a queue, for its dead letters. Cleared when the queue's last handle goes, so that a
/// letter does not keep its source alive.
pub(crate) struct ReturnAddress<T> {
    home: Mutex<Option<Arc<dyn Home<T>>>>,
}

impl<T> Default for ReturnAddress<T> {
    fn default() -> Self {
        Self {
            home: Mutex::new(None),
        }
    }
}

impl<T: Send + Sync + 'static> ReturnAddress<T> {
    pub(crate) fn set(&self, slots: Slots<T>) {
        *self.home.lock() = Some(Arc::new(slots));
    }

    pub(crate) fn clear(&self) {
        let former = self.home.lock().take();
        drop(former);
    }

    fn home(&self) -> Option<Arc<dyn Home<T>>> {
        self.home.lock().clone()
    }

    pub(crate) fn deliver(&self, message: Message<T>) -> Result<(), Refused<Message<T>>> {
        match self.home() {
            Some(home) => home.deliver(message),
            None => Err(Refused::closed(message)),
        }
    }

    /// Puts a message back that was here before: never refused while the queue has a handle.
    pub(crate) fn take_back(&self, message: Message<T>) {
        if let Some(home) = self.home() {
            home.take_back(message);
        }
    }
}

/// The queue behind an address.
trait Home<T>: Send + Sync {
    fn deliver(&self, message: Message<T>) -> Result<(), Refused<Message<T>>>;
    fn take_back(&self, message: Message<T>);
}

impl<T: Send + Sync + 'static> Home<T> for Slots<T> {
    fn deliver(&self, message: Message<T>) -> Result<(), Refused<Message<T>>> {
        crate::queue::deliver_internally(self, message)
    }

    fn take_back(&self, message: Message<T>) {
        crate::queue::take_back(self, message);
    }
}
