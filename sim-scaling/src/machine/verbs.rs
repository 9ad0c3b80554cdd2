//! What is asked of the group. Each verb checks all before it changes anything.

use std::collections::BTreeSet;

use sim_core::time::Instant;

use super::instance::Instance;
use super::placement::Place;
use super::{Machine, Mark, State, key};
use crate::config::{
    DeletionProtection, LaunchTemplate, MAX_SIZE, MAX_VERSIONS, Process, TemplateVersion,
    VersionChoice,
};
use crate::error::{ConfigError, DeleteError, DesiredError, InstanceError, UnknownName};
use crate::message::{ActivityKind, Cause, InstanceId, Market, Obstacle};

/// Whether a change of the desired capacity waits for the cooldown (`HonorCooldown`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cooldown {
    /// It is refused while the cooldown lasts.
    Honor,
    /// It does not ask.
    Ignore,
}

/// Whether the desired capacity goes down with an instance that leaves (`ShouldDecrementDesiredCapacity`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decrement {
    /// It does: nothing is launched instead.
    Yes,
    /// It does not: the group launches a replacement.
    No,
}

/// Whether traffic is kept from a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZonalShift {
    /// It is: nothing is launched there.
    Away,
    /// It is not any more.
    Back,
}

/// Whether scale-in leaves an instance alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// It does.
    On,
    /// It does not.
    Off,
}

/// Whether a group is deleted with its instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It is.
    Yes,
    /// Only when it has none.
    No,
}

/// What became of a wish for capacity.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scaled {
    /// The desired capacity before.
    pub from: u32,
    /// And after.
    pub to: u32,
    /// What kept it from what was wanted.
    pub obstacle: Option<Obstacle>,
}

impl Machine {
    /// Sets the desired capacity (`SetDesiredCapacity`).
    ///
    /// # Errors
    /// [`DesiredError`] outside of the limits, or while a cooldown lasts that is to be honoured.
    pub fn set_desired(
        &mut self,
        desired: u32,
        cooldown: Cooldown,
        by: &str,
        now: Instant,
    ) -> Result<Scaled, DesiredError> {
        let (min, max) = (self.config.min, self.config.max);
        if desired < min || desired > max {
            return Err(DesiredError::OutOfRange { desired, min, max });
        }
        if cooldown == Cooldown::Honor && now < self.cooldown_until {
            return Err(DesiredError::CoolingDown {
                until: self.cooldown_until,
            });
        }
        Ok(self.scale(desired, by, now))
    }

    /// Follows a decision: sets the desired capacity as near to `wanted` as the limits allow.
    pub fn scale(&mut self, wanted: u32, by: &str, now: Instant) -> Scaled {
        let (min, max) = (self.config.min, self.config.max);
        let from = self.desired;
        let to = wanted.clamp(min, max);
        let obstacle = if wanted > max {
            Some(Obstacle::AtMax { wanted, max })
        } else if wanted < min {
            Some(Obstacle::AtMin { wanted, min })
        } else {
            None
        };
        if to != from {
            self.change = Some(format!("{by}: {from} to {to}"));
            self.desired = to;
            self.cooldown_until = now + self.config.default_cooldown;
            self.generation += 1;
        }
        self.settle(now);
        Scaled { from, to, obstacle }
    }

    /// Until when the cooldown lasts.
    #[must_use]
    pub fn cooldown_until(&self) -> Instant {
        self.cooldown_until
    }

    /// Sets the limits; the desired capacity follows where it lies outside.
    ///
    /// # Errors
    /// [`ConfigError`] when `min` is above `max`, or `max` above [`MAX_SIZE`]. Nothing changed then.
    pub fn set_limits(&mut self, min: u32, max: u32, now: Instant) -> Result<(), ConfigError> {
        for (field, value, most) in [("max", max, MAX_SIZE), ("min", min, max)] {
            if value > most {
                return Err(ConfigError::OutOfRange {
                    field,
                    value: value.into(),
                    least: 0,
                    most: most.into(),
                });
            }
        }
        (self.config.min, self.config.max) = (min, max);
        let desired = self.desired.clamp(min, max);
        if desired == self.desired {
            self.settle(now);
        } else {
            self.scale(desired, "the limits changed", now);
        }
        Ok(())
    }

    /// Suspends processes.
    pub fn suspend(&mut self, processes: &[Process], now: Instant) {
        self.suspended.extend(processes.iter().map(|&p| key(p)));
        // What was to be replaced for their sake stays.
        for instance in self.instances.values_mut() {
            let process = match instance.marked {
                Some(Mark::Refresh) => Process::InstanceRefresh,
                Some(Mark::Rebalance(_)) => Process::AzRebalance,
                Some(Mark::Unhealthy(_)) => Process::ReplaceUnhealthy,
                _ => continue,
            };
            if self.suspended.contains(&key(process)) {
                instance.marked = None;
            }
        }
        self.settle(now);
    }

