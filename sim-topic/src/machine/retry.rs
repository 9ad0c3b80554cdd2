//! When a failed delivery is tried again.
//!
//! # Rules
//!
//! After a server's error (no answer, no room, an answer that asks for another try) a delivery goes through
//! four phases, and is given up when all are through:
//!
//! ```text
//!  first try   immediate     pre-backoff       backoff                            post-backoff
//!      x       x x x         x     x           x  x    x        x                x              x
//!              no delay      min_delay apart   from min_delay to max_delay       max_delay apart
//! ```
//!
//! A client's error is not tried again at all; which error is which is for the subscriber to say.
//!
//! Source of phases, presets and limits: Amazon SNS developer guide, "Amazon SNS message delivery retries".
//! The guide shows the four functions as a picture and gives no formulas; [`Backoff`] has ours, which keep the
//! picture's order (linear waits longest, exponential shortest) and both ends.

use std::num::NonZeroU32;
use std::time::Duration;

use sim_core::random::Random;
use sim_core::rate::TokenBucket;

use super::document::DocumentError;

pub use self::content_type::ContentType;
pub use self::document::{DeliveryPolicy, Overrides, TopicDeliveryPolicy};

mod content_type;
mod document;

/// The longest wait between two attempts: 100 years, so that nothing overflows the clock's 584.
const MAX_WAIT: Duration = Duration::from_secs(100 * 365 * 86_400);
/// The most retries in the phase that a function spreads out.
const MAX_BACKOFF: u32 = 100_000;
/// The most retries to an HTTP endpoint. Source: as the [module](self).
const HTTP_RETRIES: u32 = 100;
/// The longest wait between two attempts at an HTTP endpoint, in seconds. Source: as the [module](self).
const HTTP_WAIT: u64 = 3_600;
/// The longest time from first to last attempt at an HTTP endpoint. Source: as the [module](self).
const HTTP_TOTAL: Duration = Duration::from_secs(3_600);

/// How the waits of the backoff phase grow from the shortest to the longest.
///
/// For retry `i` of `0..n`, with `span` the longest wait less the shortest:
///
/// | function | wait | its steps |
/// | --- | --- | --- |
/// | linear | `min + span * i / (n - 1)` | are equal |
/// | arithmetic | `min + span * i (i + 1) / (n (n - 1))` | grow by the same amount |
/// | geometric | `min * (max / min) ^ (i / (n - 1))` | grow by the same ratio, as do the waits |
/// | exponential | `min + span * (2^i - 1) / (2^(n - 1) - 1)` | double |
///
/// A phase of one retry waits the shortest. Waits are the same on every machine, to the nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Backoff {
    /// Equal steps. The default, as SNS's.
    #[default]
    Linear,
    /// Steps that grow by the same amount.
    Arithmetic,
    /// Waits that grow by the same ratio.
    Geometric,
    /// Steps that double.
    Exponential,
}

