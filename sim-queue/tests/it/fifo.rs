//! FIFO queues through the handle: order within groups, de-duplication, receive attempts.

use std::time::Duration;

use sim_core::time::Instant;
use sim_queue::{
    Deduplication, DeduplicationScope, ExtendError, FifoConfig, InvalidReceive, Kind, Message,
    MessageDelay, OnDrop, Queue, QueueConfig, Receive, Refusal, SequenceNumber, Stale,
    TryReceiveError,
};

use crate::rig::{
    START, Task, acknowledge_all, at_most, attempt, block_on, dedup, drain, group, of, queue,
    reconcile, secs, take, values,
};

fn fifo() -> (Queue<u32>, sim_core::clock::VirtualClock) {
    queue(QueueConfig::fifo("q.fifo"))
}

fn with(fifo: FifoConfig) -> QueueConfig {
    QueueConfig {
        kind: Kind::Fifo(fifo),
        ..QueueConfig::new("q.fifo")
    }
}

fn send_all(queue: &Queue<u32>, name: &str, values: impl IntoIterator<Item = u32>) {
    for value in values {
        queue.try_send(of(name, value)).unwrap();
    }
}

// ---- order -------------------------------------------------------------------------------------------

#[test]
fn a_group_is_received_in_the_order_of_sending() {
    let (queue, _) = fifo();
    send_all(&queue, "a", 0..100);
    assert_eq!(drain(&queue), (0..100).collect::<Vec<_>>());
    reconcile(&queue);
}

#[test]
fn a_message_in_flight_holds_its_group_back() {
    let (queue, _) = fifo();
    send_all(&queue, "a", [1, 2]);
    let first = queue.try_receive().unwrap();
    assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Empty);
    assert_eq!(queue.stats().visible, 1);
    first.acknowledge().unwrap();
    assert_eq!(*queue.try_receive().unwrap(), 2);
}

#[test]
fn a_group_in_flight_never_blocks_another() {
    let (queue, _) = fifo();
    for n in 0..10 {
        send_all(&queue, &format!("g{n}"), [n, n + 100]);
    }
    let held: Vec<_> = (0..10).map(|_| queue.try_receive().unwrap()).collect();
    assert_eq!(values(&held), (0..10).collect::<Vec<_>>());
    assert!(queue.try_receive().is_err());
    assert_eq!(queue.stats().groups_in_flight, 10);
    let mut held = held;
    held.swap_remove(3).acknowledge().unwrap();
    assert_eq!(*queue.try_receive().unwrap(), 103);
}

#[test]
fn one_receive_takes_several_messages_of_a_group_in_order() {
    let (queue, _) = fifo();
    send_all(&queue, "a", 0..5);
    let batch = take(&queue, 3);
    assert_eq!(values(&batch), [0, 1, 2]);
    assert!(take(&queue, 3).is_empty());
    let mut batch = batch.into_iter();
    batch.next().unwrap().acknowledge().unwrap();
    batch.next().unwrap().acknowledge().unwrap();
    assert!(
        take(&queue, 3).is_empty(),
        "one of the batch is in flight still"
    );
    batch.next().unwrap().acknowledge().unwrap();
    assert_eq!(values(&take(&queue, 3)), [3, 4]);
}

#[test]
fn a_released_message_comes_before_the_later_ones_of_its_group() {
    let (queue, _) = fifo();
    send_all(&queue, "a", 0..4);
    let mut batch = take(&queue, 2);
    batch.remove(0).release().unwrap();
    assert!(queue.try_receive().is_err(), "its successor is in flight");
    batch.remove(0).release().unwrap();
    assert_eq!(values(&take(&queue, 10)), [0, 1, 2, 3]);
}

#[test]
fn dropped_deliveries_return_in_the_order_of_their_group() {
    let (queue, _) = fifo();
    send_all(&queue, "a", 0..4);
    let mut batch = take(&queue, 3);
    batch.reverse();
    drop(batch);
    assert_eq!(drain(&queue), [0, 1, 2, 3]);
}

