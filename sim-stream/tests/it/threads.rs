//! Several threads write, read and reshard at once: order per key, no gap, nothing twice, trims that are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use sim_stream::{
    ChildShard, Cursor, MergeError, Read, ReadError, Reader, Record, Records, SequenceNumber,
    ShardId, SplitError, StartingPosition, Stream, StreamConfig, UpdateCountError, WhenFull,
};

use crate::rig::{block_on, drain, key, oldest, secs, small, stream};

/// A small generator for what the threads choose: the same on each run, whatever the interleaving.
struct Choices(u64);

impl Choices {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// What one reader of the whole stream has seen.
#[derive(Default)]
struct Seen {
    /// The last value of each key, and its number.
    keys: BTreeMap<String, (u32, SequenceNumber)>,
    records: u64,
    ended: BTreeSet<ShardId>,
}

impl Seen {
    /// Notes a run: each key's values count up from 0 without a gap, and their numbers grow.
    fn note(&mut self, records: &Records<u32>) {
        for record in records {
            let (number, value) = (record.sequence_number(), *record.value());
            match self.keys.get_mut(record.partition_key()) {
                Some((last, former)) => {
                    assert_eq!(value, *last + 1, "{} at {number}", record.partition_key());
                    assert!(number > *former);
                    (*last, *former) = (value, number);
                }
                None => {
                    assert_eq!(value, 0, "{} at {number}", record.partition_key());
                    let key = record.partition_key().to_owned();
                    self.keys.insert(key, (value, number));
                }
            }
        }
        self.records += records.len() as u64;
    }

    /// Notes that a shard was read to its end, and names the children that may be read now: those whose parents are all
    /// done.
    fn end(&mut self, shard: ShardId, children: &[ChildShard]) -> Vec<ShardId> {
        assert!(self.ended.insert(shard), "{shard} ends once");
        children
            .iter()
            .filter(|child| {
                child
                    .parents
                    .iter()
                    .all(|parent| self.ended.contains(parent))
            })
            .map(|child| child.id)
            .collect()
    }
}

/// Reads all shards in turn, never waiting.
fn read_in_turn(stream: &Stream<u32>, first: &[ShardId]) -> Seen {
    let mut seen = Seen::default();
    let mut cursors: Vec<Cursor<u32>> = first.iter().map(|id| oldest(stream, *id)).collect();
    while !cursors.is_empty() {
        let mut next = Vec::new();
        let mut moved = false;
        for mut cursor in cursors {
            let records = cursor.try_read(Read::at_most(97)).unwrap();
            moved |= !records.is_empty();
            seen.note(&records);
            if records.is_end() {
                let children = seen.end(records.shard_id(), records.child_shards());
                next.extend(children.into_iter().map(|id| oldest(stream, id)));
            } else {
                next.push(cursor);
            }
        }
        cursors = next;
        if !moved {
            thread::yield_now();
        }
    }
    seen
}

/// Reads one shard after the other to its end, waiting in each with `read`.
fn read_one_by_one(
    stream: &Stream<u32>,
    first: &[ShardId],
    read: impl Fn(&mut Cursor<u32>) -> Result<Records<u32>, ReadError>,
) -> Seen {
    let mut seen = Seen::default();
    let mut shards = first.to_vec();
    while let Some(shard) = shards.pop() {
        let mut cursor = oldest(stream, shard);
        loop {
            let records = read(&mut cursor).unwrap();
            assert!(!records.is_empty() || records.is_end(), "it waits");
            seen.note(&records);
            if records.is_end() {
                shards.extend(seen.end(shard, records.child_shards()));
                break;
            }
        }
    }
    seen
}

/// Keeps writers and resharding together, whatever the processors do.
#[derive(Default)]
struct Pace {
    changes: AtomicU64,
    is_over: AtomicBool,
}

impl Pace {
    /// Waits until the shards have changed once for so many values.
    fn keep(&self, value: u32) {
        let due = u64::from(value / PUTS_A_CHANGE);
        while self.changes.load(Ordering::SeqCst) < due && !self.is_over.load(Ordering::SeqCst) {
            thread::yield_now();
        }
    }
}

/// Ends what the threads wait for, also when the test fails.
struct End<'a>(&'a Stream<u32>, &'a Pace);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.1.is_over.store(true, Ordering::SeqCst);
        self.0.close();
    }
}

