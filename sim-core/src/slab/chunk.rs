//! Slots, the chunks they are allocated in, and the directory entries that outlive the chunks.

use std::mem::MaybeUninit;
use std::ptr::NonNull;

use super::stamp::{Life, Word};
use super::store::Header;
use super::witness::Witness;
use crate::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::sync::{Stamp, UnsafeCell};

/// Slots of one chunk: the bits of its bitmap.
#[cfg(not(loom))]
pub(super) const SLOTS: usize = 64;
#[cfg(loom)]
pub(super) const SLOTS: usize = 2;

/// In an entry's guard: the entry has no chunk.
pub(super) const VACANT: u64 = 1;

/// In an entry's guard: one lookup under way.
pub(super) const LOOKUP: u64 = 2;

/// A place for one value.
pub(super) struct Slot<V> {
    pub(super) stamp: Stamp,
    /// A word of the owner's, readable without holding the slot.
    pub(super) note: AtomicU64,
    /// Invariant: initialised while the stamp says Idle, Leased or Gone, up to the moment at which the
    /// thread that emptied the slot takes it. Shared while anybody holds the slot; exclusive to the thread
    /// that claimed the slot's bit, to the one that left it last, or to the sweep.
    value: UnsafeCell<MaybeUninit<V>>,
}

impl<V> Slot<V> {
    /// Puts the value in that `make` returns, made in its place.
    ///
    /// When `make` panics, the slot stays claimed and empty: one slot less.
    ///
    /// # Safety
    /// The caller has claimed the slot's bit and has not published it yet; no value is in.
    #[inline(always)]
    pub(super) unsafe fn write(&self, make: impl FnOnce() -> V) {
        self.value.with_mut(|place| {
            // SAFETY: the pointer is the cell's own; the caller vouches for exclusive access.
            let place = unsafe { &mut *place };
            place.write(make());
        });
    }

    /// Takes the value out.
    ///
    /// # Safety
    /// A value is in, the caller alone may touch it, and nobody reads it afterwards.
    #[inline]
    pub(super) unsafe fn take(&self) -> V {
        self.value.with_mut(|place| {
            // SAFETY: the pointer is the cell's own; the caller vouches for exclusive access.
            let place = unsafe { &*place };
            // SAFETY: the caller vouches that a value is in and that it is read once.
            unsafe { place.assume_init_read() }
        })
    }

    /// The value.
    ///
    /// # Safety
    /// A value is in and the caller holds the slot for as long as the reference lives.
    #[inline]
    pub(super) unsafe fn get<'a>(&self) -> &'a V {
        let place: *const MaybeUninit<V> = self.value.with(|place| place);
        // SAFETY: nobody writes the cell while the slot is held.
        let place = unsafe { &*place };
        // SAFETY: the caller vouches that a value is in.
        unsafe { place.assume_init_ref() }
    }
}

/// 64 slots in one allocation.
pub(super) struct Chunk<C, V> {
    /// The slab; alive as long as any slot of the chunk is in use.
    pub(super) header: NonNull<Header<C, V>>,
    /// The chunk's entry in the directory; lives as long as the slab.
    pub(super) entry: NonNull<Entry<C, V>>,
    witness: Witness,
    slots: [Slot<V>; SLOTS],
}

impl<C, V> Chunk<C, V> {
    /// Allocates a chunk whose slots have seen the generations up to `generation`.
    ///
    /// In place, since 64 values may be more than a stack has room for.
    pub(super) fn allocate(
        header: NonNull<Header<C, V>>,
        entry: NonNull<Entry<C, V>>,
        generation: u64,
    ) -> NonNull<Self> {
        let chunk: *mut Self = Box::into_raw(Box::<Self>::new_uninit()).cast();
        // SAFETY: freshly allocated for this type.
        let header_place = unsafe { &raw mut (*chunk).header };
        // SAFETY: valid for writes, as above.
        unsafe { header_place.write(header) };
        // SAFETY: freshly allocated for this type.
        let entry_place = unsafe { &raw mut (*chunk).entry };
        // SAFETY: valid for writes, as above.
        unsafe { entry_place.write(entry) };
        // SAFETY: freshly allocated for this type.
        let witness_place = unsafe { &raw mut (*chunk).witness };
        // SAFETY: valid for writes, as above.
        unsafe { witness_place.write(Witness::new()) };
        // SAFETY: freshly allocated for this type.
        let slots = unsafe { &raw mut (*chunk).slots }.cast::<Slot<V>>();
        for index in 0..SLOTS {
            // SAFETY: the array has SLOTS elements.
            let slot = unsafe { slots.add(index) };
            let stamp = Stamp::new(Word::new(generation, 0, Life::Free).0);
            let empty = Slot {
                stamp,
                note: AtomicU64::new(0),
                value: UnsafeCell::new(MaybeUninit::uninit()),
            };
            // SAFETY: valid for writes, as above.
            unsafe { slot.write(empty) };
        }
        // SAFETY: comes from a Box.
        unsafe { NonNull::new_unchecked(chunk) }
    }

    /// Frees a chunk; values that are still in are not dropped.
    ///
    /// # Safety
    /// The chunk comes from [`allocate`](Self::allocate) and nobody uses it afterwards.
    pub(super) unsafe fn free(chunk: NonNull<Self>) {
        // SAFETY: allocated as a Box of this type; the caller vouches for the rest.
        let chunk = unsafe { Box::from_raw(chunk.as_ptr()) };
        chunk.witness.freed();
        #[cfg(loom)]
        Box::leak(chunk);
    }

