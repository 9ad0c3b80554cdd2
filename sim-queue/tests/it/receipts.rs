//! Receipts: verdicts by name, and names that no longer hold.

use std::str::FromStr;

use sim_queue::{DeadLetterPolicy, ExtendError, OnDrop, Queue, QueueConfig, Receipt, Stale};

use crate::rig::{at_most, drain, of, queue, queue_of, reconcile, secs, take};

/// The three kinds, each with a message 7 sent.
fn each_kind() -> Vec<(Queue<u32>, sim_core::clock::VirtualClock)> {
    let mut out = Vec::new();
    for config in [
        QueueConfig::new("q"),
        QueueConfig::fair("q"),
        QueueConfig::fifo("q"),
    ] {
        let (queue, hand) = queue(config);
        send(&queue, 7);
        out.push((queue, hand));
    }
    out
}

fn send(queue: &Queue<u32>, value: u32) {
    match queue.config().kind {
        sim_queue::Kind::Standard => queue.try_send(value).unwrap(),
        _ => queue.try_send(of(format!("g{value}"), value)).unwrap(),
    };
}

#[test]
fn a_receipt_acknowledges_its_message_once() {
    for (queue, _) in each_kind() {
        let receipt = queue.try_receive().unwrap().into_receipt();
        assert_eq!(queue.stats().in_flight, 1);
        assert_eq!(queue.acknowledge(&receipt), Ok(Some(7)));
        assert_eq!(queue.acknowledge(&receipt), Err(Stale));
        assert_eq!(
            queue.change_visibility(&receipt, secs(5)),
            Err(ExtendError::Stale(Stale))
        );
        assert_eq!(queue.delivery(&receipt).unwrap_err(), Stale);
        assert_eq!(queue.stats().deleted, 1);
        reconcile(&queue);
    }
}

#[test]
fn a_delivery_turned_into_its_receipt_is_not_returned() {
    for on_drop in [OnDrop::Return, OnDrop::Expire, OnDrop::Acknowledge] {
        let (queue, hand) = queue(QueueConfig {
            on_drop,
            ..QueueConfig::new("q")
        });
        queue.try_send(7).unwrap();
        let _receipt = queue.try_receive().unwrap().into_receipt();
        assert_eq!(queue.stats().in_flight, 1);
        hand.advance(secs(30));
        assert_eq!(queue.stats().visible, 1);
    }
}

#[test]
fn a_receipt_is_turned_into_a_delivery_again() {
    for (queue, hand) in each_kind() {
        let delivery = queue.try_receive().unwrap();
        let (id, sent_at) = (delivery.id(), delivery.sent_at());
        let receipt = delivery.into_receipt();
        hand.advance(secs(10));
        let again = queue.delivery(&receipt).unwrap();
        assert_eq!((*again, again.id(), again.sent_at()), (7, id, sent_at));
        assert_eq!(again.receive_count(), 1);
        assert_eq!(again.receipt(), receipt);
        // Dropping it changes nothing.
        drop(again);
        assert_eq!(queue.stats().in_flight, 1);
        let again = queue.delivery(&receipt).unwrap();
        again.release().unwrap();
        assert_eq!(queue.try_receive().unwrap().receive_count(), 2);
    }
}

#[test]
fn a_receipt_changes_the_visibility_of_its_message() {
    for (queue, hand) in each_kind() {
        let receipt = queue.try_receive().unwrap().into_receipt();
        queue.change_visibility(&receipt, secs(60)).unwrap();
        hand.advance(secs(59));
        assert_eq!(queue.stats().in_flight, 1);
        queue.change_visibility(&receipt, secs(0)).unwrap();
        assert_eq!(queue.stats().visible, 1);
        assert_eq!(
            queue.change_visibility(&receipt, secs(5)),
            Err(ExtendError::Stale(Stale))
        );
        reconcile(&queue);
    }
}

#[test]
fn the_receipt_of_a_former_lease_does_not_touch_the_present_one() {
    for (queue, hand) in each_kind() {
        let old = queue.try_receive().unwrap().into_receipt();
        hand.advance(secs(30));
        let current = queue.try_receive().unwrap();
        assert_ne!(current.receipt(), old);
        assert_eq!(queue.acknowledge(&old), Err(Stale));
        assert_eq!(
            queue.change_visibility(&old, secs(0)),
            Err(ExtendError::Stale(Stale))
        );
        assert_eq!(
            queue.change_visibility(&old, secs(500)),
            Err(ExtendError::Stale(Stale))
        );
        assert_eq!(queue.stats().in_flight, 1);
        hand.advance(secs(29));
        assert_eq!(queue.stats().in_flight, 1);
        assert_eq!(current.acknowledge(), Ok(Some(7)));
    }
}

