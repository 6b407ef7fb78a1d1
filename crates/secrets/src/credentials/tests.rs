use super::*;

const CANARY: &str = "sk-canary-7f3a";

fn provider(name: &str, kind: &str, base_url: Option<&str>, keys: &[(&str, &str)]) -> ProviderSpec {
    let keys = keys.iter().map(|(key, variable)| {
        let name = (*variable).to_owned();
        (key.parse().unwrap(), SecretRef::Env { name })
    });
    ProviderSpec {
        name: name.parse().unwrap(),
        profile: Profile::named(kind).unwrap(),
        base_url: base_url.map(str::to_owned),
        keys: keys.collect(),
    }
}

/// Every variable is set but `UNSET` and `BROKEN`.
fn credentials(specs: impl IntoIterator<Item = ProviderSpec>) -> Credentials {
    let env = |name: &str| match name {
        "UNSET" => None,
        "BROKEN" => Some(format!("{CANARY}\r\nx-evil: 1")),
        name => Some(format!("{CANARY}-{name}")),
    };
    Credentials::fetch(specs, |source| source.resolve(&env))
}

fn attached(specs: impl IntoIterator<Item = ProviderSpec>) -> Attached {
    let specs: Vec<ProviderSpec> = specs.into_iter().collect();
    let names: Vec<ProviderName> = specs.iter().map(|spec| spec.name.clone()).collect();
    credentials(specs).attached(&names)
}

fn at<'a>(host: &'a str, path: &'a str) -> Destination<'a> {
    Destination {
        scheme: Scheme::Https,
        host,
        port: 443,
        path,
    }
}

const OPENAI: Destination<'_> = Destination {
    scheme: Scheme::Https,
    host: "api.openai.com",
    port: 443,
    path: "/v1/chat/completions",
};

#[test]
fn a_key_is_lent_towards_its_own_provider() {
    let attached = attached([provider(
        "openai",
        "openai",
        None,
        &[("OPENAI_API_KEY", "A")],
    )]);
    let lent = attached.resolve("OPENAI_API_KEY", &OPENAI).unwrap();
    assert_eq!(lent.secret.expose(), "sk-canary-7f3a-A");
    assert_eq!(
        (lent.provider.as_str(), lent.key.as_str()),
        ("openai", "OPENAI_API_KEY")
    );
    assert!(attached.serves(Scheme::Https, "API.openai.com.", 443));
    assert!(!attached.serves(Scheme::Http, "api.openai.com", 443));
    assert!(!attached.serves(Scheme::Https, "api.openai.com", 80));
}

#[test]
fn a_stale_revision_and_a_handle_give_the_secret_of_now() {
    let attached = attached([provider(
        "openai",
        "openai",
        None,
        &[("OPENAI_API_KEY", "A")],
    )]);
    let handle = format!("s{}_OPENAI_API_KEY", "a1".repeat(32));
    for key in [
        "v1_OPENAI_API_KEY",
        "v99999999999999999999_OPENAI_API_KEY",
        &handle,
    ] {
        assert!(attached.resolve(key, &OPENAI).is_ok(), "{key}");
    }
    // And where it may go is judged all the same.
    let refused = attached.resolve("v1_OPENAI_API_KEY", &at("evil.test", "/v1"));
    assert!(matches!(refused, Err(Refusal::EndpointMismatch { .. })));
}

#[test]
fn a_key_for_another_place_is_refused_and_told_where_it_belongs() {
    let attached = attached([provider(
        "openai",
        "openai",
        None,
        &[("OPENAI_API_KEY", "A")],
    )]);
    let refused = attached
        .resolve("OPENAI_API_KEY", &at("evil.test", "/v1/canary-path"))
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "expected OPENAI_API_KEY of provider openai to be sent to https://api.openai.com/v1, got https://evil.test; \
         attach a provider whose base URL is there"
    );
}

#[test]
fn without_the_attachment_there_is_no_key_and_its_name_is_not_repeated() {
    let all = credentials([provider(
        "openai",
        "openai",
        None,
        &[("OPENAI_API_KEY", "A")],
    )]);
    let refused = all
        .attached(&[])
        .resolve("OPENAI_API_KEY", &OPENAI)
        .unwrap_err();
    assert!(matches!(
        refused,
        Refusal::Unavailable(Unavailable::NotAttached { .. })
    ));
    assert!(!refused.to_string().contains("OPENAI"));
    let refused = all
        .attached(&["openai".parse().unwrap()])
        .resolve("NO_SUCH", &OPENAI)
        .unwrap_err();
    assert!(
        refused.to_string().contains("attached are openai"),
        "{refused}"
    );
}

