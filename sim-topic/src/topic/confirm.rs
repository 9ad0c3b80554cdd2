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
        registry.tokens.insert(token.clone(), sub.id);
        let ends = now + self.config.token_validity;
        registry.token_ends.push_back((ends, token.clone()));
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
        while let Some((ends, _)) = registry.token_ends.front()
            && *ends + self.config.token_validity <= now
        {
            let Some((_, token)) = registry.token_ends.pop_front() else {
                break;
            };
            let Some(id) = registry.tokens.remove(&token) else {
                continue;
            };
            let has_another = registry.tokens.values().any(|other| *other == id);
            let is_lost = |sub: &Arc<Sub<T>>| sub.mode() == mode::UNCONFIRMED;
            if !has_another
                && registry.subs.get(&id).is_some_and(is_lost)
                && let Some(sub) = registry.subs.remove(&id)
            {
                if matches!(&*sub.filter.load(), crate::settings::Filter::Policy(_)) {
                    registry.policies -= 1;
                }
                if !sub.was_confirmed.load(Ordering::Relaxed) {
                    registry.deleted += 1;
                }
                registry.leaving.push(Arc::downgrade(&sub));
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
        let found = registry.tokens.get(token).copied();
        let ends = registry
            .token_ends
            .iter()
            .find(|(_, other)| other == token)
            .map(|(ends, _)| *ends);
        let sub = found.and_then(|id| registry.subs.get(&id).cloned());
        drop(registry);
        self.retire(expired);
        let (Some(sub), Some(ends)) = (sub, ends) else {
            return Err(ConfirmError::Unknown);
        };
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
        if !is_endpoint || sub.mode() > mode::QUEUED || self.is_closed() {
            self.end(sub);
            return;
        }
        let now = self.clock.now();
        let request = {
            let mut registry = self.registry.lock();
            if !registry.subs.contains_key(&sub.id) {
                return;
            }
            registry.deleted += 1;
            self.issue_token(&mut registry, sub, now)
        };
        {
            let _lane = sub.lane.lock();
            sub.mode.store(mode::UNCONFIRMED, Ordering::Release);
        }
        self.retable(sub);
        self.empty(sub);
        self.send_control(sub, Delivery::Unsubscribed(request));
    }

    /// Puts something that is no message into the lane of an endpoint. Where there is no room for it, it is lost, as
    /// if the endpoint had not heard it.
    pub(crate) fn send_control(&self, sub: &Arc<Sub<T>>, delivery: Delivery<T>) {
        let refused = {
            let mut lane = sub.lane.lock();
            let item = Item {
                what: What::Control(Box::new(delivery)),
                tried: 0,
                verdict: std::cell::Cell::new(None),
            };
            let outcome = lane.order.push(None, item);
            if outcome.is_ok() {
                lane.controls += 1;
            }
            outcome.err()
        };
        drop(refused);
        self.driver.make_ready(sub);
    }
}
