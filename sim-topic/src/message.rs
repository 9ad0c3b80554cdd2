//! What is published and what arrives.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use sim_core::attributes::Attributes;
use sim_core::clock::Clock;
use sim_core::id::Id;
use sim_core::log::Batch;
use sim_core::sync::Arc;
use sim_core::time::{Instant, Timestamp};

use crate::group::{DeduplicationId, GroupId, SequenceNumber};

/// A value on its way into a topic.
///
/// A plain value is a message already: `topic.try_publish(value)`. What most messages do without stands in one
/// allocation that only messages with such headers have.
///
/// ```
/// use sim_topic::{GroupId, Message};
///
/// let message = Message::new("order 7")
///     .subject("orders")
///     .group(GroupId::new("customer-12")?);
/// assert_eq!(message.value, "order 7");
/// assert_eq!(message.group_id().map(GroupId::as_str), Some("customer-12"));
/// # Ok::<(), sim_topic::IdError>(())
/// ```
pub struct Message<T> {
    /// The payload.
    pub value: T,
    pub(crate) headers: Option<Box<Headers>>,
}

/// What some messages carry beside the payload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) subject: Option<Box<str>>,
    pub(crate) attributes: Attributes,
    pub(crate) group: Option<GroupId>,
    pub(crate) deduplication_id: Option<DeduplicationId>,
    /// Given by the topic, never by the publisher.
    pub(crate) sequence: Option<SequenceNumber>,
    /// How many topics handed it on to the next one.
    pub(crate) hops: u8,
}

/// What a message without attributes answers with.
static NO_ATTRIBUTES: Attributes = Attributes::new();

impl<T> Message<T> {
    /// A message with nothing beside its payload.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self {
            value,
            headers: None,
        }
    }

    pub(crate) fn headers_mut(&mut self) -> &mut Headers {
        self.headers.get_or_insert_default()
    }

    /// A message that is published again gets a place of its own.
    pub(crate) fn forget_sequence(&mut self) {
        if let Some(headers) = &mut self.headers {
            headers.sequence = None;
        }
    }

    /// Counts that a topic hands it on to another one; returns how many have.
    pub(crate) fn hop(&mut self) -> u8 {
        let headers = self.headers_mut();
        headers.hops = headers.hops.saturating_add(1);
        headers.hops
    }

    /// For a topic that does not de-duplicate.
    pub(crate) fn forget_deduplication(&mut self) {
        if let Some(headers) = &mut self.headers {
            headers.deduplication_id = None;
        }
    }

    /// Gives the message a subject: a line of text beside the payload.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.headers_mut().subject = Some(subject.into().into_boxed_str());
        self
    }

    /// Replaces the message's attributes.
    #[must_use]
    pub fn attributes(mut self, attributes: Attributes) -> Self {
        self.headers_mut().attributes = attributes;
        self
    }

    /// Puts the message into a group: the order that a FIFO topic keeps. A standard topic hands it on.
    #[must_use]
    pub fn group(mut self, group: GroupId) -> Self {
        self.headers_mut().group = Some(group);
        self
    }

    /// Names what is published, so that a FIFO topic takes it once within its window.
    #[must_use]
    pub fn deduplication_id(mut self, id: DeduplicationId) -> Self {
        self.headers_mut().deduplication_id = Some(id);
        self
    }

    /// The subject, where one was set.
    #[must_use]
    pub fn subject_text(&self) -> Option<&str> {
        self.headers.as_ref()?.subject.as_deref()
    }

    /// The attributes; empty where none were set.
    #[must_use]
    pub fn attribute_map(&self) -> &Attributes {
        self.headers
            .as_ref()
            .map_or(&NO_ATTRIBUTES, |headers| &headers.attributes)
    }

    /// The group, where one was set.
    #[must_use]
    pub fn group_id(&self) -> Option<&GroupId> {
        self.headers.as_ref()?.group.as_ref()
    }

    /// The de-duplication id, where one was set.
    #[must_use]
    pub fn deduplication(&self) -> Option<&DeduplicationId> {
        self.headers.as_ref()?.deduplication_id.as_ref()
    }

    /// The place in the order of a FIFO topic, once it was published there.
    #[must_use]
    pub fn sequence(&self) -> Option<SequenceNumber> {
        self.headers.as_ref()?.sequence
    }

    /// Applies `convert` to the payload and keeps the rest.
    #[must_use]
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Message<U> {
        Message {
            value: convert(self.value),
            headers: self.headers,
        }
    }
}

impl<T> From<T> for Message<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: Clone> Clone for Message<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            headers: self.headers.clone(),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Message<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Message");
        out.field("value", &self.value);
        if let Some(headers) = &self.headers {
            out.field("headers", headers);
        }
        out.finish()
    }
}

/// What a topic says of a message that it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Published {
    /// The message's id. A duplicate gets the id of the first.
    pub id: Id,
    /// The message's place in the order of a FIFO topic. A duplicate gets that of the first.
    pub sequence: Option<SequenceNumber>,
    /// Whether the same message was published before within the window, so that this one was dropped.
    pub duplicate: bool,
}

