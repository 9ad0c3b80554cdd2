//! Receivers: one log for all that read everything, a mailbox for each that filters.

use futures_util::StreamExt;
use sim_topic::{
    Filter, LogConfig, Message, ReceiveError, ReceiverConfig, Refusal, Topic, TopicConfig,
    TryReceiveError, WaitError, WhenBehind,
};

use crate::rig::{secs, topic};

fn log(capacity: usize, when_behind: WhenBehind) -> TopicConfig {
    TopicConfig {
        log: LogConfig {
            capacity,
            when_behind,
            ..LogConfig::default()
        },
        ..TopicConfig::default()
    }
}

#[test]
fn a_receiver_gets_what_is_published_while_it_lives() {
    let (topic, _) = topic(TopicConfig::default());
    topic.try_publish(0).unwrap();
    let mut early = topic.receiver(ReceiverConfig::default()).unwrap();
    let published = topic.try_publish(Message::new(1).subject("one")).unwrap();
    let mut late = topic.receiver(ReceiverConfig::default()).unwrap();
    topic.try_publish(2).unwrap();
    let first = early.try_receive().unwrap();
    assert_eq!(
        (*first, first.id(), first.subject()),
        (1, published.id, Some("one"))
    );
    assert_eq!(first.subscription(), early.id());
    assert_eq!(*early.try_receive().unwrap(), 2);
    assert_eq!(*late.try_receive().unwrap(), 2);
    drop(early);
    assert_eq!(*first, 1, "it owns what it needs");
    assert_eq!(first.topic(), "topic");
    let stats = topic.stats();
    assert_eq!((stats.received, stats.subscriptions_deleted), (3, 1));
}

#[test]
fn batches_single_messages_and_lent_ones_are_one_sequence() {
    let (topic, _) = topic(TopicConfig::default());
    let mut receiver = topic.receiver(ReceiverConfig::default()).unwrap();
    let mut values: Vec<u64> = (0..500).collect();
    assert_eq!(topic.try_publish_values(&mut values), Ok(500));
    assert!(values.is_empty());
    let mut seen = Vec::new();
    loop {
        match seen.len() % 3 {
            0 => match receiver.try_receive() {
                Ok(notification) => seen.push(*notification.value()),
                Err(_) => break,
            },
            1 => match receiver.try_receive_ref() {
                Ok(received) => seen.push(*received.value()),
                Err(_) => break,
            },
            _ => match receiver.try_receive_batch(5) {
                Ok(batch) => {
                    assert!((1..=5).contains(&batch.len()));
                    assert_eq!(batch.get(0).map(|n| *n.value()), Some(seen.len() as u64));
                    seen.extend(batch.iter().map(|received| *received.value()));
                }
                Err(_) => break,
            },
        }
        let stats = receiver.stats();
        assert_eq!(stats.received, seen.len() as u64);
        assert_eq!(stats.behind, 500 - seen.len() as u64);
    }
    assert!(seen.into_iter().eq(0..500));
}

#[test]
fn a_receiver_that_fell_behind_is_told_how_many_it_lost() {
    let (topic, _) = topic(log(64, WhenBehind::Lag));
    let mut slow = topic.receiver(ReceiverConfig::default()).unwrap();
    let mut fast = topic.receiver(ReceiverConfig::default()).unwrap();
    for n in 0..1000 {
        topic.try_publish(n).unwrap();
        assert_eq!(*fast.try_receive().unwrap(), n);
    }
    let Err(TryReceiveError::Lagged { lost }) = slow.try_receive() else {
        panic!("it is 1,000 behind and 64 are kept")
    };
    assert!((1000 - 64 - 8..=1000 - 64).contains(&lost), "{lost}");
    let mut next = lost;
    while let Ok(notification) = slow.try_receive() {
        assert_eq!(*notification, next);
        next += 1;
    }
    assert_eq!(next, 1000, "nothing else is missing");
    assert_eq!(slow.stats().lagged, lost);
    assert_eq!(slow.stats().received, 1000 - lost);
    assert_eq!(topic.stats().lagged, lost);
}

#[test]
fn a_topic_that_refuses_loses_nothing_and_waits_for_the_slowest() {
    let (topic, _) = topic(log(4, WhenBehind::Refuse));
    let mut receiver = topic.receiver(ReceiverConfig::default()).unwrap();
    for n in 0..4 {
        topic.try_publish(n).unwrap();
    }
    let error = topic.try_publish(4).unwrap_err();
    assert_eq!(
        (error.reason.clone(), error.into_value()),
        (Refusal::Full, 4)
    );
    let mut values = vec![4, 5];
    assert_eq!(topic.try_publish_values(&mut values), Err(Refusal::Full));
    assert_eq!(values, [4, 5]);
    assert_eq!(receiver.try_receive_batch(3).unwrap().len(), 3);
    assert_eq!(topic.try_publish_values(&mut vec![4, 5, 6, 7]), Ok(3));
    drop(receiver);
    topic.try_publish(9).unwrap();
}

#[test]
fn a_publisher_waits_for_room_and_gives_up_at_its_deadline() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (topic, time) = topic(log(1, WhenBehind::Refuse));
    let mut receiver = topic.receiver(ReceiverConfig::default()).unwrap();
    topic.try_publish(1).unwrap();
    runtime.block_on(async {
        let deadline = time.now() + secs(5);
        let (outcome, ()) = tokio::join!(topic.publish_until(2, deadline), time.run_to(deadline));
        assert!(matches!(outcome, Err(WaitError::Elapsed(error)) if error.message.value == 2));
        let (outcome, received) = tokio::join!(topic.publish(3), receiver.receive());
        assert!(outcome.is_ok());
        assert_eq!(*received.unwrap(), 1);
        assert_eq!(*receiver.receive().await.unwrap(), 3);
    });
}

