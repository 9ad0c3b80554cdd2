//! Queues on a stream: random histories through the handle against a table of what is true; many threads at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use sim_core::clock::{Clock, VirtualClock};
use sim_core::time::Instant;
use sim_stream::queue::{ReceiveError, Stale};
use sim_stream::{
    DeadLetters, QueueConfig, QueueRecord, QueueStart, Receipt, Receive, Stream, StreamConfig,
    StreamQueue,
};

use crate::rig::{of, secs, stream};
use crate::stream_queue::{config, reconcile, take};

#[derive(Debug, Clone)]
enum Op {
    Put {
        records: u32,
    },
    Split {
        shard: prop::sample::Index,
    },
    Merge {
        shard: prop::sample::Index,
    },
    Receive {
        queue: usize,
        max: usize,
    },
    Acknowledge {
        queue: usize,
        receipt: prop::sample::Index,
    },
    Release {
        queue: usize,
        receipt: prop::sample::Index,
        delay: u64,
    },
    Extend {
        queue: usize,
        receipt: prop::sample::Index,
        timeout: u64,
    },
    ReceiveDead {
        queue: usize,
        max: usize,
    },
    Restore {
        queue: usize,
        receipt: prop::sample::Index,
    },
    Wait {
        seconds: u64,
    },
}

fn any_op() -> impl Strategy<Value = Op> {
    let queue = 0..2_usize;
    let index = any::<prop::sample::Index>();
    prop_oneof![
        4 => (1..15_u32).prop_map(|records| Op::Put { records }),
        1 => index.clone().prop_map(|shard| Op::Split { shard }),
        1 => index.clone().prop_map(|shard| Op::Merge { shard }),
        8 => (queue.clone(), 1..12_usize).prop_map(|(queue, max)| Op::Receive { queue, max }),
        8 => (queue.clone(), index.clone())
            .prop_map(|(queue, receipt)| Op::Acknowledge { queue, receipt }),
        2 => (queue.clone(), index.clone(), 0..40_u64)
            .prop_map(|(queue, receipt, delay)| Op::Release { queue, receipt, delay }),
        2 => (queue.clone(), index.clone(), 0..60_u64)
            .prop_map(|(queue, receipt, timeout)| Op::Extend { queue, receipt, timeout }),
        2 => (queue.clone(), 1..6_usize).prop_map(|(queue, max)| Op::ReceiveDead { queue, max }),
        2 => (queue, index).prop_map(|(queue, receipt)| Op::Restore { queue, receipt }),
        4 => (1..40_u64).prop_map(|seconds| Op::Wait { seconds }),
    ]
}

/// What one queue should think of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Visible,
    Leased { receipt: Receipt, until: Instant },
    Hidden { until: Instant },
    Dead,
    DeadLeased { receipt: Receipt, until: Instant },
    Acknowledged,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    state: State,
    receives: u32,
}

const MAX_RECEIVES: u32 = 3;

/// One queue with the truth about it, by value.
struct Watched {
    queue: StreamQueue<u32>,
    truth: BTreeMap<u32, Entry>,
    receipts: Vec<Receipt>,
}

impl Watched {
    fn serve(&mut self, now: Instant) {
        for entry in self.truth.values_mut() {
            entry.state = match entry.state {
                State::Leased { until, .. } if until <= now => back(entry.receives),
                State::Hidden { until } if until <= now => State::Visible,
                State::DeadLeased { until, .. } if until <= now => State::Dead,
                state => state,
            };
        }
    }

    fn receive(&mut self, now: Instant, max: usize) {
        self.serve(now);
        let visible = self.count(|state| state == State::Visible);
        let got = take(&self.queue, max);
        // Nothing that is there is held back.
        assert_eq!(got.len(), visible.min(max));
        for record in &got {
            let entry = self.truth.get_mut(record.value()).unwrap();
            assert_eq!(
                entry.state,
                State::Visible,
                "delivered twice, or out of nothing"
            );
            entry.receives += 1;
            assert_eq!(record.receive_count(), entry.receives);
            assert!(entry.receives <= MAX_RECEIVES);
            assert_eq!(record.leased_until(), now + secs(30));
            let (receipt, until) = (record.receipt(), record.leased_until());
            entry.state = State::Leased { receipt, until };
            self.receipts.push(receipt);
        }
    }

