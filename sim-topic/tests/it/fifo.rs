//! FIFO topics: order within a group, each message once.

use sim_topic::{
    DedupScope, Deduplication, DeduplicationId, FifoConfig, GroupId, Kind, Message, Refusal,
    Subscriber, SubscriptionConfig, TopicConfig,
};

use crate::rig::{Probe, Say, grouped, pass, secs, topic};

fn fifo(config: FifoConfig) -> TopicConfig {
    TopicConfig {
        kind: Kind::Fifo(config),
        ..TopicConfig::default()
    }
}

fn no_deduplication() -> TopicConfig {
    fifo(FifoConfig {
        deduplication: Deduplication::Off,
        ..FifoConfig::default()
    })
}

fn named(group: &str, id: &str, value: u64) -> Message<u64> {
    Message::new(value)
        .group(GroupId::new(group).unwrap())
        .deduplication_id(DeduplicationId::new(id).unwrap())
}

#[test]
fn a_failing_message_holds_back_its_group_on_that_subscription_only() {
    let (topic, time) = topic(no_deduplication());
    let (bad, good) = (Probe::new(), Probe::new());
    let sub = topic
        .subscribe(Subscriber::sink(bad.clone()), SubscriptionConfig::default())
        .unwrap();
    topic
        .subscribe(
            Subscriber::sink(good.clone()),
            SubscriptionConfig::default(),
        )
        .unwrap();
    bad.script(&[Say::Full]);
    for n in 1..=3 {
        topic.try_publish(grouped("a", n)).unwrap();
    }
    topic.try_publish(grouped("b", 10)).unwrap();
    assert_eq!(good.values(), [1, 2, 3, 10]);
    assert_eq!(bad.values(), [10], "the other group goes on");
    assert_eq!(sub.stats().pending, 3);
    pass(&topic, &time, secs(20));
    assert_eq!(bad.values(), [10, 1, 2, 3]);
}

#[test]
fn sequence_numbers_increase_and_are_carried_along() {
    let (topic, _) = topic(no_deduplication());
    let probe = Probe::new();
    topic
        .subscribe(
            Subscriber::sink(probe.clone()),
            SubscriptionConfig::default(),
        )
        .unwrap();
    let published: Vec<_> = (0..5)
        .map(|n| topic.try_publish(grouped("a", n)).unwrap().sequence)
        .collect();
    assert!(published.is_sorted() && published[0].is_some());
    let carried: Vec<_> = probe.take().iter().map(|n| n.sequence()).collect();
    assert_eq!(carried, published);
}

#[test]
fn a_repeated_publish_is_answered_and_not_delivered_for_five_minutes() {
    let (topic, time) = topic(fifo(FifoConfig::default()));
    let probe = Probe::new();
    topic
        .subscribe(
            Subscriber::sink(probe.clone()),
            SubscriptionConfig::default(),
        )
        .unwrap();
    let first = topic.try_publish(named("a", "x", 1)).unwrap();
    time.advance(secs(299));
    let again = topic.try_publish(named("b", "x", 2)).unwrap();
    assert!(again.duplicate && !first.duplicate);
    assert_eq!((again.id, again.sequence), (first.id, first.sequence));
    time.advance(secs(1));
    assert!(!topic.try_publish(named("a", "x", 3)).unwrap().duplicate);
    assert_eq!(probe.values(), [1, 3]);
    let stats = topic.stats();
    assert_eq!((stats.published, stats.deduplicated), (2, 1));
}

#[test]
fn the_scope_of_an_id_is_the_topic_or_the_group() {
    for (scope, count) in [(DedupScope::Topic, 1), (DedupScope::Group, 2)] {
        let (topic, _) = topic(fifo(FifoConfig {
            scope,
            ..FifoConfig::default()
        }));
        topic.try_publish(named("a", "x", 1)).unwrap();
        topic.try_publish(named("b", "x", 2)).unwrap();
        assert_eq!(topic.stats().published, count);
    }
}

#[test]
fn content_stands_for_an_id_where_the_topic_is_told() {
    let (clock, _time) = crate::rig::clock();
    let config = fifo(FifoConfig {
        deduplication: Deduplication::ByContent,
        ..FifoConfig::default()
    });
    let topic = sim_topic::Topic::bytes(config.clone(), clock).unwrap();
    let message = |body: &'static str| {
        Message::new(sim_core::payload::Payload::from(body)).group(GroupId::new("a").unwrap())
    };
    assert!(!topic.try_publish(message("one")).unwrap().duplicate);
    assert!(topic.try_publish(message("one")).unwrap().duplicate);
    assert!(!topic.try_publish(message("two")).unwrap().duplicate);
    assert!(
        sim_topic::Topic::<u64>::new(config).is_err(),
        "what is the content of a number?"
    );
}

#[test]
fn what_a_fifo_topic_needs_is_named_when_it_is_missing() {
    let (topic, _) = topic(fifo(FifoConfig {
        deduplication_limit: 1,
        ..FifoConfig::default()
    }));
    let error = topic.try_publish(7).unwrap_err();
    assert_eq!(
        (error.reason.clone(), error.into_value()),
        (Refusal::MissingGroup, 7)
    );
    let error = topic.try_publish(grouped("a", 7)).unwrap_err();
    assert_eq!(error.reason, Refusal::MissingDeduplicationId);
    topic.try_publish(named("a", "1", 1)).unwrap();
    let error = topic.try_publish(named("a", "2", 2)).unwrap_err();
    assert!(matches!(
        error.reason,
        Refusal::DeduplicationWindowFull { limit: 1, .. }
    ));
    assert_eq!(error.message.group_id().map(GroupId::as_str), Some("a"));
    assert_eq!(topic.stats().refused, 3);
    assert_eq!(topic.stats().published, 1);
}

#[test]
fn a_publisher_waits_until_the_window_has_room() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (topic, time) = topic(fifo(FifoConfig {
        deduplication_limit: 1,
        ..FifoConfig::default()
    }));
    topic.try_publish(named("a", "1", 1)).unwrap();
    let start = time.now();
    runtime.block_on(async {
        let (published, ()) = tokio::join!(
            topic.publish(named("a", "2", 2)),
            time.run_to(start + secs(300))
        );
        assert!(published.is_ok());
    });
}

#[test]
fn a_throttled_fifo_subscription_keeps_its_order() {
    let (topic, time) = topic(no_deduplication());
    let probe = Probe::new();
    topic
        .subscribe(
            Subscriber::sink(probe.clone()),
            SubscriptionConfig {
                throttle: Some(sim_topic::Throttle::per_second(3).unwrap()),
                ..SubscriptionConfig::default()
            },
        )
        .unwrap();
    for n in 0..20 {
        topic.try_publish(grouped("a", n)).unwrap();
    }
    assert!(probe.len() < 20);
    pass(&topic, &time, secs(20));
    assert_eq!(probe.values(), (0..20).collect::<Vec<_>>());
}
