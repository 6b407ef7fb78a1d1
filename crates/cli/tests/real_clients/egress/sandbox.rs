//! A home with `farrier up` in it, two sandboxes' proxies, and what clients behind them are told.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::destination::{Destination, HOST};
use crate::process::{Process, Said};

/// A provider as it is added, and where its keys come from.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    /// Of its base URL.
    pub(crate) path: &'static str,
    pub(crate) keys: Vec<Key>,
}

/// A key's name, where it is kept, and the key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kept: Kept,
    pub(crate) secret: String,
}

/// Where a key is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// A variable of `farrier up`.
    Environment,
    /// A file of the user's.
    File,
    /// Handed over on standard input.
    Handed,
    /// Handed over for the keyring.
    Keyring,
}

/// Whose proxy a client is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// With every provider.
    Work,
    /// With none.
    Bare,
}

/// Where everything happens. Farrier is stopped when it ends.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) home: TempDir,
    pub(crate) destination: Destination,
    pub(crate) up: Process,
    /// Of each [`Place`].
    proxies: [String; 2],
    variables: Vec<(&'static str, OsString)>,
}

/// Everything to the destination is allowed and judged, so that TLS is ended in either sandbox.
const POLICY: &str = r#"
version: 1
network_policies:
  destination:
    endpoints:
      - { host: HOST, port: PORT, protocol: rest, access: full, allowed_ips: [127.0.0.0/8] }
"#;
/// The gateway beside the proxies, which nobody asks for anything here.
const GATEWAY: &str = r#"
[gateway]
listen = "127.0.0.1:0"

[[provider]]
name = "model"
base_url = "http://127.0.0.1:1/v1"

"#;
/// Where files of keys are, from the home.
pub(crate) const KEYS: &str = "keys";
/// The client's own home, from the home.
pub(crate) const CLIENT: &str = "client";

// === impl Key ===

impl Key {
    /// One that `farrier up` has in its environment.
    pub(crate) fn of_environment(name: &'static str, secret: &str) -> Self {
        Self {
            name,
            kept: Kept::Environment,
            secret: secret.to_owned(),
        }
    }

    /// The variable that it is in, if it is in one.
    fn variable(&self) -> String {
        format!("HELD_{}", self.name)
    }
}

// === impl Sandbox ===

impl Sandbox {
    pub(crate) fn set(destination: Destination, providers: &[Provider]) -> Self {
        Self::set_with(destination, providers, Vec::new())
    }

    /// The same, `farrier` having these variables too.
    pub(crate) fn set_with(
        destination: Destination,
        providers: &[Provider],
        mut variables: Vec<(&'static str, OsString)>,
    ) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join(CLIENT)).unwrap();
        fs::create_dir_all(home.path().join(KEYS)).unwrap();
        write_configuration(home.path(), &destination, providers);
        variables.push(("HOME", home.path().into()));
        for provider in providers {
            add(home.path(), &variables, &destination, provider);
        }
        let mut command = farrier(home.path(), &variables);
        command
            .args(["up", "--config", "farrier.toml"])
            .env("FARRIER_LOG", "trace");
        for key in providers.iter().flat_map(|provider| &provider.keys) {
            if key.kept == Kept::Environment {
                command.env(key.variable(), &key.secret);
            }
        }
        let mut up = Process::start("farrier up", &mut command);
        let proxies = ["work", "bare"].map(|name| up.until(|said| told(said, name)));
        Self {
            home,
            destination,
            up,
            proxies,
            variables,
        }
    }

    pub(crate) fn proxy(&self, place: Place) -> &str {
        &self.proxies[usize::from(place == Place::Bare)]
    }

    /// What the sandbox is to believe.
    pub(crate) fn authority(&self) -> PathBuf {
        self.home
            .path()
            .join(".local/state/farrier/egress/ca/ca.pem")
    }

    /// Gives a client the environment of a sandbox: the way out, whom to believe, and a home with nothing in it.
    pub(crate) fn send<'c>(&self, client: &'c mut Command, place: Place) -> &'c mut Command {
        let home = self.home.path().join(CLIENT);
        client
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &home)
            .current_dir(&home);
        for name in ["HTTPS_PROXY", "HTTP_PROXY"] {
            client.env(name, self.proxy(place));
        }
        for name in [
            "CURL_CA_BUNDLE",
            "GIT_SSL_CAINFO",
            "NODE_EXTRA_CA_CERTS",
            "REQUESTS_CA_BUNDLE",
            "SSL_CERT_FILE",
        ] {
            client.env(name, self.authority());
        }
        client.env("NODE_USE_ENV_PROXY", "1").stdin(Stdio::null())
    }

    /// A `farrier` command in this home.
    pub(crate) fn farrier(&self) -> Command {
        farrier(self.home.path(), &self.variables)
    }

    /// The decisions that were recorded, oldest first.
    pub(crate) fn decisions(&self) -> Vec<Value> {
        let said = done(&mut self.farrier(), &["logs", "--egress", "--json"], "");
        let lines = String::from_utf8(said.stdout).unwrap();
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Stops Farrier, and gives what it said.
    pub(crate) fn end(self) -> (TempDir, Said) {
        self.up.signal(Signal::TERM);
        let said = self.up.ended();
        assert_eq!(said.code, Some(0), "{said}");
        (self.home, said)
    }
}

