//! The slab under loom: chunks of two slots, one stripe, no spares.
//!
//! Memory is not freed under loom but marked: each chunk, directory entry and header has a cell that is
//! written where it is made and where it would be freed, and read at each access, so that an access that is
//! not ordered between the two fails the model.
//!
//! # Mutations
//! Each was made by hand, alone, and the tests named were seen to fail.
//!
//! | what was weakened | seen to fail |
//! | --- | --- |
//! | insert: store of the stamp, Release to Relaxed | `a_lease_sees_the_value`, `a_pin_sees_the_value` |
//! | lease: Acquire to Relaxed | `a_lease_sees_the_value`, `a_lease_sees_what_the_former_one_did` |
//! | `remove_idle`: Acquire to Relaxed | `a_removal_sees_what_the_former_lease_did` |
//! | pin: Acquire to Relaxed | `a_pin_sees_the_value` |
//! | release, remove, touch: AcqRel to Acquire | `a_lease_sees_what_the_former_one_did`, `a_removal_sees_what_the_former_lease_did`, `the_last_one_out_frees_the_slab` |
//! | release, remove, touch: AcqRel to Release | `a_removed_value_goes_to_the_remover_or_to_the_context` |
//! | drop of a handle: AcqRel to Acquire | `a_removed_value_goes_to_the_remover_or_to_the_context`, `the_last_holder_vacates`, `orphans_are_counted` |
//! | drop of a handle: AcqRel to Release | `the_last_holder_vacates` |
//! | `unlease_if`: load of the stamp, Acquire to Relaxed | `a_touched_lease_outlives_its_older_deadline` |
//! | `unlease_if`: touch ignored | `a_touched_lease_outlives_its_older_deadline` |
//! | claim of a bit: Acquire to Relaxed | `a_freed_slot_is_reused_in_order` |
//! | bit set again, common path: Release to Relaxed | `a_freed_slot_is_reused_in_order` (two slots) |
//! | bit set again, rare path: Release to Relaxed | `a_freed_slot_is_reused_in_order`, `a_chunk_is_retired_or_used` |
//! | no pin while the store is told of a freed slot | `orphans_are_counted` |
//! | current entry: load or store to Relaxed | `two_threads_get_two_slots` |
//! | installation: store of the chunk, or opening of the guard, to Relaxed | `a_lookup_sees_a_chunk_whole_or_not_at_all` |
//! | installation: store of the bitmap, Release to Relaxed | `a_chunk_comes_again_where_one_stood` |
//! | lookup: load of the chunk, or entry into the guard, to Relaxed | `a_lookup_sees_a_chunk_whole_or_not_at_all` |
//! | lookup: leaving the guard, Release to Relaxed | `a_chunk_is_not_freed_under_a_lookup`, `a_chunk_is_not_freed_under_a_lease` |
//! | directory: load or store of a bucket to Relaxed | `a_lookup_sees_a_chunk_whole_or_not_at_all` |
//! | retirement: claim of the bitmap, Acquire to Relaxed | `a_chunk_is_retired_or_used` |
//! | retirement: closing of the guard, Acquire to Relaxed | `a_chunk_is_not_freed_under_a_lookup`, `a_chunk_is_not_freed_under_a_lease` |
//! | retirement: guard not heeded, or bits not given back | `a_chunk_is_not_freed_under_a_lookup`, `a_chunk_is_not_freed_under_a_lease` |
//! | retirement: goes on after the last owner | `a_chunk_with_orphans_is_not_retired` |
//! | chunk with room not listed | `room_is_not_lost` |
//! | owners: Release to Relaxed, or no fence | `the_last_owner_sweeps` |
//! | pins: AcqRel to Acquire, or to Release | `the_last_one_out_frees_the_slab`, `orphans_are_counted` |
//! | sweep: mark of the stamp, Acquire to Relaxed | `the_last_one_out_frees_the_slab`, `orphans_are_counted` |
//! | sweep: swap of the bitmap, AcqRel to Relaxed | `the_last_one_out_frees_the_slab` |
//! | sweep: bits not set | `the_last_one_out_frees_the_slab`, `orphans_are_counted` |
//!
//! No model fails, and why they stand: `unlease` is AcqRel for what its caller did beside the slab (the value
//! is not touched); `is_current` loads with Acquire so that who learns that a lease is over sees what
//! ended it. Not modelled: more than one stripe (a stripe's pointer is changed under the lock only), spares,
//! and the swap that buries a slot without generations; the stress tests and unit tests go there.
#![cfg(loom)]

