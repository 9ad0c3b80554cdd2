//! From a group to the settings of its balancer.

use std::time::Duration;

use super::group::{
    AlgorithmName, HealthCheckProtocol, OutlierConfig, ProtocolVersion, StickinessKind,
    TargetGroupConfig, TargetType,
};
use super::{At, Attributes, Problem, Profile, Protocol, ProxyConfigError};
use crate::algorithm::{Algorithm, Choices, LeastOutstanding, LeastTime, PeakEwma};
use crate::config::BalancerConfig;
use crate::machine::{
    Anomaly, Availability, CheckPort, CheckProtocol, CrossZone, Deregistration, FailOpen,
    HealthCheck, Limits, Outliers, Rules, SlowStart, UnhealthyTargets,
};

impl TargetGroupConfig {
    /// The settings of the group's balancer.
    pub(super) fn balancing(
        &self,
        attributes: &Attributes,
        profile: Profile,
        at: At<'_>,
    ) -> Result<BalancerConfig, ProxyConfigError> {
        let has_no_slow_start = matches!(
            self.algorithm,
            AlgorithmName::LeastOutstandingRequests | AlgorithmName::WeightedRandom
        );
        if profile == Profile::Aws && has_no_slow_start && !self.slow_start.is_zero() {
            return at.field("slow_start").fail(Problem::Conflict(
                "there is none with least outstanding requests and weighted random".to_owned(),
            ));
        }
        if self.anomaly_mitigation && self.algorithm != AlgorithmName::WeightedRandom {
            return at
                .field("anomaly_mitigation")
                .fail(Problem::Conflict("only weighted-random has it".to_owned()));
        }
        let config = BalancerConfig {
            name: self.name.clone(),
            algorithm: self.algorithm(at)?,
            rules: Rules {
                health_check: self.health_check(at)?,
                slow_start: SlowStart {
                    duration: self.slow_start,
                    ..SlowStart::default()
                },
                deregistration: Deregistration {
                    delay: self.deregistration_delay,
                    connection_termination: self.connection_termination,
                },
                unhealthy: UnhealthyTargets {
                    connection_termination: self.unhealthy_connection_termination,
                    draining_interval: self.unhealthy_draining_interval,
                },
                fail_open: FailOpen {
                    minimum_healthy_count: self.failover.minimum_healthy_count,
                    minimum_healthy_percentage: self.failover.minimum_healthy_percentage,
                    panic_threshold: self.failover.panic_threshold,
                },
                dns_failover: Availability {
                    minimum_healthy_count: self.failover.dns_minimum_healthy_count,
                    minimum_healthy_percentage: self.failover.dns_minimum_healthy_percentage,
                },
                cross_zone: match self.cross_zone {
                    Some(true) => CrossZone::On,
                    Some(false) => CrossZone::Off,
                    None => CrossZone::UseLoadBalancer,
                },
                load_balancer_cross_zone: match attributes.cross_zone {
                    true => CrossZone::On,
                    false => CrossZone::Off,
                },
                zone_affinity: attributes.client_routing.affinity_percent(),
                outliers: self.outliers.as_ref().map(outliers),
                anomaly: (self.algorithm == AlgorithmName::WeightedRandom).then(|| Anomaly {
                    mitigation: self.anomaly_mitigation,
                    ..Anomaly::default()
                }),
                limits: match profile {
                    Profile::Aws => Limits::aws(),
                    Profile::Open => Limits::default(),
                },
                ..Rules::default()
            },
            zone: attributes.zone.as_deref().map(Into::into),
            max_outstanding: self.max_outstanding,
            ..BalancerConfig::default()
        };
        match config.check() {
            Ok(()) => Ok(config),
            Err(error) => at.fail(Problem::Conflict(error.to_string())),
        }
    }

    fn algorithm(&self, at: At<'_>) -> Result<Algorithm, ProxyConfigError> {
        let choices = match self.choices {
            1 => {
                return at
                    .field("choices")
                    .within(1, (2, 64))
                    .map(|()| Algorithm::Random);
            }
            choices => Choices::Sample(choices),
        };
        if self.stickiness.kind == StickinessKind::SourceIp
            && self.algorithm == AlgorithmName::RoundRobin
        {
            return hashed(AlgorithmName::Maglev, at);
        }
        Ok(match self.algorithm {
            AlgorithmName::RoundRobin => Algorithm::RoundRobin,
            AlgorithmName::LeastOutstandingRequests => {
                Algorithm::LeastOutstanding(LeastOutstanding::default())
            }
            AlgorithmName::WeightedRandom => Algorithm::WeightedRandom,
            AlgorithmName::SmoothWeighted => Algorithm::SmoothWeighted,
            AlgorithmName::Random => Algorithm::Random,
            AlgorithmName::RandomChoices => {
                Algorithm::LeastOutstanding(LeastOutstanding { choices })
            }
            AlgorithmName::PeakEwma => Algorithm::PeakEwma(PeakEwma::default()),
            AlgorithmName::LeastTime => Algorithm::LeastTime(LeastTime::default()),
            AlgorithmName::RingHash
            | AlgorithmName::Maglev
            | AlgorithmName::Rendezvous
            | AlgorithmName::BoundedLoad
            | AlgorithmName::Prequal => return hashed(self.algorithm, at),
        })
    }

    fn health_check(&self, at: At<'_>) -> Result<Option<HealthCheck>, ProxyConfigError> {
        let config = &self.health_check;
        if !config.enabled {
            return Ok(None);
        }
        let protocol = match (config.protocol, self.target_type) {
            (_, TargetType::Function) => CheckProtocol::Custom,
            (Some(HealthCheckProtocol::Http), _) => CheckProtocol::Http,
            (Some(HealthCheckProtocol::Https), _) => CheckProtocol::Https,
            (Some(HealthCheckProtocol::Tcp), _) => CheckProtocol::Tcp,
            (Some(HealthCheckProtocol::Grpc), _) => CheckProtocol::Grpc,
            (None, _) => match (self.protocol_version, self.protocol) {
                (ProtocolVersion::Grpc, _) => CheckProtocol::Grpc,
                (_, Protocol::Http) => CheckProtocol::Http,
                (_, Protocol::Https) => CheckProtocol::Https,
                _ => CheckProtocol::Tcp,
            },
        };
        let usual = HealthCheck::of(protocol);
        let at = at.field("health_check");
        let matcher = match &config.matcher {
            Some(text) => Some(text.parse().or_else(|_| {
                at.field("matcher")
                    .invalid(text, "is not a list of statuses and ranges")
            })?),
            None => None,
        };
        Ok(Some(HealthCheck {
            port: config.port.map_or(CheckPort::Traffic, CheckPort::Port),
            path: config.path.clone(),
            interval: config.interval,
            timeout: match config.timeout {
                Some(timeout) => timeout,
                // The usual one is meant for the usual interval.
                None => usual
                    .timeout
                    .min(config.interval)
                    .max(Duration::from_millis(1)),
            },
            healthy_threshold: config.healthy_threshold,
            unhealthy_threshold: config.unhealthy_threshold,
            matcher,
            ..usual
        }))
    }
}

fn hashed(name: AlgorithmName, at: At<'_>) -> Result<Algorithm, ProxyConfigError> {
    at.field("algorithm").fail(Problem::Unsupported {
        value: format!("{name:?}"),
        why: "not yet",
    })
}

fn outliers(config: &OutlierConfig) -> Outliers {
    Outliers {
        consecutive_failures: Some(config.consecutive_failures),
        base_ejection_time: config.base_ejection,
        max_ejection_percent: config.max_ejected_percent,
        ..Outliers::default()
    }
}
