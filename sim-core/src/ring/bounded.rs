//! A bounded ring in one array.
//!
//! # Algorithm
//! Dmitry Vyukov's bounded MPMC queue (1024cores.net, "Bounded MPMC queue"): two claimed indices and a stamp
//! in each cell that says whose turn it is. What differs here:
//! - Positions are plain counters; the array is a power of two, so that a cell is found with a mask. A
//!   capacity below the array's size is kept by comparing the claimed indices, against a copy of the
//!   consumers' index that lies on the producers' own cache line and is refreshed only when it says "full".
//!   Where the capacity is the array's size, the stamp alone says so and the copy is not looked at.
//! - A stamp is `4 * lap + state`, where `lap` is the position without the bits of the mask. A cell's first
//!   stamp is therefore 0 and the array can be allocated zeroed: a cell that was never used costs no page.
//! - A batch first counts the cells that are ready, from the front, and then claims just those with one
//!   compare-and-swap, so that nothing is left to wait for after a claim.
//! - Empty and full are answered from the indices and never from a stamp: a cell that is claimed and not
//!   yet published counts as present, and who meets one backs off and looks again.
//! - A ring is closed by a mark on the producers' index, far above every position: to a push, a marked tail is
//!   one whose cell is never free and which leaves no room, so that nothing is looked at on the way of a push
//!   that succeeds. Consumers see the index without the mark.
//! - A claimed cell whose value never comes (the caller's iterator panicked, or yielded less than it
//!   announced) is published as a *hole*, which consumers skip.
//!
//! # States
//! For the cell of position `p`, with `lap = p & !mask`:
//!
//! | stamp | meaning | who moves it on |
//! | --- | --- | --- |
//! | `4 * lap` | free | the producer that claims `p`: to full, or to hole |
//! | `4 * lap + 1` | full | the consumer that claims `p`: to free for `lap + size` |
//! | `4 * lap + 2` | hole | the consumer that claims `p`: to free for `lap + size` |
//!
//! For the tail: *open* (a position), then, once and for ever, *closed* (the last position with the mark):
//! nothing but compare-and-swaps from unmarked values ever moves it.
//!
//! # Ordering
//! - full/hole stored `Release` by the producer, loaded `Acquire` by the consumer: the value is written before it
//!   is read.
//! - free stored `Release` by the consumer, loaded `Acquire` by the next producer: the value is moved out before it
//!   is overwritten.
//! - a key stored `Release`, loaded `Acquire` by [`Bounded::front`] and [`Bounded::pop_if`], which look at the stamp again
//!   afterwards: who read the key of a later element also sees the stamp that freed the cell for it, and
//!   discards what it read.
//! - claims (compare-and-swap on head and tail) and the loads that answer "empty" and "full" are `SeqCst`: claim-then-load-a-flag against
//!   set-a-flag-then-look is a store-load pair (see [`event`](crate::event)). The data's own order needs no more of them than `Relaxed`.
//! - the mark is set `SeqCst`; a push that is refused because of it loads it once more `Acquire`: what was done before
//!   the ring was closed is seen by whom it refuses. That no push claims after the mark needs no ordering: it is one variable.
//! - the producers' copy of the head is `Relaxed`: too old a value only says "full" too early, and is then replaced.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;

use super::{Cell, Entry, Key, Patience};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{CachePadded, Stamp};

/// The cell holds an element.
const FULL: u64 = 1;
/// The cell was claimed and its element never came.
const HOLE: u64 = 2;
/// The mark on the tail of a closed ring. Above every position, and so that [`Bounded::free`] of a marked tail is above
/// every stamp.
const CLOSED: u64 = 1 << 61;
/// Cells start on a cache line.
const LINE: usize = 64;

