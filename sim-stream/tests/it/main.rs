//! The integration tests of the stream, a file for each topic.
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod rig;

mod auto_traits;
mod close;
mod config;
mod cursors;
mod fan_out;
mod groups;
mod groups_model;
mod histories;
mod keys;
#[cfg(feature = "kpl")]
mod kpl;
mod limits;
mod model;
mod on_demand;
mod puts;
mod reader;
mod resharding;
mod retention;
mod seams;
mod stream_queue;
mod stream_queue_model;
mod threads;
mod tokens;
mod waiting;
mod wakers;
