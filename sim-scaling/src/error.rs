//! One error type for each operation.
