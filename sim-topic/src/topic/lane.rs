//! What a topic holds of one subscription: its subscriber, its backlog and its counts.
//!
//! # Ordering
//! `mode` is written under the lane's lock and read before it, as a hint: `Acquire` pairs with the `Release` of the
//! writer, so that who sees a mode sees what was set up for it. A delivery that has read a former mode is one that
//! came before the change; whoever takes the lock afterwards looks again.
//! `queued` is swapped `AcqRel`: it is taken down before the lane is looked at, so that work which comes after
//! the look finds it down and puts the subscription into the driver's queue again.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use sim_core::random::Random;
use sim_core::rate::TokenBucket;
use sim_core::seam::{Reason as Refusing, Refused, Sink};
use sim_core::snapshot::Snapshot;
use sim_core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use sim_core::sync::{Arc, Mutex};
use sim_core::time::Instant;
use sim_core::wheel::TimerKey;

use crate::error::DeliveryError;
use crate::machine::order::{Order, Ticket};
use crate::machine::retry::RetryPolicy;
use crate::message::{
    DeadLetter, DeadLetterReason, Delivery, Notification, Shared, SubscriptionId,
};
use crate::settings::{Filter, Overflow};
use crate::stats::SubscriptionStats;
use crate::subscriber::Target;
use crate::topic::replay::Replaying;
use crate::topic::table::{Evaluations, Since};
use crate::topic::tally::{Count, Tally};

/// The longest time for which a subscriber puts a message off: what it asks beyond that is cut.
pub(crate) const MAX_PUT_OFF: Duration = Duration::from_secs(3_600);

/// How messages come to a subscription.
pub(crate) mod mode {
    /// Into the sink, in the publisher's call.
    pub(crate) const DIRECT: u8 = 0;
    /// Into the lane first.
    pub(crate) const QUEUED: u8 = 1;
    /// Not at all: it is not confirmed, or was cancelled and may be restored.
    pub(crate) const UNCONFIRMED: u8 = 2;
    /// Not at all: it is over.
    pub(crate) const OVER: u8 = 3;
}

/// Where the counts of a subscription go when its last holder lets go.
#[derive(Debug, Default)]
pub(crate) struct Departed(pub(crate) Mutex<Gone>);

/// What subscriptions that are gone have counted.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Gone {
    pub(crate) stats: SubscriptionStats,
    /// By receivers with mailboxes.
    pub(crate) received: u64,
    pub(crate) lagged: u64,
}

/// One subscription.
pub(crate) struct Sub<T> {
    pub(crate) id: SubscriptionId,
    pub(crate) name: Box<str>,
    pub(crate) target: Target<T>,
    /// One of [`mode`].
    pub(crate) mode: AtomicU8,
    /// Whether it ever got messages: an endpoint that was confirmed, or what needs no confirmation.
    pub(crate) was_confirmed: AtomicBool,
    /// Whether it stands in the driver's queue.
    pub(crate) queued: AtomicBool,
    pub(crate) tally: Tally,
    pub(crate) rules: Snapshot<Rules<T>>,
    pub(crate) lane: Mutex<Lane<T>>,
    /// Whether live messages come through the archive. Written under the topic's FIFO lock.
    pub(crate) replaying: AtomicBool,
    pub(crate) replay: Mutex<Replaying>,
    pub(crate) filter: Snapshot<Filter<T>>,
    /// Set while an index of policies holds it.
    since: Mutex<Option<Since>>,
    evaluations: Arc<Evaluations>,
    departed: Arc<Departed>,
}

/// What can be changed of how failures are met.
pub(crate) struct Rules<T> {
    pub(crate) retry: RetryPolicy,
    pub(crate) dead_letters: Option<Arc<dyn Sink<DeadLetter<T>>>>,
    pub(crate) overflow: Overflow,
}

impl<T> Clone for Rules<T> {
    fn clone(&self) -> Self {
        Self {
            retry: self.retry,
            dead_letters: self.dead_letters.clone(),
            overflow: self.overflow,
        }
    }
}

