//! Hermes' own record of a session: rows of `state.db`.
//!
//! ```text
//! messages(session_id, role, content, tool_call_id, tool_calls, tool_name, reasoning, reasoning_content, active, …)
//! tool_calls: [{"id":"functions.terminal:0","type":"function","function":{"name":"terminal","arguments":"{…}"}}]
//! ```
//!
//! Rows that are not `active` were rewound and are left out. A refused request leaves
//! no row; what the model's side said is in the log.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, Row};
use serde_json::Value;

use crate::transcript::{
    Call, Entry, Said, ToolResult, Transcript, TranscriptError, is_plain_name,
};

const NEWEST: &str = "SELECT id FROM sessions ORDER BY started_at DESC LIMIT 1";
const MESSAGES: &str = "SELECT role, content, tool_call_id, tool_calls, tool_name, \
                        coalesce(reasoning_content, reasoning) \
                        FROM messages WHERE session_id = ?1 AND active = 1 ORDER BY id";

/// The transcript of a session, the newest if none is named.
pub(crate) fn read(home: &Path, session: Option<&str>) -> Result<Transcript, TranscriptError> {
    let path = home.join(".hermes").join("state.db");
    let none = || TranscriptError::NoSession {
        session: session.unwrap_or_default().to_owned(),
        home: home.to_owned(),
    };
    if session.is_some_and(|session| !is_plain_name(session)) || !path.exists() {
        return Err(none());
    }
    let failed = |source| TranscriptError::Sqlite {
        path: path.clone(),
        source,
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(&path, flags).map_err(failed)?;
    let session = match session {
        Some(session) => session.to_owned(),
        None => match database.query_row(NEWEST, [], |row| row.get(0)) {
            Err(rusqlite::Error::QueryReturnedNoRows) => return Err(none()),
            found => found.map_err(failed)?,
        },
    };
    let messages = messages(&database, &session).map_err(failed)?;
    if messages.is_empty() {
        return Err(none());
    }
    let entries: Result<Vec<_>, String> = messages.into_iter().map(Message::entry).collect();
    let entries = entries.map_err(|got| TranscriptError::Malformed {
        path: path.clone(),
        expected: "a message",
        got,
    })?;
    Ok(Transcript {
        session,
        entries: entries.into_iter().flatten().collect(),
        tool_runs: Vec::new(),
    })
}

/// A row.
struct Message {
    role: String,
    content: String,
    tool_call: Option<String>,
    tool_calls: Option<String>,
    tool: Option<String>,
    reasoning: Option<String>,
}

fn messages(database: &Connection, session: &str) -> Result<Vec<Message>, rusqlite::Error> {
    let mut statement = database.prepare(MESSAGES)?;
    let rows = statement.query_map([session], Message::of)?;
    rows.collect()
}

impl Message {
    fn of(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            role: row.get(0)?,
            content: row.get::<_, Option<String>>(1)?.unwrap_or_default(),
            tool_call: row.get(2)?,
            tool_calls: row.get(3)?,
            tool: row.get(4)?,
            reasoning: row.get(5)?,
        })
    }

    fn entry(self) -> Result<Option<Entry>, String> {
        Ok(match self.role.as_str() {
            "assistant" => Some(Entry::Assistant(Said {
                calls: self.tool_calls.as_deref().map_or(Ok(Vec::new()), calls)?,
                text: self.content,
                reasoning: self.reasoning.filter(|reasoning| !reasoning.is_empty()),
                error: None,
            })),
            "tool" => Some(Entry::ToolResult(ToolResult {
                call: self.tool_call.unwrap_or_default(),
                tool: self.tool,
                text: self.content,
                is_error: None,
            })),
            "user" => Some(Entry::User { text: self.content }),
            _ => None,
        })
    }
}

fn calls(text: &str) -> Result<Vec<Call>, String> {
    let calls: Vec<Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let text_at = |call: &Value, pointer: &str| {
        let text = call.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let call = |call: &Value| Call {
        id: text_at(call, "/id"),
        tool: text_at(call, "/function/name"),
        // What is no JSON is kept as the text it is.
        arguments: serde_json::from_str(&text_at(call, "/function/arguments"))
            .unwrap_or_else(|_| Value::String(text_at(call, "/function/arguments"))),
    };
    Ok(calls.iter().map(call).collect())
}
