//! Filter policies on a topic: few and many give the same.

use proptest::prelude::*;
use sim_core::attributes::Attributes;
use sim_core::payload::Payload;
use sim_topic::filter::{FilterPolicy, Scope};
use sim_topic::{
    ConfigError, Filter, Message, Notification, SetError, SubscribeError, Subscriber, Subscription,
    SubscriptionConfig, Topic, TopicConfig,
};

use crate::rig::{Probe, clock, topic};

fn with_filter<T>(filter: Filter<T>) -> SubscriptionConfig<T> {
    SubscriptionConfig {
        filter,
        ..SubscriptionConfig::default()
    }
}

fn policy(json: &str, scope: Scope) -> FilterPolicy {
    FilterPolicy::parse(json, scope).unwrap()
}

fn message(body: &str, attributes: &[(&str, &str)]) -> Message<Payload> {
    let mut all = Attributes::new();
    for (name, value) in attributes {
        all.insert(*name, *value).unwrap();
    }
    Message::new(Payload::from(body.to_owned())).attributes(all)
}

#[test]
fn each_reason_to_filter_is_counted_apart() {
    let topic = Topic::bytes(TopicConfig::default(), clock().0).unwrap();
    let probe: Probe<Notification<Payload>> = Probe::new();
    let subscribe = |json, scope| {
        let filter = Filter::Policy(policy(json, scope));
        topic
            .subscribe(Subscriber::sink(probe.clone()), with_filter(filter))
            .unwrap()
    };
    let by_attribute = subscribe(r#"{"carrier": ["UA"]}"#, Scope::MessageAttributes);
    let by_body = subscribe(r#"{"carrier": ["UA"]}"#, Scope::MessageBody);
    topic.try_publish(message("{}", &[])).unwrap();
    topic
        .try_publish(message("no object", &[("carrier", "AA")]))
        .unwrap();
    topic
        .try_publish(message(r#"{"carrier": "UA"}"#, &[("carrier", "UA")]))
        .unwrap();
    assert_eq!(probe.len(), 2);
    let filtered = by_attribute.stats().filtered;
    assert_eq!(
        (
            filtered.no_attributes,
            filtered.attributes,
            filtered.total()
        ),
        (1, 1, 2)
    );
    let filtered = by_body.stats().filtered;
    assert_eq!(
        (filtered.body, filtered.invalid_body, filtered.total()),
        (1, 1, 2)
    );
}

#[test]
fn a_policy_on_bodies_needs_a_topic_that_knows_them() {
    let (topic, _) = topic(TopicConfig::default());
    let filter = || Filter::Policy(policy(r#"{"a": [1]}"#, Scope::MessageBody));
    let refused = topic.subscribe(Subscriber::sink(Probe::new()), with_filter(filter()));
    assert_eq!(
        refused.unwrap_err(),
        SubscribeError::Config(ConfigError::NoBody)
    );
    let sub = topic
        .subscribe(
            Subscriber::sink(Probe::new()),
            SubscriptionConfig::default(),
        )
        .unwrap();
    assert_eq!(
        sub.set_filter(filter()),
        Err(SetError::Config(ConfigError::NoBody))
    );
}

#[test]
fn there_are_only_so_many_policies_and_subscriptions() {
    let mut config = TopicConfig::default();
    config.limits.filter_policies = 1;
    config.limits.subscriptions = 3;
    let (topic, _) = topic(config);
    let filter = || Filter::Policy(policy(r#"{"a": ["x"]}"#, Scope::MessageAttributes));
    let subscribe = |filter| {
        topic.subscribe(
            Subscriber::sink(Probe::<Notification<u64>>::new()),
            with_filter(filter),
        )
    };
    let first = subscribe(filter()).unwrap();
    let refused = subscribe(filter()).unwrap_err();
    assert_eq!(refused, SubscribeError::TooManyFilterPolicies { limit: 1 });
    let second = subscribe(Filter::All).unwrap();
    assert_eq!(
        second.set_filter(filter()),
        Err(SetError::TooManyFilterPolicies { limit: 1 })
    );
    first.set_filter(Filter::All).unwrap();
    second.set_filter(filter()).unwrap();
    let _receiver = topic
        .receiver(sim_topic::ReceiverConfig::default())
        .unwrap();
    assert_eq!(
        subscribe(Filter::All).unwrap_err(),
        SubscribeError::TooMany { limit: 3 }
    );
    second.unsubscribe();
    subscribe(filter()).unwrap();
}

#[derive(Debug, Clone)]
enum Act {
    Subscribe { value: u8, body: bool },
    Unsubscribe(usize),
    Change { at: usize, value: u8, body: bool },
    Publish { attribute: Option<u8>, body: u8 },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..12_u8, any::<bool>()).prop_map(|(value, body)| Act::Subscribe { value, body }),
        1 => (0..200_usize).prop_map(Act::Unsubscribe),
        1 => (0..200_usize, 0..12_u8, any::<bool>())
            .prop_map(|(at, value, body)| Act::Change { at, value, body }),
        4 => (proptest::option::of(0..12_u8), 0..12_u8)
            .prop_map(|(attribute, body)| Act::Publish { attribute, body }),
    ]
}

/// A subscription and what it should have come to.
struct Expected {
    sub: Subscription<Payload>,
    value: u8,
    body: bool,
    accepted: u64,
    filtered: u64,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn many_policies_give_what_each_by_itself_would(acts in proptest::collection::vec(act(), 1..400)) {
        let topic = Topic::bytes(TopicConfig::default(), clock().0).unwrap();
        let probe: Probe<Notification<Payload>> = Probe::new();
        let filter = |value: u8, body: bool| {
            let scope = if body { Scope::MessageBody } else { Scope::MessageAttributes };
            Filter::Policy(policy(&format!(r#"{{"key": ["{value}"]}}"#), scope))
        };
        let mut all: Vec<Expected> = Vec::new();
        let mut accepted = 0;
        for act in acts {
            match act {
                Act::Subscribe { value, body } => {
                    // Several at once, so that the index is rebuilt now and then.
                    for _ in 0..8 {
                        let sub = topic
                            .subscribe(Subscriber::sink(probe.clone()), with_filter(filter(value, body)))
                            .unwrap();
                        all.push(Expected { sub, value, body, accepted: 0, filtered: 0 });
                    }
                }
                Act::Unsubscribe(at) if !all.is_empty() => {
                    let gone = all.remove(at % all.len());
                    gone.sub.unsubscribe();
                    prop_assert_eq!(gone.sub.stats().filtered.total(), gone.filtered);
                    prop_assert_eq!(gone.sub.stats().accepted, gone.accepted);
                }
                Act::Change { at, value, body } if !all.is_empty() => {
                    let at = at % all.len();
                    all[at].sub.set_filter(filter(value, body)).unwrap();
                    (all[at].value, all[at].body) = (value, body);
                }
                Act::Publish { attribute, body } => {
                    let mut attributes = Attributes::new();
                    if let Some(attribute) = attribute {
                        attributes.insert("key", attribute.to_string()).unwrap();
                    }
                    let payload = Payload::from(format!(r#"{{"key": "{body}"}}"#));
                    topic.try_publish(Message::new(payload).attributes(attributes)).unwrap();
                    for one in &mut all {
                        let is_match = if one.body { one.value == body } else { Some(one.value) == attribute };
                        one.accepted += u64::from(is_match);
                        one.filtered += u64::from(!is_match);
                        accepted += u64::from(is_match);
                    }
                }
                _ => {}
            }
        }
        prop_assert_eq!(probe.len() as u64, accepted);
        for one in &all {
            prop_assert_eq!(one.sub.stats().accepted, one.accepted);
            prop_assert_eq!(one.sub.stats().filtered.total(), one.filtered);
        }
        prop_assert_eq!(topic.stats().subscriptions.delivered, accepted);
    }
}
