//! What publishers count, and how long one is kept.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use sim_core::seam::{Refused, Sink};
use sim_topic::{
    Deduplication, DeduplicationId, FifoConfig, Kind, Limits, LogConfig, Notification,
    ReceiverConfig, Refusal, Subscriber, SubscriptionConfig, Topic, TopicConfig, WaitError,
    WhenBehind,
};

use crate::rig::{clock, grouped, pass, secs, topic};

/// A value that may close the topic when it is measured: between the first check and the log.
struct Trap(Option<Topic<Trap>>);

fn size(trap: &Trap) -> usize {
    if let Some(topic) = &trap.0 {
        topic.close();
    }
    10
}

fn trapped() -> Topic<Trap> {
    Topic::builder(TopicConfig::default())
        .clock(clock().0)
        .size(size)
        .build()
        .unwrap()
}

#[test]
fn a_message_that_the_log_refuses_is_counted_as_refused_alone() {
    let topic = trapped();
    let _receiver = topic.receiver(ReceiverConfig::default()).unwrap();
    topic.try_publish(Trap(None)).unwrap();
    let error = topic.try_publish(Trap(Some(topic.clone()))).unwrap_err();
    assert_eq!(error.reason, Refusal::Closed);
    let stats = topic.stats();
    assert_eq!(
        (stats.published, stats.published_bytes, stats.refused),
        (1, 10, 1)
    );
}

#[test]
fn values_that_the_log_refuses_are_not_counted_as_published() {
    let topic = trapped();
    let _receiver = topic.receiver(ReceiverConfig::default()).unwrap();
    let mut values = vec![Trap(None), Trap(Some(topic.clone()))];
    assert_eq!(
        topic.try_publish_values(&mut values),
        Err(Refusal::Closed),
        "closed while the values are measured"
    );
    assert_eq!(values.len(), 2);
    let stats = topic.stats();
    assert_eq!(
        (stats.published, stats.published_bytes, stats.refused),
        (0, 0, 1)
    );
    assert_eq!(topic.try_publish_values(&mut values), Err(Refusal::Closed));
    assert_eq!(topic.stats().refused, 2, "each call that takes nothing");
}

#[test]
fn entries_of_a_batch_that_wait_behind_a_refused_one_are_refused_too() {
    let (topic, _) = topic(TopicConfig {
        kind: Kind::Fifo(FifoConfig {
            deduplication: Deduplication::Off,
            ..FifoConfig::default()
        }),
        limits: Limits::default(),
        log: LogConfig {
            capacity: 1,
            when_behind: WhenBehind::Refuse,
            ..LogConfig::default()
        },
        ..TopicConfig::default()
    });
    let _receiver = topic.receiver(ReceiverConfig::default()).unwrap();
    let outcomes = topic.try_publish_batch((0..5).map(|n| grouped("a", n)));
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let stats = topic.stats();
    assert_eq!((stats.published, stats.refused), (1, 4));
}

