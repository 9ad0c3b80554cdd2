//! Certificates, keys and lists out of PEM text.

use std::path::PathBuf;
use std::{fs, io};

use bytes::Bytes;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::{ParseSecurityPolicyError, Pem};

/// Settings of TLS that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// There is no certificate to show.
    #[error("certificates is empty, a listener with TLS needs one at least")]
    NoCertificates,
    /// No time at all.
    #[error("handshake_timeout of zero, it must be longer")]
    Timeout,
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The text is not PEM.
    #[error("{origin} is not PEM: {problem}")]
    Pem {
        /// The file, or that it was given inline.
        origin: String,
        /// What is wrong.
        problem: String,
    },
    /// The text has nothing of what is looked for.
    #[error("{origin} holds no {what}")]
    Empty {
        /// The file, or that it was given inline.
        origin: String,
        /// What is missing.
        what: &'static str,
    },
    /// A certificate cannot be used.
    #[error("a certificate in {origin} cannot be used: {problem}")]
    Certificate {
        /// The file, or that it was given inline.
        origin: String,
        /// What is wrong.
        problem: String,
    },
    /// A key cannot be used.
    #[error("the private key in {origin} cannot be used: {problem}")]
    Key {
        /// The file, or that it was given inline.
        origin: String,
        /// What is wrong.
        problem: String,
    },
    /// Certificate and key do not belong together.
    #[error("the certificate in {chain} is not for the private key in {key}")]
    KeyMismatch {
        /// The certificate's file, or that it was given inline.
        chain: String,
        /// The key's.
        key: String,
    },
    /// A revocation list cannot be used.
    #[error("the revocation lists cannot be used: {problem}")]
    Revocations {
        /// What is wrong.
        problem: String,
    },
    /// A name that no client can ask for.
    #[error("name \"{name}\" is neither a DNS name nor one with `*.` before it")]
    Name {
        /// The name.
        name: String,
    },
    /// The security policy is none.
    #[error(transparent)]
    Policy(#[from] ParseSecurityPolicyError),
    /// There is no trust store of this name.
    #[error("there is no trust store \"{name}\"")]
    TrustStore {
        /// The name.
        name: String,
    },
    /// The roots of the operating system cannot be read.
    #[error("no root certificate of the operating system can be read: {problem}")]
    NativeRoots {
        /// What is wrong.
        problem: String,
    },
    /// rustls does not take the settings.
    #[error("the settings of TLS do not go together: {problem}")]
    Settings {
        /// What is wrong.
        problem: String,
    },
}

impl Pem {
    /// Names it in an error.
    pub(super) fn origin(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Inline(_) => "the text given inline".to_owned(),
        }
    }

    fn text(&self) -> Result<Bytes, TlsError> {
        match self {
            Self::File(path) => fs::read(path)
                .map(Bytes::from)
                .map_err(|source| TlsError::File {
                    path: path.clone(),
                    source,
                }),
            Self::Inline(text) => Ok(text.clone()),
        }
    }

    fn wrong(&self, what: &'static str, error: &pem::Error) -> TlsError {
        let origin = self.origin();
        match error {
            pem::Error::NoItemsFound => TlsError::Empty { origin, what },
            other => TlsError::Pem {
                origin,
                problem: other.to_string(),
            },
        }
    }

    fn all<T: PemObject>(&self, what: &'static str) -> Result<Vec<T>, TlsError> {
        let text = self.text()?;
        let found = T::pem_slice_iter(&text)
            .collect::<Result<Vec<T>, _>>()
            .map_err(|error| self.wrong(what, &error))?;
        if found.is_empty() {
            return Err(self.wrong(what, &pem::Error::NoItemsFound));
        }
        Ok(found)
    }

    /// All certificates; at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        self.all("certificate")
    }

    /// All revocation lists; at least one. Authorities publish theirs in DER: one such list is taken too.
    pub(super) fn revocations(
        &self,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
        let text = self.text()?;
        // A sequence with a long length, which no text begins with.
        if text.starts_with(&[0x30, 0x82]) || text.starts_with(&[0x30, 0x81]) {
            return Ok(vec![CertificateRevocationListDer::from(text.to_vec())]);
        }
        self.all("revocation list")
    }

    /// The first private key.
    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.text()?)
            .map_err(|error| self.wrong("private key that is not encrypted", &error))
    }
}
