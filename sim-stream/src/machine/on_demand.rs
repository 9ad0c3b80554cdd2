//! How many shards an on-demand stream needs.
