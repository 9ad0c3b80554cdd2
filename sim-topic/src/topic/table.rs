//! Who gets what: the subscriptions as publishers go through them.
//!
//! # Algorithm
//! A table is a snapshot, replaced whole; what one has in common with the next is shared. Without a filter or with a
//! closure, subscriptions stand in lists that cost O(√n) a change: see `table/tier.rs`. Filter policies stand in two
//! tiers, as in a log-structured tree: a few recent ones that are asked one by one, and an index over all the others,
//! which is rebuilt when the recent ones, or those in it that are gone, come to a quarter of it. A change so
//! brings O(1) policies into an index, amortised, but copies the references of the recent ones: up to a quarter of
//! all. Publishing costs about what the index costs.
//!
//! FIFO topics use no index, since they may find after asking that a message is a duplicate, which no filter counts:
//! they ask policies one by one, and each policy over bodies reads the body anew.
//!
//! Whom the index does not find is not visited, and so not counted one by one: each evaluation is counted once for
//! all in the index, and a subscription's share is what was counted since it came in, less what it matched.
//!
//! # Ordering
//! All counts are `Relaxed`; see `tally.rs`.

mod tier;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use sim_core::counter::Counters;
use sim_core::sync::{Arc, Mutex};

use self::tier::Tier;
use crate::filter::{FilterIndex, FilterPolicy, Reason, Scope, Scratch};
use crate::message::{Message, SubscriptionId};
use crate::settings::{Filter, Predicate};
use crate::topic::lane::{Sub, mode};
use crate::topic::tally::{REASONS, place_of};

/// How many policies stand outside of the index at least before it is rebuilt.
const RECENT: usize = 32;

/// How many scratches are kept for the next messages: as many as threads may publish at once, as a rule.
const SCRATCHES: usize = 64;
/// What one that is kept may have allocated for a message's values: 64 KiB.
const SCRATCH_BYTES: usize = 64 << 10;

/// A snapshot of all subscriptions, by the kind of their filters.
pub(crate) struct Table<T> {
    plain: Tier<Arc<Sub<T>>>,
    closures: Tier<(Arc<Sub<T>>, Predicate<T>)>,
    recent: Vec<(Arc<Sub<T>>, FilterPolicy)>,
    indexed: Arc<Indexed<T>>,
    /// Those of the index that are gone, or have another filter by now.
    hidden: BTreeSet<u32>,
    counts: Arc<Evaluations>,
}

/// The policies of the second tier.
struct Indexed<T> {
    attributes: FilterIndex,
    body: FilterIndex,
    /// By the ids of both indexes.
    subs: Vec<(Arc<Sub<T>>, FilterPolicy)>,
    places: BTreeMap<SubscriptionId, u32>,
}

/// How often the indexes were asked, by what they said of those that do not match.
#[derive(Default)]
pub(crate) struct Evaluations(Counters<REASONS>);

/// What publishers use over and over, while they ask indexes.
#[derive(Default)]
pub(crate) struct Scratches(Mutex<Vec<Scratch>>);

/// Where the evaluations stood when a subscription came into the index, and what it had matched by then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Since {
    scope: Scope,
    evaluated: [u64; REASONS],
    excused: [u64; REASONS],
}

impl<T> Table<T> {
    pub(crate) fn new(counts: Arc<Evaluations>) -> Self {
        Self {
            plain: Tier::new(),
            closures: Tier::new(),
            recent: Vec::new(),
            indexed: Arc::new(Indexed {
                attributes: FilterIndex::new(Scope::MessageAttributes),
                body: FilterIndex::new(Scope::MessageBody),
                subs: Vec::new(),
                places: BTreeMap::new(),
            }),
            hidden: BTreeSet::new(),
            counts,
        }
    }
}

impl Evaluations {
    /// What was filtered of a subscription that stands in the index.
    pub(crate) fn filtered(&self, since: &Since, excused: [u64; REASONS]) -> [u64; REASONS] {
        let now = self.0.sums();
        std::array::from_fn(|reason| {
            let is_mine = scope_of(reason) == since.scope;
            let evaluated = now[reason].wrapping_sub(since.evaluated[reason]);
            let matched = excused[reason].wrapping_sub(since.excused[reason]);
            if is_mine {
                evaluated.saturating_sub(matched)
            } else {
                0
            }
        })
    }
}

