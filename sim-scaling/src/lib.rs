//! Auto scaling inside your process.

#![forbid(unsafe_code)]

pub mod config;
pub mod error;
pub mod machine;
pub mod message;
pub mod provisioner;
pub mod scaling;
pub mod stats;

pub mod alarm;
pub mod forecast;
pub mod metric;
pub mod policy;

pub use alarm::{Alarm, AlarmConfig, AlarmState, Comparison, MissingData};
pub use metric::{Fallback, Formula, GaugeMeter, Metrics, Query, Statistic, WindowConfig};
pub use policy::{Capacity, Decision, Policy, PolicyConfig, PolicyInput, PolicySet, Verdict, Vote};

pub use config::{
    AbandonedTermination, Backoff, CapacityUnit, DeletionProtection, Distribution, GroupConfig,
    HealthSource, HookResult, HookTransition, ImpairedZones, LaunchTemplate, LifecycleHook,
    MaintenancePolicy, MixedInstances, NotificationKind, OnDemandStrategy, Override, Process,
    ProtectedInstances, RefreshConfig, RefreshStrategy, Requirements, SpotStrategy,
    StandbyInstances, TemplateVersion, TerminationPolicy, VersionChoice, WarmPoolConfig, WarmState,
    Weighing, ZoneConfig,
};
pub use error::{
    ConfigError, DeleteError, DesiredError, ExecuteError, HookError, InstanceError, RefreshError,
    UnknownName,
};
pub use machine::{
    Cooldown, Decrement, Force, IllegalTransition, Protection, Scaled, State, ZonalShift,
};
pub use message::{
    Activity, ActivityKind, ActivityStatus, Candidate, Cause, Health, HookNotice, InstanceId,
    InstanceInfo, LaunchOrder, Market, Notification, Obstacle, RefreshInfo, RefreshStatus,
};
pub use provisioner::{LaunchRefused, Provisioner, Report};
pub use scaling::{Builder, Fires, Group, GroupExplanation};
pub use stats::GroupStats;
