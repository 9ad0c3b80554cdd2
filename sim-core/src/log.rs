//! An append-only log in memory.
