//! Why a policy was not taken.

use super::Scope;

/// A policy breaks a rule: where, and which.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {rule}")]
#[non_exhaustive]
pub struct FilterError {
    /// Where in the policy, as in `$.store.price[1].numeric`.
    pub path: String,
    /// What is wrong there.
    pub rule: FilterRule,
}

/// The rules for policies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterRule {
    /// The policy is larger than [`policy_bytes`](super::FilterLimits::policy_bytes).
    #[error("has {bytes} bytes, may have {limit}")]
    Bytes {
        /// Bytes given.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The policy is not JSON, or has more than 127 containers inside each other.
    #[error("is not JSON at line {line}, column {column}")]
    Json {
        /// The line, from 1.
        line: usize,
        /// The column in bytes, from 1.
        column: usize,
    },
    /// The policy is JSON, but no object.
    #[error("must be an object, is {found}")]
    NotAnObject {
        /// What it is.
        found: &'static str,
    },
    /// More keys than [`keys`](super::FilterLimits::keys).
    #[error("has {keys} keys, may have {limit}")]
    Keys {
        /// Keys given.
        keys: usize,
        /// Keys allowed.
        limit: usize,
    },
    /// More rules than [`rules`](super::FilterLimits::rules).
    #[error("has more than {limit} rules")]
    Rules {
        /// Rules allowed.
        limit: usize,
    },
    /// More combinations than [`combinations`](super::FilterLimits::combinations).
    #[error("is too complex: has {combinations} combinations, may have {limit}")]
    Combinations {
        /// Combinations given; `u64::MAX` stands for that many or more.
        combinations: u64,
        /// Combinations allowed.
        limit: u64,
    },
    /// `$or`s multiply out to more than [`alternatives`](super::FilterLimits::alternatives).
    #[error("multiplies out to more than {limit} alternatives")]
    Alternatives {
        /// Alternatives allowed.
        limit: usize,
    },
    /// A path has more names than [`depth`](super::FilterLimits::depth).
    #[error("is {depth} names deep, may be {limit}")]
    Depth {
        /// Names in the path.
        depth: usize,
        /// Names allowed.
        limit: usize,
    },
    /// Keys inside keys where attributes are filtered.
    #[error("is nested, which {} does not allow", Scope::MessageAttributes)]
    Nested,
    /// A key stands twice, or two keys have the same path.
    #[error("stands there twice")]
    Duplicate,
    /// A key has neither a list of values nor keys below it.
    #[error("must be an object or an array, is {found}")]
    NotAList {
        /// What it is.
        found: &'static str,
    },
    /// A list has no values.
    #[error("is an empty array")]
    EmptyList,
    /// An object below the top has no keys.
    #[error("is an empty object")]
    EmptyObject,
    /// `$or` has something else than two or more objects.
    #[error("must be an array of two or more objects")]
    Or,
    /// A value is a list.
    #[error(
        "must be a string, number, true, false, null or an object with one operator, is an array"
    )]
    Value,
    /// An object among values has not exactly one operator.
    #[error("must have one operator, has {operators}")]
    Operators {
        /// Operators given.
        operators: usize,
    },
    /// There is no such operator.
    #[error("is no operator{}", in_anything_but(*.anything_but))]
    UnknownOperator {
        /// Whether it stands in an `anything-but`, which knows fewer.
        anything_but: bool,
    },
    /// An operator has an operand of the wrong type.
    #[error("must be {wanted}, is {found}")]
    Operand {
        /// What it must be.
        wanted: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A number is too far from zero.
    #[error("{number} is not between -{limit} and {limit}")]
    Magnitude {
        /// The number.
        number: String,
        /// The furthest allowed.
        limit: u64,
    },
    /// A number has too many decimals.
    #[error("{number} has more than {limit} decimals")]
    Decimals {
        /// The number.
        number: String,
        /// Decimals allowed.
        limit: u32,
    },
    /// `numeric` has not one comparison and one number, or two of both.
    #[error("must be a comparison and a number, or two of both, has {elements} elements")]
    NumericLength {
        /// Elements given.
        elements: usize,
    },
    /// There is no such comparison.
    #[error("{comparison:?} is none of = < <= > >=")]
    Comparison {
        /// The text given.
        comparison: String,
    },
    /// A range has not a lower bound (`>` or `>=`) and then an upper one (`<` or `<=`).
    #[error("must be a lower bound and then an upper bound")]
    RangeOrder,
    /// A range has no inside.
    #[error("is an empty range: its lower bound must be less than its upper bound")]
    EmptyRange,
    /// The text is no block of addresses.
    #[error("{text:?} is no block of addresses such as 10.0.0.0/24 or 2001:db8::/32")]
    Cidr {
        /// The text given.
        text: String,
    },
    /// A block of addresses has bits behind its mask.
    #[error("{text:?} has bits behind its mask, the block is {block:?}")]
    CidrHostBits {
        /// The text given.
        text: String,
        /// The block that it lies in.
        block: String,
    },
    /// A wildcard pattern has two asterisks in a row.
    #[error("{text:?} has two asterisks in a row")]
    WildcardRow {
        /// The pattern.
        text: String,
    },
    /// A wildcard pattern has a backslash before something else than an asterisk or a backslash.
    #[error("{text:?} has a backslash that is not before an asterisk or a backslash")]
    WildcardEscape {
        /// The pattern.
        text: String,
    },
    /// A policy was put into an index of the other scope.
    #[error("filters {given}, the index filters {wanted}")]
    Scope {
        /// The policy's scope.
        given: Scope,
        /// The index's scope.
        wanted: Scope,
    },
}

const fn in_anything_but(inside: bool) -> &'static str {
    if inside { " of anything-but" } else { "" }
}
