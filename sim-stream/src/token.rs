//! Expiring iterator tokens for the wire.
