//! One chunk: records from the front, their table at the back, and the word from which room is claimed.

use std::marker::PhantomData;
use std::mem;
use std::ptr::{self, NonNull};
use std::slice;

use super::pool::{Buffer, Pool, Shape};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, CachePadded, Life, Link, Stamp};

/// Bytes of an entry of the table.
pub(super) const ENTRY_BYTES: usize = size_of::<u64>();

/// The most records of a chunk: 22 bits of the tail word.
pub(super) const MOST_ENTRIES: usize = (1 << 22) - 1;

/// The longest tail of a record: 24 bits of a stamp.
pub(super) const MOST_TAIL: usize = (1 << 24) - 1;

/// The least alignment of a record, and the unit of its offset.
const UNIT: usize = 8;

/// What a chunk's tail word says.
#[derive(Clone, Copy)]
pub(super) struct Tail(u64);

impl Tail {
    /// The log is closed: this chunk is its last.
    const CLOSED: u64 = 1 << 63;
    /// The chunk takes no more: the next one does.
    const SEALED: u64 = 1 << 62;
    const BYTES_BITS: u32 = 40;

    fn new(count: usize, bytes: usize) -> Self {
        Self((count as u64) << Self::BYTES_BITS | (bytes / UNIT) as u64)
    }

    pub(super) fn is_closed(self) -> bool {
        self.0 & Self::CLOSED != 0
    }

    pub(super) fn is_sealed(self) -> bool {
        self.0 & Self::SEALED != 0
    }

    /// Records claimed.
    pub(super) fn count(self) -> usize {
        (self.0 >> Self::BYTES_BITS) as usize & MOST_ENTRIES
    }

    /// Bytes claimed.
    pub(super) fn bytes(self) -> usize {
        (self.0 & ((1 << Self::BYTES_BITS) - 1)) as usize * UNIT
    }
}

/// What an entry of the table says, when it is of the chunk's epoch: where the record stands.
#[derive(Clone, Copy)]
struct Entry(u64);

impl Entry {
    fn new(epoch: u16, offset: usize, tail: usize) -> Self {
        Self(u64::from(epoch) << 48 | ((offset / UNIT) as u64) << 24 | tail as u64)
    }

    fn epoch(self) -> u16 {
        (self.0 >> 48) as u16
    }

    fn offset(self) -> usize {
        (self.0 >> 24) as usize % (1 << 24) * UNIT
    }

    fn tail(self) -> usize {
        self.0 as usize & MOST_TAIL
    }
}

/// The outcome of a claim.
pub(super) enum Claim {
    /// Room for the records from the index on, at the offset.
    At {
        index: usize,
        offset: usize,
    },
    /// The chunk has no room, or is sealed.
    Full,
    Closed,
}

/// A chunk of a log, or the empty stand-in for one that is not needed yet.
pub(super) struct Chunk<T> {
    /// Where room is claimed. On a line of its own: readers look at it only when they have caught up.
    tail: CachePadded<Stamp>,
    /// The position of the first record.
    base: u64,
    /// Bytes for records.
    room: usize,
    /// Entries of the table.
    entries: usize,
    epoch: u16,
    /// The records. A record's bytes are written by who claimed them, up to the commit of its entry; from then on they
    /// are shared, and nobody writes them before the chunk is dropped.
    place: NonNull<u8>,
    /// The table: `entries` stamps.
    table: NonNull<Stamp>,
    /// The next chunk, once there is one.
    pub(super) link: Link<Chunk<T>>,
    life: Life,
    /// The memory; none for a stand-in. After the records, so that they are dropped before.
    _lease: Option<Lease>,
    records: PhantomData<T>,
}

// SAFETY: values are dropped on whichever thread drops the chunk, hence `Send`; the rest is atomics and a buffer that
// the chunk owns.
unsafe impl<T: Send + Sync> Send for Chunk<T> {}
// SAFETY: a committed record is shared by reference, hence `Sync`; an uncommitted one is touched by who claimed it alone.
unsafe impl<T: Send + Sync> Sync for Chunk<T> {}

impl<T> Chunk<T> {
    /// The alignment of records, and so the unit of their sizes.
    pub(super) const ALIGN: usize = if align_of::<T>() > UNIT {
        align_of::<T>()
    } else {
        UNIT
    };

    /// Bytes that a record with a tail of so many takes, without its entry.
    #[inline]
    pub(super) const fn frame(tail: usize) -> usize {
        (size_of::<T>() + tail).next_multiple_of(Self::ALIGN)
    }

