//! At times: once, or by cron in a time zone (feature `cron`).
//!
//! An action sets any of the least, the greatest and the desired capacity when it is due. What was due before the policy was
//! first asked is not made up for; what was due between two questions is done once, the latest last. A recurring time that a
//! clock change skips is due right after the gap, and one that happens twice is due the first time only.
//!
//! Source: "Scheduled scaling for Amazon EC2 Auto Scaling": `StartTime`, `EndTime`, `Recurrence`, `TimeZone`.

use std::time::Duration;

use sim_core::time::Timestamp;

use super::{Bounds, Explanation, Opinion, PolicyInput, Reason, Vote};

/// Most actions of a policy, as EC2 allows a group.
pub const ACTIONS_LIMIT: usize = 125;

/// Actions at times.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ScheduledConfig {
    /// 1 to 125 actions.
    pub actions: Vec<ScheduledAction>,
}

/// One action.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct ScheduledAction {
    /// Its name, for errors.
    pub name: String,
    /// When it is due, without a recurrence; when the recurrence begins, with one.
    pub start: Option<Timestamp>,
    /// After this nothing recurs.
    pub end: Option<Timestamp>,
    /// A cron expression: minute, hour, day of the month, month, day of the week. Needs the feature `cron`.
    pub recurrence: Option<String>,
    /// The zone of the recurrence by its IANA name. Default: UTC.
    pub time_zone: Option<String>,
    /// The least capacity from then on.
    pub min: Option<u32>,
    /// The greatest capacity from then on.
    pub max: Option<u32>,
    /// The desired capacity then.
    pub desired: Option<u32>,
}

/// An action cannot be scheduled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// There are none, or too many.
    #[error("actions: there are {count}, must be 1 to {ACTIONS_LIMIT}")]
    Count {
        /// How many were given.
        count: usize,
    },
    /// Neither a start nor a recurrence.
    #[error("action {name:?}: needs a start or a recurrence")]
    Never {
        /// The action.
        name: String,
    },
    /// It would change nothing.
    #[error("action {name:?}: needs min, max or desired")]
    Nothing {
        /// The action.
        name: String,
    },
    /// The end is not after the start.
    #[error("action {name:?}: end {end} is not after start {start}")]
    Order {
        /// The action.
        name: String,
        /// The start.
        start: Timestamp,
        /// The end.
        end: Timestamp,
    },
    /// The capacities contradict each other.
    #[error("action {name:?}: min {min:?}, desired {desired:?} and max {max:?} are not in order")]
    Capacities {
        /// The action.
        name: String,
        /// The least.
        min: Option<u32>,
        /// The desired.
        desired: Option<u32>,
        /// The greatest.
        max: Option<u32>,
    },
    /// The cron expression.
    #[error("action {name:?}: recurrence {text:?}: {problem}")]
    Recurrence {
        /// The action.
        name: String,
        /// The expression, cut to 80 characters.
        text: String,
        /// What is wrong.
        problem: String,
    },
    /// The time zone.
    #[error("action {name:?}: time zone {zone:?} is not known")]
    Zone {
        /// The action.
        name: String,
        /// The zone given, cut to 80 characters.
        zone: String,
    },
}

/// Checked actions.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    actions: Vec<Planned>,
}

#[derive(Debug, Clone)]
struct Planned {
    action: ScheduledAction,
    #[cfg(feature = "cron")]
    recurrence: Option<(croner::Cron, jiff::tz::TimeZone)>,
}

impl Schedule {
    pub(super) fn new(config: ScheduledConfig) -> Result<Self, ScheduleError> {
        let count = config.actions.len();
        if count == 0 || count > ACTIONS_LIMIT {
            return Err(ScheduleError::Count { count });
        }
        let actions = config
            .actions
            .into_iter()
            .map(Planned::new)
            .collect::<Result<_, _>>()?;
        Ok(Self { actions })
    }

