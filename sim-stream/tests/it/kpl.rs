//! KPL aggregation: against a foreign implementation, there and back, and with bytes that mean harm.
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use bytes::Bytes;
use md5::{Digest, Md5};
use proptest::prelude::*;
use serde_json::Value;
use sim_stream::kpl::{
    AddReason, Aggregated, Aggregator, AggregatorConfig, DeaggregateError, KeyFault, MAGIC,
    MAX_BYTES, MAX_TAGS, Outside, Tag, UserPut, UserRecord, deaggregate, is_aggregated,
};
use sim_stream::{HashKey, HashRange, PartitionKey};

/// Records packed by aws-kinesis-agg; the file names its version.
const VECTORS: &str = include_str!("data/kpl_vectors.json");

fn key(text: &str) -> PartitionKey {
    PartitionKey::new(text).unwrap()
}

fn put(text: &str, data: impl Into<Bytes>) -> UserPut {
    UserPut::new(key(text), data)
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

struct Case {
    name: String,
    partition_key: String,
    explicit_hash_key: Option<HashKey>,
    packed: Vec<u8>,
    puts: Vec<UserPut>,
}

fn cases() -> Vec<Case> {
    let file: Value = serde_json::from_str(VECTORS).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let hash = |value: &Value| value.as_str().map(|text| text.parse::<HashKey>().unwrap());
    file["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| Case {
            name: text(&case["name"]),
            partition_key: text(&case["partition_key"]),
            explicit_hash_key: hash(&case["explicit_hash_key"]),
            packed: hex(&text(&case["hex"])),
            puts: case["records"]
                .as_array()
                .unwrap()
                .iter()
                .map(|record| UserPut {
                    partition_key: key(record["partition_key"].as_str().unwrap()),
                    explicit_hash_key: hash(&record["explicit_hash_key"]),
                    data: hex(&text(&record["data"])).into(),
                    tags: Vec::new(),
                })
                .collect(),
        })
        .collect()
}

fn as_put(record: UserRecord) -> UserPut {
    UserPut {
        partition_key: record.partition_key.unwrap(),
        explicit_hash_key: record.explicit_hash_key,
        data: record.data,
        tags: record.tags,
    }
}

fn pack(puts: &[UserPut]) -> Aggregated {
    let config = AggregatorConfig {
        max_bytes: MAX_BYTES,
        ..Default::default()
    };
    let mut aggregator = Aggregator::new(config).unwrap();
    for put in puts {
        assert_eq!(aggregator.add(put.clone()).unwrap(), None);
    }
    aggregator.finish().unwrap()
}

/// Magic and MD5 around any message.
fn framed(message: &[u8]) -> Bytes {
    let mut data = MAGIC.to_vec();
    data.extend(message);
    data.extend(Md5::digest(message));
    data.into()
}

// ---- the format ------------------------------------------------------------------------------------------

#[test]
fn what_the_python_package_packed_is_unpacked() {
    let cases = cases();
    assert_eq!(cases.len(), 5);
    for case in cases {
        let records = deaggregate(None, case.packed.into()).unwrap();
        assert!(records.is_aggregated(), "{}", case.name);
        assert_eq!(records.len(), case.puts.len(), "{}", case.name);
        for (index, (record, put)) in records.zip(case.puts).enumerate() {
            assert_eq!(record.sub_sequence, index as u64, "{}", case.name);
            assert_eq!(as_put(record), put, "{}: {index}", case.name);
        }
    }
}

#[test]
fn the_same_records_are_packed_to_the_bytes_of_the_python_package() {
    for case in cases().into_iter().filter(|case| case.puts.len() > 1) {
        let packed = pack(&case.puts);
        assert_eq!(packed.data, case.packed, "{}", case.name);
        assert_eq!(packed.partition_key.as_str(), case.partition_key);
        assert_eq!(packed.explicit_hash_key, case.explicit_hash_key);
        assert_eq!(packed.records, case.puts.len());
    }
}

