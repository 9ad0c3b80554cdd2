//! What a message has at the paths that policies speak of, read in one pass.

use sim_core::attributes::{Attributes, Data};

use super::condition::Value;
use super::json::{MAX_DEPTH, Scanner, Span, unescape};
use super::number::Number;
use super::paths::{Paths, ROOT, hash};

/// No entry.
const END: u32 = u32::MAX;
/// The source of text that stands in [`Values::text`].
const OWN: u32 = u32::MAX;

/// The values of one message, field by field. It holds positions, not references, and is used again for the next.
#[derive(Debug, Default)]
pub(crate) struct Values {
    entries: Vec<Entry>,
    /// By field.
    heads: Vec<Head>,
    /// Strings that had escapes.
    text: Vec<u8>,
    /// While a body is read: fields that are in every flat form of it so far. See [`Reader::array`].
    covered: Vec<u32>,
    /// Which message this is; what has another number is of an earlier one.
    epoch: u32,
}

impl Values {
    /// How many bytes it has allocated for the values of messages.
    pub(crate) const fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.text.capacity()
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    field: u32,
    /// The next of the same field.
    next: u32,
    kind: Kind,
    hash: u64,
}

/// The hash of a string as [`Values`] keeps it.
pub(crate) fn hash_of_text(text: &[u8]) -> u64 {
    hash(0, text)
}

/// The hash of a number as [`Values`] keeps it.
pub(crate) fn hash_of_number(number: Number) -> u64 {
    hash(1, &number.bytes())
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    String { source: u32, start: u32, end: u32 },
    Number(Number),
    Bool(bool),
    Null,
    Nothing,
}

#[derive(Debug, Clone, Copy, Default)]
struct Head {
    epoch: u32,
    first: u32,
    /// The epoch in which every flat form had the field.
    covered: u32,
}

/// A value that was found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<'a> {
    pub(crate) field: u32,
    /// Whether it is the first of its field.
    pub(crate) is_first: bool,
    pub(crate) value: Value<'a>,
}

/// How many values a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Absent,
    /// One, with its hash.
    One(u64),
    Several,
}

