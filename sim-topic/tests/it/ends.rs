//! Ends that meet something else: what is under way, what is paused, another end.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use sim_core::payload::Payload;
use sim_topic::filter::{FilterPolicy, Scope};
use sim_topic::{
    ConfirmError, Deduplication, Delivery, DeliveryError, FifoConfig, Filter, Kind, Limits,
    Message, Notification, ReceiverConfig, Subscriber, SubscriptionConfig, SubscriptionState,
    Token, Topic, TopicConfig, TryReceiveError,
};

use crate::rig::{Probe, Say, clock, grouped, topic};

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

type Seen = Arc<Mutex<Vec<Delivery<u64>>>>;

fn endpoint() -> (Subscriber<u64>, Seen) {
    let seen: Seen = Arc::default();
    let into = Arc::clone(&seen);
    let subscriber = Subscriber::endpoint(move |delivery: Delivery<u64>| {
        let into = Arc::clone(&into);
        async move {
            into.lock().unwrap().push(delivery);
            Ok::<(), DeliveryError>(())
        }
    });
    (subscriber, seen)
}

fn token(seen: &Seen) -> Token {
    match seen.lock().unwrap().last() {
        Some(Delivery::Confirmation(request) | Delivery::Unsubscribed(request)) => {
            request.token.clone()
        }
        other => panic!("no request but {other:?}"),
    }
}

/// A filter that lets everything pass, once both have come to the barrier twice.
fn gate() -> (Filter<u64>, Arc<Barrier>) {
    let gate = Arc::new(Barrier::new(2));
    let held = Arc::clone(&gate);
    let filter = Filter::Closure(Arc::new(move |_: &Message<u64>| {
        held.wait();
        held.wait();
        true
    }));
    (filter, gate)
}

fn kinds() -> [TopicConfig; 2] {
    let fifo = Kind::Fifo(FifoConfig {
        deduplication: Deduplication::Off,
        ..FifoConfig::default()
    });
    [Kind::Standard, fifo].map(|kind| TopicConfig {
        kind,
        ..TopicConfig::default()
    })
}

#[test]
fn filters_that_are_set_at_once_are_counted_once() {
    let config = TopicConfig {
        limits: Limits {
            filter_policies: 1,
            ..Limits::default()
        },
        ..TopicConfig::default()
    };
    let topic: Topic<Payload> = Topic::bytes(config, clock().0).unwrap();
    let policy = || {
        let policy = FilterPolicy::parse(r#"{"a": [1]}"#, Scope::MessageAttributes);
        Filter::Policy(policy.unwrap())
    };
    let sink = || Subscriber::sink(Probe::new());
    let sub = topic
        .subscribe(sink(), SubscriptionConfig::default())
        .unwrap();
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for thread in 0..4 {
            let (sub, start) = (sub.clone(), &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..3_000 {
                    let filter = match (thread + round) % 2 {
                        0 => policy(),
                        _ => Filter::All,
                    };
                    sub.set_filter(filter).unwrap();
                }
            });
        }
    });
    sub.set_filter(Filter::All).unwrap();
    let other = SubscriptionConfig {
        filter: policy(),
        ..SubscriptionConfig::default()
    };
    assert!(topic.subscribe(sink(), other).is_ok(), "nobody has one");
    assert!(sub.set_filter(policy()).is_err(), "somebody has one");
}

#[test]
fn a_driver_ends_when_somebody_else_empties_the_last_backlog() {
    let ways: [fn(&sim_topic::Subscription<u64>); 2] =
        [|sub| sub.resume().unwrap(), |sub| sub.unsubscribe()];
    for end in ways {
        let (topic, _time) = topic(TopicConfig::default());
        let probe = Probe::new();
        let sub = topic
            .subscribe(Subscriber::sink(probe), SubscriptionConfig::default())
            .unwrap();
        sub.pause().unwrap();
        topic.try_publish(1).unwrap();
        topic.close();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let mut run = pin!(topic.run());
        assert_eq!(run.as_mut().poll(&mut context), Poll::Pending);
        woken.0.store(false, Ordering::SeqCst);
        end(&sub);
        assert!(woken.0.load(Ordering::SeqCst), "the driver is told");
        assert_eq!(run.as_mut().poll(&mut context), Poll::Ready(()));
    }
}

