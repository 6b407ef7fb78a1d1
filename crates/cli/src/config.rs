//! Arguments, environment and the configuration file: read here and nowhere else.
//!
//! ```text
//! text ──▶ RawFile (as typed, with lines) ──▶ Draft (complete, secrets fetched) ──▶ the gateway's Config
//!             └─────────── mistakes ───────────────┴──────────── mistakes ─────────────┘
//! ```
//!
//! A file is read to its end whatever is wrong with it, and everything that is wrong is reported at once.

mod egress;
mod given;
mod mistakes;
mod providers;
mod raw;
pub(crate) mod registry;
mod resolve;
mod routes;
mod sources;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farrier_gateway::config::{Config, Mistakes};
use farrier_gateway::{Gateway, ReloadError, Reloaded, Reloader, StartError};
use farrier_ledger::{Embedded, EmbeddedConfig, Ledger, OpenError, Store};
use rustix::fs::{Access, access};
use serde::Serialize;
use tempfile::TempDir;

pub(crate) use egress::Egress;
pub(crate) use mistakes::Mistake;
pub(crate) use providers::{Known, NO_STATE, declared, fetched};
pub(crate) use raw::{TraceText, sections};
pub(crate) use resolve::{Lines, Overrides, with_causes};
pub(crate) use sources::{Kind, Source, Sources};

use given::At;
use resolve::{Draft, Resolution};

/// Looks a variable up.
type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

/// What surrounds the process.
#[derive(Clone)]
pub(crate) struct Environment {
    lookup: Arc<Lookup>,
}

/// A configuration file and everything that is known of it.
#[derive(Debug)]
pub(crate) struct Examined {
    /// As it was named.
    pub(crate) file: PathBuf,
    pub(crate) mistakes: Vec<Mistake>,
    pub(crate) warnings: Vec<Mistake>,
    /// What it was read from.
    pub(crate) sources: Sources,
    /// What it says of the ledger, which only a restart changes.
    pub(crate) ledger: LedgerSection,
    draft: Draft,
}

/// `[ledger]` as it is written, to be told from another. Not shown: a secret may have been put there by mistake.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct LedgerSection(Option<toml::Value>);

/// Why there is no configuration to examine.
#[derive(Debug)]
pub(crate) enum NoFile {
    /// None was named, and none is where one is looked for.
    Nowhere(Vec<PathBuf>),
    /// It cannot be read.
    Unreadable(PathBuf, io::Error),
}

/// A configuration that can run.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) config: Config,
    pub(crate) ledger: Arc<dyn Ledger>,
    /// Where the ledger is.
    pub(crate) store: String,
    pub(crate) lines: Lines,
}

/// What a configuration holds, for people.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Size {
    pub(crate) providers: usize,
    pub(crate) routes: usize,
    pub(crate) clients: usize,
    pub(crate) manifests: usize,
}

// === impl Environment ===

