//! The throughput limits of a shard.

use sim_core::rate::TokenBucket;
use sim_core::time::Instant;

use crate::config::Throughput;
use crate::error::Resource;

/// Nanoseconds in a second, and so the parts into which one unit is cut.
const PARTS: i128 = 1_000_000_000;

/// A call that a limit does not let pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exceeded {
    /// The limit.
    pub resource: Resource,
    /// The first instant at which the same call passes if nothing else does until then; [`Instant::NEVER`] if it is
    /// larger than the limit ever lets pass.
    pub retry_at: Instant,
}

/// What one shard takes and gives: the write limits, and the read limits that all shared readers share.
///
/// ```
/// use std::time::Duration;
/// use sim_core::time::Instant;
/// use sim_stream::Throughput;
/// use sim_stream::machine::limits::ShardLimits;
///
/// let now = Instant::ORIGIN;
/// let mut limits = ShardLimits::new(now, &Throughput::aws());
/// assert!(limits.read(now).is_ok());
/// limits.answered(now, 10 << 20); // 10 MiB
/// let exceeded = limits.read(now).unwrap_err();
/// assert_eq!(exceeded.retry_at, now + Duration::from_secs(5));
/// ```
#[derive(Debug, Clone)]
pub struct ShardLimits {
    write_bytes: Advance,
    write_records: Advance,
    read_bytes: Advance,
    reads: TokenBucket,
}

impl ShardLimits {
    /// A shard that has all of its shares unused.
    #[must_use]
    pub fn new(now: Instant, limits: &Throughput) -> Self {
        Self {
            write_bytes: Advance::new(now, limits.write_bytes, limits.write_burst_bytes),
            write_records: Advance::new(now, limits.write_records, limits.write_records),
            read_bytes: Advance::new(now, limits.read_bytes, u64::MAX),
            reads: TokenBucket::new(limits.reads, limits.reads),
        }
    }

    /// Lets a record of `bytes` in, or nothing of it.
    ///
    /// # Errors
    /// The limit that does not let it pass. Nothing was used up.
    pub fn write(&mut self, now: Instant, bytes: u64) -> Result<(), Exceeded> {
        self.check_write(now, bytes)?;
        self.charge_write(now, bytes);
        Ok(())
    }

    /// Whether a record of `bytes` would be let in. Uses nothing up.
    ///
    /// # Errors
    /// The limit that would not let it pass.
    pub fn check_write(&mut self, now: Instant, bytes: u64) -> Result<(), Exceeded> {
        let check = |resource| move |retry_at| Exceeded { resource, retry_at };
        self.write_records
            .check(now, 1)
            .map_err(check(Resource::WriteRecords))?;
        self.write_bytes
            .check(now, bytes)
            .map_err(check(Resource::WriteBytes))
    }

    /// Uses up what a record of `bytes` takes, after a [check](Self::check_write) at the same time.
    pub fn charge_write(&mut self, now: Instant, bytes: u64) {
        self.write_records.charge(now, 1);
        self.write_bytes.charge(now, bytes);
    }

    /// Lets a read in. What it brings is reported with [`answered`](Self::answered) when it is known.
    ///
    /// # Errors
    /// There were too many reads, or an earlier answer is not worked off.
    pub fn read(&mut self, now: Instant) -> Result<(), Exceeded> {
        self.read_bytes.rested(now).map_err(|retry_at| Exceeded {
            resource: Resource::ReadBytes,
            retry_at,
        })?;
        self.reads.take(now, 1).map_err(|retry_at| Exceeded {
            resource: Resource::Reads,
            retry_at,
        })
    }

    /// Reports what a read brought.
    pub fn answered(&mut self, now: Instant, bytes: u64) {
        self.read_bytes.charge(now, bytes);
    }
}

/// What one registered consumer gets from one shard.
#[derive(Debug, Clone)]
pub struct FanOutLimit {
    bytes: Advance,
}

