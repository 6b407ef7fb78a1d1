//! `OpenClaw`'s own records of a session.
//!
//! Until 2026.5 a session is a file of JSON lines, and from 2026.4.24 a second one
//! holds its trajectory; later both are tables of the agent's database, in which a
//! large event may be compressed. Events have one form in all of them:
//!
//! ```json
//! {"type":"message","message":{"role":"assistant","content":[
//!   {"type":"thinking","thinking":"…"},
//!   {"type":"toolCall","id":"functions.exec:0","name":"exec","arguments":{"command":"date"}}]}}
//! {"type":"message","message":{"role":"toolResult","toolCallId":"functions.exec:0","toolName":"exec",
//!   "content":[{"type":"text","text":"…"}],"isError":false}}
//! {"type":"trace.artifacts","data":{"toolMetas":[{"toolName":"exec","meta":"date"}]}}
//! ```
//!
//! A trajectory's `finalStatus` is not read: 2026.5.12 writes `success` for a run that
//! ended with a refused request.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::versions::{SessionStore, Version};
use crate::transcript::{
    Call, Entry, Said, ToolResult, ToolRun, Transcript, TranscriptError, is_plain_name,
};

/// Larger than any event; `OpenClaw` itself stops at 4 MiB.
const MAX_EVENT_BYTES: u64 = 16 * 1024 * 1024;

/// The transcript of a session, the newest if none is named.
pub(crate) fn read(home: &Path, session: Option<&str>) -> Result<Transcript, TranscriptError> {
    let config = home.join(".openclaw");
    let none = || TranscriptError::NoSession {
        session: session.unwrap_or_default().to_owned(),
        home: home.to_owned(),
    };
    if session.is_some_and(|session| !is_plain_name(session)) {
        return Err(none());
    }
    for store in Version::session_stores() {
        let found = match store {
            SessionStore::Files(place) => from_files(&config.join(place), session)?,
            SessionStore::Sqlite(place) => from_database(&config.join(place), session)?,
        };
        if let Some(found) = found {
            return Ok(found);
        }
    }
    Err(none())
}

// === files ===

const TRAJECTORY: &str = ".trajectory.jsonl";
const LINES: &str = ".jsonl";

fn from_files(dir: &Path, session: Option<&str>) -> Result<Option<Transcript>, TranscriptError> {
    let session = match session {
        Some(session) => Some(session.to_owned()),
        None => newest_file(dir)?,
    };
    let Some(session) = session else {
        return Ok(None);
    };
    let path = dir.join(format!("{session}{LINES}"));
    if !path.exists() {
        return Ok(None);
    }
    let mut transcript = Transcript {
        session: session.clone(),
        ..Transcript::default()
    };
    each_line(&path, |event| transcript.add_event(event))?;
    let trajectory = dir.join(format!("{session}{TRAJECTORY}"));
    if trajectory.exists() {
        each_line(&trajectory, |event| transcript.add_trace(event))?;
    }
    Ok(Some(transcript))
}

fn newest_file(dir: &Path) -> Result<Option<String>, TranscriptError> {
    if !dir.exists() {
        return Ok(None);
    }
    let failed = |source| TranscriptError::Io {
        path: dir.to_owned(),
        source,
    };
    let mut newest = None;
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(TRAJECTORY) {
            continue;
        }
        let Some(session) = name.strip_suffix(LINES) else {
            continue;
        };
        let changed = entry
            .metadata()
            .and_then(|data| data.modified())
            .map_err(failed)?;
        if newest.as_ref().is_none_or(|(time, _)| *time < changed) {
            newest = Some((changed, session.to_owned()));
        }
    }
    Ok(newest.map(|(_, session)| session))
}

