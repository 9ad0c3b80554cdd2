//! One rule a test, on a manual clock.

use std::collections::BTreeMap;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A machine, the time, and what targets are said to have finished.
struct Rig {
    machine: Machine,
    now: Instant,
    tallies: BTreeMap<u32, Tally>,
}

impl Rig {
    fn new(rules: Rules) -> Self {
        let now = Instant::ORIGIN;
        Self {
            machine: Machine::new(rules, Random::new(1), now).unwrap(),
            now,
            tallies: BTreeMap::new(),
        }
    }

    fn checked() -> Self {
        Self::new(Rules {
            health_check: Some(HealthCheck::default()),
            ..Rules::default()
        })
    }

    fn add(&mut self, id: &str) -> Slot {
        self.add_with(Registration::new(id))
    }

    fn add_with(&mut self, spec: Registration) -> Slot {
        self.machine.register(self.now, spec).unwrap()
    }

    fn add_in(&mut self, id: &str, zone: &str) -> Slot {
        self.add_with(Registration {
            zone: Some(zone.into()),
            ..Registration::new(id)
        })
    }

    fn add_at(&mut self, id: &str, priority: u32) -> Slot {
        self.add_with(Registration {
            priority,
            ..Registration::new(id)
        })
    }

    /// Goes on by a time, deadline by deadline as a driver would.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.machine.next_deadline().filter(|at| *at <= end) {
            assert!(at > self.now, "a deadline lies in the future");
            self.now = at;
            let tallies = &self.tallies;
            self.machine.advance(at, |slot| {
                tallies.get(&slot.index).copied().unwrap_or_default()
            });
        }
        self.now = end;
    }

    fn probe(&mut self, slot: Slot, result: ProbeResult) {
        self.machine.probe(self.now, slot, result);
    }

    fn probes(&mut self, slot: Slot, result: ProbeResult, count: u32) {
        for _ in 0..count {
            self.probe(slot, result);
        }
    }

    fn finish(&mut self, slot: Slot, successes: u64, failures: u64) {
        let tally = self.tallies.entry(slot.index).or_default();
        tally.successes += successes;
        tally.failures += failures;
    }

    fn state(&self, slot: Slot) -> (State, Option<Reason>) {
        let health = self.machine.health(slot).unwrap();
        (health.state, health.reason)
    }

    fn pool(&mut self, zone: Option<&str>) -> Pool {
        let zone = zone.map(|zone| self.machine.zone_id(&zone.into()).unwrap());
        self.machine.view().pool(zone).clone()
    }

    /// Names and weights of who gets traffic in the pool of all zones.
    fn members(&mut self) -> Vec<(u32, u32)> {
        let pool = self.pool(None);
        let tiers = pool.tiers.iter();
        tiers
            .flat_map(|tier| &tier.members)
            .map(|member| (member.slot.index, member.weight))
            .collect()
    }

    fn served(&mut self) -> Vec<u32> {
        self.members().iter().map(|(index, _)| *index).collect()
    }

    fn loads(&mut self) -> Vec<(u32, u32, bool)> {
        let pool = self.pool(None);
        let tiers = pool.tiers.iter();
        tiers
            .map(|tier| (tier.priority, tier.load, tier.failed_open))
            .collect()
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.machine.take_effect()).collect()
    }

    fn due(&mut self) -> Vec<u32> {
        std::iter::from_fn(|| self.machine.take_due_check())
            .map(|slot| slot.index)
            .collect()
    }
}

#[test]
fn states_and_reasons_are_shown_as_the_service_writes_them() {
    let states = [
        State::Initial,
        State::Healthy,
        State::Unhealthy,
        State::UnhealthyDraining,
        State::Unused,
        State::Draining,
        State::Unavailable,
    ];
    assert_eq!(
        states.map(|state| state.to_string()).join(" "),
        "initial healthy unhealthy unhealthy.draining unused draining unavailable"
    );
    let reasons = [
        Reason::RegistrationInProgress,
        Reason::InitialHealthChecking,
        Reason::InternalError,
        Reason::ResponseCodeMismatch,
        Reason::Timeout,
        Reason::FailedHealthChecks,
        Reason::NotRegistered,
        Reason::NotInUse,
        Reason::InvalidState,
        Reason::IpUnusable,
        Reason::DeregistrationInProgress,
        Reason::HealthCheckDisabled,
    ];
    assert_eq!(
        reasons.map(|reason| reason.to_string()).join(" "),
        "Elb.RegistrationInProgress Elb.InitialHealthChecking Elb.InternalError \
         Target.ResponseCodeMismatch Target.Timeout Target.FailedHealthChecks Target.NotRegistered \
         Target.NotInUse Target.InvalidState Target.IpUnusable Target.DeregistrationInProgress \
         Target.HealthCheckDisabled"
    );
}

#[test]
fn a_new_target_is_healthy_after_one_good_check() {
    let mut rig = Rig::checked();
    let a = rig.add("a");
    assert_eq!(
        rig.state(a),
        (State::Initial, Some(Reason::RegistrationInProgress))
    );
    assert_eq!(rig.due(), [0]);
    assert_eq!(
        rig.state(a),
        (State::Initial, Some(Reason::InitialHealthChecking))
    );
    rig.probe(a, ProbeResult::Good);
    assert_eq!(rig.state(a), (State::Healthy, None));
}

