//! How harnesses are started and looked after.

use std::fs;
use std::path::Path;

use farrier_harness::{HARNESSES, Place, Task, named};

fn place() -> Place<'static> {
    Place {
        home: Path::new("/home/agent"),
        ca_file: Some(Path::new("/etc/farrier/ca.pem")),
        proxy: Some("http://10.200.0.1:3128"),
    }
}

fn started(harness: &str, task: Task<'_>) -> String {
    let launch = named(harness).unwrap().launch(&task, &place()).unwrap();
    let variables = launch
        .variables
        .iter()
        .map(|(name, value)| format!("{name}={value} "));
    format!(
        "{}{} {}",
        variables.collect::<String>(),
        launch.program,
        launch.arguments.join(" ")
    )
}

#[test]
fn openclaw_takes_a_turn_and_serves() {
    let around = "HOME=/home/agent NODE_EXTRA_CA_CERTS=/etc/farrier/ca.pem \
                  HTTPS_PROXY=http://10.200.0.1:3128 NO_PROXY=127.0.0.1,localhost,::1 ";
    let turn = Task::Turn {
        session: Some("t1"),
        message: "hello",
    };
    assert_eq!(
        started("openclaw", turn),
        format!(
            "{around}openclaw agent --local --agent main --session-id t1 --message hello --json"
        )
    );
    assert_eq!(
        started("openclaw", Task::Serve { port: 18789 }),
        format!("{around}openclaw gateway run --bind loopback --port 18789")
    );
}

#[test]
fn hermes_takes_a_turn_goes_on_with_one_and_serves() {
    let turn = |session| {
        started(
            "hermes",
            Task::Turn {
                session,
                message: "hello",
            },
        )
    };
    assert!(turn(None).ends_with(" hermes chat -Q --yolo -q hello"));
    assert!(turn(Some("s1")).ends_with(" hermes chat -Q --yolo --resume s1 -q hello"));
    let served = started("hermes", Task::Serve { port: 18642 });
    assert!(
        served.contains("SSL_CERT_FILE=/etc/farrier/ca.pem REQUESTS_CA_BUNDLE=/etc/farrier/ca.pem")
    );
    assert!(served.contains("API_SERVER_PORT=18642") && served.ends_with(" hermes gateway run"));
}

#[test]
fn one_that_wants_a_token_first_lives() {
    for name in ["openclaw", "hermes"] {
        let health = named(name).unwrap().health(18000).unwrap();
        assert_eq!(
            (health.url.as_str(), health.live),
            ("http://127.0.0.1:18000/health", &[200, 401][..])
        );
    }
    assert_eq!(named("env").unwrap().health(1), None);
}

#[test]
fn devices_are_approved_one_by_one_and_never_the_latest() {
    let devices = named("openclaw").unwrap().devices().unwrap();
    assert_eq!(devices.approve, ["devices", "approve", "--json"]);
    assert!(named("hermes").unwrap().devices().is_none());
}

#[test]
fn the_version_is_that_of_the_package_and_of_no_other() {
    let place = tempfile::tempdir().unwrap();
    let openclaw = named("openclaw").unwrap();
    let write = |text: &str| fs::write(place.path().join("package.json"), text).unwrap();
    assert!(
        openclaw
            .version(place.path())
            .unwrap_err()
            .to_string()
            .starts_with("cannot read ")
    );
    write(r#"{"name":"openclaw","version":"2026.9.6"}"#);
    assert_eq!(openclaw.version(place.path()).unwrap(), "2026.9.6");
    for (text, got) in [
        (r#"{"name":"other","version":"1.0.0"}"#, "got other"),
        (r#"{"version":"1.0.0"}"#, "got no name"),
        (r#"{"name":"openclaw"}"#, "got one without a version"),
        ("{", "got EOF"),
    ] {
        write(text);
        let refused = openclaw.version(place.path()).unwrap_err().to_string();
        assert!(refused.contains(got), "{refused}");
    }
    fs::create_dir(place.path().join("hermes_agent-0.19.0.dist-info")).unwrap();
    assert_eq!(
        named("hermes").unwrap().version(place.path()).unwrap(),
        "0.19.0"
    );
}

#[test]
fn harnesses_and_their_settings_have_names_of_their_own() {
    for (index, harness) in HARNESSES.iter().enumerate() {
        assert!(
            HARNESSES
                .iter()
                .skip(index + 1)
                .all(|other| other.name() != harness.name())
        );
        let settings = harness.settings();
        for (index, setting) in settings.iter().enumerate() {
            let later = settings.iter().skip(index + 1);
            assert!(
                later.clone().all(|other| other.name != setting.name),
                "{}",
                setting.name
            );
            assert!(
                setting.variable.is_none()
                    || later
                        .clone()
                        .all(|other| other.variable != setting.variable)
            );
        }
    }
}
