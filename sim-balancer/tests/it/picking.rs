//! Which target is picked.

use std::time::Duration;

use sim_balancer::machine::{CrossZone, SlowStart};
use sim_balancer::{
    Algorithm, Balancer, BalancerConfig, Choices, ConfigError, Feedback, LeastOutstanding,
    LeastTime, Outcome, PeakEwma, PickError, PrequalConfig, ProbeResult, RegisterReason, Request,
    Rules, Target, Zone,
};
use sim_core::clock::Clock;

use crate::rig::{Rig, id};

fn every_algorithm() -> Vec<Algorithm> {
    vec![
        Algorithm::RoundRobin,
        Algorithm::SmoothWeighted,
        Algorithm::Random,
        Algorithm::WeightedRandom,
        Algorithm::LeastOutstanding(LeastOutstanding::default()),
        Algorithm::LeastOutstanding(LeastOutstanding {
            choices: Choices::Sample(2),
        }),
        Algorithm::PeakEwma(PeakEwma::default()),
        Algorithm::LeastTime(LeastTime::default()),
    ]
}

#[test]
fn round_robin_takes_each_in_its_turn() {
    let rig = Rig::of(Algorithm::RoundRobin, 3);
    assert_eq!(rig.picks(6), [0, 1, 2, 0, 1, 2]);
}

#[test]
fn smooth_weighted_takes_five_one_one_as_nginx_does() {
    let rig = Rig::of(Algorithm::SmoothWeighted, 0);
    for (n, weight) in [(0, 5), (1, 1), (2, 1)] {
        let target = Target::new(id(n), n).weight(weight);
        rig.balancer.register(target).expect("registered");
    }
    // The turns go on where they were when the table changed.
    let turns = rig.picks(14);
    assert_eq!(turns.iter().filter(|&&n| n == 0).count(), 10);
    assert!(turns.windows(4).all(|w| w.contains(&0)));
}

#[test]
fn without_targets_nobody_is_picked_and_the_error_says_why() {
    for algorithm in every_algorithm() {
        let rig = Rig::of(algorithm, 0);
        assert_eq!(rig.refusal(), PickError::Empty);
        let target = Target::new(id(0), 0).weight(0);
        rig.balancer.register(target).expect("registered");
        assert_eq!(rig.refusal(), PickError::NoneEligible);
        rig.balancer.set_weight(&id(0), 1).expect("it is there");
        assert_eq!(rig.pick(), 0);
        rig.balancer.deregister(&id(0)).expect("it is there");
        assert_eq!(rig.refusal(), PickError::Empty);
    }
}

#[test]
fn every_algorithm_gives_up_only_when_every_target_is_at_its_limit() {
    for algorithm in every_algorithm() {
        let config = BalancerConfig {
            algorithm,
            max_outstanding: Some(3),
            ..Default::default()
        };
        let rig = Rig::new(config, 4);
        let leases: Vec<_> = (0..12)
            .map(|_| rig.balancer.try_pick().expect("there is room"))
            .collect();
        assert_eq!(rig.refusal(), PickError::Saturated);
        drop(leases);
        assert_eq!(rig.balancer.stats().outstanding, 0);
        assert!(rig.balancer.try_pick().is_ok());
    }
}

#[test]
fn the_same_seed_gives_the_same_picks_and_another_seed_others() {
    let picks = |seed| {
        let config = BalancerConfig {
            algorithm: Algorithm::Random,
            seed,
            ..Default::default()
        };
        Rig::new(config, 10).picks(50)
    };
    assert_eq!(picks(1), picks(1));
    assert_ne!(picks(1), picks(2));
}

#[test]
fn what_is_to_be_avoided_is_avoided_unless_nothing_else_is_left() {
    for algorithm in every_algorithm() {
        let rig = Rig::of(algorithm, 3);
        let avoid = [id(0), id(2)];
        let request = Request {
            avoid: &avoid,
            ..Default::default()
        };
        for _ in 0..10 {
            let lease = rig.balancer.try_pick_for(&request).expect("a target");
            assert_eq!(*lease, 1);
        }
        rig.balancer.deregister(&id(1)).expect("it is there");
        let lease = rig.balancer.try_pick_for(&request).expect("a target");
        assert_ne!(*lease, 1);
    }
}

