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
//! No lease may end unseen, neither by the timer that stands nor by a new one. The lessee claims its slot first
//! and reads the chunk's note afterwards ([`Held::chunk_note`]); the walker clears the note first and looks at
//! the slots afterwards. All of these are `SeqCst`, so that in their single order either the walker sees the
//! slot claimed, or the lessee sees the note cleared and sets a timer:
//!
//! | who changes what | before it reads the chunk's note |
//! | --- | --- |
//! | a new lease in a free slot | the claim of the slot's bit |
//! | a new lease of an idle slot | the exchange of its stamp |
//! | a lease that is shortened ([`Held::change_note`]) | the exchange of its stamp, which marks it as touched |
//!
//! The stamp of a free slot is stored later, and not in that order: until it is, the walker sees the stamp that
//! the slot's last user left, *free* or *removed by its last holder*, and must take it for a slot that is being
//! filled. It looks again a few times and then reports it as [unknown](Noted::Unknown).
//! A chunk that is freed under the walk, and put up again, has only lessees that claimed their slots after the bits
//! were read, and so after the chunk's note was cleared. Notes of chunks outlive the chunks, as do timers.
//!
//! - *slot's note*: stored before the stamp (Release, or `SeqCst`) of its lease, loaded after the stamp
//!   (Acquire, or `SeqCst`). Release and Acquire of its own besides, for [`Held::note`], which is read before the
//!   stamp is looked at: who reads the note of a later lease sees that his own is over.
//! - *slot's note of an idle slot* is written by who holds the slot, so that it is not freed, filled by another
//!   and leased from there with a note that would be overwritten.
//!
//! loom treats `SeqCst` accesses as `AcqRel`. Under `cfg(loom)` a fence stands where the single order is needed, and
//! nowhere else.

use std::mem::ManuallyDrop;

use super::chunk::{Entry, SLOTS};
use super::held::{Held, exchange};
use super::low::matches;
use super::stamp::{HOLDERS_LIMIT, Life, Word};
use super::{Key, Slab, Vacate, pin};
use crate::sync::Backoff;
use crate::sync::atomic::{AtomicU64, Ordering};

/// The note of a chunk that has none.
pub const NO_NOTE: u64 = u64::MAX;

/// How often a walk looks again at a slot that is being filled right now.
const LOOKS: usize = if cfg!(loom) { 2 } else { 64 };

