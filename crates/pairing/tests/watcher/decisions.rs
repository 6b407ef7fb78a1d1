//! What is allowed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use farrier_pairing::{Decision, Listing, Policy, PolicyError, Reason, Request};
use serde_json::{Value, json};

fn request(fields: &Value) -> Request {
    let mut entry =
        json!({"requestId": "r1", "clientId": "cli", "clientMode": "cli", "roles": ["operator"]});
    for (name, value) in fields.as_object().unwrap() {
        entry[name] = value.clone();
    }
    let printed = json!({"pending": [entry], "paired": []}).to_string();
    Listing::parse(printed.as_bytes())
        .unwrap()
        .pending
        .remove(0)
}

fn decide(fields: &Value) -> Decision {
    Policy::default().decide(&request(fields))
}

#[test]
fn ap_10_scopes_beyond_the_bound_are_disallowed_and_what_is_no_list_is_malformed() {
    let disallowed = |scopes: &[&str]| {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        Decision::Refuse(Reason::DisallowedScopes { scopes })
    };
    assert_eq!(
        decide(&json!({"scopes": ["operator.admin"]})),
        disallowed(&["operator.admin"])
    );
    assert_eq!(
        decide(&json!({"scopes": ["operator.read", "operator.approvals"]})),
        disallowed(&["operator.approvals"])
    );
    assert_eq!(decide(&json!({"scopes": [7]})), disallowed(&["7"]));
    for malformed in [json!("x"), json!(7), json!({}), json!(true)] {
        assert_eq!(
            decide(&json!({"scopes": malformed})),
            Decision::Refuse(Reason::MalformedScopes)
        );
    }
    for allowed in [
        json!({}),
        json!({"scopes": []}),
        json!({"scopes": [" operator.read ", ""]}),
    ] {
        assert_eq!(decide(&allowed), Decision::Allow, "{allowed}");
    }
}

#[test]
fn a_mode_alone_never_suffices_and_every_client_of_the_harness_does() {
    for client in ["cli", "openclaw-cli", "openclaw-control-ui"] {
        assert_eq!(
            decide(&json!({"clientId": client, "clientMode": "x"})),
            Decision::Allow
        );
    }
    for client in [
        json!("evil"),
        json!("CLI"),
        json!(" cli"),
        json!(null),
        json!(7),
        json!(""),
    ] {
        for mode in ["cli", "webchat"] {
            let refused = decide(
                &json!({"clientId": client, "clientMode": mode, "scopes": ["operator.admin"]}),
            );
            assert!(
                matches!(refused, Decision::Refuse(Reason::UnknownClient { .. })),
                "{client} {mode}"
            );
        }
    }
}

#[test]
fn another_role_than_an_operators_is_left_to_a_person() {
    for roles in [
        json!({"roles": ["node"]}),
        json!({"roles": ["operator", "node"]}),
        json!({"role": "node"}),
    ] {
        assert!(
            matches!(decide(&roles), Decision::Refuse(Reason::OtherRole { .. })),
            "{roles}"
        );
    }
    assert_eq!(
        decide(&json!({"roles": "operator"})),
        Decision::Refuse(Reason::MalformedScopes)
    );
    assert_eq!(
        decide(&json!({"roles": null, "role": "operator"})),
        Decision::Allow
    );
}

fn policy(place: &Path, text: &str, mode: u32) -> Result<Policy, PolicyError> {
    let path = place.join("policy.json");
    let _none_yet = fs::remove_file(&path);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    Policy::from_file(&path)
}

#[test]
fn ap_16_a_policy_that_whoever_it_binds_could_write_is_refused() {
    let place = tempfile::tempdir().unwrap();
    for mode in [0o666, 0o622, 0o644, 0o464, 0o446, 0o600] {
        let refused = policy(place.path(), "{}", mode).unwrap_err();
        assert!(matches!(refused, PolicyError::Exposed { .. }), "{mode:o}");
        assert!(refused.to_string().contains("chmod 0444"), "{refused}");
    }
    assert_eq!(
        policy(place.path(), "{}", 0o444).unwrap(),
        Policy::default()
    );
    let missing = Policy::from_file(&place.path().join("none.json"));
    assert!(matches!(missing, Err(PolicyError::Unreadable { .. })));
}

#[test]
fn a_policy_may_name_clients_and_never_widen_scopes() {
    let place = tempfile::tempdir().unwrap();
    let narrow = r#"{"clients":["openclaw-tui"],"scopes":["operator.read"]}"#;
    let narrow = policy(place.path(), narrow, 0o444).unwrap();
    let tui = |scope: &str| request(&json!({"clientId": "openclaw-tui", "scopes": [scope]}));
    assert_eq!(narrow.decide(&tui("operator.read")), Decision::Allow);
    assert_ne!(narrow.decide(&tui("operator.write")), Decision::Allow);
    assert_ne!(narrow.decide(&request(&json!({}))), Decision::Allow);

    let wide = policy(place.path(), r#"{"scopes":["operator.admin"]}"#, 0o444).unwrap_err();
    assert!(
        wide.to_string().contains(r#"got "operator.admin""#),
        "{wide}"
    );
    for text in ["", "[]", r#"{"client":[]}"#] {
        let malformed = policy(place.path(), text, 0o444);
        assert!(
            matches!(malformed, Err(PolicyError::Malformed { .. })),
            "{text}"
        );
    }
}
