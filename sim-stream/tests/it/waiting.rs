//! Reads that wait: for a record, a shard's end, a deadline; and that none of them sleeps through.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::{Stream as _, StreamExt, TryStreamExt};
use sim_stream::{Read, ReadError, StartingPosition, Stream, StreamConfig};

use crate::rig::{
    FIRST, Task, block_on, of, oldest, put, secs, small, stream, until_asleep, values,
};

#[test]
fn a_read_waits_for_a_record() {
    let (stream, _) = stream(small(1));
    let mut cursor = oldest(&stream, FIRST);
    let mut task = Task::waiting(cursor.read(Read::default()));
    assert!(!task.is_woken());
    put(&stream, 7);
    let records = task.run().unwrap().unwrap();
    assert_eq!(values(&records), [7]);
}

#[test]
fn a_record_wakes_every_reader() {
    let (stream, _) = stream(small(1));
    let mut cursors: Vec<_> = (0..5).map(|_| oldest(&stream, FIRST)).collect();
    let mut tasks: Vec<_> = cursors
        .iter_mut()
        .map(|cursor| Task::waiting(cursor.read(Read::default())))
        .collect();
    put(&stream, 7);
    for task in &mut tasks {
        assert_eq!(values(&task.run().unwrap().unwrap()), [7]);
    }
}

#[test]
fn a_record_of_another_shard_wakes_nobody() {
    let (stream, _) = stream(small(2));
    let mut cursor = stream
        .cursor(sim_stream::ShardId::new(1), StartingPosition::Latest)
        .unwrap();
    let task = Task::waiting(cursor.read(Read::default()));
    let low = of("k", 1).explicit_hash_key(sim_stream::HashKey::MIN);
    stream.try_put(low).unwrap();
    assert!(!task.is_woken());
}

#[test]
fn a_read_ends_at_its_deadline_and_skips_nothing() {
    let (stream, hand) = stream(small(1));
    let mut cursor = oldest(&stream, FIRST);
    let mut task = Task::waiting(cursor.read_until(Read::default(), hand.now() + secs(20)));
    hand.advance(secs(19));
    assert!(task.run().is_none());
    hand.advance(secs(1));
    assert_eq!(task.run().unwrap().unwrap_err(), ReadError::Elapsed);
    drop(task);
    put(&stream, 7);
    let late = block_on(cursor.read_until(Read::default(), hand.now())).unwrap();
    assert_eq!(
        values(&late),
        [7],
        "a deadline that has passed gets one attempt"
    );
}

#[test]
fn a_read_that_is_dropped_loses_nothing() {
    let (stream, _) = stream(small(1));
    let mut cursor = oldest(&stream, FIRST);
    drop(Task::waiting(cursor.read(Read::default())));
    let woken = {
        let task = Task::waiting(cursor.read(Read::default()));
        put(&stream, 7);
        task.is_woken()
    };
    assert!(woken, "it was dropped with its wake-up");
    assert_eq!(values(&cursor.try_read(Read::default()).unwrap()), [7]);
}

#[test]
fn a_thread_waits_for_a_record_and_until_its_deadline() {
    let (stream, hand) = stream(small(1));
    let mut cursor = oldest(&stream, FIRST);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let first = cursor.read_blocking(Read::default()).map(|r| values(&r));
            let deadline = stream.clock().now() + secs(5);
            let second = cursor.read_blocking_until(Read::default(), deadline);
            (first, second.map(|records| records.len()))
        });
        put(&stream, 7);
        until_asleep(&hand, 1);
        hand.advance(secs(5));
        let (first, second) = reader.join().expect("no panic");
        assert_eq!(first, Ok(vec![7]));
        assert_eq!(second, Err(ReadError::Elapsed));
    });
}

#[test]
fn a_stream_of_runs_ends_with_its_shard() {
    let (stream, _) = stream(small(1));
    put(&stream, 1);
    let mut runs = oldest(&stream, FIRST).into_stream(Read::default());
    let next = block_on(runs.next()).unwrap().unwrap();
    assert_eq!(values(&next), [1]);
    let mut task = Task::waiting(runs.next());
    put(&stream, 2);
    assert_eq!(values(&task.run().unwrap().unwrap().unwrap()), [2]);
    drop(task);
    put(&stream, 3);
    stream.split_evenly(FIRST).unwrap();
    let rest: Vec<_> = block_on(runs.try_collect()).unwrap();
    assert_eq!(rest.iter().flat_map(values).collect::<Vec<_>>(), [3]);
    assert!(rest[0].is_end());
}

#[test]
fn the_end_of_a_shard_wakes_its_readers() {
    let (stream, _) = stream(small(1));
    let mut cursor = oldest(&stream, FIRST);
    let mut task = Task::waiting(cursor.read(Read::default()));
    let children = stream.split_evenly(FIRST).unwrap();
    let records = task.run().unwrap().unwrap();
    assert!(records.is_empty() && records.is_end());
    let ids: Vec<_> = records
        .child_shards()
        .iter()
        .map(|child| child.id)
        .collect();
    assert_eq!(ids, children);
}

#[test]
fn a_runs_stream_that_is_dropped_leaves_the_list() {
    let (stream, _) = stream(small(1));
    let mut runs = oldest(&stream, FIRST).into_stream(Read::default());
    let waker = std::task::Waker::noop();
    let polled = Pin::new(&mut runs).poll_next(&mut Context::from_waker(waker));
    assert!(matches!(polled, Poll::Pending));
    drop(runs);
    put(&stream, 1);
    assert_eq!(stream.stats().records, 1);
}

/// Readers that sleep after every record, and writers that never look whether somebody sleeps: one lost wake-up and
/// this test does not end.
#[test]
fn no_record_is_put_without_its_waiting_readers_learning_it() {
    const RECORDS: u32 = 3_000;
    const WRITERS: u32 = 2;
    let stream: Stream<u32> = Stream::new(StreamConfig::new("s").shards(1)).unwrap();
    let seen = Arc::new(AtomicU64::new(0));
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let (stream, seen) = (stream.clone(), Arc::clone(&seen));
            scope.spawn(move || {
                let mut last = vec![None; WRITERS as usize];
                let mut count = 0;
                let mut cursor = oldest(&stream, FIRST);
                let mut whole = stream.reader(StartingPosition::TrimHorizon).unwrap();
                while count < RECORDS * WRITERS {
                    let records = match reader {
                        0 => cursor.read_blocking(Read::at_most(1)),
                        1 => block_on(cursor.read(Read::at_most(1))),
                        _ => whole.read_blocking(Read::at_most(1)),
                    }
                    .unwrap();
                    for value in values(&records) {
                        let (writer, number) = (value % WRITERS, value / WRITERS);
                        let last = &mut last[writer as usize];
                        assert_eq!(number, last.map_or(0, |last| last + 1), "in order, no gap");
                        *last = Some(number);
                        count += 1;
                    }
                    seen.fetch_add(records.len() as u64, Ordering::SeqCst);
                }
            });
        }
        for writer in 0..WRITERS {
            let (stream, seen) = (stream.clone(), Arc::clone(&seen));
            scope.spawn(move || {
                for n in 0..RECORDS {
                    put(&stream, n * WRITERS + writer);
                    // Half of the time everybody has caught up and sleeps, or is about to.
                    if n % 2 == 0 {
                        let want = u64::from(n) * 2;
                        while seen.load(Ordering::SeqCst) < want {
                            std::thread::yield_now();
                        }
                    }
                }
            });
        }
    });
    assert_eq!(
        seen.load(Ordering::SeqCst),
        u64::from(3 * RECORDS * WRITERS)
    );
}
