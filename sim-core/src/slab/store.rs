//! The slab's one allocation: context, directory, stripes, and the lock for what happens once in a chunk.

use std::ptr::{self, NonNull};

use super::chunk::{Chunk, Entry, LOOKUP, SLOTS, Slot, VACANT};
use super::stamp::{Life, ORPHAN, Word};
use super::witness::Witness;
use crate::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{CachePadded, Mutex};

/// Entries of the directory's first bucket; each further one has twice as many.
#[cfg(not(loom))]
const FIRST_BUCKET: u32 = 4;
#[cfg(loom)]
const FIRST_BUCKET: u32 = 1;

/// Buckets for 2^26 chunks of 64 slots, which is what 32 bits of index allow.
#[cfg(not(loom))]
const BUCKETS: usize = 25;
#[cfg(loom)]
const BUCKETS: usize = 3;

/// Stripes that a slab has room for.
#[cfg(not(loom))]
const STRIPES: usize = 8;
#[cfg(loom)]
const STRIPES: usize = 1;

/// Memory that a slab keeps for good when it is not told otherwise.
const KEPT_BYTES: usize = 256 << 10;

/// Wholly free chunks, beyond those kept for good, that wait for their next use before they are freed;
/// fewer, but one, where they would come to more than [`KEPT_BYTES`].
#[cfg(not(loom))]
const SPARES: usize = 8;
#[cfg(loom)]
const SPARES: usize = 0;

/// What the owners together hold of [`Header::pins`]: more than all slots and threads could ever take.
const OWNERS_PIN: u64 = 1 << 48;

/// What threads with the same stripe number share.
pub(super) struct Stripe<C, V> {
    /// The entry that the stripe takes its slots from, or null. Changed under the store's lock.
    current: AtomicPtr<Entry<C, V>>,
}

/// What the lock protects.
struct Store {
    /// Chunks with room that are no stripe's current one, in a list through [`Entry::next`] and
    /// [`Entry::previous`]: the longest listed, the latest, each plus one, and how many. They may have been
    /// exhausted since: whoever takes one looks at its bitmap.
    first_roomy: u32,
    last_roomy: u32,
    roomy: u32,
    /// Retirable chunks that became wholly free; they may be in use again. More than there should be only by
    /// those that lookups kept from being freed.
    spares: Vec<u32>,
    /// The first vacant entry plus one; the rest hangs on [`Entry::next`].
    vacant: u32,
    /// Entries used so far.
    entries: u32,
    /// Entries that have a chunk.
    chunks: u32,
    /// Set when the last owner is gone: the directory stands still from then on.
    closed: bool,
}

/// The one allocation that owners and holders share.
pub(super) struct Header<C, V> {
    pub(super) context: C,
    /// Slots at most.
    pub(super) limit: u32,
    /// The first so many entries keep their chunks once they have them: no lookup there needs the guard.
    kept: u32,
    stripe_mask: usize,
    /// The directory. A bucket is never freed before the slab.
    buckets: [AtomicPtr<Entry<C, V>>; BUCKETS],
    stripes: [CachePadded<Stripe<C, V>>; STRIPES],
    /// Owning handles.
    pub(super) owners: CachePadded<AtomicUsize>,
    /// What keeps the allocation: [`OWNERS_PIN`] while there are owners, one for each orphaned slot, and
    /// one for each thread that has freed a slot and still works on the store.
    pins: CachePadded<AtomicU64>,
    store: CachePadded<Mutex<Store>>,
    pub(super) witness: Witness,
}

impl<C, V> Header<C, V> {
    pub(super) fn allocate(context: C, limit: u32, kept_slots: usize) -> NonNull<Self> {
        let store = Store {
            first_roomy: 0,
            last_roomy: 0,
            roomy: 0,
            spares: Vec::with_capacity(SPARES + 1),
            vacant: 0,
            entries: 0,
            chunks: 0,
            closed: false,
        };
        let header = Box::new(Self {
            context,
            limit,
            kept: u32::try_from(kept_slots / SLOTS).unwrap_or(u32::MAX),
            stripe_mask: stripe_count() - 1,
            buckets: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            stripes: std::array::from_fn(|_| {
                CachePadded::new(Stripe {
                    current: AtomicPtr::new(ptr::null_mut()),
                })
            }),
            owners: CachePadded::new(AtomicUsize::new(1)),
            pins: CachePadded::new(AtomicU64::new(OWNERS_PIN)),
            store: CachePadded::new(Mutex::new(store)),
            witness: Witness::new(),
        });
        NonNull::from(Box::leak(header))
    }

