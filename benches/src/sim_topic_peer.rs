//! sim-topic as a peer of the fan-out: its receivers, which share one log, and its sinks, which are pushed to.

use sim_core::seam::{Refused, Sink};
use sim_topic::{
    LogConfig, Notification, Receiver, ReceiverConfig, Subscriber as Target, SubscriptionConfig,
    Topic, TopicConfig, WhenBehind,
};

use crate::fanout::{Subscriber, one_by_one, run};
use crate::pattern::Peer;
use crate::payload::{Payload, Tally};
use crate::tasks::{TaskReceiver, TaskSender};

/// How many messages a subscriber takes at once, at the most.
const TAKEN: usize = 256;

/// The publishing side; with it goes the topic, so that subscribers see the end.
struct Publisher<T: Payload>(Topic<T>);

impl<T: Payload> TaskSender<T> for Publisher<T> {
    async fn send(&mut self, message: T) {
        assert!(
            self.0.try_publish(message).is_ok(),
            "room for the whole run"
        );
    }
}

impl<T: Payload> Drop for Publisher<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A receiver that is asked for one message at a time, and lends it.
struct Single<T: Payload>(Receiver<T>);

impl<T: Payload> Subscriber for Single<T> {
    async fn receive_some(&mut self, tally: &mut Tally) -> bool {
        let Ok(received) = self.0.receive_ref().await else {
            return false;
        };
        tally.add(received.value());
        true
    }
}

/// A receiver that is asked for one message at a time, to keep.
struct Owned<T: Payload>(Receiver<T>);

impl<T: Payload> TaskReceiver<T> for Owned<T> {
    async fn receive(&mut self) -> Option<T> {
        let notification = self.0.receive().await.ok()?;
        Some(notification.value().clone())
    }
}

/// A receiver that takes what there is, and looks at it where it stands.
struct Batched<T: Payload>(Receiver<T>);

impl<T: Payload> Subscriber for Batched<T> {
    async fn receive_some(&mut self, tally: &mut Tally) -> bool {
        let Ok(batch) = self.0.receive_batch(TAKEN).await else {
            return false;
        };
        batch.for_each_value(|value| tally.add(value));
        true
    }
}

/// A flume channel as a sink that is pushed to.
struct Channel<T>(flume::Sender<T>);

impl<T: Payload> Sink<T> for Channel<T> {
    fn try_deliver(&self, item: T) -> Result<(), Refused<T>> {
        self.0
            .send(item)
            .map_err(|refused| Refused::closed(refused.into_inner()))
    }
}

/// A topic with room for the whole run, as its rivals have.
fn topic<T: Payload>(count: u64) -> Topic<T> {
    let room = usize::try_from(count).unwrap_or(usize::MAX);
    let config = TopicConfig {
        log: LogConfig {
            capacity: room.max(1_024) * 2,
            max_bytes: 1 << 30,
            when_behind: WhenBehind::Lag,
        },
        ..TopicConfig::new("bench")
    };
    Topic::new(config).expect("the configuration is sound")
}

fn receivers<T: Payload>(topic: &Topic<T>, count: usize) -> Vec<Receiver<T>> {
    (0..count)
        .map(|_| {
            let receiver = topic.receiver(ReceiverConfig::default());
            receiver.expect("a topic has room for a few receivers")
        })
        .collect()
}

/// The peers for so many subscribers.
///
/// # Panics
/// In a run, when the topic refuses what it was configured for.
#[must_use]
pub fn peers<T: Payload>(subscribers: usize) -> Vec<Peer> {
    vec![
        Peer::new("sim-topic", move |count| {
            let topic = topic::<T>(count);
            let receivers = receivers(&topic, subscribers).into_iter().map(Single);
            run::<T, _, _>((Publisher(topic), receivers.collect()), count)
        }),
        Peer::new("sim-topic-owned", move |count| {
            let topic = topic::<T>(count);
            let receivers = receivers(&topic, subscribers).into_iter().map(Owned);
            run::<T, _, _>(
                (Publisher(topic), one_by_one::<T, _>(receivers.collect())),
                count,
            )
        }),
        Peer::new("sim-topic-batch", move |count| {
            let topic = topic::<T>(count);
            let receivers = receivers(&topic, subscribers).into_iter().map(Batched);
            run::<T, _, _>((Publisher(topic), receivers.collect()), count)
        }),
        Peer::new("sim-topic-sinks", move |count| {
            let topic = topic::<T>(count);
            let mut channels = Vec::with_capacity(subscribers);
            for _ in 0..subscribers {
                let (sender, receiver) = flume::unbounded();
                let value = |notification: &Notification<T>| notification.value().clone();
                topic
                    .subscribe(
                        Target::raw(Channel(sender), value),
                        SubscriptionConfig::default(),
                    )
                    .expect("a topic has room for a few subscriptions");
                channels.push(receiver);
            }
            run::<T, _, _>((Publisher(topic), one_by_one::<T, _>(channels)), count)
        }),
    ]
}