#[test]
fn a_target_is_unhealthy_after_bad_checks_in_a_row() {
    let mut rig = Rig::checked();
    let a = rig.add("a");
    rig.probe(a, ProbeResult::Good);
    rig.probe(a, ProbeResult::Failed);
    rig.probe(a, ProbeResult::Good);
    rig.probe(a, ProbeResult::Failed);
    assert_eq!(rig.state(a).0, State::Healthy, "not two in a row");
    rig.probe(a, ProbeResult::Timeout);
    assert_eq!(rig.state(a), (State::Unhealthy, Some(Reason::Timeout)));
    rig.probe(a, ProbeResult::CodeMismatch { code: 503 });
    assert_eq!(
        rig.state(a),
        (State::Unhealthy, Some(Reason::ResponseCodeMismatch))
    );
    let last = rig.machine.health(a).unwrap().last_probe.unwrap();
    assert_eq!(
        last.to_string(),
        "health checks failed with these codes: [503]"
    );
}

#[test]
fn an_unhealthy_target_needs_good_checks_in_a_row() {
    let mut rig = Rig::checked();
    let a = rig.add("a");
    rig.probes(a, ProbeResult::Failed, 2);
    assert_eq!(
        rig.state(a),
        (State::Unhealthy, Some(Reason::FailedHealthChecks)),
        "an initial target too"
    );
    rig.probes(a, ProbeResult::Good, 4);
    rig.probe(a, ProbeResult::Failed);
    rig.probes(a, ProbeResult::Good, 4);
    assert_eq!(rig.state(a).0, State::Unhealthy);
    rig.probe(a, ProbeResult::Good);
    assert_eq!(rig.state(a).0, State::Healthy);
}

#[test]
fn a_fault_of_the_checker_counts_for_nothing() {
    let mut rig = Rig::checked();
    let a = rig.add("a");
    rig.probes(a, ProbeResult::Internal, 9);
    assert_eq!(rig.state(a), (State::Initial, Some(Reason::InternalError)));
    rig.probe(a, ProbeResult::Good);
    rig.probe(a, ProbeResult::Failed);
    rig.probes(a, ProbeResult::Internal, 9);
    assert_eq!(rig.state(a), (State::Healthy, None));
    rig.probe(a, ProbeResult::Failed);
    assert_eq!(rig.state(a).0, State::Unhealthy);
}

#[test]
fn each_target_is_due_once_an_interval() {
    let mut rig = Rig::checked();
    let (a, _) = (rig.add("a"), rig.add("b"));
    assert_eq!(rig.due(), [0, 1]);
    rig.pass(29 * SECOND);
    assert!(!rig.machine.has_due_checks());
    rig.pass(SECOND);
    assert_eq!(rig.due(), [0, 1]);
    // Nobody takes them for a long time: each is due once.
    rig.now = rig.now + 1_000 * SECOND;
    rig.machine.advance(rig.now, |_| Tally::default());
    rig.machine
        .advance(rig.now + 40 * SECOND, |_| Tally::default());
    rig.machine.deregister(rig.now, &"b".into()).unwrap();
    assert_eq!(rig.due(), [0], "and not after it was deregistered");
    assert_eq!(rig.state(a).0, State::Initial);
}

#[test]
fn jitter_spreads_the_first_checks() {
    let mut rig = Rig::new(Rules {
        health_check: Some(HealthCheck {
            jitter: 100,
            ..HealthCheck::default()
        }),
        ..Rules::default()
    });
    for n in 0..30 {
        rig.add(&n.to_string());
    }
    let mut seconds = Vec::new();
    for _ in 0..30 {
        rig.pass(SECOND);
        seconds.push(rig.due().len());
    }
    assert_eq!(seconds.iter().sum::<usize>(), 30, "all within an interval");
    assert!(seconds.iter().all(|due| *due <= 6), "{seconds:?}");
    // And then each again after exactly an interval.
    let mut again = Vec::new();
    for _ in 0..30 {
        rig.pass(SECOND);
        again.push(rig.due().len());
    }
    assert_eq!(seconds, again);
}

#[test]
fn unchecked_targets_get_traffic() {
    let mut rig = Rig::new(Rules::default());
    let a = rig.add("a");
    assert_eq!(
        rig.state(a),
        (State::Unavailable, Some(Reason::HealthCheckDisabled))
    );
    rig.probes(a, ProbeResult::Failed, 9);
    assert_eq!(rig.members(), [(0, WEIGHT_ONE)]);
    assert_eq!(rig.machine.next_deadline(), None);
}

#[test]
fn traffic_goes_to_healthy_targets() {
    let mut rig = Rig::checked();
    let slots = [rig.add("a"), rig.add("b"), rig.add("c")];
    rig.probe(slots[1], ProbeResult::Good);
    assert_eq!(rig.served(), [1]);
    rig.probe(slots[2], ProbeResult::Good);
    assert_eq!(rig.served(), [1, 2]);
    rig.probes(slots[1], ProbeResult::Failed, 2);
    assert_eq!(rig.served(), [2]);
}

#[test]
fn without_a_healthy_target_all_get_traffic() {
    let mut rig = Rig::checked();
    let slots = [rig.add("a"), rig.add("b")];
    assert_eq!(rig.loads(), [(0, FULL_LOAD, true)]);
    assert_eq!(rig.served(), [0, 1]);
    rig.probes(slots[0], ProbeResult::Failed, 2);
    assert_eq!(rig.served(), [0, 1]);
    rig.probe(slots[1], ProbeResult::Good);
    assert_eq!(rig.loads(), [(0, FULL_LOAD, false)]);
    assert_eq!(rig.served(), [1]);
}

#[test]
fn failing_open_can_be_off() {
    let mut rig = Rig::new(Rules {
        health_check: Some(HealthCheck::default()),
        fail_open: FailOpen {
            minimum_healthy_count: 0,
            ..FailOpen::default()
        },
        ..Rules::default()
    });
    rig.add("a");
    assert_eq!(rig.pool(None).tiers, []);
    assert!(!rig.pool(None).available);
}

