//! The split at the wire: seed-behaviour KIMI-1…25, as far as they can be stated
//! there. KIMI-18 and -20 concern a harness's partial objects, KIMI-15…17 matching
//! (see the registry), KIMI-23 and -24 what a gateway must not do.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::passes::event::{Placed, Step};
use crate::passes::{Mint, Notes, Recollection, Survey, kind};
use crate::plan::Reply;
use crate::run::End;
use crate::wire::chat::Ask;

fn pass() -> Arc<dyn Pass> {
    let given = json!({
        "tool": "exec", "argument": "command", "separator": ";",
        "allow": ["hostname", "date", "uptime"], "idBase": "kimi_exec",
    });
    let kind = kind("split-combined-call").expect("in the table");
    let params = Params::check(given.as_object().expect("an object"), kind.params).expect("fits");
    (kind.build)(&params).expect("builds")
}

fn reply() -> Reply {
    let ask = Ask::parse(br#"{"messages":[]}"#).expect("a request");
    let survey = Survey::of(&ask, crate::passes::Needs::default());
    let scene = Scene {
        survey: &survey,
        recollection: &Recollection::default(),
        origin: "p/m",
        mint: Mint::new([0; 16]),
        notes: &mut Notes::default(),
    };
    Reply {
        placed: vec![Placed {
            manifest: "test".into(),
            name: "split-combined-call",
            pass: pass().reply(&scene).expect("reads the reply"),
        }],
        record: None,
    }
}

/// A whole reply through the pass.
fn whole(body: &str) -> String {
    let done = reply().into_json().finish(body.as_bytes().to_vec().into());
    String::from_utf8(done.body.to_vec()).expect("UTF-8")
}

/// The same as a message of these calls: what the client gets as calls.
fn split(calls: Json) -> Json {
    let body = json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": null, "tool_calls": calls}, "finish_reason": "tool_calls"}]});
    let out: Json = serde_json::from_str(&whole(&body.to_string())).expect("JSON");
    out["choices"][0]["message"]["tool_calls"].clone()
}

fn call(id: &str, command: &str) -> Json {
    json!({"id": id, "type": "function", "function": {"name": "exec", "arguments": json!({"command": command}).to_string()}})
}

fn ids(calls: &Json) -> Vec<&str> {
    calls
        .as_array()
        .expect("a list")
        .iter()
        .map(|call| call["id"].as_str().expect("an id"))
        .collect()
}

fn commands(calls: &Json) -> Vec<String> {
    calls
        .as_array()
        .expect("a list")
        .iter()
        .map(|call| {
            let text = call["function"]["arguments"].as_str().expect("a string");
            let arguments: Json = serde_json::from_str(text).expect("JSON");
            arguments["command"].as_str().expect("a command").to_owned()
        })
        .collect()
}

/// A stream through the pass, read `size` bytes at a time.
fn streamed(upstream: &str, size: usize, end: End) -> String {
    let mut run = reply().into_stream();
    let mut steps = Vec::new();
    for read in upstream.as_bytes().chunks(size) {
        if run.push(read.to_vec().into(), &mut steps).is_err() {
            break;
        }
    }
    run.end(end, &mut steps);
    let bytes: Vec<u8> = steps
        .into_iter()
        .flat_map(|step| match step {
            Step::Forward(bytes) => bytes.to_vec(),
            Step::Commit(_) => panic!("nothing is recorded here"),
        })
        .collect();
    String::from_utf8(bytes).expect("UTF-8")
}

fn delta(delta: Json) -> String {
    chunk(delta, Json::Null)
}

fn chunk(delta: Json, finish: Json) -> String {
    format!(
        "data: {}\n\n",
        json!({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
    )
}

fn opening(index: u64, id: &str, name: &str, arguments: &str) -> String {
    delta(
        json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}]}),
    )
}

fn more(index: u64, arguments: &str) -> String {
    delta(json!({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}))
}

