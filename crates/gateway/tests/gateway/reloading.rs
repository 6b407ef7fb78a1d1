//! Another configuration, while requests are under way.

use std::net::SocketAddr;
use std::sync::Arc;

use farrier_compat::registry::Registry;
use farrier_gateway::config::{Client, Config, Credential, Mistake, Provider, Route, TraceConfig};
use farrier_gateway::{ReloadError, Reloaded, StartError};
use farrier_ledger::{Embedded, EmbeddedConfig};
use farrier_secrets::Secret;
use farrier_testkit::ScriptedUpstream;

use crate::support::{KIMI, PLAIN, Running, Setup, ask, error, event};

/// A configuration with one route for `model`, over the ledger that runs.
fn config(running: &Running, model: &str, provider: Provider) -> Config {
    let ledger = running.reloader.ledger().unwrap();
    let mut config = Config::new(Arc::new(Registry::shipped().unwrap()), ledger);
    config.routes.push(Route::new(model, &provider.name));
    config.providers.push(provider);
    config
}

fn provider(upstream: &ScriptedUpstream) -> Provider {
    Provider::new("scripted", upstream.base_url())
}

fn keyed(upstream: &ScriptedUpstream, key: &str) -> Provider {
    Provider {
        credential: Some(Credential::bearer(Secret::new(key.to_owned()).unwrap())),
        ..provider(upstream)
    }
}

fn nothing_special() -> Reloaded {
    Reloaded {
        needs_restart: Vec::new(),
        reconnected: Vec::new(),
    }
}

/// The status of a request for `model` that the provider is not needed for.
async fn refusal(gateway: &Running, model: &str) -> (u16, String) {
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(model)).await;
    let response = client.response().await;
    let (_, code, _) = error(&response.text());
    (response.status, code)
}

#[tokio::test]
async fn a_stream_goes_on_under_the_old_configuration_while_new_requests_have_the_new_one() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut streaming = gateway.client().await;
    streaming.post("/v1/chat/completions", ask(KIMI)).await;
    let (mut old, _) = upstream.recv().await;
    old.start_stream().await;
    let first = event("{\"content\":\"one\"}", None);
    old.send_chunk(&first).await;
    streaming.head().await;
    assert_eq!(streaming.chunk().await.unwrap(), first.as_bytes());

    // The model that streams is no longer served, and neither is its provider.
    let other = ScriptedUpstream::bind().await;
    let elsewhere = Provider::new("other", other.base_url());
    let reloaded = gateway
        .reloader
        .reload(config(&gateway, "new", elsewhere))
        .unwrap();
    assert_eq!(reloaded, nothing_special());

    assert_eq!(
        refusal(&gateway, KIMI).await,
        (404, "model_not_found".to_owned())
    );
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask("new")).await;
    let (mut new, request) = other.recv().await;
    assert_eq!(request.text(), ask("new"));
    new.reply("200 OK", "{}").await;
    assert_eq!(client.response().await.status, 200);

    let last = event("{\"content\":\"two\"}", Some("stop"));
    old.send_chunk(&last).await;
    old.send_chunk("data: [DONE]\n\n").await;
    old.end_chunks().await;
    let mut rest = Vec::new();
    loop {
        let chunk = streaming
            .chunk()
            .await
            .expect("the stream ends as it should");
        if chunk.is_empty() {
            break;
        }
        rest.extend(chunk);
    }
    assert_eq!(rest, [last.as_bytes(), b"data: [DONE]\n\n"].concat());
}

