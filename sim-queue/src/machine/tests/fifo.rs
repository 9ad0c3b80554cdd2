//! FIFO queues: order within a group, and groups side by side.

use super::*;

#[test]
fn a_group_comes_in_order_and_one_batch_at_a_time() {
    let mut rig = Rig::fifo();
    for m in 1..=5 {
        rig.send_to("a", m);
    }
    let batch = rig.receive(3);
    assert_eq!(batch.iter().map(|l| l.m).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(rig.take(10).is_empty());
    for leased in &batch {
        rig.acknowledge(leased).unwrap();
    }
    assert_eq!(rig.take(10), [4, 5]);
}

#[test]
fn a_blocked_group_does_not_block_the_others() {
    let mut rig = Rig::fifo();
    rig.send_to("a", 1);
    rig.send_to("a", 2);
    rig.send_to("b", 10);
    assert_eq!(rig.take(1), [1]);
    assert_eq!(rig.take(10), [10]);
    rig.send_to("c", 20);
    assert_eq!(rig.take(10), [20]);
}

#[test]
fn a_group_is_free_when_the_last_message_of_its_batch_is_acknowledged() {
    let mut rig = Rig::fifo();
    for m in 1..=3 {
        rig.send_to("a", m);
    }
    let batch = rig.receive(2);
    let first = rig
        .machine
        .acknowledge(rig.now, batch[0].key, batch[0].lease)
        .unwrap();
    assert!(!first.wakes);
    assert!(rig.take(1).is_empty());
    let second = rig
        .machine
        .acknowledge(rig.now, batch[1].key, batch[1].lease)
        .unwrap();
    assert!(second.wakes);
    assert_eq!(rig.take(1), [3]);
}

#[test]
fn messages_of_a_lost_batch_come_again_in_their_order() {
    let mut rig = Rig::fifo();
    for m in 1..=4 {
        rig.send_to("a", m);
    }
    let batch = rig.receive(3);
    rig.acknowledge(&batch[1]).unwrap();
    rig.go(30);
    assert_eq!(rig.take(10), [1, 3, 4]);
}

// LocalStack issue 12457.
#[test]
fn a_lengthened_visibility_keeps_later_messages_back_even_when_theirs_ended() {
    let mut rig = Rig::fifo();
    for m in 1..=3 {
        rig.send_to("a", m);
    }
    let batch = rig.receive(2);
    rig.change(&batch[0], 100).unwrap();
    rig.go(30);
    assert!(rig.take(10).is_empty());
    rig.go(99);
    assert!(rig.take(10).is_empty());
    rig.go(100);
    assert_eq!(rig.take(10), [1, 2, 3]);
}

#[test]
fn an_earlier_message_waits_too_while_a_later_one_is_in_flight() {
    let mut rig = Rig::fifo();
    rig.send_to("a", 1);
    rig.send_to("a", 2);
    let batch = rig.receive(2);
    assert_eq!(
        rig.release(&batch[0], 0),
        Ok(Disposition::Visible { wakes: false })
    );
    assert!(rig.take(10).is_empty());
    rig.acknowledge(&batch[1]).unwrap();
    assert_eq!(rig.take(10), [1]);
}

// LocalStack issue 8724.
#[test]
fn a_send_into_an_in_flight_group_does_not_unblock_it() {
    let mut rig = Rig::fifo();
    rig.send_to("a", 1);
    let leased = rig.receive(1)[0];
    assert!(!rig.send_to("a", 2).wakes);
    assert!(rig.take(10).is_empty());
    rig.acknowledge(&leased).unwrap();
    rig.send_to("a", 3);
    assert_eq!(rig.take(10), [2, 3]);
}

#[test]
fn an_emptied_group_begins_anew() {
    let mut rig = Rig::new(Kind::fifo(), |rules| rules.idle_groups = 0);
    for m in 0..5 {
        assert!(rig.send_to("a", m).wakes);
        let leased = rig.receive(1)[0];
        rig.acknowledge(&leased).unwrap();
        assert_eq!(rig.machine.stats(rig.now).groups, 0);
    }
}

fn per_message_delay() -> Rig {
    let fifo = FifoConfig {
        message_delay: MessageDelay::PerMessage,
        ..FifoConfig::default()
    };
    Rig::new(Kind::Fifo(fifo), |_| {})
}

fn send_delayed_to(rig: &mut Rig, name: &str, m: u32, seconds: u64) {
    let group = group(name);
    let admission = Admission {
        group: Some(&group),
        delay: Some(secs(seconds)),
        ..Admission::default()
    };
    rig.try_send(m, &admission).unwrap();
}

// floci issue 2104.
#[test]
fn a_delayed_message_does_not_block_earlier_visible_ones() {
    let mut rig = per_message_delay();
    rig.send_to("a", 1);
    send_delayed_to(&mut rig, "a", 2, 10);
    assert_eq!(rig.take(10), [1]);
}

#[test]
fn later_messages_of_its_group_wait_behind_a_delayed_one() {
    let mut rig = per_message_delay();
    send_delayed_to(&mut rig, "a", 1, 10);
    assert!(!rig.send_to("a", 2).wakes);
    rig.send_to("b", 3);
    assert_eq!(rig.take(10), [3]);
    rig.go(10);
    assert_eq!(rig.take(10), [1, 2]);
}

#[test]
fn a_delay_of_its_own_is_an_error_where_the_queue_alone_sets_it() {
    let mut rig = Rig::fifo();
    let group = group("a");
    let admission = Admission {
        group: Some(&group),
        delay: Some(secs(1)),
        ..Admission::default()
    };
    assert_eq!(rig.try_send(1, &admission), Err(NotStored::DelayNotAllowed));
    assert_eq!(
        rig.try_send(1, &Admission::default()),
        Err(NotStored::MissingGroup)
    );
}

#[test]
fn a_queue_delay_keeps_the_order_of_a_group() {
    let mut rig = Rig::new(Kind::fifo(), |rules| rules.delay = secs(5));
    rig.send_to("a", 1);
    rig.go(1);
    rig.send_to("a", 2);
    rig.go(5);
    assert_eq!(rig.take(10), [1]);
    rig.go(6);
    assert!(rig.take(10).is_empty());
}

#[test]
fn a_changed_queue_delay_counts_for_delayed_messages_of_a_fifo_queue() {
    let mut rig = Rig::new(Kind::fifo(), |rules| rules.delay = secs(50));
    rig.send_to("a", 1);
    rig.go(10);
    rig.send_to("a", 2);
    rig.machine.set_delay(secs(5));
    rig.machine.check_invariants();
    assert_eq!(rig.go(10).len(), 1);
    assert_eq!(rig.machine.next_deadline(), Some(at(15)));
    assert_eq!(rig.go(15).len(), 1);
    assert_eq!(rig.take(10), [1, 2]);
}

#[test]
fn a_dead_letter_frees_its_group() {
    let mut rig = Rig::new(Kind::fifo(), |rules| rules.max_receives = Some(1));
    rig.send_to("a", 1);
    rig.send_to("a", 2);
    rig.receive(1);
    let effects = rig.go(30);
    assert!(matches!(
        effects[..],
        [Effect::DeadLetter(DeadLetter {
            m: 1,
            wakes: true,
            ..
        })]
    ));
    assert_eq!(rig.take(10), [2]);
}

#[test]
fn an_expired_message_frees_its_group() {
    let mut rig = Rig::new(Kind::fifo(), |rules| rules.retention = Some(secs(20)));
    rig.send_to("a", 1);
    rig.go(5);
    rig.send_to("a", 2);
    rig.receive(1);
    let effects = rig.go(20);
    assert!(matches!(
        effects[..],
        [Effect::Expired {
            m: 1,
            wakes: true,
            ..
        }]
    ));
    assert_eq!(rig.take(10), [2]);
}

#[test]
fn a_handle_of_a_fifo_queue_ends_with_its_timeout() {
    let mut rig = Rig::fifo();
    rig.send_to("a", 1);
    let leased = rig.receive(1)[0];
    rig.now = at(30);
    assert_eq!(
        rig.acknowledge(&leased),
        Err(Stale),
        "also before the timeout is served"
    );
    rig.go(30);
    assert_eq!(rig.acknowledge(&leased), Err(Stale));
    let again = rig.receive(1)[0];
    assert_eq!(rig.acknowledge(&again), Ok(1));
}

#[test]
fn a_fifo_queue_is_silently_empty_at_its_bound_in_flight() {
    let mut rig = Rig::new(Kind::fifo(), |rules| rules.max_in_flight = 2);
    for m in 1..=3 {
        rig.send_to("a", m);
        rig.send_to("b", 10 * m);
    }
    let got = rig.receive(10);
    assert_eq!(got.iter().map(|l| l.m).collect::<Vec<_>>(), [1, 2]);
    assert!(rig.take(10).is_empty());
    let acknowledged = rig
        .machine
        .acknowledge(rig.now, got[0].key, got[0].lease)
        .unwrap();
    assert!(acknowledged.wakes, "the bound held group b back");
    assert_eq!(rig.take(10), [10]);
}

#[test]
fn ready_groups_take_turns() {
    let mut rig = Rig::fifo();
    for m in 0..9 {
        rig.send_to(["a", "b", "c"][m as usize % 3], m);
    }
    let mut order = Vec::new();
    for _ in 0..9 {
        let leased = rig.receive(1)[0];
        order.push(leased.m);
        rig.acknowledge(&leased).unwrap();
    }
    assert_eq!(order, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_busy_group_waits_its_turn_behind_a_new_one() {
    let mut rig = Rig::fifo();
    for m in 0..100 {
        rig.send_to("busy", m);
    }
    let leased = rig.receive(1)[0];
    rig.send_to("new", 1000);
    rig.acknowledge(&leased).unwrap();
    assert_eq!(rig.take(1), [1000]);
}

#[test]
fn sequence_numbers_increase() {
    let mut rig = Rig::fifo();
    let numbers: Vec<_> = (0..10).map(|m| rig.send_to("a", m).sequence).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b));
    let received: Vec<_> = rig.receive(10).iter().map(|l| l.sequence).collect();
    assert_eq!(received, numbers);
}

#[test]
fn a_purge_frees_the_groups() {
    let mut rig = Rig::fifo();
    rig.send_to("a", 1);
    rig.send_to("a", 2);
    rig.receive(1);
    let mut effects = Vec::new();
    rig.machine.purge(rig.now, &mut effects);
    rig.machine.check_invariants();
    assert_eq!(rig.machine.stats(rig.now).groups, 0);
    assert!(rig.send_to("a", 3).wakes);
    assert_eq!(rig.take(10), [3]);
}

#[test]
fn the_stats_count_groups_in_flight() {
    let mut rig = Rig::fifo();
    rig.send_to("a", 1);
    rig.send_to("a", 2);
    rig.send_to("b", 3);
    rig.send_to("c", 4);
    let got = rig.receive(3);
    let stats = rig.machine.stats(rig.now);
    assert_eq!((stats.groups, stats.groups_in_flight), (3, 2));
    assert_eq!((stats.visible, stats.in_flight, stats.received), (1, 3, 3));
    rig.acknowledge(&got[0]).unwrap();
    rig.acknowledge(&got[1]).unwrap();
    let stats = rig.machine.stats(rig.now);
    assert_eq!((stats.groups, stats.groups_in_flight), (2, 1));
    assert_eq!(rig.machine.group_of(got[2].key), Some(&group("b")));
    assert_eq!(rig.machine.group_of(got[0].key), None);
}

#[test]
fn nothing_that_comes_out_depends_on_the_hash_seed() {
    let history = |seed: u64| {
        let mut rig = Rig::new(Kind::fifo(), |rules| {
            rules.hash_seed = seed;
            rules.idle_groups = 5;
            rules.max_receives = Some(2);
        });
        let (mut leases, mut effects) = (Vec::new(), Vec::new());
        for step in 0..600 {
            rig.send_to(&format!("g{}", step * step % 37), step);
            if step % 3 == 0 {
                leases.extend(rig.receive(4));
            }
            if step % 2 == 0
                && let Some(leased) = leases.get(step as usize / 2)
            {
                let _ = rig.machine.acknowledge(rig.now, leased.key, leased.lease);
            }
            effects.extend(rig.go(u64::from(step)));
        }
        (leases, effects)
    };
    let (leases, effects) = history(1);
    assert!(leases.len() > 300 && effects.len() > 50);
    assert_eq!((leases, effects), history(0xdead_beef));
}
