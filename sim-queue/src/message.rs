//! What is sent: a payload with the little that the queue must know about it.

use std::fmt;
use std::time::Duration;

use sim_core::attributes::Attributes;
use sim_core::id::Id;
use sim_core::payload::Payload;
use sim_core::time::Instant;
use sha2::{Digest, Sha256};

use crate::dead_letter::Origin;
use crate::group::{DeduplicationId, GroupId, SequenceNumber};

/// A payload on its way into a queue.
///
/// A plain value is a message already: `queue.try_send(value)`. What most messages do without (group,
/// attributes, ...) stands in one allocation that only messages with such headers have.
///
/// ```
/// use std::time::Duration;
/// use sim_queue::{GroupId, Message};
///
/// let message = Message::new("order 7")
///     .group(GroupId::new("customer-12")?)
///     .delay(Duration::from_secs(5));
/// assert_eq!(message.value, "order 7");
/// # Ok::<(), sim_queue::IdError>(())
/// ```
pub struct Message<T> {
    /// The payload.
    pub value: T,
    pub(crate) headers: Option<Box<Headers<T>>>,
}

/// What some messages carry beside the payload.
pub(crate) struct Headers<T> {
    pub(crate) group: Option<GroupId>,
    pub(crate) deduplication_id: Option<DeduplicationId>,
    pub(crate) delay: Option<Duration>,
    pub(crate) attributes: Attributes,
    pub(crate) trace: Option<String>,
    /// Where a dead letter comes from.
    pub(crate) origin: Option<Box<Origin<T>>>,
    /// The id and the time of sending that a moved message keeps.
    pub(crate) id: Option<Id>,
    pub(crate) sent_at: Option<Instant>,
}

impl<T> Default for Headers<T> {
    fn default() -> Self {
        Self {
            group: None,
            deduplication_id: None,
            delay: None,
            attributes: Attributes::default(),
            trace: None,
            origin: None,
            id: None,
            sent_at: None,
        }
    }
}

impl<T> Message<T> {
    /// A message with nothing beside its payload.
    pub const fn new(value: T) -> Self {
        Self { value, headers: None }
    }

    pub(crate) fn headers_mut(&mut self) -> &mut Headers<T> {
        self.headers.get_or_insert_with(Box::default)
    }

    /// Puts the message into a group: the order that a FIFO queue keeps, the tenant of a fair queue.
    #[must_use]
    pub fn group(mut self, group: GroupId) -> Self {
        self.headers_mut().group = Some(group);
        self
    }

    /// Names the tenant on a fair queue: the same field as [`group`](Self::group), as in SQS.
    #[must_use]
    pub fn tenant(self, tenant: GroupId) -> Self {
        self.group(tenant)
    }

    /// Names what is sent, so that a FIFO queue takes it once within its window.
    #[must_use]
    pub fn deduplication_id(mut self, id: DeduplicationId) -> Self {
        self.headers_mut().deduplication_id = Some(id);
        self
    }

    /// Hides the message for a while after it was sent, instead of the queue's own delay.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.headers_mut().delay = Some(delay);
        self
    }

    /// Replaces the message's attributes.
    #[must_use]
    pub fn attributes(mut self, attributes: Attributes) -> Self {
        self.headers_mut().attributes = attributes;
        self
    }

    /// Attaches a trace header (SQS's `AWSTraceHeader`): carried along, counted nowhere.
    #[must_use]
    pub fn trace_header(mut self, trace: impl Into<String>) -> Self {
        self.headers_mut().trace = Some(trace.into());
        self
    }

    /// The group, where one was set.
    #[must_use]
    pub fn group_id(&self) -> Option<&GroupId> {
        self.headers.as_ref()?.group.as_ref()
    }

    /// Applies `convert` to the payload and keeps the rest. What a dead letter knows of its source is
    /// dropped, since the source holds payloads of the former type.
    #[must_use]
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Message<U> {
        let headers = self.headers.map(|headers| {
            let Headers { group, deduplication_id, delay, attributes, trace, origin: _, id, sent_at } =
                *headers;
            Box::new(Headers {
                group,
                deduplication_id,
                delay,
                attributes,
                trace,
                origin: None,
                id,
                sent_at,
            })
        });
        Message { value: convert(self.value), headers }
    }
}

impl<T> From<T> for Message<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: fmt::Debug> fmt::Debug for Message<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Message");
        out.field("value", &self.value);
        if let Some(headers) = &self.headers {
            out.field("group", &headers.group)
                .field("deduplication_id", &headers.deduplication_id)
                .field("delay", &headers.delay)
                .field("attributes", &headers.attributes);
        }
        out.finish_non_exhaustive()
    }
}

/// The SHA-256 of a payload: what SQS de-duplicates by when it does so by content.
pub(crate) fn sha256(payload: &Payload) -> [u8; 32] {
    Sha256::digest(&payload[..]).into()
}

/// What a queue says of a message that it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Sent {
    /// The message's id. A duplicate gets the id of the first.
    pub id: Id,
    /// The message's place in the order of a FIFO queue. A duplicate gets that of the first.
    pub sequence: Option<SequenceNumber>,
    /// Whether the same message was sent before within the window, so that this one was dropped.
    pub duplicate: bool,
}
