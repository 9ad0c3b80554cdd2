//! What a worker gives: records of one shard, and the right to checkpoint them.

use std::fmt;

use sim_core::sync::Arc;

use super::{Generation, Holding, Shared, State, WorkerId};
use crate::error::CheckpointError;
use crate::machine::leases::Mark;
use crate::message::{Checkpoint, Salt, SequenceNumber, ShardId};
use crate::records::{Iter, RecordRef, Records};

/// What a [`Batch`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BatchKind {
    /// It brings records; there is at least one.
    Records,
    /// The shard is closed and everything in it was given, but not all of it is checkpointed. Its
    /// [`checkpoint`](Batch::checkpoint) ends the shard; dropped without, the records since the last checkpoint are given
    /// again. KCL's `shardEnded`.
    ShardEnd,
    /// Another worker has asked for the lease, and not everything that was given is checkpointed: the last
    /// occasion to do so, since the lease goes when this is dropped. KCL's `shutdownRequested`.
    HandOff,
}

/// Records of one shard, given by a [`Worker`](crate::Worker).
///
/// While it lives the shard gives no other batch. Dropping it says that the shard may go on, not that the records
/// are processed: that is said by [`checkpoint`](Self::checkpoint). It is not bound to its worker and may be sent to another
/// thread or task.
#[must_use = "a batch that is dropped without a checkpoint is given again to the next owner"]
pub struct Batch<T: Send + Sync + 'static> {
    pub(super) records: Records<T>,
    pub(super) kind: BatchKind,
    /// The first record was processed before up to this part.
    pub(super) resumed: Option<u64>,
    pub(super) checkpointer: Checkpointer<T>,
    /// `None` when somebody else keeps the shard busy.
    pub(super) busy: Option<Busy<T>>,
}

/// Keeps a shard from giving another batch. Dropped, the shard goes on; or the lease goes, if it is wanted.
pub(super) struct Busy<T: Send + Sync + 'static> {
    checkpointer: Checkpointer<T>,
    kind: BatchKind,
}

impl<T: Send + Sync + 'static> Batch<T> {
    /// A batch of a shard that is marked busy.
    pub(super) fn new(
        records: Records<T>,
        kind: BatchKind,
        resumed: Option<u64>,
        checkpointer: Checkpointer<T>,
    ) -> Self {
        let busy = Busy {
            checkpointer: checkpointer.clone(),
            kind,
        };
        Self {
            records,
            kind,
            resumed,
            checkpointer,
            busy: Some(busy),
        }
    }

    /// The records.
    #[must_use]
    pub const fn records(&self) -> &Records<T> {
        &self.records
    }

    /// The records, borrowed, in order.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, T> {
        self.records.iter()
    }

    /// How many records it brings: none unless its kind is [`BatchKind::Records`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it brings no record: see [`kind`](Self::kind).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What it is about.
    #[must_use]
    pub const fn kind(&self) -> BatchKind {
        self.kind
    }

    /// The shard.
    #[must_use]
    pub const fn shard_id(&self) -> ShardId {
        self.checkpointer.shard
    }

    /// The generation of the lease under which it was given.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.checkpointer.generation
    }

    /// The sub-sequence number up to which the first record was processed before, if it was checkpointed in part: the
    /// parts up to and with this one are not to be processed again.
    #[must_use]
    pub const fn resumed_within(&self) -> Option<u64> {
        self.resumed
    }

    /// Says that everything up to the end of this batch is processed. For a batch without records see
    /// [`kind`](Self::kind).
    ///
    /// # Errors
    /// [`CheckpointError::LeaseLost`] when another worker holds the shard now, and goes on from the last
    /// checkpoint; [`CheckpointError::Backwards`] when a later record was checkpointed before.
    pub fn checkpoint(&self) -> Result<(), CheckpointError> {
        match self.kind {
            BatchKind::ShardEnd => self.checkpointer.mark(Mark::End),
            BatchKind::HandOff => self.checkpointer.mark_given(),
            BatchKind::Records => match self.records.last_sequence_number() {
                Some(last) => self.checkpointer.mark(Mark::Record(last)),
                None => Ok(()),
            },
        }
    }

    /// Says that everything up to and with a record is processed.
    ///
    /// # Errors
    /// As [`Checkpointer::checkpoint_at`].
    pub fn checkpoint_at(&self, record: SequenceNumber) -> Result<(), CheckpointError> {
        self.checkpointer.checkpoint_at(record)
    }

    /// Says that everything up to and with a part of an aggregated record is processed.
    ///
    /// # Errors
    /// As [`Checkpointer::checkpoint_at`].
    pub fn checkpoint_part(
        &self,
        record: SequenceNumber,
        sub_sequence_number: u64,
    ) -> Result<(), CheckpointError> {
        self.checkpointer
            .checkpoint_part(record, sub_sequence_number)
    }

    /// A checkpointer that may outlive the batch.
    #[must_use]
    pub fn checkpointer(&self) -> Checkpointer<T> {
        self.checkpointer.clone()
    }

    /// Renews the lease, while processing takes long. False when it is lost.
    #[must_use = "a lost lease means that another worker processes these records too"]
    pub fn heartbeat(&self) -> bool {
        self.checkpointer.heartbeat()
    }

    /// Whether another worker has asked for the lease: it goes when this batch is dropped and everything given is
    /// checkpointed.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        let Checkpointer {
            group,
            worker,
            shard,
            generation,
            ..
        } = &self.checkpointer;
        let state = group.state.lock();
        state.leases.holds(*worker, *shard, *generation) && state.leases.is_wanted(*shard)
    }

    /// Gives the records back: the worker gives them again, with everything else since the last checkpoint.
    pub fn retry(self) {
        self.checkpointer.rewind();
    }
}

