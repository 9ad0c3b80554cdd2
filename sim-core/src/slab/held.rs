//! The handle that pins a slot, and with it the whole slab.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;

use super::chunk::{Chunk, Entry, SLOTS, Slot};
use super::stamp::{HOLDER, Life, Word};
use super::store::Header;
use super::{Key, Stale, Vacate};
use crate::sync::atomic::Ordering;

/// A slot held: its value stays where it is, and readable, for as long as this handle lives.
///
/// A handle is a pointer, a slot number and a generation, in two words. It counts in the slot's own stamp and nowhere else,
/// and it keeps the whole slab: it may outlive the last [`Slab`](super::Slab).
///
/// Dropping a handle lets go of the slot and leaves its state alone. When the value was removed
/// meanwhile and this was the last holder, the context receives it ([`Vacate::vacated`]); when the last
/// owner of the slab is gone, the last holder drops the value.
pub struct Held<C: Vacate<V>, V> {
    /// Valid as long as the handle counts in the slot's stamp.
    chunk: NonNull<Chunk<C, V>>,
    /// The generation under which the slot was taken, and the slot's number in its chunk in the low eight
    /// bits: two words in all, which travel in registers.
    place: u64,
}

// SAFETY: a handle gives shared access to C and V, and may take V out or drop both on its thread.
unsafe impl<C: Vacate<V> + Send + Sync, V: Send + Sync> Send for Held<C, V> {}
// SAFETY: through a shared handle only &C and &V can be had.
unsafe impl<C: Vacate<V> + Send + Sync, V: Send + Sync> Sync for Held<C, V> {}

impl<C: Vacate<V>, V> Held<C, V> {
    /// Makes a handle for a holder that the stamp counts already.
    ///
    /// # Safety
    /// The slot of the chunk holds a value, and one of the holders in its stamp is the caller's to give.
    #[inline]
    pub(super) unsafe fn adopt(chunk: NonNull<Chunk<C, V>>, index: u32, generation: u64) -> Self {
        Self {
            chunk,
            place: (generation << 8) | (index as usize % SLOTS) as u64,
        }
    }

    /// Makes a second handle like this one.
    ///
    /// # Safety
    /// One of the holders in the slot's stamp is the caller's to give.
    pub(super) unsafe fn twin(&self) -> Self {
        Self {
            chunk: self.chunk,
            place: self.place,
        }
    }

    /// The key under which the slot was taken.
    #[inline]
    #[must_use]
    pub fn key(&self) -> Key {
        Key {
            index: self.index(),
            generation: self.generation(),
        }
    }

    /// The slab's context.
    #[inline]
    #[must_use]
    pub fn context(&self) -> &C {
        // SAFETY: the held slot keeps its chunk.
        let header = unsafe { self.chunk.as_ref() }.header;
        // SAFETY: the held slot keeps the slab.
        let header = unsafe { header.as_ref() };
        header.witness.accessed();
        &header.context
    }

    /// Whether the slot is still leased under this handle's generation.
    #[inline]
    #[must_use]
    pub fn is_current(&self) -> bool {
        Word(self.slot().stamp.load(Ordering::Acquire)).is_leased(self.generation())
    }

    /// Marks the lease as changed, so that an [`unlease_if`](super::Slab::unlease_if) that has read the
    /// value before fails to end it; false when the lease is over.
    ///
    /// The caller changes the value first (a deadline in an atomic, say) and touches then. The mark has
    /// eight bits: 256 touches between the two steps of one `unlease_if` escape it.
    #[inline]
    #[must_use = "false: the lease had ended, and the change has no effect"]
    pub fn touch(&self) -> bool {
        self.touch_ordered(Ordering::AcqRel)
    }

    #[inline]
    pub(super) fn touch_ordered(&self, order: Ordering) -> bool {
        let stamp = &self.slot().stamp;
        let mut word = Word(stamp.load(Ordering::Relaxed));
        while word.is_leased(self.generation()) {
            match stamp.compare_exchange_weak(word.0, word.touched().0, order, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(found) => word = Word(found),
            }
        }
        false
    }

    /// Ends the lease, makes the slot idle, and lets go of it: returns its index, which is the caller's to
    /// hand on.
    ///
    /// When the last owner of the slab is gone nobody can take the slot again, and its value is dropped
    /// with the last holder.
    ///
    /// # Errors
    /// [`Stale`] when the lease had ended before; the slot is let go of all the same.
    #[inline]
    pub fn release(self) -> Result<u32, Stale> {
        let index = self.index();
        let mut word = Word(self.slot().stamp.load(Ordering::Relaxed));
        while word.is_leased(self.generation()) {
            let idle = word.turned(Life::Idle).unpinned();
            match exchange(&self.slot().stamp, word, idle) {
                Ok(()) => {
                    // The exchange has given the pin up; an orphan is idle now and nobody's.
                    let this = ManuallyDrop::new(self);
                    if word.leaves_last() {
                        // SAFETY: this was the last holder of an orphan.
                        unsafe { this.empty(idle) };
                    }
                    return Ok(index);
                }
                Err(found) => word = found,
            }
        }
        Err(Stale)
    }

