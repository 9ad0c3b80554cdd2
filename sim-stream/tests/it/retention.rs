//! What leaves: by time, by count, by bytes; and what a reader learns of it.

use std::sync::Arc;
use std::time::Duration;

use sim_core::seam::Timed;
use sim_stream::{
    IteratorError, Read, ReadError, Record, Refusal, RetentionError, SequenceNumber,
    StartingPosition, StreamConfig, WhenFull,
};

use crate::rig::{
    FIRST, Task, all_of, drain, hours, key, of, oldest, put, secs, small, stream, stream_of, values,
};

#[test]
fn a_record_is_read_until_its_retention_ends() {
    let (stream, hand) = stream(small(1));
    put(&stream, 1);
    hand.advance(hours(1));
    put(&stream, 2);
    hand.advance(hours(23) - secs(1));
    assert_eq!(all_of(&stream, FIRST), [1, 2]);
    hand.advance(secs(1));
    assert_eq!(all_of(&stream, FIRST), [2]);
    hand.advance(hours(1));
    assert_eq!(all_of(&stream, FIRST), [0; 0]);
    let stats = stream.stats();
    assert_eq!(
        (stats.records, stats.expired_records, stats.incoming_records),
        (0, 2, 2)
    );
}

#[test]
fn a_year_passes_at_once() {
    let config = StreamConfig {
        retention: hours(8_760),
        ..small(1)
    };
    let (stream, hand) = stream(config);
    for day in 0..365 {
        put(&stream, day);
        hand.advance(hours(24));
    }
    assert_eq!(all_of(&stream, FIRST), (1..365).collect::<Vec<_>>());
    assert_eq!(stream.stats().oldest_age, Some(hours(24 * 364)));
    hand.advance(hours(8_760));
    assert_eq!(stream.stats().records, 0);
    assert_eq!(stream.next_deadline(), None);
}

#[test]
fn the_stream_names_its_next_deadline_and_serves_it() {
    let (stream, hand) = stream(small(1));
    assert_eq!(stream.next_deadline(), None);
    put(&stream, 1);
    let first = hand.now() + hours(24);
    assert_eq!(stream.next_deadline(), Some(first));
    hand.advance(hours(2));
    put(&stream, 2);
    stream.split_evenly(FIRST).unwrap();
    let timed: &dyn Timed = &stream;
    assert_eq!(timed.next_deadline(), Some(first));
    hand.advance_to(first);
    timed.advance(first);
    // The second record and its closed shard have the same one.
    let second = first + hours(2);
    assert_eq!(timed.next_deadline(), Some(second));
    hand.advance_to(second);
    timed.advance(second);
    assert_eq!(timed.next_deadline(), None);
    assert_eq!(stream.shards().len(), 2);
}

#[test]
fn a_reader_that_fell_behind_learns_how_many_records_it_lost_and_goes_on() {
    let (stream, hand) = stream(small(1));
    let placed: Vec<_> = (0..10)
        .map(|value| {
            hand.advance(hours(1));
            put(&stream, value).sequence_number
        })
        .collect();
    let mut cursor = oldest(&stream, FIRST);
    assert_eq!(values(&cursor.try_read(Read::at_most(2)).unwrap()), [0, 1]);
    hand.advance(hours(24) - hours(3));
    // Those of the hours 1 to 7 are over.
    assert_eq!(
        cursor.try_read(Read::default()).unwrap_err(),
        ReadError::Trimmed {
            lost: 5,
            resume_at: placed[7]
        }
    );
    assert_eq!(drain(&mut cursor), [7, 8, 9], "it is said once");
    assert_eq!(stream.stats().reads.trimmed, 1);
}

#[test]
fn a_reader_from_the_oldest_record_on_lost_nothing_before_it_began() {
    let (stream, hand) = stream(small(1));
    put(&stream, 1);
    let mut cursor = oldest(&stream, FIRST);
    hand.advance(hours(25));
    put(&stream, 2);
    assert_eq!(drain(&mut cursor), [2]);
}

#[test]
fn a_position_that_was_trimmed_is_named_and_one_behind_it_says_what_is_lost() {
    let (stream, hand) = stream(small(1));
    let first = put(&stream, 1).sequence_number;
    let second = put(&stream, 2).sequence_number;
    hand.advance(hours(24));
    let third = put(&stream, 3).sequence_number;
    assert_eq!(
        stream
            .cursor(FIRST, StartingPosition::AtSequenceNumber(second))
            .unwrap_err(),
        IteratorError::Trimmed {
            sequence_number: second,
            oldest: third
        }
    );
    let mut cursor = stream
        .cursor(FIRST, StartingPosition::AfterSequenceNumber(first))
        .unwrap();
    assert_eq!(
        cursor.try_read(Read::default()).unwrap_err(),
        ReadError::Trimmed {
            lost: 1,
            resume_at: third
        }
    );
    let mut cursor = stream
        .cursor(FIRST, StartingPosition::AfterSequenceNumber(second))
        .unwrap();
    assert_eq!(drain(&mut cursor), [3], "nothing between was lost");
}

