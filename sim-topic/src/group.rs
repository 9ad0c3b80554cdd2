//! Names that publishers give: groups and de-duplication ids; and the sequence numbers that the topic gives back.
//!
//! Each id is text of 1 to 128 characters out of the visible ASCII characters (letters, digits and
//! punctuation), as the field's services allow. Up to 24 bytes stand inline: making, cloning and
//! dropping such an id allocates nothing and touches no shared count.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use compact_str::CompactString;

/// The most characters that an id has.
pub const MAX_ID_CHARS: usize = 128;

/// Why a text is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// The text is empty.
    #[error("{what} is empty")]
    Empty {
        /// Which kind of id was asked for.
        what: &'static str,
    },
    /// The text has more than [`MAX_ID_CHARS`] characters.
    #[error("{what} has {chars} characters, more than {MAX_ID_CHARS}")]
    TooLong {
        /// Which kind of id was asked for.
        what: &'static str,
        /// How many bytes the text has.
        chars: usize,
    },
    /// The text has a character that is neither a letter, a digit nor punctuation of ASCII.
    #[error("{what} has the character {found:?} at byte {at}: only visible ASCII is allowed")]
    Character {
        /// Which kind of id was asked for.
        what: &'static str,
        /// The first such character.
        found: char,
        /// Its position in bytes.
        at: usize,
    },
}

fn check(what: &'static str, text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { what });
    }
    if let Some((at, found)) = text.char_indices().find(|(_, c)| !c.is_ascii_graphic()) {
        return Err(IdError::Character { what, found, at });
    }
    if text.len() > MAX_ID_CHARS {
        return Err(IdError::TooLong {
            what,
            chars: text.len(),
        });
    }
    Ok(())
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(CompactString);

        impl $name {
            /// Makes an id from text.
            ///
            /// # Errors
            /// [`IdError`] when the text is empty, too long or has a character outside visible
            /// ASCII.
            pub fn new(text: impl AsRef<str>) -> Result<Self, IdError> {
                let text = text.as_ref();
                check($what, text)?;
                Ok(Self(CompactString::new(text)))
            }

            /// The id's text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.as_str()).finish()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = IdError;

            fn try_from(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                check($what, &text)?;
                Ok(Self(CompactString::from(text)))
            }
        }

        #[cfg(feature = "serde")]
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        #[cfg(feature = "serde")]
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::new(text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id! {
    /// A message group: what a FIFO topic keeps in order. A standard topic only hands it on.
    GroupId, "a group id"
}

text_id! {
    /// What makes two publishes the same publish within the de-duplication window.
    DeduplicationId, "a de-duplication id"
}

/// The place of a message in its topic's order; later messages have greater numbers.
///
/// Numbers of one group are increasing and not consecutive. Displayed with 20 digits, so that the
/// text sorts as the number does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SequenceNumber(u64);

impl SequenceNumber {
    /// Makes a sequence number from its value.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number's value.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_visible_ascii_character_stands_in_an_id() {
        let all: String = (33u8..127).map(char::from).collect();
        assert_eq!(GroupId::new(&all).unwrap().as_str(), all);
    }

    #[test]
    fn an_id_has_1_to_128_characters() {
        assert_eq!(GroupId::new(""), Err(IdError::Empty { what: "a group id" }));
        assert!(DeduplicationId::new("x".repeat(128)).is_ok());
        assert_eq!(
            DeduplicationId::new("x".repeat(129)),
            Err(IdError::TooLong {
                what: "a de-duplication id",
                chars: 129
            })
        );
    }

    #[test]
    fn a_refused_character_is_named_with_its_place() {
        let error = DeduplicationId::new("a b").unwrap_err();
        assert_eq!(
            error.to_string(),
            "a de-duplication id has the character ' ' at byte 1: only visible ASCII is allowed"
        );
        assert!(GroupId::new("é").is_err());
    }

    #[test]
    fn a_sequence_number_is_shown_with_20_digits() {
        assert_eq!(SequenceNumber::new(42).to_string(), "00000000000000000042");
        assert_eq!(SequenceNumber::new(u64::MAX).to_string().len(), 20);
    }

    #[test]
    fn an_id_is_no_larger_than_three_words() {
        assert_eq!(size_of::<GroupId>(), 24);
        assert_eq!(size_of::<Option<GroupId>>(), 24);
    }
}
