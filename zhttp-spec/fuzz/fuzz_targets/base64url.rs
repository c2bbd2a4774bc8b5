//! See `zhttp::fuzzing::base64url`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zhttp::fuzzing::base64url(bytes));
