//! [`Table`]: the eligible targets, arranged for picking. Immutable; built anew whenever they change.

use std::fmt;

use sim_core::sync::Arc;

use super::seat::Seat;
use crate::algorithm::load::{Load, Loads};
use crate::algorithm::memory::{Memory, Turns};
use crate::algorithm::{Algorithm, Candidate, Selector};
use crate::machine::{
    FULL_LOAD, Pool as PoolView, Slot, TargetId, Tier as TierView, View, Zone, ZoneId,
};

/// The eligible targets of a balancer.
pub(crate) struct Table<T> {
    /// The only tier of the only pool, when it is so. Then there are no pools.
    pub(crate) plain: Option<Tier<T>>,
    /// First the pool of all zones.
    pools: Box<[Pool<T>]>,
    /// The percentage of requests with a zone that stay in it.
    affinity: u32,
    /// By the hash of the id: those that a request may stick to.
    by_hash: Box<[Arc<Seat<T>>]>,
    /// Whether some of these are out of use for all others.
    has_lingering: bool,
    /// Whether no target is registered at all.
    pub(crate) is_empty: bool,
}

/// Targets that serve the same requests.
struct Pool<T> {
    zone: Option<Zone>,
    number: Option<ZoneId>,
    is_available: bool,
    tiers: Box<[Tier<T>]>,
}

/// The targets of a pool with one priority.
pub(crate) struct Tier<T> {
    /// Its share of the pool's requests, of [`FULL_LOAD`].
    load: u32,
    priority: u32,
    turns: Turns,
    pub(crate) seats: Seats<T>,
    pub(crate) selector: Selector,
}

/// Targets in their places.
pub(crate) struct Seats<T>(Box<[Arc<Seat<T>>]>);

impl<T> Seats<T> {
    #[inline]
    pub(crate) fn get(&self, index: usize) -> &Arc<Seat<T>> {
        &self.0[index]
    }
}

impl<T> Loads for Seats<T> {
    #[inline]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    fn load(&self, index: usize) -> &Load {
        &self.0[index].load
    }
}

impl<T> Table<T> {
    /// A table of nobody.
    pub(crate) fn empty() -> Self {
        Self {
            plain: None,
            pools: Box::default(),
            affinity: 0,
            by_hash: Box::default(),
            has_lingering: false,
            is_empty: true,
        }
    }

    /// Builds the table of what the machine shows. Targets that the former one had in the same zone and of the same priority
    /// go on with its turns.
    pub(crate) fn build(
        view: &View,
        seats: &[Option<Arc<Seat<T>>>],
        algorithm: &Algorithm,
        is_empty: bool,
        (former, memory): (&Self, &Memory),
    ) -> Self {
        let turns = |zone, priority| {
            let found = former.turns(zone, priority).cloned();
            found.unwrap_or_else(|| memory.turns())
        };
        let mut pools: Vec<Pool<T>> = view
            .pools
            .iter()
            .map(|pool| Pool::build(pool, seats, algorithm, &turns))
            .collect();
        let mut by_hash: Vec<Arc<Seat<T>>> = view
            .pools
            .iter()
            .take(1)
            .flat_map(|pool| &pool.tiers)
            .flat_map(|tier| &tier.members)
            .map(|member| member.slot)
            .chain(view.lingering.iter().copied())
            .filter_map(|slot| seat(seats, slot))
            .cloned()
            .collect();
        by_hash.sort_by_key(|seat| seat.hash);
        let mut plain = None;
        if let [pool] = pools.as_mut_slice()
            && pool.tiers.len() == 1
        {
            plain = std::mem::take(&mut pool.tiers).into_iter().next();
            pools.clear();
        }
        Self {
            plain,
            pools: pools.into(),
            affinity: view.affinity,
            by_hash: by_hash.into(),
            has_lingering: !view.lingering.is_empty(),
            is_empty,
        }
    }

    /// Whether room at any target will do for every waiter, whatever its request says.
    pub(crate) fn is_one_queue(&self) -> bool {
        self.plain.is_some() && !self.has_lingering
    }

