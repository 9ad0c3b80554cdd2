//! Target tracking: capacity in proportion to the distance from a target, as AWS does.
//!
//! Two alarms watch one metric that falls as capacity grows (utilisation, requests or backlog per instance). Three periods
//! of three above the target ask for more at once; fifteen of fifteen below nine tenths of it allow less. The capacity is
//! `ceil(current x metric / target)`, where current leaves out what warms up, so that a breach that lasts while instances
//! start is answered once. Scaling in is the more cautious: it goes by the highest of its fifteen periods, and waits for
//! warm-ups and for both cooldowns. After a change both alarms look at new periods only, since the old ones tell of
//! another capacity.
//!
//! The numbers are those of the alarms that EC2 Auto Scaling makes; they are settings here. How AWS's service goes on
//! from there is not published, but for its direction: out in proportion, in with more caution.

use std::time::Duration;

use sim_core::time::Instant;

use super::warming::Warming;
use super::{
    Applied, Capacity, Explanation, LastSeen, Limit, Opinion, PolicyError, PolicyInput, Reason,
    Vote,
};
use crate::alarm::{Alarm, AlarmConfig, AlarmState, Comparison, MissingData};
use crate::metric::{Fallback, Query};

/// Whether a policy may take capacity away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ScaleIn {
    /// It may.
    #[default]
    Enabled,
    /// It never does, and has no say when others do.
    Disabled,
}

/// A target tracking policy.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TargetConfig {
    /// The metric, one value for an instance on average; its period is that of the alarms.
    pub query: Query,
    /// The target. Above zero.
    pub target: f64,
    /// Whether capacity is ever taken away.
    pub scale_in: ScaleIn,
    /// Periods above the target before it scales out. 1 to 1,440, default 3.
    pub out_periods: u32,
    /// Periods below before it scales in. 1 to 1,440, default 15.
    pub in_periods: u32,
    /// The share of the target below which it scales in. Above 0 to 1, default 0.9.
    pub in_ratio: f64,
    /// How long a change outward counts as part of the next one. Default zero, at most 30 days.
    pub scale_out_cooldown: Duration,
    /// How long after a change it takes nothing away. Default zero, at most 30 days.
    pub scale_in_cooldown: Duration,
    /// How long an instance warms up, where the group does not tell. Default zero, at most 30 days.
    pub warmup: Duration,
    /// What it goes by while the metric is missing. Default: nothing changes.
    pub fallback: Fallback,
}

impl TargetConfig {
    /// A policy with AWS's alarms, no cooldowns, and the warm-up left to the group.
    #[must_use]
    pub const fn new(query: Query, target: f64) -> Self {
        Self {
            query,
            target,
            scale_in: ScaleIn::Enabled,
            out_periods: 3,
            in_periods: 15,
            in_ratio: 0.9,
            scale_out_cooldown: Duration::ZERO,
            scale_in_cooldown: Duration::ZERO,
            warmup: Duration::ZERO,
            fallback: Fallback::Hold,
        }
    }

    fn high(&self) -> AlarmConfig {
        AlarmConfig {
            query: self.query.clone(),
            comparison: Comparison::GreaterThanThreshold,
            threshold: self.target,
            evaluation_periods: self.out_periods,
            datapoints_to_alarm: self.out_periods,
            missing: MissingData::Missing,
        }
    }

    fn low(&self) -> AlarmConfig {
        AlarmConfig {
            comparison: Comparison::LessThanThreshold,
            threshold: self.target * self.in_ratio,
            evaluation_periods: self.in_periods,
            datapoints_to_alarm: self.in_periods,
            ..self.high()
        }
    }

    pub(super) fn check(&self) -> Result<(), PolicyError> {
        super::number("target", self.target, |value| value > 0.0, "above zero")?;
        let share = |value| value > 0.0 && value <= 1.0;
        super::number("in_ratio", self.in_ratio, share, "above 0 and at most 1")?;
        super::duration("scale_out_cooldown", self.scale_out_cooldown)?;
        super::duration("scale_in_cooldown", self.scale_in_cooldown)?;
        super::duration("warmup", self.warmup)?;
        Alarm::new(self.high())?;
        Alarm::new(self.low())?;
        super::fallback(self.fallback)?;
        super::period(&self.query)
    }

