//! Waiting: long polls, wake-ups by time, cancellation; on tokio's clock, a virtual clock, and none.

use std::time::Duration;

use sim_core::clock::{Clock, VirtualClock};
use sim_core::time::Instant;
use sim_queue::{Close, DeadLetterPolicy, Message, Queue, QueueConfig, ReceiveError, SendError};

use crate::rig::{
    Task, abandon, at_most, block_on, drain, hidden_for, of, queue, reconcile, secs, until_asleep,
    values,
};

fn each_kind() -> Vec<(Queue<u32>, VirtualClock)> {
    [
        QueueConfig::new("q"),
        QueueConfig::fair("q"),
        QueueConfig::fifo("q"),
    ]
    .map(queue)
    .into()
}

fn send(queue: &Queue<u32>, value: u32) {
    queue.try_send(any(queue, value)).unwrap();
}

fn any(queue: &Queue<u32>, value: u32) -> Message<u32> {
    match queue.config().kind {
        sim_queue::Kind::Standard => Message::new(value),
        _ => of(format!("g{value}"), value),
    }
}

// ---- on a virtual clock ------------------------------------------------------------------------------

#[test]
fn a_long_poll_takes_what_arrives() {
    for (queue, hand) in each_kind() {
        let mut receiver = Task::waiting(queue.receive_until(Instant::ORIGIN + secs(20)));
        hand.advance(secs(19));
        assert!(receiver.run().is_none());
        send(&queue, 7);
        assert_eq!(*receiver.run().unwrap().unwrap(), 7);
    }
}

#[test]
fn a_long_poll_ends_at_its_deadline_and_not_before() {
    for (queue, hand) in each_kind() {
        let mut receiver = Task::waiting(queue.receive_until(Instant::ORIGIN + secs(20)));
        hand.advance(secs(20) - Duration::from_nanos(1));
        assert!(receiver.run().is_none());
        hand.advance(Duration::from_nanos(1));
        assert_eq!(receiver.run().unwrap().unwrap_err(), ReceiveError::Elapsed);
        assert_eq!(hand.sleeping(), 0);
    }
}

#[test]
fn a_long_poll_with_a_deadline_in_the_past_still_takes_what_is_there() {
    for (queue, hand) in each_kind() {
        hand.advance(secs(10));
        let nothing = block_on(queue.receive_until(Instant::ORIGIN)).unwrap_err();
        assert_eq!(nothing, ReceiveError::Elapsed);
        assert_eq!(
            queue.receive_blocking_until(Instant::ORIGIN).unwrap_err(),
            ReceiveError::Elapsed
        );
        send(&queue, 7);
        assert_eq!(*block_on(queue.receive_until(Instant::ORIGIN)).unwrap(), 7);
        assert_eq!(*queue.receive_blocking_until(Instant::ORIGIN).unwrap(), 7);
    }
}

#[test]
fn the_end_of_a_lease_wakes_a_waiting_receiver() {
    for (queue, hand) in each_kind() {
        send(&queue, 7);
        abandon(queue.try_receive().unwrap());
        let mut receiver = Task::waiting(queue.receive());
        hand.advance(secs(29));
        assert!(receiver.run().is_none());
        hand.advance(secs(1));
        assert_eq!(receiver.run().unwrap().unwrap().receive_count(), 2);
    }
}

#[test]
fn a_lease_that_begins_while_somebody_waits_wakes_him_too() {
    for (queue, hand) in each_kind() {
        let mut receiver = Task::waiting(queue.receive());
        send(&queue, 7);
        // Another is faster.
        abandon(queue.try_receive().unwrap());
        assert!(receiver.run().is_none());
        hand.advance(secs(30));
        assert_eq!(receiver.run().unwrap().unwrap().receive_count(), 2);
    }
}

#[test]
fn a_shortened_lease_wakes_a_waiting_receiver_earlier() {
    for (queue, hand) in each_kind() {
        send(&queue, 7);
        let mut held = queue.try_receive().unwrap();
        let mut receiver = Task::waiting(queue.receive());
        held.extend(secs(3)).unwrap();
        assert!(receiver.run().is_none());
        hand.advance(secs(3));
        assert_eq!(receiver.run().unwrap().unwrap().receive_count(), 2);
    }
}