/// Which policies are filtered for the reason at this place.
const fn scope_of(place: usize) -> Scope {
    if place < place_of(Reason::MessageBody) {
        Scope::MessageAttributes
    } else {
        Scope::MessageBody
    }
}

impl<T: Send + Sync + 'static> Table<T> {
    /// The table with a subscription added, in place of what was there of it.
    pub(crate) fn with(&self, sub: &Arc<Sub<T>>) -> Self {
        let mut table = self.without(sub);
        match &*sub.filter.load() {
            Filter::All => table.plain.insert(sub.id, Arc::clone(sub)),
            Filter::Closure(closure) => {
                let entry = (Arc::clone(sub), Arc::clone(closure));
                table.closures.insert(sub.id, entry);
            }
            Filter::Policy(policy) => {
                table.recent.push((Arc::clone(sub), policy.clone()));
                if table.recent.len() > RECENT.max(table.indexed.subs.len() / 4) {
                    table.rebuild();
                }
            }
        }
        table
    }

    /// The table without a subscription.
    pub(crate) fn without(&self, sub: &Arc<Sub<T>>) -> Self {
        let id = sub.id;
        let mut table = Self {
            plain: self.plain.clone(),
            closures: self.closures.clone(),
            recent: except(&self.recent, |(sub, _)| sub.id != id),
            indexed: Arc::clone(&self.indexed),
            hidden: self.hidden.clone(),
            counts: Arc::clone(&self.counts),
        };
        table.plain.remove(id);
        table.closures.remove(id);
        if let Some(place) = self.indexed.places.get(&id)
            && table.hidden.insert(*place)
        {
            sub.leave_index();
            if table.hidden.len() > RECENT.max(table.indexed.subs.len() / 4) {
                table.rebuild();
            }
        }
        table
    }

    /// Brings the recent policies into a new index, and leaves out what is gone.
    fn rebuild(&mut self) {
        let former = self.indexed.subs.iter().enumerate();
        let kept = former
            .filter(|(place, _)| !self.hidden.contains(&(*place as u32)))
            .map(|(_, entry)| (entry.clone(), false));
        let recent = std::mem::take(&mut self.recent);
        let all: Vec<_> = kept
            .chain(recent.into_iter().map(|entry| (entry, true)))
            .collect();
        let mut indexed = Indexed {
            attributes: FilterIndex::new(Scope::MessageAttributes),
            body: FilterIndex::new(Scope::MessageBody),
            subs: Vec::with_capacity(all.len()),
            places: BTreeMap::new(),
        };
        let evaluated = self.counts.0.sums();
        for ((sub, policy), is_new) in all {
            let index = match policy.scope() {
                Scope::MessageAttributes => &mut indexed.attributes,
                Scope::MessageBody => &mut indexed.body,
            };
            let place = indexed.subs.len() as u32;
            if index.insert(place, policy.clone()).is_err() {
                // More than an index holds: it goes on being asked by itself.
                if !is_new {
                    sub.leave_index();
                }
                self.recent.push((sub, policy));
                continue;
            }
            if is_new {
                sub.enter_index(Since {
                    scope: policy.scope(),
                    evaluated,
                    excused: sub.tally.excused(),
                });
            }
            indexed.places.insert(sub.id, place);
            indexed.subs.push((sub, policy));
        }
        self.indexed = Arc::new(indexed);
        self.hidden = BTreeSet::new();
    }

    /// Calls `each` with every subscription that gets the message; counts for the others why they do not.
    pub(crate) fn matching(
        &self,
        message: &Message<T>,
        body: Option<fn(&T) -> &[u8]>,
        scratches: &Scratches,
        mut each: impl FnMut(&Arc<Sub<T>>),
    ) {
        self.plain.for_each(&mut each);
        self.closures.for_each(|(sub, closure)| {
            if is_listening(sub) {
                match passes(message, closure) {
                    true => each(sub),
                    false => sub.tally.filtered(Reason::MessageAttributes),
                }
            }
        });
        for (sub, policy) in &self.recent {
            if is_listening(sub) {
                match verdict(message, policy, body) {
                    None => each(sub),
                    Some(reason) => sub.tally.filtered(reason),
                }
            }
        }
        if !self.indexed.subs.is_empty() {
            self.ask_indexes(message, body, scratches, &mut each);
        }
    }

    fn ask_indexes(
        &self,
        message: &Message<T>,
        body: Option<fn(&T) -> &[u8]>,
        scratches: &Scratches,
        each: &mut impl FnMut(&Arc<Sub<T>>),
    ) {
        let indexed = &*self.indexed;
        let mut scratch = scratches.take();
        if !indexed.attributes.is_empty() {
            let attributes = message.attribute_map();
            let found = indexed
                .attributes
                .match_attributes(attributes, &mut scratch);
            self.found(found.ids(), found.otherwise(), each);
        }
        if !indexed.body.is_empty()
            && let Some(body) = body
        {
            let found = indexed.body.match_body(body(&message.value), &mut scratch);
            self.found(found.ids(), found.otherwise(), each);
        }
        scratches.give(scratch);
    }

    fn found(&self, ids: &[u32], otherwise: Reason, each: &mut impl FnMut(&Arc<Sub<T>>)) {
        self.counts.0.add(place_of(otherwise), 1);
        for id in ids {
            if !self.hidden.is_empty() && self.hidden.contains(id) {
                continue;
            }
            let (sub, _) = &self.indexed.subs[*id as usize];
            sub.tally.excuse(otherwise);
            each(sub);
        }
    }

    /// Calls `each` with every subscription that listens and what its filter says; counts nothing. For FIFO topics, which
    /// may find afterwards that the message is a duplicate.
    pub(crate) fn verdicts(
        &self,
        message: &Message<T>,
        body: Option<fn(&T) -> &[u8]>,
        mut each: impl FnMut(&Arc<Sub<T>>, Option<Reason>),
    ) {
        self.plain.for_each(|sub| each(sub, None));
        self.closures.for_each(|(sub, closure)| {
            if is_listening(sub) {
                let passes = passes(message, closure);
                each(sub, (!passes).then_some(Reason::MessageAttributes));
            }
        });
        for (sub, policy) in &self.recent {
            if is_listening(sub) {
                each(sub, verdict(message, policy, body));
            }
        }
        for (place, (sub, policy)) in self.indexed.subs.iter().enumerate() {
            if is_listening(sub) && !self.hidden.contains(&(place as u32)) {
                each(sub, verdict(message, policy, body));
            }
        }
    }

    /// Whether nobody stands here.
    pub(crate) fn is_empty(&self) -> bool {
        self.plain.is_empty()
            && self.closures.is_empty()
            && self.recent.is_empty()
            && self.indexed.subs.len() == self.hidden.len()
    }
}

