//! The one loop of waiting: try, register, try again, sleep; as a future and for a blocked thread.
//!
//! A crate writes `try_x` and owns an [`Event`]; from both, [`until`] makes `x`, [`until_blocking`] makes
//! `x_blocking`, and a finite deadline makes `x_until`. An [`Attempt`] is `try_x` with two things more: whether
//! another would succeed too, and when to ask again by the clock.
//!
//! # Progress
//! A waiter attempts when it is first polled, after it has registered, when it was notified, when its deadline
//! came, and as the [timekeeper](crate::event) when the state's next deadline came or became earlier. Polled
//! for any other cause (another branch of a `select!`, a stale waker) it stays asleep and does not attempt:
//! one notification makes one waiter attempt. A notified waiter that finds nothing attempts a second time,
//! since it must look again after it has gone back to the front of the list.
//!
//! A keeper whose deadline has passed already attempts again at once, a few times over, and then yields: to the
//! executor, or the processor. An attempt that goes on to name a time in the past is a fault of the state behind
//! it, and burns time, but starves nobody.
//!
//! # What the state must do
//! Change itself as [`Event::notify_one`] asks, before notifying; and let every attempt of one event wait for the
//! same condition. An attempt must not keep locks that a waker could need.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::clock::{Clock, Parker, Sleep};
use crate::event::{Begun, Event, Key, Place, Role};
use crate::sync::thread;
use crate::time::Instant;

/// What one try came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt<R> {
    /// It succeeded, or will never.
    Done {
        /// What the waiter returns.
        value: R,
        /// Whether another waiter would succeed now too: then it is woken.
        more: bool,
    },
    /// Not now.
    Pending {
        /// The state's next deadline: when it will change by itself, or [`Instant::NEVER`].
        wake_at: Instant,
    },
}

/// The deadline passed, and the last attempt did not succeed either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deadline passed")]
pub struct Elapsed;

/// How often one poll attempts before it yields, when the deadlines it is told have passed already.
const ATTEMPTS_BEFORE_YIELD: u32 = 8;

/// Waits until `attempt` is [`Done`](Attempt::Done), or `clock` reads `deadline`.
///
/// The first poll attempts before it registers. A deadline that has passed already still gets one attempt;
/// [`Instant::NEVER`] sets no timer.
///
/// # Errors
/// [`Elapsed`] at the deadline.
///
/// # Panics
/// As [`Clock::sleep_until`] does, when there is a finite time to sleep towards.
///
/// # Cancel safety
/// `attempt` is called in polls only, and its value is returned by the same poll: dropping the future loses
/// nothing, and passes a wake-up on that it had been given. A future that was woken and is then neither polled
/// nor dropped (leaked, or pinned aside in a loop that has gone on to something else) keeps it, and others wait.
pub fn until<'a, R, F>(
    event: &'a Event,
    clock: &'a Clock,
    deadline: Instant,
    attempt: F,
) -> Until<'a, R, F>
where
    F: FnMut() -> Attempt<R>,
{
    Until {
        event,
        clock,
        deadline,
        attempt,
        waiter: Waiter::new(),
        result: PhantomData,
    }
}

/// Blocks the thread until `attempt` is [`Done`](Attempt::Done), or `clock` reads `deadline`.
///
/// Needs no runtime. See [`until`], and [`Clock::sleep_until_blocking`] for the clocks.
///
/// # Errors
/// [`Elapsed`] at the deadline.
pub fn until_blocking<R>(
    event: &Event,
    clock: &Clock,
    deadline: Instant,
    mut attempt: impl FnMut() -> Attempt<R>,
) -> Result<R, Elapsed> {
    let wake_at = match first(event, clock, deadline, &mut attempt) {
        First::Ready(result) => return result,
        First::Pending { wake_at } => wake_at,
    };
    let parker = Parker::new();
    let waker = parker.waker();
    let mut entered = Entered {
        event,
        waiter: Waiter::new(),
    };
    let waiter = &mut entered.waiter;
    let mut step = waiter.enter(waker, event, clock, deadline, wake_at, &mut attempt);
    let mut attempts = 0;
    loop {
        match step {
            Step::Ready(result) => return result,
            Step::Asleep => {}
        }
        let mut due = waiter.is_due(clock);
        if !due {
            attempts = 0;
            parker.park_until(clock, waiter.target);
            due = waiter.is_due(clock);
        } else {
            attempts += 1;
            if attempts % ATTEMPTS_BEFORE_YIELD == 0 {
                thread::yield_now();
            }
        }
        step = waiter.resume(waker, event, clock, deadline, due, &mut attempt);
    }
}

