//! The handle: publishing, subscribing, driving.
//!
//! # Ordering
//! Closing sets `closed` `SeqCst` before it closes the log and before it takes the FIFO lock: a publish that has come
//! through before is seen by everybody who sees the end, and a later one is refused.

mod builder;
mod confirm;
mod driver;
pub(crate) mod hub;
pub(crate) mod lane;
mod publish;
mod publishing;
pub(crate) mod replay;
mod subscribing;
mod table;
pub(crate) mod tally;

use std::collections::BTreeSet;
use std::fmt;

use sim_core::clock::Clock;
use sim_core::payload::Payload;
use sim_core::sync::Arc;
use sim_core::sync::atomic::Ordering;
use sim_core::time::Instant;
use sim_core::wait::{Attempt, Elapsed, until};

pub use self::builder::Builder;
use self::hub::{Hub, counts};
pub use self::replay::ReplayProgress;
use crate::config::TopicConfig;
use crate::error::{
    ArchiveActive, ConfigError, ConfirmError, PublishError, Refusal, SubscribeError, WaitError,
};
use crate::machine::archive::ArchiveConfig;
use crate::message::{Message, Published, SubscriptionId, Token};
use crate::receiver::Receiver;
use crate::settings::{ReceiverConfig, SubscriptionConfig};
use crate::stats::Stats;
use crate::subscriber::Subscriber;
use crate::subscription::Subscription;
use crate::waiting::patiently;

/// How many things a driver does before it lets others run.
const TURN: usize = 256;

/// A topic of `T`: a cheap handle, cloned for each publisher. When the last one goes, the topic is closed.
///
/// See the [crate's documentation](crate) for what it guarantees.
pub struct Topic<T: Send + Sync + 'static> {
    hub: Arc<Hub<T>>,
    life: Arc<Life<T>>,
}

/// Closes the topic when the last handle of a user goes: receivers hold the hub too.
struct Life<T: Send + Sync + 'static> {
    hub: Arc<Hub<T>>,
}

impl<T: Send + Sync + 'static> Drop for Life<T> {
    fn drop(&mut self) {
        self.hub.close();
    }
}

impl Topic<Payload> {
    /// Makes a topic of bytes, which knows their size and content, on the given clock.
    ///
    /// # Errors
    /// The first field of the configuration that is out of its range.
    pub fn bytes(config: TopicConfig, clock: Clock) -> Result<Self, ConfigError> {
        Self::builder(config)
            .clock(clock)
            .body(|payload| payload)
            .build()
    }
}

