//! Other hosts of the same model, and all clients at once.

use crate::client::ALL;
use crate::heard::Script;
use crate::stage::Cast;

#[test]
fn real_client_each_finishes_beside_the_others_on_kimi() {
    all_finish_on("kimi-k2.6");
}

#[test]
fn real_client_each_finishes_on_a_host_that_refuses_empty_content_and_nameless_results() {
    all_finish_on("kimi-k2.6-picky");
}

#[test]
fn real_client_each_finishes_on_a_host_that_names_the_reasoning_otherwise() {
    all_finish_on("kimi-k2.6-vllm");
}

fn all_finish_on(persona: &str) {
    Cast::persona(persona).play(|stage| stage.expect_all_to_finish(&ALL, Script::of_turns(2)));
}
