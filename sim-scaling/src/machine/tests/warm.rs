//! The warm pool.

use super::*;
use crate::config::{HookResult, HookTransition, LifecycleHook, WarmPoolConfig};

fn pool(state: WarmState) -> WarmPoolConfig {
    WarmPoolConfig {
        state,
        ..WarmPoolConfig::default()
    }
}

fn with(pool: WarmPoolConfig) -> World {
    World::settled(GroupConfig {
        warm_pool: Some(pool),
        ..group(1, 4)
    })
}

#[test]
fn the_pool_holds_what_is_missing_to_the_most() {
    for (how, state) in [
        (WarmState::Stopped, State::WarmedStopped),
        (WarmState::Running, State::WarmedRunning),
        (WarmState::Hibernated, State::WarmedHibernated),
    ] {
        let world = with(pool(how));
        assert_eq!(world.in_state(state).len(), 3);
        assert_eq!(world.roster.len(), 1, "what is warm gets no work");
        let paused = if how == WarmState::Running { 0 } else { 3 };
        assert_eq!(world.paused.len(), paused);
        let stats = world.machine.stats(world.now);
        assert_eq!(
            (stats.total, stats.warm_ready, stats.warm_desired),
            (1, 3, 3)
        );
    }
}

#[test]
fn the_size_of_the_pool_follows_its_settings() {
    let mut world = with(WarmPoolConfig {
        min_size: 1,
        max_prepared: Some(3),
        ..pool(WarmState::Stopped)
    });
    assert_eq!(world.in_state(State::WarmedStopped).len(), 2);
    world.scale(4);
    world.pass(seconds(60));
    assert_eq!(world.in_state(State::WarmedStopped).len(), 1);
    world.ask(|m, now| m.set_warm_pool(None, now)).unwrap();
    world.pass(seconds(60));
    assert_eq!(world.machine.instances().len(), 4);
    assert_eq!(world.in_service().len(), 4);
}

#[test]
fn scale_out_takes_from_the_pool_first() {
    let mut world = with(pool(WarmState::Stopped));
    let launched = world.orders.len();
    world.scale(3);
    world.pass(seconds(1));
    assert_eq!(world.in_service().len(), 3, "a second, and not ten");
    assert_eq!(world.orders.len(), launched, "nothing new");
    world.pass(seconds(60));
    assert_eq!(world.in_state(State::WarmedStopped).len(), 1);
}

#[test]
fn scale_in_puts_back_what_the_pool_has_room_for() {
    let mut world = with(WarmPoolConfig {
        reuse_on_scale_in: true,
        ..pool(WarmState::Hibernated)
    });
    world.scale(4);
    world.pass(seconds(60));
    assert_eq!(world.in_state(State::WarmedHibernated).len(), 0);
    world.scale(1);
    assert_eq!(world.in_state(State::WarmedPending).len(), 3);
    world.pass(seconds(60));
    assert_eq!(world.in_state(State::WarmedHibernated).len(), 3);
    assert_eq!(world.roster.len(), 1);
    assert!(world.ended.is_empty());
    assert_eq!(world.alive.len(), 4);
}

#[test]
fn warm_instances_pass_the_hooks_on_their_way_in_and_out() {
    let mut world = World::settled(GroupConfig {
        warm_pool: Some(pool(WarmState::Stopped)),
        hooks: vec![LifecycleHook {
            heartbeat: seconds(20),
            default_result: HookResult::Continue,
            ..LifecycleHook::new("check", HookTransition::Launching)
        }],
        ..group(0, 1)
    });
    let warm: Vec<_> = world
        .notes
        .iter()
        .filter_map(|note| match note {
            Notification::Hook(notice) => Some(notice.is_warm),
            _ => None,
        })
        .collect();
    assert_eq!(warm, [true]);
    assert_eq!(world.in_state(State::WarmedStopped), [id(1)]);
    world.scale(1);
    world.pass(seconds(1));
    assert_eq!(world.in_state(State::PendingWait), [id(1)]);
    world.pass(seconds(20));
    assert_eq!(world.in_service().len(), 1);
}

#[test]
fn a_warm_instance_that_ends_is_replaced() {
    let mut world = with(pool(WarmState::Running));
    let one = world.in_state(State::WarmedRunning)[0];
    let reason = "exit 1".to_owned();
    world.tell(Input::Ended { id: one, reason });
    assert_eq!(world.state(one), None);
    world.pass(seconds(60));
    assert_eq!(world.in_state(State::WarmedRunning).len(), 3);
}

#[test]
fn what_cannot_be_paused_is_ended() {
    let mut world = World::new(GroupConfig {
        warm_pool: Some(pool(WarmState::Stopped)),
        ..group(0, 1)
    });
    world.pass(seconds(10));
    let reason = "cannot".to_owned();
    world.due.clear();
    world.tell(Input::Failed { id: id(1), reason });
    assert_eq!(world.in_state(State::WarmedTerminating), [id(1)]);
    world.pass(seconds(5));
    assert_eq!(world.state(id(1)), None);
}

#[test]
fn zones_are_evened_out_with_a_warm_pool_in_the_wrong_one() {
    let mut world = World::settled(GroupConfig {
        warm_pool: Some(pool(WarmState::Stopped)),
        ..group(4, 5).in_zones(["a", "b"])
    });
    world.failing.insert("b".to_owned());
    let ids: Vec<_> = world
        .in_service()
        .iter()
        .filter(|i| &*i.zone == "b")
        .map(|i| i.id)
        .collect();
    for id in ids {
        let reason = "exit 1".to_owned();
        world.tell(Input::Ended { id, reason });
    }
    world.pass(seconds(100));
    assert_eq!(world.per_zone()["b"], 0);
    let ended = world.ended.len();
    world.failing.clear();
    world.pass(seconds(2_000));
    assert_eq!(world.per_zone(), [("a".into(), 2), ("b".into(), 2)].into());
    assert_eq!(world.ended.len(), ended + 2, "each move ends one");
}

#[test]
fn without_reuse_scale_in_ends_instances() {
    let mut world = with(pool(WarmState::Running));
    world.scale(3);
    world.pass(seconds(60));
    world.scale(1);
    world.pass(seconds(60));
    assert_eq!(world.ended.len(), 2);
    assert_eq!(world.in_state(State::WarmedRunning).len(), 3);
}

#[test]
fn what_drains_on_its_way_into_the_pool_finishes_its_work_before_it_ends() {
    let mut world = with(WarmPoolConfig {
        reuse_on_scale_in: true,
        ..pool(WarmState::Stopped)
    });
    world.scale(4);
    world.pass(seconds(60));
    world.drain = seconds(40);
    world.scale(3);
    world.pass(seconds(1));
    let leaving = world.in_state(State::WarmedPending);
    assert_eq!(leaving.len(), 1);
    world.ask(|m, now| m.set_warm_pool(None, now)).unwrap();
    world.pass(seconds(30));
    assert_eq!(world.in_state(State::WarmedTerminating), leaving);
    assert!(world.ended.is_empty(), "its work is waited for");
    world.pass(seconds(30));
    assert_eq!(world.machine.instances().len(), 3);
}
