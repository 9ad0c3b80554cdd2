//! A small checked language for arithmetic over metrics.
//!
//! ```text
//! sum    = term (("+" | "-") term)*
//! term   = factor (("*" | "/") factor)*
//! factor = "-" factor | number | name | call | "(" sum ")"
//! call   = ("min" | "max") "(" sum ("," sum)+ ")" | ("abs" | "ceil" | "floor") "(" sum ")"
//!        | "if_missing" "(" sum "," sum ")"
//! ```

use std::fmt;
use std::str::FromStr;

use sim_core::sync::Arc;

use super::Reading;

/// Most bytes of a formula's text.
const TEXT_LIMIT: usize = 4096;
/// Deepest nesting; the parser recurs.
const DEPTH_LIMIT: usize = 64;
/// Most operands that stand at once while it is evaluated.
const STACK_LIMIT: usize = 32;
/// Most operations and operands.
const OPS_LIMIT: usize = 256;

/// A parsed formula: numbers, metrics by name, `+ - * /`, `min`, `max`, `abs`, `ceil`, `floor` and
/// `if_missing(a, b)`, which is `b` where a metric that `a` needs is missing or `a` has no finite value.
///
/// At most 4,096 bytes of text, 64 levels and 256 operations. Evaluation allocates nothing.
///
/// ```
/// use sim_scaling::metric::{Formula, Reading};
///
/// let formula: Formula = "max(jobs / 10, if_missing(mails, 0) / 5)".parse()?;
/// let read = |name: &str| (name == "jobs").then_some(42.0);
/// assert_eq!(formula.evaluate(read), Reading::Value(4.2));
/// # Ok::<(), sim_scaling::metric::FormulaError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Formula {
    text: Arc<str>,
    /// In postfix order.
    ops: Arc<[Op]>,
}

#[derive(Debug, Clone, PartialEq)]
enum Op {
    Number(f64),
    Metric(Arc<str>),
    Unary(Unary),
    Binary(Binary),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unary {
    Negate,
    Abs,
    Ceil,
    Floor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Min,
    Max,
    IfMissing,
}

impl Formula {
    /// Parses a formula.
    ///
    /// # Errors
    ///
    /// [`FormulaError`] with the place and the problem.
    pub fn parse(text: &str) -> Result<Self, FormulaError> {
        let fail = |at, problem| FormulaError {
            formula: text.chars().take(80).collect(),
            at,
            problem,
        };
        if text.len() > TEXT_LIMIT {
            return Err(fail(TEXT_LIMIT, FormulaProblem::TooLong));
        }
        let mut parser = Parser {
            text,
            at: 0,
            ops: Vec::new(),
        };
        parser
            .sum(0)
            .and_then(|()| match parser.peek() {
                None if highest(&parser.ops) > STACK_LIMIT => Err(FormulaProblem::TooDeep),
                None => Ok(()),
                Some(found) => Err(FormulaProblem::Unexpected { found }),
            })
            .map_err(|problem| fail(parser.at, problem))?;
        Ok(Self {
            text: Arc::from(text),
            ops: parser.ops.into(),
        })
    }

    /// The text that was parsed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The metrics that it names, in order of appearance, repeated where it repeats them.
    pub fn metrics(&self) -> impl Iterator<Item = &str> {
        self.ops.iter().filter_map(|op| match op {
            Op::Metric(name) => Some(&**name),
            Op::Number(_) | Op::Unary(_) | Op::Binary(_) => None,
        })
    }

