//! Mistakes that were made once, each with the input that showed it.

use farrier_compat::passes::Note;
use farrier_compat::plan::Plan;
use farrier_compat::run::{End, Outcome, TurnRecord};
use serde_json::{Value, json};

use crate::support::{self, Store, Streamed, plan, reply, text, with};

fn split() -> Value {
    json!({"pass": "split-combined-call", "tool": "exec", "argument": "command", "separator": ";", "allow": ["hostname", "date", "uptime"]})
}

fn minted() -> Value {
    json!({"pass": "tool-call-id-mangled", "mode": "minted", "rebuild": "functions.{name}:{n}"})
}

fn reasoning(turns: &str, on_miss: &Value) -> Value {
    let mut pass =
        json!({"pass": "reasoning-lost-on-replay", "field": "reasoning_content", "turns": turns});
    for (key, value) in on_miss.as_object().expect("an object") {
        pass[key] = value.clone();
    }
    pass
}

/// What the model is sent for `body`.
fn sent(
    plan: &Plan,
    body: &Value,
    origin: &str,
    store: &Store,
) -> Result<(Value, Vec<Note>), String> {
    let body = body.to_string();
    let rewritten = support::rewrite(plan, body.as_bytes(), with(1, origin), "s", store)
        .map_err(|fault| fault.code.to_owned())?;
    let sent = serde_json::from_str(&text(&rewritten.segments)).expect("JSON");
    Ok((sent, rewritten.notes))
}

fn stream(plan: &Plan, upstream: &[u8], size: usize, end: End) -> Streamed {
    support::stream(reply(plan), upstream.chunks(size), end)
}

/// A ledger that holds what was committed.
fn stored(commits: Vec<TurnRecord>) -> Store {
    let mut store = Store::default();
    commits
        .into_iter()
        .for_each(|record| store.keep("s", record));
    store
}

/// The first id the client was given for one of ours.
fn given(client: &str) -> String {
    let ids = client
        .split("\"id\":\"")
        .filter_map(|rest| rest.split('"').next());
    ids.filter(|id| id.len() == 9)
        .map(str::to_owned)
        .next()
        .expect("a minted id")
}

fn event(choices: &Value) -> String {
    format!("data: {}\n\n", json!({"id": "c", "choices": choices}))
}

fn delta(delta: &Value, finish: &Value) -> String {
    event(&json!([{"index": 0, "delta": delta, "finish_reason": finish}]))
}

