//! From a listener's configuration to TLS.

use http::HeaderName;
use http::header::InvalidHeaderName;

use super::{
    AlpnPolicy, CaNames, Certificate, Expired, Mutual, MutualHeaders, Pem, SessionHeaders,
    TlsConfig, TlsError, TrustStore,
};
use crate::proxy::config::{ListenerConfig, MutualMode, Protocol, ProxyConfig, RequestHeaderNames};

impl TlsConfig {
    /// What `listener`, one of `proxy`'s, says of TLS.
    ///
    /// A listener for HTTPS that names no [`AlpnPolicy`] prefers HTTP/2, or speaks HTTP/1.1 where the proxy does not
    /// speak HTTP/2.
    ///
    /// # Errors
    /// [`TlsError`] for a security policy that is none, and a trust store that is missing.
    pub fn of_listener(listener: &ListenerConfig, proxy: &ProxyConfig) -> Result<Self, TlsError> {
        let certificates = listener.certificates.iter().map(|pair| Certificate {
            chain: Pem::File(pair.chain.clone()),
            key: Pem::File(pair.key.clone()),
            names: Vec::new(),
        });
        let alpn = match (listener.protocol, listener.alpn_policy) {
            (Protocol::Https, AlpnPolicy::None) if proxy.attributes.http2 => {
                AlpnPolicy::Http2Preferred
            }
            (Protocol::Https, AlpnPolicy::None) => AlpnPolicy::Http1Only,
            (_, policy) => policy,
        };
        Ok(Self {
            certificates: certificates.collect(),
            alpn,
            security_policy: listener.security_policy.parse()?,
            mutual: mutual(listener, proxy)?,
            ..Self::default()
        })
    }
}

fn mutual(listener: &ListenerConfig, proxy: &ProxyConfig) -> Result<Mutual, TlsError> {
    let asked = &listener.mutual_authentication;
    Ok(match asked.mode {
        MutualMode::Off => Mutual::Off,
        MutualMode::Passthrough => Mutual::Passthrough,
        MutualMode::Verify => {
            let name = asked.trust_store.as_deref().unwrap_or_default();
            let store = proxy.trust_stores.iter().find(|store| store.name == name);
            let store = store.ok_or_else(|| TlsError::TrustStore {
                name: name.to_owned(),
            })?;
            Mutual::Verify(TrustStore {
                certificates: Pem::File(store.certificates.clone()),
                revocations: store.revocations.iter().cloned().map(Pem::File).collect(),
                names: if asked.advertise_trust_store_ca_names {
                    CaNames::Advertised
                } else {
                    CaNames::Hidden
                },
                expired: if asked.ignore_client_certificate_expiry {
                    Expired::Accepted
                } else {
                    Expired::Refused
                },
            })
        }
    })
}

impl MutualHeaders {
    /// The headers under the names that a listener gives them.
    ///
    /// # Errors
    /// For a name that no header can have.
    pub fn named(names: &RequestHeaderNames) -> Result<Self, InvalidHeaderName> {
        Ok(Self {
            certificate: name(&names.mtls_clientcert)?,
            serial_number: name(&names.mtls_clientcert_serial_number)?,
            issuer: name(&names.mtls_clientcert_issuer)?,
            subject: name(&names.mtls_clientcert_subject)?,
            validity: name(&names.mtls_clientcert_validity)?,
            leaf: name(&names.mtls_clientcert_leaf)?,
        })
    }
}

impl SessionHeaders {
    /// The headers under the names that a listener gives them.
    ///
    /// # Errors
    /// For a name that no header can have.
    pub fn named(names: &RequestHeaderNames) -> Result<Self, InvalidHeaderName> {
        Ok(Self {
            version: name(&names.tls_version)?,
            cipher: name(&names.tls_cipher_suite)?,
        })
    }
}

fn name(text: &str) -> Result<HeaderName, InvalidHeaderName> {
    HeaderName::from_bytes(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::config::{CertificateConfig, MutualAuthentication, TrustStoreConfig};

    fn listener(protocol: Protocol) -> ListenerConfig {
        ListenerConfig {
            protocol,
            certificates: vec![CertificateConfig {
                chain: "chain.pem".into(),
                key: "key.pem".into(),
            }],
            ..Default::default()
        }
    }

    #[test]
    fn https_prefers_http2_unless_the_listener_or_the_proxy_says_otherwise() {
        let mut proxy = ProxyConfig::default();
        let alpn = |listener: &ListenerConfig, proxy: &ProxyConfig| {
            TlsConfig::of_listener(listener, proxy).unwrap().alpn
        };
        let (https, tls) = (listener(Protocol::Https), listener(Protocol::Tls));
        assert_eq!(alpn(&https, &proxy), AlpnPolicy::Http2Preferred);
        assert_eq!(alpn(&tls, &proxy), AlpnPolicy::None);
        proxy.attributes.http2 = false;
        assert_eq!(alpn(&https, &proxy), AlpnPolicy::Http1Only);
        let mut only = https;
        only.alpn_policy = AlpnPolicy::Http2Optional;
        assert_eq!(alpn(&only, &proxy), AlpnPolicy::Http2Optional);
    }

    #[test]
    fn a_trust_store_is_found_by_name() {
        let proxy = ProxyConfig {
            trust_stores: vec![TrustStoreConfig {
                name: "partners".to_owned(),
                certificates: "ca.pem".into(),
                revocations: vec!["crl.pem".into()],
            }],
            ..Default::default()
        };
        let mut listener = listener(Protocol::Https);
        listener.mutual_authentication = MutualAuthentication {
            mode: MutualMode::Verify,
            trust_store: Some("partners".to_owned()),
            ignore_client_certificate_expiry: true,
            advertise_trust_store_ca_names: true,
        };
        let config = TlsConfig::of_listener(&listener, &proxy).unwrap();
        assert_eq!(
            config.mutual,
            Mutual::Verify(TrustStore {
                certificates: Pem::File("ca.pem".into()),
                revocations: vec![Pem::File("crl.pem".into())],
                names: CaNames::Advertised,
                expired: Expired::Accepted,
            })
        );
        listener.mutual_authentication.trust_store = Some("others".to_owned());
        assert!(matches!(
            TlsConfig::of_listener(&listener, &proxy),
            Err(TlsError::TrustStore { name }) if name == "others"
        ));
        listener.security_policy = "strong".to_owned();
        assert!(matches!(
            TlsConfig::of_listener(&listener, &proxy),
            Err(TlsError::Policy(_))
        ));
    }

    #[test]
    fn headers_are_renamed() {
        let names = RequestHeaderNames {
            mtls_clientcert_leaf: "X-Leaf".to_owned(),
            tls_version: "X-Tls".to_owned(),
            ..Default::default()
        };
        let named = MutualHeaders::named(&names).unwrap();
        assert_eq!(named.leaf, "x-leaf");
        assert_eq!(named.issuer, MutualHeaders::default().issuer);
        let session = SessionHeaders::named(&names).unwrap();
        assert_eq!(
            (session.version.as_str(), session.cipher),
            ("x-tls", SessionHeaders::default().cipher)
        );
        let wrong = RequestHeaderNames {
            tls_version: "X Tls".to_owned(),
            ..Default::default()
        };
        assert!(SessionHeaders::named(&wrong).is_err());
    }
}
