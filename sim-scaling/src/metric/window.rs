//! One metric's samples.

use std::collections::VecDeque;
use std::time::Duration;

use sim_core::time::Instant;

/// How much a window keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct WindowConfig {
    /// Most samples; the oldest goes first. 1 to 65,536, default 256; 16 bytes each.
    pub samples: usize,
    /// How long a sample is kept after a newer one has come. Above zero, default one hour.
    pub keep: Duration,
}

impl Default for WindowConfig {
    fn default() -> Self {
        Self {
            samples: 256,
            keep: Duration::from_secs(3600),
        }
    }
}

impl WindowConfig {
    /// Most samples that a window may be told to keep.
    pub const SAMPLES_LIMIT: usize = 65_536;

    /// Checks the fields.
    ///
    /// # Errors
    ///
    /// [`WindowError`] names the field.
    pub const fn check(&self) -> Result<(), WindowError> {
        if self.samples == 0 || self.samples > Self::SAMPLES_LIMIT {
            return Err(WindowError::Samples {
                value: self.samples,
            });
        }
        if self.keep.is_zero() {
            return Err(WindowError::Keep);
        }
        Ok(())
    }
}

/// A window's settings are out of range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WindowError {
    /// The number of samples.
    #[error(
        "samples: {value} is not between 1 and {}",
        WindowConfig::SAMPLES_LIMIT
    )]
    Samples {
        /// The value given.
        value: usize,
    },
    /// The time.
    #[error("keep: must not be zero")]
    Keep,
}

/// A sample was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// The value is not a number, or infinite.
    #[error("value: {value} is not finite")]
    NotFinite {
        /// The value given.
        value: f64,
    },
    /// The sample is older than the newest one.
    #[error("at: {} ns is before the newest sample's {} ns", at.as_nanos(), newest.as_nanos())]
    OutOfOrder {
        /// The instant given.
        at: Instant,
        /// The newest sample's.
        newest: Instant,
    },
}

/// How the samples of a period become one value.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Statistic {
    /// Their mean.
    #[default]
    Average,
    /// Their sum.
    Sum,
    /// The least.
    Minimum,
    /// The greatest.
    Maximum,
    /// How many there are: zero in an empty period, the one statistic that is never missing.
    SampleCount,
    /// The value below which this share of them lies, in percent, interpolated; held to 0 to 100.
    Percentile(f64),
    /// The newest.
    Last,
}

/// Samples of one metric in order of time, bounded in number and age.
#[derive(Debug, Clone)]
pub struct MetricWindow {
    samples: VecDeque<(Instant, f64)>,
    config: WindowConfig,
}

impl MetricWindow {
    /// Makes an empty window.
    ///
    /// # Errors
    ///
    /// [`WindowError`] when a field is out of range.
    pub fn new(config: WindowConfig) -> Result<Self, WindowError> {
        config.check()?;
        Ok(Self::with(config))
    }

    /// Makes a window of checked settings.
    pub(super) fn with(config: WindowConfig) -> Self {
        Self {
            samples: VecDeque::new(),
            config,
        }
    }

    /// Adds a sample. One of the same instant as the newest stands beside it.
    ///
    /// # Errors
    ///
    /// [`SampleError`]: the value is not finite, or older than the newest. Nothing is changed then.
    pub fn record(&mut self, at: Instant, value: f64) -> Result<(), SampleError> {
        if !value.is_finite() {
            return Err(SampleError::NotFinite { value });
        }
        if let Some(&(newest, _)) = self.samples.back()
            && at < newest
        {
            return Err(SampleError::OutOfOrder { at, newest });
        }
        while let Some(&(oldest, _)) = self.samples.front() {
            if self.samples.len() < self.config.samples && at - oldest <= self.config.keep {
                break;
            }
            self.samples.pop_front();
        }
        self.samples.push_back((at, value));
        Ok(())
    }

    /// The newest sample.
    #[must_use]
    pub fn latest(&self) -> Option<(Instant, f64)> {
        self.samples.back().copied()
    }

    /// The samples of the period, oldest first: after `end - period`, up to and with `end`.
    pub fn within(&self, end: Instant, period: Duration) -> impl Iterator<Item = (Instant, f64)> {
        // Most readers ask for the newest few: look from the back.
        let span = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let start = end.as_nanos().checked_sub(span);
        let after = |at: Instant| start.is_none_or(|start| at.as_nanos() > start);
        let later = self.samples.iter().rev().take_while(|s| s.0 > end).count();
        let upto = self.samples.len() - later;
        let inside = self
            .samples
            .range(..upto)
            .rev()
            .take_while(|sample| after(sample.0))
            .count();
        self.samples.range(upto - inside..upto).copied()
    }

    /// One value for the period that ends at `end`; `None` when it has no sample.
    #[must_use]
    pub fn aggregate(&self, end: Instant, period: Duration, statistic: Statistic) -> Option<f64> {
        let values = self.within(end, period).map(|sample| sample.1);
        let found = match statistic {
            Statistic::Average => {
                let (mut sum, mut count) = (0.0, 0.0);
                values.for_each(|value| {
                    sum += value;
                    count += 1.0;
                });
                (count > 0.0).then(|| sum / count)
            }
            Statistic::Sum => values.reduce(|sum, value| sum + value),
            Statistic::Minimum => values.reduce(f64::min),
            Statistic::Maximum => values.reduce(f64::max),
            Statistic::SampleCount => Some(values.count() as f64),
            Statistic::Percentile(percent) => percentile(values.collect(), percent),
            Statistic::Last => values.last(),
        };
        // Finite samples can sum up to more than fits.
        found.filter(|value| value.is_finite())
    }