#[test]
fn one_bad_provider_never_disables_another() {
    let specs = [
        provider("nowhere", "generic", None, &[("A_KEY", "A")]),
        provider(
            "unset",
            "anthropic",
            None,
            &[("ANTHROPIC_API_KEY", "UNSET")],
        ),
        provider("openai", "openai", None, &[("OPENAI_API_KEY", "A")]),
        provider(
            "broken",
            "generic",
            Some("https://b.test"),
            &[("B_KEY", "BROKEN"), ("C_KEY", "C")],
        ),
    ];
    let all = credentials(specs);
    let mut broken: Vec<String> = all.broken().map(|key| key.key.to_string()).collect();
    broken.sort();
    assert_eq!(broken, ["ANTHROPIC_API_KEY", "A_KEY", "B_KEY"]);

    let names =
        ["nowhere", "unset", "no-such", "openai", "broken"].map(|name| name.parse().unwrap());
    let attached = all.attached(&names);
    assert!(attached.resolve("OPENAI_API_KEY", &OPENAI).is_ok());
    assert!(attached.resolve("C_KEY", &at("b.test", "/")).is_ok());
    for (key, host) in [
        ("A_KEY", "a.test"),
        ("ANTHROPIC_API_KEY", "api.anthropic.com"),
        ("B_KEY", "b.test"),
    ] {
        let refused = attached.resolve(key, &at(host, "/")).unwrap_err();
        assert!(
            matches!(refused, Refusal::Unavailable(Unavailable::Broken { .. })),
            "{refused}"
        );
        assert!(!format!("{refused} {refused:?}").contains("canary"));
    }
    // So that the placeholder is seen and refused, not sent through a tunnel.
    assert!(attached.serves(Scheme::Https, "api.anthropic.com", 443));
}

#[test]
fn of_two_keys_of_one_name_the_one_that_belongs_there_is_lent() {
    let specs = [
        provider(
            "corp",
            "openai",
            Some("https://llm.corp.test/v1"),
            &[("OPENAI_API_KEY", "CORP")],
        ),
        provider("openai", "openai", None, &[("OPENAI_API_KEY", "OWN")]),
        provider("second", "openai", None, &[("OPENAI_API_KEY", "SECOND")]),
    ];
    let attached = attached(specs);
    let lent = attached.resolve("OPENAI_API_KEY", &OPENAI).unwrap();
    assert_eq!(lent.secret.expose(), "sk-canary-7f3a-OWN");
    let lent = attached
        .resolve("OPENAI_API_KEY", &at("llm.corp.test", "/v1/models"))
        .unwrap();
    assert_eq!(lent.secret.expose(), "sk-canary-7f3a-CORP");
}

#[test]
fn a_vendors_key_no_longer_goes_to_the_vendor_when_the_base_url_is_anothers() {
    let attached = attached([provider(
        "mine",
        "openai",
        Some("https://llm.corp.test/v1"),
        &[("OPENAI_API_KEY", "A")],
    )]);
    assert!(matches!(
        attached.resolve("OPENAI_API_KEY", &OPENAI),
        Err(Refusal::EndpointMismatch { .. })
    ));
}

#[test]
fn another_name_of_a_key_is_the_same_key() {
    let attached = attached([provider(
        "nim",
        "nvidia",
        None,
        &[("NVIDIA_INFERENCE_API_KEY", "A")],
    )]);
    let lent = attached
        .resolve(
            "NVIDIA_API_KEY",
            &at("integrate.api.nvidia.com", "/v1/models"),
        )
        .unwrap();
    assert_eq!(lent.key.as_str(), "NVIDIA_INFERENCE_API_KEY");
}

#[test]
fn what_is_rewritten_besides_heads_is_the_profiles_choice_for_that_place_and_key() {
    let slack = [("SLACK_BOT_TOKEN", "A"), ("SLACK_APP_TOKEN", "B")];
    let attached = attached([
        provider("slack", "slack", None, &slack),
        provider("openai", "openai", None, &[("OPENAI_API_KEY", "C")]),
    ]);
    assert_eq!(
        attached.opts_in("slack.com", 443),
        Places {
            body: true,
            ..Places::default()
        }
    );
    assert_eq!(attached.opts_in("api.openai.com", 443), Places::default());
    assert_eq!(attached.opts_in("files.slack.com", 443), Places::default());
    let lent = attached
        .resolve("SLACK_BOT_TOKEN", &at("slack.com", "/api/chat.postMessage"))
        .unwrap();
    assert!(lent.places.body);
    let lent = attached
        .resolve("SLACK_BOT_TOKEN", &at("files.slack.com", "/files-pri/x"))
        .unwrap();
    assert!(!lent.places.body);
    let refused = attached.resolve("SLACK_APP_TOKEN", &at("slack.com", "/api/chat.postMessage"));
    assert!(matches!(refused, Err(Refusal::EndpointMismatch { .. })));
}

#[test]
fn nothing_shows_a_secret() {
    let specs = [
        provider("openai", "openai", None, &[("OPENAI_API_KEY", "A")]),
        provider(
            "broken",
            "generic",
            Some("https://b.test"),
            &[("B_KEY", "BROKEN")],
        ),
    ];
    let all = credentials(specs);
    let attached = all.attached(&["openai".parse().unwrap(), "broken".parse().unwrap()]);
    let lent = attached.resolve("OPENAI_API_KEY", &OPENAI).unwrap();
    let broken: Vec<_> = all.broken().collect();
    let shown = format!("{all:?} {all:#?} {attached:?} {lent:?} {broken:?}");
    assert!(!shown.contains("canary"), "{shown}");
}
