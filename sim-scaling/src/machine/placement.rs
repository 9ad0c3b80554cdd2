//! Where the next instance stands, and which kind it is.

use std::time::Duration;

use sim_core::time::Instant;

use super::Machine;
use crate::config::{Backoff, Distribution, MixedInstances, OnDemandStrategy, SpotStrategy};
use crate::message::{Market, Obstacle};

/// A zone, a kind and a market.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) zone: usize,
    pub(super) pool: usize,
    pub(super) market: Market,
}

/// What an instance is launched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Service,
    WarmPool,
}

/// How launches have gone, for each zone and kind. Bound: zones times kinds.
#[derive(Debug)]
pub(super) struct Troubles {
    cells: Vec<Trouble>,
    pools: usize,
    reason: String,
}

#[derive(Debug, Clone, Copy, Default)]
struct Trouble {
    /// Failures in a row.
    failures: u32,
    delay: Duration,
    failed_at: Instant,
    retry_at: Instant,
    /// Since the last failure nothing has started here: one launch at a time.
    probing: bool,
}

impl Troubles {
    pub(super) fn new(zones: usize, pools: usize) -> Self {
        Self {
            cells: vec![Trouble::default(); zones * pools],
            pools,
            reason: String::new(),
        }
    }

    fn at(&self, zone: usize, pool: usize) -> Trouble {
        self.cells
            .get(zone * self.pools + pool)
            .copied()
            .unwrap_or_default()
    }

    fn at_mut(&mut self, zone: usize, pool: usize) -> Option<&mut Trouble> {
        self.cells.get_mut(zone * self.pools + pool)
    }

    /// Notes a failure; tells when the next launch is tried there. Failures of launches that were already under way when
    /// the place was closed do not close it for longer.
    pub(super) fn fail(
        &mut self,
        (zone, pool): (usize, usize),
        began: Instant,
        reason: &str,
        backoff: Backoff,
        now: Instant,
    ) -> Instant {
        reason.clone_into(&mut self.reason);
        let Some(cell) = self.at_mut(zone, pool) else {
            return now;
        };
        let is_new = cell.failures == 0 || began >= cell.retry_at;
        if is_new {
            let quiet = now.saturating_duration_since(cell.retry_at);
            if cell.failures > 0 && quiet > cell.delay.saturating_mul(2) + backoff.stable {
                cell.failures = 0;
            }
            let doublings = cell.failures.min(31);
            cell.failures = cell.failures.saturating_add(1);
            cell.delay = backoff
                .first
                .saturating_mul(1_u32 << doublings)
                .min(backoff.longest.max(backoff.first));
            cell.retry_at = now + cell.delay;
        }
        cell.failed_at = now;
        cell.probing = true;
        cell.retry_at
    }

    pub(super) fn started(&mut self, zone: usize, pool: usize, began: Instant) {
        if let Some(cell) = self.at_mut(zone, pool)
            && began >= cell.retry_at
        {
            cell.probing = false;
        }
    }

    /// The earliest delay that is not over at `now`.
    pub(super) fn next_retry_after(&self, now: Instant) -> Instant {
        self.cells
            .iter()
            .filter(|cell| cell.failures > 0 && cell.retry_at > now)
            .map(|cell| cell.retry_at)
            .min()
            .unwrap_or(Instant::NEVER)
    }

    pub(super) fn reason(&self) -> &str {
        &self.reason
    }
}

/// Why there is no place now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closed {
    Open,
    Waiting,
    Probing,
}

