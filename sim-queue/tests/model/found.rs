//! What the histories found, each case for itself.

use sim_core::clock::{Clock, VirtualClock};
use sim_core::sync::Arc;
use sim_core::time::Timestamp;
use sim_queue::{DeadLetterPolicy, Message, MoveTask, Queue, QueueConfig, Receive, Stale};

use crate::pair::{group, secs};
use crate::token::Letters;

fn queue<T: Send + Sync + 'static>(config: QueueConfig) -> (Queue<T>, VirtualClock) {
    let (clock, hand) = Clock::virtual_at(Timestamp::from_unix_millis(1_700_000_000_000));
    (Queue::with_clock(config, clock).unwrap(), hand)
}

#[test]
fn a_receipt_used_twice_never_hits_the_slots_next_message() {
    let (queue, _) = queue::<u32>(QueueConfig::new("q"));
    queue.try_send(1).unwrap();
    let receipt = queue.try_receive().unwrap().into_receipt();
    assert_eq!(queue.acknowledge(&receipt), Ok(Some(1)));
    queue.try_send(Message::new(2).delay(secs(5))).unwrap();
    assert_eq!(
        queue.acknowledge(&receipt),
        Err(Stale),
        "a delayed message in the slot"
    );
    assert_eq!(queue.stats().delayed, 1);
    queue.purge();
    queue.try_send(3).unwrap();
    let third = queue.try_receive().unwrap();
    assert_eq!(
        queue.acknowledge(&receipt),
        Err(Stale),
        "a received message in the slot"
    );
    assert_eq!(third.acknowledge(), Ok(Some(3)));
}

#[test]
fn a_late_release_is_stale_also_if_nobody_noticed_the_end_of_the_lease() {
    for config in [
        QueueConfig::new("q"),
        QueueConfig::fair("q"),
        QueueConfig::fifo("q"),
    ] {
        let (queue, hand) = queue(config);
        let letters = Arc::new(Letters::default());
        let grouped = !matches!(queue.config().kind, sim_queue::Kind::Standard);
        let drops = crate::token::Drops::default();
        for n in 0..2 {
            let message = Message::new(drops.token());
            queue
                .try_send(if grouped {
                    message.group(group(n))
                } else {
                    message
                })
                .unwrap();
        }
        let sink: Arc<Letters> = Arc::clone(&letters);
        queue
            .set_dead_letters(DeadLetterPolicy::to_sink(sink, 9))
            .unwrap();
        let mut both = queue
            .try_receive_with(&Receive {
                max: 2,
                ..Receive::default()
            })
            .unwrap();
        assert_eq!(both.len(), 2);
        hand.advance(secs(30));
        assert_eq!(both.pop().unwrap().release(), Err(Stale));
        assert_eq!(both.pop().unwrap().reject(), Err(Stale));
        let stats = queue.stats();
        assert_eq!((stats.lapsed, stats.released, stats.visible), (2, 0, 2));
        assert!(letters.sorted().is_empty());
    }
}

#[test]
fn a_late_acknowledgement_makes_room() {
    let (queue, hand) = queue(QueueConfig {
        capacity: Some(1),
        ..QueueConfig::new("q")
    });
    queue.try_send(1).unwrap();
    let late = queue.try_receive().unwrap();
    hand.advance(secs(30));
    assert!(queue.try_send(2).is_err(), "the message is back and waits");
    late.acknowledge().unwrap();
    assert!(queue.try_send(2).is_ok());
}

#[test]
fn a_delayed_send_finds_a_full_queue_full() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(1),
        ..QueueConfig::new("q")
    });
    queue.try_send(1).unwrap();
    assert!(queue.try_send(Message::new(2).delay(secs(1))).is_err());
}

#[test]
fn values_in_bulk_keep_the_capacity_beside_what_is_delayed() {
    let (queue, _) = queue(QueueConfig {
        capacity: Some(4),
        ..QueueConfig::new("q")
    });
    queue.try_send(Message::new(0).delay(secs(1))).unwrap();
    let mut values = vec![1, 2, 3, 4, 5];
    assert_eq!(queue.try_send_values(&mut values), Ok(3));
    assert_eq!(values, [4, 5]);
}

#[test]
fn a_message_expires_also_during_its_delay() {
    let config = QueueConfig {
        retention: Some(secs(5)),
        ..QueueConfig::new("q")
    };
    let (queue, hand) = queue::<u32>(config);
    queue.try_send(Message::new(1).delay(secs(10))).unwrap();
    hand.advance(secs(5));
    let stats = queue.stats();
    assert_eq!((stats.delayed, stats.expired), (0, 1));
}

#[test]
fn nothing_visible_has_no_age() {
    let (queue, hand) = queue::<u32>(QueueConfig::new("q"));
    queue.try_send(1).unwrap();
    let late = queue.try_receive().unwrap();
    hand.advance(secs(30));
    queue.advance();
    late.acknowledge().unwrap();
    assert_eq!(queue.stats().oldest_age, None);
}

#[test]
fn a_smaller_max_receives_buries_what_was_received_so_often_already() {
    let (queue, _) = queue(QueueConfig::new("q"));
    let drops = crate::token::Drops::default();
    queue.try_send(drops.token()).unwrap();
    queue.try_receive().unwrap().release().unwrap();
    let letters = Arc::new(Letters::default());
    let sink: Arc<Letters> = Arc::clone(&letters);
    queue
        .set_dead_letters(DeadLetterPolicy::to_sink(sink, 1))
        .unwrap();
    assert_eq!(letters.sorted().len(), 1, "as on FIFO and fair queues");
}

#[test]
fn a_move_task_loses_no_message_that_an_older_delivery_still_holds() {
    let (source, hand) = queue::<u32>(QueueConfig::new("source"));
    let dead: Queue<u32> =
        Queue::with_clock(QueueConfig::new("dead"), source.clock().clone()).unwrap();
    source
        .set_dead_letters(DeadLetterPolicy::to_queue(&dead, 1))
        .unwrap();
    source.try_send(7).unwrap();
    source.try_receive().unwrap().release().unwrap();
    let slow = dead.try_receive().unwrap();
    hand.advance(secs(30));
    let task = dead.start_move(MoveTask::default()).unwrap();
    let _ = task.step();
    drop(slow);
    for _ in 0..5 {
        hand.advance(secs(1));
        let _ = task.step();
    }
    let there = source.stats().visible + dead.stats().visible;
    assert_eq!(there, 1, "in the source or still among the dead letters");
}

#[test]
fn a_draining_queue_waits_for_a_dead_letter_that_is_still_held() {
    for config in [QueueConfig::new("q"), QueueConfig::fair("q")] {
        let (queue, hand) = queue(config);
        let drops = crate::token::Drops::default();
        let letters = Arc::new(Letters::default());
        let sink: Arc<Letters> = Arc::clone(&letters);
        queue
            .set_dead_letters(DeadLetterPolicy::to_sink(sink, 1))
            .unwrap();
        queue.try_send(drops.token()).unwrap();
        let slow = queue.try_receive().unwrap();
        queue.close(sim_queue::Close::Drain);
        hand.advance(secs(30));
        assert_eq!(
            queue.try_receive().unwrap_err(),
            sim_queue::TryReceiveError::Empty
        );
        assert_eq!(queue.stats().in_flight, 1);
        drop(slow);
        assert_eq!(letters.sorted().len(), 1);
        assert_eq!(
            queue.try_receive().unwrap_err(),
            sim_queue::TryReceiveError::Closed
        );
    }
}
