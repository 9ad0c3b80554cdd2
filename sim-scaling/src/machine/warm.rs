//! The warm pool: instances that wait prepared.

use sim_core::time::Instant;

use super::instance::{Mark, Wait};
use super::placement::Purpose;
use super::{Effect, Machine, State};
use crate::config::{Process, WarmPoolConfig, WarmState};
use crate::error::ConfigError;
use crate::message::{ActivityKind, ActivityStatus, Cause, InstanceId};

impl Machine {
    /// How many instances the pool should have.
    pub(super) fn warm_target(&self) -> usize {
        match self.config.warm_pool {
            Some(pool) if !self.deleted => {
                let prepared = pool.max_prepared.unwrap_or(self.config.max);
                prepared.saturating_sub(self.desired).max(pool.min_size) as usize
            }
            _ => 0,
        }
    }

    fn warm_count(&self) -> usize {
        self.instances
            .values()
            .filter(|instance| instance.state.is_warm_ready() || instance.state.is_warm_pending())
            .count()
    }

    /// Fills the pool, or lets go of what is too much.
    pub(super) fn keep_warm(&mut self, now: Instant) {
        let target = self.warm_target();
        let terminates = self.deleted || !self.is_suspended(Process::Terminate);
        while terminates && self.warm_count() > target {
            // What is not ready yet goes first, then the newest.
            let last = self
                .instances
                .values()
                .filter(|i| i.state.is_warm_ready() || i.state.is_warm_pending())
                .max_by_key(|i| (i.state.is_warm_pending(), i.id))
                .map(|instance| instance.id);
            let Some(id) = last else {
                return;
            };
            self.terminate(id, Cause::WarmPoolShrinks, now);
        }
        let Some(pool) = self.config.warm_pool else {
            return;
        };
        if self.is_suspended(Process::Launch) || self.kept() < self.desired {
            return;
        }
        while self.warm_count() < target && !self.is_overpopulated() {
            match self.place(Purpose::WarmPool, now) {
                Ok(place) => self.create(place, Some(pool.state), now),
                Err(obstacle) => {
                    self.obstacles.extend(obstacle);
                    return;
                }
            }
        }
    }

    /// Takes one that waits, of the zone that needs it most. False when none does.
    pub(super) fn take_warm(&mut self, now: Instant) -> bool {
        // What moves to another zone is not replaced by one of the same.
        let towards = self.instances.values().find_map(|i| match i.marked {
            Some(Mark::Rebalance(zone)) => Some(zone),
            _ => None,
        });
        let loads: Vec<u32> = (0..self.config.zones.len())
            .map(|zone| self.load(zone))
            .collect();
        let chosen = self
            .instances
            .values()
            .filter(|instance| {
                instance.state.is_warm_ready()
                    && !self.shifted.contains(&instance.zone)
                    && towards.is_none_or(|zone| instance.zone == zone)
            })
            .min_by_key(|instance| {
                let load = loads.get(instance.zone).copied().unwrap_or(0);
                (load, instance.launched_at, instance.id)
            })
            .map(|instance| (instance.id, instance.state));
        let Some((id, state)) = chosen else {
            return false;
        };
        if !self.go(id, State::Pending) {
            return false;
        }
        self.with(id, |instance| instance.failing = 0);
        self.begin_activity(id, ActivityKind::Launch, &Cause::Missing, now);
        if state == State::WarmedRunning {
            self.arrive(id, now);
        } else {
            let until = now + self.config.launch_timeout;
            self.wait(id, Wait::Start { until });
            self.effects.push_back(Effect::Resume(id));
        }
        true
    }

    /// Puts an instance that is too much back into the pool, where that is wanted and there is room.
    pub(super) fn return_to_pool(&mut self, id: InstanceId, now: Instant) -> bool {
        let Some(pool) = self.config.warm_pool else {
            return false;
        };
        let is_working = self
            .instances
            .get(&id)
            .is_some_and(|instance| instance.state == State::InService && !instance.gone);
        if !pool.reuse_on_scale_in || !is_working || self.warm_count() >= self.warm_target() {
            return false;
        }
        self.go(id, State::WarmedPending);
        self.begin_activity(id, ActivityKind::Withdraw, &Cause::ScaleIn, now);
        if !self.leave_roster(id, now) {
            self.after_drain(id, now);
        }
        true
    }

    /// It runs, and its hooks have answered: it is stopped, frozen, or waits as it is.
    pub(super) fn settle_in_pool(&mut self, id: InstanceId, now: Instant) {
        match self.config.warm_pool.map(|pool| pool.state) {
            None => self.terminate(id, Cause::WarmPoolShrinks, now),
            Some(WarmState::Running) => self.enter_pool(id, WarmState::Running, now),
            Some(how) => {
                let until = now + self.config.launch_timeout;
                self.wait(id, Wait::Pause { until, how });
                self.effects.push_back(Effect::Pause(id, how));
                self.generation += 1;
            }
        }
    }

    pub(super) fn paused(&mut self, id: InstanceId, now: Instant) {
        if let Some(instance) = self.instances.get(&id)
            && let Wait::Pause { how, .. } = instance.wait
        {
            self.enter_pool(id, how, now);
        }
    }

    fn enter_pool(&mut self, id: InstanceId, how: WarmState, now: Instant) {
        let to = match how {
            WarmState::Stopped => State::WarmedStopped,
            WarmState::Running => State::WarmedRunning,
            WarmState::Hibernated => State::WarmedHibernated,
        };
        self.go(id, to);
        self.progress(id, ActivityStatus::Successful, None, now);
    }

    /// Gives the group a warm pool, another one, or none; one that is taken away is emptied.
    ///
    /// # Errors
    /// [`ConfigError`] for a pool that is not valid. Nothing changed then.
    pub fn set_warm_pool(
        &mut self,
        pool: Option<WarmPoolConfig>,
        now: Instant,
    ) -> Result<(), ConfigError> {
        let former = std::mem::replace(&mut self.config.warm_pool, pool);
        if let Err(error) = self.config.check() {
            self.config.warm_pool = former;
            return Err(error);
        }
        self.settle(now);
        Ok(())
    }
}
