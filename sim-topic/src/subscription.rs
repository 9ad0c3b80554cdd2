//! The handle of a subscription.

use std::fmt;

use sim_core::seam::Sink;
use sim_core::sync::Arc;

use crate::error::{ReplayError, SetError};
use crate::machine::archive::ReplayPolicy;
use crate::machine::retry::{RetryPolicy, Throttle};
use crate::message::{DeadLetter, SubscriptionId};
use crate::settings::{Filter, check_retry};
use crate::stats::SubscriptionStats;
use crate::topic::ReplayProgress;
use crate::topic::hub::Hub;
use crate::topic::lane::{Rules, Sub, mode};

/// A subscription: a cheap handle. Dropping it ends nothing; [`unsubscribe`](Self::unsubscribe) does.
pub struct Subscription<T: Send + Sync + 'static> {
    hub: Arc<Hub<T>>,
    sub: Arc<Sub<T>>,
}

/// Where a subscription is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum SubscriptionState {
    /// Its endpoint has not confirmed yet, or was told that it is cancelled and may restore it.
    Unconfirmed,
    /// It gets messages.
    Active,
    /// It gets messages into its backlog and delivers none.
    Paused,
    /// It is over.
    Over,
}

impl<T: Send + Sync + 'static> Subscription<T> {
    pub(crate) fn of(hub: &Arc<Hub<T>>, sub: Arc<Sub<T>>) -> Self {
        Self {
            hub: Arc::clone(hub),
            sub,
        }
    }

    /// The subscription's id, unique within its topic.
    #[must_use]
    pub fn id(&self) -> SubscriptionId {
        self.sub.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.sub.name
    }

    /// Where it is in its life.
    #[must_use]
    pub fn state(&self) -> SubscriptionState {
        match self.sub.mode() {
            mode::UNCONFIRMED => SubscriptionState::Unconfirmed,
            mode::OVER => SubscriptionState::Over,
            _ if self.sub.lane.lock().paused => SubscriptionState::Paused,
            _ => SubscriptionState::Active,
        }
    }

    /// A snapshot of its counts.
    #[must_use]
    pub fn stats(&self) -> SubscriptionStats {
        self.sub.stats()
    }

    /// Stops delivering. Messages go on to come into the backlog; what is being delivered is finished.
    ///
    /// # Errors
    /// [`SetError::Over`].
    pub fn pause(&self) -> Result<(), SetError> {
        self.hub.set_paused(&self.sub, true)
    }

    /// Goes on delivering; a sink is tried with the backlog at once, in this call.
    ///
    /// # Errors
    /// [`SetError::Over`].
    pub fn resume(&self) -> Result<(), SetError> {
        self.hub.set_paused(&self.sub, false)
    }

    /// Replaces the filter. Messages that were accepted before stay.
    ///
    /// # Errors
    /// [`SetError`]; nothing changed.
    pub fn set_filter(&self, filter: Filter<T>) -> Result<(), SetError> {
        self.hub.set_filter(&self.sub, filter)
    }

    /// Replaces the retry policy, from the next failure on.
    ///
    /// # Errors
    /// [`SetError`]; nothing changed.
    pub fn set_retry(&self, retry: RetryPolicy) -> Result<(), SetError> {
        check_retry(&retry)?;
        self.change_rules(|rules| rules.retry = retry)
    }

    /// Replaces the dead-letter sink, from the next message on that is given up.
    ///
    /// # Errors
    /// [`SetError::Over`].
    pub fn set_dead_letters(
        &self,
        sink: Option<Arc<dyn Sink<DeadLetter<T>>>>,
    ) -> Result<(), SetError> {
        self.change_rules(|rules| rules.dead_letters = sink)
    }

    /// Replaces the throttle.
    ///
    /// # Errors
    /// [`SetError::Over`].
    pub fn set_throttle(&self, throttle: Option<Throttle>) -> Result<(), SetError> {
        {
            let mut lane = self.sub.lane.lock();
            if lane.over {
                return Err(SetError::Over);
            }
            lane.bucket = throttle.map(Throttle::bucket);
            lane.throttled_until = sim_core::time::Instant::ORIGIN;
            self.sub.settle_mode(&lane, self.hub.is_fifo());
        }
        self.hub.attend(&self.sub, self.hub.clock.now());
        Ok(())
    }

    /// Replays the archive of a FIFO topic to this subscription alone: what was published in the given span of time, and
    /// then, without a gap, what was published since the replay began. Messages of the first kind are
    /// [marked](crate::Notification::is_replayed).
    ///
    /// # Errors
    /// [`ReplayError`]; nothing changed.
    pub fn replay(&self, policy: ReplayPolicy) -> Result<(), ReplayError> {
        self.hub.start_replay(&self.sub, policy)
    }

    /// How far the replay is, or the last one came; none when there never was one.
    #[must_use]
    pub fn replay_progress(&self) -> Option<ReplayProgress> {
        self.sub.replay.lock().progress()
    }

    /// Ends the subscription. What is pending is dropped and counted; what others get is not touched. An endpoint is
    /// told, with a token that restores the subscription.
    pub fn unsubscribe(&self) {
        self.hub.cancel(&self.sub);
    }

    fn change_rules(&self, change: impl FnOnce(&mut Rules<T>)) -> Result<(), SetError> {
        if self.sub.mode() == mode::OVER {
            return Err(SetError::Over);
        }
        self.sub.rules.update(|rules| {
            let mut rules = rules.clone();
            change(&mut rules);
            rules
        });
        Ok(())
    }
}

impl<T: Send + Sync + 'static> Clone for Subscription<T> {
    fn clone(&self) -> Self {
        Self {
            hub: Arc::clone(&self.hub),
            sub: Arc::clone(&self.sub),
        }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("id", &self.sub.id)
            .field("name", &self.sub.name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
