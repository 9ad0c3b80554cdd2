//! One topic, three subscribers: a channel that gets all, one that gets what a policy lets through, and one that gets what a
//! closure lets through. Publishing clones a pointer; what a filter keeps away is counted by its reason.
//!
//! `cargo run -p sim-topic --example fan_out`

use std::sync::mpsc;

use sim_core::attributes::{Attributes, Value};
use sim_core::clock::Clock;
use sim_core::payload::Payload;
use sim_core::seam::{Refused, Sink};
use sim_topic::filter::{FilterPolicy, Scope};
use sim_topic::{
    Filter, Message, Notification, Subscriber, SubscriptionConfig, Topic, TopicConfig,
};

/// Any channel is a subscriber: this is all it takes.
struct Into(mpsc::Sender<Notification<Payload>>);

impl Sink<Notification<Payload>> for Into {
    fn try_deliver(
        &self,
        item: Notification<Payload>,
    ) -> Result<(), Refused<Notification<Payload>>> {
        self.0
            .send(item)
            .map_err(|mpsc::SendError(item)| Refused::closed(item))
    }
}

fn flight(carrier: &str, delay: i32) -> Result<Message<Payload>, Box<dyn std::error::Error>> {
    let mut attributes = Attributes::new();
    attributes.insert("carrier", carrier)?;
    attributes.insert("delay", Value::from(delay))?;
    let body = format!(r#"{{"carrier": "{carrier}", "delay": {delay}}}"#);
    Ok(Message::new(Payload::from(body)).attributes(attributes))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let topic = Topic::bytes(TopicConfig::new("flights"), Clock::system())?;
    let subscribe = |name: &str, filter: Filter<Payload>| {
        let (sender, receiver) = mpsc::channel();
        let config = SubscriptionConfig {
            name: name.to_owned(),
            filter,
            ..SubscriptionConfig::default()
        };
        topic
            .subscribe(Subscriber::sink(Into(sender)), config)
            .map(|subscription| (subscription, receiver))
    };
    let late = FilterPolicy::parse(
        r#"{"delay": [{"numeric": [">", 60]}]}"#,
        Scope::MessageAttributes,
    )?;
    let all = [
        subscribe("all", Filter::All)?,
        subscribe("late", Filter::Policy(late))?,
        subscribe(
            "short bodies",
            Filter::closure(|message: &Message<Payload>| message.value.size() < 31),
        )?,
    ];

    for (carrier, delay) in [("UA", 5), ("AA", 61), ("WN", 120), ("UA", -3)] {
        topic.try_publish(flight(carrier, delay)?)?;
    }
    for (subscription, receiver) in &all {
        let bodies: Vec<String> = receiver
            .try_iter()
            .map(|notification| String::from_utf8_lossy(&notification).into_owned())
            .collect();
        let stats = subscription.stats();
        println!(
            "{:12} {} delivered, {} filtered: {bodies:?}",
            subscription.name(),
            stats.delivered,
            stats.filtered.total()
        );
        assert_eq!(stats.delivered + stats.filtered.total(), 4);
    }
    Ok(())
}
