//! Random choice, alike or by weight.
//!
//! # Algorithm
//! Walker's alias method ("An efficient method for generating discrete random variables with general distributions",
//! ACM TOMS 3(3), 1977) with Vose's linear construction (IEEE TSE 17(9), 1991), in whole numbers: one column a target,
//! each of the same height, filled by at most two targets. A pick is one multiplication and one comparison, whatever the
//! weights.

use super::memory::Memory;
use super::{Candidate, Loads, least_loaded};

/// A random choice among targets.
#[derive(Debug)]
pub(crate) enum RandomTable {
    /// Each alike.
    Alike { targets: usize },
    /// By weight.
    Weighted(AliasTable),
}

impl RandomTable {
    /// Gives each the same.
    pub(crate) fn alike(candidates: &[Candidate]) -> Self {
        Self::Alike {
            targets: candidates.len(),
        }
    }

    /// Gives each by its weight.
    pub(crate) fn weighted(candidates: &[Candidate]) -> Self {
        let first = candidates.first().map_or(0, |c| c.weight);
        if candidates.iter().all(|c| c.weight == first) {
            return Self::alike(candidates);
        }
        Self::Weighted(AliasTable::build(candidates))
    }

    /// Chooses one.
    #[inline]
    pub(crate) fn choose(&self, memory: &Memory) -> Option<usize> {
        match self {
            Self::Alike { targets: 0 } => None,
            Self::Alike { targets } => Some(memory.below(*targets)),
            Self::Weighted(table) => table.at(memory.draw()),
        }
    }

    /// Chooses among those admitted.
    pub(crate) fn next<L: Loads + ?Sized>(
        &self,
        loads: &L,
        memory: &Memory,
        admit: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        (0..32)
            .filter_map(|_| self.choose(memory))
            .find(|&index| admit(index))
            .or_else(|| least_loaded(loads, memory, admit))
    }
}

/// A column: how far it is its own target's, and whose it is above.
#[derive(Debug, Clone, Copy)]
struct Column {
    own: u32,
    other: u32,
}

/// An alias table.
#[derive(Debug)]
pub(crate) struct AliasTable {
    columns: Box<[Column]>,
}

impl AliasTable {
    /// Builds the table of the candidates' weights.
    pub(crate) fn build(candidates: &[Candidate]) -> Self {
        let targets = candidates.len() as u128;
        let total: u128 = candidates.iter().map(|c| u128::from(c.weight)).sum();
        let mut columns: Vec<Column> = (0..candidates.len() as u32)
            .map(|index| Column {
                own: u32::MAX,
                other: index,
            })
            .collect();
        if total == 0 {
            return Self {
                columns: columns.into(),
            };
        }
        // A column is `total` high; each target has `weight * targets` to put into the columns.
        let mut rest: Vec<u128> = candidates
            .iter()
            .map(|c| u128::from(c.weight) * targets)
            .collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..rest.len()).partition(|&index| rest[index] < total);
        while let (Some(&low), Some(&high)) = (small.last(), large.last()) {
            small.pop();
            columns[low] = Column {
                own: (rest[low] * u128::from(u32::MAX) / total) as u32,
                other: high as u32,
            };
            rest[high] -= total - rest[low];
            if rest[high] < total {
                large.pop();
                small.push(high);
            }
        }
        Self {
            columns: columns.into(),
        }
    }

    /// The target at a point of the interval that the 64 bits span.
    #[inline]
    pub(crate) fn at(&self, bits: u64) -> Option<usize> {
        // The column by the whole part of the product, the place in it by its fraction.
        let product = u128::from(bits) * self.columns.len() as u128;
        let index = (product >> 64) as usize;
        let height = (product as u64 >> 32) as u32;
        let column = self.columns.get(index)?;
        Some(if height < column.own {
            index
        } else {
            column.other as usize
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::algorithm::tests::candidates;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_columns_of_each_target_add_up_to_its_weight(
            weights in proptest::collection::vec(1_u32..1000, 1..50),
        ) {
            let table = AliasTable::build(&candidates(&weights));
            let targets = weights.len() as f64;
            let total: f64 = weights.iter().copied().map(f64::from).sum();
            let mut shares = vec![0.0; weights.len()];
            for (index, column) in table.columns.iter().enumerate() {
                let own = f64::from(column.own) / f64::from(u32::MAX);
                shares[index] += own / targets;
                shares[column.other as usize] += (1.0 - own) / targets;
            }
            for (share, weight) in shares.iter().zip(&weights) {
                prop_assert!((share - f64::from(*weight) / total).abs() < 1e-7);
            }
        }
    }

    #[test]
    fn random_choices_follow_the_weights() {
        let table = RandomTable::weighted(&candidates(&[1, 2, 7]));
        let memory = Memory::new(3);
        let mut counts = [0_u32; 3];
        for _ in 0..100_000 {
            counts[table.choose(&memory).expect("a target")] += 1;
        }
        for (count, expected) in counts.into_iter().zip([10_000, 20_000, 70_000]) {
            assert!(count.abs_diff(expected) < 700, "{counts:?}");
        }
    }

    #[test]
    fn the_only_target_is_chosen_and_of_none_nobody() {
        let memory = Memory::new(3);
        assert_eq!(
            AliasTable::build(&candidates(&[9])).at(memory.draw()),
            Some(0)
        );
        assert_eq!(AliasTable::build(&candidates(&[])).at(memory.draw()), None);
        assert_eq!(
            RandomTable::weighted(&candidates(&[])).choose(&memory),
            None
        );
    }
}
