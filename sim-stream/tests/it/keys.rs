//! Keys, hash keys, shard ids, sequence numbers and checkpoints as a caller sees them.

use proptest::prelude::*;
use sim_core::time::Timestamp;
use sim_stream::{
    Checkpoint, HashKey, HashRange, KeyError, ParseHashKeyError, ParseSequenceNumberError,
    PartitionKey, Record, Salt, SequenceNumber, ShardId, StartingPosition, WrongSequenceNumber,
};

#[test]
fn a_partition_key_has_1_to_256_unicode_characters() {
    assert_eq!(PartitionKey::new(""), Err(KeyError::Empty));
    for character in ["k", "é", "鍵", "🗝"] {
        let key = PartitionKey::new(character.repeat(256)).unwrap();
        assert_eq!(key.as_str().chars().count(), 256);
        let long = PartitionKey::new(character.repeat(257));
        let error = long.unwrap_err();
        assert_eq!(
            error,
            KeyError::TooLong {
                chars: 257,
                limit: 256
            }
        );
        assert_eq!(
            error.to_string(),
            "partition key: has 257 characters, more than 256"
        );
    }
}

#[test]
fn a_partition_keys_hash_is_its_md5_as_a_big_endian_number() {
    // The test suite of RFC 1321, A.5.
    for (key, md5) in [
        ("", 0xd41d_8cd9_8f00_b204_e980_0998_ecf8_427e),
        ("a", 0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661),
        ("abc", 0x9001_5098_3cd2_4fb0_d696_3f7d_28e1_7f72),
        ("message digest", 0xf96b_697d_7cb7_938d_525a_2f31_aaf1_61d0),
        (
            "abcdefghijklmnopqrstuvwxyz",
            0xc3fc_d3d7_6192_e400_7dfb_496c_ca67_e13b,
        ),
    ] {
        assert_eq!(HashKey::of(key).as_u128(), md5, "{key}");
    }
    let key = PartitionKey::new("abc").unwrap();
    assert_eq!(key.hash_key(), HashKey::of("abc"));
    assert_eq!(
        Record::new(key.clone(), ()).hash_key(),
        Some(key.hash_key())
    );
    assert_eq!(Record::keyless(()).hash_key(), None);
}

#[test]
fn a_hash_key_is_0_or_digits_without_a_leading_zero_below_2_to_the_128() {
    assert_eq!("0".parse(), Ok(HashKey::MIN));
    let most = "340282366920938463463374607431768211455";
    assert_eq!(most.parse(), Ok(HashKey::MAX));
    assert_eq!(HashKey::MAX.to_string(), most);
    for text in ["", "00", "01", "-1", "+1", " 1", "1 ", "0x1", "1e3", "١"] {
        assert_eq!(
            text.parse::<HashKey>(),
            Err(ParseHashKeyError::Malformed),
            "{text:?}"
        );
    }
    for text in [
        "340282366920938463463374607431768211456",
        "999999999999999999999999999999999999999",
        &"9".repeat(200),
    ] {
        let error = text.parse::<HashKey>().unwrap_err();
        assert_eq!(
            error,
            ParseHashKeyError::TooLarge {
                limit: HashKey::MAX
            }
        );
        assert!(error.to_string().contains(most));
    }
}

#[test]
fn a_range_knows_its_points_its_middle_and_its_neighbours() {
    let range = |start, end| HashRange {
        start: HashKey::from_u128(start),
        end: HashKey::from_u128(end),
    };
    let ten = range(10, 19);
    assert!(ten.contains(HashKey::from_u128(10)) && ten.contains(HashKey::from_u128(19)));
    assert!(!ten.contains(HashKey::from_u128(9)) && !ten.contains(HashKey::from_u128(20)));
    assert_eq!(ten.middle(), Some(HashKey::from_u128(15)));
    assert_eq!(range(7, 8).middle(), Some(HashKey::from_u128(8)));
    assert_eq!(range(7, 7).middle(), None);
    assert_eq!(HashRange::FULL.middle(), Some(HashKey::from_u128(1 << 127)));
    assert!(ten.is_adjacent_to(&range(20, 20)) && ten.is_adjacent_to(&range(0, 9)));
    assert!(!ten.is_adjacent_to(&range(21, 30)) && !ten.is_adjacent_to(&ten));
    // The space is no ring.
    let (first, last) = (range(0, 9), range(10, u128::MAX));
    assert!(first.is_adjacent_to(&last) && !HashRange::FULL.is_adjacent_to(&first));
    assert!(!range(0, 5).is_adjacent_to(&range(7, u128::MAX)));
}

