//! The memory of the log's chunks: buffers that are made, kept for reuse, and given back.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;

use super::chunk::{ENTRY_BYTES, MOST_ENTRIES};
#[cfg(loom)]
use crate::sync::Stamp;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex};

/// The size of a huge page. Chunks that are a multiple of it are aligned to it, so that they can be one.
const HUGE: usize = 2 << 20;

/// The alignment of other full chunks, and the most that a record's value may ask for.
pub(super) const MOST_ALIGN: usize = 4096;

/// The alignment of all other buffers: a cache line.
const LEAST_ALIGN: usize = 64;

/// The least and the most of [`LogConfig::chunk_bytes`].
const CHUNK_BYTES: (usize, usize) = (1 << 10, 64 << 20);

/// How a log's memory grows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogConfig {
    /// Bytes of a full chunk: records and their table together. Taken up to a power of two between 1 KiB and
    /// 64 MiB. Default 2 MiB, one huge page of x86-64 and of most ARM systems.
    pub chunk_bytes: usize,
    /// Bytes of a log's first chunk; each further one has twice the bytes of the one before, up to
    /// [`chunk_bytes`](Self::chunk_bytes). Taken up to a power of two, from 1 KiB. Default 64 KiB.
    pub first_chunk_bytes: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            chunk_bytes: HUGE,
            first_chunk_bytes: 64 << 10,
        }
    }
}

impl LogConfig {
    fn checked(self) -> Self {
        let (least, most) = CHUNK_BYTES;
        let chunk_bytes = self.chunk_bytes.clamp(least, most).next_power_of_two();
        let first = self.first_chunk_bytes.clamp(least, chunk_bytes);
        Self {
            chunk_bytes,
            first_chunk_bytes: first.next_power_of_two(),
        }
    }
}

/// Where logs get the memory of their chunks from, and give it back to.
///
/// One pool may serve any number of logs, of any types of record. It keeps full chunks for reuse, up to the bound given
/// to [`new`](Self::new): a chunk that is used again costs no page faults, which are most of the cost of a fresh
/// one.
pub struct Pool {
    config: LogConfig,
    kept: Mutex<Vec<Buffer>>,
    most_kept: usize,
    /// Bytes of all buffers there are.
    allocated: AtomicUsize,
}

impl Pool {
    /// Makes an empty pool that keeps at most `kept_bytes` of unused chunks.
    #[must_use]
    pub fn new(config: LogConfig, kept_bytes: usize) -> Arc<Self> {
        let config = config.checked();
        Arc::new(Self {
            kept: Mutex::new(Vec::new()),
            most_kept: kept_bytes / config.chunk_bytes,
            config,
            allocated: AtomicUsize::new(0),
        })
    }

    /// The configuration, with the values that are in force.
    #[must_use]
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Bytes of the chunks that are kept for reuse.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.kept.lock().len() * self.config.chunk_bytes
    }

    /// Bytes of all chunks that there are: kept ones, those of the logs, and those that only readers hold
    /// any more.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        // Ordering: a statistic.
        self.allocated.load(Ordering::Relaxed)
    }

    /// Makes chunks and touches their memory until `bytes` of them are kept, or as many as the pool may keep.
    ///
    /// For those who want the first records to be as fast as the later ones.
    pub fn reserve(&self, bytes: usize) {
        let wanted = (bytes / self.config.chunk_bytes).min(self.most_kept);
        while self.kept.lock().len() < wanted {
            let buffer = self.make(self.config.chunk_bytes, LEAST_ALIGN);
            buffer.touch();
            self.give(buffer);
        }
    }

    /// A buffer that is ready for a new life with a table of so many entries.
    pub(super) fn take(&self, shape: &Shape, align: usize) -> Buffer {
        let kept = if shape.bytes == self.config.chunk_bytes {
            self.kept.lock().pop()
        } else {
            None
        };
        let mut buffer = kept.unwrap_or_else(|| self.make(shape.bytes, align));
        buffer.renew(shape.entries);
        buffer
    }

    /// Takes a buffer back; nobody uses it any more.
    pub(super) fn give(&self, buffer: Buffer) {
        if buffer.layout.size() == self.config.chunk_bytes {
            let mut kept = self.kept.lock();
            if kept.len() < self.most_kept {
                kept.push(buffer);
                return;
            }
        }
        self.allocated
            .fetch_sub(buffer.layout.size(), Ordering::Relaxed);
        drop(buffer);
    }

    fn make(&self, bytes: usize, align: usize) -> Buffer {
        let align = match bytes {
            _ if bytes.is_multiple_of(HUGE) => HUGE,
            _ if bytes == self.config.chunk_bytes => MOST_ALIGN,
            _ => align.max(LEAST_ALIGN),
        };
        self.allocated.fetch_add(bytes, Ordering::Relaxed);
        Buffer::allocate(bytes, align)
    }

    /// The shape of the chunk after one of `previous` bytes, that has room for `count` records of `bytes` in all.
    ///
    /// `mean` is the size to expect of a record.
    pub(super) fn shape(&self, previous: usize, mean: usize, count: usize, bytes: usize) -> Shape {
        let full = self.config.chunk_bytes;
        let mut size = match previous {
            0 => self.config.first_chunk_bytes,
            previous => previous.saturating_mul(2).min(full),
        };
        loop {
            let entries = expected_entries(size, mean, count);
            if bytes + entries * ENTRY_BYTES <= size {
                return Shape {
                    bytes: size,
                    entries,
                };
            }
            if size == full {
                break;
            }
            size *= 2;
        }
        // A chunk of its own, no larger than needed.
        Shape {
            bytes: (bytes + count * ENTRY_BYTES).next_multiple_of(LEAST_ALIGN),
            entries: count,
        }
    }
}

