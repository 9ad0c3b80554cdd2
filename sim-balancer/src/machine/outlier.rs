//! Outliers and anomalies: what the answers of targets show, compared.
//!
//! # Algorithm
//!
//! Ejection follows Envoy's outlier detection (`source/extensions/outlier_detection`): runs of failures, success rates below
//! mean minus a multiple of the (population) standard deviation, failure percentages; ejections last base time by
//! their number in close succession. Halving and doubling of shares is multiplicative decrease and increase, the
//! algorithm that the service names for its automatic target weights.

use std::time::Duration;

use sim_core::random::Random;

use super::note::Cause;
use super::rules::{Anomaly, Outliers};

/// What a target has finished since it was registered: counts that only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Requests that went well.
    pub successes: u64,
    /// Requests that failed.
    pub failures: u64,
}

impl Tally {
    /// What has come on top of `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            successes: self.successes.saturating_sub(earlier.successes),
            failures: self.failures.saturating_sub(earlier.failures),
        }
    }

    pub(crate) fn volume(self) -> u64 {
        self.successes.saturating_add(self.failures)
    }

    /// Failures among all, 0 to 1.
    fn failure_rate(self) -> f64 {
        self.failures as f64 / self.volume().max(1) as f64
    }
}

/// A run of failures that the data plane counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Streak {
    /// Failures of any kind.
    Failures,
    /// Failures of the way to the target: no connection, no answer in time.
    Gateway,
}

impl Streak {
    pub(crate) fn cause(self) -> Cause {
        match self {
            Self::Failures => Cause::ConsecutiveFailures,
            Self::Gateway => Cause::ConsecutiveGatewayFailures,
        }
    }

    pub(crate) fn threshold(self, rules: &Outliers) -> Option<u32> {
        match self {
            Self::Failures => rules.consecutive_failures,
            Self::Gateway => rules.consecutive_gateway_failures,
        }
    }
}

/// Who should be ejected for what the last interval showed, in the order given. Targets are named by their index.
pub(crate) fn sweep(rules: &Outliers, windows: &[(u32, Tally)]) -> Vec<(u32, Cause)> {
    let mut found = Vec::new();
    if let Some(rate) = &rules.success_rate {
        let judged = judged(windows, rate.request_volume, rate.minimum_hosts);
        let count = judged.len().max(1) as f64;
        let well = |tally: Tally| 1.0 - tally.failure_rate();
        let mean = judged.iter().map(|(_, tally)| well(*tally)).sum::<f64>() / count;
        let variance = judged
            .iter()
            .map(|(_, tally)| (well(*tally) - mean).powi(2))
            .sum::<f64>()
            / count;
        let bar = mean - variance.sqrt() * f64::from(rate.stdev_factor) / 1_000.0;
        found.extend(
            judged
                .iter()
                .filter(|(_, tally)| well(*tally) < bar)
                .map(|(index, _)| (*index, Cause::SuccessRate)),
        );
    }
    if let Some(rate) = &rules.failure_percentage {
        found.extend(
            judged(windows, rate.request_volume, rate.minimum_hosts)
                .iter()
                .filter(|(_, tally)| {
                    let failures = u128::from(tally.failures) * 100;
                    failures >= u128::from(rate.threshold) * u128::from(tally.volume())
                })
                .map(|(index, _)| (*index, Cause::FailurePercentage)),
        );
    }
    found
}

/// The targets with enough volume, or none when they are too few to compare.
fn judged(windows: &[(u32, Tally)], volume: u64, hosts: u32) -> Vec<(u32, Tally)> {
    let enough: Vec<_> = windows
        .iter()
        .filter(|(_, tally)| tally.volume() >= volume.max(1))
        .copied()
        .collect();
    if enough.len() < hosts as usize {
        return Vec::new();
    }
    enough
}

/// How long the `count`-th ejection in close succession lasts.
pub(crate) fn ejection_time(rules: &Outliers, count: u32, random: &mut Random) -> Duration {
    let time = rules
        .base_ejection_time
        .saturating_mul(count)
        .min(rules.max_ejection_time);
    let jitter = rules.ejection_jitter.mul_f64(random.unit());
    time.saturating_add(jitter)
}

/// Whether one more of `hosts` may be ejected when `ejected` are.
pub(crate) fn may_eject(rules: &Outliers, ejected: u32, hosts: u32) -> bool {
    let after = u64::from(ejected) + 1;
    after * 100 <= u64::from(rules.max_ejection_percent) * u64::from(hosts)
        || (ejected == 0 && rules.always_eject_one)
}

/// Which targets failed markedly more often than the others together, in the order given.
pub(crate) fn anomalous(rules: &Anomaly, windows: &[(u32, Tally)]) -> Vec<u32> {
    let judged = judged(windows, rules.request_volume, rules.minimum_hosts);
    let sum = judged
        .iter()
        .fold(Tally::default(), |sum, (_, tally)| Tally {
            successes: sum.successes.saturating_add(tally.successes),
            failures: sum.failures.saturating_add(tally.failures),
        });
    judged
        .iter()
        .filter(|(_, tally)| {
            let others = sum.since(*tally).failure_rate();
            tally.failure_rate() > others + f64::from(rules.margin) / 100.0
        })
        .map(|(index, _)| *index)
        .collect()
}

/// The share of a target after a window, in percent.
pub(crate) fn mitigated(rules: &Anomaly, share: u32, is_anomalous: bool) -> u32 {
    if is_anomalous && rules.mitigation {
        (share / 2).max(rules.floor)
    } else {
        share.saturating_mul(2).min(100)
    }
}