/// What is pending, and what decides when it may go.
pub(crate) struct Lane<T> {
    pub(crate) order: Order<Item<T>>,
    /// What is no message: it goes first, past the throttle, and also while the subscription is paused.
    pub(crate) notices: Order<Item<T>>,
    pub(crate) bucket: Option<TokenBucket>,
    /// Until when the throttle lets nothing through.
    pub(crate) throttled_until: Instant,
    pub(crate) paused: bool,
    pub(crate) over: bool,
    /// Jitter.
    pub(crate) random: Random,
    pub(crate) max_in_flight: usize,
    /// The one entry in the driver's agenda.
    pub(crate) timer: Option<(Instant, TimerKey)>,
}

/// How many notices of one endpoint wait at most.
pub(crate) const NOTICES: usize = 4;

/// Names what was taken out of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Message(Ticket),
    Notice(Ticket),
}

/// One thing to deliver.
pub(crate) struct Item<T> {
    pub(crate) what: What<T>,
    /// Tries made before it came into the lane.
    pub(crate) tried: u32,
    /// Set once it is given up and on its way to the dead-letter sink.
    pub(crate) verdict: Cell<Option<Box<Verdict>>>,
}

pub(crate) enum What<T> {
    Message(Notification<T>),
    /// A request to confirm, or the end of a subscription.
    Control(Box<Delivery<T>>),
}

/// Why an item is given up.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) reason: DeadLetterReason,
    pub(crate) attempts: u32,
    pub(crate) error: Option<String>,
}

impl<T> Item<T> {
    pub(crate) const fn message(notification: Notification<T>) -> Self {
        Self {
            what: What::Message(notification),
            tried: 0,
            verdict: Cell::new(None),
        }
    }

    fn verdict(&self) -> Option<Box<Verdict>> {
        let verdict = self.verdict.take();
        self.verdict.set(verdict.clone());
        verdict
    }
}

impl<T> What<T> {
    pub(crate) fn to_delivery(&self) -> Delivery<T> {
        match self {
            Self::Message(notification) => Delivery::Notification(notification.clone()),
            Self::Control(delivery) => (**delivery).clone(),
        }
    }
}

/// What a lane has to do next.
pub(crate) enum Next<T> {
    /// Nothing now.
    Idle,
    /// Try to deliver.
    Deliver {
        place: Place,
        /// How often it was tried before.
        failed: u32,
        delivery: Delivery<T>,
    },
    /// Offer to the dead-letter sink again.
    Redrive {
        place: Place,
        notification: Notification<T>,
        verdict: Box<Verdict>,
    },
}

impl<T> Lane<T> {
    /// Takes the next thing to do. `throttled` counts what the throttle put off.
    pub(crate) fn next(&mut self, now: Instant, tally: &Tally) -> Next<T> {
        if self.over || self.is_busy() {
            return Next::Idle;
        }
        if let Some(taken) = self.notices.take(now) {
            return Next::Deliver {
                place: Place::Notice(taken.ticket),
                failed: taken.failed,
                delivery: taken.item.what.to_delivery(),
            };
        }
        if self.paused || self.throttled_until > now {
            return Next::Idle;
        }
        let Some(taken) = self.order.take(now) else {
            return Next::Idle;
        };
        let ticket = taken.ticket;
        if let (Some(verdict), What::Message(notification)) =
            (taken.item.verdict(), &taken.item.what)
        {
            return Next::Redrive {
                place: Place::Message(ticket),
                notification: notification.clone(),
                verdict,
            };
        }
        let failed = taken.failed.saturating_add(taken.item.tried);
        let delivery = taken.item.what.to_delivery();
        if let Some(bucket) = &mut self.bucket
            && let Err(at) = bucket.take(now, 1)
        {
            self.throttled_until = at;
            self.order.put_back(ticket);
            tally.add(Count::Throttled, 1);
            return Next::Idle;
        }
        if failed > 0 && matches!(delivery, Delivery::Notification(_)) {
            tally.add(Count::Retried, 1);
        }
        Next::Deliver {
            place: Place::Message(ticket),
            failed,
            delivery,
        }
    }

