//! The stream's integration tests, a file a topic.

mod config;
mod keys;
#[cfg(feature = "kpl")]
mod kpl;
