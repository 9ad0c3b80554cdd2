//! The pipeline, from a departure to the queues.
//!
//! ```text
//!                   by carrier          leases                filters
//!  departures ──▶ stream, 4 shards ──▶ publishers ──▶ topic ─┬─ cancelled ────────────▶ rebooking
//!                                      (a group)      (FIFO) ├─ over 60 minutes late ─▶ late
//!                                                            └─ 2,000 miles or more ──▶ long-haul
//! ```
//!
//! A publisher that crashes has published what it has not checkpointed. Who takes its lease reads that again and
//! publishes it again, and the topic recognises it by the flight's row: the queues see each flight once.

use std::time::Duration;

use sim_core::attributes::{AttributeError, Attributes, Value};
use sim_core::clock::Clock;
use sim_core::time::Instant;
use sim_queue::{DeduplicationId, GroupId, Kind, Message, OnDrop, Queue, QueueConfig};
use sim_stream::{
    ConsumerGroup, GroupConfig, JoinError, NextError, PartitionKey, Record, ShardId, Stream,
    StreamConfig, Worker,
};
use sim_topic::filter::{FilterPolicy, Scope};
use sim_topic::{Filter, Notification, Subscriber, Subscription, SubscriptionConfig};
use sim_topic::{Topic, TopicConfig};

use crate::flights::Flight;
use crate::world::{Counters, Outcome};

/// What stands in the queues: a pointer to the flight, with what the topic knows of it.
pub(crate) type Notice = Notification<Flight>;

/// The queues that the subscriptions fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The flight was cancelled: a desk rebooks its passengers.
    Rebooking,
    /// It left more than an hour late: a desk looks after who misses a connection.
    Late,
    /// It goes far: a crew is briefed, one after the other for each carrier.
    LongHaul,
}

impl Way {
    /// All of them, in the order of their indices.
    pub(crate) const ALL: [Self; 3] = [Self::Rebooking, Self::Late, Self::LongHaul];

    /// The name of the queue and of its subscription.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rebooking => "rebooking",
            Self::Late => "late",
            Self::LongHaul => "long-haul",
        }
    }

    /// The filter policy of the subscription, on the attributes of [`attributes`].
    const fn policy(self) -> &'static str {
        match self {
            Self::Rebooking => r#"{"status": ["cancelled"]}"#,
            Self::Late => r#"{"minutes_late": [{"numeric": [">", 60]}]}"#,
            Self::LongHaul => r#"{"miles": [{"numeric": [">=", 2000]}]}"#,
        }
    }

    /// What the policy says, said again on the flight itself: the table compares the two.
    pub(crate) fn takes(self, flight: &Flight) -> bool {
        match self {
            Self::Rebooking => flight.is_cancelled(),
            Self::Late => flight.departure_delay.is_some_and(|minutes| minutes > 60),
            Self::LongHaul => flight.distance >= 2_000,
        }
    }
}

/// Shards at first; one is split and merged again in the course of the year.
const SHARDS: u32 = 4;
/// Publishers in the group.
const PUBLISHERS: u64 = 3;
/// How long a crashed publisher's lease holds up its shards: less than the topic remembers rows, so that what is
/// published again is recognised.
pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// How long a desk or crew may hold a flight before it is taken for lost.
pub(crate) const VISIBILITY: Duration = Duration::from_secs(45 * 60);

/// A publisher: a worker of the group. One that crashed is replaced by a new worker, under the same number here.
struct Publisher {
    worker: Worker<Flight>,
    number: u64,
}

/// From a departure to the queues.
pub(crate) struct Pipeline {
    pub(crate) stream: Stream<Flight>,
    group: ConsumerGroup<Flight>,
    publishers: Vec<Publisher>,
    pub(crate) topic: Topic<Flight>,
    pub(crate) subscriptions: [Subscription<Flight>; 3],
    pub(crate) queues: [Queue<Notice>; 3],
    /// Records that publishers read, those that were read again included.
    pub(crate) read: u64,
    /// Publishers that crashed.
    pub(crate) crashed: u64,
}

impl Pipeline {
    /// Lays it.
    ///
    /// # Errors
    ///
    /// Never for these settings; each part checks its own.
    pub(crate) fn new(seed: u64, clock: &Clock) -> Result<Self, Box<dyn std::error::Error>> {
        let stream = Stream::with_clock(
            StreamConfig::new("departures").shards(SHARDS),
            clock.clone(),
        )?;
        let group = ConsumerGroup::new(
            &stream,
            GroupConfig {
                lease_duration: LEASE,
                ..GroupConfig::new("publishers")
            },
        )?;
        let publishers = (1..=PUBLISHERS)
            .map(|number| {
                let worker = group.join()?;
                Ok(Publisher { worker, number })
            })
            .collect::<Result<Vec<_>, JoinError>>()?;

        let topic = Topic::with_clock(TopicConfig::fifo("departures"), clock.clone())?;
        let queue = |way: Way| {
            let config = QueueConfig {
                // Long hauls keep the topic's order, carrier by carrier, into the queue and out of it.
                kind: match way {
                    Way::LongHaul => Kind::fifo(),
                    Way::Rebooking | Way::Late => Kind::Standard,
                },
                visibility_timeout: VISIBILITY,
                on_drop: OnDrop::Expire,
                seed,
                ..QueueConfig::new(way.name())
            };
            Queue::with_clock(config, clock.clone())
        };
        let queues = [
            queue(Way::Rebooking)?,
            queue(Way::Late)?,
            queue(Way::LongHaul)?,
        ];
        let subscribe = |way: Way| {
            let subscriber = Subscriber::raw(queues[way as usize].clone(), forward(way));
            let filter = FilterPolicy::parse(way.policy(), Scope::MessageAttributes)?;
            let config = SubscriptionConfig {
                filter: Filter::Policy(filter),
                ..SubscriptionConfig::new(way.name())
            };
            topic
                .subscribe(subscriber, config)
                .map_err(Box::<dyn std::error::Error>::from)
        };
        let subscriptions = [
            subscribe(Way::Rebooking)?,
            subscribe(Way::Late)?,
            subscribe(Way::LongHaul)?,
        ];
        Ok(Self {
            stream,
            group,
            publishers,
            topic,
            subscriptions,
            queues,
            read: 0,
            crashed: 0,
        })
    }