    /// A chunk in which `count` records of `bytes` in all are claimed by the caller.
    pub(super) fn claimed(pool: &Arc<Pool>, shape: &Shape, count: usize, bytes: usize) -> Self {
        let buffer = pool.take(shape, Self::ALIGN);
        Self {
            tail: CachePadded::new(Stamp::new(Tail::new(count, bytes).0)),
            base: 0,
            room: buffer.table_offset(shape.entries),
            entries: shape.entries,
            epoch: buffer.epoch(),
            place: buffer.place(),
            table: buffer.table(shape.entries).cast(),
            link: Link::new(),
            life: Life::default(),
            _lease: Some(Lease {
                pool: Arc::clone(pool),
                buffer: Some(buffer),
            }),
            records: PhantomData,
        }
    }

    /// A stand-in at a position: no memory, and no room.
    pub(super) fn stand_in(base: u64, closed: bool) -> Self {
        let closed = if closed { Tail::CLOSED } else { 0 };
        Self {
            tail: CachePadded::new(Stamp::new(Tail::SEALED | closed)),
            base,
            room: 0,
            entries: 0,
            epoch: 0,
            place: NonNull::dangling(),
            table: NonNull::dangling(),
            link: Link::new(),
            life: Life::default(),
            _lease: None,
            records: PhantomData,
        }
    }

    /// Says where the chunk begins; before it is shared.
    pub(super) fn at(mut self, base: u64) -> Self {
        self.base = base;
        self
    }

    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Bytes that the chunk takes from the system: buffer and head.
    pub(super) fn bytes(&self) -> usize {
        // The two counts of the `Arc`.
        size_of::<Self>() + 2 * size_of::<usize>() + self.buffer_bytes()
    }

    /// Bytes of the buffer; zero for a stand-in.
    pub(super) fn buffer_bytes(&self) -> usize {
        self.room + self.entries * ENTRY_BYTES
    }

    /// The tail word; see the orderings of the module above.
    #[inline]
    pub(super) fn tail(&self) -> Tail {
        Tail(self.tail.load(Ordering::SeqCst))
    }

    /// One past the last position that is claimed.
    pub(super) fn end(&self) -> u64 {
        self.base + self.tail().count() as u64
    }

    /// Whether all of the chunk lies below a position and nothing will be added.
    pub(super) fn ends_by(&self, position: u64) -> bool {
        let tail = self.tail();
        tail.is_sealed() && self.base + tail.count() as u64 <= position
    }

    /// Claims room for `count` records of `bytes` in all.
    #[inline]
    pub(super) fn claim(&self, count: usize, bytes: usize) -> Claim {
        let mut tail = Tail(self.tail.load(Ordering::Relaxed));
        loop {
            if tail.0 & (Tail::CLOSED | Tail::SEALED) != 0 {
                return if tail.is_closed() {
                    Claim::Closed
                } else {
                    Claim::Full
                };
            }
            let (index, offset) = (tail.count(), tail.bytes());
            if offset + bytes > self.room || index + count > self.entries {
                return Claim::Full;
            }
            // Both sums fit, so that neither part of the word runs into the other.
            let claimed = tail.0 + Tail::new(count, bytes).0;
            // Ordering: the claim publishes nothing, and what it guards was acquired with the chunk.
            match self.tail.compare_exchange_weak(
                tail.0,
                claimed,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Claim::At { index, offset },
                Err(found) => tail = Tail(found),
            }
        }
    }

    /// Ends the chunk: nothing can be claimed any more.
    pub(super) fn seal(&self) -> Tail {
        Tail(self.tail.fetch_or(Tail::SEALED, Ordering::SeqCst))
    }

    /// Ends the chunk if its tail word is as it was.
    pub(super) fn seal_if(&self, tail: Tail) -> bool {
        let sealed = tail.0 | Tail::SEALED;
        self.tail
            .compare_exchange(tail.0, sealed, Ordering::SeqCst, Ordering::Relaxed)
            .is_ok()
    }

    /// Closes the log at this chunk, its last.
    pub(super) fn close(&self) -> Tail {
        Tail(self.tail.fetch_or(Tail::CLOSED, Ordering::SeqCst))
    }

    /// Writes a record at its place. It is not committed yet.
    ///
    /// # Safety
    /// The caller has claimed `frame(sum of tail)` bytes at the offset, and fills them once.
    #[inline]
    pub(super) unsafe fn fill(&self, offset: usize, value: T, tail: &[&[u8]]) {
        self.life.access();
        // SAFETY: the claim lies within the buffer.
        let place = unsafe { self.place.add(offset) };
        // SAFETY: the claim is the caller's alone, and aligned: all claims are multiples of the alignment, and the
        // buffer is aligned to it.
        unsafe { place.cast::<T>().write(value) };
        // SAFETY: the claim has room for the value.
        let mut place = unsafe { place.add(size_of::<T>()) };
        for part in tail {
            // SAFETY: the claim has room for all parts, is the caller's alone, and is none of theirs.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr(), place.as_ptr(), part.len()) };
            // SAFETY: as above.
            place = unsafe { place.add(part.len()) };
        }
    }

