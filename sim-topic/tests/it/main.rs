//! A topic from the outside, a file for each of its sides.
#![expect(
    clippy::unwrap_used,
    reason = "what the tests share stands outside of test functions"
)]

mod accounting;
mod auto_traits;
mod close;
mod endpoints;
mod ends;
mod errors;
mod fifo;
mod filter;
mod filter_errors;
mod filter_index;
mod filter_oracle;
mod filtered;
mod handlers;
#[cfg(feature = "http")]
mod http;
mod receivers;
mod replay;
mod replay_races;
mod retries;
mod rig;
mod seams;
mod standard;
mod stress;
