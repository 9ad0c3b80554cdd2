//! Queues on a stream: each rule once, through the handle, on a virtual clock.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sim_core::clock::VirtualClock;
use sim_core::seam::{Gauge, Source, Timed};
use sim_core::time::{Instant, Timestamp};
use sim_stream::queue::{
    InvalidReceive, ParseReceiptError, QueueError, ReceiveError, Stale, TryReceiveError,
    VisibilityError,
};
use sim_stream::{
    ConfigError, DeadLetters, HashKey, LostRecords, PartitionKey, QueueConfig, QueueLimits,
    QueueRecord, QueueStart, QueueStats, QueueUpdate, Read, Receipt, Receive, Record, ShardId,
    Stream, StreamConfig, StreamQueue,
};

use crate::rig::{
    FIRST, START, Task, block_on, key, of, oldest, put, secs, small, stream, stream_of,
    until_asleep,
};

pub(crate) fn config() -> QueueConfig {
    QueueConfig {
        start: QueueStart::TrimHorizon,
        dead_letters: DeadLetters::BuiltIn { max_receives: 3 },
        ..QueueConfig::new("tasks")
    }
}

/// A stream of one shard with a queue on it.
fn bed() -> (Stream<u32>, StreamQueue<u32>, VirtualClock) {
    let (stream, hand) = stream(StreamConfig::new("s"));
    let queue = stream.queue(config()).unwrap();
    (stream, queue, hand)
}

fn put_all(stream: &Stream<u32>, values: impl IntoIterator<Item = u32>) {
    for value in values {
        put(stream, value);
    }
}

pub(crate) fn take(queue: &StreamQueue<u32>, max: usize) -> Vec<QueueRecord<u32>> {
    match queue.try_receive(Receive::up_to(max)) {
        Ok(records) => records,
        Err(TryReceiveError::Empty) => Vec::new(),
        Err(error) => panic!("{error}"),
    }
}

fn take_dead(queue: &StreamQueue<u32>, max: usize) -> Vec<QueueRecord<u32>> {
    queue
        .try_receive_dead_letters(Receive::up_to(max))
        .unwrap_or_default()
}

pub(crate) fn values(records: &[QueueRecord<u32>]) -> Vec<u32> {
    records.iter().map(|record| *record.value()).collect()
}

/// Lets the leases of all records run out until they are dead.
fn kill(queue: &StreamQueue<u32>, hand: &VirtualClock) {
    while !take(queue, 1_000).is_empty() {
        hand.advance(secs(30));
    }
}

/// What was put is somewhere: the identity that `QueueStats` documents.
#[track_caller]
pub(crate) fn reconcile(queue: &StreamQueue<u32>, put: u64) {
    let s = queue.stats();
    let there = s.visible + s.in_flight + s.delayed;
    let dead = s.visible_dead_letters + s.in_flight_dead_letters + s.acknowledged_dead_letters;
    let gone = s.acknowledged + s.lost.total();
    assert_eq!(put, there + dead + gone, "{s:?}");
}

// ---- receiving -----------------------------------------------------------------------------------------

#[test]
fn a_record_is_delivered_with_all_that_belongs_to_it() {
    let (stream, hand) = stream_of::<()>(StreamConfig::new("s"));
    let queue = stream.queue(QueueConfig::new("tasks")).unwrap();
    hand.advance(secs(1));
    let placed = stream
        .try_put(Record::bytes(key("AA"), &b"flight 1"[..]))
        .unwrap();
    hand.advance(secs(4));
    let first = queue.try_receive(Receive::default()).unwrap();
    let record = &first[0];
    assert_eq!(
        (record.partition_key(), record.data()),
        ("AA", &b"flight 1"[..])
    );
    assert_eq!(record.sequence_number(), placed.sequence_number);
    assert_eq!(record.shard_id(), FIRST);
    assert_eq!(record.arrived(), START + secs(1));
    assert_eq!(record.first_received(), START + secs(5));
    assert_eq!(record.receive_count(), 1);
    assert_eq!(record.leased_until(), Instant::ORIGIN + secs(35));
    hand.advance(secs(30));
    let second = queue.try_receive(Receive::default()).unwrap();
    assert_eq!(second[0].receive_count(), 2);
    assert_eq!(second[0].first_received(), START + secs(5));
    assert_eq!(second[0].sequence_number(), placed.sequence_number);
    assert_ne!(second[0].receipt(), record.receipt());
}

#[test]
fn what_is_delivered_stands_in_the_log_and_nowhere_else() {
    let (stream, _hand) = stream_of::<()>(StreamConfig::new("s"));
    let (one, other) = (
        stream.queue(QueueConfig::new("one")).unwrap(),
        stream.queue(QueueConfig::new("other")).unwrap(),
    );
    for number in 0..1_000_u32 {
        stream
            .try_put(Record::bytes(key("k"), vec![number as u8; 1_000]))
            .unwrap();
    }
    let held = stream.stats().held_bytes;
    let mut cursor = oldest(&stream, FIRST);
    let mut read = Vec::new();
    while read.len() < 500 {
        read.extend(cursor.try_read(Read::default()).unwrap());
    }
    let mine = one.try_receive(Receive::up_to(500)).unwrap();
    let theirs = other.try_receive(Receive::up_to(500)).unwrap();
    assert_eq!((mine.len(), theirs.len()), (500, 500));
    for ((a, b), read) in mine.iter().zip(&theirs).zip(&read) {
        // The very same bytes for the reader and both queues.
        let there = read.data().as_ptr();
        assert_eq!(a.data().as_ptr(), there);
        assert_eq!(b.data().as_ptr(), there);
        assert_eq!(a.bytes().as_ptr(), there);
    }
    assert_eq!(stream.stats().held_bytes, held);
}