impl Scratches {
    fn take(&self) -> Scratch {
        self.0.lock().pop().unwrap_or_default()
    }

    /// Bound: [`SCRATCHES`], each of at most [`SCRATCH_BYTES`] and what goes by the number of policies. One that grew
    /// larger for a large message is not kept.
    fn give(&self, scratch: Scratch) {
        if scratch.bytes() > SCRATCH_BYTES {
            return;
        }
        let mut kept = self.0.lock();
        if kept.len() < SCRATCHES {
            kept.push(scratch);
        }
    }
}

fn except<E: Clone>(all: &[E], keep: impl Fn(&E) -> bool) -> Vec<E> {
    all.iter().filter(|entry| keep(entry)).cloned().collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_large_message_took_is_not_kept() {
        let mut index = FilterIndex::new(Scope::MessageBody);
        let policy = FilterPolicy::parse(r#"{"a": ["x"]}"#, Scope::MessageBody).unwrap();
        index.insert(0, policy).unwrap();
        let scratches = Scratches::default();
        let ask = |len: usize| {
            let mut scratch = scratches.take();
            // A string with an escape is copied.
            let body = format!(r#"{{"a": "\n{}"}}"#, "y".repeat(len));
            let _ = index.match_body(body.as_bytes(), &mut scratch);
            scratches.give(scratch);
        };
        ask(1_000);
        assert_eq!(scratches.0.lock().len(), 1);
        ask(2 * SCRATCH_BYTES);
        assert_eq!(scratches.0.lock().len(), 0);
    }

    #[test]
    fn no_more_scratches_are_kept_than_the_bound() {
        let scratches = Scratches::default();
        for _ in 0..2 * SCRATCHES {
            scratches.give(Scratch::new());
        }
        assert_eq!(scratches.0.lock().len(), SCRATCHES);
    }
}
