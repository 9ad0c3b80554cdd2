//! The `sim` command.
#![forbid(unsafe_code)]

fn main() {}
