//! What all tables by key have in common, as properties of random sets of targets.

use proptest::prelude::*;

use super::bounded::{Bounded, BoundedConfig};
use super::hash::{hash, mix};
use super::load::{Entry, Exit};
use super::maglev::Maglev;
use super::memory::Memory;
use super::rendezvous::Rendezvous;
use super::ring::Ring;
use super::tests::loads;
use super::{Ask, Candidate};
use sim_core::time::Instant;

/// Keys asked for where shares are counted.
pub(crate) const KEYS: u64 = 50_000;

/// Targets of these weights, named by numbers.
pub(crate) fn weighted(weights: &[u32]) -> Vec<Candidate> {
    (0..)
        .zip(weights)
        .map(|(slot, &weight)| Candidate {
            slot,
            birth: 0,
            rank: u64::from(slot),
            weight,
            share: 100,
            hash: hash(format!("target-{slot}").as_bytes()),
            zone: u32::MAX,
        })
        .collect()
}

/// So many targets of weight one.
pub(crate) fn nodes(count: usize) -> Vec<Candidate> {
    weighted(&vec![1; count])
}

/// How many keys each of the targets gets.
pub(crate) fn owners(count: usize, mut find: impl FnMut(u64) -> Option<u32>) -> Vec<u32> {
    let mut counts = vec![0; count];
    for key in 0..KEYS {
        let index = find(key).expect("there are targets");
        counts[index as usize] += 1;
    }
    counts
}

/// A request with a key.
fn keyed(key: u64) -> Ask {
    Ask {
        key: Some(key),
        now: Instant::ORIGIN,
    }
}

/// A request without a key at some time.
pub(crate) fn ask_at(now: Instant) -> Ask {
    Ask { key: None, now }
}

/// The tables by key.
enum Table {
    Maglev(Maglev),
    Ring(Ring),
    Rendezvous(Rendezvous),
}

impl Table {
    fn all(candidates: &[Candidate]) -> [Self; 3] {
        [
            Self::Maglev(Maglev::new(candidates, 65_537)),
            Self::Ring(Ring::new(candidates, 160)),
            Self::Rendezvous(Rendezvous::new(candidates)),
        ]
    }

    fn find(&self, key: u64, fits: impl FnMut(u32) -> bool) -> Option<u32> {
        match self {
            Self::Maglev(table) => table.find(key, fits),
            Self::Ring(table) => table.find(key, fits),
            Self::Rendezvous(table) => table.find(key, fits),
        }
    }
}

#[test]
fn keys_are_shared_by_weight() {
    let weights = [1, 2, 3, 4, 10, 20];
    let candidates = weighted(&weights);
    let total: u32 = weights.iter().sum();
    for (table, tolerance) in Table::all(&candidates).iter().zip([0.05, 0.45, 0.05]) {
        let counts = owners(weights.len(), |key| table.find(key, |_| true));
        for (count, weight) in counts.into_iter().zip(weights) {
            let fair = KEYS as f64 * f64::from(weight) / f64::from(total);
            // Five deviations of the sample, and what the table itself deviates by.
            let margin = 5.0 * fair.sqrt() + tolerance * fair;
            assert!(
                (f64::from(count) - fair).abs() < margin,
                "{count}, not {fair}"
            );
        }
    }
}

#[test]
fn rendezvous_shares_are_exact_but_for_chance() {
    let weights = [1, 1, 2, 3, 5, 8, 13, 21];
    let table = Rendezvous::new(&weighted(&weights));
    let total: u32 = weights.iter().sum();
    let chi: f64 = owners(weights.len(), |key| table.find(key, |_| true))
        .into_iter()
        .zip(weights)
        .map(|(count, weight)| {
            let fair = KEYS as f64 * f64::from(weight) / f64::from(total);
            (f64::from(count) - fair).powi(2) / fair
        })
        .sum();
    // Seven degrees of freedom: above 29 once in ten thousand.
    assert!(chi < 29.0, "{chi}");
}

#[test]
fn the_keys_of_a_target_that_does_not_fit_spread_over_the_others() {
    let candidates = nodes(20);
    for table in Table::all(&candidates) {
        let mut counts = [0_u32; 20];
        for key in 0..KEYS {
            if table.find(key, |_| true) == Some(7) {
                let other = table
                    .find(key, |index| index != 7)
                    .expect("there are others");
                counts[other as usize] += 1;
            }
        }
        assert_eq!(counts[7], 0);
        let used = counts.iter().filter(|&&count| count > 0).count();
        assert_eq!(used, 19, "{counts:?}");
    }
}

#[test]
fn a_table_without_targets_finds_none() {
    for candidates in [Vec::new(), weighted(&[0, 0])] {
        for table in Table::all(&candidates) {
            assert_eq!(table.find(17, |_| true), None);
        }
    }
}