    /// Shows a record to the readers.
    ///
    /// # Safety
    /// The caller has claimed the index, and filled the record at the offset with a tail of that length.
    #[inline]
    pub(super) unsafe fn commit(&self, index: usize, offset: usize, tail: usize) {
        let entry = Entry::new(self.epoch, offset, tail);
        // Ordering: publishes the record. A SeqCst read-modify-write, so that who asks afterwards whether
        // somebody waits has the waiter's answer or is seen by it.
        // SAFETY: the claim is below `entries`.
        let stamp = unsafe { self.stamp(index) };
        stamp.swap(entry.0, Ordering::SeqCst);
    }

    /// Shows a record to the readers; the caller has a fence follow, for waiters.
    ///
    /// # Safety
    /// As for [`commit`](Self::commit).
    #[inline]
    pub(super) unsafe fn commit_quietly(&self, index: usize, offset: usize, tail: usize) {
        let entry = Entry::new(self.epoch, offset, tail);
        // SAFETY: the claim is below `entries`.
        let stamp = unsafe { self.stamp(index) };
        // Ordering: publishes the record.
        stamp.store(entry.0, Ordering::Release);
    }

    /// Whether the record of an index is committed.
    #[inline]
    pub(super) fn is_committed(&self, index: usize) -> bool {
        // Ordering: acquires the record; SeqCst for who goes to sleep if there is none.
        self.entry(index, Ordering::SeqCst).is_some()
    }

    /// The bytes of a record that is committed, value and tail.
    #[inline]
    pub(super) fn committed_bytes(&self, index: usize) -> Option<usize> {
        // Ordering: acquires the record.
        let entry = self.entry(index, Ordering::Acquire)?;
        Some(size_of::<T>() + entry.tail())
    }

    /// A record.
    ///
    /// # Safety
    /// The record was seen to be committed.
    #[inline]
    pub(super) unsafe fn record(&self, index: usize) -> (&T, &[u8]) {
        self.life.access();
        // SAFETY: what is committed is below `entries`.
        let stamp = unsafe { self.stamp(index) };
        // Ordering: it was acquired when it was seen to be committed, and does not change any more.
        let entry = Entry(stamp.look(Ordering::Relaxed));
        // SAFETY: the entry was made from a claim within the buffer.
        let place = unsafe { self.place.add(entry.offset()) };
        // SAFETY: a value was written there before the commit, and is not written again while `self` lives.
        let value = unsafe { place.cast::<T>().as_ref() };
        // SAFETY: the tail follows the value.
        let tail = unsafe { place.add(size_of::<T>()) };
        // SAFETY: so many bytes were written there before the commit.
        let tail = unsafe { slice::from_raw_parts(tail.as_ptr(), entry.tail()) };
        (value, tail)
    }

    #[inline]
    fn entry(&self, index: usize, order: Ordering) -> Option<Entry> {
        if index >= self.entries {
            return None;
        }
        // SAFETY: checked above.
        let stamp = unsafe { self.stamp(index) };
        let entry = Entry(stamp.load(order));
        (entry.epoch() == self.epoch).then_some(entry)
    }

    /// # Safety
    /// The index is below `entries`.
    #[inline]
    unsafe fn stamp(&self, index: usize) -> &Stamp {
        self.life.access();
        // SAFETY: the table has so many entries.
        let stamp = unsafe { self.table.add(index) };
        // SAFETY: initialised as numbers, and used as stamps alone while the chunk lives.
        unsafe { stamp.as_ref() }
    }
}

impl<T> Drop for Chunk<T> {
    fn drop(&mut self) {
        if mem::needs_drop::<T>() {
            for index in 0..self.tail().count() {
                self.drop_value(index);
            }
        }
        self.life.end();
    }
}

impl<T> Chunk<T> {
    fn drop_value(&mut self, index: usize) {
        // Nobody claims without committing, and who does both holds the chunk meanwhile.
        let Some(entry) = self.entry(index, Ordering::Acquire) else {
            debug_assert!(false, "claimed and not committed");
            return;
        };
        // SAFETY: the entry was made from a claim within the buffer.
        let place = unsafe { self.place.add(entry.offset()) };
        // SAFETY: a value is there, nobody else has the chunk any more, and each index comes once.
        unsafe { place.cast::<T>().drop_in_place() };
    }
}

/// A buffer that goes back to its pool.
struct Lease {
    pool: Arc<Pool>,
    /// Taken when dropped.
    buffer: Option<Buffer>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.pool.give(buffer);
        }
    }
}
