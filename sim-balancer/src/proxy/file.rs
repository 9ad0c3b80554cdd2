//! Proxy: file.
