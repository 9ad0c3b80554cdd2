//! Many policies at once.

mod field;
mod ranges;
mod signature;
mod tickets;
mod trie;

use std::collections::BTreeMap;
use std::fmt;

use sim_core::attributes::Attributes;
use sim_core::sync::Arc;

use super::error::{FilterError, FilterRule};
use super::paths::Paths;
use super::values::{Found, Input, Presence, Unreadable, Values};
use super::{FilterPolicy, Policy, Reason, Scope, Scratch, reason_of_attributes, satisfies};
use field::{Access, Change, Cost, Field, LOOK, Place};
use signature::{Guard, Signatures, guards};
use tickets::{Buckets, Kind, Ticket};

/// Many policies of one scope, matched together: a message costs about what the values in it are asked for, not what
/// there are policies.
///
/// It holds the policies that were inserted and is bounded by [their limits](super::FilterLimits) times their number,
/// which is the caller's to bound.
///
/// # Examples
///
/// ```
/// use sim_topic::filter::{FilterIndex, FilterPolicy, Scope, Scratch};
///
/// let mut index = FilterIndex::new(Scope::MessageBody);
/// for carrier in ["AA", "UA", "WN"] {
///     let policy = format!(r#"{{"carrier": ["{carrier}"], "delay": [{{"numeric": [">", 60]}}]}}"#);
///     let id = u32::from(carrier.as_bytes()[0]);
///     index.insert(id, FilterPolicy::parse(&policy, Scope::MessageBody)?)?;
/// }
/// let mut scratch = Scratch::new();
/// let matches = index.match_body(br#"{"carrier": "UA", "delay": 61}"#, &mut scratch);
/// assert_eq!(matches.ids(), [u32::from(b'U')]);
/// # Ok::<(), sim_topic::filter::FilterError>(())
/// ```
///
/// # Algorithm
///
/// Each alternative of a policy is entered by one of its rules, the one that is expected to be found least often: by a
/// string or number in a hash table, a start or end in a radix tree, a range under a tree of ends, a block of addresses
/// by its mask, a wildcard by its rarest piece. Where each of several strings or numbers is common, they are entered
/// together. What is left are rules that nearly every value satisfies; they stand in a list of the field. A message is
/// read once, each of its values is looked up in the structures of its field, and only of the alternatives that this
/// finds are the other rules checked, plain values by their hash before anything else.
#[derive(Clone)]
pub struct FilterIndex {
    scope: Scope,
    paths: Paths,
    /// By the node of the path.
    fields: Vec<Field>,
    buckets: Buckets,
    signatures: Signatures,
    alternatives: Vec<Alternative>,
    free: Vec<u32>,
    /// Those that no value leads to: they have no rules, or only ones that ask for absence.
    always: Vec<Ticket>,
    policies: BTreeMap<u32, Entered>,
}

/// One alternative of a policy. Its place in the list is its number.
#[derive(Clone)]
struct Alternative {
    id: u32,
    /// Whether it has no rule beside the one by which it is entered.
    alone: bool,
    /// What two of its rules want, if they want one value.
    guards: [Guard; 2],
    /// Which alternative of its policy.
    branch: u32,
    /// The rule by which it is entered, or [`NONE`].
    rule: u32,
    policy: Arc<Entry>,
}

/// A policy with its paths as the index numbers them.
struct Entry {
    policy: Arc<Policy>,
    /// The index's field for each of the policy's own.
    fields: Box<[u32]>,
}

#[derive(Clone)]
struct Entered {
    entry: Arc<Entry>,
    /// The number of each alternative and how it was entered; without a rule, among those that are always looked at.
    alternatives: Vec<(u32, Option<Access>)>,
}

/// The rule number of an alternative that is entered by none, or by several.
const NONE: u32 = u32::MAX;

/// Which policies a message satisfies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matches<'a> {
    ids: &'a [u32],
    otherwise: Reason,
}

impl<'a> Matches<'a> {
    /// The ids of the policies that match, in ascending order, none twice.
    #[must_use]
    pub const fn ids(self) -> &'a [u32] {
        self.ids
    }

    /// Why the others do not. For attributes, [`Reason::InvalidAttributes`] if any policy of the index looks at an
    /// attribute that is invalid.
    #[must_use]
    pub const fn otherwise(self) -> Reason {
        self.otherwise
    }
}

