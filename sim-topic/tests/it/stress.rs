//! Many threads at once: nothing is lost, nothing is doubled, groups keep their order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use sim_core::seam::{Refused, Sink};
use sim_topic::{
    Deduplication, DeliveryError, FifoConfig, Filter, GroupId, Kind, LogConfig, Message,
    Notification, ReceiveError, ReceiverConfig, RetryPolicy, Subscriber, SubscriptionConfig, Topic,
    TopicConfig, WhenBehind,
};

use crate::rig::secs;

const PUBLISHERS: u64 = 4;
const EACH: u64 = 2_000;

/// Takes what comes; refuses every third try.
#[derive(Clone, Default)]
struct Flaky {
    tries: Arc<AtomicU64>,
    taken: Arc<Mutex<Vec<(String, u64)>>>,
    refuses: bool,
}

impl Sink<Notification<u64>> for Flaky {
    fn try_deliver(&self, item: Notification<u64>) -> Result<(), Refused<Notification<u64>>> {
        let number = self.tries.fetch_add(1, Ordering::SeqCst);
        if self.refuses && number.is_multiple_of(3) {
            return Err(Refused::full(item, None));
        }
        let group = item
            .group()
            .map_or(String::new(), |g| g.as_str().to_owned());
        self.taken.lock().unwrap().push((group, *item.value()));
        Ok(())
    }
}

fn at_once() -> RetryPolicy {
    RetryPolicy {
        immediate: 1000,
        backoff: 0,
        ..RetryPolicy::default()
    }
}

fn publish(topic: &Topic<u64>) {
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            scope.spawn(move || {
                let group = GroupId::new(format!("p{publisher}")).unwrap();
                for n in 0..EACH {
                    let message = Message::new(publisher * EACH + n).group(group.clone());
                    topic.publish_blocking(message).unwrap();
                }
            });
        }
    });
}

fn all_of(mut values: Vec<u64>) {
    values.sort_unstable();
    assert_eq!(values.len() as u64, PUBLISHERS * EACH);
    assert!(values.into_iter().eq(0..PUBLISHERS * EACH));
}

fn in_order(taken: &[(String, u64)]) {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for (group, value) in taken {
        let before = last.insert(group, *value);
        assert!(before < Some(*value), "{group}: {before:?} before {value}");
    }
}

fn storm(kind: Kind) {
    let is_fifo = kind.is_fifo();
    let topic: Topic<u64> = Topic::new(TopicConfig {
        kind,
        log: LogConfig {
            capacity: 500,
            when_behind: WhenBehind::Refuse,
            ..LogConfig::default()
        },
        ..TopicConfig::default()
    })
    .unwrap();
    let good = Flaky::default();
    let flaky = Flaky {
        refuses: true,
        ..Flaky::default()
    };
    for sink in [&good, &flaky] {
        topic
            .subscribe(
                Subscriber::sink(sink.clone()),
                SubscriptionConfig {
                    retry: at_once(),
                    ..SubscriptionConfig::default()
                },
            )
            .unwrap();
    }
    let handled = Flaky::default();
    let by = handled.clone();
    topic
        .subscribe(
            Subscriber::handler(move |notification: Notification<u64>| {
                let by = by.clone();
                async move {
                    let number = by.tries.fetch_add(1, Ordering::SeqCst);
                    if number.is_multiple_of(5) {
                        tokio::task::yield_now().await;
                        return Err(DeliveryError::server("again"));
                    }
                    by.try_deliver(notification).unwrap();
                    Ok(())
                }
            }),
            SubscriptionConfig {
                retry: at_once(),
                ..SubscriptionConfig::default()
            },
        )
        .unwrap();
    let mut receivers: Vec<_> = (0..3)
        .map(|_| topic.receiver(ReceiverConfig::default()).unwrap())
        .collect();
    receivers.push(
        topic
            .receiver(ReceiverConfig {
                filter: Filter::closure(|_: &Message<u64>| true),
                mailbox: 100_000,
                ..ReceiverConfig::default()
            })
            .unwrap(),
    );
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reading: Vec<_> = receivers
            .into_iter()
            .enumerate()
            .map(|(at, mut receiver)| {
                scope.spawn(move || {
                    let mut seen = Vec::new();
                    loop {
                        let outcome = if at % 2 == 0 {
                            receiver.receive_blocking().map(|n| seen.push(*n.value()))
                        } else {
                            receiver
                                .receive_batch_blocking(17)
                                .map(|batch| batch.for_each_value(|value| seen.push(*value)))
                        };
                        match outcome {
                            Ok(()) => {}
                            Err(ReceiveError::Closed) => return seen,
                            Err(other) => panic!("{other}"),
                        }
                    }
                })
            })
            .collect();
        let drivers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_time()
                        .build()
                        .unwrap();
                    runtime.block_on(topic.run());
                })
            })
            .collect();
        let churn = scope.spawn(|| {
            let mut accepted = 0;
            while !is_over.load(Ordering::SeqCst) {
                let sub = topic
                    .subscribe(
                        Subscriber::sink(Flaky {
                            refuses: true,
                            ..Flaky::default()
                        }),
                        SubscriptionConfig {
                            retry: RetryPolicy {
                                min_delay: secs(1),
                                max_delay: secs(1),
                                ..RetryPolicy::default()
                            },
                            ..SubscriptionConfig::default()
                        },
                    )
                    .unwrap();
                let receiver = topic.receiver(ReceiverConfig::default()).unwrap();
                thread::yield_now();
                drop(receiver);
                sub.pause().unwrap();
                sub.resume().unwrap();
                sub.unsubscribe();
                accepted += sub.stats().accepted;
            }
            accepted
        });
        publish(&topic);
        is_over.store(true, Ordering::SeqCst);
        churn.join().unwrap();
        topic.close();
        for driver in drivers {
            driver.join().unwrap();
        }
        for reading in reading {
            let seen = reading.join().unwrap();
            if is_fifo {
                assert!(seen.iter().filter(|v| **v < EACH).is_sorted());
            }
            all_of(seen);
        }
    });
    for sink in [good, flaky, handled] {
        let taken = sink.taken.lock().unwrap().clone();
        if is_fifo {
            in_order(&taken);
        }
        all_of(taken.into_iter().map(|(_, value)| value).collect());
    }
    let stats = topic.stats().subscriptions;
    assert_eq!(
        stats.accepted,
        stats.delivered + stats.pending + stats.redriven + stats.dropped.total()
    );
    assert_eq!(stats.pending, 0);
}

#[test]
fn a_standard_topic_loses_and_doubles_nothing_under_many_threads() {
    storm(Kind::Standard);
}

#[test]
fn a_fifo_topic_keeps_the_order_of_groups_under_many_threads() {
    storm(Kind::Fifo(FifoConfig {
        deduplication: Deduplication::Off,
        ..FifoConfig::default()
    }));
}
