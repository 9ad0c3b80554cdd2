//! What is known of one target's load: how much it has in hand, how long it takes, what went wrong.
//!
//! # Algorithm
//! Everything that a pick reads or writes stands in a few words side by side, each of them one atomic, so that nothing
//! is torn and nothing locked. Outstanding and finished share a word: taking a lease adds one, giving it back takes
//! one off below and adds one above in the same step.
//!
//! The latency is a peak-sensitive, exponentially weighted moving average (Finagle's `PeakEwma`, by way of linkerd and
//! tower): a sample above it replaces it, one below it pulls it down by the time that has passed since the last one.
//! Value and time stand in one word: 24 bits of an `f32`, which are exact to 2^-17, and 40 bits of ticks, which come round
//! after 2.28 years. Till then nothing that wore out comes back.
//!
//! # Ordering
//! - *The word* is changed by `SeqCst` read-modify-writes only. Who finds it flagged [`LEAVING`] sees the table that was
//!   stored before the flag. Who gives a lease back and then reads an event's flag is in the single order with a waiter
//!   that raised its flag and then looks for room (the store-load pair of [`sim_core::event`]).
//! - *Estimates and counts* are `Relaxed`: nothing else is read on their account.

use std::time::Duration;

use sim_core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use sim_core::time::Instant;

use crate::message::Feedback;

/// One lease in the word.
const ONE: u64 = 1;
/// The bits of the word that count leases: 24, of which a limit may use [`MOST_OUTSTANDING`].
const OUTSTANDING: u64 = (1 << 24) - 1;
/// The target was deregistered: nobody enters any more, but for who sticks to it.
const LEAVING: u64 = 1 << 24;
/// It was reported as drained, once: nobody enters any more.
const DRAINED: u64 = 1 << 25;
/// One finished request in the word.
const FINISHED: u64 = 1 << 26;
/// The finished requests must be carried over before they overflow: after 2^37 of them.
const CARRY: u64 = 1 << 63;

/// The most leases of one target at a time, and what a target without a limit has: 2^23.
///
/// The counter is twice as wide, for those who enter, find the limit and leave again.
pub const MOST_OUTSTANDING: u32 = 1 << 23;

/// A tick of the estimates' clock, as a power of two of nanoseconds: 65.5 us.
const TICK: u32 = 16;

/// The bits of a tick beside a value in one word: they last 2.28 years.
const TICKS: u64 = (1 << 40) - 1;

/// By how many ticks the clock of another processor may be ahead: 69 s, far more than any is. What seems to be further in
/// the future is the past.
const AHEAD: u64 = 1 << 20;

/// The ticks without a report after which a target is new again: 180 s, gRPC's expiration.
const REPORT_PAUSE: u64 = 180_000_000_000_u64 >> TICK;

/// The load of one target. It outlives the tables in which the target stands.
///
/// In this order: what a pick touches stands first, and on one line.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Load {
    /// Leases, flags and finished requests; see the constants.
    word: AtomicU64,
    /// The latency in nanoseconds, and the tick of the last sample, as [`stamped`]. Zero: none.
    latency: AtomicU64,
    /// Failures since the last success.
    run: AtomicU32,
    /// Of these, those since the last answer: connections refused or cut, times out.
    unreachable_run: AtomicU32,
    /// The most leases at a time.
    limit: u32,
    /// What the target told of itself: requests in flight in the upper half, latency as an `f32` below. Zero: nothing.
    server: AtomicU64,
    /// When it did: the tick.
    server_at: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    /// Finished requests carried over from the word.
    carried: AtomicU64,
    /// What it reports to serve by its utilization, and the tick when it did so last, as [`stamped`]. Zero: nothing.
    report: AtomicU64,
    /// Since when it reports without a long pause: the tick.
    report_since: AtomicU64,
}

/// Why a target cannot be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Barred {
    /// It has all that it may have in hand.
    Saturated,
    /// It was deregistered.
    Leaving,
}

/// How a lease is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Its request was finished, well or not.
    Finished,
    /// It was not.
    Unfinished,
}

/// What is to be done after a lease was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Nothing.
    Nothing,
    /// There is room where there was none: a waiter may have it.
    Room,
    /// The target is leaving and may be drained now, or its count must be carried over.
    Settle,
}