fn reshard(stream: &Stream<u32>, choices: &mut Choices) {
    let open: Vec<_> = stream
        .shards()
        .into_iter()
        .filter(sim_stream::ShardInfo::is_open)
        .collect();
    let any = &open[choices.below(open.len())];
    match choices.below(3) {
        0 if open.len() < 8 => match stream.split_evenly(any.id) {
            Ok(_) | Err(SplitError::Closed) => {}
            Err(error) => panic!("{error}"),
        },
        1 => {
            let other = open[choices.below(open.len())].id;
            match stream.merge(any.id, other) {
                Ok(_) | Err(MergeError::NotAdjacent { .. } | MergeError::Closed) => {}
                Err(error) => panic!("{error}"),
            }
        }
        _ => {
            let target = 1 + choices.below(6) as u32;
            match stream.update_shard_count(target) {
                Ok(()) | Err(UpdateCountError::Closed) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

const WRITERS: usize = 3;
const KEYS: usize = 7;
const PUTS: u32 = 3_000;
/// A change of the shards for so many values of a writer, or more often.
const PUTS_A_CHANGE: u32 = 50;

/// Each writer has keys of its own and counts up in each, by single puts and by batches.
fn write(stream: &Stream<u32>, pace: &Pace, writer: usize) {
    let keys: Vec<_> = (0..KEYS).map(|k| key(format!("{writer}-{k}"))).collect();
    let mut choices = Choices(writer as u64);
    let mut last: Vec<Option<SequenceNumber>> = vec![None; KEYS];
    let mut value = 0;
    while value < PUTS {
        pace.keep(value);
        if choices.below(4) == 0 {
            // A few values of every key, in one batch.
            let count = (1 + choices.below(9) as u32).min(PUTS - value);
            let records: Vec<_> = (value..value + count)
                .flat_map(|value| keys.iter().map(move |key| Record::new(key.clone(), value)))
                .collect();
            let results = stream.try_put_batch(records).unwrap();
            for (index, placed) in results.into_iter().enumerate() {
                let number = placed.unwrap().sequence_number;
                assert!(last[index % KEYS] < Some(number));
                last[index % KEYS] = Some(number);
            }
            value += count;
        } else {
            for (key, last) in keys.iter().zip(&mut last) {
                let placed = stream.try_put(Record::new(key.clone(), value)).unwrap();
                assert!(*last < Some(placed.sequence_number));
                assert_eq!(placed.shard_id, placed.sequence_number.shard());
                *last = Some(placed.sequence_number);
            }
            value += 1;
        }
    }
}

/// Reads all shards with the reader of whole streams, waiting.
fn read_whole(stream: &Stream<u32>) -> Seen {
    let mut seen = Seen::default();
    let mut reader = stream.reader(StartingPosition::TrimHorizon).unwrap();
    loop {
        match reader.read_blocking(Read::default()) {
            Ok(records) => seen.note(&records),
            Err(ReadError::Closed) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(reader.shards().count(), 0);
    seen.ended = stream.shards().iter().map(|shard| shard.id).collect();
    seen
}

fn check(seen: &Seen, stream: &Stream<u32>) {
    assert_eq!(seen.keys.len(), WRITERS * KEYS);
    for (key, (last, _)) in &seen.keys {
        assert_eq!(*last, PUTS - 1, "{key}");
    }
    assert_eq!(seen.records, stream.stats().incoming_records);
    assert_eq!(seen.ended.len(), stream.shards().len());
}

#[test]
fn every_key_keeps_its_order_without_gap_or_double_through_resharding() {
    let stream: Stream<u32> = Stream::new(small(2)).unwrap();
    let first: Vec<_> = stream.shards().iter().map(|shard| shard.id).collect();
    let pace = Pace::default();
    thread::scope(|scope| {
        let readers = [
            scope.spawn(|| read_in_turn(&stream, &first)),
            scope.spawn(|| {
                read_one_by_one(&stream, &first, |cursor| {
                    cursor.read_blocking(Read::default())
                })
            }),
            scope.spawn(|| {
                read_one_by_one(&stream, &first, |cursor| {
                    block_on(cursor.read(Read::at_most(50)))
                })
            }),
            scope.spawn(|| read_whole(&stream)),
        ];
        scope.spawn(|| {
            let mut choices = Choices(99);
            let _end = End(&stream, &pace);
            while !pace.is_over.load(Ordering::SeqCst) {
                reshard(&stream, &mut choices);
                pace.changes.fetch_add(1, Ordering::SeqCst);
                for _ in 0..20 {
                    thread::yield_now();
                }
            }
        });
        let end = End(&stream, &pace);
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (stream, pace) = (&stream, &pace);
                scope.spawn(move || write(stream, pace, writer))
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        drop(end);
        for reader in readers {
            check(&reader.join().unwrap(), &stream);
        }
    });
    // The last wait is a few values before the end.
    assert!(pace.changes.load(Ordering::SeqCst) >= u64::from(PUTS / PUTS_A_CHANGE - 1));
    let seen = read_in_turn(&stream, &first);
    check(&seen, &stream);
}

#[test]
fn a_reader_that_falls_behind_learns_of_every_record_it_lost() {
    const PUTS: u32 = 40_000;
    let stream: Stream<u32> = Stream::new(StreamConfig {
        max_records: Some(500),
        when_full: WhenFull::TrimOldest,
        ..small(1)
    })
    .unwrap();
    let shard = ShardId::new(0);
    // It has read one record: from now on it does not float with the oldest.
    stream.try_put(Record::new(key("k"), 0)).unwrap();
    let begin = || {
        let mut cursor = oldest(&stream, shard);
        assert_eq!(cursor.try_read(Read::default()).unwrap().len(), 1);
        cursor
    };
    let readers = [begin(), begin()];
    let mut late = begin();
    thread::scope(|scope| {
        let readers: Vec<_> = readers
            .into_iter()
            .enumerate()
            .map(|(index, mut cursor)| {
                scope.spawn(move || {
                    let mut next = 1_u64;
                    loop {
                        match cursor.read_blocking(Read::at_most(1 + 300 * index)) {
                            Ok(records) => {
                                for record in &records {
                                    // Positions count on, and the value tells that it is the right record.
                                    assert_eq!(record.position(), next);
                                    assert_eq!(u64::from(*record.value()), next);
                                    next += 1;
                                }
                                if records.is_end() {
                                    break;
                                }
                            }
                            Err(ReadError::Trimmed { lost, resume_at }) => {
                                assert!(lost > 0);
                                next += lost;
                                assert_eq!(resume_at.position(), next);
                            }
                            Err(error) => panic!("{error}"),
                        }
                        if index == 0 {
                            thread::yield_now();
                        }
                    }
                    next
                })
            })
            .collect();
        for value in 1..PUTS {
            stream.try_put(Record::new(key("k"), value)).unwrap();
        }
        stream.close();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), u64::from(PUTS));
        }
    });
    let stats = stream.stats();
    assert_eq!(stats.trimmed_records + stats.records, u64::from(PUTS));
    assert!((1..=500).contains(&stats.records), "{}", stats.records);
    // One that slept through it all has read the first record and lost all but what is there.
    let trimmed = stats.trimmed_records;
    match late.try_read(Read::default()) {
        Err(ReadError::Trimmed { lost, .. }) => assert_eq!(lost, trimmed - 1),
        other => panic!("{other:?}"),
    }
    assert_eq!(drain(&mut late).len() as u64, stats.records);
}

#[test]
fn a_full_stream_refuses_what_many_threads_put_at_once() {
    let stream: Stream<u32> = Stream::new(StreamConfig {
        max_records: Some(100),
        when_full: WhenFull::Refuse,
        ..small(2)
    })
    .unwrap();
    let taken: u32 = thread::scope(|scope| {
        let writers: Vec<_> = (0..4_u32)
            .map(|writer| {
                let stream = &stream;
                scope.spawn(move || {
                    let key = key(format!("{writer}"));
                    let puts = (0..200).map(|n| stream.try_put(Record::new(key.clone(), n)));
                    let mut taken = 0;
                    for result in puts {
                        match result {
                            Ok(_) => taken += 1,
                            Err(error) => assert!(error.is_full()),
                        }
                    }
                    taken
                })
            })
            .collect();
        writers.into_iter().map(|w| w.join().unwrap()).sum()
    });
    // Each concurrent writer may pass the bound by the record that it is at, and by one when a sum is noted late.
    assert!((100..=108).contains(&taken), "{taken}");
    let stats = stream.stats();
    assert_eq!(stats.incoming_records, u64::from(taken));
    assert_eq!(stats.refused_full, 800 - u64::from(taken));
    assert_eq!(stats.trimmed_records, 0);
}

#[test]
fn readers_from_the_newest_record_on_miss_nothing_that_is_put_later() {
    let stream: Stream<u32> = Stream::new(small(1)).unwrap();
    let shard = ShardId::new(0);
    for value in 0..100 {
        stream.try_put(Record::new(key("k"), value)).unwrap();
    }
    let cursors: Vec<_> = (0..3)
        .map(|_| stream.cursor(shard, StartingPosition::Latest).unwrap())
        .collect();
    thread::scope(|scope| {
        let readers: Vec<_> = cursors
            .into_iter()
            .map(|mut cursor| {
                scope.spawn(move || {
                    let mut values = Vec::new();
                    loop {
                        let records = cursor.read_blocking(Read::default()).unwrap();
                        values.extend(records.iter().map(|record| *record.value()));
                        if records.is_end() {
                            return values;
                        }
                    }
                })
            })
            .collect();
        for value in 100..5_000 {
            stream.try_put(Record::new(key("k"), value)).unwrap();
        }
        stream.close();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), (100..5_000).collect::<Vec<_>>());
        }
    });
}

