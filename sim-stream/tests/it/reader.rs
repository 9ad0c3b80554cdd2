//! A reader of the whole stream: parents before children, and no silent gap.

use futures_util::StreamExt;
use sim_stream::{IteratorError, Read, ReadError, Reader, ShardId, StartingPosition};

use crate::rig::{FIRST, START, Task, block_on, hours, of, put, secs, small, stream, values};

/// Reads all that is there, run by run: shard and values.
#[track_caller]
fn runs(reader: &mut Reader<u32>) -> Vec<(u32, Vec<u32>)> {
    let mut runs = Vec::new();
    while let Some(records) = reader.try_read(Read::default()).unwrap() {
        runs.push((records.shard_id().number(), values(&records)));
    }
    runs
}

#[test]
fn a_key_is_read_in_order_through_splits_and_merges() {
    let (stream, _) = stream(small(1));
    let mut early = stream.reader(StartingPosition::TrimHorizon).unwrap();
    put(&stream, 0);
    let [low, high] = stream.split_evenly(FIRST).unwrap();
    put(&stream, 1);
    stream.merge(low, high).unwrap();
    put(&stream, 2);
    stream.update_shard_count(3).unwrap();
    put(&stream, 3);
    for mut reader in [stream.reader(StartingPosition::TrimHorizon).unwrap(), {
        let _ = runs(&mut early);
        stream.reader(StartingPosition::AtTimestamp(START)).unwrap()
    }] {
        let values: Vec<_> = runs(&mut reader)
            .into_iter()
            .flat_map(|run| run.1)
            .collect();
        assert_eq!(values, [0, 1, 2, 3]);
        assert_eq!(reader.shards().count(), 3);
    }
}

#[test]
fn a_child_of_a_merge_waits_for_both_parents() {
    let (stream, _) = stream(small(2));
    for n in 0..20 {
        stream.try_put(of(n.to_string(), n)).unwrap();
    }
    let child = stream.merge(FIRST, ShardId::new(1)).unwrap();
    for n in 20..40 {
        stream.try_put(of(n.to_string(), n)).unwrap();
    }
    let mut reader = stream.reader(StartingPosition::TrimHorizon).unwrap();
    let mut shards = Vec::new();
    while let Some(records) = reader.try_read(Read::at_most(3)).unwrap() {
        shards.push(records.shard_id());
    }
    let first_of_child = shards.iter().position(|shard| *shard == child).unwrap();
    assert!(shards[first_of_child..].iter().all(|shard| *shard == child));
    // Both parents took turns.
    assert_ne!(shards[0], shards[1]);
}

#[test]
fn a_reader_starts_behind_the_newest_record_and_skips_what_is_closed() {
    let (stream, _) = stream(small(1));
    put(&stream, 0);
    stream.split_evenly(FIRST).unwrap();
    put(&stream, 1);
    let mut reader = stream.reader(StartingPosition::Latest).unwrap();
    assert_eq!(runs(&mut reader), []);
    let placed = put(&stream, 2);
    stream.split_evenly(placed.shard_id).unwrap();
    put(&stream, 3);
    let values: Vec<_> = runs(&mut reader)
        .into_iter()
        .flat_map(|run| run.1)
        .collect();
    assert_eq!(values, [2, 3]);
}

#[test]
fn a_reader_starts_at_a_point_in_time_in_every_shard() {
    let (stream, hand) = stream(small(2));
    for n in 0..40 {
        stream.try_put(of(n.to_string(), n)).unwrap();
        hand.advance(secs(60));
        if n == 25 {
            stream.update_shard_count(3).unwrap();
        }
    }
    let from = |minute: u64| {
        let at = StartingPosition::AtTimestamp(START + secs(60 * minute));
        let mut reader = stream.reader(at).unwrap();
        let mut values: Vec<_> = runs(&mut reader)
            .into_iter()
            .flat_map(|run| run.1)
            .collect();
        values.sort_unstable();
        values
    };
    assert_eq!(from(10), (10..40).collect::<Vec<_>>());
    assert_eq!(from(30), (30..40).collect::<Vec<_>>());
}

#[test]
fn a_reader_cannot_start_at_a_record_or_in_the_future() {
    let (stream, _) = stream(small(2));
    let sequence_number = put(&stream, 1).sequence_number;
    for start in [
        StartingPosition::AtSequenceNumber(sequence_number),
        StartingPosition::AfterSequenceNumber(sequence_number),
    ] {
        assert_eq!(
            stream.reader(start).unwrap_err(),
            IteratorError::OneShard { sequence_number }
        );
    }
    let ahead = StartingPosition::AtTimestamp(START + secs(1));
    assert!(matches!(
        stream.reader(ahead),
        Err(IteratorError::FutureTimestamp { .. })
    ));
}

