//! Deadlines of leases: [`LeaseRing`] for those that share one duration, [`LeaseRings`] for a few durations.
//!
//! Most leases of one owner share a timeout, so they end in the order in which they were taken: a plain ring
//! holds them in order and costs a fraction of any timer structure. Odd deadlines go to the
//! [`Wheel`](crate::wheel::Wheel).
//!
//! # Algorithm
//!
//! Timers of one duration in a queue (Varghese and Lauck, "Hashed and hierarchical timing wheels", SOSP 1987,
//! section 3: with one interval a FIFO list is an ordered list), here a lock-free ring, with *lazy cancellation*: who
//! ends a lease leaves its entry where it is. A stale entry is recognised when it comes to the front, by the
//! generation in the key that it carries.
//!
//! ```text
//!   push: lock-free, many threads                      one thread at a time, under the lock
//!   ────────────────────────────► ring ── in batches ──► staged: at most 32 ──► due, stale, or moved out
//!                                                         │
//!                                       `front`: its first deadline, read without the lock
//! ```
//!
//! Entries leave the ring in batches, under a lock that pushes never take. The first deadline of the
//! batch is published in one word, so that asking whether anything is due is one load.
//!
//! # Order
//!
//! Threads that push at once may do so slightly out of order, since each reads the clock before it claims its
//! place. An entry never fires before its own deadline, because that is what is compared. It fires at the
//! latest when the deadlines of all entries that were pushed before it have passed. So what was
//! overtaken by a later deadline fires late by at most the difference: by the time that passed in the other
//! thread's favour between reading the clock and pushing, nanoseconds as a rule, a scheduler's time slice
//! at worst. The time told by [`next`](LeaseRing::next) keeps the same rule.
//!
//! # Bound
//!
//! Stale entries behind a live one are not seen by [`trim`](LeaseRing::trim). When more than twice the live ones
//! and [`SLACK`] more stand in the ring ([`is_long`](LeaseRing::is_long)), [`overflow`](LeaseRing::overflow) takes
//! entries from the front, live ones too, until it is short again; the live ones go where the caller puts them, to
//! the wheel. Each entry leaves once, so this costs O(1) an entry, and a few long leases do not keep the stale
//! entries of millions of short ones in memory. A caller that tends the ring after every [`TEND_EVERY`] pushes with
//! a budget of twice as many keeps it, and so its memory, within `2 * live + SLACK`, and what was pushed between
//! two tendings.
//!
//! # Ordering
//!
//! `front` is written under the lock and read without it, all relaxed. What needs an order is one thing: an entry
//! that moves from the ring to the staged ones must not be overlooked by a reader that finds `front` empty, and
//! then the ring. `front` is set to zero ("look under the lock") before entries are taken out of the ring, and the
//! ring's claim is a sequentially consistent read-modify-write, which releases that store. A reader that finds the
//! ring empty because of the claim has acquired it (the ring's `is_empty` loads the head `SeqCst`), so the
//! second look that it takes at `front` cannot find anything older than the zero.
//! An entry that is moved out is in its new place before `front` moves on: who asks the ring first and the new
//! place second overlooks none.

use std::fmt;
use std::time::Duration;

use crate::ring::Unbounded;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{CachePadded, Mutex};
use crate::time::Instant;

/// How many entries may stand in a ring beside twice the live ones before it counts as long.
///
/// Twice a batch: what is staged fits in it. (Under loom no more than that, so that one entry is long.)
pub const SLACK: usize = if cfg!(loom) { BATCH } else { 2 * BATCH };
/// After how many pushes a ring should be tended, with a budget of twice as many.
pub const TEND_EVERY: u64 = 32;

/// The most entries that are taken out of the ring at once.
#[cfg(not(loom))]
const BATCH: usize = 32;
/// Small, so that a model reaches the second batch.
#[cfg(loom)]
const BATCH: usize = 2;

/// `front` when nothing is staged: whether anything stands here, the ring tells.
const NOTHING: u64 = u64::MAX;
/// The latest deadline that an entry can have.
const LAST: u64 = NOTHING - 1;
/// `front` while entries move from the ring to the staged ones. Before every deadline, so that who reads it
/// looks under the lock.
const MOVING: u64 = 0;

