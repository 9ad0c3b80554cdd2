//! What the machine is told once: plain fields, checked by [`Rules::check`].

use std::time::Duration;

use super::matcher::Matcher;

/// Everything that decides which targets get traffic, and how much of it.
///
/// Write it as a literal that ends in `..Default::default()`; fields may be added. The defaults are those of AWS's
/// target groups where it has the setting, with three exceptions that a program wants otherwise: health is not checked
/// until [`health_check`](Self::health_check) says how, and neither outliers nor anomalies are looked for.
///
/// ```
/// use std::time::Duration;
/// use sim_balancer::machine::{Outliers, Rules, SlowStart};
///
/// let rules = Rules {
///     slow_start: SlowStart { duration: Duration::from_secs(30), ..Default::default() },
///     outliers: Some(Outliers::default()),
///     ..Default::default()
/// };
/// assert!(rules.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Rules {
    /// How health is checked. Default: `None`, not at all; targets are then [`Unavailable`](super::State::Unavailable),
    /// which means that nobody knows, and get traffic.
    pub health_check: Option<HealthCheck>,
    /// How a target's share grows after it became healthy. Default: at once.
    pub slow_start: SlowStart,
    /// How a target leaves. Default: it drains for up to 300 s.
    pub deregistration: Deregistration,
    /// What happens to what a target has in hand when it becomes unhealthy. Default: nothing.
    pub unhealthy: UnhealthyTargets,
    /// When traffic goes to all targets for want of healthy ones. Default: when none is healthy.
    pub fail_open: FailOpen,
    /// When a pool of targets counts as available as a whole. Default: while one target is healthy.
    pub dns_failover: Availability,
    /// Whether requests leave their zone. Default: [`CrossZone::UseLoadBalancer`].
    pub cross_zone: CrossZone,
    /// What [`CrossZone::UseLoadBalancer`] means. Default: [`CrossZone::UseLoadBalancer`], which here is on.
    pub load_balancer_cross_zone: CrossZone,
    /// The share of requests with a zone that stay in it although they may leave, in percent (0 to 100). AWS's client
    /// routing policies are 100, 85 and 0. Default: 0.
    pub zone_affinity: u32,
    /// How requests spill over to targets of the next priority. Default: below 71 % of healthy targets.
    pub priorities: Priorities,
    /// Which targets are set aside for a while for what their answers show. Default: `None`, none.
    pub outliers: Option<Outliers>,
    /// Which targets count as anomalous, and whether they get less. Default: `None`, none.
    pub anomaly: Option<Anomaly>,
    /// Whether requests that stick to a target stay with it when it becomes unfit. Default: they do not.
    pub target_failover: TargetFailover,
    /// Bounds on all of this. Default: generous; [`Limits::aws`] are the service's.
    pub limits: Limits,
}

/// How targets are asked whether they are well.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct HealthCheck {
    /// What is spoken. Default: [`CheckProtocol::Http`].
    pub protocol: CheckProtocol,
    /// Where. Default: [`CheckPort::Traffic`].
    pub port: CheckPort,
    /// What is asked for; 1 to 1,024 bytes. Default: `None`, which is `/`, and `/AWS.ALB/healthcheck` for gRPC.
    pub path: Option<String>,
    /// From one check of a target to the next. AWS: 5 to 300 s. Default: 30 s.
    pub interval: Duration,
    /// How long a check may take; not longer than the interval. AWS: 2 to 120 s. Default: 6 s (AWS's for HTTP; its 10 s
    /// for HTTPS, TCP and TLS are in [`HealthCheck::of`]).
    pub timeout: Duration,
    /// How many good checks in a row make an unhealthy target healthy. A new target needs one. AWS: 2 to 10.
    /// Default: 5.
    pub healthy_threshold: u32,
    /// How many bad checks in a row make a target unhealthy. AWS: 2 to 10. Default: 2.
    pub unhealthy_threshold: u32,
    /// Which answers are good. Default: `None`, which is 200 for HTTP and 12 for gRPC (AWS's).
    pub matcher: Option<Matcher>,
    /// How much of the interval the first check of a target is spread over, in percent (0 to 100), so that targets
    /// registered together are not asked together. Default: 0, the first check is due at once.
    pub jitter: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self::of(CheckProtocol::Http)
    }
}

