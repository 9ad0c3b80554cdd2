//! The slab's notes under loom: chunks of two slots, one stripe, no spares, two looks of a walk.
//!
//! The lessees and the walker here do what an owner does with a chunk's note. The main thread only spawns and
//! joins; a floor on the executions explored is asserted.
//!
//! # Mutations
//! MUTATIONS
#![cfg(loom)]

use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};

use sim_core::slab::{Due, Held, NO_NOTE, Noted, Slab, Vacate};
use sim_core::sync::atomic::Ordering::SeqCst;
use sim_core::sync::{UnsafeCell, thread};

fn explore(preemptions: usize, floor: usize, model: impl Fn() + Send + Sync + 'static) {
    let explored = std::sync::Arc::new(AtomicUsize::new(0));
    let count = explored.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(move || {
        count.fetch_add(1, StdOrdering::Relaxed);
        model();
    });
    let explored = explored.load(StdOrdering::Relaxed);
    eprintln!("explored {explored}");
    assert!(explored >= floor, "explored {explored} interleavings only");
}

/// A context that loom tracks.
struct Context(UnsafeCell<usize>);

// SAFETY: loom checks the accesses to the cell.
unsafe impl Sync for Context {}
// SAFETY: as above.
unsafe impl Send for Context {}

impl Context {
    fn read(&self) {
        // SAFETY: loom checks that nobody writes the cell.
        self.0.with(|cell| unsafe { *cell });
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: loom checks that nobody else accesses the cell.
        self.0.with_mut(|cell| unsafe { *cell += 1 });
    }
}

impl Vacate<Box<u64>> for Context {
    fn vacated(&self, value: Box<u64>) {
        self.read();
        drop(value);
    }
}

type TestSlab = Slab<Context, Box<u64>>;
type TestHeld = Held<Context, Box<u64>>;

fn slab(kept: usize) -> TestSlab {
    Slab::with_kept(Context(UnsafeCell::new(0)), 2, kept)
}

fn lease(slab: &TestSlab, note: u64) -> TestHeld {
    let held = slab.insert_leased_noted(note, || Box::new(note));
    held.ok().expect("there is room")
}

/// Whether a lessee would set a timer.
fn arms(held: &TestHeld, at: u64) -> bool {
    let note = held.chunk_note();
    at < note.load(SeqCst) && note.fetch_min(at, SeqCst) > at
}

/// A walk as the timer for 5 makes it: whether it met a lease that ends at `at` or before, or could not tell.
fn walk(slab: &TestSlab, at: u64) -> bool {
    slab.chunk_note(0).expect("there").swap(NO_NOTE, SeqCst);
    let mut met = false;
    slab.leased_in(0, |noted| {
        met |= match noted {
            Noted::Leased { note, .. } => note <= at,
            Noted::Unknown => true,
        };
    });
    met
}

/// The chunk's note says 5; `before` prepares, `lessee` leases or shortens to 10 and tells whether it set a timer.
fn is_met_or_armed<P: Send + 'static>(
    before: impl Fn(&TestSlab) -> P,
    lessee: impl Fn(&TestSlab, P) -> bool + Send + Sync + Copy + 'static,
) {
    let slab = slab(2);
    let prepared = before(&slab);
    drop(lease(&slab, 1).remove());
    slab.chunk_note(0).expect("there").store(5, SeqCst);
    let lessee = {
        let slab = slab.clone();
        thread::spawn(move || lessee(&slab, prepared))
    };
    let walker = {
        let slab = slab.clone();
        thread::spawn(move || walk(&slab, 10))
    };
    let armed = lessee.join().unwrap();
    let met = walker.join().unwrap();
    assert!(met || armed, "a lease that no timer will meet");
}

#[test]
fn a_new_lease_is_met_by_the_walk_or_sets_a_timer() {
    explore(3, 50, || {
        is_met_or_armed(
            |_| (),
            |slab, ()| {
                let held = lease(slab, 10);
                arms(&held, 10)
            },
        );
    });
}

#[test]
fn a_new_lease_where_one_was_vacated_is_met_or_sets_a_timer() {
    explore(3, 50, || {
        is_met_or_armed(
            |slab| {
                // The lowest slot's stamp stays at Gone.
                let held = lease(slab, 1);
                let pin = held.pin();
                assert!(held.remove_with(false, |_, _, _| ()).is_ok());
                drop(pin);
            },
            |slab, ()| {
                let held = lease(slab, 10);
                arms(&held, 10)
            },
        );
    });
}

#[test]
fn a_lease_of_an_idle_slot_is_met_or_sets_a_timer() {
    explore(3, 50, || {
        is_met_or_armed(
            |slab| lease(slab, 3).unlease().expect("leased").low(),
            |slab, low| {
                let held = slab.lease_low_noted(low, 10).expect("idle");
                arms(&held, 10)
            },
        );
    });
}

#[test]
fn a_shortened_lease_is_met_or_sets_a_timer() {
    explore(3, 50, || {
        is_met_or_armed(
            |slab| lease(slab, 20),
            |_, held| {
                assert!(held.change_note(20, 10));
                arms(&held, 10)
            },
        );
    });
}

