//! One request, from its head to its reply's last byte.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use farrier_secrets::{Attached, Places};
use farrier_serve::read_body;
use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, UPGRADE,
};
use http::request::Parts;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use crate::ask::{Ask, Via};
use crate::body::{Counted, Kept};
use crate::inject::{Lender, Place};
use crate::mask::Masks;
use crate::policy::Rewrites;
use crate::record::Record;
use crate::rescue::{Cause, FAULT};
use crate::sandbox::{Ruled, Sandbox};
use crate::target::Malformed;
use crate::upstream::{Berth, Outgoing, Unanswered, UpstreamError};

/// What a request came to.
#[derive(Debug)]
pub(crate) enum Exchanged {
    /// A reply, to be passed on.
    Reply(Response<Incoming>, Ask, Kept),
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
        if let Some(service) = self.local.at(&ask.to) {
            let request = Request::from_parts(head, body);
            let reply = self.asked_of(service, request, &ask, record).await?;
            return Ok(Exchanged::Reply(reply, ask, Kept::default()));
        }
        let ruled = self.ruled();
        let allowed = ruled.policy.request(&ask.to, ask.asked())?;
        record.allowed(&allowed);
        let attached = self.attached(&ruled).1;
        let version = head.version;
        let talk = if is_websocket(&head) {
            record.line.kind = "websocket".to_owned();
            talk_of(&ruled, &ask, &attached, allowed.rewrites)
        } else {
            Talk::Passes
        };
        let mut given = self
            .given((head, body), (&ask, &attached), (allowed.rewrites, talk))
            .await?;
        let (mut reply, berth) = self
            .sent(&ruled, (&ask, version), &mut given, record)
            .await?;
        record.line.status = Some(reply.status().as_u16());
        given.masks.headers(reply.headers_mut());
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
        let kept = Kept {
            masks: given.masks,
            _berth: berth,
        };
        Ok(Exchanged::Reply(reply, ask, kept))
    }

    /// The request without what concerns our own connections, its body held if there may be placeholders in it.
    async fn given(
        &self,
        (head, body): (Parts, Incoming),
        (ask, attached): (&Ask, &Attached),
        (rewrites, talk): (Rewrites, Talk),
    ) -> Result<Given, Cause> {
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
        let also = Places {
            body: rewrites.body,
            query: false,
            websocket: rewrites.websocket,
        };
        let opened = attached.opts_in(&ask.to.host.bare(), ask.to.port);
        let held = if opened.body || also.body {
            self.held(&headers, body).await?
        } else {
            Held::Streams(body)
        };
        Ok(Given {
            method,
            headers,
            held: Some(held),
            also,
            masks: Arc::default(),
        })
    }

    /// Has a request sent with the keys of the moment in which it can be: one that was replaced while it waited for its
    /// turn, a name or a handshake is not sent any more.
    async fn sent(
        &self,
        ruled: &Ruled,
        (ask, version): (&Ask, Version),
        given: &mut Given,
        record: &mut Record,
    ) -> Result<(Response<Incoming>, Option<Berth>), Cause> {
        let (mut keys, attached) = self.attached(ruled);
        // Nobody is dialled for what cannot be sent.
        let mut ready = given.resolved(ask, &attached, record)?;
        for _ in 0..MAX_PLACES {
            let place = ruled.upstream.place((ask.scheme, &ask.to), version).await?;
            let (now, attached) = self.attached(ruled);
            if !Arc::ptr_eq(&keys, &now) {
                given.take_back(ready);
                ready = given.resolved(ask, &attached, record)?;
                keys = now;
            }
            match ruled.upstream.send(place, ready).await {
                Ok(replied) => return Ok(replied),
                Err(Unanswered::Failed(error)) => return Err(error.into()),
                Err(Unanswered::Unsent(unsent)) => ready = *unsent,
            }
        }
        Err(UpstreamError::Closed.into())
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
}

/// How a body spells its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Urlencoded,
}

/// A request as the client gave it, as often as it is needed.
struct Given {
    method: Method,
    headers: HeaderMap,
    /// Gone while it is part of what is to be sent.
    held: Option<Held>,
    also: Places,
    /// What is said of the keys that were put in.
    masks: Arc<Masks>,
}

/// A body on its way.
enum Held {
    Streams(Incoming),
    /// Counted already.
    Sends(Outgoing),
    Whole(Bytes, Form),
}

// === impl Given ===

impl Given {
    /// The request as it is sent: with what its placeholders stand for in it.
    fn resolved(
        &mut self,
        ask: &Ask,
        attached: &Attached,
        record: &mut Record,
    ) -> Result<Request<Outgoing>, Cause> {
        let host = ask.to.host.bare();
        let lender = Lender::new(
            attached,
            ask.destination(&host, &ask.path.written),
            self.also,
        );
        let mut headers = self.headers.clone();
        lender.headers(&mut headers)?;
        let target = lender.target(&ask.path.written, ask.query.as_deref())?;
        let uri: Uri = format!("{}{}", ask.origin(), *target)
            .parse()
            .map_err(|_invalid| Malformed::Path)?;
        let body = match self.held.take() {
            None => Outgoing::default(),
            Some(Held::Sends(body)) => body,
            Some(Held::Streams(body)) => {
                let moved = Arc::clone(&record.moved);
                Counted { body, moved }.boxed_unsync()
            }
            Some(Held::Whole(bytes, form)) => {
                let body = whole(&bytes, form, &lender, &mut headers);
                self.held = Some(Held::Whole(bytes.clone(), form));
                let body = body?.unwrap_or(bytes);
                record.moved.up.store(body.len() as u64, Ordering::Relaxed);
                Full::new(body)
                    .map_err(|never| match never {})
                    .boxed_unsync()
            }
        };
        let (credentials, masks) = lender.into_lent();
        if !masks.is_empty() {
            // What is compressed could not be looked through for them.
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        record.line.credentials = credentials;
        self.masks = Arc::new(masks);
        let mut request = Request::new(body);
        request.method_mut().clone_from(&self.method);
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11; // the connection's own, whatever the client's
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Takes the body of a request that was not sent, for another.
    fn take_back(&mut self, unsent: Request<Outgoing>) {
        if self.held.is_none() {
            self.held = Some(Held::Sends(unsent.into_body()));
        }
    }
}

/// A body with what its fields stand for; none if it is sent as it is.
fn whole(
    bytes: &Bytes,
    form: Form,
    lender: &Lender<'_>,
    headers: &mut HeaderMap,
) -> Result<Option<Bytes>, Cause> {
    let resolved = match (std::str::from_utf8(bytes), form) {
        (Ok(text), Form::Json) => lender.json(text, Place::Body)?,
        (Ok(text), Form::Urlencoded) => lender.form(text)?,
        (Err(_), _) => None,
    };
    Ok(resolved.map(|text| {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
        Bytes::from(text.as_bytes().to_vec())
    }))
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
pub(crate) fn strip(headers: &mut HeaderMap) {
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

/// Connections on which a request is tried that none of them took: all that are kept for a destination may have ended.
const MAX_PLACES: usize = 20;
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
