//! Alarms: M of N periods over a threshold, with what is missing treated as told, by CloudWatch's rules.
//!
//! Time is cut into periods since the clock's origin. Each evaluation looks at the last `evaluation_periods` periods that
//! ended, and at two more for when some are missing (the evaluation range; CloudWatch's tables show two more, its real
//! number is not documented):
//!
//! 1. As many values as evaluation periods, or more: the newest of them decide, what is missing is ignored.
//! 2. Fewer: what is missing is filled in as [`MissingData`] says, "only as few times as possible".
//! 3. `Missing` and `Ignore`: when all values there are breach, and the oldest is at least as old as `datapoints_to_alarm`
//!    periods, `Missing` alarms all the same (the "premature" rule) and `Ignore` keeps its state.
//!
//! Source: "Configuring how CloudWatch alarms treat missing data", Amazon CloudWatch User Guide; its two tables are tests
//! below. Anomaly detection's operators are not there: they need a model of the metric, which [`crate::forecast`] is.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use sim_core::time::Instant;

use crate::metric::{Metrics, Query};

/// Periods that are looked at beyond the evaluation periods.
const EXTRA: usize = 2;

/// Most evaluation periods.
pub const EVALUATION_PERIODS_LIMIT: u32 = 1440;

/// How a value is held against the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Comparison {
    /// Breaches at the threshold and above.
    #[default]
    GreaterThanOrEqualToThreshold,
    /// Breaches above the threshold.
    GreaterThanThreshold,
    /// Breaches below the threshold.
    LessThanThreshold,
    /// Breaches at the threshold and below.
    LessThanOrEqualToThreshold,
}

impl Comparison {
    /// Whether the value breaches the threshold.
    #[must_use]
    pub fn breaches(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::GreaterThanOrEqualToThreshold => value >= threshold,
            Self::GreaterThanThreshold => value > threshold,
            Self::LessThanThreshold => value < threshold,
            Self::LessThanOrEqualToThreshold => value <= threshold,
        }
    }

    /// Whether a breach means more load and not less.
    #[must_use]
    pub const fn is_upward(self) -> bool {
        matches!(
            self,
            Self::GreaterThanOrEqualToThreshold | Self::GreaterThanThreshold
        )
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GreaterThanOrEqualToThreshold => "greater than or equal to",
            Self::GreaterThanThreshold => "greater than",
            Self::LessThanThreshold => "less than",
            Self::LessThanOrEqualToThreshold => "less than or equal to",
        })
    }
}

/// What a period without a value counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum MissingData {
    /// As missing: when all are, the state is [`AlarmState::InsufficientData`].
    #[default]
    Missing,
    /// The state is kept.
    Ignore,
    /// As a breach.
    Breaching,
    /// As none.
    NotBreaching,
}

/// The three states of an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum AlarmState {
    /// Within the threshold.
    Ok,
    /// Beyond the threshold.
    Alarm,
    /// Just started, or too little data.
    #[default]
    InsufficientData,
}

impl fmt::Display for AlarmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "OK",
            Self::Alarm => "ALARM",
            Self::InsufficientData => "INSUFFICIENT_DATA",
        })
    }
}

/// What an alarm watches, and when it alarms.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct AlarmConfig {
    /// What is watched; its period is the alarm's.
    pub query: Query,
    /// How a value is held against the threshold. Default: greater than or equal.
    pub comparison: Comparison,
    /// The threshold; finite.
    pub threshold: f64,
    /// N: how many periods are looked at. 1 to 1,440.
    pub evaluation_periods: u32,
    /// M: how many of them must breach. 1 to N.
    pub datapoints_to_alarm: u32,
    /// What a period without a value counts as.
    pub missing: MissingData,
}

impl AlarmConfig {
    /// An alarm of one period out of one at or above the threshold.
    #[must_use]
    pub const fn new(query: Query, threshold: f64) -> Self {
        Self {
            query,
            comparison: Comparison::GreaterThanOrEqualToThreshold,
            threshold,
            evaluation_periods: 1,
            datapoints_to_alarm: 1,
            missing: MissingData::Missing,
        }
    }

