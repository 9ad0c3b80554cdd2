//! Groups under random histories: workers crash, stall, come back as zombies and leave, shards are split and merged, the
//! clock jumps. What is promised is checked at every step; a seed gives the same history each time.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use sim_core::clock::VirtualClock;
use sim_core::random::Random;
use sim_core::sync::{Arc, Mutex, thread};
use sim_stream::{
    Batch, BatchKind, Checkpoint, ConsumerGroup, Generation, GroupConfig, NextError, Read, ShardId,
    Stream, Worker, WorkerId,
};

use crate::rig::{of, secs, small, stream};

const DURATION: Duration = Duration::from_secs(10);
const KEYS: u64 = 12;
const MAX_WORKERS: usize = 5;

struct Member {
    /// `None`: it has crashed or left, and its batches are all that is left of it.
    worker: Option<Worker<u32>>,
    batches: Vec<Batch<u32>>,
}

struct World {
    random: Random,
    hand: VirtualClock,
    stream: Stream<u32>,
    group: ConsumerGroup<u32>,
    members: Vec<Member>,
    /// How many records of each key were put, and have been processed at least once.
    put: BTreeMap<String, u32>,
    processed: BTreeMap<String, u32>,
    /// Who has held each generation of a lease.
    owners: BTreeMap<(ShardId, Generation), WorkerId>,
    checkpoints: BTreeMap<ShardId, Checkpoint>,
    repeats: u64,
    refused: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let (stream, hand) = stream(small(1 + random.below(4) as u32));
        let config = GroupConfig {
            lease_duration: DURATION,
            hand_off_timeout: secs(if random.chance(0.3) { 0 } else { 15 }),
            max_steals: 1 + random.below(3) as usize,
            max_workers: MAX_WORKERS,
            read: Read::at_most(1 + random.below(8) as usize),
            ..GroupConfig::new("group")
        };
        let group = ConsumerGroup::new(&stream, config).unwrap();
        Self {
            random,
            hand,
            stream,
            group,
            members: Vec::new(),
            put: BTreeMap::new(),
            processed: BTreeMap::new(),
            owners: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            repeats: 0,
            refused: 0,
        }
    }

    fn pick(&mut self, of: usize) -> usize {
        self.random.below(of as u64) as usize
    }

    /// A record's value is its number among those of its key.
    fn put(&mut self) {
        for _ in 0..self.random.below(6) {
            let key = format!("key-{}", self.random.below(KEYS));
            let count = self.put.entry(key.clone()).or_default();
            self.stream.try_put(of(&key, *count)).unwrap();
            *count += 1;
        }
    }

    fn reshard(&mut self) {
        let open: Vec<_> = self
            .stream
            .shards()
            .into_iter()
            .filter(sim_stream::ShardInfo::is_open)
            .collect();
        let shard = &open[self.pick(open.len())];
        if open.len() > 6 || (open.len() > 1 && self.random.chance(0.5)) {
            let adjacent = open
                .iter()
                .find(|other| other.hash_range.is_adjacent_to(&shard.hash_range));
            self.stream.merge(shard.id, adjacent.unwrap().id).unwrap();
        } else {
            self.stream.split_evenly(shard.id).unwrap();
        }
    }

    /// Processes a batch, or its beginning: whatever is new of a key is the next of that key.
    fn process(&mut self, batch: &Batch<u32>, most: usize) {
        for record in batch.iter().take(most) {
            let next = self
                .processed
                .entry(record.partition_key().to_owned())
                .or_default();
            assert!(
                *record.value() <= *next,
                "{} skips to {record:?}",
                record.partition_key()
            );
            if record.value() == next {
                *next += 1;
            } else {
                self.repeats += 1;
            }
        }
    }

    fn next(&mut self, index: usize) {
        let Some(worker) = &mut self.members[index].worker else {
            return;
        };
        match worker.try_next() {
            Ok(batch) => {
                let owner = *self
                    .owners
                    .entry((batch.shard_id(), batch.generation()))
                    .or_insert(worker.id());
                assert_eq!(owner, worker.id(), "two owners of one generation");
                self.members[index].batches.push(batch);
            }
            Err(NextError::Empty) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Ends a batch in one of the ways in which that happens.
    fn settle(&mut self, index: usize) {
        let count = self.members[index].batches.len();
        if count == 0 {
            return;
        }
        let at = self.pick(count);
        let batch = self.members[index].batches.remove(at);
        match self.random.below(10) {
            // Processed and checkpointed.
            0..=6 => {
                self.process(&batch, usize::MAX);
                if batch.checkpoint().is_err() {
                    self.refused += 1;
                }
            }
            // Processed in part and checkpointed so; the rest is given back.
            7 if batch.kind() == BatchKind::Records => {
                let most = 1 + self.pick(batch.len());
                self.process(&batch, most);
                let last = batch.records().get(most - 1).unwrap().sequence_number();
                if batch.checkpoint_at(last).is_err() {
                    self.refused += 1;
                }
                batch.retry();
            }
            // Processed, and the checkpoint comes with a later batch.
            8 => self.process(&batch, usize::MAX),
            // Given back.
            _ => batch.retry(),
        }
    }

    fn step(&mut self) {
        let count = self.members.len();
        match self.random.below(100) {
            0..=19 => self.put(),
            20..=21 => self.reshard(),
            22..=25 => {
                if let Ok(worker) = self.group.join() {
                    self.members.push(Member {
                        worker: Some(worker),
                        batches: Vec::new(),
                    });
                }
            }
            26..=31 => {
                let limit = if self.random.chance(0.25) {
                    25_000
                } else {
                    3_000
                };
                self.hand
                    .advance(Duration::from_millis(self.random.below(limit)));
            }
            _ if count == 0 => {}
            // A crash, whole or with batches that live on.
            32 => {
                let index = self.pick(count);
                self.members[index].worker = None;
                if self.random.chance(0.5) {
                    self.members.remove(index);
                }
            }
            33 => {
                let index = self.pick(count);
                if let Some(worker) = self.members[index].worker.take() {
                    worker.shutdown();
                }
            }
            34..=36 => {
                let index = self.pick(count);
                if let Some(worker) = &self.members[index].worker {
                    worker.heartbeat();
                }
            }
            37..=66 => {
                let index = self.pick(count);
                self.next(index);
            }
            _ => {
                let index = self.pick(count);
                self.settle(index);
            }
        }
    }

    fn check(&mut self) {
        for lease in self.group.leases() {
            let before = self.checkpoints.insert(lease.shard_id, lease.checkpoint);
            assert!(before.is_none_or(|before| before <= lease.checkpoint));
            if let Some(owner) = lease.owner {
                let key = (lease.shard_id, lease.generation);
                assert_eq!(*self.owners.entry(key).or_insert(owner), owner);
            }
        }
    }

    /// Everybody crashes, and one worker finds all that is left.
    fn drain(&mut self) {
        self.members.clear();
        self.hand.advance(DURATION);
        self.stream.close();
        let mut worker = self.group.join().unwrap();
        loop {
            match worker.try_next() {
                Ok(batch) => {
                    self.process(&batch, usize::MAX);
                    batch.checkpoint().unwrap();
                }
                // What was asked for by the dead comes free with time.
                Err(NextError::Empty) => self.hand.advance(secs(1)),
                Err(NextError::Closed) => break,
                Err(error) => panic!("{error}"),
            }
            self.check();
        }
        assert_eq!(self.processed, self.put);
    }
}

fn play(seed: u64, steps: usize) -> World {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step();
        world.check();
    }
    // Keys of which nothing was put, or nothing processed yet, do not count.
    world.put.retain(|_, count| *count > 0);
    world.drain();
    world
}

