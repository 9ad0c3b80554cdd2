//! How a service is tested against its stream: a month passes in no time, and the same way each time.
//!
//! Run with `cargo run -p sim-stream --example virtual_time_test`.

use std::time::Duration;

use sim_core::clock::Clock;
use sim_core::time::Timestamp;
use sim_stream::{
    Cursor, PartitionKey, Read, ReadError, Record, StartingPosition, Stream, StreamConfig,
};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// The code under test: counts what it reads, and what it was too late for.
struct Report {
    cursor: Cursor<u32>,
    read: u64,
    missed: u64,
}

impl Report {
    fn catch_up(&mut self) -> Result<(), ReadError> {
        loop {
            match self.cursor.try_read(Read::default()) {
                Ok(records) if records.is_empty() => return Ok(()),
                Ok(records) => self.read += records.len() as u64,
                Err(ReadError::Trimmed { lost, .. }) => self.missed += lost,
                Err(error) => return Err(error),
            }
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let start: Timestamp = "2013-01-01T00:00:00Z".parse()?;
    let (clock, time) = Clock::virtual_at(start);
    let config = StreamConfig {
        retention: 7 * DAY,
        ..StreamConfig::new("readings")
    };
    let stream: Stream<u32> = Stream::with_clock(config, clock.clone())?;
    let meter = PartitionKey::new("meter-1")?;
    let shard = stream.shards()[0].id;
    let mut report = Report {
        cursor: stream.cursor(shard, StartingPosition::TrimHorizon)?,
        read: 0,
        missed: 0,
    };

    // A reading an hour, for thirty days. The report runs each day, but is off from the 10th to the 20th.
    for hour in 0..30 * 24 {
        stream.try_put(Record::new(meter.clone(), hour))?;
        time.advance(HOUR);
        let day = hour / 24;
        if hour % 24 == 23 && !(10..20).contains(&day) {
            report.catch_up()?;
        }
    }
    println!(
        "{}: {} readings read, {} missed",
        clock.timestamp(clock.now()),
        report.read,
        report.missed
    );
    // It was off for eleven days, and the stream keeps seven.
    assert_eq!(report.read + report.missed, 30 * 24);
    assert_eq!(report.missed, 4 * 24 + 1);

    // Yesterday's readings, by the time at which they arrived.
    let yesterday = StartingPosition::AtTimestamp(clock.timestamp(clock.now()) - DAY);
    let records = stream.cursor(shard, yesterday)?.try_read(Read::default())?;
    println!("{} readings of the last day", records.len());
    assert_eq!(records.len(), 24);

    // A week later nothing is left, and no second has really passed.
    time.advance(7 * DAY);
    let stats = stream.stats();
    println!(
        "{}: {} of {} records have left",
        clock.timestamp(clock.now()),
        stats.expired_records,
        stats.incoming_records
    );
    assert_eq!((stats.records, stats.expired_records), (0, 30 * 24));
    Ok(())
}
