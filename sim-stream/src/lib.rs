//! A Kinesis-class sharded log inside your process: ordered per key, replayable, resharded while in use, with consumer
//! groups and queues on the log.
#![forbid(unsafe_code)]

mod builder;
mod config;
mod cursor;
mod error;
mod fan_out;
mod group;
#[cfg(feature = "kpl")]
pub mod kpl;
mod machine;
mod message;
mod queue;
mod seams;
mod stats;
mod stream;
mod token;
