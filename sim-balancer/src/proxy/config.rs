//! What a proxy is told: plain fields with defaults, by literal or from a file ([`super::file`]).
//!
//! Nothing here acts. [`ProxyConfig::plan`] checks every field once and compiles the whole into a [`Plan`]; an error
//! names the field by its path, as `listeners[0].rules[2].conditions[1].values`, with the value and the limit.
//!
//! Names are those of Elastic Load Balancing where it has one. What it limits is a limit here only under
//! [`Profile::Aws`]; what a process cannot carry ([`CloudConfig`]; the protocols QUIC, `TCP_QUIC` and GENEVE) is data,
//! kept for round trips, or refused by name.
//!
//! In a file, durations are seconds (`60`) or text (`"500ms"`, `"60s"`, `"5m"`, `"1h"`, `"7d"`).
//!
//! ```
//! use sim_balancer::proxy::config::{ListenerConfig, ProxyConfig, TargetConfig, TargetGroupConfig};
//! use sim_balancer::proxy::config::{ActionConfig, ForwardConfig};
//!
//! let config = ProxyConfig {
//!     listeners: vec![ListenerConfig {
//!         port: 8080,
//!         default_actions: vec![ActionConfig::Forward(ForwardConfig::to("web"))],
//!         ..Default::default()
//!     }],
//!     target_groups: vec![TargetGroupConfig {
//!         name: "web".into(),
//!         targets: vec![TargetConfig::at("127.0.0.1:9001"), TargetConfig::at("127.0.0.1:9002")],
//!         ..Default::default()
//!     }],
//!     ..Default::default()
//! };
//! assert!(config.check().is_ok());
//! ```

mod balancing;
mod check;
mod group;
mod listener;
mod plan;
mod problem;
mod quota;
mod route;
mod span;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use group::{
    AlgorithmName, FailoverConfig, HashKey, HealthCheckConfig, HealthCheckProtocol, IpAddressType,
    OutlierConfig, PoolConfig, ProtocolVersion, RetryConfig, RetryOn, StickinessConfig,
    StickinessKind, TargetConfig, TargetGroupConfig, TargetTls, TargetType,
};
pub use listener::{
    AlpnPolicy, CertificateConfig, ListenerAttributes, ListenerConfig, MutualAuthentication,
    MutualMode, PrefixMode, Protocol, ProxyProtocolIn, RequestHeaderNames, ResponseHeaders,
    SECURITY_POLICY, Scheme,
};
pub use plan::{GroupPlan, ListenerPlan, Plan};

pub(crate) use check::is_token;
pub(crate) use problem::At;
pub use problem::{Problem, ProxyConfigError};
pub use quota::{Profile, Quotas};
pub use route::{
    ActionConfig, ClaimConfig, ClaimFormat, ClientAuthentication, CognitoConfig, ConditionConfig,
    CorsConfig, FaultConfig, FixedResponseConfig, ForwardConfig, GroupStickiness, HeaderEditConfig,
    HeaderMatch, HeadersConfig, JwtConfig, MethodMatch, MirrorConfig, OidcConfig,
    OnUnauthenticated, QueryMatch, QueryPair, RateKey, RateLimitConfig, RedirectConfig,
    RewriteConfig, RuleConfig, SourceMatch, TransformConfig, ValueMatch, WeightedGroup,
};

/// The configuration of a proxy.
///
/// Write it as a literal that ends in `..Default::default()`; fields may be added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyConfig {
    /// The load balancer's name, as logs report it. Default: `"proxy"`.
    pub name: String,
    /// The sockets that it listens on.
    pub listeners: Vec<ListenerConfig>,
    /// The groups of targets, referred to by name.
    pub target_groups: Vec<TargetGroupConfig>,
    /// Certificates of authorities for client certificates, referred to by name.
    pub trust_stores: Vec<TrustStoreConfig>,
    /// What holds for all listeners.
    pub attributes: Attributes,
    /// Where requests, connections and health checks are logged.
    pub logs: LogsConfig,
    /// Keys of cookies and of signed headers.
    pub secrets: SecretsConfig,
    /// How much of each there may be.
    pub quotas: Quotas,
    /// What only a cloud can carry.
    pub cloud: CloudConfig,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            name: "proxy".to_owned(),
            listeners: Vec::new(),
            target_groups: Vec::new(),
            trust_stores: Vec::new(),
            attributes: Attributes::default(),
            logs: LogsConfig::default(),
            secrets: SecretsConfig::default(),
            quotas: Quotas::default(),
            cloud: CloudConfig::default(),
        }
    }
}

