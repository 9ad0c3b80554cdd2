//! Launching, scaling, zones, kinds, failures.

use super::*;
use crate::config::{
    Backoff, Distribution, Kind, MixedInstances, OnDemandStrategy, Override, Process, SpotStrategy,
    TerminationPolicy, Weighing, ZoneConfig,
};
use crate::error::DesiredError;
use crate::message::{ActivityStatus, Cause, Market, Obstacle};

#[test]
fn a_group_launches_its_desired_capacity_and_registers_what_is_in_service() {
    let mut world = World::new(group(2, 5));
    assert_eq!(world.machine.stats(world.now).pending, 2);
    assert!(world.roster.is_empty());
    world.pass(seconds(10));
    assert_eq!(world.in_service().len(), 2);
    assert_eq!(world.roster, [id(1), id(2)].into());
    assert_eq!(world.notes.len(), 2);
}

#[test]
fn scaling_in_drains_before_it_ends() {
    let mut world = World::settled(group(1, 5));
    world.scale(2);
    world.pass(seconds(60));
    world.scale(1);
    let leaving = world.in_state(State::Terminating);
    assert_eq!(leaving.len(), 1);
    assert!(!world.roster.contains(&leaving[0]), "nothing new for it");
    world.pass(seconds(1));
    assert!(world.alive.contains(&leaving[0]), "it finishes its work");
    world.pass(seconds(1));
    assert_eq!(world.machine.stats(world.now).terminating, 1);
    world.pass(seconds(5));
    assert!(!world.alive.contains(&leaving[0]));
    assert_eq!(world.machine.instance(leaving[0]), None);
}

#[test]
fn a_member_that_does_not_drain_is_ended_at_the_deadline() {
    let mut world = World::settled(GroupConfig {
        drain_timeout: seconds(30),
        ..group(0, 1)
    });
    world.scale(1);
    world.pass(seconds(60));
    world.drain = seconds(100_000);
    world.scale(0);
    world.pass(seconds(29));
    assert_eq!(world.alive.len(), 1);
    world.pass(seconds(6));
    assert_eq!(world.alive.len(), 0);
}

#[test]
fn the_desired_capacity_stays_within_the_limits() {
    let mut world = World::settled(group(1, 3));
    let refused = world.ask(|m, now| m.set_desired(4, Cooldown::Ignore, "test", now));
    assert_eq!(
        refused.unwrap_err(),
        DesiredError::OutOfRange {
            desired: 4,
            min: 1,
            max: 3
        }
    );
    let scaled = world.ask(|m, now| m.scale(9, "policy", now));
    assert_eq!((scaled.from, scaled.to), (1, 3));
    assert_eq!(scaled.obstacle, Some(Obstacle::AtMax { wanted: 9, max: 3 }));
    world.ask(|m, now| m.set_limits(0, 2, now)).unwrap();
    assert_eq!(world.machine.desired(), 2);
    world.ask(|m, now| m.set_limits(3, 2, now)).unwrap_err();
}

#[test]
fn the_cooldown_runs_from_the_end_of_the_activity() {
    let mut world = World::settled(group(0, 5));
    world.scale(1);
    let honor = |m: &mut Machine, now| m.set_desired(2, Cooldown::Honor, "test", now);
    world.pass(seconds(301));
    assert_eq!(
        world.ask(honor).unwrap_err(),
        DesiredError::CoolingDown {
            until: Instant::ORIGIN + seconds(60 + 10 + 300)
        }
    );
    world.pass(seconds(9));
    assert_eq!(world.ask(honor).unwrap().to, 2);
}

#[test]
fn instances_spread_evenly_over_the_zones() {
    let mut world = World::settled(group(0, 20).in_zones(["a", "b", "c"]));
    for desired in [1, 4, 7, 5, 2, 9, 3] {
        world.scale(desired);
        world.pass(seconds(60));
        let zones = world.per_zone();
        let (least, most) = (zones.values().min(), zones.values().max());
        assert!(most.unwrap() - least.unwrap() <= 1, "{desired}: {zones:?}");
    }
}

