//! The slab: rules, properties, drop counts, stress.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use sim_core::slab::{Held, HoldError, Key, LeaseError, Removed, Slab, Stale, Vacate};
use sim_core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use sim_core::sync::{Arc, Mutex, thread};

/// What the values and the context of one slab count.
#[derive(Debug, Default)]
struct Counts {
    made: AtomicUsize,
    vacated: AtomicUsize,
    dropped: AtomicUsize,
    contexts: AtomicUsize,
}

impl Counts {
    fn value(self: &Arc<Self>, number: u64) -> Value {
        self.made.fetch_add(1, Ordering::Relaxed);
        Value {
            number,
            echo: Box::new(number),
            deadline: AtomicU64::new(0),
            panics: false,
            counts: Arc::clone(self),
        }
    }

    /// Values made, vacated, dropped; contexts dropped.
    fn get(&self) -> (usize, usize, usize, usize) {
        let load = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (
            load(&self.made),
            load(&self.vacated),
            load(&self.dropped),
            load(&self.contexts),
        )
    }

    /// Whether everything was dropped exactly once.
    fn is_settled(&self) -> bool {
        let (made, _, dropped, contexts) = self.get();
        made == dropped && contexts == 1
    }
}

#[derive(Debug)]
struct Context {
    counts: Arc<Counts>,
    panics: bool,
}

impl Vacate<Value> for Context {
    fn vacated(&self, value: Value) {
        value.check();
        self.counts.vacated.fetch_add(1, Ordering::Relaxed);
        assert!(!self.panics, "a context that panics");
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.counts.contexts.fetch_add(1, Ordering::Relaxed);
    }
}

/// A value that counts its drop and has something on the heap, so that a second drop or a late read shows.
#[derive(Debug)]
struct Value {
    number: u64,
    echo: Box<u64>,
    deadline: AtomicU64,
    panics: bool,
    counts: Arc<Counts>,
}

impl Value {
    fn check(&self) {
        assert_eq!(self.number, *self.echo);
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.check();
        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        assert!(!self.panics, "a value that panics");
    }
}

type TestSlab = Slab<Context, Value>;

fn slab(limit: usize, kept: usize) -> (TestSlab, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let context = Context {
        counts: Arc::clone(&counts),
        panics: false,
    };
    (Slab::with_kept(context, limit, kept), counts)
}

fn leased(slab: &TestSlab, counts: &Arc<Counts>, number: u64) -> Held<Context, Value> {
    slab.insert_leased(counts.value(number)).expect("room")
}

#[test]
fn a_lease_is_named_by_its_key_alone() {
    let (slab, counts) = slab(10, 0);
    let idle = slab.insert(counts.value(7)).unwrap();
    assert_eq!(slab.with(idle, |value| value.number), Some(7));
    assert!(slab.held(idle).is_none(), "not leased");
    let first = slab.lease(idle.index()).unwrap();
    assert_eq!(
        slab.try_lease(idle.index()).unwrap_err(),
        LeaseError::NotIdle
    );
    assert!(slab.with(idle, |_| ()).is_none(), "leased since");
    let first_key = first.key();
    assert!(first.is_current());
    let index = first.release().unwrap();
    assert_eq!(index, idle.index());
    let second = slab.lease(index).unwrap();
    assert_ne!(second.key(), first_key);
    assert_eq!(slab.try_held(first_key).unwrap_err(), HoldError::Stale);
    assert!(!slab.unlease(first_key));
    let second_key = second.detach();
    assert_eq!(slab.with(second_key, |value| value.number), Some(7));
    assert!(slab.unlease(second_key));
    assert!(slab.with(second_key, |_| ()).is_none());
    assert!(matches!(slab.remove_idle(index), Some(Removed::Value(_))));
    assert!(slab.remove_idle(index).is_none());
    assert!(slab.lease(index).is_none());
    assert_eq!(slab.occupied(), 0);
    drop(slab);
    assert!(counts.is_settled());
}

