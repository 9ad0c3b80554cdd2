//! What drives a group: reports in, effects out, metrics read, policies asked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use sim_core::clock::Clock;
use sim_core::event::Event;
use sim_core::seam::{Depth, Gauge, Reason, Roster, Sink, Standing};
use sim_core::sync::{Arc, Mutex};
use sim_core::time::Instant;

use crate::config::{HealthSource, Process};
use crate::error::ExecuteError;
use crate::machine::{Cooldown, Effect, Input, Machine, Scaled, State};
use crate::message::{Health, InstanceId, Notification, Obstacle};
use crate::metric::{GaugeMeter, Metrics};
use crate::policy::{
    Capacity, Enabled, InstanceSample, InstanceStanding, Kind, PERIOD_LEAST, PolicyInput,
    PolicySet, Verdict,
};
use crate::provisioner::{Provisioner, Report, Wake};

/// When a sink that was full, and said no time, is tried again.
const SINK_RETRY: Duration = Duration::from_secs(1);

/// A health check of the caller's.
pub(super) type Check<E> = dyn Fn(InstanceId, &E) -> Health + Send + Sync;

/// What the handles of a group share.
pub(super) struct Shared<P: Provisioner> {
    pub(super) clock: Clock,
    pub(super) provisioner: P,
    pub(super) roster: Option<Arc<dyn Roster<P::Endpoint>>>,
    sink: Option<Arc<dyn Sink<Notification>>>,
    health: Option<Arc<Check<P::Endpoint>>>,
    gauges: Vec<Named>,
    pub(super) event: Arc<Event>,
    pub(super) core: Mutex<Core<P::Endpoint>>,
}

/// A gauge and its name.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) gauge: Arc<dyn Gauge>,
}

/// What is behind the lock. Nothing foreign is called while it is held, but for a custom termination policy.
pub(super) struct Core<E> {
    pub(super) machine: Machine,
    pub(super) policies: PolicySet,
    pub(super) metrics: Metrics,
    /// By the names of the gauges, in their order.
    meters: Vec<(String, GaugeMeter)>,
    /// Of instances that have started. Bound: the instances.
    pub(super) endpoints: BTreeMap<InstanceId, E>,
    /// Bound: [`GroupConfig::outbox`](crate::GroupConfig::outbox).
    outbox: VecDeque<Notification>,
    outbox_retry: Instant,
    pub(super) dropped: u64,
    /// Policies that somebody disabled. Bound: the policies.
    pub(super) disabled: BTreeSet<String>,
    /// The last decision, when, and what stood against it.
    pub(super) decided: Option<Decided>,
    pub(super) dry_run: bool,
    sample_at: Instant,
    decide_at: Instant,
    look_at: Instant,
    check_at: Instant,
    /// Each instance's own value of a metric, as it was told last. Bound: the instances.
    pub(super) samples: BTreeMap<InstanceId, (Instant, f64)>,
    driving: bool,
    /// Something changed while somebody was driving.
    again: bool,
    pub(super) closed: bool,
    /// Metrics that were not recorded, and the last reason.
    pub(super) unrecorded: Option<String>,
}

/// A decision.
pub(super) struct Decided {
    pub(super) at: Instant,
    pub(super) verdict: Verdict,
    pub(super) applied: bool,
    pub(super) from: u32,
}

impl<E> Core<E> {
    pub(super) fn new(
        machine: Machine,
        policies: PolicySet,
        metrics: Metrics,
        meters: Vec<(String, GaugeMeter)>,
        dry_run: bool,
    ) -> Self {
        Self {
            machine,
            policies,
            metrics,
            meters,
            endpoints: BTreeMap::new(),
            outbox: VecDeque::new(),
            outbox_retry: Instant::ORIGIN,
            dropped: 0,
            disabled: BTreeSet::new(),
            decided: None,
            dry_run,
            sample_at: Instant::ORIGIN,
            decide_at: Instant::NEVER,
            look_at: Instant::ORIGIN,
            check_at: Instant::ORIGIN,
            samples: BTreeMap::new(),
            driving: false,
            again: false,
            closed: false,
            unrecorded: None,
        }
    }

