//! Endpoints that must confirm: tokens, confirming, cancelling.
//!
//! A token is the SHA-256 of the topic's secret, its name, the subscription and a serial: nobody can guess one without the
//! secret, and a replay makes the same ones.

use sha2::{Digest, Sha256};
use sim_core::id::Id;
use sim_core::sync::Arc;
use sim_core::sync::atomic::Ordering;
use sim_core::time::Instant;

use crate::error::ConfirmError;
use crate::message::{ConfirmationRequest, Delivery, SubscriptionId, Token};
use crate::subscriber::Target;
use crate::topic::hub::{Hub, Registry};
use crate::topic::lane::{Item, Sub, What, mode};

/// Set in the number of an id that names a request and no message.
const REQUEST: u64 = 1 << 61;

impl<T: Send + Sync + 'static> Hub<T> {
    /// Makes a token for a subscription, and what its endpoint is sent.
    pub(crate) fn issue_token(
        &self,
        registry: &mut Registry<T>,
        sub: &Arc<Sub<T>>,
        now: Instant,
    ) -> ConfirmationRequest {
        let serial = registry.token_serial;
        registry.token_serial += 1;
        let mut hash = Sha256::new();
        hash.update(self.secret);
        hash.update(self.info.name.as_bytes());
        hash.update(sub.id.get().to_le_bytes());
        hash.update(serial.to_le_bytes());
        let token = Token::from_digest(hash.finalize().into());
        let ends = now + self.config.token_validity;
        registry.tokens.issue(token.clone(), sub.id, ends, serial);
        ConfirmationRequest {
            id: Id::from_parts(self.info.namespace, REQUEST | serial),
            topic: self.info.name.to_string(),
            subscription: sub.id,
            token,
            timestamp: self.clock.timestamp(now),
        }
    }

    /// Forgets tokens that have expired, and takes out the subscriptions that nobody can confirm any more; the caller
    /// [retires](Self::retire) them without the lock. An expired token is remembered as long again as it was
    /// valid, so that whoever comes late learns it.
    pub(crate) fn forget_expired(
        &self,
        registry: &mut Registry<T>,
        now: Instant,
    ) -> Vec<Arc<Sub<T>>> {
        let mut over = Vec::new();
        while let Some(last_of) = registry.tokens.expire(now, self.config.token_validity) {
            let is_lost = |sub: &Arc<Sub<T>>| sub.mode() == mode::UNCONFIRMED;
            if let Some(id) = last_of
                && registry.subs.get(&id).is_some_and(is_lost)
                && let Some(sub) = registry.subs.remove(&id)
            {
                if matches!(&*sub.filter.load(), crate::settings::Filter::Policy(_)) {
                    registry.policies -= 1;
                }
                if !sub.was_confirmed.load(Ordering::Relaxed) {
                    registry.deleted += 1;
                }
                registry.leave(&sub);
                over.push(sub);
            }
        }
        over
    }

    pub(crate) fn confirm(&self, token: &Token) -> Result<SubscriptionId, ConfirmError> {
        if self.is_closed() {
            return Err(ConfirmError::Closed);
        }
        let now = self.clock.now();
        let mut registry = self.registry.lock();
        let expired = self.forget_expired(&mut registry, now);
        let issued = registry.tokens.get(token);
        let sub = issued.and_then(|issued| registry.subs.get(&issued.subscription).cloned());
        drop(registry);
        self.retire(expired);
        let (Some(sub), Some(issued)) = (sub, issued) else {
            return Err(ConfirmError::Unknown);
        };
        let ends = issued.ends;
        if ends <= now {
            return Err(ConfirmError::Expired {
                ago: now.saturating_duration_since(ends),
                validity: self.config.token_validity,
            });
        }
        {
            let lane = sub.lane.lock();
            if lane.over {
                return Err(ConfirmError::Unknown);
            }
            if sub.mode() == mode::UNCONFIRMED {
                sub.mode.store(mode::QUEUED, Ordering::Release);
                sub.settle_mode(&lane, self.is_fifo());
                sub.was_confirmed.store(true, Ordering::Relaxed);
            }
        }
        self.retable(&sub);
        Ok(sub.id)
    }

    /// Ends a subscription as its owner asks: an endpoint is told, and may restore it by the token that it is sent.
    pub(crate) fn cancel(&self, sub: &Arc<Sub<T>>) {
        let is_endpoint = matches!(sub.target, Target::Endpoint(_));
        let request = match is_endpoint && !self.is_closed() {
            true => self.suspend(sub),
            false => None,
        };
        let Some(request) = request else {
            // Not confirmed, or cancelled before: nobody has to be told.
            self.end(sub);
            return;
        };
        self.retable(sub);
        self.empty(sub);
        self.send_control(sub, Delivery::Unsubscribed(request));
    }

    /// Takes an endpoint back to where it has to confirm, and makes the token by which it does; none when it stands
    /// there already or is over.
    fn suspend(&self, sub: &Arc<Sub<T>>) -> Option<ConfirmationRequest> {
        let now = self.clock.now();
        // Under both locks: who ends or cancels it meanwhile comes wholly before this or wholly after it.
        let mut registry = self.registry.lock();
        if !registry.subs.contains_key(&sub.id) {
            return None;
        }
        {
            let lane = sub.lane.lock();
            if lane.over || sub.mode() > mode::QUEUED {
                return None;
            }
            sub.mode.store(mode::UNCONFIRMED, Ordering::Release);
        }
        registry.deleted += 1;
        Some(self.issue_token(&mut registry, sub, now))
    }

    /// Puts something that is no message into the lane of an endpoint. It goes before the messages, and also while
    /// the subscription is paused. Where there is no room for it, it is lost, as if the endpoint had not heard it.
    pub(crate) fn send_control(&self, sub: &Arc<Sub<T>>, delivery: Delivery<T>) {
        let refused = {
            let mut lane = sub.lane.lock();
            let item = Item {
                what: What::Control(Box::new(delivery)),
                tried: 0,
                verdict: std::cell::Cell::new(None),
            };
            match lane.over {
                true => Some(item),
                false => lane.notices.push(None, item).err(),
            }
        };
        drop(refused);
        self.driver.make_ready(sub);
    }
}