#[test]
fn records_that_a_reader_holds_stay_readable_when_they_are_trimmed() {
    let (stream, hand) = stream_of::<Arc<u32>>(small(1));
    let value = Arc::new(7);
    stream
        .try_put(Record::new(key("k"), Arc::clone(&value)).data("body"))
        .unwrap();
    let records = oldest(&stream, FIRST).try_read(Read::default()).unwrap();
    let owned = records.to_owned_at(0).unwrap();
    let bytes = owned.bytes();
    hand.advance(hours(24));
    stream.advance();
    for n in 0..1_000 {
        stream.try_put(Record::new(key("k"), Arc::new(n))).unwrap();
    }
    hand.advance(hours(24));
    stream.advance();
    drop(records);
    assert_eq!((**owned.value(), owned.data()), (7, &b"body"[..]));
    drop(owned);
    assert_eq!(&*bytes, b"body");
    assert_eq!(Arc::strong_count(&value), 2, "the bytes pin the chunk");
    drop(bytes);
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn what_is_trimmed_is_dropped() {
    let (stream, hand) = stream_of::<Arc<()>>(small(2));
    let value = Arc::new(());
    for n in 0..5_000 {
        let record = Record::new(key(n.to_string()), Arc::clone(&value));
        stream.try_put(record).unwrap();
    }
    assert_eq!(Arc::strong_count(&value), 5_001);
    hand.advance(hours(24));
    stream.advance();
    assert_eq!(Arc::strong_count(&value), 1);
    assert_eq!((stream.stats().records, stream.stats().held_bytes), (0, 0));
}

#[test]
fn the_oldest_records_leave_when_there_are_too_many() {
    let config = StreamConfig {
        max_records: Some(1_000),
        ..small(2)
    };
    let (stream, hand) = stream(config);
    for n in 0..10_000 {
        stream.try_put(of(n.to_string(), n)).unwrap();
        hand.advance(Duration::from_millis(1));
        let records = stream.stats().records;
        assert!(records <= 1_000, "{records}");
    }
    let stats = stream.stats();
    assert!(stats.records > 900, "{stats:?}");
    assert_eq!(stats.records + stats.trimmed_records, 10_000);
    let mut kept: Vec<_> = (0..2)
        .flat_map(|shard| all_of(&stream, sim_stream::ShardId::new(shard)))
        .collect();
    kept.sort_unstable();
    // The oldest of both shards: some 64 records are the grain of the trims.
    assert!(kept[0] >= 8_800, "{}", kept[0]);
}

#[test]
fn the_oldest_records_leave_when_they_take_too_much_memory() {
    let config = StreamConfig {
        max_bytes: Some(64 << 10),
        ..small(1)
    };
    let (stream, _) = stream_of::<()>(config);
    for n in 0..2_000_u32 {
        let record = Record::bytes(key("k"), n.to_be_bytes().repeat(25));
        stream.try_put(record).unwrap();
        let held = stream.stats().held_bytes;
        assert!(held <= (64 + 8) << 10, "{held}");
    }
    let records = stream.stats().records;
    assert!(records > 300, "{records}");
    let last = oldest(&stream, FIRST);
    assert!(last.position() > 1_000);
}

#[test]
fn a_full_stream_that_refuses_gives_the_record_back_and_waits_for_the_retention() {
    let config = StreamConfig {
        max_records: Some(3),
        when_full: WhenFull::Refuse,
        ..small(1)
    };
    let (stream, hand) = stream(config);
    for value in 0..3 {
        put(&stream, value);
        hand.advance(hours(1));
    }
    let error = stream.try_put(of("k", 3)).unwrap_err();
    assert_eq!(
        error.reason,
        Refusal::Full {
            field: "max_records",
            limit: 3
        }
    );
    assert!(error.is_full() && error.reason.is_temporary());
    assert_eq!(error.into_value(), 3);

    let mut waiting = Task::waiting(stream.put(of("k", 4)));
    let mut next = Task::waiting(stream.put(of("k", 5)));
    hand.advance(hours(21) - secs(1));
    assert!(waiting.run().is_none());
    hand.advance(secs(1));
    assert!(waiting.run().unwrap().is_ok());
    assert!(next.run().is_none());
    hand.advance(hours(1));
    assert!(next.run().unwrap().is_ok());
    assert_eq!(all_of(&stream, FIRST), [2, 4, 5]);

    let deadline = hand.now() + secs(5);
    let mut late = Task::waiting(stream.put_until(of("k", 6), deadline));
    hand.advance(secs(5));
    let error = late.run().unwrap().unwrap_err();
    assert_eq!((error.reason, error.record.value), (Refusal::Elapsed, 6));
}

#[test]
fn a_full_stream_counts_bytes_too() {
    let config = StreamConfig {
        max_bytes: Some(16 << 10),
        when_full: WhenFull::Refuse,
        ..small(1)
    };
    let (stream, _) = stream_of::<()>(config);
    let put = || stream.try_put(Record::bytes(key("k"), vec![7; 1_000]));
    let taken = (0..100).take_while(|_| put().is_ok()).count();
    assert!((8..=16).contains(&taken), "{taken}");
    assert_eq!(
        put().unwrap_err().reason,
        Refusal::Full {
            field: "max_bytes",
            limit: 16 << 10
        }
    );
    assert_eq!(stream.stats().refused_full, 2);
}

#[test]
fn a_thread_waits_for_room() {
    let config = StreamConfig {
        max_records: Some(1),
        when_full: WhenFull::Refuse,
        ..small(1)
    };
    let (stream, hand) = stream(config);
    put(&stream, 1);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| stream.put_blocking(of("k", 2)).is_ok());
        crate::rig::until_asleep(&hand, 1);
        hand.advance(hours(24));
        assert!(writer.join().expect("no panic"));
    });
    assert_eq!(all_of(&stream, FIRST), [2]);
}

