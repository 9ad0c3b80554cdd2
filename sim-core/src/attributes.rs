//! [`Attributes`]: named, typed values that travel beside a payload.
//!
//! The rules for names, types and numbers are those that SQS and SNS document for message attributes. How many
//! attributes there may be is the caller's affair, and so is their total [`size`](Attributes::size).
//!
//! # Examples
//!
//! ```
//! use sim_core::attributes::{Attributes, Value};
//!
//! let mut attributes = Attributes::new();
//! attributes.insert("carrier", "UA")?;
//! attributes.insert("delay", Value::number("-3")?.with_label("int")?)?;
//!
//! assert_eq!(attributes.get("carrier").and_then(Value::as_text), Some("UA"));
//! assert_eq!(attributes.get("delay").map(|delay| delay.data_type()), Some("Number.int".into()));
//! let names: Vec<_> = attributes.iter().map(|attribute| attribute.name()).collect();
//! assert_eq!(names, ["carrier", "delay"]);
//! # Ok::<(), sim_core::attributes::AttributeError>(())
//! ```

use std::borrow::Cow;
use std::fmt;

use crate::payload::Payload;

/// The longest name, in characters. Source: SQS developer guide, "Message attribute components".
pub const MAX_NAME: usize = 256;
/// The longest data type with its label, in characters. Source: as [`MAX_NAME`].
pub const MAX_DATA_TYPE: usize = 256;
/// The most significant digits of a number. Source: SQS developer guide, "Message attribute data types".
pub const MAX_DIGITS: usize = 38;
/// The powers of ten between which the leading digit of a number stands. Source: as [`MAX_DIGITS`].
pub const EXPONENTS: std::ops::RangeInclusive<i64> = -128..=126;

/// A small map from names to values, in order of name; one word when empty.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Invariant: sorted by name, no name twice; `None` when empty.
    #[expect(
        clippy::box_collection,
        reason = "most messages have no attributes: one word, not three"
    )]
    entries: Option<Box<Vec<Attribute>>>,
}

/// A name and its value, both checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    name: Box<str>,
    value: Value,
}

/// A value of an attribute: text, a number or bytes, with an optional label of the application's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Value {
    data: Data,
    label: Option<Box<str>>,
}

/// What a [`Value`] holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Data {
    /// Text.
    String(Box<str>),
    /// A decimal number, kept as it was written: no precision is lost on the way.
    Number(Box<str>),
    /// Bytes.
    Binary(Payload),
}

impl Attributes {
    /// Makes an empty map; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: None }
    }

    /// Inserts a value and returns the one that it replaces.
    ///
    /// # Errors
    ///
    /// When the name breaks a rule (see [`AttributeError`]) or the value is empty; the map is as before.
    pub fn insert(
        &mut self,
        name: impl Into<String>,
        value: impl Into<Value>,
    ) -> Result<Option<Value>, AttributeError> {
        Ok(self.put(Attribute::new(name, value)?))
    }

    /// Puts an attribute in and returns the value that it replaces.
    pub fn put(&mut self, attribute: Attribute) -> Option<Value> {
        let entries = self.entries.get_or_insert_default();
        match entries.binary_search_by(|entry| entry.name.cmp(&attribute.name)) {
            Ok(at) => Some(std::mem::replace(&mut entries[at].value, attribute.value)),
            Err(at) => {
                entries.insert(at, attribute);
                None
            }
        }
    }

    /// Removes a value.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.find(name)?;
        let entries = self.entries.as_mut()?;
        let removed = entries.remove(at);
        if entries.is_empty() {
            self.entries = None;
        }
        Some(removed.value)
    }

    /// Finds a value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        Some(&self.as_slice()[self.find(name)?].value)
    }

    /// The attributes in order of name, compared byte by byte.
    pub fn iter(&self) -> std::slice::Iter<'_, Attribute> {
        self.as_slice().iter()
    }

    /// The attributes in order of name.
    #[must_use]
    pub fn as_slice(&self) -> &[Attribute] {
        self.entries.as_ref().map_or(&[], |entries| entries)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// What they count towards a message's size: names, data types and values, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.iter().map(Attribute::size).sum()
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.as_slice()
            .binary_search_by(|entry| (*entry.name).cmp(name))
            .ok()
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|entry| (&entry.name, &entry.value)))
            .finish()
    }
}