    fn capacity(&self, now: Instant) -> Capacity {
        let stats = self.machine.stats(now);
        Capacity {
            min: stats.min,
            max: stats.max,
            desired: stats.desired,
            in_service: stats.in_service_capacity,
            warming: stats.warming_capacity,
            pending: stats.pending_capacity,
        }
    }

    /// Asks the policies, and follows them.
    fn decide(&mut self, now: Instant, clock: &Clock) {
        self.decide_at = Instant::NEVER;
        if self.policies.is_empty() || self.machine.is_deleted() {
            return;
        }
        self.switch_policies();
        let mut input =
            PolicyInput::new(now, clock.timestamp(now), self.capacity(now), &self.metrics);
        input.last_activity = self.machine.last_activity();
        let samples = self.instance_samples(now);
        input.instances = &samples;
        let verdict = self.policies.decide(&input);
        let from = self.machine.desired();
        if let Some(next) = verdict.next {
            // Whatever a policy asks for, time passes until then.
            self.decide_at = next.max(now + PERIOD_LEAST);
        }
        let mut applied = false;
        if !self.dry_run {
            if let Some(bounds) = verdict.bounds {
                let config = self.machine.config();
                let (min, max) = (
                    bounds.min.unwrap_or(config.min),
                    bounds.max.unwrap_or(config.max),
                );
                // A bound that is moved past the other moves the other along, as in the verdict.
                let _ = self.machine.set_limits(min, max.max(min), now);
            }
            let before = self.machine.desired();
            if verdict.desired != before {
                let by = match &verdict.policy {
                    Some(policy) => format!("policy {policy:?}: {}", verdict.reason),
                    None => verdict.reason.to_string(),
                };
                let scaled = self.machine.scale(verdict.desired, &by, now);
                applied = scaled.from != scaled.to;
            }
            let to = self.machine.desired();
            self.policies
                .applied(now, from, to, verdict.policy.as_deref());
        }
        self.decided = Some(Decided {
            at: now,
            verdict,
            applied,
            from,
        });
    }

    /// Carries out one policy by itself.
    pub(super) fn execute(
        &mut self,
        name: &str,
        cooldown: Cooldown,
        now: Instant,
        clock: &Clock,
    ) -> Result<Scaled, ExecuteError> {
        let policy = self
            .policies
            .policies()
            .find(|policy| policy.name() == name);
        let Some(policy) = policy.cloned() else {
            return Err(ExecuteError::Unknown {
                name: name.to_owned(),
            });
        };
        let until = self.machine.cooldown_until();
        if cooldown == Cooldown::Honor && now < until {
            return Err(ExecuteError::CoolingDown { until });
        }
        let capacity = self.capacity(now);
        let samples = self.instance_samples(now);
        let mut input = PolicyInput::new(now, clock.timestamp(now), capacity, &self.metrics);
        input.last_activity = self.machine.last_activity();
        input.instances = &samples;
        let decision = policy.decide(&mut policy.start(), &input);
        let by = format!(
            "policy {name:?}, executed by hand: {}",
            decision.explanation
        );
        let scaled = self.machine.scale(decision.desired, &by, now);
        self.policies
            .applied(now, scaled.from, scaled.to, Some(name));
        Ok(scaled)
    }

