//! Hermes with the provider `custom`: it drops reasoning, forgets names when it resumes, and sends empty fields.

use crate::report::Verdict;

/// What each turn is recorded as: nobody split the call, since that is for another harness.
const WHOLE: &[&[&str]] = &[
    &["hostname; date; uptime"],
    &["echo round-1"],
    &["echo round-2"],
];

#[test]
fn real_harness_hermes_0_19_0_drops_reasoning_and_finishes_through_farrier() {
    let verdict = Verdict::of("kimi-thinking-reasoning-replay/hermes");
    for way in ["straight", "without"] {
        let run = verdict.way(way);
        assert!(
            run.failed_on("refused", "reasoning_content is missing"),
            "{run:#?}"
        );
    }
    verdict.way("with").expect_two_turns_of(WHOLE);
}

#[test]
fn real_harness_hermes_0_19_0_resumes_a_session_whose_results_have_lost_their_names() {
    let verdict = Verdict::of("kimi-k2-tool-result-name");
    let without = verdict.way("without");
    assert!(
        without.failed_on("refused", "name is missing in tool message"),
        "{without:#?}"
    );
    assert_eq!(
        without.turns.len(),
        2,
        "the first turn went well: {without:#?}"
    );
    verdict.way("with").expect_two_turns_of(WHOLE);
}

#[test]
fn real_harness_hermes_0_19_0_sends_an_empty_content_and_finishes_through_farrier() {
    let verdict = Verdict::of("kimi-k2-empty-fields");
    let without = verdict.way("without");
    assert!(
        without.failed_on("refused", "text content is empty"),
        "{without:#?}"
    );
    verdict.way("with").expect_two_turns_of(WHOLE);
}

#[test]
fn real_harness_hermes_0_19_0_finishes_where_the_server_repeats_its_ids() {
    let verdict = Verdict::of("kimi-k2-native-tool-ids/hermes-repeated-ids");
    verdict.way("with").expect_two_turns_of(WHOLE);
}
