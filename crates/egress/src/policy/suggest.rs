//! From what was refused to the rules that would allow it, as a policy file to read, and to take over if it is right.
//!
//! What leads to this machine, its networks or the cloud's metadata is never suggested: whoever asks for it from within a
//! sandbox may well be up to no good, and whoever means it can write it down himself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use crate::address;
use crate::target::{Authority, Host};

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

impl Refusal {
    /// Whether it wanted to go where addresses are refused: by the address that was found for it, or by its own.
    #[must_use]
    pub fn leads_inside(&self) -> bool {
        let by_itself = match &self.to.host {
            Host::Address(own) => address::special(*own).is_some(),
            // What resolvers give for these is this machine (RFC 6761 §6.3), or what clouds call their metadata service.
            Host::Name(name) => {
                let last = name.rsplit('.').next().unwrap_or_default();
                last == "localhost" || name == "metadata.google.internal"
            }
        };
        by_itself
            || self
                .address
                .is_some_and(|found| address::special(found).is_some())
    }

    fn at(&self) -> (String, u16) {
        (self.to.host.bare(), self.to.port)
    }
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
}

/// The policy file that would have allowed all of it that may be suggested, and nothing else; none if that is nothing.
///
/// A destination of which no request was read gets an endpoint that is not looked into.
#[must_use]
pub fn suggest<'r>(refusals: impl IntoIterator<Item = &'r Refusal>) -> Option<String> {
    let refusals: Vec<&Refusal> = refusals.into_iter().collect();
    let inside: BTreeSet<(String, u16)> = refusals
        .iter()
        .filter(|refusal| refusal.leads_inside())
        .map(|refusal| refusal.at())
        .collect();
    let mut wanted = BTreeMap::<(String, u16), Wanted>::new();
    for refusal in refusals {
        let at = refusal.at();
        if !inside.contains(&at) {
            let of = wanted.entry(at).or_default();
            of.requests.extend(refusal.request.clone());
        }
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
    };
    (
        key,
        Rule {
            endpoints: vec![endpoint],
        },
    )
}
