//! A topic from the outside, a file for each of its sides.

mod filter;
mod filter_errors;
mod filter_oracle;
#[cfg(feature = "http")]
mod http;
mod rig;
mod standard;
