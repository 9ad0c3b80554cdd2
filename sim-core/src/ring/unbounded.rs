//! An unbounded ring in a chain of segments.
//!
//! # Algorithm
//! The shape is that of crossbeam's `SegQueue` (crossbeam-queue, `seg_queue.rs`): a chain of segments, an index and a
//! segment pointer at either end, and in each lap of the index one value that stands for no cell, at which the
//! thread that claimed the last cell of a segment swings the end over to the next one while the others
//! wait. An index is claimed by compare-and-swap *before* the segment is dereferenced: the claimed cell then
//! keeps its segment alive, so that neither epochs nor hazard pointers are needed. What differs here:
//! - A consumer's knowledge of the tail is copied onto the consumers' own cache line, and refreshed only when it
//!   says "empty"; the producers' line is left alone otherwise.
//! - A cell's stamp is derived from its index and never repeats, so that a segment is used again without
//!   clearing, and a stale reader recognises it.
//! - An element costs its consumer one read-modify-write instead of two: it marks its cell taken with a plain
//!   `Release` store. Whoever empties the last cell of a segment looks whether all the others are marked; if one is not
//!   (its consumer is still moving the value out), the segment goes to the *retired* list, which the next
//!   one to retire a segment looks through again.
//! - One emptied segment is kept as a spare for the producers; the others go back to the allocator.
//! - A batch of pushes is one claim, whatever segments it crosses: the value of the index that stands for no cell locks the tail,
//!   so that it can be set to any place in segments prepared beforehand.
//! - The ring is closed by a mark on the tail's index. It is the highest bit, and the offset that a push looks at anyway is taken
//!   together with it, so that a marked tail is none of those at which a push simply claims. While the tail is
//!   locked, [`Unbounded::close`] waits: otherwise a part of a batch would be counted before and a part after.
//! - [`Unbounded::front`] and [`Unbounded::pop_if`] read a cell that they have not claimed. They count themselves as *readers*
//!   while they do, and no segment goes back to the allocator while one is counted (it may be used again; the stamps tell).
//!
//! # States
//! For the cell of index `i`: its stamp is below `4 * i + 1` before it is published, whatever was there;
//! `4 * i + 1` when it is full; `4 * i + 3` when it is a hole (claimed by a batch whose iterator panicked or
//! yielded less than it announced); `4 * i + 2` when it has been taken.
//!
//! For an end of the ring, `offset = index % LAP`:
//!
//! | offset | meaning | who moves it on |
//! | --- | --- | --- |
//! | below `CELLS` | the cell in the end's segment that is claimed next | anybody, by compare-and-swap |
//! | `CELLS` | the segment is used up | only the thread that brought it there: it stores the next segment, then the index |
//!
//! For the tail besides: *open*, then, once and for ever, *closed*: its index with the mark, at an offset below `CELLS`.
//! Nothing but a compare-and-swap from an unmarked value, and the store of the thread that locked an unmarked tail, ever
//! moves it.
//!
//! For a segment: *linked* (tail's, or in the chain up to head's), *retired* (behind the head, in the list),
//! *spare* (at most one), or freed.
//!
//! # Ordering
//! - full/hole stored `Release` by the producer, loaded `Acquire` by the consumer: the value is written before it is read.
//! - taken stored `Release` by the consumer, loaded `Acquire` by who retires the segment: the value is moved out
//!   before the segment is used again or freed.
//! - an end's segment stored `Release` before its index is, index loaded `Acquire` before the segment is: with a
//!   compare-and-swap of that same index succeeding, the segment is the one that the index belongs to. (A newer segment can be
//!   loaded with an older index; the segment's `Release`/`Acquire` then makes the compare-and-swap fail.)
//! - `next` stored `Release` when a segment is linked, loaded `Acquire` by the consumer that moves on: the
//!   fresh stamps are there before they are looked at.
//! - spare and retired list: `Release` when a segment is put there, `Acquire` when it is taken from there.
//! - readers: a reader adds itself (`AcqRel`) before it loads the head's segment; who frees segments adds 0
//!   (`AcqRel`) after they were unlinked. Either the latter sees the former, or the former sees the head moved on.
//! - keys: as in [`bounded`](super::Bounded): stored `Release`, loaded `Acquire`, stamp looked at again.
//! - the mark is set `SeqCst`, and the tail loaded `Acquire` by a push: what was done before the ring was closed is seen by whom it
//!   refuses. That no push claims after the mark needs no ordering: it is one variable.
//! - claims, and the loads that answer "empty", are `SeqCst` for the sake of waiters only, as in the bounded ring.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr;

use super::{Cell, Entry, Key, Patience};
use crate::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use crate::sync::{CachePadded, Life, Stamp};

/// The cell holds an element.
const FULL: u64 = 1;
/// The cell's element was moved out.
const TAKEN: u64 = 2;
/// The cell was claimed and its element never came.
const HOLE: u64 = 3;

/// The mark on the tail's index of a closed ring, above every index.
const CLOSED: u64 = 1 << 63;

/// Stands for a segment's first index when its cells need not be looked at.
const EMPTIED: u64 = u64::MAX;

/// The stamp of an index in a state.
#[inline(always)]
const fn stamp(index: u64, state: u64) -> u64 {
    (index << 2) + state
}

