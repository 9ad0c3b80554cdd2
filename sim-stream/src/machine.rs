//! The rules, pure: now, randomness and ids are arguments.

pub(crate) mod delivery;
pub(crate) mod leases;
pub(crate) mod limits;
pub(crate) mod on_demand;
pub(crate) mod shards;
