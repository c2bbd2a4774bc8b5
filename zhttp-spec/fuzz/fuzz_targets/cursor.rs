//! See `zhttp::fuzzing::cursor`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zhttp::fuzzing::cursor(bytes));
