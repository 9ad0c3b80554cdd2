//! What is asked of a group. Each request is carried out, as far as it can be without waiting, before it returns.

use sim_core::time::Instant;

use super::Group;
use super::drive::Core;
use crate::config::{
    HealthSource, HookResult, Kind, LifecycleHook, Process, RefreshConfig, TemplateVersion,
    VersionChoice, WarmPoolConfig,
};
use crate::error::{
    ConfigError, DeleteError, DesiredError, ExecuteError, HookError, InstanceError, RefreshError,
    UnknownName,
};
use crate::machine::{Cooldown, Decrement, Force, Input, Protection, Scaled, ZonalShift};
use crate::message::{Health, InstanceId, Notification};
use crate::metric::MetricError;
use crate::policy::{Enabled, PolicyConfig, PolicySetError};
use crate::provisioner::Provisioner;

impl<P: Provisioner> Group<P> {
    /// Does something under the lock, and carries out what follows.
    fn request<R>(&self, ask: impl FnOnce(&mut Core<P::Endpoint>, Instant) -> R) -> R {
        let now = self.shared.clock.now();
        let answer = ask(&mut self.shared.core.lock(), now);
        self.shared.changed(now);
        answer
    }

    /// Sets the desired capacity by hand.
    ///
    /// # Errors
    /// [`DesiredError`] outside of the limits, or while a cooldown lasts that is to be honoured.
    pub fn set_desired(&self, desired: u32, cooldown: Cooldown) -> Result<Scaled, DesiredError> {
        self.request(|core, now| {
            let scaled = core
                .machine
                .set_desired(desired, cooldown, "by hand", now)?;
            core.policies.applied(now, scaled.from, scaled.to, None);
            Ok(scaled)
        })
    }

    /// Sets the limits; the desired capacity follows where it lies outside.
    ///
    /// # Errors
    /// [`ConfigError`] when `min` is above `max`, or `max` too large.
    pub fn set_limits(&self, min: u32, max: u32) -> Result<(), ConfigError> {
        self.request(|core, now| {
            let from = core.machine.desired();
            core.machine.set_limits(min, max, now)?;
            core.policies
                .applied(now, from, core.machine.desired(), None);
            Ok(())
        })
    }

    /// Adds a policy, or replaces the one of that name, which starts anew.
    ///
    /// # Errors
    /// [`PolicySetError`] for a policy that is not valid, or one too many.
    pub fn put_policy(&self, name: &str, policy: PolicyConfig) -> Result<(), PolicySetError> {
        self.request(|core, _| core.policies.put(name, policy))
    }

    /// Removes a policy.
    ///
    /// # Errors
    /// [`UnknownName`] when there is none of that name.
    pub fn remove_policy(&self, name: &str) -> Result<(), UnknownName> {
        self.request(|core, _| {
            core.disabled.remove(name);
            match core.policies.remove(name) {
                Some(_) => Ok(()),
                None => Err(unknown("policy", name)),
            }
        })
    }

    /// Enables or disables a policy.
    ///
    /// # Errors
    /// [`UnknownName`] when there is none of that name.
    pub fn set_policy_enabled(&self, name: &str, enabled: Enabled) -> Result<(), UnknownName> {
        self.request(|core, _| {
            core.policies
                .set_enabled(name, enabled)
                .map_err(|_| unknown("policy", name))?;
            match enabled {
                Enabled::Yes => core.disabled.remove(name),
                Enabled::No => core.disabled.insert(name.to_owned()),
            };
            Ok(())
        })
    }

    /// Carries out one policy now, by itself and on its present metrics (`ExecutePolicy`); tells what became of it.
    ///
    /// # Errors
    /// [`ExecuteError`] for an unknown policy, or while a cooldown lasts that is to be honoured.
    pub fn execute_policy(&self, name: &str, cooldown: Cooldown) -> Result<Scaled, ExecuteError> {
        let clock = self.shared.clock.clone();
        self.request(|core, now| core.execute(name, cooldown, now, &clock))
    }

    /// Carries out a simple or step policy now for a breach told by hand, whatever its alarm says: `ExecutePolicy` with
    /// `MetricValue` and `BreachThreshold`. A step policy takes the step for `value` less `threshold`, a simple one its only
    /// adjustment; both start from the desired capacity.
    ///
    /// # Errors
    /// [`ExecuteError`] for an unknown policy, one that has no adjustment for it, or while a cooldown lasts that is to be
    /// honoured.
    pub fn execute_breach(
        &self,
        name: &str,
        value: f64,
        threshold: f64,
        cooldown: Cooldown,
    ) -> Result<Scaled, ExecuteError> {
        self.request(|core, now| core.execute_breach(name, (value, threshold), cooldown, now))
    }

    /// Records a metric of the caller's own.
    ///
    /// # Errors
    /// [`MetricError`] for a value that is no number, one older than the last, a bad name, or too many metrics.
    pub fn record(&self, metric: &str, value: f64) -> Result<(), MetricError> {
        let now = self.shared.clock.now();
        self.shared.core.lock().metrics.record(metric, now, value)
    }

