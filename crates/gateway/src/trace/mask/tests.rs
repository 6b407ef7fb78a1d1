use proptest::prelude::*;
use serde_json::json;

use super::*;

const TOOLS: &str = r#"{"tools":[{"type":"function","function":{"name":"exec","parameters":{"type":"object",
    "properties":{"command":{"type":"string"},"n":{},"nested":{"items":{"properties":{"id":{}}}},"not plain":{}}}}}]}"#;

fn declared() -> Declared {
    Declared::of(TOOLS.as_bytes())
}

fn json(body: &str) -> String {
    String::from_utf8(masked(body.as_bytes(), false, &declared())).unwrap()
}

fn stream(body: &str) -> String {
    assert!(is_event_stream(body.as_bytes()));
    String::from_utf8(masked(body.as_bytes(), true, &declared())).unwrap()
}

/// A request that replays one call with these arguments, given as JSON.
fn replayed(arguments: &str) -> String {
    format!(
        r#"{{"messages":[{{"role":"assistant","tool_calls":[{{"id":"c:0","function":{{"name":"exec","arguments":{arguments}}}}}]}}]}}"#
    )
}

#[track_caller]
fn assert_arguments(arguments: &str, expected: &str) {
    assert_eq!(json(&replayed(arguments)), replayed(expected));
}

#[test]
fn words_are_hidden_and_names_are_kept() {
    let body = r#"{ "model":"kimi", "temperature": 1.0,
      "messages":[{"role":"user","content":"Call 0800 now, Ünï \"x\" \n\u4f60"}, {"role":"tool","tool_call_id":"f:0","name":"exec","content":[{"type":"text","text":"secret"}]}],
      "tools":[{"type":"function","function":{"name":"exec","description":"Runs it","parameters":{"required":["command"],"properties":{"command":{"enum":["ls"]}}}}}]}"#;
    let expected = r#"{ "model":"kimi", "temperature": 1.0,
      "messages":[{"role":"user","content":"Xxxx 0000 xxx, éxé \"x\" \n\u5b57"}, {"role":"tool","tool_call_id":"f:0","name":"exec","content":[{"type":"text","text":"xxxxxx"}]}],
      "tools":[{"type":"function","function":{"name":"exec","description":"Xxxx xx","parameters":{"required":["command"],"properties":{"command":{"enum":["xx"]}}}}}]}"#;
    assert_eq!(json(body), expected);
}

#[test]
fn nothing_is_shown_for_its_name_alone() {
    for (body, expected) in [
        (
            r#"{"messages":[{"role":"user","content":{"name":"John Smith","id":"SSN 078-05-1120","code":7}}]}"#,
            r#"{"messages":[{"role":"user","content":{"name":"Xxxx Xxxxx","id":"XXX 000-00-0000","xxxx":1}}]}"#,
        ),
        (
            r#"{"messages":[{"name":"John","role":"user","content":4711}]}"#,
            r#"{"messages":[{"name":"Xxxx","role":"user","content":1111}]}"#,
        ),
        (
            r#"{"metadata":{"name":"bob","078-05":"x","model":"a"},"prediction":{"type":"content","content":"b"}}"#,
            r#"{"metadata":{"name":"xxx","000-00":"x","xxxxx":"x"},"prediction":{"type":"xxxxxxx","content":"x"}}"#,
        ),
        (
            r#"{"choices":[{"index":0,"prompt_token_ids":[15339,1917],"finish_reason":"said by bob"}]}"#,
            r#"{"choices":[{"index":0,"prompt_token_ids":[11111,1111],"finish_reason":"xxxx xx xxx"}]}"#,
        ),
        (
            r#"{"new":{"id":"a","role":"b","n":[1.5e9]},"user":"bob","user_id":42,"ok":true}"#,
            r#"{"new":{"id":"x","xxxx":"x","x":[1.1e0]},"user":"xxx","user_id":11,"ok":true}"#,
        ),
        (
            r#"{"tools":[{"function":{"parameters":{"properties":{"a":{"type":"string","default":{"type":"bob"},"minimum":42}}}}}]}"#,
            r#"{"tools":[{"function":{"parameters":{"properties":{"a":{"type":"string","default":{"type":"xxx"},"minimum":11}}}}}]}"#,
        ),
    ] {
        assert_eq!(json(body), expected);
    }
}

#[test]
fn arguments_keep_the_names_that_tools_declare() {
    assert_arguments(
        r#""{\"command\": [\"rm a; ls\", {\"id\":\"x1\"}], \"n\": 42.5, \"ok\": true, \"not plain\":\"a\\\"b\\u4f60\"}""#,
        r#""{\"command\": [\"xx x; xx\", {\"id\":\"x0\"}], \"n\": 11.1, \"xx\": true, \"xxx xxxxx\":\"x\\\"x\\u5b57\"}""#,
    );
}

