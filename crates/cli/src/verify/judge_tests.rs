//! Each way to fail is found, and told from the others.

use farrier_harness::transcript::{ToolResult, ToolRun};
use farrier_sim::{Bearer, Options, Persona};
use serde_json::json;

use super::*;
use crate::demo::Harness;
use crate::stage::{base_url, play};

fn expect() -> Expect {
    Expect {
        tool: "exec".to_owned(),
        rounds: vec![vec!["hostname".to_owned(), "date".to_owned()]],
        final_text: "FINAL answer of turn {turn}".to_owned(),
    }
}

fn call(id: &str, command: &str) -> Call {
    Call {
        id: id.to_owned(),
        tool: "exec".to_owned(),
        arguments: json!({"command": command}),
    }
}

fn result(id: &str) -> Entry {
    Entry::ToolResult(ToolResult {
        call: id.to_owned(),
        tool: Some("exec".to_owned()),
        text: "done".to_owned(),
        is_error: Some(false),
    })
}

fn ran(shown: &str) -> ToolRun {
    ToolRun {
        tool: "exec".to_owned(),
        shown: Some(shown.to_owned()),
        ..ToolRun::default()
    }
}

fn says(text: &str) -> Entry {
    Entry::Assistant(Said {
        text: text.to_owned(),
        ..Said::default()
    })
}

/// A turn as it must be.
fn good() -> Transcript {
    Transcript {
        session: "s".to_owned(),
        entries: vec![
            Entry::User {
                text: "report".to_owned(),
            },
            Entry::Assistant(Said {
                calls: vec![call("a", "hostname"), call("b", "date")],
                ..Said::default()
            }),
            result("a"),
            result("b"),
            says("FINAL answer of turn 1: done"),
        ],
        tool_runs: vec![ran("hostname"), ran("date")],
    }
}

fn kinds(transcript: &Transcript) -> Vec<Kind> {
    let faults = hermetic(transcript, &expect(), 1);
    faults.iter().map(|fault| fault.kind).collect()
}

#[test]
fn a_turn_as_it_must_be_has_no_fault() {
    assert_eq!(kinds(&good()), []);
    assert_eq!(live(&good(), &expect()), []);
}

#[test]
fn e2e_09_a_call_that_stayed_combined_is_a_fault_of_the_commands() {
    let mut combined = good();
    combined.entries[1] = Entry::Assistant(Said {
        calls: vec![call("a", "hostname; date")],
        ..Said::default()
    });
    combined.entries.remove(3);
    let faults = hermetic(&combined, &expect(), 1);
    assert_eq!(faults[0].kind, Kind::Commands);
    let text = "expected the calls [hostname, date], got [hostname; date]";
    assert_eq!(faults[0].text, text);
}

#[test]
fn e2e_09_changed_ids_are_a_fault_of_the_results() {
    let mut changed = good();
    changed.entries[2] = result("other");
    assert!(kinds(&changed).contains(&Kind::Results));
}

#[test]
fn e2e_09_a_tool_too_many_is_a_fault_of_the_commands() {
    let mut more = good();
    more.tool_runs.push(ran("uptime"));
    assert_eq!(kinds(&more), [Kind::Commands]);
    let mut other = good();
    other.tool_runs[1].tool = "read".to_owned();
    assert_eq!(kinds(&other), [Kind::Commands]);
}

#[test]
fn a_result_that_is_missing_late_out_of_order_or_an_error_is_found() {
    let mut missing = good();
    missing.entries.remove(3);
    let mut swapped = good();
    swapped.entries.swap(2, 3);
    let mut late = good();
    late.entries.swap(3, 4);
    let mut error = good();
    if let Entry::ToolResult(result) = &mut error.entries[2] {
        result.is_error = Some(true);
    }
    for (name, spoilt) in [
        ("missing", missing),
        ("swapped", swapped),
        ("late", late),
        ("error", error),
    ] {
        assert!(kinds(&spoilt).contains(&Kind::Results), "{name}");
    }
}

#[test]
fn another_last_text_is_found_and_a_turn_is_judged_by_its_number() {
    let mut other = good();
    other.entries[4] = says("I cannot find the tool call");
    assert_eq!(kinds(&other), [Kind::FinalText]);
    let kinds: Vec<Kind> = hermetic(&good(), &expect(), 2)
        .iter()
        .map(|fault| fault.kind)
        .collect();
    assert_eq!(kinds, [Kind::FinalText, Kind::Commands]);
}

#[test]
fn a_live_turn_may_have_other_words_but_not_none() {
    let silent = Transcript {
        entries: good().entries[..1].to_vec(),
        ..Transcript::default()
    };
    let kinds: Vec<Kind> = live(&silent, &expect())
        .iter()
        .map(|fault| fault.kind)
        .collect();
    assert_eq!(kinds, [Kind::Commands, Kind::FinalText]);
}

#[test]
fn a_wrong_needs_its_kind_and_its_words() {
    let wrong = Wrong {
        fails: Kind::Refused,
        saying: "is missing".to_owned(),
    };
    assert!(wrong.is_among(&[Fault::new(Kind::Refused, "reasoning is missing at 2")]));
    assert!(!wrong.is_among(&[Fault::new(Kind::Refused, "invalid temperature")]));
    assert!(!wrong.is_among(&[Fault::new(Kind::Ending, "it is missing")]));
    assert!(!wrong.is_among(&[]));
}

#[test]
fn a_process_that_ended_well_has_no_fault_and_every_other_one() {
    let ended = |how, code| Ended {
        how,
        code,
        stdout: "a\nb\n".to_owned(),
        stderr: String::new(),
    };
    assert_eq!(ending(&ended(How::Exited, Some(0))), []);
    let kind = |ended: &Ended| ending(ended)[0].kind;
    assert_eq!(kind(&ended(How::Exited, Some(1))), Kind::Ending);
    assert_eq!(kind(&ended(How::Exited, None)), Kind::Ending);
    assert_eq!(kind(&ended(How::Silent, None)), Kind::Silent);
    assert_eq!(kind(&ended(How::TooLong, Some(0))), Kind::Ending);
}

#[tokio::test]
async fn e2e_07_a_model_asked_without_its_key_says_so() {
    let options = Options {
        bearer: Some(Bearer::new("sk-only-the-gateway-has-it")),
        ..Options::default()
    };
    let persona = Persona::named("kimi-k2.6").expect("an embedded persona");
    let sim = play(persona, options).await.expect("it plays");
    let client = Harness::new(&base_url(sim.addr()), "kimi-k2.6", "report");
    client.work(1).await.expect("an answer");
    let faults = requests(&sim.log().entries());
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].kind, Kind::Unauthorized);
    sim.stop().await;
}
