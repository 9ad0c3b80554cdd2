//! Weighted round robin by what targets report: client-side weights, without a control plane.

use std::time::Duration;

use sim_core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::limits::ensure;
use super::load::{passed, tick};
use super::memory::{Memory, Turns};
use super::{Ask, Candidate, Loads, least_loaded};
use crate::error::ConfigError;

/// How long a target reports before its weight counts, by default: gRPC's.
pub const REPORTED_BLACKOUT: Duration = Duration::from_secs(10);

/// After how long without a report a target's weight counts no more, by default: gRPC's.
pub const REPORTED_EXPIRATION: Duration = Duration::from_secs(180);

/// How often weights are computed, by default: gRPC's.
pub const REPORTED_UPDATE: Duration = Duration::from_secs(1);

/// The greatest weight in the schedule.
const GREATEST: u64 = 65_535;

/// Settings of [`Algorithm::Reported`](super::Algorithm::Reported).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct ReportedConfig {
    /// How long a target reports before its weight counts; up to an hour. Default: [`REPORTED_BLACKOUT`].
    pub blackout: Duration,
    /// After how long without a report its weight counts no more; up to an hour. Default: [`REPORTED_EXPIRATION`].
    pub expiration: Duration,
    /// How often weights are computed; 100 ms to an hour. Default: [`REPORTED_UPDATE`].
    pub update: Duration,
}

impl Default for ReportedConfig {
    fn default() -> Self {
        Self {
            blackout: REPORTED_BLACKOUT,
            expiration: REPORTED_EXPIRATION,
            update: REPORTED_UPDATE,
        }
    }
}

impl ReportedConfig {
    /// Says what is wrong with the settings.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        const HOUR: Duration = Duration::from_secs(3_600);
        let shown = |time: Duration| format!("{time:?}");
        ensure(
            self.blackout <= HOUR,
            "reported.blackout",
            shown(self.blackout),
            "up to 1 h",
        )?;
        ensure(
            self.expiration <= HOUR,
            "reported.expiration",
            shown(self.expiration),
            "up to 1 h",
        )?;
        ensure(
            (Duration::from_millis(100)..=HOUR).contains(&self.update),
            "reported.update",
            shown(self.update),
            "from 100 ms to 1 h",
        )
    }
}

/// A schedule by reported weights.
///
/// # Algorithm
///
/// gRPC's client-side weighted round robin (proposal A58): a target's weight is what it serves a second by its utilization, to
/// which its errors are added; who reports nothing usable has the mean weight of those who do, and with less than two of them
/// all have the same. The schedule is gRPC's static stride scheduler: a shared counter goes round the targets, and
/// in each round a target is skipped in proportion to what its weight lacks of the greatest, evenly over the
/// rounds. Weights configured for a target multiply what it reports.
///
/// The one that picks when an update is due computes the weights of all; others go on with the former ones meanwhile.
#[derive(Debug)]
pub(crate) struct Reported {
    /// Weights scaled such that the greatest is [`GREATEST`].
    scaled: Box<[AtomicU32]>,
    /// The configured weights.
    weights: Box<[f32]>,
    turns: Turns,
    /// When weights are due again, in nanoseconds.
    due: AtomicU64,
    update: u64,
    /// In ticks.
    blackout: u64,
    expiration: u64,
}

impl Reported {
    pub(crate) fn build(settings: &ReportedConfig, candidates: &[Candidate], turns: Turns) -> Self {
        let ticks = |time: Duration| tick(sim_core::time::Instant::ORIGIN + time);
        let table = Self {
            scaled: candidates.iter().map(|_| AtomicU32::new(0)).collect(),
            weights: candidates.iter().map(|one| one.weight as f32).collect(),
            turns,
            due: AtomicU64::new(0),
            update: u64::try_from(settings.update.as_nanos()).unwrap_or(u64::MAX),
            blackout: ticks(settings.blackout),
            expiration: ticks(settings.expiration),
        };
        table.schedule(&table.weights);
        table
    }

