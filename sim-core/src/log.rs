//! An append-only log in memory: many writers, many readers, records read where they were written.
//!
//! A record is a value of type `T` and a tail of bytes, which may be empty. Once committed it does not change; readers
//! get references, and nothing is copied. Positions are dense: 0, 1, 2, and so on.
//!
//! ```
//! use sim_core::log::{Log, LogConfig, Pool, Read};
//!
//! let log = Log::new(Pool::new(LogConfig::default(), 16 << 20));
//! let mut cursor = log.cursor(0);
//! assert!(matches!(cursor.next(), Read::Pending));
//!
//! assert_eq!(log.append("a value", &[b"key ", b"data"]).unwrap(), 0);
//! let Read::Record(entry) = cursor.next() else { unreachable!("it was appended") };
//! assert_eq!((entry.position(), entry.value(), entry.tail()), (0, &"a value", &b"key data"[..]));
//!
//! assert_eq!(log.close(), 1);
//! assert!(matches!(cursor.next(), Read::End));
//! assert_eq!(log.append("too late", &[]).unwrap_err().into_value(), "too late");
//! ```
//!
//! # Algorithm
//! Chunks of memory in a chain, as in the log buffers of Aeron (Thompson, Montgomery): a writer claims room at the end of
//! the newest chunk by one atomic step, fills it, and commits it by a store that readers wait for; who finds no room
//! brings the next chunk. Within a chunk records stand from the front, and a table of their places at the back, as in
//! the slotted pages of databases. The epochs that spare the zeroing of used chunks are this file's own.
//!
//! ```text
//!  Log ── tail ───────────────────────────────────────┐  (Snapshot: lock-free)
//!   │                                                 ▼
//!   └─ directory ─▶ chunk 0 ──link──▶ chunk 1 ──link──▶ chunk 2            start: the oldest position
//!      (for seeks   base 0            base 9,000        base 27,000               that is retained
//!       and trims)  sealed            sealed            open
//!                     ▲                                   ▲
//!                   Batch, Entry, Cursor              append, Cursor
//!
//!  a chunk's buffer                                            tail word: 64 bits, one compare-and-swap
//!  ┌─────────┬─────────┬────┬─────────────┬───┬───┬───┬─────┐  ┌────────┬────────┬─────────┬──────────┐
//!  │ T  tail │ T  tail │ T  │   free      │ 0 │ 1 │ 2 │ ... │  │ closed │ sealed │ count:22│ bytes:40 │
//!  └─────────┴─────────┴────┴─────────────┴───┴───┴───┴─────┘  └────────┴────────┴─────────┴──────────┘
//!  0         records, in the order        table: an entry a    entry: 64 bits, written once in an epoch
//!            of their claims              record               ┌──────────┬────────────┬─────────┐
//!                                                              │ epoch:16 │ offset:24  │ tail:24 │
//!                                                              └──────────┴────────────┴─────────┘
//! ```
//!
//! - **Append**: load the newest chunk, claim count and bytes by one compare-and-swap on its tail word, write the record,
//!   swap its entry in. A batch is one claim for all its records, so that they stand together. Everything that might
//!   panic is done before the claim: from there to the commit only bytes are moved.
//! - **Roll**: who finds no room takes the lock of rollers, brings a chunk with its own records claimed already, seals the
//!   old one (nothing can be claimed in it any more, so that its end is known), and links, lists and shows the new
//!   one. Until it is sealed, the old one takes what fits.
//! - **Close**: under the same lock the bit *closed* is set in the newest tail word. A claim is before it, or fails.
//! - **Read**: an entry of the chunk's epoch is a committed record. No reader goes past an entry that is not: so
//!   there are no gaps. It looks at the tail word only when it finds none, and at the link only when the chunk is
//!   sealed and read.
//! - **Trim**: raise `start`, then take chunks that lie below it off the directory. Their memory goes back to the pool when
//!   the last reader leaves. A reader that comes to a position below `start` is told where to go on.
//! - **Epochs**: a chunk from the pool gets the next epoch, and its table stands where no user bytes have ever stood (or
//!   where they were zeroed when the table grew), so that whatever it finds there is no entry of this epoch.
//!
//! # Ordering
//! - *Record* (release-acquire on the entry). `Chunk::commit` and `commit_quietly` publish what `fill` wrote; whoever
//!   finds the entry committed acquired it.
//! - *Claim*: `Relaxed`. It publishes nothing. What it guards, the buffer of a new life, was acquired with the chunk:
//!   through the tail's [`Snapshot`], a link, or the directory's lock.
//! - *Sleep* (store-load, `SeqCst`). Who appends commits by a `SeqCst` read-modify-write (a batch: a `SeqCst` fence after
//!   the last entry) and then asks an [`Event`](crate::event::Event) whether somebody waits. Who waits raises its flag
//!   (`SeqCst`) and then looks: at the entry, and if it is not there at the tail word, all `SeqCst`. In the single
//!   order of these one sees the other. Where the entry is in a chunk that the waiter does not know yet, it looks at the
//!   link after a `SeqCst` fence; who set the link had a `SeqCst` fence follow, before the new chunk could be found
//!   and anything be committed in it. The same holds for `close`, a `SeqCst` read-modify-write of the word that is looked at.
//! - *Trim*: `start` is raised before chunks leave the directory (its lock orders them). So who does not find a position there
//!   finds it below `start`.
//! - *Last use, then drop or reuse*: by the counts of `Arc`; a writer between claim and commit holds the chunk too.
//!
//! # Limits
//! A tail has at most 16 MiB - 1 ([`Log::TAIL_LIMIT`], 24 bits of an entry). A batch has at most 64 MiB
//! ([`Log::BATCH_LIMIT`]: half of what 24 bits of an entry, in units of eight bytes, can name) and 4,194,303 records (22 bits of
//! the tail word). A value has at most 1 MiB and is aligned to at most 4 KiB (a page): more does not compile. What does
//! not fit into a full chunk gets a chunk of its own.
//!
//! # Memory
//! A record takes its value and tail, rounded up to eight bytes (or to the alignment of `T`), and 8 bytes of the table.
//! Beside that, a chunk has a head of about 300 bytes, entries that it had in reserve (about 1/16 of the table), and
//! what the first record that did not fit leaves free. [`Log::bytes`] and [`Pool::allocated_bytes`] count all of it but what
//! the directory takes, eight bytes a chunk. An empty log has no chunk.
//!
//! A log has no bound of its own: it grows until its owner trims it, by [`Log::bytes`] and [`Log::oldest_chunk_end`],
//! by position or by what stands in the records. Chunks that a trim frees go to the pool, up to its bound, and beyond
//! that to the system, which costs who trims some time each: who trims much at once does it in steps, or lets the
//! pool keep what comes back. A fresh chunk costs its page faults; [`Pool::reserve`] pays for them ahead.

