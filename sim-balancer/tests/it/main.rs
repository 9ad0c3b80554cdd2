//! The balancer as its users see it.

#![cfg(not(loom))]
#![cfg_attr(
    feature = "proxy",
    expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")
)]

mod corners;
mod leases;
mod model;
mod picking;
#[cfg(feature = "proxy")]
mod proxy;
mod rig;

#[cfg(feature = "tower")]
mod service;
#[cfg(feature = "tower")]
mod soak;