#[test]
fn too_few_healthy_targets_open_the_pool() {
    for (count, percentage, panic) in [(3, 0, 0), (0, 50, 0), (0, 0, 50)] {
        let mut rig = Rig::new(Rules {
            health_check: Some(HealthCheck::default()),
            fail_open: FailOpen {
                minimum_healthy_count: count,
                minimum_healthy_percentage: percentage,
                panic_threshold: panic,
            },
            ..Rules::default()
        });
        let slots: Vec<Slot> = (0..6).map(|n| rig.add(&n.to_string())).collect();
        for slot in &slots[..2] {
            rig.probe(*slot, ProbeResult::Good);
        }
        assert_eq!(rig.served().len(), 6, "two of six are too few");
        rig.probe(slots[2], ProbeResult::Good);
        assert_eq!(rig.served(), [0, 1, 2], "three of six are not");
    }
}

#[test]
fn a_pool_tells_whether_it_is_available_as_a_whole() {
    let mut rig = Rig::new(Rules {
        health_check: Some(HealthCheck::default()),
        dns_failover: Availability {
            minimum_healthy_count: 1,
            minimum_healthy_percentage: 50,
        },
        ..Rules::default()
    });
    let slots = [rig.add("a"), rig.add("b"), rig.add("c")];
    rig.probe(slots[0], ProbeResult::Good);
    assert!(!rig.pool(None).available);
    rig.probe(slots[1], ProbeResult::Good);
    let pool = rig.pool(None);
    assert!(pool.available);
    assert_eq!((pool.healthy, pool.registered), (2, 3));
}

#[test]
fn a_share_grows_from_step_to_step() {
    let mut rig = Rig::new(Rules {
        slow_start: SlowStart {
            duration: 100 * SECOND,
            steps: 4,
        },
        ..Rules::default()
    });
    rig.add("a");
    rig.add("b");
    assert_eq!(
        rig.members(),
        [(0, 100), (1, 100)],
        "the first batch does not"
    );
    rig.pass(50 * SECOND);
    let late = rig.add("c");
    let health = rig.machine.health(late).unwrap();
    assert_eq!(health.slow_start_until, Some(rig.now + 100 * SECOND));
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(rig.members()[2].1);
        rig.pass(25 * SECOND);
    }
    assert_eq!(seen, [20, 40, 60, 80, 100]);
    assert_eq!(rig.machine.health(late).unwrap().slow_start_until, None);
    assert_eq!(rig.machine.next_deadline(), None);
}

#[test]
fn all_slow_starts_step_at_the_same_time() {
    let mut rig = Rig::new(Rules {
        slow_start: SlowStart {
            duration: 100 * SECOND,
            steps: 4,
        },
        ..Rules::default()
    });
    rig.add("old");
    rig.pass(26 * SECOND);
    for n in 0..20 {
        rig.add(&n.to_string());
        rig.pass(SECOND);
    }
    let mut moments = BTreeSet::new();
    while let Some(at) = rig.machine.next_deadline() {
        moments.insert(at.as_nanos() / 1_000_000_000);
        rig.pass(at - rig.now);
    }
    assert_eq!(Vec::from_iter(moments), [50, 75, 100, 125, 150]);
    assert!(rig.members().iter().all(|(_, weight)| *weight == 100));
}

#[test]
fn becoming_unhealthy_ends_a_slow_start() {
    let mut rig = Rig::new(Rules {
        health_check: Some(HealthCheck::default()),
        slow_start: SlowStart {
            duration: 100 * SECOND,
            steps: 10,
        },
        ..Rules::default()
    });
    let a = rig.add("a");
    rig.probe(a, ProbeResult::Good);
    rig.pass(20 * SECOND);
    let b = rig.add("b");
    rig.probe(b, ProbeResult::Good);
    rig.pass(50 * SECOND);
    assert_eq!(rig.members(), [(0, 100), (1, 54)]);
    rig.probes(b, ProbeResult::Failed, 2);
    assert_eq!(rig.members(), [(0, 100)]);
    assert_eq!(rig.machine.counts().slow_starting, 0);
    rig.probes(b, ProbeResult::Good, 5);
    assert_eq!(rig.members(), [(0, 100), (1, 9)], "and it starts again");
}

#[test]
fn a_target_drains_for_the_delay() {
    let mut rig = Rig::new(Rules::default());
    let (a, _) = (rig.add("a"), rig.add("b"));
    rig.machine.deregister(rig.now, &"a".into()).unwrap();
    assert_eq!(
        rig.state(a),
        (State::Draining, Some(Reason::DeregistrationInProgress))
    );
    assert_eq!(rig.served(), [1]);
    rig.pass(100 * SECOND);
    assert_eq!(rig.machine.deregister(rig.now, &"a".into()), Ok(a));
    rig.pass(199 * SECOND);
    assert_eq!(
        rig.state(a).0,
        State::Draining,
        "asking again does not prolong it"
    );
    assert_eq!(rig.effects(), []);
    rig.pass(SECOND);
    assert_eq!(rig.machine.health(a), None);
    let id = TargetId::from("a");
    assert_eq!(
        rig.effects(),
        [Effect::Removed {
            slot: a,
            id: id.clone()
        }]
    );
    assert_eq!(
        rig.machine.deregister(rig.now, &id),
        Err(UnknownTarget { id })
    );
}

#[test]
fn a_drained_target_is_gone_at_once() {
    let mut rig = Rig::new(Rules::default());
    let a = rig.add("a");
    rig.machine.drained(rig.now, a);
    assert_eq!(rig.effects(), [], "it does not drain yet");
    rig.machine.deregister(rig.now, &"a".into()).unwrap();
    rig.machine.drained(rig.now, a);
    assert_eq!(rig.effects().len(), 1);
    assert_eq!(rig.machine.next_deadline(), None, "its timer is gone too");
    let b = rig.add("b");
    assert_eq!((b.index(), b.birth()), (0, 1));
    rig.machine.drained(rig.now, a);
    rig.machine.probe(rig.now, a, ProbeResult::Failed);
    assert_eq!(rig.state(b).0, State::Unavailable, "the old slot is stale");
}

