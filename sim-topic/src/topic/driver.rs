//! Who delivers: publishers for sinks, and for the rest whoever drives the topic. Nothing is spawned.
//!
//! # Algorithm
//! A small executor whose tasks are the deliveries of handlers. A queue holds what can go on: subscriptions with
//! something to do, and tasks that were woken. Any number of drivers take from it, each working on what it took
//! without a lock. A task that is woken while it is polled is polled again by the one who polls it.
//! The agenda, a timer wheel, has at most one entry a subscription: when its lane has something to do again.
//!
//! # Ordering
//! `queued` flags are swapped `AcqRel`, set by who puts the thing into the queue, and taken down by who took it out,
//! before it is looked at: what comes after the look finds the flag down. All else is under locks; none of them is
//! held while foreign code (a sink, a handler, a waker, the drop of a value) runs.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use sim_core::event::Event;
use sim_core::seam::{Reason as Refusing, Refused};
use sim_core::sync::atomic::{AtomicBool, Ordering};
use sim_core::sync::{Arc, Mutex, MutexGuard, Weak};
use sim_core::time::Instant;
use sim_core::wheel::Wheel;

use crate::error::DeliveryError;
use crate::message::{
    DeadLetter, DeadLetterReason, Delivery, Notification, Shared, SubscriptionId,
};
use crate::settings::Overflow;
use crate::subscriber::Target;
use crate::topic::hub::Hub;
use crate::topic::lane::{Failure, Item, Lane, MAX_PUT_OFF, Next, Place, Sub, Verdict, What, mode};
use crate::topic::tally::Count;

/// How long a letter that its sink had no room for waits until it is offered again.
const REDRIVE_WAIT: Duration = Duration::from_secs(1);
/// How many rounds without any progress one call of `advance` makes with tasks that wake themselves.
const IDLE_ROUNDS: u32 = 64;

type Working = Pin<Box<dyn Future<Output = Result<(), DeliveryError>> + Send>>;

/// What drivers share.
pub(crate) struct Driver<T> {
    ready: Mutex<VecDeque<Ready<T>>>,
    /// Drivers that sleep.
    pub(crate) work: Event,
    agenda: Mutex<Wheel<Arc<Sub<T>>>>,
    tasks: Mutex<Tasks<T>>,
}

/// Deliveries at work, so that somebody owns them.
struct Tasks<T> {
    next: u64,
    /// Bound: the sum of the subscriptions' `max_in_flight`.
    running: BTreeMap<(SubscriptionId, u64), Arc<Task<T>>>,
}

enum Ready<T> {
    Sub(Arc<Sub<T>>),
    Task(Arc<Task<T>>),
}

/// A handler at work on one message.
struct Task<T> {
    number: u64,
    sub: Arc<Sub<T>>,
    place: Place,
    failed: u32,
    stage: Mutex<Stage>,
    queued: AtomicBool,
    home: Weak<Driver<T>>,
}

enum Stage {
    Waiting(Working),
    /// Somebody polls it; `again` when it was woken meanwhile.
    Polled {
        again: bool,
    },
    Over,
}

impl<T: Send + Sync + 'static> Wake for Task<T> {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel)
            && let Some(home) = self.home.upgrade()
        {
            home.push(Ready::Task(self));
        }
    }
}

