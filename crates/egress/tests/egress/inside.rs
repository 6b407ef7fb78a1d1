//! What comes from within a sandbox's own network, and does not know of a proxy.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;

use bytes::Bytes;
use farrier_egress::audit::Verdict;
use farrier_egress::{Inside, LocalServices, LocalStream};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UdpSocket};

use crate::support::{Bench, CANARY, HOST, PLACEHOLDER, Setting, read_out, tls_over};

/// One machine whose requests are judged, one that nobody looks into, and one address.
const POLICY: &str = r#"
version: 1
network_policies:
  api:
    endpoints:
      - host: api.example.com
        port: PORT
        protocol: rest
        allowed_ips: [127.0.0.0/8]
        rules:
          - allow: { method: GET, path: "/v1/**" }
  other:
    endpoints:
      - { host: other.example.com, port: PORT, allowed_ips: [127.0.0.0/8] }
"#;
const INFERENCE: &str = "inference.local";

/// A listener that everything for the destination's port comes to, as far as this machine's own addresses go.
fn captured(port: u16) -> Inside {
    Inside {
        captured: vec![bound([127, 0, 0, 2].into(), port)],
        local: local(),
        ..Inside::default()
    }
}

fn bound(address: Ipv4Addr, port: u16) -> std::net::TcpListener {
    std::net::TcpListener::bind(SocketAddr::new(address.into(), port)).unwrap()
}

fn setting() -> Setting {
    Setting {
        policy: POLICY,
        inside: captured,
        ..Setting::default()
    }
}

/// Answers with what it was asked.
fn local() -> LocalServices {
    async fn told(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let host = request.headers().get("host");
        let told = format!(
            "local {} {:?} {:?} {:?}",
            request.uri().path(),
            host,
            request.headers().get("proxy-authorization"),
            request.version()
        );
        Ok(Response::new(Full::from(told)))
    }
    let serve = |stream: LocalStream| async move {
        let server = auto::Builder::new(farrier_serve::Tracker::new());
        let _ended = server
            .serve_connection(TokioIo::new(stream), service_fn(told))
            .await;
    };
    LocalServices::new().with(INFERENCE, serve).unwrap()
}

async fn connected(bench: &Bench) -> TcpStream {
    TcpStream::connect(("127.0.0.2", bench.destination.port))
        .await
        .unwrap()
}

async fn said(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    text: &str,
) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    read_out(&mut stream).await
}

fn get(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {PLACEHOLDER}\r\n\r\n")
}

#[tokio::test]
async fn a_captured_handshake_is_judged_by_the_name_in_it_and_its_requests_get_their_key() {
    let bench = Bench::with(setting()).await;
    let stream = tls_over(connected(&bench).await, &bench.own_ca(), HOST, b"http/1.1").await;
    let answer = said(stream.unwrap(), &get("/v1/models", HOST)).await;
    assert!(answer.ends_with("hello"), "{answer}");
    let seen = bench.destination.seen();
    assert_eq!(seen[0].headers["authorization"], format!("Bearer {CANARY}"));
    assert_eq!(seen[0].authority, bench.authority());
    let stream = tls_over(connected(&bench).await, &bench.own_ca(), HOST, b"http/1.1").await;
    let answer = said(stream.unwrap(), &get("/other", HOST)).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert_eq!(bench.destination.seen().len(), 1);
}

#[tokio::test]
async fn a_captured_handshake_that_nobody_looks_into_reaches_the_destination_itself() {
    let bench = Bench::with(setting()).await;
    let other = "other.example.com";
    let stream = connected(&bench).await;
    let stream = tls_over(stream, &bench.destination.ca_pem, other, b"http/1.1").await;
    let answer = said(stream.unwrap(), &get("/any", other)).await;
    assert!(answer.ends_with("hello"), "{answer}");
    let seen = bench.destination.seen();
    assert_eq!(
        seen[0].headers["authorization"],
        format!("Bearer {PLACEHOLDER}")
    );
    let lines = bench.lines(1).await;
    assert_eq!(
        (lines[0].kind.as_str(), lines[0].to.as_str()),
        (
            "tunnel",
            format!("{other}:{}", bench.destination.port).as_str()
        )
    );
}