fn told(said: &Said, name: &str) -> Option<String> {
    let (_, rest) = said.stderr.split_once(&format!("{name} through http://"))?;
    let (address, _) = rest.split_once('\n')?;
    Some(format!("http://{}", address.trim()))
}

fn farrier(home: &Path, variables: &[(&'static str, OsString)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
    let variables = variables.iter().map(|(name, value)| (name, value));
    command.env_clear().envs(variables).current_dir(home);
    command
}

/// Runs a command to its end, which must be a good one, with this on its standard input.
pub(crate) fn done(command: &mut Command, arguments: &[&str], input: &str) -> Output {
    use std::io::Write as _;

    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that reads nothing may have ended.
    let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    output
}

fn add(
    home: &Path,
    variables: &[(&'static str, OsString)],
    destination: &Destination,
    provider: &Provider,
) {
    let base_url = destination.url(provider.path);
    let mut arguments = ["provider", "add", provider.name, "--type", provider.kind]
        .map(str::to_owned)
        .to_vec();
    arguments.extend(["--base-url".to_owned(), base_url]);
    let mut input = String::new();
    for key in &provider.keys {
        let source = match key.kept {
            Kept::Environment => format!("env:{}", key.variable()),
            Kept::File => format!("file:{}", write_key(home, key).display()),
            Kept::Handed | Kept::Keyring => {
                assert_eq!(input, "", "one key is handed over at a time");
                input.clone_from(&key.secret);
                "-".to_owned()
            }
        };
        arguments.extend(["--credential".to_owned(), format!("{}={source}", key.name)]);
        if key.kept == Kept::Keyring {
            arguments.extend(["--keep-in", "keyring"].map(str::to_owned));
        }
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let _added = done(&mut farrier(home, variables), &arguments, &input);
}

fn write_key(home: &Path, key: &Key) -> PathBuf {
    let path = home.join(KEYS).join(key.name);
    fs::write(&path, &key.secret).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn write_configuration(home: &Path, destination: &Destination, providers: &[Provider]) {
    let port = destination.port.to_string();
    let policy = POLICY.replace("HOST", HOST).replace("PORT", &port);
    fs::write(home.join("policy.yaml"), policy).unwrap();
    fs::write(home.join("destination.pem"), &destination.authority).unwrap();
    let names: Vec<&str> = providers.iter().map(|provider| provider.name).collect();
    let egress = |name: &str, providers: &[&str]| {
        format!(
            "[[egress]]\nname = {name:?}\nlisten = \"127.0.0.1:0\"\npolicy = \"policy.yaml\"\n\
             providers = {providers:?}\nca_file = \"destination.pem\"\n\n"
        )
    };
    let text = [
        GATEWAY.to_owned(),
        egress("work", &names),
        egress("bare", &[]),
    ];
    fs::write(home.join("farrier.toml"), text.concat()).unwrap();
}
