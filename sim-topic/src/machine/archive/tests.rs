use proptest::prelude::*;

use super::*;

fn day(n: i64) -> Timestamp {
    Timestamp::from_unix_seconds(n * 86_400)
}

fn archive(days: u32, max_messages: usize, max_bytes: usize) -> Archive<u32> {
    let config = ArchiveConfig {
        retention: DAY * days,
        max_messages,
        max_bytes,
    };
    assert_eq!(config.check(), Ok(()));
    Archive::new(config)
}

/// One message of one byte a day.
fn filled(days: std::ops::Range<i64>) -> Archive<u32> {
    let mut archive = archive(365, 1_000, 1_000);
    for n in days {
        assert!(archive.push(day(n), 1, n as u32, &mut Vec::new()).is_ok());
    }
    archive
}

fn rest(archive: &Archive<u32>, replay: &mut Replay) -> Vec<(u32, bool)> {
    let mut all = Vec::new();
    loop {
        match archive.step(replay) {
            Step::Message { item, replayed, .. } => all.push((*item, replayed)),
            Step::CaughtUp => return all,
            other => panic!("{other:?}"),
        }
    }
}

fn replayed(items: impl IntoIterator<Item = u32>) -> Vec<(u32, bool)> {
    items.into_iter().map(|item| (item, true)).collect()
}

#[test]
fn a_message_is_kept_until_its_retention_ends() {
    let mut archive = archive(2, 10, 100);
    assert_eq!(archive.push(day(0), 7, 0, &mut Vec::new()), Ok(0));
    assert_eq!(archive.push(day(1), 8, 1, &mut Vec::new()), Ok(1));
    assert_eq!(
        archive.expire(day(2) - Duration::from_nanos(1), &mut Vec::new()),
        0
    );
    assert_eq!(archive.expire(day(2), &mut Vec::new()), 1);
    assert_eq!((archive.len(), archive.bytes()), (1, 8));
    assert_eq!(archive.beginning(), Some(day(1)));
    // A push ends what is over, too.
    assert_eq!(archive.push(day(3), 1, 2, &mut Vec::new()), Ok(2));
    assert_eq!((archive.len(), archive.bytes()), (1, 1));
    assert_eq!((archive.expired(), archive.crowded_out()), (2, 0));
    assert!(!archive.is_empty());
}

#[test]
fn bounds_on_messages_and_bytes_crowd_out_the_oldest() {
    let mut few = archive(365, 2, 1_000);
    for n in 0..5 {
        assert_eq!(few.push(day(n), 1, n as u32, &mut Vec::new()), Ok(n as u64));
    }
    assert_eq!((few.len(), few.beginning()), (2, Some(day(3))));
    assert_eq!((few.expired(), few.crowded_out()), (0, 3));

    let mut small = archive(365, 100, 10);
    assert_eq!(small.push(day(0), 6, 0, &mut Vec::new()), Ok(0));
    assert_eq!(small.push(day(0), 4, 1, &mut Vec::new()), Ok(1));
    assert_eq!(small.push(day(0), 1, 2, &mut Vec::new()), Ok(2));
    assert_eq!((small.len(), small.bytes()), (2, 5));
    // What does not fit at all costs nobody their place.
    assert_eq!(small.push(day(0), 11, 3, &mut Vec::new()), Err(3));
    assert_eq!((small.len(), small.bytes()), (2, 5));
    assert_eq!(small.push(day(0), 10, 4, &mut Vec::new()), Ok(3));
    assert_eq!((small.len(), small.bytes()), (1, 10));
}

#[test]
fn a_replay_hands_out_both_ends_of_its_range() {
    let archive = filled(0..10);
    let policy = ReplayPolicy {
        from: day(3),
        to: Some(day(6)),
    };
    let mut replay = Replay::new(policy);
    assert_eq!(replay.status(), ReplayStatus::Pending);
    assert_eq!(rest(&archive, &mut replay), replayed(3..=6));
    assert_eq!(replay.status(), ReplayStatus::Completed);
    assert_eq!(archive.step(&mut replay), Step::CaughtUp);
}

