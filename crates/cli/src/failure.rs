//! Everything that goes to stderr, and every exit code.
//!
//! | kind | whose fault | exit |
//! |---|---|---|
//! | `User` | what was asked for cannot be done | 1 |
//! | `Config` | the configuration file | 1 |
//! | `Internal` | ours, or the machine's | 1 |
//! | `Usage` | the command line | 2 |
//! | `BrokenPipe` | nobody's: the reader has seen enough | 0 |
//!
//! A failure says what was expected and what was got, what caused it, and what to do.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use farrier_control::BindError;
use farrier_gateway::StartError;
use farrier_sim::UnknownPersona;

use crate::config::{Environment, Mistake, NoFile, with_causes};
use crate::output::{Style, colours_wanted};

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
    causes: Vec<String>,
    hints: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    BrokenPipe,
    Config,
    Internal,
    Usage,
    User,
}

/// Stderr: what people are told while a command runs.
#[derive(Debug)]
pub(crate) struct Notices {
    coloured: bool,
}

// === impl Failure ===

impl Failure {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            causes: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// What was asked for cannot be done.
    pub(crate) fn user(message: impl Into<String>) -> Self {
        Self::new(Kind::User, message)
    }

    /// The command line asks for something that makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Something of ours, or of the machine's, does not work.
    pub(crate) fn internal(message: impl Into<String>, cause: &dyn Error) -> Self {
        Self::new(Kind::Internal, message).caused_by(cause)
    }

    /// The mistakes of a configuration file, which are told already.
    pub(crate) fn of_mistakes(count: usize, file: &Path) -> Self {
        let mistakes = if count == 1 { "mistake" } else { "mistakes" };
        Self::new(
            Kind::Config,
            format!("{count} {mistakes} in {}", file.display()),
        )
    }

    /// Stdout could not be written to.
    pub(crate) fn of_output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Kind::BrokenPipe, "broken pipe"),
            _ => Self::internal("cannot write to stdout", &error),
        }
    }

    /// With what caused it.
    #[must_use]
    pub(crate) fn caused_by(mut self, cause: &dyn Error) -> Self {
        let mut next = Some(cause);
        while let Some(cause) = next {
            self.causes.push(cause.to_string());
            next = cause.source();
        }
        self
    }

    /// With what to do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl From<NoFile> for Failure {
    fn from(none: NoFile) -> Self {
        match none {
            NoFile::Nowhere(places) => {
                let places: Vec<_> = places
                    .iter()
                    .map(|place| place.display().to_string())
                    .collect();
                Self::new(
                    Kind::Config,
                    format!(
                        "expected a configuration at {}, got none",
                        places.join(" or ")
                    ),
                )
                .hint("name one with --config")
                .hint("`farrier demo` needs none")
            }
            NoFile::Unreadable(path, error) => {
                Self::new(Kind::Config, format!("cannot read {}", path.display())).caused_by(&error)
            }
        }
    }
}

impl From<UnknownPersona> for Failure {
    fn from(unknown: UnknownPersona) -> Self {
        let hint = unknown
            .nearest
            .map(|nearest| format!("did you mean {nearest:?}"));
        let known = format!("known are {}", unknown.known.join(", "));
        Self::user(format!("expected a persona, got {:?}", unknown.name))
            .hint(hint.unwrap_or(known))
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let kind = match error {
            StartError::Config(_) => Kind::Config,
            StartError::Random(_) => Kind::Internal,
            _ => Kind::User,
        };
        let in_use = with_causes(&error).contains("in use");
        let failure = Self::new(kind, error.to_string());
        let failure = match error.source() {
            Some(cause) => failure.caused_by(cause),
            None => failure,
        };
        if in_use {
            failure.hint("another program listens there; choose an address with --listen")
        } else {
            failure
        }
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        let in_use = matches!(error, BindError::InUse { .. });
        let failure = Self::user(error.to_string());
        let failure = match error.source() {
            Some(cause) => failure.caused_by(cause),
            None => failure,
        };
        if in_use {
            failure
                .hint("`farrier status` says which; give this one a place of its own with --socket")
        } else {
            failure
        }
    }
}

// === impl Notices ===

impl Notices {
    /// Stderr as it is.
    pub(crate) fn of_process(env: &Environment) -> Self {
        Self {
            coloured: io::stderr().is_terminal() && colours_wanted(env),
        }
    }

    /// Whether it may be coloured.
    pub(crate) fn coloured(&self) -> bool {
        self.coloured
    }

    /// One line for whoever watches. That nobody does is no failure.
    pub(crate) fn say(&self, line: &str) {
        let _nobody_listens = writeln!(io::stderr().lock(), "{line}");
    }

    /// A line in place of the one that was drawn before, for terminals alone.
    pub(crate) fn draw(&self, line: &str) {
        let mut stderr = io::stderr().lock();
        let _nobody_listens = write!(stderr, "\r\x1b[2K{line}").and_then(|()| stderr.flush());
    }

    /// Each mistake on a line of its own.
    pub(crate) fn mistakes(&self, file: &Path, mistakes: &[Mistake]) {
        mistakes
            .iter()
            .for_each(|mistake| self.say(&mistake.shown(file)));
    }

    /// What is no mistake but should be known.
    pub(crate) fn warn(&self, warning: &str) {
        self.say(&format!(
            "{}: {warning}",
            self.painted("warning", Style::Bold)
        ));
    }

    /// The end of a command.
    pub(crate) fn conclude(&self, result: Result<ExitCode, Failure>) -> ExitCode {
        let failure = match result {
            Ok(code) => return code,
            Err(failure) => failure,
        };
        if failure.kind == Kind::BrokenPipe {
            return ExitCode::SUCCESS;
        }
        self.say(&format!(
            "{}: {}",
            self.painted("error", Style::Wrong),
            failure.message
        ));
        failure
            .causes
            .iter()
            .for_each(|cause| self.say(&format!("  caused by: {cause}")));
        failure
            .hints
            .iter()
            .for_each(|hint| self.say(&format!("  hint: {hint}")));
        match failure.kind {
            Kind::Usage => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }

    /// What clap found wrong with the command line.
    pub(crate) fn clap(&self, error: &clap::Error) -> ExitCode {
        let text = error.render();
        let text = if self.coloured {
            text.ansi().to_string()
        } else {
            text.to_string()
        };
        self.say(text.trim_end());
        ExitCode::from(2)
    }

    fn painted(&self, text: &str, style: Style) -> String {
        if self.coloured {
            style.paint(text)
        } else {
            text.to_owned()
        }
    }
}
