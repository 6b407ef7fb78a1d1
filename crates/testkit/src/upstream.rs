//! An upstream that does what its script says.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::wire::{RawRequest, Wire, patiently};

/// A listener on a free loopback port; connections are taken one by one by the test.
#[derive(Debug)]
pub struct ScriptedUpstream {
    addr: SocketAddr,
    listener: TcpListener,
}

/// One accepted connection.
#[derive(Debug)]
pub struct ScriptedPeer {
    wire: Wire,
}

// === impl ScriptedUpstream ===

impl ScriptedUpstream {
    /// Binds a free loopback port.
    pub async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let addr = listener
            .local_addr()
            .expect("a bound socket has an address");
        Self { addr, listener }
    }

    /// Binds this very address, which nobody else has.
    pub async fn bind_to(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).await.expect("the address is free");
        Self { addr, listener }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What a provider's `base_url` would be: `http://127.0.0.1:PORT/v1`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// The next connection.
    pub async fn accept(&self) -> ScriptedPeer {
        let (stream, _) = patiently("a connection to the upstream", self.listener.accept())
            .await
            .expect("accepts");
        ScriptedPeer {
            wire: Wire::new(stream),
        }
    }

    /// The next connection and the request on it.
    pub async fn recv(&self) -> (ScriptedPeer, RawRequest) {
        let mut peer = self.accept().await;
        let request = peer.recv().await;
        (peer, request)
    }
}

// === impl ScriptedPeer ===

impl ScriptedPeer {
    /// The next request, body included.
    pub async fn recv(&mut self) -> RawRequest {
        let (line, headers) = self
            .wire
            .head()
            .await
            .unwrap_or_else(|| panic!("expected a request, got the end"));
        let (body, whole) = self.wire.body(&headers, false).await;
        assert!(whole, "peer closed inside a request body");
        RawRequest {
            line,
            headers,
            body,
        }
    }

    /// These very bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.send(bytes.as_ref()).await;
    }

    /// These bytes, or as many of them as the peer still takes; says whether it took all.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.wire.try_send(bytes.as_ref()).await
    }

    /// A whole reply with a content length; `head` is the status and extra fields, without their last line end:
    /// `"200 OK\r\ncontent-type: application/json"`.
    pub async fn reply(&mut self, head: &str, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let mut bytes =
            format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
        bytes.extend_from_slice(body);
        self.wire.send(&bytes).await;
    }

    /// The head of an event stream in chunks.
    pub async fn start_stream(&mut self) {
        self.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await;
    }

    /// One chunk.
    pub async fn send_chunk(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
        framed.extend_from_slice(bytes);
        framed.extend_from_slice(b"\r\n");
        self.wire.send(&framed).await;
    }

    /// The end of a chunked body.
    pub async fn end_chunks(&mut self) {
        self.wire.send(b"0\r\n\r\n").await;
    }

    /// Waits until the other side closed its connection; returns what it sent before that.
    pub async fn closed(&mut self) -> Vec<u8> {
        self.wire.closed().await
    }
}
