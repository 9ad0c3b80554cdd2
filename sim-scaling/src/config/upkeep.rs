//! How a group keeps its instances: zones, hooks, health, replacement, warm pools, refreshes.

use std::time::Duration;

/// A place where instances stand.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct ZoneConfig {
    /// Its name; unique in the group, 1 to 255 bytes.
    pub name: String,
    /// How many instances it has room reserved for; of use to [`Distribution::ReservationsThenBalanced`].
    #[cfg_attr(feature = "serde", serde(default))]
    pub reserved: u32,
}

impl ZoneConfig {
    /// A zone without reservations.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            reserved: 0,
        }
    }
}

/// How instances spread over zones (`AvailabilityZoneDistribution`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Distribution {
    /// Evenly; where launches fail in a zone, in the others until it is well again.
    #[default]
    BalancedBestEffort,
    /// Evenly; where launches fail in a zone, the group waits for it.
    BalancedOnly,
    /// First where room is reserved, then evenly.
    ReservationsThenBalanced,
}

/// What happens to unhealthy instances of a zone that was shifted away from (`ImpairedZoneHealthCheckBehavior`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "PascalCase"))]
#[non_exhaustive]
pub enum ImpairedZones {
    /// They are replaced, in other zones.
    #[default]
    ReplaceUnhealthy,
    /// They stay, since the zone and not they may be at fault.
    IgnoreUnhealthy,
}

/// Whose word on an instance's health counts (`HealthCheckType`).
///
/// The provisioner's always does: it says that an instance has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum HealthSource {
    /// The provisioner's health reports (`EC2`).
    Provisioner,
    /// The roster's: a balancer that finds a target failing (`ELB`, `VPC_LATTICE`).
    Roster,
    /// Whoever calls [`Group::set_health`](crate::Group::set_health) (`CUSTOM`).
    Custom,
    /// Storage that is impaired (`EBS`); told like [`Custom`](Self::Custom).
    Storage,
}

/// What a deletion of the group is refused for (`DeletionProtection`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum DeletionProtection {
    /// Nothing; a group with instances needs force.
    #[default]
    None,
    /// Force: a group with instances is not deleted.
    PreventForceDeletion,
    /// Everything.
    PreventAllDeletion,
}

/// What happens to an instance whose termination hook was abandoned (`InstanceLifecyclePolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum AbandonedTermination {
    /// It is terminated.
    #[default]
    Terminate,
    /// It is kept, outside of the group's capacity, until it is terminated by name.
    Retain,
}

/// How far capacity may go down and up while instances are replaced, in percent of the desired capacity.
///
/// Where both leave no room at the group's size, one instance goes further: up if `max_healthy` is above 100 or
/// `min_healthy` is 100, else down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct MaintenancePolicy {
    /// What stays in service; 0 to 100, rounded up.
    pub min_healthy: u32,
    /// What is there at most; 100 to 200, rounded down.
    pub max_healthy: u32,
}

impl MaintenancePolicy {
    /// Launches before it terminates, a tenth at a time: 100 and 110.
    pub const LAUNCH_FIRST: Self = Self {
        min_healthy: 100,
        max_healthy: 110,
    };
    /// Terminates before it launches, a tenth at a time: 90 and 100.
    pub const TERMINATE_FIRST: Self = Self {
        min_healthy: 90,
        max_healthy: 100,
    };
}

/// Who goes first on scale-in, within the zone that has the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum TerminationPolicy {
    /// By [`AllocationStrategy`](Self::AllocationStrategy), [`OldestLaunchConfiguration`](Self::OldestLaunchConfiguration),
    /// [`OldestLaunchTemplate`](Self::OldestLaunchTemplate), then
    /// [`ClosestToNextInstanceHour`](Self::ClosestToNextInstanceHour).
    Default,
    /// The one that was launched first.
    OldestInstance,
    /// The one that was launched last.
    NewestInstance,
    /// Those of launch configurations, before those of templates; the oldest version first.
    OldestLaunchConfiguration,
    /// Those of the oldest version of the template.
    OldestLaunchTemplate,
    /// The one whose hour since the launch is nearest to its end.
    ClosestToNextInstanceHour,
    /// Those of the market (on demand or spot) that has more than its share, and there of the kind that the strategy
    /// would choose last.
    AllocationStrategy,
    /// As the function given to [`Builder::termination`](crate::Builder::termination) says; without one, like
    /// [`Default`](Self::Default).
    Custom,
}

