//! The log under loom: chunks of two records, one chunk kept by the pool.
//!
//! Values have a cell that is written before the append and read after it, without synchronization of their own, so that
//! a record that is seen too early fails the model. A chunk marks where it is accessed and where it ends.
//!
//! # Mutations
//! Each was made by hand, alone, and the tests named were seen to fail; others may fail too.
//!
//! | what was weakened | seen to fail |
//! | --- | --- |
//! | commit: SeqCst to Relaxed | `a_reader_sees_a_record_whole_or_not_at_all`, `a_batch_of_a_reader_has_whole_records_only`, `two_writers_get_two_positions_and_no_reader_sees_a_gap` |
//! | commit of a batch: Release to Relaxed | `a_batch_of_a_writer_is_seen_from_its_front` |
//! | `is_committed`: SeqCst to Relaxed | `a_reader_sees_a_record_whole_or_not_at_all`, `a_batch_of_a_writer_is_seen_from_its_front`, `a_record_that_is_late_in_a_full_chunk_is_not_skipped` |
//! | `committed_bytes`: Acquire to Relaxed | `a_batch_of_a_reader_has_whole_records_only` |
//! | claim: load and store, no compare-and-swap | `two_writers_get_two_positions_and_no_reader_sees_a_gap`, `a_close_is_final_and_exact` |
//! | roll: not looked whether somebody else did | `two_writers_find_the_chunk_full_and_bring_one_next` |
//! | roll: not looked whether the log is closed | `a_close_is_final_and_exact` |
//! | roll: full chunk not sealed | `two_writers_find_the_chunk_full_and_bring_one_next`, `a_close_is_final_and_exact`, `no_record_is_lost_to_a_shrink` |
//! | roll: own records not claimed in the new chunk | `two_writers_find_the_chunk_full_and_bring_one_next`, `a_record_that_is_late_in_a_full_chunk_is_not_skipped` |
//! | roll: new chunk not linked | `a_record_that_is_late_in_a_full_chunk_is_not_skipped`, `a_trimmed_chunk_is_used_again_when_its_reader_has_left`, `who_waits_is_woken_by_a_record_in_the_next_chunk_and_by_the_end` |
//! | roll: end taken before the full chunk is sealed | `a_record_fits_where_a_batch_did_not_until_the_chunk_is_sealed` |
//! | close: without the lock of rollers | `a_close_is_final_and_exact` |
//! | claim: closed not heeded | `a_close_is_final_and_exact` |
//! | read: a record that is claimed and not committed taken for the end | `a_reader_sees_the_end_after_the_last_record` |
//! | read: start not heeded | `a_trimmed_chunk_is_used_again_when_its_reader_has_left` (the search never ends) |
//! | trim: start raised after the chunks were let go | the same |
//! | trim: an open chunk let go | `no_record_is_lost_to_a_shrink` (the same) |
//! | shrink: sealed whatever was added meanwhile | `no_record_is_lost_to_a_shrink` |
//! | recycling: the epoch stays | `a_chunk_of_another_log_shows_nothing_of_its_former_life`, `a_trimmed_chunk_is_used_again_when_its_reader_has_left` |
//! | `Event::notify_all`: its flag not raised | `two_who_wait_are_both_woken_by_one_record` |
//!
//! No model fails, and why they stand: `SeqCst` weakened to `Release` or `Acquire` in commit, seal, close and the reads of the
//! tail word, and the fences of `append_batch`, `Shared::show` and `Cursor::place` left out. They are one side of the
//! store-load pair with the flags of an [`Event`], which loom does not model but by the fences in `event.rs`; it is argued
//! in `log.rs`, "Ordering". The claim is `Relaxed` already. Under loom a [`Link`](sim_core::sync::Link) and a
//! [`Snapshot`](sim_core::snapshot::Snapshot) are mutexes: what they order is not weakened here.
#![cfg(loom)]

use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};

use sim_core::clock::Clock;
use sim_core::event::Event;
use sim_core::log::{Cursor, Log, LogConfig, Pool, Read};
use sim_core::sync::{Arc, UnsafeCell, thread};
use sim_core::time::Instant;
use sim_core::wait::{Attempt, until_blocking};

/// Runs a model and asserts that it explored at least so many interleavings.
fn explore(preemptions: Option<usize>, floor: usize, model: impl Fn() + Send + Sync + 'static) {
    let explored: &'static AtomicUsize = Box::leak(Box::new(AtomicUsize::new(0)));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        explored.fetch_add(1, StdOrdering::Relaxed);
        model();
    });
    let explored = explored.load(StdOrdering::Relaxed);
    println!("explored {explored}");
    assert!(explored >= floor, "explored {explored} interleavings only");
}

/// A value with a cell that is written without synchronization of its own.
struct Value(UnsafeCell<u64>);