    fn receive_dead(&mut self, now: Instant, max: usize) {
        self.serve(now);
        let dead = self.count(|state| state == State::Dead);
        let got = self
            .queue
            .try_receive_dead_letters(Receive::up_to(max))
            .unwrap_or_default();
        assert_eq!(got.len(), dead.min(max));
        for record in &got {
            let entry = self.truth.get_mut(record.value()).unwrap();
            assert_eq!(entry.state, State::Dead);
            let (receipt, until) = (record.receipt(), record.leased_until());
            entry.state = State::DeadLeased { receipt, until };
            self.receipts.push(receipt);
        }
    }

    /// Gives a verdict under a receipt, good or stale, to the queue and to the truth.
    fn judge(
        &mut self,
        now: Instant,
        receipt: &prop::sample::Index,
        say: impl FnOnce(&StreamQueue<u32>, Receipt) -> bool,
        change: impl FnOnce(&Entry) -> Option<(State, u32)>,
    ) {
        if self.receipts.is_empty() {
            return;
        }
        let receipt = *receipt.get(&self.receipts);
        self.serve(now);
        let held = self.truth.values_mut().find(|entry| match entry.state {
            State::Leased { receipt: r, .. } | State::DeadLeased { receipt: r, .. } => r == receipt,
            _ => false,
        });
        let changed = held.and_then(|entry| Some((change(entry)?, entry)));
        assert_eq!(say(&self.queue, receipt), changed.is_some());
        if let Some(((state, receives), entry)) = changed {
            *entry = Entry { state, receives };
        }
    }

    fn count(&self, which: impl Fn(State) -> bool) -> usize {
        self.truth
            .values()
            .filter(|entry| which(entry.state))
            .count()
    }

    fn compare(&mut self, now: Instant) {
        self.serve(now);
        let stats = self.queue.stats();
        let count = |which: fn(State) -> bool| self.count(which) as u64;
        assert_eq!(stats.visible, count(|state| state == State::Visible));
        assert_eq!(
            stats.in_flight,
            count(|state| matches!(state, State::Leased { .. }))
        );
        assert_eq!(
            stats.delayed,
            count(|state| matches!(state, State::Hidden { .. }))
        );
        assert_eq!(
            stats.visible_dead_letters,
            count(|state| state == State::Dead)
        );
        assert_eq!(
            stats.in_flight_dead_letters,
            count(|state| matches!(state, State::DeadLeased { .. }))
        );
        assert_eq!(
            stats.acknowledged,
            count(|state| state == State::Acknowledged)
        );
        reconcile(&self.queue, self.truth.len() as u64);
    }
}

fn back(receives: u32) -> State {
    if receives >= MAX_RECEIVES {
        State::Dead
    } else {
        State::Visible
    }
}

struct World {
    stream: Stream<u32>,
    hand: VirtualClock,
    watched: [Watched; 2],
    values: u32,
}

impl World {
    fn new() -> Self {
        let (stream, hand) = stream(StreamConfig::new("s").shards(2));
        let watch = || Watched {
            queue: stream.queue(config()).unwrap(),
            truth: BTreeMap::new(),
            receipts: Vec::new(),
        };
        Self {
            watched: [watch(), watch()],
            stream,
            hand,
            values: 0,
        }
    }