    pub(super) fn decide(&self, state: &mut ScheduledState, input: &PolicyInput<'_>) -> Opinion {
        let time = input.time;
        if state.due.len() != self.actions.len() {
            // A nanosecond before now, so that what is due now is due.
            let before = time - Duration::from_nanos(1);
            state.due = self.actions.iter().map(|one| one.next(before)).collect();
        }
        let mut fired: Vec<(Timestamp, usize)> = Vec::new();
        for (index, (due, planned)) in state.due.iter_mut().zip(&self.actions).enumerate() {
            if let Some(at) = due.filter(|&at| at <= time) {
                fired.push((at, index));
                *due = planned.next(time);
            }
        }
        fired.sort_unstable();
        let wait = state.due.iter().flatten().min().map(|&due| due - time);

        let (mut bounds, mut desired) = (Bounds::default(), None);
        for &(_, index) in &fired {
            let action = &self.actions[index].action;
            bounds.min = action.min.or(bounds.min);
            bounds.max = action.max.or(bounds.max);
            desired = action.desired.or(desired);
        }
        let mut opinion = if fired.is_empty() {
            Opinion::stay(input, Vote::Abstain, Explanation::of(Reason::Nothing))
        } else {
            let mut explanation = Explanation::of(Reason::Schedule);
            let names: Vec<&str> = fired
                .iter()
                .map(|&(_, index)| self.actions[index].action.name.as_str())
                .collect();
            explanation.rule = Some(names.join(", ").into());
            match desired {
                Some(desired) => {
                    let mut input = *input;
                    input.capacity.min = bounds.min.unwrap_or(input.capacity.min);
                    let max = bounds.max.unwrap_or(input.capacity.max);
                    input.capacity.max = max.max(input.capacity.min);
                    let mut opinion = Opinion::want(&input, desired, explanation);
                    opinion.vote = Vote::Set;
                    opinion
                }
                None => Opinion::stay(input, Vote::Abstain, explanation),
            }
        };
        if bounds != Bounds::default() {
            opinion.bounds = Some(bounds);
        }
        match wait {
            Some(wait) => opinion.again(input.now + wait),
            None => opinion,
        }
    }
}

/// When each action is due next; empty before the first decision. At most [`ACTIONS_LIMIT`].
#[derive(Debug, Clone, Default)]
pub(super) struct ScheduledState {
    due: Vec<Option<Timestamp>>,
}

impl Planned {
    fn new(action: ScheduledAction) -> Result<Self, ScheduleError> {
        let name = || action.name.chars().take(80).collect::<String>();
        if action.start.is_none() && action.recurrence.is_none() {
            return Err(ScheduleError::Never { name: name() });
        }
        if action.min.is_none() && action.max.is_none() && action.desired.is_none() {
            return Err(ScheduleError::Nothing { name: name() });
        }
        if let (Some(start), Some(end)) = (action.start, action.end)
            && end <= start
        {
            return Err(ScheduleError::Order {
                name: name(),
                start,
                end,
            });
        }
        let given: Vec<u32> = [action.min, action.desired, action.max]
            .into_iter()
            .flatten()
            .collect();
        if !given.is_sorted() {
            return Err(ScheduleError::Capacities {
                name: name(),
                min: action.min,
                desired: action.desired,
                max: action.max,
            });
        }
        #[cfg(feature = "cron")]
        {
            let recurrence = match &action.recurrence {
                Some(text) => Some((pattern(&name(), text)?, zone(&name(), &action)?)),
                None => None,
            };
            Ok(Self { action, recurrence })
        }
        #[cfg(not(feature = "cron"))]
        if let Some(text) = &action.recurrence {
            Err(ScheduleError::Recurrence {
                name: name(),
                text: text.chars().take(80).collect(),
                problem: "needs the feature `cron`".to_owned(),
            })
        } else {
            Ok(Self { action })
        }
    }

    /// When it is due next, later than `after`.
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        #[cfg(feature = "cron")]
        if let Some((cron, zone)) = &self.recurrence {
            // The first time may be the start itself.
            let (from, inclusive) = match self.action.start {
                Some(start) if start > after => (start, true),
                _ => (after, false),
            };
            let from = jiff::Timestamp::from_nanosecond(i128::from(from.as_unix_nanos())).ok()?;
            let next = cron
                .find_next_occurrence(&from.to_zoned(zone.clone()), inclusive)
                .ok()?;
            let nanos = i64::try_from(next.timestamp().as_nanosecond()).ok()?;
            let next = Timestamp::from_unix_nanos(nanos);
            return (next > after && self.action.end.is_none_or(|end| next <= end)).then_some(next);
        }
        self.action.start.filter(|&start| start > after)
    }
}

#[cfg(feature = "cron")]
fn pattern(name: &str, text: &str) -> Result<croner::Cron, ScheduleError> {
    let fail = |problem: String| ScheduleError::Recurrence {
        name: name.to_owned(),
        text: text.chars().take(80).collect(),
        problem,
    };
    if text.len() > 255 {
        return Err(fail("longer than 255 bytes".to_owned()));
    }
    text.parse()
        .map_err(|error: croner::errors::CronError| fail(error.to_string()))
}

