//! An SQS-class queue inside your process: leases, redelivery, dead letters, ordered groups and fair tenants at the
//! speed of a channel, with typed payloads and no serialization.
//!
//! ```
//! use sim_queue::{Queue, QueueConfig};
//!
//! let orders = Queue::new(QueueConfig::new("orders"))?;
//! orders.try_send("two coffees")?;
//!
//! let delivery = orders.try_receive()?; // leased for 30 s: nobody else gets it
//! assert_eq!(*delivery, "two coffees");
//! delivery.acknowledge()?; // without this it would come back
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Every operation that can wait comes as `try_x` (never waits), `x` (async), `x_blocking` (blocks the thread) and
//! `x_until` (ends at a deadline; `x_blocking_until` for threads). Verdicts on a delivery never wait and have
//! one form.
//!
//! # Guarantees
//! - **Delivery** is at least once: a message that was sent stays until a consumer acknowledges it, its retention
//!   ends, it is purged, or it goes to the dead letters. A consumer that dies gives it back by its lease.
//! - **Order**: a standard or fair queue delivers about in the order of sending; what came back goes first. A FIFO queue
//!   keeps the order within each message group, and one group never holds up another.
//! - **Verdicts** hit the lease that they were given for and no other: a late, repeated or forged one says
//!   [`Stale`] and changes nothing.
//! - **Memory** is bounded by the configuration: [`capacity`](QueueConfig::capacity) for what waits,
//!   [`max_in_flight`](QueueConfig::max_in_flight) for what is leased, limits for each window; and it is given back as
//!   the queue drains.
//! - **Progress**: sending, receiving and acknowledging on a standard queue are lock-free but for about one operation in
//!   64, when a chunk of slots changes hands, and for what is due by the clock, which one caller at a time sees to.
//!   FIFO and fair queues take a short mutex for each operation.
//! - **Time is an input**: nothing spawns a thread or a task. Deadlines are served by whoever calls in; a waiting
//!   receiver sleeps until the next one. With a [virtual clock](sim_core::clock::VirtualClock) a twelve-hour
//!   timeout passes at once.
//! - **Cancel safety**: a message is taken in the poll that returns it. A future that is dropped loses none.
//!
//! # What it is not
//! It does not survive the process: a durable engine is to come in a crate of its own. It is no broadcast: each message
//! goes to one consumer. It speaks no wire protocol.
//!
//! # Trade-offs
//! - A channel that hands over a message and forgets it is cheaper: see the figures in `benches/`.
//! - Leases on the system clock run up to two ticks of the kernel (8 ms at its usual rate) longer than was asked,
//!   since the hot path reads the kernel's last tick and never promises less.
//! - On a standard queue `max_in_flight` above 1,024 is approximate, as SQS's is.
//! - A delivery pins its slot for as long as it is held, also after its lease ended, since its payload stays readable.
//! - The statistics of a standard queue are taken one after the other, not at one instant.
//!
//! # How it works
//! ```text
//!               send                    receive                      acknowledge
//!  standard ─▶ fresh: a lock-free ring ─▶ a leased slot of the slab ─▶ one compare-and-swap
//!                                           │ lease ends: one timer for 64 slots
//!                          returned: a ring ◀┘ of slots, taken first
//!  FIFO, fair ─▶ the pure machine in a mutex says whose turn it is; payloads stand in the slab
//! ```
//! The rules live in [`machine`], which is pure: time is an argument, and nothing else happens. FIFO and fair
//! queues run on it; the lock-free standard queue is checked against it by a model test. See the module
//! documentation of `standard.rs` and `scheduled.rs`, and the workspace's ARCHITECTURE.md.
//!
//! # Features
//! - `serde`: configuration, statistics and the values of results (de)serialize.
//! - `tracing`: events on the rare paths (redrive, purge), target `sim_queue`.
#![forbid(unsafe_code)]

mod ask;
mod builder;
mod macros;

pub mod config;
pub mod dead_letter;
pub mod delivery;
pub mod error;
pub mod group;
pub mod machine;
pub mod message;
pub mod move_task;
pub mod queue;
pub mod receipt;
mod scheduled;
mod seams;
mod shared;
mod standard;
pub mod stats;
pub mod stream;
pub mod wait;

pub use crate::ask::{Close, Receive};
pub use crate::builder::Builder;
pub use crate::config::{Limits, OnDrop, QueueConfig, RedriveAllow};
pub use crate::dead_letter::{DeadLetter, DeadLetterPolicy, DeadLetterReason, Origin};
pub use crate::delivery::Delivery;
pub use crate::error::{
    ConfigError, ExtendError, InvalidReceive, MoveError, PolicyError, ReceiveError, Refusal,
    SendError, Stale, TryReceiveError, TrySendError,
};
pub use crate::group::{DeduplicationId, GroupId, IdError, ReceiveAttemptId, SequenceNumber};
pub use crate::machine::{
    Deduplication, DeduplicationScope, FairConfig, FifoConfig, Kind, MessageDelay,
};
pub use crate::message::{Message, Sent};
pub use crate::move_task::{MoveHandle, MoveProgress, MoveStatus, MoveTask};
pub use crate::queue::Queue;
pub use crate::receipt::{ParseReceiptError, Receipt};
pub use crate::stats::Stats;
pub use crate::stream::{Deliveries, Sending};
pub use crate::wait::{ReceiveWait, SendWait};
