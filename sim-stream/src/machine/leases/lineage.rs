//! Which shards there are: discovered, blocked by their parents, forgotten when their retention has passed.

use sim_core::time::Instant;

use super::{Generation, Lease, Leases};
use crate::message::{Checkpoint, SequenceNumber, ShardId};

/// A shard as the stream lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) shard: ShardId,
    pub(crate) parents: Vec<ShardId>,
    /// From where it is read if it is new to the table.
    pub(crate) from: Checkpoint,
    /// Where `from` is now.
    pub(crate) start: Option<SequenceNumber>,
}

impl Leases {
    /// Makes the table follow the stream's list of shards.
    ///
    /// A shard that is new to it gets a lease. One that is no longer listed has outlived its retention: its lease is
    /// removed unless somebody holds it, finished or not, since there is nothing left to read. Returns those removed
    /// that were not finished.
    pub(crate) fn follow(
        &mut self,
        listed: impl IntoIterator<Item = Listed>,
        now: Instant,
    ) -> Vec<Lease> {
        let mut abandoned = Vec::new();
        let mut present = std::collections::BTreeSet::new();
        for shard in listed {
            present.insert(shard.shard);
            self.leases.entry(shard.shard).or_insert_with(|| {
                self.version += 1;
                Lease {
                    shard_id: shard.shard,
                    parents: shard.parents,
                    checkpoint: shard.from,
                    is_partial: false,
                    start: shard.start,
                    owner: None,
                    generation: Generation::default(),
                    counter: 0,
                    renewed: now,
                    hand_off: None,
                }
            });
        }
        let Self {
            leases,
            rules,
            stats,
            version,
            ..
        } = self;
        leases.retain(|shard, lease| {
            let is_held = lease.owner.is_some() && now < lease.renewed + rules.duration;
            if is_held || present.contains(shard) {
                return true;
            }
            if !lease.is_finished() {
                stats.abandoned += 1;
                abandoned.push(lease.clone());
            }
            *version += 1;
            false
        });
        abandoned
    }

    /// Whether all parents that are in the table have been processed to their end.
    pub(super) fn is_unblocked(&self, lease: &Lease) -> bool {
        lease.parents.iter().all(|parent| {
            self.leases
                .get(parent)
                .is_none_or(|parent| parent.is_finished())
        })
    }
}
