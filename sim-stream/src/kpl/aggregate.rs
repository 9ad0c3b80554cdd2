//! Packing.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::mem;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::kpl::wire::{AggregatedRecord, Record, WireTag, digest, entry_len};
use crate::kpl::{DIGEST_BYTES, MAGIC, MAX_BYTES, MAX_TAGS, UserPut, is_aggregated};
use crate::message::{HashKey, HashRange, PartitionKey};

/// What an [`Aggregator`] is told once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct AggregatorConfig {
    /// The most bytes of an aggregated record, magic and MD5 included. Default: 51,200, the KPL's `AggregationMaxSize`;
    /// at most [`MAX_BYTES`], and at most the stream's record size.
    pub max_bytes: usize,
    /// The most user records in one. Default: 65,536. (The KPL's `AggregationMaxCount` is 4,294,967,295 by default,
    /// so that the bytes decide.)
    pub max_records: usize,
    /// The hash range of the shard that it packs for; records outside are refused. Default: everything. One aggregated
    /// record goes to one shard, so keep an aggregator a shard, or consumers that filter drop what strayed.
    pub range: HashRange,
}

impl Default for AggregatorConfig {
    fn default() -> Self {
        Self {
            max_bytes: 51_200,
            max_records: 65_536,
            range: HashRange::FULL,
        }
    }
}

/// A field of an [`AggregatorConfig`] is out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value} must lie between {least} and {limit}")]
pub struct AggregatorConfigError {
    /// The field.
    pub field: &'static str,
    /// The value given.
    pub value: usize,
    /// The least allowed.
    pub least: usize,
    /// The most allowed.
    pub limit: usize,
}

/// Packs user records into aggregated ones, each up to a size limit.
///
/// Not shared: one producer has one, for each shard that it puts to. It spawns nothing and keeps no time: who wants
/// records to leave after a while calls [`finish`](Self::finish) then (the KPL's `RecordMaxBufferedTime` is 100 ms).
pub struct Aggregator {
    config: AggregatorConfig,
    partition_keys: Table<PartitionKey>,
    hash_keys: Table<HashKey>,
    records: Vec<Record>,
    /// The first one, which gives the whole its keys.
    first: Option<(PartitionKey, Option<HashKey>)>,
    /// Bytes of the protobuf message.
    bytes: usize,
}

/// A record for the stream, made of one or more user records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aggregated {
    /// The partition key: that of the first user record.
    pub partition_key: PartitionKey,
    /// The explicit hash key of the first user record, if it has one.
    pub explicit_hash_key: Option<HashKey>,
    /// What to put. A lone user record is given as it is, as the KPL does, unless it has tags or would be taken for an
    /// aggregated one.
    pub data: Bytes,
    /// How many user records stand in it.
    pub records: usize,
}

/// A user record that was not taken, and why. Nothing changed.
#[derive(Clone, PartialEq, Eq)]
pub struct AddError {
    /// The record, as it was given.
    pub record: Box<UserPut>,
    /// Why it was refused.
    pub reason: AddReason,
}

/// Why a user record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddReason {
    /// It does not fit even alone. It can be put as it is, unless it is too large for the stream too.
    #[error("data: alone it takes {bytes} bytes, more than {limit}")]
    TooLarge {
        /// Bytes of the aggregated record with it alone.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// It has too many tags.
    #[error("tags: {tags} are more than {limit}")]
    Tags {
        /// Tags given.
        tags: usize,
        /// Tags allowed.
        limit: usize,
    },
    /// It belongs to another shard.
    #[error("hash key: {hash_key} lies outside of {range}")]
    Outside {
        /// The hash that routes it.
        hash_key: HashKey,
        /// The aggregator's range.
        range: HashRange,
    },
}

impl Aggregator {
    /// Makes an empty one.
    ///
    /// # Errors
    /// The first field of the configuration that is out of its range.
    pub fn new(config: AggregatorConfig) -> Result<Self, AggregatorConfigError> {
        let check = |field, value: usize, least, limit| {
            if (least..=limit).contains(&value) {
                return Ok(());
            }
            Err(AggregatorConfigError {
                field,
                value,
                least,
                limit,
            })
        };
        check("max_bytes", config.max_bytes, FRAME_BYTES + 1, MAX_BYTES)?;
        check("max_records", config.max_records, 1, u32::MAX as usize)?;
        Ok(Self {
            config,
            partition_keys: Table::default(),
            hash_keys: Table::default(),
            records: Vec::new(),
            first: None,
            bytes: 0,
        })
    }

    /// Adds a user record. When it no longer fits, what has been there is given out, full, and it begins the next one.
    ///
    /// # Errors
    /// [`AddError`] with the record.
    pub fn add(&mut self, record: UserPut) -> Result<Option<Aggregated>, AddError> {
        let hash_key = record.hash_key();
        let range = self.config.range;
        if !range.contains(hash_key) {
            return Err(refuse(record, AddReason::Outside { hash_key, range }));
        }
        let tags = record.tags.len();
        if tags > MAX_TAGS {
            let limit = MAX_TAGS;
            return Err(refuse(record, AddReason::Tags { tags, limit }));
        }
        let limit = self.config.max_bytes;
        if !self.is_empty()
            && self.len() < self.config.max_records
            && self.bytes() + self.cost(&record) <= limit
        {
            self.push(record);
            return Ok(None);
        }
        let alone = FRAME_BYTES + Self::cost_alone(&record);
        if alone > limit {
            let bytes = alone;
            return Err(refuse(record, AddReason::TooLarge { bytes, limit }));
        }
        let full = self.finish();
        self.push(record);
        Ok(full)
    }

