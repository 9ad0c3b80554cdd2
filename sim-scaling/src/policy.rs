//! Policies: pure functions of a metric window and now, each with its reasons.
//!
//! A [`PolicyConfig`] is plain data; [`Policy::new`] checks it once. [`Policy::decide`] takes what it remembers (a
//! [`PolicyState`]) and what is to be known (a [`PolicyInput`]) and returns a [`Decision`]. It reads no clock, draws no
//! chance, and the same inputs give the same decisions. A [`PolicySet`] holds the policies of a group, asks all of them
//! and combines what they say.
//!
//! | kind | rule |
//! | --- | --- |
//! | [`manual`] | so many, by a person |
//! | [`simple`] | one adjustment for an alarm, then a cooldown |
//! | [`step`] | the adjustment grows with the breach; warm-up counted |
//! | [`target`] | in proportion to the distance from a target |
//! | [`scheduled`] | at times, by cron in time zones |
//! | [`predictive`] | ahead of what the days and weeks before showed |
//! | [`hpa`] | Kubernetes' ratio, with tolerance, stabilisation and velocity |
//! | [`zero`] | to zero and back |
//! | [`pid`] | a controller with headroom |
//! | [`anticipate`] | forecast, feedback and the backlog's slope; kept from being worse than others |

pub mod anticipate;
pub mod hpa;
pub mod manual;
pub mod pid;
pub mod predictive;
pub mod scheduled;
pub mod simple;
pub mod step;
pub mod target;
pub mod zero;

mod decision;
mod set;
mod warming;

use std::fmt;
use std::time::Duration;

use sim_core::sync::Arc;
use sim_core::time::{Instant, Timestamp};

use crate::alarm::AlarmError;
use crate::metric::{Fallback, Metrics, Query, Reading};

pub use decision::{Bounds, Decision, Explanation, Limit, Reason, Verdict, Vote, combine};
pub use set::{Enabled, PolicySet, PolicySetError};

/// The longest cooldown, warm-up or window that a policy takes: 30 days.
pub const DURATION_LIMIT: Duration = Duration::from_secs(30 * 86_400);

/// The shortest period of a policy's metric: 1 ms. A policy is asked again after each period, so less would only spin.
pub const PERIOD_LEAST: Duration = Duration::from_millis(1);

/// The kind of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Kind {
    /// [`manual`].
    Manual,
    /// [`simple`].
    Simple,
    /// [`step`].
    Step,
    /// [`target`].
    TargetTracking,
    /// [`scheduled`].
    Scheduled,
    /// [`predictive`].
    Predictive,
    /// [`hpa`].
    Hpa,
    /// [`zero`].
    Zero,
    /// [`pid`].
    Pid,
    /// [`anticipate`].
    Anticipate,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manual => "manual",
            Self::Simple => "simple",
            Self::Step => "step",
            Self::TargetTracking => "target tracking",
            Self::Scheduled => "scheduled",
            Self::Predictive => "predictive",
            Self::Hpa => "hpa",
            Self::Zero => "scale to zero",
            Self::Pid => "pid",
            Self::Anticipate => "anticipate",
        })
    }
}

/// A policy as plain data.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum PolicyConfig {
    /// So many, by a person.
    Manual(manual::ManualConfig),
    /// One adjustment for an alarm, then a cooldown.
    Simple(simple::SimpleConfig),
    /// An adjustment that grows with the breach.
    Step(step::StepConfig),
    /// In proportion to the distance from a target.
    TargetTracking(target::TargetConfig),
    /// Kubernetes' ratio.
    Hpa(hpa::HpaConfig),
    /// Forecast, feedback and the backlog's slope.
    Anticipate(anticipate::AnticipateConfig),
    /// At times.
    Scheduled(scheduled::ScheduledConfig),
    /// Ahead of time.
    Predictive(predictive::PredictiveConfig),
    /// To zero and back.
    Zero(zero::ZeroConfig),
    /// A controller.
    Pid(pid::PidConfig),
}

/// A checked policy; what it remembers is in a [`PolicyState`] of its own.
#[derive(Debug, Clone)]
pub struct Policy {
    name: Arc<str>,
    rule: Rule,
}