impl<T> Driver<T> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            ready: Mutex::new(VecDeque::new()),
            work: Event::new(),
            agenda: Mutex::new(Wheel::new()),
            tasks: Mutex::new(Tasks {
                next: 0,
                running: BTreeMap::new(),
            }),
        })
    }

    fn push(&self, ready: Ready<T>) {
        self.ready.lock().push_back(ready);
        self.work.notify_one();
    }

    fn pop(&self) -> Option<Ready<T>> {
        self.ready.lock().pop_front()
    }

    /// Has the drivers look at a subscription.
    pub(crate) fn make_ready(&self, sub: &Arc<Sub<T>>) {
        if !sub.queued.swap(true, Ordering::AcqRel) {
            self.push(Ready::Sub(Arc::clone(sub)));
        }
    }

    /// How many things can go on now.
    pub(crate) fn ready_len(&self) -> usize {
        self.ready.lock().len()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.agenda.lock().next()
    }

    /// Gives up what is at work for a subscription on what its lane does not hold any more. What is polled right now
    /// is dropped by who polls it. O(log n) and what there is of it.
    pub(crate) fn give_up(&self, sub: &Sub<T>) {
        let span = (sub.id, 0)..=(sub.id, u64::MAX);
        let mut given_up: Vec<_> = {
            let tasks = self.tasks.lock();
            tasks
                .running
                .range(span)
                .map(|(_, task)| Arc::clone(task))
                .collect()
        };
        if given_up.is_empty() {
            return;
        }
        {
            let lane = sub.lane.lock();
            given_up.retain(|task| lane.get(task.place).is_none());
        }
        for task in given_up {
            let mine = self.tasks.lock().running.remove(&(sub.id, task.number));
            drop(mine);
            let stage = std::mem::replace(&mut *task.stage.lock(), Stage::Over);
            // A panic of it is not that of whoever ends the subscription.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(stage)));
        }
    }

    /// Gives up all that is at work. For the end of the topic: a task and its waker may hold each other.
    pub(crate) fn clear(&self) {
        let running = std::mem::take(&mut self.tasks.lock().running);
        for task in running.into_values() {
            let stage = std::mem::replace(&mut *task.stage.lock(), Stage::Over);
            drop(stage);
        }
        let ready = std::mem::take(&mut *self.ready.lock());
        drop(ready);
        let agenda = std::mem::take(&mut *self.agenda.lock());
        drop(agenda);
    }

    /// Sets the one entry of the agenda for a lane, whose lock is held. True when the drivers are to be told, once
    /// it is not.
    #[must_use]
    fn schedule(&self, sub: &Arc<Sub<T>>, lane: &mut Lane<T>, now: Instant) -> bool {
        let at = lane.deadline(now).filter(|at| !at.is_never());
        if lane.timer.map(|(at, _)| at) == at {
            return false;
        }
        let mut former = None;
        {
            let mut agenda = self.agenda.lock();
            if let Some((_, key)) = lane.timer.take() {
                former = agenda.remove(key);
            }
            if let Some(at) = at {
                lane.timer = Some((at, agenda.insert(at, Arc::clone(sub))));
            }
        }
        // Not the last holder: `sub` is another.
        drop(former);
        at.is_some()
    }
}

/// A message that a lane has no room for.
pub(crate) struct Extra<T> {
    notification: Notification<T>,
    /// How often it was tried in vain.
    attempts: u32,
    /// Set when it had been given up before.
    verdict: Option<Box<Verdict>>,
}

impl<T> Extra<T> {
    /// One that was never tried.
    const fn new(notification: Notification<T>) -> Self {
        Self {
            notification,
            attempts: 0,
            verdict: None,
        }
    }
}

/// What became of a message that was given up.
enum Offered {
    Taken,
    Refused,
    /// The sink has no room; when to offer it again.
    Later(Instant),
}