/// Names one subscription of one topic; never used twice. Displayed as `sub-` and 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SubscriptionId(u64);

impl SubscriptionId {
    /// Makes an id from its number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The id's number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sub-{:016x}", self.0)
    }
}

impl fmt::Debug for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no subscription id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("subscription id: {text:?} is not `sub-` and 16 hexadecimal digits")]
pub struct ParseSubscriptionIdError {
    text: String,
}

impl FromStr for SubscriptionId {
    type Err = ParseSubscriptionIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix("sub-")
            .filter(|digits| digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .map(Self)
            .ok_or_else(|| ParseSubscriptionIdError {
                text: text.chars().take(64).collect(),
            })
    }
}

/// What does not change about a topic and each of its messages may need.
pub(crate) struct TopicInfo {
    pub(crate) name: Box<str>,
    /// The high part of the messages' ids.
    pub(crate) namespace: u64,
    pub(crate) clock: Clock,
}

/// A published message as the topic stores it: once, whoever gets it.
pub(crate) struct Content<T> {
    pub(crate) message: Message<T>,
    /// The low part of the id: the message's number among all that the topic took.
    pub(crate) number: u64,
    pub(crate) at: Instant,
}

impl<T> Content<T> {
    pub(crate) fn id(&self, info: &TopicInfo) -> Id {
        Id::from_parts(info.namespace, self.number)
    }
}

/// A message that is shared by pointer: what subscribers and archives hold.
pub(crate) struct Shared<T> {
    pub(crate) content: Content<T>,
    pub(crate) info: Arc<TopicInfo>,
}

/// A message as it stands in the log of the receivers: in place when only they get it.
pub(crate) enum Logged<T> {
    Inline(Content<T>),
    Shared(Arc<Shared<T>>),
}

impl<T> Logged<T> {
    #[inline]
    pub(crate) fn content(&self) -> &Content<T> {
        match self {
            Self::Inline(content) => content,
            Self::Shared(shared) => &shared.content,
        }
    }
}

/// Messages that one receiver took from the log at once. What points to them is counted here, by that receiver and who
/// has its notifications: a count that all receivers of a topic shared would be fought for.
pub(crate) struct Run<T> {
    pub(crate) batch: Batch<Logged<T>>,
    pub(crate) info: Arc<TopicInfo>,
}

/// Where a notification's message stands.
enum Body<T> {
    Shared(Arc<Shared<T>>),
    /// At an index of a run. Invariant: it is one of the run's.
    Logged(Arc<Run<T>>, usize),
}

impl<T> Clone for Body<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Shared(shared) => Self::Shared(Arc::clone(shared)),
            Self::Logged(run, index) => Self::Logged(Arc::clone(run), *index),
        }
    }
}

/// A message as one subscription gets it: a pointer to what was published, never a copy of it.
///
/// Cloning clones the pointer. It dereferences to the value. Notifications that a [`Receiver`](crate::Receiver)
/// gave out may keep the chunk of memory that their message stands in alive; who stores many of them for long
/// clones the value out.
pub struct Notification<T> {
    body: Body<T>,
    subscription: SubscriptionId,
    replayed: bool,
}

impl<T> Notification<T> {
    pub(crate) const fn shared(
        shared: Arc<Shared<T>>,
        subscription: SubscriptionId,
        replayed: bool,
    ) -> Self {
        Self {
            body: Body::Shared(shared),
            subscription,
            replayed,
        }
    }

    /// The message at `index` of a run, if it has so many.
    #[inline]
    pub(crate) fn logged(
        run: &Arc<Run<T>>,
        index: usize,
        subscription: SubscriptionId,
    ) -> Option<Self> {
        (index < run.batch.len()).then(|| Self {
            body: Body::Logged(Arc::clone(run), index),
            subscription,
            replayed: false,
        })
    }

    pub(crate) fn content(&self) -> &Content<T> {
        match &self.body {
            Body::Shared(shared) => &shared.content,
            Body::Logged(run, index) => match run.batch.get(*index) {
                Some((logged, _)) => logged.content(),
                None => unreachable!("its maker has looked"),
            },
        }
    }

    pub(crate) fn info(&self) -> &TopicInfo {
        match &self.body {
            Body::Shared(shared) => &shared.info,
            Body::Logged(run, _) => &run.info,
        }
    }

    fn headers(&self) -> Option<&Headers> {
        self.message().headers.as_deref()
    }

    /// What was published: the value and all that the publisher said of it.
    #[must_use]
    pub fn message(&self) -> &Message<T> {
        &self.content().message
    }

    /// The value that was published.
    #[must_use]
    pub fn value(&self) -> &T {
        &self.message().value
    }

    /// The message's id: the same for every subscription, and in a replay.
    #[must_use]
    pub fn id(&self) -> Id {
        self.content().id(self.info())
    }

