//! Forecast, feedback and the backlog's slope, and never worse than the rules that it knows.
//!
//! What is good for one load is bad for another: a season that comes each day, a burst that nobody foresees, a load that is
//! all noise, a batch at each full hour. So this policy has about 160 simple rules at hand, which combine
//!
//! - what was just seen, its rise over the time that an instance takes to start, and the highest of the latest steps,
//! - quantiles of the last hours and of the last day,
//! - the season: mean and deviation of each step of the day, at its own level or at the present one,
//!
//! each with several headrooms, and keeps book of what each of them would have done with the load so far: in how many steps
//! the load would have been above its capacity, by how little it missed others, and how many instances it would have had. It
//! does the same for three well-known rules: HPA's ratio and two target trackings (3 of 3 steps out, 15 of 15 in). It then
//! goes by the rule that violates least among those that cost less than the leanest of the three and violate less than the
//! best of them; what its own decisions have cost and violated so far is counted in, and made up for.
//!
//! Where no rule beats all three, as for bursts that come by pure chance, it comes as near as the best one does. Between
//! the steps of a plateau (a metric of five minutes, read each minute) it needs what the load is and no more.
//!
//! Nothing is tuned to a load: all is learned while it runs, older steps count half after four days. It needs the whole
//! load that arrives, and not the part that was served, since it reckons what another capacity would have met.
//!
//! Memory: a fixed number of counts for each rule, and a profile of a day. What a month of decisions takes is printed by
//! `cargo run --release -p benches -- scaling`.

mod candidates;
mod shadow;

use std::time::Duration;

use sim_core::sync::Arc;

use super::{Explanation, Opinion, PolicyError, PolicyInput, Reason};
use crate::metric::{Fallback, Query};
use candidates::{COUNT, FIRST, FIRST_SEASONAL, Seen};
use shadow::{RIVALS, Shadows};

/// Most steps from an order until an instance serves.
const LEAD_LIMIT: u128 = 60;

/// After so long a step counts half.
const HALF_LIFE: Duration = Duration::from_secs(4 * 86_400);

/// So many steps it goes by the first rule, since the others have shown nothing yet.
const WARM_UP: u64 = 360;

/// It looks for a better rule each so many steps.
const CHOOSE_EVERY: u64 = 15;

/// A rule is left only for one that is better by this much.
const HYSTERESIS: f32 = 0.05;

/// The share of the leanest rival's cost, and of the best rival's violations, that a rule may have.
const COST: f32 = 0.99;
const VIOLATIONS: f32 = 0.9;

/// How much less it may be while the policy itself is behind.
const COST_BEHIND: f32 = 0.04;
const VIOLATIONS_BEHIND: f32 = 0.2;

/// The policy's settings: what the load is, and what an instance can do.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct AnticipateConfig {
    /// The whole load that arrives. Its period is the policy's step: one second to one hour, default one minute.
    pub load: Query,
    /// The load that one instance can serve at most, in the unit of `load`. Above zero.
    pub capacity: f64,
    /// The utilisation that the rules to be beaten aim at. Above 0 to 1, default 0.7.
    pub target: f64,
    /// How long an instance takes to start. At most 59 steps; default three minutes.
    pub boot: Duration,
    /// The additional load that works a backlog off, such as `jobs.backlog / 300` for five minutes and a load a second.
    /// Its rise is carried forward to when an instance ordered now would serve. Default: none.
    pub backlog: Option<Query>,
    /// What it goes by while the load is missing. Default: nothing changes.
    pub fallback: Fallback,
}

impl AnticipateConfig {
    /// The settings for a load, and for what an instance can serve of it.
    #[must_use]
    pub const fn new(load: Query, capacity: f64) -> Self {
        Self {
            load,
            capacity,
            target: 0.7,
            boot: Duration::from_secs(180),
            backlog: None,
            fallback: Fallback::Hold,
        }
    }

    /// Steps from an order until the instance serves: it is ordered when a step has ended.
    fn lead(&self) -> usize {
        let step = self.load.period.as_nanos().max(1);
        let lead = self.boot.as_nanos().div_ceil(step) + 1;
        lead.min(LEAD_LIMIT) as usize
    }

    pub(super) fn check(&self) -> Result<(), PolicyError> {
        super::number("capacity", self.capacity, |value| value > 0.0, "above zero")?;
        super::fallback(self.fallback)?;
        let share = |value| value > 0.0 && value <= 1.0;
        super::number("target", self.target, share, "above 0 and at most 1")?;
        let step = self.load.period;
        if step < Duration::from_secs(1) || step > Duration::from_secs(3600) {
            return Err(PolicyError::Duration {
                field: "period",
                value: step,
                range: "between one second and one hour",
            });
        }
        if self.boot.as_nanos().div_ceil(step.as_nanos()) + 1 > LEAD_LIMIT {
            return Err(PolicyError::Duration {
                field: "boot",
                value: self.boot,
                range: "at most 59 periods of the load",
            });
        }
        Ok(())
    }

