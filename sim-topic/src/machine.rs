//! The rules, pure: now, randomness and ids are arguments.

pub(crate) mod archive;
pub(crate) mod dedup;
pub(crate) mod document;
pub(crate) mod order;
pub(crate) mod retry;
pub(crate) mod tokens;

mod hash;
