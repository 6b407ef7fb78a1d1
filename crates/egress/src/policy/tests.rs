use std::net::IpAddr;

use super::*;
use crate::target::{Authority, Path};

const POLICY: &str = r#"
version: 1
filesystem_policy: { include_workdir: true, read_only: [/usr], read_write: [/sandbox] }
landlock: { compatibility: best_effort }
process: { run_as_user: sandbox, run_as_group: sandbox }
network_policies:
  github:
    name: GitHub
    endpoints:
      - host: api.github.com
        port: 443
        protocol: rest
        tls: terminate
        enforcement: enforce
        rules:
          - allow: { method: GET, path: "/repos/*/issues" }
          - allow: { method: post, path: /graphql, query: { tag: "v*" } }
          - allow: { method: "*", path: "/search/**", query: { sort: { any: [stars, forks] } } }
        deny_rules:
          - { method: GET, path: /repos/secret/issues }
          - { method: "*", path: "/search/**", query: { q: { glob: "*password*" } } }
      - { host: codeload.github.com, ports: [443, 8443] }
    binaries: [ { path: /usr/bin/git }, { path: "/usr/local/**", harness: true } ]
  models:
    endpoints:
      - { host: "*.example.com", port: 443, protocol: rest, access: read-only }
      - { host: "**.deep.example.com", port: 443, protocol: rest, access: read-write }
      - { host: full.example.com, port: 443, protocol: rest, access: full }
      - { host: "*-llm.example.net", port: 443 }
  quiet:
    endpoints:
      - { host: audited.test, port: 443, protocol: rest, access: read-only, enforcement: audit }
      - { host: pinned.test, port: 443, tls: skip }
      - { host: graph.test, port: 443, protocol: graphql, access: full }
      - { host: graph.test, port: 443, protocol: rest, path: "/rest/**", access: full }
      - { host: ws.test, port: 443, protocol: websocket, access: read-write, websocket_credential_rewrite: true }
      - { host: slashes.test, port: 443, protocol: rest, access: full, allow_encoded_slash: true }
      - { port: 5432, allowed_ips: [10.1.0.0/16, 10.9.9.9] }
"#;

fn policy() -> Policy {
    Policy::load(POLICY).unwrap()
}

fn to(text: &str) -> Authority {
    Authority::parse(text, Some(443)).unwrap()
}

/// The rule that allows a request, or the code of why none does.
fn judge(request: &str) -> String {
    let (method, url) = request.split_once(' ').unwrap();
    let (host, rest) = url.split_once('/').unwrap();
    let (path, query) = rest
        .split_once('?')
        .map_or((rest, None), |(path, query)| (path, Some(query)));
    let path = Path::parse(&format!("/{path}")).unwrap();
    let asked = Asked {
        method,
        path: &path,
        query,
    };
    match policy().request(&to(host), asked) {
        Ok(Allowed {
            in_spite_of: Some(denied),
            ..
        }) => format!("audit: {}", denied.reason.as_str()),
        Ok(allowed) => allowed
            .by
            .trim_start_matches("network_policies.")
            .to_owned(),
        Err(denied) => denied.reason.as_str().to_owned(),
    }
}

#[test]
fn a_request_is_allowed_by_the_rule_that_fits_it_and_by_nothing_else() {
    for (request, expected) in [
        (
            "GET api.github.com/repos/x/issues",
            "github.endpoints[0].rules[0]",
        ),
        (
            "HEAD api.github.com/repos/x/issues",
            "github.endpoints[0].rules[0]",
        ),
        ("POST api.github.com/repos/x/issues", "no_rule"),
        ("GET api.github.com/repos/x/y/issues", "no_rule"),
        ("GET api.github.com/repos/x/issues/1", "no_rule"),
        ("GET api.github.com/repos/secret/issues", "deny_rule"),
        (
            "POST api.github.com/graphql?tag=v1",
            "github.endpoints[0].rules[1]",
        ),
        ("POST api.github.com/graphql?tag=v1&tag=x", "no_rule"),
        ("POST api.github.com/graphql", "no_rule"),
        (
            "DELETE api.github.com/search/a/b?sort=stars",
            "github.endpoints[0].rules[2]",
        ),
        ("GET api.github.com/search/a?sort=other", "no_rule"),
        (
            "GET api.github.com/search/a?sort=stars&q=my%20password",
            "deny_rule",
        ),
        (
            "GET api.github.com/search/a?sort=stars&q=a&q=the+password",
            "deny_rule",
        ),
        (
            "GET codeload.github.com:8443/any/thing",
            "github.endpoints[1]",
        ),
        ("GET codeload.github.com:80/any", "no_endpoint"),
        ("GET github.com/", "no_endpoint"),
        ("GET evil.test/", "no_endpoint"),
    ] {
        assert_eq!(judge(request), expected, "{request}");
    }
}

