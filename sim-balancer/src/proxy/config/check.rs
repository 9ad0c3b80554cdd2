//! The checks of everything but rules, which are checked while they are compiled.

use http::{HeaderName, HeaderValue};

use super::group::{
    HashKey, HealthCheckConfig, HealthCheckProtocol, ProtocolVersion, StickinessKind, TargetType,
};
use super::listener::{AlpnPolicy, MutualMode};
use super::{
    At, Attributes, ListenerConfig, Problem, Profile, Protocol, ProxyConfig, ProxyConfigError,
    TargetGroupConfig,
};

type Checked = Result<(), ProxyConfigError>;

/// The longest name of a group, listener, rule or target: more than AWS's 32, short enough for a log's line.
const NAME: usize = 255;

impl ProxyConfig {
    /// Everything but the rules.
    pub(super) fn check_fields(&self) -> Checked {
        let root = At::ROOT;
        let profile = self.quotas.profile;
        name(root.field("name"), &self.name)?;
        root.field("listeners").at_most(
            "listeners",
            self.listeners.len(),
            self.quotas.listeners(),
        )?;
        root.field("target_groups").at_most(
            "groups",
            self.target_groups.len(),
            self.quotas.target_groups(),
        )?;
        let rules = self
            .listeners
            .iter()
            .map(|listener| listener.rules.len())
            .sum();
        root.field("listeners")
            .at_most("rules", rules, self.quotas.rules())?;
        let targets = self
            .target_groups
            .iter()
            .map(|group| group.targets.len())
            .sum();
        root.field("target_groups")
            .at_most("targets", targets, self.quotas.targets())?;
        self.attributes.check(root.field("attributes"), profile)?;
        for (field, log) in [
            ("access", &self.logs.access),
            ("connection", &self.logs.connection),
            ("health_check", &self.logs.health_check),
        ] {
            if let Some(log) = log {
                let logs = root.field("logs");
                let capacity = logs.field(field);
                capacity
                    .field("capacity")
                    .within(log.capacity as u64, (1, 1 << 24))?;
            }
        }
        if self.secrets.cookie_key.is_some() && self.secrets.cookie_key_file.is_some() {
            return root
                .field("secrets")
                .field("cookie_key_file")
                .fail(Problem::Conflict("cookie_key is given too".to_owned()));
        }
        self.check_trust_stores()?;
        for (index, group) in self.target_groups.iter().enumerate() {
            let at = root.part("target_groups", index);
            group.check(at, profile)?;
            let first = self.target_groups[..index]
                .iter()
                .position(|other| other.name == group.name);
            if let Some(first) = first {
                return at.field("name").fail(Problem::Duplicate {
                    value: group.name.clone(),
                    first: format!("target_groups[{first}]"),
                });
            }
        }
        for (index, listener) in self.listeners.iter().enumerate() {
            let at = root.part("listeners", index);
            self.check_listener(listener, at)?;
            let first = self.listeners[..index]
                .iter()
                .position(|other| clash(other, listener));
            if let Some(first) = first {
                return at.field("port").fail(Problem::Duplicate {
                    value: listener.bind().to_string(),
                    first: format!("listeners[{first}]"),
                });
            }
        }
        Ok(())
    }

    fn check_trust_stores(&self) -> Checked {
        for (index, store) in self.trust_stores.iter().enumerate() {
            let at = At::ROOT.part("trust_stores", index);
            name(at.field("name"), &store.name)?;
            if store.certificates.as_os_str().is_empty() {
                return at
                    .field("certificates")
                    .fail(Problem::Missing("the authorities' file"));
            }
            let first = self.trust_stores[..index]
                .iter()
                .position(|other| other.name == store.name);
            if let Some(first) = first {
                return at.field("name").fail(Problem::Duplicate {
                    value: store.name.clone(),
                    first: format!("trust_stores[{first}]"),
                });
            }
        }
        Ok(())
    }

