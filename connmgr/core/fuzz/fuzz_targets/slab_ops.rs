//! See `forebay_core::fuzzing::slab_ops`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forebay_core::fuzzing::slab_ops::fuzz(bytes));
