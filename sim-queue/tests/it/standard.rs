//! Standard queues: leases, delays, retention, returns, caps, on a virtual clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sim_core::time::Instant;
use sim_queue::{
    ConfigError, ExtendError, Limits, Message, OnDrop, QueueConfig, Receive, Refusal, SendError,
    Stale, TryReceiveError,
};

use crate::rig::{
    START, Task, abandon, acknowledge_all, block_on, drain, hidden_for, queue, queue_of, reconcile,
    secs, take, until_asleep, values,
};

fn hours(n: u64) -> Duration {
    secs(n * 3600)
}

// ---- the life of a message ---------------------------------------------------------------------------

#[test]
fn a_message_is_received_once_and_acknowledged_with_its_value() {
    let (queue, _) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    let delivery = queue.try_receive().unwrap();
    assert_eq!(*delivery, 7);
    assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Empty);
    assert_eq!(queue.stats().in_flight, 1);
    assert_eq!(delivery.acknowledge(), Ok(Some(7)));
    let stats = queue.stats();
    assert_eq!(
        (stats.sent, stats.received, stats.deleted, stats.in_flight),
        (1, 1, 1, 0)
    );
}

#[test]
fn messages_are_received_in_the_order_of_sending_by_a_single_receiver() {
    let (queue, _) = queue(QueueConfig::new("q"));
    for n in 0..200 {
        queue.try_send(n).unwrap();
    }
    assert_eq!(drain(&queue), (0..200).collect::<Vec<_>>());
}

#[test]
fn a_message_keeps_its_id_over_its_deliveries() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    let sent = queue.try_send(7).unwrap();
    let other = queue.try_send(8).unwrap();
    assert_ne!(sent.id, other.id);
    assert_eq!((sent.sequence, sent.duplicate), (None, false));
    let first = queue.try_receive().unwrap();
    assert_eq!(first.id(), sent.id);
    assert_eq!(queue.try_receive().unwrap().acknowledge(), Ok(Some(8)));
    hand.advance(secs(30));
    let second = queue.try_receive().unwrap();
    assert_eq!((second.id(), second.receive_count()), (sent.id, 2));
    second.release().unwrap();
    let third = queue.try_receive().unwrap();
    assert_eq!((third.id(), third.receive_count()), (sent.id, 3));
}

#[test]
fn delayed_messages_have_ids_of_their_own() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    let plain = queue.try_send(1).unwrap();
    let delayed = queue.try_send(Message::new(2).delay(secs(1))).unwrap();
    assert_ne!(plain.id, delayed.id);
    hand.advance(secs(1));
    let got = take(&queue, 10);
    let mut ids: Vec<_> = got
        .iter()
        .map(|delivery| (**delivery, delivery.id()))
        .collect();
    ids.sort_unstable_by_key(|entry| entry.0);
    assert_eq!(ids, [(1, plain.id), (2, delayed.id)]);
}

#[test]
fn the_same_seed_and_name_give_the_same_ids() {
    let config = QueueConfig {
        seed: 9,
        ..QueueConfig::new("q")
    };
    let (one, _) = queue(config.clone());
    let (two, _) = queue(config.clone());
    let (other, _) = queue(QueueConfig { seed: 10, ..config });
    assert_eq!(one.try_send(1).unwrap().id, two.try_send(2).unwrap().id);
    assert_ne!(one.try_send(1).unwrap().id, other.try_send(2).unwrap().id);
}

#[test]
fn a_delivery_tells_when_its_message_was_sent_and_first_received() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    hand.advance(secs(5));
    queue.try_send(7).unwrap();
    hand.advance(secs(10));
    let first = queue.try_receive().unwrap();
    assert_eq!(first.sent_at(), START + secs(5));
    assert_eq!(first.first_received_at(), START + secs(15));
    hand.advance(secs(30));
    let second = queue.try_receive().unwrap();
    assert_eq!(second.sent_at(), START + secs(5));
    assert_eq!(second.first_received_at(), START + secs(15));
    assert_eq!(second.received_at(), Instant::ORIGIN + secs(45));
    assert_eq!(second.sent_instant(), Instant::ORIGIN + secs(5));
    assert_eq!(second.sequence(), None);
    assert_eq!(second.group(), None);
    assert!(second.attributes().is_empty());
    assert!(second.dead_letter().is_none());
}

#[test]
fn what_a_message_carries_arrives_with_it() {
    let (queue, _) = queue(QueueConfig::new("q"));
    let mut attributes = sim_core::attributes::Attributes::new();
    attributes.insert("tail", "N14228").unwrap();
    attributes.insert("seats", 149).unwrap();
    queue
        .try_send(
            Message::new(7)
                .attributes(attributes.clone())
                .trace_header("Root=1-67891233"),
        )
        .unwrap();
    let delivery = queue.try_receive().unwrap();
    assert_eq!(*delivery.attributes(), attributes);
    assert_eq!(
        delivery.attributes().get("seats").unwrap().as_text(),
        Some("149")
    );
    assert_eq!(delivery.trace_header(), Some("Root=1-67891233"));
}

// ---- leases ------------------------------------------------------------------------------------------

#[test]
fn a_message_comes_back_after_its_timeout() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    let first = queue.try_receive().unwrap();
    hand.advance(secs(29));
    assert!(queue.try_receive().is_err());
    hand.advance(secs(1));
    let second = queue.try_receive().unwrap();
    assert_eq!(second.receive_count(), 2);
    assert_eq!(*first, 7);
    assert!(first.acknowledge().is_err());
    assert_eq!(second.acknowledge(), Ok(Some(7)));
    reconcile(&queue);
}