#[test]
fn an_ended_lease_is_stale_to_its_holder() {
    let (slab, counts) = slab(10, 0);
    let held = leased(&slab, &counts, 1);
    assert!(held.touch());
    assert!(slab.unlease(held.key()));
    assert!(!held.is_current());
    assert!(!held.touch());
    assert_eq!(held.number, 1, "pinned all the same");
    let index = held.key().index();
    let again = slab.lease(index).unwrap();
    assert_eq!(held.release(), Err(Stale));
    assert!(again.is_current());
    let key = again.key();
    let second = slab.held(key).unwrap();
    assert!(again.remove().unwrap().is_none(), "held by another");
    assert_eq!(counts.get(), (1, 0, 0, 0));
    assert_eq!(second.remove().unwrap_err(), Stale);
    assert_eq!(counts.get(), (1, 1, 1, 0));
}

#[test]
fn a_removed_idle_value_waits_for_its_last_holder() {
    let (slab, counts) = slab(10, 0);
    let held = leased(&slab, &counts, 1);
    assert!(slab.unlease(held.key()));
    assert!(matches!(
        slab.remove_idle(held.key().index()),
        Some(Removed::Shared)
    ));
    assert!(slab.lease(held.key().index()).is_none());
    assert_eq!(held.number, 1);
    drop(held);
    assert_eq!(counts.get(), (1, 1, 1, 0));
    assert_eq!(slab.occupied(), 0);
}

#[test]
fn a_timer_ends_only_what_is_over() {
    let (slab, counts) = slab(10, 0);
    let held = leased(&slab, &counts, 1);
    held.deadline.store(10, Ordering::Relaxed);
    let low = held.key().low();
    assert_eq!(Key::index_of_low(low), held.key().index());
    let over = |now| move |value: &Value| value.deadline.load(Ordering::Relaxed) <= now;
    assert_eq!(slab.unlease_if(low, over(9)), None);
    // The lease is extended after the timer has looked: it must look again.
    let mut looks = 0;
    let ended = slab.unlease_if(low, |value| {
        looks += 1;
        let is_over = over(10)(value);
        if looks == 1 {
            held.deadline.store(20, Ordering::Relaxed);
            assert!(held.touch());
        }
        is_over
    });
    assert_eq!((ended, looks), (None, 2));
    // Another holder comes while the timer looks: that is no reason to look again.
    let mut others = Vec::new();
    let ended = slab.unlease_if(low, |value| {
        others.push(slab.held(held.key()).unwrap());
        over(20)(value)
    });
    assert_eq!((ended, others.len()), (Some(held.key().index()), 1));
    assert_eq!(slab.unlease_if(low, |_| true), None);
    // It is removed while the timer looks.
    let index = held.key().index();
    drop(held);
    let held = slab.lease(index).unwrap();
    let low = held.key().low();
    let mut held = Some(held);
    let ended = slab.unlease_if(low, |_| held.take().unwrap().remove().unwrap().is_none());
    assert_eq!(ended, None);
    drop(others);
    assert_eq!(slab.occupied(), 0);
    drop(slab);
    assert!(counts.is_settled());
}

#[test]
fn a_slot_counts_so_many_holders_and_says_when_it_is_full() {
    let (slab, counts) = slab(1, 0);
    let held = leased(&slab, &counts, 1);
    let key = held.key();
    let mut holders = vec![held];
    let error = loop {
        match slab.try_held(key) {
            Ok(held) => holders.push(held),
            Err(error) => break error,
        }
    };
    assert_eq!(error, HoldError::Saturated);
    assert_eq!(holders.len(), 0xF00);
    let index = slab
        .unlease_if(key.low(), |_| true)
        .expect("timers have room left");
    assert_eq!(slab.try_lease(index).unwrap_err(), LeaseError::Saturated);
    holders.pop();
    let again = slab.lease(index).unwrap();
    assert!(again.remove().unwrap().is_none());
    drop(holders);
    drop(slab);
    assert!(counts.is_settled());
}

#[test]
fn the_limit_is_exact() {
    for limit in [0, 1, 63, 64, 65, 100, 200] {
        let (slab, counts) = slab(limit, 64);
        let mut held: Vec<_> = (0..limit as u64)
            .map(|number| leased(&slab, &counts, number))
            .collect();
        assert_eq!(slab.occupied(), limit);
        assert_eq!(slab.insert(counts.value(9)).unwrap_err().number, 9);
        if let Some(last) = held.pop() {
            drop(last.remove());
            held.push(leased(&slab, &counts, 10));
        }
        assert!(slab.insert_leased(counts.value(9)).is_err());
        let mut indices: Vec<_> = held.iter().map(|held| held.key().index()).collect();
        indices.sort_unstable();
        assert_eq!(indices, (0..limit as u32).collect::<Vec<_>>());
        drop(held);
        drop(slab);
        assert!(counts.is_settled());
    }
}

