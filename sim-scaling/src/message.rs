//! Inert data: instances, activities, notifications.

use std::collections::BTreeMap;
use std::fmt;

use sim_core::id::Id;
use sim_core::sync::Arc;
use sim_core::time::Instant;

use crate::config::{
    HealthSource, HookResult, HookTransition, NotificationKind, Process, TemplateVersion, WarmState,
};
use crate::machine::State;

/// Names an instance of a group; never given twice by one group.
///
/// ```
/// use sim_scaling::InstanceId;
///
/// assert_eq!(InstanceId::new(255).to_string(), "i-000000000000000ff");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct InstanceId(u64);

impl InstanceId {
    /// From here on ids are for instances from elsewhere that are attached; below, the group numbers its own.
    pub const FOREIGN: Self = Self(1 << 61);

    /// The id of a number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The id under which it joins a roster, in a group's namespace ([`GroupConfig::seed`](crate::GroupConfig::seed)).
    #[must_use]
    pub const fn member(self, namespace: u64) -> Id {
        Id::from_parts(namespace, self.0)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i-{:017x}", self.0)
    }
}

/// Where an instance was bought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Market {
    /// On demand.
    #[default]
    OnDemand,
    /// On the spot market: may be taken away.
    Spot,
}

/// Whether an instance is fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Health {
    /// It is.
    #[default]
    Healthy,
    /// It is not.
    Unhealthy,
}

/// What a provisioner is asked to launch.
#[derive(Debug, Clone, PartialEq)]
pub struct LaunchOrder {
    /// The instance's id.
    pub id: InstanceId,
    /// The id under which it will join the roster.
    pub member: Id,
    /// The zone.
    pub zone: Arc<str>,
    /// The kind of instance.
    pub kind: Arc<str>,
    /// Where it is bought.
    pub market: Market,
    /// Units of capacity.
    pub weight: u32,
    /// The template's version.
    pub template: Arc<TemplateVersion>,
    /// How it will wait, where it is for the warm pool.
    pub warm: Option<WarmState>,
    /// The group's tags.
    pub tags: Arc<BTreeMap<String, String>>,
}

/// Why an instance is launched, replaced or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum Cause {
    /// Less capacity was there than desired.
    Missing,
    /// The warm pool is to be filled.
    WarmPool,
    /// It was attached.
    Attached,
    /// More capacity is there than desired.
    ScaleIn,
    /// The warm pool is to shrink.
    WarmPoolShrinks,
    /// It was found unhealthy.
    Unhealthy(HealthSource),
    /// It ended by itself.
    Ended(String),
    /// It did not start in time.
    LaunchTimeout,
    /// It could not be stopped for the warm pool in time.
    PauseTimeout,
    /// It has lived as long as it may.
    Lifetime,
    /// The zones are to be evened out.
    Rebalance,
    /// It is about to be taken away.
    AtRisk,
    /// It is replaced by an instance refresh.
    Refresh,
    /// Somebody asked for it.
    Requested,
    /// A hook was abandoned.
    Abandoned(String),
    /// The group is deleted.
    Deleted,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("less capacity than desired"),
            Self::WarmPool => f.write_str("the warm pool is to be filled"),
            Self::Attached => f.write_str("it was attached"),
            Self::ScaleIn => f.write_str("more capacity than desired"),
            Self::WarmPoolShrinks => f.write_str("the warm pool is to shrink"),
            Self::Unhealthy(source) => write!(f, "found unhealthy ({source:?})"),
            Self::Ended(reason) => write!(f, "ended by itself: {reason}"),
            Self::LaunchTimeout => f.write_str("did not start in time"),
            Self::PauseTimeout => f.write_str("did not stop for the warm pool in time"),
            Self::Lifetime => f.write_str("reached its maximum lifetime"),
            Self::Rebalance => f.write_str("the zones are to be evened out"),
            Self::AtRisk => f.write_str("about to be taken away"),
            Self::Refresh => f.write_str("replaced by an instance refresh"),
            Self::Requested => f.write_str("asked for"),
            Self::Abandoned(hook) => write!(f, "hook {hook:?} was abandoned"),
            Self::Deleted => f.write_str("the group is deleted"),
        }
    }
}

