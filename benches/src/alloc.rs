//! The counting allocator of the runner: the system's, and a sum while somebody wants one.

#![expect(
    unsafe_code,
    reason = "an allocator is an unsafe trait, and only the runner has this one"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// Whether the sum is kept: off while speed is measured, when it costs one load of a line that nobody writes.
static COUNTING: AtomicBool = AtomicBool::new(false);
/// Bytes asked for and not given back since counting started; below zero when older ones were given back.
static HELD: AtomicI64 = AtomicI64::new(0);

std::thread_local! {
    /// How often the thread asked for memory; counted always, since the thread's own cell costs next to nothing.
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

/// How often the calling thread has asked for memory.
#[cfg(test)]
pub(crate) fn asked() -> u64 {
    ASKED.with(Cell::get)
}

/// Starts to count, from zero.
pub(crate) fn start() {
    HELD.store(0, Ordering::Relaxed);
    COUNTING.store(true, Ordering::Relaxed);
}

/// The bytes held since the start.
pub(crate) fn held() -> i64 {
    HELD.load(Ordering::Relaxed)
}

/// Ends counting.
pub(crate) fn stop() {
    COUNTING.store(false, Ordering::Relaxed);
}

/// The system's allocator, with a sum.
#[derive(Debug)]
pub(crate) struct Counting;

#[inline]
fn count(bytes: i64) {
    if bytes > 0 {
        // While the thread is torn down nobody asks any more.
        let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
    }
    if COUNTING.load(Ordering::Relaxed) {
        HELD.fetch_add(bytes, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator unchanged; the sum touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller keeps `alloc`'s contract, which is the same here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller keeps `alloc_zeroed`'s contract, which is the same here.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the pointer came from the system's allocator with this layout, since all of them do.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        // SAFETY: as for `dealloc`, and the caller keeps `realloc`'s contract for the size.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
