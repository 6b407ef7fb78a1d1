//! A listener over loopback: limits, a client that leaves, the drain.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test")]

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use farrier_serve::{
    BodyError, BoxError, Drained, Limits, Lingering, Listener, Peer, Tracker, read_body,
};
use farrier_testkit::RawClient;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Channel, Full};
use hyper::body::Incoming;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

type Reply = Response<UnsyncBoxBody<Bytes, BoxError>>;

/// A running listener; dropping `stop` drains it.
struct Running {
    addr: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Option<Drained>>,
    _background: Tracker,
}

async fn run<S, F>(limits: Limits, service: S) -> Running
where
    S: Fn(Peer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let listener = Listener::bind(&["127.0.0.1:0".parse().unwrap()])
        .await
        .unwrap();
    let addr = listener.addrs().next().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let background = Tracker::new();
    let ended = background.spawn(async move {
        let shutdown = async { drop(stopped.await) };
        listener
            .serve(service, limits, &Tracker::new(), shutdown)
            .await
    });
    Running {
        addr,
        stop,
        ended,
        _background: background,
    }
}

impl Running {
    async fn drain(self) -> Drained {
        drop(self.stop);
        timeout(Duration::from_secs(10), self.ended)
            .await
            .expect("drain ends")
            .unwrap()
            .unwrap()
    }
}

fn text(status: u16, body: impl Into<Bytes>) -> Reply {
    let body = Full::new(body.into()).map_err(Into::into).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}

async fn echo(_: Peer, request: Request<Incoming>) -> Reply {
    let mut body = request.into_body();
    match read_body(&mut body, 1 << 20, Duration::from_millis(200)).await {
        Ok(bytes) => text(200, bytes),
        Err(error @ BodyError::TooLarge { .. }) => {
            let body = Lingering::new(error.to_string().into(), body, Duration::from_secs(2));
            Response::builder()
                .status(413)
                .body(body.map_err(Into::into).boxed_unsync())
                .unwrap()
        }
        Err(error) => text(408, error.to_string()),
    }
}

/// Says on a channel that it was dropped.
struct Dropped(mpsc::UnboundedSender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.send(()).ok();
    }
}

async fn within_a_second<T>(step: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(1), step)
        .await
        .expect("happens within a second")
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request() {
    let server = run(Limits::default(), echo).await;
    let mut client = RawClient::connect(server.addr).await;
    for body in ["first", "second"] {
        client.post("/", body).await;
        assert_eq!(client.response().await.text(), body);
    }
    assert_eq!(server.drain().await, Drained { cut: 0 });
}

#[tokio::test]
async fn http_2_with_prior_knowledge_is_spoken_on_the_same_port() {
    let server = run(Limits::default(), echo).await;
    let stream = tokio::net::TcpStream::connect(server.addr).await.unwrap();
    let tasks = Tracker::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(tasks.clone(), io)
        .await
        .unwrap();
    let connection = tasks.spawn(connection);
    let request = Request::post("http://localhost/")
        .body(Full::new(Bytes::from_static(b"over h2")))
        .unwrap();
    let mut response = sender.send_request(request).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    let body = read_body(response.body_mut(), 100, Duration::from_secs(1))
        .await
        .unwrap();
    assert_eq!(body, "over h2");
    drop(sender);
    timeout(Duration::from_secs(5), connection)
        .await
        .unwrap()
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(server.drain().await, Drained { cut: 0 });
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_before_it_is_sent() {
    let server = run(Limits::default(), echo).await;
    let mut client = RawClient::connect(server.addr).await;
    client
        .send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 104857600\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status, 413);
    let text = String::from_utf8(client.chunk().await.unwrap()).unwrap();
    assert_eq!(
        text,
        "expected a body of at most 1048576 bytes, got a longer one"
    );
}

