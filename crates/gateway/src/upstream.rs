//! Towards the provider: connections, the credential, deadlines, what is sent of the caller's request.
//!
//! In: a method, a path, the caller's headers, body segments. Out: the head of the provider's reply with its body still
//! to be read, or an [`UpstreamError`].
//!
//! The credential enters here and nowhere else, as a sensitive header value, when a request is written. A redirect is a reply like any
//! other and is never followed, so the credential goes to the configured host alone.

mod arriving;
mod connect;
mod decode;
mod headers;
mod link;
mod pool;
mod same;
mod shown;
mod transport;
mod trunk;
mod trunks;
mod wire;

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use farrier_serve::Tracker;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};

pub(crate) use arriving::{Arriving, Next};
pub(crate) use decode::{Coding, Decoder};
pub(crate) use headers::for_client;
pub(crate) use shown::Field;

use crate::config::{Api, Deadlines, HttpVersion, Mistake, PassThrough, Provider};
use connect::Connector;
use shown::Shown;
use transport::{Transport, cause};

/// A provider and its pooled connections.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) name: Arc<str>,
    pub(crate) api: Api,
    pub(crate) base_url: String,
    pub(crate) server: Option<String>,
    pub(crate) pass_through: PassThrough,
    base: Uri,
    chat: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    first_byte: Duration,
    /// What else the connections were prepared from; a reload compares it.
    connect: Duration,
    http: HttpVersion,
    ca_file: Option<PathBuf>,
    address: Option<SocketAddr>,
    transport: Transport,
}

/// All providers by name.
pub(crate) type Upstreams = HashMap<String, Arc<Upstream>>;

/// A request body in pieces, none of which is copied. Its length is exact.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segments {
    /// Empty only if there is none left. One alone needs no list.
    next: Bytes,
    later: VecDeque<Bytes>,
    left: u64,
}

/// The header fields of a request to one provider.
pub(crate) struct Fields(HeaderMap);

/// Why a provider gave no reply, or none that can be used.
#[derive(Debug, thiserror::Error)]
#[error("provider {provider:?} ({authority}): {fault}")]
pub(crate) struct UpstreamError {
    pub(crate) provider: Arc<str>,
    authority: String,
    pub(crate) fault: UpstreamFault,
}

/// What happened towards a provider.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UpstreamFault {
    #[error(
        "expected the whole reply, got {received} bytes and then a broken connection; try again"
    )]
    BodyBroken { received: usize },
    #[error(
        "expected a reply of at most {max_bytes} bytes, got a longer one; ask for a stream, or raise max_reply_bytes"
    )]
    BodyTooLarge { max_bytes: usize },
    #[error("expected a reply, got a closed connection; try again")]
    Closed,
    /// With a connection whose end was told to another request: it is one failure.
    #[error("expected a reply, got a closed connection; try again")]
    ClosedToo,
    #[error("expected a reply, got a kept connection that the provider was closing; try again")]
    ClosedWhileKept,
    #[error("expected a connection within {within:?}, got none; check base_url and the network")]
    ConnectTimedOut { within: Duration },
    #[error("expected a plain or gzip or deflate reply, got content-encoding {0:?}")]
    EncodingUnknown(String),
    #[error("expected a reply in the content-encoding it announces, got other bytes")]
    EncodingWrong,
    #[error(
        "expected the head of a reply within {within:?}, got none; try again, or raise the first-byte deadline"
    )]
    HeadTimedOut { within: Duration },
    #[error(
        "expected an HTTP reply, got something else; check base_url and the provider's http version"
    )]
    NotHttp,
    #[error(
        "expected the head of a reply within the {left:?} left of the reply deadline, got none; try again, or raise it"
    )]
    OutOfTime { left: Duration },
    #[error("expected a reply, got requests turned away unread; try again")]
    Refused,
    #[error(
        "expected the whole reply within {within:?}, got a part of it; ask for a stream, or raise the reply deadline"
    )]
    ReplyTimedOut { within: Duration },
    #[error(
        "expected the next bytes of the reply within {within:?}, got none; try again, or raise the silence deadline"
    )]
    Silent { within: Duration },
    #[error("expected a connection, got: {reason}; check base_url and the network")]
    Unreachable { reason: String },
    #[error(
        "expected a certificate of {host} that is vouched for, got: {reason}; check base_url, or name the authority in \
         ca_file"
    )]
    Untrusted { host: String, reason: String },
}

// === impl Upstream ===

impl Upstream {
    /// Prepares connections; makes none yet. `tasks` runs them.
    pub(crate) fn build(
        provider: &Provider,
        deadlines: &Deadlines,
        tasks: Tracker,
    ) -> Result<Self, Mistake> {
        let name = provider.name.clone();
        let base_url = provider.base_url.trim_end_matches('/').to_owned();
        let wrong_url = || Mistake::BaseUrl {
            provider: name.clone(),
        };
        let base: Uri = base_url.parse().map_err(|_| wrong_url())?;
        let chat = under(&base, "/chat/completions").ok_or_else(wrong_url)?;
        let shown = provider.shown()?.map(Shown::new);
        let connector = Connector::build(provider, deadlines.connect)?;
        let transport = Transport::new(connector, (provider.http, shown), base.clone(), tasks);
        let transport = transport.ok_or_else(wrong_url)?;
        Ok(Self {
            name: name.into(),
            api: provider.api,
            base_url,
            server: provider.server.clone(),
            pass_through: provider.pass_through,
            base,
            chat,
            headers: provider.headers.clone(),
            first_byte: deadlines.first_byte,
            connect: deadlines.connect,
            http: provider.http,
            ca_file: provider.ca_file.clone(),
            address: provider.address,
            transport,
        })
    }

