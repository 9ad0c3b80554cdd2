//! Filter policies: which messages a subscription wants, as a JSON document in the language of SNS.
//!
//! A policy is parsed, checked and compiled once ([`FilterPolicy`]); many of one topic are matched together
//! ([`FilterIndex`]). A message is read in one pass and no document tree is built; with a [`Scratch`] that is used again,
//! matching allocates nothing once the scratch has grown.
//!
//! ```
//! use sim_topic::filter::{FilterPolicy, Scope};
//!
//! let late = FilterPolicy::parse(
//!     r#"{"carrier": ["AA", "UA"], "departure": {"delay": [{"numeric": [">", 60]}], "cancelled": [{"exists": false}]}}"#,
//!     Scope::MessageBody,
//! )?;
//! assert!(late.matches_body(br#"{"carrier": "UA", "departure": {"delay": 61}}"#).is_match());
//! assert!(!late.matches_body(br#"{"carrier": "UA", "departure": {"delay": 61, "cancelled": true}}"#).is_match());
//!
//! let error = FilterPolicy::parse(r#"{"delay": [5, {"numeric": [">", "60"]}]}"#, Scope::MessageBody).unwrap_err();
//! assert_eq!(error.to_string(), "$.delay[1].numeric[1]: must be a number, is a string");
//! # Ok::<(), sim_topic::filter::FilterError>(())
//! ```
//!
//! # A policy
//!
//! An object of keys. Each key has a list of conditions, or keys below it. A message matches when **every key** has a
//! value in it that satisfies **one of the conditions** of its list. `{}` matches everything.
//!
//! | condition | satisfied by | example |
//! | --- | --- | --- |
//! | a string | this string | `"UA"` |
//! | a number | this number, however it is written: 100, 100.0, 1e2 | `100` |
//! | `true`, `false`, `null` | itself | `null` |
//! | `prefix`, `suffix` | strings that begin or end so | `{"prefix": "eu-"}` |
//! | the same, ignoring case | | `{"suffix": {"equals-ignore-case": ".PNG"}}` |
//! | `equals-ignore-case` | this string in any case | `{"equals-ignore-case": "ua"}` |
//! | `wildcard` | strings with anything for each `*`; `\*` and `\\` are the characters | `{"wildcard": "eu-*-prod"}` |
//! | `cidr` | strings that are addresses of the block, IPv4 or IPv6 | `{"cidr": "10.0.0.0/24"}` |
//! | `numeric` | numbers that compare so: `=` `<` `<=` `>` `>=` | `{"numeric": ["<=", 5]}` |
//! | a range | numbers between two bounds, the lower one first | `{"numeric": [">", 0, "<=", 5]}` |
//! | `exists` | `true`: any value, null included; `false`: none | `{"exists": false}` |
//! | `anything-but` | any value but null that is none of these | `{"anything-but": ["UA", 5]}` |
//! | `anything-but` with `prefix`, `suffix`, `equals-ignore-case` or `wildcard`, one or a list | any value but null and such strings | `{"anything-but": {"prefix": ["a", "b"]}}` |
//!
//! `"$or": [{..}, {..}]` among the keys of an object is satisfied when the keys of one of its two or more objects are;
//! a key that stands both beside it and in it has to satisfy both.
//!
//! Types are strict: a number is never equal to its text. Integers of 64 bits are compared exactly, other numbers as
//! doubles. Case is folded by Unicode's lower case, each character for itself.
//!
//! # What it looks at
//!
//! **Attributes** ([`Scope::MessageAttributes`]): keys are their names and do not nest. A `String` is a string and a
//! `Number` a number, whatever label follows, except that a `String.Array` is the list in it of strings, numbers,
//! booleans and nulls: one of them has to match. One that is no such list matches nothing, and the verdict says so
//! ([`Reason::InvalidAttributes`]). `Binary` attributes are as if they were not there.
//!
//! **Bodies** ([`Scope::MessageBody`]): a body has to be one JSON object; any other body matches no policy
//! ([`Reason::InvalidMessageBody`]). What JSON is decides `serde_json`: well-formed UTF-8, at most 127 containers in each
//! other. The whole body is checked, also where no policy looks.
//! - Paths are flat: `{"a": {"b": 1}}` and `{"a.b": 1}` are the same, in the policy and in the body. Only leaves exist.
//! - A list stands for each of its elements, at any depth. Of a list of objects each key may match in another element.
//!   Such a body stands for all flat objects that one choice of an element of each list gives; a key is absent when it
//!   is absent from one of them. An empty list is no value.
//! - Where a body gives one path twice, each of the values may match.
//!
//! # Limits
//!
//! [`FilterLimits`] has generous defaults and SNS's own limits. A policy whose `$or`s multiply out to too many
//! alternatives is refused, and neither deep nor long input recurses or multiplies beyond the limits: matching one policy
//! takes time in proportion to the body, plus the values at its paths times the conditions of its alternatives.
//!
//! # Trade-offs
//!
//! What SNS documents is kept; where only its behaviour is known, that of LocalStack's tests against AWS is. They leave open
//! how strings with numbers in them compare (here: not), what `anything-but` makes of null (here: no match) and whether
//! a list without elements exists (in a body it does not, an attribute does).

