//! Listeners.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::route::{ActionConfig, RuleConfig};
use super::span;

/// A socket that a proxy listens on, and what it does with what comes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerConfig {
    /// Its name, as logs report it. Empty, the default, is protocol and port: `HTTP:80`.
    pub name: String,
    /// Which address is bound when `address` is absent. Default: internal.
    pub scheme: Scheme,
    /// The address that is bound. Default: as the scheme says.
    pub address: Option<IpAddr>,
    /// The port that is bound; 0 lets the system choose. Default: 0.
    pub port: u16,
    /// What is spoken on it. Default: HTTP.
    pub protocol: Protocol,
    /// Certificates with their keys; the first is shown where no name fits. HTTPS and TLS need one.
    pub certificates: Vec<CertificateConfig>,
    /// The versions and ciphers of TLS that are spoken, by the reference's name. Default: [`SECURITY_POLICY`].
    pub security_policy: String,
    /// The protocols that are offered by ALPN. Default: none on TLS; HTTPS offers HTTP/2 and HTTP/1.1 then.
    pub alpn_policy: AlpnPolicy,
    /// Whether clients show certificates. Default: no.
    pub mutual_authentication: MutualAuthentication,
    /// What happens to requests that no rule matches. TCP, TLS and UDP have these only, and only forward.
    pub default_actions: Vec<ActionConfig>,
    /// Rules, tried by ascending priority. HTTP and HTTPS only.
    pub rules: Vec<RuleConfig>,
    /// How long a TCP or TLS connection may stand without a byte. Default: 350 s; AWS: 60 to 6,000 s.
    #[serde(with = "span")]
    pub idle_timeout: Duration,
    /// How long a UDP flow may stand without a datagram. Default: 120 s (AWS's, fixed there).
    #[serde(with = "span")]
    pub udp_idle_timeout: Duration,
    /// Whether connections begin with a PROXY protocol header; beyond AWS. Default: no.
    pub proxy_protocol: ProxyProtocolIn,
    /// Names of request headers and values of response headers.
    pub attributes: ListenerAttributes,
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            scheme: Scheme::default(),
            address: None,
            port: 0,
            protocol: Protocol::default(),
            certificates: Vec::new(),
            security_policy: SECURITY_POLICY.to_owned(),
            alpn_policy: AlpnPolicy::default(),
            mutual_authentication: MutualAuthentication::default(),
            default_actions: Vec::new(),
            rules: Vec::new(),
            idle_timeout: Duration::from_secs(350),
            udp_idle_timeout: Duration::from_secs(120),
            proxy_protocol: ProxyProtocolIn::default(),
            attributes: ListenerAttributes::default(),
        }
    }
}

/// Who can reach a listener. In the cloud a matter of subnets; in a process, of the address that is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Scheme {
    /// This machine: the loopback address, unless another is given.
    #[default]
    Internal,
    /// Everybody: all addresses, unless one is given.
    InternetFacing,
}

impl Scheme {
    pub(super) const fn address(self) -> IpAddr {
        match self {
            Self::Internal => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Self::InternetFacing => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }
    }
}

/// What is spoken on a listener or with a group's targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP/1.1 and, by prior knowledge, HTTP/2.
    #[default]
    Http,
    /// The same on TLS.
    Https,
    /// Streams of bytes.
    Tcp,
    /// The same, decrypted here.
    Tls,
    /// Datagrams.
    Udp,
    /// Streams and datagrams on one port.
    TcpUdp,
    /// Declared, and refused: no QUIC stack is carried.
    Quic,
    /// Declared, and refused: no QUIC stack is carried.
    TcpQuic,
    /// Declared, and refused: GENEVE encapsulates packets below sockets.
    Geneve,
}