#[tokio::test]
async fn a_captured_connection_that_no_rule_allows_is_told_why_in_what_it_speaks() {
    let bench = Bench::with(setting()).await;
    let stream = connected(&bench).await;
    let stream = tls_over(stream, &bench.own_ca(), "refused.test", b"http/1.1").await;
    let answer = said(stream.unwrap(), &get("/", "refused.test")).await;
    assert!(answer.contains("policy_denied"), "{answer}");
    let answer = said(connected(&bench).await, &get("/", "refused.test")).await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("policy_denied"),
        "{answer}"
    );
    // Neither: closed, and recorded by the address.
    assert_eq!(
        said(connected(&bench).await, "SSH-2.0-OpenSSH_9.2\r\n").await,
        ""
    );
    // A client that does not trust us hears nothing, and is recorded as what it was refused for.
    let stream = connected(&bench).await;
    let unbelieving = tls_over(
        stream,
        &bench.destination.ca_pem,
        "pinned.test",
        b"http/1.1",
    )
    .await;
    assert!(unbelieving.is_err());
    let lines = bench.lines(4).await;
    let denied: Vec<_> = lines
        .iter()
        .map(|line| (line.to.as_str(), line.code.as_deref(), line.verdict))
        .collect();
    let port = bench.destination.port;
    for to in [
        format!("https://refused.test:{port}"),
        format!("http://refused.test:{port}"),
        format!("127.0.0.2:{port}"),
        format!("pinned.test:{port}"),
    ] {
        let expected = (to.as_str(), Some("policy_denied"), Verdict::Denied);
        assert!(denied.contains(&expected), "{to} {denied:?}");
    }
    assert!(bench.destination.seen().is_empty());
}

