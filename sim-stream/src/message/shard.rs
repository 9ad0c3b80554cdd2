//! Shards by name, and what is told about them.

use std::fmt;
use std::str::FromStr;

use sim_core::time::Timestamp;

use super::key::HashRange;
use super::sequence::SequenceNumber;
use crate::error::ParseShardIdError;

/// A shard of one stream, numbered in the order of creation. Shown and parsed as `shardId-000000000007`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(u32);

impl ShardId {
    /// The last shard that a stream may have in its life.
    pub const MAX: Self = Self(u32::MAX - 1);

    const PREFIX: &'static str = "shardId-";
    const DIGITS: usize = 12;

    /// The shard of a number; numbers above [`MAX`](Self::MAX)'s become it.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        if number > Self::MAX.0 {
            Self::MAX
        } else {
            Self(number)
        }
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format_args!("{}{:012}", Self::PREFIX, self.0).to_string())
    }
}

impl FromStr for ShardId {
    type Err = ParseShardIdError;

    fn from_str(text: &str) -> Result<Self, ParseShardIdError> {
        text.strip_prefix(Self::PREFIX)
            .filter(|digits| {
                digits.len() == Self::DIGITS && digits.bytes().all(|b| b.is_ascii_digit())
            })
            .and_then(|digits| digits.parse().ok())
            .filter(|number| *number <= Self::MAX.0)
            .map(Self)
            .ok_or(ParseShardIdError)
    }
}

/// What a listing tells of a shard: `Shard` in Kinesis's answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ShardInfo {
    /// Its id.
    pub id: ShardId,
    /// The shard that it came from by a split, or the one on which a merge was called (`ParentShardId`).
    pub parent: Option<ShardId>,
    /// The other shard of a merge (`AdjacentParentShardId`).
    pub adjacent_parent: Option<ShardId>,
    /// The hash keys that it takes.
    pub hash_range: HashRange,
    /// The number of its first record, were it still there.
    pub starting_sequence_number: SequenceNumber,
    /// The number of its last record, once it is closed; the starting one if it never had a record. An open shard has
    /// none.
    pub ending_sequence_number: Option<SequenceNumber>,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it was closed, by a split or a merge.
    pub closed_at: Option<Timestamp>,
}

impl ShardInfo {
    /// Whether it takes records.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.closed_at.is_none()
    }
}

/// A shard that goes on where a closed one ended: `ChildShard`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ChildShard {
    /// Its id.
    pub id: ShardId,
    /// Its parents: one after a split, two after a merge. All must be read to their end first.
    pub parents: Vec<ShardId>,
    /// The hash keys that it takes.
    pub hash_range: HashRange,
}

/// Which shards a listing shows: `ShardFilter`. Without one it shows all that are retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ShardFilter {
    /// Those with an id above this one (`AFTER_SHARD_ID`).
    AfterShardId(ShardId),
    /// Those that were open at the trim horizon (`AT_TRIM_HORIZON`).
    AtTrimHorizon,
    /// All that are retained (`FROM_TRIM_HORIZON`).
    FromTrimHorizon,
    /// Those that are open (`AT_LATEST`).
    AtLatest,
    /// Those that were open at a point in time (`AT_TIMESTAMP`).
    AtTimestamp(Timestamp),
    /// Those that were open at a point in time or opened since (`FROM_TIMESTAMP`).
    FromTimestamp(Timestamp),
}

#[cfg(feature = "serde")]
mod serde_impl {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::ShardId;

    impl Serialize for ShardId {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(self)
        }
    }

    impl<'de> Deserialize<'de> for ShardId {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            Cow::<str>::deserialize(deserializer)?
                .parse()
                .map_err(D::Error::custom)
        }
    }
}
