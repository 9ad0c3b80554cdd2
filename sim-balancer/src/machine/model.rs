//! Random histories: what holds whatever happens.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Register {
        id: u8,
        weight: u32,
        zone: u8,
        priority: u32,
    },
    Deregister {
        id: u8,
    },
    Drained {
        id: u8,
    },
    Weigh {
        id: u8,
        weight: u32,
    },
    Suspend {
        id: u8,
    },
    Resume {
        id: u8,
    },
    Probe {
        id: u8,
        result: ProbeResult,
    },
    Fail {
        id: u8,
    },
    Finish {
        id: u8,
        successes: u64,
        failures: u64,
    },
    Shift {
        zone: u8,
        seconds: u64,
    },
    EndShift {
        zone: u8,
    },
    TakeDue,
    Pass {
        millis: u64,
    },
    Pause {
        seconds: u64,
    },
}

const IDS: u8 = 8;
const ZONES: u8 = 3;

fn step() -> impl Strategy<Value = Step> {
    let id = 0..IDS;
    let result = prop_oneof![
        4 => Just(ProbeResult::Good),
        2 => Just(ProbeResult::Failed),
        1 => Just(ProbeResult::Timeout),
        1 => Just(ProbeResult::Internal),
    ];
    prop_oneof![
        6 => (id.clone(), 0..3_u32, 0..=ZONES, 0..3_u32).prop_map(|(id, weight, zone, priority)| {
            Step::Register { id, weight, zone, priority }
        }),
        2 => id.clone().prop_map(|id| Step::Deregister { id }),
        1 => id.clone().prop_map(|id| Step::Drained { id }),
        1 => (id.clone(), 0..3_u32).prop_map(|(id, weight)| Step::Weigh { id, weight }),
        1 => id.clone().prop_map(|id| Step::Suspend { id }),
        1 => id.clone().prop_map(|id| Step::Resume { id }),
        8 => (id.clone(), result).prop_map(|(id, result)| Step::Probe { id, result }),
        4 => id.clone().prop_map(|id| Step::Fail { id }),
        4 => (id, 0..300_u64, 0..300_u64).prop_map(|(id, successes, failures)| {
            Step::Finish { id, successes, failures }
        }),
        1 => (0..ZONES, 0..60_u64).prop_map(|(zone, seconds)| Step::Shift { zone, seconds }),
        1 => (0..ZONES).prop_map(|zone| Step::EndShift { zone }),
        2 => Just(Step::TakeDue),
        6 => (0..20_000_u64).prop_map(|millis| Step::Pass { millis }),
        1 => (0..2_000_u64).prop_map(|seconds| Step::Pause { seconds }),
    ]
}

fn rules() -> impl Strategy<Value = Rules> {
    let percent = prop_oneof![Just(0_u32), Just(10), Just(50), Just(100)];
    (
        any::<[bool; 8]>(),
        1..4_u32,
        percent.clone(),
        percent,
        0..40_u64,
    )
        .prop_map(|(flags, count, percentage, most, delay)| {
            let [
                checked,
                slow,
                cuts,
                outlying,
                one,
                anomalous,
                zoned,
                lingers,
            ] = flags;
            Rules {
                health_check: checked.then(HealthCheck::default),
                slow_start: SlowStart {
                    duration: Duration::from_secs(if slow { 30 } else { 0 }),
                    steps: 7,
                },
                deregistration: Deregistration {
                    delay: Duration::from_secs(delay),
                    connection_termination: cuts,
                },
                unhealthy: UnhealthyTargets {
                    connection_termination: cuts,
                    draining_interval: Duration::from_secs(delay / 2),
                },
                fail_open: FailOpen {
                    minimum_healthy_count: count,
                    minimum_healthy_percentage: percentage,
                    panic_threshold: percentage / 2,
                },
                cross_zone: if zoned { CrossZone::Off } else { CrossZone::On },
                outliers: outlying.then(|| Outliers {
                    max_ejection_percent: most,
                    always_eject_one: one,
                    failure_percentage: Some(FailurePercentage {
                        minimum_hosts: 2,
                        ..FailurePercentage::default()
                    }),
                    success_rate: Some(SuccessRate {
                        minimum_hosts: 3,
                        stdev_factor: 1_000,
                        ..SuccessRate::default()
                    }),
                    ejection_jitter: Duration::from_secs(3),
                    ..Outliers::default()
                }),
                anomaly: anomalous.then(|| Anomaly {
                    mitigation: true,
                    ..Anomaly::default()
                }),
                target_failover: TargetFailover {
                    on_deregistration: if lingers {
                        Failover::NoRebalance
                    } else {
                        Failover::Rebalance
                    },
                    on_unhealthy: Failover::Rebalance,
                },
                limits: Limits {
                    targets: u32::from(IDS) + 2,
                    ..Limits::default()
                },
                ..Rules::default()
            }
        })
}

