//! Groups of targets.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::listener::Protocol;
use super::span;

/// Targets that share a protocol, a health check and a way to choose among them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TargetGroupConfig {
    /// Its name, as actions refer to it.
    pub name: String,
    /// What its targets speak. Default: HTTP.
    pub protocol: Protocol,
    /// The version of HTTP that they speak. Default: HTTP/1.1.
    pub protocol_version: ProtocolVersion,
    /// What they are. Default: addresses.
    pub target_type: TargetType,
    /// The family of their addresses. Default: IPv4; data only, what resolves is used.
    pub ip_address_type: IpAddressType,
    /// The targets that are there from the start; a program may register more.
    pub targets: Vec<TargetConfig>,
    /// How one is chosen. Default: round robin (AWS's).
    pub algorithm: AlgorithmName,
    /// What the hash-based algorithms hash. Default: the client's address.
    pub hash_key: HashKey,
    /// How many targets `random-choices` compares: 2 to 64. Default: 2.
    pub choices: u32,
    /// Whether `weighted-random` sends less to targets that fail more than the others. Default: no.
    pub anomaly_mitigation: bool,
    /// How targets are probed. Default: as the reference's.
    pub health_check: HealthCheckConfig,
    /// Which clients stay with a target. Default: none.
    pub stickiness: StickinessConfig,
    /// How long a new target's share grows; 0 is off. Default: 0; AWS: 30 to 900 s.
    #[serde(with = "span")]
    pub slow_start: Duration,
    /// How long a deregistered target may finish. Default: 300 s; AWS: 0 to 3,600 s.
    #[serde(with = "span")]
    pub deregistration_delay: Duration,
    /// Whether connections are closed at the end of the deregistration delay. Default: no.
    pub connection_termination: bool,
    /// Whether connections of a target that turned unhealthy are closed. Default: no.
    pub unhealthy_connection_termination: bool,
    /// How long a target that turned unhealthy may finish. Default: 0; AWS: 0 to 360,000 s.
    #[serde(with = "span")]
    pub unhealthy_draining_interval: Duration,
    /// Whether other zones' targets are chosen; none is as the load balancer says. Default: none.
    pub cross_zone: Option<bool>,
    /// When all targets are used because too few are healthy.
    pub failover: FailoverConfig,
    /// Whether targets that fail requests are left out for a while; beyond AWS. Default: no.
    pub outliers: Option<OutlierConfig>,
    /// Whether TCP targets are told the client's address by a PROXY protocol header, version 2. Default: no.
    pub proxy_protocol_v2: bool,
    /// Whether targets see the client's address as the peer's. Data only: a socket cannot lie about its address. Default: no.
    pub preserve_client_ip: bool,
    /// Whether a flow's datagrams and connections are reset when its target goes. Default: no.
    pub send_tcp_reset: bool,
    /// Whether functions get and give headers as lists. Default: no.
    pub multi_value_headers: bool,
    /// The most requests in progress at a target; none is unbounded. Default: none. A reload does not change it for targets
    /// that stay.
    pub max_outstanding: Option<u32>,
    /// How targets that speak TLS are verified.
    pub tls: TargetTls,
    /// How often and when a request without a body is tried again; beyond AWS. Default: never.
    pub retry: RetryConfig,
    /// Connections that are kept for later requests.
    pub pool: PoolConfig,
}

impl Default for TargetGroupConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            protocol: Protocol::default(),
            protocol_version: ProtocolVersion::default(),
            target_type: TargetType::default(),
            ip_address_type: IpAddressType::default(),
            targets: Vec::new(),
            algorithm: AlgorithmName::default(),
            hash_key: HashKey::default(),
            choices: 2,
            anomaly_mitigation: false,
            health_check: HealthCheckConfig::default(),
            stickiness: StickinessConfig::default(),
            slow_start: Duration::ZERO,
            deregistration_delay: Duration::from_secs(300),
            connection_termination: false,
            unhealthy_connection_termination: false,
            unhealthy_draining_interval: Duration::ZERO,
            cross_zone: None,
            failover: FailoverConfig::default(),
            outliers: None,
            proxy_protocol_v2: false,
            preserve_client_ip: false,
            send_tcp_reset: false,
            multi_value_headers: false,
            max_outstanding: None,
            tls: TargetTls::default(),
            retry: RetryConfig::default(),
            pool: PoolConfig::default(),
        }
    }
}

/// The version of HTTP that targets speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum ProtocolVersion {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
    /// gRPC on HTTP/2.
    Grpc,
}

/// What targets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TargetType {
    /// Machines, by address.
    Instance,
    /// Addresses.
    #[default]
    Ip,
    /// A function of the program's: registered by it, not by a file. AWS's `lambda`.
    #[serde(alias = "lambda")]
    Function,
    /// Another load balancer, by address.
    Alb,
}

