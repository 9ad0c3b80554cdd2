//! What goes into the machine, and what comes out.

use crate::config::{HealthSource, WarmState};
use crate::message::{Health, InstanceId, LaunchOrder, Notification};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input {
    /// Time passed, and nothing else.
    Tick,
    /// A launch, or a resume, succeeded.
    Started {
        /// The instance.
        id: InstanceId,
    },
    /// A launch, or a resume, failed.
    Failed {
        /// The instance.
        id: InstanceId,
        /// Why.
        reason: String,
    },
    /// An instance is stopped, or frozen, for the warm pool.
    Paused {
        /// The instance.
        id: InstanceId,
    },
    /// An instance has ended.
    Ended {
        /// The instance.
        id: InstanceId,
        /// How.
        reason: String,
    },
    /// The roster has no such member any more: its work is finished.
    Drained {
        /// The instance.
        id: InstanceId,
    },
    /// The roster did not take a member.
    JoinRefused {
        /// The instance.
        id: InstanceId,
        /// Why.
        reason: String,
    },
    /// Somebody says that an instance is fit, or not.
    Health {
        /// The instance.
        id: InstanceId,
        /// Who says so.
        source: HealthSource,
        /// Which.
        health: Health,
    },
    /// An instance will be taken away soon.
    AtRisk {
        /// The instance.
        id: InstanceId,
    },
    /// An alarm fires, or ceases to.
    Alarm {
        /// Its name.
        name: String,
        /// Whether it fires.
        fires: bool,
    },
}

/// What the world has to do.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Effect {
    /// Launch an instance. [`Input::Started`] or [`Input::Failed`] follows.
    Launch(LaunchOrder),
    /// End an instance. [`Input::Ended`] follows.
    Terminate(InstanceId),
    /// Stop or freeze an instance. [`Input::Paused`], [`Input::Failed`] or [`Input::Ended`] follows.
    Pause(InstanceId, WarmState),
    /// Start a paused instance. [`Input::Started`] or [`Input::Failed`] follows.
    Resume(InstanceId),
    /// Let the roster give it work. [`Input::JoinRefused`] where it does not take it.
    Register(InstanceId),
    /// Let the roster give it nothing new. [`Input::Drained`] follows.
    Deregister(InstanceId),
    /// Nothing more is known of it: it was given away.
    LetGo(InstanceId),
    /// Tell the sink.
    Notify(Notification),
}