#[test]
fn a_lengthened_lease_lets_a_waiting_receiver_sleep_on() {
    for (queue, hand) in each_kind() {
        send(&queue, 7);
        let mut held = queue.try_receive().unwrap();
        let mut receiver = Task::waiting(queue.receive());
        held.extend(secs(50)).unwrap();
        hand.advance(secs(30));
        assert!(receiver.run().is_none());
        hand.advance(secs(20));
        assert_eq!(receiver.run().unwrap().unwrap().receive_count(), 2);
    }
}

#[test]
fn a_release_a_drop_and_a_visibility_of_zero_wake_a_waiting_receiver() {
    for (queue, _) in each_kind() {
        send(&queue, 7);
        let held = queue.try_receive().unwrap();
        let mut receiver = Task::waiting(queue.receive());
        held.release().unwrap();
        let held = receiver.run().unwrap().unwrap();
        let mut receiver = Task::waiting(queue.receive());
        drop(held);
        let mut held = receiver.run().unwrap().unwrap();
        let mut receiver = Task::waiting(queue.receive());
        held.extend(secs(0)).unwrap();
        let held = receiver.run().unwrap().unwrap();
        assert_eq!(held.receive_count(), 4);
    }
}

#[test]
fn a_delayed_message_wakes_a_waiting_receiver_when_its_delay_is_over() {
    for (queue, hand) in each_kind().into_iter().take(2) {
        let mut receiver = Task::waiting(queue.receive());
        queue.try_send(any(&queue, 7).delay(secs(5))).unwrap();
        assert!(receiver.run().is_none());
        hand.advance(secs(4));
        assert!(receiver.run().is_none());
        hand.advance(secs(1));
        assert_eq!(*receiver.run().unwrap().unwrap(), 7);
    }
}

#[test]
fn every_waiting_receiver_gets_one_of_the_messages() {
    for (queue, _) in each_kind() {
        let mut receivers: Vec<_> = (0..5).map(|_| Task::waiting(queue.receive())).collect();
        for n in 0..5 {
            send(&queue, n);
        }
        let mut got = Vec::new();
        // One wake-up is under way at a time: who is served passes it on.
        for _ in 0..5 {
            got.extend(
                receivers
                    .iter_mut()
                    .filter_map(Task::run)
                    .map(Result::unwrap),
            );
        }
        let mut got = values(&got);
        got.sort_unstable();
        assert_eq!(got, [0, 1, 2, 3, 4]);
    }
}

#[test]
fn leases_that_end_together_wake_as_many_receivers() {
    for (queue, hand) in each_kind() {
        for n in 0..4 {
            send(&queue, n);
        }
        for delivery in queue.try_receive_with(&at_most(4)).unwrap() {
            abandon(delivery);
        }
        let mut receivers: Vec<_> = (0..4).map(|_| Task::waiting(queue.receive())).collect();
        hand.advance(secs(30));
        let mut got = Vec::new();
        for _ in 0..4 {
            got.extend(
                receivers
                    .iter_mut()
                    .filter_map(Task::run)
                    .map(Result::unwrap),
            );
        }
        assert_eq!(got.len(), 4, "{:?}", queue.config().kind);
    }
}

#[test]
fn a_receiver_that_goes_away_passes_its_message_on() {
    for (queue, _) in each_kind() {
        let first = Task::waiting(queue.receive());
        let mut second = Task::waiting(queue.receive());
        send(&queue, 7);
        assert!(first.is_woken());
        drop(first);
        assert_eq!(*second.run().unwrap().unwrap(), 7);
    }
}

#[test]
fn a_receiver_that_goes_away_passes_its_watch_over_the_clock_on() {
    for (queue, hand) in each_kind() {
        send(&queue, 7);
        abandon(queue.try_receive().unwrap());
        let keeper = Task::waiting(queue.receive());
        let mut other = Task::waiting(queue.receive());
        drop(keeper);
        drop(other.run());
        hand.advance(secs(30));
        assert_eq!(*other.run().unwrap().unwrap(), 7);
    }
}