impl Value {
    fn new(value: u64) -> Self {
        let cell = UnsafeCell::new(0);
        // SAFETY: nobody else has it yet.
        cell.with_mut(|cell| unsafe { *cell = value });
        Self(cell)
    }

    fn read(&self) -> u64 {
        // SAFETY: loom checks that nobody writes the cell.
        self.0.with(|cell| unsafe { *cell })
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: loom checks that nobody reads the cell.
        self.0.with_mut(|cell| unsafe { *cell = u64::MAX });
    }
}

// SAFETY: loom checks the accesses to the cell.
unsafe impl Sync for Value {}
// SAFETY: as above.
unsafe impl Send for Value {}

/// A log with chunks of two records; one goes back to the pool.
fn log() -> Log<Value> {
    log_of(1024)
}

/// A log with chunks of one record for 512 bytes.
fn log_of(chunk_bytes: usize) -> Log<Value> {
    let mut config = LogConfig::default();
    config.chunk_bytes = chunk_bytes;
    config.first_chunk_bytes = chunk_bytes;
    Log::new(Pool::new(config, chunk_bytes))
}

/// Reads what is there, from a position on, one by one.
fn read(log: &Log<Value>, from: u64) -> Vec<u64> {
    let mut cursor = log.cursor(from);
    let mut found = Vec::new();
    while let Read::Record(entry) = cursor.next() {
        assert_eq!(entry.position(), from + found.len() as u64);
        found.push(entry.value().read());
    }
    found
}

/// Reads what is there, from a position on, in batches.
fn read_batches(log: &Log<Value>, from: u64) -> Vec<u64> {
    let mut cursor = log.cursor(from);
    let mut found = Vec::new();
    while let Read::Record(batch) = cursor.batch(9, usize::MAX) {
        found.extend(batch.iter().map(|(_, value, _)| value.read()));
    }
    found
}

fn append(log: &Log<Value>, value: u64) -> Option<u64> {
    log.append(Value::new(value), &[]).ok()
}

/// Appends values that must be taken.
fn fill(log: &Log<Value>, values: impl IntoIterator<Item = u64>) {
    for value in values {
        assert!(append(log, value).is_some());
    }
}

#[test]
fn a_reader_sees_a_record_whole_or_not_at_all() {
    explore(None, 1000, || {
        let log = log();
        fill(&log, [1]);
        let writer = log.clone();
        let writer = thread::spawn(move || assert_eq!(append(&writer, 2), Some(1)));
        let reader = log.clone();
        let reader = thread::spawn(move || {
            let found = read(&reader, 0);
            assert!(found == [1] || found == [1, 2], "{found:?}");
        });
        writer.join().unwrap();
        reader.join().unwrap();
        assert_eq!(read(&log, 0), [1, 2]);
    });
}

#[test]
fn a_batch_of_a_reader_has_whole_records_only() {
    explore(None, 1500, || {
        let log = log();
        fill(&log, [1]);
        let writer = log.clone();
        let writer = thread::spawn(move || assert_eq!(append(&writer, 2), Some(1)));
        let reader = log.clone();
        let reader = thread::spawn(move || {
            let found = read_batches(&reader, 0);
            assert!(found == [1] || found == [1, 2], "{found:?}");
        });
        writer.join().unwrap();
        reader.join().unwrap();
        assert_eq!(read_batches(&log, 0), [1, 2]);
    });
}

#[test]
fn a_batch_of_a_writer_is_seen_from_its_front() {
    explore(Some(3), 400, || {
        // The chunk is there, so that only the entries order what is read.
        let log = log_of(2048);
        fill(&log, [1]);
        let writer = log.clone();
        let writer = thread::spawn(move || {
            let items = [2, 3].map(|value| (Value::new(value), [])).into();
            assert_eq!(writer.append_batch(items).ok(), Some(1..3));
        });
        let reader = log.clone();
        let reader = thread::spawn(move || {
            let found = read(&reader, 1);
            assert_eq!(found, [2, 3][..found.len()]);
            let found = read_batches(&reader, 1);
            assert_eq!(found, [2, 3][..found.len()]);
        });
        writer.join().unwrap();
        reader.join().unwrap();
        assert_eq!((read(&log, 0).len(), log.chunks()), (3, 1));
    });
}

#[test]
fn two_writers_get_two_positions_and_no_reader_sees_a_gap() {
    explore(Some(3), 8000, || {
        let log = log_of(2048);
        fill(&log, [7]); // the chunk has room for both
        let writers = [10, 20].map(|value| {
            let log = log.clone();
            thread::spawn(move || append(&log, value).unwrap())
        });
        let reader = log.clone();
        let reader = thread::spawn(move || read(&reader, 1));
        let [first, second] = writers.map(|writer| writer.join().unwrap());
        let seen = reader.join().unwrap();
        let all = read(&log, 1);
        assert_eq!(all.len(), 2);
        assert_eq!(
            (all[first as usize - 1], all[second as usize - 1]),
            (10, 20)
        );
        assert_eq!(seen, all[..seen.len()]);
    });
}