use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};

use sim_core::slab::{Key, Removed, Slab, Vacate};
use sim_core::sync::atomic::{AtomicUsize as LoomUsize, Ordering};
use sim_core::sync::{Arc, UnsafeCell, thread};

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

/// What a model counts.
#[derive(Default)]
struct Counts {
    dropped: AtomicUsize,
    vacated: AtomicUsize,
    contexts: AtomicUsize,
}

impl Counts {
    /// Values dropped, values vacated, contexts dropped.
    fn get(&self) -> (usize, usize, usize) {
        let load = |count: &AtomicUsize| count.load(StdOrdering::Relaxed);
        (
            load(&self.dropped),
            load(&self.vacated),
            load(&self.contexts),
        )
    }
}

struct Context(std::sync::Arc<Counts>);

impl Vacate<Value> for Context {
    fn vacated(&self, value: Value) {
        self.0.vacated.fetch_add(1, StdOrdering::Relaxed);
        drop(value);
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.0.contexts.fetch_add(1, StdOrdering::Relaxed);
    }
}

/// A value with a cell that is written without synchronization of its own.
struct Value {
    counts: std::sync::Arc<Counts>,
    cell: UnsafeCell<usize>,
}

impl Value {
    fn new(counts: &std::sync::Arc<Counts>) -> Self {
        Self {
            counts: std::sync::Arc::clone(counts),
            cell: UnsafeCell::new(0),
        }
    }

    fn write(&self, value: usize) {
        // SAFETY: loom checks that nobody else accesses the cell.
        self.cell.with_mut(|cell| unsafe { *cell = value });
    }

    fn read(&self) -> usize {
        // SAFETY: loom checks that nobody writes the cell.
        self.cell.with(|cell| unsafe { *cell })
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.read();
        self.counts.dropped.fetch_add(1, StdOrdering::Relaxed);
    }
}

// SAFETY: loom checks the accesses to the cell.
unsafe impl Sync for Value {}
// SAFETY: as above.
unsafe impl Send for Value {}

type TestSlab = Slab<Context, Value>;

fn slab(limit: usize, kept: usize) -> (TestSlab, std::sync::Arc<Counts>) {
    let counts = std::sync::Arc::new(Counts::default());
    (
        Slab::with_kept(Context(std::sync::Arc::clone(&counts)), limit, kept),
        counts,
    )
}

fn put(slab: &TestSlab, counts: &std::sync::Arc<Counts>) -> u32 {
    slab.insert(Value::new(counts)).ok().expect("room").index()
}

/// A freed slot goes to its next user with nothing of the former one in flight.
#[test]
fn a_freed_slot_is_reused_in_order() {
    // One slot: its chunk has room again. Two: it had room before.
    for limit in [1, 2] {
        explore(None, 50, move || {
            let (slab, counts) = slab(limit, 2);
            let held = slab.insert_leased(Value::new(&counts)).ok().expect("room");
            let freeing = thread::spawn(move || {
                held.write(1);
                drop(held.remove());
            });
            let other = slab.clone();
            let counted = std::sync::Arc::clone(&counts);
            let reusing = thread::spawn(move || {
                let inserted = other.insert_leased(Value::new(&counted));
                if let Ok(held) = &inserted {
                    held.write(2);
                    assert_eq!(held.read(), 2);
                }
                inserted.is_ok_and(|held| held.remove().is_ok())
            });
            freeing.join().unwrap();
            let reused = reusing.join().unwrap();
            assert!(reused || limit == 1);
            assert_eq!(slab.occupied(), 0);
            drop(slab);
            assert_eq!(counts.get(), (2, 0, 1));
        });
    }
}

