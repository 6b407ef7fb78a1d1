//! Connections of programs that know of no proxy: within the sandbox's network every address is one of ours.
//!
//! ```text
//! connection to an address ─▶ the name that it stands for ─▶ allowed, nothing to read ──────▶ dial, splice
//!                                └─ first bytes: a ClientHello ─▶ by the name in it ─▶ TLS ended here, or dial, splice
//!                                                HTTP/1.1      ─▶ by its host field ─▶ exchange
//!                                                anything else ─▶ closed
//! ```
//!
//! What is named in the first bytes counts, not the address: it is what is judged and dialled. Only the port is always the
//! one that was connected to. A server that speaks first is reached where the policy allows a connection that nobody looks
//! into; elsewhere the client must begin.
//!
//! What the policy refuses is told so where a client can hear it: in HTTP, and in HTTP within TLS that is ended for that.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use farrier_serve::Stalling;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::ask::Via;
use crate::head::Fault;
use crate::prefixed::Prefixed;
use crate::rescue::{Cause, rescue};
use crate::sandbox::Sandbox;
use crate::target::{Authority, Host};

use super::TLS_HANDSHAKE;

/// What a client begins with.
#[derive(Debug, PartialEq, Eq)]
enum Begins {
    /// The head of a request of HTTP/1.1.
    Http,
    /// It left.
    Nothing,
    Other,
    /// A ClientHello, to whom it says.
    Tls(Option<String>),
}

/// Bytes of a ClientHello, padding and post-quantum keys included.
const MAX_HELLO_BYTES: usize = 32 * 1024;
/// Letters of a method.
const MAX_METHOD_BYTES: usize = 20;

impl Sandbox {
    /// One connection to an address that is somebody else's outside.
    pub(super) async fn captured(self: Arc<Self>, stream: TcpStream) {
        let Ok(address) = stream.local_addr() else {
            return;
        };
        let to = self.stand_ins.meant(address);
        let stream = Stalling::new(stream, self.limits.listener.write_stall);
        let mut stream = Prefixed::new(Bytes::new(), stream);
        if self.is_untouched(&to) {
            return self.pass(stream, to).await;
        }
        match timeout(self.limits.handshake, begins(&mut stream)).await {
            Ok(Ok(Begins::Tls(named))) => {
                Box::pin(self.captured_tls(stream, named.as_deref(), to)).await;
            }
            Ok(Ok(Begins::Http)) => {
                let freed = Box::pin(self.http1(stream, Via::Captured(to))).await;
                self.upgraded(freed).await;
            }
            Ok(Ok(Begins::Other)) => {
                let cause = match self.ruled().policy.connect(&to) {
                    Ok(_) => Fault::NotHttp.into(), // what cannot be read cannot be judged
                    Err(denied) => denied.into(),
                };
                self.ended_early(&to, cause);
            }
            Ok(Ok(Begins::Nothing) | Err(_)) => {}
            Err(_) => self.ended_early(&to, Fault::TooSlow.into()),
        }
    }

    async fn captured_tls<S>(
        self: &Arc<Self>,
        stream: Prefixed<S>,
        named: Option<&str>,
        at: Authority,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let host = named.map_or_else(|| Ok(at.host.clone()), Host::parse);
        let Ok(host) = host else {
            return self.ended_early(&at, Fault::Host.into());
        };
        let to = Authority {
            host,
            port: at.port,
        };
        if self.is_untouched(&to) {
            return self.pass(stream, to).await;
        }
        let denied = match self.local.at(&to) {
            Some(_) => None,
            None => self.ruled().policy.connect(&to).err().map(Cause::from),
        };
        self.inspect(stream, to, denied).await;
    }

    /// Whether a connection is allowed, and nobody looks into it.
    fn is_untouched(&self, to: &Authority) -> bool {
        let ruled = self.ruled();
        let reach = ruled.policy.connect(to);
        self.local.at(to).is_none()
            && reach.is_ok_and(|reach| !self.inspects(&ruled, to, reach.inspect))
    }

