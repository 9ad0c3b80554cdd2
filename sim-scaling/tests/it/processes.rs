//! Instances as child processes: real ones, and no test waits for the clock.

use std::sync::Arc;
use std::time::Duration;

use sim_core::clock::Clock;
use sim_scaling::provisioner::{ProcessTemplate, Processes};
use sim_scaling::{
    Activity, ActivityStatus, Cooldown, Force, Group, GroupConfig, LaunchTemplate, Notification,
    NotificationKind, WarmPoolConfig, WarmState,
};
use tokio::runtime::Handle;

use crate::rig::Inbox;

/// Asks until it is so: what children do takes real time, however little.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    // Turns of the runtime, with I/O polled between them; far more than are ever needed.
    for _ in 0..2_000_000_u32 {
        if so() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never: {what}");
}

fn shell(script: &str) -> ProcessTemplate {
    ProcessTemplate::new("sh").args(["-c", script])
}

fn driven(
    config: GroupConfig,
    template: ProcessTemplate,
    inbox: &Arc<Inbox>,
) -> (Group<Processes>, tokio::task::JoinHandle<()>) {
    let group = Group::builder(config, Processes::new(Handle::current(), template))
        .clock(Clock::system())
        .notifications(inbox.clone())
        .build()
        .unwrap();
    let driver = tokio::spawn({
        let group = group.clone();
        async move { group.run().await }
    });
    (group, driver)
}

fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name in parentheses.
    !matches!(state_of(&stat), None | Some('Z' | 'X'))
}

fn state_of(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state_of(&stat) == Some('T')
}

fn pids(group: &Group<Processes>) -> Vec<u32> {
    let instances = group.instances();
    let known = instances.iter().filter_map(|i| group.endpoint(i.id));
    known.map(|process| process.pid).collect()
}

fn ends(inbox: &Inbox) -> usize {
    let kinds = inbox.kinds();
    kinds
        .iter()
        .filter(|k| **k == NotificationKind::Terminate)
        .count()
}

#[tokio::test]
async fn processes_are_started_and_end_at_the_term_signal() {
    let inbox = Inbox::new(100);
    let (group, driver) = driven(
        GroupConfig::new("kids", 3, 5),
        ProcessTemplate::new("sleep").args(["600"]),
        &inbox,
    );
    until("three run", || group.stats().in_service == 3).await;
    let pids = pids(&group);
    assert_eq!(pids.len(), 3);
    assert!(pids.iter().all(|&pid| alive(pid)));
    group.set_limits(0, 5).unwrap();
    group.set_desired(1, Cooldown::Ignore).unwrap();
    until("two have ended", || ends(&inbox) == 2).await;
    assert_eq!(pids.iter().filter(|&&pid| alive(pid)).count(), 1);
    group.delete(Force::Yes).unwrap();
    driver.await.unwrap();
    assert!(pids.iter().all(|&pid| !alive(pid)));
}

#[tokio::test]
async fn a_process_that_exits_is_replaced_and_its_status_is_recorded() {
    let inbox = Inbox::new(100);
    let config = GroupConfig {
        backoff: sim_scaling::Backoff {
            first: Duration::from_millis(1),
            longest: Duration::from_millis(1),
            ..Default::default()
        },
        ..GroupConfig::new("kids", 1, 1)
    };
    // The first exits with 3, later ones stay.
    let script = "case $INSTANCE_ID in *1) exit 3;; *) exec sleep 600;; esac";
    let (group, driver) = driven(config, shell(script), &inbox);
    until("it is replaced", || {
        group
            .instances()
            .first()
            .is_some_and(|i| i.id.number() == 2)
            && group.stats().in_service == 1
    })
    .await;
    let cause = |activity: &Activity| activity.cause.to_string();
    let causes: Vec<_> = group.activities().iter().map(cause).collect();
    assert!(
        causes.contains(&"ended by itself: exit 3".to_owned()),
        "{causes:?}"
    );
    group.delete(Force::Yes).unwrap();
    driver.await.unwrap();
}

#[tokio::test]
async fn what_ignores_the_signal_is_killed_after_its_grace() {
    let inbox = Inbox::new(100);
    let mut template = shell("trap '' TERM; while :; do sleep 600; done");
    template.grace = Duration::from_millis(30);
    let (group, driver) = driven(GroupConfig::new("kids", 1, 1), template, &inbox);
    until("it runs", || group.stats().in_service == 1).await;
    let pid = pids(&group)[0];
    group.delete(Force::Yes).unwrap();
    driver.await.unwrap();
    assert!(!alive(pid));
    assert_eq!(ends(&inbox), 1);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_a_recorded_reason() {
    let inbox = Inbox::new(100);
    let template = ProcessTemplate::new("/no/such/program");
    let (group, driver) = driven(GroupConfig::new("kids", 1, 1), template, &inbox);
    until("it has failed", || group.stats().launch_failures > 0).await;
    let failed = group.activities().remove(0);
    assert_eq!(failed.status, ActivityStatus::Failed);
    let reason = failed.reason.unwrap();
    assert!(reason.starts_with("/no/such/program: "), "{reason}");
    assert!(matches!(
        inbox.taken.lock().unwrap()[0],
        Notification::LaunchFailed { .. }
    ));
    group.delete(Force::Yes).unwrap();
    driver.await.unwrap();
}

#[tokio::test]
async fn parameters_of_the_template_are_in_the_environment() {
    let inbox = Inbox::new(100);
    let config = GroupConfig {
        template: LaunchTemplate::new("t", [("GREETING", "hello")]),
        ..GroupConfig::new("kids", 1, 1).in_zones(["z9"])
    };
    let script = "[ \"$GREETING $INSTANCE_ZONE $TEMPLATE_VERSION\" = 'hello z9 1' ] && exec sleep 600; exit 9";
    let (group, driver) = driven(config, shell(script), &inbox);
    until("it has become sleep", || {
        pids(&group).first().is_some_and(|pid| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
            name.is_ok_and(|name| name.trim() == "sleep")
        })
    })
    .await;
    assert_eq!(group.stats().ended_alone, 0);
    group.delete(Force::Yes).unwrap();
    driver.await.unwrap();
}

#[tokio::test]
async fn a_hibernated_process_stands_still_and_goes_on() {
    let inbox = Inbox::new(100);
    let config = GroupConfig {
        warm_pool: Some(WarmPoolConfig {
            state: WarmState::Hibernated,
            ..WarmPoolConfig::default()
        }),
        ..GroupConfig::new("kids", 0, 1)
    };
    let template = ProcessTemplate::new("sleep").args(["600"]);
    let (group, driver) = driven(config, template, &inbox);
    until("it is warm", || group.stats().warm_ready == 1).await;
    let pid = pids(&group)[0];
    until("it stands still", || is_stopped(pid)).await;
    group.set_desired(1, Cooldown::Ignore).unwrap();
    until("it works", || group.stats().in_service == 1).await;
    until("it goes on", || !is_stopped(pid)).await;
    assert_eq!(pids(&group), [pid], "the same process");
    group.delete(Force::Yes).unwrap();
    driver.await.unwrap();
    assert!(!alive(pid));
}
