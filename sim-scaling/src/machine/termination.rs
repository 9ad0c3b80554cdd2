//! Who is ended first.

use std::time::Duration;

use sim_core::time::Instant;

use super::Machine;
use super::instance::Instance;
use crate::config::TerminationPolicy;
use crate::message::{Candidate, InstanceId, Market};

/// What an instance hour is.
const HOUR: Duration = Duration::from_secs(3_600);

impl Machine {
    /// Chooses among the keepers that are not protected and weigh at most `most`, in `zone` or the fullest one.
    pub(super) fn choose(
        &self,
        most: u32,
        zone: Option<usize>,
        now: Instant,
    ) -> Option<InstanceId> {
        let mut candidates: Vec<&Instance> = self
            .instances
            .values()
            .filter(|instance| {
                instance.is_keeper()
                    && !instance.protected
                    && instance.weight <= most
                    && zone.is_none_or(|zone| instance.zone == zone)
            })
            .collect();
        // What does not work yet goes before what does, wherever it stands.
        if candidates
            .iter()
            .any(|instance| instance.in_service_at.is_none())
        {
            candidates.retain(|instance| instance.in_service_at.is_none());
        }
        let loads: Vec<u32> = (0..self.config.zones.len())
            .map(|zone| self.load(zone))
            .collect();
        let load = |instance: &Instance| loads.get(instance.zone).copied().unwrap_or(0);
        let fullest = candidates.iter().map(|instance| load(instance)).max()?;
        candidates.retain(|instance| load(instance) == fullest);
        for &policy in &self.config.termination {
            self.narrow(&mut candidates, policy, now);
            if candidates.len() == 1 {
                break;
            }
        }
        candidates.first().map(|instance| instance.id)
    }

    /// Leaves those that the policy would end first; at least one.
    fn narrow(&self, candidates: &mut Vec<&Instance>, policy: TerminationPolicy, now: Instant) {
        match policy {
            TerminationPolicy::Default => {
                for policy in [
                    TerminationPolicy::AllocationStrategy,
                    TerminationPolicy::OldestLaunchConfiguration,
                    TerminationPolicy::OldestLaunchTemplate,
                    TerminationPolicy::ClosestToNextInstanceHour,
                ] {
                    self.narrow(candidates, policy, now);
                }
            }
            TerminationPolicy::OldestInstance => {
                keep_least(candidates, |instance| (instance.launched_at, instance.id));
            }
            TerminationPolicy::NewestInstance => keep_least(candidates, |instance| {
                std::cmp::Reverse((instance.launched_at, instance.id))
            }),
            TerminationPolicy::OldestLaunchConfiguration => {
                if candidates.iter().any(|i| i.is_launch_configuration) {
                    candidates.retain(|i| i.is_launch_configuration);
                    keep_least(candidates, |instance| instance.version);
                }
            }
            TerminationPolicy::OldestLaunchTemplate => {
                if candidates.iter().any(|i| !i.is_launch_configuration) {
                    candidates.retain(|i| !i.is_launch_configuration);
                    keep_least(candidates, |instance| instance.version);
                }
            }
            TerminationPolicy::ClosestToNextInstanceHour => {
                keep_least(candidates, |instance| {
                    let age = now.saturating_duration_since(instance.launched_at);
                    HOUR.as_nanos() - age.as_nanos() % HOUR.as_nanos()
                });
            }
            TerminationPolicy::AllocationStrategy => self.narrow_by_allocation(candidates),
            TerminationPolicy::Custom => self.narrow_by_function(candidates, now),
        }
    }

    fn narrow_by_allocation(&self, candidates: &mut Vec<&Instance>) {
        let Some(mixed) = &self.config.mixed else {
            return;
        };
        let units = |market| {
            self.instances
                .values()
                .filter(|instance| instance.is_keeper() && instance.market == market)
                .map(|instance| instance.weight)
                .sum::<u32>()
        };
        let on_demand = units(Market::OnDemand);
        let share = Self::on_demand_share(mixed, self.desired);
        let market = if on_demand > share {
            Market::OnDemand
        } else {
            Market::Spot
        };
        if candidates.iter().any(|instance| instance.market == market) {
            candidates.retain(|instance| instance.market == market);
        }
        // The kind that would be launched last, or would not be launched at all.
        let rank = |instance: &Instance| {
            let pools = self.pools_by_preference(instance.zone, instance.market);
            let rank = pools.iter().position(|&pool| pool == instance.pool);
            std::cmp::Reverse(rank.unwrap_or(usize::MAX))
        };
        keep_least(candidates, rank);
    }

    fn narrow_by_function(&self, candidates: &mut Vec<&Instance>, now: Instant) {
        let Some(termination) = &self.termination else {
            self.narrow(candidates, TerminationPolicy::Default, now);
            return;
        };
        let offered: Vec<Candidate> = candidates
            .iter()
            .map(|instance| Candidate {
                id: instance.id,
                zone: instance.zone,
                weight: instance.weight,
                version: instance.version,
                launched_at: instance.launched_at,
                state: instance.state,
            })
            .collect();
        // An answer that was not offered is none.
        if let Some(chosen) = termination(&offered)
            && candidates.iter().any(|instance| instance.id == chosen)
        {
            candidates.retain(|instance| instance.id == chosen);
        }
    }
}

fn keep_least<K: Ord>(candidates: &mut Vec<&Instance>, key: impl Fn(&Instance) -> K) {
    if let Some(least) = candidates.iter().map(|instance| key(instance)).min() {
        candidates.retain(|instance| key(instance) == least);
    }
}
