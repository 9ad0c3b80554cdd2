//! The end of a stream.

use sim_stream::{Read, ReadError, Refusal, StartingPosition, WhenFull};

use crate::rig::{FIRST, Task, drain, hours, of, oldest, put, small, stream};

#[test]
fn a_closed_stream_takes_nothing_and_gives_what_is_there() {
    let (stream, _) = stream(small(2));
    stream.try_put(of("a", 1)).unwrap();
    stream.try_put(of("b", 2)).unwrap();
    stream.close();
    stream.close();
    assert!(stream.is_closed());
    assert_eq!(
        stream.try_put(of("a", 3)).unwrap_err().reason,
        Refusal::Closed
    );
    let mut reader = stream.reader(StartingPosition::TrimHorizon).unwrap();
    let mut values = Vec::new();
    let error = loop {
        match reader.try_read(Read::default()) {
            Ok(records) => values.extend(records.iter().flatten().map(|record| *record.value())),
            Err(error) => break error,
        }
    };
    values.sort_unstable();
    assert_eq!((values, error), (vec![1, 2], ReadError::Closed));
    let mut cursor = oldest(&stream, FIRST);
    drain(&mut cursor);
    let end = cursor.try_read(Read::default()).unwrap();
    assert!(end.is_end() && end.child_shards().is_empty());
}

#[test]
fn the_end_wakes_everybody_who_waits() {
    let config = sim_stream::StreamConfig {
        max_records: Some(1),
        when_full: WhenFull::Refuse,
        ..small(1)
    };
    let (stream, _) = stream(config);
    put(&stream, 1);
    let mut cursor = stream.cursor(FIRST, StartingPosition::Latest).unwrap();
    let mut reader = stream.reader(StartingPosition::Latest).unwrap();
    let mut reading = Task::waiting(cursor.read(Read::default()));
    let mut following = Task::waiting(reader.read(Read::default()));
    let mut putting = Task::waiting(stream.put(of("k", 2)));
    let mut putting_too = Task::waiting(stream.put(of("k", 3)));
    stream.close();
    assert!(reading.run().unwrap().unwrap().is_end());
    assert_eq!(following.run().unwrap().unwrap_err(), ReadError::Closed);
    for task in [&mut putting, &mut putting_too] {
        assert_eq!(task.run().unwrap().unwrap_err().reason, Refusal::Closed);
    }
}

#[test]
fn what_a_closed_stream_holds_still_ages() {
    let (stream, hand) = stream(small(1));
    put(&stream, 1);
    stream.close();
    hand.advance(hours(24));
    assert_eq!(stream.stats().records, 0);
    assert_eq!(drain(&mut oldest(&stream, FIRST)), [0; 0]);
}
