//! The handle: roster, gauges, policies, notifications, explanations, driving.

use std::sync::Arc;

use futures_util::FutureExt as _;
use sim_core::seam::{Standing, Timed};
use sim_scaling::policy::step::{Adjustment, Step, StepConfig};
use sim_scaling::policy::target::TargetConfig;
use sim_scaling::policy::{Enabled, simple::SimpleConfig};
use sim_scaling::provisioner::{Recorder, Told};
use sim_scaling::{
    ActivityStatus, AlarmConfig, Builder, Cooldown, Decrement, DesiredError, ExecuteError, Force,
    Group, GroupConfig, Health, HealthSource, HookResult, HookTransition, InstanceError,
    InstanceId, LifecycleHook, NotificationKind, Obstacle, PolicyConfig, Process, Protection,
    Query, RefreshConfig, State, WarmPoolConfig, WarmState, ZonalShift,
};

use crate::rig::{Dial, Inbox, Register, pass, seconds, virtual_clock};

fn config(min: u32, max: u32) -> GroupConfig {
    GroupConfig::new("test", min, max)
}

fn target(formula: &str, target: f64) -> PolicyConfig {
    let mut policy = TargetConfig::new(Query::new(formula).unwrap(), target);
    policy.out_periods = 1;
    policy.in_periods = 2;
    PolicyConfig::TargetTracking(policy)
}

fn built(builder: Builder<Recorder>) -> (Group<Recorder>, sim_core::clock::VirtualClock) {
    let (clock, time) = virtual_clock();
    let group = builder.clock(clock).build().unwrap();
    group.advance(time.now());
    (group, time)
}

fn ids(group: &Group<Recorder>, state: State) -> Vec<InstanceId> {
    let instances = group.instances();
    let of = instances.iter().filter(|instance| instance.state == state);
    of.map(|instance| instance.id).collect()
}

#[test]
fn members_join_when_they_are_in_service_and_leave_before_they_end() {
    let roster = Arc::new(Register::default());
    let recorder = Recorder::new();
    recorder.script(|script| script.start = seconds(30));
    let (group, time) =
        built(Group::builder(config(0, 4), recorder.clone()).roster(roster.clone()));
    group.set_desired(2, Cooldown::Ignore).unwrap();
    pass(&group, &time, seconds(29));
    assert!(roster.members().is_empty());
    pass(&group, &time, seconds(1));
    assert_eq!(roster.members().len(), 2);

    *roster.slow.lock().unwrap() = true;
    group.set_desired(1, Cooldown::Ignore).unwrap();
    let leaving = ids(&group, State::Terminating);
    pass(&group, &time, seconds(20));
    assert_eq!(recorder.running().len(), 2, "it still has work");
    let standing = roster
        .members()
        .iter()
        .find(|m| m.0 == leaving[0])
        .unwrap()
        .1;
    assert_eq!(standing, Standing::Leaving);
    roster.finish();
    pass(&group, &time, seconds(1));
    assert_eq!(recorder.running().len(), 1);
    assert_eq!(group.instances().len(), 1);
}

#[test]
fn a_member_that_fails_is_replaced_and_one_that_is_refused_joins_later() {
    let roster = Arc::new(Register::default());
    *roster.refuse.lock().unwrap() = 2;
    let (group, time) = built(Group::builder(config(1, 4), Recorder::new()).roster(roster.clone()));
    let one = ids(&group, State::InService)[0];
    assert!(roster.members().is_empty());
    assert_eq!(
        group.instance(one).unwrap().note.unwrap(),
        "the sink is full"
    );
    pass(&group, &time, seconds(3));
    assert_eq!(roster.members().len(), 1, "after one and two seconds");

    roster.set(one, Standing::Failing);
    pass(&group, &time, seconds(10));
    assert_eq!(group.instance(one), None);
    assert_eq!(ids(&group, State::InService).len(), 1);
    assert_eq!(roster.members().len(), 1);

    // Somebody throws it out: it joins again.
    let two = ids(&group, State::InService)[0];
    sim_core::seam::Roster::leave(&*roster, two.member(0));
    pass(&group, &time, seconds(12));
    assert_eq!(roster.members(), [(two, Standing::Serving)]);
}

#[test]
fn a_member_that_is_refused_again_and_again_still_joins() {
    let roster = Arc::new(Register::default());
    // Retries after 1, 3, 7 and 15 s: the roster is looked at every ten seconds between.
    *roster.refuse.lock().unwrap() = 4;
    let (group, time) = built(Group::builder(config(1, 4), Recorder::new()).roster(roster.clone()));
    pass(&group, &time, seconds(16));
    assert_eq!(roster.members().len(), 1);
}