#[test]
fn a_receive_dropped_at_any_moment_loses_no_message() {
    for (queue, hand) in each_kind() {
        let mut random = sim_core::random::Random::new(5);
        let mut sent = 0;
        let mut got = Vec::new();
        let mut waiting: Vec<Task<'_, _>> = Vec::new();
        for _ in 0..3000 {
            match random.below(6) {
                0 | 1 => {
                    send(&queue, sent);
                    sent += 1;
                }
                2 if waiting.len() < 20 => {
                    let mut task = Task::new(queue.receive());
                    match task.poll() {
                        Some(delivery) => got.push(delivery.unwrap()),
                        None => waiting.push(task),
                    }
                }
                3 if !waiting.is_empty() => {
                    let at = usize::try_from(random.below(waiting.len() as u64)).unwrap();
                    drop(waiting.swap_remove(at));
                }
                4 => {
                    waiting.retain_mut(|task| match task.run() {
                        Some(delivery) => {
                            got.push(delivery.unwrap());
                            false
                        }
                        None => true,
                    });
                }
                _ => {
                    if let Some(delivery) = got.pop() {
                        if random.below(3) == 0 {
                            drop(delivery);
                        } else {
                            delivery.acknowledge().unwrap();
                        }
                    }
                }
            }
        }
        // Whoever still waits is served as long as there is something.
        for _ in 0..50 {
            waiting.retain_mut(|task| match task.run() {
                Some(delivery) => {
                    got.push(delivery.unwrap());
                    false
                }
                None => true,
            });
        }
        assert!(waiting.is_empty() || queue.stats().visible == 0);
        drop(waiting);
        for delivery in got {
            delivery.acknowledge().unwrap();
        }
        drain(&queue);
        assert_eq!(queue.stats().deleted, u64::from(sent));
        assert_eq!(hand.sleeping(), 0);
        reconcile(&queue);
    }
}

#[test]
fn a_future_that_was_never_polled_does_nothing() {
    for (queue, _) in each_kind() {
        drop(queue.receive());
        drop(queue.send(any(&queue, 7)));
        let ask = at_most(3);
        drop(queue.receive_with(&ask));
        let stats = queue.stats();
        assert_eq!(
            (stats.sent, stats.received, stats.empty_receives),
            (0, 0, 0)
        );
    }
}

#[test]
fn a_receive_at_the_cap_says_so_instead_of_waiting() {
    for (queue, _) in [QueueConfig::new("q"), QueueConfig::fair("q")].map(|config| {
        queue(QueueConfig {
            max_in_flight: 1,
            ..config
        })
    }) {
        send(&queue, 1);
        send(&queue, 2);
        let _held = queue.try_receive().unwrap();
        assert_eq!(
            block_on(queue.receive()).unwrap_err(),
            ReceiveError::OverLimit { limit: 1 }
        );
        assert_eq!(
            queue.receive_blocking().unwrap_err(),
            ReceiveError::OverLimit { limit: 1 }
        );
    }
}

#[test]
fn a_waiting_receive_has_its_own_timeout() {
    for (queue, hand) in each_kind() {
        let ask = hidden_for(secs(5));
        let mut receiver = Task::waiting(queue.receive_with(&ask));
        send(&queue, 7);
        let _held = receiver.run().unwrap().unwrap();
        hand.advance(secs(5));
        assert_eq!(queue.stats().visible, 1);
    }
}

// ---- threads on a virtual clock ----------------------------------------------------------------------

#[test]
fn a_blocked_thread_is_woken_by_a_message() {
    for (queue, _) in each_kind() {
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| queue.receive_blocking().map(|delivery| *delivery));
            send(&queue, 7);
            assert_eq!(receiver.join().expect("no panic"), Ok(7));
        });
    }
}

#[test]
fn a_blocked_thread_gives_up_at_its_deadline() {
    for (queue, hand) in each_kind() {
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                queue
                    .receive_blocking_until(Instant::ORIGIN + secs(20))
                    .map(drop)
            });
            until_asleep(&hand, 1);
            hand.advance(secs(20));
            assert_eq!(
                receiver.join().expect("no panic"),
                Err(ReceiveError::Elapsed)
            );
        });
    }
}

#[test]
fn a_blocked_thread_is_woken_by_the_end_of_a_lease() {
    for (queue, hand) in each_kind() {
        send(&queue, 7);
        abandon(queue.try_receive().unwrap());
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                queue
                    .receive_blocking()
                    .map(|delivery| delivery.receive_count())
            });
            until_asleep(&hand, 1);
            hand.advance(secs(30));
            assert_eq!(receiver.join().expect("no panic"), Ok(2));
        });
    }
}

