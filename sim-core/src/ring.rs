//! Lock-free FIFO rings for many producers and many consumers.
//!
//! [`Bounded`] is one array of cells; [`Unbounded`] is a chain of segments that grows with what stands in it
//! and shrinks as it drains. Both give every element a *position*: 0, 1, 2, ... in the order in which the
//! elements are taken. Neither waits for an element or for room: waiting is [`event`](crate::event)'s.
//!
//! # Keys
//! `K = u64` gives each cell a key beside the value (a deadline, say) that [`Bounded::pop_if`] and
//! [`Bounded::front`] read without taking the element. `K = ()`, the default, costs no byte.
//!
//! # Closing
//! `close` ends pushing for good and leaves popping alone. It is a mark on the very index that pushes claim, so that
//! each push comes either before it, and is counted from then on, or is refused: nothing appears in a ring that
//! somebody saw closed and empty.
//!
//! # Progress
//! An operation claims its cells by one compare-and-swap on an index and then fills or empties them. Between
//! the two no code of the caller runs, except in the batch operations, where the caller's iterator or closure
//! does. A thread that is stopped between claim and completion holds back those who reach its cell, and
//! nobody else: as in every ring of this kind, operations are lock-free for the indices and not for a cell
//! that somebody else has claimed.
//!
//! # Visibility for waiters
//! Claims are `SeqCst`, and "empty" or "full" is only ever answered from a `SeqCst` load of the counterpart's
//! claimed index. A thread that claims and then loads a flag, and a thread that sets the flag and then looks
//! at the ring, both `SeqCst`, cannot miss each other.

mod bounded;
mod unbounded;

pub use bounded::{Batch, Bounded};
pub use unbounded::Unbounded;

use std::mem::MaybeUninit;

use crate::sync::{Backoff, Stamp, UnsafeCell};

/// An element with its position in the ring and its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry<T, K = ()> {
    /// How many elements were pushed into the ring before this one.
    pub position: u64,
    /// The key it was pushed with.
    pub key: K,
    /// The element.
    pub value: T,
}

/// What a cell carries beside its value: nothing (`()`) or a number (`u64`).
///
/// Sealed: the rings rely on a key's slot being valid when it is all zeroes.
pub trait Key: sealed::Sealed {}

impl Key for () {}
impl Key for u64 {}

mod sealed {
    use crate::sync::atomic::{AtomicU64, Ordering};
    use std::fmt::Debug;

    pub trait Sealed: Copy + Debug + Send + Sync + 'static {
        /// Where a cell keeps the key; all zeroes is a valid value.
        type Slot: Default + Send + Sync;

        /// Writes the key; only by who has claimed the cell, before it publishes the cell.
        fn store(self, slot: &Self::Slot);

        /// Reads the key; by anybody.
        fn load(slot: &Self::Slot) -> Self;
    }

    impl Sealed for () {
        type Slot = ();

        #[inline]
        fn store(self, (): &()) {}

        #[inline]
        fn load((): &()) -> Self {}
    }

    impl Sealed for u64 {
        type Slot = AtomicU64;

        // Release and Acquire: who peeks and reads the key of a later element must, when it looks at the
        // stamp again, see that the cell was freed in between (see "Ordering" in `bounded`).
        #[inline]
        fn store(self, slot: &AtomicU64) {
            slot.store(self, Ordering::Release);
        }

        #[inline]
        fn load(slot: &AtomicU64) -> Self {
            slot.load(Ordering::Acquire)
        }
    }
}

/// One place for an element.
///
/// No padding: neighbours share a cache line when they are small, which batches and a lone consumer profit
/// from, and large ones cost no more than they hold.
#[repr(C)]
struct Cell<T, K: Key> {
    /// Whose turn it is; each ring defines its values, and 0 is "never used" in both.
    ///
    /// Invariant: only the thread that claimed the cell stores it.
    stamp: Stamp,
    /// Written by the claiming producer before the stamp says that the cell is full; read by anybody.
    key: K::Slot,
    /// Accessed only by the thread that claimed the cell: the producer from its claim until it stores
    /// "full", the consumer from its claim, once it has loaded "full", until it stores "taken".
    value: UnsafeCell<MaybeUninit<T>>,
}

impl<T, K: Key> Cell<T, K> {
    /// A cell as zeroed memory would be; loom's atomics cannot be made from zeroes.
    #[cfg(loom)]
    fn vacant() -> Self {
        Self {
            stamp: Stamp::new(0),
            key: K::Slot::default(),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// Writes key and value.
    ///
    /// # Safety
    /// The caller has claimed the cell for filling, and has not published it.
    #[inline(always)]
    unsafe fn fill(&self, key: K, value: T) {
        key.store(&self.key);
        self.value.with_mut(|slot| {
            // SAFETY: the claim makes this thread the only one that accesses the value.
            unsafe { slot.cast::<T>().write(value) }
        });
    }

    /// Moves the value out.
    ///
    /// # Safety
    /// The caller has claimed the cell for emptying, has loaded its stamp as full (`Acquire`), and takes
    /// the value once.
    #[inline(always)]
    unsafe fn take(&self) -> (K, T) {
        let key = K::load(&self.key);
        // SAFETY: the claim makes this thread the only one that accesses the value, and the producer's
        // write happened before the stamp that was loaded.
        let value = self.value.with(|slot| unsafe { slot.cast::<T>().read() });
        (key, value)
    }
}

/// How a thread waits for another one inside an operation.
///
/// What is waited for is a few stores of a thread that is running, most of the time; giving up the processor
/// at once costs a time slice where it is shared. It is given up only when the other thread has likely lost its own.
struct Patience {
    backoff: Backoff,
    rounds: std::cell::Cell<u32>,
}

impl Patience {
    /// Rounds of spinning before the processor is given up: some tens of microseconds.
    const ROUNDS: u32 = 16;

    #[inline(always)]
    fn new() -> Self {
        Self {
            backoff: Backoff::new(),
            rounds: std::cell::Cell::new(0),
        }
    }

    /// After a lost race: somebody else made progress.
    #[inline(always)]
    fn spin(&self) {
        self.backoff.spin();
    }

    /// While a claimed cell is not yet published, or not yet freed.
    #[cold]
    fn snooze(&self) {
        let rounds = self.rounds.get();
        if rounds < Self::ROUNDS {
            self.rounds.set(rounds + 1);
            self.backoff.spin();
        } else {
            self.backoff.snooze();
        }
    }
}