/// A bounded lock-free FIFO ring for many producers and many consumers.
///
/// # Examples
/// ```
/// use sim_core::ring::Bounded;
///
/// let ring: Bounded<&str> = Bounded::with_capacity(2);
/// assert_eq!(ring.push("a"), Ok(0));
/// assert_eq!(ring.push("b"), Ok(1));
/// assert_eq!(ring.push("c"), Err("c"));
/// assert_eq!(ring.pop(), Some("a"));
/// ```
///
/// Keys are read without taking the element:
/// ```
/// use sim_core::ring::Bounded;
///
/// let due: Bounded<&str, u64> = Bounded::with_capacity(8);
/// due.push_keyed(30, "later").unwrap();
/// assert_eq!(due.front(), Some((0, 30)));
/// assert!(due.pop_if(|at| at <= 20).is_none());
/// assert_eq!(due.pop_if(|at| at <= 40).unwrap().value, "later");
/// ```
pub struct Bounded<T, K: Key = ()> {
    producers: CachePadded<Producers>,
    /// The position that the next pop claims. Invariant: never above the tail.
    head: CachePadded<Stamp>,
    /// The first cell, on a cache line of its own.
    cells: NonNull<Cell<T, K>>,
    /// The number of cells, a power of two, less one.
    mask: u64,
    /// How many elements fit. Invariant: at least 1, at most the number of cells.
    capacity: u64,
    /// What was allocated: `cells` lies in it.
    allocation: NonNull<u8>,
}

/// The line that producers write.
struct Producers {
    /// The position that the next push claims, with [`CLOSED`] when none does any more. Invariant: without the
    /// mark never above head + capacity; with the mark it never changes again.
    tail: Stamp,
    /// A head seen earlier. Invariant: at most the head.
    head_seen: AtomicU64,
}

// SAFETY: the ring owns its elements and hands each one to a single thread.
unsafe impl<T: Send, K: Key> Send for Bounded<T, K> {}
// SAFETY: through a shared reference elements are only moved in and out, each by the one thread that claimed
// its cell; no reference to an element is given out, so `T: Sync` is not needed.
unsafe impl<T: Send, K: Key> Sync for Bounded<T, K> {}

