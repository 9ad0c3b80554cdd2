//! The one place that names atomics, cells, locks and threads: std's, or loom's under `cfg(loom)`.
//!
//! Every other module of the family imports them from here, so that a loom build replaces all of them at
//! once. A test of the workspace checks that no other file names `std::sync::atomic`, `UnsafeCell` or
//! `std::thread`.

#[cfg(not(loom))]
use crossbeam_utils::Backoff as StdBackoff;
pub use crossbeam_utils::CachePadded;

#[cfg(not(loom))]
pub use std::sync::{Arc, OnceLock, Weak};

#[cfg(loom)]
pub use loom::sync::Arc;

/// Atomic integers, pointers, orderings and fences.
pub mod atomic {
    #[cfg(not(loom))]
    pub use std::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };

    #[cfg(loom)]
    pub use loom::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
}

/// Threads: spawn, park, yield.
pub mod thread {
    #[cfg(not(loom))]
    pub use std::thread::{
        JoinHandle, Thread, available_parallelism, current, park, park_timeout, scope, spawn,
        yield_now,
    };

    #[cfg(loom)]
    pub use loom::thread::{JoinHandle, Thread, current, park, spawn, yield_now};
}

/// An [`AtomicU64`](atomic::AtomicU64) whose every access loom sees as a conflict.
///
/// loom 0.7 can miss interleavings in which a thread loads an atomic before it stores to it, as every
/// ring does with its stamps. Under `cfg(loom)` a load is `fetch_add(0)` and a store is `swap`, with the
/// caller's own ordering; otherwise they are what they say.
#[derive(Debug)]
#[repr(transparent)]
pub struct Stamp(atomic::AtomicU64);

impl Stamp {
    /// Makes a stamp that holds `value`.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(atomic::AtomicU64::new(value))
    }

    /// Makes a stamp that holds `value`.
    #[cfg(loom)]
    #[must_use]
    pub fn new(value: u64) -> Self {
        Self(atomic::AtomicU64::new(value))
    }

    /// Loads the value.
    #[inline]
    pub fn load(&self, order: atomic::Ordering) -> u64 {
        #[cfg(not(loom))]
        return self.0.load(order);
        #[cfg(loom)]
        return self.0.fetch_add(0, order);
    }

    /// Loads the value, under loom too by a plain load, which may be answered with an older value.
    ///
    /// For a second look, where it is the older value that would do harm.
    #[inline]
    pub fn look(&self, order: atomic::Ordering) -> u64 {
        self.0.load(order)
    }

    /// Stores a value.
    #[inline]
    pub fn store(&self, value: u64, order: atomic::Ordering) {
        #[cfg(not(loom))]
        self.0.store(value, order);
        #[cfg(loom)]
        self.0.swap(value, order);
    }

    /// Stores a value and returns the former one.
    #[inline]
    pub fn swap(&self, value: u64, order: atomic::Ordering) -> u64 {
        self.0.swap(value, order)
    }

    /// Replaces `current` by `new`, or returns what is there.
    ///
    /// # Errors
    /// The value found, when it is not `current`.
    #[inline]
    pub fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: atomic::Ordering,
        failure: atomic::Ordering,
    ) -> Result<u64, u64> {
        self.0.compare_exchange(current, new, success, failure)
    }

    /// Like [`compare_exchange`](Self::compare_exchange), but may fail without a cause.
    ///
    /// # Errors
    /// The value found.
    #[inline]
    pub fn compare_exchange_weak(
        &self,
        current: u64,
        new: u64,
        success: atomic::Ordering,
        failure: atomic::Ordering,
    ) -> Result<u64, u64> {
        self.0.compare_exchange_weak(current, new, success, failure)
    }

    /// Adds and returns the former value.
    #[inline]
    pub fn fetch_add(&self, value: u64, order: atomic::Ordering) -> u64 {
        self.0.fetch_add(value, order)
    }

    /// Subtracts and returns the former value.
    #[inline]
    pub fn fetch_sub(&self, value: u64, order: atomic::Ordering) -> u64 {
        self.0.fetch_sub(value, order)
    }

    /// Sets bits and returns the former value.
    #[inline]
    pub fn fetch_or(&self, value: u64, order: atomic::Ordering) -> u64 {
        self.0.fetch_or(value, order)
    }

    /// Clears the bits that are not in `value` and returns the former value.
    #[inline]
    pub fn fetch_and(&self, value: u64, order: atomic::Ordering) -> u64 {
        self.0.fetch_and(value, order)
    }
}

