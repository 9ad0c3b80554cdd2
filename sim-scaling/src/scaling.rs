//! The handle: [`Group`], its [`Builder`], and what drives it.
//!
//! A group does nothing by itself. Whoever calls in serves what is due: [`Group::run`] on a runtime,
//! [`Group::run_blocking`] on a thread, or a simulation through [`Timed`]. One caller at a time carries out effects, without
//! a lock, since provisioners, rosters, gauges and sinks are foreign code; the others leave it their changes.

mod builder;
mod drive;
mod explain;
mod requests;

use std::fmt;

use sim_core::seam::Timed;
use sim_core::sync::Arc;
use sim_core::time::Instant;
use sim_core::wait::{self, Attempt};

use self::drive::Shared;
use crate::config::GroupConfig;
use crate::error::ConfigError;
use crate::message::{Activity, InstanceId, InstanceInfo, RefreshInfo};
use crate::metric::MetricWindow;
use crate::provisioner::Provisioner;
use crate::stats::GroupStats;

pub use self::builder::Builder;
pub use self::explain::GroupExplanation;
pub use self::requests::Fires;

/// A group of instances that follows its policies; see the [module](self).
///
/// A handle: clones are the same group. When the last is dropped the provisioner is dropped too, with what it runs; to end
/// instances in good order, [`delete`](Self::delete) the group and drive it until it [is gone](Self::is_gone).
///
/// ```
/// use sim_core::seam::Timed;
/// use sim_scaling::provisioner::Recorder;
/// use sim_scaling::{Cooldown, Group, GroupConfig};
///
/// let group = Group::new(GroupConfig::new("workers", 1, 10), Recorder::new())?;
/// group.set_desired(3, Cooldown::Ignore)?;
/// assert_eq!(group.stats().in_service, 3);
/// println!("{}", group.explain());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Group<P: Provisioner> {
    shared: Arc<Shared<P>>,
}

impl<P: Provisioner> Group<P> {
    /// A group on the system's clock, without roster, gauges and policies. Its first instances are launched by the first
    /// call that drives it.
    ///
    /// # Errors
    /// As [`GroupConfig::check`].
    pub fn new(config: GroupConfig, provisioner: P) -> Result<Self, ConfigError> {
        Self::builder(config, provisioner).build()
    }

    /// A group with more than a provisioner: a clock, a roster, gauges, policies, a sink.
    pub fn builder(config: GroupConfig, provisioner: P) -> Builder<P> {
        Builder::new(config, provisioner)
    }

    /// Drives the group until it was deleted and nothing is left of it, or it was [closed](Self::close).
    ///
    /// It sleeps until something is due, a provisioner reports, or somebody calls. Any number of calls may run; one of
    /// them does the work.
    ///
    /// # Panics
    /// As [`Clock::sleep_until`](sim_core::clock::Clock::sleep_until): without a runtime, on clocks that need one.
    ///
    /// # Cancel safety
    /// Nothing is lost: the group stands still until it is driven again.
    pub async fn run(&self) {
        let shared = &self.shared;
        let attempt = || shared.attempt();
        // The deadline is never, so the wait ends when the attempt is done.
        let _ = wait::until(&shared.event, &shared.clock, Instant::NEVER, attempt).await;
    }

    /// Drives the group on this thread, as [`run`](Self::run) does.
    pub fn run_blocking(&self) {
        let shared = &self.shared;
        let attempt = || shared.attempt();
        let _ = wait::until_blocking(&shared.event, &shared.clock, Instant::NEVER, attempt);
    }

    /// Ends every [`run`](Self::run) of this group. Instances go on as they are.
    pub fn close(&self) {
        self.shared.core.lock().closed = true;
        self.shared.event.broadcast();
    }

    /// Whether the group was deleted and nothing is left of it.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.shared.core.lock().machine.is_gone()
    }

    /// What is there, and what has been counted.
    #[must_use]
    pub fn stats(&self) -> GroupStats {
        let now = self.shared.clock.now();
        let core = self.shared.core.lock();
        GroupStats {
            notifications_dropped: core.dropped,
            ..core.machine.stats(now)
        }
    }

    /// All instances, by id.
    #[must_use]
    pub fn instances(&self) -> Vec<InstanceInfo> {
        self.shared.core.lock().machine.instances()
    }

    /// One instance.
    #[must_use]
    pub fn instance(&self, id: InstanceId) -> Option<InstanceInfo> {
        self.shared.core.lock().machine.instance(id)
    }

    /// What gives an instance work, once it has started.
    #[must_use]
    pub fn endpoint(&self, id: InstanceId) -> Option<P::Endpoint> {
        self.shared.core.lock().endpoints.get(&id).cloned()
    }

    /// The history of activities, oldest first.
    #[must_use]
    pub fn activities(&self) -> Vec<Activity> {
        self.shared
            .core
            .lock()
            .machine
            .activities()
            .cloned()
            .collect()
    }

    /// The instance refresh that is going on, or the last one.
    #[must_use]
    pub fn refresh(&self) -> Option<RefreshInfo> {
        self.shared.core.lock().machine.refresh()
    }

    /// The configuration as it is now: limits, hooks, the warm pool and the template change with the group.
    #[must_use]
    pub fn config(&self) -> GroupConfig {
        self.shared.core.lock().machine.config().clone()
    }

    /// A copy of a metric's window; of a gauge `G` there are `G.waiting`, `G.in_flight`, `G.backlog`, `G.oldest_age` and more
    /// ([`GaugeMeter`](crate::GaugeMeter)), of the group `group.desired`, `group.in_service`, `group.pending`,
    /// `group.standby`, `group.terminating`, `group.total`, `group.warm_desired`, `group.warm_ready`, `group.warm_pending` and
    /// `group.warm_terminating`.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<MetricWindow> {
        self.shared.core.lock().metrics.window(name).cloned()
    }

    /// Why the group is as large as it is: what each policy saw and wanted at the last decision, what was done, and what
    /// keeps the group from it.
    #[must_use]
    pub fn explain(&self) -> GroupExplanation {
        let now = self.shared.clock.now();
        self.shared.core.lock().explain(now)
    }

    /// The provisioner.
    #[must_use]
    pub fn provisioner(&self) -> &P {
        &self.shared.provisioner
    }
}

impl<P: Provisioner> Clone for Group<P> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<P: Provisioner> Timed for Group<P> {
    fn next_deadline(&self) -> Option<Instant> {
        self.shared.next_deadline()
    }

    fn advance(&self, now: Instant) {
        self.shared.advance(now);
    }
}

impl<P: Provisioner> fmt::Debug for Group<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("machine", &self.shared.core.lock().machine)
            .finish_non_exhaustive()
    }
}

impl<P: Provisioner> Shared<P> {
    fn attempt(&self) -> Attempt<()> {
        let now = self.clock.now();
        self.advance(now);
        let is_over = {
            let core = self.core.lock();
            core.closed || core.machine.is_gone()
        };
        if is_over {
            return Attempt::Done {
                value: (),
                more: true,
            };
        }
        Attempt::Pending {
            wake_at: self.next_deadline().unwrap_or(Instant::NEVER),
        }
    }
}