/// A chunk is installed where one stood before: a stripe's old pointer leads to the new one.
#[test]
fn a_chunk_comes_again_where_one_stood() {
    explore(Some(4), 500, || {
        let (slab, counts) = slab(2, 0);
        drop(
            slab.insert_leased(Value::new(&counts))
                .ok()
                .expect("room")
                .remove(),
        );
        assert_eq!(slab.allocated(), 0);
        let threads = [0, 1].map(|_| {
            let (slab, counts) = (slab.clone(), std::sync::Arc::clone(&counts));
            thread::spawn(move || {
                let held = slab.insert_leased(Value::new(&counts)).ok().expect("room");
                held.write(1);
                held.detach()
            })
        });
        let [first, second] = threads.map(|thread| thread.join().unwrap());
        assert_ne!(first.index(), second.index());
        drop(slab);
        assert_eq!(counts.get(), (3, 0, 1));
    });
}

/// Two threads that allocate get two slots, and both get the chunk that one of them installs.
#[test]
fn two_threads_get_two_slots() {
    explore(Some(3), 100, || {
        let (slab, counts) = slab(2, 2);
        let threads = [0, 1].map(|_| {
            let (slab, counts) = (slab.clone(), std::sync::Arc::clone(&counts));
            thread::spawn(move || {
                let held = slab.insert_leased(Value::new(&counts)).ok().expect("room");
                held.write(1);
                held.detach()
            })
        });
        let [first, second] = threads.map(|thread| thread.join().unwrap());
        assert_ne!(first.index(), second.index());
        assert_eq!(slab.occupied(), 2);
        drop(slab);
        assert_eq!(counts.get(), (2, 0, 1));
    });
}

/// Whoever leases a slot sees the value that was put in, though nothing but the stamp orders the two.
#[test]
fn a_lease_sees_the_value() {
    explore(None, 50, || {
        let (slab, counts) = slab(2, 2);
        put(&slab, &counts);
        let inserting = {
            let (slab, counts) = (slab.clone(), std::sync::Arc::clone(&counts));
            thread::spawn(move || {
                let value = Value::new(&counts);
                value.write(1);
                slab.insert(value).ok().expect("room").index()
            })
        };
        let leasing = {
            let slab = slab.clone();
            thread::spawn(move || slab.lease(1).is_some_and(|held| held.read() == 1))
        };
        let index = inserting.join().unwrap();
        assert_eq!(index, 1);
        leasing.join().unwrap();
        drop(slab);
        assert_eq!(counts.get(), (2, 0, 1));
    });
}

/// Likewise for a key that was guessed: a lookup pins the slot and sees the value.
#[test]
fn a_pin_sees_the_value() {
    explore(None, 100, || {
        let (slab, counts) = slab(2, 2);
        put(&slab, &counts);
        let inserting = {
            let (slab, counts) = (slab.clone(), std::sync::Arc::clone(&counts));
            thread::spawn(move || {
                let value = Value::new(&counts);
                value.write(1);
                slab.insert_leased(value).ok().expect("room").detach()
            })
        };
        let holding = {
            let slab = slab.clone();
            thread::spawn(move || {
                if let Some(held) = slab.held(Key::from_parts(1, 1)) {
                    assert_eq!(held.read(), 1);
                }
            })
        };
        assert_eq!(inserting.join().unwrap(), Key::from_parts(1, 1));
        holding.join().unwrap();
        drop(slab);
        assert_eq!(counts.get(), (2, 0, 1));
    });
}

/// What the one that releases a slot did to the value is seen by the next that leases it.
#[test]
fn a_lease_sees_what_the_former_one_did() {
    explore(None, 10, || {
        let (slab, counts) = slab(2, 2);
        let index = put(&slab, &counts);
        let held = slab.lease(index).expect("idle");
        let releasing = thread::spawn(move || {
            held.write(1);
            held.release().expect("current")
        });
        let other = slab.clone();
        let leasing = thread::spawn(move || {
            if let Some(held) = other.lease(index) {
                assert_eq!(held.read(), 1);
                held.write(2);
                drop(held.remove());
            }
        });
        releasing.join().unwrap();
        leasing.join().unwrap();
        drop(slab);
        assert_eq!(counts.get(), (1, 0, 1));
    });
}

