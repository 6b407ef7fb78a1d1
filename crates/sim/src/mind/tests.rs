//! The mind's rules, one by one, on histories that a small honest client builds and each test then spoils.

use serde_json::{Value, json};

use super::*;

/// A client that replays what it was given, word for word.
struct Client {
    persona: Persona,
    options: Options,
    body: Value,
}

impl Client {
    fn new(prompt: &str) -> Self {
        Self::with(
            Persona::named("kimi-k2.6").unwrap(),
            Options::default(),
            prompt,
        )
    }

    fn with(persona: Persona, options: Options, prompt: &str) -> Self {
        let exec = json!({
            "type": "function",
            "function": {"name": "exec", "parameters": {
                "type": "object",
                "properties": {"command": {"type": "string"}, "timeout": {"type": "integer"}},
                "required": ["command"],
            }},
        });
        let read = json!({"type": "function", "function": {"name": "read"}});
        let body = json!({
            "model": "kimi-k2.6",
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": prompt}],
            "tools": [read, exec],
        });
        Self {
            persona,
            options,
            body,
        }
    }

    fn verdict(&self) -> Verdict {
        answer(
            &self.persona,
            &self.options,
            self.body.to_string().as_bytes(),
        )
    }

    fn said(&self) -> Answer {
        match self.verdict().decision {
            Decision::Say(answer) => answer,
            Decision::Refuse(refusal) => panic!("refused: {refusal:?}"),
        }
    }

    fn refused(&self) -> String {
        match self.verdict().decision {
            Decision::Refuse(refusal) => {
                assert_eq!(refusal.status, 400);
                refusal.message
            }
            Decision::Say(answer) => panic!("answered: {answer:?}"),
        }
    }

    fn lost(&self) -> Lost {
        let answer = self.said();
        assert!(answer.calls.is_empty() && answer.finish_reason() == "stop");
        assert!(
            answer.text.starts_with("I cannot find the tool call"),
            "{}",
            answer.text
        );
        match answer.intent {
            Intent::LoseThread(lost) => lost,
            other => panic!("did not lose the thread: {other:?}"),
        }
    }

    fn messages(&mut self) -> &mut Vec<Value> {
        self.body["messages"].as_array_mut().unwrap()
    }

    fn push(&mut self, message: Value) {
        self.messages().push(message);
    }

    /// Appends the answer, and a result for each of its calls.
    fn keep(&mut self, answer: &Answer) {
        self.push(message(answer));
        for call in &answer.calls {
            self.push(json!({"role": "tool", "tool_call_id": call.id, "content": "done"}));
        }
    }

    fn play(&mut self, rounds: usize) -> Vec<Answer> {
        let mut answers = Vec::new();
        for _ in 0..rounds {
            let answer = self.said();
            self.keep(&answer);
            answers.push(answer);
        }
        answers
    }

    /// The message with the calls of so many rounds ago, counted from the end.
    fn last_call(&mut self) -> &mut Value {
        let messages = self.messages().iter_mut();
        messages
            .rev()
            .find(|message| message.get("tool_calls").is_some())
            .unwrap()
    }
}

fn message(answer: &Answer) -> Value {
    let mut message = json!({"role": "assistant", "content": answer.text});
    if let Some((field, text)) = &answer.reasoning {
        message[field] = json!(text);
    }
    if !answer.calls.is_empty() {
        message["content"] = Value::Null;
        let calls = answer.calls.iter().map(|call| {
            let function = json!({"name": call.name, "arguments": call.arguments});
            json!({"id": call.id, "type": "function", "function": function})
        });
        message["tool_calls"] = calls.collect();
    }
    message
}

fn ids(answers: &[Answer]) -> Vec<&str> {
    answers
        .iter()
        .flat_map(|answer| &answer.calls)
        .map(|call| call.id.as_str())
        .collect()
}