    /// The turns of the targets of a zone, or of all, with one priority.
    fn turns(&self, zone: Option<ZoneId>, priority: u32) -> Option<&Turns> {
        let tiers = match &self.plain {
            Some(tier) if zone.is_none() => std::slice::from_ref(tier),
            Some(_) => return None,
            None => {
                let at = self.pools.binary_search_by_key(&zone, |pool| pool.number);
                &self.pools[at.ok()?].tiers
            }
        };
        let tier = tiers.iter().find(|tier| tier.priority == priority)?;
        Some(&tier.turns)
    }

    /// The target of this name, if a request may stick to it.
    pub(crate) fn named(&self, id: &TargetId) -> Option<&Arc<Seat<T>>> {
        let hash = crate::message::key_of(id.as_str().as_bytes());
        let first = self.by_hash.partition_point(|seat| seat.hash < hash);
        self.by_hash[first..]
            .iter()
            .take_while(|seat| seat.hash == hash)
            .find(|seat| seat.id == *id)
    }

    /// The tiers for a request from a zone, and which of them to try first.
    pub(crate) fn tiers(&self, zone: Option<&Zone>, memory: &Memory) -> (&[Tier<T>], usize) {
        if let Some(tier) = &self.plain {
            return (std::slice::from_ref(tier), 0);
        }
        let Some((all, zones)) = self.pools.split_first() else {
            return (&[], 0);
        };
        let home = zone.and_then(|zone| {
            zones
                .iter()
                .find(|pool| pool.is_available && pool.zone.as_ref() == Some(zone))
        });
        let pool = match home {
            Some(home) if self.affinity >= 100 => home,
            Some(home) if memory.below(100) < self.affinity as usize => home,
            Some(_) | None => all,
        };
        if pool.tiers.len() <= 1 {
            return (&pool.tiers, 0);
        }
        let point = memory.below(FULL_LOAD as usize) as u32;
        let mut sum = 0;
        let first = pool.tiers.iter().position(|tier| {
            sum += tier.load;
            point < sum
        });
        (&pool.tiers, first.unwrap_or(0))
    }

    /// How many targets are eligible.
    pub(crate) fn eligible(&self) -> usize {
        let pool = self.pools.first().map_or(&[][..], |pool| &pool.tiers);
        let tiers = self.plain.as_slice().iter().chain(pool);
        tiers.map(|tier| tier.seats.0.len()).sum()
    }
}

fn seat<T>(seats: &[Option<Arc<Seat<T>>>], slot: Slot) -> Option<&Arc<Seat<T>>> {
    seats
        .get(slot.index())?
        .as_ref()
        .filter(|seat| seat.slot == slot)
}

impl<T> Pool<T> {
    fn build(
        view: &PoolView,
        seats: &[Option<Arc<Seat<T>>>],
        algorithm: &Algorithm,
        turns: &dyn Fn(Option<ZoneId>, u32) -> Turns,
    ) -> Self {
        let tiers: Box<[Tier<T>]> = view
            .tiers
            .iter()
            .map(|tier| Tier::build(tier, seats, algorithm, turns(view.zone, tier.priority)))
            .collect();
        // A zone's name is that of its targets.
        let zone = view.zone.and_then(|_| {
            let first = tiers.first()?.seats.0.first()?;
            first.zone.clone()
        });
        Self {
            zone,
            number: view.zone,
            is_available: view.available,
            tiers,
        }
    }
}

impl<T> Tier<T> {
    fn build(
        view: &TierView,
        seats: &[Option<Arc<Seat<T>>>],
        algorithm: &Algorithm,
        turns: Turns,
    ) -> Self {
        let (candidates, seats): (Vec<Candidate>, Vec<Arc<Seat<T>>>) = view
            .members
            .iter()
            .filter_map(|member| {
                let seat = seat(seats, member.slot)?;
                let candidate = Candidate {
                    slot: member.slot.index() as u32,
                    birth: member.slot.birth(),
                    rank: seat.rank,
                    weight: member.weight,
                    share: member.share,
                    hash: seat.hash,
                    zone: member.zone.map_or(u32::MAX, |zone| zone.index() as u32),
                };
                Some((candidate, Arc::clone(seat)))
            })
            .unzip();
        Self {
            load: view.load,
            priority: view.priority,
            selector: Selector::build(algorithm, &candidates, &turns),
            turns,
            seats: Seats(seats.into()),
        }
    }
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("eligible", &self.eligible())
            .field("affinity", &self.affinity)
            .finish_non_exhaustive()
    }
}
