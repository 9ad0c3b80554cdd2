//! Closing and deleting.

use sim_topic::{
    DeliveryError, Notification, ReceiverConfig, Refusal, SubscribeError, Subscriber,
    SubscriptionConfig, TopicConfig, TryReceiveError,
};

use crate::rig::{Probe, Say, grouped, pass, secs, topic};

#[test]
fn a_closed_topic_takes_nothing_and_finishes_what_is_pending() {
    let (topic, time) = topic(TopicConfig::default());
    let probe = Probe::new();
    let sub = topic
        .subscribe(
            Subscriber::sink(probe.clone()),
            SubscriptionConfig::default(),
        )
        .unwrap();
    let mut receiver = topic.receiver(ReceiverConfig::default()).unwrap();
    probe.script(&[Say::Full]);
    topic.try_publish(1).unwrap();
    topic.close();
    topic.close();
    let error = topic.try_publish(2).unwrap_err();
    assert_eq!(
        (error.reason.clone(), error.into_value()),
        (Refusal::Closed, 2)
    );
    let mut values = vec![3];
    assert_eq!(topic.try_publish_values(&mut values), Err(Refusal::Closed));
    assert_eq!(values, [3]);
    let refused = topic.subscribe(
        Subscriber::sink(probe.clone()),
        SubscriptionConfig::default(),
    );
    assert_eq!(refused.unwrap_err(), SubscribeError::Closed);
    assert!(topic.receiver(ReceiverConfig::default()).is_err());
    assert_eq!(*receiver.try_receive().unwrap(), 1);
    assert_eq!(receiver.try_receive().unwrap_err(), TryReceiveError::Closed);
    pass(&topic, &time, secs(20));
    assert_eq!((probe.values(), sub.stats().pending), (vec![1], 0));
}

#[test]
fn a_driver_ends_when_the_closed_topic_has_nothing_pending() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (topic, time) = topic(TopicConfig::default());
    let sub = topic
        .subscribe(
            Subscriber::handler(|_: Notification<u64>| async { Err(DeliveryError::server("no")) }),
            SubscriptionConfig::default(),
        )
        .unwrap();
    topic.try_publish(1).unwrap();
    topic.close();
    runtime.block_on(async {
        tokio::join!(
            topic.run(),
            topic.run(),
            time.run_to(time.now() + secs(100))
        );
    });
    assert_eq!((sub.stats().retried, sub.stats().dropped.exhausted), (3, 1));
}

#[test]
fn when_the_last_handle_goes_receivers_see_the_end() {
    let (topic, _) = topic(TopicConfig::default());
    let other = topic.clone();
    let mut receiver = topic.receiver(ReceiverConfig::default()).unwrap();
    drop(topic);
    other.try_publish(1).unwrap();
    drop(other);
    assert_eq!(*receiver.try_receive().unwrap(), 1);
    assert_eq!(receiver.try_receive().unwrap_err(), TryReceiveError::Closed);
}

#[test]
fn a_deleted_topic_drops_what_is_pending_and_counts_it() {
    let (topic, time) = topic(TopicConfig::default());
    let probe = Probe::new();
    topic
        .subscribe(
            Subscriber::sink(probe.clone()),
            SubscriptionConfig::default(),
        )
        .unwrap();
    probe.always(Say::Full);
    topic.try_publish(1).unwrap();
    topic.delete().unwrap();
    pass(&topic, &time, secs(1000));
    assert_eq!(probe.tries(), 1);
    let stats = topic.stats();
    assert_eq!(stats.subscriptions.dropped.unsubscribed, 1);
    assert_eq!(
        (stats.subscriptions_confirmed, stats.subscriptions_deleted),
        (0, 1)
    );
    assert!(topic.subscriptions().is_empty());
}

#[test]
fn a_fifo_topic_that_is_closed_gives_the_message_back() {
    let (topic, _) = topic(TopicConfig {
        kind: sim_topic::Kind::Fifo(sim_topic::FifoConfig {
            deduplication: sim_topic::Deduplication::Off,
            ..Default::default()
        }),
        ..TopicConfig::default()
    });
    topic.close();
    let error = topic.try_publish(grouped("a", 5)).unwrap_err();
    assert_eq!(error.reason, Refusal::Closed);
    assert_eq!(error.message.sequence(), None);
}
