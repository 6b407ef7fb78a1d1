//! A persona and a gateway in front of it, as processes in an empty home, and clients sent to either.

use std::fmt;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Client, Report, Run};
use crate::heard::{Log, Script};
use crate::process::{PATIENCE, Process, Said};

/// In every key, and nowhere else.
const CANARY: &str = "canary";
/// The persona's, which the gateway has in its environment.
const PROVIDER_KEY: &str = "sk-canary-provider";
/// What clients of the gateway are given; it opens nothing.
const CLIENT_KEY: &str = "sk-canary-client";
/// What clients of the gateway ask for.
const MODEL: &str = "moonshotai/kimi-k2.6";

/// Who is on the stage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cast<'a> {
    /// The persona's name, or its file's text.
    persona: Sheet<'a>,
    /// How its answers travel.
    behaviour: &'a str,
}

#[derive(Clone, Copy, Debug)]
enum Sheet<'a> {
    Named(&'a str),
    Written(&'a str),
}

/// Whom a client talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Straight,
    Through,
}

#[derive(Debug)]
pub(crate) struct Stage {
    home: TempDir,
    persona: Process,
    listening: Listening,
    gateway: Process,
    gateway_addr: SocketAddr,
    /// Those whose part is over.
    said: Vec<Said>,
}

/// What `farrier sim --json` says of itself.
#[derive(Debug, Deserialize)]
struct Listening {
    base_url: String,
    models: Vec<String>,
}

/// Everything anyone said.
#[derive(Debug)]
struct Account {
    said: Vec<Said>,
    log: io::Result<String>,
    metrics: io::Result<String>,
}

// === impl Cast ===

impl<'a> Cast<'a> {
    pub(crate) const fn persona(name: &'a str) -> Self {
        Self {
            persona: Sheet::Named(name),
            behaviour: "{}",
        }
    }

    pub(crate) const fn sheet(text: &'a str) -> Self {
        Self {
            persona: Sheet::Written(text),
            behaviour: "{}",
        }
    }

    pub(crate) const fn behaving(mut self, behaviour: &'a str) -> Self {
        self.behaviour = behaviour;
        self
    }

    /// Sets the stage, plays the act and clears up. What does not hold in the act fails the test, with everything that
    /// anyone said; so does a key found where none belongs.
    #[expect(clippy::print_stdout, reason = "the account of a failed test")]
    pub(crate) fn play(self, act: impl FnOnce(&mut Stage)) {
        let mut stage = Stage::set(self);
        let played = catch_unwind(AssertUnwindSafe(|| act(&mut stage)));
        let (account, home) = stage.end();
        let checked = played.and_then(|()| {
            catch_unwind(AssertUnwindSafe(|| {
                account.expect_clean_ends();
                account.expect_no_key();
                assert!(home.path().join("state/ledger.db").exists());
                assert!(home.path().join("traces").exists());
                expect_no_key_in_files(home.path());
            }))
        });
        if let Err(failure) = checked {
            println!("{account}");
            resume_unwind(failure);
        }
    }
}

// === impl Stage ===

impl Stage {
    fn set(cast: Cast<'_>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut persona = start_persona(home.path(), cast);
        let listening: Listening = persona.until(|said| serde_json::from_str(&said.stdout).ok());
        let config = configuration(&listening, home.path());
        fs::write(home.path().join("farrier.toml"), config).unwrap();
        let (gateway, gateway_addr) = start_gateway(home.path(), &[]);
        Self {
            home,
            persona,
            listening,
            gateway,
            gateway_addr,
            said: Vec::new(),
        }
    }

    /// Starts a client.
    pub(crate) fn start(&self, run: &Run, way: Way) -> Process {
        let home = self.home.path();
        let (name, mut command) = match way {
            Way::Straight => {
                let url = &self.listening.base_url;
                let model = &self.listening.models[0];
                ("straight", run.command(model, url, PROVIDER_KEY, home))
            }
            Way::Through => {
                let url = format!("http://{}/v1", self.gateway_addr);
                (
                    "through Farrier",
                    run.command(MODEL, &url, CLIENT_KEY, home),
                )
            }
        };
        let name = format!("{}, {name}", run.client.name());
        Process::start(&name, &mut command)
    }

    /// Waits for a client's end and reads its report.
    pub(crate) fn report(&mut self, client: Process) -> Report {
        self.said.push(client.ended());
        Report::of(self.said.last().unwrap())
    }

    /// Runs a client to its end.
    pub(crate) fn run(&mut self, run: &Run, way: Way) -> Report {
        let client = self.start(run, way);
        self.report(client)
    }

    /// Runs these clients through Farrier, all at once and each in a conversation of its own of two turns, and expects
    /// that each finishes and that nothing was lost on the way to the model.
    pub(crate) fn expect_all_to_finish(&mut self, clients: &[Client], script: Script) {
        let ask = |client: &Client| client.asks(client.name()).turns(script.turns);
        let started: Vec<(Client, Process)> = clients
            .iter()
            .map(|client| (*client, self.start(&ask(client), Way::Through)))
            .collect();
        for (client, process) in started {
            let report = self.report(process);
            report.expect_finished(&script, &client.name());
        }
        let log = self.log();
        let conversations = log.conversations();
        assert_eq!(conversations.len(), clients.len(), "conversations");
        conversations
            .iter()
            .for_each(|conversation| script.expect_played(conversation));
    }

    /// What reached the model so far.
    pub(crate) fn log(&self) -> Log {
        serde_json::from_str(&self.log_text().unwrap()).unwrap()
    }