#[test]
fn the_end_of_draining_can_end_what_still_runs() {
    for delay in [Duration::ZERO, 10 * SECOND] {
        let mut rig = Rig::new(Rules {
            deregistration: Deregistration {
                delay,
                connection_termination: true,
            },
            ..Rules::default()
        });
        let slot = rig.add("a");
        rig.machine.deregister(rig.now, &"a".into()).unwrap();
        rig.pass(delay);
        let id = TargetId::from("a");
        assert_eq!(
            rig.effects(),
            [
                Effect::Terminate {
                    slot,
                    id: id.clone()
                },
                Effect::Removed { slot, id }
            ]
        );
    }
}

#[test]
fn a_name_that_drains_may_be_registered_anew() {
    let mut rig = Rig::new(Rules::default());
    let old = rig.add("a");
    let error = rig
        .machine
        .register(rig.now, Registration::new("a"))
        .unwrap_err();
    assert_eq!(error.to_string(), "id: a is registered already");
    rig.machine.deregister(rig.now, &"a".into()).unwrap();
    let new = rig.add("a");
    assert_ne!(old.index, new.index);
    assert_eq!(rig.machine.slot(&"a".into()), Some(new));
    assert_eq!(rig.state(old).0, State::Draining);
    rig.machine.drained(rig.now, old);
    assert_eq!(
        rig.machine.slot(&"a".into()),
        Some(new),
        "the name is the new one's"
    );
    assert_eq!(rig.served(), [new.index]);
}

#[test]
fn an_unhealthy_target_drains_before_it_is_cut_off() {
    let mut rig = Rig::new(Rules {
        health_check: Some(HealthCheck::default()),
        unhealthy: UnhealthyTargets {
            connection_termination: true,
            draining_interval: 60 * SECOND,
        },
        ..Rules::default()
    });
    let (a, b) = (rig.add("a"), rig.add("b"));
    rig.probe(a, ProbeResult::Good);
    rig.probe(b, ProbeResult::Good);
    rig.probes(a, ProbeResult::Timeout, 2);
    assert_eq!(
        rig.state(a),
        (State::UnhealthyDraining, Some(Reason::Timeout))
    );
    assert_eq!(rig.served(), [1]);
    rig.pass(59 * SECOND);
    assert_eq!(rig.effects(), []);
    rig.pass(SECOND);
    assert_eq!(rig.state(a), (State::Unhealthy, Some(Reason::Timeout)));
    assert_eq!(
        rig.effects(),
        [Effect::Terminate {
            slot: a,
            id: "a".into()
        }]
    );
    rig.probes(a, ProbeResult::Good, 5);
    rig.probes(a, ProbeResult::Timeout, 2);
    rig.probes(a, ProbeResult::Good, 5);
    rig.pass(600 * SECOND);
    assert_eq!(rig.state(a), (State::Healthy, None));
    assert_eq!(rig.effects(), [], "one that recovered is left alone");
    // Who never had traffic has nothing to finish.
    let c = rig.add("c");
    rig.probes(c, ProbeResult::Timeout, 2);
    assert_eq!(rig.state(c).0, State::Unhealthy);
}

#[test]
fn an_unhealthy_target_is_cut_off_at_once_without_an_interval() {
    let mut rig = Rig::new(Rules {
        health_check: Some(HealthCheck::default()),
        unhealthy: UnhealthyTargets {
            connection_termination: true,
            draining_interval: Duration::ZERO,
        },
        ..Rules::default()
    });
    let a = rig.add("a");
    rig.probe(a, ProbeResult::Good);
    rig.probes(a, ProbeResult::Timeout, 2);
    assert_eq!(rig.effects().len(), 1);
}

#[test]
fn weights_are_scaled_and_zero_gets_nothing() {
    let mut rig = Rig::new(Rules::default());
    rig.add_with(Registration {
        weight: 3,
        ..Registration::new("a")
    });
    rig.add_with(Registration {
        weight: 0,
        ..Registration::new("b")
    });
    assert_eq!(rig.members(), [(0, 300)]);
    let before = rig.machine.generation();
    rig.machine.set_weight(rig.now, &"b".into(), 2).unwrap();
    assert!(rig.machine.generation() > before);
    assert_eq!(rig.members(), [(0, 300), (1, 200)]);
    let error = rig.machine.set_weight(rig.now, &"b".into(), 65_536);
    assert_eq!(
        error.unwrap_err().to_string(),
        "weight: 65536 is more than 65535"
    );
    let error = rig.machine.set_weight(rig.now, &"c".into(), 1);
    assert_eq!(error.unwrap_err().to_string(), "no target is named c");
}

#[test]
fn a_suspended_target_is_unused_until_it_is_resumed() {
    let mut rig = Rig::checked();
    let (a, b) = (rig.add("a"), rig.add("b"));
    rig.probe(a, ProbeResult::Good);
    rig.probe(b, ProbeResult::Good);
    rig.due();
    let id = TargetId::from("a");
    rig.machine
        .suspend(rig.now, &id, Unused::InvalidState)
        .unwrap();
    assert_eq!(rig.state(a), (State::Unused, Some(Reason::InvalidState)));
    rig.probes(a, ProbeResult::Good, 9);
    rig.pass(30 * SECOND);
    assert_eq!(rig.due(), [1], "it is not checked");
    rig.probes(b, ProbeResult::Failed, 2);
    assert_eq!(
        rig.served(),
        [1],
        "and gets nothing even when the pool fails open"
    );
    rig.machine.resume(rig.now, &id).unwrap();
    assert_eq!(rig.state(a).0, State::Initial);
    assert_eq!(rig.due(), [0]);
    rig.machine.deregister(rig.now, &id).unwrap();
    assert!(rig.machine.resume(rig.now, &id).is_err());
    assert!(rig.machine.suspend(rig.now, &id, Unused::NotInUse).is_err());
}