#[test]
fn tasks_and_threads_wait_side_by_side() {
    for (queue, _) in each_kind() {
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for n in 0..4 {
                let queue = &queue;
                threads.push(scope.spawn(move || {
                    let mut got = Vec::new();
                    loop {
                        let next = if n % 2 == 0 {
                            queue.receive_blocking()
                        } else {
                            block_on(queue.receive())
                        };
                        match next {
                            Ok(delivery) => {
                                got.push(*delivery);
                                delivery.acknowledge().unwrap();
                            }
                            Err(error) => {
                                assert_eq!(error, ReceiveError::Closed);
                                return got;
                            }
                        }
                    }
                }));
            }
            for n in 0..1000 {
                send(&queue, n);
            }
            queue.close(Close::Drain);
            let mut all: Vec<u32> = threads
                .into_iter()
                .flat_map(|thread| thread.join().expect("no panic"))
                .collect();
            all.sort_unstable();
            assert_eq!(all, (0..1000).collect::<Vec<_>>());
        });
        reconcile(&queue);
    }
}

#[test]
fn producers_and_consumers_meet_in_a_small_queue() {
    for config in [
        QueueConfig::new("q"),
        QueueConfig::fair("q"),
        QueueConfig::fifo("q"),
    ] {
        let (queue, _) = queue(QueueConfig {
            capacity: Some(2),
            ..config
        });
        std::thread::scope(|scope| {
            for part in 0..2 {
                let queue = &queue;
                scope.spawn(move || {
                    for n in 0..500 {
                        let message = any(queue, part * 1000 + n);
                        if n % 2 == 0 {
                            queue.send_blocking(message).unwrap();
                        } else {
                            block_on(queue.send(message)).unwrap();
                        }
                    }
                });
            }
            let consumers: Vec<_> = (0..2)
                .map(|part| {
                    let queue = &queue;
                    scope.spawn(move || {
                        for n in 0..500 {
                            let delivery = if (part + n) % 2 == 0 {
                                queue.receive_blocking().unwrap()
                            } else {
                                block_on(queue.receive()).unwrap()
                            };
                            delivery.acknowledge().unwrap();
                        }
                    })
                })
                .collect();
            for consumer in consumers {
                consumer.join().expect("no panic");
            }
        });
        assert_eq!(queue.stats().deleted, 1000);
        reconcile(&queue);
    }
}

// ---- without a runtime -------------------------------------------------------------------------------

#[test]
fn no_runtime_is_needed_when_nothing_is_scheduled() {
    for config in [
        QueueConfig::new("q"),
        QueueConfig::fair("q"),
        QueueConfig::fifo("q"),
    ] {
        let queue = Queue::<u32>::new(QueueConfig {
            capacity: Some(1),
            ..config
        })
        .unwrap();
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| block_on(queue.receive()).map(|d| d.acknowledge()));
            block_on(queue.send(any(&queue, 1))).unwrap();
            assert_eq!(receiver.join().expect("no panic"), Ok(Ok(Some(1))));
        });
        // What is there is taken without a timer, deadline or not.
        send(&queue, 2);
        let deadline = queue.clock().now() + secs(3600);
        let held = block_on(queue.receive_until(deadline)).unwrap();
        assert_eq!(*held, 2);
        held.acknowledge().unwrap();
    }
}

#[test]
fn a_thread_needs_no_runtime_for_its_deadline() {
    let queue = Queue::<u32>::new(QueueConfig::new("q")).unwrap();
    let deadline = queue.clock().now() + Duration::from_millis(1);
    assert_eq!(
        queue.receive_blocking_until(deadline).unwrap_err(),
        ReceiveError::Elapsed
    );
    assert!(queue.clock().now() >= deadline);
}

// ---- on tokio's clock --------------------------------------------------------------------------------

