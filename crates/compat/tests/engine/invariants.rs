//! The invariants of the design, as properties over whole conversations.
//!
//! A made-up model answers with reasoning that is unique to conversation and turn; a
//! made-up client keeps, drops, cuts, respells and sanitises the way the measured ones
//! do. What reaches the model must be what the model said.

use bytes::Bytes;
use farrier_compat::passes::{PASSES, What};
use farrier_compat::plan::{Plan, Rewritten, With};
use farrier_compat::registry::Registry;
use farrier_compat::run::{End, Step};
use farrier_compat::wire::chat::Ask;
use farrier_compat::wire::json::Segment;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{self, ORIGIN, Store, plan, text, with};

fn kimi(mode: &str, on_miss: Value) -> Plan {
    let mut reasoning =
        json!({"pass": "reasoning-lost-on-replay", "field": "reasoning_content", "turns": "all"});
    for (key, value) in on_miss.as_object().expect("an object") {
        reasoning[key] = value.clone();
    }
    plan(json!([
        reasoning,
        {"pass": "tool-call-id-mangled", "mode": mode, "rebuild": "functions.{name}:{n}"},
        {"pass": "tool-result-without-name"},
    ]))
}

fn fail() -> Value {
    json!({"onMiss": "fail"})
}

fn rewrite<'a>(
    plan: &Plan,
    body: &'a str,
    seed: u64,
    scope: &str,
    store: &Store,
) -> Result<Rewritten<'a>, String> {
    support::rewrite(plan, body.as_bytes(), with(seed, ORIGIN), scope, store)
        .map_err(|fault| fault.code.to_owned())
}

/// One turn of the made-up model.
#[derive(Debug, Clone)]
struct Said {
    reasoning: String,
    calls: Vec<(String, String)>,
    text: String,
}