    fn check_listener(&self, listener: &ListenerConfig, at: At<'_>) -> Checked {
        let profile = self.quotas.profile;
        if listener.name.len() > NAME {
            return at.field("name").at_most("bytes", listener.name.len(), NAME);
        }
        carried(at.field("protocol"), listener.protocol)?;
        let secure = listener.protocol.is_secure();
        if secure && listener.certificates.is_empty() {
            return at
                .field("certificates")
                .fail(Problem::Missing("HTTPS and TLS need one"));
        }
        if !secure && !listener.certificates.is_empty() {
            return at.field("certificates").fail(Problem::Conflict(format!(
                "{} shows no certificates",
                listener.protocol
            )));
        }
        at.field("certificates").at_most(
            "certificates",
            listener.certificates.len().saturating_sub(1),
            self.quotas.certificates(),
        )?;
        for (index, certificate) in listener.certificates.iter().enumerate() {
            let at = at.part("certificates", index);
            for (field, path) in [("chain", &certificate.chain), ("key", &certificate.key)] {
                if path.as_os_str().is_empty() {
                    return at.field(field).fail(Problem::Missing("a PEM file"));
                }
            }
        }
        if !secure && listener.alpn_policy != AlpnPolicy::None {
            return at.field("alpn_policy").fail(Problem::Conflict(format!(
                "{} has no TLS to negotiate it in",
                listener.protocol
            )));
        }
        self.check_mutual(listener, at)?;
        at.field("idle_timeout")
            .span(listener.idle_timeout, profile.span(60, 6_000))?;
        at.field("udp_idle_timeout")
            .span(listener.udp_idle_timeout, profile.span(1, 6_000))?;
        let prefix = &listener.proxy_protocol;
        at.field("proxy_protocol")
            .field("timeout")
            .span(prefix.timeout, Profile::Open.span(1, 3_600))?;
        check_listener_headers(listener, at.field("attributes"))?;
        if !listener.protocol.is_http() && !listener.rules.is_empty() {
            return at.field("rules").fail(Problem::Conflict(format!(
                "{} shows no requests to match",
                listener.protocol
            )));
        }
        Ok(())
    }

    fn check_mutual(&self, listener: &ListenerConfig, at: At<'_>) -> Checked {
        let mutual = &listener.mutual_authentication;
        let at = at.field("mutual_authentication");
        if mutual.mode != MutualMode::Off && listener.protocol != Protocol::Https {
            return at.field("mode").fail(Problem::Conflict(format!(
                "client certificates need HTTPS, and this is {}",
                listener.protocol
            )));
        }
        match (&mutual.trust_store, mutual.mode) {
            (None, MutualMode::Verify) => at
                .field("trust_store")
                .fail(Problem::Missing("verification needs one")),
            (Some(store), MutualMode::Verify) => {
                if self.trust_stores.iter().any(|known| known.name == *store) {
                    return Ok(());
                }
                at.field("trust_store").fail(Problem::Unknown {
                    what: "trust store",
                    name: store.clone(),
                })
            }
            (Some(_), _) => at.field("trust_store").fail(Problem::Conflict(
                "nothing is verified without mode = \"verify\"".to_owned(),
            )),
            (None, _) => Ok(()),
        }
    }
}

impl Attributes {
    fn check(&self, at: At<'_>, profile: Profile) -> Checked {
        at.field("idle_timeout")
            .span(self.idle_timeout, profile.span(1, 4_000))?;
        at.field("client_keep_alive")
            .span(self.client_keep_alive, profile.span(60, 604_800))?;
        at.field("connect_timeout")
            .span(self.connect_timeout, Profile::Open.span(1, 60))?;
        at.field("drain_timeout")
            .span(self.drain_timeout, Profile::Open.span(0, 3_600))?;
        if let Some(timeout) = self.request_timeout {
            at.field("request_timeout")
                .span(timeout, Profile::Open.span(1, 3_600))?;
        }
        at.field("max_connections")
            .within(self.max_connections as u64, (1, 1 << 24))?;
        at.field("max_header_bytes")
            .within(self.max_header_bytes as u64, (1_024, 1 << 24))?;
        at.field("workers").within(self.workers as u64, (0, 1_024))
    }
}