impl HealthCheck {
    /// The service's defaults for a protocol.
    #[must_use]
    pub fn of(protocol: CheckProtocol) -> Self {
        let timeout = match protocol {
            CheckProtocol::Http | CheckProtocol::Grpc | CheckProtocol::GrpcHealth => 6,
            CheckProtocol::Https | CheckProtocol::Tcp | CheckProtocol::Tls => 10,
            CheckProtocol::Custom => 30,
        };
        let is_custom = protocol == CheckProtocol::Custom;
        Self {
            protocol,
            port: CheckPort::Traffic,
            path: None,
            interval: Duration::from_secs(if is_custom { 35 } else { 30 }),
            timeout: Duration::from_secs(timeout),
            healthy_threshold: 5,
            unhealthy_threshold: if is_custom { 5 } else { 2 },
            matcher: None,
            jitter: 0,
        }
    }

    /// The path asked for: the configured one, or the protocol's.
    #[must_use]
    pub fn effective_path(&self) -> &str {
        match (&self.path, self.protocol) {
            (Some(path), _) => path,
            (None, CheckProtocol::Grpc) => "/AWS.ALB/healthcheck",
            (None, CheckProtocol::GrpcHealth) => "/grpc.health.v1.Health/Check",
            (None, _) => "/",
        }
    }

    /// The matcher: the configured one, or the protocol's.
    #[must_use]
    pub fn effective_matcher(&self) -> Matcher {
        match (&self.matcher, self.protocol) {
            (Some(matcher), _) => matcher.clone(),
            (None, CheckProtocol::Grpc) => Matcher::one(12),
            (None, CheckProtocol::GrpcHealth) => Matcher::one(0),
            (None, _) => Matcher::one(200),
        }
    }
}

/// What a check speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum CheckProtocol {
    /// `GET` by HTTP/1.1.
    Http,
    /// `GET` by HTTP/1.1 over TLS; the certificate is not verified, as in the service.
    Https,
    /// A unary call with an empty message by HTTP/2 without TLS; the matcher is on gRPC's status codes.
    Grpc,
    /// `grpc.health.v1.Health/Check` by HTTP/2 without TLS; good is `SERVING`. Beyond the service.
    GrpcHealth,
    /// A connection that is made.
    Tcp,
    /// A connection on which a TLS handshake succeeds.
    Tls,
    /// What the program says, as the service does with functions.
    Custom,
}

/// Where a check goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum CheckPort {
    /// The port of the target's traffic.
    #[default]
    Traffic,
    /// Another port of the same address.
    Port(u16),
}

/// A growing share for a target that has just become healthy.
///
/// As in the service, a target starts slowly only while another healthy target takes the traffic, and becoming
/// unhealthy ends the start. Every algorithm heeds it but `FirstAvailable`; round robin and random, for which targets weigh
/// the same, give a target that starts its share of what the others get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct SlowStart {
    /// How long until the full share. AWS: 30 to 900 s, or 0 for off. Default: 0.
    pub duration: Duration,
    /// In how many steps the share grows (1 to 100); each makes a new snapshot. Default: 20. The steps of all targets fall on
    /// the same points in time, so the first and the last of a target are shorter or longer than the others.
    pub steps: u32,
}

impl Default for SlowStart {
    fn default() -> Self {
        Self {
            duration: Duration::ZERO,
            steps: 20,
        }
    }
}

/// How a target leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Deregistration {
    /// How long it may finish what it has. AWS: 0 to 3,600 s. Default: 300 s.
    pub delay: Duration,
    /// Whether what is not finished by then is ended. Default: no, it is left alone.
    pub connection_termination: bool,
}

impl Default for Deregistration {
    fn default() -> Self {
        Self {
            delay: Duration::from_secs(300),
            connection_termination: false,
        }
    }
}

/// What happens to what a target has in hand when it becomes unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct UnhealthyTargets {
    /// Whether it is ended: at once, or after the draining interval. Default: no.
    pub connection_termination: bool,
    /// How long the target is [`UnhealthyDraining`](super::State::UnhealthyDraining) first. AWS: 0 to 360,000 s.
    /// Default: 0.
    pub draining_interval: Duration,
}

/// When traffic goes to all targets, well or not, for want of healthy ones.
///
/// The percentages are of the registered targets of a pool that are neither draining nor unused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct FailOpen {
    /// Fewer healthy targets than this open the pool (`unhealthy_state_routing.minimum_healthy_targets.count`); 0 is
    /// off. Default: 1.
    pub minimum_healthy_count: u32,
    /// A smaller share of healthy targets than this opens the pool, in percent (0 to 100); 0 is off. Default: 0.
    pub minimum_healthy_percentage: u32,
    /// Envoy's panic threshold, in percent (0 to 100): as the percentage above, but while several priorities have
    /// targets it is heeded only when all together are too few. 0 is off. Default: 0 (Envoy's is 50).
    pub panic_threshold: u32,
}

