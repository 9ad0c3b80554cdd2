//! Ring hash: consistent hashing in the manner of ketama, with weights, and looked up in constant time.

use super::hash::{key, live, mix, scan, spread};
use super::limits::ensure;
use super::memory::Memory;
use super::{Ask, Candidate};
use crate::error::ConfigError;

/// Points of a target of weight one by default: libketama's 40 digests of four points.
pub const RING_POINTS: u32 = 160;

/// The most points that a ring has: a target gets fewer before a ring gets larger.
pub const RING_LARGEST: u32 = 1 << 20;

/// Settings of [`Algorithm::RingHash`](super::Algorithm::RingHash).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct RingConfig {
    /// Points of the heaviest target, or up to twice as many where its weight is no power of two; one to 65,536.
    /// The share of a target deviates by one by the root of its points. Default: [`RING_POINTS`].
    pub points: u32,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self {
            points: RING_POINTS,
        }
    }
}

impl RingConfig {
    /// Says what is wrong with the settings.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        check_points("ring.points", self.points)
    }
}

/// Checks a number of points.
pub(crate) fn check_points(field: &'static str, points: u32) -> Result<(), ConfigError> {
    let range = "from 1 to 65,536";
    ensure((1..=65_536).contains(&points), field, points, range)
}

/// A ring of points.
///
/// # Algorithm
///
/// Karger et al., "Consistent hashing and random trees", STOC 1997: every node has points on a circle, and a key
/// belongs to the first point at or after it. The number of points is that of libketama (Jones, 2007) for a
/// node of the lightest weight class, and grows with the weight. Points are kept in order beside an index by their first
/// bits, of about as many entries as there are points, so that a search takes a step or two.
///
/// When a node goes, its keys go to their next points and no other key moves. This holds as long as the heaviest weight
/// keeps its power of two, by which all are divided, and the ring does not become too large.
///
/// # Memory
///
/// Twelve to sixteen bytes a point.
#[derive(Debug, Clone)]
pub struct Ring {
    /// The place of a point in the upper half, its node's index in the lower half; in order.
    points: Box<[u64]>,
    /// For each beginning of a hash the first point that begins so or is greater.
    index: Box<[u32]>,
    /// How far a place is shifted to give its beginning.
    shift: u32,
    live: Box<[u32]>,
}

impl Ring {
    /// Makes a table of targets, each by the hash of its name ([`key_of`](crate::key_of)) and its weight; those of
    /// weight 0 get no key. For who wants it without a balancer.
    #[must_use]
    pub fn of(settings: &RingConfig, targets: &[(u64, u32)]) -> Self {
        Self::build(settings, &super::hash::candidates(targets))
    }

    /// The place of the key's target among those that the table was made of; `None` when there is none.
    #[inline]
    #[must_use]
    pub fn get(&self, key: u64) -> Option<usize> {
        let index = self.find(key, |_| true)?;
        Some(index as usize)
    }

    pub(crate) fn build(settings: &RingConfig, candidates: &[Candidate]) -> Self {
        Self::new(candidates, settings.points)
    }

    #[inline]
    pub(crate) fn choose(&self, ask: &Ask, memory: &Memory) -> Option<usize> {
        let index = self.find(key(ask, memory), |_| true)?;
        Some(index as usize)
    }

    pub(crate) fn next(
        &self,
        ask: &Ask,
        memory: &Memory,
        admit: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let index = self.find(key(ask, memory), |index| admit(index as usize))?;
        Some(index as usize)
    }

    /// Makes a ring with so many points for a node of the largest weight (and up to twice as many, see above).
    pub(crate) fn new(nodes: &[Candidate], points: u32) -> Self {
        let live = live(nodes);
        let counts = counts(nodes, &live, points);
        let total: u64 = counts.iter().sum();
        let bits = u64::BITS - total.saturating_sub(1).leading_zeros();
        let bits = bits.clamp(1, 31);
        let shift = 32 - bits;
        // Sorted by counting: places are uniform, so that what has the same beginning is few.
        let mut index = vec![0_u32; (1 << bits) + 1];
        let place = |node: u32, number: u64| {
            let hash = mix(nodes[node as usize].hash, number);
            hash >> 32 << 32 | u64::from(node)
        };
        for (&node, &count) in live.iter().zip(&counts) {
            for number in 0..count {
                index[(place(node, number) >> 32 >> shift) as usize + 1] += 1;
            }
        }
        for beginning in 1..index.len() {
            index[beginning] += index[beginning - 1];
        }
        let mut next = index.clone();
        let mut sorted = vec![0_u64; total as usize].into_boxed_slice();
        for (&node, &count) in live.iter().zip(&counts) {
            for number in 0..count {
                let point = place(node, number);
                let free = &mut next[(point >> 32 >> shift) as usize];
                sorted[*free as usize] = point;
                *free += 1;
            }
        }
        for pair in index.windows(2) {
            sorted[pair[0] as usize..pair[1] as usize].sort_unstable();
        }
        Self {
            points: sorted,
            index: index.into_boxed_slice(),
            shift,
            live,
        }
    }

