//! A slab of slots with generations, whose handles pin a slot and the slab without a shared count.
//!
//! A [`Slab`] is one shared allocation: a context and slots for values. A value is put in
//! ([`insert`](Slab::insert)), leased under a new generation ([`lease`](Slab::lease)), held
//! ([`Held`]), released or removed. A [`Key`], index and generation, names one lease and no other: late or
//! double use of it is detected and never hits what stands in the slot by then.
//!
//! # States
//! A slot's 64-bit stamp holds `generation 40 | touch 8 | holders 12 | life 4`.
//!
//! ```text
//!            insert                lease (new generation)
//!   Free ───────────────▶ Idle ───────────────────────────▶ Leased
//!    ▲ │                   │ ▲                                │ │
//!    │ └───────────────────┼─┼──── insert_leased ─────────────┘ │   (to Leased)
//!    │                     │ └──── release, unlease, unlease_if ┤   (new generation)
//!    │        remove_idle  ▼                 remove             │
//!    └──────────────────  Gone  ◀───────────────────────────────┘
//!       last holder left
//! ```
//! By packed key (`*_low`, for rings and wheels) the same arrows are taken as by key; besides,
//! [`unlease_due`](Slab::unlease_due) is another from Leased to Idle, [`Held::unlease`] one that keeps the holder,
//! [`Held::remove_with`] goes from Leased, or late from Idle, to Gone, and [`Held::disown`] from Leased to Leased
//! under a new generation.
//!
//! Every arrow but the last is one compare-and-swap on the stamp (a plain store for the two inserts, whose
//! slot nobody else can touch). `holders` counts those who hold the slot in any state; a slot removed by
//! its only holder is freed at once, otherwise its value waits as Gone and the last to leave hands it
//! to the context. A generation names one stay in one state: each arrow into Idle or Leased raises it, and
//! a slot that is used up (2^40 generations: hours of nothing else on one slot) is left out for
//! good rather than begun again.
//!
//! # Algorithm
//! Slots stand in chunks of 64. The chunk's free bitmap is the first-fit bitmap of Bonwick's slab allocator
//! ("The Slab Allocator", USENIX 1994) made lock-free with one word per chunk, as mimalloc and jemalloc do
//! for their arenas: to allocate is to clear the lowest set bit of one's stripe's current chunk, to free is
//! to set it, one read-modify-write each. The bitmaps stand in a directory of doubling buckets that only
//! grows, the chunks do not: a chunk whose bitmap is all ones is claimed as a whole by exchanging
//! that word for zero, and its memory freed. What happens once in the life of a chunk (it has room again,
//! it is wholly free, a stripe needs another one) happens under a mutex.
//!
//! *Stale keys.* A lookup by key or index may find a chunk that is just being freed. The entry of the
//! directory has a guard for it: a count of lookups under way, and a mark that there is no chunk. A
//! lookup registers by adding to it and gives way to the mark; the chunk is only freed after the guard was
//! exchanged from zero for the mark, and kept when a lookup is registered. The first chunks, 256 KiB
//! of them if [`Slab::with_kept`] says nothing else, are never freed before the slab, and lookups there need
//! no guard: that is the fast path, and what keeps a slab that fills and drains all the time from
//! allocating.
//!
//! *Who frees the slab.* Owners are counted as `Arc` counts them; holders are not. A slot in use, which
//! is a bit that is not set, pins the slab, for its last holder needs it. The last owner therefore sweeps:
//! it sets all bits of each bitmap, marks the slots that were in use as orphans, drops the values that
//! nobody holds, and leaves the slab to as many pins as there are slots left. Whoever frees a slot and
//! finds its bit set already gives up one of these pins; the last one frees the slab. The sweep takes a
//! bias off the count only at its end, as in biased reference counting, so that those who leave while it
//! runs cannot bring the count to zero.
//!
//! # Ordering
//! - *slot's bit*: `give_back` sets it (Release), `claim` clears it (Acquire): the emptied slot goes to its
//!   next user. `retire` (Acquire) takes all bits at once: every user's accesses come before the free.
//! - *stamp, insert*: stored with Release after the value was written; whoever turns or pins the stamp does
//!   so with Acquire and sees the value.
//! - *stamp, holders*: release, touch, removal and drop are AcqRel, lease, pin and `remove_idle` Acquire: what
//!   one holder did to the value is seen by the next, and by whoever takes or drops it. `touch`
//!   in particular releases the changed deadline, and `unlease_if` acquires it before it asks again.
//! - *notes*: `note` has its own orderings; the claim of a bit is `SeqCst` for it.
//! - *guard*: installation opens it (Release), a lookup adds to it (Acquire): the chunk's pointer and
//!   stamps are seen. A lookup leaves it (Release), `retire` closes it (Acquire): the lookup's reads come
//!   before the free.
//! - *owners, pins*: as in `Arc`: each decrement releases, the last one acquires.
//! - *current, buckets, chunk*: stored with Release after what they point to was made, loaded with Acquire.
//!
//! # Progress
//! Inserting and freeing are lock-free but for one slot in 64, which may wait for the mutex; lease, pin,
//! release, touch and drop are lock-free; values are dropped, and [`Vacate::vacated`] is called, outside the
//! mutex.

