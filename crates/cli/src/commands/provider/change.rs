//! `farrier provider add`, `set` and `remove`.
//!
//! A change is made by a gateway that runs, which answers when every request from then on is of the new generation; where
//! none runs, here. Other gateways of this user are told to read again.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use farrier_control::store::{Change, Store, StoredProvider};
use farrier_control::{CallError, Client, Mistake, Outcome, Reload};
use farrier_ledger::{Clock as _, SystemClock};
use farrier_secrets::{
    Credentials, Endpoint, Folder, KeyName, Profile, ProviderName, ProviderSpec, SecretRef,
};
use serde::Serialize;

use super::source::{Given, folder};
use super::{Add, How, Remove, Set, named};
use crate::commands::{Context, reload};
use crate::config;
use crate::failure::Failure;
use crate::runtime;

/// What a command has done.
#[derive(Debug, Serialize)]
struct Done {
    provider: String,
    done: &'static str,
    /// Each gateway that runs, and which of its generations serves now.
    gateways: Vec<Serves>,
}

#[derive(Debug, Serialize)]
struct Serves {
    config: String,
    generation: u64,
}

/// How long another command may take from keeping a key to telling the store of it.
const UNTOLD: Duration = Duration::from_secs(600);

// === the commands ===

pub(super) fn add(arguments: &Add, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let name = named(&arguments.name)?;
    let profile = profile(&arguments.kind)?;
    refuse_declared(&name, &arguments.how, context)?;
    if stored(&name, context)?.is_some() {
        return Err(Failure::user(format!(
            "expected a new name, got {name}, which is a provider already"
        ))
        .hint(format!("farrier provider set {name} changes it")));
    }
    let what = &arguments.what;
    check_base_url(what.base_url.as_deref(), profile)?;
    let given = Given::read(&what.credentials, profile)?;
    let missing = profile.keys.iter().find(|key| {
        let names = key.also.iter().chain([&key.name]);
        key.required && !names.into_iter().any(|name| given.has(name))
    });
    if let Some(key) = missing {
        let key = &key.name;
        return Err(
            Failure::usage(format!("expected --credential {key}=SOURCE, got none")).hint(format!(
                "such as --credential {key}=env:{key}, or {key}=- for standard input"
            )),
        );
    }
    let keys = given.keep(&name, profile, (what.keep_in, context))?;
    let provider = StoredProvider {
        name,
        kind: profile.kind.clone(),
        base_url: what.base_url.clone(),
        keys,
        added_unix_ms: 0,
        changed_unix_ms: 0,
    };
    make(
        &Change::Add(provider),
        BTreeMap::new(),
        (&arguments.how, "added"),
        context,
    )
}

pub(super) fn set(arguments: &Set, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let name = named(&arguments.name)?;
    refuse_declared(&name, &arguments.how, context)?;
    let before = stored(&name, context)?.ok_or_else(|| unknown(&name))?;
    let profile = profile(&before.kind)?;
    let what = &arguments.what;
    let given = Given::read(&what.credentials, profile)?;
    if given.is_empty() && what.base_url.is_none() {
        return Err(Failure::usage(
            "expected --credential or --base-url, got neither",
        ));
    }
    let base_url = what.base_url.clone().or_else(|| before.base_url.clone());
    check_base_url(base_url.as_deref(), profile)?;
    let mut keys = before.keys.clone();
    keys.extend(given.keep(&name, profile, (what.keep_in, context))?);
    let provider = StoredProvider {
        base_url,
        keys,
        ..before.clone()
    };
    make(
        &Change::Replace(provider),
        before.keys,
        (&arguments.how, "changed"),
        context,
    )
}

pub(super) fn remove(arguments: &Remove, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let name = named(&arguments.name)?;
    refuse_declared(&name, &arguments.how, context)?;
    let before = stored(&name, context)?.ok_or_else(|| unknown(&name))?;
    if !arguments.yes && !agreed(&name, context)? {
        return Err(Failure::user(format!("{name} is still there")));
    }
    make(
        &Change::Remove(name),
        before.keys,
        (&arguments.how, "removed"),
        context,
    )
}

