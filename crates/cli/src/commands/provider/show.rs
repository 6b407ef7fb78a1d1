//! `farrier provider list`, `show` and `types`.

use std::process::ExitCode;

use farrier_control::store::Store;
use farrier_control::{CallError, Client, Origin, Provider, Providers};
use farrier_secrets::{Profile, Sent};
use serde_json::{Value, json};

use super::{How, List, Show, Types, named};
use crate::commands::Context;
use crate::config::{self, Known, NoFile, Overrides};
use crate::failure::Failure;
use crate::runtime;

pub(super) fn list(arguments: &List, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let all = all(&arguments.how, context)?;
    if arguments.how.json {
        context.output.json(&all)?;
        return Ok(ExitCode::SUCCESS);
    }
    if all.providers.is_empty() {
        context
            .notices
            .say("no providers; farrier provider add adds one");
    }
    let widest = all
        .providers
        .iter()
        .map(|provider| provider.name.len())
        .max();
    let widest = widest.unwrap_or_default();
    for provider in &all.providers {
        let state = if provider.broken.is_empty() {
            ""
        } else {
            ", cannot be used: see show"
        };
        context.output.line(&format!(
            "{:widest$}  {:10}  {}  ({}{state})",
            provider.name,
            provider.kind,
            provider.base_url.as_deref().unwrap_or("-"),
            origin(provider),
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn show(arguments: &Show, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let name = named(&arguments.name)?;
    let all = all(&arguments.how, context)?;
    let provider = all
        .providers
        .iter()
        .find(|provider| provider.name == name.as_str());
    let provider = provider.ok_or_else(|| {
        Failure::user(format!("expected the name of a provider, got {name}"))
            .hint("farrier provider list shows them")
    })?;
    if arguments.how.json {
        context.output.json(provider)?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |word: &str, fact: &str| context.output.line(&format!("  {word:10}{fact}"));
    context.output.line(&provider.name)?;
    row("type", &provider.kind)?;
    row("base URL", provider.base_url.as_deref().unwrap_or("-"))?;
    row("origin", &origin(provider))?;
    for (key, source) in &provider.keys {
        row("key", &format!("{key} from {source}"))?;
        if let Some(reason) = provider.broken.get(key) {
            row("", &format!("cannot be used: {reason}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn types(arguments: &Types, context: &Context<'_>) -> Result<ExitCode, Failure> {
    if arguments.json {
        let all: Vec<Value> = Profile::all().iter().map(as_json).collect();
        context.output.json(&json!({ "types": all }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for profile in Profile::all() {
        let keys: Vec<&str> = profile.keys.iter().map(|key| key.name.as_str()).collect();
        let keys = if profile.any_key {
            "any key".to_owned()
        } else {
            keys.join(", ")
        };
        let base_url = profile.base_url.as_deref().unwrap_or("needs --base-url");
        let (kind, title) = (&profile.kind, &profile.title);
        context
            .output
            .line(&format!("{kind:11} {title}: {base_url}; {keys}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(profile: &Profile) -> Value {
    let keys = profile.keys.iter().map(|key| {
        let sent = match &key.sent {
            Sent::Header { name, prefix } => json!({"header": name, "prefix": prefix}),
            Sent::PathSegment { prefix } => json!({"path_segment": prefix}),
        };
        json!({"name": key.name, "also": key.also, "required": key.required, "sent": sent})
    });
    let endpoints = profile.endpoints.iter();
    json!({
        "type": profile.kind,
        "title": profile.title,
        "api": profile.api.map(farrier_secrets::Api::as_str),
        "base_url": profile.base_url,
        "keys": keys.collect::<Vec<Value>>(),
        "any_key": profile.any_key,
        "endpoints": endpoints.map(|place| json!({"url": place.url, "keys": place.keys})).collect::<Vec<Value>>(),
        "sources": profile.sources,
    })
}

fn origin(provider: &Provider) -> String {
    match (provider.origin, &provider.file, provider.line) {
        (Origin::Declared, Some(file), Some(line)) => format!("declared at {file}:{line}"),
        (Origin::Declared, ..) => "declared".to_owned(),
        (Origin::Stored, ..) => "stored".to_owned(),
    }
}

/// What the gateway knows that runs with this configuration, else what is known here.
fn all(how: &How, context: &Context<'_>) -> Result<Providers, Failure> {
    if let Some(client) = own_gateway(how, context) {
        match runtime::run(async { Ok(client.providers().await) })? {
            Ok(providers) => return Ok(providers),
            Err(CallError::NoGateway { .. }) if how.which.socket.is_none() => {}
            Err(error) => return Err(Failure::user(error.to_string())),
        }
    }
    let (known, file) = known(how, context)?;
    let file = file.as_deref();
    let mut providers: Vec<Provider> = known
        .iter()
        .map(|known| known.told(file, context.env))
        .collect();
    providers.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Providers { providers })
}

fn own_gateway(how: &How, context: &Context<'_>) -> Option<Client> {
    if let Some(socket) = &how.which.socket {
        return Some(Client::at(socket));
    }
    let file = config::locate(how.which.config.as_deref(), context.env).ok()?;
    let sockets = config::control_sockets(&file, context.env);
    let there = sockets.into_iter().find(|socket| socket.exists());
    there.map(Client::at)
}

/// Of the configuration, if there is one, and of the store; and the configuration's path.
pub(super) fn known(
    how: &How,
    context: &Context<'_>,
) -> Result<(Vec<Known>, Option<String>), Failure> {
    let file = how.which.config.as_deref();
    match config::examine(file, context.env, &Overrides::default()) {
        Ok(examined) => {
            let path = config::absolute(&examined.file).display().to_string();
            Ok((examined.known().to_vec(), Some(path)))
        }
        Err(NoFile::Nowhere(_)) => Ok((alone(context)?, None)),
        Err(unreadable) => Err(unreadable.into()),
    }
}

/// Without a configuration.
fn alone(context: &Context<'_>) -> Result<Vec<Known>, Failure> {
    let Some(directory) = context.env.store_dir() else {
        return Ok(Vec::new());
    };
    let read = Store::open_existing(&directory)
        .and_then(|store| store.map_or_else(|| Ok(Vec::new()), |store| store.providers()));
    let stored = read.map_err(|error| Failure::internal("cannot read the state", &error))?;
    Ok(stored.into_iter().filter_map(Known::stored).collect())
}
