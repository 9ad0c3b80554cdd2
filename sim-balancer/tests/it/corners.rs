//! Corners of the handle: wake-ups, wakers that look back, times that are none.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use sim_balancer::machine::{
    Anomaly, Deregistration, Failover, HealthCheck, Outliers, ProbeResult, TargetFailover,
};
use sim_balancer::{Algorithm, Balancer, BalancerConfig, Outcome, Request, Rules};
use sim_core::sync::atomic::{AtomicU64, Ordering};
use sim_core::time::Instant;

use crate::rig::{Rig, id};

async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_sticks_to_a_target_out_of_use_is_woken_by_its_room() {
    let config = BalancerConfig {
        algorithm: Algorithm::RoundRobin,
        max_outstanding: Some(1),
        rules: Rules {
            health_check: Some(HealthCheck::default()),
            target_failover: TargetFailover {
                on_unhealthy: Failover::NoRebalance,
                ..Default::default()
            },
            ..Default::default()
        },
        ..Default::default()
    };
    let rig = Rig::new(config, 2);
    let report = |n, result| rig.balancer.report(&id(n), result).expect("it is there");
    for n in 0..2 {
        (0..10).for_each(|_| report(n, ProbeResult::Good));
    }
    let leases = [(); 2].map(|()| rig.balancer.try_pick().expect("room"));
    (0..10).for_each(|_| report(0, ProbeResult::Failed));
    assert_eq!(rig.balancer.stats().eligible, 1);

    let balancer = rig.balancer.clone();
    let anybody = tokio::spawn(async move { *balancer.pick().await });
    settle().await;
    let balancer = rig.balancer.clone();
    let sticks = tokio::spawn(async move {
        let name = id(0);
        let request = Request {
            sticky: Some(&name),
            ..Request::default()
        };
        *balancer.pick_for(&request).await
    });
    settle().await;
    assert_eq!(rig.balancer.stats().waiting, 2);
    let [one, other] = leases;
    let (of_sick, of_well) = if *one == 0 {
        (one, other)
    } else {
        (other, one)
    };
    of_sick.complete(Outcome::Success);
    settle().await;
    assert!(sticks.is_finished(), "there is room for who sticks");
    assert_eq!(sticks.await.expect("no panic"), 0);
    of_well.complete(Outcome::Success);
    assert_eq!(anybody.await.expect("no panic"), 1);
}

#[test]
fn a_target_that_returns_from_an_ejection_begins_a_new_row_of_failures() {
    let config = BalancerConfig {
        algorithm: Algorithm::RoundRobin,
        rules: Rules {
            outliers: Some(Outliers {
                max_ejection_percent: 100,
                ..Default::default()
            }),
            ..Default::default()
        },
        ..Default::default()
    };
    let rig = Rig::new(config, 1);
    let fail = |count: usize| {
        let leases: Vec<_> = (0..count)
            .map(|_| rig.balancer.try_pick().expect("a target"))
            .collect();
        for lease in leases {
            lease.complete(Outcome::Failure);
        }
    };
    let is_ejected = || {
        let health = rig.balancer.health(&id(0)).expect("it is there");
        health.ejected_until.is_some()
    };
    fail(9);
    assert!(is_ejected());
    for _ in 0..60 {
        rig.sleep(10);
        rig.balancer.advance(rig.balancer.clock().now());
    }
    assert!(!is_ejected());
    fail(1);
    assert!(!is_ejected(), "one failure is no row");
    fail(4);
    assert!(is_ejected(), "five are");
}

#[test]
fn a_time_that_never_comes_ends_nothing() {
    let rig = Rig::new(
        BalancerConfig {
            rules: Rules {
                outliers: Some(Outliers::default()),
                anomaly: Some(Anomaly::default()),
                deregistration: Deregistration {
                    delay: Duration::from_secs(10),
                    ..Default::default()
                },
                ..Default::default()
            },
            ..Default::default()
        },
        2,
    );
    rig.balancer.advance(Instant::NEVER);
    // Drains are timed by the clock as before.
    let lease = rig.balancer.try_pick().expect("a target");
    rig.balancer.deregister(lease.id()).expect("it is there");
    rig.sleep(10);
    rig.balancer.advance(rig.balancer.clock().now());
    assert_eq!(rig.balancer.health(lease.id()), None, "its time is up");
}

/// Looks at the balancer when it is woken.
struct Nosy {
    balancer: Balancer<u32>,
    woken: AtomicU64,
}

impl Wake for Nosy {
    fn wake(self: std::sync::Arc<Self>) {
        let targets = self.balancer.stats().targets.targets;
        self.woken.store(u64::from(targets) + 1, Ordering::SeqCst);
    }
}

#[test]
fn who_waits_for_the_end_may_look_at_the_balancer_when_woken() {
    let config = BalancerConfig {
        rules: Rules {
            deregistration: Deregistration {
                delay: Duration::ZERO,
                connection_termination: true,
            },
            ..Default::default()
        },
        ..Default::default()
    };
    let rig = Rig::new(config, 1);
    let lease = rig.balancer.try_pick().expect("a target");
    let nosy = std::sync::Arc::new(Nosy {
        balancer: rig.balancer.clone(),
        woken: AtomicU64::new(0),
    });
    let waker = Waker::from(std::sync::Arc::clone(&nosy));
    let mut cx = Context::from_waker(&waker);
    let mut terminated = pin!(lease.terminated());
    assert!(terminated.as_mut().poll(&mut cx).is_pending());
    rig.balancer.deregister(&id(0)).expect("it is there");
    assert!(lease.is_terminated());
    assert_eq!(
        nosy.woken.load(Ordering::SeqCst),
        1,
        "woken, and it is gone"
    );
    assert!(terminated.as_mut().poll(&mut cx).is_ready());
}