    pub(super) fn decide(&self, state: &mut AnticipateState, input: &PolicyInput<'_>) -> Opinion {
        let step = self.load.period;
        let number = u64::try_from(input.now.as_nanos() as u128 / step.as_nanos().max(1));
        let number = number.unwrap_or(u64::MAX);
        let next = input.now + step;
        let mut explanation = Explanation::of(Reason::Load);
        let reading = self.load.read(input.metrics, input.now);
        let Some(load) = reading.value() else {
            explanation.limits.extend(super::unread(reading));
            return super::fall_back(self.fallback, state.last, input, explanation, |load| {
                super::ceil(load / (self.capacity * self.target))
            })
            .again(next);
        };
        let load = load.max(0.0);
        let is_new = state.step != Some(number);
        if is_new {
            state.step = Some(number);
            state.last = Some((input.now, load));
            self.learn(state, load, input);
        }
        let chosen = state.chosen;
        let mut need = f64::from(state.needs[chosen]) * self.capacity;
        explanation.saw = Some(load);
        explanation.rule = Some(Arc::clone(&state.names[chosen]));
        if chosen >= FIRST_SEASONAL {
            explanation.reason = Reason::Forecast;
        }
        if let Some(query) = &self.backlog {
            let extra = query.read(input.metrics, input.now).value().unwrap_or(0.0);
            // A backlog that grows will have grown further by the time an instance serves.
            if is_new {
                state.rise = match state.backlog {
                    Some((at, before)) if input.now > at => {
                        // Two questions may be nearer to each other than a step, on both sides of its border.
                        let elapsed = (input.now - at).max(step);
                        (extra - before).max(0.0) * self.boot.as_secs_f64() / elapsed.as_secs_f64()
                    }
                    _ => 0.0,
                };
                state.backlog = Some((input.now, extra));
            }
            let with_backlog = load + extra.max(0.0) + state.rise;
            if extra > 0.0 && with_backlog > need {
                need = with_backlog;
                explanation.reason = Reason::Backlog;
                explanation.rule = None;
            }
        }
        explanation.against = Some(need);
        let wanted = super::ceil(need / self.capacity);
        // The rules keep one instance at least; nothing at all needs none, where the group allows it.
        let least = u32::from(load > 0.0 || need > 0.0);
        Opinion::want(input, wanted.max(least), explanation).again(next)
    }

    fn learn(&self, state: &mut AnticipateState, load: f64, input: &PolicyInput<'_>) {
        let capacity = input.capacity;
        let step = self.load.period.as_secs_f64();
        let units = (load / self.capacity).min(4e6) as f32;
        let target = self.target as f32;
        let max = capacity.max.max(1) as f32;
        let start = (units / target).ceil().min(max);
        state.shadows.judge(units, start, state.fade);
        let violated = units > capacity.in_service as f32 * 1.000_001;
        state.violations = state.violations * state.fade + if violated { 1.0 } else { 0.0 };
        state.cost = state.cost * state.fade + capacity.in_service as f32;

        let second = input.time.as_unix_seconds().rem_euclid(86_400) as f64;
        let slot = (second / step) as usize;
        state.seen.step(slot, units, &mut state.needs);
        let min = (capacity.min.max(1) as f32).min(max);
        state.shadows.want(&state.needs, min, max);
        state.shadows.rivals(units, target, max);
        state.shadows.act();
        state.steps += 1;
        if state.steps > WARM_UP && state.steps.is_multiple_of(CHOOSE_EVERY) {
            state.choose();
        }
    }
}

/// What the policy remembers.
#[derive(Debug, Clone)]
pub(super) struct AnticipateState {
    seen: Seen,
    shadows: Shadows,
    /// What each candidate needs, in instances' full capacity.
    needs: [f32; COUNT],
    names: Vec<Arc<str>>,
    chosen: usize,
    /// Its own violations and cost, fading as the shadows' do.
    violations: f32,
    cost: f32,
    fade: f32,
    steps: u64,
    /// The number of the last step that was learned.
    step: Option<u64>,
    last: Option<(sim_core::time::Instant, f64)>,
    backlog: Option<(sim_core::time::Instant, f64)>,
    /// How far the backlog's load will have risen by the time an instance serves.
    rise: f64,
}

impl AnticipateState {
    pub(super) fn new(config: &AnticipateConfig) -> Self {
        let step = config.load.period.as_secs_f64().max(1.0);
        let slots = (86_400.0 / step).round().max(1.0) as usize;
        let fade = 0.5f64.powf(step / HALF_LIFE.as_secs_f64());
        Self {
            seen: Seen::new(config.lead(), slots),
            shadows: Shadows::new(config.lead(), COUNT),
            needs: [0.0; COUNT],
            names: candidates::names(),
            chosen: FIRST,
            violations: 0.0,
            cost: 0.0,
            fade: fade as f32,
            steps: 0,
            step: None,
            last: None,
            backlog: None,
            rise: 0.0,
        }
    }

    /// Goes over to the best candidate, if it is better by enough.
    fn choose(&mut self) {
        let least = |all: &[f32]| all[..RIVALS].iter().copied().fold(f32::INFINITY, f32::min);
        let shadows = &self.shadows;
        let violations = least(&shadows.violations);
        let strain = least(&shadows.strain) + 0.5;
        let cost = least(&shadows.cost).max(1.0);
        let mut most_cost = COST;
        let mut most_violations = VIOLATIONS;
        if self.cost > cost * COST {
            most_cost -= COST_BEHIND;
        }
        if self.violations > violations {
            most_violations -= VIOLATIONS_BEHIND;
        }
        let score = |candidate: usize| {
            let index = RIVALS + candidate;
            let cost = shadows.cost[index] / cost;
            let violations = shadows.violations[index] / (violations + 0.5);
            let strain = ((shadows.strain[index] + 0.5) / strain).min(3.0);
            // Being above a limit outweighs all else; a percent of cost as much as ten percent of violations.
            let over = (cost / most_cost - 1.0).max(0.0) * 40.0
                + (violations / most_violations - 1.0).max(0.0) * 4.0;
            over + strain + 0.1 * cost
        };
        let (mut best, mut lowest) = (self.chosen, score(self.chosen) - HYSTERESIS);
        for candidate in 0..COUNT {
            let found = score(candidate);
            if found < lowest {
                (best, lowest) = (candidate, found);
            }
        }
        self.chosen = best;
    }
}
