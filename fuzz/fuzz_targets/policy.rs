//! See `farrier_egress::fuzzing::policy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| farrier_egress::fuzzing::policy(text));