/// What holds for all listeners of a proxy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Attributes {
    /// How long a connection may stand without a byte, on both sides of HTTP. Default: 60 s; AWS: 1 to 4,000 s.
    ///
    /// Also how long the whole head of a request over HTTP/1.1 may take from its first byte on, how long a connection over
    /// HTTP/2 may stand without a request whatever else comes on it, and how long a client over HTTP/2 may make no room for a
    /// response that waits for it: such a connection takes no more requests, and ends after as long again, or at once
    /// when none of its streams moves.
    #[serde(with = "span")]
    pub idle_timeout: Duration,
    /// How long a client's connection is kept, whatever it does. Default: 3,600 s; AWS: 60 to 604,800 s.
    #[serde(with = "span")]
    pub client_keep_alive: Duration,
    /// How requests that two parsers may read differently are treated. Default: defensive.
    pub desync_mitigation: DesyncMitigation,
    /// Whether headers with names outside of `[-A-Za-z0-9]+` are dropped. Default: no.
    pub drop_invalid_header_fields: bool,
    /// Whether targets see the client's `Host` as it came (AWS strips the port otherwise). Default: no.
    pub preserve_host_header: bool,
    /// What happens to `X-Forwarded-For`. Default: append.
    pub xff_mode: XffMode,
    /// Whether `X-Forwarded-For` tells the client's port too. Default: no.
    pub xff_client_port: bool,
    /// Whether targets get `x-amzn-tls-version` and `x-amzn-tls-cipher-suite`. Default: no.
    pub tls_version_and_cipher_headers: bool,
    /// Whether listeners speak HTTP/2. Default: yes.
    pub http2: bool,
    /// Whether requests pass while the service's firewall (WAF) fails: data only, there is no firewall here. Default: no.
    pub waf_fail_open: bool,
    /// Whether targets of all zones serve every zone's requests, unless a group says otherwise. Default: yes.
    pub cross_zone: bool,
    /// Where clients of a zone are sent. Default: any zone.
    pub client_routing: ClientRouting,
    /// The zone that this proxy stands in. Default: none.
    pub zone: Option<String>,
    /// Whether a control plane should refuse to delete it: data only, a process can always be ended. Default: no.
    pub deletion_protection: bool,
    /// Whether `X-Amzn-Trace-Id` is set and continued. Default: yes.
    pub trace_id: bool,
    /// Peers whose `X-Forwarded-For` is believed for `source-ip` conditions; beyond ALB, which believes none. Default: none.
    pub trusted_proxies: Vec<IpNet>,
    /// The most client connections at a time, over all listeners; more are closed at once. Default: 65,536.
    pub max_connections: usize,
    /// The most bytes of a request's line and headers. Default: 64 KiB (AWS: 64 K in all).
    pub max_header_bytes: usize,
    /// The most bytes of a request's body, over HTTP; a longer one gets 413. None is unbounded, for a body streams through.
    /// Default: none (AWS's for all but functions).
    pub max_body_bytes: Option<u64>,
    /// How long a connection to a target may take to open. Default: 10 s (AWS's).
    #[serde(with = "span")]
    pub connect_timeout: Duration,
    /// The longest time from a request's headers to its response's, or none; beyond AWS. Default: none.
    #[serde(with = "span::option")]
    pub request_timeout: Option<Duration>,
    /// How long requests in progress, and WebSockets, may go on once the proxy or their listener is told to stop. Default: 30 s.
    #[serde(with = "span")]
    pub drain_timeout: Duration,
    /// Threads that serve, or 0 for one a processor. Default: 0.
    pub workers: usize,
}

impl Default for Attributes {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(60),
            client_keep_alive: Duration::from_secs(3_600),
            desync_mitigation: DesyncMitigation::default(),
            drop_invalid_header_fields: false,
            preserve_host_header: false,
            xff_mode: XffMode::default(),
            xff_client_port: false,
            tls_version_and_cipher_headers: false,
            http2: true,
            waf_fail_open: false,
            cross_zone: true,
            client_routing: ClientRouting::default(),
            zone: None,
            deletion_protection: false,
            trace_id: true,
            trusted_proxies: Vec::new(),
            max_connections: 65_536,
            max_header_bytes: 65_536,
            max_body_bytes: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: None,
            drain_timeout: Duration::from_secs(30),
            workers: 0,
        }
    }
}

/// How requests that two parsers may read differently are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DesyncMitigation {
    /// All pass, and are counted.
    Monitor,
    /// What is known to be an attack is refused; the rest passes on a connection of its own.
    #[default]
    Defensive,
    /// Only what follows RFC 9112 to the letter passes.
    Strictest,
}