impl<T, K: Key> Bounded<T, K> {
    /// Makes a ring for exactly `capacity` elements.
    ///
    /// The memory is allocated at once, for the next power of two, and zeroed by the system: cells that are
    /// never used take no physical memory.
    ///
    /// # Panics
    /// When `capacity` is 0, or too large to be allocated.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        assert!(capacity > 0, "a ring's capacity is at least 1");
        let size = capacity
            .checked_next_power_of_two()
            .expect("capacity overflows");
        let layout = Self::layout(size);
        // SAFETY: the layout's size is not zero: it includes the room for aligning.
        let allocation = unsafe { alloc_zeroed(layout) };
        let Some(allocation) = NonNull::new(allocation) else {
            handle_alloc_error(layout)
        };
        // SAFETY: the layout has room for moving the first cell up to the next line.
        let cells = unsafe { allocation.add(allocation.align_offset(Self::alignment())) }.cast();
        #[cfg(loom)]
        for index in 0..size {
            // SAFETY: the allocation holds `size` cells.
            let cell: NonNull<Cell<T, K>> = unsafe { cells.add(index) };
            // SAFETY: the memory is this function's own, and aligned.
            unsafe { cell.write(Cell::vacant()) };
        }
        Self {
            producers: CachePadded::new(Producers {
                tail: Stamp::new(0),
                head_seen: AtomicU64::new(0),
            }),
            head: CachePadded::new(Stamp::new(0)),
            cells,
            mask: size as u64 - 1,
            capacity: capacity as u64,
            allocation,
        }
    }

    /// What the first cell is aligned to.
    const fn alignment() -> usize {
        if align_of::<Cell<T, K>>() > LINE {
            align_of::<Cell<T, K>>()
        } else {
            LINE
        }
    }

    /// The layout of the allocation. Its alignment is the allocator's natural one, with room to align by hand: Rust's
    /// system allocator zeroes over-aligned memory by writing to it, which would touch every page.
    fn layout(size: usize) -> Layout {
        let cells = Layout::array::<Cell<T, K>>(size).expect("capacity overflows");
        let bytes = cells
            .size()
            .checked_add(Self::alignment())
            .expect("capacity overflows");
        Layout::from_size_align(bytes, align_of::<u64>()).expect("capacity overflows")
    }

    /// The cell of a position.
    #[inline(always)]
    fn cell(&self, position: u64) -> &Cell<T, K> {
        let index = (position & self.mask) as usize;
        // SAFETY: the mask keeps the index below the number of cells.
        let cell = unsafe { self.cells.add(index) };
        // SAFETY: cells are valid from construction (zeroed memory is a valid cell) until the ring is dropped;
        // they are only ever accessed through shared references.
        unsafe { cell.as_ref() }
    }

    /// The stamp of a position's cell when it is free.
    #[inline(always)]
    fn free(&self, position: u64) -> u64 {
        (position & !self.mask) << 2
    }

    /// The stamp that frees a position's cell for the next lap.
    #[inline(always)]
    fn freed(&self, position: u64) -> u64 {
        self.free(position) + ((self.mask + 1) << 2)
    }

    /// How much room there is at `tail`, by the copied head if that leaves room for `want`, or by a fresh one.
    #[inline]
    fn room(&self, tail: u64, want: u64) -> u64 {
        let seen = self.producers.head_seen.load(Ordering::Relaxed);
        let room = (seen + self.capacity).saturating_sub(tail);
        if room >= want {
            room
        } else {
            self.room_now(tail)
        }
    }

    /// How much room the claimed head leaves at `tail`: none when that is marked.
    #[cold]
    fn room_now(&self, tail: u64) -> u64 {
        if tail & CLOSED != 0 {
            // Acquire: who is refused sees what was done before the ring was closed.
            self.producers.tail.load(Ordering::Acquire);
            return 0;
        }
        let head = self.head.load(Ordering::SeqCst);
        self.producers.head_seen.store(head, Ordering::Relaxed);
        (head + self.capacity).saturating_sub(tail)
    }

    /// Whether every cell of the array may be used, so that the stamps alone say what is full.
    #[inline(always)]
    fn is_exact(&self) -> bool {
        self.capacity > self.mask
    }

    /// Inlined, so that the value goes from where it stands straight into its cell.
    #[inline(always)]
    fn push_entry(&self, key: K, value: T) -> Result<u64, T> {
        let Some(position) = self.claim_one_free() else {
            return Err(value);
        };
        let cell = self.cell(position);
        // SAFETY: the claim gave this thread the cell, and the stamp said that it is free.
        unsafe { cell.fill(key, value) };
        cell.stamp
            .store(self.free(position) + FULL, Ordering::Release);
        Ok(position)
    }

    /// Claims one free cell; `None` when the ring is full.
    #[inline(always)]
    fn claim_one_free(&self) -> Option<u64> {
        let tail = self.producers.tail.load(Ordering::Relaxed);
        if self.cell(tail).stamp.load(Ordering::Acquire) == self.free(tail)
            && (self.is_exact() || self.room(tail, 1) > 0)
            && self.claim(&self.producers.tail, tail, 1).is_ok()
        {
            return Some(tail);
        }
        self.claim_one_free_slowly()
    }

    /// As [`claim_one_free`](Self::claim_one_free), where others are at work or the ring is full.
    #[inline(never)]
    fn claim_one_free_slowly(&self) -> Option<u64> {
        let backoff = Patience::new();
        let mut tail = self.producers.tail.load(Ordering::Relaxed);
        loop {
            let cell = self.cell(tail);
            let free = self.free(tail);
            let stamp = cell.stamp.load(Ordering::Acquire);
            if stamp == free {
                if !self.is_exact() && self.room(tail, 1) == 0 {
                    return None;
                }
                match self.claim(&self.producers.tail, tail, 1) {
                    Ok(()) => return Some(tail),
                    Err(now) => {
                        tail = now;
                        backoff.spin();
                    }
                }
            } else if stamp > free {
                // Another producer was faster.
                tail = self.producers.tail.load(Ordering::Relaxed);
                backoff.spin();
            } else {
                // The element of the lap before is still there, or is just being taken; or the ring is closed.
                if self.room_now(tail) == 0 {
                    return None;
                }
                backoff.snooze();
                tail = self.producers.tail.load(Ordering::Relaxed);
            }
        }
    }

    /// Moves an index from `position` on by `count`.
    #[inline(always)]
    fn claim(&self, index: &Stamp, position: u64, count: u64) -> Result<(), u64> {
        // SeqCst for the sake of waiters only; see "Ordering".
        match index.compare_exchange_weak(
            position,
            position + count,
            Ordering::SeqCst,
            Ordering::Relaxed,
        ) {
            Ok(_) => Ok(()),
            Err(now) => Err(now),
        }
    }

    /// Claims up to `want` free cells at once: the first position and how many. None when the ring is closed: a marked
    /// tail leaves no room, and its cell is not free.
    #[inline]
    fn claim_free(&self, want: u64) -> (u64, u64) {
        let backoff = Patience::new();
        let mut tail = self.producers.tail.load(Ordering::Relaxed);
        loop {
            if want == 0 {
                return (tail & !CLOSED, 0);
            }
            let mut limit = want.min(self.capacity);
            if !self.is_exact() {
                limit = limit.min(self.room(tail, limit));
                if limit == 0 {
                    return (tail & !CLOSED, 0);
                }
            }
            let mut count = 0;
            while count < limit
                && self.cell(tail + count).stamp.load(Ordering::Acquire) == self.free(tail + count)
            {
                count += 1;
            }
            if count > 0 {
                match self.claim(&self.producers.tail, tail, count) {
                    Ok(()) => return (tail, count),
                    Err(now) => {
                        tail = now;
                        backoff.spin();
                    }
                }
            } else {
                let now = self.producers.tail.load(Ordering::Relaxed);
                if now == tail {
                    if self.room_now(tail) == 0 {
                        return (tail & !CLOSED, 0);
                    }
                    backoff.snooze();
                }
                tail = now;
            }
        }
    }

    #[inline]
    fn push_many(&self, want: usize, mut next: impl FnMut() -> Option<(K, T)>) -> (u64, usize) {
        let (first, count) = self.claim_free(want as u64);
        let mut filling = Filling {
            ring: self,
            next: first,
            end: first + count,
        };
        while filling.next < filling.end {
            let Some((key, value)) = next() else { break };
            filling.fill(key, value);
        }
        (first, (filling.next - first) as usize)
    }

    /// Takes the oldest element.
    #[inline]
    pub fn pop(&self) -> Option<T> {
        self.pop_entry().map(|entry| entry.value)
    }

    /// Takes the oldest element with its position and key.
    ///
    /// Inlined, so that the element goes straight from its cell to where it is used.
    #[inline(always)]
    pub fn pop_entry(&self) -> Option<Entry<T, K>> {
        let position = self.claim_one_full()?;
        Some(self.take(self.cell(position), position))
    }

    /// Claims one full cell; `None` when the ring is empty.
    #[inline(always)]
    fn claim_one_full(&self) -> Option<u64> {
        let head = self.head.load(Ordering::Relaxed);
        if self.cell(head).stamp.load(Ordering::Acquire) == self.free(head) + FULL
            && self.claim(&self.head, head, 1).is_ok()
        {
            return Some(head);
        }
        self.claim_one_full_slowly()
    }

    /// As [`claim_one_full`](Self::claim_one_full), where others are at work or the ring is empty.
    #[inline(never)]
    fn claim_one_full_slowly(&self) -> Option<u64> {
        let backoff = Patience::new();
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            let cell = self.cell(head);
            let stamp = cell.stamp.load(Ordering::Acquire);
            if stamp == self.free(head) + FULL {
                match self.claim(&self.head, head, 1) {
                    Ok(()) => return Some(head),
                    Err(now) => {
                        head = now;
                        backoff.spin();
                    }
                }
            } else {
                head = self.not_full(cell, stamp, head, &backoff)?;
            }
        }
    }

    /// What a consumer does that found the cell at `head` not full: the head to go on with, or `None` when the
    /// ring is empty.
    #[inline]
    fn not_full(
        &self,
        cell: &Cell<T, K>,
        stamp: u64,
        head: u64,
        backoff: &Patience,
    ) -> Option<u64> {
        if stamp == self.free(head) + HOLE {
            if self.claim(&self.head, head, 1).is_ok() {
                cell.stamp.store(self.freed(head), Ordering::Release);
            }
        } else if stamp > self.free(head) {
            // Another consumer was faster.
            backoff.spin();
        } else {
            // The head never passes the tail, so that a tail that equals a head seen earlier is the head now.
            if self.pushed() == head {
                return None;
            }
            // Claimed and not yet published.
            backoff.snooze();
        }
        Some(self.head.load(Ordering::Relaxed))
    }

    /// Empties a claimed cell that was full.
    #[inline(always)]
    fn take(&self, cell: &Cell<T, K>, position: u64) -> Entry<T, K> {
        // SAFETY: callers claimed the position after loading its stamp as full.
        let (key, value) = unsafe { cell.take() };
        cell.stamp.store(self.freed(position), Ordering::Release);
        Entry {
            position,
            key,
            value,
        }
    }

    /// Takes up to `max` elements with one claim and passes them to `each`; returns how many.
    ///
    /// Fewer than stand in the ring are taken when a producer is just about to publish one; none only when the
    /// ring is empty.
    ///
    /// `each` runs while the batch is claimed: it should be short, and it must not use this ring, which may
    /// then wait for itself.
    ///
    /// # Panics
    /// When `each` does. The elements of the batch that it has not seen are dropped.
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
        let Some(mut batch) = self.claim_batch(max) else {
            return 0;
        };
        let count = batch.len();
        while let Some(entry) = batch.next() {
            each(batch.len(), entry);
        }
        count
    }

    /// Claims up to `max` elements at once, which the [`Batch`] then yields; `None` only when the ring is empty.
    /// Fewer than stand in the ring are claimed when a producer is just about to publish one.
    ///
    /// The batch should be used up soon, without using the ring meanwhile, which may wait for itself.
    #[inline(always)]
    pub fn claim_batch(&self, max: usize) -> Option<Batch<'_, T, K>> {
        let (first, count) = self.claim_full(max as u64)?;
        Some(Batch {
            ring: self,
            next: first,
            end: first + count,
        })
    }

    /// Claims up to `want` full cells at once: the first position and how many.
    #[inline]
    fn claim_full(&self, want: u64) -> Option<(u64, u64)> {
        if want == 0 {
            return None;
        }
        let limit = want.min(self.capacity);
        let backoff = Patience::new();
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            let cell = self.cell(head);
            let stamp = cell.stamp.load(Ordering::Acquire);
            if stamp == self.free(head) + FULL {
                let mut count = 1;
                while count < limit
                    && self.cell(head + count).stamp.load(Ordering::Acquire)
                        == self.free(head + count) + FULL
                {
                    count += 1;
                }
                match self.claim(&self.head, head, count) {
                    Ok(()) => return Some((head, count)),
                    Err(now) => {
                        head = now;
                        backoff.spin();
                    }
                }
            } else {
                head = self.not_full(cell, stamp, head, &backoff)?;
            }
        }
    }

    /// How many elements stand in the ring; one that is claimed by a push and not yet published counts.
    #[must_use]
    pub fn len(&self) -> usize {
        loop {
            let tail = self.pushed();
            let head = self.head.load(Ordering::SeqCst);
            // With the tail unchanged around it, the head was read while this was the tail.
            if self.pushed() == tail {
                return tail.saturating_sub(head) as usize;
            }
        }
    }

    /// Whether nothing stands in the ring.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let head = self.head.load(Ordering::SeqCst);
        // The head never passes the tail: when the tail is what the head was, so is the head still.
        self.pushed() == head
    }

    /// How many elements were ever popped: the claimed head.
    #[inline]
    #[must_use]
    pub fn popped(&self) -> u64 {
        self.head.load(Ordering::SeqCst)
    }

    /// How many elements were ever pushed: the claimed tail.
    #[inline]
    #[must_use]
    pub fn pushed(&self) -> u64 {
        self.producers.tail.load(Ordering::SeqCst) & !CLOSED
    }

    /// Refuses every later push; what stands in the ring can still be taken. Doing it again changes nothing.
    ///
    /// When this has returned, a push that was under way has either claimed its cell, so that [`len`](Self::len)
    /// and [`pushed`](Self::pushed) count it from now on, or it fails: who sees the ring closed and then empty has seen
    /// the last of it.
    pub fn close(&self) {
        self.producers.tail.fetch_or(CLOSED, Ordering::SeqCst);
    }

    /// Whether the ring was closed.
    #[inline]
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.producers.tail.load(Ordering::SeqCst) & CLOSED != 0
    }

    /// How many elements fit.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }
}

