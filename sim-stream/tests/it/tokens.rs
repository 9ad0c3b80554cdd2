//! Iterator tokens: a cursor as text that expires.

use sim_stream::{IteratorToken, Read, ReadError, StartingPosition, StreamConfig, TokenError};

use crate::rig::{FIRST, hours, put, secs, small, stream, values};

fn refused(error: ReadError) -> TokenError {
    match error {
        ReadError::Token(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn a_token_goes_over_the_wire_and_reads_on() {
    let (stream, _) = stream(small(1));
    for value in 0..5 {
        put(&stream, value);
    }
    let mut token = stream
        .iterator(FIRST, StartingPosition::TrimHorizon)
        .unwrap();
    let mut read = Vec::new();
    for _ in 0..3 {
        let text = token.to_string();
        let page = stream
            .get_records(&text.parse().unwrap(), Read::at_most(2))
            .unwrap();
        read.push(values(&page.records));
        token = page.next.unwrap();
    }
    assert_eq!(read, [vec![0, 1], vec![2, 3], vec![4]]);
}

#[test]
fn a_token_may_be_used_twice() {
    let (stream, _) = stream(small(1));
    put(&stream, 7);
    let token = stream
        .iterator(FIRST, StartingPosition::TrimHorizon)
        .unwrap();
    for _ in 0..2 {
        let page = stream.get_records(&token, Read::default()).unwrap();
        assert_eq!(values(&page.records), [7]);
    }
}

#[test]
fn a_token_is_good_for_five_minutes() {
    let (stream, hand) = stream(small(1));
    put(&stream, 7);
    let token = stream
        .iterator(FIRST, StartingPosition::TrimHorizon)
        .unwrap();
    hand.advance(secs(300));
    let page = stream.get_records(&token, Read::default()).unwrap();
    hand.advance(secs(1));
    let error = stream.get_records(&token, Read::default()).unwrap_err();
    assert_eq!(
        refused(error),
        TokenError::Expired {
            age: secs(301),
            lifetime: secs(300)
        }
    );
    // The next one counts from the read that gave it.
    hand.advance(secs(299));
    assert!(
        stream
            .get_records(&page.next.unwrap(), Read::default())
            .is_ok()
    );
}

#[test]
fn what_is_no_token_is_malformed() {
    let (stream, _) = stream(small(1));
    let good = stream
        .iterator(FIRST, StartingPosition::Latest)
        .unwrap()
        .to_string();
    let upper = good.to_uppercase();
    for text in [
        "",
        "x",
        &good[1..],
        &format!("{good}0"),
        &good.replace('0', "g"),
        &upper,
    ] {
        assert_eq!(
            text.parse::<IteratorToken>(),
            Err(TokenError::Malformed),
            "{text}"
        );
    }
    // Digits of the right number, and no token of any stream.
    let mut forged = good.clone().into_bytes();
    let last = forged.len() - 1;
    forged[last] = if forged[last] == b'0' { b'1' } else { b'0' };
    let forged: IteratorToken = String::from_utf8(forged).unwrap().parse().unwrap();
    let error = stream.get_records(&forged, Read::default()).unwrap_err();
    assert_eq!(refused(error), TokenError::Malformed);
}

#[test]
fn a_token_of_another_stream_is_told_apart() {
    let (one, _) = stream(small(1));
    let (other, _) = stream(small(1));
    let token = one.iterator(FIRST, StartingPosition::Latest).unwrap();
    let error = other.get_records(&token, Read::default()).unwrap_err();
    assert_eq!(refused(error), TokenError::OtherStream);
}

#[test]
fn the_last_token_of_a_closed_shard_has_no_next() {
    let (stream, _) = stream(small(1));
    put(&stream, 7);
    let token = stream
        .iterator(FIRST, StartingPosition::TrimHorizon)
        .unwrap();
    stream.split_evenly(FIRST).unwrap();
    let page = stream.get_records(&token, Read::default()).unwrap();
    assert_eq!((values(&page.records), page.next), (vec![7], None));
    assert_eq!(page.records.child_shards().len(), 2);
}

#[test]
fn a_token_of_a_shard_that_has_left_names_it() {
    let config = StreamConfig {
        retention: secs(60),
        ..small(1)
    };
    let (stream, hand) = stream(config);
    let token = stream.iterator(FIRST, StartingPosition::Latest).unwrap();
    stream.split_evenly(FIRST).unwrap();
    hand.advance(secs(60));
    let error = stream.get_records(&token, Read::default()).unwrap_err();
    assert_eq!(refused(error), TokenError::UnknownShard { shard_id: FIRST });
}

#[test]
fn a_token_whose_records_were_trimmed_says_so() {
    let config = StreamConfig {
        iterator_lifetime: hours(100),
        ..small(1)
    };
    let (stream, hand) = stream(config);
    let first = put(&stream, 1).sequence_number;
    put(&stream, 2);
    let after = StartingPosition::AfterSequenceNumber(first);
    let token = stream.iterator(FIRST, after).unwrap();
    let oldest = stream
        .iterator(FIRST, StartingPosition::TrimHorizon)
        .unwrap();
    hand.advance(hours(24));
    put(&stream, 3);
    assert!(matches!(
        stream.get_records(&token, Read::default()),
        Err(ReadError::Trimmed { lost: 1, .. })
    ));
    let page = stream.get_records(&oldest, Read::default()).unwrap();
    assert_eq!(values(&page.records), [3]);
}
