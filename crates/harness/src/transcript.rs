//! What a harness recorded of a session, in one form for all.
//!
//! A record is the harness's own account: what it believes the model said and the
//! tools answered. Whether that is so is found out by comparing it with what the
//! model's side saw; nothing here is mended or filled in.

use std::io;
use std::path::PathBuf;

use serde_json::Value;

/// A session as its harness recorded it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transcript {
    /// The harness's name for it.
    pub session: String,
    /// What was said, in order.
    pub entries: Vec<Entry>,
    /// Which tools ran, in the order they ended, where the harness tells.
    pub tool_runs: Vec<ToolRun>,
}

/// Something that was said.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// By the model.
    Assistant(Said),
    /// By a tool.
    ToolResult(ToolResult),
    /// By the user.
    User {
        /// What.
        text: String,
    },
}

/// One message of the model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Said {
    /// What the user sees of it.
    pub text: String,
    /// What the model thought, if that was kept.
    pub reasoning: Option<String>,
    /// The tools it called, in its order.
    pub calls: Vec<Call>,
    /// Why there is no more of it, where the request failed.
    pub error: Option<String>,
}

/// One call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Its id.
    pub id: String,
    /// The tool.
    pub tool: String,
    /// What it was called with.
    pub arguments: Value,
}

/// What a tool answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolResult {
    /// The id of the call.
    pub call: String,
    /// The tool, if the harness noted it.
    pub tool: Option<String>,
    /// The answer.
    pub text: String,
    /// Whether it says that something went wrong, if the harness noted it.
    pub is_error: Option<bool>,
}

/// That a tool ran.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolRun {
    /// The tool.
    pub tool: String,
    /// What the harness shows of it, such as the command.
    pub shown: Option<String>,
    /// The id of the call, if the harness noted it.
    pub call: Option<String>,
    /// Whether it went wrong, if the harness noted it.
    pub is_error: Option<bool>,
}

/// Why there is no transcript.
#[derive(Debug, thiserror::Error)]
pub enum TranscriptError {
    /// The harness keeps none.
    #[error("this client keeps no record of its sessions")]
    KeepsNone,
    /// There is no such session.
    #[error("expected a session {session:?} below {}, got none", home.display())]
    NoSession {
        /// Its name.
        session: String,
        /// The home directory it was looked for in.
        home: PathBuf,
    },
    /// The record cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The record.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The record is not in a form that is known.
    #[error("expected {expected} in {}, got {got}", path.display())]
    Malformed {
        /// The record.
        path: PathBuf,
        /// What was expected.
        expected: &'static str,
        /// What is there.
        got: String,
    },
    /// The database does not give it.
    #[error("cannot read {}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
}

impl Transcript {
    /// The model's messages, in order.
    pub fn said(&self) -> impl Iterator<Item = &Said> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Assistant(said) => Some(said),
            Entry::ToolResult(_) | Entry::User { .. } => None,
        })
    }

    /// Every call of a tool, in order.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.said().flat_map(|said| &said.calls)
    }

    /// What tools answered, in order.
    pub fn tool_results(&self) -> impl Iterator<Item = &ToolResult> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::ToolResult(result) => Some(result),
            Entry::Assistant(_) | Entry::User { .. } => None,
        })
    }
}

/// Whether a session's name can be part of a file's name.
pub(crate) fn is_plain_name(session: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !session.is_empty() && !session.starts_with('.') && session.chars().all(plain)
}