#[test]
fn presets_are_sets_of_methods() {
    for (request, expected) in [
        ("GET a.example.com/x", "models.endpoints[0].access"),
        ("OPTIONS a.example.com/x", "models.endpoints[0].access"),
        ("POST a.example.com/x", "no_rule"),
        ("PATCH x.y.deep.example.com/x", "models.endpoints[1].access"),
        ("DELETE x.y.deep.example.com/x", "no_rule"),
        ("DELETE full.example.com/x", "models.endpoints[2].access"),
    ] {
        assert_eq!(judge(request), expected, "{request}");
    }
}

#[test]
fn a_star_is_one_label_and_two_are_one_or_more() {
    for (host, expected) in [
        ("a.example.com", true),
        ("a.b.example.com", false),
        ("example.com", false),
        ("a.deep.example.com", true),
        ("a.b.c.deep.example.com", true),
        ("eu-llm.example.net", true),
        ("llm.example.net", false),
        ("eu-llm.example.net.evil.test", false),
        ("API.GITHUB.COM.", true),
    ] {
        assert_eq!(policy().connect(&to(host)).is_ok(), expected, "{host}");
    }
}

#[test]
fn what_is_only_watched_passes_and_says_what_would_have_refused_it() {
    assert_eq!(judge("GET audited.test/x"), "quiet.endpoints[0].access");
    assert_eq!(judge("POST audited.test/x"), "audit: no_rule");
}

#[test]
fn a_protocol_that_is_not_inspected_refuses_its_own_paths_and_leaves_others_to_other_rules() {
    assert_eq!(judge("POST graph.test/graphql"), "protocol_not_inspected");
    assert_eq!(judge("POST graph.test/rest/x"), "quiet.endpoints[3].access");
    assert!(
        policy()
            .notices()
            .iter()
            .any(|notice| notice.what.starts_with("graphql is not inspected"))
    );
}

#[test]
fn a_hidden_slash_is_for_endpoints_that_allow_it() {
    assert_eq!(judge("GET full.example.com/a%2fb"), "encoded_slash");
    assert_eq!(judge("GET slashes.test/a%2fb"), "quiet.endpoints[5].access");
}

#[test]
fn a_connection_is_looked_into_as_far_as_its_rules_need() {
    let inspect = |host: &str| policy().connect(&to(host)).unwrap().inspect;
    assert_eq!(inspect("api.github.com"), Inspect::Must);
    assert_eq!(inspect("codeload.github.com"), Inspect::IfNeeded);
    assert_eq!(inspect("pinned.test"), Inspect::Never);
    assert_eq!(inspect("db.internal:5432"), Inspect::IfNeeded);
}

#[test]
fn what_is_said_over_a_websocket_is_judged_too() {
    assert_eq!(judge("GET ws.test/link"), "quiet.endpoints[4].access");
    assert_eq!(
        judge("WEBSOCKET_TEXT ws.test/link"),
        "quiet.endpoints[4].access"
    );
    assert_eq!(judge("WEBSOCKET_TEXT a.example.com/link"), "no_rule");
    let path = Path::parse("/link").unwrap();
    let asked = Asked {
        method: "GET",
        path: &path,
        query: None,
    };
    assert!(
        policy()
            .request(&to("ws.test"), asked)
            .unwrap()
            .rewrites
            .websocket
    );
}

#[test]
fn special_addresses_are_named_by_network_and_by_a_host_in_full() {
    let named = policy().named(&to("db.internal:5432"));
    assert_eq!(named.networks.len(), 2);
    assert!(!named.in_full);
    assert!(policy().named(&to("codeload.github.com")).in_full);
    assert!(!policy().named(&to("a.example.com")).in_full);
    let policy = Policy::load(
        "{version: 1, network_policies: {a: {endpoints: [{host: 127.0.0.1, port: 80}]}}}",
    )
    .unwrap();
    let named = policy.named(&to("127.0.0.1:80"));
    assert_eq!(
        crate::address::judge(IpAddr::from([127, 0, 0, 1]), &named),
        Ok(())
    );
}

