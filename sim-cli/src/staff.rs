//! Who works at a queue: a group that grows and shrinks with the backlog, and the balancer that gives its workers work.
//!
//! ```text
//!  queue ──▶ backlog per worker ──▶ policy ──▶ group ──▶ workers, ten minutes after they are called
//!    │                                           │ joins, leaves
//!    └── a message and a worker without work ◀── balancer
//! ```
//!
//! The group knows no queue, only a gauge, and the balancer knows no group: it is the roster which the group's workers join and
//! leave. One that is sent home finishes what it has first; one that crashed is unfit, and another is called in its place.

use std::time::Duration;

use sim_balancer::machine::Deregistration;
use sim_balancer::{Balancer, BalancerConfig, Lease, Rules};
use sim_core::clock::Clock;
use sim_core::seam::Timed;
use sim_core::sync::Arc;
use sim_core::time::Instant;
use sim_queue::Queue;
use sim_scaling::Query;
use sim_scaling::policy::PolicyConfig;
use sim_scaling::policy::target::TargetConfig;
use sim_scaling::provisioner::Recorder;
use sim_scaling::{Group, GroupConfig, GroupStats, Health, HealthSource, InstanceId};

use crate::pipeline::Notice;

/// How long it takes a worker to come.
const BOOT: Duration = Duration::from_secs(10 * 60);
/// How often the policy looks at the queue; less often in replays of more than a year or so.
const LOOK: Duration = Duration::from_secs(10 * 60);
/// The most looks.
const MAX_LOOKS: u32 = 100_000;
/// How often the group looks who has finished, of those that it sends home.
const LEAVING: Duration = Duration::from_secs(60);
/// Longer than any work takes, stalls included: nobody is sent home with a message in hand.
const FINISH: Duration = Duration::from_secs(6 * 3_600);

/// The workers of one queue.
#[derive(Debug)]
pub(crate) struct Staff {
    group: Group<Recorder>,
    balancer: Balancer<InstanceId>,
    /// When either has something to do next: asked once after each change rather than at each turn of the loop.
    next: Option<Instant>,
}

impl Staff {
    /// Calls the first worker; there are never more than `most`. `span` is how long it will go on, about.
    ///
    /// # Errors
    ///
    /// Never for these settings; each part checks its own.
    pub(crate) fn new(
        name: &'static str,
        queue: &Queue<Notice>,
        most: u32,
        seed: u64,
        span: Duration,
        clock: &Clock,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let look = LOOK.max(span / MAX_LOOKS);
        let balancer = Balancer::with_clock(
            BalancerConfig {
                // A worker has one message at a time.
                max_outstanding: Some(1),
                rules: Rules {
                    deregistration: Deregistration {
                        delay: FINISH,
                        ..Deregistration::default()
                    },
                    ..Rules::default()
                },
                seed,
                ..BalancerConfig::default()
            },
            clock.clone(),
        )?;
        let workers = Recorder::new();
        workers.script(|script| script.start = BOOT);
        let config = GroupConfig {
            metric_period: look,
            health_period: look,
            drain_period: LEAVING,
            drain_timeout: FINISH,
            launch_timeout: 2 * BOOT,
            ..GroupConfig::new(name, 1, most)
        };
        let group = Group::builder(config, workers)
            .clock(clock.clone())
            .roster(Arc::new(balancer.clone()))
            .gauge("queue", Arc::new(queue.clone()))
            .policy("backlog", policy(look)?)
            .build()?;
        let next = group.next_deadline();
        Ok(Self {
            group,
            balancer,
            next,
        })
    }

    /// A worker without work, if there is one.
    pub(crate) fn try_pick(&self) -> Option<Lease<InstanceId>> {
        self.balancer.try_pick().ok()
    }

    /// A worker crashed: another takes its place.
    pub(crate) fn crashed(&mut self, worker: InstanceId) {
        // One that was sent home meanwhile is no longer there to be replaced.
        let _ = self
            .group
            .set_health(worker, Health::Unhealthy, HealthSource::Custom);
        self.look_ahead();
    }

    /// When the group or the balancer has something to do next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Does what is due.
    pub(crate) fn advance(&mut self, now: Instant) {
        self.balancer.advance(now);
        self.group.advance(now);
        self.look_ahead();
    }

    fn look_ahead(&mut self) {
        let deadlines = [self.group.next_deadline(), self.balancer.next_deadline()];
        self.next = deadlines.into_iter().flatten().min();
    }

    /// What the group counts.
    pub(crate) fn stats(&self) -> GroupStats {
        self.group.stats()
    }

    /// Works that workers finished, of whatever outcome.
    pub(crate) fn finished(&self) -> u64 {
        self.balancer.stats().finished
    }

    /// Works under way.
    pub(crate) fn outstanding(&self) -> u64 {
        self.balancer.stats().outstanding
    }
}

/// One message for each worker: who comes finds somebody free, most of the time.
fn policy(look: Duration) -> Result<PolicyConfig, Box<dyn std::error::Error>> {
    let mut query = Query::new("queue.backlog / group.in_service")?;
    query.period = look;
    Ok(PolicyConfig::TargetTracking(TargetConfig {
        out_periods: 1,
        in_periods: 6,
        warmup: Duration::ZERO,
        ..TargetConfig::new(query, 0.7)
    }))
}