#[test]
fn a_longer_retention_keeps_more_and_brings_nothing_back() {
    let (stream, hand) = stream(small(1));
    put(&stream, 1);
    hand.advance(hours(12));
    put(&stream, 2);
    hand.advance(hours(12));
    // The first is over at this very moment.
    stream.increase_retention(hours(48)).unwrap();
    assert_eq!(all_of(&stream, FIRST), [2]);
    hand.advance(hours(35));
    assert_eq!(all_of(&stream, FIRST), [2]);
    hand.advance(hours(1));
    assert_eq!(all_of(&stream, FIRST), [0; 0]);
}

#[test]
fn a_shorter_retention_lets_old_records_go_at_once() {
    let (stream, hand) = stream(small(1));
    put(&stream, 1);
    hand.advance(hours(10));
    put(&stream, 2);
    stream.decrease_retention(hours(5)).unwrap();
    assert_eq!((stream.stats().records, stream.retention()), (1, hours(5)));
    assert_eq!(all_of(&stream, FIRST), [2]);
}

#[test]
fn a_retention_out_of_its_range_is_refused() {
    let (stream, _) = stream(StreamConfig::aws("s"));
    let day = hours(24);
    assert_eq!(
        stream.increase_retention(hours(8_761)),
        Err(RetentionError::Range {
            value: hours(8_761),
            min: day,
            max: hours(8_760)
        })
    );
    stream.increase_retention(hours(48)).unwrap();
    assert_eq!(
        stream.increase_retention(hours(47)),
        Err(RetentionError::NotAnIncrease {
            value: hours(47),
            current: hours(48)
        })
    );
    assert_eq!(
        stream.decrease_retention(hours(49)),
        Err(RetentionError::NotADecrease {
            value: hours(49),
            current: hours(48)
        })
    );
    assert!(stream.decrease_retention(hours(23)).is_err());
    assert_eq!(stream.retention(), hours(48));
    stream.close();
    assert_eq!(
        stream.increase_retention(hours(72)),
        Err(RetentionError::Closed)
    );
}

#[test]
fn a_reader_of_a_shard_that_has_left_learns_it_and_finds_the_children() {
    let (stream, hand) = stream(small(1));
    put(&stream, 1);
    let mut cursor = oldest(&stream, FIRST);
    assert_eq!(drain(&mut cursor), [1]);
    put(&stream, 2);
    put(&stream, 3);
    let children = stream.split_evenly(FIRST).unwrap();
    hand.advance(hours(48));
    stream.advance();
    assert_eq!(stream.shards().len(), 2);
    assert_eq!(
        cursor.try_read(Read::default()).unwrap_err(),
        ReadError::Trimmed {
            lost: 2,
            resume_at: SequenceNumber::new(FIRST, stream.salt(), 3)
        }
    );
    let end = cursor.try_read(Read::default()).unwrap();
    assert!(end.is_end());
    let ids: Vec<_> = end.child_shards().iter().map(|child| child.id).collect();
    assert_eq!(ids, children);
}

