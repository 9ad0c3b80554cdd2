//! Several slots at once: claimed with one compare-and-swap on a chunk's bitmap, and given back with one.
//!
//! # Ordering
//! As for a single slot: a claim is `SeqCst` and acquires what the slots' last users wrote, giving back is
//! `Release`. A slot that is claimed and not filled yet looks to a walk over leases as one that is being filled:
//! it is waited for, and reported as unknown.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use super::chunk::{Chunk, SLOTS};
use super::held::{Held, exchange};
use super::stamp::{LAST_GENERATION, Life, Word};
use super::store::Header;
use super::{Slab, Vacate};
use crate::sync::atomic::Ordering;

/// Slots claimed ahead, for values that are put in one after the other. Those not used are given back when it goes.
pub struct Claimed<'a, C: Vacate<V>, V> {
    /// Keeps the slab's last owner from going, so that no claimed slot can become an orphan.
    slab: &'a Slab<C, V>,
    /// The chunk of the claimed slots. Invariant: valid while `bits` is not zero.
    chunk: NonNull<Chunk<C, V>>,
    /// The claimed slots that are not used yet; none of them holds a value.
    bits: u64,
}

impl<C: Vacate<V>, V> Slab<C, V> {
    /// Starts a row of insertions that share their claims. Nothing is claimed yet.
    #[inline]
    #[must_use]
    pub const fn claimed(&self) -> Claimed<'_, C, V> {
        Claimed {
            slab: self,
            chunk: NonNull::dangling(),
            bits: 0,
        }
    }
}

impl<C: Vacate<V>, V> Claimed<'_, C, V> {
    /// Puts a value in, leased and held, with a note beside it, as
    /// [`insert_leased_noted`](Slab::insert_leased_noted) does. `want` is how many are expected to follow, this one
    /// included: so many slots are claimed when none is left, or as many as one chunk has.
    ///
    /// # Errors
    /// `make` comes back, not called, when the limit is reached.
    #[inline(always)]
    pub fn insert_leased_noted<F: FnOnce() -> V>(
        &mut self,
        want: usize,
        note: u64,
        make: F,
    ) -> Result<Held<C, V>, F> {
        if self.bits == 0 {
            let Some((chunk, bits)) = self.slab.header().claim_many(want) else {
                return Err(make);
            };
            (self.chunk, self.bits) = (chunk, bits);
        }
        let index = self.bits.trailing_zeros();
        // Before `make`, which may panic: the slot stays claimed and empty then.
        self.bits &= self.bits - 1;
        // SAFETY: the slot's bit was claimed, and is used once.
        let generation = unsafe { Slab::fill(self.chunk, index, make, note, 1, Life::Leased) };
        // SAFETY: the stamp was stored with one holder.
        Ok(unsafe { Held::adopt(self.chunk, index, generation) })
    }
}

impl<C: Vacate<V>, V> Drop for Claimed<'_, C, V> {
    #[inline]
    fn drop(&mut self) {
        if self.bits != 0 {
            // SAFETY: the slots are claimed by this guard, empty, and not used again.
            unsafe { Header::give_back_many(self.chunk, self.bits) };
        }
    }
}

/// Slots of one chunk whose values were taken out by [`Held::remove_into`], to be given back together.
///
/// They keep the slab, as held ones do, until they are given back: explicitly, or when this goes.
pub struct Emptied<C: Vacate<V>, V> {
    /// The chunk of the slots. Invariant: valid while `bits` is not zero.
    chunk: NonNull<Chunk<C, V>>,
    /// The slots: emptied, without a holder, and this one's to give back.
    bits: u64,
}

impl<C: Vacate<V>, V> Emptied<C, V> {
    /// Makes one without slots.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            chunk: NonNull::dangling(),
            bits: 0,
        }
    }

    /// The context of the slab that the slots belong to, if there are any.
    #[must_use]
    pub fn context(&self) -> Option<&C> {
        if self.bits == 0 {
            return None;
        }
        // SAFETY: the slots, which are not given back, keep their chunk.
        let header = unsafe { self.chunk.as_ref() }.header;
        // SAFETY: they keep the slab too, for as long as they are borrowed here.
        let header = unsafe { &*header.as_ptr() };
        header.witness.accessed();
        Some(&header.context)
    }

    /// Whether this handle's slot can be added without giving back those that are there.
    #[inline]
    #[must_use]
    pub fn takes(&self, held: &Held<C, V>) -> bool {
        self.bits == 0 || self.chunk == held.chunk()
    }

    /// Gives the slots back.
    #[inline]
    pub fn give_back(&mut self) {
        let bits = std::mem::take(&mut self.bits);
        if bits != 0 {
            // SAFETY: the slots were emptied by this thread, and are not used again.
            unsafe { Header::give_back_many(self.chunk, bits) };
        }
    }
}

impl<C: Vacate<V>, V> Default for Emptied<C, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Vacate<V>, V> Drop for Emptied<C, V> {
    #[inline]
    fn drop(&mut self) {
        self.give_back();
    }
}

impl<C: Vacate<V>, V> Held<C, V> {
    /// [`remove_with`](Self::remove_with), but a slot that nobody else holds goes to `emptied` instead of being
    /// given back. Those that are there already are given back first if they stand in another chunk.
    ///
    /// # Errors
    /// The handle, when the value is no longer this handle's to remove. Nothing changed.
    #[inline(always)]
    pub fn remove_into<R>(
        self,
        late: bool,
        emptied: &mut Emptied<C, V>,
        settle: impl FnOnce(&C, bool, Result<V, &V>) -> R,
    ) -> Result<R, Self> {
        let generation = self.generation();
        if generation >= LAST_GENERATION {
            // Its slot is used up and not given back.
            return self.remove_with(late, settle);
        }
        let mut word = Word(self.slot().stamp.load(Ordering::Relaxed));
        loop {
            let leased = word.is_leased(generation);
            let idle = late
                && word.life() == Life::Idle
                && (word.generation() == generation || word.generation() == generation + 1);
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
                    if !emptied.takes(&this) {
                        emptied.give_back();
                    }
                    emptied.chunk = this.chunk();
                    emptied.bits |= 1 << (this.number() as usize % SLOTS);
                    // The slot, which is not given back yet, keeps the slab.
                    return Ok(settle(this.context(), leased, Ok(value)));
                }
                // The handle holds on until it is dropped at the end of this expression.
                Ok(()) => return Ok(settle(self.context(), leased, Err(&self))),
                Err(found) => word = found,
            }
        }
    }
}

impl<C: Vacate<V>, V> fmt::Debug for Claimed<'_, C, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claimed")
            .field("slots", &self.bits.count_ones())
            .finish_non_exhaustive()
    }
}

impl<C: Vacate<V>, V> fmt::Debug for Emptied<C, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emptied")
            .field("slots", &self.bits.count_ones())
            .finish_non_exhaustive()
    }
}
