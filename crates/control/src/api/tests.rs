use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::sandbox::{
    LimitSpec, MountSpec, NewSandbox, PairingStatus, SandboxChange, SandboxSpec, SandboxState,
    SandboxStatus, Sandboxes, ServiceStatus, SessionStatus,
};
use crate::talk::{ExecRequest, Size};

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// Checks values against one of the document's schemas.
fn schema(name: &str) -> jsonschema::Validator {
    let mut schema = document();
    schema["$ref"] = json!(format!("#/components/schemas/{name}"));
    jsonschema::validator_for(&schema).unwrap()
}

/// With everything that it can have.
fn reload() -> Reload {
    let mistake = Mistake {
        file: Some("/etc/farrier/farrier.toml".to_owned()),
        line: Some(7),
        message: "expected an http or https URL for base_url".to_owned(),
    };
    Reload {
        result: Outcome::Refused,
        cause: Cause::Signal,
        at_unix_ms: 1,
        config: "/etc/farrier/farrier.toml".to_owned(),
        generation: 1,
        mistakes: vec![mistake.clone()],
        warnings: vec![mistake],
        needs_restart: vec!["gateway.listen".to_owned()],
        reconnected: vec!["moonshot".to_owned()],
    }
}

fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        pid: 1,
        uptime_seconds: 0,
        config: "/etc/farrier/farrier.toml".to_owned(),
        generation: 1,
        serving_since_unix_ms: 1,
        listen: vec!["127.0.0.1:8484".to_owned()],
        watching: true,
        draining: false,
        last_reload: Some(reload()),
    }
}

fn providers() -> Providers {
    let names = |text: &str| BTreeMap::from([("OPENAI_API_KEY".to_owned(), text.to_owned())]);
    let provider = Provider {
        name: "openai".to_owned(),
        kind: "openai".to_owned(),
        base_url: Some("https://api.openai.com/v1".to_owned()),
        keys: names("env:OPENAI_API_KEY"),
        broken: names("expected the environment variable OPENAI_API_KEY, which is not set"),
        origin: Origin::Declared,
        file: Some("/etc/farrier/farrier.toml".to_owned()),
        line: Some(7),
    };
    Providers {
        providers: vec![provider],
    }
}

fn wanted() -> Wanted {
    Wanted {
        name: "openai".to_owned(),
        kind: "openai".to_owned(),
        base_url: None,
        keys: BTreeMap::from([("KEY".to_owned(), "env:KEY".to_owned())]),
    }
}

/// With everything that it can have.
fn sandbox() -> SandboxStatus {
    SandboxStatus {
        name: "work".parse().unwrap(),
        spec: SandboxSpec {
            agent: "openclaw".to_owned(),
            version: Some("2026.5.12".to_owned()),
            route: "moonshotai/kimi-k2.6".to_owned(),
            providers: vec!["slack".parse().unwrap()],
            mounts: vec![MountSpec {
                host: "/srv/data".into(),
                inside: "/data".into(),
                writable: false,
            }],
            policy: Some("version: 1".to_owned()),
            command: vec!["sleep".to_owned(), "1".to_owned()],
            serve: true,
            rootfs: Some("/srv/debian".into()),
            limits: LimitSpec {
                memory_bytes: Some(1),
                pids: Some(1),
                milli_cpus: Some(1),
            },
        },
        state: SandboxState::Failed,
        since_unix_ms: 1,
        reason: Some("the harness is not installed".to_owned()),
        service: Some(ServiceStatus {
            running: false,
            restarts: 2,
            last_exit: Some("status 1".to_owned()),
            last_output: Some("cannot find module".to_owned()),
        }),
        pid: Some(1),
        limits: vec!["memory: 1 GiB".to_owned()],
        home: "/home".into(),
        created_unix_ms: 1,
        sessions: vec![SessionStatus {
            id: 1,
            command: vec!["bash".to_owned()],
            attached: true,
            since_unix_ms: 1,
        }],
        pairing: Some(PairingStatus {
            state: "unanswered".to_owned(),
            reason: Some("gateway closed".to_owned()),
            since_unix_ms: 1,
            paired: 1,
            approvals: 2,
            waiting: vec!["a1 of cli for operator.read".to_owned()],
            refused: vec!["b2 of other for operator.admin".to_owned()],
        }),
    }
}

fn exec() -> ExecRequest {
    ExecRequest {
        command: vec!["ls".to_owned()],
        env: vec![("A".to_owned(), "b".to_owned())],
        cwd: Some("/".to_owned()),
        tty: Some(Size { rows: 24, cols: 80 }),
        timeout_ms: Some(1),
        keep: true,
        attach: Some(1),
    }
}

