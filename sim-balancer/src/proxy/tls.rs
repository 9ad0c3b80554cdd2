//! TLS: certificates by name, protocols, client certificates, and TLS towards targets.
//!
//! A [`TlsAcceptor`] takes TLS off the connections of clients. It is made from plain settings ([`TlsConfig`]), and
//! [reloaded](TlsAcceptor::reload) while connections run: handshakes that begin later see the new certificates.
//! A [`TlsConnector`] puts TLS on the connections to targets.
//!
//! # Guarantees
//! - A handshake ends within its timeout, however slowly the client sends.
//! - A reload takes effect whole or not at all.
//! - With [`Mutual::Verify`] nobody gets past the handshake whose certificate was not checked in that handshake: sessions
//!   are not resumed, since a resumed one would go on with a certificate that expired or was revoked meanwhile.
//! - Validity is judged by the [`Clock`], so that a test sees a certificate expire.
//!
//! # What it is not
//! TLS 1.0, TLS 1.1 and cipher suites without forward secrecy are not implemented by rustls: a policy that names them offers
//! what else it names. Policies with FIPS or post-quantum in their names are refused, as nothing here is certified, nor
//! has ring such key exchanges.

mod accept;
mod connect;
mod facts;
mod mutual;
mod pem;
mod policy;
mod resolve;
mod settings;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{AlertDescription, CertificateError};
use sim_core::clock::Clock;

pub use self::accept::{TlsAcceptor, TlsStream};
pub use self::connect::{TargetStream, TargetTlsConfig, TlsConnector, Verify};
pub use self::facts::{ClientCertificate, MutualHeaders, Negotiated, SessionHeaders, TlsInfo};
pub use self::pem::TlsError;
pub use self::policy::{ParseSecurityPolicyError, SecurityPolicy};
pub use super::config::AlpnPolicy;

/// PEM text: where it stands, or itself.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A file, read when the settings are applied, and again at each reload.
    File(PathBuf),
    /// The text itself.
    Inline(Bytes),
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            // It may be a key.
            Self::Inline(text) => write!(f, "Inline({} bytes)", text.len()),
        }
    }
}

/// A certificate that the server shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The chain: the server's own certificate first, then those that lead to the root.
    pub chain: Pem,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub key: Pem,
    /// The names that it is shown for, such as `example.com` and `*.example.com`. Empty: those that it is made out to.
    pub names: Vec<String>,
}

/// How TLS is spoken with clients.
///
/// Write it as a literal that ends in `..Default::default()`; fields may be added.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// The certificates. The first is shown to who asks for no name or for one that none has; at least one.
    ///
    /// Of several for one name, that one is shown whose signatures the client knows; the earlier comes first.
    pub certificates: Vec<Certificate>,
    /// Which protocols are offered. Default: [`AlpnPolicy::Http2Preferred`].
    pub alpn: AlpnPolicy,
    /// Versions and cipher suites. Default: `ELBSecurityPolicy-TLS13-1-2-2021-06`.
    pub security_policy: SecurityPolicy,
    /// Whether clients show certificates. Default: [`Mutual::Off`].
    pub mutual: Mutual,
    /// How long a handshake may take; more than zero. Default: 10 s.
    pub handshake_timeout: Duration,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            certificates: Vec::new(),
            alpn: AlpnPolicy::Http2Preferred,
            security_policy: SecurityPolicy::default(),
            mutual: Mutual::Off,
            handshake_timeout: DEFAULT_HANDSHAKE_TIMEOUT,
        }
    }
}

/// How long a handshake may take unless the settings say otherwise.
const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether clients show certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Mutual {
    /// They are not asked.
    #[default]
    Off,
    /// They are asked; what they show is told to the targets, and they prove that they have its key, but nothing else is
    /// checked.
    Passthrough,
    /// They must show one that leads to the trust store.
    Verify(TrustStore),
}

/// Whose certificates clients may show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustStore {
    /// The certificates of the authorities.
    pub certificates: Pem,
    /// Lists of what they revoked. A certificate of an authority without a list counts as not revoked.
    pub revocations: Vec<Pem>,
    /// Whether the names of the authorities are told to clients, so that these find the right certificate.
    pub names: CaNames,
    /// Whether certificates that expired are refused.
    pub expired: Expired,
}