impl<T> Bounded<T> {
    /// Appends an element and returns its position.
    ///
    /// # Errors
    /// The element, when the ring is full or closed.
    #[inline]
    pub fn push(&self, value: T) -> Result<u64, T> {
        self.push_entry((), value)
    }

    /// Appends elements from the front of `values`, as many as fit, with one claim; returns the first one's position and
    /// how many they are. Their positions follow one another. What does not fit stays in the iterator.
    ///
    /// Fewer than fit are taken when a consumer is just about to free a cell; none only when the ring is
    /// full or closed.
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
        self.push_many(values.len(), || values.next().map(|value| ((), value)))
    }
}

impl<T> Bounded<T, u64> {
    /// Appends an element with a key and returns its position.
    ///
    /// # Errors
    /// The element, when the ring is full or closed.
    #[inline]
    pub fn push_keyed(&self, key: u64, value: T) -> Result<u64, T> {
        self.push_entry(key, value)
    }

    /// Appends elements with their keys from the front of `entries`, as many as fit, with one claim; returns the first
    /// one's position and how many they are. Their positions follow one another. What does not fit stays in
    /// the iterator.
    ///
    /// Fewer than fit are taken when a consumer is just about to free a cell; none only when the ring is
    /// full or closed.
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
        self.push_many(entries.len(), || entries.next())
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
        let (first, count) = self.claim_free(want as u64);
        let mut filling = Filling {
            ring: self,
            next: first,
            end: first + count,
        };
        if count > 0 {
            let mut values = values(count as usize);
            while filling.next < filling.end {
                let Some(value) = values.next() else { break };
                filling.fill(key, value);
            }
        }
        (first, (filling.next - first) as usize)
    }

    /// Takes the oldest element if its key satisfies `wanted`.
    ///
    /// `None` when the ring is empty or the key does not satisfy; no later element is looked at.
    #[inline]
    pub fn pop_if(&self, mut wanted: impl FnMut(u64) -> bool) -> Option<Entry<T, u64>> {
        let backoff = Patience::new();
        loop {
            let (head, key) = self.peek(&backoff)?;
            if !wanted(key) {
                return None;
            }
            if self.claim(&self.head, head, 1).is_ok() {
                // The head was `head` all the time, so that the cell is the one that was looked at.
                return Some(self.take(self.cell(head), head));
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
        self.peek(&Patience::new())
    }

    #[inline]
    fn peek(&self, backoff: &Patience) -> Option<(u64, u64)> {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            let cell = self.cell(head);
            let stamp = cell.stamp.load(Ordering::Acquire);
            if stamp == self.free(head) + FULL {
                let key = <u64 as super::sealed::Sealed>::load(&cell.key);
                // Unchanged: the key is this element's, and not that of one a lap later.
                if cell.stamp.look(Ordering::Relaxed) == stamp {
                    return Some((head, key));
                }
                head = self.head.load(Ordering::Relaxed);
            } else {
                head = self.not_full(cell, stamp, head, backoff)?;
            }
        }
    }
}

