//! Receivers: subscribers that pull.

mod batch;
pub(crate) mod log;
pub(crate) mod mailbox;

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use sim_core::event::Event;
use sim_core::log::{Batch, Cursor, Read};
use sim_core::sync::Arc;
use sim_core::time::Instant;
use sim_core::wait::{Attempt, Elapsed, Waiter, until};

pub use self::batch::{Notifications, Received};
use self::log::Place;
use self::mailbox::Mailbox;
use crate::error::{ReceiveError, SubscribeError, TryReceiveError};
use crate::message::{Logged, Notification, Run, SubscriptionId};
use crate::settings::{Filter, Overflow, ReceiverConfig, SubscriptionConfig};
use crate::stats::ReceiverStats;
use crate::subscriber::Target;
use crate::topic::hub::Hub;
use crate::topic::lane::Sub;
use crate::waiting::patiently;

/// How many messages a receive that returns one takes from the log at once.
const AHEAD: usize = 64;

/// A subscriber that pulls: it gets what is published while it lives.
///
/// Without a filter it reads, like all its kind, the one log of the topic: publishing costs the same however many
/// receivers there are. How far it may be behind, and what happens then, says the topic's
/// [`LogConfig`](crate::LogConfig). With a filter it has a mailbox of its own, of which the oldest messages are lost
/// when it is full, whatever the log's configuration says.
///
/// It also is a [`Stream`].
pub struct Receiver<T: Send + Sync + 'static> {
    hub: Arc<Hub<T>>,
    id: SubscriptionId,
    source: Source<T>,
    /// Where the stream waits.
    waiter: Waiter,
}

enum Source<T> {
    Log(Reader<T>),
    Mailbox {
        mailbox: Arc<Mailbox<T>>,
        sub: Arc<Sub<T>>,
        /// What is lent out.
        lent: Option<Notification<T>>,
    },
}

struct Reader<T> {
    cursor: Cursor<Logged<T>>,
    place: Arc<Place>,
    /// Taken from the log and not given out yet.
    ahead: Option<Arc<Run<T>>>,
    /// How many of these were given out.
    given: usize,
}

