//! What a stream counts.