    pub(super) fn decide(&self, state: &mut TargetState, input: &PolicyInput<'_>) -> Opinion {
        state.high.evaluate(input.metrics, input.now);
        state.low.evaluate(input.metrics, input.now);
        state.warming.expire(input.now);
        let next = state.high.next_evaluation(input.now);
        let mut explanation = Explanation::of(Reason::AtTarget);
        explanation.against = Some(self.target);
        if state.high.state() == AlarmState::InsufficientData
            && let Some(limit) = super::unread(self.query.read(input.metrics, input.now))
        {
            explanation.limits.push(limit);
            // The last value told of the capacity that there was then.
            let (last, base) = state.last.miss(self.fallback, input.capacity.desired);
            return super::fall_back(self.fallback, last, input, explanation, |value| {
                super::ceil(f64::from(base) * value / self.target)
            })
            .again(next);
        }
        let value = state.high.latest();
        explanation.saw = value;
        // The alarm knows a value for some periods more after the metric has gone: it is no older for that, and no newer.
        if let Some(value) = value
            && self.query.read(input.metrics, input.now).value().is_some()
        {
            state.last.read(input.now, value, input.capacity.desired);
        }
        let value = value.unwrap_or(self.target);
        if state.high.state() == AlarmState::Alarm {
            explanation.reason = Reason::AboveTarget;
            return self.outward(value, state, input, explanation).again(next);
        }
        if self.scale_in == ScaleIn::Disabled {
            explanation.limits.push(Limit::ScaleInDisabled);
            return Opinion::stay(input, Vote::Abstain, explanation).again(next);
        }
        if state.low.state() == AlarmState::Alarm {
            explanation.reason = Reason::BelowTarget;
            let highest = state.low.highest().unwrap_or(value);
            return self.inward(highest, state, input, explanation).again(next);
        }
        Opinion::stay(input, Vote::Hold, explanation).again(next)
    }

    fn outward(
        &self,
        value: f64,
        state: &TargetState,
        input: &PolicyInput<'_>,
        mut explanation: Explanation,
    ) -> Opinion {
        let Capacity { desired, .. } = input.capacity;
        let growing = state.growing(input.capacity);
        let recent = match state.out {
            Some((at, added)) if input.now < at + self.scale_out_cooldown => added,
            _ => 0,
        };
        // The metric tells of what serves: what is on its way, or was just added, is part of the answer.
        let current = desired - growing.max(recent).min(desired);
        let wanted = super::ceil(f64::from(current.max(1)) * value / self.target);
        explanation.wanted = Some(wanted);
        if wanted <= desired {
            explanation.limits.push(if growing > 0 {
                Limit::WarmUp { instances: growing }
            } else if recent > 0 {
                let since = state.out.map_or(input.now, |(at, _)| at);
                Limit::Cooldown {
                    until: since + self.scale_out_cooldown,
                }
            } else {
                Limit::AtDesired
            });
            return Opinion::stay(input, Vote::Hold, explanation);
        }
        Opinion::want(input, wanted, explanation)
    }

    fn inward(
        &self,
        value: f64,
        state: &TargetState,
        input: &PolicyInput<'_>,
        mut explanation: Explanation,
    ) -> Opinion {
        let Capacity { desired, .. } = input.capacity;
        let wanted = super::ceil(f64::from(desired) * value.max(0.0) / self.target);
        explanation.wanted = Some(wanted);
        let growing = state.growing(input.capacity);
        if growing > 0 {
            explanation
                .limits
                .push(Limit::WarmUp { instances: growing });
            return Opinion::stay(input, Vote::Hold, explanation);
        }
        if let Some(at) = state.changed
            && input.now < at + self.scale_in_cooldown
        {
            let until = at + self.scale_in_cooldown;
            explanation.limits.push(Limit::Cooldown { until });
            return Opinion::stay(input, Vote::Hold, explanation).again(until);
        }
        if wanted >= desired {
            explanation
                .limits
                .push(Limit::AnticipatedFlapping { needed: wanted });
            return Opinion::stay(input, Vote::Hold, explanation);
        }
        Opinion::want(input, wanted, explanation)
    }
}

/// What a target tracking policy remembers.
#[derive(Debug, Clone)]
pub(super) struct TargetState {
    high: Alarm,
    low: Alarm,
    warmup: Duration,
    /// Instances that changes added and that warm up still.
    warming: Warming,
    /// The last change outward.
    out: Option<(Instant, u32)>,
    /// The last change.
    changed: Option<Instant>,
    last: LastSeen,
}

impl TargetState {
    pub(super) fn new(config: &TargetConfig) -> Self {
        Self {
            high: Alarm::of_checked(config.high()),
            low: Alarm::of_checked(config.low()),
            warmup: config.warmup,
            warming: Warming::default(),
            out: None,
            changed: None,
            last: LastSeen::default(),
        }
    }

