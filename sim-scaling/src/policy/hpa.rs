//! Kubernetes' horizontal pod autoscaler: the ratio of metric and target, with tolerance, stabilisation and velocity.
//!
//! `ceil(current x metric / target)`, and nothing while the ratio is within the tolerance of one. Instances without a value
//! count against the direction: as nothing when scaling out, as exactly the target when scaling in; what is not ready
//! counts as nothing when scaling out and not at all otherwise; and a correction that would turn the direction around
//! changes nothing. Of the recommendations within the stabilisation windows the most cautious counts; then the velocity
//! policies hold the change.
//!
//! Source: Kubernetes, "Horizontal Pod Autoscaling", and `replica_calculator.go` and `horizontal.go` of
//! pkg/controller/podautoscaler; the names are those of its `behavior`.

use std::collections::VecDeque;
use std::time::Duration;

use sim_core::time::Instant;

use super::{
    Applied, Explanation, InstanceSample, InstanceStanding, LastSeen, Limit, Opinion, PolicyError,
    PolicyInput, Reason, Vote,
};
use crate::metric::{Fallback, Query};

/// Most velocity policies of a direction, and most recommendations and changes that are remembered for each.
const LIMIT: usize = 4096;

/// An HPA.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HpaConfig {
    /// The metric: an instance's value on average. Where the input has instances' samples, those are taken instead.
    pub query: Query,
    /// The target. Above zero.
    pub target: f64,
    /// How far the ratio may be from one before anything changes. 0 to below 1, default 0.1.
    pub tolerance: f64,
    /// Scaling out. Default: no stabilisation, the greater of 4 instances and 100 % each 15 s.
    pub up: Behavior,
    /// Scaling in. Default: 300 s of stabilisation, 100 % each 15 s.
    pub down: Behavior,
    /// What it goes by while the metric is missing. Default: nothing changes.
    pub fallback: Fallback,
}

/// How fast a direction goes.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Behavior {
    /// The most cautious recommendation of so long a time counts. At most one hour, as Kubernetes allows.
    pub stabilization: Duration,
    /// What may change in a time; none: no limit. At most 4,096.
    pub policies: Vec<Velocity>,
    /// Which of the policies counts.
    pub select: Select,
}

/// What may change in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Velocity {
    /// How much.
    pub step: VelocityStep,
    /// In how long a time. Above zero, at most 30 minutes, as Kubernetes allows.
    pub period: Duration,
}

/// How much may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum VelocityStep {
    /// So many instances.
    Pods(u32),
    /// So many percent of those at the start of the period.
    Percent(u32),
}

/// Which velocity policy counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Select {
    /// The one that allows the greatest change.
    #[default]
    Max,
    /// The one that allows the least change.
    Min,
    /// None: this direction is switched off.
    Disabled,
}

impl HpaConfig {
    /// An HPA with Kubernetes' defaults.
    #[must_use]
    pub fn new(query: Query, target: f64) -> Self {
        let quarter = Duration::from_secs(15);
        let velocity = |step| Velocity {
            step,
            period: quarter,
        };
        Self {
            query,
            target,
            tolerance: 0.1,
            up: Behavior {
                stabilization: Duration::ZERO,
                policies: vec![
                    velocity(VelocityStep::Pods(4)),
                    velocity(VelocityStep::Percent(100)),
                ],
                select: Select::Max,
            },
            down: Behavior {
                stabilization: Duration::from_secs(300),
                policies: vec![velocity(VelocityStep::Percent(100))],
                select: Select::Max,
            },
            fallback: Fallback::Hold,
        }
    }

