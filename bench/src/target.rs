//! What is measured, started as its users start it: `farrier up`, and nginx as a plain reverse proxy.
//!
//! Both say on stderr when they are ready, which is waited for with a deadline. Both are told to stop by SIGTERM and
//! waited for; one that is dropped on the way out of a failed run is told too, and not waited for.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::exchange::{KIMI_MODEL, KIMI_UPSTREAM_MODEL, PLAIN_MODEL};
use crate::process::{Cores, Pids};
use crate::wire::Way;

/// A proxy that is ready.
#[derive(Debug)]
pub(crate) struct Target {
    name: &'static str,
    address: SocketAddr,
    pids: Pids,
    child: Child,
    /// Closed once the child has closed its stderr, which it does by ending; taken once that is waited for.
    ended: Option<Receiver<()>>,
}

/// How a target is started.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) cores: Option<Cores>,
    /// A directory of this target's own.
    pub(crate) directory: PathBuf,
    pub(crate) upstream: SocketAddr,
    pub(crate) program: PathBuf,
    /// Arguments before its own: of a program that runs the one that is meant.
    pub(crate) before: Vec<OsString>,
    /// How many it must be able to have open, to clients and upstream together.
    pub(crate) connections: usize,
}

/// A program that is not ours.
#[derive(Debug)]
pub(crate) struct Program<'p> {
    pub(crate) name: &'static str,
    pub(crate) arguments: &'p [&'p str],
    pub(crate) environment: &'p [(&'p str, &'p str)],
    pub(crate) listens: Listens,
}

/// How it becomes known where a program listens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Listens {
    /// It was told to.
    At(SocketAddr),
    /// This finds it in a line on stderr.
    Says(fn(&str) -> Option<SocketAddr>),
}

/// What `farrier up` writes to its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Log {
    /// One line for each request, its default.
    Requests,
    /// Warnings alone.
    Warnings,
}

