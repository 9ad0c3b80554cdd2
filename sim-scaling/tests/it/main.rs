//! The integration tests, a file for each topic.
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod auto_traits;
mod config;
mod group;
mod model;
#[cfg(feature = "tokio")]
mod processes;
mod rig;
#[cfg(feature = "tokio")]
mod tasks;
