//! What openclaw.json holds.

use farrier_compat::registry::Registry;
use farrier_harness::route::{from_variables, sandbox_route};

use crate::support::{Ask, KIMI, OPENCLAWS, at, flat, golden, kimi, manifest, registry, route};

fn kimi_ask() -> Ask {
    Ask::openclaw()
        .route(route(KIMI))
        .registry(registry(&[kimi()]))
}

const COMPAT: &str = "models/providers/inference/models";

#[test]
fn cfg_01_the_least_input_gives_exactly_the_known_keys_and_no_secret() {
    for version in OPENCLAWS {
        let ask = Ask::openclaw().version(version);
        let text = ask.document().to_json();
        golden(&format!("openclaw-{version}-minimal.json"), &text);
        assert!(text.contains(r#""apiKey": "unused""#), "{text}");
        assert!(!text.contains("sk-") && !text.contains("Bearer"), "{text}");
        let providers = ask.document();
        let providers = providers.get(&["models", "providers"]).unwrap();
        assert_eq!(providers.fields().len(), 1);
    }
}

#[test]
fn a_configuration_with_everything_is_as_it_was() {
    for version in OPENCLAWS {
        let ask = everything().version(version);
        golden(
            &format!("openclaw-{version}-everything.json"),
            &ask.document().to_json(),
        );
    }
}

/// Every setting at once.
pub(crate) fn everything() -> Ask {
    kimi_ask()
        .with("context-window", "262144")
        .with("max-tokens", "32768")
        .with("reasoning", "true")
        .with("inputs", "text, image")
        .with("compat", r#"{"supportsTools": true}"#)
        .with("api-key", "farrier:resolve:env:GATEWAY_KEY")
        .with("timeout", "900")
        .with("heartbeat", "30m")
        .with("port", "19000")
        .with("chat-url", "https://chat.example:8443")
        .with("disable-device-auth", "1")
        .with("web-search", "1")
        .with("web-search-provider", "tavily")
        .with("otel", "1")
        .with("otel-sample-rate", "0.25")
        .with(
            "channels",
            r#"{"telegram": {"enabled": true, "botToken": "openshell:resolve:env:TELEGRAM_BOT_TOKEN"}}"#,
        )
        .with(
            "agents",
            r#"{"agents": [{"id": "research", "model": "inference/other/model", "description": "looks things up",
                            "tools": {"profile": "minimal", "allow": ["web_fetch"]},
                            "subagents": {"delegationMode": "suggest", "allowAgents": ["main"], "requireAgentId": true}}],
                "defaults": {"subagents": {"maxSpawnDepth": 2}},
                "main": {"tools": {"deny": ["cron"]}}}"#,
        )
}

#[test]
fn reg_01_the_managed_kimi_route_gets_compat_plugin_load_path_and_no_tool_search() {
    let document = kimi_ask().document();
    assert_eq!(
        flat(
            document
                .get(&["models", "providers", "inference", "models"])
                .unwrap()
                .items()[0]
                .field("compat")
                .unwrap()
        ),
        r#"{"maxTokensField":"max_tokens","requiresStringContent":true,"requiresToolResultName":true,"supportsStore":false}"#
    );
    assert_eq!(
        at(&document, "plugins/entries/nemoclaw-kimi-inference-compat"),
        r#"{"enabled":true}"#
    );
    assert_eq!(
        at(&document, "plugins/load/paths"),
        r#"["/usr/local/share/nemoclaw/openclaw-plugins/kimi-inference-compat"]"#
    );
    assert_eq!(at(&document, "tools/toolSearch"), "false");
}

#[test]
fn a_plugin_is_loaded_from_where_it_was_staged_by_the_releases_that_need_it() {
    let kimi = Ask::openclaw()
        .registry(Registry::shipped().unwrap())
        .route(route("moonshotai/kimi-k2.6"));
    let staged = |version| {
        let ask = kimi.clone().version(version);
        ask.with("plugins", "/opt/farrier/").document()
    };
    let document = staged("2026.5.12");
    assert_eq!(
        at(&document, "plugins/entries/farrier-native-replay"),
        r#"{"enabled":true}"#
    );
    assert_eq!(
        at(&document, "plugins/load/paths"),
        r#"["/opt/farrier/openclaw-plugins/native-replay"]"#
    );
    for version in ["2026.4.21", "2026.5.17", "2026.9.6"] {
        assert_eq!(
            at(&staged(version), "plugins"),
            r#"{"entries":{"bonjour":{"enabled":false}}}"#,
            "{version}"
        );
    }
}

