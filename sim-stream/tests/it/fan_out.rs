//! Enhanced fan-out: who is registered, what is pushed, when a subscription ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use proptest::prelude::*;
use sim_core::clock::VirtualClock;
use sim_core::random::Random;
use sim_stream::{
    ConsumerError, FanOutEvent, IteratorError, Read, Record, ShardId, StartingPosition, Stream,
    StreamConfig, SubscribeError, Subscription, SubscriptionError,
};

use crate::rig::{
    FIRST, START, Task, block_on, hours, key, of, oldest, put, secs, small, stream, stream_of,
    until_asleep, values,
};

const OLDEST: StartingPosition = StartingPosition::TrimHorizon;

fn consumer(shards: u32) -> (Stream<u32>, VirtualClock) {
    let (stream, hand) = stream(small(shards));
    stream.register_consumer("c").unwrap();
    (stream, hand)
}

fn subscribe(stream: &Stream<u32>, start: StartingPosition) -> Subscription<u32> {
    stream.subscribe("c", FIRST, start).unwrap()
}

fn of_event(event: &FanOutEvent<u32>) -> Vec<u32> {
    values(event.records())
}

fn drain(subscription: &mut Subscription<u32>) -> Vec<u32> {
    let mut out = Vec::new();
    while let Ok(event) = subscription.try_next() {
        out.extend(of_event(&event));
    }
    out
}

#[test]
fn a_consumer_is_registered_described_listed_and_removed() {
    let (stream, hand) = stream(small(1));
    let first = stream.register_consumer("board").unwrap();
    assert_eq!((first.name.as_str(), first.registered_at), ("board", START));
    hand.advance(secs(1));
    let second = stream.register_consumer("archive").unwrap();
    assert_eq!(second.registered_at, START + secs(1));
    assert_eq!(stream.consumers(), [second.clone(), first.clone()]);
    assert_eq!(stream.describe_consumer("board"), Ok(first.clone()));
    assert_eq!(stream.deregister_consumer("board"), Ok(first));
    assert_eq!(stream.consumers(), [second]);
    let unknown = ConsumerError::Unknown {
        name: "board".to_owned(),
    };
    assert_eq!(stream.describe_consumer("board"), Err(unknown.clone()));
    assert_eq!(stream.deregister_consumer("board"), Err(unknown));
}

#[test]
fn a_name_is_taken_once_and_must_be_one() {
    let (stream, _) = consumer(1);
    assert_eq!(
        stream.register_consumer("c"),
        Err(ConsumerError::Exists {
            name: "c".to_owned()
        })
    );
    for bad in ["", "no blanks", &"x".repeat(129)] {
        let error = stream.register_consumer(bad).unwrap_err();
        assert!(matches!(error, ConsumerError::Name(_)), "{error}");
        assert!(error.to_string().starts_with("consumer: "), "{error}");
    }
    stream.register_consumer(&"x".repeat(128)).unwrap();
}

#[test]
fn the_aws_profile_has_twenty_consumers_and_fifty_when_it_says_so() {
    for limit in [20, 50] {
        let mut config = StreamConfig::aws("s");
        if limit == 50 {
            config.limits.consumers = 50;
        }
        let (stream, _) = stream(config);
        for number in 0..limit {
            stream.register_consumer(&format!("c{number}")).unwrap();
        }
        let refused = stream.register_consumer("one-more");
        assert_eq!(refused, Err(ConsumerError::TooMany { limit }));
        stream.deregister_consumer("c7").unwrap();
        stream.register_consumer("one-more").unwrap();
    }
}

#[test]
fn a_closed_stream_registers_nobody() {
    let (stream, _) = stream(small(1));
    stream.close();
    assert_eq!(stream.register_consumer("c"), Err(ConsumerError::Closed));
}

#[test]
fn records_are_pushed_as_soon_as_they_arrive() {
    let (stream, _) = consumer(1);
    put(&stream, 1);
    let mut subscription = subscribe(&stream, StartingPosition::Latest);
    let mut task = Task::waiting(subscription.next());
    let placed = put(&stream, 2);
    assert!(task.is_woken());
    let event = task.run().unwrap().unwrap();
    assert_eq!(of_event(&event), [2]);
    assert_eq!(event.continuation(), Some(placed.sequence_number));
    assert_eq!(event.behind_latest(), Duration::ZERO);
    assert_eq!(event.child_shards(), []);
}

