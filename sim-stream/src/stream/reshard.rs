//! Changing the shards while the stream is in use, and its end.
//!
//! # Ordering
//! A reshard holds `control` throughout: it closes the logs of the parents, and only then stores the table in which
//! their children stand. So no child takes a record while its parent still does, and the order of a key is kept: a put
//! that finds a log closed waits for `control` to be free, and then finds the table that follows. Readers learn from
//! a closed log that the shard ended; the children were named before it was closed.

use std::time::Duration;

use sim_core::sync::Arc;
use sim_core::sync::atomic::Ordering;
use sim_core::time::Instant;

use super::Stream;
use super::shared::{Shard, Shared, Table, count};
use super::traffic::traffic_of;
use crate::config::StreamMode;
use crate::error::{
    ListShardsError, MergeError, ModeError, RecordSizeError, RetentionError, SplitError,
    UpdateCountError, WrongSequenceNumber,
};
use crate::machine::shards::{Selection, Shards, Step};
use crate::message::{HashKey, SequenceNumber, ShardFilter, ShardId, ShardInfo};

/// What changes seldom, under one lock.
pub(crate) struct Control {
    pub(crate) shards: Shards,
    /// What was counted by the shards that have left.
    pub(crate) left: [u64; count::SHARD],
    /// Records that were put into the shards that have left.
    pub(crate) left_records: u64,
    pub(crate) is_closed: bool,
}

/// A part of a listing of shards: `ListShards`' answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardPage {
    /// The shards, in the order of their ids.
    pub shards: Vec<ShardInfo>,
    /// The shard to go on after, if there are more.
    pub next: Option<ShardId>,
}

