//! Consistent hashing with bounded loads: a key's target has it unless it would have more than its share of the load.

use super::hash::{key, mix, scan, spread};
use super::limits::ensure;
use super::memory::Memory;
use super::ring::{RING_POINTS, Ring, check_points};
use super::{Ask, Candidate, Loads};
use crate::error::ConfigError;

/// The factor by default: no target has more than a quarter above the mean (that of Mirrokni et al. and of Vimeo).
pub const BOUND_FACTOR: f64 = 1.25;

/// Other places of the ring to look at before all targets are looked at one by one.
const ATTEMPTS: u64 = 16;

/// Settings of [`Algorithm::BoundedLoad`](super::Algorithm::BoundedLoad).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct BoundedConfig {
    /// How many times the mean a target may have outstanding, rounded up; above 1, at most 100.
    /// Default: [`BOUND_FACTOR`].
    pub factor: f64,
    /// Points of the heaviest target on the ring, as in [`RingConfig`](super::RingConfig). Default: [`RING_POINTS`].
    pub points: u32,
}

impl Default for BoundedConfig {
    fn default() -> Self {
        Self {
            factor: BOUND_FACTOR,
            points: RING_POINTS,
        }
    }
}

impl BoundedConfig {
    /// Says what is wrong with the settings.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        ensure(
            self.factor > 1.0 && self.factor <= 100.0,
            "bounded.factor",
            self.factor,
            "above 1 and at most 100",
        )?;
        check_points("bounded.points", self.points)
    }
}

/// A ring and the shares of its targets.
///
/// # Algorithm
///
/// Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads", SODA 2018: a target takes a request when
/// with it it has at most ceil(factor x share x all outstanding ones, this one included), where its share is that
/// of its weight. A key whose target is full goes to that of another place by its hash, as in Chen, Coleman and Shrivastava,
/// "Revisiting consistent hashing with bounded loads", AAAI 2021: the next one on the ring would get the overflow of all
/// before it. As the bounds add up to more than there are requests, some target always has room.
///
/// The loads are read one after another: what other threads choose in between is not seen, so that the bound
/// may be exceeded by one for each of them. An idle target has room without a look at the others; else a choice
/// reads the loads of all.
#[derive(Debug, Clone)]
pub(crate) struct Bounded {
    ring: Ring,
    /// Factor times share, by index.
    factors: Box<[f64]>,
}

impl Bounded {
    pub(crate) fn build(settings: &BoundedConfig, candidates: &[Candidate]) -> Self {
        let total: f64 = candidates.iter().map(|one| f64::from(one.weight)).sum();
        let factor = |one: &Candidate| settings.factor * f64::from(one.weight) / total;
        Self {
            ring: Ring::new(candidates, settings.points),
            factors: candidates.iter().map(factor).collect(),
        }
    }

    #[inline]
    pub(crate) fn choose<L: Loads + ?Sized>(
        &self,
        loads: &L,
        ask: &Ask,
        memory: &Memory,
    ) -> Option<usize> {
        let key = spread(key(ask, memory));
        let owner = self.ring.owner(key)? as usize;
        if loads.load(owner).outstanding() == 0 {
            return Some(owner);
        }
        self.bounded(loads, key, &|_| true)
    }

    pub(crate) fn next<L: Loads + ?Sized>(
        &self,
        loads: &L,
        ask: &Ask,
        memory: &Memory,
        admit: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let key = spread(key(ask, memory));
        self.bounded(loads, key, admit)
            // Where all that have room are ruled out, the bound yields.
            .or_else(|| self.find(key, |index| admit(index as usize)))
    }

    fn bounded<L: Loads + ?Sized>(
        &self,
        loads: &L,
        key: u64,
        admit: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let live = self.ring.live().iter();
        let outstanding = |index: u32| u64::from(loads.load(index as usize).outstanding());
        let total: u64 = live.map(|&index| outstanding(index)).sum();
        let all = (total + 1) as f64;
        self.find(key, |index| {
            let bound = (self.factors[index as usize] * all).ceil();
            (outstanding(index) + 1) as f64 <= bound && admit(index as usize)
        })
    }

    fn find(&self, key: u64, mut fits: impl FnMut(u32) -> bool) -> Option<usize> {
        let owner = self.ring.owner(key)?;
        let found = if fits(owner) {
            Some(owner)
        } else {
            (1..=ATTEMPTS)
                .filter_map(|attempt| self.ring.owner(mix(key, attempt)))
                .find(|&index| fits(index))
                .or_else(|| scan(self.ring.live(), key, fits))
        };
        found.map(|index| index as usize)
    }
}