/// What a reader of the whole stream was told.
#[derive(Default)]
struct Told {
    read: u64,
    lost: u64,
    /// Shards that left before they were read.
    gone: u64,
    /// The last value of each key.
    keys: BTreeMap<String, u32>,
}

impl Told {
    fn note(&mut self, records: &Records<u32>) {
        for record in records {
            let (key, value) = (record.partition_key(), *record.value());
            let expected = self.keys.get(key).map_or(0, |last| last + 1);
            assert!(value >= expected, "{key}: {value} after {expected}");
            if value > expected {
                assert!(self.lost + self.gone > 0, "{key}: a silent gap");
            }
            self.keys.insert(key.to_owned(), value);
        }
        self.read += records.len() as u64;
    }

    /// Reads until the end of the stream, with so many breaks after each read.
    fn follow(mut self, reader: &mut Reader<u32>, breaks: usize) -> Self {
        loop {
            match reader.try_read(Read::at_most(60)) {
                Ok(Some(records)) => self.note(&records),
                Ok(None) => {}
                Err(ReadError::Trimmed { lost, .. }) => self.lost += lost,
                Err(ReadError::UnknownShard { .. }) => self.gone += 1,
                Err(ReadError::Closed) => return self,
                Err(error) => panic!("{error}"),
            }
            for _ in 0..breaks {
                thread::yield_now();
            }
        }
    }
}

