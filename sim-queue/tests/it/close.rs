//! Closing: by draining or dropping, and waiting for the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sim_core::time::Instant;
use sim_queue::{
    Close, DeadLetterPolicy, Message, Queue, QueueConfig, ReceiveError, Refusal, SendError, Stale,
    TryReceiveError,
};

use crate::rig::{
    Task, abandon, at_most, block_on, drain, of, queue, queue_of, reconcile, secs, take,
    until_asleep,
};

fn configs() -> [QueueConfig; 3] {
    [
        QueueConfig::new("q"),
        QueueConfig::fair("q"),
        QueueConfig::fifo("q"),
    ]
}

fn any(queue: &Queue<u32>, value: u32) -> Message<u32> {
    match queue.config().kind {
        sim_queue::Kind::Standard => Message::new(value),
        _ => of("g", value),
    }
}

#[test]
fn a_closed_queue_refuses_every_send_and_gives_the_message_back() {
    for config in configs() {
        for how in [Close::Drain, Close::Drop] {
            let (queue, _) = queue(config.clone());
            assert!(!queue.is_closed());
            queue.close(how);
            assert!(queue.is_closed());
            let error = queue.try_send(any(&queue, 7)).unwrap_err();
            assert!(error.is_closed());
            assert_eq!(error.into_value(), 7);
            let error = queue.try_send(any(&queue, 8).delay(secs(0))).map(drop);
            assert!(error.is_err());
            match block_on(queue.send(any(&queue, 9))).unwrap_err() {
                SendError::Refused(error) => assert_eq!(error.reason, Refusal::Closed),
                SendError::Elapsed(_) => panic!("closed, not full"),
            }
            assert!(queue.send_blocking(any(&queue, 9)).is_err());
            assert_eq!(queue.stats().sent, 0, "{:?}", queue.config().kind);
        }
    }
}

#[test]
fn a_closed_queue_refuses_delayed_messages_and_values_in_bulk() {
    let (queue, _) = queue(QueueConfig::new("q"));
    queue.close(Close::Drain);
    assert!(
        queue
            .try_send(Message::new(1).delay(secs(5)))
            .unwrap_err()
            .is_closed()
    );
    let mut values = vec![1, 2];
    assert_eq!(queue.try_send_values(&mut values), Err(Refusal::Closed));
    assert_eq!(
        block_on(queue.send_values(&mut values)),
        Err(Refusal::Closed)
    );
    assert_eq!(values, [1, 2]);
    assert!(queue.try_send_batch([1, 2]).iter().all(Result::is_err));
    assert_eq!(queue.stats().sent, 0);
}

#[test]
fn a_full_queue_that_is_closed_says_that_it_is_closed() {
    for config in configs() {
        let (queue, _) = queue(QueueConfig {
            capacity: Some(1),
            ..config
        });
        queue.try_send(any(&queue, 1)).unwrap();
        queue.close(Close::Drain);
        assert!(queue.try_send(any(&queue, 2)).unwrap_err().is_closed());
    }
}

#[test]
fn what_is_there_is_still_delivered_by_a_draining_queue() {
    for config in configs() {
        let (queue, _) = queue(config);
        for n in 0..3 {
            queue.try_send(any(&queue, n)).unwrap();
        }
        queue.close(Close::Drain);
        assert_eq!(drain(&queue), [0, 1, 2]);
        assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Closed);
        assert_eq!(
            queue.try_receive_with(&at_most(5)).unwrap_err(),
            TryReceiveError::Closed
        );
        assert_eq!(block_on(queue.receive()).unwrap_err(), ReceiveError::Closed);
        assert_eq!(queue.receive_blocking().unwrap_err(), ReceiveError::Closed);
    }
}

#[test]
fn a_draining_queue_redelivers_what_comes_back() {
    for config in configs() {
        let (queue, hand) = queue(config);
        queue.try_send(any(&queue, 7)).unwrap();
        let held = queue.try_receive().unwrap();
        queue.close(Close::Drain);
        assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Empty);
        held.release().unwrap();
        let again = queue.try_receive().unwrap();
        assert_eq!(again.receive_count(), 2);
        abandon(again);
        hand.advance(secs(30));
        assert_eq!(drain(&queue), [7]);
        assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Closed);
        reconcile(&queue);
    }
}

#[test]
fn a_draining_queue_still_delivers_what_is_delayed() {
    for config in [QueueConfig::new("q"), QueueConfig::fair("q")] {
        let (queue, hand) = queue(config);
        queue.try_send(any(&queue, 7).delay(secs(5))).unwrap();
        queue.close(Close::Drain);
        assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Empty);
        let mut receiver = Task::waiting(queue.receive());
        hand.advance(secs(5));
        receiver.run().unwrap().unwrap().acknowledge().unwrap();
        assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Closed);
    }
}