    /// Slots whose memory a slab keeps when it is not told otherwise: 256 KiB of it.
    pub(super) const fn usual_kept_slots() -> usize {
        KEPT_BYTES / size_of::<Chunk<C, V>>() * SLOTS
    }

    /// How many spares a slab of these values may have.
    const fn spares() -> usize {
        match KEPT_BYTES / size_of::<Chunk<C, V>>() {
            0 if SPARES > 0 => 1,
            fitting if fitting < SPARES => fitting,
            _ => SPARES,
        }
    }

    /// Claims a slot, or finds none within the limit.
    #[inline]
    pub(super) fn claim(&self) -> Option<(NonNull<Chunk<C, V>>, u32)> {
        let stripe = &self.stripes[stripe_number() & self.stripe_mask];
        loop {
            // Ordering: acquires the entry, whose bucket was allocated before the pointer was stored.
            let current = stripe.current.load(Ordering::Acquire);
            // SAFETY: null, or an entry of the directory, which lives as long as the slab.
            if let Some(entry) = unsafe { current.as_ref() }
                && let Some(claimed) = entry.claim()
            {
                return Some(claimed);
            }
            if !self.refill(stripe) {
                return None;
            }
        }
    }

    /// Claims up to `want` slots of one chunk, at least one, or finds none within the limit.
    #[inline]
    pub(super) fn claim_many(&self, want: usize) -> Option<(NonNull<Chunk<C, V>>, u64)> {
        let stripe = &self.stripes[stripe_number() & self.stripe_mask];
        loop {
            // Ordering: as in `claim`.
            let current = stripe.current.load(Ordering::Acquire);
            // SAFETY: null, or an entry of the directory, which lives as long as the slab.
            if let Some(entry) = unsafe { current.as_ref() }
                && let Some(claimed) = entry.claim_many(want)
            {
                return Some(claimed);
            }
            if !self.refill(stripe) {
                return None;
            }
        }
    }

    /// Gives the stripe a current chunk with room; false when the limit is reached.
    #[cold]
    fn refill(&self, stripe: &Stripe<C, V>) -> bool {
        let mut store = self.store.lock();
        let former = stripe.current.load(Ordering::Relaxed);
        // SAFETY: null, or an entry of the directory, which lives as long as the slab.
        let former = unsafe { former.as_ref() };
        if former.is_some_and(has_room) {
            return true;
        }
        let Some(next) = self.find_room(&mut store) else {
            return false;
        };
        // Ordering: releases the entry to the threads of the stripe that do not take the lock.
        stripe
            .current
            .store(ptr::from_ref(next).cast_mut(), Ordering::Release);
        // The former one had no room under the lock: whoever frees the first slot of it lists it.
        true
    }

    /// Finds a chunk with room: one listed, else a new one, else one that another stripe uses.
    ///
    /// While the chunks kept for good are not all there, a new one is preferred to the only one listed:
    /// a queue that drains its oldest chunk while it fills its newest would list and exhaust the oldest
    /// with every slot.
    fn find_room(&self, store: &mut Store) -> Option<&Entry<C, V>> {
        if store.roomy < 2 && store.entries < self.kept.min(self.chunk_limit()) {
            return self.install(store);
        }
        while let Some(number) = store.first_roomy.checked_sub(1) {
            let entry = self.entry(number)?;
            self.unlist(store, entry);
            if has_room(entry) {
                return Some(entry);
            }
        }
        self.install(store).or_else(|| {
            self.stripes.iter().find_map(|stripe| {
                let current = stripe.current.load(Ordering::Relaxed);
                // SAFETY: null, or an entry of the directory, which lives as long as the slab.
                unsafe { current.as_ref() }.filter(|entry| has_room(entry))
            })
        })
    }

