//! The rules of consumer groups: who holds which shard, from where.
//!
//! The model is that of the Kinesis Client Library (KCL): a table with one [`Lease`] a shard, and workers that take,
//! renew, steal and give them back. Three things make it safe:
//!
//! - **Generations.** Whenever a lease changes hands its generation grows. What a worker does names the generation under
//!   which it took the lease, so a *zombie* (a worker that was taken for dead and goes on) is refused and changes
//!   nothing. Of one generation there is one owner.
//! - **Checkpoints only move forward**, so a later owner never starts behind an earlier one's last word, and never
//!   after what has not been checkpointed.
//! - **Parents first.** A lease can be taken when all its parents that are still in the table stand at the end of
//!   their shard.
//!
//! A lease that was not renewed for its duration is free to be taken. Until somebody takes it its owner may still
//! renew it or checkpoint: the generation, not the clock, decides whose it is. So a lone worker whose batches take long
//! makes progress.
//!
//! ```text
//!              take (unowned)                           ask                       release, timeout
//!   unowned ──────────────────▶ owned by A ─────────────────────▶ asked for by B ──────────────────▶ owned by B
//!      ▲                         │  │  ▲ renew                         │
//!      │    release              │  │  └─── renewed at                 │ the duration passed: expired
//!      ◀─────────────────────────┘  │ the duration passed              ▼
//!      │                            └──────────────▶ expired: as unowned, for others
//!      │ checkpoint at the end of the shard
//!      ▼
//!   finished: kept while the shard is listed, so that its children are known to be free
//! ```
//!
//! Where KCL draws lots this takes the first by shard or worker, so that the same history gives the same outcome.

mod balance;
mod lineage;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use sim_core::time::Instant;

use crate::error::{CheckpointError, WrongSequenceNumber};
use crate::message::{Checkpoint, SequenceNumber, ShardId};

pub(crate) use self::lineage::Listed;

/// Names a worker of a group: the number of its joining, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct WorkerId(u64);

impl WorkerId {
    /// The number of its joining, from zero on.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker-{}", self.0)
    }
}

/// How often a lease has changed hands; KCL's concurrency token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Generation(u64);

impl Generation {
    /// The count.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What the table knows of a shard; a row of KCL's lease table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// The shard.
    pub shard_id: ShardId,
    /// The shards it was split or merged from: none, one or two.
    pub parents: Vec<ShardId>,
    /// Up to where it has been processed.
    pub checkpoint: Checkpoint,
    /// Whether the record of the checkpoint was processed only in part: up to its sub-sequence number.
    pub is_partial: bool,
    /// The first record to read while nothing was checkpointed: what "latest", or the oldest record, was when the group
    /// was made, or a later shard's first record. So a crash before the first checkpoint skips nothing, and what
    /// expires meanwhile is missed.
    pub start: Option<SequenceNumber>,
    /// Who holds it.
    pub owner: Option<WorkerId>,
    /// How often it has changed hands.
    pub generation: Generation,
    /// How often it has been renewed; KCL's lease counter.
    pub counter: u64,
    /// When it was last renewed; without an owner, since when it is free.
    pub renewed: Instant,
    /// Who has asked its owner for it, and until when.
    pub hand_off: Option<HandOff>,
}

impl Lease {
    /// Whether the shard has been processed to its end.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.checkpoint.is_shard_end()
    }

    /// What lies behind the checkpoint, in order. The starting positions are alike: nothing.
    pub(crate) fn progress(&self) -> Option<Mark> {
        match self.checkpoint {
            Checkpoint::At {
                sequence_number,
                sub_sequence_number,
            } => Some(if self.is_partial {
                Mark::Part(sequence_number, sub_sequence_number)
            } else {
                Mark::Record(sequence_number)
            }),
            Checkpoint::ShardEnd => Some(Mark::End),
            _ => None,
        }
    }
}

/// Up to where a worker says that it has processed a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A record, up to and with one of its parts.
    Part(SequenceNumber, u64),
    /// A record.
    Record(SequenceNumber),
    /// The whole shard.
    End,
}

