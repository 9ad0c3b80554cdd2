//! What can go wrong: one type for each operation, and the value comes back.

use std::fmt;

use crate::algorithm::MOST_SAMPLES;
pub use crate::machine::{RegistrationError, RulesError, UnknownTarget, UnknownZone, WeightError};
use crate::message::Target;

/// A configuration that no balancer can be built of: the first field that is out of its range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A rule is out of its range.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// `max_outstanding` is out of its range.
    #[error("max_outstanding is {value}, and must be from 1 to {limit}")]
    MaxOutstanding {
        /// What was asked for.
        value: u32,
        /// The most.
        limit: u32,
    },
    /// The number of targets drawn for a pick is out of its range.
    #[error("choices are {samples} samples, and must be from 2 to {MOST_SAMPLES}")]
    Samples {
        /// What was asked for.
        samples: u32,
    },
    /// The decay of the average latency is zero.
    #[error("decay is 0, and must be more")]
    Decay,
    /// A setting of an algorithm is out of its range.
    #[error("{field} is {value}, and must be {range}")]
    Algorithm {
        /// The field.
        field: &'static str,
        /// What was asked for.
        value: String,
        /// What it must be.
        range: &'static str,
    },
}

/// A target was not registered: here it is again, and why.
#[derive(thiserror::Error)]
#[error("{reason}")]
pub struct RegisterError<T> {
    /// The target, untouched.
    pub target: Box<Target<T>>,
    /// Why.
    #[source]
    pub reason: RegisterReason,
}

impl<T> fmt::Debug for RegisterError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisterError")
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// Why a target was not registered.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterReason {
    /// The rules refuse it.
    #[error(transparent)]
    Refused(#[from] RegistrationError),
    /// `max_outstanding` is out of its range.
    #[error("max_outstanding is {value}, and must be from 1 to {limit}")]
    MaxOutstanding {
        /// What was asked for.
        value: u32,
        /// The most.
        limit: u32,
    },
}

/// No lease was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickError {
    /// No target is registered.
    #[error("no target is registered")]
    Empty,
    /// Targets are registered, and none of them may get requests.
    #[error("no target is eligible")]
    NoneEligible,
    /// Every eligible target has as much in hand as it may have.
    #[error("every eligible target is at its limit of outstanding requests")]
    Saturated,
    /// The deadline passed.
    #[error("no target became free before the deadline")]
    Elapsed,
}
