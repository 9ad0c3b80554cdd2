//! How far a request follows the rules of HTTP: what a server behind the proxy might read differently than the proxy.
//!
//! Classes and reasons are those of the reference's access log. Most of what is severe never comes here: hyper refuses what it
//! cannot frame (a bad or a second, different `Content-Length`, `chunked` that is not last, control characters) with 400.

use std::fmt;

use http::{HeaderMap, Method, header};

use super::field::Scan;
use crate::proxy::config::DesyncMitigation;

/// How far a request follows the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Class {
    /// It follows the rules.
    #[default]
    Compliant,
    /// It breaks a rule in a known and harmless way.
    Acceptable,
    /// Servers may read it differently.
    Ambiguous,
    /// It is likely an attack.
    Severe,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why a request is not compliant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Doubt {
    /// The target has characters that should be escaped.
    AmbiguousUri,
    /// What came is not HTTP.
    BadRequest,
    /// `Transfer-Encoding` and `Content-Length` in one request.
    BothTeClPresent,
    /// The same `Content-Length` more than once.
    DuplicateContentLength,
    /// A field without a value.
    EmptyHeader,
    /// `GET` or `HEAD` with `Content-Length: 0`.
    GetHeadZeroContentLength,
    /// `Transfer-Encoding: chunked` more than once.
    MultipleTransferEncodingChunked,
    /// A field's value has bytes that are not ASCII.
    NonCompliantHeader,
    /// A field that looks like `Content-Length` or `Transfer-Encoding` to a lenient reader.
    SuspiciousHeader,
    /// `GET` or `HEAD` with a `Content-Length`.
    UndefinedContentLengthSemantics,
    /// `GET` or `HEAD` with a `Transfer-Encoding`.
    UndefinedTransferEncodingSemantics,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a request was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Finding {
    /// The class.
    pub class: Class,
    /// The worst reason, unless it is compliant.
    pub doubt: Option<Doubt>,
}

impl Finding {
    /// What did not even parse.
    pub(crate) const MALFORMED: Self = Self {
        class: Class::Severe,
        doubt: Some(Doubt::BadRequest),
    };

    fn raise(&mut self, class: Class, doubt: Doubt) {
        if class > self.class {
            *self = Self {
                class,
                doubt: Some(doubt),
            };
        }
    }
}

/// What is done with a request of that class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    Pass,
    /// It is passed on, and its connections are used for nothing else.
    PassAndClose,
    Refuse,
}

/// What the mitigation does with a class. Both framings in one request are refused in each mode but `monitor`.
pub(crate) fn treat(mode: DesyncMitigation, finding: Finding) -> Treatment {
    match (mode, finding.class) {
        (_, Class::Compliant) => Treatment::Pass,
        (DesyncMitigation::Strictest, _) => Treatment::Refuse,
        (DesyncMitigation::Monitor, Class::Severe) => Treatment::PassAndClose,
        (DesyncMitigation::Monitor, _) | (_, Class::Acceptable) => Treatment::Pass,
        (_, Class::Ambiguous) => Treatment::PassAndClose,
        (_, Class::Severe) => Treatment::Refuse,
    }
}

/// Classifies a request by its fields and by its head as it came (empty on HTTP/2, where framing is not in fields).
pub(crate) fn classify(
    method: &Method,
    target: &str,
    headers: &HeaderMap,
    scan: &Scan,
    raw: &[u8],
) -> Finding {
    let mut finding = Finding::default();
    let bare = matches!(*method, Method::GET | Method::HEAD);
    if scan.transfer_encoding {
        if bare {
            finding.raise(Class::Ambiguous, Doubt::UndefinedTransferEncodingSemantics);
        }
        // hyper takes out the one of the two that it does not go by.
        if scan.content_length || count_fields(raw, b"content-length") > 0 {
            finding.raise(Class::Severe, Doubt::BothTeClPresent);
        }
        if count_fields(raw, b"transfer-encoding") > 1 {
            finding.raise(Class::Severe, Doubt::MultipleTransferEncodingChunked);
        }
    } else if scan.content_length {
        if bare {
            let zero = headers
                .get(header::CONTENT_LENGTH)
                .is_some_and(|value| value == "0");
            if zero {
                finding.raise(Class::Acceptable, Doubt::GetHeadZeroContentLength);
            } else {
                finding.raise(Class::Ambiguous, Doubt::UndefinedContentLengthSemantics);
            }
        }
        if count_fields(raw, b"content-length") > 1 {
            finding.raise(Class::Ambiguous, Doubt::DuplicateContentLength);
        }
    }
    if target.bytes().any(|byte| !byte.is_ascii_graphic()) {
        finding.raise(Class::Ambiguous, Doubt::AmbiguousUri);
    }
    for (name, value) in headers {
        if value.is_empty() {
            finding.raise(Class::Acceptable, Doubt::EmptyHeader);
        } else if !value.as_bytes().is_ascii() {
            finding.raise(Class::Acceptable, Doubt::NonCompliantHeader);
        }
        if scan.invalid && is_lookalike(name.as_str()) {
            finding.raise(Class::Ambiguous, Doubt::SuspiciousHeader);
        }
    }
    finding
}

