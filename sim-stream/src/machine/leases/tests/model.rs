//! A simulation of a whole group on the table: workers that crash, stall and come back as zombies, shards that are split
//! and merged, a clock that jumps. What must hold is checked at every step.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use sim_core::random::Random;
use sim_core::time::Instant;

use super::{DURATION, TIMEOUT, record, shard};
use crate::machine::leases::{Generation, Leases, Listed, Mark, Rules, WorkerId};
use crate::message::{Checkpoint, ShardId};

const MAX_SHARDS: usize = 24;

struct Shard {
    parents: Vec<u32>,
    len: u64,
    is_closed: bool,
    /// How many of its records have been processed at least once: the first so many.
    processed: u64,
}

struct Worker {
    id: WorkerId,
    /// Shard to generation and next record.
    held: BTreeMap<u32, (Generation, u64)>,
}

struct World {
    random: Random,
    now: Instant,
    leases: Leases,
    shards: Vec<Shard>,
    workers: Vec<Worker>,
    owners: BTreeMap<(ShardId, Generation), WorkerId>,
    checkpoints: BTreeMap<ShardId, (Checkpoint, Generation)>,
    zombies_refused: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let rules = Rules {
            duration: DURATION,
            max_leases: if random.chance(0.2) { 30 } else { usize::MAX },
            max_steals: 1 + random.below(3) as usize,
            hand_off_timeout: if random.chance(0.3) {
                Duration::ZERO
            } else {
                TIMEOUT
            },
            max_workers: 6,
        };
        let shards = (0..1 + random.below(5))
            .map(|_| Shard {
                parents: Vec::new(),
                len: 0,
                is_closed: false,
                processed: 0,
            })
            .collect();
        let mut world = Self {
            random,
            now: Instant::ORIGIN,
            leases: Leases::new(rules),
            shards,
            workers: Vec::new(),
            owners: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            zombies_refused: 0,
        };
        world.follow();
        world
    }

    fn pick(&mut self, of: usize) -> usize {
        self.random.below(of as u64) as usize
    }

    fn follow(&mut self) {
        let listed: Vec<_> = self
            .shards
            .iter()
            .zip(0..)
            .map(|(it, number)| Listed {
                shard: shard(number),
                parents: it.parents.iter().copied().map(shard).collect(),
                from: Checkpoint::TrimHorizon,
                start: None,
            })
            .collect();
        self.leases.follow(listed, self.now);
    }

    fn open(&self) -> Vec<usize> {
        (0..self.shards.len())
            .filter(|index| !self.shards[*index].is_closed)
            .collect()
    }

    fn reshard(&mut self) {
        let open = self.open();
        if self.shards.len() + 2 > MAX_SHARDS {
            return;
        }
        let first = open[self.pick(open.len())];
        let mut parents = vec![first];
        let mut children = 2;
        if open.len() > 1 && self.random.chance(0.5) {
            let second = open[self.pick(open.len())];
            if second != first {
                parents.push(second);
                children = 1;
            }
        }
        for parent in &parents {
            self.shards[*parent].is_closed = true;
        }
        for _ in 0..children {
            let parents = parents.iter().map(|parent| *parent as u32).collect();
            self.shards.push(Shard {
                parents,
                len: 0,
                is_closed: false,
                processed: 0,
            });
        }
    }

    /// What a worker does first when it calls in: it learns what it has lost, gained, and is asked for.
    fn call_in(&mut self, index: usize) {
        let Self {
            leases,
            workers,
            now,
            ..
        } = self;
        let worker = &mut workers[index];
        leases.renew(worker.id, *now);
        for lease in leases.of(worker.id).cloned().collect::<Vec<_>>() {
            if leases.is_wanted(lease.shard_id) {
                assert!(leases.release(worker.id, lease.shard_id, lease.generation, *now));
            }
        }
        leases.balance(worker.id, *now);
        let mut held = BTreeMap::new();
        for lease in leases.of(worker.id) {
            let next = match lease.checkpoint {
                Checkpoint::TrimHorizon => 0,
                Checkpoint::At {
                    sequence_number, ..
                } => sequence_number.position() + 1,
                other => panic!("held at {other}"),
            };
            let kept = worker.held.get(&lease.shard_id.number());
            let kept = kept.filter(|(generation, _)| *generation == lease.generation);
            held.insert(
                lease.shard_id.number(),
                kept.copied().unwrap_or((lease.generation, next)),
            );
        }
        worker.held = held;
    }

    /// Processes a few records of one shard, by what the worker believes that it holds.
    fn process(&mut self, index: usize) {
        let numbers: Vec<_> = self.workers[index].held.keys().copied().collect();
        if numbers.is_empty() {
            return;
        }
        let number = numbers[self.pick(numbers.len())];
        let batch = 1 + self.random.below(4);
        for _ in 0..batch {
            let (_, next) = self.workers[index].held[&number];
            if next >= self.shards[number as usize].len {
                return;
            }
            self.check_order(number, next);
            let sim = &mut self.shards[number as usize];
            sim.processed = sim.processed.max(next + 1);
            self.workers[index].held.get_mut(&number).unwrap().1 += 1;
        }
    }

    /// A record that is processed for the first time comes after all before it, and after all of its parents.
    fn check_order(&self, number: u32, position: u64) {
        let sim = &self.shards[number as usize];
        assert!(
            position <= sim.processed,
            "shard {number} skips to {position}"
        );
        if position == sim.processed {
            for parent in &sim.parents {
                let parent = &self.shards[*parent as usize];
                assert!(
                    parent.is_closed && parent.processed == parent.len,
                    "a child before its parent"
                );
            }
        }
    }

    /// Checkpoints what the worker has processed of one shard.
    fn checkpoint(&mut self, index: usize) {
        let numbers: Vec<_> = self.workers[index].held.keys().copied().collect();
        if numbers.is_empty() {
            return;
        }
        let number = numbers[self.pick(numbers.len())];
        let worker = &self.workers[index];
        let (generation, next) = worker.held[&number];
        let sim = &self.shards[number as usize];
        let mark = match next {
            _ if sim.is_closed && next == sim.len => Mark::End,
            0 => return,
            _ => Mark::Record(record(number, next - 1)),
        };
        let holds = self.leases.holds(worker.id, shard(number), generation);
        let before = self.leases.get(shard(number)).cloned();
        let outcome = self
            .leases
            .checkpoint(worker.id, shard(number), generation, mark, self.now);
        if holds {
            outcome.unwrap();
        } else {
            outcome.unwrap_err();
            assert_eq!(self.leases.get(shard(number)), before.as_ref());
            self.zombies_refused += 1;
        }
        if mark == Mark::End {
            self.workers[index].held.remove(&number);
        }
    }

    fn leave(&mut self, index: usize) {
        let worker = self.workers.remove(index);
        self.leases.leave(worker.id);
        for (number, (generation, _)) in worker.held {
            self.leases
                .release(worker.id, shard(number), generation, self.now);
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..=29 => {
                let open = self.open();
                let index = open[self.pick(open.len())];
                self.shards[index].len += self.random.below(6);
            }
            30..=31 => self.reshard(),
            32..=34 => self.follow(),
            35..=39 => {
                if let Ok(id) = self.leases.join(self.now) {
                    self.workers.push(Worker {
                        id,
                        held: BTreeMap::new(),
                    });
                }
            }
            40..=49 => {
                let limit = if self.random.chance(0.3) {
                    40_000
                } else {
                    3_000
                };
                self.now = self.now + Duration::from_millis(self.random.below(limit));
            }
            50 if !self.workers.is_empty() => {
                let index = self.pick(self.workers.len());
                self.leave(index);
            }
            51 if !self.workers.is_empty() => {
                let index = self.pick(self.workers.len());
                self.workers.remove(index);
            }
            52..=69 if !self.workers.is_empty() => {
                let index = self.pick(self.workers.len());
                self.call_in(index);
            }
            70..=87 if !self.workers.is_empty() => {
                let index = self.pick(self.workers.len());
                self.process(index);
            }
            88.. if !self.workers.is_empty() => {
                let index = self.pick(self.workers.len());
                self.checkpoint(index);
            }
            _ => {}
        }
    }

    /// One owner a generation; checkpoints and generations only grow; nothing unprocessed lies behind a checkpoint.
    fn check(&mut self) {
        for lease in self.leases.iter() {
            if let Some(owner) = lease.owner {
                let first = *self
                    .owners
                    .entry((lease.shard_id, lease.generation))
                    .or_insert(owner);
                assert_eq!(first, owner, "two owners of one generation");
            }
            let before = self
                .checkpoints
                .insert(lease.shard_id, (lease.checkpoint, lease.generation));
            if let Some((checkpoint, generation)) = before {
                assert!(checkpoint <= lease.checkpoint && generation <= lease.generation);
            }
            let sim = &self.shards[lease.shard_id.number() as usize];
            match lease.checkpoint {
                Checkpoint::At {
                    sequence_number, ..
                } => assert!(sequence_number.position() < sim.processed),
                Checkpoint::ShardEnd => assert!(sim.is_closed && sim.processed == sim.len),
                _ => {}
            }
        }
    }

    /// Everybody crashes; one worker comes and has to find everything.
    fn drain(&mut self) {
        self.workers.clear();
        self.follow();
        self.now = self.now + DURATION;
        let id = self.leases.join(self.now).unwrap();
        self.workers.push(Worker {
            id,
            held: BTreeMap::new(),
        });
        // Each round finishes the shards of one depth of the lineage, or waits for what is capped or asked for.
        for _ in 0..4 * MAX_SHARDS {
            self.call_in(0);
            self.check();
            for number in self.workers[0].held.keys().copied().collect::<Vec<_>>() {
                let (generation, next) = self.workers[0].held[&number];
                for position in next..self.shards[number as usize].len {
                    self.check_order(number, position);
                    let sim = &mut self.shards[number as usize];
                    sim.processed = sim.processed.max(position + 1);
                }
                let sim = &self.shards[number as usize];
                if sim.is_closed {
                    self.leases
                        .checkpoint(id, shard(number), generation, Mark::End, self.now)
                        .unwrap();
                }
            }
            self.now = self.now + Duration::from_secs(1);
        }
        for (number, sim) in self.shards.iter().enumerate() {
            assert_eq!(
                sim.processed, sim.len,
                "shard {number} was not processed to its end"
            );
        }
    }
}

fn play(seed: u64, steps: usize) -> World {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step();
        world.check();
    }
    world.drain();
    world
}

#[test]
fn every_record_is_processed_in_order_through_crashes_zombies_and_resharding() {
    let (mut refused, mut stats) = (0, super::super::LeaseStats::default());
    for seed in 0..300 {
        let world = play(seed, 1500);
        refused += world.zombies_refused;
        let of_one = world.leases.stats();
        stats.taken_over += of_one.taken_over;
        stats.handed_off += of_one.handed_off;
        stats.stolen += of_one.stolen;
        stats.finished += of_one.finished;
    }
    // The histories contain what they are about.
    assert!(refused > 1_000, "{refused}");
    assert!(
        stats.taken_over > 1_000 && stats.handed_off > 1_000,
        "{stats:?}"
    );
    assert!(stats.stolen > 100 && stats.finished > 1_000, "{stats:?}");
}

proptest! {
    #[test]
    fn every_record_is_processed_in_order_whatever_the_seed(seed: u64, steps in 1..3000_usize) {
        play(seed, steps);
    }
}