#[test]
fn the_group_follows_its_policy_and_explains_itself() {
    let jobs = Arc::new(Dial::default());
    let (group, time) = built(
        Group::builder(config(1, 5), Recorder::new())
            .gauge("jobs", jobs.clone())
            .policy(
                "backlog",
                target("jobs.backlog / max(group.in_service, 1)", 10.0),
            ),
    );
    jobs.set(40);
    pass(&group, &time, seconds(180));
    assert!(group.stats().desired > 1, "{}", group.explain());
    jobs.set(4_000);
    pass(&group, &time, seconds(300));
    assert_eq!(group.stats().desired, 5);
    let explanation = group.explain();
    let text = explanation.to_string();
    assert!(text.contains("backlog"), "{text}");
    assert!(text.contains("5 desired (1 to 5)"), "{text}");
    let verdict = explanation.verdict.unwrap();
    assert!(
        !verdict.decisions[0].explanation.limits.is_empty(),
        "held at the most"
    );
    let activity = group.activities().pop().unwrap();
    assert!(activity.change.unwrap().starts_with("policy \"backlog\""));
    jobs.set(0);
    pass(&group, &time, seconds(1_200));
    assert_eq!(group.stats().desired, 1, "{}", group.explain());
    assert!(group.metric("jobs.backlog").unwrap().len() > 10);
    assert!(group.metric("group.desired").is_some());
}

#[test]
fn a_suspended_disabled_or_dry_run_policy_changes_nothing_and_says_so() {
    let jobs = Arc::new(Dial::default());
    jobs.set(1_000);
    let builder = || {
        Group::builder(config(1, 5), Recorder::new())
            .gauge("jobs", jobs.clone())
            .policy("backlog", target("jobs.backlog", 10.0))
    };
    let (group, time) = built(builder());
    group.suspend(&[Process::AlarmNotification]);
    pass(&group, &time, seconds(300));
    assert_eq!(group.stats().desired, 1);
    let suspended = Obstacle::Suspended(Process::AlarmNotification);
    assert!(group.explain().obstacles.contains(&suspended));
    group.resume(&[Process::AlarmNotification]);
    group.set_policy_enabled("backlog", Enabled::No).unwrap();
    pass(&group, &time, seconds(300));
    assert_eq!(group.stats().desired, 1);
    assert!(group.explain().to_string().contains("disabled"));
    group.set_policy_enabled("backlog", Enabled::Yes).unwrap();
    pass(&group, &time, seconds(300));
    assert_eq!(group.stats().desired, 5);

    let (group, time) = built(builder().dry_run());
    pass(&group, &time, seconds(300));
    assert_eq!(group.stats().desired, 1);
    let explanation = group.explain();
    assert_eq!(explanation.verdict.as_ref().unwrap().desired, 5);
    assert!(explanation.to_string().contains("dry run, not followed"));

    for name in ["nobody", ""] {
        group.set_policy_enabled(name, Enabled::No).unwrap_err();
        group.remove_policy(name).unwrap_err();
    }
    group.remove_policy("backlog").unwrap();
}

#[test]
fn a_health_check_of_the_callers_is_asked_and_believed() {
    let sick = Arc::new(std::sync::Mutex::new(None));
    let check = {
        let sick = sick.clone();
        move |id, endpoint: &InstanceId| {
            assert_eq!(id, *endpoint);
            if *sick.lock().unwrap() == Some(id) {
                Health::Unhealthy
            } else {
                Health::Healthy
            }
        }
    };
    let (group, time) = built(Group::builder(config(2, 2), Recorder::new()).health(check));
    let one = ids(&group, State::InService)[0];
    pass(&group, &time, seconds(100));
    assert_eq!(group.stats().unhealthy, 0);
    *sick.lock().unwrap() = Some(one);
    pass(&group, &time, seconds(10));
    assert_eq!(group.instance(one), None);
    assert_eq!(group.stats().in_service, 2);
}