/// Writes down who got what, in the order of all.
struct Scribe {
    name: &'static str,
    log: Arc<Mutex<Vec<(&'static str, u64)>>>,
    refuses: Mutex<bool>,
}

impl Sink<Notification<u64>> for Scribe {
    fn try_deliver(&self, item: Notification<u64>) -> Result<(), Refused<Notification<u64>>> {
        if std::mem::take(&mut *self.refuses.lock().unwrap()) {
            return Err(Refused::full(item, None));
        }
        self.log.lock().unwrap().push((self.name, *item.value()));
        Ok(())
    }
}

#[test]
fn the_backlog_of_one_sink_does_not_hold_up_the_next() {
    let (topic, time) = topic(TopicConfig {
        kind: Kind::Fifo(FifoConfig {
            deduplication: Deduplication::Off,
            ..FifoConfig::default()
        }),
        ..TopicConfig::default()
    });
    let log = Arc::new(Mutex::new(Vec::new()));
    for (name, refuses) in [("slow", true), ("quick", false)] {
        let scribe = Scribe {
            name,
            log: Arc::clone(&log),
            refuses: Mutex::new(refuses),
        };
        topic
            .subscribe(Subscriber::sink(scribe), SubscriptionConfig::default())
            .unwrap();
    }
    // The first is refused and holds its group back.
    for n in 0..500 {
        topic.try_publish(grouped("a", n)).unwrap();
    }
    assert_eq!(
        log.lock().unwrap().len(),
        500,
        "all of them the quick one's"
    );
    log.lock().unwrap().clear();
    time.advance(secs(60));
    topic.try_publish(grouped("a", 500)).unwrap();
    {
        let log = log.lock().unwrap();
        assert_eq!(log[..2], [("slow", 0), ("quick", 500)]);
        assert!(log.len() < 100, "the publisher does a part: {}", log.len());
    }
    pass(&topic, &time, secs(0));
    let log = log.lock().unwrap();
    let slow = log.iter().filter(|(name, _)| *name == "slow");
    assert!(slow.map(|(_, n)| *n).eq(0..=500), "the drivers do the rest");
}

/// Counts how often it was woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn room_in_the_log_wakes_who_waits_for_it_and_not_who_waits_for_the_window() {
    let (topic, time) = topic(TopicConfig {
        kind: Kind::Fifo(FifoConfig {
            deduplication: Deduplication::Off,
            deduplication_limit: 1,
            ..FifoConfig::default()
        }),
        log: LogConfig {
            capacity: 2,
            when_behind: WhenBehind::Refuse,
            ..LogConfig::default()
        },
        ..TopicConfig::default()
    });
    let mut receiver = topic.receiver(ReceiverConfig::default()).unwrap();
    let with_id = |id: &str, n| grouped("a", n).deduplication_id(DeduplicationId::new(id).unwrap());
    topic.try_publish(with_id("one", 1)).unwrap();
    let bells = [Arc::new(Bell::default()), Arc::new(Bell::default())];
    let wakers = bells.clone().map(Waker::from);
    let mut for_window = pin!(topic.publish(with_id("two", 2)));
    let mut for_room = pin!(topic.publish(grouped("b", 4)));
    let mut poll_window = || {
        let mut context = Context::from_waker(&wakers[0]);
        for_window.as_mut().poll(&mut context)
    };
    assert!(poll_window().is_pending());
    topic.try_publish(grouped("b", 3)).unwrap();
    let mut context = Context::from_waker(&wakers[1]);
    assert!(for_room.as_mut().poll(&mut context).is_pending());
    receiver.try_receive().unwrap();
    let woken = || bells.each_ref().map(|bell| bell.0.load(Ordering::SeqCst));
    assert_eq!(woken(), [0, 1]);
    let Poll::Ready(outcome) = for_room.as_mut().poll(&mut context) else {
        panic!("there is room");
    };
    outcome.unwrap();
    // Time makes room in the window; then it is the log that is full.
    while topic.try_publish(grouped("c", 9)).is_ok() {}
    time.advance(secs(3600));
    assert!(woken()[0] >= 1);
    assert!(poll_window().is_pending());
    let before = woken()[0];
    while woken()[0] == before {
        // Fails when all was received: it waits for the log now.
        receiver.try_receive().unwrap();
    }
    let Poll::Ready(outcome) = poll_window() else {
        panic!("there is room");
    };
    outcome.unwrap();
}

#[test]
fn closing_ends_the_wait_for_the_window() {
    let (topic, _) = topic(TopicConfig {
        kind: Kind::Fifo(FifoConfig {
            deduplication: Deduplication::Off,
            deduplication_limit: 1,
            ..FifoConfig::default()
        }),
        ..TopicConfig::default()
    });
    let with_id = |id: &str| grouped("a", 1).deduplication_id(DeduplicationId::new(id).unwrap());
    topic.try_publish(with_id("one")).unwrap();
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let mut context = Context::from_waker(&waker);
    let mut publish = pin!(topic.publish(with_id("two")));
    assert!(publish.as_mut().poll(&mut context).is_pending());
    topic.close();
    assert_eq!(bell.0.load(Ordering::SeqCst), 1);
    assert!(matches!(
        publish.as_mut().poll(&mut context),
        Poll::Ready(Err(WaitError::Refused(_)))
    ));
}
