//! Batches: entry-wise results, plain values in bulk, many deliveries at once.

use std::time::Duration;

use sim_core::time::Instant;
use sim_queue::{
    InvalidReceive, Limits, Message, Queue, QueueConfig, Refusal, SendError, Stale, TryReceiveError,
};

use crate::rig::{
    Task, acknowledge_all, at_most, block_on, dedup, drain, of, queue, queue_of, reconcile, secs,
    take, until_asleep, values,
};

fn limited(config: QueueConfig) -> QueueConfig {
    QueueConfig {
        limits: Limits {
            message_bytes: None,
            ..Limits::aws()
        },
        ..config
    }
}

#[test]
fn a_batch_reports_on_each_entry_in_order() {
    let (queue, _) = queue(limited(QueueConfig::new("q")));
    let results = queue.try_send_batch([
        Message::new(1),
        Message::new(2).delay(secs(901)),
        of("a", 3),
        Message::new(4),
    ]);
    let reasons: Vec<_> = results
        .iter()
        .map(|result| result.as_ref().err().map(|error| error.reason.clone()))
        .collect();
    let delay = Refusal::Delay {
        value: secs(901),
        limit: secs(900),
    };
    assert_eq!(
        reasons,
        [None, Some(delay), Some(Refusal::UnexpectedGroup), None]
    );
    assert_eq!(drain(&queue), [1, 4]);
}

#[test]
fn the_ids_of_a_batch_are_those_of_its_messages() {
    let (queue, _) = queue(QueueConfig::new("q"));
    let sent: Vec<_> = queue
        .try_send_batch([1, 2, 3])
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let got = take(&queue, 3);
    assert_eq!(values(&got), [1, 2, 3]);
    assert!(
        got.iter()
            .zip(&sent)
            .all(|(delivery, sent)| delivery.id() == sent.id)
    );
}

#[test]
fn a_batch_beyond_its_limit_is_refused_as_a_whole() {
    let (queue, _) = queue(limited(QueueConfig::new("q")));
    let results = queue.try_send_batch(0..11);
    assert_eq!(results.len(), 11);
    for (n, result) in (0..).zip(results) {
        let error = result.unwrap_err();
        assert_eq!(
            error.reason,
            Refusal::BatchTooLong {
                count: 11,
                limit: 10
            }
        );
        assert_eq!(error.into_value(), n);
    }
    assert!(queue.try_send_batch(0..10).iter().all(Result::is_ok));
    assert_eq!(queue.stats().sent, 10);
    let refused = block_on(queue.send_batch(0..11));
    let reason = Refusal::BatchTooLong {
        count: 11,
        limit: 10,
    };
    assert!(
        refused
            .iter()
            .all(|r| r.as_ref().unwrap_err().refusal() == Some(&reason))
    );
    assert_eq!(queue.send_batch_blocking(0..11).len(), 11);
    assert_eq!(queue.stats().sent, 10);
}

#[test]
fn an_empty_batch_is_no_error() {
    let (queue, _) = queue(QueueConfig::new("q"));
    assert!(queue.try_send_batch(Vec::<u32>::new()).is_empty());
    assert_eq!(queue.try_send_values(&mut Vec::new()), Ok(0));
    assert!(block_on(queue.send_batch(Vec::<u32>::new())).is_empty());
    assert_eq!(queue.stats().sent, 0);
}

#[test]
fn a_batch_takes_what_there_is_room_for() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(3),
        ..QueueConfig::new("q")
    });
    let results = queue.try_send_batch(0..5);
    let taken: Vec<_> = results.iter().map(Result::is_ok).collect();
    assert_eq!(taken, [true, true, true, false, false]);
    assert_eq!(drain(&queue), [0, 1, 2]);
}

#[test]
fn nothing_overtakes_within_its_group_when_a_batch_meets_a_full_queue() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(2),
        ..QueueConfig::fifo("q")
    });
    queue
        .try_send(of("z", 100).deduplication_id(dedup("known")))
        .unwrap();
    let results = queue.try_send_batch([
        of("a", 1),
        of("a", 2),
        // A duplicate is taken by a full queue too, but not out of turn.
        of("a", 100).deduplication_id(dedup("known")),
        of("b", 100).deduplication_id(dedup("known")),
    ]);
    let taken: Vec<_> = results.iter().map(Result::is_ok).collect();
    assert_eq!(taken, [true, false, false, true]);
}

#[test]
fn a_waiting_batch_goes_on_as_room_appears() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(2),
        ..QueueConfig::new("q")
    });
    let mut sender = Task::waiting(queue.send_batch(0..6));
    let mut got = Vec::new();
    let results = loop {
        got.extend(drain(&queue));
        if let Some(results) = sender.run() {
            break results;
        }
    };
    got.extend(drain(&queue));
    assert_eq!((results.len(), got), (6, vec![0, 1, 2, 3, 4, 5]));
    assert!(results.iter().all(Result::is_ok));
}

