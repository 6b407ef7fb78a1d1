//! What a store is given instead of scopes, keys and values: themselves, or what only the key's
//! holder can make sense of.
//!
//! With a key, values are XChaCha20-Poly1305 sealed under a random 24-byte nonce, with their scope
//! and keys as associated data, so that a sealed value moved to another scope or another key does
//! not open. Scopes and keys are replaced by keyed digests, so that a stolen store does not confirm
//! a guess. Sizes and times stay visible.

use std::fmt;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::{Key, Scope};

const NONCE_BYTES: usize = 24;

/// A 256-bit key that the ledger is encrypted with. Overwritten when dropped.
#[derive(Clone)]
pub struct EncryptionKey(Zeroizing<[u8; 32]>);

impl EncryptionKey {
    /// Takes over 32 bytes. They must be random: a passphrase is not a key.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads a key written as 64 hexadecimal digits, as `openssl rand -hex 32` prints it.
    ///
    /// # Errors
    ///
    /// [`KeyFormatError`], which does not show the text.
    pub fn from_hex(text: &str) -> Result<Self, KeyFormatError> {
        let mut bytes = Zeroizing::new([0; 32]);
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != bytes.len() || !rest.is_empty() {
            return Err(KeyFormatError);
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncryptionKey(***)")
    }
}

/// A text that is not an encryption key. Says nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hexadecimal digits for the ledger's encryption key, got something else")]
pub struct KeyFormatError;

fn hex_digit(byte: u8) -> Result<u8, KeyFormatError> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        b'A'..=b'F' => Ok(byte - b'A' + 10),
        _ => Err(KeyFormatError),
    }
}

/// Turns scopes, keys and values into what the store holds.
pub(crate) enum Seal {
    Plain,
    Keyed {
        cipher: Box<XChaCha20Poly1305>,
        index: Zeroizing<[u8; 32]>,
        fingerprint: [u8; 16],
    },
}

/// A scope as the store knows it.
pub(crate) type ScopeIndex = [u8; 32];

/// Why a value could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    #[error("no randomness from the operating system")]
    Entropy(#[from] getrandom::Error),
    #[error("the value does not match the key")]
    Mismatch,
}

impl Seal {
    /// One key for each use, so that no two uses meet.
    pub(crate) fn new(key: Option<&EncryptionKey>) -> Self {
        let Some(EncryptionKey(key)) = key else {
            return Self::Plain;
        };
        let values = Zeroizing::new(blake3::derive_key(
            "farrier ledger 2026-11 values",
            &key[..],
        ));
        let id = blake3::derive_key("farrier ledger 2026-11 key fingerprint", &key[..]);
        Self::Keyed {
            cipher: Box::new(XChaCha20Poly1305::new((&*values).into())),
            index: Zeroizing::new(blake3::derive_key("farrier ledger 2026-11 index", &key[..])),
            fingerprint: first_half(id),
        }
    }

    /// What tells a store which key it was written with; empty for none.
    pub(crate) fn fingerprint(&self) -> &[u8] {
        match self {
            Self::Plain => &[],
            Self::Keyed { fingerprint, .. } => fingerprint,
        }
    }

    pub(crate) fn scope(&self, scope: &Scope) -> ScopeIndex {
        match self {
            Self::Plain => *scope.digest(),
            Self::Keyed { index, .. } => *blake3::keyed_hash(index, scope.digest()).as_bytes(),
        }
    }

    pub(crate) fn key(&self, scope: &ScopeIndex, key: &Key) -> [u8; 16] {
        match self {
            Self::Plain => key.0,
            Self::Keyed { index, .. } => {
                let mut digest = blake3::Hasher::new_keyed(index);
                digest.update(scope).update(&key.0);
                first_half(digest.finalize().into())
            }
        }
    }

