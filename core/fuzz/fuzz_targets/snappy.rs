#![no_main]

use libfuzzer_sys::fuzz_target;

#[global_allocator]
static HEAP: targets::heap::Noting = targets::heap::Noting;

fuzz_target!(|octets: &[u8]| {
    targets::snappy::snappy(octets);
});