/// Some cells in a row, and the way to the next ones. The cells follow the header in the same allocation.
///
/// Aligned to a cache line: copies to misaligned cells are slow.
#[repr(C, align(64))]
struct Segment<T, K: Key> {
    /// The next segment of the chain, or of the retired list.
    ///
    /// Invariant: null until the producer that claimed the last cell links it; from then on unchanged until
    /// the segment is retired; from then on accessed by the list's owner.
    next: AtomicPtr<Segment<T, K>>,
    /// The index of the first cell. Set by who links the segment, before it is linked; looked at by who
    /// retires it. [`EMPTIED`] when nothing stands in it and nobody moves values any more.
    first: AtomicU64,
    /// For loom: no cell is accessed once the segment is freed.
    life: Life,
    /// What was allocated: the segment lies in it.
    allocation: *mut u8,
    cells: [Cell<T, K>; 0],
}

/// One end of the ring.
struct End<T, K: Key> {
    index: Stamp,
    segment: AtomicPtr<Segment<T, K>>,
}

/// The line that consumers write.
struct Consumers<T, K: Key> {
    end: End<T, K>,
    /// A tail index seen earlier. Invariant: at most the tail's.
    tail_seen: AtomicU64,
}

/// The line that is touched once a segment.
struct Memory<T, K: Key> {
    /// An emptied segment, or null.
    spare: AtomicPtr<Segment<T, K>>,
    /// Segments behind the head that were not yet empty, or were looked at by a reader. Only ever taken as a whole.
    retired: AtomicPtr<Segment<T, K>>,
    /// How many threads look at a cell that they have not claimed.
    readers: AtomicU64,
}

/// An unbounded lock-free FIFO ring for many producers and many consumers.
///
/// # Examples
/// ```
/// use sim_core::ring::Unbounded;
///
/// let ring: Unbounded<&str> = Unbounded::new();
/// assert_eq!(ring.push("a"), Ok(0));
/// assert_eq!(ring.push_batch(&mut ["b", "c"].into_iter()), (1, 2));
/// let mut taken = Vec::new();
/// assert_eq!(ring.pop_batch(10, |entry| taken.push(entry.value)), 3);
/// assert_eq!(taken, ["a", "b", "c"]);
/// ```
pub struct Unbounded<T, K: Key = ()> {
    /// Its index carries [`CLOSED`] when no push claims any more.
    tail: CachePadded<End<T, K>>,
    head: CachePadded<Consumers<T, K>>,
    memory: CachePadded<Memory<T, K>>,
}

// SAFETY: the ring owns its elements and hands each one to a single thread.
unsafe impl<T: Send, K: Key> Send for Unbounded<T, K> {}
// SAFETY: through a shared reference elements are only moved in and out, each by the one thread that claimed
// its cell; no reference to an element is given out, so `T: Sync` is not needed.
unsafe impl<T: Send, K: Key> Sync for Unbounded<T, K> {}

impl<T, K: Key> Segment<T, K> {
    /// Indices in a lap: the cells of a segment and the one that stands for none. A power of two.
    ///
    /// Aims at segments of about 4 KiB, within limits that keep the costs of changing segments small and a
    /// nearly empty ring of large elements from holding many of them.
    const LAP: u64 = if cfg!(loom) {
        // Small, so that few steps change segments; for large elements each step does.
        if size_of::<T>() > 8 { 2 } else { 4 }
    } else {
        match size_of::<Cell<T, K>>() {
            0..=24 => 256,
            25..=48 => 128,
            49..=96 => 64,
            97..=192 => 32,
            _ => 16,
        }
    };

    /// Cells in a segment.
    const CELLS: u64 = Self::LAP - 1;

    /// The layout of the allocation: the segment, with room to align it by hand. Zeroed memory of the allocator's natural
    /// alignment comes from the system as it is, whereas over-aligned memory is written to once more.
    fn layout() -> Layout {
        let cells = Layout::array::<Cell<T, K>>(Self::CELLS as usize).expect("a segment fits");
        let segment = Layout::new::<Self>()
            .extend(cells)
            .expect("a segment fits")
            .0;
        let bytes = segment.size() + segment.align() - align_of::<u64>();
        Layout::from_size_align(bytes, align_of::<u64>()).expect("a segment fits")
    }

    /// Allocates a segment whose cells were never used.
    #[cold]
    fn allocate() -> *mut Self {
        let layout = Self::layout();
        // SAFETY: the layout's size is not zero: there is a header.
        let allocation = unsafe { alloc_zeroed(layout) };
        if allocation.is_null() {
            handle_alloc_error(layout);
        }
        let padding = allocation.align_offset(align_of::<Self>());
        // SAFETY: the layout has room for that.
        let segment = unsafe { allocation.add(padding) }.cast::<Self>();
        let header = Self {
            next: AtomicPtr::new(ptr::null_mut()),
            first: AtomicU64::new(0),
            life: Life::default(),
            allocation,
            cells: [],
        };
        // SAFETY: the header lies in the allocation, which is this function's own.
        unsafe { segment.write(header) };
        #[cfg(loom)]
        for offset in 0..Self::CELLS {
            // SAFETY: the offset is below CELLS.
            let cell = unsafe { Self::cell_ptr(segment, offset) };
            // SAFETY: the memory is this function's own.
            unsafe { cell.write(Cell::vacant()) };
        }
        segment
    }

    /// Gives a segment's memory back. Values in it are not dropped.
    ///
    /// # Safety
    /// The segment came from `allocate`, and nobody accesses it any more.
    unsafe fn free(segment: *mut Self) {
        // SAFETY: passed on.
        let header = unsafe { Self::header(segment) };
        header.life.end();
        let allocation = header.allocation;
        // Leaked under loom, so that a use after this is loom's to find.
        if cfg!(not(loom)) {
            // SAFETY: allocated with this layout; the caller promises the rest.
            unsafe { dealloc(allocation, Self::layout()) };
        }
    }