#[test]
fn the_queue_sets_how_long_a_message_stays_hidden() {
    let (queue, hand) = queue(QueueConfig {
        visibility_timeout: secs(5),
        ..QueueConfig::new("q")
    });
    queue.try_send(7).unwrap();
    let _held = queue.try_receive().unwrap();
    hand.advance(Duration::from_nanos(4_999_999_999));
    assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Empty);
    hand.advance(Duration::from_nanos(1));
    assert_eq!(queue.try_receive().unwrap().receive_count(), 2);
}

#[test]
fn a_receive_sets_how_long_its_messages_stay_hidden() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    queue.try_send(1).unwrap();
    queue.try_send(2).unwrap();
    let short = queue.try_receive_with(&hidden_for(secs(3))).unwrap();
    let long = queue.try_receive_with(&hidden_for(secs(300))).unwrap();
    assert_eq!((values(&short), values(&long)), (vec![1], vec![2]));
    hand.advance(secs(3));
    let again = take(&queue, 10);
    assert_eq!(values(&again), [1]);
    hand.advance(secs(296));
    assert_eq!(drain(&queue), [1]);
    hand.advance(secs(1));
    assert_eq!(drain(&queue), [2]);
}

#[test]
fn a_receive_with_a_timeout_of_zero_leaves_the_message_visible() {
    let (queue, _) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    let first = queue.try_receive_with(&hidden_for(Duration::ZERO)).unwrap();
    let second = queue.try_receive().unwrap();
    assert_eq!((*second, second.receive_count()), (7, 2));
    assert_eq!(first.into_iter().next().unwrap().acknowledge(), Err(Stale));
}

#[test]
fn a_lease_is_extended_from_now_on() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    let mut delivery = queue.try_receive().unwrap();
    hand.advance(secs(20));
    delivery.extend(secs(60)).unwrap();
    hand.advance(secs(59));
    assert!(queue.try_receive().is_err());
    hand.advance(secs(1));
    assert_eq!(queue.try_receive().unwrap().receive_count(), 2);
    assert_eq!(delivery.extend(secs(60)), Err(ExtendError::Stale(Stale)));
}

#[test]
fn a_heartbeat_keeps_a_message_for_as_long_as_it_beats() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    let mut delivery = queue.try_receive().unwrap();
    for _ in 0..1000 {
        hand.advance(secs(20));
        assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Empty);
        delivery.extend(secs(30)).unwrap();
    }
    assert_eq!(delivery.acknowledge(), Ok(Some(7)));
    assert_eq!(queue.stats().lapsed, 0);
    reconcile(&queue);
}

#[test]
fn a_lease_is_made_shorter() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    let mut delivery = queue.try_receive().unwrap();
    delivery.extend(secs(2)).unwrap();
    hand.advance(secs(1));
    assert!(queue.try_receive().is_err());
    hand.advance(secs(1));
    assert_eq!(*queue.try_receive().unwrap(), 7);
}

#[test]
fn a_lease_is_made_shorter_and_longer_again() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    let mut delivery = queue.try_receive().unwrap();
    delivery.extend(secs(2)).unwrap();
    delivery.extend(secs(40)).unwrap();
    delivery.extend(secs(10)).unwrap();
    hand.advance(secs(9));
    assert!(queue.try_receive().is_err());
    hand.advance(secs(1));
    assert_eq!(queue.try_receive().unwrap().receive_count(), 2);
    hand.advance(secs(60));
    queue.advance();
    assert_eq!(queue.stats().visible, 1);
    reconcile(&queue);
}

#[test]
fn an_extension_to_zero_ends_the_lease_at_once() {
    let (queue, _) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    let mut delivery = queue.try_receive().unwrap();
    delivery.extend(Duration::ZERO).unwrap();
    assert_eq!(queue.stats().visible, 1);
    assert_eq!(queue.try_receive().unwrap().receive_count(), 2);
}

#[test]
fn an_extension_is_not_remembered_for_the_next_receive() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    let mut delivery = queue.try_receive().unwrap();
    delivery.extend(secs(100)).unwrap();
    hand.advance(secs(100));
    let _again = queue.try_receive().unwrap();
    hand.advance(secs(30));
    assert_eq!(queue.try_receive().unwrap().receive_count(), 3);
}

#[test]
fn a_lease_that_ended_is_not_extended_even_before_anybody_noticed() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    let mut delivery = queue.try_receive().unwrap();
    hand.advance(secs(30));
    assert_eq!(delivery.extend(secs(30)), Err(ExtendError::Stale(Stale)));
    assert_eq!(*queue.try_receive().unwrap(), 7);
}

#[test]
fn with_the_limits_of_aws_a_message_is_in_flight_for_twelve_hours_at_most() {
    let config = QueueConfig {
        limits: Limits {
            message_bytes: None,
            ..Limits::aws()
        },
        ..QueueConfig::new("q")
    };
    let (queue, hand) = queue(config);
    queue.try_send(7).unwrap();
    let mut delivery = queue.try_receive().unwrap();
    delivery.extend(hours(12)).unwrap();
    hand.advance(hours(7));
    let too_long = ExtendError::TooLong {
        value: hours(5) + secs(1),
        limit: hours(12),
    };
    assert_eq!(delivery.extend(hours(5) + secs(1)), Err(too_long));
    delivery.extend(hours(5)).unwrap();
    hand.advance(hours(5) - secs(1));
    delivery.extend(secs(1)).unwrap();
    hand.advance(secs(1));
    // The next receive has twelve hours of its own.
    let mut again = queue.try_receive().unwrap();
    again.extend(hours(12)).unwrap();
    assert_eq!(again.receive_count(), 2);
}