    /// Evaluates it; `read` gives a metric's value, or `None` where it is missing.
    pub fn evaluate(&self, mut read: impl FnMut(&str) -> Option<f64>) -> Reading {
        if let [Op::Metric(name)] = &*self.ops {
            return of_metric(name, read(name));
        }
        let mut stack = [const { Reading::Undefined }; STACK_LIMIT];
        let mut top = 0;
        for op in self.ops.iter() {
            let value = match op {
                Op::Number(number) => Reading::Value(*number),
                Op::Metric(name) => of_metric(name, read(name)),
                Op::Unary(unary) => {
                    top -= 1;
                    match std::mem::replace(&mut stack[top], Reading::Undefined) {
                        Reading::Value(value) => finite(unary.apply(value)),
                        other => other,
                    }
                }
                Op::Binary(binary) => {
                    top -= 2;
                    let right = std::mem::replace(&mut stack[top + 1], Reading::Undefined);
                    let left = std::mem::replace(&mut stack[top], Reading::Undefined);
                    binary.apply(left, right)
                }
            };
            stack[top] = value;
            top += 1;
        }
        std::mem::replace(&mut stack[0], Reading::Undefined)
    }
}

impl FromStr for Formula {
    type Err = FormulaError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// As its text.
#[cfg(feature = "serde")]
impl serde::Serialize for Formula {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// Parsed, so that what is read is a formula.
#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Formula {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl Unary {
    fn apply(self, value: f64) -> f64 {
        match self {
            Self::Negate => -value,
            Self::Abs => value.abs(),
            Self::Ceil => value.ceil(),
            Self::Floor => value.floor(),
        }
    }
}

impl Binary {
    fn apply(self, left: Reading, right: Reading) -> Reading {
        match (self, left, right) {
            (Self::IfMissing, Reading::Value(left), _) => Reading::Value(left),
            (Self::IfMissing, _, right) => right,
            (_, Reading::Value(left), Reading::Value(right)) => finite(match self {
                Self::Add => left + right,
                Self::Subtract => left - right,
                Self::Multiply => left * right,
                Self::Divide => left / right,
                Self::Min => left.min(right),
                Self::Max | Self::IfMissing => left.max(right),
            }),
            (_, Reading::Value(_), other) | (_, other, _) => other,
        }
    }
}

fn of_metric(name: &Arc<str>, value: Option<f64>) -> Reading {
    value.map_or_else(
        || Reading::Missing {
            name: Arc::clone(name),
        },
        finite,
    )
}

/// The most operands that stand at once.
fn highest(ops: &[Op]) -> usize {
    let (mut now, mut most) = (0, 0);
    for op in ops {
        match op {
            Op::Number(_) | Op::Metric(_) => now += 1,
            Op::Unary(_) => {}
            Op::Binary(_) => now -= 1,
        }
        most = most.max(now);
    }
    most
}

fn finite(value: f64) -> Reading {
    if value.is_finite() {
        Reading::Value(value)
    } else {
        Reading::Undefined
    }
}

/// Whether this can be the name of a metric.
pub(super) fn is_name(text: &str) -> bool {
    let first = text.bytes().next();
    first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && text.bytes().all(in_name)
}

fn in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':')
}

/// A formula could not be parsed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("formula {formula:?}, byte {at}: {problem}")]
pub struct FormulaError {
    /// The formula, cut to 80 characters.
    pub formula: String,
    /// The byte at which it went wrong.
    pub at: usize,
    /// What is wrong.
    pub problem: FormulaProblem,
}

/// What is wrong with a formula.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FormulaProblem {
    /// The text ended where an operand or a closing parenthesis should be.
    #[error("ends too early")]
    End,
    /// A character that has no place here.
    #[error("unexpected {found:?}")]
    Unexpected {
        /// The character.
        found: char,
    },
    /// No such function.
    #[error("unknown function `{name}` (there are min, max, abs, ceil, floor and if_missing)")]
    Function {
        /// The name given.
        name: String,
    },
    /// A function with the wrong number of arguments.
    #[error("{name} takes {takes} arguments, not {given}")]
    Arguments {
        /// The function.
        name: String,
        /// How many it takes.
        takes: &'static str,
        /// How many were given.
        given: usize,
    },
    /// Digits that are no finite number.
    #[error("not a number")]
    Number,
    /// The text is longer than 4,096 bytes.
    #[error("longer than {TEXT_LIMIT} bytes")]
    TooLong,
    /// More than 64 levels of parentheses, calls and signs, or more than 32 operands at once.
    #[error("nested deeper than {DEPTH_LIMIT} levels or {STACK_LIMIT} operands")]
    TooDeep,
    /// More than 256 operations and operands.
    #[error("more than {OPS_LIMIT} operations")]
    TooMany,
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    ops: Vec<Op>,
}

