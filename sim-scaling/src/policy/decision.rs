//! What a policy decided and why, and how several decisions become one.

use std::fmt;
use std::time::Duration;

use sim_core::sync::Arc;
use sim_core::time::Instant;

use super::Kind;

/// Which way a policy votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Vote {
    /// More instances: the decision's `desired`.
    Out,
    /// Fewer instances are enough: the decision's `desired`.
    In,
    /// Nothing is to change, and nothing may be taken away.
    Hold,
    /// Exactly the decision's `desired`, asked for by a person or a schedule: taken whatever the others hold, but for
    /// one that wants more.
    Set,
    /// Nothing to say: it stands in nobody's way.
    Abstain,
}

/// What one policy decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The policy's name.
    pub policy: Arc<str>,
    /// The policy's kind.
    pub kind: Kind,
    /// Which way it votes.
    pub vote: Vote,
    /// How many instances it asks for; the present desired capacity when it holds or abstains.
    pub desired: u32,
    /// New bounds of the group, from a schedule.
    pub bounds: Option<Bounds>,
    /// What others may not take the capacity below, whatever the vote.
    pub floor: Option<u32>,
    /// What it saw and why it decided so.
    pub explanation: Explanation,
    /// When it wants to be asked again at the latest, where it knows.
    pub next: Option<Instant>,
}

/// A change of the group's bounds; what is `None` stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Bounds {
    /// The least capacity.
    pub min: Option<u32>,
    /// The greatest capacity.
    pub max: Option<u32>,
}

/// What a policy saw, wanted, and was kept from.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The value that it went by, where it read one.
    pub saw: Option<f64>,
    /// What it held the value against: a target, a threshold, a forecast.
    pub against: Option<f64>,
    /// The capacity that the rule alone asks for, before limits.
    pub wanted: Option<u32>,
    /// Why.
    pub reason: Reason,
    /// The rule that it went by, where it has several.
    pub rule: Option<Arc<str>>,
    /// What kept it from that, in the order in which it was applied.
    pub limits: Vec<Limit>,
}

impl Explanation {
    /// Makes an explanation of a reason alone.
    #[must_use]
    pub const fn of(reason: Reason) -> Self {
        Self {
            saw: None,
            against: None,
            wanted: None,
            reason,
            rule: None,
            limits: Vec::new(),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason)?;
        if let Some(saw) = self.saw {
            write!(f, ": saw {saw:.3}")?;
            if let Some(against) = self.against {
                write!(f, " against {against:.3}")?;
            }
        }
        if let Some(wanted) = self.wanted {
            write!(f, ", wanted {wanted}")?;
        }
        if let Some(rule) = &self.rule {
            write!(f, " by {rule}")?;
        }
        for limit in &self.limits {
            write!(f, "; {limit}")?;
        }
        Ok(())
    }
}

/// Why a policy wants what it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Reason {
    /// Nothing was to be decided.
    Nothing,
    /// Somebody asked for this capacity.
    Requested,
    /// The policy is switched off.
    Disabled,
    /// Its alarm is in ALARM.
    AlarmBreached,
    /// Its alarm is not in ALARM.
    AlarmQuiet,
    /// The metric is above the target.
    AboveTarget,
    /// The metric is below the target.
    BelowTarget,
    /// The metric is close enough to the target.
    AtTarget,
    /// A scheduled action was due.
    Schedule,
    /// The forecast asks for it.
    Forecast,
    /// The load as it is asks for it.
    Load,
    /// The backlog grows, or has to be worked off.
    Backlog,
    /// There has been nothing to do for long enough.
    Idle,
    /// There is something to do again.
    Activated,
    /// The metric is missing; the fallback decides.
    Fallback,
    /// The least or greatest capacity was violated.
    Bounds,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing to decide",
            Self::Requested => "requested",
            Self::Disabled => "the policy is disabled",
            Self::AlarmBreached => "the alarm is in ALARM",
            Self::AlarmQuiet => "the alarm is not in ALARM",
            Self::AboveTarget => "above the target",
            Self::BelowTarget => "below the target",
            Self::AtTarget => "at the target",
            Self::Schedule => "a scheduled action was due",
            Self::Forecast => "the forecast asks for it",
            Self::Load => "the load asks for it",
            Self::Backlog => "the backlog asks for it",
            Self::Idle => "nothing to do for long enough",
            Self::Activated => "there is something to do again",
            Self::Fallback => "the metric is missing, the fallback decides",
            Self::Bounds => "outside of the bounds",
        })
    }
}

