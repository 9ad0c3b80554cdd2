//! From a group to the settings of its balancer.

use std::time::Duration;

use super::group::{
    AlgorithmName, HealthCheckProtocol, OutlierConfig, ProtocolVersion, TargetGroupConfig,
    TargetType,
};
use super::{At, Attributes, Problem, Profile, Protocol, ProxyConfigError};
use crate::algorithm::{
    Algorithm, ApertureConfig, BoundedConfig, C3Config, Choices, LeastOutstanding, LeastTime,
    MaglevConfig, PeakEwma, PrequalConfig, ReportedConfig, RingConfig, StickyConfig, SubsetConfig,
};
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
            algorithm: self.algorithm(),
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

    fn algorithm(&self) -> Algorithm {
        let choices = Choices::Sample(self.choices);
        match self.algorithm {
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
            AlgorithmName::RingHash => Algorithm::RingHash(RingConfig::default()),
            AlgorithmName::Maglev => Algorithm::Maglev(MaglevConfig::default()),
            AlgorithmName::Rendezvous => Algorithm::Rendezvous,
            AlgorithmName::BoundedLoad => Algorithm::BoundedLoad(BoundedConfig::default()),
            AlgorithmName::Sticky => Algorithm::Sticky(StickyConfig::default()),
            AlgorithmName::FirstAvailable => Algorithm::FirstAvailable,
            AlgorithmName::Subset => Algorithm::Subset(SubsetConfig::default()),
            AlgorithmName::Aperture => Algorithm::Aperture(ApertureConfig::default()),
            AlgorithmName::C3 => Algorithm::C3(C3Config::default()),
            AlgorithmName::Prequal => Algorithm::Prequal(PrequalConfig::default()),
            AlgorithmName::Reported => Algorithm::Reported(ReportedConfig::default()),
        }
    }

    fn health_check(&self, at: At<'_>) -> Result<Option<HealthCheck>, ProxyConfigError> {
        let config = &self.health_check;
        // Functions are not asked by themselves: AWS's default for them too.
        if !config.enabled || self.target_type == TargetType::Function {
            return Ok(None);
        }
        let protocol = match (config.protocol, self.protocol) {
            (Some(HealthCheckProtocol::Http), _) => CheckProtocol::Http,
            (Some(HealthCheckProtocol::Https), _) => CheckProtocol::Https,
            (Some(HealthCheckProtocol::Tcp), _) => CheckProtocol::Tcp,
            (Some(HealthCheckProtocol::Grpc), _) => CheckProtocol::Grpc,
            (None, _) if self.protocol_version == ProtocolVersion::Grpc => CheckProtocol::Grpc,
            (None, Protocol::Http) => CheckProtocol::Http,
            (None, Protocol::Https) => CheckProtocol::Https,
            (None, _) => CheckProtocol::Tcp,
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

fn outliers(config: &OutlierConfig) -> Outliers {
    Outliers {
        consecutive_failures: Some(config.consecutive_failures),
        base_ejection_time: config.base_ejection,
        max_ejection_percent: config.max_ejected_percent,
        ..Outliers::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FailoverConfig, HealthCheckConfig, Profile, TargetConfig};
    use super::*;

    fn balancing(group: &TargetGroupConfig, profile: Profile) -> Result<BalancerConfig, String> {
        let at = At::ROOT.part("target_groups", 0);
        group
            .balancing(&Attributes::default(), profile, at)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_group_says_is_what_its_balancer_does() {
        let group = TargetGroupConfig {
            name: "g".to_owned(),
            targets: vec![TargetConfig::at("a:1")],
            algorithm: AlgorithmName::RandomChoices,
            choices: 3,
            health_check: HealthCheckConfig {
                interval: Duration::from_secs(3),
                port: Some(81),
                matcher: Some("200-204".to_owned()),
                ..Default::default()
            },
            failover: FailoverConfig {
                panic_threshold: 40,
                ..Default::default()
            },
            cross_zone: Some(false),
            slow_start: Duration::from_secs(7),
            ..Default::default()
        };
        let config = balancing(&group, Profile::Open).expect("settings");
        let choices = Choices::Sample(3);
        assert_eq!(
            config.algorithm,
            Algorithm::LeastOutstanding(LeastOutstanding { choices })
        );
        assert_eq!(config.rules.cross_zone, CrossZone::Off);
        assert_eq!(config.rules.fail_open.panic_threshold, 40);
        assert_eq!(config.rules.slow_start.duration, Duration::from_secs(7));
        let check = config.rules.health_check.expect("a check");
        assert_eq!(check.protocol, CheckProtocol::Http);
        assert_eq!(check.port, CheckPort::Port(81));
        assert_eq!(
            check.timeout,
            Duration::from_secs(3),
            "not longer than the interval"
        );
        assert!(
            check
                .matcher
                .is_some_and(|matcher| matcher.matches(204) && !matcher.matches(205))
        );
    }

    #[test]
    fn every_algorithm_makes_a_balancer_that_can_be_built() {
        let text = r#"["round_robin", "least_outstanding_requests", "weighted_random", "smooth-weighted", "random",
            "random-choices", "peak-ewma", "least-time", "ring-hash", "maglev", "rendezvous", "bounded-load", "sticky",
            "first-available", "subset", "aperture", "c3", "prequal", "reported"]"#;
        let names: Vec<AlgorithmName> = serde_json::from_str(text).expect("names");
        for algorithm in names {
            let group = TargetGroupConfig {
                name: "g".to_owned(),
                algorithm,
                ..Default::default()
            };
            let config = balancing(&group, Profile::Open).expect("settings");
            assert!(crate::Balancer::<()>::new(config).is_ok(), "{algorithm:?}");
        }
    }

    #[test]
    fn settings_that_do_not_go_together_are_told() {
        let slow = TargetGroupConfig {
            name: "g".to_owned(),
            algorithm: AlgorithmName::WeightedRandom,
            slow_start: Duration::from_secs(30),
            ..Default::default()
        };
        assert!(balancing(&slow, Profile::Open).is_ok());
        let told = balancing(&slow, Profile::Aws).expect_err("not at the service");
        assert!(told.starts_with("target_groups[0].slow_start: "), "{told}");
        let odd = TargetGroupConfig {
            name: "g".to_owned(),
            anomaly_mitigation: true,
            ..Default::default()
        };
        let told =
            balancing(&odd, Profile::Open).expect_err("round robin has no weights to change");
        assert!(
            told.starts_with("target_groups[0].anomaly_mitigation: "),
            "{told}"
        );
        let late = TargetGroupConfig {
            name: "g".to_owned(),
            health_check: HealthCheckConfig {
                timeout: Some(Duration::from_secs(31)),
                ..Default::default()
            },
            ..Default::default()
        };
        assert!(
            balancing(&late, Profile::Open)
                .expect_err("too long")
                .starts_with("target_groups[0]: ")
        );
    }
}
