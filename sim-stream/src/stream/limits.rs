//! The throughput limits of one shard, shared by its readers and writers.

use sim_core::sync::Mutex;
use sim_core::time::Instant;

use crate::config::Throughput;
use crate::error::Resource;
