//! Who gets what: the subscriptions as publishers go through them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sim_core::sync::Arc;

use crate::filter::{FilterPolicy, Reason, Scope};
use crate::message::Message;
use crate::settings::{Filter, Predicate};
use crate::topic::lane::{Sub, mode};

/// A snapshot of all subscriptions, by the kind of their filters. It is replaced whole.
pub(crate) struct Table<T> {
    pub(crate) plain: Vec<Arc<Sub<T>>>,
    pub(crate) closures: Vec<(Arc<Sub<T>>, Predicate<T>)>,
    pub(crate) policies: Vec<(Arc<Sub<T>>, FilterPolicy)>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            plain: Vec::new(),
            closures: Vec::new(),
            policies: Vec::new(),
        }
    }
}

impl<T: Send + Sync + 'static> Table<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.closures.is_empty() && self.policies.is_empty()
    }

    /// The table with a subscription added, in place of what was there of it.
    pub(crate) fn with(&self, sub: &Arc<Sub<T>>) -> Self {
        let mut table = self.without(sub);
        match &*sub.filter.load() {
            Filter::All => table.plain.push(Arc::clone(sub)),
            Filter::Closure(closure) => {
                table.closures.push((Arc::clone(sub), Arc::clone(closure)));
            }
            Filter::Policy(policy) => table.policies.push((Arc::clone(sub), policy.clone())),
        }
        table
    }

    /// The table without a subscription.
    pub(crate) fn without(&self, sub: &Arc<Sub<T>>) -> Self {
        let id = sub.id;
        Self {
            plain: self
                .plain
                .iter()
                .filter(|sub| sub.id != id)
                .cloned()
                .collect(),
            closures: self
                .closures
                .iter()
                .filter(|(sub, _)| sub.id != id)
                .cloned()
                .collect(),
            policies: self
                .policies
                .iter()
                .filter(|(sub, _)| sub.id != id)
                .cloned()
                .collect(),
        }
    }

    /// Calls `each` with every subscription that gets the message; counts for the others why they do not.
    pub(crate) fn matching(
        &self,
        message: &Message<T>,
        body: Option<fn(&T) -> &[u8]>,
        mut each: impl FnMut(&Arc<Sub<T>>),
    ) {
        for sub in &self.plain {
            each(sub);
        }
        for (sub, closure) in &self.closures {
            if !is_listening(sub) {
                continue;
            }
            match passes(message, closure) {
                true => each(sub),
                false => sub.tally.filtered(Reason::MessageAttributes),
            }
        }
        for (sub, policy) in &self.policies {
            if !is_listening(sub) {
                continue;
            }
            match verdict(message, policy, body) {
                None => each(sub),
                Some(reason) => sub.tally.filtered(reason),
            }
        }
    }

    /// Calls `each` with every subscription that listens and what its filter says; counts nothing.
    pub(crate) fn verdicts(
        &self,
        message: &Message<T>,
        body: Option<fn(&T) -> &[u8]>,
        mut each: impl FnMut(&Arc<Sub<T>>, Option<Reason>),
    ) {
        for sub in &self.plain {
            each(sub, None);
        }
        for (sub, closure) in &self.closures {
            if is_listening(sub) {
                let passes = passes(message, closure);
                each(sub, (!passes).then_some(Reason::MessageAttributes));
            }
        }
        for (sub, policy) in &self.policies {
            if is_listening(sub) {
                each(sub, verdict(message, policy, body));
            }
        }
    }
}

fn is_listening<T: Send + Sync + 'static>(sub: &Sub<T>) -> bool {
    sub.mode() <= mode::QUEUED
}

/// What one filter says, for a replay; none when the message passes.
pub(crate) fn judge<T>(
    message: &Message<T>,
    filter: &Filter<T>,
    body: Option<fn(&T) -> &[u8]>,
) -> Option<Reason> {
    match filter {
        Filter::All => None,
        Filter::Closure(closure) => match passes(message, closure) {
            true => None,
            false => Some(Reason::MessageAttributes),
        },
        Filter::Policy(policy) => verdict(message, policy, body),
    }
}

/// A closure that panics says no.
fn passes<T>(message: &Message<T>, closure: &Predicate<T>) -> bool {
    catch_unwind(AssertUnwindSafe(|| closure(message))).unwrap_or(false)
}

fn verdict<T>(
    message: &Message<T>,
    policy: &FilterPolicy,
    body: Option<fn(&T) -> &[u8]>,
) -> Option<Reason> {
    match policy.scope() {
        Scope::MessageAttributes => policy.matches_attributes(message.attribute_map()).reason(),
        Scope::MessageBody => match body {
            Some(body) => policy.matches_body(body(&message.value)).reason(),
            // Refused when the subscription is made.
            None => Some(Reason::InvalidMessageBody),
        },
    }
}