impl Environment {
    /// The process's own.
    pub(crate) fn of_process() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where the environment is read"
        )]
        Self {
            lookup: Arc::new(|name| std::env::var(name).ok()),
        }
    }

    /// One with these variables alone.
    #[cfg(test)]
    pub(crate) fn of(variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables: Vec<(String, String)> = variables.iter().map(owned).collect();
        let lookup = move |name: &str| {
            let mut found = variables.iter().filter(|(own, _)| own == name);
            found.next().map(|(_, value)| value.clone())
        };
        Self {
            lookup: Arc::new(lookup),
        }
    }

    /// The arguments, the program's name first.
    pub(crate) fn arguments() -> impl Iterator<Item = OsString> {
        std::env::args_os()
    }

    /// A variable that is set.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        (self.lookup)(name)
    }

    /// A variable that is set to more than nothing.
    pub(crate) fn filled(&self, name: &str) -> Option<String> {
        self.variable(name).filter(|value| !value.is_empty())
    }

    fn home(&self) -> Option<PathBuf> {
        self.absolute("HOME")
    }

    fn state_dir(&self) -> Option<PathBuf> {
        let below_home = || Some(self.home()?.join(".local").join("state"));
        self.absolute("XDG_STATE_HOME").or_else(below_home)
    }

    /// What programs keep that is no configuration and can be made again.
    pub(crate) fn data_dir(&self) -> Option<PathBuf> {
        let below_home = || Some(self.home()?.join(".local").join("share"));
        self.absolute("XDG_DATA_HOME").or_else(below_home)
    }

    /// Where watchers of pairing report.
    pub(crate) fn pairing_dir(&self) -> Option<PathBuf> {
        Some(self.state_dir()?.join("farrier").join("pairing"))
    }

    fn runtime_dir(&self) -> Option<PathBuf> {
        self.absolute("XDG_RUNTIME_DIR")
    }

    fn config_dir(&self) -> Option<PathBuf> {
        let below_home = || Some(self.home()?.join(".config"));
        self.absolute("XDG_CONFIG_HOME").or_else(below_home)
    }

    /// The base directory specification has relative paths ignored.
    fn absolute(&self, name: &str) -> Option<PathBuf> {
        self.variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment(..)")
    }
}

// === finding and examining ===

/// The file that is meant: the named one, else the first that is there.
pub(crate) fn locate(named: Option<&Path>, env: &Environment) -> Result<PathBuf, NoFile> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let own = env
        .config_dir()
        .map(|config| config.join("farrier").join(NAME));
    let places: Vec<PathBuf> = std::iter::once(PathBuf::from(NAME)).chain(own).collect();
    let found = places.iter().find(|place| place.exists()).cloned();
    found.ok_or(NoFile::Nowhere(places))
}

/// Its path from the root, whatever links its directory is reached by. Of a file that is a link itself the link is
/// meant, wherever it leads: what Kubernetes mounts leads elsewhere after each change.
pub(crate) fn absolute(file: &Path) -> PathBuf {
    let from_root = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let directory = from_root.parent().map(Path::canonicalize);
    match (directory, from_root.file_name()) {
        (Some(Ok(directory)), Some(name)) => directory.join(name),
        _ => from_root,
    }
}

/// Where the gateway of this configuration file lets itself be asked: the first of these that it can have.
pub(crate) fn control_sockets(file: &Path, env: &Environment) -> Vec<PathBuf> {
    let digest = blake3::hash(absolute(file).as_os_str().as_encoded_bytes()).to_hex();
    let name = format!("gateway-{}.sock", &digest[..16]);
    control_directories(env)
        .map(|directory| directory.join(&name))
        .collect()
}

/// Where control sockets are, those of other gateways included.
pub(crate) fn control_directories(env: &Environment) -> impl Iterator<Item = PathBuf> {
    let runtime = env.runtime_dir().map(|dir| dir.join("farrier"));
    let state = env
        .state_dir()
        .map(|dir| dir.join("farrier").join("control"));
    runtime.into_iter().chain(state)
}

/// Reads a configuration and finds everything that is wrong with it, short of the ledger.
///
/// # Errors
///
/// There is no file.
pub(crate) fn examine(
    named: Option<&Path>,
    env: &Environment,
    overrides: &Overrides,
) -> Result<Examined, NoFile> {
    let file = locate(named, env)?;
    let mut sources = Sources::of_file(&file);
    let text = fs::read_to_string(&file);
    let text = text.map_err(|error| NoFile::Unreadable(file.clone(), error))?;
    let mut examined = examined(file, &text, env, overrides);
    sources.append(&mut examined.sources);
    examined.sources = sources;
    Ok(examined)
}

fn examined(file: PathBuf, text: &str, env: &Environment, overrides: &Overrides) -> Examined {
    let (raw, reading) = raw::read(text);
    let unsure = reading.is_broken();
    let (mut mistakes, mut warnings) = (reading.mistakes, Vec::new());
    let mut sources = Sources::default();
    let base = file.parent().unwrap_or_else(|| Path::new(""));
    let mut resolution = Resolution {
        env,
        base,
        unsure,
        mistakes: &mut mistakes,
        warnings: &mut warnings,
        sources: &mut sources,
    };
    let draft = resolution.resolve(raw, overrides);
    Examined {
        file,
        mistakes,
        warnings,
        sources,
        ledger: LedgerSection::of(text),
        draft,
    }
}

