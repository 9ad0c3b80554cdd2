//! An adjustment that grows with the breach: EC2's and Application Auto Scaling's step scaling.
//!
//! The steps' bounds are relative to the alarm's threshold. At or above the threshold the lower bound is inclusive and the
//! upper one exclusive; below it is the other way round. Together the steps must leave no gap and no overlap.
//!
//! With a warm-up, instances that warm up are not part of the current capacity when scaling out: several breaches of the
//! same step make one activity, and a higher step adds only what is missing. Nothing is taken away while instances warm up.
//! With a cooldown instead (Application Auto Scaling), the capacity that was added last counts as part of the next step.
//!
//! Source: "Step and simple scaling policies for Amazon EC2 Auto Scaling", EC2 Auto Scaling User Guide; its examples are
//! tests below.

use std::time::Duration;

use sim_core::time::Instant;

use super::warming::Warming;
use super::{Applied, By, Explanation, Limit, Opinion, PolicyError, PolicyInput, Reason, Vote};
use crate::alarm::{Alarm, AlarmConfig, AlarmState};

/// Most steps, as EC2's.
pub const STEPS_LIMIT: usize = 20;

/// How a capacity is adjusted.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Adjustment {
    /// By so many instances; below zero takes away.
    ChangeInCapacity(i32),
    /// To so many instances.
    ExactCapacity(u32),
    /// By so many percent of the current capacity; below zero takes away.
    PercentChangeInCapacity(f64),
}

impl Adjustment {
    /// The capacity that it makes of `current`.
    ///
    /// Percentages round as AWS says: above 1 down, below -1 up, what lies between 0 and 1 to 1 and between 0 and -1 to -1;
    /// and to at least `min_magnitude` instances, where that is not 0. A percentage of no instances is none.
    ///
    /// ```
    /// use sim_scaling::policy::step::Adjustment;
    ///
    /// assert_eq!(Adjustment::PercentChangeInCapacity(30.0).apply(11, 0), 14); // 3.3 is 3
    /// assert_eq!(Adjustment::PercentChangeInCapacity(25.0).apply(4, 2), 6); // 1, at least 2
    /// ```
    #[must_use]
    pub fn apply(self, current: u32, min_magnitude: u32) -> u32 {
        match self {
            Self::ChangeInCapacity(change) => current.saturating_add_signed(change),
            Self::ExactCapacity(capacity) => capacity,
            Self::PercentChangeInCapacity(percent) => {
                let raw = f64::from(current) * percent / 100.0;
                if raw == 0.0 || raw.is_nan() {
                    return current;
                }
                let magnitude = raw.abs();
                // A product such as 10 x 30 / 100 may come out a hair below a whole number.
                let whole = (magnitude + 1e-9).floor().max(1.0) as u32;
                let change = whole.max(min_magnitude);
                if raw > 0.0 {
                    current.saturating_add(change)
                } else {
                    current.saturating_sub(change)
                }
            }
        }
    }

    fn check(self) -> Result<(), PolicyError> {
        match self {
            Self::PercentChangeInCapacity(percent) => super::number(
                "adjustment",
                percent,
                |p| p >= -100.0,
                "a percentage of at least -100",
            ),
            Self::ChangeInCapacity(_) | Self::ExactCapacity(_) => Ok(()),
        }
    }
}

/// One step: a range of breaches and what is done.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Step {
    /// The lower bound, relative to the threshold; `None` is minus infinity.
    pub lower: Option<f64>,
    /// The upper bound, relative to the threshold; `None` is infinity.
    pub upper: Option<f64>,
    /// What is done.
    pub adjustment: Adjustment,
}

/// The steps do not cover each breach once.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// There are none, or too many.
    #[error("there are {count}, must be 1 to {STEPS_LIMIT}")]
    Count {
        /// How many were given.
        count: usize,
    },
    /// A bound is not finite, or the lower one is not below the upper one.
    #[error("step {step}: the bounds {lower:?} and {upper:?} are no range")]
    Range {
        /// Which step, from 0.
        step: usize,
        /// Its lower bound.
        lower: Option<f64>,
        /// Its upper bound.
        upper: Option<f64>,
    },
    /// A step without any bound.
    #[error("step {step}: lower and upper cannot both be open")]
    Unbounded {
        /// Which step, from 0.
        step: usize,
    },
    /// Between two steps there is a gap.
    #[error("there is a gap between {from} and {to}")]
    Gap {
        /// Where it starts.
        from: f64,
        /// Where it ends.
        to: f64,
    },
    /// Two steps overlap.
    #[error("two steps overlap at {at}")]
    Overlap {
        /// Where.
        at: f64,
    },
    /// A negative lower bound needs a step that is open below.
    #[error("no step is open below, though one begins at {lowest}")]
    NotOpenBelow {
        /// The lowest bound.
        lowest: f64,
    },
    /// A positive upper bound needs a step that is open above.
    #[error("no step is open above, though one ends at {highest}")]
    NotOpenAbove {
        /// The highest bound.
        highest: f64,
    },
    /// Steps of one policy adjust in one way.
    #[error("step {step}: the kind of adjustment differs from the first step's")]
    Mixed {
        /// Which step, from 0.
        step: usize,
    },
}

