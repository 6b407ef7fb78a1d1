use super::*;

#[test]
fn every_upstream_is_reached_as_the_table_says() {
    let shown = |upstream: &str, preferred: Option<&str>| {
        let SandboxRoute { facts, compat } = sandbox_route(upstream, "m", preferred);
        let client = facts.client;
        let ClientFacts {
            provider_key,
            inference_api,
            base_url,
            ..
        } = client;
        format!("{provider_key} {inference_api} {base_url} {compat}")
    };
    let managed = "https://inference.local/v1";
    for (upstream, preferred, expected) in [
        (
            "openai-api",
            None,
            format!("openai openai-completions {managed} {{}}"),
        ),
        (
            "openai-api",
            Some(RESPONSES),
            format!("openai openai-responses {managed} {{}}"),
        ),
        (
            "anthropic-prod",
            None,
            "anthropic anthropic-messages https://inference.local {}".to_owned(),
        ),
        (
            "compatible-anthropic-endpoint",
            Some(CHAT_COMPLETIONS),
            format!("inference openai-completions {managed} {{\"supportsStore\":false}}"),
        ),
        (
            "gemini-api",
            Some(RESPONSES),
            format!("inference openai-completions {managed} {{\"supportsStore\":false}}"),
        ),
        (
            "ollama-local",
            None,
            format!("inference openai-completions {managed} {{\"supportsUsageInStreaming\":true}}"),
        ),
        (
            "nvidia-prod",
            Some(RESPONSES),
            format!("inference openai-completions {managed} {{}}"),
        ),
        (
            "anything",
            None,
            format!("inference openai-completions {managed} {{}}"),
        ),
    ] {
        assert_eq!(
            shown(upstream, preferred),
            expected,
            "{upstream} {preferred:?}"
        );
    }
}

#[test]
fn a_host_is_private_by_its_name_or_address() {
    for url in [
        "https://inference.local/v1",
        "http://gateway:8484",
        "http://10.0.0.1",
        "http://192.168.1.1:1",
        "http://100.64.1.1",
        "http://169.254.1.1",
        "http://[fd00::1]:8484/v1",
        "http://localhost:1",
        "http://host.docker.internal:1",
    ] {
        assert!(is_private(url), "{url}");
    }
    for url in [
        "https://api.moonshot.ai/v1",
        "http://127.0.0.1:8484/v1",
        "http://[::1]:1",
        "http://8.8.8.8",
    ] {
        assert!(!is_private(url), "{url}");
    }
}

#[test]
fn a_route_that_no_harness_can_have_is_refused() {
    let refused = |change: fn(&mut Facts)| {
        let mut facts = sandbox_route("x", "m", None).facts;
        change(&mut facts);
        check(&facts).expect_err("refused").to_string()
    };
    let url = "the base URL: expected an http or https URL without a user";
    assert_eq!(
        refused(|facts| facts.client.base_url = "http://u:p@h/v1".into()),
        url
    );
    assert_eq!(
        refused(|facts| facts.client.base_url = "file:///etc/passwd".into()),
        url
    );
    let model = "the model: expected a name without control characters";
    assert_eq!(refused(|facts| facts.client.model = "a\nb".into()), model);
    let key = "the provider key: expected letters, digits, '-', '_' and '.'";
    assert_eq!(
        refused(|facts| facts.client.provider_key = "a/b".into()),
        key
    );
}