#[test]
fn a_plugin_that_is_nowhere_is_left_out_and_told_of() {
    let kimi = Ask::openclaw()
        .registry(Registry::shipped().unwrap())
        .route(route("moonshotai/kimi-k2.6"));
    let configuration = kimi.good();
    assert_eq!(
        configuration.notes,
        [
            "left out, though OpenClaw 2026.5.12 needs it: the plugin farrier-native-replay; put it \
          somewhere with `farrier stage` and say where with --plugins"
        ]
    );
    assert_eq!(
        at(&kimi.document(), "plugins"),
        r#"{"entries":{"bonjour":{"enabled":false}}}"#
    );
    let relative = kimi.with("plugins", "farrier").wrong();
    assert_eq!(
        relative,
        "plugins: expected an absolute path, got \"farrier\""
    );
}

#[test]
fn plugins_of_one_directory_are_loaded_from_it_once() {
    let plugin = |id: &str| {
        format!(
            r#"{{"openclawPlugins":[{{"id":"{id}","path":"openclaw-plugins/kimi-inference-compat",
              "loadPath":"/usr/local/share/nemoclaw/openclaw-plugins/kimi-inference-compat/"}}]}}"#
        )
    };
    let two = [
        manifest("a", "openclaw", KIMI, &plugin("x")),
        manifest("b", "openclaw", KIMI, &plugin("y")),
    ];
    let document = kimi_ask().registry(registry(&two)).document();
    assert_eq!(
        at(&document, "plugins/entries"),
        r#"{"bonjour":{"enabled":false},"x":{"enabled":true},"y":{"enabled":true}}"#
    );
    assert_eq!(
        at(&document, "plugins/load/paths"),
        r#"["/usr/local/share/nemoclaw/openclaw-plugins/kimi-inference-compat"]"#
    );
}