fn refusal(code: Code) -> Refusal {
    let message = "the gateway is draining".to_owned();
    Refusal {
        error: RefusalError { code, message },
    }
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_document_has_the_endpoints_that_there_are_and_no_others() {
    let document = document();
    let described = document["paths"].as_object().unwrap().iter();
    let described: BTreeSet<(String, BTreeSet<String>)> = described
        .map(|(path, methods)| (path.clone(), keys(methods)))
        .collect();
    let there = Endpoint::ALL.map(|endpoint| {
        let methods = endpoint.methods().iter();
        let methods = methods.map(|method| method.as_str().to_ascii_lowercase());
        (endpoint.path().to_owned(), methods.collect())
    });
    assert_eq!(described, BTreeSet::from(there));
}

#[test]
fn the_document_has_every_field_of_what_is_answered() {
    let values = [
        ("Status", serde_json::to_value(status()).unwrap()),
        ("Reload", serde_json::to_value(reload()).unwrap()),
        (
            "Mistake",
            serde_json::to_value(&reload().mistakes[0]).unwrap(),
        ),
        ("Providers", serde_json::to_value(providers()).unwrap()),
        (
            "Provider",
            serde_json::to_value(&providers().providers[0]).unwrap(),
        ),
        ("Wanted", serde_json::to_value(wanted()).unwrap()),
        (
            "Refusal",
            serde_json::to_value(refusal(Code::Draining)).unwrap(),
        ),
    ];
    let new = NewSandbox {
        name: sandbox().name,
        spec: sandbox().spec,
        start: true,
    };
    let change = SandboxChange {
        attach: sandbox().spec.providers,
        detach: sandbox().spec.providers,
        policy: Some("version: 1".to_owned()),
    };
    let sandboxes = [
        ("NewSandbox", serde_json::to_value(new).unwrap()),
        ("SandboxSpec", serde_json::to_value(sandbox().spec).unwrap()),
        (
            "MountSpec",
            serde_json::to_value(&sandbox().spec.mounts[0]).unwrap(),
        ),
        (
            "LimitSpec",
            serde_json::to_value(sandbox().spec.limits).unwrap(),
        ),
        ("SandboxChange", serde_json::to_value(change).unwrap()),
        (
            "Sandboxes",
            serde_json::to_value(Sandboxes {
                sandboxes: vec![sandbox()],
            })
            .unwrap(),
        ),
        ("SandboxStatus", serde_json::to_value(sandbox()).unwrap()),
        (
            "ServiceStatus",
            serde_json::to_value(sandbox().service).unwrap(),
        ),
        (
            "SessionStatus",
            serde_json::to_value(&sandbox().sessions[0]).unwrap(),
        ),
        (
            "PairingStatus",
            serde_json::to_value(sandbox().pairing).unwrap(),
        ),
        ("ExecRequest", serde_json::to_value(exec()).unwrap()),
        ("Size", serde_json::to_value(exec().tty).unwrap()),
    ];
    let values: Vec<_> = values.into_iter().chain(sandboxes).collect();
    let schemas = &document()["components"]["schemas"];
    assert_eq!(keys(schemas).len(), values.len());
    for (name, value) in values {
        assert_eq!(keys(&schemas[name]["properties"]), keys(&value), "{name}");
        if let Err(error) = schema(name).validate(&value) {
            panic!("{name}: {error}");
        }
    }
}

#[test]
fn what_may_be_absent_may_be_absent_in_the_document_too() {
    let mut bare = reload();
    bare.mistakes[0].file = None;
    bare.mistakes[0].line = None;
    let bare = Status {
        last_reload: None,
        ..status()
    };
    assert!(schema("Status").is_valid(&serde_json::to_value(bare).unwrap()));
    let mistake = json!({"message": "expected a provider, got none"});
    assert!(schema("Mistake").is_valid(&mistake));
    assert!(!schema("Mistake").is_valid(&json!({"line": 7})));
}

#[test]
fn the_document_has_every_word_and_every_status_code() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    let reload = &schemas["Reload"]["properties"];
    assert_eq!(
        reload["result"]["enum"],
        json!([Outcome::Refused, Outcome::Taken])
    );
    assert_eq!(
        reload["cause"]["enum"],
        json!([Cause::File, Cause::Request, Cause::Signal])
    );
    assert_eq!(
        schemas["Provider"]["properties"]["origin"]["enum"],
        json!([Origin::Declared, Origin::Stored])
    );
    assert_eq!(
        schemas["SandboxStatus"]["properties"]["state"]["enum"],
        json!([
            SandboxState::Failed,
            SandboxState::Running,
            SandboxState::Starting,
            SandboxState::Stopped
        ])
    );
    let codes = [
        Code::Busy,
        Code::Declared,
        Code::Draining,
        Code::Exists,
        Code::Failed,
        Code::MethodNotAllowed,
        Code::NotFound,
        Code::NotRunning,
        Code::NotUnderstood,
        Code::Store,
        Code::TimedOut,
        Code::Unknown,
        Code::Unready,
    ];
    assert_eq!(
        schemas["Refusal"]["properties"]["error"]["properties"]["code"]["enum"],
        json!(codes)
    );
    let answers = keys(&document["paths"]["/v1/reload"]["post"]["responses"]);
    let statuses = [
        Outcome::Taken.status(),
        Outcome::Refused.status(),
        Code::Draining.status(),
        Code::TimedOut.status(),
    ];
    let statuses = statuses.map(|status| status.as_str().to_owned());
    assert_eq!(answers, BTreeSet::from(statuses));
}

#[test]
fn a_body_that_holds_a_secret_in_place_of_a_reference_is_refused_without_repeating_it() {
    let mut wanted = wanted();
    assert!(wanted.parsed().is_ok());
    wanted
        .keys
        .insert("KEY".to_owned(), "sk-canary-7f3a".to_owned());
    let refused = wanted.parsed().unwrap_err();
    assert!(!refused.contains("canary"), "{refused}");
}

#[test]
fn what_is_meant_is_found_by_the_name_in_the_path() {
    assert_eq!(
        Endpoint::of("/v1/providers/openai"),
        Some((Endpoint::Provider, "openai"))
    );
    assert_eq!(
        Endpoint::of("/v1/providers"),
        Some((Endpoint::Providers, ""))
    );
    assert_eq!(Endpoint::of("/v1/providers/"), None);
    assert_eq!(
        Endpoint::of("/v1/sandboxes/work/exec"),
        Some((Endpoint::SandboxExec, "work"))
    );
    assert_eq!(
        Endpoint::of("/v1/sandboxes/work"),
        Some((Endpoint::Sandbox, "work"))
    );
    assert_eq!(Endpoint::of("/v1/sandboxes/a/b"), None);
    assert_eq!(Endpoint::of("/v1/sandboxes//exec"), None);
}
