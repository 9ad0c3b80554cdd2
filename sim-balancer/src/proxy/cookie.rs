//! Proxy: cookie.
