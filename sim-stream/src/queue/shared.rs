//! What all handles of a queue share: the machine and the cursors behind a lock, and the events of those who wait.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use sim_core::event::Event;
use sim_core::log::{self, Read};
use sim_core::sync::{Arc, Mutex};
use sim_core::time::{Instant, Timestamp};

use crate::machine::delivery::{
    Asked, Delivery, Ended, LeaseKey, Leased, Look, OverLimit, Standing,
};
use crate::message::ShardId;
use crate::queue::config::{QueueConfig, QueueLimits, QueueUpdate, Receive};
use crate::queue::error::{InvalidReceive, QueueError, Stale, TryReceiveError, VisibilityError};
use crate::queue::record::{QueueRecord, Receipt};
use crate::queue::stats::{LostRecords, QueueDescription, QueueStats};
use crate::records::StreamRecord;
use crate::stream::Stream;
use crate::stream::shared::{Shard, Shared, Stored, Table};

/// Room for so many records is made before they are received.
const FORESEEN: usize = 16;

/// What stands behind every handle of one queue.
pub(super) struct Core<T: Send + Sync + 'static> {
    pub(super) stream: Stream<T>,
    pub(super) created: Timestamp,
    limits: QueueLimits,
    state: Mutex<State<T>>,
    /// Notified when a record may have become visible: by the stream's puts, and by what comes back.
    pub(super) arrivals: Arc<Event>,
    /// Notified when a dead letter became visible.
    pub(super) burials: Event,
}

struct State<T: Send + Sync + 'static> {
    config: QueueConfig,
    machine: Delivery,
    /// Of the shards that the machine reads.
    sources: BTreeMap<ShardId, Source<T>>,
    /// The newest shard that was ever opened: whatever comes after it is new.
    newest: Option<ShardId>,
    /// The version of the stream's table in which new shards were last looked for.
    version: u64,
    empty_receives: u64,
    is_closed: bool,
}

/// A shard and how far it was read.
struct Source<T: Send + Sync + 'static> {
    shard: Arc<Shard<T>>,
    cursor: log::Cursor<Stored<T>>,
}

/// Which records a receive is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Ordinary,
    DeadLetters,
}

/// What waiters wait for, before and after a change.
#[derive(Clone, Copy)]
struct Mark {
    standing: Standing,
    deadline: Instant,
    is_drained: bool,
}

