//! Auto scaling inside your process.

#![forbid(unsafe_code)]

pub mod alarm;
pub mod config;
pub mod error;
pub mod forecast;
pub mod group;
pub mod machine;
pub mod message;
pub mod metric;
pub mod policy;
pub mod provisioner;
pub mod stats;

pub use alarm::{Alarm, AlarmConfig, AlarmState, Comparison, MissingData};
pub use metric::{Fallback, Formula, GaugeMeter, Metrics, Query, Statistic, WindowConfig};
pub use policy::{Capacity, Decision, Policy, PolicyConfig, PolicyInput, PolicySet, Verdict, Vote};
