//! Puts: where a record goes, what comes back, what is refused.

use std::sync::Arc;

use sim_core::payload::Payload;
use sim_stream::{
    BatchRefusal, ByteStream, HashKey, KeyHash, Limits, PartitionKey, Read, Record,
    RecordDistribution, RecordSizeError, Refusal, ShardId, Stream, StreamConfig,
    WrongSequenceNumber,
};

use crate::rig::{FIRST, all_of, key, of, oldest, put, small, stream, stream_of};

#[test]
fn records_come_out_in_the_order_in_which_they_were_put() {
    let (stream, _) = stream(small(1));
    for value in 0..1_000 {
        put(&stream, value);
    }
    assert_eq!(all_of(&stream, FIRST), (0..1_000).collect::<Vec<_>>());
}

#[test]
fn sequence_numbers_of_a_shard_grow_strictly() {
    let (stream, _) = stream(small(1));
    let numbers: Vec<_> = (0..500).map(|n| put(&stream, n).sequence_number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b));
    let mut cursor = oldest(&stream, FIRST);
    let first = cursor.try_read(Read::at_most(1)).unwrap();
    assert_eq!(first.get(0).unwrap().sequence_number(), numbers[0]);
}

#[test]
fn a_key_goes_to_the_shard_of_its_md5() {
    let (stream, _) = stream(small(4));
    for n in 0..200 {
        let key = key(n.to_string());
        let placed = stream.try_put(Record::new(key.clone(), n)).unwrap();
        let quarter = HashKey::of(key.as_str()).as_u128() >> 126;
        assert_eq!(placed.shard_id, ShardId::new(quarter as u32), "{key}");
    }
}

