//! Who is to be looked at when something is found in a message.

use hashbrown::HashTable;

use crate::filter::paths::hash;

/// An alternative of some policy, and whether what was found proves the rule that it was entered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket(u32);

impl Ticket {
    /// The most alternatives of an index.
    pub(crate) const MOST: usize = 1 << 31;

    /// What is found proves the rule.
    pub(crate) const fn proof(alternative: u32) -> Self {
        Self(alternative << 1)
    }

    /// What is found is a hint: the rule may hold.
    pub(crate) const fn hint(alternative: u32) -> Self {
        Self(alternative << 1 | 1)
    }

    pub(crate) const fn alternative(self) -> u32 {
        self.0 >> 1
    }

    pub(crate) const fn is_proof(self) -> bool {
        self.0 & 1 == 0
    }
}

/// Tickets in one place; most places have one.
#[derive(Debug, Clone)]
pub(crate) enum Tickets {
    One(Ticket),
    Several(Vec<Ticket>),
}

impl Default for Tickets {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Tickets {
    #[inline]
    pub(crate) fn as_slice(&self) -> &[Ticket] {
        match self {
            Self::One(ticket) => std::slice::from_ref(ticket),
            Self::Several(tickets) => tickets,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(crate) fn add(&mut self, ticket: Ticket) {
        match self {
            Self::One(first) => *self = Self::Several(vec![*first, ticket]),
            Self::Several(tickets) if tickets.is_empty() => *self = Self::One(ticket),
            Self::Several(tickets) => tickets.push(ticket),
        }
    }

    /// Takes a ticket away and says whether none is left.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> bool {
        match self {
            Self::One(only) if *only == ticket => *self = Self::default(),
            Self::One(_) => {}
            Self::Several(tickets) => {
                if let Some(at) = tickets.iter().position(|&one| one == ticket) {
                    tickets.swap_remove(at);
                }
            }
        }
        self.as_slice().is_empty()
    }
}

/// What a key of [`Buckets`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A string.
    String,
    /// A string, folded.
    Folded,
    /// A number's encoding.
    Number,
    /// A block of addresses: the length of its mask and its first address.
    Net,
    /// One to eight bytes that stand somewhere in a string.
    Gram,
    /// A string that is excluded.
    ExceptString,
    /// A number that is excluded.
    ExceptNumber,
    /// The hash of several values; the field is the signature's number.
    Tuple,
}

/// Tickets by field, kind and bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buckets {
    table: HashTable<Bucket>,
}

#[derive(Debug, Clone)]
struct Bucket {
    key: Key,
    field: u32,
    kind: Kind,
    tickets: Tickets,
}

/// Bytes of which short ones need no second look-up.
#[derive(Debug, Clone)]
enum Key {
    Short(u8, [u8; 22]),
    Long(Box<[u8]>),
}

impl Key {
    fn new(bytes: &[u8]) -> Self {
        let mut short = [0; 22];
        match short.get_mut(..bytes.len()) {
            Some(start) => {
                start.copy_from_slice(bytes);
                Self::Short(bytes.len() as u8, short)
            }
            None => Self::Long(bytes.into()),
        }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(length, bytes) => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

impl Bucket {
    fn is(&self, field: u32, kind: Kind, bytes: &[u8]) -> bool {
        self.field == field && self.kind == kind && self.key.bytes() == bytes
    }
}

#[inline]
fn place(field: u32, kind: Kind, bytes: &[u8]) -> u64 {
    hash(u64::from(field) << 8 | kind as u64, bytes)
}

impl Buckets {
    #[inline]
    pub(crate) fn find(&self, field: u32, kind: Kind, bytes: &[u8]) -> &[Ticket] {
        let found = self
            .table
            .find(place(field, kind, bytes), |one| one.is(field, kind, bytes));
        found.map_or(&[], |bucket| bucket.tickets.as_slice())
    }

    pub(crate) fn add(&mut self, field: u32, kind: Kind, bytes: &[u8], ticket: Ticket) {
        let bucket = self.table.entry(
            place(field, kind, bytes),
            |one| one.is(field, kind, bytes),
            |one| place(one.field, one.kind, one.key.bytes()),
        );
        let mut bucket = bucket.or_insert_with(|| Bucket {
            key: Key::new(bytes),
            field,
            kind,
            tickets: Tickets::default(),
        });
        bucket.get_mut().tickets.add(ticket);
    }

    pub(crate) fn remove(&mut self, field: u32, kind: Kind, bytes: &[u8], ticket: Ticket) {
        let place = place(field, kind, bytes);
        if let Ok(mut bucket) = self
            .table
            .find_entry(place, |one| one.is(field, kind, bytes))
            && bucket.get_mut().tickets.remove(ticket)
        {
            bucket.remove();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}
