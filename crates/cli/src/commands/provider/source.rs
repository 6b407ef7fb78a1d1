//! `--credential KEY=SOURCE`: read, and a key on standard input put away.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::path::Path;

use farrier_secrets::{Account, Folder, KeyName, Profile, ProviderName, Secret, SecretRef};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::KeepIn;
use crate::commands::Context;
use crate::config;
use crate::failure::Failure;

/// Where the keys of a provider come from.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) keys: BTreeMap<KeyName, SecretRef>,
    /// The key that comes on standard input.
    input: Option<KeyName>,
}

impl Given {
    /// Reads the arguments, and nothing else yet.
    pub(super) fn read(arguments: &[String], profile: &Profile) -> Result<Self, Failure> {
        let mut given = Self::default();
        for argument in arguments {
            given.take(argument, profile)?;
        }
        Ok(given)
    }

    fn take(&mut self, argument: &str, profile: &Profile) -> Result<(), Failure> {
        const FORM: &str = "expected --credential KEY=env:VARIABLE, KEY=file:PATH, KEY=keyring:ACCOUNT or KEY=-, \
                            got something else, which is not repeated";
        let (name, source) = argument
            .split_once('=')
            .ok_or_else(|| Failure::usage(FORM))?;
        let key: KeyName = name
            .parse()
            .map_err(|error: farrier_secrets::NameError| Failure::usage(error.to_string()))?;
        if !profile.any_key && profile.key(name).is_none() {
            let known: Vec<&str> = profile.keys.iter().map(|key| key.name.as_str()).collect();
            let kind = &profile.kind;
            return Err(Failure::usage(format!(
                "expected a key of {kind}, {}, got {key}",
                known.join(" or ")
            ))
            .hint("a provider of --type generic has keys of any name"));
        }
        let repeated = self.keys.contains_key(&key) || self.input.as_ref() == Some(&key);
        if repeated {
            return Err(Failure::usage(format!(
                "expected one source for {key}, got two"
            )));
        }
        if source == "-" {
            if let Some(other) = self.input.replace(key) {
                return Err(
                    Failure::usage("expected one key on standard input, got two").hint(format!(
                        "hand {other} over first, the other with farrier provider set"
                    )),
                );
            }
            return Ok(());
        }
        let source: SecretRef = source
            .parse()
            .map_err(|error: farrier_secrets::RefError| Failure::usage(error.to_string()))?;
        self.keys.extend([(key, from_root(source))]);
        Ok(())
    }

    /// Whether there is anything.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.input.is_none()
    }

    /// Whether it speaks of this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key) || self.input.as_ref().is_some_and(|name| name.as_str() == key)
    }

    /// Reads standard input, if a key comes there, and puts it away.
    pub(super) fn keep(
        mut self,
        provider: &ProviderName,
        profile: &Profile,
        (place, context): (KeepIn, &Context<'_>),
    ) -> Result<BTreeMap<KeyName, SecretRef>, Failure> {
        let Some(key) = self.input.take() else {
            return Ok(self.keys);
        };
        let secret = from_input(&key, context)?;
        let begins = profile.key(key.as_str()).map(|key| key.begins.as_slice());
        let begins = begins.unwrap_or_default();
        let usual = |beginning: &String| secret.expose().starts_with(beginning.as_str());
        if !begins.is_empty() && !begins.iter().any(usual) {
            let title = &profile.title;
            context.notices.warn(&format!(
                "keys of {title} usually begin with {}; this one does not",
                begins.join(" or ")
            ));
        }
        let reference = match place {
            KeepIn::File => {
                let folder = folder(context)?;
                let kept = folder.keep(provider, &key, &secret);
                kept.map_err(|error| Failure::internal("cannot keep the key", &error))?
            }
            KeepIn::Keyring => {
                let account: Account = format!("{provider}.{key}").parse().map_err(
                    |error: farrier_secrets::NameError| Failure::usage(error.to_string()),
                )?;
                let kept = secret.keep_in_keyring(&account);
                kept.map_err(|error| {
                    Failure::internal("cannot put the key into the keyring", &error)
                        .hint("--keep-in file needs none")
                })?;
                SecretRef::Keyring { account }
            }
        };
        self.keys.extend([(key, reference)]);
        Ok(self.keys)
    }
}

/// Where keys are kept that were handed over.
pub(super) fn folder(context: &Context<'_>) -> Result<Folder, Failure> {
    let directory = context.env.secrets_dir();
    let directory = directory.ok_or_else(|| Failure::user(config::NO_STATE))?;
    Ok(Folder::at(directory))
}

/// A gateway may run elsewhere.
fn from_root(source: SecretRef) -> SecretRef {
    match source {
        SecretRef::File { path } => SecretRef::File {
            path: std::path::absolute(&path).unwrap_or_else(|_| Path::new("/").join(path)),
        },
        elsewhere => elsewhere,
    }
}

fn from_input(key: &KeyName, context: &Context<'_>) -> Result<Secret, Failure> {
    let stdin = io::stdin();
    let terminal = stdin.is_terminal();
    let read = if terminal {
        context.notices.say(&format!(
            "{key}: paste it, then Enter and Ctrl-D; it is not shown"
        ));
        unseen(|| Secret::read(stdin.lock()))
    } else {
        Secret::read(stdin.lock())
    };
    read.map_err(|error| {
        Failure::internal(format!("cannot take {key} from standard input"), &error)
    })
}

/// Has a terminal not show what is typed meanwhile.
fn unseen<T>(read: impl FnOnce() -> T) -> T {
    let stdin = io::stdin();
    let Ok(before) = tcgetattr(&stdin) else {
        return read();
    };
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO);
    // A terminal that will not is one that shows; what is typed is the user's own.
    let _hidden_or_not = tcsetattr(&stdin, OptionalActions::Now, &quiet);
    let done = read();
    let _shown_again = tcsetattr(&stdin, OptionalActions::Now, &before);
    done
}
