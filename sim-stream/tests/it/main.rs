//! The stream's integration tests, a file a topic.

#[cfg(feature = "kpl")]
mod kpl;