fn agreed(name: &ProviderName, context: &Context<'_>) -> Result<bool, Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage(
            "expected --yes where nobody can be asked, got none",
        ));
    }
    let question = format!("remove {name}, and the keys that were handed over for it? [y/N]");
    context.notices.say(&question);
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    read.map_err(|error| Failure::internal("cannot read the answer", &error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

// === what is wrong before anything is done ===

fn profile(kind: &str) -> Result<&'static Profile, Failure> {
    Profile::named(kind).ok_or_else(|| {
        let known: Vec<&str> = Profile::all()
            .iter()
            .map(|known| known.kind.as_str())
            .collect();
        Failure::usage(format!("expected a type of provider, got {kind:?}"))
            .hint(format!("known are {}", known.join(", ")))
    })
}

fn check_base_url(base_url: Option<&str>, profile: &Profile) -> Result<(), Failure> {
    let Some(url) = base_url.or(profile.base_url.as_deref()) else {
        let kind = &profile.kind;
        return Err(Failure::usage(format!(
            "expected --base-url with --type {kind}, got none"
        )));
    };
    let endpoint: Result<Endpoint, _> = url.parse();
    endpoint
        .map(drop)
        .map_err(|error| Failure::usage(error.to_string()))
}

fn refuse_declared(name: &ProviderName, how: &How, context: &Context<'_>) -> Result<(), Failure> {
    let file = how.which.config.as_deref();
    match config::declared(file, context.env, name) {
        Some(declared) => Err(Failure::user(declared)),
        None => Ok(()),
    }
}

fn unknown(name: &ProviderName) -> Failure {
    Failure::user(format!(
        "expected the name of a stored provider, got {name}"
    ))
    .hint("farrier provider list shows them")
}

fn stored(name: &ProviderName, context: &Context<'_>) -> Result<Option<StoredProvider>, Failure> {
    let failed = |error| Failure::internal("cannot read the state", &error);
    let store = Store::open_existing(&directory(context)?).map_err(failed)?;
    store.map_or(Ok(None), |store| store.provider(name).map_err(failed))
}

fn directory(context: &Context<'_>) -> Result<PathBuf, Failure> {
    let directory = context.env.store_dir();
    directory.ok_or_else(|| Failure::user(config::NO_STATE))
}

// === the change ===

/// Has it made, and takes away what nobody is told of any more: on success the keys of before, else those of now.
fn make(
    change: &Change,
    before: BTreeMap<KeyName, SecretRef>,
    (how, done): (&How, &'static str),
    context: &Context<'_>,
) -> Result<ExitCode, Failure> {
    let made = served(change, how, context);
    let after = match change {
        Change::Add(provider) | Change::Replace(provider) => provider.keys.clone(),
        Change::Remove(_) => BTreeMap::new(),
    };
    // Whichever came of it, also where nobody could say: what the store names is kept.
    let used = stored(change.name(), context)?.map(|provider| provider.keys);
    let used: Vec<SecretRef> = used
        .into_iter()
        .flatten()
        .map(|(_, source)| source)
        .collect();
    let folder = folder(context)?;
    for (_, source) in before.into_iter().chain(after) {
        if !used.contains(&source)
            && let Err(error) = folder.forget(&source)
        {
            context.notices.warn(&config::with_causes(&error));
        }
    }
    sweep(&folder, context);
    let gateways = made?;
    let name = change.name();
    warn_of_broken(change, &gateways, context);
    let done = Done {
        provider: name.to_string(),
        done,
        gateways,
    };
    if how.json {
        context.output.json(&done)?;
    } else {
        context.output.line(&done.shown())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes away keys of commands that were ended before they could tell the store.
fn sweep(folder: &Folder, context: &Context<'_>) {
    let swept = || -> Result<usize, Box<dyn Error>> {
        let Some(directory) = context.env.store_dir() else {
            return Ok(0);
        };
        let Some(store) = Store::open_existing(&directory)? else {
            return Ok(0);
        };
        let providers = store.providers()?.into_iter();
        let used: Vec<SecretRef> = providers.flat_map(|one| one.keys.into_values()).collect();
        let now = UNIX_EPOCH + Duration::from_millis(SystemClock.unix_millis());
        Ok(folder.sweep(&used, now, UNTOLD)?)
    };
    match swept() {
        Ok(0) => {}
        Ok(swept) => context.notices.say(&format!(
            "key files that no provider refers to, taken away: {swept}"
        )),
        Err(error) => context.notices.warn(&config::with_causes(&*error)),
    }
}

fn served(change: &Change, how: &How, context: &Context<'_>) -> Result<Vec<Serves>, Failure> {
    let mut clients = gateways(how, context).into_iter();
    runtime::run(async {
        let mut serve = Vec::new();
        for client in clients.by_ref() {
            match client.change(change).await {
                Ok(reload) => {
                    serve.push(taken(reload, context)?);
                    break;
                }
                Err(CallError::NoGateway { .. }) => {}
                Err(error) => return Err(Failure::user(error.to_string())),
            }
        }
        if serve.is_empty() {
            change_alone(change, context)?;
        }
        for client in clients {
            match client.reload().await {
                Ok(reload) if reload.result == Outcome::Taken => serve.push(Serves::of(reload)),
                Err(CallError::NoGateway { .. }) => {}
                Ok(reload) => context.notices.warn(&format!(
                    "the gateway of {} refuses its configuration and serves as before",
                    reload.config
                )),
                Err(error) => context.notices.warn(&error.to_string()),
            }
        }
        Ok(serve)
    })
}

/// Where no gateway runs.
fn change_alone(change: &Change, context: &Context<'_>) -> Result<(), Failure> {
    let failed = |error| Failure::internal("cannot open the state", &error);
    let mut store = Store::open(&directory(context)?).map_err(failed)?;
    let change = change.clone().at(SystemClock.unix_millis());
    match store.make(&change) {
        Ok(_undo) => Ok(()),
        Err(error) => Err(Failure::user(config::with_causes(&error))),
    }
}

fn taken(reload: Reload, context: &Context<'_>) -> Result<Serves, Failure> {
    let file = reload.config.clone();
    let say = |mistake: &Mistake| context.notices.say(&reload::shown(mistake, &file));
    if reload.result == Outcome::Taken {
        return Ok(Serves::of(reload));
    }
    reload.mistakes.iter().for_each(say);
    let generation = reload.generation;
    Err(
        Failure::of_mistakes(reload.mistakes.len(), file.as_ref()).hint(format!(
            "the change is taken back: generation {generation} still serves"
        )),
    )
}

/// Every gateway that may run, the one of this configuration first.
fn gateways(how: &How, context: &Context<'_>) -> Vec<Client> {
    if let Some(socket) = &how.which.socket {
        return vec![Client::at(socket)];
    }
    let own = config::locate(how.which.config.as_deref(), context.env);
    let own = own.map_or_else(
        |_| Vec::new(),
        |file| config::control_sockets(&file, context.env),
    );
    let mut sockets: Vec<PathBuf> = own.into_iter().filter(|socket| socket.exists()).collect();
    for other in reload::others(context).into_iter().map(PathBuf::from) {
        if !sockets.contains(&other) {
            sockets.push(other);
        }
    }
    sockets.into_iter().map(Client::at).collect()
}

/// A key that cannot be fetched here and now may be there for the gateway that is started later.
fn warn_of_broken(change: &Change, gateways: &[Serves], context: &Context<'_>) {
    let (Change::Add(provider) | Change::Replace(provider)) = change else {
        return;
    };
    let Some(profile) = Profile::named(&provider.kind).filter(|_| gateways.is_empty()) else {
        return;
    };
    let spec = ProviderSpec {
        name: provider.name.clone(),
        profile,
        base_url: provider.base_url.clone(),
        keys: provider.keys.clone(),
    };
    let fetched = Credentials::fetch([spec], |source| config::fetched(source, context.env));
    for broken in fetched.broken() {
        let (key, reason) = (broken.key, broken.reason);
        context
            .notices
            .warn(&format!("{key} cannot be fetched here: {reason}"));
    }
}

impl Serves {
    fn of(reload: Reload) -> Self {
        Self {
            config: reload.config,
            generation: reload.generation,
        }
    }
}

impl Done {
    fn shown(&self) -> String {
        let Self {
            provider,
            done,
            gateways,
        } = self;
        match gateways.as_slice() {
            [] => format!("{provider}: {done}; no gateway runs"),
            some => {
                let some: Vec<String> = some
                    .iter()
                    .map(|serves| {
                        format!(
                            "{} serves as generation {}",
                            serves.config, serves.generation
                        )
                    })
                    .collect();
                format!("{provider}: {done}; {}", some.join(", "))
            }
        }
    }
}
