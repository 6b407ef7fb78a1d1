//! Names that people give: of providers, and of the keys a provider has.
//!
//! Neither is secret. A key's name is what stands in a placeholder, so it is held to what every grammar of
//! placeholders can carry.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a provider: lower-case letters, digits, `.`, `_` and `-`, at most 63 of them, the first a letter or
/// digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProviderName(String);

/// The name of a key, such as `OPENAI_API_KEY`: letters, digits and `_`, at most 128 of them, not beginning with a
/// digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyName(String);

/// Why a text is not a name. It is not repeated: people paste keys where names are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not the name of an item in the keyring.
    #[error("expected an account: up to 255 letters, digits, dots, underscores and hyphens")]
    Account,
    /// Not the name of a key.
    #[error(
        "expected the name of a key, such as OPENAI_API_KEY: up to {MAX_KEY_BYTES} letters, digits and underscores, \
         not beginning with a digit"
    )]
    Key,
    /// Not the name of a provider.
    #[error(
        "expected a provider's name, such as openai: up to {MAX_PROVIDER_BYTES} lower-case letters, digits, dots, \
         underscores and hyphens, beginning with a letter or a digit"
    )]
    Provider,
    /// The name means something else within a placeholder.
    #[error(
        "expected the name of a key that does not begin like a revision, v<digits>_ or s<64 hex digits>_"
    )]
    Reserved,
}

const MAX_PROVIDER_BYTES: usize = 63;
const MAX_KEY_BYTES: usize = 128;
/// Of the handle that stays the same while its secret is refreshed.
const HANDLE_DIGITS: usize = 64;

// === impl ProviderName ===

impl ProviderName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProviderName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let first = text
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit());
        let known =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        if !first || text.len() > MAX_PROVIDER_BYTES || !text.bytes().all(known) {
            return Err(NameError::Provider);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for ProviderName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ProviderName> for String {
    fn from(name: ProviderName) -> Self {
        name.0
    }
}

impl fmt::Display for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl KeyName ===

impl KeyName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let first = text
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_');
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !first || text.len() > MAX_KEY_BYTES || !text.bytes().all(known) {
            return Err(NameError::Key);
        }
        if without_revision(text) != text {
            return Err(NameError::Reserved);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for KeyName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The key that `v<revision>_NAME` or `s<64 hex digits>_NAME` speaks of; any other text is a name itself.
///
/// Both forms are what harnesses of the field were given by another supervisor, which numbers its secrets. What is
/// looked up is always the secret of now, whatever the number: a placeholder that outlives a rotation goes on working,
/// and no number brings an old secret back. Where the secret may go is judged for each request, so a stale number grants
/// nothing.
#[must_use]
pub fn without_revision(key: &str) -> &str {
    let Some((head, name)) = key.split_once('_') else {
        return key;
    };
    let revision = head.strip_prefix('v').is_some_and(|digits| {
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    });
    let handle = head.strip_prefix('s').is_some_and(|digits| {
        digits.len() == HANDLE_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    if (revision || handle) && !name.is_empty() {
        name
    } else {
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_or_a_handle_before_the_name_is_not_part_of_it() {
        let handle = format!("s{}_KEY", "0f".repeat(32));
        let cases = [
            ("OPENAI_API_KEY", "OPENAI_API_KEY"),
            ("v7_OPENAI_API_KEY", "OPENAI_API_KEY"),
            ("v18446744073709551615_KEY", "KEY"),
            (handle.as_str(), "KEY"),
            ("s0f_KEY", "s0f_KEY"),
            ("v_KEY", "v_KEY"),
            ("v7x_KEY", "v7x_KEY"),
            ("v7_", "v7_"),
            ("v7", "v7"),
            ("", ""),
        ];
        for (text, name) in cases {
            assert_eq!(without_revision(text), name, "{text:?}");
        }
    }

    #[test]
    fn names_of_keys_are_what_every_placeholder_can_carry() {
        for good in ["OPENAI_API_KEY", "_k", "SlackToken2"] {
            assert_eq!(good.parse::<KeyName>().unwrap().as_str(), good);
        }
        for bad in ["", "2KEY", "KEY-1", "KEY.A", "KÉY", "A:B", &"K".repeat(129)] {
            assert_eq!(bad.parse::<KeyName>(), Err(NameError::Key), "{bad:?}");
        }
        assert_eq!("v1_KEY".parse::<KeyName>(), Err(NameError::Reserved));
    }

    #[test]
    fn a_key_pasted_for_a_name_is_not_repeated() {
        let error = "sk-canary-7F3A".parse::<ProviderName>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"));
        let error = "sk-canary-7F3A".parse::<KeyName>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"));
    }

    #[test]
    fn names_of_providers_are_lower_case_and_short() {
        for good in ["openai", "team-a.kagent_1", "4o"] {
            assert_eq!(good.parse::<ProviderName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-a",
            ".a",
            "Openai",
            "a b",
            "a/b",
            "../a",
            &"a".repeat(64),
        ] {
            assert_eq!(
                bad.parse::<ProviderName>(),
                Err(NameError::Provider),
                "{bad:?}"
            );
        }
    }
}
