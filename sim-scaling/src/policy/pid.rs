//! A controller: proportional, integral, derivative, with headroom.
//!
//! The error is how far the metric is above its target, as a share of it. The capacity is what serves now, times
//! `1 + kp x error + ki x integral + kd x slope`, and the headroom on top. The integral is held to one, and stands still while
//! the capacity is at a bound (no wind-up); within the dead band nothing changes.

use sim_core::time::Instant;

use super::{Explanation, LastSeen, Limit, Opinion, PolicyError, PolicyInput, Reason, Vote};
use crate::metric::{Fallback, Query};

/// A PID policy.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PidConfig {
    /// The metric: an instance's value on average.
    pub query: Query,
    /// The target. Above zero.
    pub target: f64,
    /// The weight of the error. 0 to 10, default 0.8.
    pub kp: f64,
    /// The weight of the error's integral, in shares a minute. 0 to 10, default 0.05.
    pub ki: f64,
    /// The weight of the error's slope, in shares a minute. 0 to 10, default 0.3.
    pub kd: f64,
    /// Capacity beyond what the controller asks for, as a share. 0 to 10, default 0.
    pub headroom: f64,
    /// Errors that are left alone. 0 to below 1, default 0.05.
    pub dead_band: f64,
    /// What it goes by while the metric is missing. Default: nothing changes.
    pub fallback: Fallback,
}

impl PidConfig {
    /// A controller with cautious weights.
    #[must_use]
    pub const fn new(query: Query, target: f64) -> Self {
        Self {
            query,
            target,
            kp: 0.8,
            ki: 0.05,
            kd: 0.3,
            headroom: 0.0,
            dead_band: 0.05,
            fallback: Fallback::Hold,
        }
    }

    pub(super) fn check(&self) -> Result<(), PolicyError> {
        super::number("target", self.target, |value| value > 0.0, "above zero")?;
        super::period(&self.query)?;
        super::fallback(self.fallback)?;
        let weight = |value| (0.0..=10.0).contains(&value);
        for (field, value) in [
            ("kp", self.kp),
            ("ki", self.ki),
            ("kd", self.kd),
            ("headroom", self.headroom),
        ] {
            super::number(field, value, weight, "between 0 and 10")?;
        }
        let share = |value| (0.0..1.0).contains(&value);
        super::number("dead_band", self.dead_band, share, "between 0 and below 1")
    }

    pub(super) fn decide(&self, state: &mut PidState, input: &PolicyInput<'_>) -> Opinion {
        let mut explanation = Explanation::of(Reason::AtTarget);
        explanation.against = Some(self.target);
        let next = input.now + self.query.period;
        let reading = self.query.read(input.metrics, input.now);
        let capacity = input.capacity;
        let Some(value) = reading.value() else {
            explanation.limits.extend(super::unread(reading));
            let (last, base) = state.seen.miss(self.fallback, capacity.desired);
            return super::fall_back(self.fallback, last, input, explanation, |value| {
                super::ceil(f64::from(base) * value / self.target)
            })
            .again(next);
        };
        explanation.saw = Some(value);
        let error = value / self.target - 1.0;
        let (minutes, slope) = match state.last {
            // One step a period: over a shorter time the slope would be all noise.
            Some((at, before)) if input.now >= at + self.query.period => {
                let minutes = (input.now - at).as_secs_f64() / 60.0;
                (minutes, (error - before) / minutes)
            }
            Some((at, _)) => {
                let next = at + self.query.period;
                return Opinion::stay(input, Vote::Hold, explanation).again(next);
            }
            None => (0.0, 0.0),
        };
        state.last = Some((input.now, error));
        state.seen.read(input.now, value, capacity.desired);
        let at_bound = (error > 0.0 && capacity.desired >= capacity.max)
            || (error < 0.0 && capacity.desired <= capacity.min);
        if !at_bound {
            state.integral = (state.integral + error * minutes).clamp(-1.0, 1.0);
        }
        if error.abs() <= self.dead_band {
            explanation
                .limits
                .push(Limit::Tolerance { ratio: error + 1.0 });
            return Opinion::stay(input, Vote::Hold, explanation).again(next);
        }
        explanation.reason = if error > 0.0 {
            Reason::AboveTarget
        } else {
            Reason::BelowTarget
        };
        let factor = 1.0 + self.kp * error + self.ki * state.integral + self.kd * slope;
        let serving = f64::from(capacity.in_service.saturating_sub(capacity.warming).max(1));
        let wanted = super::ceil(serving * factor.max(0.0) * (1.0 + self.headroom));
        let growing = capacity.growing(0);
        if wanted < capacity.desired && growing > 0 {
            explanation.wanted = Some(wanted);
            explanation
                .limits
                .push(Limit::WarmUp { instances: growing });
            return Opinion::stay(input, Vote::Hold, explanation).again(next);
        }
        Opinion::want(input, wanted, explanation).again(next)
    }
}