#[test]
fn tags_and_parameters_reach_the_provisioner() {
    let recorder = Recorder::new();
    let config = GroupConfig {
        tags: [("team".to_owned(), "blue".to_owned())].into(),
        template: sim_scaling::LaunchTemplate::new("web", [("image", "web:1")]),
        ..config(1, 1)
    };
    let (_group, _) = built(Group::builder(config, recorder.clone()));
    let told = recorder.told();
    let Told::Launch(order) = &told[0] else {
        panic!("{told:?}");
    };
    assert_eq!(order.tags["team"], "blue");
    assert_eq!(order.template.parameters["image"], "web:1");
}

#[test]
fn a_policy_is_executed_by_hand_and_honours_the_cooldown() {
    let policy = PolicyConfig::Simple(SimpleConfig {
        alarm: AlarmConfig::new(Query::new("mine").unwrap(), 5.0),
        adjustment: Adjustment::ChangeInCapacity(2),
        min_adjustment_magnitude: 0,
        cooldown: seconds(0),
    });
    let (group, time) = built(Group::builder(config(0, 9), Recorder::new()));
    group.put_policy("out", policy).unwrap();
    let quiet = group.execute_policy("out", Cooldown::Ignore).unwrap();
    assert_eq!((quiet.from, quiet.to), (0, 0), "its alarm does not fire");
    for _ in 0..3 {
        time.advance(seconds(60));
        group.record("mine", 7.0).unwrap();
    }
    let scaled = group.execute_policy("out", Cooldown::Ignore).unwrap();
    assert_eq!((scaled.from, scaled.to), (0, 2));
    let refused = group.execute_policy("out", Cooldown::Honor).unwrap_err();
    assert!(matches!(refused, ExecuteError::CoolingDown { .. }));
    let unknown = group.execute_policy("in", Cooldown::Ignore).unwrap_err();
    assert_eq!(unknown.to_string(), "the group has no policy \"in\"");
    group.record("mine", f64::NAN).unwrap_err();
}

#[test]
fn a_breach_told_by_hand_picks_its_step() {
    let step = |lower, upper, change| Step {
        lower,
        upper,
        adjustment: Adjustment::ChangeInCapacity(change),
    };
    let policy = PolicyConfig::Step(StepConfig {
        alarm: AlarmConfig::new(Query::new("mine").unwrap(), 5.0),
        steps: vec![step(Some(0.0), Some(10.0), 1), step(Some(10.0), None, 3)],
        min_adjustment_magnitude: 0,
        warmup: seconds(0),
        cooldown: seconds(0),
    });
    let (group, _) = built(Group::builder(config(0, 9), Recorder::new()));
    group.put_policy("out", policy).unwrap();
    let execute = |value, cooldown| group.execute_breach("out", value, 50.0, cooldown);
    let small = execute(52.0, Cooldown::Ignore).unwrap();
    assert_eq!((small.from, small.to), (0, 1));
    let large = execute(60.0, Cooldown::Ignore).unwrap();
    assert_eq!((large.from, large.to), (1, 4));
    for value in [49.0, f64::NAN, f64::INFINITY] {
        let refused = execute(value, Cooldown::Ignore).unwrap_err();
        assert!(matches!(refused, ExecuteError::NoAdjustment { .. }));
    }
    let refused = execute(60.0, Cooldown::Honor).unwrap_err();
    assert!(matches!(refused, ExecuteError::CoolingDown { .. }));
}

#[test]
fn requests_by_hand_are_checked() {
    let (group, _) = built(Group::builder(config(1, 3), Recorder::new()));
    let refused = group.set_desired(4, Cooldown::Ignore).unwrap_err();
    assert!(matches!(
        refused,
        DesiredError::OutOfRange { desired: 4, .. }
    ));
    group.set_desired(2, Cooldown::Honor).unwrap();
    let refused = group.set_desired(3, Cooldown::Honor).unwrap_err();
    assert!(matches!(refused, DesiredError::CoolingDown { .. }));
    let nobody = InstanceId::new(99);
    let unknown = InstanceError::Unknown { id: nobody };
    assert_eq!(group.terminate(nobody, Decrement::No), Err(unknown.clone()));
    assert_eq!(
        group.protect(&[nobody], Protection::On),
        Err(unknown.clone())
    );
    let health = group.set_health(nobody, Health::Unhealthy, HealthSource::Custom);
    assert_eq!(health, Err(unknown));
    group
        .complete_hook(nobody, "h", HookResult::Continue)
        .unwrap_err();
    group.cancel_refresh().unwrap_err();
    group.shift_zone("nowhere", ZonalShift::Away).unwrap_err();
    group.set_limits(5, 2).unwrap_err();
    assert_eq!(group.stats().desired, 2);
}