/// The future of [`until`].
#[must_use = "futures do nothing unless polled"]
pub struct Until<'a, R, F> {
    event: &'a Event,
    clock: &'a Clock,
    deadline: Instant,
    attempt: F,
    waiter: Waiter,
    result: PhantomData<fn() -> R>,
}

/// `attempt` is called through `&mut` and never pinned.
impl<R, F> Unpin for Until<'_, R, F> {}

impl<R, F: FnMut() -> Attempt<R>> Future for Until<'_, R, F> {
    type Output = Result<R, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.waiter
            .poll_until(cx, this.event, this.clock, this.deadline, &mut this.attempt)
    }
}

impl<R, F> Drop for Until<'_, R, F> {
    fn drop(&mut self) {
        self.waiter.cancel(self.event);
    }
}

impl<R, F> fmt::Debug for Until<'_, R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Until")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// A place in an event's list, for a `Stream` or `Sink` that owns the state and polls in its own name.
///
/// It does not hold the event, so it cannot leave by itself: its owner calls [`Waiter::cancel`] when dropped,
/// and passes the same event each time. A registered waiter that is dropped without it would swallow a wake-up.
#[derive(Default)]
pub struct Waiter {
    place: Standing,
    /// Where the sleep goes that follows the last attempt.
    target: Instant,
    /// The timer, while it waits.
    sleep: Option<Sleep>,
}

/// Where a [`Waiter`] stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Standing {
    #[default]
    Nowhere,
    /// In the event's list, or notified.
    Entered(Key),
    /// Notified and begun: attempting. Only seen from elsewhere when the attempt panicked.
    Outside {
        /// Owes to settle the keeper's role.
        owes: bool,
    },
}

enum First<R> {
    Ready(Result<R, Elapsed>),
    Pending { wake_at: Instant },
}

enum Step<R> {
    Ready(Result<R, Elapsed>),
    /// Sleep towards the waiter's target.
    Asleep,
}

/// The attempt before registration.
#[inline]
fn first<R>(
    event: &Event,
    clock: &Clock,
    deadline: Instant,
    attempt: &mut impl FnMut() -> Attempt<R>,
) -> First<R> {
    match attempt() {
        Attempt::Done { value, more } => {
            if more {
                event.notify_one();
            }
            First::Ready(Ok(value))
        }
        Attempt::Pending { .. } if is_past(clock, deadline) => First::Ready(Err(Elapsed)),
        Attempt::Pending { wake_at } => First::Pending { wake_at },
    }
}

/// Whether `clock` reads `instant` or later; does not read the clock for never.
fn is_past(clock: &Clock, instant: Instant) -> bool {
    !instant.is_never() && clock.now() >= instant
}

