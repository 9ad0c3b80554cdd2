//! Proxy: pass.