    /// # Safety
    /// The segment's memory is there and `offset` is below `CELLS`.
    #[inline(always)]
    unsafe fn cell_ptr(segment: *mut Self, offset: u64) -> *mut Cell<T, K> {
        // SAFETY: the cells follow the header, whose size is a multiple of its alignment, and that is at least a cell's.
        let cells = unsafe { segment.add(1) }.cast::<Cell<T, K>>();
        // SAFETY: below CELLS, so inside the allocation.
        unsafe { cells.add(offset as usize) }
    }

    /// # Safety
    /// The segment stays allocated for `'a`, and `offset` is below `CELLS`.
    #[inline(always)]
    unsafe fn cell<'a>(segment: *mut Self, offset: u64) -> &'a Cell<T, K> {
        // SAFETY: passed on.
        unsafe { Self::header(segment) }.life.access();
        // SAFETY: passed on.
        let cell = unsafe { Self::cell_ptr(segment, offset) };
        // SAFETY: inside the allocation and valid from `allocate` on (zeroed memory is a valid cell).
        unsafe { &*cell }
    }

    /// # Safety
    /// The segment stays allocated for `'a`.
    #[inline(always)]
    unsafe fn header<'a>(segment: *mut Self) -> &'a Self {
        // SAFETY: passed on.
        unsafe { &*segment }
    }

    /// Whether every cell has been emptied (`Acquire`: and its value moved out).
    ///
    /// # Safety
    /// The segment stays allocated during the call.
    unsafe fn is_emptied(segment: *mut Self) -> bool {
        // SAFETY: passed on.
        let header = unsafe { Self::header(segment) };
        let first = header.first.load(Ordering::Relaxed);
        if first == EMPTIED {
            return true;
        }
        // From the end: it is the latest ones that may be missing.
        let emptied = (0..Self::CELLS).rev().all(|offset| {
            // SAFETY: the offset is below CELLS.
            let cell = unsafe { Self::cell(segment, offset) };
            cell.stamp.load(Ordering::Acquire) == stamp(first + offset, TAKEN)
        });
        if emptied {
            header.first.store(EMPTIED, Ordering::Relaxed);
        }
        emptied
    }
}

/// Segments made ready for a claim, linked to one another; what is left over goes back.
struct Chain<'a, T, K: Key> {
    ring: &'a Unbounded<T, K>,
    first: *mut Segment<T, K>,
    last: *mut Segment<T, K>,
    len: u64,
}

impl<'a, T, K: Key> Chain<'a, T, K> {
    fn new(ring: &'a Unbounded<T, K>) -> Self {
        Self {
            ring,
            first: ptr::null_mut(),
            last: ptr::null_mut(),
            len: 0,
        }
    }

    /// Makes it `len` segments long, the first of which will begin at index `first`.
    fn prepare(&mut self, first: u64, len: u64) {
        while self.len > len {
            let surplus = self.first;
            // SAFETY: the chain owns its segments until they are linked.
            self.first = unsafe { Segment::header(surplus) }
                .next
                .load(Ordering::Relaxed);
            self.len -= 1;
            self.ring.memory.give(surplus);
        }
        while self.len < len {
            let segment = self.ring.memory.get();
            // SAFETY: `get` hands over ownership.
            unsafe { Segment::header(segment) }
                .next
                .store(self.first, Ordering::Relaxed);
            if self.first.is_null() {
                self.last = segment;
            }
            self.first = segment;
            self.len += 1;
        }
        let mut segment = self.first;
        let mut index = first;
        while !segment.is_null() {
            // SAFETY: as above.
            let header = unsafe { Segment::header(segment) };
            header.first.store(index, Ordering::Relaxed);
            index += Segment::<T, K>::LAP;
            segment = header.next.load(Ordering::Relaxed);
        }
    }

    /// Hands the segments over: they are linked now.
    fn release(mut self) {
        self.first = ptr::null_mut();
    }
}

impl<T, K: Key> Drop for Chain<'_, T, K> {
    fn drop(&mut self) {
        while !self.first.is_null() {
            let segment = self.first;
            // SAFETY: the chain owns its segments until they are linked.
            self.first = unsafe { Segment::header(segment) }
                .next
                .load(Ordering::Relaxed);
            self.ring.memory.give(segment);
        }
    }
}

impl<T, K: Key> Memory<T, K> {
    /// A segment to be linked, owned by the caller: the spare or a new one. Its `next` is null.
    fn get(&self) -> *mut Segment<T, K> {
        // A plain look first: most often there is none when the ring grows.
        if !self.spare.load(Ordering::Relaxed).is_null() {
            let spare = self.spare.swap(ptr::null_mut(), Ordering::Acquire);
            if !spare.is_null() {
                return spare;
            }
        }
        Segment::allocate()
    }

    /// Takes back a segment that came from `get` and was not linked.
    fn give(&self, segment: *mut Segment<T, K>) {
        // SAFETY: the caller hands over ownership; readers look at cells only.
        unsafe { Segment::header(segment) }
            .first
            .store(EMPTIED, Ordering::Relaxed);
        self.retire(segment);
    }

    /// Adds a segment behind the head to the retired list and frees what can be freed.
    fn retire(&self, segment: *mut Segment<T, K>) {
        self.put_back(segment, segment);
        self.collect();
    }

