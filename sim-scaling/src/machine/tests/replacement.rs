//! replacement