#[test]
fn requests_stay_in_their_zone_when_they_may_not_leave_it() {
    let mut rig = Rig::new(Rules {
        health_check: Some(HealthCheck::default()),
        cross_zone: CrossZone::Off,
        ..Rules::default()
    });
    let slots = [
        rig.add_in("a", "x"),
        rig.add_in("b", "x"),
        rig.add_in("c", "y"),
    ];
    for slot in slots {
        rig.probe(slot, ProbeResult::Good);
    }
    let members = |pool: Pool| -> Vec<u32> {
        let tiers = pool.tiers.iter();
        tiers
            .flat_map(|tier| tier.members.iter().map(|member| member.slot.index))
            .collect()
    };
    assert_eq!(rig.machine.view().affinity, 100);
    assert_eq!(members(rig.pool(Some("x"))), [0, 1]);
    assert_eq!(members(rig.pool(Some("y"))), [2]);
    assert_eq!(members(rig.pool(None)), [0, 1, 2]);
    // A zone that is not available sends its requests elsewhere.
    rig.probes(slots[2], ProbeResult::Failed, 2);
    assert_eq!(members(rig.pool(Some("y"))), [0, 1]);
}

#[test]
fn whether_requests_leave_their_zone_is_said_on_two_levels() {
    for (group, balancer, zone_affinity, affinity) in [
        (CrossZone::On, CrossZone::Off, 0, 0),
        (CrossZone::Off, CrossZone::On, 0, 100),
        (CrossZone::UseLoadBalancer, CrossZone::On, 0, 0),
        (CrossZone::UseLoadBalancer, CrossZone::Off, 0, 100),
        (CrossZone::UseLoadBalancer, CrossZone::UseLoadBalancer, 0, 0),
        (CrossZone::On, CrossZone::On, 85, 85),
    ] {
        let mut rig = Rig::new(Rules {
            cross_zone: group,
            load_balancer_cross_zone: balancer,
            zone_affinity,
            ..Rules::default()
        });
        rig.add_in("a", "x");
        let view = rig.machine.view();
        assert_eq!(view.affinity, affinity);
        assert_eq!(view.pools.len(), if affinity > 0 { 2 } else { 1 });
    }
}

#[test]
fn a_shift_leads_traffic_away_from_a_zone_for_its_time() {
    let mut rig = Rig::new(Rules {
        cross_zone: CrossZone::Off,
        ..Rules::default()
    });
    let a = rig.add_in("a", "x");
    rig.add_in("b", "y");
    let until = rig.now + 60 * SECOND;
    rig.machine.shift_zone(rig.now, &"x".into(), until).unwrap();
    assert_eq!(rig.served(), [1]);
    assert!(rig.machine.health(a).unwrap().is_shifted);
    assert_eq!(
        rig.pool(Some("x")).zone,
        None,
        "its requests go to the other zones"
    );
    // While all are shifted away from, none is.
    rig.machine
        .shift_zone(rig.now, &"y".into(), Instant::NEVER)
        .unwrap();
    assert_eq!(rig.served(), [0, 1]);
    rig.pass(60 * SECOND);
    assert_eq!(rig.served(), [0], "the shift of x has ended");
    assert_eq!(rig.machine.next_deadline(), None);
    rig.machine.end_shift(rig.now, &"y".into()).unwrap();
    assert_eq!(rig.served(), [0, 1]);
    assert_eq!(
        rig.machine
            .shift_zone(rig.now, &"z".into(), Instant::NEVER)
            .unwrap_err()
            .to_string(),
        "no zone is named z"
    );
}

#[test]
fn requests_spill_over_to_the_next_priority() {
    let mut rig = Rig::checked();
    let high: Vec<Slot> = (0..10).map(|n| rig.add_at(&format!("h{n}"), 0)).collect();
    let low: Vec<Slot> = (0..10).map(|n| rig.add_at(&format!("l{n}"), 1)).collect();
    for slot in high.iter().chain(&low) {
        rig.probe(*slot, ProbeResult::Good);
    }
    assert_eq!(rig.loads(), [(0, 10_000, false)]);
    for slot in &high[..2] {
        rig.probes(*slot, ProbeResult::Failed, 2);
    }
    assert_eq!(rig.loads(), [(0, 10_000, false)], "80 % are enough");
    for slot in &high[2..5] {
        rig.probes(*slot, ProbeResult::Failed, 2);
    }
    assert_eq!(rig.loads(), [(0, 7_000, false), (1, 3_000, false)]);
    for slot in &high[5..] {
        rig.probes(*slot, ProbeResult::Failed, 2);
    }
    assert_eq!(rig.loads(), [(1, 10_000, false)]);
}