impl FanOutLimit {
    /// A consumer that has its share unused.
    #[must_use]
    pub const fn new(now: Instant, limits: &Throughput) -> Self {
        Self {
            bytes: Advance::new(now, limits.fan_out_bytes, u64::MAX),
        }
    }

    /// Lets a push of `bytes` pass. One larger than a second's share passes when the share is unused.
    ///
    /// # Errors
    /// The share is used up. Nothing more was used.
    pub fn push(&mut self, now: Instant, bytes: u64) -> Result<(), Exceeded> {
        self.bytes.take(now, bytes).map_err(|retry_at| Exceeded {
            resource: Resource::FanOutBytes,
            retry_at,
        })
    }
}

/// A rate whose burst is one second's share, with advances: what is larger passes when the whole share is unused, and is
/// worked off before anything else passes.
///
/// # Algorithm
///
/// A token bucket as in [`TokenBucket`], in billionths of a unit, whose level may be negative: an advance. So the
/// average over any time in which the bucket begins and ends full is at most the rate.
#[derive(Debug, Clone)]
pub(super) struct Advance {
    rate: u64,
    /// The largest that passes at once.
    most: u64,
    /// Invariant: at most `rate * PARTS`.
    level: i128,
    /// When `level` was right.
    at: Instant,
    /// While an answer that was larger than the share is worked off: until the share is whole again.
    rests_until: Instant,
}

impl Advance {
    pub(super) const fn new(now: Instant, rate: u64, most: u64) -> Self {
        Self {
            rate,
            most,
            level: rate as i128 * PARTS,
            at: now,
            rests_until: Instant::ORIGIN,
        }
    }

    /// Takes `n`, or says when that will be possible.
    pub(super) fn take(&mut self, now: Instant, n: u64) -> Result<(), Instant> {
        self.check(now, n)?;
        self.charge(now, n);
        Ok(())
    }

    /// Whether `n` would pass, or when it will.
    pub(super) fn check(&mut self, now: Instant, n: u64) -> Result<(), Instant> {
        self.refill(now);
        if n > self.most {
            return Err(Instant::NEVER);
        }
        self.reached(i128::from(n.min(self.rate)) * PARTS)
    }

    /// Whether nothing is being worked off that was larger than the share, or until when it is.
    pub(super) fn rested(&mut self, now: Instant) -> Result<(), Instant> {
        self.refill(now);
        if now < self.rests_until {
            return Err(self.rests_until);
        }
        Ok(())
    }

    /// Gives back `n` of what was taken.
    pub(super) fn give_back(&mut self, n: u64) {
        let whole = i128::from(self.rate) * PARTS;
        self.level = (self.level + i128::from(n) * PARTS).min(whole);
    }

    /// Takes `n` whatever is there.
    pub(super) fn charge(&mut self, now: Instant, n: u64) {
        self.refill(now);
        self.level -= i128::from(n) * PARTS;
        if self.level < 0
            && let Err(full) = self.reached(i128::from(self.rate) * PARTS)
        {
            self.rests_until = full;
        }
    }

    /// Changes the rate; the level stays, cut to the new share.
    pub(super) fn set_rate(&mut self, now: Instant, rate: u64) {
        self.refill(now);
        self.rate = rate;
        self.level = self.level.min(i128::from(rate) * PARTS);
    }

    /// Whether the level is at least `need`, or when it will be.
    fn reached(&self, need: i128) -> Result<(), Instant> {
        let missing = need - self.level;
        if missing <= 0 {
            return Ok(());
        }
        if self.rate == 0 {
            return Err(Instant::NEVER);
        }
        let wait = missing.unsigned_abs().div_ceil(u128::from(self.rate));
        let at = u128::from(self.at.as_nanos()) + wait;
        Err(u64::try_from(at).map_or(Instant::NEVER, Instant::from_nanos))
    }

