//! One run of a case: model, gateway, configuration, harness, and what became of it.
//!
//! ```text
//! persona ◀── gateway ◀── (door ◀──) harness, in an empty home, configured as `farrier config` does
//!    │ log                              │ its own record of the session
//!    └──────────────▶ faults ◀──────────┘
//! ```
//!
//! Everything is started here and ends here. The key of the model is made for the run and the gateway alone has it; a
//! harness that shows it, or has it in a file, fails.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use farrier_compat::facts::{
    CHAT_COMPLETIONS, ClientFacts, Facts, MANAGED_BASE_URL, MANAGED_PROVIDER_KEY, UpstreamFacts,
};
use farrier_compat::registry::{LoadOptions, Registry, shipped_sources};
use farrier_gateway::config::{Client, Credential, Provider, PublicRoute, Route};
use farrier_harness::settings::{Given, Setting};
use farrier_harness::stage::{self, Sources};
use farrier_harness::transcript::Transcript;
use farrier_harness::{Edited, Place, Request, Task};
use farrier_secrets::Secret;
use farrier_sim::{Bearer, Log, Options, Sim};
use serde::Serialize;
use tokio::process::Command;
use tokio::time::Instant;

use super::case::{Case, Kind, Wrong};
use super::child::{self, Budget};
use super::door::Door;
use super::judge::{self, Fault, Turn};
use super::scripted;
use crate::failure::Failure;
use crate::harness::Installed;
use crate::mask::Masker;
use crate::stage::{Front, Setup, base_url, play};

/// What stands between harness and model.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// Nothing.
    Straight,
    /// Farrier, the manifest switched off.
    Without,
    /// Farrier.
    With,
    /// Farrier, and a model of a real provider.
    Live,
}

/// What became of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) way: Way,
    /// Whether it went as the case says.
    pub(crate) as_expected: bool,
    pub(crate) faults: Vec<Fault>,
    /// As the harness recorded them.
    pub(crate) turns: Vec<Turn>,
    /// Requests that reached the model, where it is played.
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
}

/// What runs share.
#[derive(Debug)]
pub(crate) struct Kit<'a> {
    pub(crate) case: &'a Case,
    /// None for the scripted client.
    pub(crate) installed: Option<Installed>,
    pub(crate) budget: Budget,
}

/// The model of a real provider, and its key.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) base_url: String,
    pub(crate) model: String,
    pub(crate) key: Secret,
}

/// How the harness is told to reach the model.
#[derive(Debug)]
struct Reach<'a> {
    base_url: String,
    door: Option<&'a Door>,
    registry: Arc<Registry>,
    upstream_model: String,
}

/// What the harness calls itself by. It opens nothing but the gateway of one run, on loopback.
const CALLER: &str = "farrier:resolve:env:FARRIER_VERIFY";
/// Where it is said that the gateway is on this machine; which port is nobody's business.
const ON_LOOPBACK: &str = "http://127.0.0.1/v1";
const PROVIDER: &str = "model";

impl Way {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Straight => "straight",
            Self::Without => "without",
            Self::With => "with",
            Self::Live => "live",
        }
    }

    /// How it has to fail, if it has to.
    fn wrong(self, case: &Case) -> Option<&Wrong> {
        match self {
            Self::Straight => case.sheet.straight.as_ref(),
            Self::Without => case.sheet.without.as_ref(),
            Self::With | Self::Live => None,
        }
    }
}

