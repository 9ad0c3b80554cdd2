//! Transforms: the host or the URL, rewritten by regular expressions.

use http::HeaderValue;
use http::uri::{Authority, PathAndQuery};
use regex::bytes::{Captures, Regex};

use super::View;
use super::pattern::{Case, compile};
use crate::proxy::config::{At, Problem, ProxyConfigError, Quotas, RewriteConfig, TransformConfig};

/// The most transforms of a rule: AWS's, and there are only two kinds.
const TRANSFORMS: usize = 2;

/// The longest expression or replacement, in characters.
const LONGEST: usize = 1_024;

/// The longest result, in bytes: groups may be repeated.
const LONGEST_RESULT: usize = 16_384;

/// What a rule rewrites.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rewrites {
    host: Option<Rewrite>,
    url: Option<Rewrite>,
}

#[derive(Debug, Clone)]
struct Rewrite {
    expression: Regex,
    parts: Box<[Part]>,
}

#[derive(Debug, Clone)]
enum Part {
    Text(Vec<u8>),
    Group(usize),
}

/// A result that is no host or no URL.
#[derive(Debug)]
pub(crate) struct Unusable;

impl Rewrites {
    pub(super) fn compile(
        configs: &[TransformConfig],
        at: At<'_>,
        quotas: &Quotas,
    ) -> Result<Self, ProxyConfigError> {
        at.field("transforms")
            .at_most("transforms", configs.len(), TRANSFORMS)?;
        let mut rewrites = Self::default();
        for (index, config) in configs.iter().enumerate() {
            let part = at.part("transforms", index);
            let (slot, config, case) = match config {
                TransformConfig::HostHeaderRewrite(config) => {
                    (&mut rewrites.host, config, Case::Insensitive)
                }
                TransformConfig::UrlRewrite(config) => (&mut rewrites.url, config, Case::Sensitive),
            };
            if slot.is_some() {
                return part.field("type").fail(Problem::Conflict(
                    "a rule has at most one transform of a kind".to_owned(),
                ));
            }
            *slot = Some(Rewrite::compile(config, case, part, quotas)?);
        }
        Ok(rewrites)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.host.is_none() && self.url.is_none()
    }

    /// The host in place of the request's, where it is rewritten.
    pub(crate) fn host(&self, view: &View<'_>) -> Result<Option<HeaderValue>, Unusable> {
        let Some(text) = self
            .host
            .as_ref()
            .and_then(|rewrite| rewrite.apply(view.host))
        else {
            return Ok(None);
        };
        let text = text?;
        Authority::try_from(text.as_slice()).map_err(|_| Unusable)?;
        HeaderValue::from_bytes(&text)
            .map(Some)
            .map_err(|_| Unusable)
    }

    /// The path and query in place of the request's, where they are rewritten.
    pub(crate) fn url(&self, view: &View<'_>) -> Result<Option<PathAndQuery>, Unusable> {
        let Some(rewrite) = &self.url else {
            return Ok(None);
        };
        let whole = match view.query {
            Some(query) => std::borrow::Cow::Owned(format!("{}?{query}", view.path)),
            None => std::borrow::Cow::Borrowed(view.path),
        };
        let Some(text) = rewrite.apply(&whole) else {
            return Ok(None);
        };
        let text = text?;
        if text.first() != Some(&b'/') {
            return Err(Unusable);
        }
        PathAndQuery::try_from(text.as_slice())
            .map(Some)
            .map_err(|_| Unusable)
    }
}

impl Rewrite {
    fn compile(
        config: &RewriteConfig,
        case: Case,
        at: At<'_>,
        quotas: &Quotas,
    ) -> Result<Self, ProxyConfigError> {
        for (field, text) in [("regex", &config.regex), ("replace", &config.replace)] {
            at.field(field)
                .at_most("characters", text.chars().count(), LONGEST)?;
        }
        if config.regex.is_empty() {
            return at
                .field("regex")
                .fail(Problem::Missing("a regular expression"));
        }
        let expression = compile(&config.regex, case, at.field("regex"), quotas)?;
        let parts = parse(&config.replace, &expression)
            .or_else(|why| at.field("replace").invalid(&config.replace, why))?;
        Ok(Self { expression, parts })
    }

