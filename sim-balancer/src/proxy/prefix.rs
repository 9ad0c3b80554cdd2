//! Proxy: prefix.
