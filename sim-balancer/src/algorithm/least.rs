//! The least loaded target: by what it has in hand, or by that times how long it takes.
//!
//! # Algorithm
//! Every candidate has a score: (outstanding + 1) / weight, times the average latency where latency counts (Finagle's
//! least loaded and peak EWMA). The lowest is taken, either of all, or of a few drawn at random (Mitzenmacher, "The power
//! of two choices in randomized load balancing", IEEE TPDS 12(10), 2001). A scan begins at a random place, so that those
//! that are alike get alike.
//!
//! A target that nothing is known of counts as typical: were it free, all would go there until its first answer.

use super::load::{Decay, Load, tick};
use super::memory::{Memory, mix, scaled};
use super::{Ask, Candidate, Choices, Loads};

/// Up to how many targets [`Choices::Auto`] looks at all.
pub(crate) const AUTO_SCAN: usize = 32;
/// How many [`Choices::Auto`] draws of more.
const AUTO_SAMPLES: u32 = 8;

/// What is least.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Score {
    /// What it has in hand.
    Outstanding,
    /// That times its latency.
    Latency(Decay),
}

/// A choice of the least loaded.
#[derive(Debug)]
pub(crate) struct LeastTable {
    score: Score,
    /// How many are drawn; zero for all.
    samples: u32,
    /// One over the weight of each, or empty when all weigh the same.
    lightness: Box<[f32]>,
}

impl LeastTable {
    /// Builds the table of the candidates.
    pub(crate) fn build(score: Score, choices: Choices, candidates: &[Candidate]) -> Self {
        let targets = candidates.len();
        let samples = match choices {
            Choices::All => 0,
            Choices::Auto if targets <= AUTO_SCAN => 0,
            Choices::Auto => AUTO_SAMPLES,
            Choices::Sample(samples) if samples as usize >= targets => 0,
            Choices::Sample(samples) => samples,
        };
        let first = candidates.first().map_or(0, |c| c.weight);
        let lightness = if candidates.iter().all(|c| c.weight == first) {
            Box::default()
        } else {
            candidates
                .iter()
                .map(|c| 1.0 / c.weight.max(1) as f32)
                .collect()
        };
        Self {
            score,
            samples,
            lightness,
        }
    }

    /// Chooses the least loaded of all, or of those drawn.
    #[inline]
    pub(crate) fn choose<L: Loads + ?Sized>(
        &self,
        loads: &L,
        ask: &Ask,
        memory: &Memory,
    ) -> Option<usize> {
        let targets = loads.len();
        if targets <= 1 {
            return targets.checked_sub(1);
        }
        match self.score {
            Score::Outstanding => {
                self.least(targets, memory, 1.0, |index| in_hand(loads.load(index)))
            }
            Score::Latency(decay) => {
                let (now, typical) = (tick(ask.now), memory.typical());
                self.least(targets, memory, 0.0, |index| {
                    expected(loads.load(index), now, &decay, typical)
                })
            }
        }
    }

    /// The least loaded of those admitted.
    pub(crate) fn next<L: Loads + ?Sized>(
        &self,
        loads: &L,
        ask: &Ask,
        memory: &Memory,
        admit: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let (now, typical) = (tick(ask.now), memory.typical());
        let score = |index: usize| {
            let load = loads.load(index);
            let score = match self.score {
                Score::Outstanding => in_hand(load),
                Score::Latency(decay) => expected(load, now, &decay, typical),
            };
            score * self.lightness.get(index).copied().unwrap_or(1.0)
        };
        let targets = loads.len();
        let start = memory.below(targets);
        (start..targets)
            .chain(0..start)
            .filter(|&index| admit(index))
            .min_by(|&a, &b| score(a).total_cmp(&score(b)))
    }

    /// `floor`: a score that nobody is below when all weigh the same.
    #[inline]
    fn least(
        &self,
        targets: usize,
        memory: &Memory,
        floor: f32,
        score: impl Fn(usize) -> f32,
    ) -> Option<usize> {
        let bits = memory.draw();
        if self.lightness.is_empty() {
            self.lowest(targets, bits, floor, score)
        } else {
            self.lowest(targets, bits, 0.0, |index| {
                score(index) * self.lightness[index]
            })
        }
    }

    #[inline]
    fn lowest(
        &self,
        targets: usize,
        bits: u64,
        floor: f32,
        score: impl Fn(usize) -> f32,
    ) -> Option<usize> {
        let first = scaled((bits >> 32) as u32, targets);
        match self.samples {
            0 => Some(scan(targets, first, floor, score)),
            2 => {
                // Another one: a draw among the rest.
                let second = scaled(bits as u32, targets - 1);
                let second = second + usize::from(second >= first);
                let (a, b) = (score(first), score(second));
                Some(if b < a { second } else { first })
            }
            samples => {
                let (mut best, mut least) = (first, score(first));
                let mut bits = bits;
                for drawn in 1..samples {
                    // Two draws of 32 bits from each mixing.
                    if drawn % 2 == 0 {
                        bits = mix(bits.wrapping_add(u64::from(drawn)));
                    }
                    let half = if drawn % 2 == 0 {
                        (bits >> 32) as u32
                    } else {
                        bits as u32
                    };
                    let index = scaled(half, targets);
                    let score = score(index);
                    if score < least {
                        (best, least) = (index, score);
                    }
                }
                Some(best)
            }
        }
    }
}

