//! The handle against the machine: the same history, the same instances.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sim_core::seam::Timed;
use sim_core::time::Instant;
use sim_scaling::machine::{Effect, Input, Machine};
use sim_scaling::provisioner::Recorder;
use sim_scaling::{
    Cooldown, Decrement, Group, GroupConfig, Health, HealthSource, InstanceId, InstanceInfo,
    Process, Protection, RefreshConfig, State, WarmPoolConfig,
};

use crate::rig::{pass, seconds, virtual_clock};

const START: u64 = 7;
const STOP: u64 = 3;
const PAUSE: u64 = 1;

/// The machine, alone, in a world that does what the recorder's script says.
struct Pure {
    machine: Machine,
    now: Instant,
    due: BTreeMap<(Instant, u64), Input>,
    sequence: u64,
    failing: bool,
}

impl Pure {
    fn put(&mut self, after: u64, input: Input) {
        self.sequence += 1;
        self.due
            .insert((self.now + seconds(after), self.sequence), input);
    }

    fn pump(&mut self) {
        while let Some(effect) = self.machine.poll_effect() {
            match effect {
                Effect::Launch(order) if self.failing => {
                    let reason = "the script says so".to_owned();
                    self.put(
                        START,
                        Input::Failed {
                            id: order.id,
                            reason,
                        },
                    );
                }
                Effect::Launch(order) => self.put(START, Input::Started { id: order.id }),
                Effect::Resume(id) if self.failing => {
                    let reason = "the script says so".to_owned();
                    self.put(START, Input::Failed { id, reason });
                }
                Effect::Resume(id) => self.put(START, Input::Started { id }),
                Effect::Pause(id, _) => self.put(PAUSE, Input::Paused { id }),
                Effect::Terminate(id) => {
                    self.due.retain(|_, input| {
                        !matches!(input, Input::Started { id: of } | Input::Paused { id: of } | Input::Ended { id: of, .. } | Input::Failed { id: of, .. } if *of == id)
                    });
                    let reason = "terminated".to_owned();
                    self.put(STOP, Input::Ended { id, reason });
                }
                Effect::Deregister(id) => self.machine.step(Input::Drained { id }, self.now),
                _ => {}
            }
        }
    }

    fn ask<R>(&mut self, ask: impl FnOnce(&mut Machine, Instant) -> R) -> R {
        let answer = ask(&mut self.machine, self.now);
        self.pump();
        answer
    }

    fn pass(&mut self, time: u64) {
        let end = self.now + seconds(time);
        loop {
            let first = self
                .due
                .first_key_value()
                .map_or(Instant::NEVER, |(k, _)| k.0);
            let own = self.machine.next_deadline().unwrap_or(Instant::NEVER);
            let at = first.min(own);
            if at > end {
                break;
            }
            self.now = at;
            // As the handle does: what was reported first, then what is due.
            while let Some((&(due, _), _)) = self.due.first_key_value()
                && due <= at
            {
                if let Some((_, input)) = self.due.pop_first() {
                    self.machine.step(input, at);
                }
            }
            self.machine.advance(at);
            self.pump();
        }
        self.now = end;
        self.machine.advance(end);
        self.pump();
    }
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Scale(u32),
    Limits(u32, u32),
    Crash(usize),
    Unfit(usize),
    Terminate(usize),
    Standby(usize),
    Back(usize),
    Protect(usize),
    Fail(bool),
    Suspend(usize, bool),
    Refresh,
    Pool(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1_u64..100).prop_map(Step::Pass),
        4 => (0_u32..9).prop_map(Step::Scale),
        1 => (0_u32..3, 3_u32..9).prop_map(|(min, max)| Step::Limits(min, max)),
        1 => (0_usize..9).prop_map(Step::Crash),
        1 => (0_usize..9).prop_map(Step::Unfit),
        1 => (0_usize..9).prop_map(Step::Terminate),
        1 => (0_usize..9).prop_map(Step::Standby),
        1 => (0_usize..9).prop_map(Step::Back),
        1 => (0_usize..9).prop_map(Step::Protect),
        1 => any::<bool>().prop_map(Step::Fail),
        1 => (0_usize..9, any::<bool>()).prop_map(|(at, yes)| Step::Suspend(at, yes)),
        1 => Just(Step::Refresh),
        1 => any::<bool>().prop_map(Step::Pool),
    ]
}

