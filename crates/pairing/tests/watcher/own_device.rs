//! The harness's own device: one that may not even list, and one whose approval only its files can make good.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use farrier_pairing::{Harness, Pace, StateDir, Version};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::scripted::{Answer, Scene, Scripted, harness};

const ID: &str = "e83c2556-6217-498a-b2af-b75f50b6c543";
const KEY: [u8; 32] = [7; 32];
/// An Ed25519 key in DER, up to the key.
const KEY_PREFIX: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

fn device_id() -> String {
    let digest = Sha256::digest(KEY);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn own_request(scopes: &[&str]) -> Value {
    json!({
        "requestId": ID,
        "deviceId": device_id(),
        "publicKey": URL_SAFE_NO_PAD.encode(KEY),
        "clientId": "cli",
        "clientMode": "cli",
        "role": "operator",
        "roles": ["operator"],
        "scopes": scopes,
    })
}

/// A state directory with an identity, and its own request.
fn state_with(request: &Value) -> TempDir {
    let place = tempfile::tempdir().unwrap();
    for directory in ["devices", "identity"] {
        fs::create_dir(place.path().join(directory)).unwrap();
    }
    let key = STANDARD.encode([KEY_PREFIX, &KEY].concat());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----\n");
    let identity = json!({"deviceId": device_id(), "publicKeyPem": pem});
    fs::write(
        place.path().join("identity/device.json"),
        identity.to_string(),
    )
    .unwrap();
    let pending = json!({ID: request}).to_string();
    fs::write(place.path().join("devices/pending.json"), pending).unwrap();
    place
}

fn at(place: &TempDir, version: Version) -> Harness {
    Harness {
        version: Some(version),
        ..harness(Some(StateDir::at(place.path())))
    }
}

#[tokio::test(start_paused = true)]
async fn ap_21_a_refused_list_has_its_own_proven_request_approved_and_no_other() {
    let refusal = format!("pairing required: device is not approved yet (requestId: {ID})");
    for (scopes, tries) in [
        (&["operator.pairing"][..], 1),
        (&["operator.pairing", "operator.admin"], 0),
    ] {
        let place = state_with(&own_request(scopes));
        let devices = Scripted::new();
        devices
            .now()
            .pending
            .insert(ID.to_owned(), own_request(scopes));
        devices
            .now()
            .lists
            .push_back(Answer::Fails(1, refusal.clone()));
        let scene = Scene::over(&devices, Pace::default(), at(&place, Version(2026, 5, 12)));
        scene.until(0.5).await;
        assert_eq!(devices.approves(ID), tries, "{scopes:?}");
        assert_eq!(
            devices.lists(),
            1,
            "the first step is the list that was refused"
        );
        assert_eq!(devices.approved().len(), tries);
    }
}

#[tokio::test(start_paused = true)]
async fn ap_22_an_approval_that_fails_is_made_good_for_versions_that_need_it_alone() {
    for (version, recovers) in [(Version(2026, 5, 2), true), (Version(2026, 5, 12), false)] {
        let request = own_request(&["operator.read"]);
        let place = state_with(&request);
        let paired = json!({device_id(): {
            "deviceId": device_id(),
            "scopes": ["operator.pairing"],
            "tokens": {"operator": {"role": "operator", "token": "kept", "scopes": ["operator.pairing"]}},
        }});
        let paired_json = place.path().join("devices/paired.json");
        fs::write(&paired_json, paired.to_string()).unwrap();
        let devices = Scripted::new();
        devices.now().pending.insert(ID.to_owned(), request);
        let failure = "gateway connect failed: scope upgrade pending approval".to_owned();
        devices.now().approve = Answer::Fails(1, failure);
        let scene = Scene::over(&devices, Pace::default(), at(&place, version));
        scene.until(0.5).await;
        let said = scene
            .heard
            .count("openclaw-approve-recovered-original request=");
        assert_eq!(said, usize::from(recovers), "{:#?}", scene.heard.lines());
        let after = fs::read_to_string(&paired_json).unwrap();
        assert_eq!(after.contains("operator.read"), recovers);
        assert!(!after.contains("operator.admin"));
        assert_eq!(scene.heard.pairing().approvals, u64::from(recovers));
    }
}
