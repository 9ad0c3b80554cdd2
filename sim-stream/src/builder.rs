//! Building a stream.