/// Kimi with a spoilt or added field, for rules that no shipped persona turns on.
fn kimi_with(edit: impl FnOnce(&mut Value)) -> Persona {
    let text = include_str!("../../personas/kimi-k2.6.json");
    let mut sheet: Value = serde_json::from_str(text).unwrap();
    edit(&mut sheet);
    Persona::parse(&sheet.to_string()).unwrap()
}

fn rounds(rounds: u32) -> Options {
    Options {
        rounds: Some(rounds),
        ..Options::default()
    }
}

// What it says.

#[test]
fn the_script_plays_to_its_final_text_turn_after_turn() {
    let mut client = Client::new("check the host");
    let first = client.play(4);
    assert_eq!(
        ids(&first),
        ["functions.exec:0", "functions.exec:1", "functions.exec:2"]
    );
    assert_eq!(
        first[0].calls[0].arguments,
        r#"{"command": "hostname; date; uptime"}"#
    );
    assert_eq!(
        first[1].calls[0].arguments,
        r#"{"command": "echo round-1"}"#
    );
    assert_eq!(first[0].finish_reason(), "tool_calls");
    assert!(first[3].text.starts_with("FINAL answer of turn 1"));
    assert_eq!(first[3].finish_reason(), "stop");

    client.push(json!({"role": "user", "content": "again"}));
    let second = client.play(4);
    assert_eq!(
        ids(&second),
        ["functions.exec:3", "functions.exec:4", "functions.exec:5"]
    );
    assert!(second[3].text.starts_with("FINAL answer of turn 2"));
}

#[test]
fn reasoning_is_unique_to_conversation_turn_and_round() {
    let mut here = Client::new("here");
    let mut there = Client::new("there");
    let mut thoughts = Vec::new();
    for client in [&mut here, &mut there] {
        for _turn in 0..2 {
            let answers = client.play(4);
            thoughts.extend(
                answers
                    .into_iter()
                    .map(|answer| answer.reasoning.unwrap().1),
            );
            client.push(json!({"role": "user", "content": "again"}));
        }
    }
    let distinct: std::collections::HashSet<&String> = thoughts.iter().collect();
    assert_eq!(distinct.len(), 16);
    let hard = ['"', '\\', '\n', '\t', '’', '系', '🐴'];
    assert!(
        thoughts
            .iter()
            .all(|thought| hard.iter().all(|char| thought.contains(*char)))
    );
}

#[test]
fn the_same_request_gets_the_same_answer_and_another_seed_another_thought() {
    let mut client = Client::new("same");
    let first = client.said();
    assert_eq!(first, client.said());
    client.options.seed = 1;
    assert_ne!(first.reasoning, client.said().reasoning);
    assert_eq!(first.calls, client.said().calls);
}