#[test]
fn instances_of_elsewhere_are_adopted_and_released() {
    let recorder = Recorder::new();
    let (group, _) = built(Group::builder(config(0, 3), recorder.clone()));
    let foreign = InstanceId::FOREIGN;
    let refused = group.attach(foreign, "local").unwrap_err();
    assert!(matches!(refused, InstanceError::Refused { .. }));
    assert_eq!(group.stats().desired, 0);
    recorder.run_foreign(foreign);
    group.attach(foreign, "local").unwrap();
    assert_eq!(group.stats().in_service, 1);
    assert_eq!(group.endpoint(foreign), Some(foreign));
    group.detach(&[foreign], Decrement::Yes).unwrap();
    assert_eq!(group.stats().total, 0);
    assert_eq!(recorder.running(), [foreign], "it goes on");
    assert_eq!(recorder.told().last(), Some(&Told::LetGo(foreign)));
}

#[test]
fn notifications_wait_for_a_full_sink_in_order_and_are_bounded() {
    let inbox = Inbox::new(1);
    let config = GroupConfig {
        outbox: 3,
        ..config(0, 9)
    };
    let (group, time) = built(Group::builder(config, Recorder::new()).notifications(inbox.clone()));
    group.test_notification();
    group.set_desired(2, Cooldown::Ignore).unwrap();
    assert_eq!(inbox.kinds(), [NotificationKind::Test]);
    *inbox.room.lock().unwrap() = 100;
    pass(&group, &time, seconds(1));
    assert_eq!(inbox.kinds()[1..], [NotificationKind::Launch; 2]);
    *inbox.room.lock().unwrap() = 0;
    group.set_desired(9, Cooldown::Ignore).unwrap();
    assert_eq!(group.stats().notifications_dropped, 4);
    *inbox.room.lock().unwrap() = 100;
    pass(&group, &time, seconds(1));
    assert_eq!(inbox.kinds().len(), 6);
}

#[test]
fn a_hook_is_answered_through_the_handle() {
    let inbox = Inbox::new(100);
    let hook = LifecycleHook::new("check", HookTransition::Launching);
    let config = GroupConfig {
        hooks: vec![hook],
        ..config(1, 3)
    };
    let (group, time) = built(Group::builder(config, Recorder::new()).notifications(inbox.clone()));
    assert_eq!(inbox.kinds(), [NotificationKind::Hook]);
    let one = ids(&group, State::PendingWait)[0];
    pass(&group, &time, seconds(3_000));
    let due = group.heartbeat(one, "check").unwrap();
    assert_eq!(due, time.now() + seconds(3_600));
    group
        .complete_hook(one, "check", HookResult::Continue)
        .unwrap();
    assert_eq!(group.stats().in_service, 1);
    group.delete_hook("check").unwrap();
    group.set_desired(2, Cooldown::Ignore).unwrap();
    assert_eq!(group.stats().in_service, 2);
}

#[test]
fn a_warm_pool_is_kept_by_the_provisioner() {
    let recorder = Recorder::new();
    recorder.script(|script| script.start = seconds(60));
    let config = GroupConfig {
        warm_pool: Some(WarmPoolConfig {
            state: WarmState::Stopped,
            ..WarmPoolConfig::default()
        }),
        ..config(1, 3)
    };
    let (group, time) = built(Group::builder(config, recorder.clone()));
    pass(&group, &time, seconds(120));
    assert_eq!(ids(&group, State::WarmedStopped).len(), 2);
    assert_eq!(recorder.running().len(), 1);
    recorder.script(|script| script.start = seconds(2));
    group.set_desired(3, Cooldown::Ignore).unwrap();
    pass(&group, &time, seconds(2));
    assert_eq!(group.stats().in_service, 3);
    let resumed = recorder.told();
    let resumed = resumed
        .iter()
        .filter(|told| matches!(told, Told::Resume(_)));
    assert_eq!(resumed.count(), 2);
}

