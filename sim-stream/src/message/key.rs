//! Partition keys and the 128-bit space into which they are hashed.

use std::fmt;
use std::str::FromStr;

use compact_str::CompactString;
use md5::{Digest, Md5};

use crate::error::{KeyError, ParseHashKeyError};

/// A partition key: 1 to 256 Unicode characters. Records of one key keep their order.
///
/// Keys of up to 24 bytes stand inline; cloning those allocates nothing.
///
/// ```
/// use sim_stream::{KeyError, PartitionKey};
///
/// let key = PartitionKey::new("customer-12")?;
/// assert_eq!(key.as_str(), "customer-12");
/// assert_eq!(PartitionKey::new(""), Err(KeyError::Empty));
/// # Ok::<(), KeyError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey(CompactString);

impl PartitionKey {
    /// The longest key, in Unicode characters: Kinesis's 256.
    pub const MAX_CHARS: usize = 256;

    /// Checks the length and makes a key.
    ///
    /// # Errors
    /// The key is empty or longer than [`MAX_CHARS`](Self::MAX_CHARS).
    pub fn new(key: impl AsRef<str>) -> Result<Self, KeyError> {
        let key = key.as_ref();
        if key.is_empty() {
            return Err(KeyError::Empty);
        }
        // No text has more characters than bytes.
        if key.len() > Self::MAX_CHARS {
            let chars = key.chars().count();
            if chars > Self::MAX_CHARS {
                return Err(KeyError::TooLong {
                    chars,
                    limit: Self::MAX_CHARS,
                });
            }
        }
        Ok(Self(CompactString::new(key)))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where the key stands in the hash space.
    #[must_use]
    pub fn hash_key(&self) -> HashKey {
        HashKey::of(&self.0)
    }
}

impl AsRef<str> for PartitionKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl FromStr for PartitionKey {
    type Err = KeyError;

    fn from_str(key: &str) -> Result<Self, KeyError> {
        Self::new(key)
    }
}

impl TryFrom<&str> for PartitionKey {
    type Error = KeyError;

    fn try_from(key: &str) -> Result<Self, KeyError> {
        Self::new(key)
    }
}

/// A point of the hash space: 0 to 2^128 - 1. Shown and parsed as decimal text, as Kinesis does.
///
/// ```
/// use sim_stream::HashKey;
///
/// // MD5, read as one big-endian number.
/// assert_eq!(HashKey::of("a").to_string(), "16955237001963240173058271559858726497");
/// assert_eq!("0".parse(), Ok(HashKey::MIN));
/// # Ok::<(), sim_stream::ParseHashKeyError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashKey(u128);

impl HashKey {
    /// The start of the space: 0.
    pub const MIN: Self = Self(0);
    /// The end of the space: 2^128 - 1.
    pub const MAX: Self = Self(u128::MAX);

    /// The hash of a partition key: its MD5, read big-endian. The length of the key is not checked.
    #[must_use]
    pub fn of(key: &str) -> Self {
        let digest: [u8; 16] = Md5::digest(key.as_bytes()).into();
        Self(u128::from_be_bytes(digest))
    }

    /// A hash of a partition key that takes a few nanoseconds where MD5 takes a hundred, and spreads as evenly. Kinesis
    /// would place the key elsewhere, and whoever picks the keys can make them collide.
    ///
    /// # Algorithm
    /// Eight bytes at a time are folded into 64 bits by a full multiplication whose halves are combined, as wyhash
    /// (Wang Yi) and its descendants do. The numbers may differ between versions of this crate.
    #[must_use]
    pub fn fast(key: &str) -> Self {
        const fn fold(a: u64, b: u64) -> u64 {
            let product = a as u128 * b as u128;
            product as u64 ^ (product >> 64) as u64
        }
        let bytes = key.as_bytes();
        let mut state = 0x9e37_79b9_7f4a_7c15 ^ key.len() as u64;
        for word in bytes.as_chunks::<8>().0 {
            state = fold(state ^ u64::from_le_bytes(*word), 0xa076_1d64_78bd_642f);
        }
        // The last eight bytes, some of them for the second time; or the few that there are.
        let last = bytes.last_chunk::<8>().map_or_else(
            || {
                bytes
                    .iter()
                    .fold(0, |word, byte| word << 8 | u64::from(*byte))
            },
            |last| u64::from_le_bytes(*last),
        );
        state = fold(state ^ last, 0xe703_7ed1_a0b4_28db);
        let high = fold(state ^ 0x8ebc_6af0_9c88_c6e3, 0x5899_65cc_7537_4cc3);
        Self((high as u128) << 64 | state as u128)
    }

