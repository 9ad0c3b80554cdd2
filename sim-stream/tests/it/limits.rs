//! The throughput limits of the AWS profile: each refusal says which limit, and when it is over.

use sim_core::time::Instant;
use sim_stream::{
    ByteStream, PutError, Read, ReadError, Record, Refusal, Resource, ShardId, StreamConfig,
};

use crate::rig::{FIRST, Task, key, of, oldest, secs, stream, stream_of};

const MIB: usize = 1 << 20;

fn throttled(reason: &Refusal) -> (ShardId, Resource, Instant) {
    match reason {
        Refusal::Throttled {
            shard_id,
            resource,
            retry_at,
        } => (*shard_id, *resource, *retry_at),
        other => panic!("{other}"),
    }
}

fn put_bytes(stream: &ByteStream, bytes: usize) -> Result<(), PutError<()>> {
    let record = Record::bytes(key("k"), vec![7; bytes - 1]);
    stream.try_put(record).map(drop)
}

#[test]
fn a_shard_takes_a_thousand_records_a_second() {
    let (stream, hand) = stream(StreamConfig::aws("s"));
    for n in 0..1_000 {
        stream.try_put(of("k", n)).unwrap();
    }
    let error = stream.try_put(of("k", 1_000)).unwrap_err();
    let (shard, resource, retry_at) = throttled(&error.reason);
    assert_eq!((shard, resource), (FIRST, Resource::WriteRecords));
    assert!(error.is_throttled() && error.reason.is_temporary());
    assert_eq!(error.record.value, 1_000);
    hand.advance_to(retry_at);
    stream.try_put(*error.record).unwrap();
    let stats = stream.stats();
    assert_eq!((stats.write_throttled, stats.incoming_records), (1, 1_001));
}

#[test]
fn a_shard_takes_one_mebibyte_a_second() {
    let (stream, hand) = stream_of::<()>(StreamConfig::aws("s"));
    put_bytes(&stream, MIB).unwrap();
    let error = put_bytes(&stream, MIB / 2).unwrap_err();
    let (_, resource, retry_at) = throttled(&error.reason);
    assert_eq!(resource, Resource::WriteBytes);
    assert_eq!(
        error.to_string(),
        "shardId-000000000000: bytes written a second are used up"
    );
    hand.advance_to(retry_at);
    put_bytes(&stream, MIB / 2).unwrap();
}

#[test]
fn a_put_waits_until_its_shard_takes_it() {
    let (stream, hand) = stream_of::<()>(StreamConfig::aws("s"));
    put_bytes(&stream, MIB).unwrap();
    let record = || Record::bytes(key("k"), vec![7; MIB / 2 - 1]);
    let deadline = hand.now() + secs(1);
    let mut task = Task::waiting(stream.put(record()));
    hand.advance(secs(1) / 4);
    assert!(task.run().is_none());
    hand.advance(secs(1) / 4);
    assert!(task.run().unwrap().is_ok());

    put_bytes(&stream, 1).unwrap_err();
    let whole = Record::bytes(key("k"), vec![7; MIB - 1]);
    let mut late = Task::waiting(stream.put_until(whole, deadline));
    hand.advance(secs(1) / 2);
    assert_eq!(late.run().unwrap().unwrap_err().reason, Refusal::Elapsed);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| stream.put_blocking(Record::bytes(key("k"), vec![7; MIB - 1])));
        crate::rig::until_asleep(&hand, 1);
        hand.advance(secs(1));
        assert!(writer.join().expect("no panic").is_ok());
    });
}

#[test]
fn the_shards_have_limits_of_their_own() {
    let (stream, _) = stream(StreamConfig::aws("s").shards(2));
    let mut taken = 0;
    for n in 0..4_000 {
        taken += u32::from(stream.try_put(of(n.to_string(), n)).is_ok());
    }
    assert_eq!(taken, 2_000);
}

#[test]
fn a_shard_gives_five_reads_a_second() {
    let (stream, hand) = stream(StreamConfig::aws("s"));
    stream.try_put(of("k", 1)).unwrap();
    let mut cursor = oldest(&stream, FIRST);
    for _ in 0..5 {
        cursor.try_read(Read::default()).unwrap();
    }
    let error = cursor.try_read(Read::default()).unwrap_err();
    let ReadError::Throttled {
        resource, retry_at, ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(resource, Resource::Reads);
    assert_eq!(stream.stats().read_throttled, 1);
    // One that waits, waits for that too; and uses nothing up while there is nothing.
    stream.try_put(of("k", 2)).unwrap();
    let mut task = Task::waiting(cursor.read(Read::default()));
    hand.advance_to(retry_at);
    assert_eq!(task.run().unwrap().unwrap().len(), 1);
}

#[test]
fn a_throttled_read_that_waits_skips_nothing() {
    let (stream, hand) = stream(StreamConfig::aws("s"));
    let mut cursor = oldest(&stream, FIRST);
    for _ in 0..5 {
        cursor.try_read(Read::default()).unwrap();
    }
    for value in 0..10 {
        stream.try_put(of("k", value)).unwrap();
    }
    let mut task = Task::waiting(cursor.read(Read::default()));
    assert!(task.run().is_none());
    hand.advance(secs(1));
    let records = task.run().unwrap().unwrap();
    assert_eq!(crate::rig::values(&records), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_shard_gives_two_mebibytes_a_second() {
    let mut config = StreamConfig::aws("s");
    config.max_record_bytes = 10 * MIB;
    let (stream, hand) = stream_of::<()>(config);
    put_bytes(&stream, 10 * MIB).unwrap();
    let mut cursor = oldest(&stream, FIRST);
    assert_eq!(cursor.try_read(Read::default()).unwrap().len(), 1);
    let error = cursor.try_read(Read::default()).unwrap_err();
    let ReadError::Throttled {
        resource, retry_at, ..
    } = error
    else {
        panic!("{error}")
    };
    // After an answer of 10 MiB the shard rests for five seconds.
    assert_eq!(
        (resource, retry_at),
        (Resource::ReadBytes, hand.now() + secs(5))
    );
    hand.advance(secs(5));
    assert!(cursor.try_read(Read::default()).is_ok());
}

#[test]
fn a_batch_reports_which_of_its_records_were_throttled() {
    let (stream, _) = stream(StreamConfig::aws("s"));
    for part in 0..2 {
        let results = stream
            .try_put_batch((0..500).map(|n| of("k", part * 500 + n)))
            .unwrap();
        assert!(results.iter().all(Result::is_ok));
    }
    let results = stream
        .try_put_batch([of("k", 1_000), of("k", 1_001)])
        .unwrap();
    assert!(
        results
            .iter()
            .all(|r| r.as_ref().is_err_and(PutError::is_throttled))
    );
    let stats = stream.stats().batch;
    assert_eq!(
        (
            stats.calls,
            stats.successes,
            stats.throttled_records,
            stats.failed_records
        ),
        (3, 2, 2, 0)
    );
    let too_long = stream.try_put_batch((0..501).map(|n| of("k", n)));
    assert_eq!(too_long.unwrap_err().records.len(), 501);
}

#[test]
fn nothing_is_throttled_in_process() {
    let (stream, _) = stream(StreamConfig::new("s"));
    for n in 0..5_000 {
        stream.try_put(of("k", n)).unwrap();
    }
    let mut cursor = oldest(&stream, FIRST);
    for _ in 0..100 {
        cursor.try_read(Read::default()).unwrap();
    }
}