#[test]
fn a_waiting_batch_gives_back_what_was_not_sent_by_its_deadline() {
    let (queue, hand) = queue(QueueConfig {
        capacity: Some(2),
        ..QueueConfig::new("q")
    });
    let mut sender = Task::waiting(queue.send_batch_until(0..4, Instant::ORIGIN + secs(5)));
    hand.advance(secs(5));
    let results = sender.run().unwrap();
    let left: Vec<_> = results
        .into_iter()
        .filter_map(Result::err)
        .map(|error| {
            assert!(matches!(error, SendError::Elapsed(_)));
            error.into_message().value
        })
        .collect();
    assert_eq!((left, drain(&queue)), (vec![2, 3], vec![0, 1]));
}

#[test]
fn a_dropped_batch_has_sent_a_prefix() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(2),
        ..QueueConfig::new("q")
    });
    drop(Task::waiting(queue.send_batch(0..4)));
    assert_eq!(drain(&queue), [0, 1]);
    assert!(queue.try_send(9).is_ok());
}

#[test]
fn a_batch_blocks_its_thread_until_all_of_it_is_sent() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(2),
        ..QueueConfig::new("q")
    });
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| queue.send_batch_blocking(0..50));
        for n in 0..50 {
            let delivery = queue.receive_blocking().unwrap();
            assert_eq!(*delivery, n);
            delivery.acknowledge().unwrap();
        }
        let results = sender.join().expect("no panic");
        assert!(results.len() == 50 && results.iter().all(Result::is_ok));
    });
}

#[test]
fn values_in_bulk_are_sent_in_order_and_taken_from_the_front() {
    for config in [QueueConfig::new("q"), QueueConfig::fair("q")] {
        let (queue, _) = queue(QueueConfig {
            capacity: Some(3),
            ..config
        });
        let mut batch: Vec<u32> = (0..5).collect();
        assert_eq!(queue.try_send_values(&mut batch), Ok(3));
        assert_eq!(batch, [3, 4]);
        assert_eq!(queue.try_send_values(&mut batch), Err(Refusal::Full));
        assert_eq!(batch, [3, 4]);
        assert_eq!(drain(&queue), [0, 1, 2]);
        assert_eq!(queue.try_send_values(&mut batch), Ok(2));
        assert_eq!(drain(&queue), [3, 4]);
        reconcile(&queue);
    }
}

#[test]
fn values_in_bulk_are_not_sent_where_each_needs_a_group() {
    let (queue, _) = queue(QueueConfig::fifo("q"));
    let mut batch = vec![1, 2];
    assert_eq!(
        queue.try_send_values(&mut batch),
        Err(Refusal::MissingGroup)
    );
    assert_eq!(batch, [1, 2]);
}

#[test]
fn values_in_bulk_wait_for_room() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(2),
        ..QueueConfig::new("q")
    });
    let mut batch: Vec<u32> = (0..6).collect();
    let mut got = Vec::new();
    let mut sender = Task::waiting(queue.send_values(&mut batch));
    let sent = loop {
        got.extend(drain(&queue));
        if let Some(sent) = sender.run() {
            break sent;
        }
    };
    drop(sender);
    got.extend(drain(&queue));
    assert_eq!((sent, batch.len(), got), (Ok(6), 0, vec![0, 1, 2, 3, 4, 5]));
}

#[test]
fn a_dropped_bulk_send_leaves_the_rest_with_the_caller() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(2),
        ..QueueConfig::new("q")
    });
    let mut batch: Vec<u32> = (0..5).collect();
    drop(Task::waiting(queue.send_values(&mut batch)));
    assert_eq!((batch, drain(&queue)), (vec![2, 3, 4], vec![0, 1]));
}

#[test]
fn values_in_bulk_wake_a_waiting_receiver() {
    let (queue, _) = queue(QueueConfig::new("q"));
    let mut receivers = [
        Task::waiting(queue.receive()),
        Task::waiting(queue.receive()),
    ];
    queue.try_send_values(&mut vec![1, 2]).unwrap();
    let first = receivers[0].run().unwrap().unwrap();
    let second = receivers[1].run().unwrap().unwrap();
    assert_eq!((*first, *second), (1, 2));
}

#[test]
fn a_receive_takes_no_more_than_it_asks_for() {
    let (queue, _) = queue(QueueConfig::new("q"));
    for n in 0..100 {
        queue.try_send(n).unwrap();
    }
    assert_eq!(values(&take(&queue, 7)), (0..7).collect::<Vec<_>>());
    let held = take(&queue, 1000);
    assert_eq!(held.len(), 100);
}

