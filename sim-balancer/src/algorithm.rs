//! How a target is chosen.
