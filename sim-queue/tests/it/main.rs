//! The integration tests of the queue, a file for each topic.
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod rig;

mod auto_traits;
mod batches;
mod bytes;
mod close;
mod dead_letters;
mod errors;
mod fair;
mod fifo;
mod receipts;
mod seams;
#[cfg(feature = "serde")]
mod serde;
mod standard;
mod stream;
mod waiting;
