//! Consumer groups: workers that share the shards of a stream by leases, in the manner of the Kinesis Client Library.
//!
//! A [`ConsumerGroup`] is a table of leases, one a shard, and [`Worker`]s that take them. A worker gives
//! [`Batch`]es of records, each of one shard, and whoever has processed them says so with
//! [`checkpoint`](Batch::checkpoint). From there another worker goes on when this one is gone.
//!
//! # Guarantees
//!
//! - **At least once.** No record behind the last checkpoint is skipped, whoever crashes; the only exception is
//!   retention, and then a worker says how many were lost ([`NextError::Trimmed`], or [`NextError::Expired`] where a
//!   whole shard has left the stream). Records between the last checkpoint and a crash are given again.
//! - **In order.** The records of a shard are given in order, one batch at a time: the next when the one before was
//!   dropped. A shard's children come when all their parents are processed to their end. So records of one key are
//!   processed in the order in which they were put, seen from the first time that each is processed.
//! - **One owner a generation.** Each change of hands starts a new [`Generation`]. A *zombie*, a worker that was taken
//!   for dead and goes on, may process records that another one processes too, but its checkpoints are refused
//!   ([`CheckpointError::LeaseLost`](crate::CheckpointError::LeaseLost)).
//! - **Checkpoints only move forward**, and never beyond what was given.
//! - **Bounded.** One lease for each shard that the stream lists, [`GroupConfig::max_workers`] workers, one batch in
//!   flight for each shard held.
//!
//! # Time
//!
//! Nothing is spawned. A worker renews its leases when it is asked for records, while it waits for them, at each
//! checkpoint, and by [`Worker::heartbeat`] or [`Batch::heartbeat`]. A worker that is dropped without
//! [`shutdown`](Worker::shutdown) has crashed: its leases are free when the
//! [duration](GroupConfig::lease_duration) has passed on the stream's clock. Until another one takes them, a worker that
//! is merely late still holds them.
//!
//! # Hand-off
//!
//! A worker with less than its share asks the most loaded one for a lease. The owner gives it as soon as no batch of
//! the shard is in flight and everything that was given is checkpointed; if something is not, it gets one more, empty
//! batch ([`BatchKind::HandOff`]) as the occasion to do so. After the
//! [timeout](GroupConfig::hand_off_timeout) the lease is taken without it.

mod batch;
mod config;
mod error;
mod lost;
mod run;
mod worker;

use std::collections::BTreeMap;
use std::fmt;

use sim_core::seam::{Depth, Gauge};
use sim_core::sync::{Arc, Mutex};
use sim_core::time::Instant;

use self::lost::{Known, Lost};
use crate::machine::leases::{Leases, Listed};
use crate::message::{Checkpoint, SequenceNumber, ShardId, StartingPosition};
use crate::stream::Stream;
use crate::stream::shared::Table;

pub use self::batch::{Batch, BatchKind, Checkpointer};
pub use self::config::{GroupConfig, InitialPosition};
pub use self::error::{GroupError, JoinError, NextError, RunError};
pub use self::worker::{Worker, WorkerStream};
pub use crate::machine::leases::{Generation, HandOff, Lease, LeaseStats, WorkerId};

/// Workers that share the shards of one stream; see the [module](self).
///
/// A handle: clones are the same group. Several groups on one stream know nothing of each other.
///
/// ```
/// use sim_stream::{ConsumerGroup, GroupConfig, PartitionKey, Record, Stream, StreamConfig};
///
/// let stream = Stream::new(StreamConfig::new("departures"))?;
/// stream.try_put(Record::new(PartitionKey::new("AA")?, "flight 1"))?;
///
/// let group = ConsumerGroup::new(&stream, GroupConfig::new("board"))?;
/// let mut worker = group.join()?;
/// let batch = worker.try_next()?;
/// for record in batch.iter() {
///     assert_eq!((record.partition_key(), *record.value()), ("AA", "flight 1"));
/// }
/// batch.checkpoint()?;
/// worker.shutdown();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ConsumerGroup<T: Send + Sync + 'static> {
    shared: Arc<Shared<T>>,
}

