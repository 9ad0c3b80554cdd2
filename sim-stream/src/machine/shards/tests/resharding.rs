//! Splits, merges and target counts.

use super::*;
use crate::error::{MergeError, SplitError, UpdateCountError};

#[test]
fn a_split_opens_two_children_that_share_the_range() {
    let mut shards = provisioned(1);
    let key = HashKey::from_u128(1_000);
    let step = shards.split(at(5), id(0), key).unwrap();
    assert_eq!(
        step,
        Step::Split {
            parent: id(0),
            children: [id(1), id(2)]
        }
    );
    assert_eq!(step.closed().collect::<Vec<_>>(), [id(0)]);
    assert_eq!(step.opened().collect::<Vec<_>>(), [id(1), id(2)]);
    assert_eq!(shards.shard(id(0)).unwrap().closed, Some(at(5)));
    assert_eq!(shards.route(HashKey::from_u128(999)), id(1));
    assert_eq!(shards.route(key), id(2));
    let children = shards.children(id(0));
    assert_eq!(children[1].id, id(2));
    assert_eq!(children[1].parents, [id(0)]);
    assert_eq!(children[1].hash_range.start, key);
    shards.check_invariants();
}

#[test]
fn a_merge_opens_one_child_with_two_parents_in_either_order() {
    for (first, second) in [(0, 1), (1, 0)] {
        let mut shards = provisioned(2);
        let step = shards.merge(at(5), id(first), id(second)).unwrap();
        assert_eq!(step.closed().collect::<Vec<_>>(), [id(first), id(second)]);
        assert_eq!(step.opened().collect::<Vec<_>>(), [id(2)]);
        let child = shards.shard(id(2)).unwrap();
        assert_eq!(child.parent, Some(id(first)));
        assert_eq!(child.adjacent_parent, Some(id(second)));
        assert_eq!(child.range, HashRange::FULL);
        assert_eq!(
            shards.children(id(second))[0].parents,
            [id(first), id(second)]
        );
        shards.check_invariants();
    }
}

#[test]
fn a_split_outside_of_the_shard_or_at_its_start_is_refused() {
    let mut shards = provisioned(2);
    let range = shards.shard(id(1)).unwrap().range;
    for key in [HashKey::MIN, range.start.previous().unwrap(), range.start] {
        assert_eq!(
            shards.split(at(1), id(1), key),
            Err(SplitError::HashKey { key, range })
        );
    }
    assert!(shards.split(at(1), id(1), HashKey::MAX).is_ok());
    // The upper child has one point: it cannot be split.
    assert!(shards.split(at(1), id(3), HashKey::MAX).is_err());
    assert_eq!(shards.shard(id(3)).unwrap().range.middle(), None);
    shards.check_invariants();
}

#[test]
fn a_closed_or_unknown_shard_is_neither_split_nor_merged() {
    let mut shards = provisioned(2);
    let key = middle(&shards, 0);
    shards.split(at(1), id(0), key).unwrap();
    let before = shards.clone();
    assert_eq!(
        shards.split(at(2), id(0), key),
        Err(SplitError::ShardClosed { shard_id: id(0) })
    );
    assert_eq!(
        shards.split(at(2), id(9), key),
        Err(SplitError::UnknownShard { shard_id: id(9) })
    );
    assert_eq!(
        shards.merge(at(2), id(0), id(1)),
        Err(MergeError::ShardClosed { shard_id: id(0) })
    );
    assert_eq!(
        shards.merge(at(2), id(1), id(9)),
        Err(MergeError::UnknownShard { shard_id: id(9) })
    );
    assert_eq!(shards.retained, before.retained);
}

#[test]
fn only_adjacent_shards_are_merged() {
    let mut shards = provisioned(3);
    for (a, b) in [(0, 2), (2, 0), (1, 1)] {
        let refused = shards.merge(at(1), id(a), id(b));
        assert!(matches!(refused, Err(MergeError::NotAdjacent { .. })));
    }
    assert_eq!(open_ids(&shards), [0, 1, 2]);
}

#[test]
fn the_number_of_shards_is_limited() {
    let limits = Limits {
        open_shards: 2,
        retained_shards: 4,
        ..Limits::default()
    };
    let mut shards = with(1, limits);
    shards.split(at(1), id(0), middle(&shards, 0)).unwrap();
    assert_eq!(
        shards.split(at(1), id(1), middle(&shards, 1)),
        Err(SplitError::OpenShards {
            shards: 3,
            limit: 2
        })
    );
    assert_eq!(
        shards.update_count(at(1), 3),
        Err(UpdateCountError::Target {
            target: 3,
            limit: 2
        })
    );
    shards.merge(at(1), id(1), id(2)).unwrap();
    assert_eq!(
        shards.split(at(1), id(3), middle(&shards, 3)),
        Err(SplitError::RetainedShards {
            shards: 6,
            limit: 4
        })
    );
    assert_eq!(
        shards.update_count(at(1), 2),
        Err(UpdateCountError::RetainedShards {
            shards: 6,
            limit: 4
        })
    );
    // Retention makes room.
    shards.expire(at(101), secs(100));
    assert!(shards.update_count(at(101), 2).is_ok());
    shards.check_invariants();
}

#[test]
fn a_merge_needs_room_among_the_retained_shards() {
    let limits = Limits {
        open_shards: 2,
        retained_shards: 2,
        ..Limits::default()
    };
    let mut shards = with(2, limits);
    assert_eq!(
        shards.merge(at(1), id(0), id(1)),
        Err(MergeError::RetainedShards {
            shards: 3,
            limit: 2
        })
    );
}