#[test]
fn a_provisioner_that_refuses_leaves_a_reason_and_no_stuck_group() {
    let recorder = Recorder::new();
    recorder.script(|script| {
        script.refusing_zones.insert("a".into());
        script.failing_zones.insert("b".into());
    });
    let (group, time) = built(Group::builder(
        config(2, 3).in_zones(["a", "b"]),
        recorder.clone(),
    ));
    pass(&group, &time, seconds(600));
    assert_eq!(group.stats().in_service, 0);
    let explanation = group.explain();
    assert!(
        matches!(explanation.obstacles[..], [Obstacle::BackingOff { .. }]),
        "{explanation}"
    );
    let reasons: std::collections::BTreeSet<_> = group
        .activities()
        .into_iter()
        .filter(|activity| activity.status == ActivityStatus::Failed)
        .filter_map(|activity| activity.reason)
        .collect();
    assert_eq!(
        reasons.into_iter().collect::<Vec<_>>(),
        ["the script says so", "the zone is full"]
    );
    assert!(
        recorder.told().len() < 60,
        "{} tries",
        recorder.told().len()
    );
    recorder.script(|script| {
        script.refusing_zones.clear();
        script.failing_zones.clear();
    });
    pass(&group, &time, seconds(301));
    assert_eq!(group.stats().in_service, 2);
}

#[test]
fn a_refresh_goes_through_the_handle() {
    let (group, time) = built(Group::builder(config(4, 4), Recorder::new()));
    let version = group.add_version(sim_scaling::TemplateVersion::default());
    group.set_default_version(version).unwrap();
    assert_eq!(group.start_refresh(RefreshConfig::default()).unwrap(), 1);
    pass(&group, &time, seconds(60));
    let refresh = group.refresh().unwrap();
    assert_eq!(refresh.percentage, 100);
    assert!(
        group
            .instances()
            .iter()
            .all(|instance| instance.version == 2)
    );
}

#[test]
fn run_serves_what_is_due_and_ends_with_the_group() {
    let recorder = Recorder::new();
    recorder.script(|script| script.start = seconds(90));
    let (clock, time) = virtual_clock();
    let group = Group::builder(config(2, 4), recorder.clone())
        .clock(clock)
        .build()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let driver = tokio::spawn({
            let group = group.clone();
            async move { group.run().await }
        });
        time.run_to(time.now() + seconds(89)).await;
        assert_eq!(group.stats().in_service, 0);
        time.run_to(time.now() + seconds(1)).await;
        assert_eq!(group.stats().in_service, 2);
        // A report that nobody asked for wakes the driver.
        recorder.crash(group.instances()[0].id, "exit 1");
        time.run_to(time.now() + seconds(1)).await;
        assert_eq!(group.stats().ended_alone, 1);
        time.run_to(time.now() + seconds(200)).await;
        assert_eq!(group.stats().in_service, 2);
        group.delete(Force::Yes).unwrap();
        driver.await.unwrap();
        assert!(group.is_gone());
        assert!(recorder.running().is_empty());
    });
}

#[test]
fn dropping_a_run_loses_nothing_and_closing_ends_it() {
    let (clock, time) = virtual_clock();
    let recorder = Recorder::new();
    recorder.script(|script| script.start = seconds(10));
    let group = Group::builder(config(1, 4), recorder)
        .clock(clock)
        .build()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        assert_eq!(group.run().now_or_never(), None);
        time.advance(seconds(20));
        assert_eq!(group.stats().in_service, 0, "nobody drives it");
        let driver = tokio::spawn({
            let group = group.clone();
            async move { group.run().await }
        });
        time.run_to(time.now() + seconds(1)).await;
        assert_eq!(group.stats().in_service, 1);
        group.close();
        driver.await.unwrap();
        assert_eq!(group.stats().in_service, 1);
    });
}

#[test]
fn threads_may_ask_at_once() {
    let (clock, time) = virtual_clock();
    let recorder = Recorder::new();
    let group = Group::builder(config(0, 50), recorder.clone())
        .clock(clock)
        .build()
        .unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let group = &group;
            scope.spawn(move || {
                for n in 0..50 {
                    group
                        .set_desired((thread * 13 + n) % 50, Cooldown::Ignore)
                        .unwrap();
                }
            });
        }
    });
    group.set_desired(7, Cooldown::Ignore).unwrap();
    pass(&group, &time, seconds(60));
    assert_eq!(group.stats().in_service, 7);
    assert_eq!(recorder.running().len(), 7);
}

#[test]
fn a_protected_group_is_not_deleted() {
    let config = GroupConfig {
        deletion_protection: sim_scaling::DeletionProtection::PreventForceDeletion,
        ..config(0, 1)
    };
    let (group, _) = built(Group::builder(config, Recorder::new()));
    group.delete(Force::Yes).unwrap_err();
    group.delete(Force::No).unwrap();
    assert!(group.is_gone());
}

