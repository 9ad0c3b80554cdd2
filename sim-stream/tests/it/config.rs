//! Configurations: every field out of its range is named with its value and its limits.

use std::time::Duration;

use sim_stream::{
    ConfigError, Limits, Memory, OnDemandLimits, ReshardingLimits, StreamConfig, StreamMode,
    Throughput,
};

const HOUR: Duration = Duration::from_secs(3_600);

fn refused(change: impl FnOnce(&mut StreamConfig)) -> String {
    refused_from(StreamConfig::default(), change)
}

fn refused_from(mut config: StreamConfig, change: impl FnOnce(&mut StreamConfig)) -> String {
    assert_eq!(config.check(), Ok(()));
    change(&mut config);
    config
        .check()
        .expect_err("a field is out of its range")
        .to_string()
}

#[test]
fn the_defaults_and_the_aws_profile_are_sound() {
    assert_eq!(StreamConfig::default().check(), Ok(()));
    assert_eq!(StreamConfig::new("a").check(), Ok(()));
    assert_eq!(StreamConfig::aws("a").check(), Ok(()));
    assert_eq!(StreamConfig::aws("a").shards(20_000).check(), Ok(()));
    let on_demand = StreamConfig {
        mode: StreamMode::OnDemand,
        ..StreamConfig::aws("a")
    };
    assert_eq!(on_demand.check(), Ok(()));
    assert_eq!(on_demand.first_shards(), 4);
    assert_eq!(StreamConfig::new("a").shards(7).first_shards(), 7);
}

#[test]
fn the_aws_profile_has_the_limits_of_kinesis() {
    let config = StreamConfig::aws("flights");
    assert_eq!(config.retention, 24 * HOUR);
    assert_eq!(config.max_record_bytes, 1 << 20);
    assert_eq!(config.iterator_lifetime, Duration::from_secs(300));
    let limits = config.limits;
    assert_eq!((limits.batch_records, limits.batch_bytes), (500, 10 << 20));
    assert_eq!((limits.read_records, limits.read_bytes), (10_000, 10 << 20));
    assert_eq!(limits.consumers, 20);
    let resharding = limits.resharding.unwrap();
    assert_eq!((resharding.factor, resharding.changes), (2, 10));
    let throughput = limits.throughput.unwrap();
    assert_eq!(
        (throughput.write_bytes, throughput.write_records),
        (1 << 20, 1_000)
    );
    assert_eq!((throughput.read_bytes, throughput.reads), (2 << 20, 5));
    assert_eq!(Limits::default().throughput, None);
    assert_eq!(Limits::default().resharding, None);
}

#[test]
fn any_retention_but_zero_passes_in_process_and_a_day_to_a_year_in_the_aws_profile() {
    let check = |mut config: StreamConfig, retention| {
        config.retention = retention;
        config.check()
    };
    assert_eq!(
        check(StreamConfig::default(), Duration::from_nanos(1)),
        Ok(())
    );
    assert!(check(StreamConfig::default(), Duration::ZERO).is_err());
    assert!(check(StreamConfig::default(), Duration::MAX).is_err());
    let aws = || StreamConfig::aws("a");
    assert_eq!(check(aws(), 24 * HOUR), Ok(()));
    assert_eq!(check(aws(), 8_760 * HOUR), Ok(()));
    for value in [23 * HOUR, 8_761 * HOUR] {
        assert_eq!(
            check(aws(), value),
            Err(ConfigError::Duration {
                field: "retention",
                value,
                min: 24 * HOUR,
                max: 8_760 * HOUR
            })
        );
    }
}

#[test]
fn a_record_limit_lies_between_one_and_ten_mebibytes_in_the_aws_profile() {
    let aws = || StreamConfig::aws("a");
    for bytes in [1 << 20, 10 << 20] {
        let mut config = aws();
        config.max_record_bytes = bytes;
        assert_eq!(config.check(), Ok(()));
    }
    assert_eq!(
        refused_from(aws(), |c| c.max_record_bytes = (10 << 20) + 1),
        "max_record_bytes: 10485761 must lie between 1048576 and 10485760"
    );
    assert!(refused_from(aws(), |c| c.max_record_bytes = 1_000).contains("1000"));
}

#[test]
fn a_name_is_1_to_128_letters_digits_and_three_marks() {
    assert_eq!(StreamConfig::new("a-Z_0.9").check(), Ok(()));
    assert_eq!(StreamConfig::new("x".repeat(128)).check(), Ok(()));
    assert_eq!(
        refused(|c| c.name = String::new()),
        "name: has 0 characters, must have 1 to 128"
    );
    assert_eq!(
        refused(|c| c.name = "x".repeat(129)),
        "name: has 129 characters, must have 1 to 128"
    );
    assert!(refused(|c| c.name = "two words".into()).contains("' '"));
    assert!(refused(|c| c.name = "flüge".into()).contains("'ü'"));
}