impl<T, K: Key> Drop for Bounded<T, K> {
    fn drop(&mut self) {
        if std::mem::needs_drop::<T>() {
            // With the ring borrowed exclusively no operation is under way: each position between the indices is
            // full or a hole.
            let tail = self.producers.tail.load(Ordering::Relaxed) & !CLOSED;
            let mut position = self.head.load(Ordering::Relaxed);
            while position < tail {
                let cell = self.cell(position);
                if cell.stamp.load(Ordering::Relaxed) == self.free(position) + FULL {
                    // SAFETY: the cell is full, and each position is visited once.
                    drop(unsafe { cell.take() });
                }
                position += 1;
            }
        }
        let size = self.mask as usize + 1;
        #[cfg(loom)]
        for index in 0..size {
            // SAFETY: the allocation holds `size` cells.
            let cell = unsafe { self.cells.add(index) };
            // SAFETY: each cell was made by `with_capacity` and is dropped once; values are not dropped by it.
            unsafe { cell.drop_in_place() };
        }
        // SAFETY: allocated by `with_capacity` with this layout, and freed once.
        unsafe { dealloc(self.allocation.as_ptr(), Self::layout(size)) };
    }
}

impl<T, K: Key> fmt::Debug for Bounded<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounded")
            .field("len", &self.len())
            .field("capacity", &self.capacity)
            .field("is_closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

/// Claimed free cells, filled from the front; what is left when it goes becomes holes.
struct Filling<'a, T, K: Key> {
    ring: &'a Bounded<T, K>,
    next: u64,
    end: u64,
}

