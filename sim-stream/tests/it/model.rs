//! The handle against a model: the pure lineage, and for each shard a plain list of all that was ever put.
//!
//! The same random history drives both: puts, batches, splits, merges, target counts, changes of the retention, time;
//! and cursors that start anywhere, read, fall behind and learn it.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use sim_core::clock::VirtualClock;
use sim_core::time::Instant;
use sim_stream::machine::shards::{Selection, Shards};
use sim_stream::{
    Cursor, HashKey, IteratorError, Read, ReadError, Record, SequenceNumber, ShardFilter, ShardId,
    StartingPosition, Stream, StreamConfig, WrongSequenceNumber,
};

use crate::rig::{START, key, secs, small, stream};

#[derive(Debug, Clone)]
enum Action {
    Put {
        key: u8,
        count: u8,
    },
    Batch {
        keys: Vec<u8>,
    },
    Split {
        shard: Index,
        evenly: bool,
        key: u128,
    },
    Merge {
        shard: Index,
        swapped: bool,
    },
    Count {
        target: u32,
    },
    Wait {
        seconds: u64,
    },
    Retain {
        seconds: u64,
    },
    Start {
        shard: Index,
        from: From,
    },
    Read {
        cursor: Index,
        max: usize,
    },
    List {
        filter: u8,
        at: Index,
    },
}

#[derive(Debug, Clone)]
enum From {
    Horizon,
    Latest,
    At(Index),
    After(Index),
    Time(Index),
}

fn action() -> impl Strategy<Value = Action> {
    let index = any::<Index>;
    let from = prop_oneof![
        2 => Just(From::Horizon),
        1 => Just(From::Latest),
        2 => index().prop_map(From::At),
        2 => index().prop_map(From::After),
        2 => index().prop_map(From::Time),
    ];
    prop_oneof![
        6 => (0..12_u8, 1..120_u8).prop_map(|(key, count)| Action::Put { key, count }),
        3 => prop::collection::vec(0..12_u8, 1..80).prop_map(|keys| Action::Batch { keys }),
        2 => (index(), any::<bool>(), any::<u128>())
            .prop_map(|(shard, evenly, key)| Action::Split { shard, evenly, key }),
        2 => (index(), any::<bool>()).prop_map(|(shard, swapped)| Action::Merge { shard, swapped }),
        1 => (1..6_u32).prop_map(|target| Action::Count { target }),
        4 => (1..60_u64).prop_map(|seconds| Action::Wait { seconds }),
        1 => (20..200_u64).prop_map(|seconds| Action::Retain { seconds }),
        4 => (index(), from).prop_map(|(shard, from)| Action::Start { shard, from }),
        8 => (index(), 1..200_usize).prop_map(|(cursor, max)| Action::Read { cursor, max }),
        1 => (0..7_u8, index()).prop_map(|(filter, at)| Action::List { filter, at }),
    ]
}

/// Everything that was ever put into a shard.
#[derive(Debug, Default)]
struct Kept {
    records: Vec<(Instant, String, u32)>,
    /// The oldest that is retained.
    start: usize,
}

struct Reader {
    cursor: Cursor<u32>,
    shard: ShardId,
    position: usize,
    /// It has not read yet and begins wherever the oldest record stands.
    floats: bool,
}

struct World {
    stream: Stream<u32>,
    hand: VirtualClock,
    shards: Shards,
    kept: BTreeMap<ShardId, Kept>,
    readers: Vec<Reader>,
    retention: Duration,
    next: u32,
}

impl World {
    fn new(config: StreamConfig) -> Self {
        let shards = Shards::new(Instant::ORIGIN, config.mode, &config.limits);
        let retention = config.retention;
        let (stream, hand) = stream(config);
        Self {
            kept: shards.iter().map(|s| (s.id, Kept::default())).collect(),
            stream,
            hand,
            shards,
            readers: Vec::new(),
            retention,
            next: 0,
        }
    }

    fn now(&self) -> Instant {
        self.hand.now()
    }