/// A step scaling policy.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StepConfig {
    /// When it acts; its latest value picks the step.
    pub alarm: AlarmConfig,
    /// 1 to 20 steps.
    pub steps: Vec<Step>,
    /// For a change in percent, the least number of instances; 0 for none.
    pub min_adjustment_magnitude: u32,
    /// How long an instance warms up: until then it is not part of the current capacity. Zero leaves that to the group,
    /// which tells how many instances warm up. At most 30 days.
    pub warmup: Duration,
    /// How long a change is waited for, as Application Auto Scaling does. Zero for none, as EC2 does. At most 30 days.
    pub cooldown: Duration,
}

impl StepConfig {
    pub(super) fn check(&self) -> Result<(), PolicyError> {
        Alarm::new(self.alarm.clone())?;
        super::period(&self.alarm.query)?;
        super::duration("warmup", self.warmup)?;
        super::duration("cooldown", self.cooldown)?;
        for step in &self.steps {
            step.adjustment.check()?;
        }
        Ok(check(&self.steps)?)
    }

    /// The step for a value.
    fn step(&self, value: f64) -> Option<Step> {
        self.step_for(value - self.alarm.threshold)
    }

    /// The capacity that a breach makes of another, whatever the alarm says.
    pub(super) fn adjust(&self, breach: f64, current: u32) -> Option<u32> {
        let step = self.step_for(breach)?;
        Some(
            step.adjustment
                .apply(current, self.min_adjustment_magnitude),
        )
    }

    /// The step for a distance from the threshold.
    fn step_for(&self, breach: f64) -> Option<Step> {
        let above = breach > 0.0 || (breach == 0.0 && self.alarm.comparison.is_upward());
        self.steps.iter().copied().find(|step| {
            let lower = step.lower.unwrap_or(f64::NEG_INFINITY);
            let upper = step.upper.unwrap_or(f64::INFINITY);
            if above {
                lower <= breach && breach < upper
            } else {
                lower < breach && breach <= upper
            }
        })
    }

    pub(super) fn decide(&self, state: &mut StepState, input: &PolicyInput<'_>) -> Opinion {
        state.alarm.evaluate(input.metrics, input.now);
        state.warming.expire(input.now);
        let mut explanation = Explanation::of(Reason::AlarmQuiet);
        explanation.saw = state.alarm.latest();
        explanation.against = Some(self.alarm.threshold);
        let next = state.alarm.next_evaluation(input.now);
        if state.alarm.state() != AlarmState::Alarm {
            return Opinion::stay(input, Vote::Abstain, explanation).again(next);
        }
        explanation.reason = Reason::AlarmBreached;
        let step = state.alarm.latest().and_then(|value| self.step(value));
        let Some(step) = step else {
            // A breach by filled-in values alone, or one that no step covers.
            return Opinion::stay(input, Vote::Abstain, explanation).again(next);
        };
        self.act(step, state, input, explanation).again(next)
    }

