//! How many shards an on-demand stream needs, and what it takes.

use std::collections::VecDeque;

use sim_core::time::Instant;

use super::limits::{Advance, Exceeded};
use crate::config::OnDemandLimits;
use crate::error::Resource;

/// Into how many slots the doubling time is cut: with Kinesis's 15 minutes, a slot is a minute.
const SLOTS: u64 = 15;
/// Into how many parts the memory of peaks is cut: with Kinesis's 30 days, a part is a day.
const PARTS: u64 = 30;
/// Loads are kept in millionths of what one shard takes.
const ONE_SHARD: u128 = 1_000_000;

/// Follows the traffic of a stream: its capacity is double the highest peak that is remembered.
///
/// The rule is Kinesis's: a new stream has four shards; its capacity is double the highest peak of the last 30 days; and
/// a stream whose traffic more than doubles within 15 minutes is throttled. Both are one rule here: a peak counts from 15
/// minutes after it on, so the capacity doubles at most each 15 minutes. Traffic is averaged over a minute.
///
/// Memory: at most 16 minutes and 31 daily peaks. A peak counts for 30 to 31 days.
///
/// ```
/// use std::time::Duration;
/// use sim_core::time::Instant;
/// use sim_stream::OnDemandLimits;
/// use sim_stream::machine::on_demand::OnDemand;
///
/// let start = Instant::ORIGIN;
/// let mut stream = OnDemand::new(start, OnDemandLimits::default(), 4);
/// // A minute with 4 MiB a second.
/// stream.observe(start, 60 * (4 << 20), 60_000);
/// assert_eq!(stream.target(start + Duration::from_secs(60)), 4);
/// assert_eq!(stream.target(start + Duration::from_secs(15 * 60)), 8);
/// ```
#[derive(Debug, Clone)]
pub struct OnDemand {
    limits: OnDemandLimits,
    /// Nanoseconds of a slot, and of a part of the memory.
    slot: u64,
    part: u64,
    /// The slot that is going on.
    current: u64,
    /// What came in during it.
    bytes: u64,
    records: u64,
    /// Slots that are over but younger than the doubling time, each with its load. Ascending, at most `SLOTS`.
    recent: VecDeque<(u64, u64)>,
    /// The highest load of each part of the memory. Ascending, at most `PARTS + 1`.
    peaks: VecDeque<(u64, u64)>,
    /// What still passes at the present capacity.
    bytes_left: Advance,
    records_left: Advance,
}

impl OnDemand {
    /// A stream that becomes on-demand, with this many shards: a new one, or one that was provisioned and keeps its
    /// capacity as if it had had a peak of half of it.
    ///
    /// The limits were checked with [`StreamConfig::check`](crate::StreamConfig::check).
    #[must_use]
    pub fn new(now: Instant, limits: OnDemandLimits, shards: u32) -> Self {
        let nanos = |duration: std::time::Duration, parts: u64| {
            let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
            (nanos / parts).max(1)
        };
        let (slot, part) = (nanos(limits.doubling, SLOTS), nanos(limits.memory, PARTS));
        let mut peaks = VecDeque::new();
        if shards > limits.first_shards {
            let half = (u128::from(shards) * ONE_SHARD / 2) as u64;
            peaks.push_back((now.as_nanos() / part, half));
        }
        let mut stream = Self {
            limits,
            slot,
            part,
            current: now.as_nanos() / slot,
            bytes: 0,
            records: 0,
            recent: VecDeque::new(),
            peaks,
            bytes_left: Advance::new(now, 1, u64::MAX),
            records_left: Advance::new(now, 1, u64::MAX),
        };
        let (bytes, records) = stream.rates();
        stream.bytes_left = Advance::new(now, bytes, u64::MAX);
        stream.records_left = Advance::new(now, records, u64::MAX);
        stream
    }

    /// Counts what came in.
    pub fn observe(&mut self, now: Instant, bytes: u64, records: u64) {
        self.advance(now);
        self.bytes = self.bytes.saturating_add(bytes);
        self.records = self.records.saturating_add(records);
    }

    /// Lets records in and counts them, or nothing of them: what throttles a stream whose traffic more than doubles.
    ///
    /// # Errors
    /// The stream's capacity is used up. What is refused does not count as traffic.
    pub fn admit(&mut self, now: Instant, bytes: u64, records: u64) -> Result<(), Exceeded> {
        self.advance(now);
        let exceeded = |retry_at| Exceeded {
            resource: Resource::OnDemand,
            retry_at,
        };
        self.records_left.check(now, records).map_err(exceeded)?;
        self.bytes_left.check(now, bytes).map_err(exceeded)?;
        self.records_left.charge(now, records);
        self.bytes_left.charge(now, bytes);
        self.observe(now, bytes, records);
        Ok(())
    }

    /// Takes back what was just [admitted](Self::admit) and did not come in after all.
    pub fn give_back(&mut self, bytes: u64, records: u64) {
        self.records_left.give_back(records);
        self.bytes_left.give_back(bytes);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.records = self.records.saturating_sub(records);
    }