#[test]
fn dropping_drops_what_waits_and_what_is_in_flight() {
    /// Counts its drops.
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    for config in configs() {
        let (queue, _) = queue_of::<Counted>(config);
        let drops = Arc::new(AtomicUsize::new(0));
        for _ in 0..5 {
            let message = Message::new(Counted(Arc::clone(&drops)));
            let message = match queue.config().kind {
                sim_queue::Kind::Standard => message,
                _ => message.group(crate::rig::group("g")),
            };
            queue.try_send(message).unwrap();
        }
        let held = queue.try_receive().unwrap();
        queue.close(Close::Drop);
        // One is still looked at.
        assert_eq!(drops.load(Ordering::SeqCst), 4);
        let stats = queue.stats();
        assert_eq!((stats.visible, stats.in_flight, stats.purged), (0, 0, 5));
        assert_eq!(held.acknowledge().map(drop), Err(Stale));
        assert_eq!(drops.load(Ordering::SeqCst), 5);
        assert_eq!(
            queue.try_receive().map(drop).unwrap_err(),
            TryReceiveError::Closed
        );
        reconcile(&queue);
    }
}

#[test]
fn closing_again_changes_nothing_but_draining_may_become_dropping() {
    for config in configs() {
        let (queue, _) = queue(config);
        queue.try_send(any(&queue, 7)).unwrap();
        queue.close(Close::Drain);
        queue.close(Close::Drain);
        assert_eq!(queue.stats().visible, 1);
        queue.close(Close::Drop);
        assert_eq!(queue.stats().purged, 1);
        queue.close(Close::Drain);
        assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Closed);
    }
}

#[test]
fn closing_wakes_every_waiting_receiver_and_sender() {
    for config in configs() {
        let (queue, _) = queue(QueueConfig {
            capacity: Some(1),
            ..config
        });
        let mut receivers: Vec<_> = (0..3).map(|_| Task::waiting(queue.receive())).collect();
        let ask = at_most(5);
        let mut batch = Task::waiting(queue.receive_with(&ask));
        queue.close(Close::Drain);
        for receiver in &mut receivers {
            assert_eq!(receiver.run().unwrap().unwrap_err(), ReceiveError::Closed);
        }
        assert_eq!(batch.run().unwrap().unwrap_err(), ReceiveError::Closed);
    }
    for config in configs() {
        let (queue, _) = queue(QueueConfig {
            capacity: Some(1),
            ..config
        });
        queue.try_send(any(&queue, 1)).unwrap();
        let mut senders: Vec<_> = (2..5)
            .map(|n| Task::waiting(queue.send(any(&queue, n))))
            .collect();
        queue.close(Close::Drain);
        for (n, sender) in (2..).zip(&mut senders) {
            let error = sender.run().unwrap().unwrap_err();
            assert_eq!(error.refusal(), Some(&Refusal::Closed));
            assert_eq!(error.into_message().value, n);
        }
        assert_eq!(drain(&queue), [1]);
    }
}

#[test]
fn closing_wakes_blocked_threads() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(1),
        ..QueueConfig::new("q")
    });
    let full = crate::rig::queue(QueueConfig {
        capacity: Some(1),
        ..QueueConfig::new("f")
    })
    .0;
    full.try_send(1).unwrap();
    std::thread::scope(|scope| {
        let receivers: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| queue.receive_blocking().map(drop)))
            .collect();
        let sender = scope.spawn(|| full.send_blocking(2));
        queue.close(Close::Drain);
        full.close(Close::Drain);
        for receiver in receivers {
            assert_eq!(
                receiver.join().expect("no panic"),
                Err(ReceiveError::Closed)
            );
        }
        let refused = sender.join().expect("no panic").unwrap_err();
        assert_eq!(refused.refusal(), Some(&Refusal::Closed));
    });
}

#[test]
fn receivers_of_a_draining_queue_wait_until_the_last_message_is_judged() {
    for config in configs() {
        let (queue, _) = queue(config);
        queue.try_send(any(&queue, 7)).unwrap();
        let last = queue.try_receive().unwrap();
        let mut receivers = [
            Task::waiting(queue.receive()),
            Task::waiting(queue.receive()),
        ];
        queue.close(Close::Drain);
        for receiver in &mut receivers {
            assert!(receiver.run().is_none());
        }
        last.acknowledge().unwrap();
        for receiver in &mut receivers {
            assert_eq!(receiver.run().unwrap().unwrap_err(), ReceiveError::Closed);
        }
    }
}

#[test]
fn a_queue_is_drained_when_the_last_message_is_judged() {
    for config in configs() {
        let (queue, _) = queue(config);
        for n in 0..3 {
            queue.try_send(any(&queue, n)).unwrap();
        }
        let mut drained = Task::waiting(queue.drained());
        let held = take(&queue, 3);
        queue.close(Close::Drain);
        assert!(drained.run().is_none());
        for (left, delivery) in (0..held.len()).rev().zip(held) {
            delivery.acknowledge().unwrap();
            assert_eq!(drained.run().is_some(), left == 0);
        }
    }
}

#[test]
fn an_open_queue_is_not_drained_however_empty() {
    for config in configs() {
        let (queue, hand) = queue(config);
        let mut drained = Task::waiting(queue.drained());
        assert_eq!(
            queue.drained_blocking_until(hand.now()),
            Err(ReceiveError::Elapsed)
        );
        queue.close(Close::Drain);
        assert!(drained.run().is_some());
        assert_eq!(queue.drained_blocking_until(Instant::NEVER), Ok(()));
    }
}

