//! Certificates, and clients with them, for tests.

use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use sim_core::clock::{Clock, VirtualClock};
use sim_core::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Certificate, Pem, TlsConfig};

/// A clock that stands in the middle of 2026.
pub(in crate::proxy) fn clock() -> (Clock, VirtualClock) {
    Clock::virtual_at("2026-06-01T00:00:00Z".parse().unwrap())
}

pub(in crate::proxy) fn inline(text: impl Into<String>) -> Pem {
    Pem::Inline(Bytes::from(text.into()))
}

/// A certificate with its key, in PEM.
pub(in crate::proxy) struct Issued {
    pub(in crate::proxy) chain: String,
    pub(in crate::proxy) key: String,
}

impl Issued {
    pub(in crate::proxy) fn to_show(&self) -> Certificate {
        Certificate {
            chain: inline(&self.chain),
            key: inline(&self.key),
            names: Vec::new(),
        }
    }

    pub(in crate::proxy) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.chain.as_bytes()).unwrap()
    }
}

/// An authority.
pub(in crate::proxy) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(in crate::proxy) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    }

    pub(in crate::proxy) fn pem(&self) -> Pem {
        inline(self.issuer.pem())
    }

    /// A server's certificate.
    pub(in crate::proxy) fn server(&self, names: &[&str]) -> Issued {
        self.server_by(names, &KeyPair::generate().unwrap())
    }

    pub(in crate::proxy) fn server_by(&self, names: &[&str], key: &KeyPair) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        self.issue(&params, key)
    }

    /// A client's certificate with a serial number, valid in the years `from..to`.
    pub(in crate::proxy) fn client(&self, serial: u64, from: i32, to: i32) -> Issued {
        let mut params = CertificateParams::default();
        let name = &mut params.distinguished_name;
        name.remove(DnType::CommonName);
        name.push(DnType::CountryName, "CH");
        name.push(DnType::OrganizationName, "Rail, Inc.");
        name.push(DnType::CommonName, "client one");
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(&params, &KeyPair::generate().unwrap())
    }

    fn issue(&self, params: &CertificateParams, key: &KeyPair) -> Issued {
        Issued {
            chain: params.signed_by(key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    pub(in crate::proxy) fn revoked(&self, serials: &[u64]) -> Pem {
        let revoked = serials.iter().map(|&serial| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2026, 2, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 3, 1),
            next_update: date_time_ymd(2027, 3, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        inline(params.signed_by(&self.issuer).unwrap().pem().unwrap())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }

    /// A client that trusts this authority and speaks one version.
    pub(in crate::proxy) fn client_of_version(
        &self,
        version: &'static SupportedProtocolVersion,
    ) -> ClientConfig {
        ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth()
    }

    /// A client that trusts this authority, and shows a certificate if it is given one.
    pub(in crate::proxy) fn trusting_client(&self, shown: Option<&Issued>) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots());
        match shown {
            None => builder.with_no_client_auth(),
            Some(issued) => {
                let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
                builder
                    .with_client_auth_cert(vec![issued.der()], key)
                    .unwrap()
            }
        }
    }
}

pub(in crate::proxy) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Settings with certificates to show.
pub(in crate::proxy) fn config(certificates: &[&Issued]) -> TlsConfig {
    TlsConfig {
        certificates: certificates.iter().map(|issued| issued.to_show()).collect(),
        ..TlsConfig::default()
    }
}

/// The client's side of a handshake.
pub(in crate::proxy) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    client: &Arc<ClientConfig>,
    stream: S,
    name: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<S>> {
    let name = name.to_owned().try_into().unwrap();
    tokio_rustls::TlsConnector::from(Arc::clone(client))
        .connect(name, stream)
        .await
}