/// A sink that calls the group back, or panics.
struct Caller {
    group: std::sync::OnceLock<Group<Recorder>>,
    panics: std::sync::atomic::AtomicBool,
}

impl sim_core::seam::Sink<sim_scaling::Notification> for Caller {
    fn try_deliver(
        &self,
        item: sim_scaling::Notification,
    ) -> Result<(), sim_core::seam::Refused<sim_scaling::Notification>> {
        use std::sync::atomic::Ordering::Relaxed;
        assert!(!self.panics.swap(false, Relaxed), "a sink that panics");
        if let (Some(group), sim_scaling::Notification::Launched { instance, .. }) =
            (self.group.get(), item)
        {
            group.protect(&[instance], Protection::On).unwrap();
        }
        Ok(())
    }
}

#[test]
fn foreign_code_may_call_the_group_and_may_panic() {
    let sink = Arc::new(Caller {
        group: std::sync::OnceLock::new(),
        panics: false.into(),
    });
    let (group, time) =
        built(Group::builder(config(0, 5), Recorder::new()).notifications(sink.clone()));
    sink.group.set(group.clone()).unwrap();
    group.set_desired(2, Cooldown::Ignore).unwrap();
    assert!(
        group
            .instances()
            .iter()
            .all(|instance| instance.is_protected)
    );
    sink.panics
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        group.set_desired(3, Cooldown::Ignore)
    }));
    panicked.unwrap_err();
    group.set_desired(4, Cooldown::Ignore).unwrap();
    pass(&group, &time, seconds(1));
    assert_eq!(group.stats().in_service, 4);
}

#[test]
fn scheduled_actions_change_limits_and_capacity_unless_they_are_suspended() {
    use sim_core::time::Timestamp;
    use sim_scaling::policy::scheduled::{ScheduledAction, ScheduledConfig};

    let action = |name: &str, at: i64, bounds: (u32, u32), desired| ScheduledAction {
        name: name.into(),
        start: Some(Timestamp::from_unix_seconds(at)),
        end: None,
        recurrence: None,
        time_zone: None,
        min: Some(bounds.0),
        max: Some(bounds.1),
        desired,
    };
    let schedule = || {
        PolicyConfig::Scheduled(ScheduledConfig {
            actions: vec![
                action("open", 600, (4, 8), Some(6)),
                action("close", 1_200, (0, 2), Some(1)),
            ],
        })
    };
    let (group, time) =
        built(Group::builder(config(1, 3), Recorder::new()).policy("hours", schedule()));
    pass(&group, &time, seconds(599));
    assert_eq!(group.stats().desired, 1);
    pass(&group, &time, seconds(61));
    let stats = group.stats();
    assert_eq!(
        (stats.min, stats.max, stats.desired),
        (4, 8, 6),
        "{}",
        group.explain()
    );
    pass(&group, &time, seconds(600));
    let stats = group.stats();
    assert_eq!(
        (stats.min, stats.max, stats.desired),
        (0, 2, 1),
        "{}",
        group.explain()
    );

    let (group, time) =
        built(Group::builder(config(1, 3), Recorder::new()).policy("hours", schedule()));
    group.suspend(&[Process::ScheduledActions]);
    pass(&group, &time, seconds(2_000));
    let stats = group.stats();
    assert_eq!((stats.min, stats.max, stats.desired), (1, 3, 1));
    group.resume(&[Process::ScheduledActions]);
    pass(&group, &time, seconds(60));
    let stats = group.stats();
    assert_eq!((stats.min, stats.max, stats.desired), (1, 3, 1));
}

#[test]
fn a_schedule_that_moves_one_limit_past_the_other_moves_both() {
    use sim_core::time::Timestamp;
    use sim_scaling::policy::scheduled::{ScheduledAction, ScheduledConfig};

    for (bounds, expected) in [
        ((Some(10), None), (10, 10, 10)),
        ((None, Some(1)), (2, 2, 2)),
    ] {
        let action = ScheduledAction {
            name: "one".into(),
            start: Some(Timestamp::from_unix_seconds(600)),
            min: bounds.0,
            max: bounds.1,
            ..ScheduledAction::default()
        };
        let schedule = PolicyConfig::Scheduled(ScheduledConfig {
            actions: vec![action],
        });
        let (group, time) =
            built(Group::builder(config(2, 5), Recorder::new()).policy("hours", schedule));
        pass(&group, &time, seconds(700));
        let stats = group.stats();
        assert_eq!((stats.min, stats.max, stats.desired), expected);
    }
}
