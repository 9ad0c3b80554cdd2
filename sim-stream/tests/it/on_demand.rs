//! On-demand mode: the shards follow the traffic.

use std::time::Duration;

use sim_stream::{
    Limits, ModeError, OnDemandLimits, Read, Record, Refusal, ReshardingLimits, Resource,
    SplitError, StartingPosition, StreamConfig, StreamMode,
};

use crate::rig::{FIRST, hours, key, of, secs, small, stream, stream_of};

fn on_demand(limits: Limits) -> StreamConfig {
    StreamConfig {
        mode: StreamMode::OnDemand,
        limits,
        ..small(1)
    }
}

/// A shard that is reckoned to take ten records a second.
fn slow() -> Limits {
    Limits {
        on_demand: OnDemandLimits {
            shard_records: 10,
            ..OnDemandLimits::default()
        },
        ..Limits::default()
    }
}

#[test]
fn a_new_on_demand_stream_has_four_shards() {
    let (stream, _) = stream(on_demand(Limits::default()));
    assert_eq!(stream.open_shard_count(), 4);
    assert_eq!(stream.mode(), StreamMode::OnDemand);
    assert_eq!(stream.split_evenly(FIRST), Err(SplitError::OnDemand));
}

#[test]
fn the_shards_grow_to_double_the_peak_and_shrink_when_it_is_forgotten() {
    let (stream, hand) = stream(on_demand(slow()));
    let mut reader = stream.reader(StartingPosition::TrimHorizon).unwrap();
    // A minute with 80 records a second: the load of eight shards.
    for n in 0..60 * 80 {
        stream.try_put(of(n.to_string(), n)).unwrap();
        hand.advance(Duration::from_nanos(12_500_000));
    }
    assert_eq!(
        stream.open_shard_count(),
        4,
        "a peak counts after 15 minutes"
    );
    hand.advance(secs(15 * 60));
    stream.advance();
    assert_eq!(stream.open_shard_count(), 16);
    for n in 4_800..4_900 {
        stream.try_put(of(n.to_string(), n)).unwrap();
    }
    hand.advance(hours(24 * 31));
    stream.advance();
    assert_eq!(stream.open_shard_count(), 4);
    // What is retained was read through both changes.
    let (stream, _) = (stream, hand);
    let mut gaps = 0;
    loop {
        match reader.try_read(Read::default()) {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(_) => gaps += 1,
        }
        assert!(gaps < 1_000, "the reader comes to the tip");
    }
    assert_eq!(reader.shards().count(), stream.open_shard_count());
}

#[test]
fn puts_alone_make_the_shards_follow() {
    let (stream, hand) = stream(on_demand(slow()));
    for n in 0..20 * 60 * 30 {
        stream.try_put(of(n.to_string(), n)).unwrap();
        hand.advance(secs(1) / 30);
    }
    // Three times a shard's load, as near as a put in 64 tells it; and nobody called `advance`.
    let shards = stream.open_shard_count();
    assert!((6..=7).contains(&shards), "{shards}");
}

#[test]
fn the_deadline_of_a_change_is_named() {
    let (stream, hand) = stream(on_demand(slow()));
    for n in 0..6_000 {
        stream.try_put(of(n.to_string(), n)).unwrap();
    }
    stream.advance();
    let deadline = stream.next_deadline().unwrap();
    assert!(deadline <= hand.now() + secs(15 * 60));
    hand.advance_to(deadline);
    stream.advance_to(deadline);
    assert_eq!(stream.open_shard_count(), 20);
}

#[test]
fn traffic_that_doubles_too_fast_is_throttled_in_the_aws_profile() {
    let config = StreamConfig {
        mode: StreamMode::OnDemand,
        ..StreamConfig::aws("s")
    };
    let (stream, hand) = stream_of::<()>(config);
    let mut refusals = Vec::new();
    for n in 0..6_000 {
        let record = Record::bytes(key(n.to_string()), vec![7; 900]);
        if let Err(error) = stream.try_put(record) {
            refusals.push(error.reason);
        }
    }
    // Four shards: 4,000 records a second, whoever refuses the rest.
    assert!(
        (2_000..2_300).contains(&refusals.len()),
        "{}",
        refusals.len()
    );
    assert!(refusals.iter().any(|reason| matches!(
        reason,
        Refusal::Throttled {
            resource: Resource::OnDemand | Resource::WriteRecords,
            ..
        }
    )));
    assert_eq!(stream.stats().write_throttled, refusals.len() as u64);
    hand.advance(secs(2));
    stream.try_put(Record::bytes(key("k"), "later")).unwrap();
}

#[test]
fn a_stream_changes_its_mode_and_keeps_its_shards() {
    let limits = Limits {
        resharding: Some(ReshardingLimits::aws()),
        ..Limits::default()
    };
    let config = StreamConfig { limits, ..small(6) };
    let (stream, _) = stream(config);
    stream.set_mode(StreamMode::OnDemand).unwrap();
    stream.advance();
    assert_eq!(stream.open_shard_count(), 6);
    assert_eq!(stream.split_evenly(FIRST), Err(SplitError::OnDemand));
    stream
        .set_mode(StreamMode::Provisioned { shards: 1 })
        .unwrap();
    assert_eq!(stream.open_shard_count(), 6);
    stream.split_evenly(FIRST).unwrap();
    assert!(matches!(
        stream.set_mode(StreamMode::OnDemand),
        Err(ModeError::TooOften { limit: 2, .. })
    ));
    stream.close();
    assert_eq!(
        stream.set_mode(StreamMode::OnDemand),
        Err(ModeError::Closed)
    );
}

#[test]
fn an_on_demand_stream_of_the_aws_profile_grows_by_what_it_admits() {
    let mut config = StreamConfig {
        mode: StreamMode::OnDemand,
        ..StreamConfig::aws("s")
    };
    config.limits.on_demand = slow().on_demand;
    let (stream, hand) = stream(config);
    // Thirty records a second, of the forty that four shards are reckoned to take.
    for n in 0..20 * 60 * 30 {
        stream.try_put(of(n.to_string(), n)).unwrap();
        hand.advance(secs(1) / 30);
    }
    let shards = stream.open_shard_count();
    assert!((6..=7).contains(&shards), "{shards}");
}

#[test]
fn a_closed_stream_has_no_traffic_to_follow() {
    let (stream, hand) = stream(on_demand(slow()));
    for n in 0..6_000 {
        stream.try_put(of(n.to_string(), n)).unwrap();
    }
    stream.advance();
    stream.close();
    let mut turns = 0;
    while let Some(deadline) = stream.next_deadline() {
        hand.advance_to(deadline.max(hand.now()));
        stream.advance();
        turns += 1;
        assert!(turns < 100, "due for ever: {deadline:?}");
    }
    assert_eq!(stream.stats().records, 0);
}

#[test]
fn what_the_stream_refuses_uses_nothing_up_of_the_shard() {
    let mut config = StreamConfig {
        mode: StreamMode::OnDemand,
        ..StreamConfig::aws("s")
    };
    config.limits.on_demand = slow().on_demand;
    let (stream, hand) = stream(config);
    for second in 0..3 {
        let mut taken = 0;
        for n in 0..2_000 {
            match stream.try_put(of("k", n)) {
                Ok(_) => taken += 1,
                Err(error) => assert!(
                    matches!(
                        error.reason,
                        Refusal::Throttled {
                            resource: Resource::OnDemand,
                            ..
                        }
                    ),
                    "{second}: {error}"
                ),
            }
        }
        assert_eq!(taken, 40);
        hand.advance(secs(1));
    }
}