    /// The values of the `count` periods that end at `end`, oldest first; `None` where a period has no sample.
    #[must_use]
    pub fn periods(
        &self,
        end: Instant,
        period: Duration,
        count: usize,
        statistic: Statistic,
    ) -> Vec<Option<f64>> {
        let step = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        (0..count as u64)
            .rev()
            .map(|back| {
                let end = end.as_nanos().checked_sub(step.saturating_mul(back))?;
                self.aggregate(Instant::from_nanos(end), period, statistic)
            })
            .collect()
    }

    /// How many samples there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }
}

/// The percentile by linear interpolation between the closest ranks.
fn percentile(mut values: Vec<f64>, percent: f64) -> Option<f64> {
    if values.is_empty() || percent.is_nan() {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let rank = percent.clamp(0.0, 100.0) / 100.0 * (values.len() - 1) as f64;
    let (below, above) = (rank.floor() as usize, rank.ceil() as usize);
    let share = rank - rank.floor();
    Some(values[below] * (1.0 - share) + values[above] * share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(seconds)
    }

    fn window(samples: &[(u64, f64)]) -> MetricWindow {
        let mut window = MetricWindow::new(WindowConfig::default()).unwrap();
        for &(seconds, value) in samples {
            window.record(at(seconds), value).unwrap();
        }
        window
    }

    #[test]
    fn a_period_holds_its_end_and_not_its_start() {
        let window = window(&[(60, 1.0), (90, 2.0), (120, 4.0), (121, 8.0)]);
        let sum = |end| window.aggregate(at(end), MINUTE, Statistic::Sum);
        assert_eq!(sum(120), Some(6.0));
        assert_eq!(sum(60), Some(1.0));
        assert_eq!(sum(59), None);
    }

    #[test]
    fn every_statistic_is_what_it_says() {
        let window = window(&[(61, 4.0), (70, 1.0), (80, 3.0), (120, 2.0)]);
        let of = |statistic| window.aggregate(at(120), MINUTE, statistic);
        assert_eq!(of(Statistic::Average), Some(2.5));
        assert_eq!(of(Statistic::Sum), Some(10.0));
        assert_eq!(of(Statistic::Minimum), Some(1.0));
        assert_eq!(of(Statistic::Maximum), Some(4.0));
        assert_eq!(of(Statistic::SampleCount), Some(4.0));
        assert_eq!(of(Statistic::Last), Some(2.0));
        assert_eq!(of(Statistic::Percentile(50.0)), Some(2.5));
        assert_eq!(of(Statistic::Percentile(100.0)), Some(4.0));
        assert_eq!(of(Statistic::Percentile(-3.0)), Some(1.0));
        assert_eq!(of(Statistic::Percentile(f64::NAN)), None);
    }

    #[test]
    fn an_empty_period_is_missing_and_not_zero() {
        let window = window(&[(30, 1.0), (150, 5.0)]);
        assert_eq!(
            window.periods(at(180), MINUTE, 4, Statistic::Average),
            [None, Some(1.0), None, Some(5.0)]
        );
        assert_eq!(
            window.aggregate(at(120), MINUTE, Statistic::SampleCount),
            Some(0.0)
        );
    }

    #[test]
    fn what_is_not_finite_or_too_old_is_refused_and_changes_nothing() {
        let mut window = window(&[(60, 1.0)]);
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(matches!(
                window.record(at(61), value),
                Err(SampleError::NotFinite { .. })
            ));
        }
        let error = window.record(at(59), 1.0).unwrap_err();
        assert!(error.to_string().starts_with("at: 59000000000 ns"));
        assert_eq!(window.len(), 1);
    }

    #[test]
    fn a_window_is_bounded_in_number_and_in_age() {
        let mut window = MetricWindow::new(WindowConfig {
            samples: 3,
            keep: Duration::from_secs(10),
        })
        .unwrap();
        for second in 0..5 {
            window.record(at(second), second as f64).unwrap();
        }
        assert_eq!(window.len(), 3);
        window.record(at(14), 0.0).unwrap();
        assert_eq!(window.len(), 2, "only 4 is within ten seconds");
        assert!(
            MetricWindow::new(WindowConfig {
                samples: 0,
                ..WindowConfig::default()
            })
            .is_err()
        );
        let keep = Duration::ZERO;
        assert!(
            MetricWindow::new(WindowConfig {
                keep,
                ..WindowConfig::default()
            })
            .is_err()
        );
    }

    #[test]
    fn a_sum_that_overflows_is_missing() {
        let window = window(&[(1, f64::MAX), (2, f64::MAX)]);
        assert_eq!(window.aggregate(at(2), MINUTE, Statistic::Sum), None);
    }

    proptest! {
        #[test]
        fn a_period_is_what_a_plain_filter_finds(
            steps in prop::collection::vec((0u64..40, -5.0..5.0f64), 0..40),
            end in 0u64..600,
            period in 1u64..200,
        ) {
            let mut window = MetricWindow::new(WindowConfig::default()).unwrap();
            let mut plain = Vec::new();
            let mut second = 0;
            for (step, value) in steps {
                second += step;
                window.record(at(second), value).unwrap();
                plain.push((at(second), value));
            }
            let expected: Vec<_> = plain
                .into_iter()
                .filter(|s| s.0 <= at(end) && (end < period || s.0 > at(end - period)))
                .collect();
            let found: Vec<_> = window.within(at(end), Duration::from_secs(period)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
