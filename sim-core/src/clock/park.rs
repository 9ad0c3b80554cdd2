//! Threads that sleep: a waker that unparks, and a park that ends at a deadline.
//!
//! Built on the thread's own park token, as std's and crossbeam's channels are: a park may end without a
//! cause, so every caller loops; and an unpark that arrives late only makes the next park short.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use super::{Clock, Kind};
use crate::time::Instant;

#[cfg(loom)]
use self::model::{Token, current, park};
#[cfg(not(loom))]
use self::real::{Token, current, park};

/// The calling thread, as somebody that can be woken.
///
/// Stays on its thread: parks the one that calls, wakes the one that made it.
pub(crate) struct Parker {
    waker: Waker,
    token: Token,
}

impl Parker {
    pub(crate) fn new() -> Self {
        let (token, waker) = current();
        Self { waker, token }
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Parks until the waker wakes, or `clock` reads `deadline`, or for no cause.
    pub(crate) fn park_until(&self, clock: &Clock, deadline: Instant) {
        if deadline.is_never() {
            park(&self.token, None);
            return;
        }
        match &clock.0 {
            Kind::System(_) | Kind::Runtime(_) => {
                let left = deadline - clock.now();
                if !left.is_zero() {
                    park(&self.token, Some(left));
                }
            }
            Kind::Virtual(timeline) => {
                if let Some(ticket) = timeline.register(deadline, None, &self.waker) {
                    park(&self.token, None);
                    timeline.deregister(ticket);
                }
            }
        }
    }
}

impl Clock {
    /// Parks the calling thread until it is unparked, or this clock reads `deadline`, or for no cause.
    ///
    /// On a virtual clock, the thread is unparked by whoever advances the clock to `deadline`.
    pub fn park_until(&self, deadline: Instant) {
        Parker::new().park_until(self, deadline);
    }
}

#[cfg(not(loom))]
mod real {
    use super::{Arc, Duration, Wake, Waker};
    use crate::sync::thread::{self, Thread};

    /// The thread itself holds the token.
    pub(super) struct Token;

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }

        fn wake_by_ref(self: &Arc<Self>) {
            self.0.unpark();
        }
    }

    /// The waker of the calling thread, made once a thread.
    pub(super) fn current() -> (Token, Waker) {
        fn make() -> Waker {
            Waker::from(Arc::new(Unpark(thread::current())))
        }
        thread_local! {
            static WAKER: Waker = make();
        }
        // A destructor of another thread-local may block after this one is gone.
        (
            Token,
            WAKER.try_with(Waker::clone).unwrap_or_else(|_| make()),
        )
    }

    pub(super) fn park(_: &Token, limit: Option<Duration>) {
        match limit {
            None => thread::park(),
            Some(limit) => thread::park_timeout(limit),
        }
    }
}

/// The token as a mutex and a condition variable.
///
/// loom 0.7 models park and unpark, but its unpark also sets a thread going that is blocked on a mutex, and
/// fails there.
#[cfg(loom)]
mod model {
    use super::{Arc, Duration, Wake, Waker};
    use crate::sync::{Condvar, Mutex};

    pub(super) type Token = Arc<Parking>;

    pub(super) struct Parking {
        token: Mutex<bool>,
        changed: Condvar,
    }

    impl Wake for Parking {
        fn wake(self: Arc<Self>) {
            let mut token = self.token.lock();
            *token = true;
            self.changed.notify_one();
        }
    }

    pub(super) fn current() -> (Token, Waker) {
        let parking = Arc::new(Parking {
            token: Mutex::new(false),
            changed: Condvar::new(),
        });
        (Arc::clone(&parking), Waker::from(parking))
    }

    /// Without a limit: a model has no time of its own that could pass.
    pub(super) fn park(parking: &Token, _limit: Option<Duration>) {
        let mut token = parking.token.lock();
        while !*token {
            token = parking
                .changed
                .wait(token)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        *token = false;
    }
}
