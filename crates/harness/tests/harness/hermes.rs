//! What config.yaml and .env hold.

use farrier_harness::{Content, Document};

use crate::support::{Ask, KIMI, at, golden, manifest, registry, route};

fn texts(ask: &Ask) -> Vec<(&'static str, String)> {
    ask.good().texts().collect()
}

fn config(ask: &Ask) -> String {
    texts(ask).swap_remove(0).1
}

fn env(ask: &Ask) -> String {
    texts(ask).swap_remove(1).1
}

fn kimi_with(effects: &str) -> Ask {
    let manifests = registry(&[manifest("m", "hermes", KIMI, effects)]);
    Ask::of("hermes").route(route(KIMI)).registry(manifests)
}

const PLAN: &str = r#"{
    "schemaVersion": 1, "agent": "hermes", "sandboxName": "s",
    "channels": [{"channelId": "telegram", "active": true, "disabled": false},
                 {"channelId": "slack", "active": true, "disabled": true}],
    "disabledChannels": [],
    "credentialBindings": [
      {"channelId": "telegram", "providerEnvKey": "telegram_bot_token", "placeholder": "openshell:resolve:env:LOWER"},
      {"channelId": "telegram", "providerEnvKey": "TELEGRAM_BOT_TOKEN", "placeholder": "openshell:resolve:env:TELEGRAM_BOT_TOKEN"},
      {"channelId": "telegram", "providerEnvKey": "TELEGRAM_BOT_TOKEN", "placeholder": "openshell:resolve:env:SECOND"},
      {"channelId": "slack", "providerEnvKey": "SLACK_BOT_TOKEN", "placeholder": "xoxb-OPENSHELL-RESOLVE-ENV-SLACK_BOT_TOKEN"}],
    "agentRender": []
}"#;

#[test]
fn the_least_input_gives_the_known_files() {
    let ask = Ask::of("hermes");
    golden("hermes-minimal.yaml", &config(&ask));
    golden("hermes-minimal.env", &env(&ask));
}

