//! Models of the balancer's handle: leases against tables that are built anew and targets that leave.
//!
//! The machine is entered under its lock and is tested by itself; these are about what happens beside the lock: the word
//! of counts, the flags in it, the table, and the waiters.
//!
//! # Mutation table
//!
//! Each line was changed by hand and the tests named were seen to fail.
//!
//! | changed | tests that fail |
//! | --- | --- |
//! | `load.rs`: `exit` does not look at `LEAVING` | `a_target_that_leaves_...`, `two_leases_...`, `a_pick_never_fails_...` |
//! | `load.rs`: `try_drain` does not look at what is outstanding | `a_target_that_leaves_...`, `two_leases_...` |
//! | `load.rs`: `enter` lets everybody in who finds `LEAVING` | `a_target_that_leaves_...` |
//! | `load.rs`: who was barred by `LEAVING` does not look whether it was the last (seen with four preemptions, not with two) | `a_target_that_leaves_...` |
//! | `load.rs`: `exit` does not tell of room | `who_waits_for_room_...` |
//! | `control.rs`: waiters are not told of a new table | `who_waits_for_a_target_...` |
//!
//! Not caught by any model:
//! - `exit` as a `Relaxed` step: the waiters' event is under a lock, which orders it in all that loom explores.
//! - the flag before the table: who finds it then tries again until the table comes, and costs time alone. A unit test in
//!   `control.rs` sees it.
//! - `is_full` as a `Relaxed` load, for the cause of `exit` (5,888 interleavings of `who_waits_for_room_...` instead of 2,892); the
//!   processors that it matters to are not x86.
//! - a drain that is claimed twice: the machine knows its slots by their birth, and takes the second for stale.
#![cfg(loom)]

use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};
use std::time::Duration;

use sim_balancer::machine::{Change, Deregistration, Note, Rules};
use sim_balancer::{Algorithm, Balancer, BalancerConfig, Outcome, PickError, Target, TargetId};
use sim_core::clock::Clock;
use sim_core::sync::thread;
use sim_core::time::Timestamp;

