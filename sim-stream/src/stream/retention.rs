//! What leaves the stream: by time, by bytes and by count; and what else is due by the clock.
//!
//! Nobody waits here: one caller at a time trims, others pass by. A put or a read trims a few chunks at most and leaves the
//! rest to the next ones; [`Stream::advance`](super::Stream::advance) trims all that is due. No reader sees a record whose
//! time is over, trimmed or not: it asks for the [horizon](Shared::horizon).
//!
//! # Ordering
//! A put that waits for room looks at the sums (`SeqCst`) after it has registered with `space`; who trims changes them by
//! a `SeqCst` read-modify-write, and then notifies. Who changes the retention stores it, and then `trim_at`; who trims stores
//! `trim_at`, and then looks at the retention again, all `SeqCst`: so no shard is left with the time of a former retention,
//! and nobody waits for who trims, which may be foreign code that drops values. A reader loads `trim_at` (`Acquire`) before
//! `over_at`, which is stored before it: so it does not hold a new time for the next trim against an old `over_at`.
//! Everything else is `Relaxed`: it says when to look, and what is looked at is the log.

use std::cmp::Reverse;
use std::time::Duration;

use sim_core::sync::atomic::{AtomicU64, Ordering};
use sim_core::time::Instant;

use super::shared::{Shard, Shared, Table, count, nanos};
use crate::config::WhenFull;
use crate::error::Refusal;

/// How many chunks one put or read lets go of at most.
const STEPS_OF_A_CALL: usize = 2;
/// A shard is not looked through for expired records more often than this, in nanoseconds.
const TRIM_PERIOD: u64 = 1_000_000;

