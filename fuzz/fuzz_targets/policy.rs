//! Any text is a policy or is refused, and any path is judged by it.

#![no_main]

use farrier_egress::policy::{Asked, Policy};
use farrier_egress::target::{Authority, Path};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, &str)| {
    let (text, authority, path) = input;
    let Ok(policy) = Policy::load(text) else { return };
    let (Ok(to), Ok(path)) = (Authority::parse(authority, Some(443)), Path::parse(path)) else { return };
    let asked = Asked { method: "GET", path: &path, query: None };
    if policy.request(&to, asked).is_ok() {
        assert!(policy.connect(&to).is_ok());
    }
});
