use super::*;
use proptest::prelude::*;

use crate::facts::{
    CHAT_COMPLETIONS, ClientFacts, MANAGED_BASE_URL, MANAGED_PROVIDER_KEY, UpstreamFacts,
};

fn facts(client_model: &str, upstream_model: &str, upstream_url: &str) -> Facts {
    Facts {
        agent: None,
        client: ClientFacts {
            model: client_model.into(),
            provider_key: MANAGED_PROVIDER_KEY.into(),
            inference_api: CHAT_COMPLETIONS.into(),
            base_url: MANAGED_BASE_URL.into(),
        },
        upstream: UpstreamFacts {
            provider: "p".into(),
            model: upstream_model.into(),
            base_url: upstream_url.into(),
            server: None,
        },
    }
}

fn key(at: &str) -> &'static Key {
    let known = CLIENT.iter().chain(UPSTREAM).find(|key| key.at == at);
    known.expect("a key of the tables")
}

fn predicate(at: &str, wanted: &[&str]) -> Predicate {
    Predicate::new(
        key(at),
        wanted.iter().map(|&text| text.to_owned()).collect(),
    )
}

fn client_family(family: &str, model: &str) -> bool {
    predicate("match.modelIdPrefixes", &[family]).holds(&facts(model, "", ""))
}

fn upstream_family(family: &str, model: &str) -> bool {
    predicate("match.upstream.modelIdPrefixes", &[family]).holds(&facts("", model, ""))
}

fn at_host(wanted: &str, url: &str) -> bool {
    predicate("match.upstream.hosts", &[wanted]).holds(&facts("", "", url))
}

#[test]
fn reg_21_a_family_is_its_bare_name_alone_or_before_a_dot_or_hyphen() {
    for member in [
        "gpt-5",
        "gpt-5.1-mini",
        "openai/gpt-5",
        "openai/gpt-5-mini",
        "a/b/GPT-5.1",
        " gpt-5 ",
    ] {
        assert!(client_family("gpt-5", member), "{member}");
    }
    for stranger in [
        "gpt-50",
        "xgpt-5",
        "gpt-5/other",
        "gpt",
        "",
        "gpt-5:free",
        "gpt-5@2026",
    ] {
        assert!(!client_family("gpt-5", stranger), "{stranger}");
    }
}

#[test]
fn upstream_families_include_their_tagged_variants() {
    for member in [
        "kimi-k2.6",
        "moonshotai/kimi-k2.6:free",
        "kimi-k2.6@20260501",
        "moonshotai/Kimi-K2.6-turbo",
        "accounts/x/models/kimi-k2.6",
    ] {
        assert!(upstream_family("kimi-k2.6", member), "{member}");
    }
    for stranger in ["kimi-k2.60", "kimi-k2", "kimi-k2p6", "kimi-k2.6/instruct"] {
        assert!(!upstream_family("kimi-k2.6", stranger), "{stranger}");
    }
}

#[test]
fn reg_02_white_space_case_and_trailing_slashes_do_not_matter_where_the_rule_says_so() {
    let ids = predicate("match.modelIds", &[" Moonshotai/Kimi-K2.6"]);
    assert!(ids.holds(&facts(" MoonshotAI/Kimi-K2.6 ", "", "")));
    assert!(
        ids.holds(&facts("moonshotai/kimi-k2.6\u{a0}", "", "")),
        "no-break space is white space"
    );

    let url = predicate("match.baseUrl", &["https://inference.local/v1/"]);
    let mut slashes = facts("", "", "");
    slashes.client.base_url = "https://inference.local/v1///".into();
    assert!(url.holds(&slashes));
    slashes.client.base_url = "https://Inference.local/v1".into();
    assert!(!url.holds(&slashes), "letter case matters");

    let provider = predicate("match.providerKey", &["inference"]);
    slashes.client.provider_key = " inference".into();
    assert!(!provider.holds(&slashes), "white space matters");
}

#[test]
fn hosts_are_read_out_of_base_urls() {
    for (url, expected) in [
        ("https://api.moonshot.ai/v1", Some("api.moonshot.ai")),
        ("http://127.0.0.1:8000", Some("127.0.0.1")),
        (
            "https://user:pa%40ss@api.kimi.com:443/coding?x=1",
            Some("api.kimi.com"),
        ),
        ("http://[::1]:8000/v1", Some("::1")),
        ("https://h?x=/y", Some("h")),
        ("https://h#//evil", Some("h")),
        ("https:///v1", None),
        ("api.moonshot.ai/v1", None),
        ("", None),
    ] {
        assert_eq!(host(url), expected, "{url}");
    }
}

#[test]
fn a_host_is_matched_whole_and_a_domain_by_what_is_under_it() {
    assert!(at_host("api.moonshot.ai", "https://API.Moonshot.ai./v1"));
    assert!(!at_host(
        "api.moonshot.ai",
        "https://api.moonshot.ai.evil.example/v1"
    ));
    assert!(!at_host(
        "api.moonshot.ai",
        "https://evil.example/api.moonshot.ai"
    ));
    assert!(at_host(".moonshot.ai", "https://api.moonshot.ai/v1"));
    assert!(!at_host(".moonshot.ai", "https://moonshot.ai/v1"));
    assert!(!at_host(".moonshot.ai", "https://notmoonshot.ai/v1"));
}

