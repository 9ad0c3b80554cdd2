//! What becomes of leases, and of targets that leave.

use std::time::Duration;

use futures_util::FutureExt;
use sim_balancer::machine::{Deregistration, Outliers};
use sim_balancer::{
    Algorithm, Balancer, BalancerConfig, Outcome, PickError, Request, Rules, State, Target,
};
use sim_core::clock::Clock;
use sim_core::id::Id;
use sim_core::seam::{Gauge, Roster, Standing, Timed};
use sim_core::sync::{Arc, thread};
use sim_core::time::Timestamp;

use crate::rig::{Rig, id};

fn limited(limit: u32) -> BalancerConfig {
    BalancerConfig {
        algorithm: Algorithm::RoundRobin,
        max_outstanding: Some(limit),
        ..Default::default()
    }
}

#[test]
fn a_request_is_outstanding_until_its_lease_is_given_back() {
    let rig = Rig::of(Algorithm::RoundRobin, 1);
    let lease = rig.balancer.try_pick().expect("a target");
    assert_eq!((lease.id().as_str(), lease.outstanding()), ("t0", 1));
    lease.complete(Outcome::Success);
    let failed = rig.balancer.try_pick().expect("a target");
    failed.complete(Outcome::Failure);
    drop(rig.balancer.try_pick().expect("a target"));
    let stats = rig.balancer.stats();
    assert_eq!(
        (
            stats.outstanding,
            stats.finished,
            stats.failed,
            stats.cancelled
        ),
        (0, 2, 1, 1)
    );
}

#[test]
fn a_target_drains_until_its_last_lease_is_given_back() {
    let rig = Rig::of(Algorithm::RoundRobin, 2);
    let leases: Vec<_> = (0..4)
        .map(|_| rig.balancer.try_pick().expect("a target"))
        .collect();
    rig.balancer.deregister(&id(0)).expect("it is there");
    let health = rig.balancer.health(&id(0)).expect("it drains");
    assert_eq!(health.state, State::Draining);
    assert_eq!(rig.picks(4), [1, 1, 1, 1]);
    drop(leases);
    assert_eq!(rig.balancer.health(&id(0)), None);
    // What it did is not forgotten.
    assert_eq!(rig.balancer.stats().cancelled, 8);
}

#[test]
fn a_target_is_gone_after_the_deregistration_delay_and_its_lease_goes_on() {
    let mut config = limited(10);
    config.rules.deregistration = Deregistration {
        delay: Duration::from_secs(60),
        connection_termination: true,
    };
    let rig = Rig::new(config, 2);
    let lease = rig.balancer.try_pick().expect("a target");
    rig.balancer.deregister(&id(0)).expect("it is there");
    assert!(lease.terminated().now_or_never().is_none());
    assert_eq!(
        rig.balancer.next_deadline(),
        Some(rig.balancer.clock().now() + Duration::from_secs(60))
    );
    rig.sleep(60);
    Timed::advance(&rig.balancer, rig.balancer.clock().now());
    assert_eq!(rig.balancer.health(&id(0)), None);
    assert!(lease.is_terminated());
    assert!(lease.terminated().now_or_never().is_some());
    assert_eq!(*lease, 0);
    assert_eq!(rig.balancer.stats().outstanding, 1);
    lease.complete(Outcome::Success);
    let stats = rig.balancer.stats();
    assert_eq!((stats.outstanding, stats.finished), (0, 1));
}

#[test]
fn a_name_that_drains_may_be_registered_again() {
    let rig = Rig::of(Algorithm::RoundRobin, 1);
    let old = rig.balancer.try_pick().expect("a target");
    rig.balancer.deregister(&id(0)).expect("it is there");
    rig.balancer
        .register(Target::new(id(0), 100))
        .expect("the name is free");
    assert_eq!(rig.pick(), 100);
    assert_eq!(*old, 0);
    assert_eq!(rig.balancer.stats().outstanding, 1);
    drop(old);
    assert_eq!(rig.pick(), 100);
    assert_eq!(rig.balancer.targets().len(), 1);
}

#[test]
fn counts_survive_a_change_of_the_table() {
    let rig = Rig::of(Algorithm::RoundRobin, 1);
    let lease = rig.balancer.try_pick().expect("a target");
    rig.picks(9);
    rig.balancer
        .register(Target::new(id(1), 1))
        .expect("registered");
    rig.balancer.set_weight(&id(0), 7).expect("it is there");
    let stats = &rig.balancer.targets()[0];
    assert_eq!((stats.outstanding, stats.cancelled), (1, 9));
    drop(lease);
}

#[test]
fn failures_in_a_row_eject_a_target_and_a_success_breaks_the_row() {
    let config = BalancerConfig {
        algorithm: Algorithm::RoundRobin,
        rules: Rules {
            outliers: Some(Outliers {
                consecutive_failures: Some(3),
                max_ejection_percent: 50,
                ..Default::default()
            }),
            ..Default::default()
        },
        ..Default::default()
    };
    let rig = Rig::new(config, 2);
    let outcomes = |outcomes: &[Outcome]| {
        let request = Request {
            sticky: Some(&id(0)),
            ..Default::default()
        };
        for outcome in outcomes {
            let lease = rig.balancer.try_pick_for(&request).expect("a target");
            assert_eq!(*lease, 0);
            lease.complete(*outcome);
        }
    };
    outcomes(&[
        Outcome::Failure,
        Outcome::Failure,
        Outcome::Success,
        Outcome::Failure,
        Outcome::Unreachable,
    ]);
    assert_eq!(rig.balancer.stats().targets.ejected, 0);
    outcomes(&[Outcome::Failure]);
    assert_eq!(rig.balancer.stats().targets.ejected, 1);
    assert_eq!(rig.picks(4), [1, 1, 1, 1]);
    rig.sleep(60);
    assert!(rig.picks(4).contains(&0));
}

