//! HTTP/2 on both sides.

use std::time::Duration;

use bytes::Bytes;
use farrier_gateway::config::{HttpVersion, Provider};
use farrier_serve::{Limits, Listener, Peer, Tracker, read_body};
use farrier_testkit::ScriptedUpstream;
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::TokioIo;

use crate::support::{PLAIN, Running, Setup, ask};

async fn h2_client(gateway: &Running, tasks: &Tracker) -> SendRequest<Full<Bytes>> {
    let stream = tokio::net::TcpStream::connect(gateway.addr).await.unwrap();
    let (sender, connection) = handshake(tasks.clone(), TokioIo::new(stream))
        .await
        .unwrap();
    drop(tasks.spawn(connection));
    sender
}

fn request(gateway: &Running) -> Request<Full<Bytes>> {
    let uri = format!("http://{}/v1/chat/completions", gateway.addr);
    Request::post(uri)
        .body(Full::new(ask(PLAIN).into()))
        .unwrap()
}

#[tokio::test]
async fn a_client_may_speak_http_2_with_prior_knowledge() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let tasks = Tracker::new();
    let mut sender = h2_client(&gateway, &tasks).await;
    let script = async {
        let (mut peer, request) = upstream.recv().await;
        assert_eq!(request.line, "POST /v1/chat/completions HTTP/1.1");
        assert_eq!(
            request.headers.first("host"),
            Some(upstream.addr().to_string().as_str())
        );
        peer.reply(
            "200 OK\r\nx-request-id: r1\r\nkeep-alive: timeout=5",
            "over h2",
        )
        .await;
    };
    let (response, ()) = tokio::join!(sender.send_request(request(&gateway)), script);
    let mut response = response.unwrap();
    assert_eq!(
        (response.version(), response.status().as_u16()),
        (Version::HTTP_2, 200)
    );
    assert_eq!(response.headers()["x-request-id"], "r1");
    let body = read_body(response.body_mut(), 100, Duration::from_secs(5))
        .await
        .unwrap();
    assert_eq!(body, "over h2");
}

#[tokio::test]
async fn an_http_2_client_that_resets_its_stream_cancels_the_provider() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let tasks = Tracker::new();
    let mut sender = h2_client(&gateway, &tasks).await;
    let asked = sender.send_request(request(&gateway));
    let script = async {
        let (peer, _) = upstream.recv().await;
        peer
    };
    let mut peer = tokio::select! {
        _ = asked => panic!("nothing was answered"),
        peer = script => peer,
    };
    assert_eq!(crate::support::within_a_second(peer.closed()).await, b"");
}

async fn say_version(_: Peer, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let version = format!("{:?} {}", request.version(), request.uri());
    let mut body = request.into_body();
    read_body(&mut body, 1000, Duration::from_secs(5))
        .await
        .unwrap();
    Response::new(Full::new(version.into()))
}

#[tokio::test]
async fn a_provider_may_speak_http_2_with_prior_knowledge() {
    let listener = Listener::bind(&["127.0.0.1:0".parse().unwrap()])
        .await
        .unwrap();
    let addr = listener.addrs().next().unwrap();
    let tasks = Tracker::new();
    let serving = tasks.clone();
    drop(tasks.spawn(async move {
        let never = std::future::pending();
        listener
            .serve(say_version, Limits::default(), &serving, never)
            .await
    }));
    for (version, expected) in [
        (HttpVersion::Http2, "HTTP/2.0"),
        (HttpVersion::Auto, "HTTP/1.1"),
        (HttpVersion::Http1, "HTTP/1.1"),
    ] {
        let mut provider = Provider::new("h2", format!("http://{addr}/v1"));
        provider.http = version;
        let gateway = Setup::with(provider).run().await;
        let mut client = gateway.client().await;
        client.post("/v1/chat/completions", ask(PLAIN)).await;
        let response = client.response().await;
        assert!(
            response.text().starts_with(expected),
            "{} for {version:?}",
            response.text()
        );
    }
    tasks.cut();
}
