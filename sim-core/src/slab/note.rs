//! Notes: a word beside each slot and one for each chunk, with which an owner finds leases that end.
//!
//! A timer for each lease costs an entry in some queue and its removal, though nearly every lease ends long before
//! its time. With notes one timer serves a chunk: the slot's note is the end of its lease, the chunk's note is
//! the earliest of these for which a timer is set. Who leases a slot sets a timer only if its
//! lease ends before the chunk's note, which among leases of one length happens once for each firing; when the
//! timer fires, the owner clears the chunk's note, [walks](Slab::leased_in) the leased slots, and sets the
//! next timer for the earliest end it saw.
//!
//! # Ordering
//! No lease may end unseen, neither by the timer that stands nor by a new one. The lessee claims or exchanges its slot
//! first and reads the chunk's note afterwards ([`Held::chunk_note`]); the walker clears the note first
//! and looks at the slots afterwards. Both sides do both steps with `SeqCst` (the claim of the slot's bit,
//! or the exchange of an idle slot's stamp; the note's load and swap; the bitmap's load), so that in
//! the single order of these either the walker sees the slot in use, or the lessee sees the note cleared and sets
//! a timer. A slot whose bit is claimed but whose stamp does not say so yet is waited for; the walker is told
//! when it does not come.

use super::chunk::SLOTS;
use super::held::{Held, exchange};
use super::low::matches;
use super::stamp::{HOLDERS_LIMIT, Life, Word};
use super::{Key, Slab, Vacate, pin};
use crate::sync::Backoff;
use crate::sync::atomic::{AtomicU64, Ordering};

/// The note of a chunk that has none.
pub const NO_NOTE: u64 = u64::MAX;

/// How often a walk looks again at a slot that is being filled right now.
const LOOKS: usize = 64;

/// What a walk found in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// Leased under this packed key, with this note.
    Leased {
        /// The [packed key](Key::low) of the lease.
        low: u64,
        /// The slot's note.
        note: u64,
    },
    /// In use, but its lessee has not come far enough to tell.
    Unknown,
}

/// What became of a lease whose time may have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// It was ended; here is the packed key of the idle slot.
    Ended(u64),
    /// It goes on until then.
    Later(u64),
    /// It had ended before.
    Over,
}

impl<C: Vacate<V>, V> Slab<C, V> {
    /// Puts a value in, leased and held, with a note beside it: [`insert_leased`](Self::insert_leased). The value
    /// is made in its place.
    ///
    /// # Errors
    /// `make` comes back, not called, when the limit is reached.
    #[inline(always)]
    pub fn insert_leased_noted<F: FnOnce() -> V>(
        &self,
        note: u64,
        make: F,
    ) -> Result<Held<C, V>, F> {
        let (chunk, key) = self.occupy(make, note, 1, Life::Leased)?;
        // SAFETY: the stamp was stored with one holder.
        Ok(unsafe { Held::adopt(chunk, key.index, key.generation) })
    }

