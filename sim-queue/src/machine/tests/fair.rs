//! Fair queues: noisy tenants and quiet ones.

use super::*;

/// Only shares of what is in flight count: more than 10 % and at least 3.
fn by_in_flight() -> Rig {
    let fair = FairConfig {
        min_in_flight: 3,
        processing_share: 100,
        ..FairConfig::default()
    };
    Rig::new(Kind::Fair(fair), |_| {})
}

#[test]
fn a_quiet_tenant_overtakes_the_backlog_of_a_noisy_one() {
    let mut rig = Rig::new(Kind::fair(), |_| {});
    for m in 0..1000 {
        rig.send_to("noisy", m);
    }
    rig.receive(40);
    rig.send_to("quiet", 5000);
    rig.send_to("quiet", 5001);
    let stats = rig.machine.stats(rig.now);
    assert_eq!((stats.noisy_groups, stats.visible_in_quiet_groups), (1, 2));
    assert_eq!((stats.visible, stats.in_flight_in_quiet_groups), (962, 0));
    assert_eq!(rig.take(3), [5000, 5001, 40]);
}

#[test]
fn a_tenant_is_not_noisy_below_the_number_in_flight() {
    let mut rig = by_in_flight();
    for m in 0..10 {
        rig.send_to("a", m);
    }
    rig.receive(2);
    assert_eq!(rig.machine.stats(rig.now).noisy_groups, 0);
    rig.receive(1);
    assert_eq!(rig.machine.stats(rig.now).noisy_groups, 1);
}

#[test]
fn a_tenant_is_not_noisy_at_the_share_itself() {
    let mut rig = by_in_flight();
    for tenant in 0..10 {
        for m in 0..3 {
            rig.send_to(&format!("t{tenant}"), m);
        }
    }
    rig.receive(30);
    // Ten tenants with 10 % each.
    assert_eq!(rig.machine.stats(rig.now).noisy_groups, 0);
}

#[test]
fn a_tenant_becomes_quiet_again_when_its_leases_end() {
    let mut rig = by_in_flight();
    for m in 0..6 {
        rig.send_to("a", m);
    }
    let got = rig.receive(4);
    rig.send_to("b", 100);
    rig.send_to("c", 200);
    assert_eq!(rig.take(1), [100]);
    rig.acknowledge(&got[0]).unwrap();
    rig.acknowledge(&got[1]).unwrap();
    assert_eq!(rig.machine.stats(rig.now).noisy_groups, 0);
    // The two take turns now.
    assert_eq!(rig.take(3), [200, 4, 5]);
}

#[test]
fn a_noisy_tenant_is_served_while_no_quiet_one_waits() {
    let mut rig = by_in_flight();
    for m in 0..50 {
        rig.send_to("a", m);
    }
    assert_eq!(rig.take(50).len(), 50);
}

#[test]
fn quiet_tenants_take_turns_message_by_message() {
    let mut rig = Rig::new(Kind::fair(), |_| {});
    for m in 0..3 {
        rig.send_to("a", m);
    }
    rig.send_to("b", 10);
    rig.send_to("c", 20);
    rig.send_to("c", 21);
    assert_eq!(rig.take(10), [0, 10, 20, 1, 21, 2]);
}

#[test]
fn messages_without_a_tenant_are_one_quiet_tenant() {
    let mut rig = by_in_flight();
    for m in 0..10 {
        rig.send(m);
    }
    rig.receive(8);
    assert_eq!(rig.machine.stats(rig.now).noisy_groups, 0);
    rig.send_to("a", 100);
    assert_eq!(rig.take(3), [8, 100, 9]);
}

#[test]
fn a_tenant_that_took_most_of_the_recent_time_is_noisy() {
    let mut rig = Rig::new(Kind::fair(), |_| {});
    for m in 0..3 {
        rig.send_to("slow", m);
        rig.send_to("fast", 10 + m);
    }
    let got = rig.receive(2);
    rig.go(1);
    rig.acknowledge(&got[1]).unwrap();
    rig.go(20);
    rig.acknowledge(&got[0]).unwrap();
    // 20 s against 1 s.
    assert_eq!(rig.machine.stats(rig.now).noisy_groups, 1);
    let quick = rig.receive(2);
    assert_eq!(quick.iter().map(|l| l.m).collect::<Vec<_>>(), [11, 12]);
    for leased in &quick {
        rig.acknowledge(leased).unwrap();
    }
    // The window slides on: at 119 s the share is the same of much less, at 120 s nothing is left.
    rig.go(119);
    assert_eq!(rig.machine.stats(rig.now).noisy_groups, 1);
    rig.go(120);
    assert_eq!(rig.machine.stats(rig.now).noisy_groups, 0);
}

#[test]
fn the_share_of_time_is_remembered_while_the_tenant_has_no_message() {
    let mut rig = Rig::new(Kind::fair(), |_| {});
    rig.send_to("slow", 1);
    let got = rig.receive(1)[0];
    rig.go(10);
    rig.acknowledge(&got).unwrap();
    rig.send_to("slow", 2);
    rig.send_to("quiet", 3);
    assert_eq!(rig.take(1), [3]);
}

#[test]
fn dead_letters_timeouts_and_retention_work_as_on_standard_queues() {
    let mut rig = Rig::new(Kind::fair(), |rules| {
        rules.max_receives = Some(1);
        rules.retention = Some(secs(100));
    });
    rig.send_to("a", 1);
    rig.send_to("a", 2);
    let got = rig.receive(1);
    assert!(matches!(
        rig.go(30)[..],
        [Effect::DeadLetter(DeadLetter { m: 1, .. })]
    ));
    assert_eq!(rig.acknowledge(&got[0]), Err(Stale));
    assert!(matches!(rig.go(100)[..], [Effect::Expired { m: 2, .. }]));
    assert_eq!(rig.machine.stats(rig.now).groups, 0);
}

#[test]
fn a_fair_queue_refuses_receives_at_its_bound_in_flight() {
    let mut rig = Rig::new(Kind::fair(), |rules| rules.max_in_flight = 1);
    rig.send_to("a", 1);
    rig.send_to("b", 2);
    assert_eq!(rig.take(5), [1]);
    let refused = rig.machine.receive(rig.now, 1, None, None, &mut Vec::new());
    assert_eq!(refused, Err(ReceiveError::OverLimit));
}

#[test]
fn the_oldest_age_of_quiet_tenants_leaves_noisy_ones_out() {
    let mut rig = by_in_flight();
    for m in 0..10 {
        rig.send_to("noisy", m);
    }
    rig.receive(5);
    rig.go(7);
    rig.send_to("quiet", 20);
    rig.go(9);
    let stats = rig.machine.stats(rig.now);
    assert_eq!(stats.oldest_age, Some(secs(9)));
    assert_eq!(stats.oldest_age_in_quiet_groups, Some(secs(2)));
}