    /// A connection that nobody looks into, on to where it was going.
    async fn pass<S>(self: &Arc<Self>, stream: S, to: Authority)
    where
        S: AsyncRead + AsyncWrite,
    {
        let mut record = self.record("tunnel");
        match self.reach(&to, &mut record).await {
            Ok(Some(upstream)) => self.splice(stream, (to, upstream), record).await,
            Ok(None) => record.broke("policy_changed"), // since it was found to be allowed
            Err(cause) => {
                record.refused(&cause, &rescue(&cause));
                record.line.status = None; // nobody was told
            }
        }
    }
}

/// Waits for enough of the first bytes to know what they are. None is taken from the stream.
async fn begins<S: AsyncRead + Unpin>(stream: &mut Prefixed<S>) -> io::Result<Begins> {
    loop {
        match stream.peeked() {
            [] => {}
            [TLS_HANDSHAKE, ..] => return hello(stream).await,
            bytes => match is_http(bytes) {
                Some(true) => return Ok(Begins::Http),
                Some(false) => return Ok(Begins::Other),
                None => {}
            },
        }
        if stream.peek_more().await? == 0 {
            return Ok(if stream.peeked().is_empty() {
                Begins::Nothing
            } else {
                Begins::Other
            });
        }
    }
}

/// Whether bytes begin a request of HTTP/1.1; none if that is not to be told yet. HTTP/2 in the clear begins otherwise.
fn is_http(bytes: &[u8]) -> Option<bool> {
    let letter = |byte: &&u8| byte.is_ascii_uppercase() || **byte == b'-';
    let length = bytes.iter().take_while(letter).count();
    if length == 0 || length > MAX_METHOD_BYTES {
        return Some(false);
    }
    match &bytes[length..] {
        [] | [b' '] => None,
        [b' ', b'*', ..] => Some(&bytes[..length] == b"OPTIONS"),
        [b' ', b'/' | b'h' | b'H', ..] => Some(true),
        _ => Some(false),
    }
}

async fn hello<S: AsyncRead + Unpin>(stream: &mut Prefixed<S>) -> io::Result<Begins> {
    let mut acceptor = Acceptor::default();
    let mut fed = 0;
    loop {
        let bytes = stream.peeked();
        while fed < bytes.len() {
            fed += match acceptor.read_tls(&mut &bytes[fed..])? {
                0 => return Ok(Begins::Other),
                length => length,
            };
        }
        match acceptor.accept() {
            Ok(Some(hello)) => {
                let named = hello.client_hello().server_name().map(str::to_owned);
                return Ok(Begins::Tls(named));
            }
            Ok(None) if fed <= MAX_HELLO_BYTES => {}
            Ok(None) | Err(_) => return Ok(Begins::Other),
        }
        if stream.peek_more().await? == 0 {
            return Ok(Begins::Other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(bytes: &[u8]) -> Begins {
        begins(&mut Prefixed::new(Bytes::new(), bytes))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn what_a_client_begins_with_is_told_by_its_first_bytes() {
        for request in [
            "GET / HTTP/1.1\r\n",
            "VERSION-CONTROL /x",
            "OPTIONS * HTTP/1.1",
            "GET http://a.test/",
        ] {
            assert_eq!(told(request.as_bytes()).await, Begins::Http, "{request}");
        }
        for other in [
            "SSH-2.0-OpenSSH_9.2\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "EHLO a.test\r\n",
            "GET",
            "get / HTTP/1.1",
            " GET / HTTP/1.1",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1",
            "\x16\x03\x01",
            "\x16\x03\x01\x00\x05hello",
            "\0",
        ] {
            assert_eq!(told(other.as_bytes()).await, Begins::Other, "{other:?}");
        }
        assert_eq!(told(b"").await, Begins::Nothing);
    }
}
