//! Rings of lease deadlines: order, laziness, bounds, and many threads.
#![cfg(not(loom))]

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use sim_core::deadline::{LeaseRing, LeaseRings, SLACK, TEND_EVERY};
use sim_core::sync::atomic::{AtomicU64, Ordering};
use sim_core::sync::{Mutex, thread};
use sim_core::time::Instant;

fn at(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

#[derive(Debug, Clone)]
enum Step {
    /// A lease whose thread read the clock so many nanoseconds ago.
    Lease(u64),
    /// So many leases at once.
    Batch(u64),
    /// Ends the lease taken so many leases ago.
    End(usize),
    Advance(u64),
    Trim(usize),
    Overflow(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..20_u64).prop_map(Step::Lease),
        1 => (0..50_u64).prop_map(Step::Batch),
        4 => (0..100_usize).prop_map(Step::End),
        3 => (0..60_u64).prop_map(Step::Advance),
        1 => (0..20_usize).prop_map(Step::Trim),
        1 => (0..80_usize).prop_map(Step::Overflow),
    ]
}

/// The leases share this duration; small against the steps, so that many end in time.
const DURATION: u64 = 300;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn an_entry_fires_when_it_and_all_before_it_are_due(
        steps in prop::collection::vec(step(), 0..500)
    ) {
        let ring = LeaseRing::new();
        // The oracle: what stands in the ring, in order.
        let mut entries: VecDeque<(u64, u64)> = VecDeque::new();
        let mut live = HashSet::new();
        let mut moved = Vec::new();
        let (mut now, mut pushed) = (1_000, 0);
        for step in steps {
            match step {
                Step::Lease(skew) => {
                    let deadline = now - skew + DURATION;
                    prop_assert_eq!(ring.push(at(deadline), pushed), pushed);
                    entries.push_back((deadline, pushed));
                    live.insert(pushed);
                    pushed += 1;
                }
                Step::Batch(count) => {
                    let deadline = now + DURATION;
                    let lows: Vec<u64> = (pushed..pushed + count).collect();
                    ring.push_batch(at(deadline), lows.iter().copied());
                    entries.extend(lows.iter().map(|&low| (deadline, low)));
                    live.extend(lows);
                    pushed += count;
                }
                Step::End(back) => {
                    live.remove(&pushed.wrapping_sub(back as u64 + 1));
                }
                Step::Advance(by) => {
                    now += by;
                    let mut served = Vec::new();
                    while let Some((deadline, low)) = ring.pop_due(at(now)) {
                        prop_assert!(deadline <= at(now), "before its deadline");
                        prop_assert_eq!(entries.pop_front(), Some((deadline.as_nanos(), low)));
                        live.remove(&low);
                        served.push(low);
                    }
                    // Nothing due was left at the front.
                    prop_assert!(entries.front().is_none_or(|&(deadline, _)| deadline > now));
                }
                Step::Trim(max) => {
                    let dropped = ring.trim(|_, low| live.contains(&low), max);
                    for _ in 0..dropped {
                        let (_, low) = entries.pop_front().unwrap();
                        prop_assert!(!live.contains(&low));
                    }
                    prop_assert!(
                        dropped == max || entries.front().is_none_or(|(_, low)| live.contains(low))
                    );
                }
                Step::Overflow(max) => {
                    let before = moved.len();
                    let taken = ring.overflow(
                        live.len(),
                        |_, low| live.contains(&low),
                        max,
                        |deadline, low| moved.push((deadline.as_nanos(), low)),
                    );
                    let expected: Vec<_> = entries
                        .drain(..taken)
                        .filter(|(_, low)| live.contains(low))
                        .collect();
                    prop_assert_eq!(&moved[before..], expected);
                    prop_assert!(taken == max || ring.len() <= 2 * live.len() + SLACK);
                }
            }
            prop_assert_eq!(ring.next(), entries.front().map(|&(deadline, _)| at(deadline)));
            prop_assert_eq!(ring.len(), entries.len());
            prop_assert_eq!(ring.is_empty(), entries.is_empty());
        }
    }
}

#[test]
fn one_that_was_overtaken_is_late_by_no_more_than_the_difference() {
    let ring = LeaseRing::new();
    ring.push(at(105), 1); // read the clock later, pushed earlier
    ring.push(at(100), 2);
    assert_eq!(ring.next(), Some(at(105)));
    assert_eq!(ring.pop_due(at(104)), None);
    assert_eq!(ring.pop_due(at(105)), Some((at(105), 1)));
    assert_eq!(ring.pop_due(at(105)), Some((at(100), 2)));
}

#[test]
fn the_ends_of_the_axis_are_deadlines_like_others() {
    let ring = LeaseRing::new();
    ring.push(Instant::ORIGIN, 1);
    ring.push(Instant::NEVER, 2);
    assert_eq!(ring.next(), Some(Instant::ORIGIN));
    assert_eq!(ring.pop_due(Instant::ORIGIN), Some((Instant::ORIGIN, 1)));
    assert_eq!(ring.pop_due(at(u64::MAX - 2)), None);
    assert_eq!(ring.pop_due(Instant::NEVER), Some((at(u64::MAX - 1), 2)));
    assert!(ring.is_empty());
}