/// Plays a case once.
///
/// # Errors
/// What the run needs cannot be had. What the harness makes of it is no error.
pub(crate) async fn run(
    kit: &Kit<'_>,
    way: Way,
    upstream: Option<Upstream>,
) -> Result<Run, Failure> {
    let began = Instant::now();
    let key = match &upstream {
        Some(upstream) => copy(&upstream.key)?,
        None => fresh_key()?,
    };
    let masker = Masker::new(vec![copy(&key)?]);
    let home = tempfile::tempdir()
        .map_err(|error| Failure::internal("cannot make a home for the harness", &error))?;
    let sim = match upstream {
        Some(_) => None,
        None => Some(persona(kit.case, way, &key).await?),
    };
    let log = sim.as_ref().map(Sim::log);
    let session = Session {
        kit,
        way,
        home: home.path(),
        log: log.as_ref(),
        masker: &masker,
    };
    let played = match (&sim, way) {
        (Some(sim), Way::Straight) => session.straight(&base_url(sim.addr())).await,
        _ => {
            let provider = provider(kit.case, sim.as_ref(), upstream.as_ref(), key)?;
            session.through(provider, upstream.as_ref()).await
        }
    };
    if let Some(sim) = sim {
        sim.stop().await;
    }
    let Played { mut faults, turns } = played?;
    faults.extend(leaks(&masker, home.path()));
    let as_expected = match way.wrong(kit.case) {
        Some(wrong) => wrong.is_among(&faults),
        None => faults.is_empty(),
    };
    Ok(Run {
        way,
        as_expected,
        faults: faults.iter().map(|fault| fault.masked(&masker)).collect(),
        turns: turns.iter().map(|turn| turn.masked(&masker)).collect(),
        requests: log.map_or(0, |log| log.requests()),
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// The persona of a case. Nobody but the gateway has its key, and straight to it nobody needs one.
async fn persona(case: &Case, way: Way, key: &Secret) -> Result<Sim, Failure> {
    let bearer = (way != Way::Straight).then(|| Bearer::new(key.expose()));
    let options = Options {
        bearer,
        ..case.options()
    };
    play(case.persona()?, options).await
}

fn provider(
    case: &Case,
    sim: Option<&Sim>,
    upstream: Option<&Upstream>,
    key: Secret,
) -> Result<Provider, Failure> {
    let mut provider = match (sim, upstream) {
        (_, Some(upstream)) => Provider::new(PROVIDER, &upstream.base_url),
        (Some(sim), None) => match &case.sheet.route.upstream_host {
            None => Provider::new(PROVIDER, base_url(sim.addr())),
            Some(host) => Provider {
                address: Some(sim.addr()),
                ..Provider::new(PROVIDER, format!("http://{host}/v1"))
            },
        },
        (None, None) => return Err(Failure::user("expected a model to play, got none")),
    };
    provider.credential = Some(Credential::bearer(key));
    Ok(provider)
}

/// What a session came to.
#[derive(Debug, Default)]
struct Played {
    faults: Vec<Fault>,
    turns: Vec<Turn>,
}

/// A harness at work.
#[derive(Clone, Copy, Debug)]
struct Session<'a> {
    kit: &'a Kit<'a>,
    way: Way,
    home: &'a Path,
    log: Option<&'a Log>,
    masker: &'a Masker,
}

impl Session<'_> {
    async fn straight(&self, url: &str) -> Result<Played, Failure> {
        let none = Registry::load(&[], &LoadOptions::default());
        let none =
            none.map_err(|error| Failure::internal("cannot do without manifests", &error))?;
        self.converse(&Reach {
            base_url: url.to_owned(),
            door: None,
            registry: Arc::new(none),
            upstream_model: self.upstream_model(None)?,
        })
        .await
    }

    async fn through(
        &self,
        provider: Provider,
        upstream: Option<&Upstream>,
    ) -> Result<Played, Failure> {
        let case = self.kit.case;
        let registry = Arc::new(self.registry()?);
        let upstream_model = self.upstream_model(upstream)?;
        let managed = case.sheet.route.managed;
        let public = if managed {
            MANAGED_BASE_URL
        } else {
            ON_LOOPBACK
        };
        let front = Front::build(Setup {
            registry: Arc::clone(&registry),
            provider,
            route: Route {
                upstream_model: Some(upstream_model.clone()),
                public: Some(PublicRoute {
                    provider_key: MANAGED_PROVIDER_KEY.to_owned(),
                    base_url: public.to_owned(),
                }),
                ..Route::new(&case.sheet.route.model, PROVIDER)
            },
            clients: self.clients()?,
        });
        let front = front.await?;
        let door = match managed {
            true => Some(Door::open(front.addr(), self.home).await?),
            false => None,
        };
        let reach = Reach {
            base_url: match managed {
                true => MANAGED_BASE_URL.to_owned(),
                false => base_url(front.addr()),
            },
            door: door.as_ref(),
            registry,
            upstream_model,
        };
        let (played, _upkeep) = front.during(self.converse(&reach)).await;
        played
    }

    fn registry(&self) -> Result<Registry, Failure> {
        let cannot = |error: &dyn std::error::Error| {
            Failure::internal("cannot load the shipped manifests", error)
        };
        let shipped = Registry::shipped().map_err(|error| cannot(&error))?;
        let case = self.kit.case;
        let mut switched_off = case.sheet.also_off.clone();
        if self.way == Way::Without {
            switched_off.push(case.manifest().to_owned());
        }
        let options = LoadOptions {
            switched_off: &switched_off,
            ..LoadOptions::default()
        };
        shipped.with(&[], &options).map_err(|error| cannot(&error))
    }

    fn upstream_model(&self, upstream: Option<&Upstream>) -> Result<String, Failure> {
        let case = self.kit.case;
        if let Some(upstream) = upstream {
            return Ok(upstream.model.clone());
        }
        let persona = case.persona()?;
        let given = case.sheet.route.upstream_model.clone();
        Ok(given.unwrap_or_else(|| persona.models().first().cloned().unwrap_or_default()))
    }

    /// The harness, known by what its configuration has in place of a key.
    fn clients(&self) -> Result<Vec<Client>, Failure> {
        let Some(installed) = &self.kit.installed else {
            return Ok(Vec::new());
        };
        let key = Secret::new(CALLER.to_owned())
            .map_err(|error| Failure::internal("cannot name the harness", &error))?;
        Ok(vec![Client {
            agent: installed.harness.agent().map(str::to_owned),
            ..Client::new("harness", key)
        }])
    }

    /// Has every prompt of the case answered, or goes on until something is wrong.
    async fn converse(&self, reach: &Reach<'_>) -> Result<Played, Failure> {
        let case = self.kit.case;
        if let Some(installed) = &self.kit.installed {
            self.configure(installed, reach)?;
        }
        let mut played = Played::default();
        let mut session = None;
        for (turn, prompt) in (1..).zip(&case.sheet.prompts) {
            let before = self.log.map_or(0, |log| log.entries().len());
            let (transcript, mut faults) = match &self.kit.installed {
                Some(installed) => {
                    self.take_turn(installed, reach, session.as_deref(), prompt)
                        .await?
                }
                None => (
                    Some(scripted::work(case, &reach.base_url, prompt).await?),
                    Vec::new(),
                ),
            };
            let heard = self.log.map(Log::entries).unwrap_or_default();
            faults.extend(judge::requests(heard.get(before..).unwrap_or_default()));
            if let Some(transcript) = &transcript {
                faults.extend(match self.way {
                    Way::Live => judge::live(transcript, &case.sheet.expect),
                    _ => judge::hermetic(transcript, &case.sheet.expect, turn),
                });
                played.turns.push(Turn::last_of(transcript));
                session = Some(transcript.session.clone());
            }
            if !faults.is_empty() {
                played.faults = faults;
                break;
            }
        }
        Ok(played)
    }

    /// Writes the harness's configuration, as `farrier config` does.
    fn configure(&self, installed: &Installed, reach: &Reach<'_>) -> Result<(), Failure> {
        let harness = installed.harness;
        let cannot = |error: &dyn std::error::Error| {
            Failure::user(format!("{} cannot be configured", harness.name())).caused_by(error)
        };
        let settings = &self.kit.case.sheet.harness.settings;
        let plugins = self.staged(reach)?;
        let proxy = reach.door.map(Door::address);
        let look = |setting: &'static Setting| {
            let text = match (setting.name, proxy) {
                ("api-key", _) => Some(CALLER.to_owned()),
                ("proxy-host", Some(proxy)) => Some(proxy.ip().to_string()),
                ("proxy-port", Some(proxy)) => Some(proxy.port().to_string()),
                ("plugins", _) => plugins.as_ref().map(|path| path.display().to_string()),
                _ => settings.get(setting.name).cloned(),
            };
            text.map(|text| Given {
                from: format!("harness.settings.{}", setting.name),
                text,
                base64: false,
            })
        };
        let configuration = harness.config(&Request {
            route: &self.facts(reach),
            registry: &reach.registry,
            look: &look,
            version: Some(&installed.version),
        });
        let configuration = configuration.map_err(|mistakes| cannot(&mistakes))?;
        let place = self.home.join(harness.config_dir().unwrap_or_default());
        let own = &self.kit.case.sheet.harness.own;
        if !own.is_null()
            && let Some(file) = configuration.files.first()
        {
            write_own(&place, file.name, &own.to_string()).map_err(|error| cannot(&error))?;
        }
        let plan = configuration.plan(&place, Edited::Refuse);
        let plan = plan.map_err(|refusal| cannot(&refusal))?;
        plan.apply().map_err(|refusal| cannot(&refusal))
    }

    /// The plugins of manifests, where the case is with them: in a directory that is the harness's own.
    fn staged(&self, reach: &Reach<'_>) -> Result<Option<PathBuf>, Failure> {
        let case = self.kit.case;
        if !case.sheet.harness.plugins {
            return Ok(None);
        }
        let place = self.home.join("staged");
        let sources = Sources {
            agent: &case.sheet.harness.name,
            registry: &reach.registry,
            texts: &shipped_sources(),
            roots: &[],
        };
        stage::stage(&sources, &place)
            .map_err(|error| Failure::user("the plugins cannot be staged").caused_by(&error))?;
        Ok(Some(place))
    }

    fn facts(&self, reach: &Reach<'_>) -> Facts {
        Facts {
            agent: None,
            client: ClientFacts {
                model: self.kit.case.sheet.route.model.clone(),
                provider_key: MANAGED_PROVIDER_KEY.to_owned(),
                inference_api: CHAT_COMPLETIONS.to_owned(),
                base_url: reach.base_url.clone(),
            },
            upstream: UpstreamFacts {
                provider: PROVIDER.to_owned(),
                model: reach.upstream_model.clone(),
                base_url: reach.base_url.clone(),
                server: None,
            },
        }
    }

    /// Starts the harness for a turn, and reads what it recorded.
    async fn take_turn(
        &self,
        installed: &Installed,
        reach: &Reach<'_>,
        session: Option<&str>,
        prompt: &str,
    ) -> Result<(Option<Transcript>, Vec<Fault>), Failure> {
        let harness = installed.harness;
        let proxy = reach.door.map(|door| format!("http://{}", door.address()));
        let task = Task::Turn {
            session,
            message: prompt,
        };
        let place = Place {
            home: self.home,
            ca_file: reach.door.map(Door::authority),
            proxy: proxy.as_deref(),
        };
        let launch = harness
            .launch(&task, &place)
            .ok_or_else(|| Failure::user(format!("{} takes no turns by itself", harness.name())))?;
        // Looked for on the path that is set here.
        let mut command = Command::new(launch.program);
        command
            .args(&launch.arguments)
            .env_clear()
            .env("PATH", installed.search_path())
            .env("LANG", "C.UTF-8")
            .env("TERM", "dumb")
            .envs(launch.variables)
            .current_dir(self.home);
        let ended = child::run(command, self.kit.budget, self.log, self.masker).await;
        let ended = ended.map_err(|error| {
            Failure::internal(format!("cannot start {}", harness.name()), &error)
        })?;
        let mut faults = judge::ending(&ended);
        let transcript = match harness.transcript(self.home, session) {
            Ok(transcript) => Some(transcript),
            Err(error) => {
                let text = format!("no record of the session: {error}");
                faults.push(Fault::new(Kind::Ending, text));
                None
            }
        };
        Ok((transcript, faults))
    }
}

