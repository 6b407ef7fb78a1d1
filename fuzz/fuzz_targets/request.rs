//! See `farrier_compat::fuzzing::request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| farrier_compat::fuzzing::request(bytes));
