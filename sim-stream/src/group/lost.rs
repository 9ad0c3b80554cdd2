//! What a group loses to retention by whole shards.

use std::collections::BTreeMap;

use sim_core::sync::Arc;

use super::error::NextError;
use crate::machine::leases::Lease;
use crate::message::{Checkpoint, ShardId};
use crate::stream::shared::{Shard, Table};

/// Shards that left the stream with records that the group had not processed, and that no worker was told of yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Lost {
    pub(super) shards: u64,
    pub(super) records: u64,
    pub(super) unseen: u64,
}

impl Lost {
    /// What a worker is told; `None` when nothing was lost.
    pub(super) fn told(self) -> Option<NextError> {
        let Self {
            shards,
            records,
            unseen,
        } = self;
        (self != Self::default()).then_some(NextError::Expired {
            shards,
            records,
            unseen,
        })
    }
}

/// The shards of the group's leases, kept until the leases are gone: a shard's end is asked for when it has left the
/// stream. Bound: one a lease.
pub(super) struct Known<T: Send + Sync + 'static> {
    shards: BTreeMap<ShardId, Arc<Shard<T>>>,
    /// The number of the next shard that the group has not seen.
    next: u32,
}

impl<T: Send + Sync + 'static> Known<T> {
    pub(super) const fn new() -> Self {
        Self {
            shards: BTreeMap::new(),
            next: 0,
        }
    }

    /// Follows a table, as it was when the next shard's number was `next`. Returns how many shards came and left unseen.
    pub(super) fn follow(&mut self, table: &Table<T>, next: u32) -> u64 {
        let from = table
            .all
            .partition_point(|shard| shard.id.number() < self.next);
        let fresh = &table.all[from..];
        self.shards
            .extend(fresh.iter().map(|shard| (shard.id, Arc::clone(shard))));
        let came = next.saturating_sub(self.next);
        self.next = self.next.max(next);
        u64::from(came).saturating_sub(fresh.len() as u64)
    }

    /// Counts what a lease that was removed had not processed.
    pub(super) fn lose(&mut self, lease: &Lease, lost: &mut Lost) {
        let Some(shard) = self.shards.remove(&lease.shard_id) else {
            return;
        };
        let records = shard.log.end().saturating_sub(begin(&shard, lease));
        lost.shards += u64::from(records > 0);
        lost.records += records;
    }

    /// Forgets the shards that have no lease any more.
    pub(super) fn retain(&mut self, has_lease: impl Fn(ShardId) -> bool) {
        self.shards.retain(|shard, _| has_lease(*shard));
    }
}

/// Where the owner of a lease begins to read.
pub(super) fn begin<T: Send + Sync + 'static>(shard: &Shard<T>, lease: &Lease) -> u64 {
    match lease.checkpoint {
        Checkpoint::At {
            sequence_number, ..
        } => sequence_number.position() + u64::from(!lease.is_partial),
        Checkpoint::ShardEnd => shard.log.end(),
        _ => lease.start.map_or(0, |start| start.position()),
    }
}
