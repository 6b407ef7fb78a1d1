//! Which header fields pass, and which end at the gateway.
//!
//! Hop-by-hop fields are those of RFC 9110 §7.6.1 and whatever `Connection` names. Everything else passes both ways,
//! except what the caller presented to us.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Leaves of a caller's fields what a provider may see. Fields about the body's framing go too: they are made anew.
pub(super) fn for_upstream(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    for name in ENDS_HERE {
        headers.remove(name);
    }
    remove_ours(headers);
}

/// Leaves of a provider's fields what a client may see.
pub(crate) fn for_client(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    remove_ours(headers);
}

/// Asks for a reply in no content coding: one that has to be read.
pub(crate) fn plain_please(headers: &mut HeaderMap) {
    headers.insert(
        header::ACCEPT_ENCODING,
        HeaderValue::from_static("identity"),
    );
}

/// What only we may say, to either side.
fn remove_ours(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(OURS))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| !KEPT_THOUGH_NAMED.contains(name))
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// What a caller shows us, or says about this hop only.
const ENDS_HERE: [HeaderName; 9] = [
    header::AUTHORIZATION,
    header::CONTENT_LENGTH,
    header::COOKIE,
    header::EXPECT,
    header::HOST,
    HeaderName::from_static("api-key"),
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

/// Our own fields, all of them.
const OURS: &str = "x-farrier-";

const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// End-to-end fields that a `Connection` naming them must not take away: the message means something else without.
const KEPT_THOUGH_NAMED: [HeaderName; 3] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
];