impl<T: Send + Sync + 'static> Receiver<T> {
    pub(crate) fn enter(
        hub: &Arc<Hub<T>>,
        config: ReceiverConfig<T>,
    ) -> Result<Self, SubscribeError> {
        config.check()?;
        let ReceiverConfig {
            name,
            filter,
            mailbox,
        } = config;
        if !matches!(filter, Filter::All) {
            let mailbox = Arc::new(Mailbox::new(mailbox));
            let sub = hub.subscribe(
                Target::Mailbox(Arc::clone(&mailbox)),
                SubscriptionConfig {
                    name,
                    filter,
                    overflow: Overflow::Oldest,
                    ..SubscriptionConfig::default()
                },
            )?;
            return Ok(Self {
                hub: Arc::clone(hub),
                id: sub.id,
                source: Source::Mailbox {
                    mailbox,
                    sub,
                    lent: None,
                },
                waiter: Waiter::new(),
            });
        }
        let id = {
            let mut registry = hub.registry.lock();
            hub.check_count(&registry, false)?;
            registry.receivers += 1;
            let id = SubscriptionId::new(registry.next_id);
            registry.next_id += 1;
            id
        };
        let place = hub.log.enter();
        Ok(Self {
            hub: Arc::clone(hub),
            id,
            source: Source::Log(Reader {
                cursor: hub.log.log.cursor(place.start()),
                place,
                ahead: None,
                given: 0,
            }),
            waiter: Waiter::new(),
        })
    }

    /// The receiver's id, unique among the subscriptions of its topic.
    #[must_use]
    pub const fn id(&self) -> SubscriptionId {
        self.id
    }

    /// A snapshot of its counts.
    #[must_use]
    pub fn stats(&self) -> ReceiverStats {
        match &self.source {
            Source::Log(reader) => {
                let ahead = reader
                    .ahead
                    .as_ref()
                    .map_or(0, |run| run.batch.len() - reader.given);
                ReceiverStats {
                    received: reader.place.received() - ahead as u64,
                    lagged: reader.place.lagged(),
                    behind: (self.hub.log.log.end() - reader.cursor.position()) + ahead as u64,
                }
            }
            Source::Mailbox { mailbox, .. } => {
                let (received, lagged) = mailbox.counts();
                ReceiverStats {
                    received,
                    lagged,
                    behind: mailbox.len() as u64,
                }
            }
        }
    }

    // ---- one by one ------------------------------------------------------------------------------------

    /// Receives the next message, or says at once why not.
    ///
    /// # Errors
    /// [`TryReceiveError`].
    pub fn try_receive(&mut self) -> Result<Notification<T>, TryReceiveError> {
        match &mut self.source {
            Source::Log(reader) => reader.next(&self.hub, self.id),
            Source::Mailbox { mailbox, .. } => next_in_mailbox(mailbox, &self.hub),
        }
    }

    /// Receives the next message, waiting for one.
    ///
    /// # Errors
    /// [`ReceiveError::Lagged`] and [`ReceiveError::Closed`].
    ///
    /// # Cancel safety
    /// A message is taken in the poll that returns it: a future that is dropped loses none.
    pub async fn receive(&mut self) -> Result<Notification<T>, ReceiveError> {
        self.receive_until(Instant::NEVER).await
    }

    /// Receives the next message, waiting for one until a deadline.
    ///
    /// # Errors
    /// [`ReceiveError`].
    ///
    /// # Cancel safety
    /// A message is taken in the poll that returns it: a future that is dropped loses none.
    pub async fn receive_until(
        &mut self,
        deadline: Instant,
    ) -> Result<Notification<T>, ReceiveError> {
        let Self {
            hub, id, source, ..
        } = self;
        // What is there already needs no event, and no count that other receivers touch.
        if let Attempt::Done { value, .. } = attempt(source.next(hub, *id)) {
            return value;
        }
        let event = source.event(hub);
        let outcome = until(&event, &hub.clock, deadline, || {
            attempt(source.next(hub, *id))
        });
        flat(outcome.await)
    }

    /// Receives the next message, blocking the thread until there is one.
    ///
    /// # Errors
    /// [`ReceiveError::Lagged`] and [`ReceiveError::Closed`].
    pub fn receive_blocking(&mut self) -> Result<Notification<T>, ReceiveError> {
        self.receive_blocking_until(Instant::NEVER)
    }

    /// Receives the next message, blocking the thread until there is one or until a deadline.
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub fn receive_blocking_until(
        &mut self,
        deadline: Instant,
    ) -> Result<Notification<T>, ReceiveError> {
        let Self {
            hub, id, source, ..
        } = self;
        // What is there already needs no event, and no count that other receivers touch.
        if let Attempt::Done { value, .. } = attempt(source.next(hub, *id)) {
            return value;
        }
        let event = source.event(hub);
        flat(patiently(&event, &hub.clock, deadline, || {
            attempt(source.next(hub, *id))
        }))
    }

    // ---- where they stand ------------------------------------------------------------------------------

    /// Receives the next message where it stands, or says at once why not: no count is touched for it, and the value
    /// is lent until the next call.
    ///
    /// # Errors
    /// [`TryReceiveError`].
    pub fn try_receive_ref(&mut self) -> Result<Received<'_, T>, TryReceiveError> {
        match &mut self.source {
            Source::Log(reader) => {
                reader.step(&self.hub)?;
                reader.lent(&self.hub).ok_or(TryReceiveError::Empty)
            }
            Source::Mailbox { mailbox, lent, .. } => {
                let next = lent.insert(next_in_mailbox(mailbox, &self.hub)?);
                Ok(Received::of(next.content(), next.info()))
            }
        }
    }

    /// Receives the next message where it stands, waiting for one.
    ///
    /// # Errors
    /// [`ReceiveError::Lagged`] and [`ReceiveError::Closed`].
    ///
    /// # Cancel safety
    /// A message is taken in the poll that returns it: a future that is dropped loses none.
    pub async fn receive_ref(&mut self) -> Result<Received<'_, T>, ReceiveError> {
        let Self { hub, source, .. } = self;
        // What is there already needs no event, and no count that other receivers touch.
        if let Attempt::Done { value, .. } = attempt(source.step(hub)) {
            value?;
            return source.lent(hub).ok_or(ReceiveError::Closed);
        }
        let event = source.event(hub);
        let outcome = until(&event, &hub.clock, Instant::NEVER, || {
            attempt(source.step(hub))
        });
        flat(outcome.await)?;
        source.lent(hub).ok_or(ReceiveError::Closed)
    }

    /// Receives the next message where it stands, blocking the thread until there is one.
    ///
    /// # Errors
    /// [`ReceiveError::Lagged`] and [`ReceiveError::Closed`].
    pub fn receive_ref_blocking(&mut self) -> Result<Received<'_, T>, ReceiveError> {
        let Self { hub, source, .. } = self;
        // What is there already needs no event, and no count that other receivers touch.
        if let Attempt::Done { value, .. } = attempt(source.step(hub)) {
            value?;
            return source.lent(hub).ok_or(ReceiveError::Closed);
        }
        let event = source.event(hub);
        flat(patiently(&event, &hub.clock, Instant::NEVER, || {
            attempt(source.step(hub))
        }))?;
        source.lent(hub).ok_or(ReceiveError::Closed)
    }

    // ---- in batches ------------------------------------------------------------------------------------

    /// Receives up to `max` messages at once, at least one; zero counts as one. The fast way: one count for all of them.
    ///
    /// # Errors
    /// [`TryReceiveError`].
    pub fn try_receive_batch(&mut self, max: usize) -> Result<Notifications<T>, TryReceiveError> {
        self.source.batch(&self.hub, self.id, max)
    }

    /// Receives up to `max` messages at once, waiting for the first.
    ///
    /// # Errors
    /// [`ReceiveError::Lagged`] and [`ReceiveError::Closed`].
    ///
    /// # Cancel safety
    /// Messages are taken in the poll that returns them: a future that is dropped loses none.
    pub async fn receive_batch(&mut self, max: usize) -> Result<Notifications<T>, ReceiveError> {
        self.receive_batch_until(max, Instant::NEVER).await
    }

    /// Receives up to `max` messages at once, waiting for the first until a deadline.
    ///
    /// # Errors
    /// [`ReceiveError`].
    ///
    /// # Cancel safety
    /// Messages are taken in the poll that returns them: a future that is dropped loses none.
    pub async fn receive_batch_until(
        &mut self,
        max: usize,
        deadline: Instant,
    ) -> Result<Notifications<T>, ReceiveError> {
        let Self {
            hub, id, source, ..
        } = self;
        // What is there already needs no event, and no count that other receivers touch.
        if let Attempt::Done { value, .. } = attempt(source.batch(hub, *id, max)) {
            return value;
        }
        let event = source.event(hub);
        let outcome = until(&event, &hub.clock, deadline, || {
            attempt(source.batch(hub, *id, max))
        });
        flat(outcome.await)
    }

    /// Receives up to `max` messages at once, blocking the thread until there is one.
    ///
    /// # Errors
    /// [`ReceiveError::Lagged`] and [`ReceiveError::Closed`].
    pub fn receive_batch_blocking(&mut self, max: usize) -> Result<Notifications<T>, ReceiveError> {
        self.receive_batch_blocking_until(max, Instant::NEVER)
    }

    /// Receives up to `max` messages at once, blocking the thread until there is one or until a deadline.
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub fn receive_batch_blocking_until(
        &mut self,
        max: usize,
        deadline: Instant,
    ) -> Result<Notifications<T>, ReceiveError> {
        let Self {
            hub, id, source, ..
        } = self;
        // What is there already needs no event, and no count that other receivers touch.
        if let Attempt::Done { value, .. } = attempt(source.batch(hub, *id, max)) {
            return value;
        }
        let event = source.event(hub);
        flat(patiently(&event, &hub.clock, deadline, || {
            attempt(source.batch(hub, *id, max))
        }))
    }
}

