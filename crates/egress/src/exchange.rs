//! One request, from its head to its reply's last byte.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use farrier_secrets::{Attached, Places};
use farrier_serve::{BoxError, read_body};
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use crate::ask::{Ask, Via};
use crate::inject::{Lender, Place};
use crate::policy::Rewrites;
use crate::record::Record;
use crate::rescue::{Cause, FAULT};
use crate::sandbox::{Ruled, Sandbox, Standing};
use crate::target::Malformed;
use crate::tunnel::Moved;
use crate::upstream::Outgoing;

/// What a request came to.
#[derive(Debug)]
pub(crate) enum Exchanged {
    /// A reply, to be passed on.
    Reply(Response<Incoming>, Ask),
    /// The destination takes the connection over.
    Upgraded(Upgraded),
}

/// A WebSocket that both sides agreed on.
#[derive(Debug)]
pub(crate) struct Upgraded {
    pub(crate) ask: Ask,
    /// What the client is told.
    pub(crate) reply: HeaderMap,
    pub(crate) upstream: OnUpgrade,
    /// Whether what the client says is looked at.
    pub(crate) talk: Talk,
}

/// What is done with what a client says over a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Talk {
    /// Nothing.
    Passes,
    /// It may say nothing.
    Refused,
    /// Placeholders are replaced.
    Resolved { also: Places },
}

impl Sandbox {
    /// The journey of a request. Each value is the next stage's; `record` is told on the way.
    pub(crate) async fn exchange(
        &self,
        via: &Via,
        request: Request<Incoming>,
        record: &mut Record,
    ) -> Result<Exchanged, Cause> {
        let (head, body) = request.into_parts();
        let ask = Ask::of(via, &head)?;
        record.line.to = ask.origin();
        record.line.method = Some(ask.method.to_string());
        record.line.path = Some(crate::record::template(&ask.path.plain));
        let ruled = self.ruled();
        let allowed = ruled.policy.request(&ask.to, ask.asked())?;
        record.allowed(&allowed);
        let attached = self.attached(&ruled);
        let version = head.version;
        let talk = if is_websocket(&head) {
            record.line.kind = "websocket".to_owned();
            talk_of(&ruled, &ask, &attached, allowed.rewrites)
        } else {
            Talk::Passes
        };
        let ready = self
            .ready(
                &ask,
                (head, body),
                (&attached, allowed.rewrites, talk),
                record,
            )
            .await?;
        let mut reply = ruled.upstream.send(ready, version).await?;
        record.line.status = Some(reply.status().as_u16());
        if reply.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upstream = hyper::upgrade::on(&mut reply);
            let reply = reply.into_parts().0.headers;
            return Ok(Exchanged::Upgraded(Upgraded {
                ask,
                reply,
                upstream,
                talk,
            }));
        }
        strip(reply.headers_mut());
        reply.headers_mut().remove(FAULT); // nobody else speaks in our name
        Ok(Exchanged::Reply(reply, ask))
    }

    /// The request as it is sent: what its placeholders stand for in it, and nothing about our own connections.
    async fn ready(
        &self,
        ask: &Ask,
        (head, body): (Parts, Incoming),
        (attached, rewrites, talk): (&Attached, Rewrites, Talk),
        record: &mut Record,
    ) -> Result<Request<Outgoing>, Cause> {
        let also = Places {
            body: rewrites.body,
            query: false,
            websocket: rewrites.websocket,
        };
        let host = ask.to.host.bare();
        let upgrades = is_websocket(&head);
        let Parts {
            method,
            mut headers,
            ..
        } = head;
        strip(&mut headers);
        headers.remove(HOST);
        if upgrades {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            if talk != Talk::Passes {
                headers.remove("sec-websocket-extensions"); // what is compressed cannot be read
            }
        }
        let opened = attached.opts_in(&host, ask.to.port);
        let held = if opened.body || also.body {
            self.held(&headers, body).await?
        } else {
            Held::Streams(body)
        };
        let lender = Lender::new(attached, ask.destination(&host, &ask.path.written), also);
        lender.headers(&mut headers)?;
        let target = lender.target(&ask.path.written, ask.query.as_deref())?;
        let uri: Uri = format!("{}{}", ask.origin(), *target)
            .parse()
            .map_err(|_invalid| Malformed::Path)?;
        let body = held.resolved(&lender, &mut headers, &record.moved)?;
        record.line.credentials = lender.into_names();
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11; // the connection's own, whatever the client's
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// A body that may hold placeholders, whole; any other as it comes.
    async fn held(&self, headers: &HeaderMap, mut body: Incoming) -> Result<Held, Cause> {
        let Some(form) = Form::of(headers) else {
            return Ok(Held::Streams(body));
        };
        let most = self.limits.max_held_body_bytes;
        let announced = body.size_hint().lower();
        if body.is_end_stream() || announced > most as u64 {
            return Ok(Held::Streams(body)); // nothing to look at, or more than anybody puts a key in
        }
        let whole = read_body(&mut body, most, self.limits.body).await?;
        Ok(Held::Whole(whole, form))
    }

    /// What is left to relay.
    pub(crate) fn relayed(
        self: &Arc<Self>,
        reply: Response<Incoming>,
        ask: Ask,
        record: Record,
    ) -> Response<ReplyBody> {
        let standing = Standing::of_request(self, ask);
        let idle = self.limits.idle;
        reply.map(|body| {
            ReplyBody::Relayed(Box::new(Relayed {
                body,
                lapse: Box::pin(standing.lapsed()),
                silence: Box::pin(tokio::time::sleep(idle)),
                idle,
                record,
                ended: false,
            }))
        })
    }
}