/// What the one that releases a slot did to the value is seen by the one that removes it.
#[test]
fn a_removal_sees_what_the_former_lease_did() {
    explore(None, 10, || {
        let (slab, counts) = slab(2, 2);
        let index = put(&slab, &counts);
        let held = slab.lease(index).expect("idle");
        let releasing = thread::spawn(move || {
            held.write(1);
            held.release().expect("current")
        });
        let other = slab.clone();
        let removing = thread::spawn(move || {
            if let Some(Removed::Value(value)) = other.remove_idle(index) {
                assert_eq!(value.read(), 1);
            }
        });
        releasing.join().unwrap();
        removing.join().unwrap();
        drop(slab);
        assert_eq!(counts.get(), (1, 0, 1));
    });
}

/// One removes, the other holds and leaves: the value goes to exactly one of them.
#[test]
fn a_removed_value_goes_to_the_remover_or_to_the_context() {
    explore(None, 6, || {
        let (slab, counts) = slab(2, 2);
        let held = slab.insert_leased(Value::new(&counts)).ok().expect("room");
        let second = slab.held(held.key()).expect("leased");
        let leaving = thread::spawn(move || {
            second.write(1);
            drop(second);
        });
        let removing = thread::spawn(move || {
            let value = held.remove().expect("current");
            value.is_some_and(|value| value.read() == 1)
        });
        leaving.join().unwrap();
        let owned = removing.join().unwrap();
        assert_eq!(counts.get(), (1, usize::from(!owned), 0));
        assert_eq!(slab.occupied(), 0);
    });
}

/// Two holders of a removed value leave at once: the last one sees what the other did.
#[test]
fn the_last_holder_vacates() {
    explore(None, 5, || {
        let (slab, counts) = slab(2, 2);
        let held = slab.insert_leased(Value::new(&counts)).ok().expect("room");
        let second = slab.held(held.key()).expect("leased");
        let third = slab.held(held.key()).expect("leased");
        assert!(held.remove().expect("current").is_none());
        let writing = thread::spawn(move || {
            second.write(1);
            drop(second);
        });
        let leaving = thread::spawn(move || drop(third));
        writing.join().unwrap();
        leaving.join().unwrap();
        assert_eq!(counts.get(), (1, 1, 0));
        assert_eq!(slab.occupied(), 0);
    });
}

/// A lookup by key races with the removal: it holds the value or finds nothing.
#[test]
fn a_lookup_holds_or_misses() {
    explore(None, 20, || {
        let (slab, counts) = slab(2, 2);
        let held = slab.insert_leased(Value::new(&counts)).ok().expect("room");
        let key = held.key();
        let removing = thread::spawn(move || {
            held.write(1);
            drop(held.remove().expect("current"));
        });
        let other = slab.clone();
        let holding = thread::spawn(move || drop(other.held(key)));
        removing.join().unwrap();
        holding.join().unwrap();
        assert_eq!(counts.get().0, 1);
        assert_eq!(slab.occupied(), 0);
    });
}

/// A chunk becomes wholly free and is freed while somebody looks into it.
#[test]
fn a_chunk_is_not_freed_under_a_lookup() {
    explore(None, 100, || {
        let (slab, counts) = slab(4, 0);
        let held = slab.insert_leased(Value::new(&counts)).ok().expect("room");
        let key = held.key();
        let removing = thread::spawn(move || {
            held.write(1);
            drop(held.remove());
        });
        let looking = {
            let slab = slab.clone();
            thread::spawn(move || drop(slab.held(key)))
        };
        removing.join().unwrap();
        looking.join().unwrap();
        slab.shrink();
        assert_eq!(slab.allocated(), 0);
        assert_eq!(counts.get().0, 1);
    });
}

/// The same while the lookup is for an index, of which nothing is known.
#[test]
fn a_chunk_is_not_freed_under_a_lease() {
    explore(None, 100, || {
        let (slab, counts) = slab(4, 0);
        let index = put(&slab, &counts);
        let removing = {
            let slab = slab.clone();
            thread::spawn(move || drop(slab.remove_idle(index)))
        };
        let leasing = {
            let slab = slab.clone();
            thread::spawn(move || slab.lease(index).is_none_or(|held| held.remove().is_ok()))
        };
        removing.join().unwrap();
        assert!(leasing.join().unwrap());
        slab.shrink();
        assert_eq!(slab.allocated(), 0);
        assert_eq!(counts.get(), (1, 0, 0));
    });
}