#[test]
fn a_queue_is_drained_by_retention_purge_and_dead_letters() {
    for config in configs() {
        let (queue, hand) = queue(QueueConfig {
            retention: Some(secs(60)),
            ..config.clone()
        });
        queue.try_send(any(&queue, 1)).unwrap();
        queue.close(Close::Drain);
        let mut drained = Task::waiting(queue.drained());
        hand.advance(secs(60));
        queue.advance();
        assert!(drained.run().is_some(), "by retention");

        let (queue, _) = crate::rig::queue(config.clone());
        queue.try_send(any(&queue, 1)).unwrap();
        queue.close(Close::Drain);
        let mut drained = Task::waiting(queue.drained());
        queue.purge();
        assert!(drained.run().is_some(), "by a purge");

        let (queue, _) = crate::rig::queue(config.clone());
        let dead = Queue::with_clock(
            QueueConfig {
                name: "dead".into(),
                ..config
            },
            queue.clock().clone(),
        )
        .unwrap();
        queue
            .set_dead_letters(DeadLetterPolicy::to_queue(&dead, 1))
            .unwrap();
        queue.try_send(any(&queue, 1)).unwrap();
        let held = queue.try_receive().unwrap();
        queue.close(Close::Drain);
        let mut drained = Task::waiting(queue.drained());
        held.release().unwrap();
        assert!(drained.run().is_some(), "by a dead letter");
        assert_eq!(drain(&dead), [1]);
    }
}

#[test]
fn the_end_of_the_retention_ends_the_wait_without_another_call() {
    for config in configs() {
        let (queue, hand) = queue(QueueConfig {
            retention: Some(secs(60)),
            ..config
        });
        queue.try_send(any(&queue, 1)).unwrap();
        queue.close(Close::Drain);
        let mut drained = Task::waiting(queue.drained());
        hand.advance(secs(60));
        assert!(drained.run().is_some(), "{:?}", queue.config().kind);
    }
}

#[test]
fn a_thread_waits_for_the_end_until_its_deadline() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    queue.try_send(1).unwrap();
    queue.close(Close::Drain);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| queue.drained_blocking_until(Instant::ORIGIN + secs(5)));
        until_asleep(&hand, 1);
        hand.advance(secs(5));
        assert_eq!(waiter.join().expect("no panic"), Err(ReceiveError::Elapsed));
        let waiter = scope.spawn(|| queue.drained_blocking_until(Instant::NEVER));
        drain(&queue);
        assert_eq!(waiter.join().expect("no panic"), Ok(()));
    });
}

#[test]
fn a_dead_letter_queue_that_is_closed_keeps_its_letters_with_the_source() {
    let (source, hand) = queue(QueueConfig::new("source"));
    let dead = Queue::with_clock(QueueConfig::new("dead"), source.clock().clone()).unwrap();
    source
        .set_dead_letters(DeadLetterPolicy::to_queue(&dead, 1))
        .unwrap();
    dead.close(Close::Drain);
    source.try_send(7).unwrap();
    drop(source.try_receive().unwrap());
    hand.advance(secs(5));
    let stats = source.stats();
    assert_eq!((stats.in_flight, stats.redriven), (1, 0));
    assert_eq!(dead.stats().sent, 0);
}

/// Sends without headers take no lock: they race with closing on the ring alone.
#[test]
fn a_send_that_races_with_closing_is_delivered_or_refused() {
    for (round, capacity) in [(10, None), (40, Some(3)), (200, Some(64)), (900, None)] {
        let (queue, _) = queue(QueueConfig {
            capacity,
            ..QueueConfig::new("q")
        });
        let (sent, received) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for bulk in [false, true] {
                let (queue, sent) = (&queue, &sent);
                scope.spawn(move || {
                    loop {
                        let outcome = if bulk {
                            queue.try_send_values(&mut vec![1, 2, 3])
                        } else {
                            let outcome = queue.try_send(1);
                            outcome.map(|_| 1).map_err(|error| error.reason)
                        };
                        match outcome {
                            Ok(count) => drop(sent.fetch_add(count, Ordering::SeqCst)),
                            Err(Refusal::Closed) => return,
                            Err(reason) => {
                                assert_eq!(reason, Refusal::Full);
                                std::thread::yield_now();
                            }
                        }
                    }
                });
            }
            for _ in 0..2 {
                let (queue, received) = (&queue, &received);
                scope.spawn(move || {
                    loop {
                        match queue.try_receive() {
                            Ok(delivery) => {
                                delivery.acknowledge().expect("nobody else has it");
                                received.fetch_add(1, Ordering::SeqCst);
                            }
                            Err(TryReceiveError::Closed) => return,
                            Err(_) => std::thread::yield_now(),
                        }
                    }
                });
            }
            while received.load(Ordering::SeqCst) < round {
                std::thread::yield_now();
            }
            queue.close(Close::Drain);
        });
        assert_eq!(received.into_inner(), sent.into_inner());
        assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Closed);
    }
}