/// Where the strings of [`Values`] stand.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input<'a> {
    Body(&'a [u8]),
    Attributes(&'a Attributes),
}

/// Why a message could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable;

impl Values {
    /// Makes room for a tree's fields and forgets the message before.
    fn begin(&mut self, paths: &Paths) {
        self.entries.clear();
        self.text.clear();
        self.covered.clear();
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            self.heads.clear();
            self.epoch = 1;
        }
        if self.heads.len() < paths.len() {
            self.heads.resize(paths.len(), Head::default());
        }
    }

    /// Reads the fields of a body that is a JSON object.
    pub(crate) fn read_body(&mut self, paths: &Paths, body: &[u8]) -> Result<(), Unreadable> {
        self.begin(paths);
        let text = std::str::from_utf8(body).map_err(|_| Unreadable)?;
        if u32::try_from(text.len()).is_err() {
            return Err(Unreadable);
        }
        let mut reader = Reader {
            json: Scanner::new(text),
            source: 0,
            paths,
            values: self,
        };
        if reader.body().is_none() {
            self.entries.clear();
            return Err(Unreadable);
        }
        self.covered.sort_unstable();
        for &field in &self.covered {
            self.heads[field as usize].covered = self.epoch;
        }
        Ok(())
    }

    /// Reads the fields of attributes. Says at the end whether a list among them was not one: that attribute is
    /// there and matches nothing.
    pub(crate) fn read_attributes(
        &mut self,
        paths: &Paths,
        attributes: &Attributes,
    ) -> Result<(), Unreadable> {
        self.begin(paths);
        let mut outcome = Ok(());
        for (source, attribute) in attributes.iter().enumerate() {
            let Some(field) = paths.walk(ROOT, attribute.name().as_bytes()) else {
                continue;
            };
            if !paths.is_field(field) {
                continue;
            }
            let before = self.entries.len();
            let source = source as u32;
            match attribute.value().data() {
                Data::String(text) if attribute.value().label() == Some("Array") => {
                    let mut reader = Reader {
                        json: Scanner::new(text),
                        source,
                        paths,
                        values: self,
                    };
                    if reader.list(field).is_none() {
                        outcome = Err(Unreadable);
                        self.forget(field, before);
                    }
                    if self.entries.len() == before {
                        self.push(field, Kind::Nothing, 0);
                    }
                }
                Data::String(text) => self.push(
                    field,
                    Kind::String {
                        source,
                        start: 0,
                        end: text.len() as u32,
                    },
                    hash_of_text(text.as_bytes()),
                ),
                Data::Number(text) => match Number::parse(text.as_bytes()) {
                    Some(number) => self.push(field, Kind::Number(number), hash_of_number(number)),
                    None => self.push(field, Kind::Nothing, 0),
                },
                // Bytes are ignored, as if they were not there.
                _ => continue,
            }
            self.heads[field as usize].covered = self.epoch;
        }
        Ok(()).and(outcome)
    }

    fn push(&mut self, field: u32, kind: Kind, hash: u64) {
        let head = &mut self.heads[field as usize];
        let next = if head.epoch == self.epoch {
            head.first
        } else {
            END
        };
        head.epoch = self.epoch;
        head.first = self.entries.len() as u32;
        self.entries.push(Entry {
            field,
            next,
            kind,
            hash,
        });
    }

    /// Takes back a field's entries, which are the last ones.
    fn forget(&mut self, field: u32, from: usize) {
        self.entries.truncate(from);
        self.heads[field as usize].epoch = 0;
    }

    /// Whether every flat form of the message has the field.
    #[inline]
    pub(crate) fn is_covered(&self, field: u32) -> bool {
        self.heads[field as usize].covered == self.epoch
    }

    /// How many values a field has, and the hash of its only one.
    #[inline]
    pub(crate) fn presence(&self, field: u32) -> Presence {
        let head = self.heads[field as usize];
        if head.epoch != self.epoch {
            return Presence::Absent;
        }
        match self.entries.get(head.first as usize) {
            Some(entry) if entry.next == END => Presence::One(entry.hash),
            _ => Presence::Several,
        }
    }

    /// The hashes of a field's values.
    pub(crate) fn hashes(&self, field: u32) -> impl Iterator<Item = u64> {
        let head = self.heads[field as usize];
        let mut at = if head.epoch == self.epoch {
            head.first
        } else {
            END
        };
        std::iter::from_fn(move || {
            let entry = self.entries.get(at as usize)?;
            at = entry.next;
            Some(entry.hash)
        })
    }

    /// The values of a field.
    #[inline]
    pub(crate) fn of<'a>(
        &'a self,
        field: u32,
        input: Input<'a>,
    ) -> impl Iterator<Item = Value<'a>> {
        let head = self.heads[field as usize];
        let mut at = if head.epoch == self.epoch {
            head.first
        } else {
            END
        };
        std::iter::from_fn(move || {
            let entry = self.entries.get(at as usize)?;
            at = entry.next;
            Some(self.value(entry.kind, input))
        })
    }

    /// Every value with its field, and whether it is the field's first.
    #[inline]
    pub(crate) fn all<'a>(&'a self, input: Input<'a>) -> impl Iterator<Item = Found<'a>> {
        self.entries.iter().map(move |entry| Found {
            field: entry.field,
            is_first: entry.next == END,
            value: self.value(entry.kind, input),
        })
    }

    fn value<'a>(&'a self, kind: Kind, input: Input<'a>) -> Value<'a> {
        match kind {
            Kind::String { source, start, end } => {
                let text = match input {
                    _ if source == OWN => self.text.as_slice(),
                    Input::Body(body) => body,
                    Input::Attributes(attributes) => attributes
                        .as_slice()
                        .get(source as usize)
                        .map_or(&[][..], |attribute| attribute.value().as_bytes()),
                };
                Value::String(text.get(start as usize..end as usize).unwrap_or_default())
            }
            Kind::Number(number) => Value::Number(number),
            Kind::Bool(bool) => Value::Bool(bool),
            Kind::Null => Value::Null,
            Kind::Nothing => Value::Nothing,
        }
    }
}

/// A text on its way into [`Values`]. Every reader returns nothing when the text is not JSON.
struct Reader<'a> {
    json: Scanner<'a>,
    source: u32,
    paths: &'a Paths,
    values: &'a mut Values,
}

