//! Splits, merges and target counts: no record lost, and each key in order.

use std::collections::BTreeMap;

use sim_stream::{
    HashKey, HashRange, MergeError, Read, Refusal, ShardFilter, ShardId, SplitError,
    StartingPosition, Stream, StreamConfig, UpdateCountError,
};

use crate::rig::{
    FIRST, START, all_of, drain, hours, of, oldest, put, secs, small, stream, values,
};

#[test]
fn a_split_closes_the_parent_and_its_children_share_its_keys() {
    let (stream, _) = stream(small(1));
    for n in 0..100 {
        stream.try_put(of(n.to_string(), n)).unwrap();
    }
    let at = HashKey::from_u128(1 << 126);
    let [low, high] = stream.split(FIRST, at).unwrap();
    for n in 0..100 {
        let placed = stream.try_put(of(n.to_string(), n)).unwrap();
        let expected = if HashKey::of(&n.to_string()) < at {
            low
        } else {
            high
        };
        assert_eq!(placed.shard_id, expected);
    }
    assert_eq!(all_of(&stream, FIRST), (0..100).collect::<Vec<_>>());
    assert_eq!(
        all_of(&stream, low).len() + all_of(&stream, high).len(),
        100
    );
}

#[test]
fn a_merge_closes_both_parents() {
    let (stream, _) = stream(small(2));
    let (one, two) = (FIRST, ShardId::new(1));
    for n in 0..50 {
        stream.try_put(of(n.to_string(), n)).unwrap();
    }
    let child = stream.merge(one, two).unwrap();
    for n in 0..50 {
        let placed = stream.try_put(of(n.to_string(), n)).unwrap();
        assert_eq!(placed.shard_id, child);
    }
    assert_eq!(all_of(&stream, one).len() + all_of(&stream, two).len(), 50);
    for parent in [one, two] {
        let mut cursor = oldest(&stream, parent);
        drain(&mut cursor);
        let end = cursor.try_read(Read::default()).unwrap();
        assert!(end.is_end());
        let [named] = end.child_shards() else {
            panic!("{:?}", end.child_shards())
        };
        assert_eq!(
            (named.id, &*named.parents, named.hash_range),
            (child, &[one, two][..], HashRange::FULL)
        );
    }
}

#[test]
fn sequence_numbers_of_a_key_grow_through_resharding() {
    let (stream, _) = stream(small(1));
    let mut last = put(&stream, 0);
    let mut shard = FIRST;
    for n in 1..20 {
        if n % 3 == 0 {
            stream.split_evenly(shard).unwrap();
        }
        let next = put(&stream, n);
        assert!(next.sequence_number > last.sequence_number);
        shard = next.shard_id;
        last = next;
    }
}

#[test]
fn the_last_records_of_a_shard_come_with_its_end() {
    let (stream, _) = stream(small(1));
    put(&stream, 1);
    put(&stream, 2);
    let mut cursor = oldest(&stream, FIRST);
    assert!(!cursor.try_read(Read::at_most(1)).unwrap().is_end());
    stream.split_evenly(FIRST).unwrap();
    let last = cursor.try_read(Read::at_most(1)).unwrap();
    assert_eq!((values(&last), last.is_end()), (vec![2], true));
    assert_eq!(last.child_shards().len(), 2);
    let again = cursor.try_read(Read::default()).unwrap();
    assert!(again.is_empty() && again.is_end());
}

#[test]
fn a_target_count_gives_each_shard_an_equal_part() {
    let (stream, _) = stream(small(1));
    for target in [4, 6, 3, 1] {
        stream.update_shard_count(target).unwrap();
        assert_eq!(stream.open_shard_count(), target as usize);
        let mut hits = BTreeMap::new();
        for n in 0..600 {
            let placed = stream.try_put(of(n.to_string(), n)).unwrap();
            *hits.entry(placed.shard_id).or_insert(0) += 1;
        }
        assert_eq!(hits.len(), target as usize);
        let fair = 600 / target;
        assert!(
            hits.values().all(|n| (fair / 2..=2 * fair).contains(n)),
            "{hits:?}"
        );
    }
    assert_eq!(stream.stats().records, 2_400);
}