/// Whether a lenient reader could take a name for one that frames a message.
fn is_lookalike(name: &str) -> bool {
    let letters = || name.bytes().filter(u8::is_ascii_alphabetic);
    !matches!(name, "content-length" | "transfer-encoding")
        && (letters().eq(*b"contentlength") || letters().eq(*b"transferencoding"))
}

/// How many lines of a head begin with that name, in any case.
fn count_fields(raw: &[u8], name: &[u8]) -> usize {
    raw.split(|byte| *byte == b'\n')
        .skip(1)
        .filter(|line| {
            line.get(..name.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(name))
                && line.get(name.len()) == Some(&b':')
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::http::field;

    fn find(
        method: Method,
        fields: &[(&'static str, &'static str)],
        raw: &str,
    ) -> (Class, Option<Doubt>) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, header::HeaderValue::from_static(value));
        }
        let scan = field::scan(&headers);
        let finding = classify(&method, "/", &headers, &scan, raw.as_bytes());
        (finding.class, finding.doubt)
    }

    #[test]
    fn both_framings_are_severe_even_when_one_was_taken_out() {
        let raw = "POST / HTTP/1.1\r\nContent-LENGTH: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        let found = find(Method::POST, &[("transfer-encoding", "chunked")], raw);
        assert_eq!(found, (Class::Severe, Some(Doubt::BothTeClPresent)));
    }

    #[test]
    fn a_plain_request_is_compliant() {
        let raw = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(
            find(Method::POST, &[("content-length", "3")], raw),
            (Class::Compliant, None)
        );
        assert_eq!(
            find(
                Method::GET,
                &[("host", "a")],
                "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
            ),
            (Class::Compliant, None)
        );
    }

    #[test]
    fn the_worst_doubt_stands() {
        let found = find(Method::GET, &[("content-length", "3"), ("x-empty", "")], "");
        assert_eq!(
            found,
            (
                Class::Ambiguous,
                Some(Doubt::UndefinedContentLengthSemantics)
            )
        );
        let found = find(Method::GET, &[("content-length", "0")], "");
        assert_eq!(
            found,
            (Class::Acceptable, Some(Doubt::GetHeadZeroContentLength))
        );
        let found = find(Method::POST, &[("content_length", "0")], "");
        assert_eq!(found, (Class::Ambiguous, Some(Doubt::SuspiciousHeader)));
    }

    #[test]
    fn modes_differ_in_what_they_let_pass() {
        use DesyncMitigation::{Defensive, Monitor, Strictest};
        let of = |class| Finding { class, doubt: None };
        assert_eq!(treat(Strictest, of(Class::Acceptable)), Treatment::Refuse);
        assert_eq!(treat(Strictest, of(Class::Compliant)), Treatment::Pass);
        assert_eq!(treat(Defensive, of(Class::Acceptable)), Treatment::Pass);
        assert_eq!(
            treat(Defensive, of(Class::Ambiguous)),
            Treatment::PassAndClose
        );
        assert_eq!(treat(Defensive, of(Class::Severe)), Treatment::Refuse);
        assert_eq!(treat(Monitor, of(Class::Severe)), Treatment::PassAndClose);
    }
}
