//! Bad input: it is refused with its name, its value and its limit, and nothing changes.

use std::time::Duration;

use sim_core::attributes::Attributes;
use sim_core::payload::Payload;
use sim_topic::{
    ConfigError, GroupId, Kind, Limits, Message, ReceiverConfig, Refusal, RetryPolicy,
    SubscribeError, Subscriber, SubscriptionConfig, Topic, TopicConfig,
};

use crate::rig::{Probe, clock, topic};

fn aws() -> Topic<Payload> {
    Topic::bytes(TopicConfig::aws("orders", Kind::Standard), clock().0).unwrap()
}

fn refusal(topic: &Topic<Payload>, message: Message<Payload>) -> Refusal {
    let before = topic.stats();
    let reason = topic.try_publish(message).unwrap_err().reason;
    let after = topic.stats();
    assert_eq!(after.published, before.published);
    assert_eq!(after.refused, before.refused + 1);
    reason
}

#[test]
fn a_message_has_at_most_256_kib_with_its_attributes_in_the_aws_profile() {
    let topic = aws();
    let body = |bytes| Message::new(Payload::from(vec![b'x'; bytes]));
    topic.try_publish(body(262_144)).unwrap();
    let reason = refusal(&topic, body(262_145));
    assert_eq!(
        reason.to_string(),
        "message: 262145 bytes are more than 262144"
    );
    let mut attributes = Attributes::new();
    attributes.insert("key", "value").unwrap();
    let reason = refusal(&topic, body(262_144).attributes(attributes));
    assert!(matches!(reason, Refusal::TooLarge { bytes, .. } if bytes > 262_144));
}

#[test]
fn a_subject_is_a_short_line_of_ascii_in_the_aws_profile() {
    let topic = aws();
    let message = |subject: &str| Message::new(Payload::from("x")).subject(subject);
    topic.try_publish(message(&"s".repeat(99))).unwrap();
    topic.try_publish(message("two words!")).unwrap();
    let reason = refusal(&topic, message(&"s".repeat(100)));
    assert_eq!(
        reason,
        Refusal::SubjectTooLong {
            chars: 100,
            limit: 99
        }
    );
    for (subject, found, at) in [
        ("", None, 0),
        (" x", Some(' '), 0),
        ("a\nb", Some('\n'), 1),
        ("é", Some('é'), 0),
    ] {
        let reason = refusal(&topic, message(subject));
        assert_eq!(reason, Refusal::SubjectCharacter { found, at });
    }
}

#[test]
fn a_batch_has_ten_entries_and_256_kib_in_the_aws_profile() {
    let topic = aws();
    let entries =
        |count: usize, bytes: usize| (0..count).map(move |_| Payload::from(vec![b'x'; bytes]));
    assert!(
        topic
            .try_publish_batch(entries(10, 1))
            .iter()
            .all(Result::is_ok)
    );
    let results = topic.try_publish_batch(entries(11, 1));
    assert_eq!(results.len(), 11);
    for result in results {
        let reason = result.unwrap_err().reason;
        assert_eq!(
            reason,
            Refusal::BatchTooLong {
                count: 11,
                limit: 10
            }
        );
    }
    let results = topic.try_publish_batch(entries(2, 200_000));
    let reason = &results[1].as_ref().unwrap_err().reason;
    assert_eq!(
        *reason,
        Refusal::BatchTooLarge {
            bytes: 400_000,
            limit: 262_144
        }
    );
    assert!(topic.try_publish_batch(Vec::<Payload>::new()).is_empty());
}

#[test]
fn each_entry_of_a_batch_has_its_own_result() {
    let (topic, _) = topic(TopicConfig::default());
    let id = sim_topic::DeduplicationId::new("x").unwrap();
    let results = topic.try_publish_batch([
        Message::new(1),
        Message::new(2).deduplication_id(id),
        Message::new(3)
            .group(GroupId::new("a standard topic hands it on".replace(' ', "-")).unwrap()),
    ]);
    assert!(results[0].is_ok() && results[2].is_ok());
    let error = results[1].as_ref().unwrap_err();
    assert_eq!(error.reason, Refusal::UnexpectedDeduplicationId);
    assert_eq!(error.message.value, 2);
}

