//! What an index knows of one path.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::ranges::Ranges;
use super::tickets::{Buckets, Kind, Ticket, Tickets};
use super::trie::Trie;
use crate::filter::condition::{Condition, Rule, Value, Wildcard, address, folded};
use crate::filter::number::Number;
use crate::filter::values::Found;

/// The longest piece of a wildcard that is looked for everywhere in a text, in bytes.
const GRAM: usize = 8;

/// Where the rules on one path are entered. Keys that are looked up whole stand in the index's [`Buckets`]; how many
/// of each kind there are stands here, so that nothing is looked up in vain.
#[derive(Debug, Clone, Default)]
pub(crate) struct Field {
    strings: u32,
    folded: u32,
    numbers: u32,
    /// By their length.
    grams: [u32; GRAM + 1],
    /// By family and length of the mask.
    nets: BTreeMap<(bool, u8), u32>,
    starts: Option<Box<Trie>>,
    ends: Option<Box<Trie>>,
    folded_starts: Option<Box<Trie>>,
    folded_ends: Option<Box<Trie>>,
    ranges: Ranges,
    /// False, true, null.
    words: [Tickets; 3],
    /// Who wants the path to be there, whatever its value.
    present: Tickets,
    /// Who wants anything but some strings and numbers; these stand in the buckets.
    excepts: Tickets,
    /// The signatures of which this is the first field.
    pub(crate) signatures: Vec<u32>,
}

/// How a rule is entered.
#[derive(Debug, Clone)]
pub(crate) enum Access {
    /// Under each of its conditions; wildcards at these places, in their order.
    Conditions(Box<[Anchor]>),
    /// Under the path.
    Present,
    /// Under the path, and under the values that it excludes.
    Except,
    /// Under the values of several rules together, by the signature's number.
    Tuple(u32),
}

/// The place at which a wildcard is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Literal,
    Start,
    End,
    /// So many bytes of a piece.
    Gram {
        bytes: [u8; GRAM],
        length: u8,
    },
}

/// What a way to enter a rule costs a message, in rough nanoseconds; it decides by which rule an alternative is entered.
pub(crate) type Cost = u64;

/// What it costs to look at one more alternative.
pub(crate) const LOOK: Cost = 16;
/// What it costs to be looked at whenever the path is there: the last resort.
const PRESENT: Cost = 1 << 40;
/// The most conditions of a rule that is entered under each of them, so that a policy's alternatives times its
/// conditions stay bounded.
const CONDITIONS: usize = 1_000;

/// The rules of all fields that are looked up whole.
pub(crate) struct Place<'a> {
    pub(crate) number: u32,
    pub(crate) field: &'a mut Field,
    pub(crate) buckets: &'a mut Buckets,
}

/// Whether a ticket comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Add,
    Remove,
}

