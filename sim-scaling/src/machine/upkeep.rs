//! Deadlines, health, lifetimes, replacement, balance of the zones.

use sim_core::time::Instant;

use super::instance::{Instance, Mark, Wait};
use super::{Effect, Machine, State};
use crate::config::{ImpairedZones, Process};
use crate::message::{Cause, InstanceId, Obstacle};

impl Machine {
    /// When something is due for an instance: later than the last step, or never.
    pub(super) fn deadline_of(&self, instance: &Instance) -> Instant {
        let waits = match &instance.wait {
            Wait::Nothing => Instant::NEVER,
            Wait::Start { until } | Wait::Drain { until } | Wait::Pause { until, .. } => *until,
            Wait::End { again, .. } => *again,
            Wait::Hooks(waiting) => waiting
                .iter()
                .map(|wait| wait.due)
                .min()
                .unwrap_or(Instant::NEVER),
        };
        let in_service = instance.state == State::InService;
        let lifetime = match self.config.max_lifetime {
            Some(most) if in_service && instance.marked.is_none() => instance.launched_at + most,
            _ => Instant::NEVER,
        };
        let joins = instance.join.map_or(Instant::NEVER, |(at, _)| at);
        let grace = if in_service && instance.failing != 0 {
            instance.grace_until
        } else {
            Instant::NEVER
        };
        let warm = if in_service {
            instance.warm_at
        } else {
            Instant::NEVER
        };
        [waits, lifetime, joins, grace, warm]
            .into_iter()
            .filter(|&at| at > self.now)
            .min()
            .unwrap_or(Instant::NEVER)
    }

    /// Does what the clock has brought about.
    pub(super) fn serve_deadlines(&mut self, now: Instant) {
        let ids: Vec<InstanceId> = self
            .instances
            .values()
            .filter(|instance| is_due(instance, now))
            .map(|instance| instance.id)
            .collect();
        for id in ids {
            let Some(instance) = self.instances.get_mut(&id) else {
                continue;
            };
            if let Some((at, _)) = &mut instance.join
                && *at <= now
            {
                *at = Instant::NEVER;
                if instance.state == State::InService && instance.registered {
                    self.effects.push_back(Effect::Register(id));
                }
            }
            match instance.wait.clone() {
                Wait::Start { until } if until <= now => self.launch_timed_out(id, now),
                Wait::Drain { until } if until <= now => self.after_drain(id, now),
                Wait::Pause { until, .. } if until <= now => {
                    self.terminate(id, Cause::PauseTimeout, now);
                }
                Wait::End { again, told } if again <= now => self.end_again(id, told, now),
                Wait::Hooks(waiting) => {
                    for wait in waiting {
                        if wait.due <= now {
                            self.resolve_hook(id, &wait.name, wait.default_result, now);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Marks, or ends, who is unfit or too old.
    pub(super) fn heal(&mut self, now: Instant) {
        let heals = !self.is_suspended(Process::ReplaceUnhealthy);
        let terminates = !self.is_suspended(Process::Terminate);
        let ignores = self.config.impaired_zones == ImpairedZones::IgnoreUnhealthy;
        let launch_first = self.config.maintenance.is_some();
        let max_lifetime = self.config.max_lifetime;
        let mut unfit = Vec::new();
        let mut changes = 0;
        for instance in self.instances.values_mut() {
            if instance.state != State::InService {
                continue;
            }
            match instance.accuser() {
                None => {
                    if matches!(instance.marked, Some(Mark::Unhealthy(_))) {
                        instance.marked = None;
                        changes += 1;
                    }
                }
                Some(source)
                    if heals
                        && now >= instance.grace_until
                        && !(ignores && self.shifted.contains(&instance.zone)) =>
                {
                    if launch_first {
                        if !matches!(instance.marked, Some(Mark::Unhealthy(_))) {
                            instance.marked = Some(Mark::Unhealthy(source));
                            changes += 1;
                        }
                    } else if terminates {
                        unfit.push((instance.id, source));
                    }
                }
                Some(_) => {}
            }
            if let Some(most) = max_lifetime
                && instance.marked.is_none()
                && !instance.protected
                && now >= instance.launched_at + most
            {
                instance.marked = Some(Mark::Lifetime);
                changes += 1;
            }
        }
        self.generation += changes;
        for (id, source) in unfit {
            self.note_short_life(id, "found unhealthy soon after its start", now);
            self.terminate(id, Cause::Unhealthy(source), now);
        }
    }

    /// Ends marked instances, as far as the floor allows.
    pub(super) fn retire(&mut self, now: Instant) {
        let mut marked: Vec<_> = self
            .instances
            .values()
            .filter(|instance| instance.state.counts())
            .filter_map(|instance| {
                let mark = instance.marked?;
                let is_fit = !matches!(mark, Mark::Unhealthy(_));
                Some((is_fit, instance.launched_at, instance.id, mark))
            })
            .collect();
        if marked.is_empty() {
            return;
        }
        if self.is_suspended(Process::Terminate) {
            self.obstacles.push(Obstacle::Suspended(Process::Terminate));
            return;
        }
        marked.sort_by_key(|&(is_fit, launched_at, id, _)| (is_fit, launched_at, id));
        let mut ready = self.ready(now);
        for (_, _, id, mark) in marked {
            let Some(instance) = self.instances.get(&id) else {
                continue;
            };
            let is_working = instance.state == State::InService;
            let loss = if instance.is_ready(now) {
                instance.weight
            } else {
                0
            };
            let (floor, _) = self.bounds(mark);
            if is_working && ready - loss < floor {
                continue;
            }
            ready -= loss;
            self.terminate(id, mark.cause(), now);
        }
    }

    /// Marks one instance of the fullest zone when another zone has two fewer, and nothing else is going on.
    pub(super) fn rebalance(&mut self, now: Instant) {
        if self.deleted
            || self.config.zones.len() < 2
            || self.is_suspended(Process::AzRebalance)
            || self.is_suspended(Process::Launch)
            || self.is_suspended(Process::Terminate)
            || self
                .refresh
                .as_ref()
                .is_some_and(|refresh| refresh.is_active())
            || self.kept() != self.counted()
            || self.kept() < self.desired
            || self.instances.values().any(|i| i.state.is_pending())
        {
            return;
        }
        let loads: Vec<(usize, u32)> = self
            .open_zones()
            .map(|zone| (zone, self.load(zone)))
            .collect();
        let emptiest = loads
            .iter()
            .filter(|&&(zone, _)| self.has_open_place(zone, now))
            .min_by_key(|&&(zone, load)| (load, zone));
        let Some(&(to, least)) = emptiest else {
            return;
        };
        let mut fuller: Vec<_> = loads
            .iter()
            .filter(|&&(_, load)| load >= least + 2)
            .collect();
        fuller.sort_by_key(|&&(zone, load)| (std::cmp::Reverse(load), zone));
        let victim = fuller
            .into_iter()
            .find_map(|&(zone, _)| self.choose(u32::MAX, Some(zone), now));
        if let Some(id) = victim {
            self.with(id, |instance| instance.marked = Some(Mark::Rebalance(to)));
            self.generation += 1;
        }
    }
}

fn is_due(instance: &Instance, now: Instant) -> bool {
    let waits = match &instance.wait {
        Wait::Nothing => false,
        Wait::Start { until } | Wait::Drain { until } | Wait::Pause { until, .. } => *until <= now,
        Wait::End { again, .. } => *again <= now,
        Wait::Hooks(waiting) => waiting.iter().any(|wait| wait.due <= now),
    };
    waits || instance.join.is_some_and(|(at, _)| at <= now)
}