impl Default for FailOpen {
    fn default() -> Self {
        Self {
            minimum_healthy_count: 1,
            minimum_healthy_percentage: 0,
            panic_threshold: 0,
        }
    }
}

/// When a pool is available as a whole. The service takes a zone that is not out of DNS; here it is reported, and requests
/// of such a zone go to the other zones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Availability {
    /// The fewest healthy targets; 0 is off. Default: 1.
    pub minimum_healthy_count: u32,
    /// The smallest share of healthy targets, in percent (0 to 100); 0 is off. Default: 0.
    pub minimum_healthy_percentage: u32,
}

impl Default for Availability {
    fn default() -> Self {
        Self {
            minimum_healthy_count: 1,
            minimum_healthy_percentage: 0,
        }
    }
}

/// Whether requests leave their zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum CrossZone {
    /// All zones' targets serve all requests.
    On,
    /// A request is served in its zone while that is available.
    Off,
    /// As the load balancer says ([`Rules::load_balancer_cross_zone`]); said there, it means [`On`](Self::On).
    #[default]
    UseLoadBalancer,
}

/// How requests spill over to the next priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Priorities {
    /// What a priority's share of healthy targets is multiplied by, in percent (100 to 1,000). At 140 a priority takes
    /// all requests while at least 71 % of its targets are healthy. Default: 140 (Envoy's).
    pub overprovisioning: u32,
}

impl Default for Priorities {
    fn default() -> Self {
        Self {
            overprovisioning: 140,
        }
    }
}

/// Passive health: targets are set aside for a while for what their answers show.
///
/// After Envoy's outlier detection; its defaults unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Outliers {
    /// How many failures in a row eject a target; `None` is off. Default: 5.
    pub consecutive_failures: Option<u32>,
    /// How many failures in a row of the way to the target (no connection, no answer in time) eject it; `None` is off.
    /// Default: `None`.
    pub consecutive_gateway_failures: Option<u32>,
    /// Ejects targets whose success rate lies far below the others'; `None` is off.
    pub success_rate: Option<SuccessRate>,
    /// Ejects targets that fail too often; `None` is off. Default: `None`.
    pub failure_percentage: Option<FailurePercentage>,
    /// How often rates are looked at. Default: 10 s.
    pub interval: Duration,
    /// How long the first ejection lasts; the n-th in close succession lasts n times as long. Default: 30 s.
    pub base_ejection_time: Duration,
    /// The longest ejection; not shorter than the base. Default: 300 s.
    pub max_ejection_time: Duration,
    /// Up to how much is added to an ejection by chance, so that targets do not come back together. Default: 0.
    pub ejection_jitter: Duration,
    /// The share of targets that may be ejected at a time, in percent (0 to 100). Default: 10.
    pub max_ejection_percent: u32,
    /// Whether one target may be ejected whatever the percentage. Default: true (Envoy's is false; with fewer than ten
    /// targets, the usual case in a program, nothing would ever be ejected).
    pub always_eject_one: bool,
    /// Whether a good health check takes an ejected target back. Default: true.
    pub uneject_on_check: bool,
}

impl Default for Outliers {
    fn default() -> Self {
        Self {
            consecutive_failures: Some(5),
            consecutive_gateway_failures: None,
            success_rate: Some(SuccessRate::default()),
            failure_percentage: None,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            ejection_jitter: Duration::ZERO,
            max_ejection_percent: 10,
            always_eject_one: true,
            uneject_on_check: true,
        }
    }
}

/// Ejection of targets whose success rate lies far below the others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct SuccessRate {
    /// A target is ejected below mean minus this many thousandths of the standard deviation. Default: 1,900.
    pub stdev_factor: u32,
    /// With how many targets of enough volume rates are compared. Default: 5.
    pub minimum_hosts: u32,
    /// From how many requests in an interval on a target's rate counts. Default: 100.
    pub request_volume: u64,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self {
            stdev_factor: 1_900,
            minimum_hosts: 5,
            request_volume: 100,
        }
    }
}