/// Why a target could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("cannot prepare {what}: {source}")]
    Io { what: String, source: io::Error },
    #[error(
        "expected nginx on PATH or at --nginx (it is often /usr/sbin/nginx), found none; install it with `apt-get install -y nginx-light`, or leave it out \
         with --without-nginx"
    )]
    NoNginx,
    #[error(
        "expected tinyproxy on PATH or at --tinyproxy, found none; install it with `apt-get install -y tinyproxy`, or leave it out with \
         --without-tinyproxy"
    )]
    NoTinyproxy,
    #[error("expected {program} to be ready within {READY:?}, got: {said}")]
    NotReady { program: &'static str, said: String },
    #[error("expected {program} to end within {READY:?} of SIGTERM; it was killed")]
    NotStopped { program: &'static str },
}

/// Whichever port of this machine is free.
pub(crate) const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const READY: Duration = Duration::from_secs(60);
/// Lines of a target that does not start that are shown.
const SAID_LINES: usize = 20;

// === impl Launch ===

impl Launch {
    /// Starts `farrier up`, its ledger in `ledger`.
    pub(crate) fn farrier(&self, ledger: &Path, log: Log) -> Result<Target, TargetError> {
        let config = self.directory.join("farrier.toml");
        self.write(&config, &farrier_config(self, ledger))?;
        let mut command = self.command();
        command.args(["up", "--config"]).arg(&config).env(
            "FARRIER_LOG",
            match log {
                Log::Requests => "info",
                Log::Warnings => "warn",
            },
        );
        let (child, said) = self.spawn("farrier", command)?;
        let listens = |line: &str| {
            let (_, after) = line.split_once("listens on http://")?;
            after.split('/').next()?.parse().ok()
        };
        let (child, address, ended) = said.ready("farrier", child, listens)?;
        Ok(Target {
            name: "farrier",
            address,
            pids: vec![child.id()],
            child,
            ended: Some(ended),
        })
    }

    /// Starts `farrier up` on the configuration that is there, whose sandboxes have these names; gives where their proxies
    /// listen.
    pub(crate) fn egress<const N: usize>(
        &self,
        names: [&'static str; N],
    ) -> Result<(Target, [SocketAddr; N]), TargetError> {
        let mut command = self.command();
        command
            .args(["up", "--config", "farrier.toml"])
            .env("BENCH_KEY", "a key of the measurement")
            .env("FARRIER_LOG", "warn")
            .env("XDG_STATE_HOME", self.directory.join("state"));
        let (child, said) = self.spawn("farrier", command)?;
        let told = RefCell::new(Vec::new());
        let listens = |line: &str| -> Option<[SocketAddr; N]> {
            told.borrow_mut().push(line.to_owned());
            let told = told.borrow();
            let of = |name: &str| {
                let listens = format!("{name} through http://");
                let mut lines = told.iter();
                lines.find_map(|line| line.split_once(&listens)?.1.trim().parse().ok())
            };
            let all: Option<Vec<SocketAddr>> = names.iter().map(|name| of(name)).collect();
            all?.try_into().ok()
        };
        let (child, addresses, ended) = said.ready("farrier", child, listens)?;
        let target = Target {
            name: "farrier",
            address: addresses.first().copied().unwrap_or(ANY_PORT),
            pids: vec![child.id()],
            child,
            ended: Some(ended),
        };
        Ok((target, addresses))
    }

    /// Starts nginx with one worker.
    pub(crate) fn nginx(&self) -> Result<Target, TargetError> {
        // nginx cannot tell which port the system chose, so one is asked for and given back just before.
        let free = TcpListener::bind(ANY_PORT).and_then(|listener| listener.local_addr());
        let address = free.map_err(self.io("a port"))?;
        let config = self.directory.join("nginx.conf");
        self.write(&config, &nginx_config(address, self))?;
        let mut command = self.command();
        command
            .arg("-p")
            .arg(&self.directory)
            .arg("-c")
            .arg(&config)
            .args(["-e", "stderr"]);
        let (child, said) = self.spawn("nginx", command)?;
        let worker = |line: &str| {
            line.split_once("start worker process ")?
                .1
                .trim()
                .parse()
                .ok()
        };
        let (child, worker, ended) = said.ready("nginx", child, worker)?;
        let pids = vec![child.id(), worker];
        Ok(Target {
            name: "nginx",
            address,
            pids,
            child,
            ended: Some(ended),
        })
    }

    /// Starts another gateway. One that says where it listens is ready; one that was told where, perhaps not yet.
    pub(crate) fn peer(&self, program: &Program<'_>) -> Result<Target, TargetError> {
        let mut command = self.command();
        command
            .args(program.arguments)
            .envs(program.environment.iter().copied());
        let (child, said) = self.spawn(program.name, command)?;
        let (child, address, ended) = match program.listens {
            Listens::At(address) => (child, address, said.ended),
            Listens::Says(find) => said.ready(program.name, child, find)?,
        };
        Ok(Target {
            name: program.name,
            address,
            pids: vec![child.id()],
            child,
            ended: Some(ended),
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.before)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Starts a child on the targets' core: it runs where the thread that starts it runs.
    fn spawn(
        &self,
        name: &'static str,
        mut command: Command,
    ) -> Result<(Child, Said), TargetError> {
        let enter = |core: Option<usize>| core.map_or(Ok(()), Cores::enter);
        enter(self.cores.map(|cores| cores.targets)).map_err(self.io("the targets' core"))?;
        let spawned = command.spawn();
        enter(self.cores.map(|cores| cores.rest)).map_err(self.io("the clients' core"))?;
        let mut child = spawned.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound if name == "nginx" => TargetError::NoNginx,
            io::ErrorKind::NotFound if name == "tinyproxy" => TargetError::NoTinyproxy,
            _ => TargetError::Io {
                what: self.program.display().to_string(),
                source,
            },
        })?;
        let said = child.stderr.take().map(Said::listen);
        let said = said.ok_or_else(|| TargetError::NotReady {
            program: name,
            said: "no stderr".into(),
        })?;
        Ok((child, said))
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), TargetError> {
        fs::write(path, text).map_err(|source| TargetError::Io {
            what: path.display().to_string(),
            source,
        })
    }

    fn io(&self, what: &'static str) -> impl Fn(io::Error) -> TargetError + use<> {
        move |source| TargetError::Io {
            what: what.to_owned(),
            source,
        }
    }
}

// === impl Target ===

impl Target {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// To it, without TLS.
    pub(crate) fn way(&self) -> Way {
        self.address.into()
    }

    pub(crate) fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// Of the process that started all others of it.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) fn stop(mut self) -> Result<(), TargetError> {
        self.tell_to_stop();
        let ended = self.ended.take().map(|ended| ended.recv_timeout(READY));
        let in_time = ended != Some(Err(RecvTimeoutError::Timeout));
        if !in_time {
            self.child.kill().map_err(self.not_waited_for())?;
        }
        self.child.wait().map_err(self.not_waited_for())?;
        if in_time {
            Ok(())
        } else {
            Err(TargetError::NotStopped { program: self.name })
        }
    }

    fn not_waited_for(&self) -> impl Fn(io::Error) -> TargetError + use<> {
        let what = format!("the end of {}", self.name);
        move |source| TargetError::Io {
            what: what.clone(),
            source,
        }
    }

    fn tell_to_stop(&self) {
        // Already gone is as good as told.
        let _gone = kill_process(Pid::from_child(&self.child), Signal::TERM);
    }
}

impl Drop for Target {
    /// Signals the processes of a run that failed.
    fn drop(&mut self) {
        if self.ended.is_some() {
            self.tell_to_stop();
        }
    }
}

/// What a child says on stderr.
#[derive(Debug)]
struct Said {
    lines: Receiver<String>,
    ended: Receiver<()>,
}

impl Said {
    /// Reads until the child ends, whoever listens: it must never have to wait for us.
    fn listen(stderr: ChildStderr) -> Self {
        let (line_sender, lines) = mpsc::sync_channel(SAID_LINES);
        let (end_sender, ended) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // Once the target is ready nobody listens any more.
                let _nobody_listens = line_sender.send(line);
            }
            drop(end_sender);
        });
        Self { lines, ended }
    }

    /// Listens until `find` finds what it wants in a line. A child that does not say it is killed.
    fn ready<T>(
        self,
        program: &'static str,
        mut child: Child,
        find: impl Fn(&str) -> Option<T>,
    ) -> Result<(Child, T, Receiver<()>), TargetError> {
        let mut said = Vec::new();
        while said.len() < SAID_LINES
            && let Ok(line) = self.lines.recv_timeout(READY)
        {
            if let Some(found) = find(&line) {
                return Ok((child, found, self.ended));
            }
            said.push(line);
        }
        // One that has ended by itself needs neither.
        let _ended = child.kill().and_then(|()| child.wait());
        Err(TargetError::NotReady {
            program,
            said: said.join("\n"),
        })
    }
}

