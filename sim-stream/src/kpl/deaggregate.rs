//! Unpacking.

use std::iter::FusedIterator;
use std::vec;

use bytes::Bytes;
use prost::Message;

use crate::error::{KeyError, ParseHashKeyError};
use crate::kpl::wire::{
    EXPLICIT_HASH_KEY_TABLE, Fields, PARTITION_KEY_TABLE, RECORDS, Record, TAGS, digest,
};
use crate::kpl::{DIGEST_BYTES, MAGIC, MAX_BYTES, MAX_TAGS, Tag};
use crate::message::{HashKey, HashRange, PartitionKey};

/// A record as its producer put it: one of an aggregated record, or a plain one as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// Its place in the aggregated record, from 0; a plain record's is 0. All records of one aggregated record share
    /// its sequence number, so that a checkpoint needs this too.
    pub sub_sequence: u64,
    /// Its partition key; `None` where a plain record came without.
    pub partition_key: Option<PartitionKey>,
    /// The hash key that its producer routed it by, where that was not the partition key's.
    pub explicit_hash_key: Option<HashKey>,
    /// The data: a slice of the record that was unpacked.
    pub data: Bytes,
    /// Tags, mostly none.
    pub tags: Vec<Tag>,
}

impl UserRecord {
    /// The hash that routes it: the explicit one, or else the partition key's.
    #[must_use]
    pub fn hash_key(&self) -> Option<HashKey> {
        self.explicit_hash_key
            .or_else(|| self.partition_key.as_ref().map(PartitionKey::hash_key))
    }
}

/// Why an aggregated record could not be unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeaggregateError {
    /// The record is longer than any that Kinesis takes.
    #[error("data: {bytes} bytes are more than {limit}")]
    TooLarge {
        /// Bytes given.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The message between magic and MD5 is no protobuf message.
    #[error("protobuf: {reason}")]
    Protobuf {
        /// What is wrong.
        reason: String,
    },
    /// A record of it is no protobuf message.
    #[error("records[{record}]: {reason}")]
    Record {
        /// Which record.
        record: usize,
        /// What is wrong.
        reason: String,
    },
    /// A record lacks a required field.
    #[error("records[{record}].{field}: missing")]
    Missing {
        /// Which record.
        record: usize,
        /// The field.
        field: &'static str,
    },
    /// A record has too many tags.
    #[error("records[{record}].tags: {tags} are more than {limit}")]
    Tags {
        /// Which record.
        record: usize,
        /// Tags given.
        tags: usize,
        /// Tags allowed.
        limit: usize,
    },
    /// A record points beyond the end of a table.
    #[error("records[{record}].{field}: {index} is beyond the table's {length} entries")]
    Index {
        /// Which record.
        record: usize,
        /// The field.
        field: &'static str,
        /// The index given.
        index: u64,
        /// Entries in the table.
        length: usize,
    },
    /// An entry of the table of partition keys is none.
    #[error("partition_key_table[{index}]: {reason}")]
    PartitionKey {
        /// Which entry.
        index: usize,
        /// What is wrong with it.
        reason: KeyFault,
    },
    /// An entry of the table of explicit hash keys is none.
    #[error("explicit_hash_key_table[{index}]: {reason}")]
    ExplicitHashKey {
        /// Which entry.
        index: usize,
        /// What is wrong with it.
        reason: KeyFault,
    },
}

/// What is wrong with a key's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFault {
    /// It is not UTF-8.
    #[error("not UTF-8")]
    Encoding,
    /// It is no partition key.
    #[error(transparent)]
    PartitionKey(#[from] KeyError),
    /// It is no hash key.
    #[error(transparent)]
    HashKey(#[from] ParseHashKeyError),
}

/// Which records of an aggregated one [`UserRecords::within`] drops when some lie outside of the shard's range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Outside {
    /// All of the aggregated record, as the KCL does. The KPL sends all of them again, to the shards where they belong,
    /// so that those within would come twice.
    #[default]
    DropAll,
    /// Those outside, for producers that send only these again.
    DropEach,
}

/// Tells whether a record is an aggregated one: it has the magic bytes, something in between, and the right MD5.
#[must_use]
pub fn is_aggregated(data: &[u8]) -> bool {
    message_of(data).is_some()
}

