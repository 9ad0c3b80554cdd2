//! What a stream is told once, when it is built. Plain fields; checked by [`StreamConfig::check`].

use std::time::Duration;

use crate::error::ConfigError;
use crate::message::HashKey;

/// Kinesis's default and shortest retention: 24 hours.
pub const AWS_RETENTION: Duration = Duration::from_secs(24 * 3_600);
/// Kinesis's longest retention: 8,760 hours, which is 365 days.
pub const AWS_MAX_RETENTION: Duration = Duration::from_secs(8_760 * 3_600);
/// Kinesis's default for the largest record, data and partition key, in bytes: 1 MiB.
pub const AWS_RECORD_BYTES: usize = 1 << 20;
/// The largest that Kinesis lets the largest record be, in bytes: 10 MiB.
pub const AWS_MAX_RECORD_BYTES: usize = 10 << 20;
/// The largest record that a log takes, in bytes: a little under 16 MiB, the rest is for the record's head.
pub const MAX_RECORD_BYTES: usize = (16 << 20) - 4_096;
/// How long an iterator token may be used, in Kinesis and here: 5 minutes.
pub const ITERATOR_LIFETIME: Duration = Duration::from_secs(300);

/// The configuration of a stream.
///
/// Write it as a literal that ends in `..Default::default()`; fields may be added.
///
/// ```
/// use std::time::Duration;
/// use sim_stream::{StreamConfig, StreamMode};
///
/// let config = StreamConfig {
///     name: "flights".into(),
///     mode: StreamMode::Provisioned { shards: 4 },
///     retention: Duration::from_secs(3_600),
///     max_bytes: Some(1 << 30),
///     ..Default::default()
/// };
/// assert!(config.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct StreamConfig {
    /// The stream's name, of letters, digits, `_`, `.` and `-`, 1 to 128 as in Kinesis. Default: `"stream"`.
    pub name: String,
    /// Who decides on the number of shards. Default: one shard, provisioned.
    pub mode: StreamMode,
    /// What decides a record's shard. Default: its partition key.
    pub distribution: RecordDistribution,
    /// How a partition key is hashed. Default: by MD5, as Kinesis does.
    pub hash: KeyHash,
    /// How long a record is kept, from its arrival. Default: 24 hours (Kinesis's); any but zero in process, 24 to 8,760
    /// hours in the AWS profile.
    pub retention: Duration,
    /// How much memory the logs of all shards together may hold, in bytes. Default: `None`, which is unbounded within
    /// the retention, as Kinesis is. It is kept to within a chunk of each shard.
    pub max_bytes: Option<usize>,
    /// How many records the whole stream may hold. Default: `None`, unbounded. It is kept to within a chunk of each shard.
    pub max_records: Option<u64>,
    /// What happens at [`max_bytes`](Self::max_bytes) or [`max_records`](Self::max_records). Default:
    /// [`WhenFull::TrimOldest`].
    pub when_full: WhenFull,
    /// The largest record, data and partition key, in bytes (`MaxRecordSizeInKiB`). Default: [`MAX_RECORD_BYTES`]; in
    /// the AWS profile 1 MiB, and at most 10 MiB. Of a typed stream the values' size counts only where
    /// the stream is told how to measure them.
    pub max_record_bytes: usize,
    /// How long an iterator token may be used. Default: 5 minutes (Kinesis's).
    pub iterator_lifetime: Duration,
    /// How memory is taken for the logs.
    pub memory: Memory,
    /// Bounds on what may be asked for. Default: [`Limits::default`], generous; [`Limits::aws`] are Kinesis's.
    pub limits: Limits,
    /// Seeds what the stream draws by chance. Default: 0.
    pub seed: u64,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            name: "stream".to_owned(),
            mode: StreamMode::Provisioned { shards: 1 },
            distribution: RecordDistribution::UserPartitionKey,
            hash: KeyHash::Md5,
            retention: AWS_RETENTION,
            max_bytes: None,
            max_records: None,
            when_full: WhenFull::TrimOldest,
            max_record_bytes: MAX_RECORD_BYTES,
            iterator_lifetime: ITERATOR_LIFETIME,
            memory: Memory::default(),
            limits: Limits::default(),
            seed: 0,
        }
    }
}

