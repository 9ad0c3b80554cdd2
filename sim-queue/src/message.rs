//! What is sent: a payload with the little that the queue must know about it.

use std::fmt;
use std::time::Duration;

use sha2::{Digest, Sha256};
use sim_core::attributes::Attributes;
use sim_core::id::Id;
use sim_core::payload::Payload;
use sim_core::time::Instant;

use crate::dead_letter::Origin;
use crate::group::{DeduplicationId, GroupId, SequenceNumber};

/// A payload on its way into a queue.
///
/// A plain value is a message already: `queue.try_send(value)`. What most messages do without (attributes, a
/// delay, ...) stands in one allocation that only messages with such headers have; a group alone needs none.
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
    pub(crate) headers: Attached<T>,
}

/// What a message carries beside its payload: mostly nothing, and on FIFO and fair queues just its group. A
/// group that is alone stands inline, so that such a message allocates nothing.
pub(crate) enum Attached<T> {
    Nothing,
    Group(GroupId),
    Headers(Box<Headers<T>>),
}

impl<T> Attached<T> {
    #[inline]
    pub(crate) const fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    #[inline]
    pub(crate) fn group(&self) -> Option<&GroupId> {
        match self {
            Self::Nothing => None,
            Self::Group(group) => Some(group),
            Self::Headers(headers) => headers.group.as_ref(),
        }
    }

    /// The headers, unless there is nothing or a group alone.
    #[inline]
    pub(crate) fn headers(&self) -> Option<&Headers<T>> {
        match self {
            Self::Headers(headers) => Some(headers),
            Self::Nothing | Self::Group(_) => None,
        }
    }

    /// As [`headers`](Self::headers), to be changed.
    pub(crate) fn headers_mut(&mut self) -> Option<&mut Headers<T>> {
        match self {
            Self::Headers(headers) => Some(headers),
            Self::Nothing | Self::Group(_) => None,
        }
    }

    /// Makes room for more than a group.
    fn make_headers(&mut self) -> &mut Headers<T> {
        if !matches!(self, Self::Headers(_)) {
            let headers = std::mem::replace(self, Self::Nothing)
                .into_headers()
                .unwrap_or_default();
            *self = Self::Headers(headers);
        }
        match self {
            Self::Headers(headers) => headers,
            Self::Nothing | Self::Group(_) => unreachable!("made above"),
        }
    }

    /// In one word, for a ring whose messages have none as a rule.
    #[inline]
    pub(crate) fn into_headers(self) -> Option<Box<Headers<T>>> {
        match self {
            Self::Nothing => None,
            Self::Headers(headers) => Some(headers),
            Self::Group(group) => Some(Box::new(Headers {
                group: Some(group),
                ..Headers::default()
            })),
        }
    }
}

impl<T> From<Option<Box<Headers<T>>>> for Attached<T> {
    #[inline]
    fn from(headers: Option<Box<Headers<T>>>) -> Self {
        headers.map_or(Self::Nothing, Self::Headers)
    }
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
        Self {
            value,
            headers: Attached::Nothing,
        }
    }

    pub(crate) fn headers_mut(&mut self) -> &mut Headers<T> {
        self.headers.make_headers()
    }

    /// Puts the message into a group: the order that a FIFO queue keeps, the tenant of a fair queue.
    #[must_use]
    #[inline]
    pub fn group(mut self, group: GroupId) -> Self {
        match &mut self.headers {
            Attached::Headers(headers) => headers.group = Some(group),
            alone => *alone = Attached::Group(group),
        }
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
        self.headers.group()
    }

    /// Applies `convert` to the payload and keeps the rest. What a dead letter knows of its source is
    /// dropped, since the source holds payloads of the former type.
    #[must_use]
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Message<U> {
        let headers = match self.headers {
            Attached::Nothing => Attached::Nothing,
            Attached::Group(group) => Attached::Group(group),
            Attached::Headers(headers) => {
                let Headers {
                    group,
                    deduplication_id,
                    delay,
                    attributes,
                    trace,
                    origin: _,
                    id,
                    sent_at,
                } = *headers;
                Attached::Headers(Box::new(Headers {
                    group,
                    deduplication_id,
                    delay,
                    attributes,
                    trace,
                    origin: None,
                    id,
                    sent_at,
                }))
            }
        };
        Message {
            value: convert(self.value),
            headers,
        }
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
        if let Some(group) = self.group_id() {
            out.field("group", group);
        }
        if let Some(headers) = self.headers.headers() {
            out.field("deduplication_id", &headers.deduplication_id)
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

/// What a message is on the way through a format: its payload and what its sender said of it. What only the queue
/// knows (an id or time that it keeps, where a dead letter comes from) stays behind.
#[cfg(feature = "serde")]
mod wire {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use sim_core::attributes::Attributes;

    use super::Message;
    use crate::group::{DeduplicationId, GroupId};

    #[derive(Serialize)]
    struct Out<'a, T> {
        value: &'a T,
        #[serde(skip_serializing_if = "Option::is_none")]
        group: Option<&'a GroupId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        deduplication_id: Option<&'a DeduplicationId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        delay: Option<Duration>,
        #[serde(skip_serializing_if = "Option::is_none")]
        attributes: Option<&'a Attributes>,
        #[serde(skip_serializing_if = "Option::is_none")]
        trace_header: Option<&'a str>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct In<T> {
        value: T,
        group: Option<GroupId>,
        deduplication_id: Option<DeduplicationId>,
        delay: Option<Duration>,
        attributes: Option<Attributes>,
        trace_header: Option<String>,
    }

    impl<T: Serialize> Serialize for Message<T> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let headers = self.headers.headers();
            Out {
                value: &self.value,
                group: self.group_id(),
                deduplication_id: headers.and_then(|headers| headers.deduplication_id.as_ref()),
                delay: headers.and_then(|headers| headers.delay),
                attributes: headers
                    .map(|headers| &headers.attributes)
                    .filter(|attributes| !attributes.is_empty()),
                trace_header: headers.and_then(|headers| headers.trace.as_deref()),
            }
            .serialize(serializer)
        }
    }

    impl<'de, T: Deserialize<'de>> Deserialize<'de> for Message<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let In {
                value,
                group,
                deduplication_id,
                delay,
                attributes,
                trace_header,
            } = In::deserialize(deserializer)?;
            let mut message = Self::new(value);
            if let Some(group) = group {
                message = message.group(group);
            }
            if let Some(id) = deduplication_id {
                message = message.deduplication_id(id);
            }
            if let Some(delay) = delay {
                message = message.delay(delay);
            }
            if let Some(attributes) = attributes {
                message = message.attributes(attributes);
            }
            if let Some(trace) = trace_header {
                message = message.trace_header(trace);
            }
            Ok(message)
        }
    }
}