#[test]
fn when_all_priorities_are_too_few_loads_are_scaled_up_and_thresholds_count() {
    let mut rig = Rig::new(Rules {
        health_check: Some(HealthCheck::default()),
        fail_open: FailOpen {
            panic_threshold: 50,
            ..FailOpen::default()
        },
        ..Rules::default()
    });
    let high: Vec<Slot> = (0..10).map(|n| rig.add_at(&format!("h{n}"), 0)).collect();
    let low: Vec<Slot> = (0..10).map(|n| rig.add_at(&format!("l{n}"), 1)).collect();
    // 20 % of one and 40 % of the other: 28 and 56 of 100.
    for slot in high[..2].iter().chain(&low[..4]) {
        rig.probe(*slot, ProbeResult::Good);
    }
    assert_eq!(rig.loads(), [(0, 3_334, true), (1, 6_666, true)]);
    // 60 % here: together more than 100, and nobody panics.
    for slot in &low[4..6] {
        rig.probe(*slot, ProbeResult::Good);
    }
    assert_eq!(rig.loads(), [(0, 2_800, false), (1, 7_200, false)]);
    // Nobody anywhere: each target counts the same.
    for slot in high[..2].iter().chain(&low[..6]) {
        rig.probes(*slot, ProbeResult::Failed, 2);
    }
    assert_eq!(rig.loads(), [(0, 5_000, true), (1, 5_000, true)]);
    assert_eq!(rig.served().len(), 20);
}

#[test]
fn one_healthy_target_among_very_many_keeps_its_priority_alive() {
    let mut rig = Rig::checked();
    let first = rig.add_at("0", 0);
    for n in 1..20_000 {
        rig.add_at(&n.to_string(), 1);
    }
    let second = Slot { index: 1, birth: 0 };
    rig.probes(first, ProbeResult::Failed, 2);
    rig.probe(second, ProbeResult::Good);
    assert_eq!(rig.loads(), [(1, 10_000, false)]);
    assert_eq!(rig.served(), [1]);
}

fn outliers() -> Rules {
    Rules {
        outliers: Some(Outliers::default()),
        ..Rules::default()
    }
}

#[test]
fn a_run_of_failures_ejects_a_target_for_longer_each_time() {
    let mut rig = Rig::new(outliers());
    let a = rig.add("a");
    rig.add("b");
    assert_eq!(rig.machine.streak_threshold(Streak::Failures), Some(5));
    assert_eq!(rig.machine.streak_threshold(Streak::Gateway), None);
    assert!(!rig.machine.streak(rig.now, a, Streak::Failures, 4));
    assert!(!rig.machine.streak(rig.now, a, Streak::Gateway, 99));
    assert!(rig.machine.streak(rig.now, a, Streak::Failures, 5));
    assert!(!rig.machine.streak(rig.now, a, Streak::Failures, 5), "once");
    assert_eq!(rig.served(), [1]);
    assert_eq!(rig.state(a).0, State::Unavailable, "its state stays");
    rig.pass(30 * SECOND - Duration::from_nanos(1));
    assert_eq!(rig.served(), [1]);
    rig.pass(Duration::from_nanos(1));
    assert_eq!(rig.served(), [0, 1]);
    // Soon again: it lasts twice as long, and then three times.
    for times in [2, 3] {
        assert!(rig.machine.streak(rig.now, a, Streak::Failures, 5));
        let health = rig.machine.health(a).unwrap();
        assert_eq!(health.ejected_until, Some(rig.now + times * 30 * SECOND));
        rig.pass(times * 30 * SECOND);
    }
    // A quiet time, and the next is short again.
    rig.pass(600 * SECOND);
    assert!(rig.machine.streak(rig.now, a, Streak::Failures, 5));
    let health = rig.machine.health(a).unwrap();
    assert_eq!(health.ejected_until, Some(rig.now + 30 * SECOND));
}

#[test]
fn no_more_than_a_share_of_the_targets_is_ejected() {
    let mut rig = Rig::new(Rules {
        outliers: Some(Outliers {
            max_ejection_percent: 30,
            ..Outliers::default()
        }),
        ..Rules::default()
    });
    let slots: Vec<Slot> = (0..10).map(|n| rig.add(&n.to_string())).collect();
    let ejected: Vec<bool> = slots
        .iter()
        .map(|slot| rig.machine.streak(rig.now, *slot, Streak::Failures, 5))
        .collect();
    assert_eq!(ejected.iter().filter(|ejected| **ejected).count(), 3);
    assert_eq!(rig.machine.counts().ejected, 3);
    // Of nine that are left, only two may be.
    rig.machine.deregister(rig.now, &"9".into()).unwrap();
    assert_eq!(rig.machine.counts().ejected, 2);
}

#[test]
fn one_target_may_be_ejected_whatever_the_share_if_so_wished() {
    for always_eject_one in [true, false] {
        let mut rig = Rig::new(Rules {
            outliers: Some(Outliers {
                always_eject_one,
                ..Outliers::default()
            }),
            ..Rules::default()
        });
        let (a, b) = (rig.add("a"), rig.add("b"));
        assert_eq!(
            rig.machine.streak(rig.now, a, Streak::Failures, 5),
            always_eject_one
        );
        assert!(!rig.machine.streak(rig.now, b, Streak::Failures, 5));
    }
}

#[test]
fn a_low_success_rate_ejects() {
    let mut rig = Rig::new(outliers());
    let slots: Vec<Slot> = (0..6).map(|n| rig.add(&n.to_string())).collect();
    for slot in &slots[..5] {
        rig.finish(*slot, 99, 1);
    }
    rig.finish(slots[5], 60, 40);
    rig.pass(10 * SECOND - Duration::from_nanos(1));
    assert_eq!(rig.machine.counts().ejected, 0);
    rig.pass(Duration::from_nanos(1));
    let health = rig.machine.health(slots[5]).unwrap();
    assert_eq!(health.ejected_until, Some(rig.now + 30 * SECOND));
    assert_eq!(rig.machine.counts().ejected, 1);
    let note = rig.machine.notes().last().unwrap();
    assert!(matches!(
        note.change,
        Change::Ejected {
            cause: Cause::SuccessRate,
            ..
        }
    ));
}