#[test]
fn every_record_is_processed_and_each_key_in_order_through_crashes_and_resharding() {
    let (mut repeats, mut refused, mut taken_over, mut handed, mut stolen) = (0, 0, 0, 0, 0);
    for seed in 0..60 {
        let world = play(seed, 1200);
        repeats += world.repeats;
        refused += world.refused;
        let stats = world.group.stats().leases;
        taken_over += stats.taken_over;
        handed += stats.handed_off;
        stolen += stats.stolen;
    }
    // The histories contain what they are about.
    assert!(repeats > 1_000 && refused > 100, "{repeats} {refused}");
    assert!(
        taken_over > 200 && handed > 200 && stolen > 20,
        "{taken_over} {handed} {stolen}"
    );
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let of = |seed| {
        let world = play(seed, 800);
        (
            world.owners,
            world.checkpoints,
            world.repeats,
            world.group.stats(),
        )
    };
    assert_eq!(of(7), of(7));
    assert_ne!(of(7), of(8));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn every_record_is_processed_whatever_the_seed(seed: u64, steps in 1..1500_usize) {
        play(seed, steps);
    }
}

/// Threads that put, reshard, work, crash and come back, on the system's clock.
#[test]
fn real_threads_lose_nothing_and_keep_each_key_in_order() {
    const PUTS: u32 = 20_000;
    let stream = Stream::<u32>::new(small(2)).unwrap();
    let config = GroupConfig {
        lease_duration: Duration::from_millis(40),
        hand_off_timeout: Duration::from_millis(40),
        read: Read::at_most(64),
        ..GroupConfig::new("group")
    };
    let group = ConsumerGroup::new(&stream, config).unwrap();
    let processed: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..PUTS {
                let (key, value) = (number % 8, number / 8);
                stream.try_put(of(format!("key-{key}"), value)).unwrap();
                if number % 4_000 == 2_000 {
                    let open = stream
                        .shards()
                        .into_iter()
                        .find(sim_stream::ShardInfo::is_open);
                    stream.split_evenly(open.unwrap().id).unwrap();
                }
            }
            stream.close();
        });
        for seed in 0..3 {
            let (group, processed) = (group.clone(), Arc::clone(&processed));
            scope.spawn(move || {
                let mut random = Random::new(seed);
                let mut worker = group.join().unwrap();
                loop {
                    match worker.next_blocking() {
                        Ok(batch) => {
                            {
                                let mut processed = processed.lock();
                                for record in &batch {
                                    let key = record.partition_key().to_owned();
                                    let next = processed.entry(key).or_default();
                                    assert!(*record.value() <= *next);
                                    *next = (*next).max(record.value() + 1);
                                }
                            }
                            if random.chance(0.01) {
                                // It crashes with the batch, and another comes.
                                worker = group.join().unwrap();
                                continue;
                            }
                            // Refused when another has taken over: that one does it again.
                            let _ = batch.checkpoint();
                        }
                        Err(NextError::Closed) => return,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let processed = processed.lock();
    assert_eq!(processed.len(), 8);
    assert!(
        processed.values().all(|count| *count == PUTS / 8),
        "{processed:?}"
    );
    assert!(group.leases().iter().all(sim_stream::Lease::is_finished));
}