/// The event that a receiver waits at, held without borrowing its source.
enum Arrivals<T: Send + Sync + 'static> {
    Log(Arc<Hub<T>>),
    Mailbox(Arc<Mailbox<T>>),
}

impl<T: Send + Sync + 'static> std::ops::Deref for Arrivals<T> {
    type Target = Event;

    fn deref(&self) -> &Event {
        match self {
            Self::Log(hub) => &hub.log.arrivals,
            Self::Mailbox(mailbox) => &mailbox.arrivals,
        }
    }
}

impl<T: Send + Sync + 'static> Source<T> {
    fn event(&self, hub: &Arc<Hub<T>>) -> Arrivals<T> {
        match self {
            Self::Log(_) => Arrivals::Log(Arc::clone(hub)),
            Self::Mailbox { mailbox, .. } => Arrivals::Mailbox(Arc::clone(mailbox)),
        }
    }

    fn next(
        &mut self,
        hub: &Arc<Hub<T>>,
        id: SubscriptionId,
    ) -> Result<Notification<T>, TryReceiveError> {
        match self {
            Self::Log(reader) => reader.next(hub, id),
            Self::Mailbox { mailbox, .. } => next_in_mailbox(mailbox, hub),
        }
    }

    /// Takes the next message, to be lent.
    fn step(&mut self, hub: &Hub<T>) -> Result<(), TryReceiveError> {
        match self {
            Self::Log(reader) => reader.step(hub),
            Self::Mailbox { mailbox, lent, .. } => {
                *lent = Some(next_in_mailbox(mailbox, hub)?);
                Ok(())
            }
        }
    }

    /// What was taken last.
    fn lent<'a>(&'a self, hub: &'a Hub<T>) -> Option<Received<'a, T>> {
        match self {
            Self::Log(reader) => reader.lent(hub),
            Self::Mailbox { lent, .. } => {
                let lent = lent.as_ref()?;
                Some(Received::of(lent.content(), lent.info()))
            }
        }
    }

    fn batch(
        &mut self,
        hub: &Arc<Hub<T>>,
        id: SubscriptionId,
        max: usize,
    ) -> Result<Notifications<T>, TryReceiveError> {
        match self {
            Self::Log(reader) => {
                let batch = reader.batch(hub, max)?;
                Ok(Notifications::of_log(batch, Arc::clone(&hub.info), id))
            }
            Self::Mailbox { mailbox, .. } => {
                let mut all = vec![next_in_mailbox(mailbox, hub)?];
                while all.len() < max
                    && let Some(next) = mailbox.take()
                {
                    all.push(next);
                }
                Ok(Notifications::of_mailbox(all))
            }
        }
    }
}