fn said() -> impl Strategy<Value = Said> {
    let arguments = prop_oneof![
        Just(r#"{"command": "hostname; date"}"#.to_owned()),
        Just(r#"{"n": 1.0, "a": [1e3, 12345678901234567890]}"#.to_owned()),
        Just(String::new()),
        "[a-z \"\\\\\u{e9}]{0,8}".prop_map(|text| json!({ "command": text }).to_string()),
    ];
    let call = (prop_oneof![Just("exec"), Just("read")], arguments)
        .prop_map(|(name, arguments)| (name.to_owned(), arguments));
    (
        "[a-zA-Z\n\"\\\\\u{1f600}]{1,20}",
        proptest::collection::vec(call, 0..4),
        "[a-z]{0,6}",
    )
        .prop_map(|(reasoning, calls, text)| Said {
            reasoning,
            text: if calls.is_empty() {
                format!("said {text}")
            } else {
                text
            },
            calls,
        })
}

/// What a client does to a turn before it replays it.
#[derive(Debug, Clone, Copy)]
struct Habits {
    reasoning: Reasoning,
    respells: bool,
    sanitises: bool,
    whole: bool,
}

#[derive(Debug, Clone, Copy)]
enum Reasoning {
    Cut,
    Drops,
    Keeps,
}

fn habits() -> impl Strategy<Value = Habits> {
    let reasoning = prop_oneof![
        Just(Reasoning::Cut),
        Just(Reasoning::Drops),
        Just(Reasoning::Keeps)
    ];
    (reasoning, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(reasoning, respells, sanitises, whole)| Habits {
            reasoning,
            respells,
            sanitises,
            whole,
        },
    )
}

/// The model's ids: counted through the conversation.
fn native(name: &str, n: usize) -> String {
    format!("functions.{name}:{n}")
}

/// The model's answer on the wire.
fn answer(said: &Said, first_call: usize, whole: bool) -> String {
    let calls: Vec<Value> = said
        .calls
        .iter()
        .enumerate()
        .map(|(i, (name, arguments))| json!({"index": i, "id": native(name, first_call + i), "type": "function", "function": {"name": name, "arguments": arguments}}))
        .collect();
    let finish = if calls.is_empty() {
        "stop"
    } else {
        "tool_calls"
    };
    if whole {
        let mut message =
            json!({"role": "assistant", "content": said.text, "reasoning_content": said.reasoning});
        if !calls.is_empty() {
            message["tool_calls"] = json!(calls);
        }
        return json!({"choices": [{"index": 0, "message": message, "finish_reason": finish}]})
            .to_string();
    }
    let chunk = |delta: Value, finish: Value| {
        format!(
            "data: {}\n\n",
            json!({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
        )
    };
    let mut stream = chunk(json!({"role": "assistant", "content": ""}), Value::Null);
    for letter in said.reasoning.chars() {
        stream += &chunk(json!({"reasoning_content": letter}), Value::Null);
    }
    stream += &chunk(json!({"content": said.text}), Value::Null);
    for call in calls {
        stream += &chunk(json!({"tool_calls": [call]}), Value::Null);
    }
    stream + &chunk(json!({}), json!(finish)) + "data: [DONE]\n\n"
}

/// The ids the client was given, read from its side of the wire.
fn given(client: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let events = client
        .lines()
        .map(|line| line.strip_prefix("data: ").unwrap_or(line));
    for event in events.filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        for part in ["delta", "message"] {
            for call in event["choices"][0][part]["tool_calls"]
                .as_array()
                .into_iter()
                .flatten()
            {
                ids.extend(call["id"].as_str().map(str::to_owned));
            }
        }
    }
    ids
}

/// The turn as the client replays it, with results.
fn replayed(said: &Said, ids: &[String], habits: Habits) -> Vec<Value> {
    let id = |id: &String| match habits.sanitises {
        true => id.chars().filter(char::is_ascii_alphanumeric).collect(),
        false => id.clone(),
    };
    let mut message = json!({"role": "assistant", "content": said.text});
    match habits.reasoning {
        Reasoning::Drops => {}
        Reasoning::Cut => {
            message["reasoning_content"] = json!(said.reasoning.chars().last().map(String::from));
        }
        Reasoning::Keeps => message["reasoning_content"] = json!(said.reasoning),
    }
    if said.calls.is_empty() {
        return vec![message];
    }
    let calls: Vec<Value> = said
        .calls
        .iter()
        .zip(ids)
        .map(|((name, arguments), given)| {
            let spelt = match serde_json::from_str::<Value>(arguments) {
                Ok(value) if habits.respells => value.to_string(),
                _ => arguments.clone(),
            };
            json!({"id": id(given), "type": "function", "function": {"name": name, "arguments": spelt}})
        })
        .collect();
    message["tool_calls"] = json!(calls);
    let results = ids
        .iter()
        .map(|given| json!({"role": "tool", "tool_call_id": id(given), "content": "ok"}));
    std::iter::once(message).chain(results).collect()
}

fn body(history: &[Value]) -> String {
    json!({"model": "m", "messages": history, "stream": true}).to_string()
}

/// One conversation under way.
struct Talk {
    plan: Plan,
    history: Vec<Value>,
    turns: Vec<Said>,
    calls: usize,
    seed: u64,
}

impl Talk {
    fn new(plan: &Plan, opening: &str, seed: u64) -> Self {
        Self {
            plan: plan.clone(),
            history: vec![json!({"role": "user", "content": opening})],
            turns: Vec::new(),
            calls: 0,
            seed,
        }
    }

    /// One exchange; what the model was sent is checked against what it said.
    fn turn(&mut self, said: &Said, habits: Habits, scope: &str, store: &mut Store) {
        self.seed += 1;
        let body = body(&self.history);
        let rewritten =
            rewrite(&self.plan, &body, self.seed, scope, store).expect("every turn is known");
        self.check(&serde_json::from_str(&text(&rewritten.segments)).expect("JSON"));
        let upstream = answer(said, self.calls, habits.whole);
        let mut client = Vec::new();
        if habits.whole {
            let done = rewritten.reply.into_json().finish(upstream.into());
            done.commit
                .into_iter()
                .for_each(|record| store.keep(scope, record));
            client.extend_from_slice(&done.body);
        } else {
            let done = support::stream(rewritten.reply, upstream.as_bytes().chunks(11), End::Clean);
            done.commits
                .into_iter()
                .for_each(|record| store.keep(scope, record));
            client.extend_from_slice(done.client.as_bytes());
        }
        let ids = given(std::str::from_utf8(&client).expect("UTF-8"));
        assert_eq!(ids.len(), said.calls.len());
        self.history.extend(replayed(said, &ids, habits));
        self.calls += said.calls.len();
        self.turns.push(said.clone());
    }

    /// I2: each turn as the model said it.
    fn check(&self, sent: &Value) {
        let messages = sent["messages"].as_array().expect("messages");
        let assistants: Vec<&Value> = messages
            .iter()
            .filter(|message| message["role"] == "assistant")
            .collect();
        assert_eq!(assistants.len(), self.turns.len());
        let mut n = 0;
        for (message, said) in assistants.iter().zip(&self.turns) {
            assert_eq!(
                message["reasoning_content"],
                json!(said.reasoning),
                "{message}"
            );
            let calls: Vec<&Value> = message["tool_calls"]
                .as_array()
                .into_iter()
                .flatten()
                .collect();
            assert_eq!(calls.len(), said.calls.len());
            for (call, (name, _)) in calls.iter().zip(&said.calls) {
                assert_eq!(call["id"], json!(native(name, n)));
                n += 1;
            }
        }
        let results: Vec<&Value> = messages
            .iter()
            .filter(|message| message["role"] == "tool")
            .collect();
        let names: Vec<&String> = self
            .turns
            .iter()
            .flat_map(|said| said.calls.iter().map(|(name, _)| name))
            .collect();
        for (n, (result, name)) in results.iter().zip(names).enumerate() {
            assert_eq!(result["tool_call_id"], json!(native(name, n)));
            assert_eq!(result["name"], json!(name));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// I1: with an empty plan the body is one kept slice, whatever it holds.
    #[test]
    fn i1_empty_plan_is_the_identity(extra in "[a-z]{1,8}", number in prop_oneof![Just("1.0"), Just("1e3"), Just("12345678901234567890"), Just("-0")]) {
        let body = format!(" {{ \"model\": \"m\", \"x_{extra}\" : [ {number} ,null], \"messages\":[ {{\"role\":\"assistant\",\"tool_calls\":[ {{\"id\":\"a.b:0\"}} ] }} ] }}");
        let plan = plan(json!([{"pass": "empty-field-on-replay"}]));
        let empty = Plan::new(Vec::new());
        prop_assert!(empty.is_empty() && !empty.uses_ledger());
        let rewritten = rewrite(&empty, &body, 1, "s", &Store::default()).expect("no fault");
        prop_assert_eq!(rewritten.segments, vec![Segment::Kept(body.as_str())]);
        prop_assert!(rewritten.reply.is_plain());
        // A plan whose passes find nothing leaves every byte too.
        let rewritten = rewrite(&plan, &body, 1, "s", &Store::default()).expect("no fault");
        prop_assert_eq!(rewritten.segments, vec![Segment::Kept(body.as_str())]);
    }

    /// I1, I6 on the reply: what no pass changes leaves as the bytes it came in.
    #[test]
    fn i1_reply_without_a_reply_pass_is_the_identity(upstream in "((data: (\\[DONE\\]|\\{\"choices\":\\[\\]\\}|x|\\{\"error\": 1\\.0\\}))?(\n\n|\r\n\r\n)|: k\n|\n){0,12}data: \\[DONE\\]\n\n", size in 1usize..9) {
        let plan = plan(json!([{"pass": "tool-result-without-name"}]));
        let body = body(&[]);
        let rewritten = rewrite(&plan, &body, 1, "s", &Store::default()).expect("no fault");
        let done = support::stream(rewritten.reply, upstream.as_bytes().chunks(size), End::Clean);
        prop_assert_eq!(done.client, upstream);
    }

    /// I2: whatever the client does, the model sees its own words.
    #[test]
    fn i2_round_trip_with_minted_ids(turns in proptest::collection::vec((said(), habits()), 1..5), seed in any::<u32>()) {
        let plan = kimi("minted", fail());
        let mut store = Store::default();
        let mut talk = Talk::new(&plan, "hello", u64::from(seed));
        // A text said twice in one place is ambiguous, and so a miss: keep them apart.
        for (n, (said, habits)) in turns.iter().enumerate() {
            let said = Said { text: format!("{} {n}", said.text), ..said.clone() };
            talk.turn(&said, *habits, "s", &mut store);
        }
        let last = Said { reasoning: "z".into(), calls: vec![], text: "end".into() };
        talk.turn(&last, turns[0].1, "s", &mut store);
    }

    /// I2 with the model's own ids, which the client may have stripped.
    #[test]
    fn i2_round_trip_with_native_ids(turns in proptest::collection::vec((said(), habits()), 1..5)) {
        let plan = kimi("native", fail());
        let mut store = Store::default();
        let mut talk = Talk::new(&plan, "hello", 0);
        // A text said twice in one place is ambiguous, and so a miss: keep them apart.
        for (n, (said, habits)) in turns.iter().enumerate() {
            let said = Said { text: format!("{} {n}", said.text), ..said.clone() };
            talk.turn(&said, *habits, "s", &mut store);
        }
        let last = Said { reasoning: "z".into(), calls: vec![], text: "end".into() };
        talk.turn(&last, turns[0].1, "s", &mut store);
    }

    /// I3: two conversations of one caller, interleaved, with the same native ids, tools
    /// and arguments: each model sees only its own reasoning.
    #[test]
    fn i3_interleaved_conversations_never_mix(turns in proptest::collection::vec((said(), habits()), 1..4), minted in any::<bool>()) {
        let plan = kimi(if minted { "minted" } else { "native" }, fail());
        let mut store = Store::default();
        let mut talks = [Talk::new(&plan, "one", 0), Talk::new(&plan, "two", 1 << 40)];
        for (n, (said, habits)) in turns.iter().enumerate() {
            for (side, talk) in talks.iter_mut().enumerate() {
                let said = Said { reasoning: format!("{side} {n} {}", said.reasoning), text: format!("{} {n}", said.text), ..said.clone() };
                talk.turn(&said, *habits, "s", &mut store);
            }
        }
        for talk in &mut talks {
            let last = Said { reasoning: "z".into(), calls: vec![], text: "end".into() };
            talk.turn(&last, turns[0].1, "s", &mut store);
        }
    }

    /// I3: another scope, another id, another tool or other arguments is a miss.
    #[test]
    fn i3_anything_less_than_all_is_a_miss(said in said().prop_filter("has calls", |said| !said.calls.is_empty()), what in 0usize..4, minted in any::<bool>()) {
        let plan = kimi(if minted { "minted" } else { "native" }, fail());
        let mut store = Store::default();
        let mut talk = Talk::new(&plan, "hello", 7);
        let habits = Habits { reasoning: Reasoning::Drops, respells: false, sanitises: false, whole: false };
        talk.turn(&said, habits, "s", &mut store);
        let mut history = talk.history.clone();
        let scope = match what {
            0 => "other",
            1 => { history[1]["tool_calls"][0]["id"] = json!("zzzzzzzzz"); "s" }
            2 => { history[1]["tool_calls"][0]["function"]["name"] = json!("write"); "s" }
            _ => { history[1]["tool_calls"][0]["function"]["arguments"] = json!("{\"other\":true}"); "s" }
        };
        let body = body(&history);
        prop_assert_eq!(rewrite(&plan, &body, 9, scope, &store).map(|_| ()), Err("reasoning_not_in_ledger".into()));
        // With a placeholder nothing of what was said appears.
        let lenient = kimi(if minted { "minted" } else { "native" }, json!({"onMiss": "placeholder", "placeholder": "(none)"}));
        let rewritten = rewrite(&lenient, &body, 9, scope, &store).expect("no fault");
        let sent: Value = serde_json::from_str(&text(&rewritten.segments)).expect("JSON");
        prop_assert_eq!(&sent["messages"][1]["reasoning_content"], &json!("(none)"));
        prop_assert!(rewritten.notes.iter().any(|note| note.what == What::Missed));
    }

    /// I6: fields no pass knows keep their order and spelling around the edits.
    #[test]
    fn i6_unknown_fields_survive_edits(number in prop_oneof![Just("1.0"), Just("1e3"), Just("-0.0"), Just("12345678901234567890")], key in "[a-z]{1,6}") {
        let plan = kimi("minted", json!({"onMiss": "placeholder", "placeholder": "(none)"}));
        let body = format!("{{\"z_{key}\":{number},\"messages\":[{{\"role\":\"user\",\"content\":\"x\"}},{{\"x_{key}\":[{number} , {{}}],\"role\":\"assistant\",\"tool_calls\":[{{\"id\":\"call_1\",\"x_{key}\":{number},\"type\":\"function\",\"function\":{{\"y_{key}\":{number},\"name\":\"exec\",\"arguments\":\"{{}}\"}}}}]}}],\"a_{key}\":{number},\"model\":\"m\"}}");
        let rewritten = rewrite(&plan, &body, 1, "s", &Store::default()).expect("no fault");
        let sent = text(&rewritten.segments);
        let want = body
            .replace("\"call_1\"", "\"functions.exec:0\"")
            .replace("\"{}\"}}]}", "\"{}\"}}],\"reasoning_content\":\"(none)\"}");
        prop_assert_eq!(sent, want);
    }

    /// A request rewritten once is left alone the second time.
    #[test]
    fn rewriting_is_idempotent(said in said()) {
        let plan = kimi("minted", json!({"onMiss": "placeholder", "placeholder": "(none)"}));
        let history = [json!({"role": "user", "content": "x"})];
        let ids: Vec<String> = (0..said.calls.len()).map(|n| format!("call_{n}")).collect();
        let habits = Habits { reasoning: Reasoning::Drops, respells: true, sanitises: false, whole: false };
        let all: Vec<Value> = history.into_iter().chain(replayed(&said, &ids, habits)).collect();
        let first = body(&all);
        let once = text(&rewrite(&plan, &first, 1, "s", &Store::default()).expect("no fault").segments);
        let twice = rewrite(&plan, &once, 2, "s", &Store::default()).expect("no fault");
        prop_assert_eq!(twice.segments, vec![Segment::Kept(once.as_str())]);
    }
}

fn unknown_turn() -> String {
    body(&[
        json!({"role": "user", "content": "x"}),
        json!({"role": "assistant", "tool_calls": [{"id": "call_1", "function": {"name": "exec", "arguments": "{}"}}]}),
    ])
}

#[test]
fn i4_miss_can_switch_thinking_off_for_the_request() {
    let plan = kimi(
        "minted",
        json!({"onMiss": "disable-thinking", "disable": {"thinking": {"type": "disabled"}}}),
    );
    let body = unknown_turn();
    let rewritten = rewrite(&plan, &body, 1, "s", &Store::default()).expect("no fault");
    let sent: Value = serde_json::from_str(&text(&rewritten.segments)).expect("JSON");
    assert_eq!(sent["thinking"], json!({"type": "disabled"}));
    assert_eq!(sent["messages"][1].get("reasoning_content"), None);
    let whats: Vec<&str> = rewritten
        .notes
        .iter()
        .map(|note| note.what.as_str())
        .collect();
    assert_eq!(whats, ["missed", "thinking_disabled", "rebuilt"]);
}

#[test]
fn i4_miss_can_refuse_the_request_and_says_whose_fault_it_is() {
    let plan = kimi("minted", fail());
    let body = unknown_turn();
    let ask = Ask::parse(body.as_bytes()).expect("a request");
    let lookup = plan.lookup(&ask);
    let with = || With {
        upstream_model: None,
        seed: [0; 16],
        origin: "p/m".into(),
    };
    let fault = plan
        .rewrite(ask, lookup.answered(&[vec![]]), with())
        .expect_err("refused");
    assert_eq!(fault.blame.as_str(), "client");
    assert_eq!(
        fault.message,
        "expected `reasoning_content` on the assistant turn at `messages[1]`, got none, and this turn was not recorded for this caller; \
         send the field back as it came, or start the conversation anew through Farrier"
    );
    let ask = Ask::parse(body.as_bytes()).expect("a request");
    let lookup = plan.lookup(&ask);
    let fault = plan
        .rewrite(ask, lookup.unanswered(), with())
        .expect_err("refused");
    assert_eq!(
        (fault.blame.as_str(), fault.code),
        ("farrier", "ledger_unavailable")
    );
}

#[test]
fn rpl_17_nothing_is_added_when_the_caller_has_switched_thinking_off() {
    let plan = kimi("minted", fail());
    let mut body: Value = serde_json::from_str(&unknown_turn()).expect("JSON");
    body["thinking"] = json!({"type": "disabled"});
    let body = body.to_string();
    let rewritten = rewrite(&plan, &body, 1, "s", &Store::default()).expect("no fault");
    assert!(!text(&rewritten.segments).contains("reasoning_content"));
}

#[test]
fn commit_stands_before_whatever_tells_the_end_of_the_turn() {
    let plan = kimi("minted", fail());
    let said = Said {
        reasoning: "r".into(),
        calls: vec![("exec".into(), "{}".into())],
        text: String::new(),
    };
    let stream = answer(&said, 0, false);
    let endings = [
        stream.clone(),
        stream.replace("data: [DONE]\n\n", ""),
        // No finish reason: [DONE] tells the end.
        stream
            .replace("\"tool_calls\"}", "null}")
            .replace("\"finish_reason\":\"tool_calls\"", "\"finish_reason\":null"),
    ];
    for upstream in endings {
        let body = body(&[]);
        let mut run = rewrite(&plan, &body, 1, "s", &Store::default())
            .expect("no fault")
            .reply
            .into_stream();
        let mut steps = Vec::new();
        run.push(Bytes::from(upstream), &mut steps)
            .expect("goes on");
        run.end(End::Clean, &mut steps);
        let commit = steps
            .iter()
            .position(|step| matches!(step, Step::Commit(_)))
            .expect("committed");
        let told = steps.iter().position(|step| match step {
            Step::Forward(bytes) => {
                let text = String::from_utf8_lossy(bytes);
                text.contains("[DONE]") || text.contains("\"finish_reason\":\"")
            }
            Step::Commit(_) => false,
        });
        assert!(told.is_none_or(|told| commit < told), "{steps:?}");
        assert_eq!(
            steps
                .iter()
                .filter(|step| matches!(step, Step::Commit(_)))
                .count(),
            1
        );
    }
}

#[test]
fn client_that_leaves_is_written_nothing_and_what_it_had_is_remembered() {
    let plan = kimi("minted", fail());
    let said = Said {
        reasoning: "r".into(),
        calls: vec![("exec".into(), "{}".into())],
        text: String::new(),
    };
    let stream = answer(&said, 0, false);
    let finish = stream.find("\"finish_reason\":\"").expect("a finish");
    let cut = stream[..finish].rfind("data: ").expect("its event");
    let body = body(&[]);
    let mut run = rewrite(&plan, &body, 1, "s", &Store::default())
        .expect("no fault")
        .reply
        .into_stream();
    let mut steps = Vec::new();
    run.push(
        Bytes::copy_from_slice(&stream.as_bytes()[..cut]),
        &mut steps,
    )
    .expect("goes on");
    steps.clear();
    run.end(End::ClientGone, &mut steps);
    assert!(matches!(steps.as_slice(), [Step::Commit(_)]), "{steps:?}");
}

#[test]
fn every_pass_is_used_by_the_shipped_registry() {
    let shipped = Registry::shipped().expect("loads");
    let sources = farrier_compat::registry::shipped_sources();
    assert!(shipped.manifests().count() > 0);
    for kind in PASSES {
        let name = format!("\"{}\"", kind.name);
        assert!(
            sources.iter().any(|source| source.text.contains(&name)),
            "no manifest uses {}",
            kind.name
        );
    }
}

#[test]
fn notes_name_the_pass_that_acted_and_not_one_further_on() {
    let plan = plan(json!([
        {"pass": "split-combined-call", "tool": "exec", "argument": "command", "separator": ";", "allow": ["date", "uptime"]},
        {"pass": "tool-call-id-mangled", "mode": "minted"},
    ]));
    let said = Said {
        reasoning: "r".into(),
        calls: vec![("exec".into(), r#"{"command":"date; uptime"}"#.into())],
        text: String::new(),
    };
    let body = body(&[]);
    let mut run = rewrite(&plan, &body, 1, "s", &Store::default())
        .expect("no fault")
        .reply
        .into_stream();
    let mut steps = Vec::new();
    run.push(answer(&said, 0, false).into(), &mut steps)
        .expect("goes on");
    run.end(End::Clean, &mut steps);
    let notes: Vec<(&str, &str)> = run
        .take_notes()
        .iter()
        .map(|note| (note.pass, note.what.as_str()))
        .collect();
    assert_eq!(
        notes,
        [
            ("split-combined-call", "split"),
            ("tool-call-id-mangled", "minted"),
            ("tool-call-id-mangled", "minted")
        ]
    );
}
