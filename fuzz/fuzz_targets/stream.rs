//! See `farrier_compat::fuzzing::stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| farrier_compat::fuzzing::stream(bytes));