#[test]
fn an_explanation_says_what_each_endpoint_made_of_it() {
    let path = Path::parse("/repos/secret/issues").unwrap();
    let asked = Asked {
        method: "GET",
        path: &path,
        query: None,
    };
    let explained = policy().explain(&to("api.github.com"), asked);
    assert_eq!(
        explained[0],
        Explained {
            at: "network_policies.github.endpoints[0].deny_rules[0]".into(),
            outcome: Outcome::Denies,
        }
    );
    assert_eq!(
        explained[1].outcome,
        Outcome::OtherHost {
            expected: "codeload.github.com".to_owned()
        }
    );
    assert_eq!(explained.len(), policy().endpoint_count());
}

#[test]
fn a_suggestion_allows_what_was_refused_and_loads() {
    let refusals = [
        Refusal {
            to: to("api.new.test"),
            request: Some(("POST".into(), "/v1/chat/*".into())),
            address: None,
        },
        Refusal {
            to: to("api.new.test"),
            request: Some(("GET".into(), "/v1/models".into())),
            address: None,
        },
        Refusal {
            to: to("git.new.test:8443"),
            request: None,
            address: None,
        },
    ];
    let text = suggest(&refusals).unwrap();
    let policy = Policy::load(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let path = Path::parse("/v1/chat/completions").unwrap();
    let asked = |method| Asked {
        method,
        path: &path,
        query: None,
    };
    assert!(policy.request(&to("api.new.test"), asked("POST")).is_ok());
    assert!(policy.request(&to("api.new.test"), asked("GET")).is_err());
    assert!(policy.connect(&to("git.new.test:8443")).is_ok());
    assert_eq!(suggest(&[]), None);
}

#[test]
fn what_leads_inside_is_not_suggested_however_it_was_refused() {
    let refused = |authority: &str, address: Option<[u8; 4]>| Refusal {
        to: to(authority),
        request: None,
        address: address.map(IpAddr::from),
    };
    let inside = [
        refused("db.test:5432", Some([10, 0, 0, 7])),
        refused("db.test:5432", None), // before anything allowed it, its address was not looked for
        refused("169.254.169.254:80", None),
        refused("127.0.0.1:8080", None),
        refused("[::ffff:10.0.0.1]:443", None),
        refused("api.localhost:443", None),
        refused("metadata.google.internal:80", None),
    ];
    assert!(
        inside
            .iter()
            .enumerate()
            .all(|(at, one)| at == 1 || one.leads_inside())
    );
    assert_eq!(suggest(&inside), None);
    let public = [refused("192.88.98.1:443", None), refused("a.test", None)];
    let text = suggest(inside.iter().chain(&public)).unwrap();
    assert_eq!(Policy::load(&text).unwrap().endpoint_count(), 2, "{text}");
}

#[test]
fn an_empty_policy_allows_nothing() {
    for text in [
        "version: 1",
        "version: 1\nnetwork_policies: {}",
        "{version: 1, network_policies: }",
    ] {
        let policy = Policy::load(text).unwrap();
        assert!(policy.connect(&to("example.com")).is_err(), "{text}");
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once_with_its_line() {
    let text = r#"
version: 2
network_policies:
  a:
    endpoints:
      - { host: "*.com", port: 443 }
      - { host: example.com }
      - { host: example.com, port: 443, protocol: rest }
      - { host: example.com, port: 443, access: full }
      - { host: example.com, port: 443, protocol: rset, access: full }
      - { host: example.com, port: 443, allowed_ips: [10.0.0.0/33] }
      - { host: "0x7f.1", port: 443 }
      - { port: 443 }
      - { host: example.com, port: 443, protocol: rest, tls: skip, access: full }
      - { host: example.com, port: 443, protocol: rest, access: most }
      - { host: example.com, port: 443, protocol: rest, access: full, rules: [ { allow: { method: GET } } ] }
network_middlewares: { scan: { middleware: x } }
"#;
    let error = Policy::load(text).unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 13, "{error}");
    assert_eq!(lines[0], "version: expected 1, got 2");
    assert_eq!(
        lines[2],
        "line 6: network_policies.a.endpoints[0]: expected a wildcard below a domain of its owner's, such as \
         *.example.com, got \"*.com\""
    );
}

#[test]
fn an_unknown_field_and_a_key_that_occurs_twice_are_refused() {
    for text in [
        "version: 1\nnetwork_polices: {}",
        "{version: 1, network_policies: {a: {endpoints: [{host: a.b, port: 1, acess: full}]}}}",
        "{version: 1, network_policies: {a: {endpoints: []}, a: {endpoints: []}}}",
        "version: one",
        "",
        "[]",
        "\u{0}",
    ] {
        assert!(
            matches!(Policy::load(text), Err(LoadError::Unreadable { .. })),
            "{text}"
        );
    }
}
