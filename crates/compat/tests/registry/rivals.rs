//! Manifests that configure the same pass: who wins, and when it is a mistake.

use serde_json::{Value, json};

use farrier_compat::registry::{PassVerdict, Verdict};

use crate::support::{complaints, load, managed_but, managed_kimi, passes, source};

fn renames(id: &str, agent: &str, matches: &Value, to: &str) -> farrier_compat::registry::Source {
    let value = json!({
        "id": id,
        "agent": agent,
        "description": "a manifest",
        "match": matches,
        "effects": {"gateway": [{"pass": "rename", "to": to}]},
    });
    source(&format!("{id}.json"), &value)
}

#[test]
fn the_more_specific_manifest_wins_whatever_the_order_of_paths() {
    let rising = [
        ("any", json!({"providerKey": "inference"})),
        ("openclaw", json!({"providerKey": "inference"})),
        ("any", json!({"upstream": {"provider": "moonshot"}})),
        ("any", json!({"upstream": {"hosts": ["api.moonshot.ai"]}})),
        (
            "openclaw",
            json!({"upstream": {"hosts": ["api.moonshot.ai"]}}),
        ),
        (
            "any",
            json!({"upstream": {"modelIdPrefixes": ["kimi-k2.6"]}}),
        ),
        (
            "any",
            json!({"upstream": {"modelIdPrefixes": ["kimi-k2.6"], "provider": "moonshot"}}),
        ),
        ("any", json!({"modelIds": ["moonshotai/kimi-k2.6"]})),
        ("openclaw", json!({"modelIds": ["moonshotai/kimi-k2.6"]})),
    ];
    for (index, (agent, lesser)) in rising.iter().enumerate() {
        for (other_agent, greater) in &rising[index + 1..] {
            for (low, high) in [("a", "b"), ("b", "a")] {
                let sources = [
                    renames(low, agent, lesser, "x"),
                    renames(high, other_agent, greater, "y"),
                ];
                let registry = load(&sources).expect("one is more specific");
                assert_eq!(
                    passes(&registry, &managed_kimi()),
                    [format!("{high}/rename")],
                    "{lesser} {greater}"
                );
            }
        }
    }
}

#[test]
fn rivals_that_could_meet_and_differ_do_not_load() {
    let family = |name: &str| json!({"upstream": {"modelIdPrefixes": [name]}});
    let sources = [
        renames("a", "any", &family("kimi-k2"), "x"),
        renames("b", "any", &family("kimi-k2.6"), "y"),
        renames("c", "any", &family("kimi-k3"), "z"),
    ];
    assert_eq!(
        complaints(load(&sources)),
        [
            "b.json: pass 'rename' conflicts with manifest 'a' (a.json): both can apply to one request, \
          neither is more specific, and they differ in to; narrow the match of one or switch one off"
        ]
    );
}

#[test]
fn rivals_that_cannot_meet_load() {
    let on = |agent: &str, provider: &str| {
        let id = format!("{agent}-{provider}");
        renames(
            &id,
            agent,
            &json!({"upstream": {"provider": provider}}),
            &id,
        )
    };
    let sources = [on("openclaw", "a"), on("hermes", "a"), on("hermes", "b")];
    load(&sources).expect("no request is from two harnesses or of two providers");
}

#[test]
fn rivals_that_agree_count_once() {
    let sources = [
        renames("b", "any", &json!({"providerKey": "inference"}), "x"),
        renames(
            "a",
            "any",
            &json!({"baseUrl": "https://inference.local/v1"}),
            "x",
        ),
    ];
    let registry = load(&sources).expect("they agree");
    assert_eq!(passes(&registry, &managed_kimi()), ["a/rename"]);
    let explained = registry.explain(&managed_kimi());
    assert_eq!(
        explained[1].verdict,
        Verdict::Applies {
            passes: vec![PassVerdict {
                pass: "rename",
                per: None,
                left_to: Some("a".into())
            }]
        }
    );
}

#[test]
fn a_pass_may_be_there_once_for_each_of_its_subjects() {
    let splits = |id: &str, tools: &[&str]| {
        let gateway: Vec<Value> = tools
            .iter()
            .map(|tool| json!({"pass": "split", "tool": tool}))
            .collect();
        let value = json!({
            "id": id,
            "agent": "any",
            "description": "a manifest",
            "match": {"providerKey": "inference"},
            "effects": {"gateway": gateway},
        });
        source(&format!("{id}.json"), &value)
    };
    let sources = [
        splits("z", &["bash"]),
        splits("a", &["shell", "exec"]),
        renames("m", "any", &json!({"providerKey": "inference"}), "x"),
    ];
    let registry = load(&sources).expect("different tools");
    // In the order of the table, then of paths, then of the manifest.
    let profile = registry.profile(&managed_kimi());
    let order: Vec<_> = profile
        .effects()
        .iter()
        .map(|effect| (effect.kind.name, effect.per()))
        .collect();
    assert_eq!(
        order,
        [
            ("rename", None),
            ("split", Some("shell".to_owned())),
            ("split", Some("exec".to_owned())),
            ("split", Some("bash".to_owned()))
        ]
    );
}

#[test]
fn an_explanation_names_each_predicate_that_did_not_hold() {
    let matches = json!({
        "modelIds": ["moonshotai/kimi-k2.6", "kimi"],
        "upstream": {"server": "vllm", "hosts": ["api.moonshot.ai"]},
    });
    let registry = load(&[renames("a", "openclaw", &matches, "x")]).expect("loads");
    let facts = managed_but(|facts| {
        facts.agent = None;
        facts.client.model = "gpt-5".into();
    });
    let explained = registry.explain(&facts);
    assert_eq!(
        explained[0].to_string(),
        "a (openclaw) does not apply\n  \
         agent: expected openclaw, got nothing\n  \
         match.modelIds: expected moonshotai/kimi-k2.6 or kimi, got \"gpt-5\"\n  \
         match.upstream.server: expected vllm, got nothing"
    );
    assert_eq!(
        serde_json::to_value(&explained[0]).expect("serialises"),
        json!({
            "manifest": "a",
            "path": "a.json",
            "agent": "openclaw",
            "verdict": "does-not-apply",
            "unmet": [
                {"predicate": "agent", "expected": ["openclaw"], "got": null},
                {"predicate": "match.modelIds", "expected": ["moonshotai/kimi-k2.6", "kimi"], "got": "gpt-5"},
                {"predicate": "match.upstream.server", "expected": ["vllm"], "got": null},
            ],
        })
    );
}

#[test]
fn an_explanation_names_the_manifest_that_was_more_specific() {
    let sources = [
        renames(
            "wide",
            "any",
            &json!({"upstream": {"modelIdPrefixes": ["kimi-k2"]}}),
            "x",
        ),
        renames(
            "narrow",
            "any",
            &json!({"upstream": {"modelIds": ["kimi-k2.6"]}}),
            "y",
        ),
    ];
    let registry = load(&sources).expect("loads");
    let explained: Vec<String> = registry
        .explain(&managed_kimi())
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        explained,
        [
            "narrow (any) applies\n  rename",
            "wide (any) applies\n  rename: left to narrow"
        ]
    );
}
