//! Cursors: where a reader stands.