/// What the controller remembers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PidState {
    /// The last error, and when.
    last: Option<(Instant, f64)>,
    seen: LastSeen,
    /// The errors summed over minutes, held to one.
    integral: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Metrics;
    use crate::policy::{Capacity, Policy, PolicyConfig};
    use sim_core::time::Timestamp;
    use std::time::Duration;

    /// The load of a group and the capacity that a controller finds for it, minute by minute.
    fn run(load: impl Fn(u32) -> f64, minutes: u32) -> Vec<u32> {
        let config = PidConfig::new(Query::new("used").unwrap(), 0.7);
        let policy = Policy::new("pid", PolicyConfig::Pid(config)).unwrap();
        let mut state = policy.start();
        let (mut desired, mut all) = (10, Vec::new());
        for minute in 1..=minutes {
            let now = Instant::ORIGIN + Duration::from_secs(60) * minute;
            let mut metrics = Metrics::default();
            metrics
                .record("used", now, load(minute) / f64::from(desired))
                .unwrap();
            let capacity = Capacity {
                min: 1,
                max: 30,
                desired,
                in_service: desired,
                ..Capacity::default()
            };
            let input = PolicyInput::new(now, Timestamp::UNIX_EPOCH, capacity, &metrics);
            desired = policy.decide(&mut state, &input).desired;
            all.push(desired);
        }
        all
    }

    #[test]
    fn it_settles_near_the_target_from_both_sides() {
        for (load, needed) in [(14.0, 20), (3.5, 5)] {
            let found = *run(|_| load, 40).last().unwrap();
            assert!(found.abs_diff(needed) <= 1, "{found} for {needed}");
        }
    }

    #[test]
    fn an_overload_that_no_capacity_meets_leaves_no_debt() {
        let all = run(|minute| if minute < 60 { 500.0 } else { 3.5 }, 75);
        assert_eq!(all[50], 30);
        assert!(*all.last().unwrap() <= 6, "{all:?}");
    }

    #[test]
    fn weights_out_of_range_are_refused_by_name() {
        let mut config = PidConfig::new(Query::new("used").unwrap(), 0.7);
        config.kd = f64::INFINITY;
        assert!(
            config
                .check()
                .unwrap_err()
                .to_string()
                .starts_with("kd: inf ")
        );
    }

    #[test]
    fn a_fallback_does_not_compound() {
        for fallback in [
            Fallback::LastValue(Duration::from_secs(6000)),
            Fallback::Value(1.4),
        ] {
            let mut config = PidConfig::new(Query::new("used").unwrap(), 0.7);
            config.fallback = fallback;
            let policy = Policy::new("pid", PolicyConfig::Pid(config)).unwrap();
            let (mut state, mut desired) = (policy.start(), 2);
            let mut metrics = Metrics::default();
            for minute in 1..=6 {
                let now = Instant::ORIGIN + Duration::from_secs(60) * minute;
                if minute == 1 {
                    metrics.record("used", now, 1.4).unwrap();
                }
                let capacity = Capacity {
                    min: 1,
                    max: 30,
                    desired,
                    in_service: desired,
                    ..Capacity::default()
                };
                let input = PolicyInput::new(now, Timestamp::UNIX_EPOCH, capacity, &metrics);
                let found = policy.decide(&mut state, &input).desired;
                if minute > 2 {
                    assert_eq!(found, desired, "{fallback:?}");
                }
                desired = found;
            }
            assert!(desired > 2, "{fallback:?}");
        }
    }

    #[test]
    fn a_question_in_between_is_no_step_of_the_controller() {
        let config = PidConfig::new(Query::new("used").unwrap(), 0.7);
        let policy = Policy::new("pid", PolicyConfig::Pid(config)).unwrap();
        let mut state = policy.start();
        let mut metrics = Metrics::default();
        let mut ask = |millis, value| {
            let now = Instant::ORIGIN + Duration::from_millis(millis);
            metrics.record("used", now, value).unwrap();
            let capacity = Capacity {
                min: 1,
                max: 100,
                desired: 10,
                in_service: 10,
                ..Capacity::default()
            };
            let input = PolicyInput::new(now, Timestamp::UNIX_EPOCH, capacity, &metrics);
            let decision = policy.decide(&mut state, &input);
            (decision.desired, decision.next)
        };
        ask(60_000, 0.7);
        let step = Instant::ORIGIN + Duration::from_secs(120);
        assert_eq!(ask(60_001, 0.9), (10, Some(step)));
        assert!(ask(120_000, 0.8).0 < 15);
    }
}
