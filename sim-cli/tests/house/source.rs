//! As much of Rust's grammar as the rules need: comments, strings, identifiers and paths.

use std::ops::Range;

/// A scanned file. All forms have the same lines as the text.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) text: String,
    /// The text with comments blanked out.
    pub(crate) with_strings: String,
    /// The text with comments and the contents of strings blanked out.
    pub(crate) code: String,
    /// Like `code`, and without the items under `#[cfg(test)]`.
    pub(crate) shipped: String,
}

/// A path such as `std::sync::atomic::AtomicU64`, written out or put together from a `use`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) line: usize,
    pub(crate) segments: Vec<String>,
}

impl Path {
    pub(crate) fn joined(&self) -> String {
        self.segments.join("::")
    }
}

impl Source {
    pub(crate) fn scan(text: &str) -> Self {
        let (mut with_strings, mut code) = (text.as_bytes().to_vec(), text.as_bytes().to_vec());
        for (kind, range) in opaque(text.as_bytes()) {
            blank(&mut code[range.clone()]);
            if kind == Opaque::Comment {
                blank(&mut with_strings[range]);
            }
        }
        let text_of = |bytes| String::from_utf8(bytes).expect("blanking keeps or drops whole runs");
        let code = text_of(code);
        Self {
            text: text.to_owned(),
            with_strings: text_of(with_strings),
            shipped: without_tests(&code),
            code,
        }
    }