/// The lowest of all, beginning at `first`; ends early at one that is as low as can be.
#[inline]
fn scan(targets: usize, first: usize, floor: f32, score: impl Fn(usize) -> f32) -> usize {
    let (mut best, mut least) = (first, score(first));
    for index in (first + 1..targets).chain(0..first) {
        if least <= floor {
            break;
        }
        let score = score(index);
        if score < least {
            (best, least) = (index, score);
        }
    }
    best
}

#[inline]
fn in_hand(load: &Load) -> f32 {
    load.outstanding() as f32 + 1.0
}

#[inline]
fn expected(load: &Load, now: u64, decay: &Decay, typical: f32) -> f32 {
    let cost = load.cost(now, decay);
    let cost = if cost == 0.0 { typical.max(1.0) } else { cost };
    cost * in_hand(load)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use sim_core::time::Instant;

    use super::*;
    use crate::algorithm::load::Entry;
    use crate::algorithm::tests::{ask, candidates, loads};

    const NOW: Instant = Instant::from_nanos(1_000_000_000);

    fn table(choices: Choices, weights: &[u32]) -> LeastTable {
        LeastTable::build(Score::Outstanding, choices, &candidates(weights))
    }

    fn busy(loads: &[Load], counts: &[usize]) {
        for (load, &count) in loads.iter().zip(counts) {
            for _ in 0..count {
                load.enter(Entry::New).expect("room");
            }
        }
    }

    #[test]
    fn the_least_outstanding_of_all_is_found() {
        let loads = loads(5);
        busy(&loads, &[3, 2, 1, 4, 2]);
        let memory = Memory::new(1);
        for _ in 0..20 {
            let chosen = table(Choices::All, &[1; 5]).choose(&loads, &ask(NOW), &memory);
            assert_eq!(chosen, Some(2));
        }
    }

    #[test]
    fn a_heavier_target_may_have_more_in_hand() {
        let loads = loads(2);
        busy(&loads, &[2, 1]);
        // 3 / 400 is less than 2 / 100.
        let chosen = table(Choices::All, &[400, 100]).choose(&loads, &ask(NOW), &Memory::new(1));
        assert_eq!(chosen, Some(0));
    }

    #[test]
    fn those_that_are_alike_get_alike() {
        let loads = loads(4);
        let memory = Memory::new(1);
        let table = table(Choices::All, &[1; 4]);
        let mut counts = [0; 4];
        for _ in 0..4_000 {
            counts[table.choose(&loads, &ask(NOW), &memory).expect("one")] += 1;
        }
        assert!(
            counts.iter().all(|&c| (850..1_150).contains(&c)),
            "{counts:?}"
        );
    }

    #[test]
    fn of_two_drawn_the_lesser_is_taken_and_they_are_never_the_same() {
        let loads = loads(3);
        busy(&loads, &[0, 5, 5]);
        let memory = Memory::new(1);
        let table = table(Choices::Sample(2), &[1; 3]);
        let mut counts = [0; 3];
        for _ in 0..3_000 {
            counts[table.choose(&loads, &ask(NOW), &memory).expect("one")] += 1;
        }
        // The idle one is among two of three pairs.
        assert!((1_900..2_100).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn a_slow_target_gets_less_until_its_peak_has_worn_out() {
        let decay = Decay::peak(Duration::from_secs(10));
        let table = LeastTable::build(Score::Latency(decay), Choices::All, &candidates(&[1, 1]));
        let loads = loads(2);
        assert!(loads[0].record(9e6, NOW, &decay));
        assert!(loads[1].record(1e6, NOW, &decay));
        let memory = Memory::new(1);
        busy(&loads, &[0, 7]);
        assert_eq!(table.choose(&loads, &ask(NOW), &memory), Some(1));
        busy(&loads, &[0, 2]);
        assert_eq!(table.choose(&loads, &ask(NOW), &memory), Some(0));
    }

    #[test]
    fn a_new_target_counts_as_typical_and_is_not_flooded() {
        let decay = Decay::peak(Duration::from_secs(10));
        let table = LeastTable::build(Score::Latency(decay), Choices::All, &candidates(&[1, 1]));
        let loads = loads(2);
        let memory = Memory::new(1);
        assert!(loads[0].record(1e6, NOW, &decay));
        memory.typify(1e6);
        let mut counts = [0; 2];
        for _ in 0..10 {
            let index = table.choose(&loads, &ask(NOW), &memory).expect("one");
            loads[index].enter(Entry::New).expect("room");
            counts[index] += 1;
        }
        assert_eq!(counts, [5, 5]);
    }

    #[test]
    fn the_next_is_the_least_of_those_admitted() {
        let loads = loads(4);
        busy(&loads, &[0, 2, 1, 3]);
        let memory = Memory::new(1);
        let table = table(Choices::Sample(2), &[1; 4]);
        let next = table.next(&loads, &ask(NOW), &memory, &|index| index != 0);
        assert_eq!(next, Some(2));
        assert_eq!(table.next(&loads, &ask(NOW), &memory, &|_| false), None);
    }
}
