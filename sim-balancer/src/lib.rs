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

pub use algorithm::{
    Algorithm, Choices, DECAY, LeastOutstanding, LeastTime, MOST_OUTSTANDING, MOST_SAMPLES,
    PENALTY, PeakEwma, RETRY_AFTER_CAP,
};
pub use balancer::Balancer;
pub use balancer::lease::Lease;
pub use balancer::seat::TargetRef;
#[cfg(feature = "check")]
pub use check::{Checked, Checker, CheckerError};
pub use config::BalancerConfig;
pub use error::{
    ConfigError, PickError, RegisterError, RegisterReason, UnknownTarget, UnknownZone, WeightError,
};
pub use machine::{
    HealthCheck, ProbeResult, Reason, Rules, State, TargetHealth, TargetId, Zone, ZoneId,
};
pub use message::{Feedback, Outcome, Request, Target, key_of};
pub use stats::{BalancerStats, TargetStats};
