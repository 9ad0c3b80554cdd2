//! One adjustment for an alarm, then a cooldown: EC2's simple scaling.
//!
//! While an activity goes on or its cooldown runs, alarms are not answered. The cooldown starts when the activity has
//! ended, as the group tells by `last_activity`, or, where it does not tell, when the change was carried out.

use std::time::Duration;

use sim_core::time::Instant;

use super::step::Adjustment;
use super::{Applied, By, Explanation, Limit, Opinion, PolicyError, PolicyInput, Reason, Vote};
use crate::alarm::{Alarm, AlarmConfig, AlarmState};

/// A simple scaling policy.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SimpleConfig {
    /// When it acts.
    pub alarm: AlarmConfig,
    /// What it does then.
    pub adjustment: Adjustment,
    /// For a change in percent, the least number of instances; 0 for none.
    pub min_adjustment_magnitude: u32,
    /// How long it waits after an activity. Default in EC2: 300 s. At most 30 days.
    pub cooldown: Duration,
}

impl SimpleConfig {
    pub(super) fn check(&self) -> Result<(), PolicyError> {
        Alarm::new(self.alarm.clone())?;
        super::period(&self.alarm.query)?;
        super::duration("cooldown", self.cooldown)
    }

    pub(super) fn decide(&self, state: &mut SimpleState, input: &PolicyInput<'_>) -> Opinion {
        state.alarm.evaluate(input.metrics, input.now);
        let mut explanation = Explanation::of(Reason::AlarmQuiet);
        explanation.saw = state.alarm.latest();
        explanation.against = Some(self.alarm.threshold);
        let next = state.alarm.next_evaluation(input.now);
        if state.alarm.state() != AlarmState::Alarm {
            return Opinion::stay(input, Vote::Abstain, explanation).again(next);
        }
        explanation.reason = Reason::AlarmBreached;
        let capacity = input.capacity;
        let wanted = self
            .adjustment
            .apply(capacity.desired, self.min_adjustment_magnitude);
        explanation.wanted = Some(wanted);
        // The group's word on when the activity ended counts; it may come before the start of the change it ended.
        let ended = match (input.last_activity, state.acted) {
            (Some(ended), Some(acted)) => Some(ended.max(acted)),
            (ended, acted) => ended.or(acted),
        };
        if capacity.pending > 0 && state.acted.is_some() {
            explanation.limits.push(Limit::WarmUp {
                instances: capacity.pending,
            });
            return Opinion::stay(input, Vote::Abstain, explanation).again(next);
        }
        if let Some(ended) = ended
            && input.now < ended + self.cooldown
        {
            let until = ended + self.cooldown;
            explanation.limits.push(Limit::Cooldown { until });
            return Opinion::stay(input, Vote::Abstain, explanation).again(until);
        }
        Opinion::want(input, wanted, explanation).again(next)
    }
}

/// What a simple policy remembers.
#[derive(Debug, Clone)]
pub(super) struct SimpleState {
    alarm: Alarm,
    /// When its last change was carried out.
    acted: Option<Instant>,
}

impl SimpleState {
    pub(super) fn new(config: &SimpleConfig) -> Self {
        Self {
            alarm: Alarm::of_checked(config.alarm.clone()),
            acted: None,
        }
    }

    pub(super) const fn applied(&mut self, applied: &Applied) {
        if matches!(applied.by, By::This) {
            self.acted = Some(applied.at);
        }
    }
}
