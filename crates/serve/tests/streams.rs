//! Clients that speak HTTP/2: what they do not take, and connections on which they ask nothing.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test")]

use std::future::{pending, ready};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use farrier_serve::{BoxError, Limits, Listener, Peer, Tracker, read_body};
use farrier_testkit::RawClient;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

type Reply = Response<UnsyncBoxBody<Bytes, BoxError>>;

/// Listeners at as many addresses, until the tracker is cut.
async fn run<S, F>(listeners: usize, limits: Limits, service: S) -> (Vec<SocketAddr>, Tracker)
where
    S: Fn(Peer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let any = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind(&vec![any; listeners]).await.unwrap();
    let addrs = listener.addrs().collect();
    let tasks = Tracker::new();
    drop(tasks.spawn(async move {
        listener
            .serve(service, limits, &Tracker::new(), pending())
            .await
    }));
    (addrs, tasks)
}

fn say(text: impl Into<Bytes>) -> Reply {
    Response::new(Full::new(text.into()).map_err(Into::into).boxed_unsync())
}

/// A client that grants each reply so much, and its connection, which answers pings.
async fn h2_client(
    addr: SocketAddr,
    window: u32,
    tasks: &Tracker,
) -> (SendRequest<Empty<Bytes>>, JoinHandle<Option<()>>) {
    let stream = TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap(); // pings are answered at once
    let mut http = Builder::new(tasks.clone());
    http.initial_stream_window_size(window);
    let (sender, connection) = http.handshake(TokioIo::new(stream)).await.unwrap();
    let driven = tasks.spawn(async move { connection.await.unwrap_or_default() });
    (sender, driven)
}

fn request() -> Request<Empty<Bytes>> {
    let request = Request::get("http://localhost/");
    request.body(Empty::new()).unwrap()
}

async fn soon<T>(step: impl Future<Output = T>) -> T {
    let soon = timeout(Duration::from_secs(5), step);
    soon.await.expect("happens within seconds")
}

/// Says on a channel that it was dropped.
struct Dropped(mpsc::UnboundedSender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.send(()).ok();
    }
}

const WINDOW: u32 = 65_535;

#[tokio::test]
async fn a_reply_that_is_granted_no_window_is_dropped_and_its_stream_reset() {
    let (dropped, mut was_dropped) = mpsc::unbounded_channel();
    let limits = Limits {
        write_stall: Duration::from_millis(50),
        ..Limits::default()
    };
    let service = move |_, _| {
        let guard = Dropped(dropped.clone());
        async move {
            let guarded = Full::new(Bytes::from_static(b"untaken")).map_frame(move |frame| {
                let _held = &guard;
                frame
            });
            Response::new(guarded.map_err(Into::into).boxed_unsync())
        }
    };
    let (addrs, _tasks) = run(1, limits, service).await;
    let tasks = Tracker::new();
    let (mut sender, _connection) = h2_client(addrs[0], 0, &tasks).await;
    let mut reply = sender.send_request(request()).await.unwrap();
    soon(was_dropped.recv()).await.unwrap();
    let frame = soon(reply.body_mut().frame()).await;
    assert!(frame.unwrap().is_err(), "the stream is reset");
}

#[tokio::test]
async fn a_large_reply_that_is_not_taken_on_is_dropped_where_it_stopped() {
    let limits = Limits {
        write_stall: Duration::from_millis(50),
        ..Limits::default()
    };
    let (addrs, _tasks) = run(1, limits, |_, _| ready(say(vec![b'x'; 8 << 20]))).await;
    let tasks = Tracker::new();
    let (mut sender, _connection) = h2_client(addrs[0], WINDOW, &tasks).await;
    let mut reply = sender.send_request(request()).await.unwrap();
    let mut read = 0;
    let mut held = Vec::new(); // what is not let go of is not granted again
    loop {
        match soon(reply.body_mut().frame()).await.unwrap() {
            Ok(frame) => {
                read += frame.data_ref().unwrap().len();
                held.push(frame);
            }
            Err(_) => break,
        }
        if read >= 32 * 1024 {
            // Nothing more is asked for until the stream is gone.
            soon(sender_closed(&mut sender)).await;
        }
    }
    assert!(read < 8 << 20);
}

/// Another request on the connection has its whole reply meanwhile, if it is read.
async fn sender_closed(sender: &mut SendRequest<Empty<Bytes>>) {
    let mut other = sender.send_request(request()).await.unwrap();
    let body = read_body(other.body_mut(), 8 << 20, Duration::from_secs(5));
    assert_eq!(body.await.unwrap().len(), 8 << 20);
}

#[tokio::test]
async fn a_connection_without_streams_is_closed_although_it_answers_pings() {
    let limits = Limits {
        header_read: Duration::from_millis(50),
        ..Limits::default()
    };
    let (addrs, _tasks) = run(1, limits, |_, _| ready(say("heard"))).await;
    let tasks = Tracker::new();
    let (mut sender, connection) = h2_client(addrs[0], WINDOW, &tasks).await;
    let mut reply = sender.send_request(request()).await.unwrap();
    let body = read_body(reply.body_mut(), 100, Duration::from_secs(1)).await;
    assert_eq!(body.unwrap(), "heard");
    soon(connection).await.unwrap();
    drop(sender);
}

#[tokio::test]
async fn a_connection_with_a_stream_stays_however_long_that_takes() {
    let (finish, finished) = tokio::sync::watch::channel(false);
    let limits = Limits {
        header_read: Duration::from_millis(200),
        ..Limits::default()
    };
    let service = move |_, _| {
        let mut finished = finished.clone();
        async move {
            finished.wait_for(|&finished| finished).await.unwrap();
            say("at last")
        }
    };
    let (addrs, _tasks) = run(1, limits, service).await;
    let tasks = Tracker::new();
    let (mut sender, mut connection) = h2_client(addrs[0], WINDOW, &tasks).await;
    let reply = tasks.spawn(sender.send_request(request()));
    let ended = timeout(Duration::from_millis(700), &mut connection).await;
    assert!(ended.is_err(), "it was closed over an open stream");
    finish.send(true).unwrap();
    let mut reply = soon(reply).await.unwrap().unwrap().unwrap();
    let body = read_body(reply.body_mut(), 100, Duration::from_secs(1)).await;
    assert_eq!(body.unwrap(), "at last");
    soon(connection).await.unwrap();
}

#[tokio::test]
async fn with_a_single_place_every_listener_is_served() {
    let limits = Limits {
        max_connections: 1,
        ..Limits::default()
    };
    let (addrs, _tasks) = run(3, limits, |peer, _| ready(say(peer.listener.to_string()))).await;
    for _ in 0..2 {
        for &addr in &addrs {
            let mut client = RawClient::connect(addr).await;
            client.get("/").await;
            assert_eq!(soon(client.response()).await.text(), addr.to_string());
        }
    }
}

#[tokio::test]
async fn as_many_connections_as_can_be_named_are_no_fault() {
    let limits = Limits {
        max_connections: usize::MAX,
        ..Limits::default()
    };
    let (addrs, _tasks) = run(1, limits, |_, _| ready(say("heard"))).await;
    let mut client = RawClient::connect(addrs[0]).await;
    client.get("/").await;
    assert_eq!(client.response().await.text(), "heard");
}