    /// The text with its first match replaced, or `None` if there is no match.
    fn apply(&self, text: &str) -> Option<Result<Vec<u8>, Unusable>> {
        let text = text.as_bytes();
        let groups: Captures<'_> = self.expression.captures(text)?;
        let whole = groups.get(0)?;
        let mut result = text[..whole.start()].to_vec();
        for part in &self.parts {
            match part {
                Part::Text(text) => result.extend_from_slice(text),
                Part::Group(index) => {
                    let group = groups.get(*index);
                    result.extend_from_slice(group.map_or(&[], |group| group.as_bytes()));
                }
            }
            if result.len() > LONGEST_RESULT {
                return Some(Err(Unusable));
            }
        }
        result.extend_from_slice(&text[whole.end()..]);
        Some(Ok(result))
    }
}

/// The parts of a replacement.
fn parse(text: &str, expression: &Regex) -> Result<Box<[Part]>, String> {
    let mut parts = Vec::new();
    let mut plain = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        plain.extend_from_slice(before.as_bytes());
        let (name, left) = if let Some(left) = after.strip_prefix('$') {
            plain.push(b'$');
            rest = left;
            continue;
        } else if let Some(braced) = after.strip_prefix('{') {
            braced
                .split_once('}')
                .ok_or("has a brace that is not closed")?
        } else if after.starts_with(|c: char| c.is_ascii_digit()) {
            after.split_at(1)
        } else {
            return Err("has a dollar without a group; $$ is a dollar".to_owned());
        };
        let index = match name.parse::<usize>() {
            Ok(index) => (index < expression.captures_len()).then_some(index),
            Err(_) => expression
                .capture_names()
                .position(|known| known == Some(name)),
        };
        let index = index
            .ok_or_else(|| format!("refers to the group {name:?}, which the expression has not"))?;
        parts.push(Part::Text(std::mem::take(&mut plain)));
        parts.push(Part::Group(index));
        rest = left;
    }
    plain.extend_from_slice(rest.as_bytes());
    parts.push(Part::Text(plain));
    Ok(parts.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(regex: &str, replace: &str, text: &str) -> Option<String> {
        let config = RewriteConfig {
            regex: regex.to_owned(),
            replace: replace.to_owned(),
        };
        let rewrite = Rewrite::compile(&config, Case::Sensitive, At::ROOT, &Quotas::default());
        let result = rewrite
            .expect("a rewrite")
            .apply(text)?
            .expect("short enough");
        Some(String::from_utf8(result).expect("text"))
    }

    #[test]
    fn groups_are_put_in() {
        assert_eq!(
            apply("^/api/(.*)$", "/$1", "/api/x?y=1").as_deref(),
            Some("/x?y=1")
        );
        assert_eq!(
            apply("(?P<a>x)(y)", "${a}-$2-$$-${2}0", "wxyz").as_deref(),
            Some("wx-y-$-y0z")
        );
        assert_eq!(apply("a(b)?", "[$1]", "ac").as_deref(), Some("[]c"));
        assert_eq!(
            apply("a", "b", "aa").as_deref(),
            Some("ba"),
            "the first match only"
        );
        assert_eq!(apply("q", "b", "aa"), None);
    }

    #[test]
    fn replacements_that_cannot_be_read_are_named() {
        for (replace, why) in [
            ("$2", "which the expression has not"),
            ("${x}", "which the expression has not"),
            ("${1", "not closed"),
            ("$", "without a group"),
        ] {
            let config = RewriteConfig {
                regex: "(a)".to_owned(),
                replace: replace.to_owned(),
            };
            let error = Rewrite::compile(&config, Case::Sensitive, At::ROOT, &Quotas::default());
            let error = error.expect_err("unusable").to_string();
            assert!(
                error.starts_with("replace: ") && error.contains(why),
                "{error}"
            );
        }
    }

    #[test]
    fn a_result_cannot_grow_without_bound() {
        let config = RewriteConfig {
            regex: "^(.*)$".to_owned(),
            replace: "$1".repeat(500),
        };
        let rewrite = Rewrite::compile(&config, Case::Sensitive, At::ROOT, &Quotas::default());
        assert!(
            rewrite
                .expect("a rewrite")
                .apply(&"a".repeat(1_000))
                .expect("a match")
                .is_err()
        );
    }
}
