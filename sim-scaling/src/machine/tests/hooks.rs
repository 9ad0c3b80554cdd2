//! Lifecycle hooks.

use super::*;
use crate::config::{AbandonedTermination, HookResult, HookTransition, LifecycleHook};
use crate::error::HookError;
use crate::machine::Decrement;
use crate::message::{ActivityStatus, Cause, HookNotice};

fn hook(name: &str, transition: HookTransition, default_result: HookResult) -> LifecycleHook {
    LifecycleHook {
        heartbeat: seconds(100),
        default_result,
        metadata: "{}".into(),
        ..LifecycleHook::new(name, transition)
    }
}

fn notices(world: &World) -> Vec<&HookNotice> {
    world
        .notes
        .iter()
        .filter_map(|note| match note {
            Notification::Hook(notice) => Some(notice),
            _ => None,
        })
        .collect()
}

fn with(hooks: Vec<LifecycleHook>) -> World {
    let mut world = World::new(GroupConfig {
        hooks,
        ..group(0, 3)
    });
    world.scale(1);
    world.pass(seconds(10));
    world
}

#[test]
fn a_launching_instance_waits_for_all_its_hooks() {
    let launching = |name| hook(name, HookTransition::Launching, HookResult::Abandon);
    let mut world = with(vec![launching("warm"), launching("check")]);
    assert_eq!(world.state(id(1)), Some(State::PendingWait));
    assert!(world.roster.is_empty());
    let asked = notices(&world);
    assert_eq!(asked.len(), 2);
    assert_eq!((&*asked[0].hook, &*asked[0].metadata), ("warm", "{}"));
    let complete =
        |m: &mut Machine, name: &str, now| m.complete_hook(id(1), name, HookResult::Continue, now);
    world.ask(|m, now| complete(m, "warm", now)).unwrap();
    assert_eq!(world.state(id(1)), Some(State::PendingWait));
    let again = world.ask(|m, now| complete(m, "warm", now)).unwrap_err();
    assert!(matches!(again, HookError::NotWaiting { .. }));
    world.ask(|m, now| complete(m, "check", now)).unwrap();
    assert_eq!(world.state(id(1)), Some(State::InService));
    assert_eq!(world.roster.len(), 1);
}

#[test]
fn an_abandoned_launch_is_ended_and_another_one_begun() {
    let launching = hook("check", HookTransition::Launching, HookResult::Continue);
    let mut world = with(vec![launching]);
    world
        .ask(|m, now| m.complete_hook(id(1), "check", HookResult::Abandon, now))
        .unwrap();
    assert_eq!(world.state(id(1)), Some(State::Terminating));
    let first = world.machine.activities().next().unwrap();
    assert_eq!(first.status, ActivityStatus::Failed);
    assert_eq!(
        first.reason.as_deref(),
        Some("hook \"check\" was abandoned")
    );
    assert_eq!(world.state(id(2)), Some(State::Pending));
    // Nobody answers for the second: the default lets it in.
    world.pass(seconds(10 + 100));
    assert_eq!(world.state(id(2)), Some(State::InService));
    assert_eq!(world.ended, [id(1)]);
}

#[test]
fn an_unanswered_hook_takes_its_default_and_heartbeats_put_it_off() {
    let launching = LifecycleHook {
        longest: seconds(250),
        ..hook("check", HookTransition::Launching, HookResult::Continue)
    };
    let mut world = with(vec![launching]);
    for _ in 0..2 {
        world.pass(seconds(90));
        world
            .ask(|m, now| m.heartbeat(id(1), "check", now))
            .unwrap();
    }
    world.pass(seconds(69));
    assert_eq!(world.state(id(1)), Some(State::PendingWait));
    world.pass(seconds(1));
    assert_eq!(
        world.state(id(1)),
        Some(State::InService),
        "250 s are the longest"
    );
    let late = world
        .ask(|m, now| m.heartbeat(id(1), "check", now))
        .unwrap_err();
    assert_eq!(
        late.to_string(),
        "instance i-00000000000000001 does not wait for hook \"check\""
    );
}