mod chunk;
mod cursor;
mod pool;
mod read;

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use self::chunk::{Chunk, Claim, MOST_ENTRIES, MOST_TAIL};
pub use self::cursor::Cursor;
pub use self::pool::{LogConfig, Pool};
pub use self::read::{Batch, Entry, Iter, Read};
use crate::snapshot::Snapshot;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use crate::sync::{Arc, Mutex};

/// The most bytes of a value.
const MOST_VALUE: usize = 1 << 20;

/// The most bytes of a batch.
const MOST_BATCH: usize = 64 << 20;

/// An append-only log; see the [module](self). A handle: clones are the same log.
pub struct Log<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    /// The newest chunk, or a stand-in. Changed under `roll`.
    tail: Snapshot<Chunk<T>>,
    /// The oldest position that is retained; only grows.
    start: AtomicU64,
    /// Held by who brings or takes away the newest chunk, or closes.
    roll: Mutex<()>,
    /// Every chunk with records, by position. Never locked for longer than to look one up, or to add or take one.
    directory: Mutex<VecDeque<Arc<Chunk<T>>>>,
    /// Bytes of what is in the directory. Changed under its lock.
    bytes: AtomicUsize,
    pool: Arc<Pool>,
}

impl<T: Send + Sync + 'static> Log<T> {
    /// Makes an empty log. It takes its memory from the pool as it grows.
    #[must_use]
    pub fn new(pool: Arc<Pool>) -> Self {
        const {
            assert!(
                align_of::<T>() <= pool::MOST_ALIGN,
                "a value is aligned to a page at most"
            );
            assert!(size_of::<T>() <= MOST_VALUE, "a value has at most 1 MiB");
        };
        Self {
            shared: Arc::new(Shared {
                tail: Snapshot::new(Chunk::stand_in(0, false)),
                start: AtomicU64::new(0),
                roll: Mutex::new(()),
                directory: Mutex::new(VecDeque::new()),
                bytes: AtomicUsize::new(0),
                pool,
            }),
        }
    }

    /// Appends a record: a value, and the parts of its tail one after the other. Returns its position.
    ///
    /// When it returns, the record is there for all readers; [`Event::notify_all`](crate::event::Event::notify_all)
    /// may follow, as the commit is the change that it asks for. Lock-free, but for the record that needs a new chunk.
    ///
    /// # Errors
    /// [`Closed`](AppendError::Closed), and [`TooLarge`](AppendError::TooLarge) if the tail is longer than
    /// [`TAIL_LIMIT`](Self::TAIL_LIMIT). The value comes back.
    #[inline]
    pub fn append(&self, value: T, tail: &[&[u8]]) -> Result<u64, AppendError<T>> {
        let Some(length) = length(tail) else {
            let bytes = tail
                .iter()
                .map(|part| part.len())
                .fold(0, usize::saturating_add);
            return Err(AppendError::TooLarge {
                value,
                bytes,
                limit: MOST_TAIL,
            });
        };
        let frame = Chunk::<T>::frame(length);
        self.shared
            .claim(1, frame, value, |chunk, index, offset, value| {
                // SAFETY: the claim has the size of the frame, and is filled once.
                unsafe { chunk.fill(offset, value, tail) };
                // SAFETY: claimed and filled.
                unsafe { chunk.commit(index, offset, length) };
            })
            .map(|range| range.start)
            .map_err(AppendError::Closed)
    }

    /// Appends records by one claim: they stand one after the other, and other writers' records before or after
    /// all of them. All are appended, or none. Readers see them as they are committed, in order.
    ///
    /// Each item is a value and the parts of its tail. No items, no effect: the range is empty then.
    ///
    /// # Errors
    /// As for [`append`](Self::append), and [`TooLarge`](AppendError::TooLarge) also if the records take more than
    /// [`BATCH_LIMIT`](Self::BATCH_LIMIT), [`TooMany`](AppendError::TooMany) if there are more than a chunk can have.
    /// The items come back.
    #[expect(clippy::type_complexity, reason = "the items come back as they came")]
    pub fn append_batch<'a, const PARTS: usize>(
        &self,
        items: Vec<(T, [&'a [u8]; PARTS])>,
    ) -> Result<Range<u64>, AppendError<Vec<(T, [&'a [u8]; PARTS])>>> {
        let count = items.len();
        if count == 0 {
            let end = self.end();
            return if self.is_closed() {
                Err(AppendError::Closed(items))
            } else {
                Ok(end..end)
            };
        }
        if count > MOST_ENTRIES {
            return Err(AppendError::TooMany {
                value: items,
                count,
                limit: MOST_ENTRIES,
            });
        }
        let mut total = 0usize;
        for (_, tail) in &items {
            let Some(length) = length(tail) else {
                let bytes = tail
                    .iter()
                    .map(|part| part.len())
                    .fold(0, usize::saturating_add);
                return Err(AppendError::TooLarge {
                    value: items,
                    bytes,
                    limit: MOST_TAIL,
                });
            };
            // No overflow: four million records of some 17 MiB each, at 64 bits.
            total = total.saturating_add(Chunk::<T>::frame(length));
        }
        if total > MOST_BATCH {
            return Err(AppendError::TooLarge {
                value: items,
                bytes: total,
                limit: MOST_BATCH,
            });
        }
        self.shared
            .claim(count, total, items, |chunk, index, offset, items| {
                let mut offset = offset;
                for (number, (value, tail)) in items.into_iter().enumerate() {
                    let length: usize = tail.iter().map(|part| part.len()).sum();
                    // SAFETY: the claim has the size of all frames, and each is filled once, one after the other.
                    unsafe { chunk.fill(offset, value, &tail) };
                    // SAFETY: claimed and filled.
                    unsafe { chunk.commit_quietly(index + number, offset, length) };
                    offset += Chunk::<T>::frame(length);
                }
                // Ordering: what was committed, then the flag of those who wait.
                fence(Ordering::SeqCst);
            })
            .map_err(AppendError::Closed)
    }

    /// Ends the log, and returns its end, which is final: no append succeeds any more, and all that did are below it.
    ///
    /// A second call changes nothing. Readers read what is there, and then find [`Read::End`]; whoever waits has to be told,
    /// as after an append. No value is dropped here, so that the caller may hold locks: where the newest chunk was trimmed
    /// whole before, [`shrink`](Self::shrink) lets go of it, or the next [`trim_to`](Self::trim_to).
    pub fn close(&self) -> u64 {
        let rolling = self.shared.roll.lock();
        let chunk = self.shared.tail.load();
        let tail = chunk.close();
        drop(rolling);
        chunk.base() + tail.count() as u64
    }

    /// Raises the start: positions below are gone, for readers too, though a record that is held stays readable. Never
    /// above [`end`](Self::end), and never lowered.
    ///
    /// Whole chunks below the start are let go, whether the start moves or not; the newest one is only let go when the log
    /// is closed, or by [`shrink`](Self::shrink). Blocks neither readers nor writers. Values are dropped by this call, or by the last
    /// reader that holds their chunk.
    pub fn trim_to(&self, position: u64) {
        let position = position.min(self.end());
        let former = self.shared.start.fetch_max(position, Ordering::SeqCst);
        // Also where the start stays: a chunk that was the newest when all its records were trimmed may not be it any more.
        self.shared.let_go(former.max(position));
        if self.is_closed() {
            self.shrink();
        }
    }

    /// Lets go of the newest chunk too, if all its records are trimmed. For logs that rest: the next append needs a new
    /// chunk.
    pub fn shrink(&self) {
        let rolling = self.shared.roll.lock();
        let chunk = self.shared.tail.load();
        let (tail, start) = (chunk.tail(), self.start());
        let end = chunk.base() + tail.count() as u64;
        if tail.count() == 0 || end > start || !chunk.seal_if(tail) {
            return;
        }
        let stand_in = Arc::new(Chunk::stand_in(end, tail.is_closed()));
        self.shared.show(&chunk, stand_in);
        drop(rolling);
        drop(chunk);
        self.shared.let_go(start);
    }
}

impl<T> Log<T> {
    /// The most bytes of a record's tail: 16 MiB - 1.
    pub const TAIL_LIMIT: usize = MOST_TAIL;

    /// The most bytes of the records of a batch, values and tails, each rounded up: 64 MiB.
    pub const BATCH_LIMIT: usize = MOST_BATCH;

    /// Whether [`close`](Self::close) was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.tail.load().tail().is_closed()
    }

    /// The oldest position that is retained.
    #[inline]
    #[must_use]
    pub fn start(&self) -> u64 {
        self.shared.start.load(Ordering::SeqCst)
    }

    /// One past the newest position, which may be claimed and not be committed yet.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.shared.tail.load().end()
    }

    /// Bytes of the chunks that the log holds, with their tables and heads. Without those that were let go and that readers
    /// still hold; [`Pool::allocated_bytes`] has them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        // Ordering: a figure by itself.
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// How many chunks the log holds.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.shared.directory.lock().len()
    }

    /// The end of the oldest chunk: to trim to it lets go of that chunk and of no other. `None` while the oldest chunk is
    /// the newest.
    #[must_use]
    pub fn oldest_chunk_end(&self) -> Option<u64> {
        let directory = self.shared.directory.lock();
        let oldest = directory.front()?;
        oldest.tail().is_sealed().then(|| oldest.end())
    }

    /// Where the log's memory comes from.
    #[must_use]
    pub fn pool(&self) -> &Arc<Pool> {
        &self.shared.pool
    }

    /// A reader that starts at a position, which may lie before the start or beyond the end: see [`Cursor::seek`].
    #[must_use]
    pub fn cursor(&self, position: u64) -> Cursor<T> {
        Cursor::new(self.clone(), position)
    }

    /// The record of a position, if it is retained and committed.
    #[must_use]
    pub fn get(&self, position: u64) -> Option<Entry<T>> {
        if position < self.start() {
            return None;
        }
        let chunk = self.find(position)?;
        let index = usize::try_from(position - chunk.base()).ok()?;
        if !chunk.is_committed(index) {
            return None;
        }
        // SAFETY: seen to be committed.
        Some(unsafe { Entry::new(chunk, index) })
    }

    /// The first position whose record does not satisfy `pred`, by binary search; the end of what is committed, if all do.
    ///
    /// The records must be ordered by it: first those that satisfy it, then those that do not.
    pub fn partition_point(&self, mut pred: impl FnMut(&T, &[u8]) -> bool) -> u64 {
        let (mut low, mut high) = (self.start(), self.end());
        let mut entry: Option<Entry<T>> = None;
        while low < high {
            let middle = low + (high - low) / 2;
            entry = match entry.and_then(|entry| entry.at(middle)) {
                Some(entry) => Some(entry),
                None => self.get(middle),
            };
            match &entry {
                Some(entry) => {
                    let (value, tail) = entry.record();
                    if pred(value, tail) {
                        low = middle + 1;
                    } else {
                        high = middle;
                    }
                }
                // Trimmed meanwhile, or not committed yet.
                None => match self.start() {
                    start if start > middle => low = start,
                    _ => high = middle,
                },
            }
        }
        low
    }

    /// The chunk in which a position stands or will stand, or one before it. `None` if it was trimmed.
    fn find(&self, position: u64) -> Option<Arc<Chunk<T>>> {
        loop {
            let directory = self.shared.directory.lock();
            let after = directory.partition_point(|chunk| chunk.base() <= position);
            if let Some(chunk) = after.checked_sub(1).and_then(|at| directory.get(at)) {
                return Some(Arc::clone(chunk));
            }
            drop(directory);
            let tail = self.shared.tail.load();
            if tail.base() <= position {
                return Some(tail.into_arc());
            }
            // What is not in the directory is below the start, or came into it just now.
            if position < self.start() {
                return None;
            }
        }
    }
}