#[test]
fn the_room_in_another_stripes_chunk_is_found() {
    let (slab, counts) = slab(64, 64);
    let first = leased(&slab, &counts, 0);
    for round in 0..8 {
        let (slab, counts) = (slab.clone(), Arc::clone(&counts));
        let thread = thread::spawn(move || leased(&slab, &counts, round).detach());
        thread.join().unwrap();
    }
    assert_eq!(slab.occupied(), 9);
    drop(first);
    drop(slab);
    assert!(counts.is_settled());
}

#[test]
fn memory_is_given_back_as_it_drains() {
    const SLOTS: u64 = 100_000;
    let (slab, counts) = slab(1 << 20, 128);
    let mut last = None;
    for _ in 0..2 {
        let keys: Vec<_> = (0..SLOTS)
            .map(|number| leased(&slab, &counts, number).detach())
            .collect();
        assert!(slab.allocated() >= SLOTS as usize);
        for &key in &keys {
            assert!(slab.held(key).unwrap().remove().unwrap().is_some());
        }
        assert!(
            slab.allocated() <= 128 + 64 * 16,
            "{} slots are left",
            slab.allocated()
        );
        // The chunks of these keys are gone, or have come again with later generations.
        for &key in last.iter().flatten().chain(&keys) {
            assert!(slab.held(key).is_none());
            assert!(!slab.unlease(key));
            assert!(slab.lease(key.index()).is_none());
            assert_eq!(slab.unlease_if(key.low(), |_| true), None);
        }
        last = Some(keys);
    }
    slab.shrink();
    assert!(slab.allocated() <= 128);
    drop(slab);
    assert!(counts.is_settled());
}

#[test]
fn filling_and_draining_at_the_edge_of_a_chunk_allocates_nothing() {
    let (slab, counts) = slab(1 << 20, 0);
    let held: Vec<_> = (0..64)
        .map(|number| leased(&slab, &counts, number))
        .collect();
    for number in 0..1000 {
        drop(leased(&slab, &counts, number).remove());
        assert_eq!(slab.allocated(), 128);
    }
    drop(held);
}

#[test]
fn made_up_keys_hit_nothing() {
    let (slab, counts) = slab(1000, 64);
    for index in [0, 1, 63, 64, 999, 1000, 1 << 20, u32::MAX] {
        for generation in [0, 1, 2, 1 << 40, u64::MAX] {
            let key = Key::from_parts(index, generation);
            assert!(slab.held(key).is_none());
            assert!(slab.with(key, |_| ()).is_none());
            assert!(!slab.unlease(key));
            assert_eq!(slab.unlease_if(key.low(), |_| true), None);
        }
        assert!(slab.lease(index).is_none());
        assert!(slab.remove_idle(index).is_none());
    }
    let key = leased(&slab, &counts, 1).detach();
    assert!(
        slab.held(Key::from_parts(key.index(), key.generation() | 1 << 40))
            .is_none()
    );
}

#[test]
fn the_context_is_reached_from_everywhere() {
    let (slab, counts) = slab(10, 0);
    let held = leased(&slab, &counts, 1);
    assert!(Arc::ptr_eq(&slab.context().counts, &counts));
    drop(slab);
    assert!(Arc::ptr_eq(&held.context().counts, &counts));
    assert!(format!("{held:?}").contains("Held"));
}

