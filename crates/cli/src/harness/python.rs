//! The host's Python, which a harness in Python runs on: there is none to be had from a registry.
//!
//! A sandbox shows the host's system, so that a Python of the system (below `/usr`) is there too; one from elsewhere is
//! taken only if the system has none that will do, and has to be shown besides. No `venv` and no pip is needed.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;
use tokio::time::timeout;

use super::pypi::Tags;

/// A Python that will do.
#[derive(Debug, Clone)]
pub(crate) struct Python {
    /// The program, without links.
    pub(crate) program: PathBuf,
    pub(crate) version: String,
    pub(crate) tags: Tags,
    /// What it is installed below.
    pub(crate) prefix: PathBuf,
}

/// Why there is no Python.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPython {
    #[error("expected Python 3.11, 3.12 or 3.13 with its standard library, got {}", shown(.0))]
    None(Vec<String>),
    #[error("cannot start {}", program.display())]
    Start {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("expected {} to end within {} seconds, got no end", program.display(), within.as_secs())]
    Endless { program: PathBuf, within: Duration },
}

/// What the program says of itself.
#[derive(Deserialize)]
struct Said {
    version: (u32, u32, u32),
    program: PathBuf,
    prefix: PathBuf,
    machine: String,
    libc: Option<String>,
    lacks: Vec<String>,
}

const ASK: &str = r#"
import importlib.util, json, os, platform, sys
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION")
except (AttributeError, OSError, ValueError):
    libc = None
print(json.dumps({
    "version": list(sys.version_info[:3]),
    "program": os.path.realpath(sys.executable),
    "prefix": sys.base_prefix,
    "machine": platform.machine(),
    "libc": libc,
    "lacks": [n for n in ("_ctypes", "_hashlib", "_sqlite3", "_ssl", "asyncio", "compileall", "zlib")
              if importlib.util.find_spec(n) is None],
}))
"#;

/// What the pinned versions of harnesses take, the best first.
const NAMES: &[&str] = &["python3.11", "python3.12", "python3.13", "python3"];
const MINORS: std::ops::RangeInclusive<u32> = 11..=13;
/// Where the system's own programs are.
const SYSTEM: &[&str] = &["/usr/bin", "/usr/local/bin"];
const TO_ANSWER: Duration = Duration::from_secs(20);
const TO_COMPILE: Duration = Duration::from_secs(600);

impl Python {
    /// The named one, else the first that will do: of the system, then on the search path.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn find(
        named: Option<&Path>,
        search_path: Option<&str>,
    ) -> Result<Self, NoPython> {
        let mut got = Vec::new();
        let candidates = match named {
            Some(named) => vec![named.to_owned()],
            None => candidates(search_path),
        };
        for program in candidates {
            match Self::asked(&program).await {
                Ok(python) => return Ok(python),
                Err(why) => got.push(format!("{} ({why})", program.display())),
            }
        }
        Err(NoPython::None(got))
    }

    async fn asked(program: &Path) -> Result<Self, String> {
        // -I and -S: nothing of the user's, and no package, has a say.
        let output = run(program, &["-I", "-S", "-c", ASK], TO_ANSWER).await;
        let output = output.map_err(|error| error.to_string())?;
        let said: Said =
            serde_json::from_slice(&output.stdout).map_err(|_| "it does not answer".to_owned())?;
        let (major, minor, patch) = said.version;
        if major != 3 || !MINORS.contains(&minor) {
            return Err(format!("it is {major}.{minor}"));
        }
        if !said.lacks.is_empty() {
            return Err(format!("it lacks {}", said.lacks.join(", ")));
        }
        let glibc = said.libc.as_deref().and_then(|libc| {
            let version = libc.strip_prefix("glibc 2.")?;
            version.split('.').next()?.parse().ok()
        });
        Ok(Self {
            program: said.program,
            version: format!("{major}.{minor}.{patch}"),
            tags: Tags {
                minor,
                arch: said.machine,
                glibc,
            },
            prefix: said.prefix,
        })
    }

    /// Whether a sandbox that shows the host's system shows this too.
    pub(crate) fn is_of_the_system(&self) -> bool {
        let own = ["/usr", "/bin", "/lib"];
        own.iter().any(|own| self.program.starts_with(own))
    }

    /// Compiles what is below `packages`, since nobody can where it is only read. What is compiled counts whatever the
    /// file's time is. A file that does not compile is left: some are only examples, or for another Python.
    ///
    /// # Errors
    /// The compiler cannot be started, or does not end.
    pub(crate) async fn compile(
        &self,
        packages: &Path,
        from: &Path,
        to: &Path,
    ) -> Result<(), NoPython> {
        let shown = |path: &Path| path.display().to_string();
        let (packages, from, to) = (shown(packages), shown(from), shown(to));
        let compile = ["-I", "-S", "-m", "compileall", "-q", "-j", "0"];
        let counts = ["--invalidation-mode", "unchecked-hash"];
        let names = ["-s", &from, "-p", &to, &packages];
        let arguments: Vec<&str> = compile.into_iter().chain(counts).chain(names).collect();
        run(&self.program, &arguments, TO_COMPILE).await?;
        Ok(())
    }
}

fn candidates(search_path: Option<&str>) -> Vec<PathBuf> {
    let system = SYSTEM.iter().map(PathBuf::from);
    let path = search_path.unwrap_or_default();
    let others = std::env::split_paths(path).filter(|place| place.is_absolute());
    let mut found: Vec<PathBuf> = Vec::new();
    for place in system.chain(others) {
        for name in NAMES {
            let program = place.join(name);
            if program.is_file() && !found.contains(&program) {
                found.push(program);
            }
        }
    }
    found
}

async fn run(program: &Path, arguments: &[&str], within: Duration) -> Result<Output, NoPython> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = timeout(within, command.output()).await;
    let ended = ended.map_err(|_| NoPython::Endless {
        program: program.to_owned(),
        within,
    })?;
    ended.map_err(|source| NoPython::Start {
        program: program.to_owned(),
        source,
    })
}

fn shown(got: &[String]) -> String {
    match got {
        [] => "none".to_owned(),
        got => got.join(", "),
    }
}