/// Runs a model and asserts that it explored at least `floor` interleavings.
fn explore(floor: usize, explored: &'static AtomicUsize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(4);
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

/// A balancer of so many targets that takes turns; a target has room for `limit` requests.
fn balancer(targets: u32, limit: Option<u32>) -> Balancer<u32> {
    with_delay(targets, limit, Deregistration::default().delay)
}

/// Such a balancer whose targets drain for `delay`.
fn with_delay(targets: u32, limit: Option<u32>, delay: Duration) -> Balancer<u32> {
    let (clock, _) = Clock::virtual_at(Timestamp::UNIX_EPOCH);
    let deregistration = Deregistration {
        delay,
        ..Default::default()
    };
    let config = BalancerConfig {
        algorithm: Algorithm::RoundRobin,
        max_outstanding: limit,
        rules: Rules {
            deregistration,
            ..Default::default()
        },
        ..Default::default()
    };
    let balancer = Balancer::with_clock(config, clock).expect("a good configuration");
    let refused = balancer.register_all((0..targets).map(|n| Target::new(id(n), n)));
    assert!(refused.is_empty());
    balancer
}

fn id(n: u32) -> TargetId {
    TargetId::from(format!("t{n}"))
}

/// How often the target was reported as gone.
fn removals(balancer: &Balancer<u32>, id: &TargetId) -> usize {
    let is_removal =
        |note: &&Note| note.target.as_ref() == Some(id) && note.change == Change::Removed;
    balancer.notes().iter().filter(is_removal).count()
}

#[test]
fn a_target_that_leaves_under_a_lease_is_gone_once_and_with_the_lease() {
    static EXPLORED: AtomicUsize = AtomicUsize::new(0);
    explore(1500, &EXPLORED, || {
        let balancer = balancer(1, None);
        let other = balancer.clone();
        let leaver = thread::spawn(move || other.deregister(&id(0)).expect("it is there"));
        let other = balancer.clone();
        let picker = thread::spawn(move || match other.try_pick() {
            Ok(lease) => {
                assert_eq!(lease.outstanding(), 1);
                lease.complete(Outcome::Success);
                1
            }
            Err(error) => {
                assert_eq!(error, PickError::Empty);
                0
            }
        });
        leaver.join().unwrap();
        let finished = picker.join().unwrap();
        assert_eq!(balancer.health(&id(0)), None, "it is gone");
        assert_eq!(removals(&balancer, &id(0)), 1);
        let stats = balancer.stats();
        assert_eq!((stats.outstanding, stats.finished), (0, finished));
    });
}

#[test]
fn two_leases_of_a_target_that_leaves_report_it_once() {
    static EXPLORED: AtomicUsize = AtomicUsize::new(0);
    explore(900, &EXPLORED, || {
        let balancer = balancer(1, None);
        let leases = [(); 2].map(|()| balancer.try_pick().expect("a target"));
        balancer.deregister(&id(0)).expect("it is there");
        let enders = leases.map(|lease| thread::spawn(move || lease.complete(Outcome::Success)));
        for ender in enders {
            ender.join().unwrap();
        }
        assert_eq!(balancer.health(&id(0)), None, "it is gone");
        assert_eq!(removals(&balancer, &id(0)), 1);
        let stats = balancer.stats();
        assert_eq!((stats.outstanding, stats.finished), (0, 2));
    });
}

#[test]
fn a_pick_never_fails_while_a_target_stays() {
    static EXPLORED: AtomicUsize = AtomicUsize::new(0);
    explore(4000, &EXPLORED, || {
        let balancer = balancer(2, Some(1));
        let other = balancer.clone();
        let leaver = thread::spawn(move || other.deregister(&id(0)).expect("it is there"));
        let other = balancer.clone();
        let picker = thread::spawn(move || {
            let lease = other.try_pick().expect("one stays");
            lease.complete(Outcome::Success);
        });
        leaver.join().unwrap();
        picker.join().unwrap();
        assert_eq!(balancer.health(&id(0)), None, "it is gone");
        assert_eq!(removals(&balancer, &id(0)), 1);
        assert_eq!(balancer.stats().outstanding, 0);
    });
}

#[test]
fn a_pick_never_fails_while_a_target_stays_and_another_is_gone_at_once() {
    static EXPLORED: AtomicUsize = AtomicUsize::new(0);
    explore(1600, &EXPLORED, || {
        let balancer = with_delay(2, Some(1), Duration::ZERO);
        let other = balancer.clone();
        let leaver = thread::spawn(move || other.deregister(&id(0)).expect("it is there"));
        let other = balancer.clone();
        let picker = thread::spawn(move || {
            let lease = other.try_pick().expect("one stays");
            lease.complete(Outcome::Success);
        });
        leaver.join().unwrap();
        picker.join().unwrap();
        assert_eq!(balancer.health(&id(0)), None, "it is gone");
        assert_eq!(removals(&balancer, &id(0)), 1);
        let stats = balancer.stats();
        assert_eq!((stats.outstanding, stats.finished), (0, 1));
    });
}

#[test]
fn who_waits_for_room_gets_it() {
    static EXPLORED: AtomicUsize = AtomicUsize::new(0);
    explore(2500, &EXPLORED, || {
        let balancer = balancer(1, Some(1));
        let held = balancer.try_pick().expect("a target");
        let ender = thread::spawn(move || held.complete(Outcome::Success));
        let other = balancer.clone();
        let waiter = thread::spawn(move || {
            let lease = other.pick_blocking();
            assert_eq!(lease.outstanding(), 1);
        });
        ender.join().unwrap();
        waiter.join().unwrap();
        assert_eq!(balancer.stats().outstanding, 0);
    });
}

#[test]
fn who_waits_for_a_target_gets_the_one_that_comes() {
    static EXPLORED: AtomicUsize = AtomicUsize::new(0);
    explore(1800, &EXPLORED, || {
        let balancer = balancer(0, None);
        let other = balancer.clone();
        let joiner = thread::spawn(move || {
            other
                .register(Target::new(id(7), 7))
                .expect("the name is free");
        });
        let other = balancer.clone();
        let waiter = thread::spawn(move || assert_eq!(*other.pick_blocking(), 7));
        joiner.join().unwrap();
        waiter.join().unwrap();
        assert_eq!(balancer.stats().outstanding, 0);
    });
}
