//! [`View`]: who may get traffic, and how much of it.
//!
//! # Algorithm
//!
//! Spilling over to lower priorities and panic follow Envoy's load balancing ("Priority levels", "Panic threshold"): a priority's
//! health is its share of healthy targets times the overprovisioning factor; each takes what its health allows of
//! what the ones before it left; when all together are too few, loads are scaled up, and a priority below its
//! threshold uses all its targets.

use std::collections::BTreeMap;

use super::name::{Slot, ZoneId};
use super::rules::{Availability, FailOpen, Rules};

/// The weight of a [`Member`] that was registered with weight 1 and has its full share.
pub const WEIGHT_ONE: u32 = 100;

/// All of a pool's requests, as the unit of [`Tier::load`].
pub const FULL_LOAD: u32 = 10_000;

/// Who may get traffic: what a snapshot of the data plane is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct View {
    /// Which state of the machine it shows.
    pub generation: u64,
    /// The percentage of requests with a zone that are to stay in it: 100 when requests do not cross zones.
    pub affinity: u32,
    /// First the pool of all zones, always there; then, while `affinity` is not zero, one for each zone with targets that
    /// traffic is not shifted away from, in the order of zones. Empty only in a view that no machine made.
    pub pools: Vec<Pool>,
    /// Targets that get nothing new, but that requests that stick to them may stay with.
    pub lingering: Vec<Slot>,
}

impl View {
    /// The pool for requests of a zone: the zone's if there is one that is available, otherwise that of all zones.
    ///
    /// # Panics
    ///
    /// On a view that was not made by a machine.
    #[must_use]
    pub fn pool(&self, zone: Option<ZoneId>) -> &Pool {
        zone.and_then(|zone| {
            self.pools
                .iter()
                .skip(1)
                .find(|pool| pool.zone == Some(zone) && pool.available)
        })
        .unwrap_or(&self.pools[0])
    }
}

/// Targets that serve the same requests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Pool {
    /// The zone, or `None` for all.
    pub zone: Option<ZoneId>,
    /// Whether enough targets are healthy for the pool to be used as a whole
    /// ([`Rules::dns_failover`](super::Rules::dns_failover)).
    pub available: bool,
    /// Targets that are healthy, or unchecked, and not ejected.
    pub healthy: u32,
    /// Targets that could get traffic: neither draining nor unused, nor of weight 0, nor shifted away from.
    pub registered: u32,
    /// The priorities with a load, the highest (lowest number) first; empty when nobody may get traffic.
    pub tiers: Vec<Tier>,
}

/// The targets of a pool with one priority.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tier {
    /// The priority; 0 is the highest.
    pub priority: u32,
    /// Its share of the pool's requests, of [`FULL_LOAD`]. Never 0; all of a pool's add up to [`FULL_LOAD`].
    pub load: u32,
    /// Whether unhealthy targets are among the members for want of healthy ones.
    pub failed_open: bool,
    /// Who gets the requests, by slot index; never empty.
    pub members: Vec<Member>,
}

/// A target that gets traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// Where it stands.
    pub slot: Slot,
    /// Its weight now, at least 1: the registered one times [`WEIGHT_ONE`], less what slow start and mitigation take.
    pub weight: u32,
    /// What slow start and mitigation leave of its registered weight, in percent: 1 to 100.
    pub share: u32,
    /// Its zone.
    pub zone: Option<ZoneId>,
}

/// A target that could get traffic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) member: Member,
    pub(crate) priority: u32,
    pub(crate) is_fit: bool,
    pub(crate) is_shifted: bool,
}

/// Makes a view of candidates in slot order.
pub(crate) fn build(
    rules: &Rules,
    candidates: &[Candidate],
    lingering: Vec<Slot>,
    generation: u64,
) -> View {
    let mut there: Vec<Candidate> = candidates
        .iter()
        .filter(|candidate| !candidate.is_shifted)
        .copied()
        .collect();
    if there.is_empty() {
        // Every zone is shifted away from: then none is.
        there = candidates.to_vec();
    }
    let affinity = rules.affinity();
    let mut pools = vec![pool(rules, None, &there)];
    if affinity > 0 {
        let mut zones: BTreeMap<ZoneId, Vec<Candidate>> = BTreeMap::new();
        for candidate in &there {
            if let Some(zone) = candidate.member.zone {
                zones.entry(zone).or_default().push(*candidate);
            }
        }
        pools.extend(
            zones
                .iter()
                .map(|(zone, candidates)| pool(rules, Some(*zone), candidates)),
        );
    }
    View {
        generation,
        affinity,
        pools,
        lingering,
    }
}