#[test]
fn a_receive_brings_as_many_as_are_there_and_asked_for() {
    let (stream, queue, _hand) = bed();
    put_all(&stream, 0..25);
    assert_eq!(values(&take(&queue, 10)), (0..10).collect::<Vec<_>>());
    assert_eq!(values(&take(&queue, 100)), (10..25).collect::<Vec<_>>());
    let nothing = queue.try_receive(Receive::default()).unwrap_err();
    assert_eq!(nothing, TryReceiveError::Empty);
    reconcile(&queue, 25);
}

#[test]
fn a_queue_starts_where_it_is_told() {
    let (stream, hand) = stream(StreamConfig::new("s").shards(2));
    let keyed = |value: u32| of(format!("key {value}"), value);
    for value in 0..10 {
        stream.try_put(keyed(value)).unwrap();
        hand.advance(secs(1));
    }
    let at = |start| stream.queue(QueueConfig { start, ..config() }).unwrap();
    let all = |queue: &StreamQueue<u32>| values(&take(queue, 100)).into_iter().collect();
    let set = |range: std::ops::Range<u32>| range.collect::<BTreeSet<u32>>();

    let (horizon, latest) = (at(QueueStart::TrimHorizon), at(QueueStart::Latest));
    let middle = at(QueueStart::AtTimestamp(START + secs(4)));
    for value in 10..12 {
        stream.try_put(keyed(value)).unwrap();
    }
    let seen: BTreeSet<u32> = all(&horizon);
    assert_eq!(seen, set(0..12));
    let seen: BTreeSet<u32> = all(&latest);
    assert_eq!(seen, set(10..12));
    let seen: BTreeSet<u32> = all(&middle);
    assert_eq!(seen, set(4..12));

    let start = QueueStart::AtTimestamp(START + secs(3_600));
    let error = stream.queue(QueueConfig { start, ..config() }).unwrap_err();
    assert!(matches!(error, QueueError::Start(_)), "{error}");
}

#[test]
fn queues_on_one_stream_know_nothing_of_each_other() {
    let (stream, one, _hand) = bed();
    let other = stream.queue(config()).unwrap();
    put_all(&stream, 0..3);
    let mine = take(&one, 10);
    assert_eq!(values(&mine), [0, 1, 2]);
    // The same name, the same seed, the same slot and lease: still another queue's receipt.
    let theirs = take(&other, 10);
    assert_eq!(values(&theirs), [0, 1, 2]);
    assert_eq!(other.acknowledge(&mine[0]), Err(Stale));
    assert_eq!(one.acknowledge(&mine[0]), Ok(()));
    assert_eq!((one.stats().in_flight, other.stats().in_flight), (2, 3));
    // And a reader of the stream nothing of both.
    assert_eq!(
        oldest(&stream, FIRST)
            .try_read(Read::default())
            .unwrap()
            .len(),
        3
    );
}

#[test]
fn a_clone_is_the_same_queue() {
    let (stream, queue, _hand) = bed();
    put_all(&stream, 0..2);
    let clone = queue.clone();
    let first = take(&queue, 1);
    assert_eq!(values(&take(&clone, 10)), [1]);
    assert_eq!(clone.acknowledge(&first[0]), Ok(()));
}

#[test]
fn what_a_receive_asks_for_is_held_against_the_limits() {
    let (stream, _hand) = stream(StreamConfig::new("s"));
    let queue = stream.queue(QueueConfig::aws("tasks")).unwrap();
    put(&stream, 0);
    let error = queue.try_receive(Receive::up_to(11)).unwrap_err();
    assert_eq!(error.to_string(), "max: 11 must lie between 1 and 10");
    let error = queue.try_receive(Receive::up_to(0)).unwrap_err();
    assert_eq!(error.to_string(), "max: 0 must lie between 1 and 10");
    let long = Receive {
        visibility_timeout: Some(secs(43_201)),
        ..Receive::default()
    };
    let error = queue.try_receive(long).unwrap_err();
    assert_eq!(
        error.to_string(),
        "visibility_timeout: 43201s is longer than 43200s"
    );
    let error = block_on(queue.receive(long)).unwrap_err();
    assert!(matches!(
        error,
        ReceiveError::Invalid(InvalidReceive::Visibility { .. })
    ));
    let error = queue
        .try_receive_dead_letters(Receive::up_to(11))
        .unwrap_err();
    assert!(matches!(error, TryReceiveError::Invalid(_)));
    assert_eq!(queue.stats().received, 0);

    let got = queue.try_receive(Receive::default()).unwrap();
    let change = queue.change_visibility(&got[0], secs(43_201));
    let limit = secs(43_200);
    let value = secs(43_201);
    assert_eq!(change, Err(VisibilityError::TooLong { value, limit }));
    assert!(queue.release(&got[0], value).is_err());
    assert_eq!(queue.change_visibility(&got[0], limit), Ok(()));
}