/// How a body spells its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Urlencoded,
}

/// A body on its way.
enum Held {
    Streams(Incoming),
    Whole(Bytes, Form),
}

// === impl Held ===

impl Held {
    fn resolved(
        self,
        lender: &Lender<'_>,
        headers: &mut HeaderMap,
        moved: &Arc<Moved>,
    ) -> Result<Outgoing, Cause> {
        let (bytes, form) = match self {
            Self::Streams(body) => {
                let counted = Counted {
                    body,
                    moved: Arc::clone(moved),
                };
                return Ok(counted.boxed_unsync());
            }
            Self::Whole(bytes, form) => (bytes, form),
        };
        let add = |bytes: &Bytes| {
            moved
                .up
                .fetch_add(bytes.len() as u64, std::sync::atomic::Ordering::Relaxed);
        };
        add(&bytes);
        let resolved = match (std::str::from_utf8(&bytes), form) {
            (Ok(text), Form::Json) => lender.json(text, Place::Body)?,
            (Ok(text), Form::Urlencoded) => lender.form(text)?,
            (Err(_), _) => None,
        };
        let bytes = match resolved {
            None => bytes,
            Some(text) => {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
                Bytes::from(text.as_bytes().to_vec())
            }
        };
        Ok(Full::new(bytes)
            .map_err(|never| match never {})
            .boxed_unsync())
    }
}

impl Form {
    fn of(headers: &HeaderMap) -> Option<Self> {
        if headers.contains_key(CONTENT_ENCODING) {
            return None;
        }
        let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        match kind
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
            .as_str()
        {
            "application/json" => Some(Self::Json),
            "application/x-www-form-urlencoded" => Some(Self::Urlencoded),
            _ => None,
        }
    }
}

fn talk_of(ruled: &Ruled, ask: &Ask, attached: &Attached, rewrites: Rewrites) -> Talk {
    let opened = attached.opts_in(&ask.to.host.bare(), ask.to.port);
    if !ruled.policy.may_speak(&ask.to, &ask.path) {
        Talk::Refused
    } else if opened.websocket || rewrites.websocket {
        Talk::Resolved {
            also: Places {
                websocket: rewrites.websocket,
                ..Places::default()
            },
        }
    } else {
        Talk::Passes
    }
}

fn is_websocket(head: &Parts) -> bool {
    let upgrade = head
        .headers
        .get(UPGRADE)
        .is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    upgrade && head.version == Version::HTTP_11
}

/// Takes away what concerns one connection alone (RFC 9110 §7.6.1). `te: trailers` stays: gRPC asks for it.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    let trailers = headers
        .get_all(TE)
        .iter()
        .any(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    headers.remove(TE);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "expect", // answered here
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

// === bodies ===

/// A request's body, counted as it goes.
struct Counted {
    body: Incoming,
    moved: Arc<Moved>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.moved
                .up
                .fetch_add(data.len() as u64, std::sync::atomic::Ordering::Relaxed);
        }
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A reply's body.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    /// Of ours.
    Own(Full<Bytes>),
    Relayed(Box<Relayed>),
}

/// A reply that comes from a destination, as long as the policy lets it.
pub(crate) struct Relayed {
    body: Incoming,
    lapse: Pin<Box<dyn Future<Output = ()> + Send>>,
    silence: Pin<Box<tokio::time::Sleep>>,
    idle: std::time::Duration,
    record: Record,
    ended: bool,
}

/// Why a reply ends before its end.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("expected the rest of the reply, got none for too long")]
    Idle,
    #[error("expected the policy to go on allowing the request, got one that does not")]
    Lapsed,
}

impl Relayed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.lapse.as_mut().poll(cx).is_ready() {
            return self.end(Some(("policy_changed", Broken::Lapsed.into())));
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let until = tokio::time::Instant::now() + self.idle;
                self.silence.as_mut().reset(until);
                if let Some(data) = frame.data_ref() {
                    let length = data.len() as u64;
                    self.record
                        .moved
                        .down
                        .fetch_add(length, std::sync::atomic::Ordering::Relaxed);
                }
                self.ended = self.body.is_end_stream();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => self.end(None),
            Poll::Ready(Some(Err(error))) => self.end(Some(("upstream_closed", error.into()))),
            Poll::Pending if self.silence.as_mut().poll(cx).is_ready() => {
                self.end(Some(("upstream_silent", Broken::Idle.into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn end(
        &mut self,
        broken: Option<(&str, BoxError)>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.ended = true;
        let Some((code, error)) = broken else {
            return Poll::Ready(None);
        };
        self.record.broke(code);
        Poll::Ready(Some(Err(error)))
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        if !self.ended && !self.body.is_end_stream() {
            self.record.broke("client_gone");
        }
    }
}

impl std::fmt::Debug for Relayed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relayed")
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Own(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Self::Relayed(relayed) => relayed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Relayed(relayed) => relayed.ended || relayed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Relayed(relayed) => relayed.body.size_hint(),
        }
    }
}
