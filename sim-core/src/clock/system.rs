//! The machine's monotonic clock: exact by the operating system, and recent by its last tick.
//!
//! Measured on an AMD EPYC under a hypervisor: Linux's `CLOCK_MONOTONIC` 36 ns; the bare counter (`rdtsc`) 11 ns,
//! with its conversion to nanoseconds 12 (quanta) to 19 (fastant), and a drift of some 14 parts in a million
//! against the operating system's clock; Linux's `CLOCK_MONOTONIC_COARSE`, the time of the kernel's last tick on
//! the same axis, 6 ns. So what happens for each message reads the tick, and what sleeps or reports reads
//! the exact clock; neither drifts against the other.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quanta::Clock as Counter;

use crate::time::{Instant, Timestamp};

/// The axis that all system clocks of the process share.
pub(super) struct SystemAxis {
    base: source::Point,
    origin: Timestamp,
    lag: Duration,
    fine: OnceLock<Fine>,
}

/// The processor's counter, laid onto the axis when it is first asked for.
struct Fine {
    counter: Counter,
    raw: u64,
    nanos: u64,
    /// Nanoseconds a step, times 2^32: a shift by a constant, where quanta's own conversion shifts by a variable.
    scale: u64,
}

impl Fine {
    /// How much the scale is measured over: exact to a part in a billion.
    const SPAN: u32 = 40;

    fn new(now: impl FnOnce() -> Instant) -> Self {
        // It calibrates for a while: what the clock reads is asked afterwards.
        let counter = Counter::new();
        Self {
            raw: counter.raw(),
            nanos: now().as_nanos(),
            scale: counter.delta_as_nanos(0, 1 << Self::SPAN) >> (Self::SPAN - 32),
            counter,
        }
    }

    #[inline]
    fn now(&self) -> u64 {
        // Another processor's counter may be a little behind.
        let steps = self.counter.raw().saturating_sub(self.raw);
        let since = (u128::from(steps) * u128::from(self.scale)) >> 32;
        self.nanos.saturating_add(since as u64)
    }
}

impl SystemAxis {
    pub(super) fn shared() -> &'static Self {
        // A std cell rather than one of the models': it holds no state that threads race for.
        static SHARED: OnceLock<SystemAxis> = OnceLock::new();
        SHARED.get_or_init(|| Self {
            base: source::now(),
            origin: wall_time(),
            lag: source::lag(),
            fine: OnceLock::new(),
        })
    }

    #[inline]
    pub(super) fn now(&self) -> Instant {
        source::since(self.base, source::now())
    }

    #[inline]
    pub(super) fn recent(&self) -> Instant {
        source::since(self.base, source::recent())
    }

    #[inline]
    pub(super) fn fine(&self) -> Instant {
        let fine = self.fine.get_or_init(|| Fine::new(|| self.now()));
        Instant::from_nanos(fine.now())
    }

    pub(super) fn lag(&self) -> Duration {
        self.lag
    }

    pub(super) fn origin(&self) -> Timestamp {
        self.origin
    }
}

/// Linux: both clocks by the vDSO, without a system call.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod source {
    use std::time::Duration;

    use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

    use crate::time::Instant;

    pub(super) type Point = u64;

    /// Nanoseconds of a clock that is never negative.
    #[inline]
    #[expect(
        clippy::cast_sign_loss,
        reason = "a monotonic clock counts from the start of the machine"
    )]
    fn nanos(time: Timespec) -> u64 {
        (time.tv_sec as u64)
            .wrapping_mul(1_000_000_000)
            .wrapping_add(time.tv_nsec as u64)
    }

    #[inline]
    pub(super) fn now() -> Point {
        nanos(clock_gettime(ClockId::Monotonic))
    }

    #[inline]
    pub(super) fn recent() -> Point {
        nanos(clock_gettime(ClockId::MonotonicCoarse))
    }

    /// Two ticks: the tick itself may be late by one.
    pub(super) fn lag() -> Duration {
        Duration::from_nanos(nanos(clock_getres(ClockId::MonotonicCoarse)).saturating_mul(2))
    }

    #[inline]
    pub(super) fn since(base: Point, now: Point) -> Instant {
        Instant::from_nanos(now.saturating_sub(base))
    }
}

/// Elsewhere: the standard library's clock, which lags by nothing.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod source {
    use std::time::Duration;

    use crate::time::Instant;

    pub(super) type Point = std::time::Instant;

    #[inline]
    #[expect(clippy::disallowed_methods, reason = "the clock itself")]
    pub(super) fn now() -> Point {
        std::time::Instant::now()
    }

    #[inline]
    pub(super) fn recent() -> Point {
        now()
    }

    pub(super) const fn lag() -> Duration {
        Duration::ZERO
    }

    pub(super) fn since(base: Point, now: Point) -> Instant {
        Instant::ORIGIN + now.saturating_duration_since(base)
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
