//! `OpenClaw`.
//!
//! Flow: settings are read (`input`), the registry's effects for the route merged,
//! its `compat` fitted to the installed version (`versions`), and all of it written
//! down (`build`). Facts are from the configuration schemas and runs of the versions
//! in `versions.json`.

mod agents;
mod build;
mod chat_url;
mod input;
mod launch;
mod plugins;
mod sessions;
mod trial;
mod versions;

use std::path::Path;

use farrier_compat::facts::CHAT_COMPLETIONS;
use farrier_compat::registry::IncomingCompat;

use crate::configuration::{ConfigFile, Configuration, Content};
use crate::document::Document;
use crate::route::{self, MESSAGES, RESPONSES, is_managed};
use crate::settings::{Mistake, Mistakes, Reading, Setting};
use crate::transcript::{Transcript, TranscriptError};
use crate::{Devices, Harness, Health, Launch, NoVersion, Place, Request, Task, Trial};

use build::Parts;
use input::{Input, RouteBounds};
use versions::Version;

/// `OpenClaw`: see the module.
#[derive(Debug)]
pub struct OpenClaw;

/// Of the APIs that every version knows, those that a gateway serves.
const APIS: &[&str] = &[CHAT_COMPLETIONS, RESPONSES, MESSAGES];

/// The value that is there stays: it is filled where the gateway starts.
const SEEDS: &[&str] = &["gateway.auth.token"];

impl Harness for OpenClaw {
    fn name(&self) -> &'static str {
        "openclaw"
    }

    fn agent(&self) -> Option<&'static str> {
        Some("openclaw")
    }

    fn about(&self) -> &'static str {
        "Write OpenClaw's openclaw.json for a route"
    }

    fn config_dir(&self) -> Option<&'static str> {
        Some(".openclaw")
    }

    fn settings(&self) -> &'static [&'static Setting] {
        input::SETTINGS
    }

    fn version(&self, package: &Path) -> Result<String, NoVersion> {
        launch::installed_version(package)
    }

    fn config(&self, request: &Request<'_>) -> Result<Configuration, Mistakes> {
        route::check(request.route)?;
        let client = &request.route.client;
        if !APIS.contains(&client.inference_api.as_str()) {
            let (wanted, got) = (APIS.join(" or "), &client.inference_api);
            return Err(Mistakes(vec![Mistake {
                from: "the API".to_owned(),
                message: format!("expected {wanted}, got {got:?}"),
            }]));
        }
        let bounds = RouteBounds {
            provider_key: &client.provider_key,
            is_managed: is_managed(&client.base_url),
        };
        let version = match request.version {
            Some(name) => Version::named(name).map_err(|error| one("the version", &error))?,
            None => Version::newest(),
        };
        let (input, mut notes) = Input::read(Reading::new(request.look), bounds)?;
        notes.extend(version_note(request.version, &version));
        notes.extend(search_note(&input, &version));

        let incoming = input.compat.as_ref();
        let incoming = IncomingCompat {
            from: incoming.map_or("compat", |(from, _)| from),
            text: incoming.map_or("{}", |(_, text)| text),
        };
        let effects = request
            .registry
            .openclaw_effects(request.route, incoming, input.disclosure)
            .map_err(|error| one("the manifests", &error))?;
        let fitted = version.fit_compat(&effects.compat);
        let (mut compat, mut left_out) = fitted.map_err(|message| {
            Mistakes(vec![Mistake {
                from: incoming.from.to_owned(),
                message,
            }])
        })?;
        streams_usage(&client.provider_key, &mut compat);

        let staged = input.plugins.as_deref();
        let (plugins, left_aside) = plugins::loaded(&effects.plugins, staged, &version);
        notes.extend(left_aside);
        let parts = Parts {
            input: &input,
            route: request.route,
            effects: &effects,
            compat: &compat,
            plugins: &plugins,
            version: &version,
        };
        let (document, unknown) = build::configuration(&parts);
        left_out.extend(unknown);
        if !left_out.is_empty() {
            let (name, left_out) = (&version.name, left_out.join(", "));
            notes.push(format!(
                "left out, as OpenClaw {name} does not know it: {left_out}"
            ));
        }
        Ok(Configuration {
            files: vec![ConfigFile {
                name: "openclaw.json",
                content: Content::Json(document),
                seeds: SEEDS,
                refused: version.traits.refuses(),
            }],
            notes,
        })
    }

    fn trial(&self, package: &Path) -> Option<Trial> {
        Some(trial::trial(package))
    }

    fn launch(&self, task: &Task<'_>, place: &Place<'_>) -> Option<Launch> {
        Some(launch::launch(task, place))
    }

    fn health(&self, port: u16) -> Option<Health> {
        Some(launch::health(port))
    }

    fn transcript(
        &self,
        home: &Path,
        session: Option<&str>,
    ) -> Result<Transcript, TranscriptError> {
        sessions::read(home, session)
    }

    fn devices(&self) -> Option<Devices> {
        Some(launch::DEVICES)
    }
}

/// A local server tells how much was used only where it is asked to.
fn streams_usage(provider_key: &str, compat: &mut Vec<(String, Document)>) {
    let key = "supportsUsageInStreaming";
    let is_ollama = ["ollama", "ollama-local"].contains(&provider_key);
    if is_ollama && !compat.iter().any(|(there, _)| there == key) {
        compat.push((key.to_owned(), true.into()));
    }
}

fn version_note(given: Option<&str>, version: &Version) -> Option<String> {
    let name = &version.name;
    match given {
        None => Some(format!(
            "no installed OpenClaw was found; this is for {name}, the newest that is known"
        )),
        Some(_) if version.is_beyond => {
            let known = Version::newest().name;
            Some(format!(
                "OpenClaw {name} is newer than {known}, the newest that is known; \
                 `openclaw config validate` says whether it takes this"
            ))
        }
        Some(_) => None,
    }
}

fn search_note(input: &Input, version: &Version) -> Option<String> {
    let service = input.web_search?.provider;
    let is_apart = version
        .traits
        .search_apart
        .iter()
        .any(|apart| apart == service);
    is_apart.then(|| {
        let name = &version.name;
        format!(
            "OpenClaw {name} refuses the search service {service} until its plugin is installed, \
             which does not come with it"
        )
    })
}

fn one(from: &str, error: &dyn std::error::Error) -> Mistakes {
    Mistakes(vec![Mistake {
        from: from.to_owned(),
        message: error.to_string(),
    }])
}
