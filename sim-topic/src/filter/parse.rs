//! From a policy's text to its rules.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use ipnet::IpNet;

use super::condition::{BadWildcard, Condition, Rule, Set, Wildcard, folded};
use super::error::{FilterError, FilterRule};
use super::json::{MAX_DEPTH, Scanner, Span, unescape};
use super::limits::FilterLimits;
use super::number::{Number, decimals};
use super::paths::{Paths, ROOT};
use super::{Plan, Scope};

/// A policy as a document. Policies are bounded and read once; messages never become one.
enum Node {
    Null,
    Bool(bool),
    /// Its text.
    Number(String),
    String(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    const fn name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// Reads, checks and compiles a policy.
pub(crate) fn parse(text: &str, scope: Scope, limits: &FilterLimits) -> Result<Plan, FilterError> {
    let mut parser = Parser {
        scope,
        limits,
        here: Vec::new(),
        paths: Paths::new(),
        rules: Vec::new(),
    };
    if text.len() > limits.policy_bytes {
        return Err(parser.fault(FilterRule::Bytes {
            bytes: text.len(),
            limit: limits.policy_bytes,
        }));
    }
    let mut json = Scanner::new(text);
    let document = match read(&mut json, 0) {
        Some(document) if json.is_at_end() => document,
        _ => {
            let before = &text.as_bytes()[..json.position().min(text.len())];
            let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
            let column = before
                .iter()
                .rev()
                .take_while(|&&byte| byte != b'\n')
                .count()
                + 1;
            return Err(parser.fault(FilterRule::Json { line, column }));
        }
    };
    let Node::Object(members) = document else {
        return Err(parser.fault(FilterRule::NotAnObject {
            found: document.name(),
        }));
    };
    if members.len() > limits.keys {
        return Err(parser.fault(FilterRule::Keys {
            keys: members.len(),
            limit: limits.keys,
        }));
    }
    let mut seen = BTreeSet::new();
    let start = Branches {
        alternatives: vec![Vec::new()],
        combinations: 1,
    };
    let top = At {
        node: ROOT,
        depth: 0,
        nesting: 0,
    };
    let branches = parser.object(&members, top, start, &mut seen)?;
    if let Some(limit) = limits.combinations
        && branches.combinations > limit
    {
        return Err(parser.fault(FilterRule::Combinations {
            combinations: branches.combinations,
            limit,
        }));
    }
    Ok(Plan {
        paths: parser.paths,
        rules: parser.rules.into(),
        alternatives: branches.alternatives.into_iter().map(Into::into).collect(),
    })
}

/// Reads one value.
fn read(json: &mut Scanner<'_>, depth: u32) -> Option<Node> {
    let first = json.peek()?;
    match first {
        b'{' | b'[' => {
            if depth >= MAX_DEPTH {
                return None;
            }
            json.take();
        }
        b'"' => json.take(),
        _ => {}
    }
    Some(match first {
        b'{' => {
            let mut members = Vec::new();
            if json.peek()? == b'}' {
                json.take();
                return Some(Node::Object(members));
            }
            loop {
                let name = json.name()?;
                members.push((text(json, name), read(json, depth + 1)?));
                if json.peek()? == b'}' {
                    json.take();
                    break Node::Object(members);
                }
                json.expect(b',')?;
            }
        }
        b'[' => {
            let mut elements = Vec::new();
            if json.peek()? == b']' {
                json.take();
                return Some(Node::Array(elements));
            }
            loop {
                elements.push(read(json, depth + 1)?);
                if json.peek()? == b']' {
                    json.take();
                    break Node::Array(elements);
                }
                json.expect(b',')?;
            }
        }
        b'"' => {
            let span = json.string()?;
            Node::String(text(json, span))
        }
        b't' => {
            json.word(b"true")?;
            Node::Bool(true)
        }
        b'f' => {
            json.word(b"false")?;
            Node::Bool(false)
        }
        b'n' => {
            json.word(b"null")?;
            Node::Null
        }
        _ => {
            let span = json.number()?;
            Node::Number(text(json, span))
        }
    })
}

fn text(json: &Scanner<'_>, span: Span) -> String {
    let mut bytes = Vec::new();
    unescape(json.slice(span), &mut bytes);
    // The scanner took it from a str and has checked its escapes.
    String::from_utf8(bytes).unwrap_or_default()
}

struct Parser<'a> {
    scope: Scope,
    limits: &'a FilterLimits,
    /// Where the parser stands, for messages.
    here: Vec<Step>,
    paths: Paths,
    rules: Vec<Rule>,
}

enum Step {
    Key(String),
    Index(usize),
}

/// A node of the tree.
#[derive(Clone, Copy)]
struct At {
    node: u32,
    /// Names that lead to it.
    depth: usize,
    /// Keys that lead to it; dots do not count.
    nesting: u64,
}

/// What the `$or`s so far multiply out to.
#[derive(Clone)]
struct Branches {
    /// Each the rules that it holds.
    alternatives: Vec<Vec<u32>>,
    combinations: u64,
}

impl Parser<'_> {
    /// An error where the parser stands.
    fn fault(&self, rule: FilterRule) -> FilterError {
        let mut path = String::from("$");
        for step in &self.here {
            match step {
                Step::Index(index) => {
                    let _ = write!(path, "[{index}]");
                }
                Step::Key(key)
                    if !key.is_empty()
                        && key.bytes().all(|byte| {
                            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'$')
                        }) =>
                {
                    let _ = write!(path, ".{key}");
                }
                Step::Key(key) => {
                    let _ = write!(path, "[{key:?}]");
                }
            }
        }
        FilterError { path, rule }
    }

    /// Does something one step further in.
    fn within<T>(&mut self, step: Step, inner: impl FnOnce(&mut Self) -> T) -> T {
        self.here.push(step);
        let outcome = inner(self);
        self.here.pop();
        outcome
    }

    /// Compiles the keys of an object. `seen` has the fields of this branch: one that stands there twice is an
    /// error, while a field beside an `$or` and in it must satisfy both.
    fn object(
        &mut self,
        members: &[(String, Node)],
        at: At,
        mut branches: Branches,
        seen: &mut BTreeSet<u32>,
    ) -> Result<Branches, FilterError> {
        let mut names = BTreeSet::new();
        for (name, node) in members {
            let fresh = names.insert(name.as_str());
            branches = self.within(Step::Key(name.clone()), |parser| {
                if !fresh {
                    return Err(parser.fault(FilterRule::Duplicate));
                }
                if name == "$or" {
                    return parser.or(node, at, &branches);
                }
                let below = parser.descend(at, name)?;
                match node {
                    Node::Object(_) if parser.scope == Scope::MessageAttributes => {
                        Err(parser.fault(FilterRule::Nested))
                    }
                    Node::Object(members) if members.is_empty() => {
                        Err(parser.fault(FilterRule::EmptyObject))
                    }
                    Node::Object(members) => parser.object(members, below, branches, seen),
                    Node::Array(values) => {
                        if !seen.insert(below.node) {
                            return Err(parser.fault(FilterRule::Duplicate));
                        }
                        parser.list(values, below, branches)
                    }
                    other => Err(parser.fault(FilterRule::NotAList {
                        found: other.name(),
                    })),
                }
            })?;
        }
        Ok(branches)
    }

    /// Goes down a name; its dots lead further down.
    fn descend(&mut self, from: At, name: &str) -> Result<At, FilterError> {
        let depth = from.depth + name.bytes().filter(|&byte| byte == b'.').count() + 1;
        // The names of attributes have dots of their own, and at most 256 characters.
        let limit = match self.scope {
            Scope::MessageAttributes => 256,
            Scope::MessageBody => self.limits.depth,
        };
        if depth > limit {
            return Err(self.fault(FilterRule::Depth { depth, limit }));
        }
        let node = name.split('.').fold(from.node, |node, part| {
            self.paths.grow(node, part.as_bytes())
        });
        Ok(At {
            node,
            depth,
            nesting: from.nesting + 1,
        })
    }

    fn or(&mut self, node: &Node, at: At, before: &Branches) -> Result<Branches, FilterError> {
        let objects = match node {
            Node::Array(objects) if objects.len() >= 2 => objects,
            _ => return Err(self.fault(FilterRule::Or)),
        };
        let mut all = Branches {
            alternatives: Vec::new(),
            combinations: 0,
        };
        for (index, object) in objects.iter().enumerate() {
            let one = self.within(Step::Index(index), |parser| match object {
                Node::Object(members) if members.is_empty() => {
                    Err(parser.fault(FilterRule::EmptyObject))
                }
                Node::Object(members) => {
                    parser.object(members, at, before.clone(), &mut BTreeSet::new())
                }
                _ => Err(parser.fault(FilterRule::Or)),
            })?;
            all.alternatives.extend(one.alternatives);
            all.combinations = all.combinations.saturating_add(one.combinations);
            if all.alternatives.len() > self.limits.alternatives {
                return Err(self.fault(FilterRule::Alternatives {
                    limit: self.limits.alternatives,
                }));
            }
        }
        Ok(all)
    }

    /// Compiles a list of values: one more rule in every alternative.
    fn list(
        &mut self,
        values: &[Node],
        at: At,
        mut branches: Branches,
    ) -> Result<Branches, FilterError> {
        if values.is_empty() {
            return Err(self.fault(FilterRule::EmptyList));
        }
        if self.rules.len() >= self.limits.rules {
            return Err(self.fault(FilterRule::Rules {
                limit: self.limits.rules,
            }));
        }
        let mut conditions = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            let condition = self.within(Step::Index(index), |parser| parser.condition(value))?;
            conditions.push(condition);
        }
        let rule = Rule::new(at.node, conditions);
        self.paths.hold(at.node, rule.absent);
        let number = self.rules.len() as u32;
        self.rules.push(rule);
        for alternative in &mut branches.alternatives {
            alternative.push(number);
        }
        branches.combinations = branches
            .combinations
            .saturating_mul(values.len() as u64)
            .saturating_mul(at.nesting);
        Ok(branches)
    }

    fn condition(&mut self, value: &Node) -> Result<Condition, FilterError> {
        match value {
            Node::Array(_) => Err(self.fault(FilterRule::Value)),
            Node::Object(members) => match members.as_slice() {
                [(operator, operand)] => self.within(Step::Key(operator.clone()), |parser| {
                    parser.operator(operator, operand)
                }),
                _ => Err(self.fault(FilterRule::Operators {
                    operators: members.len(),
                })),
            },
            plain => self.plain(plain),
        }
    }

    /// A string, a number, a boolean or null.
    fn plain(&self, value: &Node) -> Result<Condition, FilterError> {
        match value {
            Node::Null => Ok(Condition::Null),
            Node::Bool(bool) => Ok(Condition::Bool(*bool)),
            Node::String(text) => Ok(Condition::String(text.as_bytes().into())),
            Node::Number(text) => self.number(text).map(Condition::Number),
            Node::Array(_) | Node::Object(_) => Err(self.fault(FilterRule::Value)),
        }
    }

    fn number(&self, text: &str) -> Result<Number, FilterError> {
        let double: f64 = text.parse().unwrap_or(f64::INFINITY);
        if let Some(limit) = self.limits.magnitude
            && double.abs() > limit as f64
        {
            return Err(self.fault(FilterRule::Magnitude {
                number: text.to_owned(),
                limit,
            }));
        }
        if let Some(limit) = self.limits.decimals
            && decimals(text) > i64::from(limit)
        {
            return Err(self.fault(FilterRule::Decimals {
                number: text.to_owned(),
                limit,
            }));
        }
        Number::parse(text.as_bytes()).ok_or_else(|| {
            self.fault(FilterRule::Magnitude {
                number: text.to_owned(),
                limit: u64::MAX,
            })
        })
    }

    fn operator(&mut self, operator: &str, operand: &Node) -> Result<Condition, FilterError> {
        match operator {
            "anything-but" => self.anything_but(operand),
            "numeric" => self.numeric(operand),
            "exists" => match operand {
                Node::Bool(true) => Ok(Condition::Exists),
                Node::Bool(false) => Ok(Condition::Absent),
                other => Err(self.operand("true or false", other)),
            },
            "cidr" => self.cidr(self.string(operand)?),
            "prefix" | "suffix" if matches!(operand, Node::Object(_)) => {
                self.folded_affix(operator, operand)
            }
            "prefix" | "suffix" | "equals-ignore-case" | "wildcard" => {
                self.textual(operator, self.string(operand)?)
            }
            _ => Err(self.fault(FilterRule::UnknownOperator {
                anything_but: false,
            })),
        }
    }

    fn operand(&self, wanted: &'static str, found: &Node) -> FilterError {
        self.fault(FilterRule::Operand {
            wanted,
            found: found.name(),
        })
    }

    fn string<'n>(&self, operand: &'n Node) -> Result<&'n str, FilterError> {
        match operand {
            Node::String(text) => Ok(text),
            other => Err(self.operand("a string", other)),
        }
    }

    /// The operators that have one string.
    fn textual(&self, operator: &str, text: &str) -> Result<Condition, FilterError> {
        Ok(match operator {
            "prefix" => Condition::Prefix(text.as_bytes().into()),
            "suffix" => Condition::Suffix(text.as_bytes().into()),
            "equals-ignore-case" => Condition::EqualsFolded(fold(text)),
            _ => Condition::Wildcard(Wildcard::parse(text).map_err(|bad| {
                let text = text.to_owned();
                self.fault(match bad {
                    BadWildcard::Row => FilterRule::WildcardRow { text },
                    BadWildcard::Escape => FilterRule::WildcardEscape { text },
                })
            })?),
        })
    }

    /// `{"prefix": {"equals-ignore-case": ".."}}` and the same with a suffix.
    fn folded_affix(&mut self, operator: &str, operand: &Node) -> Result<Condition, FilterError> {
        let (inner, text) = self.only(operand)?;
        self.within(Step::Key(inner.to_owned()), |parser| {
            if inner != "equals-ignore-case" {
                return Err(parser.fault(FilterRule::UnknownOperator {
                    anything_but: false,
                }));
            }
            let text = fold(parser.string(text)?);
            Ok(if operator == "prefix" {
                Condition::PrefixFolded(text)
            } else {
                Condition::SuffixFolded(text)
            })
        })
    }

    /// The one member of an object.
    fn only<'n>(&self, object: &'n Node) -> Result<(&'n str, &'n Node), FilterError> {
        match object {
            Node::Object(members) => match members.as_slice() {
                [(name, value)] => Ok((name, value)),
                _ => Err(self.fault(FilterRule::Operators {
                    operators: members.len(),
                })),
            },
            other => Err(self.operand("an object", other)),
        }
    }

    fn anything_but(&mut self, operand: &Node) -> Result<Condition, FilterError> {
        let none = match operand {
            Node::Array(values) => self.each(values, |parser, value| match value {
                Node::String(_) | Node::Number(_) | Node::Bool(_) | Node::Null => {
                    parser.plain(value)
                }
                other => Err(parser.operand("a string, number, true, false or null", other)),
            })?,
            Node::Object(_) => {
                let (inner, patterns) = self.only(operand)?;
                self.within(Step::Key(inner.to_owned()), |parser| match inner {
                    "prefix" | "suffix" if matches!(patterns, Node::Object(_)) => {
                        Ok(vec![parser.folded_affix(inner, patterns)?])
                    }
                    "prefix" | "suffix" | "equals-ignore-case" | "wildcard" => match patterns {
                        Node::Array(texts) => parser.each(texts, |parser, text| {
                            parser.textual(inner, parser.string(text)?)
                        }),
                        text => Ok(vec![parser.textual(inner, parser.string(text)?)?]),
                    },
                    _ => Err(parser.fault(FilterRule::UnknownOperator { anything_but: true })),
                })?
            }
            plain => vec![self.plain(plain)?],
        };
        Ok(Condition::But(Set::new(none)))
    }

    /// Compiles the elements of a list that must have some.
    fn each(
        &mut self,
        values: &[Node],
        mut compile: impl FnMut(&mut Self, &Node) -> Result<Condition, FilterError>,
    ) -> Result<Vec<Condition>, FilterError> {
        if values.is_empty() {
            return Err(self.fault(FilterRule::EmptyList));
        }
        let mut conditions = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            conditions.push(self.within(Step::Index(index), |parser| compile(parser, value))?);
        }
        Ok(conditions)
    }

    fn numeric(&mut self, operand: &Node) -> Result<Condition, FilterError> {
        let Node::Array(elements) = operand else {
            return Err(self.operand("an array", operand));
        };
        if !matches!(elements.len(), 2 | 4) {
            return Err(self.fault(FilterRule::NumericLength {
                elements: elements.len(),
            }));
        }
        let mut range = (Number::LEAST, Number::GREATEST);
        let mut numbers = Vec::with_capacity(2);
        for (index, pair) in elements.chunks_exact(2).enumerate() {
            let [comparison, number] = pair else {
                continue;
            };
            let comparison = self.within(Step::Index(index * 2), |parser| {
                let comparison = parser.string(comparison)?;
                if ["=", "<", "<=", ">", ">="].contains(&comparison) {
                    Ok(comparison)
                } else {
                    Err(parser.fault(FilterRule::Comparison {
                        comparison: comparison.to_owned(),
                    }))
                }
            })?;
            let number = self.within(Step::Index(index * 2 + 1), |parser| match number {
                Node::Number(text) => parser.number(text),
                other => Err(parser.operand("a number", other)),
            })?;
            let is_lower = comparison.starts_with('>');
            if elements.len() == 4 && (comparison == "=" || is_lower != (index == 0)) {
                return Err(self.fault(FilterRule::RangeOrder));
            }
            match comparison {
                "=" => range = (number, number),
                "<" => range.1 = number.below(),
                "<=" => range.1 = number,
                ">" => range.0 = number.above(),
                _ => range.0 = number,
            }
            numbers.push(number);
        }
        // SNS refuses the range that holds one number as well.
        if numbers.is_sorted_by(|low, high| low < high) {
            return Ok(Condition::Range(range.0, range.1));
        }
        Err(self.fault(FilterRule::EmptyRange))
    }

    fn cidr(&self, text: &str) -> Result<Condition, FilterError> {
        let net: IpNet = text.parse().map_err(|_| {
            self.fault(FilterRule::Cidr {
                text: text.to_owned(),
            })
        })?;
        if net.addr() != net.network() {
            return Err(self.fault(FilterRule::CidrHostBits {
                text: text.to_owned(),
                block: net.trunc().to_string(),
            }));
        }
        Ok(Condition::Cidr(net))
    }
}

fn fold(text: &str) -> Box<str> {
    folded(text.as_bytes()).collect::<String>().into()
}
