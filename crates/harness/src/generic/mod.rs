//! Any client of the OpenAI or Anthropic kind: variables that its library reads.
//!
//! No harness, no files of its own: what is written are lines that a shell, a
//! container or a dotenv reader takes.

use std::path::Path;

use farrier_compat::facts::CHAT_COMPLETIONS;

use crate::configuration::{ConfigFile, Configuration, Content};
use crate::env_lines;
use crate::gateway_key;
use crate::route::{self, MESSAGES, RESPONSES};
use crate::settings::{Mistakes, Reading, Setting};
use crate::transcript::{Transcript, TranscriptError};
use crate::{Devices, Harness, Health, Launch, NoVersion, Place, Request, Task, Trial};

/// A client that is configured by its environment: see the module.
#[derive(Debug)]
pub struct Environment;

static SETTINGS: &[&Setting] = &[&gateway_key::API_KEY];

impl Harness for Environment {
    fn name(&self) -> &'static str {
        "env"
    }

    fn agent(&self) -> Option<&'static str> {
        None
    }

    fn about(&self) -> &'static str {
        "Print the variables that an OpenAI or Anthropic client reads, for a route"
    }

    fn config_dir(&self) -> Option<&'static str> {
        None
    }

    fn settings(&self) -> &'static [&'static Setting] {
        SETTINGS
    }

    fn version(&self, package: &Path) -> Result<String, NoVersion> {
        Err(NoVersion::NotThePackage {
            path: package.to_owned(),
            expected: "of a harness",
            got: "a client without one".to_owned(),
        })
    }

    fn config(&self, request: &Request<'_>) -> Result<Configuration, Mistakes> {
        route::check(request.route)?;
        let mut reading = Reading::new(request.look);
        let client = &request.route.client;
        let key = gateway_key::read(&mut reading);
        let names = match client.inference_api.as_str() {
            CHAT_COMPLETIONS | RESPONSES => ["OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"],
            MESSAGES => [
                "ANTHROPIC_BASE_URL",
                "ANTHROPIC_AUTH_TOKEN",
                "ANTHROPIC_MODEL",
            ],
            other => {
                let wanted = format!("{CHAT_COMPLETIONS}, {RESPONSES} or {MESSAGES}");
                reading.wrong("the API", format!("expected {wanted}, got {other:?}"));
                [""; 3]
            }
        };
        let values = [&client.base_url, &key, &client.model];
        for value in values {
            if !env_lines::can_hold(value) {
                reading.wrong("the route", "expected values without quotes or line ends");
            }
        }
        let lines = names.iter().zip(values);
        let lines = lines.map(|(name, value)| ((*name).to_owned(), value.clone()));
        let content = Content::Env(lines.collect());
        let (content, notes) = reading.finish(content)?;
        Ok(Configuration {
            files: vec![ConfigFile {
                name: "farrier.env",
                content,
                seeds: &[],
                refused: Vec::new(),
            }],
            notes,
        })
    }

    fn trial(&self, _package: &Path) -> Option<Trial> {
        None
    }

    fn launch(&self, _task: &Task<'_>, _place: &Place<'_>) -> Option<Launch> {
        None
    }

    fn health(&self, _port: u16) -> Option<Health> {
        None
    }

    fn transcript(
        &self,
        _home: &Path,
        _session: Option<&str>,
    ) -> Result<Transcript, TranscriptError> {
        Err(TranscriptError::KeepsNone)
    }

    fn devices(&self) -> Option<Devices> {
        None
    }
}
