//! The allocator of this program: the system's, with counters.
//!
//! How often each thread asks is always counted, which is one increment of a variable of that thread: too little to be
//! seen in any other figure. What lies on the heap of the whole process is counted once somebody has asked for it,
//! because that takes counters which all threads share.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

/// The system's allocator, counting.
#[derive(Debug)]
pub struct CountingAllocator;

thread_local! {
    /// Neither made lazily nor dropped, so that touching it never allocates.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// How often this thread has asked for new, larger or smaller memory since it began.
pub fn allocations() -> u64 {
    ALLOCATIONS.get()
}

fn count_allocation() {
    ALLOCATIONS.set(ALLOCATIONS.get().wrapping_add(1));
}

/// Blocks up to this size are counted by size.
const LARGEST: usize = 4096;

static WATCHED: AtomicBool = AtomicBool::new(false);
/// Signed, because what was there before it was watched may be given back later.
static OCTETS: AtomicI64 = AtomicI64::new(0);
static BLOCKS: AtomicI64 = AtomicI64::new(0);
static SIZES: [AtomicI64; LARGEST + 1] = [const { AtomicI64::new(0) }; LARGEST + 1];

/// What lies on the heap, as it was asked for: without what the allocator adds to each block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heap {
    /// Of all blocks together.
    pub octets: i64,
    /// How many there are.
    pub blocks: i64,
    /// Blocks by their size, up to 4096 octets; of sizes that are there.
    pub sizes: Vec<(usize, i64)>,
}

/// From now on what this process has on its heap is counted.
pub fn watch() {
    WATCHED.store(true, Relaxed);
}

/// What has been put on the heap and is still there, since [`watch`]. Only differences of two of them say something.
pub fn heap() -> Heap {
    let (octets, blocks) = (OCTETS.load(Relaxed), BLOCKS.load(Relaxed));
    let counts = SIZES.iter().map(|count| count.load(Relaxed)).enumerate();
    Heap { octets, blocks, sizes: counts.filter(|(_, count)| *count != 0).collect() }
}

/// A block of this size came or went.
#[inline]
fn note(size: usize, change: i64) {
    if WATCHED.load(Relaxed) {
        // A block has at most `isize::MAX` octets.
        OCTETS.fetch_add(change * size.cast_signed() as i64, Relaxed);
        BLOCKS.fetch_add(change, Relaxed);
        if let Some(count) = SIZES.get(size) {
            count.fetch_add(change, Relaxed);
        }
    }
}

// SAFETY: every method hands its arguments to `System` unchanged and returns what that returns, so what `System`
// promises is kept if the caller keeps what `GlobalAlloc` asks of it. Counting neither allocates nor panics.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_allocation();
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is the same.
        let memory = unsafe { System.alloc(layout) };
        if !memory.is_null() {
            note(layout.size(), 1);
        }
        memory
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_allocation();
        // SAFETY: as above.
        let memory = unsafe { System.alloc_zeroed(layout) };
        if !memory.is_null() {
            note(layout.size(), 1);
        }
        memory
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_allocation();
        // SAFETY: as above; `memory` came from here, and so from `System`.
        let moved = unsafe { System.realloc(memory, layout, size) };
        if !moved.is_null() {
            note(layout.size(), -1);
            note(size, 1);
        }
        moved
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
        note(layout.size(), -1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    fn each_thread_counts_what_it_allocates() {
        let before = allocations();
        let mut memory = black_box(Vec::<u8>::with_capacity(1));
        memory.reserve_exact(100);
        let zeroes = black_box(vec![0_u8; 10]);
        let other = std::thread::spawn(|| black_box(vec![1; 5]));
        let spawned = allocations();
        assert!(other.join().is_ok());
        black_box(7 + memory.len() + zeroes.len());
        assert!(spawned >= before + 3);
        // What the other thread allocates is not counted here, nor is what is given back.
        drop((memory, zeroes));
        assert_eq!(allocations(), spawned);
    }

    /// Other tests allocate meanwhile, so the sizes are such as nobody else asks for.
    #[test]
    fn what_is_on_the_heap_is_counted_by_size() {
        let count =
            |size: usize| heap().sizes.iter().find(|(known, _)| *known == size).map_or(0, |(_, n)| *n);
        watch();
        let mut memory = black_box(Vec::<u8>::with_capacity(4093));
        let zeroes = black_box(vec![0_u8; 4091]);
        assert_eq!((count(4093), count(4091), count(4095)), (1, 1, 0));
        memory.reserve_exact(4095);
        assert_eq!((count(4093), count(4091), count(4095)), (0, 1, 1));
        drop(memory);
        drop(zeroes);
        assert_eq!((count(4093), count(4091), count(4095)), (0, 0, 0));
    }

    #[test]
    fn a_block_of_any_size_is_counted_in_octets() {
        watch();
        let large = 1 << 30;
        // Nothing of it is touched, so it takes no memory.
        let memory = black_box(Vec::<u8>::with_capacity(large));
        assert!(heap().octets > 1 << 29);
        drop(memory);
        assert!(heap().octets < 1 << 29);
    }
}