impl<'a, T: Send + Sync + 'static> IntoIterator for &'a Batch<T> {
    type Item = RecordRef<'a, T>;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T: Send + Sync + 'static> Drop for Busy<T> {
    fn drop(&mut self) {
        let Checkpointer {
            group,
            worker,
            shard,
            generation,
            ..
        } = &self.checkpointer;
        let now = group.now();
        let mut state = group.state.lock();
        let State {
            leases, holdings, ..
        } = &mut *state;
        let holding = holdings
            .get_mut(shard)
            .filter(|holding| holding.generation == *generation);
        let Some(holding) = holding else {
            return;
        };
        holding.busy = false;
        if self.kind == BatchKind::ShardEnd {
            // Had it been checkpointed, there were no holding.
            holding.rewind = true;
        }
        let is_over = holding.leaving || self.kind == BatchKind::HandOff;
        let is_wanted = leases.is_wanted(*shard);
        if is_over || (is_wanted && is_covered(leases, *shard, holding)) {
            holdings.remove(shard);
            leases.release(*worker, *shard, *generation, now);
        } else if is_wanted {
            // The owner gives it, or has it checkpointed first.
            leases.touch();
        }
        drop(state);
        group.notify();
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("kind", &self.kind)
            .field("records", &self.records)
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}

/// Whether everything that was given is checkpointed.
pub(super) fn is_covered(
    leases: &crate::machine::leases::Leases,
    shard: ShardId,
    holding: &Holding,
) -> bool {
    let progress = leases.get(shard).and_then(|lease| lease.progress());
    progress >= holding.given.map(Mark::Record)
}

/// The right to checkpoint a shard, under one generation of its lease.
///
/// Clones are alike. It stays good while the worker holds the lease, and after that is refused.
pub struct Checkpointer<T: Send + Sync + 'static> {
    pub(super) group: Arc<Shared<T>>,
    pub(super) worker: WorkerId,
    pub(super) shard: ShardId,
    pub(super) salt: Salt,
    pub(super) generation: Generation,
}

