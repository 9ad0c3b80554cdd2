//! A queue of tasks on a stream: the same records are work for one queue and history for everybody else. A task that fails three
//! times is put aside as a dead letter, looked at, and restored when the fault is mended.
//!
//! Run with `cargo run -p sim-stream --example task_queue`.

use std::error::Error;
use std::time::Duration;

use sim_core::clock::Clock;
use sim_core::time::Timestamp;
use sim_stream::{
    DeadLetters, PartitionKey, QueueConfig, QueueStart, Receive, Record, Stream, StreamConfig,
    StreamQueue,
};

/// What a delayed flight owes its passengers, unless its carrier is not known yet.
fn compensate(carrier: &str, delay: u32, known: &[&str]) -> Result<u32, String> {
    if !known.contains(&carrier) {
        return Err(format!("the carrier {carrier} is unknown"));
    }
    Ok(if delay > 180 { 600 } else { 250 })
}

/// Works until nothing is visible; returns how many were done and what they cost.
fn work(tasks: &StreamQueue<u32>, known: &[&str]) -> Result<(u32, u32), Box<dyn Error>> {
    let (mut done, mut paid) = (0, 0);
    while let Ok(batch) = tasks.try_receive(Receive::up_to(10)) {
        for delay in &batch {
            match compensate(delay.partition_key(), *delay.value(), known) {
                Ok(sum) => {
                    tasks.acknowledge(delay)?;
                    (done, paid) = (done + 1, paid + sum);
                }
                // Tried again at once; a dead letter after the third time.
                Err(_) => tasks.release(delay, Duration::ZERO)?,
            }
        }
    }
    Ok((done, paid))
}

fn main() -> Result<(), Box<dyn Error>> {
    let start: Timestamp = "2013-01-01T06:00:00Z".parse()?;
    let (clock, time) = Clock::virtual_at(start);
    let delays = Stream::with_clock(StreamConfig::new("delays").shards(2), clock)?;
    let tasks = delays.queue(QueueConfig {
        dead_letters: DeadLetters::BuiltIn { max_receives: 3 },
        ..QueueConfig::new("compensation")
    })?;

    let carriers = ["AA", "DL", "UA", "ZZ"].map(PartitionKey::new);
    for (number, carrier) in (0..40).zip(carriers.iter().cycle()) {
        delays.try_put(Record::new(carrier.clone()?, 60 + 10 * number))?;
        time.advance(Duration::from_secs(60));
    }

    // A worker takes some and dies: when their leases end, they are there again.
    let forgotten = tasks.try_receive(Receive::up_to(5))?;
    drop(forgotten);
    println!("in flight with a dead worker: {}", tasks.stats().in_flight);
    time.advance(Duration::from_secs(30));

    let (done, paid) = work(&tasks, &["AA", "DL", "UA"])?;
    let stats = tasks.stats();
    let dead = stats.visible_dead_letters;
    println!("{done} done for {paid} euros, {dead} put aside");
    assert_eq!((done, dead, stats.lapsed), (30, 10, 5));

    let letters = tasks.try_receive_dead_letters(Receive::up_to(1))?;
    for letter in &letters {
        println!(
            "for instance {}, {} minutes late, of {}, received {} times",
            letter.partition_key(),
            letter.value(),
            letter.arrived(),
            letter.receive_count(),
        );
        assert_eq!((letter.partition_key(), letter.receive_count()), ("ZZ", 3));
    }

    // The carrier is entered, and what was put aside is work again.
    assert_eq!(tasks.restore_dead_letters(&letters), [Ok(())]);
    let restored = tasks.restore_all_dead_letters() + 1;
    let (more, _) = work(&tasks, &["AA", "DL", "UA", "ZZ"])?;
    println!("{restored} restored, {more} more done");
    assert_eq!((restored, more), (10, 10));

    // The stream still has all of it, for queues and readers that come later.
    let audit = delays.queue(QueueConfig {
        start: QueueStart::TrimHorizon,
        ..QueueConfig::new("audit")
    })?;
    println!("history for an auditor: {} records", audit.stats().visible);
    assert_eq!((tasks.stats().visible, audit.stats().visible), (0, 40));
    Ok(())
}