#[test]
fn every_choice_for_a_dropped_delivery_holds_on_fifo_and_fair_queues() {
    for kind in [Kind::fifo(), Kind::fair()] {
        for (on_drop, now, later) in [
            (OnDrop::Return, (1, 0, 0), (1, 0, 0)),
            (OnDrop::Expire, (0, 1, 0), (1, 0, 0)),
            (OnDrop::Acknowledge, (0, 0, 1), (0, 0, 1)),
        ] {
            let config = QueueConfig {
                on_drop,
                kind: kind.clone(),
                ..QueueConfig::new("q")
            };
            let (queue, hand) = queue(config);
            send_all(&queue, "a", [7]);
            drop(queue.try_receive().unwrap());
            let stats = queue.stats();
            assert_eq!(
                (stats.visible, stats.in_flight, stats.deleted),
                now,
                "{on_drop:?}"
            );
            hand.advance(secs(30));
            let stats = queue.stats();
            assert_eq!(
                (stats.visible, stats.in_flight, stats.deleted),
                later,
                "{on_drop:?}"
            );
        }
    }
}

#[test]
fn a_group_goes_on_from_its_first_message_after_a_timeout() {
    let (queue, hand) = fifo();
    send_all(&queue, "a", [1, 2]);
    let late = queue.try_receive().unwrap();
    hand.advance(secs(30));
    let again = queue.try_receive().unwrap();
    assert_eq!((*again, again.receive_count()), (1, 2));
    assert!(queue.try_receive().is_err());
    assert_eq!(late.acknowledge(), Err(Stale));
    again.acknowledge().unwrap();
    assert_eq!(*queue.try_receive().unwrap(), 2);
}

#[test]
fn a_receipt_of_a_fifo_queue_ends_with_its_timeout() {
    let (queue, hand) = fifo();
    send_all(&queue, "a", [1]);
    let late = queue.try_receive().unwrap();
    hand.advance(secs(30));
    // Nobody received it since, and a standard queue would take the acknowledgement.
    assert_eq!(late.acknowledge(), Err(Stale));
    assert_eq!(queue.stats().visible, 1);
}

#[test]
fn a_lengthened_visibility_keeps_the_later_messages_back() {
    let (queue, hand) = fifo();
    send_all(&queue, "a", [1, 2, 3]);
    let mut batch = take(&queue, 2);
    batch[0].extend(secs(60)).unwrap();
    hand.advance(secs(30));
    // The second one's lease ended, but it may not overtake the first.
    assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Empty);
    hand.advance(secs(29));
    assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Empty);
    hand.advance(secs(1));
    assert_eq!(values(&take(&queue, 10)), [1, 2, 3]);
}

#[test]
fn a_group_goes_on_when_the_lengthened_message_is_acknowledged() {
    let (queue, hand) = fifo();
    send_all(&queue, "a", [1, 2, 3]);
    let mut batch = take(&queue, 2);
    batch[0].extend(secs(60)).unwrap();
    hand.advance(secs(30));
    batch.remove(0).acknowledge().unwrap();
    assert_eq!(values(&take(&queue, 10)), [2, 3]);
}

#[test]
fn a_message_released_for_later_keeps_its_group_back() {
    let (queue, hand) = fifo();
    send_all(&queue, "a", [1, 2]);
    send_all(&queue, "b", [10]);
    queue
        .try_receive()
        .unwrap()
        .release_after(secs(45))
        .unwrap();
    assert_eq!(drain(&queue), [10]);
    hand.advance(secs(44));
    assert!(queue.try_receive().is_err());
    hand.advance(secs(1));
    assert_eq!(drain(&queue), [1, 2]);
}

#[test]
fn a_message_released_for_later_has_no_holder() {
    let (queue, hand) = fifo();
    send_all(&queue, "a", [1]);
    let delivery = queue.try_receive().unwrap();
    let receipt = delivery.receipt();
    delivery.release_after(secs(5)).unwrap();
    assert_eq!(queue.acknowledge(&receipt), Err(Stale));
    assert_eq!(
        queue.change_visibility(&receipt, secs(50)),
        Err(ExtendError::Stale(Stale))
    );
    hand.advance(secs(5));
    assert_eq!(drain(&queue), [1]);
}

#[test]
fn a_send_into_a_group_in_flight_does_not_unblock_it() {
    let (queue, _) = fifo();
    send_all(&queue, "a", [1]);
    let held = queue.try_receive().unwrap();
    send_all(&queue, "a", [2, 3]);
    assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Empty);
    let mut waiting = Task::waiting(queue.receive());
    send_all(&queue, "a", [4]);
    assert!(waiting.run().is_none());
    held.acknowledge().unwrap();
    assert_eq!(*waiting.run().unwrap().unwrap(), 2);
}