    /// Carries out a simple or step policy for a breach told by hand.
    pub(super) fn execute_breach(
        &mut self,
        name: &str,
        (value, threshold): (f64, f64),
        cooldown: Cooldown,
        now: Instant,
    ) -> Result<Scaled, ExecuteError> {
        let desired = self.machine.desired();
        let adjusted = self
            .policies
            .policies()
            .find(|policy| policy.name() == name)
            .map(|policy| policy.adjust(value - threshold, desired));
        let Some(adjusted) = adjusted else {
            return Err(ExecuteError::Unknown {
                name: name.to_owned(),
            });
        };
        let Some(wanted) = adjusted else {
            return Err(ExecuteError::NoAdjustment {
                name: name.to_owned(),
                value,
                threshold,
            });
        };
        let until = self.machine.cooldown_until();
        if cooldown == Cooldown::Honor && now < until {
            return Err(ExecuteError::CoolingDown { until });
        }
        let by = format!("policy {name:?}, executed by hand for {value} against {threshold}");
        let scaled = self.machine.scale(wanted, &by, now);
        self.policies
            .applied(now, scaled.from, scaled.to, Some(name));
        Ok(scaled)
    }

    /// Has the policies asked at `now`.
    pub(super) fn ask_policies_at(&mut self, now: Instant) {
        self.decide_at = now;
    }

    /// Hands a notification to the sink.
    pub(super) fn post_notification(&mut self, notification: Notification) {
        if self
            .machine
            .config()
            .notifications
            .contains(&notification.kind())
        {
            self.post(notification);
        }
    }

    /// What each instance told of itself; nothing where none has.
    fn instance_samples(&self, now: Instant) -> Vec<InstanceSample> {
        if self.samples.is_empty() {
            return Vec::new();
        }
        // What is older than two periods is not known any more.
        let stale = self.machine.config().metric_period.saturating_mul(2);
        self.machine
            .instances()
            .into_iter()
            .filter(|instance| !instance.state.is_warm())
            .map(|instance| {
                let standing = if instance.state == State::InService {
                    if now < instance.warm_at {
                        InstanceStanding::NotReady
                    } else {
                        InstanceStanding::Ready
                    }
                } else if instance.state.counts() {
                    InstanceStanding::NotReady
                } else {
                    InstanceStanding::Ignored
                };
                let value = self
                    .samples
                    .get(&instance.id)
                    .filter(|(at, _)| now.saturating_duration_since(*at) <= stale)
                    .map(|&(_, value)| value);
                InstanceSample { standing, value }
            })
            .collect()
    }

    /// Disables the policies of suspended processes, and those that somebody disabled; enables the others.
    fn switch_policies(&mut self) {
        let states: Vec<(String, Enabled)> = self
            .policies
            .policies()
            .map(|policy| {
                let process = if policy.kind() == Kind::Scheduled {
                    Process::ScheduledActions
                } else {
                    Process::AlarmNotification
                };
                let is_off =
                    self.disabled.contains(policy.name()) || self.machine.is_suspended(process);
                let enabled = if is_off { Enabled::No } else { Enabled::Yes };
                (policy.name().to_owned(), enabled)
            })
            .collect();
        for (name, enabled) in states {
            // The names are the set's own.
            let _ = self.policies.set_enabled(&name, enabled);
        }
    }

    fn record_group(&mut self, now: Instant) {
        let stats = self.machine.stats(now);
        for (name, value) in [
            ("group.desired", stats.desired),
            ("group.in_service", stats.in_service),
            ("group.pending", stats.pending),
            ("group.standby", stats.standby),
            ("group.terminating", stats.terminating),
            ("group.total", stats.total),
            ("group.warm_desired", stats.warm_desired),
            ("group.warm_ready", stats.warm_ready),
            ("group.warm_pending", stats.warm_pending),
            ("group.warm_terminating", stats.warm_terminating),
        ] {
            if let Err(error) = self.metrics.record(name, now, value.into()) {
                self.unrecorded = Some(error.to_string());
            }
        }
    }

    fn post(&mut self, notification: Notification) {
        if self.outbox.len() >= self.machine.config().outbox {
            self.outbox.pop_front();
            self.dropped += 1;
        }
        self.outbox.push_back(notification);
    }

