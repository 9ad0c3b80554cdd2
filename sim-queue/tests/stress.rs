//! Real threads, a real runtime, the system clock: short, and nothing may be lost, doubled or left asleep.
#![expect(clippy::unwrap_used, reason = "a test fails by its panic")]

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::Duration;

use sim_core::random::Random;
use sim_core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use sim_core::sync::{Arc, Mutex, thread};
use sim_queue::{
    Close, DeadLetterPolicy, Delivery, GroupId, Message, MoveStatus, MoveTask, OnDrop, Queue,
    QueueConfig, Receive, ReceiveError, TryReceiveError,
};

/// How long a test may hang before it fails; it takes a second or two otherwise.
const PATIENCE: Duration = Duration::from_secs(60);
const PER_SENDER: u32 = 2_000;
const SENDERS: u32 = 3;
const TOTAL: u32 = PER_SENDER * SENDERS;

/// Runs a test that hangs when something is lost; fails it then.
fn within_patience(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let runner = thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    if matches!(
        ended.recv_timeout(PATIENCE),
        Err(mpsc::RecvTimeoutError::Timeout)
    ) {
        panic!("still not at its end after {PATIENCE:?}");
    }
    if let Err(panic) = runner.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The drops of each value.
#[derive(Clone)]
struct Drops(Arc<Vec<AtomicU32>>);

struct Value {
    id: u32,
    drops: Drops,
}

impl Drop for Value {
    fn drop(&mut self) {
        self.drops.0[self.id as usize].fetch_add(1, Ordering::SeqCst);
    }
}

impl Drops {
    fn new(total: u32) -> Self {
        Self(Arc::new((0..total).map(|_| AtomicU32::new(0)).collect()))
    }

    fn value(&self, id: u32) -> Value {
        Value {
            id,
            drops: self.clone(),
        }
    }

    fn check(&self) {
        let wrong = self
            .0
            .iter()
            .filter(|drops| drops.load(Ordering::SeqCst) != 1)
            .count();
        assert_eq!(wrong, 0, "values that were not dropped exactly once");
    }
}

/// Values that were taken, each at most once.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<BTreeSet<u32>>>);

impl Taken {
    fn take(&self, id: u32) {
        assert!(self.0.lock().insert(id), "{id} was acknowledged twice");
    }

    fn len(&self) -> usize {
        self.0.lock().len()
    }
}

fn config(capacity: Option<usize>) -> QueueConfig {
    QueueConfig {
        capacity,
        ..QueueConfig::new("stress")
    }
}

fn senders(queue: &Queue<Value>, drops: &Drops) -> Vec<thread::JoinHandle<()>> {
    (0..SENDERS)
        .map(|sender| {
            let (queue, drops) = (queue.clone(), drops.clone());
            thread::spawn(move || {
                for n in 0..PER_SENDER {
                    queue
                        .send_blocking(drops.value(sender * PER_SENDER + n))
                        .unwrap();
                }
            })
        })
        .collect()
}

/// Receives until the queue is closed and empty; each third time it does something else first.
fn receiver(queue: Queue<Value>, taken: Taken) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut turn = 0_u32;
        loop {
            match queue.receive_blocking() {
                Ok(delivery) => {
                    turn += 1;
                    match turn % 5 {
                        0 => delivery.release().unwrap(),
                        1 => drop(delivery),
                        _ => {
                            // The value may still be in the hands of the call that released it last.
                            let id = delivery.id;
                            delivery.acknowledge().unwrap();
                            taken.take(id);
                        }
                    }
                }
                Err(ReceiveError::Closed) => return,
                Err(error) => panic!("{error}"),
            }
        }
    })
}

