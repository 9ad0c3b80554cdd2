//! Instance refreshes: a new version, a few instances at a time, with checkpoints, alarms and a way back.

use std::collections::BTreeSet;
use std::time::Duration;

use sim_core::time::Instant;

use super::instance::Mark;
use super::{Machine, State};
use crate::config::{
    MaintenancePolicy, Process, ProtectedInstances, RefreshConfig, RefreshStrategy,
    StandbyInstances, VersionChoice,
};
use crate::error::{ConfigError, RefreshError};
use crate::message::{Cause, InstanceId, Notification, RefreshInfo, RefreshStatus};

/// The refresh that is going on, or the last one.
#[derive(Debug)]
pub(super) struct Refresh {
    id: u64,
    config: RefreshConfig,
    status: RefreshStatus,
    reason: Option<String>,
    version: u32,
    former: u32,
    /// What the group's choice was.
    former_choice: VersionChoice,
    /// Who is still to be replaced. Bound: the instances at its begin.
    targets: BTreeSet<InstanceId>,
    total: u32,
    /// The next checkpoint.
    checkpoint: usize,
    paused_until: Option<Instant>,
    bake_until: Option<Instant>,
    progress_at: Instant,
    replaced: u32,
    began: Instant,
    ended: Option<Instant>,
}

impl Refresh {
    pub(super) fn is_active(&self) -> bool {
        self.status.is_active()
    }

    pub(super) fn healthy(&self) -> Option<MaintenancePolicy> {
        self.config.healthy
    }

    /// When it has something to do by the clock: later than `now`, or never.
    pub(super) fn deadline_after(&self, now: Instant) -> Instant {
        if !self.is_active() {
            return Instant::NEVER;
        }
        if self.status == RefreshStatus::Cancelling {
            return Instant::NEVER;
        }
        let patience = self.progress_at + self.config.patience;
        [
            self.paused_until.unwrap_or(Instant::NEVER),
            self.bake_until.unwrap_or(Instant::NEVER),
            if self.paused_until.is_some() || self.bake_until.is_some() {
                Instant::NEVER
            } else {
                patience
            },
        ]
        .into_iter()
        .filter(|&at| at > now)
        .min()
        .unwrap_or(Instant::NEVER)
    }

    /// How many may be replaced before the next pause.
    fn allowed(&self) -> u32 {
        match self.config.checkpoints.get(self.checkpoint) {
            Some(&percent) if self.status == RefreshStatus::InProgress => {
                (u64::from(self.total) * u64::from(percent)).div_ceil(100) as u32
            }
            _ => self.total,
        }
    }

    pub(super) fn info(&self) -> RefreshInfo {
        let remaining = self.targets.len() as u32;
        let replaced = u64::from(self.total.saturating_sub(remaining));
        RefreshInfo {
            id: self.id,
            status: self.status,
            reason: self.reason.clone(),
            version: self.version,
            former: self.former,
            percentage: (replaced * 100)
                .checked_div(u64::from(self.total))
                .unwrap_or(100) as u32,
            remaining,
            paused_until: self.paused_until,
            began: self.began,
            ended: self.ended,
        }
    }
}

impl Machine {
    /// Begins an instance refresh; tells its number. The group launches the new version from now on.
    ///
    /// # Errors
    /// [`RefreshError`] when one is going on, or the configuration is not valid.
    pub fn start_refresh(
        &mut self,
        config: RefreshConfig,
        now: Instant,
    ) -> Result<u64, RefreshError> {
        if let Some(refresh) = &self.refresh
            && refresh.is_active()
        {
            return Err(RefreshError::InProgress { id: refresh.id });
        }
        config.check()?;
        let former_choice = self.config.version;
        let choice = config.version.unwrap_or(former_choice);
        let Some(version) = self.config.template.resolve(choice).map(|v| v.number) else {
            return Err(RefreshError::Config(ConfigError::NoVersion {
                field: "refresh.version",
                choice,
            }));
        };
        // What most instances have now is what a rollback brings back.
        let former = self.prevailing_version().unwrap_or(version);
        self.config.version = choice;
        self.refreshes += 1;
        let id = self.refreshes;
        let targets = self.targets_of(&config, version);
        self.refresh = Some(Refresh {
            id,
            status: RefreshStatus::InProgress,
            reason: None,
            version,
            former,
            former_choice,
            total: targets.len() as u32,
            targets,
            checkpoint: 0,
            paused_until: None,
            bake_until: None,
            progress_at: now,
            replaced: 0,
            began: now,
            ended: None,
            config,
        });
        self.refresh_warm_pool(version, now);
        self.generation += 1;
        self.tell_refresh();
        self.settle(now);
        Ok(id)
    }

