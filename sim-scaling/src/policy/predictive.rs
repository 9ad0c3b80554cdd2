//! Ahead of time: a forecast for each hour from the hours of the days and weeks before, as AWS's predictive scaling.
//!
//! The load is averaged over each hour and learned for its hour of the day and, once two weeks are known, for its hour of the
//! week. The need is the forecast divided by what an instance should carry. It is a floor: the policy launches what an hour
//! will need before it begins, and never takes anything away, though it lets others do so down to its floor.
//!
//! Source: "Predictive scaling for Amazon EC2 Auto Scaling": forecasts by the hour from at least a day of history, the
//! scheduling buffer, and the behaviour when the forecast is above the greatest capacity.

use std::time::Duration;

use super::{Bounds, Explanation, Limit, Opinion, PolicyError, PolicyInput, Reason, Vote};
use crate::forecast::Season;
use crate::metric::Query;

/// Hours of a week.
const WEEK: usize = 168;

/// What is done with a forecast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PredictiveMode {
    /// It is shown in the explanation only.
    #[default]
    ForecastOnly,
    /// It is acted upon.
    ForecastAndScale,
}

/// What happens when the forecast asks for more than the greatest capacity.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum MaxCapacityBreach {
    /// The greatest capacity is kept.
    #[default]
    HonorMaxCapacity,
    /// The greatest capacity is raised to the forecast and so many percent. 0 to 100.
    IncreaseMaxCapacity {
        /// Percent above the forecast.
        buffer: f64,
    },
}

/// A predictive policy.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PredictiveConfig {
    /// The whole load of the group.
    pub load: Query,
    /// The load that an instance should carry: its target. Above zero.
    pub target: f64,
    /// What is done with the forecast. Default: it is shown only.
    pub mode: PredictiveMode,
    /// How long before an hour its capacity should be there. Default 300 s, at most one hour.
    pub scheduling_buffer: Duration,
    /// What happens when the forecast is above the greatest capacity.
    pub max_capacity_breach: MaxCapacityBreach,
}

impl PredictiveConfig {
    /// A policy that shows its forecast.
    #[must_use]
    pub const fn new(load: Query, target: f64) -> Self {
        Self {
            load,
            target,
            mode: PredictiveMode::ForecastOnly,
            scheduling_buffer: Duration::from_secs(300),
            max_capacity_breach: MaxCapacityBreach::HonorMaxCapacity,
        }
    }

    pub(super) fn check(&self) -> Result<(), PolicyError> {
        super::number("target", self.target, |value| value > 0.0, "above zero")?;
        super::period(&self.load)?;
        if self.scheduling_buffer > Duration::from_secs(3600) {
            return Err(PolicyError::Duration {
                field: "scheduling_buffer",
                value: self.scheduling_buffer,
                range: "at most one hour",
            });
        }
        if let MaxCapacityBreach::IncreaseMaxCapacity { buffer } = self.max_capacity_breach {
            let percent = |value| (0.0..=100.0).contains(&value);
            super::number("buffer", buffer, percent, "between 0 and 100")?;
        }
        Ok(())
    }

    pub(super) fn decide(&self, state: &mut PredictiveState, input: &PolicyInput<'_>) -> Opinion {
        let mut explanation = Explanation::of(Reason::Forecast);
        let second = input.time.as_unix_seconds();
        let hour = second.div_euclid(3600);
        let reading = self.load.read(input.metrics, input.now);
        // A value tells of the time before it: that of nine sharp belongs to the hour before.
        let told = (input.time - Duration::from_nanos(1)).as_unix_seconds();
        state.learn(
            told.div_euclid(3600),
            reading.value().map(|load| load.max(0.0)),
        );
        explanation.saw = reading.value();
        explanation.limits.extend(super::unread(reading));
        let next = input.now + self.load.period;
        // The hour that is, and the one that begins within the buffer.
        let buffer = i64::try_from(self.scheduling_buffer.as_secs()).unwrap_or(3600);
        let ahead = (second + buffer).div_euclid(3600);
        let forecasts = [hour, ahead].map(|hour| state.forecast(hour));
        let Some(forecast) = forecasts.into_iter().flatten().reduce(f64::max) else {
            explanation.limits.push(Limit::TooLittleHistory);
            return Opinion::stay(input, Vote::Abstain, explanation).again(next);
        };
        explanation.against = Some(forecast);
        let wanted = super::ceil(forecast / self.target);
        explanation.wanted = Some(wanted);
        if self.mode == PredictiveMode::ForecastOnly {
            explanation.limits.push(Limit::ForecastOnly);
            return Opinion::stay(input, Vote::Abstain, explanation).again(next);
        }
        let mut input = *input;
        let mut bounds = None;
        if wanted > input.capacity.max
            && let MaxCapacityBreach::IncreaseMaxCapacity { buffer } = self.max_capacity_breach
        {
            input.capacity.max = super::ceil(f64::from(wanted) * (1.0 + buffer / 100.0));
            bounds = Some(Bounds {
                min: None,
                max: Some(input.capacity.max),
            });
        }
        let mut opinion = Opinion::want(&input, wanted, explanation).again(next);
        opinion.bounds = bounds;
        opinion.floor = Some(opinion.desired);
        if opinion.vote != Vote::Out {
            opinion.vote = Vote::Abstain;
            opinion.desired = input.capacity.desired;
        }
        opinion
    }
}