#[test]
fn unpacked_data_are_slices_of_the_packed_record() {
    let packed = pack(&[put("a", &b"first"[..]), put("b", vec![7; 4000])]);
    let whole = packed.data.as_ptr_range();
    for record in deaggregate(None, packed.data.clone()).unwrap() {
        let part = record.data.as_ptr_range();
        assert!(whole.start < part.start && part.end < whole.end);
    }
}

#[test]
fn a_user_record_has_no_more_tags_than_it_may_have() {
    let tagged = |tags| {
        let mut record = put("k", &b""[..]);
        record.tags = vec![
            Tag {
                key: String::new(),
                value: None,
            };
            tags
        ];
        record
    };
    let mut aggregator = Aggregator::new(AggregatorConfig::default()).unwrap();
    let reason = AddReason::Tags {
        tags: MAX_TAGS + 1,
        limit: MAX_TAGS,
    };
    let error = aggregator.add(tagged(MAX_TAGS + 1)).unwrap_err();
    assert_eq!(error.reason, reason);
    assert!(aggregator.is_empty());
    aggregator.add(tagged(MAX_TAGS)).unwrap();
    let packed = aggregator.finish().unwrap().data;
    assert_eq!(unpack(&packed).next().unwrap().tags.len(), MAX_TAGS);

    // A record by hand: index 0, no data, and tags with an empty key.
    let mut record = vec![0x08, 0x00, 0x1A, 0x00];
    record.extend([0x22, 0x02, 0x0A, 0x00].repeat(MAX_TAGS + 1));
    let mut message = vec![0x0A, 0x01, b'k', 0x1A];
    message.extend([
        (record.len() as u8 & 0x7F) | 0x80,
        (record.len() >> 7) as u8,
    ]);
    message.extend(&record);
    let mut data = MAGIC.to_vec();
    data.extend(&message);
    data.extend(Md5::digest(&message));
    assert_eq!(
        deaggregate(None, data.into()).unwrap_err(),
        DeaggregateError::Tags {
            record: 0,
            tags: MAX_TAGS + 1,
            limit: MAX_TAGS
        }
    );
}

fn unpack(packed: &Bytes) -> impl Iterator<Item = UserRecord> {
    deaggregate(None, packed.clone()).unwrap()
}

#[test]
fn tags_travel() {
    let mut tagged = put("a", &b"data"[..]);
    tagged.tags = vec![
        Tag {
            key: "trace".into(),
            value: Some("17".into()),
        },
        Tag {
            key: "bare".into(),
            value: None,
        },
    ];
    // Alone, too: tags have no place in a plain record.
    let packed = pack(std::slice::from_ref(&tagged));
    let unpacked: Vec<_> = deaggregate(None, packed.data).unwrap().collect();
    assert_eq!(unpacked.len(), 1);
    assert_eq!(as_put(unpacked[0].clone()), tagged);
}

// ---- plain records ---------------------------------------------------------------------------------------

#[test]
fn a_plain_record_comes_out_as_itself() {
    let packed = pack(&[put("a", &b"x"[..]), put("b", &b"y"[..])]).data;
    let mut wrong_sum = packed.to_vec();
    *wrong_sum.last_mut().unwrap() ^= 1;
    let mut wrong_magic = packed.to_vec();
    wrong_magic[0] ^= 1;
    let empty_message = framed(b"").to_vec();
    let too_short = MAGIC.to_vec();
    let truncated = packed[..packed.len() - 1].to_vec();
    for data in [
        vec![],
        b"plain".to_vec(),
        wrong_sum,
        wrong_magic,
        empty_message,
        too_short,
        truncated,
    ] {
        let data = Bytes::from(data);
        assert!(!is_aggregated(&data));
        let records = deaggregate(Some(key("own")), data.clone()).unwrap();
        assert!(!records.is_aggregated());
        let records: Vec<_> = records.collect();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].sub_sequence, 0);
        assert_eq!(records[0].partition_key, Some(key("own")));
        assert_eq!(records[0].data, data);
    }
}