#[test]
fn a_terminating_instance_waits_after_it_has_drained() {
    let terminating = hook("save", HookTransition::Terminating, HookResult::Abandon);
    let mut world = with(vec![terminating]);
    world.scale(0);
    assert_eq!(world.state(id(1)), Some(State::Terminating));
    world.pass(seconds(2));
    assert_eq!(world.state(id(1)), Some(State::TerminatingWait));
    assert!(world.alive.contains(&id(1)));
    world
        .ask(|m, now| m.complete_hook(id(1), "save", HookResult::Continue, now))
        .unwrap();
    assert_eq!(world.state(id(1)), Some(State::TerminatingProceed));
    world.pass(seconds(5));
    assert_eq!(world.ended, [id(1)]);
}

#[test]
fn an_abandoned_termination_goes_on_or_is_retained() {
    for policy in [
        AbandonedTermination::Terminate,
        AbandonedTermination::Retain,
    ] {
        let mut world = World::settled(GroupConfig {
            hooks: vec![
                hook("save", HookTransition::Terminating, HookResult::Continue),
                hook("other", HookTransition::Terminating, HookResult::Continue),
            ],
            abandoned_termination: policy,
            ..group(1, 3)
        });
        world
            .ask(|m, now| m.terminate_instance(id(1), Decrement::No, now))
            .unwrap();
        world.pass(seconds(2));
        world
            .ask(|m, now| m.complete_hook(id(1), "save", HookResult::Abandon, now))
            .unwrap();
        world.pass(seconds(600));
        if policy == AbandonedTermination::Terminate {
            assert_eq!(world.ended, [id(1)]);
            continue;
        }
        assert_eq!(world.state(id(1)), Some(State::TerminatingRetained));
        assert_eq!(world.in_service().len(), 1, "it holds no capacity");
        world
            .ask(|m, now| m.terminate_instance(id(1), Decrement::No, now))
            .unwrap();
        world.pass(seconds(5));
        assert_eq!(world.ended, [id(1)], "its hooks are not asked again");
    }
}

#[test]
fn an_instance_that_ends_by_itself_while_it_waits_goes_when_the_hook_has_answered() {
    let terminating = hook("save", HookTransition::Terminating, HookResult::Continue);
    let mut world = with(vec![terminating]);
    let reason = "exit 1".to_owned();
    world.tell(Input::Ended { id: id(1), reason });
    assert_eq!(world.state(id(1)), Some(State::TerminatingWait));
    assert_eq!(
        world.machine.instance(id(1)).unwrap().leaving,
        Some(Cause::Ended("exit 1".into()))
    );
    world.pass(seconds(100));
    assert_eq!(world.state(id(1)), None);
}

#[test]
fn a_hook_that_is_deleted_holds_nobody_up() {
    let launching = hook("check", HookTransition::Launching, HookResult::Abandon);
    let mut world = with(vec![launching.clone()]);
    world.ask(|m, now| m.delete_hook("check", now)).unwrap();
    assert_eq!(world.state(id(1)), Some(State::InService));
    world.ask(|m, now| m.delete_hook("check", now)).unwrap_err();
    world.ask(|m, _| m.put_hook(launching)).unwrap();
    world.scale(2);
    world.pass(seconds(10));
    assert_eq!(world.in_state(State::PendingWait).len(), 1);
}

#[test]
fn a_deleted_group_retains_nothing() {
    let mut world = World::settled(GroupConfig {
        abandoned_termination: crate::config::AbandonedTermination::Retain,
        ..group(2, 4)
    });
    let hook = LifecycleHook::new("save", HookTransition::Terminating);
    world.ask(|m, _| m.put_hook(hook)).unwrap();
    world.ask(|m, now| m.delete(Force::Yes, now)).unwrap();
    world.pass(seconds(2 * 24 * 3_600));
    assert!(world.machine.is_gone(), "{:?}", world.machine.instances());
}

#[test]
fn an_instance_that_is_unfit_before_it_serves_is_replaced() {
    let mut world = World::new(group(1, 4));
    let id = world.machine.instances()[0].id;
    let (source, health) = (
        crate::config::HealthSource::Provisioner,
        crate::message::Health::Unhealthy,
    );
    world
        .machine
        .step(Input::Health { id, source, health }, world.now);
    world.pass(seconds(60));
    assert!(!world.machine.has(id));
    assert_eq!(world.in_service().len(), 1);
}
