//! [`Snapshot`]: a value that is read often and replaced whole.