impl<T: Send + Sync + 'static> Reader<T> {
    fn next(
        &mut self,
        hub: &Hub<T>,
        id: SubscriptionId,
    ) -> Result<Notification<T>, TryReceiveError> {
        self.step(hub)?;
        let taken = self.ahead.as_ref();
        taken
            .and_then(|run| Notification::logged(run, self.given - 1, id))
            .ok_or(TryReceiveError::Empty)
    }

    /// Takes the next message: it stands at `given - 1` of `ahead`.
    #[inline]
    fn step(&mut self, hub: &Hub<T>) -> Result<(), TryReceiveError> {
        if self
            .ahead
            .as_ref()
            .is_none_or(|run| self.given == run.batch.len())
        {
            // What was read is let go first: its chunk may be the last one that the log waits for.
            self.ahead = None;
            self.given = 0;
            self.ahead = Some(Arc::new(Run {
                batch: self.fetch(hub, AHEAD)?,
                info: Arc::clone(&hub.info),
            }));
        }
        self.given += 1;
        Ok(())
    }

    #[inline]
    fn lent<'a>(&'a self, hub: &'a Hub<T>) -> Option<Received<'a, T>> {
        let (logged, _) = self.ahead.as_ref()?.batch.get(self.given.checked_sub(1)?)?;
        Some(Received::of(logged.content(), &hub.info))
    }

    fn batch(&mut self, hub: &Hub<T>, max: usize) -> Result<Batch<Logged<T>>, TryReceiveError> {
        if let Some(run) = self.ahead.take() {
            let mut ahead = run.batch.clone();
            drop(ahead.split_to(self.given));
            self.given = 0;
            if !ahead.is_empty() {
                let batch = ahead.split_to(max.max(1));
                self.ahead = (!ahead.is_empty()).then(|| {
                    Arc::new(Run {
                        batch: ahead,
                        info: Arc::clone(&hub.info),
                    })
                });
                return Ok(batch);
            }
        }
        self.fetch(hub, max)
    }

    #[inline]
    fn fetch(&mut self, hub: &Hub<T>, max: usize) -> Result<Batch<Logged<T>>, TryReceiveError> {
        let before = self.cursor.position();
        match self.cursor.batch(max, usize::MAX) {
            Read::Record(batch) => {
                hub.log.move_to(&self.place, batch.end(), 0);
                Ok(batch)
            }
            Read::Trimmed { resume_at } => {
                let lost = resume_at - before;
                hub.log.move_to(&self.place, resume_at, lost);
                Err(TryReceiveError::Lagged { lost })
            }
            Read::End => Err(TryReceiveError::Closed),
            Read::Pending => Err(TryReceiveError::Empty),
        }
    }
}