    /// The slot of an index.
    #[inline]
    pub(super) fn slot(&self, index: u32) -> &Slot<V> {
        self.witness.accessed();
        &self.slots[index as usize % SLOTS]
    }

    /// The highest generation in any slot.
    ///
    /// Only for whoever has claimed every slot: the stamps stand still then.
    pub(super) fn highest_generation(&self) -> u64 {
        let generations = self.slots.iter().map(|slot| {
            // Ordering: the claim of the bits acquired what the slots' last users wrote.
            Word(slot.stamp.load(Ordering::Relaxed)).generation()
        });
        generations.max().unwrap_or(0)
    }
}

/// A chunk's place in the directory; never freed before the slab, so that any index may be looked up.
#[cfg_attr(not(loom), repr(align(64)))]
pub(super) struct Entry<C, V> {
    /// A set bit is a free slot. Zero while the entry has no chunk. After the last owner is gone all bits
    /// are set, and whoever frees a slot and finds its bit set knows by it that it is an orphan.
    pub(super) bitmap: Stamp,
    /// Lookups under way times [`LOOKUP`], plus [`VACANT`] when there is no chunk.
    pub(super) guard: Stamp,
    /// The chunk. Valid while a slot of it is in use, while a lookup is registered in a guard that is not
    /// vacant, and under the store's lock; always, for the entries that keep their chunks.
    pub(super) chunk: AtomicPtr<Chunk<C, V>>,
    /// A word of the owner's for the whole chunk; [`NO_NOTE`](super::NO_NOTE) at first.
    pub(super) note: AtomicU64,
    /// The highest generation used by any chunk that stood here. Under the store's lock.
    pub(super) generation: AtomicU64,
    /// The next entry plus one, in the list of vacant entries or in that of chunks with room: an entry is
    /// in one of them at most. Under the store's lock.
    pub(super) next: AtomicU32,
    /// The entry before this one plus one, in the list of chunks with room. Under the store's lock.
    pub(super) previous: AtomicU32,
    /// Whether the entry is in the store's list of chunks with room. Under the store's lock.
    pub(super) listed: AtomicBool,
    /// Whether the entry is among the store's spares. Under the store's lock.
    pub(super) spare: AtomicBool,
    pub(super) witness: Witness,
    /// The entry's place in the directory.
    pub(super) number: u32,
    /// The bitmap of a chunk that is wholly free.
    pub(super) full: u64,
    /// The same where such a chunk may be freed; zero, which no freed slot leaves, where it is kept.
    pub(super) retirable: u64,
}

impl<C, V> Entry<C, V> {
    pub(super) fn vacant(number: u32, full: u64, kept: bool) -> Self {
        Self {
            bitmap: Stamp::new(0),
            guard: Stamp::new(VACANT),
            chunk: AtomicPtr::new(std::ptr::null_mut()),
            generation: AtomicU64::new(0),
            note: AtomicU64::new(super::NO_NOTE),
            next: AtomicU32::new(0),
            previous: AtomicU32::new(0),
            listed: AtomicBool::new(false),
            spare: AtomicBool::new(false),
            witness: Witness::new(),
            number,
            full,
            retirable: if kept { 0 } else { full },
        }
    }

    /// The index of the chunk's first slot.
    #[inline]
    pub(super) fn first(&self) -> u32 {
        self.number * SLOTS as u32
    }

    /// Claims the lowest free slots, up to `want` and at least one.
    #[inline]
    pub(super) fn claim_many(&self, want: usize) -> Option<(NonNull<Chunk<C, V>>, u64)> {
        self.witness.accessed();
        let mut free = self.bitmap.load(Ordering::Relaxed);
        while free != 0 {
            let mut rest = free & (free - 1);
            let mut left = want.saturating_sub(1);
            while left > 0 && rest != 0 {
                rest &= rest - 1;
                left -= 1;
            }
            // Ordering: as in `claim`.
            match self
                .bitmap
                .compare_exchange_weak(free, rest, Ordering::SeqCst, Ordering::Relaxed)
            {
                Ok(_) => {
                    let chunk = self.chunk.load(Ordering::Relaxed);
                    // SAFETY: a chunk with a slot in use stays, so the pointer is that of a Box.
                    let chunk = unsafe { NonNull::new_unchecked(chunk) };
                    return Some((chunk, free & !rest));
                }
                Err(found) => free = found,
            }
        }
        None
    }

    /// Claims the lowest free slot.
    #[inline]
    pub(super) fn claim(&self) -> Option<(NonNull<Chunk<C, V>>, u32)> {
        self.witness.accessed();
        let mut free = self.bitmap.load(Ordering::Relaxed);
        while free != 0 {
            let rest = free & (free - 1);
            // Ordering: acquires what the slot's last user wrote before it set the bit, and what the
            // installation of the chunk wrote before it set all bits. SeqCst for the notes: see `note`.
            match self
                .bitmap
                .compare_exchange_weak(free, rest, Ordering::SeqCst, Ordering::Relaxed)
            {
                Ok(_) => {
                    let chunk = self.chunk.load(Ordering::Relaxed);
                    // SAFETY: a chunk with a slot in use stays, so the pointer is that of a Box.
                    let chunk = unsafe { NonNull::new_unchecked(chunk) };
                    return Some((chunk, self.first() + free.trailing_zeros()));
                }
                Err(found) => free = found,
            }
        }
        None
    }
}
