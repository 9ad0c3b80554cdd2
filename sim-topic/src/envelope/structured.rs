//! Messages with a text for each protocol: SNS's `MessageStructure=json`.

use std::collections::BTreeMap;

use serde_json::Value;

/// A message that says something else to each protocol.
///
/// ```
/// use sim_topic::Structured;
///
/// let message = Structured::parse(r#"{"default":"order 7 is late","sms":"7 late"}"#)?;
/// assert_eq!(message.for_protocol("sms"), "7 late");
/// assert_eq!(message.for_protocol("https"), "order 7 is late");
/// # Ok::<(), sim_topic::StructuredError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Structured {
    default: String,
    /// By protocol; those without a text of their own are not there.
    texts: BTreeMap<String, String>,
}

impl Structured {
    /// Reads `{"default": .., "http": .., "sms": ..}`: an object of strings. As in SNS, members that are no strings
    /// are passed over, and no name may stand there twice.
    ///
    /// # Errors
    ///
    /// When it is no JSON object, has a name twice, or has no `default`.
    pub fn parse(text: &str) -> Result<Self, StructuredError> {
        let document = serde_json::from_str(text).map_err(|error| StructuredError::Json {
            reason: error.to_string(),
        })?;
        let Value::Object(members) = document else {
            return Err(StructuredError::Json {
                reason: "not an object".to_owned(),
            });
        };
        if members_of_outermost(text) != members.len() {
            return Err(StructuredError::Twice);
        }
        let mut texts: BTreeMap<_, _> = members
            .into_iter()
            .filter_map(|(name, value)| match value {
                Value::String(text) => Some((name, text)),
                _ => None,
            })
            .collect();
        let default = texts.remove("default").ok_or(StructuredError::NoDefault)?;
        Ok(Self { default, texts })
    }

    /// The text for a protocol (`http`, `https`, `sqs`, `email`, ...), or the default where it has none of its own.
    #[must_use]
    pub fn for_protocol(&self, protocol: &str) -> &str {
        self.texts.get(protocol).unwrap_or(&self.default)
    }
}

/// Why a text is no structured message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StructuredError {
    /// It is not a JSON object.
    #[error("the structured message is not a JSON object: {reason}")]
    Json {
        /// What the parser says.
        reason: String,
    },
    /// It has a member twice.
    #[error("the structured message has a member twice")]
    Twice,
    /// It has no text for protocols without one of their own.
    #[error("the structured message has no string `default`")]
    NoDefault,
}

/// How many members the outermost object has, doubles included; of a text that is JSON.
///
/// Each has one colon outside of strings and of inner values.
fn members_of_outermost(text: &str) -> usize {
    let (mut depth, mut members, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b':' if depth == 1 => members += 1,
            _ => {}
        }
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_gets_its_own_text_or_the_default() {
        let text = r#"{"default":"d","http":"h","sms":"","lambda":{"x":1},"n":7}"#;
        let message = Structured::parse(text).unwrap();
        assert_eq!(message.for_protocol("http"), "h");
        assert_eq!(message.for_protocol("sms"), "");
        // What is no string is passed over.
        assert_eq!(message.for_protocol("lambda"), "d");
        assert_eq!(message.for_protocol("default"), "d");
    }

    #[test]
    fn without_a_default_text_it_is_refused() {
        for text in ["{}", r#"{"http":"h"}"#, r#"{"default":7}"#] {
            assert_eq!(Structured::parse(text), Err(StructuredError::NoDefault));
        }
        for text in ["", "[]", "\"default\"", "{\"default\":"] {
            let error = Structured::parse(text).unwrap_err();
            assert!(matches!(error, StructuredError::Json { .. }), "{text}");
        }
    }

    #[test]
    fn a_name_that_stands_there_twice_is_refused_and_one_that_only_seems_to_is_not() {
        for text in [
            r#"{"default":"a","default":"b"}"#,
            r#"{"default":"a","x":1,"x":2}"#,
            "{\"default\":\"a\",\"\\u0064efault\":\"b\"}",
        ] {
            assert_eq!(Structured::parse(text), Err(StructuredError::Twice));
        }
        for text in [
            r#"{"default":"{\"a\":1,\"a\":2}"}"#,
            r#"{"default":"a:b:\\","x":{"y":1,"z":[{"y":2}]}}"#,
            r#" { "de:fault" : 1 , "default" : "\":" } "#,
        ] {
            assert!(Structured::parse(text).is_ok(), "{text}");
        }
    }
}
