//! The topic at the seams: it delivers to whatever takes, and takes from whatever delivers.

use sim_core::payload::Payload;
use sim_core::seam::{Gauge, Reason, Sink, Timed};
use sim_topic::{
    Deduplication, FifoConfig, Kind, MAX_HOPS, Message, Notification, Subscriber,
    SubscriptionConfig, Topic, TopicConfig,
};

use crate::rig::{Probe, Say, clock, grouped, pass, secs, topic};

#[test]
fn raw_delivery_converts_and_hands_on() {
    let topic = Topic::bytes(TopicConfig::default(), clock().0).unwrap();
    let (bodies, lengths): (Probe<Payload>, Probe<usize>) = (Probe::new(), Probe::new());
    topic
        .subscribe(
            Subscriber::values(bodies.clone()),
            SubscriptionConfig::default(),
        )
        .unwrap();
    let convert = |notification: &Notification<Payload>| notification.value().size();
    topic
        .subscribe(
            Subscriber::raw(lengths.clone(), convert),
            SubscriptionConfig::default(),
        )
        .unwrap();
    topic.try_publish(Payload::from("four")).unwrap();
    assert_eq!(bodies.take(), [Payload::from("four")]);
    assert_eq!(lengths.take(), [4]);
}

#[test]
fn a_raw_sink_that_refuses_is_tried_again() {
    let (topic, time) = topic(TopicConfig::default());
    let probe: Probe<u64> = Probe::new();
    probe.script(&[Say::Full]);
    topic
        .subscribe(
            Subscriber::values(probe.clone()),
            SubscriptionConfig::default(),
        )
        .unwrap();
    topic.try_publish(1).unwrap();
    assert_eq!(probe.len(), 0);
    pass(&topic, &time, secs(20));
    assert_eq!(probe.take(), [1]);
}

#[test]
fn topics_are_chained() {
    let (first, _) = topic(TopicConfig::new("first"));
    let (second, _) = topic(TopicConfig::new("second"));
    let probe = Probe::new();
    first
        .subscribe(
            Subscriber::sink(second.clone()),
            SubscriptionConfig::default(),
        )
        .unwrap();
    second
        .subscribe(
            Subscriber::sink(probe.clone()),
            SubscriptionConfig::default(),
        )
        .unwrap();
    first.try_publish(Message::new(3).subject("s")).unwrap();
    let got: Vec<Notification<u64>> = probe.take();
    assert_eq!(
        (*got[0].value(), got[0].subject(), got[0].topic()),
        (3, Some("s"), "second")
    );
}

#[test]
fn a_topic_is_a_sink_of_values_and_of_messages() {
    let (topic, _) = topic(TopicConfig::default());
    let sink: &dyn Sink<u64> = &topic;
    sink.try_deliver(1).unwrap();
    let sink: &dyn Sink<Message<u64>> = &topic;
    sink.try_deliver(Message::new(2)).unwrap();
    assert_eq!(topic.stats().published, 2);
    topic.close();
    let refused = sink.try_deliver(Message::new(3)).unwrap_err();
    assert!(matches!(refused.reason, Reason::Closed));
    assert_eq!(refused.item.value, 3);
}

#[test]
fn a_topic_is_timed_and_a_subscription_a_gauge() {
    let (topic, time) = topic(TopicConfig::default());
    let probe = Probe::new();
    let sub = topic
        .subscribe(
            Subscriber::sink(probe.clone()),
            SubscriptionConfig::default(),
        )
        .unwrap();
    probe.script(&[Say::Full]);
    topic.try_publish(1).unwrap();
    assert_eq!(sub.depth().total(), 1);
    let timed: &dyn Timed = &topic;
    let at = timed.next_deadline().unwrap();
    time.advance_to(at);
    timed.advance(at);
    assert_eq!((probe.len(), sub.depth().total()), (1, 0));
}

fn in_a_circle(config: TopicConfig) -> (Topic<u64>, Topic<u64>) {
    let topics = (topic(config.clone()).0, topic(config).0);
    for (from, into) in [(&topics.0, &topics.1), (&topics.1, &topics.0)] {
        from.subscribe(
            Subscriber::sink(into.clone()),
            SubscriptionConfig::default(),
        )
        .unwrap();
    }
    topics
}

#[test]
fn a_message_that_goes_round_in_a_circle_of_topics_is_rejected_in_the_end() {
    let (first, second) = in_a_circle(TopicConfig::default());
    first.try_publish(1).unwrap();
    assert_eq!(
        (first.stats().published, second.stats().published),
        (17, 16),
        "the first one, and 32 that came through a topic"
    );
    let dropped = first.stats().subscriptions.dropped;
    assert_eq!((dropped.client_error, dropped.total()), (1, 1));
}

#[test]
fn a_circle_of_fifo_topics_ends_though_nobody_calls_within_a_call() {
    let fifo = FifoConfig {
        deduplication: Deduplication::Off,
        ..FifoConfig::default()
    };
    let (first, second) = in_a_circle(TopicConfig {
        kind: Kind::Fifo(fifo),
        ..TopicConfig::default()
    });
    first.try_publish(grouped("a", 1)).unwrap();
    assert_eq!(
        first.stats().published + second.stats().published,
        1 + u64::from(MAX_HOPS)
    );
    assert_eq!(first.stats().subscriptions.pending, 0);
}

#[test]
fn a_topic_that_gets_its_own_values_does_not_exhaust_the_stack() {
    let (topic, _) = topic(TopicConfig::default());
    topic
        .subscribe(
            Subscriber::values(topic.clone()),
            SubscriptionConfig::default(),
        )
        .unwrap();
    topic.try_publish(1).unwrap();
    let stats = topic.stats();
    assert_eq!(stats.published, 1 + u64::from(MAX_HOPS));
    assert_eq!(stats.subscriptions.dropped.client_error, 1);
    // What was counted for one call is over with it.
    topic.try_publish(2).unwrap();
    assert_eq!(topic.stats().published, 2 * (1 + u64::from(MAX_HOPS)));
}
