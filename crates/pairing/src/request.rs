//! What the harness says of its devices, parsed.
//!
//! ```json
//! {"pending":[{"requestId":"…","deviceId":"…","clientId":"cli","clientMode":"cli","roles":["operator"],
//!              "scopes":["operator.read"],"silent":false,"isRepair":true,"ts":1795191339800}],"paired":[…]}
//! ```
//!
//! The same shape is printed by `openclaw devices list --json` and kept in its state, there as a map by request id.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use thiserror::Error;

/// The name of a request: safe as an argument, a log line and a key.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RequestId(String);

/// What a device asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// Under which the harness keeps it.
    pub id: RequestId,
    /// The digest of its key.
    pub device_id: Option<String>,
    /// Its key, base64url without padding.
    pub public_key: Option<String>,
    /// Self-declared: which program it is.
    pub client_id: Option<String>,
    /// Self-declared: how it is used.
    pub client_mode: Option<String>,
    /// As which it wants to connect; absent if that is no list of names.
    pub roles: Option<Vec<String>>,
    /// What it wants to do.
    pub scopes: Scopes,
    /// The gateway means to approve it by itself.
    pub silent: bool,
    /// When it was asked, in milliseconds since 1970.
    pub asked_at_ms: Option<u64>,
}

/// Scopes as they were asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Scopes {
    /// Trimmed, without blank ones.
    Listed(Vec<String>),
    /// Present, and no list.
    Malformed,
}

/// A device that has been approved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Paired {
    /// The digest of its key.
    pub device_id: Option<String>,
    /// Self-declared: which program it is.
    pub client_id: Option<String>,
    /// Self-declared: how it is used.
    pub client_mode: Option<String>,
}

/// What `devices list` answers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Listing {
    /// Requests that wait, at most [`Listing::MOST`], in the harness's order.
    pub pending: Vec<Request>,
    /// Devices that may connect, at most [`Listing::MOST`].
    pub paired: Vec<Paired>,
    /// Pending entries that are no requests, or beyond the bound.
    pub unusable: usize,
}

/// What was printed is no listing.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum BadListing {
    /// Nothing was printed.
    #[error("expected a list of devices as JSON, got nothing")]
    Empty,
    /// What was printed is something else.
    #[error("expected a list of devices as JSON, got something else: {0}")]
    NotJson(String),
}

/// Longest id the harness itself takes: `^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$`.
const MAX_ID_CHARS: usize = 128;
/// Of texts that a client says of itself, as many characters are kept.
const MAX_TEXT_CHARS: usize = 128;
/// Of the scopes or roles of one request, as many are looked at; more is no request of a client that we know.
const MAX_NAMES: usize = 64;

// === impl RequestId ===

impl RequestId {
    /// An id, if `text` is one: a letter or digit, then up to 127 of those and `._:-`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let first = text.chars().next()?;
        let fits = text.len() <= MAX_ID_CHARS
            && first.is_ascii_alphanumeric()
            && text.chars().all(Self::allows);
        fits.then(|| Self(text.to_owned()))
    }

    /// Whether an id may have this character after its first.
    pub(crate) fn allows(char: char) -> bool {
        char.is_ascii_alphanumeric() || "._:-".contains(char)
    }

    /// As the harness writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

// === impl Request ===

impl Request {
    /// Reads one entry; none if it has no usable id.
    pub(crate) fn of(entry: &Value) -> Option<Self> {
        let entry = entry.as_object()?;
        Some(Self {
            id: RequestId::parse(entry.get("requestId")?.as_str()?)?,
            device_id: text(entry, "deviceId"),
            public_key: text(entry, "publicKey"),
            client_id: text(entry, "clientId"),
            client_mode: text(entry, "clientMode"),
            roles: roles(entry),
            scopes: Scopes::of(entry),
            silent: entry.get("silent").and_then(Value::as_bool) == Some(true),
            asked_at_ms: entry.get("ts").and_then(Value::as_u64),
        })
    }
}

impl Scopes {
    fn of(entry: &Map<String, Value>) -> Self {
        let present = |key| entry.get(key).filter(|value: &&Value| !value.is_null());
        present("scopes")
            .or_else(|| present("requestedScopes"))
            .map_or_else(|| Self::Listed(Vec::new()), Self::of_value)
    }

    pub(crate) fn of_value(value: &Value) -> Self {
        match value {
            Value::Array(entries) if entries.len() <= MAX_NAMES => {
                let names = entries.iter().map(stringified);
                Self::Listed(names.filter(|name| !name.is_empty()).collect())
            }
            _ => Self::Malformed,
        }
    }
}

impl Listing {
    /// As many entries of either kind are looked at; nobody's harness has more devices of its own.
    pub const MOST: usize = 256;

    /// Reads what `devices list --json` printed.
    ///
    /// # Errors
    /// It is empty or no JSON object. The harness is at fault; asking again may help.
    pub fn parse(printed: &[u8]) -> Result<Self, BadListing> {
        if printed.trim_ascii().is_empty() {
            return Err(BadListing::Empty);
        }
        let value: Value = serde_json::from_slice(printed)
            .map_err(|error| BadListing::NotJson(error.to_string()))?;
        let Value::Object(object) = value else {
            return Err(BadListing::NotJson("no object".to_owned()));
        };
        let entries = |key: &str| {
            let list = object.get(key).and_then(Value::as_array);
            list.map_or(&[][..], Vec::as_slice)
        };
        Ok(Self::of(
            entries("pending").iter(),
            entries("paired").iter(),
        ))
    }