fn call(index: u64, id: &str, name: &str, arguments: &str) -> Value {
    json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

/// What a client folds the calls of the first choice into, by index: (name, arguments).
fn folded(client: &str) -> Vec<(u64, String, String)> {
    let mut calls: std::collections::BTreeMap<u64, (String, String)> =
        std::collections::BTreeMap::new();
    for line in client
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
    {
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        for call in event["choices"][0]["delta"]["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let entry = calls
                .entry(call["index"].as_u64().expect("an index"))
                .or_default();
            entry.0 += call["function"]["name"].as_str().unwrap_or_default();
            entry.1 += call["function"]["arguments"].as_str().unwrap_or_default();
        }
    }
    calls
        .into_iter()
        .map(|(index, (name, arguments))| (index, name, arguments))
        .collect()
}

#[test]
fn calls_that_share_a_chunk_with_a_combined_one_move_up_behind_it() {
    let both = json!({"tool_calls": [call(0, "a", "exec", r#"{"command":"hostname; date"}"#), call(1, "b", "read", "{}")]});
    let upstream = delta(&both, &Value::Null) + &delta(&json!({}), &json!("tool_calls"));
    let got = folded(
        &stream(
            &plan(json!([split()])),
            upstream.as_bytes(),
            4096,
            End::Clean,
        )
        .client,
    );
    let names: Vec<(u64, &str)> = got
        .iter()
        .map(|(index, name, _)| (*index, name.as_str()))
        .collect();
    assert_eq!(names, [(0, "exec"), (1, "exec"), (2, "read")]);
}

#[test]
fn calls_that_open_out_of_order_never_land_on_another() {
    let plan = plan(json!([split()]));
    let orders: [&[(u64, &str, &str)]; 3] = [
        &[
            (0, "exec", "date"),
            (2, "exec", "date; date"),
            (1, "read", "x"),
        ],
        &[
            (1, "read", "x"),
            (0, "exec", "hostname; date; uptime"),
            (2, "write", "y"),
        ],
        &[
            (2, "exec", "hostname; date"),
            (0, "exec", "date; uptime"),
            (1, "read", "x"),
        ],
    ];
    for order in orders {
        let mut upstream = String::new();
        for (index, name, command) in order {
            let arguments = json!({ "command": command }).to_string();
            upstream += &delta(
                &json!({"tool_calls": [call(*index, &format!("id{index}"), name, &arguments)]}),
                &Value::Null,
            );
        }
        upstream += &delta(&json!({}), &json!("tool_calls"));
        let got = folded(&stream(&plan, upstream.as_bytes(), 4096, End::Clean).client);
        for (_, name, arguments) in &got {
            assert!(
                ["exec", "read", "write"].contains(&name.as_str()),
                "{got:?}"
            );
            serde_json::from_str::<Value>(arguments)
                .unwrap_or_else(|error| panic!("{error}: {got:?}"));
        }
    }
}

#[test]
fn what_stands_beside_refused_calls_is_kept() {
    let plan = plan(json!([split()]));
    let refused = [
        // A role and two calls in one delta.
        json!({"role": "assistant", "tool_calls": [call(0, "a", "exec", r#"{"command":"ls"}"#), call(1, "b", "exec", r#"{"command":"pwd"}"#)]}),
        // Something that is no call among the calls.
        json!({"tool_calls": [null, call(0, "a", "exec", r#"{"command":"ls"}"#)]}),
    ];
    for part in refused {
        for finish in [Value::Null, json!("stop")] {
            let upstream = delta(&part, &finish) + "data: [DONE]\n\n";
            assert_eq!(
                stream(&plan, upstream.as_bytes(), 4096, End::Clean).client,
                upstream
            );
        }
    }
}

#[test]
fn what_stands_beside_a_combined_call_is_kept() {
    let plan = plan(json!([split()]));
    let part = json!({"role": "assistant", "content": "x", "tool_calls": [call(0, "a", "exec", r#"{"command":"hostname; date"}"#)]});
    let upstream = event(
        &json!([{"index": 0, "delta": part, "logprobs": {"content": []}, "finish_reason": "stop"}]),
    );
    let got = stream(&plan, upstream.as_bytes(), 4096, End::Clean).client;
    let place = |text: &str| {
        got.find(text)
            .unwrap_or_else(|| panic!("{text} is lost: {got}"))
    };
    assert!(
        place("\"content\":\"x\"") < place("\"hostname")
            || place("\"content\":\"x\"") < place("hostname")
    );
    assert!(place("\"role\":\"assistant\"") < place("hostname"));
    assert!(place("hostname") < place("\"finish_reason\":\"tool_calls\""));
    assert_eq!(got.matches("\"role\"").count(), 1, "{got}");
    place("logprobs");
}

#[test]
fn last_event_without_its_blank_line_does_not_run_into_what_was_held() {
    let plan = plan(json!([split()]));
    let held = delta(
        &json!({"tool_calls": [call(0, "a", "exec", r#"{"command":"hostname"#)]}),
        &Value::Null,
    );
    for last in [r#"data: {"choices":[],"usage":{"n":1}}"#, "data: [DONE]"] {
        let got = stream(&plan, format!("{held}{last}").as_bytes(), 4096, End::Clean).client;
        for line in got
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter(|line| *line != "[DONE]")
        {
            serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {got}"));
        }
    }
}

#[test]
fn i5_choices_are_settled_in_their_order() {
    let plan = plan(json!([split(), minted()]));
    let mut upstream = String::new();
    for choice in 0..6 {
        let part = json!({"tool_calls": [call(0, &format!("c{choice}"), "exec", r#"{"command":"hostname; date"}"#)]});
        upstream += &event(&json!([{"index": choice, "delta": part, "finish_reason": null}]));
    }
    upstream += "data: [DONE]\n\n";
    let first = stream(&plan, upstream.as_bytes(), 4096, End::Clean).client;
    for size in [1, 7, 4096, 4096, 4096] {
        assert_eq!(
            stream(&plan, upstream.as_bytes(), size, End::Clean).client,
            first
        );
    }
}

#[test]
fn separator_of_several_characters_may_be_cut() {
    let mut pass = split();
    pass["separator"] = json!("&&");
    let plan = plan(json!([pass]));
    for cut in 1..40 {
        let arguments = r#"{"command":"hostname && date && uptime"}"#;
        let (left, right) = arguments.split_at(cut.min(arguments.len()));
        let upstream = delta(
            &json!({"tool_calls": [call(0, "a", "exec", left)]}),
            &Value::Null,
        ) + &delta(
            &json!({"tool_calls": [{"index": 0, "function": {"arguments": right}}]}),
            &Value::Null,
        ) + &delta(&json!({}), &json!("tool_calls"));
        assert_eq!(
            folded(&stream(&plan, upstream.as_bytes(), 4096, End::Clean).client).len(),
            3,
            "cut at {cut}"
        );
    }
}

#[test]
fn raw_line_break_inside_the_argument_is_malformed_and_refused() {
    let upstream = delta(
        &json!({"tool_calls": [call(0, "a", "exec", "{\"command\":\"hostname;\n date\"}")]}),
        &Value::Null,
    ) + &delta(&json!({}), &json!("tool_calls"));
    assert_eq!(
        stream(
            &plan(json!([split()])),
            upstream.as_bytes(),
            4096,
            End::Clean
        )
        .client,
        upstream
    );
}

#[test]
fn each_call_has_its_own_minted_id_whatever_the_server_does_with_ids() {
    let plan = plan(json!([minted()]));
    let one = |part: Value| delta(&json!({ "tool_calls": [part] }), &Value::Null);
    let no_index = |id: &str, name: &str, arguments: &str| {
        one(json!({"id": id, "function": {"name": name, "arguments": arguments}}))
    };
    let cases = [
        (no_index("", "f", "{}") + &no_index("", "g", "{}"), 2),
        (
            no_index("call_0", "f", "{\"a\":0}") + &no_index("call_0", "f", "{\"a\":1}"),
            2,
        ),
        (
            no_index("a", "f", "{")
                + &no_index("b", "g", "{")
                + &one(json!({"id": "a", "function": {"arguments": "}"}})),
            2,
        ),
        (
            one(call(0, "r1", "f", "{"))
                + &one(json!({"index": 0, "id": "r2", "function": {"arguments": "}"}})),
            1,
        ),
        (
            one(call(0, "x", "f", "{}")) + &one(call(1, "x", "f", "{}")),
            2,
        ),
    ];
    for (upstream, want) in cases {
        let got = stream(
            &plan,
            (upstream.clone() + &delta(&json!({}), &json!("tool_calls"))).as_bytes(),
            4096,
            End::Clean,
        );
        let ids: std::collections::HashSet<&str> = got
            .client
            .split("\"id\":\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .filter(|id| id.len() == 9)
            .collect();
        assert_eq!(ids.len(), want, "{upstream}\n{}", got.client);
        assert_eq!(
            got.commits.first().map(|commit| commit.keys.len()),
            Some(want),
            "{upstream}"
        );
    }
}

#[test]
fn error_that_comes_with_choices_is_a_failure() {
    let plan = plan(json!([minted()]));
    let endings = [
        r#"data: {"error":{"code":502},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}"#,
        r#"data: {"choices":[{"index":0,"delta":{},"finish_reason":"error"}]}"#,
        r#"data: {"error":{"code":502}}"#,
    ];
    for ending in endings {
        let got = stream(&plan, format!("{ending}\n\n").as_bytes(), 4096, End::Clean);
        assert_eq!(got.outcome, Outcome::Failed, "{ending}");
        assert_eq!(
            got.client,
            format!("{ending}\n\n"),
            "it is passed on as it is, and nothing is added"
        );
    }
}

#[test]
fn finished_choice_does_not_hide_one_that_was_cut_off() {
    let plan = plan(json!([minted()]));
    let first = event(&json!([{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]));
    let second = event(&json!([{"index": 1, "delta": {"content": "b"}, "finish_reason": null}]));
    for upstream in [format!("{first}{second}"), format!("{second}{first}")] {
        let got = stream(&plan, upstream.as_bytes(), 4096, End::Clean);
        assert_eq!(got.outcome, Outcome::Truncated);
        assert!(got.client.contains("stream_truncated"));
    }
    let done = format!("{first}{second}data: [DONE]\n\n");
    assert_eq!(
        stream(&plan, done.as_bytes(), 4096, End::Clean).outcome,
        Outcome::Complete
    );
}

#[test]
fn turn_is_remembered_when_a_fault_ends_the_stream() {
    let plan = plan(json!([minted()]));
    let mut upstream = delta(
        &json!({"reasoning_content": "r", "tool_calls": [call(0, "a", "exec", "{}")]}),
        &Value::Null,
    )
    .into_bytes();
    upstream.extend(vec![b'x'; farrier_compat::wire::sse::MAX_EVENT_BYTES + 1]);
    let got = stream(&plan, &upstream, 1 << 20, End::Failed);
    assert_eq!((got.outcome, got.commits.len()), (Outcome::Failed, 1));
    assert!(got.client.contains("event_too_large"));
}

#[test]
fn text_turn_with_a_cut_surrogate_pair_is_found() {
    let plan = plan(json!([reasoning("all", &json!({"onMiss": "fail"}))]));
    let upstream = delta(&json!({"reasoning_content": "r"}), &Value::Null)
        + "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi \\ud83d\"},\"finish_reason\":null}]}\n\n"
        + "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\\ude00\"},\"finish_reason\":\"stop\"}]}\n\n";
    let got = stream(&plan, upstream.as_bytes(), 4096, End::Clean);
    let store = stored(got.commits);
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "hi \u{1f600}"}]});
    let (sent, _) = sent(&plan, &body, "p/m", &store).expect("known");
    assert_eq!(sent["messages"][1]["reasoning_content"], "r");
}

fn one_call(id: &str) -> Value {
    json!({"model": "m", "messages": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [{"id": id, "type": "function", "function": {"name": "exec", "arguments": "{}"}}]},
    ]})
}

#[test]
fn i4_text_turn_that_is_not_known_is_a_miss_that_can_be_seen() {
    let plan = plan(json!([reasoning("all", &json!({"onMiss": "fail"}))]));
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]});
    let (_, notes) = sent(&plan, &body, "p/m", &Store::default()).expect("nothing demands it");
    assert_eq!(
        notes
            .iter()
            .map(|note| note.what.as_str())
            .collect::<Vec<_>>(),
        ["missed"]
    );
}

#[test]
fn i4_turn_that_was_said_without_reasoning_is_not_called_unknown() {
    let plan = plan(json!([
        reasoning("tool-calls", &json!({"onMiss": "fail"})),
        minted()
    ]));
    let upstream = delta(
        &json!({"tool_calls": [call(0, "functions.exec:0", "exec", "{}")]}),
        &json!("tool_calls"),
    );
    let got = stream(&plan, upstream.as_bytes(), 4096, End::Clean);
    let id = given(&got.client);
    let store = stored(got.commits);
    assert_eq!(
        sent(&plan, &one_call(&id), "p/m", &store).map(|_| ()),
        Err("reasoning_never_said".into())
    );
    assert_eq!(
        sent(&plan, &one_call("other"), "p/m", &store).map(|_| ()),
        Err("reasoning_not_in_ledger".into())
    );
}

#[test]
fn id_of_another_model_is_rebuilt_in_the_form_of_this_one() {
    let plan = plan(json!([minted()]));
    let upstream = delta(
        &json!({"tool_calls": [call(0, "call_openai_1", "exec", "{}")]}),
        &json!("tool_calls"),
    );
    let got = stream(&plan, upstream.as_bytes(), 4096, End::Clean);
    let id = given(&got.client);
    let store = stored(got.commits);
    let id_for = |origin: &str| {
        sent(&plan, &one_call(&id), origin, &store)
            .expect("no fault")
            .0["messages"][1]["tool_calls"][0]["id"]
            .clone()
    };
    assert_eq!(id_for("p/m"), "call_openai_1");
    assert_eq!(id_for("other/kimi"), "functions.exec:0");
}

#[test]
fn condition_sees_what_an_earlier_rule_has_opened() {
    let plan = plan(json!([
        {"pass": "unsupported-parameter", "op": "default", "path": "chat_template_kwargs.foo", "value": 1},
        {"pass": "unsupported-parameter", "op": "remove", "path": "temperature", "when": "thinking-disabled"},
    ]));
    let body = json!({"model": "m", "messages": [], "temperature": 1, "chat_template_kwargs": {"thinking": false}});
    let (sent, _) = sent(&plan, &body, "p/m", &Store::default()).expect("no fault");
    assert_eq!(sent.get("temperature"), None);
}

#[test]
fn disabling_thinking_leaves_the_callers_other_fields() {
    let disable = json!({"onMiss": "disable-thinking", "disable": {"chat_template_kwargs": {"thinking": false}}});
    let plan = plan(
        json!([reasoning("tool-calls", &disable), {"pass": "unsupported-parameter", "op": "set", "path": "chat_template_kwargs.x", "value": 1}]),
    );
    let mut body = one_call("a");
    body["chat_template_kwargs"] = json!({"custom": "keep me"});
    let (sent, _) = sent(&plan, &body, "p/m", &Store::default()).expect("no fault");
    assert_eq!(
        sent["chat_template_kwargs"],
        json!({"custom": "keep me", "thinking": false, "x": 1})
    );
}

#[test]
fn many_unknown_ids_beside_as_many_native_ones_are_rebuilt_without_a_repeat() {
    let n = 4000;
    let native = (0..n).map(|i| json!({"id": format!("functions.f:{}", n + i), "function": {"name": "f", "arguments": "{}"}}));
    let unknown = (0..n)
        .map(|i| json!({"id": format!("x{i}"), "function": {"name": "f", "arguments": "{}"}}));
    let calls: Vec<Value> = native.chain(unknown).collect();
    let body = json!({"model": "m", "messages": [{"role": "assistant", "tool_calls": calls}]});
    let (sent, _) =
        sent(&plan(json!([minted()])), &body, "p/m", &Store::default()).expect("no fault");
    let ids: std::collections::HashSet<&str> = sent["messages"][0]["tool_calls"]
        .as_array()
        .expect("calls")
        .iter()
        .filter_map(|call| call["id"].as_str())
        .collect();
    assert_eq!(ids.len(), 2 * n);
}

#[test]
fn calls_of_a_whole_reply_are_minted_and_recorded_after_a_split() {
    let plan = plan(json!([split(), minted()]));
    let message = json!({"role": "assistant", "tool_calls": [{"id": "functions.exec:0", "type": "function", "function": {"name": "exec", "arguments": "{\"command\":\"hostname; date\"}"}}]});
    let upstream =
        json!({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})
            .to_string();
    let done = reply(&plan).into_json().finish(upstream.into());
    let client: Value = serde_json::from_slice(&done.body).expect("JSON");
    for call in client["choices"][0]["message"]["tool_calls"]
        .as_array()
        .expect("calls")
    {
        assert_eq!(call["id"].as_str().map(str::len), Some(9), "{call}");
    }
    assert_eq!(
        done.commit
            .iter()
            .map(|record| record.keys.len())
            .collect::<Vec<_>>(),
        [2]
    );
}
