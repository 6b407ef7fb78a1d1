//! Which secret may be sent where: providers with what they hold, and what one sandbox may use of them.
//!
//! ```text
//! ProviderSpec ──fetch──▶ Credentials ──attached──▶ Attached ──resolve(key, destination)──▶ Lent | Refusal
//! ```
//!
//! Guarantees:
//! * [`Credentials`] never change: another generation is another value, and whoever works with the one before goes on.
//! * One bad provider never disables another's keys, nor one bad key its provider's others.
//! * A secret is lent for a destination or not at all; nothing here gives one away without.
//! * Neither `Debug` nor any error shows a part of a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::endpoint::{Destination, Endpoint, Scheme};
use crate::name::{KeyName, ProviderName, without_revision};
use crate::profile::{Places, Profile};
use crate::{Secret, SecretError, SecretRef};

/// A provider as it is declared: references, no secret.
#[derive(Clone, Debug)]
pub struct ProviderSpec {
    /// What attachments and routes call it.
    pub name: ProviderName,
    /// What is known of its kind.
    pub profile: &'static Profile,
    /// Where it is; the profile's own, if absent.
    pub base_url: Option<String>,
    /// Where its secrets come from.
    pub keys: BTreeMap<KeyName, SecretRef>,
}

/// One generation of all providers with their secrets. Immutable; made anew when anything changes.
#[derive(Debug, Default)]
pub struct Credentials {
    providers: BTreeMap<ProviderName, Arc<Provider>>,
}

/// What one sandbox may use, of one generation of [`Credentials`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Attached {
    /// In the order of the attachment, which decides where two could serve.
    providers: Arc<[Arc<Provider>]>,
}

/// A secret, for one request to the destination it was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Lent<'a> {
    /// The secret.
    pub secret: &'a Secret,
    /// Whose it is.
    pub provider: &'a ProviderName,
    /// What it is called.
    pub key: &'a KeyName,
    /// Where, besides header fields and path segments, it may be put in a request to that destination.
    pub places: Places,
}

/// Why a placeholder is not replaced. Holds names and places, never a part of a secret, and not the key that was asked
/// for where no attached provider has it: that text is the client's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The key is known, and bound to other places.
    #[error(
        "expected {key} of provider {provider} to be sent to {}, got {destination}; \
         attach a provider whose base URL is there",
        listed(expected)
    )]
    EndpointMismatch {
        /// The key.
        key: KeyName,
        /// Whose it is.
        provider: ProviderName,
        /// Where it may be sent.
        expected: Vec<Endpoint>,
        /// Where it was to be sent, without the path.
        destination: String,
    },
    /// There is no such key for this sandbox, or no secret behind it.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why there is no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No attached provider has such a key.
    #[error(
        "expected a key of an attached provider, got another name; attached are {}: \
         attach the provider that has it, or add it with farrier provider add",
        listed_or(attached, "none")
    )]
    NotAttached {
        /// The providers that are.
        attached: Vec<ProviderName>,
    },
    /// The provider's secret could not be fetched.
    #[error(
        "{key} of provider {provider} cannot be used: {reason}; farrier provider set {provider} gives it another source"
    )]
    Broken {
        /// The key.
        key: KeyName,
        /// Whose it is.
        provider: ProviderName,
        /// What is wrong with its source.
        reason: String,
    },
}

/// A provider with its secrets.
#[derive(Debug)]
struct Provider {
    name: ProviderName,
    keys: Vec<Held>,
}

/// A key, where it may go, and its secret, or why there is none.
#[derive(Debug)]
struct Held {
    name: KeyName,
    also: &'static [String],
    bound: Vec<(Endpoint, Places)>,
    secret: Result<Secret, String>,
}

/// A key that is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenKey {
    /// Whose it is.
    pub provider: ProviderName,
    /// What it is called.
    pub key: KeyName,
    /// Why, without any part of a secret.
    pub reason: String,
}

// === impl Credentials ===

impl Credentials {
    /// Fetches every secret with `fetch`. What cannot be fetched, or is bound to nothing, disables that key alone;
    /// [`broken`](Self::broken) tells of it. Of two providers of one name the latter counts.
    ///
    /// Blocks for as long as `fetch` does.
    pub fn fetch(
        specs: impl IntoIterator<Item = ProviderSpec>,
        mut fetch: impl FnMut(&SecretRef) -> Result<Secret, SecretError>,
    ) -> Self {
        let providers = specs.into_iter().map(|spec| {
            let name = spec.name.clone();
            (name, Arc::new(Provider::of(spec, &mut fetch)))
        });
        Self {
            providers: providers.collect(),
        }
    }

    /// What a sandbox with these attachments may use. A name that no provider has gives nothing, and takes nothing from
    /// the others.
    #[must_use]
    pub fn attached(&self, providers: &[ProviderName]) -> Attached {
        let known = providers
            .iter()
            .filter_map(|name| self.providers.get(name).cloned());
        Attached {
            providers: known.collect(),
        }
    }

    /// Whether there is such a provider.
    #[must_use]
    pub fn has(&self, provider: &ProviderName) -> bool {
        self.providers.contains_key(provider)
    }

    /// Every key that is of no use, and why.
    pub fn broken(&self) -> impl Iterator<Item = BrokenKey> {
        self.providers.values().flat_map(|provider| {
            provider.keys.iter().filter_map(|key| {
                let reason = key.secret.as_ref().err()?.clone();
                Some(BrokenKey {
                    provider: provider.name.clone(),
                    key: key.name.clone(),
                    reason,
                })
            })
        })
    }
}