impl FilterIndex {
    /// Makes an index without policies.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            paths: Paths::new(),
            fields: Vec::new(),
            buckets: Buckets::default(),
            signatures: Signatures::default(),
            alternatives: Vec::new(),
            free: Vec::new(),
            always: Vec::new(),
            policies: BTreeMap::new(),
        }
    }

    /// What the policies look at.
    #[must_use]
    pub const fn scope(&self) -> Scope {
        self.scope
    }

    /// How many policies there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// The policy of an id.
    #[must_use]
    pub fn policy(&self, id: u32) -> Option<FilterPolicy> {
        let shared = self.policies.get(&id)?.entry.policy.clone();
        Some(FilterPolicy { shared })
    }

    /// Inserts a policy under an id and returns the one that it replaces.
    ///
    /// # Errors
    ///
    /// When the policy has the other scope; nothing is changed.
    pub fn insert(
        &mut self,
        id: u32,
        policy: FilterPolicy,
    ) -> Result<Option<FilterPolicy>, FilterError> {
        let fault = |rule| FilterError {
            path: "$".to_owned(),
            rule,
        };
        if policy.scope() != self.scope {
            return Err(fault(FilterRule::Scope {
                given: policy.scope(),
                wanted: self.scope,
            }));
        }
        let policy = policy.shared;
        let more = policy.plan.alternatives.len();
        if self.alternatives.len() - self.free.len() + more > Ticket::MOST {
            return Err(fault(FilterRule::Alternatives {
                limit: Ticket::MOST,
            }));
        }
        let replaced = self.remove(id);
        let fields = self.paths.adopt(&policy.plan.paths);
        for rule in &policy.plan.rules {
            self.paths.hold(fields[rule.field as usize], rule.absent);
        }
        self.fields.resize_with(self.paths.len(), Field::default);
        let entry = Arc::new(Entry { policy, fields });
        let alternatives = (0..more)
            .map(|branch| self.enter(id, &entry, branch))
            .collect();
        self.policies.insert(
            id,
            Entered {
                entry,
                alternatives,
            },
        );
        Ok(replaced)
    }

    /// Enters one alternative by its cheapest rule.
    fn enter(&mut self, id: u32, entry: &Arc<Entry>, branch: usize) -> (u32, Option<Access>) {
        let plan = &entry.policy.plan;
        let rules = &plan.alternatives[branch];
        let mut best = None;
        for &number in rules {
            let rule = &plan.rules[number as usize];
            if rule.absent {
                continue;
            }
            let field = entry.fields[rule.field as usize];
            let (access, cost) = self.fields[field as usize].plan(field, &self.buckets, rule);
            if best.as_ref().is_none_or(|&(_, _, least)| cost < least) {
                best = Some((number, access, cost));
            }
        }
        let number = self.free.pop().unwrap_or(self.alternatives.len() as u32);
        let mut made = Alternative {
            id,
            alone: rules.len() <= 1,
            guards: guards(entry, rules),
            branch: branch as u32,
            rule: NONE,
            policy: Arc::clone(entry),
        };
        // A few looks are worth more than one that needs the values of several fields.
        let least = best.as_ref().map_or(Cost::MAX, |&(_, _, cost)| cost);
        let tuple = (least > 4 * LOOK + 4)
            .then(|| self.signatures.plan(&self.buckets, entry, rules, least))
            .flatten();
        let access = match (tuple, best) {
            (Some((fields, tuple)), _) => {
                let signature = self.signatures.hold(&fields, Ticket::hint(number));
                if signature.is_new {
                    self.fields[fields[0] as usize]
                        .signatures
                        .push(signature.number);
                }
                self.buckets.add(
                    signature.number,
                    Kind::Tuple,
                    &tuple.to_le_bytes(),
                    Ticket::hint(number),
                );
                Some(Access::Tuple(signature.number))
            }
            (None, Some((rule, access, _))) => {
                made.rule = rule;
                self.change(Change::Add, entry, rule, &access, number);
                Some(access)
            }
            (None, None) => {
                self.always.push(Ticket::hint(number));
                None
            }
        };
        match self.alternatives.get_mut(number as usize) {
            Some(free) => *free = made,
            None => self.alternatives.push(made),
        }
        (number, access)
    }

    /// Takes one alternative out again.
    fn leave(&mut self, entry: &Entry, number: u32, access: Option<&Access>) {
        let ticket = Ticket::hint(number);
        match access {
            None => self.always.retain(|&one| one != ticket),
            Some(&Access::Tuple(signature)) => {
                let branch = self.alternatives[number as usize].branch;
                let rules = &entry.policy.plan.alternatives[branch as usize];
                let (fields, tuple) = Signatures::tuple(entry, rules);
                self.buckets
                    .remove(signature, Kind::Tuple, &tuple.to_le_bytes(), ticket);
                if self.signatures.release(signature, ticket) {
                    let first = &mut self.fields[fields[0] as usize];
                    first.signatures.retain(|&one| one != signature);
                }
            }
            Some(access) => {
                let rule = self.alternatives[number as usize].rule;
                self.change(Change::Remove, entry, rule, access, number);
            }
        }
    }

    fn change(&mut self, change: Change, entry: &Entry, rule: u32, access: &Access, number: u32) {
        let rule = &entry.policy.plan.rules[rule as usize];
        let field = entry.fields[rule.field as usize];
        let mut place = Place {
            number: field,
            field: &mut self.fields[field as usize],
            buckets: &mut self.buckets,
        };
        place.change(change, rule, access, number);
    }

    /// Removes the policy of an id and returns it.
    pub fn remove(&mut self, id: u32) -> Option<FilterPolicy> {
        let Entered {
            entry,
            alternatives,
        } = self.policies.remove(&id)?;
        for (number, access) in alternatives {
            self.leave(&entry, number, access.as_ref());
            self.free.push(number);
        }
        for rule in &entry.policy.plan.rules {
            let field = entry.fields[rule.field as usize];
            self.paths.release(field, rule.absent);
            self.paths.prune(field);
        }
        Some(FilterPolicy {
            shared: Arc::clone(&entry.policy),
        })
    }

    /// Finds the policies that attributes satisfy. An index of the other scope finds none.
    #[must_use]
    pub fn match_attributes<'s>(
        &self,
        attributes: &Attributes,
        scratch: &'s mut Scratch,
    ) -> Matches<'s> {
        scratch.ids.clear();
        if self.scope != Scope::MessageAttributes {
            return Matches {
                ids: &[],
                otherwise: Reason::MessageBody,
            };
        }
        let read = scratch.values.read_attributes(&self.paths, attributes);
        self.find(Input::Attributes(attributes), scratch);
        Matches {
            ids: &scratch.ids,
            otherwise: reason_of_attributes(attributes, read),
        }
    }

    /// Finds the policies that a body satisfies. An index of the other scope finds none.
    #[must_use]
    pub fn match_body<'s>(&self, body: &[u8], scratch: &'s mut Scratch) -> Matches<'s> {
        scratch.ids.clear();
        if self.scope != Scope::MessageBody {
            return Matches {
                ids: &[],
                otherwise: Reason::MessageAttributes,
            };
        }
        if scratch.values.read_body(&self.paths, body) == Err(Unreadable) {
            return Matches {
                ids: &[],
                otherwise: Reason::InvalidMessageBody,
            };
        }
        self.find(Input::Body(body), scratch);
        Matches {
            ids: &scratch.ids,
            otherwise: Reason::MessageBody,
        }
    }

    /// Looks up every value that was read.
    fn find(&self, input: Input<'_>, scratch: &mut Scratch) {
        let Scratch {
            values,
            ids,
            seen,
            round,
            text,
        } = scratch;
        *round = round.wrapping_add(1);
        if *round == 0 {
            seen.clear();
            *round = 1;
        }
        if seen.len() < self.alternatives.len() {
            seen.resize(self.alternatives.len(), 0);
        }
        let mut run = Run {
            index: self,
            values,
            input,
            ids,
            seen,
            round: *round,
        };
        for &ticket in &self.always {
            run.look(ticket);
        }
        for found in values.all(input) {
            let Found { field: number, .. } = found;
            let field = &self.fields[number as usize];
            if found.is_first {
                for &ticket in field.present() {
                    run.look(ticket);
                }
                if !field.excepts().is_empty() {
                    run.look_at_excepts(number, field);
                }
                for &signature in &field.signatures {
                    run.look_at_tuples(signature);
                }
            }
            field.look(number, &self.buckets, found, text, &mut |ticket| {
                run.look(ticket)
            });
        }
        ids.sort_unstable();
        ids.dedup();
    }
}

