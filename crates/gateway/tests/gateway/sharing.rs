//! Requests that share connections towards a provider of HTTP/2, and how these end.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use farrier_gateway::config::{Breaker, HttpVersion, Provider, Retry};
use farrier_serve::Tracker;
use farrier_testkit::{RawClient, ScriptedUpstream};
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::{KIMI, PLAIN, Running, Setup, ask, error, within_a_second};

/// A provider whose streams are answered by hand.
struct Peer {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    asked: mpsc::UnboundedReceiver<Stream>,
    _tasks: Tracker,
}

type Stream = (Request<RecvStream>, SendResponse<Bytes>);

impl Peer {
    /// One that announces how many streams it allows on a connection.
    async fn allowing(streams: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, asked) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let (tasks, count) = (Tracker::new(), Arc::clone(&connections));
        let others = tasks.clone();
        drop(tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                drop(others.spawn(serve(stream, streams, sender.clone())));
            }
        }));
        Self {
            addr,
            connections,
            asked,
            _tasks: tasks,
        }
    }

    async fn recv(&mut self) -> Stream {
        within_a_second(self.asked.recv()).await.unwrap()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Tells the test of each stream of a connection.
async fn serve(stream: TcpStream, streams: u32, sender: mpsc::UnboundedSender<Stream>) {
    let mut http = Builder::new();
    http.max_concurrent_streams(streams);
    let mut connection = http.handshake(stream).await.unwrap();
    while let Some(Ok(stream)) = connection.accept().await {
        sender.send(stream).unwrap();
    }
}

fn reply(stream: &mut SendResponse<Bytes>, text: &'static str) {
    let mut body = stream.send_response(Response::new(()), false).unwrap();
    body.send_data(Bytes::from_static(text.as_bytes()), true)
        .unwrap();
}

/// Both models on a provider of HTTP/2, which is asked once.
fn on(addr: SocketAddr) -> Setup {
    let mut provider = Provider::new("scripted", format!("http://{addr}/v1"));
    provider.http = HttpVersion::Http2;
    provider.care.retry = Retry::never();
    Setup::with(provider)
}

async fn asking(gateway: &Running) -> RawClient {
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    client
}

#[tokio::test]
async fn requests_beyond_what_a_connection_carries_travel_on_another() {
    let mut peer = Peer::allowing(2).await;
    let gateway = on(peer.addr).run().await;
    let mut clients = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..5 {
        clients.push(asking(&gateway).await);
        streams.push(peer.recv().await); // none is answered yet
    }
    assert_eq!(peer.connections(), 3);
    for (_, stream) in &mut streams {
        reply(stream, "heard");
    }
    for client in &mut clients {
        assert_eq!(client.response().await.text(), "heard");
    }
    // There is room again where there was before.
    let mut client = asking(&gateway).await;
    reply(&mut peer.recv().await.1, "heard");
    assert_eq!(client.response().await.text(), "heard");
    assert_eq!(peer.connections(), 3);
}

#[tokio::test]
async fn requests_that_come_together_share_the_connections_they_need() {
    let mut peer = Peer::allowing(4).await;
    let gateway = on(peer.addr).run().await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(asking(&gateway).await);
    }
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(peer.recv().await);
    }
    assert_eq!(peer.connections(), 5);
}