impl<T: Send + Sync + 'static> Core<T> {
    pub(super) fn new(stream: &Stream<T>, config: QueueConfig) -> Result<Self, QueueError> {
        config.check()?;
        let shared = stream.shared();
        let arrivals = Arc::new(Event::new());
        let now = shared.clock.now();
        let created = shared.clock.timestamp(now);
        let table = shared.table();
        let mut places = Vec::new();
        for shard in &table.all {
            // A closed shard has nothing for who begins at the end, and its children, if it has any yet, are found.
            let (position, _) = shared.position_of(shard, config.start.position())?;
            places.push((Arc::clone(shard), position));
        }
        // From here on the queue must leave again.
        let number = shared.followers.join(&arrivals);
        let machine = Delivery::new(config.rules(), secret(&config, shared, number));
        let mut state = State {
            machine,
            sources: BTreeMap::new(),
            newest: None,
            version: table.version,
            empty_receives: 0,
            is_closed: false,
            config,
        };
        for (shard, position) in places {
            state.open(&shard, position);
        }
        Ok(Self {
            stream: stream.clone(),
            created,
            limits: state.config.limits,
            state: Mutex::new(state),
            arrivals,
            burials: Event::new(),
        })
    }

    fn now(&self) -> Instant {
        self.stream.shared().clock.now()
    }

    /// Does something to the state, and tells whom it concerns when the lock is given back.
    fn change<R>(&self, act: impl FnOnce(&mut State<T>) -> R) -> R {
        let mut state = self.state.lock();
        let before = state.mark();
        let result = act(&mut state);
        let after = state.mark();
        drop(state);
        // Where nothing is left of a closed stream, those who wait are to be told.
        if after.standing.returned > before.standing.returned
            || after.is_drained && !before.is_drained
        {
            self.arrivals.notify_one();
        }
        if after.standing.dead > before.standing.dead {
            self.burials.notify_one();
        }
        if after.deadline < before.deadline {
            self.arrivals.retime();
            self.burials.retime();
        }
        result
    }

    // ---- receiving -----------------------------------------------------------------------------------

    /// One try. Does not count an empty one.
    pub(super) fn receive(
        &self,
        ask: Receive,
        which: Which,
    ) -> Result<Vec<QueueRecord<T>>, TryReceiveError> {
        self.check(ask)?;
        let shared = self.stream.shared();
        let now = self.now();
        shared.serve_readers(now);
        let leased = self.change(|state| match which {
            _ if state.is_closed => Err(TryReceiveError::Closed),
            Which::Ordinary => state.receive(shared, now, ask),
            Which::DeadLetters => state.receive_dead(shared, now, ask),
        })?;
        Ok(leased
            .into_iter()
            .map(|leased| {
                let first_received = shared.clock.timestamp(leased.first_received_at);
                QueueRecord::new(leased, first_received)
            })
            .collect())
    }

    fn check(&self, ask: Receive) -> Result<(), InvalidReceive> {
        let limit = self.limits.batch;
        if ask.max == 0 || ask.max > limit {
            let value = ask.max;
            return Err(InvalidReceive::Max { value, limit });
        }
        let limit = self.limits.visibility;
        match ask.visibility_timeout {
            Some(value) if value > limit => Err(InvalidReceive::Visibility { value, limit }),
            _ => Ok(()),
        }
    }

    pub(super) fn count_empty(&self) {
        self.state.lock().empty_receives += 1;
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.state.lock().machine.next_deadline()
    }

    /// Ends what is over at `now`, and drops the dead letters whose retention is.
    pub(super) fn advance(&self, now: Instant) {
        let shared = self.stream.shared();
        shared.serve_readers(now);
        self.change(|state| {
            state.machine.serve(now);
            state.sweep(shared, now);
        });
    }

    // ---- verdicts ------------------------------------------------------------------------------------

    /// Applies a verdict of the machine to each receipt, under one lock.
    pub(super) fn judge<V>(
        &self,
        verdicts: impl IntoIterator<Item = (Receipt, V)>,
        mut judge: impl FnMut(&mut Delivery, Instant, LeaseKey, V) -> Result<(), Ended>,
    ) -> Vec<Result<(), Stale>> {
        // The caller's code runs before the lock is taken.
        let verdicts: Vec<(Receipt, V)> = verdicts.into_iter().collect();
        let now = self.now();
        self.change(|state| {
            verdicts
                .into_iter()
                .map(|(receipt, verdict)| {
                    judge(&mut state.machine, now, receipt.0, verdict).map_err(|Ended| Stale)
                })
                .collect()
        })
    }

    /// As [`judge`](Self::judge), of one receipt.
    pub(super) fn judge_one(
        &self,
        receipt: Receipt,
        judge: impl FnOnce(&mut Delivery, Instant, LeaseKey) -> Result<(), Ended>,
    ) -> Result<(), Stale> {
        let now = self.now();
        self.change(|state| judge(&mut state.machine, now, receipt.0))
            .map_err(|Ended| Stale)
    }

    pub(super) fn check_visibility(&self, value: Duration) -> Result<(), VisibilityError> {
        let limit = self.limits.visibility;
        if value > limit {
            return Err(VisibilityError::TooLong { value, limit });
        }
        Ok(())
    }

    pub(super) fn restore_all(&self) -> u64 {
        let shared = self.stream.shared();
        let now = self.now();
        shared.serve_readers(now);
        self.change(|state| {
            state.machine.serve(now);
            state.sweep(shared, now);
            state.machine.restore_all()
        })
    }

    // ---- life ----------------------------------------------------------------------------------------

    pub(super) fn update(&self, update: QueueUpdate) -> Result<(), crate::ConfigError> {
        let now = self.now();
        self.change(|state| {
            let mut config = state.config.clone();
            if let Some(timeout) = update.visibility_timeout {
                config.visibility_timeout = timeout;
            }
            if let Some(dead_letters) = update.dead_letters {
                config.dead_letters = dead_letters;
            }
            config.check_attributes()?;
            // What is over has ended under the former rules.
            state.machine.serve(now);
            state.machine.set_rules(config.rules());
            state.config = config;
            Ok(())
        })
    }

    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        if !state.is_closed {
            state.is_closed = true;
            // Receipts of before miss from now on, and chunks are let go.
            state.machine.clear();
            state.sources.clear();
        }
        drop(state);
        self.stream.shared().followers.leave(&self.arrivals);
        self.arrivals.notify_all();
        self.burials.notify_all();
    }

    pub(super) fn describe(&self) -> QueueDescription {
        let state = self.state.lock();
        let QueueConfig {
            name,
            start,
            visibility_timeout,
            dead_letters,
            ..
        } = state.config.clone();
        QueueDescription {
            name,
            stream: self.stream.shared().config.name.clone(),
            created: self.created,
            start,
            visibility_timeout,
            dead_letters,
            is_closed: state.is_closed,
        }
    }

    pub(super) fn stats(&self) -> QueueStats {
        let shared = self.stream.shared();
        let now = self.now();
        shared.serve_readers(now);
        self.change(|state| {
            state.machine.serve(now);
            state.sweep(shared, now);
            state.stats(shared, now)
        })
    }
}

