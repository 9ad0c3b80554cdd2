//! Workers as tokio tasks, in virtual time: tokio's paused clock drives the group and its workers alike.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sim_core::clock::Clock;
use sim_core::seam::{Depth, Gauge};
use sim_scaling::policy::target::TargetConfig;
use sim_scaling::provisioner::{Tasks, WorkerContext};
use sim_scaling::{
    Backoff, Cooldown, Decrement, Force, Group, GroupConfig, PolicyConfig, Query, State,
    WarmPoolConfig, WarmState,
};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::rig::seconds;

/// Jobs that wait, and that were done.
#[derive(Default)]
struct Jobs {
    waiting: AtomicU64,
    busy: AtomicU64,
    done: AtomicU64,
}

impl Jobs {
    fn take(&self) -> bool {
        let taken = self
            .waiting
            .fetch_update(Relaxed, Relaxed, |waiting| waiting.checked_sub(1));
        taken.is_ok()
    }
}

impl Gauge for Jobs {
    fn depth(&self) -> Depth {
        Depth {
            waiting: self.waiting.load(Relaxed),
            in_flight: self.busy.load(Relaxed),
            ..Depth::default()
        }
    }

    fn finished(&self) -> Option<u64> {
        Some(self.done.load(Relaxed))
    }
}

/// A worker that does a job in a second.
async fn work(context: WorkerContext, jobs: Arc<Jobs>) {
    while !context.is_stopping() {
        if jobs.take() {
            jobs.busy.fetch_add(1, Relaxed);
            sleep(seconds(1)).await;
            jobs.busy.fetch_sub(1, Relaxed);
            jobs.done.fetch_add(1, Relaxed);
        } else {
            tokio::select! {
                () = context.stopped() => return,
                () = sleep(seconds(1)) => {}
            }
        }
    }
}

fn drive<E: Clone + Send + Sync + 'static>(group: &Group<Tasks<E>>) -> tokio::task::JoinHandle<()> {
    let group = group.clone();
    tokio::spawn(async move { group.run().await })
}

