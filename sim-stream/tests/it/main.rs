//! The stream's integration tests, a file a topic.