#[derive(Debug, Clone)]
enum Rule {
    Manual(manual::ManualConfig),
    Simple(simple::SimpleConfig),
    Step(step::StepConfig),
    Target(target::TargetConfig),
    Hpa(hpa::HpaConfig),
    Anticipate(anticipate::AnticipateConfig),
    Scheduled(scheduled::Schedule),
    Predictive(predictive::PredictiveConfig),
    Zero(zero::ZeroConfig),
    Pid(pid::PidConfig),
}

/// What a policy remembers between decisions. Bounded by the policy's settings.
#[derive(Debug, Clone)]
pub struct PolicyState(Memory);

#[derive(Debug, Clone)]
enum Memory {
    Manual,
    Simple(simple::SimpleState),
    Step(step::StepState),
    Target(target::TargetState),
    Hpa(hpa::HpaState),
    Anticipate(Box<anticipate::AnticipateState>),
    Scheduled(scheduled::ScheduledState),
    Predictive(predictive::PredictiveState),
    Zero(zero::ZeroState),
    Pid(pid::PidState),
}

/// The capacity of a group at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Capacity {
    /// The least that is allowed.
    pub min: u32,
    /// The most that is allowed.
    pub max: u32,
    /// What there should be.
    pub desired: u32,
    /// Instances that serve, those that warm up included.
    pub in_service: u32,
    /// Of those in service, how many warm up still: the group's default warm-up has not gone by.
    pub warming: u32,
    /// Launched and not yet in service.
    pub pending: u32,
}

impl Capacity {
    /// Instances that are desired and do not count yet: told so by the group, or `own` by the policy. Those that replace
    /// instances which serve still are no growth.
    fn growing(self, own: u32) -> u32 {
        let serving = self.in_service.saturating_sub(self.warming);
        let told = self.pending.saturating_add(self.warming);
        let missing = self.desired.saturating_sub(serving);
        own.max(told.min(missing)).min(self.desired)
    }
}

/// What a policy is told.
#[derive(Debug, Clone, Copy)]
pub struct PolicyInput<'a> {
    /// Now, on the clock's axis.
    pub now: Instant,
    /// Now, by the wall clock: schedules and seasons go by it.
    pub time: Timestamp,
    /// The group's capacity.
    pub capacity: Capacity,
    /// The group's metrics.
    pub metrics: &'a Metrics,
    /// Each instance's own value of the metric, where they are known: HPA's pods. Empty: the metric is one for the group.
    pub instances: &'a [InstanceSample],
    /// When the last scaling activity of the group ended; none while one goes on or before the first.
    pub last_activity: Option<Instant>,
}

impl<'a> PolicyInput<'a> {
    /// Makes an input without instances' samples and without an activity before.
    #[must_use]
    pub const fn new(
        now: Instant,
        time: Timestamp,
        capacity: Capacity,
        metrics: &'a Metrics,
    ) -> Self {
        Self {
            now,
            time,
            capacity,
            metrics,
            instances: &[],
            last_activity: None,
        }
    }
}

/// An instance's own value of a metric, for [`Kind::Hpa`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InstanceSample {
    /// Whether it is ready, starting, or of no account.
    pub standing: InstanceStanding,
    /// The metric's value, where it is known.
    pub value: Option<f64>,
}

/// How far an instance is, for [`InstanceSample`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InstanceStanding {
    /// It serves.
    Ready,
    /// It starts or warms up: its value tells little.
    NotReady,
    /// It failed or is being ended: it is not counted.
    Ignored,
}