    /// Puts segments, linked from `first` to `last`, into the retired list.
    fn put_back(&self, first: *mut Segment<T, K>, last: *mut Segment<T, K>) {
        // SAFETY: who adds segments to the list owns them until the exchange succeeds.
        let next = unsafe { &Segment::header(last).next };
        let mut top = self.retired.load(Ordering::Relaxed);
        loop {
            next.store(top, Ordering::Relaxed);
            // Release: who takes the list sees the links. The list is only taken as a whole: no ABA.
            match self.retired.compare_exchange_weak(
                top,
                first,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Looks through the retired list: what is emptied becomes the spare or is freed, the rest goes back.
    fn collect(&self) {
        let mut segment = self.retired.swap(ptr::null_mut(), Ordering::AcqRel);
        if segment.is_null() {
            return;
        }
        // Adding 0 instead of loading: either this sees the reader, or the reader, adding itself later, sees
        // that the head has left these segments.
        let watched = self.readers.fetch_add(0, Ordering::AcqRel) > 0;
        let mut kept = (ptr::null_mut(), ptr::null_mut());
        while !segment.is_null() {
            // SAFETY: taking the list made this thread the owner of what is in it.
            let next = unsafe { &Segment::header(segment).next };
            let following = next.load(Ordering::Relaxed);
            // SAFETY: as above; nobody frees it meanwhile.
            if unsafe { Segment::is_emptied(segment) } {
                next.store(ptr::null_mut(), Ordering::Relaxed);
                let spare = self.spare.compare_exchange(
                    ptr::null_mut(),
                    segment,
                    Ordering::Release,
                    Ordering::Relaxed,
                );
                if spare.is_ok() {
                    segment = following;
                    continue;
                }
                if !watched {
                    // SAFETY: unlinked, emptied, and no reader looks at it: this thread is the last to know it.
                    unsafe { Segment::free(segment) };
                    segment = following;
                    continue;
                }
            }
            next.store(kept.0, Ordering::Relaxed);
            if kept.0.is_null() {
                kept.1 = segment;
            }
            kept.0 = segment;
            segment = following;
        }
        if !kept.0.is_null() {
            self.put_back(kept.0, kept.1);
        }
    }
}

impl<T, K: Key> Unbounded<T, K> {
    const LAP: u64 = Segment::<T, K>::LAP;
    const CELLS: u64 = Segment::<T, K>::CELLS;

    /// Makes an empty ring. Nothing is allocated before the first push.
    #[must_use]
    pub fn new() -> Self {
        let end = || End {
            index: Stamp::new(0),
            segment: AtomicPtr::new(ptr::null_mut()),
        };
        Self {
            tail: CachePadded::new(end()),
            head: CachePadded::new(Consumers {
                end: end(),
                tail_seen: AtomicU64::new(0),
            }),
            memory: CachePadded::new(Memory {
                spare: AtomicPtr::new(ptr::null_mut()),
                retired: AtomicPtr::new(ptr::null_mut()),
                readers: AtomicU64::new(0),
            }),
        }
    }

    /// The position that an index stands for: indices skip one in each lap.
    #[inline(always)]
    const fn position(index: u64) -> u64 {
        index - index / Self::LAP
    }

    /// The index of a position.
    #[inline(always)]
    const fn index(position: u64) -> u64 {
        position + position / Self::CELLS
    }

    #[inline]
    fn push_entry(&self, key: K, value: T) -> Result<u64, T> {
        let backoff = Patience::new();
        loop {
            let tail = self.tail.index.load(Ordering::Acquire);
            let segment = self.tail.segment.load(Ordering::Acquire);
            // With the mark, which makes it too large for a cell.
            let offset = tail & (CLOSED | (Self::LAP - 1));
            if offset + 1 >= Self::CELLS || segment.is_null() {
                // The last cell of a segment, or no cell, or closed.
                return self.push_across(key, value);
            }
            if self.claim(&self.tail.index, tail, tail + 1) {
                // SAFETY: the index was unchanged, so that the segment is its own; the claimed cell, not yet
                // emptied, keeps it allocated.
                let cell = unsafe { Segment::cell(segment, offset) };
                // SAFETY: claimed by this thread, and not published.
                unsafe { cell.fill(key, value) };
                cell.stamp.store(stamp(tail, FULL), Ordering::Release);
                return Ok(Self::position(tail));
            }
            backoff.spin();
        }
    }

    /// Moves an index on.
    #[inline(always)]
    fn claim(&self, index: &Stamp, from: u64, to: u64) -> bool {
        // SeqCst for the sake of waiters; Acquire would be enough, for nothing that is read afterwards was
        // published by an index. Release: see "Ordering" on an end's segment.
        index
            .compare_exchange_weak(from, to, Ordering::SeqCst, Ordering::Relaxed)
            .is_ok()
    }

    /// Pushes where the tail's segment has only its last cell left, or none, or the ring is closed.
    #[cold]
    fn push_across(&self, key: K, value: T) -> Result<u64, T> {
        let mut entry = Some((key, value));
        let (position, _) = self.push_many(1, || entry.take());
        match entry {
            None => Ok(position),
            Some((_, value)) => Err(value),
        }
    }

    #[inline]
    fn push_many(&self, want: u64, mut next: impl FnMut() -> Option<(K, T)>) -> (u64, u64) {
        let (segment, index, want) = self.claim_vacant(want);
        let first = Self::position(index);
        let mut filling: Filling<T, K> = Filling {
            segment,
            index,
            left: want,
        };
        while filling.left > 0 {
            let Some(entry) = next() else { break };
            filling.fill(Some(entry));
        }
        (first, want - filling.left)
    }

    /// Claims `want` cells, or none when the ring is closed: the segment of the first one, its index, and how many. With
    /// none, just the tail.
    #[inline]
    fn claim_vacant(&self, want: u64) -> (*mut Segment<T, K>, u64, u64) {
        let backoff = Patience::new();
        let mut chain = Chain::new(self);
        loop {
            let tail = self.tail.index.load(Ordering::Acquire);
            let segment = self.tail.segment.load(Ordering::Acquire);
            if want == 0 || tail & CLOSED != 0 {
                return (segment, tail & !CLOSED, 0);
            }
            let offset = tail % Self::LAP;
            if offset == Self::CELLS {
                // Another producer links the next segment.
                backoff.snooze();
                continue;
            }
            if segment.is_null() {
                self.link_first(&mut chain);
                continue;
            }
            if offset + want < Self::CELLS {
                if self.claim(&self.tail.index, tail, tail + want) {
                    return (segment, tail, want);
                }
                backoff.spin();
                continue;
            }
            if self.claim_across(&mut chain, segment, tail, want) {
                chain.release();
                return (segment, tail, want);
            }
            backoff.spin();
        }
    }

    /// Links the ring's very first segment, unless somebody else does.
    #[cold]
    fn link_first(&self, chain: &mut Chain<'_, T, K>) {
        chain.prepare(0, 1);
        let segment = chain.first;
        let linked = self.tail.segment.compare_exchange(
            ptr::null_mut(),
            segment,
            Ordering::Release,
            Ordering::Relaxed,
        );
        if linked.is_ok() {
            chain.first = ptr::null_mut();
            chain.len = 0;
            self.head.end.segment.store(segment, Ordering::Release);
        }
    }

    /// Claims `want` cells at `tail`, where they reach the end of the tail's segment or go beyond it.
    #[cold]
    fn claim_across(
        &self,
        chain: &mut Chain<'_, T, K>,
        segment: *mut Segment<T, K>,
        tail: u64,
        want: u64,
    ) -> bool {
        let end = Self::index(Self::position(tail) + want);
        let lap = tail / Self::LAP;
        chain.prepare((lap + 1) * Self::LAP, end / Self::LAP - lap);
        // The value that stands for no cell: from here on the tail is this thread's.
        if !self.claim(&self.tail.index, tail, lap * Self::LAP + Self::CELLS) {
            return false;
        }
        // SAFETY: this thread claimed the segment's last cell, which keeps it allocated.
        let next = unsafe { &Segment::header(segment).next };
        self.tail.segment.store(chain.last, Ordering::Release);
        next.store(chain.first, Ordering::Release);
        // SeqCst: the rest of the claim. Release: the segment first. A store, for nobody marks a locked tail.
        self.tail.index.store(end, Ordering::SeqCst);
        true
    }

    /// Takes the oldest element.
    #[inline]
    pub fn pop(&self) -> Option<T> {
        self.pop_entry().map(|entry| entry.value)
    }

    /// Takes the oldest element with its position and key.
    #[inline]
    pub fn pop_entry(&self) -> Option<Entry<T, K>> {
        loop {
            let (segment, index, _) = self.claim_next(1)?;
            let mut taking = Taking {
                ring: self,
                segment,
                index,
                left: 1,
            };
            // A hole yields nothing: on to the next one.
            if let Some(entry) = taking.take() {
                return Some(entry);
            }
        }
    }

    /// Takes up to `max` elements and passes them to `each`; returns how many. One claim is made for those that
    /// stand in one segment.
    ///
    /// `each` runs while the batch is claimed: it should be short, and it must not use this ring, which may
    /// then wait for itself.
    ///
    /// # Panics
    /// When `each` does. The elements of the claim that it has not seen are dropped.
    #[inline]
    pub fn pop_batch(&self, max: usize, mut each: impl FnMut(Entry<T, K>)) -> usize {
        self.pop_batch_counted(max, |_, entry| each(entry))
    }

    /// Like [`pop_batch`](Self::pop_batch), and tells `each` how many elements of its claim follow, at most.
    ///
    /// # Panics
    /// As `pop_batch` does.
    #[inline(always)]
    pub fn pop_batch_counted(&self, max: usize, mut each: impl FnMut(usize, Entry<T, K>)) -> usize {
        let mut taken = 0;
        while taken < max {
            let Some((segment, index, count)) = self.claim_next((max - taken) as u64) else {
                break;
            };
            let mut taking = Taking {
                ring: self,
                segment,
                index,
                left: count,
            };
            while let Some(entry) = taking.take() {
                taken += 1;
                each(taking.left as usize, entry);
            }
        }
        taken
    }

    /// Claims up to `want` elements in the head's segment: the segment, the first index, how many.
    #[inline]
    fn claim_next(&self, want: u64) -> Option<(*mut Segment<T, K>, u64, u64)> {
        let backoff = Patience::new();
        if want == 0 {
            return None;
        }
        loop {
            let head = self.head.end.index.load(Ordering::Acquire);
            let segment = self.head.end.segment.load(Ordering::Acquire);
            let offset = head % Self::LAP;
            if offset == Self::CELLS {
                // Another consumer moves on to the next segment; or there is nothing behind this one, which
                // the tail tells.
                if self.is_at_tail(head) {
                    return None;
                }
                backoff.snooze();
                continue;
            }
            let want = want.min(Self::CELLS - offset);
            let mut tail = self.head.tail_seen.load(Ordering::Relaxed);
            if tail < head + want {
                tail = self.tail_index();
                // The head never passes the tail: a tail that equals a head seen earlier is the head now.
                if tail <= head {
                    return None;
                }
                self.head.tail_seen.store(tail, Ordering::Relaxed);
            }
            if segment.is_null() {
                // The first segment is just being linked.
                backoff.snooze();
                continue;
            }
            let count = want.min(tail - head);
            if self.claim(&self.head.end.index, head, head + count) {
                if offset + count == Self::CELLS {
                    self.move_on(segment, head + count);
                }
                return Some((segment, head, count));
            }
            backoff.spin();
        }
    }

    /// Whether the tail's position is no further than that of a head seen earlier.
    #[cold]
    fn is_at_tail(&self, head: u64) -> bool {
        self.pushed() <= Self::position(head)
    }

    /// Swings the head over to the next segment, after this thread claimed the last cell of `segment`, which leaves
    /// the head's index at `index`.
    #[cold]
    fn move_on(&self, segment: *mut Segment<T, K>, index: u64) {
        let backoff = Patience::new();
        // SAFETY: this thread claimed a cell of the segment, which keeps it allocated.
        let next = unsafe { &Segment::header(segment).next };
        let next = loop {
            let next = next.load(Ordering::Acquire);
            if !next.is_null() {
                break next;
            }
            // The producer that claimed the last cell is about to link it.
            backoff.snooze();
        };
        self.head.end.segment.store(next, Ordering::Release);
        self.head.end.index.store(index + 1, Ordering::SeqCst);
    }

    /// How many elements stand in the ring; one that is claimed by a push and not yet published counts.
    #[must_use]
    pub fn len(&self) -> usize {
        loop {
            let tail = self.tail_index();
            let head = self.head.end.index.load(Ordering::SeqCst);
            // With the tail unchanged around it, the head was read while this was the tail.
            if self.tail_index() == tail {
                return Self::position(tail).saturating_sub(Self::position(head)) as usize;
            }
        }
    }

    /// How many elements were ever popped: the claimed head.
    #[inline]
    #[must_use]
    pub fn popped(&self) -> u64 {
        Self::position(self.head.end.index.load(Ordering::SeqCst))
    }

    /// How many elements were ever pushed: the claimed tail.
    #[inline]
    #[must_use]
    pub fn pushed(&self) -> u64 {
        Self::position(self.tail_index())
    }

    /// The claimed tail, without the mark.
    #[inline(always)]
    fn tail_index(&self) -> u64 {
        self.tail.index.load(Ordering::SeqCst) & !CLOSED
    }

    /// Refuses every later push; what stands in the ring can still be taken. Doing it again changes nothing.
    ///
    /// When this has returned, a push that was under way has either claimed its cells, so that [`len`](Self::len)
    /// and [`pushed`](Self::pushed) count them from now on, or it fails: who sees the ring closed and then empty has seen
    /// the last of it. Waits for a thread that is just linking segments.
    pub fn close(&self) {
        let backoff = Patience::new();
        loop {
            let tail = self.tail.index.load(Ordering::Relaxed);
            if tail & CLOSED != 0 {
                // Acquire: as if this call had closed it.
                self.tail.index.load(Ordering::Acquire);
                return;
            }
            if tail % Self::LAP == Self::CELLS {
                // Locked: the claim is not yet complete, and will be stored over what is there.
                backoff.snooze();
            } else if self.claim(&self.tail.index, tail, tail | CLOSED) {
                return;
            } else {
                backoff.spin();
            }
        }
    }

    /// Whether the ring was closed.
    #[inline]
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.tail.index.load(Ordering::SeqCst) & CLOSED != 0
    }

    /// Whether nothing stands in the ring.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let head = self.head.end.index.load(Ordering::SeqCst);
        // The head never passes the tail: when the tail is where the head was, so is the head still.
        self.pushed() <= Self::position(head)
    }
}

impl<T> Unbounded<T> {
    /// Appends an element and returns its position.
    ///
    /// # Errors
    /// The element, when the ring is closed.
    #[inline]
    pub fn push(&self, value: T) -> Result<u64, T> {
        self.push_entry((), value)
    }

