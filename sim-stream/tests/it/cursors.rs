//! Cursors: where they start, what they read, what they learn.

use sim_stream::{
    IteratorError, Read, ReadError, SequenceNumber, ShardId, StartingPosition, WrongSequenceNumber,
};

use crate::rig::{FIRST, START, drain, hours, oldest, put, secs, small, stream, values};

#[test]
fn a_cursor_starts_at_the_oldest_record() {
    let (stream, _) = stream(small(1));
    let mut early = oldest(&stream, FIRST);
    put(&stream, 1);
    put(&stream, 2);
    assert_eq!(drain(&mut early), [1, 2]);
    assert_eq!(drain(&mut oldest(&stream, FIRST)), [1, 2]);
}

#[test]
fn a_cursor_starts_behind_the_newest_record() {
    let (stream, _) = stream(small(1));
    put(&stream, 1);
    let mut cursor = stream.cursor(FIRST, StartingPosition::Latest).unwrap();
    put(&stream, 2);
    assert_eq!(drain(&mut cursor), [2]);
}

#[test]
fn a_cursor_starts_at_a_record_or_behind_it() {
    let (stream, _) = stream(small(1));
    let placed: Vec<_> = (0..5).map(|n| put(&stream, n).sequence_number).collect();
    let at = StartingPosition::AtSequenceNumber(placed[2]);
    assert_eq!(drain(&mut stream.cursor(FIRST, at).unwrap()), [2, 3, 4]);
    let after = StartingPosition::AfterSequenceNumber(placed[2]);
    assert_eq!(drain(&mut stream.cursor(FIRST, after).unwrap()), [3, 4]);
    let last = StartingPosition::AfterSequenceNumber(placed[4]);
    let mut cursor = stream.cursor(FIRST, last).unwrap();
    assert!(drain(&mut cursor).is_empty());
    put(&stream, 5);
    assert_eq!(drain(&mut cursor), [5]);
}

#[test]
fn a_cursor_starts_at_the_first_record_of_a_point_in_time() {
    let (stream, hand) = stream(small(1));
    for value in 0..10 {
        put(&stream, value);
        hand.advance(secs(60));
    }
    let from = |seconds| {
        let at = StartingPosition::AtTimestamp(START + secs(seconds));
        drain(&mut stream.cursor(FIRST, at).unwrap())
    };
    assert_eq!(from(0), (0..10).collect::<Vec<_>>());
    assert_eq!(from(300), [5, 6, 7, 8, 9]);
    assert_eq!(from(301), [6, 7, 8, 9]);
    assert!(from(600).is_empty());
    let before = StartingPosition::AtTimestamp(START - hours(1));
    assert_eq!(drain(&mut stream.cursor(FIRST, before).unwrap()).len(), 10);
}

#[test]
fn a_start_that_makes_no_sense_is_named() {
    let (stream, _) = stream(small(2));
    let (other, _) = crate::rig::stream(sim_stream::StreamConfig::new("other"));
    let number =
        |shard, position| SequenceNumber::new(ShardId::new(shard), stream.salt(), position);
    let foreign = put(&other, 1).sequence_number;
    let error = |shard, start| stream.cursor(ShardId::new(shard), start).unwrap_err();

    assert_eq!(
        error(9, StartingPosition::Latest),
        IteratorError::UnknownShard {
            shard_id: ShardId::new(9)
        }
    );
    for start in [
        StartingPosition::AtSequenceNumber,
        StartingPosition::AfterSequenceNumber,
    ] {
        assert_eq!(
            error(0, start(foreign)),
            WrongSequenceNumber::OtherStream {
                sequence_number: foreign
            }
            .into()
        );
        assert_eq!(
            error(0, start(number(1, 0))),
            WrongSequenceNumber::OtherShard {
                sequence_number: number(1, 0),
                shard: FIRST
            }
            .into()
        );
        assert_eq!(
            error(0, start(number(0, 0))),
            WrongSequenceNumber::Ahead {
                sequence_number: number(0, 0)
            }
            .into()
        );
    }
    let timestamp = START + secs(1);
    assert_eq!(
        error(0, StartingPosition::AtTimestamp(timestamp)),
        IteratorError::FutureTimestamp {
            timestamp,
            now: START
        }
    );
}