mod batch;
mod chunk;
mod held;
mod low;
mod note;
mod stamp;
mod store;
mod witness;

use std::fmt;
use std::ptr::NonNull;

pub use self::batch::{Claimed, Emptied};
use self::held::GiveBack;
pub use self::held::Held;
pub use self::note::{Due, NO_NOTE, Noted};
use self::stamp::{HOLDERS_LIMIT, HOLDERS_MAX, Life, Word};
use self::store::{Header, Located};
use crate::sync::Backoff;
use crate::sync::atomic::{Ordering, fence};

/// The context of a slab: told of values that were removed while somebody else held them.
pub trait Vacate<V>: Sized {
    /// Receives a value that was removed, from whoever held its slot last.
    fn vacated(&self, value: V);
}

/// The context of a slab that drops such values.
impl<V> Vacate<V> for () {
    fn vacated(&self, _value: V) {}
}

/// Names one stay of a value in a slot: index and generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    index: u32,
    generation: u64,
}

impl Key {
    /// Makes a key from its parts; one that was never given out hits nothing but by chance.
    #[must_use]
    pub const fn from_parts(index: u32, generation: u64) -> Self {
        Self { index, generation }
    }

    /// The slot's index.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.index
    }

    /// The generation, below 2^40.
    #[must_use]
    pub const fn generation(self) -> u64 {
        self.generation
    }

    /// The key in one word: the index in the low half, the generation's low 32 bits in the high one.
    #[must_use]
    pub const fn low(self) -> u64 {
        (self.generation << 32) | self.index as u64
    }

    /// The index in a packed key.
    #[must_use]
    pub const fn index_of_low(low: u64) -> u32 {
        low as u32
    }
}

/// The lease had ended: it was released, expired or removed by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lease has ended")]
pub struct Stale;

/// Why a slot could not be leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// The slot does not hold an idle value.
    #[error("the slot is not idle")]
    NotIdle,
    /// The slot has as many holders, left from former leases, as it can count.
    #[error("the slot has too many holders")]
    Saturated,
}

/// Why a slot could not be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HoldError {
    /// The slot is not leased under the key's generation.
    #[error("the lease has ended")]
    Stale,
    /// The slot has as many holders as it can count.
    #[error("the slot has too many holders")]
    Saturated,
}

/// What became of an idle value that was removed.
#[derive(Debug, PartialEq, Eq)]
pub enum Removed<V> {
    /// Nobody held the slot: here is the value.
    Value(V),
    /// Somebody holds the slot from a former lease: the context receives the value when the last leaves.
    Shared,
}

impl<V> Removed<V> {
    /// The value, if nobody held the slot.
    pub fn value(self) -> Option<V> {
        match self {
            Self::Value(value) => Some(value),
            Self::Shared => None,
        }
    }
}

/// An owner of a slab; clones own the same one.
///
/// When the last owner goes, values that nobody holds are dropped; what is held stays until its last
/// holder leaves, and so do the context and the memory.
///
/// # Examples
/// ```
/// use sim_core::slab::{Slab, Stale};
///
/// let slab = Slab::new((), 1000);
/// let key = slab.insert("message").unwrap();
/// let held = slab.lease(key.index()).unwrap();
/// let receipt = held.detach();
///
/// let held = slab.held(receipt).unwrap();
/// assert_eq!(*held, "message");
/// assert_eq!(held.remove(), Ok(Some("message")));
/// assert!(slab.held(receipt).is_none());
/// # let _ = Stale;
/// ```
pub struct Slab<C: Vacate<V>, V> {
    /// Valid as long as this handle counts among the owners.
    header: NonNull<Header<C, V>>,
}

// SAFETY: an owner gives shared access to C and V, takes values in and out, and may drop both on its
// thread.
unsafe impl<C: Vacate<V> + Send + Sync, V: Send + Sync> Send for Slab<C, V> {}
// SAFETY: as above; all operations take a shared handle.
unsafe impl<C: Vacate<V> + Send + Sync, V: Send + Sync> Sync for Slab<C, V> {}

