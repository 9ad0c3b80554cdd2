//! The states of a target, their reasons, and how checks move a target between them.

use std::fmt;

use super::rules::HealthCheck;
use sim_core::time::Instant;

/// The state of a target; shown as the service writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum State {
    /// Registered and not yet found well. Gets no traffic unless the pool fails open.
    Initial,
    /// Found well.
    Healthy,
    /// Found unwell.
    Unhealthy,
    /// Found unwell, and finishing what it has before that is ended.
    UnhealthyDraining,
    /// Registered, but not to get traffic.
    Unused,
    /// Deregistered, and finishing what it has.
    Draining,
    /// Not checked: nobody knows, and it gets traffic.
    Unavailable,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initial => "initial",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::UnhealthyDraining => "unhealthy.draining",
            Self::Unused => "unused",
            Self::Draining => "draining",
            Self::Unavailable => "unavailable",
        })
    }
}

/// Why a target is in its state; shown as the service's reason codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Reason {
    /// `Elb.RegistrationInProgress`: initial, no check has been made.
    RegistrationInProgress,
    /// `Elb.InitialHealthChecking`: initial, checks are under way.
    InitialHealthChecking,
    /// `Elb.InternalError`: initial, the checker itself failed.
    InternalError,
    /// `Target.ResponseCodeMismatch`: unhealthy, the code is not one that the matcher names.
    ResponseCodeMismatch,
    /// `Target.Timeout`: unhealthy, no answer in time.
    Timeout,
    /// `Target.FailedHealthChecks`: unhealthy, no connection or no proper answer.
    FailedHealthChecks,
    /// `Target.NotRegistered`: unused, no such target.
    NotRegistered,
    /// `Target.NotInUse`: unused, nobody sends to it.
    NotInUse,
    /// `Target.InvalidState`: unused, it is stopped or ended.
    InvalidState,
    /// `Target.IpUnusable`: unused, its address belongs to somebody else.
    IpUnusable,
    /// `Target.DeregistrationInProgress`: draining.
    DeregistrationInProgress,
    /// `Target.HealthCheckDisabled`: unavailable, no checks are made.
    HealthCheckDisabled,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RegistrationInProgress => "Elb.RegistrationInProgress",
            Self::InitialHealthChecking => "Elb.InitialHealthChecking",
            Self::InternalError => "Elb.InternalError",
            Self::ResponseCodeMismatch => "Target.ResponseCodeMismatch",
            Self::Timeout => "Target.Timeout",
            Self::FailedHealthChecks => "Target.FailedHealthChecks",
            Self::NotRegistered => "Target.NotRegistered",
            Self::NotInUse => "Target.NotInUse",
            Self::InvalidState => "Target.InvalidState",
            Self::IpUnusable => "Target.IpUnusable",
            Self::DeregistrationInProgress => "Target.DeregistrationInProgress",
            Self::HealthCheckDisabled => "Target.HealthCheckDisabled",
        })
    }
}

/// Why a target is kept out of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unused {
    /// Nobody sends to it, or its zone is not enabled.
    NotInUse,
    /// It is stopped or ended.
    InvalidState,
    /// Its address belongs to somebody else.
    IpUnusable,
}

impl From<Unused> for Reason {
    fn from(unused: Unused) -> Self {
        match unused {
            Unused::NotInUse => Self::NotInUse,
            Unused::InvalidState => Self::InvalidState,
            Unused::IpUnusable => Self::IpUnusable,
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ProbeResult {
    /// The target is well.
    Good,
    /// It answered with a code that the matcher does not name.
    CodeMismatch {
        /// The code.
        code: u16,
    },
    /// It did not answer in time.
    Timeout,
    /// It could not be reached, or did not answer properly.
    Failed,
    /// The checker failed, which says nothing about the target: counted neither as good nor as bad.
    Internal,
}

impl ProbeResult {
    /// The reason code of a bad result.
    #[must_use]
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Good => None,
            Self::CodeMismatch { .. } => Some(Reason::ResponseCodeMismatch),
            Self::Timeout => Some(Reason::Timeout),
            Self::Failed => Some(Reason::FailedHealthChecks),
            Self::Internal => Some(Reason::InternalError),
        }
    }
}

impl fmt::Display for ProbeResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("good"),
            Self::CodeMismatch { code } => {
                write!(f, "health checks failed with these codes: [{code}]")
            }
            Self::Timeout => f.write_str("request timed out"),
            Self::Failed => f.write_str("health checks failed"),
            Self::Internal => f.write_str("health checks failed due to an internal error"),
        }
    }
}