/// loom's stand-in for the single order of `SeqCst` accesses, which it does not model; see the module's `# Ordering`.
#[inline(always)]
pub(super) fn single_order() {
    #[cfg(loom)]
    crate::sync::atomic::fence(Ordering::SeqCst);
}

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
    /// whom the idle slot was handed: of two who lease it at once one succeeds, with the note of either.
    ///
    /// The slot may be removed meanwhile, and its place be taken by another value: that one's note stays.
    pub fn lease_low_noted(&self, low: u64, note: u64) -> Option<Held<C, V>> {
        let located = self.header().locate(Key::index_of_low(low))?;
        let idle = |word: Word| word.life() == Life::Idle && matches(word, low);
        // Held first: the note is written before the lease is taken, and must still be this value's then.
        let held = pin(&located, HOLDERS_LIMIT, idle).ok()?;
        let slot = located.slot();
        slot.note.store(note, Ordering::Release);
        let mut word = Word(slot.stamp.load(Ordering::Relaxed));
        while idle(word) {
            let leased = word.turned(Life::Leased);
            // SeqCst: see "Ordering". Acquires what former holders did to the value meanwhile.
            match slot.stamp.compare_exchange_weak(
                word.0,
                leased.0,
                Ordering::SeqCst,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    single_order();
                    let _pin = ManuallyDrop::new(held);
                    let generation = leased.generation();
                    // SAFETY: the holder that the pin has counted.
                    return Some(unsafe { Held::adopt(located.chunk, located.index, generation) });
                }
                Err(found) => word = Word(found),
            }
        }
        // A registered lookup would keep the chunk from being freed.
        drop(located);
        drop(held);
        None
    }

    /// The note of a chunk; `None` for one that the slab has never had room for. It outlives the chunk's memory.
    #[must_use]
    pub fn chunk_note(&self, chunk: u32) -> Option<&AtomicU64> {
        self.header().entry_within(chunk).map(|entry| &entry.note)
    }

    /// Walks the leased slots of a chunk. The caller has cleared the chunk's note, by a `SeqCst` operation.
    ///
    /// `each` may end leases, also by removing what it finds. Every lease is met that was taken, or shortened, before
    /// the note was cleared and is not over; of one whose lessee reads the note afterwards that cannot be said.
    pub fn leased_in(&self, chunk: u32, mut each: impl FnMut(Noted)) {
        let Some(entry) = self.header().entry_within(chunk) else {
            return;
        };
        single_order();
        // SeqCst: see "Ordering".
        let mut used = entry.full & !entry.bitmap.load(Ordering::SeqCst);
        while used != 0 {
            let slot = used.trailing_zeros();
            used &= used - 1;
            match self.look(entry, slot) {
                Look::Leased(low, note) => each(Noted::Leased { low, note }),
                Look::Unknown => each(Noted::Unknown),
                Look::Other => {}
                // The chunk was given back meanwhile: no lease in it was left.
                Look::Vacant => return,
            }
        }
    }

    /// Looks at one slot of a walk whose bit was not set; no lookup is registered any more when it returns.
    fn look(&self, entry: &Entry<C, V>, number: u32) -> Look {
        let index = entry.first() + number;
        let Some(located) = self.header().locate(index) else {
            return Look::Vacant;
        };
        let slot = located.slot();
        let backoff = Backoff::new();
        for _ in 0..LOOKS {
            // Ordering: acquires the note, which was written before the stamp. SeqCst: see "Ordering".
            let word = Word(slot.stamp.load(Ordering::SeqCst));
            match word.life() {
                Life::Leased => {
                    let note = slot.note.load(Ordering::Relaxed);
                    return Look::Leased(Key::from_parts(index, word.generation()).low(), note);
                }
                // What the slot's last user left, of a slot claimed since or just being emptied. A value may go
                // to the context when its last holder leaves: the stamp says Gone then.
                Life::Free => {}
                Life::Gone if word.holders() == 0 => {}
                Life::Idle | Life::Gone | Life::Dead => return Look::Other,
            }
            if entry.bitmap.load(Ordering::SeqCst) & (1 << number) != 0 {
                return Look::Other;
            }
            backoff.snooze();
        }
        Look::Unknown
    }

    /// Ends the lease under this packed key if the slot's note is at or before `due`. A lease that was
    /// [touched](Held::touch) since the note was read is looked at again.
    ///
    /// A lease of the next generation counts as well: it is the same one [disowned](Held::disown) since, or
    /// that of a value put in its place, which ends if its own note is due.
    pub fn unlease_due(&self, low: u64, due: u64) -> Due {
        let Some(located) = self.header().locate(Key::index_of_low(low)) else {
            return Due::Over;
        };
        let slot = located.slot();
        loop {
            // Ordering: acquires the note, which was written before the stamp.
            let word = Word(slot.stamp.load(Ordering::Acquire));
            // The next generation is leased if the lease was disowned, or if the value was removed and another one
            // was leased in its place: that one's own note decides then.
            let is_same = matches(word, low) || matches(word, Key::low_after_lease(low));
            if word.life() != Life::Leased || !is_same {
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

/// What a walk sees in a slot.
enum Look {
    /// A lease: its packed key and its note.
    Leased(u64, u64),
    /// Being filled or emptied, for longer than the walk waits.
    Unknown,
    /// No lease.
    Other,
    /// No chunk.
    Vacant,
}

impl<C: Vacate<V>, V> Held<C, V> {
    /// The slot's note.
    ///
    /// It is this lease's if the lease [is current](Self::is_current) afterwards.
    #[inline]
    #[must_use]
    pub fn note(&self) -> u64 {
        // Ordering: a later lease's note brings with it that this one is over.
        self.slot().note.load(Ordering::Acquire)
    }

    /// Exchanges the slot's note and [touches](Self::touch) the lease; false when the note was not `current` or the
    /// lease is over. After shortening a lease the caller reads the [chunk's note](Self::chunk_note), as a
    /// lessee does.
    ///
    /// `current` is what [`note`](Self::note) returned while the lease was current. The note of a later lease of
    /// the same value is left alone, unless it is the very same word: then it is put back when the touch
    /// tells, and may have been taken for `new` for that moment.
    #[must_use = "false: the lease had ended, and the change has no effect"]
    pub fn change_note(&self, current: u64, new: u64) -> bool {
        let note = &self.slot().note;
        if note
            .compare_exchange(current, new, Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
        {
            return false;
        }
        // SeqCst: see "Ordering". Releases the note.
        let touched = self.touch_ordered(Ordering::SeqCst);
        single_order();
        if !touched {
            let _ = note.compare_exchange(new, current, Ordering::AcqRel, Ordering::Relaxed);
        }
        touched
    }

    /// The number of the chunk that the slot stands in.
    #[inline]
    #[must_use]
    pub fn chunk_number(&self) -> u32 {
        self.key().index() / SLOTS as u32
    }

    /// The note of any chunk of the slab: [`Slab::chunk_note`].
    #[must_use]
    pub fn slab_chunk_note(&self, chunk: u32) -> Option<&AtomicU64> {
        self.header().entry_within(chunk).map(|entry| &entry.note)
    }

    /// The note of the chunk that the slot stands in: loaded `SeqCst` by who has leased the slot or shortened its
    /// lease, to learn whether a timer stands.
    #[inline]
    #[must_use]
    pub fn chunk_note(&self) -> &AtomicU64 {
        &self.entry().note
    }
}
