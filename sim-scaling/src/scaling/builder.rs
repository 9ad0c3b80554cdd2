//! What a group is made of, besides its configuration.

use std::fmt;

use sim_core::clock::Clock;
use sim_core::seam::{Gauge, Roster, Sink};
use sim_core::sync::Arc;

use super::Group;
use super::drive::{Check, Named, Shared};
use crate::config::GroupConfig;
use crate::error::ConfigError;
use crate::machine::{Machine, Termination};
use crate::message::{Candidate, Health, InstanceId, Notification};
use crate::metric::{GaugeMeter, Metrics, WindowConfig};
use crate::policy::{PolicyConfig, PolicySet};
use crate::provisioner::Provisioner;

/// The most gauges of a group: 100.
const MAX_GAUGES: usize = 100;
/// Metrics beside those of the gauges: the group's own, and room for what callers record.
const OWN_METRICS: usize = 128;
/// Metrics of one gauge.
const METRICS_OF_A_GAUGE: usize = 8;
/// The most policies, as EC2 Auto Scaling has it.
const MAX_POLICIES: usize = 50;

/// Builds a [`Group`].
#[must_use = "a builder builds nothing until `build`"]
pub struct Builder<P: Provisioner> {
    config: GroupConfig,
    provisioner: P,
    clock: Clock,
    roster: Option<Arc<dyn Roster<P::Endpoint>>>,
    sink: Option<Arc<dyn Sink<Notification>>>,
    gauges: Vec<Named>,
    policies: Vec<(String, PolicyConfig)>,
    termination: Option<Termination>,
    window: WindowConfig,
    dry_run: bool,
    health: Option<Arc<Check<P::Endpoint>>>,
}

impl<P: Provisioner> Builder<P> {
    pub(super) fn new(config: GroupConfig, provisioner: P) -> Self {
        Self {
            config,
            provisioner,
            clock: Clock::system(),
            roster: None,
            sink: None,
            gauges: Vec::new(),
            policies: Vec::new(),
            termination: None,
            window: WindowConfig::default(),
            dry_run: false,
            health: None,
        }
    }

    /// The clock. Default: the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// What instances in service join, and leave before they end: a balancer, for one. Default: nothing.
    pub fn roster(mut self, roster: Arc<dyn Roster<P::Endpoint>>) -> Self {
        self.roster = Some(roster);
        self
    }

    /// Who is told of launches, ends, hooks and refreshes. Default: nobody.
    pub fn notifications(mut self, sink: Arc<dyn Sink<Notification>>) -> Self {
        self.sink = Some(sink);
        self
    }

    /// A gauge that is read each [`metric_period`](GroupConfig::metric_period); policies find it under its name
    /// ([`GaugeMeter`]). At most 100.
    pub fn gauge(mut self, name: impl Into<String>, gauge: Arc<dyn Gauge>) -> Self {
        self.gauges.push(Named {
            name: name.into(),
            gauge,
        });
        self
    }

    /// A policy. At most 50.
    pub fn policy(mut self, name: impl Into<String>, policy: PolicyConfig) -> Self {
        self.policies.push((name.into(), policy));
        self
    }

    /// Who is asked for the health of each instance in service, each [`health_period`](GroupConfig::health_period): a
    /// [`HealthSource::Custom`](crate::HealthSource::Custom). It must not wait.
    pub fn health(
        mut self,
        check: impl Fn(InstanceId, &P::Endpoint) -> Health + Send + Sync + 'static,
    ) -> Self {
        self.health = Some(Arc::new(check));
        self
    }

    /// What [`TerminationPolicy::Custom`](crate::TerminationPolicy::Custom) asks; it is called while the group is locked, and
    /// must not call it. An answer that is not among the candidates is none.
    pub fn termination(
        mut self,
        choose: impl Fn(&[Candidate]) -> Option<InstanceId> + Send + Sync + 'static,
    ) -> Self {
        self.termination = Some(Arc::new(choose));
        self
    }

    /// How much of each metric is kept. Default: [`WindowConfig::default`].
    pub fn window(mut self, window: WindowConfig) -> Self {
        self.window = window;
        self
    }

    /// Asks the policies and explains, but changes no capacity by them.
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// The group.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is not valid: the configuration, a policy, the window, a name that is there
    /// twice.
    pub fn build(self) -> Result<Group<P>, ConfigError> {
        let machine = Machine::new(self.config, self.termination)?;
        if self.gauges.len() > MAX_GAUGES {
            return Err(ConfigError::OutOfRange {
                field: "gauges",
                value: self.gauges.len() as u64,
                least: 0,
                most: MAX_GAUGES as u64,
            });
        }
        let mut meters: Vec<(String, GaugeMeter)> = Vec::new();
        for named in &self.gauges {
            if meters.iter().any(|(name, _)| *name == named.name) {
                return Err(ConfigError::Taken {
                    field: "gauges",
                    name: named.name.clone(),
                });
            }
            meters.push((named.name.clone(), GaugeMeter::new(&named.name)));
        }
        let mut policies = PolicySet::new(MAX_POLICIES);
        for (name, policy) in self.policies {
            if policies.policies().any(|other| other.name() == name) {
                return Err(ConfigError::Taken {
                    field: "policies",
                    name,
                });
            }
            if let Err(error) = policies.put(&name, policy) {
                return Err(ConfigError::Policy {
                    name,
                    reason: error.to_string(),
                });
            }
        }
        let most = OWN_METRICS + METRICS_OF_A_GAUGE * self.gauges.len();
        let metrics = Metrics::new(most, self.window).map_err(|error| ConfigError::Policy {
            name: "window".to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Group {
            shared: Shared::new(
                self.clock,
                self.provisioner,
                self.roster,
                self.sink,
                self.health,
                self.gauges,
                super::drive::Core::new(machine, policies, metrics, meters, self.dry_run),
            ),
        })
    }
}

impl<P: Provisioner> fmt::Debug for Builder<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .field("policies", &self.policies)
            .finish_non_exhaustive()
    }
}