#[test]
fn files_with_everything_are_as_they_were() {
    let ask = kimi_with(r#"{"hermesCompat":{"contextLength":262144,"reasoningEffort":"high","extraBody":{"on":"yes"}}}"#)
        .with("context-window", "131072")
        .with("api-key", "farrier:resolve:env:GATEWAY_KEY")
        .with("tool-disclosure", "direct")
        .with("port", "18700")
        .with("messaging", PLAN)
        .with("web-search-provider", "tavily");
    golden("hermes-everything.yaml", &config(&ask));
    golden("hermes-everything.env", &env(&ask));
}

#[test]
fn cfg_21_an_api_has_a_name_of_hermes_own_or_is_refused() {
    let with_api = |api: &str| {
        let mut route = route(KIMI);
        route.client.inference_api = api.to_owned();
        Ask::of("hermes").route(route)
    };
    assert_eq!(
        with_api("grpc").wrong(),
        r#"the API: expected openai-completions, anthropic-messages or openai-responses, got "grpc""#
    );
    for (api, mode) in [
        ("openai-completions", "-"),
        ("openai-responses", r#""codex_responses""#),
        ("anthropic-messages", r#""anthropic_messages""#),
    ] {
        let document = with_api(api).document();
        assert_eq!(at(&document, "model/api_mode"), mode);
        assert_eq!(at(&document, "providers/nvidia-prod/transport"), mode);
        assert_eq!(
            document.field("custom_providers").unwrap().items()[0]
                .field("api_mode")
                .is_some(),
            mode != "-"
        );
    }
}

#[test]
fn cfg_22_a_name_with_a_line_break_stays_a_name() {
    let mut evil = route(KIMI);
    evil.upstream.provider = "x\nevil: 1\r\u{2028}evil: 2\u{85}---\n".to_owned();
    evil.upstream.model = "m # \u{0}\"'\n- evil".to_owned();
    let ask = Ask::of("hermes").route(evil.clone());
    let text = config(&ask);
    let read = Document::from_yaml(&text).unwrap();
    assert_eq!(read, ask.document());
    assert_eq!(read.field("evil"), None);
    assert_eq!(
        read.get(&["_farrier_upstream", "provider"]).unwrap().text(),
        Some(evil.upstream.provider.as_str())
    );
    let comments = text.lines().take_while(|line| line.starts_with('#'));
    assert_eq!(comments.count(), 4);
}

#[test]
fn cfg_23_of_a_plan_only_what_is_ours_and_on_is_taken_and_once() {
    let ask = Ask::of("hermes").with("messaging", PLAN);
    assert_eq!(
        env(&ask),
        "API_SERVER_PORT=18642\nAPI_SERVER_HOST=127.0.0.1\n\
         TELEGRAM_BOT_TOKEN=openshell:resolve:env:TELEGRAM_BOT_TOKEN\n"
    );
    assert!(at(&ask.document(), "platform_toolsets/telegram").contains("terminal"));
    assert_eq!(at(&ask.document(), "platform_toolsets/slack"), "-");
    let plain = "API_SERVER_PORT=18642\nAPI_SERVER_HOST=127.0.0.1\n";
    for plan in [
        PLAN.replace(r#""agent": "hermes""#, r#""agent": "openclaw""#),
        PLAN.replace(
            r#""agentRender": []"#,
            r#""agentRender": [{"kind": "env-lines"}]"#,
        ),
        PLAN.replace(r#""active": true"#, r#""active": false"#),
        "null".to_owned(),
    ] {
        assert_eq!(
            env(&Ask::of("hermes").with("messaging", &plan)),
            plain,
            "{plan}"
        );
    }
}

#[test]
fn a_plan_with_a_secret_in_it_is_refused_without_showing_it() {
    let plan = PLAN.replace("openshell:resolve:env:TELEGRAM_BOT_TOKEN", "1234:abc");
    let wrong = Ask::of("hermes").with("messaging", &plan).wrong();
    assert_eq!(
        wrong,
        "messaging: TELEGRAM_BOT_TOKEN: expected a placeholder"
    );
}

#[test]
fn a_manifest_has_its_effect_on_hermes_and_on_nobody_else() {
    let effects = r#"{"hermesCompat":{"apiMode":"chat_completions","toolSearch":false,"reasoningEffort":"low"}}"#;
    let document = kimi_with(effects).document();
    assert_eq!(at(&document, "model/api_mode"), r#""chat_completions""#);
    assert_eq!(at(&document, "tools/tool_search/enabled"), r#""off""#);
    assert_eq!(at(&document, "agent/reasoning_effort"), r#""low""#);
    let other = kimi_with(effects).route(route("other")).document();
    assert_eq!(at(&other, "tools/tool_search/enabled"), r#""on""#);
    let openclaw = Ask::openclaw().route(route(KIMI));
    let with = openclaw.clone().registry(kimi_with(effects).registry);
    assert_eq!(with.document(), openclaw.document());
}

#[test]
fn an_effect_that_hermes_would_not_take_is_named_with_its_manifest() {
    let wrong = |effects: &str| kimi_with(effects).wrong();
    assert_eq!(
        wrong(r#"{"hermesCompat":{"apiMode":"grpc"}}"#),
        "hermes/m.json: effects.hermesCompat.apiMode must be anthropic_messages, chat_completions or codex_responses, got \"grpc\""
    );
    assert_eq!(
        wrong(r#"{"hermesCompat":{"contextLenght":1}}"#),
        "hermes/m.json: effects.hermesCompat.contextLenght is unknown, expected one of apiMode, contextLength, extraBody, reasoningEffort, toolSearch"
    );
    let two = registry(&[
        manifest(
            "a",
            "hermes",
            KIMI,
            r#"{"hermesCompat":{"toolSearch":true}}"#,
        ),
        manifest(
            "b",
            "hermes",
            KIMI,
            r#"{"hermesCompat":{"toolSearch":false}}"#,
        ),
    ]);
    assert_eq!(
        Ask::of("hermes").route(route(KIMI)).registry(two).wrong(),
        "hermes/b.json: effects.hermesCompat.toolSearch contradicts manifest 'a'"
    );
}

#[test]
fn words_that_yaml_takes_for_something_else_stay_words() {
    for word in [
        "on",
        "off",
        "yes",
        "null",
        "~",
        "123",
        "1:30",
        "0x1F",
        "1e3",
        "2026-01-31",
        "=",
        "<<",
        "",
    ] {
        let mut route = route("m");
        route.upstream.model = word.to_owned();
        let ask = Ask::of("hermes").route(route);
        let line = format!("  model: \"{word}\"\n");
        assert!(config(&ask).contains(&line), "{word}: {}", config(&ask));
    }
    assert!(config(&Ask::of("hermes")).contains("enabled: \"on\""));
}

#[test]
fn only_one_search_service_is_known() {
    let wrong = Ask::of("hermes")
        .with("web-search-provider", "brave")
        .wrong();
    assert_eq!(
        wrong,
        r#"web-search-provider: expected tavily, got "brave""#
    );
}

#[test]
fn both_files_are_of_kinds_that_are_merged_with_what_is_there() {
    let files = Ask::of("hermes").good().files;
    assert!(matches!(files[0].content, Content::Yaml { .. }));
    assert!(matches!(files[1].content, Content::Env(_)));
}