#[test]
fn rates_of_too_few_requests_or_targets_are_not_compared() {
    let mut rig = Rig::new(outliers());
    let slots: Vec<Slot> = (0..6).map(|n| rig.add(&n.to_string())).collect();
    for slot in &slots[..5] {
        rig.finish(*slot, 100, 0);
    }
    rig.finish(slots[5], 0, 99);
    rig.pass(10 * SECOND);
    assert_eq!(rig.machine.counts().ejected, 0, "99 requests are too few");
    for slot in &slots[2..] {
        rig.finish(*slot, 100, 0);
    }
    rig.finish(slots[5], 0, 100);
    rig.pass(10 * SECOND);
    assert_eq!(rig.machine.counts().ejected, 0, "four targets are too few");
}

#[test]
fn a_high_share_of_failures_ejects() {
    let mut rig = Rig::new(Rules {
        outliers: Some(Outliers {
            success_rate: None,
            failure_percentage: Some(FailurePercentage::default()),
            max_ejection_percent: 100,
            ..Outliers::default()
        }),
        ..Rules::default()
    });
    let slots: Vec<Slot> = (0..5).map(|n| rig.add(&n.to_string())).collect();
    for (slot, failures) in slots.iter().zip([84, 85, 86, 0, 10]) {
        rig.finish(*slot, 100 - failures, failures);
    }
    rig.pass(10 * SECOND);
    assert_eq!(rig.served(), [0, 3, 4]);
}

#[test]
fn a_good_check_takes_an_ejected_target_back() {
    for uneject_on_check in [true, false] {
        let mut rig = Rig::new(Rules {
            health_check: Some(HealthCheck::default()),
            outliers: Some(Outliers {
                uneject_on_check,
                ..Outliers::default()
            }),
            ..Rules::default()
        });
        let (a, b) = (rig.add("a"), rig.add("b"));
        rig.probe(a, ProbeResult::Good);
        rig.probe(b, ProbeResult::Good);
        assert!(rig.machine.streak(rig.now, a, Streak::Failures, 5));
        rig.probe(a, ProbeResult::Good);
        assert_eq!(rig.served() == [0, 1], uneject_on_check);
    }
}

#[test]
fn anomalous_targets_get_less_while_mitigation_is_on() {
    for mitigation in [true, false] {
        let mut rig = Rig::new(Rules {
            anomaly: Some(Anomaly {
                mitigation,
                floor: 20,
                ..Anomaly::default()
            }),
            ..Rules::default()
        });
        let slots: Vec<Slot> = (0..3).map(|n| rig.add(&n.to_string())).collect();
        let mut shares = Vec::new();
        for round in 0..7 {
            rig.finish(slots[0], 100, 0);
            rig.finish(slots[1], 95, 5);
            rig.finish(slots[2], 80, if round < 4 { 20 } else { 0 });
            rig.pass(10 * SECOND);
            let counts = rig.machine.counts();
            assert_eq!(counts.anomalous, u32::from(round < 4));
            shares.push(rig.members()[2].1);
        }
        if mitigation {
            assert_eq!(shares, [50, 25, 20, 20, 40, 80, 100]);
        } else {
            assert_eq!(shares, [100; 7]);
        }
        assert_eq!(rig.machine.counts().mitigated, 0);
    }
}

#[test]
fn nobody_is_anomalous_where_all_fail_alike() {
    let mut rig = Rig::new(Rules {
        anomaly: Some(Anomaly::default()),
        ..Rules::default()
    });
    let slots: Vec<Slot> = (0..4).map(|n| rig.add(&n.to_string())).collect();
    for slot in slots {
        rig.finish(slot, 10, 90);
    }
    rig.pass(10 * SECOND);
    assert_eq!(rig.machine.counts().anomalous, 0);
}

#[test]
fn requests_may_stay_with_an_unfit_target_where_that_is_said() {
    let mut rig = Rig::new(Rules {
        health_check: Some(HealthCheck::default()),
        target_failover: TargetFailover {
            on_deregistration: Failover::NoRebalance,
            on_unhealthy: Failover::NoRebalance,
        },
        ..Rules::default()
    });
    let slots = [rig.add("a"), rig.add("b"), rig.add("c")];
    for slot in slots {
        rig.probe(slot, ProbeResult::Good);
    }
    rig.probes(slots[0], ProbeResult::Failed, 2);
    rig.machine.deregister(rig.now, &"b".into()).unwrap();
    assert_eq!(rig.machine.view().lingering, slots[..2]);
    assert_eq!(rig.served(), [2]);
    let mut plain = Rig::checked();
    plain.add("a");
    plain.machine.deregister(plain.now, &"a".into()).unwrap();
    assert_eq!(plain.machine.view().lingering, []);
}