impl Protocol {
    /// Its name in the reference, as `TCP_UDP`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Udp => "UDP",
            Self::TcpUdp => "TCP_UDP",
            Self::Quic => "QUIC",
            Self::TcpQuic => "TCP_QUIC",
            Self::Geneve => "GENEVE",
        }
    }

    /// Whether requests are seen, and not only bytes.
    #[must_use]
    pub const fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }

    /// Whether it runs on TLS.
    #[must_use]
    pub const fn is_secure(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    /// Why it cannot be carried, where it cannot.
    pub(super) const fn obstacle(self) -> Option<&'static str> {
        match self {
            Self::Quic | Self::TcpQuic => Some("no QUIC stack is carried"),
            Self::Geneve => Some("GENEVE encapsulates packets below sockets"),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A certificate with its key, both as PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CertificateConfig {
    /// The certificate, followed by those that lead to its authority.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The security policy of listeners that name none: TLS 1.3 and 1.2 with forward secrecy.
pub const SECURITY_POLICY: &str = "ELBSecurityPolicy-TLS13-1-2-2021-06";

/// What a TLS listener offers by ALPN, by the reference's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AlpnPolicy {
    /// Nothing.
    #[default]
    None,
    /// HTTP/1.1.
    #[serde(rename = "HTTP1Only")]
    Http1Only,
    /// HTTP/2.
    #[serde(rename = "HTTP2Only")]
    Http2Only,
    /// HTTP/1.1, then HTTP/2.
    #[serde(rename = "HTTP2Optional")]
    Http2Optional,
    /// HTTP/2, then HTTP/1.1.
    #[serde(rename = "HTTP2Preferred")]
    Http2Preferred,
}

/// Whether and how clients show certificates.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MutualAuthentication {
    /// Whether they are asked, and who verifies. Default: off.
    pub mode: MutualMode,
    /// The trust store, by name. [`MutualMode::Verify`] needs one.
    pub trust_store: Option<String>,
    /// Whether an expired certificate passes. Default: no.
    pub ignore_client_certificate_expiry: bool,
    /// Whether the handshake lists the authorities' names. Default: no.
    pub advertise_trust_store_ca_names: bool,
}

/// Who verifies client certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MutualMode {
    /// None are asked for.
    #[default]
    Off,
    /// The target: the whole chain goes there in a header.
    Passthrough,
    /// The listener, against its trust store.
    Verify,
}

/// Whether connections begin with a PROXY protocol header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyProtocolIn {
    /// Whether it is expected. Default: off.
    pub mode: PrefixMode,
    /// The peers that it is believed of; others are closed when it is required. Empty, the default, is nobody.
    pub trusted: Vec<IpNet>,
    /// How long it may take to come. Default: 5 s.
    #[serde(with = "span")]
    pub timeout: Duration,
}

impl Default for ProxyProtocolIn {
    fn default() -> Self {
        Self {
            mode: PrefixMode::Off,
            trusted: Vec::new(),
            timeout: Duration::from_secs(5),
        }
    }
}

/// Whether a PROXY protocol header is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PrefixMode {
    /// It would be taken for the client's bytes.
    #[default]
    Off,
    /// It is read where it stands.
    Optional,
    /// A connection without it is closed.
    Required,
}

/// Names of headers that targets get, and values of headers that clients get.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerAttributes {
    /// Names of request headers.
    pub request_headers: RequestHeaderNames,
    /// Response headers.
    pub response_headers: ResponseHeaders,
}

/// The names under which targets are told of the client's TLS; the defaults are the reference's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequestHeaderNames {
    /// Default: `X-Amzn-Mtls-Clientcert`.
    pub mtls_clientcert: String,
    /// Default: `X-Amzn-Mtls-Clientcert-Serial-Number`.
    pub mtls_clientcert_serial_number: String,
    /// Default: `X-Amzn-Mtls-Clientcert-Issuer`.
    pub mtls_clientcert_issuer: String,
    /// Default: `X-Amzn-Mtls-Clientcert-Subject`.
    pub mtls_clientcert_subject: String,
    /// Default: `X-Amzn-Mtls-Clientcert-Validity`.
    pub mtls_clientcert_validity: String,
    /// Default: `X-Amzn-Mtls-Clientcert-Leaf`.
    pub mtls_clientcert_leaf: String,
    /// Default: `X-Amzn-Tls-Version`.
    pub tls_version: String,
    /// Default: `X-Amzn-Tls-Cipher-Suite`.
    pub tls_cipher_suite: String,
}