impl StreamConfig {
    /// The defaults under a name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// The AWS profile: Kinesis's defaults and limits.
    #[must_use]
    pub fn aws(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            max_record_bytes: AWS_RECORD_BYTES,
            limits: Limits::aws(),
            ..Self::default()
        }
    }

    /// This configuration, with that many shards, provisioned.
    #[must_use]
    pub fn shards(mut self, shards: u32) -> Self {
        self.mode = StreamMode::Provisioned { shards };
        self
    }

    /// The shards that a new stream has: those provisioned, or those that on-demand mode begins with.
    #[must_use]
    pub const fn first_shards(&self) -> u32 {
        match self.mode {
            StreamMode::Provisioned { shards } => shards,
            StreamMode::OnDemand => self.limits.on_demand.first_shards,
        }
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// The first field that is out of range, with its value and its limits.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_name("name", &self.name)?;
        let limits = &self.limits;
        limits.check()?;
        count(
            "mode.shards",
            self.first_shards().into(),
            1,
            limits.open_shards.into(),
        )?;
        duration(
            "retention",
            self.retention,
            limits.min_retention,
            limits.max_retention,
        )?;
        if let Some(bytes) = self.max_bytes {
            count("max_bytes", bytes as u64, 1, MAX_COUNT)?;
        }
        if let Some(records) = self.max_records {
            count("max_records", records, 1, MAX_COUNT)?;
        }
        count(
            "max_record_bytes",
            self.max_record_bytes as u64,
            limits.min_record_bytes as u64,
            limits.max_record_bytes as u64,
        )?;
        duration(
            "iterator_lifetime",
            self.iterator_lifetime,
            Duration::from_nanos(1),
            MAX_DURATION,
        )?;
        self.memory.check()
    }
}

/// Who decides on the number of shards: `StreamMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum StreamMode {
    /// The owner, by splits, merges and target counts (`PROVISIONED`).
    Provisioned {
        /// Shards at the start.
        shards: u32,
    },
    /// The stream, by what is put into it (`ON_DEMAND`): see [`OnDemandLimits`].
    OnDemand,
}

/// What decides a record's shard: `RecordDistributionStrategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum RecordDistribution {
    /// Its explicit hash key, or else its partition key, which it must have (`USER_PARTITION_KEY`).
    #[default]
    UserPartitionKey,
    /// The stream, evenly; keys may be left out and are ignored, and there is no order (`AUTO`).
    Auto,
}

/// How a partition key becomes a [`HashKey`]. With a single open shard nothing is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum KeyHash {
    /// By MD5, as Kinesis does: the same keys share a shard here and there ([`HashKey::of`]).
    #[default]
    Md5,
    /// By a cheaper hash ([`HashKey::fast`]).
    Fast,
}

impl KeyHash {
    /// The hash of a partition key.
    #[must_use]
    #[inline]
    pub fn of(self, key: &str) -> HashKey {
        match self {
            Self::Md5 => HashKey::of(key),
            Self::Fast => HashKey::fast(key),
        }
    }
}

/// What happens to a put when the stream is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum WhenFull {
    /// It is taken, and the oldest records leave before their time. Readers that had not come that far learn it.
    #[default]
    TrimOldest,
    /// It is refused, or waits where it may, until retention has made room.
    Refuse,
}

/// How memory is taken for the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Memory {
    /// The size of a chunk, the unit in which memory is taken and given back, in bytes. Default: 2 MiB, a huge page.
    pub chunk_bytes: usize,
    /// The size of a shard's first chunk, in bytes; each one after it is twice as large, up to the full size. Default:
    /// 64 KiB, so that many small shards are cheap.
    pub first_chunk_bytes: usize,
    /// How much of the memory of trimmed records the stream keeps for new ones, in bytes. Default: 16 MiB. Memory that
    /// was touched before takes records faster: it costs no page faults.
    pub kept_bytes: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            chunk_bytes: 2 << 20,
            first_chunk_bytes: 64 << 10,
            kept_bytes: 16 << 20,
        }
    }
}

