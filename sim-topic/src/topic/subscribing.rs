//! Subscriptions come, change and go.
//!
//! # Ordering
//! The modes of subscriptions are written under their lanes' locks: see `lane.rs`. `has_subs` is written by who replaces
//! the table, before it: a publisher that reads a former value published, in the happens-before of the program, before
//! that subscription was made, or after it was over.

use sim_core::sync::Arc;
use sim_core::sync::atomic::Ordering;
use sim_core::time::Instant;

use crate::error::{ConfigError, SetError, SubscribeError};
use crate::filter::Scope;
use crate::machine::order::Order;
use crate::message::SubscriptionId;
use crate::settings::{Filter, SubscriptionConfig};
use crate::stats::Stats;
use crate::subscriber::Target;
use crate::topic::hub::{Hub, Registry, counts};
use crate::topic::lane::{Lane, NOTICES, Rules, Sub, What, mode};
use crate::topic::tally::Count;

impl<T: Send + Sync + 'static> Hub<T> {
    pub(crate) fn subscribe(
        &self,
        target: Target<T>,
        config: SubscriptionConfig<T>,
    ) -> Result<Arc<Sub<T>>, SubscribeError> {
        config.check()?;
        self.check_filter(&config.filter)?;
        let must_confirm = matches!(target, Target::Endpoint(_));
        let now = self.clock.now();
        let mut registry = self.registry.lock();
        let expired = self.forget_expired(&mut registry, now);
        self.check_count(&registry, matches!(config.filter, Filter::Policy(_)))?;
        let id = SubscriptionId::new(registry.next_id);
        registry.next_id += 1;
        let SubscriptionConfig {
            name,
            filter,
            retry,
            throttle,
            dead_letters,
            backlog,
            overflow,
            max_in_flight,
        } = config;
        let random = self.random.fork(&format!("subscription {}", id.get()));
        let is_policy = matches!(filter, Filter::Policy(_));
        let lane = Lane {
            order: Order::new(backlog, random.fork("order").next_u64()),
            notices: Order::new(NOTICES, 0),
            bucket: throttle.map(crate::machine::retry::Throttle::bucket),
            throttled_until: Instant::ORIGIN,
            paused: false,
            over: false,
            random,
            max_in_flight,
            timer: None,
        };
        let first_mode = match must_confirm {
            true => mode::UNCONFIRMED,
            false => mode::QUEUED,
        };
        let sub = Arc::new(Sub::new(
            id,
            name,
            target,
            first_mode,
            Rules {
                retry,
                dead_letters,
                overflow,
            },
            filter,
            lane,
            Arc::clone(&self.evaluations),
            Arc::clone(&self.departed),
        ));
        {
            let lane = sub.lane.lock();
            sub.settle_mode(&lane, self.is_fifo());
        }
        registry.subs.insert(id, Arc::clone(&sub));
        registry.policies += usize::from(is_policy);
        let request = must_confirm.then(|| self.issue_token(&mut registry, &sub, now));
        drop(registry);
        self.retire(expired);
        self.retable(&sub);
        if let Some(request) = request {
            self.send_control(&sub, crate::message::Delivery::Confirmation(request));
        }
        Ok(sub)
    }

    pub(crate) fn check_filter(&self, filter: &Filter<T>) -> Result<(), ConfigError> {
        if let Filter::Policy(policy) = filter
            && policy.scope() == Scope::MessageBody
            && self.body.is_none()
        {
            return Err(ConfigError::NoBody);
        }
        Ok(())
    }

    pub(crate) fn check_count(
        &self,
        registry: &Registry<T>,
        is_policy: bool,
    ) -> Result<(), SubscribeError> {
        if self.is_closed() {
            return Err(SubscribeError::Closed);
        }
        let limits = &self.config.limits;
        if registry.subs.len() + registry.receivers >= limits.subscriptions {
            return Err(SubscribeError::TooMany {
                limit: limits.subscriptions,
            });
        }
        if is_policy && registry.policies >= limits.filter_policies {
            return Err(SubscribeError::TooManyFilterPolicies {
                limit: limits.filter_policies,
            });
        }
        Ok(())
    }

    /// Shows a subscription to publishers as it is now, or takes it away from them when it is over.
    pub(crate) fn retable(&self, sub: &Arc<Sub<T>>) {
        let _ = self.table.update(|table| {
            let table = match sub.mode() {
                // Who gets no messages is not asked, and counts none that it would not have got.
                mode::UNCONFIRMED | mode::OVER => table.without(sub),
                _ => table.with(sub),
            };
            self.has_subs.store(!table.is_empty(), Ordering::Release);
            table
        });
    }

    /// All subscriptions that are not over.
    pub(crate) fn all(&self) -> Vec<Arc<Sub<T>>> {
        self.registry.lock().subs.values().cloned().collect()
    }

    /// Ends a subscription for good. What is pending is dropped and counted.
    pub(crate) fn end(&self, sub: &Arc<Sub<T>>) {
        {
            let mut registry = self.registry.lock();
            if registry.subs.remove(&sub.id).is_none() {
                return;
            }
            registry.tokens.end(sub.id);
            if matches!(&*sub.filter.load(), Filter::Policy(_)) {
                registry.policies -= 1;
            }
            // One that was cancelled was counted then.
            if sub.mode() <= mode::QUEUED || !sub.was_confirmed.load(Ordering::Relaxed) {
                registry.deleted += 1;
            }
            registry.leave(sub);
        }
        self.retire(vec![Arc::clone(sub)]);
    }

    /// The rest of ending subscriptions that are not in the registry any more.
    pub(crate) fn retire(&self, subs: Vec<Arc<Sub<T>>>) {
        for sub in subs {
            {
                let mut lane = sub.lane.lock();
                lane.over = true;
                sub.settle_mode(&lane, self.is_fifo());
            }
            self.retable(&sub);
            if let Target::Mailbox(mailbox) = &sub.target {
                mailbox.end();
            }
            self.empty(&sub);
        }
    }

    /// Drops and counts what is pending, and drops what is at work on it.
    pub(crate) fn empty(&self, sub: &Arc<Sub<T>>) {
        let (items, notices) = {
            let mut lane = sub.lane.lock();
            (lane.order.drain(), lane.notices.drain())
        };
        drop(notices);
        self.driver.give_up(sub);
        let mut messages = 0;
        for item in items {
            messages += u64::from(matches!(item.what, What::Message(_)));
        }
        sub.tally.add(Count::DroppedUnsubscribed, messages);
        sub.stop_replay();
        self.emptied();
    }

    pub(crate) fn set_paused(&self, sub: &Arc<Sub<T>>, paused: bool) -> Result<(), SetError> {
        {
            let mut lane = sub.lane.lock();
            if lane.over {
                return Err(SetError::Over);
            }
            lane.paused = paused;
            sub.settle_mode(&lane, self.is_fifo());
        }
        if !paused {
            self.attend(sub, self.clock.now());
        }
        Ok(())
    }

    pub(crate) fn set_filter(&self, sub: &Arc<Sub<T>>, filter: Filter<T>) -> Result<(), SetError> {
        self.check_filter(&filter)?;
        let former = {
            let mut registry = self.registry.lock();
            if !registry.subs.contains_key(&sub.id) {
                return Err(SetError::Over);
            }
            let had = matches!(&*sub.filter.load(), Filter::Policy(_));
            let has = matches!(filter, Filter::Policy(_));
            let limit = self.config.limits.filter_policies;
            if has && !had && registry.policies >= limit {
                return Err(SetError::TooManyFilterPolicies { limit });
            }
            registry.policies = registry.policies - usize::from(had) + usize::from(has);
            // Under the lock, so that what is counted is what is there; the former one is dropped without it.
            let former = sub.filter.load_arc();
            sub.filter.store(Arc::new(filter));
            former
        };
        drop(former);
        self.retable(sub);
        Ok(())
    }

    // ---- counts ----------------------------------------------------------------------------------------

    pub(crate) fn stats(&self) -> Stats {
        let (subs, leaving, receivers, deleted) = {
            let mut registry = self.registry.lock();
            registry.leaving.retain(|weak| weak.strong_count() > 0);
            (
                registry.subs.values().cloned().collect::<Vec<_>>(),
                registry.leaving.clone(),
                registry.receivers as u64,
                registry.deleted,
            )
        };
        let leaving: Vec<_> = leaving.iter().filter_map(|weak| weak.upgrade()).collect();
        let gone = *self.departed.0.lock();
        let mut sum = gone.stats;
        let mut stats = Stats::default();
        let (received, lagged) = self.log.counts();
        (stats.received, stats.lagged) = (received + gone.received, lagged + gone.lagged);
        for sub in subs.iter().chain(&leaving) {
            sum.absorb(&sub.stats());
            if let Target::Mailbox(mailbox) = &sub.target {
                let (received, lagged) = mailbox.counts();
                stats.received += received;
                stats.lagged += lagged;
            }
        }
        for sub in &subs {
            match sub.mode() {
                mode::UNCONFIRMED if !sub.was_confirmed.load(Ordering::Relaxed) => {
                    stats.subscriptions_pending += 1;
                }
                mode::UNCONFIRMED | mode::OVER => {}
                _ => stats.subscriptions_confirmed += 1,
            }
        }
        if let Some(fifo) = &self.fifo
            && let Some(archive) = &fifo.lock().archive
        {
            stats.archived = archive.len() as u64;
            stats.archived_bytes = archive.bytes() as u64;
            stats.archive_beginning = archive.beginning();
            stats.archive_expired = archive.expired();
            stats.archive_evicted = archive.crowded_out();
        }
        stats.subscriptions_confirmed += receivers;
        stats.subscriptions_deleted = deleted;
        stats.subscriptions = sum;
        stats.published = self.numbers.load(Ordering::Relaxed);
        stats.refused = self.counters.sum(counts::REFUSED);
        stats.deduplicated = self.counters.sum(counts::DEDUPLICATED);
        stats.published_bytes = self.counters.sum(counts::BYTES);
        stats.log_bytes = self.log.log.bytes() as u64;
        stats
    }

    /// Tells receivers with mailboxes that the topic is closed.
    pub(crate) fn wake_mailboxes(&self) {
        for sub in self.all() {
            if let Target::Mailbox(mailbox) = &sub.target {
                mailbox.arrivals.notify_all();
            }
        }
    }
}