#[test]
fn in_a_fifo_batch_nothing_overtakes_within_its_group() {
    let (topic, _) = topic(TopicConfig {
        kind: Kind::Fifo(sim_topic::FifoConfig {
            deduplication_limit: 1,
            deduplication: sim_topic::Deduplication::Off,
            ..Default::default()
        }),
        ..TopicConfig::default()
    });
    let message = |n: u64, id: Option<&str>| {
        let message = Message::new(n).group(GroupId::new("a").unwrap());
        match id {
            Some(id) => message.deduplication_id(sim_topic::DeduplicationId::new(id).unwrap()),
            None => message,
        }
    };
    let results = topic.try_publish_batch([
        message(1, Some("1")),
        message(2, Some("2")),
        message(3, None),
    ]);
    assert!(results[0].is_ok() && results[1].is_err() && results[2].is_err());
    assert_eq!(topic.stats().published, 1);
}

#[test]
fn a_configuration_out_of_range_names_its_field() {
    let broken = |change: fn(&mut TopicConfig)| {
        let mut config = TopicConfig::default();
        change(&mut config);
        Topic::<u64>::new(config).unwrap_err().to_string()
    };
    assert_eq!(
        broken(|c| c.name.clear()),
        "name: has 0 bytes, must have 1 to 256"
    );
    assert_eq!(
        broken(|c| c.log.capacity = 0),
        "log.capacity: must not be zero"
    );
    assert_eq!(
        broken(|c| c.log.max_bytes = 0),
        "log.max_bytes: must not be zero"
    );
    assert_eq!(
        broken(|c| c.limits.batch_entries = 0),
        "limits.batch_entries: must not be zero"
    );
    assert!(broken(|c| c.token_validity = Duration::ZERO).starts_with("token_validity: 0ns"));
    assert!(
        broken(|c| c.limits.message_bytes = Some(1)).starts_with("limits.message_bytes: needs")
    );
    assert!(
        broken(|c| {
            c.kind = Kind::Fifo(sim_topic::FifoConfig {
                archive: Some(sim_topic::ArchiveConfig {
                    retention: Duration::from_secs(1),
                    ..Default::default()
                }),
                ..Default::default()
            });
        })
        .starts_with("archive: retention")
    );
    assert_eq!(Limits::aws_fifo().subscriptions, 100);
}

#[test]
fn a_subscription_out_of_range_names_its_field() {
    let (topic, _) = topic(TopicConfig::default());
    let broken = |change: fn(&mut SubscriptionConfig<u64>)| {
        let mut config = SubscriptionConfig::default();
        change(&mut config);
        let refused = topic.subscribe(Subscriber::sink(Probe::new()), config);
        refused.unwrap_err().to_string()
    };
    assert_eq!(broken(|c| c.backlog = 0), "backlog: must not be zero");
    assert_eq!(
        broken(|c| c.max_in_flight = 0),
        "max_in_flight: must not be zero"
    );
    assert_eq!(
        broken(|c| c.name = "x".repeat(257)),
        "name: has 257 bytes, must have 1 to 256"
    );
    assert!(
        broken(|c| {
            c.retry = RetryPolicy {
                min_delay: Duration::from_secs(2),
                max_delay: Duration::from_secs(1),
                ..RetryPolicy::default()
            };
        })
        .starts_with("retry: min_delay")
    );
    let refused = topic.receiver(ReceiverConfig {
        mailbox: 0,
        ..ReceiverConfig::default()
    });
    assert_eq!(
        refused.unwrap_err(),
        SubscribeError::Config(ConfigError::Zero { field: "mailbox" })
    );
    assert_eq!(topic.stats().subscriptions_confirmed, 0);
}

#[test]
fn ids_are_parsed_or_refused() {
    let id = sim_topic::SubscriptionId::new(255);
    assert_eq!(id.to_string(), "sub-00000000000000ff");
    assert_eq!(id.to_string().parse(), Ok(id));
    for wrong in [
        "",
        "sub-",
        "sub-00000000000000fg",
        "00000000000000ff",
        "sub-+0000000000000ff",
    ] {
        let error = wrong.parse::<sim_topic::SubscriptionId>().unwrap_err();
        assert!(error.to_string().contains(&format!("{wrong:?}")));
    }
}

#[test]
fn a_mailbox_that_would_take_all_memory_is_refused() {
    let (topic, _) = topic(TopicConfig::default());
    let refused = topic
        .receiver(ReceiverConfig {
            mailbox: 1 << 31,
            filter: sim_topic::Filter::closure(|_| true),
            ..ReceiverConfig::default()
        })
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "mailbox: 2147483648 is more than 1048576"
    );
    let largest = ReceiverConfig::<u64> {
        mailbox: sim_topic::MAX_MAILBOX,
        ..ReceiverConfig::default()
    };
    assert_eq!(largest.check(), Ok(()));
}