impl Policy {
    /// Checks a policy.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] names the field, the value and the limit.
    pub fn new(name: &str, config: PolicyConfig) -> Result<Self, PolicyError> {
        if name.is_empty() || name.len() > 255 {
            return Err(PolicyError::Name { length: name.len() });
        }
        let rule = match config {
            PolicyConfig::Manual(config) => Rule::Manual(config),
            PolicyConfig::Simple(config) => {
                config.check()?;
                Rule::Simple(config)
            }
            PolicyConfig::Step(config) => {
                config.check()?;
                Rule::Step(config)
            }
            PolicyConfig::TargetTracking(config) => {
                config.check()?;
                Rule::Target(config)
            }
            PolicyConfig::Hpa(config) => {
                config.check()?;
                Rule::Hpa(config)
            }
            PolicyConfig::Anticipate(config) => {
                config.check()?;
                Rule::Anticipate(config)
            }
            PolicyConfig::Scheduled(config) => Rule::Scheduled(scheduled::Schedule::new(config)?),
            PolicyConfig::Predictive(config) => {
                config.check()?;
                Rule::Predictive(config)
            }
            PolicyConfig::Zero(config) => {
                config.check()?;
                Rule::Zero(config)
            }
            PolicyConfig::Pid(config) => {
                config.check()?;
                Rule::Pid(config)
            }
        };
        Ok(Self {
            name: Arc::from(name),
            rule,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self.rule {
            Rule::Manual(_) => Kind::Manual,
            Rule::Simple(_) => Kind::Simple,
            Rule::Step(_) => Kind::Step,
            Rule::Target(_) => Kind::TargetTracking,
            Rule::Hpa(_) => Kind::Hpa,
            Rule::Anticipate(_) => Kind::Anticipate,
            Rule::Scheduled(_) => Kind::Scheduled,
            Rule::Predictive(_) => Kind::Predictive,
            Rule::Zero(_) => Kind::Zero,
            Rule::Pid(_) => Kind::Pid,
        }
    }

    /// What it remembers at the start.
    #[must_use]
    pub fn start(&self) -> PolicyState {
        PolicyState(match &self.rule {
            Rule::Manual(_) => Memory::Manual,
            Rule::Simple(config) => Memory::Simple(simple::SimpleState::new(config)),
            Rule::Step(config) => Memory::Step(step::StepState::new(config)),
            Rule::Target(config) => Memory::Target(target::TargetState::new(config)),
            Rule::Hpa(_) => Memory::Hpa(hpa::HpaState::default()),
            Rule::Anticipate(config) => {
                Memory::Anticipate(Box::new(anticipate::AnticipateState::new(config)))
            }
            Rule::Scheduled(_) => Memory::Scheduled(scheduled::ScheduledState::default()),
            Rule::Predictive(_) => Memory::Predictive(predictive::PredictiveState::new()),
            Rule::Zero(_) => Memory::Zero(zero::ZeroState::default()),
            Rule::Pid(_) => Memory::Pid(pid::PidState::default()),
        })
    }

    /// Decides.
    ///
    /// A state of another kind of policy is started anew.
    pub fn decide(&self, state: &mut PolicyState, input: &PolicyInput<'_>) -> Decision {
        let opinion = match (&self.rule, &mut state.0) {
            (Rule::Manual(config), Memory::Manual) => config.decide(input),
            (Rule::Simple(config), Memory::Simple(state)) => config.decide(state, input),
            (Rule::Step(config), Memory::Step(state)) => config.decide(state, input),
            (Rule::Target(config), Memory::Target(state)) => config.decide(state, input),
            (Rule::Hpa(config), Memory::Hpa(state)) => config.decide(state, input),
            (Rule::Anticipate(config), Memory::Anticipate(state)) => config.decide(state, input),
            (Rule::Scheduled(schedule), Memory::Scheduled(state)) => schedule.decide(state, input),
            (Rule::Predictive(config), Memory::Predictive(state)) => config.decide(state, input),
            (Rule::Zero(config), Memory::Zero(state)) => config.decide(state, input),
            (Rule::Pid(config), Memory::Pid(state)) => config.decide(state, input),
            (_, foreign) => {
                *foreign = self.start().0;
                return self.decide(state, input);
            }
        };
        Decision {
            policy: Arc::clone(&self.name),
            kind: self.kind(),
            vote: opinion.vote,
            desired: opinion.desired,
            bounds: opinion.bounds,
            floor: opinion.floor,
            explanation: opinion.explanation,
            next: opinion.next,
        }
    }

    /// Lets the time pass without a decision, while it is disabled: what is due meanwhile is not made up for. When it is to
    /// be told again.
    fn skip(&self, state: &mut PolicyState, input: &PolicyInput<'_>) -> Option<Instant> {
        match self.rule {
            Rule::Scheduled(_) => self.decide(state, input).next,
            _ => None,
        }
    }

    /// The capacity that a simple or step policy makes of `current` for a breach told by hand, whatever its alarm says
    /// (`MetricValue` less `BreachThreshold` of `ExecutePolicy`); `None` where no step covers it, and for other kinds.
    #[must_use]
    pub fn adjust(&self, breach: f64, current: u32) -> Option<u32> {
        match &self.rule {
            Rule::Simple(config) if breach.is_finite() => Some(
                config
                    .adjustment
                    .apply(current, config.min_adjustment_magnitude),
            ),
            Rule::Step(config) if breach.is_finite() => config.adjust(breach, current),
            _ => None,
        }
    }

    /// Tells it that the group's capacity was changed, by it or by others: cooldowns begin.
    pub fn applied(&self, state: &mut PolicyState, applied: &Applied) {
        match (&self.rule, &mut state.0) {
            (Rule::Simple(_), Memory::Simple(state)) => state.applied(applied),
            (Rule::Step(config), Memory::Step(state)) => state.applied(config, applied),
            (Rule::Target(_), Memory::Target(state)) => state.applied(applied),
            (Rule::Hpa(_), Memory::Hpa(state)) => state.applied(applied),
            _ => {}
        }
    }
}

/// A change of capacity that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// When.
    pub at: Instant,
    /// The desired capacity before.
    pub from: u32,
    /// The desired capacity since.
    pub to: u32,
    /// Whether the policy that is told was the one that was followed.
    pub by: By,
}

/// Whose decision was followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// The policy's own.
    This,
    /// Another's: a policy's, a schedule's, a person's.
    Another,
}

