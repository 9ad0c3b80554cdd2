//! Listings.

use super::*;
use crate::error::ListShardsError;
use crate::message::ShardFilter;

fn ids(shards: &Shards, now: u64, selection: Selection) -> Vec<u32> {
    let page = shards.list(at(now), selection, None, 100).unwrap();
    assert_eq!(page.next, None);
    page.shards.iter().map(|s| s.id.number()).collect()
}

/// 0 splits at 10 s into 1 and 2, and 2 at 20 s into 3 and 4.
fn history() -> Shards {
    let mut shards = provisioned(1);
    shards.split(at(10), id(0), middle(&shards, 0)).unwrap();
    shards.split(at(20), id(2), middle(&shards, 2)).unwrap();
    shards
}

#[test]
fn each_filter_shows_its_shards() {
    let shards = history();
    assert_eq!(ids(&shards, 30, Selection::All), [0, 1, 2, 3, 4]);
    assert_eq!(ids(&shards, 30, Selection::AtLatest), [1, 3, 4]);
    assert_eq!(ids(&shards, 30, Selection::AtTrimHorizon), [0]);
    assert_eq!(ids(&shards, 30, Selection::After(id(2))), [3, 4]);
    assert_eq!(ids(&shards, 30, Selection::At(at(15))), [1, 2]);
    assert_eq!(ids(&shards, 30, Selection::At(at(25))), [1, 3, 4]);
    assert_eq!(ids(&shards, 30, Selection::From(at(15))), [1, 2, 3, 4]);
    assert_eq!(ids(&shards, 30, Selection::From(at(25))), [1, 3, 4]);
}

#[test]
fn at_the_moment_of_a_split_parent_and_children_are_shown() {
    let shards = history();
    assert_eq!(ids(&shards, 30, Selection::At(at(10))), [0, 1, 2]);
    assert_eq!(ids(&shards, 30, Selection::From(at(20))), [1, 2, 3, 4]);
}

#[test]
fn the_horizon_hides_what_is_gone_and_is_the_earliest_point() {
    let mut shards = history();
    shards.expire(at(110), secs(95));
    assert_eq!(shards.horizon(), at(15));
    assert_eq!(ids(&shards, 110, Selection::All), [1, 2, 3, 4]);
    assert_eq!(ids(&shards, 110, Selection::AtTrimHorizon), [1, 2]);
    assert_eq!(ids(&shards, 110, Selection::At(at(3))), [1, 2]);
    assert_eq!(ids(&shards, 110, Selection::From(at(3))), [1, 2, 3, 4]);
}

#[test]
fn pages_follow_one_another() {
    let shards = history();
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = shards.list(at(30), Selection::All, after, 2).unwrap();
        assert!(page.shards.len() <= 2 && !page.shards.is_empty());
        found.extend(page.shards.iter().map(|s| s.id.number()));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(found, [0, 1, 2, 3, 4]);
}

#[test]
fn a_listing_that_asks_for_too_much_or_for_the_future_is_refused() {
    let shards = history();
    for value in [0, 10_001] {
        assert_eq!(
            shards
                .list(at(30), Selection::All, None, value)
                .unwrap_err(),
            ListShardsError::MaxResults {
                value,
                limit: 10_000
            }
        );
    }
    for selection in [Selection::At(at(33)), Selection::From(at(33))] {
        assert_eq!(
            shards.list(at(30), selection, None, 1).unwrap_err(),
            ListShardsError::FutureTimestamp { ahead: secs(3) }
        );
    }
}

#[test]
fn filters_are_translated_to_the_streams_time() {
    let time = Timestamp::from_unix_seconds(7);
    let instant = |timestamp: Timestamp| at(timestamp.as_unix_seconds().unsigned_abs());
    let cases = [
        (None, Selection::All),
        (Some(ShardFilter::FromTrimHorizon), Selection::All),
        (Some(ShardFilter::AtTrimHorizon), Selection::AtTrimHorizon),
        (Some(ShardFilter::AtLatest), Selection::AtLatest),
        (Some(ShardFilter::AtTimestamp(time)), Selection::At(at(7))),
        (
            Some(ShardFilter::FromTimestamp(time)),
            Selection::From(at(7)),
        ),
        (
            Some(ShardFilter::AfterShardId(id(3))),
            Selection::After(id(3)),
        ),
    ];
    for (filter, selection) in cases {
        assert_eq!(Selection::of(filter, instant), selection);
    }
}