/// Who enters a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Anybody.
    New,
    /// Who sticks to the target, even while it is leaving.
    Sticking,
}

/// How a latency is weighted over time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Decay {
    /// One over the time constant in ticks.
    rate: f32,
    /// For so many ticks nothing wears out: a 64th of the time constant, in which nothing happens that matters; all of it for
    /// a plain average.
    fresh: u64,
    /// From so many ticks on it does: at once, or after the time constant for a plain average.
    from: u64,
    /// For so many ticks no other sample is averaged in: a 1,024th of the time constant. An average of as many samples is
    /// as good as one of all, and most requests then only read.
    rest: u64,
    /// Whether a sample above the average replaces it.
    peak: bool,
}

impl Decay {
    /// Peak-sensitive, with a time constant.
    pub(crate) fn peak(time: Duration) -> Self {
        Self::new(time, true)
    }

    /// A plain average with a time constant.
    pub(crate) fn mean(time: Duration) -> Self {
        Self::new(time, false)
    }

    fn new(time: Duration, peak: bool) -> Self {
        let ticks = (time.as_nanos() >> TICK).max(1);
        let part = |of: u128| u64::try_from(ticks / of).map_or(TICKS, |part| part.min(TICKS));
        Self {
            rate: 1.0 / ticks as f32,
            fresh: if peak { part(64) } else { part(1) },
            from: if peak { 0 } else { part(1) },
            rest: part(1024).max(1),
            peak,
        }
    }
}

/// About e^-x for `x >= 0`: exact to 2 % below 1.2, and too large by at most 0.04 beyond.
#[inline]
fn decayed(x: f32) -> f32 {
    1.0 / (1.0 + x * (1.0 + x * (0.5 + x * (1.0 / 6.0))))
}

/// The tick of a time, since the clock began.
#[inline]
pub(crate) fn tick(now: Instant) -> u64 {
    now.as_nanos() >> TICK
}

/// How many ticks have passed from one to another, either of them possibly without its upper bits; zero when the former
/// is ahead by little.
#[inline]
pub(crate) fn passed(now: u64, then: u64) -> u64 {
    let passed = now.wrapping_sub(then) & TICKS;
    if passed > TICKS - AHEAD { 0 } else { passed }
}

/// A value that is not negative beside a tick: rounded to the upper 24 bits, and the lower 40.
#[inline]
fn stamped(value: f32, tick: u64) -> u64 {
    // The sign is zero, and does not stand there.
    let value = u64::from(value.to_bits().saturating_add(0x40) >> 7);
    (value << 40) | (tick & TICKS)
}

/// A value as precise as it is kept.
pub(crate) fn rounded(value: f32) -> f32 {
    value_of(stamped(value, 0))
}

/// The value of a word made by [`stamped`].
#[inline]
fn value_of(word: u64) -> f32 {
    f32::from_bits(((word >> 40) as u32) << 7)
}

#[inline]
fn pack(high: u32, low: u32) -> u64 {
    (u64::from(high) << 32) | u64::from(low)
}

/// What a target told of itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ServerLoad {
    /// Requests in flight there.
    pub(crate) in_flight: u32,
    /// Its own latency, in nanoseconds; zero when it told none.
    pub(crate) latency: f32,
    /// How long ago it told, in nanoseconds, to the tick.
    pub(crate) age: u64,
}

/// What a target reported of its work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Report {
    /// Requests a second by utilization.
    pub(crate) weight: f32,
    /// When: the tick, without its upper bits.
    pub(crate) at: u64,
    /// Since when it reports: the tick.
    pub(crate) since: u64,
}

/// The counts of a target since it was registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) finished: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
}

