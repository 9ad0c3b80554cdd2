//! Proxy: action.