#[test]
fn what_is_held_outlives_the_last_owner() {
    for way in 0..5 {
        let (slab, counts) = slab(1000, 64);
        let idle: Vec<_> = (0..100)
            .map(|number| slab.insert(counts.value(number)).unwrap())
            .collect();
        let held: Vec<_> = idle[..70]
            .iter()
            .map(|key| slab.lease(key.index()).unwrap())
            .collect();
        let detached = leased(&slab, &counts, 0).detach();
        assert!(slab.held(detached).is_some());
        let other = slab.clone();
        drop(slab);
        assert_eq!(counts.get().2, 0);
        let twice = other.held(held[0].key()).unwrap();
        drop(other);
        assert_eq!(
            counts.get(),
            (101, 0, 31, 0),
            "what nobody holds is dropped"
        );
        for held in held {
            assert_eq!(counts.get().3, 0);
            held.check();
            match way {
                0 => drop(held),
                1 => assert!(held.release().is_ok()),
                2 => drop(held.remove().unwrap()),
                3 => drop(held.detach()),
                _ => {
                    assert!(held.touch());
                    assert!(held.is_current());
                }
            }
        }
        assert_eq!(counts.get().2, 100, "one is held twice");
        assert_eq!(counts.get().3, 0);
        twice.check();
        drop(twice);
        assert!(counts.is_settled());
        assert_eq!(counts.get().1, usize::from(way == 2));
    }
}

#[test]
fn a_value_that_panics_is_dropped_once() {
    // In the sweep of the last owner.
    let (slab, counts) = slab(200, 0);
    for number in 0..150 {
        let mut value = counts.value(number);
        value.panics = number == 70;
        slab.insert(value).unwrap();
    }
    let held = leased(&slab, &counts, 150);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(slab))).is_err());
    assert_eq!(counts.get(), (151, 0, 150, 0));
    drop(held);
    assert!(counts.is_settled());

    // As the last orphan.
    let (slab, counts) = self::slab(10, 0);
    let mut value = counts.value(1);
    value.panics = true;
    let held = slab.insert_leased(value).unwrap();
    drop(slab);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(held))).is_err());
    assert!(counts.is_settled());
}

#[test]
fn a_context_that_panics_leaves_the_slot_free() {
    let counts = Arc::new(Counts::default());
    let context = Context {
        counts: Arc::clone(&counts),
        panics: true,
    };
    let slab = Slab::with_kept(context, 1, 0);
    let held = leased(&slab, &counts, 1);
    let other = slab.held(held.key()).unwrap();
    assert!(held.remove().unwrap().is_none());
    assert!(catch_unwind(AssertUnwindSafe(|| drop(other))).is_err());
    assert_eq!(counts.get(), (1, 1, 1, 0));
    assert_eq!(slab.occupied(), 0);
    drop(leased(&slab, &counts, 2).remove());
    drop(slab);
    assert!(counts.is_settled());
}

#[test]
fn a_predicate_or_reader_that_panics_lets_go() {
    let (slab, counts) = slab(1, 0);
    let key = leased(&slab, &counts, 1).detach();
    assert!(catch_unwind(AssertUnwindSafe(|| slab.unlease_if(key.low(), |_| panic!()))).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| slab.with(key, |_| panic!()))).is_err());
    assert!(
        slab.held(key).unwrap().remove().unwrap().is_some(),
        "nobody else holds it"
    );
}

#[test]
fn a_value_may_hold_another_slot_of_its_slab() {
    struct Chain {
        _next: Option<Held<(), Chain>>,
    }
    let slab: Slab<(), Chain> = Slab::with_kept((), 1000, 0);
    let mut next = None;
    for _ in 0..200 {
        next = Some(
            slab.insert_leased(Chain { _next: next.take() })
                .unwrap_or_else(|_| panic!()),
        );
    }
    drop(slab);
    drop(next);
}

#[test]
fn zero_sized_and_large_values_fit() {
    let slab: Slab<(), ()> = Slab::new((), 100);
    let key = slab.insert(()).unwrap();
    assert_eq!(slab.lease(key.index()).unwrap().remove(), Ok(Some(())));
    let slab: Slab<(), [u8; 1 << 16]> = Slab::new((), 100);
    let held = slab.insert_leased([7; 1 << 16]).unwrap();
    assert_eq!(held[65_535], 7);
}

#[test]
fn handles_cross_threads() {
    fn both<T: Send + Sync>() {}
    both::<TestSlab>();
    both::<Held<Context, Value>>();
    assert_eq!(size_of::<Option<Held<Context, Value>>>(), 16);
}