impl Memory {
    fn check(&self) -> Result<(), ConfigError> {
        let bytes = |field, value: usize, min: usize, max: usize| {
            count(field, value as u64, min as u64, max as u64)
        };
        bytes("memory.chunk_bytes", self.chunk_bytes, 4 << 10, 64 << 20)?;
        bytes(
            "memory.first_chunk_bytes",
            self.first_chunk_bytes,
            4 << 10,
            self.chunk_bytes,
        )
    }
}

/// Bounds on what a caller may ask of a stream.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Limits {
    /// The shortest retention. Default: 1 ns; Kinesis: 24 hours.
    pub min_retention: Duration,
    /// The longest retention. Default: 100 years; Kinesis: 8,760 hours.
    pub max_retention: Duration,
    /// The smallest that [`max_record_bytes`](StreamConfig::max_record_bytes) may be. Default: 1; Kinesis: 1 MiB.
    pub min_record_bytes: usize,
    /// The largest that [`max_record_bytes`](StreamConfig::max_record_bytes) may be. Default: [`MAX_RECORD_BYTES`];
    /// Kinesis: 10 MiB.
    pub max_record_bytes: usize,
    /// The most records of a batch. Default: 65,536; Kinesis: 500.
    pub batch_records: usize,
    /// The most bytes of a batch, data and partition keys. Default: 1 GiB; Kinesis: 10 MiB.
    pub batch_bytes: usize,
    /// The most records that one read brings. Default: 65,536; Kinesis: 10,000.
    pub read_records: usize,
    /// The most bytes that one read brings; a single record may be larger. Default: 1 GiB; Kinesis: 10 MiB.
    pub read_bytes: usize,
    /// The most open shards. Default: 20,000, which is Kinesis's quota in its three largest regions too.
    pub open_shards: u32,
    /// The most shards, open ones and closed ones that are retained. Default: 100,000. A reshard beyond it is refused
    /// until retention has removed some.
    pub retained_shards: u32,
    /// How far and how often a target count may be set. Default: `None`, no limit.
    pub resharding: Option<ReshardingLimits>,
    /// What a shard takes and gives a second. Default: `None`, no limit.
    pub throughput: Option<Throughput>,
    /// The most registered consumers of a stream. Default: 1,024; Kinesis: 20, or 50 with on-demand Advantage.
    pub consumers: usize,
    /// How long a subscription of a registered consumer lasts. Default: `None`, for ever; Kinesis: 5 minutes.
    pub subscription_lifetime: Option<Duration>,
    /// How on-demand mode follows the traffic.
    pub on_demand: OnDemandLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min_retention: Duration::from_nanos(1),
            max_retention: MAX_DURATION,
            min_record_bytes: 1,
            max_record_bytes: MAX_RECORD_BYTES,
            batch_records: 65_536,
            batch_bytes: 1 << 30,
            read_records: 65_536,
            read_bytes: 1 << 30,
            open_shards: 20_000,
            retained_shards: 100_000,
            resharding: None,
            throughput: None,
            consumers: 1_024,
            subscription_lifetime: None,
            on_demand: OnDemandLimits::default(),
        }
    }
}

