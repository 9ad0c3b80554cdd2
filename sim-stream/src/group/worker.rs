//! Workers: they hold leases and give the records of their shards.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::ops::Bound;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream as FuturesStream;
use sim_core::sync::Arc;
use sim_core::time::Instant;
use sim_core::wait::{Attempt, Elapsed, Waiter, until_blocking};

use super::batch::{Batch, BatchKind, Checkpointer, is_covered};
use super::error::NextError;
use super::lost::begin;
use super::{Generation, Holding, Lease, Shared, State, WorkerId};
use crate::cursor::Cursor;
use crate::error::ReadError;
use crate::machine::leases::Mark;
use crate::message::ShardId;
use crate::records::Records;

/// How many times a worker renews its leases while they last.
const RENEWALS: u32 = 3;

/// A member of a [`ConsumerGroup`](crate::ConsumerGroup), which takes its share of the shards.
///
/// It gives batches of different shards in turn. Of one shard it gives one at a time, so batches may be processed side
/// by side, and each shard stays in order.
///
/// Dropping a worker without [`shutdown`](Self::shutdown) is a crash: its leases stay until they expire.
pub struct Worker<T: Send + Sync + 'static> {
    group: Arc<Shared<T>>,
    id: WorkerId,
    open: BTreeMap<ShardId, Open<T>>,
    /// The shard that gave the last batch.
    last: Option<ShardId>,
    /// The version of the leases that `open` follows.
    seen: u64,
    /// When it looks at the leases again, whether or not they have changed.
    wake_at: Instant,
    /// Until when the last try would sleep.
    sleep_until: Instant,
    /// A shard that it was about to read is gone: what that frees was not looked at yet.
    look_again: bool,
    /// Kept for its memory.
    idle: Vec<ShardId>,
}

/// A shard that is being read.
struct Open<T: Send + Sync + 'static> {
    generation: Generation,
    cursor: Cursor<T>,
    /// The position of a record that was processed in part, and the last part that was.
    partial: Option<(u64, u64)>,
}

/// What a try came to.
pub(super) enum Step<T: Send + Sync + 'static> {
    Done(Result<Batch<T>, NextError>),
    /// Nothing; not before this time, unless something changes.
    Wait(Instant),
}

/// What a look at one shard came to.
enum Look<T: Send + Sync + 'static> {
    Give(Batch<T>),
    Trimmed(NextError),
    /// The leases have changed: look at everything again.
    Again,
    Nothing,
    Throttled(Instant),
}

