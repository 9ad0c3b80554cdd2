//! A pool of workers over a stream: four threads share its shards, one of them crashes with records in hand, the stream
//! is split while it is read, and no flight is lost.
//!
//! Run with `cargo run -p sim-stream --example consumer_group`.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use sim_core::sync::{Mutex, thread};
use sim_stream::{
    ConsumerGroup, GroupConfig, NextError, PartitionKey, Read, Record, Stream, StreamConfig, Worker,
};

const CARRIERS: [&str; 6] = ["AA", "B6", "DL", "EV", "UA", "WN"];
const FLIGHTS: u32 = 10_000;

/// How many flights of each carrier have been processed: flights are numbered per carrier.
type Board = Mutex<BTreeMap<String, u32>>;

fn main() -> Result<(), Box<dyn Error>> {
    let stream = Stream::new(StreamConfig::new("departures").shards(4))?;
    let group = ConsumerGroup::new(
        &stream,
        GroupConfig {
            // Short, so that the crash below is found out soon. The default is 10 seconds.
            lease_duration: Duration::from_millis(200),
            read: Read::at_most(500),
            ..GroupConfig::new("board")
        },
    )?;
    let board = Board::default();
    for flight in 0..FLIGHTS / 2 {
        put(&stream, flight)?;
    }
    crash(group.join()?)?;
    thread::scope(|scope| -> Result<(), Box<dyn Error>> {
        for _ in 0..3 {
            let worker = group.join()?;
            let board = &board;
            scope.spawn(move || work(worker, board));
        }
        stream.split_evenly(stream.shards()[0].id)?;
        for flight in FLIGHTS / 2..FLIGHTS {
            put(&stream, flight)?;
        }
        stream.close();
        Ok(())
    })?;

    for (carrier, count) in board.lock().iter() {
        println!("{carrier}: {count} flights in order");
        assert_eq!(*count, FLIGHTS);
    }
    let leases = group.stats().leases;
    println!(
        "{} leases taken over, {} shards processed to their end",
        leases.taken_over, leases.finished
    );
    assert_eq!(leases.finished, 6);
    Ok(())
}

/// Puts one flight of each carrier.
fn put(stream: &Stream<u32>, flight: u32) -> Result<(), Box<dyn Error>> {
    for carrier in CARRIERS {
        stream.try_put(Record::new(PartitionKey::new(carrier)?, flight))?;
    }
    Ok(())
}

/// Takes a batch and is never heard of again.
fn crash(mut worker: Worker<u32>) -> Result<(), NextError> {
    let batch = worker.next_blocking()?;
    println!(
        "{} crashes with {} records of {} in hand",
        worker.id(),
        batch.len(),
        batch.shard_id()
    );
    Ok(())
}

/// Processes batches until the stream is closed and processed to its end.
fn work(mut worker: Worker<u32>, board: &Board) {
    loop {
        match worker.next_blocking() {
            Ok(batch) => {
                for record in &batch {
                    let mut board = board.lock();
                    let next = board.entry(record.partition_key().to_owned()).or_default();
                    // What was processed before a crash may come again.
                    *next = (*next).max(record.value() + 1);
                }
                if let Err(lost) = batch.checkpoint() {
                    eprintln!("{}: another worker goes on: {lost}", worker.id());
                }
            }
            Err(NextError::Closed) => return,
            Err(error) => eprintln!("{}: {error}", worker.id()),
        }
    }
}