#[tokio::test]
async fn a_client_that_writes_all_of_a_refused_body_still_reads_the_answer() {
    let server = run(Limits::default(), echo).await;
    let mut client = RawClient::connect(server.addr).await;
    client
        .send("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    let megabyte = vec![b'x'; 1 << 20];
    for _ in 0..20 {
        client.send("100000\r\n").await;
        client.send(&megabyte).await;
        client.send("\r\n").await;
    }
    client.send("0\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status, response.whole), (413, true));
}

#[tokio::test]
async fn a_body_that_stops_arriving_times_out() {
    let server = run(Limits::default(), echo).await;
    let mut client = RawClient::connect(server.addr).await;
    client
        .send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    let response = client.response().await;
    assert_eq!(response.status, 408);
    assert_eq!(
        response.text(),
        "expected the whole body within 200ms, got only a part"
    );
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let server = run(
        Limits {
            header_read: Duration::from_millis(50),
            ..Limits::default()
        },
        echo,
    )
    .await;
    let mut client = RawClient::connect(server.addr).await;
    assert_eq!(client.closed().await, b"");
    let mut slow = RawClient::connect(server.addr).await;
    slow.send("GET / HTTP/1.1\r\nhost:").await;
    slow.closed().await;
}

#[tokio::test]
async fn a_head_beyond_the_limits_is_refused() {
    let server = run(
        Limits {
            max_header_bytes: 8192,
            max_headers: 10,
            ..Limits::default()
        },
        echo,
    )
    .await;
    let mut client = RawClient::connect(server.addr).await;
    client
        .request("GET /", &[("x-long", &"y".repeat(9000))], "")
        .await;
    assert_eq!(client.head().await.status, 431);
    let mut client = RawClient::connect(server.addr).await;
    client.request("GET /", &[("x-many", "y"); 11], "").await;
    assert_eq!(client.head().await.status, 431);
}

#[tokio::test]
async fn one_connection_beyond_the_limit_waits_for_another_to_close() {
    let server = run(
        Limits {
            max_connections: 1,
            ..Limits::default()
        },
        echo,
    )
    .await;
    let mut first = RawClient::connect(server.addr).await;
    first.post("/", "first").await;
    first.response().await;
    let mut second = RawClient::connect(server.addr).await;
    second.post("/", "second").await;
    let early = timeout(Duration::from_millis(100), second.response()).await;
    assert!(
        early.is_err(),
        "the second was served while the first was open"
    );
    drop(first);
    assert_eq!(within_a_second(second.response()).await.text(), "second");
}

#[tokio::test]
async fn a_client_that_leaves_while_waiting_drops_the_service() {
    let (dropped, mut was_dropped) = mpsc::unbounded_channel();
    let (asked, mut was_asked) = mpsc::unbounded_channel();
    let server = run(
        Limits::default(),
        move |_, mut request: Request<Incoming>| {
            let (guard, asked) = (Dropped(dropped.clone()), asked.clone());
            async move {
                let _guard = guard;
                read_body(request.body_mut(), 100, Duration::from_secs(1))
                    .await
                    .unwrap();
                asked.send(()).unwrap();
                pending().await
            }
        },
    )
    .await;
    let mut client = RawClient::connect(server.addr).await;
    client.post("/", "body").await;
    was_asked.recv().await.unwrap();
    drop(client);
    within_a_second(was_dropped.recv()).await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_mid_stream_drops_the_body() {
    let (body, mut was_dropped) = (Arc::new(Mutex::new(None)), mpsc::unbounded_channel());
    let (mut frames, channel) = Channel::<Bytes, Infallible>::new(1);
    let guard = Dropped(was_dropped.0.clone());
    let channel = channel.map_frame(move |frame| {
        let _held = &guard;
        frame
    });
    *body.lock().unwrap() = Some(channel.map_err(Into::into).boxed_unsync());
    let server = run(Limits::default(), move |_, _| {
        let body = body.lock().unwrap().take().unwrap();
        async move { Response::new(body) }
    })
    .await;
    let mut client = RawClient::connect(server.addr).await;
    client.get("/").await;
    frames.send_data(Bytes::from_static(b"one")).await.unwrap();
    client.head().await;
    assert_eq!(client.chunk().await.unwrap(), b"one");
    drop(client);
    within_a_second(was_dropped.1.recv()).await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let (dropped, mut was_dropped) = mpsc::unbounded_channel();
    let limits = Limits {
        write_stall: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = run(limits, move |_, _| {
        let guard = Dropped(dropped.clone());
        async move {
            let endless = Full::new(Bytes::from(vec![b'x'; 64 << 20])).map_frame(move |frame| {
                let _held = &guard;
                frame
            });
            Response::new(endless.map_err(Into::into).boxed_unsync())
        }
    })
    .await;
    let mut client = RawClient::connect(server.addr).await;
    client.get("/").await;
    timeout(Duration::from_secs(5), was_dropped.recv())
        .await
        .expect("the stalled reply is dropped")
        .unwrap();
}

#[tokio::test]
async fn what_is_in_flight_at_shutdown_finishes() {
    let (mut frames, channel) = Channel::<Bytes, Infallible>::new(1);
    let body = Arc::new(Mutex::new(Some(channel.map_err(Into::into).boxed_unsync())));
    let server = run(Limits::default(), move |_, _| {
        let body = body.lock().unwrap().take().unwrap();
        async move { Response::new(body) }
    })
    .await;
    let addr = server.addr;
    let mut client = RawClient::connect(addr).await;
    client.get("/").await;
    client.head().await;
    let drained = server.drain();
    let rest = async {
        frames
            .send_data(Bytes::from_static(b"last words"))
            .await
            .unwrap();
        assert_eq!(client.chunk().await.unwrap(), b"last words");
        drop(frames);
        assert_eq!(client.chunk().await.unwrap(), b"");
        assert_eq!(client.closed().await, b"");
        assert!(
            tokio::net::TcpStream::connect(addr).await.is_err(),
            "a draining listener accepts nothing new"
        );
    };
    let (drained, ()) = tokio::join!(drained, rest);
    assert_eq!(drained, Drained { cut: 0 });
}

#[tokio::test]
async fn what_is_in_flight_after_the_drain_deadline_is_cut_and_counted() {
    let (asked, mut was_asked) = mpsc::unbounded_channel();
    let limits = Limits {
        drain: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = run(limits, move |_, _| {
        asked.send(()).unwrap();
        pending()
    })
    .await;
    let mut client = RawClient::connect(server.addr).await;
    client.get("/").await;
    was_asked.recv().await.unwrap();
    assert_eq!(server.drain().await, Drained { cut: 1 });
    assert_eq!(client.closed().await, b"");
}
