//! Retries and throttles, in virtual time.

use sim_topic::{Jitter, RetryPolicy, Subscriber, SubscriptionConfig, Throttle, TopicConfig};

use crate::rig::{Probe, Say, pass, secs, topic};

#[test]
fn aws_managed_retries_are_100_015_over_23_days_and_pass_at_once() {
    let (topic, time) = topic(TopicConfig::default());
    let probe = Probe::new();
    let config = SubscriptionConfig {
        retry: RetryPolicy::aws_managed(),
        ..SubscriptionConfig::default()
    };
    let sub = topic
        .subscribe(Subscriber::sink(probe.clone()), config)
        .unwrap();
    probe.always(Say::Full);
    topic.try_publish(1).unwrap();
    assert_eq!(
        probe.tries(),
        4,
        "the first and three immediate ones, in the publisher's call"
    );
    let total = RetryPolicy::aws_managed().total();
    assert_eq!(total.as_secs() / 86_400, 23);
    pass(&topic, &time, total - secs(1));
    assert_eq!(probe.tries(), 100_015);
    assert_eq!(sub.stats().pending, 1);
    pass(&topic, &time, secs(1));
    assert_eq!(probe.tries(), 100_016, "a first try and 100,015 retries");
    let stats = sub.stats();
    assert_eq!(
        (stats.retried, stats.failed, stats.pending),
        (100_015, 1, 0)
    );
    assert_eq!(stats.dropped.exhausted, 1);
    assert_eq!(topic.next_deadline(), None);
}

#[test]
fn a_driver_makes_the_same_retries_as_its_clock_moves() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (topic, time) = topic(TopicConfig::default());
    let probe = Probe::new();
    let config = SubscriptionConfig {
        retry: RetryPolicy::customer_managed(),
        ..SubscriptionConfig::default()
    };
    let sub = topic
        .subscribe(Subscriber::sink(probe.clone()), config)
        .unwrap();
    probe.always(Say::Full);
    topic.try_publish(1).unwrap();
    runtime.block_on(async {
        tokio::select! {
            () = topic.run() => unreachable!("the topic is open"),
            () = time.run_to(time.now() + RetryPolicy::customer_managed().total()) => {}
        }
    });
    assert_eq!(probe.tries(), 51);
    assert_eq!(sub.stats().dropped.exhausted, 1);
}

#[test]
fn jitter_is_the_same_for_the_same_seed() {
    let deadlines = |seed| {
        let (topic, time) = topic(TopicConfig {
            seed,
            ..TopicConfig::default()
        });
        let probe = Probe::new();
        let config = SubscriptionConfig {
            retry: RetryPolicy {
                backoff: 20,
                min_delay: secs(1000),
                max_delay: secs(1000),
                jitter: Jitter::Full,
                ..RetryPolicy::default()
            },
            ..SubscriptionConfig::default()
        };
        topic
            .subscribe(Subscriber::sink(probe.clone()), config)
            .unwrap();
        probe.always(Say::Full);
        topic.try_publish(1).unwrap();
        let mut seen = Vec::new();
        while let Some(at) = topic.next_deadline() {
            seen.push(at);
            time.advance_to(at);
            topic.advance(at);
        }
        seen
    };
    assert_eq!(deadlines(1).len(), 20);
    assert_eq!(deadlines(1), deadlines(1));
    assert_ne!(deadlines(1), deadlines(2));
}

#[test]
fn a_sink_says_when_it_may_be_tried_again() {
    use sim_core::seam::{Refused, Sink};
    use sim_topic::Notification;

    struct Busy;

    impl Sink<Notification<u64>> for Busy {
        fn try_deliver(&self, item: Notification<u64>) -> Result<(), Refused<Notification<u64>>> {
            let until = item.published_at() + secs(100);
            Err(Refused::full(item, Some(until)))
        }
    }

    let (topic, time) = topic(TopicConfig::default());
    topic
        .subscribe(Subscriber::sink(Busy), SubscriptionConfig::default())
        .unwrap();
    topic.try_publish(1).unwrap();
    assert_eq!(topic.next_deadline(), Some(time.now() + secs(100)));
}

#[test]
fn a_throttle_spaces_deliveries_out_and_loses_none() {
    let (topic, time) = topic(TopicConfig::default());
    let probe = Probe::new();
    let config = SubscriptionConfig {
        throttle: Some(Throttle::per_second(2).unwrap()),
        ..SubscriptionConfig::default()
    };
    let sub = topic
        .subscribe(Subscriber::sink(probe.clone()), config)
        .unwrap();
    for n in 0..10 {
        topic.try_publish(n).unwrap();
    }
    let mut most = 0;
    let mut seen = probe.len();
    for _ in 0..10 {
        pass(&topic, &time, secs(1));
        most = most.max(probe.len() - seen);
        seen = probe.len();
    }
    assert_eq!(probe.values(), (0..10).collect::<Vec<_>>());
    assert!(most <= 2, "{most} in a second");
    assert!(sub.stats().throttled > 0);

    topic.try_publish(10).unwrap();
    topic.try_publish(11).unwrap();
    sub.set_throttle(None).unwrap();
    assert_eq!(
        probe.len(),
        12,
        "without a throttle everything goes at once"
    );
}

#[test]
fn nobody_puts_a_message_off_for_more_than_an_hour() {
    use std::sync::Arc;

    use sim_core::seam::{Refused, Sink};
    use sim_core::time::Instant;
    use sim_topic::{DeliveryError, Notification};

    struct Never;

    impl<I: Send> Sink<I> for Never {
        fn try_deliver(&self, item: I) -> Result<(), Refused<I>> {
            Err(Refused::full(item, Some(Instant::NEVER)))
        }
    }

    fn rejecting() -> Subscriber<u64> {
        let probe: Probe<Notification<u64>> = Probe::new();
        probe.always(Say::Reject);
        Subscriber::sink(probe)
    }

    let handler = Subscriber::handler(|_: Notification<u64>| async {
        Err(DeliveryError::server_after(
            "busy",
            std::time::Duration::MAX,
        ))
    });
    for (subscriber, has_letters) in [
        (Subscriber::sink(Never), false),
        (handler, false),
        (rejecting(), true),
    ] {
        let (topic, time) = topic(TopicConfig::default());
        let config = SubscriptionConfig {
            dead_letters: has_letters.then(|| Arc::new(Never) as _),
            ..SubscriptionConfig::default()
        };
        topic.subscribe(subscriber, config).unwrap();
        topic.try_publish(1).unwrap();
        topic.advance(time.now());
        assert_eq!(topic.next_deadline(), Some(time.now() + secs(3_600)));
    }
}