/// The calls a client folds a stream into: (id, name, arguments), by index.
fn folded(stream: &str) -> Vec<(String, String, String)> {
    let mut calls: std::collections::BTreeMap<u64, (String, String, String)> = Default::default();
    let mut last = None;
    for line in stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
    {
        let Ok(event) = serde_json::from_str::<Json>(line) else {
            continue;
        };
        for call in event["choices"][0]["delta"]["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let index = call["index"].as_u64().expect("an index");
            let entry = calls.entry(index).or_default();
            assert!(
                last.is_none_or(|last| index >= last),
                "arguments are interleaved: {stream}"
            );
            last = Some(index);
            entry.0 += call["id"].as_str().unwrap_or_default();
            entry.1 += call["function"]["name"].as_str().unwrap_or_default();
            entry.2 += call["function"]["arguments"].as_str().unwrap_or_default();
        }
    }
    assert!(
        calls.keys().copied().eq(0..calls.len() as u64),
        "indexes have holes: {stream}"
    );
    calls.into_values().collect()
}

#[test]
fn kimi_01_object_arguments_stay_objects() {
    let got = split(
        json!([{"id": "call_kimi_exec", "type": "function", "function": {"name": "exec", "arguments": {"command": "hostname; date; uptime"}}}]),
    );
    assert_eq!(
        ids(&got),
        [
            "call_kimi_exec_split_1_hostname",
            "call_kimi_exec_split_2_date",
            "call_kimi_exec_split_3_uptime"
        ]
    );
    assert_eq!(got[1]["function"]["arguments"], json!({"command": "date"}));
}

#[test]
fn kimi_02_string_arguments_stay_strings_in_order() {
    let got = split(json!([call("x", " hostname ;  date ; uptime ")]));
    assert_eq!(commands(&got), ["hostname", "date", "uptime"]);
}

#[test]
fn kimi_03_transient_fields_are_dropped() {
    let mut combined = call("x", "hostname; date");
    combined["partialArgs"] = json!("{");
    let got = split(json!([combined]));
    let keys: Vec<&String> = got[0].as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["function", "id", "type"]);
}

#[test]
fn kimi_04_earlier_split_suffix_is_not_repeated() {
    assert_eq!(
        ids(&split(json!([call(
            "x_split_1_hostname",
            "hostname; date"
        )]))),
        ["x_split_1_hostname", "x_split_2_date"]
    );
    // Only a suffix of our own form is one.
    assert_eq!(
        ids(&split(json!([call("x_split_1_rm", "hostname; date")])))[0],
        "x_split_1_rm_split_1_hostname"
    );
}

#[test]
fn kimi_05_missing_blank_or_odd_id_gets_the_base() {
    for id in [json!(null), json!("  "), json!(7)] {
        let mut combined = call("x", "hostname; date");
        combined["id"] = id;
        assert_eq!(
            ids(&split(json!([combined]))),
            ["kimi_exec_split_1_hostname", "kimi_exec_split_2_date"]
        );
    }
    let mut combined = call("x", "hostname; date");
    combined.as_object_mut().expect("an object").remove("id");
    assert_eq!(
        ids(&split(json!([combined])))[0],
        "kimi_exec_split_1_hostname"
    );
}

#[test]
fn kimi_06_native_id_is_kept_as_base() {
    assert_eq!(
        ids(&split(json!([call("functions.exec:0", "hostname; date")])))[0],
        "functions.exec:0_split_1_hostname"
    );
}

/// Each refused command of the rule.
const REFUSED: &[&str] = &[
    "hostname && date",
    "hostname || date",
    "hostname | date",
    "hostname > x; date",
    "$HOME; date",
    "$(date); date",
    "`date`; date",
    "'date'; date",
    "\"date\"; date",
    "date -u; uptime",
    "hostname; date;",
    "; hostname; date",
    "hostname;; date",
    "rm; date",
    "hostname",
    "Hostname; date",
    "HOSTNAME; DATE",
    "",
    ";",
    " ; ",
    "hostname date",
    "hostname; date & uptime",
    "cd x; make",
];