    /// What a call that looks after the stream trims.
    fn serve(&mut self) {
        let now = self.now();
        for kept in self.kept.values_mut() {
            let over = kept
                .records
                .partition_point(|(arrived, ..)| *arrived + self.retention <= now);
            kept.start = kept.start.max(over);
        }
        for gone in self.shards.expire(now, self.retention) {
            let kept = self.kept.get_mut(&gone.id).unwrap();
            assert_eq!(kept.start, kept.records.len(), "it took nothing later");
        }
    }

    fn number(&self, shard: ShardId, position: usize) -> SequenceNumber {
        SequenceNumber::new(shard, self.stream.salt(), position as u64)
    }

    /// Learns a record that was put, and where the model says that it must be.
    fn learn(&mut self, text: String, value: u32) -> (ShardId, SequenceNumber) {
        let shard = self.shards.route(HashKey::of(&text));
        let now = self.now();
        let kept = self.kept.get_mut(&shard).unwrap();
        kept.records.push((now, text, value));
        let last = kept.records.len() - 1;
        (shard, self.number(shard, last))
    }

    fn opened(&mut self) {
        for shard in self.shards.iter() {
            self.kept.entry(shard.id).or_default();
        }
        for (id, kept) in &self.kept {
            self.shards.set_end(*id, kept.records.len() as u64);
        }
    }

    fn open(&self, index: &Index) -> (usize, Vec<ShardId>) {
        let open: Vec<_> = self.shards.open().map(|s| s.id).collect();
        (index.index(open.len()), open)
    }

    fn run(&mut self, action: &Action) {
        match action {
            Action::Put { key: k, count } => {
                for _ in 0..*count {
                    let (text, value) = (format!("key-{k}"), self.next);
                    self.next += 1;
                    let placed = self.stream.try_put(Record::new(key(&text), value)).unwrap();
                    let expected = self.learn(text, value);
                    assert_eq!((placed.shard_id, placed.sequence_number), expected);
                }
            }
            Action::Batch { keys } => {
                let first = self.next;
                self.next += keys.len() as u32;
                let named = || keys.iter().map(|k| format!("key-{k}")).zip(first..);
                let results = self
                    .stream
                    .try_put_batch(named().map(|(text, value)| Record::new(key(text), value)))
                    .unwrap();
                assert_eq!(results.len(), keys.len());
                for (result, (text, value)) in results.into_iter().zip(named()) {
                    let placed = result.unwrap();
                    let expected = self.learn(text, value);
                    assert_eq!((placed.shard_id, placed.sequence_number), expected);
                }
            }
            Action::Split { shard, evenly, key } => {
                let (index, open) = self.open(shard);
                let id = open[index];
                let at = match self.shards.shard(id).unwrap().range.middle() {
                    Some(middle) if *evenly => middle,
                    _ => HashKey::from_u128(*key),
                };
                let expected = self.shards.split(self.hand.now(), id, at);
                let children = self.stream.split(id, at);
                assert_eq!(
                    children.map(Vec::from),
                    expected.map(|step| step.opened().collect())
                );
                self.opened();
            }
            Action::Merge { shard, swapped } => {
                let (index, open) = self.open(shard);
                let mut pair = [open[index], open[(index + 1) % open.len()]];
                if *swapped {
                    pair.reverse();
                }
                let expected = self.shards.merge(self.hand.now(), pair[0], pair[1]);
                let child = self.stream.merge(pair[0], pair[1]);
                assert_eq!(
                    child.map(|id| vec![id]),
                    expected.map(|step| step.opened().collect())
                );
                self.opened();
            }
            Action::Count { target } => {
                self.shards.update_count(self.hand.now(), *target).unwrap();
                self.stream.update_shard_count(*target).unwrap();
                self.opened();
            }
            Action::Wait { seconds } => self.hand.advance(secs(*seconds)),
            Action::Retain { seconds } => {
                let retention = secs(*seconds);
                self.serve();
                if retention < self.retention {
                    assert!(self.stream.increase_retention(retention).is_err());
                    self.stream.decrease_retention(retention).unwrap();
                } else {
                    self.stream.increase_retention(retention).unwrap();
                }
                self.retention = retention;
                self.serve();
            }
            Action::Start { shard, from } => self.start(shard, from),
            Action::Read { cursor, max } => {
                if !self.readers.is_empty() {
                    let index = cursor.index(self.readers.len());
                    self.read(index, *max);
                }
            }
            Action::List { filter, at } => self.list(*filter, at),
        }
    }