impl Reader<'_> {
    fn body(&mut self) -> Option<()> {
        self.json.expect(b'{')?;
        self.object(ROOT, 1)?;
        self.json.is_at_end().then_some(())
    }

    /// Reads the text of a list attribute: scalars only.
    fn list(&mut self, field: u32) -> Option<()> {
        self.json.expect(b'[')?;
        if self.json.peek()? == b']' {
            self.json.take();
            return self.json.is_at_end().then_some(());
        }
        loop {
            let first = self.json.peek()?;
            if matches!(first, b'{' | b'[') {
                return None;
            }
            self.scalar(field, first)?;
            let next = self.json.peek()?;
            self.json.take();
            match next {
                b',' => {}
                b']' => return self.json.is_at_end().then_some(()),
                _ => return None,
            }
        }
    }

    /// Reads the members of an object that stands at a node and whose brace was taken.
    fn object(&mut self, node: u32, depth: u32) -> Option<()> {
        if self.json.peek()? == b'}' {
            self.json.take();
            return Some(());
        }
        let mut json = self.json;
        loop {
            let name = json.name()?;
            match self.member(node, name) {
                None => json.skip(depth)?,
                Some(node) => {
                    self.json = json;
                    self.value(node, depth)?;
                    json = self.json;
                }
            }
            let next = json.peek()?;
            json.take();
            match next {
                b',' => {}
                b'}' => {
                    self.json = json;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    #[inline]
    fn member(&mut self, node: u32, name: Span) -> Option<u32> {
        let raw = self.json.slice(name);
        if !name.escaped {
            return self.paths.walk(node, raw);
        }
        let text = &mut self.values.text;
        let before = text.len();
        unescape(raw, text);
        let found = self.paths.walk(node, &text[before..]);
        text.truncate(before);
        found
    }

    fn value(&mut self, node: u32, depth: u32) -> Option<()> {
        match self.json.peek()? {
            b'{' if self.paths.leads_on(node) => {
                if depth >= MAX_DEPTH {
                    return None;
                }
                self.json.take();
                self.object(node, depth + 1)
            }
            b'[' => {
                if depth >= MAX_DEPTH {
                    return None;
                }
                self.json.take();
                self.array(node, depth + 1)
            }
            first if first != b'{' && self.paths.is_field(node) => self.scalar(node, first),
            _ => self.json.skip(depth),
        }
    }

    /// Reads the elements of an array whose bracket was taken: each as a value of the node.
    ///
    /// A body's flat forms take one element of each array, in all combinations. A field is absent from some flat
    /// form unless it is in every form of some member of each object, and of every element of each array. So the
    /// fields that an array covers are those that all its elements cover; an empty array covers none. They are
    /// counted here for the fields of which the absence matters.
    fn array(&mut self, node: u32, depth: u32) -> Option<()> {
        if self.json.peek()? == b']' {
            self.json.take();
            return Some(());
        }
        let before = self.values.covered.len();
        let mut elements = 0_usize;
        loop {
            let own = self.values.covered.len();
            self.value(node, depth)?;
            elements += 1;
            unify(&mut self.values.covered, own, 1);
            let next = self.json.peek()?;
            self.json.take();
            match next {
                b',' => {}
                b']' => break,
                _ => return None,
            }
        }
        unify(&mut self.values.covered, before, elements);
        Some(())
    }

    #[inline]
    fn scalar(&mut self, field: u32, first: u8) -> Option<()> {
        let mut hash = 0;
        let kind = match first {
            b'"' => {
                self.json.take();
                let span = self.json.string()?;
                if span.escaped {
                    let text = &mut self.values.text;
                    let start = text.len();
                    unescape(self.json.slice(span), text);
                    hash = hash_of_text(&text[start..]);
                    Kind::String {
                        source: OWN,
                        start: start as u32,
                        end: text.len() as u32,
                    }
                } else {
                    hash = hash_of_text(self.json.slice(span));
                    Kind::String {
                        source: self.source,
                        start: span.start as u32,
                        end: span.end as u32,
                    }
                }
            }
            b't' => {
                self.json.word(b"true")?;
                Kind::Bool(true)
            }
            b'f' => {
                self.json.word(b"false")?;
                Kind::Bool(false)
            }
            b'n' => {
                self.json.word(b"null")?;
                Kind::Null
            }
            _ => {
                let span = self.json.number()?;
                let number = Number::parse(self.json.slice(span))?;
                hash = hash_of_number(number);
                Kind::Number(number)
            }
        };
        if self.paths.is_missed(field) {
            self.values.covered.push(field);
        }
        self.values.push(field, kind, hash);
        Some(())
    }
}

/// Leaves one of each field that stands at least `times` times at `from` and behind.
fn unify(fields: &mut Vec<u32>, from: usize, times: usize) {
    if fields.len() < from + 2 {
        if fields.len() < from + times {
            fields.truncate(from);
        }
        return;
    }
    fields[from..].sort_unstable();
    let (mut read, mut write) = (from, from);
    while read < fields.len() {
        let field = fields[read];
        let run = fields[read..]
            .iter()
            .take_while(|&&other| other == field)
            .count();
        if run >= times {
            fields[write] = field;
            write += 1;
        }
        read += run;
    }
    fields.truncate(write);
}