impl Machine {
    /// Where the next keeper goes, or what stands against it.
    pub(super) fn place(&self, purpose: Purpose, now: Instant) -> Result<Place, Option<Obstacle>> {
        let market = self.next_market();
        let zones = self.zones_by_need(purpose);
        let mut probing = false;
        for &zone in &zones {
            for pool in self.pools_by_preference(zone, market) {
                match self.is_open(zone, pool, now) {
                    Closed::Open => return Ok(Place { zone, pool, market }),
                    Closed::Probing => probing = true,
                    Closed::Waiting => {}
                }
            }
            if self.config.distribution == Distribution::BalancedOnly
                && !self.is_even_with_next(&zones, zone, purpose)
            {
                break;
            }
        }
        if probing {
            // The launch that is under way says how it goes on.
            return Err(None);
        }
        let until = self.troubles.next_retry_after(now);
        Err(Some(if until.is_never() {
            Obstacle::NoZone
        } else {
            Obstacle::BackingOff {
                until,
                reason: self.troubles.reason().to_owned(),
            }
        }))
    }

    fn is_open(&self, zone: usize, pool: usize, now: Instant) -> Closed {
        let cell = self.troubles.at(zone, pool);
        if cell.failures == 0 {
            return Closed::Open;
        }
        if now < cell.retry_at {
            return Closed::Waiting;
        }
        let is_tried = cell.probing
            && self.instances.values().any(|instance| {
                instance.zone == zone
                    && instance.pool == pool
                    && instance.started_at.is_none()
                    && (instance.state.counts() || instance.state.is_warm_pending())
            });
        if is_tried {
            Closed::Probing
        } else {
            Closed::Open
        }
    }

    /// Whether the next instance could be launched in a zone now, whichever market it is for.
    pub(super) fn has_open_place(&self, zone: usize, now: Instant) -> bool {
        let markets: &[Market] = match &self.config.mixed {
            None => &[Market::OnDemand],
            Some(mixed) if mixed.on_demand_percentage >= 100 => &[Market::OnDemand],
            Some(mixed) if mixed.on_demand_percentage == 0 && mixed.on_demand_base == 0 => {
                &[Market::Spot]
            }
            Some(_) => &[Market::OnDemand, Market::Spot],
        };
        markets.iter().all(|&market| {
            self.pools_by_preference(zone, market)
                .into_iter()
                .any(|pool| self.is_open(zone, pool, now) == Closed::Open)
        })
    }

    /// Whether the zone after this one is as empty, so that either may be taken.
    fn is_even_with_next(&self, zones: &[usize], zone: usize, purpose: Purpose) -> bool {
        let at = zones.iter().position(|&other| other == zone).unwrap_or(0);
        zones
            .get(at + 1)
            .is_some_and(|&next| self.load_for(next, purpose) == self.load_for(zone, purpose))
    }

    /// Keepers in a zone, without those that reservations hold.
    pub(super) fn load(&self, zone: usize) -> u32 {
        let count = self
            .instances
            .values()
            .filter(|instance| instance.zone == zone && instance.is_keeper())
            .count() as u32;
        match self.config.distribution {
            Distribution::ReservationsThenBalanced => {
                let reserved = self.config.zones.get(zone).map_or(0, |zone| zone.reserved);
                count.saturating_sub(reserved)
            }
            _ => count,
        }
    }

    fn load_for(&self, zone: usize, purpose: Purpose) -> u32 {
        match purpose {
            Purpose::Service => self.load(zone),
            // Where those in service and those that wait are fewest together.
            Purpose::WarmPool => {
                let warm = self.instances.values().filter(|instance| {
                    instance.zone == zone
                        && (instance.state.is_warm_ready() || instance.state.is_warm_pending())
                });
                self.load(zone) + warm.count() as u32
            }
        }
    }

    /// Zones that are not shifted away from; where the most are missing first.
    fn zones_by_need(&self, purpose: Purpose) -> Vec<usize> {
        let mut zones: Vec<_> = self.open_zones().collect();
        zones.sort_by_cached_key(|&zone| {
            let has_reserved_room = self.config.distribution
                == Distribution::ReservationsThenBalanced
                && self.has_reserved_room(zone);
            (!has_reserved_room, self.load_for(zone, purpose), zone)
        });
        zones
    }

    fn has_reserved_room(&self, zone: usize) -> bool {
        let count = self
            .instances
            .values()
            .filter(|instance| instance.zone == zone && instance.is_keeper())
            .count();
        self.config
            .zones
            .get(zone)
            .is_some_and(|zone| count < zone.reserved as usize)
    }