/// What the policy has learned: 24 hours of a day and 168 of a week.
#[derive(Debug, Clone)]
pub(super) struct PredictiveState {
    day: Season,
    week: Season,
    /// The hour that is being averaged: its number, the sum and the count.
    hour: Option<(i64, f64, u32)>,
}

impl PredictiveState {
    pub(super) fn new() -> Self {
        Self {
            day: Season::new(24),
            week: Season::new(WEEK),
            hour: None,
        }
    }

    fn learn(&mut self, hour: i64, load: Option<f64>) {
        if let Some((current, sum, count)) = self.hour
            && current != hour
        {
            if count > 0 && current < hour {
                let average = (sum / f64::from(count)) as f32;
                self.day.observe(slot(current), average);
                self.week.observe(slot(current), average);
            }
            self.hour = None;
        }
        let (_, sum, count) = self.hour.get_or_insert((hour, 0.0, 0));
        if let Some(load) = load {
            *sum += load;
            *count += 1;
        }
    }

    /// The load of an hour, by its hour of the week or, until two weeks are known, of the day.
    fn forecast(&self, hour: i64) -> Option<f64> {
        let week = (self.week.cycles(slot(hour)) >= 2).then(|| self.week.forecast(slot(hour)));
        let found = week.flatten().or_else(|| self.day.forecast(slot(hour)));
        found.map(|(mean, _)| f64::from(mean))
    }
}

/// The hour within the week; the day's season takes it modulo 24.
fn slot(hour: i64) -> usize {
    hour.rem_euclid(WEEK as i64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Metrics;
    use crate::policy::{Capacity, Decision, Policy, PolicyConfig};
    use sim_core::time::{Instant, Timestamp};

    /// Days of quarter hours, 10 times as much between 9 and 17; the decision at each.
    fn run(change: impl FnOnce(&mut PredictiveConfig), days: u64) -> Vec<Decision> {
        let mut config = PredictiveConfig::new(Query::new("load").unwrap(), 10.0);
        config.load.period = Duration::from_secs(900);
        config.mode = PredictiveMode::ForecastAndScale;
        config.scheduling_buffer = Duration::from_secs(900);
        change(&mut config);
        let policy = Policy::new("ahead", PolicyConfig::Predictive(config)).unwrap();
        let mut state = policy.start();
        let mut metrics = Metrics::default();
        (1..=days * 96)
            .map(|quarter| {
                let elapsed = Duration::from_secs(900 * quarter);
                let now = Instant::ORIGIN + elapsed;
                let busy = (9..17).contains(&((quarter - 1) / 4 % 24));
                metrics
                    .record("load", now, if busy { 1000.0 } else { 100.0 })
                    .unwrap();
                let capacity = Capacity {
                    min: 1,
                    max: 80,
                    desired: 20,
                    ..Capacity::default()
                };
                let time = Timestamp::UNIX_EPOCH + elapsed;
                policy.decide(&mut state, &PolicyInput::new(now, time, capacity, &metrics))
            })
            .collect()
    }

    #[test]
    fn the_first_day_has_no_forecast_and_the_second_is_ahead_of_its_hours() {
        let all = run(|_| {}, 2);
        assert_eq!(all[10].explanation.limits, [Limit::TooLittleHistory]);
        // Quarter 96 + 35 ends at 8:45 of the second day, the buffer before nine.
        let early = &all[96 + 34 - 1];
        assert_eq!((early.vote, early.floor), (Vote::Abstain, Some(10)));
        let ahead = &all[96 + 35 - 1];
        assert_eq!(
            (ahead.vote, ahead.desired),
            (Vote::Out, 80),
            "100 wanted, 80 allowed"
        );
    }

    #[test]
    fn a_forecast_above_the_greatest_capacity_may_raise_it() {
        let breach = MaxCapacityBreach::IncreaseMaxCapacity { buffer: 10.0 };
        let all = run(|config| config.max_capacity_breach = breach, 2);
        let ahead = &all[96 + 35 - 1];
        assert_eq!(ahead.desired, 100);
        assert_eq!(ahead.bounds.and_then(|bounds| bounds.max), Some(110));
    }

    #[test]
    fn a_forecast_can_be_shown_without_being_followed() {
        let all = run(|config| config.mode = PredictiveMode::ForecastOnly, 2);
        let ahead = &all[96 + 35 - 1];
        assert_eq!(ahead.vote, Vote::Abstain);
        assert_eq!(ahead.explanation.wanted, Some(100));
        assert_eq!(ahead.explanation.limits, [Limit::ForecastOnly]);
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let mut config = PredictiveConfig::new(Query::new("load").unwrap(), 10.0);
        config.max_capacity_breach = MaxCapacityBreach::IncreaseMaxCapacity { buffer: 101.0 };
        assert!(
            config
                .check()
                .unwrap_err()
                .to_string()
                .starts_with("buffer: 101 ")
        );
        config.scheduling_buffer = Duration::from_secs(3601);
        assert!(
            config
                .check()
                .unwrap_err()
                .to_string()
                .starts_with("scheduling_buffer: ")
        );
    }
}
