//! What the operator of a persona may choose: the script's length, how strict, who may ask, how answers travel.

use std::fmt;
use std::time::Duration;

use crate::behaviour::Behaviour;

/// Choices for one server. The default plays the persona as its file says, for anyone.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tool rounds in a turn; the persona's own number when absent.
    pub rounds: Option<u32>,
    /// Calls side by side in each round; the persona's own number when absent. Zero counts as one.
    pub calls_per_round: Option<u32>,
    /// Whether reasoning that is present but not what the model said is refused. Providers only look whether it is there.
    pub exact_reasoning: bool,
    /// The key a client must bear; anyone may ask when absent.
    pub bearer: Option<Bearer>,
    /// How answers travel, unless a request says otherwise in `x-sim-behaviour`.
    pub behaviour: Behaviour,
    /// Part of every conversation's digest: two servers with different seeds think different thoughts.
    pub seed: u64,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds of one server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest request body, in bytes; longer ones get 413.
    pub max_body_bytes: usize,
    /// Entries the log keeps; older ones are dropped and counted.
    pub log_entries: usize,
    /// Connections served at once; more wait in the listener's backlog.
    pub max_connections: usize,
    /// Longest wait for a request body, and longest stall or silence before the server gives up by itself.
    pub max_wait: Duration,
    /// How long [`crate::Sim::stop`] lets answers finish before it cuts them.
    pub drain: Duration,
}

/// A key that clients must bear. Only its digest is kept, and nothing prints it.
#[derive(Clone)]
pub struct Bearer(blake3::Hash);

impl Bearer {
    /// Digests the key.
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self(blake3::hash(key.as_bytes()))
    }

    /// Whether an `authorization` header bears the key; compared in constant time.
    pub(crate) fn is_borne_by(&self, authorization: Option<&[u8]>) -> bool {
        authorization
            .and_then(|value| value.split_at_checked(7))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
            .is_some_and(|(_, key)| blake3::hash(key.trim_ascii()) == self.0)
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(..)")
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rounds: None,
            calls_per_round: None,
            exact_reasoning: true,
            bearer: None,
            behaviour: Behaviour::default(),
            seed: 0,
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 32 << 20,
            log_entries: 1_024,
            max_connections: 1_024,
            max_wait: Duration::from_secs(120),
            drain: Duration::from_secs(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_knows_its_key_and_never_shows_it() {
        let bearer = Bearer::new("sk-sesame");
        assert!(bearer.is_borne_by(Some(b"Bearer sk-sesame")));
        assert!(bearer.is_borne_by(Some(b"bearer  sk-sesame ")));
        for wrong in [
            None,
            Some(&b"Bearer sk-other"[..]),
            Some(b"sk-sesame"),
            Some(b""),
        ] {
            assert!(!bearer.is_borne_by(wrong));
        }
        assert_eq!(format!("{bearer:?}"), "Bearer(..)");
    }
}
