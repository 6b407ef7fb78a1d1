use serde_json::Value;

use crate::home::Home;

/// Minted ids differ from run to run.
fn normalised(text: &str, demonstration: &Value) -> String {
    let mut text = text.to_owned();
    let exchanges = demonstration["through"]["exchanges"].as_array().unwrap();
    let calls = exchanges
        .iter()
        .flat_map(|exchange| exchange["answer"]["calls"].as_array().into_iter().flatten());
    for (n, call) in calls.enumerate() {
        text = text.replace(
            call["id"].as_str().unwrap(),
            &format!("minted-{:02}", n + 1),
        );
    }
    text
}

#[test]
fn the_first_run_fails_as_it_must_and_the_second_finishes() {
    let said = Home::new().run(&["demo", "--json"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let demonstration: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(demonstration["as_expected"], true);

    let straight = demonstration["straight"]["exchanges"].as_array().unwrap();
    assert_eq!(straight.len(), 2);
    let refused = &straight[1]["answer"];
    assert_eq!(refused["status"], 400);
    assert_eq!(
        refused["message"],
        "thinking is enabled but reasoning_content is missing in assistant tool call message at index 2"
    );
    assert_eq!(straight[1]["sent"]["turns"][0]["ids"][0], "functionsexec0");

    let through = demonstration["through"]["exchanges"].as_array().unwrap();
    assert_eq!(through.len(), 4);
    let commands: Vec<&str> = through[0]["answer"]["calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| call["command"].as_str().unwrap())
        .collect();
    assert_eq!(
        commands,
        ["hostname", "date", "uptime"],
        "the combined call was not split"
    );
    for exchange in &through[1..] {
        let turns = exchange["received"]["turns"].as_array().unwrap();
        assert!(
            turns.iter().all(|turn| turn["reasoning"] == "whole"),
            "{turns:?}"
        );
        let sent = exchange["sent"]["turns"].as_array().unwrap();
        assert!(
            sent.iter().all(|turn| turn["reasoning"] == "lost"),
            "{sent:?}"
        );
        let results = exchange["received"]["results"].as_array().unwrap();
        assert!(
            results.iter().all(|result| result["name"] == "exec"),
            "{results:?}"
        );
    }
    assert!(
        through[3]["answer"]["text"]
            .as_str()
            .unwrap()
            .starts_with("FINAL answer")
    );
}

#[test]
fn every_pass_that_made_the_difference_is_named_with_its_manifest() {
    let said = Home::new().run(&["demo", "--json"]);
    let demonstration: Value = serde_json::from_str(&said.stdout).unwrap();
    let exchanges = demonstration["through"]["exchanges"].as_array().unwrap();
    let notes: Vec<&Value> = exchanges
        .iter()
        .flat_map(|exchange| exchange["notes"].as_array().unwrap())
        .collect();
    for (manifest, pass, what) in [
        (
            "kimi-thinking-reasoning-replay",
            "reasoning-lost-on-replay",
            "restored",
        ),
        ("kimi-k2-native-tool-ids", "tool-call-id-mangled", "minted"),
        (
            "kimi-k2-native-tool-ids",
            "tool-call-id-mangled",
            "restored",
        ),
        (
            "kimi-k2-tool-result-name",
            "tool-result-without-name",
            "named",
        ),
        (
            "kimi-k2.6-managed-inference-exec-split",
            "split-combined-call",
            "split",
        ),
    ] {
        let found = notes.iter().any(|note| {
            note["manifest"] == manifest && note["pass"] == pass && note["what"] == what
        });
        assert!(found, "{manifest}: {pass} {what} is not among {notes:#?}");
    }
}

#[test]
fn it_fits_a_screen_and_says_everything_without_colours() {
    let said = Home::new().run(&["demo"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert!(lines.len() <= 45, "{} lines", lines.len());
    assert!(
        lines.iter().all(|line| line.chars().count() <= 100),
        "{}",
        said.stdout
    );
    assert!(!said.stdout.contains('\x1b'));
    for word in [
        "straight to the model",
        "through Farrier",
        "HTTP 400",
        "reasoning_content is",
        "FINAL answer of turn 1",
        "split-combined-call",
        "as it must be",
    ] {
        assert!(
            said.stdout.contains(word),
            "expected {word:?} in:\n{}",
            said.stdout
        );
    }
}

#[test]
fn a_narrow_terminal_gets_one_run_below_the_other() {
    let said = Home::new().with("COLUMNS", "60").run(&["demo"]);
    let columns = said
        .stdout
        .lines()
        .skip_while(|line| *line != "straight to the model");
    let columns: Vec<&str> = columns
        .take_while(|line| !line.starts_with("What made"))
        .collect();
    assert!(columns.contains(&"through Farrier"), "{}", said.stdout);
    assert!(
        columns.iter().all(|line| line.chars().count() <= 60),
        "{}",
        said.stdout
    );
}

#[test]
fn every_persona_can_be_shown_and_long_runs_are_shortened() {
    for persona in [
        "kimi-k2.6",
        "kimi-k2.6-picky",
        "kimi-k2.6-repeating",
        "kimi-k2.6-vllm",
    ] {
        let said = Home::new().run(&["demo", "--persona", persona, "--rounds", "12"]);
        assert_eq!(
            said.code,
            Some(0),
            "{persona}: {}{}",
            said.stdout,
            said.stderr
        );
        assert!(
            said.stdout.contains("9 more requests like this"),
            "{}",
            said.stdout
        );
        assert!(said.stdout.lines().count() <= 48);
    }
}

/// Minted ids differ from run to run, and have one length: the columns stay where they are.
#[test]
fn the_whole_screen() {
    let mut shown = Home::new().run(&["demo"]).stdout;
    let given = shown
        .lines()
        .filter_map(|line| line.split(" │ ").nth(1)?.rsplit_once(" as "));
    let ids: Vec<String> = given
        .map(|(_, id)| id.to_owned())
        .filter(|id| id.len() == 9)
        .collect();
    assert_eq!(ids.len(), 5);
    for (n, id) in ids.iter().enumerate() {
        shown = shown.replace(id, &format!("minted-{:02}", n + 1));
    }
    insta::assert_snapshot!(shown, @r#"
    model   kimi-k2.6, played by a persona: wants its reasoning and its tool-call ids back as they were
    client  like openclaw: drops reasoning, strips ids to letters and digits, sends nameless results
    task    Run hostname, date and uptime, then say how this machine is doing.

    straight to the model                   │ through Farrier
    ────────────────────────────────────────┼───────────────────────────────────────────────────────────
    1 client sends  the task                │ 1 client sends  the task
      client gets   exec "hostname; date;   │   client gets   exec "hostname" as minted-01
                    uptime" as              │                 exec "date" as minted-02
                    functions.exec:0        │                 exec "uptime" as minted-03
    2 client sends  1 turn: no reasoning    │ 2 client sends  1 turn: no reasoning
                    id functionsexec0       │                 ids minted-01 minted-02 minted-03
                    1 result without a name │                 3 results without a name
      model hears   the same                │   model hears   1 turn: reasoning word for word
      client gets   HTTP 400                │                 ids functions.exec:0_split_1_hostname
                    thinking is enabled but │                 functions.exec:0_split_2_date
                    reasoning_content is    │                 functions.exec:0_split_3_uptime
                    missing in assistant    │                 3 results named exec
                    tool call message at    │   client gets   exec "echo round-1" as minted-04
                    index 2                 │
                                            │ 3 client sends  2 turns: no reasoning
                                            │                 newest id minted-04
                                            │                 4 results without a name
                                            │   model hears   2 turns: reasoning word for word
                                            │                 newest id functions.exec:1
                                            │                 4 results named exec
                                            │   client gets   exec "echo round-2" as minted-05
                                            │ 4 client sends  3 turns: no reasoning
                                            │                 newest id minted-05
                                            │                 5 results without a name
                                            │   model hears   3 turns: reasoning word for word
                                            │                 newest id functions.exec:2
                                            │                 5 results named exec
                                            │   client gets   FINAL answer of turn 1: hostname, date,
                                            │                 and uptime completed successfully. Voilà ✓

    What made the difference: manifest, pass, what it did
      kimi-k2-native-tool-ids                 tool-call-id-mangled      minted 5, restored 12
      kimi-k2-tool-result-name                tool-result-without-name  named 12
      kimi-k2.6-managed-inference-exec-split  split-combined-call       split 1
      kimi-thinking-reasoning-replay          reasoning-lost-on-replay  restored 6

    straight: HTTP 400; through Farrier: answered after 4 requests; as it must be
    "#);
}

#[test]
fn ids_are_the_only_thing_that_differs_between_two_runs() {
    let [one, other] = [0, 1].map(|_| {
        let said = Home::new().run(&["demo", "--json"]);
        let mut demonstration: Value = serde_json::from_str(&said.stdout).unwrap();
        for run in ["straight", "through"] {
            demonstration[run]["base_url"] = Value::Null;
        }
        normalised(&demonstration.to_string(), &demonstration)
    });
    assert_eq!(one, other);
}
