//! Sequence numbers: shard, stream and position in one number.

use std::fmt;
use std::str::FromStr;

use md5::{Digest, Md5};
use sim_core::time::Timestamp;

use super::key::is_decimal;
use super::shard::ShardId;
use crate::error::{ParseSequenceNumberError, WrongSequenceNumber};

/// The number of a record: strictly increasing within a shard, and from a parent to its children, so also per key.
///
/// # Layout
///
/// ```text
/// 127        96 95         64 63                    0
/// ┌────────────┬─────────────┬──────────────────────┐
/// │ shard + 1  │ salt        │ position in the log  │
/// └────────────┴─────────────┴──────────────────────┘
/// ```
///
/// Shards are numbered in the order of their creation, so a child's numbers are above its parent's. The [`Salt`] tells
/// numbers of other streams, and of an earlier stream of the same name. Callers should take a number as opaque: all
/// that counts is its order and its text, decimal as in Kinesis (29 to 39 digits here, 56 there).
///
/// ```
/// use sim_stream::{Salt, SequenceNumber, ShardId};
///
/// let number = SequenceNumber::new(ShardId::new(7), Salt::new(0), 12);
/// assert_eq!(number.to_string().parse(), Ok(number));
/// assert_eq!((number.shard(), number.position()), (ShardId::new(7), 12));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber(u128);

impl SequenceNumber {
    /// The most digits that Kinesis's pattern, `0|([1-9]\d{0,128})`, allows.
    pub const MAX_DIGITS: usize = 129;

    /// The number of the record at `position` of a shard's log.
    #[must_use]
    pub const fn new(shard: ShardId, salt: Salt, position: u64) -> Self {
        // At most u32::MAX: a shard's number is below that.
        let shard = shard.number() as u128 + 1;
        Self(shard << 96 | (salt.0 as u128) << 64 | position as u128)
    }

    /// The shard.
    #[must_use]
    pub const fn shard(self) -> ShardId {
        ShardId::new((self.0 >> 96) as u32 - 1)
    }

    /// The salt of the stream.
    #[must_use]
    pub const fn salt(self) -> Salt {
        Salt((self.0 >> 64) as u32)
    }

    /// The position in the shard's log.
    #[must_use]
    pub const fn position(self) -> u64 {
        self.0 as u64
    }

    /// The position, if the number is of this shard of this stream.
    ///
    /// # Errors
    /// The number is of another stream or of another shard.
    pub fn position_in(self, shard: ShardId, salt: Salt) -> Result<u64, WrongSequenceNumber> {
        if self.salt() != salt {
            Err(WrongSequenceNumber::OtherStream {
                sequence_number: self,
            })
        } else if self.shard() != shard {
            Err(WrongSequenceNumber::OtherShard {
                sequence_number: self,
                shard,
            })
        } else {
            Ok(self.position())
        }
    }

    /// The bare number.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for SequenceNumber {
    type Err = ParseSequenceNumberError;

    fn from_str(text: &str) -> Result<Self, ParseSequenceNumberError> {
        if !is_decimal(text) {
            return Err(ParseSequenceNumberError::Malformed);
        }
        if text.len() > Self::MAX_DIGITS {
            return Err(ParseSequenceNumberError::TooLong {
                digits: text.len(),
                limit: Self::MAX_DIGITS,
            });
        }
        match text.parse::<u128>() {
            Ok(number) if number >> 96 > 0 => Ok(Self(number)),
            _ => Err(ParseSequenceNumberError::Foreign { digits: text.len() }),
        }
    }
}

/// What tells the sequence numbers of one stream from another's: 32 bits of the stream's name and creation.
///
/// Two streams have the same salt by a chance of 1 in 2^32; then a number of one is taken for a position in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Salt(u32);

impl Salt {
    /// A chosen salt.
    #[must_use]
    pub const fn new(bits: u32) -> Self {
        Self(bits)
    }

    /// The salt of the stream `name` that was created at `created`.
    #[must_use]
    pub fn of(name: &str, created: Timestamp) -> Self {
        let digest: [u8; 16] = Md5::new()
            .chain_update(created.as_unix_nanos().to_be_bytes())
            .chain_update(name.as_bytes())
            .finalize()
            .into();
        Self(u32::from_be_bytes([
            digest[0], digest[1], digest[2], digest[3],
        ]))
    }

    /// The bits.
    #[must_use]
    pub const fn as_u32(self) -> u32 {
        self.0
    }
}

#[cfg(feature = "serde")]
mod serde_impl {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::SequenceNumber;

    impl Serialize for SequenceNumber {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(self)
        }
    }

    impl<'de> Deserialize<'de> for SequenceNumber {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            Cow::<str>::deserialize(deserializer)?
                .parse()
                .map_err(D::Error::custom)
        }
    }
}
