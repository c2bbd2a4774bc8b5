//! See `forebay_core::fuzzing::session_ops`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay_core::fuzzing::session_ops::fuzz(bytes));