    pub(crate) fn of<'a>(
        pending: impl ExactSizeIterator<Item = &'a Value>,
        paired: impl Iterator<Item = &'a Value>,
    ) -> Self {
        let count = pending.len();
        let requests: Vec<_> = pending.take(Self::MOST).filter_map(Request::of).collect();
        Self {
            unusable: count - requests.len(),
            pending: requests,
            paired: paired.take(Self::MOST).filter_map(Paired::of).collect(),
        }
    }
}

impl Paired {
    fn of(entry: &Value) -> Option<Self> {
        let entry = entry.as_object()?;
        Some(Self {
            device_id: text(entry, "deviceId"),
            client_id: text(entry, "clientId"),
            client_mode: text(entry, "clientMode"),
        })
    }

    /// Whether it is the page that a person looks at.
    #[must_use]
    pub fn is_browser(&self) -> bool {
        self.client_id.as_deref() == Some("openclaw-control-ui")
            || self.client_mode.as_deref() == Some("webchat")
    }
}

/// A text that somebody else wrote: bounded, and harmless on a terminal.
fn text(entry: &Map<String, Value>, key: &str) -> Option<String> {
    let text = entry.get(key)?.as_str()?;
    Some(shown(text, MAX_TEXT_CHARS))
}

fn roles(entry: &Map<String, Value>) -> Option<Vec<String>> {
    let mut names = match entry.get("roles") {
        None | Some(Value::Null) => Vec::new(),
        Some(value) => match Scopes::of_value(value) {
            Scopes::Listed(names) => names,
            Scopes::Malformed => return None,
        },
    };
    match entry.get("role") {
        None | Some(Value::Null) => {}
        Some(Value::String(role)) => {
            let role = shown(role.trim(), MAX_TEXT_CHARS);
            if !role.is_empty() && !names.contains(&role) {
                names.push(role);
            }
        }
        Some(_) => return None,
    }
    Some(names)
}

/// As the harness itself reads a scope: whatever it is, as text.
fn stringified(value: &Value) -> String {
    match value {
        Value::String(text) => shown(text.trim(), MAX_TEXT_CHARS),
        Value::Null => String::new(),
        other => shown(&other.to_string(), MAX_TEXT_CHARS),
    }
}

/// At most `chars` of a text, without what a terminal would take as a command.
pub(crate) fn shown(text: &str, chars: usize) -> String {
    let harmless = text.chars().take(chars);
    harmless
        .map(|char| if char.is_control() { '\u{fffd}' } else { char })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(entry: &str) -> Option<Request> {
        Request::of(&serde_json::from_str(entry).unwrap())
    }

    #[test]
    fn an_id_that_could_be_an_option_or_a_path_is_none() {
        let longest = "a".repeat(128);
        for id in ["a", "fc616cd9-0f75", "req:1.x_y", "0", &longest] {
            assert!(RequestId::parse(id).is_some(), "{id}");
        }
        for id in [
            "",
            "-x",
            "--latest",
            ".a",
            "a b",
            "a\nb",
            "a/b",
            "ä",
            &format!("{longest}a"),
        ] {
            assert!(RequestId::parse(id).is_none(), "{id:?}");
        }
    }

    #[test]
    fn entries_without_a_usable_id_are_counted_and_left() {
        let printed =
            br#"{"pending":[{"requestId":"a"},{"requestId":"--latest"},7,{"x":1}],"paired":[]}"#;
        let listing = Listing::parse(printed).unwrap();
        assert_eq!(listing.pending.len(), 1);
        assert_eq!(listing.unusable, 3);
    }

    #[test]
    fn ap_11_requested_scopes_are_read_where_there_are_no_scopes_and_scopes_win() {
        let only = request(r#"{"requestId":"a","requestedScopes":["operator.read"]}"#).unwrap();
        assert_eq!(
            only.scopes,
            Scopes::Listed(vec!["operator.read".to_owned()])
        );
        let both =
            r#"{"requestId":"a","scopes":["operator.write"],"requestedScopes":["operator.read"]}"#;
        let both = request(both).unwrap();
        assert_eq!(
            both.scopes,
            Scopes::Listed(vec!["operator.write".to_owned()])
        );
    }

    #[test]
    fn what_a_client_says_of_itself_is_short_and_harmless() {
        let long = format!(
            r#"{{"requestId":"a","clientId":"\u001b[2J{}"}}"#,
            "x".repeat(4000)
        );
        let client = request(&long).unwrap().client_id.unwrap();
        assert_eq!(client.chars().count(), MAX_TEXT_CHARS);
        assert!(!client.contains('\u{1b}'));
    }

    #[test]
    fn what_is_printed_must_be_an_object() {
        assert_eq!(Listing::parse(b" \n"), Err(BadListing::Empty));
        for printed in ["[]", "nothing to see", "{\"pending\":["] {
            let listing = Listing::parse(printed.as_bytes());
            assert!(matches!(listing, Err(BadListing::NotJson(_))), "{printed}");
        }
        assert_eq!(Listing::parse(b"{}").unwrap(), Listing::default());
    }
}