    /// Ends the refresh; what has been replaced stays, what is marked is not replaced any more. It is over when what it has
    /// begun to end has ended.
    ///
    /// # Errors
    /// [`RefreshError::NotActive`] when none is going on.
    pub fn cancel_refresh(&mut self, now: Instant) -> Result<u64, RefreshError> {
        let id = self.active_refresh()?;
        if self.refresh.as_ref().map(|refresh| refresh.status) == Some(RefreshStatus::Cancelling) {
            return Ok(id);
        }
        self.unmark();
        if let Some(refresh) = &mut self.refresh {
            refresh.status = RefreshStatus::Cancelling;
            refresh.reason = None;
            refresh.paused_until = None;
            refresh.bake_until = None;
        }
        self.generation += 1;
        self.tell_refresh();
        self.settle(now);
        Ok(id)
    }

    /// Brings the former version back.
    ///
    /// # Errors
    /// [`RefreshError`] when none is going on, or it is being rolled back already.
    pub fn rollback_refresh(&mut self, now: Instant) -> Result<u64, RefreshError> {
        let id = self.active_refresh()?;
        let status = self.refresh.as_ref().map(|refresh| refresh.status);
        if status == Some(RefreshStatus::Cancelling) {
            return Err(RefreshError::NotActive);
        }
        if status == Some(RefreshStatus::RollbackInProgress) {
            return Err(RefreshError::RollingBack { id });
        }
        self.roll_back("asked for".to_owned(), now);
        self.settle(now);
        Ok(id)
    }

    fn active_refresh(&self) -> Result<u64, RefreshError> {
        match &self.refresh {
            Some(refresh) if refresh.is_active() => Ok(refresh.id),
            _ => Err(RefreshError::NotActive),
        }
    }

    /// The version that most instances which count have.
    fn prevailing_version(&self) -> Option<u32> {
        let mut counts = std::collections::BTreeMap::new();
        for instance in self.instances.values().filter(|i| i.state.counts()) {
            *counts.entry(instance.version).or_insert(0_u32) += 1;
        }
        counts
            .into_iter()
            .max_by_key(|&(version, count)| (count, version))
            .map(|(version, _)| version)
    }

    /// Who is to be replaced.
    fn targets_of(&self, config: &RefreshConfig, version: u32) -> BTreeSet<InstanceId> {
        self.instances
            .values()
            .filter(|instance| {
                let is_concerned = instance.state.counts()
                    || (matches!(instance.state, State::Standby | State::EnteringStandby)
                        && config.standby != StandbyInstances::Ignore);
                let matches = config.skip_matching && instance.version == version;
                let ignored = instance.protected && config.protected == ProtectedInstances::Ignore;
                is_concerned && !matches && !ignored
            })
            .map(|instance| instance.id)
            .collect()
    }

    /// Ends what waits in the warm pool with another version.
    fn refresh_warm_pool(&mut self, version: u32, now: Instant) {
        let outdated: Vec<_> = self
            .instances
            .values()
            .filter(|instance| {
                instance.version != version
                    && (instance.state.is_warm_ready() || instance.state.is_warm_pending())
            })
            .map(|instance| instance.id)
            .collect();
        for id in outdated {
            self.terminate(id, Cause::Refresh, now);
        }
    }

    /// How long an instance is not ready after it came into service.
    pub(super) fn warmup_of(&self, id: InstanceId) -> Duration {
        let version = self.instances.get(&id).map(|instance| instance.version);
        match &self.refresh {
            Some(refresh) if refresh.is_active() && version == Some(refresh.version) => {
                refresh.config.warmup.unwrap_or(self.config.default_warmup)
            }
            _ => self.config.default_warmup,
        }
    }

    /// Whether the refresh that is going on replaces protected instances too.
    pub(super) fn refreshes_protected(&self) -> bool {
        self.refresh.as_ref().is_some_and(|refresh| {
            refresh.is_active() && refresh.config.protected == ProtectedInstances::Refresh
        })
    }