// === configurations ===

/// The defaults, but for limits that the measurement would run into.
fn farrier_config(launch: &Launch, ledger: &Path) -> String {
    let Launch {
        upstream,
        connections,
        ..
    } = launch;
    let ledger = ledger.display();
    format!(
        r#"[gateway]
listen = "127.0.0.1:0"
max_connections = {connections}

[[provider]]
name = "upstream"
base_url = "http://{upstream}/v1"

[[route]]
model = "{PLAIN_MODEL}"
provider = "upstream"

[[route]]
model = "{KIMI_MODEL}"
provider = "upstream"
upstream_model = "{KIMI_UPSTREAM_MODEL}"

[ledger]
path = "{ledger}"
max_size = "16GiB"
"#
    )
}

/// Bodies are kept in memory, not in files; connections are kept open on both sides; nothing is logged.
fn nginx_config(listen: SocketAddr, launch: &Launch) -> String {
    let Launch {
        upstream,
        connections,
        ..
    } = launch;
    format!(
        "daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr notice;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    client_max_body_size 32m;
    client_body_buffer_size 32m;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    upstream upstream {{
        server {upstream};
        keepalive 64;
        keepalive_requests 1000000000;
        keepalive_timeout 600s;
    }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://upstream;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_buffering off;
        }}
    }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(directory: &tempfile::TempDir, program: &str) -> Launch {
        Launch {
            cores: None,
            directory: directory.path().to_owned(),
            upstream: SocketAddr::from(([127, 0, 0, 1], 1)),
            program: program.into(),
            before: Vec::new(),
            connections: 16,
        }
    }

    #[test]
    fn a_program_that_ends_before_it_is_ready_is_quoted() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ledger = directory.path().join("ledger.db");
        let started = launch(&directory, "sh").farrier(&ledger, Log::Warnings);
        let error = started
            .expect_err("a shell knows no script of that name")
            .to_string();
        assert!(
            error.starts_with("expected farrier to be ready within 60s, got: "),
            "{error}"
        );
        assert!(error.contains("up"), "{error}");
    }

    #[test]
    fn a_missing_tinyproxy_comes_with_the_line_that_installs_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let started = launch(&directory, "no-such-tinyproxy").peer(&Program {
            name: "tinyproxy",
            arguments: &[],
            environment: &[],
            listens: Listens::At(ANY_PORT),
        });
        let error = started.expect_err("there is no such program").to_string();
        assert!(error.contains("`apt-get install -y tinyproxy`"), "{error}");
    }

    #[test]
    fn a_missing_nginx_comes_with_the_line_that_installs_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let started = launch(&directory, "no-such-nginx").nginx();
        let error = started.expect_err("there is no such program").to_string();
        assert!(
            error.contains("`apt-get install -y nginx-light`"),
            "{error}"
        );
    }
}