    /// Tells an instance's own value of the metric that policies read by instance, such as its utilisation; it counts for two
    /// metric periods.
    ///
    /// # Errors
    /// [`InstanceError::Unknown`]. A value that is no finite number is as good as none.
    pub fn record_instance(&self, id: InstanceId, value: f64) -> Result<(), InstanceError> {
        let now = self.shared.clock.now();
        let mut core = self.shared.core.lock();
        if !core.machine.has(id) {
            return Err(InstanceError::Unknown { id });
        }
        if value.is_finite() {
            core.samples.insert(id, (now, value));
        }
        Ok(())
    }

    /// Asks the policies now, beside their period.
    pub fn decide(&self) {
        self.request(|core, now| core.ask_policies_at(now));
    }

    /// Suspends processes.
    pub fn suspend(&self, processes: &[Process]) {
        self.request(|core, now| core.machine.suspend(processes, now));
    }

    /// Resumes processes.
    pub fn resume(&self, processes: &[Process]) {
        self.request(|core, now| core.machine.resume(processes, now));
    }

    /// Launches nothing more in a zone, or does again. Instances that stand there stay.
    ///
    /// # Errors
    /// [`UnknownName`] for a zone that the group has not.
    pub fn shift_zone(&self, zone: &str, shift: ZonalShift) -> Result<(), UnknownName> {
        self.request(|core, now| core.machine.shift_zone(zone, shift, now))
    }

    /// Says that an instance is fit, or not (`SetInstanceHealth`); the grace period is respected.
    ///
    /// # Errors
    /// [`InstanceError::Unknown`].
    pub fn set_health(
        &self,
        id: InstanceId,
        health: Health,
        source: HealthSource,
    ) -> Result<(), InstanceError> {
        self.request(|core, now| {
            if !core.machine.has(id) {
                return Err(InstanceError::Unknown { id });
            }
            core.machine.step(Input::Health { id, source, health }, now);
            Ok(())
        })
    }

    /// Says whether an alarm fires, for an instance refresh that minds it.
    pub fn set_alarm(&self, name: &str, fires: Fires) {
        let name = name.to_owned();
        let fires = fires == Fires::Yes;
        self.request(|core, now| core.machine.step(Input::Alarm { name, fires }, now));
    }

    /// Puts instances on standby: they run, out of service.
    ///
    /// # Errors
    /// [`InstanceError`] for one that is not in service, or a desired capacity below the least. Nothing changed then.
    pub fn enter_standby(
        &self,
        ids: &[InstanceId],
        decrement: Decrement,
    ) -> Result<(), InstanceError> {
        self.request(|core, now| core.machine.enter_standby(ids, decrement, now))
    }

    /// Takes instances back from standby; the desired capacity goes up with them.
    ///
    /// # Errors
    /// [`InstanceError`] for one that is not on standby, or a desired capacity above the most. Nothing changed then.
    pub fn exit_standby(&self, ids: &[InstanceId]) -> Result<(), InstanceError> {
        self.request(|core, now| core.machine.exit_standby(ids, now))
    }

    /// Gives instances away: they finish their work, leave the roster, and go on without the group.
    ///
    /// # Errors
    /// [`InstanceError`] for one in a wrong state, or a desired capacity below the least. Nothing changed then.
    pub fn detach(&self, ids: &[InstanceId], decrement: Decrement) -> Result<(), InstanceError> {
        self.request(|core, now| core.machine.detach(ids, decrement, now))
    }

    /// Takes in an instance that runs already: one given away before, or one from elsewhere with an id from
    /// [`InstanceId::FOREIGN`] on that the provisioner [adopts](Provisioner::adopt).
    ///
    /// # Errors
    /// [`InstanceError`] for an id in use, an unknown zone, a desired capacity above the most, or a provisioner that does not
    /// take it. Nothing changed then.
    pub fn attach(&self, id: InstanceId, zone: &str) -> Result<(), InstanceError> {
        self.shared.core.lock().machine.check_attach(id, zone)?;
        // Foreign code, called without the lock; what has changed meanwhile is checked again.
        let endpoint =
            self.shared
                .provisioner
                .adopt(id)
                .map_err(|refused| InstanceError::Refused {
                    id,
                    reason: refused.reason,
                })?;
        let attached = self.request(|core, now| {
            core.machine.check_attach(id, zone)?;
            core.endpoints.insert(id, endpoint);
            core.machine.attach(id, zone, now)
        });
        if attached.is_err() {
            self.shared.provisioner.release(id);
        }
        attached
    }

    /// Ends an instance, protected or not.
    ///
    /// # Errors
    /// [`InstanceError`] for one that is unknown, or a desired capacity below the least.
    pub fn terminate(&self, id: InstanceId, decrement: Decrement) -> Result<(), InstanceError> {
        self.request(|core, now| core.machine.terminate_instance(id, decrement, now))
    }

