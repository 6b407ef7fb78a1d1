//! Properties of the bytes: cutting changes nothing, folding a stream gives the JSON answer.

use std::io::Read as _;

use super::*;
use crate::mind::Intent;

fn answer(form: Form) -> Answer {
    let call = |n: u32, arguments: &str| Call {
        id: format!("functions.exec:{n}"),
        name: "exec".to_owned(),
        arguments: arguments.to_owned(),
    };
    Answer {
        intent: Intent::Call,
        id: "chatcmpl-x".to_owned(),
        model: "kimi-k2.6".to_owned(),
        reasoning: Some((
            "reasoning_content".to_owned(),
            "“l’état” 系统 🐴\n\"\\".to_owned(),
        )),
        text: "Running the tool. ✓".to_owned(),
        calls: vec![
            call(0, r#"{"command": "hostname; date"}"#),
            call(1, r#"{"command": "é"}"#),
        ],
        usage: Usage {
            prompt: 10,
            completion: 20,
            reasoning: 5,
        },
        form,
    }
}

const STREAM: Form = Form::Stream {
    include_usage: true,
};

fn behaviour(json: &str) -> Behaviour {
    json.parse().unwrap()
}

fn spoken(form: Form, behaviour: &Behaviour) -> Spoken {
    say(&Decision::Say(answer(form)), behaviour)
}

fn steps(mut spoken: Spoken) -> Vec<Step> {
    std::iter::from_fn(|| spoken.next_step()).collect()
}

fn writes(spoken: Spoken) -> Vec<Bytes> {
    let steps = steps(spoken).into_iter();
    steps
        .filter_map(|step| {
            if let Step::Write(bytes) = step {
                Some(bytes)
            } else {
                None
            }
        })
        .collect()
}

fn text(spoken: Spoken) -> String {
    String::from_utf8(writes(spoken).concat()).unwrap()
}

/// The payloads of an event stream with `\n` line ends.
fn payloads(stream: &str) -> Vec<&str> {
    let events = stream.strip_suffix("\n\n").unwrap().split("\n\n");
    events
        .filter(|event| !event.starts_with(':'))
        .map(|event| event.strip_prefix("data: ").unwrap())
        .collect()
}

/// A client that accumulates deltas by index, as the SDKs do.
fn folded(stream: &str) -> Value {
    let mut message = json!({"role": "", "content": ""});
    let mut calls: Vec<Value> = Vec::new();
    let mut whole = json!({});
    for payload in payloads(stream) {
        if payload == "[DONE]" {
            continue;
        }
        let chunk: Value = serde_json::from_str(payload).unwrap();
        for field in ["id", "model", "created"] {
            whole[field] = chunk[field].clone();
        }
        if let Some(usage) = chunk.get("usage") {
            whole["usage"] = usage.clone();
        }
        let Some(choice) = chunk["choices"].get(0) else {
            continue;
        };
        if !choice["finish_reason"].is_null() {
            whole["finish_reason"] = choice["finish_reason"].clone();
        }
        for (field, piece) in choice["delta"].as_object().unwrap() {
            if field == "tool_calls" {
                fold_call(&mut calls, &piece[0]);
            } else {
                let so_far = message[field].as_str().unwrap_or_default();
                message[field] = json!(format!("{so_far}{}", piece.as_str().unwrap()));
            }
        }
    }
    message["tool_calls"] = json!(calls);
    whole["message"] = message;
    whole
}

fn fold_call(calls: &mut Vec<Value>, piece: &Value) {
    let index = usize::try_from(piece["index"].as_u64().unwrap()).unwrap();
    if index == calls.len() {
        let function = json!({"name": piece["function"]["name"], "arguments": ""});
        calls.push(json!({"id": piece["id"], "type": "function", "function": function}));
    }
    let arguments = &mut calls[index]["function"]["arguments"];
    let so_far = arguments.as_str().unwrap().to_owned();
    *arguments = json!(so_far + piece["function"]["arguments"].as_str().unwrap());
}

#[test]
fn folding_a_streams_deltas_gives_the_json_answer() {
    let whole: Value =
        serde_json::from_str(&text(spoken(Form::Whole, &Behaviour::default()))).unwrap();
    for order in ["sequential", "interleaved"] {
        for chars in 1..40 {
            let json = format!(r#"{{"fragment_chars":{chars},"call_order":"{order}"}}"#);
            let folded = folded(&text(spoken(STREAM, &behaviour(&json))));
            assert_eq!(folded["message"], whole["choices"][0]["message"]);
            assert_eq!(
                folded["finish_reason"],
                whole["choices"][0]["finish_reason"]
            );
            for field in ["id", "model", "created", "usage"] {
                assert_eq!(folded[field], whole[field]);
            }
        }
    }
}

#[test]
fn any_chunk_size_gives_the_same_bytes() {
    for shape in [
        r#""keep_alive":false"#,
        r#""keep_alive":true,"line_ending":"crlf""#,
    ] {
        let plain = writes(spoken(STREAM, &behaviour(&format!("{{{shape}}}")))).concat();
        for size in 1..=plain.len() + 1 {
            let cut = writes(spoken(
                STREAM,
                &behaviour(&format!(r#"{{{shape},"chunk_bytes":{size}}}"#)),
            ));
            let (last, full) = cut.split_last().unwrap();
            assert!(full.iter().all(|write| write.len() == size) && last.len() <= size);
            assert_eq!(cut.concat(), plain, "{size}");
        }
    }
}

#[test]
fn a_stream_has_the_shape_of_a_chat_completion_stream() {
    let stream = text(spoken(STREAM, &Behaviour::default()));
    let payloads = payloads(&stream);
    let (done, chunks) = payloads.split_last().unwrap();
    assert_eq!(*done, "[DONE]");
    let chunks: Vec<Value> = chunks
        .iter()
        .map(|chunk| serde_json::from_str(chunk).unwrap())
        .collect();
    assert_eq!(
        chunks[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": ""})
    );
    let (last, rest) = chunks.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["total_tokens"], 30);
    assert_eq!(
        rest.last().unwrap()["choices"][0]["finish_reason"],
        "tool_calls"
    );
    assert!(rest.iter().all(|chunk| chunk.get("usage").is_none()));
}

#[test]
fn without_include_usage_there_is_no_usage_chunk() {
    let stream = text(spoken(
        Form::Stream {
            include_usage: false,
        },
        &Behaviour::default(),
    ));
    assert!(!stream.contains("usage") && stream.ends_with("data: [DONE]\n\n"));
}

#[test]
fn framing_is_as_chosen() {
    let plain = text(spoken(STREAM, &Behaviour::default()));
    let events = payloads(&plain).len();
    let crlf = text(spoken(STREAM, &behaviour(r#"{"line_ending":"crlf"}"#)));
    assert_eq!(crlf, plain.replace('\n', "\r\n"));
    let cr = text(spoken(STREAM, &behaviour(r#"{"line_ending":"cr"}"#)));
    assert_eq!(cr, plain.replace('\n', "\r"));
    let alive = text(spoken(STREAM, &behaviour(r#"{"keep_alive":true}"#)));
    assert_eq!(alive.matches(": keep-alive\n\ndata: ").count(), events);
    assert_eq!(alive.replace(": keep-alive\n\n", ""), plain);
    let open = text(spoken(STREAM, &behaviour(r#"{"omit_done":true}"#)));
    assert_eq!(format!("{open}data: [DONE]\n\n"), plain);
}

#[test]
fn the_first_event_can_be_huge_and_is_otherwise_the_same() {
    let huge = behaviour(r#"{"first_event_bytes":2000000}"#);
    let stream = text(spoken(STREAM, &huge));
    assert!(payloads(&stream)[0].len() >= 2_000_000);
    assert_eq!(
        folded(&stream),
        folded(&text(spoken(STREAM, &Behaviour::default())))
    );
    assert!(text(spoken(Form::Whole, &huge)).len() >= 2_000_000);
}

#[test]
fn a_compressed_stream_unpacks_to_the_plain_one() {
    let plain = text(spoken(STREAM, &Behaviour::default()));
    for shape in [
        r#""chunk_bytes":7"#,
        r#""fault":{"stall_after":3}"#,
        r#""delay_ms":1"#,
    ] {
        let packed = spoken(STREAM, &behaviour(&format!(r#"{{"gzip":true,{shape}}}"#)));
        assert!(packed.headers.contains(&("content-encoding", "gzip")));
        let packed = writes(packed).concat();
        let mut unpacked = String::new();
        flate2::read::MultiGzDecoder::new(&packed[..])
            .read_to_string(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked, plain);
    }
}

#[test]
fn faults_strike_after_so_many_events() {
    let plain = writes(spoken(STREAM, &Behaviour::default()));
    let all = u32::try_from(plain.len()).unwrap();
    let faulty = |fault: &str| {
        steps(spoken(
            STREAM,
            &behaviour(&format!(r#"{{"fault":{fault}}}"#)),
        ))
    };
    for events in 0..all + 2 {
        let before = usize::try_from(events.min(all)).unwrap();
        let said: Vec<Step> = plain[..before].iter().cloned().map(Step::Write).collect();
        let rest: Vec<Step> = plain[before..].iter().cloned().map(Step::Write).collect();

        let closed = faulty(&format!(r#"{{"close_after":{events}}}"#));
        assert_eq!(closed, [said.clone(), vec![Step::Abort]].concat());

        let stalled = faulty(&format!(r#"{{"stall_after":{events}}}"#));
        assert_eq!(stalled, [said.clone(), vec![Step::Stall], rest].concat());

        let torn = faulty(&format!(r#"{{"close_mid_event":{events}}}"#));
        let half = plain
            .get(before)
            .map(|event| Step::Write(event.slice(..event.len() / 2)));
        let half: Vec<Step> = half.into_iter().collect();
        assert_eq!(torn, [said.clone(), half, vec![Step::Abort]].concat());

        let failed = faulty(&format!(r#"{{"error_after":{events}}}"#));
        assert_eq!(failed[..before], said[..]);
        let Step::Write(error) = &failed[before] else {
            panic!("expected a write")
        };
        assert!(error.starts_with(b"data: {\"error\":{") && error.ends_with(b"\n\n"));
        assert_eq!(failed.len(), before + 1);
    }
}

#[test]
fn a_json_answer_counts_as_one_event() {
    let faulty = |fault: &str| spoken(Form::Whole, &behaviour(&format!(r#"{{"fault":{fault}}}"#)));
    let plain = text(spoken(Form::Whole, &Behaviour::default()));
    assert_eq!(steps(faulty(r#"{"close_after":0}"#)), [Step::Abort]);
    let torn = text(faulty(r#"{"close_mid_event":0}"#));
    assert!(plain.starts_with(&torn) && torn.len() == plain.len() / 2);
    assert!(text(faulty(r#"{"error_after":4}"#)).starts_with("{\"error\":{"));
}

#[test]
fn status_faults_are_openai_shaped() {
    for (status, retry) in [(429, true), (500, false), (503, true)] {
        let said = spoken(
            STREAM,
            &behaviour(&format!(r#"{{"fault":{{"status":{status}}}}}"#)),
        );
        assert_eq!(said.status, status);
        assert_eq!(said.headers.contains(&("retry-after", "7")), retry);
        let body: Value = serde_json::from_str(&text(said)).unwrap();
        assert!(body["error"]["message"].is_string());
    }
}

#[test]
fn an_error_body_and_garbage_come_with_status_200() {
    let error = spoken(STREAM, &behaviour(r#"{"fault":"error_body"}"#));
    assert_eq!((error.status, error.headers[0].1), (200, JSON));
    assert!(text(error).starts_with("{\"error\":{"));
    let garbage = spoken(STREAM, &behaviour(r#"{"fault":"garbage"}"#));
    assert_eq!(garbage.status, 200);
    assert!(String::from_utf8(writes(garbage).concat()).is_err());
}

#[test]
fn pauses_come_between_events() {
    let paced = steps(spoken(STREAM, &behaviour(r#"{"delay_ms":5}"#)));
    let pauses = paced
        .iter()
        .filter(|step| matches!(step, Step::Pause(_)))
        .count();
    let writes = paced
        .iter()
        .filter(|step| matches!(step, Step::Write(_)))
        .count();
    assert_eq!(pauses, writes - 1);
    assert!(matches!(paced[0], Step::Write(_)));
}