impl Limits {
    /// Kinesis's limits.
    #[must_use]
    pub fn aws() -> Self {
        Self {
            min_retention: AWS_RETENTION,
            max_retention: AWS_MAX_RETENTION,
            min_record_bytes: AWS_RECORD_BYTES,
            max_record_bytes: AWS_MAX_RECORD_BYTES,
            batch_records: 500,
            batch_bytes: 10 << 20,
            read_records: 10_000,
            read_bytes: 10 << 20,
            resharding: Some(ReshardingLimits::aws()),
            throughput: Some(Throughput::aws()),
            consumers: 20,
            subscription_lifetime: Some(Duration::from_secs(300)),
            ..Self::default()
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let size = |field, value: usize| count(field, value as u64, 1, MAX_COUNT);
        duration(
            "limits.min_retention",
            self.min_retention,
            Duration::from_nanos(1),
            self.max_retention,
        )?;
        duration(
            "limits.max_retention",
            self.max_retention,
            self.min_retention,
            MAX_DURATION,
        )?;
        count(
            "limits.max_record_bytes",
            self.max_record_bytes as u64,
            self.min_record_bytes as u64,
            MAX_RECORD_BYTES as u64,
        )?;
        size("limits.batch_records", self.batch_records)?;
        size("limits.batch_bytes", self.batch_bytes)?;
        size("limits.read_records", self.read_records)?;
        size("limits.read_bytes", self.read_bytes)?;
        count(
            "limits.retained_shards",
            self.retained_shards.into(),
            1,
            MAX_SHARDS.into(),
        )?;
        count(
            "limits.open_shards",
            self.open_shards.into(),
            1,
            self.retained_shards.into(),
        )?;
        if let Some(resharding) = &self.resharding {
            count(
                "limits.resharding.factor",
                resharding.factor.into(),
                2,
                u32::MAX.into(),
            )?;
            count(
                "limits.resharding.changes",
                resharding.changes.into(),
                1,
                MAX_CHANGES.into(),
            )?;
            count(
                "limits.resharding.mode_changes",
                resharding.mode_changes.into(),
                1,
                MAX_CHANGES.into(),
            )?;
        }
        if let Some(throughput) = &self.throughput {
            throughput.check()?;
        }
        if let Some(lifetime) = self.subscription_lifetime {
            duration(
                "limits.subscription_lifetime",
                lifetime,
                Duration::from_nanos(1),
                MAX_DURATION,
            )?;
        }
        self.on_demand.check()
    }
}

/// How far and how often a target count of shards may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ReshardingLimits {
    /// The target may be at most this multiple of the open shards, and at least this part of them. Kinesis: 2.
    pub factor: u32,
    /// How many target counts may be set within 24 hours, rolling. Kinesis: 10.
    pub changes: u32,
    /// How many times the mode may be changed within 24 hours, rolling. Kinesis: 2.
    pub mode_changes: u32,
}

impl ReshardingLimits {
    /// Kinesis's limits.
    #[must_use]
    pub const fn aws() -> Self {
        Self {
            factor: 2,
            changes: 10,
            mode_changes: 2,
        }
    }
}

/// What one shard takes and gives a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Throughput {
    /// Bytes in a second, data and partition keys. Kinesis: 1 MiB.
    pub write_bytes: u64,
    /// Records in a second. Kinesis: 1,000.
    pub write_records: u64,
    /// The largest record that is taken, in bytes, in advance of its time: one larger than a second's share needs a shard
    /// that has its share unused, and the shard rests until the record is worked off. Kinesis: 10 MiB.
    pub write_burst_bytes: u64,
    /// Bytes out a second, over all shared readers. Kinesis: 2 MiB. An answer may be larger; the shard then rests until
    /// it is worked off, which after 10 MiB takes 5 seconds.
    pub read_bytes: u64,
    /// Reads a second, over all shared readers. Kinesis: 5.
    pub reads: u64,
    /// Bytes out a second for each registered consumer. Kinesis: 2 MiB.
    pub fan_out_bytes: u64,
}

