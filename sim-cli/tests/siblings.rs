//! The siblings together, as a program that uses several of them puts them together: they know nothing of each other
//! and meet at the seams of sim-core.

use std::sync::Arc;
use std::time::Duration;

use sim_core::attributes::{Attributes, Value};
use sim_core::clock::{Clock, VirtualClock};
use sim_core::payload::Payload;
use sim_core::seam::{Gauge, Sink};
use sim_core::time::Timestamp;
use sim_queue::{GroupId, Kind, Queue, QueueConfig};
use sim_stream::{ByteStream, PartitionKey, Read, Record, StartingPosition, Stream, StreamConfig};
use sim_topic::filter::{FilterPolicy, Scope};
use sim_topic::{
    DeadLetter, DeliveryError, Filter, Message, Notification, RetryPolicy, Subscriber,
    SubscriptionConfig, Topic, TopicConfig,
};

fn clock() -> (Clock, VirtualClock) {
    Clock::virtual_at(Timestamp::from_unix_seconds(1_357_000_000))
}

fn policy(json: &str) -> Filter<&'static str> {
    Filter::Policy(FilterPolicy::parse(json, Scope::MessageAttributes).expect("a sound policy"))
}

fn delayed(minutes: i32) -> Attributes {
    let mut attributes = Attributes::new();
    let value = Value::number(minutes.to_string()).expect("a number");
    attributes.insert("minutes", value).expect("a sound name");
    attributes
}

#[test]
fn a_topic_fills_a_queue_a_stream_and_a_closure_by_their_filters() {
    let (clock, _) = clock();
    let topic = Topic::with_clock(TopicConfig::new("flights"), clock.clone()).unwrap();
    let late = Queue::with_clock(QueueConfig::new("late"), clock.clone()).unwrap();
    let all =
        Stream::<&str>::with_clock(StreamConfig::new("all").shards(2), clock.clone()).unwrap();
    let on_time = Arc::new(listed::Listed::default());

    let config = |name: &str, filter| SubscriptionConfig {
        filter,
        ..SubscriptionConfig::new(name)
    };
    let late_policy = policy(r#"{"minutes": [{"numeric": [">", 60]}]}"#);
    topic
        .subscribe(
            Subscriber::values(late.clone()),
            config("late", late_policy),
        )
        .unwrap();
    let by_value = |notification: &Notification<&'static str>| {
        let key = PartitionKey::new(*notification.value()).expect("not empty");
        Record::new(key, *notification.value())
    };
    topic
        .subscribe(
            Subscriber::raw(all.clone(), by_value),
            config("all", Filter::All),
        )
        .unwrap();
    let counted = Arc::clone(&on_time);
    let on_time_policy = policy(r#"{"minutes": [{"numeric": ["<=", 0]}]}"#);
    topic
        .subscribe(
            Subscriber::handler(move |notification: Notification<&'static str>| {
                counted.add(notification.value());
                async { Ok::<(), DeliveryError>(()) }
            }),
            config("on time", on_time_policy),
        )
        .unwrap();

    for (flight, minutes) in [("UA 1", -3), ("UA 2", 61), ("UA 3", 60), ("UA 4", 700)] {
        let message = Message::new(flight).attributes(delayed(minutes));
        topic.try_publish(message).unwrap();
    }
    topic.advance(clock.now()); // runs the handler

    let mut received = Vec::new();
    while let Ok(delivery) = late.try_receive() {
        received.push(*delivery);
        delivery.acknowledge().unwrap();
    }
    assert_eq!(received, ["UA 2", "UA 4"]);
    assert_eq!(on_time.all(), ["UA 1"]);
    let mut reader = all.reader(StartingPosition::TrimHorizon).unwrap();
    let mut read = Vec::new();
    while let Some(records) = reader.try_read(Read::default()).unwrap() {
        read.extend(records.iter().map(|record| *record.value()));
    }
    read.sort_unstable();
    assert_eq!(read, ["UA 1", "UA 2", "UA 3", "UA 4"]);

    let stats = topic.stats().subscriptions;
    assert_eq!((stats.delivered, stats.filtered.total()), (7, 5));
}

