//! Placeholders lie within the text, one after the other, and are placeholders as a whole.

#![no_main]

use farrier_egress::placeholder::{find, is_marked, whole};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut last = 0;
    for found in find(text) {
        assert!(found.at.start >= last && is_marked(text.as_bytes()));
        assert_eq!(whole(&text[found.at.clone()]), Some(found.key));
        last = found.at.end;
    }
});
