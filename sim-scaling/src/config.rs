//! What a group is told once, when it is built. Plain fields; checked by [`GroupConfig::check`].

mod check;
mod kinds;
mod upkeep;

use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) use self::check::check_hook;
pub use self::kinds::{
    CapacityUnit, Kind, LaunchTemplate, MixedInstances, OnDemandStrategy, Override, Requirements,
    SpotStrategy, TemplateVersion, VersionChoice, Weighing,
};
pub use self::upkeep::{
    AbandonedTermination, Backoff, DeletionProtection, Distribution, HealthSource, HookResult,
    HookTransition, ImpairedZones, LifecycleHook, MaintenancePolicy, NotificationKind, Process,
    ProtectedInstances, RefreshConfig, RefreshStrategy, StandbyInstances, TerminationPolicy,
    WarmPoolConfig, WarmState, ZoneConfig,
};

/// EC2 Auto Scaling's default cooldown: 300 seconds.
pub const AWS_COOLDOWN: Duration = Duration::from_secs(300);
/// The shortest maximum lifetime that EC2 Auto Scaling takes: one day. No limit here.
pub const AWS_MIN_LIFETIME: Duration = Duration::from_secs(86_400);
/// The default heartbeat of EC2 Auto Scaling's hooks: 3,600 seconds (30 to 7,200 may be asked for there).
pub const AWS_HEARTBEAT: Duration = Duration::from_secs(3_600);
/// How long EC2 Auto Scaling keeps an instance in a wait state at most, whatever heartbeats come: the smaller of
/// 48 hours and a hundred heartbeats.
pub const AWS_LONGEST_WAIT: Duration = Duration::from_secs(172_800);
/// The most overrides of mixed instances: 40, as EC2 Auto Scaling has it.
pub const MAX_OVERRIDES: usize = 40;
/// The largest `max` of a group: 100,000 units of capacity.
pub const MAX_SIZE: u32 = 100_000;
/// The most zones of a group: 64.
pub const MAX_ZONES: usize = 64;
/// The most lifecycle hooks of a group: 50, as EC2 Auto Scaling has it.
pub const MAX_HOOKS: usize = 50;
/// The most versions that a launch template keeps: 1,000. The oldest go first.
pub const MAX_VERSIONS: usize = 1_000;

