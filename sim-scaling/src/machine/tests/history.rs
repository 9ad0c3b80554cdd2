//! Random histories: what holds whatever happens.

use proptest::prelude::*;

use super::*;
use crate::config::{
    Distribution, HealthSource, HookResult, HookTransition, LifecycleHook, MaintenancePolicy,
    Process, RefreshConfig, WarmPoolConfig,
};
use crate::machine::Decrement;
use crate::message::{Cause, Health};

const ZONES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Scale(u32),
    Limits(u32, u32),
    Unfit(usize),
    Crash(usize),
    Terminate(usize, bool),
    Standby(usize, bool),
    Back(usize),
    Protect(usize, bool),
    Detach(usize, bool),
    Fail(usize, bool),
    Shift(usize, bool),
    Suspend(usize, bool),
    Refresh(u32),
    Cancel,
    Rollback,
    Pool(Option<u32>),
    Complete(usize, bool),
    Deaf(bool),
    Mute(bool),
    Version,
}

fn step() -> impl Strategy<Value = Step> {
    let pick = 0_usize..12;
    prop_oneof![
        6 => (0_u64..200).prop_map(Step::Pass),
        4 => (0_u32..12).prop_map(Step::Scale),
        1 => (0_u32..4, 4_u32..12).prop_map(|(min, max)| Step::Limits(min, max)),
        2 => pick.clone().prop_map(Step::Unfit),
        2 => pick.clone().prop_map(Step::Crash),
        1 => (pick.clone(), any::<bool>()).prop_map(|(at, yes)| Step::Terminate(at, yes)),
        1 => (pick.clone(), any::<bool>()).prop_map(|(at, yes)| Step::Standby(at, yes)),
        1 => pick.clone().prop_map(Step::Back),
        1 => (pick.clone(), any::<bool>()).prop_map(|(at, yes)| Step::Protect(at, yes)),
        1 => (pick.clone(), any::<bool>()).prop_map(|(at, yes)| Step::Detach(at, yes)),
        2 => (0_usize..3, any::<bool>()).prop_map(|(at, yes)| Step::Fail(at, yes)),
        1 => (0_usize..3, any::<bool>()).prop_map(|(at, yes)| Step::Shift(at, yes)),
        2 => (0_usize..9, any::<bool>()).prop_map(|(at, yes)| Step::Suspend(at, yes)),
        2 => (0_u32..4).prop_map(Step::Refresh),
        1 => Just(Step::Cancel),
        1 => Just(Step::Rollback),
        1 => prop::option::of(0_u32..4).prop_map(Step::Pool),
        2 => (pick, any::<bool>()).prop_map(|(at, yes)| Step::Complete(at, yes)),
        1 => any::<bool>().prop_map(Step::Deaf),
        1 => any::<bool>().prop_map(Step::Mute),
        1 => Just(Step::Version),
    ]
}

fn configs() -> impl Strategy<Value = GroupConfig> {
    let maintenance = prop::option::of((0_u32..=100, 100_u32..=200)).prop_map(|policy| {
        policy.map(|(min_healthy, max_healthy)| MaintenancePolicy {
            min_healthy,
            max_healthy,
        })
    });
    (
        1_usize..=3,
        0_u32..3,
        maintenance,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(zones, min, maintenance, hooks, strict, reuse)| GroupConfig {
                maintenance,
                default_warmup: seconds(u64::from(min) * 7),
                hooks: if hooks {
                    [HookTransition::Launching, HookTransition::Terminating]
                        .into_iter()
                        .map(|transition| LifecycleHook {
                            heartbeat: seconds(50),
                            default_result: HookResult::Continue,
                            ..LifecycleHook::new(format!("{transition:?}"), transition)
                        })
                        .collect()
                } else {
                    Vec::new()
                },
                distribution: if strict {
                    Distribution::BalancedOnly
                } else {
                    Distribution::BalancedBestEffort
                },
                warm_pool: reuse.then_some(WarmPoolConfig {
                    max_prepared: Some(4),
                    reuse_on_scale_in: true,
                    ..WarmPoolConfig::default()
                }),
                max_lifetime: strict.then_some(seconds(2_000)),
                history: 10_000,
                ..group(min, 10).in_zones(ZONES[..zones].iter().copied())
            },
        )
}

impl World {
    fn nth(&self, at: usize, of: impl Fn(&InstanceInfo) -> bool) -> Option<InstanceId> {
        let all: Vec<_> = self.machine.instances().into_iter().filter(of).collect();
        (!all.is_empty()).then(|| all[at % all.len()].id)
    }