    /// Whether as much is at work as may be.
    const fn is_busy(&self) -> bool {
        self.order.in_flight_len() + self.notices.in_flight_len() >= self.max_in_flight
    }

    /// When there is something to do again, if nothing else happens.
    pub(crate) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        if self.over || self.is_busy() {
            return None;
        }
        let notice = deadline_of(&mut self.notices, now);
        if self.paused {
            return notice;
        }
        let message = deadline_of(&mut self.order, now).map(|at| at.max(self.throttled_until));
        match (notice, message) {
            (Some(notice), Some(message)) => Some(notice.min(message)),
            (notice, message) => notice.or(message),
        }
    }

    /// Messages pending.
    pub(crate) const fn pending(&self) -> u64 {
        self.order.len() as u64
    }

    /// Whether nothing is pending at all.
    pub(crate) const fn is_empty(&self) -> bool {
        self.order.len() == 0 && self.notices.len() == 0
    }

    /// What stands at a place, unless it was resolved.
    pub(crate) fn get(&self, place: Place) -> Option<&Item<T>> {
        match place {
            Place::Message(ticket) => self.order.get(ticket),
            Place::Notice(ticket) => self.notices.get(ticket),
        }
    }

    /// Takes out for good what stands at a place.
    pub(crate) fn done(&mut self, place: Place) -> Option<Item<T>> {
        match place {
            Place::Message(ticket) => self.order.done(ticket),
            Place::Notice(ticket) => self.notices.done(ticket),
        }
    }

    /// Has what stands at a place tried again at `at`.
    pub(crate) fn retry(&mut self, place: Place, at: Instant) {
        match place {
            Place::Message(ticket) => self.order.retry(ticket, at),
            Place::Notice(ticket) => self.notices.retry(ticket, at),
        };
    }
}

fn deadline_of<T>(order: &mut Order<Item<T>>, now: Instant) -> Option<Instant> {
    if order.has_ready(now) {
        return Some(now);
    }
    order.next_deadline()
}

/// Why one try failed, before it is known whether anybody wants to read it.
pub(crate) enum Failure {
    Refused(Refusing),
    Handler(DeliveryError),
    Panicked,
}

impl Failure {
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(reason) => matches!(reason, Refusing::Full { .. }),
            Self::Handler(error) => error.is_retryable(),
            Self::Panicked => true,
        }
    }

    /// When it may be tried again at the soonest.
    pub(crate) fn not_before(&self, now: Instant) -> Instant {
        let asked = match self {
            Self::Refused(Refusing::Full {
                retry_at: Some(retry_at),
            }) => *retry_at,
            Self::Handler(DeliveryError::Server {
                retry_after: Some(wait),
                ..
            }) => now + *wait,
            _ => now,
        };
        asked.min(now + MAX_PUT_OFF)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => reason.fmt(f),
            Self::Handler(error) => error.fmt(f),
            Self::Panicked => f.write_str("the subscriber panicked"),
        }
    }
}