/// One slot of the model.
#[derive(Debug, Clone, Copy)]
struct Modelled {
    number: u64,
    /// The key under which it is leased, if it is.
    leased: Option<Key>,
    gone: bool,
    holders: usize,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Insert,
    InsertLeased,
    Lease(usize),
    Hold(usize),
    Forge(u32, u64),
    Release(usize),
    Remove(usize),
    Touch(usize),
    Drop(usize),
    Unlease(usize),
    Expire(usize, bool),
    RemoveIdle(usize),
    Shrink,
}

fn step() -> impl Strategy<Value = Step> {
    let pick = any::<usize>();
    prop_oneof![
        6 => Just(Step::Insert),
        4 => Just(Step::InsertLeased),
        6 => pick.prop_map(Step::Lease),
        4 => pick.prop_map(Step::Hold),
        2 => (0..300_u32, 0..20_u64).prop_map(|(index, generation)| Step::Forge(index, generation)),
        4 => pick.prop_map(Step::Release),
        5 => pick.prop_map(Step::Remove),
        2 => pick.prop_map(Step::Touch),
        4 => pick.prop_map(Step::Drop),
        2 => pick.prop_map(Step::Unlease),
        2 => (pick, any::<bool>()).prop_map(|(key, over)| Step::Expire(key, over)),
        3 => pick.prop_map(Step::RemoveIdle),
        1 => Just(Step::Shrink),
    ]
}

/// The slab beside a map of what is in it.
struct Model {
    slab: TestSlab,
    counts: Arc<Counts>,
    limit: usize,
    slots: HashMap<u32, Modelled>,
    held: Vec<Held<Context, Value>>,
    keys: Vec<Key>,
    next: u64,
}

impl Model {
    fn is_leased(&self, key: Key) -> bool {
        self.slots
            .get(&key.index())
            .is_some_and(|slot| slot.leased == Some(key))
    }

    fn indices(&self) -> Vec<u32> {
        let mut indices: Vec<_> = self.slots.keys().copied().collect();
        indices.sort_unstable();
        indices
    }

    fn enter(&mut self, key: Key, leased: bool) {
        let holders = usize::from(leased);
        let slot = Modelled {
            number: self.next,
            leased: leased.then_some(key),
            gone: false,
            holders,
        };
        assert!(
            self.slots.insert(key.index(), slot).is_none(),
            "a slot in use was given out"
        );
        assert!(!self.keys.contains(&key), "a key was given out twice");
        self.keys.push(key);
        self.next += 1;
    }

    /// A holder has left.
    fn left(&mut self, index: u32) {
        let slot = self.slots.get_mut(&index).unwrap();
        slot.holders -= 1;
        if slot.gone && slot.holders == 0 {
            self.slots.remove(&index);
        }
    }