    /// Takes the refresh a step further.
    pub(super) fn drive_refresh(&mut self, now: Instant) {
        let Some(refresh) = self.refresh.as_mut().filter(|refresh| refresh.is_active()) else {
            return;
        };
        if refresh.status == RefreshStatus::Cancelling {
            let is_ending = self.instances.values().any(|instance| {
                instance.leaving == Some(Cause::Refresh)
                    && !matches!(
                        instance.state,
                        State::Quarantined
                            | State::TerminatingRetained
                            | State::WarmedTerminatingRetained
                    )
            });
            if !is_ending {
                self.end_refresh(RefreshStatus::Cancelled, None, now);
            }
            return;
        }
        if self
            .suspended
            .contains(&super::key(Process::InstanceRefresh))
        {
            // Its patience does not run meanwhile.
            refresh.progress_at = now;
            return;
        }
        let is_going = matches!(
            refresh.status,
            RefreshStatus::InProgress | RefreshStatus::Baking
        );
        let fired = refresh
            .config
            .alarms
            .iter()
            .find(|a| self.firing.contains(*a));
        if is_going && let Some(alarm) = fired {
            let reason = format!("alarm {alarm:?} fires");
            self.fail_refresh(reason, now);
            return;
        }
        let instances = &self.instances;
        let ignores = refresh.config.protected == ProtectedInstances::Ignore;
        let mut ignored = 0;
        refresh.targets.retain(|id| {
            instances.get(id).is_some_and(|instance| {
                if instance.protected && ignores {
                    ignored += 1;
                    return false;
                }
                instance.state.counts()
                    || matches!(instance.state, State::Standby | State::EnteringStandby)
            })
        });
        refresh.total = refresh.total.saturating_sub(ignored);
        let replaced = refresh.total.saturating_sub(refresh.targets.len() as u32);
        if replaced > refresh.replaced {
            refresh.replaced = replaced;
            refresh.progress_at = now;
        }
        // Progress counts when what was launched instead is ready.
        let is_settled = self.is_settled(now);
        let Some(refresh) = self.refresh.as_mut() else {
            return;
        };
        if let Some(until) = refresh.bake_until {
            if now >= until {
                self.end_refresh(RefreshStatus::Successful, None, now);
            }
            return;
        }
        if refresh.checkpoint < refresh.config.checkpoints.len()
            && refresh.status == RefreshStatus::InProgress
            && replaced >= refresh.allowed()
        {
            match refresh.paused_until {
                None if is_settled => {
                    refresh.paused_until = Some(now + refresh.config.checkpoint_delay);
                    refresh.progress_at = now;
                    self.generation += 1;
                    return;
                }
                Some(until) if now >= until => {
                    refresh.paused_until = None;
                    refresh.checkpoint += 1;
                    refresh.progress_at = now;
                    self.generation += 1;
                }
                _ => {
                    self.check_patience(now);
                    return;
                }
            }
        }
        let Some(refresh) = self.refresh.as_mut() else {
            return;
        };
        if refresh.targets.is_empty() {
            if is_settled {
                self.refresh_is_through(now);
            } else {
                self.check_patience(now);
            }
            return;
        }
        self.mark_targets(now);
        self.check_patience(now);
    }

    /// Nothing is on its way, and all that is wanted is ready.
    fn is_settled(&self, now: Instant) -> bool {
        self.kept() >= self.desired
            && self
                .instances
                .values()
                .filter(|instance| instance.is_keeper())
                .all(|instance| instance.is_ready(now))
    }

    fn refresh_is_through(&mut self, now: Instant) {
        let Some(refresh) = self.refresh.as_mut() else {
            return;
        };
        match refresh.status {
            RefreshStatus::RollbackInProgress => {
                self.end_refresh(RefreshStatus::RollbackSuccessful, None, now);
            }
            RefreshStatus::InProgress if !refresh.config.bake_time.is_zero() => {
                refresh.status = RefreshStatus::Baking;
                refresh.bake_until = Some(now + refresh.config.bake_time);
                self.generation += 1;
                self.tell_refresh();
            }
            _ => self.end_refresh(RefreshStatus::Successful, None, now),
        }
    }