#[test]
fn a_lone_record_is_packed_as_itself_unless_it_looks_like_an_aggregated_one() {
    let lone = pack(&[put("a", &b"x"[..])]);
    assert_eq!(&lone.data[..], b"x");

    let inner = pack(&[put("a", &b"x"[..]), put("b", &b"y"[..])]).data;
    let outer = pack(&[put("c", inner.clone())]);
    let unpacked: Vec<_> = deaggregate(None, outer.data).unwrap().collect();
    assert_eq!(unpacked.len(), 1);
    assert_eq!(unpacked[0].data, inner);
}

// ---- packing ---------------------------------------------------------------------------------------------

#[test]
fn an_aggregator_never_passes_its_bytes_and_fills_them() {
    let config = AggregatorConfig {
        max_bytes: 1_000,
        ..Default::default()
    };
    let mut aggregator = Aggregator::new(config).unwrap();
    let mut full = Vec::new();
    for index in 0..200 {
        let before = aggregator.bytes();
        if let Some(packed) = aggregator
            .add(put(&format!("key-{index}"), vec![7; 40]))
            .unwrap()
        {
            assert_eq!(packed.data.len(), before);
            full.push(packed);
        }
    }
    assert!(full.len() > 10);
    for packed in &full {
        assert!(packed.data.len() <= 1_000, "{}", packed.data.len());
        // Another would not have fitted.
        assert!(packed.data.len() + 60 > 1_000, "{}", packed.data.len());
    }
    let packed: usize = full.iter().map(|packed| packed.records).sum();
    assert_eq!(packed + aggregator.len(), 200);
}

#[test]
fn an_aggregator_never_passes_its_count() {
    let config = AggregatorConfig {
        max_records: 3,
        ..Default::default()
    };
    let mut aggregator = Aggregator::new(config).unwrap();
    for index in 0..7_u8 {
        let full = aggregator.add(put("key", vec![index])).unwrap();
        assert_eq!(
            full.map(|full| full.records),
            (index > 0 && index % 3 == 0).then_some(3)
        );
    }
    assert_eq!(aggregator.finish().unwrap().records, 1);
    assert_eq!(aggregator.finish(), None);
}

#[test]
fn a_record_that_does_not_fit_even_alone_comes_back_and_changes_nothing() {
    let config = AggregatorConfig {
        max_bytes: 100,
        ..Default::default()
    };
    let mut aggregator = Aggregator::new(config).unwrap();
    aggregator.add(put("key", &b"small"[..])).unwrap();
    let bytes = aggregator.bytes();
    let large = put("key", vec![0; 100]);
    let error = aggregator.add(large.clone()).unwrap_err();
    assert_eq!(*error.record, large);
    // Frame 20, key entry 5, record 2 + index 2 + data 2 + 100.
    assert_eq!(
        error.to_string(),
        "data: alone it takes 131 bytes, more than 100"
    );
    assert_eq!((aggregator.len(), aggregator.bytes()), (1, bytes));
}

#[test]
fn an_aggregator_of_a_shard_refuses_what_belongs_to_another() {
    let config = AggregatorConfig {
        range: HashRange {
            start: HashKey::MIN,
            end: HashKey::from_u128(99),
        },
        ..Default::default()
    };
    let mut aggregator = Aggregator::new(config).unwrap();
    let near = put("k", &b""[..]).explicit_hash_key(HashKey::from_u128(99));
    let far = put("k", &b""[..]).explicit_hash_key(HashKey::from_u128(100));
    assert_eq!(aggregator.add(near), Ok(None));
    let reason = aggregator.add(far).unwrap_err().reason;
    assert!(matches!(reason, AddReason::Outside { hash_key, .. } if hash_key.as_u128() == 100));
}

#[test]
fn a_configuration_out_of_range_is_refused_by_name() {
    let config = AggregatorConfig {
        max_bytes: MAX_BYTES + 1,
        ..Default::default()
    };
    let error = Aggregator::new(config).unwrap_err();
    assert_eq!(
        error.to_string(),
        "max_bytes: 10485761 must lie between 21 and 10485760"
    );
    let config = AggregatorConfig {
        max_records: 0,
        ..Default::default()
    };
    assert_eq!(Aggregator::new(config).unwrap_err().field, "max_records");
}

