//! [`Id`]: 128 bits that name one thing, written as a UUID.

use std::fmt;
use std::str::FromStr;

use crate::random::Random;

/// The six bits that RFC 9562 fixes: the version (4 bits) and the variant (2 bits).
const FIXED: u128 = 0x0000_0000_0000_f000_c000_0000_0000_0000;
/// The variant of RFC 9562 in its place.
const VARIANT: u128 = 0x8000_0000_0000_0000;
/// Version 4, random, in its place.
const RANDOM: u128 = 4 << 76;
/// Version 8, custom, in its place.
const CUSTOM: u128 = 8 << 76;

/// A 128-bit identifier, written in the text form of a UUID (RFC 9562).
///
/// Made either from two numbers, so that it costs nothing until somebody asks for it and a replay makes the
/// same ids, or from a [`Random`] source.
///
/// # Examples
///
/// ```
/// use sim_core::id::Id;
///
/// let id = Id::from_parts(7, 42);
/// assert_eq!(id.to_string(), "00000000-0000-8007-8000-00000000002a");
/// assert_eq!(id.to_string().parse(), Ok(id));
/// assert!(id < Id::from_parts(7, 43));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u128);

impl Id {
    /// Makes an id from who numbers and the number: a UUID of version 8.
    ///
    /// A UUID has 122 free bits: the low 60 bits of `namespace` and the low 62 of `number` stand in it. Below
    /// these widths different parts give different ids, and ids of one namespace sort by number.
    #[must_use]
    pub const fn from_parts(namespace: u64, number: u64) -> Self {
        let namespace = namespace as u128;
        let high = (namespace >> 12) & 0xffff_ffff_ffff;
        let low = namespace & 0xfff;
        let number = (number as u128) & ((1 << 62) - 1);
        Self((high << 80) | CUSTOM | (low << 64) | VARIANT | number)
    }

    /// Makes a random id: a UUID of version 4, from 122 bits of `random`.
    #[must_use]
    pub fn random(random: &mut Random) -> Self {
        let bits = (u128::from(random.next_u64()) << 64) | u128::from(random.next_u64());
        Self((bits & !FIXED) | RANDOM | VARIANT)
    }

    /// Takes 128 bits as they are, whatever version they claim.
    #[must_use]
    pub const fn from_u128(bits: u128) -> Self {
        Self(bits)
    }

    /// The 128 bits, most significant first in the text form.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [b'-'; TEXT];
        let mut at = 0;
        for nibble in 0..32_u32 {
            if GAPS.contains(&at) {
                at += 1;
            }
            let value = (self.0 >> (124 - 4 * nibble)) & 0xf;
            text[at] = b"0123456789abcdef"[value as usize];
            at += 1;
        }
        // Only ASCII was written.
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Characters in the text form.
const TEXT: usize = 36;
/// Where the text form has its hyphens.
const GAPS: [usize; 4] = [8, 13, 18, 23];

impl FromStr for Id {
    type Err = ParseIdError;

    /// Reads the hyphenated form, in either case.
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bytes = text.as_bytes();
        if bytes.len() != TEXT {
            return Err(ParseIdError::Length { found: bytes.len() });
        }
        let mut id = 0_u128;
        for (at, &byte) in bytes.iter().enumerate() {
            if GAPS.contains(&at) {
                if byte != b'-' {
                    return Err(ParseIdError::Character { at });
                }
                continue;
            }
            let digit = char::from(byte)
                .to_digit(16)
                .ok_or(ParseIdError::Character { at })?;
            id = (id << 4) | u128::from(digit);
        }
        Ok(Self(id))
    }
}

/// A text that is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseIdError {
    /// It has not the 36 characters of the hyphenated form.
    #[error("an id has 36 characters, this text has {found} bytes")]
    Length {
        /// The bytes found.
        found: usize,
    },
    /// A character that does not belong where it stands.
    #[error("unexpected character at byte {at} of an id")]
    Character {
        /// The offset in bytes.
        at: usize,
    },
}

#[cfg(feature = "serde")]
mod serde_impl {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Id;

    impl Serialize for Id {
        /// Text in formats that people read, a 128-bit number in the others.
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if serializer.is_human_readable() {
                serializer.collect_str(self)
            } else {
                serializer.serialize_u128(self.0)
            }
        }
    }

    impl<'de> Deserialize<'de> for Id {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            if deserializer.is_human_readable() {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            } else {
                u128::deserialize(deserializer).map(Self)
            }
        }
    }
}