#[test]
fn a_receive_beyond_the_longest_lease_is_refused() {
    let config = QueueConfig {
        limits: Limits {
            message_bytes: None,
            ..Limits::aws()
        },
        ..QueueConfig::new("q")
    };
    let (queue, _) = queue(config);
    queue.try_send(7).unwrap();
    assert!(
        queue
            .try_receive_with(&hidden_for(hours(12) + secs(1)))
            .is_err()
    );
    assert_eq!(queue.stats().in_flight, 0);
    assert_eq!(
        queue
            .try_receive_with(&hidden_for(hours(12)))
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn leases_of_different_lengths_end_in_the_order_of_their_ends() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    let mut held = Vec::new();
    for n in 0..50 {
        queue.try_send(n).unwrap();
        held.extend(
            queue
                .try_receive_with(&hidden_for(secs(u64::from(100 - n))))
                .unwrap(),
        );
    }
    let mut returned = Vec::new();
    for _ in 0..100 {
        hand.advance(secs(1));
        returned.extend(drain(&queue));
    }
    assert_eq!(returned, (0..50).rev().collect::<Vec<_>>());
    assert!(
        held.into_iter()
            .all(|delivery| delivery.acknowledge() == Err(Stale))
    );
}

// ---- giving back -------------------------------------------------------------------------------------

#[test]
fn a_released_message_is_visible_at_once() {
    let (queue, _) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    queue.try_receive().unwrap().release().unwrap();
    let stats = queue.stats();
    assert_eq!((stats.visible, stats.in_flight, stats.released), (1, 0, 1));
    assert_eq!(queue.try_receive().unwrap().receive_count(), 2);
}

#[test]
fn a_returned_message_goes_before_younger_ones() {
    let (queue, _) = queue(QueueConfig::new("q"));
    queue.try_send(1).unwrap();
    queue.try_send(2).unwrap();
    queue.try_receive().unwrap().release().unwrap();
    assert_eq!(drain(&queue), [1, 2]);
}

#[test]
fn a_message_released_for_later_stays_in_flight_until_then() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    queue
        .try_receive()
        .unwrap()
        .release_after(secs(45))
        .unwrap();
    assert_eq!(queue.stats().in_flight, 1);
    hand.advance(secs(44));
    assert!(queue.try_receive().is_err());
    hand.advance(secs(1));
    assert_eq!(queue.try_receive().unwrap().receive_count(), 2);
}

#[test]
fn a_message_released_for_soon_comes_back_before_its_timeout() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    queue.try_receive().unwrap().release_after(secs(2)).unwrap();
    hand.advance(secs(2));
    assert_eq!(*queue.try_receive().unwrap(), 7);
}

#[test]
fn a_message_released_for_later_has_no_holder() {
    let (queue, _) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    let delivery = queue.try_receive().unwrap();
    let receipt = delivery.receipt();
    delivery.release_after(secs(5)).unwrap();
    assert_eq!(queue.acknowledge(&receipt), Err(Stale));
    assert_eq!(queue.stats().in_flight, 1);
}

#[test]
fn a_release_for_too_long_leaves_the_lease_as_it_was() {
    let config = QueueConfig {
        limits: Limits {
            message_bytes: None,
            ..Limits::aws()
        },
        ..QueueConfig::new("q")
    };
    let (queue, hand) = queue(config);
    queue.try_send(7).unwrap();
    let refused = queue.try_receive().unwrap().release_after(hours(13));
    assert!(matches!(refused, Err(ExtendError::TooLong { .. })));
    assert_eq!(queue.stats().in_flight, 1);
    hand.advance(secs(30));
    assert_eq!(queue.try_receive().unwrap().receive_count(), 2);
}

#[test]
fn a_rejected_message_without_dead_letters_is_released() {
    let (queue, _) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    queue.try_receive().unwrap().reject().unwrap();
    assert_eq!(queue.stats().visible, 1);
    assert_eq!(queue.try_receive().unwrap().receive_count(), 2);
}

#[test]
fn every_verdict_on_a_lease_that_ended_is_stale() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    for n in 0..4 {
        queue.try_send(n).unwrap();
    }
    let mut old = take(&queue, 4);
    hand.advance(secs(30));
    let new = take(&queue, 4);
    assert_eq!(new.len(), 4);
    assert_eq!(old.remove(0).acknowledge(), Err(Stale));
    assert_eq!(old.remove(0).release(), Err(Stale));
    assert_eq!(
        old.remove(0).release_after(secs(1)),
        Err(ExtendError::Stale(Stale))
    );
    assert_eq!(old.remove(0).reject(), Err(Stale));
    assert_eq!(queue.stats().in_flight, 4);
    acknowledge_all(new);
}

#[test]
fn a_dropped_delivery_returns_its_message() {
    let (queue, _) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    drop(queue.try_receive().unwrap());
    assert_eq!(queue.stats().visible, 1);
    assert_eq!(queue.try_receive().unwrap().receive_count(), 2);
}

#[test]
fn a_dropped_delivery_lets_its_lease_run_on_if_told_so() {
    let (queue, hand) = queue(QueueConfig {
        on_drop: OnDrop::Expire,
        ..QueueConfig::new("q")
    });
    queue.try_send(7).unwrap();
    drop(queue.try_receive().unwrap());
    assert_eq!(queue.stats().in_flight, 1);
    hand.advance(secs(29));
    assert!(queue.try_receive().is_err());
    hand.advance(secs(1));
    assert_eq!(queue.try_receive().unwrap().receive_count(), 2);
}

#[test]
fn a_dropped_delivery_acknowledges_its_message_if_told_so() {
    let (queue, hand) = queue(QueueConfig {
        on_drop: OnDrop::Acknowledge,
        ..QueueConfig::new("q")
    });
    queue.try_send(7).unwrap();
    drop(queue.try_receive().unwrap());
    hand.advance(secs(3600));
    assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Empty);
    let stats = queue.stats();
    assert_eq!((stats.deleted, stats.in_flight), (1, 0));
}

