//! [`Lease`]: a target, picked for one request.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use sim_core::sync::Arc;
use sim_core::time::Instant;
use sim_core::wait::{Attempt, until};

use super::seat::Seat;
use crate::machine::{TargetId, Zone};
use crate::message::{Feedback, Outcome};

/// A target that was picked for one request; the request counts as outstanding until the lease is given back.
///
/// [`complete`](Self::complete) it with how the request ended. Dropping it says that the request was cancelled: then
/// nothing is concluded about the target. It keeps the target alive, also when that is deregistered meanwhile.
#[must_use = "a lease that is dropped at once was picked for nothing"]
pub struct Lease<T> {
    /// Taken out when the lease is completed, so that its drop finds nothing to do: an outcome that waited here for the drop
    /// would be written and read again for each request.
    seat: Option<Arc<Seat<T>>>,
    /// By the fine clock where the algorithm takes latencies; the origin otherwise.
    started: Instant,
}

impl<T> Lease<T> {
    #[inline]
    pub(crate) fn new(seat: Arc<Seat<T>>, started: Instant) -> Self {
        Self {
            seat: Some(seat),
            started,
        }
    }

    #[inline]
    fn seat(&self) -> &Arc<Seat<T>> {
        self.seat
            .as_ref()
            .expect("a lease has its target until it is completed, which takes it by value")
    }

    /// The target's name.
    #[must_use]
    pub fn id(&self) -> &TargetId {
        &self.seat().id
    }

    /// The target's zone.
    #[must_use]
    pub fn zone(&self) -> Option<&Zone> {
        self.seat().zone.as_ref()
    }

    /// The target; the lease dereferences to it too.
    #[must_use]
    pub fn target(&self) -> &T {
        &self.seat().value
    }

    /// Leases of the target that are out now, this one included.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.seat().load.outstanding()
    }

    /// How long ago the target was picked; `None` where the algorithm takes no latencies, and no clock was read.
    #[must_use]
    pub fn elapsed(&self) -> Option<Duration> {
        let shared = &self.seat().shared;
        shared
            .timing
            .as_ref()
            .map(|_| shared.clock.fine().saturating_duration_since(self.started))
    }

    /// Gives the lease back with how the request ended.
    #[inline]
    pub fn complete(mut self, outcome: Outcome) {
        if let Some(seat) = self.seat.take() {
            Seat::finish(&seat, self.started, outcome);
        }
    }

    /// Notes what the target told of its own load. May be called more than once.
    pub fn observe(&self, feedback: Feedback) {
        self.seat().hear(feedback);
    }

    /// Whether what still runs at the target is to be ended: it was deregistered and its time is up, or it became
    /// unhealthy, and the rules say that connections are then terminated.
    #[must_use]
    pub fn is_terminated(&self) -> bool {
        self.seat().ending.is_ended()
    }

    /// Waits until [`is_terminated`](Self::is_terminated). Mostly it never is.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn terminated(&self) {
        ended(self.seat()).await;
    }
}

impl<T: Send + Sync + 'static> Lease<T> {
    /// Completes after a time from now, by the balancer's clock.
    #[cfg(feature = "tower")]
    pub(crate) fn sleep(&self, time: Duration) -> sim_core::clock::Sleep {
        let clock = &self.seat().shared.clock;
        clock.sleep_until(clock.now() + time)
    }

    /// What completes as [`terminated`](Self::terminated) does, apart from the lease; `None` under rules by which it never
    /// would.
    #[cfg(feature = "tower")]
    pub(crate) fn termination(&self) -> Option<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>> {
        let rules = &self.seat().shared.config.rules;
        let may_end =
            rules.deregistration.connection_termination || rules.unhealthy.connection_termination;
        may_end.then(|| {
            let seat = Arc::clone(self.seat());
            Box::pin(async move { ended(&seat).await }) as _
        })
    }
}

/// Waits until what runs at a target is to be ended.
async fn ended<T>(seat: &Seat<T>) {
    let ending = &seat.ending;
    let attempt = || {
        if ending.is_ended() {
            Attempt::Done {
                value: (),
                more: true,
            }
        } else {
            Attempt::Pending {
                wake_at: Instant::NEVER,
            }
        }
    };
    // Without a deadline it never elapses.
    let _ = until(ending.event(), &seat.shared.clock, Instant::NEVER, attempt).await;
}

impl<T> Drop for Lease<T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(seat) = self.seat.take() {
            Seat::finish(&seat, self.started, Outcome::Cancelled);
        }
    }
}

impl<T> Deref for Lease<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.seat().value
    }
}

impl<T> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("id", &self.seat().id)
            .finish_non_exhaustive()
    }
}