#[test]
fn a_closed_shard_is_listed_until_its_retention_ends_and_its_records_with_it() {
    let (stream, hand) = stream(small(1));
    put(&stream, 1);
    hand.advance(hours(1));
    stream.split_evenly(FIRST).unwrap();
    let info = &stream.shards()[0];
    assert_eq!((info.id, info.closed_at), (FIRST, Some(START + hours(1))));
    assert!(info.ending_sequence_number.is_some());

    hand.advance(hours(23));
    assert_eq!(stream.shards().len(), 3);
    assert_eq!(all_of(&stream, FIRST), [0; 0], "the record is 24 hours old");
    hand.advance(hours(1) - secs(1));
    assert_eq!(stream.shards().len(), 3);
    hand.advance(secs(1));
    assert_eq!(stream.shards().len(), 2);
    assert!(stream.cursor(FIRST, StartingPosition::TrimHorizon).is_err());
    let stats = stream.stats();
    assert_eq!((stats.open_shards, stats.closed_shards), (2, 0));
    assert_eq!((stats.incoming_records, stats.expired_records), (1, 1));
}

#[test]
fn shards_are_listed_by_filter_and_page() {
    let (stream, hand) = stream(small(2));
    hand.advance(hours(1));
    stream.split_evenly(FIRST).unwrap();
    hand.advance(hours(1));
    let ids = |filter| {
        let page = stream.list_shards(Some(filter), None, 100).unwrap();
        page.shards
            .iter()
            .map(|shard| shard.id.number())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(ShardFilter::AtLatest), [1, 2, 3]);
    assert_eq!(ids(ShardFilter::AtTrimHorizon), [0, 1]);
    assert_eq!(ids(ShardFilter::AfterShardId(ShardId::new(1))), [2, 3]);
    assert_eq!(ids(ShardFilter::AtTimestamp(START + secs(60))), [0, 1]);
    assert_eq!(ids(ShardFilter::FromTimestamp(START + hours(2))), [1, 2, 3]);
    let page = stream.list_shards(None, None, 3).unwrap();
    assert_eq!((page.shards.len(), page.next), (3, Some(ShardId::new(2))));
    let page = stream.list_shards(None, page.next, 3).unwrap();
    assert_eq!((page.shards.len(), page.next), (1, None));
    assert!(stream.list_shards(None, None, 0).is_err());
    assert!(
        stream
            .list_shards(Some(ShardFilter::AtTimestamp(START + hours(3))), None, 1)
            .is_err()
    );
}

#[test]
fn a_reshard_that_makes_no_sense_is_named_and_changes_nothing() {
    let (stream, _) = stream(small(3));
    let shard = ShardId::new;
    let unknown = shard(9);
    assert_eq!(
        stream.split(unknown, HashKey::MAX),
        Err(SplitError::UnknownShard { shard_id: unknown })
    );
    assert!(matches!(
        stream.split(FIRST, HashKey::MIN),
        Err(SplitError::HashKey { .. })
    ));
    assert!(matches!(
        stream.split(FIRST, HashKey::MAX),
        Err(SplitError::HashKey { .. })
    ));
    assert!(matches!(
        stream.merge(shard(0), shard(2)),
        Err(MergeError::NotAdjacent { .. })
    ));
    assert!(matches!(
        stream.merge(shard(0), shard(0)),
        Err(MergeError::NotAdjacent { .. })
    ));
    assert_eq!(
        stream.merge(shard(0), unknown),
        Err(MergeError::UnknownShard { shard_id: unknown })
    );
    let limit = stream.config().limits.open_shards;
    assert_eq!(
        stream.update_shard_count(0),
        Err(UpdateCountError::Target { target: 0, limit })
    );
    assert_eq!(stream.shards().len(), 3);
    stream.split_evenly(shard(1)).unwrap();
    assert_eq!(
        stream.split_evenly(shard(1)),
        Err(SplitError::ShardClosed { shard_id: shard(1) })
    );
    assert_eq!(
        stream.merge(shard(1), shard(2)),
        Err(MergeError::ShardClosed { shard_id: shard(1) })
    );
    stream.close();
    assert_eq!(stream.split_evenly(shard(0)), Err(SplitError::Closed));
    assert_eq!(stream.merge(shard(0), shard(3)), Err(MergeError::Closed));
    assert_eq!(stream.update_shard_count(2), Err(UpdateCountError::Closed));
}