/// What a hook waits for (`LifecycleTransition`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum HookTransition {
    /// An instance has started and is not yet in service (`EC2_INSTANCE_LAUNCHING`).
    Launching,
    /// An instance is out of service and not yet ended (`EC2_INSTANCE_TERMINATING`).
    Terminating,
}

/// How a hook ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "UPPERCASE"))]
#[non_exhaustive]
pub enum HookResult {
    /// The instance goes on (`CONTINUE`).
    Continue,
    /// A launching instance is terminated; a terminating one goes on, or is retained, without its other hooks (`ABANDON`).
    Abandon,
}

/// Somebody who is asked before an instance comes into service, or ends.
///
/// All hooks of a transition are asked at once; the instance waits for the last of them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct LifecycleHook {
    /// Its name; unique in the group, 1 to 255 bytes.
    pub name: String,
    /// What it waits for.
    pub transition: HookTransition,
    /// How long it waits for an answer; each heartbeat begins it anew. EC2's default: [`AWS_HEARTBEAT`](super::AWS_HEARTBEAT).
    pub heartbeat: Duration,
    /// How long it waits at most, whatever heartbeats come. EC2's is the smaller of
    /// [`AWS_LONGEST_WAIT`](super::AWS_LONGEST_WAIT) and a hundred heartbeats.
    pub longest: Duration,
    /// The result where no answer comes.
    pub default_result: HookResult,
    /// Handed over with each notification. Default: empty.
    #[cfg_attr(feature = "serde", serde(default))]
    pub metadata: String,
}

impl LifecycleHook {
    /// A hook with EC2's defaults: an hour, and [`HookResult::Abandon`].
    #[must_use]
    pub fn new(name: impl Into<String>, transition: HookTransition) -> Self {
        Self {
            name: name.into(),
            transition,
            heartbeat: super::AWS_HEARTBEAT,
            longest: super::AWS_LONGEST_WAIT,
            default_result: HookResult::Abandon,
            metadata: String::new(),
        }
    }
}

/// How an instance waits in the warm pool (`PoolState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum WarmState {
    /// Stopped; it starts again on scale-out.
    #[default]
    Stopped,
    /// Running, without work.
    Running,
    /// Frozen, with its memory.
    Hibernated,
}

/// Instances that wait prepared for a scale-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct WarmPoolConfig {
    /// How they wait. Default: [`WarmState::Stopped`].
    pub state: WarmState,
    /// The fewest instances that wait. Default: 0.
    pub min_size: u32,
    /// The most instances in the pool and in service together. Default: `None`, the group's `max`.
    pub max_prepared: Option<u32>,
    /// Whether scale-in puts instances back while there is room. Default: false.
    pub reuse_on_scale_in: bool,
}

/// What a group does by itself, and can be kept from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Process {
    /// Launching instances.
    Launch,
    /// Terminating instances.
    Terminate,
    /// Registering new instances with the roster. Those that come into service meanwhile are not registered later.
    AddToLoadBalancer,
    /// Following policies and alarms.
    AlarmNotification,
    /// Evening out the zones.
    AzRebalance,
    /// Marking instances unhealthy.
    HealthCheck,
    /// Going on with an instance refresh.
    InstanceRefresh,
    /// Replacing unhealthy instances.
    ReplaceUnhealthy,
    /// Following scheduled actions.
    ScheduledActions,
}

impl Process {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Launch,
        Self::Terminate,
        Self::AddToLoadBalancer,
        Self::AlarmNotification,
        Self::AzRebalance,
        Self::HealthCheck,
        Self::InstanceRefresh,
        Self::ReplaceUnhealthy,
        Self::ScheduledActions,
    ];
}

