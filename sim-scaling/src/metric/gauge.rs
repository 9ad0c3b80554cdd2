//! From a core [`Gauge`] to metrics.

use std::time::Duration;

use sim_core::seam::Gauge;
use sim_core::time::Instant;

use super::{MetricError, Metrics};

/// Samples a gauge under a prefix:
///
/// | metric | is |
/// | --- | --- |
/// | `P.waiting` | items that could be taken now |
/// | `P.in_flight` | items taken and not yet finished |
/// | `P.delayed` | items that become takeable only later |
/// | `P.backlog` | waiting and in flight: visible depth alone would take workers away while they are busy |
/// | `P.oldest_age` | age of the oldest unfinished item in seconds; 0 when there is none, missing when unknown |
/// | `P.arrived` | items that came since the last sample, a second: finished and the growth of the backlog |
/// | `P.finished` | items finished since the last sample, a second |
/// | `P.per_target` | items finished since the last sample, for each target in service (request count per target) |
///
/// The last three need a gauge that counts what it finished, and a sample before.
#[derive(Debug, Clone)]
pub struct GaugeMeter {
    names: [String; 8],
    last: Option<(Instant, u64, u64)>,
}

impl GaugeMeter {
    /// Makes a meter that records under `prefix`.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        let names = [
            "waiting",
            "in_flight",
            "delayed",
            "backlog",
            "oldest_age",
            "arrived",
            "finished",
            "per_target",
        ];
        Self {
            names: names.map(|name| format!("{prefix}.{name}")),
            last: None,
        }
    }

    /// Reads the gauge and records what it says; `in_service` targets share the work.
    ///
    /// # Errors
    ///
    /// [`MetricError`] of the first metric that was refused; those before it are recorded.
    pub fn sample(
        &mut self,
        gauge: &dyn Gauge,
        now: Instant,
        in_service: u32,
        metrics: &mut Metrics,
    ) -> Result<(), MetricError> {
        let depth = gauge.depth();
        let backlog = depth.waiting.saturating_add(depth.in_flight);
        let [
            waiting,
            in_flight,
            delayed,
            all,
            age,
            arrived,
            finished,
            per_target,
        ] = &self.names;
        metrics.record(waiting, now, depth.waiting as f64)?;
        metrics.record(in_flight, now, depth.in_flight as f64)?;
        metrics.record(delayed, now, depth.delayed as f64)?;
        metrics.record(all, now, backlog as f64)?;
        let oldest = match depth.oldest_age {
            Some(oldest) => Some(oldest.as_secs_f64()),
            None => (depth.total() == 0).then_some(0.0),
        };
        if let Some(oldest) = oldest {
            metrics.record(age, now, oldest)?;
        }
        let Some(total) = gauge.finished() else {
            self.last = None;
            return Ok(());
        };
        if let Some((then, before, stood)) = self.last
            && now > then
            // A count that went back is a gauge that started anew: no rate this time.
            && total >= before
        {
            let seconds = (now - then).as_secs_f64();
            let done = (total - before) as f64;
            let came = (done + backlog as f64 - stood as f64).max(0.0);
            metrics.record(arrived, now, came / seconds)?;
            metrics.record(finished, now, done / seconds)?;
            if in_service > 0 {
                metrics.record(per_target, now, done / f64::from(in_service))?;
            }
        }
        self.last = Some((now, total, backlog));
        Ok(())
    }
}

/// How many instances a backlog needs: AWS's "backlog per instance", with what is in flight counted in.
///
/// An instance that finishes `rate` items a second may have `rate x latency` before it: whoever comes then waits `latency`.
/// With work in flight counted, a queue that looks empty while its workers are busy keeps its workers.
///
/// A policy does the same by a formula: the backlog of an instance, more in proportion where the oldest item is over its time.
/// Where a gauge does not know the oldest item's age, `P.oldest_age` is missing: leave that factor out.
///
/// ```
/// use std::time::Duration;
/// use sim_core::time::Instant;
/// use sim_scaling::metric::{Backlog, Metrics, Query, Reading};
/// use sim_scaling::policy::{PolicyConfig, PolicySet, target::TargetConfig};
///
/// let rule = Backlog { rate: 2.0, latency: Duration::from_secs(30) };
/// let formula = "jobs.backlog / max(group.in_service, 1) * max(jobs.oldest_age / 30, 1)";
/// let query = Query::new(formula)?;
///
/// let (mut metrics, now) = (Metrics::default(), Instant::ORIGIN + Duration::from_secs(60));
/// for (name, value) in [("jobs.backlog", 300.0), ("group.in_service", 5.0), ("jobs.oldest_age", 45.0)] {
///     metrics.record(name, now, value)?;
/// }
/// assert_eq!(query.read(&metrics, now), Reading::Value(90.0)); // 60 each, half as much again: 60 is acceptable
///
/// let mut policies = PolicySet::default();
/// let target = TargetConfig::new(query, rule.acceptable());
/// policies.put("backlog", PolicyConfig::TargetTracking(target))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Backlog {
    /// Items that an instance finishes in a second. Above zero.
    pub rate: f64,
    /// How long an item may wait. Above zero.
    pub latency: Duration,
}

