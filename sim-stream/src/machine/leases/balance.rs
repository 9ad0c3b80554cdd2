//! Who takes what: free leases first, then from whoever has most.

use std::collections::BTreeMap;

use sim_core::time::Instant;

use super::{HandOff, Lease, Leases, WorkerId, is_live};
use crate::message::ShardId;

/// After how many durations a lease that nobody took is taken beyond a worker's share: its share may be that of a
/// worker that never comes. Source: KCL's "very old" leases.
const STALE_AFTER: u32 = 3;

impl Leases {
    /// One round of a worker: it takes what is free and due to it, or else asks the most loaded worker.
    ///
    /// A worker's share is KCL's: the leases that can be processed by the live workers, rounded up, and at most
    /// `max_leases`. What is unowned or expired is taken up to the share. When there is no such lease and the worker
    /// has less than its share, it asks for at most `max_steals` leases of the worker that holds most, so far as
    /// that one has more than its share; when both differ by two, for one.
    ///
    /// What the worker holds afterwards is in [`of`](Self::of). A worker that is leaving takes nothing.
    pub(crate) fn balance(&mut self, worker: WorkerId, now: Instant) {
        if !is_live(&self.members, worker, now, self.rules.duration) {
            return;
        }
        self.drop_stale_requests(now);
        self.take_overdue(worker, now);
        let share = self.share(now);
        let mut mine = self.load(worker, now);
        let mut found = false;
        for shard in self.free(now) {
            found = true;
            let room = if self.is_stale(shard, now) {
                mine < self.rules.max_leases
            } else {
                mine < share
            };
            if room {
                self.take(worker, shard, now);
                mine += 1;
            }
        }
        if !found && mine < share {
            self.ask(worker, share, share - mine, now);
        }
    }

    /// When a worker that waits should look again by the clock: something may be free then.
    ///
    /// It may be earlier than that, never later.
    pub(crate) fn next_change(&self, worker: WorkerId, now: Instant) -> Instant {
        let mut next = Instant::NEVER;
        let mut lower = |at: Instant| {
            if at > now {
                next = next.min(at);
            }
        };
        for lease in self.leases.values() {
            if lease.is_finished() || !self.is_unblocked(lease) {
                continue;
            }
            if lease.owner != Some(worker) {
                let free_at = self.free_at(lease);
                lower(free_at);
                lower(free_at + self.rules.duration * STALE_AFTER);
            }
            if let Some(asked) = lease.hand_off {
                lower(asked.deadline);
            }
        }
        next
    }

    /// The leases that can be processed by the live workers, rounded up.
    fn share(&self, now: Instant) -> usize {
        let active = self
            .leases
            .values()
            .filter(|lease| !lease.is_finished() && self.is_unblocked(lease))
            .count();
        let workers = self.live_workers(now).count().max(1);
        active.div_ceil(workers).min(self.rules.max_leases)
    }

    /// What a worker holds and has asked for.
    fn load(&self, worker: WorkerId, now: Instant) -> usize {
        self.leases
            .values()
            .filter(|lease| self.bearer(lease, now) == Some(worker))
            .count()
    }

    /// On whose load a lease counts: who asked for it, or who holds it and is not overdue.
    fn bearer(&self, lease: &Lease, now: Instant) -> Option<WorkerId> {
        if lease.is_finished() || self.is_free(lease, now) {
            return None;
        }
        lease.hand_off.map_or(lease.owner, |asked| Some(asked.to))
    }

    /// The unblocked leases that are unowned or expired, by shard.
    fn free(&self, now: Instant) -> Vec<ShardId> {
        self.leases
            .values()
            .filter(|lease| {
                !lease.is_finished() && self.is_free(lease, now) && self.is_unblocked(lease)
            })
            .map(|lease| lease.shard_id)
            .collect()
    }

    fn is_free(&self, lease: &Lease, now: Instant) -> bool {
        now >= self.free_at(lease)
    }

    /// Since or from when a lease can be taken by others.
    fn free_at(&self, lease: &Lease) -> Instant {
        match lease.owner {
            None => lease.renewed,
            Some(_) => lease.renewed + self.rules.duration,
        }
    }

    fn is_stale(&self, shard: ShardId, now: Instant) -> bool {
        self.leases
            .get(&shard)
            .is_some_and(|lease| now >= self.free_at(lease) + self.rules.duration * STALE_AFTER)
    }

    /// Gives a lease to a worker, under the next generation.
    fn take(&mut self, worker: WorkerId, shard: ShardId, now: Instant) {
        let Some(lease) = self.leases.get_mut(&shard) else {
            return;
        };
        if lease.owner.replace(worker).is_some() {
            self.stats.taken_over += 1;
        } else {
            self.stats.taken += 1;
        }
        lease.hand_off = None;
        lease.generation = lease.generation.next();
        lease.counter += 1;
        lease.renewed = now;
        self.version += 1;
    }

    /// Takes what this worker has asked for and was not given in time.
    fn take_overdue(&mut self, worker: WorkerId, now: Instant) {
        for lease in self.leases.values_mut() {
            if lease
                .hand_off
                .is_some_and(|asked| asked.to == worker && now >= asked.deadline)
            {
                lease.owner = Some(worker);
                lease.hand_off = None;
                lease.generation = lease.generation.next();
                lease.counter += 1;
                lease.renewed = now;
                self.stats.stolen += 1;
                self.version += 1;
            }
        }
    }

    /// Forgets what was asked for by workers that are no more.
    fn drop_stale_requests(&mut self, now: Instant) {
        let Self {
            leases,
            members,
            rules,
            version,
            ..
        } = self;
        for lease in leases.values_mut() {
            if lease
                .hand_off
                .is_some_and(|asked| !is_live(members, asked.to, now, rules.duration))
            {
                lease.hand_off = None;
                *version += 1;
            }
        }
    }

    /// Asks the most loaded worker for some of its leases, the newest shards first.
    fn ask(&mut self, worker: WorkerId, share: usize, missing: usize, now: Instant) {
        let mut loads: BTreeMap<WorkerId, usize> = BTreeMap::new();
        for lease in self.leases.values() {
            if let Some(bearer) = self.bearer(lease, now).filter(|bearer| *bearer != worker) {
                *loads.entry(bearer).or_default() += 1;
            }
        }
        // Of several with the same load, the first to have joined.
        let Some((most, load)) = loads
            .into_iter()
            .max_by_key(|(bearer, load)| (*load, std::cmp::Reverse(*bearer)))
        else {
            return;
        };
        let Some(excess) = load.checked_sub(share) else {
            return;
        };
        let wanted = match missing.min(excess) {
            0 if missing > 1 => 1,
            wanted => wanted,
        };
        let candidates: Vec<ShardId> = self
            .leases
            .values()
            .rev()
            .filter(|lease| {
                lease.owner == Some(most) && lease.hand_off.is_none() && !lease.is_finished()
            })
            .map(|lease| lease.shard_id)
            .take(wanted.min(self.rules.max_steals))
            .collect();
        for shard in candidates {
            if let Some(lease) = self.leases.get_mut(&shard) {
                lease.hand_off = Some(HandOff {
                    to: worker,
                    deadline: now + self.rules.hand_off_timeout,
                });
                self.stats.asked += 1;
                self.version += 1;
            }
        }
        if self.rules.hand_off_timeout.is_zero() {
            self.take_overdue(worker, now);
        }
    }
}