/// What is known of a priority before loads are given out.
struct Level {
    priority: u32,
    candidates: Vec<Candidate>,
    healthy: u32,
    /// The share of a pool's requests that it could take, of [`FULL_LOAD`].
    health: u64,
}

impl Level {
    fn hosts(&self) -> u32 {
        self.candidates.len() as u32
    }
}

fn pool(rules: &Rules, zone: Option<ZoneId>, candidates: &[Candidate]) -> Pool {
    let mut by_priority: BTreeMap<u32, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        by_priority
            .entry(candidate.priority)
            .or_default()
            .push(*candidate);
    }
    let levels: Vec<Level> = by_priority
        .into_iter()
        .map(|(priority, candidates)| level(rules, priority, candidates))
        .collect();
    let healthy: u32 = levels.iter().map(|level| level.healthy).sum();
    let registered = candidates.len() as u32;
    let tiers = tiers(&rules.fail_open, levels);
    Pool {
        zone,
        available: !tiers.is_empty() && is_available(&rules.dns_failover, healthy, registered),
        healthy,
        registered,
        tiers,
    }
}

fn level(rules: &Rules, priority: u32, candidates: Vec<Candidate>) -> Level {
    let healthy = candidates.iter().filter(|one| one.is_fit).count() as u32;
    let full = u64::from(FULL_LOAD);
    let scaled = u64::from(healthy) * u64::from(rules.priorities.overprovisioning) * full
        / (100 * candidates.len().max(1) as u64);
    Level {
        priority,
        healthy,
        // One healthy target among very many is still something.
        health: scaled.clamp(u64::from(healthy > 0), full),
        candidates,
    }
}

fn tiers(rules: &FailOpen, levels: Vec<Level>) -> Vec<Tier> {
    let total: u64 = levels.iter().map(|level| level.health).sum();
    let full = u64::from(FULL_LOAD);
    let is_single = levels.len() == 1;
    let hosts: u64 = levels.iter().map(|level| u64::from(level.hosts())).sum();

    let mut left = full;
    let mut tiers = Vec::new();
    for level in levels {
        let opens = fails_open(rules, level.healthy, level.hosts());
        // Enough healthy targets lower down are better than unhealthy ones here.
        let failed_open = opens && (is_single || total < full);
        let load = if total == 0 {
            // Nobody is well anywhere: each target counts the same.
            if opens {
                full * u64::from(level.hosts()) / hosts.max(1)
            } else {
                0
            }
        } else if total < full {
            level.health * full / total
        } else {
            level.health
        };
        let load = load.min(left);
        left -= load;
        let members: Vec<Member> = level
            .candidates
            .iter()
            .filter(|one| one.is_fit || failed_open)
            .map(|one| one.member)
            .collect();
        if !members.is_empty() && (load > 0 || total == 0) {
            tiers.push(Tier {
                priority: level.priority,
                load: load as u32,
                failed_open,
                members,
            });
        }
    }
    // What rounding left goes to the first.
    if let Some(first) = tiers.first_mut() {
        first.load += left as u32;
    }
    tiers.retain(|tier| tier.load > 0);
    tiers
}

/// Whether so few healthy targets among so many let all of them have traffic.
fn fails_open(rules: &FailOpen, healthy: u32, hosts: u32) -> bool {
    healthy < rules.minimum_healthy_count
        || is_below(healthy, hosts, rules.minimum_healthy_percentage)
        || is_below(healthy, hosts, rules.panic_threshold)
}

fn is_available(rules: &Availability, healthy: u32, hosts: u32) -> bool {
    healthy >= rules.minimum_healthy_count
        && !is_below(healthy, hosts, rules.minimum_healthy_percentage)
}

fn is_below(healthy: u32, hosts: u32, percentage: u32) -> bool {
    u64::from(healthy) * 100 < u64::from(hosts) * u64::from(percentage)
}