#[test]
fn a_request_stays_with_its_target_as_long_as_that_is_there() {
    let rig = Rig::of(Algorithm::RoundRobin, 5);
    let sticky = id(3);
    let request = Request {
        sticky: Some(&sticky),
        ..Default::default()
    };
    for _ in 0..10 {
        let lease = rig.balancer.try_pick_for(&request).expect("a target");
        assert_eq!(*lease, 3);
    }
    rig.balancer.deregister(&sticky).expect("it is there");
    let lease = rig.balancer.try_pick_for(&request).expect("another one");
    assert_ne!(*lease, 3);
}

#[test]
fn requests_stay_in_their_zone_when_they_must_not_cross() {
    let config = BalancerConfig {
        algorithm: Algorithm::RoundRobin,
        rules: Rules {
            cross_zone: CrossZone::Off,
            ..Default::default()
        },
        zone: Some(Zone::new("a")),
        ..Default::default()
    };
    let rig = Rig::new(config, 0);
    for n in 0..4 {
        let zone = if n % 2 == 0 { "a" } else { "b" };
        let target = Target::new(id(n), n).zone(zone);
        rig.balancer.register(target).expect("registered");
    }
    assert!(rig.picks(20).iter().all(|n| n % 2 == 0));
    let b = Zone::new("b");
    let from_b = Request {
        zone: Some(&b),
        ..Default::default()
    };
    for _ in 0..20 {
        let lease = rig.balancer.try_pick_for(&from_b).expect("a target");
        assert_eq!(*lease % 2, 1);
    }
    // A zone without targets uses all.
    rig.balancer.deregister(&id(0)).expect("it is there");
    rig.balancer.deregister(&id(2)).expect("it is there");
    assert!(rig.picks(20).iter().all(|n| n % 2 == 1));
}

#[test]
fn a_shifted_zone_gets_nothing_until_the_shift_ends() {
    let rig = Rig::of(Algorithm::RoundRobin, 0);
    for (n, zone) in [(0, "a"), (1, "b")] {
        let target = Target::new(id(n), n).zone(zone);
        rig.balancer.register(target).expect("registered");
    }
    let zone = Zone::new("a");
    rig.balancer
        .shift_zone(&zone, Duration::from_secs(60))
        .expect("the zone is known");
    assert_eq!(rig.picks(4), [1, 1, 1, 1]);
    rig.sleep(60);
    assert!(rig.picks(4).contains(&0));
    assert!(
        rig.balancer
            .shift_zone(&Zone::new("c"), Duration::ZERO)
            .is_err()
    );
}

#[test]
fn the_second_priority_is_used_when_the_first_is_saturated() {
    let config = BalancerConfig {
        max_outstanding: Some(1),
        ..Default::default()
    };
    let rig = Rig::new(config, 0);
    for n in 0..2 {
        let target = Target::new(id(n), n).priority(n);
        rig.balancer.register(target).expect("registered");
    }
    let first = rig.balancer.try_pick().expect("a target");
    assert_eq!(*first, 0);
    drop(first);
    assert_eq!(rig.picks(4), [0, 0, 0, 0]);
}

#[test]
fn a_target_that_fails_checks_gets_nothing_until_it_is_well() {
    let config = BalancerConfig {
        algorithm: Algorithm::RoundRobin,
        rules: Rules {
            health_check: Some(Default::default()),
            ..Default::default()
        },
        ..Default::default()
    };
    let rig = Rig::new(config, 2);
    let due = rig.balancer.due_checks();
    assert_eq!(due.len(), 2);
    for check in due {
        rig.balancer
            .report(check.id(), ProbeResult::Good)
            .expect("it is there");
    }
    for _ in 0..2 {
        rig.balancer
            .report(&id(0), ProbeResult::Timeout)
            .expect("it is there");
    }
    assert_eq!(rig.picks(4), [1, 1, 1, 1]);
    for _ in 0..5 {
        rig.balancer
            .report(&id(0), ProbeResult::Good)
            .expect("it is there");
    }
    assert!(rig.picks(4).contains(&0));
}