    fn run(&mut self, op: &Op) {
        let now = self.stream.clock().now();
        match op {
            Op::Put { records } => {
                for value in self.values..self.values + records {
                    self.stream
                        .try_put(of(format!("key {value}"), value))
                        .unwrap();
                    for watched in &mut self.watched {
                        let entry = Entry {
                            state: State::Visible,
                            receives: 0,
                        };
                        watched.truth.insert(value, entry);
                    }
                }
                self.values += records;
            }
            Op::Split { shard } => {
                let open = self.open();
                if open.len() < 8 {
                    let _ = self.stream.split_evenly(*shard.get(&open));
                }
            }
            Op::Merge { shard } => {
                let open = self.open();
                // Not adjacent: refused, which is fine too.
                let other = *open.last().unwrap();
                let _ = self.stream.merge(*shard.get(&open), other);
            }
            Op::Receive { queue, max } => self.watched[*queue].receive(now, *max),
            Op::ReceiveDead { queue, max } => self.watched[*queue].receive_dead(now, *max),
            Op::Acknowledge { queue, receipt } => self.watched[*queue].judge(
                now,
                receipt,
                |queue, receipt| queue.acknowledge(receipt).is_ok(),
                |entry| match entry.state {
                    State::Leased { .. } => Some((State::Acknowledged, entry.receives)),
                    _ => None,
                },
            ),
            Op::Release {
                queue,
                receipt,
                delay,
            } => self.watched[*queue].judge(
                now,
                receipt,
                |queue, receipt| queue.release(receipt, secs(*delay)).is_ok(),
                |entry| match (entry.state, back(entry.receives)) {
                    (State::Leased { .. }, State::Visible) if *delay > 0 => {
                        let until = now + secs(*delay);
                        Some((State::Hidden { until }, entry.receives))
                    }
                    (State::Leased { .. }, state) => Some((state, entry.receives)),
                    _ => None,
                },
            ),
            Op::Extend {
                queue,
                receipt,
                timeout,
            } => self.watched[*queue].judge(
                now,
                receipt,
                |queue, receipt| queue.change_visibility(receipt, secs(*timeout)).is_ok(),
                |entry| match entry.state {
                    State::Leased { .. } if *timeout == 0 => {
                        Some((back(entry.receives), entry.receives))
                    }
                    State::Leased { receipt, .. } => {
                        let until = now + secs(*timeout);
                        Some((State::Leased { receipt, until }, entry.receives))
                    }
                    _ => None,
                },
            ),
            Op::Restore { queue, receipt } => self.watched[*queue].judge(
                now,
                receipt,
                |queue, receipt| queue.restore_dead_letters([receipt]) == [Ok(())],
                |entry| match entry.state {
                    State::DeadLeased { .. } => Some((State::Visible, 0)),
                    _ => None,
                },
            ),
            Op::Wait { seconds } => self.hand.advance(secs(*seconds)),
        }
        let now = self.stream.clock().now();
        for watched in &mut self.watched {
            watched.compare(now);
        }
    }

    fn open(&self) -> Vec<sim_stream::ShardId> {
        self.stream
            .shards()
            .iter()
            .filter(|shard| shard.is_open())
            .map(|shard| shard.id)
            .collect()
    }