    /// How many shards the stream should have now.
    pub fn target(&mut self, now: Instant) -> u32 {
        self.advance(now);
        self.shards()
    }

    /// When the number of shards may change next without any more traffic, and is to be asked for again.
    #[must_use]
    pub fn next_change(&self) -> Option<Instant> {
        let going_on = (self.bytes > 0 || self.records > 0).then_some(self.current);
        let oldest = self.recent.front().map(|(slot, _)| *slot).or(going_on);
        let settles = oldest.map(|slot| slot.saturating_add(SLOTS).saturating_mul(self.slot));
        let forgets = self
            .peaks
            .front()
            .map(|(part, _)| part.saturating_add(PARTS + 1).saturating_mul(self.part));
        settles
            .into_iter()
            .chain(forgets)
            .min()
            .map(Instant::from_nanos)
    }

    fn shards(&self) -> u32 {
        let peak = self.peaks.iter().map(|(_, load)| *load).max().unwrap_or(0);
        let shards = (2 * u128::from(peak)).div_ceil(ONE_SHARD);
        u32::try_from(shards)
            .unwrap_or(u32::MAX)
            .clamp(self.limits.first_shards, self.limits.max_shards)
    }

    /// Bytes and records a second that the present capacity takes.
    fn rates(&self) -> (u64, u64) {
        let shards = u64::from(self.shards());
        // A rate above this would overflow the bucket, and is none.
        let rate = |one: u64| one.saturating_mul(shards).min(1 << 62);
        (
            rate(self.limits.shard_bytes),
            rate(self.limits.shard_records),
        )
    }

    /// Closes the slots that are over, remembers the peaks that count now, and forgets old ones.
    fn advance(&mut self, now: Instant) {
        let slot = now.as_nanos() / self.slot;
        if slot <= self.current {
            return;
        }
        let load = self.load();
        if load > 0 {
            self.recent.push_back((self.current, load));
        }
        (self.current, self.bytes, self.records) = (slot, 0, 0);
        while let Some(&(over, load)) = self.recent.front()
            && over.saturating_add(SLOTS) <= slot
        {
            self.recent.pop_front();
            let part = over.saturating_mul(self.slot) / self.part;
            match self.peaks.back_mut() {
                Some((last, peak)) if *last >= part => *peak = load.max(*peak),
                _ => self.peaks.push_back((part, load)),
            }
        }
        let part = now.as_nanos() / self.part;
        while let Some(&(oldest, _)) = self.peaks.front()
            && oldest.saturating_add(PARTS + 1) <= part
        {
            self.peaks.pop_front();
        }
        let (bytes, records) = self.rates();
        self.bytes_left.set_rate(now, bytes);
        self.records_left.set_rate(now, records);
    }

