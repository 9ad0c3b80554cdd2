//! A table of shards to route by.

use crate::message::HashKey;

/// The open shards by hash key, immutable: what a put looks at. Found by binary search over the starting hash keys.
#[derive(Debug, Clone)]
pub struct Routes<S> {
    /// Where each shard's range starts. Invariant: ascending, and the first is 0.
    starts: Box<[HashKey]>,
    shards: Box<[S]>,
}

impl<S> Routes<S> {
    /// Made by [`Shards::routes`](super::Shards::routes), which knows them in order and without gaps.
    pub(super) fn new(shards: impl Iterator<Item = (HashKey, S)>) -> Self {
        let (starts, shards): (Vec<_>, Vec<_>) = shards.unzip();
        debug_assert!(starts.first() == Some(&HashKey::MIN) && starts.is_sorted());
        Self {
            starts: starts.into(),
            shards: shards.into(),
        }
    }

    /// The shard that takes records of this hash key.
    #[must_use]
    #[inline]
    pub fn route(&self, key: HashKey) -> &S {
        // The first start is 0, so at least one is not above the key.
        let above = self.starts.partition_point(|start| *start <= key);
        &self.shards[above - 1]
    }

    /// The shards, in the order of their hash keys.
    #[must_use]
    pub const fn shards(&self) -> &[S] {
        &self.shards
    }
}
