//! What goes wrong between here and the store, in words that hold nothing of what was sent.
//!
//! A server repeats in some errors what it was given, between quotes: `unknown command 'HELLO', with
//! args beginning with: '3' 'AUTH' …`. So a text of others is kept up to its first quote.

use std::fmt;
use std::sync::Arc;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::{KeyKind, LedgerError, Operation};

/// Why the store cannot be used, or did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// The connection, or what is at its other end, is no good.
    #[error("{0}")]
    Connection(Told),
    /// The store was begun with something else.
    #[error("the store was begun {found}")]
    Encryption { expected: KeyKind, found: KeyKind },
    /// The connection is good, the answer is not.
    #[error("{0}")]
    Refusal(Told),
    /// Nobody answered a greeting in time.
    #[error("the store does not answer")]
    Silence,
}

/// What somebody said, as far as it may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told(String);

impl Fault {
    /// Whether another connection may do better.
    pub(super) fn is_of_the_connection(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::Silence)
    }

    /// What a caller is told whose operation met it before it began, or by it.
    pub(super) fn unavailable(self, operation: Operation) -> LedgerError {
        match self {
            Self::Encryption { expected, found } => LedgerError::Encryption { expected, found },
            fault => LedgerError::Unavailable {
                operation,
                source: Arc::new(fault),
            },
        }
    }
}

impl From<RedisError> for Fault {
    fn from(error: RedisError) -> Self {
        let told = Told::by(&error);
        match error.kind() {
            ErrorKind::AuthenticationFailed
            | ErrorKind::ClusterConnectionNotFound
            | ErrorKind::EmptySentinelList
            | ErrorKind::Io
            | ErrorKind::MasterNameNotFoundBySentinel
            | ErrorKind::Parse => Self::Connection(told),
            // Once the primary, now a replica: whoever is asked for the primary names another.
            ErrorKind::Server(ServerErrorKind::ReadOnly) => Self::Connection(told),
            _ => Self::Refusal(told),
        }
    }
}

impl Told {
    fn by(error: &RedisError) -> Self {
        let said = match error.kind() {
            // Such an error may show what it could not read.
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => {
                "expected an answer of Redis or Valkey, got something else".to_owned()
            }
            _ => match (error.code(), error.detail()) {
                (Some(code), Some(detail)) => format!("{code} {detail}"),
                (Some(code), None) => code.to_owned(),
                // The kind in it is the library's word for what the text says.
                (None, _) => error
                    .to_string()
                    .replacen(&format!(" - {:?}", error.kind()), "", 1),
            },
        };
        let repeatable = said.split(['\'', '"', '`']).next().unwrap_or_default();
        Self(repeatable.trim_end_matches([' ', ':']).to_owned())
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Fault {
        let line = format!("-{text}\r\n");
        let answer =
            redis::parse_redis_value(line.as_bytes()).and_then(redis::Value::extract_error);
        answer.unwrap_err().into()
    }

    #[test]
    fn what_a_server_repeats_of_what_it_was_given_is_not_kept() {
        let cases = [
            (
                "ERR unknown command 'HELLO', with args beginning with: '3' 'canary' ",
                "ERR unknown command",
            ),
            ("ERR unknown command `canary`", "ERR unknown command"),
            (
                "WRONGPASS invalid username-password pair or user is disabled.",
                "WRONGPASS invalid username-password pair or user is disabled.",
            ),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                "OOM command not allowed when used memory >",
            ),
        ];
        for (text, shown) in cases {
            let fault = said(text);
            assert_eq!(fault.to_string(), shown);
            assert!(!format!("{fault:?}").contains("canary"));
            assert!(!fault.is_of_the_connection(), "{shown}");
        }
    }

    #[test]
    fn a_primary_that_became_a_replica_is_left() {
        assert!(
            said("READONLY You can't write against a read only replica.").is_of_the_connection()
        );
    }
}