/// A decision without the policy's name.
#[derive(Debug)]
struct Opinion {
    vote: Vote,
    desired: u32,
    bounds: Option<Bounds>,
    floor: Option<u32>,
    explanation: Explanation,
    next: Option<Instant>,
}

impl Opinion {
    /// Stays where it is.
    fn stay(input: &PolicyInput<'_>, vote: Vote, explanation: Explanation) -> Self {
        Self {
            vote,
            desired: input.capacity.desired,
            bounds: None,
            floor: None,
            explanation,
            next: None,
        }
    }

    /// Wants so many, held to the bounds; a vote for what there is already is a hold.
    fn want(input: &PolicyInput<'_>, wanted: u32, mut explanation: Explanation) -> Self {
        let Capacity {
            min, max, desired, ..
        } = input.capacity;
        // A group outside of its own bounds is brought back by `combine`; here `min` comes first.
        let held = wanted.min(max).max(min);
        explanation.wanted.get_or_insert(wanted);
        if wanted > max {
            explanation.limits.push(Limit::AtMax { max });
        } else if wanted < min {
            explanation.limits.push(Limit::AtMin { min });
        }
        let vote = match held.cmp(&desired) {
            std::cmp::Ordering::Greater => Vote::Out,
            std::cmp::Ordering::Less => Vote::In,
            std::cmp::Ordering::Equal => {
                if explanation.limits.is_empty() {
                    explanation.limits.push(Limit::AtDesired);
                }
                Vote::Hold
            }
        };
        Self {
            vote,
            desired: held,
            bounds: None,
            floor: None,
            explanation,
            next: None,
        }
    }

    /// The same, to be asked again at `at`.
    fn again(mut self, at: Instant) -> Self {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
        self
    }
}

/// What keeps a value from being read, as a limit.
fn unread(reading: Reading) -> Option<Limit> {
    match reading {
        Reading::Value(_) => None,
        Reading::Missing { name } => Some(Limit::MetricMissing { name }),
        Reading::Undefined => Some(Limit::MetricUndefined),
    }
}

/// The least whole number at or above a non-negative value, for what rounding errors left: 3.000000001 is 3.
fn ceil(value: f64) -> u32 {
    (value - 1e-9).ceil().max(0.0) as u32
}

