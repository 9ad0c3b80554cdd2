//! For readers that hold a lock of their own: what is due is done before they take it, and under it they only look.
//!
//! Doing it wakes those who wait for room or for shards, and drops values: foreign code, which may come back to the reader.

use sim_core::time::Instant;

use super::shared::{Shard, Shared, Stored};

impl<T: Send + Sync + 'static> Shared<T> {
    /// Does what is due, a few chunks of each shard at most.
    pub(crate) fn serve_readers(&self, now: Instant) {
        if self.is_due(now) {
            for shard in &self.table.load_arc().all {
                self.horizon(shard, now);
            }
        }
    }

    /// Whether a record's time is over, trimmed or not.
    pub(crate) fn is_expired(&self, stored: &Stored<T>, now: Instant) -> bool {
        stored.arrived + self.retention() <= now
    }

    /// The position before which the time of all records is over, as [`horizon`](Self::horizon) has it, changing nothing.
    pub(crate) fn look_horizon(&self, shard: &Shard<T>, now: Instant) -> u64 {
        let over = shard
            .log
            .partition_point(|stored, _| self.is_expired(stored, now));
        over.max(shard.log.start())
    }
}
