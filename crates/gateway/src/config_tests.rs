use farrier_ledger::{Embedded, EmbeddedConfig};

use super::*;

fn config(dir: &tempfile::TempDir) -> Config {
    let ledger = Embedded::open(EmbeddedConfig::new(dir.path().join("ledger/turns.db"))).unwrap();
    let mut config = Config::new(Arc::new(Registry::shipped().unwrap()), Arc::new(ledger));
    config
        .providers
        .push(Provider::new("moonshot", "https://api.moonshot.ai/v1"));
    config
}

fn client(name: &str, key: &str) -> Client {
    Client::new(name, Secret::new(key.to_owned()).unwrap())
}

fn route(model: &str, provider: &str) -> Route {
    Route::new(model, provider)
}

#[test]
fn the_smallest_configuration_has_no_mistakes() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.routes.push(route("kimi", "moonshot"));
    config.check().unwrap();
}

#[test]
fn every_mistake_is_reported_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.listen.push("0.0.0.0:80".parse().unwrap());
    config.providers.push(Provider::new(
        "moonshot",
        "https://user:pass@api.moonshot.ai/v1?key=1",
    ));
    config.providers.push(Provider::new("files", "ftp://files"));
    config.default_provider = Some("monshot".to_owned());
    config.routes = vec![
        route("kimi", "moonshoot"),
        route("kimi", "moonshot"),
        route("other", "zzz"),
    ];
    let text = config.check().unwrap_err().to_string();
    let expected = "\
expected clients with keys for the listener 0.0.0.0:80, which others than this machine can reach; add a client or listen on 127.0.0.1
expected distinct provider names, got \"moonshot\" twice
expected an http or https URL without user or query as base_url of provider \"moonshot\", got another
expected an http or https URL without user or query as base_url of provider \"files\", got another
expected the name of a provider as default_provider, got \"monshot\"; did you mean \"moonshot\"
expected the name of a provider for model \"kimi\", got \"moonshoot\"; did you mean \"moonshot\"
expected one route for each model, got two for \"kimi\"
expected the name of a provider for model \"other\", got \"zzz\"";
    assert_eq!(text, expected);
}

#[test]
fn clients_must_be_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.listen.push("0.0.0.0:80".parse().unwrap());
    config.clients = vec![
        client("a", "key-1"),
        client("a", "key-2"),
        client("b", "key-1"),
    ];
    let text = config.check().unwrap_err().to_string();
    let expected = "\
expected distinct client names, got \"a\" twice
expected distinct client keys, got the same for \"a\" and \"b\"";
    assert_eq!(text, expected);
}

#[test]
fn a_gateway_without_listener_or_provider_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.listen.clear();
    config.providers.clear();
    let text = config.check().unwrap_err().to_string();
    assert_eq!(
        text,
        "expected at least one address to listen on, got none\nexpected at least one provider, got none"
    );
}

#[test]
fn a_credential_in_the_clear_is_noticed_unless_it_stays_on_the_machine() {
    let clear = |url| Provider::new("p", url).is_in_the_clear();
    assert!(clear("http://vllm.internal:8000/v1"));
    assert!(!clear("https://api.moonshot.ai/v1"));
    for url in [
        "http://localhost:8000/v1",
        "http://127.0.0.1/v1",
        "http://[::1]:1/v1",
    ] {
        assert!(!clear(url), "{url}");
    }
}

#[test]
fn apis_are_known_by_their_names() {
    assert_eq!(
        Api::named("openai-completions"),
        Some(Api::OpenAiCompletions)
    );
    assert_eq!(Api::OpenAiCompletions.as_str(), "openai-completions");
    assert_eq!(Api::named("openai-responses"), None);
}

#[test]
fn mistakes_about_care_are_found_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    let retry = &mut config.providers[0].care.retry;
    (retry.percent, retry.statuses) = (101, vec![429, 200]);
    let fallback = |provider: &str, model: Option<&str>| Fallback {
        provider: provider.to_owned(),
        upstream_model: model.map(str::to_owned),
    };
    config.routes = vec![Route {
        upstream_model: Some("k".to_owned()),
        fallbacks: vec![
            fallback("moonshot", None),
            fallback("moonshoot", None),
            fallback("moonshot", Some("k")),
        ],
        ..route("kimi", "moonshot")
    }];
    let found = config.check().unwrap_err().to_string();
    assert_eq!(
        found.lines().collect::<Vec<_>>(),
        [
            "expected at most 100 retries for a hundred requests to provider \"moonshot\", got 101",
            "expected only statuses from 400 to 599 to retry provider \"moonshot\" on, got 200",
            "expected the name of a provider for a fallback of model \"kimi\", got \"moonshoot\"; did you mean \"moonshot\"",
            "expected another provider or model for a fallback of model \"kimi\", got \"moonshot/k\" twice",
        ]
    );
}