    fn apply(&mut self, step: Step) {
        let picked_key = |pick: usize, keys: &[Key]| keys.get(pick % keys.len().max(1)).copied();
        match step {
            Step::Insert => match self.slab.insert(self.counts.value(self.next)) {
                Ok(key) => self.enter(key, false),
                Err(value) => {
                    assert_eq!(value.number, self.next);
                    assert_eq!(self.slots.len(), self.limit);
                }
            },
            Step::InsertLeased => match self.slab.insert_leased(self.counts.value(self.next)) {
                Ok(held) => {
                    self.enter(held.key(), true);
                    self.held.push(held);
                }
                Err(_) => assert_eq!(self.slots.len(), self.limit),
            },
            Step::Lease(pick) => {
                let indices = self.indices();
                let Some(&index) = indices.get(pick % indices.len().max(1)) else {
                    return;
                };
                let slot = self.slots.get_mut(&index).unwrap();
                let idle = slot.leased.is_none() && !slot.gone;
                match self.slab.lease(index) {
                    Some(held) => {
                        assert!(idle);
                        assert_eq!(held.number, slot.number);
                        assert!(
                            !self.keys.contains(&held.key()),
                            "a key was given out twice"
                        );
                        self.keys.push(held.key());
                        slot.leased = Some(held.key());
                        slot.holders += 1;
                        self.held.push(held);
                    }
                    None => assert!(!idle),
                }
            }
            Step::Hold(pick) => {
                let Some(key) = picked_key(pick, &self.keys) else {
                    return;
                };
                let expected = self.is_leased(key);
                let held = self.slab.held(key);
                assert_eq!(held.is_some(), expected);
                if let Some(held) = held {
                    let slot = self.slots.get_mut(&key.index()).unwrap();
                    assert_eq!(held.number, slot.number);
                    slot.holders += 1;
                    self.held.push(held);
                }
            }
            Step::Forge(index, generation) => {
                let key = Key::from_parts(index, generation);
                assert_eq!(self.slab.held(key).is_some(), self.is_leased(key));
            }
            Step::Release(pick) => {
                let Some(held) = self.pick_held(pick) else {
                    return;
                };
                let key = held.key();
                let current = self.is_leased(key);
                assert_eq!(held.is_current(), current);
                assert_eq!(
                    held.release(),
                    if current { Ok(key.index()) } else { Err(Stale) }
                );
                if current {
                    self.slots.get_mut(&key.index()).unwrap().leased = None;
                }
                self.left(key.index());
            }
            Step::Remove(pick) => {
                let Some(held) = self.pick_held(pick) else {
                    return;
                };
                let key = held.key();
                let current = self.is_leased(key);
                let slot = self.slots.get_mut(&key.index()).unwrap();
                match held.remove() {
                    Ok(value) => {
                        assert!(current);
                        assert_eq!(value.is_some(), slot.holders == 1);
                        assert!(value.is_none_or(|value| value.number == slot.number));
                        slot.leased = None;
                        slot.gone = true;
                    }
                    Err(Stale) => assert!(!current),
                }
                self.left(key.index());
            }
            Step::Touch(pick) => {
                let Some(held) = self.pick_held(pick) else {
                    return;
                };
                assert_eq!(held.touch(), self.is_leased(held.key()));
                self.held.push(held);
            }
            Step::Drop(pick) => {
                let Some(held) = self.pick_held(pick) else {
                    return;
                };
                let index = held.key().index();
                assert_eq!(held.number, self.slots[&index].number);
                drop(held);
                self.left(index);
            }
            Step::Unlease(pick) => {
                let Some(key) = picked_key(pick, &self.keys) else {
                    return;
                };
                let expected = self.is_leased(key);
                assert_eq!(self.slab.unlease(key), expected);
                if expected {
                    self.slots.get_mut(&key.index()).unwrap().leased = None;
                }
            }
            Step::Expire(pick, over) => {
                let Some(key) = picked_key(pick, &self.keys) else {
                    return;
                };
                let expected = self.is_leased(key) && over;
                let ended = self.slab.unlease_if(key.low(), |_| over);
                assert_eq!(ended, expected.then_some(key.index()));
                if expected {
                    self.slots.get_mut(&key.index()).unwrap().leased = None;
                }
            }
            Step::RemoveIdle(pick) => {
                let indices = self.indices();
                let Some(&index) = indices.get(pick % indices.len().max(1)) else {
                    return;
                };
                let slot = self.slots.get_mut(&index).unwrap();
                let idle = slot.leased.is_none() && !slot.gone;
                match self.slab.remove_idle(index) {
                    None => assert!(!idle),
                    Some(Removed::Value(value)) => {
                        assert!(idle && slot.holders == 0);
                        assert_eq!(value.number, slot.number);
                        self.slots.remove(&index);
                    }
                    Some(Removed::Shared) => {
                        assert!(idle && slot.holders > 0);
                        slot.gone = true;
                    }
                }
            }
            Step::Shrink => self.slab.shrink(),
        }
        assert_eq!(self.slab.occupied(), self.slots.len());
    }

