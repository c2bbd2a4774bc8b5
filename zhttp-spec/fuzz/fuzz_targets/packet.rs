//! Any bytes into `zhttp::fuzzing::packet`, which says what must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zhttp::fuzzing::packet(bytes));
