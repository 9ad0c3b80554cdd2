//! How a service is tested against its queue: a day passes in no time, and the same way each time.
//!
//! Run with `cargo run -p sim-queue --example virtual_time_test`.

use std::time::Duration;

use sim_core::clock::Clock;
use sim_core::time::Timestamp;
use sim_queue::{Delivery, Queue, QueueConfig, Stale};

const MINUTE: Duration = Duration::from_secs(60);

/// The code under test: keeps its message while it works, an hour long.
struct LongJob {
    message: Delivery<&'static str>,
    minutes_left: u32,
}

impl LongJob {
    /// Works for a minute, and says so to the queue.
    fn work(&mut self) -> Result<(), sim_queue::ExtendError> {
        self.minutes_left -= 1;
        self.message.extend(2 * MINUTE)
    }

    fn finish(self) -> Result<(), Stale> {
        self.message.acknowledge().map(drop)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let start: Timestamp = "2013-01-01T00:00:00Z".parse()?;
    let (clock, time) = Clock::virtual_at(start);
    let config = QueueConfig {
        visibility_timeout: 2 * MINUTE,
        ..QueueConfig::new("reports")
    };
    let queue: Queue<&'static str> = Queue::with_clock(config, clock.clone())?;

    // A worker that beats keeps its message for an hour.
    queue.try_send("yearly report")?;
    let mut job = LongJob {
        message: queue.try_receive()?,
        minutes_left: 60,
    };
    while job.minutes_left > 0 {
        time.advance(MINUTE);
        job.work()?;
        assert!(queue.try_receive().is_err(), "nobody else gets it");
    }
    job.finish()?;
    println!("{}: the report is done", clock.timestamp(clock.now()));

    // One that stalls loses it, and is told.
    queue.try_send("monthly report")?;
    let mut stalled = LongJob {
        message: queue.try_receive()?,
        minutes_left: 60,
    };
    time.advance(2 * MINUTE);
    let other = queue.try_receive()?;
    println!(
        "{}: another worker took {:?} over",
        clock.timestamp(clock.now()),
        *other
    );
    assert_eq!((*other, other.receive_count()), ("monthly report", 2));
    assert!(stalled.work().is_err());
    assert_eq!(stalled.finish(), Err(Stale));
    other.acknowledge()?;

    // A day later nothing is left, and no second has really passed.
    time.advance(24 * 60 * MINUTE);
    let stats = queue.stats();
    println!(
        "{}: {} done, {} lapsed",
        clock.timestamp(clock.now()),
        stats.deleted,
        stats.lapsed
    );
    assert_eq!((stats.deleted, stats.lapsed, stats.visible), (2, 1, 0));
    assert_eq!(
        clock.timestamp(clock.now()).to_string(),
        "2013-01-02T01:02:00Z"
    );
    Ok(())
}
