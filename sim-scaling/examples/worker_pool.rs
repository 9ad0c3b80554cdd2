//! A pool of tokio tasks that follows its backlog, for an hour that passes at once.
//!
//! Run with `cargo run -p sim-scaling --example worker_pool --features tokio`.

use std::error::Error;
use std::time::Duration;

use sim_core::clock::Clock;
use sim_core::seam::{Depth, Gauge};
use sim_core::sync::Arc;
use sim_core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use sim_scaling::policy::target::TargetConfig;
use sim_scaling::provisioner::{Tasks, WorkerContext};
use sim_scaling::{Force, Group, GroupConfig, PolicyConfig, Query};
use tokio::runtime::Handle;
use tokio::time::sleep;

/// What stands before the workers. Any queue that is a `Gauge` would do.
#[derive(Default)]
struct Backlog {
    waiting: AtomicU64,
    in_flight: AtomicU64,
    done: AtomicU64,
}

impl Gauge for Backlog {
    fn depth(&self) -> Depth {
        Depth {
            waiting: self.waiting.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            ..Depth::default()
        }
    }

    fn finished(&self) -> Option<u64> {
        Some(self.done.load(Relaxed))
    }
}

/// Does a job a second until it is told to stop, and finishes the one that it has.
async fn work(context: WorkerContext, backlog: Arc<Backlog>) {
    while !context.is_stopping() {
        let taken = backlog
            .waiting
            .fetch_update(Relaxed, Relaxed, |waiting| waiting.checked_sub(1));
        if taken.is_ok() {
            backlog.in_flight.fetch_add(1, Relaxed);
        }
        sleep(Duration::from_secs(1)).await;
        if taken.is_ok() {
            backlog.in_flight.fetch_sub(1, Relaxed);
            backlog.done.fetch_add(1, Relaxed);
        }
    }
}

// A paused clock goes on when nothing else is to be done: the hour takes no time.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    tokio::time::pause();
    let backlog = Arc::new(Backlog::default());
    let workers = Tasks::new(Handle::current(), {
        let backlog = backlog.clone();
        move |context| work(context, backlog.clone())
    });

    // What comes in a second, and the backlog within a minute, for each worker: it does one a second, four fifths of the
    // time. The backlog alone would send the workers away as soon as they keep up.
    let load = "(jobs.arrived + jobs.waiting / 60) / max(group.in_service, 1)";
    let mut target = TargetConfig::new(Query::new(load)?, 0.8);
    (target.out_periods, target.in_periods) = (1, 3);
    let group = Group::builder(GroupConfig::new("workers", 1, 20), workers)
        .clock(Clock::tokio())
        .gauge("jobs", backlog.clone())
        .policy("load", PolicyConfig::TargetTracking(target))
        .build()?;
    let driver = tokio::spawn({
        let group = group.clone();
        async move { group.run().await }
    });

    println!("minute  a second  backlog  workers");
    let mut sent = 0;
    for minute in 0..60_u64 {
        // Quiet, a rush of half an hour, quiet again.
        let rate = if (10..40).contains(&minute) { 12 } else { 1 };
        for _ in 0..60 {
            backlog.waiting.fetch_add(rate, Relaxed);
            sent += rate;
            sleep(Duration::from_secs(1)).await;
        }
        if minute % 5 == 4 {
            let (depth, workers) = (backlog.depth().total(), group.stats().in_service);
            println!("{:>6}  {rate:>8}  {depth:>7}  {workers:>7}", minute + 1);
        }
    }
    println!("\n{}", group.explain());

    group.delete(Force::Yes)?;
    driver.await?;
    let left = backlog.depth().total();
    println!(
        "{sent} sent, {} done, {left} left",
        backlog.done.load(Relaxed)
    );
    assert_eq!(backlog.done.load(Relaxed) + left, sent, "no job was lost");
    Ok(())
}
