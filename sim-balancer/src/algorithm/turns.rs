//! Round robin and smooth weighted round robin: the order is written down when the table is built, and a pick takes the
//! next turn.
//!
//! # Algorithm
//! The smooth schedule is nginx's (Igor Sysoev, 2012): at each turn every target gains its weight, the one that has most
//! is taken and pays the sum of all. Weights 5, 1, 1 give a a b a c a a. It repeats after the sum of the weights over
//! their greatest common divisor, so that it can be written down once and read with one addition by all threads.
//!
//! Writing it down costs targets times turns. Beyond [`STEPS`] of these it is written by earliest deadline first: the
//! k-th turn of a target of weight w is due at (k - 1/2) / w. The shares are the same, and each target's turns are as far
//! apart; only the order among targets may differ.
//!
//! A schedule of more than [`LONGEST`] turns is not written. Turns are then dealt by an alias table, not with random
//! numbers but with the multiples of the golden ratio, which fill an interval more evenly than any other additive
//! sequence (Weyl; Knuth, TAOCP 3, 6.4): the shares are exact in the long run, and close in the short one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::alias::AliasTable;
use super::memory::{Memory, Turns};
use super::{Candidate, Loads, least_loaded};

/// The longest schedule that is written down: 65,536 turns, 256 KiB.
pub(crate) const LONGEST: u64 = 1 << 16;
/// The most steps for nginx's own schedule: about a millisecond.
const STEPS: u64 = 1 << 20;
/// The golden ratio's fraction in 64 bits.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Whose turn it is.
#[derive(Debug)]
pub(crate) struct TurnTable {
    turns: Turns,
    order: Order,
}

/// In which order turns go.
#[derive(Debug)]
enum Order {
    /// Each in its turn.
    Plain { targets: Divisor },
    /// As it is written.
    Written {
        schedule: Box<[u32]>,
        length: Divisor,
    },
    /// Too long to be written.
    Dealt { shares: AliasTable },
}

impl TurnTable {
    /// Gives each target turns by its weight.
    pub(crate) fn weighted(candidates: &[Candidate], turns: Turns) -> Self {
        Self {
            turns,
            order: Order::weighted(candidates),
        }
    }

    /// The next in turn.
    #[inline]
    pub(crate) fn choose(&self) -> Option<usize> {
        let turn = self.turns.take();
        match &self.order {
            Order::Plain { targets } => Some(targets.rest_of(turn as u32)? as usize),
            Order::Written { schedule, length } => {
                let turn = length.rest_of(turn as u32)?;
                schedule.get(turn as usize).map(|&index| index as usize)
            }
            Order::Dealt { shares } => shares.at(turn.wrapping_mul(GOLDEN)),
        }
    }

    /// The next in turn among those admitted.
    pub(crate) fn next<L: Loads + ?Sized>(
        &self,
        loads: &L,
        memory: &Memory,
        admit: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        // A few turns find one unless nearly all are barred; then the order does not matter any more.
        (0..loads.len().min(32))
            .filter_map(|_| self.choose())
            .find(|&index| admit(index))
            .or_else(|| least_loaded(loads, memory, admit))
    }
}

impl Order {
    fn weighted(candidates: &[Candidate]) -> Self {
        let divisor = candidates
            .iter()
            .fold(0, |divisor, c| gcd(divisor, u64::from(c.weight)))
            .max(1);
        let weights: Vec<u64> = candidates
            .iter()
            .map(|c| u64::from(c.weight) / divisor)
            .collect();
        if weights.iter().all(|&weight| weight == 1) {
            return Self::Plain {
                targets: Divisor::new(candidates.len() as u32),
            };
        }
        let turns = weights.iter().sum::<u64>();
        if turns > LONGEST {
            let shares = AliasTable::build(candidates);
            return Self::Dealt { shares };
        }
        let schedule = if turns * weights.len() as u64 <= STEPS {
            smooth(&weights, turns)
        } else {
            by_deadline(&weights, turns)
        };
        Self::Written {
            length: Divisor::new(schedule.len() as u32),
            schedule,
        }
    }
}

/// A number to divide by, without a division each time.
///
/// Lemire, Kaser and Kurz, "Faster remainder by direct computation" (Software: Practice and Experience 49(6), 2019):
/// exact for all numbers of 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Divisor {
    number: u32,
    /// 2^64 over the number, rounded up.
    inverse: u64,
}

impl Divisor {
    pub(crate) fn new(number: u32) -> Self {
        let inverse = (u64::MAX / u64::from(number.max(1))).wrapping_add(1);
        Self { number, inverse }
    }