/// An instance, as it stands.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct InstanceInfo {
    /// Its id.
    pub id: InstanceId,
    /// Its zone.
    pub zone: Arc<str>,
    /// Its kind.
    pub kind: Arc<str>,
    /// Where it was bought.
    pub market: Market,
    /// Units of capacity.
    pub weight: u32,
    /// The template's version that it was launched from.
    pub version: u32,
    /// Its state.
    pub state: State,
    /// Whether it is fit.
    pub health: Health,
    /// Whether scale-in leaves it alone.
    pub is_protected: bool,
    /// When its launch began.
    pub launched_at: Instant,
    /// When it came into service last.
    pub in_service_at: Option<Instant>,
    /// When it counts as warm.
    pub warm_at: Instant,
    /// Why it is to be replaced or ended.
    pub leaving: Option<Cause>,
    /// The hooks that it waits for.
    pub hooks: Vec<String>,
    /// What went wrong with it last, such as a roster that does not take it.
    pub note: Option<String>,
}

/// What a custom termination policy chooses among.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Candidate {
    /// Its id.
    pub id: InstanceId,
    /// The index of its zone in the configuration.
    pub zone: usize,
    /// Units of capacity.
    pub weight: u32,
    /// The template's version.
    pub version: u32,
    /// When its launch began.
    pub launched_at: Instant,
    /// Whether it is in service yet.
    pub state: State,
}

/// How far an activity has come (`ScalingActivityStatusCode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ActivityStatus {
    /// A launch has begun.
    PreInService,
    /// A termination has begun.
    InProgress,
    /// It waits until the roster's member has finished its work.
    WaitingForConnectionDraining,
    /// It waits for a hook.
    MidLifecycleAction,
    /// It is done.
    Successful,
    /// It failed.
    Failed,
    /// It was given up, since something else was wanted.
    Cancelled,
}

impl ActivityStatus {
    /// Whether nothing more will happen.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Successful | Self::Failed | Self::Cancelled)
    }
}

/// What an activity does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ActivityKind {
    /// Brings an instance into service, or into the warm pool.
    Launch,
    /// Ends an instance.
    Terminate,
    /// Puts an instance on standby, or gives it away.
    Withdraw,
    /// Replaces an instance in place.
    ReplaceInPlace,
}

/// A change of the group's instances: what, why, how far.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Activity {
    /// Its number, rising.
    pub id: u64,
    /// What it does.
    pub kind: ActivityKind,
    /// The instance.
    pub instance: InstanceId,
    /// Why.
    pub cause: Cause,
    /// What the desired capacity was last changed by, where the cause is a difference to it.
    pub change: Option<String>,
    /// How far it has come.
    pub status: ActivityStatus,
    /// Why it failed or was given up.
    pub reason: Option<String>,
    /// When it began, in nanoseconds of the group's clock.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub began: Instant,
    /// When it was over.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub ended: Option<Instant>,
}

/// What a group tells the sink of its notifications.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Notification {
    /// An instance came into service.
    Launched {
        /// The group's name.
        group: Arc<str>,
        /// The instance.
        instance: InstanceId,
        /// Why it was launched.
        cause: Cause,
    },
    /// A launch failed.
    LaunchFailed {
        /// The group's name.
        group: Arc<str>,
        /// The instance.
        instance: InstanceId,
        /// What went wrong.
        reason: String,
        /// When a launch in that zone is tried again.
        retry_at: Instant,
    },
    /// An instance has ended.
    Terminated {
        /// The group's name.
        group: Arc<str>,
        /// The instance.
        instance: InstanceId,
        /// Why.
        cause: Cause,
    },
    /// An instance was told to end several times and does not.
    TerminateFailed {
        /// The group's name.
        group: Arc<str>,
        /// The instance.
        instance: InstanceId,
    },
    /// A hook waits for an answer: [`Group::complete_hook`](crate::Group::complete_hook).
    Hook(HookNotice),
    /// An instance refresh changed its status.
    Refresh {
        /// The group's name.
        group: Arc<str>,
        /// The refresh's number.
        refresh: u64,
        /// Its status now.
        status: RefreshStatus,
        /// Why, where there is a reason.
        reason: Option<String>,
    },
    /// A test.
    Test {
        /// The group's name.
        group: Arc<str>,
    },
}