#[test]
fn a_reader_waits_for_any_shard_and_follows_a_split_while_it_sleeps() {
    let (stream, _) = stream(small(2));
    let mut reader = stream.reader(StartingPosition::TrimHorizon).unwrap();
    let mut task = Task::waiting(reader.read(Read::default()));
    let placed = put(&stream, 1);
    assert_eq!(values(&task.run().unwrap().unwrap()), [1]);
    drop(task);
    let mut task = Task::waiting(reader.read(Read::default()));
    stream.split_evenly(placed.shard_id).unwrap();
    assert!(task.run().is_none());
    put(&stream, 2);
    assert_eq!(values(&task.run().unwrap().unwrap()), [2]);
    drop(task);
    let deadline = stream.clock().now();
    assert_eq!(
        block_on(reader.read_until(Read::default(), deadline)).unwrap_err(),
        ReadError::Elapsed
    );
}

#[test]
fn a_readers_stream_ends_with_the_stream() {
    let (stream, _) = stream(small(2));
    let reader = stream.reader(StartingPosition::TrimHorizon).unwrap();
    put(&stream, 1);
    stream.update_shard_count(3).unwrap();
    put(&stream, 2);
    stream.close();
    let runs: Vec<_> = block_on(reader.into_stream(Read::default()).collect());
    let values: Vec<_> = runs
        .into_iter()
        .flat_map(|run| values(&run.unwrap()))
        .collect();
    assert_eq!(values, [1, 2]);
}

#[test]
fn a_reader_that_fell_behind_learns_of_records_and_of_whole_shards_that_left() {
    let (stream, hand) = stream(small(1));
    put(&stream, 0);
    let mut reader = stream.reader(StartingPosition::TrimHorizon).unwrap();
    assert_eq!(runs(&mut reader), [(0, vec![0])]);
    put(&stream, 1);
    let [low, high] = stream.split_evenly(FIRST).unwrap();
    put(&stream, 2);
    let merged = stream.merge(low, high).unwrap();
    hand.advance(hours(24));
    put(&stream, 3);

    let mut told = Vec::new();
    let mut read = Vec::new();
    loop {
        match reader.try_read(Read::default()) {
            Ok(Some(records)) => read.push((records.shard_id(), values(&records))),
            Ok(None) => break,
            Err(error) => told.push(error),
        }
    }
    assert_eq!(read, [(merged, vec![3])]);
    assert!(
        matches!(told[0], ReadError::Trimmed { lost: 1, .. }),
        "{told:?}"
    );
    assert_eq!(
        told[1..],
        [low, high].map(|shard_id| ReadError::UnknownShard { shard_id })
    );
}

#[test]
fn a_shard_that_a_reader_has_come_to_is_its_own_however_late_it_reads_on() {
    let (stream, hand) = stream(small(1));
    put(&stream, 0);
    let [low, high] = stream.split_evenly(FIRST).unwrap();
    let mut reader = stream.reader(StartingPosition::TrimHorizon).unwrap();
    // The last record of the parent comes with its end.
    let last = reader.try_read(Read::default()).unwrap().unwrap();
    assert!(last.is_end());
    put(&stream, 1);
    stream.merge(low, high).unwrap();
    hand.advance(hours(24));
    put(&stream, 2);
    assert_eq!(stream.shards().len(), 1, "parent and children have left");
    assert!(matches!(
        reader.try_read(Read::default()),
        Err(ReadError::Trimmed { lost: 1, .. })
    ));
    let values: Vec<_> = runs(&mut reader)
        .into_iter()
        .flat_map(|run| run.1)
        .collect();
    assert_eq!(values, [2]);
}

#[test]
fn a_shard_waits_for_an_ancestor_that_left_though_those_between_left_unread() {
    let (stream, hand) = stream(small(1));
    put(&stream, 0);
    put(&stream, 1);
    let mut reader = stream.reader(StartingPosition::TrimHorizon).unwrap();
    assert_eq!(reader.try_read(Read::at_most(1)).unwrap().unwrap().len(), 1);
    let [low, high] = stream.split_evenly(FIRST).unwrap();
    stream.merge(low, high).unwrap();
    put(&stream, 2);
    hand.advance(hours(23));
    put(&stream, 3);
    hand.advance(hours(1));
    stream.advance();
    // The gap in the first shard is told before anything that was put after it is read.
    assert!(matches!(
        reader.try_read(Read::default()),
        Err(ReadError::Trimmed { lost: 1, .. })
    ));
    for left in [low, high] {
        let error = reader.try_read(Read::default()).unwrap_err();
        assert_eq!(error, ReadError::UnknownShard { shard_id: left });
    }
    assert!(matches!(
        reader.try_read(Read::default()),
        Err(ReadError::Trimmed { lost: 1, .. })
    ));
    assert_eq!(runs(&mut reader), [(3, vec![3])]);
}