    pub(super) fn check(&self) -> Result<(), PolicyError> {
        super::number("target", self.target, |value| value > 0.0, "above zero")?;
        super::period(&self.query)?;
        super::fallback(self.fallback)?;
        let share = |value| (0.0..1.0).contains(&value);
        super::number("tolerance", self.tolerance, share, "between 0 and below 1")?;
        for behavior in [&self.up, &self.down] {
            if behavior.stabilization > Duration::from_secs(3600) {
                return Err(PolicyError::Duration {
                    field: "stabilization",
                    value: behavior.stabilization,
                    range: "at most one hour",
                });
            }
            if behavior.policies.len() > LIMIT {
                return Err(PolicyError::Count {
                    field: "policies",
                    count: behavior.policies.len(),
                    range: "at most 4096",
                });
            }
            for policy in &behavior.policies {
                if policy.period.is_zero() || policy.period > Duration::from_secs(1800) {
                    return Err(PolicyError::Duration {
                        field: "period",
                        value: policy.period,
                        range: "above zero and at most 30 minutes",
                    });
                }
            }
        }
        Ok(())
    }

    /// The capacity by the ratio alone, and the ratio; `None` when no instance has a value.
    fn ratio(&self, value: Option<f64>, input: &PolicyInput<'_>) -> Option<(f64, u32)> {
        let capacity = input.capacity;
        let current = capacity.desired;
        // 0.55 of 0.5 is a ratio of 1.1, whatever the last bit says.
        let within = |ratio: f64| (ratio - 1.0).abs() <= self.tolerance + 1e-9;
        let (mut sum, mut ready, mut missing, mut unready) = (0.0, 0u32, 0u32, 0u32);
        if input.instances.is_empty() {
            let serving = capacity.in_service.saturating_sub(capacity.warming);
            ready = serving;
            unready = capacity.growing(0);
            sum = value? * f64::from(serving);
            if serving == 0 {
                // A metric of the group without an instance that serves: its value is one instance's. What starts is left
                // to start; and a group of none is not woken, as in Kubernetes.
                let ratio = value? / self.target;
                let wanted = super::ceil(ratio);
                let stays = current == 0 || within(ratio) || wanted < current;
                return Some((ratio, if stays { current } else { wanted }));
            }
        }
        for InstanceSample { standing, value } in input.instances {
            match (standing, value) {
                (InstanceStanding::Ignored, _) => {}
                (InstanceStanding::NotReady, _) => unready += 1,
                (InstanceStanding::Ready, Some(value)) if value.is_finite() => {
                    ready += 1;
                    sum += value;
                }
                (InstanceStanding::Ready, _) => missing += 1,
            }
        }
        if ready == 0 {
            return None;
        }
        // What replaces instances that serve still is no part of the answer.
        let unready = unready.min(current.saturating_sub(ready + missing));
        let ratio = sum / f64::from(ready) / self.target;
        if missing == 0 && (unready == 0 || ratio <= 1.0) {
            let wanted = super::ceil(ratio * f64::from(ready));
            return Some((ratio, if within(ratio) { current } else { wanted }));
        }
        let mut count = ready;
        if ratio < 1.0 {
            sum += f64::from(missing) * self.target;
            count += missing;
        } else {
            count += missing + unready;
        }
        let corrected = sum / f64::from(count) / self.target;
        let turned = (ratio < 1.0 && corrected > 1.0) || (ratio > 1.0 && corrected < 1.0);
        let wanted = super::ceil(corrected * f64::from(count));
        let reversed =
            (corrected < 1.0 && wanted > current) || (corrected > 1.0 && wanted < current);
        let stays = within(corrected) || turned || reversed;
        Some((corrected, if stays { current } else { wanted }))
    }

    pub(super) fn decide(&self, state: &mut HpaState, input: &PolicyInput<'_>) -> Opinion {
        let mut explanation = Explanation::of(Reason::AtTarget);
        explanation.against = Some(self.target);
        let reading = self.query.read(input.metrics, input.now);
        let value = reading.value();
        let Some((ratio, raw)) = self.ratio(value, input) else {
            explanation.limits.extend(super::unread(reading));
            let (last, base) = state.last.miss(self.fallback, input.capacity.desired);
            let capacity = |value| super::ceil(f64::from(base) * value / self.target);
            let fallen = super::fallen_to(self.fallback, last, input, &mut explanation, capacity);
            return match fallen {
                Some(raw) => self.hold(state, input, raw, explanation),
                None => Opinion::stay(input, Vote::Hold, explanation),
            }
            .again(input.now + self.query.period);
        };
        let value = ratio * self.target;
        state.last.read(input.now, value, input.capacity.desired);
        explanation.saw = Some(value);
        let current = input.capacity.desired;
        if raw == current {
            if (ratio - 1.0).abs() <= self.tolerance + 1e-9 && ratio != 1.0 {
                explanation.limits.push(Limit::Tolerance { ratio });
            }
        } else {
            explanation.reason = if raw > current {
                Reason::AboveTarget
            } else {
                Reason::BelowTarget
            };
        }
        self.hold(state, input, raw, explanation)
    }