impl<C: Vacate<V>, V> Slab<C, V> {
    /// Makes a slab of at most `limit` slots (and at most 2^32 - 1). Nothing but the header is allocated.
    #[must_use]
    pub fn new(context: C, limit: usize) -> Self {
        Self::with_kept(context, limit, Header::<C, V>::usual_kept_slots())
    }

    /// Like [`new`](Self::new), and says how many slots' memory, in whole chunks of 64, is kept once
    /// allocated. Zero gives everything back, at some cost for lookups and for slabs that fill and drain.
    #[must_use]
    pub fn with_kept(context: C, limit: usize, kept: usize) -> Self {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        Self {
            header: Header::allocate(context, limit, kept),
        }
    }

    /// The context.
    #[must_use]
    pub fn context(&self) -> &C {
        &self.header().context
    }

    /// Slots at most.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.header().limit as usize
    }

    /// Slots in use, removed ones that somebody still holds included. Counted chunk by chunk while others
    /// go on, so approximate; a pass over the directory, one word for 64 slots.
    #[must_use]
    pub fn occupied(&self) -> usize {
        self.header().occupied()
    }

    /// Slots that have memory, in use or not.
    #[must_use]
    pub fn allocated(&self) -> usize {
        self.header().allocated()
    }

    /// Gives back the chunks that are wholly free, save those kept for good.
    ///
    /// The slab does so by itself but for a few spares.
    pub fn shrink(&self) {
        self.header().shrink();
    }

    /// Puts a value in, idle. The key's index is the caller's to hand to a [`lease`](Self::lease).
    ///
    /// # Errors
    /// The value comes back when the limit is reached.
    #[inline]
    pub fn insert(&self, value: V) -> Result<Key, V> {
        match self.occupy(move || value, 0, 0, Life::Idle) {
            Ok((_, key)) => Ok(key),
            Err(make) => Err(make()),
        }
    }

    /// Puts a value in, idle, that is made in its place: [`insert`](Self::insert).
    ///
    /// # Errors
    /// `make` comes back, not called, when the limit is reached.
    #[inline(always)]
    pub fn insert_with<F: FnOnce() -> V>(&self, make: F) -> Result<Key, F> {
        self.occupy(make, 0, 0, Life::Idle).map(|(_, key)| key)
    }

    /// Puts a value in, leased and held.
    ///
    /// # Errors
    /// The value comes back when the limit is reached.
    #[inline]
    pub fn insert_leased(&self, value: V) -> Result<Held<C, V>, V> {
        match self.occupy(move || value, 0, 1, Life::Leased) {
            // SAFETY: the stamp was stored with one holder.
            Ok((chunk, key)) => Ok(unsafe { Held::adopt(chunk, key.index, key.generation) }),
            Err(make) => Err(make()),
        }
    }

    #[inline(always)]
    fn occupy<F: FnOnce() -> V>(
        &self,
        make: F,
        note: u64,
        holders: u64,
        life: Life,
    ) -> Result<(NonNull<chunk::Chunk<C, V>>, Key), F> {
        let Some((chunk, index)) = self.header().claim() else {
            return Err(make);
        };
        // SAFETY: the slot's bit was just claimed.
        let generation = unsafe { Self::fill(chunk, index, make, note, holders, life) };
        Ok((chunk, Key { index, generation }))
    }

    /// Fills a claimed slot; returns its generation.
    ///
    /// # Safety
    /// The caller has claimed the slot's bit and has not filled it yet.
    #[inline(always)]
    unsafe fn fill<F: FnOnce() -> V>(
        chunk: NonNull<chunk::Chunk<C, V>>,
        index: u32,
        make: F,
        note: u64,
        holders: u64,
        life: Life,
    ) -> u64 {
        // SAFETY: a slot of the chunk is in use, so it stays.
        let slot = unsafe { chunk.as_ref() }.slot(index);
        let free = Word(slot.stamp.load(Ordering::Relaxed));
        let word = Word::new(free.generation().wrapping_add(1), holders, life);
        // For the walk of a chunk's notes the claim comes before what follows, in the order of SeqCst.
        #[cfg(loom)]
        if note != 0 {
            note::single_order();
        }
        // SAFETY: the slot's bit was just claimed.
        let unfilled = unsafe { GiveBack::claimed(chunk, index, free) };
        // SAFETY: as above.
        unsafe { slot.write(make) };
        // From here on nothing panics.
        std::mem::forget(unfilled);
        // Release: see `note`.
        slot.note.store(note, Ordering::Release);
        // Ordering: releases the value and the note to whoever turns or pins the stamp. A plain store: while the life
        // is Free or Gone without holders nobody else changes it.
        slot.stamp.store(word.0, Ordering::Release);
        word.generation()
    }

    /// Leases an idle slot under a new generation and holds it: one compare-and-swap.
    ///
    /// The index is one that the slab handed out as idle (from [`insert`](Self::insert),
    /// [`Held::release`], [`unlease`](Self::unlease) or [`unlease_if`](Self::unlease_if)) and that nobody
    /// else leases or removes. With any other index the result is `None` or somebody else's value, but
    /// nothing breaks. `None` as well when the slot [cannot count another holder](LeaseError::Saturated),
    /// see [`try_lease`](Self::try_lease).
    #[inline]
    #[must_use]
    pub fn lease(&self, index: u32) -> Option<Held<C, V>> {
        self.try_lease(index).ok()
    }

    /// Like [`lease`](Self::lease), and says why not.
    ///
    /// # Errors
    /// [`LeaseError::NotIdle`], or [`LeaseError::Saturated`] while thousands of holders of former leases
    /// have not let go of the slot.
    #[inline]
    pub fn try_lease(&self, index: u32) -> Result<Held<C, V>, LeaseError> {
        let located = self.header().locate(index).ok_or(LeaseError::NotIdle)?;
        let stamp = &located.slot().stamp;
        let mut word = Word(stamp.load(Ordering::Relaxed));
        loop {
            if word.life() != Life::Idle {
                return Err(LeaseError::NotIdle);
            }
            if word.holders() >= HOLDERS_LIMIT {
                return Err(LeaseError::Saturated);
            }
            let leased = word.turned(Life::Leased).pinned();
            // Ordering: acquires the value, and what its former holders did to it.
            match stamp.compare_exchange_weak(
                word.0,
                leased.0,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    // SAFETY: the exchange has counted a holder of a slot with a value.
                    return Ok(unsafe { Held::adopt(located.chunk, index, leased.generation()) });
                }
                Err(found) => word = Word(found),
            }
        }
    }

    /// Holds a slot that is leased under this key. Any key will do, be it stale or made up.
    ///
    /// `None` when the lease has ended, or when the slot
    /// [cannot count another holder](HoldError::Saturated), see [`try_held`](Self::try_held).
    #[inline]
    #[must_use]
    pub fn held(&self, key: Key) -> Option<Held<C, V>> {
        self.try_held(key).ok()
    }

    /// Like [`held`](Self::held), and says why not.
    ///
    /// # Errors
    /// [`HoldError::Stale`], or [`HoldError::Saturated`] when thousands hold the slot already.
    #[inline]
    pub fn try_held(&self, key: Key) -> Result<Held<C, V>, HoldError> {
        let located = self.header().locate(key.index).ok_or(HoldError::Stale)?;
        pin(&located, HOLDERS_LIMIT, |word| {
            word.is_leased(key.generation)
        })
    }

    /// Ends a lease from outside and makes the slot idle; its index is the caller's to hand on then. False
    /// when it had ended before. Any key will do, be it stale or made up.
    pub fn unlease(&self, key: Key) -> bool {
        let Some(located) = self.header().locate(key.index) else {
            return false;
        };
        let stamp = &located.slot().stamp;
        let mut word = Word(stamp.load(Ordering::Relaxed));
        while word.is_leased(key.generation) {
            let idle = word.turned(Life::Idle);
            // Ordering: nothing of the slab needs it; it orders what the caller did before for who leases
            // the slot next, as a release does.
            match stamp.compare_exchange_weak(word.0, idle.0, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(found) => word = Word(found),
            }
        }
        false
    }

    /// Ends a lease from outside if `is_over` says so of its value; returns the slot's index, now idle and
    /// the caller's to hand on.
    ///
    /// For timers: by the [packed key](Key::low), whose generation has 32 bits, so that a stale one might
    /// meet a lease 2^32 generations younger; the predicate decides then. A lease
    /// [touched](Held::touch) since the predicate looked is looked at again. While the predicate runs
    /// the slot is held: a removal meanwhile does not get the value back.
    pub fn unlease_if(&self, low: u64, mut is_over: impl FnMut(&V) -> bool) -> Option<u32> {
        let index = Key::index_of_low(low);
        let matches = |word: Word| {
            word.life() == Life::Leased && (word.generation() << 32) == (low >> 32) << 32
        };
        let backoff = Backoff::new();
        let held = loop {
            let located = self.header().locate(index)?;
            match pin(&located, HOLDERS_MAX, matches) {
                Ok(held) => break held,
                Err(HoldError::Stale) => return None,
                // Callers have at most HOLDERS_LIMIT; the rest are short pins like this one.
                Err(HoldError::Saturated) => backoff.snooze(),
            }
        };
        held.release_if(&mut is_over)
    }

    /// Reads the value that stands under this key, be it leased or idle, while holding its slot. Any key
    /// will do, be it stale or made up.
    pub fn with<R>(&self, key: Key, read: impl FnOnce(&V) -> R) -> Option<R> {
        let located = self.header().locate(key.index)?;
        let held = pin(&located, HOLDERS_LIMIT, |word| {
            matches!(word.life(), Life::Idle | Life::Leased) && word.generation() == key.generation
        })
        .ok()?;
        drop(located);
        Some(read(&held))
    }

    /// Removes an idle value. `None` when the slot is not idle; the index is one as for
    /// [`lease`](Self::lease).
    pub fn remove_idle(&self, index: u32) -> Option<Removed<V>> {
        let located = self.header().locate(index)?;
        let slot = located.slot();
        let mut word = Word(slot.stamp.load(Ordering::Relaxed));
        loop {
            if word.life() != Life::Idle {
                return None;
            }
            let alone = word.holders() == 0;
            let life = if alone { Life::Free } else { Life::Gone };
            let next = word.with_life(life);
            // Ordering: acquires the value, and what its former holders did to it.
            match slot.stamp.compare_exchange_weak(
                word.0,
                next.0,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) if alone => {
                    // SAFETY: no holder, and the stamp says Free: nobody can hold the slot any more.
                    let value = unsafe { slot.take() };
                    let chunk = located.chunk;
                    // A registered lookup would keep the chunk from being freed.
                    drop(located);
                    // SAFETY: emptied above; only the owner's handle is used afterwards.
                    unsafe { Header::give_back(chunk, index, word.generation()) };
                    return Some(Removed::Value(value));
                }
                Ok(_) => return Some(Removed::Shared),
                Err(found) => word = Word(found),
            }
        }
    }

    #[inline]
    fn header(&self) -> &Header<C, V> {
        // SAFETY: this owner keeps the slab.
        let header = unsafe { self.header.as_ref() };
        header.witness.accessed();
        header
    }
}