impl Backoff {
    /// All of them, by the names of delivery policies.
    const NAMES: [(&'static str, Self); 4] = [
        ("linear", Self::Linear),
        ("arithmetic", Self::Arithmetic),
        ("geometric", Self::Geometric),
        ("exponential", Self::Exponential),
    ];

    /// The wait before retry `i` of `0..n`.
    fn wait(self, i: u32, n: u32, min: Duration, max: Duration) -> Duration {
        if i == 0 || max <= min {
            return min;
        }
        if i >= n - 1 {
            return max;
        }
        let (low, high) = (nanos(min), nanos(max));
        let span = u128::from(high - low);
        let (i, n) = (u128::from(i), u128::from(n));
        let step = match self {
            Self::Linear => span * i / (n - 1),
            Self::Arithmetic => span * (i * (i + 1)) / (n * (n - 1)),
            // 2^64 and what is beyond would not fit beside the span; there the two "- 1" no longer show.
            Self::Exponential if n <= 64 => span * ((1 << i) - 1) / ((1 << (n - 1)) - 1),
            Self::Exponential => {
                let halvings = u32::try_from(n - 1 - i).unwrap_or(u32::MAX);
                span.checked_shr(halvings).unwrap_or(0)
            }
            Self::Geometric => return geometric(i, n - 1, low.max(1), high),
        };
        min + Duration::from_nanos(u64::try_from(step).unwrap_or(u64::MAX))
    }
}

/// `low * (high / low) ^ (i / n)` for `i < n`.
///
/// By the binary digits of the exponent, each worth one square root more of the ratio: IEEE 754 rounds roots and
/// products in one way, whereas `powf` differs from machine to machine.
fn geometric(i: u128, n: u128, low: u64, high: u64) -> Duration {
    let (mut root, mut factor, mut rest) = (high as f64 / low as f64, 1.0, i);
    for _ in 0..48 {
        root = root.sqrt();
        rest *= 2;
        if rest >= n {
            rest -= n;
            factor *= root;
        }
    }
    let wait = (low as f64 * factor).round() as u64;
    Duration::from_nanos(wait.clamp(low, high))
}

/// How chance spreads retries, so that those who failed together do not come back together.
///
/// Never lengthens a wait. Source: Marc Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015,
/// which SNS's guide names for its own retries without saying which kind it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Jitter {
    /// The wait as it stands. The default: a plan that can be read.
    #[default]
    None,
    /// Anything from no wait to the whole.
    Full,
    /// Anything from half the wait to the whole.
    Equal,
}

impl Jitter {
    fn apply(self, wait: Duration, random: &mut Random) -> Duration {
        let whole = nanos(wait);
        let spread = match self {
            Self::None => return wait,
            _ if whole == 0 => return wait,
            Self::Full => whole,
            Self::Equal => whole / 2,
        };
        Duration::from_nanos(whole - random.below(spread.saturating_add(1)))
    }
}

/// When a failed delivery is tried again, and when it is given up.
///
/// Write it as a literal that ends in `..Default::default()`, or take a preset. The default is that of HTTP
/// endpoints: three retries, 20 s apart. It is checked when a subscription is made with it.
///
/// ```
/// use std::time::Duration;
///
/// use sim_core::random::Random;
/// use sim_topic::RetryPolicy;
///
/// let policy = RetryPolicy::aws_managed();
/// assert_eq!(policy.retries(), 100_015);
/// let mut random = Random::new(7);
/// let mut wait = |failed| policy.delay(failed, &mut random);
/// assert_eq!(wait(1), Some(Duration::ZERO)); // after the first failure
/// assert_eq!(wait(4), Some(Duration::from_secs(1)));
/// assert_eq!(wait(100_015), Some(Duration::from_secs(20)));
/// assert_eq!(wait(100_016), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct RetryPolicy {
    /// Retries of the first phase, without a wait. Default: 0.
    pub immediate: u32,
    /// Retries of the second phase, `min_delay` apart. Default: 0.
    pub pre_backoff: u32,
    /// Retries of the third phase, whose waits grow from `min_delay` to `max_delay`. Default: 3; at most 100,000.
    pub backoff: u32,
    /// Retries of the last phase, `max_delay` apart. Default: 0.
    pub post_backoff: u32,
    /// The shortest wait of all phases but the first. Default: 20 s; not zero if the function is geometric.
    pub min_delay: Duration,
    /// The longest wait. Default: 20 s; at least `min_delay`, at most 100 years.
    pub max_delay: Duration,
    /// How the waits of the third phase grow. Default: linear.
    pub function: Backoff,
    /// How chance shortens the waits. Default: not at all.
    pub jitter: Jitter,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            immediate: 0,
            pre_backoff: 0,
            backoff: 3,
            post_backoff: 0,
            min_delay: Duration::from_secs(20),
            max_delay: Duration::from_secs(20),
            function: Backoff::Linear,
            jitter: Jitter::None,
        }
    }
}

