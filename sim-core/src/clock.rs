//! Clocks: the machine's, one that a test moves, and tokio's.
//!
//! Time is an input everywhere else: rules get a [`now`](Clock::now) handed in, and whoever waits sleeps on a
//! [`Clock`], so that a year can pass in a second. A clock has an axis of its own ([`Instant`]s since its
//! origin) and one wall-clock anchor, taken once, by which [`Clock::timestamp`] translates.
//!
//! | clock | `now` | sleeping tasks | sleeping threads |
//! | --- | --- | --- | --- |
//! | [`Clock::system`] | the operating system's monotonic clock; [`recent`](Clock::recent) is six times cheaper | tokio's timer | a timed park |
//! | [`VirtualClock`] | what [`VirtualClock::advance`] said last | woken by the one who advances | the same |
//! | [`Clock::tokio`] | tokio's `Instant`, which a paused runtime moves | tokio's timer | a timed park in real time |

mod park;
mod runtime;
mod system;
mod timeline;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use self::runtime::RuntimeAxis;
use self::system::SystemAxis;
use self::timeline::{Ticket, Timeline};
use crate::sync::Arc;
use crate::time::{Instant, Timestamp};

pub(crate) use self::park::Parker;
pub use self::timeline::VirtualClock;

/// A source of time: cheap to clone, the same type whether time is real or made up.
///
/// ```
/// use std::time::Duration;
/// use sim_core::clock::Clock;
/// use sim_core::time::{Instant, Timestamp};
///
/// let new_year: Timestamp = "2013-01-01T00:00:00Z".parse()?;
/// let (clock, time) = Clock::virtual_at(new_year);
/// time.advance(Duration::from_secs(86_400));
/// assert_eq!(clock.timestamp(clock.now()).to_string(), "2013-01-02T00:00:00Z");
/// # Ok::<(), sim_core::time::ParseTimestampError>(())
/// ```
#[derive(Clone)]
pub struct Clock(Kind);

#[derive(Clone)]
enum Kind {
    System(&'static SystemAxis),
    Runtime(RuntimeAxis),
    Virtual(Arc<Timeline>),
}

impl Clock {
    /// The machine's monotonic clock. All system clocks of a process share one axis, whose origin is the
    /// first call.
    ///
    /// Reads the operating system's monotonic clock, and the wall clock once, at the first call.
    #[must_use]
    pub fn system() -> Self {
        Self(Kind::System(SystemAxis::shared()))
    }

    /// A clock that moves only when its [`VirtualClock`] says so, and starts at `start`.
    #[must_use]
    pub fn virtual_at(start: Timestamp) -> (Self, VirtualClock) {
        let time = VirtualClock::new(start);
        (time.clock(), time)
    }

    /// tokio's clock, which stands still in a paused runtime and is moved by it. Its origin is this call.
    ///
    /// Which time tokio tells depends on the runtime of the calling thread: all calls on one such clock
    /// belong in one runtime.
    #[must_use]
    pub fn tokio() -> Self {
        Self(Kind::Runtime(RuntimeAxis::start()))
    }

    fn on_timeline(timeline: Arc<Timeline>) -> Self {
        Self(Kind::Virtual(timeline))
    }

    /// The present.
    #[inline]
    #[must_use]
    pub fn now(&self) -> Instant {
        match &self.0 {
            Kind::System(axis) => axis.now(),
            Kind::Runtime(axis) => axis.now(),
            Kind::Virtual(timeline) => timeline.now(),
        }
    }

    /// The present as of a moment ago: never ahead of [`now`](Self::now), and behind it by at most
    /// [`lag`](Self::lag).
    ///
    /// On [`Clock::system`] it is the kernel's last tick, at a sixth of the cost of `now`; the other clocks are
    /// exact. For what happens for each message. Whoever promises a time from now on adds the lag; whoever
    /// is about to sleep towards a deadline asks `now`.
    #[inline]
    #[must_use]
    pub fn recent(&self) -> Instant {
        match &self.0 {
            Kind::System(axis) => axis.recent(),
            Kind::Runtime(axis) => axis.now(),
            Kind::Virtual(timeline) => timeline.now(),
        }
    }

    /// The present by the cheapest counter that tells microseconds apart; for the difference of two readings.
    ///
    /// On [`Clock::system`] it is the processor's counter where that runs evenly (by quanta; cheaper than
    /// [`now`](Self::now)), and drifts against `now` by some parts in a million; the first call calibrates it, for up
    /// to a fifth of a second. The other clocks answer as `now` does. For how long a call took; deadlines are for `now`.
    #[inline]
    #[must_use]
    pub fn fine(&self) -> Instant {
        match &self.0 {
            Kind::System(axis) => axis.fine(),
            Kind::Runtime(axis) => axis.now(),
            Kind::Virtual(timeline) => timeline.now(),
        }
    }

    /// How far [`recent`](Self::recent) may lie behind [`now`](Self::now): two ticks of the kernel (8 ms at its usual
    /// 250 a second) on [`Clock::system`], nothing on the others.
    #[must_use]
    pub fn lag(&self) -> Duration {
        match &self.0 {
            Kind::System(axis) => axis.lag(),
            Kind::Runtime(_) | Kind::Virtual(_) => Duration::ZERO,
        }
    }