impl Backlog {
    /// Items that one instance may have before it.
    #[must_use]
    pub fn acceptable(&self) -> f64 {
        self.rate * self.latency.as_secs_f64()
    }

    /// Instances that work off `waiting` and `in_flight` within the latency, the oldest item's remaining time taken into
    /// account; `None` when a number is out of range.
    ///
    /// An item that has waited `oldest` already leaves the less time for all before it: at least a tenth of the latency
    /// is reckoned with, so that an item stuck for a day does not ask for a thousand instances.
    #[must_use]
    pub fn instances(&self, waiting: u64, in_flight: u64, oldest: Option<Duration>) -> Option<f64> {
        let latency = self.latency.as_secs_f64();
        let oldest = oldest.map_or(0.0, |oldest| oldest.as_secs_f64());
        // A queue within its latency is judged by its length alone.
        let left = if oldest > latency {
            (2.0 * latency - oldest).max(latency / 10.0)
        } else {
            latency
        };
        let backlog = waiting.saturating_add(in_flight) as f64;
        let found = backlog / (self.rate * left);
        (self.rate > 0.0 && found.is_finite()).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sim_core::seam::Depth;

    struct Fixed(Depth, Option<u64>);

    impl Gauge for Fixed {
        fn depth(&self) -> Depth {
            self.0
        }

        fn finished(&self) -> Option<u64> {
            self.1
        }
    }

    fn depth(waiting: u64, in_flight: u64) -> Depth {
        Depth {
            waiting,
            in_flight,
            ..Depth::default()
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(seconds)
    }

    fn last(metrics: &Metrics, name: &str) -> Option<f64> {
        metrics.window(name)?.latest().map(|sample| sample.1)
    }

    #[test]
    fn a_gauge_becomes_depths_rates_and_a_count_per_target() {
        let (mut meter, mut metrics) = (GaugeMeter::new("jobs"), Metrics::default());
        meter
            .sample(&Fixed(depth(4, 2), Some(100)), at(10), 5, &mut metrics)
            .unwrap();
        assert_eq!(last(&metrics, "jobs.backlog"), Some(6.0));
        assert_eq!(
            last(&metrics, "jobs.finished"),
            None,
            "one reading is no rate"
        );
        assert_eq!(last(&metrics, "jobs.oldest_age"), None, "unknown, not zero");
        meter
            .sample(&Fixed(depth(10, 6), Some(150)), at(20), 5, &mut metrics)
            .unwrap();
        assert_eq!(last(&metrics, "jobs.finished"), Some(5.0));
        assert_eq!(last(&metrics, "jobs.arrived"), Some(6.0));
        assert_eq!(last(&metrics, "jobs.per_target"), Some(10.0));
    }

    #[test]
    fn a_gauge_that_starts_anew_gives_no_rate_for_once() {
        let (mut meter, mut metrics) = (GaugeMeter::new("jobs"), Metrics::default());
        for (second, count) in [(1, 900), (2, 10), (3, 14)] {
            let gauge = Fixed(depth(0, 0), Some(count));
            meter.sample(&gauge, at(second), 1, &mut metrics).unwrap();
        }
        let rates: Vec<_> = metrics
            .window("jobs.finished")
            .unwrap()
            .within(at(3), Duration::from_secs(10))
            .collect();
        assert_eq!(rates, [(at(3), 4.0)]);
        assert_eq!(
            last(&metrics, "jobs.oldest_age"),
            Some(0.0),
            "nothing is there"
        );
    }

    #[test]
    fn no_targets_make_no_count_per_target() {
        let (mut meter, mut metrics) = (GaugeMeter::new("jobs"), Metrics::default());
        for second in [1, 2] {
            let gauge = Fixed(depth(0, 0), Some(second));
            meter.sample(&gauge, at(second), 0, &mut metrics).unwrap();
        }
        assert!(metrics.window("jobs.per_target").is_none());
    }

    #[test]
    fn work_in_flight_keeps_its_workers() {
        let rule = Backlog {
            rate: 2.0,
            latency: Duration::from_secs(10),
        };
        assert_eq!(rule.instances(0, 60, None), Some(3.0));
        assert_eq!(rule.instances(60, 60, None), Some(6.0));
        assert_eq!(rule.acceptable(), 20.0);
    }

    #[test]
    fn an_item_that_waited_too_long_asks_for_more() {
        let rule = Backlog {
            rate: 2.0,
            latency: Duration::from_secs(10),
        };
        let of = |seconds| rule.instances(60, 0, Some(Duration::from_secs(seconds)));
        assert_eq!(of(9), Some(3.0));
        assert_eq!(of(15), Some(6.0));
        assert_eq!(of(1_000_000), Some(30.0), "held to ten times");
        let broken = Backlog { rate: 0.0, ..rule };
        assert_eq!(broken.instances(1, 0, None), None);
    }
}