mod condition;
mod error;
mod index;
mod json;
mod limits;
mod number;
mod parse;
mod paths;
mod values;

use std::fmt;

use sim_core::attributes::Attributes;
use sim_core::sync::Arc;

use condition::Rule;
use paths::Paths;
use values::{Input, Unreadable, Values};

pub use error::{FilterError, FilterRule};
pub use index::{FilterIndex, Matches};
pub use limits::{
    AWS_COMBINATIONS, AWS_DECIMALS, AWS_KEYS, AWS_MAGNITUDE, AWS_POLICY_BYTES, FilterLimits,
};

/// What a policy looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Scope {
    /// The message's attributes. The default.
    #[default]
    MessageAttributes,
    /// The message's body, which has to be a JSON object.
    MessageBody,
}

impl fmt::Display for Scope {
    /// Writes SNS's name of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MessageAttributes => "MessageAttributes",
            Self::MessageBody => "MessageBody",
        })
    }
}

/// Whether a message passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It does.
    Match,
    /// It does not.
    Filtered(Reason),
}

impl Verdict {
    /// Whether the message passes.
    #[must_use]
    pub const fn is_match(self) -> bool {
        matches!(self, Self::Match)
    }

    /// Why it does not pass.
    #[must_use]
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Match => None,
            Self::Filtered(reason) => Some(reason),
        }
    }
}

/// Why a message does not pass, one for each of SNS's `NumberOfNotificationsFilteredOut-...` metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Reason {
    /// Its attributes do not match.
    MessageAttributes,
    /// It has no attributes.
    NoMessageAttributes,
    /// A list among the attributes that the policy looks at is no list.
    InvalidAttributes,
    /// Its body does not match.
    MessageBody,
    /// Its body is no JSON object.
    InvalidMessageBody,
}

/// A compiled policy. Cloning it clones a pointer.
///
/// # Examples
///
/// ```
/// use sim_core::attributes::Attributes;
/// use sim_topic::filter::{FilterPolicy, Reason, Scope, Verdict};
///
/// let policy = FilterPolicy::parse(
///     r#"{"store": {"price": [{"numeric": [">=", 10, "<", 100]}]}, "state": [{"anything-but": "cancelled"}]}"#,
///     Scope::MessageBody,
/// )?;
/// assert!(policy.matches_body(br#"{"state": "new", "store": {"price": 12.5}}"#).is_match());
/// assert_eq!(
///     policy.matches_body(br#"{"state": "new", "store": {"price": 100}}"#),
///     Verdict::Filtered(Reason::MessageBody)
/// );
///
/// let policy = FilterPolicy::parse(r#"{"carrier": ["UA", {"prefix": "A"}]}"#, Scope::MessageAttributes)?;
/// let mut attributes = Attributes::new();
/// attributes.insert("carrier", "AA")?;
/// assert!(policy.matches_attributes(&attributes).is_match());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct FilterPolicy {
    shared: Arc<Policy>,
}

struct Policy {
    text: Box<str>,
    scope: Scope,
    plan: Plan,
}

/// What a policy is compiled to: a message passes when it satisfies every rule of one alternative.
#[derive(Debug)]
struct Plan {
    paths: Paths,
    rules: Box<[Rule]>,
    /// Each the numbers of its rules.
    alternatives: Box<[Box<[u32]>]>,
}