    /// The node of a key: the first that fits, clockwise from the key on.
    #[inline]
    pub(crate) fn find(&self, key: u64, mut fits: impl FnMut(u32) -> bool) -> Option<u32> {
        let key = spread(key);
        let at = self.at(key);
        let index = *self.points.get(at)? as u32;
        if fits(index) {
            return Some(index);
        }
        self.otherwise(key, at, fits)
    }

    /// Walks on, for some points; then all nodes are looked at one by one.
    #[cold]
    fn otherwise(&self, key: u64, at: usize, mut fits: impl FnMut(u32) -> bool) -> Option<u32> {
        let (before, after) = self.points.split_at(at + 1);
        let mut last = before[at] as u32;
        after
            .iter()
            .chain(before)
            .take(2 * self.live.len() + 32)
            .map(|&point| point as u32)
            .find(|&index| std::mem::replace(&mut last, index) != index && fits(index))
            .or_else(|| scan(&self.live, key, fits))
    }

    /// The node that owns a spread hash.
    #[inline]
    pub(crate) fn owner(&self, hash: u64) -> Option<u32> {
        self.points.get(self.at(hash)).map(|&point| point as u32)
    }

    /// The nodes that may be chosen.
    pub(crate) fn live(&self) -> &[u32] {
        &self.live
    }

    /// The number of the first point at or after a spread hash.
    #[inline]
    fn at(&self, hash: u64) -> usize {
        let place = hash >> 32;
        let start = self.index[(place >> self.shift) as usize] as usize;
        let rest = self.points.get(start..).unwrap_or_default();
        let step = rest.iter().position(|&point| point >> 32 >= place);
        // Beyond the last point the circle begins again.
        step.map_or(0, |step| start + step)
    }
}

/// How many points each live node gets.
fn counts(nodes: &[Candidate], live: &[u32], points: u32) -> Vec<u64> {
    let weights = || {
        live.iter()
            .map(|&index| u64::from(nodes[index as usize].weight))
    };
    let heaviest = weights().max().unwrap_or(1);
    // A power of two changes more rarely than the weight itself, when nodes come and go.
    let mut unit = 1_u64 << heaviest.ilog2();
    loop {
        let count = |weight: u64| (weight * u64::from(points)).div_ceil(unit).max(1);
        let total: u64 = weights().map(count).sum();
        if total <= u64::from(RING_LARGEST).max(live.len() as u64) {
            return weights().map(count).collect();
        }
        unit *= 2;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::algorithm::properties::{KEYS, nodes, owners, weighted};

    #[test]
    fn a_key_belongs_to_the_first_point_at_or_after_it() {
        let ring = Ring::new(&nodes(50), 20);
        assert!(ring.points.is_sorted());
        for key in 0..KEYS {
            let place = spread(key) >> 32;
            let point = ring.points.iter().find(|&&point| point >> 32 >= place);
            let expected = *point.unwrap_or(&ring.points[0]) as u32;
            assert_eq!(ring.find(key, |_| true), Some(expected));
        }
    }

    #[test]
    fn a_target_has_points_by_its_weight() {
        let ring = Ring::new(&weighted(&[1, 2, 4, 0]), 160);
        let count = |node| {
            ring.points
                .iter()
                .filter(|&&point| point as u32 == node)
                .count()
        };
        assert_eq!([count(0), count(1), count(2), count(3)], [40, 80, 160, 0]);
        let ring = Ring::new(&weighted(&[100, 100]), 160);
        assert_eq!(ring.points.len(), 2 * 250);
    }

    #[test]
    fn a_ring_has_no_more_points_than_its_limit() {
        let ring = Ring::new(&nodes(10_000), 1_000);
        assert!(ring.points.len() <= RING_LARGEST as usize);
        assert!(ring.points.len() > RING_LARGEST as usize / 4);
    }

    #[test]
    fn shares_are_within_a_third_of_the_weights() {
        // The share of a target with 160 points deviates by about 1 / sqrt(160), 8 %.
        let nodes = nodes(50);
        let ring = Ring::new(&nodes, 160);
        for count in owners(50, |key| ring.find(key, |_| true)) {
            let share = f64::from(count) * 50.0 / KEYS as f64;
            assert!((0.67..1.33).contains(&share), "{share}");
        }
    }
}
