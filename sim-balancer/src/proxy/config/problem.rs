//! What is wrong with a configuration, and where.

use std::fmt;

/// A field of a [`ProxyConfig`](super::ProxyConfig) cannot be used as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
#[non_exhaustive]
pub struct ProxyConfigError {
    /// The field's path, as `listeners[0].rules[2].conditions[1].values`.
    pub field: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// It has to be there.
    #[error("missing: {0}")]
    Missing(&'static str),
    /// It has too many parts.
    #[error("{count} {what}, at most {most}")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// It is too small or too large.
    #[error("{value}, but {least} to {most} are allowed")]
    OutOfRange {
        /// The value.
        value: String,
        /// The least that is allowed.
        least: String,
        /// The most that is allowed.
        most: String,
    },
    /// It is there twice.
    #[error("\"{value}\" is also that of {first}")]
    Duplicate {
        /// The value.
        value: String,
        /// The path of the field that has it too.
        first: String,
    },
    /// It refers to what is not there.
    #[error("there is no {what} \"{name}\"")]
    Unknown {
        /// What it refers to.
        what: &'static str,
        /// The name that it gives.
        name: String,
    },
    /// It cannot be carried.
    #[error("{value} is not supported: {why}")]
    Unsupported {
        /// The value.
        value: String,
        /// Why not.
        why: &'static str,
    },
    /// It cannot be read.
    #[error("\"{value}\" {why}")]
    Invalid {
        /// The value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// It contradicts another field.
    #[error("{0}")]
    Conflict(String),
}

/// Where a check stands: the path of a field, written out only when something is wrong there.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    parent: Option<&'a At<'a>>,
    name: &'a str,
    index: Option<usize>,
}

impl<'a> At<'a> {
    /// The whole configuration.
    pub(crate) const ROOT: At<'static> = At {
        parent: None,
        name: "",
        index: None,
    };

    /// A field of it.
    pub(crate) const fn field<'b>(&'b self, name: &'b str) -> At<'b>
    where
        'a: 'b,
    {
        At {
            parent: Some(self),
            name,
            index: None,
        }
    }

    /// A part of a list.
    pub(crate) const fn part<'b>(&'b self, name: &'b str, index: usize) -> At<'b>
    where
        'a: 'b,
    {
        At {
            parent: Some(self),
            name,
            index: Some(index),
        }
    }

    pub(crate) fn error(&self, problem: Problem) -> ProxyConfigError {
        ProxyConfigError {
            field: self.to_string(),
            problem,
        }
    }

    pub(crate) fn fail<T>(&self, problem: Problem) -> Result<T, ProxyConfigError> {
        Err(self.error(problem))
    }

    pub(crate) fn invalid<T>(
        &self,
        value: &str,
        why: impl Into<String>,
    ) -> Result<T, ProxyConfigError> {
        self.fail(Problem::Invalid {
            value: value.to_owned(),
            why: why.into(),
        })
    }

    pub(crate) fn at_most(
        &self,
        what: &'static str,
        count: usize,
        most: usize,
    ) -> Result<(), ProxyConfigError> {
        if count > most {
            return self.fail(Problem::TooMany { what, count, most });
        }
        Ok(())
    }

    pub(crate) fn within(
        &self,
        value: u64,
        (least, most): (u64, u64),
    ) -> Result<(), ProxyConfigError> {
        if value < least || value > most {
            return self.fail(Problem::OutOfRange {
                value: value.to_string(),
                least: least.to_string(),
                most: most.to_string(),
            });
        }
        Ok(())
    }

    pub(crate) fn span(
        &self,
        value: std::time::Duration,
        (least, most): (std::time::Duration, std::time::Duration),
    ) -> Result<(), ProxyConfigError> {
        if value < least || value > most {
            return self.fail(Problem::OutOfRange {
                value: super::span::written(value),
                least: super::span::written(least),
                most: super::span::written(most),
            });
        }
        Ok(())
    }

    pub(crate) fn percent(&self, value: f64) -> Result<(), ProxyConfigError> {
        if (0.0..=100.0).contains(&value) {
            return Ok(());
        }
        self.fail(Problem::OutOfRange {
            value: value.to_string(),
            least: "0".to_owned(),
            most: "100".to_owned(),
        })
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            if parent.parent.is_some() {
                write!(f, "{parent}.")?;
            }
            f.write_str(self.name)?;
        }
        match self.index {
            Some(index) => write!(f, "[{index}]"),
            None => Ok(()),
        }
    }
}
