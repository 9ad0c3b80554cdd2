//! The keeper: the thread beside the workers that checks targets and writes logs, so that no request waits for either.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use sim_core::sync::Arc;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::http::group::{Endpoint, Group};
use super::log::{CheckRecord, Log};
use super::worker::Stage;
use crate::check::Checker;

/// How long a line of a log may wait for the next round of writing. Chosen: a tail on the file feels immediate, and a busy
/// log is written in large pieces.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// Checks the targets of the groups, notes each check in a log, and writes the logs until the end of the proxy.
pub(crate) fn keep(
    logs: &[Log],
    noted: Option<&Log>,
    groups: watch::Receiver<Arc<[Arc<Group>]>>,
    stage: watch::Receiver<Stage>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(tend(logs, noted, groups, stage));
    logs.iter().for_each(Log::flush);
    runtime.shutdown_background();
    Ok(())
}

async fn tend(
    logs: &[Log],
    noted: Option<&Log>,
    mut groups: watch::Receiver<Arc<[Arc<Group>]>>,
    mut stage: watch::Receiver<Stage>,
) {
    let mut checks: JoinSet<()> = JoinSet::new();
    let mut running: BTreeMap<u64, AbortHandle> = BTreeMap::new();
    let mut tick = tokio::time::interval(FLUSH_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut changed = true;
    loop {
        if *stage.borrow_and_update() == Stage::Ended {
            return;
        }
        if changed {
            let present = Arc::clone(&groups.borrow_and_update());
            running.retain(|serial, check| {
                let stays = present.iter().any(|group| group.serial == *serial);
                if !stays {
                    check.abort();
                }
                stays
            });
            for group in present.iter() {
                // A group without a check has no checker.
                if !running.contains_key(&group.serial)
                    && let Ok(checker) =
                        Checker::new(&group.balancer, |target: &Arc<Endpoint>| target.checked())
                {
                    let checker = match noted {
                        Some(log) => note(checker, group, log),
                        None => checker,
                    };
                    let check = checks.spawn(async move {
                        let never = checker.run().await;
                        match never {}
                    });
                    running.insert(group.serial, check);
                }
            }
        }
        changed = false;
        tokio::select! {
            told = groups.changed() => changed = told.is_ok(),
            told = stage.changed() => if told.is_err() { return; },
            Some(_) = checks.join_next() => {}
            _ = tick.tick(), if !logs.is_empty() => logs.iter().for_each(Log::flush),
        }
    }
}

/// Has a line written of each check.
fn note(checker: Checker<Arc<Endpoint>>, group: &Group, log: &Log) -> Checker<Arc<Endpoint>> {
    let (name, log) = (Arc::clone(&group.name), log.clone());
    let clock = group.balancer.clock().clone();
    checker.on_checked(move |checked| {
        log.write(&CheckRecord {
            time: clock.timestamp(checked.at),
            group: &name,
            target: checked.id.as_str(),
            result: checked.result,
            took: checked.took,
        });
    })
}
