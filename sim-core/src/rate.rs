//! [`TokenBucket`]: a rate with a burst, pure and exact.

use crate::time::Instant;

/// Nanoseconds in a second, and so the parts into which one token is cut.
const PARTS: u128 = 1_000_000_000;

/// Lets `rate` units a second pass on average and at most `burst` at once.
///
/// # Algorithm
///
/// The token bucket (Turner, "New directions in communications", IEEE Communications 24(10), 1986). The level is
/// kept in billionths of a token, of which each nanosecond brings exactly `rate`: no rounding, whatever the rate,
/// so the instant that [`take`](Self::take) names is the very first one at which it succeeds.
///
/// # Examples
///
/// ```
/// use sim_core::rate::TokenBucket;
/// use sim_core::time::Instant;
///
/// let now = Instant::ORIGIN;
/// let mut bucket = TokenBucket::new(10, 2); // ten a second, two at once
/// assert_eq!(bucket.take(now, 2), Ok(()));
/// let when = bucket.take(now, 1).unwrap_err();
/// assert_eq!(when.as_nanos(), 100_000_000);
/// assert_eq!(bucket.take(when, 1), Ok(()));
/// ```
#[derive(Debug, Clone)]
pub struct TokenBucket {
    rate: u64,
    burst: u64,
    /// Billionths of a token. Invariant: at most `burst * PARTS`.
    level: u128,
    /// When `level` was right.
    at: Instant,
}

impl TokenBucket {
    /// Makes a full bucket.
    ///
    /// A `rate` of zero never refills; a `burst` of zero lets nothing pass.
    #[must_use]
    pub const fn new(rate: u64, burst: u64) -> Self {
        Self {
            rate,
            burst,
            level: burst as u128 * PARTS,
            at: Instant::ORIGIN,
        }
    }

    /// Takes `n` tokens at once, or says when that will be possible.
    ///
    /// An instant before the last one is taken for the last one.
    ///
    /// # Errors
    ///
    /// The first instant at which the same call would succeed if nothing else were taken;
    /// [`Instant::NEVER`] when `n` is more than the burst or the bucket never refills that far.
    pub fn take(&mut self, now: Instant, n: u64) -> Result<(), Instant> {
        self.refill(now);
        let need = u128::from(n) * PARTS;
        if let Some(left) = self.level.checked_sub(need) {
            self.level = left;
            return Ok(());
        }
        if n > self.burst || self.rate == 0 {
            return Err(Instant::NEVER);
        }
        let wait = (need - self.level).div_ceil(u128::from(self.rate));
        let at = u128::from(self.at.as_nanos()) + wait;
        Err(u64::try_from(at).map_or(Instant::NEVER, Instant::from_nanos))
    }

    /// Whole tokens there at `now`.
    pub fn available(&mut self, now: Instant) -> u64 {
        self.refill(now);
        u64::try_from(self.level / PARTS).unwrap_or(u64::MAX)
    }

    /// Tokens a second.
    #[must_use]
    pub const fn rate(&self) -> u64 {
        self.rate
    }

    /// Tokens that fit.
    #[must_use]
    pub const fn burst(&self) -> u64 {
        self.burst
    }

    fn refill(&mut self, now: Instant) {
        if now > self.at {
            let elapsed = now.as_nanos() - self.at.as_nanos();
            let full = u128::from(self.burst) * PARTS;
            let gain = u128::from(elapsed) * u128::from(self.rate);
            self.level = self.level.saturating_add(gain).min(full);
            self.at = now;
        }
    }
}