#[test]
fn a_delivery_that_is_dropped_late_does_not_disturb_the_one_that_followed() {
    for on_drop in [OnDrop::Return, OnDrop::Expire, OnDrop::Acknowledge] {
        let (queue, hand) = queue(QueueConfig {
            on_drop,
            ..QueueConfig::new("q")
        });
        queue.try_send(7).unwrap();
        let late = queue.try_receive().unwrap();
        hand.advance(secs(30));
        let current = queue.try_receive().unwrap();
        drop(late);
        assert_eq!(queue.stats().in_flight, 1, "{on_drop:?}");
        assert_eq!(current.receive_count(), 2);
        assert!(current.acknowledge().is_ok(), "{on_drop:?}");
    }
}

// ---- values ------------------------------------------------------------------------------------------

#[test]
fn the_payload_comes_back_only_when_nobody_else_holds_the_message() {
    let (queue, hand) = queue_of::<String>(QueueConfig::new("q"));
    queue.try_send("a".to_owned()).unwrap();
    let old = queue.try_receive().unwrap();
    hand.advance(secs(30));
    let new = queue.try_receive().unwrap();
    assert_eq!(new.acknowledge(), Ok(None));
    assert_eq!(*old, "a");
    assert_eq!(queue.stats().deleted, 1);
}

#[test]
fn an_old_delivery_stays_readable_after_the_message_is_gone() {
    let (queue, hand) = queue_of::<String>(QueueConfig::new("q"));
    queue.try_send("a".to_owned()).unwrap();
    let old = queue.try_receive().unwrap();
    hand.advance(secs(30));
    assert_eq!(queue.try_receive().unwrap().acknowledge(), Ok(None));
    queue.purge();
    for n in 0..200 {
        queue.try_send(n.to_string()).unwrap();
    }
    let others = take(&queue, 200);
    assert_eq!(*old, "a");
    drop(queue);
    drop(others);
    assert_eq!(*old, "a");
}

/// Counts its drops.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn every_payload_is_dropped_exactly_once() {
    let drops = Arc::new(AtomicUsize::new(0));
    let (queue, hand) = queue_of::<Counted>(QueueConfig::new("q"));
    for n in 0..100 {
        let delay = secs(if n % 10 == 0 { 60 } else { 0 });
        queue
            .try_send(Message::new(Counted(Arc::clone(&drops))).delay(delay))
            .unwrap();
    }
    let mut held = take(&queue, 50);
    for delivery in held.drain(..10) {
        drop(delivery.acknowledge());
    }
    assert_eq!(drops.load(Ordering::SeqCst), 10);
    hand.advance(secs(30));
    let again = take(&queue, 20);
    for delivery in again {
        // The old deliveries still look at some of them.
        drop(delivery.acknowledge());
    }
    drop(queue);
    drop(held);
    assert_eq!(drops.load(Ordering::SeqCst), 100);
}

// ---- delays ------------------------------------------------------------------------------------------

#[test]
fn a_delayed_message_shows_when_its_delay_is_over() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    queue.try_send(Message::new(1).delay(secs(5))).unwrap();
    assert!(queue.try_receive().is_err());
    assert_eq!(queue.stats().delayed, 1);
    hand.advance(secs(5));
    assert_eq!(*queue.try_receive().unwrap(), 1);
}

#[test]
fn the_queues_delay_holds_where_a_message_has_none() {
    let (queue, hand) = queue(QueueConfig {
        delay: secs(10),
        ..QueueConfig::new("q")
    });
    queue.try_send(1).unwrap();
    queue.try_send(Message::new(2).delay(secs(3))).unwrap();
    queue
        .try_send(Message::new(3).delay(Duration::ZERO))
        .unwrap();
    let stats = queue.stats();
    assert_eq!((stats.visible, stats.delayed), (1, 2));
    assert_eq!(drain(&queue), [3]);
    hand.advance(secs(3));
    assert_eq!(drain(&queue), [2]);
    hand.advance(secs(6));
    assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Empty);
    hand.advance(secs(1));
    assert_eq!(drain(&queue), [1]);
    reconcile(&queue);
}

#[test]
fn a_delay_counts_once_and_not_after_a_return() {
    let (queue, hand) = queue(QueueConfig {
        delay: secs(10),
        ..QueueConfig::new("q")
    });
    queue.try_send(1).unwrap();
    hand.advance(secs(10));
    queue.try_receive().unwrap().release().unwrap();
    assert_eq!(queue.try_receive().unwrap().receive_count(), 2);
}

#[test]
fn a_changed_delay_holds_for_later_sends_only() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    queue.try_send(1).unwrap();
    queue.set_delay(secs(10)).unwrap();
    queue.try_send(2).unwrap();
    queue.set_delay(Duration::ZERO).unwrap();
    queue.try_send(3).unwrap();
    let stats = queue.stats();
    assert_eq!((stats.visible, stats.delayed), (2, 1));
    assert_eq!(drain(&queue), [1, 3]);
    hand.advance(secs(10));
    assert_eq!(drain(&queue), [2]);
}

#[test]
fn values_sent_in_bulk_keep_the_queues_delay() {
    let (queue, hand) = queue(QueueConfig {
        delay: secs(10),
        ..QueueConfig::new("q")
    });
    let mut batch = vec![1, 2, 3];
    assert_eq!(queue.try_send_values(&mut batch), Ok(3));
    assert_eq!((batch.len(), queue.stats().delayed), (0, 3));
    hand.advance(secs(10));
    assert_eq!(drain(&queue), [1, 2, 3]);
}

#[test]
fn a_changed_timeout_holds_for_later_receives_only() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    for n in 1..=3 {
        queue.try_send(n).unwrap();
    }
    let _long = queue.try_receive().unwrap();
    queue.set_visibility_timeout(secs(5)).unwrap();
    let _short = queue.try_receive().unwrap();
    queue.set_visibility_timeout(secs(60)).unwrap();
    let _longest = queue.try_receive().unwrap();
    let mut seen = Vec::new();
    for at in 1..=60 {
        hand.advance(secs(1));
        let got = queue.try_receive_with(&Receive {
            max: 10,
            visibility_timeout: Some(hours(1)),
            attempt: None,
        });
        seen.extend(got.unwrap_or_default().into_iter().map(|delivery| {
            let value = *delivery;
            abandon(delivery);
            (at, value)
        }));
    }
    assert_eq!(seen, [(5, 2), (30, 1), (60, 3)]);
}