#[test]
fn two_writers_find_the_chunk_full_and_bring_one_next() {
    explore(Some(4), 500, || {
        let log = log();
        fill(&log, [1, 2]);
        let writers = [10, 20].map(|value| {
            let log = log.clone();
            thread::spawn(move || append(&log, value).unwrap())
        });
        let [first, second] = writers.map(|writer| writer.join().unwrap());
        assert_eq!(log.chunks(), 2);
        assert_eq!(log.end(), 4);
        let all = read(&log, 0);
        assert_eq!(all.len(), 4);
        assert_eq!((all[first as usize], all[second as usize]), (10, 20));
    });
}

#[test]
fn a_record_that_is_late_in_a_full_chunk_is_not_skipped() {
    // One writer has the last place of the chunk; the other finds it full, and may commit first.
    explore(Some(3), 10000, || {
        let log = log();
        fill(&log, [1]);
        let writers = [10, 20].map(|value| {
            let log = log.clone();
            thread::spawn(move || append(&log, value).unwrap())
        });
        let reader = log.clone();
        let reader = thread::spawn(move || read(&reader, 0));
        let [first, second] = writers.map(|writer| writer.join().unwrap());
        let seen = reader.join().unwrap();
        let all = read(&log, 0);
        assert_eq!(all.len(), 3);
        assert_eq!((all[first as usize], all[second as usize]), (10, 20));
        assert_eq!(seen, all[..seen.len()]);
    });
}

#[test]
fn a_record_fits_where_a_batch_did_not_until_the_chunk_is_sealed() {
    explore(Some(4), 600, || {
        let log = log();
        fill(&log, [1]);
        let writer = log.clone();
        let writer = thread::spawn(move || {
            let items = [10, 11].map(|value| (Value::new(value), [])).into();
            writer.append_batch(items).unwrap().start
        });
        let other = log.clone();
        let other = thread::spawn(move || append(&other, 20).unwrap());
        let batch = writer.join().unwrap() as usize;
        let single = other.join().unwrap() as usize;
        let all = read(&log, 0);
        assert_eq!(all.len(), 4);
        assert_eq!((&all[batch..batch + 2], all[single]), (&[10, 11][..], 20));
    });
}

#[test]
fn a_close_is_final_and_exact() {
    explore(Some(4), 1000, || {
        let log = log();
        fill(&log, [1]);
        let writer = log.clone();
        let writer = thread::spawn(move || [append(&writer, 2), append(&writer, 3)]);
        let closer = log.clone();
        let closer = thread::spawn(move || {
            let end = closer.close();
            assert_eq!(append(&closer, 9), None);
            assert_eq!(closer.end(), end);
            end
        });
        let appended = writer.join().unwrap();
        let end = closer.join().unwrap();
        let count = appended.iter().flatten().count() as u64;
        assert_eq!(end, 1 + count);
        assert_eq!(read(&log, 0), [1, 2, 3][..end as usize]);
        assert_eq!((log.end(), log.close()), (end, end));
    });
}

#[test]
fn a_reader_sees_the_end_after_the_last_record() {
    explore(Some(3), 10000, || {
        let log = log();
        let writer = log.clone();
        let writer = thread::spawn(move || append(&writer, 1).is_some());
        let closer = log.clone();
        let closer = thread::spawn(move || closer.close());
        let reader = log.clone();
        let reader = thread::spawn(move || {
            let mut cursor = reader.cursor(0);
            let mut found = 0;
            for _ in 0..2 {
                match cursor.next() {
                    Read::Record(entry) => found += entry.value().read(),
                    Read::End => return Some(found),
                    _ => {}
                }
            }
            None
        });
        let appended = writer.join().unwrap();
        let end = closer.join().unwrap();
        assert_eq!(end, u64::from(appended));
        if let Some(found) = reader.join().unwrap() {
            assert_eq!(found, end);
        }
    });
}

#[test]
fn a_trimmed_chunk_is_used_again_when_its_reader_has_left() {
    explore(Some(3), 20000, || {
        let log = log();
        fill(&log, [1, 2, 3]);
        let trimmer = log.clone();
        let trimmer = thread::spawn(move || {
            trimmer.trim_to(2);
            // In the chunk of the former two, or in one more.
            fill(&trimmer, [4, 5]);
            read(&trimmer, 2)
        });
        let reader = log.clone();
        let reader = thread::spawn(move || {
            let mut cursor = reader.cursor(0);
            let mut found = Vec::new();
            loop {
                match cursor.next() {
                    Read::Record(entry) => found.push((entry.position(), entry.value().read())),
                    Read::Trimmed { resume_at } => assert_eq!(resume_at, 2),
                    Read::Pending => break,
                    Read::End => unreachable!("nobody closed it"),
                }
            }
            found
        });
        assert_eq!(trimmer.join().unwrap(), [3, 4, 5]);
        let found = reader.join().unwrap();
        for pair in found.windows(2) {
            let follows = pair[1].0 == pair[0].0 + 1;
            let skips = pair[0].0 < 2 && pair[1].0 == 2;
            assert!(follows || skips, "{found:?}");
        }
        assert!(found.iter().all(|(position, value)| *value == position + 1));
        assert_eq!(log.pool().allocated_bytes(), log.pool().kept_bytes() + 2048);
    });
}

