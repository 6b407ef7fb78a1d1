//! What is typed about the ledger, over its defaults: a file, or a store that gateways share.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use farrier_ledger::{
    EmbeddedConfig, EncryptionKey, Identity, Location, Password, SharedConfig, Store,
};
use farrier_secrets::SecretRef;

use super::super::given::At;
use super::super::mistakes::Mistake;
use super::super::raw::RawLedger;
use super::{Resolution, set};

impl Resolution<'_> {
    /// The store, of which one operation may take `within`.
    pub(super) fn ledger(&mut self, raw: RawLedger, within: Duration) -> Store {
        match raw.url.clone() {
            Some(url) => Store::Shared(Box::new(self.shared(raw, url, within))),
            None => Store::Embedded(self.embedded(raw)),
        }
    }

    fn embedded(&mut self, raw: RawLedger) -> EmbeddedConfig {
        if !raw.url_refused {
            for (key, line) in of_a_store(&raw) {
                let message = format!("expected url with {key} in [ledger], got none");
                self.mistakes
                    .extend(line.map(|line| Mistake::at(line, message)));
            }
        }
        let path = match raw.path {
            Some(path) => self.whole(&path.value),
            None => self.env.state_dir().map_or_else(
                || {
                    let message = "expected a path in [ledger], got none, \
                                   and neither XDG_STATE_HOME nor HOME says where state is kept";
                    self.mistakes.push(Mistake::somewhere(message));
                    PathBuf::new()
                },
                |state| state.join("farrier").join("ledger.db"),
            ),
        };
        let mut config = EmbeddedConfig::new(path);
        let bounds = &mut config.bounds;
        set(&mut bounds.ttl, raw.ttl);
        set(&mut bounds.max_bytes, raw.max_size);
        set(&mut bounds.max_entries_per_scope, raw.max_entries_per_scope);
        let cache = raw.cache_size.map(|size| size.value);
        // What an address space cannot hold is no bound.
        let cache = cache.map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        config.cache_bytes = cache.unwrap_or(config.cache_bytes);
        config.encryption = raw.encryption_key.and_then(|key| self.encryption_key(&key));
        config
    }

    fn shared(&mut self, raw: RawLedger, url: At<Location>, within: Duration) -> SharedConfig {
        let of_a_file = [
            ("path", raw.path.as_ref().map(|path| path.line)),
            ("max_size", raw.max_size.as_ref().map(|size| size.line)),
            ("cache_size", raw.cache_size.as_ref().map(|size| size.line)),
        ];
        for (key, line) in of_a_file {
            let message = format!(
                "expected no {key} with url in [ledger], got one; it is of a file, and a store has its own bounds"
            );
            self.mistakes
                .extend(line.map(|line| Mistake::at(line, message)));
        }
        let before = self.mistakes.len();
        let mut config = SharedConfig::new(url.value);
        config.identity = self.identity(raw.certificate_file, raw.key_file);
        config.authorities = raw.ca_file.and_then(|path| self.contents(&path));
        config.username = raw.username.map(|name| name.value);
        config.password = raw.credential.and_then(|secret| self.password(&secret));
        config.sentinel_password = raw
            .sentinel_credential
            .and_then(|secret| self.password(&secret));
        set(&mut config.prefix, raw.prefix);
        set(&mut config.ttl, raw.ttl);
        set(&mut config.max_entries_per_scope, raw.max_entries_per_scope);
        config.encryption = raw.encryption_key.and_then(|key| self.encryption_key(&key));
        config.deadline = within;
        if self.mistakes.len() == before
            && let Err(error) = config.check()
        {
            let message = super::with_causes(&error);
            self.mistakes.push(Mistake::at(url.line, message));
        }
        config
    }

    fn identity(
        &mut self,
        certificates: Option<At<PathBuf>>,
        key: Option<At<PathBuf>>,
    ) -> Option<Identity> {
        let alone = match (&certificates, &key) {
            (None, None) | (Some(_), Some(_)) => None,
            (Some(certificates), None) => Some(("key_file", "certificate_file", certificates.line)),
            (None, Some(key)) => Some(("certificate_file", "key_file", key.line)),
        };
        if let Some((missing, given, line)) = alone {
            let message = format!("expected {missing} with {given} in [ledger], got none");
            self.mistakes.push(Mistake::at(line, message));
        }
        Some(Identity {
            certificates: self.contents(&certificates?)?,
            key: self.contents(&key?)?.into(),
        })
    }

    fn contents(&mut self, path: &At<PathBuf>) -> Option<Vec<u8>> {
        let whole = self.whole(&path.value);
        let read = fs::read(&whole).map_err(|error| {
            let message = format!("cannot read {}: {error}", whole.display());
            self.mistakes.push(Mistake::at(path.line, message));
        });
        read.ok()
    }

    fn password(&mut self, reference: &At<SecretRef>) -> Option<Password> {
        Some(Password::new(self.secret(reference)?.expose()))
    }

    fn encryption_key(&mut self, reference: &At<SecretRef>) -> Option<EncryptionKey> {
        let key = EncryptionKey::from_hex(self.secret(reference)?.expose());
        if let Err(error) = &key {
            self.mistakes
                .push(Mistake::at(reference.line, error.to_string()));
        }
        key.ok()
    }
}

/// The keys that mean nothing for a file, and where they are.
fn of_a_store(raw: &RawLedger) -> [(&'static str, Option<usize>); 7] {
    fn line<T>(at: Option<&At<T>>) -> Option<usize> {
        at.map(|at| at.line)
    }
    [
        ("username", line(raw.username.as_ref())),
        ("credential", line(raw.credential.as_ref())),
        (
            "sentinel_credential",
            line(raw.sentinel_credential.as_ref()),
        ),
        ("ca_file", line(raw.ca_file.as_ref())),
        ("certificate_file", line(raw.certificate_file.as_ref())),
        ("key_file", line(raw.key_file.as_ref())),
        ("prefix", line(raw.prefix.as_ref())),
    ]
}
