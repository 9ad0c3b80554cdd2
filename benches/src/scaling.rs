//! Policies over recorded and made-up loads, in virtual time: minutes in which the load was above the capacity in service,
//! and instance-hours over those of an oracle.
//!
//! # The model
//!
//! Steps of a minute. A minute's load meets the instances that serve then; it is a **violation** when the load is above what
//! they can serve at most. At the end of the minute the policy is told the load and the utilisation and decides; what it
//! launches serves three minutes later, that is from the fourth minute on, what it ends is gone at once, and what is on its
//! way goes first. An instance's capacity is such that the 99.9th percentile of the load needs 50 instances at the target of
//! 70 %. The **surplus** is the instance-hours in service over those of an oracle that has, each minute, just as many
//! instances as can serve the load, at least one. (A perfect rule that keeps to 70 % would have +43 %.)
//!
//! All policies start without a history and are told nothing of what comes.

mod policies;
mod report;
mod trace;

use std::path::PathBuf;
use std::time::Duration;

use sim_core::time::Instant;
use sim_scaling::metric::{Metrics, WindowConfig};
use sim_scaling::policy::{Capacity, PolicyInput, PolicySet};

use crate::groups::Scale;
use crate::pattern::Failure;
use crate::report::Origin;
use crate::timing::Stopwatch;

pub use policies::{BEST, Rival, rivals};
pub use trace::{Trace, TraceError};

/// Utilisation that the policies aim at.
pub const TARGET: f64 = 0.7;

/// Instances that the 99.9th percentile of a load needs at the target.
pub const INSTANCES: f64 = 50.0;

/// Minutes until an instance serves.
const BOOT: u32 = 3;

const MINUTE: Duration = Duration::from_secs(60);

/// Steps of a month.
const MONTH: usize = 30 * 1440;

/// What a policy made of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The policy.
    pub policy: &'static str,
    /// Minutes with a load above the capacity.
    pub violations: u32,
    /// Instance-hours in service.
    pub hours: f64,
    /// Instance-hours with those on their way.
    pub hours_with_boot: f64,
    /// Instance-hours of the oracle.
    pub oracle: f64,
    /// The processor's time for the decisions of a month, in milliseconds.
    pub month_ms: f64,
}

impl Outcome {
    /// The surplus over the oracle, in percent.
    #[must_use]
    pub fn surplus(&self) -> f64 {
        (self.hours / self.oracle - 1.0) * 100.0
    }

    /// The same with instances that are on their way.
    #[must_use]
    pub fn surplus_with_boot(&self) -> f64 {
        (self.hours_with_boot / self.oracle - 1.0) * 100.0
    }
}

/// The load that an instance can serve in a minute.
#[must_use]
pub fn capacity(loads: &[f64]) -> f64 {
    let mut sorted = loads.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = 0.999 * sorted.len().saturating_sub(1) as f64;
    let (below, share) = (rank.floor() as usize, rank - rank.floor());
    let at = |index: usize| {
        let last = sorted.len().saturating_sub(1);
        sorted.get(index.min(last)).copied().unwrap_or(0.0)
    };
    let percentile = at(below) * (1.0 - share) + at(below + 1) * share;
    // A load that is nothing nearly always would need instances of no capacity.
    let percentile = if percentile > 0.0 { percentile } else { 1.0 };
    percentile / (INSTANCES * TARGET)
}