/// What the handles, workers and batches of a group share.
struct Shared<T: Send + Sync + 'static> {
    stream: Stream<T>,
    config: GroupConfig,
    state: Mutex<State>,
    /// Locked under `state`.
    known: Mutex<Known<T>>,
}

struct State {
    leases: Leases,
    /// How far the owners of leases have come, by shard. Bound: one a lease.
    holdings: BTreeMap<ShardId, Holding>,
    /// The version of the stream's table that `leases` follows.
    table: Option<u64>,
    lost: Lost,
    batches: u64,
    records: u64,
}

/// What a worker does with a lease that it holds.
#[derive(Debug, Clone, Copy)]
struct Holding {
    generation: Generation,
    /// A batch is in flight.
    busy: bool,
    /// The last record that was given.
    given: Option<SequenceNumber>,
    /// The worker must go back to the checkpoint.
    rewind: bool,
    /// The worker has shut down: the lease is given back when the batch in flight is dropped.
    leaving: bool,
}

/// What a group has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct GroupStats {
    /// What has happened to the leases.
    pub leases: LeaseStats,
    /// Batches of records given.
    pub batches: u64,
    /// Records given; those that were given again count again.
    pub records: u64,
}

impl<T: Send + Sync + 'static> ConsumerGroup<T> {
    /// Makes a group. Its leases are made at once, so that [`InitialPosition::Latest`] means now.
    ///
    /// # Errors
    /// [`GroupError`]: a field of `config` is out of its range, or the initial position lies in the future.
    pub fn new(stream: &Stream<T>, config: GroupConfig) -> Result<Self, GroupError> {
        config.check(&stream.shared().config.limits)?;
        let clock = &stream.shared().clock;
        let now = clock.now();
        if let InitialPosition::AtTimestamp(timestamp) = config.start {
            let present = clock.timestamp(now);
            if timestamp > present {
                return Err(GroupError::FutureTimestamp {
                    timestamp,
                    now: present,
                });
            }
        }
        let shared = Shared {
            stream: stream.clone(),
            state: Mutex::new(State {
                leases: Leases::new(config.rules()),
                holdings: BTreeMap::new(),
                table: None,
                lost: Lost::default(),
                batches: 0,
                records: 0,
            }),
            known: Mutex::new(Known::new()),
            config,
        };
        shared.follow(&mut shared.state.lock(), now);
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Adds a worker. It takes its share of the shards when it is first asked for records.
    ///
    /// # Errors
    /// [`JoinError`]: the group has as many live workers as it may have.
    pub fn join(&self) -> Result<Worker<T>, JoinError> {
        let now = self.shared.now();
        let joined = self.shared.state.lock().leases.join(now);
        let id = joined.map_err(|crowded| JoinError {
            limit: crowded.limit,
        })?;
        self.shared.notify();
        Ok(Worker::new(Arc::clone(&self.shared), id))
    }

    /// The group's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.config.name
    }

    /// The stream.
    #[must_use]
    pub fn stream(&self) -> &Stream<T> {
        &self.shared.stream
    }

    /// What the group goes by.
    #[must_use]
    pub fn config(&self) -> &GroupConfig {
        &self.shared.config
    }

    /// The leases, by shard: who holds what, and from where another would go on.
    #[must_use]
    pub fn leases(&self) -> Vec<Lease> {
        self.shared.state.lock().leases.iter().cloned().collect()
    }

    /// The workers that have called in within the duration of a lease and have not shut down.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerId> {
        let now = self.shared.now();
        let state = self.shared.state.lock();
        state.leases.live_workers(now).collect()
    }

    /// What the group has done.
    #[must_use]
    pub fn stats(&self) -> GroupStats {
        let state = self.shared.state.lock();
        GroupStats {
            leases: state.leases.stats(),
            batches: state.batches,
            records: state.records,
        }
    }
}