#[test]
fn a_send_into_a_group_that_was_emptied_while_in_flight_stays_behind() {
    let (queue, _) = fifo();
    send_all(&queue, "a", [1, 2]);
    let mut batch = take(&queue, 2);
    batch.remove(0).acknowledge().unwrap();
    send_all(&queue, "a", [3]);
    assert!(queue.try_receive().is_err());
    batch.remove(0).acknowledge().unwrap();
    assert_eq!(drain(&queue), [3]);
}

#[test]
fn groups_take_turns() {
    let (queue, _) = fifo();
    send_all(&queue, "a", 0..3);
    send_all(&queue, "b", 10..13);
    send_all(&queue, "c", 20..23);
    assert_eq!(drain(&queue), [0, 10, 20, 1, 11, 21, 2, 12, 22]);
}

#[test]
fn a_thousand_groups_keep_their_order_over_releases_and_timeouts() {
    let (queue, hand) = queue(QueueConfig {
        on_drop: OnDrop::Return,
        ..QueueConfig::fifo("q.fifo")
    });
    for n in 0..5000_u32 {
        queue.try_send(of(format!("g{}", n % 1000), n)).unwrap();
    }
    let mut random = sim_core::random::Random::new(3);
    let mut done: Vec<Vec<u32>> = vec![Vec::new(); 1000];
    while queue.stats().deleted < 5000 {
        let mut lost = Vec::new();
        for delivery in take(&queue, 300) {
            match random.below(4) {
                0 => delivery.release().unwrap(),
                1 => lost.push(delivery.into_receipt()),
                _ => {
                    let group = (*delivery % 1000) as usize;
                    // Only the first of a group's batch may be judged done; the rest go back.
                    if done[group]
                        .last()
                        .map_or(0, |last| last + 1000)
                        .max(group as u32)
                        == *delivery
                    {
                        done[group].push(*delivery);
                        delivery.acknowledge().unwrap();
                    }
                }
            }
        }
        hand.advance(secs(30));
        assert!(
            lost.iter()
                .all(|receipt| queue.acknowledge(receipt).is_err())
        );
    }
    for (group, seen) in done.iter().enumerate() {
        let expected: Vec<u32> = (0..5).map(|n| n * 1000 + group as u32).collect();
        assert_eq!(*seen, expected);
    }
    reconcile(&queue);
}

#[test]
fn at_the_cap_in_flight_a_fifo_queue_says_that_it_is_empty() {
    let (queue, _) = queue(QueueConfig {
        max_in_flight: 2,
        ..QueueConfig::fifo("q.fifo")
    });
    for n in 0..4 {
        send_all(&queue, &format!("g{n}"), [n]);
    }
    let mut held = take(&queue, 10);
    assert_eq!(held.len(), 2);
    assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Empty);
    let mut waiting = Task::waiting(queue.receive());
    held.pop().unwrap().acknowledge().unwrap();
    assert_eq!(*waiting.run().unwrap().unwrap(), 2);
}

#[test]
fn a_cap_that_is_smaller_than_a_batch_cuts_the_group() {
    let (queue, _) = queue(QueueConfig {
        max_in_flight: 2,
        ..QueueConfig::fifo("q.fifo")
    });
    send_all(&queue, "a", 0..4);
    let batch = take(&queue, 10);
    assert_eq!(values(&batch), [0, 1]);
    acknowledge_all(batch);
    assert_eq!(values(&take(&queue, 10)), [2, 3]);
}

#[test]
fn a_fifo_message_needs_a_group() {
    let (queue, _) = fifo();
    let error = queue.try_send(7).unwrap_err();
    assert_eq!(error.reason, Refusal::MissingGroup);
    assert_eq!(error.into_value(), 7);
    assert_eq!(queue.stats().sent, 0);
}

#[test]
fn a_delivery_knows_its_group_and_de_duplication_id() {
    let (queue, _) = fifo();
    queue
        .try_send(of("N14228", 1).deduplication_id(dedup("d-1")))
        .unwrap();
    let delivery = queue.try_receive().unwrap();
    assert_eq!(delivery.group(), Some(&group("N14228")));
    assert_eq!(delivery.deduplication_id(), Some(&dedup("d-1")));
    assert_eq!(delivery.sent_at(), START);
}

