//! Slots by packed key, for rings and wheels; and verdicts that need the context while they are given.

use std::mem::ManuallyDrop;

use super::held::{GiveBack, Held, exchange};
use super::stamp::{HOLDERS_LIMIT, HOLDERS_MAX, Life, Word};
use super::store::Header;
use super::{Key, Removed, Slab, Stale, Vacate, pin};
use crate::sync::Backoff;
use crate::sync::atomic::Ordering;

impl Key {
    /// The packed key that an idle slot has after the lease under `low` was ended.
    #[must_use]
    pub const fn low_after_lease(low: u64) -> u64 {
        ((low >> 32).wrapping_add(1) << 32) | (low & 0xFFFF_FFFF)
    }
}

/// Whether a stamp's generation is that of a packed key.
#[inline]
pub(super) const fn matches(word: Word, low: u64) -> bool {
    word.generation() & 0xFFFF_FFFF == low >> 32
}

impl<C: Vacate<V>, V> Slab<C, V> {
    /// Leases the slot if it is idle under this [packed key](Key::low). Any value will do, be it stale or
    /// made up: it hits a later stay in the slot only if 2^32 generations lie between.
    #[inline]
    pub fn lease_low(&self, low: u64) -> Option<Held<C, V>> {
        let located = self.header().locate(Key::index_of_low(low))?;
        let stamp = &located.slot().stamp;
        let mut word = Word(stamp.load(Ordering::Relaxed));
        while word.life() == Life::Idle && matches(word, low) && word.holders() < HOLDERS_LIMIT {
            let leased = word.turned(Life::Leased).pinned();
            match exchange(stamp, word, leased) {
                Ok(()) => {
                    let generation = leased.generation();
                    // SAFETY: the exchange has counted a holder of a slot with a value.
                    return Some(unsafe { Held::adopt(located.chunk, located.index, generation) });
                }
                Err(found) => word = found,
            }
        }
        None
    }

    /// Holds the slot, idle or leased, under this packed key, without changing its state. Any value will do.
    #[inline]
    pub fn pin_low(&self, low: u64) -> Option<Held<C, V>> {
        let located = self.header().locate(Key::index_of_low(low))?;
        pin(&located, HOLDERS_LIMIT, |word| {
            matches!(word.life(), Life::Idle | Life::Leased) && matches(word, low)
        })
        .ok()
    }

    /// Reads the value under this packed key, be it leased or idle. Any value will do.
    pub fn with_low<R>(&self, low: u64, read: impl FnOnce(&V) -> R) -> Option<R> {
        self.pin_low(low).map(|held| read(&held))
    }

    /// Whether the slot is leased under this packed key. Any value will do.
    #[inline]
    #[must_use]
    pub fn is_leased_low(&self, low: u64) -> bool {
        self.header()
            .locate(Key::index_of_low(low))
            .is_some_and(|located| {
                let word = Word(located.slot().stamp.load(Ordering::Relaxed));
                word.life() == Life::Leased && matches(word, low)
            })
    }

    /// Whether the slot is idle under this packed key. Any value will do.
    #[inline]
    #[must_use]
    pub fn is_idle_low(&self, low: u64) -> bool {
        self.header()
            .locate(Key::index_of_low(low))
            .is_some_and(|located| {
                let word = Word(located.slot().stamp.load(Ordering::Relaxed));
                word.life() == Life::Idle && matches(word, low)
            })
    }

    /// Removes the value if it is idle under this packed key. Any value will do.
    pub fn remove_idle_low(&self, low: u64) -> Option<Removed<V>> {
        let located = self.header().locate(Key::index_of_low(low))?;
        let stamp = &located.slot().stamp;
        let mut word = Word(stamp.load(Ordering::Relaxed));
        while word.life() == Life::Idle && matches(word, low) {
            let alone = word.holders() == 0;
            let life = if alone { Life::Free } else { Life::Gone };
            match exchange(stamp, word, word.with_life(life)) {
                Ok(()) if alone => {
                    // SAFETY: no holder, and the stamp says Free: nobody can hold the slot any more.
                    let value = unsafe { located.slot().take() };
                    let (chunk, index) = (located.chunk, located.index);
                    // A registered lookup would keep the chunk from being freed.
                    drop(located);
                    // SAFETY: emptied above; only the owner's handle is used afterwards.
                    unsafe { Header::give_back(chunk, index, word.generation()) };
                    return Some(Removed::Value(value));
                }
                Ok(()) => return Some(Removed::Shared),
                Err(found) => word = found,
            }
        }
        None
    }
}