impl Field {
    /// How a rule would be entered here, and what that would cost.
    pub(crate) fn plan(&self, number: u32, buckets: &Buckets, rule: &Rule) -> (Access, Cost) {
        let bucket = |kind, bytes: &[u8]| buckets.find(number, kind, bytes).len();
        if let ([], [], [Condition::But(but)]) =
            (rule.set.strings(), rule.set.numbers(), rule.set.others())
            && but.others().is_empty()
            && but.len() <= CONDITIONS
        {
            return (Access::Except, PRESENT);
        }
        let present = (Access::Present, PRESENT);
        if rule.set.len() > CONDITIONS {
            return present;
        }
        let mut cost: Cost = 0;
        let mut spend = |fixed: Cost, looks: usize| cost += fixed + LOOK * looks as Cost;
        for text in rule.set.strings() {
            spend(4, bucket(Kind::String, text));
        }
        for number in rule.set.numbers() {
            spend(4, bucket(Kind::Number, &number.bytes()));
        }
        let count = |trie: &Option<Box<Trie>>, text: &[u8]| {
            let many = trie.as_ref().map_or(0, |trie| trie.count(text));
            (8 + (256 >> text.len().min(8)), many)
        };
        let mut anchors = Vec::new();
        for other in rule.set.others() {
            let (fixed, looks) = match other {
                Condition::Bool(_) | Condition::Null => {
                    (64, word(other).map_or(0, |word| self.words[word].len()))
                }
                Condition::Prefix(text) => count(&self.starts, text),
                Condition::Suffix(text) => count(&self.ends, &reversed(text)),
                Condition::PrefixFolded(text) => count(&self.folded_starts, text.as_bytes()),
                Condition::SuffixFolded(text) => {
                    count(&self.folded_ends, &reversed(text.as_bytes()))
                }
                Condition::EqualsFolded(text) => (8, bucket(Kind::Folded, text.as_bytes())),
                Condition::Cidr(net) => (
                    32 + 256 / (1 + Cost::from(net.prefix_len())),
                    bucket(Kind::Net, &net_key(net)),
                ),
                // One in sixteen of the ranges is thought to be found; of those with one end, every second.
                Condition::Range(Number::LEAST, _) | Condition::Range(_, Number::GREATEST) => {
                    (512, self.ranges.len() / 2)
                }
                Condition::Range(..) => (128, self.ranges.len() / 16),
                Condition::Wildcard(wildcard) => {
                    let Some((anchor, fixed, looks)) = self.anchor(number, buckets, wildcard)
                    else {
                        return present;
                    };
                    anchors.push(anchor);
                    (fixed, looks)
                }
                _ => return present,
            };
            spend(fixed, looks);
        }
        (Access::Conditions(anchors.into()), cost)
    }

    /// The place at which a wildcard would be looked at least.
    fn anchor(
        &self,
        number: u32,
        buckets: &Buckets,
        wildcard: &Wildcard,
    ) -> Option<(Anchor, Cost, usize)> {
        if let Some(text) = wildcard.literal() {
            return Some((
                Anchor::Literal,
                4,
                buckets.find(number, Kind::String, text).len(),
            ));
        }
        let count = |trie: &Option<Box<Trie>>, text: &[u8]| {
            let many = trie.as_ref().map_or(0, |trie| trie.count(text));
            (8 + (256 >> text.len().min(8)), many)
        };
        let mut best = None;
        let mut offer = |anchor, (fixed, looks): (Cost, usize)| {
            let cost = fixed + LOOK * looks as Cost;
            if best.is_none_or(|(_, least, _, _)| cost < least) {
                best = Some((anchor, cost, fixed, looks));
            }
        };
        if !wildcard.start().is_empty() {
            offer(Anchor::Start, count(&self.starts, wildcard.start()));
        }
        if !wildcard.end().is_empty() {
            offer(Anchor::End, count(&self.ends, &reversed(wildcard.end())));
        }
        for piece in wildcard.pieces().filter(|piece| !piece.is_empty()) {
            let lengths = [piece.len().min(GRAM), piece.len().min(GRAM / 2)];
            for length in lengths
                .into_iter()
                .filter(|&length| matches!(length, 1..=4 | GRAM))
            {
                for window in piece.windows(length) {
                    let mut bytes = [0; GRAM];
                    bytes[..length].copy_from_slice(window);
                    let looks = buckets.find(number, Kind::Gram, window).len();
                    let gram = Anchor::Gram {
                        bytes,
                        length: length as u8,
                    };
                    offer(gram, (12 + (256 >> length), looks));
                }
            }
        }
        best.map(|(anchor, _, fixed, looks)| (anchor, fixed, looks))
    }

    /// Gives the tickets for a value of the field; those of its presence apart.
    #[inline]
    pub(crate) fn look(
        &self,
        number: u32,
        buckets: &Buckets,
        value: Found<'_>,
        text: &mut String,
        found: &mut impl FnMut(Ticket),
    ) {
        let mut all = |tickets: &[Ticket]| tickets.iter().for_each(|&ticket| found(ticket));
        match value.value {
            Value::String(string) => self.look_for_text(number, buckets, string, text, &mut all),
            Value::Number(value) => {
                if self.numbers > 0 {
                    all(buckets.find(number, Kind::Number, &value.bytes()));
                }
                if self.ranges.len() > 0 {
                    self.ranges.find(value, found);
                }
            }
            Value::Bool(bool) => all(self.words[usize::from(bool)].as_slice()),
            Value::Null => all(self.words[2].as_slice()),
            Value::Nothing => {}
        }
    }

