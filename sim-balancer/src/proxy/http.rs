//! Proxy: http.