#[test]
fn a_batch_of_deliveries_is_appended_to_what_is_there() {
    let (queue, _) = queue(QueueConfig::new("q"));
    queue.try_send_values(&mut vec![1, 2, 3]).unwrap();
    let mut out = Vec::new();
    assert_eq!(queue.try_receive_batch(1, &mut out), Ok(1));
    assert_eq!(queue.try_receive_batch(5, &mut out), Ok(2));
    assert_eq!(
        queue.try_receive_batch(5, &mut out),
        Err(TryReceiveError::Empty)
    );
    assert_eq!(values(&out), [1, 2, 3]);
}

#[test]
fn returned_messages_come_first_in_a_batch() {
    let (queue, _) = queue(QueueConfig::new("q"));
    for n in 0..6 {
        queue.try_send(n).unwrap();
    }
    drop(take(&queue, 3));
    assert_eq!(values(&take(&queue, 10)), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_receive_asks_for_one_message_at_least_and_not_beyond_the_limit() {
    for config in [
        QueueConfig::new("q"),
        QueueConfig::fair("q"),
        QueueConfig::fifo("q"),
    ] {
        let (queue, _) = queue(limited(config));
        for value in [0, 11] {
            let invalid = InvalidReceive::Max { value, limit: 10 };
            let error = queue.try_receive_with(&at_most(value)).unwrap_err();
            assert_eq!(error, TryReceiveError::Invalid(invalid.clone()));
            let error = block_on(queue.receive_with(&at_most(value))).unwrap_err();
            assert_eq!(error, sim_queue::ReceiveError::Invalid(invalid));
        }
        assert_eq!(queue.stats().empty_receives, 0);
    }
}

#[test]
fn a_waiting_batch_receive_takes_what_is_there_and_waits_no_longer() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    let ask = at_most(10);
    let mut receiver = Task::waiting(queue.receive_with(&ask));
    queue.try_send(1).unwrap();
    queue.try_send(2).unwrap();
    assert_eq!(values(&receiver.run().unwrap().unwrap()), [1, 2]);
    assert_eq!(drain(&queue), [1, 2]);
    let ask_again = &ask;
    std::thread::scope(|scope| {
        let queue = &queue;
        let receiver = scope
            .spawn(move || queue.receive_with_blocking_until(ask_again, Instant::ORIGIN + secs(9)));
        until_asleep(&hand, 1);
        hand.advance(secs(9));
        let outcome = receiver.join().expect("no panic");
        assert_eq!(outcome.unwrap_err(), sim_queue::ReceiveError::Elapsed);
    });
}

#[test]
fn acknowledging_a_batch_reports_on_each_delivery() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    queue.try_send_values(&mut vec![1, 2, 3]).unwrap();
    let mut held = take(&queue, 3);
    held[0].extend(secs(60)).unwrap();
    hand.advance(secs(30));
    let again = queue.try_receive().unwrap();
    assert_eq!(*again, 2);
    let results = Queue::acknowledge_batch(held);
    assert_eq!(results, [Ok(Some(1)), Err(Stale), Ok(Some(3))]);
    assert_eq!(queue.stats().deleted, 2);
}

#[test]
fn a_batch_of_leases_ends_together() {
    let (queue, hand) = queue_of::<u64>(QueueConfig::new("q"));
    queue.try_send_values(&mut (0..500).collect()).unwrap();
    let held = take(&queue, 500);
    hand.advance(secs(30) - Duration::from_nanos(1));
    assert_eq!(queue.stats().visible, 0);
    hand.advance(Duration::from_nanos(1));
    assert_eq!(queue.stats().visible, 500);
    acknowledge_all(take(&queue, 500));
    assert!(
        held.into_iter()
            .all(|delivery| delivery.acknowledge() == Err(Stale))
    );
    reconcile(&queue);
}

#[test]
fn acknowledging_all_leaves_those_that_come_too_late() {
    let (clock, hand) = sim_core::clock::Clock::virtual_at(
        sim_core::time::Timestamp::from_unix_millis(1_700_000_000_000),
    );
    let queue =
        sim_queue::Queue::<u32>::with_clock(sim_queue::QueueConfig::new("q"), clock).unwrap();
    queue.try_send(0).unwrap();
    let mut all = vec![queue.try_receive().unwrap()];
    hand.advance(std::time::Duration::from_secs(30));
    // Received again by somebody else: the first delivery's verdict comes too late.
    let again = queue.try_receive().unwrap();
    for n in 1..=200 {
        queue.try_send(n).unwrap();
    }
    while queue.try_receive_batch(10, &mut all).is_ok() {}
    assert_eq!(all.len(), 201);
    assert_eq!(queue.acknowledge_all(&mut all), 200);
    assert_eq!(all.iter().map(|late| **late).collect::<Vec<_>>(), [0]);
    drop(all);
    let stats = queue.stats();
    assert_eq!((stats.deleted, stats.in_flight, stats.visible), (200, 1, 0));
    again.acknowledge().unwrap();
    assert_eq!(queue.stats().deleted, 201);
}
