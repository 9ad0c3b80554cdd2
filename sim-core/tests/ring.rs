//! The rings alone and under threads: order, bounds, positions, keys, panics, drops.
#![cfg(not(loom))]

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use proptest::prelude::*;
use sim_core::ring::{Bounded, Entry, Unbounded};

/// Counts the values that are alive.
#[derive(Clone, Default)]
struct Alive(Arc<AtomicUsize>);

/// A value whose drop is counted, twice dropped being a panic.
struct Counted(u64, Alive, bool);

impl Alive {
    fn value(&self, number: u64) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(number, self.clone(), true)
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        assert!(std::mem::replace(&mut self.2, false), "dropped twice");
        self.1.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Both rings behind one face, so that each test runs on both.
trait Ring<T>: Send + Sync {
    fn push(&self, value: T) -> Result<u64, T>;
    fn push_batch<I: ExactSizeIterator<Item = T>>(&self, values: &mut I) -> (u64, usize);
    fn pop_entry(&self) -> Option<Entry<T>>;
    fn pop_batch(&self, max: usize, each: impl FnMut(Entry<T>)) -> usize;
    fn len(&self) -> usize;
    fn is_empty(&self) -> bool;
    fn pushed(&self) -> u64;
    fn close(&self);
    fn is_closed(&self) -> bool;
}

impl<T: Send> Ring<T> for Bounded<T> {
    fn push(&self, value: T) -> Result<u64, T> {
        Bounded::push(self, value)
    }
    fn push_batch<I: ExactSizeIterator<Item = T>>(&self, values: &mut I) -> (u64, usize) {
        Bounded::push_batch(self, values)
    }
    fn pop_entry(&self) -> Option<Entry<T>> {
        Bounded::pop_entry(self)
    }
    fn pop_batch(&self, max: usize, each: impl FnMut(Entry<T>)) -> usize {
        Bounded::pop_batch(self, max, each)
    }
    fn len(&self) -> usize {
        Bounded::len(self)
    }
    fn is_empty(&self) -> bool {
        Bounded::is_empty(self)
    }
    fn pushed(&self) -> u64 {
        Bounded::pushed(self)
    }
    fn close(&self) {
        Bounded::close(self);
    }
    fn is_closed(&self) -> bool {
        Bounded::is_closed(self)
    }
}

impl<T: Send> Ring<T> for Unbounded<T> {
    fn push(&self, value: T) -> Result<u64, T> {
        Unbounded::push(self, value)
    }
    fn push_batch<I: ExactSizeIterator<Item = T>>(&self, values: &mut I) -> (u64, usize) {
        Unbounded::push_batch(self, values)
    }
    fn pop_entry(&self) -> Option<Entry<T>> {
        Unbounded::pop_entry(self)
    }
    fn pop_batch(&self, max: usize, each: impl FnMut(Entry<T>)) -> usize {
        Unbounded::pop_batch(self, max, each)
    }
    fn len(&self) -> usize {
        Unbounded::len(self)
    }
    fn is_empty(&self) -> bool {
        Unbounded::is_empty(self)
    }
    fn pushed(&self) -> u64 {
        Unbounded::pushed(self)
    }
    fn close(&self) {
        Unbounded::close(self);
    }
    fn is_closed(&self) -> bool {
        Unbounded::is_closed(self)
    }
}

#[test]
fn rings_are_send_and_sync_for_values_that_are_only_send() {
    fn check<R: Send + Sync>() {}
    check::<Bounded<std::cell::Cell<u8>>>();
    check::<Unbounded<std::cell::Cell<u8>, u64>>();
}

#[test]
fn the_capacity_is_exact() {
    for capacity in 1..=33 {
        let ring = Bounded::with_capacity(capacity);
        assert_eq!(ring.capacity(), capacity);
        for lap in 0..5 {
            for value in 0..capacity {
                assert_eq!(ring.push(value), Ok((lap * capacity + value) as u64));
            }
            assert_eq!(ring.push(99), Err(99));
            assert_eq!(ring.push_batch(&mut [1, 2].into_iter()).1, 0);
            assert_eq!(ring.len(), capacity);
            for value in 0..capacity {
                assert_eq!(ring.pop(), Some(value));
            }
            assert_eq!(ring.pop(), None);
            assert!(ring.is_empty());
        }
    }
}

#[test]
#[should_panic(expected = "at least 1")]
fn a_capacity_of_zero_is_refused() {
    let _ = Bounded::<u8>::with_capacity(0);
}

#[test]
fn a_huge_bounded_ring_costs_nothing_until_it_is_used() {
    // 4 GiB: zeroing them by hand would take seconds, and the memory of a small machine.
    let ring = Bounded::<u64>::with_capacity(1 << 28);
    assert_eq!(ring.push(7), Ok(0));
    assert_eq!(ring.pop(), Some(7));
}

#[test]
fn values_of_no_size_and_of_large_alignment_are_kept() {
    #[repr(align(256))]
    #[derive(Debug, PartialEq)]
    struct Aligned(u8);

    let bounded = Bounded::with_capacity(3);
    let unbounded = Unbounded::new();
    for number in 0..200 {
        bounded.push(Aligned(number)).unwrap();
        unbounded.push(Aligned(number)).unwrap();
        assert_eq!(bounded.pop(), Some(Aligned(number)));
    }
    for number in 0..200 {
        assert_eq!(unbounded.pop(), Some(Aligned(number)));
    }
    let unit = Unbounded::new();
    for _ in 0..1000 {
        unit.push(()).unwrap();
    }
    assert_eq!(unit.pop_batch(usize::MAX, |_| ()), 1000);
}

#[test]
fn a_batch_takes_what_fits_and_leaves_the_rest_in_the_iterator() {
    let ring = Bounded::with_capacity(5);
    let mut values = (0..8).collect::<Vec<_>>().into_iter();
    assert_eq!(ring.push_batch(&mut values), (0, 5));
    assert_eq!(values.len(), 3);
    let mut taken = Vec::new();
    assert_eq!(
        ring.pop_batch(3, |entry| taken.push((entry.position, entry.value))),
        3
    );
    assert_eq!(taken, [(0, 0), (1, 1), (2, 2)]);
    assert_eq!(ring.push_batch(&mut values), (5, 3));
    assert_eq!(values.len(), 0);
    assert_eq!(ring.pop_batch(0, |_| unreachable!()), 0);
    assert_eq!(ring.pop_batch(100, |_| ()), 5);
}

#[test]
fn a_batch_over_many_segments_has_consecutive_positions() {
    let ring = Unbounded::new();
    ring.push(0_u64).unwrap();
    assert_eq!(
        ring.push_batch(&mut (1..5_001).collect::<Vec<_>>().into_iter()),
        (1, 5_000)
    );
    assert_eq!(ring.push_batch(&mut std::iter::empty()).1, 0);
    assert_eq!(ring.push(5_001), Ok(5_001));
    let mut next = 0;
    while ring.pop_batch(777, |entry| {
        assert_eq!((entry.position, entry.value), (next, next));
        next += 1;
    }) > 0
    {}
    assert_eq!(next, 5_002);
}

#[test]
fn a_key_is_read_without_taking_the_element() {
    let bounded = Bounded::with_capacity(4);
    let unbounded = Unbounded::new();
    assert_eq!(bounded.front(), None);
    assert_eq!(unbounded.front(), None);
    assert!(bounded.pop_if(|_| true).is_none());
    assert!(unbounded.pop_if(|_| true).is_none());
    for number in 0..1_000_u64 {
        bounded.push_keyed(number * 10, number).unwrap();
        unbounded.push_keyed(number * 10, number).unwrap();
        assert_eq!(bounded.front(), Some((number, number * 10)));
        assert_eq!(unbounded.front(), Some((number, number * 10)));
        assert!(bounded.pop_if(|key| key != number * 10).is_none());
        assert!(unbounded.pop_if(|key| key != number * 10).is_none());
        let expected = Entry {
            position: number,
            key: number * 10,
            value: number,
        };
        assert_eq!(bounded.pop_if(|key| key == number * 10), Some(expected));
        assert_eq!(unbounded.pop_if(|key| key == number * 10), Some(expected));
    }
}

fn a_lying_iterator(ring: &impl Ring<Counted>, alive: &Alive) {
    struct Liar<'a>(u64, u64, &'a Alive, bool);
    impl Iterator for Liar<'_> {
        type Item = Counted;
        fn next(&mut self) -> Option<Counted> {
            if self.0 == self.1 {
                assert!(!self.3, "on purpose");
                return None;
            }
            self.0 += 1;
            Some(self.2.value(self.0))
        }
        fn size_hint(&self) -> (usize, Option<usize>) {
            (10, Some(10))
        }
    }
    impl ExactSizeIterator for Liar<'_> {}

    for round in 0..400 {
        let yields = round % 7;
        let panics = round % 2 == 1;
        let pushed = catch_unwind(AssertUnwindSafe(|| {
            ring.push_batch(&mut Liar(0, yields, alive, panics)).1
        }));
        if panics {
            assert!(pushed.is_err());
        } else {
            assert_eq!(pushed.expect("does not panic"), yields as usize);
        }
        assert!(ring.push(alive.value(100)).is_ok());
        let mut taken = Vec::new();
        if round % 3 == 0 {
            while let Some(entry) = ring.pop_entry() {
                taken.push(entry.value.0);
            }
        } else {
            while ring.pop_batch(4, |entry| taken.push(entry.value.0)) > 0 {}
        }
        let expected: Vec<_> = (1..=yields).chain([100]).collect();
        assert_eq!(taken, expected);
        assert_eq!((alive.count(), ring.len()), (0, 0));
    }
}