    /// Instances that are desired and do not count yet.
    fn growing(&self, capacity: Capacity) -> u32 {
        capacity.growing(self.warming.count())
    }

    pub(super) fn applied(&mut self, applied: &Applied) {
        self.changed = Some(applied.at);
        self.high.restart(applied.at);
        self.low.restart(applied.at);
        let added = applied.to.saturating_sub(applied.from);
        if added == 0 {
            return;
        }
        self.out = Some((applied.at, added));
        if self.warmup.is_zero() {
            return;
        }
        let until = applied.at + self.warmup;
        self.warming.add(until, added);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Metrics;
    use crate::policy::{By, Policy, PolicyConfig, PolicyState};
    use proptest::prelude::*;
    use sim_core::time::Timestamp;

    struct Run {
        policy: Policy,
        state: PolicyState,
        metrics: Metrics,
        minute: u32,
        capacity: Capacity,
        last: Option<super::super::Decision>,
    }

    fn config() -> TargetConfig {
        TargetConfig::new(Query::new("cpu").unwrap(), 0.7)
    }

    impl Run {
        fn new(config: TargetConfig, desired: u32) -> Self {
            let policy = Policy::new("cpu", PolicyConfig::TargetTracking(config)).unwrap();
            Self {
                state: policy.start(),
                policy,
                metrics: Metrics::default(),
                minute: 0,
                capacity: Capacity {
                    min: 1,
                    max: 100,
                    desired,
                    in_service: desired,
                    ..Capacity::default()
                },
                last: None,
            }
        }

        fn minute(&mut self, value: impl Into<Option<f64>>) -> u32 {
            self.minute += 1;
            let now = Instant::ORIGIN + Duration::from_secs(60) * self.minute;
            if let Some(value) = value.into() {
                self.metrics.record("cpu", now, value).unwrap();
            }
            let input = PolicyInput::new(now, Timestamp::UNIX_EPOCH, self.capacity, &self.metrics);
            let decision = self.policy.decide(&mut self.state, &input);
            if matches!(decision.vote, Vote::Out | Vote::In) {
                let applied = Applied {
                    at: now,
                    from: self.capacity.desired,
                    to: decision.desired,
                    by: By::This,
                };
                self.policy.applied(&mut self.state, &applied);
                self.capacity.desired = decision.desired;
            }
            self.last = Some(decision);
            self.capacity.desired
        }

        fn limits(&self) -> Vec<&'static str> {
            let last = self.last.as_ref().unwrap();
            last.explanation.limits.iter().map(Limit::name).collect()
        }
    }

    #[test]
    fn three_minutes_above_scale_out_in_proportion() {
        let mut run = Run::new(config(), 10);
        assert_eq!(
            [run.minute(1.0), run.minute(1.0), run.minute(1.05)],
            [10, 10, 15]
        );
    }

    #[test]
    fn fifteen_minutes_below_nine_tenths_scale_in_by_the_highest_of_them() {
        let mut run = Run::new(config(), 10);
        assert_eq!(run.minute(0.35), 10);
        for _ in 0..13 {
            assert_eq!(run.minute(0.2), 10);
        }
        assert_eq!(run.minute(0.2), 5);
        for _ in 0..14 {
            assert_eq!(
                run.minute(0.14),
                5,
                "only what came after the change counts"
            );
        }
        assert_eq!(run.minute(0.14), 1);
        let mut run = Run::new(config(), 10);
        for _ in 0..40 {
            assert_eq!(run.minute(0.64), 10, "between nine tenths and the target");
        }
    }

    #[test]
    fn a_breach_that_lasts_while_instances_start_is_answered_once() {
        let mut run = Run::new(config(), 10);
        for _ in 0..2 {
            run.minute(1.05);
        }
        assert_eq!(run.minute(1.05), 15);
        run.capacity.pending = 5;
        for _ in 0..3 {
            assert_eq!(run.minute(1.05), 15);
        }
        assert_eq!(run.limits(), ["InstancesWarmingUp"]);
        assert_eq!(run.minute(1.40), 20, "a higher breach adds what is missing");
    }

    #[test]
    fn scaling_in_waits_for_its_cooldown_and_for_warm_ups() {
        let mut run = Run::new(
            TargetConfig {
                scale_in_cooldown: Duration::from_secs(1800),
                in_periods: 1,
                warmup: Duration::from_secs(300),
                ..config()
            },
            10,
        );
        for _ in 0..3 {
            run.minute(1.05);
        }
        assert_eq!(run.minute(0.35), 15);
        assert_eq!(run.limits(), ["InstancesWarmingUp"]);
        for _ in 0..10 {
            assert_eq!(run.minute(0.35), 15);
        }
        assert_eq!(run.limits(), ["CooldownInProgress"]);
        run.minute += 20;
        assert_eq!(run.minute(0.35), 8);
    }

