//! The keyring of the user's session: freedesktop's Secret Service, which GNOME, KDE and KeePassXC provide.
//!
//! An item is found by two attributes, `service` = `farrier` and `account`, as `secret-tool` writes them:
//!
//! ```text
//! secret-tool store --label "Farrier: openai" service farrier account openai.OPENAI_API_KEY
//! ```
//!
//! What the bus carries is encrypted for the session. A keyring that is locked is said to be so and never asked to open
//! itself: a prompt would wait for somebody who may not be there. Each call has a deadline, after which its thread is left
//! behind, at most one for each key.
//!
//! Specification: <https://specifications.freedesktop.org/secret-service-spec/latest/>.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use secret_service::blocking::SecretService;
use secret_service::{EncryptionType, Error};
use zeroize::Zeroizing;

use crate::name::NameError;
use crate::secret::{Secret, TextError};

/// The name of an item: letters, digits, `.`, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account(String);

/// Why the keyring gave nothing, or kept nothing.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// It has no such item.
    #[error(
        "expected an item with service farrier and this account in the keyring, got none; \
         add it with: secret-tool store --label Farrier service farrier account {account}"
    )]
    Absent {
        /// The account.
        account: Account,
    },
    /// Its owner has to open it.
    #[error("expected an open keyring, got a locked one; unlock it and try again")]
    Locked,
    /// What it holds cannot be a secret.
    #[error("expected one line of UTF-8 text in the keyring's item, got other bytes")]
    NotText,
    /// What it holds cannot be a secret.
    #[error("the keyring's item cannot be used as a secret")]
    Text(#[source] TextError),
    /// No bus, or nobody on it who keeps secrets.
    #[error(
        "expected a keyring in this session (the Secret Service on D-Bus), got none: {reason}; use file: or env: where there is no desktop"
    )]
    Unavailable {
        /// What the bus said.
        reason: String,
    },
    /// The bus did not answer.
    #[error("expected an answer of the keyring within {PATIENCE:?}, got none")]
    TimedOut,
}

const PATIENCE: Duration = Duration::from_secs(10);
const SERVICE: &str = "farrier";

// === impl Account ===

impl Account {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Account {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if text.is_empty() || text.len() > 255 || !text.bytes().all(known) {
            return Err(NameError::Account);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === what is asked of it ===

/// Fetches an item.
pub(crate) fn take(account: &Account) -> Result<Secret, KeyringError> {
    let wanted = account.clone();
    in_time(move || {
        let keyring = SecretService::connect(EncryptionType::Dh).map_err(unavailable)?;
        let found = keyring
            .search_items(attributes(&wanted))
            .map_err(unavailable)?;
        let Some(item) = found.unlocked.first() else {
            return Err(if found.locked.is_empty() {
                KeyringError::Absent { account: wanted }
            } else {
                KeyringError::Locked
            });
        };
        let bytes = Zeroizing::new(item.get_secret().map_err(unavailable)?);
        let text = std::str::from_utf8(&bytes).map_err(|_invalid| KeyringError::NotText)?;
        Secret::new(text.to_owned()).map_err(KeyringError::Text)
    })
}

impl Secret {
    /// Puts it into the keyring, in place of what is there under this account.
    ///
    /// # Errors
    ///
    /// [`KeyringError`]; what was there before is there still.
    pub fn keep_in_keyring(&self, account: &Account) -> Result<(), KeyringError> {
        let (account, text) = (account.clone(), Zeroizing::new(self.expose().to_owned()));
        in_time(move || {
            let keyring = SecretService::connect(EncryptionType::Dh).map_err(unavailable)?;
            let collection = keyring.get_default_collection().map_err(unavailable)?;
            if collection.is_locked().map_err(unavailable)? {
                return Err(KeyringError::Locked);
            }
            let label = format!("Farrier: {account}");
            let replace = true;
            collection
                .create_item(
                    &label,
                    attributes(&account),
                    text.as_bytes(),
                    replace,
                    "text/plain",
                )
                .map_err(unavailable)?;
            Ok(())
        })
    }
}

fn attributes(account: &Account) -> HashMap<&str, &str> {
    HashMap::from([("service", SERVICE), ("account", account.as_str())])
}

/// On a thread of its own: the bus has a runtime, which may not run within another, and no deadlines.
fn in_time<T: Send + 'static>(
    ask: impl FnOnce() -> Result<T, KeyringError> + Send + 'static,
) -> Result<T, KeyringError> {
    let (answer, answered) = sync_channel(1);
    let asked = thread::Builder::new()
        .name("keyring".to_owned())
        .spawn(move || {
            // Whoever no longer waits has no use for it.
            let _taken_or_not = answer.send(ask());
        });
    asked.map_err(|error| KeyringError::Unavailable {
        reason: error.to_string(),
    })?;
    answered
        .recv_timeout(PATIENCE)
        .map_err(|error| match error {
            RecvTimeoutError::Timeout => KeyringError::TimedOut,
            RecvTimeoutError::Disconnected => KeyringError::Unavailable {
                reason: "its client ended without an answer".to_owned(),
            },
        })?
}

fn unavailable(error: Error) -> KeyringError {
    match error {
        Error::Locked => KeyringError::Locked,
        // The others speak of the bus and of objects on it, never of what an item holds.
        other => KeyringError::Unavailable {
            reason: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_made_of_what_a_shell_takes_as_it_is() {
        for good in ["openai.OPENAI_API_KEY", "a-b_c", "1"] {
            assert_eq!(good.parse::<Account>().unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a/b", "a;b", "é", &"a".repeat(256)] {
            assert!(bad.parse::<Account>().is_err(), "{bad:?}");
        }
    }
}
