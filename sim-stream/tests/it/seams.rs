//! The stream at the seams of the family.

use std::sync::Arc;

use sim_core::payload::Payload;
use sim_core::seam::{Gauge, Reason, Sink};
use sim_stream::{Read, Record, RecordDistribution, StreamConfig, WhenFull};

use crate::rig::{FIRST, all_of, hours, key, of, oldest, secs, small, stream, stream_of};

#[test]
fn records_are_delivered_to_a_sink() {
    let (stream, _) = stream(small(1));
    let sink: Arc<dyn Sink<Record<u32>>> = Arc::new(stream.clone());
    sink.try_deliver(of("k", 7)).unwrap();
    assert_eq!(all_of(&stream, FIRST), [7]);
}

#[test]
fn bare_items_are_delivered_where_the_stream_distributes() {
    let config = StreamConfig {
        distribution: RecordDistribution::Auto,
        ..small(1)
    };
    let (numbers, _) = stream(config.clone());
    Sink::<u32>::try_deliver(&numbers, 7).unwrap();
    assert_eq!(all_of(&numbers, FIRST), [7]);

    let (bytes, _) = stream_of::<()>(config);
    Sink::<Payload>::try_deliver(&bytes, "line".into()).unwrap();
    let records = oldest(&bytes, FIRST).try_read(Read::default()).unwrap();
    assert_eq!(records.get(0).unwrap().data(), b"line");
}

#[test]
fn a_refusal_says_whether_to_try_again_and_when() {
    let config = StreamConfig {
        max_records: Some(1),
        when_full: WhenFull::Refuse,
        ..small(1)
    };
    let (stream, hand) = stream(config);
    // Without a key it is rejected for good.
    let refused = Sink::<u32>::try_deliver(&stream, 7).unwrap_err();
    assert_eq!(refused.item, 7);
    assert!(matches!(refused.reason, Reason::Rejected(_)));

    stream.try_put(of("k", 1)).unwrap();
    let refused = Sink::try_deliver(&stream, of("k", 2)).unwrap_err();
    let full = hand.now() + hours(24);
    assert!(matches!(refused.reason, Reason::Full { retry_at: Some(at) } if at == full));

    stream.close();
    let refused = Sink::try_deliver(&stream, of("k", 2)).unwrap_err();
    assert_eq!(refused.item.value, 2);
    assert!(matches!(refused.reason, Reason::Closed));
}

#[test]
fn a_throttled_sink_names_the_time() {
    let (stream, hand) = stream_of::<()>(StreamConfig::aws("s"));
    let record = || Record::bytes(key("k"), vec![7; (1 << 20) - 1]);
    stream.try_put(record()).unwrap();
    let refused = Sink::try_deliver(&stream, record()).unwrap_err();
    let later = hand.now() + secs(1);
    assert!(matches!(refused.reason, Reason::Full { retry_at: Some(at) } if at == later));
}

#[test]
fn the_gauge_tells_what_is_retained() {
    let (stream, hand) = stream(small(2));
    for n in 0..10 {
        stream.try_put(of(n.to_string(), n)).unwrap();
    }
    hand.advance(secs(30));
    let depth = stream.depth();
    assert_eq!((depth.waiting, depth.oldest_age), (10, Some(secs(30))));
}