/// Holds a slot whose stamp is acceptable.
#[inline(always)]
fn pin<C: Vacate<V>, V>(
    located: &Located<'_, C, V>,
    limit: u64,
    accepts: impl Fn(Word) -> bool,
) -> Result<Held<C, V>, HoldError> {
    let stamp = &located.slot().stamp;
    let mut word = Word(stamp.load(Ordering::Relaxed));
    loop {
        if !accepts(word) {
            return Err(HoldError::Stale);
        }
        if word.holders() >= limit {
            return Err(HoldError::Saturated);
        }
        // Ordering: acquires the value, and what its former holders did to it.
        match stamp.compare_exchange_weak(
            word.0,
            word.pinned().0,
            Ordering::Acquire,
            Ordering::Relaxed,
        ) {
            Ok(_) => {
                // SAFETY: the exchange has counted a holder of a slot with a value.
                return Ok(unsafe { Held::adopt(located.chunk, located.index, word.generation()) });
            }
            Err(found) => word = Word(found),
        }
    }
}

impl<C: Vacate<V>, V> Clone for Slab<C, V> {
    fn clone(&self) -> Self {
        // Ordering: as in Arc, a new owner is made where another one stands.
        let owners = self.header().owners.fetch_add(1, Ordering::Relaxed);
        if owners > isize::MAX as usize {
            // Only leaked clones can get here; going on would free what is in use.
            std::process::abort();
        }
        Self {
            header: self.header,
        }
    }
}

impl<C: Vacate<V>, V> Drop for Slab<C, V> {
    fn drop(&mut self) {
        // Ordering: releases what this owner did to the last one.
        if self.header().owners.fetch_sub(1, Ordering::Release) == 1 {
            // Ordering: acquires what the other owners did.
            fence(Ordering::Acquire);
            // SAFETY: the last owner, which goes now.
            unsafe { Header::abandon(self.header) };
        }
    }
}

impl<C: Vacate<V> + fmt::Debug, V> fmt::Debug for Slab<C, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slab")
            .field("context", self.context())
            .field("limit", &self.limit())
            .field("occupied", &self.occupied())
            .finish()
    }
}
