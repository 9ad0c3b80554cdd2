//! What is offered: protocols, versions, cipher suites.

use std::fmt;
use std::str::FromStr;

use rustls::crypto::ring::cipher_suite as suite;
use rustls::version::{TLS12, TLS13};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

use crate::proxy::config::AlpnPolicy;

impl AlpnPolicy {
    /// The protocols' names, the preferred one first.
    ///
    /// A client that offers protocols of which the server has none is refused; one that offers none at all is served.
    #[must_use]
    pub fn protocols(self) -> &'static [&'static str] {
        match self {
            Self::Http1Only => &["http/1.1", "http/1.0"],
            Self::Http2Only => &["h2"],
            Self::Http2Optional => &["http/1.1", "http/1.0", "h2"],
            Self::Http2Preferred => &["h2", "http/1.1", "http/1.0"],
            Self::None => &[],
        }
    }
}

/// Which versions of TLS a policy has, of those that are implemented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Versions {
    Only12,
    Only13,
    Both,
}

/// AWS's policies, by AWS's documentation of November 2026.
const POLICIES: &[(&str, Versions)] = &[
    ("ELBSecurityPolicy-TLS13-1-2-2021-06", Versions::Both),
    ("ELBSecurityPolicy-TLS13-1-2-Res-2021-06", Versions::Both),
    ("ELBSecurityPolicy-TLS13-1-2-Ext1-2021-06", Versions::Both),
    ("ELBSecurityPolicy-TLS13-1-2-Ext2-2021-06", Versions::Both),
    ("ELBSecurityPolicy-TLS13-1-3-2021-06", Versions::Only13),
    ("ELBSecurityPolicy-TLS13-1-1-2021-06", Versions::Both),
    ("ELBSecurityPolicy-TLS13-1-0-2021-06", Versions::Both),
    ("ELBSecurityPolicy-TLS-1-2-2017-01", Versions::Only12),
    ("ELBSecurityPolicy-TLS-1-2-Ext-2018-06", Versions::Only12),
    ("ELBSecurityPolicy-TLS-1-1-2017-01", Versions::Only12),
    ("ELBSecurityPolicy-TLS-1-0-2015-04", Versions::Only12),
    ("ELBSecurityPolicy-2016-08", Versions::Only12),
    ("ELBSecurityPolicy-2015-05", Versions::Only12),
    ("ELBSecurityPolicy-FS-1-2-Res-2020-10", Versions::Only12),
    ("ELBSecurityPolicy-FS-1-2-Res-2019-08", Versions::Only12),
    ("ELBSecurityPolicy-FS-1-2-2019-08", Versions::Only12),
    ("ELBSecurityPolicy-FS-1-1-2019-08", Versions::Only12),
    ("ELBSecurityPolicy-FS-2018-06", Versions::Only12),
];

/// Versions and cipher suites under a name of AWS's, such as `ELBSecurityPolicy-TLS13-1-3-2021-06`.
///
/// TLS 1.2 comes with the four suites of ECDHE and AES-GCM, TLS 1.3 with its three. What a policy names beyond that (TLS 1.0
/// and 1.1, CBC, RSA key exchange) is not offered.
///
/// ```
/// use sim_balancer::proxy::tls::SecurityPolicy;
///
/// let policy: SecurityPolicy = "ELBSecurityPolicy-TLS13-1-3-2021-06".parse()?;
/// assert_eq!(policy, SecurityPolicy::TLS13);
/// assert!("ELBSecurityPolicy-TLS13-1-3-FIPS-2023-04".parse::<SecurityPolicy>().is_err());
/// # Ok::<(), sim_balancer::proxy::tls::ParseSecurityPolicyError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecurityPolicy {
    name: &'static str,
    versions: Versions,
}

impl SecurityPolicy {
    /// TLS 1.2 and 1.3: `ELBSecurityPolicy-TLS13-1-2-2021-06`.
    pub const TLS12_AND_13: Self = Self {
        name: POLICIES[0].0,
        versions: POLICIES[0].1,
    };

    /// TLS 1.3 alone: `ELBSecurityPolicy-TLS13-1-3-2021-06`.
    pub const TLS13: Self = Self {
        name: POLICIES[4].0,
        versions: POLICIES[4].1,
    };

    /// All policies that there are.
    pub fn all() -> impl Iterator<Item = Self> {
        POLICIES
            .iter()
            .map(|&(name, versions)| Self { name, versions })
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The versions that it offers.
    pub(super) fn versions(self) -> Vec<&'static SupportedProtocolVersion> {
        match self.versions {
            Versions::Only12 => vec![&TLS12],
            Versions::Only13 => vec![&TLS13],
            Versions::Both => vec![&TLS13, &TLS12],
        }
    }

    /// The cipher suites that it offers, in its order.
    pub(super) fn suites(self) -> Vec<SupportedCipherSuite> {
        let of_13 = [
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        let of_12 = [
            suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        ];
        match self.versions {
            Versions::Only12 => of_12.to_vec(),
            Versions::Only13 => of_13.to_vec(),
            Versions::Both => of_13.into_iter().chain(of_12).collect(),
        }
    }
}

impl Default for SecurityPolicy {
    fn default() -> Self {
        Self::TLS12_AND_13
    }
}

impl fmt::Debug for SecurityPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Display for SecurityPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A name that is no policy's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseSecurityPolicyError {
    /// There is such a policy, but it cannot be kept here.
    #[error("security policy \"{name}\" cannot be kept: {reason}")]
    Unsupported {
        /// The name.
        name: String,
        /// What is missing.
        reason: &'static str,
    },
    /// There is none of this name.
    #[error("security policy \"{name}\" is unknown")]
    Unknown {
        /// The name.
        name: String,
    },
}

impl FromStr for SecurityPolicy {
    type Err = ParseSecurityPolicyError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if let Some(policy) = Self::all().find(|policy| policy.name == name) {
            return Ok(policy);
        }
        let is_aws = name.starts_with("ELBSecurityPolicy-");
        let reason = if is_aws && name.contains("-FIPS-") {
            Some("no certified cryptography is built in")
        } else if is_aws && name.contains("-PQ-") {
            Some("no post-quantum key exchange is built in")
        } else {
            None
        };
        let name = name.to_owned();
        Err(match reason {
            Some(reason) => ParseSecurityPolicyError::Unsupported { name, reason },
            None => ParseSecurityPolicyError::Unknown { name },
        })
    }
}

impl serde::Serialize for SecurityPolicy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

impl<'de> serde::Deserialize<'de> for SecurityPolicy {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}