/// Ejection of targets that fail too often, whatever the others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct FailurePercentage {
    /// The share of failures from which on a target is ejected, in percent (1 to 100). Default: 85.
    pub threshold: u32,
    /// With how many targets of enough volume this is done. Default: 5.
    pub minimum_hosts: u32,
    /// From how many requests in an interval on a target's rate counts. Default: 50.
    pub request_volume: u64,
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self {
            threshold: 85,
            minimum_hosts: 5,
            request_volume: 50,
        }
    }
}

/// Automatic target weights: targets that fail more often than the others are anomalous, and with mitigation get less.
///
/// Shares count as with [`SlowStart`]: not with `FirstAvailable`. The service does this for `weighted_random` and does not say
/// how. Here a target is anomalous while, in the
/// window, its failure rate exceeds the rest's by [`margin`](Self::margin). With mitigation its share is halved in
/// each such window and doubled in each other one, until it is whole again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Anomaly {
    /// Whether anomalous targets get less. Default: false (AWS's `anomaly_mitigation` is off).
    pub mitigation: bool,
    /// The window. Default: 10 s.
    pub window: Duration,
    /// With how many healthy targets of enough volume rates are compared. Default: 3 (AWS's).
    pub minimum_hosts: u32,
    /// From how many requests in a window on a target's rate counts. Default: 20.
    pub request_volume: u64,
    /// By how many hundredths a target's failure rate must exceed that of the others together (1 to 100). Default: 10.
    pub margin: u32,
    /// The smallest share that mitigation leaves, in percent (1 to 100). Default: 1.
    pub floor: u32,
}

impl Default for Anomaly {
    fn default() -> Self {
        Self {
            mitigation: false,
            window: Duration::from_secs(10),
            minimum_hosts: 3,
            request_volume: 20,
            margin: 10,
            floor: 1,
        }
    }
}

/// Whether requests that stick to a target stay with it when it becomes unfit for new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct TargetFailover {
    /// While it drains. Default: they are spread anew.
    pub on_deregistration: Failover,
    /// While it is unhealthy. Default: they are spread anew.
    pub on_unhealthy: Failover,
}

/// What becomes of requests that stick to an unfit target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Failover {
    /// They go to other targets.
    #[default]
    Rebalance,
    /// They stay with it.
    NoRebalance,
}

/// Bounds on rules and on what the machine keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Limits {
    /// The most targets, those that drain included (1 to 1,000,000). Default: 65,536. AWS's quota: 1,000.
    pub targets: u32,
    /// The most zones (1 to 4,096). Default: 64.
    pub zones: u32,
    /// The most priorities; they are numbered from zero (1 to 64). Default: 16.
    pub priorities: u32,
    /// The largest weight (1 to 1,000,000). Default: 65,535. AWS's for target groups: 999.
    pub weight: u32,
    /// The most bytes in the name of a target or a zone (1 to 4,096). Default: 256.
    pub name_bytes: u32,
    /// How many of the latest events are kept (0 to 1,000,000). Default: 256.
    pub history: u32,
    /// From the shortest to the longest interval of checks. Default: 1 ms to a day; at most a year.
    pub interval: (Duration, Duration),
    /// From the shortest to the longest timeout of checks. Default: 1 ms to a day; at most a year.
    pub timeout: (Duration, Duration),
    /// From the smallest to the largest threshold of checks. Default: 1 to 1,000,000.
    pub threshold: (u32, u32),
    /// From the shortest to the longest slow start that is not off. Default: 1 ms to a day; at most a year.
    pub slow_start: (Duration, Duration),
    /// The longest deregistration delay. Default: 30 days.
    pub deregistration_delay: Duration,
    /// The longest draining interval of unhealthy targets. Default: 30 days.
    pub draining_interval: Duration,
}

const DAY: Duration = Duration::from_secs(86_400);
/// No limit is longer: what follows from it is still far from the end of time.
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const MILLI: Duration = Duration::from_millis(1);

impl Default for Limits {
    fn default() -> Self {
        Self {
            targets: 65_536,
            zones: 64,
            priorities: 16,
            weight: 65_535,
            name_bytes: 256,
            history: 256,
            interval: (MILLI, DAY),
            timeout: (MILLI, DAY),
            threshold: (1, 1_000_000),
            slow_start: (MILLI, DAY),
            deregistration_delay: Duration::from_secs(30 * 86_400),
            draining_interval: Duration::from_secs(30 * 86_400),
        }
    }
}