#[test]
fn the_more_specific_is_the_one_that_says_more_about_the_model_then_the_upstream_then_the_harness()
{
    let of = |predicates: &[Predicate], one_harness| Specificity::of(predicates, one_harness);
    let ids = || predicate("match.upstream.modelIds", &["m"]);
    let family = || predicate("match.modelIdPrefixes", &["m"]);
    let host = || predicate("match.upstream.hosts", &["h"]);
    let provider = || predicate("match.upstream.provider", &["p"]);
    let server = || predicate("match.upstream.server", &["s"]);
    let route = || predicate("match.providerKey", &["inference"]);
    let rising = [
        of(&[route()], false),
        of(&[route()], true),
        of(&[server()], false),
        of(&[provider(), server()], false),
        of(&[host()], false),
        of(&[host()], true),
        of(&[family()], false),
        of(&[family(), host()], false),
        of(&[ids()], false),
        of(&[ids(), family(), host()], true),
    ];
    assert!(rising.is_sorted_by(|a, b| a < b), "{rising:?}");
}

#[test]
fn predicates_exclude_each_other_only_when_no_fact_fits_both() {
    let cases = [
        (
            "match.modelIds",
            "openai/gpt-5-mini",
            "match.modelIdPrefixes",
            "gpt-5",
            true,
        ),
        (
            "match.modelIds",
            "openai/gpt-50",
            "match.modelIdPrefixes",
            "gpt-5",
            false,
        ),
        (
            "match.modelIdPrefixes",
            "gpt-5",
            "match.modelIdPrefixes",
            "gpt-5.1",
            true,
        ),
        (
            "match.modelIdPrefixes",
            "gpt-5",
            "match.modelIdPrefixes",
            "gpt-4",
            false,
        ),
        ("match.modelIds", "a", "match.modelIds", " A ", true),
        ("match.modelIds", "a", "match.upstream.modelIds", "b", true),
        (
            "match.upstream.hosts",
            ".b.example",
            "match.upstream.hosts",
            ".example",
            true,
        ),
        (
            "match.upstream.hosts",
            "a.example",
            "match.upstream.hosts",
            ".example",
            true,
        ),
        (
            "match.upstream.hosts",
            "example",
            "match.upstream.hosts",
            ".example",
            false,
        ),
        (
            "match.baseUrl",
            "https://h/v1/",
            "match.baseUrl",
            "https://h/v1",
            true,
        ),
        (
            "match.upstream.provider",
            "a",
            "match.upstream.provider",
            "b",
            false,
        ),
    ];
    for (at, one, other_at, other, expected) in cases {
        let (one, other) = ([predicate(at, &[one])], [predicate(other_at, &[other])]);
        assert_eq!(overlap(&one, &other), expected, "{one:?} {other:?}");
        assert_eq!(overlap(&other, &one), expected, "{other:?} {one:?}");
    }
}

/// Few letters, so that values meet.
fn name() -> impl Strategy<Value = String> {
    "[ab]{1,2}([-.][ab]{1,2}){0,2}"
}

fn model_predicate() -> impl Strategy<Value = Predicate> {
    let wanted = proptest::collection::vec(name(), 1..3);
    (
        proptest::sample::select(vec!["match.modelIds", "match.modelIdPrefixes"]),
        wanted,
    )
        .prop_map(|(at, wanted)| Predicate::new(key(at), wanted))
}

fn host_predicate() -> impl Strategy<Value = Predicate> {
    proptest::collection::vec("\\.?[ab](\\.[ab]){0,2}", 1..3)
        .prop_map(|wanted| Predicate::new(key("match.upstream.hosts"), wanted))
}

proptest! {
    #[test]
    fn a_family_has_exactly_the_members_the_rule_gives(
        family in "[a-z0-9.-]{1,6}",
        rest in "[a-z0-9.:@-]{0,6}",
        namespace in "([a-z]{1,3}/){0,2}",
    ) {
        let model = format!("{namespace}{family}{rest}");
        let follows = |separators: &[char]| rest.is_empty() || rest.starts_with(separators);
        prop_assert_eq!(client_family(&family, &model), follows(&['.', '-']));
        prop_assert_eq!(upstream_family(&family, &model), follows(&['.', '-', ':', '@']));
        prop_assert_eq!(client_family(&family, &model.to_uppercase()), follows(&['.', '-']));
        let longer = format!("x{family}");
        prop_assert!(!client_family(&longer, &family));
    }

    #[test]
    fn what_satisfies_both_is_an_overlap(a in model_predicate(), b in model_predicate(), model in name()) {
        let facts = facts(&model, "", "");
        if a.holds(&facts) && b.holds(&facts) {
            prop_assert!(overlap(&[a], &[b]));
        }
    }

    #[test]
    fn an_overlap_of_families_has_a_member(a in model_predicate(), b in model_predicate()) {
        // Of two that overlap, one wants a value that also fits the other.
        let witness = |p: &Predicate| p.wanted().iter().any(|model| {
            let facts = facts(model, "", "");
            a.holds(&facts) && b.holds(&facts)
        });
        prop_assert_eq!(overlap(std::slice::from_ref(&a), std::slice::from_ref(&b)), witness(&a) || witness(&b));
    }

    #[test]
    fn a_host_that_satisfies_both_is_an_overlap(
        a in host_predicate(), b in host_predicate(), host in "[ab](\\.[ab]){0,3}",
    ) {
        let facts = facts("", "", &format!("https://{host}:1/v1"));
        if a.holds(&facts) && b.holds(&facts) {
            prop_assert!(overlap(&[a], &[b]));
        }
    }
}