    fn check(&self) -> Result<(), AlarmError> {
        if !self.threshold.is_finite() {
            return Err(AlarmError::Threshold {
                value: self.threshold,
            });
        }
        if self.query.period.is_zero() {
            return Err(AlarmError::Period);
        }
        if self.evaluation_periods == 0 || self.evaluation_periods > EVALUATION_PERIODS_LIMIT {
            return Err(AlarmError::EvaluationPeriods {
                value: self.evaluation_periods,
            });
        }
        if self.datapoints_to_alarm == 0 || self.datapoints_to_alarm > self.evaluation_periods {
            return Err(AlarmError::DatapointsToAlarm {
                value: self.datapoints_to_alarm,
                limit: self.evaluation_periods,
            });
        }
        Ok(())
    }
}

/// An alarm's settings are out of range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AlarmError {
    /// The threshold.
    #[error("threshold: {value} is not finite")]
    Threshold {
        /// The value given.
        value: f64,
    },
    /// The period.
    #[error("period: must not be zero")]
    Period,
    /// The evaluation periods.
    #[error("evaluation_periods: {value} is not between 1 and {EVALUATION_PERIODS_LIMIT}")]
    EvaluationPeriods {
        /// The value given.
        value: u32,
    },
    /// The datapoints to alarm.
    #[error("datapoints_to_alarm: {value} is not between 1 and evaluation_periods, {limit}")]
    DatapointsToAlarm {
        /// The value given.
        value: u32,
        /// The evaluation periods.
        limit: u32,
    },
}

/// An alarm and what it remembers: the values of its evaluation range, and its state.
#[derive(Debug, Clone)]
pub struct Alarm {
    config: AlarmConfig,
    state: AlarmState,
    /// The values of the periods of the evaluation range, the newest at the back. At most N + 2.
    values: VecDeque<Option<f64>>,
    /// The number of the newest of them, counted in periods since the origin.
    newest: u64,
}

/// A change of an alarm's state.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The state before.
    pub from: AlarmState,
    /// The state now.
    pub to: AlarmState,
    /// When it was evaluated.
    pub at: Instant,
    /// Why.
    pub reason: AlarmReason,
}

/// Why an alarm is in its state.
#[derive(Debug, Clone, PartialEq)]
pub struct AlarmReason {
    /// The newest values that counted, oldest first; at most five.
    pub values: Vec<f64>,
    /// How many values breached.
    pub breaching: u32,
    /// How many periods were filled in for want of a value.
    pub filled: u32,
    /// M.
    pub datapoints_to_alarm: u32,
    /// N.
    pub evaluation_periods: u32,
    /// The comparison.
    pub comparison: Comparison,
    /// The threshold.
    pub threshold: f64,
}

impl fmt::Display for AlarmReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of the last {} datapoints {:?} were {} the threshold {}",
            self.breaching, self.evaluation_periods, self.values, self.comparison, self.threshold
        )?;
        if self.filled > 0 {
            write!(f, ", {} missing", self.filled)?;
        }
        write!(f, " ({} datapoints to alarm)", self.datapoints_to_alarm)
    }
}

impl Alarm {
    /// Checks the settings; the alarm starts with insufficient data.
    ///
    /// # Errors
    ///
    /// [`AlarmError`] names the field.
    pub fn new(config: AlarmConfig) -> Result<Self, AlarmError> {
        config.check()?;
        Ok(Self::of_checked(config))
    }

    /// Makes an alarm of settings that were checked before.
    pub(crate) fn of_checked(config: AlarmConfig) -> Self {
        Self {
            config,
            state: AlarmState::InsufficientData,
            values: VecDeque::new(),
            newest: 0,
        }
    }

    /// Its settings.
    #[must_use]
    pub const fn config(&self) -> &AlarmConfig {
        &self.config
    }

    /// Its state, as last evaluated.
    #[must_use]
    pub const fn state(&self) -> AlarmState {
        self.state
    }

    /// The newest value of its evaluation range.
    #[must_use]
    pub fn latest(&self) -> Option<f64> {
        self.values.iter().rev().find_map(|&value| value)
    }

    /// The end of the first period that ends after `now`: when it is worth evaluating again.
    #[must_use]
    pub fn next_evaluation(&self, now: Instant) -> Instant {
        let period = nanos(self.config.query.period);
        Instant::from_nanos(
            (now.as_nanos() / period)
                .saturating_add(1)
                .saturating_mul(period),
        )
    }

