//! What a rule asks of a value.

use std::net::IpAddr;

use ipnet::IpNet;
use memchr::memmem::Finder;

use super::number::Number;

/// A value as it stands in a message. Strings are bytes that are UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    String(&'a [u8]),
    Number(Number),
    Bool(bool),
    Null,
    /// An attribute that is there and has no value to compare, such as an empty list.
    Nothing,
}

impl Value<'_> {
    /// Whether it is a value that `anything-but` may accept.
    pub(crate) const fn is_something(self) -> bool {
        !matches!(self, Self::Null | Self::Nothing)
    }
}

/// One element of a rule's list.
#[derive(Debug, Clone)]
pub(crate) enum Condition {
    String(Box<[u8]>),
    Number(Number),
    Bool(bool),
    Null,
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    /// Folded.
    PrefixFolded(Box<str>),
    /// Folded.
    SuffixFolded(Box<str>),
    /// Folded.
    EqualsFolded(Box<str>),
    Wildcard(Wildcard),
    Cidr(IpNet),
    /// From and to, both included.
    Range(Number, Number),
    Exists,
    Absent,
    /// Anything but these; none of them is one of the last three.
    But(Set),
}

impl Condition {
    /// Whether a value satisfies it. What asks for absence is satisfied by no value.
    pub(crate) fn accepts(&self, value: Value<'_>) -> bool {
        match (self, value) {
            (Self::Exists, _) => true,
            (Self::Absent, _) | (_, Value::Nothing) => false,
            (Self::Null, Value::Null) => true,
            (_, Value::Null) => false,
            (Self::But(none), value) => !none.accepts(value),
            (Self::Bool(wanted), Value::Bool(bool)) => *wanted == bool,
            (Self::Number(wanted), Value::Number(number)) => *wanted == number,
            (Self::Range(low, high), Value::Number(number)) => (*low..=*high).contains(&number),
            (condition, Value::String(text)) => condition.accepts_text(text),
            _ => false,
        }
    }

    fn accepts_text(&self, text: &[u8]) -> bool {
        match self {
            Self::String(wanted) => **wanted == *text,
            Self::Prefix(prefix) => text.starts_with(prefix),
            Self::Suffix(suffix) => text.ends_with(suffix),
            Self::PrefixFolded(prefix) => is_start(prefix.chars(), folded(text)).is_some(),
            Self::SuffixFolded(suffix) => {
                is_start(suffix.chars().rev(), folded_back(text)).is_some()
            }
            Self::EqualsFolded(wanted) => {
                is_start(wanted.chars(), folded(text)).is_some_and(|mut rest| rest.next().is_none())
            }
            Self::Wildcard(wildcard) => wildcard.accepts(text),
            Self::Cidr(net) => address(text).is_some_and(|address| net.contains(&address)),
            _ => false,
        }
    }
}

/// The address that a text is.
pub(crate) fn address(text: &[u8]) -> Option<IpAddr> {
    // The longest address has 45 characters.
    if text.len() > 45 {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// What is left of a text after its start, if it starts so.
fn is_start<T: Iterator<Item = char>>(start: impl Iterator<Item = char>, mut text: T) -> Option<T> {
    for wanted in start {
        if text.next()? != wanted {
            return None;
        }
    }
    Some(text)
}

/// The characters of a text in lower case, one by one, so that a character's neighbours do not change it.
pub(crate) fn folded(text: &[u8]) -> impl Iterator<Item = char> {
    let text = std::str::from_utf8(text).unwrap_or_default();
    text.chars().flat_map(char::to_lowercase)
}

fn folded_back(text: &[u8]) -> impl Iterator<Item = char> {
    let text = std::str::from_utf8(text).unwrap_or_default();
    text.chars()
        .rev()
        .flat_map(|character| character.to_lowercase().rev())
}

/// A pattern of literal pieces with anything between them.
#[derive(Debug, Clone)]
pub(crate) struct Wildcard {
    /// Before the first asterisk.
    start: Box<[u8]>,
    /// Between asterisks; none is empty.
    middle: Box<[Finder<'static>]>,
    /// After the last asterisk; `None` when there is no asterisk.
    end: Option<Box<[u8]>>,
}

/// A pattern that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadWildcard {
    Row,
    Escape,
}

impl Wildcard {
    pub(crate) fn parse(pattern: &str) -> Result<Self, BadWildcard> {
        let mut pieces = vec![Vec::new()];
        let mut bytes = pattern.bytes();
        let mut after_asterisk = false;
        while let Some(byte) = bytes.next() {
            if byte == b'*' {
                if after_asterisk {
                    return Err(BadWildcard::Row);
                }
                after_asterisk = true;
                pieces.push(Vec::new());
                continue;
            }
            after_asterisk = false;
            let literal = match byte {
                b'\\' => match bytes.next() {
                    Some(escaped @ (b'*' | b'\\')) => escaped,
                    _ => return Err(BadWildcard::Escape),
                },
                other => other,
            };
            if let Some(piece) = pieces.last_mut() {
                piece.push(literal);
            }
        }
        let end = if pieces.len() > 1 { pieces.pop() } else { None };
        let mut pieces = pieces.into_iter();
        Ok(Self {
            start: pieces.next().unwrap_or_default().into(),
            middle: pieces
                .map(|piece| Finder::new(&piece).into_owned())
                .collect(),
            end: end.map(Into::into),
        })
    }

    /// Each piece is taken where it first stands: what a later place would allow, the first allows as well.
    fn accepts(&self, text: &[u8]) -> bool {
        let Some(rest) = text.strip_prefix(&*self.start) else {
            return false;
        };
        let Some(end) = &self.end else {
            return rest.is_empty();
        };
        let Some(mut rest) = rest.strip_suffix(&**end) else {
            return false;
        };
        for piece in &self.middle {
            let Some(at) = piece.find(rest) else {
                return false;
            };
            rest = &rest[at + piece.needle().len()..];
        }
        true
    }

    /// What a text must begin with.
    pub(crate) fn start(&self) -> &[u8] {
        &self.start
    }

    /// What a text must end with.
    pub(crate) fn end(&self) -> &[u8] {
        self.end.as_deref().unwrap_or_default()
    }

    /// The text that it stands for when it has no asterisk.
    pub(crate) fn literal(&self) -> Option<&[u8]> {
        self.end.is_none().then_some(&self.start)
    }

    /// The literal pieces, start and end included.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let middle = self.middle.iter().map(Finder::needle);
        [self.start(), self.end()].into_iter().chain(middle)
    }
}

/// Conditions, one of which has to be satisfied.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    /// The plain strings, sorted.
    strings: Box<[Box<[u8]>]>,
    /// The plain numbers, sorted.
    numbers: Box<[Number]>,
    /// Everything else.
    others: Box<[Condition]>,
}

