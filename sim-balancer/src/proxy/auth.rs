//! Proxy: auth.