    /// Starts a cursor in any shard that ever was.
    fn start(&mut self, shard: &Index, from: &From) {
        self.serve();
        let all: Vec<_> = self.kept.keys().copied().collect();
        let id = all[shard.index(all.len())];
        let kept = &self.kept[&id];
        let (start, end) = (kept.start, kept.records.len());
        // Sometimes one that was not given yet.
        let position = |index: &Index| index.index(end + 2);
        let ahead = |number| {
            let error = WrongSequenceNumber::Ahead {
                sequence_number: number,
            };
            IteratorError::SequenceNumber(error)
        };
        let (given, expected) = match from {
            From::Horizon => (StartingPosition::TrimHorizon, Ok((start, true))),
            From::Latest => (StartingPosition::Latest, Ok((end, false))),
            From::At(index) => {
                let position = position(index);
                let number = self.number(id, position);
                let expected = if position >= end {
                    Err(ahead(number))
                } else if position < start {
                    Err(IteratorError::Trimmed {
                        sequence_number: number,
                        oldest: self.number(id, start),
                    })
                } else {
                    Ok((position, false))
                };
                (StartingPosition::AtSequenceNumber(number), expected)
            }
            From::After(index) => {
                let position = position(index);
                let number = self.number(id, position);
                let expected = if position >= end {
                    Err(ahead(number))
                } else {
                    Ok((position + 1, false))
                };
                (StartingPosition::AfterSequenceNumber(number), expected)
            }
            From::Time(index) => {
                let passed = self.now() - Instant::ORIGIN;
                let seconds = index.index(passed.as_secs() as usize + 3) as u64;
                let timestamp = START + secs(seconds);
                let expected = if secs(seconds) > passed {
                    Err(IteratorError::FutureTimestamp {
                        timestamp,
                        now: START + passed,
                    })
                } else {
                    let at = Instant::ORIGIN + secs(seconds);
                    let first = kept.records.partition_point(|(arrived, ..)| *arrived < at);
                    Ok((first.max(start), first <= start))
                };
                (StartingPosition::AtTimestamp(timestamp), expected)
            }
        };
        let expected = match self.shards.shard(id) {
            Some(_) => expected,
            None => Err(IteratorError::UnknownShard { shard_id: id }),
        };
        match (self.stream.cursor(id, given), expected) {
            (Ok(cursor), Ok((position, floats))) => self.readers.push(Reader {
                cursor,
                shard: id,
                position,
                floats,
            }),
            (outcome, expected) => {
                assert_eq!(outcome.map(|_| ()), expected.map(|_| ()), "{given:?}");
            }
        }
    }

    fn read(&mut self, index: usize, max: usize) {
        self.serve();
        let now = self.now();
        let salt = self.stream.salt();
        let reader = &mut self.readers[index];
        let kept = &self.kept[&reader.shard];
        let outcome = reader.cursor.try_read(Read::at_most(max));
        if reader.position < kept.start {
            let lost = kept.start - reader.position;
            reader.position = kept.start;
            if !reader.floats {
                assert_eq!(
                    outcome.map(|_| ()),
                    Err(ReadError::Trimmed {
                        lost: lost as u64,
                        resume_at: SequenceNumber::new(reader.shard, salt, kept.start as u64),
                    })
                );
                return;
            }
        }
        let records = outcome.unwrap();
        let left = &kept.records[reader.position..];
        // A run may be short at the end of a chunk, but it is never empty without a reason.
        assert_eq!(records.is_empty(), left.is_empty());
        assert!(records.len() <= max.min(left.len()));
        for (offset, (record, expected)) in records.iter().zip(left).enumerate() {
            let (arrived, text, value) = expected;
            assert_eq!(record.position(), (reader.position + offset) as u64);
            assert_eq!(record.arrived_at(), *arrived);
            assert_eq!(record.partition_key(), text);
            assert_eq!(record.value(), value);
        }
        reader.position += records.len();
        reader.floats &= records.is_empty();
        assert_eq!(reader.cursor.position(), reader.position as u64);

        let at_tip = reader.position == kept.records.len();
        let behind = match records.len() {
            1.. if !at_tip => now - kept.records[reader.position - 1].0,
            _ => Duration::ZERO,
        };
        assert_eq!(records.behind_latest(), behind);
        let is_open = |id| self.shards.shard(id).is_some_and(|s| s.is_open());
        assert_eq!(records.is_end(), at_tip && !is_open(reader.shard));
        if records.is_end() && self.shards.shard(reader.shard).is_some() {
            assert_eq!(
                records.child_shards(),
                self.shards.children(reader.shard).as_slice()
            );
            assert!(!records.child_shards().is_empty());
        }
    }

