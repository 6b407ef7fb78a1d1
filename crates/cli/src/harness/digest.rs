//! What a lock file says of a package's archive, and whether an archive is that.
//!
//! npm writes `sha512-<base64>` (the W3C's integrity metadata: several, by blanks), pip `sha256:<hex>`. SHA-1, which old
//! npm lock files have, is no proof and is not taken.

use std::fmt;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// What an archive's bytes come to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Digest {
    algorithm: Algorithm,
    bytes: Vec<u8>,
}

/// From the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Algorithm {
    Sha256,
    Sha384,
    Sha512,
}

/// Takes an archive's bytes as they come.
#[derive(Debug)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Digest {
    /// The strongest of npm's `integrity`; `None` where it has none that proves anything.
    pub(crate) fn of_integrity(text: &str) -> Option<Self> {
        text.split_whitespace()
            .filter_map(|one| {
                let (name, rest) = one.split_once('-')?;
                let algorithm = Algorithm::named(name)?;
                let base64 = rest.split('?').next()?; // options follow, none of which has a meaning yet
                Self::sized(algorithm, STANDARD.decode(base64).ok()?)
            })
            .max()
    }

    /// pip's `sha256:<hex>`.
    pub(crate) fn of_hash(text: &str) -> Option<Self> {
        let (name, hex) = text.split_once(':')?;
        let digits = hex.as_bytes().chunks(2);
        let bytes = digits.map(|pair| {
            let pair = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(pair, 16).ok()
        });
        Self::sized(Algorithm::named(name)?, bytes.collect::<Option<_>>()?)
    }

    fn sized(algorithm: Algorithm, bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() == algorithm.len()).then_some(Self { algorithm, bytes })
    }

    /// To see whether an archive is this one.
    pub(crate) fn hasher(&self) -> Hasher {
        match self.algorithm {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha384 => Hasher::Sha384(Sha384::new()),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }

    /// A name for a file.
    pub(crate) fn file_name(&self) -> String {
        self.to_string().replace(':', "-")
    }
}

/// `sha512:<hex>`.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm.name())?;
        f.write_char(':')?;
        self.bytes
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Algorithm {
    const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    fn len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha384(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Digest {
        let (algorithm, bytes) = match self {
            Self::Sha256(hasher) => (Algorithm::Sha256, hasher.finalize().to_vec()),
            Self::Sha384(hasher) => (Algorithm::Sha384, hasher.finalize().to_vec()),
            Self::Sha512(hasher) => (Algorithm::Sha512, hasher.finalize().to_vec()),
        };
        Digest { algorithm, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn bytes_come_to_the_digest_that_the_standard_gives() {
        let digest = Digest::of_hash(OF_ABC).expect("a digest");
        let mut hasher = digest.hasher();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.finish(), digest);
        assert_eq!(digest.to_string(), OF_ABC);
    }

    #[test]
    fn of_several_the_strongest_is_taken_and_what_proves_nothing_is_not() {
        let weak = "sha1-qZk+NkcGgWq6PiVxeFDCbJzQ2J0=";
        let medium = "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
        let strong = "sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==";
        let of = Digest::of_integrity;
        assert_eq!(of(weak), None);
        assert_eq!(of(medium), Digest::of_hash(OF_ABC));
        assert_eq!(of(&format!("{medium} {strong} {weak}")), of(strong));
        assert_eq!(of("sha512-AAAA"), None);
        assert_eq!(Digest::of_hash("sha256:zz"), None);
    }
}