#[test]
fn a_prompt_as_text_parts_is_the_same_conversation() {
    let plain = Client::new("one two");
    let mut parts = Client::new("");
    parts.messages()[1]["content"] =
        json!([{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]);
    assert_eq!(plain.said().reasoning, parts.said().reasoning);
}

#[test]
fn without_tools_the_final_text_comes_at_once() {
    for spoil in [json!({"tools": []}), json!({"tool_choice": "none"})] {
        let mut client = Client::new("title?");
        for (key, value) in spoil.as_object().unwrap() {
            client.body[key] = value.clone();
        }
        assert_eq!(client.said().intent, Intent::Finish, "{spoil}");
    }
}

#[test]
fn the_favourite_tool_is_called_else_the_forced_else_the_first() {
    let mut client = Client::new("tools");
    client.body["tool_choice"] = json!({"type": "function", "function": {"name": "read"}});
    assert_eq!(client.said().calls[0].id, "functions.read:0");
    client.body["tool_choice"] = json!("auto");
    assert_eq!(client.said().calls[0].id, "functions.exec:0");
    client.body["tools"] = json!([
        {"type": "web_search"},
        {"type": "function", "function": {"name": "look"}},
        {"type": "function", "function": {"name": "bash", "parameters": {}}},
    ]);
    assert_eq!(client.said().calls[0].name, "bash");
    client.body["tools"].as_array_mut().unwrap().pop();
    assert_eq!(client.said().calls[0].name, "look");
}

#[test]
fn parallel_calls_have_ids_in_a_row() {
    let options = Options {
        calls_per_round: Some(3),
        ..rounds(2)
    };
    let mut client = Client::with(Persona::named("kimi-k2.6").unwrap(), options, "parallel");
    let answers = client.play(3);
    assert_eq!(answers[0].calls.len(), 3);
    assert_eq!(answers[1].calls[2].id, "functions.exec:5");
    assert_eq!(
        answers[1].calls[2].arguments,
        r#"{"command": "echo round-1-call-2"}"#
    );
    assert_eq!(answers[2].intent, Intent::Finish);
}

#[test]
fn a_server_that_renamed_the_field_takes_either_name_back() {
    let vllm = Persona::named("kimi-k2.6-vllm").unwrap();
    let mut client = Client::with(vllm, Options::default(), "renamed");
    assert_eq!(client.said().reasoning.unwrap().0, "reasoning");
    client.play(1);
    let call = client.last_call();
    let thought = call.as_object_mut().unwrap().remove("reasoning").unwrap();
    assert!(client.refused().contains("reasoning_content is missing"));
    client.last_call()["reasoning_content"] = thought;
    assert_eq!(client.said().intent, Intent::Call);
}

// Where it stands.

#[test]
fn an_internal_user_message_at_the_end_of_every_request_changes_nothing() {
    let mut client = Client::new("openclaw v9");
    let internal = json!({"role": "user", "content": [{"type": "text", "text": "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>"}]});
    let mut answers = Vec::new();
    for _ in 0..4 {
        client.push(internal.clone());
        let answer = client.said();
        client.messages().pop();
        client.keep(&answer);
        answers.push(answer);
    }
    assert_eq!(ids(&answers).len(), 3);
    assert_eq!(answers[3].intent, Intent::Finish);
}

#[test]
fn assistant_texts_that_a_harness_inserts_end_no_turn() {
    let mut client = Client::new("inserted");
    for round in 0..3 {
        let answer = client.said();
        assert_eq!(answer.calls[0].id, format!("functions.exec:{round}"));
        client.keep(&answer);
        client.push(json!({"role": "assistant", "content": "I have processed the tool results."}));
    }
    assert_eq!(client.said().intent, Intent::Finish);
}

#[test]
fn a_final_text_as_parts_ends_the_turn() {
    let mut client = Client::new("parts");
    client.play(4);
    let last = client.messages().last_mut().unwrap();
    last["content"] = json!([{"type": "text", "text": last["content"]}]);
    client.push(json!({"role": "user", "content": "again"}));
    assert_eq!(client.said().calls[0].id, "functions.exec:3");
}

#[test]
fn one_assistant_message_for_each_parallel_call_is_one_round() {
    let options = Options {
        calls_per_round: Some(2),
        ..rounds(2)
    };
    let mut client = Client::with(Persona::named("kimi-k2.6").unwrap(), options, "codex 0.77");
    let answer = client.said();
    let whole = message(&answer);
    for call in whole["tool_calls"].as_array().unwrap() {
        let mut alone = whole.clone();
        alone["tool_calls"] = json!([call]);
        client.push(alone);
    }
    client.push(json!({"role": "assistant", "content": "Running the tool."}));
    for call in &answer.calls {
        client.push(json!({"role": "tool", "tool_call_id": call.id, "content": "x"}));
    }
    let next = client.said();
    assert_eq!(
        ids(std::slice::from_ref(&next)),
        ["functions.exec:2", "functions.exec:3"]
    );
    let heard = client.verdict().heard.unwrap();
    assert_eq!((heard.turn, heard.round), (1, 1));
    assert!(
        heard.assistant[..2]
            .iter()
            .all(|heard| heard.reasoning == HeardReasoning::Ok)
    );
}

/// The combined call of round 0 as the harness's side splits it, in one message.
fn split(client: &mut Client) {
    let call = client.said();
    let mut message = message(&call);
    let pieces = ["hostname", "date", "uptime"].iter().enumerate().map(|(at, command)| {
        let id = format!("functions.exec:0_split_{}_{command}", at + 1);
        let arguments = json!({"command": command}).to_string();
        json!({"id": id, "type": "function", "function": {"name": "exec", "arguments": arguments}})
    });
    message["tool_calls"] = pieces.collect();
    let calls = message["tool_calls"].as_array().unwrap().clone();
    client.push(message);
    for call in calls {
        client.push(json!({"role": "tool", "tool_call_id": call["id"], "content": "x"}));
    }
}

#[test]
fn kimi_06_a_split_combined_call_counts_as_the_one_it_came_from() {
    let mut client = Client::new("split");
    split(&mut client);
    let next = client.said();
    assert_eq!(next.calls[0].id, "functions.exec:1");
    assert_eq!(client.verdict().heard.unwrap().round, 1);
}

#[test]
fn a_split_call_with_one_message_for_each_piece_counts_too() {
    let mut client = Client::new("split apart");
    split(&mut client);
    let whole = client.messages().remove(2);
    for call in whole["tool_calls"].as_array().unwrap().iter().rev() {
        let mut alone = whole.clone();
        alone["tool_calls"] = json!([call]);
        client.messages().insert(2, alone);
    }
    assert_eq!(client.said().calls[0].id, "functions.exec:1");
}

#[test]
fn a_split_that_lost_a_piece_loses_the_thread() {
    let mut client = Client::new("piece");
    split(&mut client);
    client.messages()[2]["tool_calls"]
        .as_array_mut()
        .unwrap()
        .pop();
    client.messages().pop();
    let id = "functions.exec:0_split_3_uptime".to_owned();
    assert_eq!(client.lost(), Lost::Incomplete { id });
}

#[test]
fn a_split_into_other_commands_loses_the_thread() {
    let mut client = Client::new("other commands");
    split(&mut client);
    client.messages()[2]["tool_calls"][1]["id"] = json!("functions.exec:0_split_2_reboot");
    let expected = Some("functions.exec:0_split_2_date".to_owned());
    let id = "functions.exec:0_split_2_reboot".to_owned();
    assert_eq!(
        client.lost(),
        Lost::NotGiven {
            index: 2,
            id,
            expected
        }
    );

    let mut client = Client::new("other arguments");
    split(&mut client);
    client.messages()[2]["tool_calls"][1]["function"]["arguments"] =
        json!(r#"{"command":"reboot"}"#);
    let id = "functions.exec:0_split_2_date".to_owned();
    assert_eq!(client.lost(), Lost::OtherArguments { index: 2, id });
}

// What it refuses.

#[test]
fn a_body_that_is_no_chat_request_is_refused_with_its_place() {
    let (persona, options) = (Persona::named("kimi-k2.6").unwrap(), Options::default());
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let cases: [(&[u8], &str); 8] = [
        (
            b"",
            "the body is not valid JSON: EOF while parsing a value at line 1 column 0",
        ),
        (
            b"{\"messages\":[",
            "the body is not valid JSON: EOF while parsing a list at line 1 column 13",
        ),
        (
            b"{\"messages\":\"\xff\"}",
            "the body is not valid JSON: invalid unicode code point at line 1 column 14",
        ),
        (
            deep.as_bytes(),
            "the body is not valid JSON: recursion limit exceeded at line 1 column 128",
        ),
        (b"[]", "messages must be a list"),
        (b"{}", "messages must be a list"),
        (b"{\"messages\":{}}", "messages must be a list"),
        (b"{\"messages\":[{},3]}", "messages[1] must be an object"),
    ];
    for (body, message) in cases {
        let verdict = answer(&persona, &options, body);
        assert!(verdict.heard.is_none());
        assert_eq!(
            verdict.decision,
            Decision::Refuse(Refusal::invalid(message.to_owned()))
        );
    }
}

#[test]
fn rpl_16_missing_reasoning_is_refused_with_the_providers_text() {
    let mut client = Client::new("drops reasoning");
    client.play(2);
    for spoil in [Value::Null, json!("")] {
        client.messages()[4]["reasoning_content"] = spoil;
        assert_eq!(
            client.refused(),
            "thinking is enabled but reasoning_content is missing in assistant tool call message at index 4"
        );
    }
    client.messages()[2]
        .as_object_mut()
        .unwrap()
        .remove("reasoning_content");
    assert!(client.refused().ends_with("at index 2"));
}

#[test]
fn rpl_16_reasoning_echoed_byte_exact_passes_every_round() {
    let mut client = Client::with(Persona::named("kimi-k2.6").unwrap(), rounds(5), "echoes");
    let answers = client.play(6);
    assert_eq!(answers[5].intent, Intent::Finish);
    let heard = client.verdict().heard.unwrap();
    let calls: Vec<_> = heard
        .assistant
        .iter()
        .filter(|heard| !heard.ids.is_empty())
        .collect();
    assert_eq!(calls.len(), 5);
    assert!(
        calls
            .iter()
            .all(|heard| heard.reasoning == HeardReasoning::Ok)
    );
}

#[test]
fn reasoning_cut_to_its_last_delta_is_refused_unless_relaxed() {
    let mut client = Client::new("openai-node stream helper");
    client.play(1);
    client.last_call()["reasoning_content"] = json!(" this line.");
    assert_eq!(
        client.refused(),
        "reasoning_content does not match what the model said in assistant tool call message at index 2 \
         (this persona is stricter here than the provider)"
    );
    client.options.exact_reasoning = false;
    assert_eq!(client.said().intent, Intent::Call);
    assert_eq!(
        client.verdict().heard.unwrap().assistant[0].reasoning,
        HeardReasoning::Wrong
    );
}

#[test]
fn another_conversations_reasoning_under_the_same_ids_is_refused() {
    let mut here = Client::new("here");
    let mut there = Client::new("there");
    here.play(1);
    there.play(1);
    assert_eq!(
        here.last_call()["tool_calls"],
        there.last_call()["tool_calls"]
    );
    *here.last_call() = there.last_call().clone();
    assert!(here.refused().contains("does not match"));
}

#[test]
fn missing_reasoning_is_refused_even_where_the_thread_is_lost() {
    let mut client = Client::new("both");
    client.play(2);
    client.messages()[2]["tool_calls"][0]["id"] = json!("functionsexec0");
    client.messages()[4]
        .as_object_mut()
        .unwrap()
        .remove("reasoning_content");
    assert!(client.refused().ends_with("at index 4"));
}

#[test]
fn rpl_17_thinking_disabled_neither_emits_nor_demands_reasoning() {
    let spellings = [
        json!({"thinking": {"type": "disabled"}}),
        json!({"chat_template_kwargs": {"thinking": false}}),
        json!({"chat_template_kwargs": {"enable_thinking": false}}),
        json!({"enable_thinking": false}),
    ];
    for spelling in spellings {
        let mut client = Client::new("no thinking");
        for (key, value) in spelling.as_object().unwrap() {
            client.body[key] = value.clone();
        }
        let answers = client.play(4);
        assert!(
            answers.iter().all(|answer| answer.reasoning.is_none()),
            "{spelling}"
        );
        assert_eq!(answers[3].intent, Intent::Finish);
    }
}

#[test]
fn thinking_enabled_in_words_is_thinking() {
    let mut client = Client::new("thinking");
    client.body["thinking"] = json!({"type": "enabled"});
    client.body["chat_template_kwargs"] = json!({"enable_thinking": true});
    assert!(client.said().reasoning.is_some());
}

#[test]
fn an_empty_list_of_tool_calls_is_refused() {
    let mut client = Client::new("hermes");
    client.push(json!({"role": "assistant", "content": "", "tool_calls": []}));
    assert_eq!(
        client.refused(),
        "tool_calls is an empty array in assistant message at index 2"
    );
    client.messages()[2]["tool_calls"] = Value::Null;
    assert_eq!(client.said().intent, Intent::Call);
}

#[test]
fn the_picky_one_refuses_what_the_plain_one_takes() {
    let picky = Persona::named("kimi-k2.6-picky").unwrap();
    let mut client = Client::with(picky, Options::default(), "picky");
    client.play(1);
    assert_eq!(
        client.refused(),
        "name is missing in tool message at index 3"
    );
    client.messages()[3]["name"] = json!("exec");
    assert_eq!(client.said().intent, Intent::Call);

    client.messages()[2]["content"] = json!("");
    assert_eq!(client.refused(), "text content is empty");
    client.messages()[2]
        .as_object_mut()
        .unwrap()
        .remove("content");
    assert_eq!(client.said().intent, Intent::Call);

    for (temperature, thinking, refused) in [
        (
            json!(0.1),
            "enabled",
            Some("invalid temperature: only 1 is allowed for this model"),
        ),
        (json!(1.0), "enabled", None),
        (
            json!(1),
            "disabled",
            Some("invalid temperature: only 0.6 is allowed for this model"),
        ),
        (json!(0.6), "disabled", None),
        (Value::Null, "disabled", None),
    ] {
        client.body["temperature"] = temperature;
        client.body["thinking"] = json!({"type": thinking});
        match refused {
            Some(message) => assert_eq!(client.refused(), message),
            None => assert_eq!(client.said().intent, Intent::Call),
        }
    }
}

#[test]
fn the_plain_one_takes_an_empty_content_and_nameless_results() {
    let mut client = Client::new("plain");
    client.play(1);
    client.body["temperature"] = json!(0.1);
    client.last_call()["content"] = json!("");
    assert_eq!(client.said().intent, Intent::Call);
}

// When it loses the thread.

/// Renames the first call and its result.
fn rename(client: &mut Client, id: &str) {
    client.messages()[2]["tool_calls"][0]["id"] = json!(id);
    client.messages()[3]["tool_call_id"] = json!(id);
}

#[test]
fn rpl_20_native_ids_play_on_and_mangled_ones_lose_the_thread() {
    for trial in 0..5 {
        let mut client = Client::new(&format!("trial {trial}"));
        client.play(2);
        assert_eq!(client.said().intent, Intent::Call);
        for mangled in [
            "functionsexec0",
            "functions_exec_0",
            "call_abc123def456",
            "functions.exec:7",
            "abc123def",
        ] {
            let mut client = Client::new(&format!("trial {trial}"));
            client.play(2);
            rename(&mut client, mangled);
            let expected = Some("functions.exec:0".to_owned());
            let id = mangled.to_owned();
            assert_eq!(
                client.lost(),
                Lost::NotGiven {
                    index: 2,
                    id,
                    expected
                }
            );
        }
    }
}

#[test]
fn rpl_20_a_persona_may_tolerate_ids_of_another_style() {
    let tolerant = kimi_with(|sheet| sheet["calls"]["tolerated_id_prefixes"] = json!(["call_"]));
    for trial in 0..5 {
        let prompt = format!("trial {trial}");
        let mut client = Client::with(tolerant.clone(), Options::default(), &prompt);
        client.play(3);
        rename(&mut client, "call_abc123def456");
        assert_eq!(client.said().intent, Intent::Finish);
        rename(&mut client, "functionsexec0");
        assert!(matches!(client.lost(), Lost::NotGiven { .. }));
    }
}

#[test]
fn a_repeated_id_loses_the_thread() {
    let mut client = Client::new("repeats");
    client.play(2);
    client.messages()[4]["tool_calls"][0]["id"] = json!("functions.exec:0");
    let id = "functions.exec:0".to_owned();
    assert_eq!(client.lost(), Lost::Repeated { index: 4, id });
}

#[test]
fn a_result_of_no_call_or_a_second_one_loses_the_thread() {
    let mut client = Client::new("stray");
    client.play(1);
    client.messages()[3]["tool_call_id"] = json!("functionsexec0");
    let id = Some("functionsexec0".to_owned());
    assert_eq!(client.lost(), Lost::StrayResult { index: 3, id });

    let mut client = Client::new("twice");
    client.play(1);
    let twice = client.messages()[3].clone();
    client.push(twice);
    assert!(matches!(client.lost(), Lost::StrayResult { index: 4, .. }));
}

#[test]
fn a_call_missing_from_a_round_loses_the_thread() {
    let options = Options {
        calls_per_round: Some(2),
        ..Options::default()
    };
    let mut client = Client::with(
        Persona::named("kimi-k2.6").unwrap(),
        options,
        "half a round",
    );
    client.play(1);
    client.messages()[2]["tool_calls"]
        .as_array_mut()
        .unwrap()
        .pop();
    client.messages().pop();
    assert_eq!(
        client.lost(),
        Lost::Incomplete {
            id: "functions.exec:1".to_owned()
        }
    );
}

#[test]
fn a_call_it_never_made_loses_the_thread() {
    let mut client = Client::with(
        Persona::named("kimi-k2.6").unwrap(),
        rounds(1),
        "one too many",
    );
    client.play(1);
    let mut more = client.messages()[2].clone();
    more["tool_calls"][0]["id"] = json!("functions.exec:1");
    client.push(more);
    let id = "functions.exec:1".to_owned();
    assert_eq!(
        client.lost(),
        Lost::NotGiven {
            index: 4,
            id,
            expected: None
        }
    );
}

#[test]
fn arguments_are_compared_by_value_not_by_spelling() {
    let mut client = Client::new("re-serialised");
    client.play(1);
    let function = &mut client.last_call()["tool_calls"][0]["function"];
    function["arguments"] = json!(r#"{"command":"hostname; date; \u0075ptime"}"#);
    assert_eq!(client.said().intent, Intent::Call);

    let function = &mut client.last_call()["tool_calls"][0]["function"];
    function["arguments"] = json!("{}");
    let id = "functions.exec:0".to_owned();
    assert_eq!(client.lost(), Lost::OtherArguments { index: 2, id });
}

#[test]
fn a_tool_no_longer_offered_is_not_judged_by_its_arguments() {
    let mut client = Client::new("tools withdrawn");
    client.play(1);
    client.body["tools"] = json!([]);
    client.last_call()["tool_calls"][0]["function"]["arguments"] = json!("{}");
    assert_eq!(client.said().intent, Intent::Finish);
}

// What it tells.

#[test]
fn what_was_heard_names_shapes_and_no_contents() {
    let mut client = Client::new("sk-very-secret");
    client.play(1);
    client.messages()[3]["name"] = json!("exec");
    client.body["stream"] = json!(true);
    let heard = serde_json::to_value(client.verdict().heard.unwrap()).unwrap();
    assert!(!heard.to_string().contains("sk-very-secret"));
    assert_eq!(
        heard,
        json!({
            "model": "kimi-k2.6", "conversation": heard["conversation"], "turn": 1, "round": 1,
            "thinking": true, "stream": true, "messages": 4, "tools": ["read", "exec"],
            "assistant": [{"index": 2, "ids": ["functions.exec:0"], "reasoning": "ok"}],
            "results": [{"index": 3, "id": "functions.exec:0", "name": "exec"}],
        })
    );
}

#[test]
fn a_server_that_repeats_its_ids_knows_each_round_by_its_place() {
    let persona = Persona::named("kimi-k2.6-repeating").unwrap();
    let mut client = Client::with(persona, Options::default(), "report");
    let answers = client.play(3);
    assert_eq!(ids(&answers), ["functions.exec:0"; 3]);
    assert_eq!(client.said().intent, Intent::Finish);
    client.last_call()["tool_calls"][0]["id"] = json!("functionsexec02");
    assert!(matches!(client.lost(), Lost::NotGiven { .. }));
}