#[test]
fn reg_03_another_route_gets_no_plugin_and_no_load_path() {
    let ask = kimi_ask().route(route("moonshotai/kimi-k2.5"));
    let document = ask.with("compat", r#"{"supportsTools":true}"#).document();
    assert_eq!(
        at(&document, "plugins"),
        r#"{"entries":{"bonjour":{"enabled":false}}}"#
    );
    assert_eq!(
        flat(
            document
                .get(&["models", "providers", "inference", "models"])
                .unwrap()
                .items()[0]
                .field("compat")
                .unwrap()
        ),
        r#"{"supportsTools":true}"#
    );
}

#[test]
fn reg_05_reg_06_the_given_compat_is_an_object_or_nothing() {
    assert!(
        kimi_ask()
            .with("NEMOCLAW_INFERENCE_COMPAT_B64", "null")
            .configuration()
            .is_ok()
    );
    for (text, got) in [("[]", "an array"), ("\"x\"", "a string")] {
        let wrong = kimi_ask()
            .with("NEMOCLAW_INFERENCE_COMPAT_B64", text)
            .wrong();
        let message =
            format!("NEMOCLAW_INFERENCE_COMPAT_B64 must be a JSON object or null, got {got}");
        assert!(wrong.ends_with(&message), "{wrong}");
    }
}

#[test]
fn reg_07_a_given_compat_that_contradicts_a_manifest_is_a_mistake() {
    let wrong = kimi_ask()
        .with("compat", r#"{"supportsStore":true}"#)
        .wrong();
    let message = "model-specific setup 'kimi-k2.6-managed-inference' conflicts with inference compat key 'supportsStore'";
    assert!(wrong.ends_with(message), "{wrong}");
}

#[test]
fn reg_17_a_manifest_cannot_bring_tool_search_back() {
    let on = manifest(
        "on",
        "openclaw",
        KIMI,
        r#"{"openclawTools":{"toolSearch":true}}"#,
    );
    let ask = kimi_ask().registry(registry(&[on]));
    assert_eq!(at(&ask.document(), "tools/toolSearch"), "true");
    let direct = ask.with("NEMOCLAW_TOOL_DISCLOSURE", "direct");
    assert_eq!(at(&direct.document(), "tools/toolSearch"), "false");
}

#[test]
fn reg_19_without_manifests_there_is_a_configuration_without_interventions() {
    let document = Ask::openclaw().route(route(KIMI)).document();
    assert_eq!(
        at(&document, "tools/toolSearch"),
        r#"{"mode":"tools","searchDefaultLimit":8,"maxSearchLimit":20}"#
    );
    assert_eq!(at(&document, "plugins/load"), "-");
}

#[test]
fn a_model_that_a_manifest_says_reasons_is_described_so_and_left_to_think() {
    let reasons = manifest("r", "openclaw", KIMI, r#"{"openclawReasoning":true}"#);
    let document = kimi_ask().registry(registry(&[reasons])).document();
    assert!(at(&document, COMPAT).contains(r#""reasoning":true"#));
    assert_eq!(at(&document, "agents/defaults/thinkingDefault"), "-");
    assert_eq!(
        at(
            &Ask::openclaw().document(),
            "agents/defaults/thinkingDefault"
        ),
        r#""off""#
    );
}

#[test]
fn a_compat_key_of_no_version_is_refused_and_one_of_another_left_out_and_named() {
    let wrong = Ask::openclaw()
        .with("compat", r#"{"maxTokenField":"max_tokens"}"#)
        .wrong();
    assert_eq!(
        wrong,
        "compat: expected a compat key that OpenClaw knows, got \"maxTokenField\""
    );
    let ask = Ask::openclaw()
        .version("2026.9.6")
        .with("compat", r#"{"requiresMistralToolIds":true}"#);
    let notes = ask.good().notes.join("\n");
    assert!(notes.contains("compat.requiresMistralToolIds"), "{notes}");
    assert!(!ask.document().to_json().contains("requiresMistralToolIds"));
}

#[test]
fn cfg_02_the_port_is_one_that_needs_no_privilege() {
    for text in ["80", "70000", "abc"] {
        assert_eq!(
            Ask::openclaw()
                .with("NEMOCLAW_DASHBOARD_PORT", text)
                .wrong(),
            format!("NEMOCLAW_DASHBOARD_PORT: expected a port from 1024 to 65535, got {text:?}")
        );
    }
    let document = Ask::openclaw()
        .with("NEMOCLAW_DASHBOARD_PORT", " 19000 ")
        .document();
    assert_eq!(at(&document, "gateway/port"), "19000");
    assert_eq!(
        at(&document, "gateway/controlUi/allowedOrigins"),
        r#"["http://127.0.0.1:19000"]"#
    );
}

#[test]
fn cfg_03_the_port_of_a_loopback_chat_url_is_the_gateways() {
    let document = Ask::openclaw()
        .with("CHAT_UI_URL", "http://127.0.0.1:19999")
        .document();
    assert_eq!(at(&document, "gateway/port"), "19999");
    assert_eq!(
        at(&document, "gateway/controlUi/allowedOrigins"),
        r#"["http://127.0.0.1:19999"]"#
    );
    assert_eq!(
        at(&document, "gateway/controlUi/dangerouslyDisableDeviceAuth"),
        "false"
    );
}

#[test]
fn cfg_04_a_remote_chat_url_gives_port_origins_and_no_pairing() {
    let document = Ask::openclaw()
        .with("CHAT_UI_URL", "https://x.example:8443")
        .document();
    assert_eq!(at(&document, "gateway/port"), "8443");
    assert_eq!(
        at(&document, "gateway/controlUi"),
        r#"{"allowInsecureAuth":false,"dangerouslyDisableDeviceAuth":true,"allowedOrigins":["http://127.0.0.1:8443","https://x.example:8443","https://x.example"]}"#
    );
}

#[test]
fn cfg_05_a_user_that_looks_like_loopback_makes_no_loopback() {
    let document = Ask::openclaw()
        .with("CHAT_UI_URL", "http://localhost@evil.example")
        .document();
    assert_eq!(
        at(&document, "gateway/controlUi/dangerouslyDisableDeviceAuth"),
        "true"
    );
    assert_eq!(
        at(&document, "gateway/controlUi/allowedOrigins"),
        r#"["http://127.0.0.1:18789","http://evil.example"]"#
    );
}

#[test]
fn cfg_06_a_bad_window_or_limit_is_told_and_left_out() {
    let ask = Ask::openclaw()
        .with("NEMOCLAW_CONTEXT_WINDOW", "-1")
        .with("NEMOCLAW_MAX_TOKENS", "x");
    let notes = ask.good().notes;
    assert_eq!(
        notes,
        [
            r#"[SECURITY] NEMOCLAW_CONTEXT_WINDOW: expected a positive integer, got "-1"; left out"#,
            r#"[SECURITY] NEMOCLAW_MAX_TOKENS: expected a positive integer, got "x"; left out"#,
        ]
    );
    let models = at(&ask.document(), COMPAT);
    assert!(
        models.contains(r#""contextWindow":131072,"maxTokens":4096"#),
        "{models}"
    );
}

#[test]
fn cfg_07_a_timeout_of_nothing_is_a_mistake() {
    assert_eq!(
        Ask::openclaw().with("NEMOCLAW_AGENT_TIMEOUT", "0").wrong(),
        r#"NEMOCLAW_AGENT_TIMEOUT: expected a positive integer, got "0""#
    );
}

#[test]
fn cfg_08_a_heartbeat_is_digits_and_a_unit_or_left_out() {
    let every = |text| {
        let ask = Ask::openclaw().with("NEMOCLAW_AGENT_HEARTBEAT_EVERY", text);
        (
            at(&ask.document(), "agents/defaults/heartbeat"),
            ask.good().notes.len(),
        )
    };
    assert_eq!(every("5x"), ("-".to_owned(), 1));
    assert_eq!(every("m"), ("-".to_owned(), 1));
    assert_eq!(every("30m"), (r#"{"every":"30m"}"#.to_owned(), 0));
}

#[test]
fn cfg_09_a_small_window_of_a_local_model_keeps_a_reserve() {
    let reserve = |window: &str, max: &str| {
        let mut local = route("qwen3.5:9b");
        local.upstream.provider = "ollama-local".to_owned();
        let ask = Ask::openclaw().route(local);
        let ask = ask.with("context-window", window).with("max-tokens", max);
        at(&ask.document(), "agents/defaults/compaction")
    };
    assert_eq!(
        reserve("16384", "4096"),
        r#"{"reserveTokens":4096,"reserveTokensFloor":4096}"#
    );
    assert_eq!(reserve("28001", "4096"), "-");
    assert_eq!(
        reserve("9000", "4096"),
        r#"{"reserveTokens":1000,"reserveTokensFloor":1000}"#
    );
    assert_eq!(
        reserve("4000", "4096"),
        r#"{"reserveTokens":0,"reserveTokensFloor":0}"#
    );
}

#[test]
fn a_local_provider_tells_usage_unless_something_else_is_said() {
    let mut local = route("qwen3.5:9b");
    local.client.provider_key = "ollama".to_owned();
    let ask = Ask::openclaw().route(local);
    let models = |ask: &Ask| at(&ask.document(), "models/providers/ollama/models");
    assert!(models(&ask).contains(r#"{"supportsUsageInStreaming":true}"#));
    let ask = ask.with("compat", r#"{"supportsUsageInStreaming":false}"#);
    assert!(models(&ask).contains(r#"{"supportsUsageInStreaming":false}"#));
}

#[test]
fn cfg_10_a_search_service_is_given_a_placeholder_and_an_unknown_one_refused() {
    let ask = Ask::openclaw().with("NEMOCLAW_WEB_SEARCH_ENABLED", "1");
    let document = ask
        .clone()
        .with("NEMOCLAW_WEB_SEARCH_PROVIDER", "tavily")
        .document();
    assert_eq!(
        at(&document, "tools/web/search"),
        r#"{"enabled":true,"provider":"tavily"}"#
    );
    assert_eq!(
        at(&document, "plugins/entries/tavily/config/webSearch/apiKey"),
        r#""openshell:resolve:env:TAVILY_API_KEY""#
    );
    assert_eq!(
        ask.with("NEMOCLAW_WEB_SEARCH_PROVIDER", "bing").wrong(),
        r#"NEMOCLAW_WEB_SEARCH_PROVIDER: expected brave or tavily, got "bing""#
    );
}

#[test]
fn cfg_10_a_search_service_that_a_version_does_not_bring_along_is_told_of() {
    let notes = |version, service| {
        let ask = Ask::openclaw().version(version).with("web-search", "1");
        let notes = ask.with("web-search-provider", service).good().notes;
        notes
            .iter()
            .filter(|note| note.contains("search service"))
            .count()
    };
    assert_eq!(notes("2026.5.12", "brave"), 1);
    assert_eq!(notes("2026.5.12", "tavily"), 0);
    assert_eq!(notes("2026.4.21", "brave"), 0);
    assert_eq!(notes("2026.9.6", "brave"), 0);
}

#[test]
fn cfg_11_a_collector_with_a_user_in_its_url_is_refused_without_showing_it() {
    let wrong = Ask::openclaw()
        .with("NEMOCLAW_OPENCLAW_OTEL", "1")
        .with(
            "NEMOCLAW_OPENCLAW_OTEL_ENDPOINT",
            "http://user:pw@collector:4318",
        )
        .wrong();
    assert_eq!(
        wrong,
        "NEMOCLAW_OPENCLAW_OTEL_ENDPOINT: expected an http or https URL without a user, got a URL with a user in it"
    );
    for rate in ["1.5", "-0.1", "NaN", "all"] {
        let wrong = Ask::openclaw().with("otel-sample-rate", rate).wrong();
        assert!(wrong.contains("expected a number from 0 to 1"), "{wrong}");
    }
}

#[test]
fn cfg_13_what_an_extra_agent_must_not_have_is_refused_with_its_place() {
    let wrong = |agents: &str| {
        Ask::openclaw()
            .with("NEMOCLAW_EXTRA_AGENTS_JSON_B64", agents)
            .wrong()
    };
    for (agents, place) in [
        (
            r#"[{"id":"a","tools":{"allow":["x"],"apiKey":"sk-abc"}}]"#,
            "agents[0].tools.apiKey: expected one of profile, allow, deny",
        ),
        (
            r#"[{"id":"a","tools":{"allow":["x"]},"workspace":"/elsewhere"}]"#,
            r#"agents[0].workspace: expected "/sandbox/.openclaw/workspace-a" or nothing"#,
        ),
        (
            r#"[{"id":"a","tools":{"allow":["x"]},"agentDir":"/sandbox/.openclaw/agents/../b"}]"#,
            "agents[0].agentDir: expected",
        ),
        (
            r#"[{"id":"main","tools":{"allow":["x"]}}]"#,
            r#"agents[0].id: expected an id that is not taken, got "main""#,
        ),
        (
            r#"[{"id":"a","tools":{"allow":["x"]}},{"id":"a","tools":{"deny":["x"]}}]"#,
            r#"agents[1].id: expected an id that is not taken, got "a""#,
        ),
        (
            r#"[{"id":"a","tools":{"allow":["x"]},"model":"openai/gpt-9"}]"#,
            "agents[0].model: expected inference/ and a model",
        ),
        (
            r#"[{"id":"a","tools":{"allow":[]}}]"#,
            "agents[0].tools: expected a non-empty allow or deny",
        ),
        (
            r#"[{"id":"a"}]"#,
            "agents[0].tools: expected an object, got nothing",
        ),
        (
            r#"[{"id":"A b","tools":{"allow":["x"]}}]"#,
            "agents[0].id: expected an id of a-z",
        ),
        (
            r#"[{"id":"a","tools":{"allow":["x"]},"default":true}]"#,
            "agents[0].default: expected nothing",
        ),
        (
            r#"[{"id":"a","tools":{"allow":["x"]},"subagents":{"maxSpawnDepth":1}}]"#,
            "agents[0].subagents.maxSpawnDepth: expected one of",
        ),
        (
            r#"{"agents":[],"extra":1}"#,
            "extra: expected one of agents, defaults, main",
        ),
        (
            r#"{"defaults":{"subagents":{"maxSpawnDepth":6}}}"#,
            "defaults.subagents.maxSpawnDepth: expected 1 to 5",
        ),
        ("7", "expected an array, or an object"),
        (r#"[{"id":"a","id":"b"}]"#, "the key \"id\" twice"),
    ] {
        let wrong = wrong(agents);
        assert!(wrong.contains(place), "{agents}\n{wrong}");
        assert!(
            wrong.starts_with("NEMOCLAW_EXTRA_AGENTS_JSON_B64: ") && !wrong.contains("sk-abc"),
            "{wrong}"
        );
    }
}

#[test]
fn cfg_24_a_route_there_and_back_is_what_it_was() {
    let generate = |upstream: &str, preferred: Option<&str>| {
        let route = sandbox_route(upstream, "a/model", preferred);
        Ask::openclaw()
            .route(route.facts)
            .with("compat", &route.compat)
            .document()
    };
    let nvidia = generate("nvidia-prod", None);
    let openai = generate("openai-api", Some("openai-responses"));
    assert_eq!(
        at(&openai, "models/providers/openai/api"),
        r#""openai-responses""#
    );
    assert_eq!(at(&openai, "models/providers/inference"), "-");
    assert_eq!(generate("nvidia-prod", Some("openai-responses")), nvidia);
    assert_eq!(
        at(&nvidia, "models/providers/inference/api"),
        r#""openai-completions""#
    );
}

#[test]
fn cfg_20_an_image_says_which_model_and_where() {
    let lookup = |name: &str| (name == "NEMOCLAW_PROVIDER_KEY").then(|| "inference".to_owned());
    let wrong = from_variables(lookup).unwrap_err().to_string();
    assert_eq!(
        wrong,
        "NEMOCLAW_MODEL: NEMOCLAW_MODEL is required\nNEMOCLAW_INFERENCE_BASE_URL: NEMOCLAW_INFERENCE_BASE_URL is required"
    );
}

#[test]
fn a_model_reference_that_lost_its_provider_is_refused() {
    let lookup = |name: &str| {
        let value = match name {
            "NEMOCLAW_MODEL" => KIMI,
            "NEMOCLAW_INFERENCE_BASE_URL" => "https://inference.local/v1",
            "NEMOCLAW_PRIMARY_MODEL_REF" => KIMI,
            _ => return None,
        };
        Some(value.to_owned())
    };
    let wrong = from_variables(lookup).unwrap_err().to_string();
    assert_eq!(
        wrong,
        "NEMOCLAW_PRIMARY_MODEL_REF: expected inference/moonshotai/kimi-k2.6, got moonshotai/kimi-k2.6"
    );
}

#[test]
fn a_key_never_gets_into_the_file() {
    let wrong = Ask::openclaw().with("api-key", "sk-abc").wrong();
    assert!(
        wrong.contains("expected a placeholder") && !wrong.contains("sk-abc"),
        "{wrong}"
    );
    let wrong = Ask::openclaw()
        .with("channels", r#"{"telegram":{"botToken":"1:abc"}}"#)
        .wrong();
    assert_eq!(
        wrong,
        "channels: telegram.botToken: expected a placeholder such as farrier:resolve:env:NAME"
    );
}

#[test]
fn a_private_provider_is_allowed_where_the_version_would_block_it() {
    let request = |version, base_url: &str| {
        let mut route = route("m");
        route.client.base_url = base_url.to_owned();
        let document = Ask::openclaw().version(version).route(route).document();
        at(&document, "models/providers/inference/request")
    };
    let allowed = r#"{"allowPrivateNetwork":true}"#;
    assert_eq!(request("2026.4.21", "https://inference.local/v1"), "-");
    assert_eq!(request("2026.5.12", "https://inference.local/v1"), allowed);
    assert_eq!(request("2026.9.6", "http://10.1.2.3:8484/v1"), allowed);
    assert_eq!(request("2026.9.6", "http://127.0.0.1:8484/v1"), "-");
    assert_eq!(request("2026.9.6", "https://api.example.com/v1"), "-");
}

#[test]
fn off_the_managed_route_there_is_no_proxy_unless_one_is_named() {
    let mut local = route("m");
    local.client.base_url = "http://127.0.0.1:8484/v1".to_owned();
    let ask = Ask::openclaw().route(local);
    assert_eq!(at(&ask.document(), "proxy"), "-");
    let named = ask.with("NEMOCLAW_PROXY_HOST", "10.9.8.7").document();
    assert_eq!(at(&named, "proxy/proxyUrl"), r#""http://10.9.8.7:3128""#);
    let off = Ask::openclaw()
        .with("NEMOCLAW_OPENCLAW_MANAGED_PROXY", "OFF")
        .document();
    assert_eq!(at(&off, "proxy"), "-");
}

#[test]
fn cfg_17_an_api_that_is_none_is_refused() {
    let mut odd = route("m");
    odd.client.inference_api = "grpc".to_owned();
    assert_eq!(
        Ask::openclaw().route(odd).wrong(),
        r#"the API: expected openai-completions or openai-responses or anthropic-messages, got "grpc""#
    );
}

#[test]
fn cfg_16_a_model_with_a_line_break_is_refused() {
    let wrong = Ask::openclaw().route(route("m\nx")).wrong();
    assert_eq!(
        wrong,
        "the model: expected a name without control characters"
    );
}