    /// A flight enters the stream.
    pub(crate) fn put(&self, flight: Flight) -> ShardId {
        let key = PartitionKey::new(flight.carrier.as_str()).expect("a code is a valid key");
        let put = self.stream.try_put(Record::new(key, flight));
        put.expect("the stream is open and drops its oldest when it is full")
            .shard_id
    }

    /// Publishers read what has come and publish it, in turns, until nobody finds more. After each batch `crashes`
    /// decides whether its publisher is still there to checkpoint it; `published` hears of each flight, and
    /// whether the topic recognised it.
    pub(crate) fn pump(
        &mut self,
        mut crashes: impl FnMut(u64) -> bool,
        mut published: impl FnMut(&Flight, u64, bool),
    ) {
        let mut idle = 0;
        let mut turn = 0;
        while idle < self.publishers.len() {
            turn = (turn + 1) % self.publishers.len();
            let Publisher { worker, number } = &mut self.publishers[turn];
            let batch = match worker.try_next() {
                Ok(batch) => batch,
                Err(NextError::Empty) => {
                    idle += 1;
                    continue;
                }
                Err(other) => panic!("records stay for a day, and the stream open: {other}"),
            };
            idle = 0;
            for record in batch.iter() {
                let taken = self.topic.try_publish(message(record.value()));
                let taken = taken.expect("within the topic's limits");
                published(record.value(), *number, taken.duplicate);
            }
            self.read += batch.len() as u64;
            if crashes(*number) {
                // Dropped without a word: its leases run on to their end.
                self.crashed += 1;
                drop(batch);
                *worker = self
                    .group
                    .join()
                    .expect("a group has room for a few workers");
            } else {
                batch.checkpoint().expect("the lease is this worker's");
            }
        }
    }

    /// Doubles the shards, or halves them again.
    pub(crate) fn reshard(&self) -> u32 {
        let open = u32::try_from(self.stream.open_shard_count()).unwrap_or(u32::MAX);
        let target = if open > SHARDS { SHARDS } else { SHARDS * 2 };
        self.stream
            .update_shard_count(target)
            .expect("twice or half of what there is");
        target
    }

    /// When something is due after `now` though nothing comes.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let queues = self.queues.iter().filter_map(Queue::next_deadline);
        queues
            .chain(self.topic.next_deadline())
            .filter(|at| *at > now)
            .min()
    }

    /// Serves what is due.
    pub(crate) fn advance(&self, now: Instant) {
        self.topic.advance(now);
        for queue in &self.queues {
            queue.advance();
        }
    }

    /// What each part says of itself.
    pub(crate) fn count(&self, outcome: &mut Outcome) {
        outcome.put = self.stream.stats().incoming_records;
        outcome.read = self.read;
        outcome.publishers_crashed = self.crashed;
        let topic = self.topic.stats();
        outcome.published = topic.published;
        outcome.recognised = topic.deduplicated;
        for way in Way::ALL {
            let queue = self.queues[way as usize].stats();
            let subscription = self.subscriptions[way as usize].stats();
            outcome.counters[way as usize] = Counters {
                delivered: subscription.delivered,
                filtered: subscription.filtered.total(),
                sent: queue.sent,
                received: queue.received,
                deleted: queue.deleted,
                lapsed: queue.lapsed,
                redriven: queue.redriven,
                left: queue.visible + queue.in_flight,
            };
        }
    }
}

/// What is published for a flight: in the order of its carrier, known by its row.
fn message(flight: &Flight) -> sim_topic::Message<Flight> {
    let group = sim_topic::GroupId::new(flight.carrier.as_str()).expect("a code is a valid group");
    let row = sim_topic::DeduplicationId::new(flight.row.to_string());
    sim_topic::Message::new(*flight)
        .attributes(attributes(flight).expect("names and numbers of the demo's own"))
        .group(group)
        .deduplication_id(row.expect("a number is a valid id"))
}

/// What stands in a queue for a notification: the notification, and on the FIFO queue its group and id.
fn forward(way: Way) -> impl Fn(&Notice) -> Message<Notice> {
    move |notice| {
        let message = Message::new(notice.clone());
        if way != Way::LongHaul {
            return message;
        }
        let group = GroupId::new(notice.carrier.as_str()).expect("a code is a valid group");
        let row = DeduplicationId::new(notice.row.to_string()).expect("a number is a valid id");
        message.group(group).deduplication_id(row)
    }
}

/// What the filters look at.
fn attributes(flight: &Flight) -> Result<Attributes, AttributeError> {
    let mut attributes = Attributes::new();
    match flight.departure_delay {
        Some(minutes) => {
            attributes.insert("status", "departed")?;
            attributes.insert("minutes_late", Value::number(minutes.to_string())?)?;
        }
        None => {
            attributes.insert("status", "cancelled")?;
        }
    }
    attributes.insert("miles", Value::number(flight.distance.to_string())?)?;
    Ok(attributes)
}