/// Durations from nothing to for ever, and mostly sensible ones.
fn extreme() -> impl Strategy<Value = Duration> {
    prop_oneof![
        12 => (1..100_u64).prop_map(Duration::from_secs),
        1 => Just(Duration::ZERO),
        1 => Just(Duration::MAX),
        1 => Just(Duration::from_nanos(1)),
        1 => any::<u64>().prop_map(Duration::from_millis),
    ]
}

fn count() -> impl Strategy<Value = u32> {
    prop_oneof![20 => 1..100_u32, 1 => Just(0), 1 => Just(u32::MAX)]
}

fn extreme_rules() -> impl Strategy<Value = Rules> {
    let times = prop::array::uniform12(extreme());
    (
        rules(),
        times,
        prop::array::uniform12(count()),
        any::<[bool; 3]>(),
    )
        .prop_map(|(rules, times, counts, [is_wide, has_check, is_slow])| {
            let limits = Limits {
                slow_start: (Duration::from_millis(1), times[0]),
                interval: (
                    Duration::from_millis(1),
                    times[1].max(Duration::from_secs(60)),
                ),
                deregistration_delay: times[2],
                draining_interval: times[3],
                ..rules.limits
            };
            let check = HealthCheck {
                interval: times[4],
                timeout: times[5].min(times[4]),
                healthy_threshold: counts[0],
                unhealthy_threshold: counts[1],
                jitter: counts[2],
                ..HealthCheck::default()
            };
            Rules {
                limits: if is_wide { limits } else { rules.limits },
                health_check: has_check.then_some(check),
                slow_start: SlowStart {
                    duration: if is_slow { times[6] } else { Duration::ZERO },
                    steps: counts[3],
                },
                deregistration: Deregistration {
                    delay: times[7],
                    connection_termination: true,
                },
                unhealthy: UnhealthyTargets {
                    connection_termination: true,
                    draining_interval: times[8],
                },
                fail_open: FailOpen {
                    minimum_healthy_count: 1,
                    minimum_healthy_percentage: counts[4],
                    panic_threshold: counts[5],
                },
                outliers: rules.outliers.map(|outliers| Outliers {
                    base_ejection_time: times[9],
                    max_ejection_time: times[9].max(times[10]),
                    ejection_jitter: times[11],
                    max_ejection_percent: counts[6],
                    ..outliers
                }),
                anomaly: rules.anomaly.map(|anomaly| Anomaly {
                    floor: counts[7],
                    margin: counts[8],
                    ..anomaly
                }),
                ..rules
            }
        })
}

/// The machine and a plain account of what it was told.
struct Model {
    machine: Machine,
    now: Instant,
    /// What each slot has finished.
    tallies: BTreeMap<Slot, Tally>,
    /// Slots that were registered and not yet reported as removed.
    there: BTreeSet<Slot>,
}

impl Model {
    fn new(rules: Rules) -> Self {
        let now = Instant::ORIGIN;
        Self {
            machine: Machine::new(rules, Random::new(7), now).unwrap(),
            now,
            tallies: BTreeMap::new(),
            there: BTreeSet::new(),
        }
    }

    fn advance(&mut self, now: Instant) {
        self.now = now;
        let tallies = &self.tallies;
        self.machine
            .advance(now, |slot| tallies.get(&slot).copied().unwrap_or_default());
    }

