//! The machine's monotonic clock, by the processor's counter.
//!
//! Measured on an AMD EPYC under a hypervisor, a read with its conversion to nanoseconds: quanta 13 ns, of
//! which 12 are the counter itself (`rdtsc`); fastant 19 ns, calibrated before `main` in every program that
//! links it; std's `Instant` 36 ns. quanta calibrates on first use, in 0.6 to 2 ms here and 200 ms at most.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::time::{Instant, Timestamp};

/// The axis that all system clocks of the process share.
pub(super) struct SystemAxis {
    counter: quanta::Clock,
    /// The counter's value at the origin.
    base: u64,
    origin: Timestamp,
}

impl SystemAxis {
    pub(super) fn shared() -> &'static Self {
        // A std cell rather than one of the models': it holds no state that threads race for.
        static SHARED: OnceLock<SystemAxis> = OnceLock::new();
        SHARED.get_or_init(|| {
            let counter = quanta::Clock::new();
            let base = counter.raw();
            Self {
                counter,
                base,
                origin: wall_time(),
            }
        })
    }

    #[inline]
    pub(super) fn now(&self) -> Instant {
        Instant::from_nanos(self.counter.delta_as_nanos(self.base, self.counter.raw()))
    }

    pub(super) fn origin(&self) -> Timestamp {
        self.origin
    }
}

/// The operating system's wall-clock time.
#[expect(
    clippy::disallowed_methods,
    reason = "a clock's anchor: read once per clock, here alone"
)]
pub(super) fn wall_time() -> Timestamp {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => Timestamp::UNIX_EPOCH + since,
        Err(before) => Timestamp::UNIX_EPOCH - before.duration(),
    }
}
