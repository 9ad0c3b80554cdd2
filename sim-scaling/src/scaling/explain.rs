//! Why a group is as large as it is.

use std::fmt;

use sim_core::time::Instant;

use super::drive::Core;
use crate::message::{Obstacle, RefreshInfo};
use crate::policy::Verdict;
use crate::stats::GroupStats;

/// Why a group is as large as it is, and not otherwise. `Display` writes it in lines.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupExplanation {
    /// What is there.
    pub stats: GroupStats,
    /// When the policies were asked last.
    pub decided_at: Option<Instant>,
    /// The desired capacity before that.
    pub before: u32,
    /// What each of them saw, wanted and was kept from, and what they came to together.
    pub verdict: Option<Verdict>,
    /// Whether the capacity was changed by it.
    pub is_applied: bool,
    /// Whether policies are only asked and not followed.
    pub is_dry_run: bool,
    /// What the desired capacity was last changed by, whoever did.
    pub change: Option<String>,
    /// What keeps the group from what is wanted.
    pub obstacles: Vec<Obstacle>,
    /// Until when the cooldown lasts, where it does.
    pub cooling_until: Option<Instant>,
    /// The instance refresh that is going on.
    pub refresh: Option<RefreshInfo>,
    /// The last metric that was not recorded, and why.
    pub unrecorded: Option<String>,
}

impl<E> Core<E> {
    pub(super) fn explain(&self, now: Instant) -> GroupExplanation {
        let cooldown = self.machine.cooldown_until();
        GroupExplanation {
            stats: self.machine.stats(now),
            decided_at: self.decided.as_ref().map(|decided| decided.at),
            before: self
                .decided
                .as_ref()
                .map_or(self.machine.desired(), |decided| decided.from),
            verdict: self.decided.as_ref().map(|decided| decided.verdict.clone()),
            is_applied: self.decided.as_ref().is_some_and(|decided| decided.applied),
            is_dry_run: self.dry_run,
            change: self.machine.last_change().map(str::to_owned),
            obstacles: self.obstacles(),
            cooling_until: (cooldown > now).then_some(cooldown),
            refresh: self
                .machine
                .refresh()
                .filter(|refresh| refresh.status.is_active()),
            unrecorded: self.unrecorded.clone(),
        }
    }
}

impl fmt::Display for GroupExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = &self.stats;
        writeln!(
            f,
            "{} desired ({} to {}): {} in service ({} warming), {} pending, {} standby, {} terminating",
            stats.desired,
            stats.min,
            stats.max,
            stats.in_service,
            stats.warming,
            stats.pending,
            stats.standby,
            stats.terminating,
        )?;
        if let Some(change) = &self.change {
            writeln!(f, "last change: {change}")?;
        }
        match &self.verdict {
            None => writeln!(f, "no policy was asked yet")?,
            Some(verdict) => {
                let done = match (self.is_applied, self.is_dry_run) {
                    (true, _) => "followed",
                    (false, true) => "dry run, not followed",
                    (false, false) => "nothing to change",
                };
                writeln!(f, "policies, from {} ({done}):", self.before)?;
                for line in verdict.explain().lines() {
                    writeln!(f, "  {line}")?;
                }
            }
        }
        if let Some(until) = self.cooling_until {
            writeln!(f, "cooldown until {until:?}")?;
        }
        for obstacle in &self.obstacles {
            writeln!(f, "obstacle: {obstacle}")?;
        }
        if let Some(refresh) = &self.refresh {
            writeln!(
                f,
                "instance refresh {}: {:?}, {} % replaced, {} remain",
                refresh.id, refresh.status, refresh.percentage, refresh.remaining
            )?;
        }
        if let Some(unrecorded) = &self.unrecorded {
            writeln!(f, "metric not recorded: {unrecorded}")?;
        }
        Ok(())
    }
}
