//! The rules of a group, pure: what happens and what is asked goes in, effects come out.
//!
//! [`Machine::step`] takes what happened ([`Input`]): an instance started, failed, ended, time passed. Verbs take what is
//! asked and answer with a typed error where it cannot be. Both end in the same way: everything that is due is done, the group
//! is brought nearer to what is wanted, and what the world has to do for it waits in [`Machine::poll_effect`].
//!
//! # How capacity is kept
//!
//! An instance *counts* from the begin of its launch until it leaves service. Of those that count, some are *marked*: they
//! are to be replaced (unhealthy under a maintenance policy, too old, of an old version, in the wrong zone). The rest are the
//! *keepers*. Then three rules are enough:
//!
//! 1. Keepers are launched until they come up to the desired capacity, as long as all that count stay below the ceiling: the
//!    desired capacity, or the most that the maintenance policy allows while some are marked.
//! 2. A marked instance is ended when those in service and warm stay at or above the policy's floor without it.
//! 3. Keepers beyond the desired capacity are ended by the termination policies, the fullest zone first.
//!
//! So auto healing, maximum lifetime, refreshes, rebalancing of zones and of spot capacity are one mechanism, and differ in
//! who is marked, when, and by which floor and ceiling.
//!
//! # Failures
//!
//! A launch that fails closes its zone and kind for a delay that doubles; other zones are taken meanwhile. After the delay
//! one launch at a time is tried until one starts. There is always a deadline at which the group tries again, and the reason
//! is kept in the activities. Instances that do not end when told are told again and then quarantined: they
//! count for nothing but the bound on the population.
//!
//! # Costs
//!
//! A step at which nothing happens, is asked or is due costs the same for any group. Every other looks at every instance:
//! O(n), and O(n) for each instance launched or ended by it. Meant for groups up to some thousand instances.

mod activity;
mod capacity;
mod effect;
mod hooks;
mod instance;
mod life;
mod placement;
mod refresh;
mod state;
mod summary;
mod termination;
#[cfg(test)]
mod tests;
mod upkeep;
mod verbs;
mod view;
mod warm;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sim_core::sync::Arc;
use sim_core::time::Instant;

use self::activity::Journal;
use self::instance::{Instance, Mark};
use self::placement::Troubles;
use self::refresh::Refresh;
use self::summary::Summary;
use crate::config::{GroupConfig, Process, VersionChoice};
use crate::error::ConfigError;
use crate::message::{Candidate, InstanceId, Notification, Obstacle};
use crate::stats::GroupStats;

pub use self::effect::{Effect, Input};
pub use self::state::{IllegalTransition, State, TRANSITIONS};
pub use self::verbs::{Cooldown, Decrement, Force, Protection, Scaled, ZonalShift};

/// Chooses who is ended first, among the candidates in the fullest zone.
pub type Termination = Arc<dyn Fn(&[Candidate]) -> Option<InstanceId> + Send + Sync>;

/// The pure machine of one group; see the [module](self).
pub struct Machine {
    /// Checked. Limits, hooks, the warm pool and the template change with the group.
    config: GroupConfig,
    name: Arc<str>,
    tags: Arc<BTreeMap<String, String>>,
    /// Invariant: `config.min <= desired <= config.max`.
    desired: u32,
    /// What the desired capacity was last changed by.
    change: Option<String>,
    /// Bound: [`Machine::population_limit`].
    instances: BTreeMap<InstanceId, Instance>,
    next_id: u64,
    /// When the last step was.
    now: Instant,
    /// Bound: nine.
    suspended: BTreeSet<ProcessKey>,
    /// Zones shifted away from, by index. Bound: the zones.
    shifted: BTreeSet<usize>,
    cooldown_until: Instant,
    /// When the last scaling activity ended.
    scaled_at: Option<Instant>,
    troubles: Troubles,
    journal: Journal,
    refresh: Option<Refresh>,
    refreshes: u64,
    /// Alarms that fire, as far as they were told. Bound: [`MAX_FIRING`].
    firing: BTreeSet<String>,
    termination: Option<Termination>,
    deleted: bool,
    /// What keeps the group from what is wanted, as of the last step. Bound: a few.
    obstacles: Vec<Obstacle>,
    /// Bound: a few for each instance; taken after each step.
    effects: VecDeque<Effect>,
    counts: GroupStats,
    /// Of the instances, as of the last step; none when something changed since.
    summary: Option<Summary>,
    /// Raised with every state and desired capacity that changed.
    generation: u64,
}

