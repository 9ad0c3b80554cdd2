//! Instance refreshes.

use super::*;
use crate::config::{
    MaintenancePolicy, Process, ProtectedInstances, RefreshConfig, RefreshStrategy,
    StandbyInstances, TemplateVersion, VersionChoice,
};
use crate::error::RefreshError;
use crate::machine::Decrement;
use crate::message::RefreshStatus;

/// A group of `n` instances of version 1, with a version 2 at hand.
fn outdated(n: u32) -> World {
    let mut world = World::settled(group(n, n * 2));
    let version = world.ask(|m, _| m.add_version(TemplateVersion::default()));
    assert_eq!(version, 2);
    world
}

fn to_version_2() -> RefreshConfig {
    RefreshConfig {
        version: Some(VersionChoice::Latest),
        ..RefreshConfig::default()
    }
}

fn begin(world: &mut World, config: RefreshConfig) {
    world.ask(|m, now| m.start_refresh(config, now)).unwrap();
}

fn status(world: &World) -> (RefreshStatus, u32) {
    let refresh = world.machine.refresh().unwrap();
    (refresh.status, refresh.percentage)
}

fn versions(world: &World) -> Vec<u32> {
    world.in_service().iter().map(|i| i.version).collect()
}

#[test]
fn a_refresh_replaces_all_within_the_floor_and_the_ceiling() {
    for (policy, low, peak) in [
        (None, 9, 10),
        (Some(MaintenancePolicy::LAUNCH_FIRST), 10, 11),
        (
            Some(MaintenancePolicy {
                min_healthy: 50,
                max_healthy: 150,
            }),
            5,
            15,
        ),
        (
            Some(MaintenancePolicy {
                min_healthy: 100,
                max_healthy: 100,
            }),
            10,
            11,
        ),
        (
            Some(MaintenancePolicy {
                min_healthy: 95,
                max_healthy: 100,
            }),
            9,
            10,
        ),
    ] {
        let mut world = outdated(10);
        begin(
            &mut world,
            RefreshConfig {
                healthy: policy,
                ..to_version_2()
            },
        );
        world.pass(seconds(600));
        assert_eq!(
            status(&world),
            (RefreshStatus::Successful, 100),
            "{policy:?}"
        );
        assert_eq!(versions(&world), [2; 10]);
        assert!(world.low >= low, "{policy:?}: {}", world.low);
        assert!(world.peak <= peak, "{policy:?}: {}", world.peak);
        assert_eq!(world.ended.len(), 10);
    }
}

#[test]
fn a_new_instance_counts_when_it_is_warm() {
    let mut world = outdated(2);
    begin(
        &mut world,
        RefreshConfig {
            warmup: Some(seconds(500)),
            ..to_version_2()
        },
    );
    // The first goes at once, the second when the first's successor is warm.
    world.pass(seconds(400));
    assert_eq!(world.ended.len(), 1);
    assert_eq!(status(&world), (RefreshStatus::InProgress, 50));
    world.pass(seconds(200));
    assert_eq!(world.ended.len(), 2);
    world.pass(seconds(500));
    assert_eq!(status(&world).0, RefreshStatus::Successful);
}

#[test]
fn it_pauses_at_checkpoints() {
    let mut world = outdated(10);
    begin(
        &mut world,
        RefreshConfig {
            checkpoints: vec![20, 50],
            checkpoint_delay: seconds(1_000),
            ..to_version_2()
        },
    );
    world.pass(seconds(900));
    assert_eq!(status(&world), (RefreshStatus::InProgress, 20));
    assert!(world.machine.refresh().unwrap().paused_until.is_some());
    world.pass(seconds(900));
    assert_eq!(status(&world), (RefreshStatus::InProgress, 50));
    world.pass(seconds(3_000));
    assert_eq!(status(&world), (RefreshStatus::Successful, 100));
}

#[test]
fn what_matches_can_be_skipped() {
    let mut world = outdated(4);
    world
        .ask(|m, _| m.set_version(VersionChoice::Latest))
        .unwrap();
    world.scale(6);
    world.pass(seconds(60));
    begin(
        &mut world,
        RefreshConfig {
            skip_matching: true,
            ..to_version_2()
        },
    );
    world.pass(seconds(600));
    assert_eq!(world.ended.len(), 4);
    assert_eq!(versions(&world), [2; 6]);
    begin(&mut world, RefreshConfig::default());
    world.pass(seconds(600));
    assert_eq!(world.ended.len(), 10, "without it all are replaced");
}