    /// Appends all elements of `values` with one claim; returns the first one's position and how many they are.
    /// Their positions follow one another. None, and all stay in the iterator, when the ring is closed.
    ///
    /// The iterator runs while the cells are claimed: it should be short, and it must not use this ring,
    /// which may then wait for itself.
    ///
    /// # Panics
    /// When the iterator does. What it had yielded stands in the ring.
    #[inline]
    pub fn push_batch<I>(&self, values: &mut I) -> (u64, usize)
    where
        I: ExactSizeIterator<Item = T>,
    {
        let want = values.len() as u64;
        let (first, count) = self.push_many(want, || values.next().map(|value| ((), value)));
        (first, count as usize)
    }
}

impl<T> Unbounded<T, u64> {
    /// Appends an element with a key and returns its position.
    ///
    /// # Errors
    /// The element, when the ring is closed.
    #[inline]
    pub fn push_keyed(&self, key: u64, value: T) -> Result<u64, T> {
        self.push_entry(key, value)
    }

    /// Appends all elements of `entries` with their keys, with one claim; returns the first one's position and
    /// how many they are. Their positions follow one another. None, and all stay in the iterator, when the ring is
    /// closed.
    ///
    /// The iterator runs while the cells are claimed: it should be short, and it must not use this ring,
    /// which may then wait for itself.
    ///
    /// # Panics
    /// When the iterator does. What it had yielded stands in the ring.
    #[inline]
    pub fn push_batch_keyed<I>(&self, entries: &mut I) -> (u64, usize)
    where
        I: ExactSizeIterator<Item = (u64, T)>,
    {
        let want = entries.len() as u64;
        let (first, count) = self.push_many(want, || entries.next());
        (first, count as usize)
    }

