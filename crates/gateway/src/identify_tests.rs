use super::*;

fn endpoint(method: &str, uri: &str) -> Result<Endpoint, NoEndpoint> {
    Endpoint::of(&method.parse().unwrap(), &uri.parse().unwrap())
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
}

#[test]
fn each_path_has_its_endpoint() {
    assert_eq!(
        endpoint("POST", "/v1/chat/completions?x=1"),
        Ok(Endpoint::ChatCompletions)
    );
    assert_eq!(endpoint("GET", "/v1/models"), Ok(Endpoint::Models));
    assert_eq!(
        endpoint("GET", "/v1/models/a%2Fb%20c%zz%"),
        Ok(Endpoint::Model("a/b c%zz%".to_owned()))
    );
    assert_eq!(endpoint("GET", "/healthz"), Ok(Endpoint::Health));
    assert_eq!(endpoint("HEAD", "/readyz"), Ok(Endpoint::Ready));
    assert_eq!(endpoint("GET", "/metrics"), Ok(Endpoint::Metrics));
    assert_eq!(
        endpoint("PUT", "/v1//x/%79/?z=1"),
        Ok(Endpoint::PassThrough {
            plain: "x/y".to_owned(),
            written: "/x/%79?z=1".to_owned()
        })
    );
    for path in ["/", "/v1", "/v2/models", "/v1x/models", "/%761/x"] {
        assert_eq!(endpoint("GET", path), Err(NoEndpoint::Path), "{path}");
    }
}

#[test]
fn a_chat_completion_takes_its_plan_however_its_path_is_written() {
    for path in [
        "/v1//chat/completions",
        "/v1/chat/completions/",
        "//v1/chat//completions//",
        "/v1/chat%2Fcompletions",
        "/v1/chat/completion%2573",
        "/v1/Chat/Completions",
        "/v1/chat/completions;a=1",
    ] {
        let found = endpoint("POST", path);
        assert_eq!(found, Ok(Endpoint::ChatCompletions), "{path}");
    }
    assert!(matches!(
        endpoint("GET", "/v1/chat/completions/"),
        Err(NoEndpoint::Method {
            allowed: "POST",
            ..
        })
    ));
    assert_eq!(endpoint("GET", "/v1/models/"), Ok(Endpoint::Models));
}

#[test]
fn no_path_climbs_out_of_v1() {
    for path in [
        "/v1/../x",
        "/v1/a/%2E%2e/%2e./x",
        "/v1/%2e/x",
        "/v1/..%2f..%2fadmin",
        "/v1/x%2f..%2f..%2fadmin",
        "/v1/..%5c..%5cadmin",
        "/v1/..;/admin",
        "/v1/%252e%252e/admin",
        "/v1/models/%2e%2e%2fadmin",
    ] {
        assert_eq!(endpoint("GET", path), Err(NoEndpoint::Path), "{path}");
    }
}

#[test]
fn sessions_that_are_no_text_stay_apart() {
    let scope = |session: &[u8]| {
        let value = http::HeaderValue::from_bytes(session).unwrap();
        let headers = HeaderMap::from_iter([(SESSION[0].clone(), value)]);
        keyless(&headers).unwrap().scope
    };
    let names: [&[u8]; 5] = [b"\xff", b"\xfe", b"\xef\xbf\xbd", b"\\xff", "é".as_bytes()];
    for (index, one) in names.iter().enumerate() {
        for other in &names[..index] {
            assert_ne!(scope(one), scope(other), "{one:?} {other:?}");
        }
    }
}

#[test]
fn a_session_is_taken_from_the_first_header_that_names_one() {
    let scope = |fields: &[(&'static str, &str)]| keyless(&headers(fields)).unwrap().scope;
    let nobody = scope(&[]);
    for name in SESSION_NAMES {
        assert_ne!(scope(&[(name, "s1")]), nobody, "{name}");
        assert_eq!(
            scope(&[(name, "s1")]),
            scope(&[("x-farrier-session", "s1")])
        );
    }
    assert_eq!(
        scope(&[("thread-id", "late"), ("x-session-id", "first")]),
        scope(&[("x-session-id", "first")])
    );
}

const SESSION_NAMES: [&str; 8] = [
    "x-farrier-session",
    "x-session-id",
    "x-session-affinity",
    "session-id",
    "session_id",
    "conversation_id",
    "thread-id",
    "x-claude-code-session-id",
];

#[test]
fn scopes_differ_by_agent_and_by_session() {
    let scope = |agent: &str, session: &str| {
        keyless(&headers(&[
            ("x-farrier-agent", agent),
            ("x-session-id", session),
        ]))
        .unwrap()
        .scope
    };
    assert_ne!(scope("a", "b"), scope("a", "c"));
    assert_ne!(scope("a", "b"), scope("c", "b"));
    assert_ne!(scope("ab", "c"), scope("a", "bc"));
    assert_eq!(scope("a", "b"), scope("a", "b"));
}

#[test]
fn a_host_is_known_with_or_without_its_port() {
    for (host, name) in [
        ("a", "a"),
        ("a:80", "a"),
        ("[::1]", "[::1]"),
        ("[::1]:80", "[::1]"),
        ("a:", "a"),
        ("", ""),
    ] {
        assert_eq!(host_name(host), name, "{host}");
    }
}

#[test]
fn a_key_is_found_where_clients_put_it() {
    let key = |name, value: &str| presented_key(&headers(&[(name, value)])).map(<[u8]>::to_vec);
    assert_eq!(key("authorization", "Bearer  k "), Some(b"k".to_vec()));
    assert_eq!(key("authorization", "BEARER k"), Some(b"k".to_vec()));
    assert_eq!(key("x-api-key", "k"), Some(b"k".to_vec()));
    for value in ["Basic k", "Bearer", "k"] {
        assert_eq!(key("authorization", value), None, "{value}");
    }
}
