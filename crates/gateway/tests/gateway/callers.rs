//! Who may call.

use farrier_gateway::config::{Client, Credential};
use farrier_secrets::Secret;
use farrier_testkit::ScriptedUpstream;

use crate::support::{PLAIN, Running, Setup, ask, error};

fn client_named(name: &str, key: &str) -> Client {
    Client::new(name, Secret::new(key.to_owned()).unwrap())
}

async fn status(gateway: &Running, headers: &[(&str, &str)]) -> (u16, String) {
    let mut client = gateway.client().await;
    client.request("GET /v1/models", headers, "").await;
    let response = client.response().await;
    let code = if response.status == 200 {
        String::new()
    } else {
        error(&response.text()).1
    };
    (response.status, code)
}

#[tokio::test]
async fn with_clients_configured_a_key_is_needed() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.clients = vec![client_named("a", "key-of-a"), client_named("b", "key-of-b")];
    let gateway = setup.run().await;
    assert_eq!(
        status(&gateway, &[]).await,
        (401, "client_key_missing".into())
    );
    assert_eq!(
        status(&gateway, &[("authorization", "Bearer wrong")]).await,
        (401, "client_key_unknown".into())
    );
    assert_eq!(
        status(&gateway, &[("authorization", "Basic key-of-a")]).await,
        (401, "client_key_missing".into())
    );
    for headers in [
        ("authorization", "Bearer key-of-a"),
        ("authorization", "bearer key-of-b"),
        ("x-api-key", "key-of-a"),
    ] {
        assert_eq!(status(&gateway, &[headers]).await.0, 200);
    }
    // A key may be used from anywhere: no page has it by accident.
    let elsewhere = [
        ("x-api-key", "key-of-a"),
        ("host", "gateway.example"),
        ("origin", "https://app.example"),
    ];
    assert_eq!(status(&gateway, &elsewhere).await.0, 200);
}

#[tokio::test]
async fn without_keys_the_request_must_be_made_to_this_machine() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.allowed_hosts = vec!["Gateway.Internal".to_owned()];
    let gateway = setup.run().await;
    let ours = [
        "localhost",
        "localhost:8484",
        "127.0.0.1:1",
        "[::1]:8484",
        "[::1]",
        "INFERENCE.local",
        "gateway.internal:80",
    ];
    for host in ours {
        assert_eq!(status(&gateway, &[("host", host)]).await.0, 200, "{host}");
    }
    for host in [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8484",
        "10.0.0.1",
        "",
    ] {
        assert_eq!(
            status(&gateway, &[("host", host)]).await,
            (403, "host_not_allowed".into()),
            "{host}"
        );
    }
    let mut client = gateway.client().await;
    client
        .request(
            "GET http://evil.example/v1/models",
            &[("host", "localhost")],
            "",
        )
        .await;
    assert_eq!(client.response().await.status, 403);
}

#[tokio::test]
async fn a_web_page_of_another_origin_cannot_spend_the_credential() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    for origin in [
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        "http://127.0.0.1@evil.example",
    ] {
        assert_eq!(
            status(&gateway, &[("origin", origin)]).await,
            (403, "origin_not_allowed".into()),
            "{origin}"
        );
    }
    for site in ["cross-site", "same-site"] {
        assert_eq!(
            status(&gateway, &[("sec-fetch-site", site)]).await,
            (403, "origin_not_allowed".into())
        );
    }
    for headers in [
        ("origin", "http://localhost:3000"),
        ("origin", "http://127.0.0.1"),
        ("sec-fetch-site", "none"),
    ] {
        assert_eq!(status(&gateway, &[headers]).await.0, 200, "{headers:?}");
    }
}

#[tokio::test]
async fn an_agent_s_name_is_plain() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    assert_eq!(
        status(&gateway, &[("x-farrier-agent", "openclaw")]).await.0,
        200
    );
    for name in ["", "two words", "\"", &"x".repeat(65)] {
        let refused = (400, "agent_name_malformed".to_owned());
        assert_eq!(
            status(&gateway, &[("x-farrier-agent", name)]).await,
            refused,
            "{name}"
        );
    }
}

#[tokio::test]
async fn the_provider_sees_its_credential_and_never_the_caller_s_key() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.clients = vec![client_named("a", "key-of-a")];
    setup.config.providers[0].credential = Some(Credential::bearer(
        Secret::new("sk-upstream".to_owned()).unwrap(),
    ));
    let gateway = setup.run().await;
    let mut client = gateway.client().await;
    for headers in [
        [("authorization", "Bearer key-of-a")],
        [("x-api-key", "key-of-a")],
    ] {
        client
            .request("POST /v1/chat/completions", &headers, ask(PLAIN))
            .await;
        let (mut peer, request) = upstream.recv().await;
        assert_eq!(
            request.headers.first("authorization"),
            Some("Bearer sk-upstream")
        );
        assert!(!format!("{request:?}").contains("key-of-a"));
        peer.reply("200 OK\r\nconnection: close", "").await;
        assert_eq!(client.response().await.status, 200);
    }
}

#[tokio::test]
async fn a_provider_may_want_its_credential_in_a_field_of_its_own() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    let secret = Secret::new("sk-upstream".to_owned()).unwrap();
    let header = http::HeaderName::from_static("api-key");
    setup.config.providers[0].credential = Some(Credential {
        header,
        prefix: String::new(),
        secret,
    });
    let gateway = setup.run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, request) = upstream.recv().await;
    assert_eq!(request.headers.first("api-key"), Some("sk-upstream"));
    assert_eq!(request.headers.first("authorization"), None);
    peer.reply("200 OK", "").await;
    assert_eq!(client.response().await.status, 200);
}
