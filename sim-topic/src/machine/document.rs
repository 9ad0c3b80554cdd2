//! Policies as JSON documents: small, checked member by member.

use serde_json::{Map, Value};
use sim_core::time::Timestamp;

/// The longest document, in bytes; those of SNS are a few hundred.
const MAX_BYTES: usize = 30 * 1024;

/// Why a policy's document was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// It is longer than it may be.
    #[error("the policy has {bytes} bytes, more than {limit}")]
    Size {
        /// What it has.
        bytes: usize,
        /// What it may have.
        limit: usize,
    },
    /// It is not JSON.
    #[error("the policy is not JSON: {reason}")]
    Json {
        /// What the parser says.
        reason: String,
    },
    /// A member is not what it should be.
    #[error("{path} is {found}, not {expected}")]
    Member {
        /// Where it stands, from the outermost object inwards.
        path: String,
        /// What there is.
        found: String,
        /// What there should be.
        expected: &'static str,
    },
    /// It has a member that no such policy has.
    #[error("{path} is no member of such a policy")]
    Unknown {
        /// Where it stands, from the outermost object inwards.
        path: String,
    },
}

/// A JSON object that is taken apart: each member once, and none may be left.
pub(super) struct Object {
    path: String,
    members: Map<String, Value>,
}

impl Object {
    pub(super) fn parse(text: &str) -> Result<Self, DocumentError> {
        if text.len() > MAX_BYTES {
            return Err(DocumentError::Size {
                bytes: text.len(),
                limit: MAX_BYTES,
            });
        }
        let value = serde_json::from_str(text).map_err(|error| DocumentError::Json {
            reason: error.to_string(),
        })?;
        match value {
            Value::Object(members) => Ok(Self {
                path: String::new(),
                members,
            }),
            other => Err(DocumentError::Member {
                path: "the whole".to_owned(),
                found: shown(&other),
                expected: "an object",
            }),
        }
    }

    pub(super) fn path(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// Takes a member out; null is absence.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name).filter(|value| !value.is_null())
    }

    fn wrong<T>(
        &self,
        name: &str,
        found: &Value,
        expected: &'static str,
    ) -> Result<T, DocumentError> {
        Err(DocumentError::Member {
            path: self.path(name),
            found: shown(found),
            expected,
        })
    }

    pub(super) fn object(&mut self, name: &str) -> Result<Option<Self>, DocumentError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(Self {
                path: self.path(name),
                members,
            })),
            Some(other) => self.wrong(name, &other, "an object"),
        }
    }

    pub(super) fn number(&mut self, name: &str) -> Result<Option<u32>, DocumentError> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => match value.as_u64().and_then(|number| u32::try_from(number).ok()) {
                Some(number) => Ok(Some(number)),
                None => self.wrong(name, &value, "a whole number from 0 to 4294967295"),
            },
        }
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, DocumentError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => self.wrong(name, &other, "a string"),
        }
    }

    /// A number of days, written as a number or, as SNS shows it, in a string.
    pub(super) fn days(&mut self, name: &str) -> Result<u32, DocumentError> {
        let value = self.take(name).unwrap_or(Value::Null);
        let days = match &value {
            Value::String(text) => text.parse().ok(),
            other => other.as_u64().and_then(|days| u32::try_from(days).ok()),
        };
        days.map_or_else(|| self.wrong(name, &value, "a number of days"), Ok)
    }

    pub(super) fn time(&mut self, name: &str) -> Result<Option<Timestamp>, DocumentError> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        match text.parse() {
            Ok(time) => Ok(Some(time)),
            Err(_) => self.wrong(name, &Value::String(text), "a timestamp of RFC 3339"),
        }
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, DocumentError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => self.wrong(name, &other, "true or false"),
        }
    }

    /// Takes a member that may only have one value.
    pub(super) fn refuse_unless(
        &mut self,
        name: &str,
        only: &Value,
        expected: &'static str,
    ) -> Result<(), DocumentError> {
        match self.take(name) {
            Some(value) if value != *only => self.wrong(name, &value, expected),
            _ => Ok(()),
        }
    }

    pub(super) fn end(self) -> Result<(), DocumentError> {
        match self.members.keys().next() {
            None => Ok(()),
            Some(name) => Err(DocumentError::Unknown {
                path: self.path(name),
            }),
        }
    }
}

/// A value for an error's text, cut to what can be read.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        None => text,
        Some((at, _)) => format!("{}...", &text[..at]),
    }
}