/// The deadlines of leases that share one duration, in the order in which they were taken.
///
/// An entry is a deadline and a word of the caller's, which names the lease (a slot and its generation).
/// [`push`](Self::push) is lock-free; what takes entries out goes through a short lock, one thread at a time.
///
/// # Examples
///
/// ```
/// use sim_core::deadline::LeaseRing;
/// use sim_core::time::Instant;
///
/// let at = Instant::from_nanos;
/// let ring = LeaseRing::new();
/// ring.push(at(100), 1);
/// ring.push(at(200), 2);
/// ring.push(at(300), 3);
///
/// // The first lease has ended in the meantime: its entry is dropped when it comes to the front.
/// assert_eq!(ring.trim(|_, lease| lease != 1, 64), 1);
/// assert_eq!(ring.next(), Some(at(200)));
/// assert_eq!(ring.pop_due(at(250)), Some((at(200), 2)));
/// assert_eq!(ring.pop_due(at(250)), None);
/// ```
pub struct LeaseRing {
    ring: Unbounded<u64, u64>,
    leaving: CachePadded<Leaving>,
}

/// The side on which entries leave.
struct Leaving {
    /// The first deadline in `staged`, [`NOTHING`] or [`MOVING`]. Written under the lock only.
    front: AtomicU64,
    /// Entries taken out of the ring and not yet due, in its order. Invariant: all of them were pushed before
    /// all that stand in the ring.
    staged: Mutex<Staged>,
}

/// At most [`BATCH`] entries that leave in order, and are only added to when none is left.
struct Staged {
    /// Allocated at the first use. Invariant: those in `start..end` are there.
    entries: Box<[Leaver]>,
    start: usize,
    end: usize,
}

#[derive(Clone, Copy, Default)]
struct Leaver {
    deadline: u64,
    low: u64,
}