/// What each key's writer has put must be read in order, once, whatever happens to the shards meanwhile.
#[test]
fn nothing_is_lost_or_reordered_while_shards_split_and_merge() {
    const KEYS: u32 = 8;
    const EACH: u32 = 4_000;
    const WRITERS: u32 = 2;
    let mut config = StreamConfig::new("s").shards(2);
    config.memory.chunk_bytes = 16 << 10;
    config.memory.first_chunk_bytes = 4 << 10;
    let stream: Stream<u32> = Stream::new(config).unwrap();
    std::thread::scope(|scope| {
        let mut readers = Vec::new();
        for _ in 0..2 {
            let mut reader = stream.reader(StartingPosition::TrimHorizon).unwrap();
            readers.push(scope.spawn(move || {
                let mut next = vec![0; KEYS as usize];
                let mut left = KEYS * EACH;
                while left > 0 {
                    let records = reader.read_blocking(Read::default()).unwrap();
                    for record in &records {
                        let (key, number) = (record.value() % KEYS, record.value() / KEYS);
                        assert_eq!(record.partition_key(), key.to_string());
                        assert_eq!(number, next[key as usize], "key {key}");
                        next[key as usize] += 1;
                        left -= 1;
                    }
                }
            }));
        }
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let stream = stream.clone();
                scope.spawn(move || {
                    for number in 0..EACH {
                        for key in (writer..KEYS).step_by(WRITERS as usize) {
                            if number % 7 == 0 {
                                let batch = [of(key.to_string(), number * KEYS + key)];
                                let results = stream.try_put_batch(batch).unwrap();
                                assert!(results.iter().all(Result::is_ok));
                            } else {
                                stream
                                    .try_put(of(key.to_string(), number * KEYS + key))
                                    .unwrap();
                            }
                        }
                    }
                })
            })
            .collect();
        let mut random = sim_core::random::Random::new(7);
        while writers.iter().any(|writer| !writer.is_finished()) {
            let open = stream
                .list_shards(Some(ShardFilter::AtLatest), None, 10_000)
                .unwrap()
                .shards;
            match random.below(3) {
                0 if open.len() < 12 => {
                    let shard = &open[random.below(open.len() as u64) as usize];
                    stream.split_evenly(shard.id).unwrap();
                }
                1 => {
                    let mut open = open;
                    open.sort_by_key(|shard| shard.hash_range.start);
                    if let [one, two, ..] = &*open {
                        stream.merge(two.id, one.id).unwrap();
                    }
                }
                _ => stream
                    .update_shard_count(1 + random.below(6) as u32)
                    .unwrap(),
            }
            std::thread::yield_now();
            if stream.shards().len() > 5_000 {
                break;
            }
        }
        for writer in writers {
            writer.join().expect("no panic");
        }
        for reader in readers {
            reader.join().expect("no panic");
        }
    });
    let stats = stream.stats();
    assert_eq!(stats.incoming_records, u64::from(KEYS * EACH));
    assert!(stats.closed_shards > 4, "it was resharded meanwhile");
}

#[test]
fn a_put_that_meets_the_end_of_the_stream_is_refused() {
    let (stream, _) = stream(small(2));
    put(&stream, 1);
    stream.update_shard_count(4).unwrap();
    stream.close();
    let error = stream.try_put(of("k", 2)).unwrap_err();
    assert_eq!(
        (error.reason.clone(), error.into_value()),
        (Refusal::Closed, 2)
    );
}

#[test]
fn a_child_takes_no_record_before_its_parent_is_closed() {
    const SHARDS: u32 = 128;
    for _ in 0..60 {
        let stream: Stream<u32> = Stream::new(small(SHARDS)).unwrap();
        let mut parents: Vec<_> = (0..SHARDS)
            .map(|shard| {
                stream
                    .cursor(ShardId::new(shard), StartingPosition::Latest)
                    .unwrap()
            })
            .collect();
        let (stream, begun) = (&stream, &std::sync::Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                begun.wait();
                let mut children = 0;
                // From the last shards on: their logs are closed last.
                for shard in (0..SHARDS).rev().cycle() {
                    let hash = HashKey::from_u128(u128::from(shard) << 121 | 1);
                    let placed = stream
                        .try_put(of("k", shard).explicit_hash_key(hash))
                        .unwrap();
                    if placed.shard_id.number() >= SHARDS {
                        let parent = &mut parents[shard as usize];
                        let is_closed = loop {
                            let records = parent.try_read(Read::default()).unwrap();
                            if records.is_end() || records.is_empty() {
                                break records.is_end();
                            }
                        };
                        assert!(is_closed, "{shard} still takes records");
                        children += 1;
                        if children == SHARDS {
                            break;
                        }
                    }
                }
            });
            begun.wait();
            stream.update_shard_count(2 * SHARDS).unwrap();
        });
    }
}
