//! Models of the lease rings: what is being moved is never overlooked, and every entry leaves once.
//!
//! The ring below has models of its own (`loom_ring.rs`); these are about `front`, the staged entries and the
//! claims of durations. Batches are of two entries here, and a ring with an entry that nobody wants counts as long.
//!
//! # Mutation table
//!
//! Each line was changed by hand and the tests named were seen to fail.
//!
//! | changed in `deadline.rs` | tests that fail |
//! | --- | --- |
//! | `front` is not set to `MOVING` before a batch is taken | `an_entry_that_is_being_staged_...`, `..._moved_out_...`, `two_that_serve_...` |
//! | `front` is set to `MOVING` after the batch is taken | the same three |
//! | no second look at `front` when the ring was found empty | the same three |
//! | `front` moves on before `move_out` is called | `an_entry_that_is_being_moved_out_...` |
//! | the deadline is not compared again under the lock | `every_entry_leaves_once_...` |
//! | who loses the claim of a lane does not look whose it is | `a_duration_is_claimed_once` |
//!
//! Not caught by any model: the ring's claim (`unbounded.rs`) weakened to `Relaxed`, and its `is_empty` loading the
//! head `Relaxed`, on which the argument in `deadline.rs` relies. Under loom the shim turns the loads of the ring's
//! tail, which both sides make, into read-modify-writes that synchronise by themselves. The argument for
//! them is the ordinary one of a message: `front` stored, head claimed with release; head loaded with acquire,
//! `front` loaded. (The accesses to `front` are relaxed as shipped, so there is nothing in them to weaken.)
#![cfg(loom)]

use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};
use std::time::Duration;

use sim_core::deadline::{LeaseRing, LeaseRings};
use sim_core::sync::{Arc, Mutex, thread};
use sim_core::time::Instant;

fn at(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

/// Runs a model and asserts that it explored at least `floor` interleavings.
fn explore(floor: usize, explored: &'static AtomicUsize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_branches = 20_000;
    builder.check(move || {
        explored.fetch_add(1, StdOrdering::Relaxed);
        model();
    });
    let count = explored.load(StdOrdering::Relaxed);
    println!("{count} interleavings explored");
    assert!(
        count >= floor,
        "{count} interleavings explored, {floor} expected"
    );
}

/// A ring with the leases 1, 2, ... whose deadlines are a hundred times as much.
fn ring_of(leases: u64) -> Arc<LeaseRing> {
    let ring = LeaseRing::new();
    for lease in 1..=leases {
        ring.push(at(lease * 100), lease);
    }
    Arc::new(ring)
}

#[test]
fn an_entry_that_is_being_staged_is_not_overlooked() {
    static EXPLORED: AtomicUsize = AtomicUsize::new(0);
    explore(250, &EXPLORED, || {
        let ring = ring_of(2);
        let trimmer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                ring.trim(|_, lease| lease != 1, 8);
            })
        };
        let asker = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.next())
        };
        trimmer.join().unwrap();
        // The second lease stands there all the time; the first may have been seen.
        let next = asker.join().unwrap();
        assert!(next == Some(at(100)) || next == Some(at(200)), "{next:?}");
    });
}

#[test]
fn an_entry_that_is_being_moved_out_is_in_one_of_both_places() {
    static EXPLORED: AtomicUsize = AtomicUsize::new(0);
    explore(700, &EXPLORED, || {
        let ring = ring_of(1);
        let wheel = Arc::new(Mutex::new(None));
        let mover = {
            let (ring, wheel) = (Arc::clone(&ring), Arc::clone(&wheel));
            thread::spawn(move || {
                ring.overflow(
                    0,
                    |_, _| true,
                    8,
                    |deadline, _| *wheel.lock() = Some(deadline),
                );
            })
        };
        let asker = {
            let (ring, wheel) = (Arc::clone(&ring), Arc::clone(&wheel));
            // The ring first, then the new place.
            thread::spawn(move || ring.next().or_else(|| *wheel.lock()))
        };
        mover.join().unwrap();
        assert_eq!(asker.join().unwrap(), Some(at(100)));
        // When the asker held the lock, the mover did nothing.
        let moved = wheel.lock().is_some();
        assert_ne!(moved, ring.next().is_some(), "in one place in the end");
    });
}

#[test]
fn every_entry_leaves_once_and_none_before_its_deadline() {
    static EXPLORED: AtomicUsize = AtomicUsize::new(0);
    explore(250, &EXPLORED, || {
        let ring = ring_of(2);
        let pusher = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                ring.push(at(300), 3);
            })
        };
        let server = |now| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                let mut served = Vec::new();
                while let Some((deadline, lease)) = ring.pop_due(at(now)) {
                    assert!(deadline <= at(now));
                    served.push(lease);
                }
                served
            })
        };
        let first = server(200);
        pusher.join().unwrap();
        let mut all = first.join().unwrap();
        assert_eq!(all, [1, 2], "all that was due was served");
        while let Some((_, lease)) = ring.pop_due(at(300)) {
            all.push(lease);
        }
        assert_eq!(all, [1, 2, 3]);
        assert!(ring.is_empty());
    });
}

#[test]
fn two_that_serve_at_once_share_the_entries() {
    static EXPLORED: AtomicUsize = AtomicUsize::new(0);
    explore(500, &EXPLORED, || {
        let ring = ring_of(2);
        let servers: Vec<_> = (0..2)
            .map(|_| {
                let ring = Arc::clone(&ring);
                thread::spawn(move || ring.pop_due(at(200)).map(|(_, lease)| lease))
            })
            .collect();
        let mut all: Vec<_> = servers
            .into_iter()
            .filter_map(|it| it.join().unwrap())
            .collect();
        all.sort_unstable();
        assert_eq!(all, [1, 2]);
        assert!(ring.is_empty());
    });
}

#[test]
fn a_duration_is_claimed_once() {
    static EXPLORED: AtomicUsize = AtomicUsize::new(0);
    explore(40, &EXPLORED, || {
        let rings = Arc::new(LeaseRings::new(Duration::from_secs(30)));
        let claimers: Vec<_> = [5, 5]
            .into_iter()
            .map(|seconds| {
                let rings = Arc::clone(&rings);
                thread::spawn(move || {
                    let ring = rings.ring(Duration::from_secs(seconds)).unwrap();
                    std::ptr::from_ref(ring) as usize
                })
            })
            .collect();
        let found: Vec<_> = claimers.into_iter().map(|it| it.join().unwrap()).collect();
        assert_eq!(found[0], found[1]);
        assert_eq!(rings.iter().count(), 2);
    });
}
