//! See `zhttp::fuzzing::fields`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zhttp::fuzzing::fields(bytes));