    /// Where chat completions are asked for.
    pub(crate) fn chat_completions(&self) -> &Uri {
        &self.chat
    }

    /// Where `path` below `/v1`, query included, is on this provider.
    pub(crate) fn below(&self, path: &str) -> Option<Uri> {
        under(&self.base, path)
    }

    /// What this provider is sent of a caller's fields, and its own but for the credential.
    pub(crate) fn fields(&self, given: &HeaderMap) -> Fields {
        let mut headers = headers::for_upstream(given);
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        Fields(headers)
    }

    /// Sends a request and waits for the head of its reply.
    ///
    /// Dropping the future cancels the request: its connection is closed, or its HTTP/2 stream reset.
    pub(crate) async fn send(
        &self,
        method: Method,
        uri: Uri,
        fields: Fields,
        body: Segments,
    ) -> Result<Response<Arriving>, UpstreamError> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = fields.0;
        match tokio::time::timeout(self.first_byte, self.transport.ask(request)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(fault)) => Err(self.fault(fault)),
            Err(_) => Err(self.fault(UpstreamFault::HeadTimedOut {
                within: self.first_byte,
            })),
        }
    }

    /// Has every request from now on written with another secret, if it goes to the same place in the same field.
    pub(crate) fn exchange(&self, base_url: &str, (name, value): Field) {
        let same_place = self.base_url == base_url.trim_end_matches('/');
        if let Some(shown) = self
            .transport
            .shown()
            .filter(|shown| shown.name == name && same_place)
        {
            shown.exchange(value);
        }
    }

    /// The fault, with this provider's name on it.
    pub(crate) fn fault(&self, fault: UpstreamFault) -> UpstreamError {
        let authority = self
            .base
            .authority()
            .map_or_else(String::new, ToString::to_string);
        UpstreamError {
            provider: Arc::clone(&self.name),
            authority,
            fault,
        }
    }
}

fn under(base: &Uri, path: &str) -> Option<Uri> {
    let mut parts = base.clone().into_parts();
    let joined = format!("{}{path}", base.path().trim_end_matches('/'));
    parts.path_and_query = Some(PathAndQuery::try_from(joined).ok()?);
    Uri::from_parts(parts).ok()
}

// === impl Fields ===

impl Fields {
    /// Asks for a reply in no content coding: one that has to be read.
    pub(crate) fn plain_please(&mut self) {
        headers::plain_please(&mut self.0);
    }
}

// === impl Segments ===

/// What small pieces of a body are gathered into.
const FRAME_BYTES: usize = 64 * 1024;

impl Segments {
    /// Adds a piece at the end.
    pub(crate) fn push(&mut self, piece: Bytes) {
        self.left += piece.len() as u64;
        if piece.is_empty() {
            return;
        }
        if self.next.is_empty() {
            self.next = piece;
        } else {
            self.later.push_back(piece);
        }
    }

    /// The next bytes to write: a large piece as it is, small ones run together. An edited history is hundreds of
    /// pieces, and a system call for every few of them costs more than the copy.
    fn next_frame(&mut self) -> Option<Bytes> {
        let first = self.pop()?;
        let fits =
            |bytes: usize, next: &Bytes| !next.is_empty() && bytes + next.len() <= FRAME_BYTES;
        if !fits(first.len(), &self.next) {
            return Some(first);
        }
        let mut frame = BytesMut::with_capacity(FRAME_BYTES);
        frame.extend_from_slice(&first);
        while fits(frame.len(), &self.next)
            && let Some(next) = self.pop()
        {
            frame.extend_from_slice(&next);
        }
        Some(frame.freeze())
    }

    fn pop(&mut self) -> Option<Bytes> {
        let after = self.later.pop_front().unwrap_or_default();
        let piece = std::mem::replace(&mut self.next, after);
        (!piece.is_empty()).then_some(piece)
    }

    /// The pieces, in order.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        let next = Some(&self.next).filter(|next| !next.is_empty());
        next.into_iter().chain(&self.later)
    }
}

impl From<Bytes> for Segments {
    fn from(whole: Bytes) -> Self {
        let mut segments = Self::default();
        segments.push(whole);
        segments
    }
}

impl Body for Segments {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = self.next_frame();
        self.left -= frame.as_ref().map_or(0, |frame| frame.len() as u64);
        Poll::Ready(frame.map(|frame| Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

// === impl UpstreamFault ===

impl UpstreamFault {
    /// One word, for metrics and logs.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::BodyBroken { .. } => "body_broken",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::Closed | Self::ClosedToo => "closed",
            Self::ClosedWhileKept => "closed_while_kept",
            Self::ConnectTimedOut { .. } => "connect_timeout",
            Self::EncodingUnknown(_) => "encoding_unknown",
            Self::EncodingWrong => "encoding_wrong",
            Self::HeadTimedOut { .. } => "first_byte_timeout",
            Self::NotHttp => "not_http",
            Self::OutOfTime { .. } => "out_of_time",
            Self::Refused => "refused",
            Self::ReplyTimedOut { .. } => "reply_timeout",
            Self::Silent { .. } => "silent",
            Self::Unreachable { .. } => "unreachable",
            Self::Untrusted { .. } => "untrusted",
        }
    }

    /// Whether a deadline of ours was what ended it.
    pub(crate) fn timed_out(&self) -> bool {
        matches!(
            self,
            Self::ConnectTimedOut { .. }
                | Self::HeadTimedOut { .. }
                | Self::OutOfTime { .. }
                | Self::ReplyTimedOut { .. }
                | Self::Silent { .. }
        )
    }
}

#[cfg(test)]
#[path = "upstream/upstream_tests.rs"]
mod tests;