#[test]
fn a_chunk_of_another_log_shows_nothing_of_its_former_life() {
    explore(Some(3), 2000, || {
        let log = log();
        fill(&log, [1, 2, 3]);
        let next = Log::new(Arc::clone(log.pool()));
        let reader = next.clone();
        let writer = thread::spawn(move || {
            log.trim_to(2);
            fill(&next, [11, 12]);
        });
        let reader = thread::spawn(move || {
            let found = read(&reader, 0);
            assert_eq!(found, [11, 12][..found.len()]);
            let found = read_batches(&reader, 0);
            assert_eq!(found, [11, 12][..found.len()]);
        });
        writer.join().unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn a_held_record_outlives_the_trim_and_the_log() {
    explore(None, 100, || {
        let log = log();
        fill(&log, [1, 2, 3]);
        let entry = log.get(1).unwrap();
        let batch = log.cursor(0).batch(2, usize::MAX).record().unwrap();
        let pool = Arc::clone(log.pool());
        let trimmer = thread::spawn(move || {
            log.trim_to(3);
            drop(log);
        });
        let holder = thread::spawn(move || {
            assert_eq!(entry.value().read(), 2);
            drop(entry);
            assert_eq!(batch.get(0).unwrap().0.read(), 1);
        });
        trimmer.join().unwrap();
        holder.join().unwrap();
        assert_eq!(pool.allocated_bytes(), 1024);
    });
}

#[test]
fn no_record_is_lost_to_a_shrink() {
    explore(Some(4), 800, || {
        let log = log();
        fill(&log, [1]);
        let writer = log.clone();
        let writer = thread::spawn(move || append(&writer, 2));
        let trimmer = log.clone();
        let trimmer = thread::spawn(move || {
            trimmer.trim_to(1);
            trimmer.shrink();
        });
        assert_eq!(writer.join().unwrap(), Some(1));
        trimmer.join().unwrap();
        assert_eq!(read(&log, 1), [2]);
        assert_eq!(append(&log, 3), Some(2));
        assert_eq!(read(&log, 1), [2, 3]);
    });
}

/// Waits for the next record, or for the end.
fn wait(event: &Event, cursor: &mut Cursor<Value>) -> Option<u64> {
    let found = until_blocking(event, &Clock::system(), Instant::NEVER, || {
        match cursor.next() {
            Read::Record(entry) => Attempt::Done {
                value: Some(entry.value().read()),
                more: false,
            },
            Read::End => Attempt::Done {
                value: None,
                more: false,
            },
            _ => Attempt::Pending {
                wake_at: Instant::NEVER,
            },
        }
    });
    found.unwrap()
}

#[test]
fn who_waits_is_woken_by_a_record_in_the_next_chunk_and_by_the_end() {
    explore(Some(3), 200, || {
        let log = log();
        fill(&log, [1, 2]);
        let event = Arc::new(Event::new());
        let (writer, notifier) = (log.clone(), Arc::clone(&event));
        let writer = thread::spawn(move || {
            fill(&writer, [3]);
            notifier.notify_all();
            writer.close();
            notifier.notify_all();
        });
        let reader = thread::spawn(move || {
            let mut cursor = log.cursor(2);
            assert_eq!(wait(&event, &mut cursor), Some(3));
            assert_eq!(wait(&event, &mut cursor), None);
        });
        writer.join().unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn two_who_wait_are_both_woken_by_one_record() {
    explore(Some(2), 5000, || {
        let log = log();
        let event = Arc::new(Event::new());
        let (writer, notifier) = (log.clone(), Arc::clone(&event));
        let writer = thread::spawn(move || {
            let items = [1, 2].map(|value| (Value::new(value), [])).into();
            assert!(writer.append_batch(items).is_ok());
            notifier.notify_all();
        });
        let readers = [(); 2].map(|()| {
            let (log, event) = (log.clone(), Arc::clone(&event));
            thread::spawn(move || {
                let mut cursor = log.cursor(0);
                assert_eq!(wait(&event, &mut cursor), Some(1));
            })
        });
        writer.join().unwrap();
        for reader in readers {
            reader.join().unwrap();
        }
    });
}
