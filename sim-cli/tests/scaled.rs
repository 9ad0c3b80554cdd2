//! Queue, balancer and scaled group together: they know nothing of each other and meet at a gauge and a roster.

use std::collections::VecDeque;
use std::time::Duration;

use sim_balancer::machine::Deregistration;
use sim_balancer::{Balancer, BalancerConfig, Lease, Outcome, PickError, Rules};
use sim_core::clock::{Clock, VirtualClock};
use sim_core::seam::{Roster, Standing, Timed};
use sim_core::sync::Arc;
use sim_core::time::{Instant, Timestamp};
use sim_queue::{Delivery, Queue, QueueConfig};
use sim_scaling::policy::PolicyConfig;
use sim_scaling::policy::target::TargetConfig;
use sim_scaling::provisioner::Recorder;
use sim_scaling::{Cooldown, Group, GroupConfig, Health, HealthSource, InstanceId, Query};

const MINUTE: Duration = Duration::from_secs(60);

fn clock() -> (Clock, VirtualClock) {
    Clock::virtual_at(Timestamp::from_unix_seconds(1_357_000_000))
}

/// A balancer whose targets have one request at a time and all the time that they need to finish it.
fn one_by_one(clock: &Clock) -> Balancer<InstanceId> {
    let config = BalancerConfig {
        max_outstanding: Some(1),
        rules: Rules {
            deregistration: Deregistration {
                delay: Duration::from_secs(3_600),
                ..Deregistration::default()
            },
            ..Rules::default()
        },
        ..BalancerConfig::default()
    };
    Balancer::with_clock(config, clock.clone()).expect("a sound configuration")
}

fn config(min: u32, max: u32) -> GroupConfig {
    GroupConfig {
        drain_timeout: Duration::from_secs(3_600),
        ..GroupConfig::new("workers", min, max)
    }
}

/// Lets time pass deadline by deadline.
fn pass(time: &VirtualClock, parts: &[&dyn Timed], by: Duration) {
    let end = time.now() + by;
    loop {
        let next = parts.iter().filter_map(|part| part.next_deadline()).min();
        let now = next.unwrap_or(Instant::NEVER).clamp(time.now(), end);
        time.advance_to(now);
        for part in parts {
            part.advance(now);
        }
        if now == end {
            return;
        }
    }
}

#[test]
fn workers_follow_their_queue_and_a_balancer_feeds_them() {
    let (clock, time) = clock();
    let jobs = Queue::<u32>::with_clock(QueueConfig::new("jobs"), clock.clone()).unwrap();
    let balancer = one_by_one(&clock);
    let recorder = Recorder::new();
    recorder.script(|script| script.start = MINUTE);
    let query = Query::new("jobs.backlog / group.in_service").unwrap();
    let policy = TargetConfig {
        out_periods: 1,
        in_periods: 3,
        ..TargetConfig::new(query, 2.0)
    };
    let group = Group::builder(config(1, 10), recorder)
        .clock(clock)
        .roster(Arc::new(balancer.clone()))
        .gauge("jobs", Arc::new(jobs.clone()))
        .policy("backlog", PolicyConfig::TargetTracking(policy))
        .build()
        .unwrap();

    let mut works: VecDeque<(Instant, Lease<InstanceId>, Delivery<u32>)> = VecDeque::new();
    let mut done = [0_u8; 100];
    let (mut most, mut minutes) = (0, 0);
    for job in 0..100 {
        jobs.try_send(job).unwrap();
    }
    while done.contains(&0) || group.stats().total > 1 {
        minutes += 1;
        assert!(minutes < 600, "stuck: {}", group.explain());
        pass(&time, &[&group, &balancer, &jobs], MINUTE);
        // A work takes three minutes. Half of the leases would have been over otherwise.
        while let Some((_, worker, job)) = works.pop_front_if(|(end, ..)| *end <= time.now()) {
            done[*job as usize] += 1;
            job.acknowledge().unwrap();
            worker.complete(Outcome::Success);
        }
        while let Ok(worker) = balancer.try_pick() {
            let Ok(mut job) = jobs.try_receive() else {
                break;
            };
            job.extend(10 * MINUTE).unwrap();
            works.push_back((time.now() + 3 * MINUTE, worker, job));
        }
        most = most.max(group.stats().in_service);
    }
    assert!(done.iter().all(|times| *times == 1), "{done:?}");
    assert_eq!(most, 10, "the group grew as far as it may");
    assert_eq!(group.stats().in_service, 1, "and shrank again");
    assert_eq!(balancer.stats().outstanding, 0);
    assert_eq!(balancer.stats().finished, 100);
}