impl<T: Send + Sync + 'static> Checkpointer<T> {
    /// The shard.
    #[must_use]
    pub const fn shard_id(&self) -> ShardId {
        self.shard
    }

    /// The generation of the lease.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Says that everything up to and with a record is processed.
    ///
    /// # Errors
    /// [`CheckpointError`]; nothing has changed then. `LeaseLost`: another worker holds the shard now. `Backwards`: a later
    /// record was checkpointed before. `Ahead`: the record was not given yet. `SequenceNumber`: the number is of
    /// another shard or stream.
    pub fn checkpoint_at(&self, record: SequenceNumber) -> Result<(), CheckpointError> {
        self.mark(Mark::Record(record))
    }

    /// Says that everything up to and with a part of an aggregated record is processed. The next owner begins with this
    /// record, and [`Batch::resumed_within`] tells it so.
    ///
    /// # Errors
    /// As [`checkpoint_at`](Self::checkpoint_at); a part is before the whole of its record.
    pub fn checkpoint_part(
        &self,
        record: SequenceNumber,
        sub_sequence_number: u64,
    ) -> Result<(), CheckpointError> {
        self.mark(Mark::Part(record, sub_sequence_number))
    }

    /// Renews the lease. False when it is lost.
    #[must_use = "a lost lease means that another worker processes these records too"]
    pub fn heartbeat(&self) -> bool {
        let now = self.group.now();
        let mut state = self.group.state.lock();
        let leases = &mut state.leases;
        leases.renew_one(self.worker, self.shard, self.generation, now)
    }

    pub(super) fn mark(&self, mark: Mark) -> Result<(), CheckpointError> {
        let state = self.group.state.lock();
        self.mark_locked(state, mark)
    }

    /// Checkpoints all that was given.
    fn mark_given(&self) -> Result<(), CheckpointError> {
        let state = self.group.state.lock();
        let given = self.holding(&state).and_then(|holding| holding.given);
        match given {
            Some(given) => self.mark_locked(state, Mark::Record(given)),
            None => Ok(()),
        }
    }

    fn mark_locked(
        &self,
        mut state: sim_core::sync::MutexGuard<'_, State>,
        mark: Mark,
    ) -> Result<(), CheckpointError> {
        let shard_id = self.shard;
        if let Some(number) = mark.sequence_number() {
            number.position_in(shard_id, self.salt)?;
        }
        if let Some(holding) = self.holding(&state)
            && mark.sequence_number() > holding.given
        {
            let lease = state.leases.get(shard_id);
            let from = lease.map_or(Checkpoint::TrimHorizon, |lease| lease.checkpoint);
            return Err(CheckpointError::Ahead {
                given: mark.checkpoint(),
                delivered: holding.given.map_or(from, Checkpoint::at),
            });
        }
        let now = self.group.now();
        let leases = &mut state.leases;
        leases.checkpoint(self.worker, shard_id, self.generation, mark, now)?;
        if mark == Mark::End {
            state.holdings.remove(&shard_id);
        }
        let is_wanted = state.leases.is_wanted(shard_id);
        if is_wanted {
            state.leases.touch();
        }
        let is_news = mark == Mark::End || is_wanted;
        drop(state);
        if is_news {
            self.group.notify();
        }
        Ok(())
    }

    /// Has the worker go back to the checkpoint.
    pub(super) fn rewind(&self) {
        let mut state = self.group.state.lock();
        let holding = state
            .holdings
            .get_mut(&self.shard)
            .filter(|holding| holding.generation == self.generation);
        if let Some(holding) = holding {
            holding.rewind = true;
            drop(state);
            self.group.notify();
        }
    }

    fn holding(&self, state: &State) -> Option<Holding> {
        let holding = state.holdings.get(&self.shard).copied();
        holding.filter(|holding| holding.generation == self.generation)
    }
}

impl<T: Send + Sync + 'static> Clone for Checkpointer<T> {
    fn clone(&self) -> Self {
        Self {
            group: Arc::clone(&self.group),
            ..*self
        }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Checkpointer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpointer")
            .field("worker", &self.worker)
            .field("shard_id", &self.shard)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