#[test]
fn a_target_is_found_as_long_as_one_fits() {
    for count in [1, 2, 17, 300] {
        let candidates = nodes(count);
        for table in Table::all(&candidates) {
            for only in [0, count as u32 / 2, count as u32 - 1] {
                for key in 0..50 {
                    assert_eq!(table.find(key, |index| index == only), Some(only));
                }
            }
            assert_eq!(table.find(3, |_| false), None);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Removing a target moves its own keys; with Maglev some few others.
    #[test]
    fn only_the_keys_of_the_target_that_goes_move(
        weights in prop::collection::vec(1_u32..16, 2..40),
        gone in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let before = weighted(&weights);
        let gone = gone.index(weights.len());
        // The index of a target changes with its neighbours; its name does not.
        let mut after = before.clone();
        after.remove(gone);
        for (kind, (full, rest)) in Table::all(&before).iter().zip(&Table::all(&after)).enumerate() {
            let mut moved = 0;
            for number in 0..2_000 {
                let key = mix(seed, number);
                let owner = full.find(key, |_| true).map(|index| index as usize);
                let next = rest.find(key, |_| true).map(|index| after[index as usize].slot as usize);
                prop_assert!(next.is_some() && next != Some(gone));
                if owner != Some(gone) && owner != next {
                    moved += 1;
                }
            }
            match kind {
                0 => prop_assert!(moved <= 120, "{} of 2,000 keys moved", moved),
                1 => {
                    // The ring keeps its points unless the heaviest weight loses its power of two.
                    let power = |all: &[Candidate]| all.iter().map(|one| one.weight.ilog2()).max();
                    prop_assert!(moved == 0 || power(&before) != power(&after), "{} keys moved", moved);
                }
                _ => prop_assert_eq!(moved, 0),
            }
        }
    }

    /// The order of registration makes no difference, a weight of zero gets nothing.
    #[test]
    fn who_came_first_makes_no_difference_and_no_weight_gets_nothing(
        weights in prop::collection::vec(0_u32..8, 1..30),
        seed in any::<u64>(),
    ) {
        let forward = weighted(&weights);
        let mut backward = forward.clone();
        backward.reverse();
        for (one, other) in Table::all(&forward).iter().zip(&Table::all(&backward)) {
            for number in 0..500 {
                let key = mix(seed, number);
                let first = one.find(key, |_| true).map(|index| &forward[index as usize]);
                let second = other.find(key, |_| true).map(|index| &backward[index as usize]);
                prop_assert_eq!(first.map(|one| one.slot), second.map(|one| one.slot));
                prop_assert!(first.is_none_or(|one| one.weight > 0));
                prop_assert_eq!(first.is_some(), weights.iter().any(|&weight| weight > 0));
            }
        }
    }

    /// Whatever comes and goes, no target takes a request that would bring it above its bound.
    #[test]
    fn no_target_is_loaded_beyond_its_bound(
        weights in prop::collection::vec(1_u32..6, 1..20),
        keys in prop::collection::vec((0_u64..40, any::<bool>()), 1..400),
        factor in 1.01_f64..3.0,
    ) {
        let candidates = weighted(&weights);
        let settings = BoundedConfig { factor, ..Default::default() };
        let table = Bounded::build(&settings, &candidates);
        let loads = loads(weights.len());
        let memory = Memory::new(1);
        let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        let mut held: Vec<usize> = Vec::new();
        for (key, give_back) in keys {
            if give_back && !held.is_empty() {
                let _ = loads[held.remove(held.len() / 2)].exit(Exit::Finished);
            }
            let chosen = table.choose(&loads, &keyed(key), &memory).expect("one has room");
            prop_assert!(loads[chosen].enter(Entry::New).is_ok());
            held.push(chosen);
            let share = f64::from(weights[chosen]) / total;
            let bound = (factor * share * held.len() as f64).ceil();
            prop_assert!(f64::from(loads[chosen].outstanding()) <= bound);
        }
    }
}

#[test]
fn a_key_stays_with_its_target_while_that_has_room() {
    let candidates = nodes(10);
    let table = Bounded::build(&BoundedConfig::default(), &candidates);
    let ring = Ring::new(&candidates, 160);
    let loads = loads(candidates.len());
    let memory = Memory::new(1);
    for key in 0..1_000 {
        let chosen = table.choose(&loads, &keyed(key), &memory);
        assert_eq!(chosen, ring.find(key, |_| true).map(|index| index as usize));
    }
    // With ten on each the eleventh of one is beyond ceil(1.25 x 10.1) only from the fourteenth on.
    for load in &loads {
        (0..10).for_each(|_| assert!(load.enter(Entry::New).is_ok()));
    }
    let mut of_key = Vec::new();
    for _ in 0..8 {
        let chosen = table
            .choose(&loads, &keyed(5), &memory)
            .expect("one has room");
        assert!(loads[chosen].enter(Entry::New).is_ok());
        of_key.push(chosen);
    }
    assert!(of_key[..3].iter().all(|&chosen| chosen == of_key[0]));
    assert!(of_key[3..].iter().any(|&chosen| chosen != of_key[0]));
}