/// The family of a group's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum IpAddressType {
    /// IPv4.
    #[default]
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// One target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TargetConfig {
    /// Host and port, as `10.0.0.1:80`, `[::1]:80` or `localhost:80`.
    pub address: String,
    /// Its name in cookies, logs and statistics. Default: the address.
    pub id: Option<String>,
    /// Its share, in proportion to the others'; 0 gets nothing. Default: 1; beyond AWS.
    pub weight: u32,
    /// The zone that it stands in. Default: none. A reload does not change that of a target that stays.
    pub zone: Option<String>,
    /// Lower ones are used first: 0 to 15; beyond AWS. Default: 0. A reload does not change that of a target that stays: take
    /// it out, and put it back under another `id`.
    pub priority: u32,
    /// The port of AWS's target control agent. Data only: `max_outstanding` bounds what is in progress here.
    pub control_port: Option<u16>,
}

impl TargetConfig {
    /// A target at an address, everything else as by default.
    #[must_use]
    pub fn at(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            ..Self::default()
        }
    }

    /// The host and the port of its address; `None` if it is no address.
    #[must_use]
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        super::check::split_address(&self.address)
    }

    /// Its name: the id, or else the address.
    #[must_use]
    pub fn id(&self) -> &str {
        self.id.as_deref().unwrap_or(&self.address)
    }
}

impl Default for TargetConfig {
    fn default() -> Self {
        Self {
            address: String::new(),
            id: None,
            weight: 1,
            zone: None,
            priority: 0,
            control_port: None,
        }
    }
}

/// How a target is chosen. AWS has the first three; each is described at [`crate::algorithm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AlgorithmName {
    /// In turn.
    #[default]
    #[serde(alias = "round_robin")]
    RoundRobin,
    /// The one with the fewest requests in progress.
    #[serde(alias = "least_outstanding_requests")]
    LeastOutstandingRequests,
    /// By chance, in proportion to the weights.
    #[serde(alias = "weighted_random")]
    WeightedRandom,
    /// In turn, in proportion to the weights, spread evenly.
    SmoothWeighted,
    /// By chance.
    Random,
    /// The one with fewer requests in progress of a few taken by chance.
    RandomChoices,
    /// The one with the least of recent latency times requests in progress.
    PeakEwma,
    /// The one with the least expected time.
    LeastTime,
    /// By hash, on a ring.
    RingHash,
    /// By hash, with Maglev's table.
    Maglev,
    /// By hash, the highest of all.
    Rendezvous,
    /// By hash, passing over targets that are loaded far above the mean.
    BoundedLoad,
    /// The target that a key was given to first.
    Sticky,
    /// The first that has room.
    FirstAvailable,
    /// The less loaded of two out of this proxy's subset.
    Subset,
    /// The less loaded of two out of this proxy's deterministic aperture.
    Aperture,
    /// C3, by what targets tell of their queues; without their word, by latency.
    C3,
    /// Prequal's hot-cold rule.
    Prequal,
    /// Client-side weighted round robin, by what targets report.
    Reported,
}

impl AlgorithmName {
    /// Whether it goes by a key of the request.
    #[must_use]
    pub const fn is_keyed(self) -> bool {
        matches!(
            self,
            Self::RingHash | Self::Maglev | Self::Rendezvous | Self::BoundedLoad | Self::Sticky
        )
    }
}

/// What the hash-based algorithms hash.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HashKey {
    /// The client's address.
    #[default]
    SourceIp,
    /// The path, without the query.
    Path,
    /// The host.
    Host,
    /// The value of a header.
    Header(String),
    /// The value of a cookie.
    Cookie(String),
    /// The value of a parameter of the query.
    Query(String),
}

/// How targets are probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthCheckConfig {
    /// Whether they are. Default: yes.
    pub enabled: bool,
    /// What the probe speaks. Default: HTTP, or TCP for groups that are not HTTP.
    pub protocol: Option<HealthCheckProtocol>,
    /// The port that is probed. Default: the target's own.
    pub port: Option<u16>,
    /// The path that is asked for. Default: `/`, and `/AWS.ALB/healthcheck` for gRPC.
    pub path: Option<String>,
    /// The time from one probe to the next. Default: 30 s; AWS: 5 to 300 s.
    #[serde(with = "span")]
    pub interval: Duration,
    /// How long an answer may take. Default: 6 s for HTTP, 10 s for TCP, TLS and HTTPS, 30 s for functions; AWS: 2 to 120 s.
    #[serde(with = "span::option")]
    pub timeout: Option<Duration>,
    /// How many good answers in a row make a target healthy. Default: 5; AWS: 2 to 10.
    pub healthy_threshold: u32,
    /// How many bad ones make it unhealthy. Default: 2; AWS: 2 to 10.
    pub unhealthy_threshold: u32,
    /// The statuses that are good, as `200`, `200,202` or `200-299`. Default: `200`, and `12` for gRPC.
    pub matcher: Option<String>,
}

impl Default for HealthCheckConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            protocol: None,
            port: None,
            path: None,
            interval: Duration::from_secs(30),
            timeout: None,
            healthy_threshold: 5,
            unhealthy_threshold: 2,
            matcher: None,
        }
    }
}

