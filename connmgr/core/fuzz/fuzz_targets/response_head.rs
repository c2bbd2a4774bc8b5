//! See `forebay_core::fuzzing::response_head`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay_core::fuzzing::response_head::fuzz(bytes));