#[test]
fn every_consumer_gets_every_record() {
    let (stream, _) = consumer(1);
    stream.register_consumer("d").unwrap();
    let mut first = subscribe(&stream, OLDEST);
    let mut second = stream.subscribe("d", FIRST, OLDEST).unwrap();
    for value in 0..1_000 {
        put(&stream, value);
    }
    let all: Vec<_> = (0..1_000).collect();
    assert_eq!(drain(&mut first), all);
    assert_eq!(drain(&mut second), all);
}

#[test]
fn the_continuation_tells_where_to_go_on() {
    let (stream, _) = consumer(1);
    (0..10).for_each(|value| {
        put(&stream, value);
    });
    let mut subscription = subscribe(&stream, OLDEST);
    let event = subscription.try_next().unwrap();
    let count = event.records().len() as u32;
    (10..20).for_each(|value| {
        put(&stream, value);
    });
    let after = StartingPosition::AfterSequenceNumber(event.continuation().unwrap());
    let mut again = subscribe(&stream, after);
    assert_eq!(drain(&mut again), (count..20).collect::<Vec<_>>());
}

#[test]
fn the_last_event_of_a_shard_names_its_children() {
    let (stream, _) = consumer(1);
    put(&stream, 1);
    let mut subscription = subscribe(&stream, OLDEST);
    let children = stream.split_evenly(FIRST).unwrap();
    let event = subscription.try_next().unwrap();
    assert_eq!((of_event(&event), event.continuation()), (vec![1], None));
    let named: Vec<_> = event.child_shards().iter().map(|child| child.id).collect();
    assert_eq!(named, children);
    assert_eq!(
        subscription.try_next().unwrap_err(),
        SubscriptionError::Ended
    );
    assert!(block_on(subscription.next()).is_err());

    // An empty shard ends with an event too.
    let mut empty = stream.subscribe("c", children[0], OLDEST).unwrap();
    let mut task = Task::waiting(empty.next());
    stream.split_evenly(children[0]).unwrap();
    let event = task.run().unwrap().unwrap();
    assert!(event.records().is_empty() && event.child_shards().len() == 2);
}

#[test]
fn the_events_are_a_stream_that_ends_with_the_shard() {
    let (stream, _) = consumer(1);
    (0..500).for_each(|value| {
        put(&stream, value);
    });
    stream.close();
    let events: Vec<_> = block_on(subscribe(&stream, OLDEST).collect());
    let all: Vec<_> = events
        .into_iter()
        .flat_map(|event| of_event(&event.unwrap()))
        .collect();
    assert_eq!(all, (0..500).collect::<Vec<_>>());
}

#[test]
fn a_newer_subscription_takes_over_at_once_in_process() {
    let (stream, _) = consumer(1);
    let mut first = subscribe(&stream, OLDEST);
    let mut task = Task::waiting(first.next());
    let mut second = subscribe(&stream, OLDEST);
    assert_eq!(
        task.run().unwrap().unwrap_err(),
        SubscriptionError::TakenOver
    );
    put(&stream, 1);
    assert_eq!(drain(&mut second), [1]);
    // As a stream it says so once.
    drop(task);
    let rest: Vec<_> = block_on(first.collect());
    assert_eq!(rest.len(), 1);
    assert!(matches!(rest[0], Err(SubscriptionError::TakenOver)));
}

#[test]
fn the_aws_profile_refuses_a_second_subscription_for_five_seconds() {
    let (stream, hand) = stream(StreamConfig::aws("s"));
    stream.register_consumer("c").unwrap();
    stream.register_consumer("d").unwrap();
    let mut first = subscribe(&stream, OLDEST);
    let in_use = SubscribeError::InUse {
        shard_id: FIRST,
        retry_at: hand.now() + secs(5),
    };
    assert_eq!(stream.subscribe("c", FIRST, OLDEST).unwrap_err(), in_use);
    hand.advance(secs(5) - Duration::from_nanos(1));
    assert_eq!(stream.subscribe("c", FIRST, OLDEST).unwrap_err(), in_use);
    assert_eq!(first.try_next().unwrap_err(), SubscriptionError::Empty);
    // Another consumer is another matter.
    stream.subscribe("d", FIRST, OLDEST).unwrap();
    hand.advance(Duration::from_nanos(1));
    subscribe(&stream, OLDEST);
    assert_eq!(first.try_next().unwrap_err(), SubscriptionError::TakenOver);
    let stats = stream.stats().fan_out;
    assert_eq!((stats.subscriptions, stats.rate_exceeded), (3, 2));
}

