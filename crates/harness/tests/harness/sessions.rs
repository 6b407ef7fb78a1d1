//! What harnesses recorded of real sessions, read.
//!
//! The records are of runs against a persona that thinks and calls `exec` with three commands in one; paths and
//! accounts of tokens are cut out of them. Where a harness keeps a database, one of its own schema is filled.

use std::fs;
use std::path::{Path, PathBuf};

use farrier_harness::named;
use farrier_harness::transcript::{Entry, Transcript, TranscriptError};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::support::tests;

const COMMAND: &str = "hostname; date; uptime";

fn recorded(name: &str) -> PathBuf {
    tests().join("sessions").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(recorded(name)).unwrap()
}

/// A home of OpenClaw with files of a session.
fn openclaw_files(version: &str, session: &str) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join(".openclaw/agents/main/sessions");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("sessions.json"), "{}").unwrap();
    let place = |suffix: &str| {
        let from = recorded(&format!("openclaw-{version}{suffix}"));
        if from.exists() {
            fs::copy(from, dir.join(format!("{session}{suffix}"))).unwrap();
        }
    };
    place(".jsonl");
    place(".trajectory.jsonl");
    home
}

/// A home of OpenClaw with a database of the schema of 2026.9.6; the first tool result is compressed.
fn openclaw_database(session: &str) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join(".openclaw/agents/main/agent");
    fs::create_dir_all(&dir).unwrap();
    let database = Connection::open(dir.join("openclaw-agent.sqlite")).unwrap();
    let schema = "CREATE TABLE transcript_events (session_id TEXT NOT NULL, seq INTEGER NOT NULL, event_json TEXT,
          created_at INTEGER NOT NULL, event_zstd BLOB, event_utf8_bytes INTEGER, navigation_json TEXT,
          PRIMARY KEY (session_id, seq)) STRICT;
        CREATE TABLE trajectory_runtime_events (session_id TEXT NOT NULL, seq INTEGER NOT NULL, run_id TEXT,
          event_json TEXT NOT NULL, created_at INTEGER NOT NULL, PRIMARY KEY (session_id, seq)) STRICT;";
    database.execute_batch(schema).unwrap();
    let insert = |table: &str, seq: i64, event: &str| {
        let query = format!(
            "INSERT INTO {table} (session_id, seq, event_json, created_at) VALUES (?1, ?2, ?3, ?2)"
        );
        database.execute(&query, (session, seq, event)).unwrap();
    };
    for (seq, event) in (0..).zip(text("openclaw-2026.9.6.jsonl").lines()) {
        insert("transcript_events", seq, event);
    }
    for (seq, event) in (0..).zip(text("openclaw-2026.9.6.trajectory.jsonl").lines()) {
        insert("trajectory_runtime_events", seq, event);
    }
    let compressed = fs::read(recorded("openclaw-2026.9.6.event.zst")).unwrap();
    let query = "UPDATE transcript_events SET event_json = NULL, event_zstd = ?1 WHERE seq =
                 (SELECT min(seq) FROM transcript_events WHERE event_json LIKE '%toolResult%')";
    assert_eq!(database.execute(query, [compressed]).unwrap(), 1);
    home
}

fn read(harness: &str, home: &Path, session: Option<&str>) -> Result<Transcript, TranscriptError> {
    named(harness).unwrap().transcript(home, session)
}

fn runs(transcript: &Transcript) -> Vec<(&str, Option<&str>, Option<&str>)> {
    let each = transcript.tool_runs.iter();
    each.map(|run| (run.tool.as_str(), run.shown.as_deref(), run.call.as_deref()))
        .collect()
}

/// The first turn: the user, the combined call with its thought, the tool, the answer.
fn first_turn_is_whole(transcript: &Transcript, tool: &str, id: &str) {
    let [
        Entry::User { text },
        Entry::Assistant(said),
        Entry::ToolResult(result),
        ..,
    ] = &transcript.entries[..]
    else {
        panic!("{transcript:#?}");
    };
    assert_eq!(text, "Report hostname, date and uptime");
    assert!(
        said.reasoning.as_ref().unwrap().starts_with("THOUGHT "),
        "{said:?}"
    );
    let call = &said.calls[0];
    assert_eq!((call.id.as_str(), call.tool.as_str()), (id, tool));
    assert_eq!(call.arguments, serde_json::json!({"command": COMMAND}));
    assert_eq!(
        (result.call.as_str(), result.tool.as_deref()),
        (id, Some(tool))
    );
    assert!(result.text.contains("load average"), "{result:?}");
}

