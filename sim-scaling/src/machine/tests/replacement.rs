//! Health, lifetimes, maintenance policies, spot interruptions.

use super::*;
use crate::config::{HealthSource, ImpairedZones, MaintenancePolicy, Process};
use crate::message::{Cause, Health};

fn unfit(id: InstanceId) -> Input {
    Input::Health {
        id,
        source: HealthSource::Custom,
        health: Health::Unhealthy,
    }
}

#[test]
fn an_unhealthy_instance_is_replaced() {
    let mut world = World::settled(group(2, 2));
    world.tell(unfit(id(1)));
    assert_eq!(world.state(id(1)), Some(State::Terminating));
    assert_eq!(
        world.machine.instance(id(1)).unwrap().leaving,
        Some(Cause::Unhealthy(HealthSource::Custom))
    );
    world.pass(seconds(60));
    assert_eq!(world.in_service().len(), 2);
    assert_eq!(world.ended, [id(1)]);
}

#[test]
fn bad_health_is_not_held_against_it_during_the_grace() {
    let mut world = World::new(GroupConfig {
        health_grace: seconds(100),
        ..group(1, 1)
    });
    world.pass(seconds(10));
    world.tell(unfit(id(1)));
    world.pass(seconds(99));
    assert_eq!(world.state(id(1)), Some(State::InService));
    world.pass(seconds(1));
    assert_eq!(world.state(id(1)), Some(State::Terminating));

    let mut world = World::new(GroupConfig {
        health_grace: seconds(100),
        ..group(1, 1)
    });
    world.pass(seconds(10));
    world.tell(unfit(id(1)));
    world.tell(Input::Health {
        id: id(1),
        source: HealthSource::Custom,
        health: Health::Healthy,
    });
    world.pass(seconds(200));
    assert_eq!(
        world.state(id(1)),
        Some(State::InService),
        "it has recovered"
    );
}

#[test]
fn only_the_sources_that_are_listed_are_heard() {
    let mut world = World::settled(GroupConfig {
        health_checks: vec![HealthSource::Roster],
        ..group(1, 1)
    });
    world.tell(unfit(id(1)));
    assert_eq!(world.state(id(1)), Some(State::InService));
    world.tell(Input::Health {
        id: id(1),
        source: HealthSource::Provisioner,
        health: Health::Unhealthy,
    });
    assert_eq!(world.state(id(1)), Some(State::Terminating));
}

#[test]
fn suspended_health_checks_and_replacements_leave_it() {
    let mut world = World::settled(group(1, 1));
    world.ask(|m, now| m.suspend(&[Process::ReplaceUnhealthy], now));
    world.tell(unfit(id(1)));
    world.pass(seconds(60));
    assert_eq!(
        world.machine.instance(id(1)).unwrap().health,
        Health::Unhealthy
    );
    assert_eq!(world.state(id(1)), Some(State::InService));
    world.ask(|m, now| m.resume(&[Process::ReplaceUnhealthy], now));
    world.pass(seconds(60));
    assert_eq!(world.ended, [id(1)]);
    world.ask(|m, now| m.suspend(&[Process::HealthCheck], now));
    world.tell(unfit(id(2)));
    assert_eq!(
        world.machine.instance(id(2)).unwrap().health,
        Health::Healthy
    );
}

#[test]
fn with_a_policy_of_100_the_replacement_comes_first() {
    let mut world = World::settled(GroupConfig {
        maintenance: Some(MaintenancePolicy::LAUNCH_FIRST),
        default_warmup: seconds(30),
        ..group(2, 2)
    });
    world.tell(unfit(id(1)));
    assert_eq!(world.state(id(1)), Some(State::InService));
    world.pass(seconds(39));
    assert_eq!(world.in_service().len(), 3, "the new one is not warm yet");
    world.pass(seconds(1));
    assert_eq!(world.state(id(1)), Some(State::Terminating));
    world.pass(seconds(60));
    assert_eq!(world.ended, [id(1)]);
    assert_eq!((world.low, world.peak), (2, 3));
}

#[test]
fn an_instance_that_recovers_is_not_replaced() {
    let mut world = World::settled(GroupConfig {
        maintenance: Some(MaintenancePolicy::LAUNCH_FIRST),
        ..group(2, 2)
    });
    world.tell(unfit(id(1)));
    assert_eq!(world.machine.stats(world.now).to_replace, 1);
    world.tell(Input::Health {
        id: id(1),
        source: HealthSource::Custom,
        health: Health::Healthy,
    });
    world.pass(seconds(60));
    assert_eq!(world.machine.stats(world.now).to_replace, 0);
    assert_eq!(world.in_service().len(), 2);
    assert_eq!(world.ended.len(), 1, "one was too many");
}

#[test]
fn instances_live_as_long_as_they_may_and_are_replaced_a_few_at_a_time() {
    let mut world = World::settled(GroupConfig {
        max_lifetime: Some(seconds(1_000)),
        ..group(20, 20)
    });
    world.pass(seconds(1_500));
    assert_eq!(world.in_service().len(), 20);
    assert_eq!(world.ended.len(), 20);
    assert_eq!((world.low, world.peak), (18, 20));
    let now = world.now;
    let oldest = world.in_service().iter().map(|i| now - i.launched_at).max();
    assert!(oldest.unwrap() < seconds(600));
}

