//! Points in time: [`Instant`] on a clock's own axis, and wall-clock [`Timestamp`], kept apart.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on a [`Clock`](crate::clock::Clock)'s monotonic axis, in nanoseconds since that clock's origin.
///
/// 64 bits of nanoseconds last 584 years. Arithmetic saturates: [`Instant::NEVER`] stays never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The clock's origin.
    pub const ORIGIN: Self = Self(0);
    /// A point that no clock reaches: the deadline of what has none.
    pub const NEVER: Self = Self(u64::MAX);

    /// Makes an instant from nanoseconds since the clock's origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`, or zero when `earlier` is later.
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        let nanos = u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, rhs: Self) -> Duration {
        self.saturating_duration_since(rhs)
    }
}
