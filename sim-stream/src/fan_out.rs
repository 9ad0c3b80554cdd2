//! Enhanced fan-out: registered consumers, to whom each shard's records are pushed at a rate of their own.
//!
//! A consumer is a name that is registered with a stream. It subscribes to shards, one [`Subscription`] each, and gets
//! [`FanOutEvent`]s as soon as records arrive. What it takes counts in no shared reader's limit: with
//! [`Throughput`](crate::Throughput) in the stream's limits each consumer has
//! [`fan_out_bytes`](crate::Throughput::fan_out_bytes) a second (2 MiB) from each shard; without, there is no limit.
//!
//! # Guarantees
//!
//! - Records of a shard come in order, each once in a subscription, without a gap: if retention was faster, the
//!   subscription says how many were lost ([`SubscriptionError::Trimmed`]).
//! - Of each consumer and shard one subscription is live. A newer one takes over, and the older one ends with
//!   [`SubscriptionError::TakenOver`]. With a
//!   [lifetime](crate::Limits::subscription_lifetime) (5 minutes in the AWS profile) the newer one is refused for 5
//!   seconds, as Kinesis does.
//! - After a lifetime a subscription ends; the last event's
//!   [`continuation`](FanOutEvent::continuation) tells where to go on.
//! - Bounded: [`Limits::consumers`](crate::Limits::consumers) consumers (20 in the AWS profile, 50 with on-demand
//!   Advantage), one channel for each consumer and listed shard; a subscription holds at most one run of records.

mod channel;
mod subscription;

use std::collections::BTreeMap;

use sim_core::sync::{Arc, Mutex};
use sim_core::time::Timestamp;

use self::channel::Channel;
use crate::config::check_name;
use crate::error::{ConsumerError, SubscribeError};
use crate::message::{ShardId, StartingPosition};
use crate::stream::Stream;
use crate::stream::shared::count;

pub use self::subscription::{FanOutEvent, Subscription, SubscriptionError};

/// A registered consumer: `ConsumerDescription`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ConsumerInfo {
    /// Its name, unique in its stream.
    pub name: String,
    /// When it was registered.
    pub registered_at: Timestamp,
}

/// The consumers of one stream.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    consumers: Mutex<BTreeMap<String, Consumer>>,
}

#[derive(Debug)]
struct Consumer {
    registered_at: Timestamp,
    /// What it gets from each shard that it has ever subscribed to. Bound: the shards that the stream lists.
    channels: BTreeMap<ShardId, Arc<Channel>>,
}

