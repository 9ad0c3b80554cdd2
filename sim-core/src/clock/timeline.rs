//! Virtual time: sleepers in order of deadline, and the hand that moves the clock.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::Clock;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};
use crate::time::{Instant, Timestamp};

/// A virtual clock's state, shared by its clocks, its sleepers and its hand.
///
/// # Ordering
/// `now` is stored (Release) under the lock and loaded (Acquire) without it: who reads a time sees what the
/// advancing thread did before it moved there. Sleeping needs no more, since a sleeper compares and registers
/// under the lock, and the hand moves and collects under it.
pub(super) struct Timeline {
    start: Timestamp,
    now: AtomicU64,
    sleepers: Mutex<Sleepers>,
}

#[derive(Default)]
struct Sleepers {
    /// Ordered by deadline, then by registration.
    queue: BTreeMap<Ticket, Waker>,
    registered: u64,
}

/// A sleeper's place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    deadline: Instant,
    number: u64,
}

impl Timeline {
    #[inline]
    pub(super) fn now(&self) -> Instant {
        Instant::from_nanos(self.now.load(Ordering::Acquire))
    }

    pub(super) fn start(&self) -> Timestamp {
        self.start
    }

    /// Has `waker` woken at `deadline`, in the place that `held` reserved if it still stands; `None` when the
    /// deadline is reached.
    pub(super) fn register(
        &self,
        deadline: Instant,
        held: Option<Ticket>,
        waker: &Waker,
    ) -> Option<Ticket> {
        // A waker's clone and drop are foreign code, which may sleep on this very clock: both happen with the
        // lock free.
        let waker = waker.clone();
        let former;
        let mut sleepers = self.sleepers.lock();
        if self.now() >= deadline {
            former = held.and_then(|ticket| sleepers.queue.remove(&ticket));
            drop(sleepers);
            drop((former, waker));
            return None;
        }
        let ticket = match held {
            Some(ticket) if ticket.deadline == deadline => ticket,
            Some(_) | None => {
                let number = sleepers.registered;
                sleepers.registered += 1;
                Ticket { deadline, number }
            }
        };
        former = sleepers.queue.insert(ticket, waker);
        drop(sleepers);
        drop(former);
        Some(ticket)
    }

    pub(super) fn deregister(&self, ticket: Ticket) {
        let waker = self.sleepers.lock().queue.remove(&ticket);
        drop(waker);
    }

    /// Moves to the earliest deadline if it is not after `limit`, and wakes those who sleep towards it.
    fn step(&self, limit: Instant, woken: &mut Vec<Waker>) -> Option<Instant> {
        let mut sleepers = self.sleepers.lock();
        let deadline = sleepers.queue.first_key_value()?.0.deadline;
        if deadline > limit {
            return None;
        }
        self.move_to(deadline);
        while let Some(entry) = sleepers.queue.first_entry() {
            if entry.key().deadline != deadline {
                break;
            }
            woken.push(entry.remove());
        }
        drop(sleepers);
        for waker in woken.drain(..) {
            waker.wake();
        }
        Some(deadline)
    }

    /// Moves forward only. The caller holds the lock.
    fn move_to(&self, instant: Instant) {
        if instant > self.now() {
            self.now.store(instant.as_nanos(), Ordering::Release);
        }
    }
}

/// The hand of a virtual clock: moves time, deadline by deadline.
///
/// Time never jumps over a deadline. For each one on the way, the clock reads exactly that deadline while
/// those who sleep towards it are woken, in the order in which they went to sleep; what a waker adds in
/// between, at or before the goal, is served in its turn.
///
/// To wake is not to run. A woken thread runs when the scheduler lets it, and a woken task when its executor
/// polls it, and by then the hand may have moved on. Where a task must act at its deadline, step:
///
/// - with the executor in hand, alternate [`advance_to_next`](Self::advance_to_next) with running whatever
///   is woken;
/// - inside the same single-threaded executor, await [`run_to`](Self::run_to), which yields after each deadline.
///
/// One hand moves at a time: two that advance at once never turn the clock back and leave no sleeper behind,
/// but a waker may then read a later time than its own deadline.
///
/// ```
/// use std::time::Duration;
/// use sim_core::clock::VirtualClock;
/// use sim_core::time::{Instant, Timestamp};
///
/// let time = VirtualClock::new(Timestamp::UNIX_EPOCH);
/// let clock = time.clock();
/// time.advance(Duration::from_secs(1));
/// assert_eq!(clock.now(), Instant::from_nanos(1_000_000_000));
/// assert_eq!(time.next_deadline(), None);
/// ```
#[derive(Clone)]
pub struct VirtualClock {
    timeline: Arc<Timeline>,
}

impl VirtualClock {
    /// How often [`run_to`](Self::run_to) yields after each deadline.
    pub const YIELDS: u32 = 16;

    /// Makes a clock that stands at [`Instant::ORIGIN`], the wall time `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self {
            timeline: Arc::new(Timeline {
                start,
                now: AtomicU64::new(Instant::ORIGIN.as_nanos()),
                sleepers: Mutex::new(Sleepers::default()),
            }),
        }
    }

    /// A clock that reads this time.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock::on_timeline(Arc::clone(&self.timeline))
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.timeline.now()
    }

    /// Moves forward by `duration`, deadline by deadline.
    pub fn advance(&self, duration: Duration) {
        self.advance_to(self.now() + duration);
    }

    /// Moves forward to `instant`, deadline by deadline; does nothing when that is in the past.
    pub fn advance_to(&self, instant: Instant) {
        let mut woken = Vec::new();
        loop {
            while self.timeline.step(instant, &mut woken).is_some() {}
            let sleepers = self.timeline.sleepers.lock();
            // Who went to sleep since the last step is not jumped over.
            let arrived = sleepers
                .queue
                .first_key_value()
                .is_none_or(|(at, _)| at.deadline > instant);
            if arrived {
                self.timeline.move_to(instant);
                return;
            }
        }
    }

    /// The earliest deadline that somebody sleeps towards.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let sleepers = self.timeline.sleepers.lock();
        sleepers
            .queue
            .first_key_value()
            .map(|(ticket, _)| ticket.deadline)
    }

    /// Moves to the next deadline, wakes those who sleep towards it, and says which it was; stays when there is
    /// none.
    pub fn advance_to_next(&self) -> Option<Instant> {
        self.timeline.step(Instant::NEVER, &mut Vec::new())
    }

    /// Like [`advance_to`](Self::advance_to), but yields to the executor before the first deadline and after
    /// each, so that the tasks of a single-threaded executor run while the clock reads their deadline.
    ///
    /// It yields [`YIELDS`](Self::YIELDS) times: enough for tasks that wake one another in a chain that long.
    ///
    /// # Cancel safety
    /// Dropped half-way, it leaves the clock at the deadline it has reached.
    pub async fn run_to(&self, instant: Instant) {
        let mut woken = Vec::new();
        loop {
            yield_times(Self::YIELDS).await;
            if self.timeline.step(instant, &mut woken).is_none() {
                break;
            }
        }
        self.advance_to(instant);
        yield_times(Self::YIELDS).await;
    }

    /// How many sleep on this clock: for a test that waits until a thread has gone to sleep.
    #[must_use]
    pub fn sleeping(&self) -> usize {
        self.timeline.sleepers.lock().queue.len()
    }
}

impl fmt::Debug for VirtualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualClock")
            .field("now", &self.now())
            .field("sleeping", &self.sleeping())
            .finish()
    }
}

/// Lets other tasks of the executor run, by asking to be polled again.
async fn yield_times(times: u32) {
    let mut left = times;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
