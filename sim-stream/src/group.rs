//! Consumer groups: workers that share the shards by leases.