impl Load {
    /// Makes the load of a target that has nothing in hand and may have `limit` requests.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            word: AtomicU64::new(0),
            latency: AtomicU64::new(0),
            run: AtomicU32::new(0),
            unreachable_run: AtomicU32::new(0),
            limit,
            server: AtomicU64::new(0),
            server_at: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            carried: AtomicU64::new(0),
            report: AtomicU64::new(0),
            report_since: AtomicU64::new(0),
        }
    }

    /// Leases out now.
    #[inline]
    pub(crate) fn outstanding(&self) -> u32 {
        (self.word.load(Ordering::Relaxed) & OUTSTANDING) as u32
    }

    /// The most leases at a time.
    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// Whether there is no room for another lease: for who may go to sleep on it.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        (self.word.load(Ordering::SeqCst) & OUTSTANDING) as u32 >= self.limit
    }

    /// Takes a lease.
    ///
    /// Who is barred from a target that leaves has been in the count for a moment: what its leaving means comes back
    /// with the reason. Nobody is in the count who is only found to be one too many: waiters that look for room would
    /// see each other, and wake each other for nothing.
    #[inline]
    pub(crate) fn enter(&self, entry: Entry) -> Result<(), (Barred, After)> {
        if self.limit != MOST_OUTSTANDING {
            return self.enter_limited(entry);
        }
        let former = self.word.fetch_add(ONE, Ordering::SeqCst);
        if former & (LEAVING | DRAINED) == 0 && (former & OUTSTANDING) < u64::from(self.limit) {
            return Ok(());
        }
        self.enter_slow(former, entry)
    }

    #[cold]
    fn enter_slow(&self, former: u64, entry: Entry) -> Result<(), (Barred, After)> {
        match self.bar(former, entry) {
            None => Ok(()),
            Some(Barred::Leaving) => Err((Barred::Leaving, self.exit(Exit::Unfinished))),
            Some(Barred::Saturated) => {
                let _ = self.exit(Exit::Unfinished);
                Err((Barred::Saturated, After::Nothing))
            }
        }
    }

    /// With a limit that is likely to be met.
    #[inline]
    fn enter_limited(&self, entry: Entry) -> Result<(), (Barred, After)> {
        let mut word = self.word.load(Ordering::SeqCst);
        loop {
            if let Some(barred) = self.bar(word, entry) {
                return Err((barred, After::Nothing));
            }
            match self.word.compare_exchange_weak(
                word,
                word + ONE,
                Ordering::SeqCst,
                Ordering::SeqCst,
            ) {
                Ok(_) => return Ok(()),
                Err(found) => word = found,
            }
        }
    }

    /// What stands against another lease.
    #[inline]
    fn bar(&self, word: u64, entry: Entry) -> Option<Barred> {
        if word & DRAINED != 0 || (word & LEAVING != 0 && entry == Entry::New) {
            return Some(Barred::Leaving);
        }
        ((word & OUTSTANDING) as u32 >= self.limit).then_some(Barred::Saturated)
    }

    /// Gives a lease back.
    #[inline]
    pub(crate) fn exit(&self, exit: Exit) -> After {
        let step = match exit {
            Exit::Finished => FINISHED.wrapping_sub(ONE),
            Exit::Unfinished => ONE.wrapping_neg(),
        };
        let former = self.word.fetch_add(step, Ordering::SeqCst);
        if former & (LEAVING | CARRY) != 0 {
            return After::Settle;
        }
        if (former & OUTSTANDING) as u32 >= self.limit {
            return After::Room;
        }
        After::Nothing
    }

    /// Bars the target for all but those who stick to it. Called after the table without it was stored.
    pub(crate) fn begin_leaving(&self) {
        self.word.fetch_or(LEAVING, Ordering::SeqCst);
    }

    /// Whether the target is leaving and has nothing in hand, told to one caller alone: from then on nobody enters.
    pub(crate) fn try_drain(&self) -> bool {
        let mut word = self.word.load(Ordering::SeqCst);
        loop {
            if word & LEAVING == 0 || word & (DRAINED | OUTSTANDING) != 0 {
                return false;
            }
            match self.word.compare_exchange(
                word,
                word | DRAINED,
                Ordering::SeqCst,
                Ordering::SeqCst,
            ) {
                Ok(_) => return true,
                Err(found) => word = found,
            }
        }
    }

    /// Whether [`begin_leaving`](Self::begin_leaving) was called.
    pub(crate) fn is_leaving(&self) -> bool {
        self.word.load(Ordering::SeqCst) & LEAVING != 0
    }

    /// Whether [`try_drain`](Self::try_drain) has succeeded.
    pub(crate) fn is_drained(&self) -> bool {
        self.word.load(Ordering::SeqCst) & DRAINED != 0
    }

    /// Carries finished requests over before their count overflows. Called under the lock under which counts are read.
    pub(crate) fn carry(&self) {
        if self.word.load(Ordering::SeqCst) & CARRY != 0 {
            self.carried.fetch_add(CARRY / FINISHED, Ordering::Relaxed);
            self.word.fetch_sub(CARRY, Ordering::SeqCst);
        }
    }

    /// The counts since registration; finished ones are exact under the lock under which they are carried over.
    pub(crate) fn counts(&self) -> Counts {
        let finished = self.word.load(Ordering::SeqCst) / FINISHED;
        Counts {
            finished: finished + self.carried.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            cancelled: self.cancelled.load(Ordering::Relaxed),
        }
    }

    /// Notes a success.
    #[inline]
    pub(crate) fn succeeded(&self) {
        // Read first: nearly always there is nothing to reset, and a line that is only read is shared.
        if self.run.load(Ordering::Relaxed) != 0 {
            self.run.store(0, Ordering::Relaxed);
        }
        self.answered();
    }

    /// Notes an answer, good or bad: the target can be reached.
    #[inline]
    pub(crate) fn answered(&self) {
        if self.unreachable_run.load(Ordering::Relaxed) != 0 {
            self.unreachable_run.store(0, Ordering::Relaxed);
        }
    }

    /// Notes a failure, without judging by it.
    pub(crate) fn overloaded(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes a failure; returns how many there were in a row.
    pub(crate) fn failed(&self) -> u32 {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.run.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Notes that the target was not reached; returns how often in a row.
    pub(crate) fn unreachable(&self) -> u32 {
        self.unreachable_run
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1)
    }

    /// Notes a cancelled request.
    #[inline]
    pub(crate) fn cancelled(&self) {
        self.cancelled.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a latency of so many nanoseconds into the average. Returns whether time has passed since the last one, or
    /// it is the first.
    #[inline]
    pub(crate) fn record(&self, sample: f32, now: Instant, decay: &Decay) -> bool {
        let at = tick(now);
        // Zero stands for no sample.
        let sample = sample.max(1.0);
        let mut found = self.latency.load(Ordering::Relaxed);
        loop {
            let average = value_of(found);
            let passed = passed(at, found);
            let next = if found == 0 || (decay.peak && sample > average) {
                sample
            } else if passed < decay.rest {
                // Another sample was taken just now, or the clock of another processor is a little ahead.
                return false;
            } else {
                let kept = decayed(passed as i64 as f32 * decay.rate);
                average * kept + sample * (1.0 - kept)
            };
            match self.latency.compare_exchange_weak(
                found,
                stamped(next, at),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(other) => found = other,
            }
        }
    }

    /// The average latency in nanoseconds, or zero when there was no sample yet. It wears out with the time since the last
    /// sample, so that a target that was slow once is tried again: a peak-sensitive one from then on, a plain one after
    /// the time constant.
    #[inline]
    pub(crate) fn cost(&self, now: u64, decay: &Decay) -> f32 {
        let found = self.latency.load(Ordering::Relaxed);
        let average = value_of(found);
        let passed = passed(now, found);
        if passed <= decay.fresh {
            return average;
        }
        average * decayed((passed - decay.from) as i64 as f32 * decay.rate)
    }

    /// Notes what the target told of itself.
    pub(crate) fn hear(&self, feedback: Feedback, now: Instant) {
        let latency = feedback.latency.map_or(0.0, |l| l.as_nanos() as f32);
        // One more, so that a target that told of nothing in flight has told something.
        let in_flight = feedback.in_flight.saturating_add(1);
        self.server_at.store(tick(now), Ordering::Relaxed);
        self.server
            .store(pack(in_flight, latency.to_bits()), Ordering::Relaxed);
        if let (Some(rate), Some(utilization)) = (feedback.rate, feedback.utilization) {
            self.take_report(rate, utilization, feedback.error_rate, now);
        }
    }

    /// Takes a report of work: gRPC's weight, with an error penalty of one (proposal A58). One that makes no sense is left
    /// out.
    fn take_report(&self, rate: f32, utilization: f32, error_rate: Option<f32>, now: Instant) {
        let failing = error_rate.unwrap_or(0.0).max(0.0) / rate;
        let weight = rate / (utilization + failing);
        if !(rate > 0.0 && utilization > 0.0 && weight.is_finite() && weight > 0.0) {
            return;
        }
        let at = tick(now);
        let former = self.report.load(Ordering::Relaxed);
        if former == 0 || passed(at, former) > REPORT_PAUSE {
            self.report_since.store(at, Ordering::Relaxed);
        }
        self.report.store(stamped(weight, at), Ordering::Relaxed);
    }

    /// What the target reported last.
    #[inline]
    pub(crate) fn reported(&self) -> Option<Report> {
        let found = self.report.load(Ordering::Relaxed);
        (found != 0).then(|| Report {
            weight: value_of(found),
            at: found,
            since: self.report_since.load(Ordering::Relaxed),
        })
    }

    /// What the target told of itself last.
    #[inline]
    pub(crate) fn server(&self, now: Instant) -> Option<ServerLoad> {
        let found = self.server.load(Ordering::Relaxed);
        if found == 0 {
            return None;
        }
        let passed = passed(tick(now), self.server_at.load(Ordering::Relaxed));
        Some(ServerLoad {
            in_flight: (found >> 32) as u32 - 1,
            latency: f32::from_bits(found as u32),
            age: passed << TICK,
        })
    }
}

/// The loads of the targets among which is chosen, by their place.
///
/// A trait for the sake of what it hides: tables know nothing of what the targets are.
pub(crate) trait Loads {
    /// How many there are.
    fn len(&self) -> usize;

    /// The load at a place below [`len`](Self::len).
    fn load(&self, index: usize) -> &Load;
}

impl Loads for [Load] {
    fn len(&self) -> usize {
        <[Load]>::len(self)
    }

    fn load(&self, index: usize) -> &Load {
        &self[index]
    }
}

impl Loads for Vec<Load> {
    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn load(&self, index: usize) -> &Load {
        &self[index]
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * SECOND)
    }

    #[test]
    fn a_lease_is_counted_until_it_is_given_back() {
        let load = Load::new(2);
        assert_eq!(load.enter(Entry::New), Ok(()));
        assert_eq!(load.enter(Entry::New), Ok(()));
        assert_eq!(load.outstanding(), 2);
        assert_eq!(
            load.enter(Entry::New),
            Err((Barred::Saturated, After::Nothing))
        );
        assert_eq!(load.outstanding(), 2);
        assert_eq!(load.exit(Exit::Finished), After::Room);
        assert_eq!(load.exit(Exit::Unfinished), After::Nothing);
        assert_eq!(load.outstanding(), 0);
        assert_eq!(load.counts().finished, 1);
    }

    #[test]
    fn a_target_that_leaves_is_drained_once_and_by_the_last() {
        let load = Load::new(MOST_OUTSTANDING);
        assert_eq!(load.enter(Entry::New), Ok(()));
        load.begin_leaving();
        assert!(!load.try_drain(), "one lease is out");
        assert_eq!(
            load.enter(Entry::New),
            Err((Barred::Leaving, After::Settle))
        );
        assert_eq!(load.enter(Entry::Sticking), Ok(()));
        assert_eq!(load.exit(Exit::Finished), After::Settle);
        assert!(!load.try_drain());
        assert_eq!(load.exit(Exit::Finished), After::Settle);
        assert!(load.try_drain());
        assert!(!load.try_drain());
        assert_eq!(
            load.enter(Entry::Sticking).map_err(|(barred, _)| barred),
            Err(Barred::Leaving)
        );
        assert_eq!(load.outstanding(), 0);
    }

    #[test]
    fn a_count_is_carried_over_before_it_overflows() {
        let load = Load::new(9);
        load.word
            .store((CARRY / FINISHED - 1) * FINISHED, Ordering::SeqCst);
        for _ in 0..2 {
            assert_eq!(load.enter(Entry::New), Ok(()));
            let _ = load.exit(Exit::Finished);
        }
        let before = load.counts().finished;
        assert_eq!(before, CARRY / FINISHED + 1);
        assert_eq!(load.enter(Entry::New), Ok(()));
        assert_eq!(load.exit(Exit::Unfinished), After::Settle);
        load.carry();
        assert_eq!(load.counts().finished, before);
        assert_eq!(load.enter(Entry::New), Ok(()));
        assert_eq!(load.exit(Exit::Finished), After::Nothing);
        assert_eq!(load.counts().finished, before + 1);
    }

    #[test]
    fn a_peak_counts_at_once_and_wears_out() {
        let decay = Decay::peak(Duration::from_secs(10));
        let load = Load::new(1);
        assert_eq!(load.cost(tick(at(1)), &decay), 0.0);
        assert!(load.record(1e6, at(1), &decay));
        assert!(load.record(5e6, at(1), &decay), "a peak");
        assert!(!load.record(1e6, at(1), &decay), "the same moment");
        let peak = load.cost(tick(at(1)), &decay);
        assert!((peak - 5e6).abs() < 50.0, "{peak}");
        // After one time constant a fast answer has pulled it down to about 1 + 4 / e.
        let worn = load.cost(tick(at(11)), &decay);
        assert!((1.7e6..2.0e6).contains(&worn), "{worn}");
        assert!(load.record(1e6, at(11), &decay));
        let average = load.cost(tick(at(11)), &decay);
        assert!((2.4e6..2.6e6).contains(&average), "{average}");
    }

    #[test]
    fn a_mean_takes_a_peak_by_its_share_and_does_not_wear_out_at_once() {
        let decay = Decay::mean(Duration::from_secs(10));
        let load = Load::new(1);
        assert!(load.record(1e6, at(1), &decay));
        assert!(load.record(5e6, at(2), &decay));
        let average = load.cost(tick(at(2)), &decay);
        assert!((1.3e6..1.5e6).contains(&average), "{average}");
        assert_eq!(load.cost(tick(at(11)), &decay), average);
    }

    #[test]
    fn a_peak_never_comes_back_and_a_sample_is_taken_however_long_it_is_ago() {
        const HOUR: u64 = 3_600;
        let decay = Decay::peak(Duration::from_secs(10));
        let load = Load::new(1);
        assert!(load.record(5e9, at(1), &decay));
        let worn = load.cost(tick(at(1 + HOUR)), &decay);
        assert!(worn < 1e5, "{worn}");
        for hours in [38, 40, 70, 79, 100, 24 * 365] {
            let cost = load.cost(tick(at(1 + hours * HOUR)), &decay);
            assert!(cost <= worn, "{cost} after {hours} h");
        }
        assert!(load.record(1e6, at(1 + 40 * HOUR), &decay));
        let average = load.cost(tick(at(1 + 40 * HOUR)), &decay);
        assert!((0.9e6..1.1e6).contains(&average), "{average}");
    }

    #[test]
    fn a_mean_wears_out_when_there_was_no_sample_for_long() {
        let decay = Decay::mean(Duration::from_secs(10));
        let load = Load::new(1);
        assert!(load.record(5e9, at(1), &decay));
        let mean = load.cost(tick(at(10)), &decay);
        assert!((mean - 5e9).abs() < 5e4, "{mean}");
        let worn = load.cost(tick(at(600)), &decay);
        assert!(worn < 1e6, "{worn}");
    }

    #[test]
    fn a_clock_that_is_a_little_behind_changes_nothing() {
        let decay = Decay::peak(Duration::from_secs(10));
        let load = Load::new(1);
        assert!(load.record(5e6, at(100), &decay));
        let cost = load.cost(tick(at(100)), &decay);
        assert_eq!(load.cost(tick(at(99)), &decay), cost);
        assert!(!load.record(1e6, at(99), &decay));
    }

    #[test]
    fn what_was_told_forty_hours_ago_is_old() {
        let load = Load::new(1);
        load.hear(Feedback::default(), at(1));
        let heard = load.server(at(1 + 40 * 3_600)).expect("it told");
        assert!(heard.age.abs_diff(40 * 3_600 * SECOND) < 1 << 17);
    }

    #[test]
    fn what_a_target_tells_of_itself_is_kept_with_its_age() {
        let load = Load::new(1);
        assert_eq!(load.server(at(1)), None);
        load.hear(
            Feedback {
                in_flight: 0,
                latency: Some(Duration::from_millis(3)),
                ..Feedback::default()
            },
            at(1),
        );
        let heard = load.server(at(3)).expect("it told");
        assert_eq!((heard.in_flight, heard.latency), (0, 3e6));
        assert!(heard.age.abs_diff(2 * SECOND) < 1 << 17);
    }
}
