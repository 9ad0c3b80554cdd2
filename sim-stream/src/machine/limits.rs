//! The throughput limits of a shard.