#[test]
fn a_replay_without_an_end_hands_out_all_there_is() {
    let archive = filled(0..5);
    let from = |at| rest(&archive, &mut Replay::new(ReplayPolicy::from(at)));
    assert_eq!(from(day(-9)), replayed(0..5));
    assert_eq!(from(day(3) + Duration::from_nanos(1)), replayed(4..5));
    assert_eq!(from(day(9)), []);
    let empty = Archive::<u32>::new(ArchiveConfig::default());
    assert_eq!(
        rest(&empty, &mut Replay::new(ReplayPolicy::from(day(0)))),
        []
    );
}

#[test]
fn what_is_published_during_a_replay_comes_after_it_and_is_not_replayed() {
    let mut archive = filled(0..6);
    let mut replay = Replay::new(ReplayPolicy {
        from: day(1),
        to: Some(day(2)),
    });
    let Step::Message {
        item: 1,
        replayed: true,
        position: 1,
        at,
    } = archive.step(&mut replay)
    else {
        panic!("the first message is missing");
    };
    assert_eq!(at, day(1));
    assert_eq!(replay.status(), ReplayStatus::InProgress);
    assert!(archive.push(day(6), 1, 6, &mut Vec::new()).is_ok());
    assert!(archive.push(day(7), 1, 7, &mut Vec::new()).is_ok());
    assert_eq!(
        rest(&archive, &mut replay),
        [(2, true), (6, false), (7, false)]
    );
}

#[test]
fn a_replay_goes_on_where_it_was_saved() {
    let archive = filled(0..6);
    let mut replay = Replay::new(ReplayPolicy::from(day(0)));
    for expected in 0..3 {
        assert!(
            matches!(archive.step(&mut replay), Step::Message { item, .. } if *item == expected)
        );
    }
    let mut restored = replay.clone();
    assert_eq!(rest(&archive, &mut restored), replayed(3..6));
    assert_eq!(rest(&archive, &mut replay), replayed(3..6));
}

#[test]
fn what_was_given_up_before_the_replay_came_to_it_is_reported() {
    let mut archive = filled(0..6);
    let mut replay = Replay::new(ReplayPolicy::from(day(0)));
    assert!(matches!(
        archive.step(&mut replay),
        Step::Message { item: 0, .. }
    ));
    archive.expire(day(365 + 3), &mut Vec::new());
    assert_eq!(archive.step(&mut replay), Step::Lost { messages: 3 });
    assert_eq!(replay.lost(), 3);
    assert_eq!(rest(&archive, &mut replay), replayed(4..6));
}

#[test]
fn a_replay_that_failed_hands_nothing_out_and_one_that_is_completed_cannot_fail() {
    let archive = filled(0..2);
    let mut replay = Replay::new(ReplayPolicy::from(day(0)));
    replay.fail();
    assert_eq!(archive.step(&mut replay), Step::Failed);
    assert_eq!(replay.status(), ReplayStatus::Failed);

    let mut completed = Replay::new(ReplayPolicy::from(day(0)));
    rest(&archive, &mut completed);
    completed.fail();
    assert_eq!(completed.status(), ReplayStatus::Completed);
}

#[test]
fn a_position_from_a_longer_archive_is_the_end_of_this_one() {
    let long = filled(0..50);
    let mut replay = Replay::new(ReplayPolicy::from(day(40)));
    assert!(matches!(
        long.step(&mut replay),
        Step::Message { item: 40, .. }
    ));
    let mut short = filled(0..3);
    assert_eq!(rest(&short, &mut replay.clone()), []);
    assert!(short.push(day(60), 1, 60, &mut Vec::new()).is_ok());
    assert_eq!(rest(&short, &mut replay), []);

    // What is published now is new, although its position was an old one's in the longer archive.
    let mut replay = Replay::new(ReplayPolicy {
        from: day(0),
        to: Some(day(1)),
    });
    assert!(matches!(
        long.step(&mut replay),
        Step::Message { item: 0, .. }
    ));
    let mut short = filled(0..3);
    assert!(matches!(
        short.step(&mut replay),
        Step::Message { item: 1, .. }
    ));
    assert!(short.push(day(60), 1, 60, &mut Vec::new()).is_ok());
    assert_eq!(rest(&short, &mut replay), [(60, false)]);
}

#[test]
fn a_clock_that_steps_back_keeps_the_order() {
    let mut archive = archive(365, 10, 10);
    assert_eq!(archive.push(day(5), 1, 0, &mut Vec::new()), Ok(0));
    assert_eq!(archive.push(day(4), 1, 1, &mut Vec::new()), Ok(1));
    let found = rest(&archive, &mut Replay::new(ReplayPolicy::from(day(5))));
    assert_eq!(found, replayed(0..2));
}