#[test]
fn each_field_out_of_its_range_is_named() {
    type Change = fn(&mut StreamConfig);
    let cases: &[(&str, Change)] = &[
        ("mode.shards", |c| {
            c.mode = StreamMode::Provisioned { shards: 0 }
        }),
        ("mode.shards", |c| {
            c.mode = StreamMode::Provisioned { shards: 20_001 }
        }),
        ("max_bytes", |c| c.max_bytes = Some(0)),
        ("max_records", |c| c.max_records = Some(0)),
        ("max_record_bytes", |c| c.max_record_bytes = 0),
        ("max_record_bytes", |c| c.max_record_bytes = 16 << 20),
        ("iterator_lifetime", |c| {
            c.iterator_lifetime = Duration::ZERO
        }),
        ("memory.chunk_bytes", |c| c.memory.chunk_bytes = 0),
        ("memory.chunk_bytes", |c| c.memory.chunk_bytes = usize::MAX),
        ("memory.first_chunk_bytes", |c| {
            c.memory = Memory {
                chunk_bytes: 8_192,
                first_chunk_bytes: 8_193,
                ..Memory::default()
            };
        }),
        ("limits.min_retention", |c| {
            c.limits.min_retention = Duration::ZERO
        }),
        ("limits.min_retention", |c| {
            c.limits.min_retention = 2 * HOUR;
            c.limits.max_retention = HOUR;
        }),
        ("limits.max_retention", |c| {
            c.limits.max_retention = Duration::MAX
        }),
        ("limits.max_record_bytes", |c| {
            c.limits.max_record_bytes = 1 << 24
        }),
        ("limits.batch_records", |c| c.limits.batch_records = 0),
        ("limits.batch_bytes", |c| c.limits.batch_bytes = 0),
        ("limits.read_records", |c| c.limits.read_records = 0),
        ("limits.read_bytes", |c| c.limits.read_bytes = 0),
        ("limits.open_shards", |c| c.limits.open_shards = 0),
        ("limits.open_shards", |c| c.limits.open_shards = 100_001),
        ("limits.retained_shards", |c| c.limits.retained_shards = 0),
        ("limits.retained_shards", |c| {
            c.limits.retained_shards = u32::MAX
        }),
        ("limits.resharding.factor", |c| {
            c.limits.resharding = Some(ReshardingLimits {
                factor: 1,
                ..ReshardingLimits::aws()
            });
        }),
        ("limits.resharding.changes", |c| {
            c.limits.resharding = Some(ReshardingLimits {
                changes: 0,
                ..ReshardingLimits::aws()
            });
        }),
        ("limits.resharding.mode_changes", |c| {
            c.limits.resharding = Some(ReshardingLimits {
                mode_changes: 0,
                ..ReshardingLimits::aws()
            });
        }),
        ("limits.throughput.write_bytes", |c| {
            c.limits.throughput = Some(Throughput {
                write_bytes: 0,
                ..Throughput::aws()
            });
        }),
        ("limits.throughput.write_burst_bytes", |c| {
            c.limits.throughput = Some(Throughput {
                write_burst_bytes: 1,
                ..Throughput::aws()
            });
        }),
        ("limits.throughput.write_records", |c| {
            c.limits.throughput = Some(Throughput {
                write_records: 0,
                ..Throughput::aws()
            });
        }),
        ("limits.throughput.read_bytes", |c| {
            c.limits.throughput = Some(Throughput {
                read_bytes: 0,
                ..Throughput::aws()
            });
        }),
        ("limits.throughput.reads", |c| {
            c.limits.throughput = Some(Throughput {
                reads: 0,
                ..Throughput::aws()
            });
        }),
        ("limits.throughput.fan_out_bytes", |c| {
            c.limits.throughput = Some(Throughput {
                fan_out_bytes: u64::MAX,
                ..Throughput::aws()
            });
        }),
        ("limits.subscription_lifetime", |c| {
            c.limits.subscription_lifetime = Some(Duration::ZERO);
        }),
        ("limits.on_demand.first_shards", |c| {
            c.limits.on_demand = OnDemandLimits {
                first_shards: 201,
                ..OnDemandLimits::default()
            };
        }),
        ("limits.on_demand.max_shards", |c| {
            c.limits.on_demand.max_shards = 0
        }),
        ("limits.on_demand.shard_bytes", |c| {
            c.limits.on_demand.shard_bytes = 0
        }),
        ("limits.on_demand.shard_records", |c| {
            c.limits.on_demand.shard_records = 0
        }),
        ("limits.on_demand.doubling", |c| {
            c.limits.on_demand.doubling = Duration::ZERO
        }),
        ("limits.on_demand.memory", |c| {
            c.limits.on_demand.memory = Duration::MAX
        }),
    ];
    for (field, change) in cases {
        let message = refused(change);
        assert!(
            message.starts_with(&format!("{field}: ")),
            "{field}: {message}"
        );
        assert!(message.contains("must lie between"), "{message}");
    }
}

#[cfg(feature = "serde")]
#[test]
fn a_configuration_survives_its_text_and_an_unknown_field_does_not() {
    let config = StreamConfig::aws("flights").shards(3);
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<StreamConfig>(&json).unwrap(), config);
    let short: StreamConfig = serde_json::from_str(r#"{"name":"short"}"#).unwrap();
    assert_eq!(short, StreamConfig::new("short"));
    assert!(serde_json::from_str::<StreamConfig>(r#"{"nmae":"x"}"#).is_err());
}