#[test]
fn the_fast_hash_keeps_a_key_in_one_shard_and_uses_all_shards() {
    let config = StreamConfig {
        hash: KeyHash::Fast,
        ..small(8)
    };
    let (stream, _) = stream(config);
    let mut seen = [0; 8];
    for n in 0..800 {
        let name = (n % 100).to_string();
        let placed = stream.try_put(of(&name, n)).unwrap();
        let again = stream.try_put(of(&name, n)).unwrap();
        assert_eq!(placed.shard_id, again.shard_id);
        seen[placed.shard_id.number() as usize] += 1;
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

#[test]
fn an_explicit_hash_key_goes_before_the_partition_key() {
    let (stream, _) = stream(small(2));
    for (hash, shard) in [(HashKey::MIN, 0), (HashKey::MAX, 1)] {
        for name in ["a", "b", "c", "d"] {
            let placed = stream.try_put(of(name, 1).explicit_hash_key(hash)).unwrap();
            assert_eq!(placed.shard_id, ShardId::new(shard));
        }
    }
}

#[test]
fn a_stream_that_distributes_by_itself_spreads_evenly_and_needs_no_key() {
    let config = StreamConfig {
        distribution: RecordDistribution::Auto,
        ..small(3)
    };
    let (stream, _) = stream(config);
    for value in 0..30 {
        stream.try_put(Record::keyless(value)).unwrap();
        stream.try_put(of("same", value)).unwrap();
    }
    for shard in 0..3 {
        assert_eq!(all_of(&stream, ShardId::new(shard)).len(), 20);
    }
}

#[test]
fn a_record_without_a_key_comes_back_where_keys_route() {
    let (stream, _) = stream(small(1));
    let error = stream.try_put(Record::keyless(7)).unwrap_err();
    assert_eq!(
        (&error.reason, error.record.value),
        (&Refusal::MissingKey, 7)
    );
    assert_eq!(stream.stats().records, 0);
}

#[test]
fn value_key_and_bytes_are_read_as_they_were_put() {
    let (stream, _) = stream_of::<u64>(small(1));
    let name = "clé-\u{1f511}";
    let record = Record::new(key(name), 7).data("body");
    let placed = stream.try_put(record).unwrap();
    let records = oldest(&stream, FIRST).try_read(Read::default()).unwrap();
    let read = records.get(0).unwrap();
    assert_eq!(
        (*read.value(), read.partition_key(), read.data()),
        (7, name, &b"body"[..])
    );
    assert_eq!(read.sequence_number(), placed.sequence_number);
    let owned = records.into_iter().next().unwrap();
    assert_eq!(
        (*owned.value(), owned.partition_key(), owned.data()),
        (7, name, &b"body"[..])
    );
    assert_eq!(owned.bytes(), &b"body"[..]);
    assert_eq!(
        owned.bytes().as_ptr(),
        owned.data().as_ptr(),
        "shared with the log, not copied"
    );
}

#[test]
fn a_value_is_moved_in_and_dropped_once() {
    let (stream, _) = stream_of::<Arc<u32>>(small(1));
    let value = Arc::new(7);
    stream
        .try_put(Record::new(key("k"), Arc::clone(&value)))
        .unwrap();
    assert_eq!(Arc::strong_count(&value), 2);
    let records = oldest(&stream, FIRST).try_read(Read::default()).unwrap();
    drop(stream);
    assert_eq!(Arc::strong_count(&value), 2, "the run of records pins it");
    drop(records);
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn borrowed_bytes_are_put_without_an_owner() {
    let (stream, _) = stream_of::<()>(small(1));
    let stream: ByteStream = stream;
    {
        let text = String::from("a line");
        stream.try_put_bytes(&key("host"), text.as_bytes()).unwrap();
    }
    stream
        .try_put(Record::bytes(key("host"), "another"))
        .unwrap();
    let records = oldest(&stream, FIRST).try_read(Read::default()).unwrap();
    let lines: Vec<_> = records.iter().map(|record| record.data()).collect();
    assert_eq!(lines, [&b"a line"[..], b"another"]);
}

#[test]
fn a_record_of_the_largest_size_is_taken_and_one_byte_more_is_not() {
    let config = StreamConfig {
        max_record_bytes: 100,
        ..small(1)
    };
    let (stream, _) = stream_of::<()>(config);
    let put = |bytes: usize| stream.try_put(Record::bytes(key("key"), vec![7; bytes]));
    assert!(put(97).is_ok());
    let error = put(98).unwrap_err();
    assert_eq!(
        error.reason,
        Refusal::TooLarge {
            bytes: 101,
            limit: 100
        }
    );
    assert_eq!(error.record.data.size(), 98);
    assert_eq!(
        stream.try_put_bytes(&key("key"), &[0; 98]),
        Err(error.reason.clone())
    );
    assert_eq!(
        error.to_string(),
        "max_record_bytes: the record has 101 bytes, more than 100"
    );
    stream.set_max_record_bytes(101).unwrap();
    assert!(put(98).is_ok());
}

#[test]
fn the_size_of_a_value_counts_where_the_stream_can_tell_it() {
    let config = StreamConfig {
        max_record_bytes: 10,
        ..small(1)
    };
    let stream = Stream::<String>::builder(config)
        .size(|text| text.len())
        .build()
        .unwrap();
    let put = |text: &str| stream.try_put(Record::new(key("k"), text.to_owned()));
    assert!(put("123456789").is_ok());
    assert_eq!(
        put("1234567890").unwrap_err().reason,
        Refusal::TooLarge {
            bytes: 11,
            limit: 10
        }
    );
}

#[test]
fn a_large_record_stands_in_one_piece() {
    let (stream, _) = stream_of::<()>(small(1));
    let large = Payload::from((0..3_000_000).map(|n| n as u8).collect::<Vec<_>>());
    stream
        .try_put(Record::bytes(key("k"), large.clone()))
        .unwrap();
    stream.try_put(Record::bytes(key("k"), "small")).unwrap();
    let mut cursor = oldest(&stream, FIRST);
    let records = cursor.try_read(Read::default()).unwrap();
    assert_eq!(records.get(0).unwrap().data(), &*large);
}

#[test]
fn a_record_asks_for_a_number_above_one_that_the_stream_gave() {
    let (stream, _) = stream(small(2));
    let placed = put(&stream, 1);
    let next = stream
        .try_put(of("k", 2).after(placed.sequence_number))
        .unwrap();
    assert!(next.sequence_number > placed.sequence_number);

    let (other, _) = stream_of::<u32>(StreamConfig::new("other"));
    let foreign = put(&other, 1).sequence_number;
    assert_eq!(
        stream
            .try_put(of("k", 3).after(foreign))
            .unwrap_err()
            .reason,
        Refusal::After(WrongSequenceNumber::OtherStream {
            sequence_number: foreign
        })
    );
    let ahead = sim_stream::SequenceNumber::new(placed.shard_id, stream.salt(), 1_000);
    assert_eq!(
        stream.try_put(of("k", 3).after(ahead)).unwrap_err().reason,
        Refusal::After(WrongSequenceNumber::Ahead {
            sequence_number: ahead
        })
    );
    assert_eq!(stream.stats().records, 2);
}

#[test]
fn a_batch_reports_on_each_record_and_a_bad_one_holds_up_no_other() {
    let config = StreamConfig {
        max_record_bytes: 10,
        ..small(2)
    };
    let (stream, _) = stream_of::<u32>(config);
    let results = stream
        .try_put_batch([
            of("a", 1),
            of("b", 2).data(vec![0; 100]),
            Record::keyless(3),
            of("a", 4),
        ])
        .unwrap();
    let (first, last) = (results[0].as_ref().unwrap(), results[3].as_ref().unwrap());
    assert!(first.sequence_number < last.sequence_number);
    let reasons: Vec<_> = results[1..3]
        .iter()
        .map(|result| result.as_ref().unwrap_err())
        .map(|error| (error.record.value, error.reason.clone()))
        .collect();
    assert_eq!(
        reasons,
        [
            (
                2,
                Refusal::TooLarge {
                    bytes: 101,
                    limit: 10
                }
            ),
            (3, Refusal::MissingKey)
        ]
    );
    let stats = stream.stats();
    assert_eq!(
        (stats.records, stats.batch.calls, stats.batch.successes),
        (2, 1, 1)
    );
    assert_eq!(
        (
            stats.batch.records,
            stats.batch.successful_records,
            stats.batch.failed_records
        ),
        (4, 2, 2)
    );
    assert_eq!((stats.put.calls, stats.put.bytes), (0, 0));
}

#[test]
fn a_batch_that_is_empty_too_long_or_too_large_comes_back_whole() {
    let config = StreamConfig {
        limits: Limits {
            batch_records: 3,
            batch_bytes: 20,
            ..Limits::default()
        },
        ..small(1)
    };
    let (stream, _) = stream(config);
    let refuse = |records: Vec<Record<u32>>, reason: BatchRefusal| {
        let count = records.len();
        let error = stream.try_put_batch(records).unwrap_err();
        assert_eq!((error.records.len(), error.reason), (count, reason));
    };
    let limit = 3;
    refuse(vec![], BatchRefusal::Records { records: 0, limit });
    let four = (0..4).map(|n| of("k", n)).collect();
    refuse(four, BatchRefusal::Records { records: 4, limit });
    let large = vec![of("k", 1).data(vec![0; 10]), of("k", 2).data(vec![0; 9])];
    refuse(
        large,
        BatchRefusal::Bytes {
            bytes: 21,
            limit: 20,
        },
    );
    assert_eq!(stream.stats().records, 0);
    stream.close();
    refuse(vec![of("k", 1)], BatchRefusal::Closed);
}

#[test]
fn a_pair_is_a_record() {
    let (stream, _) = stream(small(1));
    let key: PartitionKey = key("k");
    stream.try_put((key, 7)).unwrap();
    assert_eq!(all_of(&stream, FIRST), [7]);
}

#[test]
fn a_largest_record_out_of_its_range_is_refused() {
    let (stream, _) = stream(StreamConfig::aws("s"));
    let (min, max) = (1 << 20, 10 << 20);
    for value in [min - 1, max + 1] {
        assert_eq!(
            stream.set_max_record_bytes(value),
            Err(RecordSizeError::Range { value, min, max })
        );
    }
    assert_eq!(stream.max_record_bytes(), min);
    stream.set_max_record_bytes(max).unwrap();
    stream.close();
    assert_eq!(
        stream.set_max_record_bytes(min),
        Err(RecordSizeError::Closed)
    );
}
