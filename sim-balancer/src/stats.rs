//! Numbers of a balancer and of its targets, read at one moment.

use std::time::Duration;

use crate::machine::{Counts, TargetHealth, TargetId, Zone};

/// What a balancer has done and has in hand. Targets that were removed count too.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BalancerStats {
    /// The algorithm's name.
    pub algorithm: &'static str,
    /// How many targets are in which state.
    pub targets: Counts,
    /// How many targets requests are given to now.
    pub eligible: u64,
    /// Leases out now.
    pub outstanding: u64,
    /// Requests finished, well or not.
    pub finished: u64,
    /// Of these, how many failed.
    pub failed: u64,
    /// Leases given back without an outcome.
    pub cancelled: u64,
    /// Callers that wait for a target.
    pub waiting: u64,
    /// How often the table of targets was built anew.
    pub generation: u64,
}

/// What a target has done and has in hand.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TargetStats {
    /// Its name.
    pub id: TargetId,
    /// Its zone.
    pub zone: Option<Zone>,
    /// Its weight as it was registered or set.
    pub weight: u32,
    /// Its priority.
    pub priority: u32,
    /// How it is.
    pub health: TargetHealth,
    /// Leases out now.
    pub outstanding: u32,
    /// How many it may have.
    pub max_outstanding: u32,
    /// Requests finished, well or not.
    pub finished: u64,
    /// Of these, how many failed.
    pub failed: u64,
    /// Leases given back without an outcome.
    pub cancelled: u64,
    /// Its average latency as the algorithm sees it now; `None` where the algorithm takes none, or there was none yet.
    pub latency: Option<Duration>,
}
