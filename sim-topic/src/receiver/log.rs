//! The log that unfiltered receivers read: one append for all of them, and nothing touched for each.
//!
//! # Ordering
//! A receiver's `position` only says how far the log may be trimmed, and where a publisher that refuses may go to.
//! Receivers swap it `SeqCst` and then ask `space` whether a publisher waits; a publisher that waits raises that
//! flag and then loads the positions `SeqCst`: one sees the other. Everywhere else a stale position is a lower
//! one, which trims less and refuses sooner, and the next look sets that right; so `limit` and `next` are `Relaxed`.
//! `listeners` is changed under the lock and read `Acquire` by publishers: who publishes after a receiver was made, in
//! the happens-before of the program, sees it.

use sim_core::event::Event;
use sim_core::log::{AppendError, Log, LogConfig as ChunkConfig, Pool};
use sim_core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use sim_core::sync::{Arc, CachePadded, Mutex};

use crate::config::{LogConfig, WhenBehind};
use crate::message::Logged;

/// Bytes of a full chunk. Small enough to stay in the processor's cache between the writing and the last reading, and
/// large enough that taking the next one is rare.
const CHUNK_BYTES: usize = 256 << 10;
/// Bytes of the first chunk.
const FIRST_CHUNK_BYTES: usize = 16 << 10;
/// Bytes of chunks kept for reuse.
const KEPT_BYTES: usize = 1 << 20;
/// After how many messages, at most, the log is trimmed and the bounds are looked at.
const LOOK_EVERY: u64 = 1024;

/// The log and all that belongs to it.
pub(crate) struct LogSide<T> {
    pub(crate) log: Log<Logged<T>>,
    /// Receivers that wait.
    pub(crate) arrivals: Event,
    /// Publishers that wait.
    pub(crate) space: Event,
    config: LogConfig,
    /// The bounds are looked at when a position is a multiple of this power of two.
    every: u32,
    listeners: AtomicUsize,
    readers: Mutex<Readers>,
    /// Up to which position publishers may append without a look, where they are refused at all.
    limit: CachePadded<AtomicU64>,
    /// About the next position, where publishers are refused at all.
    next: CachePadded<AtomicU64>,
}

struct Readers {
    /// Bound: `limits.subscriptions`.
    places: Vec<Arc<Place>>,
    /// The counts of those that left.
    received: u64,
    lagged: u64,
}

/// How far one receiver is.
pub(crate) struct Place {
    position: CachePadded<AtomicU64>,
    start: u64,
    lagged: AtomicU64,
}

impl Place {
    pub(crate) const fn start(&self) -> u64 {
        self.start
    }

    pub(crate) fn lagged(&self) -> u64 {
        self.lagged.load(Ordering::Relaxed)
    }

    pub(crate) fn received(&self) -> u64 {
        (self.position.load(Ordering::Relaxed) - self.start).saturating_sub(self.lagged())
    }
}