#[test]
fn the_length_is_bound_by_what_is_in_flight() {
    // One lease in a thousand is never ended; all others end at once. Nothing ever falls due.
    let ring = LeaseRing::new();
    let (mut longest, mut live) = (0, 0);
    let mut moved = Vec::new();
    for lease in 0..200_000_u64 {
        let is_live = |_: Instant, low: u64| low.is_multiple_of(1_000);
        live += usize::from(is_live(Instant::ORIGIN, lease));
        let before = ring.push(at(1_000_000 + lease), lease);
        if before.is_multiple_of(TEND_EVERY) {
            let budget = 2 * TEND_EVERY as usize;
            ring.trim(is_live, budget);
            if ring.is_long(live) {
                ring.overflow(live, is_live, budget, |deadline, low| {
                    moved.push((deadline, low))
                });
            }
        }
        let bound = 2 * live + SLACK + TEND_EVERY as usize;
        longest = longest.max(ring.len());
        assert!(ring.len() <= bound, "{} of {bound}", ring.len());
    }
    assert!(longest > 64, "the bound was put to the test");
    // Those moved out and those left are the live ones, each once.
    let mut left = Vec::new();
    while let Some(entry) = ring.pop_due(Instant::NEVER) {
        left.push(entry);
    }
    let all: Vec<u64> = moved.iter().chain(&left).map(|entry| entry.1).collect();
    let live: Vec<u64> = all
        .into_iter()
        .filter(|low| low.is_multiple_of(1_000))
        .collect();
    assert_eq!(live, (0..200).map(|n| n * 1_000).collect::<Vec<_>>());
}

#[test]
fn a_panic_of_the_caller_loses_no_entry() {
    let ring = LeaseRing::new();
    for lease in 0..100 {
        ring.push(at(lease), lease);
    }
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        ring.trim(
            |_, low| {
                if low == 40 {
                    panic!("asked too much")
                } else {
                    false
                }
            },
            100,
        )
    }));
    assert!(caught.is_err());
    assert_eq!(ring.next(), Some(at(40)));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        ring.overflow(0, |_, _| true, 100, |_, _| panic!("no room"))
    }));
    assert!(caught.is_err());
    assert_eq!(ring.len(), 60);
    assert_eq!(ring.pop_due(at(40)), Some((at(40), 40)));
}

#[test]
fn each_duration_has_its_own_ring_and_the_earliest_comes_first() {
    let rings = LeaseRings::new(Duration::from_nanos(30));
    let ring = |nanos| rings.ring(Duration::from_nanos(nanos));
    assert!(ring(0).is_none());
    for (lease, nanos) in [(1, 30), (2, 5), (3, 10), (4, 20), (5, 30), (6, 5)] {
        let now = 100 + lease;
        ring(nanos).unwrap().push(at(now + nanos), lease);
    }
    assert!(ring(7).is_none(), "there are only so many");
    assert!(std::ptr::eq(ring(30).unwrap(), ring(30).unwrap()));
    assert_eq!(rings.iter().count(), 4);
    assert_eq!(rings.next(), Some(at(107)));
    let mut order = Vec::new();
    while let Some((deadline, lease)) = rings.pop_due(at(130)) {
        order.push((deadline.as_nanos(), lease));
    }
    assert_eq!(order, [(107, 2), (111, 6), (113, 3), (124, 4)]);
    assert_eq!(rings.next(), Some(at(131)));
}

#[test]
fn many_threads_push_and_serve_and_every_lease_ends_once() {
    const THREADS: u64 = 4;
    const EACH: u64 = 20_000;
    let ring = LeaseRing::new();
    let clock = AtomicU64::new(1);
    // By lease: ended by its owner, or fired. Both may claim it; the first does.
    let claimed: Vec<AtomicU64> = (0..THREADS * EACH).map(|_| AtomicU64::new(0)).collect();
    let claim = |lease: u64| claimed[lease as usize].fetch_add(1, Ordering::AcqRel) == 0;
    let is_live = |_: Instant, lease: u64| claimed[lease as usize].load(Ordering::Acquire) == 0;
    let wheel = Mutex::new(Vec::new());
    let fired = AtomicU64::new(0);
    let ended = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (ring, clock, wheel, fired, ended) = (&ring, &clock, &wheel, &fired, &ended);
            let (claim, is_live) = (&claim, &is_live);
            scope.spawn(move || {
                for n in 0..EACH {
                    let lease = thread * EACH + n;
                    let now = clock.fetch_add(1, Ordering::Relaxed);
                    let before = ring.push(at(now + 1_000), lease);
                    // Most leases end early, some never do.
                    if n >= 10 && n % 16 != 0 && claim(lease - 10) {
                        ended.fetch_add(1, Ordering::Relaxed);
                    }
                    if before.is_multiple_of(TEND_EVERY) {
                        ring.trim(is_live, 64);
                        if ring.is_long(500) {
                            let out = |deadline, lease| wheel.lock().push((deadline, lease));
                            ring.overflow(500, is_live, 64, out);
                        }
                    }
                    let now = at(clock.load(Ordering::Relaxed));
                    while let Some((deadline, lease)) = ring.pop_due(now) {
                        assert!(deadline <= now);
                        if claim(lease) {
                            fired.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let mut rest = 0;
    while let Some((_, lease)) = ring.pop_due(Instant::NEVER) {
        rest += u64::from(claim(lease));
    }
    for (_, lease) in wheel.lock().drain(..) {
        rest += u64::from(claim(lease));
    }
    let total = fired.into_inner() + ended.into_inner() + rest;
    assert_eq!(
        total,
        THREADS * EACH,
        "each lease ended once, none was lost"
    );
    assert_eq!(ring.next(), None);
    assert!(ring.is_empty());
}