#[cfg(feature = "cron")]
fn zone(name: &str, action: &ScheduledAction) -> Result<jiff::tz::TimeZone, ScheduleError> {
    let Some(zone) = &action.time_zone else {
        return Ok(jiff::tz::TimeZone::UTC);
    };
    jiff::tz::TimeZone::get(zone).map_err(|_| ScheduleError::Zone {
        name: name.to_owned(),
        zone: zone.chars().take(80).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Metrics;
    use crate::policy::{
        Capacity, Decision, Policy, PolicyConfig, PolicyError, PolicyState, combine,
    };
    use sim_core::time::Instant;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn policy(actions: Vec<ScheduledAction>) -> Result<Policy, PolicyError> {
        Policy::new("at", PolicyConfig::Scheduled(ScheduledConfig { actions }))
    }

    fn decide(policy: &Policy, state: &mut PolicyState, time: &str) -> Decision {
        let metrics = Metrics::default();
        let capacity = Capacity {
            min: 1,
            max: 10,
            desired: 2,
            ..Capacity::default()
        };
        let time = at(time);
        let now = Instant::ORIGIN + (time - Timestamp::UNIX_EPOCH);
        policy.decide(state, &PolicyInput::new(now, time, capacity, &metrics))
    }

    fn once(time: &str, desired: u32) -> ScheduledAction {
        ScheduledAction {
            name: format!("to {desired}"),
            start: Some(at(time)),
            desired: Some(desired),
            ..ScheduledAction::default()
        }
    }

    #[test]
    fn an_action_is_due_once_and_not_before() {
        let policy = policy(vec![once("2026-01-01T09:00:00Z", 7)]).unwrap();
        let mut state = policy.start();
        let before = decide(&policy, &mut state, "2026-01-01T08:59:00Z");
        assert_eq!(before.vote, Vote::Abstain);
        let start = Instant::ORIGIN + (at("2026-01-01T09:00:00Z") - Timestamp::UNIX_EPOCH);
        assert_eq!(before.next, Some(start));
        let then = decide(&policy, &mut state, "2026-01-01T09:00:30Z");
        assert_eq!((then.vote, then.desired), (Vote::Set, 7));
        assert_eq!(then.explanation.rule.as_deref(), Some("to 7"));
        let after = decide(&policy, &mut state, "2026-01-01T09:01:00Z");
        assert_eq!((after.vote, after.next), (Vote::Abstain, None));
    }

    #[test]
    fn what_was_due_before_the_first_question_is_not_made_up_for() {
        let policy = policy(vec![once("2026-01-01T09:00:00Z", 7)]).unwrap();
        let late = decide(&policy, &mut policy.start(), "2026-01-01T09:00:01Z");
        assert_eq!(late.vote, Vote::Abstain);
        let exact = decide(&policy, &mut policy.start(), "2026-01-01T09:00:00Z");
        assert_eq!(exact.vote, Vote::Set);
    }

    #[test]
    fn of_several_that_are_due_the_latest_counts() {
        let actions = vec![
            once("2026-01-01T09:10:00Z", 8),
            once("2026-01-01T09:05:00Z", 4),
        ];
        let policy = policy(actions).unwrap();
        let mut state = policy.start();
        decide(&policy, &mut state, "2026-01-01T09:00:00Z");
        assert_eq!(
            decide(&policy, &mut state, "2026-01-01T10:00:00Z").desired,
            8
        );
    }

    #[test]
    fn new_bounds_hold_for_the_action_s_own_capacity() {
        let mut action = once("2026-01-01T09:00:00Z", 40);
        (action.min, action.max) = (Some(30), Some(50));
        let policy = policy(vec![action]).unwrap();
        let decision = decide(&policy, &mut policy.start(), "2026-01-01T09:00:00Z");
        let verdict = combine(2, 1, 10, vec![decision]);
        assert_eq!(verdict.desired, 40);
        assert_eq!(
            verdict.bounds,
            Some(Bounds {
                min: Some(30),
                max: Some(50)
            })
        );
    }

    #[test]
    fn what_cannot_be_scheduled_is_refused_by_name() {
        let fails = |action| policy(vec![action]).unwrap_err().to_string();
        let good = || once("2026-01-01T09:00:00Z", 7);
        assert!(policy(Vec::new()).is_err());
        let bad = ScheduledAction {
            start: None,
            ..good()
        };
        assert_eq!(
            fails(bad),
            "schedule: action \"to 7\": needs a start or a recurrence"
        );
        let bad = ScheduledAction {
            desired: None,
            ..good()
        };
        assert!(fails(bad).ends_with("needs min, max or desired"));
        let bad = ScheduledAction {
            end: good().start,
            ..good()
        };
        assert!(fails(bad).contains("is not after start"));
        let bad = ScheduledAction {
            min: Some(9),
            ..good()
        };
        assert!(fails(bad).contains("not in order"));
    }

    #[cfg(feature = "cron")]
    mod cron {
        use super::*;

        fn each(recurrence: &str, zone: Option<&str>) -> ScheduledAction {
            ScheduledAction {
                name: "each".to_owned(),
                recurrence: Some(recurrence.to_owned()),
                time_zone: zone.map(str::to_owned),
                desired: Some(7),
                ..ScheduledAction::default()
            }
        }

        /// The next times that an action is due.
        fn due(action: ScheduledAction, after: &str, count: usize) -> Vec<String> {
            let planned = Planned::new(action).unwrap();
            let mut time = at(after);
            (0..count)
                .map_while(|_| {
                    time = planned.next(time)?;
                    Some(time.to_string())
                })
                .collect()
        }

        #[test]
        fn a_recurrence_is_in_its_own_zone() {
            let found = due(
                each("30 9 * * MON-FRI", Some("America/New_York")),
                "2026-01-09T00:00:00Z",
                2,
            );
            assert_eq!(found, ["2026-01-09T14:30:00Z", "2026-01-12T14:30:00Z"]);
            let found = due(each("30 9 * * *", None), "2026-07-01T00:00:00Z", 1);
            assert_eq!(found, ["2026-07-01T09:30:00Z"]);
        }

        #[test]
        fn a_time_that_a_clock_change_skips_is_due_right_after_the_gap() {
            // Berlin, 29 March 2026: 2:00 becomes 3:00.
            let found = due(
                each("30 2 * * *", Some("Europe/Berlin")),
                "2026-03-28T12:00:00Z",
                2,
            );
            assert_eq!(found, ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
        }

        #[test]
        fn a_time_that_happens_twice_is_due_the_first_time() {
            // Berlin, 25 October 2026: 3:00 becomes 2:00.
            let found = due(
                each("30 2 * * *", Some("Europe/Berlin")),
                "2026-10-24T12:00:00Z",
                2,
            );
            assert_eq!(found, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        }

        #[test]
        fn a_recurrence_begins_at_its_start_and_ends_after_its_end() {
            let mut action = each("0 * * * *", None);
            action.start = Some(at("2026-01-01T10:00:00Z"));
            action.end = Some(at("2026-01-01T12:00:00Z"));
            let found = due(action, "2026-01-01T00:00:00Z", 9);
            assert_eq!(
                found,
                [
                    "2026-01-01T10:00:00Z",
                    "2026-01-01T11:00:00Z",
                    "2026-01-01T12:00:00Z"
                ]
            );
        }

        #[test]
        fn a_policy_recurs_day_by_day() {
            let policy = policy(vec![each("0 9 * * *", None)]).unwrap();
            let mut state = policy.start();
            let votes = [
                "2026-01-01T08:00:00Z",
                "2026-01-01T09:00:00Z",
                "2026-01-01T10:00:00Z",
                "2026-01-04T10:00:00Z",
                "2026-01-04T11:00:00Z",
            ]
            .map(|time| decide(&policy, &mut state, time).vote == Vote::Set);
            assert_eq!(
                votes,
                [false, true, false, true, false],
                "missed days count once"
            );
        }

        #[test]
        fn garbage_is_refused_with_the_reason() {
            for text in [
                "",
                "* * *",
                "61 * * * *",
                "a b c d e",
                "0 9 * * 9",
                &"*".repeat(300),
            ] {
                let error = policy(vec![each(text, None)]).unwrap_err().to_string();
                assert!(error.contains("recurrence"), "{text}: {error}");
            }
            let error = policy(vec![each("0 9 * * *", Some("Mars/Olympus"))]).unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains("time zone \"Mars/Olympus\" is not known")
            );
            // The 30th of February: it parses and is never due.
            assert_eq!(
                due(each("0 0 30 2 *", None), "2026-01-01T00:00:00Z", 1).len(),
                0
            );
        }
    }

    #[cfg(not(feature = "cron"))]
    #[test]
    fn a_recurrence_without_the_feature_is_refused() {
        let mut action = once("2026-01-01T09:00:00Z", 7);
        action.recurrence = Some("0 9 * * *".to_owned());
        let error = policy(vec![action]).unwrap_err().to_string();
        assert!(error.contains("needs the feature `cron`"), "{error}");
    }
}
