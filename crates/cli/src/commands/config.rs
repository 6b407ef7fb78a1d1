//! `farrier config`: a harness's own configuration, for a route.
//!
//! There is a subcommand for each harness, made from what the harness says of itself: its name, what it is about, its
//! settings. A new one needs nothing here.

mod trial;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Subcommand};
use farrier_compat::facts::Facts;
use farrier_compat::registry::Registry;
use farrier_harness::settings::{Given, Setting, Takes};
use farrier_harness::{
    Change, Configuration, Edited, HARNESSES, Harness, Plan, Refusal, Request, named, route,
};
use serde::Serialize;
use similar::TextDiff;

use super::Context;
use crate::config::registry::{Directory, load};
use crate::config::{self, Overrides};
use crate::failure::Failure;

/// Which harness, and how.
#[derive(Debug)]
pub(crate) struct Command {
    harness: &'static dyn Harness,
    common: Common,
    /// By the name of the setting.
    settings: Vec<(&'static str, String)>,
}

/// What can be said for every harness.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of its own on the command line"
)]
struct Common {
    /// The model name of the route, as in the configuration
    #[arg(
        long,
        value_name = "MODEL",
        required_unless_present = "from_env",
        conflicts_with = "from_env"
    )]
    route: Option<String>,
    /// The gateway's configuration [default: ./farrier.toml, else $XDG_CONFIG_HOME/farrier/farrier.toml]
    #[arg(long, value_name = "FILE", conflicts_with = "from_env")]
    config: Option<PathBuf>,
    /// Take route and settings from the variables of a NemoClaw image
    #[arg(long)]
    from_env: bool,
    /// Where the files belong [default: the harness's directory in $HOME; if it has none, print]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write nothing
    #[arg(long)]
    dry_run: bool,
    /// Show what changes, secrets hidden
    #[arg(long)]
    diff: bool,
    /// Go on from files that were edited since they were written
    #[arg(long)]
    accept_edits: bool,
    /// The harness's version [default: that of the installed one]
    #[arg(long, value_name = "VERSION")]
    harness_version: Option<String>,
    /// The package directory of the installed harness [default: that of the one on the search path]
    #[arg(long, value_name = "DIR", conflicts_with = "harness_version")]
    package: Option<PathBuf>,
    /// Have the installed harness say whether it takes the configuration, before anything is written
    #[arg(long, conflicts_with = "harness_version")]
    validate: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    harness: &'a str,
    version: Option<&'a str>,
    validated: bool,
    written: bool,
    files: Vec<Shown<'a>>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct Shown<'a> {
    path: String,
    changes: bool,
    before: Option<&'a str>,
    after: &'a str,
}

/// An installed harness.
#[derive(Debug)]
struct Installed {
    package: PathBuf,
    version: String,
}

/// The route, and what applies to it.
struct Target {
    route: Facts,
    registry: Registry,
}

// === the command line ===

impl Subcommand for Command {
    fn augment_subcommands(command: clap::Command) -> clap::Command {
        HARNESSES.iter().fold(command, |command, harness| {
            command.subcommand(subcommand(*harness))
        })
    }

    fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        named(name).is_some()
    }
}

fn subcommand(harness: &'static dyn Harness) -> clap::Command {
    let command = clap::Command::new(harness.name()).about(harness.about());
    let command = Common::augment_args(command);
    let settings = harness.settings().iter().map(|setting| {
        let argument = Arg::new(setting.name)
            .long(setting.name)
            .help(setting.doc)
            .help_heading("Settings (@FILE reads a value from a file)");
        match setting.takes {
            Takes::Switch(_) => argument.action(ArgAction::SetTrue),
            Takes::Value(name) => argument.value_name(name),
        }
    });
    command.args(settings)
}

