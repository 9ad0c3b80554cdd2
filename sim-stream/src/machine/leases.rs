//! The rules of consumer groups: who holds which shard, from where.
