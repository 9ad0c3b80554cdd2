//! Replays, archives and publishers in each other's way.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use sim_core::time::Timestamp;
use sim_topic::{
    ArchiveConfig, Deduplication, DeduplicationId, FifoConfig, Filter, Kind, Message, Notification,
    Refusal, ReplayPolicy, ReplayStatus, Subscriber, Subscription, SubscriptionConfig, Topic,
    TopicConfig,
};

use crate::rig::{Probe, Say, clock, grouped, pass, secs, topic};

fn archived(archive: Option<ArchiveConfig>) -> TopicConfig {
    TopicConfig {
        kind: Kind::Fifo(FifoConfig {
            deduplication: Deduplication::Off,
            archive,
            ..FifoConfig::default()
        }),
        ..TopicConfig::default()
    }
}

fn begin() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn told(probe: &Probe<Notification<u64>>) -> Vec<(u64, bool)> {
    let all = probe.take();
    all.iter().map(|n| (*n.value(), n.is_replayed())).collect()
}

fn status(sub: &Subscription<u64>) -> ReplayStatus {
    sub.replay_progress().unwrap().status
}

fn subscribe(
    topic: &Topic<u64>,
    probe: &Probe<Notification<u64>>,
    config: SubscriptionConfig<u64>,
) -> Subscription<u64> {
    topic
        .subscribe(Subscriber::sink(probe.clone()), config)
        .unwrap()
}

#[test]
fn what_is_published_after_a_replay_was_asked_for_is_live_though_nothing_was_pumped_yet() {
    let past = ReplayPolicy {
        from: begin(),
        to: Some(begin() + secs(30)),
    };
    let to_come = ReplayPolicy::from(begin() + secs(3600));
    for (policy, expected) in [
        (past, vec![(0, true), (7, false), (8, false)]),
        (to_come, vec![(7, false), (8, false)]),
    ] {
        let (topic, time) = topic(archived(Some(ArchiveConfig::default())));
        topic.try_publish(grouped("a", 0)).unwrap();
        time.advance(secs(60));
        topic.try_publish(grouped("a", 1)).unwrap();
        time.advance(secs(60));
        let probe = Probe::new();
        let sub = subscribe(&topic, &probe, SubscriptionConfig::default());
        sub.pause().unwrap();
        sub.replay(policy).unwrap();
        topic.try_publish(grouped("a", 7)).unwrap();
        sub.resume().unwrap();
        topic.try_publish(grouped("a", 8)).unwrap();
        assert_eq!(told(&probe), expected);
        assert_eq!(status(&sub), ReplayStatus::Completed);
    }
}

#[test]
fn the_end_of_the_archive_fails_a_replay_that_cannot_be_pumped_and_what_comes_next_is_live() {
    let (topic, _) = topic(archived(Some(ArchiveConfig::default())));
    topic.try_publish(grouped("a", 1)).unwrap();
    let probe = Probe::new();
    let sub = subscribe(&topic, &probe, SubscriptionConfig::default());
    sub.pause().unwrap();
    sub.replay(ReplayPolicy::from(begin())).unwrap();
    topic.set_archive(None).unwrap();
    assert_eq!(status(&sub), ReplayStatus::Failed);
    topic.try_publish(grouped("a", 2)).unwrap();
    assert_eq!(sub.stats().pending, 1);
    topic.set_archive(Some(ArchiveConfig::default())).unwrap();
    topic.try_publish(grouped("a", 3)).unwrap();
    sub.resume().unwrap();
    assert_eq!(told(&probe), [(2, false), (3, false)]);
    sub.replay(ReplayPolicy::from(begin())).unwrap();
    assert_eq!(told(&probe), [(3, true)]);
    assert_eq!(status(&sub), ReplayStatus::Completed);
}

#[test]
fn a_new_archive_while_a_replay_is_pumped_does_not_continue_the_former_one() {
    let (topic, _) = topic(archived(Some(ArchiveConfig::default())));
    for n in 0..200 {
        topic.try_publish(grouped("a", n)).unwrap();
    }
    let probe = Probe::new();
    let handle = topic.clone();
    let changed = AtomicBool::new(false);
    let sub = subscribe(
        &topic,
        &probe,
        SubscriptionConfig {
            filter: Filter::closure(move |message: &Message<u64>| {
                if message.value == 3 && !changed.swap(true, Ordering::SeqCst) {
                    handle.set_archive(None).unwrap();
                    handle.set_archive(Some(ArchiveConfig::default())).unwrap();
                }
                true
            }),
            ..SubscriptionConfig::default()
        },
    );
    sub.replay(ReplayPolicy::from(begin())).unwrap();
    assert_eq!(status(&sub), ReplayStatus::Failed);
    let read = told(&probe);
    assert!(read.iter().map(|(n, _)| *n).eq(0..64), "{read:?}");
    topic.try_publish(grouped("a", 200)).unwrap();
    assert_eq!(told(&probe), [(200, false)]);
}