impl Mark {
    pub(crate) const fn checkpoint(self) -> Checkpoint {
        match self {
            Self::Part(sequence_number, sub_sequence_number) => Checkpoint::At {
                sequence_number,
                sub_sequence_number,
            },
            Self::Record(sequence_number) => Checkpoint::at(sequence_number),
            Self::End => Checkpoint::ShardEnd,
        }
    }

    pub(crate) const fn sequence_number(self) -> Option<SequenceNumber> {
        match self {
            Self::Part(sequence_number, _) | Self::Record(sequence_number) => Some(sequence_number),
            Self::End => None,
        }
    }

    /// By record, a part before the whole of it, the end of the shard after all.
    fn key(self) -> (bool, Option<SequenceNumber>, bool, u64) {
        match self {
            Self::Part(sequence_number, part) => (false, Some(sequence_number), false, part),
            Self::Record(sequence_number) => (false, Some(sequence_number), true, 0),
            Self::End => (true, None, true, 0),
        }
    }
}

impl PartialOrd for Mark {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Mark {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// One worker has asked another for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandOff {
    /// Who asked.
    pub to: WorkerId,
    /// When it takes the lease without being given it.
    pub deadline: Instant,
}

/// A group has as many workers as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("workers: the group has {limit}, as many as it may have")]
pub(crate) struct Crowded {
    pub(crate) limit: usize,
}

/// What the table goes by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// How long a lease holds without being renewed.
    pub(crate) duration: Duration,
    /// Leases a worker holds at most.
    pub(crate) max_leases: usize,
    /// Leases a worker asks others for in one round.
    pub(crate) max_steals: usize,
    /// How long an owner has to give a lease that it was asked for.
    pub(crate) hand_off_timeout: Duration,
    /// Workers at most.
    pub(crate) max_workers: usize,
}

/// What has happened to the leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LeaseStats {
    /// Leases taken that nobody held.
    pub taken: u64,
    /// Leases taken over because their owner did not renew them.
    pub taken_over: u64,
    /// Leases that an owner was asked for, to balance.
    pub asked: u64,
    /// Leases given to the worker that asked for them.
    pub handed_off: u64,
    /// Leases taken because their owner did not give them in time.
    pub stolen: u64,
    /// Shards processed to their end.
    pub finished: u64,
    /// Leases removed before their shard was processed to its end, because its retention had passed.
    pub abandoned: u64,
    /// Checkpoints taken.
    pub checkpoints: u64,
    /// Checkpoints refused because the lease was lost.
    pub refused: u64,
}

/// A worker as the table knows it.
#[derive(Debug, Clone, Copy)]
struct Member {
    /// When it last called in.
    seen: Instant,
    /// It gives its leases back and takes no more.
    leaving: bool,
}

/// The table.
///
/// Bounds: one lease a listed shard, `max_workers` workers.
#[derive(Debug)]
pub(crate) struct Leases {
    rules: Rules,
    leases: BTreeMap<ShardId, Lease>,
    members: BTreeMap<WorkerId, Member>,
    next_worker: u64,
    /// Grows whenever something changes that another worker may act upon.
    version: u64,
    stats: LeaseStats,
}

impl Leases {
    pub(crate) const fn new(rules: Rules) -> Self {
        Self {
            rules,
            leases: BTreeMap::new(),
            members: BTreeMap::new(),
            next_worker: 0,
            version: 0,
            stats: LeaseStats {
                taken: 0,
                taken_over: 0,
                asked: 0,
                handed_off: 0,
                stolen: 0,
                finished: 0,
                abandoned: 0,
                checkpoints: 0,
                refused: 0,
            },
        }
    }

