//! What is kept of the instances between steps, so that a step at which nothing is due costs nothing.
//!
//! It is drawn up when the machine has settled, in one pass, and holds until something happens, is asked, or is due: an
//! instance that becomes warm is due too. Debug builds count again on every reading.

use sim_core::time::Instant;

use super::instance::Wait;
use super::{Machine, State};
use crate::stats::GroupStats;

/// Sums over the instances, as of the last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    /// How many there are in each state; the rest is zero.
    pub(super) tally: GroupStats,
    /// When something is due: later than the last step, or never.
    pub(super) next: Instant,
    /// Some are on their way into service.
    pub(super) is_launching: bool,
    /// The work of some is waited for.
    pub(super) is_draining: bool,
    /// All is as it is wanted: before `next` another step would change nothing.
    pub(super) is_calm: bool,
}

impl Machine {
    /// Goes through the instances, as of `now`.
    pub(super) fn count_up(&self, now: Instant) -> Summary {
        let mut tally = GroupStats::default();
        let (mut is_launching, mut is_draining, mut kept) = (false, false, 0_u32);
        // What was due and could not be done waits for something else to happen.
        let mut next = self.troubles.next_retry_after(self.now);
        if let Some(refresh) = &self.refresh {
            next = next.min(refresh.deadline_after(self.now));
        }
        for instance in self.instances.values() {
            let state = instance.state;
            if state.counts() {
                if state == State::InService {
                    tally.in_service += 1;
                    tally.in_service_capacity += instance.weight;
                    if now < instance.warm_at {
                        tally.warming += 1;
                        tally.warming_capacity += instance.weight;
                    }
                } else {
                    tally.pending += 1;
                    tally.pending_capacity += instance.weight;
                }
                tally.to_replace += u32::from(instance.marked.is_some());
            } else if matches!(state, State::Standby | State::EnteringStandby) {
                tally.standby += 1;
            } else if state.is_terminating() || state == State::Detaching {
                tally.terminating += 1;
                tally.quarantined += u32::from(state == State::Quarantined);
            } else if state.is_warm_ready() {
                tally.warm_ready += 1;
            } else if state.is_warm_pending() {
                tally.warm_pending += 1;
            } else {
                tally.warm_terminating += 1;
            }
            if instance.is_keeper() {
                kept = kept.saturating_add(instance.weight);
            }
            is_launching |= state.is_pending();
            is_draining |= matches!(instance.wait, Wait::Drain { .. });
            next = next.min(self.deadline_of(instance));
        }
        tally.total = tally.in_service + tally.pending + tally.standby + tally.terminating;
        let refreshes = self.refresh.as_ref().is_some_and(|r| r.is_active());
        // A termination policy of the caller's may answer otherwise each time it is asked, so an excess is never calm.
        let is_calm = self.obstacles.is_empty()
            && !refreshes
            && kept == self.desired
            && tally.to_replace == 0;
        Summary {
            tally,
            next,
            is_launching,
            is_draining,
            is_calm,
        }
    }

    /// Draws the summary up anew.
    pub(super) fn summarise(&mut self) {
        self.summary = Some(self.count_up(self.now));
    }

    /// The summary that holds at `now`; counted where none does.
    pub(super) fn summary(&self, now: Instant) -> Summary {
        let kept = self
            .summary
            .filter(|summary| now >= self.now && now < summary.next);
        debug_assert!(
            kept.is_none_or(|kept| kept == self.count_up(now)),
            "what is kept is what is there"
        );
        kept.unwrap_or_else(|| self.count_up(now))
    }

    /// Whether a step at `now` would change nothing.
    pub(super) fn is_calm_at(&self, now: Instant) -> bool {
        self.summary
            .is_some_and(|summary| summary.is_calm && now < summary.next)
    }

    /// Whether the work of some is waited for.
    pub(crate) fn is_draining(&self) -> bool {
        self.summary(self.now).is_draining
    }
}