/// A process, in an order.
type ProcessKey = u8;

/// The most alarms that are remembered as firing: 1,000.
const MAX_FIRING: usize = 1_000;

impl Machine {
    /// A group without instances. The first step, or [`advance`](Self::advance), launches them.
    ///
    /// # Errors
    /// As [`GroupConfig::check`].
    pub fn new(config: GroupConfig, termination: Option<Termination>) -> Result<Self, ConfigError> {
        config.check()?;
        let desired = config.desired.unwrap_or(config.min);
        let suspended = config.suspended.iter().map(|&p| key(p)).collect();
        Ok(Self {
            name: Arc::from(config.name.as_str()),
            tags: Arc::new(config.tags.clone()),
            desired,
            change: None,
            instances: BTreeMap::new(),
            next_id: 1,
            now: Instant::ORIGIN,
            suspended,
            shifted: BTreeSet::new(),
            cooldown_until: Instant::ORIGIN,
            scaled_at: None,
            troubles: Troubles::new(config.zones.len(), config.pools()),
            journal: Journal::new(config.history),
            refresh: None,
            refreshes: 0,
            firing: BTreeSet::new(),
            termination,
            deleted: false,
            obstacles: Vec::new(),
            effects: VecDeque::new(),
            counts: GroupStats::default(),
            summary: None,
            generation: 0,
            config,
        })
    }

    /// Takes what happened at `now`, and does all that follows.
    ///
    /// What concerns an instance that is not there, or that it cannot happen to any more, changes nothing: the world may
    /// be late.
    pub fn step(&mut self, input: Input, now: Instant) {
        if self.take(input, now) {
            self.settle(now);
        } else {
            self.advance(now);
        }
    }

    /// Does everything that is due at `now`.
    pub fn advance(&mut self, now: Instant) {
        if self.is_calm_at(now) {
            self.now = now.max(self.now);
        } else {
            self.settle(now);
        }
    }

    /// What the world has to do next, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When something will be due, or `None`.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let next = self.summary(self.now).next;
        (!next.is_never()).then_some(next)
    }

    /// The group's configuration as it is now.
    #[must_use]
    pub fn config(&self) -> &GroupConfig {
        &self.config
    }

    /// The desired capacity.
    #[must_use]
    pub fn desired(&self) -> u32 {
        self.desired
    }

    /// Changes whenever an instance's state or the desired capacity did.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What keeps the group from the capacity that is wanted, as of the last step.
    #[must_use]
    pub fn obstacles(&self) -> &[Obstacle] {
        &self.obstacles
    }

    /// Whether a process is suspended.
    #[must_use]
    pub fn is_suspended(&self, process: Process) -> bool {
        self.suspended.contains(&key(process))
    }

    /// Brings the group nearer to what is wanted. Each pass changes something or is the last; every change moves an
    /// instance forward in its life, so there are few.
    fn settle(&mut self, now: Instant) {
        let now = now.max(self.now);
        self.now = now;
        for _ in 0..self.population_limit().saturating_mul(8).max(64) {
            let before = self.generation;
            self.obstacles.clear();
            self.serve_deadlines(now);
            self.heal(now);
            self.drive_refresh(now);
            self.retire(now);
            self.scale_in(now);
            self.rebalance(now);
            self.launch_missing(now);
            self.keep_warm(now);
            if self.generation == before {
                self.summarise();
                return;
            }
        }
        self.summary = None;
    }

    fn notify(&mut self, notification: Notification) {
        if self.config.notifications.contains(&notification.kind()) {
            self.effects.push_back(Effect::Notify(notification));
        }
    }

    /// The most instances that the group ever has, those that do not end included: beyond it none is launched.
    fn population_limit(&self) -> usize {
        let warm = self.config.warm_pool.map_or(0, |pool| {
            pool.min_size
                .max(pool.max_prepared.unwrap_or(self.config.max))
        });
        (self.config.max as usize)
            .saturating_mul(3)
            .saturating_add(warm as usize)
            .saturating_add(16)
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine")
            .field("name", &self.name)
            .field("desired", &self.desired)
            .field("instances", &self.instances.len())
            .field("obstacles", &self.obstacles)
            .finish_non_exhaustive()
    }
}

const fn key(process: Process) -> ProcessKey {
    process as ProcessKey
}