#[test]
fn a_full_fifo_queue_refuses_and_goes_on_when_received_from() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(2),
        ..QueueConfig::fifo("q.fifo")
    });
    send_all(&queue, "a", [1, 2]);
    assert!(queue.try_send(of("b", 3)).unwrap_err().is_full());
    let mut sender = Task::waiting(queue.send(of("b", 3)));
    let first = queue.try_receive().unwrap();
    assert!(sender.run().is_some_and(|sent| sent.is_ok()));
    first.release().unwrap();
    assert_eq!(queue.stats().visible, 3);
}

#[test]
fn retention_ends_also_a_fifo_message_in_flight_and_frees_its_group() {
    let config = QueueConfig {
        retention: Some(secs(60)),
        ..QueueConfig::fifo("q.fifo")
    };
    let (queue, hand) = queue(config);
    send_all(&queue, "a", [1]);
    hand.advance(secs(50));
    send_all(&queue, "a", [2]);
    let mut held = queue.try_receive().unwrap();
    held.extend(secs(300)).unwrap();
    hand.advance(secs(10));
    assert_eq!(queue.stats().expired, 1);
    assert_eq!(drain(&queue), [2]);
    assert_eq!(held.acknowledge(), Err(Stale));
    reconcile(&queue);
}

#[test]
fn a_purge_frees_every_group() {
    let (queue, _) = fifo();
    send_all(&queue, "a", [1, 2]);
    let held = queue.try_receive().unwrap();
    assert_eq!(queue.purge(), 2);
    send_all(&queue, "a", [3]);
    assert_eq!(*queue.try_receive().unwrap(), 3);
    assert_eq!(*held, 1);
    assert_eq!(held.release(), Err(Stale));
    reconcile(&queue);
}

// ---- delays ------------------------------------------------------------------------------------------

#[test]
fn a_delayed_message_does_not_block_the_earlier_visible_ones() {
    let config = with(FifoConfig {
        message_delay: MessageDelay::PerMessage,
        ..FifoConfig::default()
    });
    let (queue, hand) = queue(config);
    send_all(&queue, "a", [1, 2]);
    queue.try_send(of("a", 3).delay(secs(60))).unwrap();
    assert_eq!(drain(&queue), [1, 2]);
    assert!(queue.try_receive().is_err());
    hand.advance(secs(60));
    assert_eq!(drain(&queue), [3]);
}

#[test]
fn messages_behind_a_delayed_one_wait_for_it() {
    let config = with(FifoConfig {
        message_delay: MessageDelay::PerMessage,
        ..FifoConfig::default()
    });
    let (queue, hand) = queue(config);
    queue.try_send(of("a", 1).delay(secs(60))).unwrap();
    send_all(&queue, "a", [2]);
    send_all(&queue, "b", [10]);
    assert_eq!(drain(&queue), [10]);
    hand.advance(secs(60));
    assert_eq!(drain(&queue), [1, 2]);
}

#[test]
fn a_delay_per_message_is_refused_unless_allowed() {
    let (queue, _) = fifo();
    let error = queue.try_send(of("a", 1).delay(secs(5))).unwrap_err();
    assert_eq!(error.reason, Refusal::DelayOnFifo);
    assert_eq!(queue.stats().sent, 0);
}

#[test]
fn a_changed_delay_holds_also_for_what_is_delayed_now() {
    let (queue, hand) = queue(QueueConfig {
        delay: secs(60),
        ..QueueConfig::fifo("q.fifo")
    });
    send_all(&queue, "a", [1]);
    hand.advance(secs(10));
    queue.set_delay(secs(15)).unwrap();
    hand.advance(secs(4));
    assert!(queue.try_receive().is_err());
    hand.advance(secs(1));
    assert_eq!(drain(&queue), [1]);
}

#[test]
fn a_shortened_delay_wakes_a_waiting_receiver() {
    let (queue, hand) = queue(QueueConfig {
        delay: secs(60),
        ..QueueConfig::fifo("q.fifo")
    });
    send_all(&queue, "a", [1]);
    let mut receiver = Task::waiting(queue.receive());
    queue.set_delay(secs(15)).unwrap();
    assert!(receiver.run().is_none());
    hand.advance(secs(15));
    assert_eq!(*receiver.run().unwrap().unwrap(), 1);
}

#[test]
fn a_changed_timeout_holds_for_later_fifo_receives() {
    let (queue, hand) = fifo();
    send_all(&queue, "a", [1]);
    send_all(&queue, "b", [2]);
    let _long = queue.try_receive().unwrap();
    queue.set_visibility_timeout(secs(5)).unwrap();
    let _short = queue.try_receive().unwrap();
    hand.advance(secs(5));
    assert_eq!(*queue.try_receive().unwrap(), 2);
    hand.advance(secs(25));
    assert_eq!(values(&take(&queue, 10)).len(), 2);
}