#[test]
fn a_new_target_starts_slowly() {
    let config = BalancerConfig {
        algorithm: Algorithm::SmoothWeighted,
        rules: Rules {
            slow_start: SlowStart {
                duration: Duration::from_secs(100),
                ..Default::default()
            },
            ..Default::default()
        },
        ..Default::default()
    };
    let rig = Rig::new(config, 1);
    rig.sleep(200);
    rig.balancer
        .register(Target::new(id(1), 1))
        .expect("registered");
    let share = || rig.picks(1000).iter().filter(|&&n| n == 1).count();
    let (begin, _) = (share(), rig.sleep(50));
    let (middle, _) = (share(), rig.sleep(60));
    let end = share();
    assert!(begin < 150, "{begin}");
    assert!((250..420).contains(&middle), "{middle}");
    assert!((490..510).contains(&end), "{end}");
}

#[test]
fn round_robin_and_random_let_a_new_target_start_slowly_too() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::Random] {
        let config = BalancerConfig {
            algorithm,
            rules: Rules {
                slow_start: SlowStart {
                    duration: Duration::from_secs(100),
                    ..Default::default()
                },
                ..Default::default()
            },
            ..Default::default()
        };
        let rig = Rig::new(config, 0);
        // What it weighs makes no difference.
        let heavy = Target::new(id(0), 0).weight(7);
        rig.balancer.register(heavy).expect("registered");
        rig.sleep(200);
        rig.balancer
            .register(Target::new(id(1), 1))
            .expect("registered");
        let share = || rig.picks(1000).iter().filter(|&&n| n == 1).count();
        let (begin, _) = (share(), rig.sleep(50));
        let (middle, _) = (share(), rig.sleep(60));
        let end = share();
        assert!(begin < 150, "{begin}");
        assert!((250..420).contains(&middle), "{middle}");
        assert!((440..560).contains(&end), "{end}");
    }
}

#[test]
fn each_zone_and_each_priority_takes_its_own_turns() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::SmoothWeighted] {
        let config = BalancerConfig {
            algorithm,
            rules: Rules {
                cross_zone: CrossZone::Off,
                ..Default::default()
            },
            ..Default::default()
        };
        let rig = Rig::new(config, 0);
        for n in 0..4 {
            let zone = if n % 2 == 0 { "a" } else { "b" };
            let target = Target::new(id(n), n).zone(zone);
            rig.balancer.register(target).expect("registered");
        }
        let zones = [Zone::new("a"), Zone::new("b")];
        let mut counts = [0; 4];
        for turn in 0..400 {
            let request = Request {
                zone: Some(&zones[turn % 2]),
                ..Default::default()
            };
            let lease = rig.balancer.try_pick_for(&request).expect("a target");
            counts[*lease as usize] += 1;
            // The turns go on when the tables are built anew.
            if turn % 10 == 0 {
                let weight = if turn % 20 == 0 { 0 } else { 1 };
                rig.balancer.set_weight(&id(3), weight).expect("there");
                rig.balancer.set_weight(&id(3), 1).expect("there");
            }
        }
        assert!(
            counts.iter().all(|&c| (95..=105).contains(&c)),
            "{counts:?}"
        );
    }
}

#[test]
fn first_available_goes_by_the_order_of_registration() {
    let rig = Rig::of(Algorithm::FirstAvailable, 3);
    rig.balancer.deregister(&id(0)).expect("it is there");
    rig.sleep(600);
    // It stands where the first one stood.
    rig.balancer
        .register(Target::new(id(3), 3))
        .expect("registered");
    assert_eq!(rig.picks(3), [1, 1, 1]);
}

#[test]
fn least_time_tries_a_target_again_that_failed_once() {
    let rig = Rig::of(Algorithm::LeastTime(LeastTime::default()), 2);
    let lease = rig.balancer.try_pick().expect("a target");
    let failed = *lease;
    lease.complete(Outcome::Failure);
    let mut tried = 0;
    for _ in 0..10_000 {
        let lease = rig.balancer.try_pick().expect("a target");
        tried += u32::from(*lease == failed);
        rig.time.advance(Duration::from_millis(1));
        lease.complete(Outcome::Success);
        rig.time.advance(Duration::from_millis(359));
    }
    // Once it is known to be well, it is as good as the other.
    assert!((2_000..8_000).contains(&tried), "{tried}");
}

