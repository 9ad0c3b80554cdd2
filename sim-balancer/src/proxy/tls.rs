//! Proxy: tls.
