//! Which certificate is shown to whom.

use std::collections::BTreeMap;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::DnsName;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, SignatureScheme};
use sim_core::sync::Arc;
use x509_parser::extensions::GeneralName;

use super::{Certificate, TlsError};

/// The certificates of a listener, by name.
#[derive(Debug)]
pub(super) struct Certificates {
    /// In lower case.
    exact: BTreeMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what stands behind `*.`, in lower case.
    wildcard: BTreeMap<String, Vec<Arc<CertifiedKey>>>,
    default: Arc<CertifiedKey>,
}

impl Certificates {
    pub(super) fn new(
        certificates: &[Certificate],
        provider: &CryptoProvider,
    ) -> Result<Self, TlsError> {
        let loaded = certificates
            .iter()
            .map(|certificate| Ok((certificate, load(certificate, provider)?)))
            .collect::<Result<Vec<_>, TlsError>>()?;
        let Some((_, default)) = loaded.first() else {
            return Err(TlsError::NoCertificates);
        };
        let mut found = Self {
            exact: BTreeMap::new(),
            wildcard: BTreeMap::new(),
            default: Arc::clone(default),
        };
        for (certificate, key) in &loaded {
            let names = if certificate.names.is_empty() {
                names_of(certificate, key)?
            } else {
                certificate.names.clone()
            };
            for name in names {
                found.add(&name, key)?;
            }
        }
        Ok(found)
    }

    fn add(&mut self, name: &str, key: &Arc<CertifiedKey>) -> Result<(), TlsError> {
        let wrong = || TlsError::Name {
            name: name.to_owned(),
        };
        let lower = name.trim_end_matches('.').to_ascii_lowercase();
        let (table, rest) = match lower.strip_prefix("*.") {
            Some(rest) => (&mut self.wildcard, rest),
            None => (&mut self.exact, lower.as_str()),
        };
        DnsName::try_from(rest).map_err(|_| wrong())?;
        let keys = table.entry(rest.to_owned()).or_default();
        if !keys.iter().any(|known| Arc::ptr_eq(known, key)) {
            keys.push(Arc::clone(key));
        }
        Ok(())
    }

    /// The certificate for a name and the signatures that the client can check.
    pub(super) fn find(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Arc<CertifiedKey> {
        let name = name.map(str::to_ascii_lowercase);
        let exact = name.as_deref().and_then(|name| self.exact.get(name));
        let wildcard = name
            .as_deref()
            .and_then(|name| self.wildcard.get(name.split_once('.')?.1));
        let named = || exact.into_iter().chain(wildcard).flatten();
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        // If the client can check none of them, it is told so with the one that it asked for.
        let chosen = named()
            .find(usable)
            .or_else(|| named().next())
            .unwrap_or(&self.default);
        Arc::clone(chosen)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.find(hello.server_name(), hello.signature_schemes()))
    }
}

fn load(
    certificate: &Certificate,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificate.chain.certificates()?;
    let key = certificate.key.key()?;
    let made = CertifiedKey::from_der(chain, key, provider);
    made.map(Arc::new).map_err(|error| match error {
        Error::InconsistentKeys(_) => TlsError::KeyMismatch {
            chain: certificate.chain.origin(),
            key: certificate.key.origin(),
        },
        Error::InvalidCertificate(problem) => TlsError::Certificate {
            origin: certificate.chain.origin(),
            problem: problem.to_string(),
        },
        other => TlsError::Key {
            origin: certificate.key.origin(),
            problem: other.to_string(),
        },
    })
}

/// The DNS names that a certificate is made out to. One without any can still be the default.
fn names_of(certificate: &Certificate, key: &CertifiedKey) -> Result<Vec<String>, TlsError> {
    let wrong = |problem: String| TlsError::Certificate {
        origin: certificate.chain.origin(),
        problem,
    };
    let leaf = key.end_entity_cert().map_err(|e| wrong(e.to_string()))?;
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf).map_err(|e| wrong(e.to_string()))?;
    let names = leaf
        .subject_alternative_name()
        .map_err(|e| wrong(e.to_string()))?;
    let Some(names) = names else {
        return Ok(Vec::new());
    };
    let dns = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
    // A name that no client can ask for does not make the certificate useless.
    Ok(dns
        .filter(|name| DnsName::try_from(name.trim_start_matches("*.")).is_ok())
        .collect())
}
