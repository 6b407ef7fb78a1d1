use std::fs;

use serde_json::json;
use tempfile::TempDir;

use super::*;

const READ: &str = "operator.read";
const WRITE: &str = "operator.write";
const UPGRADE: &str = "gateway closed: scope upgrade pending approval";

/// A state directory with a paired device that may pair, and whatever waits.
struct Place {
    place: TempDir,
    state: StateDir,
}

impl Place {
    fn with(pending: &Value) -> Self {
        Self::over(pending, &paired(&[PAIRING]))
    }

    fn over(pending: &Value, paired: &Value) -> Self {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::at(place.path());
        fs::create_dir(place.path().join("devices")).unwrap();
        let place = Self { place, state };
        place.write("pending.json", &pending.to_string());
        place.write("paired.json", &paired.to_string());
        place
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.place.path().join("devices").join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.place.path().join("devices").join(name)).unwrap()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    fn recover(&self, said: &str) -> Option<Recovery> {
        recover(&self.state, &asked("req-1", &[WRITE]), said).unwrap()
    }

    /// Recovers nothing, and leaves every byte as it was.
    fn expect_untouched(&self, said: &str) {
        let before = [self.read("pending.json"), self.read("paired.json")];
        assert_eq!(self.recover(said), None);
        assert_eq!(
            [self.read("pending.json"), self.read("paired.json")],
            before
        );
    }

    fn expect_granted(&self) {
        let paired = self.json("paired.json");
        let all = json!([PAIRING, READ, WRITE]);
        let device = &paired["dev"];
        assert_eq!(device["scopes"], all);
        assert_eq!(device["approvedScopes"], all);
        assert_eq!(device["tokens"][OPERATOR]["scopes"], all);
        assert_eq!(device["tokens"][OPERATOR]["token"], "kept");
        assert!(!paired.to_string().contains(ADMIN));
    }
}

fn paired(scopes: &[&str]) -> Value {
    json!({"dev": {
        "deviceId": "dev",
        "scopes": scopes,
        "tokens": {OPERATOR: {"token": "kept", "role": OPERATOR, "scopes": scopes}},
    }, "other": {"deviceId": "other", "scopes": [PAIRING]}})
}

fn entry(id: &str, device: &str, scopes: &[&str]) -> Value {
    json!({"requestId": id, "deviceId": device, "clientId": "cli", "clientMode": "cli", "roles": [OPERATOR], "scopes": scopes})
}

fn asked(id: &str, scopes: &[&str]) -> Request {
    Request::of(&entry(id, "dev", scopes)).unwrap()
}

fn replacement(id: &str) -> Value {
    entry(id, "dev", &[WRITE, READ, PAIRING, ADMIN])
}

#[test]
fn ap_22_an_approval_that_was_applied_is_found_and_nothing_is_written() {
    let place = Place::over(&json!({}), &paired(&[PAIRING, READ, WRITE]));
    let before = [place.read("pending.json"), place.read("paired.json")];
    assert_eq!(place.recover("boom"), Some(Recovery::Applied));
    assert_eq!(
        [place.read("pending.json"), place.read("paired.json")],
        before
    );
}

#[test]
fn ap_22_the_one_replacement_that_the_output_names_makes_the_grant_without_admin() {
    let place =
        Place::with(&json!({"req-2": replacement("req-2"), "x": entry("x", "other", &[READ])}));
    assert_eq!(
        place.recover("unknown (requestId: req-2)."),
        Some(Recovery::Replacement)
    );
    place.expect_granted();
    let left: Vec<_> = place
        .json("pending.json")
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(left, ["x"]);
}

#[test]
fn ap_22_the_only_replacement_does_where_the_output_names_no_request() {
    let place = Place::with(
        &json!({"req-1": entry("req-1", "dev", &[WRITE]), "req-2": replacement("req-2")}),
    );
    assert_eq!(place.recover("gateway closed"), Some(Recovery::Replacement));
    place.expect_granted();
    assert_eq!(place.json("pending.json"), json!({}));
}

#[test]
fn ap_22_a_request_that_still_waits_is_granted_where_the_gateway_wants_the_upgrade_approved() {
    let pending = json!({"req-1": entry("req-1", "dev", &[WRITE])});
    let place = Place::with(&pending);
    assert_eq!(place.recover(UPGRADE), Some(Recovery::Original));
    place.expect_granted();
    assert_eq!(place.json("pending.json"), json!({}));
    Place::with(&pending).expect_untouched("gateway closed");
    Place::with(&pending).expect_untouched("scope upgrade pending approval");
}

