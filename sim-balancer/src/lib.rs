//! A load balancer inside your process: a lock-free pick among targets, with health, weights, zones, priorities, slow
//! start and draining.
//!
//! ```
//! use sim_balancer::{Balancer, BalancerConfig, Outcome, Target};
//!
//! let balancer = Balancer::new(BalancerConfig::default())?;
//! balancer.register(Target::new("a", "10.0.0.7:8080"))?;
//! balancer.register(Target::new("b", "10.0.0.8:8080").weight(3))?;
//!
//! let lease = balancer.try_pick()?; // dereferences to the address
//! assert!(lease.starts_with("10.0.0."));
//! lease.complete(Outcome::Success); // dropping it says that the request was cancelled
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! There are three layers, each usable alone: the pick (this page), a tower service (`service`), and
//! a proxy (`proxy`). A target is whatever its owner says: an address, a client, a function, another balancer.
//!
//! # Guarantees
//! - **A pick** takes no lock and allocates nothing, while nothing is due and no target in its table is just leaving: what is
//!   due is served by one of the picks, which builds a table then, and the others go on. It fails only when no target is eligible, or every eligible one has
//!   as much in hand as it may have; then [`pick`](Balancer::pick) and its kin wait.
//! - **A lease** counts as outstanding until it is completed or dropped. It keeps its target alive. Counts and latencies
//!   stand with the target and survive every change of the table.
//! - **Draining**: a target that was deregistered gets nothing new. It is gone, once, with its last lease or when the
//!   delay is over, whichever comes first.
//! - **Giving a lease back** takes no lock either, unless somebody waits for room, the target drains, or failures came in a row.
//! - **Memory** is bounded by the rules' [limits](machine::Limits), and by the leases that are out.
//! - **Order**: the same seed and the same history give the same picks on one thread.
//! - **Time is an input**: nothing spawns a thread or a task. What is due (the end of a drain, a step of a slow start, the
//!   return of an ejected target) is served by whoever picks, waits or [advances](Balancer::advance).
//! - **Cancel safety**: a target is picked in the poll that returns it. A future that is dropped loses none.
//!
//! # What it is not
//! It is no service mesh and no cluster: what it knows of a target's load is what goes through this balancer, and what the
//! targets tell of themselves. What has no meaning inside a process (anycast, DNS, subnets) is not there.
//!
//! # Trade-offs
//! - Every change of the targets builds the table anew, at a cost that grows with their number;
//!   [`register_all`](Balancer::register_all) does it once for many.
//! - The algorithms by latency read the clock twice a request; the others read none, unless something is scheduled.
//! - [`Choices::All`] looks at every target; of many targets, a few drawn at random are nearly as good.
//! - Targets at their limit are found by looking at all of them: a saturated balancer is slower than a free one.
//!
//! # How it works
//! ```text
//!            pick                               complete, drop
//!  table ───▶ algorithm ───▶ target: +1 ─▶ lease ─▶ target: -1, +1 finished, latency, failures in a row
//!    ▲ stored whole                                      │ too many in a row, or the last lease of a target that leaves
//!    │                                                   ▼
//!  machine, behind a lock ◀── register, deregister, check results, time
//! ```
//! The rules live in [`machine`], which is pure: time is an argument, and nothing else happens. The handle is checked against
//! it by a model test, and what happens beside its lock by models in loom.
//!
//! # Features
//! - `serde`: configuration and values (de)serialize.
//! - `check`: active health checks over HTTP, gRPC and TCP.
//! - `tower`: balanced tower services.
//! - `proxy`: listeners on hyper, with rules and actions, configured by structs or a file.

#![forbid(unsafe_code)]

pub mod algorithm;
pub mod balancer;
pub mod config;
pub mod error;
pub mod machine;
pub mod message;
pub mod stats;

#[cfg(feature = "check")]
pub mod check;
#[cfg(feature = "proxy")]
pub mod proxy;
#[cfg(feature = "tower")]
pub mod service;

pub use algorithm::{
    Algorithm, ApertureConfig, BoundedConfig, C3Config, Choices, DECAY, LeastOutstanding,
    LeastTime, MOST_OUTSTANDING, MOST_SAMPLES, MaglevConfig, PENALTY, PeakEwma, PrequalConfig,
    RETRY_AFTER_CAP, ReportedConfig, RingConfig, StickyConfig, SubsetConfig,
};
pub use balancer::Balancer;
pub use balancer::lease::Lease;
pub use balancer::seat::TargetRef;
#[cfg(feature = "check")]
pub use check::{Checked, Checker, CheckerError};
pub use config::BalancerConfig;
pub use error::{
    ConfigError, PickError, RegisterError, RegisterReason, UnknownTarget, UnknownZone, WeightError,
};
pub use machine::{
    HealthCheck, ProbeResult, Reason, Rules, State, TargetHealth, TargetId, Zone, ZoneId,
};
pub use message::{Feedback, Outcome, Request, Target, key_of};
pub use stats::{BalancerStats, TargetStats};