#[test]
fn a_receiver_sees_the_end_after_what_was_being_published() {
    for config in kinds() {
        let (topic, _time) = topic(config);
        let (filter, gate) = gate();
        let mut receiver = topic
            .receiver(ReceiverConfig {
                filter,
                ..ReceiverConfig::default()
            })
            .unwrap();
        thread::scope(|scope| {
            let publisher = scope.spawn(|| topic.try_publish(grouped("a", 7)));
            gate.wait();
            topic.close();
            let early = receiver.try_receive().unwrap_err();
            gate.wait();
            let published = publisher.join().unwrap();
            assert_eq!(early, TryReceiveError::Empty, "somebody is publishing");
            if published.is_ok() {
                assert_eq!(*receiver.try_receive().unwrap(), 7);
            }
            assert_eq!(receiver.try_receive().unwrap_err(), TryReceiveError::Closed);
        });
    }
}

#[test]
fn a_driver_ends_after_what_was_being_published() {
    let (topic, _time) = topic(TopicConfig::default());
    let (filter, gate) = gate();
    let sub = topic
        .subscribe(
            Subscriber::handler(|_: Notification<u64>| async { Ok(()) }),
            SubscriptionConfig {
                filter,
                ..SubscriptionConfig::default()
            },
        )
        .unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    let mut run = pin!(topic.run());
    thread::scope(|scope| {
        let publisher = scope.spawn(|| topic.try_publish(7).is_ok());
        gate.wait();
        topic.close();
        let early = run.as_mut().poll(&mut context);
        gate.wait();
        assert!(publisher.join().unwrap());
        assert_eq!(early, Poll::Pending, "somebody is publishing");
    });
    assert!(woken.0.load(Ordering::SeqCst), "the driver is told");
    assert_eq!(run.as_mut().poll(&mut context), Poll::Ready(()));
    assert_eq!(sub.stats().delivered, 1);
}

#[test]
fn only_the_last_two_tokens_of_an_endpoint_confirm_it() {
    let (topic, time) = topic(TopicConfig::default());
    let (subscriber, seen) = endpoint();
    let sub = topic
        .subscribe(subscriber, SubscriptionConfig::default())
        .unwrap();
    topic.advance(time.now());
    let mut tokens = vec![token(&seen)];
    topic.confirm(&tokens[0]).unwrap();
    for _ in 0..5 {
        sub.unsubscribe();
        topic.advance(time.now());
        tokens.push(token(&seen));
        topic.confirm(&tokens[tokens.len() - 1]).unwrap();
    }
    let (old, last) = tokens.split_at(tokens.len() - 2);
    for token in old {
        assert_eq!(topic.confirm(token), Err(ConfirmError::Unknown));
    }
    for token in last {
        assert_eq!(topic.confirm(token), Ok(sub.id()));
    }
}

#[test]
fn a_receiver_with_a_filter_is_no_subscription_that_others_may_end() {
    let (topic, _time) = topic(TopicConfig::default());
    let filter = || Filter::Closure(Arc::new(|_: &Message<u64>| true));
    let mut receiver = topic
        .receiver(ReceiverConfig {
            filter: filter(),
            ..ReceiverConfig::default()
        })
        .unwrap();
    let sub = topic
        .subscribe(
            Subscriber::sink(Probe::new()),
            SubscriptionConfig::default(),
        )
        .unwrap();
    let ids: Vec<_> = topic.subscriptions().iter().map(|sub| sub.id()).collect();
    assert_eq!(ids, [sub.id()]);
    assert!(topic.subscription(receiver.id()).is_none());
    topic.delete().unwrap();
    assert_eq!(receiver.try_receive().unwrap_err(), TryReceiveError::Closed);
}

#[test]
fn what_a_receiver_with_a_filter_got_counts_when_it_is_gone() {
    let (topic, _time) = topic(TopicConfig::default());
    let mut receiver = topic
        .receiver(ReceiverConfig {
            filter: Filter::Closure(Arc::new(|_: &Message<u64>| true)),
            mailbox: 2,
            ..ReceiverConfig::default()
        })
        .unwrap();
    for n in 0..5 {
        topic.try_publish(n).unwrap();
    }
    assert_eq!(
        receiver.try_receive().unwrap_err(),
        TryReceiveError::Lagged { lost: 3 }
    );
    receiver.try_receive().unwrap();
    let before = topic.stats();
    assert_eq!((before.received, before.lagged), (1, 3));
    drop(receiver);
    let after = topic.stats();
    assert_eq!((after.received, after.lagged), (1, 3));
}

