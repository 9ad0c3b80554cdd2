//! How much of each there may be.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Whose limits hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Profile {
    /// The library's: as much as makes sense.
    #[default]
    Open,
    /// Elastic Load Balancing's, as of November 2026.
    Aws,
}

impl Profile {
    /// The bounds of a duration: AWS's in its profile, otherwise from zero or a millisecond to AWS's most or 30 days.
    pub(crate) const fn span(self, least: u64, most: u64) -> (Duration, Duration) {
        match self {
            Self::Aws => (Duration::from_secs(least), Duration::from_secs(most)),
            Self::Open => {
                let least = if least == 0 { 0 } else { 1 };
                let month = 30 * 86_400;
                let most = if most > month { most } else { month };
                (Duration::from_millis(least), Duration::from_secs(most))
            }
        }
    }

    /// The bounds of a count: AWS's in its profile, otherwise from one to a thousand or AWS's most.
    pub(crate) const fn count(self, least: u64, most: u64) -> (u64, u64) {
        match self {
            Self::Aws => (least, most),
            Self::Open => {
                let least = if least == 0 { 0 } else { 1 };
                (least, if most > 1_000 { most } else { 1_000 })
            }
        }
    }
}

macro_rules! quotas {
    ($($(#[$doc:meta])* $field:ident: $aws:literal, $open:literal;)*) => {
        /// How much of each there may be: the profile's, field by field replaced by what is set here.
        #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Quotas {
            /// Whose limits hold where none is set; it also decides on the bounds of durations and thresholds.
            /// Default: [`Profile::Open`].
            pub profile: Profile,
            $($(#[$doc])* #[doc = concat!(" AWS: ", stringify!($aws), "; open: ", stringify!($open), ".")]
            pub $field: Option<usize>,)*
        }

        impl Quotas {
            $(pub(crate) const fn $field(&self) -> usize {
                match (self.$field, self.profile) {
                    (Some(most), _) => most,
                    (None, Profile::Aws) => $aws,
                    (None, Profile::Open) => $open,
                }
            })*
        }
    };
}

quotas! {
    /// Listeners.
    listeners: 50, 1_024;
    /// Rules of all listeners, without defaults.
    rules: 100, 10_000;
    /// Target groups.
    target_groups: 100, 4_096;
    /// Targets of all groups.
    targets: 1_000, 65_536;
    /// Certificates of a listener besides the default.
    certificates: 25, 4_096;
    /// Values of a condition.
    condition_values: 3, 64;
    /// Values of all of a rule's conditions.
    rule_values: 5, 256;
    /// Wildcards of all of a rule's conditions.
    rule_wildcards: 6, 256;
    /// Characters of a condition's value.
    value_length: 128, 1_024;
    /// Groups of a forward action.
    forward_groups: 5, 64;
    /// Actions of a rule.
    actions: 5, 32;
    /// Bytes of a fixed response's body.
    fixed_body_bytes: 1_024, 65_536;
    /// Additional claims of a JWT validation, and values of each.
    claims: 10, 64;
    /// Bytes of a compiled regular expression.
    regex_bytes: 1_048_576, 1_048_576;
}

impl Quotas {
    /// Elastic Load Balancing's.
    #[must_use]
    pub fn aws() -> Self {
        Self {
            profile: Profile::Aws,
            ..Self::default()
        }
    }
}
