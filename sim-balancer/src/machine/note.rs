//! What happened, for logs and metrics, and what the handle has to do about it.

use sim_core::time::Instant;

use super::health::{Reason, State};
use super::name::{Slot, TargetId, Zone};

/// One of the latest events.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Note {
    /// When.
    pub at: Instant,
    /// To which target, if to one.
    pub target: Option<TargetId>,
    /// What.
    pub change: Change,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A target was registered.
    Registered,
    /// A target's state changed.
    State {
        /// The state before.
        from: State,
        /// The state now.
        to: State,
        /// Why.
        reason: Option<Reason>,
    },
    /// A target that drained is gone.
    Removed,
    /// A target was ejected as an outlier.
    Ejected {
        /// Why.
        cause: Cause,
        /// Until when.
        until: Instant,
    },
    /// An ejected target is back.
    Returned,
    /// A target should have been ejected, but as many are as may be.
    EjectionRefused {
        /// Why it should have been.
        cause: Cause,
    },
    /// A target fails more often than the others.
    Anomalous,
    /// A target does not do so any more.
    Normal,
    /// A zone is shifted away from.
    ShiftBegan {
        /// The zone.
        zone: Zone,
        /// Until when; [`Instant::NEVER`] for until it is ended.
        until: Instant,
    },
    /// A zone is no longer shifted away from.
    ShiftEnded {
        /// The zone.
        zone: Zone,
    },
}

/// Why a target was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Failures in a row.
    ConsecutiveFailures,
    /// Failures of the way to the target in a row.
    ConsecutiveGatewayFailures,
    /// A success rate far below the others'.
    SuccessRate,
    /// Too large a share of failures.
    FailurePercentage,
}

/// What the handle has to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// The target is gone: forget what stands at the slot.
    Removed {
        /// Its slot.
        slot: Slot,
        /// Its name.
        id: TargetId,
    },
    /// The target's ejection is over: what went wrong before is forgotten.
    Returned {
        /// Its slot.
        slot: Slot,
        /// Its name.
        id: TargetId,
    },
    /// End what is still running at the target.
    Terminate {
        /// Its slot.
        slot: Slot,
        /// Its name.
        id: TargetId,
    },
}

/// How many targets are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Counts {
    /// All, those that drain included.
    pub targets: u32,
    /// In state [`Initial`](State::Initial).
    pub initial: u32,
    /// In state [`Healthy`](State::Healthy) (`HealthyHostCount`).
    pub healthy: u32,
    /// In state [`Unhealthy`](State::Unhealthy) or [`UnhealthyDraining`](State::UnhealthyDraining)
    /// (`UnHealthyHostCount`).
    pub unhealthy: u32,
    /// In state [`Unused`](State::Unused).
    pub unused: u32,
    /// In state [`Draining`](State::Draining).
    pub draining: u32,
    /// In state [`Unavailable`](State::Unavailable).
    pub unavailable: u32,
    /// Ejected as outliers.
    pub ejected: u32,
    /// Whose share still grows.
    pub slow_starting: u32,
    /// That fail more often than the others (`AnomalousHostCount`).
    pub anomalous: u32,
    /// That get less for that (`MitigatedHostCount`).
    pub mitigated: u32,
}