impl Waiter {
    /// Makes one that stands in no list.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            place: Standing::Nowhere,
            target: Instant::NEVER,
            sleep: None,
        }
    }

    /// Waits as [`until`] does, one poll at a time.
    ///
    /// After `Ready` it stands in no list and can wait again. `deadline` may differ from poll to poll; a new one
    /// counts from the next attempt on.
    ///
    /// # Errors
    /// [`Elapsed`] at the deadline.
    ///
    /// # Panics
    /// As [`Clock::sleep_until`] does; and possibly when it is polled with another event than the one it stands
    /// in.
    pub fn poll_until<R>(
        &mut self,
        cx: &mut Context<'_>,
        event: &Event,
        clock: &Clock,
        deadline: Instant,
        attempt: &mut impl FnMut() -> Attempt<R>,
    ) -> Poll<Result<R, Elapsed>> {
        let polled = self.poll_step(cx, event, clock, deadline, attempt);
        if polled.is_ready() {
            // Its timer would wake in vain.
            self.sleep = None;
        }
        polled
    }

    fn poll_step<R>(
        &mut self,
        cx: &mut Context<'_>,
        event: &Event,
        clock: &Clock,
        deadline: Instant,
        attempt: &mut impl FnMut() -> Attempt<R>,
    ) -> Poll<Result<R, Elapsed>> {
        let mut step = match self.place {
            Standing::Entered(_) => {
                let due = self.poll_timer(cx);
                self.resume(cx.waker(), event, clock, deadline, due, attempt)
            }
            Standing::Nowhere | Standing::Outside { .. } => {
                self.cancel(event);
                match first(event, clock, deadline, attempt) {
                    First::Ready(result) => Step::Ready(result),
                    First::Pending { wake_at } => {
                        self.enter(cx.waker(), event, clock, deadline, wake_at, attempt)
                    }
                }
            }
        };
        for _ in 0..ATTEMPTS_BEFORE_YIELD {
            match step {
                Step::Ready(result) => return Poll::Ready(result),
                Step::Asleep if !self.set_timer(clock, cx) => return Poll::Pending,
                Step::Asleep => {
                    step = self.resume(cx.waker(), event, clock, deadline, true, attempt);
                }
            }
        }
        match step {
            Step::Ready(result) => Poll::Ready(result),
            Step::Asleep => {
                if self.set_timer(clock, cx) {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }

    /// Leaves the list, if it stands in one; passes a wake-up on that it was given and has not used.
    pub fn cancel(&mut self, event: &Event) {
        self.sleep = None;
        match std::mem::take(&mut self.place) {
            Standing::Nowhere => {}
            Standing::Entered(key) => event.leave(key),
            Standing::Outside { owes } => self.leave_outside(event, owes, true),
        }
    }

    /// Registers after the first attempt, and attempts again.
    fn enter<R>(
        &mut self,
        waker: &Waker,
        event: &Event,
        clock: &Clock,
        deadline: Instant,
        wake_at: Instant,
        attempt: &mut impl FnMut() -> Attempt<R>,
    ) -> Step<R> {
        let (key, role) = event.register(waker.clone(), Place::Back, !wake_at.is_never());
        self.place = Standing::Entered(key);
        self.attempt_listed(event, clock, deadline, key, role, attempt)
    }

    /// Finds out why it was polled, and attempts if there is a reason. `due`: its target has come.
    fn resume<R>(
        &mut self,
        waker: &Waker,
        event: &Event,
        clock: &Clock,
        deadline: Instant,
        due: bool,
        attempt: &mut impl FnMut() -> Attempt<R>,
    ) -> Step<R> {
        let Standing::Entered(key) = self.place else {
            return Step::Asleep;
        };
        let owes = match event.begin(key, waker) {
            Begun::Quiet(_) if !due => return Step::Asleep,
            Begun::Quiet(role) | Begun::Appointed(role) => {
                return self.attempt_listed(event, clock, deadline, key, role, attempt);
            }
            Begun::Notified { vacant } => vacant,
        };
        self.place = Standing::Outside { owes };
        match attempt() {
            Attempt::Done { value, more } => {
                self.leave_outside(event, owes, more);
                Step::Ready(Ok(value))
            }
            Attempt::Pending { .. } if is_past(clock, deadline) => {
                self.leave_outside(event, owes, true);
                Step::Ready(Err(Elapsed))
            }
            Attempt::Pending { wake_at } => {
                let (key, role) = event.register(waker.clone(), Place::Front, !wake_at.is_never());
                self.place = Standing::Entered(key);
                self.attempt_listed(event, clock, deadline, key, role, attempt)
            }
        }
    }

    /// Attempts while it stands in the list, so that nothing that comes now is missed.
    fn attempt_listed<R>(
        &mut self,
        event: &Event,
        clock: &Clock,
        deadline: Instant,
        key: Key,
        role: Role,
        attempt: &mut impl FnMut() -> Attempt<R>,
    ) -> Step<R> {
        match attempt() {
            Attempt::Done { value, more } => {
                self.place = Standing::Nowhere;
                event.leave(key);
                if more {
                    event.notify_one();
                }
                Step::Ready(Ok(value))
            }
            Attempt::Pending { .. } if is_past(clock, deadline) => {
                self.place = Standing::Nowhere;
                event.leave(key);
                Step::Ready(Err(Elapsed))
            }
            Attempt::Pending { wake_at } => {
                self.target = match role {
                    Role::Waiter => deadline,
                    Role::Keeper { armed } => {
                        let timed = !wake_at.is_never();
                        if armed != timed {
                            event.report(key, timed);
                        }
                        deadline.min(wake_at)
                    }
                };
                Step::Asleep
            }
        }
    }

    fn leave_outside(&mut self, event: &Event, owes: bool, more: bool) {
        self.place = Standing::Nowhere;
        if more {
            event.notify_one();
        }
        if owes {
            event.settle();
        }
    }

    fn is_due(&self, clock: &Clock) -> bool {
        is_past(clock, self.target)
    }

    /// Sets the timer towards the target; true when that has passed.
    fn set_timer(&mut self, clock: &Clock, cx: &mut Context<'_>) -> bool {
        match &mut self.sleep {
            Some(sleep) => sleep.reset(self.target),
            None if self.target.is_never() => return false,
            None => self.sleep = Some(clock.sleep_until(self.target)),
        }
        self.poll_timer(cx)
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        self.sleep
            .as_mut()
            .is_some_and(|sleep| Pin::new(sleep).poll(cx).is_ready())
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// Leaves the list also when the attempt panics.
struct Entered<'a> {
    event: &'a Event,
    waiter: Waiter,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.waiter.cancel(self.event);
    }
}
