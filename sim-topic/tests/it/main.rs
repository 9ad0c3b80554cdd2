//! The topic's integration tests, a file a topic.
