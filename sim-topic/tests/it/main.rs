//! A topic from the outside, a file for each of its sides.

mod filter;
mod filter_errors;
mod filter_oracle;
mod rig;
mod standard;