impl<'a> IntoIterator for &'a Attributes {
    type Item = &'a Attribute;
    type IntoIter = std::slice::Iter<'a, Attribute>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Attributes {
    type Item = Attribute;
    type IntoIter = std::vec::IntoIter<Attribute>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries
            .map(|entries| *entries)
            .unwrap_or_default()
            .into_iter()
    }
}

impl FromIterator<Attribute> for Attributes {
    /// Collects; of two with one name the later stays.
    fn from_iter<I: IntoIterator<Item = Attribute>>(attributes: I) -> Self {
        let mut all = Self::new();
        all.extend(attributes);
        all
    }
}

impl Extend<Attribute> for Attributes {
    fn extend<I: IntoIterator<Item = Attribute>>(&mut self, attributes: I) {
        for attribute in attributes {
            self.put(attribute);
        }
    }
}

impl Attribute {
    /// Checks a name and a value.
    ///
    /// # Errors
    ///
    /// When the name breaks a rule or the value is empty.
    pub fn new(name: impl Into<String>, value: impl Into<Value>) -> Result<Self, AttributeError> {
        let name = name.into();
        let value = value.into();
        if let Err(rule) = check_name(&name) {
            return Err(AttributeError::Name { name, rule });
        }
        if value.as_bytes().is_empty() {
            return Err(AttributeError::EmptyValue { name });
        }
        Ok(Self {
            name: name.into(),
            value,
        })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value.
    #[must_use]
    pub const fn value(&self) -> &Value {
        &self.value
    }

    /// Gives out both.
    #[must_use]
    pub fn into_parts(self) -> (String, Value) {
        (self.name.into(), self.value)
    }

    /// Name, data type and value, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.name.len() + self.value.size()
    }
}

impl Value {
    /// Makes a text value.
    #[must_use]
    pub fn string(text: impl Into<String>) -> Self {
        Self {
            data: Data::String(text.into().into()),
            label: None,
        }
    }

    /// Makes a numeric value from a decimal: an optional sign, digits with at most one point, and an optional
    /// exponent.
    ///
    /// # Errors
    ///
    /// When the text is no such number, has more than [`MAX_DIGITS`] significant digits or is out of
    /// [`EXPONENTS`].
    pub fn number(text: impl Into<String>) -> Result<Self, AttributeError> {
        let text = text.into();
        match check_number(&text) {
            Ok(()) => Ok(Self {
                data: Data::Number(text.into()),
                label: None,
            }),
            Err(rule) => Err(AttributeError::Number { text, rule }),
        }
    }

    /// Makes a value of bytes.
    #[must_use]
    pub fn binary(bytes: impl Into<Payload>) -> Self {
        Self {
            data: Data::Binary(bytes.into()),
            label: None,
        }
    }

    /// Adds the application's own label to the type, as in `Number.int`.
    ///
    /// # Errors
    ///
    /// When the label is empty, has characters other than `A-Z a-z 0-9 _ - .`, or makes the data type longer
    /// than [`MAX_DATA_TYPE`].
    pub fn with_label(mut self, label: impl Into<String>) -> Result<Self, AttributeError> {
        let label = label.into();
        let length = self.base_type().len() + 1 + label.len();
        let rule = if label.is_empty() {
            Some(LabelRule::Empty)
        } else if !label.bytes().all(is_allowed) {
            Some(LabelRule::Character)
        } else if length > MAX_DATA_TYPE {
            Some(LabelRule::Length)
        } else {
            None
        };
        if let Some(rule) = rule {
            return Err(AttributeError::Label { label, rule });
        }
        self.label = Some(label.into());
        Ok(self)
    }

    /// What the value holds.
    #[must_use]
    pub const fn data(&self) -> &Data {
        &self.data
    }