#[test]
fn kimi_07_refused_commands_pass_byte_for_byte() {
    for command in REFUSED {
        let body = json!({"choices": [{"message": {"tool_calls": [call("x", command)]}, "finish_reason": "stop"}]}).to_string();
        assert_eq!(whole(&body), body, "{command}");
        let arguments = json!({"command": command}).to_string();
        let stream = format!(
            "{}{}data: [DONE]\n\n",
            opening(0, "x", "exec", &arguments),
            chunk(json!({}), json!("stop"))
        );
        assert_eq!(streamed(&stream, 7, End::Clean), stream, "{command}");
    }
}

#[test]
fn kimi_07_refused_shapes_pass_byte_for_byte() {
    let odd = [
        r#"{"command":"hostname; date","timeout":5}"#,
        r#"["hostname; date"]"#,
        r#"{"command":["hostname; date"]}"#,
        r#"{"cmd":"hostname; date"}"#,
        r#"{"command":"hostname; date"#,
        r#"{"command":"hostname; date"}}"#,
        r#"{"command":"hostname; \ud83d"}"#,
        "hostname; date",
        "",
        "{}",
        "null",
    ];
    for arguments in odd {
        let call = json!([{"id": "x", "type": "function", "function": {"name": "exec", "arguments": arguments}}]);
        assert_eq!(split(call.clone()), call, "{arguments}");
        let stream = format!(
            "{}{}",
            opening(0, "x", "exec", arguments),
            chunk(json!({}), json!("tool_calls"))
        );
        assert_eq!(streamed(&stream, 5, End::Clean), stream, "{arguments}");
    }
    for name in ["Exec", "shell", "exec "] {
        let mut other = call("x", "hostname; date");
        other["function"]["name"] = json!(name);
        assert_eq!(split(json!([other.clone()])), json!([other]), "{name}");
    }
}

#[test]
fn kimi_08_repeated_command_is_told_once() {
    assert_eq!(
        ids(&split(json!([call("x", "date; date")]))),
        ["x_split_1_date"]
    );
}

#[test]
fn kimi_09_positions_are_those_of_the_original() {
    let got = split(json!([call("x", "uptime;hostname;date;uptime")]));
    assert_eq!(
        ids(&got),
        ["x_split_1_uptime", "x_split_2_hostname", "x_split_3_date"]
    );
}

#[test]
fn kimi_10_separate_calls_are_left_alone() {
    for calls in [
        json!([call("a", "hostname"), call("b", "date")]),
        json!([call("a", "date"), call("b", "date")]),
    ] {
        assert_eq!(split(calls.clone()), calls);
    }
}

#[test]
fn kimi_11_text_beside_a_combined_call_is_kept() {
    let body = json!({"choices": [{"message": {"content": "Let me look.", "tool_calls": [call("x", "hostname; date; uptime")]}, "finish_reason": "tool_calls"}]});
    let out: Json = serde_json::from_str(&whole(&body.to_string())).expect("JSON");
    assert_eq!(out["choices"][0]["message"]["content"], "Let me look.");
    assert_eq!(
        commands(&out["choices"][0]["message"]["tool_calls"]).len(),
        3
    );
}