#[test]
fn a_receipt_whose_lease_ended_gives_no_delivery() {
    for (queue, hand) in each_kind() {
        let old = queue.try_receive().unwrap().into_receipt();
        hand.advance(secs(30));
        assert_eq!(
            queue.delivery(&old).unwrap_err(),
            Stale,
            "{:?}",
            queue.config().kind
        );
    }
}

#[test]
fn a_late_receipt_counts_on_a_standard_queue_while_nobody_received_the_message_since() {
    for (queue, hand) in each_kind() {
        let is_fifo = matches!(queue.config().kind, sim_queue::Kind::Fifo(_));
        let old = queue.try_receive().unwrap().into_receipt();
        hand.advance(secs(30));
        queue.advance();
        let outcome = queue.acknowledge(&old);
        assert_eq!(outcome, if is_fifo { Err(Stale) } else { Ok(Some(7)) });
        assert_eq!(queue.acknowledge(&old), Err(Stale));
        assert_eq!(drain(&queue), if is_fifo { vec![7] } else { vec![] });
        reconcile(&queue);
    }
}

#[test]
fn a_receipt_used_twice_never_hits_the_message_that_took_its_slot() {
    for (queue, _) in each_kind() {
        let used = queue.try_receive().unwrap().into_receipt();
        queue.acknowledge(&used).unwrap();
        // Many times over, so that every slot is taken again.
        for n in 0..500 {
            send(&queue, n);
            let current = queue.try_receive().unwrap();
            assert_eq!(queue.acknowledge(&used), Err(Stale));
            assert_eq!(
                queue.change_visibility(&used, secs(0)),
                Err(ExtendError::Stale(Stale))
            );
            assert_eq!(current.acknowledge(), Ok(Some(n)));
        }
    }
}

#[test]
fn a_receipt_of_another_queue_is_stale() {
    for (queue, _) in each_kind() {
        let other = QueueConfig {
            name: "other".into(),
            ..queue.config().clone()
        };
        let (other, _) = crate::rig::queue(other);
        send(&other, 7);
        let foreign = other.try_receive().unwrap().into_receipt();
        let own = queue.try_receive().unwrap();
        assert_eq!(queue.acknowledge(&foreign), Err(Stale));
        assert_eq!(
            queue.change_visibility(&foreign, secs(0)),
            Err(ExtendError::Stale(Stale))
        );
        assert_eq!(queue.delivery(&foreign).unwrap_err(), Stale);
        assert_eq!(own.acknowledge(), Ok(Some(7)));
        assert_eq!(other.acknowledge(&foreign), Ok(Some(7)));
    }
}

#[test]
fn a_receipt_of_another_queue_of_the_same_name_is_stale() {
    for (queue, _) in each_kind() {
        let (other, _) = crate::rig::queue(queue.config().clone());
        send(&other, 8);
        let foreign = other.try_receive().unwrap().into_receipt();
        let own = queue.try_receive().unwrap();
        assert_eq!(queue.acknowledge(&foreign), Err(Stale));
        assert_eq!(own.acknowledge(), Ok(Some(7)));
    }
}

#[test]
fn a_receipt_survives_the_way_through_text() {
    for (queue, _) in each_kind() {
        let receipt = queue.try_receive().unwrap().into_receipt();
        let text = receipt.to_string();
        assert!(
            text.is_ascii() && !text.contains(char::is_whitespace),
            "{text}"
        );
        let parsed = Receipt::from_str(&text).unwrap();
        assert_eq!(parsed, receipt);
        assert_eq!(queue.acknowledge(&parsed), Ok(Some(7)));
        assert_eq!(queue.acknowledge(&receipt), Err(Stale));
    }
}

#[test]
fn a_text_that_is_no_receipt_is_refused() {
    let (queue, _) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    let text = queue.try_receive().unwrap().into_receipt().to_string();
    let texts = [
        String::new(),
        "-".into(),
        "hello".into(),
        format!("{text}-"),
        format!("-{text}"),
        format!("{text}-0"),
        format!("{text} "),
        format!("+{text}"),
        text.replace('-', "_"),
        text.rsplit_once('-').unwrap().0.to_owned(),
        text.split('-')
            .map(|_| "fffffffffffffffff")
            .collect::<Vec<_>>()
            .join("-"),
        "é".repeat(6),
    ];
    for text in texts {
        assert!(text.parse::<Receipt>().is_err(), "{text:?}");
    }
}

/// All texts that differ from `text` in one digit.
fn neighbours(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (at, old) in text.char_indices().filter(|(_, c)| *c != '-') {
        for new in "0123456789abcdef".chars().filter(|new| *new != old) {
            out.push(format!("{}{new}{}", &text[..at], &text[at + 1..]));
        }
    }
    out
}

