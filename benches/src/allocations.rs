//! That a pick allocates nothing: not when it is made, nor held, nor given back.

use benches::picks::KEYS;
use benches::sim_balancer_peer::{algorithms, balancer};
use sim_balancer::{Outcome, PickError, Request};

use crate::alloc;

/// How often memory was asked for while the work was done.
fn asked(work: impl FnOnce()) -> u64 {
    let before = alloc::asked();
    work();
    alloc::asked() - before
}

#[test]
fn the_allocator_counts_what_is_asked_for() {
    let count = asked(|| drop(std::hint::black_box(Box::new(1_u64))));
    assert_eq!(count, 1);
}

#[test]
fn a_pick_its_lease_and_its_end_allocate_nothing() {
    for (name, algorithm, _) in algorithms() {
        let balancer = balancer(&algorithm, 100);
        let picks = || {
            for key in KEYS {
                let request = Request {
                    key: Some(key),
                    ..Default::default()
                };
                let lease = balancer.try_pick_for(&request).expect("a target");
                let other = balancer.try_pick().expect("a target");
                lease.complete(Outcome::Success);
                other.complete(if key % 7 == 0 {
                    Outcome::Failure
                } else {
                    Outcome::Success
                });
                drop(balancer.try_pick());
            }
        };
        // The thread's own places are made at its first pick.
        picks();
        assert_eq!(asked(picks), 0, "{name}");
    }
}

#[test]
fn a_pick_that_finds_everything_taken_allocates_nothing_either() {
    for (name, algorithm, _) in algorithms() {
        let balancer = balancer(&algorithm, 0);
        balancer
            .register(sim_balancer::Target::new("only", 0).max_outstanding(1))
            .expect("registered");
        let held = balancer.try_pick().expect("a target");
        let refused = || assert_eq!(balancer.try_pick().err(), Some(PickError::Saturated));
        refused();
        assert_eq!(asked(refused), 0, "{name}");
        drop(held);
    }
}