impl<T: Send + Sync + 'static> Worker<T> {
    pub(super) const fn new(group: Arc<Shared<T>>, id: WorkerId) -> Self {
        Self {
            group,
            id,
            open: BTreeMap::new(),
            last: None,
            // No version: the first call looks.
            seen: u64::MAX,
            wake_at: Instant::ORIGIN,
            sleep_until: Instant::ORIGIN,
            look_again: false,
            idle: Vec::new(),
        }
    }

    /// Its number in the group.
    #[must_use]
    pub const fn id(&self) -> WorkerId {
        self.id
    }

    /// The shards whose leases it holds.
    #[must_use]
    pub fn held(&self) -> Vec<ShardId> {
        let state = self.group.state.lock();
        state
            .leases
            .of(self.id)
            .map(|lease| lease.shard_id)
            .collect()
    }

    /// Gives the next batch, if there is one. Renews, takes and gives back leases as it comes.
    ///
    /// # Errors
    /// [`NextError`]: nothing at present, records lost to retention, or the stream is closed and processed.
    pub fn try_next(&mut self) -> Result<Batch<T>, NextError> {
        match self.attempt() {
            Step::Done(outcome) => outcome,
            Step::Wait(_) => Err(NextError::Empty),
        }
    }

    /// Gives the next batch, waiting for it.
    ///
    /// Leases are renewed, taken and given back meanwhile.
    ///
    /// # Errors
    /// [`NextError`]: records lost to retention, or the stream is closed and processed.
    ///
    /// # Cancel safety
    /// The worker moves on in the poll that returns the batch: a future that is dropped before skips none.
    pub async fn next(&mut self) -> Result<Batch<T>, NextError> {
        self.next_until(Instant::NEVER).await
    }

    /// Gives the next batch, waiting for it until a deadline.
    ///
    /// # Errors
    /// [`NextError::Elapsed`] at the deadline; else as [`next`](Self::next).
    ///
    /// # Cancel safety
    /// The worker moves on in the poll that returns the batch: a future that is dropped before skips none.
    pub async fn next_until(&mut self, deadline: Instant) -> Result<Batch<T>, NextError> {
        let mut waiting = Waiting::new(self);
        poll_fn(|cx| waiting.poll(cx, deadline)).await
    }

    /// Gives the next batch, blocking the thread until there is one.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn next_blocking(&mut self) -> Result<Batch<T>, NextError> {
        self.next_blocking_until(Instant::NEVER)
    }

    /// Gives the next batch, blocking the thread until there is one or the deadline comes.
    ///
    /// # Errors
    /// As [`next_until`](Self::next_until).
    pub fn next_blocking_until(&mut self, deadline: Instant) -> Result<Batch<T>, NextError> {
        let group = Arc::clone(&self.group);
        let stream = group.stream.shared();
        let mut step = self.attempt();
        loop {
            let wake_at = match step {
                Step::Done(outcome) => return outcome,
                Step::Wait(_) if !deadline.is_never() && stream.clock.now() >= deadline => {
                    return Err(NextError::Elapsed);
                }
                Step::Wait(wake_at) => wake_at.min(deadline),
            };
            let waited = until_blocking(&stream.arrivals, &stream.clock, wake_at, || {
                self.attempt_before(wake_at)
            });
            step = waited.unwrap_or_else(|Elapsed| self.attempt());
        }
    }

    /// The batches as a `futures` stream, which ends when the stream is closed and processed.
    ///
    /// [`NextError::Trimmed`] is an item like others, and the stream goes on behind the gap.
    #[must_use]
    pub fn into_stream(self) -> WorkerStream<T> {
        WorkerStream {
            worker: self,
            waiter: Waiter::new(),
            is_over: false,
        }
    }

    /// Renews all leases, while processing takes long and the worker is not asked for records.
    pub fn heartbeat(&self) {
        let now = self.group.now();
        self.group.state.lock().leases.renew(self.id, now);
    }

    /// Leaves the group: the leases are free at once, those with a batch in flight when it is dropped.
    ///
    /// What was given and is not checkpointed by then is given again to the next owner.
    pub fn shutdown(self) {
        let now = self.group.now();
        let mut state = self.group.state.lock();
        state.leases.leave(self.id);
        for (shard, open) in &self.open {
            let holding = state.holdings.get_mut(shard);
            match holding.filter(|holding| holding.generation == open.generation) {
                Some(holding) if holding.busy => holding.leaving = true,
                _ => {
                    if state.leases.release(self.id, *shard, open.generation, now) {
                        state.holdings.remove(shard);
                    }
                }
            }
        }
        // What it was handed and has not looked at yet.
        let fresh: Vec<_> = state
            .leases
            .of(self.id)
            .filter(|lease| !self.open.contains_key(&lease.shard_id))
            .map(|lease| (lease.shard_id, lease.generation))
            .collect();
        for (shard, generation) in fresh {
            state.leases.release(self.id, shard, generation, now);
        }
        drop(state);
        self.group.notify();
    }

    /// One try.
    pub(super) fn attempt(&mut self) -> Step<T> {
        let now = self.group.now();
        loop {
            if let Some(outcome) = self.call_in(now) {
                return Step::Done(outcome);
            }
            let mut wake_at = self.wake_at;
            let mut again = mem::take(&mut self.look_again);
            let idle = mem::take(&mut self.idle);
            for shard in &idle {
                match self.look(*shard, now) {
                    Look::Give(batch) => {
                        self.last = Some(*shard);
                        self.idle = idle;
                        return Step::Done(Ok(batch));
                    }
                    Look::Trimmed(error) => {
                        self.idle = idle;
                        return Step::Done(Err(error));
                    }
                    Look::Again => again = true,
                    Look::Throttled(retry_at) => wake_at = wake_at.min(retry_at),
                    Look::Nothing => {}
                }
            }
            self.idle = idle;
            if again {
                continue;
            }
            return if self.is_all_over() {
                Step::Done(Err(NextError::Closed))
            } else {
                self.sleep_until = wake_at;
                Step::Wait(wake_at)
            };
        }
    }

    /// A try for who sleeps until `limit`: done too when it must sleep shorter.
    fn attempt_before(&mut self, limit: Instant) -> Attempt<Step<T>> {
        match self.attempt() {
            Step::Wait(wake_at) if wake_at >= limit => Attempt::Pending {
                wake_at: Instant::NEVER,
            },
            value => Attempt::Done { value, more: false },
        }
    }

    /// Learns what the stream and the group have become, if they have changed or it is time to: renews, gives back what
    /// others want, takes its share, and lists in `idle` the shards that may give something, the one after the last
    /// first. `Some` is the last occasion to checkpoint a shard that is wanted, or what was lost by whole shards.
    fn call_in(&mut self, now: Instant) -> Option<Result<Batch<T>, NextError>> {
        let group = Arc::clone(&self.group);
        let mut state = group.state.lock();
        group.follow(&mut state, now);
        let before = state.leases.version();
        let mut fresh = Vec::new();
        let mut farewell = None;
        if before != self.seen || now >= self.wake_at {
            state.leases.renew(self.id, now);
            farewell = self.give_wanted(&mut state, now);
            state.leases.balance(self.id, now);
            self.sync(&mut state, &mut fresh);
            let renewal = now + group.config.lease_duration / RENEWALS;
            self.wake_at = state.leases.next_change(self.id, now).min(renewal);
            self.seen = state.leases.version();
        }
        let has_changed = state.leases.version() != before;
        self.list_idle(&mut state, &mut fresh);
        let lost = match farewell {
            None => mem::take(&mut state.lost).told(),
            Some(_) => None,
        };
        drop(state);
        if has_changed {
            group.notify();
        }
        for lease in fresh {
            self.open(&lease);
        }
        if let Some(lost) = lost {
            return Some(Err(lost));
        }
        let (shard, holding) = farewell?;
        let open = self.open.get(&shard)?;
        let records = Records {
            shard: Arc::clone(&open.cursor.shard),
            batch: None,
            next: open.cursor.position(),
            behind: std::time::Duration::ZERO,
            end: None,
        };
        let batch = self.batch(shard, holding.generation, BatchKind::HandOff, records, None);
        Some(Ok(batch))
    }

    /// Gives back the leases that others want. The first of which something is not checkpointed is marked busy and
    /// returned instead.
    fn give_wanted(&self, state: &mut State, now: Instant) -> Option<(ShardId, Holding)> {
        let mut farewell = None;
        for (shard, open) in &self.open {
            let State {
                leases, holdings, ..
            } = &mut *state;
            if !leases.holds(self.id, *shard, open.generation) || !leases.is_wanted(*shard) {
                continue;
            }
            match holdings.get_mut(shard) {
                Some(holding) if holding.generation == open.generation && holding.busy => {}
                Some(holding)
                    if holding.generation == open.generation
                        && !holding.rewind
                        && !is_covered(leases, *shard, holding) =>
                {
                    if farewell.is_none() {
                        holding.busy = true;
                        farewell = Some((*shard, *holding));
                    }
                }
                _ => {
                    holdings.remove(shard);
                    leases.release(self.id, *shard, open.generation, now);
                }
            }
        }
        farewell
    }

    /// Makes `open` follow the leases that it holds. Those that are new are in `fresh`.
    fn sync(&mut self, state: &mut State, fresh: &mut Vec<Lease>) {
        let State {
            leases, holdings, ..
        } = state;
        self.open
            .retain(|shard, open| leases.holds(self.id, *shard, open.generation));
        for lease in leases.of(self.id) {
            if !self.open.contains_key(&lease.shard_id) {
                holdings.insert(
                    lease.shard_id,
                    Holding {
                        generation: lease.generation,
                        busy: false,
                        given: None,
                        rewind: false,
                        leaving: false,
                    },
                );
                fresh.push(lease.clone());
            }
        }
    }

    /// Lists the shards that have no batch in flight. Those that must go back are in `fresh` too.
    fn list_idle(&mut self, state: &mut State, fresh: &mut Vec<Lease>) {
        self.idle.clear();
        self.idle.extend(fresh.iter().map(|lease| lease.shard_id));
        let (after, before) = match self.last {
            Some(last) => (Bound::Excluded(last), Bound::Included(last)),
            None => (Bound::Unbounded, Bound::Excluded(ShardId::new(0))),
        };
        let behind = self.open.range((after, Bound::Unbounded));
        for (shard, open) in behind.chain(self.open.range((Bound::Unbounded, before))) {
            let holding = state.holdings.get_mut(shard);
            let Some(holding) = holding.filter(|it| it.generation == open.generation && !it.busy)
            else {
                continue;
            };
            if mem::take(&mut holding.rewind) {
                holding.given = None;
                fresh.extend(state.leases.get(*shard).cloned());
            }
            self.idle.push(*shard);
        }
    }

    /// Begins to read a shard where its lease says.
    fn open(&mut self, lease: &Lease) {
        let stream = &self.group.stream;
        let Some(shard) = stream.shared().shard(lease.shard_id) else {
            // Its retention is over.
            self.look_again = true;
            self.open.remove(&lease.shard_id);
            self.group.forget(self.id, lease);
            return;
        };
        let position = begin(&shard, lease);
        let cursor = stream.cursor_at(shard, position, false);
        let partial = match lease.progress() {
            Some(Mark::Part(record, part)) => Some((record.position(), part)),
            _ => None,
        };
        let generation = lease.generation;
        self.open.insert(
            lease.shard_id,
            Open {
                generation,
                cursor,
                partial,
            },
        );
    }

    /// Reads one shard.
    fn look(&mut self, shard: ShardId, now: Instant) -> Look<T> {
        let Some(open) = self.open.get_mut(&shard) else {
            return Look::Nothing;
        };
        match open.cursor.try_read(self.group.config.read) {
            Ok(records) if !records.is_empty() => self.give(shard, records),
            Ok(records) if records.is_end() => self.end(shard, records, now),
            Ok(_) => Look::Nothing,
            Err(ReadError::Throttled { retry_at, .. }) => Look::Throttled(retry_at),
            Err(ReadError::Trimmed { lost, resume_at }) => Look::Trimmed(NextError::Trimmed {
                shard_id: shard,
                lost,
                resume_at,
            }),
            // No other error is known to a cursor's read: it is looked at again when something changes.
            Err(_) => Look::Nothing,
        }
    }

    /// Gives records, unless the lease is lost.
    fn give(&mut self, shard: ShardId, records: Records<T>) -> Look<T> {
        let Some(open) = self.open.get(&shard) else {
            return Look::Nothing;
        };
        let generation = open.generation;
        let mut state = self.group.state.lock();
        let holds = state.leases.holds(self.id, shard, generation);
        let holding = state.holdings.get_mut(&shard);
        let Some(holding) = holding.filter(|holding| holds && holding.generation == generation)
        else {
            drop(state);
            self.open.remove(&shard);
            return Look::Again;
        };
        holding.busy = true;
        holding.given = records.last_sequence_number();
        state.batches += 1;
        state.records += records.len() as u64;
        drop(state);
        let first = records.get(0).map(|record| record.position());
        let resumed = open
            .partial
            .filter(|(position, _)| Some(*position) == first)
            .map(|(_, part)| part);
        Look::Give(self.batch(shard, generation, BatchKind::Records, records, resumed))
    }

    /// Ends a shard of which everything is checkpointed, or asks for that.
    fn end(&mut self, shard: ShardId, records: Records<T>, now: Instant) -> Look<T> {
        let Some(open) = self.open.get(&shard) else {
            return Look::Nothing;
        };
        let generation = open.generation;
        let mut state = self.group.state.lock();
        let State {
            leases, holdings, ..
        } = &mut *state;
        let holds = leases.holds(self.id, shard, generation);
        let holding = holdings.get_mut(&shard);
        let Some(holding) = holding.filter(|holding| holds && holding.generation == generation)
        else {
            drop(state);
            self.open.remove(&shard);
            return Look::Again;
        };
        if !is_covered(leases, shard, holding) {
            holding.busy = true;
            drop(state);
            return Look::Give(self.batch(shard, generation, BatchKind::ShardEnd, records, None));
        }
        // Its generation was looked at under this lock.
        let ended = leases.checkpoint(self.id, shard, generation, Mark::End, now);
        debug_assert!(ended.is_ok(), "{ended:?}");
        holdings.remove(&shard);
        drop(state);
        self.open.remove(&shard);
        self.group.notify();
        Look::Again
    }

    fn batch(
        &self,
        shard: ShardId,
        generation: Generation,
        kind: BatchKind,
        records: Records<T>,
        resumed: Option<u64>,
    ) -> Batch<T> {
        let checkpointer = Checkpointer {
            group: Arc::clone(&self.group),
            worker: self.id,
            shard,
            salt: self.group.stream.shared().salt,
            generation,
        };
        Batch::new(records, kind, resumed, checkpointer)
    }

    /// Whether the stream is closed and every shard is processed to its end.
    fn is_all_over(&self) -> bool {
        let table = self.group.stream.shared().table();
        if !table.is_closed() {
            return false;
        }
        let state = self.group.state.lock();
        state.table == Some(table.version) && state.leases.iter().all(Lease::is_finished)
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Worker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("id", &self.id)
            .field("reading", &self.open.keys())
            .finish_non_exhaustive()
    }
}

