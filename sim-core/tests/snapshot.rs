//! The snapshot cell: who loaded a value keeps it, no update is lost, nothing is dropped twice.
#![cfg(not(loom))]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sim_core::snapshot::Snapshot;

struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(alive))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn who_loaded_a_value_keeps_it() {
    let cell = Snapshot::new(1);
    let before = cell.load();
    let shared = before.to_arc();
    cell.store(Arc::new(2));
    assert_eq!(
        (*before, *shared, *cell.load(), *cell.load_arc()),
        (1, 1, 2, 2)
    );
    assert!(Arc::ptr_eq(&before.into_arc(), &shared));
    assert_eq!(format!("{cell:?} {:?}", cell.load()), "Snapshot(2) 2");
    assert_eq!(*Snapshot::<u8>::default().load(), 0);
}

#[test]
fn an_update_that_fails_changes_nothing() {
    let cell = Snapshot::new(1);
    assert_eq!(cell.try_update(|value| Err::<i32, _>(*value + 1)), Err(2));
    assert_eq!(*cell.load(), 1);
    assert_eq!(
        cell.try_update(|value| Ok::<_, ()>(*value + 1)).as_deref(),
        Ok(&2)
    );
    assert_eq!(*cell.update(|value| value * 5), 10);
    assert_eq!(*cell.load(), 10);
}

#[test]
fn an_update_that_panics_changes_nothing_and_blocks_nobody() {
    let cell = Snapshot::new(1);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        cell.update(|_| panic!("no value"));
    }));
    assert!(panicked.is_err());
    assert_eq!(*cell.update(|value| value + 1), 2);
}

#[test]
fn no_update_of_many_threads_is_lost() {
    let cell = Snapshot::new((0u64, 0u64));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    cell.update(|(a, b)| (a + 1, b + 2));
                }
            });
        }
        scope.spawn(|| {
            let mut last = 0;
            while last < 6000 {
                let value = cell.load();
                assert_eq!(value.0 * 2, value.1);
                assert!(value.0 >= last);
                last = value.0;
            }
        });
    });
    assert_eq!(*cell.load(), (6000, 12000));
}

#[test]
fn every_value_is_dropped_once() {
    let alive = Arc::new(AtomicUsize::new(0));
    let cell = Snapshot::new(Counted::new(&alive));
    let first = cell.load();
    let second = Arc::new(Counted::new(&alive));
    cell.store(Arc::clone(&second));
    assert_eq!(alive.load(Ordering::SeqCst), 2);
    drop(first);
    assert_eq!(alive.load(Ordering::SeqCst), 1);
    cell.update(|_| Counted::new(&alive));
    assert_eq!(alive.load(Ordering::SeqCst), 2);
    drop(second);
    assert_eq!(alive.load(Ordering::SeqCst), 1);
    drop(cell);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}