    /// Leases an idle slot by its packed key, with a new note: [`lease_low`](Self::lease_low). Only for the one to
    /// whom the idle slot was handed, since the note is written before the lease is taken.
    pub fn lease_low_noted(&self, low: u64, note: u64) -> Option<Held<C, V>> {
        let located = self.header().locate(Key::index_of_low(low))?;
        let slot = located.slot();
        // Held first: a slot that is held is not given to another value, whose note this would be.
        let idle = pin(&located, HOLDERS_LIMIT, |word| {
            word.life() == Life::Idle && matches(word, low)
        })
        .ok()?;
        slot.note.store(note, Ordering::Relaxed);
        let mut word = Word(slot.stamp.load(Ordering::Relaxed));
        while word.life() == Life::Idle && word.generation() == idle.generation() {
            let leased = word.turned(Life::Leased);
            // SeqCst: see "Ordering".
            match slot.stamp.compare_exchange_weak(
                word.0,
                leased.0,
                Ordering::SeqCst,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    let generation = leased.generation();
                    // The pin goes on as the lease's.
                    std::mem::forget(idle);
                    // SAFETY: the pin has counted a holder of a slot with a value.
                    return Some(unsafe { Held::adopt(located.chunk, located.index, generation) });
                }
                Err(found) => word = Word(found),
            }
        }
        None
    }

    /// The note of a chunk; `None` for a chunk that never was.
    #[must_use]
    pub fn chunk_note(&self, chunk: u32) -> Option<&AtomicU64> {
        self.header().entry(chunk).map(|entry| &entry.note)
    }

    /// Walks the leased slots of a chunk. The caller has cleared the chunk's note, by a `SeqCst` operation.
    pub fn leased_in(&self, chunk: u32, mut each: impl FnMut(Noted)) {
        let header = self.header();
        let Some(entry) = header.entry(chunk) else { return };
        // SeqCst: see "Ordering".
        let mut used = entry.full & !entry.bitmap.load(Ordering::SeqCst);
        while used != 0 {
            let slot = used.trailing_zeros();
            used &= used - 1;
            let index = chunk * SLOTS as u32 + slot;
            // A chunk that is given back meanwhile has no lease left.
            let Some(located) = header.locate(index) else { return };
            let slot = located.slot();
            let backoff = Backoff::new();
            let mut looks = 0;
            loop {
                // Ordering: acquires the note, which was written before the stamp.
                let word = Word(slot.stamp.load(Ordering::SeqCst));
                if word.life() == Life::Leased {
                    let note = slot.note.load(Ordering::Relaxed);
                    let low = Key::from_parts(index, word.generation()).low();
                    each(Noted::Leased { low, note });
                    break;
                }
                let is_filling =
                    word.life() == Life::Free && entry.bitmap.load(Ordering::SeqCst) & (1 << (index as usize % SLOTS)) == 0;
                if !is_filling {
                    break;
                }
                looks += 1;
                if looks == LOOKS {
                    each(Noted::Unknown);
                    break;
                }
                backoff.snooze();
            }
        }
    }

    /// Ends the lease under this packed key if the slot's note is at or before `due`. A lease that was
    /// [touched](Held::touch) since the note was read is looked at again.
    pub fn unlease_due(&self, low: u64, due: u64) -> Due {
        let Some(located) = self.header().locate(Key::index_of_low(low)) else { return Due::Over };
        let slot = located.slot();
        loop {
            // Ordering: acquires the note, which was written before the stamp.
            let word = Word(slot.stamp.load(Ordering::Acquire));
            if word.life() != Life::Leased || !matches(word, low) {
                return Due::Over;
            }
            let note = slot.note.load(Ordering::Relaxed);
            if note > due {
                return Due::Later(note);
            }
            let idle = word.turned(Life::Idle);
            if exchange(&slot.stamp, word, idle).is_ok() {
                return Due::Ended(Key::from_parts(located.index, idle.generation()).low());
            }
        }
    }
}

impl<C: Vacate<V>, V> Held<C, V> {
    /// The slot's note.
    #[inline]
    #[must_use]
    pub fn note(&self) -> u64 {
        self.slot().note.load(Ordering::Relaxed)
    }

    /// Exchanges the slot's note and [touches](Self::touch) the lease; false when the note was not `current` or the
    /// lease is over. A lease that is over keeps its note, or one that its next lessee overwrites.
    #[must_use = "false: the lease had ended, and the change has no effect"]
    pub fn change_note(&self, current: u64, new: u64) -> bool {
        let note = &self.slot().note;
        // The note of this lease, read while it was current, is not that of a later one: if another took
        // over meanwhile it wrote its own, and the exchange fails.
        if note.compare_exchange(current, new, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return false;
        }
        if self.touch() {
            return true;
        }
        // The lease had ended, and the note may be a later one's that happened to be the same.
        let _ = note.compare_exchange(new, current, Ordering::Relaxed, Ordering::Relaxed);
        false
    }

    /// The number of the chunk that the slot stands in.
    #[inline]
    #[must_use]
    pub fn chunk_number(&self) -> u32 {
        self.key().index() / SLOTS as u32
    }

    /// The note of any chunk of the slab; `None` for a chunk that never was.
    #[must_use]
    pub fn slab_chunk_note(&self, chunk: u32) -> Option<&AtomicU64> {
        self.header().entry(chunk).map(|entry| &entry.note)
    }

    /// The note of the chunk that the slot stands in.
    #[inline]
    #[must_use]
    pub fn chunk_note(&self) -> &AtomicU64 {
        &self.entry().note
    }
}
