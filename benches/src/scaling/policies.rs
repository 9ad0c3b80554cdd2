//! The policies that are compared.

use std::time::Duration;

use sim_scaling::alarm::{AlarmConfig, Comparison, MissingData};
use sim_scaling::metric::{Query, Statistic};
use sim_scaling::policy::PolicyConfig;
use sim_scaling::policy::anticipate::AnticipateConfig;
use sim_scaling::policy::hpa::{HpaConfig, Velocity, VelocityStep};
use sim_scaling::policy::pid::PidConfig;
use sim_scaling::policy::predictive::{PredictiveConfig, PredictiveMode};
use sim_scaling::policy::simple::SimpleConfig;
use sim_scaling::policy::step::{Adjustment, Step, StepConfig};
use sim_scaling::policy::target::TargetConfig;

use super::TARGET;

/// The policy that the bar speaks of.
pub const BEST: &str = "anticipate";

/// The policies that it is held against.
pub(super) const BASELINES: [&str; 2] = ["target tracking", "HPA"];

/// Policies with a name.
type Named = Vec<(&'static str, PolicyConfig)>;

/// A way to scale: one or several policies, for an instance's capacity.
#[derive(Clone, Copy, Debug)]
pub struct Rival {
    /// Its name.
    pub name: &'static str,
    /// Its policies.
    pub policies: fn(capacity: f64) -> Named,
}

/// All of them, the baselines first.
#[must_use]
pub fn rivals() -> &'static [Rival] {
    &[
        Rival {
            name: BASELINES[0],
            policies: |_| {
                vec![(
                    "used",
                    PolicyConfig::TargetTracking(TargetConfig::new(used(), TARGET)),
                )]
            },
        },
        Rival {
            name: BASELINES[1],
            policies: |_| vec![("used", PolicyConfig::Hpa(hpa()))],
        },
        Rival {
            name: "simple",
            policies: |_| simple(),
        },
        Rival {
            name: "step",
            policies: |_| steps(),
        },
        Rival {
            name: "PID",
            policies: |_| vec![("used", PolicyConfig::Pid(PidConfig::new(used(), TARGET)))],
        },
        Rival {
            name: "predictive and target tracking",
            policies: predictive,
        },
        Rival {
            name: BEST,
            policies: |capacity| {
                vec![(
                    "load",
                    PolicyConfig::Anticipate(AnticipateConfig::new(query("load"), capacity)),
                )]
            },
        },
    ]
}

fn query(name: &str) -> Query {
    Query::new(name)
        .expect("a metric's name is a formula")
        .over(Duration::from_secs(60), Statistic::Average)
}

fn used() -> Query {
    query("used")
}

/// Kubernetes' defaults; what its velocity policies allow in four periods of 15 s is allowed in a step of a minute.
fn hpa() -> HpaConfig {
    let mut config = HpaConfig::new(used(), TARGET);
    let velocity = |step| Velocity {
        step,
        period: Duration::from_secs(60),
    };
    config.up.policies = vec![
        velocity(VelocityStep::Pods(16)),
        velocity(VelocityStep::Percent(1500)),
    ];
    config.down.policies = vec![velocity(VelocityStep::Percent(100))];
    config
}

fn alarm(comparison: Comparison, threshold: f64, periods: u32) -> AlarmConfig {
    AlarmConfig {
        query: used(),
        comparison,
        threshold,
        evaluation_periods: periods,
        datapoints_to_alarm: periods,
        missing: MissingData::Missing,
    }
}

/// One instance in three out at once, one in ten in, with EC2's cooldown of 300 s.
fn simple() -> Named {
    let config = |alarm, percent| {
        PolicyConfig::Simple(SimpleConfig {
            alarm,
            adjustment: Adjustment::PercentChangeInCapacity(percent),
            min_adjustment_magnitude: 1,
            cooldown: Duration::from_secs(300),
        })
    };
    vec![
        (
            "out",
            config(alarm(Comparison::GreaterThanThreshold, TARGET, 1), 33.0),
        ),
        (
            "in",
            config(alarm(Comparison::LessThanThreshold, 0.5, 15), -10.0),
        ),
    ]
}

/// The hours' forecasts as a floor, and target tracking above it.
fn predictive(capacity: f64) -> Named {
    let mut ahead = PredictiveConfig::new(query("load"), capacity * TARGET);
    ahead.mode = PredictiveMode::ForecastAndScale;
    vec![
        ("ahead", PolicyConfig::Predictive(ahead)),
        (
            "used",
            PolicyConfig::TargetTracking(TargetConfig::new(used(), TARGET)),
        ),
    ]
}

/// Steps of ten percent beyond the target.
fn steps() -> Named {
    let step = |lower, upper, percent| Step {
        lower,
        upper,
        adjustment: Adjustment::PercentChangeInCapacity(percent),
    };
    let config = |alarm, steps| {
        PolicyConfig::Step(StepConfig {
            alarm,
            steps,
            min_adjustment_magnitude: 1,
            warmup: Duration::from_secs(180),
            cooldown: Duration::ZERO,
        })
    };
    let out = vec![
        step(Some(0.0), Some(0.1), 10.0),
        step(Some(0.1), Some(0.2), 30.0),
        step(Some(0.2), Some(0.5), 60.0),
        step(Some(0.5), None, 150.0),
    ];
    let inward = vec![
        step(Some(-0.2), Some(0.0), -10.0),
        step(None, Some(-0.2), -30.0),
    ];
    vec![
        (
            "out",
            config(alarm(Comparison::GreaterThanThreshold, TARGET, 1), out),
        ),
        (
            "in",
            config(alarm(Comparison::LessThanThreshold, 0.6, 15), inward),
        ),
    ]
}