#[tokio::test]
async fn a_captured_request_in_the_clear_is_judged_by_its_host_at_the_port_it_came_to() {
    let bench = Bench::with(setting()).await;
    let plain = |host: &str| format!("GET /v1/x HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let answer = said(connected(&bench).await, &plain(&bench.authority())).await;
    assert!(answer.ends_with("hello"), "{answer}");
    let answer = said(connected(&bench).await, &plain("api.example.com:1")).await;
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    let answer = said(connected(&bench).await, &plain("[::1]")).await;
    assert!(answer.contains("policy_denied"), "{answer}");
    let connect = "CONNECT api.example.com:443 HTTP/1.1\r\nhost: api.example.com:443\r\n\r\n";
    let answer = said(connected(&bench).await, connect).await;
    assert_eq!(answer, "", "only a proxy is asked for tunnels");
    assert_eq!(bench.destination.seen().len(), 1);
}

#[tokio::test]
async fn a_name_of_ours_is_answered_without_a_rule_however_a_client_gets_there() {
    let bench = Bench::with(setting()).await;
    let tunnel = bench.tunnel("inference.local:443").await.unwrap();
    let stream = tls_over(tunnel, &bench.own_ca(), INFERENCE, b"http/1.1").await;
    let answer = said(stream.unwrap(), &get("/v1/models", INFERENCE)).await;
    assert!(answer.contains("local /v1/models"), "{answer}");
    let tunnel = bench.tunnel("inference.local:443").await.unwrap();
    let stream = tls_over(tunnel, &bench.own_ca(), INFERENCE, b"h2").await;
    assert_eq!(
        stream.unwrap().get_ref().1.alpn_protocol(),
        Some(&b"h2"[..])
    );
    let tunnel = bench.tunnel("inference.local:80").await.unwrap();
    let answer = said(tunnel, &get("/v1/models", INFERENCE)).await;
    assert!(answer.contains("local /v1/models"), "{answer}");
    let absolute = "GET http://inference.local/v1/a?b=c HTTP/1.1\r\nhost: inference.local\r\n\
                    proxy-authorization: Basic eDp5\r\n\r\n";
    let answer = bench.raw(absolute.as_bytes()).await;
    assert!(
        answer.contains("local /v1/a Some(\"inference.local\") None HTTP/1.1"),
        "{answer}"
    );
    let lines = bench.lines(7).await;
    let local: Vec<_> = lines.iter().filter(|line| line.kind == "local").collect();
    assert_eq!(local.len(), 4, "{lines:?}");
    let line = |line: &&farrier_egress::audit::Line| {
        line.verdict == Verdict::Allowed && line.to.starts_with("inference.local")
    };
    assert!(
        local
            .iter()
            .all(|one| line(one) || one.to == "http://inference.local")
    );
    let moved = local.iter().filter(|line| line.bytes_down > 0).count();
    assert!(moved >= 3, "{lines:?}");
}

#[tokio::test]
async fn a_name_of_ours_is_none_at_other_ports_and_nobody_else_speaks_for_it() {
    let bench = Bench::with(setting()).await;
    let refused = bench.tunnel("inference.local:8443").await.unwrap_err();
    assert!(refused.contains("policy_denied"), "{refused}");
    let tunnel = bench.tunnel("inference.local:443").await.unwrap();
    let other = tls_over(tunnel, &bench.own_ca(), HOST, b"http/1.1").await;
    assert!(other.is_err());
    let tunnel = bench.tunnel("inference.local:80").await.unwrap();
    let answer = said(tunnel, &get("/v1/models", HOST)).await;
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    let answer = said(connected(&bench).await, &get("/", INFERENCE)).await;
    assert!(answer.contains("policy_denied"), "{answer}");
}

/// The same test program once more, in a network of its own in which every address is its own.
#[tokio::test]
async fn programs_that_know_of_no_proxy_reach_by_name_what_the_policy_allows() {
    let script = "ip link set lo up && ip route add local default dev lo && exec \"$0\" \"$@\"";
    let mut inside = tokio::process::Command::new("unshare");
    inside
        .args(["--user", "--map-root-user", "--net", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "inside::within", "--ignored", "--nocapture"])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = inside.output().await.unwrap();
    let told = String::from_utf8_lossy(&ended.stdout);
    assert!(
        ended.status.success() && told.contains("1 passed"),
        "expected a network of its own (unshare of util-linux, ip of iproute2, unprivileged user namespaces), got \
         {told}{}",
        String::from_utf8_lossy(&ended.stderr)
    );
}

/// What stands for a name, which follows from the name.
const NAMES: [&str; 4] = [HOST, "other.example.com", INFERENCE, "refused.test"];

#[tokio::test]
#[ignore = "run in a network of its own, by another test"]
async fn within() {
    let dns = SocketAddr::from(([127, 0, 0, 53], 5353));
    let before = Bench::with(Setting {
        inside: |_| Inside {
            dns: vec![std::net::UdpSocket::bind(("127.0.0.53", 5353)).unwrap()],
            ..Inside::default()
        },
        ..Setting::default()
    })
    .await;
    let mut addresses = Vec::new();
    for name in NAMES {
        addresses.push(asked(dns, name).await);
    }
    drop(before);
    let [api, other, inference, refused] = addresses[..] else {
        unreachable!("one for each name")
    };
    LISTEN.set((addresses.clone(), inference)).unwrap();
    let bench = Bench::with(Setting {
        policy: POLICY,
        inside: |port| {
            let (addresses, inference) = LISTEN.get().unwrap();
            let own = [(*inference, 80), (*inference, 443)];
            let to = addresses.iter().map(|address| (*address, port)).chain(own);
            Inside {
                captured: to.map(|(address, port)| bound(address, port)).collect(),
                // Any resolver's address leads here.
                dns: vec![std::net::UdpSocket::bind(("0.0.0.0", 53)).unwrap()],
                dns_tcp: vec![bound(Ipv4Addr::UNSPECIFIED, 53)],
                local: local(),
                ..Inside::default()
            }
        },
        ..Setting::default()
    })
    .await;
    let port = bench.destination.port;
    let elsewhere = SocketAddr::from(([8, 8, 8, 8], 53));
    // Before anybody asks, an address means nothing, but what is said to it may.
    let stream = TcpStream::connect((api, port)).await.unwrap();
    let stream = tls_over(stream, &bench.own_ca(), HOST, b"http/1.1").await;
    let answer = said(stream.unwrap(), &get("/v1/models", HOST)).await;
    assert!(answer.ends_with("hello"), "{answer}");
    for (name, address) in NAMES.into_iter().zip(&addresses) {
        assert_eq!(asked(elsewhere, name).await, *address);
    }
    assert!(TcpStream::connect(elsewhere).await.is_ok());
    // By the name that the address stands for alone: a server that nobody looks into, whatever is spoken.
    let stream = TcpStream::connect((other, port)).await.unwrap();
    let answer = said(stream, "GET /x HTTP/1.0\r\nhost: whoever\r\n\r\n").await;
    assert!(answer.ends_with("hello"), "{answer}");
    let tunnel = bench.tunnel(&format!("{other}:{port}")).await.unwrap();
    let answer = said(tunnel, "GET /x HTTP/1.0\r\nhost: whoever\r\n\r\n").await;
    assert!(answer.ends_with("hello"), "{answer}");
    let stream = TcpStream::connect((refused, port)).await.unwrap();
    assert_eq!(said(stream, "\0\0\0\x08").await, "");
    for (port, tls) in [(443, true), (80, false)] {
        let stream = TcpStream::connect((inference, port)).await.unwrap();
        let answer = if tls {
            let stream = tls_over(stream, &bench.own_ca(), INFERENCE, b"http/1.1").await;
            said(stream.unwrap(), &get("/v1/models", INFERENCE)).await
        } else {
            said(stream, &get("/v1/models", INFERENCE)).await
        };
        assert!(answer.contains("local /v1/models"), "{answer}");
    }
    let lines = bench.lines(6).await;
    let refused = format!("refused.test:{port}");
    assert!(lines.iter().any(|line| line.to == refused), "{lines:?}");
}

static LISTEN: std::sync::OnceLock<(Vec<Ipv4Addr>, Ipv4Addr)> = std::sync::OnceLock::new();

/// The address that a resolver gives for a name.
async fn asked(resolver: SocketAddr, name: &str) -> Ipv4Addr {
    let mut question = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0".to_vec();
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend(label.as_bytes());
    }
    question.extend(b"\0\0\x01\0\x01");
    let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    socket.connect(resolver).await.unwrap(); // takes answers from there alone
    socket.send(&question).await.unwrap();
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).await.unwrap();
    let last: [u8; 4] = answer[length - 4..length].try_into().unwrap();
    assert_eq!(answer[3] & 0xf, 0, "{name}");
    match IpAddr::from(last) {
        IpAddr::V4(four) => four,
        IpAddr::V6(_) => unreachable!(),
    }
}