impl TargetGroupConfig {
    fn check(&self, at: At<'_>, profile: Profile) -> Checked {
        name(at.field("name"), &self.name)?;
        carried(at.field("protocol"), self.protocol)?;
        let is_http = self.protocol.is_http();
        if self.protocol_version != ProtocolVersion::Http1 && !is_http {
            return at.field("protocol_version").fail(Problem::Conflict(format!(
                "targets that speak {} have no version of HTTP",
                self.protocol
            )));
        }
        self.check_targets(at)?;
        let (field, name) = match &self.hash_key {
            HashKey::Header(name) => ("header", name.as_str()),
            HashKey::Cookie(name) => ("cookie", name.as_str()),
            HashKey::Query(name) => ("query", name.as_str()),
            HashKey::SourceIp | HashKey::Path | HashKey::Host => ("", "none"),
        };
        if !is_token(name) {
            return at
                .field("hash_key")
                .field(field)
                .invalid(name, "is not a name");
        }
        at.field("choices")
            .within(u64::from(self.choices), (2, 64))?;
        self.health_check
            .check(at.field("health_check"), self, profile)?;
        self.check_stickiness(at.field("stickiness"), profile)?;
        if !self.slow_start.is_zero() {
            at.field("slow_start")
                .span(self.slow_start, profile.span(30, 900))?;
        }
        at.field("deregistration_delay")
            .span(self.deregistration_delay, profile.span(0, 3_600))?;
        at.field("unhealthy_draining_interval")
            .span(self.unhealthy_draining_interval, profile.span(0, 360_000))?;
        let failover = at.field("failover");
        for (field, value) in [
            (
                "minimum_healthy_percentage",
                self.failover.minimum_healthy_percentage,
            ),
            (
                "dns_minimum_healthy_percentage",
                self.failover.dns_minimum_healthy_percentage,
            ),
            ("panic_threshold", self.failover.panic_threshold),
        ] {
            failover.field(field).within(u64::from(value), (0, 100))?;
        }
        if let Some(outliers) = &self.outliers {
            let at = at.field("outliers");
            at.field("consecutive_failures")
                .within(u64::from(outliers.consecutive_failures), (1, 1_000_000))?;
            at.field("base_ejection")
                .span(outliers.base_ejection, Profile::Open.span(1, 86_400))?;
            at.field("max_ejected_percent")
                .within(u64::from(outliers.max_ejected_percent), (0, 100))?;
        }
        if self.max_outstanding == Some(0) {
            return at
                .field("max_outstanding")
                .within(0, (1, u64::from(u32::MAX)));
        }
        let retry = at.field("retry");
        retry
            .field("attempts")
            .within(u64::from(self.retry.attempts), (0, 10))?;
        retry
            .field("budget_percent")
            .within(u64::from(self.retry.budget_percent), (0, 100))?;
        if let Some(timeout) = self.retry.per_try_timeout {
            retry
                .field("per_try_timeout")
                .span(timeout, Profile::Open.span(1, 3_600))?;
        }
        let pool = at.field("pool");
        pool.field("max_idle_per_target")
            .within(self.pool.max_idle_per_target as u64, (0, 1 << 20))?;
        pool.field("idle_timeout")
            .span(self.pool.idle_timeout, Profile::Open.span(1, 86_400))
    }

