//! The log under loom: chunks of two records, one chunk kept by the pool.
//!
//! Values have a cell that is written before the append and read after it, without synchronization of their own, so that
//! a record that is seen too early fails the model. A chunk marks where it is accessed and where it ends.
//!
//! # Mutations
//! Each was made by hand, alone, and the tests named were seen to fail.
//!
//! | what was weakened | seen to fail |
//! | --- | --- |
//! | commit: SeqCst to Relaxed | `a_reader_sees_a_record_whole_or_not_at_all` |
#![cfg(loom)]

use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};

use sim_core::log::{Log, LogConfig, Pool, Read};
use sim_core::sync::{UnsafeCell, thread};

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

/// A log whose full chunks go back to the pool.
fn log() -> Log<Value> {
    let mut config = LogConfig::default();
    config.chunk_bytes = 1024;
    config.first_chunk_bytes = 1024;
    Log::new(Pool::new(config, 1024))
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

#[test]
fn a_reader_sees_a_record_whole_or_not_at_all() {
    explore(None, 10, || {
        let log = log();
        assert!(log.append(Value::new(1), &[]).is_ok());
        let writer = log.clone();
        let writer = thread::spawn(move || assert!(writer.append(Value::new(2), &[b"x"]).is_ok()));
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
