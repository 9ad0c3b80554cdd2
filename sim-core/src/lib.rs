//! The lock-free ground that the `sim` crates stand on: rings, slots with generations, a log, deadlines,
//! waiting, clocks, and the values that crates share.
//!
//! ```
//! use std::time::Duration;
//!
//! use sim_core::deadline::LeaseRing;
//! use sim_core::ring::Bounded;
//! use sim_core::time::Instant;
//!
//! let ready = Bounded::with_capacity(2);
//! assert_eq!(ready.push("a letter"), Ok(0)); // its position
//! assert_eq!(ready.push("a parcel"), Ok(1));
//! assert_eq!(ready.push("too much"), Err("too much")); // it comes back
//!
//! // Whoever takes the letter has thirty seconds. Time is an input: nothing sleeps.
//! let (letter, now) = (ready.pop(), Instant::ORIGIN);
//! assert_eq!(letter, Some("a letter"));
//! let leases = LeaseRing::new();
//! leases.push(now + Duration::from_secs(30), 1);
//! assert_eq!(leases.pop_due(now + Duration::from_secs(29)), None);
//! assert!(leases.pop_due(now + Duration::from_secs(30)).is_some());
//! ```
//!
//! Most programs want one of the crates above this one. It is for those who build another of them.
//!
//! # Guarantees
//!
//! - **Delivery.** What a ring took comes out once, or is dropped once with the ring. A slot's key never names
//!   a later tenant of the slot, however late it is used. A refused value comes back to the caller.
//!   A record of a log is read whole, once committed, and dropped once with its chunk.
//! - **Order.** Rings are first in, first out, in the order in which positions were claimed. A wheel fires in
//!   order of deadline, and of insertion among equals; never early. A lease ring fires never early, and late by
//!   at most what two threads differ in reading the clock ([`deadline`]). Every reader of a log sees all of its
//!   records in the order of their positions, or is told which are gone.
//! - **Progress.** The data plane (rings, slots, lease pushes, counters) takes no lock. A thread that is stopped
//!   between claiming a cell and publishing it delays those who need that very cell, and nobody else. A log takes
//!   a lock where a chunk is full, and where a reader seeks.
//! - **Memory.** Every collection is bounded by its configuration or by what stands in it, and gives memory
//!   back as it drains. Empty ones allocate nothing, or what their documentation says.
//! - **Waiting.** No wake-up is lost, one change wakes one waiter, and a future that is dropped loses nothing
//!   ([`wait`]).
//! - **No hidden work.** No thread or task is spawned, no clock is read but by a [`clock::Clock`] that the caller
//!   made, no randomness is drawn but from a seed.
//!
//! # What it is not
//!
//! - Not a channel: nothing here has senders, receivers or closing. `sim-queue` does.
//! - Not durable, not distributed, and without any protocol.
//! - Not a runtime: futures run on the caller's. Only a finite sleep on the system or tokio clock needs tokio.
//! - Not for secrets: [`random`] is for replays, and equality takes the time it takes.
//!
//! # Trade-offs
//!
//! - A log's memory is given back by chunks: one that is read keeps up to 2 MiB.
//! - A ring's elements stand in claimed order, so one slow producer between claim and publication holds up
//!   its consumers; in exchange a push is one read-modify-write.
//! - Cancelled deadlines stay where they are until they come to the front: ending a lease costs nothing, and a lease
//!   ring may hold two stale entries for each live one.
//! - The timer wheel is a single-threaded structure for use under a lock; what is hot is kept out of it
//!   by the lease rings.
//! - Counters are striped: adding is cheap, reading walks the stripes, and two sums are not one snapshot.
//! - Padding trades memory for speed: an empty lease ring is half a KiB.
//!
//! # How it works
//!
//! One leased item, as `sim-queue` puts the parts together:
//!
//! ```text
//!        ring::Bounded<u32>                    slab::Slab<C, V>: one allocation
//!        head ─┐      ┌─ tail                  ┌─────────┬──────────┬──────────┬──────────┐
//!        ┌───┬─▼─┬───┬▼──┬───┐   index 7       │ context │ slot 6   │ slot 7   │ slot 8   │...
//!        │   │ 7 │ 3 │   │   ├────────────────►│    C    │ free     │ gen 41   │ gen 12   │
//!        └───┴───┴───┴───┴───┘                 │         │          │ leased V │ idle V   │
//!         each cell: stamp + value             └─────────┴──────────┴────▲─────┴──────────┘
//!                                                                        │ 7 + 41: a stale
//!        deadline::LeaseRing, one a duration                             │ generation misses
//!        ┌─────────┬─────────┬─────────┬──                               │
//!        │ 30.1 s  │ 30.2 s  │ 30.4 s  │ ...  each entry: deadline + ────┘
//!        │ 3 + 12  │ 7 + 41  │ 9 + 2   │      slot and generation
//!        └─────────┴─────────┴─────────┴──
//!             │ long-lived or odd ones                    event::Event: who waits, in order;
//!             ▼                                           one of them, the timekeeper, sleeps
//!        wheel::Wheel: levels of 64 slots by              until the earliest of these deadlines
//!        the digits of the deadline
//! ```
//!
//! Taking an item is a claim on the ring, one compare-and-swap on the slot's stamp, which starts a new generation,
//! and a push on the lease ring. Finishing it is one compare-and-swap on the stamp; its lease entry goes stale and
//! is dropped when it comes to the front. Expiry is the same compare-and-swap, made by whoever serves the deadline: so
//! each lease ends once, whoever is first.
//!
//! Reading order:
//!
//! | module | holds | plane |
//! | --- | --- | --- |
//! | [`sync`] | atomics, cells, locks and threads: std's, or loom's in a model | ground |
//! | [`ring`] | bounded and unbounded rings for many producers and consumers | data |
//! | [`slab`] | slots with generations in one shared allocation | data |
//! | [`log`] | an append-only log: records read where they were written | data |
//! | [`snapshot`] | a value that is read often and replaced whole | data |
//! | [`deadline`] | lease deadlines in plain rings, one a duration | data |
//! | [`wheel`] | the hierarchical timer wheel for all other deadlines | control |
//! | [`event`], [`wait`] | who waits, and the one loop behind async, blocking and timed forms | control |
//! | [`clock`], [`time`] | the system's clock, tokio's and a virtual one; instants and timestamps | control |
//! | [`attributes`], [`id`], [`payload`] | what travels with a message | values |
//! | [`counter`], [`random`], [`rate`] | striped counts, seeded randomness, token buckets | values |
//! | [`seam`] | the traits at which crates meet | seams |
//!
//! Each lock-free module names its algorithm and argues each of its orderings; its loom models stand in
//! `tests/loom_*.rs`, each with a table of the weakened orderings that it was seen to catch.
//!
//! # Features
//!
//! - `serde`: serialization of ids, timestamps, payloads and attributes. Off by default.

pub mod sync;

pub mod ring;
pub mod slab;

pub mod log;
pub mod snapshot;

pub mod deadline;
pub mod wheel;

pub mod event;
pub mod wait;

pub mod clock;
pub mod time;

pub mod attributes;
pub mod counter;
pub mod id;
pub mod payload;
pub mod random;
pub mod rate;
pub mod seam;