    /// Errors are part of the game: they must only change nothing.
    fn play(&mut self, step: Step) {
        let in_service = |i: &InstanceInfo| i.state == State::InService;
        let decrement = |yes| if yes { Decrement::Yes } else { Decrement::No };
        match step {
            Step::Pass(time) => self.pass(seconds(time)),
            Step::Scale(n) => {
                let _ = self.ask(|m, now| m.set_desired(n, Cooldown::Ignore, "test", now));
            }
            Step::Limits(min, max) => self.ask(|m, now| m.set_limits(min, max, now)).unwrap(),
            Step::Unfit(at) => {
                if let Some(id) = self.nth(at, in_service) {
                    let (source, health) = (HealthSource::Custom, Health::Unhealthy);
                    self.tell(Input::Health { id, source, health });
                }
            }
            Step::Crash(at) => {
                if let Some(id) = self.nth(at, |i| self.alive.contains(&i.id)) {
                    self.due.retain(|_, input| {
                        !matches!(input,
                            Input::Started { id: of } | Input::Paused { id: of } if *of == id)
                    });
                    let reason = "crash".to_owned();
                    self.tell(Input::Ended { id, reason });
                }
            }
            Step::Terminate(at, yes) => {
                if let Some(id) = self.nth(at, |_| true) {
                    let _ = self.ask(|m, now| m.terminate_instance(id, decrement(yes), now));
                }
            }
            Step::Standby(at, yes) => {
                if let Some(id) = self.nth(at, in_service) {
                    let _ = self.ask(|m, now| m.enter_standby(&[id], decrement(yes), now));
                }
            }
            Step::Back(at) => {
                if let Some(id) = self.nth(at, |i| i.state == State::Standby) {
                    let _ = self.ask(|m, now| m.exit_standby(&[id], now));
                }
            }
            Step::Protect(at, yes) => {
                if let Some(id) = self.nth(at, in_service) {
                    self.ask(|m, now| {
                        m.protect(
                            &[id],
                            if yes { Protection::On } else { Protection::Off },
                            now,
                        )
                    })
                    .unwrap();
                }
            }
            Step::Detach(at, yes) => {
                if let Some(id) = self.nth(at, in_service) {
                    let _ = self.ask(|m, now| m.detach(&[id], decrement(yes), now));
                }
            }
            Step::Fail(at, yes) => {
                let zone = ZONES[at].to_owned();
                if yes {
                    self.failing.insert(zone);
                } else {
                    self.failing.remove(&zone);
                }
            }
            Step::Shift(at, yes) => {
                let _ = self.ask(|m, now| {
                    m.shift_zone(
                        ZONES[at],
                        if yes {
                            ZonalShift::Away
                        } else {
                            ZonalShift::Back
                        },
                        now,
                    )
                });
            }
            Step::Suspend(at, yes) => {
                let process = [Process::ALL[at]];
                if yes {
                    self.ask(|m, now| m.suspend(&process, now));
                } else {
                    self.ask(|m, now| m.resume(&process, now));
                }
            }
            Step::Refresh(n) => {
                let config = RefreshConfig {
                    auto_rollback: n % 2 == 0,
                    skip_matching: n < 2,
                    checkpoints: if n == 3 { vec![30] } else { Vec::new() },
                    checkpoint_delay: seconds(100),
                    strategy: if n == 1 {
                        crate::config::RefreshStrategy::ReplaceRootVolume
                    } else {
                        crate::config::RefreshStrategy::Rolling
                    },
                    ..RefreshConfig::default()
                };
                let _ = self.ask(|m, now| m.start_refresh(config, now));
            }
            Step::Cancel => {
                let _ = self.ask(|m, now| m.cancel_refresh(now));
            }
            Step::Rollback => {
                let _ = self.ask(|m, now| m.rollback_refresh(now));
            }
            Step::Pool(size) => {
                let pool = size.map(|min_size| WarmPoolConfig {
                    min_size,
                    max_prepared: Some(4),
                    ..WarmPoolConfig::default()
                });
                self.ask(|m, now| m.set_warm_pool(pool, now)).unwrap();
            }
            Step::Complete(at, yes) => {
                if let Some(id) = self.nth(at, |i| !i.hooks.is_empty()) {
                    let hook = self.machine.instance(id).unwrap().hooks[0].clone();
                    let result = if yes {
                        HookResult::Continue
                    } else {
                        HookResult::Abandon
                    };
                    self.ask(|m, now| m.complete_hook(id, &hook, result, now))
                        .unwrap();
                }
            }
            Step::Deaf(yes) => self.deaf = yes,
            Step::Mute(yes) => self.mute = yes,
            Step::Version => {
                let version = self.ask(|m, _| m.add_version(Default::default()));
                self.ask(|m, _| m.set_default_version(version)).unwrap();
            }
        }
    }

    /// What holds at every moment.
    fn check(&self) {
        let config = self.machine.config();
        let stats = self.machine.stats(self.now);
        assert!((config.min..=config.max).contains(&stats.desired));
        // Twice the most that is ever desired is the most that any policy allows, and one more where there is no room. What
        // is protected, or not terminated by request, may stay beyond a limit that was lowered.
        let counted = stats.in_service_capacity + stats.pending_capacity;
        let most = 12 * 2 + 1;
        assert!(counted <= most, "{counted} of {most}");
        let in_service: BTreeSet<_> = self.in_service().iter().map(|i| i.id).collect();
        for id in &self.roster {
            assert!(in_service.contains(id), "{id} gets work out of service");
        }
    }
}

