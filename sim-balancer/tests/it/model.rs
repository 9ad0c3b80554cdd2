//! The handle against the pure machine: the same history, the same targets, the same counts.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use sim_balancer::machine::{
    Anomaly, Deregistration, Effect, HealthCheck, Machine, Outliers, Registration, Slot, SlowStart,
    State, Streak, Tally,
};
use sim_balancer::{
    Algorithm, Balancer, BalancerConfig, Choices, Lease, LeastOutstanding, Outcome, PeakEwma,
    PickError, ProbeResult, Rules, Target, TargetId,
};
use sim_core::clock::{Clock, VirtualClock};
use sim_core::random::Random;
use sim_core::time::{Instant, Timestamp};

use crate::rig::id;

/// How many requests a target may have in hand.
const LIMIT: u32 = 3;
/// Failures in a row that eject a target.
const ROW: u32 = 2;

#[derive(Debug, Clone)]
enum Step {
    Register { name: u32, weight: u32 },
    Deregister { name: u32 },
    Weigh { name: u32, weight: u32 },
    Pick,
    End { which: usize, outcome: Outcome },
    Probe { name: u32, result: ProbeResult },
    Advance { millis: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0_u32..5;
    let outcome = prop_oneof![
        4 => Just(Outcome::Success),
        3 => Just(Outcome::Failure),
        2 => Just(Outcome::Unreachable),
        1 => Just(Outcome::Overloaded { retry_after: None }),
        2 => Just(Outcome::Cancelled),
    ];
    let result = prop_oneof![
        2 => Just(ProbeResult::Good),
        1 => Just(ProbeResult::Timeout),
    ];
    prop_oneof![
        3 => (name.clone(), 0_u32..4).prop_map(|(name, weight)| Step::Register { name, weight }),
        2 => name.clone().prop_map(|name| Step::Deregister { name }),
        1 => (name.clone(), 0_u32..4).prop_map(|(name, weight)| Step::Weigh { name, weight }),
        12 => Just(Step::Pick),
        10 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Step::End { which, outcome }),
        3 => (name, result).prop_map(|(name, result)| Step::Probe { name, result }),
        3 => (1_u64..8_000).prop_map(|millis| Step::Advance { millis }),
    ]
}

fn rules() -> Rules {
    Rules {
        health_check: Some(HealthCheck::default()),
        slow_start: SlowStart {
            duration: Duration::from_secs(30),
            ..Default::default()
        },
        deregistration: Deregistration {
            delay: Duration::from_secs(20),
            ..Default::default()
        },
        outliers: Some(Outliers {
            consecutive_failures: Some(ROW),
            max_ejection_percent: 50,
            interval: Duration::from_secs(5),
            ..Default::default()
        }),
        anomaly: Some(Anomaly::default()),
        ..Default::default()
    }
}

/// What is expected of a target.
#[derive(Debug, Clone, Default)]
struct Expected {
    outstanding: u32,
    finished: u64,
    failed: u64,
    row: u32,
    is_leaving: bool,
}

struct Pair {
    balancer: Balancer<Slot>,
    time: VirtualClock,
    machine: Machine,
    targets: BTreeMap<Slot, Expected>,
    leases: Vec<Lease<Slot>>,
}

impl Pair {
    fn new(algorithm: Algorithm) -> Self {
        let (clock, time) = Clock::virtual_at(Timestamp::UNIX_EPOCH);
        let seed = 5;
        let random = Random::new(seed).fork("machine");
        let machine = Machine::new(rules(), random, clock.now()).expect("good rules");
        let config = BalancerConfig {
            algorithm,
            rules: rules(),
            max_outstanding: Some(LIMIT),
            seed,
            ..Default::default()
        };
        Self {
            balancer: Balancer::with_clock(config, clock).expect("a good configuration"),
            time,
            machine,
            targets: BTreeMap::new(),
            leases: Vec::new(),
        }
    }

    fn now(&self) -> Instant {
        self.balancer.clock().now()
    }

    fn step(&mut self, step: Step) {
        let now = self.now();
        match step {
            Step::Register { name, weight } => self.register(now, id(name), weight),
            Step::Deregister { name } => {
                let expected = self.machine.deregister(now, &id(name));
                let found = self.balancer.deregister(&id(name));
                assert_eq!(found.is_ok(), expected.is_ok());
                if let Ok(slot) = expected {
                    self.target(slot).is_leaving = true;
                    self.drain(now, slot);
                }
            }
            Step::Weigh { name, weight } => {
                let expected = self.machine.set_weight(now, &id(name), weight);
                assert_eq!(self.balancer.set_weight(&id(name), weight), expected);
            }
            Step::Pick => self.pick(),
            Step::End { which, outcome } => {
                if !self.leases.is_empty() {
                    let lease = self.leases.swap_remove(which % self.leases.len());
                    self.end(now, lease, outcome);
                }
            }
            Step::Probe { name, result } => {
                let slot = self.machine.slot(&id(name));
                let found = self.balancer.report(&id(name), result);
                assert_eq!(found.is_ok(), slot.is_some());
                if let Some(slot) = slot {
                    self.machine.probe(now, slot, result);
                }
            }
            Step::Advance { millis } => {
                self.time.advance(Duration::from_millis(millis));
                let now = self.now();
                let targets = &self.targets;
                self.machine.advance(now, |slot| {
                    targets
                        .get(&slot)
                        .map_or_else(Tally::default, |target| Tally {
                            successes: target.finished - target.failed,
                            failures: target.failed,
                        })
                });
                self.balancer.advance(now);
            }
        }
        while let Some(effect) = self.machine.take_effect() {
            if let Effect::Returned { slot, .. } = effect {
                self.target(slot).row = 0;
            }
        }
        self.compare();
    }