impl Limits {
    /// The service's limits.
    #[must_use]
    pub fn aws() -> Self {
        Self {
            targets: 1_000,
            weight: 999,
            interval: (Duration::from_secs(5), Duration::from_secs(300)),
            timeout: (Duration::from_secs(2), Duration::from_secs(120)),
            threshold: (2, 10),
            slow_start: (Duration::from_secs(30), Duration::from_secs(900)),
            deregistration_delay: Duration::from_secs(3_600),
            draining_interval: Duration::from_secs(360_000),
            ..Self::default()
        }
    }
}

/// A field of [`Rules`] is out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RulesError {
    /// A number is out of its range.
    #[error("{field}: {value} is not within {low} to {high}")]
    Number {
        /// The field.
        field: &'static str,
        /// The value given.
        value: u64,
        /// The smallest allowed.
        low: u64,
        /// The largest allowed.
        high: u64,
    },
    /// A duration is out of its range.
    #[error("{field}: {value:?} is not within {low:?} to {high:?}")]
    Time {
        /// The field.
        field: &'static str,
        /// The value given.
        value: Duration,
        /// The shortest allowed.
        low: Duration,
        /// The longest allowed.
        high: Duration,
    },
    /// A matcher names codes that the protocol does not have.
    #[error("health_check.matcher: {matcher} reaches beyond the codes {low} to {high}")]
    Matcher {
        /// The matcher given.
        matcher: Matcher,
        /// The smallest code.
        low: u16,
        /// The largest code.
        high: u16,
    },
    /// A path is no path.
    #[error(
        "health_check.path: {path:?} must begin with '/', hold no spaces or control characters and have at most {limit} bytes"
    )]
    Path {
        /// The path given.
        path: String,
        /// Bytes allowed.
        limit: usize,
    },
}

/// AWS's longest path of a health check, in bytes.
const PATH_BYTES: usize = 1_024;

fn number(
    field: &'static str,
    value: impl Into<u64>,
    (low, high): (u32, u32),
) -> Result<(), RulesError> {
    let (value, low, high) = (value.into(), u64::from(low), u64::from(high));
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(RulesError::Number {
        field,
        value,
        low,
        high,
    })
}

fn time(
    field: &'static str,
    value: Duration,
    (low, high): (Duration, Duration),
) -> Result<(), RulesError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(RulesError::Time {
        field,
        value,
        low,
        high,
    })
}

impl Rules {
    /// Checks every field against its range.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), RulesError> {
        self.limits.check()?;
        let limits = &self.limits;
        if let Some(check) = &self.health_check {
            check.check(limits)?;
        }
        if !self.slow_start.duration.is_zero() {
            time(
                "slow_start.duration",
                self.slow_start.duration,
                limits.slow_start,
            )?;
        }
        number("slow_start.steps", self.slow_start.steps, (1, 100))?;
        let upto = |longest| (Duration::ZERO, longest);
        time(
            "deregistration.delay",
            self.deregistration.delay,
            upto(limits.deregistration_delay),
        )?;
        time(
            "unhealthy.draining_interval",
            self.unhealthy.draining_interval,
            upto(limits.draining_interval),
        )?;
        let most = (0, limits.targets);
        let open = &self.fail_open;
        number(
            "fail_open.minimum_healthy_count",
            open.minimum_healthy_count,
            most,
        )?;
        number(
            "fail_open.minimum_healthy_percentage",
            open.minimum_healthy_percentage,
            (0, 100),
        )?;
        number("fail_open.panic_threshold", open.panic_threshold, (0, 100))?;
        let whole = &self.dns_failover;
        number(
            "dns_failover.minimum_healthy_count",
            whole.minimum_healthy_count,
            most,
        )?;
        number(
            "dns_failover.minimum_healthy_percentage",
            whole.minimum_healthy_percentage,
            (0, 100),
        )?;
        number("zone_affinity", self.zone_affinity, (0, 100))?;
        number(
            "priorities.overprovisioning",
            self.priorities.overprovisioning,
            (100, 1_000),
        )?;
        if let Some(outliers) = &self.outliers {
            outliers.check()?;
        }
        if let Some(anomaly) = &self.anomaly {
            anomaly.check()?;
        }
        Ok(())
    }

    /// The percentage of requests with a zone that stay in it.
    pub(crate) fn affinity(&self) -> u32 {
        let level = match self.cross_zone {
            CrossZone::UseLoadBalancer => self.load_balancer_cross_zone,
            said => said,
        };
        match level {
            CrossZone::Off => 100,
            CrossZone::On | CrossZone::UseLoadBalancer => self.zone_affinity,
        }
    }
}

