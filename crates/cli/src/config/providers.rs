//! Every provider there is: those the file declares, and those of the state store.
//!
//! ```text
//! [[provider]] ──▶ Known ◀── state.db          a declared one hides a stored one of its name
//!                    ├──▶ the gateway's providers, if a route names it, or nothing is declared
//!                    └──▶ credentials, for whoever lends keys to sandboxes
//! ```
//!
//! A stored provider that is broken is a mistake only where a route needs it: one bad provider keeps nobody else from
//! working.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use farrier_control::store::{Store, StoredProvider};
use farrier_control::{self as control, Origin};
use farrier_gateway::config::{Credential, Provider, Route};
use farrier_secrets::{
    Api, Credentials, KeyName, Profile, ProviderName, ProviderSpec, SecretError, SecretRef, Sent,
};

use super::mistakes::Mistake;
use super::raw::RawProvider;
use super::resolve::{Overrides, Resolution, with_causes};
use super::{At, Environment, absolute, examine};

/// A provider, and who says that there is one.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) spec: ProviderSpec,
    /// The type as it was given.
    pub(crate) kind: String,
    /// The line that declares it; none if it is stored.
    pub(crate) line: Option<usize>,
    /// The header field that it declares for its key.
    pub(crate) header: Option<String>,
    /// Certificates that it may prove itself by, besides the public ones.
    pub(crate) ca_file: Option<PathBuf>,
}

/// Who is meant to answer.
struct Wanted<'a> {
    /// Providers that routes name, and the one for everything else.
    named: HashSet<&'a str>,
    /// Nothing is declared: whatever is stored may answer.
    all: bool,
}

/// What is said where nothing tells where state is kept.
pub(crate) const NO_STATE: &str =
    "expected a place for Farrier's state, got none: neither XDG_STATE_HOME nor HOME is set";

// === where it is ===

impl Environment {
    /// Where the state store is, if anything says where state is kept.
    pub(crate) fn store_dir(&self) -> Option<PathBuf> {
        Some(self.state_dir()?.join("farrier").join("store"))
    }

    /// Where secrets are that were handed over on standard input.
    pub(crate) fn secrets_dir(&self) -> Option<PathBuf> {
        Some(self.store_dir()?.join("secrets"))
    }
}

/// Where the configuration declares this provider, as a sentence; none if it does not, or there is no configuration.
pub(crate) fn declared(
    file: Option<&Path>,
    env: &Environment,
    name: &ProviderName,
) -> Option<String> {
    let examined = examine(file, env, &Overrides::default()).ok()?;
    let known = examined.known().iter();
    let line = known
        .filter(|known| known.spec.name == *name)
        .find_map(|known| known.line)?;
    let file = absolute(&examined.file);
    Some(format!(
        "expected a stored provider, got {name}, which is declared at {}:{line}; change it there",
        file.display()
    ))
}

// === impl Known ===

impl Known {
    /// A stored provider; none if this Farrier knows no such type.
    pub(crate) fn stored(stored: StoredProvider) -> Option<Self> {
        Some(Self {
            spec: ProviderSpec {
                profile: Profile::named(&stored.kind)?,
                name: stored.name,
                base_url: stored.base_url,
                keys: stored.keys,
            },
            kind: stored.kind,
            line: None,
            header: None,
            ca_file: None,
        })
    }

    /// A declared provider; none if no command could name it.
    pub(super) fn declared(
        raw: &RawProvider,
        source: Option<SecretRef>,
        line: usize,
    ) -> Option<Self> {
        let name: ProviderName = raw.name.as_ref()?.value.parse().ok()?;
        let profile = Profile::named("generic")?;
        let source = source.and_then(|source| Some((key_of(&name)?, source)));
        Some(Self {
            spec: ProviderSpec {
                name,
                profile,
                base_url: raw.base_url.as_ref().map(|url| url.value.clone()),
                keys: source.into_iter().collect(),
            },
            kind: profile.kind.clone(),
            line: Some(line),
            header: raw.header.as_ref().map(|header| header.value.to_string()),
            ca_file: None,
        })
    }

    /// The same, with the certificates of this file.
    pub(super) fn believing(self, ca_file: Option<PathBuf>) -> Self {
        Self { ca_file, ..self }
    }

    /// For whoever asks, without any secret.
    pub(crate) fn told(&self, file: Option<&str>, env: &Environment) -> control::Provider {
        let spec = &self.spec;
        let fetched = Credentials::fetch([spec.clone()], |source| fetched(source, env));
        let broken = fetched
            .broken()
            .map(|broken| (broken.key.to_string(), broken.reason));
        let file = file.filter(|_| self.line.is_some());
        control::Provider {
            name: spec.name.to_string(),
            kind: self.kind.clone(),
            base_url: spec
                .base_url
                .clone()
                .or_else(|| spec.profile.base_url.clone()),
            keys: texts(&spec.keys),
            broken: broken.collect(),
            origin: if self.line.is_some() {
                Origin::Declared
            } else {
                Origin::Stored
            },
            file: file.map(str::to_owned),
            line: self.line,
        }
    }
}

