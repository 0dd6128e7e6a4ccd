//! An allocator that counts, by thread. A test that counts makes it its `#[global_allocator]`.

#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

pub struct Counting;

thread_local! {
    /// How often something was allocated.
    pub static COUNT: Cell<u64> = const { Cell::new(0) };
    /// Octets that were allocated, without those that a reallocation kept.
    pub static TOTAL: Cell<usize> = const { Cell::new(0) };
    /// Octets that are allocated now; what another thread allocated and this one frees is below 0.
    pub static LIVE: Cell<isize> = const { Cell::new(0) };
    /// The most that `LIVE` was since [`peak`] last began.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn moved(by: isize) {
    // While a thread ends its cells may be gone.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + by);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
    if by > 0 {
        let _ = TOTAL.try_with(|total| total.set(total.get() + by.unsigned_abs()));
    }
}

fn counted() {
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every request is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        counted();
        moved(layout.size().cast_signed());
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        moved(-(layout.size().cast_signed()));
        // SAFETY: `at` came from `System` with this layout.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        counted();
        moved(size.cast_signed() - layout.size().cast_signed());
        // SAFETY: `at` came from `System` with this layout; the caller keeps to the rest.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Octets that are allocated at most while `run` runs, beyond what was before.
pub fn peak(run: impl FnOnce()) -> usize {
    let before = LIVE.get();
    PEAK.set(before);
    run();
    (PEAK.get() - before).unsigned_abs()
}