#[test]
fn a_configuration_out_of_range_is_refused_by_name() {
    let (stream, _hand) = stream(StreamConfig::new("s"));
    let refused = |config: QueueConfig| match stream.queue(config) {
        Err(QueueError::Config(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let with = |change: fn(&mut QueueConfig)| {
        let mut config = QueueConfig::aws("tasks");
        change(&mut config);
        refused(config)
    };
    assert!(with(|c| c.name = "no spaces".into()).starts_with("name: "));
    assert_eq!(
        with(|c| c.visibility_timeout = secs(43_201)),
        "visibility_timeout: 43201s must lie between 0ns and 43200s"
    );
    assert_eq!(
        with(|c| c.dead_letters = DeadLetters::BuiltIn {
            max_receives: 1_001
        }),
        "dead_letters.max_receives: 1001 must lie between 1 and 1000"
    );
    assert_eq!(
        with(|c| c.dead_letters = DeadLetters::BuiltIn { max_receives: 0 }),
        "dead_letters.max_receives: 0 must lie between 1 and 1000"
    );
    assert!(with(|c| c.max_in_flight = 0).starts_with("max_in_flight: 0 "));
    assert!(with(|c| c.max_dead_letters = 0).starts_with("max_dead_letters: 0 "));
    assert!(with(|c| c.limits.batch = 0).starts_with("limits.batch: 0 "));
    assert!(with(|c| c.limits.visibility = Duration::MAX).starts_with("limits.visibility: "));
    assert_eq!(QueueConfig::aws("tasks").check(), Ok(()));
}

// ---- verdicts ------------------------------------------------------------------------------------------

#[test]
fn verdicts_in_bulk_are_given_one_by_one() {
    let (stream, queue, _hand) = bed();
    put_all(&stream, 0..4);
    let got = take(&queue, 4);
    assert_eq!(queue.acknowledge_batch(&got[..2]), [Ok(()), Ok(())]);
    let again = queue.acknowledge_batch(got[1..3].iter().map(QueueRecord::receipt));
    assert_eq!(again, [Err(Stale), Ok(())]);
    let changes = [
        (got[0].receipt(), secs(1)),
        (got[3].receipt(), Duration::MAX),
        (got[3].receipt(), secs(90)),
    ];
    let changed = queue.change_visibility_batch(changes);
    assert_eq!(changed[0], Err(VisibilityError::Stale(Stale)));
    assert!(matches!(changed[1], Err(VisibilityError::TooLong { .. })));
    assert_eq!(changed[2], Ok(()));
    assert_eq!(queue.next_deadline(), Some(Instant::ORIGIN + secs(90)));
    assert_eq!(queue.stats().acknowledged, 3);
}

#[test]
fn a_receipt_is_good_as_text_and_only_as_it_was_given() {
    let (stream, queue, _hand) = bed();
    put(&stream, 0);
    let receipt = take(&queue, 1)[0].receipt();
    let text = receipt.to_string();
    assert!(text.len() <= 1_024);
    for wrong in [
        "",
        "-",
        "1-2",
        "1-2-3-4",
        "+1-2-3",
        "01-2-3",
        "1-100000000-3",
        "x-y-z",
        "1--3",
    ] {
        assert_eq!(wrong.parse::<Receipt>(), Err(ParseReceiptError), "{wrong}");
    }
    assert_eq!(
        text.to_uppercase().parse::<Receipt>().is_ok(),
        text == text.to_uppercase()
    );
    let forged: Receipt = "1-0-1".parse().unwrap();
    assert_eq!(queue.acknowledge(forged), Err(Stale));
    assert_eq!(queue.acknowledge(text.parse::<Receipt>().unwrap()), Ok(()));
}

#[test]
fn a_released_record_waits_for_its_delay() {
    let (stream, queue, hand) = bed();
    put(&stream, 7);
    let got = take(&queue, 1);
    queue.release(&got[0], secs(10)).unwrap();
    assert_eq!(queue.acknowledge(&got[0]), Err(Stale));
    assert_eq!(queue.stats().delayed, 1);
    hand.advance(secs(9));
    assert!(take(&queue, 1).is_empty());
    hand.advance(secs(1));
    assert_eq!(take(&queue, 1)[0].receive_count(), 2);
}

#[test]
fn beyond_the_limit_in_flight_a_receive_says_so() {
    let (stream, _hand) = stream(StreamConfig::new("s"));
    let queue = stream
        .queue(QueueConfig {
            max_in_flight: 2,
            ..config()
        })
        .unwrap();
    put_all(&stream, 0..3);
    let got = take(&queue, 10);
    assert_eq!(got.len(), 2);
    let over = TryReceiveError::OverLimit { limit: 2 };
    assert_eq!(queue.try_receive(Receive::default()).unwrap_err(), over);
    let error = block_on(queue.receive(Receive::default())).unwrap_err();
    assert_eq!(error, ReceiveError::OverLimit { limit: 2 });
    queue.acknowledge(&got[0]).unwrap();
    assert_eq!(values(&take(&queue, 10)), [2]);
}

#[test]
fn an_update_holds_from_the_next_receive_on() {
    let (stream, queue, hand) = bed();
    put_all(&stream, 0..2);
    take(&queue, 1);
    queue
        .update(QueueUpdate {
            visibility_timeout: Some(secs(5)),
            dead_letters: Some(DeadLetters::BuiltIn { max_receives: 1 }),
        })
        .unwrap();
    assert_eq!(take(&queue, 1)[0].leased_until(), Instant::ORIGIN + secs(5));
    hand.advance(secs(29));
    assert_eq!(
        (queue.stats().in_flight, queue.stats().visible_dead_letters),
        (1, 1)
    );
    hand.advance(secs(1));
    assert_eq!(queue.stats().visible_dead_letters, 2);
    let described = queue.describe();
    assert_eq!(described.visibility_timeout, secs(5));
    assert_eq!(
        described.dead_letters,
        DeadLetters::BuiltIn { max_receives: 1 }
    );
    assert_eq!(
        (described.name.as_str(), described.stream.as_str()),
        ("tasks", "s")
    );
    assert_eq!(described.created, START);

    let bad = QueueUpdate {
        visibility_timeout: Some(secs(6)),
        dead_letters: Some(DeadLetters::BuiltIn { max_receives: 0 }),
    };
    let error = queue.update(bad).unwrap_err();
    assert!(matches!(
        error,
        ConfigError::Count {
            field: "dead_letters.max_receives",
            ..
        }
    ));
    assert_eq!(queue.describe(), described);
    queue
        .update(QueueUpdate {
            dead_letters: Some(DeadLetters::None),
            ..QueueUpdate::default()
        })
        .unwrap();
    assert_eq!(queue.describe().visibility_timeout, secs(5));
}

// ---- dead letters --------------------------------------------------------------------------------------

#[test]
fn a_record_becomes_a_dead_letter_after_its_receives_and_can_be_restored() {
    let (stream, queue, hand) = bed();
    put_all(&stream, 0..2);
    for receives in 1..=3 {
        let got = take(&queue, 10);
        assert!(got.iter().all(|record| record.receive_count() == receives));
        assert_eq!(got.len(), 2);
        hand.advance(secs(30));
    }
    assert!(take(&queue, 10).is_empty());
    let dead = take_dead(&queue, 10);
    assert_eq!(values(&dead), [0, 1]);
    assert_eq!((dead[0].partition_key(), dead[0].receive_count()), ("k", 3));
    // Leased now: nobody else gets them.
    assert!(take_dead(&queue, 10).is_empty());
    assert_eq!(queue.acknowledge(&dead[0]), Err(Stale));
    assert_eq!(queue.acknowledge_dead_letters(&dead[..1]), [Ok(())]);
    assert_eq!(queue.restore_dead_letters(&dead), [Err(Stale), Ok(())]);
    assert_eq!(queue.restore_dead_letters(&dead[1..]), [Err(Stale)]);
    let back = take(&queue, 10);
    assert_eq!((values(&back), back[0].receive_count()), (vec![1], 1));
    queue.acknowledge(&back[0]).unwrap();
    let stats = queue.stats();
    assert_eq!(stats.buried, 2);
    assert_eq!((stats.received, stats.received_dead_letters), (7, 2));
    assert_eq!(
        (stats.acknowledged_dead_letters, stats.restored_dead_letters),
        (1, 1)
    );
    reconcile(&queue, 2);
}

#[test]
fn dead_letters_have_a_visibility_of_their_own() {
    let (stream, queue, hand) = bed();
    put_all(&stream, 0..2);
    kill(&queue, &hand);
    let dead = take_dead(&queue, 10);
    let changes = [(&dead[0], secs(5)), (&dead[1], secs(0))];
    assert_eq!(
        queue.change_dead_letter_visibility(changes),
        [Ok(()), Ok(())]
    );
    assert_eq!(values(&take_dead(&queue, 10)), [1]);
    hand.advance(secs(5));
    assert_eq!(values(&take_dead(&queue, 10)), [0]);
    let stale = queue.change_dead_letter_visibility([(&dead[0], secs(1))]);
    assert_eq!(stale, [Err(VisibilityError::Stale(Stale))]);
    let ask = Receive {
        max: 10,
        visibility_timeout: Some(secs(100)),
    };
    hand.advance(secs(30));
    let dead = queue.try_receive_dead_letters(ask).unwrap();
    hand.advance(secs(99));
    assert!(take_dead(&queue, 10).is_empty());
    assert_eq!(queue.restore_dead_letters(&dead), [Ok(()), Ok(())]);
}

#[test]
fn all_dead_letters_that_nobody_holds_are_restored_at_once() {
    let (stream, queue, hand) = bed();
    put_all(&stream, 0..5);
    kill(&queue, &hand);
    let held = take_dead(&queue, 1);
    assert_eq!(queue.restore_all_dead_letters(), 4);
    let back = take(&queue, 10);
    assert_eq!(values(&back), [1, 2, 3, 4]);
    assert!(back.iter().all(|record| record.receive_count() == 1));
    assert_eq!(queue.restore_dead_letters(&held), [Ok(())]);
    assert_eq!(queue.stats().visible_dead_letters, 0);
    reconcile(&queue, 5);
}

#[test]
fn without_dead_letters_a_record_comes_back_for_ever() {
    let (stream, hand) = stream(StreamConfig::new("s"));
    let queue = stream
        .queue(QueueConfig {
            dead_letters: DeadLetters::None,
            ..config()
        })
        .unwrap();
    put(&stream, 0);
    for receives in 1..=50 {
        assert_eq!(take(&queue, 1)[0].receive_count(), receives);
        hand.advance(secs(30));
    }
    assert_eq!(queue.stats().visible_dead_letters, 0);
}

// ---- retention -----------------------------------------------------------------------------------------

/// A stream that keeps records for 100 seconds.
fn short() -> (Stream<u32>, StreamQueue<u32>, VirtualClock) {
    let mut config_of_stream = small(1);
    config_of_stream.retention = secs(100);
    let (stream, hand) = stream(config_of_stream);
    let queue = stream.queue(config()).unwrap();
    (stream, queue, hand)
}

#[test]
fn what_retention_takes_is_counted_by_what_it_was() {
    let (stream, queue, hand) = short();
    put_all(&stream, 0..10);
    // Two dead at 90 s, one returned, one in flight, the others unread.
    for _ in 0..3 {
        assert_eq!(take(&queue, 2).len(), 2);
        hand.advance(secs(30));
    }
    let ask = |visibility| Receive {
        max: 1,
        visibility_timeout: Some(secs(visibility)),
    };
    let returned = queue.try_receive(ask(1)).unwrap();
    let in_flight = queue.try_receive(ask(60)).unwrap();
    hand.advance(secs(5));
    assert_eq!((values(&returned), values(&in_flight)), (vec![2], vec![3]));
    let stats = queue.stats();
    assert_eq!(
        (stats.visible_dead_letters, stats.in_flight, stats.visible),
        (2, 1, 7)
    );
    hand.advance(secs(10));
    put(&stream, 10);

    assert_eq!(values(&take(&queue, 100)), [10]);
    assert!(take_dead(&queue, 10).is_empty());
    // It was in flight all the time: its holder can read and acknowledge it.
    assert_eq!(*in_flight[0].value(), 3);
    assert_eq!(queue.acknowledge(&in_flight[0]), Ok(()));
    let lost = queue.stats().lost;
    assert_eq!((lost.unread, lost.returned, lost.dead_letters), (6, 1, 2));
    assert_eq!(lost.total(), 9);
    reconcile(&queue, 11);
}

#[test]
fn a_record_in_flight_is_lost_when_it_comes_back_too_late() {
    let (stream, queue, hand) = short();
    put_all(&stream, 0..2);
    hand.advance(secs(90));
    let got = take(&queue, 10);
    hand.advance(secs(30));
    assert!(take(&queue, 10).is_empty());
    assert_eq!(values(&got), [0, 1]);
    assert_eq!(queue.acknowledge(&got[0]), Err(Stale));
    assert_eq!(queue.stats().lost.returned, 2);
    reconcile(&queue, 2);
}

#[test]
fn a_dead_letter_that_was_trimmed_is_lost_also_when_it_is_restored() {
    let (stream, queue, hand) = short();
    put_all(&stream, 0..2);
    kill(&queue, &hand);
    let dead = take_dead(&queue, 1);
    hand.advance(secs(20));
    // One swept, one held.
    assert_eq!(queue.stats().lost.dead_letters, 1);
    assert_eq!(queue.restore_dead_letters(&dead), [Ok(())]);
    assert!(take(&queue, 10).is_empty());
    assert_eq!(queue.stats().lost.returned, 1);
    reconcile(&queue, 2);
}

#[test]
fn no_record_is_delivered_from_the_instant_on_at_which_its_time_is_over() {
    let (stream, unread, hand) = short();
    let returned = stream.queue(config()).unwrap();
    put(&stream, 0);
    hand.advance(Duration::from_micros(500));
    put(&stream, 1);
    hand.advance(secs(99));
    let ask = Receive {
        max: 10,
        visibility_timeout: Some(Duration::from_millis(1)),
    };
    assert_eq!(returned.try_receive(ask).unwrap().len(), 2);
    hand.advance(secs(1) - Duration::from_micros(500));
    // The shard is looked through, and not again within a millisecond.
    assert_eq!(unread.stats().visible, 1);
    hand.advance(Duration::from_micros(600));
    assert_eq!(unread.stats().visible, 0);
    assert!(take(&unread, 10).is_empty());
    assert!(take(&returned, 10).is_empty());
    let lost = unread.stats().lost;
    assert_eq!((lost.unread, lost.total()), (2, 2));
    let lost = returned.stats().lost;
    assert_eq!((lost.returned, lost.total()), (2, 2));
}

#[test]
fn one_call_of_a_queue_trims_a_few_chunks_at_most() {
    for call in [
        |queue: &StreamQueue<Arc<()>>| assert!(queue.try_receive(Receive::default()).is_err()),
        |queue: &StreamQueue<Arc<()>>| assert_eq!(queue.stats().visible, 0),
        |queue: &StreamQueue<Arc<()>>| assert_eq!(queue.restore_all_dead_letters(), 0),
    ] {
        let (stream, hand) = stream_of(small(1));
        let queue = stream.queue(config()).unwrap();
        let value = Arc::new(());
        for _ in 0..5_000 {
            let record = Record::new(key("k"), Arc::clone(&value));
            stream.try_put(record).unwrap();
        }
        hand.advance(secs(24 * 3_600));
        call(&queue);
        let left = Arc::strong_count(&value);
        assert!((4_000..5_001).contains(&left), "{left} are left");
        let error = queue.try_receive(asked()).unwrap_err();
        assert_eq!(error, TryReceiveError::Empty);
        assert_eq!(queue.stats().lost.unread, 5_000);
    }
}

#[test]
fn records_that_are_held_do_not_keep_the_log() {
    let mut small = small(1);
    small.max_records = Some(200);
    let (stream, _hand) = stream(small);
    let queue = stream
        .queue(QueueConfig {
            dead_letters: DeadLetters::None,
            ..config()
        })
        .unwrap();
    put(&stream, 0);
    // In flight for hours, and nobody holds it.
    let ask = Receive {
        max: 1,
        visibility_timeout: Some(secs(36_000)),
    };
    drop(queue.try_receive(ask).unwrap());
    let held = |stream: &Stream<u32>| stream.stats().held_bytes;
    put_all(&stream, 0..2_000);
    let before = held(&stream);
    put_all(&stream, 0..20_000);
    assert!(
        held(&stream) <= before * 2,
        "{} after {before}",
        held(&stream)
    );
    assert_eq!(queue.stats().in_flight, 1);
}

// ---- resharding ----------------------------------------------------------------------------------------

#[test]
fn a_queue_follows_splits_and_merges_and_reads_parents_first() {
    let (stream, queue, _hand) = bed();
    let keyed = |value: u32| of(format!("key {value}"), value);
    let mut value = 0;
    let mut put_some = || {
        for _ in 0..20 {
            stream.try_put(keyed(value)).unwrap();
            value += 1;
        }
    };
    put_some();
    let children = stream.split_evenly(FIRST).unwrap();
    put_some();
    let grandchild = stream.merge(children[0], children[1]).unwrap();
    put_some();
    assert_eq!(queue.stats().visible, 60);
    let mut generations = Vec::new();
    let mut seen = BTreeSet::new();
    loop {
        let got = take(&queue, 7);
        if got.is_empty() {
            break;
        }
        for record in &got {
            assert!(seen.insert(*record.value()));
            generations.push(match record.shard_id() {
                FIRST => 0,
                shard if shard == grandchild => 2,
                _ => 1,
            });
        }
        assert!(queue.acknowledge_batch(&got).iter().all(Result::is_ok));
    }
    assert_eq!(seen.len(), 60);
    assert!(generations.is_sorted(), "{generations:?}");
    // It waits for more there.
    put_some();
    assert_eq!(take(&queue, 100).len(), 20);
    reconcile(&queue, 80);
}

#[test]
fn records_of_a_closed_shard_come_back_too() {
    let (stream, queue, hand) = bed();
    put_all(&stream, 0..3);
    let got = take(&queue, 10);
    stream.split_evenly(FIRST).unwrap();
    put(&stream, 3);
    assert_eq!(values(&take(&queue, 10)), [3]);
    queue.acknowledge(&got[1]).unwrap();
    hand.advance(secs(30));
    let back: BTreeSet<u32> = values(&take(&queue, 10)).into_iter().collect();
    assert_eq!(back, BTreeSet::from([0, 2, 3]));
}

#[test]
fn a_shard_that_has_expired_takes_its_records_along() {
    let (stream, queue, hand) = short();
    put_all(&stream, 0..3);
    let got = take(&queue, 2);
    stream.split_evenly(FIRST).unwrap();
    put(&stream, 3);
    hand.advance(secs(1_000));
    stream.advance();
    assert!(stream.shards().iter().all(|shard| shard.id != FIRST));
    put(&stream, 4);
    assert_eq!(values(&take(&queue, 10)), [4]);
    assert_eq!(queue.acknowledge(&got[0]), Err(Stale));
    let lost = queue.stats().lost;
    assert_eq!((lost.returned, lost.unread), (2, 2));
    reconcile(&queue, 5);
}

#[test]
fn a_queue_that_begins_at_the_end_begins_in_all_shards() {
    let (stream, _hand) = stream(StreamConfig::new("s").shards(2));
    stream.try_put(of("a", 0)).unwrap();
    let [low, _high] = stream.split_evenly(ShardId::new(0)).unwrap();
    let queue = stream.queue(QueueConfig::new("tasks")).unwrap();
    let record = |hash: u128, value| of("k", value).explicit_hash_key(HashKey::from_u128(hash));
    let placed = stream.try_put(record(0, 1)).unwrap();
    assert_eq!(placed.shard_id, low);
    stream.try_put(record(u128::MAX, 2)).unwrap();
    let seen: BTreeSet<u32> = values(&take(&queue, 10)).into_iter().collect();
    assert_eq!(seen, BTreeSet::from([1, 2]));
    reconcile(&queue, 2);
}

// ---- waiting -------------------------------------------------------------------------------------------

fn asked() -> Receive {
    Receive::default()
}

#[test]
fn a_long_poll_takes_what_arrives() {
    let (stream, queue, hand) = bed();
    let deadline = Instant::ORIGIN + secs(20);
    let mut consumer = Task::waiting(queue.receive_until(asked(), deadline));
    hand.advance(secs(19));
    assert!(consumer.run().is_none());
    put(&stream, 7);
    assert_eq!(values(&consumer.run().unwrap().unwrap()), [7]);
    assert_eq!(queue.stats().empty_receives, 0);
}

#[test]
fn a_long_poll_ends_at_its_deadline_and_counts_as_one_empty_receive() {
    let (_stream, queue, hand) = bed();
    let deadline = Instant::ORIGIN + secs(20);
    let mut consumer = Task::waiting(queue.receive_until(asked(), deadline));
    hand.advance(secs(20) - Duration::from_nanos(1));
    assert!(consumer.run().is_none());
    hand.advance(Duration::from_nanos(1));
    assert_eq!(consumer.run().unwrap().unwrap_err(), ReceiveError::Elapsed);
    assert_eq!(queue.stats().empty_receives, 1);
    assert_eq!(hand.sleeping(), 0);
    queue.try_receive(asked()).unwrap_err();
    assert_eq!(queue.stats().empty_receives, 2);
}

#[test]
fn one_record_wakes_one_consumer_of_each_queue() {
    let (stream, queue, _hand) = bed();
    let other = stream.queue(config()).unwrap();
    let mut consumers: Vec<_> = (0..3)
        .map(|_| Task::waiting(queue.receive(asked())))
        .collect();
    let mut elsewhere = Task::waiting(other.receive(asked()));
    put(&stream, 7);
    let woken = consumers.iter().filter(|task| task.is_woken()).count();
    assert_eq!(woken, 1);
    assert_eq!(values(&consumers[0].run().unwrap().unwrap()), [7]);
    assert_eq!(values(&elsewhere.run().unwrap().unwrap()), [7]);
    assert!(consumers[1].run().is_none() && consumers[2].run().is_none());
}

#[test]
fn more_than_one_consumer_can_take_wakes_the_next() {
    let (stream, queue, _hand) = bed();
    let one = Receive::up_to(1);
    let mut consumers: Vec<_> = (0..3).map(|_| Task::waiting(queue.receive(one))).collect();
    put_all(&stream, 0..3);
    for (value, consumer) in consumers.iter_mut().enumerate() {
        assert_eq!(values(&consumer.run().unwrap().unwrap()), [value as u32]);
    }
}

#[test]
fn a_batch_that_the_limit_in_flight_cuts_short_leaves_nobody_asleep() {
    let (stream, hand) = stream(StreamConfig::new("s"));
    let queue = stream
        .queue(QueueConfig {
            max_in_flight: 10,
            ..config()
        })
        .unwrap();
    put(&stream, 0);
    let leased = take(&queue, 1);
    let twenty = Receive::up_to(20);
    let mut consumers: Vec<_> = (0..3)
        .map(|_| Task::waiting(queue.receive(twenty)))
        .collect();
    stream.try_put_batch((1..21).map(|n| of("k", n))).unwrap();
    let got = consumers[0].run().unwrap().unwrap();
    assert_eq!(values(&got), (1..10).collect::<Vec<_>>());
    // The others are told at once, as one that comes now is, and not when a lease ends.
    for consumer in &mut consumers[1..] {
        let error = consumer.run().unwrap().unwrap_err();
        assert_eq!(error, ReceiveError::OverLimit { limit: 10 });
    }
    assert_eq!(hand.sleeping(), 0);
    queue.acknowledge(&leased[0]).unwrap();
    assert_eq!(values(&take(&queue, 20)), [10]);
}

#[test]
fn one_wake_up_for_many_records_is_passed_on_by_who_gets_fewer_than_it_asked_for() {
    let (stream, queue, _hand) = bed();
    let limited = stream
        .queue(QueueConfig {
            max_in_flight: 2,
            ..config()
        })
        .unwrap();
    let mut first = Task::waiting(limited.receive(Receive::up_to(20)));
    let mut second = Task::waiting(limited.receive(Receive::up_to(20)));
    stream.try_put_batch((0..4).map(|n| of("k", n))).unwrap();
    let got = first.run().unwrap().unwrap();
    assert_eq!(values(&got), [0, 1]);
    for record in &got {
        limited.acknowledge(record).unwrap();
    }
    // There is room again before the second one looks.
    assert_eq!(values(&second.run().unwrap().unwrap()), [2, 3]);
    assert_eq!(take(&queue, 20).len(), 4);
}

#[test]
fn a_consumer_that_is_dropped_after_its_wake_up_wakes_another() {
    let (stream, queue, _hand) = bed();
    let first = Task::waiting(queue.receive(asked()));
    let mut second = Task::waiting(queue.receive(asked()));
    put(&stream, 7);
    assert!(first.is_woken());
    drop(first);
    assert_eq!(values(&second.run().unwrap().unwrap()), [7]);
}

#[test]
fn the_end_of_a_lease_wakes_a_waiting_consumer() {
    let (stream, queue, hand) = bed();
    put(&stream, 7);
    take(&queue, 1);
    let mut consumer = Task::waiting(queue.receive(asked()));
    hand.advance(secs(29));
    assert!(consumer.run().is_none());
    hand.advance(secs(1));
    assert_eq!(consumer.run().unwrap().unwrap()[0].receive_count(), 2);
}

#[test]
fn a_lease_that_begins_or_is_shortened_while_somebody_waits_wakes_him_in_time() {
    let (stream, queue, hand) = bed();
    let other = stream.queue(config()).unwrap();
    let mut consumer = Task::waiting(queue.receive(asked()));
    // One that waits for another queue's deadlines does not keep this queue's time.
    let mut elsewhere = Task::waiting(other.receive_until(asked(), Instant::ORIGIN + secs(3_600)));
    put(&stream, 7);
    assert!(elsewhere.run().is_some());
    let got = take(&queue, 1);
    assert!(consumer.run().is_none());
    queue.change_visibility(&got[0], secs(3)).unwrap();
    assert!(consumer.run().is_none());
    hand.advance(secs(3));
    assert_eq!(consumer.run().unwrap().unwrap()[0].receive_count(), 2);
}

#[test]
fn a_release_and_a_restoration_wake_a_waiting_consumer() {
    let (stream, queue, hand) = bed();
    put(&stream, 7);
    let got = take(&queue, 1);
    let mut consumer = Task::waiting(queue.receive(asked()));
    queue.release(&got[0], secs(0)).unwrap();
    assert_eq!(values(&consumer.run().unwrap().unwrap()), [7]);
    hand.advance(secs(30));
    kill(&queue, &hand);
    let dead = take_dead(&queue, 1);
    let mut consumer = Task::waiting(queue.receive(asked()));
    assert_eq!(queue.restore_dead_letters(&dead), [Ok(())]);
    assert_eq!(values(&consumer.run().unwrap().unwrap()), [7]);
}

#[test]
fn a_death_wakes_who_waits_for_dead_letters() {
    let (stream, queue, hand) = bed();
    let mut watcher = Task::waiting(queue.receive_dead_letters(asked(), Instant::NEVER));
    put(&stream, 7);
    for _ in 0..2 {
        assert_eq!(take(&queue, 1).len(), 1);
        hand.advance(secs(30));
        assert!(watcher.run().is_none());
    }
    assert_eq!(take(&queue, 1).len(), 1);
    assert!(watcher.run().is_none());
    // Nobody calls in but the watcher himself, who keeps the time.
    hand.advance(secs(30));
    assert_eq!(values(&watcher.run().unwrap().unwrap()), [7]);
    let deadline = Instant::ORIGIN + secs(200);
    let mut watcher = Task::waiting(queue.receive_dead_letters(asked(), deadline));
    hand.advance(secs(30));
    assert_eq!(values(&watcher.run().unwrap().unwrap()), [7]);
}

#[test]
fn a_death_by_release_wakes_who_waits_for_dead_letters() {
    let (stream, queue, hand) = bed();
    put(&stream, 7);
    let mut watcher = Task::waiting(queue.receive_dead_letters(asked(), Instant::NEVER));
    for _ in 0..3 {
        let got = take(&queue, 1);
        // It notes when the lease would end, and sleeps on.
        assert!(watcher.run().is_none());
        queue.release(&got[0], secs(0)).unwrap();
    }
    // Its time has not moved.
    assert_eq!(values(&watcher.run().unwrap().unwrap()), [7]);
    assert_eq!(stream.clock().now(), Instant::ORIGIN);
    let dead = queue.stats().in_flight_dead_letters;
    assert_eq!((dead, hand.sleeping()), (1, 0));
}

#[test]
fn a_new_shard_wakes_a_waiting_consumer_with_its_first_record() {
    let (stream, queue, _hand) = bed();
    let mut consumer = Task::waiting(queue.receive(asked()));
    stream.split_evenly(FIRST).unwrap();
    assert!(consumer.run().is_none());
    put(&stream, 7);
    assert_eq!(values(&consumer.run().unwrap().unwrap()), [7]);
}

#[test]
fn blocked_threads_are_woken_by_records_and_by_time() {
    let (stream, queue, hand) = bed();
    let queue = &queue;
    std::thread::scope(|scope| {
        let consumer = scope.spawn(|| queue.receive_blocking(asked()));
        put(&stream, 7);
        assert_eq!(values(&consumer.join().unwrap().unwrap()), [7]);

        let consumer = scope.spawn(|| queue.receive_blocking(asked()));
        until_asleep(&hand, 1);
        hand.advance(secs(30));
        assert_eq!(consumer.join().unwrap().unwrap()[0].receive_count(), 2);

        let deadline = Instant::ORIGIN + secs(31);
        let consumer = scope.spawn(move || queue.receive_blocking_until(asked(), deadline));
        until_asleep(&hand, 1);
        hand.advance(secs(1));
        let outcome = consumer.join().unwrap();
        assert_eq!(outcome.unwrap_err(), ReceiveError::Elapsed);
        let passed = queue.receive_dead_letters_blocking(asked(), deadline);
        assert_eq!(passed.unwrap_err(), ReceiveError::Elapsed);
    });
}

// ---- ends ----------------------------------------------------------------------------------------------

#[test]
fn a_closed_stream_is_delivered_to_its_end() {
    let (stream, queue, hand) = bed();
    put_all(&stream, 0..2);
    stream.close();
    let got = take(&queue, 1);
    assert_eq!(take(&queue, 10).len(), 1);
    // Two in flight may come back.
    let mut consumers: Vec<_> = (0..2)
        .map(|_| Task::waiting(queue.receive(asked())))
        .collect();
    queue.acknowledge(&got[0]).unwrap();
    hand.advance(secs(30));
    let back = consumers[0].run().unwrap().unwrap();
    assert_eq!(values(&back), [1]);
    queue.acknowledge(&back[0]).unwrap();
    let closed = queue.try_receive(asked()).unwrap_err();
    assert_eq!(closed, TryReceiveError::Closed);
}

#[test]
fn closing_the_stream_tells_all_who_wait() {
    let (stream, queue, _hand) = bed();
    let mut consumers: Vec<_> = (0..3)
        .map(|_| Task::waiting(queue.receive(asked())))
        .collect();
    stream.close();
    for consumer in &mut consumers {
        assert_eq!(consumer.run().unwrap().unwrap_err(), ReceiveError::Closed);
    }
}

#[test]
fn the_last_acknowledgement_on_a_closed_stream_tells_all_who_wait() {
    let (stream, queue, _hand) = bed();
    put(&stream, 7);
    let got = take(&queue, 1);
    stream.close();
    let mut consumers: Vec<_> = (0..2)
        .map(|_| Task::waiting(queue.receive(asked())))
        .collect();
    queue.acknowledge(&got[0]).unwrap();
    for consumer in &mut consumers {
        assert_eq!(consumer.run().unwrap().unwrap_err(), ReceiveError::Closed);
    }
}

#[test]
fn a_closed_queue_delivers_nothing_and_the_stream_goes_on() {
    let (stream, queue, _hand) = bed();
    let other = stream.queue(config()).unwrap();
    put_all(&stream, 0..2);
    let got = take(&queue, 1);
    let mut watcher = Task::waiting(queue.receive_dead_letters(asked(), Instant::NEVER));
    queue.close();
    queue.close();
    assert_eq!(watcher.run().unwrap().unwrap_err(), ReceiveError::Closed);
    assert_eq!(queue.acknowledge(&got[0]), Err(Stale));
    let closed = queue.try_receive(asked()).unwrap_err();
    assert_eq!(closed, TryReceiveError::Closed);
    assert!(queue.describe().is_closed);
    assert_eq!((queue.stats().visible, queue.stats().received), (0, 1));
    put(&stream, 2);
    assert_eq!(values(&take(&other, 10)), [0, 1, 2]);
}

#[test]
fn a_queue_that_was_dropped_is_no_longer_told() {
    let (stream, queue, _hand) = bed();
    let clone = queue.clone();
    drop(queue);
    put(&stream, 0);
    assert_eq!(values(&take(&clone, 10)), [0]);
    drop(clone);
    // Nobody is there to be told, and the stream does not mind.
    put(&stream, 1);
    assert_eq!(stream.stats().incoming_records, 2);
}

#[cfg(feature = "serde")]
#[test]
fn a_configuration_is_read_from_json_with_defaults_and_without_unknown_fields() {
    let text =
        r#"{"name":"tasks","start":"TrimHorizon","dead_letters":{"BuiltIn":{"max_receives":2}}}"#;
    let read: QueueConfig = serde_json::from_str(text).unwrap();
    let expected = QueueConfig {
        start: QueueStart::TrimHorizon,
        dead_letters: DeadLetters::BuiltIn { max_receives: 2 },
        ..QueueConfig::new("tasks")
    };
    assert_eq!(read, expected);
    let text = serde_json::to_string(&expected).unwrap();
    assert_eq!(
        serde_json::from_str::<QueueConfig>(&text).unwrap(),
        expected
    );
    assert!(serde_json::from_str::<QueueConfig>(r#"{"retries":3}"#).is_err());
}

// ---- seams ---------------------------------------------------------------------------------------------

#[test]
fn a_queue_is_a_source_a_gauge_and_timed() {
    let (stream, queue, hand) = bed();
    put_all(&stream, 0..4);
    hand.advance(secs(2));
    let source: &dyn Source<QueueRecord<u32>> = &queue;
    let record = source.try_take().unwrap();
    assert_eq!(*record.value(), 0);
    let delayed = source.try_take().unwrap();
    queue.release(&delayed, secs(50)).unwrap();
    let gauge: &dyn Gauge = &queue;
    let depth = gauge.depth();
    assert_eq!((depth.waiting, depth.in_flight, depth.delayed), (2, 1, 1));
    assert_eq!(depth.oldest_age, Some(secs(2)));
    let timed: &dyn Timed = &queue;
    assert_eq!(timed.next_deadline(), Some(Instant::ORIGIN + secs(32)));
    timed.advance(Instant::ORIGIN + secs(32));
    assert_eq!(timed.next_deadline(), Some(Instant::ORIGIN + secs(52)));
    assert_eq!(gauge.depth().waiting, 3);
    assert!(source.try_take().is_some());
}

#[test]
fn handles_go_from_thread_to_thread() {
    fn all<T: Send + Sync + Unpin>() {}
    all::<StreamQueue<u32>>();
    all::<QueueRecord<u32>>();
    all::<Receipt>();
    fn send<T: Send>(_: T) {}
    let (_stream, queue, _hand) = bed();
    send(queue.receive(asked()));
    send(queue.receive_dead_letters(asked(), Instant::NEVER));
}

#[test]
fn the_defaults_are_those_of_kinesis() {
    let config = QueueConfig::aws("tasks");
    assert_eq!(config.start, QueueStart::Latest);
    assert_eq!(config.visibility_timeout, secs(30));
    assert_eq!(
        config.dead_letters,
        DeadLetters::BuiltIn { max_receives: 6 }
    );
    assert_eq!(config.max_in_flight, 120_000);
    let visibility = secs(43_200);
    assert_eq!(
        config.limits,
        QueueLimits {
            visibility,
            batch: 10
        }
    );
    assert_eq!(Receive::default().max, 10);
    assert_eq!(QueueStats::default().lost, LostRecords::default());
    let _: (Timestamp, PartitionKey) = (START, key("k"));
}