// ---- de-duplication ----------------------------------------------------------------------------------

#[test]
fn a_repeated_id_is_answered_with_the_first_send() {
    let (queue, _) = fifo();
    let first = queue
        .try_send(of("a", 1).deduplication_id(dedup("x")))
        .unwrap();
    let again = queue
        .try_send(of("a", 2).deduplication_id(dedup("x")))
        .unwrap();
    assert!(again.duplicate && !first.duplicate);
    assert_eq!((again.id, again.sequence), (first.id, first.sequence));
    let stats = queue.stats();
    assert_eq!((stats.sent, stats.deduplicated, stats.visible), (1, 1, 1));
    assert_eq!(drain(&queue), [1]);
    reconcile(&queue);
}

#[test]
fn the_window_outlives_the_deletion_of_its_message() {
    let (queue, hand) = fifo();
    let first = queue
        .try_send(of("a", 1).deduplication_id(dedup("x")))
        .unwrap();
    assert_eq!(drain(&queue), [1]);
    hand.advance(secs(299));
    let again = queue
        .try_send(of("a", 2).deduplication_id(dedup("x")))
        .unwrap();
    assert_eq!((again.duplicate, again.id), (true, first.id));
    // A repetition does not lengthen the window.
    hand.advance(secs(1));
    let new = queue
        .try_send(of("a", 3).deduplication_id(dedup("x")))
        .unwrap();
    assert!(!new.duplicate && new.id != first.id);
    assert_eq!(drain(&queue), [3]);
}

#[test]
fn the_window_outlives_a_purge() {
    let (queue, _) = fifo();
    queue
        .try_send(of("a", 1).deduplication_id(dedup("x")))
        .unwrap();
    queue.purge();
    assert!(
        queue
            .try_send(of("a", 1).deduplication_id(dedup("x")))
            .unwrap()
            .duplicate
    );
    assert_eq!(queue.stats().visible, 0);
}

#[test]
fn the_window_is_as_long_as_configured() {
    let config = with(FifoConfig {
        deduplication_window: secs(10),
        ..FifoConfig::default()
    });
    let (queue, hand) = queue(config);
    queue
        .try_send(of("a", 1).deduplication_id(dedup("x")))
        .unwrap();
    hand.advance(Duration::from_nanos(9_999_999_999));
    assert!(
        queue
            .try_send(of("a", 1).deduplication_id(dedup("x")))
            .unwrap()
            .duplicate
    );
    hand.advance(Duration::from_nanos(1));
    assert!(
        !queue
            .try_send(of("a", 1).deduplication_id(dedup("x")))
            .unwrap()
            .duplicate
    );
}

#[test]
fn an_id_is_unique_in_the_whole_queue_by_default() {
    let (queue, _) = fifo();
    queue
        .try_send(of("a", 1).deduplication_id(dedup("x")))
        .unwrap();
    assert!(
        queue
            .try_send(of("b", 2).deduplication_id(dedup("x")))
            .unwrap()
            .duplicate
    );
}

#[test]
fn an_id_is_unique_in_its_group_if_told_so() {
    let config = with(FifoConfig {
        deduplication_scope: DeduplicationScope::Group,
        ..FifoConfig::default()
    });
    let (queue, _) = queue(config);
    queue
        .try_send(of("a", 1).deduplication_id(dedup("x")))
        .unwrap();
    assert!(
        !queue
            .try_send(of("b", 2).deduplication_id(dedup("x")))
            .unwrap()
            .duplicate
    );
    assert!(
        queue
            .try_send(of("a", 3).deduplication_id(dedup("x")))
            .unwrap()
            .duplicate
    );
    assert_eq!(drain(&queue), [1, 2]);
}

#[test]
fn equal_payloads_without_an_id_are_different_messages() {
    let (queue, _) = fifo();
    send_all(&queue, "a", [7, 7]);
    assert_eq!(drain(&queue), [7, 7]);
}

#[test]
fn a_queue_that_requires_ids_refuses_what_has_none() {
    let config = with(FifoConfig {
        deduplication: Deduplication::Required,
        ..FifoConfig::default()
    });
    let (queue, _) = queue(config);
    let error = queue.try_send(of("a", 1)).unwrap_err();
    assert_eq!(error.reason, Refusal::MissingDeduplicationId);
    assert!(
        queue
            .try_send(of("a", 1).deduplication_id(dedup("x")))
            .is_ok()
    );
}