    /// Marks as many targets as the checkpoint allows; the floor and the ceiling do the rest.
    fn mark_targets(&mut self, now: Instant) {
        let Some(refresh) = &self.refresh else {
            return;
        };
        let in_place = refresh.config.strategy == RefreshStrategy::ReplaceRootVolume;
        let (protected, standby) = (refresh.config.protected, refresh.config.standby);
        let mut under_way = 0;
        let mut free = Vec::new();
        let mut waits_for = None;
        for instance in refresh
            .targets
            .iter()
            .filter_map(|id| self.instances.get(id))
        {
            let is_on_standby = !instance.state.counts();
            if instance.marked == Some(Mark::Refresh) {
                under_way += 1;
            } else if is_on_standby && standby == StandbyInstances::Wait {
                waits_for = Some("instances on standby");
            } else if instance.protected && protected == ProtectedInstances::Wait {
                waits_for = Some("instances that are protected from scale-in");
            } else if instance.state != State::EnteringStandby {
                free.push((instance.id, instance.state));
            }
        }
        let room = refresh
            .allowed()
            .saturating_sub(refresh.replaced)
            .saturating_sub(under_way);
        let mut ready = self.ready(now);
        let (floor, _) = self.bounds(Mark::Refresh);
        let mut chosen = 0;
        for (id, state) in free {
            if chosen >= room {
                break;
            }
            if state == State::Standby {
                self.terminate(id, Cause::Refresh, now);
                chosen += 1;
            } else if in_place {
                let weight = self.instances.get(&id).map_or(0, |i| i.weight);
                if state == State::InService && ready >= floor.saturating_add(weight) {
                    ready -= weight;
                    chosen += 1;
                    self.replace_in_place(id, now);
                    if let Some(refresh) = &mut self.refresh {
                        refresh.targets.remove(&id);
                    }
                }
            } else {
                self.with(id, |instance| instance.marked = Some(Mark::Refresh));
                self.generation += 1;
                chosen += 1;
            }
        }
        if let Some(refresh) = &mut self.refresh
            && refresh.status == RefreshStatus::InProgress
        {
            let waits = under_way == 0 && chosen == 0;
            refresh.reason = waits_for
                .filter(|_| waits)
                .map(|whom| format!("waits for {whom}"));
        }
    }

    fn check_patience(&mut self, now: Instant) {
        let Some(refresh) = &self.refresh else {
            return;
        };
        if refresh.paused_until.is_none() && now >= refresh.progress_at + refresh.config.patience {
            let mut reason = format!("no progress within {:?}", refresh.config.patience);
            if let Some(waits) = &refresh.reason {
                reason = format!("{reason}: {waits}");
            }
            self.fail_refresh(reason, now);
        }
    }

    fn fail_refresh(&mut self, reason: String, now: Instant) {
        let Some(refresh) = &self.refresh else {
            return;
        };
        match refresh.status {
            RefreshStatus::RollbackInProgress => {
                self.end_refresh(RefreshStatus::RollbackFailed, Some(reason), now);
            }
            _ if refresh.config.auto_rollback => self.roll_back(reason, now),
            _ => self.end_refresh(RefreshStatus::Failed, Some(reason), now),
        }
    }

    fn roll_back(&mut self, reason: String, now: Instant) {
        self.unmark();
        let Some(refresh) = &self.refresh else {
            return;
        };
        let former = refresh.former;
        self.config.version = match self.config.template.resolve(refresh.former_choice) {
            Some(version) if version.number == former => refresh.former_choice,
            _ => VersionChoice::Number(former),
        };
        let mut config = refresh.config.clone();
        config.skip_matching = true;
        let targets = self.targets_of(&config, former);
        self.refresh_warm_pool(former, now);
        if let Some(refresh) = &mut self.refresh {
            std::mem::swap(&mut refresh.version, &mut refresh.former);
            refresh.status = RefreshStatus::RollbackInProgress;
            refresh.reason = Some(reason);
            refresh.total = targets.len() as u32;
            refresh.targets = targets;
            refresh.replaced = 0;
            refresh.paused_until = None;
            refresh.bake_until = None;
            refresh.progress_at = now;
        }
        self.generation += 1;
        self.tell_refresh();
    }

    fn end_refresh(&mut self, status: RefreshStatus, reason: Option<String>, now: Instant) {
        self.unmark();
        if let Some(refresh) = &mut self.refresh {
            refresh.status = status;
            if reason.is_some() || status == RefreshStatus::Successful {
                refresh.reason = reason;
            }
            refresh.ended = Some(now);
            refresh.paused_until = None;
            refresh.bake_until = None;
        }
        self.generation += 1;
        self.tell_refresh();
    }

    /// What was marked for the refresh stays.
    fn unmark(&mut self) {
        for instance in self.instances.values_mut() {
            if instance.marked == Some(Mark::Refresh) {
                instance.marked = None;
            }
        }
    }

    fn tell_refresh(&mut self) {
        if let Some(refresh) = &self.refresh {
            let notification = Notification::Refresh {
                group: self.name.clone(),
                refresh: refresh.id,
                status: refresh.status,
                reason: refresh.reason.clone(),
            };
            self.notify(notification);
        }
    }
}