    /// What keeps the group from what its policies want.
    pub(super) fn obstacles(&self) -> Vec<Obstacle> {
        let mut obstacles = self.machine.obstacles().to_vec();
        for process in [Process::AlarmNotification, Process::ScheduledActions] {
            if self.machine.is_suspended(process) {
                obstacles.push(Obstacle::Suspended(process));
            }
        }
        obstacles
    }
}

impl<P: Provisioner> Shared<P> {
    pub(super) fn new(
        clock: Clock,
        provisioner: P,
        roster: Option<Arc<dyn Roster<P::Endpoint>>>,
        sink: Option<Arc<dyn Sink<Notification>>>,
        health: Option<Arc<Check<P::Endpoint>>>,
        gauges: Vec<Named>,
        mut core: Core<P::Endpoint>,
    ) -> Arc<Self> {
        let now = clock.now();
        core.sample_at = now;
        core.look_at = now;
        core.check_at = now;
        let event = Arc::new(Event::new());
        provisioner.connect(Wake::new(event.clone()));
        Arc::new(Self {
            clock,
            provisioner,
            roster,
            sink,
            health,
            gauges,
            event,
            core: Mutex::new(core),
        })
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let provisioned = self.provisioner.next_deadline().unwrap_or(Instant::NEVER);
        let core = self.core.lock();
        let mut next = provisioned.min(core.decide_at);
        next = next.min(core.machine.next_deadline().unwrap_or(Instant::NEVER));
        if !core.machine.is_deleted() {
            next = next.min(core.sample_at);
        }
        if self.roster.is_some()
            && (core.machine.is_draining() || core.machine.registered().next().is_some())
        {
            next = next.min(core.look_at);
        }
        if self.health.is_some() && core.machine.in_service().next().is_some() {
            next = next.min(core.check_at);
        }
        if self.sink.is_some() && !core.outbox.is_empty() {
            next = next.min(core.outbox_retry);
        }
        (!next.is_never()).then_some(next)
    }

    /// Serves deadline by deadline up to `now`.
    pub(super) fn advance(&self, now: Instant) {
        let mut last = Instant::ORIGIN;
        while let Some(at) = self.next_deadline()
            && at > last
            && at < now
        {
            self.drive(at);
            last = at;
        }
        self.drive(now);
    }

    /// After a change by a caller: carries it out, and has the driver look at the time again.
    pub(super) fn changed(&self, now: Instant) {
        self.drive(now);
        self.event.retime();
    }

    /// Does all that can be done at `now`. When somebody else is at it, they do this too.
    pub(super) fn drive(&self, now: Instant) {
        {
            let mut core = self.core.lock();
            if core.driving {
                core.again = true;
                return;
            }
            core.driving = true;
        }
        let turn = Turn { shared: self };
        loop {
            self.core.lock().again = false;
            let mut busy = self.take_reports(now);
            self.look_at_roster(now);
            self.check_health(now);
            self.core.lock().machine.advance(now);
            self.sample(now);
            busy |= self.carry_out(now);
            self.deliver(now);
            if busy {
                continue;
            }
            let mut core = self.core.lock();
            if !core.again {
                core.driving = false;
                break;
            }
        }
        std::mem::forget(turn);
    }

    fn step(&self, input: Input, now: Instant) {
        self.core.lock().machine.step(input, now);
    }

    fn take_reports(&self, now: Instant) -> bool {
        let mut busy = false;
        while let Some(report) = self.provisioner.poll(now) {
            busy = true;
            let input = match report {
                Report::Started { id, endpoint } => {
                    let mut core = self.core.lock();
                    core.endpoints.insert(id, endpoint);
                    core.machine.step(Input::Started { id }, now);
                    continue;
                }
                Report::Failed { id, reason } => Input::Failed { id, reason },
                Report::Paused { id } => Input::Paused { id },
                Report::Ended { id, reason } => Input::Ended { id, reason },
                Report::Health { id, health } => Input::Health {
                    id,
                    source: HealthSource::Provisioner,
                    health,
                },
                Report::AtRisk { id } => Input::AtRisk { id },
            };
            self.step(input, now);
        }
        if busy {
            let mut core = self.core.lock();
            let core = &mut *core;
            let machine = &core.machine;
            core.endpoints.retain(|&id, _| machine.has(id));
            core.samples.retain(|&id, _| machine.has(id));
        }
        busy
    }