fn move_all(config: QueueConfig) {
    let drops = Drops::new(TOTAL);
    let taken = Taken::default();
    let queue: Queue<Value> = Queue::new(config).unwrap();
    let receivers: Vec<_> = (0..3)
        .map(|_| receiver(queue.clone(), taken.clone()))
        .collect();
    for sender in senders(&queue, &drops) {
        sender.join().unwrap();
    }
    queue.close(Close::Drain);
    for receiver in receivers {
        receiver.join().unwrap();
    }
    assert_eq!(taken.len(), TOTAL as usize, "nothing lost, nothing doubled");
    let stats = queue.stats();
    assert_eq!(
        (stats.sent, stats.deleted),
        (u64::from(TOTAL), u64::from(TOTAL))
    );
    assert_eq!((stats.visible, stats.in_flight, stats.delayed), (0, 0, 0));
    drop(queue);
    drops.check();
}

#[test]
fn blocked_senders_and_receivers_of_a_bounded_queue_all_come_through() {
    within_patience(|| move_all(config(Some(4))));
}

#[test]
fn a_queue_for_one_message_moves_them_all() {
    within_patience(|| move_all(config(Some(1))));
}

#[test]
fn an_unbounded_queue_loses_and_doubles_nothing() {
    within_patience(|| move_all(config(None)));
}

#[test]
fn a_bounded_fair_queue_loses_and_doubles_nothing() {
    within_patience(|| {
        move_all(QueueConfig {
            capacity: Some(8),
            ..QueueConfig::fair("stress")
        });
    });
}

#[test]
fn leases_that_run_out_under_load_bring_each_message_back() {
    within_patience(|| {
        let drops = Drops::new(TOTAL);
        let taken = Taken::default();
        let queue: Queue<Value> = Queue::new(QueueConfig {
            visibility_timeout: Duration::from_millis(3),
            on_drop: OnDrop::Expire,
            ..config(Some(256))
        })
        .unwrap();
        let lost = Arc::new(AtomicU64::new(0));
        let receivers: Vec<_> = (0..3)
            .map(|_| {
                let (queue, taken, lost) = (queue.clone(), taken.clone(), Arc::clone(&lost));
                thread::spawn(move || {
                    let mut turn = 0_u32;
                    let ask = Receive {
                        max: 7,
                        ..Receive::default()
                    };
                    while let Ok(deliveries) = queue.receive_with_blocking(&ask) {
                        for delivery in deliveries {
                            turn += 1;
                            let id = delivery.id;
                            if turn.is_multiple_of(10) && delivery.receive_count() < 3 {
                                drop(delivery);
                            } else if delivery.acknowledge().is_ok() {
                                taken.take(id);
                            } else {
                                lost.fetch_add(1, Ordering::SeqCst);
                            }
                        }
                    }
                })
            })
            .collect();
        for sender in senders(&queue, &drops) {
            sender.join().unwrap();
        }
        queue.close(Close::Drain);
        for receiver in receivers {
            receiver.join().unwrap();
        }
        assert_eq!(taken.len(), TOTAL as usize);
        let stats = queue.stats();
        assert_eq!(stats.deleted, u64::from(TOTAL));
        assert!(
            stats.lapsed >= lost.load(Ordering::SeqCst),
            "an acknowledgement was refused"
        );
        assert!(stats.lapsed > 0);
        drop(queue);
        drops.check();
    });
}