#[test]
fn a_cancelled_refresh_leaves_what_it_has_not_begun() {
    let mut world = outdated(10);
    begin(&mut world, to_version_2());
    let twice = world.ask(|m, now| m.start_refresh(to_version_2(), now));
    assert_eq!(twice.unwrap_err(), RefreshError::InProgress { id: 1 });
    world.pass(seconds(30));
    world.ask(|m, now| m.cancel_refresh(now)).unwrap();
    let until_ended = world.machine.stats(world.now).terminating > 0;
    assert_eq!(
        status(&world).0,
        if until_ended {
            RefreshStatus::Cancelling
        } else {
            RefreshStatus::Cancelled
        }
    );
    world.pass(seconds(600));
    assert_eq!(status(&world).0, RefreshStatus::Cancelled);
    let new = versions(&world).iter().filter(|v| **v == 2).count();
    assert!((1..5).contains(&new), "{new}");
    let none = world.ask(|m, now| m.cancel_refresh(now)).unwrap_err();
    assert_eq!(none, RefreshError::NotActive);
}

#[test]
fn a_rollback_brings_the_former_version_back() {
    let mut world = outdated(6);
    begin(&mut world, to_version_2());
    world.pass(seconds(30));
    assert!(versions(&world).contains(&2));
    world.ask(|m, now| m.rollback_refresh(now)).unwrap();
    let twice = world.ask(|m, now| m.rollback_refresh(now)).unwrap_err();
    assert_eq!(twice, RefreshError::RollingBack { id: 1 });
    world.pass(seconds(600));
    assert_eq!(status(&world).0, RefreshStatus::RollbackSuccessful);
    assert_eq!(versions(&world), [1; 6]);
    assert_eq!(world.machine.config().version, VersionChoice::Default);
}

#[test]
fn an_alarm_fails_it_and_may_roll_it_back_also_while_it_bakes() {
    for auto_rollback in [false, true] {
        let mut world = outdated(3);
        begin(
            &mut world,
            RefreshConfig {
                alarms: vec!["errors".into()],
                bake_time: seconds(1_000),
                auto_rollback,
                ..to_version_2()
            },
        );
        world.pass(seconds(300));
        assert_eq!(status(&world), (RefreshStatus::Baking, 100));
        world.tell(Input::Alarm {
            name: "errors".into(),
            fires: true,
        });
        world.pass(seconds(600));
        let refresh = world.machine.refresh().unwrap();
        assert_eq!(refresh.reason.as_deref(), Some("alarm \"errors\" fires"));
        if auto_rollback {
            assert_eq!(refresh.status, RefreshStatus::RollbackSuccessful);
            assert_eq!(versions(&world), [1; 3]);
        } else {
            assert_eq!(refresh.status, RefreshStatus::Failed);
            assert_eq!(versions(&world), [2; 3]);
        }
    }
}

#[test]
fn it_fails_when_nothing_comes_of_its_launches() {
    let mut world = outdated(3);
    world.failing.insert("local".to_owned());
    begin(
        &mut world,
        RefreshConfig {
            healthy: Some(MaintenancePolicy::LAUNCH_FIRST),
            ..to_version_2()
        },
    );
    world.pass(seconds(3_700));
    let refresh = world.machine.refresh().unwrap();
    assert_eq!(refresh.status, RefreshStatus::Failed);
    assert_eq!(refresh.reason.as_deref(), Some("no progress within 3600s"));
    assert_eq!(versions(&world), [1; 3], "nothing was ended in vain");
    assert_eq!(world.machine.stats(world.now).to_replace, 0);
}

#[test]
fn protected_instances_are_waited_for_left_or_replaced() {
    for (mode, ended, end) in [
        (ProtectedInstances::Wait, 2, RefreshStatus::InProgress),
        (ProtectedInstances::Ignore, 2, RefreshStatus::Successful),
        (ProtectedInstances::Refresh, 3, RefreshStatus::Successful),
    ] {
        let mut world = outdated(3);
        world
            .ask(|m, now| m.protect(&[id(2)], Protection::On, now))
            .unwrap();
        begin(
            &mut world,
            RefreshConfig {
                protected: mode,
                ..to_version_2()
            },
        );
        world.pass(seconds(600));
        assert_eq!(status(&world).0, end, "{mode:?}");
        assert_eq!(world.ended.len(), ended);
        if mode == ProtectedInstances::Wait {
            world
                .ask(|m, now| m.protect(&[id(2)], Protection::Off, now))
                .unwrap();
            world.pass(seconds(60));
            assert_eq!(status(&world).0, RefreshStatus::Successful);
        }
    }
}