    /// Resumes processes.
    pub fn resume(&mut self, processes: &[Process], now: Instant) {
        for &process in processes {
            self.suspended.remove(&key(process));
        }
        self.settle(now);
    }

    /// Launches nothing more in a zone, or does again (a zonal shift). Instances that stand there stay.
    ///
    /// # Errors
    /// [`UnknownName`] for a zone that the group has not.
    pub fn shift_zone(
        &mut self,
        zone: &str,
        shift: ZonalShift,
        now: Instant,
    ) -> Result<(), UnknownName> {
        let at = self.zone_index(zone).ok_or_else(|| UnknownName {
            what: "zone",
            name: zone.to_owned(),
        })?;
        if shift == ZonalShift::Away {
            self.shifted.insert(at);
        } else {
            self.shifted.remove(&at);
        }
        self.settle(now);
        Ok(())
    }

    fn zone_index(&self, zone: &str) -> Option<usize> {
        self.config.zones.iter().position(|z| z.name == zone)
    }

    /// Puts instances on standby: they run, out of service.
    ///
    /// # Errors
    /// [`InstanceError`] for one that is not in service, or when the desired capacity would go below the least.
    pub fn enter_standby(
        &mut self,
        ids: &[InstanceId],
        decrement: Decrement,
        now: Instant,
    ) -> Result<(), InstanceError> {
        let ids = self.check_all(ids, &[State::EnteringStandby])?;
        self.check_decrement(&ids, decrement)?;
        self.decrement(&ids, decrement, "instances went on standby");
        for id in ids {
            self.go(id, State::EnteringStandby);
            self.with(id, |instance| instance.marked = None);
            self.begin_activity(id, ActivityKind::Withdraw, &Cause::Requested, now);
            if !self.leave_roster(id, now) {
                self.after_drain(id, now);
            }
        }
        self.settle(now);
        Ok(())
    }

    /// Takes instances back from standby; the desired capacity goes up with them.
    ///
    /// # Errors
    /// [`InstanceError`] for one that is not on standby, or when the desired capacity would go above the most.
    pub fn exit_standby(&mut self, ids: &[InstanceId], now: Instant) -> Result<(), InstanceError> {
        let ids = self.check_all(ids, &[State::Pending])?;
        if let Some(&id) = ids
            .iter()
            .find(|id| self.instances.get(id).map(|i| i.state) != Some(State::Standby))
        {
            let from = self
                .instances
                .get(&id)
                .map_or(State::Terminated, |i| i.state);
            let transition = super::IllegalTransition {
                from,
                to: State::Pending,
            };
            return Err(InstanceError::State { id, transition });
        }
        let units = self.units_of(&ids);
        self.raise(units, "instances came back from standby")?;
        for id in ids {
            self.go(id, State::Pending);
            self.begin_activity(id, ActivityKind::Launch, &Cause::Requested, now);
            self.enter_service(id, now);
        }
        self.settle(now);
        Ok(())
    }

    /// Gives instances away: they finish their work, leave the roster, and go on without the group.
    ///
    /// # Errors
    /// [`InstanceError`] for one that is neither in service nor on standby, or when the desired capacity would go below the
    /// least.
    pub fn detach(
        &mut self,
        ids: &[InstanceId],
        decrement: Decrement,
        now: Instant,
    ) -> Result<(), InstanceError> {
        let ids = self.check_all(ids, &[State::Detaching])?;
        let counting: Vec<_> = ids
            .iter()
            .copied()
            .filter(|id| self.instances.get(id).is_some_and(|i| i.state.counts()))
            .collect();
        self.check_decrement(&counting, decrement)?;
        self.decrement(&counting, decrement, "instances were detached");
        for id in ids {
            self.go(id, State::Detaching);
            self.begin_activity(id, ActivityKind::Withdraw, &Cause::Requested, now);
            if !self.leave_roster(id, now) {
                self.after_drain(id, now);
            }
        }
        self.settle(now);
        Ok(())
    }