/// What the harness's user has in its configuration already.
fn write_own(place: &Path, name: &str, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    let mut directory = std::fs::DirBuilder::new();
    directory.mode(0o700).recursive(true).create(place)?;
    let mut file = std::fs::OpenOptions::new();
    let file = file.write(true).create_new(true).mode(0o600);
    let mut file = file.open(place.join(name))?;
    std::io::Write::write_all(&mut file, text.as_bytes())
}

/// The model's key, anywhere but where it belongs.
fn leaks(masker: &Masker, home: &Path) -> Vec<Fault> {
    let said = (masker.met() > 0).then(|| "the harness showed the model's key".to_owned());
    let kept =
        holding(masker, home).map(|path| format!("{} holds the model's key", path.display()));
    said.into_iter()
        .chain(kept)
        .map(|text| Fault::new(Kind::Leaked, text))
        .collect()
}

/// The first file below a directory with a known secret in it; links are not followed.
fn holding(masker: &Masker, directory: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).ok()?;
    entries.filter_map(Result::ok).find_map(|entry| {
        let (kind, path) = (entry.file_type().ok()?, entry.path());
        if kind.is_dir() {
            return holding(masker, &path);
        }
        let is_in = kind.is_file() && masker.is_in(&std::fs::read(&path).ok()?);
        is_in.then_some(path)
    })
}

/// A key nobody can know before the run.
fn fresh_key() -> Result<Secret, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::internal("no random numbers to make a key of", &error))?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    secret(format!("sk-verify-{digits}"))
}

/// Secrets are not cloned by the way.
pub(super) fn copy(key: &Secret) -> Result<Secret, Failure> {
    secret(key.expose().to_owned())
}

fn secret(text: String) -> Result<Secret, Failure> {
    Secret::new(text).map_err(|error| Failure::internal("cannot hold a key", &error))
}
