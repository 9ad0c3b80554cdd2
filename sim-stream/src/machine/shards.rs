//! The lineage of shards: split, merge, route, list, expire.