fn nth(instances: &[InstanceInfo], at: usize, state: State) -> Option<InstanceId> {
    let of: Vec<_> = instances.iter().filter(|i| i.state == state).collect();
    (!of.is_empty()).then(|| of[at % of.len()].id)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_handle_does_what_the_machine_says(steps in prop::collection::vec(step(), 1..40)) {
        let config = GroupConfig::new("both", 1, 8).in_zones(["a", "b"]);
        let (clock, time) = virtual_clock();
        let recorder = Recorder::new();
        recorder.script(|script| {
            script.start = seconds(START);
            script.stop = seconds(STOP);
            script.pause = seconds(PAUSE);
        });
        let group = Group::builder(config.clone(), recorder.clone()).clock(clock).build().unwrap();
        let mut pure = Pure {
            machine: Machine::new(config, None).unwrap(),
            now: time.now(),
            due: BTreeMap::new(),
            sequence: 0,
            failing: false,
        };
        pure.ask(|m, now| m.advance(now));
        group.advance(time.now());
        for step in steps {
            let before = group.instances();
            match step {
                Step::Pass(n) => {
                    pass(&group, &time, seconds(n));
                    pure.pass(n);
                }
                Step::Scale(n) => {
                    let handle = group.set_desired(n, Cooldown::Ignore);
                    let machine = pure.ask(|m, now| m.set_desired(n, Cooldown::Ignore, "by hand", now));
                    prop_assert_eq!(handle, machine);
                }
                Step::Limits(min, max) => {
                    group.set_limits(min, max).unwrap();
                    pure.ask(|m, now| m.set_limits(min, max, now)).unwrap();
                }
                Step::Crash(at) => if let Some(id) = nth(&before, at, State::InService) {
                    recorder.crash(id, "exit 1");
                    group.advance(time.now());
                    let reason = "exit 1".to_owned();
                    pure.ask(|m, now| m.step(Input::Ended { id, reason }, now));
                },
                Step::Unfit(at) => if let Some(id) = nth(&before, at, State::InService) {
                    let (source, health) = (HealthSource::Custom, Health::Unhealthy);
                    group.set_health(id, health, source).unwrap();
                    pure.ask(|m, now| m.step(Input::Health { id, source, health }, now));
                },
                Step::Terminate(at) => if let Some(id) = nth(&before, at, State::InService) {
                    let handle = group.terminate(id, Decrement::Yes);
                    let machine = pure.ask(|m, now| m.terminate_instance(id, Decrement::Yes, now));
                    prop_assert_eq!(handle, machine);
                },
                Step::Standby(at) => if let Some(id) = nth(&before, at, State::InService) {
                    let handle = group.enter_standby(&[id], Decrement::Yes);
                    let machine = pure.ask(|m, now| m.enter_standby(&[id], Decrement::Yes, now));
                    prop_assert_eq!(handle, machine);
                },
                Step::Back(at) => if let Some(id) = nth(&before, at, State::Standby) {
                    let handle = group.exit_standby(&[id]);
                    let machine = pure.ask(|m, now| m.exit_standby(&[id], now));
                    prop_assert_eq!(handle, machine);
                },
                Step::Protect(at) => if let Some(id) = nth(&before, at, State::InService) {
                    group.protect(&[id], Protection::On).unwrap();
                    pure.ask(|m, now| m.protect(&[id], Protection::On, now)).unwrap();
                },
                Step::Fail(yes) => {
                    recorder.script(|script| script.fail = if yes { u32::MAX } else { 0 });
                    pure.failing = yes;
                }
                Step::Suspend(at, yes) => {
                    let process = [Process::ALL[at]];
                    if yes {
                        group.suspend(&process);
                        pure.ask(|m, now| m.suspend(&process, now));
                    } else {
                        group.resume(&process);
                        pure.ask(|m, now| m.resume(&process, now));
                    }
                }
                Step::Refresh => {
                    let handle = group.start_refresh(RefreshConfig::default());
                    let machine = pure.ask(|m, now| m.start_refresh(RefreshConfig::default(), now));
                    prop_assert_eq!(handle, machine);
                }
                Step::Pool(yes) => {
                    let pool = yes.then_some(WarmPoolConfig::default());
                    group.set_warm_pool(pool).unwrap();
                    pure.ask(|m, now| m.set_warm_pool(pool, now)).unwrap();
                }
            }
            prop_assert_eq!(group.instances(), pure.machine.instances());
            prop_assert_eq!(group.stats(), pure.machine.stats(pure.now));
        }
    }
}