#[test]
fn the_aws_profile_takes_one_call_a_second() {
    let (stream, hand) = stream(StreamConfig::aws("s"));
    stream.register_consumer("c").unwrap();
    let future = StartingPosition::AtTimestamp(START + hours(1));
    let error = stream.subscribe("c", FIRST, future).unwrap_err();
    assert!(matches!(
        error,
        SubscribeError::Position(IteratorError::FutureTimestamp { .. })
    ));
    assert_eq!(
        stream.subscribe("c", FIRST, OLDEST).unwrap_err(),
        SubscribeError::TooOften {
            shard_id: FIRST,
            retry_at: hand.now() + secs(1),
        }
    );
    hand.advance(secs(1));
    subscribe(&stream, OLDEST);
}

#[test]
fn a_subscription_ends_after_five_minutes_in_the_aws_profile() {
    let (stream, hand) = stream(StreamConfig::aws("s"));
    stream.register_consumer("c").unwrap();
    let mut subscription = subscribe(&stream, OLDEST);
    assert_eq!(subscription.expires_at(), hand.now() + secs(300));
    let placed = put(&stream, 1);
    let event = subscription.try_next().unwrap();
    let mut task = Task::waiting(subscription.next());
    hand.advance(secs(300) - Duration::from_nanos(1));
    assert!(task.run().is_none());
    hand.advance(Duration::from_nanos(1));
    assert_eq!(task.run().unwrap().unwrap_err(), SubscriptionError::Expired);
    drop(task);
    assert!(block_on(subscription.collect::<Vec<_>>()).is_empty());
    put(&stream, 2);
    assert_eq!(event.continuation(), Some(placed.sequence_number));
    let after = StartingPosition::AfterSequenceNumber(placed.sequence_number);
    assert_eq!(drain(&mut subscribe(&stream, after)), [2]);
}

#[test]
fn subscriptions_end_when_their_consumer_is_removed() {
    let (stream, _) = consumer(1);
    let mut subscription = subscribe(&stream, OLDEST);
    let mut task = Task::waiting(subscription.next());
    stream.deregister_consumer("c").unwrap();
    assert_eq!(
        task.run().unwrap().unwrap_err(),
        SubscriptionError::Deregistered
    );
    // One of the same name is another consumer.
    drop(task);
    stream.register_consumer("c").unwrap();
    assert_eq!(
        subscription.try_next().unwrap_err(),
        SubscriptionError::Deregistered
    );
}

#[test]
fn bad_subscriptions_are_refused_by_name() {
    let (stream, _) = consumer(1);
    let unknown = SubscribeError::Unknown {
        name: "nobody".to_owned(),
    };
    assert_eq!(
        stream.subscribe("nobody", FIRST, OLDEST).unwrap_err(),
        unknown
    );
    let shard_id = ShardId::new(7);
    assert_eq!(
        stream.subscribe("c", shard_id, OLDEST).unwrap_err(),
        IteratorError::UnknownShard { shard_id }.into()
    );
    let placed = put(&stream, 1).sequence_number;
    let beyond = StartingPosition::AfterSequenceNumber(sim_stream::SequenceNumber::new(
        FIRST,
        placed.salt(),
        placed.position() + 1,
    ));
    assert!(matches!(
        stream.subscribe("c", FIRST, beyond).unwrap_err(),
        SubscribeError::Position(IteratorError::SequenceNumber(_))
    ));
}

#[test]
fn records_lost_to_retention_are_told_once() {
    let (stream, hand) = consumer(1);
    let first = put(&stream, 0).sequence_number;
    let after = StartingPosition::AfterSequenceNumber(first);
    let mut subscription = subscribe(&stream, after);
    (1..200).for_each(|value| {
        put(&stream, value);
    });
    hand.advance(hours(25));
    put(&stream, 200);
    stream.advance();
    let error = subscription.try_next().unwrap_err();
    let SubscriptionError::Trimmed {
        lost, resume_at, ..
    } = error
    else {
        panic!("{error}");
    };
    assert!(lost > 0 && resume_at.position() == lost + 1 && !error.is_final());
    let left: Vec<_> = (lost as u32 + 1..=200).collect();
    assert_eq!(drain(&mut subscription), left);
}