#[test]
fn no_gap_is_silent_while_records_expire_and_shards_come_and_go() {
    let (stream, hand) = stream(StreamConfig {
        retention: secs(60),
        ..small(2)
    });
    // Every reader has read something of each shard: from now on none floats with the oldest record.
    for value in 0..2 {
        for shard in stream.shards() {
            let record = Record::new(key(shard.id.to_string()), value);
            stream
                .try_put(record.explicit_hash_key(shard.hash_range.start))
                .unwrap();
        }
    }
    let mut readers = [0, 1, 30].map(|breaks| {
        let mut told = Told::default();
        let mut reader = stream.reader(StartingPosition::TrimHorizon).unwrap();
        while let Some(records) = reader.try_read(Read::default()).unwrap() {
            told.note(&records);
        }
        assert_eq!(told.read, 4);
        (reader, told, breaks)
    });
    let pace = Pace::default();
    let told: Vec<Told> = thread::scope(|scope| {
        let readers: Vec<_> = readers
            .iter_mut()
            .map(|(reader, told, breaks)| {
                let (told, breaks) = (std::mem::take(told), *breaks);
                scope.spawn(move || told.follow(reader, breaks))
            })
            .collect();
        scope.spawn(|| {
            let mut choices = Choices(7);
            let _end = End(&stream, &pace);
            while !pace.is_over.load(Ordering::SeqCst) {
                reshard(&stream, &mut choices);
                hand.advance(secs(1 + choices.below(9) as u64));
                pace.changes.fetch_add(1, Ordering::SeqCst);
                thread::yield_now();
            }
        });
        let end = End(&stream, &pace);
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (stream, pace) = (&stream, &pace);
                scope.spawn(move || write(stream, pace, writer))
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        drop(end);
        readers.into_iter().map(|r| r.join().unwrap()).collect()
    });
    let stats = stream.stats();
    let puts = 4 + (WRITERS * KEYS) as u64 * u64::from(PUTS);
    assert_eq!(stats.incoming_records, puts);
    assert_eq!(stats.expired_records + stats.records, puts);
    assert!(stats.expired_records > 0);
    for told in told {
        let Told {
            read, lost, gone, ..
        } = told;
        assert!(read + lost <= puts);
        if gone == 0 {
            assert_eq!(read + lost, puts);
        }
    }
}
