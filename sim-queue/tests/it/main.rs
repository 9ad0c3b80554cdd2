//! The integration tests of the queue, a file for each topic.

mod standard;