    /// Whether any identifier of the shipped code is `word`.
    pub(crate) fn names(&self, word: &str) -> bool {
        identifiers(&self.shipped).any(|(_, found)| found == word)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opaque {
    Comment,
    Literal,
}

/// Where comments and the contents of string and character literals stand.
fn opaque(text: &[u8]) -> Vec<(Opaque, Range<usize>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with(b"//") {
            let end = at + rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
            found.push((Opaque::Comment, at..end));
            at = end;
        } else if rest.starts_with(b"/*") {
            let (start, mut depth) = (at, 0_usize);
            while at < text.len() {
                if text[at..].starts_with(b"/*") {
                    (depth, at) = (depth + 1, at + 2);
                } else if text[at..].starts_with(b"*/") {
                    (depth, at) = (depth - 1, at + 2);
                    if depth == 0 {
                        break;
                    }
                } else {
                    at += 1;
                }
            }
            found.push((Opaque::Comment, start..at));
        } else if let Some(hashes) = raw_string(text, at) {
            let start = at + 2 + hashes;
            let close: Vec<u8> = [b'"'].into_iter().chain(vec![b'#'; hashes]).collect();
            let end = text[start..]
                .windows(close.len())
                .position(|window| window == close)
                .map_or(text.len(), |length| start + length);
            found.push((Opaque::Literal, start..end));
            at = (end + close.len()).min(text.len());
        } else if text[at] == b'"' {
            let end = closing(text, at + 1, b'"');
            found.push((Opaque::Literal, at + 1..end));
            at = (end + 1).min(text.len());
        } else if text[at] == b'\'' && is_character(&rest[1..]) {
            let end = closing(text, at + 1, b'\'');
            found.push((Opaque::Literal, at + 1..end));
            at = (end + 1).min(text.len());
        } else {
            at += 1;
        }
    }
    found
}

/// The number of `#` if a raw string begins at `at`, which is its `r`.
fn raw_string(text: &[u8], at: usize) -> Option<usize> {
    if text[at] != b'r' {
        return None;
    }
    // `br"` and `cr"` are raw strings too; `for"` is no such thing, nor is the end of a longer name.
    let mut before = at;
    if before > 0 && matches!(text[before - 1], b'b' | b'c') {
        before -= 1;
    }
    if before > 0 && is_word(text[before - 1]) {
        return None;
    }
    let hashes = text[at + 1..].iter().take_while(|&&b| b == b'#').count();
    (text.get(at + 1 + hashes) == Some(&b'"')).then_some(hashes)
}

/// Whether what follows a `'` is a character and not a lifetime.
fn is_character(rest: &[u8]) -> bool {
    match rest {
        [b'\\', ..] => true,
        [first, ..] if first.is_ascii() => rest.get(1) == Some(&b'\''),
        [..] => !rest.is_empty(),
    }
}

/// The position of the closing mark, over escapes.
fn closing(text: &[u8], mut at: usize, mark: u8) -> usize {
    while at < text.len() && text[at] != mark {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    at.min(text.len())
}

fn blank(bytes: &mut [u8]) {
    bytes
        .iter_mut()
        .filter(|byte| **byte != b'\n')
        .for_each(|byte| *byte = b' ');
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// Blanks the item after each `#[cfg(test)]`: up to its closing brace, or its semicolon.
fn without_tests(code: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(found) = find_test(&code[from..]) {
        let start = from + found;
        let (mut depth, mut end) = (0_usize, start);
        while end < bytes.len() {
            match bytes[end] {
                b'{' => depth += 1,
                b'}' if depth <= 1 => break,
                b'}' => depth -= 1,
                b';' if depth == 0 => break,
                _ => {}
            }
            end += 1;
        }
        end = (end + 1).min(bytes.len());
        blank(&mut bytes[start..end]);
        from = end;
    }
    String::from_utf8(bytes).expect("whole items are blanked")
}

fn find_test(code: &str) -> Option<usize> {
    ["#[cfg(test)]", "#[cfg(all(test,"]
        .iter()
        .filter_map(|attribute| code.find(attribute))
        .min()
}

/// Every identifier and keyword with its line, counted from 1.
pub(crate) fn identifiers(code: &str) -> impl Iterator<Item = (usize, &str)> {
    tokens(code)
        .into_iter()
        .filter(|(_, token)| is_word(token.as_bytes()[0]))
}

/// Words, `::`, and every other character by itself.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let bytes = code.as_bytes();
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    while at < bytes.len() {
        let start = at;
        if is_word(bytes[at]) {
            while at < bytes.len() && is_word(bytes[at]) {
                at += 1;
            }
        } else {
            at += if bytes[at..].starts_with(b"::") { 2 } else { 1 };
        }
        if bytes[start] == b'\n' {
            line += 1;
        } else if !bytes[start].is_ascii_whitespace() {
            found.push((line, &code[start..at]));
        }
    }
    found
}

/// Every path of the code. A `use` gives one path for each leaf of its tree, from its first segment.
pub(crate) fn paths(code: &str) -> Vec<Path> {
    let tokens = tokens(code);
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let (line, token) = tokens[at];
        if token == "use" {
            at = use_tree(&tokens, at + 1, &mut Vec::new(), &mut found);
        } else if is_word(token.as_bytes()[0]) {
            let mut segments = vec![token.to_owned()];
            at += 1;
            while let (Some((_, "::")), Some((_, next))) = (tokens.get(at), tokens.get(at + 1)) {
                if !is_word(next.as_bytes()[0]) {
                    break;
                }
                segments.push((*next).to_owned());
                at += 2;
            }
            if segments.len() > 1 {
                found.push(Path { line, segments });
            }
        } else {
            at += 1;
        }
    }
    found
}

/// Adds the leaves of one tree and returns where it ends.
fn use_tree(
    tokens: &[(usize, &str)],
    mut at: usize,
    prefix: &mut Vec<String>,
    found: &mut Vec<Path>,
) -> usize {
    let depth = prefix.len();
    let mut line = tokens.get(at).map_or(0, |(line, _)| *line);
    let mut leaf = true;
    while let Some(&(here, token)) = tokens.get(at) {
        match token {
            "::" => at += 1,
            "as" => at += 2,
            "{" => {
                leaf = false;
                at += 1;
                while tokens.get(at).is_some_and(|(_, token)| *token != "}") {
                    at = use_tree(tokens, at, prefix, found);
                    if tokens.get(at).is_some_and(|(_, token)| *token == ",") {
                        at += 1;
                    }
                }
                at += 1;
            }
            _ if token == "*" || is_word(token.as_bytes()[0]) => {
                line = here;
                prefix.push(token.to_owned());
                at += 1;
            }
            _ => break,
        }
    }
    // At the top a `;` ends the tree, inside braces a `,` or the brace.
    if leaf && prefix.len() > depth {
        found.push(Path {
            line,
            segments: prefix.clone(),
        });
    }
    prefix.truncate(depth);
    // Something that is no tree must not hold the scan.
    if tokens
        .get(at)
        .is_some_and(|(_, token)| !matches!(*token, "," | "}"))
    {
        at + 1
    } else {
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_not_code() {
        let source = Source::scan(
            "// unsafe one\nlet a = \"unsafe // two\"; /* unsafe /* three */ unsafe */ b\n\
             let c = r#\"unsafe \" four\"#; let d = '\"'; let e: &'static str = \"x\\\"unsafe\";\n",
        );
        let words: Vec<_> = identifiers(&source.code).collect();
        assert_eq!(
            words,
            [
                (2, "let"),
                (2, "a"),
                (2, "b"),
                (3, "let"),
                (3, "c"),
                (3, "r"),
                (3, "let"),
                (3, "d"),
                (3, "let"),
                (3, "e"),
                (3, "static"),
                (3, "str"),
            ]
        );
        assert!(source.with_strings.contains("unsafe // two"));
        assert!(!source.with_strings.contains("three"));
    }

    #[test]
    fn tests_are_not_shipped() {
        let source = Source::scan(
            "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { if c { } } }\n#[cfg(test)]\nuse d;\nfn e() {}\n",
        );
        assert!(source.names("a") && source.names("e"));
        assert!(!source.names("b") && !source.names("c") && !source.names("d"));
    }

    #[test]
    fn a_use_tree_gives_the_path_of_each_leaf() {
        let found: Vec<_> = paths(
            "use std::{sync::{atomic::{self, AtomicU64}, Arc as A}, thread};\npub use a::*;\nlet x = b::c::<d::e>();",
        )
        .iter()
        .map(|path| (path.line, path.joined()))
        .collect();
        let expected = [
            (1, "std::sync::atomic::self"),
            (1, "std::sync::atomic::AtomicU64"),
            (1, "std::sync::Arc"),
            (1, "std::thread"),
            (2, "a::*"),
            (3, "b::c"),
            (3, "d::e"),
        ];
        assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));
    }
}
