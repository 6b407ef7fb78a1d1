//! Which header fields pass, and which end at the gateway.
//!
//! Hop-by-hop fields are those of RFC 9110 §7.6.1 and whatever `Connection` names. Everything else passes both ways,
//! except what the caller presented to us.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Of a caller's fields those that a provider may see, with room for the provider's own. Fields about the body's framing
/// are left out too: they are made anew. The caller's stay for another attempt; choosing costs no more than removing.
pub(super) fn for_upstream(given: &HeaderMap) -> HeaderMap {
    let named = named_by_connection(given);
    let mut headers = HeaderMap::with_capacity(given.len() + ROOM);
    for (name, value) in given {
        let text = name.as_str();
        if !is_hop_by_hop(text) && !is_ours(text) && !ends_here(text) && !named.contains(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

/// Leaves of a provider's fields what a client may see.
pub(crate) fn for_client(headers: &mut HeaderMap) {
    remove(headers, |name| is_hop_by_hop(name) || is_ours(name));
}

/// Asks for a reply in no content coding: one that has to be read.
pub(super) fn plain_please(headers: &mut HeaderMap) {
    headers.insert(
        header::ACCEPT_ENCODING,
        HeaderValue::from_static("identity"),
    );
}

/// Removes what `ends` says, and what `Connection` names. Few of a message's fields end at a hop, so those there are are
/// looked through once, rather than looked up by each name that could be there.
fn remove(headers: &mut HeaderMap, ends: impl Fn(&str) -> bool) {
    let named = named_by_connection(headers);
    let ending: Vec<HeaderName> = headers
        .keys()
        .filter(|name| ends(name.as_str()) || named.contains(name))
        .cloned()
        .collect();
    for name in ending {
        headers.remove(name);
    }
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| {
            !SAY_NO_NAME
                .iter()
                .any(|word| name.eq_ignore_ascii_case(word))
        })
        .filter_map(|name| name.parse().ok())
        .filter(|name| !KEPT_THOUGH_NAMED.contains(name))
        .collect()
}

/// What `Connection` nearly always says, and what names no field of a message.
const SAY_NO_NAME: [&str; 2] = ["keep-alive", "close"];

/// For `host`, `accept-encoding` and a credential.
const ROOM: usize = 4;

/// What only we may say, to either side.
fn is_ours(name: &str) -> bool {
    name.starts_with("x-farrier-")
}

/// What a caller shows us, or says about this hop only.
fn ends_here(name: &str) -> bool {
    matches!(
        name,
        "api-key"
            | "authorization"
            | "content-length"
            | "cookie"
            | "expect"
            | "host"
            | "http2-settings"
            | "x-api-key"
            | "x-goog-api-key"
    )
}

fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// End-to-end fields that a `Connection` naming them must not take away: the message means something else without.
const KEPT_THOUGH_NAMED: [HeaderName; 3] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
];