#[test]
fn arguments_that_are_an_object_keep_no_value() {
    assert_arguments(
        r#"{"id":"a1","name":"bob","pin":4711,"nested":{"code":"x = secret"},"command":["a",7]}"#,
        r#"{"id":"x0","xxxx":"xxx","xxx":1111,"nested":{"xxxx":"x = xxxxxx"},"command":["x",1]}"#,
    );
}

#[test]
fn arguments_that_are_no_json_are_hidden_whole() {
    for (arguments, expected) in [
        (r#""hostname; date 42""#, r#""xxxxxxxx; xxxx 00""#),
        (
            r#""{\"command\":\"echo \"hello, \"my password is hunter2\" ok\"}""#,
            r#""{\"xxxxxxx\":\"xxxx \"xxxxx, \"xx xxxxxxxx xx xxxxxx0\" xx\"}""#,
        ),
        (
            r#""{\"command\":\"ls\"} bob""#,
            r#""{\"xxxxxxx\":\"xx\"} xxx""#,
        ),
        (r#""{\"command\":\"a\nb\"}""#, r#""{\"xxxxxxx\":\"x\nx\"}""#),
        (r#""{\"n\":nan}""#, r#""{\"x\":xxx}""#),
    ] {
        assert_arguments(arguments, expected);
    }
}

fn event(data: &str) -> String {
    format!("data: {data}\n\n")
}

/// An event with a piece of a call's arguments; `index` stands where `{}` are in `call`.
fn delta(call: &str, arguments: &str) -> String {
    let call = call.replace(
        "{}",
        &format!("\"function\":{{\"arguments\":\"{arguments}\"}}"),
    );
    format!("data: {{\"choices\":[{{\"delta\":{{\"tool_calls\":[{{{call}}}]}},\"index\":0}}]}}\n\n")
}

#[test]
fn fragments_of_interleaved_calls_are_followed_each_on_its_own() {
    for [first, second] in [
        ["\"index\":0,{}", "\"index\":1,{}"],
        ["{},\"index\":0", "{}, \"index\" : 1"],
    ] {
        let body = delta(first, "{\\\"command\\\": \\\"ho")
            + &delta(second, "{\\\"nested\\\":")
            + &delta(first, "me\\\"}")
            + &delta(second, "\\\"bob\\\"}");
        let expected = delta(first, "{\\\"command\\\": \\\"xx")
            + &delta(second, "{\\\"nested\\\":")
            + &delta(first, "xx\\\"}")
            + &delta(second, "\\\"xxx\\\"}");
        assert_eq!(stream(&body), expected);
    }
}

#[test]
fn a_call_that_turns_out_broken_is_hidden_from_its_beginning() {
    let call = "\"index\":0,{}";
    let body = delta(call, "{\\\"command\\\": \\\"a ") + &delta(call, "\\\"hunter2\\\" b\\\"}");
    let expected = delta(call, "{\\\"xxxxxxx\\\": \\\"x ") + &delta(call, "\\\"xxxxxx0\\\" x\\\"}");
    assert_eq!(stream(&body), expected);
}

#[test]
fn a_stream_keeps_its_frame() {
    let body = ": bob said 42\r\n\r\nevent: error\ndata: {\"error\":{\"message\":\"boom\",\"code\":\"bad\"}}\n\nid: bob\nevent: bob said\nretry: 10\nstray words\ndata: [DONE]\n\n";
    let expected = ": xxx xxxx 00\r\n\r\nevent: error\ndata: {\"error\":{\"message\":\"xxxx\",\"code\":\"bad\"}}\n\nid: xxx\nevent: xxx xxxx\nretry: 00\nxxxxx xxxxx\ndata: [DONE]\n\n";
    assert_eq!(stream(body), expected);
}

#[test]
fn what_is_not_json_is_hidden_whole() {
    for (body, expected) in [
        ("Not JSON: key 1", "Xxx XXXX: xxx 0"),
        ("{\"content\":\"cut of", "{\"xxxxxxx\":\"xxx xx"),
        ("{\"a\":1}trailing", "{\"x\":0}xxxxxxxx"),
        ("{\"model\":secret}", "{\"xxxxx\":xxxxxx}"),
        ("\"words\"", "\"xxxxx\""),
        ("", ""),
    ] {
        assert_eq!(json(body), expected);
    }
}

/// Pieces of what is planted: words that no protocol has, and whatever may confuse a reader of JSON.
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        CANARY,
        CANARY,
        "\"",
        "\\\"",
        "\\",
        ",",
        ":",
        "{",
        "}",
        "[",
        "]",
        " ",
        "\n",
        "true",
        "7",
        "command",
        "\"command\":",
        "\\u0051",
        "😀",
        "e",
    ])
}

fn planted() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..10).prop_map(|pieces| pieces.concat())
}

