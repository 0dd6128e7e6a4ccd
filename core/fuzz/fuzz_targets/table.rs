#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| targets::parsers::table(octets));