#[test]
fn ap_22_what_is_not_proven_leaves_every_byte() {
    let two = json!({"req-2": replacement("req-2"), "req-3": replacement("req-3")});
    Place::with(&two).expect_untouched("boom");
    Place::with(&two).expect_untouched("req-2 or req-3");
    let longer = json!({"req-10": replacement("req-10")});
    Place::with(&longer).expect_untouched("(requestId: req-1)");
    Place::with(&json!({"req-1": replacement("req-1")})).expect_untouched("(requestId: req-10)");
    let another_device = json!({"req-2": entry("req-2", "other", &[WRITE, ADMIN])});
    Place::with(&another_device).expect_untouched("req-2");
    let beyond = json!({"req-2": entry("req-2", "dev", &[WRITE, ADMIN, "operator.approvals"])});
    Place::with(&beyond).expect_untouched("req-2");
    let narrower = json!({"req-2": entry("req-2", "dev", &[READ, ADMIN])});
    Place::with(&narrower).expect_untouched("req-2");
    Place::with(&json!({})).expect_untouched(UPGRADE);
}

#[test]
fn ap_22_a_device_that_may_not_pair_or_may_more_is_granted_nothing() {
    let pending = json!({"req-1": entry("req-1", "dev", &[WRITE])});
    for scopes in [
        &[READ][..],
        &[],
        &[PAIRING, ADMIN],
        &[PAIRING, "operator.approvals"],
    ] {
        Place::over(&pending, &paired(scopes)).expect_untouched(UPGRADE);
    }
    let mut token_only = paired(&[PAIRING]);
    token_only["dev"]["tokens"][OPERATOR]["scopes"] = json!([PAIRING, ADMIN]);
    Place::over(&pending, &token_only).expect_untouched(UPGRADE);
    let mut tokenless = paired(&[PAIRING]);
    tokenless["dev"]["tokens"] = json!({});
    Place::over(&pending, &tokenless).expect_untouched(UPGRADE);
    Place::over(&pending, &json!({})).expect_untouched(UPGRADE);
}

#[test]
fn ap_22_a_request_for_nothing_or_for_admin_is_never_recovered() {
    for scopes in [&[][..], &[ADMIN], &[WRITE, ADMIN]] {
        let place = Place::with(&json!({"req-1": entry("req-1", "dev", scopes)}));
        let request = asked("req-1", scopes);
        assert_eq!(recover(&place.state, &request, UPGRADE).unwrap(), None);
        assert!(!place.read("paired.json").contains(ADMIN));
    }
}

#[test]
fn ap_22_files_that_cannot_be_read_are_empty_and_stay_as_they_are() {
    let place = Place::with(&json!({}));
    place.write("paired.json", "{\"dev\": ");
    place.expect_untouched(UPGRADE);
}

#[test]
fn ap_23_a_crash_between_the_writes_leaves_whole_files_and_a_request_that_waits_in_vain() {
    let place = Place::with(&json!({"req-1": entry("req-1", "dev", &[WRITE])}));
    let pending = place.json("pending.json");
    let grant = granted(
        &pending,
        &place.json("paired.json"),
        &asked("req-1", &[WRITE]),
        UPGRADE,
    )
    .unwrap();
    // As far as the first of both, with a draft of the second half written.
    replace(&place.state, "paired.json", &grant.paired).unwrap();
    let draft = format!(".pending.json.farrier-{}.tmp", std::process::id());
    place.write(&draft, "{\"req");
    place.expect_granted();
    assert_eq!(place.json("pending.json"), pending, "stale, and whole");

    // The next attempt goes on from there, and the draft is no obstacle.
    assert_eq!(place.recover(UPGRADE), Some(Recovery::Original));
    place.expect_granted();
    assert_eq!(place.json("pending.json"), json!({}));
    let left = fs::read_dir(place.place.path().join("devices"))
        .unwrap()
        .count();
    assert_eq!(left, 2, "no draft is left");
}

#[test]
fn a_directory_that_leads_elsewhere_is_not_written_to() {
    let place = Place::with(&json!({"req-1": entry("req-1", "dev", &[WRITE])}));
    let elsewhere = place.place.path().join("elsewhere");
    let devices = place.place.path().join("devices");
    fs::rename(&devices, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &devices).unwrap();
    place.expect_untouched(UPGRADE);
}

#[test]
fn only_versions_between_two_that_were_seen_to_do_without_may_need_it() {
    for (version, needed) in [
        ("2026.4.21", false),
        ("2026.4.24", true),
        ("2026.5.2", true),
        ("2026.5.12", false),
        ("2026.9.6", false),
    ] {
        assert_eq!(
            Recovery::needed_by(version.parse().unwrap()),
            needed,
            "{version}"
        );
    }
}

#[test]
fn an_id_is_mentioned_only_as_a_whole() {
    for said in [
        "req-1",
        "(requestId: req-1)",
        "see req-1.",
        "req-1: no",
        "\"req-1\"",
    ] {
        assert!(mentions(said, "req-1"), "{said}");
    }
    for said in ["req-10", "xreq-1", "req-1.2", "req-1:a", "a-req-1", ""] {
        assert!(!mentions(said, "req-1"), "{said}");
    }
}