#[tokio::test]
async fn one_that_cannot_work_changes_nothing_and_says_everything_that_is_wrong() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut wrong = config(&gateway, "new", provider(&upstream));
    wrong.routes[0].provider = "scriptet".to_owned();
    wrong.default_provider = Some("nobody".to_owned());
    let refused = gateway.reloader.reload(wrong).unwrap_err();
    let ReloadError::Refused(StartError::Config(mistakes)) = refused else {
        panic!("{refused}");
    };
    assert!(
        matches!(
            mistakes.0[..],
            [
                Mistake::DefaultProviderUnknown { .. },
                Mistake::RouteProviderUnknown { .. }
            ]
        ),
        "{mistakes}"
    );
    assert_eq!(
        refusal(&gateway, "new").await,
        (404, "model_not_found".to_owned())
    );
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.reply("200 OK", "{}").await;
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn connections_to_a_provider_that_stays_the_same_are_kept() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.reply("200 OK", "{}").await;
    client.response().await;
    let reloaded = gateway
        .reloader
        .reload(config(&gateway, "new", provider(&upstream)))
        .unwrap();
    assert_eq!(reloaded, nothing_special());
    client.post("/v1/chat/completions", ask("new")).await;
    assert_eq!(peer.recv().await.text(), ask("new"), "the same connection");
    peer.reply("200 OK", "{}").await;
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn a_rotated_credential_is_what_the_next_request_carries() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::with(keyed(&upstream, "sk-first")).run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let (mut peer, request) = upstream.recv().await;
    assert_eq!(
        request.headers.first("authorization"),
        Some("Bearer sk-first")
    );
    peer.reply("200 OK", "{}").await;
    client.response().await;
    let rotated = config(&gateway, PLAIN, keyed(&upstream, "sk-second"));
    let reloaded = gateway.reloader.reload(rotated).unwrap();
    assert_eq!(reloaded, nothing_special(), "the connection stays");
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    let request = peer.recv().await;
    assert_eq!(
        request.headers.first("authorization"),
        Some("Bearer sk-second")
    );
    peer.reply("200 OK", "{}").await;
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn what_only_a_restart_changes_is_named_and_stays() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join("ledger/turns.db");
    let mut other = config(&gateway, "new", provider(&upstream));
    other.ledger = Arc::new(Embedded::open(EmbeddedConfig::new(path)).unwrap());
    other.listen = vec![SocketAddr::from(([127, 0, 0, 1], 1))];
    other.limits.listener.max_connections += 1;
    let before = gateway.reloader.ledger().unwrap();
    let reloaded = gateway.reloader.reload(other).unwrap();
    assert_eq!(reloaded.needs_restart, ["listen", "limits", "ledger"]);
    assert!(Arc::ptr_eq(&before, &gateway.reloader.ledger().unwrap()));
    let mut client = gateway.client().await;
    client.get("/v1/models/new").await;
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn a_gateway_that_others_reach_is_not_opened_by_a_file_that_speaks_of_loopback() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.listen = vec![SocketAddr::from(([0, 0, 0, 0], 0))];
    let key = Secret::new("a-client-key".to_owned()).unwrap();
    setup.config.clients.push(Client::new("laptop", key));
    let mut gateway = setup.run().await;
    gateway.addr.set_ip([127, 0, 0, 1].into());
    let keyless = config(&gateway, PLAIN, provider(&upstream));
    assert!(keyless.listen.iter().all(|addr| addr.ip().is_loopback()));
    let refused = gateway.reloader.reload(keyless).unwrap_err();
    assert!(
        refused.to_string().contains("expected clients with keys"),
        "{refused}"
    );
    assert_eq!(
        refusal(&gateway, PLAIN).await,
        (401, "client_key_missing".to_owned())
    );
}

#[tokio::test]
async fn transcripts_go_on_where_they_were_and_begin_where_they_are_wanted_anew() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    let folder = setup.dir.path().join("first");
    setup.config.trace = Some(TraceConfig::new(&folder));
    let second = setup.dir.path().join("second");
    let dir = setup.dir;
    let gateway = Running::start(setup.config).await;
    for trace in [&folder, &second] {
        let mut same = config(&gateway, PLAIN, provider(&upstream));
        same.trace = Some(TraceConfig::new(trace));
        gateway.reloader.reload(same).unwrap();
        let mut client = gateway.client().await;
        client.post("/v1/chat/completions", ask(PLAIN)).await;
        let mut peer = upstream.recv().await.0;
        peer.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")
            .await;
        client.response().await;
    }
    gateway.drain().await;
    let count = |name: &str| dir.path().join(name).read_dir().unwrap().count();
    assert_eq!((count("first"), count("second")), (1, 1));
}

#[tokio::test]
async fn a_gateway_that_has_ended_has_nothing_to_reload() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let late = config(&gateway, PLAIN, provider(&upstream));
    let reloader = gateway.reloader.clone();
    gateway.drain().await;
    assert!(matches!(reloader.reload(late), Err(ReloadError::Ended)));
    assert!(reloader.ledger().is_none());
}
