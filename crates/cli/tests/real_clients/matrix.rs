//! Every client against Kimi K2.6: straight, where it is refused after its first answer, and through Farrier, where the
//! same program finishes two turns.

use crate::client::{
    Client, LANGCHAIN_JSON, LANGCHAIN_STREAM, RAW_JSON, RAW_STREAM, RUN_TOOLS_JSON,
    RUN_TOOLS_STREAM, STREAM_HELPER,
};
use crate::heard::{Script, Verdict};
use crate::stage::{Cast, Way};

/// What the provider says when the reasoning is gone.
const MISSING: &str = "thinking is enabled but reasoning_content is missing in assistant tool call message at index 1";
/// What the persona says when it is not what it said.
const DIFFERS: &str = "reasoning_content does not match what the model said in assistant tool call message at index 1 \
                       (this persona is stricter here than the provider)";

#[test]
fn real_client_openai_for_python_fails_straight_and_finishes_through_farrier() {
    fails_straight_and_finishes_through_farrier(RAW_STREAM, MISSING);
}

#[test]
fn real_client_openai_for_python_without_streams_fails_straight_and_finishes_through_farrier() {
    fails_straight_and_finishes_through_farrier(RAW_JSON, MISSING);
}

#[test]
fn real_client_langchain_fails_straight_and_finishes_through_farrier() {
    fails_straight_and_finishes_through_farrier(LANGCHAIN_STREAM, MISSING);
}

#[test]
fn real_client_langchain_without_streams_fails_straight_and_finishes_through_farrier() {
    fails_straight_and_finishes_through_farrier(LANGCHAIN_JSON, MISSING);
}

#[test]
fn real_client_openai_for_node_run_tools_fails_straight_and_finishes_through_farrier() {
    fails_straight_and_finishes_through_farrier(RUN_TOOLS_STREAM, MISSING);
}

#[test]
fn real_client_openai_for_node_run_tools_without_streams_fails_straight_and_finishes_through_farrier()
 {
    fails_straight_and_finishes_through_farrier(RUN_TOOLS_JSON, MISSING);
}

#[test]
fn real_client_openai_for_node_stream_helper_fails_straight_and_finishes_through_farrier() {
    fails_straight_and_finishes_through_farrier(STREAM_HELPER, DIFFERS);
}

fn fails_straight_and_finishes_through_farrier(client: Client, refusal: &str) {
    let run = client.asks("How is this machine?").turns(2);
    Cast::persona("kimi-k2.6").play(|stage| {
        let straight = stage.run(&run, Way::Straight);
        assert!(!straight.ok, "{straight:?}");
        assert_eq!(straight.rounds, 1, "{straight:?}");
        let error = straight.error.unwrap_or_default();
        assert!(error.contains("400") && error.ends_with(refusal), "{error}");
        let mut log = stage.log();
        assert_eq!(log.entries.len(), 2);
        let message = refusal.to_owned();
        assert_eq!(log.entries[1].verdict, Verdict::Refuse { message });

        let through = stage.run(&run, Way::Through);
        let script = Script::of_turns(2);
        through.expect_finished(&script, "through Farrier");
        log.entries = stage.log().entries.split_off(2);
        assert!(
            log.entries
                .iter()
                .all(|entry| entry.heard.stream == client.streams())
        );
        script.expect_played(&log.entries.iter().collect::<Vec<_>>());
    });
}