#[test]
fn a_crash_in_a_loop_is_slowed_down() {
    let mut world = World::new(group(1, 1));
    world.start = Duration::ZERO;
    world.pass(Duration::ZERO);
    for _ in 0..20 {
        while world.in_service().is_empty() {
            world.pass(seconds(1));
        }
        let one = world.in_service()[0].id;
        let reason = "exit 1".to_owned();
        world.tell(Input::Ended { id: one, reason });
    }
    assert!(
        world.now - Instant::ORIGIN >= seconds(1_000),
        "{:?}",
        world.now
    );
    assert_eq!(world.machine.stats(world.now).ended_alone, 20);
    // One that has lasted is replaced at once.
    world.pass(seconds(600));
    let one = world.in_service()[0].id;
    let reason = "exit 1".to_owned();
    world.tell(Input::Ended { id: one, reason });
    world.pass(Duration::ZERO);
    assert_eq!(world.in_service().len(), 1);
}

#[test]
fn an_instance_at_risk_is_replaced_before_it_goes_if_that_is_wanted() {
    for wanted in [false, true] {
        let mut world = World::settled(GroupConfig {
            capacity_rebalance: wanted,
            ..group(2, 2)
        });
        world.tell(Input::AtRisk { id: id(1) });
        world.pass(seconds(60));
        assert_eq!(world.ended.len(), usize::from(wanted));
        assert_eq!(world.low, 2);
    }
}

#[test]
fn unhealthy_instances_of_a_shifted_zone_can_be_left() {
    for (behaviour, ended) in [
        (ImpairedZones::IgnoreUnhealthy, 0),
        (ImpairedZones::ReplaceUnhealthy, 1),
    ] {
        let mut world = World::settled(GroupConfig {
            impaired_zones: behaviour,
            ..group(2, 2).in_zones(["a", "b"])
        });
        world
            .ask(|m, now| m.shift_zone("a", ZonalShift::Away, now))
            .unwrap();
        world.tell(unfit(id(1)));
        world.pass(seconds(60));
        assert_eq!(world.ended.len(), ended);
    }
}

#[test]
fn rebalancing_launches_first_and_moves_one_at_a_time() {
    let mut world = World::settled(group(6, 6).in_zones(["a", "b"]));
    world
        .ask(|m, now| m.shift_zone("b", ZonalShift::Away, now))
        .unwrap();
    world.ask(|m, now| m.suspend(&[Process::AzRebalance], now));
    for instance in world.in_service() {
        if &*instance.zone == "b" {
            world.tell(unfit(instance.id));
        }
    }
    world.pass(seconds(60));
    assert_eq!(world.per_zone(), [("a".into(), 6), ("b".into(), 0)].into());
    world
        .ask(|m, now| m.shift_zone("b", ZonalShift::Back, now))
        .unwrap();
    world.pass(seconds(60));
    assert_eq!(world.per_zone()["b"], 0, "it is suspended");
    (world.low, world.peak) = (u32::MAX, 0);
    world.ask(|m, now| m.resume(&[Process::AzRebalance], now));
    world.pass(seconds(600));
    assert_eq!(world.per_zone(), [("a".into(), 3), ("b".into(), 3)].into());
    assert_eq!((world.low, world.peak), (6, 7));
}

#[test]
fn rebalancing_into_a_failing_zone_ends_nothing() {
    let mut world = World::settled(group(4, 4).in_zones(["a", "b"]));
    world.failing.insert("b".to_owned());
    for instance in world.in_service() {
        if &*instance.zone == "b" {
            world.tell(unfit(instance.id));
        }
    }
    world.pass(seconds(100));
    assert_eq!(world.per_zone(), [("a".into(), 4), ("b".into(), 0)].into());
    let ended = world.ended.len();
    world.pass(seconds(3_000));
    assert_eq!(
        world.ended.len(),
        ended,
        "nothing that works was ended in vain"
    );
    world.failing.clear();
    world.pass(seconds(700));
    assert_eq!(world.per_zone(), [("a".into(), 2), ("b".into(), 2)].into());
}

#[test]
fn who_comes_back_from_standby_begins_in_good_health() {
    use crate::machine::Decrement;
    let mut world = World::settled(GroupConfig {
        suspended: vec![Process::ReplaceUnhealthy],
        ..group(0, 1)
    });
    world.scale(1);
    world.pass(seconds(60));
    world.tell(unfit(id(1)));
    world
        .ask(|m, now| m.enter_standby(&[id(1)], Decrement::Yes, now))
        .unwrap();
    world.pass(seconds(60));
    world.ask(|m, now| m.resume(&[Process::ReplaceUnhealthy], now));
    world.ask(|m, now| m.exit_standby(&[id(1)], now)).unwrap();
    world.pass(seconds(60));
    assert_eq!(world.state(id(1)), Some(State::InService));
}