    /// Appends up to `want` elements under one key, with one claim: `values` is told how many there is room for,
    /// if for any, and yields them. Returns the first one's position and how many they are.
    ///
    /// `values` and what it returns run while the cells are claimed, as in
    /// [`push_batch_keyed`](Self::push_batch_keyed).
    ///
    /// # Panics
    /// When they do. What was yielded stands in the ring.
    #[inline]
    pub fn push_batch_from<I: Iterator<Item = T>>(
        &self,
        key: u64,
        want: usize,
        values: impl FnOnce(usize) -> I,
    ) -> (u64, usize) {
        // All of them, or none when the ring is closed.
        let (segment, index, granted) = self.claim_vacant(want as u64);
        let want = granted as usize;
        let mut filling: Filling<T, u64> = Filling {
            segment,
            index,
            left: granted,
        };
        if want > 0 {
            let mut values = values(want);
            while filling.left > 0 {
                let Some(value) = values.next() else { break };
                filling.fill(Some((key, value)));
            }
        }
        (Self::position(index), want - filling.left as usize)
    }

    /// Takes the oldest element if its key satisfies `wanted`.
    ///
    /// `None` when the ring is empty or the key does not satisfy; no later element is looked at.
    #[inline]
    pub fn pop_if(&self, mut wanted: impl FnMut(u64) -> bool) -> Option<Entry<T, u64>> {
        let reading = Reading::new(self);
        let backoff = Patience::new();
        loop {
            let (segment, head, key) = reading.peek(&backoff)?;
            if !wanted(key) {
                return None;
            }
            if self.claim(&self.head.end.index, head, head + 1) {
                // The head was `head` all the time, so that the cell is the one that was looked at.
                if head % Self::LAP + 1 == Self::CELLS {
                    self.move_on(segment, head + 1);
                }
                return Taking {
                    ring: self,
                    segment,
                    index: head,
                    left: 1,
                }
                .take();
            }
            backoff.spin();
        }
    }