impl<T> Shared<T> {
    /// Claims room for `count` records of `bytes` in all, and has them filled and committed.
    #[inline]
    fn claim<V>(
        &self,
        count: usize,
        bytes: usize,
        value: V,
        fill: impl FnOnce(&Chunk<T>, usize, usize, V),
    ) -> Result<Range<u64>, V> {
        loop {
            let chunk = self.tail.load();
            let base = match chunk.claim(count, bytes) {
                Claim::At { index, offset } => {
                    fill(&chunk, index, offset, value);
                    chunk.base() + index as u64
                }
                Claim::Full => match self.append_next(&chunk, count, bytes) {
                    Some(next) => {
                        fill(&next, 0, 0, value);
                        next.base()
                    }
                    None => continue,
                },
                Claim::Closed => return Err(value),
            };
            return Ok(base..base + count as u64);
        }
    }

    /// Brings the next chunk, in which `count` records of `bytes` in all are claimed; unless somebody else did,
    /// or the log was closed.
    #[cold]
    #[inline(never)]
    fn append_next(&self, full: &Chunk<T>, count: usize, bytes: usize) -> Option<Arc<Chunk<T>>> {
        let rolling = self.roll.lock();
        let chunk = self.tail.load();
        let tail = chunk.tail();
        if !std::ptr::eq(&raw const *chunk, full) || tail.is_closed() {
            return None;
        }
        // A few records say little about those to come.
        let mean = if tail.count() < 16 {
            bytes / count
        } else {
            tail.bytes() / tail.count()
        };
        let shape = self.pool.shape(chunk.buffer_bytes(), mean, count, bytes);
        let next = Chunk::claimed(&self.pool, &shape, count, bytes);
        let end = chunk.base() + chunk.seal().count() as u64;
        let next = Arc::new(next.at(end));
        let mut directory = self.directory.lock();
        directory.push_back(Arc::clone(&next));
        self.bytes.fetch_add(next.bytes(), Ordering::Relaxed);
        drop(directory);
        self.show(&chunk, Arc::clone(&next));
        drop(rolling);
        Some(next)
    }