    /// Asks the roster where the members stand, when it is time to.
    fn look_at_roster(&self, now: Instant) {
        let Some(roster) = &self.roster else {
            return;
        };
        let (seed, leaving, serving) = {
            let mut core = self.core.lock();
            if now < core.look_at {
                return;
            }
            let leaving: Vec<_> = core.machine.draining().collect();
            let serving: Vec<_> = core.machine.registered().collect();
            let config = core.machine.config();
            let period = if leaving.is_empty() {
                config.health_period
            } else {
                config.health_period.min(config.drain_period)
            };
            core.look_at = now + period;
            (core.machine.config().seed, leaving, serving)
        };
        for id in leaving {
            if roster.standing(id.member(seed)) == Standing::Absent {
                self.step(Input::Drained { id }, now);
            }
        }
        for id in serving {
            let health = match roster.standing(id.member(seed)) {
                Standing::Serving => Health::Healthy,
                Standing::Failing => Health::Unhealthy,
                Standing::Absent => {
                    let reason = "the roster does not have it".to_owned();
                    self.step(Input::JoinRefused { id, reason }, now);
                    continue;
                }
                _ => continue,
            };
            let source = HealthSource::Roster;
            self.step(Input::Health { id, source, health }, now);
        }
    }

    /// Asks the caller's health check, when it is time to.
    fn check_health(&self, now: Instant) {
        let Some(check) = &self.health else {
            return;
        };
        let serving: Vec<(InstanceId, P::Endpoint)> = {
            let mut core = self.core.lock();
            if now < core.check_at {
                return;
            }
            core.check_at = now + core.machine.config().health_period;
            let endpoints = &core.endpoints;
            core.machine
                .in_service()
                .filter_map(|id| Some((id, endpoints.get(&id)?.clone())))
                .collect()
        };
        for (id, endpoint) in serving {
            let (source, health) = (HealthSource::Custom, check(id, &endpoint));
            self.step(Input::Health { id, source, health }, now);
        }
    }

    /// Reads the gauges and asks the policies, when it is time to.
    fn sample(&self, now: Instant) {
        let (samples, decides) = {
            let core = self.core.lock();
            (now >= core.sample_at, now >= core.decide_at)
        };
        if !samples && !decides {
            return;
        }
        // Foreign code, read before the lock is taken.
        let readings: Vec<Reading> = if samples {
            self.gauges
                .iter()
                .map(|named| Reading::of(&*named.gauge))
                .collect()
        } else {
            Vec::new()
        };
        let mut core = self.core.lock();
        let core = &mut *core;
        if samples {
            let in_service = core.machine.stats(now).in_service;
            for ((_, meter), reading) in core.meters.iter_mut().zip(&readings) {
                if let Err(error) = meter.sample(reading, now, in_service, &mut core.metrics) {
                    core.unrecorded = Some(error.to_string());
                }
            }
            core.record_group(now);
            let period = core.machine.config().metric_period;
            core.sample_at = next_period(core.sample_at, period, now);
        }
        core.decide(now, &self.clock);
    }

