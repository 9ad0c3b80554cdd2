//! The topic's integration tests, a file a topic.

mod filter;
mod filter_errors;