    /// Sets the state by hand, as `SetAlarmState` does; the next evaluation may change it again.
    pub const fn set_state(&mut self, state: AlarmState) {
        self.state = state;
    }

    /// Starts anew: periods that end up to `now` do not count.
    pub fn restart(&mut self, now: Instant) {
        self.values.clear();
        self.newest = now.as_nanos() / nanos(self.config.query.period);
        self.state = AlarmState::InsufficientData;
    }

    /// The highest value of its evaluation periods.
    #[must_use]
    pub fn highest(&self) -> Option<f64> {
        let n = self.config.evaluation_periods as usize;
        let newest = self.values.iter().rev().filter_map(|&value| value).take(n);
        newest.reduce(f64::max)
    }

    /// Reads the periods that have ended since the last time, and those that were missing then, and evaluates.
    pub fn evaluate(&mut self, metrics: &Metrics, now: Instant) -> Option<Transition> {
        self.collect(metrics, now);
        let state = self.judge()?;
        if state == self.state {
            return None;
        }
        let reason = self.reason();
        let from = std::mem::replace(&mut self.state, state);
        Some(Transition {
            from,
            to: state,
            at: now,
            reason,
        })
    }

    /// Why it is in its state, by the values that it holds.
    #[must_use]
    pub fn reason(&self) -> AlarmReason {
        let n = self.config.evaluation_periods as usize;
        let real = self.values.iter().filter_map(|&value| value).count();
        let skip = real.saturating_sub(n);
        let counted = || self.values.iter().filter_map(|&value| value).skip(skip);
        let breaches = |value: &f64| {
            self.config
                .comparison
                .breaches(*value, self.config.threshold)
        };
        let shown = counted().count().saturating_sub(5);
        AlarmReason {
            values: counted().skip(shown).collect(),
            breaching: counted().filter(breaches).count() as u32,
            filled: n.saturating_sub(real) as u32,
            datapoints_to_alarm: self.config.datapoints_to_alarm,
            evaluation_periods: self.config.evaluation_periods,
            comparison: self.config.comparison,
            threshold: self.config.threshold,
        }
    }

    fn collect(&mut self, metrics: &Metrics, now: Instant) {
        let period = nanos(self.config.query.period);
        let last = now.as_nanos() / period;
        if last == 0 || last < self.newest {
            return;
        }
        let range = self.config.evaluation_periods as usize + EXTRA;
        let end = |number: u64| Instant::from_nanos(number.saturating_mul(period));
        let read = |number| self.config.query.read(metrics, end(number)).value();
        // Values may come late: what was missing is read again.
        for (back, value) in self.values.iter_mut().rev().enumerate() {
            if value.is_none() {
                *value = read(self.newest.saturating_sub(back as u64));
            }
        }
        let first = (self.newest + 1)
            .max((last + 1).saturating_sub(range as u64))
            .max(1);
        for number in first..=last {
            if self.values.len() == range {
                self.values.pop_front();
            }
            self.values.push_back(read(number));
        }
        self.newest = last;
    }

    /// The state that the values make; `None` keeps the present one.
    fn judge(&self) -> Option<AlarmState> {
        let (m, n) = (
            self.config.datapoints_to_alarm,
            self.config.evaluation_periods,
        );
        let (mut real, mut breaching) = (0, 0);
        for value in self
            .values
            .iter()
            .rev()
            .filter_map(|&value| value)
            .take(n as usize)
        {
            real += 1;
            breaching += u32::from(
                self.config
                    .comparison
                    .breaches(value, self.config.threshold),
            );
        }
        let state = |alarm: bool| {
            Some(if alarm {
                AlarmState::Alarm
            } else {
                AlarmState::Ok
            })
        };
        if real == n || breaching >= m {
            return state(breaching >= m);
        }
        match self.config.missing {
            MissingData::Breaching => state(breaching + (n - real) >= m),
            MissingData::NotBreaching => state(false),
            MissingData::Missing if real == 0 => Some(AlarmState::InsufficientData),
            MissingData::Missing => state(self.is_premature()),
            MissingData::Ignore if breaching == real => None,
            MissingData::Ignore => state(false),
        }
    }