/// A chunk is installed while somebody looks into its entry.
#[test]
fn a_lookup_sees_a_chunk_whole_or_not_at_all() {
    for kept in [0, 2] {
        explore(Some(4), 100, move || {
            let (slab, counts) = slab(2, kept);
            let installing = {
                let (slab, counts) = (slab.clone(), std::sync::Arc::clone(&counts));
                thread::spawn(move || put(&slab, &counts))
            };
            let looking = {
                let slab = slab.clone();
                thread::spawn(move || drop(slab.lease(0)))
            };
            installing.join().unwrap();
            looking.join().unwrap();
            drop(slab);
            assert_eq!(counts.get(), (1, 0, 1));
        });
    }
}

/// The last slot of a chunk is freed while the chunk is retired, and while somebody allocates.
#[test]
fn a_chunk_is_retired_or_used() {
    explore(Some(3), 1000, || {
        let (slab, counts) = slab(2, 0);
        let held = slab.insert_leased(Value::new(&counts)).ok().expect("room");
        let freeing = thread::spawn(move || {
            held.write(1);
            drop(held.remove());
        });
        let shrinking = {
            let slab = slab.clone();
            thread::spawn(move || slab.shrink())
        };
        let inserting = {
            let (slab, counts) = (slab.clone(), std::sync::Arc::clone(&counts));
            thread::spawn(move || {
                let held = slab.insert_leased(Value::new(&counts)).ok().expect("room");
                held.write(2);
                held.detach()
            })
        };
        freeing.join().unwrap();
        shrinking.join().unwrap();
        let key = inserting.join().unwrap();
        let held = slab.held(key).expect("leased");
        drop(held.remove());
        slab.shrink();
        assert_eq!(slab.allocated(), 0);
        drop(slab);
        assert_eq!(counts.get(), (2, 0, 1));
    });
}

/// A chunk that has room again is found by whoever needs one.
#[test]
fn room_is_not_lost() {
    explore(Some(3), 1000, || {
        let (slab, counts) = slab(3, 4);
        let first = slab.insert_leased(Value::new(&counts)).ok().expect("room");
        let second = slab.insert_leased(Value::new(&counts)).ok().expect("room");
        let third = slab.insert_leased(Value::new(&counts)).ok().expect("room");
        let freeing = [first, third].map(|held| thread::spawn(move || drop(held.remove())));
        let inserting = {
            let (slab, counts) = (slab.clone(), std::sync::Arc::clone(&counts));
            thread::spawn(move || usize::from(slab.insert(Value::new(&counts)).is_ok()))
        };
        for thread in freeing {
            thread.join().unwrap();
        }
        let inserted = inserting.join().unwrap();
        for _ in inserted..2 {
            put(&slab, &counts);
        }
        assert!(slab.insert(Value::new(&counts)).is_err(), "three are in");
        drop(second.remove());
        put(&slab, &counts);
    });
}

/// The last owner goes while holders leave, release or remove.
#[test]
fn the_last_one_out_frees_the_slab() {
    for way in 0..3 {
        explore(Some(4), 20, move || {
            let (slab, counts) = slab(2, 2);
            let held = slab.insert_leased(Value::new(&counts)).ok().expect("room");
            let leaving = thread::spawn(move || {
                held.write(1);
                match way {
                    0 => drop(held),
                    1 => drop(held.release()),
                    _ => drop(held.remove().expect("current").expect("alone")),
                }
            });
            let owning = thread::spawn(move || drop(slab));
            leaving.join().unwrap();
            owning.join().unwrap();
            assert_eq!(counts.get(), (1, 0, 1));
        });
    }
}

/// Two holders and the last owner go at once; a slot in the midst of being freed counts as held.
#[test]
fn orphans_are_counted() {
    explore(Some(3), 1000, || {
        let (slab, counts) = slab(2, 0);
        let first = slab.insert_leased(Value::new(&counts)).ok().expect("room");
        let second = slab.insert_leased(Value::new(&counts)).ok().expect("room");
        let removing = thread::spawn(move || {
            first.write(1);
            drop(first.remove());
        });
        let leaving = thread::spawn(move || {
            second.write(1);
            drop(second);
        });
        let owning = thread::spawn(move || drop(slab));
        removing.join().unwrap();
        leaving.join().unwrap();
        owning.join().unwrap();
        assert_eq!(counts.get(), (2, 0, 1));
    });
}