impl HealthCheck {
    fn check(&self, limits: &Limits) -> Result<(), RulesError> {
        time("health_check.interval", self.interval, limits.interval)?;
        let (shortest, longest) = limits.timeout;
        time(
            "health_check.timeout",
            self.timeout,
            (shortest, longest.min(self.interval)),
        )?;
        number(
            "health_check.healthy_threshold",
            self.healthy_threshold,
            limits.threshold,
        )?;
        number(
            "health_check.unhealthy_threshold",
            self.unhealthy_threshold,
            limits.threshold,
        )?;
        number("health_check.jitter", self.jitter, (0, 100))?;
        if let Some(path) = &self.path {
            let is_path = path.starts_with('/')
                && path.len() <= PATH_BYTES
                && path.bytes().all(|byte| byte.is_ascii_graphic());
            if !is_path {
                return Err(RulesError::Path {
                    path: path.clone(),
                    limit: PATH_BYTES,
                });
            }
        }
        if let Some(matcher) = &self.matcher {
            let (low, high) = match self.protocol {
                CheckProtocol::Grpc | CheckProtocol::GrpcHealth => (0, 99),
                _ => (200, 499),
            };
            if !matcher.lies_within(low, high) {
                return Err(RulesError::Matcher {
                    matcher: matcher.clone(),
                    low,
                    high,
                });
            }
        }
        Ok(())
    }
}

impl Outliers {
    fn check(&self) -> Result<(), RulesError> {
        const MANY: (u32, u32) = (1, u32::MAX);
        for (field, streak) in [
            ("outliers.consecutive_failures", self.consecutive_failures),
            (
                "outliers.consecutive_gateway_failures",
                self.consecutive_gateway_failures,
            ),
        ] {
            if let Some(streak) = streak {
                number(field, streak, MANY)?;
            }
        }
        if let Some(rate) = &self.success_rate {
            number(
                "outliers.success_rate.minimum_hosts",
                rate.minimum_hosts,
                MANY,
            )?;
            number(
                "outliers.success_rate.stdev_factor",
                rate.stdev_factor,
                (0, 1_000_000),
            )?;
        }
        if let Some(rate) = &self.failure_percentage {
            number(
                "outliers.failure_percentage.threshold",
                rate.threshold,
                (1, 100),
            )?;
            number(
                "outliers.failure_percentage.minimum_hosts",
                rate.minimum_hosts,
                MANY,
            )?;
        }
        time("outliers.interval", self.interval, (MILLI, DAY))?;
        time(
            "outliers.base_ejection_time",
            self.base_ejection_time,
            (MILLI, DAY),
        )?;
        time(
            "outliers.max_ejection_time",
            self.max_ejection_time,
            (self.base_ejection_time, DAY),
        )?;
        time(
            "outliers.ejection_jitter",
            self.ejection_jitter,
            (Duration::ZERO, DAY),
        )?;
        number(
            "outliers.max_ejection_percent",
            self.max_ejection_percent,
            (0, 100),
        )
    }
}

impl Anomaly {
    fn check(&self) -> Result<(), RulesError> {
        time("anomaly.window", self.window, (MILLI, DAY))?;
        number("anomaly.minimum_hosts", self.minimum_hosts, (2, u32::MAX))?;
        number("anomaly.margin", self.margin, (1, 100))?;
        number("anomaly.floor", self.floor, (1, 100))
    }
}

impl Limits {
    fn check(&self) -> Result<(), RulesError> {
        number("limits.targets", self.targets, (1, 1_000_000))?;
        number("limits.zones", self.zones, (1, 4_096))?;
        number("limits.priorities", self.priorities, (1, 64))?;
        number("limits.weight", self.weight, (1, 1_000_000))?;
        number("limits.name_bytes", self.name_bytes, (1, 4_096))?;
        number("limits.history", self.history, (0, 1_000_000))?;
        number("limits.threshold", self.threshold.0, (1, u32::MAX))?;
        for (field, (low, high)) in [
            ("limits.interval", self.interval),
            ("limits.timeout", self.timeout),
            ("limits.slow_start", self.slow_start),
        ] {
            time(field, low, (MILLI, DAY))?;
            time(field, high, (low, YEAR))?;
        }
        Ok(())
    }
}