#[test]
fn a_replay_that_is_stopped_while_it_is_pumped_stays_stopped() {
    let (topic, _) = topic(archived(Some(ArchiveConfig::default())));
    for n in 0..3 {
        topic.try_publish(grouped("a", n)).unwrap();
    }
    let probe = Probe::new();
    let own: Arc<OnceLock<Subscription<u64>>> = Arc::new(OnceLock::new());
    let seen = Arc::clone(&own);
    let sub = subscribe(
        &topic,
        &probe,
        SubscriptionConfig {
            filter: Filter::closure(move |message: &Message<u64>| {
                if message.value == 1
                    && let Some(sub) = seen.get()
                {
                    sub.unsubscribe();
                }
                true
            }),
            ..SubscriptionConfig::default()
        },
    );
    assert!(own.set(sub.clone()).is_ok());
    sub.replay(ReplayPolicy::from(begin())).unwrap();
    assert_eq!(status(&sub), ReplayStatus::Failed);
    assert_eq!(told(&probe), []);
}

#[test]
fn a_message_that_the_archive_can_never_hold_is_refused_and_changes_nothing() {
    let (clock, _) = clock();
    let small = ArchiveConfig {
        max_bytes: 100,
        ..ArchiveConfig::default()
    };
    let topic = Topic::builder(archived(Some(small)))
        .clock(clock)
        .size(|value: &u64| *value as usize)
        .build()
        .unwrap();
    let probe = Probe::new();
    let sub = subscribe(&topic, &probe, SubscriptionConfig::default());
    sub.pause().unwrap();
    sub.replay(ReplayPolicy::from(begin())).unwrap();
    let first = topic.try_publish(grouped("a", 100)).unwrap();
    let error = topic
        .try_publish(grouped("a", 101).deduplication_id(DeduplicationId::new("x").unwrap()))
        .unwrap_err();
    assert_eq!(
        error.reason,
        Refusal::TooLargeForArchive {
            bytes: 101,
            limit: 100
        }
    );
    assert_eq!(error.message.value, 101);
    // Its id is not remembered.
    let next = topic
        .try_publish(grouped("a", 99).deduplication_id(DeduplicationId::new("x").unwrap()))
        .unwrap();
    assert!(!next.duplicate && first.sequence < next.sequence);
    let stats = topic.stats();
    assert_eq!((stats.published, stats.refused), (2, 1));
    topic.set_archive(None).unwrap();
    topic.try_publish(grouped("a", 101)).unwrap();
}

#[test]
fn who_subscribes_while_a_fifo_publisher_asks_the_filters_has_no_hole_in_the_sequence() {
    let (topic, _) = topic(archived(None));
    let late = Probe::new();
    let handle = topic.clone();
    let probe = late.clone();
    let came = AtomicBool::new(false);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let other = Probe::new();
    subscribe(
        &topic,
        &other,
        SubscriptionConfig {
            filter: Filter::closure(move |message: &Message<u64>| {
                log.lock().unwrap().push(message.value);
                if !came.swap(true, Ordering::SeqCst) {
                    // Another publisher's message comes first, and to one more subscription.
                    subscribe(&handle, &probe, SubscriptionConfig::default());
                    handle.try_publish(grouped("a", 2)).unwrap();
                }
                true
            }),
            ..SubscriptionConfig::default()
        },
    );
    topic.try_publish(grouped("a", 1)).unwrap();
    assert_eq!(other.values(), [2, 1]);
    assert_eq!(
        late.values(),
        [2, 1],
        "it had the one before, so it has this one"
    );
    assert_eq!(*asked.lock().unwrap(), [1, 2, 1]);
}

#[test]
fn a_replay_never_overflows_a_backlog_smaller_than_its_window() {
    let (topic, time) = topic(archived(Some(ArchiveConfig::default())));
    for n in 0..100 {
        topic.try_publish(grouped("a", n)).unwrap();
    }
    let probe = Probe::new();
    probe.script(&[Say::Full]);
    let sub = subscribe(
        &topic,
        &probe,
        SubscriptionConfig {
            backlog: 10,
            ..SubscriptionConfig::default()
        },
    );
    sub.replay(ReplayPolicy::from(begin())).unwrap();
    assert_eq!((sub.stats().pending, sub.stats().failed), (10, 0));
    pass(&topic, &time, secs(20));
    assert!(told(&probe).iter().map(|(n, _)| *n).eq(0..100));
    assert_eq!(sub.stats().dropped.overflow, 0);
}