    fn slot(&self, id: u8) -> Option<Slot> {
        self.machine.slot(&name(id))
    }

    fn apply(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Register {
                id,
                weight,
                zone,
                priority,
            } => {
                let zone = (zone < ZONES).then(|| zone_name(zone));
                let spec = Registration {
                    id: name(id),
                    weight,
                    zone,
                    priority,
                };
                if let Ok(slot) = self.machine.register(now, spec) {
                    assert!(self.there.insert(slot), "{slot:?} is given twice");
                }
            }
            Step::Deregister { id } => {
                let _ = self.machine.deregister(now, &name(id));
            }
            Step::Drained { id } => {
                if let Some(slot) = self.slot(id) {
                    self.machine.drained(now, slot);
                }
            }
            Step::Weigh { id, weight } => {
                let _ = self.machine.set_weight(now, &name(id), weight);
            }
            Step::Suspend { id } => {
                let _ = self.machine.suspend(now, &name(id), Unused::NotInUse);
            }
            Step::Resume { id } => {
                let _ = self.machine.resume(now, &name(id));
            }
            Step::Probe { id, result } => {
                if let Some(slot) = self.slot(id) {
                    self.machine.probe(now, slot, result);
                }
            }
            Step::Fail { id } => {
                if let Some(slot) = self.slot(id) {
                    self.machine.streak(now, slot, Streak::Failures, 5);
                }
            }
            Step::Finish {
                id,
                successes,
                failures,
            } => {
                if let Some(slot) = self.slot(id) {
                    let tally = self.tallies.entry(slot).or_default();
                    tally.successes += successes;
                    tally.failures += failures;
                }
            }
            Step::Shift { zone, seconds } => {
                let until = now + Duration::from_secs(seconds);
                let _ = self.machine.shift_zone(now, &zone_name(zone), until);
            }
            Step::EndShift { zone } => {
                let _ = self.machine.end_shift(now, &zone_name(zone));
            }
            Step::TakeDue => while self.machine.take_due_check().is_some() {},
            Step::Pass { millis } => {
                let end = now + Duration::from_millis(millis);
                let before = self.ramps();
                while let Some(at) = self.machine.next_deadline().filter(|at| *at <= end) {
                    assert!(at > self.now, "a deadline lies in the past");
                    self.advance(at);
                    self.check();
                }
                self.advance(end);
                self.shares_have_grown(&before);
            }
            Step::Pause { seconds } => self.advance(now + Duration::from_secs(seconds)),
        }
        while let Some(effect) = self.machine.take_effect() {
            if let Effect::Removed { slot, .. } = effect {
                assert!(self.there.remove(&slot), "{slot:?} was not there");
            }
        }
    }

    /// Effective weights of targets that start slowly, and the weights that they were registered with.
    fn ramps(&mut self) -> BTreeMap<Slot, (u32, u32)> {
        let slow: BTreeMap<Slot, u32> = self
            .machine
            .targets()
            .filter(|one| one.health.slow_start_until.is_some() && !one.health.is_mitigated)
            .map(|one| (one.slot, one.weight))
            .collect();
        let pools = &self.machine.view().pools;
        let members = pools[0].tiers.iter().flat_map(|tier| &tier.members);
        members
            .filter_map(|member| Some((member.slot, (member.weight, *slow.get(&member.slot)?))))
            .collect()
    }

    fn shares_have_grown(&mut self, before: &BTreeMap<Slot, (u32, u32)>) {
        let after = self.ramps();
        for (slot, (weight, registered)) in before {
            if let Some((now, of)) = after.get(slot)
                && of == registered
            {
                assert!(now >= weight, "{slot:?} fell from {weight} to {now}");
            }
        }
    }

    fn check(&mut self) {
        let now = self.now;
        let next = self.machine.next_deadline();
        assert!(
            next.is_none_or(|at| at > now),
            "{next:?} is not after {now:?}"
        );

        let slots: BTreeSet<Slot> = self.machine.targets().map(|one| one.slot).collect();
        let gone: Vec<Slot> = self.there.difference(&slots).copied().collect();
        let waits: u32 = gone.len() as u32;
        assert!(slots.is_subset(&self.there));
        assert_eq!(
            self.machine.counts().targets + waits,
            self.there.len() as u32
        );

        let mut ejected = 0;
        let mut live = 0;
        let mut could_serve = false;
        let mut barred = BTreeSet::new();
        for one in self.machine.targets() {
            let is_out = matches!(one.health.state, State::Draining | State::Unused);
            if is_out || one.weight == 0 {
                barred.insert(one.slot);
            } else {
                could_serve = true;
            }
            live += u32::from(!is_out);
            ejected += u32::from(one.health.ejected_until.is_some());
            assert!(!(is_out && one.health.ejected_until.is_some()));
        }
        assert_eq!(ejected, self.machine.ejected);
        if let Some(outliers) = &self.machine.rules().outliers {
            let most = (live * outliers.max_ejection_percent / 100)
                .max(u32::from(outliers.always_eject_one));
            assert!(ejected <= most, "{ejected} of {live} are ejected");
        }

        let view = self.machine.view().clone();
        assert_eq!(view.generation, self.machine.generation());
        assert_eq!(view.pools[0].zone, None);
        assert_eq!(view.pools[0].tiers.is_empty(), !could_serve, "{view:?}");
        for pool in &view.pools {
            assert!(pool.healthy <= pool.registered);
            let load: u32 = pool.tiers.iter().map(|tier| tier.load).sum();
            assert!(pool.tiers.is_empty() || load == FULL_LOAD, "{pool:?}");
            for tier in &pool.tiers {
                assert!(tier.load > 0 && !tier.members.is_empty());
                assert!(
                    tier.members
                        .is_sorted_by(|a, b| a.slot.index < b.slot.index)
                );
                for member in &tier.members {
                    assert!(member.weight > 0 && !barred.contains(&member.slot));
                    assert!(pool.zone.is_none() || pool.zone == member.zone);
                    let health = self.machine.health(member.slot).unwrap();
                    let is_fit = matches!(health.state, State::Healthy | State::Unavailable)
                        && health.ejected_until.is_none();
                    assert!(is_fit || tier.failed_open);
                }
            }
        }
    }
}