    fn pick_held(&mut self, pick: usize) -> Option<Held<Context, Value>> {
        let pick = pick % self.held.len().max(1);
        (pick < self.held.len()).then(|| self.held.swap_remove(pick))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_slab_is_a_map_of_live_keys(
        steps in proptest::collection::vec(step(), 1..400),
        limit in prop_oneof![Just(5_usize), Just(64), Just(150), Just(100_000)],
        kept in prop_oneof![Just(0_usize), Just(64)],
    ) {
        let (slab, counts) = slab(limit, kept);
        let mut model = Model {
            slab,
            counts: Arc::clone(&counts),
            limit,
            slots: HashMap::new(),
            held: Vec::new(),
            keys: Vec::new(),
            next: 0,
        };
        for step in steps {
            model.apply(step);
        }
        for &key in &model.keys {
            let held = model.slab.held(key);
            assert_eq!(held.is_some(), model.is_leased(key));
        }
        let Model { slab, held, .. } = model;
        drop(slab);
        drop(held);
        prop_assert!(counts.is_settled());
    }
}

/// Rounds of a stress test; the environment's `SIM_STRESS_DIVISOR` makes them few, for tools that check
/// each access.
fn rounds(usual: u64) -> u64 {
    let divisor = std::env::var("SIM_STRESS_DIVISOR")
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    (usual / divisor.unwrap_or(1).max(1)).max(1)
}

/// Senders insert, receivers lease, release and remove, a timer expires, a meddler tries old keys and
/// shrinks: nothing is lost, doubled, or found under a key that is not its own.
fn churn(limit: usize, kept: usize) {
    let (slab, counts) = slab(limit, kept);
    let ready = Arc::new(Mutex::new(Vec::<u32>::new()));
    let seen = Arc::new(Mutex::new(Vec::<(Key, u64)>::new()));
    let removed = Arc::new(AtomicU64::new(0));
    let sum = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let each = rounds(20_000);
    let total = 2 * each;

    let senders = [0, each].map(|from| {
        let (slab, counts, ready) = (slab.clone(), Arc::clone(&counts), Arc::clone(&ready));
        thread::spawn(move || {
            for number in from..from + each {
                let mut value = counts.value(number);
                loop {
                    match slab.insert(value) {
                        Ok(key) => {
                            ready.lock().push(key.index());
                            break;
                        }
                        Err(back) => value = back,
                    }
                    thread::yield_now();
                }
            }
        })
    });
    let receivers = [0_u64, 1].map(|salt| {
        let slab = slab.clone();
        let (ready, seen, removed) = (Arc::clone(&ready), Arc::clone(&seen), Arc::clone(&removed));
        let sum = Arc::clone(&sum);
        thread::spawn(move || {
            let mut turn = salt;
            while removed.load(Ordering::Relaxed) < total {
                turn += 1;
                let popped = ready.lock().pop();
                let Some(index) = popped else {
                    thread::yield_now();
                    continue;
                };
                let held = slab.lease(index).expect("handed out as idle");
                held.check();
                if turn % 64 == 0 {
                    seen.lock().push((held.key(), held.number));
                }
                match turn % 8 {
                    // Left to the timer.
                    0 if turn % 64 == 0 => {
                        held.deadline.store(1, Ordering::Relaxed);
                        held.detach();
                    }
                    1 => ready
                        .lock()
                        .push(held.release().expect("nobody else ends it")),
                    2 => {
                        let other = slab.held(held.key()).expect("leased");
                        sum.fetch_add(held.number, Ordering::Relaxed);
                        assert!(held.remove().expect("current").is_none());
                        other.check();
                        removed.fetch_add(1, Ordering::Relaxed);
                    }
                    _ => {
                        sum.fetch_add(held.number, Ordering::Relaxed);
                        // None when the meddler or the timer looks at it.
                        if let Some(value) = held.remove().expect("current") {
                            value.check();
                        }
                        removed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        })
    });
    let timer = {
        let (slab, ready, seen) = (slab.clone(), Arc::clone(&ready), Arc::clone(&seen));
        let done = Arc::clone(&done);
        thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let keys = seen.lock().clone();
                for (key, number) in keys {
                    let ended = slab.unlease_if(key.low(), |value| {
                        assert_eq!(value.number, number);
                        value.deadline.swap(0, Ordering::Relaxed) == 1
                    });
                    if let Some(index) = ended {
                        ready.lock().push(index);
                    }
                }
                let mut seen = seen.lock();
                let excess = seen.len().saturating_sub(100);
                seen.retain({
                    let mut position = 0;
                    let slab = &slab;
                    move |&(key, _)| {
                        position += 1;
                        position > excess || slab.held(key).is_some()
                    }
                });
                drop(seen);
                thread::yield_now();
            }
        })
    };
    let meddler = {
        let (slab, seen, done) = (slab.clone(), Arc::clone(&seen), Arc::clone(&done));
        thread::spawn(move || {
            let mut random = 1_u64;
            while !done.load(Ordering::Relaxed) {
                let keys = seen.lock().clone();
                for (key, number) in keys {
                    if let Some(held) = slab.held(key) {
                        assert_eq!(held.number, number);
                        held.check();
                    }
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let forged = Key::from_parts((random >> 40) as u32 % 4096, random >> 60);
                    slab.with(forged, Value::check);
                    drop(slab.held(forged));
                }
                slab.shrink();
                thread::yield_now();
            }
        })
    };
    for thread in senders.into_iter().chain(receivers) {
        thread.join().unwrap();
    }
    done.store(true, Ordering::Relaxed);
    timer.join().unwrap();
    meddler.join().unwrap();
    assert_eq!(sum.load(Ordering::Relaxed), total * (total - 1) / 2);
    assert_eq!(slab.occupied(), 0);
    drop(slab);
    assert!(counts.is_settled());
}

#[test]
fn nothing_is_lost_while_threads_churn() {
    churn(200, 1 << 20);
}

#[test]
fn nothing_is_lost_while_chunks_come_and_go() {
    churn(1 << 20, 0);
}

#[test]
fn nothing_is_lost_at_the_limit() {
    churn(70, 64);
}

#[test]
fn chunks_come_and_go_under_lookups() {
    let (slab, counts) = slab(1 << 20, 0);
    let keys = Arc::new(Mutex::new(Vec::<Key>::new()));
    let done = Arc::new(AtomicBool::new(false));
    let lookups = [0, 1].map(|_| {
        let (slab, keys, done) = (slab.clone(), Arc::clone(&keys), Arc::clone(&done));
        thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let tried = keys.lock().clone();
                for key in tried {
                    if let Some(held) = slab.held(key) {
                        held.check();
                    }
                    slab.with(key, Value::check);
                    assert!(slab.lease(key.index()).is_none(), "never idle");
                }
            }
        })
    });
    for round in 0..rounds(200) {
        let held: Vec<_> = (0..640)
            .map(|number| leased(&slab, &counts, number))
            .collect();
        *keys.lock() = held.iter().map(Held::key).collect();
        for (number, held) in held.into_iter().enumerate() {
            if (number as u64 + round).is_multiple_of(3) {
                drop(held.remove());
            } else {
                let key = held.detach();
                drop(slab.held(key).unwrap().remove());
            }
        }
        slab.shrink();
    }
    done.store(true, Ordering::Relaxed);
    for thread in lookups {
        thread.join().unwrap();
    }
    slab.shrink();
    assert_eq!(slab.allocated(), 0);
    drop(slab);
    assert!(counts.is_settled());
}

