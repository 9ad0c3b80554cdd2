//! The configuration of a group.