impl<T, K: Key> Filling<'_, T, K> {
    #[inline(always)]
    fn fill(&mut self, key: K, value: T) {
        let cell = self.ring.cell(self.next);
        // SAFETY: the claim gave this thread the cells up to `end`, all of them free.
        unsafe { cell.fill(key, value) };
        cell.stamp
            .store(self.ring.free(self.next) + FULL, Ordering::Release);
        self.next += 1;
    }
}

impl<T, K: Key> Drop for Filling<'_, T, K> {
    #[inline]
    fn drop(&mut self) {
        for position in self.next..self.end {
            let cell = self.ring.cell(position);
            cell.stamp
                .store(self.ring.free(position) + HOLE, Ordering::Release);
        }
    }
}

/// Elements that were claimed together, from [`Bounded::claim_batch`]: exactly as many as its length says. Those that
/// are left when it goes are dropped.
pub struct Batch<'a, T, K: Key> {
    ring: &'a Bounded<T, K>,
    next: u64,
    end: u64,
}

impl<T, K: Key> Iterator for Batch<'_, T, K> {
    type Item = Entry<T, K>;

    #[inline(always)]
    fn next(&mut self) -> Option<Entry<T, K>> {
        if self.next == self.end {
            return None;
        }
        let position = self.next;
        self.next += 1;
        Some(self.ring.take(self.ring.cell(position), position))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.end - self.next) as usize;
        (left, Some(left))
    }
}

impl<T, K: Key> ExactSizeIterator for Batch<'_, T, K> {}

impl<T, K: Key> Drop for Batch<'_, T, K> {
    #[inline]
    fn drop(&mut self) {
        for entry in self.by_ref() {
            drop(entry);
        }
    }
}

impl<T, K: Key> fmt::Debug for Batch<'_, T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