impl<T: Send + Sync + 'static> Topic<T> {
    pub(crate) fn of(hub: Arc<Hub<T>>) -> Self {
        Self {
            life: Arc::new(Life {
                hub: Arc::clone(&hub),
            }),
            hub,
        }
    }

    /// Makes a topic on the system clock.
    ///
    /// # Errors
    /// The first field of the configuration that is out of its range.
    pub fn new(config: TopicConfig) -> Result<Self, ConfigError> {
        Self::builder(config).build()
    }

    /// Makes a topic on the given clock.
    ///
    /// # Errors
    /// The first field of the configuration that is out of its range.
    pub fn with_clock(config: TopicConfig, clock: Clock) -> Result<Self, ConfigError> {
        Self::builder(config).clock(clock).build()
    }

    /// Starts building a topic.
    #[must_use]
    pub fn builder(config: TopicConfig) -> Builder<T> {
        Builder::new(config)
    }

    /// The configuration that the topic was built with.
    #[must_use]
    pub fn config(&self) -> &TopicConfig {
        &self.hub.config
    }

    /// The topic's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.hub.clock
    }

    // ---- publishing ------------------------------------------------------------------------------------

    /// Publishes a message, or gives it back at once.
    ///
    /// When it returns, every matching sink has been tried once, receivers can read it, and handlers have it in
    /// their backlogs.
    ///
    /// # Errors
    /// [`PublishError`] with the message and the [`Refusal`]. Nothing changed.
    #[inline]
    pub fn try_publish(
        &self,
        message: impl Into<Message<T>>,
    ) -> Result<Published, PublishError<T>> {
        self.hub.publish(message.into())
    }

    /// Publishes a message, waiting where waiting helps: see [`Refusal::is_temporary`].
    ///
    /// # Errors
    /// [`WaitError::Refused`] for what waiting does not cure.
    ///
    /// # Cancel safety
    /// The message is published in the poll that completes the future; a future dropped before drops it.
    pub async fn publish(&self, message: impl Into<Message<T>>) -> Result<Published, WaitError<T>> {
        self.publish_until(message, Instant::NEVER).await
    }

    /// Publishes a message, waiting until a deadline where waiting helps.
    ///
    /// # Errors
    /// [`WaitError::Elapsed`] at the deadline, [`WaitError::Refused`] for what waiting does not cure.
    ///
    /// # Cancel safety
    /// The message is published in the poll that completes the future; a future dropped before drops it.
    pub async fn publish_until(
        &self,
        message: impl Into<Message<T>>,
        deadline: Instant,
    ) -> Result<Published, WaitError<T>> {
        let hub = &*self.hub;
        let mut slot = Some(message.into());
        let outcome = until(&hub.log.space, &hub.clock, deadline, || {
            hub.attempt_publish(&mut slot)
        })
        .await;
        finish(hub, outcome, slot)
    }

    /// Publishes a message, blocking the thread where waiting helps.
    ///
    /// # Errors
    /// [`WaitError::Refused`] for what waiting does not cure.
    pub fn publish_blocking(
        &self,
        message: impl Into<Message<T>>,
    ) -> Result<Published, WaitError<T>> {
        self.publish_blocking_until(message, Instant::NEVER)
    }

    /// Publishes a message, blocking the thread until a deadline where waiting helps.
    ///
    /// # Errors
    /// [`WaitError::Elapsed`] at the deadline, [`WaitError::Refused`] for what waiting does not cure.
    pub fn publish_blocking_until(
        &self,
        message: impl Into<Message<T>>,
        deadline: Instant,
    ) -> Result<Published, WaitError<T>> {
        let hub = &*self.hub;
        let mut slot = Some(message.into());
        let outcome = patiently(&hub.log.space, &hub.clock, deadline, || {
            hub.attempt_publish(&mut slot)
        });
        finish(hub, outcome, slot)
    }

    /// Publishes each message for itself and reports on each, in order: SNS's batch. One that is refused does not
    /// hold up the others, except that on a FIFO topic nothing overtakes within its group.
    ///
    /// # Errors
    /// Each entry's own; all of them [`Refusal::BatchTooLong`] or [`Refusal::BatchTooLarge`] when the whole is beyond
    /// the [`Limits`](crate::Limits).
    pub fn try_publish_batch<I>(&self, messages: I) -> Vec<Result<Published, PublishError<T>>>
    where
        I: IntoIterator,
        I::Item: Into<Message<T>>,
    {
        let messages: Vec<Message<T>> = messages.into_iter().map(Into::into).collect();
        self.hub.publish_batch(messages)
    }

    /// Publishes plain values in bulk, as many as there is room for, and takes those out of `values`, from the front.
    /// Returns how many. The fast way on a standard topic with receivers alone: one claim for up to 1,024 of them.
    ///
    /// # Errors
    /// The reason why the first was not taken; `values` is untouched.
    pub fn try_publish_values(&self, values: &mut Vec<T>) -> Result<usize, Refusal> {
        self.hub.publish_values(values)
    }

    // ---- subscribing -----------------------------------------------------------------------------------

    /// Makes a subscription. It gets what is published from now on, until it is
    /// [unsubscribed](Subscription::unsubscribe); dropping the handle does not end it.
    ///
    /// # Errors
    /// [`SubscribeError`]; nothing changed.
    pub fn subscribe(
        &self,
        subscriber: Subscriber<T>,
        config: SubscriptionConfig<T>,
    ) -> Result<Subscription<T>, SubscribeError> {
        let sub = self.hub.subscribe(subscriber.target, config)?;
        Ok(Subscription::of(&self.hub, sub))
    }

    /// Makes a receiver: a subscriber that pulls. It gets what is published from now on, until it is dropped.
    ///
    /// # Errors
    /// [`SubscribeError`]; nothing changed.
    pub fn receiver(&self, config: ReceiverConfig<T>) -> Result<Receiver<T>, SubscribeError> {
        Receiver::enter(&self.hub, config)
    }

    /// Confirms the subscription of an endpoint; confirming twice is the same as once.
    ///
    /// # Errors
    /// [`ConfirmError`]: the token is unknown or has expired.
    pub fn confirm(&self, token: &Token) -> Result<SubscriptionId, ConfirmError> {
        self.hub.confirm(token)
    }

    /// All subscriptions but the receivers, in the order in which they were made.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<Subscription<T>> {
        let subs = self.hub.all();
        subs.into_iter()
            .filter(|sub| !sub.is_receiver())
            .map(|sub| Subscription::of(&self.hub, sub))
            .collect()
    }

    /// The subscription of this id, unless it is over or a receiver's.
    #[must_use]
    pub fn subscription(&self, id: SubscriptionId) -> Option<Subscription<T>> {
        let sub = self.hub.registry.lock().subs.get(&id).cloned()?;
        if sub.is_receiver() {
            return None;
        }
        Some(Subscription::of(&self.hub, sub))
    }

    // ---- driving ---------------------------------------------------------------------------------------

    /// Drives the topic: runs its handlers and makes its retries. It ends when the topic is closed and nothing is
    /// pending any more. Several may run, on several threads; each runs many handlers at once.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing: handlers at work stand still until somebody drives on.
    ///
    /// # Panics
    /// As [`Clock::sleep_until`] does.
    pub async fn run(&self) {
        let hub = &*self.hub;
        loop {
            let wait = until(&hub.driver.work, &hub.clock, Instant::NEVER, || {
                hub.attempt_work()
            })
            .await;
            if wait == Ok(Work::Over) {
                // Other drivers see it too.
                hub.driver.work.notify_all();
                return;
            }
            if hub.turn(hub.clock.now(), TURN) {
                yield_now().await;
            }
        }
    }

    /// Does all that can be done up to `now`, deadline by deadline: runs handlers as far as they go without waiting,
    /// and makes the retries. What is late counts from when it was due, so that a test may jump.
    pub fn advance(&self, now: Instant) {
        self.hub.advance_to(now);
    }

    /// When [`advance`](Self::advance) has something to do, if nothing else happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.hub.driver.ready_len() {
            0 => self.hub.driver.next_deadline(),
            _ => Some(self.hub.clock.now()),
        }
    }

    // ---- the whole -------------------------------------------------------------------------------------

    /// A snapshot of the counts. Walks all subscriptions.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.hub.stats()
    }

    /// Whether the topic was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.hub.is_closed()
    }

    /// Closes the topic: nothing can be published or subscribed any more. Receivers read what is there and then see the
    /// end; what is pending is still delivered as long as somebody drives.
    pub fn close(&self) {
        self.hub.close();
    }

    /// Deletes the topic: closes it, and ends all subscriptions with what is pending.
    ///
    /// # Errors
    /// [`ArchiveActive`]: an archive with messages in it has to be [ended](Self::set_archive) first, as in SNS.
    pub fn delete(&self) -> Result<(), ArchiveActive> {
        self.hub.delete()
    }

    /// Changes what a FIFO topic keeps for replays; none ends the archive and drops what is in it.
    ///
    /// # Errors
    /// [`ConfigError::Archive`] when a field is out of its range, [`ConfigError::Unsupported`] on a standard topic.
    pub fn set_archive(&self, archive: Option<ArchiveConfig>) -> Result<(), ConfigError> {
        self.hub.set_archive(archive)
    }
}

