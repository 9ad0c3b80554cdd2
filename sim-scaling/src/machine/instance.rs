//! The record of an instance.

use std::time::Duration;

use sim_core::sync::Arc;
use sim_core::time::Instant;

use crate::config::{HealthSource, HookResult, WarmState};
use crate::machine::state::State;
use crate::message::{Cause, Health, InstanceId, Market};

/// What the machine knows of an instance.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub(super) id: InstanceId,
    pub(super) zone: usize,
    pub(super) pool: usize,
    pub(super) market: Market,
    pub(super) weight: u32,
    pub(super) kind: Arc<str>,
    pub(super) version: u32,
    pub(super) is_launch_configuration: bool,
    pub(super) state: State,
    pub(super) wait: Wait,
    /// Who says that it is unfit, a bit each.
    pub(super) failing: u8,
    pub(super) protected: bool,
    /// The roster was asked to take it, and not yet asked to let it go.
    pub(super) registered: bool,
    /// It has ended, as the provisioner reported.
    pub(super) gone: bool,
    pub(super) launched_at: Instant,
    pub(super) started_at: Option<Instant>,
    pub(super) in_service_at: Option<Instant>,
    pub(super) warm_at: Instant,
    pub(super) grace_until: Instant,
    /// Why it is to be replaced.
    pub(super) marked: Option<Mark>,
    /// Why it leaves.
    pub(super) leaving: Option<Cause>,
    /// The activity that is under way with it.
    pub(super) activity: Option<u64>,
    pub(super) note: Option<String>,
    /// When the roster is asked again, and how often it has refused.
    pub(super) join: Option<(Instant, u32)>,
}

/// What an instance waits for. The state says what comes then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wait {
    Nothing,
    /// The provisioner reports a start.
    Start {
        until: Instant,
    },
    /// Hooks answer. Bound: the hooks of the group.
    Hooks(Vec<HookWait>),
    /// The roster lets it go.
    Drain {
        until: Instant,
    },
    /// The provisioner reports the end; it is told again at `again`.
    End {
        again: Instant,
        told: u32,
    },
    /// The provisioner reports that it is stopped or frozen.
    Pause {
        until: Instant,
        how: WarmState,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HookWait {
    pub(super) name: Arc<str>,
    pub(super) due: Instant,
    /// Heartbeats do not go beyond.
    pub(super) last: Instant,
    pub(super) heartbeat: Duration,
    pub(super) default_result: HookResult,
}

/// Why an instance is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Unhealthy(HealthSource),
    Lifetime,
    /// Towards this zone.
    Rebalance(usize),
    AtRisk,
    Refresh,
}

impl Mark {
    pub(super) fn cause(self) -> Cause {
        match self {
            Self::Unhealthy(source) => Cause::Unhealthy(source),
            Self::Lifetime => Cause::Lifetime,
            Self::Rebalance(_) => Cause::Rebalance,
            Self::AtRisk => Cause::AtRisk,
            Self::Refresh => Cause::Refresh,
        }
    }
}

impl Instance {
    /// It counts towards capacity and stays.
    pub(super) fn is_keeper(&self) -> bool {
        self.state.counts() && self.marked.is_none()
    }

    pub(super) fn is_ready(&self, now: Instant) -> bool {
        self.state == State::InService && now >= self.warm_at
    }

    pub(super) fn health(&self) -> Health {
        if self.failing == 0 && !self.gone {
            Health::Healthy
        } else {
            Health::Unhealthy
        }
    }

    /// The first who says that it is unfit.
    pub(super) fn accuser(&self) -> Option<HealthSource> {
        SOURCES
            .into_iter()
            .find(|&source| self.failing & bit(source) != 0)
    }
}

const SOURCES: [HealthSource; 4] = [
    HealthSource::Provisioner,
    HealthSource::Roster,
    HealthSource::Custom,
    HealthSource::Storage,
];

pub(super) const fn bit(source: HealthSource) -> u8 {
    1 << (source as u8)
}