fn by_content() -> (Queue<u32>, sim_core::clock::VirtualClock) {
    let (clock, hand) = sim_core::clock::Clock::virtual_at(START);
    let config = with(FifoConfig {
        deduplication: Deduplication::ByContent,
        ..FifoConfig::default()
    });
    let key = |value: &u32| {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&value.to_le_bytes());
        key
    };
    (
        Queue::builder(config)
            .clock(clock)
            .content_key(key)
            .build()
            .unwrap(),
        hand,
    )
}

#[test]
fn the_content_stands_in_for_an_id() {
    let (queue, hand) = by_content();
    let first = queue.try_send(of("a", 1)).unwrap();
    let again = queue.try_send(of("a", 1)).unwrap();
    assert_eq!((again.duplicate, again.id), (true, first.id));
    assert!(!queue.try_send(of("a", 2)).unwrap().duplicate);
    hand.advance(secs(300));
    assert!(!queue.try_send(of("a", 1)).unwrap().duplicate);
}

#[test]
fn an_id_goes_before_the_content() {
    let (queue, _) = by_content();
    queue
        .try_send(of("a", 1).deduplication_id(dedup("x")))
        .unwrap();
    assert!(
        !queue
            .try_send(of("a", 1).deduplication_id(dedup("y")))
            .unwrap()
            .duplicate
    );
    assert!(
        queue
            .try_send(of("a", 2).deduplication_id(dedup("x")))
            .unwrap()
            .duplicate
    );
    assert!(!queue.try_send(of("a", 1)).unwrap().duplicate);
}

#[test]
fn de_duplication_by_content_needs_to_know_the_content() {
    let config = with(FifoConfig {
        deduplication: Deduplication::ByContent,
        ..FifoConfig::default()
    });
    let error = Queue::<u32>::new(config).unwrap_err();
    assert_eq!(error, sim_queue::ConfigError::NoContentKey);
}

#[test]
fn a_full_window_refuses_and_takes_again_when_it_moves_on() {
    let config = with(FifoConfig {
        deduplication_limit: 2,
        ..FifoConfig::default()
    });
    let (queue, hand) = queue(config);
    let send = |id: &str| queue.try_send(of("a", 1).deduplication_id(dedup(id)));
    send("x").unwrap();
    hand.advance(secs(100));
    send("y").unwrap();
    assert_eq!(
        send("z").unwrap_err().reason,
        Refusal::DeduplicationWindowFull { limit: 2 }
    );
    assert!(send("x").unwrap().duplicate);
    assert!(
        queue.try_send(of("a", 2)).is_ok(),
        "what has no id needs no place"
    );
    hand.advance(secs(200));
    assert!(!send("z").unwrap().duplicate);
    assert!(send("x").is_err());
}

#[test]
fn a_sender_waits_for_a_full_window() {
    let config = with(FifoConfig {
        deduplication_limit: 1,
        ..FifoConfig::default()
    });
    let (queue, hand) = queue(config);
    queue
        .try_send(of("a", 1).deduplication_id(dedup("x")))
        .unwrap();
    let mut sender = Task::waiting(queue.send(of("a", 2).deduplication_id(dedup("y"))));
    for _ in 0..299 {
        hand.advance(secs(1));
        assert!(sender.run().is_none());
    }
    hand.advance(secs(1));
    assert!(sender.run().is_some_and(|sent| sent.is_ok()));
}

#[test]
fn a_duplicate_is_recognised_by_a_full_queue() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(1),
        ..QueueConfig::fifo("q.fifo")
    });
    queue
        .try_send(of("a", 1).deduplication_id(dedup("x")))
        .unwrap();
    assert!(
        queue
            .try_send(of("a", 1).deduplication_id(dedup("x")))
            .unwrap()
            .duplicate
    );
    assert!(
        queue
            .try_send(of("a", 2).deduplication_id(dedup("y")))
            .unwrap_err()
            .is_full()
    );
    // The refused one was not remembered.
    drain(&queue);
    assert!(
        !queue
            .try_send(of("a", 2).deduplication_id(dedup("y")))
            .unwrap()
            .duplicate
    );
}