    fn act(
        &self,
        step: Step,
        state: &StepState,
        input: &PolicyInput<'_>,
        mut explanation: Explanation,
    ) -> Opinion {
        let capacity = input.capacity;
        let apply = |current| {
            step.adjustment
                .apply(current, self.min_adjustment_magnitude)
        };
        let growing = capacity.growing(state.warming.count());
        let current = capacity.desired - growing;
        let outward = apply(current);
        if outward > current {
            // Counted from what serves: what is on its way is part of the answer.
            let last = match state.last {
                Some((at, added)) if input.now < at + self.cooldown => added,
                _ => 0,
            };
            // Under a cooldown, what was added last is taken off what this step would add.
            let base = capacity.desired.saturating_sub(last).min(current);
            let wanted = apply(base);
            explanation.wanted = Some(wanted);
            if wanted <= capacity.desired && (growing > 0 || last > 0) {
                explanation.limits.push(if growing > 0 {
                    Limit::WarmUp { instances: growing }
                } else {
                    Limit::Cooldown {
                        until: state.last.map_or(input.now, |(at, _)| at + self.cooldown),
                    }
                });
                return Opinion::stay(input, Vote::Hold, explanation);
            }
            return Opinion::want(input, wanted, explanation);
        }
        let wanted = apply(capacity.desired);
        explanation.wanted = Some(wanted);
        if wanted < capacity.desired && growing > 0 {
            explanation
                .limits
                .push(Limit::WarmUp { instances: growing });
            return Opinion::stay(input, Vote::Hold, explanation);
        }
        if wanted < capacity.desired
            && let Some((at, _)) = state.last
            && input.now < at + self.cooldown
        {
            let until = at + self.cooldown;
            explanation.limits.push(Limit::Cooldown { until });
            return Opinion::stay(input, Vote::Hold, explanation).again(until);
        }
        Opinion::want(input, wanted, explanation)
    }
}

/// Checks that the steps leave no gap and no overlap.
fn check(steps: &[Step]) -> Result<(), StepError> {
    if steps.is_empty() || steps.len() > STEPS_LIMIT {
        return Err(StepError::Count { count: steps.len() });
    }
    for (index, step) in steps.iter().enumerate() {
        if steps.len() > 1 && step.lower.is_none() && step.upper.is_none() {
            return Err(StepError::Unbounded { step: index });
        }
        let lower = step.lower.unwrap_or(f64::MIN);
        let upper = step.upper.unwrap_or(f64::MAX);
        if !(lower.is_finite() && upper.is_finite() && lower < upper) {
            return Err(StepError::Range {
                step: index,
                lower: step.lower,
                upper: step.upper,
            });
        }
        if std::mem::discriminant(&step.adjustment) != std::mem::discriminant(&steps[0].adjustment)
        {
            return Err(StepError::Mixed { step: index });
        }
    }
    let mut sorted = steps.to_vec();
    sorted.sort_by(|one, other| {
        let lower = |step: &Step| step.lower.unwrap_or(f64::NEG_INFINITY);
        lower(one).total_cmp(&lower(other))
    });
    for pair in sorted.windows(2) {
        // In order of their lower bounds, so only the first may be open below and only the last open above.
        let (Some(upper), Some(lower)) = (pair[0].upper, pair[1].lower) else {
            let at = pair[1].lower.or(pair[1].upper).unwrap_or(f64::MIN);
            return Err(StepError::Overlap { at });
        };
        if upper < lower {
            return Err(StepError::Gap {
                from: upper,
                to: lower,
            });
        }
        if upper > lower {
            return Err(StepError::Overlap { at: lower });
        }
    }
    let lowest = sorted.first().and_then(|step| step.lower);
    if let Some(lowest) = lowest.filter(|&lowest| lowest < 0.0) {
        return Err(StepError::NotOpenBelow { lowest });
    }
    let highest = sorted.last().and_then(|step| step.upper);
    if let Some(highest) = highest.filter(|&highest| highest > 0.0) {
        return Err(StepError::NotOpenAbove { highest });
    }
    Ok(())
}

/// What a step policy remembers.
#[derive(Debug, Clone)]
pub(super) struct StepState {
    alarm: Alarm,
    /// Instances that its changes added and that warm up still.
    warming: Warming,
    /// Its last change outward: when, and how many.
    last: Option<(Instant, u32)>,
}

impl StepState {
    pub(super) fn new(config: &StepConfig) -> Self {
        Self {
            alarm: Alarm::of_checked(config.alarm.clone()),
            warming: Warming::default(),
            last: None,
        }
    }

