//! Fair queues: a noisy tenant does not make the quiet ones wait.

use std::time::Duration;

use sim_queue::{FairConfig, Kind, Message, Queue, QueueConfig, Refusal, Stale, TryReceiveError};

use crate::rig::{
    Task, acknowledge_all, dedup, drain, group, of, queue, reconcile, secs, take, values,
};

fn send_all(queue: &Queue<u32>, tenant: &str, values: impl IntoIterator<Item = u32>) {
    for value in values {
        queue
            .try_send(Message::new(value).tenant(group(tenant)))
            .unwrap();
    }
}

/// Noisy from three in flight on; time does not count.
fn by_in_flight() -> QueueConfig {
    let fair = FairConfig {
        min_in_flight: 3,
        processing_share: 100,
        ..FairConfig::default()
    };
    QueueConfig {
        kind: Kind::Fair(fair),
        ..QueueConfig::new("q")
    }
}

#[test]
fn a_quiet_tenant_overtakes_the_backlog_of_a_noisy_one() {
    let (queue, _) = queue(QueueConfig::fair("q"));
    send_all(&queue, "noisy", 0..1000);
    let held = take(&queue, 40);
    send_all(&queue, "quiet", [5000, 5001]);
    let stats = queue.stats();
    assert_eq!((stats.noisy_groups, stats.visible_in_quiet_groups), (1, 2));
    assert_eq!((stats.visible, stats.in_flight_in_quiet_groups), (962, 0));
    assert_eq!(values(&take(&queue, 3)), [5000, 5001, 40]);
    assert_eq!(values(&held), (0..40).collect::<Vec<_>>());
}

#[test]
fn a_quiet_tenant_waits_no_longer_for_a_larger_backlog_of_a_noisy_one() {
    // Ten workers, each busy for a second; how many seconds until the quiet message is taken.
    let wait = |backlog: u32| {
        let (queue, hand) = queue(by_in_flight());
        send_all(&queue, "noisy", 0..backlog);
        let mut busy = take(&queue, 10);
        send_all(&queue, "quiet", [1_000_000]);
        for second in 1..=1000 {
            hand.advance(secs(1));
            acknowledge_all(std::mem::take(&mut busy));
            // One after the other, as workers come.
            for _ in 0..10 {
                busy.extend(queue.try_receive());
            }
            if busy.iter().any(|delivery| **delivery == 1_000_000) {
                return second;
            }
        }
        1001
    };
    assert_eq!((wait(100), wait(5000)), (1, 1));
}

#[test]
fn tenants_take_turns_message_by_message() {
    let (queue, _) = queue(QueueConfig::fair("q"));
    send_all(&queue, "a", 0..3);
    send_all(&queue, "b", [10]);
    send_all(&queue, "c", [20, 21]);
    assert_eq!(values(&take(&queue, 10)), [0, 10, 20, 1, 21, 2]);
}

#[test]
fn a_noisy_tenant_is_served_while_no_quiet_one_waits() {
    let (queue, _) = queue(by_in_flight());
    send_all(&queue, "a", 0..50);
    assert_eq!(take(&queue, 50).len(), 50);
}

#[test]
fn a_tenant_that_took_most_of_the_recent_time_is_noisy() {
    let (queue, hand) = queue(QueueConfig::fair("q"));
    for m in 0..3 {
        send_all(&queue, "slow", [m]);
        send_all(&queue, "fast", [10 + m]);
    }
    let slow = queue.try_receive().unwrap();
    let fast = queue.try_receive().unwrap();
    assert_eq!((*slow, *fast), (0, 10));
    hand.advance(secs(1));
    fast.acknowledge().unwrap();
    hand.advance(secs(20));
    slow.acknowledge().unwrap();
    assert!(queue.stats().noisy_groups >= 1);
    assert_eq!(values(&take(&queue, 2)), [11, 12]);
}

#[test]
fn a_tenant_becomes_quiet_again_when_its_messages_are_done() {
    let (queue, _) = queue(by_in_flight());
    send_all(&queue, "a", 0..6);
    let held = take(&queue, 4);
    assert_eq!(queue.stats().noisy_groups, 1);
    acknowledge_all(held);
    assert_eq!(queue.stats().noisy_groups, 0);
}

#[test]
fn messages_without_a_tenant_are_never_noisy() {
    let (queue, _) = queue(by_in_flight());
    for n in 0..10 {
        queue.try_send(n).unwrap();
    }
    let _held = take(&queue, 8);
    assert_eq!(queue.stats().noisy_groups, 0);
    send_all(&queue, "a", [100]);
    assert_eq!(values(&take(&queue, 3)), [8, 100, 9]);
}