/// A policy's settings are out of range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The name is empty or too long.
    #[error("name: has {length} bytes, must have 1 to 255")]
    Name {
        /// Bytes given.
        length: usize,
    },
    /// A number is out of range.
    #[error("{field}: {value} is not {range}")]
    Number {
        /// The field.
        field: &'static str,
        /// The value given.
        value: f64,
        /// What it must be.
        range: &'static str,
    },
    /// A duration is out of range.
    #[error("{field}: {value:?} is not {range}")]
    Duration {
        /// The field.
        field: &'static str,
        /// The value given.
        value: Duration,
        /// What it must be.
        range: &'static str,
    },
    /// There are too many or too few of something.
    #[error("{field}: there are {count}, must be {range}")]
    Count {
        /// The field.
        field: &'static str,
        /// How many were given.
        count: usize,
        /// How many there must be.
        range: &'static str,
    },
    /// The alarm's settings.
    #[error("alarm: {0}")]
    Alarm(#[from] AlarmError),
    /// The step adjustments do not cover each breach once.
    #[error("steps: {0}")]
    Steps(#[from] step::StepError),
    /// An action cannot be scheduled.
    #[error("schedule: {0}")]
    Schedule(#[from] scheduled::ScheduleError),
}

/// Checks a number.
fn number(
    field: &'static str,
    value: f64,
    good: impl Fn(f64) -> bool,
    range: &'static str,
) -> Result<(), PolicyError> {
    if value.is_finite() && good(value) {
        return Ok(());
    }
    Err(PolicyError::Number {
        field,
        value,
        range,
    })
}

/// Checks a duration against [`DURATION_LIMIT`].
fn duration(field: &'static str, value: Duration) -> Result<(), PolicyError> {
    if value <= DURATION_LIMIT {
        return Ok(());
    }
    Err(PolicyError::Duration {
        field,
        value,
        range: "at most 30 days",
    })
}

/// Checks a metric's period against [`PERIOD_LEAST`].
fn period(query: &Query) -> Result<(), PolicyError> {
    if query.period >= PERIOD_LEAST {
        return Ok(());
    }
    Err(PolicyError::Duration {
        field: "period",
        value: query.period,
        range: "at least 1 ms",
    })
}

/// Checks that a fallback's value is a number.
fn fallback(fallback: Fallback) -> Result<(), PolicyError> {
    match fallback {
        Fallback::Value(value) => number("fallback", value, |_| true, "finite"),
        Fallback::Hold | Fallback::Capacity(_) | Fallback::LastValue(_) => Ok(()),
    }
}

/// The last value of a metric that is one instance's on average, with the capacity that it told of: a value that is gone by
/// while the metric is missing must not be taken for that of the capacity that it led to.
#[derive(Debug, Clone, Copy, Default)]
struct LastSeen {
    /// When it was read, the value, and the desired capacity then.
    read: Option<(Instant, f64, u32)>,
    /// The desired capacity when the metric was first missing.
    missing: Option<u32>,
}

impl LastSeen {
    fn read(&mut self, at: Instant, value: f64, desired: u32) {
        self.read = Some((at, value, desired));
        self.missing = None;
    }

    /// The metric is missing: the last value, and the capacity that a fallback's value is one of.
    fn miss(&mut self, fallback: Fallback, desired: u32) -> (Option<(Instant, f64)>, u32) {
        // No value is one of no instances: a group that was woken meanwhile counts from then on.
        let missing = self.missing.filter(|&then| then > 0).unwrap_or(desired);
        self.missing = Some(missing);
        let base = match (fallback, self.read) {
            (Fallback::LastValue(_), Some((_, _, then))) if then > 0 => then,
            _ => missing,
        };
        (self.read.map(|(at, value, _)| (at, value)), base)
    }
}

/// Decides while the metric is missing; `wanted` is the capacity for a value.
fn fall_back(
    fallback: Fallback,
    last: Option<(Instant, f64)>,
    input: &PolicyInput<'_>,
    mut explanation: Explanation,
    wanted: impl Fn(f64) -> u32,
) -> Opinion {
    match fallen_to(fallback, last, input, &mut explanation, wanted) {
        Some(wanted) => Opinion::want(input, wanted, explanation),
        None => Opinion::stay(input, Vote::Hold, explanation),
    }
}

/// The capacity that is wanted while the metric is missing; `wanted` is the capacity for a value.
fn fallen_to(
    fallback: Fallback,
    last: Option<(Instant, f64)>,
    input: &PolicyInput<'_>,
    explanation: &mut Explanation,
    wanted: impl Fn(f64) -> u32,
) -> Option<u32> {
    explanation.reason = Reason::Fallback;
    let value = match fallback {
        Fallback::Hold => None,
        Fallback::Capacity(capacity) => return Some(capacity),
        Fallback::Value(value) => Some(value),
        Fallback::LastValue(age) => last
            .filter(|&(at, _)| input.now - at <= age)
            .map(|(_, value)| value),
    };
    let value = value?;
    explanation.saw = Some(value);
    Some(wanted(value))
}
