//! See `forebay_core::fuzzing::request_head`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay_core::fuzzing::request_head::fuzz(bytes));