#[tokio::test]
async fn a_pick_waits_for_room_and_a_dropped_wait_takes_none() {
    let rig = Rig::new(limited(1), 1);
    let held = rig.balancer.try_pick().expect("a target");
    assert!(rig.balancer.pick().now_or_never().is_none());
    let mut waiting = Box::pin(rig.balancer.pick());
    assert!((&mut waiting).now_or_never().is_none());
    assert_eq!(rig.balancer.depth().waiting, 1);
    held.complete(Outcome::Success);
    let lease = waiting.await;
    assert_eq!(rig.balancer.depth().in_flight, 1);
    assert_eq!(rig.balancer.finished(), Some(1));
    drop(lease);
}

#[tokio::test]
async fn a_pick_waits_for_a_target_to_come() {
    let rig = Rig::of(Algorithm::default(), 0);
    let mut waiting = Box::pin(rig.balancer.pick());
    assert!((&mut waiting).now_or_never().is_none());
    rig.balancer
        .register(Target::new(id(5), 5))
        .expect("registered");
    assert_eq!(*waiting.await, 5);
}

#[tokio::test]
async fn a_wait_ends_at_its_deadline() {
    let rig = Rig::of(Algorithm::default(), 0);
    let deadline = rig.balancer.clock().now() + Duration::from_secs(5);
    let mut waiting = Box::pin(rig.balancer.pick_until(deadline));
    assert!((&mut waiting).now_or_never().is_none());
    rig.sleep(5);
    assert_eq!(waiting.await.expect_err("elapsed"), PickError::Elapsed);
}

#[tokio::test]
async fn a_waiter_keeps_the_time_of_a_shift_that_ends() {
    let rig = Rig::of(Algorithm::default(), 0);
    let target = Target::new(id(0), 0);
    rig.balancer.register(target).expect("registered");
    rig.balancer
        .suspend(&id(0), sim_balancer::machine::Unused::InvalidState)
        .expect("it is there");
    let mut waiting = Box::pin(rig.balancer.pick());
    assert!((&mut waiting).now_or_never().is_none());
    rig.balancer.resume(&id(0)).expect("it is there");
    assert_eq!(*waiting.await, 0);
}

#[test]
fn a_thread_blocks_until_there_is_room() {
    let balancer = Balancer::new(limited(1)).expect("a good configuration");
    balancer
        .register(Target::new("only", 1_u32))
        .expect("registered");
    let held = balancer.try_pick().expect("a target");
    let other = balancer.clone();
    let waiter = thread::spawn(move || *other.pick_blocking());
    while balancer.stats().waiting == 0 {
        thread::yield_now();
    }
    held.complete(Outcome::Success);
    assert_eq!(waiter.join().expect("it picks"), 1);
}

#[test]
fn targets_are_dropped_with_the_last_handle_and_those_leased_with_their_lease() {
    let (clock, _time) = Clock::virtual_at(Timestamp::UNIX_EPOCH);
    let balancer =
        Balancer::with_clock(BalancerConfig::default(), clock).expect("a good configuration");
    let value = Arc::new(());
    for n in 0..3 {
        let target = Target::new(id(n), Arc::clone(&value));
        balancer.register(target).expect("registered");
    }
    let other = balancer.clone();
    let lease = balancer.try_pick().expect("a target");
    drop(balancer);
    assert_eq!(Arc::strong_count(&value), 4);
    drop(other);
    assert_eq!(Arc::strong_count(&value), 2);
    lease.complete(Outcome::Success);
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn a_member_of_the_roster_joins_serves_leaves_and_is_gone() {
    let rig = Rig::of(Algorithm::RoundRobin, 0);
    let roster: &dyn Roster<u32> = &rig.balancer;
    let one = Id::from_parts(1, 1);
    assert_eq!(roster.standing(one), Standing::Absent);
    roster.try_join(one, 7).expect("it joins");
    let refused = roster.try_join(one, 8).expect_err("it is there");
    assert_eq!(refused.item, 8);
    assert_eq!(roster.standing(one), Standing::Serving);
    let lease = rig.balancer.try_pick().expect("a target");
    roster.leave(one);
    roster.leave(one);
    assert_eq!(roster.standing(one), Standing::Leaving);
    drop(lease);
    assert_eq!(roster.standing(one), Standing::Absent);
}

#[test]
fn a_target_may_be_another_balancer() {
    enum Node {
        Leaf(&'static str),
        Group(Balancer<&'static str>),
    }
    let config = || BalancerConfig {
        algorithm: Algorithm::RoundRobin,
        ..Default::default()
    };
    let inner = Balancer::new(config()).expect("a good configuration");
    for name in ["b", "c"] {
        inner.register(Target::new(name, name)).expect("registered");
    }
    let outer = Balancer::new(config()).expect("a good configuration");
    let refused = outer.register_all([
        Target::new("leaf", Node::Leaf("a")),
        Target::new("group", Node::Group(inner)),
    ]);
    assert!(refused.is_empty());
    let picked: Vec<&str> = (0..6)
        .map(|_| match &*outer.try_pick().expect("a node") {
            Node::Leaf(name) => *name,
            Node::Group(group) => *group.try_pick().expect("a target"),
        })
        .collect();
    assert_eq!(picked, ["a", "b", "a", "c", "a", "b"]);
}
