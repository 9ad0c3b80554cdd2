//! The content type of what an HTTP endpoint gets.

use std::fmt;

use super::RetryError;

/// Media types that SNS sends with an envelope or as a topic's default. Source: SNS developer guide, "Creating an
/// HTTP/S delivery policy".
const WITH_ENVELOPE: &[&str] = &["application/json", "text/plain"];
/// Media types that SNS sends with raw delivery. Source: as [`WITH_ENVELOPE`].
const RAW: &[&str] = &[
    "text/css",
    "text/csv",
    "text/html",
    "text/plain",
    "text/xml",
    "application/atom+xml",
    "application/json",
    "application/octet-stream",
    "application/soap+xml",
    "application/x-www-form-urlencoded",
    "application/xhtml+xml",
    "application/xml",
];
/// The longest text, in bytes.
const MAX_BYTES: usize = 256;

/// A media type with its parameters, such as `text/plain; charset=UTF-8` (the default), checked when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContentType(Box<str>);

impl ContentType {
    /// Checks a text: `type/subtype` of RFC 9110's tokens, then parameters, in visible ASCII and spaces.
    ///
    /// # Errors
    ///
    /// When it is longer than 256 bytes or no media type.
    pub fn new(text: impl Into<String>) -> Result<Self, RetryError> {
        let text = text.into();
        let reason = if text.len() > MAX_BYTES {
            "more than 256 bytes"
        } else if text.bytes().any(|byte| !(b' '..=b'~').contains(&byte)) {
            "characters other than visible ASCII and spaces"
        } else if !is_media_type(&text) {
            "not a media type"
        } else {
            return Ok(Self(text.into()));
        };
        Err(RetryError::ContentType {
            value: text,
            reason,
        })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether SNS sends this type to an endpoint with raw delivery.
    #[must_use]
    pub fn is_sent_raw_by_aws(&self) -> bool {
        self.is_one_of(RAW)
    }

    /// Whether SNS sends this type to an endpoint with the envelope.
    #[must_use]
    pub fn is_sent_enveloped_by_aws(&self) -> bool {
        self.is_one_of(WITH_ENVELOPE)
    }

    fn is_one_of(&self, types: &[&str]) -> bool {
        let media = self.0.split(';').next().unwrap_or_default().trim();
        types
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(media))
    }
}

impl Default for ContentType {
    fn default() -> Self {
        Self("text/plain; charset=UTF-8".into())
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for ContentType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for ContentType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(text).map_err(serde::de::Error::custom)
    }
}

fn is_media_type(text: &str) -> bool {
    let mut parts = text.split(';');
    let media = parts.next().unwrap_or_default();
    let Some((kind, subtype)) = media.trim_end().split_once('/') else {
        return false;
    };
    is_token(kind)
        && is_token(subtype)
        && parts.all(|parameter| {
            parameter
                .trim()
                .split_once('=')
                .is_some_and(|(name, value)| {
                    let quoted = value
                        .strip_prefix('"')
                        .and_then(|rest| rest.strip_suffix('"'))
                        .is_some_and(|inner| !inner.contains(['"', '\\']));
                    is_token(name) && (quoted || is_token(value))
                })
        })
}

/// Whether the text is a token of RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