impl Notification {
    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> NotificationKind {
        match self {
            Self::Launched { .. } => NotificationKind::Launch,
            Self::LaunchFailed { .. } => NotificationKind::LaunchError,
            Self::Terminated { .. } => NotificationKind::Terminate,
            Self::TerminateFailed { .. } => NotificationKind::TerminateError,
            Self::Hook(_) => NotificationKind::Hook,
            Self::Refresh { .. } => NotificationKind::Refresh,
            Self::Test { .. } => NotificationKind::Test,
        }
    }
}

/// A hook that waits for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HookNotice {
    /// The group's name.
    pub group: Arc<str>,
    /// The hook's name.
    pub hook: Arc<str>,
    /// The instance.
    pub instance: InstanceId,
    /// What it waits for.
    pub transition: HookTransition,
    /// Whether the instance goes to the warm pool, or leaves it, and not into or out of service.
    pub is_warm: bool,
    /// When the default result is taken, unless a heartbeat comes.
    pub due: Instant,
    /// That result.
    pub default_result: HookResult,
    /// The hook's metadata.
    pub metadata: Arc<str>,
}

/// How far an instance refresh has come (`InstanceRefreshStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum RefreshStatus {
    /// It was asked for and has not begun. Here it begins at once, so this is for other engines.
    Pending,
    /// It replaces instances, or pauses at a checkpoint.
    InProgress,
    /// All are replaced; it watches its alarms.
    Baking,
    /// It is done.
    Successful,
    /// It failed; instances replaced so far stay.
    Failed,
    /// It was cancelled; what it has begun to end is ended.
    Cancelling,
    /// It was cancelled.
    Cancelled,
    /// It brings the former version back.
    RollbackInProgress,
    /// The former version is back.
    RollbackSuccessful,
    /// The former version could not be brought back.
    RollbackFailed,
}

impl RefreshStatus {
    /// Whether it is still at work.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(
            self,
            Self::Pending
                | Self::InProgress
                | Self::Baking
                | Self::Cancelling
                | Self::RollbackInProgress
        )
    }
}

/// An instance refresh, as it stands.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RefreshInfo {
    /// Its number, rising.
    pub id: u64,
    /// How far it has come.
    pub status: RefreshStatus,
    /// Why it failed, or what it waits for.
    pub reason: Option<String>,
    /// The version that it brings.
    pub version: u32,
    /// The version to go back to.
    pub former: u32,
    /// How many percent of the instances are replaced.
    pub percentage: u32,
    /// How many instances are still to be replaced.
    pub remaining: u32,
    /// Until when it pauses at a checkpoint.
    pub paused_until: Option<Instant>,
    /// When it began.
    pub began: Instant,
    /// When it was over.
    pub ended: Option<Instant>,
}

/// What keeps the group from the capacity that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// More was asked for than the group's most.
    AtMax {
        /// What was asked for.
        wanted: u32,
        /// The group's most.
        max: u32,
    },
    /// Less was asked for than the group's least.
    AtMin {
        /// What was asked for.
        wanted: u32,
        /// The group's least.
        min: u32,
    },
    /// A process is suspended.
    Suspended(Process),
    /// Launches failed everywhere; the next is tried then.
    BackingOff {
        /// When.
        until: Instant,
        /// What the last failure was.
        reason: String,
    },
    /// No zone is open: all were shifted away from, or no kind is cheap enough.
    NoZone,
    /// Too many instances were told to end and have not.
    Overpopulated {
        /// How many instances there are.
        instances: usize,
    },
    /// What could be ended is protected from scale-in.
    Protected,
    /// The cooldown is not over.
    CoolingDown {
        /// When it is.
        until: Instant,
    },
    /// The policy is disabled.
    Disabled,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMax { wanted, max } => write!(f, "{wanted} wanted, the most is {max}"),
            Self::AtMin { wanted, min } => write!(f, "{wanted} wanted, the least is {min}"),
            Self::Suspended(process) => write!(f, "{process:?} is suspended"),
            Self::BackingOff { until, reason } => {
                write!(f, "launches fail until {until:?}: {reason}")
            }
            Self::NoZone => f.write_str("no zone is open"),
            Self::Overpopulated { instances } => {
                write!(f, "{instances} instances, too many that do not end")
            }
            Self::Protected => f.write_str("what could be ended is protected"),
            Self::CoolingDown { until } => write!(f, "the cooldown lasts until {until:?}"),
            Self::Disabled => f.write_str("it is disabled"),
        }
    }
}
