//! How a target group of a configuration chooses among its targets and watches over them, in the balancer's own terms.

use crate::algorithm::{Algorithm, Choices, LeastOutstanding, LeastTime, PeakEwma};
use crate::config::BalancerConfig;
use crate::machine::{
    Anomaly, Availability, CheckPort, CheckProtocol, CrossZone, Deregistration, FailOpen,
    HealthCheck, Outliers, Rules, SlowStart, UnhealthyTargets,
};

use super::config::{
    AlgorithmName, Attributes, HealthCheckProtocol, Protocol, ProtocolVersion, TargetGroupConfig,
    TargetType,
};

/// The balancer's configuration for a group.
pub(crate) fn balancing(group: &TargetGroupConfig, attributes: &Attributes) -> BalancerConfig {
    BalancerConfig {
        name: group.name.clone(),
        algorithm: algorithm(group),
        rules: rules(group, attributes),
        zone: attributes.zone.as_deref().map(Into::into),
        max_outstanding: group.max_outstanding,
        ..BalancerConfig::default()
    }
}

/// Whether an algorithm goes by a key of the request.
pub(crate) const fn is_keyed(algorithm: AlgorithmName) -> bool {
    matches!(
        algorithm,
        AlgorithmName::RingHash
            | AlgorithmName::Maglev
            | AlgorithmName::Rendezvous
            | AlgorithmName::BoundedLoad
    )
}

fn algorithm(group: &TargetGroupConfig) -> Algorithm {
    let sample = Choices::Sample(group.choices);
    match group.algorithm {
        AlgorithmName::LeastOutstandingRequests => {
            Algorithm::LeastOutstanding(LeastOutstanding::default())
        }
        AlgorithmName::WeightedRandom => Algorithm::WeightedRandom,
        AlgorithmName::SmoothWeighted => Algorithm::SmoothWeighted,
        AlgorithmName::Random => Algorithm::Random,
        AlgorithmName::RandomChoices => {
            Algorithm::LeastOutstanding(LeastOutstanding { choices: sample })
        }
        AlgorithmName::PeakEwma => Algorithm::PeakEwma(PeakEwma::default()),
        AlgorithmName::LeastTime => Algorithm::LeastTime(LeastTime::default()),
        AlgorithmName::RingHash => Algorithm::RingHash(Default::default()),
        AlgorithmName::Maglev => Algorithm::Maglev(Default::default()),
        AlgorithmName::Rendezvous => Algorithm::Rendezvous,
        AlgorithmName::BoundedLoad => Algorithm::BoundedLoad(Default::default()),
        AlgorithmName::Prequal => Algorithm::Prequal(Default::default()),
        AlgorithmName::RoundRobin => Algorithm::RoundRobin,
    }
}

fn rules(group: &TargetGroupConfig, attributes: &Attributes) -> Rules {
    let cross_zone = |on: bool| if on { CrossZone::On } else { CrossZone::Off };
    Rules {
        health_check: health_check(group),
        slow_start: SlowStart {
            duration: group.slow_start,
            ..SlowStart::default()
        },
        deregistration: Deregistration {
            delay: group.deregistration_delay,
            connection_termination: group.connection_termination,
        },
        unhealthy: UnhealthyTargets {
            connection_termination: group.unhealthy_connection_termination,
            draining_interval: group.unhealthy_draining_interval,
        },
        fail_open: FailOpen {
            minimum_healthy_count: group.failover.minimum_healthy_count,
            minimum_healthy_percentage: group.failover.minimum_healthy_percentage,
            panic_threshold: group.failover.panic_threshold,
        },
        dns_failover: Availability {
            minimum_healthy_count: group.failover.dns_minimum_healthy_count,
            minimum_healthy_percentage: group.failover.dns_minimum_healthy_percentage,
        },
        cross_zone: group
            .cross_zone
            .map_or(CrossZone::UseLoadBalancer, cross_zone),
        load_balancer_cross_zone: cross_zone(attributes.cross_zone),
        zone_affinity: attributes.client_routing.affinity_percent(),
        outliers: group.outliers.as_ref().map(|outliers| Outliers {
            consecutive_failures: Some(outliers.consecutive_failures),
            base_ejection_time: outliers.base_ejection,
            max_ejection_percent: outliers.max_ejected_percent,
            ..Outliers::default()
        }),
        anomaly: group.anomaly_mitigation.then(Anomaly::default),
        ..Rules::default()
    }
}

fn health_check(group: &TargetGroupConfig) -> Option<HealthCheck> {
    let config = &group.health_check;
    // A function is asked by nobody but its requests, as the reference's by default.
    if !config.enabled || group.target_type == TargetType::Function {
        return None;
    }
    let protocol = match (config.protocol, group.protocol) {
        (Some(HealthCheckProtocol::Http), _) => CheckProtocol::Http,
        (Some(HealthCheckProtocol::Https), _) => CheckProtocol::Https,
        (Some(HealthCheckProtocol::Tcp), _) => CheckProtocol::Tcp,
        (Some(HealthCheckProtocol::Grpc), _) => CheckProtocol::Grpc,
        (None, Protocol::Http | Protocol::Https)
            if group.protocol_version == ProtocolVersion::Grpc =>
        {
            CheckProtocol::Grpc
        }
        (None, Protocol::Http) => CheckProtocol::Http,
        (None, Protocol::Https) => CheckProtocol::Https,
        (None, _) => CheckProtocol::Tcp,
    };
    let usual = HealthCheck::of(protocol);
    Some(HealthCheck {
        port: config.port.map_or(CheckPort::Traffic, CheckPort::Port),
        path: config.path.clone(),
        interval: config.interval,
        timeout: config.timeout.unwrap_or(usual.timeout),
        healthy_threshold: config.healthy_threshold,
        unhealthy_threshold: config.unhealthy_threshold,
        // The configuration's check has read it once already.
        matcher: config
            .matcher
            .as_ref()
            .and_then(|matcher| matcher.parse().ok()),
        ..usual
    })
}
