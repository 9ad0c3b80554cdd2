//! One error type per operation.