fn message_of(data: &[u8]) -> Option<&[u8]> {
    let (message, sum) = data
        .strip_prefix(&MAGIC)?
        .split_last_chunk::<DIGEST_BYTES>()?;
    (!message.is_empty() && digest(message) == *sum).then_some(message)
}

/// Unpacks a record: the user records of an aggregated one, or the record itself, with `partition_key`, if it is plain.
///
/// Everything is checked before the first user record comes out.
///
/// # Errors
/// What is malformed in an aggregated record, and where. A plain record is never an error, unless it is longer
/// than [`MAX_BYTES`].
pub fn deaggregate(
    partition_key: Option<PartitionKey>,
    data: Bytes,
) -> Result<UserRecords, DeaggregateError> {
    if data.len() > MAX_BYTES {
        return Err(DeaggregateError::TooLarge {
            bytes: data.len(),
            limit: MAX_BYTES,
        });
    }
    let Some(message) = message_of(&data).map(|message| data.slice_ref(message)) else {
        return Ok(UserRecords(Inner::Plain(Some(UserRecord {
            sub_sequence: 0,
            partition_key,
            explicit_hash_key: None,
            data,
            tags: Vec::new(),
        }))));
    };
    let mut partition_keys = Vec::new();
    let mut hash_keys = Vec::new();
    // Once, in one piece: it is the most of what is allocated.
    let mut places = Vec::with_capacity(Fields::count(message.clone(), RECORDS));
    let mut fields = Fields::new(message);
    let protobuf = |reason| DeaggregateError::Protobuf { reason };
    while let Some((number, content)) = fields.next().map_err(protobuf)? {
        match number {
            PARTITION_KEY_TABLE => {
                let index = partition_keys.len();
                partition_keys.push(
                    partition_key_of(&content)
                        .map_err(|reason| DeaggregateError::PartitionKey { index, reason })?,
                );
            }
            EXPLICIT_HASH_KEY_TABLE => {
                let index = hash_keys.len();
                hash_keys.push(
                    hash_key_of(&content)
                        .map_err(|reason| DeaggregateError::ExplicitHashKey { index, reason })?,
                );
            }
            RECORDS => places.push(Place::parse(places.len(), content)?),
            _ => {}
        }
    }
    for (record, place) in places.iter().enumerate() {
        // The tables may stand behind the records.
        check_index(
            record,
            "partition_key_index",
            place.partition_key,
            partition_keys.len(),
        )?;
        if let Some(index) = place.hash_key {
            check_index(record, "explicit_hash_key_index", index, hash_keys.len())?;
        }
    }
    Ok(UserRecords(Inner::Aggregated {
        partition_keys,
        hash_keys,
        places: places.into_iter(),
    }))
}

fn partition_key_of(content: &[u8]) -> Result<PartitionKey, KeyFault> {
    let text = std::str::from_utf8(content).map_err(|_| KeyFault::Encoding)?;
    Ok(PartitionKey::new(text)?)
}

fn hash_key_of(content: &[u8]) -> Result<HashKey, KeyFault> {
    let text = std::str::from_utf8(content).map_err(|_| KeyFault::Encoding)?;
    Ok(text.parse::<HashKey>()?)
}

fn check_index(
    record: usize,
    field: &'static str,
    index: u64,
    length: usize,
) -> Result<(), DeaggregateError> {
    if index < length as u64 {
        return Ok(());
    }
    Err(DeaggregateError::Index {
        record,
        field,
        index,
        length,
    })
}

/// A user record before its keys are looked up.
#[derive(Debug, Clone)]
struct Place {
    /// Its sub-sequence number: below the bytes of a record.
    number: u32,
    partition_key: u64,
    hash_key: Option<u64>,
    data: Bytes,
    /// Boxed, since there are none.
    tags: Option<Box<[Tag]>>,
}