// ---- malformed -------------------------------------------------------------------------------------------

#[test]
fn what_is_malformed_inside_is_an_error_that_names_the_place() {
    let error = |message: &[u8]| deaggregate(None, framed(message)).unwrap_err().to_string();
    // Record 0 points to partition key 5 of a table of one.
    assert_eq!(
        error(b"\x0a\x01k\x1a\x04\x08\x05\x1a\x00"),
        "records[0].partition_key_index: 5 is beyond the table's 1 entries"
    );
    assert_eq!(
        error(b"\x0a\x01k\x1a\x06\x08\x00\x10\x00\x1a\x00"),
        "records[0].explicit_hash_key_index: 0 is beyond the table's 0 entries"
    );
    // An index of 2^64 - 1.
    assert_eq!(
        error(b"\x0a\x01k\x1a\x0d\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x1a\x00"),
        "records[0].partition_key_index: 18446744073709551615 is beyond the table's 1 entries"
    );
    assert_eq!(
        error(b"\x0a\x01k\x1a\x02\x1a\x00"),
        "records[0].partition_key_index: missing"
    );
    assert_eq!(
        error(b"\x0a\x01k\x1a\x02\x08\x00"),
        "records[0].data: missing"
    );
    assert_eq!(
        error(b"\x0a\x01k\x1a\x04\x08\x00\x1a\x00\x1a\x02\x08\x00"),
        "records[1].data: missing"
    );
    assert_eq!(
        error(b"\x0a\x7fk"),
        "protobuf: field 1 has 127 bytes, 1 are left"
    );
    assert!(error(b"\x0a\x01k\x1a\x04\x08\x00\x1a\x09").starts_with("records[0]: "));
    assert_eq!(error(b"\x0a\x01\xff"), "partition_key_table[0]: not UTF-8");
    assert!(error(b"\x0a\x00").starts_with("partition_key_table[0]: "));
    assert!(error(b"\x12\x01x").starts_with("explicit_hash_key_table[0]: "));
    // 2^128 is one too many.
    let mut beyond = b"\x12\x27".to_vec();
    beyond.extend(b"340282366920938463463374607431768211456");
    assert!(matches!(
        deaggregate(None, framed(&beyond)).unwrap_err(),
        DeaggregateError::ExplicitHashKey {
            index: 0,
            reason: KeyFault::HashKey(_)
        }
    ));
}

#[test]
fn tables_may_stand_behind_the_records_and_unknown_fields_are_skipped() {
    // Field 9 (varint), the record, then its key, then field 10 (bytes).
    let records = deaggregate(
        None,
        framed(b"\x48\x01\x1a\x05\x08\x00\x1a\x01d\x0a\x01k\x52\x02zz"),
    );
    let records: Vec<_> = records.unwrap().collect();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].partition_key, Some(key("k")));
    assert_eq!(&records[0].data[..], b"d");
}

#[test]
fn a_record_longer_than_any_in_kinesis_is_refused() {
    let error = deaggregate(None, vec![0; MAX_BYTES + 1].into()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "data: 10485761 bytes are more than 10485760"
    );
}

// ---- resharding ------------------------------------------------------------------------------------------

#[test]
fn after_a_reshard_records_outside_of_the_shard_are_dropped() {
    let at =
        |hash: u128, data: &'static str| put("k", data).explicit_hash_key(HashKey::from_u128(hash));
    let packed = pack(&[at(10, "low"), at(200, "high"), at(20, "low too")]).data;
    let low = HashRange {
        start: HashKey::MIN,
        end: HashKey::from_u128(99),
    };
    let unpack = || deaggregate(None, packed.clone()).unwrap();

    let each: Vec<_> = unpack().within(low, Outside::DropEach).collect();
    let seen: Vec<_> = each.iter().map(|r| (r.sub_sequence, &r.data[..])).collect();
    assert_eq!(seen, [(0, &b"low"[..]), (2, &b"low too"[..])]);

    // As the KCL: the producer sends all of them again.
    assert_eq!(unpack().within(low, Outside::DropAll).len(), 0);
    assert_eq!(unpack().within(HashRange::FULL, Outside::DropAll).len(), 3);
}

