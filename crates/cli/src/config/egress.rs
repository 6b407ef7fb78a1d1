//! From `[[egress]]` to what the proxies of sandboxes are built from.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farrier_egress::policy::{LoadError, Policy};
use farrier_egress::{Limits, Rules, Trust};
use farrier_secrets::{Credentials, ProviderName, SecretRef};

use super::given::At;
use super::mistakes::Mistake;
use super::providers::{Known, fetched};
use super::raw::RawEgress;
use super::resolve::Resolution;
use super::{Environment, Examined};

/// A sandbox's proxy, as it is configured.
#[derive(Clone, Debug)]
pub(crate) struct Egress {
    pub(crate) name: String,
    pub(crate) listen: Vec<SocketAddr>,
    /// Where its policy is.
    pub(crate) policy_file: PathBuf,
    pub(crate) policy: Arc<Policy>,
    pub(crate) providers: Vec<ProviderName>,
    pub(crate) trust: Trust,
    pub(crate) limits: Limits,
}

// === where it is ===

impl Environment {
    /// Where the certificate authority of proxies is, and what they decided.
    pub(crate) fn egress_dir(&self) -> Option<PathBuf> {
        Some(self.state_dir()?.join("farrier").join("egress"))
    }
}

// === impl Egress ===

impl Egress {
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            policy: Arc::clone(&self.policy),
            providers: self.providers.clone(),
        }
    }
}

impl Examined {
    /// The proxies of sandboxes.
    pub(crate) fn egress(&self) -> &[Egress] {
        &self.draft.egress
    }

    /// The secrets of now, of every provider that a sandbox has; `lent` are those of sandboxes that are not configured. Blocks for as long as their sources do.
    pub(crate) fn credentials(
        &self,
        lent: &BTreeSet<ProviderName>,
        env: &Environment,
    ) -> Credentials {
        let attached: HashSet<&ProviderName> = self
            .egress()
            .iter()
            .flat_map(|egress| &egress.providers)
            .chain(lent)
            .collect();
        let known = self.known().iter();
        let wanted = known.filter(|known| attached.contains(&known.spec.name));
        Credentials::fetch(wanted.map(|known| known.spec.clone()), |source| {
            fetched(source, env)
        })
    }
}

/// The limits that are given, and the defaults of all others.
fn limits(raw: &RawEgress) -> Limits {
    fn count(given: Option<&At<u64>>, default: usize) -> usize {
        given.map_or(default, |at| {
            usize::try_from(at.value).unwrap_or(usize::MAX)
        })
    }
    fn time(given: Option<&At<Duration>>, default: Duration) -> Duration {
        given.map_or(default, |at| at.value)
    }
    let mut limits = Limits::default();
    let listener = &mut limits.listener;
    listener.max_connections = count(raw.max_connections.as_ref(), listener.max_connections);
    Limits {
        max_held_body_bytes: count(raw.max_held_body.as_ref(), limits.max_held_body_bytes),
        max_message_bytes: count(raw.max_message.as_ref(), limits.max_message_bytes),
        connect: time(raw.connect.as_ref(), limits.connect),
        handshake: time(raw.handshake.as_ref(), limits.handshake),
        reply: time(raw.reply.as_ref(), limits.reply),
        idle: time(raw.idle.as_ref(), limits.idle),
        ..limits
    }
}

// === impl Resolution ===

impl Resolution<'_> {
    pub(super) fn egress(&mut self, raw: Vec<At<RawEgress>>, known: &[Known]) -> Vec<Egress> {
        let mut all: Vec<Egress> = Vec::new();
        for At { value, line } in raw {
            let policy = value.policy.as_ref().and_then(|path| self.policy(path));
            let trust = self.trust(value.ca_file.as_ref(), line);
            self.note_keys(&value.providers, known);
            for provider in &value.providers {
                let there = known.iter().any(|known| known.spec.name == provider.value);
                if !there && !self.unsure {
                    let message = format!(
                        "expected a provider that is declared or stored, got {}, of which there is none; its \
                         placeholders are refused (farrier provider add)",
                        provider.value
                    );
                    self.warnings.push(Mistake::at(provider.line, message));
                }
            }
            for address in value
                .listen
                .iter()
                .filter(|address| !address.value.ip().is_loopback())
            {
                let message = format!(
                    "expected a loopback address, got {}: whoever can connect to it has this sandbox's keys",
                    address.value
                );
                self.mistakes.push(Mistake::at(address.line, message));
            }
            let limits = limits(&value);
            // What is absent was told when the file was read.
            let (Some(name), Some((policy_file, policy)), Some(trust)) =
                (value.name, policy, trust)
            else {
                continue;
            };
            if all.iter().any(|other| other.name == name.value) {
                let message = format!("expected one egress named {:?}, got two", name.value);
                self.mistakes.push(Mistake::at(name.line, message));
            }
            all.push(Egress {
                name: name.value,
                listen: value.listen.iter().map(|address| address.value).collect(),
                policy_file,
                policy: Arc::new(policy),
                providers: value.providers.into_iter().map(|name| name.value).collect(),
                trust,
                limits,
            });
        }
        all
    }

    /// Files that secrets are read from: whoever replaces one rotates a key.
    fn note_keys(&mut self, attached: &[At<ProviderName>], known: &[Known]) {
        let is_attached =
            |known: &&Known| attached.iter().any(|name| name.value == known.spec.name);
        for source in known
            .iter()
            .filter(is_attached)
            .flat_map(|known| known.spec.keys.values())
        {
            if let SecretRef::File { path } = source {
                self.sources.note_file(path);
            }
        }
    }

    fn policy(&mut self, path: &At<PathBuf>) -> Option<(PathBuf, Policy)> {
        let file = self.readable(path)?;
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("cannot read {}: {error}", file.display());
                self.mistakes.push(Mistake::at(path.line, message));
                return None;
            }
        };
        match Policy::load(&text) {
            Ok(policy) => Some((file, policy)),
            Err(LoadError::Mistaken(found)) => {
                let shown = file.display();
                let messages = found.iter().map(|mistake| format!("{shown}: {mistake}"));
                let mistakes = messages.map(|message| Mistake::at(path.line, message));
                self.mistakes.extend(mistakes);
                None
            }
            Err(error) => {
                let message = format!("{}: {error}", file.display());
                self.mistakes.push(Mistake::at(path.line, message));
                None
            }
        }
    }

    fn trust(&mut self, ca_file: Option<&At<PathBuf>>, line: usize) -> Option<Trust> {
        let pem = match ca_file {
            None => None,
            Some(path) => Some(fs::read(self.readable(path)?).unwrap_or_default()),
        };
        let trust = Trust::with(pem.as_deref());
        let at = ca_file.map_or(line, |path| path.line);
        trust
            .map_err(|error| self.mistakes.push(Mistake::at(at, error.to_string())))
            .ok()
    }
}
