//! Archives and replays.

use sim_core::time::Timestamp;
use sim_topic::{
    ArchiveConfig, Deduplication, FifoConfig, Filter, Kind, Message, Notification, ReplayError,
    ReplayPolicy, ReplayStatus, Subscriber, SubscriptionConfig, TopicConfig,
};

use crate::rig::{Probe, Say, grouped, pass, secs, topic};

fn archived(config: ArchiveConfig) -> TopicConfig {
    TopicConfig {
        kind: Kind::Fifo(FifoConfig {
            deduplication: Deduplication::Off,
            archive: Some(config),
            ..FifoConfig::default()
        }),
        ..TopicConfig::default()
    }
}

fn begin() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// What came, and whether it was marked.
fn told(probe: &Probe<Notification<u64>>) -> Vec<(u64, bool)> {
    let all = probe.take();
    all.iter().map(|n| (*n.value(), n.is_replayed())).collect()
}

#[test]
fn a_late_subscription_gets_what_was_published_between_two_times() {
    let (topic, time) = topic(archived(ArchiveConfig::default()));
    let first = Probe::new();
    topic
        .subscribe(
            Subscriber::sink(first.clone()),
            SubscriptionConfig::default(),
        )
        .unwrap();
    for n in 0..10 {
        topic.try_publish(grouped("a", n)).unwrap();
        time.advance(secs(60));
    }
    let probe = Probe::new();
    let sub = topic
        .subscribe(
            Subscriber::sink(probe.clone()),
            SubscriptionConfig {
                filter: Filter::closure(|message: &Message<u64>| message.value != 4),
                ..SubscriptionConfig::default()
            },
        )
        .unwrap();
    assert_eq!(sub.replay_progress(), None);
    sub.replay(ReplayPolicy {
        from: begin() + secs(120),
        to: Some(begin() + secs(300)),
    })
    .unwrap();
    assert_eq!(
        sub.replay_progress().unwrap().status,
        ReplayStatus::Completed
    );
    let replayed = probe.take();
    let values: Vec<_> = replayed.iter().map(|n| *n.value()).collect();
    assert_eq!(values, [2, 3, 5]);
    assert!(replayed.iter().all(Notification::is_replayed));
    let live = first.take();
    assert_eq!(live.len(), 10, "others get nothing of it");
    assert_eq!(replayed[0].id(), live[2].id());
    assert_eq!(replayed[0].timestamp(), live[2].timestamp());
    topic.try_publish(grouped("a", 99)).unwrap();
    assert_eq!(told(&probe), [(99, false)]);
    assert_eq!(
        (sub.stats().replayed, sub.stats().filtered.attributes),
        (3, 1)
    );
}

#[test]
fn a_replay_that_is_slower_than_publishing_goes_live_without_a_gap() {
    let (topic, time) = topic(archived(ArchiveConfig::default()));
    for n in 0..300 {
        topic.try_publish(grouped("a", n)).unwrap();
    }
    let probe = Probe::new();
    let sub = topic
        .subscribe(
            Subscriber::sink(probe.clone()),
            SubscriptionConfig::default(),
        )
        .unwrap();
    probe.script(&[Say::Take, Say::Full]);
    sub.replay(ReplayPolicy::from(begin())).unwrap();
    assert_eq!(
        sub.replay_progress().unwrap().status,
        ReplayStatus::InProgress
    );
    assert_eq!(
        sub.replay(ReplayPolicy::from(begin())),
        Err(ReplayError::InProgress)
    );
    assert!(sub.stats().pending <= 64, "the archive keeps the rest");
    topic.try_publish(grouped("a", 300)).unwrap();
    assert_eq!(probe.len(), 1);
    pass(&topic, &time, secs(20));
    let told = told(&probe);
    assert_eq!(told.len(), 301);
    assert!(
        told.iter().map(|(n, _)| *n).eq(0..=300),
        "in order, each once"
    );
    assert_eq!((told[299].1, told[300].1), (true, false));
    assert_eq!(
        sub.replay_progress().unwrap().status,
        ReplayStatus::Completed
    );
}

#[test]
fn an_archive_is_bounded_and_says_what_it_gave_up() {
    let (topic, time) = topic(archived(ArchiveConfig {
        max_messages: 3,
        ..ArchiveConfig::default()
    }));
    for n in 0..5 {
        topic.try_publish(grouped("a", n)).unwrap();
    }
    let stats = topic.stats();
    assert_eq!((stats.archived, stats.archive_evicted), (3, 2));
    assert_eq!(stats.archive_beginning, Some(begin()));
    time.advance(secs(30 * 86_400));
    topic.try_publish(grouped("a", 5)).unwrap();
    let stats = topic.stats();
    assert_eq!((stats.archived, stats.archive_expired), (1, 3));
}

#[test]
fn a_topic_with_an_active_archive_is_not_deleted() {
    let (topic, _) = topic(archived(ArchiveConfig::default()));
    let probe = Probe::new();
    let sub = topic
        .subscribe(
            Subscriber::sink(probe.clone()),
            SubscriptionConfig::default(),
        )
        .unwrap();
    topic.try_publish(grouped("a", 1)).unwrap();
    assert!(topic.delete().is_err());
    assert!(!topic.is_closed());
    probe.always(Say::Full);
    sub.replay(ReplayPolicy::from(begin())).unwrap();
    topic.set_archive(None).unwrap();
    assert_eq!(topic.stats().archived, 0);
    assert!(topic.delete().is_ok());
    assert_eq!(topic.stats().subscriptions_confirmed, 0);
}

#[test]
fn a_replay_that_cannot_be_is_refused() {
    let (standard, _) = topic(TopicConfig::default());
    let sub = standard
        .subscribe(
            Subscriber::sink(Probe::new()),
            SubscriptionConfig::default(),
        )
        .unwrap();
    assert_eq!(
        sub.replay(ReplayPolicy::from(begin())),
        Err(ReplayError::NoArchive)
    );
    let (fifo, _) = topic(archived(ArchiveConfig::default()));
    let sub = fifo
        .subscribe(
            Subscriber::sink(Probe::new()),
            SubscriptionConfig::default(),
        )
        .unwrap();
    let backwards = ReplayPolicy {
        from: begin() + secs(1),
        to: Some(begin()),
    };
    assert_eq!(sub.replay(backwards), Err(ReplayError::EndsBeforeStart));
    sub.unsubscribe();
    assert_eq!(
        sub.replay(ReplayPolicy::from(begin())),
        Err(ReplayError::NotActive)
    );
}