    /// Holds a recommendation to the windows and the velocity.
    fn hold(
        &self,
        state: &mut HpaState,
        input: &PolicyInput<'_>,
        raw: u32,
        mut explanation: Explanation,
    ) -> Opinion {
        explanation.wanted = Some(raw);
        let held = self.stabilize(state, input, raw, &mut explanation);
        let held = self.hold_velocity(state, input, held, &mut explanation);
        if held == input.capacity.desired && !explanation.limits.is_empty() {
            return Opinion::stay(input, Vote::Hold, explanation);
        }
        Opinion::want(input, held, explanation)
    }

    /// The most cautious recommendation of the windows.
    fn stabilize(
        &self,
        state: &mut HpaState,
        input: &PolicyInput<'_>,
        raw: u32,
        explanation: &mut Explanation,
    ) -> u32 {
        let longest = self.up.stabilization.max(self.down.stabilization);
        state
            .recommended
            .retain(|&(at, _)| input.now - at < longest || at > input.now);
        if state.recommended.len() >= LIMIT {
            state.recommended.pop_front();
        }
        state.recommended.push_back((input.now, raw));
        let within = |window: Duration| {
            state
                .recommended
                .iter()
                .filter(move |&&(at, _)| input.now - at < window)
                .map(|&(_, recommended)| recommended)
        };
        let least = within(self.up.stabilization).fold(raw, u32::min);
        let most = within(self.down.stabilization).fold(raw, u32::max);
        let current = input.capacity.desired;
        let mut held = current;
        if held < least {
            held = least;
        }
        if held > most {
            held = most;
        }
        if held != raw {
            explanation.limits.push(Limit::Stabilization {
                window: if raw > held {
                    self.up.stabilization
                } else {
                    self.down.stabilization
                },
                recommended: held,
            });
        }
        held
    }

    fn hold_velocity(
        &self,
        state: &mut HpaState,
        input: &PolicyInput<'_>,
        wanted: u32,
        explanation: &mut Explanation,
    ) -> u32 {
        let current = input.capacity.desired;
        let longest = [&self.up, &self.down]
            .iter()
            .flat_map(|behavior| &behavior.policies)
            .map(|policy| policy.period)
            .max()
            .unwrap_or_default();
        state.changes.retain(|&(at, _, _)| input.now - at < longest);
        let (behavior, off) = match wanted.cmp(&current) {
            std::cmp::Ordering::Equal => return wanted,
            std::cmp::Ordering::Greater => (&self.up, Limit::ScaleOutDisabled),
            std::cmp::Ordering::Less => (&self.down, Limit::ScaleInDisabled),
        };
        if behavior.select == Select::Disabled {
            explanation.limits.push(off);
            return current;
        }
        let up = wanted > current;
        let allowed = behavior.policies.iter().map(|policy| {
            let (mut added, mut removed) = (0u32, 0u32);
            for &(at, from, to) in &state.changes {
                if input.now - at < policy.period {
                    added = added.saturating_add(to.saturating_sub(from));
                    removed = removed.saturating_add(from.saturating_sub(to));
                }
            }
            // As Kubernetes reckons: what there was when the period began, whichever way it went since.
            let start = current.saturating_add(removed).saturating_sub(added);
            if up {
                match policy.step {
                    VelocityStep::Pods(pods) => start.saturating_add(pods),
                    VelocityStep::Percent(percent) => {
                        super::ceil(f64::from(start) * (1.0 + f64::from(percent) / 100.0))
                    }
                }
            } else {
                match policy.step {
                    VelocityStep::Pods(pods) => start.saturating_sub(pods),
                    VelocityStep::Percent(percent) => {
                        (f64::from(start) * (1.0 - f64::from(percent) / 100.0)).max(0.0) as u32
                    }
                }
            }
        });
        let allowed = match (up, behavior.select) {
            (true, Select::Min) | (false, Select::Max) => allowed.min(),
            (true, _) | (false, _) => allowed.max(),
        };
        let Some(allowed) = allowed else {
            return wanted;
        };
        let held = if up {
            wanted.min(allowed.max(current))
        } else {
            wanted.max(allowed.min(current))
        };
        if held != wanted {
            explanation.limits.push(Limit::Velocity { allowed });
        }
        held
    }
}