#[test]
fn a_lease_ends_or_is_lengthened() {
    explore(3, 20, || {
        let slab = slab(2);
        let held = lease(&slab, 5);
        let low = held.key().low();
        let holder = thread::spawn(move || held.change_note(5, 20));
        let timer = {
            let slab = slab.clone();
            thread::spawn(move || slab.unlease_due(low, 10))
        };
        let lengthened = holder.join().unwrap();
        match timer.join().unwrap() {
            Due::Ended(idle) => {
                assert!(!lengthened);
                assert!(slab.is_idle_low(idle));
            }
            // Touched, or just about to be.
            Due::Later(20) => assert!(lengthened),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_disowned_lease_is_ended_by_the_walk() {
    explore(3, 10, || {
        let slab = slab(2);
        let held = lease(&slab, 5);
        let low = held.key().low();
        let holder = thread::spawn(move || held.disown().is_ok());
        let timer = {
            let slab = slab.clone();
            thread::spawn(move || slab.unlease_due(low, 10))
        };
        holder.join().unwrap();
        assert!(matches!(timer.join().unwrap(), Due::Ended(_)));
    });
}

#[test]
fn a_removal_and_the_end_of_the_lease_agree() {
    for late in [false, true] {
        explore(3, 10, move || {
            let slab = slab(0);
            let held = lease(&slab, 5);
            let low = held.key().low();
            let holder = thread::spawn(move || {
                let removed = held.remove_with(late, |context, was_leased, stored| {
                    context.read();
                    stored.map(|stored| *stored).ok();
                    was_leased
                });
                removed.ok()
            });
            let timer = {
                let slab = slab.clone();
                thread::spawn(move || slab.unlease_due(low, 10))
            };
            let removed = holder.join().unwrap();
            match timer.join().unwrap() {
                Due::Ended(idle) => {
                    assert_eq!(removed, late.then_some(false));
                    assert_eq!(slab.remove_idle_low(idle).is_some(), !late);
                }
                Due::Over => assert_eq!(removed, Some(true)),
                Due::Later(_) => unreachable!(),
            }
            assert_eq!(slab.occupied(), 0);
        });
    }
}

#[test]
fn a_refused_lease_writes_nobody_elses_note() {
    explore(3, 50, || {
        let slab = slab(2);
        let old = lease(&slab, 5);
        let low = old.unlease().expect("leased").low();
        let other = lease(&slab, 1);
        // Acknowledged late, and its place taken by another value.
        let acknowledges = {
            let slab = slab.clone();
            thread::spawn(move || {
                assert!(old.remove_with(true, |_, _, _| ()).is_ok() || !slab.is_idle_low(low));
                let held = slab.insert_leased_noted(20, || Box::new(20)).ok()?;
                assert_eq!(held.note(), 20);
                Some(held)
            })
        };
        let receives = {
            let slab = slab.clone();
            thread::spawn(move || {
                slab.lease_low_noted(low, 10)
                    .map(|held| (**held, held.note()))
            })
        };
        let held = acknowledges.join().unwrap();
        if let Some((value, note)) = receives.join().unwrap() {
            assert_eq!((value, note), (5, 10));
        }
        if let Some(held) = held {
            assert_eq!((**held, held.note()), (20, 20));
        }
        drop(other);
    });
}

#[test]
fn a_settlement_keeps_the_slab() {
    explore(3, 20, || {
        let slab = slab(2);
        let held = lease(&slab, 5);
        let pin = held.pin();
        let settles = thread::spawn(move || {
            held.remove_with(false, |context, _, stored| {
                context.read();
                let value = match &stored {
                    Ok(stored) => **stored,
                    Err(stored) => ***stored,
                };
                assert_eq!(value, 5);
            })
            .is_ok()
        });
        let leaves = thread::spawn(move || drop(pin));
        let owner = thread::spawn(move || drop(slab));
        assert!(settles.join().unwrap());
        leaves.join().unwrap();
        owner.join().unwrap();
    });
}

#[test]
fn an_unleased_orphan_goes_with_its_holder() {
    explore(3, 10, || {
        let slab = slab(2);
        let held = lease(&slab, 5);
        let holder = thread::spawn(move || {
            assert!(held.unlease().is_ok());
            held.context().read();
        });
        let owner = thread::spawn(move || drop(slab));
        holder.join().unwrap();
        owner.join().unwrap();
    });
}

#[test]
fn a_walk_goes_through_a_chunk_that_is_given_back() {
    explore(3, 50, || {
        let slab = slab(0);
        let held = lease(&slab, 5);
        let holder = thread::spawn(move || drop(held.remove()));
        let walker = {
            let slab = slab.clone();
            thread::spawn(move || {
                slab.leased_in(0, |noted| {
                    if let Noted::Leased { note, .. } = noted {
                        assert_eq!(note, 5);
                    }
                });
            })
        };
        holder.join().unwrap();
        walker.join().unwrap();
        slab.shrink();
        assert_eq!(slab.allocated(), 0);
    });
}

#[test]
fn the_note_of_a_later_lease_tells_that_this_one_is_over() {
    explore(3, 10, || {
        let slab = slab(2);
        let held = lease(&slab, 5);
        let low = held.key().low();
        let later = {
            let slab = slab.clone();
            thread::spawn(move || {
                let Due::Ended(idle) = slab.unlease_due(low, 5) else {
                    unreachable!()
                };
                drop(slab.lease_low_noted(idle, 20).expect("idle"));
            })
        };
        let holder = thread::spawn(move || {
            let note = held.note();
            assert!(note == 5 || !held.is_current());
        });
        later.join().unwrap();
        holder.join().unwrap();
    });
}