    /// Adds a worker. Dead ones are forgotten first; what they hold stays theirs until somebody takes it.
    pub(crate) fn join(&mut self, now: Instant) -> Result<WorkerId, Crowded> {
        self.forget_dead(now);
        if self.members.len() >= self.rules.max_workers {
            return Err(Crowded {
                limit: self.rules.max_workers,
            });
        }
        let worker = WorkerId(self.next_worker);
        self.next_worker += 1;
        self.members.insert(
            worker,
            Member {
                seen: now,
                leaving: false,
            },
        );
        self.version += 1;
        Ok(worker)
    }

    /// Has a worker take no more leases. It is forgotten when it has given back those that it holds.
    pub(crate) fn leave(&mut self, worker: WorkerId) {
        for lease in self.leases.values_mut() {
            if lease.hand_off.is_some_and(|asked| asked.to == worker) {
                lease.hand_off = None;
            }
        }
        if let Some(member) = self.members.get_mut(&worker) {
            member.leaving = true;
        }
        self.forget_left(worker);
        self.version += 1;
    }

    /// Renews every lease of a worker: of those that nobody has taken meanwhile. A worker that was forgotten while it was
    /// away joins again, if there is room; without, it keeps its leases and takes no more.
    pub(crate) fn renew(&mut self, worker: WorkerId, now: Instant) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.seen = now;
        } else {
            self.forget_dead(now);
            if self.members.len() < self.rules.max_workers {
                let leaving = false;
                self.members.insert(worker, Member { seen: now, leaving });
                self.version += 1;
            }
        }
        for lease in self.leases.values_mut() {
            if lease.owner == Some(worker) {
                lease.counter += 1;
                lease.renewed = now;
            }
        }
    }

    /// Renews one lease of a worker, unless it was lost.
    pub(crate) fn renew_one(
        &mut self,
        worker: WorkerId,
        shard: ShardId,
        generation: Generation,
        now: Instant,
    ) -> bool {
        let Ok(lease) = held(&mut self.leases, worker, shard, generation) else {
            return false;
        };
        lease.counter += 1;
        lease.renewed = now;
        if let Some(member) = self.members.get_mut(&worker) {
            member.seen = now;
        }
        true
    }

    /// Moves the checkpoint, and renews the lease. At [`Mark::End`] the lease is finished and given back, and
    /// the shard's children can be taken.
    pub(crate) fn checkpoint(
        &mut self,
        worker: WorkerId,
        shard: ShardId,
        generation: Generation,
        at: Mark,
        now: Instant,
    ) -> Result<(), CheckpointError> {
        let lease = match held(&mut self.leases, worker, shard, generation) {
            Ok(lease) => lease,
            Err(lost) => {
                self.stats.refused += 1;
                return Err(lost);
            }
        };
        if let Some(sequence_number) = at.sequence_number()
            && sequence_number.shard() != shard
        {
            return Err(WrongSequenceNumber::OtherShard {
                sequence_number,
                shard,
            }
            .into());
        }
        if Some(at) < lease.progress() {
            return Err(CheckpointError::Backwards {
                given: at.checkpoint(),
                current: lease.checkpoint,
            });
        }
        lease.is_partial = matches!(at, Mark::Part(..));
        lease.checkpoint = at.checkpoint();
        lease.counter += 1;
        lease.renewed = now;
        self.stats.checkpoints += 1;
        if at == Mark::End {
            self.finish(shard, now);
        }
        Ok(())
    }

    fn finish(&mut self, shard: ShardId, now: Instant) {
        self.stats.finished += 1;
        let mut owner = None;
        for lease in self.leases.values_mut() {
            if lease.shard_id == shard {
                owner = lease.owner.take();
                lease.hand_off = None;
            } else if lease.owner.is_none() && lease.parents.contains(&shard) {
                lease.renewed = now;
            }
        }
        if let Some(owner) = owner {
            self.forget_left(owner);
        }
        self.version += 1;
    }

    /// Gives a lease back: to who asked for it, or to whoever comes. False when it was lost already.
    pub(crate) fn release(
        &mut self,
        worker: WorkerId,
        shard: ShardId,
        generation: Generation,
        now: Instant,
    ) -> bool {
        let Ok(lease) = held(&mut self.leases, worker, shard, generation) else {
            return false;
        };
        let asked = lease.hand_off.take();
        let to = asked
            .map(|asked| asked.to)
            .filter(|to| is_live(&self.members, *to, now, self.rules.duration));
        lease.owner = to;
        lease.renewed = now;
        if to.is_some() {
            lease.generation = lease.generation.next();
            lease.counter += 1;
            self.stats.handed_off += 1;
        }
        self.forget_left(worker);
        self.version += 1;
        true
    }

    /// Removes a lease whose shard its owner found to be no longer in the stream. `None` when it was lost already.
    pub(crate) fn forget(
        &mut self,
        worker: WorkerId,
        shard: ShardId,
        generation: Generation,
    ) -> Option<Lease> {
        held(&mut self.leases, worker, shard, generation).ok()?;
        let lease = self.leases.remove(&shard);
        self.stats.abandoned += 1;
        self.forget_left(worker);
        self.version += 1;
        lease
    }

    /// Whether the worker still holds the lease under this generation.
    pub(crate) fn holds(&self, worker: WorkerId, shard: ShardId, generation: Generation) -> bool {
        self.leases
            .get(&shard)
            .is_some_and(|lease| lease.owner == Some(worker) && lease.generation == generation)
    }

    /// Whether the lease should be given back: its owner was asked for it, or is leaving.
    pub(crate) fn is_wanted(&self, shard: ShardId) -> bool {
        self.leases.get(&shard).is_some_and(|lease| {
            lease.hand_off.is_some()
                || lease
                    .owner
                    .and_then(|owner| self.members.get(&owner))
                    .is_some_and(|member| member.leaving)
        })
    }

    /// Has the workers look at the table again: a lease that is wanted may be given now.
    pub(crate) const fn touch(&mut self) {
        self.version += 1;
    }

    /// The leases of a worker, by shard.
    pub(crate) fn of(&self, worker: WorkerId) -> impl Iterator<Item = &Lease> {
        self.leases
            .values()
            .filter(move |lease| lease.owner == Some(worker))
    }

    pub(crate) fn get(&self, shard: ShardId) -> Option<&Lease> {
        self.leases.get(&shard)
    }

    /// All leases, by shard.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// The workers that are alive at `now`, those that leave left out.
    pub(crate) fn live_workers(&self, now: Instant) -> impl Iterator<Item = WorkerId> {
        let duration = self.rules.duration;
        self.members
            .keys()
            .copied()
            .filter(move |worker| is_live(&self.members, *worker, now, duration))
    }

    /// Grows whenever something changes that another worker may act upon.
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    pub(crate) const fn stats(&self) -> LeaseStats {
        self.stats
    }

    /// Forgets a worker that has left and holds nothing.
    fn forget_left(&mut self, worker: WorkerId) {
        if self.members.get(&worker).is_some_and(|it| it.leaving)
            && self.of(worker).next().is_none()
        {
            self.members.remove(&worker);
        }
    }

    fn forget_dead(&mut self, now: Instant) {
        let duration = self.rules.duration;
        self.members
            .retain(|_, member| now < member.seen + duration);
    }
}

/// The lease, if the worker holds it under this generation.
fn held(
    leases: &mut BTreeMap<ShardId, Lease>,
    worker: WorkerId,
    shard: ShardId,
    generation: Generation,
) -> Result<&mut Lease, CheckpointError> {
    leases
        .get_mut(&shard)
        .filter(|lease| lease.owner == Some(worker) && lease.generation == generation)
        .ok_or(CheckpointError::LeaseLost { shard_id: shard })
}

/// Whether a worker has called in within the duration of a lease and is not leaving.
fn is_live(
    members: &BTreeMap<WorkerId, Member>,
    worker: WorkerId,
    now: Instant,
    duration: Duration,
) -> bool {
    members
        .get(&worker)
        .is_some_and(|member| !member.leaving && now < member.seen + duration)
}