#[test]
fn a_standard_queue_takes_neither_group_nor_de_duplication_id() {
    let (queue, _) = queue(QueueConfig::new("q"));
    assert_eq!(
        queue.try_send(of("a", 1)).unwrap_err().reason,
        Refusal::UnexpectedGroup
    );
    let message = Message::new(1).deduplication_id(dedup("x"));
    assert_eq!(
        queue.try_send(message).unwrap_err().reason,
        Refusal::UnexpectedDeduplicationId
    );
}

// ---- sequence numbers --------------------------------------------------------------------------------

#[test]
fn sequence_numbers_grow_and_arrive_with_their_messages() {
    let (queue, _) = fifo();
    let mut sent = Vec::new();
    for n in 0..20 {
        sent.push(
            queue
                .try_send(of(format!("g{}", n % 3), n))
                .unwrap()
                .sequence
                .unwrap(),
        );
    }
    assert!(sent.is_sorted_by(|a, b| a < b));
    while let Ok(delivery) = queue.try_receive() {
        assert_eq!(delivery.sequence(), Some(sent[*delivery as usize]));
        delivery.acknowledge().unwrap();
    }
    assert_eq!(sent[0].to_string().len(), 20);
    assert!(
        sent.windows(2)
            .all(|pair| pair[0].to_string() < pair[1].to_string())
    );
    assert_ne!(sent[0], SequenceNumber::new(0));
}

#[test]
fn a_redelivered_message_keeps_its_sequence_number() {
    let (queue, _) = fifo();
    let sent = queue.try_send(of("a", 1)).unwrap();
    queue.try_receive().unwrap().release().unwrap();
    let again = queue.try_receive().unwrap();
    assert_eq!((again.sequence(), again.id()), (sent.sequence, sent.id));
}

// ---- receive attempts --------------------------------------------------------------------------------

fn ask(id: &str) -> Receive {
    Receive {
        attempt: Some(attempt(id)),
        ..at_most(10)
    }
}

#[test]
fn a_repeated_attempt_returns_the_same_messages_under_the_same_leases() {
    let (queue, hand) = fifo();
    send_all(&queue, "a", [1, 2]);
    send_all(&queue, "b", [10]);
    let lost = queue.try_receive_with(&ask("one")).unwrap();
    hand.advance(secs(20));
    let again = queue.try_receive_with(&ask("one")).unwrap();
    assert_eq!(values(&again), values(&lost));
    assert!(again.iter().all(|delivery| delivery.receive_count() == 1));
    assert_eq!(queue.stats().received, 3);
    // Their timeouts started again.
    hand.advance(secs(29));
    assert_eq!(queue.stats().in_flight, 3);
    acknowledge_all(again);
    assert_eq!(queue.stats().deleted, 3);
}

#[test]
fn another_attempt_is_another_receive() {
    let (queue, _) = fifo();
    send_all(&queue, "a", [1]);
    send_all(&queue, "b", [2]);
    let one = Receive {
        attempt: Some(attempt("one")),
        ..at_most(1)
    };
    let two = Receive {
        attempt: Some(attempt("two")),
        ..at_most(1)
    };
    let first = queue.try_receive_with(&one).unwrap();
    let second = queue.try_receive_with(&two).unwrap();
    assert_eq!((values(&first), values(&second)), (vec![1], vec![2]));
}

#[test]
fn an_attempt_whose_message_was_acknowledged_cannot_be_repeated() {
    let (queue, _) = fifo();
    send_all(&queue, "a", [1, 2]);
    let mut got = queue.try_receive_with(&ask("one")).unwrap();
    got.remove(0).acknowledge().unwrap();
    let error = queue.try_receive_with(&ask("one")).unwrap_err();
    assert_eq!(
        error,
        TryReceiveError::Invalid(InvalidReceive::AttemptChanged)
    );
    assert_eq!(queue.stats().in_flight, 1);
}

#[test]
fn an_attempt_whose_leases_ended_is_a_new_receive() {
    let (queue, hand) = fifo();
    send_all(&queue, "a", [1]);
    let _lost = queue.try_receive_with(&ask("one")).unwrap();
    hand.advance(secs(30));
    let again = queue.try_receive_with(&ask("one")).unwrap();
    assert_eq!(again[0].receive_count(), 2);
}

