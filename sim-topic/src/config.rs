//! What can be set, with defaults, units and limits.