#[test]
fn on_demand_streams_are_not_resharded_by_hand() {
    let mut shards = Shards::new(at(0), StreamMode::OnDemand, &Limits::default());
    assert_eq!(
        shards.split(at(1), id(0), middle(&shards, 0)),
        Err(SplitError::OnDemand)
    );
    assert_eq!(shards.merge(at(1), id(0), id(1)), Err(MergeError::OnDemand));
    assert_eq!(
        shards.update_count(at(1), 8),
        Err(UpdateCountError::OnDemand)
    );
    assert_eq!(shards.scale(at(1), 8).unwrap().len(), 4);
    assert_eq!(shards.open_count(), 8);
}

#[test]
fn a_doubled_count_is_a_split_of_each_shard() {
    for count in [1, 2, 3, 5, 6, 7, 10, 100] {
        let mut shards = provisioned(count);
        let steps = shards.update_count(at(1), 2 * count).unwrap();
        assert_eq!(steps.len(), count as usize, "{count}");
        assert!(steps.iter().all(|s| matches!(s, Step::Split { .. })));
        shards.check_invariants();
        // And back: a merge of each pair.
        let steps = shards.update_count(at(2), count).unwrap();
        assert_eq!(steps.len(), count as usize, "{count}");
        assert!(steps.iter().all(|s| matches!(s, Step::Merge { .. })));
        shards.check_invariants();
    }
}

#[test]
fn two_shards_become_three_by_two_splits_and_a_merge() {
    let mut shards = provisioned(2);
    let steps = shards.update_count(at(1), 3).unwrap();
    assert_eq!(
        steps,
        [
            Step::Split {
                parent: id(0),
                children: [id(2), id(3)]
            },
            Step::Split {
                parent: id(1),
                children: [id(4), id(5)]
            },
            Step::Merge {
                parents: [id(3), id(4)],
                child: id(6)
            },
        ]
    );
    assert_eq!(open_ids(&shards), [2, 6, 5]);
    let ranges = |shards: &Shards| shards.open().map(|s| s.range).collect::<Vec<_>>();
    assert_eq!(ranges(&shards), ranges(&provisioned(3)));
}

#[test]
fn the_count_that_stands_needs_no_step_and_evens_out_uneven_shards() {
    let mut shards = provisioned(4);
    assert_eq!(shards.update_count(at(1), 4), Ok(vec![]));
    let mut shards = provisioned(1);
    shards.split(at(1), id(0), HashKey::from_u128(5)).unwrap();
    shards.update_count(at(2), 2).unwrap();
    let half = HashKey::from_u128(1 << 127);
    assert_eq!(shards.open().nth(1).unwrap().range.start, half);
    shards.check_invariants();
}

#[test]
fn a_target_lies_between_half_and_double_under_kinesis_limits() {
    let mut shards = with(5, Limits::aws());
    for target in [1, 2, 11] {
        assert_eq!(
            shards.update_count(at(1), target),
            Err(UpdateCountError::Factor {
                target,
                open: 5,
                min: 3,
                max: 10
            })
        );
    }
    assert_eq!(
        shards.update_count(at(1), 0),
        Err(UpdateCountError::Target {
            target: 0,
            limit: 20_000
        })
    );
    assert!(shards.update_count(at(1), 10).is_ok());
    assert!(shards.update_count(at(1), 5).is_ok());
    assert!(shards.update_count(at(1), 3).is_ok());
}

#[test]
fn ten_target_counts_pass_within_a_rolling_day() {
    let mut shards = with(2, Limits::aws());
    for hour in 0..10 {
        let target = 3 + hour % 2;
        assert!(
            shards
                .update_count(at(3_600 * u64::from(hour)), target)
                .is_ok()
        );
    }
    let too_often = Err(UpdateCountError::TooOften {
        limit: 10,
        retry_at: at(86_400),
    });
    assert_eq!(shards.update_count(at(36_000), 3), too_often);
    assert_eq!(shards.update_count(at(86_399), 3), too_often);
    // Single splits and merges are not counted.
    let first = shards.open().next().unwrap();
    let (shard, key) = (first.id, first.range.middle().unwrap());
    assert!(shards.split(at(86_399), shard, key).is_ok());
    assert!(shards.update_count(at(86_400), 3).is_ok());
    assert!(shards.update_count(at(86_400), 3).is_err());
    assert!(shards.update_count(at(86_400 + 3_600), 3).is_ok());
}

#[test]
fn a_refused_target_is_no_change() {
    let mut shards = with(2, Limits::aws());
    for _ in 0..100 {
        assert!(shards.update_count(at(0), 9).is_err());
    }
    assert!(shards.update_count(at(0), 4).is_ok());
}

#[test]
fn the_lineage_of_a_large_step_is_flat() {
    let mut shards = provisioned(1);
    shards.scale(at(1), 1_024).unwrap();
    let deepest = shards
        .open()
        .map(|shard| {
            let (mut depth, mut at) = (0, shard.parent);
            while let Some(parent) = at {
                (depth, at) = (depth + 1, shards.shard(parent).unwrap().parent);
            }
            depth
        })
        .max();
    assert_eq!(deepest, Some(10));
    assert_eq!(shards.scale(at(2), 1).unwrap().len(), 1_023);
    shards.check_invariants();
}