    fn refill(&mut self, now: Instant) {
        if now > self.at {
            let elapsed = now.as_nanos() - self.at.as_nanos();
            let full = i128::from(self.rate) * PARTS;
            // At most 2^64 * 2^62: no overflow.
            let gain = i128::from(elapsed) * i128::from(self.rate);
            self.level = (self.level + gain).min(full);
            self.at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn at_millis(millis: u64) -> Instant {
        Instant::ORIGIN + Duration::from_millis(millis)
    }

    fn aws() -> ShardLimits {
        ShardLimits::new(Instant::ORIGIN, &Throughput::aws())
    }

    fn exceeded(resource: Resource, millis: u64) -> Result<(), Exceeded> {
        Err(Exceeded {
            resource,
            retry_at: at_millis(millis),
        })
    }

    #[test]
    fn a_shard_takes_a_thousand_records_a_second() {
        let mut limits = aws();
        for _ in 0..1_000 {
            assert_eq!(limits.write(at_millis(0), 10), Ok(()));
        }
        assert_eq!(
            limits.write(at_millis(0), 10),
            exceeded(Resource::WriteRecords, 1)
        );
        assert_eq!(limits.write(at_millis(1), 10), Ok(()));
    }

    #[test]
    fn a_shard_takes_one_mebibyte_a_second() {
        let mut limits = aws();
        assert_eq!(limits.write(at_millis(0), MIB), Ok(()));
        assert_eq!(
            limits.write(at_millis(0), MIB / 2),
            exceeded(Resource::WriteBytes, 500)
        );
        assert_eq!(limits.write(at_millis(500), MIB / 2), Ok(()));
    }

    #[test]
    fn an_unused_share_is_not_saved_up() {
        let mut limits = aws();
        assert_eq!(limits.write(at_millis(60_000), MIB), Ok(()));
        assert_eq!(
            limits.write(at_millis(60_000), MIB),
            exceeded(Resource::WriteBytes, 61_000)
        );
    }

    #[test]
    fn a_refused_write_uses_nothing_up() {
        let mut limits = aws();
        assert_eq!(limits.write(at_millis(0), MIB / 2), Ok(()));
        for _ in 0..5_000 {
            assert!(limits.write(at_millis(0), MIB).is_err());
        }
        for _ in 0..999 {
            assert_eq!(limits.write(at_millis(0), 1), Ok(()));
        }
    }

    #[test]
    fn a_large_record_passes_when_the_share_is_unused_and_is_worked_off() {
        let mut limits = aws();
        assert_eq!(limits.write(at_millis(0), 10 * MIB), Ok(()));
        // Nine MiB in advance: nothing passes for nine seconds, and a whole MiB after ten.
        assert_eq!(
            limits.write(at_millis(0), MIB),
            exceeded(Resource::WriteBytes, 10_000)
        );
        assert!(limits.write(at_millis(9_000), 1).is_err());
        assert_eq!(limits.write(at_millis(9_001), 1), Ok(()));
    }

    #[test]
    fn a_large_record_does_not_pass_when_the_share_is_in_use() {
        let mut limits = aws();
        assert_eq!(limits.write(at_millis(0), MIB / 4), Ok(()));
        assert_eq!(
            limits.write(at_millis(0), 5 * MIB),
            exceeded(Resource::WriteBytes, 250)
        );
        assert_eq!(limits.write(at_millis(250), 5 * MIB), Ok(()));
    }

    #[test]
    fn a_record_beyond_the_burst_never_passes() {
        let refused = aws().write(at_millis(0), 10 * MIB + 1).unwrap_err();
        assert!(refused.retry_at.is_never());
    }

    #[test]
    fn five_reads_a_second_pass() {
        let mut limits = aws();
        for _ in 0..5 {
            assert_eq!(limits.read(at_millis(0)), Ok(()));
            limits.answered(at_millis(0), 100);
        }
        assert_eq!(limits.read(at_millis(0)), exceeded(Resource::Reads, 200));
        assert_eq!(limits.read(at_millis(200)), Ok(()));
    }

    #[test]
    fn after_an_answer_of_ten_mebibytes_a_shard_rests_for_five_seconds() {
        let mut limits = aws();
        assert_eq!(limits.read(at_millis(0)), Ok(()));
        limits.answered(at_millis(0), 10 * MIB);
        assert_eq!(
            limits.read(at_millis(0)),
            exceeded(Resource::ReadBytes, 5_000)
        );
        assert!(limits.read(at_millis(4_999)).is_err());
        assert_eq!(limits.read(at_millis(5_000)), Ok(()));
    }

    #[test]
    fn answers_within_the_share_need_no_rest() {
        let mut limits = aws();
        for _ in 0..2 {
            assert_eq!(limits.read(at_millis(0)), Ok(()));
            limits.answered(at_millis(0), MIB);
        }
        assert_eq!(limits.read(at_millis(0)), Ok(()));
    }

    #[test]
    fn each_consumer_gets_two_mebibytes_a_second() {
        let mut limit = FanOutLimit::new(Instant::ORIGIN, &Throughput::aws());
        assert_eq!(limit.push(at_millis(0), 2 * MIB), Ok(()));
        assert_eq!(
            limit.push(at_millis(0), MIB),
            exceeded(Resource::FanOutBytes, 500)
        );
        assert_eq!(limit.push(at_millis(500), MIB), Ok(()));
    }

    #[test]
    fn the_largest_rates_and_times_do_not_overflow() {
        let mut bucket = Advance::new(Instant::ORIGIN, 1 << 62, u64::MAX);
        bucket.charge(Instant::ORIGIN, u64::MAX);
        bucket.charge(Instant::ORIGIN, u64::MAX);
        assert!(bucket.rested(Instant::ORIGIN).is_err());
        assert_eq!(bucket.take(Instant::NEVER, 1 << 62), Ok(()));
    }

    #[test]
    fn a_lower_rate_cuts_what_is_left() {
        let mut bucket = Advance::new(Instant::ORIGIN, 100, 100);
        bucket.set_rate(Instant::ORIGIN, 10);
        assert_eq!(bucket.take(Instant::ORIGIN, 10), Ok(()));
        assert_eq!(bucket.take(Instant::ORIGIN, 1), Err(at_millis(100)));
    }

    proptest! {
        #[test]
        fn the_instant_to_retry_at_is_the_first_that_passes(
            rate in 1..5_000_u64,
            takes in prop::collection::vec((0..3_000_000_000_u64, 0..20_000_u64), 1..40),
        ) {
            let mut bucket = Advance::new(Instant::ORIGIN, rate, 15_000);
            let mut now = Instant::ORIGIN;
            for (wait, n) in takes {
                now = now + Duration::from_nanos(wait);
                match bucket.take(now, n) {
                    Ok(()) => prop_assert!(n <= 15_000),
                    Err(at) if at.is_never() => prop_assert!(n > 15_000),
                    Err(at) => {
                        let before = Instant::from_nanos(at.as_nanos() - 1);
                        prop_assert!(at > now);
                        prop_assert!(bucket.clone().take(before, n).is_err());
                        prop_assert_eq!(bucket.clone().take(at, n), Ok(()));
                    }
                }
            }
        }

        #[test]
        fn what_passes_is_at_most_the_rate_and_one_burst(
            rate in 1..1_000_u64,
            takes in prop::collection::vec((0..1_000_000_000_u64, 1..3_000_u64), 1..80),
        ) {
            let most = 2_000;
            let mut bucket = Advance::new(Instant::ORIGIN, rate, most);
            let (mut now, mut passed) = (Instant::ORIGIN, 0_u64);
            for (wait, n) in takes {
                now = now + Duration::from_nanos(wait);
                if bucket.take(now, n).is_ok() {
                    passed += n;
                }
                let allowed = u128::from(now.as_nanos()) * u128::from(rate) / 1_000_000_000
                    + u128::from(rate.max(most));
                prop_assert!(u128::from(passed) <= allowed);
            }
        }
    }
}