/// Replays a trace with one policy.
///
/// # Errors
/// When the policy's settings or a sample are refused.
pub fn replay(trace: &Trace, rival: &Rival) -> Result<Outcome, Failure> {
    let refused = |error: &dyn std::error::Error| Failure(format!("{}: {error}", rival.name));
    let capacity = capacity(&trace.loads);
    let mut policies = PolicySet::default();
    for (name, config) in (rival.policies)(capacity) {
        policies
            .put(name, config)
            .map_err(|error| refused(&error))?;
    }
    let mut metrics = Metrics::new(
        4,
        WindowConfig {
            samples: 64,
            keep: Duration::from_secs(3600),
        },
    )
    .map_err(|error| refused(&error))?;

    let needed = |load: f64, target: f64| (load / (capacity * target) - 1e-9).ceil().max(1.0);
    let first = trace.loads.first().copied().unwrap_or(0.0);
    let mut serving = needed(first, TARGET) as u32;
    let mut booting: Vec<(usize, u32)> = Vec::new();
    let (mut violations, mut hours, mut with_boot, mut oracle) = (0, 0.0, 0.0, 0.0);
    let mut watch = CpuWatch::default();
    for (minute, &load) in trace.loads.iter().enumerate() {
        booting.retain(|&(at, count)| {
            let ready = at <= minute;
            serving += if ready { count } else { 0 };
            !ready
        });
        let pending: u32 = booting.iter().map(|one| one.1).sum();
        violations += u32::from(load > f64::from(serving) * capacity * (1.0 + 1e-6));
        hours += f64::from(serving) / 60.0;
        with_boot += f64::from(serving + pending) / 60.0;
        oracle += needed(load, 1.0) / 60.0;

        let elapsed = MINUTE * (minute as u32 + 1);
        let now = Instant::ORIGIN + elapsed;
        let used = load / (f64::from(serving) * capacity);
        metrics
            .record("load", now, load)
            .and_then(|()| metrics.record("used", now, used))
            .map_err(|error| refused(&error))?;
        let desired = serving + pending;
        let group = Capacity {
            min: 1,
            max: 100_000,
            desired,
            in_service: serving,
            warming: 0,
            pending,
        };
        let input = PolicyInput::new(now, trace.start + elapsed, group, &metrics);
        let verdict = watch.time(|| policies.decide(&input));
        if verdict.desired > desired {
            let ready = minute + 1 + BOOT as usize;
            booting.push((ready, verdict.desired - desired));
        } else {
            let mut cut = desired - verdict.desired;
            for (_, count) in booting.iter_mut().rev() {
                let gone = cut.min(*count);
                *count -= gone;
                cut -= gone;
            }
            booting.retain(|&(_, count)| count > 0);
            serving -= cut;
        }
        policies.applied(now, desired, verdict.desired, verdict.policy.as_deref());
    }
    let month_ms = watch.milliseconds() * MONTH as f64 / trace.loads.len().max(1) as f64;
    Ok(Outcome {
        policy: rival.name,
        violations,
        hours,
        hours_with_boot: with_boot,
        oracle,
        month_ms,
    })
}

/// A trace and what each policy made of it.
#[derive(Clone, Debug)]
pub struct Row {
    /// The trace.
    pub trace: &'static str,
    /// What it is.
    pub about: String,
    /// How many minutes it has.
    pub minutes: usize,
    /// Whether the issue names it, or it was made up.
    pub kind: trace::Kind,
    /// The outcomes, in the order of the policies.
    pub outcomes: Vec<Outcome>,
}

impl Row {
    fn of(&self, policy: &str) -> Option<&Outcome> {
        self.outcomes.iter().find(|one| one.policy == policy)
    }

    /// Whether the best policy has no more violations than the better baseline and no more surplus than the leaner one.
    #[must_use]
    pub fn is_met(&self) -> bool {
        let Some(best) = self.of(BEST) else {
            return false;
        };
        policies::BASELINES
            .iter()
            .filter_map(|name| self.of(name))
            .all(|one| best.violations <= one.violations && best.hours <= one.hours)
    }
}

/// What a run is told.
#[derive(Debug)]
pub struct Options<'a> {
    /// The whole traces, or a few days of each.
    pub scale: Scale,
    /// Only traces whose name holds this.
    pub filter: Option<&'a str>,
    /// Further traces to replay.
    pub traces: &'a [PathBuf],
    /// Print objects and no tables.
    pub json: bool,
    /// Print the names and nothing else.
    pub list: bool,
    /// Where the results go; none: nowhere.
    pub out: Option<PathBuf>,
}

