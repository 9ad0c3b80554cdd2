//! Child processes that are kept alive: one is killed from outside, and another takes its place.
//!
//! Run with `cargo run -p sim-scaling --example processes --features tokio`.

use std::error::Error;
use std::time::Duration;

use sim_scaling::provisioner::{ProcessTemplate, Processes};
use sim_scaling::{Backoff, Cooldown, Force, Group, GroupConfig, State};
use tokio::runtime::Handle;

type Kids = Group<Processes>;

fn pids(group: &Kids) -> Vec<u32> {
    group
        .instances()
        .into_iter()
        .filter(|instance| instance.state == State::InService)
        .filter_map(|instance| group.endpoint(instance.id))
        .map(|process| process.pid)
        .collect()
}

/// Waits until as many are in service, looking every few milliseconds.
async fn until(group: &Kids, so: impl Fn(&Kids) -> bool) {
    while !so(group) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = GroupConfig {
        // A process that dies young is started again after this, and twice as long each time.
        backoff: Backoff {
            first: Duration::from_millis(10),
            ..Backoff::default()
        },
        ..GroupConfig::new("kids", 0, 4)
    };
    let template = ProcessTemplate::new("sleep").args(["600"]);
    let group = Group::new(config, Processes::new(Handle::current(), template))?;
    let driver = tokio::spawn({
        let group = group.clone();
        async move { group.run().await }
    });

    group.set_desired(3, Cooldown::Ignore)?;
    until(&group, |group| group.stats().in_service == 3).await;
    let before = pids(&group);
    println!("three processes: {before:?}");

    let victim = before[0].to_string();
    tokio::process::Command::new("kill")
        .args(["-9", &victim])
        .status()
        .await?;
    until(&group, |group| {
        group.stats().in_service == 3 && group.stats().ended_alone == 1
    })
    .await;
    println!("{victim} was killed; now {:?}", pids(&group));

    group.delete(Force::Yes)?;
    driver.await?;
    for activity in group.activities() {
        println!(
            "{:?} {}: {} ({:?})",
            activity.kind, activity.instance, activity.cause, activity.status
        );
    }
    assert!(group.is_gone());
    Ok(())
}
