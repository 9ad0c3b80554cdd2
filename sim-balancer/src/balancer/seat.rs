//! [`Seat`]: a registered target with its load; what a table points to and a lease holds.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use sim_core::event::Event;
use sim_core::sync::Arc;
use sim_core::sync::atomic::{AtomicU32, Ordering};
use sim_core::time::Instant;

use super::Shared;
use crate::algorithm::load::{After, Exit, Load};
use crate::machine::{Slot, Streak, TargetId, Zone};
use crate::message::{Feedback, Outcome};

/// A registered target.
///
/// It outlives the tables in which it stands, and itself as long as a lease holds it.
#[repr(C)]
pub(crate) struct Seat<T> {
    // First, and so next to the reference count: a pick touches both.
    pub(crate) load: Load,
    pub(crate) shared: Arc<Shared<T>>,
    pub(crate) value: T,
    pub(crate) id: TargetId,
    pub(crate) zone: Option<Zone>,
    /// The hash of the id.
    pub(crate) hash: u64,
    pub(crate) slot: Slot,
    /// Its place in the order of registration.
    pub(crate) rank: u64,
    pub(crate) ending: Ending,
}

/// Whether what runs at the target is to be ended.
#[derive(Debug)]
pub(crate) struct Ending {
    /// 1 from then on.
    ended: AtomicU32,
    event: Event,
}

impl Ending {
    pub(crate) fn new() -> Self {
        Self {
            ended: AtomicU32::new(0),
            event: Event::new(),
        }
    }

    /// Ends it, and wakes those who wait for that.
    pub(crate) fn end(&self) {
        self.ended.swap(1, Ordering::SeqCst);
        self.event.notify_all();
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst) == 1
    }

    pub(crate) fn event(&self) -> &Event {
        &self.event
    }
}

impl<T> Seat<T> {
    /// Ends a lease that began at `started`.
    #[inline]
    pub(crate) fn finish(seat: &Arc<Self>, started: Instant, outcome: Outcome) {
        let exit = match outcome {
            Outcome::Success => {
                seat.load.succeeded();
                if seat.shared.timing.is_some() {
                    seat.time(started, outcome);
                }
                Exit::Finished
            }
            Outcome::Cancelled => {
                seat.load.cancelled();
                Exit::Unfinished
            }
            Outcome::Failure | Outcome::Unreachable | Outcome::Overloaded { .. } => {
                Self::fail(seat, started, outcome);
                Exit::Finished
            }
        };
        let after = seat.load.exit(exit);
        if after != After::Nothing {
            seat.shared.after(seat, after);
        }
    }

    /// Takes the request's latency into the average.
    #[inline]
    fn time(&self, started: Instant, outcome: Outcome) {
        let Some(timing) = &self.shared.timing else {
            return;
        };
        let now = self.shared.clock.fine();
        let latency = now.saturating_duration_since(started);
        let sample = nanos(latency);
        let sample = match outcome {
            Outcome::Success | Outcome::Cancelled => sample,
            Outcome::Overloaded {
                retry_after: Some(wish),
            } => sample.max(nanos(wish.min(timing.retry_after_cap))),
            Outcome::Failure | Outcome::Unreachable | Outcome::Overloaded { .. } => {
                sample.max(timing.penalty)
            }
        };
        let memory = &self.shared.memory;
        if self.load.record(sample, now, &timing.decay) && memory.typical() == 0.0 {
            memory.typify(sample);
        }
    }

    /// Notes what the target told of its own load.
    pub(crate) fn hear(&self, feedback: Feedback) {
        let now = self.shared.clock.fine();
        self.load.hear(feedback, now);
        // Who leaves is not to be chosen any more.
        if !self.load.is_leaving() {
            let (slot, birth) = (self.slot.index() as u32, self.slot.birth());
            self.shared.memory.observed(slot, birth, &feedback, now);
        }
    }

    #[cold]
    fn fail(seat: &Arc<Self>, started: Instant, outcome: Outcome) {
        seat.time(started, outcome);
        let streaks = match outcome {
            Outcome::Unreachable => [
                Some((Streak::Failures, seat.load.failed())),
                Some((Streak::Gateway, seat.load.unreachable())),
            ],
            Outcome::Failure => {
                seat.load.answered();
                [Some((Streak::Failures, seat.load.failed())), None]
            }
            Outcome::Overloaded { .. } | Outcome::Success | Outcome::Cancelled => {
                seat.load.answered();
                seat.load.overloaded();
                [None, None]
            }
        };
        for (streak, count) in streaks.into_iter().flatten() {
            seat.shared.judge(seat, streak, count);
        }
    }
}

#[inline]
fn nanos(duration: Duration) -> f32 {
    // 584 years fit.
    duration.as_nanos() as u64 as f32
}

impl<T> fmt::Debug for Seat<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat")
            .field("id", &self.id)
            .field("zone", &self.zone)
            .field("outstanding", &self.load.outstanding())
            .finish_non_exhaustive()
    }
}

/// A registered target, held without a lease: nothing is counted for it. For health checks and for looking at.
pub struct TargetRef<T>(pub(crate) Arc<Seat<T>>);

impl<T> TargetRef<T> {
    /// The target's name.
    #[must_use]
    pub fn id(&self) -> &TargetId {
        &self.0.id
    }

    /// The target's zone.
    #[must_use]
    pub fn zone(&self) -> Option<&Zone> {
        self.0.zone.as_ref()
    }

    /// Where the target stands; another target of the same name has another slot.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.0.slot
    }

    /// Leases of it that are out now.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.0.load.outstanding()
    }

    /// Notes what the target told of its own load, when it was asked.
    pub fn observe(&self, feedback: Feedback) {
        self.0.hear(feedback);
    }
}

impl<T> Clone for TargetRef<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for TargetRef<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> fmt::Debug for TargetRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TargetRef")
            .field("id", &self.0.id)
            .finish_non_exhaustive()
    }
}