#[test]
fn a_shard_id_is_twelve_digits_behind_a_word() {
    let shard = ShardId::new(7);
    assert_eq!(shard.to_string(), "shardId-000000000007");
    assert_eq!("shardId-000000000007".parse(), Ok(shard));
    assert_eq!(ShardId::MAX.to_string().parse(), Ok(ShardId::MAX));
    for text in [
        "",
        "shardId-",
        "shardId-7",
        "shardId-00000000007",
        "shardId-0000000000007",
        "shardid-000000000007",
        "shardId-00000000000x",
        "shardId-+00000000007",
        "shardId-004294967295",
        "shardId-999999999999",
    ] {
        let error = text.parse::<ShardId>().unwrap_err();
        assert!(error.to_string().contains("12 digits"), "{text:?}");
    }
}

#[test]
fn a_sequence_number_of_kinesis_or_none_at_all_is_recognised() {
    let foreign = "49546986683135544286507457936321625675700192471156785154";
    assert_eq!(
        foreign.parse::<SequenceNumber>(),
        Err(ParseSequenceNumberError::Foreign { digits: 56 })
    );
    for (text, digits) in [("0", 1), ("1", 1), ("12345678901234567890", 20)] {
        assert_eq!(
            text.parse::<SequenceNumber>(),
            Err(ParseSequenceNumberError::Foreign { digits })
        );
    }
    let longest = "9".repeat(129);
    assert_eq!(
        longest.parse::<SequenceNumber>(),
        Err(ParseSequenceNumberError::Foreign { digits: 129 })
    );
    let too_long = "9".repeat(130);
    assert_eq!(
        too_long.parse::<SequenceNumber>(),
        Err(ParseSequenceNumberError::TooLong {
            digits: 130,
            limit: 129
        })
    );
    for text in [
        "",
        "007",
        "12a",
        "-5",
        "LATEST",
        "+79228162514264337593543950336",
    ] {
        assert_eq!(
            text.parse::<SequenceNumber>(),
            Err(ParseSequenceNumberError::Malformed),
            "{text:?}"
        );
    }
}

#[test]
fn a_sequence_number_is_taken_only_by_its_shard_of_its_stream() {
    let (shard, salt) = (ShardId::new(3), Salt::new(9));
    let number = SequenceNumber::new(shard, salt, 70);
    assert_eq!(number.position_in(shard, salt), Ok(70));
    assert_eq!(
        number.position_in(ShardId::new(4), salt),
        Err(WrongSequenceNumber::OtherShard {
            sequence_number: number,
            shard: ShardId::new(4)
        })
    );
    let error = number.position_in(shard, Salt::new(8)).unwrap_err();
    assert_eq!(
        error,
        WrongSequenceNumber::OtherStream {
            sequence_number: number
        }
    );
    assert!(error.to_string().contains(&number.to_string()));
}

#[test]
fn streams_of_another_name_or_another_time_have_another_salt() {
    let time = Timestamp::from_unix_seconds(1_700_000_000);
    let later = Timestamp::from_unix_nanos(time.as_unix_nanos() + 1);
    let salt = Salt::of("flights", time);
    assert_eq!(salt, Salt::of("flights", time));
    assert_ne!(salt, Salt::of("flights", later));
    assert_ne!(salt, Salt::of("flight", time));
}