impl<C: Vacate<V>, V> Held<C, V> {
    /// Holds the slot once more, as this handle does; for a short while, since a slot counts 4,095 holders
    /// and one that is full makes this wait.
    #[must_use]
    pub fn pin(&self) -> Self {
        let stamp = &self.slot().stamp;
        let backoff = Backoff::new();
        let mut word = Word(stamp.load(Ordering::Relaxed));
        loop {
            if word.holders() >= HOLDERS_MAX {
                backoff.snooze();
                word = Word(stamp.load(Ordering::Relaxed));
                continue;
            }
            match exchange(stamp, word, word.pinned()) {
                // SAFETY: the exchange has counted a holder of a slot that this handle holds too.
                Ok(()) => return unsafe { self.twin() },
                Err(found) => word = found,
            }
        }
    }

    /// Ends the lease and makes the slot idle, still holding it: the context stays at hand until the handle
    /// is dropped. Returns the key of the idle slot, which is the caller's to hand on.
    ///
    /// # Errors
    /// [`Stale`] when the lease had ended before.
    pub fn unlease(&self) -> Result<Key, Stale> {
        let stamp = &self.slot().stamp;
        let mut word = Word(stamp.load(Ordering::Relaxed));
        while word.is_leased(self.generation()) {
            let idle = word.turned(Life::Idle);
            match exchange(stamp, word, idle) {
                Ok(()) => return Ok(Key::from_parts(self.key().index(), idle.generation())),
                Err(found) => word = found,
            }
        }
        Err(Stale)
    }

    /// Whether nobody else holds the slot at the moment.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        Word(self.slot().stamp.load(Ordering::Acquire)).holders() == 1
    }

    /// Puts the lease under a new generation that nobody knows: the slot stays leased, with its note, and every key
    /// of the lease, this handle's among them, is stale from now on.
    ///
    /// # Errors
    /// [`Stale`] when the lease had ended before.
    pub fn disown(&self) -> Result<(), Stale> {
        let stamp = &self.slot().stamp;
        let mut word = Word(stamp.load(Ordering::Relaxed));
        while word.is_leased(self.generation()) {
            match exchange(stamp, word, word.turned(Life::Leased)) {
                Ok(()) => return Ok(()),
                Err(found) => word = found,
            }
        }
        Err(Stale)
    }

    /// Ends the lease, removes the value, and calls `settle` with the context, whether the slot was still
    /// leased, and the value: itself where nobody else holds the slot, else a look at it (the context then
    /// receives it when the last holder leaves). The slot, and with it the slab, is given up only
    /// after `settle` has returned: so a holder can settle accounts although its slot may be the last thing
    /// that keeps the slab. One compare-and-swap where nobody else holds the slot.
    ///
    /// With `late`, a slot that is idle counts too, if nobody has leased it since this handle's lease
    /// ended, or since the handle was made by [`pin_low`](Slab::pin_low).
    ///
    /// # Errors
    /// The handle, when the value is no longer this handle's to remove. Nothing changed.
    #[inline(always)]
    pub fn remove_with<R>(
        self,
        late: bool,
        settle: impl FnOnce(&C, bool, Result<V, &V>) -> R,
    ) -> Result<R, Self> {
        let generation = self.generation();
        let mut word = Word(self.slot().stamp.load(Ordering::Relaxed));
        loop {
            let leased = word.is_leased(generation);
            let after = generation.wrapping_add(1) & ((1 << super::stamp::GENERATION_BITS) - 1);
            let idle = late
                && word.life() == Life::Idle
                && (word.generation() == generation || word.generation() == after);
            if !leased && !idle {
                return Err(self);
            }
            let alone = word.holders() == 1;
            let next = if alone {
                word.with_life(Life::Free).unpinned()
            } else {
                word.with_life(Life::Gone)
            };
            match exchange(&self.slot().stamp, word, next) {
                Ok(()) if alone => {
                    let this = ManuallyDrop::new(self);
                    // SAFETY: the only holder left, and the stamp says Free: no lookup can hold the slot.
                    let value = unsafe { this.slot().take() };
                    // Given back also when `settle` panics, and after it, since the slot keeps the slab.
                    let _freed = GiveBack::of(&this, word);
                    return Ok(settle(this.context(), leased, Ok(value)));
                }
                // The handle holds on until it is dropped at the end of this expression.
                Ok(()) => return Ok(settle(self.context(), leased, Err(&self))),
                Err(found) => word = found,
            }
        }
    }
}