    pub(super) fn applied(&mut self, config: &StepConfig, applied: &Applied) {
        let added = applied.to.saturating_sub(applied.from);
        if added > 0 && !config.warmup.is_zero() {
            let until = applied.at + config.warmup;
            self.warming.add(until, added);
        }
        if applied.by == By::This {
            self.last = Some((applied.at, added));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::Comparison;
    use crate::metric::{Metrics, Query};
    use crate::policy::{Capacity, Policy, PolicyConfig};
    use proptest::prelude::*;
    use sim_core::time::Timestamp;

    fn step(lower: Option<f64>, upper: Option<f64>, percent: f64) -> Step {
        Step {
            lower,
            upper,
            adjustment: Adjustment::PercentChangeInCapacity(percent),
        }
    }

    /// The documentation's pair of policies: unchanged between 40 and 60 around a threshold of 50.
    fn documented(comparison: Comparison, steps: Vec<Step>) -> Policy {
        let mut alarm = AlarmConfig::new(Query::new("cpu").unwrap(), 50.0);
        alarm.comparison = comparison;
        let config = StepConfig {
            alarm,
            steps,
            min_adjustment_magnitude: 0,
            warmup: Duration::from_secs(300),
            cooldown: Duration::ZERO,
        };
        Policy::new("step", PolicyConfig::Step(config)).unwrap()
    }

    fn out() -> Policy {
        documented(
            Comparison::GreaterThanOrEqualToThreshold,
            vec![
                step(Some(0.0), Some(10.0), 0.0),
                step(Some(10.0), Some(20.0), 10.0),
                step(Some(20.0), None, 30.0),
            ],
        )
    }

    fn inward() -> Policy {
        documented(
            Comparison::LessThanOrEqualToThreshold,
            vec![
                step(Some(-10.0), Some(0.0), 0.0),
                step(Some(-20.0), Some(-10.0), -10.0),
                step(None, Some(-20.0), -30.0),
            ],
        )
    }

    struct Run {
        policy: Policy,
        state: super::super::PolicyState,
        metrics: Metrics,
        minute: u32,
        desired: u32,
    }

    impl Run {
        fn new(policy: Policy, desired: u32) -> Self {
            let state = policy.start();
            let metrics = Metrics::default();
            Self {
                policy,
                state,
                metrics,
                minute: 0,
                desired,
            }
        }

        fn minute(&mut self, value: f64) -> u32 {
            self.minute += 1;
            let now = Instant::ORIGIN + Duration::from_secs(60) * self.minute;
            self.metrics.record("cpu", now, value).unwrap();
            let capacity = Capacity {
                min: 0,
                max: 100,
                desired: self.desired,
                in_service: self.desired,
                ..Capacity::default()
            };
            let input = PolicyInput::new(now, Timestamp::UNIX_EPOCH, capacity, &self.metrics);
            let decision = self.policy.decide(&mut self.state, &input);
            if matches!(decision.vote, Vote::Out | Vote::In) {
                let applied = Applied {
                    at: now,
                    from: self.desired,
                    to: decision.desired,
                    by: By::This,
                };
                self.policy.applied(&mut self.state, &applied);
                self.desired = decision.desired;
            }
            self.desired
        }
    }

    #[test]
    fn the_documented_example_of_scaling_out_and_in_holds() {
        let mut run = Run::new(out(), 10);
        assert_eq!(run.minute(59.9), 10, "unchanged below 60");
        assert_eq!(run.minute(60.0), 11, "10 percent of 10");
        run.minute += 5; // warmed up
        assert_eq!(
            run.minute(70.0),
            14,
            "30 percent of 11 is 3.3, rounded down"
        );

        let mut run = Run::new(inward(), 14);
        assert_eq!(run.minute(40.1), 14, "unchanged above 40");
        assert_eq!(
            run.minute(40.0),
            13,
            "10 percent of 14 is 1.4, rounded down"
        );
        assert_eq!(
            run.minute(30.0),
            10,
            "30 percent of 13 is 3.9, rounded down"
        );
    }

    #[test]
    fn the_documented_example_of_warming_up_holds() {
        let mut run = Run::new(out(), 10);
        assert_eq!(run.minute(60.0), 11);
        assert_eq!(run.minute(62.0), 11, "the same step while it warms up");
        assert_eq!(
            run.minute(70.0),
            13,
            "3 of the 10 that serve, 1 of them on its way"
        );
    }

    #[test]
    fn nothing_is_taken_away_while_instances_warm_up() {
        let mut run = Run::new(inward(), 20);
        let applied = Applied {
            at: Instant::ORIGIN,
            from: 18,
            to: 20,
            by: By::Another,
        };
        run.policy.applied(&mut run.state, &applied);
        assert_eq!(run.minute(10.0), 20);
        run.minute = 5;
        assert_eq!(run.minute(10.0), 14);
    }

    #[test]
    fn percentages_round_as_documented() {
        let of = |current, percent| Adjustment::PercentChangeInCapacity(percent).apply(current, 0);
        assert_eq!(of(100, 12.7), 112);
        assert_eq!(of(1, 67.0), 2);
        assert_eq!(of(1, -58.0), 0);
        assert_eq!(of(100, -6.67), 94);
        assert_eq!(of(10, 10.0), 11);
        assert_eq!(of(0, 50.0), 0);
        assert_eq!(Adjustment::ChangeInCapacity(5).apply(3, 0), 8);
        assert_eq!(Adjustment::ChangeInCapacity(-5).apply(3, 0), 0);
        assert_eq!(Adjustment::ExactCapacity(5).apply(3, 0), 5);
        assert_eq!(Adjustment::PercentChangeInCapacity(25.0).apply(4, 2), 6);
        assert_eq!(Adjustment::PercentChangeInCapacity(-25.0).apply(4, 2), 2);
    }

    #[test]
    fn steps_with_a_gap_or_an_overlap_or_no_end_are_refused() {
        let fails = |steps: &[Step]| check(steps).unwrap_err();
        assert_eq!(fails(&[]), StepError::Count { count: 0 });
        assert!(check(&[step(Some(0.0), None, 1.0)]).is_ok());
        assert_eq!(
            fails(&[step(Some(0.0), Some(1.0), 1.0), step(Some(2.0), None, 1.0)]),
            StepError::Gap { from: 1.0, to: 2.0 }
        );
        assert_eq!(
            fails(&[step(Some(0.0), Some(3.0), 1.0), step(Some(2.0), None, 1.0)]),
            StepError::Overlap { at: 2.0 }
        );
        assert_eq!(
            fails(&[step(Some(0.0), None, 1.0), step(Some(2.0), None, 1.0)]),
            StepError::Overlap { at: 2.0 }
        );
        assert_eq!(
            fails(&[step(Some(0.0), Some(3.0), 1.0)]),
            StepError::NotOpenAbove { highest: 3.0 }
        );
        assert_eq!(
            fails(&[step(Some(-3.0), Some(0.0), 1.0)]),
            StepError::NotOpenBelow { lowest: -3.0 }
        );
        assert_eq!(
            fails(&[step(None, None, 1.0), step(Some(1.0), None, 1.0)]),
            StepError::Unbounded { step: 0 }
        );
        assert!(matches!(
            fails(&[step(Some(f64::NAN), None, 1.0)]),
            StepError::Range { .. }
        ));
        assert!(matches!(
            fails(&[step(Some(2.0), Some(1.0), 1.0)]),
            StepError::Range { .. }
        ));
    }

    proptest! {
        #[test]
        fn a_percentage_never_turns_around_and_never_does_nothing(
            current in 1u32..10_000, percent in -100.0..300.0f64, least in 0u32..20,
        ) {
            let found = Adjustment::PercentChangeInCapacity(percent).apply(current, least);
            let exact = f64::from(current) * (1.0 + percent / 100.0);
            if percent > 0.0 {
                prop_assert!(found > current && found >= current + least);
                prop_assert!(f64::from(found) <= exact.max(f64::from(current + least.max(1))) + 1e-6);
            } else if percent < 0.0 {
                prop_assert!(found < current);
                prop_assert!(f64::from(found) + 1e-6 >= exact.min(f64::from(current.saturating_sub(least.max(1)))));
            }
        }

        #[test]
        fn no_bounds_make_the_check_panic(bounds in prop::collection::vec((any::<f64>(), any::<f64>()), 0..5)) {
            let steps: Vec<_> = bounds.into_iter().map(|(l, u)| step(Some(l), Some(u), 1.0)).collect();
            let _ = check(&steps);
        }
    }

    #[test]
    fn what_is_pending_and_what_warms_up_are_summed_and_replacements_left_out() {
        let decide = |in_service, warming, pending| {
            let config = StepConfig {
                alarm: AlarmConfig::new(Query::new("cpu").unwrap(), 50.0),
                steps: vec![Step {
                    lower: Some(0.0),
                    upper: None,
                    adjustment: Adjustment::ChangeInCapacity(5),
                }],
                min_adjustment_magnitude: 0,
                warmup: Duration::ZERO,
                cooldown: Duration::ZERO,
            };
            let policy = Policy::new("step", PolicyConfig::Step(config)).unwrap();
            let now = Instant::ORIGIN + Duration::from_secs(60);
            let mut metrics = Metrics::default();
            metrics.record("cpu", now, 90.0).unwrap();
            let capacity = Capacity {
                min: 0,
                max: 100,
                desired: 10,
                in_service,
                warming,
                pending,
            };
            let input = PolicyInput::new(now, Timestamp::UNIX_EPOCH, capacity, &metrics);
            policy.decide(&mut policy.start(), &input).desired
        };
        assert_eq!(decide(8, 3, 2), 10);
        assert_eq!(decide(10, 0, 10), 15);
    }
}