impl<T: Send + Sync + 'static> Hub<T> {
    // ---- into the lane ---------------------------------------------------------------------------------

    /// Puts a message into the lane; false when the subscription is over. What overflows is returned, to be given up
    /// without a lock.
    pub(crate) fn enqueue(
        &self,
        sub: &Arc<Sub<T>>,
        notification: Notification<T>,
    ) -> Option<Extra<T>> {
        let group = match self.is_fifo() {
            true => notification.group().cloned(),
            false => None,
        };
        let group = group.as_ref().map(|group| group.as_str());
        let overflow = sub.rules.load().overflow;
        let mut lane = sub.lane.lock();
        if lane.over || sub.mode() == mode::UNCONFIRMED {
            return None;
        }
        sub.tally.add(Count::Accepted, 1);
        if notification.is_replayed() {
            sub.tally.add(Count::Replayed, 1);
        }
        let Err(item) = lane.order.push(group, Item::message(notification)) else {
            return None;
        };
        let What::Message(newest) = item.what else {
            return None;
        };
        if overflow == Overflow::Newest {
            return Some(Extra::new(newest));
        }
        let Some((oldest, failed)) = lane.order.evict() else {
            return Some(Extra::new(newest));
        };
        // There is room now.
        if let Err(item) = lane.order.push(group, Item::message(newest))
            && let What::Message(newest) = item.what
        {
            return Some(Extra::new(newest));
        }
        match oldest.what {
            What::Message(notification) => Some(Extra {
                notification,
                attempts: failed.saturating_add(oldest.tried),
                verdict: oldest.verdict.into_inner(),
            }),
            What::Control(_) => None,
        }
    }

    /// Gives up a message that the lane had no room for.
    pub(crate) fn overflowed(&self, sub: &Arc<Sub<T>>, extra: Extra<T>, now: Instant) {
        let Extra {
            notification,
            attempts,
            verdict,
        } = extra;
        if let Some(verdict) = verdict {
            // It had been given up before, and counted.
            self.part_with(sub, notification, &verdict, now);
            return;
        }
        let verdict = Verdict {
            reason: DeadLetterReason::Overflow,
            attempts,
            error: None,
        };
        self.give_up_loose(sub, notification, verdict, now);
    }

    /// Gives up a message that stands in no lane and has no room in one.
    fn give_up_loose(
        &self,
        sub: &Arc<Sub<T>>,
        notification: Notification<T>,
        verdict: Verdict,
        now: Instant,
    ) {
        sub.tally.add(Count::Failed, 1);
        self.part_with(sub, notification, &verdict, now);
    }

    /// Offers a message that was given up to the dead-letter sink, once.
    fn part_with(
        &self,
        sub: &Arc<Sub<T>>,
        notification: Notification<T>,
        verdict: &Verdict,
        now: Instant,
    ) {
        let count = match self.offer_letter(sub, notification, verdict, now) {
            None => dropped(verdict.reason),
            Some(Offered::Taken) => Count::Redriven,
            Some(Offered::Refused | Offered::Later(_)) => Count::DroppedNotRedriven,
        };
        sub.tally.add(count, 1);
    }

    /// A try in the publisher's call failed: the message goes into the lane to be tried again, or is given up.
    pub(crate) fn failed_at_once(
        &self,
        sub: &Arc<Sub<T>>,
        shared: &Arc<Shared<T>>,
        failure: &Failure,
        now: Instant,
    ) {
        sub.tally.add(Count::Accepted, 1);
        let notification = Notification::shared(Arc::clone(shared), sub.id, false);
        let retry = match failure.is_retryable() {
            true => sub.rules.load().retry.delay(1, &mut sub.lane.lock().random),
            false => None,
        };
        if let Some(wait) = retry {
            let at = (now + wait).max(failure.not_before(now));
            self.hold(sub, notification, None, at, now);
            return;
        }
        sub.tally.add(Count::Failed, 1);
        let verdict = Verdict {
            reason: reason_of(failure),
            attempts: 1,
            error: Some(failure.to_string()),
        };
        let count = match self.offer_letter(sub, notification.clone(), &verdict, now) {
            None => dropped(verdict.reason),
            Some(Offered::Taken) => Count::Redriven,
            Some(Offered::Refused) => Count::DroppedNotRedriven,
            Some(Offered::Later(at)) => {
                self.hold(sub, notification, Some(Box::new(verdict)), at, now);
                return;
            }
        };
        sub.tally.add(count, 1);
    }

    /// Puts a message that was tried once into the lane, not to be touched before `at`.
    fn hold(
        &self,
        sub: &Arc<Sub<T>>,
        notification: Notification<T>,
        verdict: Option<Box<Verdict>>,
        at: Instant,
        now: Instant,
    ) {
        let is_letter = verdict.is_some();
        let item = Item {
            what: What::Message(notification),
            tried: 1,
            verdict: std::cell::Cell::new(verdict),
        };
        let mut lane = sub.lane.lock();
        if lane.over {
            drop(lane);
            sub.tally.add(Count::DroppedUnsubscribed, 1);
            return;
        }
        let outcome = lane.order.push_held(item, at);
        let retime = outcome.is_ok() && self.driver.schedule(sub, &mut lane, now);
        drop(lane);
        if retime {
            self.driver.work.retime();
        }
        let Err(Item {
            what: What::Message(notification),
            ..
        }) = outcome
        else {
            return;
        };
        if is_letter {
            sub.tally.add(Count::DroppedNotRedriven, 1);
        } else {
            let verdict = Verdict {
                reason: DeadLetterReason::Overflow,
                attempts: 1,
                error: None,
            };
            self.give_up_loose(sub, notification, verdict, now);
        }
    }

    // ---- out of the lane -------------------------------------------------------------------------------

    /// Does what the lane of a subscription has to do at `now`: sinks at once, handlers as far as one poll
    /// goes.
    pub(crate) fn serve(&self, sub: &Arc<Sub<T>>, now: Instant) {
        loop {
            self.pump_replay(sub, now);
            let next = {
                let mut lane = sub.lane.lock();
                let next = lane.next(now, &sub.tally);
                let is_idle = matches!(next, Next::Idle);
                let retime = is_idle && self.driver.schedule(sub, &mut lane, now);
                let is_empty = is_idle && lane.is_empty();
                drop(lane);
                if retime {
                    self.driver.work.retime();
                }
                if is_empty {
                    self.emptied();
                }
                next
            };
            match next {
                Next::Idle => return,
                Next::Redrive {
                    place,
                    notification,
                    verdict,
                } => self.redrive(sub, place, notification, *verdict, now),
                Next::Deliver {
                    place,
                    failed,
                    delivery,
                } => match delivery {
                    Delivery::Notification(notification) if sub.is_sink() => {
                        let outcome = sub.try_notify(notification);
                        self.settle(sub, place, failed, outcome, now);
                    }
                    delivery => self.start(sub, place, failed, delivery, now),
                },
            }
        }
    }

    /// Nothing is pending in a lane any more: if it was the last one of a closed topic, drivers come to their end.
    pub(crate) fn emptied(&self) {
        if self.is_closed() {
            self.driver.work.notify_all();
        }
    }

    /// Starts a handler, and polls it once.
    fn start(
        &self,
        sub: &Arc<Sub<T>>,
        place: Place,
        failed: u32,
        delivery: Delivery<T>,
        now: Instant,
    ) {
        let owner = Arc::clone(sub);
        let working: Working = Box::pin(async move {
            match (&owner.target, delivery) {
                (Target::Handler(handler), Delivery::Notification(notification)) => {
                    handler.handle(notification).await
                }
                (Target::Endpoint(handler), delivery) => handler.handle(delivery).await,
                _ => Ok(()),
            }
        });
        let task = {
            let mut tasks = self.driver.tasks.lock();
            let number = tasks.next;
            tasks.next += 1;
            let task = Arc::new(Task {
                number,
                sub: Arc::clone(sub),
                place,
                failed,
                stage: Mutex::new(Stage::Waiting(working)),
                queued: AtomicBool::new(false),
                home: Arc::downgrade(&self.driver),
            });
            tasks.running.insert((sub.id, number), Arc::clone(&task));
            task
        };
        // Its lane is served by whoever called.
        let is_over = self.poll(&task, now);
        if !is_over && sub.lane.lock().get(place).is_none() {
            // The subscription was over before its driver had it among those at work.
            self.driver.give_up(sub);
        }
    }

    /// Polls a task; true when it came to its end.
    fn poll(&self, task: &Arc<Task<T>>, now: Instant) -> bool {
        let mut working = {
            let mut stage = task.stage.lock();
            match std::mem::replace(&mut *stage, Stage::Polled { again: false }) {
                Stage::Waiting(working) => working,
                Stage::Polled { .. } => {
                    *stage = Stage::Polled { again: true };
                    return false;
                }
                Stage::Over => {
                    *stage = Stage::Over;
                    return false;
                }
            }
        };
        let waker = Waker::from(Arc::clone(task));
        let mut context = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| working.as_mut().poll(&mut context)));
        let outcome = match polled {
            Ok(Poll::Pending) => {
                let mut stage = task.stage.lock();
                let again = match std::mem::replace(&mut *stage, Stage::Waiting(working)) {
                    Stage::Polled { again } => again,
                    former => {
                        // The topic is gone.
                        let working = std::mem::replace(&mut *stage, former);
                        drop(stage);
                        drop(working);
                        return false;
                    }
                };
                drop(stage);
                if again {
                    waker.wake();
                }
                return false;
            }
            Ok(Poll::Ready(outcome)) => outcome.map_err(Failure::Handler),
            Err(_) => Err(Failure::Panicked),
        };
        *task.stage.lock() = Stage::Over;
        // A future that panicked may panic again when it is dropped; that is then the driver's.
        drop(working);
        let key = (task.sub.id, task.number);
        let mine = self.driver.tasks.lock().running.remove(&key);
        drop(mine);
        self.settle(&task.sub, task.place, task.failed, outcome, now);
        true
    }

    /// One try came to its end.
    fn settle(
        &self,
        sub: &Arc<Sub<T>>,
        place: Place,
        failed: u32,
        outcome: Result<(), Failure>,
        now: Instant,
    ) {
        let failure = match outcome {
            Ok(()) => {
                if self.finish(sub, place) == Finished::Message {
                    sub.tally.add(Count::Delivered, 1);
                }
                return;
            }
            Err(failure) => failure,
        };
        let rules = sub.rules.load_arc();
        let attempts = failed.saturating_add(1);
        let mut lane = sub.lane.lock();
        if failure.is_retryable()
            && let Some(wait) = rules.retry.delay(attempts, &mut lane.random)
        {
            let at = (now + wait).max(failure.not_before(now));
            lane.retry(place, at);
            return;
        }
        let notification = match lane.get(place).map(|item| &item.what) {
            Some(What::Message(notification)) => Some(notification.clone()),
            Some(What::Control(_)) | None => None,
        };
        drop(lane);
        let Some(notification) = notification else {
            self.finish(sub, place);
            return;
        };
        sub.tally.add(Count::Failed, 1);
        let verdict = Verdict {
            reason: reason_of(&failure),
            attempts,
            error: Some(failure.to_string()),
        };
        self.redrive(sub, place, notification, verdict, now);
    }

    /// Offers a message that was given up to the dead-letter sink, or drops it where there is none.
    fn redrive(
        &self,
        sub: &Arc<Sub<T>>,
        place: Place,
        notification: Notification<T>,
        verdict: Verdict,
        now: Instant,
    ) {
        let count = match self.offer_letter(sub, notification, &verdict, now) {
            None => dropped(verdict.reason),
            Some(Offered::Taken) => Count::Redriven,
            Some(Offered::Refused) => Count::DroppedNotRedriven,
            Some(Offered::Later(at)) => {
                let mut lane = sub.lane.lock();
                if let Some(item) = lane.get(place) {
                    item.verdict.set(Some(Box::new(verdict)));
                }
                lane.retry(place, at.max(now));
                return;
            }
        };
        if self.finish(sub, place) == Finished::Message {
            sub.tally.add(count, 1);
        }
    }

    /// Takes an item out of its lane, for good.
    fn finish(&self, sub: &Arc<Sub<T>>, place: Place) -> Finished {
        let (item, finished) = {
            let mut lane = sub.lane.lock();
            let item = lane.done(place);
            let finished = match item.as_ref().map(|item| &item.what) {
                Some(What::Message(_)) => Finished::Message,
                Some(What::Control(_)) => Finished::Control,
                None => Finished::Nothing,
            };
            (item, finished)
        };
        // Values are dropped without the lock.
        drop(item);
        finished
    }

    /// Offers a letter; none when there is no sink for it.
    fn offer_letter(
        &self,
        sub: &Arc<Sub<T>>,
        notification: Notification<T>,
        verdict: &Verdict,
        now: Instant,
    ) -> Option<Offered> {
        let sink = sub.rules.load().dead_letters.clone()?;
        let letter = DeadLetter {
            notification,
            reason: verdict.reason,
            attempts: verdict.attempts,
            error: verdict.error.clone(),
            died_at: self.clock.timestamp(now),
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            sink.try_deliver(letter)
                .map_err(|Refused { reason, .. }| reason)
        }));
        Some(match outcome {
            Ok(Ok(())) => Offered::Taken,
            Ok(Err(Refusing::Full { retry_at })) => {
                let at = retry_at.unwrap_or(now);
                Offered::Later(at.clamp(now + REDRIVE_WAIT, now + MAX_PUT_OFF))
            }
            Ok(Err(_)) | Err(_) => Offered::Refused,
        })
    }

    // ---- driving ---------------------------------------------------------------------------------------

    /// Does one thing that can go on; none when there is nothing. Says whether it came any further.
    fn step(&self, now: Instant) -> Option<bool> {
        Some(match self.driver.pop()? {
            Ready::Sub(sub) => {
                sub.queued.swap(false, Ordering::AcqRel);
                self.serve(&sub, now);
                true
            }
            Ready::Task(task) => {
                task.queued.swap(false, Ordering::AcqRel);
                let is_over = self.poll(&task, now);
                if is_over {
                    // There is room for another, and perhaps a time to try this one again.
                    self.serve(&task.sub, now);
                }
                is_over
            }
        })
    }

    /// Serves one deadline of the agenda at or before `now`; returns it.
    fn serve_due(&self, now: Instant, late: Late) -> Option<Instant> {
        let (at, sub) = self.driver.agenda.lock().pop_due(now)?;
        {
            let mut lane = sub.lane.lock();
            clear_timer(&mut lane, at);
        }
        let at = match late {
            Late::AsDue => at,
            Late::Now => now,
        };
        self.serve(&sub, at);
        Some(at)
    }

    /// Up to `budget` things that can be done at `now`; true when there may be more.
    pub(crate) fn turn(&self, now: Instant, budget: usize) -> bool {
        for _ in 0..budget {
            let is_due = self.serve_due(now, Late::Now).is_some();
            let is_stepped = self.step(now).is_some();
            if !is_due && !is_stepped {
                return false;
            }
        }
        true
    }

    /// Everything that can be done up to `now`, deadline by deadline.
    pub(crate) fn advance_to(&self, now: Instant) {
        let mut at = now.min(self.clock.now());
        loop {
            let mut idle = 0;
            while idle < IDLE_ROUNDS {
                let len = self.driver.ready_len();
                if len == 0 {
                    break;
                }
                let mut is_moving = false;
                for _ in 0..len {
                    is_moving |= self.step(at).unwrap_or(false);
                }
                idle = if is_moving { 0 } else { idle + 1 };
            }
            match self.serve_due(now, Late::AsDue) {
                Some(served) => at = served,
                None => return,
            }
        }
    }
}

/// By which time what is late is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Late {
    /// As if it were served when it was due: for a clock that jumped.
    AsDue,
    /// By the present, so that a driver that slept does not make up for all tries at once.
    Now,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Finished {
    Message,
    Control,
    /// The subscription ended meanwhile, and what was pending was counted then.
    Nothing,
}

/// The entry of the agenda was taken out.
fn clear_timer<T>(lane: &mut MutexGuard<'_, Lane<T>>, at: Instant) {
    if lane.timer.is_some_and(|(timer, _)| timer <= at) {
        lane.timer = None;
    }
}

fn reason_of(failure: &Failure) -> DeadLetterReason {
    if failure.is_retryable() {
        DeadLetterReason::Exhausted
    } else {
        DeadLetterReason::ClientError
    }
}

fn dropped(reason: DeadLetterReason) -> Count {
    match reason {
        DeadLetterReason::ClientError => Count::DroppedClientError,
        DeadLetterReason::Exhausted => Count::DroppedExhausted,
        DeadLetterReason::Overflow => Count::DroppedOverflow,
    }
}