    /// The position and the key of the oldest element.
    ///
    /// Both belong to one element that was the oldest at some moment of the call; by the time the caller looks
    /// it may be gone.
    #[inline]
    #[must_use]
    pub fn front(&self) -> Option<(u64, u64)> {
        if self.is_empty() {
            return None;
        }
        let (_, head, key) = Reading::new(self).peek(&Patience::new())?;
        Some((Self::position(head), key))
    }
}

impl<T, K: Key> Default for Unbounded<T, K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, K: Key> Drop for Unbounded<T, K> {
    fn drop(&mut self) {
        // With the ring borrowed exclusively no operation is under way: neither end stands between segments,
        // and each index between them is full or a hole.
        let tail = self.tail.index.load(Ordering::Relaxed) & !CLOSED;
        let mut index = self.head.end.index.load(Ordering::Relaxed);
        let mut segment = self.head.end.segment.load(Ordering::Relaxed);
        while index < tail {
            let offset = index % Self::LAP;
            if offset < Self::CELLS {
                // SAFETY: the chain from head to tail is the ring's.
                let cell = unsafe { Segment::cell(segment, offset) };
                if cell.stamp.load(Ordering::Relaxed) == stamp(index, FULL) {
                    // SAFETY: full, and each index is visited once.
                    drop(unsafe { cell.take() });
                }
            } else {
                // SAFETY: as above.
                let next = unsafe { Segment::header(segment) }
                    .next
                    .load(Ordering::Relaxed);
                // SAFETY: nobody else knows the segment.
                unsafe { Segment::free(segment) };
                segment = next;
            }
            index += 1;
        }
        let lists = [
            segment,
            self.memory.spare.load(Ordering::Relaxed),
            self.memory.retired.load(Ordering::Relaxed),
        ];
        for mut segment in lists {
            while !segment.is_null() {
                // SAFETY: the ring owns these segments: the tail's (whose `next` is null), the spare (likewise), and those retired.
                let next = unsafe { Segment::header(segment) }
                    .next
                    .load(Ordering::Relaxed);
                // SAFETY: as above, and each is freed once.
                unsafe { Segment::free(segment) };
                segment = next;
            }
        }
    }
}

impl<T, K: Key> fmt::Debug for Unbounded<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unbounded")
            .field("len", &self.len())
            .field("is_closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

/// Claimed vacant cells, filled from the front; what is left when it goes becomes holes.
struct Filling<T, K: Key> {
    /// The segment of `index`.
    segment: *mut Segment<T, K>,
    index: u64,
    left: u64,
}

impl<T, K: Key> Filling<T, K> {
    /// Fills the next cell, or leaves a hole.
    #[inline(always)]
    fn fill(&mut self, entry: Option<(K, T)>) {
        let (segment, index) = (self.segment, self.index);
        let offset = index % Segment::<T, K>::LAP;
        self.left -= 1;
        if offset + 1 == Segment::<T, K>::CELLS {
            // Before the last cell is published: afterwards the segment may go at any moment.
            // SAFETY: the claimed cell, not yet emptied, keeps the segment allocated.
            self.segment = unsafe { Segment::header(segment) }
                .next
                .load(Ordering::Relaxed);
            self.index += 2;
        } else {
            self.index += 1;
        }
        // SAFETY: as above.
        let cell = unsafe { Segment::cell(segment, offset) };
        let state = match entry {
            Some((key, value)) => {
                // SAFETY: claimed by this thread, and not published.
                unsafe { cell.fill(key, value) };
                FULL
            }
            None => HOLE,
        };
        cell.stamp.store(stamp(index, state), Ordering::Release);
    }
}

impl<T, K: Key> Drop for Filling<T, K> {
    #[inline]
    fn drop(&mut self) {
        while self.left > 0 {
            self.fill(None);
        }
    }
}

/// Claimed cells of one segment, emptied from the front; what is left when it goes (a panic) is dropped.
struct Taking<'a, T, K: Key> {
    ring: &'a Unbounded<T, K>,
    segment: *mut Segment<T, K>,
    index: u64,
    left: u64,
}

impl<T, K: Key> Taking<'_, T, K> {
    /// Empties the next cell that is not a hole.
    #[inline(always)]
    fn take(&mut self) -> Option<Entry<T, K>> {
        while self.left > 0 {
            let index = self.index;
            self.index += 1;
            self.left -= 1;
            let offset = index % Segment::<T, K>::LAP;
            // SAFETY: the claimed cell, not yet marked as taken, keeps the segment allocated.
            let cell = unsafe { Segment::cell(self.segment, offset) };
            let mut found = cell.stamp.load(Ordering::Acquire);
            if found != stamp(index, FULL) {
                found = Self::wait(cell, index);
            }
            let entry = if found == stamp(index, FULL) {
                // SAFETY: claimed by this thread, and loaded as full.
                let (key, value) = unsafe { cell.take() };
                Some(Entry {
                    position: Unbounded::<T, K>::position(index),
                    key,
                    value,
                })
            } else {
                None
            };
            cell.stamp.store(stamp(index, TAKEN), Ordering::Release);
            if offset + 1 == Segment::<T, K>::CELLS {
                self.ring.memory.retire(self.segment);
            }
            if entry.is_some() {
                return entry;
            }
        }
        None
    }

