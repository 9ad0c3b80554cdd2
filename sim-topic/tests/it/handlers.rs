//! Handlers: work as futures, driven by whoever drives.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sim_topic::{
    DeliveryError, Notification, RetryPolicy, Subscriber, SubscriptionConfig, TopicConfig,
};
use tokio::sync::Semaphore;

use crate::rig::{grouped, pass, secs, topic};

#[test]
fn a_handler_works_when_the_topic_is_driven_and_not_before() {
    let (topic, time) = topic(TopicConfig::default());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&seen);
    let sub = topic
        .subscribe(
            Subscriber::handler(move |notification: Notification<u64>| {
                let into = Arc::clone(&into);
                async move {
                    into.lock().unwrap().push(*notification.value());
                    Ok(())
                }
            }),
            SubscriptionConfig::default(),
        )
        .unwrap();
    topic.try_publish(1).unwrap();
    topic.try_publish(2).unwrap();
    assert!(seen.lock().unwrap().is_empty());
    assert_eq!(sub.stats().pending, 2);
    assert!(
        topic.next_deadline().is_some(),
        "there is something to do now"
    );
    topic.advance(time.now());
    assert_eq!(*seen.lock().unwrap(), [1, 2]);
    assert_eq!((sub.stats().delivered, sub.stats().pending), (2, 0));
    assert_eq!(topic.next_deadline(), None);
}

#[test]
fn a_handler_says_which_errors_are_tried_again_and_when() {
    let (topic, time) = topic(TopicConfig::default());
    let tries = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&tries);
    let sub = topic
        .subscribe(
            Subscriber::handler(move |notification: Notification<u64>| {
                let try_number = count.fetch_add(1, Ordering::SeqCst);
                async move {
                    match (*notification.value(), try_number) {
                        (1, 0) => Err(DeliveryError::server_after("busy", secs(60))),
                        (1, 1) => panic!("it happens"),
                        (2, _) => Err(DeliveryError::client("no such thing")),
                        _ => Ok(()),
                    }
                }
            }),
            SubscriptionConfig {
                retry: RetryPolicy {
                    backoff: 2,
                    min_delay: secs(1),
                    max_delay: secs(1),
                    ..RetryPolicy::default()
                },
                ..SubscriptionConfig::default()
            },
        )
        .unwrap();
    topic.try_publish(1).unwrap();
    topic.advance(time.now());
    assert_eq!(topic.next_deadline(), Some(time.now() + secs(60)));
    pass(&topic, &time, secs(60));
    assert_eq!(tries.load(Ordering::SeqCst), 2);
    pass(&topic, &time, secs(1));
    assert_eq!((sub.stats().delivered, sub.stats().retried), (1, 2));
    topic.try_publish(2).unwrap();
    topic.advance(time.now());
    assert_eq!(sub.stats().dropped.client_error, 1);
}

#[tokio::test]
async fn at_most_so_many_are_in_flight_and_others_are_not_held_up() {
    let topic = sim_topic::Topic::<u64>::new(TopicConfig::default()).unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let slow = topic
        .subscribe(
            Subscriber::handler(move |_: Notification<u64>| {
                let held = Arc::clone(&held);
                async move {
                    held.acquire().await.unwrap().forget();
                    Ok(())
                }
            }),
            SubscriptionConfig {
                max_in_flight: 3,
                ..SubscriptionConfig::default()
            },
        )
        .unwrap();
    let fast = topic
        .subscribe(
            Subscriber::handler(|_: Notification<u64>| async { Ok(()) }),
            SubscriptionConfig::default(),
        )
        .unwrap();
    for n in 0..10 {
        topic.try_publish(n).unwrap();
    }
    let driving = topic.clone();
    let driver = tokio::spawn(async move { driving.run().await });
    while fast.stats().delivered < 10 {
        tokio::task::yield_now().await;
    }
    assert_eq!((slow.stats().in_flight, slow.stats().pending), (3, 10));
    // A driver that is dropped loses nothing.
    driver.abort();
    assert!(driver.await.unwrap_err().is_cancelled());
    let driving = topic.clone();
    let driver = tokio::spawn(async move { driving.run().await });
    gate.add_permits(10);
    while slow.stats().delivered < 10 {
        tokio::task::yield_now().await;
    }
    topic.close();
    driver.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_drivers_share_the_work_and_double_nothing() {
    let topic = sim_topic::Topic::<u64>::new(TopicConfig::default()).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&seen);
    topic
        .subscribe(
            Subscriber::handler(move |notification: Notification<u64>| {
                let into = Arc::clone(&into);
                async move {
                    for _ in 0..*notification.value() % 4 {
                        tokio::task::yield_now().await;
                    }
                    into.lock().unwrap().push(*notification.value());
                    Ok(())
                }
            }),
            SubscriptionConfig::default(),
        )
        .unwrap();
    let drivers: Vec<_> = (0..4)
        .map(|_| {
            let topic = topic.clone();
            tokio::spawn(async move { topic.run().await })
        })
        .collect();
    for n in 0..2000 {
        topic.try_publish(n).unwrap();
    }
    topic.close();
    for driver in drivers {
        driver.await.unwrap();
    }
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_unstable();
    assert_eq!(seen, (0..2000).collect::<Vec<_>>());
}

#[test]
fn a_fifo_handler_works_on_one_message_of_a_group_at_a_time() {
    let (topic, time) = topic(TopicConfig {
        kind: sim_topic::Kind::Fifo(sim_topic::FifoConfig {
            deduplication: sim_topic::Deduplication::Off,
            ..Default::default()
        }),
        ..TopicConfig::default()
    });
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let sub = topic
        .subscribe(
            Subscriber::handler(move |_: Notification<u64>| {
                let held = Arc::clone(&held);
                async move {
                    held.acquire().await.unwrap().forget();
                    Ok(())
                }
            }),
            SubscriptionConfig::default(),
        )
        .unwrap();
    for n in 0..6 {
        topic
            .try_publish(grouped(
                if u64::is_multiple_of(n, 2) { "a" } else { "b" },
                n,
            ))
            .unwrap();
    }
    topic.advance(time.now());
    assert_eq!(sub.stats().in_flight, 2, "two groups, one each");
    gate.add_permits(6);
    topic.advance(time.now());
    assert_eq!((sub.stats().delivered, sub.stats().in_flight), (6, 0));
}

#[test]
fn what_an_unsubscribed_handler_still_works_on_is_counted_once() {
    let (topic, time) = topic(TopicConfig::default());
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let sub = topic
        .subscribe(
            Subscriber::handler(move |_: Notification<u64>| {
                let held = Arc::clone(&held);
                async move {
                    held.acquire().await.unwrap().forget();
                    Ok(())
                }
            }),
            SubscriptionConfig::default(),
        )
        .unwrap();
    topic.try_publish(1).unwrap();
    topic.advance(time.now());
    assert_eq!(sub.stats().in_flight, 1);
    sub.unsubscribe();
    gate.add_permits(1);
    topic.advance(time.now());
    let stats = sub.stats();
    assert_eq!(
        (stats.accepted, stats.delivered, stats.dropped.unsubscribed),
        (1, 0, 1)
    );
}
