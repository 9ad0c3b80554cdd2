//! Certificates of clients.

use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use sim_core::sync::Arc;

use super::{CaNames, Expired, Mutual, TlsError, TrustStore};

/// The most certificates of a chain whose ends are tried, to find a time at which all of it was valid.
const MAX_ENDS: usize = 8;

/// Makes what checks the certificates of clients.
pub(super) fn verifier(
    mutual: &Mutual,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    match mutual {
        Mutual::Off => Ok(WebPkiClientVerifier::no_client_auth()),
        Mutual::Passthrough => Ok(Arc::new(Anybody {
            algorithms: provider.signature_verification_algorithms,
        })),
        Mutual::Verify(store) => trusting(store, provider),
    }
}

fn trusting(
    store: &TrustStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in store.certificates.certificates()? {
        roots.add(root).map_err(|error| TlsError::Certificate {
            origin: store.certificates.origin(),
            problem: error.to_string(),
        })?;
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    for list in &store.revocations {
        builder = builder.with_crls(list.revocations()?);
    }
    builder = builder.allow_unknown_revocation_status();
    if store.names == CaNames::Hidden {
        builder = builder.clear_root_hint_subjects();
    }
    let verifier = builder.build().map_err(|error| TlsError::Revocations {
        problem: error.to_string(),
    })?;
    Ok(match store.expired {
        Expired::Refused => verifier,
        Expired::Accepted => Arc::new(Lenient(verifier)),
    })
}

/// Takes any certificate, of who can prove to have its key.
#[derive(Debug)]
struct Anybody {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Anybody {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Does not mind that a certificate expired: judges the chain as of a time at which it had not.
#[derive(Debug)]
struct Lenient(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Lenient {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let mut refused = match self.0.verify_client_cert(end_entity, intermediates, now) {
            Err(
                refused @ Error::InvalidCertificate(
                    CertificateError::Expired | CertificateError::ExpiredContext { .. },
                ),
            ) => refused,
            other => return other,
        };
        let ends = std::iter::once(end_entity)
            .chain(intermediates)
            .take(MAX_ENDS)
            .filter_map(end_of)
            .filter(|end| *end < now);
        for end in ends {
            match self.0.verify_client_cert(end_entity, intermediates, end) {
                Ok(verified) => return Ok(verified),
                // What is wrong besides, such as a revocation.
                Err(besides) => refused = besides,
            }
        }
        Err(refused)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The last second in which a certificate is valid.
fn end_of(certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}
