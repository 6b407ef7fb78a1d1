use insta::assert_snapshot;

use crate::home::Home;

#[test]
fn explain_says_for_each_manifest_why() {
    let said = Home::new().run(&[
        "registry",
        "explain",
        "--agent",
        "hermes",
        "--model",
        "moonshotai/kimi-k2.6",
        "--upstream-model",
        "kimi-k2.6",
    ]);
    assert_snapshot!(said.shown(), @r#"
    --- stdout
    kimi-fixed-sampling (any) does not apply
      match.upstream.hosts: expected api.moonshot.ai or api.moonshot.cn, got nothing
    kimi-fixed-temperature (any) does not apply
      match.upstream.modelIdPrefixes: expected k3 or kimi-for-coding or kimi-k2.7, got "kimi-k2.6"
      match.upstream.hosts: expected api.kimi.com or api.moonshot.ai or api.moonshot.cn, got nothing
    kimi-k2-empty-fields (any) applies
      empty-field-on-replay
    kimi-k2-native-tool-ids (any) applies
      tool-call-id-mangled
    kimi-k2-tool-result-name (any) applies
      tool-result-without-name
    kimi-thinking-reasoning-replay (any) applies
      reasoning-lost-on-replay
    kimi-k2.6-managed-inference-exec-split (openclaw) does not apply
      agent: expected openclaw, got "hermes"
    kimi-thinking-native-replay (openclaw) does not apply
      agent: expected openclaw, got "hermes"
    --- exit 0
    "#);
}

#[test]
fn explain_is_data_when_asked_for() {
    let said = Home::new().run(&["registry", "explain", "--model", "gpt-9", "--json"]);
    assert_eq!(said.code, Some(0));
    let explained: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let verdicts = explained
        .as_array()
        .unwrap()
        .iter()
        .map(|manifest| &manifest["verdict"]);
    assert!(verdicts.clone().count() > 0);
    assert!(
        verdicts
            .into_iter()
            .all(|verdict| verdict == "does-not-apply")
    );
}

#[test]
fn list_has_every_shipped_manifest_and_those_of_a_directory() {
    let home = Home::new();
    home.write(
        "more/any/mine.json",
        r#"{"id": "mine", "agent": "any", "description": "a manifest of my own",
            "match": {"upstream": {"modelIds": ["my-model"]}},
            "effects": {"gateway": [{"pass": "tool-result-without-name"}]}}"#,
    );
    let said = home.run(&["registry", "list", "more"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stdout.contains("kimi-thinking-reasoning-replay"));
    let mine = said
        .stdout
        .lines()
        .find(|line| line.starts_with("mine "))
        .unwrap();
    assert!(
        mine.ends_with("any       tool-result-without-name"),
        "{mine}"
    );
}

#[test]
fn check_finds_what_is_wrong_in_a_directory() {
    let home = Home::new();
    home.write(
        "more/any/other-name.json",
        r#"{"id": "mine", "agnt": "any"}"#,
    );
    assert_eq!(home.run(&["registry", "check"]).code, Some(0));
    let said = home.run(&["registry", "check", "more"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("more/any/other-name.json: "),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("agnt"), "{}", said.stderr);
    let missing = home.run(&["registry", "check", "nowhere"]);
    assert_eq!(missing.code, Some(1));
}
