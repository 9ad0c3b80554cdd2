//! [`Snapshot`]: a value that is read often and replaced whole.
//!
//! # Algorithm
//! Read-copy-update on an `Arc`, by arc-swap (Vaner; hybrid of hazard pointers and reference counts): a reader notes
//! in a slot of its thread which pointer it uses and touches no shared count; a writer swaps the pointer and
//! pays the counts that readers owe. Writers are serialized by a mutex, so that no update is lost.
//!
//! # Ordering
//! A load acquires what the store of the value that it returns released; arc-swap's accesses are `SeqCst`
//! where they meet. Under loom the cell is a mutex: what is modelled is the use of the cell, not arc-swap.

use std::fmt;
use std::ops::Deref;

#[cfg(not(loom))]
use arc_swap::ArcSwap;

use crate::sync::{Arc, Mutex};

/// A shared value, loaded without a lock and replaced whole.
///
/// Memory: one value, and each former one for as long as a [`Guard`] or an `Arc` of it lives.
///
/// ```
/// use sim_core::snapshot::Snapshot;
///
/// let routes = Snapshot::new(vec!["north"]);
/// let before = routes.load();
/// routes.update(|routes| [routes.as_slice(), &["south"]].concat());
/// assert_eq!(*before, ["north"]); // who loaded it keeps it
/// assert_eq!(*routes.load(), ["north", "south"]);
/// ```
pub struct Snapshot<T> {
    #[cfg(not(loom))]
    cell: ArcSwap<T>,
    #[cfg(loom)]
    cell: Mutex<Arc<T>>,
    /// Held by whoever replaces the value.
    writers: Mutex<()>,
}

impl<T> Snapshot<T> {
    /// Makes a cell with a first value.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self::from_arc(Arc::new(value))
    }

    /// Makes a cell with a first value that is shared already.
    #[must_use]
    pub fn from_arc(value: Arc<T>) -> Self {
        Self {
            #[cfg(not(loom))]
            cell: ArcSwap::new(value),
            #[cfg(loom)]
            cell: Mutex::new(value),
            writers: Mutex::new(()),
        }
    }

    /// The value as it is now. It stays as it is for the holder of the guard, whatever is stored meanwhile.
    ///
    /// A thread that holds more than a few guards at once pays for each further one with a count on the value;
    /// to keep one for long, take [`load_arc`](Self::load_arc).
    #[inline]
    #[must_use]
    pub fn load(&self) -> Guard<T> {
        #[cfg(not(loom))]
        return Guard(self.cell.load());
        #[cfg(loom)]
        return Guard(Arc::clone(&self.cell.lock()));
    }

    /// The value as it is now, shared.
    #[must_use]
    pub fn load_arc(&self) -> Arc<T> {
        self.load().into_arc()
    }

    /// Replaces the value.
    pub fn store(&self, value: Arc<T>) {
        let writing = self.writers.lock();
        let former = self.replace(value);
        drop(writing);
        // Foreign code may run here; the lock is free again.
        drop(former);
    }

    /// Replaces the value by one that is made from it, and returns that. Updates are serialized: none is lost.
    ///
    /// `make` is called once, under the lock of the writers: it must not store to this cell.
    pub fn update(&self, make: impl FnOnce(&T) -> T) -> Arc<T> {
        let updated = self.try_update(|value| Ok::<_, std::convert::Infallible>(make(value)));
        match updated {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// Like [`update`](Self::update), unless `make` fails: then the value stays.
    ///
    /// # Errors
    /// That of `make`.
    pub fn try_update<E>(&self, make: impl FnOnce(&T) -> Result<T, E>) -> Result<Arc<T>, E> {
        let writing = self.writers.lock();
        let value = Arc::new(make(&self.load())?);
        let former = self.replace(Arc::clone(&value));
        drop(writing);
        drop(former);
        Ok(value)
    }

    fn replace(&self, value: Arc<T>) -> Arc<T> {
        #[cfg(not(loom))]
        return self.cell.swap(value);
        #[cfg(loom)]
        return std::mem::replace(&mut *self.cell.lock(), value);
    }
}

impl<T: Default> Default for Snapshot<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for Snapshot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Snapshot").field(&*self.load()).finish()
    }
}

/// A value as it was when it was loaded.
pub struct Guard<T>(
    #[cfg(not(loom))] arc_swap::Guard<Arc<T>>,
    #[cfg(loom)] Arc<T>,
);

impl<T> Guard<T> {
    /// The value, shared.
    #[must_use]
    pub fn to_arc(&self) -> Arc<T> {
        Arc::clone(&self.0)
    }

    /// The value, shared; cheaper than [`to_arc`](Self::to_arc) where the guard is not needed any more.
    #[must_use]
    pub fn into_arc(self) -> Arc<T> {
        #[cfg(not(loom))]
        return arc_swap::Guard::into_inner(self.0);
        #[cfg(loom)]
        return self.0;
    }
}

impl<T> Deref for Guard<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Guard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
