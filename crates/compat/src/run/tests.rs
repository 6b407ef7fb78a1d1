//! A run that takes refrains as such, beside one that reads every chunk.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::facts::{
    CHAT_COMPLETIONS, ClientFacts, Facts, MANAGED_BASE_URL, MANAGED_PROVIDER_KEY, UpstreamFacts,
};
use crate::passes::event::{Out, StreamPass};
use crate::plan::{Plan, With};
use crate::registry::{LoadOptions, Registry, Source};
use crate::wire::chat::Ask;

/// Wants to see every chunk, and does nothing with it.
struct Attentive;

impl StreamPass for Attentive {
    fn event(&mut self, event: Event<'_>, out: &mut Out<'_>) -> Result<(), Fault> {
        out.emit(event)
    }
}

fn plan(gateway: Value) -> Plan {
    let manifest = json!({
        "id": "test", "agent": "any", "description": "for a test",
        "match": {"providerKey": MANAGED_PROVIDER_KEY}, "effects": {"gateway": gateway},
    });
    let source = Source {
        path: "any/test.json".into(),
        text: manifest.to_string(),
    };
    let facts = Facts {
        agent: None,
        client: ClientFacts {
            model: "m".into(),
            provider_key: MANAGED_PROVIDER_KEY.into(),
            inference_api: CHAT_COMPLETIONS.into(),
            base_url: MANAGED_BASE_URL.into(),
        },
        upstream: UpstreamFacts {
            provider: "p".into(),
            model: "m".into(),
            base_url: "http://127.0.0.1:1/v1".into(),
            server: None,
        },
    };
    Registry::load(&[source], &LoadOptions::default())
        .expect("a manifest")
        .plan_for(&facts)
}

/// Plans that between them have every pass that reads a reply.
fn plans() -> [Plan; 3] {
    let split = json!({"pass": "split-combined-call", "tool": "exec", "argument": "command", "separator": ";", "allow": ["date", "uptime"]});
    let reasoning = json!({"pass": "reasoning-lost-on-replay", "field": "reasoning_content", "turns": "all", "onMiss": "fail"});
    let ids = |mode: &str| json!({"pass": "tool-call-id-mangled", "mode": mode});
    [
        plan(json!([reasoning, split, ids("minted")])),
        plan(json!([reasoning, ids("native")])),
        plan(json!([split])),
    ]
}

fn reply(plan: &Plan) -> Reply {
    let ask = Ask::parse(br#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#)
        .expect("a request");
    let recalled = plan.lookup(&ask).answered(&[]);
    let with = With {
        upstream_model: None,
        seed: [7; 16],
        origin: "p/m".into(),
    };
    plan.rewrite(ask, recalled, with).expect("no fault").reply
}

fn attentive(plan: &Plan) -> Reply {
    let mut reply = reply(plan);
    reply.placed.insert(
        0,
        Placed {
            manifest: "test".into(),
            name: "attentive",
            pass: Box::new(Attentive),
        },
    );
    reply
}

/// Everything that can be seen of a run.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    steps: Vec<Step>,
    notes: Vec<Note>,
    fault: Option<Fault>,
    outcome: Outcome,
}

fn run(reply: Reply, reads: &[&[u8]], end: End) -> Seen {
    let mut run = reply.into_stream();
    let mut steps = Vec::new();
    let mut fault = None;
    for read in reads {
        fault = run.push(Bytes::copy_from_slice(read), &mut steps).err();
        if fault.is_some() {
            break;
        }
    }
    run.end(end, &mut steps);
    Seen {
        steps,
        notes: run.take_notes(),
        fault,
        outcome: run.outcome(),
    }
}

/// What the client is given, with the place of each commit in it.
fn joined(seen: &Seen) -> (Vec<u8>, Vec<(usize, TurnRecord)>) {
    let (mut bytes, mut commits) = (Vec::new(), Vec::new());
    for step in &seen.steps {
        match step {
            Step::Forward(more) => bytes.extend_from_slice(more),
            Step::Commit(record) => commits.push((bytes.len(), record.clone())),
        }
    }
    (bytes, commits)
}