fn each_line(path: &Path, mut take: impl FnMut(&Value)) -> Result<(), TranscriptError> {
    let failed = |source| TranscriptError::Io {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    for line in BufReader::new(file).lines() {
        let line = line.map_err(failed)?;
        if !line.trim().is_empty() {
            take(&event(path, line.as_bytes())?);
        }
    }
    Ok(())
}

fn event(path: &Path, text: &[u8]) -> Result<Value, TranscriptError> {
    serde_json::from_slice(text).map_err(|error| TranscriptError::Malformed {
        path: path.to_owned(),
        expected: "an event as JSON",
        got: error.to_string(),
    })
}

// === database ===

fn from_database(
    path: &Path,
    session: Option<&str>,
) -> Result<Option<Transcript>, TranscriptError> {
    if !path.exists() {
        return Ok(None);
    }
    let failed = |source| TranscriptError::Sqlite {
        path: path.to_owned(),
        source,
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(path, flags).map_err(failed)?;
    let session = match session {
        Some(session) => Some(session.to_owned()),
        None => newest_session(&database).map_err(failed)?,
    };
    let Some(session) = session else {
        return Ok(None);
    };
    let rows = Rows { path, database };
    let mut transcript = Transcript {
        session,
        ..Transcript::default()
    };
    let said = rows.of("transcript_events", &transcript.session)?;
    if said.is_empty() {
        return Ok(None);
    }
    said.iter().for_each(|event| transcript.add_event(event));
    let traced = rows.of("trajectory_runtime_events", &transcript.session)?;
    traced.iter().for_each(|event| transcript.add_trace(event));
    Ok(Some(transcript))
}

fn newest_session(database: &Connection) -> Result<Option<String>, rusqlite::Error> {
    let query =
        "SELECT session_id FROM transcript_events ORDER BY created_at DESC, seq DESC LIMIT 1";
    match database.query_row(query, [], |row| row.get(0)) {
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(None),
        found => found.map(Some),
    }
}

/// An event as it is stored: its text, or that compressed.
type Stored = (Option<String>, Option<Vec<u8>>);

/// The events in a database.
struct Rows<'a> {
    path: &'a Path,
    database: Connection,
}

impl Rows<'_> {
    fn of(&self, table: &'static str, session: &str) -> Result<Vec<Value>, TranscriptError> {
        let stored = self
            .stored(table, session)
            .map_err(|source| TranscriptError::Sqlite {
                path: self.path.to_owned(),
                source,
            })?;
        let events = stored
            .into_iter()
            .map(|(plain, compressed)| match (plain, compressed) {
                (Some(text), _) => event(self.path, text.as_bytes()),
                (None, Some(bytes)) => event(self.path, &self.decompressed(&bytes)?),
                (None, None) => Err(TranscriptError::Malformed {
                    path: self.path.to_owned(),
                    expected: "an event",
                    got: "an empty row".to_owned(),
                }),
            });
        events.collect()
    }

    fn stored(&self, table: &'static str, session: &str) -> Result<Vec<Stored>, rusqlite::Error> {
        // Whether events can be compressed depends on the version and the table.
        let compressed = if self.database.column_exists(None, table, "event_zstd")? {
            "event_zstd"
        } else {
            "NULL"
        };
        let query = format!(
            "SELECT event_json, {compressed} FROM {table} WHERE session_id = ?1 ORDER BY seq"
        );
        let mut statement = self.database.prepare(&query)?;
        let rows = statement.query_map([session], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    }

    fn decompressed(&self, bytes: &[u8]) -> Result<Vec<u8>, TranscriptError> {
        let malformed = |got: String| TranscriptError::Malformed {
            path: PathBuf::from(self.path),
            expected: "an event compressed with zstd",
            got,
        };
        let decoder = ruzstd::decoding::StreamingDecoder::new(bytes);
        let decoder = decoder.map_err(|error| malformed(error.to_string()))?;
        let mut text = Vec::new();
        let read: io::Result<usize> = decoder.take(MAX_EVENT_BYTES).read_to_end(&mut text);
        read.map_err(|error| malformed(error.to_string()))?;
        Ok(text)
    }
}

// === events ===

impl Transcript {
    /// Something that was said; everything else a session records is left out.
    fn add_event(&mut self, event: &Value) {
        if text_at(event, "/type") != Some("message") {
            return;
        }
        let Some(message) = event.get("message") else {
            return;
        };
        self.entries.extend(match text_at(message, "/role") {
            Some("assistant") => Some(Entry::Assistant(said(message))),
            Some("toolResult") => Some(Entry::ToolResult(tool_result(message))),
            Some("user") => Some(Entry::User {
                text: blocks(message, "text", "text"),
            }),
            _ => None,
        });
    }

    /// The tools of a run, from its trajectory.
    fn add_trace(&mut self, event: &Value) {
        if text_at(event, "/type") != Some("trace.artifacts") {
            return;
        }
        let metas = event.pointer("/data/toolMetas").and_then(Value::as_array);
        self.tool_runs
            .extend(metas.into_iter().flatten().map(|meta| ToolRun {
                tool: owned_at(meta, "/toolName").unwrap_or_default(),
                shown: owned_at(meta, "/meta"),
                call: owned_at(meta, "/toolCallId"),
                is_error: meta.get("isError").and_then(Value::as_bool),
            }));
    }
}

fn said(message: &Value) -> Said {
    let reasoning = blocks(message, "thinking", "thinking");
    let calls = content(message).filter(|block| text_at(block, "/type") == Some("toolCall"));
    Said {
        text: blocks(message, "text", "text"),
        reasoning: (!reasoning.is_empty()).then_some(reasoning),
        calls: calls
            .map(|call| Call {
                id: owned_at(call, "/id").unwrap_or_default(),
                tool: owned_at(call, "/name").unwrap_or_default(),
                arguments: call.get("arguments").cloned().unwrap_or_default(),
            })
            .collect(),
        error: owned_at(message, "/errorMessage"),
    }
}

fn tool_result(message: &Value) -> ToolResult {
    ToolResult {
        call: owned_at(message, "/toolCallId").unwrap_or_default(),
        tool: owned_at(message, "/toolName"),
        text: blocks(message, "text", "text"),
        is_error: message.get("isError").and_then(Value::as_bool),
    }
}

/// The text of all blocks of a kind; content that is text as a whole is a text block.
fn blocks(message: &Value, kind: &str, key: &str) -> String {
    if let Some(text) = text_at(message, "/content") {
        return if kind == "text" {
            text.to_owned()
        } else {
            String::new()
        };
    }
    let of_kind = content(message).filter(|block| text_at(block, "/type") == Some(kind));
    let texts: Vec<&str> = of_kind
        .filter_map(|block| block.get(key).and_then(Value::as_str))
        .collect();
    texts.join("\n")
}

fn content(message: &Value) -> impl Iterator<Item = &Value> {
    let blocks = message.get("content").and_then(Value::as_array);
    blocks.into_iter().flatten()
}

fn text_at<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

fn owned_at(value: &Value, pointer: &str) -> Option<String> {
    text_at(value, pointer).map(str::to_owned)
}
