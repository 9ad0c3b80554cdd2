//! The life of an instance: from the order to launch it to its end.

use sim_core::sync::Arc;
use sim_core::time::Instant;

use super::instance::{Instance, Mark, Wait, bit};
use super::placement::Place;
use super::{Effect, Input, Machine, State};
use crate::config::{
    AbandonedTermination, HealthSource, HookResult, HookTransition, Process, WarmState,
};
use crate::message::{
    ActivityKind, ActivityStatus, Cause, Health, InstanceId, LaunchOrder, Notification,
};

/// How often an instance is told to end before it is quarantined.
const TOLD_TO_END: u32 = 3;
/// The longest text of a reason that is kept, in bytes.
const MAX_REASON: usize = 1_024;

impl Machine {
    /// Takes what happened; whether it may have changed something.
    pub(super) fn take(&mut self, input: Input, now: Instant) -> bool {
        match input {
            Input::Tick => return false,
            Input::Started { id } => self.started(id, now),
            Input::Failed { id, reason } => self.failed(id, shortened(reason), now),
            Input::Paused { id } => self.paused(id, now),
            Input::Ended { id, reason } => self.ended(id, shortened(reason), now),
            Input::Drained { id } => {
                let waits = |instance: &Instance| matches!(instance.wait, Wait::Drain { .. });
                if self.instances.get(&id).is_some_and(waits) {
                    self.after_drain(id, now);
                }
            }
            Input::JoinRefused { id, reason } => {
                let backoff = self.config.backoff;
                if let Some(instance) = self.instances.get_mut(&id)
                    && instance.registered
                    // A retry that is due already stands, however often it is seen to be missing.
                    && instance.join.is_none_or(|(at, _)| at.is_never())
                {
                    let refusals = instance.join.map_or(0, |(_, refusals)| refusals);
                    let delay = backoff.first.saturating_mul(1 << refusals.min(20));
                    let at = now + delay.min(backoff.longest.max(backoff.first));
                    instance.join = Some((at, refusals.saturating_add(1)));
                    instance.note = Some(shortened(reason));
                }
            }
            Input::Health { id, source, health } => return self.told_health(id, source, health),
            Input::AtRisk { id } => {
                let replaces = self.config.capacity_rebalance;
                if let Some(instance) = self.instances.get_mut(&id)
                    && replaces
                    && instance.state == State::InService
                    && instance.marked.is_none()
                {
                    instance.marked = Some(Mark::AtRisk);
                    self.generation += 1;
                }
            }
            Input::Alarm { name, fires } => {
                if !fires {
                    self.firing.remove(&name);
                } else if self.firing.len() < super::MAX_FIRING {
                    self.firing.insert(name);
                }
            }
        }
        true
    }

    /// Moves an instance on. What is not in the table does not happen, and is noted on the instance.
    pub(super) fn go(&mut self, id: InstanceId, to: State) -> bool {
        let Some(instance) = self.instances.get_mut(&id) else {
            return false;
        };
        match instance.state.to(to) {
            Ok(state) => {
                instance.state = state;
                instance.wait = Wait::Nothing;
                self.generation += 1;
                true
            }
            Err(illegal) => {
                debug_assert!(false, "{id}: {illegal}");
                instance.note = Some(illegal.to_string());
                false
            }
        }
    }

