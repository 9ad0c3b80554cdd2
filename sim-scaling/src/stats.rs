//! What a group counts, as one plain snapshot.

/// A snapshot of a group. Capacities are in units, as the group counts them; counts run from its construction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct GroupStats {
    /// The least capacity (`GroupMinSize`).
    pub min: u32,
    /// The most capacity (`GroupMaxSize`).
    pub max: u32,
    /// The desired capacity (`GroupDesiredCapacity`).
    pub desired: u32,
    /// Instances in service (`GroupInServiceInstances`).
    pub in_service: u32,
    /// Instances on their way into service (`GroupPendingInstances`).
    pub pending: u32,
    /// Instances on standby or on their way there (`GroupStandbyInstances`).
    pub standby: u32,
    /// Instances on their way out (`GroupTerminatingInstances`), quarantined and retained ones included.
    pub terminating: u32,
    /// All instances but those of the warm pool (`GroupTotalInstances`).
    pub total: u32,
    /// Units in service (`GroupInServiceCapacity`).
    pub in_service_capacity: u32,
    /// Units on their way into service (`GroupPendingCapacity`).
    pub pending_capacity: u32,
    /// Instances in service that are not warm yet.
    pub warming: u32,
    /// Units in service that are not warm yet.
    pub warming_capacity: u32,
    /// Instances that the warm pool should have (`WarmPoolDesiredCapacity`).
    pub warm_desired: u32,
    /// Instances that wait in the warm pool (`WarmPoolWarmedCapacity`).
    pub warm_ready: u32,
    /// Instances on their way into the warm pool (`WarmPoolPendingCapacity`).
    pub warm_pending: u32,
    /// Instances on their way out of the warm pool (`WarmPoolTerminatingCapacity`).
    pub warm_terminating: u32,
    /// Instances that were told to end and do not.
    pub quarantined: u32,
    /// Instances of other templates or causes that are to be replaced.
    pub to_replace: u32,
    /// Launches begun.
    pub launches: u64,
    /// Launches that failed.
    pub launch_failures: u64,
    /// Instances that have ended.
    pub terminated: u64,
    /// Instances that ended by themselves.
    pub ended_alone: u64,
    /// Instances found unhealthy.
    pub unhealthy: u64,
    /// Instances given away.
    pub detached: u64,
    /// Notifications that no sink took in time.
    pub notifications_dropped: u64,
}