    #[test]
    fn scaling_in_can_be_switched_off() {
        let mut run = Run::new(
            TargetConfig {
                scale_in: ScaleIn::Disabled,
                ..config()
            },
            10,
        );
        for _ in 0..40 {
            assert_eq!(run.minute(0.1), 10);
        }
        assert_eq!(run.limits(), ["ScaleInDisabled"]);
        assert_eq!(run.last.unwrap().vote, Vote::Abstain);
    }

    #[test]
    fn what_would_have_to_be_undone_is_not_done() {
        let mut run = Run::new(config(), 2);
        for _ in 0..20 {
            assert_eq!(run.minute(0.6), 2);
        }
        assert_eq!(run.limits(), ["AutoScalingAnticipatedFlapping"]);
    }

    #[test]
    fn a_missing_metric_holds_or_falls_back() {
        let mut run = Run::new(config(), 10);
        assert_eq!(run.minute(None), 10);
        assert_eq!(run.limits(), ["MetricMissing"]);
        assert_eq!(run.last.as_ref().unwrap().vote, Vote::Hold);
        let fallback = |fallback| TargetConfig {
            fallback,
            ..config()
        };
        assert_eq!(
            Run::new(fallback(Fallback::Capacity(25)), 10).minute(None),
            25
        );
        assert_eq!(
            Run::new(fallback(Fallback::Value(1.4)), 10).minute(None),
            20
        );
        let last = Fallback::LastValue(Duration::from_secs(600));
        let mut run = Run::new(fallback(last), 10);
        run.minute(0.35);
        for _ in 0..4 {
            assert_eq!(run.minute(None), 10, "its alarm has data still");
        }
        assert_eq!([run.minute(None), run.minute(None)], [5, 5], "and once");
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let fails = |config: TargetConfig| config.check().unwrap_err().to_string();
        let target = f64::INFINITY;
        assert_eq!(
            fails(TargetConfig { target, ..config() }),
            "target: inf is not above zero"
        );
        let in_ratio = 0.0;
        assert!(
            fails(TargetConfig {
                in_ratio,
                ..config()
            })
            .starts_with("in_ratio: 0 ")
        );
        let out_periods = 0;
        assert!(
            fails(TargetConfig {
                out_periods,
                ..config()
            })
            .starts_with("alarm: ")
        );
        let warmup = Duration::MAX;
        assert!(fails(TargetConfig { warmup, ..config() }).starts_with("warmup: "));
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds_and_is_the_same_each_time(
            values in prop::collection::vec(prop::option::of(-1.0..30.0f64), 1..60),
            desired in 1u32..100,
        ) {
            let mut one = Run::new(config(), desired);
            let mut other = Run::new(config(), desired);
            for value in values {
                let found = one.minute(value);
                prop_assert!((1..=100).contains(&found));
                prop_assert_eq!(found, other.minute(value));
                prop_assert_eq!(&one.last, &other.last);
            }
        }
    }

    #[test]
    fn instances_that_are_replaced_are_no_growth() {
        let mut run = Run::new(config(), 10);
        run.capacity.pending = 10;
        for _ in 0..2 {
            run.minute(1.4);
        }
        assert_eq!(run.minute(1.4), 20);
    }

    #[test]
    fn a_fallback_value_does_not_compound() {
        let fallback = Fallback::Value(1.4);
        let mut run = Run::new(
            TargetConfig {
                fallback,
                ..config()
            },
            2,
        );
        run.minute(0.7);
        let mut found = Vec::new();
        for _ in 0..20 {
            found.push(run.minute(None));
        }
        assert_eq!(found.last(), Some(&4), "{found:?}");
    }

    #[test]
    fn the_last_value_ages_from_when_it_was_read() {
        let fallback = Fallback::LastValue(Duration::from_secs(400));
        let mut run = Run::new(
            TargetConfig {
                fallback,
                ..config()
            },
            10,
        );
        for _ in 0..3 {
            run.minute(0.7);
        }
        run.minute(None);
        let policy = &run.state;
        let super::super::Memory::Target(state) = &policy.0 else {
            panic!("another policy's state");
        };
        let read = Instant::ORIGIN + Duration::from_secs(180);
        assert_eq!(state.last.read.map(|(at, ..)| at), Some(read));
    }
}