#[test]
fn an_iterator_that_panics_or_lies_leaves_holes_that_nobody_sees() {
    let alive = Alive::default();
    a_lying_iterator(&Bounded::with_capacity(12), &alive);
    a_lying_iterator(&Unbounded::new(), &alive);
}

#[test]
fn holes_at_the_front_are_skipped_by_peeks() {
    struct Liar;
    impl Iterator for Liar {
        type Item = (u64, u64);
        fn next(&mut self) -> Option<Self::Item> {
            None
        }
        fn size_hint(&self) -> (usize, Option<usize>) {
            (700, Some(700))
        }
    }
    impl ExactSizeIterator for Liar {}

    let bounded = Bounded::with_capacity(800);
    let unbounded = Unbounded::new();
    assert_eq!(bounded.push_batch_keyed(&mut Liar), (0, 0));
    assert_eq!(unbounded.push_batch_keyed(&mut Liar), (0, 0));
    assert_eq!((bounded.front(), unbounded.front()), (None, None));
    bounded.push_keyed(5, 6).unwrap();
    unbounded.push_keyed(5, 6).unwrap();
    assert_eq!(
        (bounded.front(), unbounded.front()),
        (Some((700, 5)), Some((700, 5)))
    );
}

fn a_panicking_consumer(ring: &impl Ring<Counted>, alive: &Alive) {
    for round in 0..100 {
        for number in 0..8 {
            assert!(ring.push(alive.value(number)).is_ok());
        }
        let mut seen = 0;
        let result = catch_unwind(AssertUnwindSafe(|| {
            ring.pop_batch(6, |_| {
                seen += 1;
                assert!(seen <= round % 6, "on purpose");
            })
        }));
        assert!(result.is_err());
        while ring.pop_entry().is_some() {}
        assert_eq!(alive.count(), 0);
        assert!(ring.is_empty());
    }
}