/// A link to a shared value that is set once and does not keep the value alive.
///
/// Reading it takes no lock. Under loom, which has no weak pointers, it is a strong one until
/// [`expire`](Self::expire) is called.
pub struct Link<T> {
    #[cfg(not(loom))]
    inner: OnceLock<Weak<T>>,
    #[cfg(loom)]
    inner: loom::sync::Mutex<Linked<T>>,
}

/// What a [`Link`] leads to.
#[derive(Debug)]
pub enum Linked<T> {
    /// Not set yet.
    Unset,
    /// It was set, and nobody else keeps the value any more.
    Gone,
    /// The value, kept alive by this.
    To(Arc<T>),
}

impl<T> Link<T> {
    /// Makes a link that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self {
            #[cfg(not(loom))]
            inner: OnceLock::new(),
            #[cfg(loom)]
            inner: loom::sync::Mutex::new(Linked::Unset),
        }
    }

    /// Sets the link, with `Release`. A second call does nothing.
    pub fn set(&self, value: &Arc<T>) {
        #[cfg(not(loom))]
        let _ = self.inner.set(Arc::downgrade(value));
        #[cfg(loom)]
        {
            let mut inner = self.lock();
            if matches!(*inner, Linked::Unset) {
                *inner = Linked::To(Arc::clone(value));
            }
        }
    }

    /// Follows the link, with `Acquire`.
    #[must_use]
    pub fn follow(&self) -> Linked<T> {
        #[cfg(not(loom))]
        match self.inner.get() {
            None => Linked::Unset,
            Some(weak) => weak.upgrade().map_or(Linked::Gone, Linked::To),
        }
        #[cfg(loom)]
        match &*self.lock() {
            Linked::Unset => Linked::Unset,
            Linked::Gone => Linked::Gone,
            Linked::To(value) => Linked::To(Arc::clone(value)),
        }
    }

    /// For models: called where the value's keeper lets it go. Nothing otherwise.
    pub fn expire(&self) {
        #[cfg(loom)]
        {
            let former = std::mem::replace(&mut *self.lock(), Linked::Gone);
            drop(former);
        }
    }

    #[cfg(loom)]
    fn lock(&self) -> loom::sync::MutexGuard<'_, Linked<T>> {
        self.inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<T> Default for Link<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> std::fmt::Debug for Link<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

/// An `UnsafeCell` with loom's interface: access goes through a closure that gets the pointer.
#[cfg(not(loom))]
#[derive(Debug)]
#[repr(transparent)]
pub struct UnsafeCell<T: ?Sized>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Calls `f` with a pointer for reading.
    #[inline(always)]
    pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    /// Calls `f` with a pointer for writing.
    #[inline(always)]
    pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }

    /// Unwraps the value.
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

#[cfg(loom)]
pub use loom::cell::UnsafeCell;

/// A mutex without poisoning: parking_lot's, or loom's in the same clothes.
#[cfg(not(loom))]
pub use parking_lot::{Mutex, MutexGuard};

#[cfg(loom)]
pub use self::loom_mutex::{Mutex, MutexGuard};

/// A condition variable, for models alone: threads park on their own token.
#[cfg(loom)]
pub use loom::sync::Condvar;