    fn list(&mut self, filter: u8, at: &Index) {
        self.serve();
        let passed = (self.now() - Instant::ORIGIN).as_secs();
        let time = START + secs(at.index(passed as usize + 1) as u64);
        let all: Vec<_> = self.kept.keys().copied().collect();
        let filter = match filter {
            0 => None,
            1 => Some(ShardFilter::FromTrimHorizon),
            2 => Some(ShardFilter::AtTrimHorizon),
            3 => Some(ShardFilter::AtLatest),
            4 => Some(ShardFilter::AtTimestamp(time)),
            5 => Some(ShardFilter::FromTimestamp(time)),
            _ => Some(ShardFilter::AfterShardId(all[at.index(all.len())])),
        };
        let selection = Selection::of(filter, |time| Instant::ORIGIN + (time - START));
        let expected: Vec<_> = self
            .shards
            .list(self.now(), selection, None, 1_000)
            .unwrap()
            .shards
            .iter()
            .map(|s| s.info(self.stream.salt(), |at| START + (at - Instant::ORIGIN)))
            .collect();
        let page = self.stream.list_shards(filter, None, 1_000).unwrap();
        assert_eq!(page.shards, expected, "{filter:?}");
        assert_eq!(page.next, None);
    }

    fn check_stats(&mut self) {
        self.serve();
        let stats = self.stream.stats();
        let sum = |of: fn(&Kept) -> usize| self.kept.values().map(of).sum::<usize>() as u64;
        assert_eq!(stats.incoming_records, u64::from(self.next));
        assert_eq!(stats.incoming_records, sum(|kept| kept.records.len()));
        assert_eq!(stats.expired_records, sum(|kept| kept.start));
        assert_eq!(stats.records, sum(|kept| kept.records.len() - kept.start));
        assert_eq!(stats.trimmed_records, 0);
        assert_eq!(stats.open_shards, u64::from(self.shards.open_count()));
        let retained = self.shards.retained_count() as u64;
        assert_eq!(stats.open_shards + stats.closed_shards, retained);
        let oldest = self
            .kept
            .values()
            .filter_map(|kept| Some(kept.records.get(kept.start)?.0))
            .min();
        assert_eq!(stats.oldest_age, oldest.map(|oldest| self.now() - oldest));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_does_what_the_model_says(
        shards in 1..4_u32,
        actions in prop::collection::vec(action(), 1..80),
    ) {
        let mut world = World::new(StreamConfig { retention: secs(100), ..small(shards) });
        for action in &actions {
            world.run(action);
        }
        world.check_stats();
        // Everybody reads on to the end.
        for index in 0..world.readers.len() {
            for _ in 0..10_000 {
                let reader = &world.readers[index];
                if reader.position == world.kept[&reader.shard].records.len() {
                    break;
                }
                world.read(index, 1_000);
            }
            world.read(index, 1);
            let reader = &world.readers[index];
            prop_assert_eq!(reader.position, world.kept[&reader.shard].records.len());
        }
        world.check_stats();
    }
}