#[test]
fn a_consumer_that_panics_in_a_batch_leaves_the_ring_working() {
    let alive = Alive::default();
    a_panicking_consumer(&Bounded::with_capacity(8), &alive);
    a_panicking_consumer(&Unbounded::new(), &alive);
}

#[test]
fn what_is_left_is_dropped_once() {
    for pushed in [0, 1, 5, 62, 63, 64, 255, 256, 1000] {
        for popped in [0, 1, 4, 63, 255, 999] {
            let alive = Alive::default();
            let bounded = Bounded::with_capacity(1000);
            let unbounded = Unbounded::new();
            for number in 0..pushed {
                assert!(bounded.push(alive.value(number)).is_ok());
                assert!(unbounded.push(alive.value(number)).is_ok());
            }
            for _ in 0..popped {
                drop((bounded.pop(), unbounded.pop()));
            }
            assert_eq!(alive.count(), 2 * pushed.saturating_sub(popped) as usize);
            drop((bounded, unbounded));
            assert_eq!(alive.count(), 0);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push,
    Pop,
    PushBatch(usize),
    PopBatch(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        Just(Step::Push),
        Just(Step::Pop),
        (0..40_usize).prop_map(Step::PushBatch),
        (0..40_usize).prop_map(Step::PopBatch),
    ];
    proptest::collection::vec(step, 0..400)
}

fn behaves_like_a_deque(ring: &impl Ring<Counted>, capacity: usize, steps: &[Step]) {
    let alive = Alive::default();
    let mut model = VecDeque::new();
    let mut next = 0;
    for step in steps {
        match *step {
            Step::Push => match ring.push(alive.value(next)) {
                Ok(position) => {
                    assert_eq!(position, next);
                    model.push_back(next);
                    next += 1;
                    assert!(model.len() <= capacity);
                }
                Err(value) => assert_eq!((value.0, model.len()), (next, capacity)),
            },
            Step::Pop => {
                let entry = ring.pop_entry();
                assert_eq!(entry.as_ref().map(|entry| entry.value.0), model.pop_front());
                assert!(entry.is_none_or(|entry| entry.position == entry.value.0));
            }
            Step::PushBatch(count) => {
                let mut values = (next..next + count as u64)
                    .map(|number| alive.value(number))
                    .collect::<Vec<_>>()
                    .into_iter();
                let (first, pushed) = ring.push_batch(&mut values);
                assert_eq!(pushed, count.min(capacity - model.len()));
                assert_eq!(values.len(), count - pushed);
                assert!(pushed == 0 || first == next);
                model.extend(next..next + pushed as u64);
                next += pushed as u64;
            }
            Step::PopBatch(max) => {
                let expected = max.min(model.len());
                let taken = ring.pop_batch(max, |entry| {
                    assert_eq!(Some(entry.value.0), model.pop_front());
                    assert_eq!(entry.position, entry.value.0);
                });
                assert_eq!(taken, expected);
            }
        }
        assert_eq!(ring.len(), model.len());
        assert_eq!(ring.is_empty(), model.is_empty());
        assert_eq!(alive.count(), model.len());
    }
}

proptest! {
    #[test]
    fn a_bounded_ring_behaves_like_a_deque(capacity in 1..70_usize, steps in steps()) {
        behaves_like_a_deque(&Bounded::with_capacity(capacity), capacity, &steps);
    }

    #[test]
    fn an_unbounded_ring_behaves_like_a_deque(steps in steps()) {
        behaves_like_a_deque(&Unbounded::new(), usize::MAX, &steps);
    }
}

/// Producers and consumers by threads; each value must arrive once, each producer's in order at each consumer.
fn stress(ring: &impl Ring<Counted>, producers: u64, consumers: usize, each: u64, batch: usize) {
    let alive = Alive::default();
    let received = AtomicU64::new(0);
    let sum = AtomicU64::new(0);
    let total = producers * each;
    thread::scope(|scope| {
        for producer in 0..producers {
            let alive = &alive;
            scope.spawn(move || {
                let mut last = None;
                let mut number = 0;
                while number < each {
                    if batch > 1 {
                        let end = each.min(number + batch as u64);
                        let mut values = (number..end)
                            .map(|number| alive.value(producer * each + number))
                            .collect::<Vec<_>>()
                            .into_iter();
                        while values.len() > 0 {
                            let (first, count) = ring.push_batch(&mut values);
                            if count == 0 {
                                thread::yield_now();
                                continue;
                            }
                            assert!(last < Some(first));
                            last = Some(first + count as u64 - 1);
                        }
                        number = end;
                    } else {
                        let mut value = alive.value(producer * each + number);
                        let position = loop {
                            match ring.push(value) {
                                Ok(position) => break position,
                                Err(back) => value = back,
                            }
                            thread::yield_now();
                        };
                        assert!(last < Some(position));
                        last = Some(position);
                        number += 1;
                    }
                }
            });
        }
        for _ in 0..consumers {
            let (received, sum) = (&received, &sum);
            scope.spawn(move || {
                let mut seen = vec![None; producers as usize];
                let mut last = None;
                let mut see = |entry: Entry<Counted>| {
                    assert!(last < Some(entry.position));
                    last = Some(entry.position);
                    let number = entry.value.0;
                    let seen = &mut seen[(number / each) as usize];
                    assert!(*seen < Some(number), "out of order");
                    *seen = Some(number);
                    sum.fetch_add(number, Ordering::Relaxed);
                    received.fetch_add(1, Ordering::Relaxed);
                };
                while received.load(Ordering::Relaxed) < total {
                    let taken = if batch > 1 {
                        ring.pop_batch(batch, &mut see)
                    } else {
                        ring.pop_entry().map_or(0, |entry| {
                            see(entry);
                            1
                        })
                    };
                    if taken == 0 {
                        thread::yield_now();
                    }
                }
            });
        }
    });
    assert_eq!(received.into_inner(), total);
    assert_eq!(sum.into_inner(), total * (total - 1) / 2);
    assert_eq!(alive.count(), 0);
    assert!(ring.is_empty());
}

#[test]
fn threads_lose_nothing_and_keep_each_producers_order() {
    for batch in [1, 7] {
        for (producers, consumers) in [(1, 1), (4, 1), (1, 4), (4, 4)] {
            let each = 24_000 / producers;
            stress(
                &Bounded::with_capacity(1),
                producers,
                consumers,
                each / 8,
                batch,
            );
            stress(
                &Bounded::with_capacity(5),
                producers,
                consumers,
                each / 2,
                batch,
            );
            stress(
                &Bounded::with_capacity(64),
                producers,
                consumers,
                each,
                batch,
            );
            stress(&Unbounded::new(), producers, consumers, each, batch);
        }
    }
}

/// Keys that threads peek at belong to the position they are returned with, and conditional pops take just what
/// was asked for, while segments come and go.
#[test]
fn peeks_are_consistent_while_the_ring_moves() {
    const COUNT: u64 = 60_000;
    let bounded: Bounded<u64, u64> = Bounded::with_capacity(3);
    let unbounded: Unbounded<u64, u64> = Unbounded::new();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..COUNT {
                assert_eq!(unbounded.push_keyed(number * 3, number), Ok(number));
                while bounded.push_keyed(number * 3, number).is_err() {
                    thread::yield_now();
                }
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (position, key) in bounded.front().into_iter().chain(unbounded.front()) {
                    assert_eq!(key, position * 3);
                }
            }
        });
        scope.spawn(|| {
            let mut next = [0; 2];
            while next != [COUNT; 2] {
                let taken = [
                    bounded.pop_if(|key| key == next[0] * 3),
                    unbounded.pop_if(|key| key == next[1] * 3),
                ];
                if taken == [None, None] {
                    thread::yield_now();
                }
                for (next, taken) in next.iter_mut().zip(taken) {
                    if let Some(entry) = taken {
                        let expected = Entry {
                            position: *next,
                            key: *next * 3,
                            value: *next,
                        };
                        assert_eq!(entry, expected);
                        *next += 1;
                    }
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    });
}

fn a_closed_ring(ring: &impl Ring<Counted>, alive: &Alive, filled: u64, popped: u64) {
    for number in 0..filled {
        assert!(ring.push(alive.value(number)).is_ok());
    }
    for _ in 0..popped {
        assert!(ring.pop_entry().is_some());
    }
    assert!(!ring.is_closed());
    for _ in 0..2 {
        ring.close();
        assert!(ring.is_closed());
        assert_eq!(ring.push(alive.value(99)).map_err(|back| back.0), Err(99));
        let mut values = [7, 8].map(|number| alive.value(number)).into_iter();
        assert_eq!(ring.push_batch(&mut values), (filled, 0));
        assert_eq!(values.next().map(|value| value.0), Some(7));
        assert_eq!(ring.push_batch(&mut std::iter::empty()), (filled, 0));
        assert_eq!(ring.pushed(), filled);
        assert_eq!(ring.len() as u64, filled - popped);
        assert_eq!(ring.is_empty(), filled == popped);
    }
    // One, then the rest at once, except for the last three, which are dropped with the ring.
    let left = filled - popped;
    if left > 0 {
        let entry = ring
            .pop_entry()
            .map(|entry| (entry.position, entry.value.0));
        assert_eq!(entry, Some((popped, popped)));
        let most = left.saturating_sub(4) as usize;
        assert_eq!(ring.pop_batch(most, |_| ()), most);
        assert!(ring.push(alive.value(99)).is_err());
        assert_eq!(ring.len() as u64, (left - 1).min(3));
    } else {
        assert!(ring.pop_entry().is_none());
        assert_eq!(ring.pop_batch(5, |_| ()), 0);
    }
}

#[test]
fn a_closed_ring_refuses_what_comes_and_gives_what_stands() {
    for filled in [
        0, 1, 2, 3, 61, 62, 63, 64, 126, 127, 128, 254, 255, 256, 511, 600,
    ] {
        for popped in [0, 1, filled / 2, filled] {
            let popped = popped.min(filled);
            let alive = Alive::default();
            let fits = (filled as usize).max(1);
            a_closed_ring(&Bounded::with_capacity(fits), &alive, filled, popped);
            let exact = fits.next_power_of_two();
            a_closed_ring(&Bounded::with_capacity(exact), &alive, filled, popped);
            a_closed_ring(&Bounded::with_capacity(1000), &alive, filled, popped);
            a_closed_ring(&Unbounded::new(), &alive, filled, popped);
            assert_eq!(alive.count(), 0);
        }
    }
}

#[test]
fn keys_of_a_closed_ring_are_read_and_its_elements_taken_by_them() {
    let bounded = Bounded::with_capacity(4);
    let unbounded = Unbounded::new();
    bounded.push_keyed(30, 3).unwrap();
    unbounded.push_keyed(30, 3).unwrap();
    bounded.close();
    unbounded.close();
    assert_eq!(bounded.push_keyed(40, 4), Err(4));
    assert_eq!(unbounded.push_keyed(40, 4), Err(4));
    assert_eq!(bounded.push_batch_keyed(&mut [(1, 1)].into_iter()), (1, 0));
    assert_eq!(
        unbounded.push_batch_keyed(&mut [(1, 1)].into_iter()),
        (1, 0)
    );
    assert_eq!(bounded.front(), Some((0, 30)));
    assert_eq!(unbounded.front(), Some((0, 30)));
    assert!(bounded.pop_if(|key| key > 30).is_none());
    assert!(unbounded.pop_if(|key| key > 30).is_none());
    assert!(bounded.pop_if(|key| key == 30).is_some());
    assert!(unbounded.pop_if(|key| key == 30).is_some());
    assert_eq!((bounded.front(), unbounded.front()), (None, None));
    assert_eq!((bounded.popped(), unbounded.popped()), (1, 1));
}

/// Producers push until they are refused; the ring is closed somewhere in between; consumers take until it is
/// closed and empty. From then on nothing comes, and all that was taken in was given out.
fn closing_stress(ring: &impl Ring<Counted>, batch: usize, after: u64) {
    const PRODUCERS: usize = 3;
    let alive = Alive::default();
    let (taken_in, given_out) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..PRODUCERS {
            let (alive, taken_in) = (&alive, &taken_in);
            scope.spawn(move || {
                loop {
                    // Before it is seen closed: what is refused afterwards may just be refused for want of room.
                    let was_closed = ring.is_closed();
                    let pushed = if batch > 1 {
                        let mut values = (0..batch as u64)
                            .map(|number| alive.value(number))
                            .collect::<Vec<_>>()
                            .into_iter();
                        ring.push_batch(&mut values).1
                    } else {
                        usize::from(ring.push(alive.value(0)).is_ok())
                    };
                    taken_in.fetch_add(pushed as u64, Ordering::Relaxed);
                    if was_closed {
                        assert_eq!(pushed, 0, "taken in by a closed ring");
                        return;
                    }
                    if pushed == 0 {
                        thread::yield_now();
                    }
                }
            });
        }
        for _ in 0..2 {
            let given_out = &given_out;
            scope.spawn(move || {
                loop {
                    let is_last = ring.is_closed() && ring.is_empty();
                    let taken = ring.pop_batch(batch, |_| ());
                    given_out.fetch_add(taken as u64, Ordering::Relaxed);
                    if is_last {
                        assert_eq!(taken, 0, "came after the end");
                        return;
                    }
                    if taken == 0 {
                        thread::yield_now();
                    }
                }
            });
        }
        while ring.pushed() < after {
            thread::yield_now();
        }
        ring.close();
        let pushed = ring.pushed();
        thread::yield_now();
        assert_eq!(ring.pushed(), pushed);
    });
    assert_eq!(taken_in.into_inner(), ring.pushed());
    assert_eq!(given_out.into_inner(), ring.pushed());
    assert_eq!(alive.count(), 0);
}

#[test]
fn a_push_that_races_with_closing_is_taken_in_or_refused_and_never_lost() {
    for after in [0, 1, 64, 3_000] {
        for batch in [1, 5, 300] {
            closing_stress(&Bounded::with_capacity(3), batch, after);
            closing_stress(&Bounded::with_capacity(64), batch, after);
            closing_stress(&Unbounded::new(), batch, after);
        }
    }
}