/// A declared provider has one key, and no name for it: that of its own, as clusters name theirs.
fn key_of(name: &ProviderName) -> Option<KeyName> {
    let upper: String = name
        .as_str()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect();
    format!("{upper}_API_KEY").parse().ok()
}

fn texts(keys: &BTreeMap<KeyName, SecretRef>) -> BTreeMap<String, String> {
    let texts = keys.iter();
    texts
        .map(|(key, source)| (key.to_string(), source.to_string()))
        .collect()
}

/// Fetches a secret with this process's environment.
pub(crate) fn fetched(
    source: &SecretRef,
    env: &Environment,
) -> Result<farrier_secrets::Secret, SecretError> {
    source.resolve(&|name| env.variable(name))
}

// === impl Resolution ===

impl Resolution<'_> {
    /// Adds what is stored to what is declared, and gives the names that routes want in vain.
    pub(super) fn stored(
        &mut self,
        known: &mut Vec<Known>,
        providers: &mut Vec<Provider>,
        (routes, default): (&[Route], Option<&At<String>>),
    ) -> Vec<String> {
        let mut left_out = Vec::new();
        let wanted = Wanted {
            named: routes
                .iter()
                .flat_map(Route::targets)
                .map(|(provider, _)| provider)
                .chain(default.map(|name| name.value.as_str()))
                .collect(),
            all: providers.is_empty() && known.is_empty() && !self.unsure,
        };
        for stored in self.read_store() {
            let name = stored.name.clone();
            if let Some(declared) = known.iter().find(|known| known.spec.name == name) {
                let line = declared.line.unwrap_or_default();
                let message = format!(
                    "provider {name} is declared here and stored too; the stored one is not used \
                     (farrier provider remove {name})"
                );
                self.warnings.push(Mistake::at(line, message));
                continue;
            }
            let kind = stored.kind.clone();
            let answers = Profile::named(&kind).is_none_or(|profile| profile.api.is_some());
            let is_wanted = wanted.named.contains(name.as_str()) || (wanted.all && answers);
            let offered = match Known::stored(stored) {
                Some(stored) => {
                    known.push(stored.clone());
                    is_wanted.then(|| self.offered(&stored.spec))
                }
                None => Some(Err(format!(
                    "expected a type that this Farrier knows, got {kind:?}"
                ))),
            };
            match offered {
                Some(Ok(provider)) => providers.push(provider),
                Some(Err(why)) if wanted.named.contains(name.as_str()) => {
                    self.mistakes.push(unusable(&name, &why));
                    left_out.push(name.to_string());
                }
                Some(Err(why)) => self.warnings.push(unusable(&name, &why)),
                None => {}
            }
        }
        left_out
    }

    fn read_store(&mut self) -> Vec<StoredProvider> {
        let Some(directory) = self.env.store_dir() else {
            return Vec::new();
        };
        let read = Store::open_existing(&directory)
            .and_then(|store| store.map_or_else(|| Ok(Vec::new()), |store| store.providers()));
        read.unwrap_or_else(|error| {
            self.mistakes.push(Mistake::elsewhere(with_causes(&error)));
            Vec::new()
        })
    }

    /// As the gateway has it.
    fn offered(&mut self, spec: &ProviderSpec) -> Result<Provider, String> {
        let profile = spec.profile;
        let Some(api) = profile.api else {
            let title = &profile.title;
            return Err(format!(
                "expected a provider of models, got {title}, which has none"
            ));
        };
        let base_url = spec.base_url.as_ref().or(profile.base_url.as_ref());
        let base_url = base_url.ok_or("expected a base URL, got none")?;
        let base_url = base_url.trim_end_matches('/');
        // Clients of this kind put the version in themselves; what the gateway is asked for lies below it.
        let base_url = match api {
            Api::AnthropicMessages if !base_url.ends_with("/v1") => format!("{base_url}/v1"),
            _ => base_url.to_owned(),
        };
        let mut provider = Provider::new(spec.name.as_str(), base_url);
        let known = profile.keys.iter();
        let first = known
            .filter_map(|key| spec.keys.get_key_value(key.name.as_str()))
            .chain(&spec.keys)
            .next();
        if let Some((key, source)) = first {
            provider.credential = Some(self.stored_credential(profile.sent(key.as_str()), source)?);
        }
        Ok(provider)
    }

    fn stored_credential(&mut self, sent: &Sent, source: &SecretRef) -> Result<Credential, String> {
        if let SecretRef::File { path } = source {
            self.sources.note_file(path);
        }
        let Sent::Header { name, prefix } = sent else {
            return Err("expected a key that is sent in a header, got one of a path".to_owned());
        };
        let secret = fetched(source, self.env).map_err(|error| with_causes(&error))?;
        let header = name.parse();
        let credential = Credential {
            header: header.map_err(|_invalid| format!("expected a header field, got {name:?}"))?,
            prefix: prefix.clone(),
            secret,
        };
        match credential.secret.header_value(prefix) {
            Ok(_) => Ok(credential),
            Err(error) => Err(format!("the secret in {source} cannot be sent: {error}")),
        }
    }
}

fn unusable(name: &ProviderName, why: &str) -> Mistake {
    Mistake::elsewhere(format!(
        "the stored provider {name} cannot be used: {why} (farrier provider set {name}, or remove {name})"
    ))
}