// === impl Attached ===

impl Attached {
    /// Without any provider: every key is refused.
    #[must_use]
    pub fn none() -> Self {
        Self {
            providers: Arc::new([]),
        }
    }

    /// Whether any key may be sent there, on whatever path; also one whose secret could not be fetched, so that its
    /// placeholder is refused rather than tunnelled.
    #[must_use]
    pub fn serves(&self, scheme: Scheme, host: &str, port: u16) -> bool {
        self.bound()
            .any(|(endpoint, _)| endpoint.is_at(scheme, host, port))
    }

    /// Where, besides header fields and path segments, placeholders are to be looked for in requests to that machine.
    /// Wider than what a single key is allowed there, which [`Lent::places`] tells.
    #[must_use]
    pub fn opts_in(&self, host: &str, port: u16) -> Places {
        self.bound()
            .filter(|(endpoint, _)| endpoint.is_host(host, port))
            .fold(Places::default(), |all, (_, places)| all.or(*places))
    }

    /// Lends the secret that `key` stands for, to be sent to `to` and nowhere else. `key` is what follows
    /// `…:resolve:env:` in a placeholder, with or without a revision; see [`without_revision`].
    ///
    /// Where several attached providers have a key of that name, the first that is bound to the destination serves.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; nothing may be forwarded then.
    pub fn resolve(&self, key: &str, to: &Destination<'_>) -> Result<Lent<'_>, Refusal> {
        let name = without_revision(key);
        let mut elsewhere = None;
        for (provider, held) in self.held().filter(|(_, held)| held.is_called(name)) {
            match held.places_at(to) {
                Some(places) => return held.lend(&provider.name, places),
                None => elsewhere = elsewhere.or(Some((provider, held))),
            }
        }
        let Some((provider, held)) = elsewhere else {
            let attached = self.providers.iter().map(|provider| provider.name.clone());
            return Err(Unavailable::NotAttached {
                attached: attached.collect(),
            }
            .into());
        };
        // What has no place it could be sent to is broken, not misdirected.
        if held.bound.is_empty() {
            return held.lend(&provider.name, Places::default());
        }
        Err(Refusal::EndpointMismatch {
            key: held.name.clone(),
            provider: provider.name.clone(),
            expected: held.bound.iter().map(|(place, _)| place.clone()).collect(),
            destination: to.to_string(),
        })
    }

    /// Every key by its provider and name, for placeholders to be made of them.
    pub fn keys(&self) -> impl Iterator<Item = (&ProviderName, &KeyName)> {
        self.held()
            .map(|(provider, held)| (&provider.name, &held.name))
    }

    fn held(&self) -> impl Iterator<Item = (&Provider, &Held)> {
        self.providers
            .iter()
            .flat_map(|provider| provider.keys.iter().map(|held| (provider.as_ref(), held)))
    }

    fn bound(&self) -> impl Iterator<Item = &(Endpoint, Places)> {
        self.held().flat_map(|(_, held)| &held.bound)
    }
}

// === impl Provider ===

impl Provider {
    fn of(
        spec: ProviderSpec,
        fetch: &mut impl FnMut(&SecretRef) -> Result<Secret, SecretError>,
    ) -> Self {
        let ProviderSpec {
            name,
            profile,
            base_url,
            keys,
        } = spec;
        let held = keys.into_iter().map(|(key, source)| {
            let secret = fetch(&source).map_err(|error| shown(&error));
            let known = profile.key(key.as_str());
            let own = known.map_or(key.as_str(), |known| &known.name);
            match profile.bound(base_url.as_deref(), own) {
                Ok(bound) => Held::of(key, known, bound, secret),
                Err(error) => Held::of(key, known, Vec::new(), Err(error.to_string())),
            }
        });
        Self {
            keys: held.collect(),
            name,
        }
    }
}

// === impl Held ===

impl Held {
    fn of(
        name: KeyName,
        known: Option<&'static crate::profile::Key>,
        bound: Vec<(Endpoint, Places)>,
        secret: Result<Secret, String>,
    ) -> Self {
        let also = known.map_or::<&[String], _>(&[], |known| &known.also);
        Self {
            name,
            also,
            bound,
            secret,
        }
    }

    fn is_called(&self, name: &str) -> bool {
        self.name.as_str() == name || self.also.iter().any(|also| also == name)
    }

    /// What is allowed at the destination, if the key may go there.
    fn places_at(&self, to: &Destination<'_>) -> Option<Places> {
        let here = self.bound.iter().filter(|(place, _)| place.takes(to));
        here.map(|(_, places)| *places).reduce(Places::or)
    }

    fn lend<'a>(&'a self, provider: &'a ProviderName, places: Places) -> Result<Lent<'a>, Refusal> {
        match &self.secret {
            Ok(secret) => Ok(Lent {
                secret,
                provider,
                key: &self.name,
                places,
            }),
            Err(reason) => Err(Refusal::Unavailable(Unavailable::Broken {
                key: self.name.clone(),
                provider: provider.clone(),
                reason: reason.clone(),
            })),
        }
    }
}

// === texts ===

/// An error with its causes; none of this crate's shows a secret.
fn shown(error: &SecretError) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| {
        error.source()
    });
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}

fn listed<T: fmt::Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(" or ")
}

fn listed_or(names: &[ProviderName], none: &str) -> String {
    let names: Vec<&str> = names.iter().map(ProviderName::as_str).collect();
    if names.is_empty() {
        none.to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests;
