//! Threads that sleep: a waker that unparks, and a park that ends at a deadline.
//!
//! Built on the thread's own park token, as std's and crossbeam's channels are: a park may end without a
//! cause, so every caller loops; and an unpark that arrives late only makes the next park short.

use std::sync::Arc;
use std::task::{Wake, Waker};

use super::{Clock, Kind};
use crate::sync::thread::{self, Thread};
use crate::time::Instant;

/// Unparks one thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

fn new_waker() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

/// The waker of the calling thread, made once a thread.
#[cfg(not(loom))]
pub(crate) fn thread_waker() -> Waker {
    thread_local! {
        static WAKER: Waker = new_waker();
    }
    // A destructor of another thread-local may block after this one is gone.
    WAKER.try_with(Waker::clone).unwrap_or_else(|_| new_waker())
}

/// The waker of the calling thread: a model's threads share one thread of the operating system.
#[cfg(loom)]
pub(crate) fn thread_waker() -> Waker {
    new_waker()
}

impl Clock {
    /// Parks the calling thread until it is unparked, or this clock reads `deadline`, or for no cause.
    ///
    /// On a virtual clock, the thread is unparked by whoever advances the clock to `deadline`.
    pub fn park_until(&self, deadline: Instant) {
        if deadline.is_never() {
            thread::park();
            return;
        }
        match &self.0 {
            Kind::System(_) | Kind::Runtime(_) => {
                let left = deadline - self.now();
                if !left.is_zero() {
                    thread::park_timeout(left);
                }
            }
            Kind::Virtual(timeline) => {
                if let Some(ticket) = timeline.register(deadline, None, &thread_waker()) {
                    thread::park();
                    timeline.deregister(ticket);
                }
            }
        }
    }
}
