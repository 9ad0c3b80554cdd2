//! The states of an instance and the moves between them, as one table.
//!
//! ```text
//!  Pending ─▶ Pending:Wait ─▶ Pending:Proceed ─▶ InService ─▶ Terminating ─▶ :Wait ─▶ :Proceed ─▶ Terminated
//!     ▲                                           │ │ │ ▲          ▲           └▶ :Retained ┘
//!     │                      EnteringStandby ◀────┘ │ │ └──────────┼─────────── (through Pending)
//!     │                         └▶ Standby ─────────┼─┼────────────┤
//!     │                      Detaching ◀────────────┘ │            │
//!     │                         └▶ Detached           └▶ ReplacingRootVolume ─▶ :Wait ─▶ :Proceed ─▶ RootVolumeReplaced
//!     │                                                                                                  │
//!     ├──────────────────────────────────────────────────────────────────────────────────────────────────┘
//!  Warmed:Stopped | Warmed:Running | Warmed:Hibernated ◀─ Warmed:Pending[:Wait|:Proceed]    (the warm pool)
//! ```

use std::fmt;

/// Where an instance stands in its life (`LifecycleState`): the 30 states of EC2 Auto Scaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum State {
    /// It is being launched.
    Pending,
    /// It has started and waits for hooks.
    PendingWait,
    /// Its hooks have answered.
    PendingProceed,
    /// It was told to end, several times, and does not.
    Quarantined,
    /// It works.
    InService,
    /// It finishes its work, or is being ended where there are no hooks.
    Terminating,
    /// It waits for hooks before it is ended.
    TerminatingWait,
    /// Its hooks have answered; it is being ended.
    TerminatingProceed,
    /// A hook was abandoned and the group retains it.
    TerminatingRetained,
    /// It has ended.
    Terminated,
    /// It finishes its work before it is given away.
    Detaching,
    /// It was given away.
    Detached,
    /// It finishes its work before it goes on standby.
    EnteringStandby,
    /// It runs, out of service.
    Standby,
    /// It finishes its work before it is replaced in place.
    ReplacingRootVolume,
    /// It waits for hooks before it is replaced in place.
    ReplacingRootVolumeWait,
    /// Its hooks have answered; the old one is being ended.
    ReplacingRootVolumeProceed,
    /// The old one has ended; the new one is about to start.
    RootVolumeReplaced,
    /// It is on its way into the warm pool.
    WarmedPending,
    /// It waits for hooks on its way into the warm pool.
    WarmedPendingWait,
    /// Its hooks have answered; it is on its way into the warm pool.
    WarmedPendingProceed,
    /// A hook was abandoned on its way back into the warm pool, and the group retains it.
    WarmedPendingRetained,
    /// It is being ended out of the warm pool.
    WarmedTerminating,
    /// It waits for hooks before it is ended out of the warm pool.
    WarmedTerminatingWait,
    /// Its hooks have answered; it is being ended out of the warm pool.
    WarmedTerminatingProceed,
    /// A hook was abandoned and the group retains it.
    WarmedTerminatingRetained,
    /// It has ended.
    WarmedTerminated,
    /// It waits in the warm pool, stopped.
    WarmedStopped,
    /// It waits in the warm pool, running.
    WarmedRunning,
    /// It waits in the warm pool, frozen.
    WarmedHibernated,
}

use State as S;