    #[inline]
    fn look_for_text(
        &self,
        number: u32,
        buckets: &Buckets,
        string: &[u8],
        text: &mut String,
        all: &mut impl FnMut(&[Ticket]),
    ) {
        if self.strings > 0 {
            all(buckets.find(number, Kind::String, string));
        }
        if let Some(starts) = &self.starts {
            starts.walk(string.iter().copied(), &mut *all);
        }
        if let Some(ends) = &self.ends {
            ends.walk(string.iter().rev().copied(), &mut *all);
        }
        for length in 1..=GRAM {
            if self.grams[length] > 0 {
                for window in string.windows(length) {
                    all(buckets.find(number, Kind::Gram, window));
                }
            }
        }
        if !self.nets.is_empty()
            && let Some(address) = address(string)
        {
            for &(is_v6, length) in self.nets.keys() {
                if is_v6 == address.is_ipv6()
                    && let Ok(net) = IpNet::new(address, length)
                {
                    all(buckets.find(number, Kind::Net, &net_key(&net.trunc())));
                }
            }
        }
        if self.folded > 0 || self.folded_starts.is_some() || self.folded_ends.is_some() {
            text.clear();
            text.extend(folded(string));
            if self.folded > 0 {
                all(buckets.find(number, Kind::Folded, text.as_bytes()));
            }
            if let Some(starts) = &self.folded_starts {
                starts.walk(text.bytes(), &mut *all);
            }
            if let Some(ends) = &self.folded_ends {
                ends.walk(text.bytes().rev(), &mut *all);
            }
        }
    }

    /// Those who are looked at whatever the values.
    #[inline]
    pub(crate) fn present(&self) -> &[Ticket] {
        self.present.as_slice()
    }

    /// Those who want anything but some values.
    #[inline]
    pub(crate) fn excepts(&self) -> &[Ticket] {
        self.excepts.as_slice()
    }

    /// Those of [`excepts`](Self::excepts) who do not want this value.
    #[inline]
    pub(crate) fn excluded<'b>(
        &self,
        number: u32,
        buckets: &'b Buckets,
        value: Value<'_>,
    ) -> &'b [Ticket] {
        match value {
            Value::String(text) => buckets.find(number, Kind::ExceptString, text),
            Value::Number(value) => buckets.find(number, Kind::ExceptNumber, &value.bytes()),
            _ => &[],
        }
    }
}

