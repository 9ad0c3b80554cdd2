//! First available: the first target that has room gets all.
//!
//! Neither weights count nor what slow start and mitigation take of them.
//!
//! Good where idle targets can be switched off, as HAProxy's `first`: the last ones stay idle as long as
//! the first ones have room, which is what the limit of outstanding requests says.

use super::Candidate;

/// Targets in the order of their registration.
#[derive(Debug, Clone)]
pub(crate) struct First {
    order: Box<[u32]>,
}

impl First {
    pub(crate) fn build(candidates: &[Candidate]) -> Self {
        let mut order: Vec<u32> = (0..)
            .zip(candidates)
            .filter(|(_, candidate)| candidate.weight > 0)
            .map(|(index, _)| index)
            .collect();
        order.sort_by_key(|&index| candidates[index as usize].rank);
        Self {
            order: order.into_boxed_slice(),
        }
    }

    #[inline]
    pub(crate) fn choose(&self) -> Option<usize> {
        self.order.first().map(|&index| index as usize)
    }

    pub(crate) fn next(&self, admit: &dyn Fn(usize) -> bool) -> Option<usize> {
        let mut order = self.order.iter().map(|&index| index as usize);
        order.find(|&index| admit(index))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::algorithm::properties::weighted;

    #[test]
    fn the_first_that_is_admitted_gets_it() {
        let mut candidates = weighted(&[0, 1, 1, 1]);
        // A place that was another's before says nothing.
        for (slot, candidate) in (0..).zip(candidates.iter_mut().rev()) {
            candidate.slot = slot;
        }
        candidates.reverse();
        let table = First::build(&candidates);
        assert_eq!(
            table.choose(),
            Some(2),
            "the second; the first has no weight"
        );
        assert_eq!(table.next(&|index| index != 2), Some(1));
        assert_eq!(table.next(&|_| false), None);
        assert_eq!(First::build(&[]).choose(), None);
    }
}
