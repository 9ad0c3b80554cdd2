//! Listeners.

pub mod action;
pub mod auth;
pub mod config;
pub mod cookie;
pub mod file;
pub mod http;
pub mod log;
pub mod pass;
pub mod prefix;
pub mod rule;
pub mod tls;