    /// The wall-clock time of `instant`; saturates.
    #[must_use]
    pub fn timestamp(&self, instant: Instant) -> Timestamp {
        Timestamp::from_unix_nanos(
            self.origin()
                .as_unix_nanos()
                .saturating_add_unsigned(instant.as_nanos()),
        )
    }

    /// The instant at which this clock's wall time is `timestamp`; [`Instant::ORIGIN`] for all that lies
    /// before its origin.
    #[must_use]
    pub fn instant_of(&self, timestamp: Timestamp) -> Instant {
        Instant::ORIGIN + timestamp.saturating_duration_since(self.origin())
    }

    /// The wall-clock time of this clock's origin.
    fn origin(&self) -> Timestamp {
        match &self.0 {
            Kind::System(axis) => axis.origin(),
            Kind::Runtime(axis) => axis.origin(),
            Kind::Virtual(timeline) => timeline.start(),
        }
    }

    /// Completes when this clock reads `deadline` or later. [`Instant::NEVER`] never comes, and costs nothing.
    ///
    /// # Panics
    /// Polling it panics when the deadline lies in the future, the clock is [`Clock::system`] or
    /// [`Clock::tokio`], and there is no tokio runtime with its time driver enabled. A [`VirtualClock`] works
    /// on any executor.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it; its timer goes with it.
    pub fn sleep_until(&self, deadline: Instant) -> Sleep {
        Sleep {
            clock: self.clone(),
            deadline,
            timer: Timer::Unarmed,
        }
    }

    /// Blocks the calling thread until this clock reads `deadline` or later.
    ///
    /// A virtual clock must be advanced by another thread. [`Clock::tokio`] is followed in real time; a
    /// thread that blocks keeps a paused runtime from moving.
    pub fn sleep_until_blocking(&self, deadline: Instant) {
        if self.now() >= deadline {
            return;
        }
        let parker = Parker::new();
        while self.now() < deadline {
            parker.park_until(self, deadline);
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Kind::System(_) => "System",
            Kind::Runtime(_) => "Tokio",
            Kind::Virtual(_) => "Virtual",
        };
        f.debug_struct("Clock")
            .field("kind", &kind)
            .field("origin", &self.origin())
            .finish()
    }
}

/// A future that completes at a deadline; see [`Clock::sleep_until`].
#[must_use = "futures do nothing unless polled"]
pub struct Sleep {
    clock: Clock,
    deadline: Instant,
    timer: Timer,
}

/// What will wake a [`Sleep`].
enum Timer {
    Unarmed,
    /// tokio's timer, set towards `deadline`. It is boxed because it must not move, while a `Sleep` may.
    Runtime {
        deadline: Instant,
        sleep: Pin<Box<tokio::time::Sleep>>,
    },
    Virtual(Ticket),
}

impl Sleep {
    /// What it sleeps towards.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Sleeps towards another deadline from the next poll on, and keeps the timer's memory.
    pub fn reset(&mut self, deadline: Instant) {
        if deadline == self.deadline {
            return;
        }
        self.deadline = deadline;
        // A timer that stays set would wake in vain, and move a clock that goes where it is awaited.
        if deadline.is_never() || matches!(self.timer, Timer::Virtual(_)) {
            self.disarm();
        }
    }

    fn disarm(&mut self) {
        let timer = std::mem::replace(&mut self.timer, Timer::Unarmed);
        if let (Timer::Virtual(ticket), Kind::Virtual(timeline)) = (timer, &self.clock.0) {
            timeline.deregister(ticket);
        }
    }

    fn poll_runtime(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = self.clock.now();
            if now >= self.deadline {
                return Poll::Ready(());
            }
            // The counter and tokio's clock run at slightly different speeds: what remains is measured on this
            // clock and handed to tokio, again if tokio turns out to be early.
            let target = || match &self.clock.0 {
                Kind::Runtime(axis) => axis.on_runtime(self.deadline),
                Kind::System(_) | Kind::Virtual(_) => {
                    tokio::time::Instant::now() + (self.deadline - now)
                }
            };
            match &mut self.timer {
                Timer::Runtime { deadline, .. } if *deadline == self.deadline => {}
                Timer::Runtime { deadline, sleep } => {
                    sleep.as_mut().reset(target());
                    *deadline = self.deadline;
                }
                Timer::Unarmed | Timer::Virtual(_) => {
                    let sleep = Box::pin(tokio::time::sleep_until(target()));
                    self.timer = Timer::Runtime {
                        deadline: self.deadline,
                        sleep,
                    };
                }
            }
            let Timer::Runtime { deadline, sleep } = &mut self.timer else {
                return Poll::Pending;
            };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // Fired: the next turn either finds the deadline reached or arms the timer for the rest.
            *deadline = Instant::NEVER;
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.deadline.is_never() {
            return Poll::Pending;
        }
        match &this.clock.0 {
            Kind::System(_) | Kind::Runtime(_) => this.poll_runtime(cx),
            Kind::Virtual(timeline) => {
                let held = match &this.timer {
                    Timer::Virtual(ticket) => Some(*ticket),
                    Timer::Unarmed | Timer::Runtime { .. } => None,
                };
                match timeline.register(this.deadline, held, cx.waker()) {
                    Some(ticket) => {
                        this.timer = Timer::Virtual(ticket);
                        Poll::Pending
                    }
                    None => {
                        this.timer = Timer::Unarmed;
                        Poll::Ready(())
                    }
                }
            }
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