#[test]
fn a_failing_zone_is_avoided_and_tried_again_and_evened_out_when_it_is_well() {
    let mut world = World::new(group(4, 6).in_zones(["a", "b"]));
    world.failing.insert("b".to_owned());
    world.scale(6);
    world.pass(seconds(120));
    assert_eq!(world.per_zone(), [("a".into(), 4), ("b".into(), 2)].into());
    let failed: Vec<_> = world
        .machine
        .activities()
        .filter(|activity| activity.status == ActivityStatus::Failed)
        .collect();
    assert!(
        failed
            .iter()
            .all(|a| a.reason.as_deref() == Some("no room"))
    );
    assert!((1..10).contains(&failed.len()), "{}", failed.len());
    world.failing.clear();
    world.pass(seconds(1_000));
    assert_eq!(world.per_zone(), [("a".into(), 3), ("b".into(), 3)].into());
}

#[test]
fn balanced_only_waits_for_the_zone_that_fails() {
    let mut world = World::settled(GroupConfig {
        distribution: Distribution::BalancedOnly,
        ..group(2, 6).in_zones(["a", "b"])
    });
    world.failing.insert("b".to_owned());
    world.scale(6);
    world.pass(seconds(600));
    assert_eq!(world.per_zone(), [("a".into(), 3), ("b".into(), 1)].into());
    assert!(matches!(
        world.machine.obstacles(),
        [Obstacle::BackingOff { .. }]
    ));
    world.failing.clear();
    world.pass(seconds(700));
    assert_eq!(world.per_zone(), [("a".into(), 3), ("b".into(), 3)].into());
}

#[test]
fn reserved_room_is_taken_first() {
    let zones = vec![
        ZoneConfig::new("a"),
        ZoneConfig {
            name: "b".into(),
            reserved: 3,
        },
    ];
    let world = World::settled(GroupConfig {
        distribution: Distribution::ReservationsThenBalanced,
        zones,
        ..group(5, 6)
    });
    assert_eq!(world.per_zone(), [("a".into(), 1), ("b".into(), 4)].into());
}

