//! Consumer groups: what workers give, who takes over, what a checkpoint means.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::StreamExt;
use sim_core::clock::VirtualClock;
use sim_core::seam::Gauge;
use sim_core::time::Instant;
use sim_stream::{
    Batch, BatchKind, Checkpoint, CheckpointError, ConfigError, ConsumerGroup, GroupConfig,
    GroupError, InitialPosition, NextError, Read, RunError, Salt, SequenceNumber, ShardId, Stream,
    StreamConfig, Worker, WrongSequenceNumber,
};

use crate::rig::{FIRST, START, Task, block_on, hours, of, put, secs, small, stream, until_asleep};

const DURATION: Duration = Duration::from_secs(10);

fn config() -> GroupConfig {
    GroupConfig::new("group")
}

/// A stream of so many shards, its clock, and a group on it.
fn group(shards: u32) -> (Stream<u32>, VirtualClock, ConsumerGroup<u32>) {
    group_of(shards, config())
}

fn group_of(shards: u32, config: GroupConfig) -> (Stream<u32>, VirtualClock, ConsumerGroup<u32>) {
    let (stream, hand) = stream(small(shards));
    let group = ConsumerGroup::new(&stream, config).unwrap();
    (stream, hand, group)
}

fn values(batch: &Batch<u32>) -> Vec<u32> {
    batch.iter().map(|record| *record.value()).collect()
}