impl<T: Send + Sync + 'static> Stream<T> {
    /// Splits an open shard in two; `at` is the first hash key of the upper one. Returns the new shards, in the order of
    /// their hash keys.
    ///
    /// Puts and reads go on meanwhile: no record is lost, and each key keeps its order.
    ///
    /// # Errors
    /// [`SplitError`]. Nothing changed.
    pub fn split(&self, shard: ShardId, at: HashKey) -> Result<[ShardId; 2], SplitError> {
        let shared = self.shared();
        let now = shared.clock.now();
        shared.reshard(now, |control| {
            if control.is_closed {
                return Err(SplitError::Closed);
            }
            let step = control.shards.split(now, shard, at)?;
            let mut opened = step.opened();
            let children = [opened.next(), opened.next()].map(|child| child.unwrap_or(shard));
            Ok((children, vec![step]))
        })
    }

    /// Splits an open shard in the middle of its hash keys.
    ///
    /// # Errors
    /// [`SplitError`]. Nothing changed.
    pub fn split_evenly(&self, shard: ShardId) -> Result<[ShardId; 2], SplitError> {
        let range = self
            .shared()
            .shard(shard)
            .ok_or(SplitError::UnknownShard { shard_id: shard })?
            .range;
        // A range of one point has no middle: its start is refused with the range.
        self.split(shard, range.middle().unwrap_or(range.start))
    }

    /// Merges two open shards whose hash keys follow one another. Returns the new shard.
    ///
    /// # Errors
    /// [`MergeError`]. Nothing changed.
    pub fn merge(&self, shard: ShardId, adjacent: ShardId) -> Result<ShardId, MergeError> {
        let shared = self.shared();
        let now = shared.clock.now();
        shared.reshard(now, |control| {
            if control.is_closed {
                return Err(MergeError::Closed);
            }
            let step = control.shards.merge(now, shard, adjacent)?;
            Ok((step.opened().next().unwrap_or(shard), vec![step]))
        })
    }

    /// Changes the number of open shards, by splits and merges, so that each has an equal part of the hash keys.
    ///
    /// # Errors
    /// [`UpdateCountError`]. Nothing changed.
    pub fn update_shard_count(&self, target: u32) -> Result<(), UpdateCountError> {
        let shared = self.shared();
        let now = shared.clock.now();
        shared.reshard(now, |control| {
            if control.is_closed {
                return Err(UpdateCountError::Closed);
            }
            Ok(((), control.shards.update_count(now, target)?))
        })
    }

    /// All shards that are retained, by id.
    #[must_use]
    pub fn shards(&self) -> Vec<ShardInfo> {
        let shared = self.shared();
        shared.serve(shared.clock.now());
        let control = shared.control.lock();
        control
            .shards
            .iter()
            .map(|shard| shard.info(shared.salt, |at| shared.clock.timestamp(at)))
            .collect()
    }

    /// Lists shards by a filter: at most `max_results`, with ids above `after`.
    ///
    /// # Errors
    /// [`ListShardsError`].
    pub fn list_shards(
        &self,
        filter: Option<ShardFilter>,
        after: Option<ShardId>,
        max_results: usize,
    ) -> Result<ShardPage, ListShardsError> {
        let shared = self.shared();
        let now = shared.clock.now();
        shared.serve(now);
        let selection = Selection::of(filter, |timestamp| shared.clock.instant_of(timestamp));
        let control = shared.control.lock();
        let page = control.shards.list(now, selection, after, max_results)?;
        Ok(ShardPage {
            shards: page
                .shards
                .into_iter()
                .map(|shard| shard.info(shared.salt, |at| shared.clock.timestamp(at)))
                .collect(),
            next: page.next,
        })
    }

    /// How many shards take records.
    #[must_use]
    pub fn open_shard_count(&self) -> usize {
        self.shared().table.load().open().len()
    }

    /// Who decides on the number of shards.
    #[must_use]
    pub fn mode(&self) -> StreamMode {
        self.shared().control.lock().shards.mode()
    }

    /// Sets who decides on the number of shards, which stays as it is for now.
    ///
    /// # Errors
    /// [`ModeError`]. Nothing changed.
    pub fn set_mode(&self, mode: StreamMode) -> Result<(), ModeError> {
        let shared = self.shared();
        let mut control = shared.control.lock();
        if control.is_closed {
            return Err(ModeError::Closed);
        }
        let now = shared.clock.now();
        let former = control.shards.mode();
        control.shards.set_mode(now, mode)?;
        let is_on_demand = |mode| matches!(mode, StreamMode::OnDemand);
        if is_on_demand(former) != is_on_demand(mode) {
            let shards = control.shards.open_count();
            *shared.traffic.lock() = traffic_of(&shared.config, mode, now, shards);
            let all = shared.table.load().all.clone();
            shared.publish(&control, all);
        }
        drop(control);
        Ok(())
    }

    /// How long a record is kept.
    #[must_use]
    pub fn retention(&self) -> Duration {
        self.shared().retention()
    }

    /// Keeps records longer. What was trimmed does not come back.
    ///
    /// # Errors
    /// [`RetentionError`]. Nothing changed.
    pub fn increase_retention(&self, retention: Duration) -> Result<(), RetentionError> {
        self.change_retention(retention, |current| {
            (retention < current).then_some(RetentionError::NotAnIncrease {
                value: retention,
                current,
            })
        })
    }

    /// Keeps records less long. What is too old then leaves at once.
    ///
    /// # Errors
    /// [`RetentionError`]. Nothing changed.
    pub fn decrease_retention(&self, retention: Duration) -> Result<(), RetentionError> {
        self.change_retention(retention, |current| {
            (retention > current).then_some(RetentionError::NotADecrease {
                value: retention,
                current,
            })
        })
    }

    fn change_retention(
        &self,
        retention: Duration,
        wrong: impl FnOnce(Duration) -> Option<RetentionError>,
    ) -> Result<(), RetentionError> {
        let shared = self.shared();
        let limits = &shared.config.limits;
        let now = shared.clock.now();
        // What is over by the present retention does not profit from a longer one.
        shared.serve(now);
        let control = shared.control.lock();
        if control.is_closed {
            return Err(RetentionError::Closed);
        }
        if retention < limits.min_retention || retention > limits.max_retention {
            return Err(RetentionError::Range {
                value: retention,
                min: limits.min_retention,
                max: limits.max_retention,
            });
        }
        if let Some(error) = wrong(shared.retention()) {
            return Err(error);
        }
        shared.set_retention(retention);
        shared.set_due(&control);
        drop(control);
        shared.serve(now);
        Ok(())
    }

    /// The largest record that is taken, in bytes.
    #[must_use]
    pub fn max_record_bytes(&self) -> usize {
        let bytes = self.shared().max_record_bytes.load(Ordering::Relaxed);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Sets the largest record that is taken, in bytes (`UpdateMaxRecordSize`).
    ///
    /// # Errors
    /// [`RecordSizeError`]. Nothing changed.
    pub fn set_max_record_bytes(&self, bytes: usize) -> Result<(), RecordSizeError> {
        let shared = self.shared();
        let limits = &shared.config.limits;
        let control = shared.control.lock();
        if control.is_closed {
            return Err(RecordSizeError::Closed);
        }
        if bytes < limits.min_record_bytes || bytes > limits.max_record_bytes {
            return Err(RecordSizeError::Range {
                value: bytes,
                min: limits.min_record_bytes,
                max: limits.max_record_bytes,
            });
        }
        shared
            .max_record_bytes
            .store(bytes as u64, Ordering::Relaxed);
        drop(control);
        Ok(())
    }

    /// Ends the stream: it takes no record any more. What is there can be read until its retention ends, and every shard
    /// ends without children. A second call changes nothing.
    pub fn close(&self) {
        let shared = self.shared();
        let mut control = shared.control.lock();
        if control.is_closed {
            return;
        }
        control.is_closed = true;
        let table = shared.table.load_arc();
        for shard in table.open() {
            shard.log.close();
        }
        // Nothing follows the traffic any more.
        *shared.traffic.lock() = None;
        shared.publish(&control, table.all.clone());
        drop(control);
        for shard in table.open() {
            shard.arrivals.notify_all();
            shared.rest(shard);
        }
        shared.tell_all();
        shared.space.notify_all();
    }

    /// Whether the stream was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared().table.load().is_closed()
    }
}

