//! Placeholders of a request replaced by what they stand for, or a reason why nothing is sent.
//!
//! ```text
//! header value   openshell:resolve:env:KEY             the whole value
//!                Bearer openshell:resolve:env:KEY      or all that follows a scheme
//!                Basic base64(user:placeholder)        or a half of Basic credentials
//! path           /botopenshell:resolve:env:KEY/getMe   within a segment
//! query          ?key=openshell:resolve:env:KEY        a whole value, where the key's profile opts in
//! JSON body      {"token":"openshell:…:KEY"}           a whole string under a name for secrets, if opted in
//! form body      token=openshell:…:KEY                 likewise
//! WebSocket      as JSON, a text message each, if opted in
//! ```
//!
//! Guarantees:
//! * A placeholder in head is replaced or the request is refused: none reaches a server, which would only log it.
//! * What people and models write is never touched: in bodies and messages a placeholder counts only as the whole value
//!   of a field that is named for secrets. Elsewhere it is text, and goes out as such.
//! * Nothing of a secret ends a header value, a segment or a string: each place encodes it, or refuses it.

use std::borrow::Cow;
use std::cell::RefCell;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farrier_secrets::{Attached, Destination, Lent, Places, Refusal, Secret};
use http::{HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use zeroize::Zeroizing;

use crate::mask::Masks;
use crate::placeholder;

/// Lends secrets for one request, and remembers their names.
#[derive(Debug)]
pub(crate) struct Lender<'a> {
    attached: &'a Attached,
    to: Destination<'a>,
    /// Places that the policy opts in for this request, beside those of a key's profile.
    also: Places,
    lent: RefCell<Vec<String>>,
    masks: RefCell<Masks>,
}

/// Why a request is not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InjectError {
    /// The secret cannot stand where its placeholder does.
    #[error("{name} cannot be sent in {place}: expected other characters there; nothing was sent")]
    Characters { name: String, place: &'static str },
    /// A placeholder stands where none is replaced.
    #[error(
        "expected a placeholder to be {expected}, got one elsewhere in {place}; nothing was sent"
    )]
    Misplaced {
        place: &'static str,
        expected: &'static str,
    },
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// What a path segment may hold besides letters and digits (RFC 3986 §3.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'@')
    .remove(b'!')
    .remove(b'$')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b',');
/// What the value of a query or a form may hold as it is.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// Names of fields that hold secrets, without `-` and `_`, in lower case.
const FIELDS: [&str; 12] = [
    "accesstoken",
    "apikey",
    "apptoken",
    "authorization",
    "authtoken",
    "bottoken",
    "clientsecret",
    "key",
    "password",
    "refreshtoken",
    "secret",
    "token",
];

// === impl Lender ===

impl<'a> Lender<'a> {
    pub(crate) fn new(attached: &'a Attached, to: Destination<'a>, also: Places) -> Self {
        Self {
            attached,
            to,
            also,
            lent: RefCell::default(),
            masks: RefCell::default(),
        }
    }

    /// `provider/KEY` of each secret that was lent, and how each is said if it is said back.
    pub(crate) fn into_lent(self) -> (Vec<String>, Masks) {
        (self.lent.into_inner(), self.masks.into_inner())
    }

