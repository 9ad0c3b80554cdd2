//! The timer wheel against an ordered map, and what a random history does not reach.
#![cfg(not(loom))]

use std::collections::BTreeMap;
use std::rc::Rc;

use proptest::prelude::*;
use sim_core::random::Random;
use sim_core::time::Instant;
use sim_core::wheel::{TimerKey, Wheel};

/// The oracle: the same promises, kept by a map in order of (deadline, insertion).
#[derive(Default)]
struct Oracle {
    timers: BTreeMap<(u64, u64), u64>,
}

impl Oracle {
    fn next(&self) -> Option<u64> {
        self.timers.keys().next().map(|&(deadline, _)| deadline)
    }

    fn pop_due(&mut self, now: u64) -> Option<(u64, u64)> {
        let (&(deadline, serial), &value) = self.timers.iter().next()?;
        (deadline <= now).then(|| {
            self.timers.remove(&(deadline, serial));
            (deadline, value)
        })
    }
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u64),
    /// The timer inserted so many insertions ago, fired or not.
    Remove(usize),
    Next,
    /// Moves the present and pops everything that is due.
    Advance(u64),
    /// Pops one, ahead of its time.
    PopFirst,
    Retain(u64),
}

/// Deadlines as they come: near, in seconds, equal, over all 64 bits, and at both ends.
fn deadline() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => 0..100_u64,
        3 => 0..2_000_000_u64,
        3 => 30_000_000_000..90_000_000_000_u64,
        1 => (0..64_u32).prop_map(|bit| 1 << bit),
        1 => (0..64_u32).prop_map(|bit| (1 << bit) - 1),
        1 => any::<u64>(),
        1 => Just(u64::MAX),
        1 => Just(0),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => deadline().prop_map(Step::Insert),
        3 => (0..64_usize).prop_map(Step::Remove),
        2 => Just(Step::Next),
        1 => deadline().prop_map(Step::Advance),
        2 => Just(Step::PopFirst),
        1 => (0..5_u64).prop_map(Step::Retain),
    ]
}

fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut wheel = Wheel::new();
    let mut oracle = Oracle::default();
    let mut keys: Vec<(TimerKey, u64)> = Vec::new();
    for step in steps {
        match *step {
            Step::Insert(deadline) => {
                let serial = keys.len() as u64;
                let key = wheel.insert(Instant::from_nanos(deadline), serial);
                oracle.timers.insert((deadline, serial), serial);
                keys.push((key, deadline));
            }
            Step::Remove(back) => {
                let Some(at) = keys.len().checked_sub(back + 1) else {
                    continue;
                };
                let (key, deadline) = keys[at];
                let expected = oracle.timers.remove(&(deadline, at as u64));
                prop_assert_eq!(wheel.get(key).copied(), expected);
                prop_assert_eq!(wheel.remove(key), expected);
            }
            Step::Next => {
                prop_assert_eq!(wheel.next().map(Instant::as_nanos), oracle.next());
            }
            Step::Advance(now) => loop {
                let popped = wheel.pop_due(Instant::from_nanos(now));
                let expected = oracle.pop_due(now);
                prop_assert_eq!(popped.map(|(at, value)| (at.as_nanos(), value)), expected);
                if expected.is_none() {
                    break;
                }
            },
            Step::PopFirst => {
                let popped = wheel.pop_due(Instant::NEVER);
                let expected = oracle.pop_due(u64::MAX);
                prop_assert_eq!(popped.map(|(at, value)| (at.as_nanos(), value)), expected);
            }
            Step::Retain(remainder) => {
                let mut seen = 0;
                let before = wheel.len();
                wheel.retain(|_, value| {
                    seen += 1;
                    value % 5 != remainder
                });
                prop_assert_eq!(seen, before);
                oracle.timers.retain(|_, value| *value % 5 != remainder);
            }
        }
        prop_assert_eq!(wheel.len(), oracle.timers.len());
        prop_assert_eq!(wheel.is_empty(), oracle.timers.is_empty());
    }
    while let Some(expected) = oracle.pop_due(u64::MAX) {
        let popped = wheel.pop_due(Instant::NEVER);
        prop_assert_eq!(
            popped.map(|(at, value)| (at.as_nanos(), value)),
            Some(expected)
        );
    }
    prop_assert_eq!(wheel.next(), None);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_history_goes_as_in_an_ordered_map(
        steps in prop::collection::vec(step(), 0..400)
    ) {
        run(&steps)?;
    }
}

