//! What readers get: records by reference, which keep the chunk that they stand in.

use std::fmt;

use bytes::Bytes;

use super::chunk::Chunk;
use crate::sync::Arc;

/// What a read finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read<R> {
    /// Something to read. The cursor has moved past it.
    Record(R),
    /// Nothing yet: the reader has caught up, or the next record is claimed and not committed.
    Pending,
    /// Nothing any more: the log is closed, and everything in it has been read.
    End,
    /// The reader fell behind, and the records before `resume_at` are gone. The cursor has moved there.
    Trimmed {
        /// The oldest position that is left.
        resume_at: u64,
    },
}

impl<R> Read<R> {
    /// What was read, if anything.
    #[must_use]
    pub fn record(self) -> Option<R> {
        match self {
            Self::Record(record) => Some(record),
            _ => None,
        }
    }
}

/// One record, shared: it keeps the chunk in which it stands, and copies nothing.
pub struct Entry<T> {
    chunk: Arc<Chunk<T>>,
    /// Invariant: seen to be committed.
    index: usize,
}

impl<T> Entry<T> {
    /// # Safety
    /// The record of the index was seen to be committed.
    pub(super) unsafe fn new(chunk: Arc<Chunk<T>>, index: usize) -> Self {
        Self { chunk, index }
    }

    /// The record's position in the log.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.chunk.base() + self.index as u64
    }

    /// The value.
    #[inline]
    #[must_use]
    pub fn value(&self) -> &T {
        self.record().0
    }

    /// The bytes after the value.
    #[inline]
    #[must_use]
    pub fn tail(&self) -> &[u8] {
        self.record().1
    }

    /// Value and tail.
    #[inline]
    #[must_use]
    pub fn record(&self) -> (&T, &[u8]) {
        // SAFETY: the field's invariant.
        unsafe { self.chunk.record(self.index) }
    }

    /// The record of another position, if it stands in the same chunk and is committed.
    pub(super) fn at(self, position: u64) -> Option<Self> {
        let index = usize::try_from(position.checked_sub(self.chunk.base())?).ok()?;
        // A full chunk's successor begins where it ends, so that the index says which one it is.
        self.chunk.is_committed(index).then_some(Self {
            chunk: self.chunk,
            index,
        })
    }

    /// The tail as [`Bytes`], without a copy: they keep the record's chunk.
    #[must_use]
    pub fn tail_bytes(&self) -> Bytes
    where
        T: Send + Sync + 'static,
    {
        if self.tail().is_empty() {
            return Bytes::new();
        }
        Bytes::from_owner(TailOf(self.clone()))
    }
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self {
            chunk: Arc::clone(&self.chunk),
            index: self.index,
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Entry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("position", &self.position())
            .field("value", self.value())
            .field("tail", &self.tail().len())
            .finish()
    }
}

struct TailOf<T>(Entry<T>);

impl<T> AsRef<[u8]> for TailOf<T> {
    fn as_ref(&self) -> &[u8] {
        self.0.tail()
    }
}

/// A run of records of one chunk, shared: it keeps the chunk, with one count for all of them.
pub struct Batch<T> {
    chunk: Arc<Chunk<T>>,
    /// Invariant: the records of `first..end` were seen to be committed.
    first: usize,
    end: usize,
}

impl<T> Batch<T> {
    /// # Safety
    /// The records of `first..end` were seen to be committed.
    pub(super) unsafe fn new(chunk: Arc<Chunk<T>>, first: usize, end: usize) -> Self {
        Self { chunk, first, end }
    }

    /// How many records these are; at least one, unless it was [split](Self::split_to).
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.first
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first == self.end
    }

    /// The position of the first record.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.chunk.base() + self.first as u64
    }

    /// One past the position of the last record.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.chunk.base() + self.end as u64
    }

    /// The records in order: position, value and tail.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, T> {
        Iter {
            chunk: &self.chunk,
            next: self.first,
            end: self.end,
        }
    }

    /// The value and tail of the record number `index` of these.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<(&T, &[u8])> {
        let index = self.index(index)?;
        // SAFETY: the fields' invariant.
        Some(unsafe { self.chunk.record(index) })
    }

    /// The record number `index` of these, by itself.
    #[must_use]
    pub fn entry(&self, index: usize) -> Option<Entry<T>> {
        let index = self.index(index)?;
        // SAFETY: the fields' invariant.
        Some(unsafe { Entry::new(Arc::clone(&self.chunk), index) })
    }

    /// Takes the first `count` records off, or all that there are.
    #[must_use]
    pub fn split_to(&mut self, count: usize) -> Self {
        let middle = self.first + count.min(self.len());
        let front = Self {
            chunk: Arc::clone(&self.chunk),
            first: self.first,
            end: middle,
        };
        self.first = middle;
        front
    }

    #[inline]
    fn index(&self, index: usize) -> Option<usize> {
        (index < self.len()).then(|| self.first + index)
    }
}

impl<T> Clone for Batch<T> {
    fn clone(&self) -> Self {
        Self {
            chunk: Arc::clone(&self.chunk),
            first: self.first,
            end: self.end,
        }
    }
}

impl<T> fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("position", &self.position())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl<'a, T> IntoIterator for &'a Batch<T> {
    type Item = (u64, &'a T, &'a [u8]);
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// The records of a [`Batch`]: position, value and tail.
pub struct Iter<'a, T> {
    chunk: &'a Chunk<T>,
    /// Invariant: the records of `next..end` were seen to be committed.
    next: usize,
    end: usize,
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = (u64, &'a T, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.end {
            return None;
        }
        let index = self.next;
        self.next += 1;
        // SAFETY: the fields' invariant.
        let (value, tail) = unsafe { self.chunk.record(index) };
        Some((self.chunk.base() + index as u64, value, tail))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end - self.next;
        (left, Some(left))
    }
}

impl<T> DoubleEndedIterator for Iter<'_, T> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.next == self.end {
            return None;
        }
        self.end -= 1;
        // SAFETY: the fields' invariant.
        let (value, tail) = unsafe { self.chunk.record(self.end) };
        Some((self.chunk.base() + self.end as u64, value, tail))
    }
}

impl<T> ExactSizeIterator for Iter<'_, T> {}

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter")
            .field("position", &(self.chunk.base() + self.next as u64))
            .field("left", &self.len())
            .finish_non_exhaustive()
    }
}