impl LeaseRing {
    /// Makes an empty ring; allocates nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ring: Unbounded::new(),
            leaving: CachePadded::new(Leaving {
                front: AtomicU64::new(NOTHING),
                staged: Mutex::new(Staged {
                    entries: Box::default(),
                    start: 0,
                    end: 0,
                }),
            }),
        }
    }

    /// Notes a deadline, which should be no earlier than those noted before; `low` names the lease.
    ///
    /// Returns how many were pushed before it in all; whoever gets a multiple of [`TEND_EVERY`] should tend the
    /// ring. Lock-free. [`Instant::NEVER`] counts as the instant before it; what never ends needs no entry.
    #[inline]
    pub fn push(&self, deadline: Instant, low: u64) -> u64 {
        // Never refused: this ring is not closed.
        self.ring
            .push_keyed(deadline.as_nanos().min(LAST), low)
            .unwrap_or_default()
    }

    /// Notes one deadline for several leases with one claim; returns how many were pushed before them in all.
    ///
    /// # Panics
    ///
    /// When the iterator does; what it had yielded is noted. It must not use this ring.
    #[inline]
    pub fn push_batch(&self, deadline: Instant, lows: impl ExactSizeIterator<Item = u64>) -> u64 {
        let deadline = deadline.as_nanos();
        self.ring
            .push_batch_keyed(&mut lows.map(|low| (deadline, low)))
            .0
    }

    /// The deadline of the entry at the front, stale or not; `None` when there is none.
    ///
    /// No entry is due before it. One load, unless the front is not known yet.
    #[inline]
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        match self.front() {
            Front::At(deadline) => Some(Instant::from_nanos(deadline)),
            Front::Nothing => None,
            Front::Unknown => self.next_locked(),
        }
    }

    /// Takes the entry at the front if its deadline is at or before `now`.
    ///
    /// The lease that it names may have ended, or have been prolonged: the caller looks. Call it until it returns
    /// `None`. One load when nothing is due.
    #[inline]
    #[must_use = "the entry is gone from the ring"]
    pub fn pop_due(&self, now: Instant) -> Option<(Instant, u64)> {
        match self.front() {
            Front::At(deadline) if deadline > now.as_nanos() => None,
            Front::Nothing => None,
            Front::At(_) | Front::Unknown => self.pop_due_locked(now),
        }
    }

    /// Drops stale entries from the front and returns how many; stops at the first live one, or after `max`.
    ///
    /// `is_live` gets the deadline and the lease's word, and tells whether that lease still ends then.
    /// It runs under the lock: it should be short and must not use this ring. Does nothing when another thread
    /// is at it.
    pub fn trim(&self, mut is_live: impl FnMut(Instant, u64) -> bool, max: usize) -> usize {
        let Some(mut staged) = self.leaving.staged.try_lock() else {
            return 0;
        };
        let mut leaving = self.leave(&mut staged);
        let mut dropped = 0;
        while dropped < max
            && let Some(entry) = leaving.first()
            && !is_live(Instant::from_nanos(entry.deadline), entry.low)
        {
            leaving.staged.start += 1;
            dropped += 1;
        }
        dropped
    }

    /// Whether more stands here than `live` leases justify: more than twice as many and [`SLACK`].
    #[inline]
    #[must_use]
    pub fn is_long(&self, live: usize) -> bool {
        // As if the batch were full: so the answer needs no lock and errs by less than a batch.
        self.ring.len().saturating_add(BATCH) > Self::limit(live)
    }

    /// Takes entries from the front while the ring [is long](Self::is_long), at most `max`, and returns how many: the
    /// stale ones are dropped, the live ones passed to `move_out`, which must note them elsewhere.
    ///
    /// Both closures run under the lock: they should be short and must not use this ring. Does nothing when
    /// another thread is at it.
    pub fn overflow(
        &self,
        live: usize,
        mut is_live: impl FnMut(Instant, u64) -> bool,
        max: usize,
        mut move_out: impl FnMut(Instant, u64),
    ) -> usize {
        let Some(mut staged) = self.leaving.staged.try_lock() else {
            return 0;
        };
        let mut leaving = self.leave(&mut staged);
        let mut taken = 0;
        while taken < max
            && self.is_long(live)
            && let Some(entry) = leaving.first()
        {
            let deadline = Instant::from_nanos(entry.deadline);
            if is_live(deadline, entry.low) {
                move_out(deadline, entry.low);
            }
            // Only now: a panic above leaves the entry here, and `front` moves on after it has its new place.
            leaving.staged.start += 1;
            taken += 1;
        }
        taken
    }

    /// How many entries stand here at most, stale ones included; takes no lock.
    #[inline]
    #[must_use]
    pub fn len_bound(&self) -> usize {
        self.ring.len().saturating_add(BATCH)
    }

    /// How many entries were ever pushed.
    #[inline]
    #[must_use]
    pub fn pushed(&self) -> u64 {
        self.ring.pushed()
    }

    /// How many entries stand here, stale ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        let staged = self.leaving.staged.lock();
        self.ring.len() + (staged.end - staged.start)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.front(), Front::Nothing)
    }

    fn limit(live: usize) -> usize {
        live.saturating_mul(2).saturating_add(SLACK)
    }

    /// What can be said about the front without the lock.
    #[inline]
    fn front(&self) -> Front {
        let front = &self.leaving.front;
        match front.load(Ordering::Relaxed) {
            MOVING => Front::Unknown,
            NOTHING if !self.ring.is_empty() => Front::Unknown,
            // The ring may be empty because its entries were taken out after the first look: a second one.
            NOTHING => match front.load(Ordering::Relaxed) {
                NOTHING => Front::Nothing,
                _ => Front::Unknown,
            },
            deadline => Front::At(deadline),
        }
    }

    #[cold]
    fn next_locked(&self) -> Option<Instant> {
        let mut staged = self.leaving.staged.lock();
        let entry = self.leave(&mut staged).first()?;
        Some(Instant::from_nanos(entry.deadline))
    }

    #[cold]
    fn pop_due_locked(&self, now: Instant) -> Option<(Instant, u64)> {
        let mut staged = self.leaving.staged.lock();
        let mut leaving = self.leave(&mut staged);
        let entry = leaving.first()?;
        if entry.deadline > now.as_nanos() {
            return None;
        }
        leaving.staged.start += 1;
        Some((Instant::from_nanos(entry.deadline), entry.low))
    }

    fn leave<'a>(&'a self, staged: &'a mut Staged) -> Session<'a> {
        Session {
            ring: &self.ring,
            front: &self.leaving.front,
            staged,
        }
    }
}

impl Default for LeaseRing {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for LeaseRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseRing")
            .field("next", &self.next())
            .finish_non_exhaustive()
    }
}

enum Front {
    At(u64),
    Nothing,
    Unknown,
}

/// One thread's turn under the lock; publishes the front when it ends, also by a panic.
struct Session<'a> {
    ring: &'a Unbounded<u64, u64>,
    front: &'a AtomicU64,
    staged: &'a mut Staged,
}

impl Session<'_> {
    /// The entry at the front, after taking a batch out of the ring if need be.
    #[inline]
    fn first(&mut self) -> Option<Leaver> {
        if self.staged.start == self.staged.end {
            self.fill();
        }
        self.staged.first()
    }

    fn fill(&mut self) {
        let Staged {
            entries,
            start,
            end,
        } = &mut *self.staged;
        (*start, *end) = (0, 0);
        if self.ring.is_empty() {
            return;
        }
        if entries.is_empty() {
            *entries = vec![Leaver::default(); BATCH].into();
        }
        // Before the entries leave the ring; see the module's `# Ordering`.
        self.front.store(MOVING, Ordering::Relaxed);
        self.ring.pop_batch(entries.len(), |entry| {
            entries[*end] = Leaver {
                deadline: entry.key,
                low: entry.value,
            };
            *end += 1;
        });
    }
}

