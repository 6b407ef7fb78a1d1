use std::fmt;
use std::time::Duration;

use http::Method;

use super::*;
use crate::config::{Deadlines, Provider};
use crate::upstream::Upstream;

/// `status fault type code: message`, and what else the answer carries.
fn told(cause: impl Into<Cause>) -> String {
    let (head, body) = rescue(&cause.into()).into_parts();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let error = &body["error"];
    let text = |name: &str| error[name].as_str().unwrap_or("-").to_owned();
    let fault = head.headers()[FAULT].to_str().unwrap();
    let param = if error["param"].is_null() {
        String::new()
    } else {
        format!(" [{}]", text("param"))
    };
    let extra = [ALLOW, WWW_AUTHENTICATE].into_iter().filter_map(|name| {
        let value = head.headers().get(&name)?.to_str().unwrap();
        Some(format!(" ({name}: {value})"))
    });
    let (status, kind, code, message) = (
        head.status().as_u16(),
        text("type"),
        text("code"),
        text("message"),
    );
    format!(
        "{status} {fault} {kind} {code}{param}{}: {message}",
        extra.collect::<String>()
    )
}

#[track_caller]
fn assert_told(cause: impl Into<Cause>, expected: &str) {
    assert_eq!(told(cause), expected);
}

#[test]
fn bodies_that_cannot_be_read() {
    let source = "connection reset".into();
    assert_told(
        BodyError::CutOff {
            received: 7,
            source,
        },
        "400 client invalid_request_error body_truncated: expected the whole body, got 7 bytes and then its end",
    );
    assert_told(
        BodyError::TimedOut {
            within: Duration::from_secs(60),
        },
        "408 client invalid_request_error body_timeout: expected the whole body within 60s, got only a part",
    );
    assert_told(
        BodyError::TooLarge { max_bytes: 100 },
        "413 client invalid_request_error body_too_large: expected a body of at most 100 bytes, got a longer one",
    );
    assert_told(
        Cause::BodyEncoded("br".to_owned()),
        "415 client invalid_request_error body_encoded: expected a plain request body, got content-encoding \"br\"; \
         send it uncompressed",
    );
}

#[test]
fn faults_of_the_engine_keep_their_code_and_place() {
    assert_told(
        Fault::client(
            "model_missing",
            "expected the name of a model at `model`, got nothing",
        )
        .at("model"),
        "400 client invalid_request_error model_missing [model]: expected the name of a model at `model`, got nothing",
    );
    assert_told(
        Fault::upstream("event_too_large", "expected smaller events"),
        "502 upstream upstream_error event_too_large: expected smaller events",
    );
    assert_told(
        Fault::us("bug", "expected better"),
        "500 farrier farrier_error bug: expected better",
    );
}

#[test]
fn callers_who_may_not() {
    assert_told(
        Refused::AgentName,
        "400 client invalid_request_error agent_name_malformed: expected a name of 1 to 64 letters, digits or -_./ in \
         x-farrier-agent, got another value",
    );
    assert_told(
        Refused::Host,
        "403 client permission_error host_not_allowed: expected a host name of this machine, got another in the Host \
         header; use 127.0.0.1, or list the name in allowed_hosts",
    );
    assert_told(
        Refused::Origin,
        "403 client permission_error origin_not_allowed: expected a caller on this machine, got a web page of another \
         origin; give the page's server a client key",
    );
    assert_told(
        Refused::KeyMissing,
        "401 client authentication_error client_key_missing (www-authenticate: Bearer): expected a client key as \
         bearer token or in x-api-key, got none; ask the gateway's owner for one",
    );
    assert_told(
        Refused::KeyUnknown,
        "401 client authentication_error client_key_unknown (www-authenticate: Bearer): expected the key of a \
         configured client, got another; ask the gateway's owner for one",
    );
}

#[test]
fn requests_that_lead_nowhere() {
    assert_told(
        NoEndpoint::Method {
            path: "/healthz",
            allowed: "GET, HEAD",
            method: Method::PUT,
        },
        "405 client invalid_request_error method_not_allowed (allow: GET, HEAD): expected method GET, HEAD for \
         /healthz, got PUT",
    );
    assert_told(
        NoEndpoint::Path,
        "404 client invalid_request_error path_not_found: expected a path below /v1, got another; set the client's \
         base URL to end in /v1",
    );
    assert_told(
        Cause::Path,
        "404 client invalid_request_error path_not_found: expected a path that is a URL with base_url before it, got \
         another",
    );
    assert_told(
        NoRoute::Model {
            model: "kimi\n".to_owned(),
            nearest: None,
        },
        "404 client invalid_request_error model_not_found [model]: expected a model that a route names, got \
         \"kimi\\n\"; add a route for it to the gateway's configuration",
    );
    assert_told(
        NoRoute::NoDefault,
        "404 client invalid_request_error provider_not_found [model]: expected `model` in the request body, got none, \
         and there is no default_provider to send this request to; name a model or configure one",
    );
}

