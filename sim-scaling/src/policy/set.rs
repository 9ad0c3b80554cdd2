//! The policies of a group.

use sim_core::sync::Arc;
use sim_core::time::Instant;

use super::{
    Applied, By, Decision, Explanation, Policy, PolicyConfig, PolicyError, PolicyInput,
    PolicyState, Reason, Verdict, Vote, combine,
};

/// The policies of a group with what they remember; at most so many (50 by default, as EC2 allows a group).
#[derive(Debug, Clone)]
pub struct PolicySet {
    entries: Vec<Entry>,
    limit: usize,
}

#[derive(Debug, Clone)]
struct Entry {
    policy: Policy,
    state: PolicyState,
    enabled: Enabled,
}

/// Whether a policy is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Enabled {
    /// It is.
    #[default]
    Yes,
    /// It is not; what it remembers stays. What a schedule has due meanwhile is not made up for.
    No,
}

impl Default for PolicySet {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            limit: 50,
        }
    }
}

impl PolicySet {
    /// Makes an empty set of at most `limit` policies.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            entries: Vec::new(),
            limit,
        }
    }

    /// Adds a policy; one of the same name is replaced and starts anew, in its place.
    ///
    /// # Errors
    ///
    /// [`PolicySetError`]: the policy's settings, or too many. Nothing is changed then.
    pub fn put(&mut self, name: &str, config: PolicyConfig) -> Result<(), PolicySetError> {
        let policy = Policy::new(name, config)?;
        let entry = Entry {
            state: policy.start(),
            policy,
            enabled: Enabled::Yes,
        };
        let at = self
            .entries
            .iter()
            .position(|one| one.policy.name() == name);
        match at {
            Some(at) => self.entries[at] = entry,
            None if self.entries.len() >= self.limit => {
                return Err(PolicySetError::Full { limit: self.limit });
            }
            None => self.entries.push(entry),
        }
        Ok(())
    }

    /// Removes a policy; whether there was one.
    pub fn remove(&mut self, name: &str) -> Option<Policy> {
        let at = self
            .entries
            .iter()
            .position(|one| one.policy.name() == name)?;
        Some(self.entries.remove(at).policy)
    }

    /// Switches a policy on or off.
    ///
    /// # Errors
    ///
    /// [`PolicySetError::Unknown`].
    pub fn set_enabled(&mut self, name: &str, enabled: Enabled) -> Result<(), PolicySetError> {
        let entry = self
            .entries
            .iter_mut()
            .find(|one| one.policy.name() == name);
        let entry = entry.ok_or_else(|| PolicySetError::Unknown {
            name: name.to_owned(),
        })?;
        entry.enabled = enabled;
        Ok(())
    }

    /// The policies, in the order in which they were added.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.entries.iter().map(|entry| &entry.policy)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Asks all policies and combines what they say (see [`combine`]). Nothing is carried out: that is told by
    /// [`applied`](Self::applied).
    pub fn decide(&mut self, input: &PolicyInput<'_>) -> Verdict {
        let decisions = self
            .entries
            .iter_mut()
            .map(|entry| match entry.enabled {
                Enabled::Yes => entry.policy.decide(&mut entry.state, input),
                Enabled::No => Decision {
                    policy: Arc::clone(&entry.policy.name),
                    kind: entry.policy.kind(),
                    vote: Vote::Abstain,
                    desired: input.capacity.desired,
                    bounds: None,
                    floor: None,
                    explanation: Explanation::of(Reason::Disabled),
                    next: entry.policy.skip(&mut entry.state, input),
                },
            })
            .collect();
        let capacity = input.capacity;
        combine(capacity.desired, capacity.min, capacity.max, decisions)
    }

    /// Tells the policies that the desired capacity was changed: cooldowns and warm-ups begin. `policy` is the one that
    /// was followed, as the verdict names it.
    pub fn applied(&mut self, at: Instant, from: u32, to: u32, policy: Option<&str>) {
        if from == to {
            return;
        }
        for entry in &mut self.entries {
            let by = if policy == Some(entry.policy.name()) {
                By::This
            } else {
                By::Another
            };
            let applied = Applied { at, from, to, by };
            entry.policy.applied(&mut entry.state, &applied);
        }
    }
}