#[tokio::test(start_paused = true)]
async fn a_worker_pool_follows_its_queue_and_loses_no_job() {
    let jobs = Arc::new(Jobs::default());
    let workers = Tasks::new(Handle::current(), {
        let jobs = jobs.clone();
        move |context| work(context, jobs.clone())
    });
    let per_worker = Query::new("jobs.backlog / max(group.in_service, 1)").unwrap();
    let mut target = TargetConfig::new(per_worker, 30.0);
    (target.out_periods, target.in_periods) = (1, 3);
    let group = Group::builder(GroupConfig::new("pool", 1, 12), workers)
        .clock(Clock::tokio())
        .gauge("jobs", jobs.clone())
        .policy("backlog", PolicyConfig::TargetTracking(target))
        .build()
        .unwrap();
    let driver = drive(&group);
    // Eight a second come for ten minutes.
    let mut most = 0;
    for _ in 0..600 {
        jobs.waiting.fetch_add(8, Relaxed);
        sleep(seconds(1)).await;
        most = most.max(group.stats().in_service);
    }
    assert!((8..=12).contains(&most), "{most}: {}", group.explain());
    sleep(seconds(1_800)).await;
    assert_eq!(group.stats().in_service, 1, "{}", group.explain());
    assert_eq!(
        jobs.done.load(Relaxed),
        4_800,
        "those that left finished their job"
    );
    group.delete(Force::Yes).unwrap();
    driver.await.unwrap();
    assert_eq!(group.provisioner().running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_worker_has_its_grace_and_is_aborted_then() {
    let ends = Arc::new(Mutex::new(Vec::new()));
    struct Seen(Arc<Mutex<Vec<&'static str>>>, &'static str);
    impl Drop for Seen {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(self.1);
        }
    }
    let workers = Tasks::new(Handle::current(), {
        let ends = ends.clone();
        move |context| {
            let seen = Seen(ends.clone(), "aborted");
            async move {
                let mut seen = seen;
                context.stopped().await;
                // The first is quick, the second takes too long.
                let needs = if context.id().number() == 1 { 9 } else { 11 };
                sleep(seconds(needs)).await;
                seen.1 = "finished";
            }
        }
    })
    .grace(seconds(10));
    let group = Group::builder(GroupConfig::new("pool", 0, 2), workers)
        .clock(Clock::tokio())
        .build()
        .unwrap();
    let driver = drive(&group);
    group.set_desired(2, Cooldown::Ignore).unwrap();
    sleep(seconds(1)).await;
    group.set_desired(0, Cooldown::Ignore).unwrap();
    sleep(seconds(20)).await;
    assert_eq!(*ends.lock().unwrap(), ["finished", "aborted"]);
    assert_eq!(group.stats().total, 0);
    group.delete(Force::No).unwrap();
    driver.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_panics_is_replaced_and_the_reason_is_recorded() {
    let workers = Tasks::new(Handle::current(), |context| async move {
        if context.id().number() < 3 {
            sleep(seconds(5)).await;
            panic!("no luck");
        }
        context.stopped().await;
    });
    let config = GroupConfig {
        backoff: Backoff {
            first: seconds(2),
            ..Backoff::default()
        },
        ..GroupConfig::new("pool", 1, 1)
    };
    let group = Group::builder(config, workers)
        .clock(Clock::tokio())
        .build()
        .unwrap();
    let driver = drive(&group);
    // 5 s, a delay of 2, 5 s, a delay of 4.
    sleep(seconds(15)).await;
    assert_eq!(group.stats().in_service, 0);
    sleep(seconds(2)).await;
    assert_eq!(group.instances()[0].id.number(), 3);
    let causes: Vec<_> = group
        .activities()
        .iter()
        .map(|a| a.cause.to_string())
        .collect();
    let panicked = "ended by itself: panicked: no luck";
    assert_eq!(causes.iter().filter(|cause| *cause == panicked).count(), 2);
    group.delete(Force::Yes).unwrap();
    driver.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_worker_is_given_work_through_its_endpoint() {
    let sum = Arc::new(AtomicU64::new(0));
    let workers = Tasks::serving(Handle::current(), {
        let sum = sum.clone();
        move |context| {
            let sum = sum.clone();
            let (sender, mut receiver) = mpsc::channel::<u64>(8);
            let work = async move {
                loop {
                    tokio::select! {
                        Some(n) = receiver.recv() => { sum.fetch_add(n, Relaxed); }
                        () = context.stopped() => return,
                    }
                }
            };
            (sender, work)
        }
    });
    let group = Group::builder(GroupConfig::new("pool", 3, 3), workers)
        .clock(Clock::tokio())
        .build()
        .unwrap();
    let driver = drive(&group);
    sleep(seconds(1)).await;
    for instance in group.instances() {
        let endpoint = group.endpoint(instance.id).unwrap();
        endpoint.send(instance.id.number()).await.unwrap();
    }
    sleep(seconds(1)).await;
    assert_eq!(sum.load(Relaxed), 6);
    group.delete(Force::Yes).unwrap();
    driver.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn warm_workers_are_made_anew_or_thawed() {
    for (state, started) in [(WarmState::Stopped, 4), (WarmState::Hibernated, 3)] {
        let starts = Arc::new(AtomicU64::new(0));
        let ticks = Arc::new(AtomicU64::new(0));
        let workers = Tasks::new(Handle::current(), {
            let (starts, ticks) = (starts.clone(), ticks.clone());
            move |context| {
                let (starts, ticks) = (starts.clone(), ticks.clone());
                async move {
                    starts.fetch_add(1, Relaxed);
                    while !context.is_stopping() {
                        context.active().await;
                        ticks.fetch_add(1, Relaxed);
                        tokio::select! {
                            () = context.stopped() => {}
                            () = sleep(seconds(1)) => {}
                        }
                    }
                }
            }
        });
        let config = GroupConfig {
            warm_pool: Some(WarmPoolConfig {
                state,
                max_prepared: Some(3),
                ..WarmPoolConfig::default()
            }),
            ..GroupConfig::new("pool", 0, 3)
        };
        let group = Group::builder(config, workers)
            .clock(Clock::tokio())
            .build()
            .unwrap();
        let driver = drive(&group);
        sleep(seconds(5)).await;
        assert_eq!(group.stats().warm_ready, 3);
        let before = ticks.load(Relaxed);
        sleep(seconds(60)).await;
        assert_eq!(ticks.load(Relaxed), before, "they stand still");
        group.set_desired(1, Cooldown::Ignore).unwrap();
        sleep(seconds(10)).await;
        assert_eq!(group.stats().in_service, 1);
        assert!(ticks.load(Relaxed) >= before + 9);
        assert_eq!(starts.load(Relaxed), started, "{state:?}");
        group.delete(Force::Yes).unwrap();
        driver.await.unwrap();
        assert_eq!(group.provisioner().running(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_was_given_away_outlives_the_group_and_the_others_do_not() {
    let stopped = Arc::new(AtomicU64::new(0));
    struct Count(Arc<AtomicU64>);
    impl Drop for Count {
        fn drop(&mut self) {
            self.0.fetch_add(1, Relaxed);
        }
    }
    let workers = Tasks::new(Handle::current(), {
        let stopped = stopped.clone();
        move |context| {
            let count = Count(stopped.clone());
            async move {
                context.stopped().await;
                drop(count);
            }
        }
    });
    let group = Group::builder(GroupConfig::new("pool", 0, 3), workers)
        .clock(Clock::tokio())
        .build()
        .unwrap();
    group.set_desired(3, Cooldown::Ignore).unwrap();
    let one = group.instances()[0].id;
    group.detach(&[one], Decrement::Yes).unwrap();
    // It can come back, and go again.
    group.attach(one, "local").unwrap();
    assert_eq!(group.instance(one).unwrap().state, State::InService);
    group.detach(&[one], Decrement::Yes).unwrap();
    assert_eq!(group.provisioner().running(), 3);
    drop(group);
    sleep(seconds(100)).await;
    assert_eq!(stopped.load(Relaxed), 2);
}