    /// Ends the lease, removes the value and frees the slot.
    ///
    /// Returns the value when nobody else holds the slot. Otherwise `None`: the context receives the
    /// value when the last holder leaves.
    ///
    /// # Errors
    /// [`Stale`] when the lease had ended before; the slot is let go of all the same.
    #[inline]
    pub fn remove(self) -> Result<Option<V>, Stale> {
        let slot = self.slot();
        let mut word = Word(slot.stamp.load(Ordering::Relaxed));
        while word.is_leased(self.generation()) {
            let alone = word.holders() == 1;
            let life = if alone { Life::Free } else { Life::Gone };
            match exchange(&slot.stamp, word, word.with_life(life).unpinned()) {
                Ok(()) => {
                    let this = ManuallyDrop::new(self);
                    if !alone {
                        return Ok(None);
                    }
                    // SAFETY: the only holder left, and the stamp says Free: no lookup can hold the slot.
                    let value = unsafe { this.slot().take() };
                    // SAFETY: emptied above; `this` is not used again.
                    unsafe { Header::give_back(this.chunk, this.number(), word.generation()) };
                    return Ok(Some(value));
                }
                Err(found) => word = found,
            }
        }
        Err(Stale)
    }

    /// Lets go of the slot, which stays leased, and returns the key under which it can be held again.
    #[inline]
    pub fn detach(self) -> Key {
        self.key()
    }

    /// Releases the slot if `is_over` says so of the value, asking again when the lease was touched since.
    pub(super) fn release_if(self, is_over: &mut impl FnMut(&V) -> bool) -> Option<u32> {
        let index = self.index();
        loop {
            let seen = Word(self.slot().stamp.load(Ordering::Acquire));
            if !seen.is_leased(self.generation()) || !is_over(&self) {
                return None;
            }
            let mut word = Word(self.slot().stamp.load(Ordering::Relaxed));
            while word.same_but_holders(seen) {
                let idle = word.turned(Life::Idle).unpinned();
                match exchange(&self.slot().stamp, word, idle) {
                    Ok(()) => {
                        // An owner calls this: the slot is no orphan and needs no emptying.
                        let _ = ManuallyDrop::new(self);
                        return Some(index);
                    }
                    Err(found) => word = found,
                }
            }
        }
    }

    pub(super) fn header(&self) -> &Header<C, V> {
        // SAFETY: the held slot keeps its chunk.
        let header = unsafe { self.chunk.as_ref() }.header;
        // SAFETY: the held slot keeps the slab.
        unsafe { &*header.as_ptr() }
    }

    #[inline]
    pub(super) fn entry(&self) -> &Entry<C, V> {
        // SAFETY: the held slot keeps its chunk.
        let entry = unsafe { self.chunk.as_ref() }.entry;
        // SAFETY: entries live as long as the slab, which the held slot keeps.
        unsafe { &*entry.as_ptr() }
    }

    #[inline]
    pub(super) fn slot(&self) -> &Slot<V> {
        // SAFETY: the held slot keeps its chunk.
        unsafe { self.chunk.as_ref() }.slot(self.number())
    }

    /// The slot's chunk.
    #[inline]
    pub(super) const fn chunk(&self) -> NonNull<Chunk<C, V>> {
        self.chunk
    }

    /// The slot's number in its chunk.
    #[inline]
    pub(super) fn number(&self) -> u32 {
        (self.place & 0xFF) as u32
    }

    #[inline]
    pub(super) fn generation(&self) -> u64 {
        self.place >> 8
    }

    /// The slot's index in the slab.
    #[inline]
    fn index(&self) -> u32 {
        // SAFETY: the held slot keeps its chunk.
        let entry = unsafe { self.chunk.as_ref() }.entry;
        // SAFETY: the held slot keeps the slab, and with it the entry.
        unsafe { entry.as_ref() }.first() + self.number()
    }

    /// Empties and frees the slot that this handle was the last to leave: one removed goes to the
    /// context, an orphan is dropped.
    ///
    /// # Safety
    /// The stamp counts no holder any more, this handle was the last, and the slot is removed or an
    /// orphan. The handle is not used afterwards.
    #[cold]
    unsafe fn empty(&self, word: Word) {
        // SAFETY: nobody else holds the slot, and no lookup can.
        let value = unsafe { self.slot().take() };
        // Foreign code may panic: the slot is freed all the same, and after it, since it keeps the slab.
        let _freed = GiveBack {
            chunk: self.chunk,
            index: self.number(),
            word,
        };
        if word.life() == Life::Gone {
            self.context().vacated(value);
        }
    }
}