fn on_tokio(config: QueueConfig) -> Queue<u32> {
    Queue::with_clock(config, Clock::tokio()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_paused_runtime_moves_the_queue_to_the_end_of_a_lease() {
    for config in [
        QueueConfig::new("q"),
        QueueConfig::fair("q"),
        QueueConfig::fifo("q"),
    ] {
        let queue = on_tokio(config);
        send(&queue, 7);
        abandon(queue.try_receive().unwrap());
        let before = queue.clock().now();
        let again = queue.receive().await.unwrap();
        assert_eq!(again.receive_count(), 2);
        // tokio's timers have the resolution of a millisecond.
        let waited = queue.clock().now() - before;
        assert!(
            waited >= secs(30) && waited <= secs(30) + Duration::from_millis(2),
            "{waited:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_runtime_moves_the_queue_to_the_end_of_a_delay() {
    let queue = on_tokio(QueueConfig::new("q"));
    queue.try_send(Message::new(7).delay(secs(600))).unwrap();
    let before = queue.clock().now();
    assert_eq!(*queue.receive().await.unwrap(), 7);
    assert!(queue.clock().now() - before >= secs(600));
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_ends_in_a_paused_runtime() {
    let queue = on_tokio(QueueConfig::new("q"));
    let deadline = queue.clock().now() + secs(20);
    assert_eq!(
        queue.receive_until(deadline).await.unwrap_err(),
        ReceiveError::Elapsed
    );
    assert!(queue.clock().now() >= deadline);
}

#[tokio::test(start_paused = true)]
async fn a_select_that_takes_another_branch_loses_no_message() {
    let queue = on_tokio(QueueConfig::new("q"));
    let sender = queue.clone();
    let producer = tokio::spawn(async move {
        for n in 0..200 {
            tokio::time::sleep(Duration::from_millis(7)).await;
            sender.send(n).await.unwrap();
        }
        sender.close(Close::Drain);
    });
    let mut got = Vec::new();
    let mut ticks = 0;
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    loop {
        tokio::select! {
            _ = tick.tick() => ticks += 1,
            delivery = queue.receive() => match delivery {
                Ok(delivery) => {
                    got.push(*delivery);
                    delivery.acknowledge().unwrap();
                }
                Err(error) => {
                    assert_eq!(error, ReceiveError::Closed);
                    break;
                }
            },
        }
    }
    producer.await.unwrap();
    assert_eq!(got, (0..200).collect::<Vec<_>>());
    assert!(ticks > 200);
}

#[tokio::test(start_paused = true)]
async fn workers_that_fail_see_every_message_again() {
    let queue = on_tokio(QueueConfig {
        visibility_timeout: secs(5),
        ..QueueConfig::new("q")
    });
    let dead = Queue::with_clock(QueueConfig::new("dead"), queue.clock().clone()).unwrap();
    queue
        .set_dead_letters(DeadLetterPolicy::to_queue(&dead, 3))
        .unwrap();
    for n in 0..100 {
        queue.send(n).await.unwrap();
    }
    queue.close(Close::Drain);
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let mut done = 0;
                while let Ok(delivery) = queue.receive().await {
                    tokio::time::sleep(secs(1)).await;
                    // Every tenth hangs whoever takes it.
                    if *delivery % 10 == 0 {
                        abandon(delivery);
                    } else {
                        delivery.acknowledge().unwrap();
                        done += 1;
                    }
                }
                done
            })
        })
        .collect();
    queue.drained().await;
    let mut done = 0;
    for worker in workers {
        done += worker.await.unwrap();
    }
    assert_eq!(
        (done, dead.stats().visible, queue.stats().redriven),
        (90, 10, 10)
    );
    reconcile(&queue);
}

#[tokio::test(start_paused = true)]
async fn a_send_ends_at_its_deadline_in_a_paused_runtime() {
    let queue = on_tokio(QueueConfig {
        capacity: Some(1),
        ..QueueConfig::new("q")
    });
    queue.send(1).await.unwrap();
    let deadline = queue.clock().now() + secs(3);
    assert!(matches!(
        queue.send_until(2, deadline).await,
        Err(SendError::Elapsed(_))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_on_two_workers_deliver_every_message_once() {
    let queue = Queue::<u32>::new(QueueConfig {
        capacity: Some(16),
        ..QueueConfig::new("q")
    })
    .unwrap();
    let consumers: Vec<_> = (0..4)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let mut got = Vec::new();
                while let Ok(delivery) = queue.receive().await {
                    got.extend(delivery.acknowledge().unwrap());
                }
                got
            })
        })
        .collect();
    let producers: Vec<_> = (0..4)
        .map(|part| {
            let queue = queue.clone();
            tokio::spawn(async move {
                for n in 0..1000 {
                    queue.send(part * 1000 + n).await.unwrap();
                }
            })
        })
        .collect();
    for producer in producers {
        producer.await.unwrap();
    }
    queue.close(Close::Drain);
    let mut all = Vec::new();
    for consumer in consumers {
        all.extend(consumer.await.unwrap());
    }
    all.sort_unstable();
    assert_eq!(all, (0..4000).collect::<Vec<_>>());
}