/// A policy could not be added or changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicySetError {
    /// The policy's settings.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// There are as many as there may be.
    #[error("policies: there are {limit} already, the most allowed")]
    Full {
        /// How many there may be.
        limit: usize,
    },
    /// There is none of that name.
    #[error("policy: there is no `{name}`")]
    Unknown {
        /// The name.
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::alarm::{AlarmConfig, Comparison};
    use crate::metric::{Metrics, Query};
    use crate::policy::anticipate::AnticipateConfig;
    use crate::policy::hpa::HpaConfig;
    use crate::policy::pid::PidConfig;
    use crate::policy::predictive::{PredictiveConfig, PredictiveMode};
    use crate::policy::simple::SimpleConfig;
    use crate::policy::step::{Adjustment, Step, StepConfig};
    use crate::policy::target::TargetConfig;
    use crate::policy::zero::ZeroConfig;
    use crate::policy::{Capacity, Limit};
    use proptest::prelude::*;
    use sim_core::time::Timestamp;

    const COOLDOWN: Duration = Duration::from_secs(300);

    fn query(name: &str) -> Query {
        Query::new(name).unwrap()
    }

    fn simple(comparison: Comparison, threshold: f64, change: i32) -> PolicyConfig {
        let mut alarm = AlarmConfig::new(query("used"), threshold);
        alarm.comparison = comparison;
        PolicyConfig::Simple(SimpleConfig {
            alarm,
            adjustment: Adjustment::ChangeInCapacity(change),
            min_adjustment_magnitude: 0,
            cooldown: COOLDOWN,
        })
    }

    fn step() -> PolicyConfig {
        let step = |lower, upper, percent| Step {
            lower,
            upper,
            adjustment: Adjustment::PercentChangeInCapacity(percent),
        };
        PolicyConfig::Step(StepConfig {
            alarm: AlarmConfig::new(query("used"), 0.7),
            steps: vec![
                step(Some(0.0), Some(0.2), 10.0),
                step(Some(0.2), None, 50.0),
            ],
            min_adjustment_magnitude: 1,
            warmup: Duration::from_secs(180),
            cooldown: Duration::ZERO,
        })
    }

    /// One of each kind that goes by a metric.
    fn all() -> Vec<(&'static str, PolicyConfig)> {
        let mut predictive = PredictiveConfig::new(query("load"), 0.7);
        predictive.mode = PredictiveMode::ForecastAndScale;
        vec![
            ("out", simple(Comparison::GreaterThanThreshold, 0.8, 3)),
            ("in", simple(Comparison::LessThanThreshold, 0.3, -2)),
            ("step", step()),
            (
                "target",
                PolicyConfig::TargetTracking(TargetConfig::new(query("used"), 0.7)),
            ),
            ("hpa", PolicyConfig::Hpa(HpaConfig::new(query("used"), 0.7))),
            ("pid", PolicyConfig::Pid(PidConfig::new(query("used"), 0.7))),
            ("zero", PolicyConfig::Zero(ZeroConfig::new(query("load")))),
            ("ahead", PolicyConfig::Predictive(predictive)),
            (
                "best",
                PolicyConfig::Anticipate(AnticipateConfig::new(query("load"), 1.0)),
            ),
        ]
    }

    struct Run {
        set: PolicySet,
        metrics: Metrics,
        capacity: Capacity,
        minute: u32,
    }

    impl Run {
        fn new(policies: Vec<(&'static str, PolicyConfig)>, desired: u32) -> Self {
            let mut set = PolicySet::default();
            for (name, config) in policies {
                set.put(name, config).unwrap();
            }
            let capacity = Capacity {
                min: 1,
                max: 40,
                desired,
                in_service: desired,
                ..Capacity::default()
            };
            Self {
                set,
                metrics: Metrics::default(),
                capacity,
                minute: 0,
            }
        }

        /// A minute with a load, in instances; none: the metrics are missing.
        fn minute(&mut self, load: Option<f64>) -> Verdict {
            self.minute += 1;
            let elapsed = Duration::from_secs(60) * self.minute;
            let now = Instant::ORIGIN + elapsed;
            if let Some(load) = load {
                let used = load / f64::from(self.capacity.in_service.max(1));
                self.metrics.record("load", now, load).unwrap();
                self.metrics.record("used", now, used).unwrap();
            }
            let time = Timestamp::UNIX_EPOCH + elapsed;
            let input = PolicyInput::new(now, time, self.capacity, &self.metrics);
            let verdict = self.set.decide(&input);
            let (from, to) = (self.capacity.desired, verdict.desired);
            self.set.applied(now, from, to, verdict.policy.as_deref());
            (self.capacity.desired, self.capacity.in_service) = (to, to);
            verdict
        }
    }

    #[test]
    fn a_simple_policy_waits_for_its_cooldown() {
        let mut run = Run::new(
            vec![("out", simple(Comparison::GreaterThanThreshold, 0.8, 3))],
            5,
        );
        let desired: Vec<u32> = (0..12).map(|_| run.minute(Some(39.0)).desired).collect();
        assert_eq!(desired, [8, 8, 8, 8, 8, 11, 11, 11, 11, 11, 14, 14]);
        let waiting = run.minute(Some(39.0));
        let limits = &waiting.decisions[0].explanation.limits;
        assert!(matches!(limits[..], [Limit::Cooldown { .. }]), "{limits:?}");
    }

    #[test]
    fn a_disabled_policy_has_no_say_and_an_unknown_one_is_named() {
        let mut run = Run::new(
            vec![("out", simple(Comparison::GreaterThanThreshold, 0.8, 3))],
            5,
        );
        run.set.set_enabled("out", Enabled::No).unwrap();
        assert_eq!(run.minute(Some(39.0)).desired, 5);
        assert_eq!(run.set.decide_reason(), Some(Reason::Disabled));
        let error = run.set.set_enabled("nonesuch", Enabled::No).unwrap_err();
        assert_eq!(error.to_string(), "policy: there is no `nonesuch`");
    }

    impl PolicySet {
        fn decide_reason(&mut self) -> Option<Reason> {
            let metrics = Metrics::default();
            let input = PolicyInput::new(
                Instant::ORIGIN,
                Timestamp::UNIX_EPOCH,
                Capacity::default(),
                &metrics,
            );
            let decisions = self.decide(&input).decisions;
            decisions.first().map(|one| one.explanation.reason)
        }
    }

    #[test]
    fn a_set_is_bounded_and_replaces_by_name() {
        let mut set = PolicySet::new(1);
        set.put("a", step()).unwrap();
        set.put("a", step()).unwrap();
        assert!(matches!(
            set.put("b", step()),
            Err(PolicySetError::Full { limit: 1 })
        ));
        assert!(matches!(
            set.put("", step()),
            Err(PolicySetError::Policy(_))
        ));
        assert_eq!(
            (set.len(), set.remove("a").is_some(), set.is_empty()),
            (1, true, true)
        );
    }

    #[cfg(feature = "serde")]
    #[test]
    fn every_policy_goes_to_text_and_back() {
        for (name, config) in all() {
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(
                serde_json::from_str::<PolicyConfig>(&text).unwrap(),
                config,
                "{name}"
            );
        }
        let broken = r#"{"formula":"1 +","period":{"secs":60,"nanos":0},"statistic":"Average"}"#;
        let error = serde_json::from_str::<Query>(broken)
            .unwrap_err()
            .to_string();
        assert!(error.contains("ends too early"), "{error}");
    }

    #[test]
    fn a_season_is_met_before_it_comes() {
        let config = AnticipateConfig::new(query("load"), 1.0);
        let mut run = Run::new(vec![("best", PolicyConfig::Anticipate(config))], 2);
        let load = |minute: u32| if minute % 1440 / 60 == 9 { 30.0 } else { 2.0 };
        let mut short = Vec::new();
        for minute in 0..6 * 1440 {
            if load(minute) > f64::from(run.capacity.in_service) {
                short.push(minute / 1440);
            }
            run.minute(Some(load(minute)));
        }
        assert!(short.contains(&0), "the first day is a surprise");
        assert!(!short.contains(&5), "the sixth is none: {short:?}");
        assert!(
            run.capacity.desired < 10,
            "and it goes again: {}",
            run.capacity.desired
        );
    }

    #[test]
    fn a_backlog_asks_for_what_works_it_off() {
        let mut config = AnticipateConfig::new(query("load"), 1.0);
        config.backlog = Some(query("backlog / 5"));
        let policy = Policy::new("best", PolicyConfig::Anticipate(config)).unwrap();
        let mut state = policy.start();
        let mut metrics = Metrics::default();
        let mut at = |minute: u64, backlog: f64| {
            let now = Instant::ORIGIN + Duration::from_secs(60 * minute);
            metrics.record("load", now, 4.0).unwrap();
            metrics.record("backlog", now, backlog).unwrap();
            let capacity = Capacity {
                min: 1,
                max: 100,
                desired: 6,
                in_service: 6,
                ..Capacity::default()
            };
            policy.decide(
                &mut state,
                &PolicyInput::new(now, Timestamp::UNIX_EPOCH, capacity, &metrics),
            )
        };
        assert_eq!(at(1, 0.0).explanation.reason, Reason::Load);
        let first = at(2, 20.0);
        // 4 to work off in a minute, and 4 more each minute: 12 more after the three that it takes to start.
        assert_eq!(
            (first.desired, first.explanation.reason),
            (4 + 4 + 12, Reason::Backlog)
        );
        assert_eq!(at(3, 20.0).desired, 4 + 4, "it grows no more");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The rules that hold for all policies together, whatever the load does.
        #[test]
        fn no_history_leaves_the_bounds_or_takes_away_against_a_voice(
            loads in prop::collection::vec(prop::option::weighted(0.9, 0.0..60.0f64), 1..120),
            desired in 1u32..40,
            which in 1u32..512,
        ) {
            let chosen = || all().into_iter().enumerate()
                .filter(|(index, _)| which >> index & 1 == 1)
                .map(|(_, one)| one)
                .collect::<Vec<_>>();
            let (mut one, mut other) = (Run::new(chosen(), desired), Run::new(chosen(), desired));
            for load in loads {
                let before = one.capacity.desired;
                let found = one.minute(load);
                prop_assert_eq!(&found, &other.minute(load), "the same each time");
                prop_assert!((1..=40).contains(&found.desired));
                let any = |vote| found.decisions.iter().any(|d| d.vote == vote);
                if any(Vote::Out) {
                    prop_assert!(found.desired > before);
                }
                if found.desired < before && !any(Vote::Set) {
                    prop_assert!(!any(Vote::Hold) && any(Vote::In));
                }
                for one in &found.decisions {
                    let direction = match one.vote {
                        Vote::Out => one.desired > before,
                        Vote::In => one.desired < before,
                        Vote::Hold | Vote::Abstain => one.desired == before,
                        Vote::Set => true,
                    };
                    prop_assert!(direction, "{:?}", one);
                    if one.desired == before && one.explanation.wanted.is_some_and(|w| w != before) {
                        prop_assert!(!one.explanation.limits.is_empty(), "not explained: {:?}", one);
                    }
                }
                prop_assert!(found.explain().lines().count() == found.decisions.len() + 1);
            }
        }

        #[test]
        fn hostile_numbers_are_refused_or_survived(
            values in prop::collection::vec(any::<f64>(), 1..30),
            jump in 1u64..u64::MAX / 64,
        ) {
            let mut set = PolicySet::default();
            for (name, config) in all() {
                set.put(name, config).unwrap();
            }
            let mut metrics = Metrics::default();
            let mut now = Instant::ORIGIN;
            for value in values {
                now = now + Duration::from_nanos(jump);
                let taken = metrics.record("load", now, value).is_ok();
                prop_assert_eq!(taken, value.is_finite());
                let _ = metrics.record("used", now, -value);
                let capacity = Capacity { min: 3, max: 2, desired: 7, in_service: 0, warming: 9, pending: 9 };
                let time = Timestamp::from_unix_nanos((jump as i64).wrapping_mul(977));
                let found = set.decide(&PolicyInput::new(now, time, capacity, &metrics));
                prop_assert!(found.desired == 3, "{}", found.explain());
            }
        }
    }

    #[test]
    fn a_period_that_would_spin_is_refused_by_name() {
        for period in [Duration::ZERO, Duration::from_nanos(1)] {
            for (name, mut config) in all() {
                match &mut config {
                    PolicyConfig::Simple(config) => config.alarm.query.period = period,
                    PolicyConfig::Step(config) => config.alarm.query.period = period,
                    PolicyConfig::TargetTracking(config) => config.query.period = period,
                    PolicyConfig::Hpa(config) => config.query.period = period,
                    PolicyConfig::Pid(config) => config.query.period = period,
                    PolicyConfig::Zero(config) => config.query.period = period,
                    PolicyConfig::Predictive(config) => config.load.period = period,
                    PolicyConfig::Anticipate(config) => config.load.period = period,
                    _ => unreachable!("has no metric"),
                }
                let error = PolicySet::default().put(name, config).unwrap_err();
                assert!(error.to_string().contains("period: "), "{name}: {error}");
            }
        }
    }

    #[test]
    fn a_fallback_that_is_no_number_is_refused_by_name() {
        for (name, mut config) in all() {
            let fallback = match &mut config {
                PolicyConfig::TargetTracking(config) => &mut config.fallback,
                PolicyConfig::Hpa(config) => &mut config.fallback,
                PolicyConfig::Pid(config) => &mut config.fallback,
                PolicyConfig::Zero(config) => &mut config.fallback,
                PolicyConfig::Anticipate(config) => &mut config.fallback,
                _ => continue,
            };
            *fallback = crate::metric::Fallback::Value(f64::NAN);
            let error = PolicySet::default().put(name, config).unwrap_err();
            assert!(error.to_string().starts_with("fallback: NaN "), "{error}");
        }
    }

    #[test]
    fn a_backlog_seen_twice_at_once_has_no_slope() {
        let mut config = AnticipateConfig::new(query("load"), 1.0);
        config.backlog = Some(query("backlog / 5"));
        let policy = Policy::new("best", PolicyConfig::Anticipate(config)).unwrap();
        let mut state = policy.start();
        let mut metrics = Metrics::default();
        let mut at = |millis: u64, backlog: f64| {
            let now = Instant::ORIGIN + Duration::from_millis(millis);
            metrics.record("load", now, 4.0).unwrap();
            metrics.record("backlog", now, backlog).unwrap();
            let capacity = Capacity {
                min: 1,
                max: 1000,
                desired: 6,
                in_service: 6,
                ..Capacity::default()
            };
            let input = PolicyInput::new(now, Timestamp::UNIX_EPOCH, capacity, &metrics);
            policy.decide(&mut state, &input).desired
        };
        at(60_000, 20.0);
        at(119_999, 20.0);
        for millis in [120_000, 120_001, 120_002] {
            let found = at(millis, 25.0);
            assert!(found < 20, "{found} at {millis}");
        }
    }

    #[test]
    fn what_was_due_while_a_schedule_was_disabled_is_not_made_up_for() {
        use crate::policy::scheduled::{ScheduledAction, ScheduledConfig};

        let once = |second, desired| ScheduledAction {
            name: format!("to {desired}"),
            start: Some(Timestamp::from_unix_seconds(second)),
            desired: Some(desired),
            ..ScheduledAction::default()
        };
        let actions = vec![once(90, 7), once(300, 9)];
        let schedule = PolicyConfig::Scheduled(ScheduledConfig { actions });
        let mut run = Run::new(vec![("at", schedule)], 2);
        run.minute(None);
        run.set.set_enabled("at", Enabled::No).unwrap();
        let off = run.minute(None);
        let due = Instant::ORIGIN + Duration::from_secs(300);
        assert_eq!((off.desired, off.next), (2, Some(due)));
        run.set.set_enabled("at", Enabled::Yes).unwrap();
        assert_eq!(run.minute(None).desired, 2);
        run.minute(None);
        assert_eq!(run.minute(None).desired, 9);
    }
}
