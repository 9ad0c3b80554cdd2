//! Subscriptions that are asked one by one.
//!
//! # Algorithm
//! A base that is shared from one table to the next, and what has changed since it was made: entries that came, and ids
//! of the base that are gone. Once these are more than the square root of the base, a new one is made. So a
//! change costs O(√n), amortised, and the copies that tables make of it as much.

use std::collections::BTreeSet;

use sim_core::sync::Arc;

use crate::message::SubscriptionId;

/// How many changes there may be at least before a new base is made.
const CHANGES: usize = 32;

/// Entries by the ids of their subscriptions.
pub(super) struct Tier<E> {
    /// Invariant: in the order of the ids.
    base: Arc<Vec<(SubscriptionId, E)>>,
    recent: Vec<(SubscriptionId, E)>,
    /// Invariant: all of them are in the base.
    gone: BTreeSet<SubscriptionId>,
}

impl<E> Clone for Tier<E>
where
    E: Clone,
{
    fn clone(&self) -> Self {
        Self {
            base: Arc::clone(&self.base),
            recent: self.recent.clone(),
            gone: self.gone.clone(),
        }
    }
}

impl<E> Tier<E> {
    pub(super) fn new() -> Self {
        Self {
            base: Arc::new(Vec::new()),
            recent: Vec::new(),
            gone: BTreeSet::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.base.len() == self.gone.len() && self.recent.is_empty()
    }

    /// Calls `each` with every entry.
    #[inline]
    pub(super) fn for_each(&self, mut each: impl FnMut(&E)) {
        if self.gone.is_empty() {
            for (_, entry) in &*self.base {
                each(entry);
            }
        } else {
            for (id, entry) in &*self.base {
                if !self.gone.contains(id) {
                    each(entry);
                }
            }
        }
        for (_, entry) in &self.recent {
            each(entry);
        }
    }
}

impl<E: Clone> Tier<E> {
    /// Adds an entry; there must be none of its id.
    pub(super) fn insert(&mut self, id: SubscriptionId, entry: E) {
        self.recent.push((id, entry));
        self.tidy();
    }

    /// Takes an entry out, where there is one.
    pub(super) fn remove(&mut self, id: SubscriptionId) {
        if let Some(place) = self.recent.iter().position(|(its, _)| *its == id) {
            self.recent.remove(place);
        } else if self.base.binary_search_by_key(&id, |(id, _)| *id).is_ok() && self.gone.insert(id)
        {
            self.tidy();
        }
    }

    fn tidy(&mut self) {
        if self.recent.len() + self.gone.len() <= CHANGES.max(self.base.len().isqrt()) {
            return;
        }
        let gone = std::mem::take(&mut self.gone);
        let kept = self.base.iter().filter(|(id, _)| !gone.contains(id));
        let mut all: Vec<_> = kept.cloned().chain(self.recent.drain(..)).collect();
        all.sort_by_key(|(id, _)| *id);
        self.base = Arc::new(all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(tier: &Tier<u64>) -> Vec<u64> {
        let mut all = Vec::new();
        tier.for_each(|entry| all.push(*entry));
        all.sort_unstable();
        all
    }

    #[test]
    fn a_tier_has_what_came_and_did_not_go() {
        let mut tier = Tier::new();
        let mut expected = BTreeSet::new();
        let mut random = sim_core::random::Random::new(7);
        for _ in 0..20_000 {
            let n = random.below(2_000);
            tier.remove(SubscriptionId::new(n));
            if expected.remove(&n) || random.chance(0.125) {
                continue;
            }
            tier.insert(SubscriptionId::new(n), n);
            expected.insert(n);
            assert_eq!(tier.is_empty(), expected.is_empty());
        }
        assert_eq!(ids(&tier), expected.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_change_copies_no_more_than_the_square_root() {
        let mut tier = Tier::new();
        for n in 0..10_000 {
            tier.insert(SubscriptionId::new(n), n);
            let changes = tier.recent.len() + tier.gone.len();
            assert!(changes <= 100, "{changes} of {n}");
        }
        let former = tier.clone();
        tier.remove(SubscriptionId::new(5));
        assert_eq!((ids(&former).len(), ids(&tier).len()), (10_000, 9_999));
    }
}
