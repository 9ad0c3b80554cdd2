//! Proxy: log.