#[test]
fn a_session_of_2026_4_21_is_lines_without_a_trajectory() {
    let home = openclaw_files("2026.4.21", "t1");
    let transcript = read("openclaw", home.path(), Some("t1")).unwrap();
    first_turn_is_whole(&transcript, "exec", "functions.exec:0");
    assert_eq!(transcript.tool_runs, []);
    assert_eq!(transcript.session, "t1");
}

#[test]
fn a_session_of_2026_5_12_has_a_trajectory_and_tells_why_it_failed() {
    let home = openclaw_files("2026.5.12", "t1");
    let transcript = read("openclaw", home.path(), None).unwrap();
    first_turn_is_whole(&transcript, "exec", "functions.exec:0");
    assert_eq!(runs(&transcript), [("exec", Some(COMMAND), None)]);
    let last = transcript.said().last().unwrap();
    assert_eq!(
        last.error.as_deref(),
        Some(
            "400 thinking is enabled but reasoning_content is missing in assistant tool call message at index 2"
        )
    );
}

#[test]
fn a_session_of_2026_9_6_is_rows_some_of_them_compressed() {
    let home = openclaw_database("t1");
    for session in [Some("t1"), None] {
        let transcript = read("openclaw", home.path(), session).unwrap();
        first_turn_is_whole(&transcript, "exec", "functions.exec:0");
        assert_eq!(
            runs(&transcript),
            [
                ("exec", Some(COMMAND), Some("functions.exec:0")),
                ("exec", Some(COMMAND), Some("functions.exec:1"))
            ]
        );
        let users = transcript
            .entries
            .iter()
            .filter(|entry| matches!(entry, Entry::User { .. }));
        assert_eq!(
            (
                users.count(),
                transcript.calls().count(),
                transcript.tool_results().count()
            ),
            (2, 2, 2)
        );
        assert!(
            transcript
                .said()
                .last()
                .unwrap()
                .text
                .starts_with("FINAL answer of turn 2")
        );
    }
}

#[test]
fn a_session_of_hermes_is_rows_of_its_state() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join(".hermes")).unwrap();
    let database = Connection::open(home.path().join(".hermes/state.db")).unwrap();
    database.execute_batch(&text("hermes-0.19.0.sql")).unwrap();
    let newest = read("hermes", home.path(), None).unwrap();
    first_turn_is_whole(&newest, "terminal", "functions.terminal:0");
    assert_eq!(
        read("hermes", home.path(), Some(&newest.session)).unwrap(),
        newest
    );
    let rewound = "UPDATE messages SET active = 0 WHERE role = 'tool'";
    database.execute(rewound, []).unwrap();
    let left = read("hermes", home.path(), None).unwrap();
    assert_eq!(
        left.tool_results().count(),
        0,
        "what was rewound is no part of it"
    );
}

#[test]
fn a_session_that_is_not_there_or_no_name_is_none() {
    let (files, database) = (openclaw_files("2026.5.12", "t1"), openclaw_database("t1"));
    for home in [files.path(), database.path()] {
        for session in ["t2", "../sessions/t1", "/etc/passwd", "", "."] {
            let error = read("openclaw", home, Some(session)).unwrap_err();
            assert!(
                matches!(error, TranscriptError::NoSession { .. }),
                "{error}"
            );
        }
    }
    let nothing = tempfile::tempdir().unwrap();
    for harness in ["openclaw", "hermes"] {
        let error = read(harness, nothing.path(), None).unwrap_err();
        assert!(
            matches!(error, TranscriptError::NoSession { .. }),
            "{error}"
        );
    }
    assert!(matches!(
        read("env", nothing.path(), None),
        Err(TranscriptError::KeepsNone)
    ));
}

#[test]
fn a_record_that_was_cut_off_is_told_and_not_guessed_at() {
    let home = openclaw_files("2026.4.21", "t1");
    let path = home.path().join(".openclaw/agents/main/sessions/t1.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 20]).unwrap();
    let error = read("openclaw", home.path(), Some("t1")).unwrap_err();
    assert!(
        matches!(error, TranscriptError::Malformed { .. }),
        "{error}"
    );
    let home = openclaw_database("t1");
    let path = home
        .path()
        .join(".openclaw/agents/main/agent/openclaw-agent.sqlite");
    let database = Connection::open(path).unwrap();
    let cut = "UPDATE transcript_events SET event_zstd = x'28b52ffd' WHERE event_zstd IS NOT NULL";
    assert_eq!(database.execute(cut, []).unwrap(), 1);
    let error = read("openclaw", home.path(), Some("t1")).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("expected an event compressed with zstd"),
        "{error}"
    );
}