    /// What the division leaves over; nothing when it is by zero.
    #[inline]
    pub(crate) fn rest_of(self, dividend: u32) -> Option<u32> {
        let fraction = self.inverse.wrapping_mul(u64::from(dividend));
        let rest = (u128::from(fraction) * u128::from(self.number)) >> 64;
        (self.number != 0).then_some(rest as u32)
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// nginx's schedule.
fn smooth(weights: &[u64], turns: u64) -> Box<[u32]> {
    let mut current = vec![0_i64; weights.len()];
    (0..turns)
        .map(|_| {
            let mut best = 0;
            for (index, weight) in weights.iter().enumerate() {
                current[index] += *weight as i64;
                if current[index] > current[best] {
                    best = index;
                }
            }
            current[best] -= turns as i64;
            best as u32
        })
        .collect()
}

/// The schedule by earliest deadline first.
fn by_deadline(weights: &[u64], turns: u64) -> Box<[u32]> {
    // Deadlines as whole numbers: of turn k, (2k - 1) * scale / (2 * weight).
    let scale = 1_u64 << 40;
    let mut due: BinaryHeap<Reverse<(u64, u32, u64)>> = weights
        .iter()
        .enumerate()
        .filter(|(_, weight)| **weight > 0)
        .map(|(index, weight)| Reverse((scale / (2 * weight), index as u32, 1)))
        .collect();
    (0..turns)
        .filter_map(|_| {
            let Reverse((_, index, turn)) = due.pop()?;
            let weight = weights[index as usize];
            let next = (2 * turn + 1) * scale / (2 * weight);
            due.push(Reverse((next, index, turn + 1)));
            Some(index)
        })
        .collect()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        crate::algorithm::tests::candidates(weights)
    }

    fn weighted(candidates: &[Candidate]) -> TurnTable {
        TurnTable::weighted(candidates, Memory::new(0).turns())
    }

    fn picks(table: &TurnTable, count: usize) -> Vec<usize> {
        (0..count)
            .map(|_| table.choose().expect("a target"))
            .collect()
    }

    #[test]
    fn each_gets_its_turn() {
        let table = weighted(&candidates(&[1, 1, 1]));
        assert_eq!(picks(&table, 7), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn weights_five_one_one_are_spread_as_nginx_does() {
        let table = weighted(&candidates(&[500, 100, 100]));
        assert_eq!(picks(&table, 8), [0, 0, 1, 0, 2, 0, 0, 0]);
    }

    #[test]
    fn equal_weights_need_no_schedule() {
        let table = weighted(&candidates(&[7, 7, 7]));
        assert!(matches!(table.order, Order::Plain { targets } if targets == Divisor::new(3)));
    }

    #[test]
    fn an_empty_table_chooses_nobody() {
        let none = candidates(&[]);
        assert_eq!(weighted(&none).choose(), None);
    }

    #[test]
    fn a_schedule_that_is_too_long_is_dealt_with_the_same_shares() {
        let weights = [65_521, 32_749, 16_381, 3];
        let table = weighted(&candidates(&weights));
        assert!(matches!(table.order, Order::Dealt { .. }));
        let total: u32 = weights.iter().sum();
        let mut counts = [0_f64; 4];
        for index in picks(&table, total as usize) {
            counts[index] += 1.0;
        }
        for (count, weight) in counts.iter().zip(weights) {
            assert!(
                (count - f64::from(weight)).abs() <= 12.0,
                "{counts:?} of {weights:?}"
            );
        }
    }

    #[test]
    fn many_targets_are_scheduled_by_deadline_with_exact_shares() {
        let weights: Vec<u32> = (0..500).map(|i| 1 + i % 100).collect();
        let table = weighted(&candidates(&weights));
        let total: u32 = weights.iter().sum();
        let mut counts = vec![0; 500];
        for index in picks(&table, total as usize) {
            counts[index] += 1;
        }
        assert_eq!(counts, weights);
    }

    proptest! {
        #[test]
        fn the_rest_is_that_of_a_division(dividend: u32, number: u32) {
            prop_assert_eq!(
                Divisor::new(number).rest_of(dividend),
                dividend.checked_rem(number)
            );
        }

        #[test]
        fn in_any_stretch_of_the_schedule_nobody_is_far_from_its_share(
            weights in proptest::collection::vec(1_u32..40, 1..12),
            from in 0_usize..100,
            length in 1_usize..200,
        ) {
            let table = weighted(&candidates(&weights));
            let total: u32 = weights.iter().sum();
            let taken = picks(&table, from + length);
            let targets = weights.len() as f64;
            for (index, weight) in weights.iter().enumerate() {
                let count = taken[from..].iter().filter(|&&i| i == index).count() as f64;
                let share = length as f64 * f64::from(*weight) / f64::from(total);
                prop_assert!((count - share).abs() <= targets, "{} of {}", count, share);
            }
        }

        #[test]
        fn the_schedule_by_deadline_never_runs_ahead_or_behind_by_more_than_one_turn_in_a_prefix(
            weights in proptest::collection::vec(1_u64..60, 1..30),
        ) {
            let turns = weights.iter().sum::<u64>();
            let schedule = by_deadline(&weights, turns);
            let mut counts = vec![0_f64; weights.len()];
            for (turn, &index) in schedule.iter().enumerate() {
                counts[index as usize] += 1.0;
                for (count, weight) in counts.iter().zip(&weights) {
                    let share = (turn + 1) as f64 * *weight as f64 / turns as f64;
                    prop_assert!((count - share).abs() < 2.0);
                }
            }
        }
    }
}