impl<T: Send + Sync + 'static> Drop for Core<T> {
    fn drop(&mut self) {
        self.stream.shared().followers.leave(&self.arrivals);
    }
}

impl<T: Send + Sync + 'static> State<T> {
    fn mark(&mut self) -> Mark {
        Mark {
            standing: self.machine.standing(),
            deadline: self.machine.next_deadline().unwrap_or(Instant::NEVER),
            is_drained: self.machine.is_drained(),
        }
    }

    /// Begins to read a shard.
    fn open(&mut self, shard: &Arc<Shard<T>>, position: u64) {
        let mut parents = shard.parents.iter().copied();
        let parents = [parents.next(), parents.next()];
        self.machine.open(shard.id, position, parents);
        let source = Source {
            cursor: shard.log.cursor(position),
            shard: Arc::clone(shard),
        };
        self.sources.insert(shard.id, source);
        self.newest = self.newest.max(Some(shard.id));
    }

    /// Finds the shards that came since: they are children of those that were read before, whole.
    fn follow(&mut self, table: &Table<T>) {
        if table.version == self.version {
            return;
        }
        self.version = table.version;
        let known = table
            .all
            .partition_point(|shard| Some(shard.id) <= self.newest);
        for shard in &table.all[known..] {
            self.open(shard, 0);
        }
    }

    fn receive(
        &mut self,
        shared: &Shared<T>,
        now: Instant,
        ask: Receive,
    ) -> Result<Vec<Leased<StreamRecord<T>>>, TryReceiveError> {
        let mut out = Vec::with_capacity(ask.max.min(FORESEEN));
        loop {
            let table = shared.table();
            self.follow(&table);
            let mut ended = Vec::new();
            let sources = &mut self.sources;
            let outcome = self.machine.receive(
                now,
                ask.max - out.len(),
                ask.visibility_timeout,
                &mut |shard, position, asked| {
                    let found = match asked {
                        Asked::Next => match sources.get_mut(&shard) {
                            Some(source) => next(source, shared, now, position),
                            None => Look::End,
                        },
                        Asked::Again => again(&table, shared, now, shard, position),
                    };
                    if matches!(found, Look::End) {
                        ended.push(shard);
                    }
                    found
                },
                &mut out,
            );
            match outcome {
                Err(OverLimit) if out.is_empty() => {
                    let limit = self.config.max_in_flight;
                    return Err(TryReceiveError::OverLimit { limit });
                }
                Err(OverLimit) => break,
                Ok(_) => {}
            }
            if ended.is_empty() {
                break;
            }
            for shard in ended {
                let Some(source) = self.sources.remove(&shard) else {
                    continue;
                };
                for child in source.shard.children() {
                    // The log is closed before the table with the children stands: this waits for it.
                    drop(shared.shard(child.id));
                }
            }
            if out.len() == ask.max {
                break;
            }
        }
        if !out.is_empty() {
            return Ok(out);
        }
        if self.machine.is_drained() && shared.table().is_closed() {
            return Err(TryReceiveError::Closed);
        }
        Err(TryReceiveError::Empty)
    }

    fn receive_dead(
        &mut self,
        shared: &Shared<T>,
        now: Instant,
        ask: Receive,
    ) -> Result<Vec<Leased<StreamRecord<T>>>, TryReceiveError> {
        self.machine.serve(now);
        self.sweep(shared, now);
        let table = shared.table();
        let mut out = Vec::with_capacity(ask.max.min(FORESEEN));
        self.machine.receive_dead(
            now,
            ask.max,
            ask.visibility_timeout,
            &mut |shard, position, _| again(&table, shared, now, shard, position),
            &mut out,
        );
        if out.is_empty() {
            return Err(TryReceiveError::Empty);
        }
        Ok(out)
    }

    fn sweep(&mut self, shared: &Shared<T>, now: Instant) {
        let table = shared.table();
        self.machine.sweep(&mut |shard| match table.shard(shard) {
            Some(shard) => shared.look_horizon(shard, now),
            None => u64::MAX,
        });
    }

    fn stats(&mut self, shared: &Shared<T>, now: Instant) -> QueueStats {
        let table = shared.table();
        if !self.is_closed {
            self.follow(&table);
        }
        let mut unread = 0;
        let mut oldest: Option<Instant> = None;
        for (shard, position) in self.machine.shards() {
            let Some(source) = self.sources.get(&shard) else {
                continue;
            };
            let log = &source.shard.log;
            let from = position.max(shared.look_horizon(&source.shard, now));
            unread += log.end().saturating_sub(from);
            if let Some(entry) = log.get(from) {
                let arrived = entry.value().arrived;
                oldest = Some(oldest.map_or(arrived, |oldest| oldest.min(arrived)));
            }
        }
        let standing = self.machine.standing();
        let tally = self.machine.tally();
        QueueStats {
            visible: standing.returned + unread,
            in_flight: standing.leased,
            delayed: standing.delayed,
            visible_dead_letters: standing.dead,
            in_flight_dead_letters: standing.dead_leased,
            oldest_age: oldest.map(|oldest| now.saturating_duration_since(oldest)),
            received: tally.received,
            acknowledged: tally.acknowledged,
            empty_receives: self.empty_receives,
            lapsed: tally.lapsed,
            released: tally.released,
            buried: tally.buried,
            received_dead_letters: tally.received_dead,
            acknowledged_dead_letters: tally.acknowledged_dead,
            restored_dead_letters: tally.restored,
            lost: LostRecords {
                unread: tally.lost.unread,
                returned: tally.lost.returned,
                dead_letters: tally.lost.dead,
                dead_letter_overflow: tally.lost.dead_overflow,
            },
        }
    }
}

