//! Standard topics: everybody gets everything, and nobody waits for anybody.

use std::sync::Arc;

use sim_core::seam::Sink;
use sim_topic::{
    DeadLetter, DeadLetterReason, Filter, Message, Notification, Overflow, ReceiverConfig,
    RetryPolicy, Subscriber, SubscriptionConfig, SubscriptionState, TopicConfig, TryReceiveError,
};

use crate::rig::{Probe, Say, pass, secs, topic};

fn letters(probe: &Probe<DeadLetter<u64>>) -> Option<Arc<dyn Sink<DeadLetter<u64>>>> {
    Some(Arc::new(probe.clone()))
}

#[test]
fn every_subscriber_gets_every_message() {
    let (topic, _) = topic(TopicConfig::new("all"));
    let probes: Vec<Probe<Notification<u64>>> = (0..3).map(|_| Probe::new()).collect();
    for probe in &probes {
        topic
            .subscribe(
                Subscriber::sink(probe.clone()),
                SubscriptionConfig::default(),
            )
            .unwrap();
    }
    let mut receiver = topic.receiver(ReceiverConfig::default()).unwrap();
    for n in 0..5 {
        topic.try_publish(n).unwrap();
    }
    for probe in &probes {
        assert_eq!(probe.values(), [0, 1, 2, 3, 4]);
    }
    let received: Vec<u64> = (0..5).map(|_| *receiver.try_receive().unwrap()).collect();
    assert_eq!(received, [0, 1, 2, 3, 4]);
    assert_eq!(receiver.try_receive().unwrap_err(), TryReceiveError::Empty);
    let stats = topic.stats();
    assert_eq!((stats.published, stats.received), (5, 5));
    assert_eq!(stats.subscriptions.delivered, 15);
    assert_eq!(stats.subscriptions_confirmed, 4);
}

#[test]
fn a_message_is_shared_and_not_copied() {
    let (topic, _) = topic(TopicConfig::default());
    let (one, two) = (Probe::new(), Probe::new());
    for probe in [&one, &two] {
        topic
            .subscribe(
                Subscriber::sink(probe.clone()),
                SubscriptionConfig::default(),
            )
            .unwrap();
    }
    let published = topic.try_publish(Message::new(7).subject("seven")).unwrap();
    let (one, two): (Vec<Notification<u64>>, Vec<_>) = (one.take(), two.take());
    assert!(std::ptr::eq(one[0].value(), two[0].value()));
    assert_eq!(one[0].id(), published.id);
    assert_eq!(one[0].subject(), Some("seven"));
    assert_eq!(one[0].topic(), "topic");
    assert_ne!(one[0].subscription(), two[0].subscription());
}

#[test]
fn a_failing_subscriber_delays_no_other_and_is_tried_again() {
    let (topic, time) = topic(TopicConfig::default());
    let (bad, good) = (Probe::new(), Probe::new());
    let config = SubscriptionConfig {
        retry: RetryPolicy {
            min_delay: secs(10),
            max_delay: secs(10),
            backoff: 3,
            ..RetryPolicy::default()
        },
        ..SubscriptionConfig::default()
    };
    let sub = topic
        .subscribe(Subscriber::sink(bad.clone()), config)
        .unwrap();
    topic
        .subscribe(
            Subscriber::sink(good.clone()),
            SubscriptionConfig::default(),
        )
        .unwrap();
    bad.script(&[Say::Full, Say::Panic]);
    topic.try_publish(1).unwrap();
    assert_eq!((bad.values(), good.values()), (vec![], vec![1]));
    assert_eq!(sub.stats().pending, 1);
    assert_eq!(topic.next_deadline(), Some(time.now() + secs(10)));
    pass(&topic, &time, secs(9));
    assert_eq!(bad.tries(), 1);
    pass(&topic, &time, secs(1));
    assert_eq!(bad.tries(), 2, "the panic counts as a failure");
    pass(&topic, &time, secs(10));
    assert_eq!(bad.values(), [1]);
    let stats = sub.stats();
    assert_eq!((stats.delivered, stats.retried, stats.pending), (1, 2, 0));
    assert_eq!(topic.next_deadline(), None);
}

