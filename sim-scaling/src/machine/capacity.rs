//! How much there is, how much there should be, launching what is missing, ending what is too much.

use sim_core::time::Instant;

use super::Machine;
use super::instance::Mark;
use super::placement::Purpose;
use crate::config::{MaintenancePolicy, Process};
use crate::message::{Cause, Obstacle};

impl Machine {
    /// Units of those that count and stay.
    pub(super) fn kept(&self) -> u32 {
        self.instances
            .values()
            .filter(|instance| instance.is_keeper())
            .map(|instance| instance.weight)
            .fold(0, u32::saturating_add)
    }

    /// Units of all that count.
    pub(super) fn counted(&self) -> u32 {
        self.instances
            .values()
            .filter(|instance| instance.state.counts())
            .map(|instance| instance.weight)
            .fold(0, u32::saturating_add)
    }

    /// Units in service and warm.
    pub(super) fn ready(&self, now: Instant) -> u32 {
        self.instances
            .values()
            .filter(|instance| instance.is_ready(now))
            .map(|instance| instance.weight)
            .fold(0, u32::saturating_add)
    }

    /// The policy that a replacement follows.
    fn maintenance_of(&self, mark: Mark) -> MaintenancePolicy {
        let own = match mark {
            Mark::Refresh => self.refresh.as_ref().and_then(|refresh| refresh.healthy()),
            _ => None,
        };
        let default = match mark {
            Mark::Rebalance(_) | Mark::AtRisk => MaintenancePolicy::LAUNCH_FIRST,
            _ => MaintenancePolicy::TERMINATE_FIRST,
        };
        own.or(self.config.maintenance).unwrap_or(default)
    }

    /// The floor and the ceiling of capacity while instances are replaced for this reason; there is always room for one.
    pub(super) fn bounds(&self, mark: Mark) -> (u32, u32) {
        let policy = self.maintenance_of(mark);
        let desired = u64::from(self.desired);
        let floor = (desired * u64::from(policy.min_healthy)).div_ceil(100) as u32;
        let ceiling = (desired * u64::from(policy.max_healthy) / 100) as u32;
        let unit = self.heaviest();
        if self.desired.saturating_sub(floor) < unit && ceiling <= self.desired {
            if policy.max_healthy > 100 || policy.min_healthy == 100 {
                return (floor, self.desired.saturating_add(unit));
            }
            return (self.desired.saturating_sub(unit), ceiling);
        }
        (floor, ceiling)
    }

    fn ceiling(&self) -> u32 {
        self.instances
            .values()
            .filter(|instance| instance.state.counts())
            .filter_map(|instance| instance.marked)
            .map(|mark| self.bounds(mark).1)
            .fold(self.desired, u32::max)
    }

    /// Launches keepers up to the desired capacity, below the ceiling.
    pub(super) fn launch_missing(&mut self, now: Instant) {
        if self.deleted || self.kept() >= self.desired {
            return;
        }
        if self.is_suspended(Process::Launch) {
            self.obstacles.push(Obstacle::Suspended(Process::Launch));
            return;
        }
        let ceiling = self.ceiling();
        while self.kept() < self.desired && self.counted() < ceiling {
            if self.take_warm(now) {
                continue;
            }
            if self.is_overpopulated() {
                return;
            }
            match self.place(Purpose::Service, now) {
                Ok(place) => self.create(place, None, now),
                Err(obstacle) => {
                    self.obstacles.extend(obstacle);
                    return;
                }
            }
        }
    }

    pub(super) fn is_overpopulated(&mut self) -> bool {
        let instances = self.instances.len();
        let is_over = instances >= self.population_limit();
        if is_over {
            self.obstacles.push(Obstacle::Overpopulated { instances });
        }
        is_over
    }

    /// Ends keepers beyond the desired capacity.
    pub(super) fn scale_in(&mut self, now: Instant) {
        loop {
            let excess = self.kept().saturating_sub(self.desired);
            if excess == 0 {
                return;
            }
            if self.is_suspended(Process::Terminate) && !self.deleted {
                self.obstacles.push(Obstacle::Suspended(Process::Terminate));
                return;
            }
            let Some(id) = self.choose(excess, None, now) else {
                if self
                    .instances
                    .values()
                    .any(|i| i.is_keeper() && i.protected)
                {
                    self.obstacles.push(Obstacle::Protected);
                }
                return;
            };
            if !self.return_to_pool(id, now) {
                self.terminate(id, Cause::ScaleIn, now);
            }
        }
    }
}