/// Data of events; `░` is where words go, `▒` numbers.
const EVENTS: &[&str] = &[
    r#"{"choices":[{"delta":{"content":"░"},"finish_reason":null,"index":0}],"created":▒,"id":"c"}"#,
    r#"{"choices":[{"delta":{"reasoning_content":"░","content":null},"finish_reason":null,"index":0}],"id":"c"}"#,
    r#"{"id":"░","choices":[{"index":0,"delta":{"role":"assistant","reasoning":"░","reasoning_details":[{"text":"░","n":▒}]}}]}"#,
    r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"░"}}]},"finish_reason":null}]}"#,
    r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"functions.exec:0","function":{"name":"exec","arguments":"░"}}]}}]}"#,
    r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"functions.read:1","function":{"name":"read","arguments":"░"}}]}}]}"#,
    r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"","function":{"name":"","arguments":"░"}}]}}]}"#,
    r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"░","arguments":"░"}}]}}]}"#,
    r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"░","function":{"name":"exec","arguments":"░"}}]}}]}"#,
    r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"function":{"name":"read","arguments":"░"}}]}}]}"#,
    r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"function":{"arguments":"░"}}]}}]}"#,
    r#"{"choices":[{"index":0,"delta":{"content":"░","tool_calls":[{"index":0,"function":{"arguments":"░"}}]}}]}"#,
    r#"{"choices":[{"index":1,"delta":{"content":"░","reasoning_content":"░"},"finish_reason":""}]}"#,
    r#"{"choices":[{"index":0,"delta":{"content":"░"}},{"index":1,"delta":{"content":"░"}}]}"#,
    r#"{"choices":[{"index":0,"delta":{"content":"░","tool_calls":null},"logprobs":[{"token":"░","p":▒}]}],"usage":{"n":▒}}"#,
    r#"{"choices":[{"index":0,"delta":{"content":[{"type":"text","text":"░"}]}}]}"#,
    r#"{"choices":[{"index":0,"delta":{"content":"░","content":"░"}}]}"#,
    r#"{"choices":[{"index":0,"delta":{"c\u006fntent":"░"}}],"error":null}"#,
    r#"{"choices":[{"index":0,"delta":{"content":"░"}}],"error":"░"}"#,
    r#"{"choices":[{"index":0,"delta":{"content":"░"},"finish_reason":"tool_calls"}]}"#,
    r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"n":▒}}"#,
    r#"{"choices":[{"index":0,"message":{"content":"░"}}]}"#,
    r#"{"choices":[],"usage":{"n":▒}}"#,
    r#"{"error":{"message":"░"}}"#,
    "[DONE]",
];

/// Insides of JSON strings, most of them.
const WORDS: &[&str] = &[
    "",
    "a",
    " word",
    " word 17, and more of them",
    r"\n",
    r#"\""#,
    r"\\",
    r"\u00e9",
    r"\ud83d",
    r"\ude00",
    "é",
    "不",
    r"\x",
    "\t",
    "\"",
    r#"{\"command\":\""#,
    "date",
    "; uptime",
    ";",
    r#"\"}"#,
    r#"{\"command\":\"date\""#,
    " ",
    "exec",
];

const NUMBERS: &[&str] = &["1", "17", "-0.5", "1e3", "01", "\"1\""];

/// One event, over again a few times.
fn verse() -> impl Strategy<Value = Vec<u8>> {
    let word = proptest::sample::select(WORDS);
    let number = proptest::sample::select(NUMBERS);
    // What is said most often comes most often.
    let data = prop_oneof![
        3 => proptest::sample::select(&EVENTS[..7]),
        1 => proptest::sample::select(EVENTS),
    ];
    let shape = prop_oneof![
        8 => Just(("data: ", "\n\n")),
        1 => Just(("data: ", "\r\n\r\n")),
        1 => Just(("data:", "\r\r")),
        1 => Just((": ping\ndata: ", "\n\n")),
        1 => Just(("event: e\ndata: ", "\n: note\n\n")),
        1 => Just(("data: ", "\n\ndata\n\n")),
    ];
    let times = proptest::collection::vec((word, number), 1..5);
    (data, shape, times).prop_map(|(data, (before, after), times)| {
        let over_again = times.into_iter().map(|(word, number)| {
            let data = data.replace('░', word).replace('▒', number);
            format!("{before}{data}{after}")
        });
        over_again.collect::<String>().into_bytes()
    })
}