    #[inline]
    pub(crate) fn choose<L: Loads + ?Sized>(&self, loads: &L, ask: &Ask) -> Option<usize> {
        let now = ask.now.as_nanos();
        let due = self.due.load(Ordering::Relaxed);
        if now >= due
            && self
                .due
                .compare_exchange(
                    due,
                    now.saturating_add(self.update),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
        {
            self.weigh(loads, ask);
        }
        self.turn(self.scaled.len() * 2)
    }

    pub(crate) fn next<L: Loads + ?Sized>(
        &self,
        loads: &L,
        memory: &Memory,
        admit: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        (0..self.scaled.len())
            .find_map(|_| self.turn(1).filter(|&index| admit(index)))
            .or_else(|| least_loaded(loads, memory, admit))
    }

    /// Whose turn it is, after so many skipped ones at most; then whoever is next.
    fn turn(&self, skips: usize) -> Option<usize> {
        let count = self.scaled.len() as u64;
        if count == 0 {
            return None;
        }
        let mut index = 0;
        for _ in 0..=skips {
            let turn = self.turns.take();
            index = (turn % count) as usize;
            let weight = u64::from(self.scaled[index].load(Ordering::Relaxed));
            // Targets of the same weight are not skipped in the same rounds.
            let shift = index as u64 * (GREATEST / 2);
            let at = (weight.wrapping_mul(turn / count)).wrapping_add(shift) % GREATEST;
            if at >= GREATEST - weight {
                break;
            }
        }
        Some(index)
    }

    /// Computes the weights from the reports.
    #[cold]
    fn weigh<L: Loads + ?Sized>(&self, loads: &L, ask: &Ask) {
        let now = tick(ask.now);
        let reported = |index: usize| {
            let report = loads.load(index).reported()?;
            let counts = passed(now, report.at) <= self.expiration
                && passed(now, report.since) >= self.blackout;
            counts.then_some(report.weight)
        };
        let (mut sum, mut known) = (0.0_f64, 0_u32);
        for weight in (0..self.weights.len()).filter_map(reported) {
            sum += f64::from(weight);
            known += 1;
        }
        if known < 2 {
            self.schedule(&self.weights);
            return;
        }
        let mean = (sum / f64::from(known)) as f32;
        let weights: Vec<f32> = (0..)
            .zip(&self.weights)
            .map(|(index, weight)| weight * reported(index).unwrap_or(mean))
            .collect();
        self.schedule(&weights);
    }

    fn schedule(&self, weights: &[f32]) {
        let greatest = weights.iter().copied().fold(0.0, f32::max);
        if greatest <= 0.0 || !greatest.is_finite() {
            return;
        }
        for (scaled, weight) in self.scaled.iter().zip(weights) {
            let share = f64::from(*weight) / f64::from(greatest) * GREATEST as f64;
            scaled.store((share.round() as u32).max(1), Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use sim_core::time::Instant;

    use super::*;
    use crate::algorithm::load::Load;
    use crate::algorithm::properties::{ask_at, weighted};
    use crate::algorithm::tests::loads;
    use crate::message::Feedback;

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(seconds)
    }

    fn build(candidates: &[Candidate]) -> Reported {
        Reported::build(
            &ReportedConfig::default(),
            candidates,
            Memory::new(1).turns(),
        )
    }

    fn report(load: &Load, rate: f32, utilization: f32, errors: f32, seconds: u64) {
        let feedback = Feedback {
            utilization: Some(utilization),
            rate: Some(rate),
            error_rate: Some(errors),
            ..Feedback::default()
        };
        load.hear(feedback, at(seconds));
    }

    fn shares(table: &Reported, loads: &Vec<Load>, seconds: u64) -> Vec<f64> {
        let mut counts = vec![0.0; loads.len()];
        for _ in 0..10_000 {
            let chosen = table.choose(loads, &ask_at(at(seconds)));
            counts[chosen.expect("there are targets")] += 1e-4;
        }
        counts
    }

    fn assert_near(found: &[f64], expected: &[f64]) {
        for (one, other) in found.iter().zip(expected) {
            assert!((one - other).abs() < 0.01, "{found:?}, not {expected:?}");
        }
    }

    #[test]
    fn shares_follow_what_targets_serve_by_what_it_costs_them() {
        let table = build(&weighted(&[1, 1, 1]));
        let loads = loads(3);
        assert_near(&shares(&table, &loads, 1), &[1.0 / 3.0; 3]);
        for seconds in [5, 20] {
            report(&loads[0], 100.0, 0.5, 0.0, seconds);
            report(&loads[1], 100.0, 1.0, 0.0, seconds);
        }
        // 200 and 100; the third has the mean.
        assert_near(
            &shares(&table, &loads, 21),
            &[200.0 / 450.0, 100.0 / 450.0, 150.0 / 450.0],
        );
        // Of the first one's requests a half fail: 100 / (0.5 + 0.5).
        report(&loads[0], 100.0, 0.5, 50.0, 22);
        assert_near(&shares(&table, &loads, 23), &[1.0 / 3.0; 3]);
        // Nobody has reported for long.
        report(&loads[0], 100.0, 0.1, 0.0, 24);
        assert_near(&shares(&table, &loads, 1_000), &[1.0 / 3.0; 3]);
    }

    #[test]
    fn a_weight_counts_after_the_blackout_and_configured_ones_multiply() {
        let table = build(&weighted(&[3, 1]));
        let loads = loads(2);
        assert_near(&shares(&table, &loads, 1), &[0.75, 0.25]);
        for load in &loads {
            report(load, 100.0, 0.5, 0.0, 5);
        }
        report(&loads[1], 100.0, 0.25, 0.0, 6);
        assert_near(&shares(&table, &loads, 7), &[0.75, 0.25]);
        assert_near(&shares(&table, &loads, 16), &[0.6, 0.4]);
    }

    #[test]
    fn reports_count_however_long_a_target_has_reported() {
        let table = build(&weighted(&[1, 1]));
        let loads = loads(2);
        const HOURS: u64 = 45;
        for seconds in (0..=HOURS * 3_600).step_by(100) {
            report(&loads[0], 100.0, 0.25, 0.0, seconds);
            report(&loads[1], 100.0, 0.75, 0.0, seconds);
        }
        assert_near(&shares(&table, &loads, HOURS * 3_600 + 1), &[0.75, 0.25]);
    }

    #[test]
    fn a_report_of_forty_hours_ago_has_expired() {
        let table = build(&weighted(&[1, 1]));
        let loads = loads(2);
        for seconds in [5, 20] {
            report(&loads[0], 100.0, 0.25, 0.0, seconds);
            report(&loads[1], 100.0, 0.75, 0.0, seconds);
        }
        assert_near(&shares(&table, &loads, 21), &[0.75, 0.25]);
        assert_near(&shares(&table, &loads, 40 * 3_600), &[0.5, 0.5]);
    }

    #[test]
    fn the_next_is_one_that_is_admitted() {
        let table = build(&weighted(&[1, 1_000]));
        let memory = Memory::new(1);
        let two = loads(2);
        for only in [0, 1] {
            assert_eq!(
                table.next(&two, &memory, &|index| index == only),
                Some(only)
            );
        }
        assert_eq!(table.next(&two, &memory, &|_| false), None);
        let none = build(&[]);
        assert_eq!(none.choose(&loads(0), &ask_at(at(1))), None);
    }
}
