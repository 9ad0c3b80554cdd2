//! The rules of a group, pure.