impl Set {
    pub(crate) fn new(conditions: Vec<Condition>) -> Self {
        let (mut strings, mut numbers, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for condition in conditions {
            match condition {
                Condition::String(text) => strings.push(text),
                Condition::Number(number) => numbers.push(number),
                other => others.push(other),
            }
        }
        strings.sort_unstable();
        strings.dedup();
        numbers.sort_unstable();
        numbers.dedup();
        Self {
            strings: strings.into(),
            numbers: numbers.into(),
            others: others.into(),
        }
    }

    /// Whether a value satisfies one of the conditions.
    #[inline]
    pub(crate) fn accepts(&self, value: Value<'_>) -> bool {
        let found = match value {
            Value::String(text) => match &*self.strings {
                [] => false,
                [only] => **only == *text,
                several => several.binary_search_by(|one| (**one).cmp(text)).is_ok(),
            },
            Value::Number(number) => self.numbers.binary_search(&number).is_ok(),
            _ => false,
        };
        found || self.others.iter().any(|other| other.accepts(value))
    }

    /// The only value that satisfies it, if it is one string or number.
    pub(crate) fn only(&self) -> Option<Value<'_>> {
        match (&*self.strings, &*self.numbers, &*self.others) {
            ([text], [], []) => Some(Value::String(text)),
            ([], [number], []) => Some(Value::Number(*number)),
            _ => None,
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.strings.len() + self.numbers.len() + self.others.len()
    }

    pub(crate) fn strings(&self) -> &[Box<[u8]>] {
        &self.strings
    }

    pub(crate) fn numbers(&self) -> &[Number] {
        &self.numbers
    }

    pub(crate) fn others(&self) -> &[Condition] {
        &self.others
    }
}

/// All values of one key, one of which has to match.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// The path, a node of the policy's own tree.
    pub(crate) field: u32,
    /// Whether it is satisfied when the field is absent.
    pub(crate) absent: bool,
    /// What a value must satisfy.
    pub(crate) set: Set,
}

impl Rule {
    pub(crate) fn new(field: u32, conditions: Vec<Condition>) -> Self {
        let absent = conditions
            .iter()
            .any(|condition| matches!(condition, Condition::Absent));
        Self {
            field,
            absent,
            set: Set::new(conditions),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(pattern: &str, text: &str) -> bool {
        Wildcard::parse(pattern)
            .expect("a pattern")
            .accepts(text.as_bytes())
    }

    #[test]
    fn an_asterisk_stands_for_anything() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "x"),
            ("a*", "a"),
            ("a*", "abc"),
            ("*c", "abc"),
            ("a*c", "ac"),
            ("*b*", "abc"),
            ("a*b*c", "a-b-b-c"),
            ("*aab*", "aaab"),
            ("a*a", "aa"),
            (r"a\*b", "a*b"),
            (r"a\\*", r"a\b"),
            ("", ""),
            ("abc", "abc"),
        ] {
            assert!(accepts(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("a*a", "a"),
            ("a*c", "acb"),
            ("*b*", "ac"),
            ("a*b*b", "ab"),
            ("ab*bc", "abc"),
            (r"a\*b", "axb"),
            ("", "x"),
            ("abc", "abcd"),
        ] {
            assert!(!accepts(pattern, text), "{pattern} {text}");
        }
        assert_eq!(Wildcard::parse("a**").err(), Some(BadWildcard::Row));
        assert!(Wildcard::parse(r"*\**").is_ok());
        assert_eq!(Wildcard::parse(r"a\b").err(), Some(BadWildcard::Escape));
        assert_eq!(Wildcard::parse("a\\").err(), Some(BadWildcard::Escape));
    }

    #[test]
    fn case_is_folded_character_by_character() {
        let equals = Condition::EqualsFolded("straße σ".into());
        assert!(equals.accepts(Value::String("STRAßE Σ".as_bytes())));
        assert!(!equals.accepts(Value::String("STRAßE Σ!".as_bytes())));
        assert!(!equals.accepts(Value::String("STRAßE ".as_bytes())));
        let suffix = Condition::SuffixFolded("i\u{307}x".into());
        assert!(suffix.accepts(Value::String("aİX".as_bytes())));
        let prefix = Condition::PrefixFolded("ab".into());
        assert!(prefix.accepts(Value::String(b"ABc")) && !prefix.accepts(Value::String(b"A")));
    }
}