/// A worker that waits, one poll at a time.
pub(super) struct Waiting<'a, T: Send + Sync + 'static> {
    pub(super) worker: &'a mut Worker<T>,
    waiter: Waiter,
}

impl<'a, T: Send + Sync + 'static> Waiting<'a, T> {
    pub(super) const fn new(worker: &'a mut Worker<T>) -> Self {
        Self {
            worker,
            waiter: Waiter::new(),
        }
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        deadline: Instant,
    ) -> Poll<Result<Batch<T>, NextError>> {
        poll_batch(self.worker, &mut self.waiter, cx, deadline)
    }
}

impl<T: Send + Sync + 'static> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        self.waiter
            .cancel(&self.worker.group.stream.shared().arrivals);
    }
}

/// Sleeps no longer than to the time at which the worker must look at its leases again.
///
/// Every worker keeps its own time: the event's timekeeper knows one deadline for all, and theirs differ.
fn poll_batch<T: Send + Sync + 'static>(
    worker: &mut Worker<T>,
    waiter: &mut Waiter,
    cx: &mut Context<'_>,
    deadline: Instant,
) -> Poll<Result<Batch<T>, NextError>> {
    let group = Arc::clone(&worker.group);
    let stream = group.stream.shared();
    loop {
        let limit = worker.sleep_until.min(deadline);
        let polled = waiter.poll_until(cx, &stream.arrivals, &stream.clock, limit, &mut || {
            worker.attempt_before(limit)
        });
        match polled {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(Step::Done(outcome))) => return Poll::Ready(outcome),
            Poll::Ready(Ok(Step::Wait(_)) | Err(Elapsed)) => {
                if !deadline.is_never() && stream.clock.now() >= deadline {
                    return Poll::Ready(Err(NextError::Elapsed));
                }
            }
        }
    }
}

/// The stream of [`Worker::into_stream`].
pub struct WorkerStream<T: Send + Sync + 'static> {
    worker: Worker<T>,
    waiter: Waiter,
    is_over: bool,
}

impl<T: Send + Sync + 'static> WorkerStream<T> {
    /// The worker.
    #[must_use]
    pub const fn worker(&self) -> &Worker<T> {
        &self.worker
    }
}

/// Nothing in it is pinned.
impl<T: Send + Sync + 'static> Unpin for WorkerStream<T> {}

impl<T: Send + Sync + 'static> FuturesStream for WorkerStream<T> {
    type Item = Result<Batch<T>, NextError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self {
            worker,
            waiter,
            is_over,
        } = &mut *self;
        if *is_over {
            return Poll::Ready(None);
        }
        match poll_batch(worker, waiter, cx, Instant::NEVER) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(NextError::Closed)) => {
                *is_over = true;
                Poll::Ready(None)
            }
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        }
    }
}

impl<T: Send + Sync + 'static> Drop for WorkerStream<T> {
    fn drop(&mut self) {
        self.waiter
            .cancel(&self.worker.group.stream.shared().arrivals);
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for WorkerStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerStream")
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}