/// Exchanges a stamp.
///
/// Ordering: releases what this holder did to the value to the next one, acquires what the former ones
/// did.
#[inline]
pub(super) fn exchange(stamp: &crate::sync::Stamp, current: Word, new: Word) -> Result<(), Word> {
    match stamp.compare_exchange_weak(current.0, new.0, Ordering::AcqRel, Ordering::Relaxed) {
        Ok(_) => Ok(()),
        Err(found) => Err(Word(found)),
    }
}

/// Frees a slot when it is dropped.
pub(super) struct GiveBack<C, V> {
    chunk: NonNull<Chunk<C, V>>,
    index: u32,
    word: Word,
}

impl<C: Vacate<V>, V> GiveBack<C, V> {
    /// For a slot that is claimed and not filled yet.
    ///
    /// # Safety
    /// The slot's bit was claimed by the caller, who does not touch the slot after this was dropped.
    pub(super) const unsafe fn claimed(
        chunk: NonNull<Chunk<C, V>>,
        index: u32,
        word: Word,
    ) -> Self {
        Self { chunk, index, word }
    }

    /// For a handle that has emptied its slot and will not be dropped.
    pub(super) fn of(held: &Held<C, V>, word: Word) -> Self {
        Self {
            chunk: held.chunk,
            index: held.number(),
            word,
        }
    }
}

impl<C, V> Drop for GiveBack<C, V> {
    fn drop(&mut self) {
        // SAFETY: made by the one who emptied the slot, who does not touch it afterwards.
        unsafe { Header::give_back(self.chunk, self.index, self.word.generation()) };
    }
}

impl<C: Vacate<V>, V> Deref for Held<C, V> {
    type Target = V;

    #[inline]
    fn deref(&self) -> &V {
        // SAFETY: a held slot holds a value, and the reference does not outlive the handle.
        unsafe { self.slot().get() }
    }
}

impl<C: Vacate<V>, V> Drop for Held<C, V> {
    #[inline]
    fn drop(&mut self) {
        // Ordering: releases what this holder did to the value to the last one, which acquires it.
        let word = Word(self.slot().stamp.fetch_sub(HOLDER, Ordering::AcqRel));
        if word.leaves_last() {
            // SAFETY: this was the last holder of a slot that is removed or an orphan.
            unsafe { self.empty(word) };
        }
    }
}

impl<C: Vacate<V>, V: fmt::Debug> fmt::Debug for Held<C, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("key", &self.key())
            .field("value", &**self)
            .finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::Slab;
    use super::super::stamp::LAST_GENERATION;
    use super::*;

    /// Sets the generation of a slot, as if it had been used so often.
    fn age(held: &mut Held<(), Box<u32>>, generation: u64) {
        let old = Word::new(generation, 1, Life::Leased);
        held.slot().stamp.store(old.0, Ordering::Relaxed);
        held.place = (generation << 8) | u64::from(held.number());
    }

    #[test]
    fn a_slot_without_generations_is_left_out_for_good() {
        for drop_the_owner in [false, true] {
            let slab: Slab<(), Box<u32>> = Slab::with_kept((), 2, 0);
            let mut first = slab.insert_leased(Box::new(1)).unwrap();
            let second = slab.insert_leased(Box::new(2)).unwrap();
            age(&mut first, LAST_GENERATION);
            let key = first.key();
            let slab = if drop_the_owner {
                drop(slab);
                None
            } else {
                Some(slab)
            };
            assert_eq!(first.remove(), Ok(Some(Box::new(1))));
            if let Some(slab) = slab {
                assert!(slab.insert(Box::new(3)).is_err());
                assert!(slab.held(key).is_none());
                drop(second.remove());
                let key = slab.insert(Box::new(4)).unwrap();
                assert_eq!(key.index(), 1);
                slab.shrink();
                assert_eq!(slab.allocated(), 2);
            }
        }
    }

    #[test]
    fn generations_go_on_where_a_chunk_stood_before() {
        let slab: Slab<(), Box<u32>> = Slab::with_kept((), 64, 0);
        let mut held = slab.insert_leased(Box::new(1)).unwrap();
        age(&mut held, 1000);
        drop(held.remove());
        slab.shrink();
        assert_eq!(slab.allocated(), 0);
        let held = slab.insert_leased(Box::new(2)).unwrap();
        assert_eq!(held.key(), Key::from_parts(0, 1001));
    }

    #[test]
    fn a_lease_without_a_next_generation_wraps() {
        let slab: Slab<(), Box<u32>> = Slab::with_kept((), 64, 0);
        let mut held = slab.insert_leased(Box::new(1)).unwrap();
        age(&mut held, (1 << 40) - 2);
        let index = held.release().unwrap();
        let held = slab.lease(index).unwrap();
        assert_eq!(held.key().generation(), 0);
        assert_eq!(held.release(), Ok(index));
    }
}
