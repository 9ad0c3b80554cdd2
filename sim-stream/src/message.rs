//! What is put and what is read: records, keys, sequence numbers, and where to start.

mod key;
mod position;
mod sequence;
mod shard;

use std::fmt;

use sim_core::payload::Payload;

pub use self::key::{HashKey, HashRange, PartitionKey};
pub use self::position::{Checkpoint, StartingPosition};
pub use self::sequence::{Salt, SequenceNumber};
pub use self::shard::{ChildShard, ShardFilter, ShardId, ShardInfo};

/// A value on its way into a stream, with what decides its shard: `PutRecord`'s arguments.
///
/// A record has a value, which is stored as it is, and bytes, which are copied into the log beside it; either may be
/// nothing. A stream of bytes is a stream of `()`: its records take no allocation.
///
/// ```
/// use sim_stream::{HashKey, PartitionKey, Record};
///
/// let record = Record::new(PartitionKey::new("AA")?, "flight 1 to Los Angeles");
/// assert_eq!(record.hash_key(), Some(HashKey::of("AA")));
/// let record = record.explicit_hash_key(HashKey::MAX);
/// assert_eq!(record.hash_key(), Some(HashKey::MAX));
/// # Ok::<(), sim_stream::KeyError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Record<T> {
    /// The partition key. Records of one key stand in one shard, in order. `None` is for streams that
    /// distribute by themselves ([`RecordDistribution::Auto`](crate::RecordDistribution::Auto)), which ignore it.
    pub key: Option<PartitionKey>,
    /// The hash key to route by, instead of the partition key's MD5 (`ExplicitHashKey`).
    pub explicit_hash_key: Option<HashKey>,
    /// A sequence number that the record's own must exceed (`SequenceNumberForOrdering`): that of the last record
    /// that the same producer put with the same key. Sequence numbers here are taken in the order of the puts, so
    /// it is checked and changes nothing.
    pub after: Option<SequenceNumber>,
    /// The value.
    pub value: T,
    /// Bytes that stand beside the value, copied into the log. Default: none.
    pub data: Payload,
}

impl Record<()> {
    /// A record of bytes alone, with a partition key.
    #[must_use]
    pub fn bytes(key: PartitionKey, data: impl Into<Payload>) -> Self {
        Self::new(key, ()).data(data)
    }

    /// A record of bytes alone and without a key, for a stream that distributes by itself.
    #[must_use]
    pub fn keyless_bytes(data: impl Into<Payload>) -> Self {
        Self::keyless(()).data(data)
    }
}

impl<T> Record<T> {
    /// A record with a partition key.
    #[must_use]
    pub const fn new(key: PartitionKey, value: T) -> Self {
        Self {
            key: Some(key),
            explicit_hash_key: None,
            after: None,
            value,
            data: Payload::new(),
        }
    }

    /// A record without a key, for a stream that distributes by itself.
    #[must_use]
    pub const fn keyless(value: T) -> Self {
        Self {
            key: None,
            explicit_hash_key: None,
            after: None,
            value,
            data: Payload::new(),
        }
    }

    /// Puts bytes beside the value.
    #[must_use]
    pub fn data(mut self, data: impl Into<Payload>) -> Self {
        self.data = data.into();
        self
    }

    /// Routes by `hash_key` instead of the partition key's hash.
    #[must_use]
    pub fn explicit_hash_key(mut self, hash_key: HashKey) -> Self {
        self.explicit_hash_key = Some(hash_key);
        self
    }

    /// Asks for a sequence number greater than `sequence_number`.
    #[must_use]
    pub fn after(mut self, sequence_number: SequenceNumber) -> Self {
        self.after = Some(sequence_number);
        self
    }

    /// The hash that routes it: the explicit one, or else the partition key's; `None` without either.
    #[must_use]
    pub fn hash_key(&self) -> Option<HashKey> {
        self.explicit_hash_key
            .or_else(|| self.key.as_ref().map(PartitionKey::hash_key))
    }

    /// The value apart from the rest.
    pub(crate) fn split(self) -> (Record<()>, T) {
        let head = Record {
            key: self.key,
            explicit_hash_key: self.explicit_hash_key,
            after: self.after,
            value: (),
            data: self.data,
        };
        (head, self.value)
    }

    /// The same record around another value.
    #[must_use]
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Record<U> {
        Record {
            key: self.key,
            explicit_hash_key: self.explicit_hash_key,
            after: self.after,
            value: convert(self.value),
            data: self.data,
        }
    }
}

impl<T> From<(PartitionKey, T)> for Record<T> {
    fn from((key, value): (PartitionKey, T)) -> Self {
        Self::new(key, value)
    }
}

/// Shows everything but the value, which need not be printable.
impl<T> fmt::Debug for Record<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("key", &self.key)
            .field("explicit_hash_key", &self.explicit_hash_key)
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

/// Where a record was placed: `PutRecord`'s answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Placed {
    /// The shard.
    pub shard_id: ShardId,
    /// The record's number: strictly increasing within the shard, and per key also through resharding.
    pub sequence_number: SequenceNumber,
}
