//! The balancer as its users see it.

#![cfg(not(loom))]

mod leases;
mod model;
mod picking;
mod rig;

#[cfg(feature = "tower")]
mod service;
#[cfg(feature = "tower")]
mod soak;