    /// Waits until the producer that claimed the cell publishes it.
    #[cold]
    fn wait(cell: &Cell<T, K>, index: u64) -> u64 {
        let backoff = Patience::new();
        loop {
            let found = cell.stamp.load(Ordering::Acquire);
            if found == stamp(index, FULL) || found == stamp(index, HOLE) {
                return found;
            }
            backoff.snooze();
        }
    }
}

impl<T, K: Key> Drop for Taking<'_, T, K> {
    #[inline]
    fn drop(&mut self) {
        while let Some(entry) = self.take() {
            drop(entry);
        }
    }
}

/// A thread that looks at cells which it has not claimed; no segment is freed while there is one.
struct Reading<'a, T> {
    ring: &'a Unbounded<T, u64>,
}

impl<'a, T> Reading<'a, T> {
    #[inline]
    fn new(ring: &'a Unbounded<T, u64>) -> Self {
        ring.memory.readers.fetch_add(1, Ordering::AcqRel);
        Self { ring }
    }

    /// The head's segment and index, and the key that stands there.
    #[inline]
    fn peek(&self, backoff: &Patience) -> Option<(*mut Segment<T, u64>, u64, u64)> {
        let ring = self.ring;
        let end = &ring.head.end;
        loop {
            let head = end.index.load(Ordering::Acquire);
            let segment = end.segment.load(Ordering::Acquire);
            let offset = head % Segment::<T, u64>::LAP;
            if offset < Segment::<T, u64>::CELLS && !segment.is_null() {
                // SAFETY: the segment was the head's after this reader was counted, so that it stays allocated.
                let cell = unsafe { Segment::cell(segment, offset) };
                let found = cell.stamp.load(Ordering::Acquire);
                if found == stamp(head, FULL) {
                    let key = <u64 as super::sealed::Sealed>::load(&cell.key);
                    // Unchanged: the key is this element's, and not that of a later one in a segment used again.
                    if cell.stamp.look(Ordering::Relaxed) == found {
                        return Some((segment, head, key));
                    }
                    continue;
                }
                if found == stamp(head, HOLE) {
                    if ring.claim(&end.index, head, head + 1) {
                        if offset + 1 == Segment::<T, u64>::CELLS {
                            ring.move_on(segment, head + 1);
                        }
                        drop(Taking {
                            ring,
                            segment,
                            index: head,
                            left: 1,
                        });
                    }
                    continue;
                }
            }
            if end.index.load(Ordering::Relaxed) == head {
                if ring.is_at_tail(head) {
                    return None;
                }
                // Claimed and not yet published, or not yet linked.
                backoff.snooze();
            }
        }
    }
}

impl<T> Drop for Reading<'_, T> {
    #[inline]
    fn drop(&mut self) {
        let memory = &self.ring.memory;
        // Release: what this reader loaded, it loaded before somebody frees it.
        let readers = memory.readers.fetch_sub(1, Ordering::AcqRel);
        if readers == 1 && !memory.retired.load(Ordering::Relaxed).is_null() {
            memory.collect();
        }
    }
}