    /// Makes a hash key from its number.
    #[must_use]
    pub const fn from_u128(number: u128) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// The next point, or `None` at the end of the space.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The point before, or `None` at the start of the space.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Takes Kinesis's pattern, `0|([1-9]\d{0,38})`, up to 2^128 - 1.
impl FromStr for HashKey {
    type Err = ParseHashKeyError;

    fn from_str(text: &str) -> Result<Self, ParseHashKeyError> {
        if !is_decimal(text) {
            return Err(ParseHashKeyError::Malformed);
        }
        text.parse()
            .map(Self)
            .map_err(|_| ParseHashKeyError::TooLarge { limit: Self::MAX })
    }
}

/// Whether the text is `0` or digits that do not begin with 0.
pub(super) fn is_decimal(text: &str) -> bool {
    let digits = text.as_bytes();
    digits.iter().all(u8::is_ascii_digit)
        && (text == "0" || digits.first().is_some_and(|&d| d != b'0'))
}

/// A part of the hash space, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HashRange {
    /// The first hash key (`StartingHashKey`).
    pub start: HashKey,
    /// The last hash key (`EndingHashKey`).
    pub end: HashKey,
}

impl HashRange {
    /// The whole space.
    pub const FULL: Self = Self {
        start: HashKey::MIN,
        end: HashKey::MAX,
    };

    /// Whether the point lies in the range.
    #[must_use]
    pub fn contains(&self, key: HashKey) -> bool {
        self.start <= key && key <= self.end
    }

    /// Whether the two ranges share a point.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// Whether one of the ranges begins where the other ends.
    #[must_use]
    pub fn is_adjacent_to(&self, other: &Self) -> bool {
        self.end.next() == Some(other.start) || other.end.next() == Some(self.start)
    }

    /// The point at which the range falls into two halves, the upper one the larger where they differ; `None` for a
    /// range of one point.
    #[must_use]
    pub fn middle(&self) -> Option<HashKey> {
        let distance = self.end.0.checked_sub(self.start.0)?;
        (distance > 0).then(|| HashKey(self.start.0 + distance / 2 + distance % 2))
    }
}

/// Starting to ending hash key, joined by `..=`.
impl fmt::Display for HashRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.start, self.end)
    }
}

#[cfg(feature = "serde")]
mod serde_impl {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::{HashKey, PartitionKey};

    impl Serialize for PartitionKey {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str(self.as_str())
        }
    }

    impl<'de> Deserialize<'de> for PartitionKey {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            Self::new(Cow::<str>::deserialize(deserializer)?).map_err(D::Error::custom)
        }
    }

    impl Serialize for HashKey {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(self)
        }
    }

    impl<'de> Deserialize<'de> for HashKey {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            Cow::<str>::deserialize(deserializer)?
                .parse()
                .map_err(D::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_hash_spreads_keys_evenly() {
        const KEYS: u32 = 64_000;
        for shape in [
            |n: u32| n.to_string(),
            |n| format!("customer-{n:09}"),
            |n| format!("{n:x}-0123456789abcdef"),
        ] {
            let mut counts = [0_u32; 64];
            for n in 0..KEYS {
                let top = HashKey::fast(&shape(n)).as_u128() >> 122;
                counts[top as usize] += 1;
            }
            // A thousand each; six standard deviations are 190.
            assert!(
                counts.iter().all(|count| (810..1190).contains(count)),
                "{counts:?}"
            );
        }
    }

    #[test]
    fn the_fast_hash_sees_length_order_and_every_byte() {
        let keys = [
            "",
            "\0",
            "\0\0",
            "a",
            "a\0",
            "abcdefgh",
            "abcdefgh\0",
            "bacdefgh",
            "abcdefghi",
        ];
        for (index, a) in keys.iter().enumerate() {
            for b in &keys[index + 1..] {
                assert_ne!(HashKey::fast(a), HashKey::fast(b), "{a:?} {b:?}");
            }
        }
    }
}
