//! The Kinesis Producer Library's aggregated records: many user records in one record of the stream.
//!
//! A stream that is limited to so many records a second carries more of them when a producer packs several
//! into one. [`Aggregator`] packs, [`deaggregate`] unpacks, in the KPL's own format, so that either side may be
//! the KPL, the KCL or one of the `aws-kinesis-agg` packages.
//!
//! ```
//! use sim_stream::kpl::{Aggregator, AggregatorConfig, UserPut, deaggregate};
//! use sim_stream::PartitionKey;
//!
//! let mut aggregator = Aggregator::new(AggregatorConfig::default())?;
//! for (key, data) in [("AA", "flight 1"), ("DL", "flight 2"), ("AA", "flight 3")] {
//!     let full = aggregator.add(UserPut::new(PartitionKey::new(key)?, data))?;
//!     assert!(full.is_none()); // there is room for more
//! }
//! let packed = aggregator.finish().expect("three records");
//!
//! let unpacked: Vec<_> = deaggregate(Some(packed.partition_key), packed.data)?.collect();
//! assert_eq!(unpacked.len(), 3);
//! assert_eq!(unpacked[2].sub_sequence, 2);
//! assert_eq!(&unpacked[2].data[..], b"flight 3");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Format
//! Source: `aggregation-format.md` of awslabs/amazon-kinesis-producer.
//!
//! ```text
//!  F3 89 9A C2 │ AggregatedRecord, protobuf                                   │ MD5 of the protobuf, 16 bytes
//!              │  1 partition_key_table      repeated string                  │
//!              │  2 explicit_hash_key_table  repeated string, decimal         │
//!              │  3 records                  repeated Record                  │
//!              │      1 partition_key_index       uint64, required            │
//!              │      2 explicit_hash_key_index   uint64, optional            │
//!              │      3 data                      bytes, required             │
//!              │      4 tags                      repeated Tag { key, value } │
//! ```
//!
//! What does not begin with the magic bytes, is too short, or does not end with the right MD5 is a plain record and
//! comes out as itself, with sub-sequence number 0, as the KCL has it. What does and is malformed inside is an error
//! that names the place. (The KCL logs it and goes on, with the protobuf as if it were data or with a part of the
//! records.)
//!
//! # Resharding
//! A producer packs for the shard that it expects. When that shard was split meanwhile, some of the records belong to the
//! other half; the producer learns it from the answer to its put and sends them again. Consumers therefore drop
//! records outside of their shard's range: see [`UserRecords::within`] and [`Outside`].
//!
//! # Memory
//! Data are slices of the record that was given, and keep it alive; nothing of them is copied. Besides them, unpacking
//! allocates at most 24 bytes for each byte of keys, tables and tags, and 80 bytes a user record, of which none is
//! shorter than six bytes on the wire. A user record has at most [`MAX_TAGS`] tags.

mod aggregate;
mod deaggregate;
mod wire;

pub use self::aggregate::{
    AddError, AddReason, Aggregated, Aggregator, AggregatorConfig, AggregatorConfigError,
};
pub use self::deaggregate::{
    DeaggregateError, KeyFault, Outside, UserRecord, UserRecords, deaggregate, is_aggregated,
};

use bytes::Bytes;

use crate::message::{HashKey, PartitionKey};

/// The bytes that an aggregated record begins with.
pub const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
/// The length of the MD5 that it ends with.
pub const DIGEST_BYTES: usize = 16;
/// The largest record that is unpacked or packed: 10 MiB, the largest record of Kinesis (2025).
pub const MAX_BYTES: usize = 10 * 1024 * 1024;
/// The most tags of a user record: 50, the most that a resource of AWS has; the KPL sets none.
pub const MAX_TAGS: usize = 50;

/// A name with a value that travels with a user record. The KPL reserves them and sets none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tag {
    /// The name.
    pub key: String,
    /// The value.
    pub value: Option<String>,
}

/// A user record on its way into an [`Aggregator`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserPut {
    /// The partition key.
    pub partition_key: PartitionKey,
    /// The hash key to route by, instead of the partition key's MD5.
    pub explicit_hash_key: Option<HashKey>,
    /// The data.
    pub data: Bytes,
    /// Tags, mostly none; at most [`MAX_TAGS`].
    pub tags: Vec<Tag>,
}

impl UserPut {
    /// A user record with a partition key and data.
    #[must_use]
    pub fn new(partition_key: PartitionKey, data: impl Into<Bytes>) -> Self {
        Self {
            partition_key,
            explicit_hash_key: None,
            data: data.into(),
            tags: Vec::new(),
        }
    }

    /// Routes by `hash_key` instead of the partition key's hash.
    #[must_use]
    pub fn explicit_hash_key(mut self, hash_key: HashKey) -> Self {
        self.explicit_hash_key = Some(hash_key);
        self
    }

    /// The hash that routes it.
    #[must_use]
    pub fn hash_key(&self) -> HashKey {
        self.explicit_hash_key
            .unwrap_or_else(|| self.partition_key.hash_key())
    }
}