fn name(id: u8) -> TargetId {
    TargetId::new(format!("t{id}"))
}

fn zone_name(zone: u8) -> Zone {
    Zone::new(format!("z{zone}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_invariants_hold(
        rules in rules(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut model = Model::new(rules);
        for step in steps {
            model.apply(step);
            model.check();
        }
        // In the end everybody leaves, and nothing is left but what recurs.
        for id in 0..IDS {
            model.apply(Step::Deregister { id });
        }
        model.apply(Step::Pause { seconds: 1_000 });
        model.check();
        prop_assert_eq!(model.machine.counts().targets, 0);
        prop_assert!(model.there.is_empty());
    }

    #[test]
    fn whatever_rules_are_accepted_nothing_overflows(
        rules in extreme_rules(),
        steps in prop::collection::vec(step(), 1..30),
    ) {
        // What is refused is refused with a message; what is accepted works to the end of time.
        if let Err(error) = rules.check() {
            prop_assert!(!error.to_string().is_empty());
            return Ok(());
        }
        let mut model = Model::new(rules);
        for step in steps {
            // Not deadline by deadline: there may be billions.
            let step = match step {
                Step::Pass { millis } => Step::Pause { seconds: millis / 1_000 },
                other => other,
            };
            model.apply(step);
            model.check();
        }
        for id in 0..IDS {
            model.apply(Step::Deregister { id });
        }
        let _ = (model.machine.counts(), model.machine.view());
    }

    #[test]
    fn the_same_history_gives_the_same_views(
        rules in rules(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let run = || {
            let mut model = Model::new(rules.clone());
            let mut views = Vec::new();
            for step in &steps {
                model.apply(step.clone());
                views.push(model.machine.view().clone());
            }
            (views, model.machine.notes().cloned().collect::<Vec<_>>())
        };
        prop_assert_eq!(run(), run());
    }
}
