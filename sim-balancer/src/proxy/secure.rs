//! From a configuration to TLS and the PROXY protocol of its listeners and groups.

use http::HeaderName;
use sim_core::clock::Clock;

use super::ProxyError;
use super::config::{
    ListenerConfig, PrefixMode, Protocol, ProtocolVersion, ProxyConfig, RequestHeaderNames,
    TargetGroupConfig,
};
use super::prefix::{Mode, PrefixConfig, PrefixReader};
use super::tls::{
    MutualHeaders, Negotiated, Pem, SessionHeaders, TargetTlsConfig, TlsAcceptor, TlsConfig,
    TlsConnector, Verify,
};

/// The acceptor of a listener on TLS.
pub(crate) fn acceptor(
    listener: &ListenerConfig,
    whole: &ProxyConfig,
    clock: &Clock,
) -> Result<TlsAcceptor, ProxyError> {
    let invalid = |problem: String| ProxyError::Listener {
        name: listener.name.clone(),
        problem,
    };
    let config =
        TlsConfig::of_listener(listener, whole).map_err(|error| invalid(error.to_string()))?;
    TlsAcceptor::new(&config, clock.clone()).map_err(|problem| ProxyError::Tls {
        name: listener.name.clone(),
        problem,
    })
}

/// The connector to the targets of a group on TLS.
pub(crate) fn connector(
    config: &TargetGroupConfig,
    clock: &Clock,
) -> Result<TlsConnector, ProxyError> {
    let verify = match (&config.tls.ca, config.tls.verify) {
        (_, false) => Verify::Nothing,
        (None, true) => Verify::NativeRoots,
        (Some(path), true) => Verify::Roots(Pem::File(path.clone())),
    };
    let protocols = match config.protocol_version {
        _ if config.protocol == Protocol::Tls => Vec::new(),
        ProtocolVersion::Http2 | ProtocolVersion::Grpc => vec![Negotiated::Http2],
        _ => vec![Negotiated::Http1],
    };
    let settings = TargetTlsConfig {
        verify,
        name: config.tls.name.clone(),
        protocols,
        ..TargetTlsConfig::default()
    };
    TlsConnector::new(&settings, clock.clone()).map_err(|problem| ProxyError::Tls {
        name: config.name.clone(),
        problem,
    })
}

/// The reader of the PROXY protocol, for a listener that expects it.
pub(crate) fn prefix(
    listener: &ListenerConfig,
    clock: &Clock,
) -> Result<Option<PrefixReader>, ProxyError> {
    let asked = &listener.proxy_protocol;
    let mode = match asked.mode {
        PrefixMode::Optional => Mode::Optional,
        PrefixMode::Required => Mode::Required,
        _ => return Ok(None),
    };
    let config = PrefixConfig {
        mode,
        trusted: asked.trusted.clone(),
        timeout: asked.timeout,
        ..PrefixConfig::default()
    };
    PrefixReader::new(config, clock.clone())
        .map(Some)
        .map_err(|error| ProxyError::Listener {
            name: listener.name.clone(),
            problem: format!("proxy_protocol: {error}"),
        })
}

/// The names of the fields that tell targets of certificates and sessions.
pub(crate) fn names(asked: &RequestHeaderNames) -> (MutualHeaders, SessionHeaders) {
    let usual = (MutualHeaders::default(), SessionHeaders::default());
    // The configuration's check has parsed them once already.
    let name = |text: &str, usual: HeaderName| text.parse().unwrap_or(usual);
    let mutual = MutualHeaders {
        certificate: name(&asked.mtls_clientcert, usual.0.certificate),
        serial_number: name(&asked.mtls_clientcert_serial_number, usual.0.serial_number),
        issuer: name(&asked.mtls_clientcert_issuer, usual.0.issuer),
        subject: name(&asked.mtls_clientcert_subject, usual.0.subject),
        validity: name(&asked.mtls_clientcert_validity, usual.0.validity),
        leaf: name(&asked.mtls_clientcert_leaf, usual.0.leaf),
    };
    let session = SessionHeaders {
        version: name(&asked.tls_version, usual.1.version),
        cipher: name(&asked.tls_cipher_suite, usual.1.cipher),
    };
    (mutual, session)
}
