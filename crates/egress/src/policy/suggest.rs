//! From what was refused to the rules that would allow it, as a policy file to read, and to take over if it is right.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use crate::target::Authority;

/// Something that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where it wanted to go.
    pub to: Authority,
    /// What it asked for there, if that was read: the method and the path's template.
    pub request: Option<(String, String)>,
    /// The address that was refused, if that was it.
    pub address: Option<IpAddr>,
}

#[derive(Serialize)]
struct File {
    version: u32,
    network_policies: BTreeMap<String, Rule>,
}

#[derive(Serialize)]
struct Rule {
    endpoints: Vec<Endpoint>,
}

#[derive(Serialize)]
struct Endpoint {
    host: String,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rules: Vec<Allow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed_ips: Vec<String>,
}

#[derive(Serialize)]
struct Allow {
    allow: Request,
}

#[derive(Serialize)]
struct Request {
    method: String,
    path: String,
}

/// What was refused of one destination.
#[derive(Default)]
struct Wanted {
    requests: BTreeSet<(String, String)>,
    addresses: BTreeSet<IpAddr>,
}

/// The policy file that would have allowed all of it, and nothing else; none if nothing was refused.
///
/// A destination of which no request was read gets an endpoint that is not looked into.
#[must_use]
pub fn suggest<'r>(refusals: impl IntoIterator<Item = &'r Refusal>) -> Option<String> {
    let mut wanted = BTreeMap::<(String, u16), Wanted>::new();
    for refusal in refusals {
        let host = refusal.to.host.bare();
        let of = wanted.entry((host, refusal.to.port)).or_default();
        of.requests.extend(refusal.request.clone());
        of.addresses.extend(refusal.address);
    }
    if wanted.is_empty() {
        return None;
    }
    let file = File {
        version: 1,
        network_policies: wanted.into_iter().map(rule).collect(),
    };
    let options = serde_saphyr::ser_options! {
        prefer_block_scalars: false,
        compact_list_indent: false,
    };
    let mut text = String::new();
    // Strings, numbers and lists have a spelling in YAML, and a String takes all that is written.
    let _written = serde_saphyr::to_fmt_writer_with_options(&mut text, &file, options);
    Some(text)
}

fn rule(((host, port), wanted): ((String, u16), Wanted)) -> (String, Rule) {
    let word: String = host
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    let key = if port == 443 {
        word
    } else {
        format!("{word}_{port}")
    };
    let rules: Vec<Allow> = wanted
        .requests
        .into_iter()
        .map(|(method, path)| Allow {
            allow: Request { method, path },
        })
        .collect();
    let endpoint = Endpoint {
        host,
        port,
        protocol: (!rules.is_empty()).then_some("rest"),
        rules,
        allowed_ips: wanted
            .addresses
            .iter()
            .map(|address| format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }))
            .collect(),
    };
    (
        key,
        Rule {
            endpoints: vec![endpoint],
        },
    )
}