/// Everything that a worker gives at present, each batch checkpointed.
fn drain(worker: &mut Worker<u32>) -> Vec<u32> {
    let mut out = Vec::new();
    loop {
        match worker.try_next() {
            Ok(batch) => {
                out.extend(values(&batch));
                batch.checkpoint().unwrap();
            }
            Err(NextError::Empty | NextError::Closed) => return out,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Puts values under keys of their own, so that they spread over the shards.
fn spread(stream: &Stream<u32>, values: std::ops::Range<u32>) {
    for value in values {
        stream.try_put(of(value.to_string(), value)).unwrap();
    }
}

/// Puts values under one key.
fn fill(stream: &Stream<u32>, values: std::ops::Range<u32>) {
    for value in values {
        put(stream, value);
    }
}

fn sorted(mut values: Vec<u32>) -> Vec<u32> {
    values.sort_unstable();
    values
}

fn at_most(max: usize) -> GroupConfig {
    GroupConfig {
        read: Read::at_most(max),
        ..config()
    }
}

#[track_caller]
fn is_empty(worker: &mut Worker<u32>) {
    assert_eq!(worker.try_next().unwrap_err(), NextError::Empty);
}

#[test]
fn a_worker_gives_every_record_of_every_shard() {
    let (stream, _, group) = group(4);
    spread(&stream, 0..100);
    let mut worker = group.join().unwrap();
    assert_eq!(sorted(drain(&mut worker)), (0..100).collect::<Vec<_>>());
    assert_eq!(worker.held().len(), 4);
    assert_eq!(group.stats().records, 100);
    is_empty(&mut worker);
    spread(&stream, 100..110);
    assert_eq!(sorted(drain(&mut worker)), (100..110).collect::<Vec<_>>());
}

#[test]
fn a_batch_in_flight_holds_back_its_shard_and_no_other() {
    let (stream, _, group) = group_of(2, at_most(1));
    spread(&stream, 0..20);
    let mut worker = group.join().unwrap();
    let first = worker.try_next().unwrap();
    let second = worker.try_next().unwrap();
    assert_ne!(first.shard_id(), second.shard_id());
    is_empty(&mut worker);
    let shard = first.shard_id();
    drop(first);
    let third = worker.try_next().unwrap();
    assert_eq!(third.shard_id(), shard);
    is_empty(&mut worker);
}

#[test]
fn shards_take_turns() {
    let (stream, _, group) = group_of(3, at_most(1));
    spread(&stream, 0..60);
    let mut worker = group.join().unwrap();
    let turns: Vec<_> = (0..9)
        .map(|_| worker.try_next().unwrap().shard_id())
        .collect();
    assert_eq!(turns[..3], turns[3..6]);
    assert_eq!(turns[..3], turns[6..]);
    assert!(turns[0] != turns[1] && turns[1] != turns[2] && turns[0] != turns[2]);
}

#[test]
fn a_crashed_workers_shard_is_taken_over_at_its_checkpoint_when_the_lease_expires() {
    let (stream, hand, group) = group_of(1, at_most(1));
    fill(&stream, 0..4);
    let mut a = group.join().unwrap();
    a.try_next().unwrap().checkpoint().unwrap();
    assert_eq!(values(&a.try_next().unwrap()), [1]); // not checkpointed
    drop(a);
    let mut b = group.join().unwrap();
    is_empty(&mut b);
    hand.advance(DURATION - Duration::from_nanos(1));
    is_empty(&mut b);
    hand.advance(Duration::from_nanos(1));
    assert_eq!(drain(&mut b), [1, 2, 3]);
    assert_eq!(group.stats().leases.taken_over, 1);
}

#[test]
fn a_worker_that_shuts_down_frees_its_shards_at_once() {
    let (stream, _, group) = group(2);
    spread(&stream, 0..10);
    let mut a = group.join().unwrap();
    let first = drain(&mut a);
    assert_eq!(first.len(), 10);
    let mut b = group.join().unwrap();
    is_empty(&mut b);
    a.shutdown();
    spread(&stream, 10..20);
    assert_eq!(sorted(drain(&mut b)), (10..20).collect::<Vec<_>>());
    assert_eq!(group.workers(), [b.id()]);
}

#[test]
fn a_shard_with_a_batch_in_flight_is_freed_when_that_is_dropped() {
    let (stream, _, group) = group_of(1, at_most(1));
    put(&stream, 0);
    put(&stream, 1);
    let mut a = group.join().unwrap();
    let batch = a.try_next().unwrap();
    a.shutdown();
    let mut b = group.join().unwrap();
    is_empty(&mut b);
    batch.checkpoint().unwrap();
    drop(batch);
    assert_eq!(drain(&mut b), [1]);
}

#[test]
fn a_batch_that_outlives_its_worker_and_is_not_checkpointed_goes_to_the_next() {
    let (stream, _, group) = group_of(1, at_most(1));
    fill(&stream, 0..2);
    let mut a = group.join().unwrap();
    let batch = a.try_next().unwrap();
    a.shutdown();
    drop(batch);
    let mut b = group.join().unwrap();
    assert_eq!(drain(&mut b), [0, 1]);
    assert_eq!(group.stats().leases.taken_over, 0);
}

#[test]
fn a_zombies_checkpoint_is_refused_and_the_next_owner_goes_on_from_the_last_good_one() {
    let (stream, hand, group) = group_of(1, at_most(1));
    fill(&stream, 0..3);
    let mut zombie = group.join().unwrap();
    zombie.try_next().unwrap().checkpoint().unwrap();
    let held = zombie.try_next().unwrap();
    let checkpointer = held.checkpointer();
    hand.advance(DURATION);
    let mut owner = group.join().unwrap();
    let batch = owner.try_next().unwrap();
    assert_eq!(values(&batch), [1]);
    assert!(batch.generation() > held.generation());
    let lost = Err(CheckpointError::LeaseLost { shard_id: FIRST });
    assert_eq!(held.checkpoint(), lost);
    assert_eq!(
        checkpointer.checkpoint_part(put(&stream, 3).sequence_number, 1),
        lost
    );
    assert!(!held.heartbeat() && batch.heartbeat());
    drop(held); // The owner's batch is still in flight: nothing else is given.
    is_empty(&mut owner);
    is_empty(&mut zombie);
    batch.checkpoint().unwrap();
    drop(batch);
    assert_eq!(drain(&mut owner), [2, 3]);
}

#[test]
fn a_lone_worker_that_is_late_keeps_its_shards() {
    let (stream, hand, group) = group(1);
    put(&stream, 0);
    let mut worker = group.join().unwrap();
    let batch = worker.try_next().unwrap();
    hand.advance(hours(1));
    batch.checkpoint().unwrap();
    drop(batch);
    put(&stream, 1);
    assert_eq!(drain(&mut worker), [1]);
    assert_eq!(group.leases()[0].generation.number(), 1);
}

#[test]
fn heartbeats_keep_a_lease_while_processing_takes_long() {
    let (stream, hand, group) = group(1);
    put(&stream, 0);
    let mut a = group.join().unwrap();
    let mut b = group.join().unwrap();
    let batch = a.try_next().unwrap();
    for second in 0..60 {
        hand.advance(secs(1));
        is_empty(&mut b);
        match second % 2 {
            0 => a.heartbeat(),
            _ => assert!(batch.heartbeat()),
        }
    }
    batch.checkpoint().unwrap();
    hand.advance(DURATION);
    is_empty(&mut b);
    assert_eq!(b.held(), [FIRST]);
}

#[test]
fn a_newcomer_is_handed_its_share() {
    let (stream, _, group) = group(4);
    let mut a = group.join().unwrap();
    is_empty(&mut a);
    assert_eq!(a.held().len(), 4);
    let mut b = group.join().unwrap();
    for _ in 0..3 {
        is_empty(&mut b);
        is_empty(&mut a);
    }
    assert_eq!((a.held().len(), b.held().len()), (2, 2));
    assert_eq!(group.stats().leases.handed_off, 2);
    spread(&stream, 0..40);
    let mut all = drain(&mut a);
    let of_a = all.len();
    all.extend(drain(&mut b));
    assert!(of_a > 0 && of_a < 40);
    assert_eq!(sorted(all), (0..40).collect::<Vec<_>>());
}

#[test]
fn an_owner_has_one_more_occasion_to_checkpoint_before_a_hand_off() {
    let (stream, _, group) = group(2);
    spread(&stream, 0..10);
    let mut a = group.join().unwrap();
    let given = [a.try_next().unwrap(), a.try_next().unwrap()];
    let mut b = group.join().unwrap();
    is_empty(&mut b); // asks
    let wanted: Vec<_> = given.iter().filter(|batch| batch.is_wanted()).collect();
    assert_eq!(wanted.len(), 1);
    let (shard, last) = (
        wanted[0].shard_id(),
        wanted[0].records().last_sequence_number(),
    );
    is_empty(&mut a); // in flight
    drop(given); // Neither is checkpointed.
    is_empty(&mut b);
    let farewell = a.try_next().unwrap();
    assert_eq!(
        (farewell.kind(), farewell.shard_id()),
        (BatchKind::HandOff, shard)
    );
    assert!(farewell.is_empty());
    farewell.checkpoint().unwrap();
    drop(farewell);
    is_empty(&mut b);
    assert_eq!(b.held(), [shard]);
    let lease = group
        .leases()
        .into_iter()
        .find(|lease| lease.shard_id == shard)
        .unwrap();
    assert_eq!(lease.checkpoint, Checkpoint::at(last.unwrap()));
}

#[test]
fn what_is_not_checkpointed_at_a_hand_off_is_given_again() {
    let (stream, _, group) = group(2);
    spread(&stream, 0..10);
    let mut a = group.join().unwrap();
    let given = [a.try_next().unwrap(), a.try_next().unwrap()];
    let mut b = group.join().unwrap();
    is_empty(&mut b);
    let wanted = given
        .iter()
        .find(|batch| batch.is_wanted())
        .map(values)
        .unwrap();
    drop(given);
    let farewell = a.try_next().unwrap();
    assert_eq!(farewell.kind(), BatchKind::HandOff);
    drop(farewell);
    assert_eq!(drain(&mut b), wanted);
}

#[test]
fn a_shard_that_is_not_handed_over_in_time_is_taken() {
    let (stream, hand, group) = group(2);
    spread(&stream, 0..10);
    let mut a = group.join().unwrap();
    let given = [a.try_next().unwrap(), a.try_next().unwrap()];
    let mut b = group.join().unwrap();
    is_empty(&mut b);
    for _ in 0..30 {
        assert_eq!(b.held(), []);
        hand.advance(secs(1));
        a.heartbeat();
        is_empty_or_gives(&mut b);
    }
    assert_eq!(b.held().len(), 1);
    assert_eq!(group.stats().leases.stolen, 1);
    let refused = given
        .iter()
        .filter(|batch| batch.checkpoint().is_err())
        .count();
    assert_eq!(refused, 1);
}

fn is_empty_or_gives(worker: &mut Worker<u32>) {
    if let Err(error) = worker.try_next() {
        assert_eq!(error, NextError::Empty);
    }
}

#[test]
fn children_come_when_their_parents_are_processed_to_the_end() {
    let (stream, _, group) = group(1);
    put(&stream, 0);
    let children = stream.split_evenly(FIRST).unwrap();
    spread(&stream, 1..20);
    let mut worker = group.join().unwrap();
    let first = worker.try_next().unwrap();
    assert_eq!(values(&first), [0]);
    is_empty(&mut worker);
    first.checkpoint().unwrap();
    drop(first);
    assert_eq!(sorted(drain(&mut worker)), (1..20).collect::<Vec<_>>());
    let merged = stream.merge(children[0], children[1]).unwrap();
    put(&stream, 20);
    assert_eq!(drain(&mut worker), [20]);
    assert_eq!(worker.held(), [merged]);
    assert_eq!(group.stats().leases.finished, 3);
}

#[test]
fn another_worker_waits_for_the_parent_too() {
    let (stream, hand, group) = group(1);
    put(&stream, 0);
    let mut a = group.join().unwrap();
    let parent = a.try_next().unwrap();
    stream.split_evenly(FIRST).unwrap();
    put(&stream, 1);
    let mut b = group.join().unwrap();
    is_empty(&mut b);
    hand.advance(secs(1));
    is_empty(&mut b);
    parent.checkpoint().unwrap();
    drop(parent);
    let mut all = drain(&mut a);
    all.extend(drain(&mut b));
    assert_eq!(all, [1]);
}

#[test]
fn the_end_of_a_shard_is_asked_for_when_something_is_not_checkpointed() {
    let (stream, _, group) = group(1);
    put(&stream, 0);
    stream.split_evenly(FIRST).unwrap();
    put(&stream, 1);
    let mut worker = group.join().unwrap();
    let given = worker.try_next().unwrap();
    assert_eq!(
        given
            .checkpointer()
            .checkpoint_at(given.records().last_sequence_number().unwrap()),
        Ok(())
    );
    drop(given);
    put(&stream, 2);

    // The children: nothing is checkpointed of the one that gives something.
    let child = loop {
        let batch = worker.try_next().unwrap();
        if !batch.is_empty() {
            break batch.shard_id();
        }
    };
    let ends = stream.split_evenly(child).unwrap();
    let end = worker.try_next().unwrap();
    assert_eq!((end.kind(), end.shard_id()), (BatchKind::ShardEnd, child));
    assert!(end.is_empty() && end.records().is_end());
    assert_eq!(end.records().child_shards().len(), 2);
    assert_eq!(worker.held().len(), 2);
    end.checkpoint().unwrap();
    drop(end);
    is_empty(&mut worker);
    assert!(ends.iter().all(|shard| worker.held().contains(shard)));
}

#[test]
fn the_end_of_a_shard_that_is_not_checkpointed_gives_its_records_again() {
    let (stream, _, group) = group(1);
    put(&stream, 0);
    stream.split_evenly(FIRST).unwrap();
    let mut worker = group.join().unwrap();
    for _ in 0..3 {
        assert_eq!(values(&worker.try_next().unwrap()), [0]);
        assert_eq!(worker.try_next().unwrap().kind(), BatchKind::ShardEnd);
    }
    assert_eq!(worker.held(), [FIRST]);
    assert_eq!(drain(&mut worker), [0]);
    assert_eq!(worker.held().len(), 2);
}

#[test]
fn a_group_from_the_latest_record_on_skips_what_was_there_and_nothing_else() {
    let (stream, hand) = stream(small(2));
    spread(&stream, 0..10);
    let latest = GroupConfig {
        start: InitialPosition::Latest,
        ..config()
    };
    let group = ConsumerGroup::new(&stream, latest).unwrap();
    spread(&stream, 10..20);
    let mut a = group.join().unwrap();
    let first = a.try_next().unwrap();
    assert!(values(&first).iter().all(|value| *value >= 10));
    // It crashes before its first checkpoint, and the shard is split meanwhile.
    drop((first, a));
    spread(&stream, 20..30);
    stream.split_evenly(FIRST).unwrap();
    spread(&stream, 30..40);
    hand.advance(DURATION);
    let mut b = group.join().unwrap();
    assert_eq!(sorted(drain(&mut b)), (10..40).collect::<Vec<_>>());
}

#[test]
fn a_group_from_the_latest_record_on_does_not_read_closed_shards() {
    let (stream, _) = stream(small(1));
    put(&stream, 0);
    stream.split_evenly(FIRST).unwrap();
    put(&stream, 1);
    let latest = GroupConfig {
        start: InitialPosition::Latest,
        ..config()
    };
    let group = ConsumerGroup::new(&stream, latest).unwrap();
    put(&stream, 2);
    assert_eq!(drain(&mut group.join().unwrap()), [2]);
}

#[test]
fn a_group_starts_at_a_point_in_time() {
    let (stream, hand) = stream(small(1));
    for value in 0..10 {
        put(&stream, value);
        hand.advance(secs(60));
    }
    let at = |timestamp| GroupConfig {
        start: InitialPosition::AtTimestamp(timestamp),
        ..config()
    };
    let group = ConsumerGroup::new(&stream, at(START + secs(301))).unwrap();
    stream.split_evenly(FIRST).unwrap();
    put(&stream, 10);
    assert_eq!(drain(&mut group.join().unwrap()), [6, 7, 8, 9, 10]);

    let future = START + hours(1);
    assert_eq!(
        ConsumerGroup::new(&stream, at(future)).unwrap_err(),
        GroupError::FutureTimestamp {
            timestamp: future,
            now: START + secs(600),
        }
    );
}

#[test]
fn a_record_that_was_processed_in_part_is_given_again_with_the_part() {
    let (stream, hand, group) = group(1);
    let placed: Vec<_> = (0..3)
        .map(|value| put(&stream, value).sequence_number)
        .collect();
    let mut a = group.join().unwrap();
    let batch = a.try_next().unwrap();
    assert_eq!(batch.resumed_within(), None);
    batch.checkpoint_part(placed[1], 4).unwrap();
    drop((batch, a));
    let lease = &group.leases()[0];
    let at = Checkpoint::At {
        sequence_number: placed[1],
        sub_sequence_number: 4,
    };
    assert!(lease.is_partial && lease.checkpoint == at);
    hand.advance(DURATION);
    let mut b = group.join().unwrap();
    let batch = b.try_next().unwrap();
    assert_eq!(
        (values(&batch), batch.resumed_within()),
        (vec![1, 2], Some(4))
    );
    batch.checkpoint_part(placed[1], 7).unwrap();
    assert!(matches!(
        batch.checkpoint_part(placed[1], 6),
        Err(CheckpointError::Backwards { .. })
    ));
    batch.checkpoint_at(placed[1]).unwrap();
    drop((batch, b));
    hand.advance(DURATION);
    let mut c = group.join().unwrap();
    let batch = c.try_next().unwrap();
    assert_eq!((values(&batch), batch.resumed_within()), (vec![2], None));
}

#[test]
fn bad_checkpoints_are_refused_by_name_and_change_nothing() {
    let (stream, _, group) = group_of(2, at_most(2));
    spread(&stream, 0..20);
    let mut worker = group.join().unwrap();
    let (batch, other) = (worker.try_next().unwrap(), worker.try_next().unwrap());
    let before = group.leases();
    let last = batch.records().last_sequence_number().unwrap();
    let next = SequenceNumber::new(last.shard(), last.salt(), last.position() + 1);
    let ahead = batch.checkpoint_at(next).unwrap_err();
    assert_eq!(
        ahead,
        CheckpointError::Ahead {
            given: Checkpoint::at(next),
            delivered: Checkpoint::at(last),
        }
    );
    let text = ahead.to_string();
    assert!(
        text.contains(&next.to_string()) && text.contains(&last.to_string()),
        "{text}"
    );

    let elsewhere = other.records().last_sequence_number().unwrap();
    let wrong = WrongSequenceNumber::OtherShard {
        sequence_number: elsewhere,
        shard: batch.shard_id(),
    };
    assert_eq!(batch.checkpoint_at(elsewhere), Err(wrong.into()));

    let foreign = SequenceNumber::new(last.shard(), Salt::new(!last.salt().as_u32()), 0);
    let wrong = WrongSequenceNumber::OtherStream {
        sequence_number: foreign,
    };
    assert_eq!(batch.checkpoint_part(foreign, 0), Err(wrong.into()));
    assert_eq!(group.leases(), before);

    batch.checkpoint().unwrap();
    let first = batch.records().get(0).unwrap().sequence_number();
    assert_eq!(
        batch.checkpoint_at(first),
        Err(CheckpointError::Backwards {
            given: Checkpoint::at(first),
            current: Checkpoint::at(last),
        })
    );
    assert_eq!(batch.checkpoint(), Ok(()));
}

#[test]
fn a_batch_that_is_given_back_comes_again_with_all_since_the_checkpoint() {
    let (stream, _, group) = group_of(1, at_most(2));
    fill(&stream, 0..6);
    let mut worker = group.join().unwrap();
    worker.try_next().unwrap().checkpoint().unwrap();
    assert_eq!(values(&worker.try_next().unwrap()), [2, 3]);
    let last = worker.try_next().unwrap();
    assert_eq!(values(&last), [4, 5]);
    last.retry();
    assert_eq!(values(&worker.try_next().unwrap()), [2, 3]);
    assert_eq!(drain(&mut worker), [4, 5]);
}

#[test]
fn records_lost_to_retention_are_told_once() {
    let (stream, hand, group) = group_of(1, at_most(1));
    put(&stream, 0);
    let mut worker = group.join().unwrap();
    worker.try_next().unwrap().checkpoint().unwrap();
    fill(&stream, 1..200);
    hand.advance(hours(25));
    put(&stream, 200);
    stream.advance();
    let error = worker.try_next().unwrap_err();
    let NextError::Trimmed {
        shard_id,
        lost,
        resume_at,
    } = error
    else {
        panic!("{error}");
    };
    assert!(shard_id == FIRST && lost > 0 && resume_at.position() == lost + 1);
    let left: Vec<_> = (lost as u32 + 1..=200).collect();
    assert_eq!(drain(&mut worker), left);
}

#[test]
fn a_shard_whose_retention_is_over_leaves_the_group_and_frees_its_children() {
    let (stream, hand, group) = group(1);
    put(&stream, 0);
    stream.split_evenly(FIRST).unwrap();
    hand.advance(hours(25));
    stream.advance();
    put(&stream, 1);
    assert!(stream.shards().iter().all(|shard| shard.id != FIRST));
    let mut worker = group.join().unwrap();
    assert_eq!(worker.try_next().unwrap_err(), expired(1, 1, 0));
    assert_eq!(drain(&mut worker), [1]);
    assert_eq!(group.leases().len(), 2);
    assert_eq!(group.stats().leases.abandoned, 1);
}

const fn expired(shards: u64, records: u64, unseen: u64) -> NextError {
    NextError::Expired {
        shards,
        records,
        unseen,
    }
}

#[test]
fn what_expires_between_a_crash_and_the_next_owner_is_told() {
    for start in [
        InitialPosition::TrimHorizon,
        InitialPosition::AtTimestamp(START),
    ] {
        let (stream, hand, group) = group_of(1, GroupConfig { start, ..config() });
        fill(&stream, 0..3);
        let mut worker = group.join().unwrap();
        assert_eq!(values(&worker.try_next().unwrap()), [0, 1, 2]);
        drop(worker);
        hand.advance(hours(25));
        let newest = put(&stream, 3).sequence_number;
        let mut other = group.join().unwrap();
        let trimmed = NextError::Trimmed {
            shard_id: FIRST,
            lost: 3,
            resume_at: newest,
        };
        assert_eq!(other.try_next().unwrap_err(), trimmed);
        assert_eq!(drain(&mut other), [3]);
    }
}

#[test]
fn what_had_expired_when_a_group_was_made_is_not_told() {
    let (stream, hand) = stream(small(1));
    fill(&stream, 0..5_000);
    hand.advance(hours(25));
    put(&stream, 5_000);
    let group = ConsumerGroup::new(&stream, config()).unwrap();
    assert_eq!(drain(&mut group.join().unwrap()), [5_000]);
}

#[test]
fn what_expires_in_a_child_while_its_parent_is_processed_is_told() {
    let (stream, hand, group) = group_of(1, at_most(1));
    put(&stream, 0);
    let mut worker = group.join().unwrap();
    let batch = worker.try_next().unwrap();
    stream.split_evenly(FIRST).unwrap();
    fill(&stream, 1..4);
    is_empty(&mut worker);
    hand.advance(hours(25));
    put(&stream, 4);
    batch.checkpoint().unwrap();
    drop(batch);
    let error = worker.try_next().unwrap_err();
    assert!(
        matches!(error, NextError::Trimmed { lost: 3, .. }),
        "{error}"
    );
    assert_eq!(drain(&mut worker), [4]);
}

#[test]
fn a_shard_that_leaves_after_its_owner_crashed_is_told_with_what_was_not_checkpointed() {
    let (stream, hand, group) = group_of(1, at_most(2));
    fill(&stream, 0..5);
    let mut worker = group.join().unwrap();
    worker.try_next().unwrap().checkpoint().unwrap();
    assert_eq!(values(&worker.try_next().unwrap()), [2, 3]);
    drop(worker);
    stream.split_evenly(FIRST).unwrap();
    hand.advance(hours(25));
    stream.advance();
    let mut other = group.join().unwrap();
    assert_eq!(other.try_next().unwrap_err(), expired(1, 3, 0));
    is_empty(&mut other);
    assert_eq!(group.stats().leases.abandoned, 1);
}

#[test]
fn a_shard_that_leaves_with_everything_checkpointed_is_not_told() {
    let (stream, hand, group) = group(1);
    put(&stream, 0);
    let mut worker = group.join().unwrap();
    worker.try_next().unwrap().checkpoint().unwrap();
    drop(worker);
    stream.split_evenly(FIRST).unwrap();
    hand.advance(hours(25));
    stream.advance();
    is_empty(&mut group.join().unwrap());
    assert_eq!(group.stats().leases.abandoned, 1);
}

#[test]
fn shards_that_come_and_go_while_nobody_calls_are_told_once() {
    let (stream, hand, group) = group(1);
    put(&stream, 0);
    let [lower, upper] = stream.split_evenly(FIRST).unwrap();
    put(&stream, 1);
    let whole = stream.merge(lower, upper).unwrap();
    hand.advance(hours(25));
    stream.advance();
    put(&stream, 2);
    assert_eq!(stream.shards().len(), 1);
    let mut worker = group.join().unwrap();
    assert_eq!(worker.try_next().unwrap_err(), expired(1, 1, 2));
    assert_eq!(drain(&mut worker), [2]);
    assert_eq!(worker.held(), [whole]);
    is_empty(&mut worker);
}

#[test]
fn a_group_that_is_made_late_has_not_missed_the_shards_before_it() {
    let (stream, hand) = stream(small(1));
    put(&stream, 0);
    stream.split_evenly(FIRST).unwrap();
    hand.advance(hours(25));
    stream.advance();
    let group = ConsumerGroup::new(&stream, config()).unwrap();
    is_empty(&mut group.join().unwrap());
}

#[test]
fn a_run_ends_with_what_was_lost_by_whole_shards() {
    let (stream, hand, group) = group(1);
    put(&stream, 0);
    stream.split_evenly(FIRST).unwrap();
    hand.advance(hours(25));
    stream.advance();
    stream.close();
    let mut worker = group.join().unwrap();
    let handler = |_: Batch<u32>| async { Ok::<(), String>(()) };
    let lost = block_on(worker.run(&handler)).unwrap_err();
    assert!(matches!(
        lost,
        RunError::Expired {
            shards: 1,
            records: 1,
            unseen: 0
        }
    ));
    block_on(worker.run(&handler)).unwrap();
}

#[test]
fn a_shard_that_expires_while_it_is_held_is_ended() {
    let (stream, hand, group) = group_of(1, at_most(1));
    fill(&stream, 0..3);
    let mut worker = group.join().unwrap();
    worker.try_next().unwrap().checkpoint().unwrap();
    stream.split_evenly(FIRST).unwrap();
    hand.advance(hours(25));
    stream.advance();
    put(&stream, 3);
    let (mut all, mut lost) = (Vec::new(), Vec::new());
    loop {
        match worker.try_next() {
            Ok(batch) => {
                all.extend(values(&batch));
                batch.checkpoint().unwrap();
            }
            Err(NextError::Empty) => break,
            Err(error) => lost.push(error),
        }
    }
    assert_eq!(all, [3]);
    assert_eq!(lost, [expired(1, 2, 0)]);
    assert_eq!(worker.held().len(), 2);
}

#[test]
fn a_closed_stream_is_processed_to_its_end() {
    let (stream, _, group) = group(2);
    spread(&stream, 0..10);
    stream.close();
    let (mut a, mut b) = (group.join().unwrap(), group.join().unwrap());
    let first = a.try_next().unwrap();
    let mut all = drain(&mut b);
    is_empty(&mut b); // The other shard is not processed yet.
    all.extend(values(&first));
    first.checkpoint().unwrap();
    drop(first);
    all.extend(drain(&mut a));
    assert_eq!(sorted(all), (0..10).collect::<Vec<_>>());
    assert_eq!(a.try_next().unwrap_err(), NextError::Closed);
    assert_eq!(b.try_next().unwrap_err(), NextError::Closed);
}

#[test]
fn bad_settings_are_refused_by_name() {
    let (stream, _) = stream(small(1));
    let refused = |config: GroupConfig| match ConsumerGroup::new(&stream, config) {
        Err(GroupError::Config(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let long = Duration::from_secs(u64::MAX);
    for (config, name) in [
        (GroupConfig::new(""), "group.name"),
        (GroupConfig::new("no blanks"), "group.name"),
        (
            GroupConfig {
                lease_duration: Duration::ZERO,
                ..config()
            },
            "group.lease_duration",
        ),
        (
            GroupConfig {
                lease_duration: long,
                ..config()
            },
            "group.lease_duration",
        ),
        (
            GroupConfig {
                hand_off_timeout: long,
                ..config()
            },
            "group.hand_off_timeout",
        ),
        (
            GroupConfig {
                max_leases: 0,
                ..config()
            },
            "group.max_leases",
        ),
        (
            GroupConfig {
                max_steals: 0,
                ..config()
            },
            "group.max_steals",
        ),
        (
            GroupConfig {
                max_workers: 0,
                ..config()
            },
            "group.max_workers",
        ),
        (at_most(0), "group.read.max"),
        (at_most(usize::MAX), "group.read.max"),
    ] {
        let text = refused(config);
        assert!(text.starts_with(name), "{text}");
    }
    let bytes = GroupConfig {
        read: Read {
            max_bytes: 0,
            ..Read::default()
        },
        ..config()
    };
    assert!(matches!(
        ConsumerGroup::new(&stream, bytes).unwrap_err(),
        GroupError::Config(ConfigError::Count {
            field: "group.read.max_bytes",
            value: 0,
            ..
        })
    ));
}

#[cfg(feature = "serde")]
#[test]
fn settings_and_statistics_serialize() {
    let written = r#"{"name":"board","start":"Latest","max_steals":2,"read":{"max":5}}"#;
    let read: GroupConfig = serde_json::from_str(written).unwrap();
    let meant = GroupConfig {
        start: InitialPosition::Latest,
        max_steals: 2,
        ..at_most(5)
    };
    assert_eq!(
        read,
        GroupConfig {
            name: "board".to_owned(),
            ..meant
        }
    );
    let again = serde_json::from_str(&serde_json::to_string(&read).unwrap());
    assert_eq!(read, again.unwrap());
    assert!(serde_json::from_str::<GroupConfig>(r#"{"max_leasses":1}"#).is_err());

    let (stream, _, group) = group(1);
    put(&stream, 0);
    drain(&mut group.join().unwrap());
    let stats = group.stats();
    let again = serde_json::from_str(&serde_json::to_string(&stats).unwrap());
    assert_eq!(stats, again.unwrap());
}

#[test]
fn a_group_has_no_more_live_workers_than_it_may_have() {
    let (_stream, hand, group) = group_of(
        1,
        GroupConfig {
            max_workers: 2,
            ..config()
        },
    );
    let a = group.join().unwrap();
    let b = group.join().unwrap();
    assert_eq!(group.join().unwrap_err().limit, 2);
    a.shutdown();
    let c = group.join().unwrap();
    assert_eq!(group.workers(), [b.id(), c.id()]);
    drop(c);
    hand.advance(DURATION);
    assert!(group.join().is_ok());
}

#[test]
fn a_waiting_worker_gets_a_record_when_it_comes() {
    let (stream, _, group) = group(2);
    let mut worker = group.join().unwrap();
    let mut task = Task::waiting(worker.next());
    put(&stream, 7);
    assert!(task.is_woken());
    assert_eq!(values(&task.run().unwrap().unwrap()), [7]);
}

#[test]
fn a_waiting_worker_takes_over_when_a_lease_expires() {
    let (stream, hand, group) = group(1);
    put(&stream, 7);
    let mut a = group.join().unwrap();
    drop(a.try_next().unwrap());
    drop(a);
    hand.advance(secs(1));
    let mut b = group.join().unwrap();
    let mut task = Task::waiting(b.next());
    while hand.now() < Instant::ORIGIN + DURATION {
        assert!(task.run().is_none());
        hand.advance_to_next().unwrap();
    }
    assert_eq!(hand.now(), Instant::ORIGIN + DURATION);
    assert_eq!(values(&task.run().unwrap().unwrap()), [7]);
}

#[test]
fn a_waiting_worker_renews_its_leases() {
    let (_stream, hand, group) = group(1);
    let mut a = group.join().unwrap();
    let mut b = group.join().unwrap();
    let mut waits = Task::waiting(a.next());
    let mut other = Task::waiting(b.next());
    for _ in 0..120 {
        hand.advance(Duration::from_millis(500));
        assert!(waits.run().is_none());
        assert!(other.run().is_none());
    }
    let lease = &group.leases()[0];
    assert_eq!(lease.generation.number(), 1);
    assert!(lease.counter >= 18, "{}", lease.counter);
}

#[test]
fn a_waiting_worker_hands_over_what_a_newcomer_asks_for() {
    let (stream, _, group) = group(2);
    let mut a = group.join().unwrap();
    let mut waits = Task::waiting(a.next());
    let mut b = group.join().unwrap();
    let mut other = Task::waiting(b.next());
    for _ in 0..4 {
        assert!(waits.run().is_none());
        assert!(other.run().is_none());
    }
    let owners: Vec<_> = group.leases().iter().map(|lease| lease.owner).collect();
    assert!(owners[0].is_some() && owners[1].is_some() && owners[0] != owners[1]);
    spread(&stream, 0..10);
    assert!(waits.run().is_some() && other.run().is_some());
}

#[test]
fn a_waiting_worker_goes_on_when_a_batch_is_dropped() {
    let (stream, _, group) = group_of(1, at_most(1));
    put(&stream, 0);
    put(&stream, 1);
    let mut worker = group.join().unwrap();
    let batch = worker.try_next().unwrap();
    let mut task = Task::waiting(worker.next());
    drop(batch);
    assert_eq!(values(&task.run().unwrap().unwrap()), [1]);
}

#[test]
fn waiting_ends_at_the_deadline() {
    let (stream, hand, group) = group(1);
    let mut worker = group.join().unwrap();
    let deadline = hand.now() + secs(60);
    let mut task = Task::waiting(worker.next_until(deadline));
    while hand.now() < deadline {
        assert!(task.run().is_none());
        hand.advance_to_next().unwrap();
    }
    assert_eq!(task.run().unwrap().unwrap_err(), NextError::Elapsed);
    drop(task);
    assert_eq!(
        worker.next_blocking_until(hand.now()).unwrap_err(),
        NextError::Elapsed
    );
    put(&stream, 1);
    assert_eq!(
        values(&worker.next_blocking_until(hand.now()).unwrap()),
        [1]
    );
}

#[test]
fn a_future_that_is_dropped_loses_nothing() {
    let (stream, _, group) = group(1);
    let mut worker = group.join().unwrap();
    let mut task = Task::waiting(worker.next());
    put(&stream, 7);
    assert!(task.is_woken());
    assert!(
        task.poll()
            .is_some_and(|batch| values(&batch.unwrap()) == [7])
    );
    drop(task);
    let task = Task::waiting(worker.next());
    put(&stream, 8);
    drop(task); // woken and not polled
    assert_eq!(values(&worker.try_next().unwrap()), [8]);
}

#[test]
fn a_blocked_thread_takes_over_when_the_clock_moves() {
    let (stream, hand, group) = group(1);
    put(&stream, 7);
    let mut a = group.join().unwrap();
    drop(a.try_next().unwrap());
    drop(a);
    let mut b = group.join().unwrap();
    std::thread::scope(|scope| {
        let taken = scope.spawn(move || values(&b.next_blocking().unwrap()));
        while hand.now() < Instant::ORIGIN + DURATION {
            until_asleep(&hand, 1);
            hand.advance_to_next();
        }
        assert_eq!(taken.join().unwrap(), [7]);
    });
}

#[test]
fn the_batches_are_a_stream_that_ends_with_the_stream() {
    let (stream, _, group) = group(2);
    spread(&stream, 0..30);
    stream.close();
    let batches = group.join().unwrap().into_stream();
    let all: Vec<Vec<u32>> = block_on(
        batches
            .map(|batch| {
                let batch = batch.unwrap();
                batch.checkpoint().unwrap();
                values(&batch)
            })
            .collect(),
    );
    assert_eq!(sorted(all.concat()), (0..30).collect::<Vec<_>>());
}

#[test]
fn a_handler_gets_every_record_in_order() {
    let (stream, _, group) = group_of(3, at_most(4));
    spread(&stream, 0..50);
    stream.split_evenly(FIRST).unwrap();
    spread(&stream, 50..100);
    stream.close();
    let seen = Mutex::new(Vec::new());
    let seen = &*Box::leak(Box::new(seen));
    let mut worker = group.join().unwrap();
    let handler = move |batch: Batch<u32>| async move {
        seen.lock().unwrap().extend(values(&batch));
        Ok::<(), String>(())
    };
    block_on(worker.run(&handler)).unwrap();
    assert_eq!(
        sorted(seen.lock().unwrap().clone()),
        (0..100).collect::<Vec<_>>()
    );
    assert!(group.leases().iter().all(sim_stream::Lease::is_finished));
}

#[test]
fn a_handler_that_fails_gets_its_records_again() {
    let (stream, _, group) = group_of(1, at_most(2));
    fill(&stream, 0..6);
    stream.close();
    let seen = &*Box::leak(Box::new(Mutex::new(Vec::new())));
    let mut worker = group.join().unwrap();
    let handler = move |batch: Batch<u32>| async move {
        let mut seen = seen.lock().unwrap();
        let is_first = !seen.contains(&values(&batch));
        seen.push(values(&batch));
        if is_first && values(&batch) == [2, 3] {
            return Err("not yet");
        }
        Ok(())
    };
    let error = block_on(worker.run(&handler)).unwrap_err();
    assert!(matches!(
        error,
        RunError::Handler {
            shard_id: FIRST,
            error: "not yet"
        }
    ));
    block_on(worker.run(&handler)).unwrap();
    assert_eq!(*seen.lock().unwrap(), [[0, 1], [2, 3], [2, 3], [4, 5]]);
}

#[test]
fn a_run_renews_leases_while_a_handler_takes_long() {
    let (stream, hand, group) = group(1);
    put(&stream, 0);
    stream.close();
    let clock = stream.clock().clone();
    let clock = &*Box::leak(Box::new(clock));
    let mut a = group.join().unwrap();
    let handler = move |_: Batch<u32>| async move {
        clock.sleep_until(Instant::ORIGIN + secs(100)).await;
        Ok::<(), String>(())
    };
    let mut run = Task::waiting(a.run(&handler));
    let mut b = group.join().unwrap();
    while hand.now() < Instant::ORIGIN + secs(100) {
        assert!(run.run().is_none());
        is_empty(&mut b);
        hand.advance(secs(1));
    }
    run.run().unwrap().unwrap();
    assert_eq!(b.try_next().unwrap_err(), NextError::Closed);
    assert_eq!(group.stats().leases.taken_over, 0);
}

#[test]
fn a_run_that_is_dropped_gives_its_records_again() {
    let (stream, _, group) = group(1);
    put(&stream, 0);
    let mut worker = group.join().unwrap();
    let handler = |batch: Batch<u32>| async move {
        std::future::pending::<()>().await;
        drop(batch);
        Ok::<(), String>(())
    };
    drop(Task::waiting(worker.run(&handler)));
    assert_eq!(drain(&mut worker), [0]);
}

#[test]
fn the_depth_tells_what_is_given_and_what_waits() {
    let (stream, hand, group) = group_of(1, at_most(3));
    fill(&stream, 0..10);
    hand.advance(secs(5));
    let mut worker = group.join().unwrap();
    let read = || {
        let depth = group.depth();
        (depth.waiting, depth.in_flight, depth.oldest_age)
    };
    assert_eq!(read(), (10, 0, Some(secs(5))));
    let batch = worker.try_next().unwrap();
    assert_eq!(read(), (7, 3, Some(secs(5))));
    batch.checkpoint().unwrap();
    assert_eq!(read(), (7, 0, Some(secs(5))));
    drop(batch);
    drain(&mut worker);
    assert_eq!(read(), (0, 0, None));
}

#[test]
fn groups_on_one_stream_know_nothing_of_each_other() {
    let (stream, _, first) = group(2);
    let second = ConsumerGroup::new(&stream, GroupConfig::new("second")).unwrap();
    spread(&stream, 0..10);
    let (mut a, mut b) = (first.join().unwrap(), second.join().unwrap());
    assert_eq!(sorted(drain(&mut a)), sorted(drain(&mut b)));
}

#[test]
fn the_read_limits_of_the_aws_profile_slow_a_worker_down_and_lose_nothing() {
    let (stream, hand) = stream(StreamConfig::aws("s").shards(2));
    let group = ConsumerGroup::new(&stream, at_most(10)).unwrap();
    spread(&stream, 0..200);
    stream.close();
    let mut worker = group.join().unwrap();
    let mut all = Vec::new();
    let begin = hand.now();
    loop {
        let mut task = Task::new(worker.next());
        let mut outcome = task.poll();
        while outcome.is_none() {
            hand.advance_to_next().unwrap();
            outcome = task.run();
        }
        drop(task);
        match outcome.unwrap() {
            Ok(batch) => {
                all.extend(values(&batch));
                batch.checkpoint().unwrap();
            }
            Err(NextError::Closed) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(sorted(all), (0..200).collect::<Vec<_>>());
    // Twenty reads or more at five a second from each of two shards.
    let took = hand.now() - begin;
    assert!(took >= secs(1) && took < secs(10), "{took:?}");
}

/// Another worker goes on behind the part that was checkpointed.
#[cfg(feature = "kpl")]
#[test]
fn an_aggregated_record_is_resumed_behind_the_part_that_was_checkpointed() {
    use sim_stream::Record;
    use sim_stream::kpl::{Aggregator, AggregatorConfig, UserPut, deaggregate};

    let (stream, hand) = crate::rig::stream_of::<()>(StreamConfig::new("s"));
    let mut aggregator = Aggregator::new(AggregatorConfig::default()).unwrap();
    for number in 0..5_u8 {
        let put = UserPut::new(crate::rig::key("k"), vec![number]);
        assert!(aggregator.add(put).unwrap().is_none());
    }
    let packed = aggregator.finish().unwrap();
    let key = packed.partition_key.clone();
    stream
        .try_put(Record::bytes(key, packed.data.clone()))
        .unwrap();

    let group = ConsumerGroup::new(&stream, config()).unwrap();
    let work = |most: usize| {
        let mut worker = group.join().unwrap();
        let batch = worker.try_next().unwrap();
        let mut seen = Vec::new();
        for (index, record) in batch.records().iter().enumerate() {
            let done = batch.resumed_within().filter(|_| index == 0);
            let bytes = batch.records().to_owned_at(index).unwrap().bytes();
            for part in deaggregate(None, bytes).unwrap().take(most) {
                if done.is_some_and(|done| part.sub_sequence <= done) {
                    continue;
                }
                seen.push(part.data[0]);
                batch
                    .checkpoint_part(record.sequence_number(), part.sub_sequence)
                    .unwrap();
            }
        }
        // It crashes.
        drop((batch, worker));
        hand.advance(DURATION);
        seen
    };
    assert_eq!(work(3), [0, 1, 2]);
    assert_eq!(work(usize::MAX), [3, 4]);
    assert_eq!(work(usize::MAX), [0_u8; 0]);
}

#[test]
fn handles_may_be_sent_and_shared() {
    fn both<T: Send + Sync>() {}
    both::<ConsumerGroup<u32>>();
    both::<Worker<u32>>();
    both::<Batch<u32>>();
    both::<sim_stream::Checkpointer<u32>>();
    both::<sim_stream::Subscription<u32>>();
    let _ = ShardId::new(0);
}