    /// Carries out what the machine wants. True when there was something.
    fn carry_out(&self, now: Instant) -> bool {
        let mut busy = false;
        loop {
            let effect = self.core.lock().machine.poll_effect();
            let Some(effect) = effect else {
                return busy;
            };
            busy = true;
            match effect {
                Effect::Launch(order) => {
                    if let Err(refused) = self.provisioner.launch(&order, now) {
                        let (id, reason) = (order.id, refused.reason);
                        self.step(Input::Failed { id, reason }, now);
                    }
                }
                Effect::Terminate(id) => self.provisioner.terminate(id, now),
                Effect::Pause(id, how) => {
                    if let Err(refused) = self.provisioner.pause(id, how, now) {
                        let reason = refused.reason;
                        self.step(Input::Failed { id, reason }, now);
                    }
                }
                Effect::Resume(id) => {
                    if let Err(refused) = self.provisioner.resume(id, now) {
                        // It is still there, paused: it is ended, whatever became of it.
                        self.provisioner.terminate(id, now);
                        let reason = refused.reason;
                        self.step(Input::Failed { id, reason }, now);
                    }
                }
                Effect::Register(id) => self.register(id, now),
                Effect::Deregister(id) => self.deregister(id, now),
                Effect::LetGo(id) => {
                    self.provisioner.release(id);
                    self.core.lock().endpoints.remove(&id);
                }
                Effect::Notify(notification) => {
                    if self.sink.is_some() {
                        self.core.lock().post(notification);
                    }
                }
            }
        }
    }

    fn register(&self, id: InstanceId, now: Instant) {
        let Some(roster) = &self.roster else {
            return;
        };
        let (endpoint, seed) = {
            let core = self.core.lock();
            (core.endpoints.get(&id).cloned(), core.machine.config().seed)
        };
        let refused = match endpoint {
            None => Some("its endpoint is not known".to_owned()),
            Some(endpoint) => roster
                .try_join(id.member(seed), endpoint)
                .err()
                .map(|refused| refused.reason.to_string()),
        };
        if let Some(reason) = refused {
            self.step(Input::JoinRefused { id, reason }, now);
        }
    }

    fn deregister(&self, id: InstanceId, now: Instant) {
        let is_out = match &self.roster {
            None => true,
            Some(roster) => {
                let member = id.member(self.core.lock().machine.config().seed);
                roster.leave(member);
                roster.standing(member) == Standing::Absent
            }
        };
        if is_out {
            self.step(Input::Drained { id }, now);
        } else {
            let mut core = self.core.lock();
            let period = core.machine.config().drain_period;
            core.look_at = core.look_at.min(now + period);
        }
    }

    /// Hands notifications to the sink, in order.
    fn deliver(&self, now: Instant) {
        let Some(sink) = &self.sink else {
            return;
        };
        loop {
            let notification = {
                let mut core = self.core.lock();
                if now < core.outbox_retry {
                    return;
                }
                core.outbox.pop_front()
            };
            let Some(notification) = notification else {
                return;
            };
            let Err(refused) = sink.try_deliver(notification) else {
                continue;
            };
            let mut core = self.core.lock();
            match refused.reason {
                Reason::Full { retry_at } => {
                    core.outbox.push_front(refused.item);
                    core.outbox_retry = retry_at.filter(|&at| at > now).unwrap_or(now + SINK_RETRY);
                    return;
                }
                _ => core.dropped += 1,
            }
        }
    }
}

/// Gives the driver's turn back when foreign code panics.
struct Turn<'a, P: Provisioner> {
    shared: &'a Shared<P>,
}

impl<P: Provisioner> Drop for Turn<'_, P> {
    fn drop(&mut self) {
        self.shared.core.lock().driving = false;
    }
}

/// What a gauge said, read before the lock was taken.
struct Reading {
    depth: Depth,
    finished: Option<u64>,
}

impl Reading {
    fn of(gauge: &dyn Gauge) -> Self {
        Self {
            depth: gauge.depth(),
            finished: gauge.finished(),
        }
    }
}

impl Gauge for Reading {
    fn depth(&self) -> Depth {
        self.depth
    }

    fn finished(&self) -> Option<u64> {
        self.finished
    }
}

/// The next multiple of the period after `now`, counted from `from`.
fn next_period(from: Instant, period: Duration, now: Instant) -> Instant {
    let past = now.saturating_duration_since(from).as_nanos();
    let periods = past / period.as_nanos().max(1) + 1;
    let nanos = period.as_nanos().saturating_mul(periods);
    from + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