#[test]
fn threads_keep_the_order_within_each_group() {
    const GROUPS: u32 = 8;
    within_patience(|| {
        let queue: Queue<(u32, u32)> = Queue::new(QueueConfig {
            capacity: Some(64),
            ..QueueConfig::fifo("stress")
        })
        .unwrap();
        let seen: Arc<Vec<Mutex<Vec<u32>>>> =
            Arc::new((0..GROUPS).map(|_| Mutex::new(Vec::new())).collect());
        let receivers: Vec<_> = (0..3)
            .map(|_| {
                let (queue, seen) = (queue.clone(), Arc::clone(&seen));
                thread::spawn(move || {
                    let mut turn = 0_u32;
                    while let Ok(delivery) = queue.receive_blocking() {
                        turn += 1;
                        if turn.is_multiple_of(7) {
                            delivery.release().unwrap();
                            continue;
                        }
                        let (group, n) = *delivery;
                        // Nobody else has a message of this group now.
                        seen[group as usize]
                            .try_lock()
                            .expect("one at a time")
                            .push(n);
                        delivery.acknowledge().unwrap();
                    }
                })
            })
            .collect();
        // Each group has one sender, so that its order is known.
        let senders: Vec<_> = (0..2)
            .map(|sender| {
                let queue = queue.clone();
                thread::spawn(move || {
                    for n in 0..400 {
                        for group in (sender..GROUPS).step_by(2) {
                            let id = GroupId::new(group.to_string()).unwrap();
                            queue
                                .send_blocking(Message::new((group, n)).group(id))
                                .unwrap();
                        }
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.join().unwrap();
        }
        queue.close(Close::Drain);
        for receiver in receivers {
            receiver.join().unwrap();
        }
        for group in seen.iter() {
            assert!(group.lock().iter().copied().eq(0..400));
        }
    });
}

/// What was taken as sent before the queue was closed is received; what was refused comes back.
fn close_while_sending(config: QueueConfig, how: Close) {
    for _ in 0..30 {
        let drops = Drops::new(SENDERS * 400);
        let queue: Queue<Value> = Queue::new(config.clone()).unwrap();
        let sent = Arc::new(AtomicU64::new(0));
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (queue, drops, sent) = (queue.clone(), drops.clone(), Arc::clone(&sent));
                thread::spawn(move || {
                    for n in 0..400 {
                        if queue.try_send(drops.value(sender * 400 + n)).is_ok() {
                            sent.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                })
            })
            .collect();
        while queue.stats().sent < 50 {
            thread::yield_now();
        }
        queue.close(how);
        let mut received = 0;
        // Also while senders are at work: who is told that all is over may go home.
        loop {
            match queue.try_receive() {
                Ok(delivery) => {
                    delivery.acknowledge().unwrap();
                    received += 1;
                }
                Err(TryReceiveError::Closed) => break,
                Err(_) => thread::yield_now(),
            }
        }
        for sender in senders {
            sender.join().unwrap();
        }
        let purged = queue.stats().purged;
        let sent = sent.load(Ordering::SeqCst);
        assert_eq!(
            received + purged,
            sent,
            "received and purged of those that were sent"
        );
        assert_eq!(queue.stats().sent, sent);
        assert!(
            queue
                .try_send(Value {
                    id: 0,
                    drops: Drops::new(1)
                })
                .is_err()
        );
        drop(queue);
        for sender in 0..SENDERS * 400 {
            assert!(drops.0[sender as usize].load(Ordering::SeqCst) == 1);
        }
    }
}

#[test]
fn closing_an_unbounded_queue_while_sending_loses_nothing_that_was_sent() {
    within_patience(|| close_while_sending(config(None), Close::Drain));
}

#[test]
fn closing_a_bounded_queue_while_sending_loses_nothing_that_was_sent() {
    within_patience(|| close_while_sending(config(Some(2_000)), Close::Drain));
}

#[test]
fn closing_a_queue_by_dropping_while_sending_leaves_nothing_in_it() {
    within_patience(|| close_while_sending(config(None), Close::Drop));
}

#[test]
fn closing_a_fair_queue_while_sending_loses_nothing_that_was_sent() {
    within_patience(|| close_while_sending(QueueConfig::fair("stress"), Close::Drain));
}

#[test]
fn a_purge_under_load_drops_each_message_once() {
    within_patience(|| {
        for config in [config(Some(64)), config(None), QueueConfig::fair("stress")] {
            let drops = Drops::new(TOTAL);
            let queue: Queue<Value> = Queue::new(config).unwrap();
            let senders = senders(&queue, &drops);
            let receivers: Vec<_> = (0..2)
                .map(|_| {
                    let queue = queue.clone();
                    thread::spawn(move || {
                        let mut held = Vec::new();
                        let mut acknowledged = 0_u64;
                        while let Ok(delivery) = queue.receive_blocking() {
                            held.push(delivery);
                            if held.len() > 5 {
                                let first = held.remove(0);
                                acknowledged += u64::from(first.acknowledge().is_ok());
                            }
                        }
                        for delivery in held {
                            acknowledged += u64::from(delivery.acknowledge().is_ok());
                        }
                        acknowledged
                    })
                })
                .collect();
            let mut purged = 0;
            while senders.iter().any(|sender| !sender.is_finished()) {
                purged += queue.purge();
                thread::yield_now();
            }
            for sender in senders {
                sender.join().unwrap();
            }
            // Receivers that hold the last messages only stop when the queue drops these. What was on its
            // way from the queue to a receiver during a purge may have stayed.
            queue.close(Close::Drain);
            while receivers.iter().any(|receiver| !receiver.is_finished()) {
                queue.purge();
                thread::yield_now();
            }
            let acknowledged: u64 = receivers
                .into_iter()
                .map(|receiver| receiver.join().unwrap())
                .sum();
            let stats = queue.stats();
            assert!(stats.purged >= purged);
            assert_eq!(stats.deleted, acknowledged);
            assert_eq!(stats.deleted + stats.purged, u64::from(TOTAL));
            assert_eq!((stats.visible, stats.in_flight), (0, 0));
            drop(queue);
            drops.check();
        }
    });
}

#[test]
fn closing_by_dropping_leaves_nothing_to_those_who_receive_meanwhile() {
    within_patience(|| {
        for _ in 0..200 {
            let drops = Drops::new(300);
            let queue: Queue<Value> = Queue::new(config(None)).unwrap();
            for id in 0..300 {
                queue.try_send(drops.value(id)).unwrap();
            }
            let receivers: Vec<_> = (0..2)
                .map(|_| {
                    let queue = queue.clone();
                    thread::spawn(move || {
                        let mut held = Vec::new();
                        while let Ok(delivery) = queue.try_receive() {
                            held.push(delivery);
                        }
                        held
                    })
                })
                .collect();
            while queue.stats().received < 20 {
                thread::yield_now();
            }
            queue.close(Close::Drop);
            let held: Vec<_> = receivers
                .into_iter()
                .flat_map(|receiver| receiver.join().unwrap())
                .collect();
            let stats = queue.stats();
            assert_eq!(
                (stats.in_flight, stats.purged),
                (0, 300),
                "of {} received",
                held.len()
            );
            assert!(
                held.into_iter()
                    .all(|delivery| delivery.acknowledge().is_err())
            );
            drop(queue);
            drops.check();
        }
    });
}

#[test]
fn a_cap_that_is_approximate_holds_for_messages_that_were_delayed() {
    const CAP: u64 = 1_025;
    within_patience(|| {
        for _ in 0..20 {
            let queue: Queue<u32> = Queue::new(QueueConfig {
                max_in_flight: CAP as usize,
                ..QueueConfig::new("stress")
            })
            .unwrap();
            for n in 0..4_000 {
                queue
                    .try_send(Message::new(n).delay(Duration::from_nanos(1)))
                    .unwrap();
            }
            let receivers: Vec<_> = (0..4)
                .map(|_| {
                    let queue = queue.clone();
                    thread::spawn(move || {
                        let mut held = Vec::new();
                        while queue.try_receive_batch(90, &mut held).is_ok() {}
                        held
                    })
                })
                .collect();
            let held: Vec<_> = receivers
                .into_iter()
                .flat_map(|receiver| receiver.join().unwrap())
                .collect();
            let in_flight = queue.stats().in_flight;
            assert_eq!(in_flight, held.len() as u64);
            // Each receiver may pass it by one call's messages.
            assert!(
                (CAP..=CAP + 4 * 90).contains(&in_flight),
                "{in_flight} in flight"
            );
        }
    });
}

#[test]
fn deliveries_outlive_every_handle_of_their_queue() {
    within_patience(|| {
        for config in [
            config(None),
            config(Some(5_000)),
            QueueConfig::fair("stress"),
        ] {
            let drops = Drops::new(1_000);
            let queue: Queue<Value> = Queue::new(config).unwrap();
            for id in 0..1_000 {
                queue.try_send(drops.value(id)).unwrap();
            }
            let mut held: Vec<Delivery<Value>> = Vec::new();
            queue.try_receive_batch(600, &mut held).unwrap();
            let rest = held.split_off(300);
            let threads: Vec<_> = [held, rest]
                .into_iter()
                .map(|held| {
                    thread::spawn(move || {
                        for (n, delivery) in held.into_iter().enumerate() {
                            let id = delivery.id;
                            match n % 3 {
                                0 => assert_eq!(delivery.acknowledge().unwrap().unwrap().id, id),
                                1 => delivery.release().unwrap(),
                                _ => drop(delivery),
                            }
                        }
                    })
                })
                .collect();
            drop(queue);
            for thread in threads {
                thread.join().unwrap();
            }
            drops.check();
        }
    });
}

#[test]
fn dead_letters_move_back_under_load() {
    within_patience(|| {
        let drops = Drops::new(TOTAL);
        let taken = Taken::default();
        let morgue: Queue<Value> = Queue::new(QueueConfig::new("morgue")).unwrap();
        let queue: Queue<Value> = Queue::new(config(Some(512))).unwrap();
        queue
            .set_dead_letters(DeadLetterPolicy::to_queue(&morgue, 2))
            .unwrap();
        let is_over = Arc::new(AtomicU32::new(0));
        let mover = {
            let (morgue, is_over) = (morgue.clone(), Arc::clone(&is_over));
            thread::spawn(move || {
                let mut moved = 0;
                while is_over.load(Ordering::SeqCst) == 0 {
                    let task = morgue.start_move(MoveTask::default()).unwrap();
                    while task.step().status == MoveStatus::Running {
                        thread::yield_now();
                    }
                    assert_eq!(task.progress().failure, None);
                    moved += task.progress().moved;
                }
                moved
            })
        };
        let receivers: Vec<_> = (0..2)
            .map(|_| {
                let (queue, taken) = (queue.clone(), taken.clone());
                thread::spawn(move || {
                    let mut random = Random::new(2013);
                    while taken.len() < TOTAL as usize {
                        let Ok(delivery) = queue.try_receive() else {
                            thread::yield_now();
                            continue;
                        };
                        if random.chance(0.4) {
                            delivery.release().unwrap();
                        } else {
                            let id = delivery.id;
                            delivery.acknowledge().unwrap();
                            taken.take(id);
                        }
                    }
                })
            })
            .collect();
        for sender in senders(&queue, &drops) {
            sender.join().unwrap();
        }
        for receiver in receivers {
            receiver.join().unwrap();
        }
        is_over.store(1, Ordering::SeqCst);
        let moved = mover.join().unwrap();
        let (stats, letters) = (queue.stats(), morgue.stats());
        assert!(moved > 0);
        assert_eq!((stats.deleted, stats.redriven), (u64::from(TOTAL), moved));
        assert_eq!(stats.sent, u64::from(TOTAL) + moved);
        assert_eq!((letters.visible, letters.in_flight), (0, 0));
        drop((queue, morgue));
        drops.check();
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap()
}

#[test]
fn tasks_lose_and_double_nothing() {
    within_patience(|| {
        for capacity in [Some(1), Some(16), None] {
            let drops = Drops::new(TOTAL);
            let taken = Taken::default();
            let queue: Queue<Value> = Queue::new(config(capacity)).unwrap();
            runtime().block_on(async {
                let mut senders = Vec::new();
                for sender in 0..SENDERS {
                    let (queue, drops) = (queue.clone(), drops.clone());
                    senders.push(tokio::spawn(async move {
                        for n in 0..PER_SENDER {
                            queue
                                .send(drops.value(sender * PER_SENDER + n))
                                .await
                                .unwrap();
                        }
                    }));
                }
                let mut receivers = Vec::new();
                for _ in 0..4 {
                    let (queue, taken) = (queue.clone(), taken.clone());
                    receivers.push(tokio::spawn(async move {
                        while let Ok(delivery) = queue.receive().await {
                            taken.take(delivery.acknowledge().unwrap().unwrap().id);
                        }
                    }));
                }
                for sender in senders {
                    sender.await.unwrap();
                }
                queue.close(Close::Drain);
                for receiver in receivers {
                    receiver.await.unwrap();
                }
                queue.drained().await;
            });
            assert_eq!(taken.len(), TOTAL as usize);
            drop(queue);
            drops.check();
        }
    });
}

#[test]
fn futures_that_are_dropped_under_load_lose_no_message() {
    within_patience(|| {
        let drops = Drops::new(TOTAL);
        let taken = Taken::default();
        let queue: Queue<Value> = Queue::new(config(Some(8))).unwrap();
        let sent = Arc::new(AtomicU64::new(0));
        runtime().block_on(async {
            let mut senders = Vec::new();
            for sender in 0..SENDERS {
                let (queue, drops, sent) = (queue.clone(), drops.clone(), Arc::clone(&sent));
                senders.push(tokio::spawn(async move {
                    for n in 0..PER_SENDER {
                        // Dropped while it waits for room, it drops its message with it.
                        let send = queue.send(drops.value(sender * PER_SENDER + n));
                        tokio::select! {
                            outcome = send => {
                                outcome.unwrap();
                                sent.fetch_add(1, Ordering::SeqCst);
                            }
                            () = tokio::task::yield_now() => {}
                        }
                    }
                }));
            }
            let mut receivers = Vec::new();
            for _ in 0..4 {
                let (queue, taken) = (queue.clone(), taken.clone());
                receivers.push(tokio::spawn(async move {
                    loop {
                        tokio::select! {
                            outcome = queue.receive() => match outcome {
                                Ok(delivery) => taken.take(delivery.acknowledge().unwrap().unwrap().id),
                                Err(_) => return,
                            },
                            () = tokio::task::yield_now() => {}
                        }
                    }
                }));
            }
            for sender in senders {
                sender.await.unwrap();
            }
            queue.close(Close::Drain);
            for receiver in receivers {
                receiver.await.unwrap();
            }
        });
        assert_eq!(taken.len() as u64, sent.load(Ordering::SeqCst));
        assert_eq!(queue.stats().sent, taken.len() as u64);
        drop(queue);
        drops.check();
    });
}

#[test]
fn a_receiver_that_is_dropped_hands_its_wake_up_on() {
    within_patience(|| {
        let queue: Queue<u32> = Queue::new(QueueConfig::new("stress")).unwrap();
        runtime().block_on(async {
            for n in 0..2_000 {
                let (first, second) = (queue.clone(), queue.clone());
                let first = tokio::spawn(async move { first.receive().await });
                let second = tokio::spawn(async move { second.receive().await });
                tokio::task::yield_now().await;
                queue.send(n).await.unwrap();
                first.abort();
                // Either of them has it; if the first was chosen and then dropped, the second is woken.
                let got = match first.await {
                    Ok(delivery) => {
                        second.abort();
                        let _ = second.await;
                        delivery
                    }
                    Err(_) => second.await.unwrap(),
                };
                let got = got.unwrap();
                assert_eq!(*got, n);
                got.acknowledge().unwrap();
            }
        });
        assert_eq!(queue.stats().deleted, 2_000);
    });
}