/// Reads on in a shard.
fn next<T: Send + Sync + 'static>(
    source: &mut Source<T>,
    shared: &Shared<T>,
    now: Instant,
    position: u64,
) -> Look<StreamRecord<T>> {
    if source.cursor.position() != position {
        source.cursor.seek(position);
    }
    match source.cursor.next() {
        Read::Record(entry) if shared.is_expired(entry.value(), now) => Look::Trimmed {
            resume_at: shared.look_horizon(&source.shard, now).max(position + 1),
        },
        Read::Record(entry) => Look::Record(StreamRecord {
            shard: Arc::clone(&source.shard),
            entry,
        }),
        Read::Pending => Look::Pending,
        Read::End => Look::End,
        Read::Trimmed { resume_at } => Look::Trimmed { resume_at },
    }
}

/// Reads a record that was read before.
fn again<T: Send + Sync + 'static>(
    table: &Table<T>,
    shared: &Shared<T>,
    now: Instant,
    shard: ShardId,
    position: u64,
) -> Look<StreamRecord<T>> {
    let found = table.shard(shard).and_then(|shard| shard.record(position));
    match found.filter(|record| !shared.is_expired(record.entry.value(), now)) {
        Some(record) => Look::Record(record),
        // It was committed once.
        None => Look::Trimmed {
            resume_at: position + 1,
        },
    }
}

/// What makes the receipts of one queue its own.
fn secret<T: Send + Sync + 'static>(config: &QueueConfig, shared: &Shared<T>, number: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    config.seed.hash(&mut hasher);
    config.name.hash(&mut hasher);
    shared.salt.hash(&mut hasher);
    number.hash(&mut hasher);
    hasher.finish()
}