#[test]
fn what_a_provider_is_not_open_for() {
    assert_told(
        NotAllowed {
            method: "DELETE".to_owned(),
            path: "/v1/files/f1".to_owned(),
            provider: "openai".to_owned(),
        },
        "403 client permission_error path_not_allowed: expected GET, HEAD or POST on an inference endpoint, got \
         \"DELETE\" on \"/v1/files/f1\"; set pass_through = \"all\" for provider \"openai\" to let everything pass",
    );
}

#[test]
fn a_model_name_of_any_length_is_shown_short() {
    let message = told(NoRoute::Model {
        model: "é".repeat(10_000),
        nearest: None,
    });
    assert!(message.len() < 400, "{message}");
    assert!(message.contains("é\"…"), "{message}");
}

#[test]
fn providers_that_fail() {
    let within = Duration::from_secs(3);
    let cases = [
        (
            UpstreamFault::BodyBroken { received: 9 },
            "502 upstream_closed: expected the whole reply, got 9 bytes and then a broken connection; try again",
        ),
        (
            UpstreamFault::BodyTooLarge { max_bytes: 9 },
            "502 upstream_reply_too_large: expected a reply of at most 9 bytes, got a longer one; ask for a stream, or raise max_reply_bytes",
        ),
        (
            UpstreamFault::Closed,
            "502 upstream_closed: expected a reply, got a closed connection; try again",
        ),
        (
            UpstreamFault::ConnectTimedOut { within },
            "504 upstream_connect_timeout: expected a connection within 3s, got none; check base_url and the network",
        ),
        (
            UpstreamFault::EncodingUnknown("br".to_owned()),
            "502 upstream_encoding: expected a plain or gzip or deflate reply, got content-encoding \"br\"",
        ),
        (
            UpstreamFault::EncodingWrong,
            "502 upstream_encoding: expected a reply in the content-encoding it announces, got other bytes",
        ),
        (
            UpstreamFault::HeadTimedOut { within },
            "504 upstream_timeout: expected the head of a reply within 3s, got none; try again, or raise the first-byte deadline",
        ),
        (
            UpstreamFault::NotHttp,
            "502 upstream_not_http: expected an HTTP reply, got something else; check base_url and the provider's http version",
        ),
        (
            UpstreamFault::OutOfTime { left: within },
            "504 upstream_timeout: expected the head of a reply within the 3s left of the reply deadline, got none; try again, or raise it",
        ),
        (
            UpstreamFault::Refused,
            "502 upstream_refused: expected a reply, got requests turned away unread; try again",
        ),
        (
            UpstreamFault::ReplyTimedOut { within },
            "504 upstream_reply_timeout: expected the whole reply within 3s, got a part of it; ask for a stream, or raise the reply deadline",
        ),
        (
            UpstreamFault::Silent { within },
            "504 upstream_silent: expected the next bytes of the reply within 3s, got none; try again, or raise the silence deadline",
        ),
        (
            UpstreamFault::Unreachable {
                reason: "refused".to_owned(),
            },
            "502 upstream_unreachable: expected a connection, got: refused; check base_url and the network",
        ),
        (
            UpstreamFault::Untrusted {
                host: "api.moonshot.ai".to_owned(),
                reason: "invalid peer certificate: UnknownIssuer".to_owned(),
            },
            "502 upstream_untrusted: expected a certificate of api.moonshot.ai that is vouched for, got: invalid peer \
             certificate: UnknownIssuer; check base_url, or name the authority in ca_file",
        ),
    ];
    let provider = Provider::new("moonshot", "https://api.moonshot.ai/v1");
    let upstream = Upstream::build(
        &provider,
        &Deadlines::default(),
        farrier_serve::Tracker::new(),
    )
    .unwrap();
    for (fault, expected) in cases {
        let (status, rest) = expected.split_once(' ').unwrap();
        let (code, message) = rest.split_once(": ").unwrap();
        let place = "provider \"moonshot\" (api.moonshot.ai)";
        let expected = format!("{status} upstream upstream_error {code}: {place}: {message}");
        assert_told(upstream.fault(fault), &expected);
    }
}

#[test]
fn what_should_not_happen_says_where_to_look() {
    assert_told(
        Cause::Unexpected {
            what: "the metrics page",
            source: fmt::Error,
        },
        "500 farrier farrier_error unexpected: the metrics page could not be made; see the gateway's log",
    );
}
