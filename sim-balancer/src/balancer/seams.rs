//! The balancer at the seams of the family: what scales, measures or drives it knows no balancer.

use sim_core::id::Id;
use sim_core::seam::{Depth, Gauge, Refused, Roster, Standing, Timed};
use sim_core::time::Instant;

use super::Balancer;
use crate::error::{RegisterReason, RegistrationError};
use crate::machine::{State, TargetId};
use crate::message::Target;

/// Waiting are callers without a target, in flight are leases.
impl<T: Send + Sync> Gauge for Balancer<T> {
    fn depth(&self) -> Depth {
        let stats = self.stats();
        Depth {
            waiting: stats.waiting,
            in_flight: stats.outstanding,
            ..Default::default()
        }
    }

    /// Requests finished, well or not.
    fn finished(&self) -> Option<u64> {
        Some(self.stats().finished)
    }
}

impl<T: Send + Sync> Timed for Balancer<T> {
    fn next_deadline(&self) -> Option<Instant> {
        Self::next_deadline(self)
    }

    fn advance(&self, now: Instant) {
        Self::advance(self, now);
    }
}

/// Members are targets of weight 1, named by their id's text.
impl<T: Send + Sync> Roster<T> for Balancer<T> {
    fn try_join(&self, id: Id, member: T) -> Result<(), Refused<T>> {
        self.register(Target::new(TargetId::from(id), member))
            .map_err(|refused| {
                let member = refused.target.value;
                match refused.reason {
                    RegisterReason::Refused(RegistrationError::TooManyTargets { .. }) => {
                        Refused::full(member, None)
                    }
                    reason => Refused::rejected(member, reason),
                }
            })
    }

    fn leave(&self, id: Id) {
        // Unknown is as good as gone.
        let _ = self.deregister(&TargetId::from(id));
    }

    fn standing(&self, id: Id) -> Standing {
        let Some(health) = self.health(&TargetId::from(id)) else {
            return Standing::Absent;
        };
        match health.state {
            State::Draining => Standing::Leaving,
            State::Initial => Standing::Joining,
            State::Healthy | State::Unavailable if health.ejected_until.is_none() => {
                Standing::Serving
            }
            _ => Standing::Failing,
        }
    }
}
