//! The harness's own device that may not even ask, and whose request that is.
//!
//! A gateway that is not reached over its own loopback refuses a list to a device that it does not know, and makes a
//! request of the refusal. Nobody can list it then, nor approve it: whoever would, is the device itself. Its id is in the
//! refusal, and the state directory proves whose it is.
//!
//! *Proof*, all of it: the state keeps that id; the identity's id is the digest of its key; the request has that id and
//! that key, is of the harness's command, and asks for nothing but the operator's role and the scope to pair.
//!
//! A refusal names its id twice, once in what the gateway answered and once in why it closed. All mentions must be of
//! one id; one that is cut short is another.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::request::{Request, RequestId};
use crate::state::StateDir;

/// What a gateway says when it refuses a device that it does not know.
const REFUSALS: [&str; 2] = ["pairing required", "device is not approved yet"];
/// How it announces the request's id.
const WORD: &str = "requestId";
/// An Ed25519 key in DER, up to the key: <https://www.rfc-editor.org/rfc/rfc8410#section-4>.
const KEY_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// The request that a refused list made, if it is proven to be this device's own.
pub(crate) fn own_request(said: &str, state: &StateDir) -> Option<Request> {
    let id = refused_id(said)?;
    let pending = state.json("devices", "pending.json").ok()??;
    let identity = state.json("identity", "device.json").ok()??;
    proven(&id, &pending, &identity)
}

/// The one id that a refusal names.
fn refused_id(said: &str) -> Option<RequestId> {
    REFUSALS
        .iter()
        .all(|phrase| said.contains(phrase))
        .then_some(())?;
    let mut ids = said.split(WORD).skip(1).map(named);
    let first = ids.next()??;
    ids.all(|id| id.as_ref() == Some(&first)).then_some(first)
}

/// The id behind the word: `": "…"` in JSON, `: …)` in a sentence.
fn named(after: &str) -> Option<RequestId> {
    let after = after.trim_start_matches(['"', '\\']).trim_start();
    let after = after.strip_prefix([':', '='])?.trim_start();
    let after = after.trim_start_matches(['"', '\\', '\'']);
    let end = after.find(|char| !RequestId::allows(char));
    RequestId::parse(&after[..end.unwrap_or(after.len())])
}

fn proven(id: &RequestId, pending: &Value, identity: &Value) -> Option<Request> {
    let entry = pending.get(id.as_str())?.as_object()?;
    let (device_id, key) = identified(identity)?;
    let is = |name: &str, wanted: &str| entry.get(name).and_then(Value::as_str) == Some(wanted);
    let own = is("requestId", id.as_str())
        && is("deviceId", &device_id)
        && is("publicKey", &key)
        && is("clientId", "cli")
        && is("clientMode", "cli")
        && is_only(entry, "roles", "operator")
        && entry.get("role").is_none_or(|role| role == "operator")
        && is_only(entry, "scopes", "operator.pairing");
    own.then(|| Request::of(&pending[id.as_str()])).flatten()
}

fn is_only(entry: &Map<String, Value>, name: &str, wanted: &str) -> bool {
    let list = entry.get(name).and_then(Value::as_array);
    list.is_some_and(|list| list.len() == 1 && list[0] == wanted)
}

/// The id and the key of the device that this state belongs to.
fn identified(identity: &Value) -> Option<(String, String)> {
    let key = public_key(identity.get("publicKeyPem")?.as_str()?)?;
    let digest: String = Sha256::digest(key)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let device_id = identity.get("deviceId")?.as_str()?;
    (device_id == digest).then(|| (digest, URL_SAFE_NO_PAD.encode(key)))
}

fn public_key(pem: &str) -> Option<[u8; 32]> {
    let body: String = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let der = STANDARD.decode(body.trim()).ok()?;
    der.strip_prefix(&KEY_PREFIX)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "e83c2556-6217-498a-b2af-b75f50b6c543";

    fn refusal(id: &str) -> String {
        format!(
            "gateway connect failed: GatewayClientRequestError: device pairing required (requestId: {id})\n\
             Gateway call failed: gateway closed (1008): pairing required: device is not approved yet (requestId: {id})\n"
        )
    }

    fn identity(key: [u8; 32]) -> Value {
        let der: Vec<u8> = KEY_PREFIX.into_iter().chain(key).collect();
        let digest = Sha256::digest(key);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({
            "version": 1,
            "deviceId": digest,
            "publicKeyPem": format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der)),
        })
    }

    fn pending(key: [u8; 32]) -> Value {
        json!({ID: {
            "requestId": ID,
            "deviceId": identity(key)["deviceId"],
            "publicKey": URL_SAFE_NO_PAD.encode(key),
            "clientId": "cli",
            "clientMode": "cli",
            "role": "operator",
            "roles": ["operator"],
            "scopes": ["operator.pairing"],
        }})
    }

    fn is_proven(pending: &Value, identity: &Value) -> bool {
        let id = RequestId::parse(ID).unwrap();
        proven(&id, pending, identity).is_some()
    }

    #[test]
    fn ap_21_only_this_devices_own_request_is_proven() {
        let (key, other) = ([7; 32], [8; 32]);
        assert!(is_proven(&pending(key), &identity(key)));
        assert!(
            !is_proven(&pending(key), &identity(other)),
            "another device"
        );

        let mut forged = identity(key);
        forged["deviceId"] = identity(other)["deviceId"].clone();
        assert!(!is_proven(&pending(key), &forged), "wrong digest");

        for (field, value) in [
            ("scopes", json!(["operator.pairing", "operator.read"])),
            ("scopes", json!(["operator.pairing", "operator.pairing"])),
            ("scopes", json!(["operator.pairing", ""])),
            ("scopes", json!(["operator.admin"])),
            ("roles", json!(["admin"])),
            ("roles", json!(["operator", "admin"])),
            ("role", json!("node")),
            ("clientId", json!("openclaw-control-ui")),
            ("clientMode", json!("webchat")),
            ("publicKey", json!(URL_SAFE_NO_PAD.encode(other))),
            ("deviceId", identity(other)["deviceId"].clone()),
            ("requestId", json!("another")),
        ] {
            let mut pending = pending(key);
            pending[ID][field] = value.clone();
            assert!(!is_proven(&pending, &identity(key)), "{field}: {value}");
        }
    }

    #[test]
    fn ap_21_a_refusal_names_one_id_or_none() {
        let named = |said: &str| refused_id(said).map(|id| id.to_string());
        assert_eq!(named(&refusal(ID)).as_deref(), Some(ID));
        let json = r#"{"error":"pairing required: device is not approved yet","details":{"requestId":"abc-1"}}"#;
        assert_eq!(named(json).as_deref(), Some("abc-1"));

        let two = format!("{}{}", refusal(ID), refusal("another"));
        assert_eq!(named(&two), None, "two ids");
        let cut = format!("{}(requestId: {})", refusal(ID), &ID[..20]);
        assert_eq!(named(&cut), None, "one of them is cut short");
        assert_eq!(named(&refusal("--latest")), None, "an option");
        assert_eq!(named(&refusal("")), None, "no id");
        let other = "pairing required: device is asking for more scopes (requestId: abc)";
        assert_eq!(named(other), None, "another refusal");
    }
}