    /// Ends the gateway with no time to say goodbye, and starts another on the same address and the same ledger.
    pub(crate) fn kill_gateway_and_start_another(&mut self) {
        self.gateway.signal(Signal::KILL);
        self.gateway.wait();
        let listen = self.gateway_addr.to_string();
        let (gateway, addr) = start_gateway(self.home.path(), &["--listen", &listen]);
        assert_eq!(addr, self.gateway_addr);
        let killed = std::mem::replace(&mut self.gateway, gateway);
        self.said.push(killed.ended());
    }

    fn log_text(&self) -> io::Result<String> {
        let host = self.listening.base_url.trim_start_matches("http://");
        let addr = host.trim_end_matches("/v1").parse();
        get(addr.map_err(io::Error::other)?, "/sim/log")
    }

    fn end(mut self) -> (Account, TempDir) {
        let log = self.log_text();
        let metrics = get(self.gateway_addr, "/metrics");
        for process in [self.gateway, self.persona] {
            process.signal(Signal::TERM);
            self.said.push(process.ended());
        }
        let account = Account {
            said: self.said,
            log,
            metrics,
        };
        (account, self.home)
    }
}

fn farrier(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
    command
        .env_clear()
        .env("HOME", home)
        .env("PROVIDER_KEY", PROVIDER_KEY)
        .current_dir(home);
    command
}

fn start_persona(home: &Path, cast: Cast<'_>) -> Process {
    let persona = match cast.persona {
        Sheet::Named(name) => name,
        Sheet::Written(text) => {
            fs::write(home.join("persona.json"), text).unwrap();
            "persona.json"
        }
    };
    let mut command = farrier(home);
    command.args(["sim", persona, "--json", "--bearer", "env:PROVIDER_KEY"]);
    command.args(["--behaviour", cast.behaviour]);
    Process::start("persona", &mut command)
}

fn start_gateway(home: &Path, more: &[&str]) -> (Process, SocketAddr) {
    let mut command = farrier(home);
    command.args(["up", "--config", "farrier.toml"]).args(more);
    let mut gateway = Process::start("gateway", &mut command);
    let addr = gateway.until(|said| {
        let (_, rest) = said.stderr.split_once("listens on http://")?;
        rest.split('/').next()?.parse().ok()
    });
    (gateway, addr)
}

fn configuration(persona: &Listening, home: &Path) -> String {
    let Listening { base_url, models } = persona;
    let home = home.display();
    format!(
        r#"
[gateway]
listen = "127.0.0.1:0"

[[provider]]
name = "persona"
api = "openai-completions"
base_url = "{base_url}"
credential = {{ env = "PROVIDER_KEY" }}

[[route]]
model = "{MODEL}"
provider = "persona"
upstream_model = "{}"

[ledger]
path = "{home}/state/ledger.db"

[trace]
dir = "{home}/traces"
text = "keep"
"#,
        models[0]
    )
}

/// The body of what a server on this machine answers.
fn get(addr: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // In this version a body simply goes on to the end.
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {addr}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned());
    body.ok_or_else(|| io::Error::other("no answer"))
}

// === impl Report ===

impl Report {
    pub(crate) fn expect_finished(&self, script: &Script, whose: &str) {
        assert!(self.ok, "{whose} failed: {self:?}");
        let turn = script.turns;
        let expected = format!("FINAL answer of turn {turn}:");
        assert!(self.final_text.starts_with(&expected), "{whose}: {self:?}");
        assert_eq!(self.rounds, script.rounds(), "{whose}: {self:?}");
    }
}

// === impl Account ===

impl Account {
    /// Persona and gateway end well when asked to, and the gateway never had to make do without what it remembers.
    fn expect_clean_ends(&self) {
        for said in self.said.iter().rev().take(2) {
            assert_eq!(said.code, Some(0), "{} did not end well", said.name);
        }
        let metrics = self.metrics.as_ref().unwrap();
        for made_do in [
            r#"recalls_total{outcome="miss"}"#,
            r#"what="missed""#,
            r#"what="placeholder""#,
            r#"what="rebuilt""#,
            "commit_failures_total{",
            "traces_dropped_total 1",
        ] {
            assert!(!metrics.contains(made_do), "{made_do} in\n{metrics}");
        }
    }

    fn expect_no_key(&self) {
        let texts = [&self.log, &self.metrics].map(|text| text.as_ref().unwrap());
        let said = self
            .said
            .iter()
            .flat_map(|said| [&said.stdout, &said.stderr]);
        for text in said.chain(texts) {
            assert!(!text.contains(CANARY), "a key is shown");
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.said.iter().try_for_each(|said| said.fmt(f))?;
        let log = self.log.as_ref().map_err(ToString::to_string);
        let log = log.and_then(|log| serde_json::from_str(log).map_err(|error| error.to_string()));
        match log {
            Ok(Value::Object(log)) => {
                writeln!(f, "=== what reached the model")?;
                let entries = log["entries"].as_array().into_iter().flatten();
                entries
                    .into_iter()
                    .try_for_each(|entry| writeln!(f, "{entry}"))
            }
            Ok(other) => writeln!(f, "=== the persona's log is {other}"),
            Err(error) => writeln!(f, "=== the persona's log could not be read: {error}"),
        }
    }
}

/// In no file: not the configuration, the ledger, a transcript.
fn expect_no_key_in_files(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            expect_no_key_in_files(&path);
            continue;
        }
        let content = fs::read(&path).unwrap();
        let mut windows = content.windows(CANARY.len());
        let found = windows.any(|window| window == CANARY.as_bytes());
        assert!(!found, "{} holds a key", path.display());
    }
}