    /// The indices of zones that are not shifted away from; of all zones when every one is.
    pub(super) fn open_zones(&self) -> impl Iterator<Item = usize> + '_ {
        let all_shifted = self.shifted.len() >= self.config.zones.len();
        (0..self.config.zones.len()).filter(move |zone| all_shifted || !self.shifted.contains(zone))
    }

    /// Units that should be on demand, of this many.
    pub(super) fn on_demand_share(mixed: &MixedInstances, units: u32) -> u32 {
        let base = mixed.on_demand_base.min(units);
        let above = u64::from(units - base) * u64::from(mixed.on_demand_percentage);
        base + above.div_ceil(100) as u32
    }

    fn next_market(&self) -> Market {
        let Some(mixed) = &self.config.mixed else {
            return Market::OnDemand;
        };
        let on_demand: u32 = self
            .instances
            .values()
            .filter(|instance| instance.is_keeper() && instance.market == Market::OnDemand)
            .map(|instance| instance.weight)
            .sum();
        if on_demand < Self::on_demand_share(mixed, self.desired) {
            Market::OnDemand
        } else {
            Market::Spot
        }
    }

    /// The kinds to be tried, the preferred first.
    pub(super) fn pools_by_preference(&self, zone: usize, market: Market) -> Vec<usize> {
        let Some(mixed) = &self.config.mixed else {
            return vec![0];
        };
        let mut pools: Vec<usize> = (0..mixed.overrides.len()).collect();
        let kind = |pool: usize| &mixed.overrides[pool].kind;
        match market {
            Market::OnDemand => {
                if mixed.on_demand_strategy == OnDemandStrategy::LowestPrice {
                    pools.sort_by(|&a, &b| {
                        kind(a).on_demand_price.total_cmp(&kind(b).on_demand_price)
                    });
                }
            }
            Market::Spot => {
                if let Some(most) = mixed.spot_max_price {
                    pools.retain(|&pool| kind(pool).spot_price <= most);
                }
                let deepest = pools
                    .iter()
                    .map(|&pool| kind(pool).spot_depth)
                    .fold(0.0, f64::max);
                let is_shallow = |pool: usize| kind(pool).spot_depth < deepest / 2.0;
                match mixed.spot_strategy {
                    SpotStrategy::LowestPrice { pools: few } => {
                        pools.sort_by(|&a, &b| kind(a).spot_price.total_cmp(&kind(b).spot_price));
                        let few = (few as usize).min(pools.len());
                        pools[..few].sort_by_key(|&pool| self.count_in(zone, pool));
                    }
                    SpotStrategy::CapacityOptimized => {
                        pools.sort_by(|&a, &b| kind(b).spot_depth.total_cmp(&kind(a).spot_depth))
                    }
                    SpotStrategy::CapacityOptimizedPrioritized => {
                        pools.sort_by_key(|&pool| is_shallow(pool));
                    }
                    SpotStrategy::PriceCapacityOptimized => pools.sort_by(|&a, &b| {
                        is_shallow(a)
                            .cmp(&is_shallow(b))
                            .then(kind(a).spot_price.total_cmp(&kind(b).spot_price))
                    }),
                }
            }
        }
        pools
    }

    fn count_in(&self, zone: usize, pool: usize) -> usize {
        self.instances
            .values()
            .filter(|instance| {
                instance.zone == zone
                    && instance.pool == pool
                    && instance.is_keeper()
                    && instance.market == Market::Spot
            })
            .count()
    }

    pub(super) fn units(&self, pool: usize) -> u32 {
        self.config
            .mixed
            .as_ref()
            .and_then(|mixed| mixed.overrides.get(pool))
            .map_or(1, |over| over.units(self.config.capacity_unit))
    }

    /// The heaviest kind.
    pub(super) fn heaviest(&self) -> u32 {
        (0..self.config.pools())
            .map(|pool| self.units(pool))
            .max()
            .unwrap_or(1)
    }
}