    /// When it was published, by the wall clock.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        let info = self.info();
        info.clock.timestamp(self.content().at)
    }

    /// When it was published, by the topic's clock.
    #[must_use]
    pub fn published_at(&self) -> Instant {
        self.content().at
    }

    /// The subject, where the publisher set one.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.headers()?.subject.as_deref()
    }

    /// The attributes; empty where the publisher set none.
    #[must_use]
    pub fn attributes(&self) -> &Attributes {
        self.message().attribute_map()
    }

    /// The group, where the publisher named one.
    #[must_use]
    pub fn group(&self) -> Option<&GroupId> {
        self.message().group_id()
    }

    /// The de-duplication id, where the publisher named one.
    #[must_use]
    pub fn deduplication_id(&self) -> Option<&DeduplicationId> {
        self.headers()?.deduplication_id.as_ref()
    }

    /// The message's place in the order of a FIFO topic.
    #[must_use]
    pub fn sequence(&self) -> Option<SequenceNumber> {
        self.headers()?.sequence
    }

    /// Whether it comes from the archive and not from a publish just now.
    #[must_use]
    pub const fn is_replayed(&self) -> bool {
        self.replayed
    }

    /// The name of the topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.info().name
    }

    /// The subscription that it was sent to.
    #[must_use]
    pub const fn subscription(&self) -> SubscriptionId {
        self.subscription
    }
}

impl<T> Clone for Notification<T> {
    fn clone(&self) -> Self {
        Self {
            body: self.body.clone(),
            subscription: self.subscription,
            replayed: self.replayed,
        }
    }
}

impl<T> Deref for Notification<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value()
    }
}

impl<T: fmt::Debug> fmt::Debug for Notification<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notification")
            .field("value", self.value())
            .field("id", &self.id())
            .field("topic", &self.topic())
            .field("subscription", &self.subscription)
            .field("sequence", &self.sequence())
            .field("is_replayed", &self.replayed)
            .finish_non_exhaustive()
    }
}

/// What proves that an endpoint wants a subscription: 64 hexadecimal digits that only it was sent.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(Box<str>);

impl Token {
    pub(crate) fn from_digest(digest: [u8; 32]) -> Self {
        use fmt::Write as _;
        let mut text = String::with_capacity(64);
        for byte in digest {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text.into_boxed_str())
    }

    /// The token's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A token is a secret of the endpoint: enough of it to tell two apart.
        write!(f, "Token({}..)", self.0.get(..8).unwrap_or_default())
    }
}

/// The text is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("token: has {length} bytes, must be 64 hexadecimal digits")]
pub struct ParseTokenError {
    length: usize,
}

impl FromStr for Token {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase().into_boxed_str()))
        } else {
            Err(ParseTokenError { length: text.len() })
        }
    }
}

/// What an endpoint is sent that must confirm its subscription, or that has lost it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfirmationRequest {
    /// The id of this request.
    pub id: Id,
    /// The name of the topic.
    pub topic: String,
    /// The subscription.
    pub subscription: SubscriptionId,
    /// What [`Topic::confirm`](crate::Topic::confirm) is to be called with.
    pub token: Token,
    /// When the request was made.
    pub timestamp: Timestamp,
}

/// What an endpoint that confirms is sent.
#[non_exhaustive]
pub enum Delivery<T> {
    /// A message.
    Notification(Notification<T>),
    /// The subscription waits for [`Topic::confirm`](crate::Topic::confirm) with this token.
    Confirmation(ConfirmationRequest),
    /// The subscription was cancelled; confirming this token restores it.
    Unsubscribed(ConfirmationRequest),
}

impl<T> Clone for Delivery<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Notification(notification) => Self::Notification(notification.clone()),
            Self::Confirmation(request) => Self::Confirmation(request.clone()),
            Self::Unsubscribed(request) => Self::Unsubscribed(request.clone()),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Delivery<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Notification(notification) => {
                f.debug_tuple("Notification").field(notification).finish()
            }
            Self::Confirmation(request) => f.debug_tuple("Confirmation").field(request).finish(),
            Self::Unsubscribed(request) => f.debug_tuple("Unsubscribed").field(request).finish(),
        }
    }
}

/// Why a subscription gave a message up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum DeadLetterReason {
    /// The subscriber refused this very message, or takes nothing any more: trying again would not help.
    ClientError,
    /// All tries that the retry policy allows failed.
    Exhausted,
    /// The subscription's backlog was full.
    Overflow,
}

/// A message that a subscription gives up, on its way to the dead-letter sink.
pub struct DeadLetter<T> {
    /// The message, as the subscription would have got it.
    pub notification: Notification<T>,
    /// Why it was given up.
    pub reason: DeadLetterReason,
    /// How often it was tried.
    pub attempts: u32,
    /// What the last try said.
    pub error: Option<String>,
    /// When it was given up.
    pub died_at: Timestamp,
}

impl<T: fmt::Debug> fmt::Debug for DeadLetter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("notification", &self.notification)
            .field("reason", &self.reason)
            .field("attempts", &self.attempts)
            .field("error", &self.error)
            .field("died_at", &self.died_at)
            .finish()
    }
}

impl<T> Clone for DeadLetter<T> {
    fn clone(&self) -> Self {
        Self {
            notification: self.notification.clone(),
            reason: self.reason,
            attempts: self.attempts,
            error: self.error.clone(),
            died_at: self.died_at,
        }
    }
}