    /// Puts a new chunk into a vacant entry.
    fn install(&self, store: &mut Store) -> Option<&Entry<C, V>> {
        let entry = if let Some(number) = store.vacant.checked_sub(1) {
            let entry = self.entry(number)?;
            store.vacant = entry.next.load(Ordering::Relaxed);
            entry
        } else if store.entries < self.chunk_limit() {
            let entry = self.entry_or_bucket(store.entries);
            store.entries += 1;
            entry
        } else {
            return None;
        };
        let generation = entry.generation.load(Ordering::Relaxed);
        let chunk = Chunk::allocate(NonNull::from(self), NonNull::from(entry), generation);
        // Ordering: releases the chunk to lookups in the entries that keep theirs.
        entry.chunk.store(chunk.as_ptr(), Ordering::Release);
        // Ordering: releases the chunk to lookups that register in the guard. Subtracted and not stored:
        // lookups that find the entry vacant come and go meanwhile.
        entry.guard.fetch_sub(VACANT, Ordering::Release);
        // Ordering: releases the chunk to those who claim a slot.
        entry.bitmap.store(entry.full, Ordering::Release);
        store.chunks += 1;
        Some(entry)
    }

    /// Puts a chunk on the list of those with room, unless it is there or some stripe uses it.
    fn list(&self, store: &mut Store, entry: &Entry<C, V>) {
        if self.is_current(entry) || entry.listed.swap(true, Ordering::Relaxed) {
            return;
        }
        entry.next.store(0, Ordering::Relaxed);
        entry.previous.store(store.last_roomy, Ordering::Relaxed);
        match store
            .last_roomy
            .checked_sub(1)
            .and_then(|last| self.entry(last))
        {
            Some(last) => last.next.store(entry.number + 1, Ordering::Relaxed),
            None => store.first_roomy = entry.number + 1,
        }
        store.last_roomy = entry.number + 1;
        store.roomy += 1;
    }

    /// Takes a chunk off that list, if it is there.
    fn unlist(&self, store: &mut Store, entry: &Entry<C, V>) {
        if !entry.listed.swap(false, Ordering::Relaxed) {
            return;
        }
        let next = entry.next.load(Ordering::Relaxed);
        let previous = entry.previous.load(Ordering::Relaxed);
        match previous
            .checked_sub(1)
            .and_then(|previous| self.entry(previous))
        {
            Some(before) => before.next.store(next, Ordering::Relaxed),
            None => store.first_roomy = next,
        }
        match next.checked_sub(1).and_then(|next| self.entry(next)) {
            Some(after) => after.previous.store(previous, Ordering::Relaxed),
            None => store.last_roomy = previous,
        }
        store.roomy -= 1;
    }

    fn is_current(&self, entry: &Entry<C, V>) -> bool {
        self.stripes
            .iter()
            .any(|stripe| ptr::eq(stripe.current.load(Ordering::Relaxed), ptr::from_ref(entry)))
    }

    /// Frees a slot that the caller has emptied, and with it the caller's hold on the allocation.
    ///
    /// # Safety
    /// The caller owned the slot exclusively, took or dropped its value, and touches neither it nor the
    /// slab afterwards, unless something else keeps them.
    #[inline]
    pub(super) unsafe fn give_back(chunk: NonNull<Chunk<C, V>>, index: u32, generation: u64) {
        if generation >= super::stamp::LAST_GENERATION {
            // SAFETY: the caller's slot keeps the chunk until its bit is set.
            let (header, slot) = unsafe {
                let chunk = chunk.as_ref();
                (chunk.header, chunk.slot(index))
            };
            // SAFETY: the slot keeps the slab until it says that it is dead.
            unsafe { Self::bury(header, slot, generation) };
            return;
        }
        // SAFETY: as the caller vouches.
        unsafe { Self::give_back_many(chunk, 1 << (index as usize % SLOTS)) };
    }

    /// Frees several slots of one chunk, none of which has used up its generations: with one compare-and-swap.
    ///
    /// # Safety
    /// As for [`give_back`](Self::give_back), for each of the slots in `bits`, of which there is at least one.
    #[inline]
    pub(super) unsafe fn give_back_many(chunk: NonNull<Chunk<C, V>>, bits: u64) {
        // SAFETY: the caller's slots keep the chunk until their bits are set.
        let (header, entry_pointer) = unsafe {
            let chunk = chunk.as_ref();
            (chunk.header, chunk.entry)
        };
        // SAFETY: the slots keep the slab until their bits are set.
        let entry = unsafe { entry_pointer.as_ref() };
        entry.witness.accessed();
        let retirable = entry.retirable;
        let mut free = entry.bitmap.load(Ordering::Relaxed);
        loop {
            if free & bits != 0 {
                // The sweep, which sets all bits at once, has set these: the slots are orphans, and each
                // counts among the pins.
                // SAFETY: the orphans' own pins are given up.
                unsafe { Self::unpin(header, u64::from(bits.count_ones())) };
                return;
            }
            let filled = free | bits;
            if free == 0 || filled == retirable {
                // SAFETY: the slots keep the slab until their bits are set.
                if unsafe { Self::give_back_and_sort(header, entry_pointer, free, filled) } {
                    return;
                }
                free = entry.bitmap.load(Ordering::Relaxed);
                continue;
            }
            // Ordering: releases the emptied slot to whoever claims it next, and the whole chunk to
            // whoever frees it. Nothing of the slab is touched after it.
            match entry.bitmap.compare_exchange_weak(
                free,
                filled,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(found) => free = found,
            }
        }
    }