impl LedgerSection {
    fn of(text: &str) -> Self {
        let file: Option<toml::Table> = text.parse().ok();
        Self(file.and_then(|mut file| file.remove("ledger")))
    }
}

impl fmt::Debug for LedgerSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LedgerSection(..)")
    }
}

impl Examined {
    /// How many providers, routes, clients and manifests there are.
    pub(crate) fn size(&self) -> Size {
        Size {
            providers: self.draft.providers.len(),
            routes: self.draft.routes.len(),
            clients: self.draft.clients.len(),
            manifests: self.draft.registry.manifests().count(),
        }
    }

    /// Every provider that is declared or stored, whether a route names it or not.
    pub(crate) fn known(&self) -> &[Known] {
        &self.draft.known
    }

    /// Whether transcripts would be kept.
    pub(crate) fn traces(&self) -> bool {
        self.draft.trace.is_some()
    }

    /// Whether a change of what it was read from is to take effect without being asked for.
    pub(crate) fn watches(&self) -> bool {
        self.draft.watch
    }

    /// What is granted to clients before they are known, which only a restart changes.
    pub(crate) fn listener(&self) -> &farrier_serve::Limits {
        &self.draft.limits.listener
    }

    /// Goes on with everything that [`Gateway::bind`] would do short of listening, and gives all mistakes.
    pub(crate) async fn check(mut self) -> Vec<Mistake> {
        let mut mistakes = std::mem::take(&mut self.mistakes);
        mistakes.extend(self.trace_unusable());
        let (ledger, _place, refused) = match self.ledger_for_checking() {
            Ok(opened) => opened,
            Err(error) => {
                mistakes.push(Mistake::somewhere(format!(
                    "cannot check the rest: {error}"
                )));
                return mistakes::sorted(mistakes);
            }
        };
        mistakes.extend(refused);
        let ledger = Arc::new(ledger);
        let lines = std::mem::take(&mut self.draft.lines);
        let mut config = self.draft.over(ledger.clone());
        let mut wrong = match config.check() {
            Err(wrong) => wrong.0,
            Ok(()) => Vec::new(),
        };
        if wrong.is_empty() {
            config.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
            config.trace = None;
            if let Err(error) = Gateway::bind(config).await {
                match error {
                    StartError::Config(found) => wrong = found.0,
                    other => mistakes.push(Mistake::somewhere(with_causes(&other))),
                }
            }
        }
        mistakes.extend(lines.placed(&Mistakes(wrong)));
        // Nothing was written; what cannot be closed is let go with the process.
        let _closed = ledger.close().await;
        mistakes::sorted(mistakes)
    }

    /// Opens the ledger, if nothing is wrong so far.
    ///
    /// # Errors
    ///
    /// Everything that is wrong.
    pub(crate) async fn ready(mut self) -> Result<Ready, Vec<Mistake>> {
        if !self.mistakes.is_empty() {
            return Err(self.check().await);
        }
        let store = self.draft.ledger.to_string();
        let ledger = match self.draft.ledger.clone().open(self.draft.outbox) {
            Ok(ledger) => ledger,
            Err(error) => {
                self.mistakes.push(self.draft.lines.ledger_mistake(&error));
                return Err(self.check().await);
            }
        };
        let lines = std::mem::take(&mut self.draft.lines);
        let config = self.draft.over(ledger.clone());
        match config.check() {
            Ok(()) => Ok(Ready {
                config,
                ledger,
                store,
                lines,
            }),
            Err(wrong) => Err(lines.placed(&wrong)),
        }
    }