    /// Whether all values breach and the oldest is at least as old as the datapoints to alarm.
    fn is_premature(&self) -> bool {
        let breaches = |value| {
            self.config
                .comparison
                .breaches(value, self.config.threshold)
        };
        let mut oldest = 0;
        for (back, value) in self.values.iter().rev().enumerate() {
            match *value {
                Some(value) if breaches(value) => oldest = back + 1,
                Some(_) => return false,
                None => {}
            }
        }
        oldest >= self.config.datapoints_to_alarm as usize
    }
}

/// The period, never zero.
fn nanos(period: Duration) -> u64 {
    u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(minutes: u64) -> Instant {
        Instant::ORIGIN + MINUTE * minutes as u32
    }

    fn config(m: u32, n: u32, missing: MissingData) -> AlarmConfig {
        AlarmConfig {
            evaluation_periods: n,
            datapoints_to_alarm: m,
            missing,
            ..AlarmConfig::new(Query::new("load").unwrap(), 70.0)
        }
    }

    /// Feeds a row like `0 - X - X` (a minute each) and evaluates at its end, from the given state.
    fn evaluate(row: &str, m: u32, n: u32, missing: MissingData, before: AlarmState) -> AlarmState {
        let mut metrics = Metrics::default();
        let mut minute = 0;
        for point in row.split(' ') {
            minute += 1;
            match point {
                "0" => metrics.record("load", at(minute), 10.0).unwrap(),
                "X" => metrics.record("load", at(minute), 90.0).unwrap(),
                _ => {}
            }
        }
        let mut alarm = Alarm::new(config(m, n, missing)).unwrap();
        alarm.set_state(before);
        alarm.evaluate(&metrics, at(minute));
        alarm.state()
    }

    /// A row of the documentation's tables: the state by missing, ignore (`None`: retained), breaching, notBreaching.
    fn row(row: &str, m: u32, expected: [Option<AlarmState>; 4]) {
        let all = [
            MissingData::Missing,
            MissingData::Ignore,
            MissingData::Breaching,
            MissingData::NotBreaching,
        ];
        for (missing, expected) in all.into_iter().zip(expected) {
            for before in [
                AlarmState::Ok,
                AlarmState::Alarm,
                AlarmState::InsufficientData,
            ] {
                let found = evaluate(row, m, 3, missing, before);
                assert_eq!(
                    found,
                    expected.unwrap_or(before),
                    "{row}, {m} of 3, {missing:?}, {before} before"
                );
            }
        }
    }

    const OK: Option<AlarmState> = Some(AlarmState::Ok);
    const ALARM: Option<AlarmState> = Some(AlarmState::Alarm);
    const INSUFFICIENT: Option<AlarmState> = Some(AlarmState::InsufficientData);

    #[test]
    fn the_documented_table_of_three_out_of_three_holds() {
        row("0 - X - X", 3, [OK, OK, OK, OK]);
        row("0 - - - -", 3, [OK, OK, OK, OK]);
        row("- - - - -", 3, [INSUFFICIENT, None, ALARM, OK]);
        row("0 X X - X", 3, [ALARM, ALARM, ALARM, ALARM]);
        row("- - X - -", 3, [ALARM, None, ALARM, OK]);
    }

    #[test]
    fn the_documented_table_of_two_out_of_three_holds() {
        row("0 - X - X", 2, [ALARM, ALARM, ALARM, ALARM]);
        row("0 0 X 0 X", 2, [ALARM, ALARM, ALARM, ALARM]);
        row("0 - X - -", 2, [OK, OK, ALARM, OK]);
        row("- - - - 0", 2, [OK, OK, ALARM, OK]);
        row("- - - X -", 2, [ALARM, None, ALARM, OK]);
    }

    #[test]
    fn one_breach_after_silence_is_no_alarm_yet() {
        for points in ["- - - - X", "- - - X -"] {
            let found = evaluate(points, 3, 3, MissingData::Missing, AlarmState::Ok);
            assert_eq!(found, AlarmState::Ok, "{points}");
        }
    }

    #[test]
    fn every_comparison_treats_the_threshold_itself_as_its_name_says() {
        let breaches =
            |comparison: Comparison| [1.0, 2.0, 3.0].map(|value| comparison.breaches(value, 2.0));
        assert_eq!(
            breaches(Comparison::GreaterThanOrEqualToThreshold),
            [false, true, true]
        );
        assert_eq!(
            breaches(Comparison::GreaterThanThreshold),
            [false, false, true]
        );
        assert_eq!(
            breaches(Comparison::LessThanThreshold),
            [true, false, false]
        );
        assert_eq!(
            breaches(Comparison::LessThanOrEqualToThreshold),
            [true, true, false]
        );
    }

    #[test]
    fn a_transition_tells_from_where_to_where_and_why() {
        let mut metrics = Metrics::default();
        let mut alarm = Alarm::new(config(2, 3, MissingData::Missing)).unwrap();
        metrics.record("load", at(1), 80.0).unwrap();
        let first = alarm.evaluate(&metrics, at(1)).unwrap();
        assert_eq!(
            (first.from, first.to),
            (AlarmState::InsufficientData, AlarmState::Ok)
        );
        metrics.record("load", at(2), 75.5).unwrap();
        let second = alarm.evaluate(&metrics, at(2)).unwrap();
        assert_eq!(
            (second.from, second.to),
            (AlarmState::Ok, AlarmState::Alarm)
        );
        assert_eq!(
            second.reason.to_string(),
            "2 of the last 3 datapoints [80.0, 75.5] were greater than or equal to the threshold 70, \
             1 missing (2 datapoints to alarm)"
        );
        assert_eq!(alarm.evaluate(&metrics, at(2)), None, "nothing new");
    }

    #[test]
    fn a_late_value_replaces_what_was_missing() {
        let mut metrics = Metrics::default();
        let mut alarm = Alarm::new(config(1, 1, MissingData::Ignore)).unwrap();
        alarm.evaluate(&metrics, at(3));
        assert_eq!(alarm.state(), AlarmState::InsufficientData);
        metrics.record("load", at(3), 99.0).unwrap();
        alarm.evaluate(&metrics, at(3));
        assert_eq!(alarm.state(), AlarmState::Alarm);
    }

    #[test]
    fn a_long_pause_reads_no_more_than_the_range() {
        let mut metrics = Metrics::default();
        let mut alarm = Alarm::new(config(3, 3, MissingData::Missing)).unwrap();
        metrics.record("load", at(1), 1.0).unwrap();
        alarm.evaluate(&metrics, at(1));
        alarm.evaluate(&metrics, Instant::from_nanos(u64::MAX - 1));
        assert_eq!(alarm.state(), AlarmState::InsufficientData);
        assert_eq!(alarm.values.len(), 5);
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let good = config(1, 2, MissingData::Missing);
        let fails = |config: AlarmConfig| Alarm::new(config).unwrap_err().to_string();
        let bad = AlarmConfig {
            threshold: f64::NAN,
            ..good.clone()
        };
        assert_eq!(fails(bad), "threshold: NaN is not finite");
        let bad = AlarmConfig {
            datapoints_to_alarm: 3,
            ..good.clone()
        };
        assert!(fails(bad).starts_with("datapoints_to_alarm: 3 "));
        let bad = AlarmConfig {
            evaluation_periods: 0,
            ..good.clone()
        };
        assert!(fails(bad).starts_with("evaluation_periods: 0 "));
        let bad = AlarmConfig {
            query: good
                .query
                .clone()
                .over(Duration::ZERO, crate::metric::Statistic::Sum),
            ..good
        };
        assert_eq!(fails(bad), "period: must not be zero");
    }

    proptest! {
        /// With all data there, an alarm is a plain count over the last N.
        #[test]
        fn with_nothing_missing_m_of_n_is_a_plain_count(
            points in prop::collection::vec(any::<bool>(), 3..30),
            m in 1u32..4,
        ) {
            let mut metrics = Metrics::default();
            let mut alarm = Alarm::new(config(m, 3, MissingData::Ignore)).unwrap();
            for (minute, &breach) in points.iter().enumerate() {
                let now = at(minute as u64 + 1);
                metrics.record("load", now, if breach { 80.0 } else { 20.0 }).unwrap();
                alarm.evaluate(&metrics, now);
                if minute >= 2 {
                    let count = points[minute - 2..=minute].iter().filter(|&&b| b).count();
                    prop_assert_eq!(alarm.state() == AlarmState::Alarm, count >= m as usize);
                }
            }
        }
    }
}