    /// Gives out what there is; `None` when there is nothing.
    pub fn finish(&mut self) -> Option<Aggregated> {
        let (partition_key, explicit_hash_key) = self.first.take()?;
        let records = mem::take(&mut self.records);
        let message_bytes = mem::take(&mut self.bytes);
        let message = AggregatedRecord {
            partition_key_table: self.partition_keys.take(),
            explicit_hash_key_table: self.hash_keys.take(),
            records,
        };
        let count = message.records.len();
        let data = match &message.records[..] {
            [
                Record {
                    data: Some(data),
                    tags,
                    ..
                },
            ] if tags.is_empty() && !is_aggregated(data) => data.clone(),
            _ => encode(&message, message_bytes),
        };
        Some(Aggregated {
            partition_key,
            explicit_hash_key,
            data,
            records: count,
        })
    }

    /// How many user records wait in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How long the aggregated record would be now, in bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        FRAME_BYTES + self.bytes
    }

    /// By how much the message grows with `record`.
    fn cost(&self, record: &UserPut) -> usize {
        let (key, new_key) = self.partition_keys.find(&record.partition_key);
        let mut bytes = if new_key {
            entry_len(record.partition_key.as_str().len())
        } else {
            0
        };
        let hash = record.explicit_hash_key.map(|hash_key| {
            let (index, is_new) = self.hash_keys.find(&hash_key);
            if is_new {
                bytes += entry_len(decimal_len(hash_key));
            }
            index
        });
        bytes + entry_len(wire_record(key, hash, record).encoded_len())
    }

    fn cost_alone(record: &UserPut) -> usize {
        let hash_entry = |hash_key| entry_len(decimal_len(hash_key));
        entry_len(record.partition_key.as_str().len())
            + record.explicit_hash_key.map_or(0, hash_entry)
            + entry_len(wire_record(0, record.explicit_hash_key.map(|_| 0), record).encoded_len())
    }

    fn push(&mut self, record: UserPut) {
        self.bytes += self.cost(&record);
        if self.first.is_none() {
            self.first = Some((record.partition_key.clone(), record.explicit_hash_key));
        }
        let key = self.partition_keys.insert(&record.partition_key);
        let hash = record
            .explicit_hash_key
            .map(|hash_key| self.hash_keys.insert(&hash_key));
        self.records.push(wire_record(key, hash, &record));
    }
}

impl fmt::Debug for Aggregator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aggregator")
            .field("len", &self.len())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddError")
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.reason, f)
    }
}

impl std::error::Error for AddError {}

/// Magic and MD5.
const FRAME_BYTES: usize = MAGIC.len() + DIGEST_BYTES;

fn refuse(record: UserPut, reason: AddReason) -> AddError {
    AddError {
        record: Box::new(record),
        reason,
    }
}

fn encode(message: &AggregatedRecord, message_bytes: usize) -> Bytes {
    debug_assert_eq!(message.encoded_len(), message_bytes);
    let mut data = BytesMut::with_capacity(FRAME_BYTES + message_bytes);
    data.put_slice(&MAGIC);
    message
        .encode(&mut data)
        .expect("the buffer grows, up to what memory there is");
    let sum = digest(&data[MAGIC.len()..]);
    data.put_slice(&sum);
    data.freeze()
}

fn wire_record(key: u64, hash: Option<u64>, record: &UserPut) -> Record {
    Record {
        partition_key_index: Some(key),
        explicit_hash_key_index: hash,
        data: Some(record.data.clone()),
        tags: record
            .tags
            .iter()
            .map(|tag| WireTag {
                key: Some(tag.key.clone()),
                value: tag.value.clone(),
            })
            .collect(),
    }
}

/// The digits of a hash key.
fn decimal_len(hash_key: HashKey) -> usize {
    hash_key
        .as_u128()
        .checked_ilog10()
        .map_or(1, |digits| digits as usize + 1)
}

/// Keys, each once, in the order in which they came.
struct Table<K> {
    keys: Vec<String>,
    /// Looked up only, never walked.
    indices: HashMap<K, u64>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            indices: HashMap::new(),
        }
    }
}

impl<K: Hash + Eq + Clone + fmt::Display> Table<K> {
    /// The index that `key` has or would get, and whether it would be new.
    fn find(&self, key: &K) -> (u64, bool) {
        match self.indices.get(key) {
            Some(index) => (*index, false),
            None => (self.keys.len() as u64, true),
        }
    }

    fn insert(&mut self, key: &K) -> u64 {
        let (index, is_new) = self.find(key);
        if is_new {
            self.keys.push(key.to_string());
            self.indices.insert(key.clone(), index);
        }
        index
    }

    fn take(&mut self) -> Vec<String> {
        self.indices.clear();
        mem::take(&mut self.keys)
    }
}
