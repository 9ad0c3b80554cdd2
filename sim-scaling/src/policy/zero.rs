//! To zero and back: KEDA's activation.
//!
//! Above the activation threshold the policy is active: a group of none is brought to `active` instances, and how many more
//! are wanted is left to the other policies. Once it has not been active for the cooldown, the group is set to `idle`
//! instances, whatever the others hold.
//!
//! Source: KEDA, "Scaling deployments": `activationThreshold`, `cooldownPeriod`, `idleReplicaCount`, `fallback`.

use std::time::Duration;

use sim_core::time::Instant;

use super::{Explanation, Limit, Opinion, PolicyError, PolicyInput, Reason, Vote};
use crate::metric::{Fallback, Query};

/// A policy that scales to zero.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ZeroConfig {
    /// The metric; for a queue waiting and in flight: what is worked on still needs its worker.
    pub query: Query,
    /// Active above this, and not at it. Default 0.
    pub activation: f64,
    /// How long without activity until it is idle. Default 300 s, at most 30 days.
    pub cooldown: Duration,
    /// Instances while idle, held to the group's least. Default 0.
    pub idle: u32,
    /// Instances to start with when active. Default 1; more than `idle`.
    pub active: u32,
    /// What it goes by while the metric is missing. Default: nothing changes.
    pub fallback: Fallback,
}

impl ZeroConfig {
    /// A policy with KEDA's defaults.
    #[must_use]
    pub const fn new(query: Query) -> Self {
        Self {
            query,
            activation: 0.0,
            cooldown: Duration::from_secs(300),
            idle: 0,
            active: 1,
            fallback: Fallback::Hold,
        }
    }

    pub(super) fn check(&self) -> Result<(), PolicyError> {
        super::period(&self.query)?;
        super::fallback(self.fallback)?;
        super::number("activation", self.activation, |_| true, "finite")?;
        super::duration("cooldown", self.cooldown)?;
        let more = |active| active > f64::from(self.idle);
        super::number("active", f64::from(self.active), more, "more than idle")
    }

    pub(super) fn decide(&self, state: &mut ZeroState, input: &PolicyInput<'_>) -> Opinion {
        let mut explanation = Explanation::of(Reason::Activated);
        explanation.against = Some(self.activation);
        let reading = self.query.read(input.metrics, input.now);
        let Some(value) = reading.value() else {
            explanation.limits.extend(super::unread(reading));
            let next = input.now + self.query.period;
            return super::fall_back(self.fallback, state.last, input, explanation, |value| {
                if value > self.activation {
                    self.active
                } else {
                    self.idle
                }
            })
            .again(next);
        };
        state.last = Some((input.now, value));
        explanation.saw = Some(value);
        let desired = input.capacity.desired;
        // A group that was never seen active has its cooldown from the start.
        let since = *state.active.get_or_insert(input.now);
        if value > self.activation {
            state.active = Some(input.now);
            if desired < self.active {
                return Opinion::want(input, self.active, explanation);
            }
            return Opinion::stay(input, Vote::Abstain, explanation);
        }
        explanation.reason = Reason::Idle;
        let until = since + self.cooldown;
        if input.now < until {
            // It may become less, but the last one stays until the cooldown has gone by.
            explanation.limits.push(Limit::Cooldown { until });
            let mut opinion = Opinion::stay(input, Vote::Abstain, explanation).again(until);
            opinion.floor = Some(self.active.min(desired));
            return opinion;
        }
        if desired <= self.idle.max(input.capacity.min) {
            explanation.limits.push(Limit::AtDesired);
            return Opinion::stay(input, Vote::Abstain, explanation);
        }
        let mut opinion = Opinion::want(input, self.idle, explanation);
        opinion.vote = Vote::Set;
        opinion
    }
}

/// What the policy remembers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ZeroState {
    /// When it was last active.
    active: Option<Instant>,
    last: Option<(Instant, f64)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Metrics;
    use crate::policy::{Capacity, Decision, Policy, PolicyConfig, PolicyState};
    use sim_core::time::Timestamp;

    fn at(second: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(second)
    }

    fn decide(
        policy: &Policy,
        state: &mut PolicyState,
        second: u64,
        value: Option<f64>,
        desired: u32,
    ) -> Decision {
        let mut metrics = Metrics::default();
        if let Some(value) = value {
            metrics.record("backlog", at(second), value).unwrap();
        }
        let capacity = Capacity {
            max: 10,
            desired,
            ..Capacity::default()
        };
        let input = PolicyInput::new(at(second), Timestamp::UNIX_EPOCH, capacity, &metrics);
        policy.decide(state, &input)
    }

    fn policy() -> Policy {
        let mut config = ZeroConfig::new(Query::new("backlog").unwrap());
        config.activation = 5.0;
        Policy::new("zero", PolicyConfig::Zero(config)).unwrap()
    }

    #[test]
    fn a_group_of_none_wakes_above_the_threshold_and_not_at_it() {
        let (policy, mut state) = (policy(), policy().start());
        let at = decide(&policy, &mut state, 60, Some(5.0), 0);
        assert_eq!((at.vote, at.desired), (Vote::Abstain, 0));
        let above = decide(&policy, &mut state, 120, Some(5.1), 0);
        assert_eq!((above.vote, above.desired), (Vote::Out, 1));
    }

    #[test]
    fn it_goes_to_none_only_after_the_cooldown() {
        let (policy, mut state) = (policy(), policy().start());
        decide(&policy, &mut state, 60, Some(9.0), 3);
        let early = decide(&policy, &mut state, 359, Some(0.0), 3);
        assert_eq!((early.vote, early.floor), (Vote::Abstain, Some(1)));
        assert_eq!(early.next, Some(at(360)));
        let late = decide(&policy, &mut state, 360, Some(0.0), 3);
        assert_eq!((late.vote, late.desired), (Vote::Set, 0));
        let none = decide(&policy, &mut state, 420, Some(0.0), 0);
        assert_eq!(none.vote, Vote::Abstain);
    }

    #[test]
    fn a_missing_metric_is_no_idleness() {
        let (policy, mut state) = (policy(), policy().start());
        decide(&policy, &mut state, 60, Some(9.0), 3);
        assert_eq!(decide(&policy, &mut state, 9_000, None, 3).vote, Vote::Hold);
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let mut config = ZeroConfig::new(Query::new("backlog").unwrap());
        config.active = 0;
        assert!(
            config
                .check()
                .unwrap_err()
                .to_string()
                .starts_with("active: 0 ")
        );
        config.activation = f64::NAN;
        assert!(
            config
                .check()
                .unwrap_err()
                .to_string()
                .starts_with("activation: NaN ")
        );
    }
}