impl FromArgMatches for Command {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let missing = || clap::Error::new(clap::error::ErrorKind::MissingSubcommand);
        let (name, matches) = matches.subcommand().ok_or_else(missing)?;
        let harness = named(name).ok_or_else(missing)?;
        let settings = harness.settings().iter().filter_map(|setting| {
            let value = match setting.takes {
                Takes::Switch(on) => matches.get_flag(setting.name).then(|| on.to_owned()),
                Takes::Value(_) => matches.get_one::<String>(setting.name).cloned(),
            };
            Some((setting.name, value?))
        });
        Ok(Self {
            harness,
            common: Common::from_arg_matches(matches)?,
            settings: settings.collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

// === what it does ===

pub(crate) fn run(command: &Command, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let settings = command.read_files()?;
    let installed = command.installed(context)?;
    let given = command.common.harness_version.as_deref();
    let version = given.or_else(|| installed.as_ref().map(|installed| &*installed.version));
    let target = command.target(context)?;
    let from_env = command.common.from_env;
    let look = |setting: &'static Setting| {
        let flag = settings.iter().find(|(name, _)| *name == setting.name);
        let flag = flag.map(|(name, value)| Given {
            from: format!("--{name}"),
            text: value.clone(),
            base64: false,
        });
        let variable = || Given::from_variable(setting, |name| context.env.variable(name));
        flag.or_else(|| from_env.then(variable).flatten())
    };
    let configuration = command.harness.config(&Request {
        route: &target.route,
        registry: &target.registry,
        look: &look,
        version,
    });
    let configuration = configuration.map_err(|mistakes| {
        mistakes
            .0
            .iter()
            .for_each(|mistake| context.notices.say(&mistake.to_string()));
        let name = command.harness.name();
        Failure::user(format!("{name} cannot be configured like this"))
    })?;
    match command.directory(context)? {
        None => print(&configuration, context),
        Some(directory) => {
            let edited = if command.common.accept_edits {
                Edited::Accept
            } else {
                Edited::Refuse
            };
            let plan = configuration.plan(&directory, edited).map_err(of_refusal)?;
            if command.common.validate {
                command.validate(&plan, installed.as_ref(), context)?;
            }
            command.write(&plan, version, context)
        }
    }
}

impl Command {
    /// The settings, those from files read.
    fn read_files(&self) -> Result<Vec<(&'static str, String)>, Failure> {
        let read = |(name, value): &(&'static str, String)| match value.strip_prefix('@') {
            None => Ok((*name, value.clone())),
            Some(path) => match std::fs::read_to_string(path) {
                Ok(text) => Ok((*name, text)),
                Err(error) => {
                    Err(Failure::user(format!("cannot read {path} for --{name}")).caused_by(&error))
                }
            },
        };
        self.settings.iter().map(read).collect()
    }

    /// What is installed: in the package that was named, else on the search path, unless it is said what to write for.
    fn installed(&self, context: &Context<'_>) -> Result<Option<Installed>, Failure> {
        let common = &self.common;
        if let Some(package) = &common.package {
            let version = self
                .harness
                .version(package)
                .map_err(|error| of_error(&error))?;
            let package = package.clone();
            return Ok(Some(Installed { package, version }));
        }
        if common.harness_version.is_some() {
            return Ok(None);
        }
        let search_path = context.env.variable("PATH");
        Ok(search_path.and_then(|path| installed(self.harness, &path)))
    }

    fn validate(
        &self,
        plan: &Plan,
        installed: Option<&Installed>,
        context: &Context<'_>,
    ) -> Result<(), Failure> {
        let Some(Installed { package, .. }) = installed else {
            let name = self.harness.name();
            let message = format!("expected an installed {name} on the search path, got none");
            return Err(Failure::user(message).hint("say with --package where it is"));
        };
        let search_path = context.env.variable("PATH");
        trial::hold(self.harness, package, &plan.changes, search_path)
    }

    fn target(&self, context: &Context<'_>) -> Result<Target, Failure> {
        let Some(model) = &self.common.route else {
            return from_env(context);
        };
        let file = self.common.config.as_deref();
        let examined = config::examine(file, context.env, &Overrides::default())?;
        if !examined.mistakes.is_empty() {
            context.notices.mistakes(&examined.file, &examined.mistakes);
            let count = examined.mistakes.len();
            return Err(Failure::of_mistakes(count, &examined.file));
        }
        let Some(route) = examined.route(model) else {
            let known: Vec<&str> = examined.models().collect();
            let file = examined.file.display();
            let failure = Failure::user(format!(
                "expected a route for {model:?} in {file}, got none"
            ));
            return Err(failure.hint(format!("routes are {}", known.join(", "))));
        };
        Ok(Target {
            route,
            registry: examined.registry().clone(),
        })
    }

    fn directory(&self, context: &Context<'_>) -> Result<Option<PathBuf>, Failure> {
        if let Some(out) = &self.common.out {
            return Ok(Some(out.clone()));
        }
        let Some(below_home) = self.harness.config_dir() else {
            return Ok(None);
        };
        let home = context.env.filled("HOME").ok_or_else(|| {
            Failure::user("expected HOME to say where the harness is at home, got nothing")
                .hint("name the directory with --out")
        })?;
        Ok(Some(Path::new(&home).join(below_home)))
    }

    fn write(
        &self,
        plan: &Plan,
        version: Option<&str>,
        context: &Context<'_>,
    ) -> Result<ExitCode, Failure> {
        let Common {
            dry_run,
            diff,
            json,
            validate,
            ..
        } = self.common;
        plan.notes
            .iter()
            .for_each(|note| context.notices.warn(note));
        if !dry_run {
            plan.apply().map_err(of_refusal)?;
        }
        if json {
            context.output.json(&Report {
                harness: self.harness.name(),
                version,
                validated: validate,
                written: !dry_run && !plan.is_current(),
                files: plan.changes.iter().map(Shown::of).collect(),
                notes: &plan.notes,
            })?;
        } else {
            let what = match (dry_run, plan.is_current()) {
                (_, true) => "is up to date",
                (true, false) => "would be written",
                (false, false) => "written",
            };
            tell(plan, what, diff, context)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn tell(plan: &Plan, what: &str, diff: bool, context: &Context<'_>) -> Result<(), Failure> {
    for change in &plan.changes {
        let path = change.path.display();
        if diff {
            let before = change.before.as_deref().unwrap_or_default();
            let diff = TextDiff::from_lines(before, &change.after);
            let header = (format!("{path} (before)"), format!("{path} (after)"));
            let mut shown = diff.unified_diff();
            let shown = shown.header(&header.0, &header.1);
            context.output.text(&shown.to_string())?;
        } else {
            context.output.line(&format!("{path} {what}"))?;
        }
    }
    Ok(())
}

/// What has no place of its own is for the reader to place.
fn print(configuration: &Configuration, context: &Context<'_>) -> Result<ExitCode, Failure> {
    configuration
        .notes
        .iter()
        .for_each(|note| context.notices.warn(note));
    for (_name, text) in configuration.texts() {
        context.output.text(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The route of an image that is being built, and the manifests it says to use besides the shipped ones.
fn from_env(context: &Context<'_>) -> Result<Target, Failure> {
    const DIRECTORY: &str = "NEMOCLAW_MODEL_SPECIFIC_SETUP_DIR";
    let route = route::from_variables(|name| context.env.variable(name)).map_err(|mistakes| {
        mistakes
            .0
            .iter()
            .for_each(|mistake| context.notices.say(&mistake.message));
        Failure::user("the variables do not say which route to configure")
    })?;
    let directories: Vec<Directory> = match context.env.filled(DIRECTORY) {
        None => Vec::new(),
        Some(path) if Path::new(&path).is_dir() => vec![Directory {
            path: path.into(),
            line: None,
        }],
        Some(path) => {
            let message = format!("{DIRECTORY} must point to an existing directory: {path}");
            return Err(Failure::user(message));
        }
    };
    let registry = load(&directories, &[], None).map_err(|(mistakes, _shipped)| {
        mistakes
            .iter()
            .for_each(|mistake| context.notices.say(&mistake.message));
        Failure::user("the manifests do not load")
    })?;
    Ok(Target {
        route,
        registry: Registry::clone(&registry),
    })
}

/// The harness that the search path leads to: its program is in its package.
fn installed(harness: &dyn Harness, search_path: &str) -> Option<Installed> {
    let programs = std::env::split_paths(search_path).map(|dir| dir.join(harness.name()));
    let program = programs
        .filter_map(|path| path.canonicalize().ok())
        .next()?;
    program.ancestors().skip(1).take(4).find_map(|package| {
        let version = harness.version(package).ok()?;
        let package = package.to_owned();
        Some(Installed { package, version })
    })
}

fn of_refusal(refusal: Refusal) -> Failure {
    let failure = of_error(&refusal);
    match refusal {
        Refusal::Edited { .. } => failure
            .hint("look at the edit; --accept-edits goes on from it, --dry-run --diff shows how"),
        Refusal::Io { .. } => failure.hint("name another directory with --out"),
        _ => failure,
    }
}

fn of_error(error: &dyn std::error::Error) -> Failure {
    let failure = Failure::user(error.to_string());
    match error.source() {
        Some(cause) => failure.caused_by(cause),
        None => failure,
    }
}

impl<'a> Shown<'a> {
    fn of(change: &'a Change) -> Self {
        Self {
            path: change.path.display().to_string(),
            changes: change.before.as_ref() != Some(&change.after),
            before: change.before.as_deref(),
            after: &change.after,
        }
    }
}
