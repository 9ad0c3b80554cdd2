//! Configurations that are not valid name what is wrong with them.

use std::time::Duration;

use sim_scaling::provisioner::Recorder;
use sim_scaling::{
    Backoff, ConfigError, Group, GroupConfig, HookTransition, LaunchTemplate, LifecycleHook,
    MaintenancePolicy, MixedInstances, Override, PolicyConfig, TemplateVersion, VersionChoice,
    Weighing, ZoneConfig,
};

fn base() -> GroupConfig {
    GroupConfig::new("g", 1, 10)
}

#[test]
fn each_bad_field_is_named_with_its_value_and_its_limit() {
    let mixed = |change: fn(&mut MixedInstances)| {
        let mut mixed = MixedInstances::default();
        change(&mut mixed);
        GroupConfig {
            mixed: Some(mixed),
            ..base()
        }
    };
    let hook = LifecycleHook::new("h", HookTransition::Launching);
    let cases: Vec<(GroupConfig, &str)> = vec![
        (
            GroupConfig {
                name: String::new(),
                ..base()
            },
            "name: a name has 0 bytes, must have 1 to 255",
        ),
        (
            GroupConfig { min: 11, ..base() },
            "min: 11, must be from 0 to 10",
        ),
        (
            GroupConfig {
                max: 100_001,
                ..base()
            },
            "max: 100001, must be from 0 to 100000",
        ),
        (
            GroupConfig {
                desired: Some(0),
                ..base()
            },
            "desired: 0, must be from 1 to 10",
        ),
        (
            GroupConfig {
                zones: vec![],
                ..base()
            },
            "zones: 0, must be from 1 to 64",
        ),
        (
            base().in_zones(["a", "b", "a"]),
            "zones: \"a\" stands there twice",
        ),
        (
            base().in_zones([""]),
            "zones: a name has 0 bytes, must have 1 to 255",
        ),
        (
            GroupConfig {
                version: VersionChoice::Number(7),
                ..base()
            },
            "version: the template has no version Number(7)",
        ),
        (
            GroupConfig {
                template: LaunchTemplate {
                    versions: vec![
                        TemplateVersion {
                            number: 2,
                            ..Default::default()
                        },
                        TemplateVersion::default(),
                    ],
                    ..Default::default()
                },
                ..base()
            },
            "template.versions: 1 follows 2, must rise",
        ),
        (
            mixed(|m| m.overrides.clear()),
            "mixed.overrides: 0, must be from 1 to 40",
        ),
        (
            mixed(|m| m.overrides = vec![Override::default(); 41]),
            "mixed.overrides: 41, must be from 1 to 40",
        ),
        (
            mixed(|m| m.overrides[0].weight = Weighing::Units(0)),
            "mixed.overrides.weight: 0, must be from 1 to 100000",
        ),
        (
            mixed(|m| m.overrides[0].kind.spot_price = f64::NAN),
            "mixed.overrides.spot_price: NaN is not a finite number from 0 on",
        ),
        (
            mixed(|m| m.on_demand_percentage = 101),
            "mixed.on_demand_percentage: 101, must be from 0 to 100",
        ),
        (
            mixed(|m| m.spot_max_price = Some(-1.0)),
            "mixed.spot_max_price: -1 is not a finite number from 0 on",
        ),
        (
            GroupConfig {
                maintenance: Some(MaintenancePolicy {
                    min_healthy: 90,
                    max_healthy: 201,
                }),
                ..base()
            },
            "maintenance: 201, must be from 100 to 200",
        ),
        (
            GroupConfig {
                hooks: vec![hook.clone(), hook.clone()],
                ..base()
            },
            "hooks: \"h\" stands there twice",
        ),
        (
            GroupConfig {
                hooks: vec![LifecycleHook {
                    heartbeat: Duration::ZERO,
                    ..hook
                }],
                ..base()
            },
            "hooks.heartbeat: must not be zero",
        ),
        (
            GroupConfig {
                metric_period: Duration::ZERO,
                ..base()
            },
            "metric_period: must not be zero",
        ),
        (
            GroupConfig {
                launch_timeout: Duration::ZERO,
                ..base()
            },
            "launch_timeout: must not be zero",
        ),
        (
            GroupConfig {
                backoff: Backoff {
                    first: Duration::ZERO,
                    ..Default::default()
                },
                ..base()
            },
            "backoff.first: must not be zero",
        ),
        (
            GroupConfig {
                default_cooldown: Duration::MAX,
                ..base()
            },
            "default_cooldown: 18446744073709551615.999999999s is longer than 3162240000s",
        ),
        (
            GroupConfig {
                history: 0,
                ..base()
            },
            "history: 0, must be from 1 to 100000",
        ),
        (
            GroupConfig {
                termination: vec![],
                ..base()
            },
            "termination: 0, must be from 1 to 16",
        ),
        (
            GroupConfig {
                tags: (0..51).map(|n| (n.to_string(), String::new())).collect(),
                ..base()
            },
            "tags: 51, must be from 0 to 50",
        ),
    ];
    for (config, expected) in cases {
        let error = Group::new(config, Recorder::new()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn the_default_configuration_and_its_extremes_are_valid() {
    for config in [
        GroupConfig::default(),
        GroupConfig::new("g", 0, 0),
        GroupConfig {
            zones: vec![ZoneConfig {
                name: "a".into(),
                reserved: u32::MAX,
            }],
            max_lifetime: Some(Duration::from_nanos(1)),
            drain_timeout: Duration::ZERO,
            ..GroupConfig::new("g", 100_000, 100_000)
        },
    ] {
        config.check().unwrap();
    }
}

#[test]
fn gauges_and_policies_have_names_of_their_own() {
    use crate::rig::Dial;
    use sim_scaling::policy::manual::ManualConfig;
    use std::sync::Arc;
    let error = Group::builder(base(), Recorder::new())
        .gauge("jobs", Arc::new(Dial::default()))
        .gauge("jobs", Arc::new(Dial::default()))
        .build()
        .unwrap_err();
    assert_eq!(error.to_string(), "gauges: there is a \"jobs\" already");
    assert!(matches!(error, ConfigError::Taken { .. }));
    let manual = || PolicyConfig::Manual(ManualConfig { desired: None });
    let error = Group::builder(base(), Recorder::new())
        .policy("me", manual())
        .policy("me", manual())
        .build()
        .unwrap_err();
    assert_eq!(error.to_string(), "policies: there is a \"me\" already");
}

#[cfg(feature = "serde")]
#[test]
fn a_configuration_is_read_from_text_and_unknown_fields_are_refused() {
    let config: GroupConfig = serde_json::from_str(
        r#"{"name": "web", "min": 1, "max": 4, "zones": [{"name": "a"}],
            "maintenance": {"min_healthy": 100, "max_healthy": 110},
            "version": "$Latest", "termination": ["OldestInstance"]}"#,
    )
    .unwrap();
    config.check().unwrap();
    assert_eq!(config.maintenance, Some(MaintenancePolicy::LAUNCH_FIRST));
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<GroupConfig>(&text).unwrap(), config);
    serde_json::from_str::<GroupConfig>(r#"{"maximum": 3}"#).unwrap_err();
}
