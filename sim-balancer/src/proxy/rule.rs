//! Proxy: rule.
