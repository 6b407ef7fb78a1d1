//! The fuzz targets, over their seeds, the hostile cases, and mutations of both that are the same in each run.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "what does not hold fails its test")]

use std::fs;
use std::path::{Path, PathBuf};

use farrier_egress::fuzzing;

/// Bytes that decide something in a head, a placeholder or a policy.
const WORDS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    ":",
    "chunked",
    "content-length: 7\r\n",
    "transfer-encoding: chunked\r\n",
    "host: b\r\n",
    "HTTP/1.0",
    "CONNECT ",
    "farrier:resolve:env:",
    "openshell:resolve:env:",
    "-OPENSHELL-RESOLVE-ENV-",
    "K",
    "\u{e9}",
    "*",
    "**",
    "&a ",
    "*a",
    "[[[[",
    "- ",
    "endpoints:\n",
];

/// A source of numbers that are the same in each run (Marsaglia's xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let bound = u64::try_from(bound.max(1)).unwrap();
        usize::try_from(self.0 % bound).unwrap()
    }

    /// One to four changes: a byte changed, some taken out, a word put in, or another seed's rest.
    fn mutated(&mut self, seed: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(4) {
                0 if at < bytes.len() => bytes[at] = u8::try_from(self.below(256)).unwrap(),
                1 => {
                    let end = (at + self.below(16)).min(bytes.len());
                    bytes.drain(at..end);
                }
                2 => {
                    let word = WORDS[self.below(WORDS.len())];
                    bytes.splice(at..at, word.bytes());
                }
                _ => {
                    let other = &others[self.below(others.len())];
                    bytes.truncate(at);
                    bytes.extend(&other[self.below(other.len())..]);
                }
            }
        }
        bytes
    }
}

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(directory: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{}", directory.display());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    files(&here().join("../../fuzz/seeds").join(target))
}

/// What the clients of the hostile cases send, their escapes as they stand.
fn hostile() -> impl Iterator<Item = Vec<u8>> {
    let texts = files(&here().join("tests/hostile"));
    texts.into_iter().flat_map(|text| {
        let text = String::from_utf8(text).unwrap();
        let cases = text.split("=== ").filter_map(|case| {
            let (_, rest) = case.split_once('\n')?;
            let (sent, _) = rest.rsplit_once("\n--- ")?;
            Some(sent.replace('\n', "\r\n").into_bytes())
        });
        cases.collect::<Vec<_>>()
    })
}

/// Runs `target` over the seeds, and over so many mutations of each.
fn run(seeds: &[Vec<u8>], mutations: usize, target: impl Fn(&[u8])) {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for seed in seeds {
        target(seed);
        for _ in 0..mutations {
            target(&numbers.mutated(seed, seeds));
        }
    }
}

#[test]
fn a_head_that_passes_is_read_in_one_way() {
    let mut all = seeds("head");
    all.extend(hostile());
    assert!(all.len() > 100, "{}", all.len());
    run(&all, 500, fuzzing::head);
}

#[test]
fn placeholders_are_found_whole_and_apart() {
    let mut all = seeds("placeholder");
    all.extend(hostile());
    run(&all, 500, |bytes| {
        fuzzing::placeholder(&String::from_utf8_lossy(bytes));
    });
}

#[test]
fn any_text_is_a_policy_or_is_refused() {
    run(&seeds("policy"), 500, |bytes| {
        fuzzing::policy(&String::from_utf8_lossy(bytes));
    });
}
