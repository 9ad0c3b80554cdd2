//! What one consumer gets from one shard: which subscription is live, and how much may be pushed.

use std::time::Duration;

use sim_core::sync::Mutex;
use sim_core::time::Instant;

use super::subscription::SubscriptionError;
use crate::config::Throughput;
use crate::error::SubscribeError;
use crate::machine::limits::FanOutLimit;
use crate::message::ShardId;

/// For how long after a subscription another is refused, in the AWS profile. Source: Kinesis's `SubscribeToShard`.
const IN_USE: Duration = Duration::from_secs(5);
/// The time between two calls, in the AWS profile. Source: as above.
const BETWEEN_CALLS: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Channel {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The number of the live subscription: how many there have been.
    live: u64,
    /// The consumer was deregistered.
    is_over: bool,
    subscribed_at: Option<Instant>,
    called_at: Option<Instant>,
    limit: Option<FanOutLimit>,
}

impl Channel {
    pub(super) fn new(now: Instant, throughput: Option<&Throughput>) -> Self {
        Self {
            state: Mutex::new(State {
                live: 0,
                is_over: false,
                subscribed_at: None,
                called_at: None,
                limit: throughput.map(|limits| FanOutLimit::new(now, limits)),
            }),
        }
    }

    /// Whether a subscription may be asked for now.
    pub(super) fn admit(&self, shard_id: ShardId, now: Instant) -> Result<(), SubscribeError> {
        let mut state = self.state.lock();
        if let Some(retry_at) = state.subscribed_at.map(|at| at + IN_USE)
            && now < retry_at
        {
            return Err(SubscribeError::InUse { shard_id, retry_at });
        }
        if let Some(retry_at) = state.called_at.map(|at| at + BETWEEN_CALLS)
            && now < retry_at
        {
            return Err(SubscribeError::TooOften { shard_id, retry_at });
        }
        state.called_at = Some(now);
        Ok(())
    }

    /// Begins a subscription, which ends the one before.
    pub(super) fn subscribe(&self, now: Instant) -> u64 {
        let mut state = self.state.lock();
        state.live += 1;
        state.subscribed_at = Some(now);
        state.live
    }

    /// Whether the subscription is the live one.
    pub(super) fn check(&self, number: u64) -> Result<(), SubscriptionError> {
        let state = self.state.lock();
        if state.is_over {
            Err(SubscriptionError::Deregistered)
        } else if state.live != number {
            Err(SubscriptionError::TakenOver)
        } else {
            Ok(())
        }
    }

    /// Lets a push pass, or tells when it may.
    pub(super) fn push(&self, now: Instant, bytes: u64) -> Result<(), Instant> {
        match &mut self.state.lock().limit {
            Some(limit) => limit.push(now, bytes).map_err(|exceeded| exceeded.retry_at),
            None => Ok(()),
        }
    }

    /// Ends it for good.
    pub(super) fn end(&self) {
        self.state.lock().is_over = true;
    }
}
