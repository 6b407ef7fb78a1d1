//! Everything that goes to stdout: data, for programs and for people who asked for it.
//!
//! A reader that has seen enough and closes the pipe is no failure: what was to be written is then simply not needed.
//! Colour is an ornament; nothing is said by colour alone.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::config::Environment;
use crate::failure::Failure;

/// Where data goes, and what it may look like there.
#[derive(Debug)]
pub(crate) struct Output {
    coloured: bool,
    terminal: bool,
    columns: usize,
}

/// How a piece of text looks where colours may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Style {
    Bold,
    Dim,
    Good,
    #[default]
    Plain,
    Wrong,
}

/// Columns where there is no terminal to ask.
const COLUMNS: usize = 100;

impl Output {
    /// Stdout as it is.
    pub(crate) fn of_process(env: &Environment) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let size = terminal
            .then(|| rustix::termios::tcgetwinsize(&stdout).ok())
            .flatten();
        let told = env
            .filled("COLUMNS")
            .and_then(|columns| columns.parse().ok());
        let asked = size
            .map(|size| usize::from(size.ws_col))
            .filter(|columns| *columns > 0);
        Self {
            coloured: terminal && colours_wanted(env),
            terminal,
            columns: told.or(asked).unwrap_or(COLUMNS),
        }
    }

    /// Whether somebody looks at it.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// How many columns there are.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// `text`, in its colours if they may be used.
    pub(crate) fn painted(&self, text: &str, style: Style) -> String {
        if self.coloured {
            style.paint(text)
        } else {
            text.to_owned()
        }
    }

    /// Text that brings its own line ends.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        let written = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush());
        written.map_err(Failure::of_output)
    }

    /// One line.
    pub(crate) fn line(&self, line: &str) -> Result<(), Failure> {
        self.text(&format!("{line}\n"))
    }

    /// A value, as indented JSON.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value);
        self.line(&text.map_err(|error| Failure::of_output(error.into()))?)
    }

    /// Help, and what else clap has to show there.
    pub(crate) fn clap(&self, shown: &clap::Error) -> Result<(), Failure> {
        let text = shown.render();
        self.text(&if self.coloured {
            text.ansi().to_string()
        } else {
            text.to_string()
        })
    }
}

impl Style {
    /// `text` in this style, for terminals.
    pub(crate) fn paint(self, text: &str) -> String {
        let code = match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Plain => return text.to_owned(),
            Self::Wrong => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Whether a terminal may be given colours: <https://no-color.org>.
pub(crate) fn colours_wanted(env: &Environment) -> bool {
    env.filled("NO_COLOR").is_none() && env.variable("TERM").is_none_or(|term| term != "dumb")
}