/// Sends for ever, and counts.
async fn flood(mut body: SendStream<Bytes>, sent: Arc<AtomicUsize>) {
    loop {
        body.reserve_capacity(16 * 1024);
        let Some(Ok(room)) = std::future::poll_fn(|cx| body.poll_capacity(cx)).await else {
            return;
        };
        if body
            .send_data(Bytes::from(vec![b'x'; room]), false)
            .is_err()
        {
            return;
        }
        sent.fetch_add(room, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn clients_that_do_not_read_hold_up_nobody_else_on_their_connection() {
    let mut peer = Peer::allowing(100).await;
    let gateway = on(peer.addr).run().await;
    let tasks = Tracker::new();
    let stream = TcpStream::connect(gateway.addr).await.unwrap();
    let mut http = hyper::client::conn::http2::Builder::new(tasks.clone());
    http.initial_stream_window_size(0); // nothing is ever taken
    let (mut slow, connection) = http.handshake(TokioIo::new(stream)).await.unwrap();
    drop(tasks.spawn(connection));
    let sent = Arc::new(AtomicUsize::new(0));
    let mut unread = Vec::new();
    for _ in 0..10 {
        let request = Request::post(format!("http://{}/v1/chat/completions", gateway.addr))
            .body(Full::new(Bytes::from(ask(PLAIN))))
            .unwrap();
        let reply = slow.send_request(request);
        let (_, mut stream) = peer.recv().await;
        let body = stream.send_response(Response::new(()), false).unwrap();
        unread.push(reply.await.unwrap());
        drop(tasks.spawn(flood(body, Arc::clone(&sent))));
    }
    let (mut before, mut still) = (0, 0);
    let mut client = gateway.client().await;
    // Until nothing more was sent to those during many exchanges with this one.
    while still < 50 {
        client.post("/v1/chat/completions", ask(PLAIN)).await;
        reply(&mut peer.recv().await.1, "heard");
        let response = timeout(Duration::from_secs(5), client.response()).await;
        assert_eq!(response.expect("it is not held up").text(), "heard");
        let now = sent.load(Ordering::SeqCst);
        still = if now == before { still + 1 } else { 0 };
        before = now;
    }
    assert!(before > 10 * 100_000, "{before} bytes are no flood");
    assert_eq!(peer.connections(), 1);
    tasks.cut();
}

#[tokio::test]
async fn a_stream_that_is_refused_is_asked_for_again_whatever_it_is() {
    for path in ["/v1/chat/completions", "/v1/responses"] {
        let mut peer = Peer::allowing(100).await;
        let gateway = on(peer.addr).run().await;
        let mut client = gateway.client().await;
        client.post(path, ask(PLAIN)).await;
        peer.recv().await.1.send_reset(Reason::REFUSED_STREAM);
        let (request, mut stream) = peer.recv().await;
        assert_eq!(request.uri().path(), path);
        reply(&mut stream, "heard");
        assert_eq!(client.response().await.text(), "heard");
    }
}

#[tokio::test]
async fn a_provider_that_refuses_again_and_again_is_left_in_peace() {
    let mut peer = Peer::allowing(100).await;
    let gateway = on(peer.addr).run().await;
    let mut client = asking(&gateway).await;
    for _ in 0..3 {
        peer.recv().await.1.send_reset(Reason::REFUSED_STREAM);
    }
    let response = client.response().await;
    let (_, code, _) = error(&response.text());
    assert_eq!((response.status, &*code), (502, "upstream_refused"));
    assert!(peer.asked.try_recv().is_err());
}

/// A connection whose frames (RFC 9113 §4) are written by hand: what no library would send, when none would.
struct Frames(TcpStream);

impl Frames {
    /// The next connection, its settings exchanged.
    async fn accept(listener: &TcpListener) -> Self {
        let (mut stream, _) = within_a_second(listener.accept()).await.unwrap();
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        let mut frames = Self(stream);
        frames.send(4, 0, 0, &[]).await; // SETTINGS: no limits
        frames
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u8, payload: &[u8]) {
        let length = u8::try_from(payload.len()).unwrap();
        let head = [0, 0, length, kind, flags, 0, 0, 0, stream];
        self.0.write_all(&head).await.unwrap();
        self.0.write_all(payload).await.unwrap();
    }

    /// Reads as far as the end of the request on `stream`.
    async fn recv(&mut self, stream: u8) {
        within_a_second(async {
            loop {
                let mut head = [0; 9];
                self.0.read_exact(&mut head).await.unwrap();
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; usize::try_from(length).unwrap()];
                self.0.read_exact(&mut payload).await.unwrap();
                let (kind, flags) = (head[3], head[4]);
                if kind <= 1 && flags & 1 == 1 && head[8] == stream {
                    return; // DATA or HEADERS, END_STREAM
                }
            }
        })
        .await;
    }

    /// A whole reply: `:status: 200` out of HPACK's static table, END_HEADERS and END_STREAM.
    async fn reply(&mut self, stream: u8) {
        self.send(1, 5, stream, &[0x88]).await;
    }

    /// Reads until the gateway has closed it.
    async fn closed(&mut self) {
        within_a_second(self.0.read_to_end(&mut Vec::new()))
            .await
            .unwrap();
    }

    /// GOAWAY without an error: nothing after the stream `last` was or will be looked at.
    async fn go_away(&mut self, last: u8) {
        self.send(7, 0, 0, &[0, 0, 0, last, 0, 0, 0, 0]).await;
    }
}

async fn listening() -> (TcpListener, Setup) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let setup = on(listener.local_addr().unwrap());
    (listener, setup)
}

/// Lets so much time pass for the gateway too.
async fn later(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn what_a_provider_that_goes_away_has_not_looked_at_is_sent_over_another_connection() {
    for path in ["/v1/chat/completions", "/v1/responses"] {
        let (listener, setup) = listening().await;
        let gateway = setup.run().await;
        let mut client = gateway.client().await;
        client.post(path, ask(PLAIN)).await;
        let mut first = Frames::accept(&listener).await;
        first.recv(1).await;
        first.reply(1).await;
        assert_eq!(client.response().await.status, 200);
        let mut looked_at = gateway.client().await;
        looked_at.post(path, ask(PLAIN)).await;
        first.recv(3).await;
        client.post(path, ask(PLAIN)).await;
        first.recv(5).await;
        first.go_away(3).await;
        let mut second = Frames::accept(&listener).await;
        second.recv(1).await;
        second.reply(1).await;
        assert_eq!(client.response().await.status, 200);
        first.reply(3).await;
        assert_eq!(looked_at.response().await.status, 200);
    }
}

#[tokio::test]
async fn a_shared_connection_that_the_provider_closes_costs_the_client_nothing() {
    let (listener, mut setup) = listening().await;
    setup.config.providers[0].care.retry = Retry::default();
    let gateway = setup.run().await;
    let mut client = asking(&gateway).await;
    let mut first = Frames::accept(&listener).await;
    first.recv(1).await;
    first.reply(1).await;
    assert_eq!(client.response().await.status, 200);
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    first.recv(3).await;
    drop(first);
    let mut second = Frames::accept(&listener).await;
    second.recv(1).await;
    second.reply(1).await;
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn a_shared_connection_that_the_provider_closed_meanwhile_is_not_used() {
    for says_so in [true, false] {
        let (listener, setup) = listening().await;
        let gateway = setup.run().await;
        let mut client = gateway.client().await;
        for _ in 0..3 {
            client.post("/v1/chat/completions", ask(PLAIN)).await;
            let mut connection = Frames::accept(&listener).await;
            connection.recv(1).await;
            connection.reply(1).await;
            assert_eq!(client.response().await.status, 200);
            if says_so {
                connection.go_away(1).await;
                connection.closed().await;
            } else {
                drop(connection);
            }
            // By the time another request is answered, the gateway has heard of it.
            gateway.metrics().await;
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_lost_with_many_requests_is_one_failure() {
    let (listener, mut setup) = listening().await;
    setup.config.providers[0].care.breaker = Some(Breaker {
        failures: NonZeroU32::new(2).unwrap(),
        cool_down: Duration::from_secs(60),
    });
    let gateway = setup.run().await;
    let mut clients = vec![asking(&gateway).await];
    let mut first = Frames::accept(&listener).await;
    first.recv(1).await;
    for stream in [3, 5, 7] {
        clients.push(asking(&gateway).await);
        first.recv(stream).await;
    }
    later(Duration::from_secs(3)).await; // so that it was no close that crossed them on the way
    drop(first);
    for client in &mut clients {
        let response = client.response().await;
        let (_, code, _) = error(&response.text());
        assert_eq!((response.status, &*code), (502, "upstream_closed"));
    }
    let mut client = asking(&gateway).await;
    let mut second = Frames::accept(&listener).await;
    second.recv(1).await;
    second.reply(1).await;
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn a_provider_without_http_2_is_told_apart_from_one_that_is_gone() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = on(upstream.addr()).run().await;
    let mut client = asking(&gateway).await;
    let mut peer = upstream.accept().await;
    peer.send("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let (_, code, _) = error(&client.response().await.text());
    assert_eq!(code, "upstream_not_http");
    let mut client = asking(&gateway).await;
    drop(upstream.accept().await);
    let (_, code, _) = error(&client.response().await.text());
    assert_eq!(code, "upstream_closed");
}

#[tokio::test]
async fn a_kept_connection_that_closes_late_has_had_the_request() {
    let upstream = ScriptedUpstream::bind().await;
    let gateway = Setup::on(&upstream).run().await;
    let mut client = asking(&gateway).await;
    let (mut peer, _) = upstream.recv().await;
    peer.reply("200 OK", "{}").await;
    assert_eq!(client.response().await.status, 200);
    client.post("/v1/chat/completions", ask(PLAIN)).await;
    peer.recv().await;
    later(Duration::from_secs(60)).await;
    drop(peer);
    let response = client.response().await;
    let (_, code, _) = error(&response.text());
    assert_eq!((response.status, &*code), (502, "upstream_closed"));
}

#[tokio::test]
async fn a_reply_that_is_read_whole_has_the_deadline_of_all_replies() {
    let upstream = ScriptedUpstream::bind().await;
    let mut setup = Setup::on(&upstream);
    setup.config.deadlines.reply = Duration::from_millis(300);
    let gateway = setup.run().await;
    let mut client = gateway.client().await;
    client.post("/v1/chat/completions", ask(KIMI)).await;
    let (mut peer, _) = upstream.recv().await;
    peer.send(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
    )
    .await;
    peer.send_chunk("\n").await;
    let response = client.response().await;
    let (_, code, message) = error(&response.text());
    assert_eq!((response.status, &*code), (504, "upstream_reply_timeout"));
    assert!(message.contains("reply deadline"), "{message}");
    assert_eq!(within_a_second(peer.closed()).await, b"");
}