impl<T: Send + Sync + 'static> LogSide<T> {
    pub(crate) fn new(config: LogConfig) -> Self {
        let mut chunks = ChunkConfig::default();
        chunks.chunk_bytes = CHUNK_BYTES;
        chunks.first_chunk_bytes = FIRST_CHUNK_BYTES;
        let most = (config.capacity as u64 / 8).clamp(1, LOOK_EVERY);
        Self {
            log: Log::new(Pool::new(chunks, KEPT_BYTES.min(config.max_bytes))),
            arrivals: Event::new(),
            space: Event::new(),
            every: most.ilog2(),
            config,
            listeners: AtomicUsize::new(0),
            readers: Mutex::new(Readers {
                places: Vec::new(),
                received: 0,
                lagged: 0,
            }),
            limit: CachePadded::new(AtomicU64::new(0)),
            next: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// Whether anybody reads it.
    #[inline]
    pub(crate) fn is_read(&self) -> bool {
        self.listeners.load(Ordering::Acquire) > 0
    }

    const fn refuses(&self) -> bool {
        matches!(self.config.when_behind, WhenBehind::Refuse)
    }

    /// Whether `count` more messages may be appended.
    #[inline]
    pub(crate) fn has_room(&self, count: u64) -> bool {
        if !self.refuses() {
            return true;
        }
        let wanted = self.next.load(Ordering::Relaxed) + count;
        wanted <= self.limit.load(Ordering::Relaxed) || self.make_room(count)
    }

    #[cold]
    fn make_room(&self, count: u64) -> bool {
        let next = self.log.end();
        self.next.fetch_max(next, Ordering::Relaxed);
        let first = self.readers.lock().first(next);
        // Without the lock, as values are dropped. A look that comes late trims less, and sets a lower limit.
        self.log.trim_to(first);
        if self.log.bytes() >= self.config.max_bytes && first < next {
            self.limit.store(next, Ordering::Relaxed);
            return false;
        }
        let limit = first.saturating_add(self.config.capacity as u64);
        // Bytes are looked at again soon, whatever the count.
        let limit = limit.min(next + count.max(1 << self.every));
        self.limit.store(limit, Ordering::Relaxed);
        next + count <= limit
    }

    /// How many of `count` messages may be appended.
    pub(crate) fn room(&self, count: usize) -> usize {
        if self.has_room(count as u64) {
            return count;
        }
        let next = self.log.end();
        if self.log.bytes() >= self.config.max_bytes {
            return 0;
        }
        let behind = next - self.readers.lock().first(next);
        let room = (self.config.capacity as u64).saturating_sub(behind);
        usize::try_from(room).map_or(count, |room| room.min(count))
    }

    /// Appends one message and wakes the receivers.
    #[inline]
    pub(crate) fn append(&self, value: Logged<T>) -> Result<(), AppendError<Logged<T>>> {
        let position = self.log.append(value, &[])?;
        self.appended(position, position + 1);
        Ok(())
    }

    /// To be called after records were appended.
    #[inline]
    pub(crate) fn appended(&self, first: u64, end: u64) {
        if self.refuses() {
            self.next.fetch_max(end, Ordering::Relaxed);
        } else if first.wrapping_sub(1) >> self.every != (end - 1) >> self.every {
            self.look(end);
        }
        self.arrivals.notify_all();
    }

    /// Trims what all have read, and what nobody is to wait for.
    #[cold]
    fn look(&self, end: u64) {
        let first = match self.readers.try_lock() {
            Some(readers) => readers.first(end),
            None => return,
        };
        let oldest = end.saturating_sub(self.config.capacity as u64);
        self.log.trim_to(first.max(oldest));
        while self.log.bytes() > self.config.max_bytes
            && let Some(next) = self.log.oldest_chunk_end()
            && next < end
        {
            self.log.trim_to(next);
        }
    }

    /// Lets a receiver in, at the end of the log.
    pub(crate) fn enter(&self) -> Arc<Place> {
        let mut readers = self.readers.lock();
        self.listeners.fetch_add(1, Ordering::AcqRel);
        let start = self.log.end();
        let place = Arc::new(Place {
            position: CachePadded::new(AtomicU64::new(start)),
            start,
            lagged: AtomicU64::new(0),
        });
        readers.places.push(Arc::clone(&place));
        place
    }

    /// Lets a receiver go.
    pub(crate) fn leave(&self, place: &Arc<Place>) {
        let mut readers = self.readers.lock();
        readers.places.retain(|other| !Arc::ptr_eq(other, place));
        readers.received += place.received();
        readers.lagged += place.lagged();
        self.listeners.fetch_sub(1, Ordering::AcqRel);
        let end = self.log.end();
        let first = readers.first(end);
        drop(readers);
        self.log.trim_to(first);
        if first == end {
            self.log.shrink();
        }
        self.space.notify_all();
    }

    /// A receiver came to a position; `lost` of what it passed is gone.
    #[inline]
    pub(crate) fn move_to(&self, place: &Place, position: u64, lost: u64) {
        if lost > 0 {
            place.lagged.fetch_add(lost, Ordering::Relaxed);
        }
        if self.refuses() {
            place.position.swap(position, Ordering::SeqCst);
            self.space.notify_one();
        } else {
            place.position.store(position, Ordering::Relaxed);
        }
    }

    /// Messages that receivers got and lost.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let readers = self.readers.lock();
        readers.places.iter().fold(
            (readers.received, readers.lagged),
            |(received, lagged), place| (received + place.received(), lagged + place.lagged()),
        )
    }
}

impl Readers {
    /// The position of the one who is furthest behind.
    fn first(&self, end: u64) -> u64 {
        self.places
            .iter()
            .map(|place| place.position.load(Ordering::SeqCst))
            .min()
            .unwrap_or(end)
            .min(end)
    }
}
