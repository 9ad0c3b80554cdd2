//! Messages received at once.

use std::fmt;

use sim_core::attributes::Attributes;
use sim_core::id::Id;
use sim_core::log::Batch;
use sim_core::sync::Arc;
use sim_core::time::{Instant, Timestamp};

use crate::group::{GroupId, SequenceNumber};
use crate::message::{Content, Logged, Message, Notification, SubscriptionId, TopicInfo};

/// Messages that a receiver got at once: at least one.
///
/// They stand where the topic wrote them: [`iter`](Self::iter) reads them without touching a count for each. While this
/// is held, so is the chunk of memory in which they stand.
pub struct Notifications<T> {
    source: Source<T>,
}

enum Source<T> {
    Log {
        batch: Batch<Logged<T>>,
        info: Arc<TopicInfo>,
        id: SubscriptionId,
    },
    Mailbox(Vec<Notification<T>>),
}

impl<T> Notifications<T> {
    pub(crate) const fn of_log(
        batch: Batch<Logged<T>>,
        info: Arc<TopicInfo>,
        id: SubscriptionId,
    ) -> Self {
        Self {
            source: Source::Log { batch, info, id },
        }
    }

    pub(crate) const fn of_mailbox(all: Vec<Notification<T>>) -> Self {
        Self {
            source: Source::Mailbox(all),
        }
    }

    /// How many these are.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.source {
            Source::Log { batch, .. } => batch.len(),
            Source::Mailbox(all) => all.len(),
        }
    }

    /// Whether there are none; never, as it comes from a receiver.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The messages in order, where they stand.
    pub fn iter(&self) -> impl Iterator<Item = Received<'_, T>> {
        let (log, mailbox) = match &self.source {
            Source::Log { batch, info, .. } => (Some((batch.iter(), info)), None),
            Source::Mailbox(all) => (None, Some(all.iter())),
        };
        let logged = log.into_iter().flat_map(|(records, info)| {
            records.map(move |(_, logged, _)| Received {
                content: logged.content(),
                info,
            })
        });
        let put = mailbox.into_iter().flatten().map(|notification| Received {
            content: notification.content(),
            info: notification.info(),
        });
        logged.chain(put)
    }

    /// Calls `each` with every value, in order: the fastest way through them.
    #[inline]
    pub fn for_each_value(&self, mut each: impl FnMut(&T)) {
        match &self.source {
            Source::Log { batch, .. } => {
                for (_, logged, _) in batch {
                    each(&logged.content().message.value);
                }
            }
            Source::Mailbox(all) => {
                for notification in all {
                    each(notification.value());
                }
            }
        }
    }

    /// The message at `index`, by itself.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Notification<T>> {
        match &self.source {
            Source::Log { batch, info, id } => {
                let entry = batch.entry(index)?;
                Some(Notification::logged(entry, Arc::clone(info), *id))
            }
            Source::Mailbox(all) => all.get(index).cloned(),
        }
    }
}

impl<T> fmt::Debug for Notifications<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifications")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// One message of [`Notifications`], where it stands.
pub struct Received<'a, T> {
    content: &'a Content<T>,
    info: &'a TopicInfo,
}

impl<'a, T> Received<'a, T> {
    pub(crate) const fn of(content: &'a Content<T>, info: &'a TopicInfo) -> Self {
        Self { content, info }
    }

    /// What was published: the value and all that the publisher said of it.
    #[must_use]
    pub const fn message(&self) -> &'a Message<T> {
        &self.content.message
    }

    /// The value that was published.
    #[must_use]
    pub const fn value(&self) -> &'a T {
        &self.content.message.value
    }

    /// The message's id.
    #[must_use]
    pub fn id(&self) -> Id {
        self.content.id(self.info)
    }

    /// When it was published, by the wall clock.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        self.info.clock.timestamp(self.content.at)
    }

    /// When it was published, by the topic's clock.
    #[must_use]
    pub const fn published_at(&self) -> Instant {
        self.content.at
    }

    /// The subject, where the publisher set one.
    #[must_use]
    pub fn subject(&self) -> Option<&'a str> {
        self.message().subject_text()
    }

    /// The attributes; empty where the publisher set none.
    #[must_use]
    pub fn attributes(&self) -> &'a Attributes {
        self.message().attribute_map()
    }

    /// The group, where the publisher named one.
    #[must_use]
    pub fn group(&self) -> Option<&'a GroupId> {
        self.message().group_id()
    }

    /// The message's place in the order of a FIFO topic.
    #[must_use]
    pub fn sequence(&self) -> Option<SequenceNumber> {
        self.message().sequence()
    }
}

impl<T> Clone for Received<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Received<'_, T> {}

impl<T: fmt::Debug> fmt::Debug for Received<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("message", self.message())
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}