    /// Has a gateway that runs with `ledger` answer by this configuration from now on.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, as [`check`](Self::check) gives it; then nothing has changed.
    pub(crate) async fn take_over(
        mut self,
        running: &Reloader,
        ledger: &LedgerSection,
    ) -> Result<Reloaded, Vec<Mistake>> {
        if self.mistakes.is_empty() && self.ledger != *ledger {
            // It does not take effect, but must not lie in wait for the next start either.
            self.mistakes.extend(self.ledger_unusable());
        }
        if !self.mistakes.is_empty() || self.trace_unusable().is_some() {
            return Err(self.check().await);
        }
        let somewhere = |error: &ReloadError| vec![Mistake::somewhere(with_causes(error))];
        let Some(ledger) = running.ledger() else {
            return Err(somewhere(&ReloadError::Ended));
        };
        let lines = std::mem::take(&mut self.draft.lines);
        running
            .reload(self.draft.over(ledger))
            .map_err(|error| match error {
                ReloadError::Refused(StartError::Config(wrong)) => lines.placed(&wrong),
                other => somewhere(&other),
            })
    }

    fn ledger_unusable(&self) -> Option<Mistake> {
        match self.ledger_for_checking() {
            Ok((_ledger, _place, refused)) => refused,
            Err(error) => Some(Mistake::somewhere(format!(
                "cannot check the ledger: {error}"
            ))),
        }
    }

    fn trace_unusable(&self) -> Option<Mistake> {
        let dir = &self.draft.trace.as_ref()?.dir;
        let message = || {
            format!(
                "expected a trace directory that can be written to, got {}",
                dir.display()
            )
        };
        (!can_be_made(dir)).then(|| Mistake::somewhere(message()))
    }

    /// The file of the ledger if it is there and free, else one that is gone afterwards; and what is wrong with the
    /// configured one. A gateway that has it open is no mistake, and nothing is made in its place.
    fn ledger_for_checking(&self) -> io::Result<(Embedded, Option<TempDir>, Option<Mistake>)> {
        let mut refused = None;
        if let Store::Embedded(config) = &self.draft.ledger {
            match self.file_for_checking(config) {
                Ok(Some(ledger)) => return Ok((ledger, None, None)),
                Ok(None) => {}
                Err(mistake) => refused = Some(mistake),
            }
        }
        let place = tempfile::tempdir()?;
        let stand_in = EmbeddedConfig::new(place.path().join("ledger.db"));
        let ledger = Embedded::open(stand_in).map_err(io::Error::other)?;
        Ok((ledger, Some(place), refused))
    }

    fn file_for_checking(&self, config: &EmbeddedConfig) -> Result<Option<Embedded>, Mistake> {
        if config.path.exists() {
            return match Embedded::open(config.clone()) {
                Ok(ledger) => Ok(Some(ledger)),
                Err(OpenError::InUse { .. }) => Ok(None),
                Err(error) => Err(self.draft.lines.ledger_mistake(&error)),
            };
        }
        if !config.path.as_os_str().is_empty() && !can_be_made(&config.path) {
            let shown = config.path.display();
            let message =
                format!("expected a place for the ledger that can be written to, got {shown}");
            return Err(self.draft.lines.at_ledger(message));
        }
        Ok(None)
    }

    /// Asks a store that gateways share whether it is there and the one that is meant. One that is not there is a
    /// warning: a gateway starts without, and queues what it is to remember.
    pub(crate) async fn reach_store(&mut self) {
        let Store::Shared(config) = &self.draft.ledger else {
            return;
        };
        if let Err(error) = config.reach().await {
            let found = self.draft.lines.ledger_mistake(&error);
            if error.is_transient() {
                self.warnings.push(found);
            } else {
                self.mistakes.push(found);
            }
        }
    }
}

/// Whether the nearest directory above `path` that is there lets us write.
fn can_be_made(path: &Path) -> bool {
    let there = path
        .ancestors()
        .find(|above| above.as_os_str().is_empty() || above.exists());
    let there = there
        .filter(|above| !above.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    there.is_dir() && access(there, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// The name of the file where it is looked for.
const NAME: &str = "farrier.toml";

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
