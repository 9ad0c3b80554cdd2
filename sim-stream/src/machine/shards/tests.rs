//! The rules of the lineage, each by a test that says it, and what always holds on random histories.

mod histories;
mod listing;
mod resharding;

use std::collections::BTreeSet;

use super::*;
use crate::message::PartitionKey;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn at(seconds: u64) -> Instant {
    Instant::ORIGIN + secs(seconds)
}

fn id(number: u32) -> ShardId {
    ShardId::new(number)
}

fn provisioned(shards: u32) -> Shards {
    with(shards, Limits::default())
}

fn with(shards: u32, limits: Limits) -> Shards {
    Shards::new(at(0), StreamMode::Provisioned { shards }, &limits)
}

fn middle(shards: &Shards, shard: u32) -> HashKey {
    shards.shard(id(shard)).unwrap().range.middle().unwrap()
}

fn open_ids(shards: &Shards) -> Vec<u32> {
    shards.open().map(|shard| shard.id.number()).collect()
}

impl Shards {
    /// What holds after every step.
    fn check_invariants(&self) {
        // The open shards partition the space, without gap or overlap.
        let mut start = Some(HashKey::MIN);
        for shard in self.open() {
            assert!(shard.is_open());
            assert_eq!(Some(shard.range.start), start);
            assert!(shard.range.start <= shard.range.end);
            start = shard.range.end.next();
        }
        assert_eq!(start, None);
        assert_eq!(
            self.retained.values().filter(|s| s.is_open()).count(),
            self.open.len()
        );
        let closed: BTreeSet<_> = self
            .retained
            .values()
            .filter_map(|shard| Some((shard.closed?, shard.id)))
            .collect();
        assert_eq!(closed, self.closed);
        for (id, shard) in &self.retained {
            assert_eq!(*id, shard.id);
            assert!(id.number() < self.next);
            // Parents close before their children open, have lower ids and know their children.
            for parent in shard.parents() {
                assert!(parent < *id);
                if let Some(parent) = self.shard(parent) {
                    assert!(parent.closed.is_some_and(|closed| closed <= shard.opened));
                    assert!(parent.children().any(|child| child == *id));
                    assert!(parent.range.overlaps(&shard.range));
                }
            }
            // Children cover what their parent covered.
            assert_eq!(shard.is_open(), shard.children().next().is_none());
            assert!(shard.children().all(|child| child > *id));
        }
    }
}