#[test]
fn an_attempt_that_found_nothing_is_not_remembered() {
    let (queue, _) = fifo();
    assert_eq!(
        queue.try_receive_with(&ask("one")).unwrap_err(),
        TryReceiveError::Empty
    );
    send_all(&queue, "a", [1]);
    assert_eq!(queue.try_receive_with(&ask("one")).unwrap().len(), 1);
}

#[test]
fn an_attempt_waits_for_messages_as_any_receive_does() {
    let (queue, _) = fifo();
    let first = ask("one");
    let mut receiver = Task::waiting(queue.receive_with(&first));
    send_all(&queue, "a", [1]);
    let lost = receiver.run().unwrap().unwrap();
    assert_eq!(values(&lost), [1]);
    assert_eq!(values(&block_on(queue.receive_with(&first)).unwrap()), [1]);
}

#[test]
fn as_many_attempts_are_remembered_as_configured() {
    let (queue, hand) = queue(with(FifoConfig {
        attempt_limit: 1,
        ..FifoConfig::default()
    }));
    send_all(&queue, "a", [1]);
    send_all(&queue, "b", [2]);
    let one = Receive {
        attempt: Some(attempt("one")),
        visibility_timeout: Some(secs(1000)),
        ..at_most(1)
    };
    let _held = queue.try_receive_with(&one).unwrap();
    let error = queue.try_receive_with(&ask("two")).unwrap_err();
    let full = InvalidReceive::AttemptWindowFull { limit: 1 };
    assert_eq!(error, TryReceiveError::Invalid(full));
    hand.advance(secs(300));
    assert_eq!(values(&queue.try_receive_with(&ask("two")).unwrap()), [2]);
}

#[test]
fn only_a_fifo_queue_remembers_attempts() {
    for config in [QueueConfig::new("q"), QueueConfig::fair("q")] {
        let (queue, _) = queue(config);
        let error = queue.try_receive_with(&ask("one")).unwrap_err();
        assert_eq!(
            error,
            TryReceiveError::Invalid(InvalidReceive::UnexpectedAttempt)
        );
    }
}

#[test]
fn a_fifo_queue_counts_a_lease_from_its_receive() {
    let config = QueueConfig {
        limits: sim_queue::Limits {
            message_bytes: None,
            ..sim_queue::Limits::aws()
        },
        ..QueueConfig::fifo("q.fifo")
    };
    let (queue, hand) = queue(config);
    send_all(&queue, "a", [1]);
    let mut held = queue.try_receive().unwrap();
    held.extend(secs(43_200)).unwrap();
    hand.advance(secs(1));
    assert!(matches!(
        held.extend(secs(43_200)),
        Err(ExtendError::TooLong { .. })
    ));
    hand.advance_to(Instant::ORIGIN + secs(43_199));
    assert!(queue.try_receive().is_err());
    hand.advance(secs(1));
    assert_eq!(queue.try_receive().unwrap().receive_count(), 2);
}

#[test]
fn the_statistics_of_a_fifo_queue_reconcile_whatever_happens() {
    let config = QueueConfig {
        retention: Some(secs(200)),
        capacity: Some(60),
        max_in_flight: 25,
        ..QueueConfig::fifo("q.fifo")
    };
    let (queue, hand) = queue(config);
    let mut random = sim_core::random::Random::new(2);
    let mut held = Vec::new();
    for step in 0..5000_u32 {
        match random.below(10) {
            0..=2 => drop(queue.try_send(of(format!("g{}", random.below(8)), step))),
            3 => {
                let id = random.below(40).to_string();
                drop(queue.try_send(of("g0", step).deduplication_id(dedup(&id))));
            }
            4 | 5 => held.extend(take(&queue, 4)),
            6 if random.below(100) == 0 => {
                let _ = queue.purge();
            }
            6 => hand.advance(secs(random.below(10))),
            _ if held.is_empty() => {}
            _ => {
                let at = usize::try_from(random.below(held.len() as u64)).unwrap();
                let mut delivery = held.swap_remove(at);
                match random.below(6) {
                    0 => {
                        let _ = delivery.release();
                    }
                    1 => {
                        let _ = delivery.release_after(secs(random.below(20)));
                    }
                    2 => {
                        let _ = delivery.extend(secs(random.below(60)));
                        held.push(delivery);
                    }
                    _ => {
                        let _ = delivery.acknowledge();
                    }
                }
            }
        }
        reconcile(&queue);
    }
    let stats = queue.stats();
    assert!(
        stats.deleted > 50 && stats.expired > 0 && stats.deduplicated > 0,
        "{stats:?}"
    );
}
