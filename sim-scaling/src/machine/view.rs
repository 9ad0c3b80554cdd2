//! What can be seen of the group.

use sim_core::sync::Arc;
use sim_core::time::Instant;

use super::instance::{Instance, Wait};
use super::{Machine, State};
use crate::message::{Activity, InstanceId, InstanceInfo, RefreshInfo};
use crate::stats::GroupStats;

impl Machine {
    /// All instances, by id.
    #[must_use]
    pub fn instances(&self) -> Vec<InstanceInfo> {
        self.instances.values().map(|i| self.info_of(i)).collect()
    }

    /// One instance.
    #[must_use]
    pub fn instance(&self, id: InstanceId) -> Option<InstanceInfo> {
        self.instances.get(&id).map(|i| self.info_of(i))
    }

    /// Whether the group has the instance.
    #[must_use]
    pub fn has(&self, id: InstanceId) -> bool {
        self.instances.contains_key(&id)
    }

    /// What the desired capacity was last changed by.
    #[must_use]
    pub fn last_change(&self) -> Option<&str> {
        self.change.as_deref()
    }

    /// When the last scaling activity ended; `None` while one goes on, or before the first.
    #[must_use]
    pub fn last_activity(&self) -> Option<Instant> {
        let is_going = self.summary(self.now).is_launching;
        self.scaled_at.filter(|_| !is_going)
    }

    fn info_of(&self, instance: &Instance) -> InstanceInfo {
        let zone = self.config.zones.get(instance.zone);
        InstanceInfo {
            id: instance.id,
            zone: Arc::from(zone.map_or("", |zone| zone.name.as_str())),
            kind: instance.kind.clone(),
            market: instance.market,
            weight: instance.weight,
            version: instance.version,
            state: instance.state,
            health: instance.health(),
            is_protected: instance.protected,
            launched_at: instance.launched_at,
            in_service_at: instance.in_service_at,
            warm_at: instance.warm_at,
            leaving: instance
                .leaving
                .clone()
                .or(instance.marked.map(|mark| mark.cause())),
            hooks: match &instance.wait {
                Wait::Hooks(waiting) => waiting.iter().map(|wait| wait.name.to_string()).collect(),
                _ => Vec::new(),
            },
            note: instance.note.clone(),
        }
    }

    /// The history, oldest first; at most [`GroupConfig::history`](crate::GroupConfig::history) of them.
    pub fn activities(&self) -> impl DoubleEndedIterator<Item = &Activity> {
        self.journal.entries()
    }

    /// The refresh that is going on, or the last one.
    #[must_use]
    pub fn refresh(&self) -> Option<RefreshInfo> {
        self.refresh.as_ref().map(|refresh| refresh.info())
    }

    /// Instances in service of which the roster should know, by id.
    pub fn registered(&self) -> impl Iterator<Item = InstanceId> + '_ {
        self.instances
            .values()
            .filter(|instance| instance.registered && instance.state == State::InService)
            .map(|instance| instance.id)
    }

    /// Instances in service, by id.
    pub fn in_service(&self) -> impl Iterator<Item = InstanceId> + '_ {
        self.instances
            .values()
            .filter(|instance| instance.state == State::InService)
            .map(|instance| instance.id)
    }

    /// Instances whose work the roster is waited for to finish, by id.
    pub fn draining(&self) -> impl Iterator<Item = InstanceId> + '_ {
        self.instances
            .values()
            .filter(|instance| matches!(instance.wait, Wait::Drain { .. }))
            .map(|instance| instance.id)
    }

    /// What is there, and what has been counted.
    #[must_use]
    pub fn stats(&self, now: Instant) -> GroupStats {
        GroupStats {
            min: self.config.min,
            max: self.config.max,
            desired: self.desired,
            warm_desired: self.warm_target() as u32,
            launches: self.counts.launches,
            launch_failures: self.counts.launch_failures,
            terminated: self.counts.terminated,
            ended_alone: self.counts.ended_alone,
            unhealthy: self.counts.unhealthy,
            detached: self.counts.detached,
            ..self.summary(now).tally
        }
    }
}
