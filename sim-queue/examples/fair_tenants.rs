//! One tenant floods the queue; the others hardly notice on a fair queue, and wait long on a plain one.
//!
//! Run with `cargo run -p sim-queue --example fair_tenants`.

use std::time::Duration;

use sim_core::clock::Clock;
use sim_core::time::Timestamp;
use sim_queue::{GroupId, Kind, Message, Queue, QueueConfig};

/// Serves one message a second with each of ten workers; the longest wait of a quiet tenant's message.
fn longest_wait(kind: Kind) -> Result<Duration, Box<dyn std::error::Error>> {
    let is_fair = matches!(kind, Kind::Fair(_));
    let (clock, hand) = Clock::virtual_at(Timestamp::UNIX_EPOCH);
    let queue: Queue<&'static str> = Queue::with_clock(
        QueueConfig {
            kind,
            ..QueueConfig::new("reports")
        },
        clock,
    )?;
    let send = |tenant: &'static str| -> Result<(), Box<dyn std::error::Error>> {
        let message = Message::new(tenant);
        // A standard queue has no tenants.
        let message = if is_fair {
            message.tenant(GroupId::new(tenant)?)
        } else {
            message
        };
        queue.try_send(message)?;
        Ok(())
    };

    for _ in 0..3000 {
        send("flood")?;
    }
    let mut longest = Duration::ZERO;
    let mut busy = Vec::new();
    for second in 0..400 {
        if second % 10 == 5 && second < 100 {
            send("quiet-a")?;
            send("quiet-b")?;
        }
        Queue::acknowledge_batch(busy.drain(..));
        for _ in 0..10 {
            let Ok(message) = queue.try_receive() else {
                break;
            };
            if message.starts_with("quiet") {
                longest = longest.max(queue.clock().now() - message.sent_instant());
            }
            busy.push(message);
        }
        hand.advance(Duration::from_secs(1));
    }
    Queue::acknowledge_batch(busy);
    assert_eq!(queue.stats().deleted, 3020);
    Ok(longest)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let plain = longest_wait(Kind::Standard)?;
    let fair = longest_wait(Kind::fair())?;
    println!(
        "the longest wait of a quiet tenant: {plain:?} on a standard queue, {fair:?} on a fair one"
    );
    assert!(plain >= Duration::from_secs(190), "behind the whole flood");
    assert!(fair <= Duration::from_secs(1), "at the next free worker");
    Ok(())
}
