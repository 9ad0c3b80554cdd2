//! A new version for all instances: in steps, with a checkpoint, and back when an alarm fires. In virtual time.
//!
//! Run with `cargo run -p sim-scaling --example refresh`.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use sim_core::clock::{Clock, VirtualClock};
use sim_core::seam::Timed;
use sim_core::time::{Instant, Timestamp};
use sim_scaling::provisioner::Recorder;
use sim_scaling::{
    Fires, Group, GroupConfig, LaunchTemplate, MaintenancePolicy, RefreshConfig, RefreshStatus,
    TemplateVersion, VersionChoice,
};

fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

/// Lets time pass, from deadline to deadline.
fn pass(group: &Group<Recorder>, time: &VirtualClock, duration: Duration) {
    let end = time.now() + duration;
    while let Some(next) = group.next_deadline()
        && next <= end
    {
        time.advance_to(next);
        group.advance(time.now());
    }
    time.advance_to(end);
    group.advance(end);
}

fn show(group: &Group<Recorder>, now: Instant) {
    let mut versions: BTreeMap<u32, usize> = BTreeMap::new();
    for instance in group.instances() {
        *versions.entry(instance.version).or_default() += 1;
    }
    let status = group
        .refresh()
        .map(|refresh| (refresh.status, refresh.percentage));
    let minute = (now - Instant::ORIGIN).as_secs() / 60;
    println!("minute {minute:>3}: instances by version {versions:?}, refresh {status:?}");
}

fn main() -> Result<(), Box<dyn Error>> {
    let (clock, time) = Clock::virtual_at(Timestamp::UNIX_EPOCH);
    let recorder = Recorder::new();
    recorder.script(|script| script.start = Duration::from_secs(90));
    let config = GroupConfig {
        template: LaunchTemplate::new("web", [("image", "web:1")]),
        version: VersionChoice::Latest,
        // Never fewer than ten ready, and at most two more while one takes another's place.
        maintenance: Some(MaintenancePolicy {
            min_healthy: 100,
            max_healthy: 120,
        }),
        ..GroupConfig::new("web", 10, 20).in_zones(["a", "b", "c"])
    };
    let group = Group::builder(config, recorder).clock(clock).build()?;
    pass(&group, &time, minutes(5));
    show(&group, time.now());

    let refresh = RefreshConfig {
        checkpoints: vec![20, 100],
        checkpoint_delay: minutes(10),
        alarms: vec!["errors".into()],
        bake_time: minutes(15),
        auto_rollback: true,
        ..RefreshConfig::default()
    };
    for (image, works) in [("web:2", true), ("web:3", false)] {
        group.add_version(TemplateVersion {
            parameters: [("image".to_owned(), image.to_owned())].into(),
            ..TemplateVersion::default()
        });
        println!("\n{image}");
        group.start_refresh(refresh.clone())?;
        for step in 0..14 {
            if step == 2 && !works {
                println!("an alarm fires");
                group.set_alarm("errors", Fires::Yes);
            }
            pass(&group, &time, minutes(4));
            show(&group, time.now());
            let active = group
                .refresh()
                .is_some_and(|refresh| refresh.status.is_active());
            if !active {
                break;
            }
        }
        group.set_alarm("errors", Fires::No);
    }
    let ended = group.refresh().map(|refresh| refresh.status);
    assert_eq!(ended, Some(RefreshStatus::RollbackSuccessful));
    assert!(
        group
            .instances()
            .iter()
            .all(|instance| instance.version == 2)
    );
    Ok(())
}