impl RetryPolicy {
    /// No retry at all: what fails is given up.
    pub const NONE: Self = Self {
        immediate: 0,
        pre_backoff: 0,
        backoff: 0,
        post_backoff: 0,
        min_delay: Duration::ZERO,
        max_delay: Duration::ZERO,
        function: Backoff::Linear,
        jitter: Jitter::None,
    };

    /// That of endpoints which AWS manages (queues, functions, delivery streams): 3 retries at once, 2 a second
    /// apart, 10 exponentially from 1 to 20 s, 100,000 at 20 s: 100,015 over 23 days. Source: as the
    /// [type's](Self) limits, SNS's guide.
    #[must_use]
    pub const fn aws_managed() -> Self {
        Self {
            immediate: 3,
            pre_backoff: 2,
            backoff: 10,
            post_backoff: 100_000,
            min_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(20),
            function: Backoff::Exponential,
            jitter: Jitter::None,
        }
    }

    /// That of endpoints which the customer manages (mail, text messages, mobile push): 2 retries 10 s apart,
    /// 10 exponentially from 10 to 600 s, 38 at 600 s: 50 over 6 hours. Source: SNS's guide.
    #[must_use]
    pub const fn customer_managed() -> Self {
        Self {
            immediate: 0,
            pre_backoff: 2,
            backoff: 10,
            post_backoff: 38,
            min_delay: Duration::from_secs(10),
            max_delay: Duration::from_secs(600),
            function: Backoff::Exponential,
            jitter: Jitter::None,
        }
    }

    /// That of an HTTP endpoint, within SNS's limits.
    ///
    /// # Errors
    ///
    /// When a field is out of its range, or the whole lasts longer than 3,600 s.
    pub fn http(retry: HttpRetry) -> Result<Self, RetryError> {
        retry.policy()
    }

    /// Checks every field.
    ///
    /// # Errors
    ///
    /// The first that is out of range, with the range.
    pub fn check(&self) -> Result<(), RetryError> {
        within("backoff", self.backoff.into(), 0, MAX_BACKOFF.into())?;
        let sum = self.sum();
        within("the sum of retries", sum, 0, u32::MAX.into())?;
        if self.max_delay > MAX_WAIT {
            return Err(RetryError::TooLong {
                field: "max_delay",
                value: self.max_delay,
                limit: MAX_WAIT,
            });
        }
        if self.min_delay > self.max_delay {
            return Err(RetryError::TooLong {
                field: "min_delay",
                value: self.min_delay,
                limit: self.max_delay,
            });
        }
        if self.function == Backoff::Geometric && self.backoff > 0 && self.min_delay.is_zero() {
            return Err(RetryError::NoRatio);
        }
        Ok(())
    }

    /// The retries of all phases; the first attempt does not count.
    #[must_use]
    pub fn retries(&self) -> u32 {
        u32::try_from(self.sum()).unwrap_or(u32::MAX)
    }

    /// How long to wait before the next attempt when `failed` attempts in a row have failed, or `None` to give
    /// up. `failed` is 1 after the first delivery; 0, before it, waits for nothing.
    ///
    /// Draws from `random` only if there is jitter and something to spread.
    #[must_use]
    pub fn delay(&self, failed: u32, random: &mut Random) -> Option<Duration> {
        let wait = self.wait(failed)?;
        Some(self.jitter.apply(wait, random))
    }

    /// The time from the first attempt to the last if all take no time and there is no jitter; jitter never makes
    /// it longer. Walks the backoff phase.
    #[must_use]
    pub fn total(&self) -> Duration {
        let backoff = (0..self.backoff)
            .map(|i| {
                self.function
                    .wait(i, self.backoff, self.min_delay, self.max_delay)
            })
            .fold(Duration::ZERO, Duration::saturating_add);
        let before = self.min_delay.saturating_mul(self.pre_backoff);
        let after = self.max_delay.saturating_mul(self.post_backoff);
        before.saturating_add(backoff).saturating_add(after)
    }