    /// Takes in an instance that runs already, in a zone, and raises the desired capacity by it.
    ///
    /// Its id is one that this group has given away, or one from [`InstanceId::FOREIGN`] on.
    ///
    /// # Errors
    /// [`InstanceError`] for an id that is in use or not yet given, an unknown zone, or a desired capacity above the most.
    pub fn attach(
        &mut self,
        id: InstanceId,
        zone: &str,
        now: Instant,
    ) -> Result<(), InstanceError> {
        self.check_attach(id, zone)?;
        let zone = self.zone_index(zone).unwrap_or_default();
        let place = Place {
            zone,
            pool: 0,
            market: Market::OnDemand,
        };
        let mut instance: Instance = self.record(id, place, now);
        instance.started_at = Some(now);
        self.raise(instance.weight, "an instance was attached")?;
        self.instances.insert(id, instance);
        self.begin_activity(id, ActivityKind::Launch, &Cause::Attached, now);
        self.arrive(id, now);
        self.settle(now);
        Ok(())
    }

    /// Whether [`attach`](Self::attach) would take an instance.
    ///
    /// # Errors
    /// As it.
    pub fn check_attach(&self, id: InstanceId, zone: &str) -> Result<(), InstanceError> {
        if self.instances.contains_key(&id) {
            return Err(InstanceError::Known { id });
        }
        if id < InstanceId::FOREIGN && id.number() >= self.next_id {
            return Err(InstanceError::Unknown { id });
        }
        if self.zone_index(zone).is_none() {
            return Err(InstanceError::UnknownZone {
                zone: zone.to_owned(),
            });
        }
        self.check_raise(self.units(0)).map(|_| ())
    }

    /// Ends an instance, protected or not.
    ///
    /// # Errors
    /// [`InstanceError`] for one that is unknown, or when the desired capacity would go below the least.
    pub fn terminate_instance(
        &mut self,
        id: InstanceId,
        decrement: Decrement,
        now: Instant,
    ) -> Result<(), InstanceError> {
        let instance = self
            .instances
            .get(&id)
            .ok_or(InstanceError::Unknown { id })?;
        let counting = if instance.state.counts() {
            vec![id]
        } else {
            Vec::new()
        };
        self.check_decrement(&counting, decrement)?;
        self.decrement(&counting, decrement, "an instance was terminated");
        self.terminate(id, Cause::Requested, now);
        self.settle(now);
        Ok(())
    }

    /// Protects instances from scale-in, or does not any more.
    ///
    /// # Errors
    /// [`InstanceError::Unknown`] for one that the group has not.
    pub fn protect(
        &mut self,
        ids: &[InstanceId],
        protection: Protection,
        now: Instant,
    ) -> Result<(), InstanceError> {
        let ids = self.check_all(ids, &[])?;
        let protected = protection == Protection::On;
        let refreshes = self.refreshes_protected();
        for id in ids {
            self.with(id, |instance| {
                instance.protected = protected;
                // What was marked for the zones', the age's or a refresh's sake stays.
                let yields = match instance.marked {
                    Some(Mark::Rebalance(_) | Mark::Lifetime) => true,
                    Some(Mark::Refresh) => !refreshes,
                    _ => false,
                };
                if protected && yields {
                    instance.marked = None;
                }
            });
        }
        self.settle(now);
        Ok(())
    }

    /// Adds a version to the template; tells its number. Beyond [`MAX_VERSIONS`] the oldest that is not in use goes.
    pub fn add_version(&mut self, version: TemplateVersion) -> u32 {
        let template: &mut LaunchTemplate = &mut self.config.template;
        let number = template
            .versions
            .last()
            .map_or(1, |last| last.number.saturating_add(1));
        if template.versions.len() >= MAX_VERSIONS {
            let in_use: BTreeSet<u32> = self
                .instances
                .values()
                .map(|instance| instance.version)
                .chain([template.default_version])
                .chain(match self.config.version {
                    VersionChoice::Number(number) => Some(number),
                    _ => None,
                })
                .collect();
            if let Some(at) = template
                .versions
                .iter()
                .position(|version| !in_use.contains(&version.number))
            {
                template.versions.remove(at);
            }
        }
        template
            .versions
            .push(TemplateVersion { number, ..version });
        number
    }

    /// Chooses the template's default version.
    ///
    /// # Errors
    /// [`ConfigError::NoVersion`] when there is none of that number.
    pub fn set_default_version(&mut self, number: u32) -> Result<(), ConfigError> {
        self.check_version("template.default_version", VersionChoice::Number(number))?;
        self.config.template.default_version = number;
        Ok(())
    }

    /// Chooses the version that is launched from now on. Instances that are there stay; a refresh replaces them.
    ///
    /// # Errors
    /// [`ConfigError::NoVersion`] when there is no such version.
    pub fn set_version(&mut self, choice: VersionChoice) -> Result<(), ConfigError> {
        self.check_version("version", choice)?;
        self.config.version = choice;
        Ok(())
    }