    fn check_targets(&self, at: At<'_>) -> Checked {
        if self.target_type == TargetType::Function && !self.targets.is_empty() {
            return at.field("targets").fail(Problem::Conflict(
                "functions are registered by the program, not by their address".to_owned(),
            ));
        }
        let mut ids = std::collections::BTreeMap::new();
        for (index, target) in self.targets.iter().enumerate() {
            let at = at.part("targets", index);
            if split_address(&target.address).is_none() {
                return at.field("address").invalid(
                    &target.address,
                    "is not a host with a port, as 10.0.0.1:80, [::1]:80 or localhost:80",
                );
            }
            name(at.field("id"), target.id())?;
            at.field("weight")
                .within(u64::from(target.weight), (0, 65_535))?;
            at.field("priority")
                .within(u64::from(target.priority), (0, 65_535))?;
            if let Some(zone) = &target.zone {
                name(at.field("zone"), zone)?;
            }
            if let Some(first) = ids.insert(target.id(), index) {
                return at
                    .field(if target.id.is_some() { "id" } else { "address" })
                    .fail(Problem::Duplicate {
                        value: target.id().to_owned(),
                        first: format!("targets[{first}]"),
                    });
            }
        }
        Ok(())
    }

    fn check_stickiness(&self, at: At<'_>, profile: Profile) -> Checked {
        let stickiness = &self.stickiness;
        let is_http = self.protocol.is_http();
        let fits = match stickiness.kind {
            StickinessKind::None => true,
            StickinessKind::LbCookie | StickinessKind::AppCookie => is_http,
            StickinessKind::SourceIp => !is_http,
        };
        if !fits {
            return at.field("kind").fail(Problem::Conflict(format!(
                "cookies are for HTTP and HTTPS, source_ip for the others, and this group is {}",
                self.protocol
            )));
        }
        at.field("duration")
            .span(stickiness.duration, profile.span(1, 604_800))?;
        match (&stickiness.cookie_name, stickiness.kind) {
            (None, StickinessKind::AppCookie) => at.field("cookie_name").fail(Problem::Missing(
                "app_cookie needs the application's cookie",
            )),
            (Some(cookie), StickinessKind::AppCookie) => {
                let reserved = ["AWSALB", "AWSALBAPP", "AWSALBTG"];
                if !is_token(cookie) || reserved.iter().any(|name| cookie.starts_with(name)) {
                    return at
                        .field("cookie_name")
                        .invalid(cookie, "is not a cookie's name, or is reserved (AWSALB...)");
                }
                Ok(())
            }
            (Some(_), _) => at.field("cookie_name").fail(Problem::Conflict(
                "only kind = \"app_cookie\" follows a cookie".to_owned(),
            )),
            (None, _) => Ok(()),
        }
    }
}

impl HealthCheckConfig {
    fn check(&self, at: At<'_>, group: &TargetGroupConfig, profile: Profile) -> Checked {
        at.field("interval")
            .span(self.interval, profile.span(5, 300))?;
        if let Some(timeout) = self.timeout {
            at.field("timeout").span(timeout, profile.span(2, 120))?;
            if timeout > self.interval && profile == Profile::Aws {
                return at
                    .field("timeout")
                    .fail(Problem::Conflict("longer than the interval".to_owned()));
            }
        }
        at.field("healthy_threshold")
            .within(u64::from(self.healthy_threshold), profile.count(2, 10))?;
        at.field("unhealthy_threshold")
            .within(u64::from(self.unhealthy_threshold), profile.count(2, 10))?;
        if self.port == Some(0) {
            return at.field("port").within(0, (1, 65_535));
        }
        if let Some(path) = &self.path
            && (!path.starts_with('/')
                || path.len() > 1_024
                || path.parse::<http::uri::PathAndQuery>().is_err())
        {
            return at
                .field("path")
                .invalid(path, "is not a path of up to 1024 bytes");
        }
        if let Some(matcher) = &self.matcher {
            let is_grpc = match self.protocol {
                Some(protocol) => protocol == HealthCheckProtocol::Grpc,
                None => group.protocol_version == ProtocolVersion::Grpc,
            };
            let bounds = if is_grpc { (0, 99) } else { (200, 499) };
            if ranges(matcher, bounds).is_none() {
                return at.field("matcher").invalid(
                    matcher,
                    format!(
                        "is not a list of statuses and ranges within {} to {}, as 200,202 or 200-299",
                        bounds.0, bounds.1
                    ),
                );
            }
        }
        Ok(())
    }
}