#[cfg(loom)]
mod loom_mutex {
    pub use loom::sync::MutexGuard;

    /// loom's mutex with parking_lot's interface.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        /// Wraps a value.
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        /// Locks.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
        }

        /// Locks if nobody else does.
        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }
}

/// Exponential back-off for a loop that waits on another thread's next step; loom's yield under loom.
#[derive(Debug, Default)]
pub struct Backoff {
    #[cfg(not(loom))]
    inner: StdBackoff,
}

impl Backoff {
    /// Starts afresh.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Backs off after a lost compare-and-swap: somebody else made progress.
    #[inline]
    pub fn spin(&self) {
        #[cfg(not(loom))]
        self.inner.spin();
        #[cfg(loom)]
        loom::thread::yield_now();
    }

    /// Backs off while another thread must move first: spins, then yields the processor.
    #[inline]
    pub fn snooze(&self) {
        #[cfg(not(loom))]
        self.inner.snooze();
        #[cfg(loom)]
        loom::thread::yield_now();
    }
}

/// Which stripe of a striped structure the current thread uses.
///
/// Threads are numbered as they first ask, so threads started together get different stripes. Under loom there
/// is one stripe: striping spreads load and adds no interleaving that one stripe has not.
pub mod stripe {
    /// The most stripes that a structure needs: beyond eight the reader's walk costs more than it saves.
    #[cfg(not(loom))]
    const MOST: usize = 8;

    /// How many stripes are worth having here: a power of two, from the machine's parallelism, at most eight.
    #[cfg(not(loom))]
    pub fn count() -> usize {
        static COUNT: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
        *COUNT.get_or_init(|| {
            // Asked once: the answer costs several system calls.
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            cores.min(MOST).next_power_of_two()
        })
    }

    /// One stripe.
    #[cfg(loom)]
    pub fn count() -> usize {
        1
    }

    /// The current thread's number: dense, in order of first use. Take it modulo a number of stripes.
    #[cfg(not(loom))]
    #[inline]
    pub fn current() -> usize {
        use std::cell::Cell;
        use std::sync::atomic::{AtomicUsize, Ordering};

        static NEXT: AtomicUsize = AtomicUsize::new(0);
        const UNSET: usize = usize::MAX;
        std::thread_local! {
            static NUMBER: Cell<usize> = const { Cell::new(UNSET) };
        }

        // While the thread's locals are being torn down any stripe will do.
        NUMBER
            .try_with(|number| {
                if number.get() == UNSET {
                    number.set(NEXT.fetch_add(1, Ordering::Relaxed) % UNSET);
                }
                number.get()
            })
            .unwrap_or(0)
    }

    /// Zero.
    #[cfg(loom)]
    pub fn current() -> usize {
        0
    }
}

/// Tells loom how long a piece of manually managed memory lives: nothing at all otherwise.
///
/// loom knows nothing of memory that is given back by hand. With one of these in it, loom checks that every access
/// happens before the end, and none comes after it.
#[derive(Debug, Default)]
pub struct Life {
    #[cfg(loom)]
    accesses: loom::cell::UnsafeCell<()>,
    // Not loom's: only the order in which loom runs the threads counts here.
    #[cfg(loom)]
    ended: std::sync::atomic::AtomicBool,
}

impl Life {
    /// Notes that the calling thread accesses the memory.
    #[inline(always)]
    pub fn access(&self) {
        #[cfg(loom)]
        {
            assert!(
                !self.ended.load(std::sync::atomic::Ordering::Relaxed),
                "used after its end"
            );
            self.accesses.with(|_| ());
        }
    }

    /// Notes that the calling thread gives the memory back.
    #[inline(always)]
    pub fn end(&self) {
        #[cfg(loom)]
        {
            assert!(
                !self.ended.swap(true, std::sync::atomic::Ordering::Relaxed),
                "ended twice"
            );
            self.accesses.with_mut(|_| ());
        }
    }
}