    /// The wait without jitter.
    fn wait(&self, failed: u32) -> Option<Duration> {
        let Some(mut retry) = failed.checked_sub(1) else {
            return Some(Duration::ZERO);
        };
        for (phase, retries) in [
            (Phase::Immediate, self.immediate),
            (Phase::PreBackoff, self.pre_backoff),
            (Phase::Backoff, self.backoff),
            (Phase::PostBackoff, self.post_backoff),
        ] {
            if let Some(later) = retry.checked_sub(retries) {
                retry = later;
                continue;
            }
            let (min, max) = (self.min_delay, self.max_delay);
            return Some(match phase {
                Phase::Immediate => Duration::ZERO,
                Phase::PreBackoff => min,
                Phase::Backoff => self.function.wait(retry, retries, min, max),
                Phase::PostBackoff => max,
            });
        }
        None
    }

    fn sum(&self) -> u64 {
        [
            self.immediate,
            self.pre_backoff,
            self.backoff,
            self.post_backoff,
        ]
        .into_iter()
        .map(u64::from)
        .sum()
    }
}

#[derive(Clone, Copy)]
enum Phase {
    Immediate,
    PreBackoff,
    Backoff,
    PostBackoff,
}

/// The retries to an HTTP endpoint as delivery policies name them: [`RetryPolicy::http`] checks it against SNS's
/// limits.
///
/// ```
/// use std::time::Duration;
///
/// use sim_topic::{Backoff, HttpRetry, RetryPolicy};
///
/// let policy = RetryPolicy::http(HttpRetry {
///     num_retries: 50,
///     num_no_delay_retries: 3,
///     num_min_delay_retries: 2,
///     num_max_delay_retries: 35,
///     min_delay: Duration::from_secs(1),
///     max_delay: Duration::from_secs(60),
///     function: Backoff::Exponential,
///     ..Default::default()
/// })?;
/// assert_eq!((policy.backoff, policy.retries()), (10, 50));
///
/// let error = RetryPolicy::http(HttpRetry { num_retries: 101, ..Default::default() }).unwrap_err();
/// assert_eq!(error.to_string(), "numRetries is 101, not between 0 and 100");
/// # Ok::<(), sim_topic::RetryError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct HttpRetry {
    /// All retries together. Default: 3; at most 100.
    pub num_retries: u32,
    /// How many of them come first, without a wait. Default: 0.
    pub num_no_delay_retries: u32,
    /// How many of them come then, `min_delay` apart. Default: 0.
    pub num_min_delay_retries: u32,
    /// How many of them come last, `max_delay` apart. Default: 0.
    pub num_max_delay_retries: u32,
    /// The shortest wait. Default: 20 s; whole seconds, 1 to `max_delay`.
    pub min_delay: Duration,
    /// The longest wait. Default: 20 s; whole seconds, `min_delay` to 3,600.
    pub max_delay: Duration,
    /// How the waits between those two groups grow. Default: linear.
    pub function: Backoff,
    /// How chance shortens the waits; no part of the document. Default: not at all.
    pub jitter: Jitter,
}

impl Default for HttpRetry {
    fn default() -> Self {
        Self {
            num_retries: 3,
            num_no_delay_retries: 0,
            num_min_delay_retries: 0,
            num_max_delay_retries: 0,
            min_delay: Duration::from_secs(20),
            max_delay: Duration::from_secs(20),
            function: Backoff::Linear,
            jitter: Jitter::None,
        }
    }
}

