//! The rules, pure: now, randomness and ids are arguments.

pub(crate) mod delivery;
pub(crate) mod leases;
pub mod limits;
pub mod on_demand;
pub mod shards;
