//! The history of activities: bounded, the oldest go first.

use std::collections::VecDeque;

use sim_core::time::Instant;

use crate::message::{Activity, ActivityKind, ActivityStatus, Cause, InstanceId};

/// Activities by rising number.
#[derive(Debug)]
pub(super) struct Journal {
    /// Invariant: at most `bound`; numbers rise by one.
    entries: VecDeque<Activity>,
    bound: usize,
    next: u64,
}

impl Journal {
    pub(super) fn new(bound: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            bound,
            next: 1,
        }
    }

    pub(super) fn begin(
        &mut self,
        kind: ActivityKind,
        instance: InstanceId,
        cause: Cause,
        change: Option<String>,
        now: Instant,
    ) -> u64 {
        let id = self.next;
        self.next += 1;
        if self.entries.len() >= self.bound {
            self.entries.pop_front();
        }
        let status = match kind {
            ActivityKind::Launch => ActivityStatus::PreInService,
            _ => ActivityStatus::InProgress,
        };
        self.entries.push_back(Activity {
            id,
            kind,
            instance,
            cause,
            change,
            status,
            reason: None,
            began: now,
            ended: None,
        });
        id
    }

    /// Changes an activity that is not over; one that has left the history is let be.
    pub(super) fn set(
        &mut self,
        id: u64,
        status: ActivityStatus,
        reason: Option<String>,
        now: Instant,
    ) {
        let Some(first) = self.entries.front().map(|entry| entry.id) else {
            return;
        };
        let Some(at) = id.checked_sub(first) else {
            return;
        };
        if let Some(entry) = self.entries.get_mut(at as usize)
            && !entry.status.is_over()
        {
            entry.status = status;
            if reason.is_some() {
                entry.reason = reason;
            }
            if status.is_over() {
                entry.ended = Some(now);
            }
        }
    }

    /// Whether an activity follows from a change of the desired capacity.
    pub(super) fn is_scaling(&self, id: u64) -> bool {
        let first = self.entries.front().map_or(0, |entry| entry.id);
        id.checked_sub(first)
            .and_then(|at| self.entries.get(at as usize))
            .is_some_and(|entry| {
                entry.change.is_some() && matches!(entry.cause, Cause::Missing | Cause::ScaleIn)
            })
    }

    pub(super) fn entries(&self) -> impl DoubleEndedIterator<Item = &Activity> {
        self.entries.iter()
    }
}
