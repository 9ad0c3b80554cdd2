//! The peers made of sim-balancer: one for each algorithm, and each pick with its lease given back.

use sim_balancer::{
    Algorithm, Balancer, BalancerConfig, Choices, LeastOutstanding, LeastTime, MaglevConfig,
    Outcome, PeakEwma, Request, Target,
};

use crate::pattern::{Failure, Peer};
use crate::picks::KEYS;
use crate::timing::Stopwatch;

/// What a pick costs of an algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// The same whatever the number of targets, and no clock is read.
    Constant,
    /// The clock is read twice.
    Timed,
    /// More with more targets.
    Scan,
}

/// The algorithms measured, by the names of their peers.
#[must_use]
pub fn algorithms() -> Vec<(&'static str, Algorithm, Cost)> {
    vec![
        ("sim-round-robin", Algorithm::RoundRobin, Cost::Constant),
        (
            "sim-smooth-weighted",
            Algorithm::SmoothWeighted,
            Cost::Constant,
        ),
        ("sim-random", Algorithm::Random, Cost::Constant),
        (
            "sim-weighted-random",
            Algorithm::WeightedRandom,
            Cost::Constant,
        ),
        (
            "sim-least-outstanding-2",
            Algorithm::LeastOutstanding(LeastOutstanding {
                choices: Choices::Sample(2),
            }),
            Cost::Constant,
        ),
        (
            "sim-maglev",
            Algorithm::Maglev(MaglevConfig::default()),
            Cost::Constant,
        ),
        (
            "sim-peak-ewma-2",
            Algorithm::PeakEwma(PeakEwma {
                choices: Choices::Sample(2),
                ..Default::default()
            }),
            Cost::Timed,
        ),
        (
            "sim-least-time-2",
            Algorithm::LeastTime(LeastTime {
                choices: Choices::Sample(2),
                ..Default::default()
            }),
            Cost::Timed,
        ),
        (
            "sim-peak-ewma-auto",
            Algorithm::PeakEwma(PeakEwma::default()),
            Cost::Scan,
        ),
        (
            "sim-least-outstanding",
            Algorithm::LeastOutstanding(LeastOutstanding::default()),
            Cost::Scan,
        ),
    ]
}

/// A balancer of so many targets; every fifth of them weighs as much as four others.
///
/// # Panics
/// Never: the configuration is a good one.
#[must_use]
pub fn balancer(algorithm: &Algorithm, targets: u32) -> Balancer<u32> {
    let balancer = Balancer::new(BalancerConfig {
        algorithm: algorithm.clone(),
        ..Default::default()
    })
    .expect("a good configuration");
    let weight = |n: u32| if n.is_multiple_of(5) { 4 } else { 1 };
    let refused = balancer.register_all(
        (0..targets).map(|n| Target::new(format!("10.0.0.1:{n}"), n).weight(weight(n))),
    );
    assert!(refused.is_empty());
    balancer
}

/// The peers for so many targets.
#[must_use]
pub fn peers(targets: u32) -> Vec<Peer> {
    algorithms()
        .into_iter()
        .map(|(name, algorithm, _)| {
            let balancer = balancer(&algorithm, targets);
            Peer::new(name, move |count| {
                let before = balancer.stats();
                let watch = Stopwatch::start();
                for pick in 0..count {
                    let request = Request {
                        key: Some(KEYS[pick as usize % KEYS.len()]),
                        ..Default::default()
                    };
                    let lease = balancer
                        .try_pick_for(&request)
                        .map_err(|error| Failure(error.to_string()))?;
                    lease.complete(Outcome::Success);
                }
                let elapsed = watch.elapsed();
                let after = balancer.stats();
                if (after.outstanding, after.finished) != (0, before.finished + count) {
                    return Err(Failure(format!("{count} picks, and then {after:?}")));
                }
                Ok(elapsed)
            })
        })
        .collect()
}