impl<T: Send + Sync + 'static> Clone for ConsumerGroup<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for ConsumerGroup<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerGroup")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// Records that the group has still to process: those not given yet are waiting, those given and not checkpointed
/// in flight.
impl<T: Send + Sync + 'static> Gauge for ConsumerGroup<T> {
    fn depth(&self) -> Depth {
        let now = self.shared.now();
        self.shared.stream.shared().serve_readers(now);
        let mut state = self.shared.state.lock();
        self.shared.follow(&mut state, now);
        let mut depth = Depth::default();
        for lease in state.leases.iter().filter(|lease| !lease.is_finished()) {
            let Some(shard) = self.shared.stream.shared().shard(lease.shard_id) else {
                continue;
            };
            let end = shard.log.end();
            let horizon = self.shared.stream.shared().look_horizon(&shard, now);
            let from = lost::begin(&shard, lease).max(horizon).min(end);
            let given = state.holdings.get(&lease.shard_id);
            let given = given
                .filter(|holding| holding.generation == lease.generation)
                .and_then(|holding| holding.given)
                .map_or(from, |given| (given.position() + 1).clamp(from, end));
            depth.in_flight += given - from;
            depth.waiting += end - given;
            if let Some(oldest) = shard.record(from) {
                let age = now.saturating_duration_since(oldest.arrived_at());
                depth.oldest_age = depth.oldest_age.max(Some(age));
            }
        }
        depth
    }
}

impl<T: Send + Sync + 'static> Shared<T> {
    fn now(&self) -> Instant {
        self.stream.shared().clock.now()
    }

    /// Wakes the workers that wait: the leases have changed, or a shard is free again.
    fn notify(&self) {
        self.stream.shared().arrivals.notify_all();
    }

    /// Makes the leases follow the stream's shards, if those have changed.
    fn follow(&self, state: &mut State, now: Instant) {
        let stream = self.stream.shared();
        if state
            .table
            .is_some_and(|known| known >= stream.table().version)
        {
            return;
        }
        // Whoever adds shards holds this until the new table stands.
        let control = stream.control.lock();
        let next = control.shards.next_number();
        let table = stream.table.load_arc();
        drop(control);
        let is_first = state.table.is_none();
        state.table = Some(table.version);
        let mut known = self.known.lock();
        let unseen = known.follow(&table, next);
        if !is_first {
            state.lost.unseen += unseen;
        }
        let State {
            leases,
            holdings,
            lost,
            ..
        } = state;
        for lease in leases.follow(self.listed(&table, is_first), now) {
            known.lose(&lease, lost);
        }
        known.retain(|shard| leases.get(shard).is_some());
        holdings.retain(|shard, _| leases.get(*shard).is_some());
    }

    /// Removes a lease whose shard has left the stream, as its owner found.
    fn forget(&self, worker: WorkerId, lease: &Lease) {
        let mut state = self.state.lock();
        let State {
            leases,
            holdings,
            lost,
            ..
        } = &mut *state;
        if let Some(lease) = leases.forget(worker, lease.shard_id, lease.generation) {
            self.known.lock().lose(&lease, lost);
        }
        holdings.remove(&lease.shard_id);
    }

    /// The shards of a table, and from where each is read if it has no lease yet.
    ///
    /// What is there when the group is made is read from where the configuration says, as it is now; at "latest", what
    /// is closed not at all. All that comes later descends from those and is read from its beginning.
    fn listed<'a>(
        &'a self,
        table: &'a Table<T>,
        is_first: bool,
    ) -> impl Iterator<Item = Listed> + 'a {
        table.all.iter().map(move |shard| {
            let mut listed = Listed {
                shard: shard.id,
                parents: shard.parents.clone(),
                from: Checkpoint::TrimHorizon,
                start: Some(shard.sequence_number(0)),
            };
            let start = match self.config.start {
                InitialPosition::Latest if is_first => {
                    listed.from = if shard.log.is_closed() {
                        Checkpoint::ShardEnd
                    } else {
                        Checkpoint::Latest
                    };
                    StartingPosition::Latest
                }
                InitialPosition::AtTimestamp(timestamp) => {
                    listed.from = Checkpoint::AtTimestamp(timestamp);
                    StartingPosition::AtTimestamp(timestamp)
                }
                InitialPosition::TrimHorizon | InitialPosition::Latest => {
                    StartingPosition::TrimHorizon
                }
            };
            if is_first {
                let stream = self.stream.shared();
                // The time was looked at when the group was made: it does not lie in the future.
                let position = stream.position_of(shard, start).map_or(0, |(at, _)| at);
                listed.start = Some(shard.sequence_number(position));
            }
            listed
        })
    }
}