#[test]
fn what_is_given_up_goes_to_the_dead_letters_or_is_dropped_and_counted() {
    for (say, reason, tries) in [
        (Say::Reject, DeadLetterReason::ClientError, 1),
        (Say::Closed, DeadLetterReason::ClientError, 1),
        (Say::Full, DeadLetterReason::Exhausted, 4),
        (Say::Panic, DeadLetterReason::Exhausted, 4),
    ] {
        let (topic, time) = topic(TopicConfig::default());
        let (with, without, dead) = (Probe::new(), Probe::new(), Probe::new());
        let redriven = topic
            .subscribe(
                Subscriber::sink(with.clone()),
                SubscriptionConfig {
                    dead_letters: letters(&dead),
                    ..SubscriptionConfig::default()
                },
            )
            .unwrap();
        let dropped = topic
            .subscribe(
                Subscriber::sink(without.clone()),
                SubscriptionConfig::default(),
            )
            .unwrap();
        with.always(say);
        without.always(say);
        topic.try_publish(5).unwrap();
        pass(&topic, &time, secs(3600));
        assert_eq!((with.tries(), without.tries()), (tries, tries), "{say:?}");
        let stats = redriven.stats();
        assert_eq!((stats.redriven, stats.failed, stats.pending), (1, 1, 0));
        assert_eq!(stats.dropped.total(), 0);
        let letter = dead.take().remove(0);
        assert_eq!((letter.reason, u64::from(letter.attempts)), (reason, tries));
        assert_eq!(*letter.notification.value(), 5);
        assert!(letter.error.is_some());
        let stats = dropped.stats();
        assert_eq!((stats.redriven, stats.failed, stats.pending), (0, 1, 0));
        let by_reason = match reason {
            DeadLetterReason::ClientError => stats.dropped.client_error,
            _ => stats.dropped.exhausted,
        };
        assert_eq!((by_reason, stats.dropped.total()), (1, 1));
    }
}

#[test]
fn a_dead_letter_sink_without_room_is_asked_again_each_second() {
    let (topic, time) = topic(TopicConfig::default());
    let (bad, dead) = (Probe::new(), Probe::new());
    let sub = topic
        .subscribe(
            Subscriber::sink(bad.clone()),
            SubscriptionConfig {
                retry: RetryPolicy::NONE,
                dead_letters: letters(&dead),
                ..SubscriptionConfig::default()
            },
        )
        .unwrap();
    bad.always(Say::Reject);
    dead.script(&[Say::Full, Say::Full]);
    topic.try_publish(1).unwrap();
    assert_eq!((sub.stats().pending, dead.len()), (1, 0));
    pass(&topic, &time, secs(1));
    assert_eq!((sub.stats().pending, dead.len()), (1, 0));
    pass(&topic, &time, secs(1));
    let stats = sub.stats();
    assert_eq!((stats.pending, stats.redriven, stats.failed), (0, 1, 1));
    let letter = dead.take().remove(0);
    assert_eq!(
        (letter.attempts, letter.reason),
        (1, DeadLetterReason::ClientError)
    );

    dead.script(&[Say::Reject]);
    topic.try_publish(2).unwrap();
    let stats = sub.stats();
    assert_eq!(
        (stats.failed_to_redrive, stats.dropped.not_redriven),
        (1, 1)
    );
    assert_eq!(stats.accepted, stats.redriven + stats.dropped.total());
}

#[test]
fn a_full_backlog_gives_up_the_newest_or_the_oldest() {
    for (overflow, kept, lost) in [
        (Overflow::Newest, vec![0, 1], vec![2, 3]),
        (Overflow::Oldest, vec![2, 3], vec![0, 1]),
    ] {
        let (topic, _) = topic(TopicConfig::default());
        let (probe, dead) = (Probe::new(), Probe::new());
        let sub = topic
            .subscribe(
                Subscriber::sink(probe.clone()),
                SubscriptionConfig {
                    backlog: 2,
                    overflow,
                    dead_letters: letters(&dead),
                    ..SubscriptionConfig::default()
                },
            )
            .unwrap();
        sub.pause().unwrap();
        assert_eq!(sub.state(), SubscriptionState::Paused);
        for n in 0..4 {
            topic.try_publish(n).unwrap();
        }
        assert_eq!((probe.len(), sub.stats().pending), (0, 2));
        assert_eq!(dead.values(), lost);
        assert!(
            dead.take()
                .iter()
                .all(|l| l.reason == DeadLetterReason::Overflow)
        );
        sub.resume().unwrap();
        assert_eq!(probe.values(), kept);
        let stats = sub.stats();
        assert_eq!((stats.delivered, stats.redriven), (2, 2));
    }
}