/// A chunk that was wholly free, and has an orphan by the time at which it would be retired, stays.
#[test]
fn a_chunk_with_orphans_is_not_retired() {
    explore(Some(4), 500, || {
        let (slab, counts) = slab(2, 0);
        let first = slab.insert_leased(Value::new(&counts)).ok().expect("room");
        let removing = thread::spawn(move || {
            first.write(1);
            drop(first.remove());
        });
        let counted = std::sync::Arc::clone(&counts);
        let owning = thread::spawn(move || {
            let held = slab.insert_leased(Value::new(&counted)).ok().expect("room");
            drop(slab);
            held.write(1);
            assert_eq!(held.read(), 1);
        });
        removing.join().unwrap();
        owning.join().unwrap();
        assert_eq!(counts.get(), (2, 0, 1));
    });
}

/// Two owners go at once: what the one did is ordered before the sweep of the other.
#[test]
fn the_last_owner_sweeps() {
    explore(None, 5, || {
        let (slab, counts) = slab(2, 2);
        let inserting = {
            let (slab, counts) = (slab.clone(), std::sync::Arc::clone(&counts));
            thread::spawn(move || {
                let value = Value::new(&counts);
                value.write(1);
                slab.insert(value).ok().expect("room");
            })
        };
        let owning = thread::spawn(move || drop(slab));
        inserting.join().unwrap();
        owning.join().unwrap();
        assert_eq!(counts.get(), (1, 0, 1));
    });
}

/// A touch after the deadline moved keeps a timer that read the older deadline from ending the lease.
#[test]
fn a_touched_lease_outlives_its_older_deadline() {
    struct Deadline(LoomUsize);
    impl Vacate<Deadline> for Arc<()> {
        fn vacated(&self, _value: Deadline) {}
    }
    explore(None, 1000, || {
        let slab = Slab::with_kept(Arc::new(()), 2, 2);
        let held = slab
            .insert_leased(Deadline(LoomUsize::new(1)))
            .ok()
            .expect("room");
        let low = held.key().low();
        let extending = thread::spawn(move || {
            held.0.store(2, Ordering::Relaxed);
            held.touch()
        });
        let expiring = thread::spawn(move || {
            slab.unlease_if(low, |deadline| deadline.0.load(Ordering::Relaxed) <= 1)
                .is_some()
        });
        let extended = extending.join().unwrap();
        let expired = expiring.join().unwrap();
        assert!(
            extended != expired,
            "extended: {extended}, expired: {expired}"
        );
    });
}

/// Of release, expiry and removal of one lease exactly one takes place.
#[test]
fn a_lease_ends_once() {
    explore(Some(3), 500, || {
        let (slab, counts) = slab(2, 2);
        let held = slab.insert_leased(Value::new(&counts)).ok().expect("room");
        let key = held.key();
        let removing = slab.held(key).expect("leased");
        let releasing = thread::spawn(move || held.release().is_ok());
        let removing = thread::spawn(move || removing.remove().is_ok());
        let expiring = {
            let slab = slab.clone();
            thread::spawn(move || slab.unlease(key))
        };
        let ends = [releasing, removing, expiring].map(|thread| thread.join().unwrap());
        assert_eq!(ends.into_iter().filter(|&ended| ended).count(), 1);
        drop(slab);
        assert_eq!(counts.get(), (1, counts.get().1, 1));
    });
}

/// An idle slot is leased or removed, not both.
#[test]
fn an_idle_slot_is_leased_or_removed() {
    explore(None, 1000, || {
        let (slab, counts) = slab(2, 0);
        let index = put(&slab, &counts);
        let removing = {
            let slab = slab.clone();
            thread::spawn(move || match slab.remove_idle(index) {
                Some(Removed::Value(value)) => {
                    value.write(1);
                    true
                }
                _ => false,
            })
        };
        let leasing = {
            let slab = slab.clone();
            thread::spawn(move || slab.lease(index).is_some_and(|held| held.remove().is_ok()))
        };
        let removed = removing.join().unwrap();
        let leased = leasing.join().unwrap();
        assert!(removed != leased);
        assert_eq!(counts.get(), (1, 0, 0));
        assert_eq!(slab.occupied(), 0);
    });
}
