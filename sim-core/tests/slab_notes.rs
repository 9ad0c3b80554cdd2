//! Leases that are found by their notes, verdicts by packed key and verdicts that settle with the context.
#![cfg(not(loom))]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use sim_core::slab::{Due, Held, Key, NO_NOTE, Noted, Removed, Slab, Stale, Vacate};

/// What became of values and contexts.
#[derive(Default)]
struct Counts {
    alive: AtomicUsize,
    vacated: AtomicUsize,
    contexts: AtomicUsize,
}

struct Context(Arc<Counts>);

impl Vacate<Value> for Context {
    fn vacated(&self, value: Value) {
        self.0.vacated.fetch_add(1, Ordering::Relaxed);
        drop(value);
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.0.contexts.fetch_add(1, Ordering::Relaxed);
    }
}

/// A value that is dropped once.
struct Value(u64, Arc<Counts>);

impl Drop for Value {
    fn drop(&mut self) {
        self.1.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

type TestSlab = Slab<Context, Value>;
type TestHeld = Held<Context, Value>;

fn slab(kept: usize) -> (TestSlab, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    (
        Slab::with_kept(Context(Arc::clone(&counts)), 10_000, kept),
        counts,
    )
}

fn value(counts: &Arc<Counts>, number: u64) -> Value {
    counts.alive.fetch_add(1, Ordering::Relaxed);
    Value(number, Arc::clone(counts))
}

fn lease(slab: &TestSlab, counts: &Arc<Counts>, note: u64) -> TestHeld {
    slab.insert_leased_noted(note, || value(counts, note))
        .ok()
        .expect("there is room")
}

fn walk(slab: &TestSlab, chunk: u32) -> Vec<Noted> {
    let mut met = Vec::new();
    slab.leased_in(chunk, |noted| met.push(noted));
    met
}

fn ended(due: Due) -> u64 {
    match due {
        Due::Ended(low) => low,
        other => panic!("not ended: {other:?}"),
    }
}

#[test]
fn a_walk_meets_the_leases_of_its_chunk_and_nothing_else() {
    let (slab, counts) = slab(64);
    let held: Vec<_> = (0..70).map(|note| lease(&slab, &counts, note)).collect();
    let idle = held[3].unlease().expect("leased");
    assert!(slab.is_idle_low(idle.low()));
    let removed = held[5].pin().remove_with(false, |_, was_leased, stored| {
        assert!(was_leased && stored.is_err());
    });
    assert!(removed.is_ok());
    let met: Vec<_> = walk(&slab, 0)
        .into_iter()
        .map(|noted| match noted {
            Noted::Leased { low, note } => (low, note),
            Noted::Unknown => panic!("nobody fills a slot"),
        })
        .collect();
    let expected: Vec<_> = (0..64)
        .filter(|note| ![3, 5].contains(note))
        .map(|note| (held[note as usize].key().low(), note))
        .collect();
    assert_eq!(met, expected);
    assert_eq!(walk(&slab, 1).len(), 6);
    assert_eq!(walk(&slab, 2), []);
    assert_eq!((held[0].chunk_number(), held[69].chunk_number()), (0, 1));
}

#[test]
fn a_chunk_number_that_is_made_up_meets_nothing() {
    let (slab, counts) = slab(0);
    let held = lease(&slab, &counts, 1);
    for chunk in [10_000_u32.div_ceil(64), 1 << 26, u32::MAX - 3, u32::MAX] {
        assert!(slab.chunk_note(chunk).is_none());
        assert!(held.slab_chunk_note(chunk).is_none());
        assert_eq!(walk(&slab, chunk), []);
    }
    assert_eq!(walk(&slab, 3), []);
    for low in [u64::MAX, (1 << 32) | 9_999, held.key().low() + (7 << 32)] {
        assert_eq!(slab.unlease_due(low, u64::MAX), Due::Over);
        assert!(slab.lease_low_noted(low, 5).is_none());
        assert!(slab.pin_low(low).is_none());
        assert!(slab.remove_idle_low(low).is_none());
    }
    assert!(held.is_current());
    assert_eq!(held.note(), 1);
}

#[test]
fn a_lease_ends_when_its_note_is_due_and_not_before() {
    let (slab, counts) = slab(64);
    let held = lease(&slab, &counts, 20);
    let low = held.key().low();
    assert_eq!(slab.unlease_due(low, 19), Due::Later(20));
    assert!(held.change_note(20, 30));
    assert_eq!(held.note(), 30);
    assert!(!held.change_note(20, 40), "the note is another one");
    assert_eq!(slab.unlease_due(low, 20), Due::Later(30));
    let idle = ended(slab.unlease_due(low, 30));
    assert_eq!(idle, Key::low_after_lease(low));
    assert_eq!(slab.unlease_due(low, 30), Due::Over);
    assert!(!held.is_current());

    let again = slab.lease_low_noted(idle, 50).expect("idle");
    assert!(slab.lease_low_noted(idle, 60).is_none());
    assert_eq!(again.note(), 50, "left alone by who was refused");
    assert!(!held.change_note(30, 90));
    assert!(!held.change_note(50, 90), "put back");
    assert_eq!(again.note(), 50);
    assert_eq!(slab.unlease_due(low, u64::MAX), Due::Over);
    assert!(again.is_current());
}

#[test]
fn a_disowned_lease_still_ends_in_time_under_the_key_that_was_walked() {
    let (slab, counts) = slab(64);
    let held = lease(&slab, &counts, 20);
    let low = held.key().low();
    held.disown().expect("leased");
    assert_eq!(held.disown(), Err(Stale));
    assert!(!held.is_current() && !held.change_note(20, 90));
    assert_eq!(slab.unlease_due(low, 19), Due::Later(20));
    let idle = ended(slab.unlease_due(low, 20));
    assert!(slab.is_idle_low(idle));
    // A lease after that one is another.
    let again = slab.lease_low_noted(idle, 1).expect("idle");
    assert_eq!(slab.unlease_due(low, 20), Due::Over);
    assert!(again.is_current());
}

#[test]
fn a_removal_settles_alone_or_leaves_the_value_to_the_context() {
    let (slab, counts) = slab(64);
    let alone = lease(&slab, &counts, 7);
    let stored = alone
        .remove_with(false, |_, was_leased, stored| {
            assert!(was_leased);
            stored.ok().map(|stored| stored.0)
        })
        .ok();
    assert_eq!(stored, Some(Some(7)));

    let held = lease(&slab, &counts, 8);
    let other = held.pin();
    assert_eq!(other.key(), held.key());
    let seen = held.remove_with(false, |_, _, stored| stored.err().map(|stored| stored.0));
    assert_eq!(seen.ok(), Some(Some(8)));
    assert_eq!((other.0, other.is_current()), (8, false));
    let refused = other.remove_with(true, |_, _, _| unreachable!("gone"));
    let other = refused.expect_err("removed before");
    assert_eq!(counts.vacated.load(Ordering::Relaxed), 0);
    drop(other);
    assert_eq!(counts.vacated.load(Ordering::Relaxed), 1);
    assert_eq!(counts.alive.load(Ordering::Relaxed), 0);
    assert_eq!(slab.occupied(), 0);
}

#[test]
fn a_late_removal_hits_the_idle_slot_and_no_later_lease() {
    let (slab, counts) = slab(64);
    let held = lease(&slab, &counts, 7);
    let idle = held.unlease().expect("leased");
    assert_eq!(held.unlease(), Err(Stale));
    let held = held
        .remove_with(false, |_, _, _| unreachable!("not late"))
        .expect_err("idle");
    // By the handle of the lease, and by one of the idle slot.
    let pin = slab.pin_low(idle.low()).expect("idle");
    let lessee = slab.lease_low_noted(idle.low(), 9).expect("idle");
    for stale in [held, pin] {
        let back = stale.remove_with(true, |_, _, _| unreachable!("leased anew"));
        assert!(back.is_err());
    }
    let idle = lessee.unlease().expect("leased");
    drop(lessee);
    let removed =
        slab.pin_low(idle.low())
            .expect("idle")
            .remove_with(true, |_, was_leased, stored| {
                assert!(!was_leased);
                stored.is_ok()
            });
    assert_eq!(removed.ok(), Some(true));
    assert!(slab.remove_idle_low(idle.low()).is_none());
    assert_eq!(counts.alive.load(Ordering::Relaxed), 0);

    let held = lease(&slab, &counts, 7);
    let idle = held.unlease().expect("leased");
    assert!(matches!(
        slab.remove_idle_low(idle.low()),
        Some(Removed::Shared)
    ));
    assert!(held.remove_with(true, |_, _, _| ()).is_err());
    assert_eq!(counts.vacated.load(Ordering::Relaxed), 1);
}

#[test]
fn a_settlement_that_panics_gives_the_slot_back() {
    let (slab, counts) = slab(64);
    for shared in [false, true] {
        let held = lease(&slab, &counts, 1);
        let other = shared.then(|| held.pin());
        let result = catch_unwind(AssertUnwindSafe(|| {
            held.remove_with(false, |_, _, _| panic!("on purpose"))
                .is_ok()
        }));
        assert!(result.is_err());
        drop(other);
        assert_eq!(slab.occupied(), 0);
        assert_eq!(counts.alive.load(Ordering::Relaxed), 0);
    }
    assert_eq!(counts.vacated.load(Ordering::Relaxed), 1);
}

#[test]
fn a_value_whose_making_panics_leaves_the_slot_free() {
    let (slab, counts) = slab(0);
    for _ in 0..200 {
        let result = catch_unwind(AssertUnwindSafe(|| {
            slab.insert_leased_noted(1, || panic!("on purpose")).is_ok()
        }));
        assert!(result.is_err());
    }
    assert_eq!(slab.occupied(), 0);
    assert_eq!(walk(&slab, 0), []);
    slab.shrink();
    assert_eq!(slab.allocated(), 0);
    drop(slab);
    assert_eq!(counts.contexts.load(Ordering::Relaxed), 1);
}

#[test]
fn a_settlement_has_the_context_although_its_slot_was_the_last_thing() {
    let (slab, counts) = slab(64);
    let [alone, shared, idle] = [1, 2, 3].map(|note| lease(&slab, &counts, note));
    let other = shared.pin();
    drop(slab);
    let contexts = |counts: &Counts| counts.contexts.load(Ordering::Relaxed);
    // Idle, orphaned and held: late removal still gets it.
    idle.unlease().expect("leased");
    let taken = idle.remove_with(true, |_, _, stored| stored.is_ok());
    assert_eq!(taken.ok(), Some(true));
    let seen = shared.remove_with(false, |context, _, stored| {
        assert!(stored.is_err());
        contexts(&context.0)
    });
    assert_eq!(seen.ok(), Some(0));
    drop(other);
    assert_eq!(counts.vacated.load(Ordering::Relaxed), 1);
    let seen = alone.remove_with(false, |context, _, stored| {
        drop(stored);
        contexts(&context.0)
    });
    assert_eq!(seen.ok(), Some(0));
    assert_eq!(contexts(&counts), 1);
    assert_eq!(counts.alive.load(Ordering::Relaxed), 0);
}

#[test]
fn an_orphan_that_is_made_idle_goes_with_its_holder() {
    let (slab, counts) = slab(64);
    let held = lease(&slab, &counts, 1);
    let pin = held.pin();
    drop(slab);
    held.unlease().expect("leased");
    drop(held);
    assert_eq!(counts.alive.load(Ordering::Relaxed), 1);
    drop(pin);
    assert_eq!(counts.alive.load(Ordering::Relaxed), 0);
    assert_eq!(counts.contexts.load(Ordering::Relaxed), 1);
}

#[test]
fn a_chunks_note_outlives_the_chunk_and_a_walk_keeps_no_chunk() {
    let (slab, counts) = slab(0);
    let held = lease(&slab, &counts, 5);
    held.chunk_note().store(5, Ordering::SeqCst);
    held.detach();
    let mut met = 0;
    slab.leased_in(0, |noted| {
        let Noted::Leased { low, note: 5 } = noted else {
            panic!("{noted:?}")
        };
        let idle = ended(slab.unlease_due(low, 5));
        drop(slab.remove_idle_low(idle));
        // The walk itself does not keep it.
        slab.shrink();
        assert_eq!(slab.allocated(), 0);
        met += 1;
    });
    assert_eq!(met, 1);
    let note = slab.chunk_note(0).expect("it was there");
    assert_eq!(note.load(Ordering::SeqCst), 5);
    let held = lease(&slab, &counts, 9);
    assert_eq!(held.chunk_note().load(Ordering::SeqCst), 5);
    assert_eq!(walk(&slab, 0).len(), 1);
    let fresh = slab
        .chunk_note(1)
        .expect("within the limit, and its bucket is there");
    assert_eq!(fresh.load(Ordering::SeqCst), NO_NOTE);
}

/// A queue in small: lessees arm timers by the chunks' notes, a walker fires them.
struct Owner {
    slab: TestSlab,
    timers: Mutex<Vec<(u64, u32)>>,
    idle: Mutex<Vec<u64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Owner {
    fn arm(&self, held: &TestHeld, at: u64) {
        let note = held.chunk_note();
        if at < note.load(Ordering::SeqCst) && note.fetch_min(at, Ordering::SeqCst) > at {
            lock(&self.timers).push((at, held.chunk_number()));
        }
    }

    /// Fires every timer that stands there up to `now`.
    fn fire(&self, now: u64) -> usize {
        let mut fired = 0;
        loop {
            let (at, chunk) = {
                let mut timers = lock(&self.timers);
                let Some(place) = timers.iter().position(|&(at, _)| at <= now) else {
                    return fired;
                };
                timers.swap_remove(place)
            };
            fired += 1;
            let Some(note) = self.slab.chunk_note(chunk) else {
                continue;
            };
            if note.load(Ordering::SeqCst) != at {
                continue;
            }
            note.swap(NO_NOTE, Ordering::SeqCst);
            let mut next = NO_NOTE;
            self.slab.leased_in(chunk, |noted| match noted {
                Noted::Leased { note, .. } if note > at => next = next.min(note),
                Noted::Leased { low, .. } => match self.slab.unlease_due(low, at) {
                    Due::Ended(low) => lock(&self.idle).push(low),
                    Due::Later(note) => next = next.min(note),
                    Due::Over => {}
                },
                Noted::Unknown => next = next.min(at + 1),
            });
            if next != NO_NOTE && note.fetch_min(next, Ordering::SeqCst) > next {
                lock(&self.timers).push((next, chunk));
            }
        }
    }
}

/// Lessees come and go, extend, shorten, acknowledge late and just forget; when all is over and time has
/// passed, no lease is left: each one ended by its holder or was met by a timer.
#[test]
fn no_lease_ends_unseen() {
    // Fewer leases in all than there are slots.
    const EACH: u64 = 3_000;
    for kept in [0, 10_000] {
        let (slab, counts) = slab(kept);
        let owner = Owner {
            slab,
            timers: Mutex::default(),
            idle: Mutex::default(),
        };
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let walker = scope.spawn(|| {
                let mut now = 0;
                while !done.load(Ordering::Relaxed) {
                    now += 7;
                    owner.fire(now);
                    thread::yield_now();
                }
            });
            let lessees: Vec<_> = (0..3)
                .map(|lessee| {
                    let (owner, counts) = (&owner, &counts);
                    scope.spawn(move || {
                        for n in 0..EACH {
                            let at = 1 + (n * 31 + lessee * 17) % 4_000;
                            let again = lock(&owner.idle).pop();
                            let held = match again {
                                Some(low) => match owner.slab.lease_low_noted(low, at) {
                                    Some(held) => held,
                                    // Acknowledged late in the meantime.
                                    None => continue,
                                },
                                None => lease(&owner.slab, counts, at),
                            };
                            owner.arm(&held, at);
                            match n % 6 {
                                0 => drop(held),
                                1 if held.change_note(at, at + 5_000) => drop(held),
                                2 if held.change_note(at, at / 2) => owner.arm(&held, at / 2),
                                3 => {
                                    let _ = held.disown();
                                }
                                4 => drop(held.remove_with(true, |_, _, stored| stored.is_ok())),
                                _ => drop(held.remove()),
                            }
                        }
                    })
                })
                .collect();
            for lessee in lessees {
                lessee.join().expect("no panic");
            }
            done.store(true, Ordering::Relaxed);
            walker.join().expect("no panic");
        });
        // Twice: the first may leave what it found unknown.
        owner.fire(NO_NOTE - 2);
        owner.fire(NO_NOTE - 1);
        for chunk in (0..).take_while(|&chunk| owner.slab.chunk_note(chunk).is_some()) {
            assert_eq!(walk(&owner.slab, chunk), [], "a lease that no timer met");
        }
        for low in lock(&owner.idle).drain(..) {
            drop(owner.slab.remove_idle_low(low));
        }
        assert_eq!(owner.slab.occupied(), 0);
        assert_eq!(counts.alive.load(Ordering::Relaxed), 0);
    }
}