fn next_in_mailbox<T: Send + Sync + 'static>(
    mailbox: &Mailbox<T>,
    hub: &Hub<T>,
) -> Result<Notification<T>, TryReceiveError> {
    // Looked at before the messages: what comes after a closing is not overlooked.
    let is_closed = hub.has_ended() || mailbox.is_over();
    match mailbox.take_lost() {
        0 => {}
        lost => return Err(TryReceiveError::Lagged { lost }),
    }
    match mailbox.take() {
        Some(notification) => Ok(notification),
        None if is_closed => Err(TryReceiveError::Closed),
        None => Err(TryReceiveError::Empty),
    }
}

fn attempt<R>(outcome: Result<R, TryReceiveError>) -> Attempt<Result<R, ReceiveError>> {
    let value = match outcome {
        Ok(value) => Ok(value),
        Err(TryReceiveError::Empty) => {
            return Attempt::Pending {
                wake_at: Instant::NEVER,
            };
        }
        Err(TryReceiveError::Lagged { lost }) => Err(ReceiveError::Lagged { lost }),
        Err(TryReceiveError::Closed) => Err(ReceiveError::Closed),
    };
    // All are told at once: there is nobody to hand anything on to.
    Attempt::Done { value, more: false }
}

fn flat<R>(outcome: Result<Result<R, ReceiveError>, Elapsed>) -> Result<R, ReceiveError> {
    outcome.unwrap_or(Err(ReceiveError::Elapsed))
}

impl<T: Send + Sync + 'static> Stream for Receiver<T> {
    type Item = Result<Notification<T>, ReceiveError>;

    /// Ends when the topic is closed and all was received. A lag is an item, and the stream goes on.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self {
            hub,
            id,
            source,
            waiter,
        } = &mut *self;
        let event = source.event(hub);
        let polled = waiter.poll_until(cx, &event, &hub.clock, Instant::NEVER, &mut || {
            attempt(source.next(hub, *id))
        });
        polled.map(|outcome| match flat(outcome) {
            Err(ReceiveError::Closed) => None,
            outcome => Some(outcome),
        })
    }
}

impl<T: Send + Sync + 'static> Drop for Receiver<T> {
    fn drop(&mut self) {
        let event = self.source.event(&self.hub);
        self.waiter.cancel(&event);
        match &self.source {
            Source::Log(reader) => {
                {
                    let mut registry = self.hub.registry.lock();
                    registry.receivers -= 1;
                    registry.deleted += 1;
                }
                self.hub.log.leave(&reader.place);
            }
            Source::Mailbox { sub, .. } => self.hub.end(sub),
        }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("id", &self.id)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