    /// The label, without the type before it.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// The type in the form of the wire: `String`, `Number` or `Binary`, and `.label` where there is one.
    #[must_use]
    pub fn data_type(&self) -> Cow<'static, str> {
        match &self.label {
            None => Cow::Borrowed(self.base_type()),
            Some(label) => Cow::Owned(format!("{}.{label}", self.base_type())),
        }
    }

    /// The text of a string or number; `None` for bytes.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match &self.data {
            Data::String(text) | Data::Number(text) => Some(text),
            Data::Binary(_) => None,
        }
    }

    /// The bytes of any value: of a number, those of its text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.data {
            Data::String(text) | Data::Number(text) => text.as_bytes(),
            Data::Binary(bytes) => bytes,
        }
    }

    /// Data type and value, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let label = self.label.as_ref().map_or(0, |label| label.len() + 1);
        self.base_type().len() + label + self.as_bytes().len()
    }

    const fn base_type(&self) -> &'static str {
        match self.data {
            Data::String(_) => "String",
            Data::Number(_) => "Number",
            Data::Binary(_) => "Binary",
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::string(text)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::string(text)
    }
}

impl From<Payload> for Value {
    fn from(bytes: Payload) -> Self {
        Self::binary(bytes)
    }
}

macro_rules! from_integer {
    ($($integer:ty),*) => {$(
        impl From<$integer> for Value {
            /// Makes a number; every integer of this type keeps the rules.
            fn from(number: $integer) -> Self {
                Self { data: Data::Number(number.to_string().into()), label: None }
            }
        }
    )*};
}
from_integer!(i8, i16, i32, i64, u8, u16, u32, u64, usize);

/// An attribute that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttributeError {
    /// The name breaks a rule.
    #[error("attribute name {name:?} {rule}")]
    Name {
        /// The name.
        name: String,
        /// The rule.
        rule: NameRule,
    },
    /// The value has no byte.
    #[error("attribute {name:?} has an empty value")]
    EmptyValue {
        /// The name.
        name: String,
    },
    /// The text of a number breaks a rule.
    #[error("attribute value {text:?} {rule}")]
    Number {
        /// The text.
        text: String,
        /// The rule.
        rule: NumberRule,
    },
    /// The label of a data type breaks a rule.
    #[error("data type label {label:?} {rule}")]
    Label {
        /// The label.
        label: String,
        /// The rule.
        rule: LabelRule,
    },
}

/// The rules for names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameRule {
    /// At least one character.
    #[error("is empty")]
    Empty,
    /// At most [`MAX_NAME`] characters.
    #[error("has more than {MAX_NAME} characters")]
    Length,
    /// Only `A-Z a-z 0-9 _ - .`.
    #[error("has characters other than A-Z a-z 0-9 _ - .")]
    Character,
    /// No `AWS.` or `Amazon.` before it, in any case.
    #[error("begins with the reserved prefix AWS. or Amazon.")]
    Reserved,
    /// No dot at either end and no two dots in a row.
    #[error("begins or ends with a dot or has two dots in a row")]
    Dots,
}

/// The rules for numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NumberRule {
    /// A decimal number.
    #[error("is not a decimal number")]
    Syntax,
    /// At most [`MAX_DIGITS`] significant digits.
    #[error("has more than {MAX_DIGITS} significant digits")]
    Digits,
    /// Within [`EXPONENTS`].
    #[error("is not between 10^-128 and 10^126")]
    Range,
}

/// The rules for labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelRule {
    /// At least one character.
    #[error("is empty")]
    Empty,
    /// Only `A-Z a-z 0-9 _ - .`.
    #[error("has characters other than A-Z a-z 0-9 _ - .")]
    Character,
    /// At most [`MAX_DATA_TYPE`] characters with the type.
    #[error("makes a data type of more than {MAX_DATA_TYPE} characters")]
    Length,
}

const fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// Checks a name against every rule.
///
/// # Errors
///
/// The first rule that it breaks.
pub fn check_name(name: &str) -> Result<(), NameRule> {
    let starts_with = |prefix: &str| {
        name.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    if name.is_empty() {
        Err(NameRule::Empty)
    } else if !name.bytes().all(is_allowed) {
        Err(NameRule::Character)
    } else if name.len() > MAX_NAME {
        Err(NameRule::Length)
    } else if starts_with("AWS.") || starts_with("Amazon.") {
        Err(NameRule::Reserved)
    } else if name.starts_with('.') || name.ends_with('.') || name.contains("..") {
        Err(NameRule::Dots)
    } else {
        Ok(())
    }
}

/// Checks the text of a number: one pass, no arithmetic on it, so nothing is rounded.
fn check_number(text: &str) -> Result<(), NumberRule> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        None => (unsigned, 0),
        Some((mantissa, exponent)) => {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(NumberRule::Syntax);
            }
            // What does not fit 64 bits is out of range in any case.
            (
                mantissa,
                exponent.parse::<i64>().map_err(|_| NumberRule::Range)?,
            )
        }
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return Err(NumberRule::Syntax);
    }
    if !whole
        .bytes()
        .chain(fraction.bytes())
        .all(|byte| byte.is_ascii_digit())
    {
        return Err(NumberRule::Syntax);
    }
    let digits = || whole.bytes().chain(fraction.bytes());
    let Some(first) = digits().position(|digit| digit != b'0') else {
        return Ok(()); // zero
    };
    let last = digits().count() - 1 - digits().rev().position(|digit| digit != b'0').unwrap_or(0);
    if last - first + 1 > MAX_DIGITS {
        return Err(NumberRule::Digits);
    }
    let leading = whole.len() as i64 - 1 - first as i64;
    match leading.checked_add(exponent) {
        Some(power) if EXPONENTS.contains(&power) => Ok(()),
        _ => Err(NumberRule::Range),
    }
}

#[cfg(feature = "serde")]
mod serde_impl {
    use serde::de::{Error as _, MapAccess, Visitor};
    use serde::ser::SerializeMap;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Attribute, Attributes, Data, Value};
    use crate::payload::Payload;

    /// The form of a [`Value`] outside: one key for what it holds, one for the label.
    #[derive(Serialize, Deserialize)]
    enum Outside {
        #[serde(rename = "string")]
        String(Box<str>, Option<Box<str>>),
        #[serde(rename = "number")]
        Number(Box<str>, Option<Box<str>>),
        #[serde(rename = "binary")]
        Binary(Payload, Option<Box<str>>),
    }

    impl Serialize for Value {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let label = self.label.clone();
            match self.data.clone() {
                Data::String(text) => Outside::String(text, label),
                Data::Number(text) => Outside::Number(text, label),
                Data::Binary(bytes) => Outside::Binary(bytes, label),
            }
            .serialize(serializer)
        }
    }

    impl<'de> Deserialize<'de> for Value {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let (value, label) = match Outside::deserialize(deserializer)? {
                Outside::String(text, label) => (Self::string(text), label),
                Outside::Number(text, label) => {
                    (Self::number(text).map_err(D::Error::custom)?, label)
                }
                Outside::Binary(bytes, label) => (Self::binary(bytes), label),
            };
            match label {
                None => Ok(value),
                Some(label) => value.with_label(label).map_err(D::Error::custom),
            }
        }
    }

    impl Serialize for Attributes {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(Some(self.len()))?;
            for attribute in self {
                map.serialize_entry(attribute.name(), attribute.value())?;
            }
            map.end()
        }
    }

    impl<'de> Deserialize<'de> for Attributes {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Entries;

            impl<'de> Visitor<'de> for Entries {
                type Value = Attributes;

                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a map from attribute names to values")
                }

                fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Attributes, M::Error> {
                    let mut all = Attributes::new();
                    while let Some((name, value)) = map.next_entry::<String, Value>()? {
                        let attribute = Attribute::new(name, value).map_err(M::Error::custom)?;
                        if all.put(attribute).is_some() {
                            return Err(M::Error::custom("two attributes with one name"));
                        }
                    }
                    Ok(all)
                }
            }

            deserializer.deserialize_map(Entries)
        }
    }
}
