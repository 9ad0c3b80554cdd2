//! The group `balancer`: one pick among so many targets, and what was picked given back, on one thread.
//!
//! Own peers pick, take the lease and complete it. tower's balancer is polled ready, called with a service that answers at
//! once, and its future polled to its end, which is what counts a request there. pingora's selects a backend and
//! counts nothing.

use std::hint::black_box;

use crate::groups::Scale;
use crate::pattern::Pattern;
use crate::rivals::tower_balance;
use crate::sim_balancer_peer;

/// What the rivals lack.
pub const NOTES: &[(&str, &str)] = &[
    (
        "tower-p2c-...",
        "one owner: shared by several tasks it needs a buffer in front, which is not measured here",
    ),
    (
        "pingora-...",
        "selects only: no count of what is outstanding, no weights of latency; behind the feature `pingora`, since it needs cmake",
    ),
];

/// Hashes that requests bring along, for the algorithms that use them.
pub static KEYS: [u64; 1024] = keys();

const fn keys() -> [u64; 1024] {
    let mut keys = [0; 1024];
    let mut index = 0;
    while index < keys.len() {
        keys[index] = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        index += 1;
    }
    keys
}

/// Among how many targets is picked.
pub const TARGETS: [u32; 4] = [10, 100, 1_000, 10_000];

/// The patterns: one for each number of targets.
#[must_use]
pub fn patterns(scale: Scale) -> Vec<Pattern> {
    let targets: &[u32] = match scale {
        Scale::Full => &TARGETS,
        Scale::Quick => &TARGETS[..2],
    };
    let count = match scale {
        // A scan of ten thousand targets takes its time.
        Scale::Full => 50_000,
        Scale::Quick => 1_000,
    };
    targets
        .iter()
        .map(|&targets| {
            let mut peers = vec![
                tower_balance::pending(targets),
                tower_balance::peak_ewma(targets),
            ];
            #[cfg(feature = "pingora")]
            peers.extend(crate::rivals::pingora::peers(targets));
            peers.extend(sim_balancer_peer::peers(targets));
            Pattern {
                name: format!("pick-{targets}"),
                baseline: tower_balance::PENDING,
                count,
                peers,
            }
        })
        .collect()
}

/// Keeps what was picked from being optimized away.
pub(crate) fn seen<T>(value: T) {
    black_box(value);
}