#[test]
fn a_lower_bound_holds_from_the_next_push() {
    let mut archive = filled(0..9);
    archive.reconfigure(ArchiveConfig {
        max_messages: 2,
        ..ArchiveConfig::default()
    });
    assert!(archive.push(day(9), 1, 9, &mut Vec::new()).is_ok());
    assert_eq!(archive.beginning(), Some(day(8)));
}

#[test]
fn every_limit_names_its_field() {
    let config = ArchiveConfig::default();
    let check = |config: ArchiveConfig| config.check().unwrap_err().to_string();
    assert_eq!(
        check(ArchiveConfig {
            retention: DAY - Duration::from_nanos(1),
            ..config
        }),
        "retention is 86399.999999999s, not between 86400s and 31536000s"
    );
    assert_eq!(
        check(ArchiveConfig {
            retention: DAY * 366,
            ..config
        }),
        "retention is 31622400s, not between 86400s and 31536000s"
    );
    assert_eq!(
        check(ArchiveConfig {
            max_messages: 0,
            ..config
        }),
        "max_messages is zero: nothing could be kept"
    );
    assert_eq!(
        check(ArchiveConfig {
            max_bytes: 0,
            ..config
        }),
        "max_bytes is zero: nothing could be kept"
    );
    for days in [1, 365] {
        assert_eq!(
            ArchiveConfig {
                retention: DAY * days,
                ..config
            }
            .check(),
            Ok(())
        );
    }
}

