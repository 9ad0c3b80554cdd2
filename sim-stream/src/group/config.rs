//! What a group goes by.

use std::time::Duration;

use sim_core::time::Timestamp;

use crate::config::{Limits, check_name, count, duration};
use crate::cursor::Read;
use crate::error::ConfigError;
use crate::machine::leases::Rules;

/// The shortest duration of a lease: below, renewals would be all that a worker does.
const MIN_LEASE: Duration = Duration::from_millis(1);
/// The longest duration taken: 100 years, so that nothing overflows the clock's 584.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 86_400);
/// The most workers taken.
const MAX_WORKERS: u64 = 1 << 20;

/// Settings of a [`ConsumerGroup`](crate::ConsumerGroup).
///
/// ```
/// use std::time::Duration;
/// use sim_stream::GroupConfig;
///
/// let config = GroupConfig { lease_duration: Duration::from_secs(30), ..GroupConfig::new("board") };
/// assert_eq!(config.max_steals, 1);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct GroupConfig {
    /// The name, for people: 1 to 128 ASCII letters, digits, `_`, `.` and `-`. Default:
    /// `"group"`.
    pub name: String,
    /// Where reading starts, for shards that are there when the group is made. Default: at the oldest record.
    pub start: InitialPosition,
    /// How long a lease holds without being renewed; workers renew three times as often. Default: 10 s, the KCL's
    /// `failoverTimeMillis`. At least 1 ms.
    pub lease_duration: Duration,
    /// How long an owner has to give a lease that it was asked for. Default: 30 s, the KCL's
    /// `gracefulLeaseHandoffTimeoutMillis`. Zero: it is not asked.
    pub hand_off_timeout: Duration,
    /// The most leases that a worker holds. Default: no limit, the KCL's `maxLeasesForWorker`. If all workers together may
    /// hold fewer than there are shards, some shards are not read.
    pub max_leases: usize,
    /// The most leases that a worker asks others for at once. Default: 1, the KCL's `maxLeasesToStealAtOneTime`.
    pub max_steals: usize,
    /// The most live workers. Default: 1,024.
    pub max_workers: usize,
    /// The size of a batch at most. Default: 10,000 records and 10 MiB, the most of a `GetRecords`.
    pub read: Read,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            name: "group".to_owned(),
            start: InitialPosition::TrimHorizon,
            lease_duration: Duration::from_secs(10),
            hand_off_timeout: Duration::from_secs(30),
            max_leases: usize::MAX,
            max_steals: 1,
            max_workers: 1_024,
            read: Read::default(),
        }
    }
}

impl GroupConfig {
    /// The defaults, under a name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Against what the stream lets a read bring.
    pub(super) fn check(&self, limits: &Limits) -> Result<(), ConfigError> {
        check_name("group.name", &self.name)?;
        duration(
            "group.lease_duration",
            self.lease_duration,
            MIN_LEASE,
            MAX_DURATION,
        )?;
        duration(
            "group.hand_off_timeout",
            self.hand_off_timeout,
            Duration::ZERO,
            MAX_DURATION,
        )?;
        count("group.max_leases", self.max_leases as u64, 1, u64::MAX)?;
        count("group.max_steals", self.max_steals as u64, 1, u64::MAX)?;
        count("group.max_workers", self.max_workers as u64, 1, MAX_WORKERS)?;
        let read = |field, value: usize, most: usize| count(field, value as u64, 1, most as u64);
        read("group.read.max", self.read.max, limits.read_records)?;
        read(
            "group.read.max_bytes",
            self.read.max_bytes,
            limits.read_bytes,
        )
    }

    pub(super) const fn rules(&self) -> Rules {
        Rules {
            duration: self.lease_duration,
            max_leases: self.max_leases,
            max_steals: self.max_steals,
            hand_off_timeout: self.hand_off_timeout,
            max_workers: self.max_workers,
        }
    }
}

/// Where a group starts to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum InitialPosition {
    /// At the oldest record that is retained (`TRIM_HORIZON`).
    #[default]
    TrimHorizon,
    /// Behind the newest record at the moment in which the group is made (`LATEST`). Every later record is
    /// processed, also if the first worker crashes before its first checkpoint.
    Latest,
    /// At the first record that arrived at or after a point in time (`AT_TIMESTAMP`).
    AtTimestamp(Timestamp),
}