#[test]
fn what_is_out_of_range_is_not_registered() {
    let mut rig = Rig::new(Rules {
        limits: Limits {
            targets: 2,
            zones: 1,
            ..Limits::default()
        },
        ..Rules::default()
    });
    rig.add_in("a", "x");
    let spec = Registration::new("b");
    for (spec, message) in [
        (Registration::new(""), "id: has 0 bytes, must have 1 to 256"),
        (
            Registration {
                weight: 65_536,
                ..spec.clone()
            },
            "weight: 65536 is more than 65535",
        ),
        (
            Registration {
                priority: 16,
                ..spec.clone()
            },
            "priority: 16 is more than 15",
        ),
        (
            Registration {
                zone: Some("y".into()),
                ..spec.clone()
            },
            "zone: y is new and 1 zones are known, the most allowed",
        ),
    ] {
        let error = rig.machine.register(rig.now, spec).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    rig.add_in("b", "x");
    let error = rig.machine.register(rig.now, Registration::new("c"));
    assert_eq!(
        error.unwrap_err().to_string(),
        "there are 2 targets, the most allowed"
    );
    assert_eq!(rig.machine.counts().targets, 2);
}

#[test]
fn rules_out_of_range_name_field_value_and_limits() {
    let check = HealthCheck::default();
    let checked = |check: HealthCheck| Rules {
        health_check: Some(check),
        limits: Limits::aws(),
        ..Rules::default()
    };
    let out = Outliers::default();
    let with = |outliers: Outliers| Rules {
        outliers: Some(outliers),
        ..Rules::default()
    };
    let cases = [
        (
            checked(HealthCheck {
                interval: 4 * SECOND,
                ..check.clone()
            }),
            "health_check.interval: 4s is not within 5s to 300s",
        ),
        (
            checked(HealthCheck {
                interval: 5 * SECOND,
                ..check.clone()
            }),
            "health_check.timeout: 6s is not within 2s to 5s",
        ),
        (
            checked(HealthCheck {
                healthy_threshold: 11,
                ..check.clone()
            }),
            "health_check.healthy_threshold: 11 is not within 2 to 10",
        ),
        (
            checked(HealthCheck {
                path: Some("no path".into()),
                ..check.clone()
            }),
            "health_check.path: \"no path\" must begin with '/', hold no spaces or control characters and have at most 1024 bytes",
        ),
        (
            checked(HealthCheck {
                matcher: Some("200-599".parse().unwrap()),
                ..check
            }),
            "health_check.matcher: 200-599 reaches beyond the codes 200 to 499",
        ),
        (
            checked(HealthCheck {
                matcher: Some("100".parse().unwrap()),
                ..HealthCheck::of(CheckProtocol::Grpc)
            }),
            "health_check.matcher: 100 reaches beyond the codes 0 to 99",
        ),
        (
            Rules {
                slow_start: SlowStart {
                    duration: SECOND,
                    steps: 20,
                },
                limits: Limits::aws(),
                ..Rules::default()
            },
            "slow_start.duration: 1s is not within 30s to 900s",
        ),
        (
            Rules {
                slow_start: SlowStart {
                    steps: 0,
                    ..SlowStart::default()
                },
                ..Rules::default()
            },
            "slow_start.steps: 0 is not within 1 to 100",
        ),
        (
            with(Outliers {
                max_ejection_percent: 101,
                ..out
            }),
            "outliers.max_ejection_percent: 101 is not within 0 to 100",
        ),
        (
            with(Outliers {
                max_ejection_time: SECOND,
                ..out
            }),
            "outliers.max_ejection_time: 1s is not within 30s to 86400s",
        ),
        (
            with(Outliers {
                consecutive_failures: Some(0),
                ..out
            }),
            "outliers.consecutive_failures: 0 is not within 1 to 4294967295",
        ),
    ];
    for (rules, message) in cases {
        let error = Machine::new(rules, Random::new(0), Instant::ORIGIN).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    for protocol in [
        CheckProtocol::Http,
        CheckProtocol::Grpc,
        CheckProtocol::Custom,
    ] {
        assert_eq!(checked(HealthCheck::of(protocol)).check(), Ok(()));
    }
}

#[test]
fn the_latest_events_are_kept() {
    let mut rig = Rig::new(Rules {
        limits: Limits {
            history: 3,
            ..Limits::default()
        },
        ..Rules::default()
    });
    for n in 0..5 {
        rig.add(&n.to_string());
    }
    let names: Vec<_> = rig
        .machine
        .notes()
        .map(|note| note.target.clone().unwrap())
        .collect();
    assert_eq!(names, ["2", "3", "4"].map(TargetId::from));
}

#[test]
fn a_long_pause_is_caught_up_at_once() {
    let mut rig = Rig::new(Rules {
        health_check: Some(HealthCheck::default()),
        anomaly: Some(Anomaly::default()),
        ..outliers()
    });
    rig.add("a");
    let mut asked = 0;
    let year = Instant::ORIGIN + 365 * 86_400 * SECOND;
    rig.machine.advance(year, |_| {
        asked += 1;
        Tally::default()
    });
    assert!(asked <= 2, "asked {asked} times");
    assert!(rig.machine.next_deadline().is_some_and(|at| at > year));
}

#[test]
fn time_does_not_run_backwards() {
    let mut rig = Rig::new(Rules::default());
    rig.machine
        .advance(Instant::ORIGIN + 1_000 * SECOND, |_| Tally::default());
    rig.add("a");
    rig.machine
        .deregister(Instant::ORIGIN, &"a".into())
        .unwrap();
    let end = Instant::ORIGIN + 1_300 * SECOND;
    assert_eq!(rig.machine.next_deadline(), Some(end));
}

#[test]
fn targets_that_come_and_go_unchecked_leave_nothing_behind() {
    let mut rig = Rig::checked();
    let stays = rig.add("stays");
    for n in 0..10_000 {
        let id = format!("t{n}");
        let slot = rig.add(&id);
        rig.machine
            .deregister(rig.now, &id.as_str().into())
            .unwrap();
        rig.machine.drained(rig.now, slot);
    }
    assert!(rig.machine.due.len() < 100, "{}", rig.machine.due.len());
    assert_eq!(rig.machine.take_due_check(), Some(stays));
    assert_eq!(rig.machine.take_due_check(), None);
}

#[test]
fn a_time_that_never_comes_is_no_time() {
    let mut rig = Rig::new(Rules {
        outliers: Some(Outliers::default()),
        anomaly: Some(Anomaly::default()),
        ..Rules::default()
    });
    let next = rig.machine.next_deadline();
    rig.machine.advance(Instant::NEVER, |_| Tally::default());
    assert_eq!(rig.machine.next_deadline(), next);
    // The last time that there is has no beat after it.
    let last = Instant::from_nanos(u64::MAX - 1);
    rig.machine.advance(last, |_| Tally::default());
    assert_eq!(rig.machine.next_deadline(), None);
}