/// Runs the group.
///
/// # Errors
/// When a trace cannot be read, though it is there, or the results cannot be written.
pub fn run(options: &Options<'_>) -> Result<(), Failure> {
    let origin = Origin::find();
    let (traces, absent) = trace::all(options.traces).map_err(|e| Failure(e.to_string()))?;
    for line in &absent {
        eprintln!("benches: scaling: {line}");
    }
    let chosen = |name: &str| options.filter.is_none_or(|text| name.contains(text));
    let mut rows = Vec::new();
    for mut trace in traces.into_iter().filter(|trace| chosen(trace.name)) {
        if options.list {
            println!("{}: {}", trace.name, trace.about);
            continue;
        }
        if options.scale == Scale::Quick {
            trace.loads.truncate(3 * 1440);
        }
        let outcomes = rivals()
            .iter()
            .map(|rival| replay(&trace, rival))
            .collect::<Result<_, _>>()?;
        let row = Row {
            trace: trace.name,
            about: trace.about,
            minutes: trace.loads.len(),
            kind: trace.kind,
            outcomes,
        };
        if options.json {
            report::lines(&row)
                .iter()
                .for_each(|line| println!("{line}"));
        } else {
            println!("{}", report::table(&row));
        }
        rows.push(row);
    }
    if options.list {
        return Ok(());
    }
    if rows.is_empty() {
        return Err(Failure(
            "no trace's name holds the filter's text".to_owned(),
        ));
    }
    if !options.json {
        println!("{}", report::aims(&rows));
    }
    if let Some(folder) = &options.out {
        report::write(folder, &origin, &rows, &absent)
            .map_err(|error| Failure(format!("cannot write to {}: {error}", folder.display())))?;
        eprintln!("benches: wrote {}", folder.join("scaling.md").display());
    }
    Ok(())
}

/// The time that the processor spent in a piece of code: others run on the machine too.
#[derive(Default)]
struct CpuWatch {
    /// Nanoseconds of all calls by the wall.
    wall: f64,
    calls: u64,
    /// The least of the batches' means, since a batch may be interrupted.
    best: f64,
    batch: f64,
}

impl CpuWatch {
    /// Calls of a batch.
    const BATCH: u64 = 1440;

    fn time<R>(&mut self, run: impl FnOnce() -> R) -> R {
        let watch = Stopwatch::start();
        let result = run();
        let nanos = watch.elapsed().as_nanos() as f64;
        self.wall += nanos;
        self.batch += nanos;
        self.calls += 1;
        if self.calls.is_multiple_of(Self::BATCH) {
            if self.best == 0.0 || self.batch < self.best {
                self.best = self.batch;
            }
            self.batch = 0.0;
        }
        result
    }

    /// Milliseconds of all calls, each day as fast as the quickest one.
    fn milliseconds(&self) -> f64 {
        if self.best > 0.0 {
            self.best / Self::BATCH as f64 * self.calls as f64 / 1e6
        } else {
            self.wall / 1e6
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sim_core::time::Timestamp;

    fn named(name: &str) -> Rival {
        *rivals().iter().find(|rival| rival.name == name).unwrap()
    }

    /// A month of the project's own trace, the first days without any season known.
    #[test]
    fn the_best_policy_beats_both_baselines_on_the_flights() {
        let mut trace = trace::flights().unwrap();
        trace.loads.truncate(MONTH);
        let [best, target, hpa] = [BEST, policies::BASELINES[0], policies::BASELINES[1]]
            .map(|name| replay(&trace, &named(name)).unwrap());
        assert!(
            best.violations <= target.violations.min(hpa.violations),
            "{best:?} {target:?} {hpa:?}"
        );
        assert!(
            best.hours <= target.hours.min(hpa.hours),
            "{best:?} {target:?} {hpa:?}"
        );
        assert!(target.violations > 0 && hpa.violations > 0);
    }

    #[test]
    fn a_step_of_the_load_is_answered_four_minutes_later() {
        let mut loads = vec![7.0; 60];
        loads.extend([35.0; 60]);
        let trace = Trace {
            name: "step",
            about: String::new(),
            start: Timestamp::UNIX_EPOCH,
            loads,
            kind: trace::Kind::MadeUp,
        };
        let outcome = replay(&trace, &named("HPA")).unwrap();
        assert_eq!(outcome.violations, 4);
        assert_eq!(
            replay(&trace, &named("HPA")).unwrap().violations,
            4,
            "each time"
        );
        assert_eq!((outcome.oracle * 60.0).round(), 60.0 * (7.0 + 35.0));
    }

    #[test]
    fn the_capacity_is_that_of_fifty_instances_at_the_target() {
        let loads: Vec<f64> = (0..=1000).map(f64::from).collect();
        assert!((capacity(&loads) * 35.0 - 999.0).abs() < 1e-6);
        assert!(capacity(&[0.0; 10]) > 0.0);
    }
}