/// What happens to the client's `X-Forwarded-For`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum XffMode {
    /// The client's address is added at its end.
    #[default]
    Append,
    /// It passes as it came.
    Preserve,
    /// It is removed.
    Remove,
}

/// Where clients of a zone are sent: AWS's client routing policy, which there acts in DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ClientRouting {
    /// Any zone.
    #[default]
    AnyAvailabilityZone,
    /// The client's own zone for 85 of 100.
    PartialAvailabilityZoneAffinity,
    /// The client's own zone.
    AvailabilityZoneAffinity,
}

impl ClientRouting {
    /// The share that stays in the client's zone, in percent.
    #[must_use]
    pub const fn affinity_percent(self) -> u32 {
        match self {
            Self::AnyAvailabilityZone => 0,
            Self::PartialAvailabilityZoneAffinity => 85,
            Self::AvailabilityZoneAffinity => 100,
        }
    }
}

/// Where logs go. Default: nowhere.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogsConfig {
    /// One line a request.
    pub access: Option<LogTarget>,
    /// One line a connection.
    pub connection: Option<LogTarget>,
    /// One line a health check: time, group, target, `PASS`, `FAIL` or `ERROR`, reason code, seconds that it took.
    pub health_check: Option<LogTarget>,
}

/// Where a log goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogTarget {
    /// The file that lines are appended to; none is the standard output. Default: none.
    pub path: Option<PathBuf>,
    /// How many lines may wait to be written; more are dropped and counted. Default: 8,192.
    pub capacity: usize,
}

impl Default for LogTarget {
    fn default() -> Self {
        Self {
            path: None,
            capacity: 8_192,
        }
    }
}

/// Keys of the proxy's own cookies and signatures.
///
/// Without a `cookie_key` each start draws a new one: clients then lose their stickiness and log in again, and two
/// proxies do not read each other's cookies.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecretsConfig {
    /// 32 bytes in base64 (either alphabet, padded or not) that encrypt cookies. Default: drawn at the start.
    pub cookie_key: Option<String>,
    /// A file that holds the same; read at the start. Not together with `cookie_key`.
    pub cookie_key_file: Option<PathBuf>,
    /// The name of the key that signs `x-amzn-oidc-data`, as its header's `kid` tells. Default: `"sim"`.
    pub signer_id: Option<String>,
}

impl std::fmt::Debug for SecretsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretsConfig")
            .field("cookie_key", &self.cookie_key.as_ref().map(|_| "(hidden)"))
            .field("cookie_key_file", &self.cookie_key_file)
            .field("signer_id", &self.signer_id)
            .finish()
    }
}

/// Authorities whose client certificates are accepted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrustStoreConfig {
    /// Its name, as listeners refer to it.
    pub name: String,
    /// A PEM file with the authorities' certificates.
    pub certificates: PathBuf,
    /// PEM or DER files with lists of revoked certificates.
    pub revocations: Vec<PathBuf>,
}

/// What only a cloud can carry: kept as it is, and without effect here.
///
/// A process has no subnets, security groups or capacity to reserve, announces no route (BGP, anycast) and answers no
/// DNS.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CloudConfig {
    /// Identifier of the virtual private cloud.
    pub vpc: Option<String>,
    /// Identifiers of subnets.
    pub subnets: Vec<String>,
    /// Identifiers of security groups.
    pub security_groups: Vec<String>,
    /// Capacity units that would be reserved.
    pub capacity_reservation: Option<u32>,
    /// The pool of addresses.
    pub ipam_pool: Option<String>,
    /// The ARN of the web application firewall.
    pub waf: Option<String>,
    /// Tags, as `key=value`.
    pub tags: Vec<String>,
}

impl ProxyConfig {
    /// The place of a target group, by name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<usize> {
        self.target_groups
            .iter()
            .position(|group| group.name == name)
    }
}

impl ListenerConfig {
    /// The name, or protocol and port where none is given.
    #[must_use]
    pub fn label(&self) -> String {
        match self.name.as_str() {
            "" => format!("{}:{}", self.protocol, self.port),
            name => name.to_owned(),
        }
    }

    /// The address that the listener binds: its own, or the loopback for [`Scheme::Internal`] and any for
    /// [`Scheme::InternetFacing`].
    #[must_use]
    pub fn bind(&self) -> SocketAddr {
        let address = self.address.unwrap_or_else(|| self.scheme.address());
        SocketAddr::new(address, self.port)
    }
}