#[test]
fn a_group_in_flight_holds_nothing_back() {
    let (queue, _) = queue(QueueConfig::fair("q"));
    send_all(&queue, "a", 0..3);
    let first = queue.try_receive().unwrap();
    let second = queue.try_receive().unwrap();
    assert_eq!((*first, *second), (0, 1));
    assert_eq!(first.group(), Some(&group("a")));
    assert_eq!(queue.stats().groups_in_flight, 1);
}

#[test]
fn a_late_acknowledgement_counts_as_on_a_standard_queue() {
    let (queue, hand) = queue(QueueConfig::fair("q"));
    send_all(&queue, "a", [1, 2]);
    let slow = take(&queue, 2);
    hand.advance(secs(60));
    queue.advance();
    assert_eq!(queue.stats().visible, 2);
    let again = queue.try_receive().unwrap();
    let outcomes: Vec<_> = slow
        .into_iter()
        .map(|delivery| (*delivery == *again, delivery.acknowledge()))
        .collect();
    for (received_again, outcome) in outcomes {
        assert_eq!(outcome.is_ok(), !received_again);
    }
    again.acknowledge().unwrap();
    assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Empty);
    reconcile(&queue);
}

#[test]
fn a_late_acknowledgement_lets_a_sender_go_on_that_waits_for_room() {
    let (queue, hand) = queue(QueueConfig {
        capacity: Some(1),
        ..QueueConfig::fair("q")
    });
    send_all(&queue, "a", [1]);
    let slow = queue.try_receive().unwrap();
    hand.advance(secs(30));
    queue.advance();
    let mut sender = Task::waiting(queue.send(of("a", 2)));
    slow.acknowledge().unwrap();
    assert!(sender.run().is_some_and(|sent| sent.is_ok()));
    assert_eq!(drain(&queue), [2]);
}

#[test]
fn a_fair_queue_reports_the_cap_in_flight() {
    let (queue, _) = queue(QueueConfig {
        max_in_flight: 2,
        ..QueueConfig::fair("q")
    });
    send_all(&queue, "a", 0..4);
    let held = take(&queue, 10);
    assert_eq!(held.len(), 2);
    assert_eq!(
        queue.try_receive().unwrap_err(),
        TryReceiveError::OverLimit { limit: 2 }
    );
}

#[test]
fn a_fair_message_may_be_delayed_and_has_no_de_duplication_id() {
    let (queue, hand) = queue(QueueConfig::fair("q"));
    queue.try_send(of("a", 1).delay(secs(5))).unwrap();
    let stats = queue.stats();
    assert_eq!((stats.delayed, stats.delayed_in_quiet_groups), (1, 1));
    hand.advance(secs(5));
    assert_eq!(drain(&queue), [1]);
    let refused = queue
        .try_send(of("a", 1).deduplication_id(dedup("x")))
        .unwrap_err();
    assert_eq!(refused.reason, Refusal::UnexpectedDeduplicationId);
}

#[test]
fn a_lease_lengthened_and_shortened_on_a_fair_queue_ends_when_it_should() {
    let (queue, hand) = queue(QueueConfig::fair("q"));
    send_all(&queue, "a", [1, 2]);
    let mut held = take(&queue, 2);
    held[0].extend(secs(60)).unwrap();
    held[1].extend(secs(5)).unwrap();
    hand.advance(secs(5));
    assert_eq!(values(&take(&queue, 10)), [2]);
    hand.advance(secs(55) - Duration::from_nanos(1));
    assert!(drain(&queue).iter().all(|&value| value == 2));
    hand.advance(Duration::from_nanos(1));
    assert_eq!(drain(&queue), [1]);
    assert!(
        held.into_iter()
            .all(|delivery| delivery.acknowledge() == Err(Stale))
    );
}

#[test]
fn the_statistics_of_a_fair_queue_reconcile_whatever_happens() {
    let config = QueueConfig {
        retention: Some(secs(200)),
        capacity: Some(60),
        max_in_flight: 25,
        ..by_in_flight()
    };
    let (queue, hand) = queue(config);
    let mut random = sim_core::random::Random::new(4);
    let mut held = Vec::new();
    for step in 0..5000_u32 {
        match random.below(10) {
            0..=2 => drop(queue.try_send(of(format!("t{}", random.below(5)), step))),
            3 => drop(queue.try_send(Message::new(step).delay(secs(random.below(20))))),
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
        stats.deleted > 50 && stats.expired > 0 && stats.lapsed > 0,
        "{stats:?}"
    );
}