#[test]
fn without_an_explicit_hash_key_the_partition_key_decides_what_lies_outside() {
    let (a, b) = (key("a").hash_key(), key("b").hash_key());
    let only_a = HashRange { start: a, end: a };
    assert_ne!(a, b);
    let packed = pack(&[
        put("a", &b"1"[..]),
        put("b", &b"2"[..]),
        put("a", &b"3"[..]),
    ])
    .data;
    let kept: Vec<_> = deaggregate(None, packed)
        .unwrap()
        .within(only_a, Outside::DropEach)
        .map(|record| record.sub_sequence)
        .collect();
    assert_eq!(kept, [0, 2]);
}

#[test]
fn a_plain_record_is_never_outside() {
    let nothing = HashRange {
        start: HashKey::MAX,
        end: HashKey::MAX,
    };
    let records = deaggregate(Some(key("a")), Bytes::from_static(b"plain")).unwrap();
    assert_eq!(records.within(nothing, Outside::DropAll).len(), 1);
}

// ---- properties ------------------------------------------------------------------------------------------

fn any_put() -> impl Strategy<Value = UserPut> {
    let tag = ("[a-z]{0,4}", proptest::option::of("[a-z]{0,4}"))
        .prop_map(|(key, value)| Tag { key, value });
    (
        "\\PC{1,6}",
        proptest::option::of(prop_oneof![any::<u128>(), 0..3_u128, Just(u128::MAX)]),
        proptest::collection::vec(any::<u8>(), 0..300),
        proptest::collection::vec(tag, 0..2),
    )
        .prop_map(|(text, hash, data, tags)| UserPut {
            partition_key: key(&text),
            explicit_hash_key: hash.map(HashKey::from_u128),
            data: data.into(),
            tags,
        })
}

proptest! {
    #[test]
    fn what_is_packed_is_unpacked_in_order(
        puts in proptest::collection::vec(any_put(), 1..200),
        max_bytes in 500..5_000_usize,
    ) {
        let config = AggregatorConfig { max_bytes, ..Default::default() };
        let mut aggregator = Aggregator::new(config).unwrap();
        let mut packed = Vec::new();
        for put in &puts {
            packed.extend(aggregator.add(put.clone()).unwrap());
        }
        packed.extend(aggregator.finish());
        let mut unpacked = Vec::new();
        for record in packed {
            prop_assert!(record.data.len() <= max_bytes);
            let explicit = record.explicit_hash_key;
            let records = deaggregate(Some(record.partition_key.clone()), record.data).unwrap();
            prop_assert_eq!(records.len(), record.records);
            for mut user in records {
                // A lone record's explicit hash key travels outside of it.
                if record.records == 1 {
                    user.explicit_hash_key = explicit;
                }
                unpacked.push(as_put(user));
            }
        }
        prop_assert_eq!(unpacked, puts);
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error(
        message in proptest::collection::vec(any::<u8>(), 1..400),
    ) {
        let plain = deaggregate(None, message.clone().into()).unwrap();
        prop_assert_eq!(plain.map(|r| r.data.len()).sum::<usize>(), message.len());
        if let Ok(records) = deaggregate(None, framed(&message)) {
            prop_assert!(records.is_aggregated());
            prop_assert!(records.len() <= message.len());
            prop_assert!(records.map(|r| r.data.len()).sum::<usize>() <= message.len());
        }
    }

    #[test]
    fn a_packed_record_with_a_few_wrong_bytes_never_panics(
        puts in proptest::collection::vec(any_put(), 2..20),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let packed = pack(&puts).data;
        let mut message = packed[4..packed.len() - 16].to_vec();
        for (at, byte) in changes {
            let at = at.index(message.len());
            message[at] = byte;
        }
        if let Ok(records) = deaggregate(None, framed(&message)) {
            for record in records.within(HashRange::FULL, Outside::DropAll) {
                prop_assert!(record.partition_key.is_some());
            }
        }
    }
}