impl Place<'_> {
    /// Enters a rule of an alternative, or takes it out again.
    pub(crate) fn change(
        &mut self,
        change: Change,
        rule: &Rule,
        access: &Access,
        alternative: u32,
    ) {
        let proof = Ticket::proof(alternative);
        let hint = Ticket::hint(alternative);
        let anchors = match access {
            Access::Present => {
                let certain = rule
                    .set
                    .others()
                    .iter()
                    .any(|other| matches!(other, Condition::Exists));
                apply(
                    change,
                    &mut self.field.present,
                    if certain { proof } else { hint },
                );
                return;
            }
            Access::Except => {
                apply(change, &mut self.field.excepts, hint);
                if let [Condition::But(but)] = rule.set.others() {
                    for text in but.strings() {
                        self.bucket(change, Kind::ExceptString, text, hint);
                    }
                    for number in but.numbers() {
                        self.bucket(change, Kind::ExceptNumber, &number.bytes(), hint);
                    }
                }
                return;
            }
            Access::Conditions(anchors) => anchors,
            Access::Tuple(_) => return,
        };
        for text in rule.set.strings() {
            self.bucket(change, Kind::String, text, proof);
        }
        for number in rule.set.numbers() {
            self.bucket(change, Kind::Number, &number.bytes(), proof);
        }
        let mut anchors = anchors.iter();
        for other in rule.set.others() {
            let field = &mut *self.field;
            match other {
                Condition::Bool(_) | Condition::Null => {
                    if let Some(word) = word(other) {
                        apply(change, &mut field.words[word], proof);
                    }
                }
                Condition::Prefix(text) => graft(change, &mut field.starts, text, proof),
                Condition::Suffix(text) => graft(change, &mut field.ends, &reversed(text), proof),
                Condition::PrefixFolded(text) => {
                    graft(change, &mut field.folded_starts, text.as_bytes(), proof);
                }
                Condition::SuffixFolded(text) => {
                    let text = reversed(text.as_bytes());
                    graft(change, &mut field.folded_ends, &text, proof);
                }
                Condition::EqualsFolded(text) => {
                    self.bucket(change, Kind::Folded, text.as_bytes(), proof);
                }
                Condition::Cidr(net) => self.bucket(change, Kind::Net, &net_key(net), proof),
                Condition::Range(low, high) => match change {
                    Change::Add => field.ranges.add(*low, *high, proof),
                    Change::Remove => field.ranges.remove(*low, *high, proof),
                },
                Condition::Wildcard(wildcard) => match anchors.next() {
                    Some(Anchor::Literal) => {
                        self.bucket(change, Kind::String, wildcard.start(), proof);
                    }
                    Some(Anchor::Start) => {
                        graft(change, &mut field.starts, wildcard.start(), hint);
                    }
                    Some(Anchor::End) => {
                        graft(change, &mut field.ends, &reversed(wildcard.end()), hint);
                    }
                    Some(Anchor::Gram { bytes, length }) => {
                        self.bucket(change, Kind::Gram, &bytes[..usize::from(*length)], hint);
                    }
                    None => {}
                },
                _ => {}
            }
        }
    }

    fn bucket(&mut self, change: Change, kind: Kind, bytes: &[u8], ticket: Ticket) {
        let count = match kind {
            Kind::String => &mut self.field.strings,
            Kind::Folded => &mut self.field.folded,
            Kind::Number => &mut self.field.numbers,
            Kind::Gram => &mut self.field.grams[bytes.len()],
            Kind::Net => self
                .field
                .nets
                .entry((bytes.len() > 5, bytes[0]))
                .or_default(),
            // Every one of them is in `excepts`.
            Kind::ExceptString | Kind::ExceptNumber | Kind::Tuple => &mut 0,
        };
        match change {
            Change::Add => {
                *count += 1;
                self.buckets.add(self.number, kind, bytes, ticket);
            }
            Change::Remove => {
                *count = count.saturating_sub(1);
                self.buckets.remove(self.number, kind, bytes, ticket);
            }
        }
        if kind == Kind::Net {
            self.field.nets.retain(|_, count| *count > 0);
        }
    }
}

fn apply(change: Change, tickets: &mut Tickets, ticket: Ticket) {
    match change {
        Change::Add => tickets.add(ticket),
        Change::Remove => {
            tickets.remove(ticket);
        }
    }
}

fn graft(change: Change, trie: &mut Option<Box<Trie>>, text: &[u8], ticket: Ticket) {
    match change {
        Change::Add => trie
            .get_or_insert_with(|| Box::new(Trie::new()))
            .add(text, ticket),
        Change::Remove => {
            if let Some(inner) = trie {
                inner.remove(text, ticket);
                if inner.is_empty() {
                    *trie = None;
                }
            }
        }
    }
}

/// The place of a word among a field's words.
const fn word(condition: &Condition) -> Option<usize> {
    match condition {
        Condition::Bool(false) => Some(0),
        Condition::Bool(true) => Some(1),
        Condition::Null => Some(2),
        _ => None,
    }
}

fn reversed(text: &[u8]) -> Vec<u8> {
    text.iter().rev().copied().collect()
}

/// The mask's length and the block's first address: five bytes or seventeen.
fn net_key(net: &IpNet) -> Vec<u8> {
    let mut key = vec![net.prefix_len()];
    match net.network() {
        IpAddr::V4(address) => key.extend(address.octets()),
        IpAddr::V6(address) => key.extend(address.octets()),
    }
    key
}
