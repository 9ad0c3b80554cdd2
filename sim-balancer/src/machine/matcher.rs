//! [`Matcher`]: which codes are good answers to a health check.

use std::fmt;
use std::str::FromStr;

/// A set of codes, written as the service writes it: `"200"`, `"200,202"`, `"200-299"`, `"0,12,40-49"`.
///
/// ```
/// use sim_balancer::machine::Matcher;
///
/// let matcher: Matcher = "200,300-399".parse()?;
/// assert!(matcher.matches(200) && matcher.matches(302));
/// assert!(!matcher.matches(201));
/// # Ok::<(), sim_balancer::machine::ParseMatcherError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Matcher {
    /// Invariant: at least one range, none of them empty, at most [`RANGES`](Self::RANGES).
    ranges: Vec<(u16, u16)>,
}

impl Matcher {
    /// The most parts that a text may have.
    pub const RANGES: usize = 64;

    /// Matches one code.
    #[must_use]
    pub fn one(code: u16) -> Self {
        Self {
            ranges: vec![(code, code)],
        }
    }

    /// Whether a code is good.
    #[must_use]
    pub fn matches(&self, code: u16) -> bool {
        self.ranges
            .iter()
            .any(|(low, high)| (*low..=*high).contains(&code))
    }

    /// Whether all codes lie within the two.
    pub(crate) fn lies_within(&self, lowest: u16, highest: u16) -> bool {
        self.ranges
            .iter()
            .all(|(low, high)| lowest <= *low && *high <= highest)
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (low, high)) in self.ranges.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            if low == high {
                write!(f, "{low}")?;
            } else {
                write!(f, "{low}-{high}")?;
            }
        }
        Ok(())
    }
}

/// A text is no matcher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "matcher: {text:?} is not a list of up to {limit} codes and ranges such as \"200,300-399\""
)]
pub struct ParseMatcherError {
    /// The text.
    pub text: String,
    /// The most parts.
    pub limit: usize,
}

impl FromStr for Matcher {
    type Err = ParseMatcherError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let code = |digits: &str| -> Option<u16> {
            let digits = digits.trim();
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| digits.parse().ok()).flatten()
        };
        let range = |part: &str| -> Option<(u16, u16)> {
            let (low, high) = match part.split_once('-') {
                Some((low, high)) => (code(low)?, code(high)?),
                None => (code(part)?, code(part)?),
            };
            (low <= high).then_some((low, high))
        };
        text.split(',')
            .map(range)
            .collect::<Option<Vec<_>>>()
            .filter(|ranges| ranges.len() <= Self::RANGES)
            .map(|ranges| Self { ranges })
            .ok_or_else(|| ParseMatcherError {
                text: text.to_owned(),
                limit: Self::RANGES,
            })
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Matcher {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Matcher {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matcher_is_codes_and_ranges() {
        let matcher: Matcher = "200,202, 300-302".parse().unwrap();
        let good: Vec<u16> = (100..600).filter(|code| matcher.matches(*code)).collect();
        assert_eq!(good, [200, 202, 300, 301, 302]);
        assert_eq!(matcher.to_string(), "200,202,300-302");
        assert!(matcher.lies_within(200, 302) && !matcher.lies_within(200, 301));
        assert!(!matcher.lies_within(201, 499));
    }

    #[test]
    fn what_is_no_matcher_is_refused() {
        for text in [
            "", ",", "200,", "2x0", "299-200", "-5", "+200", "70000", "200--299",
        ] {
            let error = text.parse::<Matcher>().unwrap_err();
            assert_eq!(error.text, text);
        }
        assert!(vec!["200"; 64].join(",").parse::<Matcher>().is_ok());
        assert!(vec!["200"; 65].join(",").parse::<Matcher>().is_err());
    }
}