#[test]
fn checkpoints_are_ordered_from_the_beginning_to_the_end_of_the_shard() {
    let number = |position| SequenceNumber::new(ShardId::new(0), Salt::new(0), position);
    let part = |position, sub_sequence_number| Checkpoint::At {
        sequence_number: number(position),
        sub_sequence_number,
    };
    let ascending = [
        Checkpoint::TrimHorizon,
        Checkpoint::Latest,
        Checkpoint::at(number(0)),
        part(0, 1),
        part(0, 2),
        Checkpoint::at(number(1)),
        part(9, 0),
        Checkpoint::ShardEnd,
    ];
    assert!(ascending.is_sorted_by(|a, b| a < b));
    assert_eq!(Checkpoint::TrimHorizon.to_string(), "TRIM_HORIZON");
    assert_eq!(Checkpoint::at(number(1)).to_string(), number(1).to_string());
    assert_eq!(part(1, 4).to_string(), format!("{}:4", number(1)));
    assert_eq!(
        part(1, 4).resume(),
        Some(StartingPosition::AfterSequenceNumber(number(1)))
    );
    assert_eq!(Checkpoint::Latest.resume(), Some(StartingPosition::Latest));
    assert_eq!(Checkpoint::ShardEnd.resume(), None);
    assert!(Checkpoint::ShardEnd.is_shard_end());
    assert_eq!(part(1, 4).sequence_number(), Some(number(1)));
    assert_eq!(Checkpoint::ShardEnd.sequence_number(), None);
}

proptest! {
    #[test]
    fn a_sequence_number_survives_its_text(
        shard in any::<u32>(),
        salt in any::<u32>(),
        position in any::<u64>(),
    ) {
        let (shard, salt) = (ShardId::new(shard), Salt::new(salt));
        let number = SequenceNumber::new(shard, salt, position);
        let text = number.to_string();
        prop_assert!((29..=39).contains(&text.len()));
        prop_assert_eq!(text.parse(), Ok(number));
        prop_assert_eq!(number.shard(), shard);
        prop_assert_eq!(number.salt(), salt);
        prop_assert_eq!(number.position(), position);
    }

    #[test]
    fn sequence_numbers_grow_with_the_position_and_from_parent_to_child(
        shard in 0..1_000_u32,
        child in 1..1_000_u32,
        salt in any::<u32>(),
        positions in any::<(u64, u64)>(),
    ) {
        let number = |shard, position| {
            SequenceNumber::new(ShardId::new(shard), Salt::new(salt), position)
        };
        let (low, high) = (positions.0.min(positions.1), positions.0.max(positions.1));
        prop_assert_eq!(low < high, number(shard, low) < number(shard, high));
        prop_assert!(number(shard, high) < number(shard + child, low));
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in "\\PC{0,50}", digits in "[0-9]{0,140}") {
        for text in [text.as_str(), digits.as_str()] {
            if let Ok(number) = text.parse::<SequenceNumber>() {
                prop_assert_eq!(number.to_string(), text);
            }
            if let Ok(key) = text.parse::<HashKey>() {
                prop_assert_eq!(key.to_string(), text);
            }
            if let Ok(shard) = format!("shardId-{text}").parse::<ShardId>() {
                prop_assert_eq!(shard.to_string(), format!("shardId-{text}"));
            }
            if let Ok(key) = PartitionKey::new(text) {
                prop_assert_eq!(key.as_str(), text);
            }
        }
    }
}

#[cfg(feature = "serde")]
#[test]
fn numbers_serialize_as_the_text_that_kinesis_uses() {
    let number = SequenceNumber::new(ShardId::new(1), Salt::new(2), 3);
    let json = serde_json::to_string(&(number, ShardId::new(1), HashKey::MAX)).unwrap();
    assert_eq!(
        json,
        format!(
            "[\"{number}\",\"shardId-000000000001\",\"{}\"]",
            HashKey::MAX
        )
    );
    let back: (SequenceNumber, ShardId, HashKey) = serde_json::from_str(&json).unwrap();
    assert_eq!(back, (number, ShardId::new(1), HashKey::MAX));
    let key: PartitionKey = serde_json::from_str("\"AA\"").unwrap();
    assert_eq!(serde_json::to_string(&key).unwrap(), "\"AA\"");
    assert!(serde_json::from_str::<PartitionKey>("\"\"").is_err());
    assert!(serde_json::from_str::<SequenceNumber>("\"12\"").is_err());
    let checkpoint = Checkpoint::at(number);
    let json = serde_json::to_string(&checkpoint).unwrap();
    assert_eq!(
        serde_json::from_str::<Checkpoint>(&json).unwrap(),
        checkpoint
    );
}