/// What the sink of notifications is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum NotificationKind {
    /// An instance came into service (`EC2_INSTANCE_LAUNCH`).
    Launch,
    /// A launch failed (`EC2_INSTANCE_LAUNCH_ERROR`).
    LaunchError,
    /// An instance has ended (`EC2_INSTANCE_TERMINATE`).
    Terminate,
    /// An instance does not end (`EC2_INSTANCE_TERMINATE_ERROR`).
    TerminateError,
    /// A hook waits for an answer.
    Hook,
    /// An instance refresh changed its status.
    Refresh,
    /// A test, by request (`TEST_NOTIFICATION`).
    Test,
}

impl NotificationKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Launch,
        Self::LaunchError,
        Self::Terminate,
        Self::TerminateError,
        Self::Hook,
        Self::Refresh,
        Self::Test,
    ];
}

/// How launches that fail are tried again: each failure in a row doubles the delay, for each zone and kind by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Backoff {
    /// The delay after the first failure. Default: 1 s. Not 0.
    pub first: Duration,
    /// The longest delay. Default: 300 s.
    pub longest: Duration,
    /// An instance that ends by itself, or is found unhealthy, sooner than this after its start counts as a launch that failed.
    /// Default: 60 s.
    pub stable: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(300),
            stable: Duration::from_secs(60),
        }
    }
}

/// How a refresh replaces instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum RefreshStrategy {
    /// By new instances.
    #[default]
    Rolling,
    /// In place: each is ended and started anew under its id.
    ReplaceRootVolume,
}

/// What a refresh does with instances that are protected from scale-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ProtectedInstances {
    /// It replaces them too.
    Refresh,
    /// It leaves them as they are.
    Ignore,
    /// It waits until they are not protected any more, and fails after the refresh's patience.
    #[default]
    Wait,
}

/// What a refresh does with instances on standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum StandbyInstances {
    /// It terminates them.
    Terminate,
    /// It leaves them as they are.
    Ignore,
    /// It waits until they are back in service, and fails after the refresh's patience.
    #[default]
    Wait,
}

/// How an instance refresh goes.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct RefreshConfig {
    /// By new instances, or in place. Default: [`RefreshStrategy::Rolling`].
    pub strategy: RefreshStrategy,
    /// The version that is wanted afterwards. Default: `None`, the group's.
    pub version: Option<super::VersionChoice>,
    /// How far capacity may go. Default: `None`: the group's maintenance policy, or 90 and 100.
    pub healthy: Option<MaintenancePolicy>,
    /// How long a new instance counts as not yet ready. Default: `None`, the group's warm-up.
    pub warmup: Option<Duration>,
    /// Percentages of replaced instances at which the refresh pauses, rising, 1 to 100. Default: none.
    pub checkpoints: Vec<u32>,
    /// How long it pauses at each. Default: 3,600 s (EC2's).
    pub checkpoint_delay: Duration,
    /// Whether instances that match already are left. Default: false.
    pub skip_matching: bool,
    /// Whether a failure brings the former version back. Default: false.
    pub auto_rollback: bool,
    /// Alarms that fail the refresh while they fire. Default: none; at most 10, as EC2 Auto Scaling has it.
    pub alarms: Vec<String>,
    /// What is done with protected instances. Default: [`ProtectedInstances::Wait`].
    pub protected: ProtectedInstances,
    /// What is done with instances on standby. Default: [`StandbyInstances::Wait`].
    pub standby: StandbyInstances,
    /// How long it watches alarms after the last replacement. Default: 0.
    pub bake_time: Duration,
    /// How long it may stand without progress before it fails. Default: 3,600 s (EC2's). Not 0.
    pub patience: Duration,
}

impl Default for RefreshConfig {
    fn default() -> Self {
        Self {
            strategy: RefreshStrategy::Rolling,
            version: None,
            healthy: None,
            warmup: None,
            checkpoints: Vec::new(),
            checkpoint_delay: Duration::from_secs(3_600),
            skip_matching: false,
            auto_rollback: false,
            alarms: Vec::new(),
            protected: ProtectedInstances::Wait,
            standby: StandbyInstances::Wait,
            bake_time: Duration::ZERO,
            patience: Duration::from_secs(3_600),
        }
    }
}
