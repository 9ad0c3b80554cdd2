//! What a log costs beside time a record: memory, and the longest pause that a trim causes.
//!
//! A pause is the time of one call: an append of a writer, or a read of a reader at the end of the log. The scheduler
//! makes pauses of its own, of a tick or more, now here and now there; what a trim makes is there each time. So the
//! longest pause is that of the quietest of several rounds, and each round has a twin without a trim.

use std::time::Duration;

use sim_core::log::{Log, LogConfig, Pool, Read};

use crate::bars::Bar;
use crate::logs::{BYTES, Record};
use crate::memory::Meter;
use crate::pattern::Failure;
use crate::payload::Payload;
use crate::timing::{Stopwatch, Watchdog};

/// A pause that counts.
const LONG: Duration = Duration::from_millis(1);

/// The most bytes that a record may cost beside its own.
const OVERHEAD: f64 = 32.0;

/// How often writer and reader call once the log is full.
const CALLS: u64 = 2_000_000;

/// Rounds, of which the quietest counts.
const ROUNDS: usize = 7;

/// Whether the records are trimmed while writer and reader go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trim {
    /// All at once, half-way.
    All,
    /// Not at all: the twin.
    Nothing,
}

/// The longest calls of a run.
#[derive(Debug, Clone, Copy, Default)]
struct Pauses {
    append: Duration,
    read: Duration,
    /// The trim itself.
    trim: Duration,
}

impl Pauses {
    fn longest(self) -> Duration {
        self.append.max(self.read)
    }
}

/// Measures both for logs of so many records.
///
/// # Errors
/// When a reader did not read what was appended, or a thread panicked.
pub fn measure(records: u64, meter: Meter, watchdog: &Watchdog) -> Result<Vec<Bar>, Failure> {
    let overhead = watchdog.watch("memory of a log", || overhead(records / 10, meter));
    let quietest = |trim| {
        let mut least: Option<Pauses> = None;
        for _ in 0..ROUNDS {
            let one = watchdog.watch("pauses of a log", || {
                pauses(records, trim, CALLS.min(records))
            })?;
            if least.is_none_or(|least| one.longest() < least.longest()) {
                least = Some(one);
            }
        }
        Ok::<_, Failure>(least.unwrap_or_default())
    };
    let (with, without) = (quietest(Trim::All)?, quietest(Trim::Nothing)?);
    Ok(vec![
        Bar {
            aim: format!("memory: at most {OVERHEAD} bytes a record of {BYTES} beside its own"),
            measured: format!("{overhead:.1} bytes"),
            met: overhead <= OVERHEAD,
        },
        Bar {
            aim: format!("{records} records trimmed: no call of a writer or reader over {LONG:?}"),
            measured: format!(
                "in the quietest of {ROUNDS} rounds the longest append took {:?}, the longest read {:?}, the trim {:?}; without a trim {:?} and {:?}",
                with.append, with.read, with.trim, without.append, without.read,
            ),
            met: with.longest() <= LONG,
        },
    ])
}

/// Bytes a record beside its own, everything that the allocator was asked for.
fn overhead(records: u64, meter: Meter) -> f64 {
    (meter.start)();
    let log = Log::<()>::new(Pool::new(LogConfig::default(), 0));
    for number in 0..records {
        append(&log, number);
    }
    let held = (meter.held)();
    (meter.stop)();
    held as f64 / records as f64 - BYTES as f64
}

fn append(log: &Log<()>, number: u64) {
    let record = Record::make(number);
    assert!(log.append((), &[&record.0]).is_ok(), "the log is open");
}

/// Fills a log, and then has a writer and a reader go on at its end while what was filled is trimmed.
fn pauses(records: u64, trim: Trim, calls: u64) -> Result<Pauses, Failure> {
    // As a stream with retention has it: what is trimmed goes back to the pool, and what is appended comes from there.
    let room = (records + calls) as usize * (BYTES + OVERHEAD as usize);
    let pool = Pool::new(LogConfig::default(), 2 * room);
    let log = Log::<()>::new(pool.clone());
    pool.reserve(room);
    for number in 0..records {
        append(&log, number);
    }
    let end = records + calls;
    // The trimmer parks until the writer has gone some way: one that spun would make the pauses that are looked for.
    let (begin, began) = std::sync::mpsc::channel();
    let log = &log;
    let failed = |_| Failure("a thread of the run panicked".to_owned());
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let mut longest = Duration::ZERO;
            for number in records..end {
                let watch = Stopwatch::start();
                append(log, number);
                longest = longest.max(watch.elapsed());
                if number == records + calls / 4 {
                    // The trimmer waits for this; it is gone only when it panicked, which its join tells.
                    let _ = begin.send(());
                }
            }
            longest
        });
        let reader = scope.spawn(move || {
            let (mut longest, mut next) = (Duration::ZERO, records);
            let mut cursor = log.cursor(records);
            while next < end {
                let watch = Stopwatch::start();
                let read = cursor.batch(64, usize::MAX);
                longest = longest.max(watch.elapsed());
                match read {
                    Read::Record(batch) => next = batch.end(),
                    Read::Pending => std::hint::spin_loop(),
                    Read::End | Read::Trimmed { .. } => break,
                }
            }
            (longest, next)
        });
        let trimmer = scope.spawn(move || {
            let told = began.recv();
            if trim == Trim::Nothing || told.is_err() {
                return Duration::ZERO;
            }
            let watch = Stopwatch::start();
            log.trim_to(records);
            watch.elapsed()
        });
        let append = writer.join().map_err(failed)?;
        let trim = trimmer
            .join()
            .map_err(|_| Failure("the trim panicked".to_owned()))?;
        let (read, next) = reader
            .join()
            .map_err(|_| Failure("a thread of the run panicked".to_owned()))?;
        if next != end {
            return Err(Failure(format!("read up to {next}, not {end}")));
        }
        Ok(Pauses { append, read, trim })
    })
}