/// What kept a policy, or the group, from the capacity that was wanted.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Limit {
    /// Held at the greatest capacity.
    AtMax {
        /// The greatest capacity.
        max: u32,
    },
    /// Held at the least capacity.
    AtMin {
        /// The least capacity.
        min: u32,
    },
    /// The capacity is what was wanted already.
    AtDesired,
    /// A cooldown runs.
    Cooldown {
        /// Until when.
        until: Instant,
    },
    /// Instances are on their way or warming up: they are counted in already, or nothing is taken away meanwhile.
    WarmUp {
        /// How many.
        instances: u32,
    },
    /// A more cautious recommendation of the stabilisation window stands.
    Stabilization {
        /// The window.
        window: Duration,
        /// The recommendation.
        recommended: u32,
    },
    /// The velocity policies allow no more change for now.
    Velocity {
        /// The capacity that they allow.
        allowed: u32,
    },
    /// The metric is within the tolerance of the target.
    Tolerance {
        /// The metric divided by its target.
        ratio: f64,
    },
    /// A metric has no sample.
    MetricMissing {
        /// The metric.
        name: Arc<str>,
    },
    /// The formula has no finite value.
    MetricUndefined,
    /// Scaling in is switched off.
    ScaleInDisabled,
    /// Scaling out is switched off.
    ScaleOutDisabled,
    /// The policy only forecasts.
    ForecastOnly,
    /// There is too little history for a forecast.
    TooLittleHistory,
    /// Taking away would soon have to be undone.
    AnticipatedFlapping {
        /// The capacity that would be wanted again.
        needed: u32,
    },
    /// Another policy does not agree to scaling in.
    Disagreement {
        /// The first that does not.
        policy: Arc<str>,
    },
    /// Another policy asked for more.
    Outvoted {
        /// The policy that was followed.
        policy: Arc<str>,
    },
}

impl Limit {
    /// The name of the reason: that of `NotScaledReason` in AWS Application Auto Scaling where it has one.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AtMax { .. } => "AlreadyAtMaxCapacity",
            Self::AtMin { .. } => "AlreadyAtMinCapacity",
            Self::AtDesired => "AlreadyAtDesiredCapacity",
            Self::Cooldown { .. } => "CooldownInProgress",
            Self::WarmUp { .. } => "InstancesWarmingUp",
            Self::Stabilization { .. } => "StabilizationWindow",
            Self::Velocity { .. } => "VelocityLimited",
            Self::Tolerance { .. } => "WithinTolerance",
            Self::MetricMissing { .. } => "MetricMissing",
            Self::MetricUndefined => "MetricUndefined",
            Self::ScaleInDisabled => "ScaleInDisabled",
            Self::ScaleOutDisabled => "ScaleOutDisabled",
            Self::ForecastOnly => "ForecastOnly",
            Self::TooLittleHistory => "TooLittleHistory",
            Self::AnticipatedFlapping { .. } => "AutoScalingAnticipatedFlapping",
            Self::Disagreement { .. } => "PoliciesDisagree",
            Self::Outvoted { .. } => "OutvotedByLargerCapacity",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::AtMax { max } => write!(f, " ({max})"),
            Self::AtMin { min } => write!(f, " ({min})"),
            Self::Cooldown { until } => write!(f, " (until {} ns)", until.as_nanos()),
            Self::WarmUp { instances } => write!(f, " ({instances})"),
            Self::Stabilization {
                window,
                recommended,
            } => write!(f, " ({recommended} recommended within {window:?})"),
            Self::Velocity { allowed } => write!(f, " ({allowed} allowed)"),
            Self::Tolerance { ratio } => write!(f, " (ratio {ratio:.3})"),
            Self::MetricMissing { name } => write!(f, " ({name})"),
            Self::AnticipatedFlapping { needed } => write!(f, " ({needed} needed again)"),
            Self::Disagreement { policy } | Self::Outvoted { policy } => write!(f, " ({policy})"),
            Self::AtDesired
            | Self::MetricUndefined
            | Self::ScaleInDisabled
            | Self::ScaleOutDisabled
            | Self::ForecastOnly
            | Self::TooLittleHistory => Ok(()),
        }
    }
}

/// What the policies of a group decided together.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// How many instances there should be, within the bounds.
    pub desired: u32,
    /// New bounds of the group, where a schedule changed them.
    pub bounds: Option<Bounds>,
    /// The policy that was followed; none when nothing changes, or when the bounds alone ask for the change.
    pub policy: Option<Arc<str>>,
    /// Why.
    pub reason: Reason,
    /// What kept the group from what was wanted.
    pub limits: Vec<Limit>,
    /// What each policy decided, in the order in which they were added.
    pub decisions: Vec<Decision>,
    /// When the policies want to be asked again at the latest, where one knows.
    pub next: Option<Instant>,
}

