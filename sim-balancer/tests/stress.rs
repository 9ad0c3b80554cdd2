//! Threads that pick while targets come and go: no pick fails while a target is eligible, no lease is lost, nothing stays
//! outstanding, and every target is dropped once.

#![cfg(not(loom))]

use sim_balancer::{
    Algorithm, Balancer, BalancerConfig, Choices, LeastOutstanding, Outcome, PeakEwma, Request,
    Target, TargetId,
};
use sim_core::random::Random;
use sim_core::sync::atomic::{AtomicU64, Ordering};
use sim_core::sync::{Arc, thread};
use sim_core::time::Instant;

const PICKERS: u64 = 3;
const PICKS: u64 = 20_000;
/// Targets that stay.
const STAY: u64 = 2;
/// Targets that come and go.
const CHANGE: u64 = 6;

/// Counts how many of it were made and dropped.
struct Counted(Arc<AtomicU64>);

impl Counted {
    fn new(alive: &Arc<AtomicU64>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(alive))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        assert_ne!(self.0.fetch_sub(1, Ordering::SeqCst), 0, "dropped twice");
    }
}

fn id(n: u64) -> TargetId {
    TargetId::from(format!("t{n}"))
}

fn balancer(algorithm: Algorithm, limit: Option<u32>) -> Balancer<Counted> {
    Balancer::new(BalancerConfig {
        algorithm,
        max_outstanding: limit,
        ..Default::default()
    })
    .expect("a good configuration")
}

/// Registers and deregisters targets until the pickers are through; how often.
fn churn(balancer: &Balancer<Counted>, alive: &Arc<AtomicU64>, running: &AtomicU64) -> u64 {
    let mut random = Random::new(9);
    let mut changes = 0;
    while running.load(Ordering::SeqCst) > 0 {
        let name = id(STAY + random.below(CHANGE));
        if random.chance(0.5) {
            let weight = 1 + random.below(5) as u32;
            // It may be there already.
            let _ = balancer.register(Target::new(name, Counted::new(alive)).weight(weight));
        } else {
            let _ = balancer.deregister(&name);
        }
        changes += 1;
        thread::yield_now();
    }
    changes
}

fn outcome(random: &mut Random) -> Outcome {
    match random.below(4) {
        0 => Outcome::Failure,
        1 => Outcome::Cancelled,
        _ => Outcome::Success,
    }
}

/// Runs the pickers and the one who changes targets; returns the balancer when they are through.
fn run(
    balancer: &Balancer<Counted>,
    alive: &Arc<AtomicU64>,
    pick: impl Fn(&Balancer<Counted>, &mut Random) -> u64 + Send + Sync,
) -> u64 {
    for n in 0..STAY {
        balancer
            .register(Target::new(id(n), Counted::new(alive)))
            .expect("the name is free");
    }
    let running = AtomicU64::new(PICKERS);
    let (pick, running) = (&pick, &running);
    thread::scope(|scope| {
        let pickers: Vec<_> = (0..PICKERS)
            .map(|seed| {
                scope.spawn(move || {
                    let mut random = Random::new(seed);
                    let finished = (0..PICKS).map(|_| pick(balancer, &mut random)).sum::<u64>();
                    running.fetch_sub(1, Ordering::SeqCst);
                    finished
                })
            })
            .collect();
        let changes = churn(balancer, alive, running);
        assert!(changes > 0);
        pickers
            .into_iter()
            .map(|picker| picker.join().expect("no pick fails"))
            .sum()
    })
}

fn check(balancer: Balancer<Counted>, alive: &Arc<AtomicU64>, finished: u64) {
    let stats = balancer.stats();
    assert_eq!(stats.outstanding, 0);
    assert_eq!(stats.finished, finished);
    assert_eq!(stats.finished + stats.cancelled, PICKERS * PICKS);
    // Nobody drains any more: what was to leave has left.
    assert_eq!(stats.targets.draining, 0);
    assert_eq!(
        alive.load(Ordering::SeqCst),
        u64::from(stats.targets.targets),
        "a target that is gone is dropped"
    );
    drop(balancer);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[test]
fn no_pick_fails_while_targets_come_and_go() {
    for algorithm in [
        Algorithm::RoundRobin,
        Algorithm::SmoothWeighted,
        Algorithm::WeightedRandom,
        Algorithm::LeastOutstanding(LeastOutstanding {
            choices: Choices::Sample(2),
        }),
        Algorithm::PeakEwma(PeakEwma::default()),
    ] {
        let alive = Arc::new(AtomicU64::new(0));
        let balancer = balancer(algorithm, None);
        let finished = run(&balancer, &alive, |balancer, random| {
            let lease = balancer.try_pick().expect("some targets stay");
            let outcome = outcome(random);
            lease.complete(outcome);
            u64::from(outcome != Outcome::Cancelled)
        });
        check(balancer, &alive, finished);
    }
}

#[test]
fn who_waits_for_room_is_never_forgotten_while_targets_come_and_go() {
    let alive = Arc::new(AtomicU64::new(0));
    // Fewer places than pickers, most of the time.
    let balancer = balancer(Algorithm::RoundRobin, Some(1));
    let finished = run(&balancer, &alive, |balancer, random| {
        let request = Request::default();
        let lease = balancer
            .pick_until_blocking(&request, Instant::NEVER)
            .expect("without a deadline");
        if random.chance(0.01) {
            thread::yield_now();
        }
        let outcome = outcome(random);
        lease.complete(outcome);
        u64::from(outcome != Outcome::Cancelled)
    });
    check(balancer, &alive, finished);
}
