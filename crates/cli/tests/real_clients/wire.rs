//! Answers that travel badly.

use serde_json::{Value, json};

use crate::client::{RAW_STREAM, STREAMING};
use crate::heard::{Outcome, Script, native};
use crate::stage::{Cast, Way};

#[test]
fn real_client_finishes_when_answers_come_byte_by_byte_with_comments_and_no_done() {
    let wire =
        r#"{"chunk_bytes": 1, "line_ending": "crlf", "keep_alive": true, "omit_done": true}"#;
    Cast::persona("kimi-k2.6")
        .behaving(wire)
        .play(|stage| stage.expect_all_to_finish(&STREAMING, Script::of_turns(2)));
}

#[test]
fn real_client_finishes_when_answers_are_compressed_and_lines_end_in_carriage_returns() {
    let wire = r#"{"gzip": true, "line_ending": "cr", "fragment_chars": 1}"#;
    Cast::persona("kimi-k2.6")
        .behaving(wire)
        .play(|stage| stage.expect_all_to_finish(&STREAMING, Script::of_turns(1)));
}

#[test]
fn real_client_finishes_when_parallel_calls_come_interleaved() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../sim/personas/kimi-k2.6.json"
    );
    let mut sheet: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    sheet["script"]["calls_per_round"] = json!(3);
    let script = Script {
        turns: 2,
        calls: 3,
        ids: |n| vec![native(n)],
    };
    Cast::sheet(&sheet.to_string())
        .behaving(r#"{"call_order": "interleaved", "fragment_chars": 3}"#)
        .play(|stage| stage.expect_all_to_finish(&STREAMING, script));
}

#[test]
fn real_client_is_told_of_an_answer_that_breaks_off() {
    for wire in [
        r#"{"fault": {"close_after": 3}}"#,
        r#"{"fault": {"close_mid_event": 3}}"#,
        r#"{"fault": {"error_after": 3}}"#,
    ] {
        Cast::persona("kimi-k2.6").behaving(wire).play(|stage| {
            let report = stage.run(&RAW_STREAM.asks("How is this machine?"), Way::Through);
            assert!(!report.ok, "{report:?}");
            assert_eq!(report.rounds, 0, "{report:?}");
            let error = report.error.unwrap_or_default();
            assert!(error.starts_with("APIError: "), "{error}");
            assert_eq!(stage.log().entries.len(), 1);
            assert_ne!(stage.log().entries[0].outcome, Outcome::Speaking);
        });
    }
}