impl Verdict {
    /// Tells, one line for each policy and one for the group, why the capacity changes or not.
    #[must_use]
    pub fn explain(&self) -> String {
        use fmt::Write as _;
        let mut text = String::new();
        for one in &self.decisions {
            let vote = match one.vote {
                Vote::Out => "out to",
                Vote::In => "in to",
                Vote::Set => "set to",
                Vote::Hold => "hold at",
                Vote::Abstain => "abstains at",
            };
            let (policy, kind) = (&one.policy, one.kind);
            let _ = writeln!(
                text,
                "{policy} ({kind}): {vote} {} ({})",
                one.desired, one.explanation
            );
        }
        let _ = write!(text, "group: {} ({}", self.desired, self.reason);
        for limit in &self.limits {
            let _ = write!(text, "; {limit}");
        }
        text.push(')');
        text
    }
}

/// Makes one decision of several, for a group of `desired` instances between `min` and `max`.
///
/// - The largest that wants out wins, also over what was set.
/// - What was set (by a person, by a schedule) comes next; the last one counts.
/// - Capacity is taken away only when every policy that speaks wants it, down to the largest that one of them asks for.
///   A policy that holds has spoken; one that abstains has not. Floors hold.
/// - The bounds come last, with a schedule's new ones applied.
#[must_use]
pub fn combine(desired: u32, min: u32, max: u32, decisions: Vec<Decision>) -> Verdict {
    let mut bounds: Option<Bounds> = None;
    for new in decisions.iter().filter_map(|one| one.bounds) {
        let all = bounds.get_or_insert_default();
        all.min = new.min.or(all.min);
        all.max = new.max.or(all.max);
    }
    let min = bounds.and_then(|new| new.min).unwrap_or(min);
    // A schedule that moves one bound past the other moves the other along: the group must stay possible.
    let max = bounds.and_then(|new| new.max).unwrap_or(max).max(min);

    let of = |vote| decisions.iter().filter(move |one| one.vote == vote);
    // `max_by_key` takes the last of equals; the first policy should be named.
    let out = of(Vote::Out).rev().max_by_key(|one| one.desired);
    let set = of(Vote::Set).next_back();
    let holder = of(Vote::Hold).next();
    let inward = of(Vote::In).rev().max_by_key(|one| one.desired);
    let mut limits = Vec::new();
    let chosen = match (out, set, holder, inward) {
        (Some(out), Some(set), ..) if set.desired >= out.desired => Some(set),
        (Some(out), ..) => Some(out),
        (None, Some(set), ..) => Some(set),
        (None, None, Some(holder), Some(_)) => {
            limits.push(Limit::Disagreement {
                policy: Arc::clone(&holder.policy),
            });
            None
        }
        (None, None, None, Some(inward)) => Some(inward),
        (None, None, _, None) => None,
    };
    let mut wanted = chosen.map_or(desired, |one| one.desired);
    // A floor holds against those that take away; what was set by somebody is set.
    if let Some(one) = chosen.filter(|one| one.vote == Vote::In) {
        let floored = decisions
            .iter()
            .filter_map(|other| Some((other.floor?, other)));
        if let Some((floor, other)) = floored.max_by_key(|floored| floored.0)
            && floor > one.desired
        {
            wanted = floor.min(desired);
            limits.push(Limit::Disagreement {
                policy: Arc::clone(&other.policy),
            });
        }
    }
    let held = wanted.clamp(min, max);
    if wanted > max {
        limits.push(Limit::AtMax { max });
    } else if wanted < min {
        limits.push(Limit::AtMin { min });
    }
    let (policy, reason) = match chosen {
        Some(one) => (Some(Arc::clone(&one.policy)), one.explanation.reason),
        None if held != desired => (None, Reason::Bounds),
        None => (
            None,
            decisions
                .first()
                .map_or(Reason::Nothing, |one| one.explanation.reason),
        ),
    };
    let next = decisions.iter().filter_map(|one| one.next).min();
    Verdict {
        desired: held,
        bounds,
        policy,
        reason,
        limits,
        decisions,
        next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vote(policy: &str, vote: Vote, desired: u32) -> Decision {
        Decision {
            policy: Arc::from(policy),
            kind: Kind::Step,
            vote,
            desired,
            bounds: None,
            floor: None,
            explanation: Explanation::of(Reason::Load),
            next: None,
        }
    }

    #[test]
    fn the_largest_that_wants_out_wins() {
        let found = combine(
            5,
            0,
            100,
            vec![
                vote("a", Vote::Out, 7),
                vote("b", Vote::Out, 9),
                vote("c", Vote::In, 2),
                vote("d", Vote::Out, 9),
            ],
        );
        assert_eq!((found.desired, found.policy.as_deref()), (9, Some("b")));
    }

    #[test]
    fn capacity_goes_only_when_all_that_speak_agree() {
        let all = combine(
            9,
            0,
            100,
            vec![
                vote("a", Vote::In, 3),
                vote("b", Vote::In, 5),
                vote("c", Vote::Abstain, 9),
            ],
        );
        assert_eq!((all.desired, all.policy.as_deref()), (5, Some("b")));
        let one_holds = combine(
            9,
            0,
            100,
            vec![vote("a", Vote::In, 3), vote("b", Vote::Hold, 9)],
        );
        assert_eq!(one_holds.desired, 9);
        assert_eq!(
            one_holds.limits,
            [Limit::Disagreement {
                policy: Arc::from("b")
            }]
        );
    }

    #[test]
    fn a_floor_holds_against_what_takes_away() {
        let mut floor = vote("f", Vote::Abstain, 9);
        floor.floor = Some(6);
        let found = combine(9, 0, 100, vec![vote("a", Vote::In, 3), floor.clone()]);
        assert_eq!((found.desired, found.limits.len()), (6, 1));
        assert_eq!(
            combine(9, 0, 100, vec![vote("a", Vote::In, 7), floor.clone()]).desired,
            7
        );
        floor.floor = Some(20);
        let found = combine(9, 0, 100, vec![vote("a", Vote::In, 7), floor]);
        assert_eq!(found.desired, 9, "a floor asks for nothing");
    }

    #[test]
    fn what_is_set_counts_unless_one_wants_more() {
        let set = |other| combine(9, 0, 100, vec![vote("s", Vote::Set, 4), other]).desired;
        assert_eq!(set(vote("a", Vote::Hold, 9)), 4);
        assert_eq!(set(vote("a", Vote::In, 1)), 4);
        assert_eq!(set(vote("a", Vote::Out, 12)), 12);
    }

    #[test]
    fn bounds_of_a_schedule_are_applied_at_once() {
        let mut one = vote("s", Vote::Abstain, 9);
        one.bounds = Some(Bounds {
            min: Some(20),
            max: None,
        });
        let found = combine(9, 0, 10, vec![one]);
        assert_eq!((found.desired, found.reason), (20, Reason::Bounds));
        assert_eq!(found.limits, [Limit::AtMin { min: 20 }]);
    }

    #[test]
    fn the_text_names_every_policy_and_every_limit() {
        let mut one = vote("cpu", Vote::Hold, 3);
        one.explanation.saw = Some(0.5);
        one.explanation
            .limits
            .push(Limit::Tolerance { ratio: 1.05 });
        let text = combine(3, 1, 5, vec![one]).explain();
        assert_eq!(
            text,
            "cpu (step): hold at 3 (the load asks for it: saw 0.500; WithinTolerance (ratio 1.050))\n\
             group: 3 (the load asks for it)"
        );
    }

    fn any_vote() -> impl Strategy<Value = Decision> {
        (0usize..5, 0u32..60).prop_map(|(which, desired)| {
            let all = [Vote::Out, Vote::In, Vote::Hold, Vote::Set, Vote::Abstain];
            vote("p", all[which], desired)
        })
    }

    proptest! {
        #[test]
        fn the_outcome_is_within_the_bounds_and_never_inward_against_a_voice(
            votes in prop::collection::vec(any_vote(), 0..6),
            desired in 0u32..60,
            min in 0u32..20,
            more in 0u32..40,
        ) {
            // What wants out asks for more than there is, what wants in for less: the policies' own contract.
            let votes: Vec<_> = votes.into_iter().map(|mut one| {
                one.desired = match one.vote {
                    Vote::Out => desired + 1 + one.desired,
                    Vote::In => one.desired.min(desired.saturating_sub(1)),
                    Vote::Set => one.desired,
                    _ => desired,
                };
                one
            }).collect();
            let found = combine(desired, min, min + more, votes.clone());
            prop_assert!(found.desired >= min && found.desired <= min + more);
            let any = |vote| votes.iter().any(|one| one.vote == vote);
            if any(Vote::Out) {
                let most = votes.iter().filter(|one| one.vote == Vote::Out).map(|one| one.desired).max();
                prop_assert!(found.desired >= most.unwrap_or(0).min(min + more));
            } else if any(Vote::Hold) && !any(Vote::Set) {
                prop_assert_eq!(found.desired, desired.clamp(min, min + more));
            }
        }
    }
}