    /// Seals a value; `None` when it is stored as it is.
    pub(crate) fn seal(
        &self,
        scope: &ScopeIndex,
        keys: &[u8],
        value: &[u8],
    ) -> Result<Option<Vec<u8>>, SealError> {
        let Self::Keyed { cipher, .. } = self else {
            return Ok(None);
        };
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce)?;
        let aad = [&scope[..], keys].concat();
        let sealed = cipher.encrypt(
            &XNonce::from(nonce),
            Payload {
                msg: value,
                aad: &aad,
            },
        );
        let sealed = sealed.map_err(|_aead| SealError::Mismatch)?;
        Ok(Some([&nonce[..], &sealed].concat()))
    }

    /// Opens what [`seal`](Self::seal) made; `None` if the value was stored as it is.
    pub(crate) fn open(
        &self,
        scope: &ScopeIndex,
        keys: &[u8],
        stored: &[u8],
    ) -> Result<Option<Vec<u8>>, SealError> {
        let Self::Keyed { cipher, .. } = self else {
            return Ok(None);
        };
        let (nonce, sealed) = stored
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or(SealError::Mismatch)?;
        let aad = [&scope[..], keys].concat();
        let value = cipher.decrypt(
            &XNonce::from(*nonce),
            Payload {
                msg: sealed,
                aad: &aad,
            },
        );
        value.map(Some).map_err(|_aead| SealError::Mismatch)
    }

    /// What an entry is called: the same for the same entry, so that recording it twice is recording
    /// it once.
    pub(crate) fn entry_id(&self, scope: &ScopeIndex, keys: &[u8], value: &[u8]) -> [u8; 16] {
        let mut digest = match self {
            Self::Plain => blake3::Hasher::new(),
            Self::Keyed { index, .. } => blake3::Hasher::new_keyed(index),
        };
        // The keys are told from the value by their number.
        digest
            .update(scope)
            .update(&(keys.len() as u64).to_le_bytes())
            .update(keys)
            .update(value);
        first_half(digest.finalize().into())
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "Seal::Plain",
            Self::Keyed { .. } => "Seal::Keyed(***)",
        })
    }
}

fn first_half(digest: [u8; 32]) -> [u8; 16] {
    std::array::from_fn(|at| digest[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &[u8] = b"canary reasoning";

    fn keyed(byte: u8) -> Seal {
        Seal::new(Some(&EncryptionKey::new([byte; 32])))
    }

    #[test]
    fn a_sealed_value_opens_only_under_its_own_key_scope_and_keys() {
        let seal = keyed(1);
        let sealed = seal.seal(&[1; 32], b"keys", VALUE).unwrap().unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"canary"));
        assert_eq!(
            seal.open(&[1; 32], b"keys", &sealed).unwrap().as_deref(),
            Some(VALUE)
        );

        assert!(keyed(2).open(&[1; 32], b"keys", &sealed).is_err());
        assert!(seal.open(&[2; 32], b"keys", &sealed).is_err());
        assert!(seal.open(&[1; 32], b"other", &sealed).is_err());
    }

    #[test]
    fn every_damaged_byte_and_every_truncation_is_noticed() {
        let seal = keyed(1);
        let sealed = seal.seal(&[1; 32], b"keys", VALUE).unwrap().unwrap();
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(seal.open(&[1; 32], b"keys", &damaged).is_err(), "byte {at}");
            assert!(
                seal.open(&[1; 32], b"keys", &sealed[..at]).is_err(),
                "cut at {at}"
            );
        }
    }

    #[test]
    fn equal_values_and_equal_keys_of_two_scopes_look_different_on_disk() {
        let seal = keyed(1);
        assert_ne!(
            seal.seal(&[1; 32], b"", VALUE).unwrap(),
            seal.seal(&[1; 32], b"", VALUE).unwrap()
        );
        assert_ne!(
            seal.key(&[1; 32], &Key([9; 16])),
            seal.key(&[2; 32], &Key([9; 16]))
        );
        assert_ne!(&seal.scope(&Scope::new("a")), Scope::new("a").digest());
    }

    #[test]
    fn a_key_is_64_hexadecimal_digits_and_never_shown() {
        let key = EncryptionKey::from_hex(&"aB".repeat(32)).unwrap();
        assert_eq!(*key.0, [0xab; 32]);
        assert_eq!(
            format!("{key:?} {:?}", Seal::new(Some(&key))),
            "EncryptionKey(***) Seal::Keyed(***)"
        );
        for text in [
            "",
            "ab",
            &"ab".repeat(33),
            &"g0".repeat(32),
            &"é".repeat(32),
            &"ab".repeat(32)[1..],
        ] {
            assert_eq!(EncryptionKey::from_hex(text).unwrap_err(), KeyFormatError);
        }
    }
}