/// Every move there is: from a state to those that may follow it. What is not here is [`IllegalTransition`].
pub const TRANSITIONS: [(State, &[State]); 30] = [
    (
        S::Pending,
        &[S::PendingWait, S::InService, S::Terminating, S::Terminated],
    ),
    (S::PendingWait, &[S::PendingProceed, S::Terminating]),
    (S::PendingProceed, &[S::InService, S::Terminating]),
    (S::Quarantined, &[S::Terminated, S::WarmedTerminated]),
    (
        S::InService,
        &[
            S::Terminating,
            S::EnteringStandby,
            S::Detaching,
            S::ReplacingRootVolume,
            S::WarmedPending,
        ],
    ),
    (
        S::Terminating,
        &[S::TerminatingWait, S::Terminated, S::Quarantined],
    ),
    (
        S::TerminatingWait,
        &[S::TerminatingProceed, S::TerminatingRetained, S::Terminated],
    ),
    (S::TerminatingProceed, &[S::Terminated, S::Quarantined]),
    (S::TerminatingRetained, &[S::Terminating, S::Terminated]),
    (S::Terminated, &[]),
    (S::Detaching, &[S::Detached, S::Terminating]),
    (S::Detached, &[]),
    (S::EnteringStandby, &[S::Standby, S::Terminating]),
    (S::Standby, &[S::Pending, S::Terminating, S::Detaching]),
    (
        S::ReplacingRootVolume,
        &[
            S::ReplacingRootVolumeWait,
            S::RootVolumeReplaced,
            S::Terminating,
        ],
    ),
    (
        S::ReplacingRootVolumeWait,
        &[
            S::ReplacingRootVolumeProceed,
            S::RootVolumeReplaced,
            S::Terminating,
        ],
    ),
    (
        S::ReplacingRootVolumeProceed,
        &[S::RootVolumeReplaced, S::Terminating],
    ),
    (S::RootVolumeReplaced, &[S::Pending, S::Terminating]),
    (
        S::WarmedPending,
        &[
            S::WarmedPendingWait,
            S::WarmedStopped,
            S::WarmedRunning,
            S::WarmedHibernated,
            S::WarmedTerminating,
            S::WarmedTerminated,
        ],
    ),
    (
        S::WarmedPendingWait,
        &[
            S::WarmedPendingProceed,
            S::WarmedPendingRetained,
            S::WarmedTerminating,
        ],
    ),
    (
        S::WarmedPendingProceed,
        &[
            S::WarmedStopped,
            S::WarmedRunning,
            S::WarmedHibernated,
            S::WarmedTerminating,
        ],
    ),
    (S::WarmedPendingRetained, &[S::WarmedTerminating]),
    (
        S::WarmedTerminating,
        &[
            S::WarmedTerminatingWait,
            S::WarmedTerminated,
            S::Quarantined,
        ],
    ),
    (
        S::WarmedTerminatingWait,
        &[
            S::WarmedTerminatingProceed,
            S::WarmedTerminatingRetained,
            S::WarmedTerminated,
        ],
    ),
    (
        S::WarmedTerminatingProceed,
        &[S::WarmedTerminated, S::Quarantined],
    ),
    (
        S::WarmedTerminatingRetained,
        &[S::WarmedTerminating, S::WarmedTerminated],
    ),
    (S::WarmedTerminated, &[]),
    (S::WarmedStopped, &[S::Pending, S::WarmedTerminating]),
    (S::WarmedRunning, &[S::Pending, S::WarmedTerminating]),
    (S::WarmedHibernated, &[S::Pending, S::WarmedTerminating]),
];

