//! Whose words they are: conversations beside one another, a gateway that dies between two turns, a call that was split.

use crate::client::{RAW_JSON, RAW_STREAM, awaited_turn};
use crate::heard::{Script, native};
use crate::stage::{Cast, Way};

/// The ids recur in every conversation and the callers are one to the gateway; the thoughts are not the same.
#[test]
fn real_client_conversations_with_the_same_ids_never_get_each_others_words() {
    let script = Script::of_turns(2);
    let slowly = r#"{"delay_ms": 3}"#;
    Cast::persona("kimi-k2.6").behaving(slowly).play(|stage| {
        let runs = [
            RAW_STREAM.asks("How is this machine?").turns(2).pausing(),
            RAW_STREAM.asks("And who am I on it?").turns(2).pausing(),
        ];
        let mut clients = runs.map(|run| stage.start(&run, Way::Through));
        for turn in 1..=2 {
            for client in &mut clients {
                client.until(|said| awaited_turn(said).filter(|awaited| *awaited == turn));
            }
            clients.iter_mut().for_each(|client| client.press_return());
        }
        for client in clients {
            let report = stage.report(client);
            report.expect_finished(&script, "one of two");
        }
        let log = stage.log();
        let conversations = log.conversations();
        assert_eq!(conversations.len(), 2);
        conversations
            .iter()
            .for_each(|conversation| script.expect_played(conversation));
        assert!(log.switches() >= 3, "they ran one after the other");
    });
}

#[test]
fn real_client_goes_on_after_the_gateway_was_killed_between_two_turns() {
    let script = Script::of_turns(2);
    for client in [RAW_STREAM, RAW_JSON] {
        Cast::persona("kimi-k2.6").play(|stage| {
            let run = client.asks("How is this machine?").turns(2).pausing();
            let mut client = stage.start(&run, Way::Through);
            client.until(awaited_turn);
            client.press_return();
            client.until(|said| awaited_turn(said).filter(|awaited| *awaited == 2));
            stage.kill_gateway_and_start_another();
            client.press_return();
            let report = stage.report(client);
            report.expect_finished(&script, "after the restart");
            script.expect_played(&stage.log().entries.iter().collect::<Vec<_>>());
        });
    }
}

/// The model hears three calls and three results where it made one: the one rewrite that is not undone.
#[test]
fn real_client_taken_for_openclaw_runs_a_combined_call_as_three() {
    let script = Script {
        turns: 2,
        calls: 1,
        ids: split_where_combined,
    };
    for client in [RAW_STREAM, RAW_JSON] {
        Cast::persona("kimi-k2.6").play(|stage| {
            let run = client
                .asks("How is this machine?")
                .turns(2)
                .agent("openclaw");
            let report = stage.run(&run, Way::Through);
            report.expect_finished(&script, "as OpenClaw");
            script.expect_played(&stage.log().entries.iter().collect::<Vec<_>>());
        });
    }
}

/// A turn opens with one combined call; the two after it are single commands.
fn split_where_combined(n: usize) -> Vec<String> {
    let id = native(n);
    match n % 3 {
        0 => ["hostname", "date", "uptime"]
            .iter()
            .zip(1..)
            .map(|(command, position)| format!("{id}_split_{position}_{command}"))
            .collect(),
        _ => vec![id],
    }
}