#[test]
fn one_push_trims_a_few_chunks_at_most_and_skips_all_that_is_over() {
    let (stream, hand) = stream_of(small(1));
    stream.register_consumer("app").unwrap();
    let value = Arc::new(());
    let put = || {
        let record = Record::new(key("k"), Arc::clone(&value));
        stream.try_put(record).unwrap();
    };
    let mut floating = stream
        .subscribe("app", FIRST, StartingPosition::TrimHorizon)
        .unwrap();
    (0..5_000).for_each(|_| put());
    hand.advance(hours(24));
    let error = floating.try_next().unwrap_err();
    assert_eq!(error, SubscriptionError::Empty);
    let left = Arc::strong_count(&value);
    assert!((4_000..5_001).contains(&left), "{left} are left");
    put();
    assert_eq!(floating.try_next().unwrap().records().len(), 1);
}

#[test]
fn no_record_is_pushed_from_the_instant_on_at_which_its_time_is_over() {
    let (stream, hand) = consumer(1);
    put(&stream, 0);
    hand.advance(Duration::from_micros(500));
    put(&stream, 1);
    let mut subscription = subscribe(&stream, StartingPosition::TrimHorizon);
    hand.advance(hours(24) - Duration::from_micros(500));
    // The shard is looked through, and not again within a millisecond.
    assert_eq!(stream.stats().records, 1);
    hand.advance(Duration::from_micros(600));
    let error = subscription.try_next().unwrap_err();
    assert_eq!(error, SubscriptionError::Empty);
}

const MIB: u64 = 1 << 20;

/// A stream of the AWS profile with `mebibytes` in it, put at the rate that is allowed.
fn filled(mebibytes: u64) -> (Stream<()>, VirtualClock) {
    let (stream, hand) = stream_of::<()>(StreamConfig::aws("s"));
    let data = vec![7; (32 << 10) - 1];
    for _ in 0..mebibytes {
        for _ in 0..32 {
            stream
                .try_put(Record::bytes(key("k"), data.clone()))
                .unwrap();
        }
        hand.advance(secs(1));
    }
    (stream, hand)
}

