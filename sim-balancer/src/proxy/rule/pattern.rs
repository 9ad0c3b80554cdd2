//! Patterns: wildcards, and regular expressions.
//!
//! # Algorithm
//!
//! A wildcard pattern is cut at its stars into pieces. The first is compared at the text's start and the last at its end;
//! those between are searched one after the other, each at its leftmost place, which is right because a star takes
//! whatever lies between. A piece is searched by the shift-and automaton (R. Baeza-Yates and G. Gonnet, "A new approach
//! to text searching", CACM 35(10), 1992), one bit for each of up to 64 bytes, where `?` is a bit that every byte sets; so
//! a match takes time in proportion to the text, whatever the pattern. What a piece has beyond 64 bytes is compared at the
//! places where its first 64 stand.

use regex::bytes::{Regex, RegexBuilder};

use crate::proxy::config::{At, ProxyConfigError, Quotas};

/// Whether upper and lower case differ. Only ASCII letters have case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    Sensitive,
    Insensitive,
}

impl Case {
    #[inline]
    fn fold(self, byte: u8) -> u8 {
        match self {
            Self::Sensitive => byte,
            Self::Insensitive => byte.to_ascii_lowercase(),
        }
    }
}

/// A pattern in which `*` stands for any bytes and `?` for one; `\*`, `\?` and `\\` stand for themselves.
#[derive(Debug, Clone)]
pub(crate) struct Wildcard {
    case: Case,
    first: Piece,
    middle: Box<[Search]>,
    /// `None` without a star: the first piece is then the whole.
    last: Option<Piece>,
}

/// What stands between stars; `None` is a `?`.
#[derive(Debug, Clone, Default)]
struct Piece(Box<[Option<u8>]>);

/// A piece that may stand anywhere, with the automaton that finds it.
#[derive(Debug, Clone)]
struct Search {
    piece: Piece,
    masks: Box<[u64; 256]>,
    done: u64,
}

impl Wildcard {
    pub(crate) fn new(pattern: &str, case: Case) -> Self {
        let mut pieces = vec![Vec::new()];
        let mut bytes = pattern.bytes().peekable();
        while let Some(byte) = bytes.next() {
            let last = pieces.len() - 1;
            match byte {
                b'*' => pieces.push(Vec::new()),
                b'?' => pieces[last].push(None),
                b'\\' => {
                    let escaped = bytes.next_if(|next| matches!(next, b'*' | b'?' | b'\\'));
                    pieces[last].push(Some(escaped.unwrap_or(byte)));
                }
                _ => pieces[last].push(Some(case.fold(byte))),
            }
        }
        let mut pieces = pieces.into_iter().map(|piece| Piece(piece.into()));
        let first = pieces.next().unwrap_or_default();
        let last = pieces.next_back();
        let middle = pieces
            .filter(|piece| !piece.0.is_empty())
            .map(|piece| Search::new(piece, case));
        Self {
            case,
            first,
            middle: middle.collect(),
            last,
        }
    }

    /// Whether the pattern matches the whole text.
    #[inline]
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        let first = self.first.0.len();
        let Some(last) = &self.last else {
            return text.len() == first && self.first.stands_at(text, self.case);
        };
        if text.len() < first + last.0.len() || !self.first.stands_at(text, self.case) {
            return false;
        }
        let (mut rest, end) = text[first..].split_at(text.len() - first - last.0.len());
        if !last.stands_at(end, self.case) {
            return false;
        }
        for search in &self.middle {
            match search.find(rest, self.case) {
                Some(after) => rest = &rest[after..],
                None => return false,
            }
        }
        true
    }

    /// The text that alone matches, if the pattern has no wildcards.
    pub(crate) fn literal(&self) -> Option<Vec<u8>> {
        match self.last {
            Some(_) => None,
            None => self.first.0.iter().copied().collect(),
        }
    }

    /// What every match begins with.
    pub(crate) fn prefix(&self) -> Vec<u8> {
        self.first.0.iter().map_while(|byte| *byte).collect()
    }
}

/// How many wildcards a pattern has.
pub(crate) fn wildcards(pattern: &str) -> usize {
    let mut count = 0;
    let mut bytes = pattern.bytes().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' => count += 1,
            b'\\' => _ = bytes.next_if(|next| matches!(next, b'*' | b'?' | b'\\')),
            _ => {}
        }
    }
    count
}

impl Piece {
    /// Whether it stands at the text's start; the text is at least as long.
    #[inline]
    fn stands_at(&self, text: &[u8], case: Case) -> bool {
        let mut pairs = self.0.iter().zip(text);
        pairs.all(|(want, byte)| want.is_none_or(|want| want == case.fold(*byte)))
    }
}

impl Search {
    fn new(piece: Piece, case: Case) -> Self {
        let short = &piece.0[..piece.0.len().min(64)];
        let mut masks = Box::new([0; 256]);
        for (place, want) in short.iter().enumerate() {
            for (byte, mask) in (0..=u8::MAX).zip(masks.iter_mut()) {
                if want.is_none_or(|want| want == case.fold(byte)) {
                    *mask |= 1 << place;
                }
            }
        }
        let done = 1 << (short.len() - 1);
        Self { piece, masks, done }
    }

    /// The end of the piece's leftmost place.
    fn find(&self, text: &[u8], case: Case) -> Option<usize> {
        let mut state = 0_u64;
        for (at, byte) in text.iter().enumerate() {
            state = (state << 1 | 1) & self.masks[usize::from(*byte)];
            if state & self.done != 0 {
                let rest = self.piece.0.get(64..).unwrap_or_default();
                let after = &text[at + 1..];
                let is_whole = after.len() >= rest.len()
                    && rest
                        .iter()
                        .zip(after)
                        .all(|(want, byte)| want.is_none_or(|want| want == case.fold(*byte)));
                if is_whole {
                    return Some(at + 1 + rest.len());
                }
            }
        }
        None
    }
}