/// Whom scale-in, rebalancing, refreshes and age must leave alone.
fn spared(world: &World) -> BTreeSet<InstanceId> {
    world
        .machine
        .instances()
        .into_iter()
        .filter(|i| (i.is_protected && i.state == State::InService) || i.state == State::Standby)
        .map(|i| i.id)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, max_shrink_iters: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_bounds_hold_and_the_group_comes_to_rest(
        config in configs(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(config);
        let kept_off = |step: &Step| matches!(step, Step::Suspend(at, true) if Process::ALL[*at] == Process::AddToLoadBalancer);
        let was_kept_off = steps.iter().any(kept_off);
        for step in steps {
            let spared = spared(&world);
            // Whom these are about is spared no more.
            let frees = matches!(step, Step::Protect(_, false) | Step::Back(_));
            let last = world.machine.activities().last().map_or(0, |activity| activity.id);
            world.play(step);
            world.check();
            for activity in world.machine.activities().filter(|activity| activity.id > last) {
                let is_chosen = matches!(
                    activity.cause,
                    Cause::ScaleIn | Cause::Rebalance | Cause::Lifetime | Cause::Refresh
                );
                prop_assert!(
                    frees || !is_chosen || !spared.contains(&activity.instance),
                    "{:?}", activity
                );
            }
        }
        // Everything works again, nothing is protected or suspended: the group comes to what is wanted.
        world.failing.clear();
        world.deaf = false;
        world.mute = false;
        world.ask(|m, now| m.resume(&Process::ALL, now));
        for zone in ZONES {
            let _ = world.ask(|m, now| m.shift_zone(zone, ZonalShift::Back, now));
        }
        let all: Vec<_> = world.machine.instances().iter().map(|i| i.id).collect();
        world.ask(|m, now| m.protect(&all, Protection::Off, now)).unwrap();
        world.pass(seconds(120));
        let retained: Vec<_> = world.machine.instances().iter().filter(|i| i.state == State::TerminatingRetained).map(|i| i.id).collect();
        for id in retained {
            world.ask(|m, now| m.terminate_instance(id, Decrement::No, now)).unwrap();
        }
        for id in world.in_state(State::Standby) {
            world.ask(|m, now| m.terminate_instance(id, Decrement::No, now)).unwrap();
        }
        world.pass(seconds(1_500));
        let _ = world.ask(|m, now| m.cancel_refresh(now));
        world.pass(seconds(1_900));
        let stats = world.machine.stats(world.now);
        let context = format!("{stats:?} {:?} {:#?}", world.machine.obstacles(), world.machine.instances());
        prop_assert!(stats.in_service + stats.pending >= stats.desired, "{context}");
        prop_assert_eq!(stats.quarantined + stats.standby, 0, "{}", context);
        let zones = world.per_zone();
        let (least, most) = (zones.values().min().unwrap(), zones.values().max().unwrap());
        if world.machine.config().max_lifetime.is_none() {
            prop_assert_eq!(stats.in_service, stats.desired, "{}", context);
            prop_assert_eq!(stats.pending + stats.terminating + stats.to_replace, 0, "{}", context);
            prop_assert!(most - least <= 1, "{:?} {}", zones, context);
            prop_assert_eq!(stats.warm_ready, stats.warm_desired, "{}", context);
        }
        // What was launched and is alive is known: nothing leaks.
        for id in &world.alive {
            prop_assert!(world.machine.has(*id), "{id} runs and nobody knows");
        }
        if !was_kept_off {
            prop_assert_eq!(world.roster.len(), world.in_service().len());
        }
    }

    #[test]
    fn while_everything_works_no_less_than_the_least_is_in_service(
        zones in 1_usize..=3,
        steps in prop::collection::vec(step(), 1..60),
        warmup in 0_u64..30,
    ) {
        let mut world = World::settled(GroupConfig {
            maintenance: Some(MaintenancePolicy::LAUNCH_FIRST),
            max_lifetime: Some(seconds(1_000)),
            default_warmup: seconds(warmup),
            ..group(3, 10).in_zones(ZONES[..zones].iter().copied())
        });
        for step in steps {
            let is_harmless = matches!(
                step,
                Step::Pass(_) | Step::Scale(_) | Step::Unfit(_) | Step::Protect(..) | Step::Shift(..)
                    | Step::Suspend(..) | Step::Cancel | Step::Rollback | Step::Pool(_) | Step::Version
            ) || matches!(step, Step::Refresh(n) if n != 1);
            if is_harmless {
                world.play(step);
                prop_assert!(world.low >= 3, "{} in service", world.low);
                // A tenth more than the most, while instances are replaced.
                prop_assert!(world.peak <= 11, "{} counted", world.peak);
            }
        }
    }
}
