//! A client that does what its script says.

use std::fmt::Write as _;
use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::wire::{RawResponse, Wire, patiently};

/// One HTTP/1.1 connection, driven by hand.
#[derive(Debug)]
pub struct RawClient {
    wire: Wire,
    addr: SocketAddr,
}

impl RawClient {
    /// Connects.
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = patiently("a connection", TcpStream::connect(addr))
            .await
            .expect("the listener accepts");
        Self {
            wire: Wire::new(stream),
            addr,
        }
    }

    /// Connects, if there is a listener.
    pub async fn try_connect(addr: SocketAddr) -> Option<Self> {
        let stream = patiently("a connection", TcpStream::connect(addr))
            .await
            .ok()?;
        Some(Self {
            wire: Wire::new(stream),
            addr,
        })
    }

    /// These very bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.send(bytes.as_ref()).await;
    }

    /// These bytes, or as many of them as the peer still takes; says whether it took all.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.wire.try_send(bytes.as_ref()).await
    }

    /// A request with a body; `line` is `"POST /v1/chat/completions"`. Host is added unless it is among `headers`.
    pub async fn request(&mut self, line: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) {
        let bytes = self.written(line, headers, body.as_ref());
        self.wire.send(&bytes).await;
    }

    fn written(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let mut head = format!("{line} HTTP/1.1\r\n");
        if !headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            write!(head, "host: {}\r\n", self.addr).expect("writes to a string");
        }
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").expect("writes to a string");
        }
        if !body.is_empty() {
            write!(head, "content-length: {}\r\n", body.len()).expect("writes to a string");
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }

    /// `POST` of a JSON body.
    pub async fn post(&mut self, path: &str, body: impl AsRef<[u8]>) {
        self.request(&format!("POST {path}"), &JSON, body).await;
    }

    /// `POST` of a JSON body to a peer that may be gone; says whether it took all.
    pub async fn try_post(&mut self, path: &str, body: impl AsRef<[u8]>) -> bool {
        let bytes = self.written(&format!("POST {path}"), &JSON, body.as_ref());
        self.wire.try_send(&bytes).await
    }

    /// `GET` without a body.
    pub async fn get(&mut self, path: &str) {
        self.request(&format!("GET {path}"), &[], "").await;
    }

    /// The head of the next response; its body is still to come.
    pub async fn head(&mut self) -> RawResponse {
        let (line, headers) = self
            .wire
            .head()
            .await
            .unwrap_or_else(|| panic!("expected a response, got the end"));
        RawResponse {
            status: RawResponse::status_of(&line),
            headers,
            body: Vec::new(),
            whole: false,
        }
    }

    /// The next response, body included.
    pub async fn response(&mut self) -> RawResponse {
        let mut response = self.head().await;
        let (body, whole) = self.wire.body(&response.headers, true).await;
        response.body = body;
        response.whole = whole;
        response
    }

    /// The next response, or `None` if the connection ended before one began. One that ended later is not
    /// [`whole`](RawResponse::whole).
    pub async fn try_response(&mut self) -> Option<RawResponse> {
        let (line, headers) = self.wire.head().await?;
        let (body, whole) = self.wire.body(&headers, true).await;
        Some(RawResponse {
            status: RawResponse::status_of(&line),
            headers,
            body,
            whole,
        })
    }

    /// The next chunk of a chunked body; empty at its end, `None` if the connection ended first.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        self.wire.chunk().await
    }

    /// Waits until the other side closed its connection; returns what it sent before that.
    pub async fn closed(&mut self) -> Vec<u8> {
        self.wire.closed().await
    }

    /// Ends our direction only.
    pub async fn half_close(&mut self) {
        self.wire.finish().await;
    }
}

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
