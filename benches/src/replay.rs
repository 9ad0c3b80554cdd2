//! Replay: a log of 1 KiB records, read whole by four readers at once, against what the memory gives.
//!
//! The baseline copies as many bytes as a reader reads, from a buffer as large as the log to one that no cache holds,
//! also by four threads at once. A reader adds up every word of every record where it stands; so does the third peer,
//! over the plain buffer: nothing that reads can be faster.

use std::sync::{Arc, Barrier, OnceLock};

use parking_lot::Mutex;
use sim_core::log::{Log, LogConfig, Pool, Read};

use crate::pattern::{Failure, Outcome, Pattern, Peer};
use crate::timing::Stopwatch;

/// The bytes of a record.
const RECORD: usize = 1_024;

/// Readers at once.
const READERS: usize = 4;

/// Where a copying thread copies to, in turns: more than a processor's cache.
const TARGET: usize = 256 << 20;

/// The name of the baseline.
pub const MEMCPY: &str = "memcpy";

/// What is read: made once, kept for all rounds.
struct Source {
    flat: Vec<u8>,
    log: Log<()>,
    targets: Vec<Mutex<Vec<u8>>>,
    /// The sum of all words.
    sum: u64,
}

impl Source {
    fn of(records: u64) -> Self {
        let log = Log::<()>::new(Pool::new(LogConfig::default(), 0));
        let mut flat = Vec::with_capacity(records as usize * RECORD);
        let mut record = [0_u8; RECORD];
        for number in 0..records {
            for (index, word) in record.chunks_exact_mut(8).enumerate() {
                let value = (number << 7 | index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                word.copy_from_slice(&value.to_le_bytes());
            }
            flat.extend_from_slice(&record);
            assert!(log.append((), &[&record]).is_ok(), "the log is open");
        }
        let sum = words(&flat);
        let target = TARGET.min(flat.len());
        let targets = (0..READERS).map(|_| Mutex::new(vec![1; target])).collect();
        Self {
            flat,
            log,
            targets,
            sum,
        }
    }
}

/// The sum of all words.
#[inline]
fn words(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8);
    words.fold(0, |sum: u64, word| {
        let word = word
            .first_chunk()
            .map_or(0, |word| u64::from_le_bytes(*word));
        sum.wrapping_add(word)
    })
}

/// Has four threads do the same at once, each for itself, and compares what they found.
fn at_once(expected: u64, work: impl Fn(usize) -> u64 + Sync) -> Outcome {
    let barrier = Barrier::new(READERS + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..READERS)
            .map(|index| {
                let (barrier, work) = (&barrier, &work);
                scope.spawn(move || {
                    barrier.wait();
                    work(index)
                })
            })
            .collect();
        let watch = Stopwatch::start();
        barrier.wait();
        for thread in threads {
            let found = thread
                .join()
                .map_err(|_| Failure("a thread of the run panicked".to_owned()))?;
            if found != expected {
                return Err(Failure(format!("read {found}, not {expected}")));
            }
        }
        Ok(watch.elapsed())
    })
}

fn read_log(log: &Log<()>) -> u64 {
    let mut cursor = log.cursor(0);
    let mut sum = 0_u64;
    while let Read::Record(batch) = cursor.batch(usize::MAX, usize::MAX) {
        for (_, (), bytes) in batch.iter() {
            sum = sum.wrapping_add(words(bytes));
        }
    }
    sum
}

/// The pattern over a log of so many records; a round always reads the whole of it.
#[must_use]
pub fn pattern(records: u64) -> Pattern {
    let source = Arc::new(OnceLock::new());
    let peer = |name: &str, run: fn(&Source) -> Outcome| {
        let source = Arc::clone(&source);
        Peer::new(name, move |_| {
            run(source.get_or_init(|| Source::of(records)))
        })
    };
    Pattern {
        name: "replay-1KiB-4-readers".to_owned(),
        baseline: MEMCPY,
        count: records,
        peers: vec![
            peer(MEMCPY, |source| {
                at_once(source.flat.len() as u64, |index| {
                    let mut target = source.targets[index].lock();
                    let mut copied = 0;
                    for piece in source.flat.chunks(target.len()) {
                        target[..piece.len()].copy_from_slice(piece);
                        std::hint::black_box(&mut *target);
                        copied += piece.len() as u64;
                    }
                    copied
                })
            }),
            peer("plain-sum", |source| {
                at_once(source.sum, |_| words(&source.flat))
            }),
            peer("sim-log", |source| {
                at_once(source.sum, |_| read_log(&source.log))
            }),
        ],
    }
}