#[test]
fn standby_instances_are_waited_for_left_or_ended() {
    for (mode, standby, end) in [
        (StandbyInstances::Wait, 1, RefreshStatus::InProgress),
        (StandbyInstances::Ignore, 1, RefreshStatus::Successful),
        (StandbyInstances::Terminate, 0, RefreshStatus::Successful),
    ] {
        let mut world = outdated(3);
        world
            .ask(|m, now| m.enter_standby(&[id(1)], Decrement::No, now))
            .unwrap();
        world.pass(seconds(60));
        begin(
            &mut world,
            RefreshConfig {
                standby: mode,
                ..to_version_2()
            },
        );
        world.pass(seconds(600));
        assert_eq!(status(&world).0, end, "{mode:?}");
        assert_eq!(world.in_state(State::Standby).len(), standby);
        assert_eq!(versions(&world), [2; 3]);
    }
}

#[test]
fn in_place_each_keeps_its_id() {
    let mut world = outdated(4);
    begin(
        &mut world,
        RefreshConfig {
            strategy: RefreshStrategy::ReplaceRootVolume,
            ..to_version_2()
        },
    );
    assert_eq!(world.in_state(State::ReplacingRootVolume).len(), 1);
    world.pass(seconds(600));
    assert_eq!(status(&world), (RefreshStatus::Successful, 100));
    assert_eq!(versions(&world), [2; 4]);
    let ids: Vec<_> = world.in_service().iter().map(|i| i.id).collect();
    assert_eq!(ids, [id(1), id(2), id(3), id(4)]);
    assert_eq!(world.low, 3);
    assert_eq!(world.roster.len(), 4);
}

#[test]
fn a_suspended_refresh_stands_still_and_keeps_its_patience() {
    let mut world = outdated(4);
    world.ask(|m, now| m.suspend(&[Process::InstanceRefresh], now));
    begin(&mut world, to_version_2());
    world.pass(seconds(10_000));
    assert_eq!(status(&world), (RefreshStatus::InProgress, 0));
    world.ask(|m, now| m.resume(&[Process::InstanceRefresh], now));
    world.pass(seconds(600));
    assert_eq!(status(&world).0, RefreshStatus::Successful);
}

#[test]
fn a_refresh_that_is_suspended_under_way_replaces_no_more() {
    let mut world = outdated(4);
    begin(&mut world, to_version_2());
    world.pass(seconds(1));
    world.ask(|m, now| m.suspend(&[Process::InstanceRefresh], now));
    world.pass(seconds(100));
    let launched = world.orders.len();
    assert!(world.machine.stats(world.now).to_replace == 0);
    world.pass(seconds(3_600));
    assert_eq!(world.orders.len(), launched);
    let old = world
        .machine
        .instances()
        .iter()
        .filter(|i| i.version == 1)
        .count();
    assert!(old >= 3, "{old} of 4 are old");
    world.ask(|m, now| m.resume(&[Process::InstanceRefresh], now));
    world.pass(seconds(600));
    assert_eq!(status(&world).0, RefreshStatus::Successful);
}

#[test]
fn a_refresh_that_is_not_valid_changes_nothing() {
    let mut world = outdated(2);
    for config in [
        RefreshConfig {
            version: Some(VersionChoice::Number(9)),
            ..RefreshConfig::default()
        },
        RefreshConfig {
            checkpoints: vec![50, 20],
            ..RefreshConfig::default()
        },
        RefreshConfig {
            healthy: Some(MaintenancePolicy {
                min_healthy: 101,
                max_healthy: 120,
            }),
            ..RefreshConfig::default()
        },
    ] {
        let refused = world
            .ask(|m, now| m.start_refresh(config, now))
            .unwrap_err();
        assert!(matches!(refused, RefreshError::Config(_)), "{refused}");
    }
    assert_eq!(world.machine.refresh(), None);
    assert_eq!(world.machine.config().version, VersionChoice::Default);
}