impl Throughput {
    /// Kinesis's limits.
    #[must_use]
    pub const fn aws() -> Self {
        Self {
            write_bytes: 1 << 20,
            write_records: 1_000,
            write_burst_bytes: 10 << 20,
            read_bytes: 2 << 20,
            reads: 5,
            fan_out_bytes: 2 << 20,
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        for (field, value) in [
            ("limits.throughput.write_bytes", self.write_bytes),
            ("limits.throughput.write_records", self.write_records),
            ("limits.throughput.read_bytes", self.read_bytes),
            ("limits.throughput.reads", self.reads),
            ("limits.throughput.fan_out_bytes", self.fan_out_bytes),
        ] {
            count(field, value, 1, MAX_COUNT)?;
        }
        count(
            "limits.throughput.write_burst_bytes",
            self.write_burst_bytes,
            self.write_bytes,
            MAX_COUNT,
        )
    }
}

/// How on-demand mode follows the traffic. The defaults are Kinesis's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct OnDemandLimits {
    /// Shards of a new stream. Default: 4 (4 MiB a second in).
    pub first_shards: u32,
    /// The most shards. Default: 200 (200 MiB a second in); Kinesis raises it to 10,240 in three regions.
    pub max_shards: u32,
    /// What one shard is reckoned to take, in bytes a second. Default: 1 MiB.
    pub shard_bytes: u64,
    /// What one shard is reckoned to take, in records a second. Default: 1,000.
    pub shard_records: u64,
    /// How long a peak counts. Default: 30 days.
    pub memory: Duration,
    /// Within which time the traffic may double. Default: 15 minutes.
    pub doubling: Duration,
}

impl Default for OnDemandLimits {
    fn default() -> Self {
        Self {
            first_shards: 4,
            max_shards: 200,
            shard_bytes: 1 << 20,
            shard_records: 1_000,
            memory: Duration::from_secs(30 * 86_400),
            doubling: Duration::from_secs(15 * 60),
        }
    }
}

impl OnDemandLimits {
    fn check(&self) -> Result<(), ConfigError> {
        count(
            "limits.on_demand.max_shards",
            self.max_shards.into(),
            1,
            MAX_SHARDS.into(),
        )?;
        count(
            "limits.on_demand.first_shards",
            self.first_shards.into(),
            1,
            self.max_shards.into(),
        )?;
        count(
            "limits.on_demand.shard_bytes",
            self.shard_bytes,
            1,
            MAX_COUNT,
        )?;
        count(
            "limits.on_demand.shard_records",
            self.shard_records,
            1,
            MAX_COUNT,
        )?;
        duration(
            "limits.on_demand.doubling",
            self.doubling,
            Duration::from_secs(1),
            self.memory,
        )?;
        duration(
            "limits.on_demand.memory",
            self.memory,
            self.doubling,
            MAX_DURATION,
        )
    }
}

/// The longest name of a stream or a consumer, in characters: Kinesis's 128.
const MAX_NAME: usize = 128;
/// The longest duration taken: 100 years, so that nothing overflows the clock's 584.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 86_400);
/// The largest count taken, so that sums of two do not overflow.
const MAX_COUNT: u64 = 1 << 62;
/// The most shards taken: a shard's state is some 100 bytes.
const MAX_SHARDS: u32 = 1 << 24;
/// The most changes within 24 hours that are remembered.
const MAX_CHANGES: u32 = 1 << 16;

/// Checks a name of a stream or a consumer: 1 to 128 letters, digits, `_`, `.` and `-`.
pub(crate) fn check_name(field: &'static str, name: &str) -> Result<(), ConfigError> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(ConfigError::NameLength {
            field,
            length: name.chars().count(),
            limit: MAX_NAME,
        });
    }
    match name
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '.' | '-'))
    {
        Some(found) => Err(ConfigError::NameCharacter { field, found }),
        None => Ok(()),
    }
}

pub(crate) fn duration(
    field: &'static str,
    value: Duration,
    min: Duration,
    max: Duration,
) -> Result<(), ConfigError> {
    if value < min || value > max {
        Err(ConfigError::Duration {
            field,
            value,
            min,
            max,
        })
    } else {
        Ok(())
    }
}

pub(crate) fn count(
    field: &'static str,
    value: u64,
    min: u64,
    max: u64,
) -> Result<(), ConfigError> {
    if value < min || value > max {
        Err(ConfigError::Count {
            field,
            value,
            min,
            max,
        })
    } else {
        Ok(())
    }
}