#[test]
fn a_timeout_or_delay_beyond_its_limit_changes_nothing() {
    let config = QueueConfig {
        limits: Limits {
            message_bytes: None,
            ..Limits::aws()
        },
        ..QueueConfig::new("q")
    };
    let (queue, hand) = queue(config);
    assert_eq!(
        queue.set_visibility_timeout(hours(13)),
        Err(ConfigError::TooLong {
            field: "visibility_timeout",
            value: hours(13),
            limit: hours(12)
        })
    );
    assert_eq!(
        queue.set_delay(secs(901)),
        Err(ConfigError::TooLong {
            field: "delay",
            value: secs(901),
            limit: secs(900)
        })
    );
    queue.try_send(7).unwrap();
    let _held = queue.try_receive().unwrap();
    hand.advance(secs(30));
    assert_eq!(*queue.try_receive().unwrap(), 7);
}

// ---- retention ---------------------------------------------------------------------------------------

#[test]
fn a_message_is_dropped_when_its_retention_is_over() {
    let (queue, hand) = queue(QueueConfig {
        retention: Some(secs(60)),
        ..QueueConfig::new("q")
    });
    queue.try_send(1).unwrap();
    hand.advance(secs(30));
    queue.try_send(2).unwrap();
    hand.advance(secs(29));
    assert_eq!(queue.stats().visible, 2);
    hand.advance(secs(1));
    let stats = queue.stats();
    assert_eq!((stats.visible, stats.expired), (1, 1));
    assert_eq!(drain(&queue), [2]);
    reconcile(&queue);
}

#[test]
fn a_message_is_dropped_at_its_retention_also_in_flight() {
    let (queue, hand) = queue(QueueConfig {
        retention: Some(secs(20)),
        ..QueueConfig::new("q")
    });
    queue.try_send(7).unwrap();
    let delivery = queue.try_receive().unwrap();
    hand.advance(secs(20));
    let stats = queue.stats();
    assert_eq!((stats.in_flight, stats.visible, stats.expired), (0, 0, 1));
    assert_eq!(*delivery, 7);
    assert_eq!(delivery.acknowledge(), Err(Stale));
    reconcile(&queue);
}

#[test]
fn a_lengthened_lease_does_not_outlast_the_retention() {
    let (queue, hand) = queue(QueueConfig {
        retention: Some(secs(60)),
        ..QueueConfig::new("q")
    });
    queue.try_send(7).unwrap();
    let mut delivery = queue.try_receive().unwrap();
    hand.advance(secs(10));
    delivery.extend(secs(300)).unwrap();
    hand.advance(secs(50));
    let stats = queue.stats();
    assert_eq!((stats.in_flight, stats.expired), (0, 1));
    assert_eq!(delivery.acknowledge(), Err(Stale));
}

#[test]
fn a_delayed_message_is_not_shown_after_its_retention() {
    let (queue, hand) = queue(QueueConfig {
        retention: Some(secs(60)),
        ..QueueConfig::new("q")
    });
    queue.try_send(Message::new(1).delay(secs(90))).unwrap();
    hand.advance(secs(90));
    assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Empty);
    let stats = queue.stats();
    assert_eq!((stats.delayed, stats.visible, stats.expired), (0, 0, 1));
    reconcile(&queue);
}

#[test]
fn a_returned_message_keeps_the_retention_of_its_sending() {
    let (queue, hand) = queue(QueueConfig {
        retention: Some(secs(60)),
        ..QueueConfig::new("q")
    });
    queue.try_send(1).unwrap();
    hand.advance(secs(50));
    queue.try_receive().unwrap().release().unwrap();
    hand.advance(secs(9));
    assert_eq!(queue.stats().visible, 1);
    hand.advance(secs(1));
    assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Empty);
    assert_eq!(queue.stats().expired, 1);
    reconcile(&queue);
}

#[test]
fn the_retention_is_served_without_any_receive() {
    let (queue, hand) = queue(QueueConfig {
        retention: Some(secs(60)),
        ..QueueConfig::new("q")
    });
    assert_eq!(queue.next_deadline(), None);
    queue.try_send(1).unwrap();
    assert_eq!(queue.next_deadline(), Some(Instant::ORIGIN + secs(60)));
    hand.advance(secs(60));
    queue.advance();
    assert_eq!(queue.next_deadline(), None);
    assert_eq!(queue.stats().expired, 1);
}

// ---- the cap in flight -------------------------------------------------------------------------------

#[test]
fn a_small_cap_in_flight_is_exact() {
    for cap in [1, 2, 7, 1024] {
        let (queue, _) = queue(QueueConfig {
            max_in_flight: cap,
            ..QueueConfig::new("q")
        });
        for n in 0..1030 {
            queue.try_send(n).unwrap();
        }
        let mut held = take(&queue, 2000);
        assert_eq!(held.len(), cap);
        assert_eq!(
            queue.try_receive().unwrap_err(),
            TryReceiveError::OverLimit { limit: cap }
        );
        held.pop().unwrap().acknowledge().unwrap();
        held.extend(queue.try_receive());
        assert_eq!(held.len(), cap);
        assert_eq!(
            queue.try_receive().unwrap_err(),
            TryReceiveError::OverLimit { limit: cap }
        );
    }
}

