//! Three versions of OpenClaw, each with a way of its own to lose what the model wants back.

use crate::report::Verdict;

/// What each turn is recorded as, once the combined call is three.
const SPLIT: &[&[&str]] = &[
    &["hostname", "date", "uptime"],
    &["echo round-1"],
    &["echo round-2"],
];

#[test]
fn real_harness_openclaw_2026_5_12_drops_reasoning_and_finishes_through_farrier() {
    let verdict = Verdict::of("kimi-thinking-reasoning-replay/case");
    let missing = "reasoning_content is missing in assistant tool call message at index 4";
    assert!(verdict.way("straight").failed_on("refused", missing));
    assert_eq!(verdict.way("straight").requests, 3);
    assert!(
        verdict
            .way("without")
            .failed_on("refused", "reasoning_content is missing")
    );
    verdict.way("with").expect_two_turns_of(SPLIT);
}

#[test]
fn real_harness_openclaw_2026_4_21_mangles_ids_and_finishes_through_farrier() {
    let verdict = Verdict::of("kimi-k2-native-tool-ids/case");
    for way in ["straight", "without"] {
        let run = verdict.way(way);
        assert!(run.failed_on("lost-thread", "functionsexec0"), "{run:#?}");
        assert!(
            run.turns[0]
                .final_text
                .starts_with("I cannot find the tool call")
        );
    }
    verdict.way("with").expect_two_turns_of(SPLIT);
}

#[test]
fn real_harness_k5_openclaw_2026_9_6_records_three_results_for_a_combined_call() {
    let verdict = Verdict::of("kimi-k2.6-managed-inference-exec-split");
    for way in ["straight", "without"] {
        let run = verdict.way(way);
        assert_eq!(run.turns[0].rounds[0], ["hostname; date; uptime"]);
        assert_eq!(run.turns[0].tool_runs.len(), 3);
    }
    let with = verdict.way("with");
    with.expect_two_turns_of(SPLIT);
    let mut first_round = with.turns[0].tool_runs[..3].to_vec();
    first_round.sort();
    assert_eq!(first_round, ["exec date", "exec hostname", "exec uptime"]);
    assert_eq!(with.turns[0].tool_runs.len(), 5);
    assert_eq!(with.turns[1].tool_runs.len(), 10);
}

#[test]
fn real_harness_openclaw_2026_9_6_that_knows_of_no_reasoning_finishes_through_farrier() {
    let verdict = Verdict::of("kimi-thinking-reasoning-replay/reasoning-off");
    let missing = "reasoning_content is missing in assistant tool call message at index 2";
    assert!(verdict.way("straight").failed_on("refused", missing));
    assert_eq!(verdict.way("straight").requests, 2);
    verdict.way("with").expect_two_turns_of(SPLIT);
}

#[test]
fn real_harness_openclaw_2026_5_12_with_the_plugin_replays_what_it_stored() {
    let verdict = Verdict::of("kimi-thinking-native-replay");
    let without = verdict.way("without");
    assert!(
        without.failed_on("refused", "reasoning_content is missing"),
        "{without:#?}"
    );
    verdict.way("with").expect_two_turns_of(SPLIT);
}
