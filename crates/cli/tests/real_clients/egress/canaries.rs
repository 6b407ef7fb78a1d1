//! A key is planted in every source there is, used by a client that holds a placeholder, and then looked for everywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::destination::{Answer, Destination};
use super::keyring::Keyring;
use super::sandbox::{CLIENT, KEYS, Kept, Key, Place, Provider, Sandbox};
use crate::client::{current_python, python_program};
use crate::process::Process;

/// Where keys come from, each with a provider of its own.
const SOURCES: [(&str, &str, Kept); 4] = [
    ("of-environment", "ENVIRONMENT_KEY", Kept::Environment),
    ("of-file", "FILE_KEY", Kept::File),
    ("handed", "HANDED_KEY", Kept::Handed),
    ("of-keyring", "KEYRING_KEY", Kept::Keyring),
];
/// Files that hold a key because that is what they are for: the user's own, and what was handed over.
const KEPT: [&str; 2] = [KEYS, ".local/state/farrier/store/secrets"];

/// Four providers, their keys, and everything that was said to clients.
struct Planted {
    sandbox: Sandbox,
    secrets: Vec<String>,
    answers: Vec<String>,
}

/// Another run's canaries, and another test's, must not be found.
fn secret(number: usize, place: &TempDir) -> String {
    let unique: String = place
        .path()
        .to_string_lossy()
        .chars()
        .rev()
        .take(6)
        .collect();
    format!("sk-canary-{number}{unique}")
}

// === impl Planted ===

impl Planted {
    fn plant(keyring: &Keyring, place: &TempDir) -> Self {
        let secrets: Vec<String> = (0..SOURCES.len()).map(|n| secret(n, place)).collect();
        let mut providers: Vec<Provider> = SOURCES
            .iter()
            .zip(&secrets)
            .map(|(&(provider, name, kept), secret)| Provider {
                name: provider,
                kind: "generic",
                path: "/v1",
                keys: vec![Key {
                    name,
                    kept,
                    secret: secret.clone(),
                }],
            })
            .collect();
        // What is refused for its place is bound to another.
        providers[0].path = "/elsewhere";
        let destination = Destination::start(|_| |_: &_| Answer::json(200, "{}".to_owned()));
        let sandbox = Sandbox::set_with(destination, &providers, keyring.variables());
        Self {
            sandbox,
            secrets,
            answers: Vec::new(),
        }
    }

    /// A client that has its answer, and waits to be looked at.
    fn client(&mut self, key: &str, path: &str, place: Place) -> (Process, Value) {
        let mut client: Command = current_python();
        client
            .arg(python_program("reach_httpx.py"))
            .arg("--pause")
            .arg(self.sandbox.destination.url(path));
        let client = self
            .sandbox
            .send(&mut client, place)
            .env("OPENAI_API_KEY", format!("farrier:resolve:env:{key}"));
        let mut client = Process::start("client", client);
        let report: Value = client.until(|said| serde_json::from_str(&said.stdout).ok());
        self.answers.push(report.to_string());
        (client, report)
    }

    /// In nobody's arguments and, but for Farrier, which was given one there, in nobody's environment.
    fn expect_none_in_processes(&self, client: &Process) {
        let environment = proc(client.id(), "environ");
        assert!(
            holds(&environment, "farrier:resolve:env:"),
            "not the client"
        );
        for entry in fs::read_dir("/proc").unwrap() {
            let name = entry.unwrap().file_name();
            let Ok(pid) = name.to_string_lossy().parse::<u32>() else {
                continue;
            };
            self.expect_none("arguments", pid, &proc(pid, "cmdline"));
            if pid != self.sandbox.up.id() {
                self.expect_none("environment", pid, &proc(pid, "environ"));
            }
        }
    }

    fn expect_none(&self, what: &str, whose: impl std::fmt::Display, content: &[u8]) {
        for secret in &self.secrets {
            assert!(!holds(content, secret), "{what} of {whose} hold a key");
        }
    }

    fn expect_none_in_files(&self, home: &Path) {
        let mut below = vec![home.to_owned()];
        while let Some(directory) = below.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path: PathBuf = entry.unwrap().path();
                let kept = KEPT.iter().any(|kept| path == home.join(kept));
                if path.is_dir() && !kept {
                    below.push(path);
                } else if path.is_file() {
                    let name = path.file_name().unwrap().to_string_lossy();
                    assert!(!name.starts_with("core"), "a core dump: {name}");
                    self.expect_none("bytes", path.display(), &fs::read(&path).unwrap());
                }
            }
        }
    }
}

/// What `/proc` says of a process; nothing, if it is gone or another's.
fn proc(pid: u32, what: &str) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default()
}

fn holds(content: &[u8], text: &str) -> bool {
    content
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn real_client_holds_no_key_from_any_source_and_none_is_found_anywhere() {
    let place = tempfile::tempdir().unwrap();
    let keyring = Keyring::open(place.path());
    let mut planted = Planted::plant(&keyring, &place);

    for (number, (_, key, kept)) in SOURCES.into_iter().enumerate() {
        let path = if number == 0 { "/elsewhere/x" } else { "/v1/x" };
        let (mut client, report) = planted.client(key, path, Place::Work);
        assert_eq!(report["status"], 200, "{kept:?}: {report}");
        let seen = planted.sandbox.destination.seen();
        let expected = format!("Bearer {}", planted.secrets[number]);
        assert_eq!(seen[number].header("authorization"), expected, "{kept:?}");
        planted.expect_none_in_processes(&client);
        client.press_return();
        let said = client.ended();
        assert_eq!(said.code, Some(0), "{said}");
    }
    for (key, path, place, code) in [
        ("FILE_KEY", "/v1/x", Place::Bare, "credential_unavailable"),
        ("NO_KEY", "/v1/x", Place::Work, "credential_unavailable"),
        (
            "ENVIRONMENT_KEY",
            "/v1/x",
            Place::Work,
            "credential_endpoint_mismatch",
        ),
        (
            "KEYRING_KEY",
            "/other",
            Place::Work,
            "credential_endpoint_mismatch",
        ),
    ] {
        let (mut client, report) = planted.client(key, path, place);
        let body = report["body"].as_str().unwrap_or_default();
        assert!(body.contains(code), "{key} at {path}: {report}");
        planted.expect_none_in_processes(&client);
        client.press_return();
        let _said = client.ended();
    }
    assert_eq!(planted.sandbox.destination.seen().len(), SOURCES.len());

    for answer in &planted.answers {
        planted.expect_none("words", "an answer", answer.as_bytes());
    }
    for decision in planted.sandbox.decisions() {
        planted.expect_none("words", "a decision", decision.to_string().as_bytes());
    }
    let home = planted.sandbox.home.path().to_owned();
    assert!(home.join(CLIENT).is_dir() && home.join(KEPT[1]).is_dir());
    planted.expect_none_in_files(&home);
    planted.expect_none_in_files(place.path());
    let Planted {
        sandbox, secrets, ..
    } = planted;
    let (_home, said) = sandbox.end();
    // The log was at its most talkative.
    assert!(
        said.stderr.contains("TRACE") || said.stderr.contains("DEBUG"),
        "{said}"
    );
    for secret in secrets {
        assert!(!said.to_string().contains(&secret), "the log shows a key");
    }
}