/// The configuration of a [`Group`](crate::Group).
///
/// Write it as a literal that ends in `..Default::default()`; fields may be added.
///
/// ```
/// use sim_scaling::GroupConfig;
///
/// let config = GroupConfig {
///     name: "workers".into(),
///     min: 2,
///     max: 20,
///     ..Default::default()
/// };
/// assert!(config.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct GroupConfig {
    /// The group's name, as notifications and statistics report it; 1 to 255 bytes. Default: `"group"`.
    pub name: String,
    /// The least capacity, in units. Default: 0.
    pub min: u32,
    /// The most capacity, in units; at most [`MAX_SIZE`]. Default: 1.
    pub max: u32,
    /// The capacity to begin with. Default: `None`, `min`.
    pub desired: Option<u32>,
    /// What capacity is counted in. Default: [`CapacityUnit::Units`].
    pub capacity_unit: CapacityUnit,
    /// Where instances stand; 1 to [`MAX_ZONES`]. Default: one zone, `"local"`. What a zone is, the provisioner knows.
    pub zones: Vec<ZoneConfig>,
    /// How instances spread over zones. Default: [`Distribution::BalancedBestEffort`].
    pub distribution: Distribution,
    /// What happens to unhealthy instances of a zone that traffic was shifted from. Default: they are replaced.
    pub impaired_zones: ImpairedZones,
    /// What is launched. Default: one version of no kind and without parameters.
    pub template: LaunchTemplate,
    /// Which version of the template is launched. Default: [`VersionChoice::Default`].
    pub version: VersionChoice,
    /// Several kinds of instances with weights, on demand and spot. Default: `None`, one kind of weight 1.
    pub mixed: Option<MixedInstances>,
    /// Whether an instance that is about to be taken away is replaced before it is. Default: false.
    pub capacity_rebalance: bool,
    /// How long after a scaling activity simple scaling, and whoever honours the cooldown, waits. Default: 300 s.
    pub default_cooldown: Duration,
    /// How long an instance is not yet counted as ready after it came into service. Default: 0.
    pub default_warmup: Duration,
    /// Whose word on health counts, besides the provisioner's. Default: the roster's and the callers'.
    pub health_checks: Vec<HealthSource>,
    /// How long after coming into service bad health is not held against an instance. Default: 0.
    pub health_grace: Duration,
    /// How long an instance lives at most. Default: `None`, for ever; EC2 takes [`AWS_MIN_LIFETIME`] and more.
    pub max_lifetime: Option<Duration>,
    /// Whether new instances are protected from scale-in. Default: false.
    pub protect_new: bool,
    /// What a deletion of the group is refused for. Default: nothing.
    pub deletion_protection: DeletionProtection,
    /// What happens to an instance whose termination hook was abandoned. Default: it is terminated.
    pub abandoned_termination: AbandonedTermination,
    /// How far capacity may go down and up while instances are replaced. Default: `None`: unhealthy instances are
    /// terminated at once, others as their cause has it.
    pub maintenance: Option<MaintenancePolicy>,
    /// Who goes first on scale-in, after the balance of zones. Default: [`TerminationPolicy::Default`].
    pub termination: Vec<TerminationPolicy>,
    /// Who is asked before an instance comes into service or ends; at most [`MAX_HOOKS`]. Default: nobody.
    pub hooks: Vec<LifecycleHook>,
    /// Instances that wait prepared. Default: none.
    pub warm_pool: Option<WarmPoolConfig>,
    /// Processes that are suspended from the start. Default: none.
    pub suspended: Vec<Process>,
    /// What the sink of notifications is told. Default: everything.
    pub notifications: Vec<NotificationKind>,
    /// How long an instance may take to start before it counts as failed. Default: 600 s. Not 0.
    pub launch_timeout: Duration,
    /// How long an instance that leaves the roster may take to finish its work. Default: 300 s (a load balancer's
    /// deregistration delay).
    pub drain_timeout: Duration,
    /// How long an instance may take to end before it is told again, three times in all, and then quarantined.
    /// Default: 120 s. Not 0.
    pub end_timeout: Duration,
    /// How launches that fail are tried again. Default: [`Backoff::default`].
    pub backoff: Backoff,
    /// How often gauges are read. Default: 60 s. Not 0.
    pub metric_period: Duration,
    /// How often the roster is asked where the members stand. Default: 10 s. Not 0.
    pub health_period: Duration,
    /// How often the roster is asked while a member leaves, where that is shorter. Default: 1 s. Not 0.
    pub drain_period: Duration,
    /// How many activities the history keeps; 1 to 100,000. Default: 256.
    pub history: usize,
    /// How many notifications wait for a sink that is full, before the oldest is dropped and counted. Default: 1,024.
    pub outbox: usize,
    /// Handed to the provisioner with each launch. At most 50, as EC2 Auto Scaling has it. Default: none.
    pub tags: BTreeMap<String, String>,
    /// The namespace of the ids under which instances join the roster: groups that share a roster take different
    /// ones. Default: 0.
    pub seed: u64,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            name: "group".to_owned(),
            min: 0,
            max: 1,
            desired: None,
            capacity_unit: CapacityUnit::Units,
            zones: vec![ZoneConfig::new("local")],
            distribution: Distribution::BalancedBestEffort,
            impaired_zones: ImpairedZones::ReplaceUnhealthy,
            template: LaunchTemplate::default(),
            version: VersionChoice::Default,
            mixed: None,
            capacity_rebalance: false,
            default_cooldown: AWS_COOLDOWN,
            default_warmup: Duration::ZERO,
            health_checks: vec![HealthSource::Roster, HealthSource::Custom],
            health_grace: Duration::ZERO,
            max_lifetime: None,
            protect_new: false,
            deletion_protection: DeletionProtection::None,
            abandoned_termination: AbandonedTermination::Terminate,
            maintenance: None,
            termination: vec![TerminationPolicy::Default],
            hooks: Vec::new(),
            warm_pool: None,
            suspended: Vec::new(),
            notifications: NotificationKind::ALL.to_vec(),
            launch_timeout: Duration::from_secs(600),
            drain_timeout: Duration::from_secs(300),
            end_timeout: Duration::from_secs(120),
            backoff: Backoff::default(),
            metric_period: Duration::from_secs(60),
            health_period: Duration::from_secs(10),
            drain_period: Duration::from_secs(1),
            history: 256,
            outbox: 1_024,
            tags: BTreeMap::new(),
            seed: 0,
        }
    }
}

impl GroupConfig {
    /// The defaults under a name, between `min` and `max`.
    #[must_use]
    pub fn new(name: impl Into<String>, min: u32, max: u32) -> Self {
        Self {
            name: name.into(),
            min,
            max,
            ..Self::default()
        }
    }

    /// Spreads over zones of these names.
    #[must_use]
    pub fn in_zones<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.zones = names.into_iter().map(ZoneConfig::new).collect();
        self
    }

    /// How many kinds of instances may be launched: the overrides, or one.
    #[must_use]
    pub fn pools(&self) -> usize {
        self.mixed
            .as_ref()
            .map_or(1, |mixed| mixed.overrides.len().max(1))
    }
}