impl FilterPolicy {
    /// Parses, checks and compiles a policy within the default [`FilterLimits`].
    ///
    /// # Errors
    ///
    /// The first place where the policy breaks a rule, and the rule.
    pub fn parse(json: &str, scope: Scope) -> Result<Self, FilterError> {
        Self::parse_within(json, scope, &FilterLimits::default())
    }

    /// Parses, checks and compiles a policy within these limits.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub fn parse_within(
        json: &str,
        scope: Scope,
        limits: &FilterLimits,
    ) -> Result<Self, FilterError> {
        let plan = parse::parse(json, scope, limits)?;
        Ok(Self {
            shared: Arc::new(Policy {
                text: json.into(),
                scope,
                plan,
            }),
        })
    }

    /// The text that was parsed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.shared.text
    }

    /// What the policy looks at.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.shared.scope
    }

    /// Whether attributes pass. A policy on bodies passes none.
    #[must_use]
    pub fn matches_attributes(&self, attributes: &Attributes) -> Verdict {
        self.matches_attributes_in(attributes, &mut Scratch::new())
    }

    /// Whether attributes pass, with memory that is used again: nothing is allocated once it has grown.
    #[must_use]
    pub fn matches_attributes_in(&self, attributes: &Attributes, scratch: &mut Scratch) -> Verdict {
        if self.scope() != Scope::MessageAttributes {
            return Verdict::Filtered(Reason::MessageBody);
        }
        let plan = &self.shared.plan;
        let read = scratch.values.read_attributes(&plan.paths, attributes);
        if plan.accepts(&scratch.values, Input::Attributes(attributes)) {
            Verdict::Match
        } else {
            Verdict::Filtered(reason_of_attributes(attributes, read))
        }
    }

    /// Whether a body passes. A policy on attributes passes none.
    #[must_use]
    pub fn matches_body(&self, body: &[u8]) -> Verdict {
        self.matches_body_in(body, &mut Scratch::new())
    }

    /// Whether a body passes, with memory that is used again: nothing is allocated once it has grown.
    #[must_use]
    pub fn matches_body_in(&self, body: &[u8], scratch: &mut Scratch) -> Verdict {
        if self.scope() != Scope::MessageBody {
            return Verdict::Filtered(Reason::MessageAttributes);
        }
        let plan = &self.shared.plan;
        match scratch.values.read_body(&plan.paths, body) {
            Err(Unreadable) => Verdict::Filtered(Reason::InvalidMessageBody),
            Ok(()) if plan.accepts(&scratch.values, Input::Body(body)) => Verdict::Match,
            Ok(()) => Verdict::Filtered(Reason::MessageBody),
        }
    }
}

impl fmt::Debug for FilterPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilterPolicy")
            .field("scope", &self.scope())
            .field("text", &self.as_str())
            .finish_non_exhaustive()
    }
}

impl Plan {
    fn accepts(&self, values: &Values, input: Input<'_>) -> bool {
        self.alternatives.iter().any(|rules| {
            rules.iter().all(|&rule| {
                let rule = &self.rules[rule as usize];
                satisfies(values, input, rule.field, rule)
            })
        })
    }
}

/// Whether a message satisfies a rule on a field.
#[inline]
fn satisfies(values: &Values, input: Input<'_>, field: u32, rule: &Rule) -> bool {
    (rule.absent && !values.is_covered(field))
        || values.of(field, input).any(|value| rule.set.accepts(value))
}

/// Why attributes that did not match did not.
fn reason_of_attributes(attributes: &Attributes, read: Result<(), Unreadable>) -> Reason {
    match read {
        Err(Unreadable) => Reason::InvalidAttributes,
        Ok(()) if attributes.is_empty() => Reason::NoMessageAttributes,
        Ok(()) => Reason::MessageAttributes,
    }
}

/// Memory for matching, to be used again: one for each thread that matches.
///
/// It grows to what the largest message so far took, and with the number of paths and policies; it keeps nothing of a
/// message that could be seen later.
#[derive(Debug, Default)]
pub struct Scratch {
    values: Values,
    /// What an index found.
    ids: Vec<u32>,
    /// By alternative of the index: the round in which it was looked at last.
    seen: Vec<u32>,
    round: u32,
    /// A string, folded.
    text: String,
}

impl Scratch {
    /// Makes one that has allocated nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes it has allocated for the values of messages: what does not go by the number of policies.
    pub(crate) fn bytes(&self) -> usize {
        self.values.bytes() + self.text.capacity()
    }
}
