//! Rendezvous hashing: the target that draws the highest for a key has it. Exact weights, least disruption, no table.

use super::hash::{draw, key, live, scan, spread};
use super::memory::Memory;
use super::{Ask, Candidate};

/// How many nodes are expected to pass the first comparison. That none does, and all are computed exactly, happens
/// once in e^20 keys.
const EXPECTED: f64 = 20.0;

/// Next best nodes to look at before all are looked at in turn.
const ATTEMPTS: usize = 8;

/// Highest random weight.
///
/// # Algorithm
///
/// Thaler and Ravishankar, "A name-based mapping scheme for rendezvous", 1996, with the weights of Schindelhauer
/// and Schomaker, "Weighted distributed hash tables", SPAA 2005: a node draws a uniform x by the hash of the key and its own, and the
/// smallest -ln(1 - x) / weight wins. Only an x below some bound of the node can win, nearly always, so
/// that the logarithm is computed for about twenty nodes and the others cost a multiplication and a comparison each.
/// When a node goes its keys spread over all others by their weights, and no other key moves.
#[derive(Debug, Clone)]
pub struct Rendezvous {
    nodes: Box<[Drawer]>,
    live: Box<[u32]>,
}

#[derive(Debug, Clone, Copy)]
struct Drawer {
    hash: u64,
    /// What is drawn above this does not win, or nobody is below.
    bound: u64,
    /// One by the weight.
    rate: f64,
}

impl Rendezvous {
    /// Makes a table of targets, each by the hash of its name ([`key_of`](crate::key_of)) and its weight; those of
    /// weight 0 get no key. For who wants it without a balancer.
    #[must_use]
    pub fn of(targets: &[(u64, u32)]) -> Self {
        Self::build(&super::hash::candidates(targets))
    }

    /// The place of the key's target among those that the table was made of; `None` when there is none.
    #[inline]
    #[must_use]
    pub fn get(&self, key: u64) -> Option<usize> {
        let index = self.find(key, |_| true)?;
        Some(index as usize)
    }

    pub(crate) fn build(candidates: &[Candidate]) -> Self {
        Self::new(candidates)
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

    pub(crate) fn new(nodes: &[Candidate]) -> Self {
        let live = live(nodes);
        let weight = |index: u32| f64::from(nodes[index as usize].weight);
        let total: f64 = live.iter().map(|&index| weight(index)).sum();
        let drawer = |&index: &u32| Drawer {
            hash: nodes[index as usize].hash,
            // -ln(1 - x) of all nodes is least about 1 / total: who draws above EXPECTED times that is out.
            bound: to_draw(1.0 - (-EXPECTED * weight(index) / total).exp()),
            rate: 1.0 / weight(index),
        };
        Self {
            nodes: live.iter().map(drawer).collect(),
            live,
        }
    }

    /// The node of a key: the best that fits.
    #[inline]
    pub(crate) fn find(&self, key: u64, mut fits: impl FnMut(u32) -> bool) -> Option<u32> {
        let key = spread(key);
        let first = self.best(key, f64::NEG_INFINITY)?;
        let index = self.live[first.1];
        if fits(index) {
            return Some(index);
        }
        self.otherwise(key, first.0, fits)
    }

    #[cold]
    fn otherwise(
        &self,
        key: u64,
        mut score: f64,
        mut fits: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        for _ in 0..ATTEMPTS {
            let (next, place) = self.exact(key, score)?;
            let index = self.live[place];
            if fits(index) {
                return Some(index);
            }
            score = next;
        }
        scan(&self.live, key, fits)
    }

    /// The least score above `above`, and the place of the node that has it.
    #[inline]
    fn best(&self, key: u64, above: f64) -> Option<(f64, usize)> {
        let mut best: Option<(f64, usize)> = None;
        for (place, node) in self.nodes.iter().enumerate() {
            let drawn = draw(key, node.hash);
            if drawn <= node.bound {
                let score = exponential(drawn) * node.rate;
                if best.is_none_or(|(least, _)| score < least) {
                    best = Some((score, place));
                }
            }
        }
        best.or_else(|| self.exact(key, above))
    }

    /// The same, computed for all.
    #[cold]
    fn exact(&self, key: u64, above: f64) -> Option<(f64, usize)> {
        let scores = self.nodes.iter().enumerate().map(|(place, node)| {
            let score = exponential(draw(key, node.hash)) * node.rate;
            (score, place)
        });
        scores
            .filter(|(score, _)| *score > above)
            .min_by(|one, other| one.0.total_cmp(&other.0))
    }
}

/// What one draws for `x`, rounded up.
fn to_draw(x: f64) -> u64 {
    // Saturates at the greatest number.
    (x * TWO_64).ceil() as u64
}

const TWO_64: f64 = 18_446_744_073_709_551_616.0;

/// -ln(1 - x) for a drawn x of 64 bits; by additions, multiplications and divisions alone, so that every machine finds the
/// same.
fn exponential(drawn: u64) -> f64 {
    let x = (drawn as f64 + 0.5) / TWO_64;
    if x <= 0.5 {
        return series(x);
    }
    // 1 - x = m / 2^k with m in (1/2, 1].
    let rest = !drawn;
    let zeros = rest.leading_zeros();
    let scale = if zeros == u64::BITS {
        TWO_64
    } else {
        (1_u64 << zeros) as f64
    };
    let m = (rest as f64 + 0.5) / TWO_64 * scale;
    f64::from(zeros) * std::f64::consts::LN_2 + series((1.0 - m).clamp(0.0, 0.5))
}

/// -ln(1 - x) = 2 artanh(x / (2 - x)), for x up to 1/2.
fn series(x: f64) -> f64 {
    let s = x / (2.0 - x);
    let square = s * s;
    let mut sum = 0.0;
    let mut divisor = 33.0;
    while divisor > 0.0 {
        sum = sum * square + 1.0 / divisor;
        divisor -= 2.0;
    }
    2.0 * s * sum
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::algorithm::properties::{KEYS, nodes, weighted};

    #[test]
    fn the_logarithm_is_exact_to_twelve_digits() {
        for bits in 0..64 {
            for drawn in [
                1 << bits,
                (1_u64 << bits) - 1,
                !(1 << bits),
                u64::MAX >> bits,
            ] {
                let x = (drawn as f64 + 0.5) / TWO_64;
                let expected = if drawn > u64::MAX / 2 {
                    // 1 - x has few digits left: from what is missing.
                    -((!drawn as f64 + 0.5) / TWO_64).ln()
                } else {
                    -(-x).ln_1p()
                };
                let error = (exponential(drawn) - expected).abs() / expected;
                assert!(
                    error < 1e-12,
                    "{drawn:#x}: {} {expected}",
                    exponential(drawn)
                );
            }
        }
    }

    #[test]
    fn the_short_cut_finds_what_the_whole_computation_finds() {
        for nodes in [nodes(3), nodes(300), weighted(&[1, 5, 1_000, 0, 3])] {
            let table = Rendezvous::new(&nodes);
            for key in 0..KEYS / 10 {
                let key = spread(key);
                assert_eq!(
                    table.best(key, f64::NEG_INFINITY),
                    table.exact(key, f64::NEG_INFINITY)
                );
            }
        }
    }
}