/// The bytes that are pushed within a time.
fn pushed(subscription: &mut Subscription<()>, hand: &VirtualClock, time: Duration) -> u64 {
    let until = hand.now() + time;
    let mut bytes = 0;
    loop {
        match subscription.try_next() {
            Ok(event) => {
                let sizes = event
                    .records()
                    .iter()
                    .map(|it| it.data().len() + it.partition_key().len());
                bytes += sizes.sum::<usize>() as u64;
            }
            Err(SubscriptionError::Empty) if hand.now() < until => {
                hand.advance(Duration::from_millis(50));
            }
            Err(SubscriptionError::Empty) => return bytes,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn each_consumer_has_two_mebibytes_a_second_of_its_own() {
    let (stream, hand) = filled(40);
    for name in ["c", "d"] {
        stream.register_consumer(name).unwrap();
        let mut subscription = stream.subscribe(name, FIRST, OLDEST).unwrap();
        // A second's share at once, and then a share each second; an event waits until all of it may pass.
        let first = pushed(&mut subscription, &hand, Duration::ZERO);
        assert!((3 * MIB / 2..=2 * MIB).contains(&first), "{first}");
        let bytes = first + pushed(&mut subscription, &hand, secs(10));
        assert!((43 * MIB / 2..=22 * MIB).contains(&bytes), "{bytes}");
    }
    // Shared readers have all of theirs.
    assert_eq!(stream.stats().reads.records, 0);
    assert!(oldest(&stream, FIRST).try_read(Read::default()).is_ok());
    assert!(stream.stats().fan_out.bytes >= 43 * MIB);
}

#[test]
fn without_limits_everything_is_pushed_at_once() {
    let (stream, _) = stream_of::<()>(StreamConfig::new("s"));
    stream.register_consumer("c").unwrap();
    let data = vec![7; 32 << 10];
    for _ in 0..1_000 {
        stream
            .try_put(Record::bytes(key("k"), data.clone()))
            .unwrap();
    }
    let mut subscription = stream.subscribe("c", FIRST, OLDEST).unwrap();
    let mut count = 0;
    while let Ok(event) = subscription.try_next() {
        count += event.records().len();
    }
    assert_eq!(count, 1_000);
}

#[test]
fn a_waiting_consumer_gets_the_rest_when_its_share_comes_back() {
    let (stream, hand) = filled(4);
    stream.register_consumer("c").unwrap();
    let mut subscription = stream.subscribe("c", FIRST, OLDEST).unwrap();
    pushed(&mut subscription, &hand, Duration::ZERO);
    let mut task = Task::waiting(subscription.next());
    let before = hand.now();
    while task.run().is_none() {
        hand.advance_to_next().unwrap();
    }
    let waited = hand.now() - before;
    assert!(waited > Duration::ZERO && waited <= secs(1), "{waited:?}");
}

#[test]
fn waiting_ends_at_the_deadline() {
    let (stream, hand) = consumer(1);
    let mut subscription = subscribe(&stream, OLDEST);
    let mut task = Task::waiting(subscription.next_until(hand.now() + secs(3)));
    hand.advance(secs(3));
    assert_eq!(task.run().unwrap().unwrap_err(), SubscriptionError::Elapsed);
    drop(task);
    let outcome = subscription.next_blocking_until(hand.now());
    assert_eq!(outcome.unwrap_err(), SubscriptionError::Elapsed);
    put(&stream, 1);
    assert_eq!(of_event(&subscription.next_blocking().unwrap()), [1]);
}

#[test]
fn a_blocked_thread_gets_what_is_pushed() {
    let (stream, hand) = consumer(1);
    let mut subscription = subscribe(&stream, OLDEST);
    let deadline = hand.now() + secs(60);
    std::thread::scope(|scope| {
        let pushed = scope.spawn(move || {
            let event = subscription.next_blocking_until(deadline).unwrap();
            of_event(&event)
        });
        until_asleep(&hand, 1);
        put(&stream, 5);
        assert_eq!(pushed.join().unwrap(), [5]);
    });
}

/// A consumer that follows the lineage, and resubscribes by chance, gets each record once and each key in order.
fn follow(seed: u64) {
    let mut random = Random::new(seed);
    let (stream, hand) = consumer(2);
    let mut live: BTreeMap<ShardId, Option<Subscription<u32>>> = stream
        .shards()
        .iter()
        .map(|shard| (shard.id, None))
        .collect();
    let mut places: BTreeMap<ShardId, StartingPosition> = BTreeMap::new();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut put: BTreeMap<String, u32> = BTreeMap::new();
    let mut ended: Vec<ShardId> = Vec::new();
    for step in 0..600 {
        let is_last = step >= 400;
        match random.below(10) {
            0..=3 if !is_last => {
                for _ in 0..random.below(20) {
                    let name = format!("key-{}", random.below(9));
                    let count = put.entry(name.clone()).or_default();
                    stream.try_put(of(&name, *count)).unwrap();
                    *count += 1;
                }
            }
            4 if !is_last && stream.shards().len() < 20 => {
                let open: Vec<_> = stream
                    .shards()
                    .into_iter()
                    .filter(|it| it.is_open())
                    .collect();
                let shard = &open[random.below(open.len() as u64) as usize];
                stream.split_evenly(shard.id).unwrap();
            }
            5 => hand.advance(secs(random.below(3))),
            6 => {
                let shards: Vec<_> = live.keys().copied().collect();
                if let Some(shard) = shards.get(random.below(20) as usize) {
                    live.insert(*shard, None);
                }
            }
            _ => {
                let shards: Vec<_> = live.keys().copied().collect();
                for shard in shards {
                    let slot = live.get_mut(&shard).unwrap();
                    let start = places.get(&shard).copied().unwrap_or(OLDEST);
                    let subscription =
                        slot.get_or_insert_with(|| stream.subscribe("c", shard, start).unwrap());
                    let Ok(event) = subscription.try_next() else {
                        continue;
                    };
                    for record in event.records() {
                        let next = seen.entry(record.partition_key().to_owned()).or_default();
                        assert_eq!(record.value(), next, "{}", record.partition_key());
                        *next += 1;
                    }
                    match event.continuation() {
                        Some(last) => {
                            places.insert(shard, StartingPosition::AfterSequenceNumber(last));
                        }
                        None => {
                            live.remove(&shard);
                            ended.push(shard);
                            for child in event.child_shards() {
                                if child.parents.iter().all(|parent| ended.contains(parent)) {
                                    live.insert(child.id, None);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    put.retain(|_, count| *count > 0);
    assert_eq!(seen, put);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_consumer_that_follows_the_shards_gets_each_record_once_in_order(seed: u64) {
        follow(seed);
    }
}