impl Staged {
    #[inline]
    fn first(&self) -> Option<Leaver> {
        self.entries[..self.end].get(self.start).copied()
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let front = self.staged.first().map_or(NOTHING, |entry| entry.deadline);
        // A store only when something changed: all who take leases read this line.
        if self.front.load(Ordering::Relaxed) != front {
            self.front.store(front, Ordering::Relaxed);
        }
    }
}

/// How many durations have a ring of their own.
const LANES: usize = 4;
/// The duration of a lane that nobody uses yet.
const UNCLAIMED: u64 = 0;

/// A [`LeaseRing`] for each of a few durations; the rest belongs in the [`Wheel`](crate::wheel::Wheel).
///
/// The first four different durations get a ring each, for good: a ring whose duration changed would hold
/// late deadlines before early ones. Allocates nothing until the first push; takes about 2.5 KiB itself.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use sim_core::deadline::LeaseRings;
/// use sim_core::time::Instant;
///
/// let rings = LeaseRings::new(Duration::from_secs(30));
/// let now = Instant::ORIGIN;
/// for (lease, seconds) in [(1, 30), (2, 5)] {
///     let duration = Duration::from_secs(seconds);
///     if let Some(ring) = rings.ring(duration) {
///         ring.push(now + duration, lease);
///     }
/// }
/// let due = now + Duration::from_secs(5);
/// assert_eq!(rings.next(), Some(due));
/// assert_eq!(rings.pop_due(due), Some((due, 2)));
/// assert_eq!(rings.pop_due(due), None);
/// ```
pub struct LeaseRings {
    lanes: [Lane; LANES],
}

struct Lane {
    /// In nanoseconds, or [`UNCLAIMED`]. Invariant: set once; lanes are claimed in order.
    duration: AtomicU64,
    ring: LeaseRing,
}

impl LeaseRings {
    /// Makes rings of which the first belongs to `usual`.
    #[must_use]
    pub fn new(usual: Duration) -> Self {
        let rings = Self {
            lanes: std::array::from_fn(|_| Lane {
                duration: AtomicU64::new(UNCLAIMED),
                ring: LeaseRing::new(),
            }),
        };
        rings.ring(usual);
        rings
    }

    /// The ring for leases of this duration; `None` when it has none, so that the wheel must do. Lock-free.
    ///
    /// A duration of zero has none.
    #[inline]
    pub fn ring(&self, duration: Duration) -> Option<&LeaseRing> {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if nanos == UNCLAIMED {
            return None;
        }
        self.lanes
            .iter()
            .find(|lane| lane.belongs_to(nanos))
            .map(|lane| &lane.ring)
    }

    /// The rings that are in use.
    pub fn iter(&self) -> impl Iterator<Item = &LeaseRing> {
        let claimed = |lane: &&Lane| lane.duration.load(Ordering::Relaxed) != UNCLAIMED;
        self.lanes.iter().take_while(claimed).map(|lane| &lane.ring)
    }

    /// The earliest front of all rings.
    #[inline]
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.iter().filter_map(LeaseRing::next).min()
    }

    /// Takes the entry with the earliest deadline of all fronts if that is at or before `now`.
    #[inline]
    #[must_use = "the entry is gone from its ring"]
    pub fn pop_due(&self, now: Instant) -> Option<(Instant, u64)> {
        loop {
            let due = |ring: &LeaseRing| ring.next().filter(|&deadline| deadline <= now);
            let (_, ring) = self
                .iter()
                .filter_map(|ring| Some((due(ring)?, ring)))
                .min_by_key(|&(deadline, _)| deadline)?;
            // `None` when another thread was faster: look again.
            if let Some(entry) = ring.pop_due(now) {
                return Some(entry);
            }
        }
    }
}

impl Lane {
    /// Whether this lane has that duration, after claiming it if nobody has.
    #[inline]
    fn belongs_to(&self, nanos: u64) -> bool {
        match self.duration.load(Ordering::Relaxed) {
            UNCLAIMED => self
                .duration
                .compare_exchange(UNCLAIMED, nanos, Ordering::Relaxed, Ordering::Relaxed)
                .map_or_else(|found| found == nanos, |_| true),
            found => found == nanos,
        }
    }
}

impl fmt::Debug for LeaseRings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