    /// Sets a slot's bit when that changes what the store must know: that the chunk has room again, or
    /// that it is wholly free. False when the bitmap had changed.
    ///
    /// # Safety
    /// As for [`give_back`](Self::give_back).
    #[cold]
    unsafe fn give_back_and_sort(
        header: NonNull<Self>,
        entry: NonNull<Entry<C, V>>,
        free: u64,
        filled: u64,
    ) -> bool {
        // SAFETY: entries live as long as the slab.
        let entry = unsafe { entry.as_ref() };
        // SAFETY: the slot keeps the slab until its bit is set, and the pin from then on.
        let this = unsafe { header.as_ref() };
        // Ordering: like Arc's clone, a pin is taken where another one (the slot) stands.
        this.pins.fetch_add(1, Ordering::Relaxed);
        let set = entry
            .bitmap
            .compare_exchange(free, filled, Ordering::Release, Ordering::Relaxed)
            .is_ok();
        if set {
            this.sort(entry, free == 0, filled == entry.retirable);
        }
        // SAFETY: taken above.
        unsafe { Self::unpin(header, 1) };
        set
    }

    /// Tells the store about a chunk that has room again or is wholly free.
    fn sort(&self, entry: &Entry<C, V>, roomy: bool, wholly: bool) {
        let mut store = self.store.lock();
        if store.closed {
            return;
        }
        // It may have been exhausted or freed meanwhile; a vacant entry is in another list.
        if roomy && has_room(entry) {
            self.list(&mut store, entry);
        }
        if wholly && !entry.spare.swap(true, Ordering::Relaxed) {
            store.spares.push(entry.number);
            if store.spares.len() > Self::spares() {
                self.retire_spare(&mut store);
            }
        }
    }