#[test]
fn a_full_queue_holds_its_own_group_back_and_nobody_else() {
    let (clock, time) = clock();
    let topic = Topic::with_clock(TopicConfig::fifo("orders"), clock.clone()).unwrap();
    let small = QueueConfig {
        capacity: Some(1),
        kind: Kind::fifo(),
        ..QueueConfig::new("small")
    };
    let small = Queue::<u32>::with_clock(small, clock.clone()).unwrap();
    let large = QueueConfig {
        kind: Kind::fifo(),
        ..QueueConfig::new("large")
    };
    let large = Queue::<u32>::with_clock(large, clock.clone()).unwrap();
    for queue in [&small, &large] {
        let with_group = |notification: &Notification<u32>| {
            let group = notification.group().expect("a FIFO topic has groups");
            let id = notification.value().to_string();
            sim_queue::Message::new(*notification.value())
                .group(GroupId::new(group.as_str()).expect("a group is a group"))
                .deduplication_id(sim_queue::DeduplicationId::new(id).expect("a number is an id"))
        };
        topic
            .subscribe(
                Subscriber::raw(queue.clone(), with_group),
                SubscriptionConfig {
                    retry: RetryPolicy::aws_managed(),
                    ..SubscriptionConfig::default()
                },
            )
            .unwrap();
    }
    for number in 0..20_u32 {
        let group = sim_topic::GroupId::new(["a", "b"][number as usize % 2]).unwrap();
        let id = sim_topic::DeduplicationId::new(number.to_string()).unwrap();
        topic
            .try_publish(Message::new(number).group(group).deduplication_id(id))
            .unwrap();
    }
    // The large one has everything at once.
    assert_eq!(large.stats().visible, 20);
    // The small one has one at a time, each group in its order, as it is emptied.
    let mut by_group = [Vec::new(), Vec::new()];
    for _ in 0..1_000 {
        while let Ok(delivery) = small.try_receive() {
            by_group[*delivery as usize % 2].push(*delivery);
            delivery.acknowledge().unwrap();
        }
        time.advance(Duration::from_secs(20));
        topic.advance(clock.now());
    }
    let expected = |first| (first..20).step_by(2).collect::<Vec<u32>>();
    assert_eq!(by_group, [expected(0), expected(1)]);
    let stats = topic.stats().subscriptions;
    assert_eq!(
        (stats.delivered, stats.pending, stats.dropped.total()),
        (40, 0, 0)
    );
}

#[test]
fn what_a_closed_queue_does_not_take_becomes_a_dead_letter_in_another() {
    let (clock, _) = clock();
    let topic = Topic::<Payload>::bytes(TopicConfig::new("bytes"), clock.clone()).unwrap();
    let closed = Queue::<Payload>::with_clock(QueueConfig::new("closed"), clock.clone()).unwrap();
    closed.close(sim_queue::Close::Drop);
    let dead: Queue<DeadLetter<Payload>> =
        Queue::with_clock(QueueConfig::new("dead"), clock.clone()).unwrap();
    topic
        .subscribe(
            Subscriber::values(closed),
            SubscriptionConfig {
                dead_letters: Some(Arc::new(dead.clone()) as Arc<dyn Sink<DeadLetter<Payload>>>),
                ..SubscriptionConfig::default()
            },
        )
        .unwrap();
    topic.try_publish(Payload::from("lost otherwise")).unwrap();
    topic.advance(clock.now());
    let letter = dead.try_receive().expect("the letter");
    assert_eq!(*letter.notification.value(), "lost otherwise");
    let stats = topic.stats().subscriptions;
    assert_eq!((stats.accepted, stats.redriven, stats.delivered), (1, 1, 0));
}

#[test]
fn a_queue_that_dies_of_its_letters_fills_a_stream() {
    // A queue's dead letters may go to any sink: here a log, to be looked through later.
    let (clock, time) = clock();
    let log = ByteStream::with_clock(
        StreamConfig {
            distribution: sim_stream::RecordDistribution::Auto,
            ..StreamConfig::new("letters")
        },
        clock.clone(),
    )
    .unwrap();
    struct Letters(ByteStream);
    impl Sink<sim_queue::DeadLetter<Payload>> for Letters {
        fn try_deliver(
            &self,
            letter: sim_queue::DeadLetter<Payload>,
        ) -> Result<(), sim_core::seam::Refused<sim_queue::DeadLetter<Payload>>> {
            let text = letter.message.value.clone();
            match Sink::<Payload>::try_deliver(&self.0, text) {
                Ok(()) => Ok(()),
                Err(refused) => Err(refused.map(|_| letter)),
            }
        }
    }
    let queue = Queue::<Payload>::with_clock(QueueConfig::new("work"), clock.clone()).unwrap();
    let sink = Arc::new(Letters(log.clone()));
    queue
        .set_dead_letters(sim_queue::DeadLetterPolicy::to_sink(sink, 1))
        .unwrap();
    queue.try_send(Payload::from("poison")).unwrap();
    let _receipt = queue.try_receive().unwrap().into_receipt();
    time.advance(Duration::from_secs(31));
    queue.advance();
    assert_eq!(log.depth().waiting, 1);
    let mut reader = log.reader(StartingPosition::TrimHorizon).unwrap();
    let records = reader
        .try_read(Read::default())
        .unwrap()
        .expect("one letter");
    assert_eq!(
        records.iter().next().map(|record| record.data().to_vec()),
        Some(b"poison".to_vec())
    );
}

/// A list behind a lock, for closures.
mod listed {
    use std::sync::Mutex;

    #[derive(Default)]
    pub(super) struct Listed(Mutex<Vec<&'static str>>);

    impl Listed {
        pub(super) fn add(&self, value: &'static str) {
            self.0.lock().expect("no panic under it").push(value);
        }

        pub(super) fn all(&self) -> Vec<&'static str> {
            self.0.lock().expect("no panic under it").clone()
        }
    }
}