    /// The load of the slot that is going on, were it over: by bytes or by records, whichever is more.
    fn load(&self) -> u64 {
        let of = |sum: u64, shard: u64| {
            let full = u128::from(shard) * u128::from(self.slot);
            (u128::from(sum) * ONE_SHARD).saturating_mul(1_000_000_000) / full.max(1)
        };
        let load = of(self.bytes, self.limits.shard_bytes)
            .max(of(self.records, self.limits.shard_records));
        u64::try_from(load).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const DAY: u64 = 24 * 60;

    fn minute(minutes: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(60 * minutes)
    }

    fn stream() -> OnDemand {
        OnDemand::new(Instant::ORIGIN, OnDemandLimits::default(), 4)
    }

    /// A minute with `mib` MiB a second.
    fn load(stream: &mut OnDemand, at: u64, mib: u64) {
        stream.observe(minute(at), 60 * mib * MIB, 1);
    }

    #[test]
    fn a_new_stream_has_four_shards_and_keeps_them_without_traffic() {
        let mut stream = stream();
        assert_eq!(stream.target(minute(0)), 4);
        assert_eq!(stream.target(minute(365 * DAY)), 4);
        assert_eq!(stream.next_change(), None);
    }

    #[test]
    fn the_capacity_is_double_the_highest_peak() {
        let mut stream = stream();
        for (at, mib) in [(0, 3), (1, 7), (2, 5)] {
            load(&mut stream, at, mib);
        }
        assert_eq!(stream.target(minute(60)), 14);
    }

    #[test]
    fn records_count_like_bytes() {
        let mut stream = stream();
        stream.observe(minute(0), 1, 60 * 5_500);
        assert_eq!(stream.target(minute(60)), 11);
    }

    #[test]
    fn a_peak_counts_from_fifteen_minutes_after_it_on() {
        let mut stream = stream();
        load(&mut stream, 0, 4);
        assert_eq!(stream.next_change(), Some(minute(15)));
        assert_eq!(stream.target(minute(14)), 4);
        assert_eq!(stream.target(minute(15)), 8);
    }

    #[test]
    fn a_peak_is_forgotten_after_thirty_days() {
        let mut stream = stream();
        load(&mut stream, 0, 50);
        assert_eq!(stream.target(minute(30 * DAY)), 100);
        assert_eq!(stream.next_change(), Some(minute(31 * DAY)));
        assert_eq!(stream.target(minute(31 * DAY)), 4);
        assert_eq!(stream.next_change(), None);
    }

    #[test]
    fn a_stream_grows_to_its_maximum_and_no_further() {
        let mut stream = stream();
        load(&mut stream, 0, 5_000);
        assert_eq!(stream.target(minute(20)), 200);
    }

    #[test]
    fn a_provisioned_stream_keeps_its_capacity_when_it_becomes_on_demand() {
        let mut stream = OnDemand::new(minute(0), OnDemandLimits::default(), 37);
        assert_eq!(stream.target(minute(0)), 37);
        assert_eq!(stream.target(minute(30 * DAY)), 37);
        assert_eq!(stream.target(minute(31 * DAY)), 4);
    }

    #[test]
    fn traffic_that_more_than_doubles_within_fifteen_minutes_is_throttled() {
        let mut stream = stream();
        let second = |at: u64| Instant::ORIGIN + Duration::from_secs(at);
        // Double the four of a new stream at once: refused. Its capacity: taken.
        assert_eq!(stream.admit(second(0), 4 * MIB, 4), Ok(()));
        let refused = stream.admit(second(0), 4 * MIB, 4).unwrap_err();
        assert_eq!(refused.resource, Resource::OnDemand);
        assert_eq!(refused.retry_at, second(1));
        for at in 1..900 {
            assert_eq!(stream.admit(second(at), 4 * MIB, 4), Ok(()));
        }
        // Fifteen minutes later it takes eight, and still not sixteen.
        assert_eq!(stream.admit(second(900), 4 * MIB, 4), Ok(()));
        for _ in 0..2 {
            assert_eq!(stream.admit(second(901), 4 * MIB, 4), Ok(()));
        }
        assert!(stream.admit(second(901), 4 * MIB, 4).is_err());
        assert_eq!(stream.target(second(901)), 8);
    }

    #[test]
    fn what_is_given_back_passes_again_and_does_not_count() {
        let mut stream = stream();
        for _ in 0..1_000 {
            assert_eq!(stream.admit(minute(0), 4 * MIB, 4_000), Ok(()));
            stream.give_back(4 * MIB, 4_000);
        }
        assert_eq!(stream.next_change(), None);
        assert_eq!(stream.admit(minute(0), 4 * MIB, 4_000), Ok(()));
        assert!(stream.admit(minute(0), 4 * MIB, 4_000).is_err());
    }

    #[test]
    fn refused_traffic_does_not_count() {
        let mut stream = stream();
        for _ in 0..1_000 {
            let _ = stream.admit(minute(0), 100 * MIB, 1);
        }
        // One call passed in advance: 100 MiB in a minute.
        assert_eq!(stream.target(minute(15)), 4);
    }

    #[test]
    fn memory_is_bounded_through_a_year_of_traffic() {
        let mut stream = stream();
        for at in (0..365 * DAY).step_by(7) {
            load(&mut stream, at, 1 + at % 13);
            assert!(stream.recent.len() as u64 <= SLOTS);
            assert!(stream.peaks.len() as u64 <= PARTS + 1);
        }
        assert_eq!(stream.target(minute(365 * DAY)), 26);
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let mut stream = stream();
        stream.observe(minute(0), u64::MAX, u64::MAX);
        stream.observe(minute(0), u64::MAX, u64::MAX);
        assert_eq!(stream.target(Instant::from_nanos(u64::MAX - 1)), 4);
        stream.observe(Instant::NEVER, u64::MAX, u64::MAX);
        assert_eq!(stream.target(Instant::NEVER), 4);
    }

    proptest! {
        /// The oracle keeps every minute.
        #[test]
        fn the_target_is_that_of_an_oracle_that_remembers_everything(
            steps in prop::collection::vec((0..3 * DAY, 0..100_u64), 1..60),
        ) {
            let mut stream = stream();
            let (mut now, mut minutes) = (0, std::collections::BTreeMap::new());
            for (wait, mib) in steps {
                now += wait;
                load(&mut stream, now, mib);
                *minutes.entry(now).or_insert(0) += mib;
                let peak = minutes
                    .iter()
                    .filter(|(at, _)| **at + 15 <= now && **at / DAY + 31 > now / DAY)
                    .map(|(_, mib)| *mib)
                    .max();
                let expected = (2 * peak.unwrap_or(0)).clamp(4, 200);
                prop_assert_eq!(u64::from(stream.target(minute(now))), expected);
            }
        }

        #[test]
        fn nothing_changes_before_the_next_change(
            steps in prop::collection::vec((0..100_u64, 1..100_u64), 1..30),
        ) {
            let mut stream = stream();
            let mut now = 0;
            for (wait, mib) in steps {
                now += wait;
                load(&mut stream, now, mib);
            }
            let mut target = stream.target(minute(now));
            // Each minute and each day changes it at most once.
            let mut left = 2 * 30;
            while let Some(change) = stream.next_change() {
                prop_assert!(left > 0);
                left -= 1;
                let before = Instant::from_nanos(change.as_nanos() - 1);
                prop_assert_eq!(stream.clone().target(before), target);
                target = stream.target(change);
            }
            prop_assert_eq!(target, 4);
        }
    }
}