    /// Frees a spare chunk: the one with the highest number that can be.
    ///
    /// Low numbers are the older memory: an allocator that gives back the end of its heap is not kept from
    /// it by the spares of a slab that was large for a while.
    fn retire_spare(&self, store: &mut Store) {
        store.spares.sort_unstable();
        for position in (0..store.spares.len()).rev() {
            let Some(entry) = store
                .spares
                .get(position)
                .and_then(|&number| self.entry(number))
            else {
                return;
            };
            if self.retire(store, entry) || !is_whole(entry) {
                // Freed, or in use again: then it comes back when it is wholly free once more.
                store.spares.remove(position);
                entry.spare.store(false, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Frees a chunk if it is wholly free and nobody looks into it.
    fn retire(&self, store: &mut Store, entry: &Entry<C, V>) -> bool {
        // Ordering: acquires what every user of the chunk wrote before it set its bit. From here on every
        // slot is claimed: nobody allocates in the chunk, and no lookup finds anything to pin.
        let claimed =
            entry
                .bitmap
                .compare_exchange(entry.full, 0, Ordering::Acquire, Ordering::Relaxed);
        if claimed.is_err() {
            return false;
        }
        // Ordering: acquires the reads of the lookups that have left. Those that come see VACANT.
        let closed = entry
            .guard
            .compare_exchange(0, VACANT, Ordering::Acquire, Ordering::Relaxed);
        if closed.is_err() {
            // Ordering: as at installation; every slot is still this thread's to give.
            entry.bitmap.store(entry.full, Ordering::Release);
            self.list(store, entry);
            return false;
        }
        let chunk = entry.chunk.swap(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: the entry was not vacant, and the lock keeps others from freeing its chunk.
        let chunk = unsafe { NonNull::new_unchecked(chunk) };
        // SAFETY: as above; every slot is claimed.
        let generation = unsafe { chunk.as_ref() }.highest_generation();
        entry.generation.store(generation, Ordering::Relaxed);
        // SAFETY: every slot is claimed and empty, and the guard keeps lookups out.
        unsafe { Chunk::free(chunk) };
        self.unlist(store, entry);
        entry.next.store(store.vacant, Ordering::Relaxed);
        store.vacant = entry.number + 1;
        store.chunks -= 1;
        true
    }

    /// Frees every chunk that is wholly free, save those kept for good.
    pub(super) fn shrink(&self) {
        let mut store = self.store.lock();
        for number in self.kept..store.entries {
            if let Some(entry) = self.entry(number) {
                // A vacant entry's bitmap is zero, so that it is not mistaken for a free chunk.
                self.retire(&mut store, entry);
            }
        }
    }

    /// Slots in use, counted chunk by chunk while others go on.
    pub(super) fn occupied(&self) -> usize {
        let entries = self.store.lock().entries;
        (0..entries)
            .filter_map(|number| self.entry(number))
            .filter(|entry| !entry.chunk.load(Ordering::Relaxed).is_null())
            .map(|entry| (entry.full & !entry.bitmap.load(Ordering::Relaxed)).count_ones() as usize)
            .sum()
    }

    /// Slots of the chunks that are there.
    pub(super) fn allocated(&self) -> usize {
        let chunks = self.store.lock().chunks as usize;
        (chunks * SLOTS).min(self.limit as usize)
    }

    /// Looks up any index, be it stale or made up.
    #[inline(always)]
    pub(super) fn locate(&self, index: u32) -> Option<Located<'_, C, V>> {
        if index >= self.limit {
            return None;
        }
        let number = index / SLOTS as u32;
        let entry = self.entry(number)?;
        if number < self.kept {
            // Ordering: acquires the chunk from its installation.
            let chunk = NonNull::new(entry.chunk.load(Ordering::Acquire))?;
            return Some(Located {
                chunk,
                index,
                guard: None,
            });
        }
        if entry.guard.load(Ordering::Relaxed) & VACANT != 0 {
            return None;
        }
        // Ordering: acquires the chunk from its installation.
        let guard = entry.guard.fetch_add(LOOKUP, Ordering::Acquire);
        if guard & VACANT != 0 {
            entry.guard.fetch_sub(LOOKUP, Ordering::Relaxed);
            return None;
        }
        // SAFETY: the entry was not vacant, and is not made so while a lookup is registered.
        let chunk = unsafe { NonNull::new_unchecked(entry.chunk.load(Ordering::Relaxed)) };
        Some(Located {
            chunk,
            index,
            guard: Some(entry),
        })
    }

    /// The entry of a chunk number, if its bucket is there.
    #[inline(always)]
    pub(super) fn entry(&self, number: u32) -> Option<&Entry<C, V>> {
        let (bucket, offset) = place_of(number);
        // Ordering: acquires the bucket's entries.
        let bucket = NonNull::new(self.buckets.get(bucket)?.load(Ordering::Acquire))?;
        // SAFETY: place_of keeps the offset below the bucket's length.
        let entry = unsafe { bucket.add(offset) };
        // SAFETY: buckets live as long as the slab and are only shared.
        let entry = unsafe { entry.as_ref() };
        entry.witness.accessed();
        Some(entry)
    }

    /// The entry of any number, be it made up, that a chunk of this slab may have, if its bucket is there.
    #[inline]
    pub(super) fn entry_within(&self, number: u32) -> Option<&Entry<C, V>> {
        if number < self.chunk_limit() {
            self.entry(number)
        } else {
            None
        }
    }

    /// The entry of a chunk number, whose bucket is allocated if need be. Under the store's lock.
    fn entry_or_bucket(&self, number: u32) -> &Entry<C, V> {
        let (bucket, offset) = place_of(number);
        let first = number - offset as u32;
        let slot = &self.buckets[bucket];
        if slot.load(Ordering::Relaxed).is_null() {
            let entries: Box<[Entry<C, V>]> = (first..)
                .take(bucket_len(bucket))
                .map(|number| Entry::vacant(number, self.full_bitmap(number), number < self.kept))
                .collect();
            // Ordering: releases the entries to lookups.
            slot.store(Box::into_raw(entries).cast(), Ordering::Release);
        }
        let bucket = slot.load(Ordering::Relaxed);
        // SAFETY: place_of keeps the offset below the bucket's length.
        let entry = unsafe { bucket.add(offset) };
        // SAFETY: buckets live as long as the slab and are only shared.
        unsafe { &*entry }
    }

    fn chunk_limit(&self) -> u32 {
        self.limit.div_ceil(SLOTS as u32)
    }

    /// The bitmap of a wholly free chunk: the last one may have fewer slots.
    fn full_bitmap(&self, number: u32) -> u64 {
        let first = u64::from(number) * SLOTS as u64;
        match u64::from(self.limit)
            .saturating_sub(first)
            .min(SLOTS as u64)
        {
            64 => u64::MAX,
            slots => (1 << slots) - 1,
        }
    }

    /// Leaves a slot that has used up its generations out for good.
    ///
    /// # Safety
    /// As for [`give_back`](Self::give_back).
    #[cold]
    unsafe fn bury(header: NonNull<Self>, slot: &Slot<V>, generation: u64) {
        // Ordering: releases the emptied slot to the sweep and acquires the sweep's mark.
        let former = slot
            .stamp
            .swap(Word::new(generation, 0, Life::Dead).0, Ordering::AcqRel);
        if Word(former).is_orphan() {
            // SAFETY: the sweep counted the slot among the pins.
            unsafe { Self::unpin(header, 1) };
        }
    }

    /// Gives up pins; the last one frees the slab.
    ///
    /// # Safety
    /// The caller owns the pins and does not touch the slab afterwards.
    unsafe fn unpin(header: NonNull<Self>, pins: u64) {
        // SAFETY: the caller's pins keep the slab.
        let this = unsafe { header.as_ref() };
        this.witness.accessed();
        // Ordering: releases what this thread did to the slab to the last one, which acquires it all.
        if this.pins.fetch_sub(pins, Ordering::AcqRel) == pins {
            // SAFETY: nobody else is left.
            unsafe { Self::free(header) };
        }
    }

    /// Frees the slab: chunks, directory, context.
    ///
    /// # Safety
    /// No pin is left.
    #[cold]
    unsafe fn free(header: NonNull<Self>) {
        // SAFETY: allocated as a Box of this type and not used by anybody else.
        let header = unsafe { Box::from_raw(header.as_ptr()) };
        for (number, bucket) in header.buckets.iter().enumerate() {
            let Some(first) = NonNull::new(bucket.load(Ordering::Relaxed)) else {
                continue;
            };
            let entries = NonNull::slice_from_raw_parts(first, bucket_len(number));
            // SAFETY: made from a boxed slice of that length.
            let entries = unsafe { Box::from_raw(entries.as_ptr()) };
            for entry in &entries {
                entry.witness.freed();
                if let Some(chunk) = NonNull::new(entry.chunk.load(Ordering::Relaxed)) {
                    // SAFETY: no slot is in use any more.
                    unsafe { Chunk::free(chunk) };
                }
            }
            #[cfg(loom)]
            Box::leak(entries);
        }
        header.witness.freed();
        #[cfg(loom)]
        // SAFETY: the rest of the box is leaked, and the context is not used afterwards.
        drop(unsafe { ptr::read(&raw const Box::leak(header).context) });
    }

    /// Called by the last owner: drops what nobody holds and leaves the rest to its holders.
    ///
    /// # Safety
    /// The caller was the last owner and does not touch the slab afterwards.
    #[cold]
    pub(super) unsafe fn abandon(header: NonNull<Self>) {
        // SAFETY: the owners' pin keeps the slab.
        let this = unsafe { header.as_ref() };
        // From here on nobody frees or lists a chunk. Values are dropped without the lock: their drop is
        // foreign code and may let go of other slots.
        let entries = {
            let mut store = this.store.lock();
            store.closed = true;
            store.entries
        };
        let mut sweep = Sweep {
            header,
            entries,
            number: 0,
            chunk: NonNull::dangling(),
            bits: 0,
            left: 0,
        };
        sweep.run();
    }
}

/// The walk of the last owner over all slots; goes on in its own drop when a value's drop panics.
struct Sweep<C, V> {
    header: NonNull<Header<C, V>>,
    entries: u32,
    /// The next entry to look at.
    number: u32,
    /// The chunk under way, and its slots in use that have not been looked at yet.
    chunk: NonNull<Chunk<C, V>>,
    bits: u64,
    /// Slots left to their holders.
    left: u64,
}

impl<C, V> Sweep<C, V> {
    fn run(&mut self) {
        while let Some((chunk, index)) = self.next() {
            // SAFETY: no chunk is freed while the owners' pin stands.
            let slot = unsafe { chunk.as_ref() }.slot(index);
            // Ordering: acquires what former holders did to the value, since the sweep may drop it.
            let word = Word(slot.stamp.fetch_or(ORPHAN, Ordering::Acquire));
            match word.life() {
                Life::Dead => {}
                Life::Idle | Life::Leased if word.holders() == 0 => {
                    // SAFETY: nobody holds the slot and nobody can any more, so the value is the sweep's.
                    drop(unsafe { slot.take() });
                }
                // Held, or being freed right now: the last holder finds the bit set and gives up a pin.
                _ => self.left += 1,
            }
        }
    }

    /// The next slot in use.
    fn next(&mut self) -> Option<(NonNull<Chunk<C, V>>, u32)> {
        // SAFETY: the owners' pin keeps the slab until the sweep is over.
        let header = unsafe { self.header.as_ref() };
        while self.bits == 0 {
            if self.number == self.entries {
                return None;
            }
            let entry = header.entry(self.number)?;
            self.number += 1;
            if let Some(chunk) = NonNull::new(entry.chunk.load(Ordering::Relaxed)) {
                self.chunk = chunk;
                // Ordering: the holders' stamps and the pins order the rest.
                self.bits = entry.full & !entry.bitmap.swap(entry.full, Ordering::AcqRel);
            }
        }
        let slot = self.bits.trailing_zeros();
        self.bits &= self.bits - 1;
        Some((self.chunk, slot))
    }
}

impl<C, V> Drop for Sweep<C, V> {
    fn drop(&mut self) {
        self.run();
        // SAFETY: the owners' pin, less one for each slot that is left, is the sweep's to give up.
        unsafe { Header::unpin(self.header, OWNERS_PIN - self.left) };
    }
}

/// A slot that was looked up; keeps its chunk as long as it lives.
pub(super) struct Located<'a, C, V> {
    pub(super) chunk: NonNull<Chunk<C, V>>,
    pub(super) index: u32,
    /// The entry whose guard counts this lookup; none where the chunk is kept for good.
    guard: Option<&'a Entry<C, V>>,
}

impl<'a, C, V> Located<'a, C, V> {
    /// The slot.
    #[inline]
    pub(super) fn slot(&self) -> &Slot<V> {
        // SAFETY: the chunk is kept for good or by the guard.
        unsafe { self.chunk.as_ref() }.slot(self.index)
    }
}

impl<C, V> Drop for Located<'_, C, V> {
    #[inline]
    fn drop(&mut self) {
        if let Some(entry) = self.guard {
            // Ordering: releases this lookup's reads to whoever frees the chunk.
            entry.guard.fetch_sub(LOOKUP, Ordering::Release);
        }
    }
}

fn has_room<C, V>(entry: &Entry<C, V>) -> bool {
    entry.bitmap.load(Ordering::Relaxed) != 0
}

fn is_whole<C, V>(entry: &Entry<C, V>) -> bool {
    entry.bitmap.load(Ordering::Relaxed) == entry.full
}

/// Bucket and offset of an entry: bucket `b` has `FIRST_BUCKET << b` entries.
#[inline(always)]
const fn place_of(number: u32) -> (usize, usize) {
    let shifted = number + FIRST_BUCKET;
    let bucket = shifted.ilog2() - FIRST_BUCKET.ilog2();
    (
        bucket as usize,
        (shifted - (FIRST_BUCKET << bucket)) as usize,
    )
}

const fn bucket_len(bucket: usize) -> usize {
    (FIRST_BUCKET as usize) << bucket
}

/// A number that differs between threads as far as it can, handed out in turn.
#[cfg(not(loom))]
#[inline]
fn stripe_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    MINE.with(|mine| *mine)
}

/// One stripe is enough for a model.
#[cfg(loom)]
fn stripe_number() -> usize {
    0
}

/// A power of two: the processors, at most [`STRIPES`].
#[cfg(not(loom))]
fn stripe_count() -> usize {
    static COUNT: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *COUNT.get_or_init(|| {
        let processors = crate::sync::thread::available_parallelism().map_or(1, usize::from);
        processors.next_power_of_two().min(STRIPES)
    })
}

#[cfg(loom)]
fn stripe_count() -> usize {
    STRIPES
}