#[test]
fn threads_that_wait_are_woken_each_of_them() {
    let topic: Topic<u64> = Topic::new(TopicConfig::default()).unwrap();
    let receivers: Vec<_> = (0..4)
        .map(|_| topic.receiver(ReceiverConfig::default()).unwrap())
        .collect();
    let threads: Vec<_> = receivers
        .into_iter()
        .map(|mut receiver| {
            std::thread::spawn(move || {
                let mut sum = 0;
                loop {
                    match receiver.receive_blocking() {
                        Ok(notification) => sum += *notification,
                        Err(error) => break (sum, error),
                    }
                }
            })
        })
        .collect();
    for n in 0..100 {
        topic.try_publish(n).unwrap();
        std::thread::yield_now();
    }
    topic.close();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), (4950, ReceiveError::Closed));
    }
}

#[test]
fn a_receiver_with_a_filter_has_a_mailbox_that_loses_the_oldest() {
    let (topic, _) = topic(TopicConfig::default());
    let mut receiver = topic
        .receiver(ReceiverConfig {
            filter: Filter::closure(|message: &Message<u64>| message.value.is_multiple_of(10)),
            mailbox: 2,
            ..ReceiverConfig::default()
        })
        .unwrap();
    for n in 0..50 {
        topic.try_publish(n).unwrap();
    }
    assert_eq!(
        receiver.try_receive().unwrap_err(),
        TryReceiveError::Lagged { lost: 3 }
    );
    assert_eq!(*receiver.try_receive().unwrap(), 30);
    assert_eq!(*receiver.try_receive_ref().unwrap().value(), 40);
    assert_eq!(receiver.try_receive().unwrap_err(), TryReceiveError::Empty);
    let stats = receiver.stats();
    assert_eq!((stats.received, stats.lagged, stats.behind), (2, 3, 0));
    topic.try_publish(60).unwrap();
    topic.close();
    assert_eq!(receiver.try_receive_batch(9).unwrap().len(), 1);
    assert_eq!(receiver.try_receive().unwrap_err(), TryReceiveError::Closed);
}

#[tokio::test]
async fn a_receiver_is_a_stream_that_ends_with_its_topic() {
    let topic: Topic<u64> = Topic::new(TopicConfig::default()).unwrap();
    let receiver = topic.receiver(ReceiverConfig::default()).unwrap();
    let filtered = topic
        .receiver(ReceiverConfig {
            filter: Filter::closure(|message: &Message<u64>| message.value > 1),
            ..ReceiverConfig::default()
        })
        .unwrap();
    let publishing = tokio::spawn(async move {
        for n in 0..4 {
            topic.try_publish(n).unwrap();
            tokio::task::yield_now().await;
        }
        // The last handle goes.
    });
    let all: Vec<u64> = receiver.map(|item| *item.unwrap()).collect().await;
    let some: Vec<u64> = filtered.map(|item| *item.unwrap()).collect().await;
    publishing.await.unwrap();
    assert_eq!((all, some), (vec![0, 1, 2, 3], vec![2, 3]));
}

#[test]
fn the_log_gives_its_memory_back() {
    struct Counted(std::sync::Arc<()>);
    let alive = std::sync::Arc::new(());
    let topic = Topic::new(TopicConfig::default()).unwrap();
    let mut receiver = topic.receiver(ReceiverConfig::default()).unwrap();
    for _ in 0..100_000 {
        topic
            .try_publish(Counted(std::sync::Arc::clone(&alive)))
            .unwrap();
        let received = receiver.try_receive_ref().unwrap();
        assert!(std::sync::Arc::ptr_eq(&received.value().0, &alive));
    }
    assert!(
        std::sync::Arc::strong_count(&alive) < 20_000,
        "what all have read goes"
    );
    assert!(topic.stats().log_bytes < 2 << 20);
    drop(receiver);
    drop(topic);
    assert_eq!(std::sync::Arc::strong_count(&alive), 1);
}

#[test]
fn the_log_is_bounded_in_bytes_too() {
    for when_behind in [WhenBehind::Lag, WhenBehind::Refuse] {
        let topic = Topic::new(TopicConfig {
            log: LogConfig {
                capacity: 1_000_000,
                max_bytes: 1 << 20,
                when_behind,
            },
            ..TopicConfig::default()
        })
        .unwrap();
        let mut receiver = topic.receiver(ReceiverConfig::default()).unwrap();
        let mut refused = 0;
        for n in 0..10_000_u64 {
            refused += u64::from(topic.try_publish([n; 128]).is_err());
        }
        assert!(
            topic.stats().log_bytes <= 3 << 20,
            "{}",
            topic.stats().log_bytes
        );
        match when_behind {
            WhenBehind::Refuse => {
                assert!(refused > 0);
                assert_eq!(receiver.try_receive().unwrap()[0], 0);
            }
            _ => {
                assert_eq!(refused, 0);
                assert!(matches!(
                    receiver.try_receive(),
                    Err(TryReceiveError::Lagged { .. })
                ));
            }
        }
    }
}