#[test]
fn launches_that_fail_are_tried_again_with_a_delay_that_doubles() {
    let mut world = World::new(GroupConfig {
        backoff: Backoff {
            longest: seconds(60),
            ..Backoff::default()
        },
        ..group(0, 1)
    });
    world.start = Duration::ZERO;
    world.failing.insert("local".to_owned());
    world.scale(1);
    let mut tries = vec![world.orders.len()];
    for _ in 0..10 {
        world.pass(seconds(60));
        tries.push(world.orders.len());
    }
    // 1, 2, 4, 8, 16, 32 s, then each 60 s.
    assert_eq!(tries, [1, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    world.failing.clear();
    world.pass(seconds(61));
    assert_eq!(world.in_service().len(), 1);
}

#[test]
fn after_a_failure_one_launch_at_a_time_is_tried() {
    let mut world = World::new(group(0, 8));
    world.failing.insert("local".to_owned());
    world.scale(8);
    world.pass(seconds(10));
    assert_eq!(world.orders.len(), 8);
    world.pass(seconds(1));
    assert_eq!(world.orders.len(), 9, "a probe, and no herd");
    world.failing.clear();
    world.pass(seconds(40));
    assert_eq!(world.in_service().len(), 8);
}

#[test]
fn a_launch_that_is_not_answered_fails_at_its_timeout() {
    let mut world = World::new(group(0, 1));
    world.mute = true;
    world.scale(1);
    world.pass(seconds(600));
    assert_eq!(world.in_state(State::Terminating), [id(1)]);
    let stats = world.machine.stats(world.now);
    assert_eq!(stats.launch_failures, 1);
    world.mute = false;
    world.pass(seconds(20));
    assert_eq!(world.in_service().len(), 1);
}

#[test]
fn what_does_not_end_is_quarantined_and_holds_nothing_up() {
    let mut world = World::settled(group(1, 2));
    world.deaf = true;
    let one = world.in_service()[0].id;
    world
        .ask(|m, now| m.terminate_instance(one, crate::machine::Decrement::No, now))
        .unwrap();
    world.pass(seconds(2 + 3 * 120));
    assert_eq!(world.state(one), Some(State::Quarantined));
    assert_eq!(world.in_service().len(), 1);
    assert!(
        world
            .notes
            .iter()
            .any(|note| matches!(note, Notification::TerminateFailed { .. }))
    );
    world.deaf = false;
    world.pass(seconds(301 + 5));
    assert_eq!(world.state(one), None);
}

#[test]
fn instances_that_never_end_do_not_fill_the_memory() {
    let mut world = World::settled(group(1, 1));
    world.deaf = true;
    world.drain = Duration::ZERO;
    for _ in 0..100 {
        let Some(one) = world.in_service().first().map(|i| i.id) else {
            break;
        };
        world
            .ask(|m, now| m.terminate_instance(one, crate::machine::Decrement::No, now))
            .unwrap();
        world.pass(seconds(60));
    }
    assert_eq!(world.machine.instances().len(), 19);
    assert!(matches!(
        world.machine.obstacles(),
        [Obstacle::Overpopulated { instances: 19 }]
    ));
    world.deaf = false;
    world.pass(seconds(600));
    assert_eq!(world.in_service().len(), 1);
}

#[test]
fn a_suspended_process_does_nothing_until_it_is_resumed() {
    let mut world = World::settled(group(0, 5));
    world.ask(|m, now| m.suspend(&[Process::Launch], now));
    world.scale(2);
    world.pass(seconds(60));
    assert_eq!(world.orders.len(), 0);
    assert_eq!(
        world.machine.obstacles(),
        [Obstacle::Suspended(Process::Launch)]
    );
    world.ask(|m, now| m.resume(&[Process::Launch], now));
    world.pass(seconds(60));
    assert_eq!(world.in_service().len(), 2);
    world.ask(|m, now| m.suspend(&[Process::Terminate, Process::AddToLoadBalancer], now));
    world.scale(1);
    world.pass(seconds(60));
    assert_eq!(world.in_service().len(), 2);
    world.scale(3);
    world.pass(seconds(60));
    assert_eq!(world.roster.len(), 2, "the third was not registered");
    world.ask(|m, now| m.resume(&Process::ALL, now));
    world.scale(1);
    world.pass(seconds(60));
    assert_eq!(world.in_service().len(), 1);
}

#[test]
fn protected_instances_are_not_scaled_in() {
    let mut world = World::settled(GroupConfig {
        protect_new: true,
        ..group(0, 3)
    });
    world.scale(3);
    world.pass(seconds(60));
    let ids: Vec<_> = world.in_service().iter().map(|i| i.id).collect();
    world
        .ask(|m, now| m.protect(&ids[1..2], Protection::Off, now))
        .unwrap();
    world.scale(0);
    world.pass(seconds(60));
    assert_eq!(world.in_service().len(), 2);
    assert_eq!(world.ended, [ids[1]]);
    assert_eq!(world.machine.obstacles(), [Obstacle::Protected]);
    world
        .ask(|m, now| m.protect(&ids[..1], Protection::Off, now))
        .unwrap();
    world.pass(seconds(60));
    assert_eq!(world.in_service().len(), 1);
}

fn ages(policy: TerminationPolicy) -> (World, Vec<InstanceId>) {
    let mut world = World::settled(GroupConfig {
        termination: vec![policy],
        ..group(0, 3)
    });
    for desired in 1..=3 {
        world.scale(desired);
        world.pass(seconds(1_500));
    }
    let ids = world.in_service().iter().map(|i| i.id).collect();
    world.scale(2);
    world.pass(seconds(60));
    (world, ids)
}

#[test]
fn termination_policies_choose_by_age() {
    let (world, ids) = ages(TerminationPolicy::OldestInstance);
    assert_eq!(world.ended, ids[..1]);
    let (world, ids) = ages(TerminationPolicy::NewestInstance);
    assert_eq!(world.ended, ids[2..]);
    // Ages 4,500, 3,000 and 1,500 s: to the next hour 2,700, 600 and 2,100 s.
    let (world, ids) = ages(TerminationPolicy::ClosestToNextInstanceHour);
    assert_eq!(world.ended, ids[1..2]);
}

#[test]
fn a_custom_function_chooses_among_the_candidates_and_nothing_else() {
    for (answer, expected) in [(Some(id(2)), id(2)), (Some(id(77)), id(1)), (None, id(1))] {
        let config = GroupConfig {
            termination: vec![TerminationPolicy::Custom, TerminationPolicy::OldestInstance],
            ..group(3, 3)
        };
        let mut world = World::new(config.clone());
        world.machine = Machine::new(
            GroupConfig { min: 0, ..config },
            Some(sim_core::sync::Arc::new(move |candidates| {
                assert_eq!(candidates.len(), 3);
                answer
            })),
        )
        .unwrap();
        world.due.clear();
        world.scale(3);
        world.pass(seconds(60));
        world.scale(2);
        world.pass(seconds(60));
        assert_eq!(world.ended, [expected]);
    }
}

#[test]
fn the_oldest_version_goes_first() {
    let mut world = World::settled(group(0, 3));
    world.scale(1);
    world.pass(seconds(60));
    let version = world.ask(|m, _| m.add_version(Default::default()));
    world.ask(|m, _| m.set_default_version(version)).unwrap();
    world.scale(3);
    world.pass(seconds(3_500));
    let versions: Vec<_> = world.in_service().iter().map(|i| i.version).collect();
    assert_eq!(versions, [1, 2, 2]);
    world.scale(2);
    world.pass(seconds(60));
    assert_eq!(world.ended, [id(1)]);
}

fn kind(name: &str, price: f64, depth: f64) -> Kind {
    Kind {
        name: name.into(),
        on_demand_price: price * 3.0,
        spot_price: price,
        spot_depth: depth,
        ..Kind::default()
    }
}

fn mixed(strategy: SpotStrategy) -> MixedInstances {
    let kinds = [
        kind("big", 3.0, 10.0),
        kind("mid", 2.0, 6.0),
        kind("tiny", 1.0, 1.0),
    ];
    MixedInstances {
        overrides: kinds
            .into_iter()
            .map(|kind| Override {
                kind,
                ..Override::default()
            })
            .collect(),
        on_demand_base: 1,
        on_demand_percentage: 25,
        on_demand_strategy: OnDemandStrategy::LowestPrice,
        spot_strategy: strategy,
        ..MixedInstances::default()
    }
}

#[test]
fn strategies_choose_kinds_by_the_data_they_are_given() {
    for (strategy, expected) in [
        (SpotStrategy::LowestPrice { pools: 1 }, vec![("tiny", 6)]),
        (
            SpotStrategy::LowestPrice { pools: 2 },
            vec![("mid", 3), ("tiny", 3)],
        ),
        (SpotStrategy::CapacityOptimized, vec![("big", 6)]),
        (SpotStrategy::CapacityOptimizedPrioritized, vec![("big", 6)]),
        (SpotStrategy::PriceCapacityOptimized, vec![("mid", 6)]),
    ] {
        let world = World::settled(GroupConfig {
            mixed: Some(mixed(strategy)),
            ..group(9, 9)
        });
        let mut spot: BTreeMap<String, usize> = BTreeMap::new();
        let mut on_demand = 0;
        for instance in world.in_service() {
            if instance.market == Market::Spot {
                *spot.entry(instance.kind.to_string()).or_default() += 1;
            } else {
                assert_eq!(&*instance.kind, "tiny", "the cheapest on demand");
                on_demand += 1;
            }
        }
        // One, and a quarter of the other eight.
        assert_eq!(on_demand, 3);
        let expected = expected
            .into_iter()
            .map(|(k, n)| (k.to_owned(), n))
            .collect();
        assert_eq!(spot, expected, "{strategy:?}");
    }
}

#[test]
fn a_price_above_the_most_is_not_paid() {
    let mut config = mixed(SpotStrategy::CapacityOptimized);
    config.spot_max_price = Some(0.5);
    config.on_demand_percentage = 0;
    let mut world = World::settled(GroupConfig {
        mixed: Some(config),
        ..group(3, 3)
    });
    assert_eq!(world.in_service().len(), 1);
    assert_eq!(world.machine.obstacles(), [Obstacle::NoZone]);
    let offer = kind("tiny", 0.1, 1.0);
    world.ask(|m, now| m.set_offer(&offer, now)).unwrap();
    world.pass(seconds(60));
    assert_eq!(world.in_service().len(), 3);
}

#[test]
fn weights_are_units_of_capacity() {
    let overrides = vec![Override {
        weight: Weighing::Units(3),
        ..Override::default()
    }];
    let mut world = World::settled(GroupConfig {
        mixed: Some(MixedInstances {
            overrides,
            ..MixedInstances::default()
        }),
        ..group(0, 20)
    });
    world.scale(7);
    world.pass(seconds(60));
    assert_eq!(
        world.in_service().len(),
        3,
        "9 units are the fewest that are enough"
    );
    world.scale(6);
    world.pass(seconds(60));
    assert_eq!(world.in_service().len(), 2);
    world.scale(4);
    world.pass(seconds(60));
    assert_eq!(world.in_service().len(), 2, "3 units would be too few");
}

#[test]
fn a_zone_that_was_shifted_away_from_gets_nothing_new() {
    let mut world = World::settled(group(2, 8).in_zones(["a", "b"]));
    world
        .ask(|m, now| m.shift_zone("a", ZonalShift::Away, now))
        .unwrap();
    world.scale(6);
    world.pass(seconds(60));
    assert_eq!(world.per_zone(), [("a".into(), 1), ("b".into(), 5)].into());
    world
        .ask(|m, now| m.shift_zone("a", ZonalShift::Back, now))
        .unwrap();
    world.pass(seconds(300));
    assert_eq!(world.per_zone(), [("a".into(), 3), ("b".into(), 3)].into());
    world
        .ask(|m, now| m.shift_zone("x", ZonalShift::Away, now))
        .unwrap_err();
}

#[test]
fn standby_instances_run_out_of_service() {
    use crate::machine::Decrement;
    let mut world = World::settled(group(1, 3));
    world.scale(3);
    world.pass(seconds(60));
    world
        .ask(|m, now| m.enter_standby(&[id(1)], Decrement::Yes, now))
        .unwrap();
    world
        .ask(|m, now| m.enter_standby(&[id(2)], Decrement::No, now))
        .unwrap();
    world.pass(seconds(60));
    assert_eq!(world.in_state(State::Standby), [id(1), id(2)]);
    assert_eq!(world.machine.desired(), 2);
    assert_eq!(world.in_service().len(), 2, "one was launched instead");
    assert_eq!(world.roster, [id(3), id(4)].into());
    // Scale-in leaves them alone.
    world.scale(1);
    world.pass(seconds(60));
    assert_eq!(world.in_state(State::Standby).len(), 2);
    world.ask(|m, now| m.exit_standby(&[id(1)], now)).unwrap();
    assert_eq!(world.machine.desired(), 2);
    assert!(world.roster.contains(&id(1)));
    let refused = world
        .ask(|m, now| m.exit_standby(&[id(1)], now))
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "instance i-00000000000000001: an instance that is InService does not become Pending"
    );
    // All or nothing: below the least.
    let both: Vec<_> = world.in_service().iter().map(|i| i.id).collect();
    let refused = world.ask(|m, now| m.enter_standby(&both, Decrement::Yes, now));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the desired capacity would be 0, less than the least, 1"
    );
    assert_eq!(world.in_service().len(), 2);
}