#[test]
fn a_value_may_call_its_stream_when_it_is_dropped() {
    struct Nosy {
        stream: Option<sim_stream::Stream<Nosy>>,
        drops: Arc<std::sync::atomic::AtomicU64>,
    }
    impl Drop for Nosy {
        fn drop(&mut self) {
            if let Some(stream) = &self.stream {
                stream.advance();
                let _ = (stream.stats(), stream.shards());
            }
            self.drops.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let (stream, hand) = stream_of::<Nosy>(small(1));
    let drops = Arc::default();
    for n in 0..200 {
        let nosy = Nosy {
            stream: (n % 2 == 0).then(|| stream.clone()),
            drops: Arc::clone(&drops),
        };
        stream.try_put(Record::new(key("k"), nosy)).unwrap();
    }
    stream.split_evenly(FIRST).unwrap();
    hand.advance(hours(24));
    stream.advance();
    assert_eq!(drops.load(std::sync::atomic::Ordering::SeqCst), 200);
    assert_eq!(stream.shards().len(), 2);
}

#[test]
fn durations_that_do_not_fit_are_never() {
    let config = StreamConfig {
        retention: Duration::from_secs(100 * 365 * 86_400),
        ..small(1)
    };
    let (stream, hand) = stream(config);
    put(&stream, 1);
    hand.advance(Duration::from_secs(99 * 365 * 86_400));
    assert_eq!(all_of(&stream, FIRST), [1]);
}

#[test]
fn shards_that_left_hold_no_room() {
    let (stream, hand) = stream(StreamConfig {
        max_bytes: Some(64 << 10),
        when_full: WhenFull::Refuse,
        retention: secs(60),
        ..small(1)
    });
    // Each round leaves two shards with a few records behind.
    for round in 0..50 {
        let open: Vec<_> = stream
            .shards()
            .into_iter()
            .filter(|s| s.is_open())
            .collect();
        put(&stream, round);
        let [lower, upper] = stream.split_evenly(open[0].id).unwrap();
        put(&stream, round);
        stream.merge(lower, upper).unwrap();
        put(&stream, round);
        hand.advance(secs(60));
        stream.advance();
        assert_eq!(stream.shards().len(), 1);
    }
}

#[test]
fn records_whose_time_is_over_are_not_read_though_one_call_trims_only_a_few_chunks_of_them() {
    let (stream, hand) = stream(small(1));
    let placed: Vec<_> = (0..20_000)
        .map(|n| put(&stream, n).sequence_number)
        .collect();
    let mut behind = oldest(&stream, FIRST);
    assert_eq!(behind.try_read(Read::at_most(1)).unwrap().len(), 1);
    hand.advance(hours(24));
    let newest = put(&stream, 20_000).sequence_number;
    assert_eq!(
        behind.try_read(Read::default()).unwrap_err(),
        ReadError::Trimmed {
            lost: 19_999,
            resume_at: newest
        }
    );
    assert_eq!(drain(&mut behind), [20_000]);
    assert_eq!(all_of(&stream, FIRST), [20_000]);
    assert!(stream.record(placed[19_999]).is_none());
    let at = StartingPosition::AtSequenceNumber(placed[19_999]);
    assert!(matches!(
        stream.cursor(FIRST, at),
        Err(IteratorError::Trimmed { oldest, .. }) if oldest == newest
    ));
    assert_eq!(
        stream.record(newest).map(|record| *record.value()),
        Some(20_000)
    );
    assert_eq!(stream.stats().expired_records, 20_000);
}

#[test]
fn a_shorter_retention_makes_room_for_all_who_wait() {
    let config = StreamConfig {
        max_records: Some(3),
        when_full: WhenFull::Refuse,
        ..small(1)
    };
    let (stream, hand) = stream(config);
    for value in 0..3 {
        put(&stream, value);
    }
    hand.advance(hours(2));
    let mut waiting: Vec<_> = (3..6)
        .map(|value| Task::waiting(stream.put(of("k", value))))
        .collect();
    stream.decrease_retention(hours(1)).unwrap();
    for task in &mut waiting {
        assert!(task.run().unwrap().is_ok());
    }
    assert_eq!(all_of(&stream, FIRST), [3, 4, 5]);
}

#[test]
fn memory_that_was_read_empty_does_not_stop_the_trims_that_follow() {
    let mut config = StreamConfig {
        max_bytes: Some(8 << 20),
        retention: secs(60),
        ..small(1)
    };
    config.memory.chunk_bytes = 1 << 20;
    config.max_record_bytes = 4 << 20;
    let (stream, hand) = stream_of::<()>(config);
    // Each record has a chunk of its own.
    let put = || {
        stream
            .try_put(Record::bytes(key("k"), vec![7; 3 << 20]))
            .unwrap()
    };
    put();
    let mut reader = oldest(&stream, FIRST);
    assert_eq!(reader.try_read(Read::default()).unwrap().len(), 1);
    hand.advance(secs(60));
    // This read trims the newest chunk whole, which stays.
    assert!(reader.try_read(Read::default()).unwrap().is_empty());
    for _ in 0..10 {
        put();
    }
    // The puts trimmed by themselves: nothing older than the last two or three is there.
    let cursor = oldest(&stream, FIRST);
    assert!(cursor.position() >= 8, "{cursor:?}");
    let stats = stream.stats();
    assert!(stats.held_bytes <= 8 << 20, "{stats:?}");
    assert_eq!(stats.records, 2);
}

#[test]
fn no_read_gives_a_record_whose_time_is_over_however_short_the_last_look_was_ago() {
    let (stream, hand) = stream(StreamConfig {
        retention: secs(10),
        ..small(1)
    });
    put(&stream, 1);
    hand.advance(Duration::from_micros(500));
    put(&stream, 2);
    let mut reader = oldest(&stream, FIRST);
    hand.advance(secs(10) - Duration::from_micros(500));
    assert_eq!(all_of(&stream, FIRST), [2]);
    assert_eq!(reader.position(), 0);
    hand.advance(Duration::from_micros(500));
    assert!(reader.try_read(Read::default()).unwrap().is_empty());
    assert_eq!(reader.position(), 2);
    put(&stream, 3);
    assert_eq!(drain(&mut reader), [3]);
}

#[test]
fn those_who_wait_for_room_follow_a_retention_that_becomes_shorter() {
    let config = StreamConfig {
        max_records: Some(3),
        when_full: WhenFull::Refuse,
        ..small(1)
    };
    let (stream, hand) = stream(config);
    for value in 0..3 {
        put(&stream, value);
    }
    let mut waiting: Vec<_> = (3..6)
        .map(|value| Task::waiting(stream.put(of("k", value))))
        .collect();
    stream.decrease_retention(hours(5)).unwrap();
    for task in &mut waiting {
        assert!(task.run().is_none());
    }
    hand.advance(hours(5));
    let mut done = 0;
    for _ in 0..3 {
        done += waiting.iter_mut().filter_map(Task::run).count();
    }
    assert_eq!(done, 3);
}

#[test]
fn a_shard_that_leaves_is_counted_once_at_any_time() {
    struct Counting(
        Option<sim_stream::Stream<Counting>>,
        Arc<std::sync::Mutex<Vec<u64>>>,
    );
    impl Drop for Counting {
        fn drop(&mut self) {
            if let Some(stream) = &self.0 {
                let stats = stream.stats();
                self.1.lock().unwrap().push(stats.incoming_records);
                assert_eq!(stats.expired_records, 10);
            }
        }
    }
    let (stream, hand) = stream_of::<Counting>(small(1));
    let seen: Arc<std::sync::Mutex<Vec<u64>>> = Arc::default();
    for n in 0..10 {
        let value = Counting((n == 0).then(|| stream.clone()), Arc::clone(&seen));
        stream.try_put(Record::new(key("k"), value)).unwrap();
    }
    stream.split_evenly(FIRST).unwrap();
    hand.advance(hours(24));
    // The put finds the parent's time over, and lets it go with its records.
    let value = Counting(None, Arc::clone(&seen));
    stream.try_put(Record::new(key("k"), value)).unwrap();
    assert_eq!(*seen.lock().unwrap(), [11]);
    assert_eq!(stream.stats().incoming_records, 11);
}

#[test]
fn a_stream_that_ends_keeps_no_value_that_was_trimmed() {
    let (stream, hand) = stream_of::<Arc<()>>(small(1));
    let value = Arc::new(());
    stream
        .try_put(Record::new(key("k"), Arc::clone(&value)))
        .unwrap();
    let mut reader = oldest(&stream, FIRST);
    hand.advance(hours(24));
    assert!(reader.try_read(Read::default()).unwrap().is_empty());
    assert_eq!(Arc::strong_count(&value), 2, "the newest chunk stays");
    drop(reader);
    stream.close();
    assert_eq!(Arc::strong_count(&value), 1);
}