#[test]
fn orphans_and_the_last_owner_leave_at_once() {
    for round in 0..rounds(2000) {
        let (slab, counts) = slab(1000, if round % 2 == 0 { 0 } else { 64 });
        let start = Arc::new(AtomicUsize::new(0));
        let threads = [0_u64, 1, 2].map(|salt| {
            let held: Vec<_> = (0..1 + round % 30)
                .map(|number| leased(&slab, &counts, number))
                .flat_map(|held| {
                    let twice = (salt == 1).then(|| slab.held(held.key()).unwrap());
                    [Some(held), twice]
                })
                .flatten()
                .collect();
            slab.insert(counts.value(salt)).unwrap();
            let start = Arc::clone(&start);
            thread::spawn(move || {
                start.fetch_add(1, Ordering::Relaxed);
                while start.load(Ordering::Relaxed) < 4 {
                    thread::yield_now();
                }
                for (number, held) in held.into_iter().enumerate() {
                    held.check();
                    match (number as u64 + round + salt) % 3 {
                        0 => drop(held),
                        1 => drop(held.release()),
                        _ => drop(held.remove()),
                    }
                }
            })
        });
        start.fetch_add(1, Ordering::Relaxed);
        while start.load(Ordering::Relaxed) < 4 {
            thread::yield_now();
        }
        drop(slab);
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(counts.is_settled(), "{:?}", counts.get());
    }
}
