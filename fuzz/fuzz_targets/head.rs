//! See `farrier_egress::fuzzing::head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| farrier_egress::fuzzing::head(bytes));