impl Place {
    fn parse(record: usize, content: Bytes) -> Result<Self, DeaggregateError> {
        // Before they are unpacked.
        let tags = Fields::count(content.clone(), TAGS);
        if tags > MAX_TAGS {
            let limit = MAX_TAGS;
            return Err(DeaggregateError::Tags {
                record,
                tags,
                limit,
            });
        }
        let missing = |field| DeaggregateError::Missing { record, field };
        let parsed = Record::decode(content).map_err(|error| DeaggregateError::Record {
            record,
            reason: error.to_string(),
        })?;
        let mut tags = Vec::with_capacity(parsed.tags.len());
        for tag in parsed.tags {
            tags.push(Tag {
                key: tag.key.ok_or(missing("tags.key"))?,
                value: tag.value,
            });
        }
        Ok(Self {
            number: u32::try_from(record).unwrap_or(u32::MAX),
            partition_key: parsed
                .partition_key_index
                .ok_or(missing("partition_key_index"))?,
            hash_key: parsed.explicit_hash_key_index,
            data: parsed.data.ok_or(missing("data"))?,
            tags: (!tags.is_empty()).then(|| tags.into_boxed_slice()),
        })
    }
}

/// The user records of one record of the stream, in order.
#[derive(Debug, Clone)]
pub struct UserRecords(Inner);

#[derive(Debug, Clone)]
enum Inner {
    Plain(Option<UserRecord>),
    Aggregated {
        partition_keys: Vec<PartitionKey>,
        hash_keys: Vec<HashKey>,
        /// Invariant: the indices lie within the tables.
        places: vec::IntoIter<Place>,
    },
}

impl UserRecords {
    /// Whether the record was an aggregated one.
    #[must_use]
    pub const fn is_aggregated(&self) -> bool {
        matches!(self.0, Inner::Aggregated { .. })
    }

    /// Drops what lies outside of the range of the shard that it was read from; a plain record stays.
    ///
    /// Those that stay keep their sub-sequence numbers.
    #[must_use]
    pub fn within(self, range: HashRange, outside: Outside) -> Self {
        let Inner::Aggregated {
            partition_keys,
            hash_keys,
            places,
        } = self.0
        else {
            return self;
        };
        // Once for each key, and not for each record.
        let hashes: Vec<HashKey> = partition_keys.iter().map(PartitionKey::hash_key).collect();
        let is_within = |place: &Place| {
            let hash = match place.hash_key {
                Some(index) => hash_keys.get(index as usize),
                None => hashes.get(place.partition_key as usize),
            };
            hash.is_some_and(|hash| range.contains(*hash))
        };
        let mut places: Vec<_> = places.collect();
        match outside {
            Outside::DropAll if !places.iter().all(is_within) => places.clear(),
            Outside::DropAll => {}
            Outside::DropEach => places.retain(is_within),
        }
        Self(Inner::Aggregated {
            partition_keys,
            hash_keys,
            places: places.into_iter(),
        })
    }
}

impl Iterator for UserRecords {
    type Item = UserRecord;

    fn next(&mut self) -> Option<UserRecord> {
        match &mut self.0 {
            Inner::Plain(record) => record.take(),
            Inner::Aggregated {
                partition_keys,
                hash_keys,
                places,
            } => {
                let place = places.next()?;
                Some(UserRecord {
                    sub_sequence: u64::from(place.number),
                    partition_key: partition_keys.get(place.partition_key as usize).cloned(),
                    explicit_hash_key: place
                        .hash_key
                        .and_then(|index| hash_keys.get(index as usize).copied()),
                    data: place.data,
                    tags: place.tags.map(Vec::from).unwrap_or_default(),
                })
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.0 {
            Inner::Plain(record) => usize::from(record.is_some()),
            Inner::Aggregated { places, .. } => places.len(),
        };
        (left, Some(left))
    }
}

impl ExactSizeIterator for UserRecords {}
impl FusedIterator for UserRecords {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacking_takes_no_more_than_80_bytes_a_user_record() {
        assert!(size_of::<Place>() <= 80, "{}", size_of::<Place>());
        let mut packed =
            crate::kpl::Aggregator::new(crate::kpl::AggregatorConfig::default()).unwrap();
        for _ in 0..1_000 {
            let record = crate::kpl::UserPut::new(PartitionKey::new("k").unwrap(), &b""[..]);
            assert!(packed.add(record).unwrap().is_none());
        }
        let data = packed.finish().unwrap().data;
        let Inner::Aggregated { places, .. } = deaggregate(None, data).unwrap().0 else {
            panic!("it is aggregated");
        };
        // What is collected from the iterator is the allocation itself.
        assert_eq!(places.collect::<Vec<_>>().capacity(), 1_000);
    }
}
