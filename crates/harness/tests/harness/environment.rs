//! Variables for clients that are no harness.

use crate::support::{Ask, KIMI, route};

fn lines(ask: &Ask) -> String {
    ask.good().texts().next().unwrap().1
}

#[test]
fn an_openai_client_is_given_url_key_and_model() {
    assert_eq!(
        lines(&Ask::of("env").route(route(KIMI))),
        "OPENAI_BASE_URL=https://inference.local/v1\nOPENAI_API_KEY=unused\nOPENAI_MODEL=moonshotai/kimi-k2.6\n"
    );
}

#[test]
fn an_anthropic_client_is_given_its_own_names() {
    let mut route = route("claude");
    route.client.inference_api = "anthropic-messages".to_owned();
    route.client.base_url = "https://inference.local".to_owned();
    let ask = Ask::of("env")
        .route(route)
        .with("api-key", "${GATEWAY_KEY}");
    assert_eq!(
        lines(&ask),
        "ANTHROPIC_BASE_URL=https://inference.local\nANTHROPIC_AUTH_TOKEN='${GATEWAY_KEY}'\nANTHROPIC_MODEL=claude\n"
    );
}

#[test]
fn what_a_shell_would_read_as_more_than_a_value_is_quoted_or_refused() {
    let ask = |model: &str| Ask::of("env").route(route(model));
    assert!(lines(&ask("a b;$(id)`id`")).ends_with("OPENAI_MODEL='a b;$(id)`id`'\n"));
    let wrong = ask("a'b").wrong();
    assert_eq!(
        wrong,
        "the route: expected values without quotes or line ends"
    );
    let wrong = ask("a\nEVIL=1").wrong();
    assert_eq!(
        wrong,
        "the model: expected a name without control characters"
    );
}

#[test]
fn an_api_that_no_client_speaks_is_refused() {
    let mut route = route("m");
    route.client.inference_api = "grpc".to_owned();
    let wrong = Ask::of("env").route(route).wrong();
    assert!(
        wrong.starts_with("the API: expected openai-completions, "),
        "{wrong}"
    );
}

#[test]
fn a_key_in_place_of_a_placeholder_is_refused_and_not_repeated() {
    let wrong = Ask::of("env")
        .route(route("kimi"))
        .with("api-key", "sk-canary")
        .wrong();
    assert!(
        wrong.contains("a key does not belong into a file"),
        "{wrong}"
    );
    assert!(!wrong.contains("canary"), "{wrong}");
}