    /// Makes a chunk the newest, after a sealed one. Under `roll`.
    fn show(&self, sealed: &Chunk<T>, next: Arc<Chunk<T>>) {
        sealed.link.set(&next);
        // Ordering: the link, then the flags of those who wait, whoever reads them after an append to this chunk.
        fence(Ordering::SeqCst);
        self.tail.store(next);
    }

    /// Takes the chunks below a position off the directory.
    fn let_go(&self, position: u64) {
        loop {
            let mut directory = self.directory.lock();
            if !directory
                .front()
                .is_some_and(|chunk| chunk.ends_by(position))
            {
                return;
            }
            let chunk = directory.pop_front();
            let bytes = chunk.as_ref().map_or(0, |chunk| chunk.bytes());
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            drop(directory);
            if let Some(chunk) = chunk {
                chunk.link.expire();
            }
        }
    }
}

/// The length of a tail; `None` above the limit.
#[inline]
fn length(tail: &[&[u8]]) -> Option<usize> {
    let mut length = 0usize;
    for part in tail {
        length = length.checked_add(part.len())?;
    }
    (length <= MOST_TAIL).then_some(length)
}

#[cfg(loom)]
impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        self.tail.load().link.expire();
        for chunk in self.directory.lock().iter() {
            chunk.link.expire();
        }
    }
}

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> fmt::Debug for Log<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("start", &self.start())
            .field("end", &self.end())
            .field("closed", &self.is_closed())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

/// Why a record or a batch was not appended. What was to be appended comes back.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError<V> {
    /// The log is closed.
    #[error("the log is closed")]
    Closed(V),
    /// A record's tail, or a batch, is too large.
    #[error("{bytes} bytes are more than {limit}")]
    TooLarge {
        /// What was to be appended.
        value: V,
        /// Its bytes.
        bytes: usize,
        /// The most bytes.
        limit: usize,
    },
    /// A batch has too many records.
    #[error("{count} records are more than {limit}")]
    TooMany {
        /// What was to be appended.
        value: V,
        /// Its records.
        count: usize,
        /// The most records.
        limit: usize,
    },
}

impl<V> AppendError<V> {
    /// What was to be appended.
    #[must_use]
    pub fn into_value(self) -> V {
        match self {
            Self::Closed(value) | Self::TooLarge { value, .. } | Self::TooMany { value, .. } => {
                value
            }
        }
    }
}

impl<V> fmt::Debug for AppendError<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppendError({self})")
    }
}
