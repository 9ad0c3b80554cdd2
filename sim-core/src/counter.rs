//! [`Counters`] and [`Counter`]: many threads add, somebody reads the sum now and then.

use std::fmt;

use crate::sync::CachePadded;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::stripe;

/// `N` counters that are bumped together, striped so that threads do not share a cache line.
///
/// # Algorithm
///
/// Each thread adds to the stripe that it was dealt ([`stripe::current`]); a sum reads all stripes (Dice, Lev
/// and Moir, "Scalable statistics counters", SPAA 2013, in its simplest form). The `N` counters of one stripe stand on
/// the same padded line: they belong to the same thread, and ten counters cost one line a stripe, not ten.
///
/// # Ordering
///
/// Relaxed throughout. Counts are never lost. A sum is exact for every addition that happened before it (by a
/// join, a lock, a channel); for those that race with it each is in the sum or not, and sums of two counters
/// are not one snapshot.
///
/// # Examples
///
/// ```
/// use sim_core::counter::Counters;
///
/// const SENT: usize = 0;
/// const RECEIVED: usize = 1;
///
/// let counters = Counters::<2>::new();
/// counters.add(SENT, 3);
/// counters.add(RECEIVED, 1);
/// assert_eq!(counters.sums(), [3, 1]);
/// ```
pub struct Counters<const N: usize> {
    /// Invariant: a power of two, at least one; thread `t` adds to `stripes[t % len]`.
    stripes: Box<[CachePadded<[AtomicU64; N]>]>,
}

impl<const N: usize> Counters<N> {
    /// Makes counters that stand at zero.
    #[must_use]
    pub fn new() -> Self {
        let stripes = (0..stripe::count())
            .map(|_| CachePadded::new(std::array::from_fn(|_| AtomicU64::new(0))))
            .collect();
        Self { stripes }
    }

    /// Adds `n` to the counter at `index`; wraps at 2^64.
    ///
    /// # Panics
    ///
    /// When `index` is not below `N`.
    #[inline]
    pub fn add(&self, index: usize, n: u64) {
        self.stripes[stripe::current() & (self.stripes.len() - 1)][index]
            .fetch_add(n, Ordering::Relaxed);
    }

    /// Reads the counter at `index`.
    ///
    /// # Panics
    ///
    /// When `index` is not below `N`.
    #[must_use]
    pub fn sum(&self, index: usize) -> u64 {
        self.stripes.iter().fold(0, |sum, stripe| {
            sum.wrapping_add(stripe[index].load(Ordering::Relaxed))
        })
    }

    /// Reads all of them.
    #[must_use]
    pub fn sums(&self) -> [u64; N] {
        std::array::from_fn(|index| self.sum(index))
    }
}

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Debug for Counters<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.sums()).finish()
    }
}

/// One striped counter; several that live together are cheaper as [`Counters`].
///
/// # Examples
///
/// ```
/// let counter = sim_core::counter::Counter::new();
/// counter.add(2);
/// assert_eq!(counter.sum(), 2);
/// ```
#[derive(Default)]
pub struct Counter(Counters<1>);

impl Counter {
    /// Makes a counter that stands at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `n`; wraps at 2^64.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.add(0, n);
    }

    /// Reads the sum.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.sum(0)
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counter").field(&self.sum()).finish()
    }
}
