//! A load balancer inside your process.

#![forbid(unsafe_code)]

pub mod algorithm;
pub mod balancer;
pub mod config;
pub mod error;
pub mod machine;
pub mod message;
pub mod stats;

#[cfg(feature = "check")]
pub mod check;
#[cfg(feature = "proxy")]
pub mod proxy;
#[cfg(feature = "tower")]
pub mod service;
