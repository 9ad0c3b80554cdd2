//! A reader's place in a log.

use std::fmt;

use super::Log;
use super::chunk::Chunk;
use super::read::{Batch, Entry, Read};
use crate::sync::atomic::{Ordering, fence};
use crate::sync::{Arc, Linked};

/// A reader's place in a [`Log`]: it reads one record after the other, and skips none.
///
/// Cursors know nothing of each other, and the log knows nothing of them. Each keeps the chunk that it read last, and no
/// other memory, until it is dropped or reads on.
pub struct Cursor<T> {
    log: Log<T>,
    /// The chunk that the position was last seen in, or one before it.
    chunk: Option<Arc<Chunk<T>>>,
    position: u64,
}

/// Where the next record stands.
enum Place {
    /// Committed, at this index of `Cursor::chunk`.
    At(usize),
    Pending,
    End,
    Trimmed,
}

impl<T> Cursor<T> {
    pub(super) fn new(log: Log<T>, position: u64) -> Self {
        Self {
            log,
            chunk: None,
            position,
        }
    }

    /// The position of the next record to read.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes to a position. It may lie before the log's start: then the next read says so; or beyond its end: then
    /// reads are pending until the log is so long.
    pub fn seek(&mut self, position: u64) {
        if self.chunk.as_ref().is_some_and(|c| c.base() > position) {
            self.chunk = None;
        }
        self.position = position;
    }

    /// The log that it reads.
    #[must_use]
    pub fn log(&self) -> &Log<T> {
        &self.log
    }

    /// Reads one record.
    ///
    /// An entry counts on its chunk; who reads much reads faster by the [`batch`](Self::batch).
    #[expect(
        clippy::should_implement_trait,
        reason = "what it finds may be there later, or be gone: more than an Option says"
    )]
    pub fn next(&mut self) -> Read<Entry<T>> {
        match self.place() {
            Place::At(index) => {
                let Some(chunk) = &self.chunk else {
                    return Read::Pending;
                };
                self.position += 1;
                // SAFETY: `place` saw that it is committed.
                Read::Record(unsafe { Entry::new(Arc::clone(chunk), index) })
            }
            place => self.nothing(&place),
        }
    }

    /// Reads a run of records that stand in one chunk: at most `max_records`, and of the second record on not more
    /// than `max_bytes` in all, values and tails together. At least one, if there is one.
    ///
    /// It may be shorter than allowed where a chunk ends: only [`Read::Pending`] says that the reader has caught up.
    pub fn batch(&mut self, max_records: usize, max_bytes: usize) -> Read<Batch<T>> {
        match self.place() {
            Place::At(first) => {
                let Some(chunk) = &self.chunk else {
                    return Read::Pending;
                };
                let (mut end, mut bytes) = (first, 0usize);
                let most = first.saturating_add(max_records.max(1));
                while end < most
                    && let Some(next) = chunk.committed_bytes(end)
                {
                    bytes = bytes.saturating_add(next);
                    if bytes > max_bytes && end > first {
                        break;
                    }
                    end += 1;
                }
                self.position += (end - first) as u64;
                // SAFETY: all of them were seen to be committed, the first by `place`.
                Read::Record(unsafe { Batch::new(Arc::clone(chunk), first, end) })
            }
            place => self.nothing(&place),
        }
    }

    fn nothing<R>(&mut self, place: &Place) -> Read<R> {
        match place {
            Place::End => Read::End,
            Place::Trimmed => Read::Trimmed {
                resume_at: self.position,
            },
            Place::Pending | Place::At(_) => Read::Pending,
        }
    }

    /// Finds the next record, and moves to the chunk in which it stands.
    fn place(&mut self) -> Place {
        loop {
            let start = self.log.start();
            if self.position < start {
                self.seek(start);
                return Place::Trimmed;
            }
            let Some(chunk) = &self.chunk else {
                self.chunk = self.log.find(self.position);
                continue;
            };
            let index = self.position - chunk.base();
            // Not on any machine: more records than there are addresses.
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            if chunk.is_committed(index) {
                return Place::At(index);
            }
            let tail = chunk.tail();
            if index < tail.count() {
                return Place::Pending;
            }
            if !tail.is_sealed() {
                return if tail.is_closed() {
                    Place::End
                } else {
                    Place::Pending
                };
            }
            let mut next = chunk.link.follow();
            if matches!(next, Linked::Unset) {
                if tail.is_closed() {
                    return Place::End;
                }
                // Ordering: the one in `Shared::append_next` follows the setting of the link. Who goes to sleep
                // after this has seen the link, or is seen by who appends next.
                fence(Ordering::SeqCst);
                next = chunk.link.follow();
            }
            match next {
                Linked::Unset => return Place::Pending,
                Linked::Gone => self.chunk = None,
                Linked::To(next) => self.chunk = Some(next),
            }
        }
    }
}

impl<T> Clone for Cursor<T> {
    fn clone(&self) -> Self {
        Self {
            log: self.log.clone(),
            chunk: self.chunk.clone(),
            position: self.position,
        }
    }
}

impl<T> fmt::Debug for Cursor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor")
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
