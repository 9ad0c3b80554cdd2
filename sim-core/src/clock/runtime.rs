//! tokio's clock, so that a paused runtime moves it.

use crate::time::{Instant, Timestamp};

/// An axis on tokio's clock, from the moment of its making.
#[derive(Clone)]
pub(super) struct RuntimeAxis {
    start: tokio::time::Instant,
    origin: Timestamp,
}

impl RuntimeAxis {
    pub(super) fn start() -> Self {
        Self {
            start: tokio::time::Instant::now(),
            origin: super::system::wall_time(),
        }
    }

    #[inline]
    pub(super) fn now(&self) -> Instant {
        Instant::ORIGIN + tokio::time::Instant::now().saturating_duration_since(self.start)
    }

    pub(super) fn origin(&self) -> Timestamp {
        self.origin
    }

    /// The same point on tokio's axis.
    pub(super) fn on_runtime(&self, instant: Instant) -> tokio::time::Instant {
        self.start + (instant - Instant::ORIGIN)
    }
}
