//! To be written.
#![forbid(unsafe_code)]

pub mod group;
pub mod machine;
