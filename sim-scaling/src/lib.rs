//! Auto scaling inside your process: policies as pure functions of a metric window, and groups of instances that follow
//! them.
//!
//! An instance is whatever a [`Provisioner`] launches: a tokio task, a child process, a machine at a provider's. A [`Group`]
//! keeps as many as are wanted, spread over zones, healthy, of the right version; replaces them in an orderly way; and says for
//! every decision why it was taken or not.
//!
//! ```
//! use std::time::Duration;
//! use sim_core::clock::Clock;
//! use sim_core::seam::Timed;
//! use sim_core::time::Timestamp;
//! use sim_scaling::provisioner::Recorder;
//! use sim_scaling::{Cooldown, Group, GroupConfig};
//!
//! let (clock, time) = Clock::virtual_at(Timestamp::UNIX_EPOCH);
//! let instances = Recorder::new(); // a provisioner that only writes down what it is told
//! instances.script(|script| script.start = Duration::from_secs(90));
//!
//! let group = Group::builder(GroupConfig::new("web", 2, 10).in_zones(["a", "b"]), instances)
//!     .clock(clock)
//!     .build()?;
//! group.set_desired(4, Cooldown::Ignore)?;
//! time.advance(Duration::from_secs(90));
//! group.advance(time.now()); // in a service: `group.run().await`
//! assert_eq!(group.stats().in_service, 4);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//! - **Bounds**: the desired capacity never leaves `min` and `max`. What counts towards capacity passes the desired one only
//!   while instances are replaced, by what the [`MaintenancePolicy`] allows, or one where that leaves no room; with
//!   weights, by less than the heaviest instance more.
//! - **Never stuck**: a launch that fails is tried again with a bounded delay that doubles, elsewhere in the meantime; what does
//!   not start, drain, answer or end has a timeout. The reason stands in [`Group::activities`] and [`Group::explain`].
//! - **Order**: an instance joins the roster when it is in service, and has left it, its work finished or the time for it over,
//!   before it is ended.
//! - **Respect**: scale-in, rebalancing, age and refreshes (unless told to) leave protected instances and those on
//!   standby alone. Bad health does not.
//! - **Memory** is bounded by the configuration: instances (three times `max`, and the warm pool), activities, notifications that
//!   wait, metrics and their windows. Instances that were told to end and never do count; beyond the bound none is launched.
//! - **Time is an input**: nothing is spawned but by provisioners, which are told to. With a
//!   [virtual clock](sim_core::clock::VirtualClock) a month passes in no time, and the same history gives the same decisions.
//! - **Cancel safety**: [`Group::run`] may be dropped at any time; the group stands still until it is driven again.
//!
//! # What it is not
//! There is no market behind spot prices and depths: they are data that the strategies choose by ([`MixedInstances`]). Zones
//! are names that the provisioner may give a meaning. The state of a group lives and dies with the process.
//!
//! # How it works
//! ```text
//!  gauges ─▶ metrics ─▶ policies ─▶ verdict ─▶ ┌─────────────────────────┐ ─▶ effects ─▶ provisioner, roster, sink
//!                                              │ machine: states, hooks, │                   │
//!  requests: desired, standby, refresh, ... ─▶ │ zones, health, refresh  │ ◀── reports, standing
//!                                              └─────────────────────────┘
//! ```
//! The rules stand in [`machine`], which is pure; [`scaling`] drives it. One caller at a time carries out effects, with no
//! lock held; a model test holds the handle to the machine.
//!
//! | to see | look at |
//! | --- | --- |
//! | what a group is told | [`config`] |
//! | states and moves | [`machine::TRANSITIONS`] |
//! | what launches instances | [`provisioner`] |
//! | how capacity is decided | [`policy`], [`alarm`], [`metric`], [`forecast`] |
//!
//! # Trade-offs
//! - A step of a group looks at each of its instances: meant for up to some thousand.
//! - Targets of a roster are asked for their standing each ten seconds, and each second while one leaves.
//!
//! # Features
//! - `tokio`: instances as tokio tasks (`provisioner::Tasks`) and child processes (`provisioner::Processes`).
//! - `cron`: scheduled actions that recur, in time zones.
//! - `serde`: configuration, statistics and reasons (de)serialize.

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
