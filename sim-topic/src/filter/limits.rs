//! What bounds a policy.

/// The largest policy in the AWS profile, in bytes. Source: SNS developer guide, "Filter policy constraints".
pub const AWS_POLICY_BYTES: usize = 262_144;
/// The most keys of a policy in the AWS profile. Source: as [`AWS_POLICY_BYTES`].
pub const AWS_KEYS: usize = 5;
/// The most combinations of a policy in the AWS profile. Source: as [`AWS_POLICY_BYTES`].
pub const AWS_COMBINATIONS: u64 = 150;
/// How far from zero a number may be in the AWS profile. Source: as [`AWS_POLICY_BYTES`].
pub const AWS_MAGNITUDE: u64 = 1_000_000_000;
/// The most decimals of a number in the AWS profile. Source: as [`AWS_POLICY_BYTES`].
pub const AWS_DECIMALS: u32 = 5;

/// Bounds on a policy: generous by default, SNS's own as [`FilterLimits::aws`].
///
/// Whatever they are, a policy takes memory in proportion to its text, and to its alternatives times its rules.
///
/// ```
/// use sim_topic::filter::{FilterLimits, FilterPolicy, Scope};
///
/// let six = r#"{"a":[1],"b":[1],"c":[1],"d":[1],"e":[1],"f":[1]}"#;
/// assert!(FilterPolicy::parse(six, Scope::MessageBody).is_ok());
/// let error = FilterPolicy::parse_within(six, Scope::MessageBody, &FilterLimits::aws()).unwrap_err();
/// assert_eq!(error.to_string(), "$: has 6 keys, may have 5");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct FilterLimits {
    /// Bytes of the policy's text. Default: 1 MiB; AWS: [`AWS_POLICY_BYTES`].
    pub policy_bytes: usize,
    /// Keys at the top of the policy; `$or` is one. Default: 1,000; AWS: [`AWS_KEYS`].
    pub keys: usize,
    /// Rules: keys with a list of values, at all depths. Default and AWS: 1,000.
    pub rules: usize,
    /// The product of the lists' lengths, each times the depth of its key; the branches of an `$or` are added.
    /// Default: `None`, no bound, since it costs nothing here; AWS: [`AWS_COMBINATIONS`].
    pub combinations: Option<u64>,
    /// How far from zero a number may be. Default: `None`, as far as a double goes; AWS: [`AWS_MAGNITUDE`].
    pub magnitude: Option<u64>,
    /// Decimals of a number. Default: `None`, any; AWS: [`AWS_DECIMALS`].
    pub decimals: Option<u32>,
    /// Names in the path of a key, dots included: `{"a.b": {"c": [1]}}` has three. Default and AWS: 100; at most
    /// 127 containers are read in any case.
    pub depth: usize,
    /// What the `$or`s of a policy multiply out to. Default and AWS: 1,024.
    pub alternatives: usize,
}

impl Default for FilterLimits {
    fn default() -> Self {
        Self {
            policy_bytes: 1_048_576,
            keys: 1_000,
            rules: 1_000,
            combinations: None,
            magnitude: None,
            decimals: None,
            depth: 100,
            alternatives: 1_024,
        }
    }
}

impl FilterLimits {
    /// SNS's limits.
    #[must_use]
    pub fn aws() -> Self {
        Self {
            policy_bytes: AWS_POLICY_BYTES,
            keys: AWS_KEYS,
            combinations: Some(AWS_COMBINATIONS),
            magnitude: Some(AWS_MAGNITUDE),
            decimals: Some(AWS_DECIMALS),
            ..Self::default()
        }
    }
}