    /// Everything ends acknowledged or dead.
    fn drain(&mut self) {
        self.hand.advance(secs(100));
        for watched in &mut self.watched {
            let now = self.stream.clock().now();
            loop {
                watched.receive(now, 9);
                let fresh = std::mem::take(&mut watched.receipts);
                if watched.count(|state| matches!(state, State::Leased { .. })) == 0 {
                    break;
                }
                watched.queue.acknowledge_batch(&fresh);
                for entry in watched.truth.values_mut() {
                    if matches!(entry.state, State::Leased { .. }) {
                        entry.state = State::Acknowledged;
                    }
                }
            }
            watched.compare(now);
            let ended = watched.count(|state| {
                matches!(
                    state,
                    State::Acknowledged | State::Dead | State::DeadLeased { .. }
                )
            });
            assert_eq!(ended, self.values as usize);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_history_on_a_stream_is_what_the_truth_says(
        ops in prop::collection::vec(any_op(), 1..100),
    ) {
        let mut world = World::new();
        for op in &ops {
            world.run(op);
        }
        world.drain();
    }
}

// ---- many threads --------------------------------------------------------------------------------------

const PRODUCERS: u32 = 2;
const CONSUMERS: usize = 3;
const RECORDS: u32 = 20_000;

/// Consumers that take records until the stream is closed and drained, and give some of them back.
fn consume(queue: &StreamQueue<u32>, give_back: impl Fn(&QueueRecord<u32>) -> bool) -> Vec<u32> {
    let mut mine = Vec::new();
    loop {
        match queue.receive_blocking(Receive::up_to(16)) {
            Ok(records) => {
                let (back, done): (Vec<_>, Vec<_>) = records.iter().partition(|r| give_back(r));
                for record in back {
                    queue.release(record, Duration::ZERO).unwrap();
                }
                mine.extend(done.iter().map(|record| *record.value()));
                let said = queue.acknowledge_batch(done);
                assert!(
                    said.iter().all(Result::is_ok),
                    "the leases stand for 30 s and more"
                );
            }
            Err(ReceiveError::Closed) => return mine,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn many_threads_share_a_queue_and_lose_and_double_nothing_while_shards_split() {
    let stream = Stream::with_clock(StreamConfig::new("s").shards(2), Clock::system()).unwrap();
    let queue = |name: &str| {
        stream
            .queue(QueueConfig {
                start: QueueStart::TrimHorizon,
                visibility_timeout: secs(3_600),
                dead_letters: DeadLetters::BuiltIn { max_receives: 5 },
                ..QueueConfig::new(name)
            })
            .unwrap()
    };
    let queues = [queue("one"), queue("two")];
    let taken: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let consumers: Vec<_> = (0..CONSUMERS * queues.len())
            .map(|number| {
                let queue = queues[number % queues.len()].clone();
                // Every seventh comes back once.
                let give_back = |record: &QueueRecord<u32>| {
                    record.value().is_multiple_of(7) && record.receive_count() == 1
                };
                scope.spawn(move || consume(&queue, give_back))
            })
            .collect();
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let stream = stream.clone();
                scope.spawn(move || {
                    for value in (producer..RECORDS).step_by(PRODUCERS as usize) {
                        stream.try_put(of(format!("key {value}"), value)).unwrap();
                        if value.is_multiple_of(4_000) {
                            let open = stream.shards();
                            let open = open.iter().rfind(|shard| shard.is_open()).unwrap().id;
                            let _ = stream.split_evenly(open);
                        }
                    }
                })
            })
            .collect();
        for producer in producers {
            producer.join().unwrap();
        }
        stream.close();
        consumers
            .into_iter()
            .map(|consumer| consumer.join().unwrap())
            .collect()
    });
    assert!(stream.shards().len() > 4, "nothing was split");
    for (number, queue) in queues.iter().enumerate() {
        let all: Vec<u32> = (number..taken.len())
            .step_by(queues.len())
            .flat_map(|consumer| taken[consumer].iter().copied())
            .collect();
        let once: BTreeSet<u32> = all.iter().copied().collect();
        assert_eq!(all.len(), RECORDS as usize, "doubled or lost");
        assert_eq!(once.len(), RECORDS as usize);
        let stats = queue.stats();
        assert_eq!(stats.acknowledged, u64::from(RECORDS));
        assert_eq!(stats.released, u64::from(RECORDS.div_ceil(7)));
        assert_eq!(stats.received, stats.acknowledged + stats.released);
        assert_eq!(
            (stats.visible, stats.in_flight, stats.lost.total()),
            (0, 0, 0)
        );
    }
    assert_eq!(
        queues[0].acknowledge("1-0-1".parse::<Receipt>().unwrap()),
        Err(Stale)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_share_a_queue_and_lose_and_double_nothing() {
    const RECORDS: u32 = 5_000;
    let stream = Stream::with_clock(StreamConfig::new("s").shards(4), Clock::tokio()).unwrap();
    let queue = stream.queue(QueueConfig::new("tasks")).unwrap();
    let consumers: Vec<_> = (0..4)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    match queue.receive(Receive::up_to(3)).await {
                        Ok(records) => {
                            assert!(queue.acknowledge_batch(&records).iter().all(Result::is_ok));
                            mine.extend(records.iter().map(|record| *record.value()));
                        }
                        Err(ReceiveError::Closed) => return mine,
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    for value in 0..RECORDS {
        stream.try_put(of(format!("key {value}"), value)).unwrap();
        if value.is_multiple_of(16) {
            // Lets the consumers fall asleep now and then.
            tokio::task::yield_now().await;
        }
    }
    stream.close();
    let mut all = Vec::new();
    for consumer in consumers {
        all.extend(consumer.await.unwrap());
    }
    all.sort_unstable();
    assert_eq!(all, (0..RECORDS).collect::<Vec<_>>());
    let stats = queue.stats();
    assert_eq!((stats.received, stats.acknowledged), (5_000, 5_000));
}