fn arguments() -> impl Strategy<Value = String> {
    (planted(), 0..4).prop_map(|(text, how)| match how {
        0 => text,
        1 => format!("{{\"command\":\"{text}\"}}"),
        2 => json!({ "command": text, "pin": 7 }).to_string(),
        _ => format!("{{\"command\":7,{text}}}"),
    })
}

/// Strings and objects with something planted in them.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        planted().prop_map(Value::from),
        Just(json!(777)),
        Just(json!(CANARY)),
    ];
    let keys = prop::sample::select(vec![
        "name",
        "id",
        "type",
        "content",
        "role",
        "arguments",
        "model",
        "index",
        "function",
        "messages",
        CANARY,
    ]);
    leaf.prop_recursive(3, 8, 3, move |inner| {
        let items = prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from);
        let members = prop::collection::hash_map(keys.clone().prop_map(str::to_owned), inner, 0..3);
        prop_oneof![items, members.prop_map(|members| json!(members))]
    })
}

/// What no protocol has: if any character of it is shown, something leaked.
const CANARY: &str = "Qκ7";

#[track_caller]
fn assert_silent(body: &str, masked: &str) {
    let leaked: Vec<char> = CANARY.chars().filter(|c| masked.contains(*c)).collect();
    assert!(leaked.is_empty(), "{leaked:?} of\n{body}\nin\n{masked}");
    assert!(
        !masked.contains("\\u0051") && !masked.contains("😀"),
        "{masked}"
    );
    assert_eq!(masked.len(), body.len());
}

proptest! {
    #[test]
    fn no_planted_word_leaves_a_request(
        [content, metadata, prediction, thought, object] in [value(), value(), value(), value(), value()],
        [one, two] in [arguments(), arguments()],
    ) {
        let body = json!({
            "model": "m",
            "metadata": metadata,
            "prediction": prediction,
            "unheard_of": object.clone(),
            "messages": [
                { "role": "user", "name": CANARY, "content": content },
                {
                    "role": "assistant",
                    "reasoning_content": one,
                    "reasoning": thought.clone(),
                    "reasoning_details": [thought.clone()],
                    "thinking": thought,
                    "tool_calls": [
                        { "id": "a", "function": { "name": "exec", "arguments": one } },
                        { "id": "b", "function": { "name": "exec", "arguments": two } },
                        { "id": "c", "function": { "name": "exec", "arguments": object } },
                    ],
                },
            ],
        })
        .to_string();
        let masked = json(&body);
        assert_silent(&body, &masked);
        serde_json::from_str::<Value>(&masked).unwrap();
    }

    #[test]
    fn no_planted_word_leaves_a_stream(
        calls in [arguments(), arguments()],
        thought in value(),
        cuts in prop::collection::vec((0..2_usize, 1..6_usize), 0..12),
        comment in planted(),
        index_first: bool,
    ) {
        let mut rest = calls.each_ref().map(|call| call.chars());
        let mut body = format!(": {}\n\n", comment.replace('\n', ""));
        let thoughts = json!({ "choices": [{ "delta": { "reasoning_content": thought } }] });
        body += &event(&thoughts.to_string());
        for (call, length) in cuts {
            let fragment = json!(rest[call].by_ref().take(length).collect::<String>());
            let call = if index_first {
                format!("{{\"index\":{call},\"function\":{{\"arguments\":{fragment}}}}}")
            } else {
                format!("{{\"function\":{{\"arguments\":{fragment}}},\"index\":{call}}}")
            };
            body += &event(&format!("{{\"choices\":[{{\"index\":0,\"delta\":{{\"tool_calls\":[{call}]}}}}]}}"));
        }
        let masked = stream(&body);
        assert_silent(&body, &masked);
        let events = masked.lines().filter_map(|line| line.strip_prefix("data: "));
        events.for_each(|event| drop(serde_json::from_str::<Value>(event).unwrap()));
    }

    #[test]
    fn masking_keeps_length_and_json(content in ".{0,40}", key in "[a-z_]{1,10}", arguments in ".{0,40}") {
        let inner = json!({ "command": arguments, "n": 1 }).to_string();
        let call = json!({ "function": { "arguments": inner } });
        let body = json!({ key: content, "messages": [{ "tool_calls": [call] }] }).to_string();
        let masked = json(&body);
        let value: Value = serde_json::from_str(&masked).unwrap();
        let inner = value["messages"][0]["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
        let inner: Value = serde_json::from_str(inner).unwrap();
        prop_assert!(inner["command"].is_string());
        prop_assert_eq!(masked.len(), body.len());
    }

    #[test]
    fn any_bytes_are_masked_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..60), events: bool) {
        masked(&body, events, &declared());
    }

    #[test]
    fn anything_like_json_is_masked_without_a_panic(pieces in prop::collection::vec(piece(), 0..30), events: bool) {
        let body = pieces.concat();
        let masked = masked(body.as_bytes(), events, &declared());
        prop_assert_eq!(masked.len(), body.len());
    }
}
