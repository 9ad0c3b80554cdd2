//! Inert data: targets, keys, outcomes.