impl Default for RequestHeaderNames {
    fn default() -> Self {
        Self {
            mtls_clientcert: "X-Amzn-Mtls-Clientcert".to_owned(),
            mtls_clientcert_serial_number: "X-Amzn-Mtls-Clientcert-Serial-Number".to_owned(),
            mtls_clientcert_issuer: "X-Amzn-Mtls-Clientcert-Issuer".to_owned(),
            mtls_clientcert_subject: "X-Amzn-Mtls-Clientcert-Subject".to_owned(),
            mtls_clientcert_validity: "X-Amzn-Mtls-Clientcert-Validity".to_owned(),
            mtls_clientcert_leaf: "X-Amzn-Mtls-Clientcert-Leaf".to_owned(),
            tls_version: "X-Amzn-Tls-Version".to_owned(),
            tls_cipher_suite: "X-Amzn-Tls-Cipher-Suite".to_owned(),
        }
    }
}

impl RequestHeaderNames {
    pub(super) fn each(&self) -> [(&'static str, &str); 8] {
        [
            ("mtls_clientcert", &self.mtls_clientcert),
            (
                "mtls_clientcert_serial_number",
                &self.mtls_clientcert_serial_number,
            ),
            ("mtls_clientcert_issuer", &self.mtls_clientcert_issuer),
            ("mtls_clientcert_subject", &self.mtls_clientcert_subject),
            ("mtls_clientcert_validity", &self.mtls_clientcert_validity),
            ("mtls_clientcert_leaf", &self.mtls_clientcert_leaf),
            ("tls_version", &self.tls_version),
            ("tls_cipher_suite", &self.tls_cipher_suite),
        ]
    }
}

/// Headers that every response of the listener gets, in place of the target's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResponseHeaders {
    /// Whether the `Server` header passes. Default: yes.
    pub server: bool,
    /// `Strict-Transport-Security`.
    pub strict_transport_security: Option<String>,
    /// `Access-Control-Allow-Origin`.
    pub access_control_allow_origin: Option<String>,
    /// `Access-Control-Allow-Methods`.
    pub access_control_allow_methods: Option<String>,
    /// `Access-Control-Allow-Headers`.
    pub access_control_allow_headers: Option<String>,
    /// `Access-Control-Allow-Credentials`.
    pub access_control_allow_credentials: Option<String>,
    /// `Access-Control-Expose-Headers`.
    pub access_control_expose_headers: Option<String>,
    /// `Access-Control-Max-Age`.
    pub access_control_max_age: Option<String>,
    /// `Content-Security-Policy`.
    pub content_security_policy: Option<String>,
    /// `X-Content-Type-Options`: `nosniff`.
    pub x_content_type_options: Option<String>,
    /// `X-Frame-Options`: `DENY`, `SAMEORIGIN` or `ALLOW-FROM` with an address.
    pub x_frame_options: Option<String>,
}

impl Default for ResponseHeaders {
    fn default() -> Self {
        Self {
            server: true,
            strict_transport_security: None,
            access_control_allow_origin: None,
            access_control_allow_methods: None,
            access_control_allow_headers: None,
            access_control_allow_credentials: None,
            access_control_expose_headers: None,
            access_control_max_age: None,
            content_security_policy: None,
            x_content_type_options: None,
            x_frame_options: None,
        }
    }
}

impl ResponseHeaders {
    /// The headers with their values, those that are set.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("strict-transport-security", &self.strict_transport_security),
            (
                "access-control-allow-origin",
                &self.access_control_allow_origin,
            ),
            (
                "access-control-allow-methods",
                &self.access_control_allow_methods,
            ),
            (
                "access-control-allow-headers",
                &self.access_control_allow_headers,
            ),
            (
                "access-control-allow-credentials",
                &self.access_control_allow_credentials,
            ),
            (
                "access-control-expose-headers",
                &self.access_control_expose_headers,
            ),
            ("access-control-max-age", &self.access_control_max_age),
            ("content-security-policy", &self.content_security_policy),
            ("x-content-type-options", &self.x_content_type_options),
            ("x-frame-options", &self.x_frame_options),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.as_deref().map(|value| (name, value)))
    }
}