/// How a target is, as [`Machine::health`](super::Machine::health) tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TargetHealth {
    /// Its state.
    pub state: State,
    /// Why; absent for healthy targets.
    pub reason: Option<Reason>,
    /// What the last check found.
    pub last_probe: Option<ProbeResult>,
    /// Until when it is ejected as an outlier, if it is.
    pub ejected_until: Option<Instant>,
    /// Until when its share grows, if it does.
    pub slow_start_until: Option<Instant>,
    /// Until when it drains, if it does, after deregistration or unhealthy.
    pub draining_until: Option<Instant>,
    /// Whether it fails more often than the others.
    pub is_anomalous: bool,
    /// Whether it gets less than its share for that.
    pub is_mitigated: bool,
    /// Whether its zone is shifted away from.
    pub is_shifted: bool,
}

/// The part of a target that checks move.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    pub(crate) state: State,
    pub(crate) reason: Option<Reason>,
    pub(crate) last: Option<ProbeResult>,
    /// Good checks in a row. Invariant: this or `bad` is zero.
    good: u32,
    /// Bad checks in a row.
    bad: u32,
}

/// Which way a check turned a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Healthy,
    Unhealthy,
}

impl Health {
    /// A target that was just registered.
    pub(crate) fn new(check: Option<&HealthCheck>) -> Self {
        let (state, reason) = match check {
            Some(_) => (State::Initial, Reason::RegistrationInProgress),
            None => (State::Unavailable, Reason::HealthCheckDisabled),
        };
        Self {
            state,
            reason: Some(reason),
            last: None,
            good: 0,
            bad: 0,
        }
    }

    pub(crate) fn set(&mut self, state: State, reason: Option<Reason>) {
        self.state = state;
        self.reason = reason;
    }

    /// Whether the target gets traffic for its own sake, leaving outlier ejection aside.
    pub(crate) fn is_fit(&self) -> bool {
        matches!(self.state, State::Healthy | State::Unavailable)
    }

    /// Whether the target may get traffic when the pool fails open.
    pub(crate) fn is_live(&self) -> bool {
        !matches!(self.state, State::Draining | State::Unused)
    }

    /// Whether checks are made.
    pub(crate) fn is_checked(&self) -> bool {
        matches!(
            self.state,
            State::Initial | State::Healthy | State::Unhealthy | State::UnhealthyDraining
        )
    }

    /// A check has been handed out.
    pub(crate) fn check_begins(&mut self) {
        if self.reason == Some(Reason::RegistrationInProgress) {
            self.reason = Some(Reason::InitialHealthChecking);
        }
    }

    /// Counts what a check found. Says which way the target turned, if it did; the state is then set.
    pub(crate) fn count(&mut self, result: ProbeResult, check: &HealthCheck) -> Option<Turn> {
        self.last = Some(result);
        match result {
            ProbeResult::Good => {
                self.bad = 0;
                self.good = self.good.saturating_add(1);
                let needed = match self.state {
                    // A new target has no record to make up for.
                    State::Initial => 1,
                    State::Unhealthy | State::UnhealthyDraining => check.healthy_threshold,
                    _ => return None,
                };
                (self.good >= needed).then(|| {
                    self.set(State::Healthy, None);
                    Turn::Healthy
                })
            }
            ProbeResult::Internal => {
                if self.state == State::Initial {
                    self.reason = Some(Reason::InternalError);
                }
                None
            }
            ProbeResult::CodeMismatch { .. } | ProbeResult::Timeout | ProbeResult::Failed => {
                self.good = 0;
                self.bad = self.bad.saturating_add(1);
                match self.state {
                    State::Initial | State::Healthy if self.bad >= check.unhealthy_threshold => {
                        self.set(State::Unhealthy, result.reason());
                        Some(Turn::Unhealthy)
                    }
                    State::Initial => {
                        self.reason = Some(Reason::InitialHealthChecking);
                        None
                    }
                    // The latest reason is the one to look for.
                    State::Unhealthy | State::UnhealthyDraining => {
                        self.reason = result.reason();
                        None
                    }
                    _ => None,
                }
            }
        }
    }
}