/// A stream, and where a byte of it is wrong.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let wrong = proptest::option::weighted(0.3, (any::<proptest::sample::Index>(), any::<u8>()));
    (proptest::collection::vec(verse(), 1..8), wrong).prop_map(|(verses, wrong)| {
        let mut stream = verses.concat();
        if let Some((at, byte)) = wrong {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        stream
    })
}

fn reads<'s>(stream: &'s [u8], cuts: &[proptest::sample::Index]) -> Vec<&'s [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect()
}

proptest! {
    /// Nobody can tell a refrain that was taken as such from a chunk that was read.
    #[test]
    fn refrains_make_no_difference(
        stream in stream(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..5),
        end in proptest::sample::select(&[End::Clean, End::Truncated, End::Failed, End::ClientGone][..]),
    ) {
        for plan in plans() {
            let reads = reads(&stream, &cuts);
            let seen = run(reply(&plan), &reads, end);
            prop_assert_eq!(&seen, &run(attentive(&plan), &reads, end));
            // Nor where the reads fell (I5).
            let whole = run(reply(&plan), &[&stream], end);
            prop_assert_eq!(joined(&seen), joined(&whole));
            let single: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(joined(&run(attentive(&plan), &single, end)), joined(&whole));
        }
    }
}

/// Each forward of one read, as a range of it.
fn forwarded(steps: &[Step], read: &Bytes) -> Vec<std::ops::Range<usize>> {
    let base = read.as_ptr() as usize;
    let ranges = steps.iter().map(|step| match step {
        Step::Forward(bytes) => {
            let start = bytes.as_ptr() as usize - base;
            start..start + bytes.len()
        }
        Step::Commit(_) => panic!("nothing has ended"),
    });
    ranges.collect()
}

#[test]
fn neighbours_nobody_edits_leave_as_one_slice_of_the_read() {
    let event =
        |delta: &str| format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n");
    let begun = event(r#"{"content":"a"}"#);
    let read = [
        &begun[20..],
        &event(r#"{"role":"assistant"}"#),
        ": ping\n\n",
        &event(r#"{"content":"b"}"#).repeat(50),
        &event(r#"{"reasoning_content":"c"}"#).repeat(50),
        "data: {\"choices\"",
    ]
    .concat();
    let mut run = reply(&plans()[0]).into_stream();
    let mut steps = Vec::new();
    run.push(Bytes::copy_from_slice(&begun.as_bytes()[..20]), &mut steps)
        .expect("goes on");
    assert_eq!(steps, []);
    let read = Bytes::from(read);
    run.push(read.clone(), &mut steps).expect("goes on");
    let joined = steps.remove(0);
    assert_eq!(joined, Step::Forward(begun.clone().into()));
    let whole_events = begun.len() - 20..read.len() - "data: {\"choices\"".len();
    assert_eq!(forwarded(&steps, &read), [whole_events]);
}

#[test]
fn edited_event_stands_between_what_came_before_and_after_it() {
    let event =
        |delta: &str| format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n");
    let words = event(r#"{"content":"b"}"#).repeat(3);
    let call = event(
        r#"{"tool_calls":[{"index":0,"id":"functions.read:0","function":{"name":"read","arguments":""}}]}"#,
    );
    let more = event(r#"{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}"#).repeat(3);
    let read = Bytes::from([&*words, &*call, &*more].concat());
    let mut run = reply(&plans()[0]).into_stream();
    let mut steps = Vec::new();
    run.push(read.clone(), &mut steps).expect("goes on");
    let edited = steps.remove(1);
    assert_eq!(
        forwarded(&steps, &read),
        [0..words.len(), words.len() + call.len()..read.len()]
    );
    let Step::Forward(edited) = edited else {
        panic!("the call is forwarded");
    };
    assert_eq!(edited.len(), call.len() - "functions.read:0".len() + 9);
}