#[test]
fn a_worker_that_is_sent_home_finishes_first() {
    let (clock, time) = clock();
    let balancer = one_by_one(&clock);
    let recorder = Recorder::new();
    let group = Group::builder(config(0, 2), recorder.clone())
        .clock(clock)
        .roster(Arc::new(balancer.clone()))
        .build()
        .unwrap();
    group.set_desired(1, Cooldown::Ignore).unwrap();
    pass(&time, &[&group, &balancer], MINUTE);

    let lease = balancer.try_pick().unwrap();
    let worker = *lease;
    let member = worker.member(group.config().seed);
    assert_eq!(balancer.standing(member), Standing::Serving);
    group.set_desired(0, Cooldown::Ignore).unwrap();
    pass(&time, &[&group, &balancer], 10 * MINUTE);
    assert_eq!(balancer.standing(member), Standing::Leaving);
    // Who is on the way out is not counted any more.
    assert_eq!(balancer.try_pick().unwrap_err(), PickError::Empty);
    assert_eq!(recorder.running(), [worker], "it has work in hand");

    lease.complete(Outcome::Success);
    pass(&time, &[&group, &balancer], MINUTE);
    assert_eq!(balancer.standing(member), Standing::Absent);
    assert!(recorder.running().is_empty());
    assert_eq!(group.stats().total, 0);
}

#[test]
fn a_worker_that_is_unfit_is_replaced_and_the_balancer_follows() {
    let (clock, time) = clock();
    let balancer = one_by_one(&clock);
    let group = Group::builder(config(2, 2), Recorder::new())
        .clock(clock)
        .roster(Arc::new(balancer.clone()))
        .build()
        .unwrap();
    pass(&time, &[&group, &balancer], MINUTE);
    let unfit = *balancer.try_pick().unwrap();
    group
        .set_health(unfit, Health::Unhealthy, HealthSource::Custom)
        .unwrap();
    pass(&time, &[&group, &balancer], 5 * MINUTE);
    let (one, two) = (balancer.try_pick().unwrap(), balancer.try_pick().unwrap());
    assert!(*one != unfit && *two != unfit && *one != *two);
    assert_eq!(balancer.try_pick().unwrap_err(), PickError::Saturated);
    assert_eq!(group.stats().in_service, 2);
}

#[test]
fn a_balancer_scales_its_own_targets_by_their_count_of_requests() {
    let (clock, time) = clock();
    let balancer = one_by_one(&clock);
    let query = Query::new("requests.per_target").unwrap();
    let policy = TargetConfig {
        out_periods: 3,
        ..TargetConfig::new(query, 30.0)
    };
    let group = Group::builder(config(1, 20), Recorder::new())
        .clock(clock)
        .roster(Arc::new(balancer.clone()))
        .gauge("requests", Arc::new(balancer.clone()))
        .policy("requests", PolicyConfig::TargetTracking(policy))
        .build()
        .unwrap();
    for _ in 0..20 {
        // 240 requests a minute: eight targets with thirty each.
        for _ in 0..240 {
            pass(&time, &[&group, &balancer], MINUTE / 240);
            if let Ok(lease) = balancer.try_pick() {
                lease.complete(Outcome::Success);
            }
        }
    }
    let stats = group.stats();
    assert!((8..=9).contains(&stats.in_service), "{stats:?}");
    assert!(group.explain().to_string().contains("requests"));
}