impl HttpRetry {
    fn policy(self) -> Result<RetryPolicy, RetryError> {
        within(
            "numRetries",
            self.num_retries.into(),
            0,
            HTTP_RETRIES.into(),
        )?;
        let max = whole_seconds("maxDelayTarget", self.max_delay)?;
        within("maxDelayTarget", max, 1, HTTP_WAIT)?;
        let min = whole_seconds("minDelayTarget", self.min_delay)?;
        within("minDelayTarget", min, 1, max)?;
        let mut left = self.num_retries;
        for (field, value) in [
            ("numNoDelayRetries", self.num_no_delay_retries),
            ("numMinDelayRetries", self.num_min_delay_retries),
            ("numMaxDelayRetries", self.num_max_delay_retries),
        ] {
            within(field, value.into(), 0, left.into())?;
            left -= value;
        }
        let policy = RetryPolicy {
            immediate: self.num_no_delay_retries,
            pre_backoff: self.num_min_delay_retries,
            backoff: left,
            post_backoff: self.num_max_delay_retries,
            min_delay: self.min_delay,
            max_delay: self.max_delay,
            function: self.function,
            jitter: self.jitter,
        };
        let total = policy.total();
        if total > HTTP_TOTAL {
            return Err(RetryError::TooLong {
                field: "the total retry time",
                value: total,
                limit: HTTP_TOTAL,
            });
        }
        policy.check()?;
        Ok(policy)
    }
}

/// The most deliveries a second that a subscriber takes: the `maxReceivesPerSecond` of a delivery policy.
///
/// Deliveries are spaced out evenly, so that no second, wherever it begins, sees more than that many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Throttle(NonZeroU32);

impl Throttle {
    /// Allows `n` deliveries a second.
    ///
    /// # Errors
    ///
    /// When `n` is zero, which would let nothing through, ever.
    pub fn per_second(n: u32) -> Result<Self, RetryError> {
        NonZeroU32::new(n).map(Self).ok_or(RetryError::OutOfRange {
            field: "maxReceivesPerSecond",
            value: 0,
            min: 1,
            max: u32::MAX.into(),
        })
    }

    /// Deliveries a second.
    #[must_use]
    pub const fn rate(self) -> u32 {
        self.0.get()
    }

    /// Makes the bucket that keeps to it: one token a delivery.
    #[must_use]
    pub fn bucket(self) -> TokenBucket {
        TokenBucket::new(self.rate().into(), 1)
    }
}

/// Why a retry or delivery policy was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RetryError {
    /// A number is out of its range.
    #[error("{field} is {value}, not between {min} and {max}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What it was.
        value: u64,
        /// The least that it may be.
        min: u64,
        /// The most that it may be.
        max: u64,
    },
    /// A time is longer than it may be.
    #[error("{field} is {value:?}, more than {limit:?}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// What it was.
        value: Duration,
        /// The longest that it may be.
        limit: Duration,
    },
    /// A time that has to be whole seconds is not.
    #[error("{field} is {value:?}, not whole seconds")]
    NotWholeSeconds {
        /// The field.
        field: &'static str,
        /// What it was.
        value: Duration,
    },
    /// A geometric series cannot begin with zero.
    #[error(
        "min_delay is zero, from which no ratio leads to max_delay: another function than geometric can"
    )]
    NoRatio,
    /// A document is not what it should be.
    #[error("delivery policy: {0}")]
    Document(#[from] DocumentError),
    /// A content type that cannot be sent.
    #[error("headerContentType is {value:?}: {reason}")]
    ContentType {
        /// What it was.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

fn within(field: &'static str, value: u64, min: u64, max: u64) -> Result<(), RetryError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(RetryError::OutOfRange {
        field,
        value,
        min,
        max,
    })
}

fn whole_seconds(field: &'static str, value: Duration) -> Result<u64, RetryError> {
    if value.subsec_nanos() == 0 {
        return Ok(value.as_secs());
    }
    Err(RetryError::NotWholeSeconds { field, value })
}

/// Nanoseconds, cut off at the longest wait.
fn nanos(wait: Duration) -> u64 {
    u64::try_from(wait.min(MAX_WAIT).as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