impl<T: Send + Sync + 'static> Shared<T> {
    /// Looks after the stream from a put: what stands in memory, and what is due.
    #[cold]
    #[inline(never)]
    pub(crate) fn tidy(&self, shard: &Shard<T>, now: Instant) {
        self.note(shard);
        if self.table.load().is_on_demand && self.config.limits.throughput.is_none() {
            self.observe(shard, now);
        }
        if now.as_nanos() >= shard.trim_at.load(Ordering::Relaxed) {
            self.expire(shard, now, STEPS_OF_A_CALL);
        }
        if self.config.when_full == WhenFull::TrimOldest && self.is_over() {
            self.evict(STEPS_OF_A_CALL);
        }
        self.serve_due(now);
    }

    /// Looks after a shard from a read that must not take long, and returns the position before which the time of all
    /// records is over: some of them may not be trimmed yet.
    #[inline]
    pub(crate) fn horizon(&self, shard: &Shard<T>, now: Instant) -> u64 {
        // Ordering: who sees this `trim_at` sees what was stored before.
        let over = if now.as_nanos() >= shard.trim_at.load(Ordering::Acquire) {
            self.expire(shard, now, STEPS_OF_A_CALL)
        } else if now.as_nanos() >= shard.over_at.load(Ordering::Relaxed) {
            // It is too early to trim again, but not to look.
            over(shard, self.retention(), now)
        } else {
            0
        };
        self.serve_due(now);
        over.max(shard.log.start())
    }

    /// Does what is due in the lineage.
    #[inline]
    pub(crate) fn serve_due(&self, now: Instant) {
        if now.as_nanos() >= self.due.load(Ordering::Relaxed) {
            self.serve_control(now);
        }
    }

    /// Does all that is due.
    pub(crate) fn serve(&self, now: Instant) {
        let table = self.table.load_arc();
        let is_observed = table.is_on_demand && self.config.limits.throughput.is_none();
        for shard in &table.all {
            if is_observed {
                self.observe(shard, now);
            }
            if now.as_nanos() >= shard.trim_at.load(Ordering::Relaxed) {
                self.expire(shard, now, usize::MAX);
            }
            if shard.len() == 0 {
                // It rests: what is left of its last chunk goes too.
                shard.log.shrink();
            }
            self.note(shard);
        }
        if self.config.when_full == WhenFull::TrimOldest && self.is_over() {
            self.evict(usize::MAX);
        }
        self.serve_due(now);
    }

    /// Whether something is left to do at `now`, because another thread was at it.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let is_over = |at: &AtomicU64| at.load(Ordering::Relaxed) <= now.as_nanos();
        let table = self.table.load();
        is_over(&self.due)
            || table
                .all
                .iter()
                .any(|shard| shard.len() > 0 && is_over(&shard.trim_at))
    }

    /// The earliest deadline of a record or a shard.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let table = self.table.load_arc();
        let retention = self.retention();
        table
            .all
            .iter()
            .filter_map(|shard| {
                let oldest = shard.oldest()?;
                // Looked at no earlier than the shard itself would.
                let trim_at = Instant::from_nanos(shard.trim_at.load(Ordering::Relaxed));
                Some((oldest + retention).max(trim_at))
            })
            .chain([Instant::from_nanos(self.due.load(Ordering::Relaxed))])
            .min()
            .filter(|deadline| !deadline.is_never())
    }

    /// Brings the sums up to date with what a shard holds now.
    pub(crate) fn note(&self, shard: &Shard<T>) {
        let bytes = shard.log.bytes() as u64;
        let former = shard.noted_bytes.swap(bytes, Ordering::Relaxed);
        // The differences of one shard add up to its last note, in whatever order they are added.
        self.held_bytes
            .fetch_add(bytes.wrapping_sub(former), Ordering::SeqCst);
        let records = shard.len();
        let former = shard.noted_records.swap(records, Ordering::Relaxed);
        self.held_records
            .fetch_add(records.wrapping_sub(former), Ordering::SeqCst);
    }

    /// The limit that the stream has reached, for a put that is to be refused then.
    pub(crate) fn full(&self) -> Option<Refusal> {
        let (records, bytes) = (self.config.max_records, self.config.max_bytes);
        if let Some(limit) = records
            && self.held_records.load(Ordering::SeqCst) >= limit
        {
            return Some(Refusal::Full {
                field: "max_records",
                limit,
            });
        }
        if let Some(limit) = bytes
            && self.held_bytes.load(Ordering::SeqCst) >= limit as u64
        {
            return Some(Refusal::Full {
                field: "max_bytes",
                limit: limit as u64,
            });
        }
        None
    }

    /// Whether the stream holds too much, by what was noted.
    fn is_over(&self) -> bool {
        let is_above = |held: &AtomicU64, limit| held.load(Ordering::SeqCst) > limit;
        let (records, bytes) = (self.config.max_records, self.config.max_bytes);
        records.is_some_and(|limit| is_above(&self.held_records, limit))
            || bytes.is_some_and(|limit| is_above(&self.held_bytes, limit as u64))
    }

    /// What the shards hold too much of.
    fn excess(&self, table: &Table<T>) -> Option<Excess> {
        if let Some(limit) = self.config.max_records {
            let held: u64 = table.all.iter().map(|shard| shard.len()).sum();
            if held > limit {
                return Some(Excess::Records(held - limit));
            }
        }
        let limit = self.config.max_bytes?;
        let held: usize = table.all.iter().map(|shard| shard.log.bytes()).sum();
        (held > limit).then_some(Excess::Bytes)
    }

    /// Trims the records of a shard whose time is over, a chunk at a time and at most `steps` of them. Returns the position
    /// behind the last of them, trimmed already or not.
    fn expire(&self, shard: &Shard<T>, now: Instant, steps: usize) -> u64 {
        let retention = self.retention();
        let over = over(shard, retention, now);
        let Some(trimming) = self.trimming.try_lock() else {
            return over;
        };
        let is_done = trim(shard, over, steps, count::EXPIRED);
        let (over_at, trim_at) = if is_done {
            // Whatever comes into an empty shard comes from now on.
            let next = (shard.oldest().unwrap_or(now) + retention).as_nanos();
            let soonest = now.as_nanos().saturating_add(TRIM_PERIOD);
            (next, next.max(soonest))
        } else {
            (now.as_nanos(), now.as_nanos())
        };
        shard.over_at.store(over_at, Ordering::Relaxed);
        shard.trim_at.store(trim_at, Ordering::SeqCst);
        // It may have been changed meanwhile, and this have come after the order to look again.
        if self.retention.load(Ordering::SeqCst) != nanos(retention) {
            shard.trim_at.store(0, Ordering::Relaxed);
        }
        drop(trimming);
        self.note(shard);
        self.space.notify_one();
        over
    }

    /// Trims the oldest records until the stream holds no more than it may, in at most `steps` steps.
    fn evict(&self, steps: usize) {
        let Some(trimming) = self.trimming.try_lock() else {
            return;
        };
        let table = self.table.load_arc();
        // Notes may be stale: two that cross leave the older figure until the next one. What is trimmed is decided by what
        // the shards hold.
        for shard in &table.all {
            self.note(shard);
        }
        for _ in 0..steps {
            let Some(excess) = self.excess(&table) else {
                break;
            };
            let oldest = table
                .all
                .iter()
                .filter_map(|shard| {
                    let end = match excess {
                        Excess::Records(count) => shard.log.start() + count.min(shard.len()),
                        // Memory comes back by the chunk, and the newest chunk of a log stays.
                        Excess::Bytes => shard.log.oldest_chunk_end()?,
                    };
                    Some((shard.oldest()?, shard, end))
                })
                .min_by_key(|(arrived, shard, _)| (*arrived, Reverse(shard.len()), shard.id));
            let Some((_, shard, end)) = oldest else {
                break;
            };
            let before = (shard.log.start(), shard.log.bytes());
            trim(shard, end, 1, count::EVICTED);
            self.note(shard);
            if (shard.log.start(), shard.log.bytes()) == before {
                // Somebody else is about to let go of it.
                break;
            }
        }
        drop(trimming);
        self.space.notify_one();
    }

    /// Changes how long records are kept.
    pub(crate) fn set_retention(&self, retention: Duration) {
        self.retention.store(nanos(retention), Ordering::SeqCst);
        for shard in &self.table.load_arc().all {
            shard.trim_at.store(0, Ordering::SeqCst);
        }
        // Who waits for room waits for the next record's end.
        self.space.retime();
    }
}