#[test]
fn every_way_out_of_flight_makes_room_under_the_cap() {
    let (queue, hand) = queue(QueueConfig {
        max_in_flight: 1,
        ..QueueConfig::new("q")
    });
    let over = TryReceiveError::OverLimit { limit: 1 };
    queue.try_send(1).unwrap();
    queue.try_send(2).unwrap();
    queue.try_receive().unwrap().acknowledge().unwrap();
    queue.try_receive().unwrap().release().unwrap();
    drop(queue.try_receive().unwrap());
    queue.try_receive().unwrap().release_after(secs(5)).unwrap();
    assert_eq!(queue.try_receive().unwrap_err(), over);
    hand.advance(secs(5));
    let lapses = queue.try_receive().unwrap();
    assert_eq!(queue.try_receive().unwrap_err(), over);
    hand.advance(secs(30));
    let current = queue.try_receive().unwrap();
    assert_eq!(lapses.acknowledge(), Err(Stale));
    assert_eq!(queue.try_receive().unwrap_err(), over);
    queue.purge();
    assert_eq!(current.acknowledge(), Err(Stale));
    queue.try_send(3).unwrap();
    assert_eq!(*queue.try_receive().unwrap(), 3);
}

#[test]
fn an_empty_receive_uses_nothing_of_the_cap() {
    let (queue, _) = queue(QueueConfig {
        max_in_flight: 3,
        ..QueueConfig::new("q")
    });
    for _ in 0..10 {
        assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Empty);
        assert!(take(&queue, 10).is_empty());
    }
    for n in 0..5 {
        queue.try_send(n).unwrap();
    }
    assert_eq!(take(&queue, 10).len(), 3);
    assert_eq!(queue.stats().empty_receives, 20);
}

#[test]
fn a_large_cap_holds_for_a_single_receiver() {
    let (queue, _) = queue(QueueConfig {
        max_in_flight: 2000,
        ..QueueConfig::new("q")
    });
    for n in 0..2100 {
        queue.try_send(n).unwrap();
    }
    let held = take(&queue, 5000);
    assert_eq!(held.len(), 2000);
    assert_eq!(
        queue.try_receive().unwrap_err(),
        TryReceiveError::OverLimit { limit: 2000 }
    );
    acknowledge_all(held);
    assert_eq!(take(&queue, 5000).len(), 100);
}

// ---- capacity ----------------------------------------------------------------------------------------

#[test]
fn a_full_queue_refuses_and_gives_the_message_back() {
    let (queue, _) = queue_of::<String>(QueueConfig {
        capacity: Some(2),
        ..QueueConfig::new("q")
    });
    queue.try_send("a".to_owned()).unwrap();
    queue.try_send("b".to_owned()).unwrap();
    let error = queue.try_send("c".to_owned()).unwrap_err();
    assert!(error.is_full());
    assert_eq!(error.into_value(), "c");
    assert_eq!(queue.stats().sent, 2);
    // In flight is not waiting.
    let held = queue.try_receive().unwrap();
    queue.try_send("c".to_owned()).unwrap();
    assert!(queue.try_send("d".to_owned()).is_err());
    held.acknowledge().unwrap();
    assert!(queue.try_send("d".to_owned()).is_err());
}

#[test]
fn every_capacity_is_exact() {
    for capacity in [1, 2, 3, 7, 64, 100, 1024] {
        let (queue, _) = queue(QueueConfig {
            capacity: Some(capacity),
            ..QueueConfig::new("q")
        });
        let taken = (0..2000).take_while(|&n| queue.try_send(n).is_ok()).count();
        assert_eq!(taken, capacity);
    }
}

#[test]
fn delayed_messages_count_towards_the_capacity() {
    let (queue, hand) = queue(QueueConfig {
        capacity: Some(2),
        ..QueueConfig::new("q")
    });
    queue.try_send(Message::new(1).delay(secs(5))).unwrap();
    queue.try_send(2).unwrap();
    assert!(queue.try_send(3).unwrap_err().is_full());
    assert!(
        queue
            .try_send(Message::new(3).delay(secs(5)))
            .unwrap_err()
            .is_full()
    );
    hand.advance(secs(5));
    assert_eq!(queue.stats().visible, 2);
}

#[test]
fn a_delayed_message_is_refused_by_a_queue_full_of_plain_ones() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(2),
        ..QueueConfig::new("q")
    });
    queue.try_send(1).unwrap();
    queue.try_send(2).unwrap();
    assert!(queue.try_send(Message::new(3).delay(secs(5))).is_err());
    assert_eq!(queue.stats().delayed, 0);
}

#[test]
fn a_returned_message_is_never_turned_away() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(1),
        ..QueueConfig::new("q")
    });
    queue.try_send(1).unwrap();
    let held = queue.try_receive().unwrap();
    queue.try_send(2).unwrap();
    held.release().unwrap();
    assert_eq!(queue.stats().visible, 2);
    assert!(queue.try_send(3).unwrap_err().is_full());
    assert_eq!(drain(&queue), [1, 2]);
}

#[test]
fn a_late_acknowledgement_makes_room() {
    let (queue, hand) = queue(QueueConfig {
        capacity: Some(1),
        ..QueueConfig::new("q")
    });
    queue.try_send(1).unwrap();
    let slow = queue.try_receive().unwrap();
    hand.advance(secs(30));
    queue.advance();
    assert!(queue.try_send(2).unwrap_err().is_full());
    slow.acknowledge().unwrap();
    assert!(queue.try_send(2).is_ok());
    assert_eq!(drain(&queue), [2]);
}

#[test]
fn a_late_acknowledgement_lets_a_waiting_sender_go_on() {
    let (queue, hand) = queue(QueueConfig {
        capacity: Some(1),
        ..QueueConfig::new("q")
    });
    queue.try_send(1).unwrap();
    let slow = queue.try_receive().unwrap();
    hand.advance(secs(30));
    queue.advance();
    let mut sender = Task::waiting(queue.send(2));
    slow.acknowledge().unwrap();
    assert!(sender.run().is_some_and(|sent| sent.is_ok()));
    assert_eq!(drain(&queue), [2]);
}