/// One message in one index.
struct Run<'a> {
    index: &'a FilterIndex,
    values: &'a Values,
    input: Input<'a>,
    ids: &'a mut Vec<u32>,
    /// By alternative: the round in which it was looked at last.
    seen: &'a mut [u32],
    round: u32,
}

impl Run<'_> {
    /// Looks at an alternative, once: whatever led to it, all its rules are checked but for the one that is proved.
    #[inline]
    fn look(&mut self, ticket: Ticket) {
        let number = ticket.alternative() as usize;
        if self.seen[number] == self.round {
            return;
        }
        self.seen[number] = self.round;
        let alternative = &self.index.alternatives[number];
        let proved = ticket.is_proof();
        if alternative.alone && proved
            || alternative.guards.iter().all(|guard| self.passes(*guard))
                && self.holds(alternative, proved)
        {
            self.ids.push(alternative.id);
        }
    }

    /// Whether a guard's value may be there.
    #[inline]
    fn passes(&self, guard: Guard) -> bool {
        match guard {
            Guard::None => true,
            Guard::Value { field, hash } => match self.values.presence(field) {
                Presence::Absent => false,
                Presence::One(found) => found as u32 == hash,
                Presence::Several => true,
            },
        }
    }

    /// Looks at those who want several values that are there.
    fn look_at_tuples(&mut self, signature: u32) {
        let index = self.index;
        let fields = index.signatures.fields(signature);
        let mut tuples = 1;
        for &field in fields {
            tuples *= match self.values.presence(field) {
                Presence::Absent => return,
                Presence::One(_) => 1,
                Presence::Several => self
                    .values
                    .hashes(field)
                    .take(Signatures::TUPLES + 1)
                    .count(),
            };
            if tuples > Signatures::TUPLES {
                for &ticket in index.signatures.tickets(signature) {
                    self.look(ticket);
                }
                return;
            }
        }
        self.look_at_tuples_from(signature, fields, Signatures::START);
    }

    fn look_at_tuples_from(&mut self, signature: u32, fields: &[u32], tuple: u64) {
        let index = self.index;
        let Some((&field, rest)) = fields.split_first() else {
            let bytes = tuple.to_le_bytes();
            for &ticket in index.buckets.find(signature, Kind::Tuple, &bytes) {
                self.look(ticket);
            }
            return;
        };
        let values = self.values;
        for hash in values.hashes(field) {
            self.look_at_tuples_from(signature, rest, Signatures::join(tuple, hash));
        }
    }

    fn holds(&self, alternative: &Alternative, proved: bool) -> bool {
        let plan = &alternative.policy.policy.plan;
        let rules = &plan.alternatives[alternative.branch as usize];
        rules.iter().all(|&number| {
            let rule = &plan.rules[number as usize];
            let field = alternative.policy.fields[rule.field as usize];
            proved && number == alternative.rule || satisfies(self.values, self.input, field, rule)
        })
    }

    /// Looks at those who want anything but some values of a field. Where it has one value, those who do not want that
    /// one are struck out, and for all others the rule holds.
    fn look_at_excepts(&mut self, number: u32, field: &Field) {
        let mut values = self.values.of(number, self.input);
        let only = match (values.next(), values.next()) {
            (Some(value), None) => value,
            _ => {
                for &ticket in field.excepts() {
                    self.look(ticket);
                }
                return;
            }
        };
        drop(values);
        if !only.is_something() {
            return;
        }
        for &ticket in field.excluded(number, &self.index.buckets, only) {
            self.seen[ticket.alternative() as usize] = self.round;
        }
        for &ticket in field.excepts() {
            self.look(Ticket::proof(ticket.alternative()));
        }
    }
}

impl fmt::Debug for FilterIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilterIndex")
            .field("scope", &self.scope)
            .field("policies", &self.policies.len())
            .field("alternatives", &(self.alternatives.len() - self.free.len()))
            .field("keys", &self.buckets.len())
            .finish_non_exhaustive()
    }
}