#[test]
fn detached_instances_go_on_without_the_group_and_can_come_back() {
    use crate::machine::Decrement;
    let mut world = World::settled(group(0, 3));
    world.scale(2);
    world.pass(seconds(60));
    world
        .ask(|m, now| m.detach(&[id(1)], Decrement::Yes, now))
        .unwrap();
    assert_eq!(world.state(id(1)), Some(State::Detaching));
    world.pass(seconds(60));
    assert_eq!(world.state(id(1)), None);
    assert!(world.ended.is_empty());
    assert_eq!(world.machine.desired(), 1);
    world.ask(|m, now| m.attach(id(1), "local", now)).unwrap();
    assert_eq!(world.state(id(1)), Some(State::InService));
    assert_eq!(world.machine.desired(), 2);
    assert!(world.roster.contains(&id(1)));
    for (bad, zone) in [(1, "local"), (99, "local"), (1 << 61, "nowhere")] {
        world
            .ask(|m, now| m.attach(id(bad), zone, now))
            .unwrap_err();
    }
    world
        .ask(|m, now| m.attach(id(1 << 61), "local", now))
        .unwrap();
    let full = world.ask(|m, now| m.attach(id((1 << 61) + 1), "local", now));
    assert_eq!(
        full.unwrap_err().to_string(),
        "the desired capacity would be 4, more than the most, 3"
    );
}