#[test]
fn a_waiting_sender_goes_on_when_a_message_is_received() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(1),
        ..QueueConfig::new("q")
    });
    queue.try_send(1).unwrap();
    let mut sender = Task::waiting(queue.send(2));
    assert!(!sender.is_woken());
    let held = queue.try_receive().unwrap();
    let sent = sender.run().expect("there is room").unwrap();
    held.acknowledge().unwrap();
    let got = queue.try_receive().unwrap();
    assert_eq!((*got, got.id()), (2, sent.id));
}

#[test]
fn waiting_senders_go_on_in_the_order_of_their_coming() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(1),
        ..QueueConfig::new("q")
    });
    queue.try_send(0).unwrap();
    let mut senders: Vec<_> = (1..=4).map(|n| Task::waiting(queue.send(n))).collect();
    let mut got = Vec::new();
    while let Ok(delivery) = queue.try_receive() {
        got.push(*delivery);
        delivery.acknowledge().unwrap();
        for sender in &mut senders {
            if let Some(sent) = sender.run() {
                sent.unwrap();
            }
        }
    }
    assert_eq!(got, [0, 1, 2, 3, 4]);
}

#[test]
fn a_batch_of_receives_lets_as_many_waiting_senders_go_on() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(4),
        ..QueueConfig::new("q")
    });
    for n in 0..4 {
        queue.try_send(n).unwrap();
    }
    let mut senders: Vec<_> = (4..8).map(|n| Task::waiting(queue.send(n))).collect();
    let held = take(&queue, 3);
    let mut done = 0;
    // A sender that found more room wakes the next.
    for _ in 0..senders.len() {
        done += senders
            .iter_mut()
            .filter_map(Task::run)
            .filter(Result::is_ok)
            .count();
    }
    assert_eq!((held.len(), done), (3, 3));
    assert_eq!(queue.stats().visible, 4);
}

#[test]
fn a_waiting_send_gives_its_message_back_at_its_deadline() {
    let (queue, hand) = queue(QueueConfig {
        capacity: Some(1),
        ..QueueConfig::new("q")
    });
    queue.try_send(1).unwrap();
    let mut sender = Task::waiting(queue.send_until(2, Instant::ORIGIN + secs(5)));
    hand.advance(secs(4));
    assert!(sender.run().is_none());
    hand.advance(secs(1));
    match sender.run() {
        Some(Err(error @ SendError::Elapsed(_))) => assert_eq!(error.into_message().value, 2),
        other => panic!("{other:?}"),
    }
    assert_eq!(queue.stats().sent, 1);
}

#[test]
fn a_send_until_the_past_still_tries_once() {
    let (queue, hand) = queue(QueueConfig {
        capacity: Some(1),
        ..QueueConfig::new("q")
    });
    hand.advance(secs(5));
    assert!(block_on(queue.send_until(1, Instant::ORIGIN)).is_ok());
    let elapsed = block_on(queue.send_until(2, Instant::ORIGIN));
    assert!(matches!(elapsed, Err(SendError::Elapsed(_))));
    assert!(matches!(
        queue.send_blocking_until(2, Instant::ORIGIN),
        Err(SendError::Elapsed(_))
    ));
}

#[test]
fn a_dropped_send_leaves_no_message_and_passes_its_turn_on() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(1),
        ..QueueConfig::new("q")
    });
    queue.try_send(1).unwrap();
    let first = Task::waiting(queue.send(2));
    let mut second = Task::waiting(queue.send(3));
    queue.try_receive().unwrap().acknowledge().unwrap();
    assert!(first.is_woken());
    drop(first);
    assert!(second.run().is_some());
    assert_eq!(drain(&queue), [3]);
}

#[test]
fn a_blocked_sender_goes_on_when_a_message_is_received() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(1),
        ..QueueConfig::new("q")
    });
    queue.try_send(0).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..100 {
                queue.send_blocking(n).unwrap();
            }
        });
        for n in 0..100 {
            let delivery = queue.receive_blocking().unwrap();
            assert_eq!(*delivery, n);
            delivery.acknowledge().unwrap();
        }
    });
    assert_eq!(queue.stats().deleted, 100);
}

#[test]
fn a_blocked_sender_gives_up_at_its_deadline() {
    let (queue, hand) = queue(QueueConfig {
        capacity: Some(1),
        ..QueueConfig::new("q")
    });
    queue.try_send(1).unwrap();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| queue.send_blocking_until(2, Instant::ORIGIN + secs(9)));
        until_asleep(&hand, 1);
        hand.advance(secs(9));
        let outcome = sender.join().expect("the sender does not panic");
        assert!(matches!(outcome, Err(SendError::Elapsed(_))));
    });
}

#[test]
fn a_sender_waits_for_the_retention_of_what_stands_in_its_way() {
    let config = QueueConfig {
        capacity: Some(1),
        retention: Some(secs(60)),
        ..QueueConfig::new("q")
    };
    let (queue, hand) = queue(config);
    queue.try_send(1).unwrap();
    let mut sender = Task::waiting(queue.send(2));
    hand.advance(secs(60));
    assert!(sender.run().is_some_and(|sent| sent.is_ok()));
    assert_eq!(drain(&queue), [2]);
}

#[test]
fn a_send_that_waiting_does_not_cure_is_refused_at_once() {
    let config = QueueConfig {
        capacity: Some(1),
        limits: Limits {
            message_bytes: None,
            ..Limits::aws()
        },
        ..QueueConfig::new("q")
    };
    let (queue, _) = queue(config);
    queue.try_send(1).unwrap();
    let error = block_on(queue.send(Message::new(2).delay(secs(901)))).unwrap_err();
    assert_eq!(
        error.refusal(),
        Some(&Refusal::Delay {
            value: secs(901),
            limit: secs(900)
        })
    );
}