    pub(super) fn wait(&mut self, id: InstanceId, wait: Wait) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.wait = wait;
        }
    }

    pub(super) fn progress(
        &mut self,
        id: InstanceId,
        status: ActivityStatus,
        reason: Option<String>,
        now: Instant,
    ) {
        if let Some(activity) = self.instances.get(&id).and_then(|i| i.activity) {
            self.journal.set(activity, status, reason, now);
        }
    }

    pub(super) fn begin_activity(
        &mut self,
        id: InstanceId,
        kind: ActivityKind,
        cause: &Cause,
        now: Instant,
    ) {
        let superseded = Some(format!("superseded: {cause}"));
        self.progress(id, ActivityStatus::Cancelled, superseded, now);
        let change = matches!(cause, Cause::Missing | Cause::ScaleIn)
            .then(|| self.change.clone())
            .flatten();
        let activity = self.journal.begin(kind, id, cause.clone(), change, now);
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.activity = Some(activity);
        }
    }

    /// Begins the launch of a new instance.
    pub(super) fn create(&mut self, place: Place, warm: Option<WarmState>, now: Instant) {
        let id = InstanceId::new(self.next_id);
        self.next_id += 1;
        let instance = self.record(id, place, now);
        self.instances.insert(id, instance);
        if warm.is_some() {
            self.with(id, |instance| instance.state = State::WarmedPending);
        }
        let cause = if warm.is_some() {
            Cause::WarmPool
        } else {
            Cause::Missing
        };
        self.begin_activity(id, ActivityKind::Launch, &cause, now);
        self.order(id, warm, now);
    }

    /// A record of an instance that is about to be launched.
    pub(super) fn record(&self, id: InstanceId, place: Place, now: Instant) -> Instance {
        let version = self.config.template.resolve(self.config.version);
        let kind = self
            .config
            .mixed
            .as_ref()
            .and_then(|mixed| mixed.overrides.get(place.pool))
            .map(|over| over.kind.name.as_str())
            .or(version.map(|version| version.kind.as_str()))
            .unwrap_or_default();
        Instance {
            id,
            zone: place.zone,
            pool: place.pool,
            market: place.market,
            weight: self.units(place.pool),
            kind: Arc::from(kind),
            version: version.map_or(0, |version| version.number),
            is_launch_configuration: version.is_some_and(|v| v.is_launch_configuration),
            state: State::Pending,
            wait: Wait::Nothing,
            failing: 0,
            protected: false,
            registered: false,
            gone: false,
            launched_at: now,
            started_at: None,
            in_service_at: None,
            warm_at: now,
            grace_until: now,
            marked: None,
            leaving: None,
            activity: None,
            note: None,
            join: None,
        }
    }

    /// Orders the launch of a recorded instance.
    fn order(&mut self, id: InstanceId, warm: Option<WarmState>, now: Instant) {
        let until = now + self.config.launch_timeout;
        self.wait(id, Wait::Start { until });
        self.with(id, |instance| instance.failing = 0);
        let Some(instance) = self.instances.get(&id) else {
            return;
        };
        let zone = self.config.zones.get(instance.zone);
        let version = super::VersionChoice::Number(instance.version);
        let order = LaunchOrder {
            id,
            member: id.member(self.config.seed),
            zone: Arc::from(zone.map_or("", |zone| zone.name.as_str())),
            kind: instance.kind.clone(),
            market: instance.market,
            weight: instance.weight,
            template: Arc::new(
                self.config
                    .template
                    .resolve(version)
                    .cloned()
                    .unwrap_or_default(),
            ),
            warm,
            tags: self.tags.clone(),
        };
        self.effects.push_back(Effect::Launch(order));
        self.counts.launches += 1;
        self.generation += 1;
    }

    fn started(&mut self, id: InstanceId, now: Instant) {
        let Some(instance) = self.instances.get_mut(&id) else {
            return;
        };
        if !matches!(instance.wait, Wait::Start { .. }) {
            return;
        }
        instance.started_at = Some(now);
        instance.wait = Wait::Nothing;
        instance.gone = false;
        self.troubles
            .started(instance.zone, instance.pool, instance.launched_at);
        self.generation += 1;
        self.arrive(id, now);
    }

    /// It runs: hooks, then service or the warm pool.
    pub(super) fn arrive(&mut self, id: InstanceId, now: Instant) {
        let Some(instance) = self.instances.get(&id) else {
            return;
        };
        let is_warm = instance.state == State::WarmedPending;
        if self.has_hooks(HookTransition::Launching) {
            let to = if is_warm {
                State::WarmedPendingWait
            } else {
                State::PendingWait
            };
            self.go(id, to);
            self.ask_hooks(id, HookTransition::Launching, now);
        } else if is_warm {
            self.settle_in_pool(id, now);
        } else {
            self.enter_service(id, now);
        }
    }

    /// All hooks have answered.
    pub(super) fn after_hooks(&mut self, id: InstanceId, now: Instant) {
        let Some(state) = self.instances.get(&id).map(|instance| instance.state) else {
            return;
        };
        match state {
            State::PendingWait => {
                self.go(id, State::PendingProceed);
                self.enter_service(id, now);
            }
            State::WarmedPendingWait => {
                self.go(id, State::WarmedPendingProceed);
                self.settle_in_pool(id, now);
            }
            State::TerminatingWait => {
                self.go(id, State::TerminatingProceed);
                self.end(id, now);
            }
            State::WarmedTerminatingWait => {
                self.go(id, State::WarmedTerminatingProceed);
                self.end(id, now);
            }
            State::ReplacingRootVolumeWait => {
                self.go(id, State::ReplacingRootVolumeProceed);
                self.end(id, now);
            }
            _ => {}
        }
    }

    /// A hook was abandoned.
    pub(super) fn abandoned(&mut self, id: InstanceId, hook: &str, now: Instant) {
        let Some(state) = self.instances.get(&id).map(|instance| instance.state) else {
            return;
        };
        let retains =
            self.config.abandoned_termination == AbandonedTermination::Retain && !self.deleted;
        let was_served = self
            .instances
            .get(&id)
            .is_some_and(|instance| instance.in_service_at.is_some());
        let retained = match state {
            State::TerminatingWait if retains => State::TerminatingRetained,
            State::WarmedTerminatingWait if retains => State::WarmedTerminatingRetained,
            State::WarmedPendingWait if retains && was_served => State::WarmedPendingRetained,
            State::PendingWait | State::WarmedPendingWait => {
                let reason = format!("hook {hook:?} was abandoned");
                self.progress(id, ActivityStatus::Failed, Some(reason), now);
                self.terminate(id, Cause::Abandoned(hook.to_owned()), now);
                return;
            }
            _ => {
                self.after_hooks(id, now);
                return;
            }
        };
        self.go(id, retained);
        let reason = format!("hook {hook:?} was abandoned: the instance is retained");
        self.progress(id, ActivityStatus::Failed, Some(reason), now);
    }

    pub(super) fn enter_service(&mut self, id: InstanceId, now: Instant) {
        if !self.go(id, State::InService) {
            return;
        }
        let warmup = self.warmup_of(id);
        let registers = !self.is_suspended(Process::AddToLoadBalancer);
        let (grace, protects) = (self.config.health_grace, self.config.protect_new);
        let is_first = self.with(id, |instance| {
            let is_first = instance.in_service_at.is_none();
            instance.in_service_at = Some(now);
            instance.warm_at = now + warmup;
            instance.grace_until = now + grace;
            instance.registered = registers;
            instance.join = None;
            instance.protected |= protects && is_first;
            is_first
        });
        if is_first.is_none() {
            return;
        }
        self.progress(id, ActivityStatus::Successful, None, now);
        self.extend_cooldown(id, now);
        if registers {
            self.effects.push_back(Effect::Register(id));
        }
        self.notify(Notification::Launched {
            group: self.name.clone(),
            instance: id,
            cause: Cause::Missing,
        });
    }

    /// A launch, a resume or a pause did not work.
    fn failed(&mut self, id: InstanceId, reason: String, now: Instant) {
        let Some(instance) = self.instances.get(&id) else {
            return;
        };
        match instance.wait {
            Wait::Start { .. } => {
                let state = instance.state;
                self.launch_failed(id, &reason, now);
                let is_warm = state == State::WarmedPending;
                self.go(
                    id,
                    if is_warm {
                        State::WarmedTerminated
                    } else {
                        State::Terminated
                    },
                );
                self.instances.remove(&id);
            }
            Wait::Pause { .. } => {
                self.progress(id, ActivityStatus::Failed, Some(reason), now);
                self.terminate(id, Cause::PauseTimeout, now);
            }
            _ if instance.state.is_terminating() || instance.state.is_warm_terminating() => {
                self.ended(id, reason, now);
            }
            _ => {}
        }
    }

    /// Closes the place of a launch that failed and tells of it.
    fn launch_failed(&mut self, id: InstanceId, reason: &str, now: Instant) {
        let Some(instance) = self.instances.get(&id) else {
            return;
        };
        let (zone, pool, began) = (instance.zone, instance.pool, instance.launched_at);
        let retry_at = self
            .troubles
            .fail((zone, pool), began, reason, self.config.backoff, now);
        self.counts.launch_failures += 1;
        self.progress(id, ActivityStatus::Failed, Some(reason.to_owned()), now);
        // What was to move to that zone stays where it is.
        for other in self.instances.values_mut() {
            if other.marked == Some(Mark::Rebalance(zone)) {
                other.marked = None;
            }
        }
        self.notify(Notification::LaunchFailed {
            group: self.name.clone(),
            instance: id,
            reason: reason.to_owned(),
            retry_at,
        });
    }

    /// An instance that did not last counts as a launch that failed, so that a crash in a loop is slowed down.
    pub(super) fn note_short_life(&mut self, id: InstanceId, reason: &str, now: Instant) {
        let backoff = self.config.backoff;
        if let Some(instance) = self.instances.get(&id)
            && let Some(started) = instance.started_at
            && now.saturating_duration_since(started) < backoff.stable
        {
            let place = (instance.zone, instance.pool);
            self.troubles
                .fail(place, instance.launched_at, reason, backoff, now);
        }
    }

    fn ended(&mut self, id: InstanceId, reason: String, now: Instant) {
        let Some(instance) = self.instances.get_mut(&id) else {
            return;
        };
        if matches!(instance.wait, Wait::Start { .. }) && !instance.state.is_terminating() {
            self.failed(id, reason, now);
            return;
        }
        instance.gone = true;
        let state = instance.state;
        let is_told = matches!(instance.wait, Wait::End { .. });
        if is_told || state == State::Quarantined {
            self.after_end(id, now);
        } else if matches!(
            state,
            State::TerminatingRetained
                | State::WarmedTerminatingRetained
                | State::WarmedPendingRetained
        ) {
            if state == State::WarmedPendingRetained {
                self.go(id, State::WarmedTerminating);
            }
            self.finish(id, now);
        } else if state.is_terminating() || state.is_warm_terminating() {
            // It drains, or its hooks are asked: that goes on.
        } else if matches!(
            state,
            State::ReplacingRootVolume | State::ReplacingRootVolumeWait
        ) {
            // It was to be ended anyway.
        } else {
            self.counts.ended_alone += 1;
            self.note_short_life(id, &reason, now);
            self.terminate(id, Cause::Ended(reason), now);
        }
    }

    /// Whether it is news.
    fn told_health(&mut self, id: InstanceId, source: HealthSource, health: Health) -> bool {
        let mut is_news = false;
        if source == HealthSource::Roster
            && health == Health::Healthy
            && let Some(instance) = self.instances.get_mut(&id)
        {
            // The roster has it: the next refusal is the first again.
            is_news = instance.join.take().is_some();
        }
        let counts =
            source == HealthSource::Provisioner || self.config.health_checks.contains(&source);
        if !counts || self.is_suspended(Process::HealthCheck) {
            return is_news;
        }
        if let Some(instance) = self.instances.get_mut(&id)
            && (instance.state == State::InService || instance.state.is_pending())
        {
            let before = instance.failing;
            match health {
                Health::Healthy => instance.failing &= !bit(source),
                Health::Unhealthy => instance.failing |= bit(source),
            }
            if before == 0 && instance.failing != 0 {
                self.counts.unhealthy += 1;
            }
            return is_news || instance.failing != before;
        }
        is_news
    }

    /// Begins the end of an instance, whatever it is doing.
    pub(super) fn terminate(&mut self, id: InstanceId, cause: Cause, now: Instant) {
        let Some(instance) = self.instances.get(&id) else {
            return;
        };
        let state = instance.state;
        if matches!(
            state,
            State::Terminating
                | State::TerminatingWait
                | State::TerminatingProceed
                | State::Quarantined
                | State::WarmedTerminating
                | State::WarmedTerminatingWait
                | State::WarmedTerminatingProceed
        ) || state.is_final()
        {
            return;
        }
        // Whose work is waited for goes on being waited for.
        let drain = match instance.wait {
            Wait::Drain { until } if until > now && !instance.gone => Some(until),
            _ => None,
        };
        // Who was never in service, or has been through its hooks, is not asked about.
        let asks = !state.is_pending()
            && !matches!(
                state,
                State::WarmedPending
                    | State::WarmedPendingWait
                    | State::WarmedPendingProceed
                    | State::WarmedPendingRetained
                    | State::WarmedTerminatingRetained
                    | State::TerminatingRetained
            );
        self.begin_activity(id, ActivityKind::Terminate, &cause, now);
        let to = if state.is_warm() {
            State::WarmedTerminating
        } else {
            State::Terminating
        };
        if !self.go(id, to) {
            return;
        }
        self.with(id, |instance| {
            instance.leaving = Some(cause);
            instance.marked = None;
        });
        if let Some(until) = drain {
            self.wait(id, Wait::Drain { until });
            let status = ActivityStatus::WaitingForConnectionDraining;
            self.progress(id, status, None, now);
        } else if !self.leave_roster(id, now) {
            if asks {
                self.after_drain(id, now);
            } else {
                self.end(id, now);
            }
        }
    }

    /// Takes an instance off the roster. True while its work has to be waited for.
    pub(super) fn leave_roster(&mut self, id: InstanceId, now: Instant) -> bool {
        let until = now + self.config.drain_timeout;
        let Some(instance) = self.instances.get_mut(&id) else {
            return false;
        };
        if !instance.registered {
            return false;
        }
        instance.registered = false;
        instance.join = None;
        self.effects.push_back(Effect::Deregister(id));
        if instance.gone || until == now {
            return false;
        }
        instance.wait = Wait::Drain { until };
        let status = ActivityStatus::WaitingForConnectionDraining;
        self.progress(id, status, None, now);
        true
    }

    /// It has finished its work, or had long enough to.
    pub(super) fn after_drain(&mut self, id: InstanceId, now: Instant) {
        let Some(instance) = self.instances.get_mut(&id) else {
            return;
        };
        instance.wait = Wait::Nothing;
        let waits = match instance.state {
            State::Terminating => State::TerminatingWait,
            State::WarmedTerminating => State::WarmedTerminatingWait,
            State::ReplacingRootVolume => State::ReplacingRootVolumeWait,
            State::EnteringStandby => {
                instance.failing = 0;
                self.go(id, State::Standby);
                self.progress(id, ActivityStatus::Successful, None, now);
                return;
            }
            State::Detaching => {
                self.go(id, State::Detached);
                self.progress(id, ActivityStatus::Successful, None, now);
                self.instances.remove(&id);
                self.counts.detached += 1;
                self.effects.push_back(Effect::LetGo(id));
                return;
            }
            State::WarmedPending => {
                self.arrive(id, now);
                return;
            }
            _ => return,
        };
        if self.has_hooks(HookTransition::Terminating) {
            self.go(id, waits);
            self.ask_hooks(id, HookTransition::Terminating, now);
        } else {
            self.end(id, now);
        }
    }

    /// Tells the provisioner to end it.
    fn end(&mut self, id: InstanceId, now: Instant) {
        let again = now + self.config.end_timeout;
        let Some(instance) = self.instances.get_mut(&id) else {
            return;
        };
        self.generation += 1;
        if instance.gone {
            self.after_end(id, now);
            return;
        }
        instance.wait = Wait::End { again, told: 1 };
        self.effects.push_back(Effect::Terminate(id));
        self.progress(id, ActivityStatus::InProgress, None, now);
    }

    /// It was told to end, and has not.
    pub(super) fn end_again(&mut self, id: InstanceId, told: u32, now: Instant) {
        let (timeout, longest) = (self.config.end_timeout, self.config.backoff.longest);
        let Some(instance) = self.instances.get_mut(&id) else {
            return;
        };
        let is_replaced = matches!(
            instance.state,
            State::ReplacingRootVolume | State::ReplacingRootVolumeProceed
        );
        if is_replaced && told >= TOLD_TO_END {
            self.terminate(id, Cause::Requested, now);
            return;
        }
        self.effects.push_back(Effect::Terminate(id));
        let again = if told < TOLD_TO_END {
            now + timeout
        } else {
            now + timeout.max(longest)
        };
        instance.wait = Wait::End {
            again,
            told: told.saturating_add(1),
        };
        if told == TOLD_TO_END {
            let wait = instance.wait.clone();
            self.go(id, State::Quarantined);
            self.wait(id, wait);
            let reason = "it was told to end and does not".to_owned();
            self.progress(id, ActivityStatus::InProgress, Some(reason), now);
            self.notify(Notification::TerminateFailed {
                group: self.name.clone(),
                instance: id,
            });
        }
    }

    /// It has ended as it was told.
    fn after_end(&mut self, id: InstanceId, now: Instant) {
        let state = self.instances.get(&id).map(|instance| instance.state);
        let is_replaced = matches!(
            state,
            Some(
                State::ReplacingRootVolume
                    | State::ReplacingRootVolumeWait
                    | State::ReplacingRootVolumeProceed
            )
        );
        if !is_replaced {
            self.finish(id, now);
            return;
        }
        self.go(id, State::RootVolumeReplaced);
        self.go(id, State::Pending);
        let version = self.config.template.resolve(self.config.version).cloned();
        self.with(id, |instance| {
            instance.gone = false;
            instance.launched_at = now;
            instance.started_at = None;
            if let Some(version) = version {
                instance.version = version.number;
                instance.is_launch_configuration = version.is_launch_configuration;
            }
        });
        self.order(id, None, now);
    }

    /// It has ended.
    fn finish(&mut self, id: InstanceId, now: Instant) {
        let Some(instance) = self.instances.get(&id) else {
            return;
        };
        let is_warm = instance.state.is_warm();
        let cause = instance.leaving.clone().unwrap_or(Cause::Requested);
        let to = if is_warm {
            State::WarmedTerminated
        } else {
            State::Terminated
        };
        self.go(id, to);
        self.progress(id, ActivityStatus::Successful, None, now);
        self.extend_cooldown(id, now);
        self.instances.remove(&id);
        self.counts.terminated += 1;
        self.notify(Notification::Terminated {
            group: self.name.clone(),
            instance: id,
            cause,
        });
    }

    /// The cooldown runs from the end of the scaling activity.
    fn extend_cooldown(&mut self, id: InstanceId, now: Instant) {
        if let Some(activity) = self.instances.get(&id).and_then(|i| i.activity)
            && self.journal.is_scaling(activity)
        {
            self.scaled_at = Some(now);
            // Only while one runs at all: a replacement begins none.
            if self.cooldown_until > now {
                self.cooldown_until = now + self.config.default_cooldown;
            }
        }
    }

    /// The launch took too long.
    pub(super) fn launch_timed_out(&mut self, id: InstanceId, now: Instant) {
        let reason = format!("not started within {:?}", self.config.launch_timeout);
        self.launch_failed(id, &reason, now);
        self.terminate(id, Cause::LaunchTimeout, now);
    }

    /// Replaces an instance in place.
    pub(super) fn replace_in_place(&mut self, id: InstanceId, now: Instant) {
        if !self.go(id, State::ReplacingRootVolume) {
            return;
        }
        self.begin_activity(id, ActivityKind::ReplaceInPlace, &Cause::Refresh, now);
        if !self.leave_roster(id, now) {
            self.after_drain(id, now);
        }
    }

    pub(super) fn with<R>(
        &mut self,
        id: InstanceId,
        change: impl FnOnce(&mut Instance) -> R,
    ) -> Option<R> {
        self.instances.get_mut(&id).map(change)
    }

    /// What an unanswered hook comes to.
    pub(super) fn resolve_hook(
        &mut self,
        id: InstanceId,
        hook: &str,
        result: HookResult,
        now: Instant,
    ) {
        let Some(instance) = self.instances.get_mut(&id) else {
            return;
        };
        let Wait::Hooks(waiting) = &mut instance.wait else {
            return;
        };
        let before = waiting.len();
        waiting.retain(|wait| &*wait.name != hook);
        let (is_found, is_last) = (waiting.len() < before, waiting.is_empty());
        if !is_found {
            return;
        }
        self.generation += 1;
        match result {
            HookResult::Abandon => self.abandoned(id, hook, now),
            HookResult::Continue if is_last => self.after_hooks(id, now),
            HookResult::Continue => {}
        }
    }
}

/// A reason of a length that can be kept.
fn shortened(mut reason: String) -> String {
    if reason.len() > MAX_REASON {
        let end = (0..=MAX_REASON)
            .rev()
            .find(|&at| reason.is_char_boundary(at))
            .unwrap_or(0);
        reason.truncate(end);
    }
    reason
}
