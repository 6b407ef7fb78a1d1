//! Hermes.
//!
//! Flow: settings are read (`input`), the registry's effects for the route merged
//! (`effects`), and `config.yaml` and `.env` written down (`build`). Facts are from
//! hermes-agent 0.19.0, its package and runs of it.
//!
//! Hermes writes and migrates its own `config.yaml` too; what it added stays.

mod build;
mod effects;
mod input;
mod launch;
mod sessions;

use std::path::Path;

use crate::configuration::{ConfigFile, Configuration, Content};
use crate::route;
use crate::settings::{Mistake, Mistakes, Reading, Setting};
use crate::transcript::{Transcript, TranscriptError};
use crate::{Devices, Harness, Health, Launch, NoVersion, Place, Request, Task, Trial};

use build::Parts;
use input::Input;

/// Hermes: see the module.
#[derive(Debug)]
pub struct Hermes;

/// Hermes raises it when it has migrated the file.
const SEEDS: &[&str] = &["_config_version"];

impl Harness for Hermes {
    fn name(&self) -> &'static str {
        "hermes"
    }

    fn agent(&self) -> Option<&'static str> {
        Some("hermes")
    }

    fn about(&self) -> &'static str {
        "Write Hermes' config.yaml and .env for a route"
    }

    fn config_dir(&self) -> Option<&'static str> {
        Some(".hermes")
    }

    fn settings(&self) -> &'static [&'static Setting] {
        input::SETTINGS
    }

    fn version(&self, package: &Path) -> Result<String, NoVersion> {
        launch::installed_version(package)
    }

    fn config(&self, request: &Request<'_>) -> Result<Configuration, Mistakes> {
        route::check(request.route)?;
        let api_mode = build::api_mode(&request.route.client.inference_api).map_err(|message| {
            Mistakes(vec![Mistake {
                from: "the API".to_owned(),
                message,
            }])
        })?;
        let (input, mut notes) = Input::read(Reading::new(request.look))?;
        let effects = effects::merged(request.registry, request.route)?;
        let parts = Parts {
            input: &input,
            route: request.route,
            effects: &effects,
            api_mode: effects.api_mode.or(api_mode),
        };
        notes.push(
            "Hermes starts its API server only with API_SERVER_KEY in its environment".to_owned(),
        );
        Ok(Configuration {
            files: vec![
                ConfigFile {
                    name: "config.yaml",
                    content: Content::Yaml {
                        header: parts.header(),
                        document: parts.config(),
                    },
                    seeds: SEEDS,
                    refused: Vec::new(),
                },
                ConfigFile {
                    name: ".env",
                    content: Content::Env(parts.environment()),
                    seeds: &[],
                    refused: Vec::new(),
                },
            ],
            notes,
        })
    }

    fn trial(&self, _package: &Path) -> Option<Trial> {
        None
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
        None
    }
}