#[test]
fn prequal_heeds_no_answer_of_a_target_that_has_gone() {
    let rig = Rig::of(Algorithm::Prequal(PrequalConfig::default()), 2);
    let told = |millis: u64, in_flight| Feedback {
        in_flight,
        latency: Some(Duration::from_millis(millis)),
        ..Default::default()
    };
    let of = |n| {
        let sticky = id(n);
        let request = Request {
            sticky: Some(&sticky),
            ..Default::default()
        };
        rig.balancer.try_pick_for(&request).expect("it is there")
    };
    let lease = of(0);
    rig.balancer.deregister(&id(0)).expect("it is there");
    // After the delay it goes with the lease out, and another target stands in its place.
    rig.sleep(600);
    assert_eq!(rig.pick(), 1);
    rig.balancer
        .register(Target::new(id(2), 2))
        .expect("registered");
    let other = of(1);
    let newcomer = of(2);
    for _ in 0..100 {
        newcomer.observe(told(900, 1));
        other.observe(told(50, 1));
        lease.observe(told(1, 1));
        assert_eq!(rig.pick(), 1);
    }
}

#[test]
fn peak_ewma_prefers_the_fast_and_shuns_the_failing() {
    let rig = Rig::of(Algorithm::PeakEwma(PeakEwma::default()), 3);
    let answer = |slow: u32| {
        for _ in 0..30 {
            let lease = rig.balancer.try_pick().expect("a target");
            let millis = if *lease == slow { 100 } else { 1 };
            rig.time.advance(Duration::from_millis(millis));
            lease.complete(Outcome::Success);
        }
    };
    answer(2);
    let slow = rig.balancer.targets()[2].finished;
    answer(2);
    assert_eq!(
        rig.balancer.targets()[2].finished,
        slow,
        "it is known by now"
    );
    // A failure counts as five seconds: that target is worse than the slow one.
    let lease = rig.balancer.try_pick().expect("a target");
    let failed = *lease;
    lease.complete(Outcome::Failure);
    let latency = rig.balancer.targets()[failed as usize].latency;
    assert!(latency >= Some(Duration::from_secs(4)), "{latency:?}");
    assert!(rig.picks(10).iter().all(|&n| n != failed));
}

#[test]
fn an_overloaded_target_is_left_alone_for_as_long_as_it_asked() {
    let rig = Rig::of(Algorithm::PeakEwma(PeakEwma::default()), 2);
    for _ in 0..4 {
        let lease = rig.balancer.try_pick().expect("a target");
        rig.time.advance(Duration::from_millis(1));
        lease.complete(Outcome::Success);
    }
    let lease = rig.balancer.try_pick().expect("a target");
    let overloaded = *lease;
    lease.complete(Outcome::Overloaded {
        retry_after: Some(Duration::from_secs(100_000)),
    });
    // It is believed for 300 s and no longer.
    let latency = rig.balancer.targets()[overloaded as usize].latency;
    let latency = latency.expect("it is known").as_secs_f64();
    assert!((299.0..=301.0).contains(&latency), "{latency}");
    assert!(rig.picks(10).iter().all(|&n| n != overloaded));
}

#[test]
fn settings_out_of_range_are_refused_with_field_value_and_limit() {
    for value in [0, sim_balancer::MOST_OUTSTANDING + 1] {
        let config = BalancerConfig {
            max_outstanding: Some(value),
            ..Default::default()
        };
        let refused = Balancer::<()>::with_clock(config, Clock::system()).expect_err("refused");
        assert!(matches!(refused, ConfigError::MaxOutstanding { value: v, .. } if v == value));
        assert!(refused.to_string().contains(&value.to_string()));
    }
    let rig = Rig::of(Algorithm::RoundRobin, 1);
    let again = rig.balancer.register(Target::new(id(0), 7));
    let refused = again.expect_err("the name is taken");
    assert_eq!(refused.target.value, 7);
    assert!(refused.to_string().contains("t0"));
    let refused = rig
        .balancer
        .register(Target::new(id(1), 8).max_outstanding(0))
        .expect_err("out of range");
    assert_eq!(refused.target.value, 8);
    assert!(matches!(
        refused.reason,
        RegisterReason::MaxOutstanding { value: 0, .. }
    ));
    assert!(rig.balancer.deregister(&id(9)).is_err());
    assert_eq!(rig.balancer.targets().len(), 1);
}