    /// The secret for a key, for which `written` stands.
    fn lend(&self, key: &str, written: &str) -> Result<Lent<'_>, Refusal> {
        let lent = self.attached.resolve(key, &self.to)?;
        self.mask(lent.secret, written);
        let name = format!("{}/{}", lent.provider, lent.key);
        let mut names = self.lent.borrow_mut();
        if !names.contains(&name) {
            names.push(name);
        }
        Ok(lent)
    }

    /// Has each spelling of a secret said as it was written.
    fn mask(&self, secret: &Secret, written: &str) {
        let mut masks = self.masks.borrow_mut();
        let plain = secret.expose();
        masks.add(plain, written);
        for set in [SEGMENT, VALUE] {
            let encoded = Zeroizing::new(utf8_percent_encode(plain, set).to_string());
            masks.add(&encoded, written);
        }
        let json = serde_json::to_string(plain).map(Zeroizing::new);
        if let Some(within) = json.iter().find_map(|json| json.get(1..json.len() - 1)) {
            masks.add(within, written);
        }
    }

    /// Replaces what header values hold.
    pub(crate) fn headers(&self, headers: &mut HeaderMap) -> Result<(), InjectError> {
        for value in headers.values_mut() {
            if let Some(resolved) = self.header(value)? {
                *value = resolved;
            }
        }
        Ok(())
    }

    fn header(&self, value: &HeaderValue) -> Result<Option<HeaderValue>, InjectError> {
        let misplaced = InjectError::Misplaced {
            place: "a header value",
            expected: "the whole value, or all that follows a scheme such as Bearer",
        };
        let Ok(text) = value.to_str() else {
            return if placeholder::is_marked(value.as_bytes()) {
                Err(misplaced)
            } else {
                Ok(None)
            };
        };
        let (scheme, rest) = text.split_once(' ').unwrap_or(("", text));
        if scheme.eq_ignore_ascii_case("basic")
            && let Some(resolved) = self.basic(scheme, rest.trim())?
        {
            return Ok(Some(resolved));
        }
        if !placeholder::is_marked(text.as_bytes()) {
            return Ok(None);
        }
        let (prefix, key, written) = match placeholder::whole(text.trim()) {
            Some(key) => (String::new(), key, text.trim()),
            None => {
                let scheme = Some(scheme).filter(|scheme| is_scheme(scheme));
                let key = placeholder::whole(rest.trim());
                let (scheme, key) = scheme.zip(key).ok_or(misplaced)?;
                (format!("{scheme} "), key, rest.trim())
            }
        };
        let lent = self.lend(key, written)?;
        let resolved = lent.secret.header_value(&prefix);
        resolved
            .map(Some)
            .map_err(|_unfit| unfit(&lent, "a header value"))
    }

    /// Basic credentials of which a half, or both, is a placeholder (RFC 7617).
    fn basic(&self, scheme: &str, encoded: &str) -> Result<Option<HeaderValue>, InjectError> {
        let decoded = STANDARD
            .decode(encoded)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let Some(decoded) = decoded.filter(|text| placeholder::is_marked(text.as_bytes())) else {
            return Ok(None);
        };
        let misplaced = InjectError::Misplaced {
            place: "Basic credentials",
            expected: "the user or the password as a whole",
        };
        let (user, password) = halves(&decoded);
        let mut plain = Zeroizing::new(String::with_capacity(decoded.len() + 256));
        for (separator, half) in [("", Some(user)), (":", password)] {
            let Some(half) = half else { continue };
            plain.push_str(separator);
            if !placeholder::is_marked(half.as_bytes()) {
                plain.push_str(half);
                continue;
            }
            let key = placeholder::whole(half).ok_or_else(|| misplaced.clone())?;
            plain.push_str(self.lend(key, half)?.secret.expose());
        }
        let resolved = Zeroizing::new(STANDARD.encode(plain.as_bytes()));
        self.masks.borrow_mut().add(&resolved, encoded);
        let encoded = resolved;
        let text = Zeroizing::new(format!("{scheme} {}", *encoded));
        let mut value = HeaderValue::from_str(&text).map_err(|_invalid| misplaced)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Path and query with what they stand for.
    pub(crate) fn target(
        &self,
        path: &str,
        query: Option<&str>,
    ) -> Result<Zeroizing<String>, InjectError> {
        let mut target = Zeroizing::new(String::with_capacity(path.len() + 256));
        self.path(path, &mut target)?;
        if let Some(query) = query {
            target.push('?');
            self.query(query, &mut target)?;
        }
        Ok(target)
    }

    fn path(&self, path: &str, into: &mut String) -> Result<(), InjectError> {
        let decoded = decoded(path);
        if !placeholder::is_marked(decoded.as_bytes()) {
            into.push_str(path);
            return Ok(());
        }
        for (index, segment) in path.split('/').enumerate() {
            if index > 0 {
                into.push('/');
            }
            self.segment(segment, into)?;
        }
        Ok(())
    }

    fn segment(&self, segment: &str, into: &mut String) -> Result<(), InjectError> {
        let decoded = decoded(segment);
        if !placeholder::is_marked(decoded.as_bytes()) {
            into.push_str(segment);
            return Ok(());
        }
        let mut rest = 0;
        for found in placeholder::find(&decoded) {
            let lent = self.lend(found.key, &decoded[found.at.clone()])?;
            if !fits_a_segment(lent.secret) {
                return Err(unfit(&lent, "a path"));
            }
            into.extend(utf8_percent_encode(&decoded[rest..found.at.start], SEGMENT));
            into.extend(utf8_percent_encode(lent.secret.expose(), SEGMENT));
            rest = found.at.end;
        }
        if placeholder::is_marked(&decoded.as_bytes()[rest..]) {
            return Err(InjectError::Misplaced {
                place: "a path",
                expected: "followed by the name of a key",
            });
        }
        into.extend(utf8_percent_encode(&decoded[rest..], SEGMENT));
        Ok(())
    }

    fn query(&self, query: &str, into: &mut String) -> Result<(), InjectError> {
        for (index, pair) in query.split('&').enumerate() {
            if index > 0 {
                into.push('&');
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !placeholder::is_marked(decoded(pair).as_bytes()) {
                into.push_str(pair);
                continue;
            }
            let misplaced = InjectError::Misplaced {
                place: "a query",
                expected: "the whole value of a parameter, for a provider that takes keys there",
            };
            let value = decoded(value);
            let key = placeholder::whole(&value).ok_or_else(|| misplaced.clone())?;
            let lent = self.lend(key, &value)?;
            if !(lent.places.query || self.also.query) {
                return Err(misplaced);
            }
            into.push_str(name);
            into.push('=');
            into.extend(utf8_percent_encode(lent.secret.expose(), VALUE));
        }
        Ok(())
    }

    /// A JSON text with what its fields stand for; none if it goes out as it is.
    pub(crate) fn json(
        &self,
        text: &str,
        place: Place,
    ) -> Result<Option<Zeroizing<String>>, InjectError> {
        if !placeholder::is_marked(text.as_bytes()) {
            return Ok(None);
        }
        let mut resolved = Zeroizing::new(String::with_capacity(text.len() + 256));
        let mut copied = 0;
        for (at, key) in fields_of_json(text) {
            let lent = self.lend(key, &text[at.0..at.1])?;
            if !self.is_open(place, lent.places) {
                continue;
            }
            resolved.push_str(&text[copied..at.0]);
            let encoded = serde_json::to_string(lent.secret.expose());
            let encoded = Zeroizing::new(encoded.map_err(|_never| unfit(&lent, "JSON"))?);
            resolved.push_str(encoded.trim_matches('"'));
            copied = at.1;
        }
        if copied == 0 {
            return Ok(None);
        }
        resolved.push_str(&text[copied..]);
        Ok(Some(resolved))
    }

    /// A form with what its fields stand for; none if it goes out as it is.
    pub(crate) fn form(&self, text: &str) -> Result<Option<Zeroizing<String>>, InjectError> {
        if !placeholder::is_marked(decoded(text).as_bytes()) {
            return Ok(None);
        }
        let mut changed = false;
        let mut resolved = Zeroizing::new(String::with_capacity(text.len() + 256));
        for (index, pair) in text.split('&').enumerate() {
            if index > 0 {
                resolved.push('&');
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value);
            let key = placeholder::whole(&value).filter(|_| is_for_secrets(&decoded(name)));
            let lent = key.map(|key| self.lend(key, &value)).transpose()?;
            match lent.filter(|lent| self.is_open(Place::Body, lent.places)) {
                Some(lent) => {
                    resolved.push_str(name);
                    resolved.push('=');
                    resolved.extend(utf8_percent_encode(lent.secret.expose(), VALUE));
                    changed = true;
                }
                None => resolved.push_str(pair),
            }
        }
        Ok(changed.then_some(resolved))
    }

    fn is_open(&self, place: Place, by_key: Places) -> bool {
        match place {
            Place::Body => by_key.body || self.also.body,
            Place::WebSocket => by_key.websocket || self.also.websocket,
        }
    }
}

/// Where a JSON text is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Body,
    WebSocket,
}

