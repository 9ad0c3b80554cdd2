//! The throughput limits of one shard, shared by its readers and writers.

use sim_core::time::Instant;

use crate::config::Throughput;
use crate::error::Resource;

/// Refuses what a shard's share of a second does not hold.
pub(crate) struct ShardLimits {}

impl ShardLimits {
    pub(crate) fn new(_: Throughput) -> Self { Self {} }
    pub(crate) fn write(&self, _now: Instant, _bytes: u64) -> Result<(), (Resource, Instant)> { Ok(()) }
    pub(crate) fn read(&self, _now: Instant) -> Result<(), (Resource, Instant)> { Ok(()) }
    pub(crate) fn was_read(&self, _now: Instant, _bytes: u64) {}
}