#[test]
fn a_forged_receipt_never_hits_another_message() {
    for (queue, _) in each_kind() {
        for n in 0..40 {
            send(&queue, n);
        }
        let mut held = take(&queue, 41);
        let bait = held.swap_remove(20);
        let text = bait.receipt().to_string();
        let value = *bait;
        let before: Vec<_> = held.iter().map(|delivery| **delivery).collect();
        let mut tried = 0;
        for forged in neighbours(&text) {
            let Ok(forged) = forged.parse::<Receipt>() else {
                continue;
            };
            assert_eq!(queue.acknowledge(&forged), Err(Stale), "{forged}");
            tried += 1;
        }
        assert!(tried > 100, "most neighbours of a receipt have its form");
        assert_eq!(bait.acknowledge(), Ok(Some(value)));
        let after: Vec<_> = held
            .into_iter()
            .map(|delivery| {
                delivery
                    .acknowledge()
                    .expect("nobody else acknowledged it")
                    .unwrap()
            })
            .collect();
        assert_eq!(after, before);
        reconcile(&queue);
    }
}

#[test]
fn a_receipt_patched_together_from_two_hits_neither() {
    for config in [
        QueueConfig::new("q"),
        QueueConfig::fair("q"),
        QueueConfig::fifo("q"),
    ] {
        let (queue, hand) = queue(config);
        send(&queue, 1);
        let one = queue.try_receive().unwrap();
        hand.advance(secs(1));
        send(&queue, 2);
        let two = queue.try_receive().unwrap();
        let (first, second) = (one.receipt().to_string(), two.receipt().to_string());
        let first: Vec<_> = first.split('-').collect();
        let second: Vec<_> = second.split('-').collect();
        for cut in 1..first.len() {
            let patched = [&first[..cut], &second[cut..]].concat().join("-");
            let Ok(receipt) = patched.parse::<Receipt>() else {
                continue;
            };
            if receipt == one.receipt() || receipt == two.receipt() {
                continue;
            }
            assert_eq!(queue.acknowledge(&receipt), Err(Stale));
        }
        assert_eq!(one.acknowledge(), Ok(Some(1)));
        assert_eq!(two.acknowledge(), Ok(Some(2)));
        let stats = queue.stats();
        assert_eq!((stats.visible, stats.in_flight), (0, 0));
        hand.advance(secs(60));
        assert!(drain(&queue).is_empty());
    }
}

#[test]
fn a_receipt_of_a_message_in_the_dead_letter_queue_is_stale_at_the_source() {
    let (clock, _) = sim_core::clock::Clock::virtual_at(crate::rig::START);
    let source = Queue::with_clock(QueueConfig::new("source"), clock.clone()).unwrap();
    let dead = Queue::with_clock(QueueConfig::new("dead"), clock).unwrap();
    source
        .set_dead_letters(DeadLetterPolicy::to_queue(&dead, 1))
        .unwrap();
    source.try_send(7).unwrap();
    let delivery = source.try_receive().unwrap();
    let receipt = delivery.receipt();
    delivery.release().unwrap();
    assert_eq!(source.acknowledge(&receipt), Err(Stale));
    assert_eq!(dead.acknowledge(&receipt), Err(Stale));
    assert_eq!(dead.stats().visible, 1);
}

#[test]
fn a_receipt_of_a_purged_message_is_stale() {
    for (queue, _) in each_kind() {
        let receipt = queue.try_receive().unwrap().into_receipt();
        queue.purge();
        assert_eq!(queue.acknowledge(&receipt), Err(Stale));
        send(&queue, 8);
        let current = queue.try_receive().unwrap();
        assert_eq!(queue.acknowledge(&receipt), Err(Stale));
        assert_eq!(current.acknowledge(), Ok(Some(8)));
    }
}

#[test]
fn a_receipt_and_its_delivery_are_one_lease() {
    for (queue, _) in each_kind() {
        let delivery = queue.try_receive().unwrap();
        let receipt = delivery.receipt();
        // Its payload is held by the delivery.
        assert_eq!(queue.acknowledge(&receipt), Ok(None));
        assert_eq!(*delivery, 7);
        assert_eq!(delivery.acknowledge(), Err(Stale));
        assert_eq!(queue.stats().deleted, 1);
    }
}

#[test]
fn receipts_are_usable_as_keys_and_from_any_thread() {
    let (queue, _) = queue_of::<u64>(QueueConfig::new("q"));
    for n in 0..100 {
        queue.try_send(n).unwrap();
    }
    let receipts: std::collections::HashSet<Receipt> = queue
        .try_receive_with(&at_most(100))
        .unwrap()
        .into_iter()
        .map(sim_queue::Delivery::into_receipt)
        .collect();
    assert_eq!(receipts.len(), 100);
    let done = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            receipts
                .iter()
                .filter(|receipt| queue.acknowledge(receipt).is_ok())
                .count()
        });
        thread.join().expect("no panic")
    });
    assert_eq!((done, queue.stats().deleted), (100, 100));
}