impl Parser<'_> {
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        let trimmed = rest.trim_start();
        self.at += rest.len() - trimmed.len();
        trimmed.chars().next()
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn push(&mut self, op: Op) -> Result<(), FormulaProblem> {
        if self.ops.len() >= OPS_LIMIT {
            return Err(FormulaProblem::TooMany);
        }
        self.ops.push(op);
        Ok(())
    }

    fn sum(&mut self, depth: usize) -> Result<(), FormulaProblem> {
        self.term(depth)?;
        loop {
            let op = if self.take('+') {
                Binary::Add
            } else if self.take('-') {
                Binary::Subtract
            } else {
                return Ok(());
            };
            self.term(depth)?;
            self.push(Op::Binary(op))?;
        }
    }

    fn term(&mut self, depth: usize) -> Result<(), FormulaProblem> {
        self.factor(depth)?;
        loop {
            let op = if self.take('*') {
                Binary::Multiply
            } else if self.take('/') {
                Binary::Divide
            } else {
                return Ok(());
            };
            self.factor(depth)?;
            self.push(Op::Binary(op))?;
        }
    }

    fn factor(&mut self, depth: usize) -> Result<(), FormulaProblem> {
        if depth >= DEPTH_LIMIT {
            return Err(FormulaProblem::TooDeep);
        }
        match self.peek().ok_or(FormulaProblem::End)? {
            '-' => {
                self.take('-');
                self.factor(depth + 1)?;
                self.push(Op::Unary(Unary::Negate))
            }
            '(' => {
                self.take('(');
                self.sum(depth + 1)?;
                self.close()
            }
            found if found.is_ascii_digit() || found == '.' => self.number(),
            found if found.is_ascii_alphabetic() || found == '_' => {
                let name = self.name();
                if self.take('(') {
                    self.call(name, depth + 1)
                } else {
                    self.push(Op::Metric(Arc::from(name)))
                }
            }
            found => Err(FormulaProblem::Unexpected { found }),
        }
    }

    fn close(&mut self) -> Result<(), FormulaProblem> {
        if self.take(')') {
            return Ok(());
        }
        Err(match self.peek() {
            Some(found) => FormulaProblem::Unexpected { found },
            None => FormulaProblem::End,
        })
    }

    fn number(&mut self) -> Result<(), FormulaProblem> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut end = start;
        while let Some(&byte) = bytes.get(end) {
            let exponent_sign =
                matches!(byte, b'+' | b'-') && end > start && matches!(bytes[end - 1], b'e' | b'E');
            if !(byte.is_ascii_alphanumeric() || byte == b'.' || exponent_sign) {
                break;
            }
            end += 1;
        }
        match self.text[start..end].parse::<f64>() {
            Ok(number) if number.is_finite() => {
                self.at = end;
                self.push(Op::Number(number))
            }
            _ => Err(FormulaProblem::Number),
        }
    }

    fn name(&mut self) -> String {
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().take_while(|&&byte| in_name(byte)).count();
        let name = self.text[self.at..self.at + length].to_owned();
        self.at += length;
        name
    }

    fn call(&mut self, name: String, depth: usize) -> Result<(), FormulaProblem> {
        enum Function {
            Fold(Binary),
            Pair(Binary),
            One(Unary),
        }
        let function = match name.as_str() {
            "min" => Function::Fold(Binary::Min),
            "max" => Function::Fold(Binary::Max),
            "if_missing" => Function::Pair(Binary::IfMissing),
            "abs" => Function::One(Unary::Abs),
            "ceil" => Function::One(Unary::Ceil),
            "floor" => Function::One(Unary::Floor),
            _ => return Err(FormulaProblem::Function { name }),
        };
        let mut given = 0;
        if self.peek() != Some(')') {
            loop {
                self.sum(depth)?;
                given += 1;
                if given > 1
                    && let Function::Fold(op) = function
                {
                    self.push(Op::Binary(op))?;
                }
                if !self.take(',') {
                    break;
                }
            }
        }
        self.close()?;
        let wrong = |takes| {
            Err(FormulaProblem::Arguments {
                name: name.clone(),
                takes,
                given,
            })
        };
        match function {
            Function::Fold(_) if given >= 2 => Ok(()),
            Function::Fold(_) => wrong("two or more"),
            Function::Pair(op) if given == 2 => self.push(Op::Binary(op)),
            Function::Pair(_) => wrong("two"),
            Function::One(op) if given == 1 => self.push(Op::Unary(op)),
            Function::One(_) => wrong("one"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ops::Add;

    fn value(text: &str) -> Reading {
        let formula = Formula::parse(text).unwrap();
        formula.evaluate(|name| match name {
            "two" => Some(2.0),
            "q.deep:er_1" => Some(10.0),
            "bad" => Some(f64::NAN),
            _ => None,
        })
    }

    fn problem(text: &str) -> FormulaProblem {
        Formula::parse(text).unwrap_err().problem
    }

    #[test]
    fn arithmetic_binds_as_at_school() {
        assert_eq!(value("1 + 2 * 3 - 4 / 2"), Reading::Value(5.0));
        assert_eq!(value("(1 + 2) * -3"), Reading::Value(-9.0));
        assert_eq!(value("8 - 2 - 1"), Reading::Value(5.0));
        assert_eq!(value("two*q.deep:er_1"), Reading::Value(20.0));
        assert_eq!(value("1.5e+1 + .5"), Reading::Value(15.5));
    }

    #[test]
    fn functions_take_what_they_say() {
        assert_eq!(value("min(3, 1, two)"), Reading::Value(1.0));
        assert_eq!(value("max(3, 1, two)"), Reading::Value(3.0));
        assert_eq!(
            value("ceil(1.2) + floor(1.8) + abs(-3)"),
            Reading::Value(6.0)
        );
        let error = Formula::parse("max(1)").unwrap_err();
        assert_eq!(
            error.to_string(),
            "formula \"max(1)\", byte 6: max takes two or more arguments, not 1"
        );
        assert!(matches!(
            problem("abs()"),
            FormulaProblem::Arguments { given: 0, .. }
        ));
        assert!(matches!(
            problem("if_missing(1,2,3)"),
            FormulaProblem::Arguments { .. }
        ));
        assert!(matches!(problem("sin(1)"), FormulaProblem::Function { .. }));
    }

    #[test]
    fn a_missing_metric_makes_the_whole_missing_unless_it_is_replaced() {
        let missing = Reading::Missing {
            name: Arc::from("gone"),
        };
        assert_eq!(value("two + gone * 3"), missing);
        assert_eq!(value("max(two, gone)"), missing);
        assert_eq!(value("max(two, if_missing(gone, 7))"), Reading::Value(7.0));
        assert_eq!(value("if_missing(two, gone)"), Reading::Value(2.0));
        assert_eq!(value("if_missing(1 / 0, 4)"), Reading::Value(4.0));
    }

    #[test]
    fn what_is_not_finite_is_undefined() {
        assert_eq!(value("1 / 0"), Reading::Undefined);
        assert_eq!(value("bad + 1"), Reading::Undefined);
        assert_eq!(value("1e308 * 10"), Reading::Undefined);
    }

    #[test]
    fn what_cannot_be_parsed_says_where_and_why() {
        assert_eq!(problem(""), FormulaProblem::End);
        assert_eq!(problem("1 +"), FormulaProblem::End);
        assert_eq!(problem("(1"), FormulaProblem::End);
        assert_eq!(problem("1 2"), FormulaProblem::Unexpected { found: '2' });
        assert_eq!(problem("a ? b"), FormulaProblem::Unexpected { found: '?' });
        assert_eq!(problem("é"), FormulaProblem::Unexpected { found: 'é' });
        assert_eq!(problem("1.2.3"), FormulaProblem::Number);
        assert_eq!(problem("9e999"), FormulaProblem::Number);
        assert_eq!(problem(&"(".repeat(100)), FormulaProblem::TooDeep);
        assert_eq!(problem(&"-".repeat(100)), FormulaProblem::TooDeep);
        assert_eq!(problem(&" ".repeat(5000)), FormulaProblem::TooLong);
        assert_eq!(
            problem(&format!("1{}", "+1".repeat(200))),
            FormulaProblem::TooMany
        );
    }

    #[test]
    fn the_deepest_formula_that_parses_can_be_evaluated() {
        let mut text = String::from("1");
        let deepest = loop {
            let deeper = format!("if_missing(gone, 1 + 1 * max(1, {text}))");
            if Formula::parse(&deeper).is_err() {
                break text;
            }
            text = deeper;
        };
        assert!(matches!(value(&deepest), Reading::Value(_)), "{deepest}");
        assert_eq!(
            problem(&"1+(".repeat(40).add("1").add(&")".repeat(40))),
            FormulaProblem::TooDeep
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[a-c0-9.e+*/(), -]{0,60}|.{0,20}") {
            if let Ok(formula) = Formula::parse(&text) {
                let _ = formula.evaluate(|_| Some(3.0));
                let _ = formula.evaluate(|_| None);
            }
        }

        #[test]
        fn arithmetic_is_that_of_floats(a in -1e6..1e6f64, b in -1e6..1e6f64, c in 1.0..1e6f64) {
            let formula = Formula::parse("(a - b) * 2 / c + min(a, b)").unwrap();
            let found = formula.evaluate(|name| match name {
                "a" => Some(a),
                "b" => Some(b),
                _ => Some(c),
            });
            prop_assert_eq!(found, Reading::Value((a - b) * 2.0 / c + a.min(b)));
        }
    }
}