enum Excess {
    Records(u64),
    Bytes,
}

/// The position behind the last record whose time is over.
fn over<T: Send + Sync + 'static>(shard: &Shard<T>, retention: Duration, now: Instant) -> u64 {
    shard
        .log
        .partition_point(|stored, _| stored.arrived + retention <= now)
}

/// Trims a shard up to `end`, a chunk at a time; whether that was done within `steps`.
fn trim<T: Send + Sync + 'static>(
    shard: &Shard<T>,
    end: u64,
    steps: usize,
    counter: usize,
) -> bool {
    for _ in 0..steps {
        let start = shard.log.start();
        if start >= end {
            // It may hold a chunk that was the newest when it was trimmed.
            shard.log.trim_to(start);
            return true;
        }
        let to = shard
            .log
            .oldest_chunk_end()
            .map_or(end, |chunk| chunk.min(end));
        shard.log.trim_to(to.max(start + 1).min(end));
        let trimmed = shard.log.start() - start;
        shard.counters.add(counter, trimmed);
    }
    shard.log.start() >= end
}

#[cfg(test)]
mod tests {
    use sim_core::clock::Clock;
    use sim_core::time::Timestamp;

    use super::*;
    use crate::{PartitionKey, Record, Stream, StreamConfig};

    #[test]
    fn a_stale_note_trims_no_record() {
        let (clock, _) = Clock::virtual_at(Timestamp::from_unix_millis(0));
        let config = StreamConfig {
            max_records: Some(1_000),
            ..StreamConfig::new("s")
        };
        let stream = Stream::<u32>::with_clock(config, clock).unwrap();
        for n in 0..900 {
            let key = PartitionKey::new("k").unwrap();
            stream.try_put(Record::new(key, n)).unwrap();
        }
        let shared = stream.shared();
        let table = shared.table.load_arc();
        let shard = &table.all[0];
        shared.note(shard);
        // Two notes crossed: what was noted last was seen first.
        shard.noted_records.fetch_add(500, Ordering::SeqCst);
        shared.held_records.fetch_add(500, Ordering::SeqCst);
        assert!(shared.is_over());
        shared.evict(usize::MAX);
        assert_eq!((shard.log.start(), shard.len()), (0, 900));
        assert!(!shared.is_over(), "the note is right again");
    }
}