impl State {
    /// The states that may follow this one.
    #[must_use]
    pub fn successors(self) -> &'static [State] {
        TRANSITIONS
            .iter()
            .find(|(from, _)| *from == self)
            .map_or(&[], |(_, to)| to)
    }

    /// Moves on, if there is such a move.
    ///
    /// # Errors
    /// [`IllegalTransition`] for a move that is not in [`TRANSITIONS`].
    pub fn to(self, to: Self) -> Result<Self, IllegalTransition> {
        if self.successors().contains(&to) {
            Ok(to)
        } else {
            Err(IllegalTransition { from: self, to })
        }
    }

    /// Whether it counts towards the group's capacity: on its way into service, in service, or being replaced in place.
    #[must_use]
    pub const fn counts(self) -> bool {
        matches!(
            self,
            S::Pending
                | S::PendingWait
                | S::PendingProceed
                | S::InService
                | S::ReplacingRootVolume
                | S::ReplacingRootVolumeWait
                | S::ReplacingRootVolumeProceed
                | S::RootVolumeReplaced
        )
    }

    /// Whether it is on its way into service.
    #[must_use]
    pub const fn is_pending(self) -> bool {
        matches!(self, S::Pending | S::PendingWait | S::PendingProceed)
    }

    /// Whether it is on its way out, or retained or quarantined there.
    #[must_use]
    pub const fn is_terminating(self) -> bool {
        matches!(
            self,
            S::Terminating
                | S::TerminatingWait
                | S::TerminatingProceed
                | S::TerminatingRetained
                | S::Quarantined
        )
    }

    /// Whether it waits in the warm pool, ready to be taken.
    #[must_use]
    pub const fn is_warm_ready(self) -> bool {
        matches!(
            self,
            S::WarmedStopped | S::WarmedRunning | S::WarmedHibernated
        )
    }

    /// Whether it is on its way into the warm pool.
    #[must_use]
    pub const fn is_warm_pending(self) -> bool {
        matches!(
            self,
            S::WarmedPending | S::WarmedPendingWait | S::WarmedPendingProceed
        )
    }

    /// Whether it is on its way out of the warm pool, or retained there.
    #[must_use]
    pub const fn is_warm_terminating(self) -> bool {
        matches!(
            self,
            S::WarmedTerminating
                | S::WarmedTerminatingWait
                | S::WarmedTerminatingProceed
                | S::WarmedTerminatingRetained
                | S::WarmedPendingRetained
        )
    }

    /// Whether it belongs to the warm pool.
    #[must_use]
    pub const fn is_warm(self) -> bool {
        self.is_warm_ready()
            || self.is_warm_pending()
            || self.is_warm_terminating()
            || matches!(self, S::WarmedTerminated)
    }

    /// Whether nothing follows.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, S::Terminated | S::Detached | S::WarmedTerminated)
    }

    /// Its name, as EC2 Auto Scaling writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            S::Pending => "Pending",
            S::PendingWait => "Pending:Wait",
            S::PendingProceed => "Pending:Proceed",
            S::Quarantined => "Quarantined",
            S::InService => "InService",
            S::Terminating => "Terminating",
            S::TerminatingWait => "Terminating:Wait",
            S::TerminatingProceed => "Terminating:Proceed",
            S::TerminatingRetained => "Terminating:Retained",
            S::Terminated => "Terminated",
            S::Detaching => "Detaching",
            S::Detached => "Detached",
            S::EnteringStandby => "EnteringStandby",
            S::Standby => "Standby",
            S::ReplacingRootVolume => "ReplacingRootVolume",
            S::ReplacingRootVolumeWait => "ReplacingRootVolume:Wait",
            S::ReplacingRootVolumeProceed => "ReplacingRootVolume:Proceed",
            S::RootVolumeReplaced => "RootVolumeReplaced",
            S::WarmedPending => "Warmed:Pending",
            S::WarmedPendingWait => "Warmed:Pending:Wait",
            S::WarmedPendingProceed => "Warmed:Pending:Proceed",
            S::WarmedPendingRetained => "Warmed:Pending:Retained",
            S::WarmedTerminating => "Warmed:Terminating",
            S::WarmedTerminatingWait => "Warmed:Terminating:Wait",
            S::WarmedTerminatingProceed => "Warmed:Terminating:Proceed",
            S::WarmedTerminatingRetained => "Warmed:Terminating:Retained",
            S::WarmedTerminated => "Warmed:Terminated",
            S::WarmedStopped => "Warmed:Stopped",
            S::WarmedRunning => "Warmed:Running",
            S::WarmedHibernated => "Warmed:Hibernated",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A move that is not in [`TRANSITIONS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an instance that is {from} does not become {to}")]
pub struct IllegalTransition {
    /// Where it stands.
    pub from: State,
    /// Where it would have gone.
    pub to: State,
}