/// The statuses and ranges of a matcher; `None` if it cannot be read.
pub(super) fn ranges(text: &str, (least, most): (u16, u16)) -> Option<Vec<(u16, u16)>> {
    text.split(',')
        .map(|part| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let (from, to) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
            (least <= from && from <= to && to <= most).then_some((from, to))
        })
        .collect()
}

/// The host and the port of an address.
pub(super) fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match inner {
        Some(inner) => inner
            .parse::<std::net::Ipv6Addr>()
            .ok()
            .map(|_| (inner, port)),
        None => {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            (!host.is_empty() && host.len() <= 253 && host.chars().all(plain))
                .then_some((host, port))
        }
    }
}

/// Whether text is a token of HTTP: a header's or cookie's name.
pub(crate) fn is_token(text: &str) -> bool {
    let special = |c: u8| b"!#$%&'*+-.^_`|~".contains(&c);
    !text.is_empty()
        && text
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || special(c))
}

fn check_listener_headers(listener: &ListenerConfig, at: At<'_>) -> Checked {
    let requests = at.field("request_headers");
    for (field, header) in listener.attributes.request_headers.each() {
        if HeaderName::from_bytes(header.as_bytes()).is_err() {
            return requests
                .field(field)
                .invalid(header, "is not a header's name");
        }
    }
    let responses = at.field("response_headers");
    for (header, value) in listener.attributes.response_headers.each() {
        if HeaderValue::from_str(value).is_err() {
            return responses
                .field(&header.replace('-', "_"))
                .invalid(value, "is not a header's value");
        }
    }
    Ok(())
}

fn name(at: At<'_>, name: &str) -> Checked {
    if name.is_empty() {
        return at.fail(Problem::Missing("a name"));
    }
    if name.chars().any(char::is_control) {
        return at.invalid(name, "has control characters");
    }
    at.at_most("bytes", name.len(), NAME)
}

fn carried(at: At<'_>, protocol: Protocol) -> Checked {
    match protocol.obstacle() {
        Some(why) => at.fail(Problem::Unsupported {
            value: protocol.to_string(),
            why,
        }),
        None => Ok(()),
    }
}

/// Whether two listeners want the same socket.
fn clash(one: &ListenerConfig, other: &ListenerConfig) -> bool {
    let sockets = |protocol| match protocol {
        Protocol::Udp => (false, true),
        Protocol::TcpUdp => (true, true),
        _ => (true, false),
    };
    let ((tcp, udp), (other_tcp, other_udp)) = (sockets(one.protocol), sockets(other.protocol));
    one.port != 0 && one.bind() == other.bind() && (tcp && other_tcp || udp && other_udp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_are_lists_of_statuses_and_ranges() {
        assert_eq!(ranges("200", (200, 499)), Some(vec![(200, 200)]));
        assert_eq!(
            ranges("200, 202,300-399", (200, 499)),
            Some(vec![(200, 200), (202, 202), (300, 399)])
        );
        for text in ["", "199", "200-500", "300-200", "200,", "a", "200-", "-1"] {
            assert_eq!(ranges(text, (200, 499)), None, "{text}");
        }
    }

    #[test]
    fn addresses_are_hosts_with_ports() {
        assert_eq!(split_address("10.0.0.1:80"), Some(("10.0.0.1", 80)));
        assert_eq!(split_address("[::1]:80"), Some(("::1", 80)));
        assert_eq!(split_address("localhost:8080"), Some(("localhost", 8080)));
        for address in [
            "",
            "localhost",
            ":80",
            "a:0",
            "a:65536",
            "::1:80",
            "a b:80",
            "[a]:80",
            "http://a:80",
        ] {
            assert_eq!(split_address(address), None, "{address}");
        }
    }
}