impl<T: Send + Sync + 'static> Clone for Topic<T> {
    fn clone(&self) -> Self {
        Self {
            hub: Arc::clone(&self.hub),
            life: Arc::clone(&self.life),
        }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Topic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic")
            .field("name", &self.hub.config.name)
            .field("is_closed", &self.hub.is_closed())
            .finish_non_exhaustive()
    }
}

/// What a driver found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Some,
    /// The topic is closed and nothing is pending.
    Over,
}

impl<T: Send + Sync + 'static> Hub<T> {
    fn attempt_work(&self) -> Attempt<Work> {
        let ready = self.driver.ready_len();
        let wake_at = self.driver.next_deadline();
        let is_due = wake_at.is_some_and(|at| at <= self.clock.now());
        if ready > 0 || is_due {
            return Attempt::Done {
                value: Work::Some,
                more: ready > 1,
            };
        }
        if self.has_ended() && !self.has_pending() {
            return Attempt::Done {
                value: Work::Over,
                more: true,
            };
        }
        Attempt::Pending {
            wake_at: wake_at.unwrap_or(Instant::NEVER),
        }
    }

    fn has_pending(&self) -> bool {
        self.all().iter().any(|sub| !sub.lane.lock().is_empty())
    }

    fn publish_batch(&self, messages: Vec<Message<T>>) -> Vec<Result<Published, PublishError<T>>> {
        if let Some(reason) = self.check_batch(&messages) {
            self.counters.add(counts::REFUSED, messages.len() as u64);
            return messages
                .into_iter()
                .map(|message| Err(PublishError::new(message, reason.clone())))
                .collect();
        }
        let mut blocked = BTreeSet::new();
        messages
            .into_iter()
            .map(|message| {
                let group = match self.is_fifo() {
                    true => message.group_id().cloned(),
                    false => None,
                };
                if group.as_ref().is_some_and(|group| blocked.contains(group)) {
                    self.counters.add(counts::REFUSED, 1);
                    return Err(PublishError::new(message, Refusal::Full));
                }
                let outcome = self.publish(message);
                if let (Err(error), Some(group)) = (&outcome, group)
                    && error.reason.is_temporary()
                {
                    blocked.insert(group);
                }
                outcome
            })
            .collect()
    }

    fn check_batch(&self, messages: &[Message<T>]) -> Option<Refusal> {
        let limits = &self.config.limits;
        let count = messages.len();
        if count > limits.batch_entries {
            return Some(Refusal::BatchTooLong {
                count,
                limit: limits.batch_entries,
            });
        }
        let limit = limits.batch_bytes?;
        // An entry that is refused for itself counts with what its value takes.
        let bytes = messages
            .iter()
            .map(|message| {
                self.check(message)
                    .unwrap_or_else(|_| self.size_of(&message.value))
            })
            .sum();
        (bytes > limit).then_some(Refusal::BatchTooLarge { bytes, limit })
    }

    pub(crate) fn close(&self) {
        self.closed.swap(true, Ordering::SeqCst);
        if let Some(fifo) = &self.fifo {
            // Who is in has come before.
            drop(fifo.lock());
        }
        self.log.log.close();
        self.log.arrivals.notify_all();
        self.log.space.notify_all();
        self.wake_mailboxes();
        self.driver.work.notify_all();
    }

    fn delete(&self) -> Result<(), ArchiveActive> {
        if let Some(fifo) = &self.fifo
            && fifo.lock().archive.as_ref().is_some_and(|a| !a.is_empty())
        {
            return Err(ArchiveActive);
        }
        self.close();
        for sub in self.all() {
            self.end(&sub);
        }
        self.driver.work.notify_all();
        Ok(())
    }

    fn set_archive(&self, config: Option<ArchiveConfig>) -> Result<(), ConfigError> {
        let Some(fifo) = &self.fifo else {
            return Err(ConfigError::Unsupported { field: "archive" });
        };
        if let Some(config) = &config {
            config.check().map_err(|error| ConfigError::Archive {
                reason: error.to_string(),
            })?;
        }
        let mut order = fifo.lock();
        let former = match (config, &mut order.archive) {
            (Some(config), Some(archive)) => {
                archive.reconfigure(config);
                None
            }
            (Some(config), none) => {
                *none = Some(crate::machine::archive::Archive::new(config));
                None
            }
            (None, archive) => archive.take(),
        };
        let subs = match former {
            // Those that came since replay nothing: there is no archive, or one that is new.
            Some(_) => self.all(),
            None => Vec::new(),
        };
        for sub in &subs {
            if sub.replaying.load(Ordering::Acquire) {
                // Under the FIFO lock: what is published next is delivered live again.
                sub.stop_replay();
            }
        }
        drop(order);
        // Values, and subscriptions that ended meanwhile, are dropped without the lock.
        drop((subs, former));
        Ok(())
    }
}

fn finish<T: Send + Sync + 'static>(
    hub: &Hub<T>,
    outcome: Result<Result<Published, PublishError<T>>, Elapsed>,
    slot: Option<Message<T>>,
) -> Result<Published, WaitError<T>> {
    match (outcome, slot) {
        (Ok(outcome), _) => outcome.map_err(WaitError::Refused),
        // What was in its way, or what is now.
        (Err(Elapsed), Some(message)) => match hub.publish(message) {
            Ok(published) => Ok(published),
            Err(error) if error.reason.is_temporary() => Err(WaitError::Elapsed(error)),
            Err(error) => Err(WaitError::Refused(error)),
        },
        (Err(Elapsed), None) => unreachable!("the message is there until it is published"),
    }
}

/// Lets other tasks run once.
fn yield_now() -> impl Future<Output = ()> + Send {
    let mut is_back = false;
    std::future::poll_fn(move |context| {
        if std::mem::replace(&mut is_back, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
}
