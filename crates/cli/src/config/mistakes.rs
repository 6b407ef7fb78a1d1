//! What is wrong with a configuration, each with its place.
//!
//! Collected, never thrown: whoever runs `farrier check` learns everything at once.

use std::path::Path;

use serde::Serialize;

/// One thing to put right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Mistake {
    /// The line of the configuration file, counted from 1.
    pub(crate) line: Option<usize>,
    /// The other file it is in, when it is not the configuration file; named in the message.
    #[serde(skip)]
    elsewhere: bool,
    /// What was expected, and what was got.
    pub(crate) message: String,
}

impl Mistake {
    /// At a line of the configuration file.
    pub(crate) fn at(line: usize, message: impl Into<String>) -> Self {
        Self {
            line: Some(line),
            elsewhere: false,
            message: message.into(),
        }
    }

    /// In the configuration as a whole: something is not there.
    pub(crate) fn somewhere(message: impl Into<String>) -> Self {
        Self {
            line: None,
            elsewhere: false,
            message: message.into(),
        }
    }

    /// In a file that the configuration names; the message begins with its path.
    pub(crate) fn elsewhere(message: impl Into<String>) -> Self {
        Self {
            line: None,
            elsewhere: true,
            message: message.into(),
        }
    }

    /// For whoever asked over the control socket.
    pub(crate) fn told(&self, file: &str) -> farrier_control::Mistake {
        farrier_control::Mistake {
            file: (!self.elsewhere).then(|| file.to_owned()),
            line: self.line,
            message: self.message.clone(),
        }
    }

    /// `farrier.toml:12: message`.
    pub(crate) fn shown(&self, file: &Path) -> String {
        let (file, message) = (file.display(), &self.message);
        match (self.line, self.elsewhere) {
            (Some(line), _) => format!("{file}:{line}: {message}"),
            (None, false) => format!("{file}: {message}"),
            (None, true) => message.clone(),
        }
    }
}

/// In the order of the file; what has no line comes last.
pub(super) fn sorted(mut mistakes: Vec<Mistake>) -> Vec<Mistake> {
    mistakes.sort_by_key(|mistake| mistake.line.unwrap_or(usize::MAX));
    mistakes.dedup();
    mistakes
}