#[test]
fn an_endpoint_that_is_cancelled_twice_at_once_is_counted_once() {
    for round in 0..300 {
        let (topic, time) = topic(TopicConfig::default());
        let (subscriber, seen) = endpoint();
        let sub = topic
            .subscribe(subscriber, SubscriptionConfig::default())
            .unwrap();
        topic.advance(time.now());
        topic.confirm(&token(&seen)).unwrap();
        let start = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                sub.unsubscribe();
            });
            start.wait();
            match round % 2 {
                0 => sub.unsubscribe(),
                _ => topic.delete().unwrap(),
            }
        });
        assert_eq!(topic.stats().subscriptions_deleted, 1);
        assert_eq!(sub.state(), SubscriptionState::Over);
        assert!(topic.subscriptions().is_empty());
    }
}

#[test]
fn a_paused_endpoint_is_asked_to_confirm_and_told_of_its_end() {
    let (topic, time) = topic(TopicConfig::default());
    let (subscriber, seen) = endpoint();
    let sub = topic
        .subscribe(
            subscriber,
            SubscriptionConfig {
                backlog: 1,
                ..SubscriptionConfig::default()
            },
        )
        .unwrap();
    sub.pause().unwrap();
    topic.advance(time.now());
    topic.confirm(&token(&seen)).unwrap();
    assert_eq!(sub.state(), SubscriptionState::Paused);
    topic.try_publish(1).unwrap();
    topic.advance(time.now());
    assert_eq!(seen.lock().unwrap().len(), 1, "the message waits");
    assert_eq!(sub.stats().pending, 1);
    sub.unsubscribe();
    topic.advance(time.now());
    assert!(matches!(
        seen.lock().unwrap().last(),
        Some(Delivery::Unsubscribed(_))
    ));
    assert_eq!(sub.stats().dropped.unsubscribed, 1);
}

#[test]
fn a_handler_that_never_ends_is_dropped_with_its_subscription() {
    let (topic, time) = topic(TopicConfig::default());
    let held = Arc::new(());
    let lent = Arc::clone(&held);
    let sub = topic
        .subscribe(
            Subscriber::handler(move |_: Notification<u64>| {
                let lent = Arc::clone(&lent);
                async move {
                    std::future::pending::<()>().await;
                    drop(lent);
                    Ok(())
                }
            }),
            SubscriptionConfig::default(),
        )
        .unwrap();
    topic.try_publish(1).unwrap();
    topic.advance(time.now());
    assert_eq!(Arc::strong_count(&held), 3, "one is at work");
    sub.unsubscribe();
    assert_eq!(Arc::strong_count(&held), 2, "the handler alone");
    assert_eq!(sub.stats().dropped.unsubscribed, 1);
}

#[test]
fn a_refused_notice_is_tried_again_while_the_subscription_is_paused() {
    let (topic, time) = topic(TopicConfig::default());
    let answers = Arc::new(Mutex::new(vec![Say::Take, Say::Full]));
    let tries = Arc::new(Mutex::new(0));
    let (script, count) = (Arc::clone(&answers), Arc::clone(&tries));
    let sub = topic
        .subscribe(
            Subscriber::endpoint(move |_: Delivery<u64>| {
                *count.lock().unwrap() += 1;
                let say = script.lock().unwrap().pop();
                async move {
                    match say {
                        Some(Say::Full) => Err(DeliveryError::server("not now")),
                        _ => Ok(()),
                    }
                }
            }),
            SubscriptionConfig::default(),
        )
        .unwrap();
    sub.pause().unwrap();
    topic.advance(time.now());
    assert_eq!(*tries.lock().unwrap(), 1);
    crate::rig::pass(&topic, &time, crate::rig::secs(1000));
    assert_eq!(*tries.lock().unwrap(), 2);
}