/// The patterns of one condition, each an alternative.
#[derive(Debug, Clone)]
pub(crate) struct Patterns {
    pub(super) wildcards: Box<[Wildcard]>,
    pub(super) expressions: Box<[Regex]>,
}

impl Patterns {
    pub(crate) fn new(
        values: &[String],
        expressions: &[String],
        case: Case,
        at: At<'_>,
        quotas: &Quotas,
    ) -> Result<Self, ProxyConfigError> {
        let expressions = expressions.iter().enumerate().map(|(index, expression)| {
            compile(expression, case, at.part("regex_values", index), quotas)
        });
        Ok(Self {
            wildcards: values
                .iter()
                .map(|value| Wildcard::new(value, case))
                .collect(),
            expressions: expressions.collect::<Result<_, _>>()?,
        })
    }

    #[inline]
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        self.wildcards.iter().any(|wildcard| wildcard.matches(text))
            || self
                .expressions
                .iter()
                .any(|expression| expression.is_match(text))
    }
}

/// Compiles a regular expression within the bounds on its size.
pub(crate) fn compile(
    expression: &str,
    case: Case,
    at: At<'_>,
    quotas: &Quotas,
) -> Result<Regex, ProxyConfigError> {
    RegexBuilder::new(expression)
        .case_insensitive(case == Case::Insensitive)
        .size_limit(quotas.regex_bytes())
        .dfa_size_limit(quotas.regex_bytes())
        .nest_limit(64)
        .build()
        .or_else(|error| {
            let why = match error {
                regex::Error::CompiledTooBig(most) => format!("compiles to more than {most} bytes"),
                error => {
                    let error = error.to_string();
                    let line = error.lines().last().unwrap_or_default().trim();
                    format!(
                        "is not a regular expression: {}",
                        line.trim_start_matches("error: ")
                    )
                }
            };
            at.invalid(expression, why)
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, by recursion.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.first(), text.first()) {
            (None, None) => true,
            (Some(b'*'), _) => {
                naive(&pattern[1..], text) || !text.is_empty() && naive(pattern, &text[1..])
            }
            (Some(b'?'), Some(_)) => naive(&pattern[1..], &text[1..]),
            (Some(want), Some(byte)) => want == byte && naive(&pattern[1..], &text[1..]),
            _ => false,
        }
    }

    fn matches(pattern: &str, text: &str) -> bool {
        Wildcard::new(pattern, Case::Sensitive).matches(text.as_bytes())
    }

    #[test]
    fn stars_and_question_marks_stand_for_text() {
        for (pattern, text) in [
            ("/img/*", "/img/"),
            ("/img/*", "/img/a/b"),
            ("*.example.com", "a.b.example.com"),
            ("*", ""),
            ("a?c", "abc"),
            ("*a*b*", "xaxbx"),
            ("", ""),
            ("a*a", "aa"),
            ("??*", "ab"),
            ("*ab?d*", "xxabcdx"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("/img/*", "/img"),
            ("*.example.com", "example.com"),
            ("a?c", "ac"),
            ("", "a"),
            ("a*a", "a"),
            ("a", "A"),
            ("*ab*ab", "ab"),
            ("?", ""),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn escapes_stand_for_themselves() {
        assert!(matches(r"a\*b", "a*b"));
        assert!(!matches(r"a\*b", "axb"));
        assert!(matches(r"a\?", "a?"));
        assert!(matches(r"\\", r"\"));
        assert!(matches(r"\a", r"\a"));
        assert_eq!(wildcards(r"a\*b*?\\*"), 3);
    }

    #[test]
    fn case_is_folded_where_it_is_asked_for() {
        let pattern = Wildcard::new("*.Example.COM", Case::Insensitive);
        assert!(pattern.matches(b"WWW.eXample.com"));
        assert!(Wildcard::new("*B*", Case::Insensitive).matches(b"abc"));
    }

    #[test]
    fn a_long_piece_is_found_too() {
        let long = format!("{}b{}", "a".repeat(70), "c".repeat(70));
        assert!(matches(
            &format!("*{long}*"),
            &format!("{}{long}x", "a".repeat(99))
        ));
        assert!(!matches(&format!("*{long}*"), &long[1..]));
        assert!(!matches(&format!("*{long}d*"), &format!("{long}c")));
    }

    #[test]
    fn expressions_are_bounded() {
        let quotas = Quotas::default();
        let at = At::ROOT.part("listeners", 0);
        assert!(compile(r"^/v[0-9]+/", Case::Sensitive, at, &quotas).is_ok());
        let large =
            compile(r"(\w{100}){1000}", Case::Sensitive, at, &quotas).expect_err("too large");
        assert!(
            large
                .to_string()
                .contains("compiles to more than 1048576 bytes"),
            "{large}"
        );
        let broken = compile("(", Case::Sensitive, at, &quotas).expect_err("broken");
        assert_eq!(
            broken.to_string(),
            "listeners[0]: \"(\" is not a regular expression: unclosed group"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn a_wildcard_matches_as_its_definition_says(pattern in "[ab?*]{0,12}", text in "[ab]{0,16}") {
            prop_assert_eq!(matches(&pattern, &text), naive(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn no_pattern_panics(pattern in ".{0,40}", text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Wildcard::new(&pattern, Case::Insensitive).matches(&text);
            let _ = compile(&pattern, Case::Sensitive, At::ROOT, &Quotas::default());
        }
    }
}