#[test]
fn a_long_history_goes_as_in_an_ordered_map() {
    // Thousands of timers in a sliding window, so that lists are long and levels come and go.
    let mut random = Random::new(7);
    let mut steps = Vec::new();
    let mut now = 0;
    for _ in 0..20_000 {
        now += random.below(20_000_000);
        let wait = match random.below(8) {
            0 => random.below(1_000),
            1 => 3_600_000_000_000,
            2 => random.below(120_000_000_000),
            _ => 30_000_000_000,
        };
        steps.push(Step::Insert(now + wait));
        match random.below(6) {
            0 => steps.push(Step::Remove(random.below(2_000) as usize)),
            1 => steps.push(Step::Advance(now)),
            2 => steps.push(Step::Next),
            _ => {}
        }
    }
    run(&steps).unwrap();
}

#[test]
fn timers_of_one_deadline_fire_in_order_of_insertion() {
    let at = Instant::from_nanos(5_000_000_000);
    let mut wheel = Wheel::new();
    for n in 0..100 {
        wheel.insert(at, n);
        // Asked in between, so that the list is cascaded while it grows; with others around it.
        wheel.next();
        wheel.insert(Instant::from_nanos(9_000_000_000 + n), 1_000);
        wheel.insert(Instant::from_nanos(1_000_000_000 + n), 1_000);
        wheel.pop_due(Instant::from_nanos(2_000_000_000));
    }
    for n in 0..100 {
        assert_eq!(wheel.pop_due(at), Some((at, n)));
    }
    assert_eq!(wheel.pop_due(at), None);
}

#[test]
fn a_timer_earlier_than_one_asked_for_fires_first() {
    let mut wheel = Wheel::new();
    for n in 0..1_000 {
        wheel.insert(Instant::from_nanos(30_000_000_000 + n), n);
    }
    assert_eq!(wheel.next(), Some(Instant::from_nanos(30_000_000_000)));
    wheel.insert(Instant::from_nanos(5), 0);
    assert_eq!(wheel.next(), Some(Instant::from_nanos(5)));
    assert_eq!(wheel.pop_due(Instant::from_nanos(4)), None);
    assert_eq!(
        wheel.pop_due(Instant::from_nanos(5)),
        Some((Instant::from_nanos(5), 0))
    );
    assert_eq!(wheel.next(), Some(Instant::from_nanos(30_000_000_000)));
}

#[test]
fn a_key_used_late_never_hits_another_timer() {
    let mut wheel = Wheel::new();
    let key = wheel.insert(Instant::from_nanos(1), "first");
    assert_eq!(
        wheel.pop_due(Instant::from_nanos(1)),
        Some((Instant::from_nanos(1), "first"))
    );
    wheel.insert(Instant::from_nanos(1), "second"); // in the same place
    assert_eq!(wheel.remove(key), None);
    assert_eq!(wheel.get(key), None);
    assert_eq!(wheel.len(), 1);
}

#[test]
fn memory_is_given_back_as_the_wheel_drains() {
    let mut wheel = Wheel::new();
    assert_eq!(wheel.allocated(), 0);
    let mut random = Random::new(1);
    let mut keys = Vec::new();
    for n in 0..100_000_u64 {
        keys.push(wheel.insert(Instant::from_nanos(random.below(60_000_000_000)), n));
    }
    let full = wheel.allocated();
    assert!(full < 100_000 * 64, "{full} bytes");
    for _ in 0..50_000 {
        assert!(wheel.pop_due(Instant::NEVER).is_some());
    }
    while wheel.pop_due(Instant::NEVER).is_some() {}
    let empty = wheel.allocated();
    assert!(empty < 8_192, "{empty} bytes left");
    // By removal as well as by firing, and used again after having been drained.
    for key in &mut keys {
        *key = wheel.insert(Instant::from_nanos(random.below(60_000_000_000)), 0);
    }
    wheel.next();
    for key in keys {
        assert!(wheel.remove(key).is_some());
    }
    assert!(
        wheel.allocated() < 8_192,
        "{} bytes left",
        wheel.allocated()
    );
}

#[test]
fn every_value_is_dropped_once() {
    let witness = Rc::new(());
    let mut wheel = Wheel::new();
    let keys: Vec<_> = (0..1_000)
        .map(|n| wheel.insert(Instant::from_nanos(n * 7_919 % 1_000), Rc::clone(&witness)))
        .collect();
    assert_eq!(Rc::strong_count(&witness), 1_001);
    for key in &keys[..100] {
        drop(wheel.remove(*key));
    }
    assert_eq!(Rc::strong_count(&witness), 901);
    for _ in 0..100 {
        drop(wheel.pop_due(Instant::NEVER));
    }
    assert_eq!(Rc::strong_count(&witness), 801);
    wheel.retain(|deadline, _| deadline.as_nanos() % 2 == 0);
    assert_eq!(Rc::strong_count(&witness), wheel.len() + 1);
    drop(wheel);
    assert_eq!(Rc::strong_count(&witness), 1);
}