impl<T: Send + Sync + 'static> Sub<T> {
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one record, made in one place"
    )]
    pub(crate) fn new(
        id: SubscriptionId,
        name: String,
        target: Target<T>,
        mode: u8,
        rules: Rules<T>,
        filter: Filter<T>,
        lane: Lane<T>,
        evaluations: Arc<Evaluations>,
        departed: Arc<Departed>,
    ) -> Self {
        Self {
            id,
            name: name.into_boxed_str(),
            target,
            mode: AtomicU8::new(mode),
            was_confirmed: AtomicBool::new(mode != self::mode::UNCONFIRMED),
            queued: AtomicBool::new(false),
            tally: Tally::default(),
            rules: Snapshot::new(rules),
            lane: Mutex::new(lane),
            replaying: AtomicBool::new(false),
            replay: Mutex::new(Replaying::default()),
            filter: Snapshot::new(filter),
            since: Mutex::new(None),
            evaluations,
            departed,
        }
    }

    /// Whether messages are delivered by whoever comes by, and not as futures.
    pub(crate) const fn is_sink(&self) -> bool {
        matches!(
            self.target,
            Target::Sink(_) | Target::Raw(_) | Target::Mailbox(_)
        )
    }

    /// Whether it belongs to a receiver, which ends it when it is dropped.
    pub(crate) const fn is_receiver(&self) -> bool {
        matches!(self.target, Target::Mailbox(_))
    }

    #[inline]
    pub(crate) fn mode(&self) -> u8 {
        self.mode.load(Ordering::Acquire)
    }

    /// Sets the mode that follows from the rest; under the lane's lock.
    pub(crate) fn settle_mode(&self, lane: &Lane<T>, is_fifo: bool) {
        let next = if lane.over {
            mode::OVER
        } else if self.mode() == mode::UNCONFIRMED {
            mode::UNCONFIRMED
        } else if self.is_sink() && !is_fifo && !lane.paused && lane.bucket.is_none() {
            mode::DIRECT
        } else {
            mode::QUEUED
        };
        self.mode.store(next, Ordering::Release);
    }

    /// Hands a message to the sink, now.
    #[inline]
    pub(crate) fn try_sink(&self, shared: &Arc<Shared<T>>, replayed: bool) -> Result<(), Failure> {
        let notification = Notification::shared(Arc::clone(shared), self.id, replayed);
        self.try_notify(notification)
    }

    /// Hands a notification to the sink, now. A panic of the sink ends here.
    #[inline]
    pub(crate) fn try_notify(&self, notification: Notification<T>) -> Result<(), Failure> {
        let outcome = catch_unwind(AssertUnwindSafe(|| match &self.target {
            Target::Sink(sink) => sink
                .try_deliver(notification)
                .map_err(|Refused { reason, .. }| reason),
            Target::Raw(raw) => raw
                .try_deliver(&notification)
                .map_err(|Refused { reason, .. }| reason),
            Target::Mailbox(mailbox) => {
                mailbox.put(notification);
                Ok(())
            }
            Target::Handler(_) | Target::Endpoint(_) => {
                unreachable!("handlers are driven, not called by publishers")
            }
        }));
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(Failure::Refused(reason)),
            Err(_) => Err(Failure::Panicked),
        }
    }

    /// The counts with what is pending.
    pub(crate) fn stats(&self) -> SubscriptionStats {
        let (pending, in_flight) = {
            let lane = self.lane.lock();
            (lane.pending(), lane.order.in_flight_len() as u64)
        };
        let mut stats = SubscriptionStats {
            pending,
            in_flight,
            ..self.tally.stats()
        };
        let since = *self.since.lock();
        if let Some(since) = since {
            let filtered = self.evaluations.filtered(&since, self.tally.excused());
            let [
                attributes,
                no_attributes,
                invalid_attributes,
                body,
                invalid_body,
            ] = filtered;
            stats.filtered.attributes += attributes;
            stats.filtered.no_attributes += no_attributes;
            stats.filtered.invalid_attributes += invalid_attributes;
            stats.filtered.body += body;
            stats.filtered.invalid_body += invalid_body;
        }
        stats
    }

    /// An index counts for it from now on.
    pub(crate) fn enter_index(&self, since: Since) {
        *self.since.lock() = Some(since);
    }

    /// No index counts for it any more.
    pub(crate) fn leave_index(&self) {
        let since = self.since.lock().take();
        if let Some(since) = since {
            let filtered = self.evaluations.filtered(&since, self.tally.excused());
            self.tally.add_filtered(filtered);
        }
    }
}

impl<T> Drop for Sub<T> {
    fn drop(&mut self) {
        let mut stats = self.tally.stats();
        // What was still pending goes with the topic.
        stats.dropped.unsubscribed += self.lane.lock().pending();
        let mut gone = self.departed.0.lock();
        gone.stats.absorb(&stats);
        if let Target::Mailbox(mailbox) = &self.target {
            let (received, lagged) = mailbox.counts();
            gone.received += received;
            gone.lagged += lagged;
        }
    }
}
