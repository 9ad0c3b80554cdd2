//! The queue at the family's seams: sink, source, gauge, and part of a simulation.

use std::sync::Arc;

use sim_core::seam::{Depth, Gauge, Reason, Sink, Source, Timed};
use sim_core::time::Instant;
use sim_queue::{Close, DeadLetter, Delivery, Message, Queue, QueueConfig};

use crate::rig::{abandon, drain, of, queue, secs};

#[test]
fn a_queue_is_a_sink_of_payloads() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(1),
        ..QueueConfig::new("q")
    });
    let sink: Arc<dyn Sink<u32>> = Arc::new(queue.clone());
    assert!(sink.try_deliver(7).is_ok());
    let refused = sink.try_deliver(8).unwrap_err();
    assert_eq!(refused.item, 8);
    assert!(matches!(refused.reason, Reason::Full { .. }));
    queue.close(Close::Drain);
    let refused = sink.try_deliver(9).unwrap_err();
    assert_eq!(refused.item, 9);
    assert!(matches!(refused.reason, Reason::Closed));
    assert_eq!(drain(&queue), [7]);
}

#[test]
fn a_queue_is_a_sink_of_messages() {
    let (queue, hand) = queue(QueueConfig::fair("q"));
    let sink: Arc<dyn Sink<Message<u32>>> = Arc::new(queue.clone());
    sink.try_deliver(of("tenant", 7).delay(secs(5))).unwrap();
    hand.advance(secs(5));
    let delivery = queue.try_receive().unwrap();
    assert_eq!(delivery.group().map(|group| group.as_str()), Some("tenant"));
}

#[test]
fn a_sink_rejects_what_the_queue_never_takes_and_says_why() {
    let (queue, _) = queue(QueueConfig::fifo("q"));
    let refused = Sink::<u32>::try_deliver(&queue, 7).unwrap_err();
    assert_eq!(refused.item, 7);
    assert!(matches!(refused.reason, Reason::Rejected(_)));
    assert!(refused.to_string().contains("group"), "{refused}");
}

#[test]
fn a_queue_is_a_source_of_deliveries() {
    let (queue, _) = queue(QueueConfig::new("q"));
    let source: Arc<dyn Source<Delivery<u32>>> = Arc::new(queue.clone());
    assert!(source.try_take().is_none());
    queue.try_send(7).unwrap();
    assert_eq!(source.try_take().unwrap().acknowledge(), Ok(Some(7)));
}

#[test]
fn a_gauge_reads_what_waits_is_in_flight_and_delayed() {
    for config in [QueueConfig::new("q"), QueueConfig::fair("q")] {
        let is_standard = config.kind == sim_queue::Kind::Standard;
        let (queue, hand) = queue(config);
        let gauge: Arc<dyn Gauge> = Arc::new(queue.clone());
        assert_eq!(gauge.depth(), Depth::default());
        let message = |n| {
            if is_standard {
                Message::new(n)
            } else {
                of("g", n)
            }
        };
        for n in 0..5 {
            queue.try_send(message(n)).unwrap();
        }
        queue.try_send(message(9).delay(secs(60))).unwrap();
        hand.advance(secs(10));
        let _held = [queue.try_receive().unwrap(), queue.try_receive().unwrap()];
        let depth = gauge.depth();
        assert_eq!((depth.waiting, depth.in_flight, depth.delayed), (3, 2, 1));
        assert_eq!((depth.total(), depth.oldest_age), (6, Some(secs(10))));
    }
}

#[test]
fn a_queue_is_advanced_by_a_driver_that_knows_only_its_deadlines() {
    for config in [
        QueueConfig::new("q"),
        QueueConfig::fair("q"),
        QueueConfig::fifo("q"),
    ] {
        let is_standard = config.kind == sim_queue::Kind::Standard;
        let config = QueueConfig {
            retention: Some(secs(100)),
            ..config
        };
        let (queue, hand) = queue(config);
        let part: Arc<dyn Timed> = Arc::new(queue.clone());
        assert_eq!(part.next_deadline(), None);
        queue
            .try_send(if is_standard {
                Message::new(7)
            } else {
                of("g", 7)
            })
            .unwrap();
        abandon(queue.try_receive().unwrap());
        let mut deadlines = 0;
        while let Some(next) = part.next_deadline() {
            assert!(next >= hand.now());
            hand.advance_to(next);
            part.advance(next);
            deadlines += 1;
            assert!(deadlines < 100, "a deadline that was served comes again");
        }
        let stats = queue.stats();
        assert_eq!((stats.lapsed, stats.expired), (1, 1));
        assert_eq!(hand.now(), Instant::ORIGIN + secs(100));
    }
}

#[test]
fn one_queue_feeds_another_as_its_sink() {
    let (first, hand) = queue(QueueConfig::new("first"));
    let second: Queue<u32> =
        Queue::with_clock(QueueConfig::new("second"), first.clock().clone()).unwrap();
    let letters: Arc<dyn Sink<DeadLetter<u32>>> = Arc::new(second.clone());
    first
        .set_dead_letters(sim_queue::DeadLetterPolicy::to_sink(letters, 1))
        .unwrap();
    let sent = first.try_send(7).unwrap();
    abandon(first.try_receive().unwrap());
    hand.advance(secs(30));
    first.advance();
    let letter = second.try_receive().unwrap();
    assert_eq!((*letter, letter.id()), (7, sent.id));
    assert_eq!(letter.dead_letter().unwrap().source(), "first");
}
