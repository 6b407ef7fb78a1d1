use proptest::prelude::*;

use super::*;

fn json(body: &str) -> String {
    String::from_utf8(masked(body.as_bytes(), false)).unwrap()
}

fn stream(body: &str) -> String {
    assert!(is_event_stream(body.as_bytes()));
    String::from_utf8(masked(body.as_bytes(), true)).unwrap()
}

#[test]
fn words_are_hidden_and_names_are_kept() {
    let body = r#"{ "model":"kimi", "temperature": 1.0,
      "messages":[{"role":"user","content":"Call 0800 now, Ünï \"x\" \n\u4f60"}, {"role":"tool","tool_call_id":"f:0","name":"exec","content":[{"type":"text","text":"secret"}]}],
      "tools":[{"type":"function","function":{"name":"exec","description":"Runs it","parameters":{"required":["command"],"properties":{"command":{"enum":["ls"]}}}}}]}"#;
    let expected = r#"{ "model":"kimi", "temperature": 1.0,
      "messages":[{"role":"user","content":"Xxxx 0000 xxx, éxé \"x\" \n\u0078"}, {"role":"tool","tool_call_id":"f:0","name":"exec","content":[{"type":"text","text":"xxxxxx"}]}],
      "tools":[{"type":"function","function":{"name":"exec","description":"Xxxx xx","parameters":{"required":["command"],"properties":{"command":{"enum":["xx"]}}}}}]}"#;
    assert_eq!(json(body), expected);
}

#[test]
fn arguments_keep_the_names_of_their_members() {
    let body = r#"{"arguments":"{\"command\": [\"rm a; ls\", {\"id\":\"x1\"}], \"n\": 42.5, \"ok\": true, \"q\":\"a\\\"b\\u4f60\"}"}"#;
    let expected = r#"{"arguments":"{\"command\": [\"xx x; xx\", {\"id\":\"x0\"}], \"n\": 11.1, \"ok\": true, \"q\":\"x\\\"x\\u0000\"}"}"#;
    assert_eq!(json(body), expected);
}

#[test]
fn arguments_that_are_an_object_keep_no_value() {
    let body = r#"{"arguments":{"id":"a1","name":"bob","nested":{"code":"x = secret"}}}"#;
    assert_eq!(
        json(body),
        r#"{"arguments":{"id":"x0","name":"xxx","nested":{"code":"x = xxxxxx"}}}"#
    );
}

#[test]
fn arguments_that_are_no_json_are_hidden() {
    let body = r#"{"arguments":"hostname; date 42"}"#;
    assert_eq!(json(body), r#"{"arguments":"xxxxxxxx; xxxx 11"}"#);
}

#[test]
fn fragments_of_interleaved_calls_are_followed_each_on_its_own() {
    let delta = |call: u32, arguments: &str| {
        format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"tool_calls\":[{{\"index\":{call},\"function\":{{\"arguments\":\"{arguments}\"}}}}]}}}}]}}\n\n"
        )
    };
    let body = delta(0, "{\\\"path\\\": \\\"ho")
        + &delta(1, "{\\\"name\\\":")
        + &delta(0, "me\\\"}")
        + &delta(1, "\\\"bob\\\"}");
    let expected = delta(0, "{\\\"path\\\": \\\"xx")
        + &delta(1, "{\\\"name\\\":")
        + &delta(0, "xx\\\"}")
        + &delta(1, "\\\"xxx\\\"}");
    assert_eq!(stream(&body), expected);
}

#[test]
fn a_stream_keeps_its_frame() {
    let body = ": keep-alive\r\n\r\nevent: error\ndata: {\"error\":{\"message\":\"boom\",\"code\":\"bad\"}}\n\nstray words\ndata: [DONE]\n\n";
    let expected = ": keep-alive\r\n\r\nevent: error\ndata: {\"error\":{\"message\":\"xxxx\",\"code\":\"bad\"}}\n\nxxxxx xxxxx\ndata: [DONE]\n\n";
    assert_eq!(stream(body), expected);
}

#[test]
fn what_is_not_json_is_hidden_whole() {
    for (body, expected) in [
        ("Not JSON: key 1", "Xxx XXXX: xxx 0"),
        ("{\"content\":\"cut of", "{\"xxxxxxx\":\"xxx xx"),
        ("{\"a\":1}trailing", "{\"x\":0}xxxxxxxx"),
        ("", ""),
    ] {
        assert_eq!(json(body), expected);
    }
}

proptest! {
    #[test]
    fn masking_keeps_length_and_json(content in ".{0,40}", key in "[a-z_]{1,10}", arguments in ".{0,40}") {
        let inner = serde_json::json!({ "command": arguments, "n": 1 }).to_string();
        let body = serde_json::json!({ key: content, "function": { "arguments": inner } }).to_string();
        let masked = json(&body);
        let value: serde_json::Value = serde_json::from_str(&masked).unwrap();
        let inner = value["function"]["arguments"].as_str().unwrap();
        serde_json::from_str::<serde_json::Value>(inner).unwrap();
        prop_assert_eq!(masked.len(), body.len());
    }

    #[test]
    fn any_bytes_are_masked_without_a_word_left(body in proptest::collection::vec(any::<u8>(), 0..60), events in any::<bool>()) {
        masked(&body, events);
    }
}