impl<T: Send + Sync + 'static> Shared<T> {
    /// Changes the lineage by `change`, and makes the logs and the table follow.
    fn reshard<R, E>(
        &self,
        now: Instant,
        change: impl FnOnce(&mut Control) -> Result<(R, Vec<Step>), E>,
    ) -> Result<R, E> {
        self.serve(now);
        let mut control = self.control.lock();
        let (result, steps) = change(&mut control)?;
        let ended = self.follow(&mut control, &steps);
        drop(control);
        self.announce(&ended);
        Ok(result)
    }

    /// Closes and opens logs as the lineage has done with its shards. Returns those that ended.
    pub(crate) fn follow(&self, control: &mut Control, steps: &[Step]) -> Vec<Arc<Shard<T>>> {
        let table = self.table.load_arc();
        let mut all = table.all.clone();
        let mut ended = Vec::new();
        for step in steps {
            for id in step.opened() {
                if let Some(lineage) = control.shards.shard(id) {
                    // Ids grow: it stays sorted.
                    all.push(Shard::new(
                        lineage,
                        &self.config,
                        &self.clock,
                        self.salt,
                        &self.pool,
                    ));
                }
            }
        }
        for id in steps.iter().flat_map(Step::closed) {
            let Ok(index) = all.binary_search_by_key(&id, |shard| shard.id) else {
                continue;
            };
            let shard = Arc::clone(&all[index]);
            shard.set_children(control.shards.children(id));
            control.shards.set_end(id, shard.log.close());
            ended.push(shard);
        }
        self.publish(control, all);
        ended
    }

    /// Stores the table that the lineage asks for. Called with the lock of `control` held.
    fn publish(&self, control: &Control, all: Vec<Arc<Shard<T>>>) {
        let version = self.table.load().version + 1;
        let table = Table::of(version, control, all);
        self.table.store(Arc::new(table));
        self.set_due(control);
    }

    /// Notes when the lineage has something to do next.
    pub(crate) fn set_due(&self, control: &Control) {
        self.set_due_by(control.shards.next_expiry(self.retention()));
    }

    /// Does what is due in the lineage: closed shards leave when their retention is over, and in on-demand mode the
    /// shards follow the traffic.
    #[cold]
    pub(crate) fn serve_control(&self, now: Instant) {
        // Who trims counts what it trims: two at once would count a record twice. It is tried again by the next caller.
        let Some(trimming) = self.trimming.try_lock() else {
            return;
        };
        let Some(mut control) = self.control.try_lock() else {
            return;
        };
        let ended = self.follow_traffic(&mut control, now);
        let gone = control.shards.expire(now, self.retention());
        self.set_due(&control);
        if gone.is_empty() {
            drop(control);
            self.announce(&ended);
            return;
        }
        let table = self.table.load_arc();
        let (left, all): (Vec<_>, Vec<_>) = table
            .all
            .iter()
            .map(Arc::clone)
            .partition(|shard| gone.iter().any(|gone| gone.id == shard.id));
        // Whoever holds the lock finds a shard in the table, or what it counted here.
        for shard in &left {
            shard.counters.add(count::EXPIRED, shard.len());
            for (total, sum) in control.left.iter_mut().zip(shard.counters.sums()) {
                *total += sum;
            }
            control.left_records += shard.log.end();
        }
        self.publish(&control, all);
        drop(control);
        for shard in &left {
            // A reader that stands in it learns that it fell behind.
            shard.log.trim_to(shard.log.end());
            self.note(shard);
        }
        drop(trimming);
        self.announce(&ended);
        self.tell_all();
    }

    /// Wakes the readers of shards that ended.
    fn announce(&self, ended: &[Arc<Shard<T>>]) {
        if ended.is_empty() {
            return;
        }
        for shard in ended {
            shard.arrivals.notify_all();
            self.rest(shard);
        }
        self.tell_all();
    }

    /// Lets go of the last chunk of a shard that ended, if its records were trimmed before. Drops values: not called with
    /// `control` locked.
    fn rest(&self, shard: &Shard<T>) {
        if shard.len() == 0 {
            shard.log.shrink();
            self.note(shard);
        }
    }

    /// Checks that a number is one that this stream has given.
    pub(crate) fn check_given(&self, number: SequenceNumber) -> Result<(), WrongSequenceNumber> {
        if number.salt() != self.salt {
            return Err(WrongSequenceNumber::OtherStream {
                sequence_number: number,
            });
        }
        let ahead = Err(WrongSequenceNumber::Ahead {
            sequence_number: number,
        });
        match self.table.load().shard(number.shard()) {
            Some(shard) if number.position() >= shard.log.end() => ahead,
            Some(_) => Ok(()),
            // One that has left, or none yet.
            None if self
                .table
                .load()
                .all
                .last()
                .is_some_and(|last| number.shard() > last.id) =>
            {
                ahead
            }
            None => Ok(()),
        }
    }
}

impl<T: Send + Sync + 'static> Table<T> {
    /// The table of a lineage, whose shards are all in `all`.
    pub(crate) fn of(version: u64, control: &Control, all: Vec<Arc<Shard<T>>>) -> Self {
        let routes = (!control.is_closed).then(|| {
            control.shards.routes(|lineage| {
                let index = all
                    .binary_search_by_key(&lineage.id, |shard| shard.id)
                    .unwrap_or_else(|_| unreachable!("every open shard has a log"));
                Arc::clone(&all[index])
            })
        });
        let is_on_demand = matches!(control.shards.mode(), StreamMode::OnDemand);
        Self::new(version, is_on_demand, routes, all)
    }
}