impl TrustStore {
    /// Makes a store of authorities without revocations that tells no names and refuses what expired.
    #[must_use]
    pub fn new(certificates: Pem) -> Self {
        Self {
            certificates,
            revocations: Vec::new(),
            names: CaNames::Hidden,
            expired: Expired::Refused,
        }
    }
}

/// Whether the names of the authorities are told to clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CaNames {
    /// They are not.
    #[default]
    Hidden,
    /// They are.
    Advertised,
}

/// What becomes of certificates that expired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Expired {
    /// They are refused.
    #[default]
    Refused,
    /// They count as valid. Those that are not valid yet, or revoked, stay refused.
    Accepted,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// It took too long.
    #[error("handshake of TLS is incomplete after {after:?}")]
    Timeout {
        /// The time that it had.
        after: Duration,
    },
    /// The client showed no certificate, and must.
    #[error("the peer shows no certificate")]
    NoCertificate,
    /// The peer's certificate was refused.
    #[error("the peer's certificate is refused: {0}")]
    Certificate(CertificateProblem),
    /// The peer refused, as it says in its alert.
    #[error("the peer refuses: {alert}")]
    Refused {
        /// The alert's name.
        alert: String,
    },
    /// Both sides have no protocol, version, suite or signature in common, or one of them broke the rules.
    #[error("handshake of TLS failed: {problem}")]
    Protocol {
        /// What was wrong.
        problem: String,
    },
    /// The name is none that TLS can ask for.
    #[error("\"{name}\" is neither a DNS name nor an IP address")]
    Name {
        /// The name.
        name: String,
    },
    /// The connection failed or ended.
    #[error("connection failed in the handshake of TLS")]
    Io(#[source] io::Error),
}

/// Why a certificate was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// Its time is over.
    #[error("it expired")]
    Expired,
    /// Its time has not come.
    #[error("it is not valid yet")]
    NotYetValid,
    /// Its authority took it back.
    #[error("it was revoked")]
    Revoked,
    /// It leads to no authority in the store: of that name there is none, or it did not sign.
    #[error("its issuer is not trusted")]
    Untrusted,
    /// It is not made for this purpose.
    #[error("it is made for another purpose")]
    Purpose,
    /// It is made out to other names.
    #[error("it is made out to another name")]
    Name,
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl HandshakeError {
    /// The reason code that connection logs have for it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoCertificate => "ClientCertRejected",
            Self::Certificate(problem) => match problem {
                CertificateProblem::Expired => "ClientCertExpired",
                CertificateProblem::NotYetValid => "ClientCertNotYetValid",
                CertificateProblem::Revoked => "ClientCertCrlHit",
                CertificateProblem::Untrusted => "ClientCertUntrusted",
                CertificateProblem::Purpose => "ClientCertPurposeInvalid",
                CertificateProblem::Name | CertificateProblem::Other(_) => "ClientCertInvalid",
            },
            Self::Timeout { .. }
            | Self::Refused { .. }
            | Self::Protocol { .. }
            | Self::Name { .. }
            | Self::Io(_) => "UnmappedConnectionError",
        }
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        let tls = error
            .get_ref()
            .and_then(|e| e.downcast_ref::<rustls::Error>());
        match tls {
            Some(rustls::Error::InvalidCertificate(problem)) => Self::Certificate(problem.into()),
            Some(rustls::Error::NoCertificatesPresented) => Self::NoCertificate,
            Some(rustls::Error::AlertReceived(alert)) => Self::Refused {
                alert: alert_name(*alert),
            },
            Some(other) => Self::Protocol {
                problem: other.to_string(),
            },
            None => Self::Io(error),
        }
    }
}

fn alert_name(alert: AlertDescription) -> String {
    alert
        .as_str()
        .map_or_else(|| format!("alert {}", u8::from(alert)), str::to_owned)
}

impl From<&CertificateError> for CertificateProblem {
    fn from(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            CertificateError::Revoked => Self::Revoked,
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::Untrusted,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::Purpose
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::Name
            }
            other => Self::Other(other.to_string()),
        }
    }
}

/// The time by which rustls judges certificates.
#[derive(Debug)]
struct ClockTime(Clock);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        let nanos = self.0.timestamp(self.0.now()).as_unix_nanos();
        let nanos = u64::try_from(nanos).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_nanos(nanos)))
    }
}

#[cfg(test)]
pub(super) mod fixture;
#[cfg(test)]
mod tests;