    fn target(&mut self, slot: Slot) -> &mut Expected {
        self.targets.entry(slot).or_default()
    }

    fn register(&mut self, now: Instant, id: TargetId, weight: u32) {
        let mut registration = Registration::new(id.clone());
        registration.weight = weight;
        let expected = self.machine.register(now, registration);
        // What the target is, is where it stands: so a lease says which one it is of.
        let value = expected.as_ref().copied().ok();
        let value = value.unwrap_or_else(|| self.machine.slot(&id).expect("it is there"));
        let found = self
            .balancer
            .register(Target::new(id, value).weight(weight));
        assert_eq!(found.is_ok(), expected.is_ok());
        if let Ok(slot) = expected {
            self.targets.insert(slot, Expected::default());
        }
    }

    fn pick(&mut self) {
        let members: Vec<Slot> = self.machine.view().pools[0]
            .tiers
            .iter()
            .flat_map(|tier| tier.members.iter().map(|member| member.slot))
            .collect();
        let has_room = |slot: &Slot| self.targets[slot].outstanding < LIMIT;
        match self.balancer.try_pick() {
            Ok(lease) => {
                let slot = *lease;
                assert!(members.contains(&slot), "{slot:?} of {members:?}");
                assert!(has_room(&slot));
                self.leases.push(lease);
                self.target(slot).outstanding += 1;
            }
            Err(PickError::Saturated) => assert!(!members.iter().any(has_room)),
            Err(PickError::NoneEligible | PickError::Empty) => assert!(members.is_empty()),
            Err(error) => panic!("{error}"),
        }
    }

    fn end(&mut self, now: Instant, lease: Lease<Slot>, outcome: Outcome) {
        let slot = *lease;
        lease.complete(outcome);
        let target = self.target(slot);
        target.outstanding -= 1;
        if outcome != Outcome::Cancelled {
            target.finished += 1;
        }
        match outcome {
            Outcome::Success => target.row = 0,
            Outcome::Overloaded { .. } => target.failed += 1,
            Outcome::Failure | Outcome::Unreachable => {
                target.failed += 1;
                target.row += 1;
                let row = target.row;
                if row.is_multiple_of(ROW) {
                    self.machine.streak(now, slot, Streak::Failures, row);
                }
            }
            _ => {}
        }
        self.drain(now, slot);
    }

    fn drain(&mut self, now: Instant, slot: Slot) {
        let target = self.target(slot);
        if target.is_leaving && target.outstanding == 0 {
            self.machine.drained(now, slot);
        }
    }

    fn compare(&mut self) {
        let eligible: usize = self.machine.view().pools[0]
            .tiers
            .iter()
            .map(|tier| tier.members.len())
            .sum();
        let stats = self.balancer.stats();
        assert_eq!(stats.eligible, eligible as u64);
        assert_eq!(stats.targets, self.machine.counts());
        let outstanding: u32 = self.targets.values().map(|target| target.outstanding).sum();
        let finished: u64 = self.targets.values().map(|target| target.finished).sum();
        let failed: u64 = self.targets.values().map(|target| target.failed).sum();
        assert_eq!(
            (stats.outstanding, stats.finished, stats.failed),
            (u64::from(outstanding), finished, failed)
        );
        assert_eq!(self.balancer.next_deadline(), self.machine.next_deadline());
        let found = self.balancer.targets();
        let listed: Vec<_> = self.machine.targets().collect();
        assert_eq!(found.len(), listed.len());
        for (found, listed) in found.iter().zip(listed) {
            assert_eq!((&found.id, found.weight), (listed.id, listed.weight));
            assert_eq!(found.health, listed.health);
            let target = &self.targets[&listed.slot];
            assert_eq!(found.outstanding, target.outstanding);
            assert_eq!(found.finished, target.finished);
            assert!(found.health.state == State::Draining || !target.is_leaving);
        }
    }
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    prop_oneof![
        Just(Algorithm::RoundRobin),
        Just(Algorithm::SmoothWeighted),
        Just(Algorithm::Random),
        Just(Algorithm::WeightedRandom),
        Just(Algorithm::LeastOutstanding(LeastOutstanding {
            choices: Choices::Sample(2)
        })),
        Just(Algorithm::PeakEwma(PeakEwma::default())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..Default::default() })]

    #[test]
    fn the_handle_does_what_the_machine_allows(
        algorithm in algorithm(),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut pair = Pair::new(algorithm);
        for step in steps {
            pair.step(step);
        }
        let now = pair.now();
        while let Some(lease) = pair.leases.pop() {
            pair.end(now, lease, Outcome::Success);
        }
        while pair.machine.take_effect().is_some() {}
        pair.compare();
        prop_assert_eq!(pair.balancer.stats().outstanding, 0);
    }
}