/// What an HPA remembers.
#[derive(Debug, Clone, Default)]
pub(super) struct HpaState {
    /// Recommendations within the longest window. At most 4,096.
    recommended: VecDeque<(Instant, u32)>,
    /// Changes within the longest period: when, from, to. At most 4,096.
    changes: VecDeque<(Instant, u32, u32)>,
    last: LastSeen,
}

impl HpaState {
    pub(super) fn applied(&mut self, applied: &Applied) {
        if self.changes.len() >= LIMIT {
            self.changes.pop_front();
        }
        self.changes
            .push_back((applied.at, applied.from, applied.to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Metrics;
    use crate::policy::{By, Capacity, Policy, PolicyConfig, PolicyState};
    use proptest::prelude::*;
    use sim_core::time::Timestamp;

    struct Run {
        policy: Policy,
        state: PolicyState,
        metrics: Metrics,
        second: u64,
        capacity: Capacity,
        limits: Vec<&'static str>,
    }

    fn config() -> HpaConfig {
        HpaConfig::new(Query::new("cpu").unwrap(), 0.5)
    }

    impl Run {
        fn new(config: HpaConfig, desired: u32) -> Self {
            let policy = Policy::new("hpa", PolicyConfig::Hpa(config)).unwrap();
            Self {
                state: policy.start(),
                policy,
                metrics: Metrics::default(),
                second: 0,
                capacity: Capacity {
                    min: 1,
                    max: 1000,
                    desired,
                    in_service: desired,
                    ..Capacity::default()
                },
                limits: Vec::new(),
            }
        }

        fn decide(&mut self, value: Option<f64>, instances: &[InstanceSample]) -> u32 {
            self.second += 15;
            let now = Instant::ORIGIN + Duration::from_secs(self.second);
            if let Some(value) = value {
                self.metrics.record("cpu", now, value).unwrap();
            }
            let mut input =
                PolicyInput::new(now, Timestamp::UNIX_EPOCH, self.capacity, &self.metrics);
            input.instances = instances;
            let decision = self.policy.decide(&mut self.state, &input);
            self.limits = decision
                .explanation
                .limits
                .iter()
                .map(Limit::name)
                .collect();
            if decision.desired != self.capacity.desired {
                let applied = Applied {
                    at: now,
                    from: self.capacity.desired,
                    to: decision.desired,
                    by: By::This,
                };
                self.policy.applied(&mut self.state, &applied);
                self.capacity.desired = decision.desired;
                self.capacity.in_service = decision.desired;
            }
            decision.desired
        }
    }

    fn free() -> HpaConfig {
        let mut config = config();
        config.query.period = Duration::from_secs(15);
        for behavior in [&mut config.up, &mut config.down] {
            behavior.policies.clear();
            behavior.stabilization = Duration::ZERO;
        }
        config
    }

    const fn ready(value: Option<f64>) -> InstanceSample {
        InstanceSample {
            standing: InstanceStanding::Ready,
            value,
        }
    }

    const STARTING: InstanceSample = InstanceSample {
        standing: InstanceStanding::NotReady,
        value: None,
    };

    #[test]
    fn the_ratio_decides_outside_of_the_tolerance() {
        assert_eq!(Run::new(free(), 10).decide(Some(1.0), &[]), 20);
        assert_eq!(Run::new(free(), 10).decide(Some(0.25), &[]), 5);
        let mut run = Run::new(free(), 10);
        assert_eq!(run.decide(Some(0.55), &[]), 10);
        assert_eq!(run.limits, ["WithinTolerance"]);
        assert_eq!(Run::new(free(), 10).decide(Some(0.56), &[]), 12);
    }

    #[test]
    fn what_is_missing_counts_against_the_direction() {
        let mut run = Run::new(free(), 3);
        let samples = [ready(Some(1.0)), ready(Some(1.0)), ready(None)];
        assert_eq!(
            run.decide(None, &samples),
            4,
            "missing as 0: (1 + 1 + 0) / 0.5"
        );
        let mut run = Run::new(free(), 3);
        let samples = [ready(Some(0.1)), ready(Some(0.1)), ready(None)];
        assert_eq!(
            run.decide(None, &samples),
            2,
            "missing as the target: 0.7 / 0.5"
        );
        let mut run = Run::new(free(), 3);
        let samples = [ready(Some(0.6)), ready(None), ready(None)];
        assert_eq!(
            run.decide(None, &samples),
            3,
            "the direction would turn around"
        );
        assert_eq!(
            Run::new(free(), 2).decide(None, &[ready(None), STARTING]),
            2
        );
    }

    #[test]
    fn what_is_not_ready_counts_as_nothing_when_scaling_out_only() {
        let mut run = Run::new(free(), 4);
        let samples = [
            ready(Some(1.0)),
            ready(Some(1.0)),
            ready(Some(1.0)),
            STARTING,
        ];
        assert_eq!(run.decide(None, &samples), 6, "3 / 0.5");
        let mut run = Run::new(free(), 4);
        let samples = [ready(Some(0.2)), ready(Some(0.2)), STARTING, STARTING];
        assert_eq!(
            run.decide(None, &samples),
            1,
            "0.4 / 0.5, of the ready ones alone"
        );
    }

    #[test]
    fn scaling_in_takes_the_highest_of_five_minutes() {
        let mut run = Run::new(config(), 10);
        run.decide(Some(0.5), &[]);
        for _ in 0..19 {
            assert_eq!(run.decide(Some(0.1), &[]), 10);
        }
        assert_eq!(run.limits, ["StabilizationWindow"]);
        run.decide(Some(0.1), &[]);
        assert!(run.decide(Some(0.1), &[]) < 10);
    }

    #[test]
    fn the_default_velocity_is_four_or_the_double_in_15_seconds() {
        let mut config = config();
        config.query.period = Duration::from_secs(15);
        let mut run = Run::new(config, 2);
        assert_eq!(run.decide(Some(50.0), &[]), 6, "2 + 4");
        assert_eq!(run.limits, ["VelocityLimited"]);
        assert_eq!(run.decide(Some(50.0), &[]), 12, "the double");
    }

    #[test]
    fn the_least_velocity_can_be_selected_and_a_direction_switched_off() {
        let mut least = config();
        least.up.select = Select::Min;
        assert_eq!(Run::new(least, 2).decide(Some(50.0), &[]), 4);
        let mut off = free();
        off.down.select = Select::Disabled;
        let mut run = Run::new(off, 10);
        assert_eq!(run.decide(Some(0.1), &[]), 10);
        assert_eq!(run.limits, ["ScaleInDisabled"]);
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let fails = |change: fn(&mut HpaConfig)| {
            let mut config = config();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(fails(|c| c.target = f64::NAN).starts_with("target: NaN"));
        assert!(fails(|c| c.tolerance = 1.0).starts_with("tolerance: 1 "));
        assert!(fails(|c| c.up.stabilization = Duration::MAX).starts_with("stabilization: "));
        assert!(fails(|c| c.up.policies[0].period = Duration::ZERO).starts_with("period: "));
    }

    proptest! {
        /// The formula of Kubernetes' documentation, and nothing else, where nothing is missing.
        #[test]
        fn without_limits_it_is_the_documented_formula(
            desired in 1u32..400, value in 0.0..4.0f64,
        ) {
            let found = Run::new(free(), desired).decide(Some(value), &[]);
            let ratio = value / 0.5;
            let expected = if (ratio - 1.0).abs() <= 0.1 {
                desired
            } else {
                ((f64::from(desired) * ratio - 1e-9).ceil() as u32).clamp(1, 1000)
            };
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn it_never_takes_more_than_five_minutes_allow_and_never_leaves_the_bounds(
            values in prop::collection::vec(0.0..3.0f64, 1..80), desired in 1u32..50,
        ) {
            let mut run = Run::new(config(), desired);
            let mut wanted: Vec<u32> = Vec::new();
            for value in values {
                let before = run.capacity.desired;
                let found = run.decide(Some(value), &[]);
                prop_assert!((1..=1000).contains(&found));
                prop_assert!(found <= (before * 2).max(before + 4));
                let raw = run.metrics.window("cpu").unwrap()
                    .aggregate(Instant::ORIGIN + Duration::from_secs(run.second), Duration::from_secs(60), crate::metric::Statistic::Average).unwrap() / 0.5;
                let raw = if (raw - 1.0).abs() <= 0.1 { before } else { (f64::from(before) * raw - 1e-9).ceil() as u32 };
                wanted.push(raw);
                if found < before {
                    let recent = wanted.iter().rev().take(20).max().copied().unwrap_or(0);
                    prop_assert!(found >= recent.min(before));
                }
            }
        }
    }

    #[test]
    fn a_fallback_does_not_compound_and_is_held_by_the_velocity() {
        for fallback in [
            Fallback::LastValue(Duration::from_secs(600)),
            Fallback::Value(1.0),
        ] {
            let mut run = Run::new(HpaConfig { fallback, ..free() }, 2);
            if fallback == Fallback::Value(1.0) {
                assert_eq!(run.decide(None, &[]), 4);
            } else {
                assert_eq!(run.decide(Some(1.0), &[]), 4);
            }
            for _ in 0..5 {
                assert_eq!(run.decide(None, &[]), 4, "{fallback:?}");
            }
        }
        let mut slow = config();
        slow.fallback = Fallback::Value(50.0);
        assert_eq!(Run::new(slow, 2).decide(None, &[]), 6, "2 + 4");
    }

    #[test]
    fn a_backlog_is_answered_once_while_nothing_serves() {
        let decide = |desired, value| {
            let mut run = Run::new(free(), desired);
            (run.capacity.in_service, run.capacity.pending) = (0, desired);
            run.decide(Some(value), &[])
        };
        assert_eq!(decide(5, 5.0), 10, "ten times the target, of one instance");
        assert_eq!(decide(10, 5.0), 10);
        assert_eq!(decide(20, 5.0), 20, "it takes nothing away meanwhile");
        assert_eq!(decide(5, 0.53), 5, "within the tolerance");
        assert_eq!(decide(5, 0.1), 5);
    }

    #[test]
    fn replacements_are_no_growth() {
        let mut run = Run::new(free(), 10);
        run.capacity.pending = 10;
        assert_eq!(run.decide(Some(1.0), &[]), 20);
        let mut samples = vec![ready(Some(1.0)); 10];
        samples.extend([STARTING; 10]);
        assert_eq!(Run::new(free(), 10).decide(None, &samples), 20);
    }

    #[test]
    fn a_fallback_does_not_send_a_woken_group_back_to_none() {
        let fallback = Fallback::Value(0.5);
        let mut run = Run::new(HpaConfig { fallback, ..free() }, 0);
        run.capacity.min = 0;
        assert_eq!(run.decide(None, &[]), 0);
        (run.capacity.desired, run.capacity.in_service) = (1, 1);
        assert_eq!(run.decide(None, &[]), 1);
    }

    #[test]
    fn the_velocity_counts_from_where_both_directions_began() {
        let mut config = free();
        config.up.policies = vec![Velocity {
            step: VelocityStep::Percent(100),
            period: Duration::from_secs(60),
        }];
        let mut run = Run::new(config, 10);
        assert_eq!(run.decide(Some(0.25), &[]), 5);
        assert_eq!(
            run.decide(Some(5.0), &[]),
            20,
            "5, with the 5 removed, is 10"
        );
    }
}