#[test]
fn policies_are_read_and_written_as_sns_does() {
    let archive = ArchiveConfig::parse(r#"{"MessageRetentionPeriod":"30"}"#).unwrap();
    assert_eq!(archive.retention, DAY * 30);
    assert_eq!(archive.to_json(), r#"{"MessageRetentionPeriod":"30"}"#);
    assert_eq!(
        ArchiveConfig::parse(r#"{"MessageRetentionPeriod":7}"#)
            .unwrap()
            .retention,
        DAY * 7
    );
    let text = r#"{"EndingPoint":"2026-01-02T00:00:00Z","PointType":"Timestamp","StartingPoint":"2026-01-01T00:00:00.250Z"}"#;
    let replay = ReplayPolicy::parse(text).unwrap();
    assert_eq!(replay.to_json(), text);
    assert_eq!(
        replay.from + Duration::from_millis(86_399_750),
        replay.to.unwrap()
    );
}

#[test]
fn a_bad_policy_is_refused_with_the_reason() {
    let archive = [
        (
            "{}",
            "archive or replay policy: MessageRetentionPeriod is null, not a number of days",
        ),
        (
            r#"{"MessageRetentionPeriod":"0"}"#,
            "retention is 0ns, not between 86400s and 31536000s",
        ),
        (
            r#"{"MessageRetentionPeriod":"a year"}"#,
            "archive or replay policy: MessageRetentionPeriod is \"a year\", not a number of days",
        ),
        (
            r#"{"MessageRetentionPeriod":1,"X":1}"#,
            "archive or replay policy: X is no member of such a policy",
        ),
    ];
    for (text, says) in archive {
        assert_eq!(ArchiveConfig::parse(text).unwrap_err().to_string(), says);
    }
    let replay = [
        (
            "{}",
            "archive or replay policy: PointType is absent, not \"Timestamp\"",
        ),
        (
            r#"{"PointType":"Timestamp"}"#,
            "archive or replay policy: StartingPoint is absent, not a timestamp of RFC 3339",
        ),
        (
            r#"{"PointType":"Timestamp","StartingPoint":"now"}"#,
            "archive or replay policy: StartingPoint is \"now\", not a timestamp of RFC 3339",
        ),
        (
            r#"{"PointType":"Timestamp","StartingPoint":"2026-01-02T00:00:00Z","EndingPoint":"2026-01-01T00:00:00Z"}"#,
            "the replay ends at 2026-01-01T00:00:00Z, before it begins at 2026-01-02T00:00:00Z",
        ),
    ];
    for (text, says) in replay {
        assert_eq!(ReplayPolicy::parse(text).unwrap_err().to_string(), says);
    }
    assert_eq!(ReplayStatus::InProgress.to_string(), "In progress");
}

#[derive(Debug, Clone)]
enum Act {
    Push { hours: u32, bytes: usize },
    Expire { hours: u32 },
    Step,
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0u32..30, 1usize..6).prop_map(|(hours, bytes)| Act::Push { hours, bytes }),
        (0u32..30).prop_map(|hours| Act::Expire { hours }),
        Just(Act::Step),
    ]
}

proptest! {
    /// Against a list of everything that was ever published: what is kept is recomputed from it, and a replay
    /// hands out or reports as lost each message that it owes, once, in order.
    #[test]
    fn the_archive_agrees_with_a_plain_list(
        days in 1u32..4,
        max_messages in 1usize..12,
        max_bytes in 6usize..30,
        before in prop::collection::vec((0u32..30, 1usize..6), 0..20),
        from in -40i64..400,
        length in prop::option::of(0u32..200),
        acts in prop::collection::vec(any_act(), 1..60),
    ) {
        const HOUR: Duration = Duration::from_secs(3_600);
        let mut archive = archive(days, max_messages, max_bytes);
        let mut all: Vec<(Timestamp, usize)> = Vec::new();
        let mut now = Timestamp::UNIX_EPOCH;
        // The first position kept, by each rule applied to the whole list.
        let mut first = 0;
        let retention = DAY * days;
        let keep = |all: &[(Timestamp, usize)], now: Timestamp, first: &mut usize, pushed: bool| {
            while *first < all.len() && now - all[*first].0 >= retention {
                *first += 1;
            }
            while pushed && (all.len() - *first > max_messages
                || all[*first..].iter().map(|(_, bytes)| bytes).sum::<usize>() > max_bytes) {
                *first += 1;
            }
        };
        for (hours, bytes) in before {
            now = now + HOUR * hours;
            all.push((now, bytes));
            prop_assert_eq!(archive.push(now, bytes, all.len() as u32 - 1, &mut Vec::new()), Ok(all.len() as u64 - 1));
            keep(&all, now, &mut first, true);
        }
        let from = Timestamp::from_unix_seconds(from * 3_600);
        let policy = ReplayPolicy { from, to: length.map(|hours| from + HOUR * hours) };
        let mut replay = Replay::new(policy);
        let begun = all.len();
        let mut began = false;
        let mut owed = 0;
        let wanted = |n: usize, at: Timestamp| {
            n >= begun || (at >= policy.from && policy.to.is_none_or(|to| at <= to))
        };
        let mut caught_up = false;
        for act in acts.into_iter().chain(std::iter::repeat_n(Act::Step, 100)) {
            match act {
                // The replay's beginning is its first step: until then nothing is published here.
                Act::Push { .. } if !began || caught_up => {}
                Act::Push { hours, bytes } => {
                    now = now + HOUR * hours;
                    all.push((now, bytes));
                    prop_assert!(archive.push(now, bytes, all.len() as u32 - 1, &mut Vec::new()).is_ok());
                    keep(&all, now, &mut first, true);
                }
                Act::Expire { hours } => {
                    now = now + HOUR * hours;
                    archive.expire(now, &mut Vec::new());
                    keep(&all, now, &mut first, false);
                }
                Act::Step => {
                    if !began {
                        // What is gone before it begins is not owed.
                        owed = first;
                        began = true;
                    }
                    match archive.step(&mut replay) {
                        Step::Message { position, at, item, replayed } => {
                            while !wanted(owed, all[owed].0) {
                                owed += 1;
                            }
                            prop_assert_eq!((position, *item), (owed as u64, owed as u32));
                            prop_assert_eq!((at, replayed), (all[owed].0, owed < begun));
                            owed += 1;
                        }
                        Step::Lost { messages } => {
                            prop_assert!(messages > 0 && owed < first);
                            owed = first;
                        }
                        Step::CaughtUp => {
                            prop_assert!((owed..all.len()).all(|n| !wanted(n, all[n].0)));
                            caught_up = true;
                        }
                        Step::Failed => prop_assert!(false),
                    }
                }
            }
            prop_assert_eq!(archive.len(), all.len() - first);
            prop_assert_eq!(archive.bytes(), all[first..].iter().map(|(_, bytes)| bytes).sum::<usize>());
            prop_assert_eq!(archive.beginning(), all.get(first).map(|(at, _)| *at));
            prop_assert_eq!(archive.expired() + archive.crowded_out(), first as u64);
        }
        prop_assert!(caught_up);
    }
}
