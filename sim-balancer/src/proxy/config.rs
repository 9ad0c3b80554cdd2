//! Proxy: config.
