//! That a route is live: a model of a real provider answers, and no one that plays one.
//!
//! Three things are asked, in this order, and each closes the door where it fails: the key is given; the address is
//! one that only TLS leads to and lies on no machine of ours; and the model answers a sum that nobody can have known
//! before, of which the question holds no part.
//!
//! It is a guard against a route that was left on a persona, not against a provider that means to deceive.

use std::net::IpAddr;
use std::sync::Arc;

use farrier_compat::registry::Registry;
use farrier_gateway::config::{Credential, Provider, Route};
use http::Uri;
use tokio::net::lookup_host;

use super::Order;
use super::case::Case;
use super::run::{Upstream, copy};
use crate::demo::{Answer, Harness};
use crate::failure::Failure;
use crate::stage::{Front, Setup, base_url};

/// Why a run would not be live.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum NotLive {
    #[error("expected an https URL of a provider, got {0:?}")]
    NotHttps(String),
    #[error("expected a provider somewhere else, got {host}, which is {address}")]
    Here { host: String, address: IpAddr },
    #[error("expected {host} to have an address, got none")]
    Nowhere { host: String },
    #[error("expected the sum of two numbers, got {0:?}")]
    NoSum(String),
}

impl Order<'_> {
    /// The provider of a live run.
    pub(super) fn upstream(&self, case: &Case) -> Result<Upstream, Failure> {
        let Some(live) = &case.sheet.live else {
            return Err(Failure::user(format!("{} names no provider", case.name)));
        };
        let key = self.key.as_ref().ok_or_else(no_key)?;
        Ok(Upstream {
            base_url: self.base_url.unwrap_or(&live.base_url).to_owned(),
            model: live.model.clone(),
            key: copy(key)?,
        })
    }
}

/// A live run without a key is none.
pub(crate) fn no_key() -> Failure {
    Failure::usage("expected --key with --live, got none; a live run has to pay for itself")
        .hint("name where the key is: --key env:NAME or --key file:PATH")
}

/// Shows that the provider is a real one.
///
/// # Errors
/// It is not, or that cannot be shown.
pub(super) async fn prove(upstream: &Upstream) -> Result<(), Failure> {
    let refused = |why: NotLive| {
        Failure::user("this route is not live").caused_by(&why).hint(
            "`farrier verify` without --live plays the model; --base-url names another provider",
        )
    };
    is_elsewhere(&upstream.base_url).await.map_err(refused)?;
    let (a, b) = (chance()?, chance()?);
    let mut provider = Provider::new("live", &upstream.base_url);
    provider.credential = Some(Credential::bearer(copy(&upstream.key)?));
    let registry = Registry::shipped()
        .map_err(|error| Failure::internal("cannot load the shipped manifests", &error))?;
    let front = Front::build(Setup {
        registry: Arc::new(registry),
        provider,
        route: Route::new(&upstream.model, "live"),
        clients: Vec::new(),
    });
    let front = front.await?;
    let url = base_url(front.addr());
    let (answer, _upkeep) = front.during(ask(&url, &upstream.model, a, b)).await;
    is_sum(&answer?, a, b).map_err(refused)
}

/// Only TLS leads there, and it is none of our machines.
async fn is_elsewhere(url: &str) -> Result<(), NotLive> {
    let not_https = || NotLive::NotHttps(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| not_https())?;
    let (Some("https"), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(not_https());
    };
    let host = host.trim_matches(['[', ']']).to_owned();
    let nowhere = || NotLive::Nowhere { host: host.clone() };
    let port = uri.port_u16().unwrap_or(443);
    let found = lookup_host((host.as_str(), port)).await;
    let found: Vec<IpAddr> = found.map_err(|_| nowhere())?.map(|at| at.ip()).collect();
    if found.is_empty() {
        return Err(nowhere());
    }
    match found.into_iter().find(|address| is_ours(*address)) {
        Some(address) => Err(NotLive::Here { host, address }),
        None => Ok(()),
    }
}

/// Loopback, and whatever networks keep to themselves.
fn is_ours(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || a == 0 || shared
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
        }
    }
}

async fn ask(url: &str, model: &str, a: u32, b: u32) -> Result<Answer, Failure> {
    let question =
        format!("Without calling any tool: what is {a} + {b}? Answer with the number alone.");
    let said = Harness::new(url, model, &question).work(1).await?;
    let last = said.exchanges.into_iter().next_back();
    Ok(last.map_or_else(nothing, |exchange| exchange.answer))
}

fn nothing() -> Answer {
    Answer::Text {
        text: String::new(),
    }
}

fn is_sum(answer: &Answer, a: u32, b: u32) -> Result<(), NotLive> {
    let text = match answer {
        Answer::Text { text } => text.clone(),
        Answer::Calls { .. } => "a call of a tool".to_owned(),
        Answer::Refused { status, message } => format!("{status}: {message}"),
    };
    let digits: String = text.chars().filter(|c| !matches!(c, ',' | ' ')).collect();
    let is_there = matches!(answer, Answer::Text { .. })
        && digits.contains(&(u64::from(a) + u64::from(b)).to_string());
    is_there.then_some(()).ok_or(NotLive::NoSum(text))
}

/// A number with eight digits that nobody knew before.
fn chance() -> Result<u32, Failure> {
    let number = getrandom::u32()
        .map_err(|error| Failure::internal("no random numbers to ask for", &error))?;
    Ok(10_000_000 + number % 90_000_000)
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
