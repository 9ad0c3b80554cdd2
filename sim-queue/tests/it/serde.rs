//! With the feature `serde`: what is told to a queue, and what it tells, as text and back.

use std::time::Duration;

use sim_queue::{
    DeadLetterReason, Deduplication, FifoConfig, GroupId, Kind, Limits, OnDrop, QueueConfig,
    RedriveAllow, SequenceNumber, Stats,
};

use crate::rig::{queue, secs};

fn round_trip(config: &QueueConfig) {
    let text = serde_json::to_string(config).unwrap();
    assert_eq!(
        serde_json::from_str::<QueueConfig>(&text).unwrap(),
        *config,
        "{text}"
    );
}

#[test]
fn a_configuration_comes_back_as_it_went() {
    round_trip(&QueueConfig::new("q"));
    round_trip(&QueueConfig::fair("q"));
    round_trip(&QueueConfig::fifo("q"));
    round_trip(&QueueConfig::aws("q", Kind::fifo()));
    round_trip(&QueueConfig {
        name: "orders".into(),
        kind: Kind::Fifo(FifoConfig {
            deduplication: Deduplication::ByContent,
            deduplication_window: secs(7),
            ..FifoConfig::default()
        }),
        visibility_timeout: Duration::from_millis(1500),
        delay: secs(3),
        retention: Some(secs(86_400)),
        capacity: Some(1024),
        max_in_flight: 77,
        on_drop: OnDrop::Expire,
        limits: Limits {
            batch: 5,
            ..Limits::aws()
        },
        redrive_allow: RedriveAllow::Sources(vec!["a".into(), "b".into()]),
        seed: 42,
    });
}

#[test]
fn what_is_left_out_is_the_default() {
    let config: QueueConfig = serde_json::from_str(r#"{"name":"orders","capacity":10}"#).unwrap();
    assert_eq!(
        config,
        QueueConfig {
            capacity: Some(10),
            ..QueueConfig::new("orders")
        }
    );
    assert_eq!(
        serde_json::from_str::<QueueConfig>("{}").unwrap(),
        QueueConfig::default()
    );
    let config: QueueConfig = serde_json::from_str(r#"{"limits":{"batch":10}}"#).unwrap();
    assert_eq!(
        config.limits,
        Limits {
            batch: 10,
            ..Limits::default()
        }
    );
}

#[test]
fn a_field_that_does_not_exist_is_an_error_that_names_it() {
    let error = serde_json::from_str::<QueueConfig>(r#"{"visibility_timeuot":{}}"#).unwrap_err();
    assert!(error.to_string().contains("visibility_timeuot"), "{error}");
}

#[test]
fn a_misspelt_limit_or_rule_is_an_error_that_names_it() {
    for (text, name) in [
        (r#"{"limits":{"bacth":10}}"#, "bacth"),
        (r#"{"kind":{"Fifo":{"atempt_limit":10}}}"#, "atempt_limit"),
        (r#"{"kind":{"Fair":{"widnow":10}}}"#, "widnow"),
    ] {
        let error = serde_json::from_str::<QueueConfig>(text).expect_err(name);
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_kind_may_leave_the_defaults_of_its_rules_out() {
    let text = r#"{"kind":{"Fifo":{"deduplication":"Required"}}}"#;
    let config: QueueConfig = serde_json::from_str(text).unwrap();
    let fifo = FifoConfig {
        deduplication: Deduplication::Required,
        ..FifoConfig::default()
    };
    assert_eq!(config.kind, Kind::Fifo(fifo));
}

#[test]
fn a_configuration_that_was_read_is_checked_when_the_queue_is_built() {
    let config: QueueConfig = serde_json::from_str(r#"{"capacity":0}"#).unwrap();
    assert!(config.check().is_err());
}

#[test]
fn statistics_come_back_as_they_went() {
    let (queue, hand) = queue(QueueConfig::new("q"));
    queue.try_send(7).unwrap();
    hand.advance(secs(3));
    let stats = queue.stats();
    let text = serde_json::to_string(&stats).unwrap();
    assert!(text.contains(r#""visible":1"#), "{text}");
    assert_eq!(serde_json::from_str::<Stats>(&text).unwrap(), stats);
}

#[test]
fn ids_are_text_that_is_checked() {
    let id: GroupId = serde_json::from_str(r#""N14228""#).unwrap();
    assert_eq!(
        (id.as_str(), serde_json::to_string(&id).unwrap().as_str()),
        ("N14228", r#""N14228""#)
    );
    assert!(serde_json::from_str::<GroupId>(r#""""#).is_err());
    assert!(serde_json::from_str::<GroupId>(r#""a b""#).is_err());
    let number: SequenceNumber = serde_json::from_str("42").unwrap();
    assert_eq!(number, SequenceNumber::new(42));
}

#[test]
fn what_a_send_says_comes_back_as_it_went() {
    let (queue, _) = queue(QueueConfig::fifo("q"));
    let sent = queue.try_send(crate::rig::of("g", 7)).unwrap();
    let text = serde_json::to_string(&sent).unwrap();
    assert_eq!(
        serde_json::from_str::<sim_queue::Sent>(&text).unwrap(),
        sent
    );
    let reason = serde_json::to_string(&DeadLetterReason::Rejected).unwrap();
    assert_eq!(
        serde_json::from_str::<DeadLetterReason>(&reason).unwrap(),
        DeadLetterReason::Rejected
    );
}

#[test]
fn a_message_keeps_what_its_sender_said_of_it() {
    let message = sim_queue::Message::new(7_u32)
        .group(sim_queue::GroupId::new("ann").unwrap())
        .deduplication_id(sim_queue::DeduplicationId::new("order-7").unwrap())
        .delay(std::time::Duration::from_secs(5))
        .trace_header("Root=1");
    let text = serde_json::to_string(&message).unwrap();
    let back: sim_queue::Message<u32> = serde_json::from_str(&text).unwrap();
    assert_eq!(back.value, 7);
    assert_eq!(serde_json::to_string(&back).unwrap(), text);
    assert_eq!(
        serde_json::to_string(&sim_queue::Message::new(7_u32)).unwrap(),
        r#"{"value":7}"#
    );
    assert!(serde_json::from_str::<sim_queue::Message<u32>>(r#"{"value":7,"colour":1}"#).is_err());
}
