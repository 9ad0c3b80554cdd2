//! A FIFO topic keeps the order of each group, also past a message that fails; and its archive brings a late subscription
//! up to date.
//!
//! `cargo run -p sim-topic --example fifo_replay`

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sim_core::clock::Clock;
use sim_core::seam::{Refused, Sink};
use sim_topic::{
    ArchiveConfig, Deduplication, FifoConfig, GroupId, Kind, Message, Notification, ReplayPolicy,
    Subscriber, SubscriptionConfig, Topic, TopicConfig,
};

/// Writes down what comes; has no room for "order 2" at first.
#[derive(Clone, Default)]
struct Ledger {
    lines: Arc<Mutex<Vec<String>>>,
    failures: Arc<Mutex<u32>>,
}

impl Sink<Notification<&'static str>> for Ledger {
    fn try_deliver(
        &self,
        item: Notification<&'static str>,
    ) -> Result<(), Refused<Notification<&'static str>>> {
        let (Ok(mut lines), Ok(mut failures)) = (self.lines.lock(), self.failures.lock()) else {
            return Err(Refused::closed(item));
        };
        if *item == "order 2" && *failures > 0 {
            *failures -= 1;
            return Err(Refused::full(item, None));
        }
        let group = item.group().map_or("", GroupId::as_str);
        let mark = if item.is_replayed() {
            " (replayed)"
        } else {
            ""
        };
        lines.push(format!("{group}: {}{mark}", item.value()));
        Ok(())
    }
}

impl Ledger {
    fn show(&self, title: &str) -> Vec<String> {
        let lines = self.lines.lock().map(|lines| lines.clone());
        let lines = lines.unwrap_or_default();
        println!("{title}");
        for line in &lines {
            println!("  {line}");
        }
        lines
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let start = "2026-01-01T00:00:00Z".parse()?;
    let (clock, time) = Clock::virtual_at(start);
    let config = TopicConfig {
        kind: Kind::Fifo(FifoConfig {
            deduplication: Deduplication::Off,
            archive: Some(ArchiveConfig::default()), // 30 days
            ..FifoConfig::default()
        }),
        ..TopicConfig::new("orders")
    };
    let topic = Topic::with_clock(config, clock)?;
    let live = Ledger::default();
    *live.failures.lock().map_err(|_| "poisoned")? = 1;
    topic.subscribe(
        Subscriber::sink(live.clone()),
        SubscriptionConfig::default(),
    )?;

    for (group, order) in [
        ("ann", "order 1"),
        ("ann", "order 2"), // fails once, and holds "order 3" back, but not bob's
        ("ann", "order 3"),
        ("bob", "order 4"),
    ] {
        topic.try_publish(Message::new(order).group(GroupId::new(group)?))?;
        time.advance(Duration::from_secs(1));
    }
    assert_eq!(live.show("at first").len(), 2);
    time.advance(Duration::from_secs(20));
    topic.advance(time.now());
    let lines = live.show("after the retry");
    assert_eq!(lines[2..], ["ann: order 2", "ann: order 3"]);

    let late = Ledger::default();
    let subscription = topic.subscribe(
        Subscriber::sink(late.clone()),
        SubscriptionConfig::default(),
    )?;
    subscription.replay(ReplayPolicy::from(start + Duration::from_secs(1)))?;
    topic.try_publish(Message::new("order 5").group(GroupId::new("ann")?))?;
    let lines = late.show("who came late, from the second order on");
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[3], "ann: order 5");
    Ok(())
}