// ---- purge -------------------------------------------------------------------------------------------

#[test]
fn a_purge_drops_what_waits_and_what_is_in_flight() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    for n in 0..10 {
        queue.try_send(n).unwrap();
    }
    queue.try_send(Message::new(10).delay(secs(5))).unwrap();
    let mut held = take(&queue, 3);
    held.extend(queue.try_receive_with(&hidden_for(secs(500))).unwrap());
    held.pop().unwrap().release().unwrap();
    assert_eq!(queue.purge(), 11);
    let stats = queue.stats();
    assert_eq!(
        (stats.visible, stats.in_flight, stats.delayed, stats.purged),
        (0, 0, 0, 11)
    );
    for delivery in held {
        assert!(*delivery < 10);
        assert_eq!(delivery.acknowledge(), Err(Stale));
    }
    hand.advance(hours(1));
    assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Empty);
    reconcile(&queue);
}

#[test]
fn a_purged_queue_goes_on() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    queue.try_send(1).unwrap();
    let _held = queue.try_receive().unwrap();
    assert_eq!(queue.purge(), 1);
    assert_eq!(queue.purge(), 0);
    queue.try_send(2).unwrap();
    let _held = queue.try_receive().unwrap();
    hand.advance(secs(30));
    assert_eq!(drain(&queue), [2]);
    reconcile(&queue);
}

#[test]
fn a_purge_lets_waiting_senders_go_on() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(2),
        ..QueueConfig::new("q")
    });
    queue.try_send(1).unwrap();
    queue.try_send(2).unwrap();
    let mut senders = [Task::waiting(queue.send(3)), Task::waiting(queue.send(4))];
    assert_eq!(queue.purge(), 2);
    for sender in &mut senders {
        assert!(sender.run().is_some_and(|sent| sent.is_ok()));
    }
    assert_eq!(drain(&queue), [3, 4]);
}

// ---- late acknowledgement ----------------------------------------------------------------------------

#[test]
fn a_late_acknowledgement_counts_while_nobody_else_received_the_message() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    let slow = queue.try_receive().unwrap();
    hand.advance(secs(60));
    queue.advance();
    assert_eq!(queue.stats().visible, 1);
    assert_eq!(slow.acknowledge(), Ok(Some(7)));
    assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Empty);
    let stats = queue.stats();
    assert_eq!((stats.visible, stats.deleted, stats.lapsed), (0, 1, 1));
    reconcile(&queue);
}

#[test]
fn a_late_acknowledgement_that_nobody_noticed_counts_too() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    let slow = queue.try_receive().unwrap();
    hand.advance(secs(60));
    assert_eq!(slow.acknowledge(), Ok(Some(7)));
    assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Empty);
    reconcile(&queue);
}

#[test]
fn messages_behind_a_late_acknowledgement_are_still_received() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    for n in 0..20 {
        queue.try_send(n).unwrap();
    }
    let slow = take(&queue, 20);
    hand.advance(secs(30));
    queue.advance();
    let mut kept = Vec::new();
    for delivery in slow {
        if *delivery % 3 == 0 {
            delivery.acknowledge().unwrap();
        } else {
            kept.push(*delivery);
        }
    }
    let stats = queue.stats();
    assert_eq!((stats.visible, stats.deleted), (13, 7));
    assert_eq!(drain(&queue), kept);
    reconcile(&queue);
}

// ---- statistics --------------------------------------------------------------------------------------

#[test]
fn the_age_of_the_oldest_message_is_that_of_the_oldest_visible_one() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    assert_eq!(queue.stats().oldest_age, None);
    queue.try_send(1).unwrap();
    hand.advance(secs(10));
    queue.try_send(2).unwrap();
    hand.advance(secs(5));
    assert_eq!(queue.stats().oldest_age, Some(secs(15)));
    let oldest = queue.try_receive().unwrap();
    assert_eq!(queue.stats().oldest_age, Some(secs(5)));
    oldest.release().unwrap();
    assert_eq!(queue.stats().oldest_age, Some(secs(15)));
    drain(&queue);
    assert_eq!(queue.stats().oldest_age, None);
}

#[test]
fn the_statistics_reconcile_whatever_happens() {
    let config = QueueConfig {
        retention: Some(secs(60)),
        capacity: Some(40),
        max_in_flight: 25,
        ..QueueConfig::new("q")
    };
    let (queue, hand) = queue(config);
    let mut random = sim_core::random::Random::new(1);
    let mut held = Vec::new();
    for step in 0..5000_u32 {
        match random.below(12) {
            0..=2 => drop(queue.try_send(step)),
            3 => drop(queue.try_send(Message::new(step).delay(secs(random.below(20))))),
            4 => drop(queue.try_send_values(&mut vec![1, 2, 3])),
            5 | 6 => held.extend(queue.try_receive()),
            7 => held.extend(take(&queue, 4)),
            8 => held.extend(
                queue
                    .try_receive_with(&hidden_for(secs(random.below(50))))
                    .unwrap_or_default(),
            ),
            9 if random.below(100) == 0 => {
                let _ = queue.purge();
            }
            9 => hand.advance(secs(random.below(4))),
            _ if held.is_empty() => {}
            _ => {
                let newest = held.len().min(8) as u64;
                let at = held.len() - 1 - usize::try_from(random.below(newest)).unwrap();
                let mut delivery = held.swap_remove(at);
                match random.below(8) {
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
        stats.deleted > 100 && stats.expired > 0 && stats.lapsed > 0,
        "{stats:?}"
    );
    drop(held);
    hand.advance(secs(1000));
    let stats = queue.stats();
    assert_eq!((stats.visible, stats.in_flight, stats.delayed), (0, 0, 0));
    reconcile(&queue);
}