/// User and password; a placeholder for the user has colons of its own.
fn halves(credentials: &str) -> (&str, Option<&str>) {
    let user = placeholder::find(credentials)
        .next()
        .filter(|found| found.at.start == 0);
    let from = user.map_or(0, |found| found.at.end);
    match credentials[from..].find(':') {
        Some(colon) => (
            &credentials[..from + colon],
            Some(&credentials[from + colon + 1..]),
        ),
        None => (credentials, None),
    }
}

/// Placeholders that are the whole value of a field named for secrets: where the text of the string stands, and the key.
///
/// Strings are found by their quotes alone. Of a text that is no JSON this finds something or nothing; it stays within
/// the quotes in either case.
fn fields_of_json(text: &str) -> Vec<((usize, usize), &str)> {
    let bytes = text.as_bytes();
    let mut fields = Vec::new();
    let mut name: Option<&str> = None;
    let mut at = 0;
    while let Some(open) = memchr::memchr(b'"', &bytes[at..]).map(|offset| at + offset) {
        let Some(close) = end_of_string(bytes, open + 1) else {
            break;
        };
        let string = &text[open + 1..close];
        let between = text[at..open].trim();
        let follows_name = between == ":";
        if follows_name
            && name.is_some_and(is_for_secrets)
            && let Some(key) = placeholder::whole(string)
        {
            fields.push(((open + 1, close), key));
        }
        name = (!follows_name).then_some(string);
        at = close + 1;
    }
    fields
}

fn end_of_string(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn is_for_secrets(name: &str) -> bool {
    let plain: String = name
        .chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .map(|c| c.to_ascii_lowercase())
        .collect();
    FIELDS.contains(&plain.as_str())
}

/// A token (RFC 9110 §11.1), and not a placeholder itself.
fn is_scheme(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    text.bytes().all(token) && !placeholder::is_marked(text.as_bytes())
}

/// Whether nothing of a secret can end a segment or lead out of it, however a server decodes.
fn fits_a_segment(secret: &Secret) -> bool {
    let text = secret.expose();
    !text.contains(['/', '\\', '?', '#', '%', ';']) && !text.contains("..")
}

fn unfit(lent: &Lent<'_>, place: &'static str) -> InjectError {
    InjectError::Characters {
        name: format!("{}/{}", lent.provider, lent.key),
        place,
    }
}

fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

#[cfg(test)]
mod tests;
