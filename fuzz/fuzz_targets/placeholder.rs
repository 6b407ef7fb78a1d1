//! See `farrier_egress::fuzzing::placeholder`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| farrier_egress::fuzzing::placeholder(text));
