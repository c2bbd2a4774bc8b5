//! Any bytes into `zhttp::fuzzing::composite`, which says what must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zhttp::fuzzing::composite(bytes));
