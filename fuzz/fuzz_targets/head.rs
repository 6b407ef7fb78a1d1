//! A request head that passes is one that the HTTP library reads in the same way.

#![no_main]

use farrier_egress::head::{HeadLimits, MAX_FIELDS, check};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = HeadLimits {
        max_bytes: 64 * 1024,
        max_fields: MAX_FIELDS,
    };
    if check(bytes, limits).is_ok() {
        assert!(bytes.ends_with(b"\r\n\r\n"));
        let bare = bytes.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || bytes[at - 1] != b'\r'));
        assert!(!bare);
    }
});