#[test]
fn kimi_12_two_identical_combined_calls_alone_make_three() {
    let both = json!([
        call("a", "hostname; date; uptime"),
        call("b", "hostname; date; uptime")
    ]);
    assert_eq!(
        ids(&split(both)),
        ["a_split_1_hostname", "a_split_2_date", "a_split_3_uptime"]
    );
    let stream = format!(
        "{}{}{}",
        opening(0, "a", "exec", r#"{"command":"hostname; date"}"#),
        opening(1, "b", "exec", r#"{"command":"hostname; date"}"#),
        chunk(json!({}), json!("tool_calls"))
    );
    assert_eq!(folded(&streamed(&stream, 4096, End::Clean)).len(), 2);
}

#[test]
fn kimi_12_split_calls_beside_the_combined_one_make_three() {
    let mixed = json!([
        call("a", "hostname"),
        call("b", "date"),
        call("c", "hostname; date; uptime")
    ]);
    assert_eq!(commands(&split(mixed)), ["hostname", "date", "uptime"]);
    let stream = format!(
        "{}{}{}{}",
        opening(0, "a", "exec", r#"{"command":"hostname"}"#),
        opening(1, "b", "exec", r#"{"command":"hostname; date; uptime"}"#),
        opening(2, "c", "exec", r#"{"command":"date"}"#),
        chunk(json!({}), json!("tool_calls"))
    );
    for size in [1, 9, 4096] {
        let got = folded(&streamed(&stream, size, End::Clean));
        let ids: Vec<&str> = got.iter().map(|call| call.0.as_str()).collect();
        assert_eq!(ids, ["a", "b_split_2_date", "b_split_3_uptime"]);
    }
}

#[test]
fn kimi_13_text_beside_two_identical_combined_calls_makes_six() {
    let body = json!({"choices": [{"message": {"content": "x", "tool_calls": [call("a", "hostname; date; uptime"), call("b", "hostname; date; uptime")]}}]});
    let out: Json = serde_json::from_str(&whole(&body.to_string())).expect("JSON");
    assert_eq!(
        commands(&out["choices"][0]["message"]["tool_calls"]).len(),
        6
    );
    let stream = format!(
        "{}{}{}{}",
        delta(json!({"content": "x"})),
        opening(0, "a", "exec", r#"{"command":"hostname; date; uptime"}"#),
        opening(1, "b", "exec", r#"{"command":"hostname; date; uptime"}"#),
        chunk(json!({}), json!("tool_calls"))
    );
    assert_eq!(folded(&streamed(&stream, 4096, End::Clean)).len(), 6);
}

#[test]
fn kimi_14_stop_becomes_tool_calls_and_nothing_else_does() {
    for (reason, want) in [
        ("stop", "tool_calls"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        ("content_filter", "content_filter"),
    ] {
        let body = json!({"choices": [{"message": {"tool_calls": [call("x", "hostname; date")]}, "finish_reason": reason}]});
        let out: Json = serde_json::from_str(&whole(&body.to_string())).expect("JSON");
        assert_eq!(out["choices"][0]["finish_reason"], want);
        let stream = format!(
            "{}{}",
            opening(0, "x", "exec", r#"{"command":"hostname; date"}"#),
            chunk(json!({}), json!(reason))
        );
        assert!(
            streamed(&stream, 4096, End::Clean).contains(&format!("\"finish_reason\":\"{want}\""))
        );
    }
}

#[test]
fn kimi_19_incomplete_call_is_released_as_it_came() {
    let stream = opening(0, "x", "exec", r#"{"command":"hostna"#);
    for end in [End::Truncated, End::Failed] {
        let out = streamed(&stream, 4096, end);
        assert!(out.starts_with(&stream), "{out}");
        assert!(
            out[stream.len()..].starts_with("data: {\"error\":"),
            "{out}"
        );
        assert!(!out.contains("data: [DONE]"));
    }
    assert_eq!(streamed(&stream, 4096, End::ClientGone), "");
}

#[test]
fn kimi_19_combined_call_cut_off_before_its_end_is_not_split() {
    let stream = opening(0, "x", "exec", r#"{"command":"hostname; date"}"#);
    assert!(streamed(&stream, 4096, End::Truncated).starts_with(&stream));
}

#[test]
fn kimi_21_calls_behind_the_split_move_up() {
    let stream = format!(
        "{}{}{}{}{}",
        opening(0, "a", "read", "{}"),
        opening(1, "b", "exec", r#"{"command":"hostname; date; uptime"}"#),
        opening(2, "c", "write", r#"{"x":"#),
        more(2, "1}"),
        chunk(json!({}), json!("tool_calls"))
    );
    let got = folded(&streamed(&stream, 33, End::Clean));
    let names: Vec<&str> = got.iter().map(|call| call.1.as_str()).collect();
    assert_eq!(names, ["read", "exec", "exec", "exec", "write"]);
    assert_eq!(got[4].2, r#"{"x":1}"#);
}

#[test]
fn i8_everything_but_the_suspected_call_is_forwarded_at_once() {
    let mut run = reply().into_stream();
    let mut steps = Vec::new();
    let mut push = |text: &str, steps: &mut Vec<Step>| {
        run.push(text.as_bytes().to_vec().into(), steps)
            .expect("goes on");
        std::mem::take(steps).len()
    };
    assert_eq!(
        push(
            &delta(json!({"role": "assistant", "content": "x"})),
            &mut steps
        ),
        1
    );
    assert_eq!(
        push(&opening(0, "a", "exec", ""), &mut steps),
        0,
        "held while it may be combined"
    );
    assert_eq!(
        push(&delta(json!({"reasoning_content": "hm"})), &mut steps),
        1,
        "reasoning goes by"
    );
    assert_eq!(push(": keep-alive\n\n", &mut steps), 1, "so do comments");
    assert_eq!(push(&more(0, "{\"command\":\"date"), &mut steps), 0);
    assert_eq!(
        push(&more(0, " -u"), &mut steps),
        3,
        "released the moment it cannot match"
    );
    assert_eq!(
        push(&more(0, "\"}"), &mut steps),
        1,
        "and let through from then on"
    );
}

#[test]
fn single_command_is_released_when_no_separator_can_follow() {
    let mut run = reply().into_stream();
    let mut steps = Vec::new();
    run.push(
        opening(0, "a", "exec", "{\"command\":\"date\"").into(),
        &mut steps,
    )
    .expect("goes on");
    assert_eq!(steps.len(), 1);
}

#[test]
fn what_is_held_is_bounded() {
    let mut run = reply().into_stream();
    let mut steps = Vec::new();
    run.push(opening(0, "a", "exec", "{").into(), &mut steps)
        .expect("goes on");
    let blanks = more(0, &" ".repeat(4096));
    let mut pushed = 0;
    while steps.is_empty() {
        run.push(blanks.clone().into(), &mut steps)
            .expect("goes on");
        pushed += blanks.len();
        assert!(pushed < 2 * MAX_HELD_BYTES, "nothing was released");
    }
    assert!(steps.len() > 10, "all of it was released");
}

#[test]
fn interleaved_call_waits_for_the_suspect_and_comes_out_after_it() {
    let stream = format!(
        "{}{}{}{}{}{}",
        opening(0, "a", "exec", "{\"command\":"),
        opening(1, "b", "read", "{\"p\":"),
        more(0, "\"hostname; "),
        more(1, "1}"),
        more(0, "date\"}"),
        chunk(json!({}), json!("tool_calls"))
    );
    let got = folded(&streamed(&stream, 4096, End::Clean));
    let calls: Vec<(&str, &str)> = got
        .iter()
        .map(|call| (call.0.as_str(), call.2.as_str()))
        .collect();
    assert_eq!(
        calls,
        [
            ("a_split_1_hostname", r#"{"command":"hostname"}"#),
            ("a_split_2_date", r#"{"command":"date"}"#),
            ("b", r#"{"p":1}"#)
        ]
    );
}

#[test]
fn arguments_after_the_call_was_complete_end_the_stream_with_an_error() {
    let stream = format!(
        "{}{}{}{}",
        opening(0, "a", "exec", r#"{"command":"hostname; date"}"#),
        opening(1, "b", "read", "{}"),
        more(0, "  "),
        more(0, "{}")
    );
    let out = streamed(&stream, 4096, End::Clean);
    assert!(
        out.ends_with("\n\n") && out.contains("arguments_after_end"),
        "{out}"
    );
}

#[test]
fn role_of_a_held_chunk_reaches_the_client() {
    let stream = format!(
        "{}{}",
        delta(
            json!({"role": "assistant", "content": null, "tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "exec", "arguments": "{\"command\":\"hostname; date\"}"}}]})
        ),
        chunk(json!({}), json!("tool_calls"))
    );
    let out = streamed(&stream, 4096, End::Clean);
    assert_eq!(out.matches("\"role\":\"assistant\"").count(), 1, "{out}");
    assert_eq!(folded(&out).len(), 2);
}

#[test]
fn text_in_the_same_chunk_as_a_suspect_is_not_held() {
    let both = delta(
        json!({"content": "x", "tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "exec", "arguments": "{"}}]}),
    );
    let mut run = reply().into_stream();
    let mut steps = Vec::new();
    run.push(both.into(), &mut steps).expect("goes on");
    let [Step::Forward(text)] = steps.as_slice() else {
        panic!("one step, got {steps:?}")
    };
    assert!(text.starts_with(b"data: ") && !String::from_utf8_lossy(text).contains("tool_calls"));
}

#[test]
fn each_choice_is_split_on_its_own() {
    let of = |choice: u64, id: &str, command: &str| {
        format!(
            "data: {}\n\n",
            json!({"choices": [{"index": choice, "delta": {"tool_calls": [{"index": 0, "id": id, "function": {"name": "exec", "arguments": json!({"command": command}).to_string()}}]}, "finish_reason": null}]})
        )
    };
    let stream = format!(
        "{}{}data: [DONE]\n\n",
        of(0, "a", "hostname; date"),
        of(1, "b", "ls; pwd")
    );
    let out = streamed(&stream, 4096, End::Clean);
    assert!(out.contains("a_split_2_date"));
    assert!(out.contains(&of(1, "b", "ls; pwd")));
}

proptest! {
    #[test]
    fn kimi_25_splits_exactly_what_the_rule_says(command in "(hostname|date|uptime|x|;|&|\\||\\$|\\(|\\)| |\n){0,9}") {
        let pieces: Vec<&str> = command.split(';').map(str::trim).collect();
        let allowed = ["hostname", "date", "uptime"];
        let should = pieces.len() > 1 && pieces.iter().all(|piece| allowed.contains(piece));
        let before = json!([call("x", &command)]);
        let after = split(before.clone());
        prop_assert_eq!(after != before, should);
        if should {
            prop_assert!(commands(&after).iter().all(|command| allowed.contains(&command.as_str())));
        }
        let arguments = json!({"command": command}).to_string();
        let stream = format!("{}{}data: [DONE]\n\n", opening(0, "x", "exec", &arguments), chunk(json!({}), json!("tool_calls")));
        let out = streamed(&stream, 4096, End::Clean);
        prop_assert_eq!(out != stream, should);
        // Streamed and whole agree.
        let want: Vec<String> = ids(&after).into_iter().map(str::to_owned).collect();
        let got: Vec<String> = folded(&out).into_iter().map(|call| call.0).collect();
        prop_assert_eq!(got, want);
    }

    #[test]
    fn verdict_on_a_prefix_never_contradicts_the_whole(command in "(hostname|date| |;|\\\\|\"|\n|é){0,6}", pretty in any::<bool>()) {
        let value = json!({"command": command});
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.expect("JSON");
        let Ok(rule) = rule() else { unreachable!("a rule") };
        let whole = rule.judge(&text);
        for at in 0..text.len() {
            if let Some(prefix) = text.get(..at) && rule.judge(prefix) == Verdict::Other(None) {
                prop_assert_eq!(&whole, &Verdict::Other(None), "{} at {}", text, at);
            }
        }
    }

    #[test]
    fn i5_fragments_cut_anywhere_fold_to_the_same_calls(cuts in proptest::collection::vec(1usize..12, 1..20), size in 1usize..64) {
        let text = r#"{ "command" : "hostname ;\tdate; uptime" }"#;
        let mut stream = opening(0, "functions.exec:0", "exec", "");
        let mut rest = text;
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let (now, later) = rest.split_at((*cuts.next().expect("endless")).min(rest.len()));
            stream += &more(0, now);
            rest = later;
        }
        stream += &chunk(json!({}), json!("tool_calls"));
        let got = folded(&streamed(&stream, size, End::Clean));
        let ids: Vec<&str> = got.iter().map(|call| call.0.as_str()).collect();
        prop_assert_eq!(ids, ["functions.exec:0_split_1_hostname", "functions.exec:0_split_2_date", "functions.exec:0_split_3_uptime"]);
    }
}

fn rule() -> Result<Rule, String> {
    Ok(Rule {
        tool: "exec".into(),
        argument: "command".into(),
        separator: ";".into(),
        allow: ["hostname", "date", "uptime"].map(str::to_owned).to_vec(),
        id_base: "x".into(),
    })
}