/// What a probe speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum HealthCheckProtocol {
    /// A request, without TLS.
    Http,
    /// A request on TLS.
    Https,
    /// A connection that opens.
    Tcp,
    /// A call on HTTP/2.
    Grpc,
}

/// Which clients stay with a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StickinessConfig {
    /// By what they are known again. Default: nothing.
    pub kind: StickinessKind,
    /// How long they stay. Default: 1 day; AWS: 1 s to 7 days.
    #[serde(with = "span")]
    pub duration: Duration,
    /// The application's cookie, for [`StickinessKind::AppCookie`].
    pub cookie_name: Option<String>,
}

impl Default for StickinessConfig {
    fn default() -> Self {
        Self {
            kind: StickinessKind::None,
            duration: Duration::from_secs(86_400),
            cookie_name: None,
        }
    }
}

/// By what clients are known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StickinessKind {
    /// Nothing: they go where the algorithm sends them.
    #[default]
    None,
    /// The load balancer's cookie, `AWSALB`.
    LbCookie,
    /// A cookie of the application's, which `AWSALBAPP-0` ties to the target.
    AppCookie,
    /// Their address; TCP, TLS and UDP.
    SourceIp,
}

/// When all targets are used because too few are healthy, and when the group counts as gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FailoverConfig {
    /// All are used when fewer than this many are healthy; 0 never. Default: 1.
    pub minimum_healthy_count: u32,
    /// The same by percentage; 0 is off. Default: 0.
    pub minimum_healthy_percentage: u32,
    /// The group counts as unavailable below this many healthy ones. Default: 1. Reported only: DNS is not carried.
    pub dns_minimum_healthy_count: u32,
    /// The same by percentage; 0 is off. Default: 0.
    pub dns_minimum_healthy_percentage: u32,
    /// Below this percentage of healthy ones, health is not looked at (Envoy's panic threshold); 0 is off. Default: 0.
    pub panic_threshold: u32,
}

impl Default for FailoverConfig {
    fn default() -> Self {
        Self {
            minimum_healthy_count: 1,
            minimum_healthy_percentage: 0,
            dns_minimum_healthy_count: 1,
            dns_minimum_healthy_percentage: 0,
            panic_threshold: 0,
        }
    }
}

/// When a target that fails requests is left out; after Envoy's outlier detection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutlierConfig {
    /// Failures in a row. Default: 5.
    pub consecutive_failures: u32,
    /// How long it is left out, times how often it was. Default: 30 s.
    #[serde(with = "span")]
    pub base_ejection: Duration,
    /// The most targets left out at a time, in percent. Default: 10.
    pub max_ejected_percent: u32,
}

impl Default for OutlierConfig {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            base_ejection: Duration::from_secs(30),
            max_ejected_percent: 10,
        }
    }
}

/// How targets that speak TLS are verified. AWS verifies nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TargetTls {
    /// Whether they are. Default: no (AWS's).
    pub verify: bool,
    /// The name that their certificates show. Default: the host of the address.
    pub name: Option<String>,
    /// A PEM file with authorities. Default: the system's.
    pub ca: Option<PathBuf>,
}

/// How often and when a request without a body is tried again, whatever its method, as Envoy does. Only a connection that could
/// not be opened is sure to have done nothing: list the others where doing it twice does no harm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Tries after the first. Default: 0; at most 10.
    pub attempts: u32,
    /// On what. Default: on connections that could not be opened.
    pub on: Vec<RetryOn>,
    /// The most retries, in percent of the requests in progress. Default: 20 (Envoy's).
    pub budget_percent: u32,
    /// Retries that may always be in progress, whatever the budget. Default: 3 (Envoy's).
    pub budget_minimum: u32,
    /// The longest one try may take to answer, or none. Default: none.
    #[serde(with = "span::option")]
    pub per_try_timeout: Option<Duration>,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: 0,
            on: vec![RetryOn::ConnectFailure],
            budget_percent: 20,
            budget_minimum: 3,
            per_try_timeout: None,
        }
    }
}

/// On what a request is tried again, by Envoy's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RetryOn {
    /// The connection could not be opened.
    ConnectFailure,
    /// The connection ended before an answer, or the try took too long.
    Reset,
    /// 502, 503 and 504.
    GatewayError,
    /// Any 5xx.
    #[serde(rename = "5xx")]
    ServerError,
    /// 409.
    #[serde(rename = "retriable-4xx")]
    Conflict,
    /// HTTP/2 streams refused.
    RefusedStream,
}

/// Connections to targets that are kept for later requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// The most idle ones for each target. Default: 256.
    pub max_idle_per_target: usize,
    /// How long an idle one is kept. Default: 60 s.
    #[serde(with = "span")]
    pub idle_timeout: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            max_idle_per_target: 256,
            idle_timeout: Duration::from_secs(60),
        }
    }
}