#[test]
fn new_shards_have_the_ranges_that_kinesis_gives() {
    let ranges = |count| {
        provisioned(count)
            .open()
            .map(|shard| shard.range.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(ranges(1), ["0..=340282366920938463463374607431768211455"]);
    assert_eq!(
        ranges(2),
        [
            "0..=170141183460469231731687303715884105727",
            "170141183460469231731687303715884105728..=340282366920938463463374607431768211455"
        ]
    );
    assert_eq!(
        ranges(3),
        [
            "0..=113427455640312821154458202477256070484",
            "113427455640312821154458202477256070485..=226854911280625642308916404954512140969",
            "226854911280625642308916404954512140970..=340282366920938463463374607431768211455"
        ]
    );
}

#[test]
fn known_keys_are_routed_by_their_md5() {
    // MD5 of "" is d41d..., of "a" 0cc1..., of "abc" 9001..., of "message digest" f96b... (RFC 1321, A.5).
    let shards = provisioned(4);
    let route = |key: &str| shards.route(HashKey::of(key)).number();
    assert_eq!(route(""), 3);
    assert_eq!(route("a"), 0);
    assert_eq!(route("abc"), 2);
    assert_eq!(route("message digest"), 3);
    // c3fc... and d174..., 57ed...
    assert_eq!(route("abcdefghijklmnopqrstuvwxyz"), 3);
    let long = "12345678901234567890123456789012345678901234567890123456789012345678901234567890";
    assert_eq!(route(long), 1);
    assert_eq!(
        PartitionKey::new("a").unwrap().hash_key().as_u128(),
        0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661
    );
}

#[test]
fn an_explicit_hash_key_is_routed_as_it_is() {
    let shards = provisioned(2);
    let half = 1_u128 << 127;
    for (key, shard) in [(0, 0), (half - 1, 0), (half, 1), (u128::MAX, 1)] {
        assert_eq!(shards.route(HashKey::from_u128(key)), id(shard));
    }
}

#[test]
fn the_table_routes_as_the_machine_does() {
    let mut shards = provisioned(5);
    shards.split(at(1), id(2), middle(&shards, 2)).unwrap();
    shards.merge(at(2), id(1), id(0)).unwrap();
    let routes = shards.routes(|shard| shard.id);
    assert_eq!(routes.shards().len(), 5);
    for shard in shards.open() {
        for key in [shard.range.start, shard.range.end] {
            assert_eq!(*routes.route(key), shard.id);
        }
    }
}

#[test]
fn an_on_demand_stream_begins_with_four_shards() {
    let shards = Shards::new(at(0), StreamMode::OnDemand, &Limits::default());
    assert_eq!(open_ids(&shards), [0, 1, 2, 3]);
}

#[test]
fn a_closed_shard_leaves_when_its_retention_is_over() {
    let mut shards = provisioned(1);
    shards.split(at(10), id(0), middle(&shards, 0)).unwrap();
    assert_eq!(shards.next_expiry(secs(100)), Some(at(110)));
    assert_eq!(shards.expire(at(109), secs(100)), []);
    let gone = shards.expire(at(110), secs(100));
    assert_eq!(gone.iter().map(|s| s.id).collect::<Vec<_>>(), [id(0)]);
    assert_eq!(shards.next_expiry(secs(100)), None);
    // The children still name it.
    assert_eq!(shards.shard(id(0)), None);
    assert_eq!(shards.shard(id(1)).unwrap().parent, Some(id(0)));
    shards.check_invariants();
}

#[test]
fn a_shard_that_closes_as_the_stream_is_made_is_kept_as_long_as_others() {
    for origin in [0, 1_000] {
        let mode = StreamMode::Provisioned { shards: 1 };
        let mut shards = Shards::new(at(origin), mode, &Limits::default());
        shards.split(at(origin), id(0), middle(&shards, 0)).unwrap();
        assert_eq!(shards.expire(at(origin + 99), secs(100)), []);
        assert_eq!(shards.horizon(), at(origin));
        assert_eq!(shards.expire(at(origin + 100), secs(100)).len(), 1);
    }
}

#[test]
fn an_open_shard_never_leaves() {
    let mut shards = provisioned(3);
    assert_eq!(shards.expire(Instant::NEVER, secs(1)), []);
    assert_eq!(shards.retained_count(), 3);
}

#[test]
fn a_longer_retention_does_not_move_the_horizon_back_and_a_shorter_one_moves_it_on() {
    let mut shards = provisioned(1);
    assert_eq!(shards.horizon(), at(0));
    shards.expire(at(50), secs(100));
    assert_eq!(shards.horizon(), at(0));
    shards.expire(at(150), secs(100));
    assert_eq!(shards.horizon(), at(50));
    shards.expire(at(160), secs(150));
    assert_eq!(shards.horizon(), at(50));
    shards.expire(at(160), secs(1_000));
    assert_eq!(shards.horizon(), at(50));
    shards.expire(at(170), secs(10));
    assert_eq!(shards.horizon(), at(160));
}

#[test]
fn the_end_of_a_log_is_noted_once_and_for_closed_shards_only() {
    let mut shards = provisioned(1);
    shards.set_end(id(0), 7);
    assert_eq!(shards.shard(id(0)).unwrap().end, None);
    shards.split(at(1), id(0), middle(&shards, 0)).unwrap();
    shards.set_end(id(0), 8);
    shards.set_end(id(0), 9);
    shards.set_end(id(99), 9);
    assert_eq!(shards.shard(id(0)).unwrap().end, Some(8));

    let timestamp = |instant: Instant| Timestamp::UNIX_EPOCH + (instant - at(0));
    let salt = Salt::new(5);
    let info = shards.shard(id(0)).unwrap().info(salt, timestamp);
    assert_eq!(
        info.ending_sequence_number,
        Some(SequenceNumber::new(id(0), salt, 7))
    );
    assert_eq!(info.closed_at, Some(Timestamp::from_unix_seconds(1)));
    assert!(!info.is_open());
    let child = shards.shard(id(1)).unwrap().info(salt, timestamp);
    assert_eq!(child.parent, Some(id(0)));
    assert_eq!(child.ending_sequence_number, None);
    assert!(child.starting_sequence_number > info.ending_sequence_number.unwrap());
}

#[test]
fn the_mode_changes_twice_a_day_under_kinesis_limits() {
    let provisioned_mode = StreamMode::Provisioned { shards: 9 };
    let mut shards = with(2, Limits::aws());
    assert_eq!(shards.set_mode(at(0), StreamMode::OnDemand), Ok(()));
    assert_eq!(shards.set_mode(at(5), StreamMode::OnDemand), Ok(()));
    assert_eq!(shards.set_mode(at(10), provisioned_mode), Ok(()));
    assert_eq!(shards.open_count(), 2);
    assert_eq!(
        shards.set_mode(at(86_399), StreamMode::OnDemand),
        Err(ModeError::TooOften {
            limit: 2,
            retry_at: at(86_400)
        })
    );
    assert_eq!(shards.mode(), provisioned_mode);
    assert_eq!(shards.set_mode(at(86_400), StreamMode::OnDemand), Ok(()));
}
