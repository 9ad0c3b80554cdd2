//! Standard queues: leases, delays, retention, returns, caps, on a virtual clock.

use std::time::Duration;

use sim_core::clock::{Clock, VirtualClock};
use sim_core::time::Timestamp;
use sim_queue::{Message, Queue, QueueConfig, TryReceiveError};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn queue(config: QueueConfig) -> (Queue<u32>, VirtualClock) {
    let (clock, hand) = Clock::virtual_at(Timestamp::from_unix_millis(1_700_000_000_000));
    (Queue::with_clock(config, clock).unwrap(), hand)
}

#[test]
fn a_message_is_received_once_and_acknowledged_with_its_value() {
    let (queue, _) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    let delivery = queue.try_receive().unwrap();
    assert_eq!(*delivery, 7);
    assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Empty);
    assert_eq!(queue.stats().in_flight, 1);
    assert_eq!(delivery.acknowledge(), Ok(Some(7)));
    let stats = queue.stats();
    assert_eq!((stats.sent, stats.received, stats.deleted, stats.in_flight), (1, 1, 1, 0));
}

#[test]
fn a_message_comes_back_after_its_timeout() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    let first = queue.try_receive().unwrap();
    hand.advance(secs(29));
    assert!(queue.try_receive().is_err());
    hand.advance(secs(1));
    let second = queue.try_receive().unwrap();
    assert_eq!(second.receive_count(), 2);
    assert_eq!(*first, 7);
    assert!(first.acknowledge().is_err());
    assert_eq!(second.acknowledge(), Ok(Some(7)));
}

#[test]
fn a_delayed_message_shows_when_its_delay_is_over() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    queue.try_send(Message::new(1).delay(secs(5))).unwrap();
    assert!(queue.try_receive().is_err());
    assert_eq!(queue.stats().delayed, 1);
    hand.advance(secs(5));
    assert_eq!(*queue.try_receive().unwrap(), 1);
}

#[test]
fn a_late_acknowledgement_counts_while_nobody_else_received_the_message() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    let slow = queue.try_receive().unwrap();
    hand.advance(secs(60));
    queue.advance();
    assert_eq!(queue.stats().visible, 1);
    assert_eq!(slow.acknowledge(), Ok(Some(7)));
    assert_eq!(queue.try_receive().unwrap_err(), TryReceiveError::Empty);
}