#[test]
fn a_closure_filters_on_the_whole_message_and_can_be_replaced() {
    let (topic, _) = topic(TopicConfig::default());
    let probe = Probe::new();
    let sub = topic
        .subscribe(
            Subscriber::sink(probe.clone()),
            SubscriptionConfig {
                filter: Filter::closure(|message: &Message<u64>| {
                    assert_ne!(message.value, 4, "a panic is a no");
                    message.value.is_multiple_of(2)
                }),
                ..SubscriptionConfig::default()
            },
        )
        .unwrap();
    for n in 0..6 {
        topic.try_publish(n).unwrap();
    }
    assert_eq!(probe.values(), [0, 2]);
    assert_eq!(sub.stats().filtered.attributes, 4);
    sub.set_filter(Filter::All).unwrap();
    topic.try_publish(7).unwrap();
    assert_eq!(probe.values(), [0, 2, 7]);
}

#[test]
fn unsubscribing_ends_one_and_no_other() {
    let (topic, time) = topic(TopicConfig::default());
    let (one, two) = (Probe::new(), Probe::new());
    let first = topic
        .subscribe(Subscriber::sink(one.clone()), SubscriptionConfig::default())
        .unwrap();
    topic
        .subscribe(Subscriber::sink(two.clone()), SubscriptionConfig::default())
        .unwrap();
    one.script(&[Say::Full]);
    topic.try_publish(1).unwrap();
    first.unsubscribe();
    topic.try_publish(2).unwrap();
    pass(&topic, &time, secs(3600));
    assert_eq!((one.values(), two.values()), (vec![], vec![1, 2]));
    assert_eq!(first.state(), SubscriptionState::Over);
    let stats = first.stats();
    assert_eq!(
        (stats.accepted, stats.dropped.unsubscribed, stats.pending),
        (1, 1, 0)
    );
    assert!(topic.subscription(first.id()).is_none());
    assert!(first.pause().is_err());
    drop(first);
    let stats = topic.stats();
    assert_eq!(
        (stats.subscriptions.accepted, stats.subscriptions_deleted),
        (3, 1)
    );
    assert_eq!(stats.subscriptions.dropped.unsubscribed, 1);
}

#[test]
fn a_letter_that_makes_room_keeps_why_it_was_given_up_and_is_counted_once() {
    let (topic, _) = topic(TopicConfig::default());
    let (probe, dead) = (Probe::<Notification<u64>>::new(), Probe::new());
    let sub = topic
        .subscribe(
            Subscriber::sink(probe.clone()),
            SubscriptionConfig {
                backlog: 1,
                overflow: Overflow::Oldest,
                dead_letters: letters(&dead),
                ..SubscriptionConfig::default()
            },
        )
        .unwrap();
    probe.script(&[Say::Reject]);
    dead.script(&[Say::Full]);
    topic.try_publish(1).unwrap();
    let stats = sub.stats();
    assert_eq!((stats.failed, stats.pending, dead.len()), (1, 1, 0));
    sub.pause().unwrap();
    topic.try_publish(2).unwrap();
    let stats = sub.stats();
    assert_eq!((stats.failed, stats.redriven, stats.pending), (1, 1, 1));
    let letters = dead.take();
    assert_eq!(letters.len(), 1);
    assert_eq!(*letters[0].notification.value(), 1);
    assert_eq!(letters[0].reason, DeadLetterReason::ClientError);
    assert_eq!(letters[0].attempts, 1);
    assert!(letters[0].error.is_some());
}

#[test]
fn a_message_that_makes_room_between_two_tries_tells_how_often_it_was_tried() {
    let (topic, _) = topic(TopicConfig::default());
    let (probe, dead) = (Probe::<Notification<u64>>::new(), Probe::new());
    let sub = topic
        .subscribe(
            Subscriber::sink(probe.clone()),
            SubscriptionConfig {
                backlog: 1,
                overflow: Overflow::Oldest,
                dead_letters: letters(&dead),
                ..SubscriptionConfig::default()
            },
        )
        .unwrap();
    probe.script(&[Say::Full]);
    topic.try_publish(1).unwrap();
    sub.pause().unwrap();
    topic.try_publish(2).unwrap();
    let letters = dead.take();
    assert_eq!(letters[0].reason, DeadLetterReason::Overflow);
    assert_eq!(
        (*letters[0].notification.value(), letters[0].attempts),
        (1, 1)
    );
    assert_eq!(sub.stats().failed, 1);
}
