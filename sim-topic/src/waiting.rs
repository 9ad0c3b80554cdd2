//! Waiting of threads: a moment of patience before sleep.

use sim_core::clock::Clock;
use sim_core::event::Event;
use sim_core::sync::thread;
use sim_core::time::Instant;
use sim_core::wait::{Attempt, Elapsed, until_blocking};

/// How often a thread lets others run before it goes to sleep. To put a thread to sleep and to wake it costs both sides
/// a call of the system, and where publishers and receivers take turns, what one waits for is there as soon as the other
/// has run.
const YIELDS: u32 = 8;

/// As [`until_blocking`], but lets other threads run a few times first.
pub(crate) fn patiently<R>(
    event: &Event,
    clock: &Clock,
    deadline: Instant,
    mut attempt: impl FnMut() -> Attempt<R>,
) -> Result<R, Elapsed> {
    for _ in 0..YIELDS {
        if let Attempt::Done { value, more } = attempt() {
            if more {
                event.notify_one();
            }
            return Ok(value);
        }
        thread::yield_now();
    }
    until_blocking(event, clock, deadline, attempt)
}