    /// Protects instances from scale-in, or does not any more.
    ///
    /// # Errors
    /// [`InstanceError::Unknown`] for one that the group has not. Nothing changed then.
    pub fn protect(&self, ids: &[InstanceId], protection: Protection) -> Result<(), InstanceError> {
        self.request(|core, now| core.machine.protect(ids, protection, now))
    }

    /// Answers a hook.
    ///
    /// # Errors
    /// [`HookError`] when the instance does not wait for that hook.
    pub fn complete_hook(
        &self,
        id: InstanceId,
        hook: &str,
        result: HookResult,
    ) -> Result<(), HookError> {
        self.request(|core, now| core.machine.complete_hook(id, hook, result, now))
    }

    /// Begins a hook's time anew; tells when it is due then.
    ///
    /// # Errors
    /// [`HookError`] when the instance does not wait for that hook.
    pub fn heartbeat(&self, id: InstanceId, hook: &str) -> Result<Instant, HookError> {
        self.request(|core, now| core.machine.heartbeat(id, hook, now))
    }

    /// Adds a hook, or replaces the one of that name.
    ///
    /// # Errors
    /// [`ConfigError`] for a hook that is not valid, or one too many.
    pub fn put_hook(&self, hook: LifecycleHook) -> Result<(), ConfigError> {
        self.request(|core, _| core.machine.put_hook(hook))
    }

    /// Removes a hook; who waits for it goes on.
    ///
    /// # Errors
    /// [`UnknownName`] when there is none of that name.
    pub fn delete_hook(&self, name: &str) -> Result<(), UnknownName> {
        self.request(|core, now| core.machine.delete_hook(name, now))
    }

    /// Gives the group a warm pool, another one, or none.
    ///
    /// # Errors
    /// [`ConfigError`] for a pool that is not valid.
    pub fn set_warm_pool(&self, pool: Option<WarmPoolConfig>) -> Result<(), ConfigError> {
        self.request(|core, now| core.machine.set_warm_pool(pool, now))
    }

    /// Adds a version to the launch template; tells its number.
    pub fn add_version(&self, version: TemplateVersion) -> u32 {
        self.request(|core, _| core.machine.add_version(version))
    }

    /// Chooses the template's default version.
    ///
    /// # Errors
    /// [`ConfigError::NoVersion`].
    pub fn set_default_version(&self, number: u32) -> Result<(), ConfigError> {
        self.request(|core, _| core.machine.set_default_version(number))
    }

    /// Chooses the version that is launched from now on.
    ///
    /// # Errors
    /// [`ConfigError::NoVersion`].
    pub fn set_version(&self, choice: VersionChoice) -> Result<(), ConfigError> {
        self.request(|core, _| core.machine.set_version(choice))
    }

    /// Takes new prices and depths of a kind, by its name.
    ///
    /// # Errors
    /// [`UnknownName`] when the group launches no such kind.
    pub fn set_offer(&self, kind: &Kind) -> Result<(), UnknownName> {
        self.request(|core, now| core.machine.set_offer(kind, now))
    }

    /// Begins an instance refresh; tells its number.
    ///
    /// # Errors
    /// [`RefreshError`] when one is going on, or the configuration is not valid.
    pub fn start_refresh(&self, config: RefreshConfig) -> Result<u64, RefreshError> {
        self.request(|core, now| core.machine.start_refresh(config, now))
    }

    /// Ends the instance refresh; what was replaced stays.
    ///
    /// # Errors
    /// [`RefreshError::NotActive`].
    pub fn cancel_refresh(&self) -> Result<u64, RefreshError> {
        self.request(|core, now| core.machine.cancel_refresh(now))
    }

    /// Brings the former version back.
    ///
    /// # Errors
    /// [`RefreshError`] when no refresh is going on, or it is rolled back already.
    pub fn rollback_refresh(&self) -> Result<u64, RefreshError> {
        self.request(|core, now| core.machine.rollback_refresh(now))
    }

    /// Sends a test to the sink of notifications.
    pub fn test_notification(&self) {
        self.request(|core, _| {
            let group = sim_core::sync::Arc::from(core.machine.config().name.as_str());
            core.post_notification(Notification::Test { group });
        });
    }

    /// Deletes the group. With [`Force::Yes`] all instances are ended, whatever protects them; it [is
    /// gone](Self::is_gone) when the last has.
    ///
    /// # Errors
    /// [`DeleteError`] where it is protected, or has instances and force is not used.
    pub fn delete(&self, force: Force) -> Result<(), DeleteError> {
        let deleted = self.request(|core, now| core.machine.delete(force, now));
        self.shared.event.broadcast();
        deleted
    }
}

/// Whether an alarm fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fires {
    /// It does.
    Yes,
    /// It does not.
    No,
}

fn unknown(what: &'static str, name: &str) -> UnknownName {
    UnknownName {
        what,
        name: name.to_owned(),
    }
}
