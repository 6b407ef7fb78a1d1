//! Whose fault it is that an exchange cannot go on, in words for the client.

use std::fmt;

/// Who has to change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The caller: the same request will fail again.
    Client,
    /// The provider, or the model behind it; a retry may help.
    Upstream,
    /// Farrier itself, or its configuration.
    Us,
}

/// A failure with its blame, a stable code and a sentence for the client.
///
/// The message says what was expected, what was got and where; it never quotes
/// message contents or credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Who has to change something.
    pub blame: Blame,
    /// Stable, machine-readable; the `code` of an OpenAI-shaped error.
    pub code: &'static str,
    /// One sentence, lower case, without a period.
    pub message: String,
    /// The parameter at fault, such as `messages[3]`, when there is one.
    pub param: Option<String>,
}

impl Fault {
    /// A fault of the caller.
    pub fn client(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Blame::Client, code, message)
    }

    /// A fault of the provider.
    pub fn upstream(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Blame::Upstream, code, message)
    }

    /// A fault of ours.
    pub fn us(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Blame::Us, code, message)
    }

    /// The same fault, naming the parameter.
    #[must_use]
    pub fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    fn new(blame: Blame, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            blame,
            code,
            message: message.into(),
            param: None,
        }
    }
}

impl Blame {
    /// One word for headers, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Us => "farrier",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}
