//! Alternatives that want one value of each of several fields: entered under all of them together, and told apart by
//! the values' hashes.

use super::field::{Cost, LOOK};
use super::tickets::{Buckets, Kind, Ticket};
use super::{Arc, Entry};
use crate::filter::condition::Value;
use crate::filter::paths::hash;
use crate::filter::values::{hash_of_number, hash_of_text};

/// What a rule wants that wants one string or number: enough of its hash to turn most others away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    None,
    Value { field: u32, hash: u32 },
}

/// The fields that some alternative wants a value of, and the hash of the value.
fn singles<'a>(entry: &'a Entry, rules: &'a [u32]) -> impl Iterator<Item = (u32, u64)> + 'a {
    rules.iter().filter_map(|&rule| {
        let rule = &entry.policy.plan.rules[rule as usize];
        let hash = match rule.set.only().filter(|_| !rule.absent)? {
            Value::String(text) => hash_of_text(text),
            Value::Number(number) => hash_of_number(number),
            _ => return None,
        };
        Some((entry.fields[rule.field as usize], hash))
    })
}

/// The guards of an alternative: its last such rules, since it is mostly entered by its first.
pub(crate) fn guards(entry: &Entry, rules: &[u32]) -> [Guard; 2] {
    let mut guards = [Guard::None; 2];
    for (field, hash) in singles(entry, rules) {
        guards = [
            guards[1],
            Guard::Value {
                field,
                hash: hash as u32,
            },
        ];
    }
    guards
}

/// The combinations of fields under which alternatives are entered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signatures {
    /// By number; one without tickets is free.
    all: Vec<Signature>,
}

#[derive(Debug, Clone)]
struct Signature {
    /// Ascending, and at least two.
    fields: Vec<u32>,
    /// Who is entered under it.
    tickets: Vec<Ticket>,
}

/// A signature that was asked for.
pub(crate) struct Held {
    pub(crate) number: u32,
    pub(crate) is_new: bool,
}

impl Signatures {
    /// The most signatures: each costs every message a look-up.
    const MOST: usize = 64;
    /// The most fields of a signature.
    const FIELDS: usize = 4;
    /// The most tuples of a message's values that are looked up; of a message with more, everybody is looked at.
    pub(crate) const TUPLES: usize = 64;
    /// The hash of no value.
    pub(crate) const START: u64 = 0;

    /// The hash of a tuple with one more value.
    #[inline]
    pub(crate) fn join(tuple: u64, value: u64) -> u64 {
        hash(tuple, &value.to_le_bytes())
    }

    /// The fields of an alternative's signature and the hash of its values.
    pub(crate) fn tuple(entry: &Entry, rules: &[u32]) -> (Vec<u32>, u64) {
        let mut singles: Vec<_> = singles(entry, rules).collect();
        singles.sort_unstable();
        singles.dedup_by_key(|&mut (field, _)| field);
        singles.truncate(Self::FIELDS);
        let tuple = singles
            .iter()
            .fold(Self::START, |tuple, &(_, value)| Self::join(tuple, value));
        (singles.into_iter().map(|(field, _)| field).collect(), tuple)
    }

    /// How an alternative would be entered under several values, if that costs less.
    pub(crate) fn plan(
        &self,
        buckets: &Buckets,
        entry: &Arc<Entry>,
        rules: &[u32],
        least: Cost,
    ) -> Option<(Vec<u32>, u64)> {
        let (fields, tuple) = Self::tuple(entry, rules);
        if fields.len() < 2 {
            return None;
        }
        let looks = match self.find(&fields) {
            Some(number) => {
                let found = buckets.find(number as u32, Kind::Tuple, &tuple.to_le_bytes());
                found.len()
            }
            None if self.used() < Self::MOST => 0,
            None => return None,
        };
        (32 + LOOK * (looks as Cost) < least).then_some((fields, tuple))
    }

    fn used(&self) -> usize {
        self.all
            .iter()
            .filter(|one| !one.tickets.is_empty())
            .count()
    }

    fn find(&self, fields: &[u32]) -> Option<usize> {
        self.all
            .iter()
            .position(|one| !one.tickets.is_empty() && one.fields == fields)
    }

    /// Adds a ticket to a signature, which is made if there is none.
    pub(crate) fn hold(&mut self, fields: &[u32], ticket: Ticket) -> Held {
        if let Some(number) = self.find(fields) {
            self.all[number].tickets.push(ticket);
            return Held {
                number: number as u32,
                is_new: false,
            };
        }
        let made = Signature {
            fields: fields.to_vec(),
            tickets: vec![ticket],
        };
        let number = match self.all.iter().position(|one| one.tickets.is_empty()) {
            Some(free) => {
                self.all[free] = made;
                free
            }
            None => {
                self.all.push(made);
                self.all.len() - 1
            }
        };
        Held {
            number: number as u32,
            is_new: true,
        }
    }

    /// Takes a ticket away and says whether the signature is free then.
    pub(crate) fn release(&mut self, number: u32, ticket: Ticket) -> bool {
        let tickets = &mut self.all[number as usize].tickets;
        if let Some(at) = tickets.iter().position(|&one| one == ticket) {
            tickets.swap_remove(at);
        }
        tickets.is_empty()
    }

    pub(crate) fn fields(&self, number: u32) -> &[u32] {
        &self.all[number as usize].fields
    }

    pub(crate) fn tickets(&self, number: u32) -> &[Ticket] {
        &self.all[number as usize].tickets
    }
}
