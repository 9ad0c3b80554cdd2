//! The integration tests of the stream, a file for each topic.
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod rig;

mod config;
mod cursors;
mod keys;
#[cfg(feature = "kpl")]
mod kpl;
mod model;
mod puts;
mod threads;