#[test]
fn a_roster_that_refuses_is_asked_again() {
    let mut world = World::settled(group(1, 1));
    world.roster.clear();
    let reason = "full".to_owned();
    world.tell(Input::JoinRefused { id: id(1), reason });
    assert!(world.roster.is_empty());
    assert_eq!(
        world.machine.instance(id(1)).unwrap().note.as_deref(),
        Some("full")
    );
    world.pass(seconds(1));
    assert_eq!(world.roster.len(), 1);
}

#[test]
fn activities_tell_what_was_done_and_why_and_are_bounded() {
    let mut world = World::settled(GroupConfig {
        history: 4,
        ..group(0, 5)
    });
    world.scale(5);
    world.pass(seconds(60));
    world.scale(4);
    world.pass(seconds(60));
    let activities: Vec<_> = world.machine.activities().collect();
    assert_eq!(activities.len(), 4);
    let last = activities[3];
    assert_eq!((last.id, last.status), (6, ActivityStatus::Successful));
    assert_eq!(last.cause, Cause::ScaleIn);
    assert_eq!(last.change.as_deref(), Some("test: 5 to 4"));
    assert_eq!(last.ended, Some(last.began + seconds(2 + 5)));
}

#[test]
fn a_deleted_group_ends_everything() {
    use crate::error::DeleteError;
    let mut world = World::settled(GroupConfig {
        protect_new: true,
        ..group(3, 5)
    });
    let refused = world.ask(|m, now| m.delete(Force::No, now)).unwrap_err();
    assert_eq!(refused, DeleteError::InUse { instances: 3 });
    world.ask(|m, now| m.delete(Force::Yes, now)).unwrap();
    assert!(!world.machine.is_gone());
    world.pass(seconds(60));
    assert!(world.machine.is_gone());
    assert_eq!(world.ended.len(), 3);
    assert!(world.alive.is_empty());
}

#[test]
fn scale_in_takes_from_the_fullest_zone_before_the_policies_are_asked() {
    let mut world = World::settled(GroupConfig {
        termination: vec![TerminationPolicy::OldestInstance],
        suspended: vec![Process::AzRebalance],
        ..group(0, 8).in_zones(["a", "b"])
    });
    // The oldest stands in the emptier zone.
    world
        .ask(|m, now| m.shift_zone("a", ZonalShift::Away, now))
        .unwrap();
    world.scale(1);
    world.pass(seconds(60));
    world
        .ask(|m, now| m.shift_zone("a", ZonalShift::Back, now))
        .unwrap();
    world
        .ask(|m, now| m.shift_zone("b", ZonalShift::Away, now))
        .unwrap();
    world.scale(4);
    world.pass(seconds(60));
    assert_eq!(world.per_zone(), [("a".into(), 3), ("b".into(), 1)].into());
    world.scale(2);
    world.pass(seconds(60));
    assert_eq!(world.per_zone(), [("a".into(), 1), ("b".into(), 1)].into());
    assert_eq!(world.ended, [id(2), id(3)], "the oldest of that zone");
}