#[test]
fn a_read_takes_no_more_than_it_is_allowed() {
    let (stream, _) = stream(small(1));
    for value in 0..10 {
        stream
            .try_put(crate::rig::of("k", value).data(vec![0; 100]))
            .unwrap();
    }
    let mut cursor = oldest(&stream, FIRST);
    assert_eq!(
        values(&cursor.try_read(Read::at_most(3)).unwrap()),
        [0, 1, 2]
    );
    let bytes = |max_bytes| Read {
        max_bytes,
        ..Read::default()
    };
    assert_eq!(
        values(&cursor.try_read(bytes(1)).unwrap()),
        [3],
        "at least one"
    );
    let some = cursor.try_read(bytes(400)).unwrap();
    assert!(some.len() > 1 && some.len() < 4, "{some:?}");
}

#[test]
fn a_read_of_nothing_or_of_too_much_is_refused() {
    let (stream, _) = stream(small(1));
    put(&stream, 1);
    let mut cursor = oldest(&stream, FIRST);
    let limits = stream.config().limits.clone();
    for (field, read, value, limit) in [
        ("max", Read::at_most(0), 0, limits.read_records),
        (
            "max",
            Read::at_most(limits.read_records + 1),
            limits.read_records + 1,
            limits.read_records,
        ),
        (
            "max_bytes",
            Read {
                max_bytes: 0,
                ..Read::default()
            },
            0,
            limits.read_bytes,
        ),
    ] {
        assert_eq!(
            cursor.try_read(read).unwrap_err(),
            ReadError::Limit {
                field,
                value,
                limit
            }
        );
    }
    assert_eq!(drain(&mut cursor), [1]);
}

#[test]
fn a_reader_knows_how_far_it_is_behind() {
    let (stream, hand) = stream(small(1));
    put(&stream, 1);
    hand.advance(secs(10));
    put(&stream, 2);
    hand.advance(secs(5));
    let mut cursor = oldest(&stream, FIRST);
    let first = cursor.try_read(Read::at_most(1)).unwrap();
    assert_eq!(first.millis_behind_latest(), 15_000);
    assert_eq!(stream.stats().reads.iterator_age, secs(15));
    let second = cursor.try_read(Read::at_most(1)).unwrap();
    assert_eq!(second.millis_behind_latest(), 0, "it has caught up");
    assert_eq!(second.get(0).unwrap().arrived(), START + secs(10));
    assert_eq!(stream.stats().reads.iterator_age, secs(0));
}

#[test]
fn readers_do_not_disturb_each_other() {
    let (stream, _) = stream(small(1));
    for value in 0..100 {
        put(&stream, value);
    }
    let mut cursors: Vec<_> = (0..4).map(|_| oldest(&stream, FIRST)).collect();
    for (index, cursor) in cursors.iter_mut().enumerate() {
        let ahead = cursor.try_read(Read::at_most(index + 1)).unwrap();
        assert_eq!(ahead.len(), index + 1);
    }
    for (index, cursor) in cursors.iter_mut().enumerate() {
        assert_eq!(drain(cursor).first(), Some(&(index as u32 + 1)));
    }
}

#[test]
fn a_cursor_goes_to_another_place() {
    let (stream, _) = stream(small(1));
    let placed: Vec<_> = (0..5).map(|n| put(&stream, n).sequence_number).collect();
    let mut cursor = oldest(&stream, FIRST);
    assert_eq!(drain(&mut cursor).len(), 5);
    cursor
        .seek(StartingPosition::AtSequenceNumber(placed[3]))
        .unwrap();
    assert_eq!(cursor.position(), 3);
    let wrong = SequenceNumber::new(FIRST, stream.salt(), 77);
    assert!(
        cursor
            .seek(StartingPosition::AtSequenceNumber(wrong))
            .is_err()
    );
    assert_eq!(drain(&mut cursor), [3, 4]);
}

#[test]
fn a_record_is_found_by_its_number() {
    let (stream, hand) = stream(small(2));
    let placed: Vec<_> = (0..5).map(|n| put(&stream, n).sequence_number).collect();
    let found = stream.record(placed[3]).unwrap();
    assert_eq!((*found.value(), found.sequence_number()), (3, placed[3]));
    let ahead = SequenceNumber::new(placed[0].shard(), stream.salt(), 5);
    assert!(stream.record(ahead).is_none());
    let (other, _) = crate::rig::stream(sim_stream::StreamConfig::new("other"));
    assert!(other.record(placed[0]).is_none());
    hand.advance(hours(24));
    assert!(stream.record(placed[3]).is_none());
}