    fn check_version(&self, field: &'static str, choice: VersionChoice) -> Result<(), ConfigError> {
        match self.config.template.resolve(choice) {
            Some(_) => Ok(()),
            None => Err(ConfigError::NoVersion { field, choice }),
        }
    }

    /// Takes new prices and depths of a kind, by name.
    ///
    /// # Errors
    /// [`UnknownName`] when the group launches no such kind. Numbers that are no numbers are left as they were.
    pub fn set_offer(
        &mut self,
        kind: &crate::config::Kind,
        now: Instant,
    ) -> Result<(), UnknownName> {
        let found = self
            .config
            .mixed
            .iter_mut()
            .flat_map(|mixed| &mut mixed.overrides)
            .find(|over| over.kind.name == kind.name);
        let Some(over) = found else {
            return Err(UnknownName {
                what: "kind",
                name: kind.name.clone(),
            });
        };
        let is_number = |value: &f64| value.is_finite() && *value >= 0.0;
        for (old, new) in [
            (&mut over.kind.on_demand_price, kind.on_demand_price),
            (&mut over.kind.spot_price, kind.spot_price),
            (&mut over.kind.spot_depth, kind.spot_depth),
        ] {
            if is_number(&new) {
                *old = new;
            }
        }
        self.settle(now);
        Ok(())
    }

    /// Deletes the group: with force all instances are ended, whatever protects them; without, there must be none.
    ///
    /// # Errors
    /// [`DeleteError`] where the group is protected or in use.
    pub fn delete(&mut self, force: Force, now: Instant) -> Result<(), DeleteError> {
        let instances = self.instances.len();
        match self.config.deletion_protection {
            DeletionProtection::PreventAllDeletion => return Err(DeleteError::Protected),
            DeletionProtection::PreventForceDeletion if force == Force::Yes => {
                return Err(DeleteError::Protected);
            }
            _ => {}
        }
        if instances > 0 && force == Force::No {
            return Err(DeleteError::InUse { instances });
        }
        self.deleted = true;
        self.desired = 0;
        (self.config.min, self.config.max) = (0, 0);
        let ids: Vec<_> = self.instances.keys().copied().collect();
        for id in ids {
            self.terminate(id, Cause::Deleted, now);
        }
        self.generation += 1;
        self.settle(now);
        Ok(())
    }

    /// Whether the group was deleted and nothing is left of it.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.deleted && self.instances.is_empty()
    }

    /// Whether the group was deleted.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.deleted
    }

    /// The instances, each once, all of them able to make one of the moves.
    fn check_all(
        &self,
        ids: &[InstanceId],
        moves: &[State],
    ) -> Result<BTreeSet<InstanceId>, InstanceError> {
        for &id in ids {
            let instance = self
                .instances
                .get(&id)
                .ok_or(InstanceError::Unknown { id })?;
            for &to in moves {
                instance
                    .state
                    .to(to)
                    .map_err(|transition| InstanceError::State { id, transition })?;
            }
        }
        Ok(ids.iter().copied().collect())
    }

    fn units_of<'a>(&self, ids: impl IntoIterator<Item = &'a InstanceId>) -> u32 {
        ids.into_iter()
            .filter_map(|id| self.instances.get(id))
            .map(|instance| instance.weight)
            .fold(0, u32::saturating_add)
    }

    fn check_decrement<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a InstanceId>,
        decrement: Decrement,
    ) -> Result<(), InstanceError> {
        let units = self.units_of(ids);
        let desired = i64::from(self.desired) - i64::from(units);
        let min = self.config.min;
        if decrement == Decrement::Yes && desired < i64::from(min) {
            return Err(InstanceError::BelowMin { desired, min });
        }
        Ok(())
    }

    fn decrement<'a>(
        &mut self,
        ids: impl IntoIterator<Item = &'a InstanceId>,
        decrement: Decrement,
        by: &str,
    ) {
        let units = self.units_of(ids);
        if decrement == Decrement::Yes && units > 0 {
            let to = self.desired.saturating_sub(units);
            self.change = Some(format!("{by}: {} to {to}", self.desired));
            self.desired = to;
            self.generation += 1;
        }
    }

    fn check_raise(&self, units: u32) -> Result<u32, InstanceError> {
        let desired = u64::from(self.desired) + u64::from(units);
        let max = self.config.max;
        if desired > u64::from(max) {
            return Err(InstanceError::AboveMax { desired, max });
        }
        Ok(desired as u32)
    }

    fn raise(&mut self, units: u32, by: &str) -> Result<(), InstanceError> {
        let to = self.check_raise(units)?;
        self.change = Some(format!("{by}: {} to {to}", self.desired));
        self.desired = to;
        self.generation += 1;
        Ok(())
    }
}