impl<T: Send + Sync + 'static> Stream<T> {
    /// Registers a consumer for enhanced fan-out: `RegisterStreamConsumer`. It is active at once.
    ///
    /// # Errors
    /// [`ConsumerError`]: the name is not one or is taken, there are as many consumers as there may be, or the stream is
    /// closed.
    ///
    /// # Examples
    ///
    /// ```
    /// use sim_stream::{PartitionKey, Record, StartingPosition, Stream, StreamConfig};
    ///
    /// let stream = Stream::new(StreamConfig::new("departures"))?;
    /// stream.register_consumer("board")?;
    /// let placed = stream.try_put(Record::new(PartitionKey::new("AA")?, "flight 1"))?;
    ///
    /// let start = StartingPosition::TrimHorizon;
    /// let mut subscription = stream.subscribe("board", placed.shard_id, start)?;
    /// let event = subscription.try_next()?;
    /// assert_eq!(event.records().iter().map(|record| *record.value()).collect::<Vec<_>>(), ["flight 1"]);
    /// assert_eq!(event.continuation(), Some(placed.sequence_number));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn register_consumer(&self, name: &str) -> Result<ConsumerInfo, ConsumerError> {
        let shared = self.shared();
        check_name("consumer", name)?;
        if shared.table().is_closed() {
            return Err(ConsumerError::Closed);
        }
        let registered_at = shared.clock.timestamp(shared.clock.now());
        let mut consumers = shared.fan_out.consumers.lock();
        if consumers.contains_key(name) {
            return Err(ConsumerError::Exists { name: name.into() });
        }
        let limit = shared.config.limits.consumers;
        if consumers.len() >= limit {
            return Err(ConsumerError::TooMany { limit });
        }
        let consumer = Consumer {
            registered_at,
            channels: BTreeMap::new(),
        };
        let info = consumer.info(name);
        consumers.insert(name.into(), consumer);
        Ok(info)
    }

    /// Removes a consumer: `DeregisterStreamConsumer`. Its subscriptions end with [`SubscriptionError::Deregistered`].
    ///
    /// # Errors
    /// [`ConsumerError::Unknown`].
    pub fn deregister_consumer(&self, name: &str) -> Result<ConsumerInfo, ConsumerError> {
        let removed = self.shared().fan_out.consumers.lock().remove(name);
        let consumer = removed.ok_or_else(|| ConsumerError::Unknown { name: name.into() })?;
        for (shard, channel) in &consumer.channels {
            channel.end();
            if let Some(shard) = self.shared().shard(*shard) {
                shard.arrivals.notify_all();
            }
        }
        Ok(consumer.info(name))
    }

    /// Describes a consumer: `DescribeStreamConsumer`.
    ///
    /// # Errors
    /// [`ConsumerError::Unknown`].
    pub fn describe_consumer(&self, name: &str) -> Result<ConsumerInfo, ConsumerError> {
        let consumers = self.shared().fan_out.consumers.lock();
        match consumers.get(name) {
            Some(consumer) => Ok(consumer.info(name)),
            None => Err(ConsumerError::Unknown { name: name.into() }),
        }
    }

    /// The registered consumers, by name: `ListStreamConsumers`.
    #[must_use]
    pub fn consumers(&self) -> Vec<ConsumerInfo> {
        let consumers = self.shared().fan_out.consumers.lock();
        consumers
            .iter()
            .map(|(name, consumer)| consumer.info(name))
            .collect()
    }

    /// Subscribes a consumer to a shard: `SubscribeToShard`. A subscription of the same consumer to the same shard that
    /// is live ends.
    ///
    /// # Errors
    /// [`SubscribeError`]: no such consumer or shard, no such position, or, with a
    /// [lifetime](crate::Limits::subscription_lifetime), too soon after the last.
    pub fn subscribe(
        &self,
        consumer: &str,
        shard: ShardId,
        start: StartingPosition,
    ) -> Result<Subscription<T>, SubscribeError> {
        let shared = self.shared();
        let now = shared.clock.now();
        let channel = self.channel(consumer, shard)?;
        let lifetime = shared.config.limits.subscription_lifetime;
        if let Some(channel) = &channel
            && lifetime.is_some()
            && let Err(error) = channel.admit(shard, now)
        {
            shared.counters.add(count::FAN_RATE_EXCEEDED, 1);
            return Err(error);
        }
        let cursor = Subscription::cursor(self, shard, start)?;
        let Some(channel) = channel else {
            // A cursor was made, so the shard is there, and so is the channel.
            return Err(SubscribeError::Unknown {
                name: consumer.into(),
            });
        };
        let number = channel.subscribe(now);
        shared.counters.add(count::FAN_SUBSCRIPTIONS, 1);
        let until = lifetime.map_or(sim_core::time::Instant::NEVER, |lifetime| now + lifetime);
        let subscription = Subscription::new(self.clone(), cursor, channel, number, until);
        subscription.wake_former();
        Ok(subscription)
    }

    /// What a consumer gets from a shard; `None` when there is no such shard.
    fn channel(
        &self,
        consumer: &str,
        shard: ShardId,
    ) -> Result<Option<Arc<Channel>>, SubscribeError> {
        let shared = self.shared();
        let is_there = shared.shard(shard).is_some();
        let table = shared.table();
        let mut consumers = shared.fan_out.consumers.lock();
        let consumer = consumers
            .get_mut(consumer)
            .ok_or_else(|| SubscribeError::Unknown {
                name: consumer.into(),
            })?;
        if !is_there {
            return Ok(None);
        }
        if !consumer.channels.contains_key(&shard) {
            consumer
                .channels
                .retain(|known, _| table.shard(*known).is_some());
        }
        let channel = consumer.channels.entry(shard).or_insert_with(|| {
            let throughput = shared.config.limits.throughput.as_ref();
            Arc::new(Channel::new(shared.clock.now(), throughput))
        });
        Ok(Some(Arc::clone(channel)))
    }
}

impl Consumer {
    fn info(&self, name: &str) -> ConsumerInfo {
        ConsumerInfo {
            name: name.into(),
            registered_at: self.registered_at,
        }
    }
}