/// How many records to make room for in the table: a few more than expected, so that it is the records
/// that fill the chunk; and some in any case, should they become smaller.
#[cfg(not(loom))]
fn expected_entries(size: usize, mean: usize, count: usize) -> usize {
    let expected = size / (mean + ENTRY_BYTES);
    let generous = expected + expected / 16 + 8;
    let most = MOST_ENTRIES.min(size / ENTRY_BYTES);
    generous.max(size / 2048).min(most).max(count)
}

/// One for 512 bytes, so that chunks are full soon.
#[cfg(loom)]
fn expected_entries(size: usize, _: usize, count: usize) -> usize {
    (size / 512).max(count).min(MOST_ENTRIES)
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("config", &self.config)
            .field("kept_bytes", &self.kept_bytes())
            .field("allocated_bytes", &self.allocated_bytes())
            .finish_non_exhaustive()
    }
}

/// The size of a chunk and of its table.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) bytes: usize,
    pub(super) entries: usize,
}

/// Memory for a chunk: records from the front, the table of their stamps at the back.
///
/// Invariant: from `clean` on, all memory is initialised, and whatever stands there are stamps of epochs before
/// `epoch`, or zeros.
pub(super) struct Buffer {
    place: NonNull<u8>,
    layout: Layout,
    epoch: u16,
    clean: usize,
    /// loom's atomics are no plain memory: there the table stands aside. It lives as long as the buffer.
    #[cfg(loom)]
    stamps: Vec<Stamp>,
}

// SAFETY: a buffer owns its memory, and shares it with nobody.
unsafe impl Send for Buffer {}

impl Buffer {
    fn allocate(bytes: usize, align: usize) -> Self {
        let layout =
            Layout::from_size_align(bytes, align).expect("sizes and alignments are bounded");
        // SAFETY: no chunk is empty.
        let place = unsafe { alloc(layout) };
        let Some(place) = NonNull::new(place) else {
            handle_alloc_error(layout)
        };
        advise(place, layout);
        Self {
            place,
            layout,
            epoch: 0,
            clean: bytes,
            #[cfg(loom)]
            stamps: Vec::new(),
        }
    }

    pub(super) fn place(&self) -> NonNull<u8> {
        self.place
    }

    pub(super) fn epoch(&self) -> u16 {
        self.epoch
    }

    /// Where the table of so many entries begins, which is where the records end.
    pub(super) fn table_offset(&self, entries: usize) -> usize {
        self.layout.size() - entries * ENTRY_BYTES
    }

    /// The table of so many entries.
    #[cfg(not(loom))]
    pub(super) fn table(&self, entries: usize) -> NonNull<u8> {
        // SAFETY: the table stands within the buffer.
        unsafe { self.place.add(self.table_offset(entries)) }
    }

    #[cfg(loom)]
    pub(super) fn table(&self, _: usize) -> NonNull<u8> {
        NonNull::from(self.stamps.as_slice()).cast()
    }

    /// Begins a new life, with a table of so many entries: none of them is committed.
    ///
    /// Nothing is zeroed where stamps of former lives stand, since they have other epochs; only what user bytes may have
    /// stood in, and everything when the epochs begin anew.
    fn renew(&mut self, entries: usize) {
        if self.epoch == u16::MAX {
            self.epoch = 0;
            self.zero(self.clean, self.layout.size());
            #[cfg(loom)]
            self.stamps.clear();
        }
        self.epoch += 1;
        let table = self.table_offset(entries);
        if table < self.clean {
            self.zero(table, self.clean);
        }
        // Below the table user bytes will stand.
        self.clean = table;
        #[cfg(loom)]
        while self.stamps.len() < entries {
            self.stamps.push(Stamp::new(0));
        }
    }

    fn zero(&mut self, from: usize, to: usize) {
        // SAFETY: `from` is an offset in the buffer.
        let place = unsafe { self.place.add(from) };
        // SAFETY: up to `to` it is the buffer's own memory, which nobody else uses now.
        unsafe { place.write_bytes(0, to - from) };
    }

    /// Writes once to each page, so that it is there.
    fn touch(&self) {
        for page in (0..self.clean).step_by(MOST_ALIGN) {
            // SAFETY: an offset in the buffer.
            let place = unsafe { self.place.add(page) };
            // SAFETY: the buffer's own memory, where nothing stands yet. Volatile, as nobody reads it.
            unsafe { place.write_volatile(0) };
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and nobody uses it any more.
        unsafe { dealloc(self.place.as_ptr(), self.layout) };
    }
}

/// Asks for a huge page: a chunk then costs one page fault and one entry of the processor's page tables' cache.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(loom)))]
fn advise(place: NonNull<u8>, layout: Layout) {
    use rustix::mm::{Advice, madvise};

    if layout.align() == HUGE {
        // SAFETY: the range was allocated just now, and the advice changes nothing that can be seen.
        let advised =
            unsafe { madvise(place.as_ptr().cast(), layout.size(), Advice::LinuxHugepage) };
        // A kernel without huge pages is slower, and that is all.
        let _ = advised;
    }
}

#[cfg(not(all(any(target_os = "linux", target_os = "android"), not(loom))))]
fn advise(_: NonNull<u8>, _: Layout) {}
